# SPDX-License-Identifier: GPL-2.0-only
"""The commands of docs/administration.md, unchanged.

tests/pages.py reads them. These marks name their tests:

    <!-- test: guide -->
        runs in the machine of part "guide", in the page's order
    <!-- test: guide any-status -->
        the same, for commands whose exit status isn't just success or failure
    <!-- test: install-deb -->, <!-- test: install-rpm -->
        installs the packages

life.py uses this: part "guide" runs the page, and the other parts install with
the last two. repo.py also reads the command for .debs.
"""

import sys

from machine import PROJECT

sys.path.insert(0, str(PROJECT / "tests"))
import pages  # noqa: E402  (needs the path above)

PAGE = PROJECT / "docs" / "administration.md"

# Placeholders in the pages for the reader's GPU and for the repository's place.
ADDRESS = "0009:01:00.0"
PLACE = "/srv/nvgrace-gpu"


def blocks():
    """The guide's blocks, as tests/pages.py returns them."""
    return pages.blocks(PAGE)


def install(kind):
    """The commands that install the packages of a kind, deb or rpm."""
    found = [commands for words, commands in blocks() if words == [f"install-{kind}"]]
    if len(found) != 1:
        raise AssertionError(f"{PAGE.name} has {len(found)} blocks that install .{kind}s")
    return found[0]
