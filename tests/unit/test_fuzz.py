# SPDX-License-Identifier: GPL-2.0-only
"""Fuzzers of arith.c and cfgemu.c, each with an oracle. FUZZ_SECONDS in the
environment says for how long each runs. Interesting inputs stay in
build/fuzz/corpus for the next run."""

import os
import re
import subprocess

import pytest

from lab import programs, vm

HERE = vm.PROJECT / "tests/unit/fuzz"
FOLDER = programs.BUILD / "fuzz"

# Seconds for each, if the environment doesn't say.
SECONDS = {"quick": 2, "long": 300}

# Initial inputs.
SEEDS = {
    # Defect, size as 8 bytes: 0x17_f000_0000, 1.5 GiB, one byte less. Then
    # without the defect.
    "carve": ("01ff 000000 17f0000000", "01ff 000000 0060000000", "01ff 000000 005fffffff", "00ff 000000 0850000000"),
    # Small, pos, count, start, end: around the window; in it. Then with 8 bytes
    # each.
    "split": ("0110 181828", "011e 041828", "00ff 00000000 ffffffffff 00000000000000 02"),
    # With resmem of 2 GiB, usemem of 128 GiB: size both, dword by dword, then
    # read everything.
    "bar": ("0021 1b 011804 ffffffff 011c04 ffffffff 001018", "0021 1b 01140c 0102030405060708090a0b0c 000040",
            "0121 1b 091e04 ffffffff 02011e04 01020304 c0000000"),
}

# Headers that user space lacks. kernel.h has their content.
LACKING = ("atomic", "ktime", "mutex", "notifier", "ratelimit", "rwsem", "spinlock", "uaccess", "vfio_pci_core", "wait", "workqueue")

pytestmark = pytest.mark.check


def build(name):
    """The path of a fuzzer."""
    # kbuild's command line provides these includes.
    arguments = ["-include", "stdbool.h", "-Iinclude", HERE / f"fuzz_{name}.c", "src/arith.c"]
    if name == "bar":
        headers = FOLDER / "include"
        for header in LACKING:
            (headers / "linux").mkdir(parents=True, exist_ok=True)
            (headers / f"linux/{header}.h").write_text("")
        # As on the newest kernel, which needs the least compatibility code.
        (headers / "generated").mkdir(exist_ok=True)
        (headers / "generated/nvgrace_gpu_features.h").write_text("#define HAVE_VFIO_DEVICE_INODE 1\n")
        # kbuild disables these warnings, too.
        arguments = ["-Wno-sign-compare", "-Wno-unused-parameter", f"-I{headers}", "-include", HERE / "kernel.h", *arguments,
                     "src/cfgemu.c"]
    program = FOLDER / f"fuzz_{name}"
    subprocess.run(["clang", "-g", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsanitize=fuzzer,address,undefined",
                    "-fno-sanitize-recover=all", *arguments, "-o", program], cwd=vm.PROJECT, check=True)
    return program


@pytest.mark.parametrize("name", SEEDS)
def test_fuzz(name, request):
    corpus = FOLDER / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(bytes.fromhex(seed))
    seconds = os.environ.get("FUZZ_SECONDS") or SECONDS.get(request.config.getoption("markexpr"), 5)
    with programs.locked(f"fuzz-{name}"):
        program = build(name)
        inputs = 0
        # Thousands per second are usual. A handful has tested nothing, so after
        # a pause of the machine it runs again.
        for _ in range(4):
            done = subprocess.run([program, f"-max_total_time={seconds}", "-max_len=512", "-timeout=600",
                                   f"-artifact_prefix={FOLDER / name}-", corpus], capture_output=True, text=True)
            said = "\n".join(line for line in done.stderr.splitlines() if not re.match("#|INFO: ", line))
            assert not done.returncode, f"{said}\nto reproduce: {program} {FOLDER / name}-..., the input named above"
            inputs += sum(map(int, re.findall(r"^Done (\d+) runs in ", done.stderr, re.M)))
            if inputs >= 1000:
                break
    assert inputs >= 1000
