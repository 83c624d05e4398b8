# SPDX-License-Identifier: GPL-2.0-only
"""What can't be made for the tests is one error with its own words, not an error
of each case."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from lab import vm
from packages.common import copy_sources


class Broken(unittest.TestCase):
    """A copy of the project, with a program that doesn't compile."""

    @classmethod
    def setUpClass(cls):
        (vm.PROJECT / "build").mkdir(exist_ok=True)
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="setup-test-", dir=vm.PROJECT / "build"))
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        cls.copy = copy_sources(cls.dir / "copy")
        program = cls.copy / "tests/driver/mmap.c"
        program.write_text("#error broken on purpose\n" + program.read_text())

    def run_pytest(self, *options):
        # Not as a worker of the run that this test is part of.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CI"))}
        env["PYTHONPATH"] = str(self.copy / "tests")
        done = subprocess.run(["python3", "-m", "pytest", *options, "tests/driver/mmap.c"], cwd=self.copy, env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("#error broken on purpose", done.stdout)
        self.assertNotIn("Traceback", done.stdout)
        return done.stdout

    def test_before_workers_start(self):
        said = self.run_pytest("-n", "2", "--dist", "loadgroup", "tests/lab/tests/test_stage2.py")
        self.assertEqual(len(re.findall("can't make what the cases on newest need", said)), 1)
        # Other tests run.
        self.assertRegex(said, r"\b[1-9]\d* passed, [1-9]\d+ skipped")

    def test_without_workers(self):
        said = self.run_pytest()
        self.assertRegex(said, r"\b1 failed, [1-9]\d+ skipped")
        self.assertEqual(len(re.findall("no machine with the kernel newest", said)), 1)
