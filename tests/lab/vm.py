# SPDX-License-Identifier: GPL-2.0-only
"""Boots a virtual GH200 under plain QEMU emulation, runs commands in it, and
gives a verdict.

Tests import Machine and the names of the runner's other parts from here. As a
program, inside the toolbox (scripts/dev/toolbox run):

    python3 -m lab.vm --help

README.md beside this file describes the configuration, the machine and what a
command finds in the guest. The parts, each of which imports only those before
it: arch.py, config.py, acpi.py (the firmware's table), archive.py, initramfs.py
(the guest's files), kernel.py, debugger.py, verdict.py (the log scan),
channel.py (what an init says), qemu.py (its command line), emulator.py.
"""

import argparse
import base64
import contextlib
import functools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from lab import qemu, verdict
from lab.acpi import archive_of_tables
from lab.arch import AMD64, ARM64, MEMORY_ADDRESS, NATIVE, RAM_ADDRESS, at_el2, untranslated
from lab.archive import Cpio, decompress
from lab.channel import Channel
from lab.config import MEMORY_BLOCK, MEMORY_MAX, ConfigError, GpuConfig, parse_size, place_gpus
from lab.debugger import Debugger
from lab.emulator import Emulator, end_by_signals
from lab.initramfs import run_files
from lab.kernel import PROJECT, Kernel
from lab.verdict import Result, scan_log, troubles

__all__ = [
    "AMD64", "ARM64", "ConfigError", "Cpio", "GpuConfig", "Kernel", "MEMORY_ADDRESS", "MEMORY_BLOCK", "MEMORY_MAX", "Machine", "NATIVE",
    "PROJECT", "RAM_ADDRESS", "archive_of_tables", "at_el2", "decompress", "parse_size", "place_gpus", "run_files",
    "scan_log", "troubles", "untranslated",
]


