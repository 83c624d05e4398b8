# SPDX-License-Identifier: GPL-2.0-only
"""The project's own rules, and checkpatch, the kernel's coding style."""

import os
import pathlib
import re
import subprocess

import pytest

from cli import common
from lab import archive, needs, programs, toolbox, vm
from sources import links, manual

PROJECT = vm.PROJECT

# checkpatch's types of complaints that do not fit, for the driver and for the
# tests.
DRIVER_IGNORES = (
    "COMPLEX_MACRO",        # members of initialisers and structures can't stand in parentheses
    "MACRO_ARG_REUSE",      # the arguments are names
    "MACRO_ARG_PRECEDENCE",     # the argument is the name of a member
    "ALLOC_WITH_SIZEOF",    # kzalloc_obj() needs Linux 7.0 or later
)
# TRACE_EVENT() is indented as a block, as everywhere in the kernel.
TRACE_IGNORES = (*DRIVER_IGNORES, "PARENTHESIS_ALIGNMENT", "OPEN_ENDED_LINE")
TESTS_IGNORES = (
    "CAMELCASE",            # names of cmocka and of <inttypes.h>
    "PREFER_KERNEL_TYPES",  # u8 and similar types are the kernel's; a program has <stdint.h>
    "VOLATILE",             # a program has no READ_ONCE() for mapped device memory
    "STRCPY",               # strscpy() is the kernel's
    "PREFER_DEFINED_ATTRIBUTE_MACRO",   # and so are __printf() and similar macros
    "COMPLEX_MACRO",        # macros that define a function
    "MACRO_WITH_FLOW_CONTROL",
    "MACRO_ARG_REUSE",
    "ENOSYS",               # a kernel without sockets lacks socketpair()
    "NEW_TYPEDEFS",         # spinlock_t is a typedef in the kernel, too
)


def names(pattern):
    """The project's files that match. The toolbox has no git to list them."""
    found = []
    for folder, folders, files in os.walk(PROJECT):
        folders[:] = [f for f in folders if f not in (".git", "__pycache__") and pathlib.Path(folder, f) != PROJECT / "build"]
        found += [os.path.relpath(os.path.join(folder, f), PROJECT) for f in files if f != ".git" and not f.startswith(".checkpatch-")]
    found = sorted(name for name in found if re.search(pattern, name))
    assert found, f"no files match {pattern}"
    return found


def texts(pattern):
    return {name: (PROJECT / name).read_text("utf-8", "replace") for name in names(pattern)}


def found(expression, pattern):
    """The lines of files that match an expression, with continued lines joined."""
    return [f"{name}: {line}" for name, text in texts(pattern).items()
            for line in text.replace("\\\n", "").split("\n") if re.search(expression, line)]


def licences():
    # The first are formats without comments, and the licence itself; .gitignore has a
    # few patterns; recorded is what programs print; *.asc is the owner's key.
    for name, text in texts(r"^(?!debian/(changelog|copyright|source/format)$|LICENSE$|\.gitignore$|tests/cli/recorded/|.*\.asc$)").items():
        if not re.search(r"(?m)(^|[ *#/])SPDX-License-Identifier: GPL-2\.0-only( |$)", "\n".join(text.split("\n")[:3])):
            yield f"{name}: no licence in its first lines"


def calls(folder):
    """{unit: the units whose symbols it uses} of the object files in a folder: a unit
    is a source file, without its suffix."""
    objects = sorted(folder.rglob("*.o"))
    said = subprocess.run(["nm", "-A", "-P", *objects], capture_output=True, text=True, check=True).stdout
    symbols = [(os.path.relpath(name, folder)[:-2], symbol, kind)
               for name, symbol, kind in re.findall(r"^(.*\.o)(?:\[.*\])?: (\S+) (\w)", said, re.M)]
    owners = {symbol: unit for unit, symbol, kind in symbols if kind.isupper() and kind != "U"}
    used = {unit: set() for unit, _, _ in symbols}
    for unit, symbol, kind in symbols:
        if kind == "U" and owners.get(symbol, unit) != unit:
            used[unit].add(owners[symbol])
    return used


