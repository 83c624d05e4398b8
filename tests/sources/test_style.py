# SPDX-License-Identifier: GPL-2.0-only
"""The project's own rules, and checkpatch."""

import subprocess

import pytest

from lab import toolbox, vm


def style(*words):
    done = subprocess.run(["scripts/dev/style", *words], cwd=vm.PROJECT, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr


def test_style():
    style()


@pytest.mark.all
@pytest.mark.needs("checkpatch")
def test_checkpatch():
    style(toolbox.ask("checkpatch"))
