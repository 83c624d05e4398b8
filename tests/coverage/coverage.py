#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Measures with lcov how much of the module and of nvgrace-gpu(8) the tests
reach.

    coverage.py [--again] [PART...]

Inside the toolbox, after `scripts/dev/toolbox root coverage` and `scripts/dev/toolbox
kernel gcov` outside, and `make modules` for stable, newest and newest-64k.
Builds each part with counters and runs its tests. It fails if too few lines or
branches ran. --again runs no tests and judges the last run's counters.
build/coverage/PART.txt gets the numbers of each file, and PART.info all counts,
of which genhtml makes pages. A line that no test can reach has one of lcov's
markers, LCOV_EXCL_LINE or LCOV_EXCL_START, with the reason. Logs are
build/log/coverage-*.log."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "vm")]
import packages  # noqa: E402  (needs the path above)
import suite  # noqa: E402
import vm  # noqa: E402

PROJECT = vm.PROJECT
WORK = PROJECT / "build/coverage"
LOGS = PROJECT / "build/log"

# What each part must reach, in percent.
LINES, BRANCHES = 98, 90

# lcov's own filters: what has one of its markers; branches that the compiler
# made of macros, in lines without a condition; and lines of nothing but a brace
# or blanks.
FILTERS = "branch,brace,blank,region,branch_region"
# Macros of the kernel with conditions of their own. A label is no line: gcov
# counts it as never run where the compiler has joined the jumps with what
# follows.
EXCLUDED = (r"lcov_excl_br_line=LCOV_EXCL_BR_LINE|wait_event_interruptible\(|dev_(err|warn)_ratelimited\(",
            r"lcov_excl_line=LCOV_EXCL_LINE|^\s*\w+:\s*$")
# inconsistent: a line of several expressions may count without its branches, or
# the other way round. negative: gcov counts edges and derives the rest; derived
# counts are negative if the counters were read while the code ran, and become
# 0. mismatch: a line of a macro is in many functions, each with its own
# branches. unused: not every file has what an option is about.
IGNORED = "inconsistent,inconsistent,mismatch,mismatch,negative,negative,unused,unused"

# The kernel for the module with counters, and the tests that run on it.
KERNEL = "gcov"
MODULE_TESTS = {
    "suite": ["python3", "tests/vm/suite.py", "--timeout", "3000", "--race", "10", KERNEL],
    "firmware": ["python3", "tests/vm/test_firmware.py", KERNEL],
    "scrub": ["python3", "tests/vm/test_scrub.py", KERNEL],
    "faults": ["tests/testkernel/faults", KERNEL],
}
CLI_TESTS = {
    "cli": ["tests/cli/run"],
    "cli-vm": ["python3", "tests/cli/test_vm.py", "newest"],
    "cli-bench": ["python3", "tests/cli/vm_bench.py", "newest"],
    # Opens the device's own file, which Debian's kernels lack.
    "cli-bench-newest-64k": ["python3", "tests/cli/vm_bench.py", "newest-64k"],
    "cli-scrub": ["python3", "tests/cli/vm_scrub.py", "newest"],
    "doctor": ["python3", "tests/cli/vm_doctor.py"],
}
CROSS = "aarch64-linux-gnu-"


class Failed(Exception):
    """A part that can't be judged."""