def layers(used):
    """The folders of cli/README.md's table are layers, from top to bottom. All else
    in cli/ is above them."""
    table = re.findall(r"^\| `(\w+)/` \|", (PROJECT / "cli/README.md").read_text(), re.M)
    assert table

    def height(unit):
        folder = os.path.dirname(unit)
        return len(table) - table.index(folder) if folder in table else len(table) + 1

    return [f"cli/{unit}.c uses cli/{other}.c, which is of a higher layer"
            for unit, others in used.items() for other in others if height(other) > height(unit)]


def circles(used):
    """One of each set of units that use each other, and of folders."""
    folders = {}
    for unit, others in used.items():
        folders.setdefault(os.path.dirname(unit) + "/", set()).update(os.path.dirname(o) + "/" for o in others)

    def walk(graph, way, seen):
        for other in sorted(graph.get(way[-1], ())):
            if other == way[0]:
                return [*way, other]
            if other not in seen:
                seen.add(other)
                if circle := walk(graph, [*way, other], seen):
                    return circle
        return None

    # What is in no folder calls the folders, and they don't call each other in circles.
    between = {folder: others - {folder, "/"} for folder, others in folders.items()}
    found = {frozenset(circle): " -> ".join(circle) for graph in (used, between) for unit in sorted(graph) if (circle := walk(graph, [unit], set()))}
    return sorted(found.values())


def test_layers_of_the_tool():
    used = calls(common.build().parent)
    assert not [*layers(used), *circles(used)]


@pytest.mark.kernels("newest")
@pytest.mark.check
def test_layers_of_the_module(kernel):
    assert not circles(calls(programs.module_of(vm.Kernel(kernel)).parent / "src"))


@pytest.mark.all
@pytest.mark.needs("kernel newest-64k")
def test_each_case_of_the_driver_runs():
    """On a kernel of check-all: a misspelled option or module is on none."""
    kernels = [vm.Kernel(name) for name in ("newest", "newest-64k", "stable", "oldstable")]
    assert not {f'{case.file}: no kernel has all of "{case.words}"' for path in programs.all_of_driver() for case in programs.cases(path)
                if not any(all(needs.holds(kernel, word, ("late",)) for word in case.words.split()) for kernel in kernels)}


def ids():
    """include/nvgrace_gpu_ids.h has the ids. The udev rule has all of them. No file names another one, except in a range ("10de:2340 to 237f") or
    in a line of the configuration ("id 10de:297e")."""
    known = re.findall(r'GPU\(0x([0-9a-f]{4}), "', (PROJECT / "include/nvgrace_gpu_ids.h").read_text())
    assert known
    rule = "scripts/udev/60-nvgrace-gpu.rules"
    there = re.findall(r"0x([0-9a-fA-F]+)", re.search(r'ATTR\{device\}=="([^"]*)"', (PROJECT / rule).read_text())[1])
    if sorted(there) != sorted(known):
        yield f"{rule}: {' '.join(there)}, not {' '.join(known)}"
    for name, text in texts(r"^(cli|debian|docs|rpm|scripts/udev)/|^README\.md$").items():
        for at in re.findall(r"(?<!\bid )\b10de:([0-9a-f]{4})\b(?! to )|10ded0000([0-9a-f]{4})", text, re.I):
            if "".join(at).lower() not in known:
                yield f"{name}: {''.join(at)} is no id of include/nvgrace_gpu_ids.h"


# A parser of options, in cli/.
PARSER = re.compile(r"^(?:static )?error_t \w*parse\w*\(.*?^}", re.M | re.S)


