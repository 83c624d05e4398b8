# SPDX-License-Identifier: GPL-2.0-only
"""The commands of docs/administration.md and README.md, as they stand there. tests/pages.py reads them; their tests are

    <!-- test: guide -->            in the machine of part "guide", in the page's order
    <!-- test: guide any-status --> likewise, for commands whose exit status tells something else than success
    <!-- test: install-deb -->      what installs the packages; README.md says the same
    <!-- test: install-rpm -->

life.py is the only user: its part "guide" runs the page, its other parts install by the blocks above.
"""

import sys

from machine import PROJECT

sys.path.insert(0, str(PROJECT / "tests"))
import pages  # noqa: E402  (needs the path above)

PAGE = PROJECT / "docs" / "administration.md"
README = PROJECT / "README.md"

# The address that stands for the reader's.
ADDRESS = "0009:01:00.0"
# And where the repository is.
PLACE = "/srv/nvgrace-gpu"


def blocks():
    """Those of the guide."""
    return pages.blocks(PAGE)


def install(kind):
    """The commands that install the packages of a kind, deb or rpm; README.md's must be the same."""
    here, there = ([commands for words, commands in pages.blocks(page) if words == [f"install-{kind}"]] for page in (PAGE, README))
    if len(here) != 1 or here != there:
        raise AssertionError(f"{PAGE.name} and {README.name} don't say the same about installing .{kind}s")
    return here[0]
