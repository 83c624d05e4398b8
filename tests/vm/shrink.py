#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Shortens a failing sequence of the program "random".

    shrink.py KERNEL SEED OPERATIONS

Inside the toolbox, after `make modules` for that kernel. Runs the sequence,
which must fail, and leaves out as many of its operations as it can while it
still fails (ddmin). One boot serves all trials as long as the machine lives. If
a trial ends the machine, that counts as a failure, and the next trial gets a
new one. Prints the trace of the shortest sequence found, and the command that
repeats it. Status 0 if there is one."""

import argparse
import queue
import re
import sys
import threading

import machine
import suite
import vm

# Seconds for a boot with all its trials. The program's own alarm ends a trial
# that is stuck.
BOOT_S = 7200

LOOP = """
while arguments=$(host trial); do
	/tests/random $arguments
	host ended $?
done
"""


def ranges(numbers):
    """Rising numbers as the program's argument: 0-99,205."""
    parts = []
    for n in numbers:
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(f"{a}-{b}" if a != b else f"{a}" for a, b in parts)


def shorter(failing, fails, show=lambda count: None):
    """The shortest failing part of a failing list that it finds. fails(list)
    returns the part that was needed, up to the failure, or None."""
    # Most failures come from what happened just before.
    count = 1
    while count < len(failing):
        found = fails(failing[-count:])
        if found is not None:
            failing = found
            break
        count *= 4
    show(len(failing))
    size = len(failing)
    while size > 1:
        size = -(-size // 2)
        start = 0
        while start < len(failing):
            found = fails(failing[:start] + failing[start + size:]) if len(failing) > size else None
            if found is None:
                start += size
            else:
                failing = found
                show(len(failing))
    return failing


class Trials:
    """Runs the program again and again, in as few machines as possible."""

    def __init__(self, kernel, seed, operations):
        self.kernel, self.seed, self.operations = kernel, seed, operations
        self.wanted, self.results = queue.SimpleQueue(), queue.SimpleQueue()
        self.output = []
        self.thread = None
        self.count = 0
        self.files = suite.compile_programs(["random"], kernel.arch)
        self.files.update(suite.modules_for(kernel, {"random"}))

    def _next(self, machine_):
        arguments = self.wanted.get()
        if arguments is None:
            raise EOFError("no more trials")
        self.output = []
        return arguments

    def _ended(self, machine_, status):
        self.results.put((int(status), self.output))

    def _echo(self, mark, line):
        if mark == ">" and not line.startswith("@@"):
            self.output.append(line)

    def _run(self):
        with vm.Machine(self.kernel, gpus=machine.gpus(self.kernel), ram=machine.ram_size(self.kernel),
                        append=machine.APPEND, files=self.files, commands=[{"name": "trials", "run": LOOP}],
                        module=str(suite.module_of(self.kernel)), timeout=BOOT_S, echo=self._echo,
                        handlers={**suite.HANDLERS, "trial": self._next, "ended": self._ended}) as m:
            result = m.run()
        self.results.put((-1, [*self.output, *(f"# {f}" for f in result.failures)]))

    def run(self, kept):
        """(status, output) of the program with these operations. Status -1: the
        machine ended, or is stuck."""
        if not self.thread or not self.thread.is_alive():
            self.results = queue.SimpleQueue()
            self.thread = threading.Thread(target=self._run, daemon=True)
            self.thread.start()
        self.count += 1
        self.wanted.put(f"{self.seed} {self.operations} {kept}")
        status, output = self.results.get()
        if status == -1:
            self.thread.join()
        return status, output

    def end(self):
        if self.thread and self.thread.is_alive():
            self.wanted.put(None)
            self.thread.join()

    def fails(self, numbers):
        """The part of a list of operations up to the failure; None if it
        passes."""
        status, output = self.run(ranges(numbers))
        if not status:
            return None
        for line in output:
            if match := re.match(r"# seed \d+ failed at operation (\d+)", line):
                return [n for n in numbers if n <= int(match[1])]
        return numbers


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("kernel", metavar="KERNEL")
    parser.add_argument("seed", type=int, metavar="SEED")
    parser.add_argument("operations", type=int, metavar="OPERATIONS")
    args = parser.parse_args()
    trials = Trials(vm.Kernel(args.kernel), args.seed, args.operations)
    try:
        failing = trials.fails(list(range(args.operations)))
        if failing is None:
            sys.exit(f"seed {args.seed} passes with {args.operations} operations")
        print(f"# fails after {len(failing)} operations", flush=True)
        failing = shorter(failing, trials.fails, lambda n: print(f"# {trials.count} trials: {n} operations", flush=True))
        _, output = trials.run(ranges(failing))
    finally:
        trials.end()
    print("\n".join(output))
    print(f"# {len(failing)} operations, found in {trials.count} trials; again by:\n"
          f"# tests/vm/suite.py {args.kernel} random:{args.seed}:{args.operations}:{ranges(failing)}")


if __name__ == "__main__":
    main()
