# SPDX-License-Identifier: GPL-2.0-only
"""Counts results of test programs in a machine, for the runners beside it."""

import re
import sys


class Sum:
    """All tests of a run. A planned test without a report has failed."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def one(self, ok, text):
        """Count a test of the runner."""
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        print(f"{'ok' if ok else 'not ok'} - {text}", flush=True)

    def program(self, command):
        """Count the tests of a vm.Command that printed TAP."""
        planned = passed = failed = skipped = 0
        for line in command.output:
            if match := re.match(r"1\.\.(\d+)", line):
                planned += int(match[1])
            elif re.match(r"ok \d+ .*# SKIP", line):
                skipped += 1
            elif re.match(r"ok \d+", line):
                passed += 1
            elif re.match(r"not ok \d+", line):
                failed += 1
        missing = planned - passed - failed - skipped
        if missing or not planned:
            print(f"not ok - {command.name} announced {planned} tests and reported {planned - missing}")
            failed += max(missing, 1)
        elif command.rc and not failed:
            print(f"not ok - {command.name} ended with {command.rc}")
            failed += 1
        self.passed, self.failed, self.skipped = self.passed + passed, self.failed + failed, self.skipped + skipped

    def finish(self, result, log):
        """Print the rest about the machine and the sum, and exit."""
        for command in result.commands:
            print(f"# {command.name}: {command.seconds or 0:.1f} s")
        # program() has counted failed commands by their tests.
        rest = [f for f in result.failures if not re.match(r"command \S+ failed with", f)]
        for failure in rest:
            print(f"# {failure}")
        self.one(not rest, "every program ran, and nothing is wrong in the kernel's log")
        print(f"# {result.release}: boot {result.boot_seconds or 0:.1f} s, all {result.seconds:.1f} s; log: {log}")
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        sys.exit(bool(self.failed))


def show(mark, line):
    """Print results and comments of tests; for a machine's echo."""
    if mark == ">" and re.match(r"(not )?ok |1\.\.|# ", line) and not re.match(r"#\s+(RUN|OK)\s", line):
        print(line, flush=True)
