#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs programs that search the sources for mistakes: clang, gcc's analyzer,
clang-tidy, Coccinelle, shellcheck and pylint.

    run.py [KERNEL...]

Inside the toolbox, after `scripts/toolbox root analysis` and `scripts/toolbox
checkpatch` outside. clang compiles the module for each KERNEL (default newest).
The kernel's own semantic patches search the module. The other programs get the
project's C programs, shell scripts and Python files. sparse and gcc's warnings
about the module are in scripts/matrix.

Each program also gets a file with a mistake, which it must find. Exceptions are
in tests/static/exceptions alone, and each must be needed.

The cache keeps what clang-tidy, Coccinelle and pylint print about the project's
files, by all that they read. They search for the mistakes each time."""

import argparse
import fnmatch
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

EXCEPTIONS = PROJECT / "tests/static/exceptions"
WORK = PROJECT / "build/static"

# A finding, in whatever program's format: path, line, text and check.
FINDING = re.compile(r"^(?P<path>[^:\s][^:]*):(?P<line>\d+):[\d-]+: (?:warning|error|fatal error|WARNING|ERROR):? "
                     r"(?P<text>.*?)(?: \[(?P<check>[\w.,+=-]+)\])?$")

# The checks for C that gcc's analyzer lacks and that are not about style.
TIDY = "clang-analyzer-*,bugprone-*,cert-*,concurrency-*,performance-*,portability-*,misc-redundant-expression"

CONTROL_C = """\
#include <stdlib.h>

