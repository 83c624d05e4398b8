#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs the test programs of guest/ on one kernel, in one boot of the machine
of machine.py.

    suite.py [--timeout SECONDS] [--silence SECONDS] [--race SECONDS] [--first-failure] KERNEL [PROGRAM[:ARGUMENT]...]

Inside the toolbox, after `make modules` for that kernel. Compiles the programs,
boots, and prints their TAP lines as they come. Without PROGRAMs, it runs all
that the kernel has the means for and names the others. The boot and the
kernel's log count as a test each. The last line is the sum, and the exit status
is 0 if all passed. The whole console is in build/log/vm-KERNEL.log.
"""

import argparse
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import archive
import content
import machine
import vm

# A handler's machine beside the module of that name, a result beside the function.
# pylint: disable=redefined-outer-name

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "testkernel"))
import kcsan  # noqa: E402  (needs the path above)

BUILD = vm.PROJECT / "build"
MODULE = "nvgrace-gpu-vfio-pci.ko"

# For every kernel, in this order.
PROGRAMS = ("discovery", "plain", "region", "config", "mmap", "rw", "reset", "ready", "wait", "gate", "scrub", "sysfs", "trace",
            "privilege", "poison", "thp", "race", "races", "cycles", "random")
# For kernels that have the means: the model GPU, an option ("!": its absence),
# a module.
MODEL = "the model GPU"
NEEDS = {
    # aer_inject takes an ordinary lock under a raw one. lockdep reports that,
    # and then nothing more.
    "aer": (MODEL, "aer_inject", "!CONFIG_PROVE_RAW_LOCK_NESTING"),
    "power": (MODEL, "CONFIG_ARM64"),
    "rare": (MODEL,),
    "failures": (MODEL, "CONFIG_ARM64", "CONFIG_KPROBES"),
    "dmabuf": (MODEL, "CONFIG_VFIO_PCI_DMABUF"),
    "iommufd": (MODEL, "CONFIG_ARM64", "iommufd"),
}

# Kernels of campaigns on which "aer late" runs, too: it takes minutes in which
# the machine has nothing to do.
LATE = ("gcov", "kcsan", "stable-16k")

# Of the program "random": always the same ones, so that a failure repeats.
RANDOM_SEED = 1
RANDOM_OPERATIONS = {"newest": 100_000}
RANDOM_ELSEWHERE = 10_000

# Kernels on which memory is short meanwhile, and processors come and go.
RANDOM_PRESSED = ("stable",)

# The sources that programs share beside lib.c.
SOURCES = {"privilege": ("client", "search")}

# Seconds after which a machine is stuck rather than slow.
TIMEOUT = 3600


def lacks(kernel, program):
    """What a program needs and the kernel lacks."""
    def has(what):
        if what == MODEL:
            return kernel.has_model
        return kernel.has(what) if what.startswith("CONFIG_") else kernel.provides(what)
    return [what for what in NEEDS.get(program, ()) if has(what.lstrip("!")) == what.startswith("!")]


def argument(kernel, program, race):
    """A program's argument on this kernel."""
    if program == "race":
        return str(race)
    if program == "random":
        pressed = "--pressed:" if kernel.name in RANDOM_PRESSED else ""
        return f"{pressed}{RANDOM_SEED}:{RANDOM_OPERATIONS.get(kernel.name, RANDOM_ELSEWHERE)}"
    if program == "poison":
        symbols = (kernel.headers / "Module.symvers").read_text()
        return "reported" if "\tregister_pfn_address_space\t" in symbols else "ignored"
    if program == "iommufd" and not lacks(kernel, "dmabuf"):
        return "dma-bufs"
    if program == "thp" and not has_huge_pfnmap(kernel):
        return "100"    # rounds: there is only one size of entries
    return ""


def has_huge_pfnmap(kernel):
    """Whether a mapping of pfns may have huge entries."""
    return kernel.has("CONFIG_ARCH_SUPPORTS_PMD_PFNMAP")


def module_file(kernel, name):
    """A module of the kernel that machines don't have by themselves: {path in
    the guest: path here}."""
    source = kernel.module_path(name)
    out = BUILD / "guest" / kernel.release / f"{name}.ko"
    out.parent.mkdir(parents=True, exist_ok=True)
    archive.write(out, vm.decompress(source.read_bytes(), source.name))
    return {f"/tests/{name}.ko": str(out)}


