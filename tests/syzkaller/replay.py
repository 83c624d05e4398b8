#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Executes programs that are drawn from the description, in a virtual GH200, as
root and as a client without root.

    replay.py [--seed N] [--programs N] [--timeout SECONDS] KERNEL...
    replay.py --print FIRST:LAST [--seed N] [--programs N] KERNEL

Runs inside the toolbox, after `make modules` for each kernel. The same seed
gives the same programs. It fails if a kernel's log has trouble, if a GPU can't
be opened or does not work afterwards, if references of the module stay, if a
call was never executed, if a call never succeeded and isn't in NEVER, or if a
call in REFUSED succeeded. It prints a program that failed as text. The last
line is the sum. Exit status: 0 if all passed, else 1. Logs are
build/log/replay-KERNEL.log.
"""

import argparse
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "vm")]
import check  # noqa: E402  (needs the path above)
import draw  # noqa: E402
import machine  # noqa: E402
import suite  # noqa: E402
import syzlang  # noqa: E402
import uapi  # noqa: E402
import vm  # noqa: E402

HEADERS = "newest-amd64"
SEED, PROGRAMS = 1, 500
TIMEOUT = 1800
# Linux resets the second GPU through the bus, and never the first one.
RUNS = (("root", "gh200"), ("client", "second"))

# Calls that must fail, whatever their arguments, with the reason. Success may
# leave no other sign, because few programs also use what they made.
REFUSED = {"mmap$nvgrace_private": "a private mapping would be a copy, not the GPU's memory"}
# Calls that need not succeed, with the reason.
NEVER = {
    **REFUSED,
    "mmap$nvgrace_exec": "nothing is executable",
    "ioctl$nvgrace_IOEVENTFD": "the driver has none",
    "ioctl$nvgrace_FEATURE_token": "the GPU has no virtual functions",
    "ioctl$nvgrace_DEVID_DESTROY": "the open device keeps its number",
}
# Calls that need to succeed only if the kernel has these modules or options.
WANTED = {
    "ioctl$nvgrace_FEATURE_dma_buf": ("CONFIG_VFIO_PCI_DMABUF",),
    "openat$nvgrace_iommu": ("iommufd",),
    "syz_open_dev$nvgrace_cdev": ("iommufd",),
    "ioctl$nvgrace_BIND_IOMMUFD": ("iommufd",),
    "ioctl$nvgrace_ATTACH_IOMMUFD_PT": ("iommufd",),
    "ioctl$nvgrace_DETACH_IOMMUFD_PT": ("iommufd",),
    "ioctl$nvgrace_IOAS_ALLOC": ("iommufd",),
    "ioctl$nvgrace_IOAS_MAP": ("iommufd",),
    "ioctl$nvgrace_IOAS_MAP_FILE": ("iommufd", "CONFIG_VFIO_PCI_DMABUF"),
    "ioctl$nvgrace_IOAS_UNMAP": ("iommufd",),
    "ioctl$nvgrace_IOAS_DESTROY": ("iommufd",),
    "ioctl$nvgrace_DEVID_DESTROY": ("iommufd",),
}


def has(kernel, what):
    return kernel.has(what) if what.startswith("CONFIG_") else kernel.provides(what)


def described():
    """The description's calls and Resolver."""
    headers = vm.Kernel(HEADERS).headers
    path = HERE / "nvgrace_gpu_vfio.txt"
    description = syzlang.parse(path.read_text("utf-8"), path.name)
    return check.resolved(description, uapi.values(description, headers))


def programs_for(kernel, calls, resolver, seed, count):
    worlds = draw.WORLDS if kernel.provides("iommufd") else draw.WORLDS[:2]
    return draw.draw(calls, resolver, seed, count, worlds)


def failed_programs(lines):
    """The numbers of programs in the kernel's log or in replay.c's output."""
    found = [int(n) for line in lines for n in re.findall(r"Comm: syz-(\d+)|@@replay program (\d+)", line) for n in n if n]
    return list(dict.fromkeys(found))


