#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The results of campaigns: the table in docs/reliability.md, which the
campaigns themselves write.

    campaigns.py --stale

Prints a line for each campaign without a row, and for each row of a driver that
is more than one release old. Status 1 if there are any. `make style` calls it.
A new campaign gets its first row by hand: "not run yet", and the version that
introduces it. record() is for check.py and tests/package/life.py.

A row has the campaign's command, its result, the kernel, the day, and the
driver: its version, and the last commit that changed its sources. make finds
that commit (DRIVER_COMMIT in the environment; "?" without git)."""

import argparse
import datetime
import os
import re
import sys

import jobs

DOCUMENT = jobs.PROJECT / "docs" / "reliability.md"
BEGIN = "<!-- The table below is written by make check-long and make check-package. -->"
HEAD = ("| command | result | kernel | day | driver |", "|---|---|---|---|---|")

LONG = tuple(job.name for job in jobs.long_jobs() if job != jobs.PACKAGES)
PACKAGE = ("deb", "bookworm", "autopkgtest", "rpm", "guide", "secure-boot", "libvirt")
COMMANDS = tuple(f"make check-long JOBS={job}" for job in LONG) + tuple(f"make check-package PARTS={part}" for part in PACKAGE)


def split(text):
    """(the text before the rows, {command: row}, the text after them)."""
    before, mark, rest = text.partition(BEGIN + "\n")
    if not mark:
        raise ValueError(f"{DOCUMENT.name} has no line {BEGIN!r}")
    table, rows = re.match(r"\n((?:\|.*\n)*)", rest), {}
    for line in table[1].splitlines()[len(HEAD):]:
        rows[line.split("|")[1].strip().strip("`")] = line
    return before, rows, rest[table.end():]


def join(before, rows, after):
    """The opposite of split(). Rows are in the order of COMMANDS; those of
    former campaigns are dropped."""
    known = [rows[command] for command in COMMANDS if command in rows]
    return before + BEGIN + "\n\n" + "".join(line + "\n" for line in (*HEAD, *known)) + after


def version():
    """The driver's version in this tree."""
    return re.search(r'^PACKAGE_VERSION="(.*)"$', (jobs.PROJECT / "dkms.conf").read_text("utf-8"), re.M)[1]


def record(command, result, kernel, document=DOCUMENT):
    """Replace the campaign's row. A table that can't be written is no error,
    because the result has been printed."""
    if command not in COMMANDS:
        raise ValueError(f"no campaign: {command}")
    day = datetime.date.today().isoformat()
    driver = f"{version()}, {os.environ.get('DRIVER_COMMIT') or '?'}"
    try:
        before, rows, after = split(document.read_text("utf-8"))
        rows[command] = f"| `{command}` | {result} | {kernel or '-'} | {day} | {driver} |"
        new = document.with_suffix(".new")
        new.write_text(join(before, rows, after), "utf-8")
        new.replace(document)
    except OSError as e:
        print(f"{document} has no new result: {e}", file=sys.stderr)


def releases():
    """The releases in the changelog, newest first."""
    return re.findall(r"^## (\d\S*), ", (jobs.PROJECT / "CHANGELOG.md").read_text("utf-8"), re.M)


def stale(document=DOCUMENT):
    """A line for each campaign that must run again, with the reason."""
    good = releases()[:2]
    _, rows, _ = split(document.read_text("utf-8"))
    found = [f"{document.name}: no result of `{command}`" for command in COMMANDS if command not in rows]
    for command, row in rows.items():
        tested = row.split("|")[5].split(",")[0].strip()
        if command in COMMANDS and tested not in good:
            found.append(f"{document.name}: `{command}` was run with {tested}; {' and '.join(good)} are new enough")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--stale", action="store_true", required=True)
    parser.parse_args()
    found = stale()
    print("".join(f"{line}\n" for line in found), end="")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
