#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs the commands of docs/tracing.md, exactly as written there, beside a
client of a GPU.

    tracers.py [KERNEL]

Inside the toolbox, after `make modules` for that kernel, and after
`scripts/dev/toolbox root tracers` outside, which has the tools. Each command runs
while the test programs "mmap" and "reset" use a GPU. An interrupt ends it, as a
person would. It must have printed what the documentation promises. A command on
the page without an expectation here fails, and so does an expectation without
its command. The last line is the sum."""

import argparse
import pathlib
import re
import sys

import machine
import packages
import suite
import vm

PAGE = vm.PROJECT / "docs" / "tracing.md"
TOOLS = ("trace-cmd", "bpftrace", "perf")

# Patterns that each command's output must match, in any order. A command that
# ends by itself reads the file of the one before it.
EXPECTED = {
    "trace-cmd record -e nvgrace_gpu -o guest.dat": [],
    "trace-cmd report -i guest.dat": [
        r"nvgrace_gpu_wait: .* when=bind result=0 ns=\d+",
        r"nvgrace_gpu_reset: .* cause=open",
        r"nvgrace_gpu_reset: .* cause=reset",
        r"nvgrace_gpu_mmap: .* bar=4 offset=(0x)?0 size=0x[0-9a-f]+ result=0",
        r"nvgrace_gpu_fault: .* order=9 result=NOPAGE ns=\d+",
        r"nvgrace_gpu_rw: .* bar=4 read offset=0x[0-9a-f]+ count=\d+ result=\d+ ns=\d+",
        r"nvgrace_gpu_config: .* write offset=0x2[04] count=\d+ result=\d+",
    ],
    "bpftrace -e 'tracepoint:nvgrace_gpu:nvgrace_gpu_fault /args.result == 256/ { @ns[args.order] = hist(args.ns); }'": [
        r"@ns\[0\]:", r"@ns\[9\]:", r"\[\d+K?M?, \d+K?M?\) +\d+ \|",
    ],
    "perf trace --no-syscalls -e nvgrace_gpu:nvgrace_gpu_reset,nvgrace_gpu:nvgrace_gpu_wait": [
        r"nvgrace_gpu:nvgrace_gpu_reset\(.*cause", r"nvgrace_gpu:nvgrace_gpu_wait\(.*ns: \d+",
    ],
    "bpftrace -e 'tracepoint:nvgrace_gpu:nvgrace_gpu_rw /args.result > 0/ { @bytes[comm, args.write] = sum(args.result); }'": [
        r"@bytes\[reset, 0\]: \d+", r"@bytes\[reset, 1\]: \d+",
    ],
    "trace-cmd record -e nvgrace_gpu:nvgrace_gpu_mmap -f 'result < 0' -o refused.dat": [],
    "trace-cmd report -i refused.dat": [
        r"nvgrace_gpu_mmap: .* result=-22",
    ],
}
# Patterns that the output must not match.
FORBIDDEN = {"trace-cmd report -i refused.dat": r"nvgrace_gpu_mmap: .* result=0"}

# $1 is the command, $2 the file for its output. The GPU is used until the tool
# has surely seen a whole use, however long it takes to listen. trace-cmd enables
# its events while tracing is off, and the kernel shows both. perf prints events
# as they come. bpftrace prints nothing before its end, but the kernel counts how
# often its program has run, which may begin in the middle of a use.
SCRIPT = r"""
export LD_LIBRARY_PATH=/tools/lib PATH=$PATH:/tools/bin HOME=/tmp
cd /tmp
echo 1 >/proc/sys/kernel/bpf_stats_enabled
sh -c "exec $1" >$2 2>&1 &
tool=$! out=$2
alive() {
	kill -0 $tool && return
	echo "it never listened"
	cat $out
	exit 1
}
use() {
	/tests/mmap >/dev/null 2>&1; /tests/reset >/dev/null 2>&1
}
case $1 in
bpftrace*)
	until grep -q Attach $2; do alive; usleep 100000; done
	until grep -qs "^run_cnt:.*[1-9]" /proc/$tool/fdinfo/*; do alive; /tests/mmap >/dev/null 2>&1; done
	use
	;;
trace-cmd*)
	until grep -q 1 /sys/kernel/tracing/events/nvgrace_gpu/nvgrace_gpu_mmap/enable &&
	      grep -q 1 /sys/kernel/tracing/tracing_on; do alive; usleep 100000; done
	use
	;;
*)
	until ls -l /proc/$tool/fd 2>/dev/null | grep -q perf_event; do alive; usleep 100000; done
	until grep -q nvgrace_gpu_wait $2 && grep -q nvgrace_gpu_reset $2; do alive; use; done
	;;
esac
kill -INT $tool
wait $tool
cat $2
"""


def commands(page):
    """The lines of the page's code blocks."""
    return re.findall(r"^    (\S.*)$", page, re.M)


def run_page(kernel):
    module = suite.BUILD / kernel.release / suite.MODULE
    listed = commands(PAGE.read_text())
    results = [(f"\"{c}\" is documented", c in listed) for c in EXPECTED if c not in listed]
    results += [(f"\"{c}\" has an expectation", False) for c in listed if c not in EXPECTED]
    steps = []
    for i, command in enumerate(listed):
        if "report" in command:
            run = ("export LD_LIBRARY_PATH=/tools/lib PATH=$PATH:/tools/bin HOME=/tmp; cd /tmp; " + command)
        else:
            run = "sh /tools/beside '" + command.replace("'", "'\\''") + f"' /tmp/out{i}"
        steps.append({"name": f"c{i}", "run": run})

    log = suite.BUILD / "log" / f"tracers-{kernel.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    files = {**suite.compile_programs(["mmap", "reset"], kernel.arch), **packages.programs(packages.root("tracers"), TOOLS)}
    for guest, text in {"/tools/beside": SCRIPT, "/tests/huge_pfnmap": "yes\n"}.items():
        file = suite.BUILD / "guest" / f"tracers-{pathlib.Path(guest).name}"
        file.write_text(text)
        files[guest] = str(file)
    with vm.Machine(kernel, gpus=machine.gpus(kernel), ram="3G", append=machine.APPEND, files=files, commands=steps,
                    module=str(module), timeout=1800, log=str(log)) as m:
        result = m.run()
    for i, command in enumerate(listed):
        said = next(("\n".join(c.output) for c in result.commands if c.name == f"c{i}"), "it never ran")
        lacking = [p for p in EXPECTED.get(command, []) if not re.search(p, said)]
        if command in FORBIDDEN and re.search(FORBIDDEN[command], said):
            lacking.append(f"(nothing like) {FORBIDDEN[command]}")
        if "it never" in said:
            lacking.append("a start")
        results.append((command, not lacking))
        if lacking:
            print(f"# {command}: lacks {lacking} in\n" + "\n".join("#   " + x for x in said.splitlines()[-60:]))
    rest = [f for f in result.failures if not re.match(r"command \S+ failed with", f)]
    for failure in rest:
        print(f"# {failure}")
    results.append(("nothing else is wrong, the kernel's log included", not rest))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("kernel", metavar="KERNEL", nargs="?", default="newest")
    args = parser.parse_args()
    results = run_page(vm.Kernel(args.kernel))
    for name, good in results:
        print(f"{'ok' if good else 'not ok'} - {name}")
    failed = sum(not good for _, good in results)
    print(f"{len(results) - failed} passed, {failed} failed, 0 skipped")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
