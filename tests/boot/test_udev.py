# SPDX-License-Identifier: GPL-2.0-only
"""The udev rule, and what its program decides on trees of plain files.
test_bind.py has its steps, cli/test_in_machine.py runs it in a virtual GH200, and
tests/packages in whole systems.
"""

import os
import pathlib
import subprocess

import pytest

from boot import lines
from cli.common import build

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent

RULE = PROJECT / "scripts/udev/60-nvgrace-gpu.rules"
GPU, OTHER = lines.GPUS


class Host:
    def __init__(self, root):
        self.root = root
        for address, slot, serial in zip(lines.GPUS, lines.SLOTS, lines.SERIALS):
            self.device(address)
            self.write(f"sys/bus/pci/slots/{slot}/address", address.rpartition(".")[0] + "\n")
            self.write(f"sys/bus/pci/devices/{address}/serial_number", serial + "\n")

    def write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def device(self, address, vendor="0x10de", device="0x2342"):
        for name, text in (("vendor", vendor), ("device", device)):
            self.write(f"sys/bus/pci/devices/{address}/{name}", text + "\n")

    def run(self, *words):
        """The status of the program, and its messages."""
        done = subprocess.run([build().parent / "udev/nvgrace-gpu", *words], env={**os.environ, "NVGRACE_GPU_ROOT": str(self.root)},
                              capture_output=True, text=True)
        assert done.stdout == ""
        return done.returncode, done.stderr

    def binds(self, text, *addresses):
        """Whether the configuration binds each of the GPUs, and the messages."""
        self.write("etc/nvgrace-gpu.conf", text)
        got = [self.run("match", a) for a in addresses or lines.GPUS]
        return tuple(status == 0 for status, _ in got), "".join(said for _, said in got)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_nothing_is_bound_without_configuration(host):
    assert host.run("match", GPU) == host.run("configured") == (1, "")


def test_lines(host):
    for text, binds in lines.GOOD.items():
        assert host.binds(text) == (binds, ""), text


def test_a_bad_line_is_named_and_the_others_hold(host):
    for line in lines.BAD:
        got, said = host.binds(f"{line}\nbind 0009:01:00.0\n", GPU)
        # Some of them have this address, and may be an "ignore".
        assert got == (GPU not in line or line.startswith("bind"),), line
        assert said.startswith(f"nvgrace-gpu: {GPU}: /etc/nvgrace-gpu.conf:1: "), (line, said)
        assert "\x1b" not in said


def test_what_may_be_an_ignore_binds_nothing_that_it_may_mean(host):
    for text, binds in lines.UNCLEAR.items():
        for address, wanted in zip(lines.GPUS, binds):
            (got,), said = host.binds(text, address)
            assert got == wanted, (text, address)
            named = text.startswith("bind all") or f"bind {address}" in text
            assert ("not bound, because /etc/nvgrace-gpu.conf:" in said) == (named and not wanted), (text, said)


def test_a_file_that_can_not_be_read(host):
    host.write("etc/nvgrace-gpu.conf.d/kept.conf/x", "")
    got, said = host.binds("bind all")
    assert got == (False, False)
    assert "/etc/nvgrace-gpu.conf.d/kept.conf: can't be read: Is a directory" in said
    assert host.binds(f"bind {GPU}")[0] == (True, False)


def test_links(host):
    """What a link leads to may come later in the boot."""
    for link, target, binds in (("nvgrace-gpu.conf.d/kept.conf", "/srv/kept.conf", False), ("nvgrace-gpu.conf.d", "/srv/conf.d", False),
                                ("nvgrace-gpu.conf.d", "moved", True)):
        host.write("etc/moved/all.conf", "")
        path = host.root / "etc" / link
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target)
        got, said = host.binds("bind all")
        assert got == (binds, binds), (link, said)
        assert (f"/etc/{link}: can't be read: No such file or directory" in said) != binds
        path.unlink()
        if path.parent.name != "etc":
            path.parent.rmdir()


def test_a_slot_that_the_kernel_does_not_know(host):
    """It may be the GPU's."""
    for name in lines.SLOTS:
        host.write(f"sys/bus/pci/slots/{name}/address", "ffff:01:00\n")
        (host.root / f"sys/bus/pci/devices/{GPU}/serial_number").unlink(missing_ok=True)
    assert host.binds("bind all\nignore slot=3") == ((False, False), "")
    assert host.binds(f"bind all\nignore serial={lines.SERIALS[0]}") == ((False, True), "")
    assert host.binds("bind slot=3") == ((False, False), "")


def test_an_added_id(host):
    """The driver lacks it. The order of lines and files does not matter."""
    other = "0029:01:00.0"
    host.device(other, device="0x297e")
    for conf, wanted in (("bind all", False), ("bind all\nid 10de:297e", True), (f"id 10DE:297e # a comment\nbind {other}", True),
                         ("id 10de:297e", False), (f"id 10de:297e\nbind all\nignore {other}", False)):
        assert host.binds(conf, other) == ((wanted,), ""), conf
    host.write("etc/nvgrace-gpu.conf.d/ids.conf", "id 10de:297e\n")
    assert host.binds("bind all", other) == ((True,), "")


