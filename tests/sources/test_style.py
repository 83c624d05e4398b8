# SPDX-License-Identifier: GPL-2.0-only
"""The project's own rules, and checkpatch."""

import subprocess

import pytest

from lab import toolbox, vm


@pytest.mark.needs("checkpatch")
def test_style():
    done = subprocess.run(["scripts/dev/style", toolbox.ask("checkpatch")], cwd=vm.PROJECT, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