def counts(result):
    """{number of a call: [executed, succeeded]} of all runs."""
    sums = {}
    for command in result.commands:
        for line in command.output:
            if match := re.fullmatch(r"@@count (\d+) (\d+) (\d+)", line):
                executed, succeeded = sums.get(int(match[1]), (0, 0))
                sums[int(match[1])] = executed + int(match[2]), succeeded + int(match[3])
    return sums


def replay(tap, kernel, calls, programs, timeout):
    module = suite.BUILD / kernel.release / suite.MODULE
    files = suite.compile_programs(["replay"], kernel.arch, HERE)
    table = suite.BUILD / "guest" / f"programs-{kernel.name}"
    table.write_bytes(draw.serialise(programs, calls))
    files["/tests/programs"] = str(table)
    log = suite.BUILD / "log" / f"replay-{kernel.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    commands = [{"name": who, "run": f"/tests/replay {who} /tests/programs {gpu}"} for who, gpu in RUNS]
    with vm.Machine(kernel, gpus=[g for g in machine.gpus(kernel) if g["name"] in dict(RUNS).values()],
                    ram=machine.ram_size(kernel), append=machine.APPEND, files=files, commands=commands, module=str(module),
                    timeout=timeout, log=str(log), handlers=suite.HANDLERS) as m:
        result = m.run()
    output = [line for c in result.commands for line in c.output]
    for command in result.commands:
        tap.count(f"{kernel.name}, {command.name}", command.output, command.rc)
        print("".join(f"{line}\n" for line in command.output if not line.startswith("@@count")), end="")
        print(f"# {kernel.name}, {command.name}: {command.seconds or 0:.1f} s")
    for number in failed_programs(result.console + result.dmesg + output):
        print(programs[number])
    tap.check(f"{kernel.name}: {len(programs)} programs, twice each, leave no trouble in the kernel's log", not result.failures,
              "\n    ".join(["", *result.failures]))

    sums = counts(result)
    names = list(calls)
    unexecuted = [n for i, n in enumerate(names) if not sums.get(i, (0, 0))[0]]
    tap.check(f"{kernel.name}: each of {len(names)} calls is executed", not unexecuted, ", ".join(unexecuted))
    exempt = {n for n in names if n in NEVER or not all(has(kernel, what) for what in WANTED.get(n, ()))}
    succeeded = {n for i, n in enumerate(names) if sums.get(i, (0, 0))[1]}
    failed = [n for n in names if n not in succeeded and n not in exempt]
    tap.check(f"{kernel.name}: each of {len(names) - len(exempt)} calls succeeds at least once", not failed, ", ".join(failed))
    accepted = [n for n in REFUSED if n in succeeded]
    tap.check(f"{kernel.name}: none of {len(REFUSED)} calls that must fail succeeds", not accepted, ", ".join(accepted))
    done = sum(e for e, _ in sums.values()), sum(s for _, s in sums.values())
    print(f"# {kernel.release}: {done[0]} calls, {done[1]} of them succeeded; {result.seconds:.1f} s; log: {log}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--programs", type=int, default=PROGRAMS)
    parser.add_argument("--timeout", type=int, default=TIMEOUT)
    parser.add_argument("--print", dest="shown", metavar="FIRST:LAST", help="print these programs, and execute none")
    parser.add_argument("kernels", nargs="+", metavar="KERNEL")
    args = parser.parse_args()
    calls, resolver = described()
    tap = suite.Tap()
    for name in args.kernels:
        kernel = vm.Kernel(name)
        programs = programs_for(kernel, calls, resolver, args.seed, args.programs)
        if args.shown:
            first, last = map(int, args.shown.split(":"))
            print(*programs[first:last + 1], sep="\n\n")
        else:
            replay(tap, kernel, calls, programs, args.timeout)
    if not args.shown:
        print(f"{tap.passed} passed, {tap.failed} failed, 0 skipped")
    sys.exit(bool(tap.failed))


if __name__ == "__main__":
    main()
