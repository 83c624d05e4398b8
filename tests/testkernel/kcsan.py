# SPDX-License-Identifier: GPL-2.0-only
"""Reads reports of the kernel's race detector, KCSAN, for tests/vm/suite.py.

The detector reports races of the whole kernel. A report counts if a function of
the driver is on one of its two stacks, unless kcsan.exceptions has a line for
it.
"""

import collections
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
EXCEPTIONS = HERE / "kcsan.exceptions"
DRIVER = "[nvgrace_gpu_vfio_pci]"

# The log scan ignores these reports. judge() judges them.
ALLOW = (r"BUG: KCSAN: ", r"Reported by Kernel Concurrency Sanitizer")
# Off during boot, since the detector halves the machine's speed.
SWITCH_ON = "mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null; echo on >/sys/kernel/debug/kcsan"


def reports(lines):
    """Yield each report of a log: the lines between its rulers."""
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
    """Return regular expressions of first lines, from "EXPRESSION # REASON"."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        expression, mark, reason = line.partition(" # ")
        if line and not line.startswith("#"):
            if not mark or not reason.strip():
                raise ValueError(f"{path.name}: no reason: {line}")
            found.append(re.compile(expression.strip()))
    return found


def judge(lines, excepted=()):
    """Return the driver's reports, the number of excepted ones, and a Counter
    of the first lines of all others."""
    ours, known, others = [], 0, collections.Counter()
    for report in reports(lines):
        if not any(DRIVER in line for line in report):
            others[report[0]] += 1
        elif any(e.search(report[0]) for e in excepted):
            known += 1
        else:
            ours.append(report)
    return ours, known, others
