# SPDX-License-Identifier: GPL-2.0-only
"""What can't be made for the tests is one error with its own words, not an error
of each case."""

import os
import pathlib
import re
import subprocess
import tempfile

import pytest

from lab import vm
from packages.common import copy_sources


@pytest.fixture
def run():
    """A function for a run of pytest in a copy of the project, in which a source
    doesn't compile: its exit status and what it says."""
    (vm.PROJECT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="setup-test-", dir=vm.PROJECT / "build") as folder:
        def run(source, *options):
            copy = copy_sources(pathlib.Path(folder, "copy"))
            broken = copy / source
            broken.write_text("#error broken on purpose\n" + broken.read_text())
            # Not as a worker of the run that this test is part of.
            env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CI"))}
            env["PYTHONPATH"] = str(copy / "tests")
            done = subprocess.run(["python3", "-m", "pytest", *options, "tests/driver/mmap.c"], cwd=copy, env=env, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
            assert "#error broken on purpose" in done.stdout and "Traceback" not in done.stdout
            return done.returncode, done.stdout
        yield run


@pytest.mark.parametrize("options", [("-n", "2", "--dist", "loadgroup"), pytest.param((), marks=pytest.mark.long)], ids=["with workers", "without"])
def test_a_module(run, options):
    status, said = run("src/region.c", *options, "tests/lab/tests/test_runner.py")
    assert status == 1, said
    assert len(re.findall("no machine for the cases on newest", said)) == 1
    # Other tests run.
    assert re.search(r"\b[1-9]\d* passed, [1-9]\d+ skipped", said), said


def test_a_program(run):
    """Its cases are not known, so nothing runs."""
    status, said = run("tests/driver/mmap.c")
    assert status == 2, said
    assert len(re.findall("ERROR tests/driver/mmap.c", said)) == 1, said