def run(name, command, **environment):
    """Run a test program, which must pass: after a failure it may reach less
    than it should."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"coverage-{name}.log"
    print(f"# {name} ...", flush=True)
    with open(log, "wb") as out:
        done = subprocess.run([str(c) for c in command], cwd=PROJECT, env={**os.environ, **environment}, stdout=out,
                              stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if done.returncode:
        print("".join(f"    | {line}\n" for line in log.read_text(errors="replace").splitlines()[-20:]), end="")
        raise Failed(f"{name} ended with {done.returncode}; all of it: {log}")


def lcov(*words):
    """Run lcov of tests/programs.conf with these arguments."""
    root = packages.root("coverage")
    perl = [root / "usr/share/perl5", *(root / "usr/lib/x86_64-linux-gnu/perl5").iterdir()]
    return subprocess.run(["perl", root / "usr/bin/lcov", "--branch-coverage", "--ignore-errors", IGNORED, *map(str, words)],
                          capture_output=True, text=True, cwd=PROJECT,
                          env={**os.environ, "PERL5LIB": ":".join(map(str, perl))})


def must(done):
    """The output of a program that must succeed."""
    if done.returncode:
        raise Failed(f"{' '.join(map(str, done.args[1:]))}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def capture(name, objects, gcov, *more):
    """The path of the tracefile of a directory with .gcno and .gcda files."""
    info = WORK / f"{name}.info"
    must(lcov("--capture", "--directory", objects, "--gcov-tool", gcov, "--filter", FILTERS,
              *(word for rc in EXCLUDED for word in ("--rc", rc)), *more, "--output-file", info))
    return info


def unpack(archives, objects, name):
    """A directory with the sum of the counters that machines sent, and the
    compiler's .gcno files."""
    total = WORK / f"{name}-counters"
    shutil.rmtree(total, ignore_errors=True)
    for archive in archives:
        one, both = WORK / "one", WORK / "both"
        for directory in (one, both):
            shutil.rmtree(directory, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(one, filter="data")
        here = one / objects.relative_to("/")
        # This machine did not use the program.
        if not here.is_dir():
            continue
        if not total.exists():
            shutil.move(here, total)
            continue
        must(subprocess.run([f"{CROSS}gcov-tool", "merge", "-o", both, total, here], capture_output=True, text=True))
        shutil.rmtree(total)
        shutil.move(both, total)
    if not total.is_dir():
        raise Failed(f"no machine has sent counters of {objects}")
    for notes in objects.rglob("*.gcno"):
        copy = total / notes.relative_to(objects)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(notes, copy)
    return total


def fresh(directory):
    """Make the directory empty, and return it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def run_tests(tests, machines):
    for name, command in tests.items():
        run(name, command, COVERAGE=str(machines))


class Module:
    def __init__(self):
        self.kernel = vm.Kernel(KERNEL)
        self.objects = PROJECT / "build" / self.kernel.release

    def test(self):
        machines = fresh(WORK / "module")
        shutil.rmtree(self.objects, ignore_errors=True)
        # gcov counts what is left after early inlining. Without this option,
        # each inlined copy of a function would have its own branches.
        run("module", ["make", "modules", f"KDIR={self.kernel.headers}", *self.kernel.arch.make, "GCOV_PROFILE=y",
                       "KCFLAGS=-fno-early-inlining"])
        run_tests(MODULE_TESTS, machines)

    def read(self):
        counters = unpack(sorted((WORK / "module").glob("*.tgz")), self.objects, "module")
        # kbuild compiles copies of the sources. trace.h is excluded, because
        # TRACE_EVENT() has no condition in the sources: patched code decides
        # whether a tracepoint is on.
        return capture("module", counters, f"{CROSS}gcov", "--substitute", f"s#^{self.objects}/#{PROJECT}/#",
                       "--include", f"{PROJECT}/src/*", "--include", f"{PROJECT}/include/*", "--exclude", f"{PROJECT}/src/trace.h")


class Cli:
    def test(self):
        fresh(WORK / "cli")
        run_tests(CLI_TESTS, fresh(WORK / "cli-machines"))

    def read(self):
        only = ("--include", f"{PROJECT}/cli/*")
        native = capture("cli-native", WORK / "cli/native", "gcov", *only)
        counters = unpack(sorted((WORK / "cli-machines").glob("*.tgz")), WORK / "cli" / CROSS.rstrip("-"), "cli")
        machines = capture("cli-machines", counters, f"{CROSS}gcov", *only)
        both = WORK / "cli.info"
        must(lcov("--add-tracefile", native, "--add-tracefile", machines, "--output-file", both))
        return both


PARTS = {"cli": Cli, "module": Module}


def judge(name, tap, again):
    """Run one part's tests and judge what they reached."""
    part = PARTS[name]()
    if not again:
        part.test()
    info = part.read()
    report = WORK / f"{name}.txt"
    report.write_text(must(lcov("--list", info)))
    print(f"# {report.relative_to(PROJECT)} has each file")
    done = lcov("--summary", info, "--fail-under-lines", LINES, "--fail-under-branches", BRANCHES)
    print("".join(f"#{line}\n" for line in done.stdout.splitlines() if "%" in line), end="")
    why = [line for line in done.stdout.splitlines() if line.startswith("Failed")]
    tap.check(f"{name}: {LINES} % of the lines and {BRANCHES} % of the branches are reached", not done.returncode, "; ".join(why))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []], help=", ".join(PARTS))
    args = parser.parse_args()
    # Programs that run as nobody write the same files.
    os.umask(0)
    tap = suite.Tap()
    for name in args.parts or PARTS:
        try:
            judge(name, tap, args.again)
        except Failed as e:
            tap.check(f"{name}: counted", False, str(e))
    print(f"{tap.passed} passed, {tap.failed} failed, 0 skipped")
    sys.exit(bool(tap.failed))


if __name__ == "__main__":
    main()
