# SPDX-License-Identifier: GPL-2.0-only
"""Shortens a failing sequence of the program "random".

    python3 -m stress.shrink KERNEL SEED OPERATIONS

Inside the toolbox. Runs the sequence, which must fail, and leaves out as many of
its operations as it can while it still fails (ddmin). One boot serves all trials
as long as the machine lives. If a trial ends the machine, that counts as a
failure, and the next trial gets a new one. Prints the trace of the shortest
sequence found. Status 0 if there is one."""

import argparse
import re
import sys

from lab import session, vm

RANDOM = vm.PROJECT / "tests/driver/random"


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

    def __init__(self, kernel, **sequence):
        self.kernel, self.sequence = kernel, sequence
        self.machine = None
        self.count = 0
        self.said = []

    def fails(self, numbers):
        """The part of a list of operations up to the failure; None if it
        passes."""
        self.count += 1
        self.machine = self.machine or session.Session(self.kernel, [RANDOM])
        try:
            bad, self.said, _ = self.machine.program("random", KEPT=ranges(numbers), **self.sequence).all()
        except session.Ended:
            bad = self.said = [line for command in self.machine.channel.commands for _, line in command.lines]
            self.machine.finish()
            self.machine = None
        if not bad:
            return None
        failed = re.search(r"^# seed \d+ failed at operation (\d+)", "\n".join(self.said), re.M)
        return [n for n in numbers if n <= int(failed[1])] if failed else numbers


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("kernel", metavar="KERNEL")
    parser.add_argument("seed", type=int, metavar="SEED")
    parser.add_argument("operations", type=int, metavar="OPERATIONS")
    args = parser.parse_args()
    trials = Trials(vm.Kernel(args.kernel), SEED=args.seed, OPERATIONS=args.operations)
    failing = trials.fails(list(range(args.operations)))
    if failing is None:
        sys.exit(f"seed {args.seed} passes with {args.operations} operations")
    print(f"# fails after {len(failing)} operations", flush=True)
    failing = shorter(failing, trials.fails, lambda n: print(f"# {trials.count} trials: {n} operations", flush=True))
    trials.fails(failing)
    if trials.machine:
        trials.machine.finish()
    print("\n".join(trials.said))
    print(f"# {len(failing)} operations, found in {trials.count} trials: KEPT={ranges(failing)}")


if __name__ == "__main__":
    main()
