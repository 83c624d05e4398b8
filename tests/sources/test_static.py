# SPDX-License-Identifier: GPL-2.0-only
"""Programs that search the sources for mistakes: clang, gcc's analyzer,
clang-tidy, Coccinelle, shellcheck and pylint.

clang compiles the module for a kernel. The kernel's own semantic patches search the
module. The other programs get the project's C programs, shell scripts and Python
files. sparse and gcc's warnings about the module are in test_matrix.py.

What must stand is suppressed beside its line, or in .clang-tidy and .pylintrc,
with the reason. The cache keeps what clang-tidy, Coccinelle and pylint print, by
all that they read."""

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from lab import archive, packages, programs, toolbox, vm

WORK = programs.BUILD / "static"
KERNELS = toolbox.ask("kernels").split()

# arith.c is also compiled for user space, which has no min() and max().
NOT_FOR_US = ("misc/minmax",)

C_FLAGS = ["-std=gnu11", "-D_GNU_SOURCE=", '-DVERSION="x"', '-DLIBEXECDIR="/x"', "-Icli", "-Iinclude", "-Itests/lab/guest",
           "-Wall", "-Wextra", "-Wno-unused-parameter", "-pthread",
           *subprocess.run(["pkg-config", "--cflags", "glib-2.0"], stdout=subprocess.PIPE, text=True,
                           check=True).stdout.replace("-I", "-isystem").split()]


def sources():
    """The project's files by kind: {"c": [...], "sh": [...], "python": [...]}."""
    found = {"c": [], "sh": [], "python": []}
    for folder in (".ci", "cli", "debian", "docs", "rpm", "scripts", "tests"):
        for path in sorted((vm.PROJECT / folder).rglob("*")):
            name = path.relative_to(vm.PROJECT)
            if "__pycache__" in name.parts or not path.is_file():
                continue
            with open(path, "rb") as f:
                first = f.readline(80)
            if name.suffix == ".py" or re.match(rb"#!.*[/ ]python3?\b", first):
                found["python"].append(str(name))
            elif re.match(rb"#!.*[/ ](ba|da)?sh\b", first):
                found["sh"].append(str(name))
            elif name.suffix == ".c" and (folder == "cli" or name.parts[:2] in (("tests", "cli"), ("tests", "packages"))):
                found["c"].append(str(name))
    return found


SOURCES = sources()


class Unfinished(Exception):
    """A program was killed, or has failed itself. Its argument: what it left, a
    CompletedProcess."""


@functools.cache
def root():
    """The folder of the programs. The libraries' names without a version are in
    packages for developers."""
    made = packages.root("analysis")
    (WORK / "lib").mkdir(parents=True, exist_ok=True)
    for library in pathlib.Path(f"{made}{vm.NATIVE.libraries}").glob("libpython3.*.so.1.0"):
        link = WORK / "lib" / library.name.removesuffix(".1.0")
        link.unlink(missing_ok=True)
        link.symlink_to(library)
    return made


def run(*command):
    """Run a program with the compiler's cache, at the path that all clones share."""
    environment = {"LD_LIBRARY_PATH": f"build/static/lib:{root()}{vm.NATIVE.libraries}",
                   "COCCINELLE_HOME": f"{root()}/usr/lib/coccinelle",
                   "PYTHONPATH": f"tests:scripts/dev:{root()}/usr/lib/coccinelle/python:{root()}/usr/lib/python3/dist-packages"}
    return subprocess.run([toolbox.TOOLBOX, "cached", "--", "env", *(f"{name}={value}" for name, value in environment.items()), *command],
                          cwd=vm.PROJECT, capture_output=True, text=True)


@functools.cache
def tools():
    """What the results depend on beside the sources."""
    unpacked = sorted(f"{p} {p.lstat().st_size} {p.lstat().st_mtime_ns}" for p in root().rglob("*"))
    return [pathlib.Path("/var/lib/dpkg/status").read_bytes(), "\n".join(unpacked).encode(), pathlib.Path(__file__).read_bytes()]


