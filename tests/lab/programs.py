# SPDX-License-Identifier: GPL-2.0-only
"""What runs in a machine: the module under test, compiled C programs, and modules
that tests load."""

import concurrent.futures
import contextlib
import fcntl
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
import typing

from lab import archive, kcsan, vm

HERE = pathlib.Path(__file__).resolve().parent
BUILD = vm.PROJECT / "build"
LOGS = BUILD / "log"
DRIVER = vm.PROJECT / "tests/driver"
# For the client of vfio, which the programs share with nvgrace-gpu.
CLI = vm.PROJECT / "cli"
MODULE = "nvgrace-gpu-vfio-pci.ko"

# What every program is made with.
LIBRARY = (HERE / "guest/lib.c", CLI / "system/vfio.c")


def log_file(name):
    """The path of a machine's log."""
    LOGS.mkdir(parents=True, exist_ok=True)
    return LOGS / f"{name}.log"


@contextlib.contextmanager
def locked(name):
    """Only one process at a time is in here: several workers build the same."""
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / f"{name}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def module_of(kernel):
    """The path of the module under test, built for this kernel. A warning fails it."""
    counted = kernel.has("CONFIG_GCOV_KERNEL")      # see tests/stress/coverage, which wants objects with their real path
    command = ["scripts/dev/toolbox", "run" if counted else "cached", "--", "make", "-s", f"-j{os.cpu_count()}", "modules",
               f"KDIR={kernel.headers}", *kernel.arch.make]
    if counted:
        # gcov counts what is left after early inlining. Without this option, each
        # inlined copy of a function would have its own branches.
        command += ["GCOV_PROFILE=y", "KCFLAGS=-fno-early-inlining"]
    elif kernel.name == "next":
        # Its headers are for a newer compiler.
        command += ["CC=aarch64-linux-gnu-gcc", "KCFLAGS=-Wno-attributes"]
    elif kernel.has("CONFIG_KCSAN"):
        command.append(f"KCFLAGS={kcsan.compiler_flags(kernel.headers)}")
    else:
        command += ["W=1", "KCFLAGS=-Werror"]
    with locked("modules"):
        done = subprocess.run(command, cwd=vm.PROJECT, capture_output=True, text=True)
    assert not done.returncode, f"the module for {kernel.name} does not build:\n{done.stdout}{done.stderr}"
    return BUILD / kernel.release / MODULE


def module_file(kernel, name):
    """A module of the kernel that machines don't have by themselves: {path in
    the guest: path here}."""
    source = kernel.module_path(name)
    out = BUILD / "guest" / kernel.release / f"{name}.ko"
    out.parent.mkdir(parents=True, exist_ok=True)
    archive.write(out, vm.decompress(source.read_bytes(), source.name))
    return {f"/tests/{name}.ko": str(out)}


def out_of_tree(kernel, *sources):
    """The paths of the modules in these folders, compiled for this kernel by one make
    unless the cache has them."""
    @functools.cache
    def made():
        folder = BUILD / kernel.release / "modules"
        for source in sources:
            shutil.copytree(source, folder / source.name, dirs_exist_ok=True)
        (folder / "Kbuild").write_text("".join(f"obj-m += {source.name}/{c.stem}.o\n" for source in sources for c in source.glob("*.c")))
        done = subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "-C", str(kernel.headers), f"M={folder}", *kernel.arch.make, "modules"],
                              capture_output=True, text=True)
        assert not done.returncode, f"modules of the lab for {kernel.name} do not build:\n{done.stdout}{done.stderr}"
        return {source: next((folder / source.name).glob("*.ko")).read_bytes() for source in sources}

    def inputs(source):
        # The release of a kernel that is made here depends on its configuration.
        return [*made_of(sorted(source.iterdir()), [kernel.release, *kernel.arch.make]), (kernel.headers / "Module.symvers").read_bytes()]

    with locked("modules-lab"):
        return [str(archive.cached(f"module-{kernel.release}-{source.name}", inputs(source), lambda s=source: made()[s])) for source in sources]


