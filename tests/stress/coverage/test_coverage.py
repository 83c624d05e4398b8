# SPDX-License-Identifier: GPL-2.0-only
"""The tests reach nearly all of the module and of nvgrace-gpu(8), as lcov counts
it. Each part is built with counters, and its tests run once more, which takes
hours. COVERAGE_AGAIN=1 judges the counters of the last run.

build/coverage/PART.txt gets the numbers of each file, and PART.info all counts,
from which genhtml makes pages. A line that no test can reach has one of lcov's
markers, LCOV_EXCL_LINE or LCOV_EXCL_START, with the reason."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from lab import packages, vm

pytestmark = [pytest.mark.measure, pytest.mark.needs("root coverage", "root virt", "root virt-sid", "root tpm", "kernel gcov", "kernel newest-64k", "more")]

PROJECT = vm.PROJECT
WORK = PROJECT / "build/coverage"

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
MODULE_TESTS = ("-n", "2", "--dist", "loadgroup", "--kernel", KERNEL, "tests/driver", "tests/firmware", "tests/stress/test_faults.py",
                "--deselect", "tests/driver/test_tracers.py")
# On newest, and on newest-64k what Debian's kernels lack. The others have real
# images, a real libvirt, and real dpkg and rpm.
CLI_TESTS = ("tests/cli", "tests/boot", "tests/guests/test_lines.py")
CROSS = "aarch64-linux-gnu-"


def run_tests(tests, machines):
    """Run tests, which must pass: after a failure they may reach less than they
    should. machines: the folder for the counters of machines."""
    subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=PROJECT, env={**os.environ, "COVERAGE": str(machines)},
                   check=True)


def lcov(*words):
    """Run the toolbox's lcov with these arguments."""
    root = packages.root("coverage")
    perl = [root / "usr/share/perl5", *pathlib.Path(f"{root}{vm.NATIVE.libraries}/perl5").iterdir()]
    return subprocess.run(["perl", root / "usr/bin/lcov", "--branch-coverage", "--ignore-errors", IGNORED, *map(str, words)],
                          capture_output=True, text=True, cwd=PROJECT,
                          env={**os.environ, "PERL5LIB": ":".join(map(str, perl))})


def must(done):
    """The output of a program that must succeed."""
    assert not done.returncode, f"{' '.join(map(str, done.args[1:]))}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
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
    assert total.is_dir(), f"no machine has sent counters of {objects}"
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


class Module:
    def __init__(self):
        self.kernel = vm.Kernel(KERNEL)
        self.objects = PROJECT / "build" / self.kernel.release

    def test(self):
        machines = fresh(WORK / "module")
        shutil.rmtree(self.objects, ignore_errors=True)
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
        # "toolbox cached" compiles there.
        only = ("--substitute", f"s#^/tmp/project/#{PROJECT}/#", "--include", f"{PROJECT}/cli/*")
        native = capture("cli-native", WORK / "cli/native", "gcov", *only)
        counters = unpack(sorted((WORK / "cli-machines").glob("*.tgz")), WORK / "cli" / CROSS.rstrip("-"), "cli")
        machines = capture("cli-machines", counters, f"{CROSS}gcov", *only)
        both = WORK / "cli.info"
        must(lcov("--add-tracefile", native, "--add-tracefile", machines, "--output-file", both))
        return both


@pytest.mark.parametrize("name, part", [("cli", Cli), ("module", Module)])
def test_nearly_all_is_reached(name, part):
    # Programs that run as nobody write the same files.
    os.umask(0)
    part = part()
    if not os.environ.get("COVERAGE_AGAIN"):
        part.test()
    info = part.read()
    (WORK / f"{name}.txt").write_text(must(lcov("--list", info)))
    done = lcov("--summary", info, "--fail-under-lines", LINES, "--fail-under-branches", BRANCHES)
    assert not done.returncode, done.stdout