def remembered(inputs, *command):
    """run(), or its earlier result with the same tools for the same contents of
    these files."""
    def make():
        done = run(*command)
        if not 0 <= done.returncode < 32 or "Traceback" in done.stderr:
            raise Unfinished(done)
        return json.dumps({"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}).encode()

    contents = [data for name in sorted(inputs) for data in (name.encode(), (vm.PROJECT / name).read_bytes())]
    try:
        kept = archive.cached("static", [*tools(), *(str(c).encode() for c in command), *contents], make)
    except Unfinished as e:
        return e.args[0]
    return subprocess.CompletedProcess(command, **json.loads(kept.read_bytes()))


def assert_content(done):
    """The program prints what it finds, and then fails."""
    assert not done.returncode, f"{done.stdout}{done.stderr}"


@pytest.mark.all
def test_shellcheck():
    assert_content(subprocess.run(["shellcheck", "-S", "warning", "-f", "gcc", *SOURCES["sh"]], cwd=vm.PROJECT, capture_output=True,
                                  text=True))


@pytest.mark.all
@pytest.mark.needs("root analysis")
def test_pylint():
    assert_content(remembered([".pylintrc", *SOURCES["python"]], "python3", "-m", "pylint", "--source-roots=tests,scripts/dev",
                              *SOURCES["python"]))


@pytest.mark.all
@pytest.mark.needs("root analysis")
@pytest.mark.parametrize("path", SOURCES["c"])
def test_gcc_analyzer(path):
    # Without -O2, with which it takes the argument of GLib's g_strdup() for NULL.
    # ccache doesn't keep what goes to /dev/null.
    assert_content(run("gcc", *C_FLAGS, "-fanalyzer", "-Werror", "-c", "-o", "build/static/analyzed.o", path))


# clang's analyzer takes nearly all of clang-tidy's time, and gcc's searches for much of
# the same, so it is in check-long.
@pytest.mark.needs("root analysis")
@pytest.mark.parametrize("path", SOURCES["c"])
@pytest.mark.parametrize("more", [pytest.param(["--checks=-clang-analyzer-*"], marks=pytest.mark.all, id="quick"),
                                  pytest.param([], marks=pytest.mark.long, id="analyzer")])
def test_clang_tidy(path, more):
    read = run("gcc", *C_FLAGS, "-MM", path)
    assert_content(read)
    own = read.stdout.partition(":")[2].replace("\\", "").split()
    assert path in own
    assert_content(remembered([".clang-tidy", *own], root() / "usr/bin/clang-tidy-19", "--quiet", *more, path, "--", *C_FLAGS))


@pytest.mark.long
@pytest.mark.needs("root analysis", "checkpatch")
def test_coccinelle():
    files = [str(p.relative_to(vm.PROJECT)) for d in ("src", "include") for p in sorted((vm.PROJECT / d).rglob("*.[ch]"))]
    checkpatch = toolbox.ask("checkpatch")
    patches, found = 0, []
    for patch in sorted(pathlib.Path(checkpatch).with_name("coccinelle").rglob("*.cocci")):
        text = patch.read_text("utf-8")
        name = f"{patch.parent.name}/{patch.stem}"
        # Patches that can't report, or contain OCaml, whose compiler isn't here.
        if name in NOT_FOR_US or not re.search(r"^virtual .*\breport\b", text, re.M) or "script:ocaml" in text:
            continue
        patches += 1
        done = remembered([str(patch), *files], root() / "usr/bin/spatch", "--very-quiet", "--no-show-diff", "-D", "report",
                          "--cocci-file", patch, "-I", "include", *files)
        if done.returncode or done.stdout.strip():
            found.append(f"{name}: {done.stdout}{done.stderr[-500:]}")
    assert patches and not found, "\n".join(found)


@pytest.mark.needs("root analysis")
@pytest.mark.parametrize("name", [pytest.param(k, marks=pytest.mark.all if k == "newest" else pytest.mark.long)
                                  for k in KERNELS])
def test_clang(name):
    """Another compiler than the kernel's compiles the module. The cache keeps that it
    did, by all that it reads."""
    kernel = vm.Kernel(name)
    archive.cached(f"clang-{name}", programs.made_of_module(kernel, "tests/sources/clang"), lambda: by_clang(kernel))


def by_clang(kernel):
    tree = WORK / kernel.name
    shutil.rmtree(tree, ignore_errors=True)
    for folder in ("src", "include", "scripts"):
        shutil.copytree(vm.PROJECT / folder, tree / folder)
    for file in ("Makefile", "Kbuild", "dkms.conf", "tests/sources/clang"):
        shutil.copy(vm.PROJECT / file, tree)
    here = os.path.relpath(tree, vm.PROJECT)
    done = run("make", "--no-print-directory", "-C", here, "modules", f"KDIR={kernel.headers}", f"CC=/tmp/project/{here}/clang",
               *kernel.arch.make)
    # Findings in the kernel's own headers do not count.
    own = re.compile(rf"(?!{kernel.headers})(.*/)?(src|include)/(?!linux/|asm|uapi/)[\w/.-]+:\d+:\d+: (warning|error): ")
    found = [line for line in (done.stdout + done.stderr).splitlines() if own.match(line) and "/usr/src/" not in line]
    assert not found and not done.returncode, "\n".join([*found, done.stderr[-2000:]])
    return b""
