# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of nvgrace-gpu(8) in a virtual GH200 share: one boot for each
class of tests, and the output of its commands.

The command line of a test file may begin with the kernel's name. This module
removes it from sys.argv and stores it as KERNEL.
"""

import json
import pathlib
import re
import sys
import tempfile
import threading
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))
import common  # noqa: E402  (needs the path above)
import vm  # noqa: E402

KERNEL = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else "newest"

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
	/tests/holder $(group $1) $(gpu $1) </tmp/in >/tmp/said &
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
# planted_late: whether the thread of a Planted paused, for tests that have this
# handler.
planted_late() { [ "$(host planted_late)" = True ]; }
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


def base(machine, name):
    """The physical address of a GPU's memory."""
    return next(g.base for g in machine.gpus if g.name == name)


def never_ready(machine, name):
    """A handler. After the GPU's next reset, its memory never becomes ready."""
    machine.models[name].gpu.set_reset_delay(None)


def ready_again(machine, name):
    """A handler. The GPU's memory is ready now and after each reset."""
    gpu = machine.models[name].gpu
    gpu.set_reset_delay(0)
    gpu.not_ready_for(0)


class InMachine(unittest.TestCase):
    """One boot. Each test method checks the output of one or more of its
    commands. setUpClass() of a subclass calls boot()."""

    maxDiff = None

    @classmethod
    def boot(cls, log, gpus, commands, helpers, files=None, **more):
        """Runs commands, {name: script}, in a machine with the program and the
        module. helpers: C programs of this folder, which go to /tests. files:
        {path in the machine: path here}. more: arguments of vm.Machine. The
        console is in build/log/LOG-KERNEL.log."""
        kernel = vm.Kernel(KERNEL)
        path = vm.PROJECT / "build/log" / f"{log}-{KERNEL}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as directory:
            there = {**common.installed(kernel, directory), **(files or {})}
            for name in helpers:
                there[f"/tests/{name}"] = str(common.build_helper(name, directory, kernel.arch.gcc))
            with vm.Machine(kernel, gpus=gpus, files=there, log=path,
                            commands=[{"name": n, "run": text} for n, text in commands.items()], **more) as machine:
                cls.pci = {g.name: g.pci for g in machine.gpus}
                cls.base = {g.name: g.base for g in machine.gpus}
                cls.result = machine.run()

    def lines(self, command, mark):
        """The text after "mark: " of each such line of a command's output."""
        return [line.removeprefix(mark + ": ") for line in self.result.command(command).output
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
        self.assertTrue(found, f"{command} printed no JSON: {text}")
        return found
