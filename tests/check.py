#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs all tests, a few at a time, and adds up what they say.

    check.py [--quick | --long] [NAME...]
    check.py --kernels [--long] [NAME...]

Inside the toolbox; called by the Makefile's check targets. A job is a program whose last line is "N passed, N failed,
N skipped" (or a Python unittest); what it prints goes to build/log/check-NAME.log, and is shown if it fails. With
NAMEs, only these jobs run. The last line here is the sum of all; the exit status says whether all is well. Where the
environment has CI=true, a skipped test counts as failed. With --kernels it prints the kernels of tests/testkernel that
these jobs need, and runs nothing.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import campaigns

PROJECT = pathlib.Path(__file__).resolve().parent.parent
LOGS = PROJECT / "build" / "log"
# With the seconds that the race takes on each.
KERNELS = {"6.1": 20, "6.12": 20, "7.2": 30, "7.2-16k": 10, "64k": 10,
           "6.1-amd64": 10, "6.12-amd64": 10, "7.2-amd64": 10}

# Of which everybody's run has the build alone: each differs from others of that run by one thing.
KERNELS_LONG = ("6.12-16k", "6.12-rt", "7.2-rt")

# Seeds and operations: a million on one kernel, and what the debugging one does in an hour.
RANDOM_LONG = tuple(f"random:{seed}:250000" for seed in range(2, 6))
RANDOM_DEBUG = ("random:6:100000", "random:7:100000")

# As test_guest.py wants them: hosts on which KVM maps usemem cacheable, as Device memory, and not at all.
GUEST_HOSTS = ("7.2", "7.2-16k", "64k", "6.12", "7.2:neoverse-n1")

# What takes longer, even on two slow cores, is stuck: in everybody's run, and in a campaign.
TIMEOUT = 3600
TIMEOUT_LONG = 4 * 3600
# How often the running jobs are named, in seconds, so that nobody has to guess.
SIGN_OF_LIFE = 60


@dataclasses.dataclass
class Job:
    """One program. width: processors it keeps busy. modules: kernels whose module it wants. kernels: others that it builds
    modules for by itself. after: jobs that must have ended well before."""

    name: str
    argv: "list[str]"
    width: int = 1
    modules: tuple = ()
    kernels: tuple = ()
    after: tuple = ()


def toolbox(*words):
    return subprocess.run([PROJECT / "scripts" / "toolbox", *words], capture_output=True, text=True,
                          check=True).stdout.strip()


def module_job(kernel):
    """Build one kernel's module, for the quick run: the matrix builds all, and looks harder."""
    cross = "" if kernel.endswith("-amd64") else "ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-"
    command = f"make modules KDIR=$(scripts/toolbox kdir {kernel}) {cross} && echo '1 passed, 0 failed, 0 skipped'"
    return Job(f"module-{kernel}", ["sh", "-c", command], width=2)


PACKAGES = Job("packages", ["sh", "-c", "scripts/package deb && scripts/package rpm && scripts/repo"
                            " && echo '1 passed, 0 failed, 0 skipped'"])


