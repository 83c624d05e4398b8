# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the udev rule, and of its helper on fake sysfs trees, with each
shell that may have to run it.

The trees are plain files; tests/packages tests the kernel's reactions in virtual
machines.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import unittest

import pytest

from boot import lines, takeover

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent

UDEV = PROJECT / "scripts" / "udev"
HELPER = UDEV / "nvgrace-gpu"
RULE = UDEV / "60-nvgrace-gpu.rules"
DRIVER = "nvgrace_gpu_vfio_pci"
GPU, OTHER = lines.GPUS

# The toolbox's busybox is an arm64 program, for its machines.
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["qemu-aarch64", "/usr/bin/busybox", "sh"]}

MODPROBE = """#!/bin/sh
echo "$*" >> "$NVGRACE_GPU_ROOT/modprobe.log"
! [ -e "$NVGRACE_GPU_ROOT/modprobe.fails" ] || exit 1
case $1 in
-r) exit 0 ;;
esac
pci=$NVGRACE_GPU_ROOT/sys/bus/pci
mkdir -p "$pci/drivers/nvgrace_gpu_vfio_pci"
for d in "$pci"/devices/*; do
	# As in the kernel: a device without driver, but with the override.
	read -r override < "$d/driver_override"
	if [ "$override" = nvgrace_gpu_vfio_pci ] && ! [ -e "$d/driver" ]; then
		ln -s ../../drivers/nvgrace_gpu_vfio_pci "$d/driver"
	fi
done
"""


class Host:
    """A tree with two GPUs and a modprobe."""

    def __init__(self, devices=(GPU, OTHER)):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="udev-"))
        self.write("sbin/modprobe", MODPROBE)
        (self.root / "sbin" / "modprobe").chmod(0o755)
        self.pci = self.root / "sys" / "bus" / "pci"
        self.write("sys/bus/pci/drivers_probe", "")
        for address in devices:
            self.device(address)

    def close(self):
        shutil.rmtree(self.root)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, newline="")

    def device(self, address, vendor="0x10de", device="0x2342"):
        for name, text in (("vendor", vendor), ("device", device), ("driver_override", "(null)")):
            self.write(f"sys/bus/pci/devices/{address}/{name}", text + "\n")

    def attribute(self, address, name):
        return (self.pci / "devices" / address / name).read_text()

    def bound(self, address, driver):
        self.write(f"sys/bus/pci/drivers/{driver}/unbind", "")
        (self.pci / "devices" / address / "driver").symlink_to(f"../../drivers/{driver}")

    def driver(self, address):
        link = self.pci / "devices" / address / "driver"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def written(self, path):
        return (self.root / "sys/bus/pci" / path).read_text().split()

    def modprobes(self):
        log = self.root / "modprobe.log"
        return log.read_text().splitlines() if log.exists() else []


