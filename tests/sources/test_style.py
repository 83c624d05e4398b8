# SPDX-License-Identifier: GPL-2.0-only
"""`make style`."""

import subprocess

from lab import vm


def test_style():
    checkpatch = subprocess.run(["scripts/dev/toolbox", "checkpatch"], cwd=vm.PROJECT, capture_output=True, text=True, check=True).stdout.strip()
    done = subprocess.run(["scripts/dev/style", checkpatch], cwd=vm.PROJECT, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
