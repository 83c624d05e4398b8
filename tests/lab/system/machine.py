# SPDX-License-Identifier: GPL-2.0-only
"""A whole Debian system with model GPUs in QEMU emulation, over several boots.

It runs QEMU with a copy of the disk that tests/lab/system/image made and with its
own variables of the firmware, and sends scripts to the agent in the system
(files/usr/local/sbin/test-agent). packages/test_life.py uses System. Developers
can run it inside the toolbox:

    python3 -m lab.system.machine [--gpus N] [--image VARIANT] [--packages DIRECTORY]
        [--log FILE] [SCRIPT...]

This boots the system, runs each SCRIPT in it as root, prints the output, and
powers off. Exit status: 0, 1 if the kernel's logs have trouble, 2 if the
machine failed; statuses of SCRIPTs are only printed. The GPUs, the ACPI table
and the rules for the kernel's log are those of tests/lab/vm.py.
"""

import argparse
import base64
import collections
import contextlib
import functools
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from lab import qemu, vm
from lab.emulator import Emulator, end_by_signals

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parents[2]

FIRMWARE = pathlib.Path("/usr/share/AAVMF")
# Seconds, on a host whose two processors have other work too.
BOOT_TIMEOUT = 1800
END_TIMEOUT = 900
COMMAND_TIMEOUT = 1800
# A service's, shorter than END_TIMEOUT, so that systemd names one that hangs.
STOP_TIMEOUT = 600

PAINT = re.compile(r"\x1b(\[[0-9;?=]*[A-Za-z]|c)")

# Bytes of memory that stand for the GPUs'.
MEMORY = 16 << 30

# The result of a script.
Command = collections.namedtuple("Command", "rc output")


class Trouble(Exception):
    """The machine did not boot, its agent does not answer, or a command
    failed."""


def image_directory(variant):
    """The directory that tests/lab/system/image made, which only works outside the
    toolbox."""
    done = subprocess.run([HERE / "image", "--directory", variant], capture_output=True, text=True)
    if done.returncode:
        raise Trouble(done.stderr.strip())
    return pathlib.Path(done.stdout.strip())


def make_disk(path, content):
    """Makes the disk "packages" of a directory, with at least 16 MiB to spare."""
    size = sum(f.stat().st_size + 4096 for f in pathlib.Path(content).rglob("*") if f.is_file())
    done = subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "packages", "-m", "0", "-O", "^has_journal", "-E",
                           "root_owner=0:0,lazy_itable_init=1", "-d", content, path,
                           f"{(size * 11 // 10 >> 20) + 16}M"], capture_output=True, text=True)
    if done.returncode:
        raise Trouble(f"mke2fs: {done.stderr.strip()}")


