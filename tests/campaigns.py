#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The results of campaigns: the table in docs/reliability.md, which the campaigns themselves write.

    campaigns.py --stale

Prints the campaigns that have no row, or one of a driver that is more than one release old, a line each; status 1 if
there are any. A new campaign gets a row by hand, "not run yet" and the version that it is new in. `make style` calls it. record() is for check.py and for tests/package/life.py.

A row has: the campaign and its command, what it said, the kernel, the day, and the driver: its version, and the commit
that was the last to change its sources, which make finds (DRIVER_COMMIT in the environment; "?" without git).
"""

import argparse
import datetime
import os
import pathlib
import re
import sys

PROJECT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = PROJECT / "docs" / "reliability.md"
BEGIN = "<!-- The table below is written by make check-long and make check-package. -->"
HEAD = ("| command | result | kernel | day | driver |", "|---|---|---|---|---|")

LONG = ("vm-6.12-16k", "vm-6.12-rt", "vm-7.2-rt", "vm-debug", "vm-debug-64k", "vm-kcsan", "races-long", "cycles-long",
        "scrub-long", "random", "random-debug", "faults", "controls", "controls-kcsan", "vfio-selftests", "mutants", "mutants-generated",
        "fuzz-long", "coverage", "static-all", "package-lint", "dkms-all")
PACKAGE = ("deb", "bookworm", "autopkgtest", "rpm", "guide", "secure-boot", "libvirt")
COMMANDS = tuple(f"make check-long JOBS={job}" for job in LONG) + tuple(f"make check-package PARTS={part}" for part in PACKAGE)


def split(text):
    """(what is before the rows, {command: row}, what is behind them) of the document."""
    before, mark, rest = text.partition(BEGIN + "\n")
    if not mark:
        raise ValueError(f"{DOCUMENT.name} has no line {BEGIN!r}")
    table, rows = re.match(r"\n((?:\|.*\n)*)", rest), {}
    for line in table[1].splitlines()[len(HEAD):]:
        rows[line.split("|")[1].strip().strip("`")] = line
    return before, rows, rest[table.end():]


def join(before, rows, after):
    """The opposite; rows in the order of COMMANDS, without those that are no campaigns any more."""
    known = [rows[command] for command in COMMANDS if command in rows]
    return before + BEGIN + "\n\n" + "".join(line + "\n" for line in (*HEAD, *known)) + after


def version():
    """That of the driver in this tree."""
    return re.search(r'^PACKAGE_VERSION="(.*)"$', (PROJECT / "dkms.conf").read_text("utf-8"), re.M)[1]


def record(command, result, kernel, document=DOCUMENT):
    """Put a campaign's result in the place of its last one. It is no error if the table can't be written: the result has been
    printed."""
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
    """Those in the changelog, the newest first."""
    return re.findall(r"^## (\d\S*), ", (PROJECT / "CHANGELOG.md").read_text("utf-8"), re.M)


def stale(document=DOCUMENT):
    """Why a campaign has to be run again, a line for each that has."""
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
