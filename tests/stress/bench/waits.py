#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""`make bench-waits`: measures what the user of a guest waits for, with this
driver and another build of it alternately.

    python3 -m stress.bench.waits [--rounds N]

Inside the toolbox. Boots a host of tests/guests once, with the kernel newest.
Each run loads the driver, binds a GPU, opens and reads it, starts QEMU with a
guest that accesses all of usemem, reboots and does so again, and opens and
reads the GPU after QEMU's end. All times are those of the host's kernel, from
one trace: marks of the programs below, KVM's first entry into the guest, the
system calls for vfio, and this driver's tracepoints.

There are two GPUs: "parts" is small and always ready, and the guest reads each
page. "large" has 32 GiB and is ready 2.5 s after a bind or a reset, and the
guest reads a word in each 2 MiB. A third kind of run, "scrub", has this
driver's parameter scrub on.

BASELINE_KO and what is printed are as in bench.py. The files are
build/bench/waits.json and waits.txt."""

import argparse
import json
import pathlib
import re
import sys
import tempfile

from guests import shared
from lab import archive, programs, vm
from stress.bench import bench

HERE = pathlib.Path(__file__).resolve().parent
CPU = "max"
MiB = 1 << 20
# A run that needs longer is stuck rather than slow.
RUN_S = 900

GPUS = {"parts": shared.Gpu("parts", shared.MEMORY, 0xB000_0000),
        "large": shared.Gpu("large", shared.MEMORY + bench.SHARED, 0x8_5000_0000, ready_after_reset_ms=2500)}
# Bytes from one word that the guest reads to the next.
STEP = {"parts": 4096, "large": 2 * MiB}

# The guest's init. The host waits for these words, and for QEMU's end.
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo up
insmod /gpumem.ko && cd /sys/bus/pci/drivers/gpumem/0* &&
echo 8 8 >touch && echo first &&
echo {length} {step} >touch && echo all &&
read -r what || what=poweroff
exec $what -f
"""

# Where QEMU puts the first instruction of a guest that has a kernel and no
# firmware. KVM enters there at each start.
ENTRY = 0x4000_0000

# ioctl numbers of vfio. A hot reset has the number of MAP_DMA, but this GPU has
# better resets.
CALLS = {0x3B6A: "open", 0x3B6F: "reset", 0x3B71: "map", 0x3B72: "unmap"}

# Lines of the log stay off the console, as on hosts that boot with "quiet": an
# emulated serial port takes longer for a line than the driver for a bind.
TRACE = f"""
    echo 4 >/proc/sys/kernel/printk
    cd /sys/kernel/tracing
    echo mono >trace_clock && echo 16384 >buffer_size_kb
    echo 'vcpu_pc == {ENTRY}' >events/kvm/kvm_entry/filter
    echo '{" || ".join(f"cmd == {number}" for number in CALLS)}' >events/syscalls/sys_enter_ioctl/filter
    echo 'comm == "qemu-system-aar"' >events/syscalls/sys_enter_exit_group/filter
    for event in kvm/kvm_entry syscalls/sys_enter_ioctl syscalls/sys_exit_ioctl syscalls/sys_enter_exit_group; do
        echo 1 >events/$event/enable || exit 1
    done"""

