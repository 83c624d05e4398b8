# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the udev rule, and of its helper on fake sysfs trees, with each
shell that may have to run it.

The trees are plain files; tests/packages tests the kernel's reactions in virtual
machines.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading

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
    """A tree with two GPUs and a modprobe, and the shell that runs the helper."""

    def __init__(self, shell, devices=(GPU, OTHER)):
        self.shell = shell
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="udev-"))
        self.write("sbin/modprobe", MODPROBE)
        (self.root / "sbin" / "modprobe").chmod(0o755)
        self.pci = self.root / "sys" / "bus" / "pci"
        self.write("sys/bus/pci/drivers_probe", "")
        for address in devices:
            self.device(address)

    def close(self):
        if (self.root / "read-only").exists():
            subprocess.run(["umount", self.root / "read-only"], check=True)
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

    def run_helper(self, *args, path=None):
        env = {"PATH": path or os.environ["PATH"], "NVGRACE_GPU_ROOT": str(self.root)}
        # By its path, because PATH may be another one for the helper.
        shell = [shutil.which(self.shell[0]), *self.shell[1:]]
        result = subprocess.run([*shell, HELPER, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, timeout=600, check=False)
        assert result.stdout == ""
        return result.returncode, result.stderr

    def refused(self, *args, **more):
        """What the helper says where it ends with 1."""
        rc, said = self.run_helper(*args, **more)
        assert rc == 1, said
        return said

    def matches(self, conf, address=GPU):
        self.write("etc/nvgrace-gpu.conf", conf)
        rc, said = self.run_helper("match", address)
        assert rc in (0, 1), said
        return rc == 0, said

    def assert_matches(self, conf, wanted, address=GPU):
        got, said = self.matches(conf, address)
        assert (got, said) == (wanted, ""), repr(conf)

    def assert_left(self, driver, reason):
        self.write(f"sys/bus/pci/devices/{GPU}/driver_override", DRIVER + "\n")
        said = self.refused("bind", GPU)
        assert f"{GPU}: still bound to {driver}: " in said
        assert reason in said
        assert said.count("\n") == 1
        assert self.attribute(GPU, "driver_override") == "\n", "an override must not be left over"
        assert self.written(f"drivers/{driver}/unbind") == []
        assert self.written("drivers_probe") == []
        assert self.driver(GPU) == driver

    def bind_is_refused(self):
        """The helper's message if nouveau's GPU is unbound, but this driver
        refuses it. The test acts as the kernel through pipes, for which the
        helper waits."""
        self.bound(GPU, "nouveau")
        (self.pci / "drivers" / DRIVER).mkdir(parents=True)
        unbind, probe = self.pci / "drivers/nouveau/unbind", self.pci / "drivers_probe"

        def kernel():
            with open(unbind, encoding="ascii") as pipe:
                assert pipe.read() == GPU + "\n"
                (self.pci / "devices" / GPU / "driver").unlink()
            with open(probe, encoding="ascii") as pipe:
                assert pipe.read() == GPU + "\n"

        for file in (unbind, probe):
            file.unlink()
            os.mkfifo(file)
        thread = threading.Thread(target=kernel, daemon=True)
        thread.start()
        said = self.refused("bind", GPU)
        thread.join()
        assert self.attribute(GPU, "driver_override") == "\n"
        return said

    def read_only(self, address, text):
        """Make a device's override read-only."""
        override, target = self.pci / "devices" / address / "driver_override", self.root / "read-only"
        override.unlink()
        target.write_text(text + "\n")
        subprocess.run(["mount", "--bind", "-o", "ro", target, target], check=True)
        override.symlink_to(target)


@pytest.fixture(params=["dash", *(pytest.param(name, marks=pytest.mark.all) for name in ("bash", "busybox"))])
def another(request):
    """A function for another Host, with the shell of this test."""
    with contextlib.ExitStack() as stack:
        def another(**more):
            host = Host(SHELLS[request.param], **more)
            stack.callback(host.close)
            return host
        yield another


@pytest.fixture
def host(another):
    return another()


def test_nothing_is_bound_without_configuration(host):
    assert host.run_helper("match", GPU) == (1, "")
    host.assert_matches((UDEV / "nvgrace-gpu.conf").read_text(), False)


def test_lines(host):
    for text, binds in lines.GOOD.items():
        for address, wanted in zip(lines.GPUS, binds):
            host.assert_matches(text, wanted, address)


def test_a_bad_line_is_named_and_the_others_hold(host):
    for line in lines.BAD:
        got, said = host.matches(f"{line}\nbind {GPU}\n")
        assert got
        assert re.search(r"^nvgrace-gpu: /etc/nvgrace-gpu\.conf:1: .*; the line is ignored; see \S+\n$", said), said


def test_an_added_id(host):
    """The driver lacks it. The order of lines and files does not matter."""
    other = "0029:01:00.0"
    host.device(other, device="0x297e")
    assert host.run_helper("match", other) == (1, "")
    said = host.refused("bind", other)
    assert "not a GPU that nvgrace-gpu-vfio-pci supports" in said
    for conf, wanted in (("bind all\nid 10de:297e", True), ("id 10DE:297e # a comment\nbind " + other, True),
                         ("id 10de:297e", False), (f"id 10de:297e\nbind all\nignore {other}", False)):
        host.assert_matches(conf, wanted, other)
    host.write("etc/nvgrace-gpu.conf.d/ids.conf", "id 10de:297e\n")
    host.assert_matches("bind all", True, other)
    host.write("sys/bus/pci/drivers/nvgrace_gpu_vfio_pci/bind", "")
    host.run_helper("bind", other)
    assert host.attribute(other, "driver_override") == "nvgrace_gpu_vfio_pci\n"
    # An id alone binds nothing, so no initramfs needs a copy of it.
    host.write("etc/nvgrace-gpu.conf", "")
    assert host.run_helper("configured") == (1, "")
    (host.root / "etc/nvgrace-gpu.conf.d/ids.conf").unlink()


def test_a_driver_that_waits_for_its_users(host):
    """The write to a pipe without a reader waits, as one to such a driver."""
    host.bound(GPU, "nvidia")
    pipe = host.pci / "drivers/nvidia/unbind"
    pipe.unlink()
    os.mkfifo(pipe)
    # No time passes, but in busybox, which has a sleep of its own.
    (host.root / "bin").mkdir(exist_ok=True)
    (host.root / "bin/sleep").symlink_to("/bin/true")
    rc, said = host.run_helper("bind", GPU, path=f"{host.root}/bin:{os.environ['PATH']}")
    # The child goes on, until somebody reads.
    assert (rc, pipe.read_text().strip()) == (1, GPU)
    assert f"{GPU}: nvidia has not unbound it" in said
    assert f"driver_override is {DRIVER}" in said
    assert host.attribute(GPU, "driver_override") == DRIVER + "\n"
    assert host.written("drivers_probe") == []


def test_a_virtual_function_is_no_gpu(host):
    function = "0009:01:00.4"
    host.device(function)
    (host.pci / "devices" / function / "physfn").symlink_to(f"../{GPU}")
    host.assert_matches("bind all", False, function)
    assert "not a GPU that nvgrace-gpu-vfio-pci supports" in host.run_helper("bind", function)[1]


def test_a_gpu_with_functions_on_is_left(host):
    host.bound(GPU, "nvidia")
    host.write(f"sys/bus/pci/devices/{GPU}/sriov_numvfs", "2\n")
    host.assert_left("nvidia", "2 of its virtual functions (SR-IOV) are on")
    host.write(f"sys/bus/pci/devices/{GPU}/sriov_numvfs", "0\n")
    host.run_helper("bind", GPU)
    assert host.written("drivers/nvidia/unbind") == [GPU]


def test_in_a_crash_kernel_nothing_is_bound(host):
    host.assert_matches("bind all", True)
    for path, text, name in (("proc/vmcore", "", "a crash dump"),
                             ("proc/cmdline", "ro elfcorehdr=0x6a000000 reset_devices nr_cpus=1\n", "a crash dump"),
                             ("proc/cmdline", "ro systemd.unit=rescue.target\n", "a rescue system")):
        host.write(path, text)
        host.assert_matches("bind all", False)
        said = host.refused("bind", GPU)
        assert f"{GPU}: not bound, because this is " in said
        assert name in said
        assert host.attribute(GPU, "driver_override") == "(null)\n"
        (host.root / path).unlink()
    host.write("proc/cmdline", "root=/dev/sda1 quiet crashkernel=512M * rescues\n")
    host.assert_matches("bind all", True)


def test_capital_letters_and_large_domains(host):
    for address in ("00ab:c1:1f.7", "00de:f1:1f.7", "1000a:00:00.0"):
        host.device(address)
        host.assert_matches(f"bind {address.upper()}\n", True, address)
        host.assert_matches(f"bind {address}\n", True, address.upper())


def test_files_of_the_folder_count_alike(host):
    host.write(f"etc/nvgrace-gpu.conf.d/{GPU}.conf", f"bind {GPU}\n")
    host.write("etc/nvgrace-gpu.conf.d/old.conf~", f"bind {OTHER}\n")
    host.assert_matches("# nothing", True)
    host.assert_matches("# nothing", False, OTHER)
    host.assert_matches(f"ignore {GPU}", False)


def test_what_is_no_gpu_of_ours(host):
    host.device("0000:00:01.0", vendor="0x8086")
    host.device("0000:00:02.0", device="0x2330")
    host.write("etc/nvgrace-gpu.conf", "bind all\n")
    for address, status, reason in (("0000:00:01.0", 1, "supports"), ("0000:00:02.0", 1, "supports"),
                                    ("0000:00:03.0", 1, "no such PCI device"), ("01:00.0", 2, "not a PCI address"),
                                    ("../devices", 2, "not a PCI address")):
        for command in ("match", "bind"):
            rc, said = host.run_helper(command, address)
            assert rc == status, said
            if (command, reason) == ("match", "supports"):
                assert said == ""      # udev asks for any GPU of NVIDIA
                continue
            assert address in said
            assert reason in said
    assert host.modprobes() == []


def test_usage(host):
    for args in ((), ("bind",), ("match", GPU, GPU), ("frobnicate",), ("release", GPU)):
        rc, said = host.run_helper(*args)
        assert rc == 2
        assert "usage:" in said


def test_bind_loads_the_module_for_a_device_without_driver(host):
    assert host.run_helper("bind", GPU) == (0, "")
    assert host.modprobes() == ["nvgrace-gpu-vfio-pci"]
    assert host.driver(GPU) == DRIVER
    assert host.driver(OTHER) is None
    assert host.attribute(OTHER, "driver_override") == "(null)\n"
    assert host.run_helper("bind", GPU) == (0, "")
    assert host.modprobes() == ["nvgrace-gpu-vfio-pci"], "bound devices are left as they are"


def test_bind_asks_the_kernel_to_probe_when_the_module_is_there(host):
    (host.pci / "drivers" / DRIVER).mkdir(parents=True)
    # These are plain files, so nothing is bound.
    said = host.refused("bind", GPU)
    assert host.written("drivers_probe") == [GPU]
    assert host.modprobes() == []
    assert f"{GPU}: {DRIVER} refused it" in said


def test_bind_takes_the_device_from_a_gpu_driver(host):
    host.bound(GPU, "nouveau")
    assert host.refused("bind", GPU).count("\n") == 1
    assert host.written("drivers/nouveau/unbind") == [GPU]
    assert host.written("drivers_probe") == [GPU]


def in_an_initramfs(case):
    """Whether the helper finds out about a case where there are no programs. It finds
    device files by their inodes, and not files that don't tell the GPU by that."""
    return not ({takeover.ANONYMOUS, takeover.DMABUF} & {*case.opened} or case.name.startswith("a container") or
                case.name.endswith("no GPU's own"))


CASES = [*(pytest.param(case, {}, id=case.name) for case in takeover.CASES),
         *(pytest.param(case, {"path": "/nonexistent"}, id=f"{case.name}, no programs") for case in takeover.CASES if in_an_initramfs(case))]


@pytest.mark.parametrize("case, more", CASES)
def test_the_table(another, case, more):
    """The helper binds a GPU where nvgrace-gpu(8) would. Otherwise the GPU
    stays bound to its driver."""
    host = another(devices=())
    case.build(host.root, real_links=True)
    (host.pci / "drivers" / DRIVER).mkdir(parents=True)
    # These are plain files, so nothing is bound.
    said = host.refused("bind", takeover.GPU, **more)
    if case.verdict == "taken":
        assert f"{DRIVER} refused it" in said
        assert host.written("drivers_probe") == [GPU]
        if case.bound:
            assert host.written(f"drivers/{case.bound}/unbind") == [GPU]
        return
    assert f"{GPU}: {f'still bound to {case.bound}' if case.bound else 'not bound'}: " in said
    assert ("in use: process 77 (client)" if case.verdict == "in use" else "its memory is online as System RAM") in said
    assert case.names in said
    assert said.count("\n") == 1
    assert host.attribute(GPU, "driver_override") == "\n", "an override must not be left over"
    assert host.written("drivers_probe") == []
    assert host.driver(GPU) == case.bound
    if case.bound:
        assert host.written(f"drivers/{case.bound}/unbind") == []


def test_after_a_failure_the_old_driver_has_it_again(host):
    assert "refused it, and it is bound to nouveau again" in host.bind_is_refused()
    assert host.written("drivers/nouveau/bind") == [GPU]


def test_an_old_driver_that_does_not_bind_it_again_is_named(host):
    # A directory can't be written.
    (host.pci / "drivers/nouveau/bind").mkdir(parents=True)
    said = host.bind_is_refused()
    assert f"{GPU}: can't bind it to nouveau again" in said
    assert "it is bound to nouveau again" not in said


def test_an_override_that_can_not_be_set(host):
    host.read_only(GPU, "(null)")
    said = host.refused("bind", GPU)
    assert f"{GPU}: not bound: can't set driver_override to {DRIVER}" in said
    assert host.written("drivers_probe") == []


def test_an_override_of_before_is_kept(host):
    """Only the udev rule replaces it, not a helper that a person runs."""
    host.bound(GPU, "vfio-pci")
    host.write(f"sys/bus/pci/devices/{GPU}/driver_override", "vfio-pci\n")
    (host.root / "proc/4711/fd").mkdir(parents=True)
    (host.root / "proc/4711/fd/1").symlink_to(host.root / "etc/hostname")
    host.write("etc/hostname", "host\n")
    (host.root / "proc/4711/fd/9").symlink_to("anon_inode:[vfio-device]")
    said = host.refused("bind", GPU)
    assert "process 4711" in said
    assert host.attribute(GPU, "driver_override") == "vfio-pci\n"


def test_a_driver_that_does_not_unbind_it(host):
    host.bound(GPU, "nouveau")
    (host.pci / "drivers" / DRIVER).mkdir(parents=True)
    unbind = host.pci / "drivers/nouveau/unbind"
    unbind.unlink()
    unbind.mkdir()      # can't be written
    said = host.refused("bind", GPU)
    assert f"{GPU}: can't unbind it from nouveau" in said
    assert host.attribute(GPU, "driver_override") == "\n"
    assert host.written("drivers_probe") == []


def test_what_was_cut_short_goes_on(another):
    """At the end of an initramfs, the helper or udev may be killed at any
    point. The next run must bind the GPU."""
    features = f"sys/bus/pci/drivers/{DRIVER}/features"
    for point in ("before", "override", "unbound", "probing"):
        host = another()
        host.write(features, "zap\n")
        if point != "before":
            host.write(f"sys/bus/pci/devices/{GPU}/driver_override", DRIVER + "\n")
        if point in ("before", "override"):
            host.bound(GPU, "nouveau")
        if point == "probing":
            # The link exists while the driver's probe runs, and is
            # removed if the probe fails.
            host.bound(GPU, DRIVER)
        host.run_helper("bind", GPU)
        assert host.attribute(GPU, "driver_override") == (DRIVER + "\n" if point in ("unbound", "probing") else "\n")
        assert host.written("drivers_probe") == [GPU]
        if point == "probing":
            assert host.written(f"drivers/{DRIVER}/bind") == [GPU], "bind waits for a probe, and drivers_probe does not"
    host = another()
    host.write(features, "zap\n")
    host.bound(GPU, DRIVER)
    host.write(f"sys/bus/pci/devices/{GPU}/nvgrace_gpu/mode", "carve-out\n")
    assert host.run_helper("bind", GPU) == (0, "")
    assert host.written("drivers_probe") == []


def test_bind_leaves_the_device_to_its_driver_when_there_is_no_module(host):
    host.write("modprobe.fails", "")
    host.bound(GPU, "nouveau")
    host.assert_left("nouveau", "can't load the module nvgrace-gpu-vfio-pci")


def test_without_module_no_other_driver_binds_the_device(host):
    host.write("modprobe.fails", "")
    said = host.refused("bind", GPU)
    assert "can't load the module nvgrace-gpu-vfio-pci" in said
    assert host.attribute(GPU, "driver_override") == DRIVER + "\n"


def test_configured(host):
    for conf, wanted in (("", 1), ("# bind all\n", 1), (f"ignore {GPU}\n", 1), ("bind all", 0), (f"bind {GPU}\n", 0)):
        host.write("etc/nvgrace-gpu.conf", conf)
        assert host.run_helper("configured") == (wanted, "")
    host.write("etc/nvgrace-gpu.conf", "bind nothing\n")
    assert host.run_helper("configured")[0] == 1


def test_release(host):
    host.write(f"sys/bus/pci/devices/{OTHER}/driver_override", DRIVER + "\n")
    host.write(f"sys/module/{DRIVER}/refcnt", "1\n")
    host.device("0000:00:01.0", vendor="0x8086")
    host.write("sys/bus/pci/devices/0000:00:01.0/driver_override", "vfio-pci\n")
    host.write(f"sys/bus/pci/devices/{GPU}/driver_override", DRIVER + "\n")
    host.bound(GPU, DRIVER)
    # In a chroot, nothing.
    assert host.run_helper("release") == (0, "")
    assert host.modprobes() == []
    (host.root / "run/systemd/system").mkdir(parents=True)
    host.write("modprobe.fails", "")
    # What is in use stays.
    rc, said = host.run_helper("release")
    assert rc == 0
    assert "stays loaded" in said
    assert host.attribute(GPU, "driver_override") == DRIVER + "\n"
    assert host.attribute(OTHER, "driver_override") == "\n"
    assert host.attribute("0000:00:01.0", "driver_override") == "vfio-pci\n"
    # The last device must not decide its status.
    host.device("ffff:00:00.0", vendor="0x8086")
    assert host.run_helper("release")[0] == 0
    (host.root / "modprobe.fails").unlink()
    # What isn't goes.
    (host.pci / "devices" / GPU / "driver").unlink()
    assert host.run_helper("release") == (0, "")
    assert host.modprobes()[-1] == "-r nvgrace-gpu-vfio-pci"
    assert host.attribute(GPU, "driver_override") == "\n"
    # One that can't be cleared is named, and the others are cleared.
    host.write(f"sys/bus/pci/devices/{OTHER}/driver_override", DRIVER + "\n")
    host.read_only(GPU, DRIVER)
    said = host.refused("release")
    assert f"{GPU}: can't clear its driver_override" in said
    assert host.attribute(OTHER, "driver_override") == "\n"


def test_udev_understands_the_rule():
    result = subprocess.run(["udevadm", "verify", RULE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            check=False)
    assert result.returncode == 0, result.stdout


def test_the_rule_comes_before_the_one_that_loads_drivers():
    drivers = sorted(p.name for p in pathlib.Path("/usr/lib/udev/rules.d").glob("*drivers.rules"))
    assert drivers == ["80-drivers.rules"]
    assert RULE.name < drivers[0]