class Helper:
    """Tests for each shell."""

    shell = ()

    def setUp(self):
        self.host = Host()
        self.addCleanup(self.host.close)

    def run_helper(self, *args, path=None):
        env = {"PATH": path or os.environ["PATH"], "NVGRACE_GPU_ROOT": str(self.host.root)}
        # By its path, because PATH may be another one for the helper.
        shell = [shutil.which(self.shell[0]), *self.shell[1:]]
        result = subprocess.run([*shell, HELPER, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, timeout=600, check=False)
        self.assertEqual(result.stdout, "")
        return result.returncode, result.stderr

    def matches(self, conf, address=GPU):
        self.host.write("etc/nvgrace-gpu.conf", conf)
        rc, said = self.run_helper("match", address)
        self.assertIn(rc, (0, 1), said)
        return rc == 0, said

    def assert_matches(self, conf, wanted, address=GPU):
        got, said = self.matches(conf, address)
        self.assertEqual((got, said), (wanted, ""), repr(conf))

    def test_nothing_is_bound_without_configuration(self):
        self.assertEqual(self.run_helper("match", GPU), (1, ""))
        self.assert_matches((UDEV / "nvgrace-gpu.conf").read_text(), False)

    def test_lines(self):
        for text, binds in lines.GOOD.items():
            with self.subTest(text):
                for address, wanted in zip(lines.GPUS, binds):
                    self.assert_matches(text, wanted, address)

    def test_a_bad_line_is_named_and_the_others_hold(self):
        for line in lines.BAD:
            with self.subTest(line):
                got, said = self.matches(f"{line}\nbind {GPU}\n")
                self.assertTrue(got)
                self.assertRegex(said, r"^nvgrace-gpu: /etc/nvgrace-gpu\.conf:1: .*; the line is ignored; see \S+\n$")

    def test_an_added_id(self):
        """The driver lacks it. The order of lines and files does not matter."""
        other = "0029:01:00.0"
        self.host.device(other, device="0x297e")
        self.assertEqual(self.run_helper("match", other), (1, ""))
        rc, said = self.run_helper("bind", other)
        self.assertEqual(rc, 1)
        self.assertIn("not a GPU that nvgrace-gpu-vfio-pci supports", said)
        for conf, wanted in (("bind all\nid 10de:297e", True), ("id 10DE:297e # a comment\nbind " + other, True),
                             ("id 10de:297e", False), (f"id 10de:297e\nbind all\nignore {other}", False)):
            with self.subTest(conf):
                self.assert_matches(conf, wanted, other)
        self.host.write("etc/nvgrace-gpu.conf.d/ids.conf", "id 10de:297e\n")
        self.assert_matches("bind all", True, other)
        self.host.write("sys/bus/pci/drivers/nvgrace_gpu_vfio_pci/bind", "")
        self.run_helper("bind", other)
        self.assertEqual(self.host.attribute(other, "driver_override"), "nvgrace_gpu_vfio_pci\n")
        # An id alone binds nothing, so no initramfs needs a copy of it.
        self.host.write("etc/nvgrace-gpu.conf", "")
        self.assertEqual(self.run_helper("configured"), (1, ""))
        (self.host.root / "etc/nvgrace-gpu.conf.d/ids.conf").unlink()

    def test_a_driver_that_waits_for_its_users(self):
        """The write to a pipe without a reader waits, as one to such a driver."""
        self.host.bound(GPU, "nvidia")
        pipe = self.host.pci / "drivers/nvidia/unbind"
        pipe.unlink()
        os.mkfifo(pipe)
        # No time passes, but in busybox, which has a sleep of its own.
        (self.host.root / "bin").mkdir(exist_ok=True)
        (self.host.root / "bin/sleep").symlink_to("/bin/true")
        rc, said = self.run_helper("bind", GPU, path=f"{self.host.root}/bin:{os.environ['PATH']}")
        # The child goes on, until somebody reads.
        self.assertEqual((rc, pipe.read_text().strip()), (1, GPU))
        self.assertIn(f"{GPU}: nvidia has not unbound it", said)
        self.assertIn(f"driver_override is {DRIVER}", said)
        self.assertEqual(self.host.attribute(GPU, "driver_override"), DRIVER + "\n")
        self.assertEqual(self.host.written("drivers_probe"), [])

    def test_a_virtual_function_is_no_gpu(self):
        function = "0009:01:00.4"
        self.host.device(function)
        (self.host.pci / "devices" / function / "physfn").symlink_to(f"../{GPU}")
        self.assert_matches("bind all", False, function)
        self.assertIn("not a GPU that nvgrace-gpu-vfio-pci supports", self.run_helper("bind", function)[1])

    def test_a_gpu_with_functions_on_is_left(self):
        self.host.bound(GPU, "nvidia")
        self.host.write(f"sys/bus/pci/devices/{GPU}/sriov_numvfs", "2\n")
        self.assert_left("nvidia", "2 of its virtual functions (SR-IOV) are on")
        self.host.write(f"sys/bus/pci/devices/{GPU}/sriov_numvfs", "0\n")
        self.run_helper("bind", GPU)
        self.assertEqual(self.host.written("drivers/nvidia/unbind"), [GPU])

    def test_in_a_crash_kernel_nothing_is_bound(self):
        self.assert_matches("bind all", True)
        for path, text, name in (("proc/vmcore", "", "a crash dump"),
                                 ("proc/cmdline", "ro elfcorehdr=0x6a000000 reset_devices nr_cpus=1\n", "a crash dump"),
                                 ("proc/cmdline", "ro systemd.unit=rescue.target\n", "a rescue system")):
            with self.subTest(path, text=text):
                self.host.write(path, text)
                self.assert_matches("bind all", False)
                rc, said = self.run_helper("bind", GPU)
                self.assertEqual(rc, 1)
                self.assertIn(f"{GPU}: not bound, because this is ", said)
                self.assertIn(name, said)
                self.assertEqual(self.host.attribute(GPU, "driver_override"), "(null)\n")
                (self.host.root / path).unlink()
        self.host.write("proc/cmdline", "root=/dev/sda1 quiet crashkernel=512M * rescues\n")
        self.assert_matches("bind all", True)

    def test_capital_letters_and_large_domains(self):
        for address in ("00ab:c1:1f.7", "00de:f1:1f.7", "1000a:00:00.0"):
            self.host.device(address)
            self.assert_matches(f"bind {address.upper()}\n", True, address)
            self.assert_matches(f"bind {address}\n", True, address.upper())

    def test_files_of_the_folder_count_alike(self):
        self.host.write(f"etc/nvgrace-gpu.conf.d/{GPU}.conf", f"bind {GPU}\n")
        self.host.write("etc/nvgrace-gpu.conf.d/old.conf~", f"bind {OTHER}\n")
        self.assert_matches("# nothing", True)
        self.assert_matches("# nothing", False, OTHER)
        self.assert_matches(f"ignore {GPU}", False)

    def test_what_is_no_gpu_of_ours(self):
        self.host.device("0000:00:01.0", vendor="0x8086")
        self.host.device("0000:00:02.0", device="0x2330")
        self.host.write("etc/nvgrace-gpu.conf", "bind all\n")
        for address, status, reason in (("0000:00:01.0", 1, "supports"), ("0000:00:02.0", 1, "supports"),
                                        ("0000:00:03.0", 1, "no such PCI device"), ("01:00.0", 2, "not a PCI address"),
                                        ("../devices", 2, "not a PCI address")):
            for command in ("match", "bind"):
                rc, said = self.run_helper(command, address)
                self.assertEqual(rc, status, said)
                if (command, reason) == ("match", "supports"):
                    self.assertEqual(said, "")      # udev asks for any GPU of NVIDIA
                    continue
                self.assertIn(address, said)
                self.assertIn(reason, said)
        self.assertEqual(self.host.modprobes(), [])

    def test_usage(self):
        for args in ((), ("bind",), ("match", GPU, GPU), ("frobnicate",), ("release", GPU)):
            rc, said = self.run_helper(*args)
            self.assertEqual(rc, 2)
            self.assertIn("usage:", said)

    def test_bind_loads_the_module_for_a_device_without_driver(self):
        self.assertEqual(self.run_helper("bind", GPU), (0, ""))
        self.assertEqual(self.host.modprobes(), ["nvgrace-gpu-vfio-pci"])
        self.assertEqual(self.host.driver(GPU), DRIVER)
        self.assertIsNone(self.host.driver(OTHER))
        self.assertEqual(self.host.attribute(OTHER, "driver_override"), "(null)\n")
        self.assertEqual(self.run_helper("bind", GPU), (0, ""))
        self.assertEqual(self.host.modprobes(), ["nvgrace-gpu-vfio-pci"], "bound devices are left as they are")

    def test_bind_asks_the_kernel_to_probe_when_the_module_is_there(self):
        (self.host.pci / "drivers" / DRIVER).mkdir(parents=True)
        rc, said = self.run_helper("bind", GPU)
        self.assertEqual(self.host.written("drivers_probe"), [GPU])
        self.assertEqual(self.host.modprobes(), [])
        # These are plain files, so nothing is bound.
        self.assertEqual(rc, 1)
        self.assertIn(f"{GPU}: {DRIVER} refused it", said)

    def test_bind_takes_the_device_from_a_gpu_driver(self):
        for driver in ("nouveau", "nvidia"):
            with self.subTest(driver):
                host = self.host = Host()
                self.addCleanup(host.close)
                host.bound(GPU, driver)
                host.write(f"proc/driver/nvidia/gpus/{GPU}/numa_status", "Node: -1\nStatus: offline\n")
                host.write(f"proc/driver/nvidia/gpus/{GPU}/information", "Model: GH200\nDevice Minor: 	 1\n")
                for n in (0, 1):
                    host.write(f"dev/nvidia{n}", "")
                (host.root / "proc/77/fd").mkdir(parents=True)
                (host.root / "proc/77/fd/3").symlink_to(host.root / "dev/nvidia0")
                rc, said = self.run_helper("bind", GPU)
                self.assertEqual((rc, said.count("\n")), (1, 1))
                self.assertEqual(host.written(f"drivers/{driver}/unbind"), [GPU])
                self.assertEqual(host.written("drivers_probe"), [GPU])

    def assert_left(self, driver, reason):
        self.host.write(f"sys/bus/pci/devices/{GPU}/driver_override", DRIVER + "\n")
        rc, said = self.run_helper("bind", GPU)
        self.assertEqual(rc, 1)
        self.assertIn(f"{GPU}: still bound to {driver}: ", said)
        self.assertIn(reason, said)
        self.assertEqual(said.count("\n"), 1)
        self.assertEqual(self.host.attribute(GPU, "driver_override"), "\n", "an override must not be left over")
        self.assertEqual(self.host.written(f"drivers/{driver}/unbind"), [])
        self.assertEqual(self.host.written("drivers_probe"), [])
        self.assertEqual(self.host.driver(GPU), driver)

    def test_the_table(self):
        """The helper binds a GPU where nvgrace-gpu(8) would. Otherwise the GPU
        stays bound to its driver."""
        for case in takeover.CASES:
            with self.subTest(case.name):
                self.check_case(case)

    def test_the_table_where_there_are_no_programs(self):
        """As in an initramfs. Device files are found by their inodes. Files that
        don't tell the GPU by that are not found."""
        for case in takeover.CASES:
            if {takeover.ANONYMOUS, takeover.DMABUF} & {*case.opened} or case.name.startswith("a container") or \
                    case.name.endswith("no GPU's own"):
                continue
            with self.subTest(case.name):
                self.check_case(case, path="/nonexistent")

    def check_case(self, case, **more):
        host = self.host = Host(devices=())
        self.addCleanup(host.close)
        case.build(host.root, real_links=True)
        (host.pci / "drivers" / DRIVER).mkdir(parents=True)
        rc, said = self.run_helper("bind", takeover.GPU, **more)
        # These are plain files, so nothing is bound.
        self.assertEqual(rc, 1)
        if case.verdict == "taken":
            self.assertIn(f"{DRIVER} refused it", said)
            self.assertEqual(host.written("drivers_probe"), [GPU])
            if case.bound:
                self.assertEqual(host.written(f"drivers/{case.bound}/unbind"), [GPU])
            return
        self.assertIn(f"{GPU}: {f'still bound to {case.bound}' if case.bound else 'not bound'}: ", said)
        self.assertIn("in use: process 77 (client)" if case.verdict == "in use" else "its memory is online", said)
        self.assertIn(case.names, said)
        self.assertEqual(said.count("\n"), 1)
        self.assertEqual(host.attribute(GPU, "driver_override"), "\n", "an override must not be left over")
        self.assertEqual(host.written("drivers_probe"), [])
        self.assertEqual(host.driver(GPU), case.bound)
        if case.bound:
            self.assertEqual(host.written(f"drivers/{case.bound}/unbind"), [])

    def bind_is_refused(self):
        """The helper's message if nouveau's GPU is unbound, but this driver
        refuses it. The test acts as the kernel through pipes, for which the
        helper waits."""
        self.host.bound(GPU, "nouveau")
        (self.host.pci / "drivers" / DRIVER).mkdir(parents=True)
        unbind, probe = self.host.pci / "drivers/nouveau/unbind", self.host.pci / "drivers_probe"

        def kernel():
            with open(unbind, encoding="ascii") as pipe:
                self.assertEqual(pipe.read(), GPU + "\n")
                (self.host.pci / "devices" / GPU / "driver").unlink()
            with open(probe, encoding="ascii") as pipe:
                self.assertEqual(pipe.read(), GPU + "\n")

        for file in (unbind, probe):
            file.unlink()
            os.mkfifo(file)
        thread = threading.Thread(target=kernel, daemon=True)
        thread.start()
        rc, said = self.run_helper("bind", GPU)
        thread.join()
        self.assertEqual(rc, 1)
        self.assertEqual(self.host.attribute(GPU, "driver_override"), "\n")
        return said

    def test_after_a_failure_the_old_driver_has_it_again(self):
        self.assertIn("refused it, and it is bound to nouveau again", self.bind_is_refused())
        self.assertEqual(self.host.written("drivers/nouveau/bind"), [GPU])

    def test_an_old_driver_that_does_not_bind_it_again_is_named(self):
        # A directory can't be written.
        (self.host.pci / "drivers/nouveau/bind").mkdir(parents=True)
        said = self.bind_is_refused()
        self.assertIn(f"{GPU}: can't bind it to nouveau again", said)
        self.assertNotIn("it is bound to nouveau again", said)

    def test_an_override_that_can_not_be_set(self):
        self.read_only(GPU, "(null)")
        rc, said = self.run_helper("bind", GPU)
        self.assertEqual(rc, 1)
        self.assertIn(f"{GPU}: not bound: can't set driver_override to {DRIVER}", said)
        self.assertEqual(self.host.written("drivers_probe"), [])

    def read_only(self, address, text):
        """Make a device's override read-only."""
        override, target = self.host.pci / "devices" / address / "driver_override", self.host.root / "read-only"
        override.unlink()
        target.write_text(text + "\n")
        subprocess.run(["mount", "--bind", "-o", "ro", target, target], check=True)
        self.addCleanup(subprocess.run, ["umount", target], check=True)
        override.symlink_to(target)

    def test_an_override_of_before_is_kept(self):
        """Only the udev rule replaces it, not a helper that a person runs."""
        self.host.bound(GPU, "vfio-pci")
        self.host.write(f"sys/bus/pci/devices/{GPU}/driver_override", "vfio-pci\n")
        (self.host.root / "proc/4711/fd").mkdir(parents=True)
        (self.host.root / "proc/4711/fd/1").symlink_to(self.host.root / "etc/hostname")
        self.host.write("etc/hostname", "host\n")
        (self.host.root / "proc/4711/fd/9").symlink_to("anon_inode:[vfio-device]")
        rc, said = self.run_helper("bind", GPU)
        self.assertEqual(rc, 1)
        self.assertIn("process 4711", said)
        self.assertEqual(self.host.attribute(GPU, "driver_override"), "vfio-pci\n")

    def test_a_driver_that_does_not_unbind_it(self):
        self.host.bound(GPU, "nouveau")
        (self.host.pci / "drivers" / DRIVER).mkdir(parents=True)
        unbind = self.host.pci / "drivers/nouveau/unbind"
        unbind.unlink()
        unbind.mkdir()      # can't be written
        rc, said = self.run_helper("bind", GPU)
        self.assertEqual(rc, 1)
        self.assertIn(f"{GPU}: can't unbind it from nouveau", said)
        self.assertEqual(self.host.attribute(GPU, "driver_override"), "\n")
        self.assertEqual(self.host.written("drivers_probe"), [])

    def test_what_was_cut_short_goes_on(self):
        """At the end of an initramfs, the helper or udev may be killed at any
        point. The next run must bind the GPU."""
        features = f"sys/bus/pci/drivers/{DRIVER}/features"
        for point in ("before", "override", "unbound", "probing"):
            with self.subTest(point):
                host = self.host = Host()
                self.addCleanup(host.close)
                host.write(features, "zap\n")
                if point != "before":
                    host.write(f"sys/bus/pci/devices/{GPU}/driver_override", DRIVER + "\n")
                if point in ("before", "override"):
                    host.bound(GPU, "nouveau")
                if point == "probing":
                    # The link exists while the driver's probe runs, and is
                    # removed if the probe fails.
                    host.bound(GPU, DRIVER)
                self.run_helper("bind", GPU)
                self.assertEqual(host.attribute(GPU, "driver_override"),
                                 DRIVER + "\n" if point in ("unbound", "probing") else "\n")
                self.assertEqual(host.written("drivers_probe"), [GPU])
                if point == "probing":
                    self.assertEqual(host.written(f"drivers/{DRIVER}/bind"), [GPU], "bind waits for a probe, and drivers_probe does not")
        with self.subTest("bound"):
            host = self.host = Host()
            self.addCleanup(host.close)
            host.write(features, "zap\n")
            host.bound(GPU, DRIVER)
            host.write(f"sys/bus/pci/devices/{GPU}/nvgrace_gpu/mode", "carve-out\n")
            self.assertEqual(self.run_helper("bind", GPU), (0, ""))
            self.assertEqual(host.written("drivers_probe"), [])

    def test_bind_leaves_memory_that_is_online(self):
        self.host.bound(GPU, "nvidia")
        self.host.write(f"proc/driver/nvidia/gpus/{GPU}/numa_status", "Node: 2\nStatus: online\n")
        self.assert_left("nvidia", "online as System RAM")

    def test_bind_leaves_the_device_to_its_driver_when_there_is_no_module(self):
        self.host.write("modprobe.fails", "")
        self.host.bound(GPU, "nouveau")
        self.assert_left("nouveau", "can't load the module nvgrace-gpu-vfio-pci")

    def test_without_module_no_other_driver_binds_the_device(self):
        self.host.write("modprobe.fails", "")
        rc, said = self.run_helper("bind", GPU)
        self.assertEqual(rc, 1)
        self.assertIn("can't load the module nvgrace-gpu-vfio-pci", said)
        self.assertEqual(self.host.attribute(GPU, "driver_override"), DRIVER + "\n")

    def test_configured(self):
        for conf, wanted in (("", 1), ("# bind all\n", 1), (f"ignore {GPU}\n", 1), ("bind all", 0), (f"bind {GPU}\n", 0)):
            with self.subTest(conf):
                self.host.write("etc/nvgrace-gpu.conf", conf)
                self.assertEqual(self.run_helper("configured"), (wanted, ""))
        self.host.write("etc/nvgrace-gpu.conf", "bind nothing\n")
        self.assertEqual(self.run_helper("configured")[0], 1)

    def test_release(self):
        self.host.write(f"sys/bus/pci/devices/{OTHER}/driver_override", DRIVER + "\n")
        self.host.write(f"sys/module/{DRIVER}/refcnt", "1\n")
        self.host.device("0000:00:01.0", vendor="0x8086")
        self.host.write("sys/bus/pci/devices/0000:00:01.0/driver_override", "vfio-pci\n")
        self.host.write(f"sys/bus/pci/devices/{GPU}/driver_override", DRIVER + "\n")
        self.host.bound(GPU, DRIVER)
        with self.subTest("in a chroot, nothing"):
            self.assertEqual(self.run_helper("release"), (0, ""))
            self.assertEqual(self.host.modprobes(), [])
        (self.host.root / "run/systemd/system").mkdir(parents=True)
        self.host.write("modprobe.fails", "")
        with self.subTest("what is in use stays"):
            rc, said = self.run_helper("release")
            self.assertEqual(rc, 0)
            self.assertIn("stays loaded", said)
            self.assertEqual(self.host.attribute(GPU, "driver_override"), DRIVER + "\n")
            self.assertEqual(self.host.attribute(OTHER, "driver_override"), "\n")
            self.assertEqual(self.host.attribute("0000:00:01.0", "driver_override"), "vfio-pci\n")
            # The last device must not decide its status.
            self.host.device("ffff:00:00.0", vendor="0x8086")
            self.assertEqual(self.run_helper("release")[0], 0)
        (self.host.root / "modprobe.fails").unlink()
        with self.subTest("what isn't goes"):
            (self.host.pci / "devices" / GPU / "driver").unlink()
            self.assertEqual(self.run_helper("release"), (0, ""))
            self.assertEqual(self.host.modprobes()[-1], "-r nvgrace-gpu-vfio-pci")
            self.assertEqual(self.host.attribute(GPU, "driver_override"), "\n")
        with self.subTest("one that can't be cleared is named, and the others are cleared"):
            self.host.write(f"sys/bus/pci/devices/{OTHER}/driver_override", DRIVER + "\n")
            self.read_only(GPU, DRIVER)
            rc, said = self.run_helper("release")
            self.assertEqual(rc, 1)
            self.assertIn(f"{GPU}: can't clear its driver_override", said)
            self.assertEqual(self.host.attribute(OTHER, "driver_override"), "\n")


class Dash(Helper, unittest.TestCase):
    shell = SHELLS["dash"]


@pytest.mark.all
class Bash(Helper, unittest.TestCase):
    shell = SHELLS["bash"]


@pytest.mark.all
class Busybox(Helper, unittest.TestCase):
    shell = SHELLS["busybox"]


class Rule(unittest.TestCase):
    def test_udev_understands_it(self):
        result = subprocess.run(["udevadm", "verify", RULE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                check=False)
        self.assertEqual(result.returncode, 0, result.stdout)

    def test_it_comes_before_the_rule_that_loads_drivers(self):
        drivers = sorted(p.name for p in pathlib.Path("/usr/lib/udev/rules.d").glob("*drivers.rules"))
        self.assertEqual(drivers, ["80-drivers.rules"])
        self.assertLess(RULE.name, drivers[0])