int control(void)
{
	int *p = malloc(sizeof(*p));

	return p ? 1 : 0;
}
"""
CONTROL_KERNEL = """
static int control(void *p)
{
	int i;

	if (p)
		kfree(p);
	return i;
}
"""
CONTROL_SHELL = "#!/bin/sh\nrm -rf $1/*\n[ $2 = a ] && cd $(pwd)\n"
CONTROL_PYTHON = '"""A mistake."""\n\nprint(contrl)\n'


def tool(name):
    """The path that a command of scripts/toolbox prints."""
    return pathlib.Path(subprocess.run([PROJECT / "scripts/toolbox", *name], capture_output=True, text=True, check=True)
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


class Exceptions:
    """Lines "TOOL PATH CHECK", where PATH and CHECK are patterns. A line that
    nothing needs is a mistake."""

    def __init__(self):
        self.used = set()
        self.lines = {}
        for number, line in enumerate(EXCEPTIONS.read_text("utf-8").splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                self.lines[number] = line.split()

    def covers(self, name, path, check):
        for number, (its_tool, its_path, its_check) in self.lines.items():
            if name == its_tool and fnmatch.fnmatch(path, its_path) and fnmatch.fnmatch(check, its_check):
                self.used.add(number)
                return True
        return False

    def unused(self):
        return [f"{EXCEPTIONS.name}:{number}: nothing needs this any more: {' '.join(words)}"
                for number, words in self.lines.items() if number not in self.used]


class Unfinished(Exception):
    """A program was killed, or has failed itself. Its argument: what it left, a
    CompletedProcess."""


class Static:
    def __init__(self):
        self.tap = suite.Tap()
        self.exceptions = Exceptions()
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

    def control(self, name, text):
        """Write a file with a mistake; its path in the project."""
        path = WORK / name
        path.write_text(text, "utf-8")
        return str(path.relative_to(PROJECT))

    def check(self, title, complaints):
        self.tap.check(title, not complaints, "\n    ".join(["", *complaints]))

    def findings(self, name, output, check=None):
        """[(path, complaint)] of a program's output, without exceptions."""
        found = []
        for line in output.splitlines():
            match = FINDING.match(line)
            if not match:
                continue
            path = os.path.relpath(os.path.join(PROJECT, match["path"]), PROJECT)
            what = match["check"] or check or "-"
            # clang-tidy prints a check's other names as well.
            if not self.exceptions.covers(name, path, what.split(",")[0]):
                found.append((path, f"{path}:{match['line']}: {match['text']} [{what}]"))
        return found

    def judge(self, title, name, output, control):
        """Judge a program's findings in the project's files and in its control.
        """
        found = self.findings(name, output)
        complaints = [text for path, text in found if path != control]
        if not any(path == control for path, _ in found):
            complaints.append("it does not find a mistake that was made for it: " + output[-2000:])
        self.check(title, complaints)

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
        control = "src/cfgemu.c"
        with open(tree / control, "a", encoding="utf-8") as f:
            f.write("\n#include <linux/slab.h>\n" + CONTROL_KERNEL)
        first = len((PROJECT / control).read_text("utf-8").splitlines())
        kernel = vm.Kernel(kernel)
        done = self.run("make", "--no-print-directory", "modules", f"KDIR={kernel.headers}",
                        f"CC={tree}/tests/static/clang", *kernel.arch.make, cwd=tree)
        complaints, seen = [], False
        for line in done.stdout.splitlines() + done.stderr.splitlines():
            match = FINDING.match(line)
            # Findings in the kernel's own headers do not count.
            own = match and re.search(r"(?:^|/)((?:src|include)/(?!linux/|asm|uapi/)[\w/.-]+)$", match["path"])
            if not own or "/usr/src/" in match["path"]:
                continue
            if own[1] == control and int(match["line"]) > first:
                seen = True
            elif not self.exceptions.covers("clang", own[1], match["check"] or "-"):
                complaints.append(f"{own[1]}:{match['line']}: {match['text']} [{match['check']}]")
        if not seen or done.returncode or not (tree / "build" / kernel.release / suite.MODULE).exists():
            complaints.append("there is no module, or a mistake is not found: " + (done.stdout + done.stderr)[-2000:])
        self.check(f"clang: the module for {kernel.name}", complaints)

    def c_flags(self):
        return ["-std=gnu11", "-D_GNU_SOURCE=", '-DVERSION="x"', "-Icli", "-Iinclude", "-Itests/vm/guest", "-Wall", "-Wextra", "-Wno-unused-parameter", "-pthread"]

    def analyzer(self):
        control = self.control("control.c", CONTROL_C)
        output = []
        for path in (*self.sources["c"], control):
            # ccache repeats what gcc found in an unchanged file. The mistake
            # must be found anew.
            fresh = ["env", "CCACHE_DISABLE=1"] if path == control else []
            done = self.run(*fresh, "gcc", *self.c_flags(), "-O2", "-fanalyzer", "-c", "-o", WORK / "analyzed.o", path)
            output.append(done.stdout + done.stderr)
        self.judge(f"gcc -fanalyzer: {len(self.sources['c'])} C files", "analyzer", "\n".join(output), control)

    def tidy(self):
        control = self.control("control.c", CONTROL_C)
        headers = [str(p.relative_to(PROJECT)) for d in ("cli", "include", "tests") for p in (PROJECT / d).rglob("*.h")]
        output = []
        for path in (*self.sources["c"], control):
            command = [self.root / "usr/bin/clang-tidy-19", "--quiet", f"--checks=-*,{TIDY}", path, "--", *self.c_flags()]
            done = self.run(*command) if path == control else self.remembered([path, *headers], *command)
            output.append(done.stdout + done.stderr)
        self.judge(f"clang-tidy: {len(self.sources['c'])} C files", "tidy", "\n".join(output), control)

    def coccinelle(self):
        control = self.control("control-kernel.c", CONTROL_KERNEL)
        files = [str(p.relative_to(PROJECT)) for d in ("src", "include") for p in sorted((PROJECT / d).rglob("*.[ch]"))]
        patches = sorted((tool(["checkpatch"]).parent / "coccinelle").rglob("*.cocci"))
        found, complaints = [], []
        for patch in patches:
            text = patch.read_text("utf-8")
            name = f"{patch.parent.name}/{patch.stem}"
            # Patches that can't report, or contain OCaml, whose compiler isn't
            # here.
            if not re.search(r"^virtual .*\breport\b", text, re.M) or "script:ocaml" in text:
                continue
            command = [self.root / "usr/bin/spatch", "--very-quiet", "--no-show-diff", "-D", "report", "--cocci-file", patch,
                       "-I", "include"]
            for done in (self.remembered([str(patch), *files], *command, *files), self.run(*command, control)):
                if done.returncode:
                    complaints.append(f"{name} ended with status {done.returncode}: {done.stderr[-500:]}")
                found += self.findings("coccinelle", done.stdout, name)
        complaints += [text for path, text in found if path != control]
        if not any(path == control for path, _ in found):
            complaints.append("it does not find a mistake that was made for it")
        self.check(f"Coccinelle: {len(patches)} semantic patches of the kernel", complaints)

    def shellcheck(self):
        control = self.control("control.sh", CONTROL_SHELL)
        done = self.run("shellcheck", "-S", "warning", "-f", "gcc", *self.sources["sh"], control)
        self.judge(f"shellcheck: {len(self.sources['sh'])} scripts", "shellcheck", done.stdout + done.stderr, control)

    def pylint(self):
        control = self.control("control.py", CONTROL_PYTHON)
        folders, output = {}, []
        for path in (*self.sources["python"], control):
            folders.setdefault(os.path.dirname(path), []).append(path)
        assert folders[os.path.dirname(control)] == [control]
        # A run for each folder, because two have modules of the same name.
        for folder, paths in folders.items():
            command = [sys.executable, "-m", "pylint", "--disable=C,R", "--score=n", "--persistent=n",
                       "--init-hook=" + f"import sys; sys.path[:0] = {[str(PROJECT / d) for d in (folder, 'tests/vm', 'tests/testkernel', 'tests/cli', 'tests/cli/doctor_trees', 'tests/package', 'tests/model', 'tests')]}",
                       "--msg-template={path}:{line}:{column}: warning: {msg} [{symbol}]", *paths]
            done = self.run(*command) if control in paths else self.remembered(self.sources["python"], *command)
            output.append(done.stdout + done.stderr)
        self.judge(f"pylint: {len(self.sources['python'])} files", "pylint", "\n".join(output), control)


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
    static.check("no exception outlives its reason", static.exceptions.unused())
    shutil.rmtree(WORK)
    print(f"{static.tap.passed} passed, {static.tap.failed} failed, 0 skipped")
    sys.exit(bool(static.tap.failed))


if __name__ == "__main__":
    main()
