# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of nvgrace-gpu(8) in a virtual GH200 share: one boot for each
class of tests, and the output of its commands."""

import json
import pathlib
import re
import tempfile
import threading
import time

import pytest

from cli import common
from lab import gpu_memory, programs, session, vm

HERE = pathlib.Path(__file__).resolve().parent

DRIVER = "nvgrace_gpu_vfio_pci"
MiB = 1 << 20
# Without the MIG defect, a GPU has no resmem, and its memory may be small.
SMALL = {"mig_dvsec": 1}


def udev(kernel):
    """The udev rule and its program, as {path in the machine: path here}. Without
    them, nothing can be bound at boot."""
    return {"/usr/lib/udev/nvgrace-gpu": str(common.build(kernel.arch.tools).parent / "udev/nvgrace-gpu"),
            "/usr/lib/udev/rules.d/60-nvgrace-gpu.rules": str(common.PROJECT / "scripts/udev/60-nvgrace-gpu.rules")}


# Shell functions for the commands. Their output has the form that lines() and
# the methods below it read.
LIBRARY = r"""
nvgrace=/usr/sbin/nvgrace-gpu
devices=/sys/bus/pci/devices
# say NAME COMMAND...: prints the output and the status of COMMAND, with NAME
# before each line.
say() {
	name=$1
	shift
	"$@" >/tmp/out 2>/tmp/err
	rc=$?
	sed "s/^/$name-out: /" /tmp/out
	sed "s/^/$name-err: /" /tmp/err
	echo "$name-rc: $rc"
}
run() { say run $nvgrace "$@"; }
group() {
	group=$(readlink $devices/$(gpu $1)/iommu_group)
	echo /dev/vfio/${group##*/}
}
# open_gpu NAME: opens the GPU, without its group's file, until close_gpu.
open_gpu() {
	mkfifo /tmp/in /tmp/said
	/tests/device_only $1 </tmp/in >/tmp/said &
	holder=$!
	exec 7>/tmp/in
	read -r word </tmp/said
	echo "holder: $holder"
}
close_gpu() {
	exec 7>&-
	wait $holder || echo "holder: failed"
	rm /tmp/in /tmp/said
}
# retried PAUSED COMMAND...: prints what COMMAND prints. If it fails, and the
# command PAUSED says that the machine or a program stood still meanwhile, it
# runs again, at most ten times in all.
retried() {
	paused=$1
	shift
	for try in 1 2 3 4 5 6 7 8 9 10; do
		tried=$(cut -d. -f1 /proc/uptime)
		"$@" >/tmp/tried && break
		$paused || break
		echo "again: $*"
	done
	cat /tmp/tried
}
# late: whether the driver, which waits 30 s for memory, may have waited too long
# since retried ran its command.
late() { [ $(($(cut -d. -f1 /proc/uptime) - tried)) -ge 25 ]; }
# planted_late: whether the thread of a Planted has paused.
planted_late() { [ "$(host planted_late)" = True ]; }
# memory NAME: address and size of the GPU's memory.
memory() { grep "^$1 " /vm/gpus.conf | cut -d" " -f3,4; }
"""


# On a machine that pauses, a thread that did nothing for this time is stuck.
STUCK_S = 300


class Planted:
    """Changes a machine's memory again and again, in a thread. A program may
    miss it if the thread pauses."""

    # No program reads all memory of a GPU in this time.
    PAUSE_S = 0.01

    def __init__(self):
        self.thread = None
        self.end = threading.Event()
        self.last = self.longest = 0

    def start(self, once):
        self.stop()
        self.end.clear()

        def timed():
            once()
            now = time.monotonic()
            # In this order, because paused() waits for the second.
            self.longest, self.last = max(self.longest, now - self.last), now

        def loop():
            while not self.end.is_set():
                timed()
                time.sleep(0.0002)

        self.thread = threading.Thread(target=loop, daemon=True)
        once()
        self.last, self.longest = time.monotonic(), 0
        self.thread.start()

    def paused(self):
        """Whether the thread has paused since start() or the last call. Waits
        until it goes on."""
        last, end = self.last, time.monotonic() + STUCK_S
        while self.last == last and time.monotonic() < end:
            time.sleep(0.001)
        longest, self.longest = max(self.longest, time.monotonic() - self.last), 0
        return longest > self.PAUSE_S

    def stop(self):
        if self.thread:
            self.end.set()
            self.thread.join()
            self.thread = None


class InMachine:
    """One boot for the tests of a class. They check the output of COMMANDS,
    {name: script}. A command, and all before it, run when a test first asks for
    it. The console is in build/log/LOG-KERNEL.log."""

    __test__ = False
    # Shell functions; C programs of this folder, which go to /tests; and more
    # arguments of vm.Machine.
    LIBRARY, HELPERS, OPTIONS = LIBRARY, (), {}

    @classmethod
    def files(cls, kernel, directory):
        """More files: {path in the machine: path here}."""
        return {}

    @classmethod
    def handlers(cls):
        """More than the lab's. They may start cls.planted, which ends with the
        machine."""
        return {}

    @classmethod
    def prepare(cls, kernel):
        """Sets what depends on the kernel, before the other methods."""

    @pytest.fixture(scope="class", autouse=True)
    def boot(self, request):
        """At the end, the kernel's log has no trouble, and no command failed
        without a test's objection."""
        cls = request.cls
        cls.planted = Planted()
        kernel = vm.Kernel(cls.KERNEL)
        cls.prepare(kernel)
        with tempfile.TemporaryDirectory() as directory:
            files = {**common.installed(kernel, directory), **programs.compile_programs(cls.HELPERS, kernel.arch, HERE),
                     **cls.files(kernel, directory)}
            for name, text in cls.COMMANDS.items():
                script = pathlib.Path(directory, f"{name}.sh")
                script.write_text(cls.LIBRARY + text)
                files[f"/commands/{name}"] = str(script)
            handlers = {**gpu_memory.HANDLERS, "planted_late": lambda machine: cls.planted.paused(),
                        "unplant": lambda machine: cls.planted.stop(), **cls.handlers()}
            cls.session = session.Interactive(kernel, handlers, gpus=cls.GPUS, files=files,
                                              log=programs.log_file(f"{cls.LOG}-{cls.KERNEL}"), **cls.OPTIONS)
        cls.pci = {g.name: g.pci for g in cls.session.machine.gpus}
        cls.base = {g.name: g.base for g in cls.session.machine.gpus}
        yield
        try:
            failures = cls.session.end().failures
        finally:
            cls.planted.stop()
        assert not failures, "\n".join(failures)

    def command(self, name):
        """How the command ended, and what it printed."""
        ran, names = self.session.channel.commands, list(self.COMMANDS)
        for each in names[len(ran):names.index(name) + 1]:
            self.session.run(each, f"sh /commands/{each}")
        return ran[names.index(name)]

    def output(self, command):
        return "\n".join(self.command(command).output)

    def lines(self, command, mark):
        """The text after "mark: " of each such line of a command's output."""
        return [line.removeprefix(mark + ": ") for line in self.command(command).output
                if line.startswith(mark + ": ")]

    def text(self, command, mark):
        return "\n".join(self.lines(command, mark))

    def codes(self, command, name="run"):
        return [int(n) for n in self.lines(command, f"{name}-rc")]

    def documents(self, command, name="run"):
        """The JSON documents in a command's output. All are valid by the
        schema."""
        text, found = self.text(command, f"{name}-out"), []
        decoder = json.JSONDecoder()
        for match in re.finditer(r"^\{$", text, re.M):
            document, _ = decoder.raw_decode(text, match.start())
            common.validate(document)
            found.append(document)
        assert found, f"{command} printed no JSON: {text}"
        return found
