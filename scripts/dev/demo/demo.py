# SPDX-License-Identifier: GPL-2.0-only
"""`make demo`: builds the module, boots a virtual GH200, and shows the GPU as a
VMM sees it.

Inside the toolbox. demo.c beside this file runs in the machine and prints."""

import pathlib
import subprocess
import sys

from lab import programs, progress, vm

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = vm.PROJECT

KERNEL = "newest"
# A GH200 of 96 GB: 95.75 GiB.
SIZE = 0x17_F000_0000


def build(kernel):
    with progress.Step(f"building the module for Linux {kernel.release} (arm64)"):
        module = programs.module_of(kernel)
        program = PROJECT / "build" / "guest" / "demo"
        program.parent.mkdir(parents=True, exist_ok=True)
        progress.run([*programs.compiler(kernel.arch, [HERE / "demo.c", *programs.LIBRARY]), "-o", program])
    return program, module


def main():
    kernel = vm.Kernel(KERNEL)
    program, module = build(kernel)
    log = programs.log_file("demo")
    boot = progress.Step("booting a virtual GH200 (QEMU, emulated; 95.75 GiB of GPU memory, sparse)")
    boot.__enter__()

    def show(mark, line):
        if mark != ">":
            return
        if line.startswith("@@BOOT"):
            boot.__exit__(None, None, None)
            print()
        elif not line.startswith("@@"):
            print(line, flush=True)

    with vm.Machine(kernel, gpus=[{"name": "gh200", "size": SIZE}], files={"/scripts/dev/demo": str(program)},
                    commands=[{"name": "demo", "run": "/scripts/dev/demo"}], module=str(module), memory="128G", timeout=900,
                    log=str(log), echo=show) as machine:
        result = machine.run()
    boot.__exit__(None, None, None)
    for failure in result.failures:
        print(f"demo: {failure}", file=sys.stderr)
    if result.failures:
        sys.exit(f"demo: the machine's console is in {log}")
    print(f"\n  A real kernel, driver, vfio and ACPI table; the GPU is a model, the CPU emulated. Kernel log: clean.\n"
          f"  {result.seconds:.0f} s in the machine; its console is in {log.relative_to(PROJECT)}.")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.CalledProcessError, vm.ConfigError) as error:
        sys.exit(f"demo: {error}")
