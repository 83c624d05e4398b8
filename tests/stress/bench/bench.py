#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""`make bench`: runs "nvgrace-gpu bench" in a virtual GH200, with this driver
and another build of it alternately.

    python3 -m stress.bench.bench [--quick] [--rounds N] [KERNEL...]

Inside the toolbox (default: oldstable, stable and newest). One boot per kernel. Each round loads the driver, binds, measures
and unbinds a GPU, and unloads the driver. BASELINE_KO in the environment is the
other module, or a folder of such files, below the project's folder. Each round
measures that module as well. A kernel without such a file is measured alone. GPUS=parts (or large, g1, g4, g16, g64) measures only
that GPU. Every other round starts with the other module, so that a machine that
slows down affects both.

Prints for each figure the minimum and median over the rounds, the ratio of the
medians (above 1: this driver is better) and the limit that docs/performance.md
states. No figure fails the run, because the machine is emulated and figures
mean something only in comparison. A run that does not measure fails. Leaves
build/bench/KERNEL.json and KERNEL.txt.

--quick runs `bench --quick`, for many short rounds. If the machine's speed
changes every half minute, they say more than a few long ones."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from cli import common
from lab import programs, vm

HERE = pathlib.Path(__file__).resolve().parent

KERNELS = ("oldstable", "stable", "newest")
OUT = vm.PROJECT / "build" / "bench"
DRIVER = "nvgrace_gpu_vfio_pci"
GiB = 1 << 30

# A small GPU with both parts, a large one, and those for what grows with size.
# 1 GiB of each is resmem.
PARTS = {"name": "parts", "size": 0xB0000000}
LARGE = {"name": "large", "size": 0x17_F000_0000}
GROWTH = [{"name": f"g{n}", "size": (n + 1) * GiB} for n in (1, 4, 16, 64)]
# Offset of the memory that all but the first share. Separate memory would take
# more pages than this computer has.
SHARED = 4 * GiB
RAM = 3 * GiB

# Figures with a goal: this driver must be so many times as good as the baseline.
LIMITS = {
    ("parts", "pread/usemem/1MiB"): 1, ("parts", "pwrite/usemem/1MiB"): 1,
    ("parts", "pread/usemem/4KiB"): 1, ("parts", "pwrite/usemem/4KiB"): 1,
    ("parts", "pread/usemem/8B"): 1, ("parts", "pread/resmem/8B"): 1,
    ("parts", "pread/resmem/1MiB"): 15, ("parts", "pwrite/resmem/1MiB"): 15,
    ("parts", "pread-tail/usemem/1MiB"): 20, ("parts", "config-read"): 1,
    ("parts", "first-touch-misaligned/usemem/256MiB"): 8, ("large", "first-touch/usemem/1.00"): 2.5,
    ("parts", "dma-map/usemem/1.00"): 1, ("large", "dma-map/usemem/1.00"): 1,
}

WARM_UP = "warm-up"

# A machine that needs longer is stuck rather than slow.
TIMEOUT_S = 3600


def measure(gpu, options):
    """A command in the machine that measures a GPU with the module $module."""
    return f"""
        insmod /bench/$module.ko && bind {gpu} {DRIVER} || exit 1
        nvgrace-gpu bench --yes --json --rounds=1 {options} $(gpu {gpu}) 2>/tmp/err
        rc=$?
        sed 's/^/err: /' /tmp/err
        unbind {gpu} && rmmod {DRIVER} && exit $rc"""


def run_after(kernel):
    """The programs of this folder that run after the measurements, with this
    driver alone. off.c needs the tracer, which the 64K kernel that is built
    here has."""
    return ("scrub", "off") if kernel.has("CONFIG_PREEMPT_TRACER") else ("scrub",)


def baseline_of(kernel):
    """The other module for this kernel, or None."""
    given = os.environ.get("BASELINE_KO")
    if not given:
        return None
    path = vm.PROJECT / given
    if not path.exists():
        sys.exit(f"bench: {path} is not there")

    def release(file):
        return subprocess.run(["modinfo", "-F", "vermagic", file], stdout=subprocess.PIPE, text=True).stdout.split(" ")[0]

    return next((file for file in (path.glob("*.ko") if path.is_dir() else [path]) if release(file) == kernel.release), None)


def run_machine(kernel, modules, plan, directory):
    """[(module, gpu, document)] of a plan [(module, gpu, options)], and the
    programs' output."""
    log = programs.log_file(f"bench-{kernel.name}")
    files = {**common.installed(kernel, directory), **common.testers(kernel, directory), **programs.compile_programs(run_after(kernel), kernel.arch, HERE),
             **{f"/bench/{name}.ko": str(path) for name, path in modules.items()}}
    steps = [{"name": f"{i}-{module}-{gpu}",
              "run": f"PATH=$PATH:/usr/sbin; module={module if module != WARM_UP else 'ours'}\n{measure(gpu, options)}"}
             for i, (module, gpu, options) in enumerate(plan)]
    steps += [{"name": name, "run": f"insmod /bench/ours.ko && /tests/{name} && rmmod {DRIVER}"} for name in run_after(kernel)]

    def show(mark, line):
        if mark == "$":
            print(f"bench: {kernel.name}: {line.partition(':')[0]} ...", file=sys.stderr, flush=True)

    wanted = {gpu for _, gpu, _ in plan} | {PARTS["name"]}
    gpus = [{**g, "base": vm.MEMORY_ADDRESS + (0 if g is PARTS else SHARED)} for g in (PARTS, LARGE, *GROWTH) if g["name"] in wanted]
    with vm.Machine(kernel, gpus=gpus, ram=RAM, files=files, commands=steps, timeout=TIMEOUT_S, log=str(log),
                    echo=show) as machine:
        result = machine.run()
    if result.failures:
        raise RuntimeError("; ".join(result.failures) + f"; the machine's console is in {log}")
    said = []
    for (module, gpu, _), command in zip(plan, result.commands):
        lines = [line for line in command.output if not line.startswith("err: ")]
        document = json.loads("\n".join(lines))
        common.validate(document)
        said.append((module, gpu, document))
    extra = [line.replace("says:", "#") for name in run_after(kernel) for line in result.command(name).output
             if line.startswith("says: ")]
    return said, extra