def out_of_tree(kernel, source):
    """The path of the module in a folder, compiled for this kernel unless the
    cache has it."""
    def make():
        folder = BUILD / kernel.release / source.name
        shutil.copytree(source, folder, dirs_exist_ok=True)
        subprocess.run(["make", "-s", "-C", str(kernel.headers), f"M={folder}", *kernel.arch.make, "modules"], check=True,
                       stdout=subprocess.DEVNULL)
        module, = folder.glob("*.ko")
        return module.read_bytes()

    # The release of a kernel that is made here depends on its configuration.
    inputs = made_of(sorted(source.iterdir()), [kernel.release, *kernel.arch.make])
    inputs.append((kernel.headers / "Module.symvers").read_bytes())
    return str(archive.cached(f"module-{kernel.release}-{source.name}", inputs, make))


def modules_for(kernel, names):
    """The modules that programs of these names load: {path in the guest: path
    here}."""
    files = {}
    if "aer" in names:
        files.update(module_file(kernel, "aer_inject"))
        files["/tests/neighbour.ko"] = out_of_tree(kernel, HERE.parent / "testkernel" / "neighbour")
    if {"gate", "scrub", "rare"} & set(names):
        files["/tests/sleeper.ko"] = out_of_tree(kernel, HERE.parent / "testkernel" / "sleeper")
    if "dmabuf" in names or "random" in names and not lacks(kernel, "dmabuf"):
        files["/tests/importer.ko"] = out_of_tree(kernel, HERE.parent / "testkernel" / "importer")
    if "failures" in names:
        files["/tests/failing.ko"] = out_of_tree(kernel, HERE.parent / "testkernel" / "failing")
    if "random" in names and not lacks(kernel, "aer"):
        files.update(module_file(kernel, "aer_inject"))
    return files


def module_of(kernel):
    """The module under test."""
    module = BUILD / kernel.release / MODULE
    if not module.exists():
        sys.exit(f"{module} is not there: make modules for kernel {kernel.name} first")
    if kernel.has("CONFIG_KCSAN") and not kcsan.is_drawn(module):
        sys.exit(f"{module} was not compiled with the flags that tests/testkernel/kcsan.py prints")
    return module


class Guard:
    """Watches GPU memory while the model has no power. Meanwhile the memory has
    other content, so that a reader gets wrong data and a write is found here.
    Accesses to the machine's memory leave no other trace."""

    of_gpu = {}

    def __init__(self, machine, gpu, address, count):
        self.machine, self.address, self.count = machine, address, count
        self.touched = self.cycles = 0
        self.content = self.cover = None
        machine.models[gpu].gpu.on_power = self.power
        Guard.of_gpu[gpu] = self

    def power(self, on):
        if not on:
            self.content = self.machine.read_gpu_memory(self.address, self.count)
            self.cover = bytes(b ^ 0x5A for b in self.content)
            self.machine.write_gpu_memory(self.address, self.cover)
        elif self.content is not None:
            self.touched += self.machine.read_gpu_memory(self.address, self.count) != self.cover
            self.machine.write_gpu_memory(self.address, self.content)
            self.cycles += 1


def guard(machine, gpu, address, count):
    Guard(machine, gpu, int(address, 0), int(count, 0))


def guarded(machine, gpu):
    """How many power cycles there were, and in how many memory was written."""
    return f"{Guard.of_gpu[gpu].cycles} {Guard.of_gpu[gpu].touched}"


def dma_read(machine, gpu, address, count):
    return machine.models[gpu].dma_read(int(address, 0), int(count, 0)).hex()


def dma_write(machine, gpu, address, data):
    machine.models[gpu].dma_write(int(address, 0), bytes.fromhex(data))


def restore(machine):
    """Undo what an earlier program has changed of the models."""
    for server in machine.models.values():
        server.gpu.restore_reset_delays()


HANDLERS = {**content.HANDLERS, "restore": restore, "guard": guard, "guarded": guarded, "dma_read": dma_read,
            "dma_write": dma_write}


def compile_programs(names, arch=vm.ARM64, folder=HERE / "guest"):
    """Compile NAME.c of a folder, or all sources of its folder NAME, unless the
    cache has the program: {path in the guest: path here, in build/guest/ARCH}.
    """
    out = BUILD / "guest" / arch.name
    out.mkdir(parents=True, exist_ok=True)
    headers = sorted({*(HERE / "guest").glob("*.h"), *folder.glob("*.h"), *(HERE.parent / "testkernel").glob("*/*.h")})
    files = {}
    for name in names:
        parts = sorted((folder / name).glob("*.[ch]")) or [folder / f"{name}.c"]
        shared = [HERE / "guest" / f"{s}.c" for s in ("lib", *SOURCES.get(name, ()))]
        command = [arch.gcc, "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
                   f"-I{HERE / 'guest'}", f"-ffile-prefix-map={vm.PROJECT}/=",
                   *(p for p in [*parts, *shared] if p.suffix == ".c"), "-lcmocka", "-lpthread"]
        program = archive.cached(f"program-{arch.name}-{name}", made_of([*parts, *shared, *headers], command),
                                 lambda command=command: output_of(command))
        archive.write(out / name, program.read_bytes(), 0o755)
        files[f"/tests/{name}"] = str(out / name)
    return files


