# SPDX-License-Identifier: GPL-2.0-only
"""`make bench` measures everything that has a goal, and all waits."""

import pytest

from lab import vm
from stress.bench import bench, waits

pytestmark = pytest.mark.needs("root qemu")


@pytest.mark.long
@pytest.mark.kernels("newest")
def test_everything_is_measured(kernel):
    assert bench.bench(vm.Kernel(kernel), rounds=1, quick=True, smoke=True)


@pytest.mark.long
@pytest.mark.kernels("newest")
def test_every_wait_is_measured(kernel):
    waits.measure(vm.Kernel(kernel), rounds=1, smoke=True)
