#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs programs that search the sources for mistakes: clang, gcc's analyzer,
clang-tidy, Coccinelle, shellcheck and pylint.

    run.py [KERNEL...]

Inside the toolbox, after `scripts/dev/toolbox root analysis` and `scripts/dev/toolbox
checkpatch` outside. clang compiles the module for each KERNEL (default newest).
The kernel's own semantic patches search the module. The other programs get the
project's C programs, shell scripts and Python files. sparse and gcc's warnings
about the module are in scripts/dev/matrix.

What must stand is suppressed beside its line, or in .clang-tidy and .pylintrc,
with the reason. The cache keeps what clang-tidy, Coccinelle and pylint print, by
all that they read."""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(PROJECT / "tests/vm"))
import archive  # noqa: E402  (needs the path above)
import suite  # noqa: E402
import vm  # noqa: E402

WORK = PROJECT / "build/static"

# The folders from which the Python files import.
IMPORTED = ("tests/vm", "tests/testkernel", "tests/cli", "tests/cli/doctor_trees", "tests/package", "tests/model", "tests")

# arith.c is also compiled for user space, which has no min() and max().
NOT_FOR_US = ("misc/minmax",)


def tool(name):
    """The path that a command of scripts/dev/toolbox prints."""
    return pathlib.Path(subprocess.run([PROJECT / "scripts/dev/toolbox", *name], capture_output=True, text=True, check=True)
                        .stdout.strip())


def sources():
    """The project's files by kind: {"c": [...], "sh": [...], "python": [...]}.
    """
    found = {"c": [], "sh": [], "python": []}
    for path in sorted(PROJECT.rglob("*")):
        name = path.relative_to(PROJECT)
        if name.parts[0] in ("build", ".git") or "__pycache__" in name.parts or not path.is_file():
            continue
        with open(path, "rb") as f:
            first = f.readline(80)
        if name.suffix == ".py" or re.match(rb"#!.*[/ ]python3?\b", first):
            found["python"].append(str(name))
        elif re.match(rb"#!.*[/ ](ba|da)?sh\b", first):
            found["sh"].append(str(name))
        elif name.suffix == ".c" and (name.parts[0] == "cli" or name.parts[:2] in (("tests", "cli"), ("tests", "package"))):
            found["c"].append(str(name))
    return found


class Unfinished(Exception):
    """A program was killed, or has failed itself. Its argument: what it left, a
    CompletedProcess."""


class Static:
    def __init__(self):
        self.tap = suite.Tap()
        self.root = tool(["root", "analysis"])
        self.sources = sources()
        self.tools = []
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        # The libraries' names without a version are in packages for developers.
        (WORK / "lib").mkdir()
        for library in (self.root / "usr/lib/x86_64-linux-gnu").glob("libpython3.*.so.1.0"):
            (WORK / "lib" / library.name.removesuffix(".1.0")).symlink_to(library)
        self.environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{WORK}/lib:{self.root}/usr/lib/x86_64-linux-gnu",
            "COCCINELLE_HOME": f"{self.root}/usr/lib/coccinelle",
            "PYTHONPATH": ":".join((f"{self.root}/usr/lib/coccinelle/python", f"{self.root}/usr/lib/python3/dist-packages")),
        }

    def judge(self, title, done):
        """Judge programs, which print what they find and then fail."""
        self.tap.check(title, not any(d.returncode for d in done),
                       "".join(f"\n{d.stdout}{d.stderr}" for d in done if d.returncode))

    def run(self, *command, cwd=PROJECT):
        return subprocess.run([str(c) for c in command], cwd=cwd, env=self.environment, capture_output=True, text=True,
                              check=False)

    def remembered(self, inputs, *command):
        """run(), or its earlier result with the same tools for the same
        contents of these files."""
        def make():
            done = self.run(*command)
            if not 0 <= done.returncode < 32 or "Traceback" in done.stderr:
                raise Unfinished(done)
            return json.dumps({"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}).encode()

        if not self.tools:
            unpacked = sorted(f"{p} {p.lstat().st_size} {p.lstat().st_mtime_ns}" for p in self.root.rglob("*"))
            self.tools = [pathlib.Path("/var/lib/dpkg/status").read_bytes(), "\n".join(unpacked).encode(),
                          pathlib.Path(__file__).read_bytes(), str(PROJECT).encode()]
        words = [str(c).encode() for c in command]
        contents = [data for name in sorted(inputs) for data in (name.encode(), (PROJECT / name).read_bytes())]
        try:
            kept = archive.cached("static", [*self.tools, *words, *contents], make)
        except Unfinished as e:
            return e.args[0]
        return subprocess.CompletedProcess(command, **json.loads(kept.read_bytes()))

    def clang(self, kernel):
        """Compile the module with another compiler than the kernel's."""
        tree = WORK / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        for name in ("src", "include", "scripts", "tests/static"):
            shutil.copytree(PROJECT / name, tree / name)
        for name in ("Makefile", "Kbuild", "dkms.conf"):
            shutil.copy(PROJECT / name, tree)
        kernel = vm.Kernel(kernel)
        done = self.run("make", "--no-print-directory", "modules", f"KDIR={kernel.headers}",
                        f"CC={tree}/tests/static/clang", *kernel.arch.make, cwd=tree)
        # Findings in the kernel's own headers do not count.
        own = re.compile(rf"(?!{kernel.headers})(.*/)?(src|include)/(?!linux/|asm|uapi/)[\w/.-]+:\d+:\d+: (warning|error): ")
        found = [line for line in (done.stdout + done.stderr).splitlines() if own.match(line) and "/usr/src/" not in line]
        if done.returncode:
            found.append(done.stderr[-2000:])
        self.tap.check(f"clang: the module for {kernel.name}", not found, "\n    ".join(["", *found]))

    def c_flags(self):
        return ["-std=gnu11", "-D_GNU_SOURCE=", '-DVERSION="x"', "-Icli", "-Iinclude", "-Itests/vm/guest", "-Wall", "-Wextra", "-Wno-unused-parameter", "-pthread"]

    def analyzer(self):
        self.judge(f"gcc -fanalyzer: {len(self.sources['c'])} C files", [
            self.run("gcc", *self.c_flags(), "-O2", "-fanalyzer", "-Werror", "-c", "-o", WORK / "analyzed.o", path)
            for path in self.sources["c"]])

    def tidy(self):
        read = [".clang-tidy", *(str(p.relative_to(PROJECT)) for d in ("cli", "include", "tests") for p in (PROJECT / d).rglob("*.h"))]
        self.judge(f"clang-tidy: {len(self.sources['c'])} C files", [
            self.remembered([path, *read], self.root / "usr/bin/clang-tidy-19", "--quiet", path, "--", *self.c_flags())
            for path in self.sources["c"]])

    def coccinelle(self):
        files = [str(p.relative_to(PROJECT)) for d in ("src", "include") for p in sorted((PROJECT / d).rglob("*.[ch]"))]
        patches, found = 0, []
        for patch in sorted((tool(["checkpatch"]).parent / "coccinelle").rglob("*.cocci")):
            text = patch.read_text("utf-8")
            name = f"{patch.parent.name}/{patch.stem}"
            # Patches that can't report, or contain OCaml, whose compiler isn't
            # here.
            if name in NOT_FOR_US or not re.search(r"^virtual .*\breport\b", text, re.M) or "script:ocaml" in text:
                continue
            patches += 1
            done = self.remembered([str(patch), *files], self.root / "usr/bin/spatch", "--very-quiet", "--no-show-diff", "-D", "report",
                                   "--cocci-file", patch, "-I", "include", *files)
            if done.returncode or done.stdout.strip():
                found.append(f"{name}: {done.stdout}{done.stderr[-500:]}")
        self.tap.check(f"Coccinelle: {patches} semantic patches of the kernel", patches and not found, "\n    ".join(["", *found]))

    def shellcheck(self):
        self.judge(f"shellcheck: {len(self.sources['sh'])} scripts",
                   [self.run("shellcheck", "-S", "warning", "-f", "gcc", *self.sources["sh"])])

    def pylint(self):
        folders = {}
        for path in self.sources["python"]:
            folders.setdefault(os.path.dirname(path), []).append(path)
        # A run for each folder, because two have modules of the same name.
        self.judge(f"pylint: {len(self.sources['python'])} files", [
            self.remembered([".pylintrc", *self.sources["python"]], sys.executable, "-m", "pylint",
                            "--init-hook=" + f"import sys; sys.path[:0] = {[str(PROJECT / d) for d in (folder, *IMPORTED)]}", *paths)
            for folder, paths in folders.items()])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", default=["newest"])
    args = parser.parse_args()
    static = Static()
    static.shellcheck()
    static.pylint()
    static.analyzer()
    static.tidy()
    static.coccinelle()
    for kernel in args.kernels:
        static.clang(kernel)
    shutil.rmtree(WORK)
    print(f"{static.tap.passed} passed, {static.tap.failed} failed, 0 skipped")
    sys.exit(bool(static.tap.failed))


if __name__ == "__main__":
    main()
