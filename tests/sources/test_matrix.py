# SPDX-License-Identifier: GPL-2.0-only
"""The module builds for each kernel without a warning."""

import subprocess
import warnings

import pytest

from lab import toolbox, vm


def kernels():
    """Those that must work, the one that tests boot but no package has, and those
    of which a fault is only a warning."""
    for words in (["kernels"], ["kernels", "--early"]):
        yield from toolbox.ask(*words).split()
    yield "newest-64k"


@pytest.mark.parametrize("name", [pytest.param(k, marks=[pytest.mark.check] if k == "newest" else
                                               [pytest.mark.all, pytest.mark.needs("kernel newest-64k")]) for k in kernels()])
def test_build(name):
    done = subprocess.run(["scripts/dev/matrix", name], cwd=vm.PROJECT, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
    if "early warning: " in done.stdout:
        warnings.warn(done.stdout)
