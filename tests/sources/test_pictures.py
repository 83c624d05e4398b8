# SPDX-License-Identifier: GPL-2.0-only
"""The programs still print what docs/pictures shows. After an intended change,
`make pictures` records their output again."""

import pytest

import record

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def tool():
    return record.run_tool()


def compare(name, lines):
    text = record.text_of(name, lines)
    assert not record.differences(name, text)
    # It finds a changed word.
    assert record.differences(name, text.replace("usemem", "used", 1))


def test_demo():
    compare("demo", record.run_demo())


@pytest.mark.all
@pytest.mark.parametrize("name", ["status", "doctor"])
def test_tool(name, tool):
    compare(name, tool[name])