RUN = f"""
    cd /sys/kernel/tracing
    mark() {{
        echo "$*" >trace_marker
    }}
    insmod /bench/$module.ko $parameters || exit 1
    [ ! -e events/nvgrace_gpu ] || for event in wait fault; do
        echo 1 >events/nvgrace_gpu/nvgrace_gpu_$event/enable
    done
    pci=$(gpu $gpu)
    echo {bench.DRIVER} >/sys/bus/pci/devices/$pci/driver_override
    # An emulator translates code when it first runs: more than a bind takes.
    echo $pci >/sys/bus/pci/drivers_probe
    echo $pci >/sys/bus/pci/drivers/{bench.DRIVER}/unbind
    echo >trace
    host ready $gpu $late && echo "counters: $(host counters $gpu)" || exit 1
    mark bind
    echo $pci >/sys/bus/pci/drivers_probe
    mark bound
    echo "counters: $(host counters $gpu)"
    mark use
    /tests/reopen $gpu || exit 1
    [ -e /tmp/answers ] || mkfifo /tmp/answers
    mark start
    /tests/reopen $gpu /guest/bin/qemu $options <>/tmp/answers 2>&1 | while read -r line; do
        line=${{line%?}}
        case $line in up | first | all) mark "$line" ;; esac
        echo "$line"
        [ "$line" = all ] || continue
        if [ -e /tmp/rebooted ]; then
            echo poweroff
        else
            mark restart
            echo reboot
            >/tmp/rebooted
        fi >/tmp/answers
    done
    rm /tmp/rebooted
    # Before the module goes, which empties the trace. Of the ends of system
    # calls, only those whose begin is there.
    awk '{{ match($0, /-[0-9]+ +\\[/); task = substr($0, RSTART, RLENGTH) }}
        /sys_ioctl\\(/ {{ calls[task] = 1 }}
        /sys_ioctl ->/ {{ if (!calls[task]) next; calls[task] = 0 }}
        /^[^#]/ {{ print "trace: " $0 }}' trace
    unbind $gpu && rmmod {bench.DRIVER}"""

LINE = re.compile(r"trace: .+-(\d+) +\[\d+\] +\S+ +(\d+\.\d+): (.*)")

# The marks of a run, in order; "entry" and "exit" are the kernel's.
MARKS = ("bind", "bound", "use", "opened", "read", "start", "entry", "up", "first", "all", "restart", "entry", "up", "first",
         "all", "exit", "ended", "opened", "read")

# What is measured: its name, and its first and last mark, with the number of
# the mark if there are several.
SPANS = (
    ("bind", "bind", "bound"),
    ("use after bind", "use", "read"),
    ("QEMU to guest", "start", "entry"),
    ("guest's kernel", "entry", "up"),
    ("driver to access", "up", "first"),
    ("access to all", "first", "all"),
    ("reboot to guest", "restart", "entry2"),
    ("driver to access again", "up2", "first2"),
    ("QEMU's end", "exit", "ended"),
    ("use after end", "ended", "read2"),
)
# Of these, the parts are in SPANS.
TOTALS = (
    ("QEMU to access to all", "start", "all"),
    ("reboot to access", "restart", "first2"),
    ("end to use", "exit", "read2"),
)


def read_trace(lines):
    """({mark: seconds}, [(part, begin, seconds)]) of a run's output. Raises
    RuntimeError if one of MARKS is missing."""
    marks, order, parts, calls = {}, [], [], {}
    for pid, seconds, text in (m.groups() for m in map(LINE.match, lines) if m):
        now = float(seconds)
        mark = None
        if text.startswith("tracing_mark_write: "):
            mark = text.split(": ", 1)[1].strip()
        elif text.startswith("kvm_entry") and order[-1:] != ["entry"]:
            mark = "entry"
        elif text.startswith("sys_exit_group"):
            mark = "exit"
        elif found := re.match(r"sys_ioctl\(.*cmd: (?:0x)?([0-9a-f]+)", text):
            calls[pid] = CALLS[int(found[1], 16)], now
        elif text.startswith("sys_ioctl ->") and pid in calls:
            part, begin = calls.pop(pid)
            parts.append((part, begin, now - begin))
        elif found := re.match(r"nvgrace_gpu_(wait|fault): .*\bns=(\d+)", text):
            length = int(found[2]) / 1e9
            parts.append((found[1], now - length, length))
        if mark:
            order.append(mark)
            again = order.count(mark)
            marks[mark + (str(again) if again > 1 else "")] = now
    if tuple(order) != MARKS:
        raise RuntimeError(f"the run's marks are {' '.join(order)}")
    return marks, parts