class Machine(Emulator):
    """One boot of one virtual GH200.

    with Machine("newest", gpus=[{"name": "gpu", "size": "3G"}], commands=["ls /dev/vfio"]) as m:
        result = m.run()

    handlers: functions of the host by name, each called as handler(machine,
    *words) -> answer (a str without line breaks) when something in the machine asks
    "name words...". They run while the program that asked waits.
    hypervisor: QEMU's name of a CPU that starts the kernel at EL2 (arm64), for
    a host with /dev/kvm.
    guests: {name: commands} of at most seven guests that such a host may run. Each
    has three virtio-serial ports in the host: guest-NAME-printed, -questions and
    -console. self.guests[NAME] is its Channel, and its log is scanned like the
    machine's.
    devices: values of QEMU's option -device, for more PCI functions. Bridges
    would change the GPUs' addresses.
    """

    def __init__(self, kernel, gpus=(), memory="256G", ram="1G", smp=2, files=None, commands=(), module=None,
                 module_params="", append="", handlers=None, allow=(), timeout=600, log=None, echo=None,
                 hypervisor=None, guests=None, devices=()):
        super().__init__(echo)
        self.kernel = kernel if isinstance(kernel, Kernel) else Kernel(kernel)
        self.arch = self.kernel.arch
        if hypervisor:
            self.arch = at_el2(self.arch, hypervisor)
        self.memory_size = parse_size(memory or 0)
        if self.memory_size & (self.memory_size - 1) or self.memory_size > MEMORY_MAX:
            raise ConfigError("the memory's size must be a power of two up to 256G")
        self.ram, self.smp = parse_size(ram), smp
        self.memory_address = MEMORY_ADDRESS if self.memory_size else 0
        self.gpus = [g if isinstance(g, GpuConfig) else GpuConfig(**g) for g in gpus]
        place_gpus(self.gpus, self.memory_address)
        self.files = dict(files or {})
        # Set by tests/stress/coverage: the folder for the counters of lines that ran.
        self.coverage = os.environ.get("COVERAGE")
        script = [(c["name"], c["run"]) if isinstance(c, dict) else (f"cmd{i}", c) for i, c in enumerate(commands, 1)]
        last = [("dmesg", "dmesg"), *([("counters", "counters")] if self.coverage else [])]
        if len({name for name, _ in [*script, *last]}) < len(script) + len(last):
            raise ConfigError("the names of commands must be unique")
        self.module, self.module_params, self.append = module, module_params, append
        self.handlers = {"peek": self._peek, "poke": self._poke, "counters": self._counters, "ready": self._ready,
                         **(handlers or {})}
        self.allow, self.timeout, self.log_path = tuple(allow), timeout, log
        self.channel = Channel(self, script=[*script, *last])
        self.guests = {name: Channel(self, name, [*own, ("dmesg", "dmesg")]) for name, own in (guests or {}).items()}
        self.devices = tuple(devices)
        self.memory_fd = -1
        self._over = False

    # Start.

    def _open_memory(self):
        """A file descriptor for the memory that stands for the GPUs'."""
        return os.memfd_create("gpu-memory")

    def _files(self, directory):
        """The initramfs. The kernel wants the ACPI table first."""
        parts = [archive_of_tables(self.gpus, self.arch, directory), self.kernel.initramfs().read_bytes()]
        memory = f"{self.memory_address:#x} {self.memory_size:#x}\n" if self.memory_size else ""
        gpus = "".join(f"{g.name} {g.pci} {self._hex(g.base)} {self._hex(g.size)} {g.port} {g.acpi}\n"
                       for g in self.gpus)
        parts.append(run_files(self.files, memory, gpus, self.module, self.module_params))
        path = pathlib.Path(directory, "initrd")
        path.write_bytes(b"".join(parts))
        return path

    @staticmethod
    def _hex(value):
        return "-" if value is None else f"{value:#x}"

    def start(self):
        """Start the models and QEMU. run() does so unless a test did, to watch
        the machine run."""
        enter = self._running.callback
        directory = tempfile.mkdtemp(prefix="vm-")
        enter(shutil.rmtree, directory, ignore_errors=True)
        if self.log_path:
            self._log = self._running.enter_context(open(self.log_path, "w", encoding="utf-8"))
        if self.memory_size:
            self.memory_fd = self._open_memory()
            enter(os.close, self.memory_fd)
            os.ftruncate(self.memory_fd, self.memory_size)
        initrd = self._files(directory)
        self._start_models(directory)
        for channel, port, name in qemu.ports_of(self):
            line = {"printed": channel.printed, "questions": channel.question, "console": channel.console_line}[port]
            connected = functools.partial(setattr, channel, "connection") if port == "questions" else lambda stream: None
            self._expect(f"{directory}/{name}.sock", line, connected)
        self.gdb = f"{directory}/gdb.sock"
        self._started = time.monotonic()
        self._start_qemu(qemu.arguments(self, directory, initrd), self.channel.console_line, stdin=subprocess.DEVNULL,
                         env=qemu.environment(), pass_fds=[self.memory_fd] if self.memory_fd >= 0 else [])
        return self

    # Run.

    def run(self):
        """Boot, run all commands, power off; the Result. What happens in the
        guest raises nothing."""
        if self.qemu is None:
            self.start()
        try:
            self.loop()
            seconds = self.elapsed()
            ended = self._last_words()
        finally:
            self.close()
        if self.coverage and self.channel.done:
            self._save_counters()
        failures = verdict.judge(self, ended or f"QEMU ended with {self.qemu.returncode}")
        return Result(self.kernel, self.channel.commands, failures, self.channel.console, next(iter(self.channel.boots), None), seconds)

    def loop(self, until=lambda: False):
        """Read what the machine says, until it ends, its time is over or
        until() is true. Returns whether it goes on."""
        while self._streams and not self._over and not until():
            # A handler may have changed the timeout.
            left = self.timeout - self.elapsed()
            if left <= 0:
                self._time_is_over()
                break
            # What the kernel logs before a command ends comes before that end.
            for key, _ in sorted(self._selector.select(min(left, 1)), key=lambda ready: ready[0].fileobj is not self.qemu.stdout):
                key.data()
        if self._over:
            return False
        if self._streams:
            return True
        # QEMU has closed everything, so it is ending; close() does the rest.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.qemu.wait(timeout=10)
        return False

    def _time_is_over(self):
        """Fail. Nothing that the machine says later gives it more time."""
        self._over = True
        where = f"in command {self.channel.running}" if self.channel.running else "outside any command"
        self.channel.failures.append(f"timeout after {self.timeout:.0f} s, {where}")

    def _save_counters(self):
        """Write an archive for this machine alone."""
        with tempfile.NamedTemporaryFile(dir=self.coverage, prefix=f"{self.kernel.name}-", suffix=".tgz", delete=False) as f:
            f.write(base64.b64decode("".join(self.channel.output("counters"))))

    # GPU memory, from outside.

    def _offset(self, address, count):
        if not self.memory_address <= address <= address + count <= self.memory_address + self.memory_size:
            raise ValueError(f"{count} bytes at {address:#x} are not in the GPU memory")
        return address - self.memory_address

    def read_gpu_memory(self, address, count):
        """count bytes at a physical address of the guest."""
        return os.pread(self.memory_fd, count, self._offset(address, count))

    def write_gpu_memory(self, address, data):
        os.pwrite(self.memory_fd, data, self._offset(address, len(data)))

    @contextlib.contextmanager
    def stopped(self):
        """A Debugger, while a machine that has guests is stopped."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self.timeout)
            connection.connect(self.gdb)
            debugger = Debugger(connection)
            try:
                yield debugger
            finally:
                debugger.ask("D")

    # Handlers of every machine.

    @staticmethod
    def _peek(machine, address, count):
        return machine.read_gpu_memory(int(address, 0), int(count, 0)).hex()

    @staticmethod
    def _poke(machine, address, data):
        machine.write_gpu_memory(int(address, 0), bytes.fromhex(data))

    def _model(self, name):
        if name not in self.models:
            raise ValueError(f"there is no model of a GPU {name} in this machine")
        return self.models[name].gpu

    @staticmethod
    def _counters(machine, name):
        gpu = machine._model(name)
        # What a counter counts is then done.
        with gpu.lock:
            return json.dumps(gpu.counters)

    @staticmethod
    def _ready(machine, name, ms):
        machine._model(name).not_ready_for(None if ms == "never" else int(ms, 0))


# ---- The program -------------------------------------------------------------

def print_result(result, out):
    for c in result.commands:
        print(f"{'ok    ' if c.rc == 0 else 'FAILED'} {c.name} ({c.seconds:.1f} s)", file=out)
    for f in result.failures:
        print(f"FAILED {f}", file=out)
    boot = "never booted" if result.boot_seconds is None else f"booted in {result.boot_seconds:.1f} s"
    print(f"{'ok    ' if result.ok else 'FAILED'} kernel {result.kernel.name} ({result.release}): {boot}, "
          f"{result.seconds:.1f} s in all", file=out)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python3 -m lab.vm", description="Boot a virtual GH200, run the configuration's commands, print a verdict.",
                                     epilog="Exit status: 0 if nothing failed, 1 if something did, 2 if the configuration is invalid.")
    parser.add_argument("--kernel", required=True, help="a name of tests/lab/kernels.conf")
    parser.add_argument("--config", required=True, help="a JSON file, - for standard input")
    parser.add_argument("--module", help="the kernel module to load before the commands")
    parser.add_argument("--log", help="write the console and what the commands print there, with times")
    parser.add_argument("--quiet", action="store_true", help="print only the verdict, not what the commands say")
    args = parser.parse_args(argv)

    def echo(mark, line):
        if mark == ">":
            print(line, flush=True)

    end_by_signals()
    try:
        config = json.loads(sys.stdin.read() if args.config == "-" else pathlib.Path(args.config).read_text("utf-8"))
        with Machine(args.kernel, **config, module=args.module, log=args.log, echo=None if args.quiet else echo) as machine:
            result = machine.run()
    except (ConfigError, OSError, TypeError, ValueError) as e:
        print(f"vm: {e}", file=sys.stderr)
        return 2
    print_result(result, sys.stdout)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