def made_of(sources, command):
    """What the compiler's output depends on, for archive.cached(): sources, its
    options, and the tools and libraries, which all are packages."""
    options = " ".join(str(word) for word in command).replace(str(vm.PROJECT), "")
    return [options.encode(), pathlib.Path("/var/lib/dpkg/status").read_bytes(),
            *(data for p in sources for data in (p.name.encode(), p.read_bytes()))]


def output_of(command):
    """The bytes that a compiler writes with -o."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "out")
        subprocess.run([*command, "-o", out], check=True)
        return out.read_bytes()


class Tap:
    """Counts tests by their TAP lines. A test that was planned but not reported
    has failed."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def count(self, name, lines, rc):
        planned = reported = good = skipped = 0
        for line in lines:
            if match := re.fullmatch(r"1\.\.(\d+)", line):
                planned += int(match[1])
            elif re.match(r"ok \d+.*# SKIP", line, re.I):
                skipped += 1
                reported += 1
            elif re.match(r"ok \d+", line):
                good += 1
                reported += 1
            elif re.match(r"not ok \d+", line):
                reported += 1
        bad = max(planned, reported) - good - skipped
        if reported < planned or not bad and (rc or not planned):
            print(f"not ok - {name} ended with {rc} after {reported} of {planned} tests")
            bad = max(bad, 1)
        self.passed += good
        self.failed += bad
        self.skipped += skipped

    def check(self, text, good, why=""):
        """Count a test of the caller and print its line, with the reason if it
        failed."""
        print(f"{'ok' if good else 'not ok'} - {text}" + (f": {why}" if why and not good else ""), flush=True)
        self.passed += bool(good)
        self.failed += not good


def check_races(tap, log, counters):
    """Two tests: KCSAN was on, and reports no data race in the driver.
    counters: the output of kcsan.COUNTERS."""
    print(f"# KCSAN: {', '.join(counters)}")
    tap.check("KCSAN watched accesses", kcsan.counters(counters).get("setup_watchpoints"))
    races, others = kcsan.judge(log)
    for line in sum(races, []):
        print(f"# {line}")
    for first, count in others.items():
        print(f"# elsewhere, {count} times: {first}")
    tap.check("no data race in the driver", not races, f"{len(races)}, see above")


class FirstFailure(Exception):
    """A test in the machine failed, or its kernel is in trouble."""


def trouble(mark, line, allow=()):
    """The failure that a line of a machine's log reports, as a line of TAP; or
    ""."""
    if mark == ">" and re.match(r"not ok \d", line):
        return line
    if mark == ">" and (match := re.fullmatch(r"@@RC (\S+) (\d+)", line)) and match[2] != "0":
        return f"not ok - {match[1]} ended with {match[2]}"
    if mark == "|" and vm.scan_log([line], allow):
        return f"not ok - nothing is wrong in the kernel's log: {line}"
    return ""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--timeout", type=int, default=TIMEOUT, metavar="SECONDS")
    parser.add_argument("--silence", type=int, metavar="SECONDS", help="the machine is stuck when it has said nothing for so long,"
                        " however long all takes")
    parser.add_argument("--first-failure", action="store_true", help="end with the first test that fails, or trouble in the log")
    parser.add_argument("--reversed", action="store_true", help="the last program first: none may depend on those before it")
    parser.add_argument("--race", type=int, default=60, metavar="SECONDS", help="how long the race of that name takes")
    parser.add_argument("kernel", metavar="KERNEL")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM[:ARGUMENT]")
    return parser.parse_args()


def chosen(kernel, args):
    """The programs to run, as PROGRAM[:ARGUMENT]. Prints which ones the kernel
    has no means for."""
    late = ["aer:late"] if kernel.name in LATE else []
    wanted = args.programs or [*(p for p in (*PROGRAMS, *NEEDS) if not lacks(kernel, p)), *late]
    if args.reversed:
        wanted = wanted[::-1]
    for program in [] if args.programs else NEEDS:
        if missing := lacks(kernel, program):
            print(f"# {program} is not for this kernel, which should have: {', '.join(missing)}")
    return [p if ":" in p else ":".join(filter(None, (p, argument(kernel, p, args.race)))) for p in wanted]


