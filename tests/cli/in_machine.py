# SPDX-License-Identifier: GPL-2.0-only
"""What tests of nvgrace-gpu(8) in a virtual GH200 share: a boot for each class of tests, and what its commands have printed.

A test file names its kernel on its command line: KERNEL is taken from there when this is imported.
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

KERNEL = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else "7.2"

# For the commands; what lines() and its like read is in this form.
LIBRARY = r"""
nvgrace=/usr/sbin/nvgrace-gpu
devices=/sys/bus/pci/devices
# say NAME COMMAND...: what it prints, and its status, each line with the name.
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
"""


class Planted:
    """Faults in the memory of a machine, kept up by a thread."""

    def __init__(self):
        self.thread = None
        self.end = threading.Event()

    def start(self, once):
        self.stop()
        self.end.clear()

        def loop():
            while not self.end.is_set():
                once()
                time.sleep(0.0002)

        self.thread = threading.Thread(target=loop, daemon=True)
        once()
        self.thread.start()

    def stop(self):
        if self.thread:
            self.end.set()
            self.thread.join()
            self.thread = None


def base(machine, name):
    """Where a GPU's memory is."""
    return next(g.base for g in machine.gpus if g.name == name)


def never_ready(machine, name):
    """A handler: after its next reset, the GPU's memory is never ready."""
    machine.models[name].gpu.set_reset_delay(None)


class InMachine(unittest.TestCase):
    """One boot, whose commands are each judged by a test method. setUpClass() of a subclass calls boot()."""

    maxDiff = None

    @classmethod
    def boot(cls, log, gpus, commands, helpers, files=None, **more):
        """Run {name: script} in a machine with the program, the module, helpers (C programs of this folder) in /tests, and files.
        The console is in build/log/LOG-KERNEL.log; more is for vm.Machine."""
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
        """The text after "mark: " in a command's output."""
        return [line.removeprefix(mark + ": ") for line in self.result.command(command).output
                if line.startswith(mark + ": ")]

    def text(self, command, mark):
        return "\n".join(self.lines(command, mark))

    def codes(self, command, name="run"):
        return [int(n) for n in self.lines(command, f"{name}-rc")]

    def documents(self, command, name="run"):
        """The JSON documents among a command's output, checked against the schema."""
        text, found = self.text(command, f"{name}-out"), []
        decoder = json.JSONDecoder()
        for match in re.finditer(r"^\{$", text, re.M):
            document, _ = decoder.raw_decode(text, match.start())
            common.validate(document)
            found.append(document)
        self.assertTrue(found, f"{command} printed no JSON: {text}")
        return found
