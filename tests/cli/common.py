# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of nvgrace-gpu(8) share: building and running the program, and
the schema of its JSON."""

import atexit
import fcntl
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

# The tested programs would inherit ignored signals. A shell's background job
# ignores SIGINT, and nohup ignores SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(PROJECT / "tests/vm"))
import packages  # noqa: E402  (needs the path above)

SCHEMA = PROJECT / "docs/nvgrace-gpu.schema.json"

MODULE = "nvgrace-gpu-vfio-pci.ko"
# tests/coverage sets it. All programs are then built with counters of lines,
# and without sanitizers.
COVERAGE = os.environ.get("COVERAGE")
SANITIZERS = "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"


def counting(cross):
    """Builds the program with gcov's counters, which it writes beside its
    objects when it ends. With gcov_exit.c, that includes _exit(), by which
    children and interrupted programs end."""
    out = PROJECT / "build/coverage/cli" / (cross.rstrip("-") or "native")
    out.mkdir(parents=True, exist_ok=True)
    hook = out / "gcov_exit.o"
    gcc = f"{cross}gcc"
    for command in ([gcc, "-O2", "-Wall", "-Werror", "-c", "-o", hook, PROJECT / "tests/coverage/gcov_exit.c"],
                    ["make", "-s", "-C", PROJECT / "cli", f"OUT={out}", "program", f"CROSS_COMPILE={cross}",
                     "CFLAGS=-O0 -g -Werror --coverage -fprofile-update=atomic", f"LDFLAGS={hook} -Wl,--wrap=_exit"]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"nvgrace-gpu does not build with counters:\n{done.stdout}{done.stderr}")
    return out / "nvgrace-gpu"


@functools.lru_cache(None)
def build(cross="", sanitized=False):
    """Builds the program for this machine, or with the tools of the prefix
    cross; its path."""
    if COVERAGE:
        return counting(cross)
    out = PROJECT / "build/cli" / (cross.rstrip("-") or "native") if not sanitized else PROJECT / "build/cli/sanitized"
    command = ["make", "-s", "-C", str(PROJECT / "cli"), f"OUT={out}", "program"]
    command += [f"CROSS_COMPILE={cross}"] if cross else []
    command += [f"CFLAGS={SANITIZERS} -Werror"] if sanitized else ["CFLAGS=-O2 -g -Werror"]
    out.mkdir(parents=True, exist_ok=True)
    # Several jobs of `make check` need the same program.
    with open(out / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"nvgrace-gpu does not build:\n{done.stdout}{done.stderr}")
    return out / "nvgrace-gpu"


def build_helper(name, directory, gcc="gcc"):
    """Compiles NAME.c of this folder, or NAME.so as a library; its path."""
    out = pathlib.Path(directory, name)
    library = ["-shared", "-fPIC"] if out.suffix == ".so" else []
    source = pathlib.Path(__file__).with_name(f"{out.stem}.c")
    subprocess.run([gcc, "-O2", "-Wall", "-Wextra", "-Werror", *library, "-o", out, source], check=True)
    return out


def module_files(kernel, directory):
    """{path in a machine: path here} of the module, where DKMS puts it, and of
    libkmod's indexes. Machines load the modules on which it depends."""
    base = pathlib.Path(directory, "lib/modules", kernel.release)
    (base / "updates/dkms").mkdir(parents=True)
    source = PROJECT / "build" / kernel.release / MODULE
    if not source.exists():
        sys.exit(f"{source} does not exist; run \"make modules\" for kernel {kernel.name}")
    (base / "updates/dkms" / MODULE).write_bytes(source.read_bytes())
    for name in ("modules.order", "modules.builtin"):
        (base / name).write_text("")
    subprocess.run(["depmod", "-b", directory, kernel.release], check=True, stderr=subprocess.DEVNULL)
    guest = f"/lib/modules/{kernel.release}"
    return {f"{guest}/updates/dkms/{MODULE}": str(base / "updates/dkms" / MODULE),
            **{f"{guest}/{p.name}": str(p) for p in base.glob("*.bin")}}


def installed(kernel, directory):
    """{path in a machine: path here} of the program, its libraries and the
    module, as packages install them."""
    here = kernel.arch.gcc == "gcc"
    machine = "x86_64-linux-gnu" if here else "aarch64-linux-gnu"
    program = build("" if here else f"{machine}-")
    libraries = packages.libraries([program], f"/usr/lib/{machine}")
    return {"/usr/sbin/nvgrace-gpu": str(program),
            **{f"/lib/{machine}/{name}": str(path) for name, path in libraries.items()},
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
    validator(exact=True).validate(document)
    validator().validate(document)


@functools.lru_cache(None)
def build_for_users():
    """The sanitized program where every user may run it. The project may be in
    a folder that only root may enter."""
    directory = tempfile.TemporaryDirectory(prefix="program-")
    os.chmod(directory.name, 0o755)
    atexit.register(directory.cleanup)
    return shutil.copy(build(sanitized=True), directory.name)


def run(*words, root=None, env=None, before=(), **more):
    """The CompletedProcess of the sanitized program, which ends with 99 if a
    sanitizer finds something. before: a command that runs it."""
    program = build_for_users() if "user" in more else build(sanitized=True)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "ASAN_OPTIONS": "exitcode=99:detect_leaks=1",
                   "UBSAN_OPTIONS": "exitcode=99:print_stacktrace=1", **(env or {})}
    command = [*before, program, *(["--root", root] if root else []), *words]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=environment, timeout=600,
                          **more)
    assert done.returncode != 99 and "runtime error" not in done.stderr, done.stderr
    return done


def main():
    """unittest.main(), but the last line is the sum, as in all tests."""
    program = unittest.main(exit=False, verbosity=1)
    result = program.result
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    passed = result.testsRun - failed - len(result.skipped)
    print(f"{max(passed, 0)} passed, {failed} failed, {len(result.skipped)} skipped")
    sys.exit(1 if failed or passed <= 0 else 0)