def collect(said):
    """{(gpu, figure): {"unit", "better", module: [medians]}}"""
    found = {}
    for module, gpu, document in said:
        if module == WARM_UP:
            continue
        for figure in document["figures"]:
            if figure["median"] is None:
                continue
            entry = found.setdefault((gpu, figure["name"]), {"unit": figure["unit"], "better": figure["better"]})
            entry.setdefault(module, []).append(figure["median"])
    return found


def summary(found):
    """[{"gpu", "figure", "unit", "better", "ours": {...}, "baseline": {...} or
    None, "ratio", "limit"}]"""
    rows = []
    for (gpu, name), entry in found.items():
        row = {"gpu": gpu, "figure": name, "unit": entry["unit"], "better": entry["better"], "baseline": None,
               "ours": None, "ratio": None, "limit": LIMITS.get((gpu, name))}
        for module in ("ours", "baseline"):
            if module in entry:
                row[module] = {"min": min(entry[module]), "median": statistics.median(entry[module])}
        if row["ours"] and row["baseline"]:
            # pylint: disable-next=unsubscriptable-object  # it sees only the None of above
            over, under = row["ours"]["median"], row["baseline"]["median"]
            if row["better"] == "lower":
                over, under = under, over
            row["ratio"] = over / under if under else None
        rows.append(row)
    return rows


def number(value, unit):
    """A figure's text."""
    if unit == "s":
        return f"{value * 1e3:.3f} ms"
    if unit == "B/s":
        return f"{value / 1e6:.0f} MB/s"
    return f"{value:.0f}" + (" a s" if unit == "1/s" else "")


def table(kernel, rows, rounds):
    """The lines that are printed."""
    lines = [f"# {kernel.release}, emulated, {rounds} round{'s' if rounds != 1 else ''}: only the ratios mean something",
             f"{'GPU and figure':46}{'baseline':>14}{'its min':>14}{'here':>14}{'min':>14}{'ratio':>8}{'limit':>7}"]
    for row in rows:
        cells = []
        for module in ("baseline", "ours"):
            value = row[module]
            cells += [number(value[k], row["unit"]) if value else "-" for k in ("median", "min")]
        ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else "-"
        limit = f"{row['limit']:g}" if row["limit"] else ""
        below = "  below its limit" if row["ratio"] and row["limit"] and row["ratio"] < row["limit"] else ""
        lines.append(f"{row['gpu'] + ' ' + row['figure']:46}" + "".join(f"{c:>14}" for c in cells) +
                     f"{ratio:>8}{limit:>7}{below}")
    return lines


def save(name, kernel, rounds, rows, said, lines):
    """Write what was measured; the path of the numbers."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    path = OUT / f"{name}.json"
    path.write_text(json.dumps({"kernel": kernel.release, "rounds": rounds, "summary": rows, "runs": said}, indent=1) + "\n", "utf-8")
    return path


def bench(kernel, rounds, quick, smoke):
    """Measure on one kernel and print. Whether everything was measured."""
    modules = {"ours": programs.module_of(kernel)}
    other = baseline_of(kernel)
    if other:
        modules["baseline"] = other
    # The first run makes the host allocate the memory's pages. It does not
    # count.
    plan = [] if smoke else [(WARM_UP, "parts", ""), (WARM_UP, "large", "")]
    options = "--quick" if quick else ""
    for n in range(rounds):
        for module in list(modules)[::-1 if n % 2 else 1]:
            plan.append((module, "parts", options))
            if not smoke:
                plan.append((module, "large", options))
    if not smoke:
        plan += [("ours", g["name"], "") for g in GROWTH]
    only = os.environ.get("GPUS", "").split()
    plan = [p for p in plan if not only or p[1] in only]
    with tempfile.TemporaryDirectory() as directory:
        said, extra = run_machine(kernel, modules, plan, directory)
    rows = summary(collect(said))
    lines = table(kernel, rows, rounds) + extra
    made = save(kernel.name, kernel, rounds, rows, said, lines)
    print("\n".join(lines))
    print(f"# {made.relative_to(vm.PROJECT)}")
    there = {(r["gpu"], r["figure"]) for r in rows if r["ours"]}
    # The tool's reasons for what this kernel can't do.
    reasons = {(gpu, f["name"]): f["reason"] for _, gpu, document in said for f in document["figures"] if f.get("reason")}
    for gpu, figure in sorted(reasons.keys() & LIMITS.keys()):
        print(f"# {gpu} {figure}: {reasons[gpu, figure]}")
    there |= reasons.keys()
    # A quick run touches only a part of the memory.
    missing = [f"{gpu} {figure}" for gpu, figure in LIMITS if gpu in {p[1] for p in plan} and (gpu, figure) not in there
               and not (quick and figure.endswith("/1.00"))]
    for m in missing:
        print(f"not ok - {kernel.name}: {m} was not measured")
    return not missing


def main():
    """Measure on all kernels that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", default=KERNELS)
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("there must be a round")
    sys.exit(not all([bench(vm.Kernel(name), args.rounds, args.quick, False) for name in args.kernels]))


if __name__ == "__main__":
    main()
