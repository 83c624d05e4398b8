# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of nvgrace-gpu(8) share: building and running the program, and
the schema of its JSON."""

import atexit
import contextlib
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from lab import archive, packages, programs

# The tested programs would inherit ignored signals. A shell's background job
# ignores SIGINT, and nohup ignores SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
SCHEMA = PROJECT / "docs/nvgrace-gpu.schema.json"

# The campaign that measures coverage sets it. All programs are then built with
# gcov's counters, and without sanitizers.
COVERAGE = os.environ.get("COVERAGE")
# `make check-long` sets it: all tests then use a program with sanitizers, which takes
# eight times as long to start. Without it, only those do that look for leaks or give it
# garbage.
SANITIZE = os.environ.get("SANITIZE") == "1"
SANITIZERS = "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
COUNTERS = "-O0 -g --coverage -fprofile-update=atomic"
# Packages have -O2, which takes twice as long to compile.
USUAL = "-O1"
# For run(): without any rights.
NOBODY = {"user": 65534, "group": 65534, "extra_groups": []}


# Why the program can't be tested, if conftest.py has found that: one error for all tests.
broken = None


def make(*words):
    """The CompletedProcess of make in cli/. What the compiler has compiled before
    comes from the cache."""
    if broken:
        import pytest       # the demo needs none
        pytest.skip("nvgrace-gpu can't be tested")
    return subprocess.run(["scripts/dev/toolbox", "cached", "--", "make", "-s", f"-j{os.cpu_count()}", "-C", "cli", *words], cwd=PROJECT,
                          capture_output=True, text=True)


@functools.lru_cache(None)
def build(cross="", sanitized=False):
    """Builds the program for this machine, or with the tools of the prefix
    cross; its path."""
    sanitized = (sanitized or SANITIZE) and not cross
    kind = "sanitized" if sanitized and not COVERAGE else cross.rstrip("-") or "native"
    out = PROJECT / "build" / ("coverage/cli" if COVERAGE else "cli") / kind
    flags = [f"CFLAGS={COUNTERS if COVERAGE else SANITIZERS if sanitized else USUAL} -Werror"]
    out.mkdir(parents=True, exist_ok=True)
    with programs.locked(f"cli-{kind}"):
        if COVERAGE:
            # Counters are written when the program ends. This includes _exit(),
            # by which children and interrupted programs end.
            hook = out / "gcov_exit.o"
            subprocess.run([f"{cross}gcc", "-O2", "-Wall", "-Werror", "-c", "-o", hook,
                            PROJECT / "tests/stress/coverage/gcov_exit.c"], check=True)
            flags.append(f"LDFLAGS={hook} -Wl,--wrap=_exit")
        # On this machine, the program finds the others beside it.
        done = make(f"OUT={out}", "program", "testers", f"CROSS_COMPILE={cross}", *([] if cross else [f"libexecdir={out}/libexec"]), *flags)
    assert not done.returncode, f"nvgrace-gpu does not build:\n{done.stdout}{done.stderr}"
    return out / "nvgrace-gpu"


def once(name, function):
    """Calls a function that tests the program with sanitizers, unless the cache has
    that it returned with the same program and the same tests. It must depend on
    nothing else."""
    def made():
        function()
        return b""

    if COVERAGE:
        function()
        return
    here = pathlib.Path(__file__).parent
    read = [build(sanitized=True), SCHEMA, *sorted(here.glob("*.py")), *sorted(here.glob("*.c")), *sorted(here.glob("doctor_trees/*"))]
    archive.cached(name, programs.made_of([p for p in read if p.is_file()], [os.environ.get("ASAN_OPTIONS", "")]), made)


def build_library(name, directory, gcc="gcc"):
    """Compiles NAME.c of this folder to a library for LD_PRELOAD; its path."""
    out = pathlib.Path(directory, f"{name}.so")
    source = pathlib.Path(__file__).with_name(f"{name}.c")
    subprocess.run([gcc, "-O2", "-Wall", "-Wextra", "-Werror", f"-I{programs.CLI}", "-shared", "-fPIC", "-o", out, source], check=True)
    return out


def module_files(kernel, directory):
    """{path in a machine: path here} of the module, where DKMS puts it, and of
    libkmod's indexes. Machines load the modules on which it depends."""
    base = pathlib.Path(directory, "lib/modules", kernel.release)
    (base / "updates/dkms").mkdir(parents=True)
    shutil.copy(programs.module_of(kernel), base / "updates/dkms" / programs.MODULE)
    for name in ("modules.order", "modules.builtin"):
        (base / name).write_text("")
    subprocess.run(["depmod", "-b", directory, kernel.release], check=True, stderr=subprocess.DEVNULL)
    guest = f"/lib/modules/{kernel.release}"
    return {f"{guest}/updates/dkms/{programs.MODULE}": str(base / "updates/dkms" / programs.MODULE),
            **{f"{guest}/{p.name}": str(p) for p in base.glob("*.bin")}}


