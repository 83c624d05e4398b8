# SPDX-License-Identifier: GPL-2.0-only
"""Reads the reports of the kernel's data race detector (KCSAN) out of a log, for tests/vm/suite.py.

The detector sees the whole kernel, whose own races are none of this project's business: a report counts if a function of
the driver is on one of its two stacks. What counts and is right as it is has a line in kcsan.exceptions.
"""

import collections
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
EXCEPTIONS = HERE / "kcsan.exceptions"
DRIVER = "[nvgrace_gpu_vfio_pci]"

# For the log scan, which knows no detector's reports from a driver's: judged by judge() instead.
ALLOW = (r"BUG: KCSAN: ", r"Reported by Kernel Concurrency Sanitizer")
# It costs the machine half of its speed, so not while it boots.
SWITCH_ON = "mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null; echo on >/sys/kernel/debug/kcsan"


def reports(lines):
    """Each report of a log (lines with their times): the lines between its two rulers."""
    report = None
    for line in lines:
        text = re.sub(r"^\[[ 0-9.]+\](\[[^]]*\])? ?", "", line)
        if text.startswith("BUG: KCSAN: "):
            report = []
        if report is None:
            continue
        if text.startswith("====="):
            yield report
            report = None
        else:
            report.append(text)
    if report:
        yield report


def exceptions(path=EXCEPTIONS):
    """Regular expressions of first lines, from a file of "EXPRESSION # REASON" lines."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        expression, mark, reason = line.partition(" # ")
        if line and not line.startswith("#"):
            if not mark or not reason.strip():
                raise ValueError(f"{path.name}: no reason: {line}")
            found.append(re.compile(expression.strip()))
    return found


def judge(lines, excepted=()):
    """(the driver's reports that nothing excepts, how many are excepted, {first line: count} of all others)."""
    ours, known, others = [], 0, collections.Counter()
    for report in reports(lines):
        if not any(DRIVER in line for line in report):
            others[report[0]] += 1
        elif any(e.search(report[0]) for e in excepted):
            known += 1
        else:
            ours.append(report)
    return ours, known, others