def test_configured(host):
    for conf, status in (("", 1), ("# bind all\n", 1), (f"ignore {GPU}\n", 1), ("id 10de:2342", 1), ("bind nothing", 1),
                         ("bind all", 0), (f"bind {GPU}\n", 0)):
        host.write("etc/nvgrace-gpu.conf", conf)
        assert host.run("configured") == (status, ""), conf


def test_files_of_the_folder_count_alike(host):
    host.write(f"etc/nvgrace-gpu.conf.d/{GPU}.conf", f"bind {GPU}\n")
    host.write("etc/nvgrace-gpu.conf.d/old.conf~", f"bind {OTHER}\n")
    assert host.binds("# nothing") == ((True, False), "")
    assert host.binds(f"ignore {GPU}") == ((False, False), "")


def test_capital_letters_and_large_domains(host):
    for address in ("00ab:c1:1f.7", "00de:f1:1f.7", "1000a:00:00.0"):
        host.device(address)
        for conf, asked in ((address.upper(), address), (address, address.upper())):
            assert host.binds(f"bind {conf}", asked) == ((True,), "")


def test_what_is_no_gpu_of_ours(host):
    """udev asks for any 3D controller of NVIDIA."""
    host.device("0000:00:01.0", vendor="0x8086")
    host.device("0000:00:02.0", device="0x2330")
    host.device("0009:01:00.4")
    (host.root / "sys/bus/pci/devices/0009:01:00.4/physfn").symlink_to(f"../{GPU}")
    for address in ("0000:00:01.0", "0000:00:02.0", "0000:00:03.0", "0009:01:00.4", "01:00.0", "../devices", ""):
        assert host.binds("bind all", address) == ((False,), ""), address


ORDINARY = ["quiet", "root=/dev/sda1 crashkernel=512M * rescues", "crash_kexec_post_notifiers", "systemd.unit=multi-user.target",
            "init=/lib/systemd/systemd", "single=0 10 S1", 'note="boot single user"', "single systemd.unit=graphical.target", "rescue 5",
            "systemd.debug_shell rd.shell", "rd.break systemd.break=pre-udev break=premount", "BOOT_IMAGE=/vmlinuz-6.1-rescue"]
RESCUE = ["recovery nomodeset dis_ucode_ldr", "single", "rescue", "emergency", "s", "S", "1", "-b", "-s", "systemd.unit=rescue.target",
          '"systemd.unit=emergency.target"', 'systemd.unit="rescue.target"', "systemd.unit=runlevel1.target", "systemd.unit=emergency.service", "3 single",
          "systemd.unit=multi-user.target rescue", "rd.rescue", "rd.emergency", "rd.systemd.unit=rescue.target 3", "init=/bin/sh",
          "init=/usr/bin/bash", "single systemd.unit=nonsense", "recovery 3",
          "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-0-rescue-0123456789abcdef0123456789abcdef root=/dev/sda1"]


def test_rescue_systems(host):
    for line in (*ORDINARY, *RESCUE):
        host.write("proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro {line}\n")
        (got,), said = host.binds("bind all", GPU)
        assert got == (line in ORDINARY), line
        assert ("not bound, because this is a rescue system (" in said) == (line in RESCUE), said
        # Where nothing is to be bound, nothing is said.
        assert host.binds("", GPU) == ((False,), "")


def test_the_kernel_of_a_crash_dump(host):
    for path, text in (("proc/cmdline", "ro elfcorehdr=0x6a000000 reset_devices nr_cpus=1\n"), ("proc/vmcore", "")):
        host.write(path, text)
        got, said = host.binds("bind all", GPU)
        assert got == (False,)
        assert "this is the kernel of a crash dump" in said
        (host.root / path).unlink()


def test_usage(host):
    for words in ((), ("bind",), ("match", GPU, GPU), ("frobnicate",), ("leave", GPU), ("release",)):
        status, said = host.run(*words)
        assert status == 2
        assert "usage:" in said


def test_it_needs_no_more_than_these_libraries():
    said = subprocess.run(["readelf", "-d", build().parent / "udev/nvgrace-gpu"], capture_output=True, text=True, check=True).stdout
    names = {line.partition("[")[2].partition(".so")[0] for line in said.splitlines() if "(NEEDED)" in line}
    assert names <= {"libglib-2.0", "libkmod", "libc", "libasan", "libubsan", "libgcov", "libm"}, names


def test_udev_understands_the_rule():
    done = subprocess.run(["udevadm", "verify", RULE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def test_the_rule_comes_before_the_one_that_loads_drivers():
    drivers = sorted(p.name for p in pathlib.Path("/usr/lib/udev/rules.d").glob("*drivers.rules"))
    assert drivers == ["80-drivers.rules"]
    assert RULE.name < drivers[0]