def testers(kernel, directory):
    """{path in a machine: path here} of "test" and "bench" and the programs of the
    first, as their package installs them."""
    order = pathlib.Path(directory, "order")
    subprocess.run(["make", "-s", "-C", "tests/hardware", f"OUT={directory}", order], cwd=PROJECT, check=True)
    cases = programs.compile_programs(order.read_text().split(), kernel.arch)
    return {**{f"/usr/libexec/nvgrace-gpu/{name}": str(build(kernel.arch.tools).parent / "libexec/nvgrace-gpu" / name) for name in ("test", "bench")},
            **{f"/usr/libexec/nvgrace-gpu-tests/{pathlib.Path(name).name}": path for name, path in {**cases, "order": str(order)}.items()}}


def installed(kernel, directory):
    """{path in a machine: path here} of the program, its libraries and the
    module, as packages install them."""
    program = build(kernel.arch.tools)
    libraries = packages.libraries([program], kernel.arch.libraries)
    return {"/usr/sbin/nvgrace-gpu": str(program),
            **{f"{kernel.arch.libraries.removeprefix('/usr')}/{name}": str(path) for name, path in libraries.items()},
            **module_files(kernel, directory)}


def strict(schema):
    """The schema, but with no other names and values than this version has."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    found = {k: strict(v) for k, v in schema.items()}
    if "properties" in found and found.get("type") == "object" and "allOf" not in found:
        found["additionalProperties"] = False
    if "examples" in found:
        found["enum"] = found["examples"]
    return found


@functools.lru_cache(None)
def validator(exact=False):
    import jsonschema
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(strict(schema) if exact else schema)


def validate(document):
    """Checks a document of this version against the strict schema and against
    the schema itself."""
    wrong = [f"{e.json_path}: {e.message}" for e in validator(exact=True).iter_errors(document)]
    assert not wrong, f"edit docs/{SCHEMA.name}, or the program: {wrong}"
    validator().validate(document)


def try_schema():
    """What the schema lacks of a GPU is one error for all tests."""
    from cli.test_trees import G1, Tree     # which need this file
    with Tree() as tree:
        validate(json.loads(run("list", "--json", root=tree.bound(G1).root).stdout))


@functools.lru_cache(None)
def build_for_users():
    """The program where every user may run it. The project may be in a folder that
    only root may enter."""
    directory = tempfile.TemporaryDirectory(prefix="program-")
    os.chmod(directory.name, 0o755)
    atexit.register(directory.cleanup)
    return shutil.copy(build(), directory.name)


def sanitizer_options(*more):
    """The environment in which a sanitizer that finds something ends the program
    with 99. The caller's options count, too: detect_leaks=0 where LeakSanitizer
    can't run."""
    return {"ASAN_OPTIONS": ":".join(["exitcode=99", *more, os.environ.get("ASAN_OPTIONS", "")]),
            "UBSAN_OPTIONS": "exitcode=99:print_stacktrace=1"}


def shown(leader):
    """The pieces of what a program writes on a terminal, until it ends."""
    with contextlib.suppress(OSError):      # a terminal ends with EIO
        while more := os.read(leader, 65536):
            yield more


def run(*words, root=None, env=None, before=(), sanitized=False, **more):
    """The CompletedProcess of the program. With sanitizers, it ends with 99 if one
    finds something. before: a command that runs it."""
    program = build_for_users() if "user" in more else build(sanitized=sanitized)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", **sanitizer_options(), **(env or {})}
    command = [*before, program, *(["--root", root] if root else []), *words]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=environment, timeout=600,
                          **more)
    assert done.returncode != 99 and "runtime error" not in done.stderr, done.stderr
    return done
