# SPDX-License-Identifier: GPL-2.0-only
"""The model GPU's cache: if a reset dropped or kept the wrong lines, the test of a scrub
of such a GPU would pass for nothing. QEMU, the kernel and the driver's cases use all
else that the model has."""

from lab.model import gpu as model
from lab.model import l2

BAR2 = 2


def test_a_reset_drops_what_was_written_last():
    """With a cache, the memory has what was written before that."""
    gpu = model.Gpu(bar2_size=1 << 16, bar2_cache=4 * l2.LINE)
    gpu.bar2[:] = b"old " * (1 << 14)
    new = b"new " * (10 * l2.LINE // 4)
    gpu.write(BAR2, 0, new)
    # In the cache again, and so written last, like the end.
    gpu.write(BAR2, 6 * l2.LINE + 2, b"xy")
    assert gpu.read(BAR2, 6 * l2.LINE - 2, 8) == b"w nexyne"
    assert gpu.read(BAR2, 0, len(new))[7 * l2.LINE:] == new[7 * l2.LINE:]
    assert gpu.bar2[:7 * l2.LINE] == new[:6 * l2.LINE] + b"old " * (l2.LINE // 4)
    gpu.reset("device_reset")
    assert gpu.read(BAR2, 0, 10 * l2.LINE) == new[:6 * l2.LINE] + b"old " * (4 * l2.LINE // 4)
    # Nothing is left to drop.
    assert gpu.drop_cache() == 0


def test_an_evicted_line_is_kept():
    """A line that is written twice, with others in between, survives."""
    gpu = model.Gpu(bar2_size=1 << 16, bar2_cache=2 * l2.LINE)
    gpu.bar2[:] = b"old " * (1 << 14)
    for _ in range(2):
        gpu.write(BAR2, 0, b"new " * (4 * l2.LINE // 4))
    assert gpu.drop_cache() == 2
    assert gpu.read(BAR2, 0, 4 * l2.LINE) == b"new " * (4 * l2.LINE // 4)