class System(Emulator):
    """One machine over its boots.

    with System(gpus=[{"name": "gpu", "size": "3G"}], packages="build/repo") as m:
        m.boot()
        m.run("apt-get update")             # raises Trouble unless it succeeds
        m.reboot()
        m.power_off()
    assert not m.failures

    gpus: their names and sizes. packages: a directory, in the machine read-only at
    /srv/packages. image: a variant of tests/lab/system/image. virtualization: the
    machine starts at EL2, and its kernel has /dev/kvm. secure_boot: the
    firmware has the usual keys and checks what it starts. log: a file for the
    console (|), the agent's output (>) and the scripts for it (<), each line
    with the seconds since the machine was made. failures: trouble in the
    kernel's logs.
    """

    smp = 2

    def __init__(self, gpus, ram="2G", packages=None, image="base", virtualization=False, secure_boot=False, log=None):
        super().__init__(None)
        self.image = image_directory(image)
        self.arch = vm.at_el2(vm.ARM64) if virtualization else vm.ARM64
        if image == "bookworm":
            self.arch = vm.untranslated(self.arch)
        self.gpus = [vm.GpuConfig(**g) for g in gpus]
        self.ram, self.secure_boot = vm.parse_size(ram), secure_boot
        # The address is the same with EL2, but vm only knows that of ARM64.
        vm.place_gpus(self.gpus, vm.MEMORY_ADDRESS)
        self.failures, self.console = [], []
        self._boots = self._commands = 0
        self._channel = self._current = self._booted = None
        self._stack = contextlib.ExitStack()
        self._log = self._stack.enter_context(open(log, "w", encoding="utf-8")) if log else None
        try:
            self._make(packages)
        except BaseException:
            self._stack.close()
            raise

    def _make(self, packages):
        # In the cache: the disk has some GiB, and the toolbox's /tmp is in RAM.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=self.image.parent))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.sockets = pathlib.Path(tempfile.mkdtemp(prefix="system-"))
        self._stack.callback(shutil.rmtree, self.sockets, ignore_errors=True)
        self.disk = self.directory / "root.img"
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", self.image / "root.img", self.disk], check=True)
        self._write("/boot/gpu.cpio", vm.archive_of_tables(self.gpus, self.arch, self.sockets))
        # On a slow machine, systemd's default of 90 s is too short for the
        # agent's port and for services, and nothing tries again.
        self._write("/etc/systemd/system.conf", f"[Manager]\nDefaultDeviceTimeoutSec={BOOT_TIMEOUT}\n"
                   f"DefaultTimeoutStartSec={BOOT_TIMEOUT}\nDefaultTimeoutStopSec={STOP_TIMEOUT}\n".encode())
        self.packages = self.directory / "packages.img"
        (self.directory / "empty").mkdir()
        make_disk(self.packages, packages or self.directory / "empty")
        keys = ".ms" if self.secure_boot else ""
        shutil.copy(FIRMWARE / f"AAVMF_VARS{keys}.fd", self.directory / "vars.fd")
        self.firmware = FIRMWARE / f"AAVMF_CODE{keys or '.no-secboot'}.fd"

    def close(self):
        """End everything and remove the disk; allowed at any time and
        repeatedly."""
        self._end_boot()
        self._stack.close()

    def _write(self, name, data):
        """Write a file to the disk; only while the machine is off."""
        source = self.sockets / "file"
        source.write_bytes(data)
        done = subprocess.run(["debugfs", "-w", "-f", "-", self.disk], capture_output=True, text=True,
                              input=f"rm {name}\nwrite {source} {name}\n")
        check = subprocess.run(["debugfs", "-R", f"stat {name}", self.disk], capture_output=True, text=True)
        if f"Size: {len(data)}" not in check.stdout:
            raise Trouble(f"cannot write {name} into {self.disk}: {done.stderr}{check.stderr}")

    # A boot.

    def _arguments(self):
        d, s = self.directory, self.sockets
        # The firmware starts drivers only for disks with a boot index, and GRUB
        # sees only those.
        drives = [("system", self.disk, "off", "1c,bootindex=1"), ("debian", self.image / "debian.img", "on", "1d"),
                  ("packages", self.packages, "on", "1e"), ("esp", f"fat:{self.image}/esp", "on", "1f,bootindex=0")]
        # If this process is killed, the kernel ends QEMU.
        a = ["setpriv", "--pdeathsig", "KILL", *qemu.base(self),
             "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={self.firmware}",
             "-drive", f"if=pflash,format=raw,unit=1,file={d}/vars.fd",
             "-chardev", f"socket,id=test,path={s}/test.sock",
             *self.arch.iommu, "-device", "virtio-serial-pci,addr=2",
             "-device", "virtserialport,chardev=test,name=test"]
        for name, file, readonly, place in drives:
            a += ["-drive", f"if=none,id={name},format=raw,file={file},readonly={readonly},cache=unsafe",
                  "-device", f"virtio-blk-pci,drive={name},addr={place}"]
        a += ["-object", f"memory-backend-memfd,id=gpumem,size={MEMORY},share=on,reserve=off",
              "-device", "ivshmem-plain,memdev=gpumem,addr=3"]
        for number in range(len(self.gpus)):
            a += qemu.gpu(self, s, number)
        return a

    def boot(self):
        """Switch on and wait for the agent, which starts last."""
        self.start()
        self._wait(lambda: self._booted, BOOT_TIMEOUT, "coming up")
        self._boots += 1
        # udev decides which driver gets which device, and may still be busy on
        # a slow machine.
        self.run(f"udevadm settle --timeout={BOOT_TIMEOUT}", timeout=BOOT_TIMEOUT + 10)

    def start(self):
        """Switch on."""
        self._booted, self._raw = None, b""
        self._start_models(self.sockets)
        (self.sockets / "test.sock").unlink(missing_ok=True)
        self._expect(f"{self.sockets}/test.sock", self._agent_line, functools.partial(setattr, self, "_channel"))
        self._start_qemu(self._arguments(), self._console_line, stdin=subprocess.PIPE)
        self._running.callback(self.qemu.stdin.close)
        self._first_line = len(self.console)

    def _end_boot(self):
        super().close()
        self._channel = None

    def _wait(self, condition, timeout, what):
        """Wait for condition(); Trouble if QEMU ends first or time runs out."""
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise Trouble(f"{what}: no end after {timeout} s; the console's last lines:\n" +
                              self._last_lines())
            if self.qemu.stdout not in self._streams:
                self.qemu.wait()
                raise Trouble(f"{what}: QEMU ended with {self.qemu.returncode} {self._last_words()}; the console's last lines:\n" +
                              self._last_lines())
            for key, _ in self._selector.select(min(left, 5)):
                key.data()

    def _last_lines(self):
        return "\n".join(self.console[-25:])

    def _read(self, stream, line):
        data = super()._read(stream, line)
        if stream is self.qemu.stdout:
            self._raw = (self._raw + data)[-65536:]
        return data

    def _console_line(self, line):
        # The firmware and GRUB draw menus with escape sequences.
        line = PAINT.sub("", line)
        self.note("|", line)
        self.console.append(line)

    def _agent_line(self, line):
        self.note(">", line)
        if line.startswith("@@BOOT "):
            self._booted = line.split()[1:]
        elif self._current is not None:
            # A process that the script has left behind may have printed half
            # a line.
            before, mark, rc = line.partition(f"@@RC {self._current['id']} ")
            if before or not mark:
                self._current["lines"].append(before)
            if mark:
                self._current["rc"] = int(rc)

    # For tests.

    @property
    def release(self):
        """The running kernel's release."""
        return self._booted[1]

    def run(self, script, check=True, timeout=COMMAND_TIMEOUT):
        """Run a bash script as root; its Command. With check, a failure raises
        Trouble."""
        self._commands += 1
        self._current = {"id": self._commands, "rc": None, "lines": []}
        self.note("<", script)
        self._channel.sendall(f"RUN {self._current['id']} {base64.b64encode(script.encode()).decode()}\n".encode())
        try:
            self._wait(lambda: self._current["rc"] is not None, timeout, f"command {script!r}")
            lines = self._current["lines"]
            # The agent starts its own line with a line break.
            if lines and not lines[-1]:
                lines.pop()
            done = Command(self._current["rc"], "\n".join(lines))
        finally:
            self._current = None
        if check and done.rc:
            raise Trouble(f"command failed with {done.rc}: {script}\n{done.output}")
        return done

    def ask(self, script, **more):
        """The stripped output of a script that must succeed."""
        return self.run(script, **more).output.strip()

    def restart(self):
        """Shut down and switch on, without waiting for the boot."""
        self._leave("reboot")
        self.start()

    def wait_for_text(self, text, timeout):
        """Wait for a new text on the console, without escape sequences."""
        def seen():
            plain = PAINT.sub("", self._raw.decode("utf-8", "replace"))
            if text not in plain:
                return False
            self._raw = b""
            return True
        self._wait(seen, timeout, f"waiting for {text!r} on the console")

    def wait_for_end(self, timeout):
        """Wait until the machine switches off or restarts; QEMU then ends."""
        self._wait(lambda: self.qemu.stdout not in self._streams, timeout, "switching off")
        self.qemu.wait(timeout=300)
        self._end_boot()

    def _leave(self, verb):
        log = self.run("dmesg").output.splitlines()
        # Don't wait for the status: the agent may end before it answers.
        self._channel.sendall(f"RUN end {base64.b64encode(f'systemctl {verb}'.encode()).decode()}\n".encode())
        self.note("<", f"systemctl {verb}")
        first = self._first_line
        self.wait_for_end(END_TIMEOUT)
        self.failures += [f"kernel log of boot {self._boots}: {t}" for t in vm.troubles(self.console[first:] + log)]

    def reboot(self):
        """Shut down and boot."""
        self._leave("reboot")
        self.boot()

    def power_off(self):
        """Shut down."""
        self._leave("poweroff")

    def keys(self, text):
        """Type on the console."""
        self.qemu.stdin.write(text.encode())
        self.qemu.stdin.flush()


def main():
    parser = argparse.ArgumentParser(description="Boot the Debian system and run scripts in it.")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--image", default="base", help="a variant of tests/lab/system/image")
    parser.add_argument("--packages", help="a directory for /srv/packages")
    parser.add_argument("--log")
    parser.add_argument("scripts", nargs="*")
    args = parser.parse_args()

    end_by_signals()
    gpus = [{"name": f"gpu{i}", "size": "3G"} for i in range(args.gpus)]
    try:
        with System(gpus, packages=args.packages, image=args.image, log=args.log) as machine:
            machine.boot()
            for script in args.scripts:
                done = machine.run(script, check=False)
                print(f"{done.output}\n[{done.rc}] {script}", flush=True)
            machine.power_off()
            for failure in machine.failures:
                print(f"FAILED {failure}")
            return bool(machine.failures)
    except (Trouble, vm.ConfigError, OSError) as e:
        print(f"machine.py: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