def unused_options():
    """Options without a case that does something, or with that of another one, and what
    a command's parser sets, and nothing but a parser reads: in the same file or folder, or
    anywhere if commands share the parser."""
    files = texts(r"^cli/.*\.c$")
    rest = {name: PARSER.sub("", text) for name, text in files.items()}
    for name, text in files.items():
        folder = os.path.dirname(name)
        readers = [t for n, t in rest.items() if n == name or folder in ("cli/open_gpu", "cli/facts") or folder == os.path.dirname(n) != "cli"]
        parsers = [body for n in (name, "cli/facts/selection.c") for body in PARSER.findall(files[n])]
        for table in re.findall(r"argp_option \w+\[\] = \{.*?^\};", text, re.M | re.S):
            keys = re.findall(r"\{ \"[\w-]+\", (KEY_\w+|'\w'),", table)
            yield from (f"{name}: two options of a table have {key}" for key in {k for k in keys if keys.count(k) > 1})
        for option, key in re.findall(r'\{ "([\w-]+)", (KEY_\w+|\'\w\'),', text) if "/system/" not in name else ():
            if not any(re.search(rf"case {key}:\n(?!\s*return 0;)|key != {key}\)", body) for body in parsers):
                yield f"{name}: --{option} has no case in the parser, or one that does nothing"
        for body in PARSER.findall(text):
            for member in set(re.findall(r"(?<!state)->(?:\w+\.)*(\w+)(?:\[[^]]*\])? *(?:=[^=]|\+\+)|&\w+->(?:\w+\.)*(\w+)", body)):
                member = "".join(member)
                if not any(re.search(rf"(?:\.|->){member}\b(?! *=[^=])", t) for t in readers):
                    yield f"{name}: an option sets {member}, which nothing reads"


def test_style():
    assert not [
        # Conditions on the kernel are only in include/compat.
        *found(r"^\s*#\s*(if|ifdef|ifndef|elif|elifdef|elifndef)[^a-z].*(HAVE_|CONFIG_)|IS_(ENABLED|BUILTIN|MODULE|REACHABLE)\s*\(",
               r"^(?!include/compat/).*\.[ch]$"),
        # Nothing compares kernel versions. The brackets keep the pattern from matching
        # this line.
        *found(r"LINUX_VERSION[_](CODE|MAJOR|PATCHLEVEL|SUBLEVEL)|KERNEL[_]VERSION", r"(?<!\.md)$"),
        # No file names one machine's paths or a mirror. An absolute path does not follow
        # a character of another path.
        *found(r"(^|[^A-Za-z0-9_.}/-])/(roo[t]/|(wor[k]|tmp/[x])([^A-Za-z0-9_.-]|$))|(deb|ftp|archive|snapshot|security)[.]debian[.]org", ""),
        *licences(), *ids(), *unused_options(),
        *(f"{name}: {target}" for name in names(r"\.md$") for target in links.broken(PROJECT / name)),
        *manual.trouble()]


@pytest.mark.needs("checkpatch")
@pytest.mark.parametrize(("ignores", "pattern"), [
    pytest.param(DRIVER_IGNORES, r"^(src/[^/]*\.[ch]|include/(compat/)?[^/]*\.h|scripts/probes/[^/]*\.c)$", marks=pytest.mark.all, id="driver"),
    pytest.param(TESTS_IGNORES, r"^tests/.*\.[ch]$", marks=pytest.mark.long, id="tests")])
def test_checkpatch(ignores, pattern):
    script = toolbox.ask("checkpatch")
    # checkpatch leaves a file in its working directory, and runs git if it finds a
    # repository there. So it runs in a folder that has only links to the sources.
    work = programs.BUILD / "style"
    work.mkdir(parents=True, exist_ok=True)
    for name in ("src", "include", "scripts", "tests"):
        (work / name).unlink(missing_ok=True)
        (work / name).symlink_to(PROJECT / name)

    def complaints(name):
        types = TRACE_IGNORES if name == "src/trace.h" else ignores
        command = ["perl", script, "--no-tree", "--root=.", "--strict", "--show-types", "--terse", "--max-line-length=100",
                   "--no-summary", "--ignore", ",".join(types), "-f", name]

        def make():
            done = subprocess.run(command, cwd=work, capture_output=True, text=True)
            assert not done.returncode and not done.stdout, done.stdout + done.stderr
            return b""

        try:
            archive.cached("checkpatch", [*(word.encode() for word in command), (PROJECT / name).read_bytes()], make)
        except AssertionError as e:
            return str(e)
        return ""

    said = programs.side_by_side(complaints, names(pattern))
    assert not any(said), "".join(said)
