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
    """A copy of the project, with a source that doesn't compile."""

    def run_pytest(self, source, *options):
        (vm.PROJECT / "build").mkdir(exist_ok=True)
        folder = tempfile.mkdtemp(prefix="setup-test-", dir=vm.PROJECT / "build")
        self.addCleanup(shutil.rmtree, folder)
        copy = copy_sources(pathlib.Path(folder, "copy"))
        broken = copy / source
        broken.write_text("#error broken on purpose\n" + broken.read_text())
        # Not as a worker of the run that this test is part of.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CI"))}
        env["PYTHONPATH"] = str(copy / "tests")
        done = subprocess.run(["python3", "-m", "pytest", *options, "tests/driver/mmap.c"], cwd=copy, env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        self.assertIn("#error broken on purpose", done.stdout)
        self.assertNotIn("Traceback", done.stdout)
        return done.returncode, done.stdout

    def test_a_module_before_workers_start(self):
        status, said = self.run_pytest("src/region.c", "-n", "2", "--dist", "loadgroup", "tests/lab/tests/test_model.py")
        self.assertEqual(status, 1, said)
        self.assertEqual(len(re.findall("can't make what the cases on newest need", said)), 1)
        # Other tests run.
        self.assertRegex(said, r"\b[1-9]\d* passed, [1-9]\d+ skipped")

    def test_a_module_without_workers(self):
        status, said = self.run_pytest("src/region.c")
        self.assertEqual(status, 1, said)
        self.assertRegex(said, r"\b1 failed, [1-9]\d+ skipped")
        self.assertEqual(len(re.findall("no machine with the kernel newest", said)), 1)

    def test_a_program(self):
        """Its cases are not known, so nothing runs."""
        status, said = self.run_pytest("tests/driver/mmap.c")
        self.assertEqual(status, 2, said)
        self.assertEqual(len(re.findall("ERROR tests/driver/mmap.c", said)), 1, said)
