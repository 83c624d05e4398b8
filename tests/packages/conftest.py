# SPDX-License-Identifier: GPL-2.0-only
"""Makes the packages once, shows the steps while they run, and has the fixtures
that tests of several files share."""

import contextlib
import hashlib

import pytest

from lab.system.scratch import PACKAGES, PROJECT, Scratch
from packages import common


def pytest_configure(config):
    common.terminal = config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled


def digest(folder):
    """A hash of all files in a folder, without what no package has."""
    found = hashlib.sha256()
    for where, below, names in folder.walk():
        below[:] = sorted(set(below) - common.left_out(where, below))
        for path in (where / name for name in sorted(set(names) - common.left_out(where, names))):
            found.update(f"{path} {path.lstat().st_mode}\n".encode() + path.read_bytes())
    return found.hexdigest()


@pytest.fixture(scope="session")
def built_packages():
    """build/packages is of these sources. `make deb rpm` makes others there, with git's
    version."""
    made = PROJECT / "build/packages.made"
    with common.locked("packages"):
        sources = digest(PROJECT)
        if made.exists() and made.read_text() == f"{sources} {digest(PACKAGES)}":
            return
        common.make_packages("deb", "rpm")
        made.write_text(f"{sources} {digest(PACKAGES)}")


@pytest.fixture
def scratch_system():
    """A function: a new temporary system, which the end of the test removes."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, kind=Scratch, **kwargs: stack.enter_context(contextlib.closing(kind(*args, **kwargs)))


@pytest.fixture(scope="class")
def work():
    """A folder of a class's tests, where the toolbox sees it."""
    with common.new_folder() as folder:
        yield folder
