# SPDX-License-Identifier: GPL-2.0-only
"""The links in Markdown pages, for test_style.py.

Every relative link must lead to a file or folder, and every #anchor to a heading
of its page. Links with a scheme, such as https:, are not checked.
"""

import functools
import re


def prose(page):
    """The text of a page without its code."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text("utf-8"), flags=re.M | re.S)
    return re.sub(r"(`+)[^`].*?\1", "", text, flags=re.S)


def links(page):
    """The targets in a page, without those that have a scheme."""
    found = re.findall(r"\]\(\s*<?([^\s)>]+)", prose(page))
    return [target for target in found if not re.match(r"[a-z][a-z0-9+.-]*:", target, re.I)]


@functools.lru_cache(maxsize=None)
def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text("utf-8"), flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#{1,6} +(.*?)[ #]*$", text, re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        anchor, count = name, 0
        while anchor in found:
            count += 1
            anchor = f"{name}-{count}"
        found.add(anchor)
    return found


def broken(page):
    """The targets in a page that lead nowhere."""
    for target in links(page):
        path, _, anchor = target.partition("#")
        where = page.parent / path if path else page
        if not where.exists() or anchor and where.suffix == ".md" and anchor not in anchors(where.resolve()):
            yield target
