# SPDX-License-Identifier: GPL-2.0-only
"""`make demo` does what it says, and prints what README.md shows. After an
intended change, `make generated` records it again."""

import pytest

import demo


@pytest.mark.vm
def test_demo():
    assert demo.comparable(demo.run()) == demo.comparable(demo.recorded())
