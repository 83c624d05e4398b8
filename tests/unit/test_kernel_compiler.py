# SPDX-License-Identifier: GPL-2.0-only
"""scripts/kernel-compiler names the compiler of a kernel's configuration, if it is
there."""

import pathlib
import subprocess
import tempfile

import pytest

from lab import vm

# Configuration, compilers (name=version) and more arguments, and what is printed: the
# argument, and behind a newline the message.
GCC14 = 'CONFIG_CC_IS_GCC=y\nCONFIG_GCC_VERSION=140200\nCONFIG_CC_VERSION_TEXT='
CLANG = "CONFIG_CC_IS_CLANG=y\nCONFIG_CLANG_VERSION=190107\nCONFIG_LD_IS_LLD=y\nCONFIG_CC_VERSION_TEXT="
MISSING = "the kernel was built by {0}, which is not installed"
TABLE = {
    "the default is it": (GCC14 + '"gcc-14 (Ubuntu 14.2.0) 14.2.0"', "gcc=14 gcc-14=14", {}, ""),
    "by its name": (GCC14 + "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0", "gcc=12 x86_64-linux-gnu-gcc-14=14", {},
                    "CC=x86_64-linux-gnu-gcc-14"),
    "a name without a version": (GCC14 + '"gcc (GCC) 14.2.1 20250110"', "gcc=12 gcc-14=14", {}, "CC=gcc-14"),
    "a name of something else": (GCC14 + '"true;gcc 14.2.1"', "gcc=12", {}, MISSING.format("gcc 14")),
    "another version of that name": (GCC14 + '"gcc-toolset-gcc (GCC) 14.2.1"', "gcc=12 gcc-toolset-gcc=13", {}, MISSING.format("gcc 14")),
    "DKMS has looked": (GCC14 + '"gcc-14 (Ubuntu 14.2.0) 14.2.0"', "gcc=12 special=14", {"KERNEL_CC": "special"}, "CC=special"),
    "DKMS found another version": (GCC14 + '"gcc-14 (Ubuntu 14.2.0) 14.2.0"', "gcc=12 gcc-14=14", {"KERNEL_CC": "gcc"}, "CC=gcc-14"),
    "cross": (GCC14 + '"aarch64-redhat-linux-gcc (GCC) 14.2.1"', "gcc=14 arm-gcc=12 arm-gcc-14=14", {"CROSS": "arm-"}, "CC=arm-gcc-14"),
    "clang": (CLANG + '"Ubuntu clang version 19.1.7"', "gcc=14 clang=19", {}, "LLVM=1"),
    "clang of a version": (CLANG + '"Debian clang version 19.1.7"', "clang=14 clang-19=19", {}, "LLVM=-19"),
    "clang with another linker": (CLANG.replace("CONFIG_LD_IS_LLD=y\n", "") + "clang version 19.1.7", "clang-19=19", {}, "CC=clang-19"),
    "no clang": (CLANG + '"clang version 19.1.7"', "gcc=14", {}, MISSING.format("clang 19")),
    "another clang": (CLANG + '"clang version 19.1.7"', "clang=14", {}, "LLVM=1\n" + MISSING.format("clang 19")),
    "no configuration": (None, "gcc=12", {}, ""),
    "an old kernel's": ('CONFIG_CC_VERSION_TEXT="gcc (GCC) 4.8"', "gcc=12", {}, ""),
}


@pytest.mark.parametrize("name", TABLE)
def test_kernel_compiler(name):
    config, compilers, env, printed = TABLE[name]
    with tempfile.TemporaryDirectory() as place:
        headers, programs = pathlib.Path(place, "headers"), pathlib.Path(place, "bin")
        (headers / "include/config").mkdir(parents=True)
        programs.mkdir()
        if config is not None:
            (headers / "include/config/auto.conf").write_text(config + "\n")
        for word in compilers.split():
            program, version = word.split("=")
            (programs / program).write_text(f"#!/bin/sh\necho {version}.2.0\n")
            (programs / program).chmod(0o755)
        (programs / "sed").symlink_to("/usr/bin/sed")
        done = subprocess.run(["/bin/sh", "scripts/kernel-compiler", headers, *([env["CROSS"]] if "CROSS" in env else [])],
                              cwd=vm.PROJECT, env={"PATH": str(programs), **env}, capture_output=True, text=True, check=True)
    out, _, error = printed.rpartition("\n") if MISSING[:10] in printed else (printed, "", "")
    assert done.stdout.strip() == out and error in done.stderr and bool(error) == bool(done.stderr), done
