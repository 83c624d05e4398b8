# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's race detector, KCSAN: its parameters, how the driver is compiled
for it, and what its reports mean. As a program, prints the compiler's flags:

    make modules KDIR=DIRECTORY KCFLAGS="$(python3 -m lab.kcsan DIRECTORY)" ...

The detector reports races of the whole kernel. A report counts if a function of
the driver made one of its two accesses or called what made it. A function that
was merely interrupted did not call what the interrupt or exception did. Nor does it
call what the kernel does for a fault on user memory, which the driver asks for
where a plain copy would have an exception. A race that does no harm has
data_race() in the driver, with the reason.
"""

import collections
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
DRIVER = "[nvgrace_gpu_vfio_pci]"

# The line above an access's stack.
ACCESS = re.compile(r" to 0x[0-9a-f]+ of \d+ bytes by (task \d+|interrupt) on cpu \d+:$")
# The frames at which an interrupt or an exception enters the kernel of arm64, at
# which interrupts change the stack, and at which the kernel handles a fault. Frames
# below were interrupted, or had the fault.
ENTRY = re.compile(r" (el[01][ht]_(64|32)_(sync|irq|fiq|error)(_handler)?|call_on_irq_stack|handle_mm_fault)\+0x")

# The log scan ignores these reports. judge() judges them. The detector warns
# once when it can't find the function of a delayed access on the stack, as when
# an interrupt comes before that function's callee has made its frame. Other
# warnings have more lines that fail a run than this one's "Call trace".
ALLOW = (r"BUG: KCSAN: ", r"Reported by Kernel Concurrency Sanitizer",
         r"WARNING: kernel/kcsan/report\.c:\d+ at replace_stack_entry", r"Call trace:$")
# Of the driver's plain accesses, the detector watches one in EVERY
# (kcsan_draw.h), and of others one in 375. Each waits for up to 80 us. Much
# longer waits keep the faults of the program "races" from ending between resets.
EVERY = 40
# Off during boot, since the detector halves the machine's speed.
SWITCH_ON = "mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null; echo on >/sys/kernel/debug/kcsan"
# How many accesses it watched, and how many races it saw, reported or not.
COUNTERS = "grep -E '^(setup_watchpoints|data_races|races_unknown_origin):' /sys/kernel/debug/kcsan"


def compiler_flags(headers):
    """For modules of the kernel with these headers."""
    symbols = (pathlib.Path(headers) / "System.map").read_text()
    address = re.search(r"^(\w+) \w kcsan_skip$", symbols, re.MULTILINE)[1]
    return f"-include {HERE / 'kcsan_draw.h'} -DKCSAN_EVERY={EVERY} -DKCSAN_SKIP=0x{address}UL"


def counters(output):
    """The numbers by their names, from the output of COUNTERS."""
    return {name: int(number) for name, number in re.findall(r"^(\w+): (\d+)$", "\n".join(output), re.MULTILINE)}


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


def stacks(report):
    """Yield the frames of each of a report's accesses, innermost first: (the
    line above them, lines)."""
    access, frames = None, []
    for line in (*report, ""):
        if access and line.startswith(" "):
            frames.append(line)
            continue
        if access:
            yield access, frames
        access, frames = (line if ACCESS.search(line) else None), []


def is_ours(report):
    """Whether the driver made one of a report's accesses."""
    for access, frames in stacks(report):
        # The detector models writes and reads that the processor delays, and
        # may then find a race in an interrupt that has come meanwhile. It
        # leaves out the frames above the function with the access, and says
        # so. It can't if the unwinder missed that function.
        lost = "reordered)" in access and "by task" in access and not any("+-> reordered to: " in f for f in frames)
        for frame in frames:
            if DRIVER in frame:
                return True
            if ENTRY.search(frame) and not lost:
                break
    return DRIVER in report[0]


def judge(lines):
    """Return the driver's reports, and a Counter of the first lines of all
    others."""
    ours, others = [], collections.Counter()
    for report in reports(lines):
        if is_ours(report):
            ours.append(report)
        else:
            others[report[0]] += 1
    return ours, others


if __name__ == "__main__":
    print(compiler_flags(sys.argv[1]))
