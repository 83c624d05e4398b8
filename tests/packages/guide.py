# SPDX-License-Identifier: GPL-2.0-only
"""The commands of docs/administration.md, unchanged.

lab/doc_commands.py reads them. These marks name their tests:

    <!-- test: guide -->
        runs in the machine of test_life.py's test_guide, in the page's order
    <!-- test: guide any-status -->
        the same, for commands whose exit status isn't just success or failure
    <!-- test: install-deb -->, <!-- test: install-rpm -->
        installs the packages

test_life.py uses this: test_guide runs the page, and the other tests install with
the last two. test_repo.py also reads the command for .debs.
"""

from lab import doc_commands
from lab.system.machine import PROJECT

PAGE = PROJECT / "docs" / "administration.md"

# Placeholders in the pages for the reader's GPU and for the repository's place.
ADDRESS = "0009:01:00.0"
PLACE = "/srv/nvgrace-gpu"


def blocks():
    """The guide's blocks, as lab/doc_commands.py returns them."""
    return doc_commands.blocks(PAGE)


def install(kind):
    """The commands that install the packages of a kind, deb or rpm."""
    found = [commands for words, commands in blocks() if words == [f"install-{kind}"]]
    if len(found) != 1:
        raise AssertionError(f"{PAGE.name} has {len(found)} blocks that install .{kind}s")
    return found[0]
