# SPDX-License-Identifier: GPL-2.0-only
"""Lines and branches that ran, from lcov's tracefiles, and the judgement of
those that did not.

The file "reasons" beside this one lists each line that no test reaches, by
file, function and text, below its reason. So an entry survives changes around
the line, but no change of the line."""

import collections
import dataclasses
import fnmatch
import re

# The goals for each part as a whole, in percent.
LINES, BRANCHES = 95, 90


@dataclasses.dataclass
class Source:
    """Counts of one file: {line: times} and {(line, block, number): times}."""

    lines: dict = dataclasses.field(default_factory=dict)
    branches: dict = dataclasses.field(default_factory=dict)

    def missed(self):
        return sorted(line for line, times in self.lines.items() if not times)


@dataclasses.dataclass
class Share:
    """How many of how many ran."""

    done: int = 0
    all: int = 0

    def add(self, counts):
        self.done += sum(times > 0 for times in counts)
        self.all += len(counts)

    def enough(self, percent):
        return self.done * 100 >= self.all * percent

    def __str__(self):
        # Rounded down, so that 95.0 means at least 95.
        return f"{self.done * 1000 // self.all / 10:.1f} % of {self.all}" if self.all else "-"


def read(text, project):
    """{path in the project: Source} of a tracefile, without files elsewhere."""
    found, source = {}, None
    for line in text.splitlines():
        word, _, rest = line.partition(":")
        if word == "SF":
            source = found.setdefault(rest.removeprefix(f"{project}/"), Source())
        elif word == "DA":
            number, times = rest.split(",")[:2]
            source.lines[int(number)] = source.lines.get(int(number), 0) + int(times)
        elif word == "BRDA":
            number, block, branch, times = rest.split(",")
            key = (int(number), block, branch)
            source.branches[key] = source.branches.get(key, 0) + int(times.replace("-", "0"))
    return {path: s for path, s in found.items() if not path.startswith("/")}


def functions(text):
    """The function of each line of a C or shell source, counted from 1, or "-".
    """
    names, name = ["-"], "-"
    # Not splitlines(): argp's texts contain \v.
    for line in text.split("\n"):
        # The head of a function begins its line. So do macros and data, which
        # are not functions.
        head = re.match(r"(?!typedef\b)(?:[A-Za-z_][\w \t*]*[ \t*])?(\w+)\s*\(", line)
        if head and not line.rstrip().endswith(";"):
            name = head[1]
        names.append(name)
        if line.startswith("}"):
            name = "-"
    return names


@dataclasses.dataclass(frozen=True)
class Line:
    """A line, identified by what stays when other lines change."""

    path: str
    function: str
    text: str

    def __str__(self):
        return f"{self.path} {self.function}: {self.text}"


def drop_labels(found, texts):
    """Forget lines that are only a label, which gcov counts as never run where
    the compiler has joined the jumps with what follows. texts: {path: the
    file's text}."""
    for path, source in found.items():
        lines = texts[path].split("\n")
        for number in list(source.lines):
            if re.fullmatch(r"\w+:", lines[number - 1].strip()):
                del source.lines[number]


def missed_lines(found, texts):
    """{Line: [numbers]} of lines that did not run. texts: {path: the file's
    text}."""
    missed = collections.defaultdict(list)
    for path, source in found.items():
        names, lines = functions(texts[path]), texts[path].split("\n")
        for number in source.missed():
            missed[Line(path, names[number], lines[number - 1].strip())].append(number)
    return missed


@dataclasses.dataclass
class Entry:
    """An entry of the file of reasons, for a line or several equal ones in one
    function."""

    numbers: list                   # of lines there
    sometimes: bool = False         # some runs reach it


def read_reasons(text):
    """({Line: Entry}, [complaints]) of the file's text.

    An entry is "* reason" or "~ reason", continued in indented lines, and then
    "PATH FUNCTION: TEXT" for each line. With "~", chance decides whether the
    line runs."""
    entries, complaints = {}, []
    mark, reason = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[:2] in ("* ", "~ "):
            mark, reason = line[0], line[2:].strip()
        elif line[0] in " \t":
            continue
        elif not (match := re.fullmatch(r"(\S+) ([\w-]+): (.+)", line)) or not reason:
            complaints.append(f"reasons:{number}: neither a reason nor PATH FUNCTION: TEXT below one: {line}")
        else:
            entry = entries.setdefault(Line(*match.groups()), Entry([], mark == "~"))
            entry.numbers.append(number)
    return entries, complaints


def judge(missed, entries, patterns):
    """Complaints about lines that did not run and have no reason, and about
    reasons for files of these patterns that no line needs."""
    complaints = []
    for line, numbers in missed.items():
        known = len(entries[line].numbers) if line in entries else 0
        for number in numbers[known:]:
            complaints.append(f"not reached, without a reason: {line.path}:{number} {line.function}: {line.text}")
    for line, entry in entries.items():
        if entry.sometimes or not any(fnmatch.fnmatch(line.path, p) for p in patterns):
            continue
        for number in entry.numbers[len(missed.get(line, ())):]:
            complaints.append(f"reasons:{number}: this line is reached, or gone: {line}")
    return complaints


def shares(found):
    """(lines, branches) of all these files together."""
    lines, branches = Share(), Share()
    for source in found.values():
        lines.add(source.lines.values())
        branches.add(source.branches.values())
    return lines, branches


def thresholds(found):
    """Complaints about shares that are too small."""
    lines, branches = shares(found)
    complaints = []
    if not lines.all or not lines.enough(LINES):
        complaints.append(f"lines: {lines}, and it must be {LINES} %")
    if not branches.enough(BRANCHES):
        complaints.append(f"branches: {branches}, and it must be {BRANCHES} %")
    return complaints
