# SPDX-License-Identifier: GPL-2.0-only
"""Compares the manual page nvgrace-gpu-vfio-pci(4) with the driver, and checks
it with scdoc and groff, for test_style.py.

The page's section LOG LINES must have all lines that the driver writes to the
kernel's log, with their severities, and no others. A word in _UPPER CASE_
stands for a conversion. The page must also have the texts that the driver
inserts there, and all ids, parameters, tracepoints and sysfs attributes.
"""

import pathlib
import re
import subprocess

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = "docs/nvgrace-gpu-vfio-pci.4.scd"
ABI = "docs/ABI/sysfs-driver-nvgrace-gpu"

SEVERITY = {"err": "Error", "warn": "Warning", "info": "Information"}
# A call that writes to the log. "report" passes a reason to such a call.
CALL = re.compile(r"\b(?:(?:pci|dev|pr)_([a-z]+?)(?:_ratelimited|_once)?|(printk\w*|WARN\w*)|report(?:_failure)?)\((?!struct )")
LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "dbg")
STRING = r'"((?:\\.|[^"\\])*)"'
CONVERSION = re.compile(r"%[-+ #0]*[\d.*]*(?:hh|h|ll|l|z)?[diouxXscp]")


def without_comments(text):
    return re.sub(rf"{STRING}|/\*.*?\*/|//[^\n]*", lambda m: m[0] if m[0][0] == '"' else " ", text, flags=re.S)


def arguments(text, start):
    """The text from start, after a parenthesis, to the one that closes it."""
    depth = 1
    for m in re.finditer(rf"{STRING}|[()]", text[start:]):
        depth += {"(": 1, ")": -1}.get(m[0], 0)
        if not depth:
            return text[start:start + m.start()]
    return text[start:]


def common(line):
    """A line without spaces before conversions, because the page can't have a
    value directly after a word."""
    return line.replace(" %", "%")


def of_driver(trouble):
    """{format with % for each conversion: severity}, and the texts that replace
    a %s."""
    lines, texts = {}, set()
    for path in sorted([*PROJECT.glob("src/*.[ch]"), *PROJECT.glob("include/**/*.h")]):
        text = without_comments(path.read_text())
        name = path.relative_to(PROJECT)
        for call in CALL.finditer(text):
            level, other = call.groups()
            if other or level and level in LEVELS and level not in SEVERITY:
                trouble.append(f"{name}: {call[0]}...) is not known to tests/sources/manual.py")
                continue
            if level and level not in LEVELS:
                continue
            # Join adjacent literals.
            strings = re.findall(STRING, re.sub(r'"\s*\n\s*"', "", arguments(text, call.end())))
            strings = [s.replace('\\"', '"') for s in strings if " " in s]
            if level:
                formats = [s for s in strings if s.endswith("\\n")]
                if len(formats) != 1:
                    trouble.append(f"{name}: {call[0]}...) has {len(formats)} formats that end with a newline")
                for s in formats:
                    lines[common(CONVERSION.sub("%", s.removesuffix("\\n")))] = SEVERITY[level]
                    strings.remove(s)
            texts.update(strings)
    return lines, texts


def of_page(page):
    """{line with % for each word in upper case: severity} of the section LOG
    LINES."""
    section = re.search(r"^# LOG LINES$(.*?)^# ", page, re.M | re.S)
    found = {}
    for line, text in re.findall(r"^([^\s#].*)\n\t(.*)", section[1] if section else "", re.M):
        found[common(re.sub(r"_[A-Z][A-Z ]*_", "%", line))] = re.match(r"\w*", text)[0]
    return found


def names():
    """The other names that the page must have."""
    header = (PROJECT / "include/nvgrace_gpu_ids.h").read_text()
    yield from (f"10de:{i}" for i in re.findall(r'GPU\(0x([0-9a-f]{4}), "', header))
    for path in sorted(PROJECT.glob("src/*.[ch]")):
        text = path.read_text()
        yield from re.findall(r"^module_param\((\w+)", text, re.M)
        yield from re.findall(r"^TRACE_EVENT\((\w+)", text, re.M)
    yield from re.findall(r"^What:.*/(\w+)$", (PROJECT / ABI).read_text(), re.M)


def compare(page):
    """The differences between a page and the driver."""
    trouble = []
    lines, texts = of_driver(trouble)
    documented = of_page(page)
    for line in sorted(lines.keys() | documented.keys()):
        if line not in documented:
            trouble.append(f"{PAGE}: lacks the log line: {line}")
        elif line not in lines:
            trouble.append(f"{PAGE}: the driver has no log line: {line}")
        elif lines[line] != documented[line]:
            trouble.append(f"{PAGE}: {documented[line] or 'no severity'} should be {lines[line]}: {line}")
    plain = re.sub(r"\s+", " ", page)
    trouble += [f"{PAGE}: lacks the text: {text}" for text in sorted(texts) if text not in plain]
    trouble += [f"{PAGE}: the driver has no text: {text}" for text in re.findall(r"^\t- (.*?): ", page, re.M) if text not in texts]
    trouble += [f"{PAGE}: lacks the name: {name}" for name in dict.fromkeys(names()) if not re.search(rf"\b{name}\b", page)]
    if not lines or not texts:
        trouble.append("no log lines found in the sources")
    return trouble


def lint(page):
    """The complaints of scdoc and groff about a page."""
    made = subprocess.run(["scdoc"], input=page, capture_output=True, text=True)
    trouble = [f"{PAGE}: scdoc: {line}" for line in made.stderr.splitlines()]
    for device in ("utf8", "ascii"):
        shown = subprocess.run(["groff", "-man", "-t", "-z", "-w", "all", "-w", "mac", f"-T{device}"], input=made.stdout,
                               capture_output=True, text=True)
        trouble += [f"{PAGE}: groff: {line}" for line in shown.stderr.splitlines()]
        if made.returncode or shown.returncode:
            trouble.append(f"{PAGE}: scdoc ended with {made.returncode}, groff with {shown.returncode}")
    return trouble


def trouble():
    page = (PROJECT / PAGE).read_text()
    return [*compare(page), *lint(page)]
