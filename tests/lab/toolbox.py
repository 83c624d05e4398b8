# SPDX-License-Identifier: GPL-2.0-only
"""What scripts/dev/toolbox knows about kernels and packages."""

import pathlib
import subprocess

TOOLBOX = pathlib.Path(__file__).resolve().parents[2] / "scripts/dev/toolbox"


class Failed(Exception):
    """Its argument: what the toolbox says."""


def ask(*words):
    """What it prints."""
    done = subprocess.run([TOOLBOX, *words], capture_output=True, text=True)
    if done.returncode:
        raise Failed(done.stderr.strip())
    return done.stdout.strip()
