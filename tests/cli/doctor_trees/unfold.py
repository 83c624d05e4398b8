# SPDX-License-Identifier: GPL-2.0-only
"""Makes trees of the hosts that the *.tree files beside this one describe.
README.md explains the descriptions.
"""

import dataclasses
import pathlib
import re
import shutil

TREES = pathlib.Path(__file__).resolve().parent
# The doctor's exit status with a finding of this verdict.
STATUS = {"good": 0, "unknown": 0, "note": 0, "warning": 6, "bad": 7}


@dataclasses.dataclass
class Expectation:
    finding: str
    verdict: str
    device: "str | None"
    pattern: "str | None"


@dataclasses.dataclass
class Host:
    name: str
    where: str
    base: "str | None" = None
    # In order: ("file", path, text), ("link", path, target),
    # ("directory", path, None), ("nothing", path, None).
    steps: list = dataclasses.field(default_factory=list)
    expected: "list[Expectation]" = dataclasses.field(default_factory=list)
    never: "list[str]" = dataclasses.field(default_factory=list)
    status: "int | None" = None


def parse(path):
    """The hosts of one file."""
    host = text = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.name}:{number}"
        if text is not None:
            if line == ".":
                host.steps.append(("file", text[0], "".join(f"{t}\n" for t in text[1:])))
                text = None
            else:
                text.append(line)
        elif not line.strip() or line.startswith("#"):
            pass
        elif match := re.fullmatch(r"\[([\w.-]+)(?: : ([\w.-]+))?\]", line):
            host = Host(match[1], where, match[2])
            yield host
        elif host is None:
            raise ValueError(f"{where}: a line before the first [host]")
        elif match := re.fullmatch(r"(/\S+) <<", line):
            text = [match[1]]
        elif match := re.fullmatch(r"(/\S+) = ?(.*)", line):
            host.steps.append(("file", match[1], match[2] + "\n"))
        elif match := re.fullmatch(r"(/\S+) -> (\S+)", line):
            host.steps.append(("link", match[1], match[2]))
        elif match := re.fullmatch(r"(/\S+)/", line):
            host.steps.append(("directory", match[1], None))
        elif match := re.fullmatch(r"- (/\S+)", line):
            host.steps.append(("nothing", match[1], None))
        elif match := re.fullmatch(r"expect ([\w-]+) (good|unknown|note|warning|bad)(?: ([0-9a-f:.]+))?(?: ~ (.+))?", line):
            host.expected.append(Expectation(*match.groups()))
        elif match := re.fullmatch(r"never ([\w-]+)", line):
            host.never.append(match[1])
        elif match := re.fullmatch(r"status (\d+)", line):
            host.status = int(match[1])
        else:
            raise ValueError(f"{where}: neither a path nor an expectation: {line}")
    if text is not None:
        raise ValueError(f"{path.name}: the text of {text[0]} has no end")


def hosts():
    """All hosts by name."""
    found = {}
    for path in sorted(TREES.glob("*.tree")):
        for host in parse(path):
            if host.name in found:
                raise ValueError(f"{host.where}: a second {host.name}, after {found[host.name].where}")
            found[host.name] = host
    for host in found.values():
        if host.base is not None and host.base not in found:
            raise ValueError(f"{host.where}: no host {host.base}")
        if not host.expected:
            raise ValueError(f"{host.where}: {host.name} expects no finding")
        if host.status is None:
            host.status = max(STATUS[e.verdict] for e in host.expected)
    return found


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unfold(found, name, root):
    """Makes the tree of a host in root, which must exist."""
    host = found[name]
    if host.base:
        unfold(found, host.base, root)
    for kind, where, content in host.steps:
        path = root / where.lstrip("/")
        if kind == "nothing":
            remove(path)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "directory":
            path.mkdir(exist_ok=True)
            continue
        remove(path)
        if kind == "link":
            path.symlink_to(content)
        else:
            path.write_bytes(re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes.fromhex(m[1].decode()), content.encode()))
