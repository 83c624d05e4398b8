# SPDX-License-Identifier: GPL-2.0-only
"""The commands of the documentation's pages, for tests that run them exactly as
written.

A block of commands is fenced as sh, below a comment that names its test:

    <!-- test: WORDS -->
    ```sh
    command
    ```"""

import re


def blocks(page):
    """[(words after "test:", commands)], in the page's order. A fenced block
    without the comment is an error."""
    text = page.read_text()
    found = re.findall(r"^<!-- test: ([a-z0-9 -]+) -->\n```sh\n(.*?)^```$", text, re.M | re.S)
    if len(found) != len(re.findall(r"^```sh$", text, re.M)):
        raise AssertionError(f"{page.name} has a block of sh that doesn't say which test runs it")
    return [(words.split(), commands) for words, commands in found]
