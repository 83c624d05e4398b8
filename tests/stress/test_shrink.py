# SPDX-License-Identifier: GPL-2.0-only
"""How shrink.py shortens a failing sequence."""

import pytest

from stress import shrink

pytestmark = pytest.mark.check


def test_ranges():
    assert shrink.ranges([]) == ""
    assert shrink.ranges([3]) == "3"
    assert shrink.ranges([0, 1, 2, 7, 9, 10]) == "0-2,7,9-10"


@pytest.mark.parametrize("needed", ([999], [0, 999], [3, 500, 501, 999], [17, 18, 19, 400, 731, 990, 999]))
def test_what_is_needed_is_left(needed):
    assert shrink.shorter(list(range(1000)), lambda some: list(some) if set(needed) <= set(some) else None) == needed


def test_a_failure_may_come_earlier():
    def fails(some):
        return next(([n for n in some if n <= last] for last in (40, 90) if last in some), None)
    assert shrink.shorter(list(range(91)), fails) in ([40], [90])
