# SPDX-License-Identifier: GPL-2.0-only
"""Which lines and branches ran, as lcov's tracefiles have it, and the judgement of those that did not.

The file "reasons" beside this one has each line that no test reaches, by its file, its function and its text, below the
reason for it. So it outlives changes around the line, and none of the line itself.
"""

import collections
import dataclasses
import fnmatch
import re

# Of each part as a whole, in percent.
LINES, BRANCHES = 95, 90


@dataclasses.dataclass
class Source:
    """What ran of one file: {line: times} and {(line, block, number): times}."""

    lines: dict = dataclasses.field(default_factory=dict)
    branches: dict = dataclasses.field(default_factory=dict)

    def missed(self):
        return sorted(line for line, times in self.lines.items() if not times)


@dataclasses.dataclass
class Share:
    """How many of all."""

    done: int = 0
    all: int = 0

    def add(self, counts):
        self.done += sum(times > 0 for times in counts)
        self.all += len(counts)

    def enough(self, percent):
        return self.done * 100 >= self.all * percent

    def __str__(self):
        # Rounded down: 95.0 means that it is.
        return f"{self.done * 1000 // self.all / 10:.1f} % of {self.all}" if self.all else "-"


def read(text, project):
    """{path in the project: Source} of a tracefile; files elsewhere are left out."""
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
    """For each line of a C or shell source, counted from 1, the function that it is in, or "-"."""
    names, name = ["-"], "-"
    # Not splitlines(): what argp prints has \v in it.
    for line in text.split("\n"):
        # The head of a function begins its line; so do macros and data, which are no functions.
        head = re.match(r"(?!typedef\b)(?:[A-Za-z_][\w \t*]*[ \t*])?(\w+)\s*\(", line)
        if head and not line.rstrip().endswith(";"):
            name = head[1]
        names.append(name)
        if line.startswith("}"):
            name = "-"
    return names


@dataclasses.dataclass(frozen=True)
class Line:
    """A line, by what does not change when others do."""

    path: str
    function: str
    text: str

    def __str__(self):
        return f"{self.path} {self.function}: {self.text}"


def missed_lines(found, texts):
    """{Line: [numbers]} of what did not run; texts: {path: what the file holds}."""
    missed = collections.defaultdict(list)
    for path, source in found.items():
        names, lines = functions(texts[path]), texts[path].split("\n")
        for number in source.missed():
            missed[Line(path, names[number], lines[number - 1].strip())].append(number)
    return missed


@dataclasses.dataclass
class Entry:
    """What stands in the file of reasons for a line, or for several alike in one function."""

    numbers: list                   # of lines there
    sometimes: bool = False         # some runs reach it


def read_reasons(text):
    """({Line: Entry}, [complaints]) of the file's text.

    "* reason" or "~ reason", which goes on in indented lines, and then "PATH FUNCTION: TEXT" for each line; with ~, chance
    decides whether it runs."""
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
    """Complaints: lines that nothing reaches and that have no reason, and reasons of the files of these patterns that no line
    needs."""
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
    """Complaints about too small a share."""
    lines, branches = shares(found)
    complaints = []
    if not lines.all or not lines.enough(LINES):
        complaints.append(f"lines: {lines}, and it must be {LINES} %")
    if not branches.enough(BRANCHES):
        complaints.append(f"branches: {branches}, and it must be {BRANCHES} %")
    return complaints
