# SPDX-License-Identifier: GPL-2.0-only
"""Writes build/results/NAME.md when a campaign ends: its command, result,
kernel, day and driver, as the row for docs/reliability.md. The driver is its
version and the last commit that changed its sources. make finds that commit
(DRIVER_COMMIT in the environment; "?" without git)."""

import datetime
import os
import pathlib
import re

PROJECT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "build" / "results"


def driver():
    """The driver in this tree."""
    version = re.search(r'^PACKAGE_VERSION="(.*)"$', (PROJECT / "dkms.conf").read_text("utf-8"), re.M)[1]
    return f"{version}, {os.environ.get('DRIVER_COMMIT') or '?'}"


def write(name, command, result, kernels="-"):
    """Replace the campaign's result."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    day = datetime.date.today().isoformat()
    (RESULTS / f"{name}.md").write_text(f"| `{command}` | {result} | {kernels} | {day} | {driver()} |\n", "utf-8")
