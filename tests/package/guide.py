# SPDX-License-Identifier: GPL-2.0-only
"""The commands of docs/administration.md and README.md, as they stand there.

A block that is to be run is fenced, as sh, below a comment that names its test:

    <!-- test: guide -->            in the machine of part "guide", in the page's order
    <!-- test: guide any-status --> likewise, for commands whose exit status tells something else than success
    <!-- test: install-deb -->      what installs the packages; README.md says the same
    <!-- test: install-rpm -->

life.py is the only user: its part "guide" runs the page, its other parts install by the blocks above.
"""

import re

from machine import PROJECT

PAGE = PROJECT / "docs" / "administration.md"
README = PROJECT / "README.md"

# The address that stands for the reader's.
ADDRESS = "0009:01:00.0"
# And where the repository is.
PLACE = "/srv/nvgrace-gpu"


def blocks(page=PAGE):
    """[(words after "test:", commands)], in the page's order. A fenced block without its comment is an error."""
    text = page.read_text()
    found = re.findall(r"^<!-- test: ([a-z -]+) -->\n```sh\n(.*?)^```$", text, re.M | re.S)
    if len(found) != len(re.findall(r"^```sh$", text, re.M)):
        raise AssertionError(f"{page.name} has a block of sh that doesn't say which test runs it")
    return [(words.split(), commands) for words, commands in found]


def install(kind):
    """The commands that install the packages of a kind, deb or rpm; README.md's must be the same."""
    here, there = ([commands for words, commands in blocks(page) if words == [f"install-{kind}"]] for page in (PAGE, README))
    if len(here) != 1 or here != there:
        raise AssertionError(f"{PAGE.name} and {README.name} don't say the same about installing .{kind}s")
    return here[0]
