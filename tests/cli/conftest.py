# SPDX-License-Identifier: GPL-2.0-only
"""The fixtures that tests of several files share."""

import pytest

from cli.common import build_library
from cli.test_trees import Tree


@pytest.fixture
def tree():
    """An empty host's tree."""
    with Tree() as made:
        yield made


@pytest.fixture(scope="session")
def fake_vfio(tmp_path_factory):
    return build_library("fake_vfio", tmp_path_factory.mktemp("fake_vfio"))


@pytest.fixture(scope="session")
def fail_call(tmp_path_factory):
    return build_library("fail_call", tmp_path_factory.mktemp("fail_call"))
