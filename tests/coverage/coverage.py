#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Measures how much of the module, of nvgrace-gpu(8) and of the udev helper the
tests reach.

    coverage.py [--again] [PART...]

Inside the toolbox, after `scripts/toolbox root coverage` and `scripts/toolbox
kernel gcov` outside, and `make modules` for stable, newest and newest-64k. Builds each part
with counters and runs its tests. It fails if too few lines or branches ran, if
a line did not run that has no reason in tests/coverage/reasons, or if a reason
there is no longer needed. --again runs no tests and judges the last run's
counters. docs/coverage.md gets the numbers. Logs are build/log/coverage-*.log,
counters and tracefiles build/coverage/."""

import argparse
import datetime
import fnmatch
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "vm"), str(HERE.parent)]
import packages  # noqa: E402  (needs the path above)
import results  # noqa: E402
import shell  # noqa: E402
import suite  # noqa: E402
import tracefile  # noqa: E402
import vm  # noqa: E402

PROJECT = vm.PROJECT
WORK = PROJECT / "build/coverage"
LOGS = PROJECT / "build/log"
DOCUMENT = PROJECT / "docs/coverage.md"
BEGIN = "<!-- The table below is written by make check-long JOBS=coverage. -->"
HEAD = ("| file | lines | branches |", "|---|---|---|")
HELPER = "scripts/udev/nvgrace-gpu"

# lcov's own filters: branches that the compiler made of macros, in lines
# without a condition; and lines of nothing but a brace or blanks.
FILTERS = "branch,brace,blank"
# Macros of the kernel with conditions of their own.
KERNEL_MACROS = r"wait_event_interruptible\(|dev_(err|warn)_ratelimited\("

# TRACE_EVENT() has no condition in the sources: patched code decides whether a
# tracepoint is on.
NO_BRANCHES = ("src/trace.h",)

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
    environment = {**os.environ, "PERL5LIB": ":".join(map(str, perl))}
    # inconsistent: a line of several expressions may count without its
    # branches, or the other way round. negative: gcov counts edges and derives
    # the rest; derived counts are negative if the counters were read while the
    # code ran, and become 0. mismatch: a line of a macro is in many functions,
    # each with its own branches.
    done = subprocess.run(["perl", root / "usr/bin/lcov", "--branch-coverage", "--ignore-errors",
                           "inconsistent,inconsistent,mismatch,mismatch,negative,negative", *map(str, words)], capture_output=True, text=True, env=environment, cwd=PROJECT)
    if done.returncode:
        raise Failed(f"lcov {' '.join(map(str, words))}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def capture(name, objects, gcov):
    """The path of the tracefile of a directory with .gcno and .gcda files."""
    info = WORK / f"{name}.info"
    lcov("--capture", "--directory", objects, "--gcov-tool", gcov, "--filter", FILTERS, "--rc",
         f"lcov_excl_br_line=LCOV_EXCL_BR_LINE|{KERNEL_MACROS}", "--output-file", info)
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
        done = subprocess.run([f"{CROSS}gcov-tool", "merge", "-o", both, total, here], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"gcov-tool can't add {archive}: {done.stderr[-2000:]}")
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
    name = "module"
    patterns = ("src/*", "include/*")
    title = "the module, on the kernel of `tests/testkernel/gcov.config`"

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
        # kbuild compiles copies of the sources.
        text = capture("module", counters, f"{CROSS}gcov").read_text().replace(f"{self.objects}/", f"{PROJECT}/")
        found = tracefile.read(text, PROJECT)
        for path in NO_BRANCHES:
            found[path].branches.clear()
        return found


class Cli:
    name = "cli"
    patterns = ("cli/*",)
    title = "`nvgrace-gpu`"

    def test(self):
        fresh(WORK / "cli")
        run_tests(CLI_TESTS, fresh(WORK / "cli-machines"))

    def read(self):
        native = capture("cli-native", WORK / "cli/native", "gcov")
        counters = unpack(sorted((WORK / "cli-machines").glob("*.tgz")), WORK / "cli" / CROSS.rstrip("-"), "cli")
        machines = capture("cli-machines", counters, f"{CROSS}gcov")
        both = WORK / "cli.info"
        lcov("--add-tracefile", native, "--add-tracefile", machines, "--output-file", both)
        return tracefile.read(both.read_text(), PROJECT)


class Helper:
    name = "helper"
    patterns = (HELPER,)
    title = f"the udev helper, `{HELPER}`"

    def test(self):
        folder = fresh(WORK / "helper")
        (folder / "copy").write_text(shell.instrument((PROJECT / HELPER).read_text())[0])
        (folder / "prelude").write_text(shell.PRELUDE + "\n")
        run("helper", ["python3", "tests/package/udev.py", "Bash"], HELPER_TRACE=str(folder))

    def read(self):
        text = (PROJECT / HELPER).read_text()
        return {HELPER: shell.source(text, shell.instrument(text)[1], (WORK / "helper/trace").read_text())}


PARTS = {part.name: part for part in (Helper, Cli, Module)}


def table(part, found):
    """A part's rows: the whole, and each file."""
    rows = ["| **{}**, {}, driver {} | **{}** | **{}** |".format(part.title, datetime.date.today().isoformat(), results.driver(),
                                                               *tracefile.shares(found))]
    if len(found) > 1:
        rows += ["| {} | {} | {} |".format(path, *tracefile.shares({path: found[path]})) for path in sorted(found)]
    return rows


