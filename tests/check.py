#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs all tests, a few at a time, and adds up their results.

    check.py [--quick | --long] [--load N] [NAME...]
    check.py --kernels [--long] [NAME...]

Inside the toolbox; called by the Makefile's check targets. jobs.py has the
jobs. A job is a program whose last line is "N passed, N failed, N skipped", or
a Python unittest. Its output goes to build/log/check-NAME.log, and is shown if
it fails. With NAMEs, only these jobs run. The last line is the sum of all, and
the exit status is 0 if nothing failed. With CI=true in the environment, a
skipped test counts as failed. With --load, N processes that never sleep run
beside the jobs: no test may depend on a fast machine. With --kernels, it prints
the kernels of tests/testkernel that these jobs need, and runs nothing."""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import jobs
import results

LOGS = jobs.PROJECT / "build" / "log"
# A job that takes longer is stuck, even on two processors that others use too.
# The second limit is for campaigns.
TIMEOUT = 2 * 3600
TIMEOUT_LONG = 4 * 3600
# Seconds between lists of the jobs that are running.
SIGN_OF_LIFE = 60


def verdict(text, rc):
    """(passed, failed, skipped) of a job's output. A job without result failed.
    """
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


# How TAP, unittest, a compiler and Python report a failure.
FAILURE = re.compile(r"not ok\b|(FAIL|ERROR): |Traceback |(\S+:)?(\d+:)* ?(fatal )?error: |check\.py: ")


def failures(text):
    """The lines of a job's output that report failures."""
    return [line for line in text.splitlines() if FAILURE.match(line)]


def excerpt(text):
    """Of a failed job's output, what is around each failure, and the end."""
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
    """Starts jobs as processors and predecessors allow, and keeps the sums."""

    def __init__(self, wanted, timeout, campaign=False):
        self.waiting = list(wanted)
        self.campaign = campaign
        self.timeout = timeout
        self.names = {j.name for j in wanted}
        self.running = {}
        self.good = set()
        self.sums = [0, 0, 0]
        self.broken = {}        # what failed, by job
        # Two more than there are, because machines wait for their clocks half
        # of the time.
        self.free = max(os.cpu_count() or 1, 2) + 2

    def _start(self, job):
        log = LOGS / f"check-{job.name}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(job.argv, cwd=jobs.PROJECT, stdout=out, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL, start_new_session=True)
        self.running[job.name] = (job, process, log, time.monotonic())
        self.free -= job.width
        print(f"       {job.name} ...", flush=True)

    def _end(self, name, usage):
        job, process, log, start = self.running.pop(name)
        self.free += job.width
        text = log.read_text(errors="replace")
        result = verdict(text, process.returncode)
        self.sums = [a + b for a, b in zip(self.sums, result)]
        passed, failed, skipped = result
        word = "not ok" if failed else "ok"
        print(f"{word:6} {name}: {passed} passed, {failed} failed, {skipped} skipped; "
              f"{time.monotonic() - start:.0f} s, processors {usage.ru_utime + usage.ru_stime:.0f} s", flush=True)
        if self.campaign and name in {j.name for j in jobs.long_jobs()} - {jobs.PACKAGES.name}:
            kernels = ", ".join(jobs.toolbox("release", k) for k in job.modules) or "-"
            results.write(name, f"make check-long JOBS={name}", f"{passed} passed, {failed} failed, {skipped} skipped", kernels)
        # Of Debian's next kernel. It fails nothing, but must be seen.
        print("".join(f"       {line}\n" for line in text.splitlines() if line.startswith("early warning:")), end="")
        if failed:
            self.broken[name] = failures(text)
            print("".join(f"    | {line}\n" for line in excerpt(text)) + f"    all of it: {log}", flush=True)
        else:
            self.good.add(name)

    def _startable(self):
        for job in self.waiting:
            # A job may be wider than the machine when it runs alone.
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
                late = now - start > self.timeout
                if late:
                    os.killpg(process.pid, signal.SIGTERM)
                # poll() would drop what the job's processes used.
                ended, status, usage = os.wait4(process.pid, 0 if late else os.WNOHANG)
                if not ended:
                    continue
                process.returncode = os.waitstatus_to_exitcode(status)
                if late:
                    with open(log, "a") as f:
                        f.write(f"\ncheck.py: ended after {self.timeout} s\n")
                self._end(name, usage)
            if now - spoken > SIGN_OF_LIFE and self.running:
                spoken = now
                print("       ... " + ", ".join(f"{n} {now - r[3]:.0f} s" for n, r in self.running.items()), flush=True)
        for job in self.waiting:
            print(f"not ok {job.name}: not run, since {', '.join(a for a in job.after if a in self.broken)} failed")
            self.sums[1] += 1


@contextlib.contextmanager
def load(count):
    """As many processes that never sleep. They end with this one. Each has its
    own session, as each job does: Linux shares processors between sessions."""
    forever = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    busy = [subprocess.Popen([sys.executable, "-c", forever], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", dest="mode", action="store_const", const="quick", default="all")
    parser.add_argument("--long", dest="mode", action="store_const", const="long")
    parser.add_argument("--load", type=int, default=0, metavar="N")
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    if args.kernels:
        print("\n".join(jobs.made_here(jobs.chosen(args.mode, args.names))))
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    wanted = jobs.chosen(args.mode, args.names)
    campaign = args.mode == "long"
    run = Run(wanted, TIMEOUT_LONG if campaign else TIMEOUT, campaign)
    # The exception runs stop(), so that no machine is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start = time.monotonic()
    try:
        with load(args.load):
            run.go()
    finally:
        run.stop()
    # Again at the end, because only the end of a long log may be kept.
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