class Case(typing.NamedTuple):
    """A line that a program prints with --list."""

    file: str       # of the program's table, from the project's folder on
    name: str
    words: str      # what it needs; see needs.py


def source_of(name):
    """The path of a program in driver/: its source, or the folder with its
    sources."""
    return DRIVER / name if (DRIVER / name).is_dir() else DRIVER / f"{name}.c"


def all_of_driver():
    """The paths of all of them."""
    return sorted({p if p.parent == DRIVER else p.parent for p in (*DRIVER.glob("*.c"), *DRIVER.glob("*/*.c"))})


def side_by_side(function, items):
    """The results of a function that waits for other programs, in the order of the
    items."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


@functools.lru_cache(None)
def cases(path):
    """[Case] of a test program, by the path of its source or of the folder with its
    sources. It is compiled for this machine, where it only lists them."""
    program, = compile_programs([path.stem], vm.NATIVE, path.parent, ["-O0"]).values()
    return listed(program)


def listed(program):
    """[Case] of a program that can run here."""
    said = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
    return [Case(*line.split("\t")) for line in said.splitlines()]


def compile_programs(names, arch=vm.ARM64, folder=DRIVER, options=()):
    """Compile NAME.c of a folder, or all sources of its folder NAME, unless the
    cache has the program: {path in the guest: path here}."""
    def compile_one(name):
        parts = sorted((folder / name).glob("*.c")) or [folder / f"{name}.c"]
        return f"/tests/{name}", str(compiled(f"program-{arch.name}-{name}", [*compiler(arch, [*parts, *objects]), *options]))

    objects = [compiled(f"object-{arch.name}-{s.stem}", [*compiler(arch, [s]), "-c"]) for s in (*LIBRARY, HERE / "guest/main.c")]
    return dict(side_by_side(compile_one, names))


def compiler(arch, sources):
    """The command that compiles these sources to a program for a machine,
    without its `-o FILE`."""
    return [arch.gcc, "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers",
            f"-I{HERE / 'guest'}", f"-I{CLI}", f"-ffile-prefix-map={vm.PROJECT}/=", *sources, "-lcmocka", "-lpthread"]


def compiled(name, command):
    """The path in the cache of the program that a compiler writes with -o. command:
    without that; the sources are paths, whose headers are beside them or shared."""
    def make():
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder, "out")
            done = subprocess.run([*command, "-o", out], capture_output=True, text=True)
            assert not done.returncode, done.stderr
            return out.read_bytes()

    sources = [word for word in command if isinstance(word, pathlib.Path)]
    headers = {*(h for p in sources for h in p.parent.glob("*.h")), *(HERE / "guest").glob("*.h"),
               *(HERE / "modules").glob("*/*.h"), *(vm.PROJECT / "include").glob("*.h"), CLI / "system/iommufd.h", CLI / "system/vfio.h"}
    return archive.cached(name, made_of([*sources, *sorted(headers)], command), make, 0o755)


def made_of_module(kernel, *more):
    """What a build of the module for a kernel depends on, for archive.cached(), with
    more files of the project."""
    files = [vm.PROJECT / name for name in ("Kbuild", "Makefile", "dkms.conf", "scripts/module.mk", "scripts/kernel-compiler",
                                            "scripts/probe-kernel", "scripts/this-version", "scripts/dev/toolbox", *more)]
    folders = [vm.PROJECT / name for name in ("src", "include", "scripts/probes")]
    # The last one has the version of Debian's package.
    headers = [kernel.headers / name for name in ("Module.symvers", ".config", "include/generated/utsversion.h")]
    return made_of([*files, *(p for folder in folders for p in sorted(folder.rglob("*.[ch]"))), *(h for h in headers if h.exists())],
                   [kernel.release, *kernel.arch.make])


def made_of(sources, command):
    """What the compiler's output depends on, for archive.cached(): sources, its
    options, and the tools and libraries, which all are packages."""
    options = " ".join(str(word) for word in command).replace(str(vm.PROJECT), "")
    return [options.encode(), pathlib.Path("/var/lib/nvgrace-gpu-toolbox/status").read_bytes(),
            *(data for p in sources for data in (p.name.encode(), p.read_bytes()))]