def files_for(kernel, names):
    """What programs of these names need: {path in the guest: path here}."""
    files = compile_programs(names, kernel.arch)
    facts = BUILD / "guest" / f"huge_pfnmap-{kernel.name}"
    archive.write(facts, b"yes\n" if has_huge_pfnmap(kernel) else b"no\n")
    files["/tests/huge_pfnmap"] = str(facts)
    files.update(modules_for(kernel, names))
    if kernel.has("CONFIG_DEBUG_KMEMLEAK"):
        files["/tests/leaks"] = str(HERE.parent / "testkernel" / "leaks")
    return files


def commands_for(kernel, programs):
    """The machine's commands, and the patterns of lines that they allow in the
    log."""
    # Programs share the GPUs, and must not depend on their order.
    commands = [{"name": p.replace(":", "-"), "run": "host restore && exec /tests/" + p.replace(":", " ")} for p in programs]
    allow = []
    if kernel.has("CONFIG_DEBUG_KMEMLEAK"):
        commands.append({"name": "leaks", "run": "sh /tests/leaks"})
        # That script judges each of them.
        allow.append(r"kmemleak: \d+ new suspected memory leaks")
    if kernel.has("CONFIG_KCSAN"):
        commands.insert(0, {"name": "kcsan", "run": kcsan.SWITCH_ON})
        commands.append({"name": "kcsan-counters", "run": kcsan.COUNTERS})
        allow += kcsan.ALLOW
    return commands, allow


def run(kernel, args, programs, commands, allow, log):
    """The machine's Result. Raises FirstFailure if args ask for that."""
    def show(mark, line):
        if args.silence:
            m.timeout = m.elapsed() + args.silence
        if args.first_failure and (failed := trouble(mark, line, allow)):
            raise FirstFailure(failed)
        if mark == ">" and not line.startswith(("@@", "TAP version")):
            print(line, flush=True)

    module = module_of(kernel)
    files = files_for(kernel, dict.fromkeys(p.split(":")[0] for p in programs))
    with vm.Machine(kernel, gpus=machine.gpus(kernel), ram=machine.ram_size(kernel), append=machine.APPEND,
                    files=files, commands=commands, module=str(module), timeout=args.silence or args.timeout, log=str(log),
                    allow=allow, handlers=HANDLERS, echo=show) as m:
        return m.run()


def count(kernel, result, commands):
    """The Tap of a whole run."""
    tap = Tap()
    for command in result.commands:
        if not command.name.startswith("kcsan"):
            tap.count(command.name, command.output, command.rc)
        print(f"# {command.name}: {command.seconds or 0:.1f} s")
    boot_ok = result.boot_seconds is not None and len(result.commands) == len(commands)
    tap.check(f"{kernel.release} boots and runs every program", boot_ok)
    # Failed commands are counted above, by test.
    rest = [f for f in result.failures if not re.match(r"command \S+ failed with", f)]
    for failure in rest:
        print(f"# {failure}")
    tap.check("nothing else is wrong, the kernel's log included", not rest)
    # Below 4 GiB there is room for some 46 BARs of 16 MiB. Without its BAR0, a
    # GPU fails tests far from the cause.
    bar0 = dict(re.findall(r"pci (\S+): BAR 0 \[mem [^]]*\]: (assigned|failed to assign)", "\n".join(result.dmesg)))
    missing = [address for address, end in bar0.items() if end != "assigned"]
    tap.check("every device has its BAR0" + "".join(f", but not {address}" for address in missing), not missing)
    if kernel.has("CONFIG_KCSAN"):
        counters = next((c.output for c in result.commands if c.name == "kcsan-counters"), [])
        check_races(tap, result.dmesg, counters)
    return tap


def main():
    args = arguments()
    # A shell starts its background jobs with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kernel = vm.Kernel(args.kernel)
    programs = chosen(kernel, args)
    commands, allow = commands_for(kernel, programs)
    log = BUILD / "log" / f"vm-{kernel.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        result = run(kernel, args, programs, commands, allow, log)
    except FirstFailure as e:
        print(f"{e}\n0 passed, 1 failed, 0 skipped")
        sys.exit(1)
    tap = count(kernel, result, commands)
    print(f"# {result.release}: boot {result.boot_seconds or 0:.1f} s, all {result.seconds:.1f} s; log: {log}")
    print(f"{tap.passed} passed, {tap.failed} failed, {tap.skipped} skipped")
    sys.exit(bool(tap.failed or result.failures))


if __name__ == "__main__":
    main()
