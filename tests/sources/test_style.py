# SPDX-License-Identifier: GPL-2.0-only
"""`make style`."""

import subprocess

from lab import toolbox, vm


def test_style():
    done = subprocess.run(["scripts/dev/style", toolbox.ask("checkpatch")], cwd=vm.PROJECT, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
