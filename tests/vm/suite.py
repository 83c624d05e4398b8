#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs the test programs of guest/ on one kernel, in one boot of the machine of machine.py.

    suite.py [--timeout SECONDS] KERNEL [PROGRAM[:ARGUMENT]...]

Inside the toolbox, after `make modules` for that kernel. Compiles the programs, boots, and prints their TAP lines as
they come. The boot itself and the kernel's log count as a test each. The last line is the sum; the exit status says
whether all passed. The whole console is in build/log/vm-KERNEL.log.
"""

import argparse
import pathlib
import re
import subprocess
import sys

import machine
import vm

HERE = pathlib.Path(__file__).resolve().parent
BUILD = vm.PROJECT / "build"
MODULE = "nvgrace-gpu-vfio-pci.ko"

# In this order; the race takes its seconds as the argument.
PROGRAMS = ("discovery", "region", "config", "mmap", "rw", "reset", "ready", "wait", "race:60")

# Seconds after which a machine that isn't done is not slow but stuck.
TIMEOUT = 900


def compile_programs(names):
    """Compile guest/NAME.c into build/guest/, where that is out of date; {path in the guest: path here}."""
    out = BUILD / "guest"
    out.mkdir(parents=True, exist_ok=True)
    library = [HERE / "guest" / "lib.c", HERE / "guest" / "lib.h"]
    files = {}
    for name in names:
        source, program = HERE / "guest" / f"{name}.c", out / name
        newest = max(p.stat().st_mtime for p in [source, *library])
        if not program.exists() or program.stat().st_mtime < newest:
            subprocess.run(["aarch64-linux-gnu-gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
                            "-o", program, source, library[0], "-lcmocka", "-lpthread"], check=True)
        files[f"/tests/{name}"] = str(program)
    return files


class Tap:
    """Counts the TAP lines of one program: what it planned and did not report has failed."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def count(self, name, lines, rc):
        planned = reported = good = skipped = 0
        for line in lines:
            if match := re.fullmatch(r"1\.\.(\d+)", line):
                planned += int(match[1])
            elif re.match(r"ok \d+.*# SKIP", line, re.I):
                skipped += 1
                reported += 1
            elif re.match(r"ok \d+", line):
                good += 1
                reported += 1
            elif re.match(r"not ok \d+", line):
                reported += 1
        bad = max(planned, reported) - good - skipped
        if not bad and (rc or not planned):
            print(f"not ok - {name} ended with {rc} after {planned} tests")
            bad = 1
        self.passed += good
        self.failed += bad
        self.skipped += skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--timeout", type=int, default=TIMEOUT, metavar="SECONDS")
    parser.add_argument("kernel", metavar="KERNEL")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM[:ARGUMENT]", default=PROGRAMS)
    args = parser.parse_args()
    kernel, programs = vm.Kernel(args.kernel), args.programs
    module = BUILD / kernel.release / MODULE
    if not module.exists():
        sys.exit(f"suite.py: {module} is not there: make modules for kernel {kernel.name} first")

    files = compile_programs(p.split(":")[0] for p in programs)
    facts = BUILD / "guest" / f"huge_pfnmap-{kernel.name}"
    facts.write_text("yes\n" if kernel.has("CONFIG_ARCH_SUPPORTS_PMD_PFNMAP") else "no\n")
    files["/tests/huge_pfnmap"] = str(facts)
    commands = [{"name": p.replace(":", "-"), "run": "/tests/" + p.replace(":", " ")} for p in programs]
    if kernel.has("CONFIG_DEBUG_KMEMLEAK"):
        files["/tests/leaks"] = str(HERE.parent / "testkernel" / "leaks")
        commands.append({"name": "leaks", "run": "sh /tests/leaks"})

    log = BUILD / "log" / f"vm-{kernel.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)

    def show(mark, line):
        if mark == ">" and not line.startswith(("@@", "TAP version")):
            print(line, flush=True)

    with vm.Machine(kernel, gpus=machine.gpus(kernel), ram=machine.ram_size(kernel), append=machine.APPEND,
                    files=files, commands=commands, module=str(module), timeout=args.timeout, log=str(log),
                    echo=show) as m:
        result = m.run()

    tap = Tap()
    for command in result.commands:
        tap.count(command.name, command.output, command.rc)
        print(f"# {command.name}: {command.seconds or 0:.1f} s")
    boot_ok = result.boot_seconds is not None and len(result.commands) == len(commands)
    print(f"{'ok' if boot_ok else 'not ok'} - {kernel.release} boots and runs every program")
    # Failed commands are counted above, by test.
    rest = [f for f in result.failures if not re.match(r"command \S+ failed with", f)]
    for failure in rest:
        print(f"# {failure}")
    print(f"{'not ok' if rest else 'ok'} - nothing else is wrong, the kernel's log included")
    tap.passed += boot_ok + (not rest)
    tap.failed += (not boot_ok) + bool(rest)
    print(f"# {result.release}: boot {result.boot_seconds or 0:.1f} s, all {result.seconds:.1f} s; log: {log}")
    print(f"{tap.passed} passed, {tap.failed} failed, {tap.skipped} skipped")
    sys.exit(bool(tap.failed or result.failures))


if __name__ == "__main__":
    main()