def long_jobs():
    """Campaigns that don't fit into everybody's run; docs/reliability.md gets their results."""
    return [
        *(Job(f"vm-{k}", ["python3", "tests/vm/suite.py", "--timeout", "6000", k], modules=(k,)) for k in KERNELS_LONG),
        Job("vm-debug", ["python3", "tests/vm/suite.py", "--timeout", "6000", "debug"], modules=("debug",)),
        Job("vm-debug-64k", ["python3", "tests/vm/suite.py", "--timeout", "9000", "debug-64k"], modules=("debug-64k",)),
        Job("vm-kcsan", ["python3", "tests/vm/suite.py", "--timeout", "9000", "kcsan"], modules=("kcsan",)),
        Job("races-long", ["python3", "tests/vm/suite.py", "--timeout", "14000", "debug", "races:100000"],
            modules=("debug",)),
        Job("cycles-long", ["python3", "tests/vm/suite.py", "--timeout", "6000", "7.2", "cycles:1000"], modules=("7.2",)),
        Job("scrub-long", ["python3", "tests/vm/suite.py", "--timeout", "6000", "7.2", "scrub:1000"], modules=("7.2",)),
        Job("random", ["python3", "tests/vm/suite.py", "--timeout", "6000", "7.2", *RANDOM_LONG], modules=("7.2",)),
        Job("random-debug", ["python3", "tests/vm/suite.py", "--timeout", "6000", "debug", *RANDOM_DEBUG], modules=("debug",)),
        Job("faults", ["tests/testkernel/faults"], modules=("debug",)),
        Job("controls", ["tests/testkernel/controls"], modules=("debug",)),
        Job("controls-kcsan", ["tests/testkernel/controls", "kcsan"], modules=("kcsan",)),
        Job("vfio-selftests", ["tests/testkernel/selftests"], modules=("debug",)),
        Job("mutants", ["python3", "tests/vm/mutants.py"], width=2, modules=("6.1", "7.2", "64k")),
        Job("mutants-generated", ["python3", "tests/vm/mutants_generated.py"], width=2, modules=("6.1", "6.12", "7.2")),
        Job("fuzz-long", ["tests/fuzz/run", "300"]),
        Job("coverage", ["python3", "tests/coverage/coverage.py"], modules=("6.12", "7.2", "64k"), kernels=("gcov",)),
        Job("static-all", ["sh", "-c", "exec python3 tests/static/run.py $(scripts/toolbox kernels)"]),
        PACKAGES,
        Job("package-lint", ["tests/package/lint"], after=("packages",)),
        Job("dkms-all", ["python3", "tests/package/dkms.py"], after=("packages",)),
    ]


def all_jobs(quick):
    """The jobs of everybody's run, the long ones first where the order is free."""
    kernels = {"7.2": 10} if quick else KERNELS
    vms = [Job(f"vm-{k}", ["python3", "tests/vm/suite.py", "--race", str(race), k], modules=(k,))
           for k, race in kernels.items()]
    short = [
        Job("cli", ["tests/cli/run"]),
        Job("fuzz", ["tests/fuzz/run", "2" if quick else "5"]),
        Job("model", ["python3", "tests/model/test_gpu.py"]),
        Job("stage2", ["python3", "tests/guest/test_stage2.py"]),
        Job("harness", ["python3", "tests/vm/test_vm.py"]),
        Job("coverage-selftest", ["python3", "tests/coverage/test_coverage.py"]),
        Job("unit", ["tests/unit/run"]),
        Job("style", ["scripts/style", toolbox("checkpatch")]),
    ]
    if quick:
        return [*vms, *short]
    return [
        Job("matrix", ["scripts/matrix"], width=2),
        PACKAGES,
        Job("package-bind", ["python3", "tests/package/life.py", "--part", "bind"], after=("packages",)),
        *vms,
        Job("guest", ["python3", "tests/guest/test_guest.py", *GUEST_HOSTS], modules=("6.12", "7.2", "7.2-16k", "64k")),
        Job("doctor", ["python3", "tests/cli/vm_doctor.py"], modules=("6.12", "7.2")),
        Job("scrub", ["python3", "tests/vm/test_scrub.py", "7.2"], modules=("7.2",)),
        Job("firmware", ["python3", "tests/vm/test_firmware.py", "7.2"], modules=("7.2",)),
        Job("syzkaller", ["sh", "-c", "python3 tests/syzkaller/test_syzlang.py && python3 tests/syzkaller/test_draw.py"
                          " && exec python3 tests/syzkaller/replay.py 7.2 64k"], modules=("7.2", "64k")),
        Job("tracers", ["python3", "tests/vm/tracers.py", "7.2"], modules=("7.2",)),
        Job("cli-vm-6.12", ["python3", "tests/cli/test_vm.py", "6.12"], modules=("6.12",)),
        Job("cli-vm-7.2", ["python3", "tests/cli/test_vm.py", "7.2"], modules=("7.2",)),
        Job("cli-bench-6.12", ["python3", "tests/cli/vm_bench.py", "6.12"], modules=("6.12",)),
        # By the device's own file, which Debian's kernels don't have.
        Job("cli-bench-64k", ["python3", "tests/cli/vm_bench.py", "64k"], modules=("64k",)),
        Job("cli-bench-7.2", ["python3", "tests/cli/vm_bench.py", "7.2"], modules=("7.2",)),
        Job("cli-scrub-7.2", ["python3", "tests/cli/vm_scrub.py", "7.2"], modules=("7.2",)),
        Job("bench", ["python3", "tests/bench/bench.py", "--smoke", "7.2"], modules=("7.2",)),
        Job("dkms", ["python3", "tests/package/dkms.py", "Configuration", "KernelRange", "Dkms32"], after=("packages",)),
        Job("package-rpm", ["python3", "tests/package/rpm.py"], after=("packages",)),
        Job("package-repo", ["python3", "tests/package/repo.py"], after=("packages",)),
        Job("release", ["python3", "tests/package/release.py"], modules=("7.2",)),
        Job("udev", ["python3", "tests/package/udev.py"]),
        Job("probes", ["tests/probes/run"]),
        Job("machine", ["python3", "tests/vm/test_boot.py", "7.2"]),
        Job("machine-amd64", ["python3", "tests/vm/test_boot.py", "7.2-amd64"]),
        Job("demo", ["sh", "-c", "python3 tests/demo/demo.py && echo '1 passed, 0 failed, 0 skipped'"], modules=("7.2",)),
        Job("matrix-selftest", ["scripts/matrix", "--selftest"], after=("matrix",)),
        Job("fuzz-selftest", ["tests/fuzz/selftest"]),
        Job("static", ["python3", "tests/static/run.py", "6.1", "7.2"]),
        Job("style-selftest", ["scripts/style", "--selftest", toolbox("checkpatch")]),
        *short,
    ]