def figures(lines):
    """The document of a run, as those of bench.py."""
    marks, parts = read_trace(lines)
    found = {name: marks[last] - marks[first] for name, first, last in TOTALS}
    for name, first, last in SPANS:
        begin, end = marks[first], marks[last]
        found[name] = end - begin
        for part, at, length in parts:
            if begin <= at < end:
                found[f"{name}: {part}"] = found.get(f"{name}: {part}", 0) + length
    document = [{"name": name, "unit": "s", "better": "lower", "median": seconds} for name, seconds in found.items()]
    # Each takes longer in the model than in hardware.
    before, after = (json.loads(line.split(": ", 1)[1])["config_reads"] for line in lines if line.startswith("counters: "))
    document.append({"name": "bind: reads of config space", "unit": "", "better": "lower", "median": after - before})
    return {"figures": document}


def files_for(modules, directory):
    """{path in the host: path here}."""
    files = {**shared.files(), **programs.compile_programs(["reopen"], vm.ARM64, HERE),
             **{f"/bench/{name}.ko": str(path) for name, path in modules.items()}}
    base = pathlib.Path(files.pop("/guest/base")).read_bytes()
    for gpu in GPUS.values():
        init = archive.Cpio()
        init.file("/init", INIT.format(length=gpu.usemem, step=STEP[gpu.name]), 0o755)
        init.tree("/gpumem.ko", shared.driver())
        path = pathlib.Path(directory, gpu.name)
        path.write_bytes(base + init.finish())
        files[f"/guest/{gpu.name}.initrd"] = str(path)
    return files


def command(gpu, module):
    """A run's command in the host."""
    late = GPUS[gpu].more.get("ready_after_reset_ms", 0)
    options = f"""{shared.qemu_options([gpu])} -nodefaults -no-user-config -display none -serial stdio -kernel /guest/kernel \
-initrd /guest/{gpu}.initrd -append "console=ttyAMA0 loglevel=5 watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 rdinit=/init" """
    return "\n".join([f"gpu={gpu} late={late} module={'baseline' if module == 'baseline' else 'ours'}",
                      f"parameters={'scrub=Y' if module == 'scrub' else ''}", RUN.replace("$options", options)])


def measure(kernel, rounds, smoke):
    """Measure on one kernel and print."""
    modules = {"ours": programs.module_of(kernel)}
    if other := bench.baseline_of(kernel):
        modules["baseline"] = other
    # The first run of each GPU makes the host allocate the memory's pages.
    plan = [] if smoke else [(bench.WARM_UP, gpu) for gpu in GPUS]
    for n in range(rounds):
        turn = list(modules)[::-1 if n % 2 else 1]
        plan += [(module, gpu) for gpu in (["parts"] if smoke else GPUS) for module in turn]
        plan += [] if smoke else [("scrub", "parts")]

    def show(mark, line):
        if mark == "$":
            print(f"waits: {line.partition(':')[0]} ...", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as directory:
        steps = [{"name": "trace", "run": TRACE},
                 *({"name": f"{i}-{module}-{gpu}", "run": command(gpu, module)} for i, (module, gpu) in enumerate(plan))]
        log = programs.log_file(f"waits-{kernel.name}")
        with vm.Machine(kernel, gpus=[g.config() for g in GPUS.values()], ram=shared.RAM, hypervisor=CPU, commands=steps,
                        files=files_for(modules, directory), timeout=RUN_S * len(steps), log=str(log), echo=show) as machine:
            result = machine.run()
    if result.failures:
        raise RuntimeError("; ".join(result.failures) + f"; the machine's console is in {log}")
    said = [(("ours", f"{gpu}, scrub") if module == "scrub" else (module, gpu)) + (figures(done.output),)
            for (module, gpu), done in zip(plan, result.commands[1:])]
    rows = bench.summary(bench.collect(said))
    lines = bench.table(kernel, rows, rounds)
    made = bench.save("waits", kernel, rounds, rows, said, lines)
    print("\n".join(lines))
    print(f"# {made.relative_to(vm.PROJECT)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("there must be a round")
    measure(vm.Kernel("newest"), args.rounds, smoke=False)


if __name__ == "__main__":
    main()
