# SPDX-License-Identifier: GPL-2.0-only
"""Finds a description's constants in the kernel's headers for user space, and
compares the layout of its structs with them.

A struct nvgrace_NAME, or nvgrace_NAME__VARIANT, is the headers' struct NAME. A
C program that is compiled with only a kernel's headers prints their values, so
the description can't have a wrong number or offset.
"""

import re
import subprocess
import tempfile

import check
from syzlang import Mistake

PREFIX = "nvgrace_"


def compiled(description, headers, lines):
    """The output of a C program with the description's includes and
    definitions."""
    common = headers.parent / re.sub(r"-amd64$", "-common", headers.name)
    text = "".join(f"#include <{name}>\n" for kind, name, _ in description.includes if kind == "include")
    text += "".join(f"#define {name} ({value})\n" for name, value in description.defines.items())
    text += "int printf(const char *, ...);\nint main(void)\n{\n" + "".join(lines) + "\treturn 0;\n}\n"
    with tempfile.TemporaryDirectory() as directory:
        made = subprocess.run(
            ["gcc", "-xc", "-", "-o", f"{directory}/probe", "-w", "-nostdinc", "-D__user=", "-D__counted_by(x)=",
             f"-I{common}/include/uapi", f"-I{common}/arch/x86/include/uapi", f"-I{headers}/arch/x86/include/generated/uapi",
             f"-idirafter{common}/include"],
            input=text, capture_output=True, text=True)
        if made.returncode:
            said = made.stderr
            if match := re.search(r"error: ['‘](\w+)['’] undeclared", said):
                raise Mistake("the headers", f"there is no constant {match[1]}")
            if match := re.search(r"error: ['‘]struct (\w+)['’] has no member named ['‘](\w+)['’]", said):
                raise Mistake("the headers", f"struct {match[1]} has no field {match[2]}")
            if match := re.search(r"error: invalid (?:use of undefined type|application of .*) ['‘]struct (\w+)['’]", said):
                raise Mistake("the headers", f"there is no struct {match[1]}")
            raise Mistake("the headers", said[:2000])
        return subprocess.run([f"{directory}/probe"], capture_output=True, text=True, check=True).stdout


def values(description, headers):
    """{name: value} of the constants that a Description uses."""
    names = sorted(check.constants(description))
    output = compiled(description, headers,
                      [f'\tprintf("%s %llu\\n", "{n}", (unsigned long long)({n}));\n' for n in names])
    return {name: int(value) for name, value in map(str.split, output.splitlines())}


def compare(description, headers, records):
    """Raises Mistake if a Record's layout differs from its struct's in the
    headers; the number of comparisons."""
    lines, expected = [], []

    def expect(what, expression, value):
        lines.append(f'\tprintf("%llu\\n", (unsigned long long)({expression}));\n')
        expected.append((what, value))

    for key, record in records.items():
        if not record.name.startswith((PREFIX + "vfio_", PREFIX + "iommu_")):
            continue
        name, _, variant = record.name.removeprefix(PREFIX).partition("__")
        struct = f"struct {name}"
        members = list(record.members)
        size = f"sizeof({struct})"
        # An array at the end has any length. It is either a member of the
        # struct, or, for the variant "caps", follows it.
        if isinstance(members[-1].node, check.Array) or name == "vfio_device_feature" and members[-1].node != check.Void():
            last = members.pop()
            behind = variant == "caps"
            expect(f"{key}: {last.name}", size if behind else f"__builtin_offsetof({struct}, {last.name})", last.offset)
            expect(f"{key}: size", size, check.round_up(last.offset, record.align))
        else:
            expect(f"{key}: size", size, record.size)
        for member in members:
            if isinstance(member.node, check.Void):
                continue
            expect(f"{key}: {member.name}", f"__builtin_offsetof({struct}, {member.name})", member.offset)
            expect(f"{key}: size of {member.name}", f"sizeof((({struct} *)0)->{member.name})", member.node.size)
    output = compiled(description, headers, lines).split()
    for (what, ours), theirs in zip(expected, map(int, output), strict=True):
        if ours != theirs:
            raise Mistake(what, f"{ours} in the description, {theirs} in the headers")
    return len(expected)
