# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu while one of its calls fails: it must not crash, leak or hang,
and its JSON stays valid.

fail_call.c makes one system call fail. Each command runs up to POINTS times,
each time with another failing call. These calls are spread evenly.
In bind and unbind, and when coverage is measured, every call fails once.
"""

import json
import re
import subprocess

import jsonschema
import pytest

from cli.common import COVERAGE, once, run, sanitizer_options, validate
from cli.doctor_trees import unfold
from cli import test_bind, test_vfio

GPU = "0009:01:00.0"
HOST = "good"
# How many runs each command has.
POINTS = 1000 if COVERAGE else 40
BEYOND = 10**9
# Those of the manual page, without 130: no signal comes.
STATUSES = {0, 1, 2, 3, 4, 5, 6, 7}


class Faults:
    points = POINTS

    @pytest.fixture(autouse=True)
    def faults(self, tmp_path, fail_call):
        self.directory, self.failing = tmp_path, fail_call

    def start(self, words, root, env):
        """Runs the command with the library, which reads these variables."""
        return run(*words, root=root, sanitized=True, env={**env, "LD_PRELOAD": str(self.failing)})

    def fault(self, number, words, root, lasts=False):
        """Runs the command with one failing call, or with lasts=True all from
        that one on. Returns the name of the call, its number, and the
        CompletedProcess. Without such a call, the name is "-" and the number
        is that of all calls."""
        said = self.directory / "said"
        said.unlink(missing_ok=True)
        done = self.start(words, root, {
            "FAIL_CALL": str(number), "FAIL_FILE": str(said),
            **({"FAIL_LASTS": "1"} if lasts else {}),
            # The library comes before the sanitizer's.
            **sanitizer_options("verify_asan_link_order=0")})
        name, count = said.read_text().split()
        return name, int(count), done

    def each(self, *words, root, judge, status=0, lasts=False):
        """Lets up to self.points calls of the command fail, one in each run,
        with lasts=True all later ones too. status: of the command if none fails.
        judge(CompletedProcess) returns what is wrong, or None."""
        name, count, done = self.fault(BEYOND, words, root)
        assert (name, done.returncode) == ("-", status), done.stderr
        assert count > 10, "the command has too few calls to be a test"
        failed, wrong = set(), []
        for number in sorted({1 + i * (count - 1) // (self.points - 1) for i in range(self.points)}):
            try:
                name, _, done = self.fault(number, words, root, lasts)
                failed.add(name)
                what = judge(done)
            # From the sanitizers, the JSON and the schema.
            except (AssertionError, ValueError, jsonschema.ValidationError) as e:
                what = str(e)
            if what:
                later = " and all later ones" if lasts else ""
                wrong.append(f"{' '.join(map(str, words))}: call {number} of {count}, {name}{later} fail: {what}")
        assert wrong == [], "\n".join(wrong)
        assert len(failed) > 2, failed

    @staticmethod
    def wrong(done):
        # A failed call makes no right command line wrong.
        if done.returncode not in STATUSES or "Try `" in done.stderr:
            return f"status {done.returncode}: {done.stderr}"
        if "--json" in done.args and done.stdout:
            validate(json.loads(done.stdout))
        return None if done.stdout or done.stderr else f"status {done.returncode} without output"


@pytest.mark.long
class Reading(Faults):
    @pytest.fixture
    def host(self, tmp_path):
        root = tmp_path / HOST
        root.mkdir()
        unfold.unfold(unfold.hosts(), HOST, root)
        return root

    def test_reading(self, host):
        def read():
            for words, status in ((["list"], 0), (["list", "--json"], 0), (["status", GPU], 0), (["status", "--json"], 0), (["metrics"], 0),
                                  (["bind", "--dry-run", "--persist", GPU], 0), (["unbind", "--dry-run", "--persist", GPU], 0),
                                  (["wait", "--timeout=0", GPU], 0), (["guest", GPU], 0), (["doctor", "--json"], 0)):
                self.each(*words, root=host, status=status, judge=self.wrong)

        once("faults-reading", read)

    def test_doctor_of_this_host(self):
        # It has no GPU.
        bad = run("doctor").returncode
        assert bad in (6, 7)
        self.each("doctor", root=None, status=bad, judge=self.wrong)
        record = self.directory / "record"

        def judge(done):
            subprocess.run(["rm", "-rf", record], check=True)
            return self.wrong(done)

        self.each("doctor", "--record", record, root=None, status=bad, judge=judge)


@pytest.mark.long
class Changing(Faults, test_bind.WithRule):
    """Commands that change something, on files in place of the kernel's."""

    # Each call: a change is whole, or undone, or a message says what is left.
    points = 1000
    LEFT = "can't restore|not at boot|can't remove"
    # What comes before each run.
    begin = staticmethod(lambda: None)
    # With a /proc of its own, the program has the same calls in each run.
    namespaces = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

    def start(self, words, root, env):
        self.begin()
        return self.run_words(*words, play=self.play, preload=(self.failing,), env={"AT": self.at, **env})

    def let_fail(self, command, before, at):
        """Lets calls of bind or unbind fail. before: the driver before each
        run."""
        own, self.play, self.at = self.folder / f"{GPU}.conf", "", at
        was = before, [] if command == "bind" else [own.name]
        whole = (test_bind.OURS, [own.name]) if command == "bind" else (None, [])

        def begin():
            self.bound(before, before or "(null)")
            for path in self.folder.iterdir():
                path.unlink()
            if was[1]:
                own.write_text(f"bind {GPU}\n")

        def judge(done):
            # A hidden file, which nothing reads, stays if nothing can remove it.
            found = self.driver(), [p.name for p in self.folder.iterdir() if not (self.lasts and p.name.startswith("."))]
            if found != (was if done.returncode else whole) and not (done.returncode and re.search(self.LEFT, done.stdout)):
                return f"status {done.returncode}, but driver and files: {found}: {done.stdout}"
            return self.wrong(done)

        self.begin = begin
        for self.lasts in (False, True):
            self.each(command, "--persist", "--json", GPU, root=None, judge=judge, lasts=self.lasts)

    def test_bind(self):
        at = f">{test_bind.PROBE}:{test_bind.binds(test_bind.OURS)}"
        other = f">{test_bind.DRIVERS}/nouveau/"
        once("faults-bind", lambda: self.let_fail("bind", None, at))
        once("faults-bind-from-another", lambda: self.let_fail(
            "bind", "nouveau", f"{at}\n{other}unbind:{test_bind.UNBINDS}\n{other}bind:{test_bind.binds('nouveau')}"))

    def test_unbind(self):
        own = f">{test_bind.DRIVERS}/{test_bind.OURS}/"
        once("faults-unbind", lambda: self.let_fail(
            "unbind", test_bind.OURS, f"{own}unbind:{test_bind.UNBINDS}\n{own}bind:{test_bind.binds(test_bind.OURS)}"))

    def test_memory_of_a_gpu(self):
        self.tree.file(f"{test_vfio.DEVICE}/nvgrace_gpu/scrub", "0")
        self.tree.file(f"{test_vfio.DEVICE}/nvgrace_gpu/scrub_state", "clean")
        self.bound(test_bind.OURS, test_bind.OURS)
        self.at, self.play = "", test_vfio.GPU
        # This has thousands of calls, and each run has its mounts.
        self.points = POINTS if COVERAGE else 12
        self.each("scrub", "--verify", "--json", GPU, root=None, judge=self.wrong)
