# SPDX-License-Identifier: GPL-2.0-only
"""The project's own rules, and checkpatch."""

import subprocess

import pytest

from lab import toolbox, vm


@pytest.mark.needs("checkpatch")
@pytest.mark.parametrize("what", [pytest.param((), id="sources"), pytest.param(("tests",), marks=pytest.mark.all, id="tests")])
def test_style(what):
    done = subprocess.run(["scripts/dev/style", toolbox.ask("checkpatch"), *what], cwd=vm.PROJECT, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