def write(rows):
    """Replace the rows of parts in the document. {title: rows}; other parts'
    rows stay."""
    before, mark, rest = DOCUMENT.read_text("utf-8").partition(BEGIN + "\n")
    if not mark:
        raise Failed(f"{DOCUMENT.name} has no line {BEGIN!r}")
    old = re.match(r"\n((?:\|.*\n)*)", rest)
    parts, title = {}, None
    for line in old[1].splitlines()[len(HEAD):]:
        if line.startswith("| **"):
            title = next(p.title for p in PARTS.values() if line.startswith(f"| **{p.title}**"))
        parts.setdefault(title, []).append(line)
    parts.update(rows)
    lines = [line for part in PARTS.values() for line in parts.get(part.title, [])]
    DOCUMENT.write_text(before + BEGIN + "\n\n" + "".join(f"{line}\n" for line in (*HEAD, *lines)) + rest[old.end():],
                        "utf-8")


def judge(part, tap, entries, again):
    """Run one part's tests and judge what they reached; the part's rows."""
    part = part()
    if not again:
        part.test()
    found = {path: source for path, source in part.read().items()
             if any(fnmatch.fnmatch(path, p) for p in part.patterns)}
    texts = {path: (PROJECT / path).read_text("utf-8") for path in found}
    tracefile.drop_labels(found, texts)
    print("\n".join(table(part, found)))
    complaints = tracefile.thresholds(found)
    tap.check(f"{part.name}: enough lines and branches are reached", not complaints, "; ".join(complaints))
    complaints = tracefile.judge(tracefile.missed_lines(found, texts), entries, part.patterns)
    tap.check(f"{part.name}: each other line has its reason", not complaints, "\n    ".join(["", *complaints]))
    return table(part, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []], help=", ".join(PARTS))
    args = parser.parse_args()
    # Programs that run as nobody write the same files.
    os.umask(0)
    tap, rows = suite.Tap(), {}
    entries, complaints = tracefile.read_reasons((HERE / "reasons").read_text("utf-8"))
    tap.check("tests/coverage/reasons can be read", not complaints, "\n    ".join(["", *complaints]))
    for part in [PARTS[name] for name in args.parts or PARTS]:
        try:
            rows[part.title] = judge(part, tap, entries, args.again)
        except Failed as e:
            tap.check(f"{part.name}: counted", False, str(e))
    write(rows)
    print(f"{tap.passed} passed, {tap.failed} failed, 0 skipped")
    sys.exit(bool(tap.failed))


if __name__ == "__main__":
    main()