def jobs(mode, names):
    """The jobs of a mode, or those of them that are named, and before them what builds their modules: the matrix, or
    else a job for each kernel."""
    every = long_jobs() if mode == "long" else all_jobs(mode == "quick")
    unknown = set(names) - {j.name for j in every}
    if unknown:
        sys.exit(f"check.py: no job named {', '.join(sorted(unknown))}; there are: {', '.join(j.name for j in every)}")
    wanted = [j for j in every if j.name in names or not names]
    if names and PACKAGES in every and any("packages" in j.after for j in wanted) and PACKAGES not in wanted:
        wanted.insert(0, PACKAGES)
    if any(j.name == "matrix" for j in wanted):
        for job in wanted:
            job.after += ("matrix",) if job.modules else ()
        return wanted
    modules = {k: module_job(k) for j in wanted for k in j.modules}
    for job in wanted:
        job.after += tuple(modules[k].name for k in job.modules)
    return [*modules.values(), *wanted]


def made_here(wanted):
    """The kernels of jobs that no package has, in the order of the jobs."""
    names = [k for job in wanted for k in (*job.modules, *job.kernels)]
    return [k for k in dict.fromkeys(names) if (PROJECT / "tests" / "testkernel" / f"{k}.config").exists()]


def verdict(text, rc):
    """(passed, failed, skipped) of a job's output; what says nothing has failed."""
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if match := re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", last):
        passed, failed, skipped = map(int, match.groups())
    elif match := re.search(r"^Ran (\d+) tests? in ", text, re.M):
        bad = sum(int(n) for n in re.findall(r"(?:failures|errors|unexpected successes)=(\d+)", last))
        skipped = sum(int(n) for n in re.findall(r"skipped=(\d+)", last))
        passed, failed = int(match[1]) - bad - skipped, bad
    else:
        return 0, 1, 0
    if rc and not failed:
        failed = 1
    if not passed + failed + skipped:
        failed = 1
    return passed, failed, skipped


# How TAP, unittest, a compiler and Python say that something has failed.
FAILURE = re.compile(r"not ok\b|(FAIL|ERROR): |Traceback |(\S+:)?(\d+:)* ?(fatal )?error: |check\.py: ")


def failures(text):
    """Of a job's output, the lines that say what failed."""
    return [line for line in text.splitlines() if FAILURE.match(line)]


def excerpt(text):
    """Of a failed job's output: what it says around each failure, and its end."""
    lines = text.splitlines()
    shown = set(range(len(lines) - 20, len(lines)))
    for number, line in enumerate(lines):
        if FAILURE.match(line):
            shown.update(range(number - 5, number + 15))
    previous = -1
    for number in sorted(n for n in shown if 0 <= n < len(lines)):
        if number != previous + 1:
            yield "..."
        yield lines[number]
        previous = number


