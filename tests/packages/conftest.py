# SPDX-License-Identifier: GPL-2.0-only
"""Makes the packages once, and shows the steps while they run."""

import hashlib
import subprocess

import pytest

from lab.system.scratch import PACKAGES, PROJECT
from packages import common


def pytest_configure(config):
    common.terminal = config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled


def digest(*folders):
    """A hash of all files in these folders, without what no package has."""
    found = hashlib.sha256()
    for folder in folders:
        for where, below, names in folder.walk():
            below[:] = sorted(set(below) - common.left_out(where, below))
            for path in (where / name for name in sorted(set(names) - common.left_out(where, names))):
                found.update(f"{path} {path.lstat().st_mode}\n".encode() + path.read_bytes())
    return found.hexdigest()


@pytest.fixture(scope="session")
def built_packages():
    """build/packages and build/repo are of these sources. `make deb rpm repo`
    makes others there, with git's version."""
    made, repository = PROJECT / "build/packages.made", PROJECT / "build/repo"
    with common.locked("packages"):
        sources = digest(PROJECT)
        if made.exists() and made.read_text() == f"{sources} {digest(PACKAGES, repository)}":
            return
        common.make_packages("deb", "rpm")
        done = subprocess.run(["scripts/packaging/repo"], cwd=PROJECT, capture_output=True, text=True)
        assert not done.returncode, done.stdout + done.stderr
        made.write_text(f"{sources} {digest(PACKAGES, repository)}")
