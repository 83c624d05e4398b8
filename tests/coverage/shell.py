# SPDX-License-Identifier: GPL-2.0-only
"""Which lines and branches of a shell script run, from the trace of bash -x
with PS4="+$LINENO ".

instrument() makes a copy of the script that reports how each condition ends.
Lines keep their numbers. A branch is an outcome of a command that decides what
runs next (before && or ||, or as the last one of if and while), or an arm of
case. Each of these must begin and end in one line."""

import collections
import re

import tracefile

# Goes before the copy, which calls it after each condition. The trace shows the
# status.
PRELUDE = "outcome() { set -- $1 $?; : outcome $1 $2; return $2; }"

# Lines with nothing to trace: syntax, and heads of functions and of arms of
# case without a command.
SYNTAX = re.compile(r"(?:[{}]|\w+\(\) *\{|then|else|fi|do|done|esac|;;)(?: *< *\S+)?"
                    r"|[^()]+\)(?: *;;)?")
ARM = re.compile(r"[ \t]*[^() \t][^()]*\)(?=[ \t]|$)")
# Words that may precede a command.
LEAD = re.compile(r"[ \t]*(?:(?:if|elif|while|until|then|else|do|!|\{)[ \t]+)*")


def code_lines(text):
    """[(number, line)] without comments and continued lines."""
    found, continued = [], False
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if bare and not bare.startswith("#") and not continued:
            found.append((number, line))
        continued = bare.endswith("\\")
    return found


def commands(text):
    """The numbers of lines on which a command begins."""
    return [number for number, line in code_lines(text) if not SYNTAX.fullmatch(line.strip())]


def split(line):
    """[(begin, end, operator)] of a line's commands. The operator that follows
    the command is "&&", "||", ";" or ""."""
    found, begin, at, quote, depth = [], 0, 0, "", 0
    while at < len(line):
        char = line[at]
        if char == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "#" and line[at - 1:at].isspace():
            break
        elif not depth and (match := re.match(r"&&|\|\||;;?", line[at:])):
            found.append((begin, at, match[0][:2].replace(";;", ";")))
            at += len(match[0]) - 1
            begin = at + 1
        at += 1
    return [*found, (begin, at, "")]


def conditions(line):
    """[(begin, end)] of the commands in a line whose status decides what is
    next."""
    parts, found = split(line), []
    for i, (begin, end, operator) in enumerate(parts):
        begin = LEAD.match(line, begin).end()
        word = line[begin:end].split(" ")[0]
        if word in ("", "}", "for", "case"):
            continue
        following = next((line[b:e].strip() for b, e, _ in parts[i + 1:] if line[b:e].strip() not in ("", "}")), "")
        if operator in ("&&", "||") or operator == ";" and re.match(r"(?:then|do)\b", following):
            found.append((begin, len(line[:end].rstrip())))
    return found


def instrument(text):
    """(the copy, [(line, "condition" or "arm")] by the numbers in its reports).
    """
    lines, points = text.split("\n"), []
    for number, line in code_lines(text):
        arm = ARM.match(line)
        start = arm.end() if arm else 0
        out, at = line[:start], start
        if arm:
            out += f" : outcome {len(points)} 0;" if line[start:].strip() not in ("", ";;") else f" : outcome {len(points)} 0"
            points.append((number, "arm"))
        for begin, end in conditions(line[start:]):
            out += f"{line[at:start + begin]}{{ {line[start + begin:start + end]}; outcome {len(points)}; }}"
            points.append((number, "condition"))
            at = start + end
        lines[number - 1] = out + line[at:]
    return "\n".join(lines), points


def source(text, points, trace):
    """The Source of a script. trace: that of its copy."""
    times = collections.Counter(int(n) for n in re.findall(r"^\++(\d+) (?!: outcome )", trace, re.M))
    outcomes = collections.Counter((int(n), status == "0")
                                   for n, status in re.findall(r"^\++\d+ : outcome (\d+) (\d+)$", trace, re.M))
    found = tracefile.Source(lines={n: times[n] for n in commands(text)})
    for point, (line, kind) in enumerate(points):
        for good in (True, False) if kind == "condition" else (True,):
            found.branches[(line, str(point), str(int(good)))] = outcomes[(point, good)]
    return found