class Run:
    """Starts jobs as processors and their predecessors allow, and keeps the sums."""

    def __init__(self, wanted, timeout, campaign=False):
        self.waiting = list(wanted)
        self.campaign = campaign
        self.timeout = timeout
        self.names = {j.name for j in wanted}
        self.running = {}
        self.good = set()
        self.sums = [0, 0, 0]
        self.broken = {}        # what failed, by job
        # One more than there are: machines wait for their clocks a good part of the time.
        self.free = max(os.cpu_count() or 1, 2) + 1

    def _start(self, job):
        log = LOGS / f"check-{job.name}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(job.argv, cwd=PROJECT, stdout=out, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL, start_new_session=True)
        self.running[job.name] = (job, process, log, time.monotonic())
        self.free -= job.width
        print(f"       {job.name} ...", flush=True)

    def _end(self, name):
        job, process, log, start = self.running.pop(name)
        self.free += job.width
        text = log.read_text(errors="replace")
        result = verdict(text, process.returncode)
        self.sums = [a + b for a, b in zip(self.sums, result)]
        passed, failed, skipped = result
        word = "not ok" if failed else "ok"
        print(f"{word:6} {name}: {passed} passed, {failed} failed, {skipped} skipped; "
              f"{time.monotonic() - start:.0f} s", flush=True)
        command = f"make check-long JOBS={name}"
        if self.campaign and command in campaigns.COMMANDS:
            kernels = ", ".join(toolbox("release", k) for k in job.modules)
            campaigns.record(command, f"{passed} passed, {failed} failed, {skipped} skipped", kernels)
        # Of Debian's next kernel: it fails nothing, and must be seen.
        print("".join(f"       {line}\n" for line in text.splitlines() if line.startswith("early warning:")), end="")
        if failed:
            self.broken[name] = failures(text)
            print("".join(f"    | {line}\n" for line in excerpt(text)) + f"    all of it: {log}", flush=True)
        else:
            self.good.add(name)

    def _startable(self):
        for job in self.waiting:
            # A job alone may be wider than the machine.
            if job.width <= self.free or not self.running:
                if all(a in self.good or a not in self.names for a in job.after):
                    return job
        return None

    def stop(self):
        for _, process, _, _ in self.running.values():
            os.killpg(process.pid, signal.SIGTERM)
        for _, process, _, _ in self.running.values():
            process.wait()

    def go(self):
        spoken = time.monotonic()
        while self.waiting or self.running:
            while job := self._startable():
                self.waiting.remove(job)
                self._start(job)
            if not self.running:
                break
            time.sleep(0.1)
            now = time.monotonic()
            for name in list(self.running):
                job, process, log, start = self.running[name]
                if process.poll() is not None:
                    self._end(name)
                elif now - start > self.timeout:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
                    with open(log, "a") as f:
                        f.write(f"\ncheck.py: ended after {self.timeout} s\n")
                    self._end(name)
            if now - spoken > SIGN_OF_LIFE and self.running:
                spoken = now
                print("       ... " + ", ".join(f"{n} {now - r[3]:.0f} s" for n, r in self.running.items()), flush=True)
        for job in self.waiting:
            print(f"not ok {job.name}: not run, since {', '.join(a for a in job.after if a in self.broken)} failed")
            self.sums[1] += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", dest="mode", action="store_const", const="quick", default="all")
    parser.add_argument("--long", dest="mode", action="store_const", const="long")
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    if args.kernels:
        print("\n".join(made_here(jobs(args.mode, args.names))))
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    wanted = jobs(args.mode, args.names)
    campaign = args.mode == "long"
    run = Run(wanted, TIMEOUT_LONG if campaign else TIMEOUT, campaign)
    # A signal unwinds through stop(), so that no machine is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start = time.monotonic()
    try:
        run.go()
    finally:
        run.stop()
    # Once more at the end, which is what is kept of a long log.
    for name, lines in run.broken.items():
        print(f"\nnot ok {name}" + "".join(f"\n    {line}" for line in lines[:20]))
    passed, failed, skipped = run.sums
    if skipped and os.environ.get("CI") == "true":
        print(f"not ok: with CI=true, {skipped} skipped tests count as failed")
        failed += skipped
        skipped = 0
    print(f"\n{time.monotonic() - start:.0f} s on {os.cpu_count()} processors")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
