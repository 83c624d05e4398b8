# SPDX-License-Identifier: GPL-2.0-only
"""The commands of docs/tracing.md, exactly as written there. Each runs while the
test programs "mmap" and "reset" use a GPU, and an interrupt ends it, as a person
would. It must have printed what the documentation promises."""

import pathlib
import re
import shlex

import pytest

from lab import machine, packages, programs, session, vm

pytestmark = pytest.mark.needs("root tracers")

PAGE = vm.PROJECT / "docs" / "tracing.md"
HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = ("mmap", "reset")
TOOLS = ("trace-cmd", "bpftrace", "perf")

# Commands of the page, and patterns that their output must match, in any order. A
# "report" reads the file of the command before it.
EXAMPLES = {
    "record": (["trace-cmd record -e nvgrace_gpu -o guest.dat", "trace-cmd report -i guest.dat"], [
        r"nvgrace_gpu_wait: .* when=bind result=0 ns=\d+",
        r"nvgrace_gpu_reset: .* cause=open",
        r"nvgrace_gpu_reset: .* cause=reset",
        r"nvgrace_gpu_mmap: .* bar=4 offset=(0x)?0 size=0x[0-9a-f]+ result=0",
        r"nvgrace_gpu_fault: .* order=9 result=NOPAGE ns=\d+",
    ]),
    "faults": (["bpftrace -e 'tracepoint:nvgrace_gpu:nvgrace_gpu_fault /args.result == 256/ { @ns[args.order] = hist(args.ns); }'"],
               [r"@ns\[0\]:", r"@ns\[9\]:", r"\[\d+K?M?, \d+K?M?\) +\d+ \|"]),
    "waits": (["perf trace --no-syscalls -e nvgrace_gpu:nvgrace_gpu_reset,nvgrace_gpu:nvgrace_gpu_wait"],
              [r"nvgrace_gpu:nvgrace_gpu_reset\(.*cause", r"nvgrace_gpu:nvgrace_gpu_wait\(.*ns: \d+"]),
    # Nothing that was not refused.
    "refused": (["trace-cmd record -e nvgrace_gpu:nvgrace_gpu_mmap -f 'result < 0' -o refused.dat", "trace-cmd report -i refused.dat"],
                [r"nvgrace_gpu_mmap: .* result=-22", r"\A(?!(.|\n)*nvgrace_gpu_mmap: .* result=0)"]),
}

# $1 is the command, $HAS what the programs may use. The GPU is used until the tool
# has surely seen a whole use, however long it takes to listen. trace-cmd enables
# its events while tracing is off, and the kernel shows both. perf prints events
# as they come. bpftrace prints nothing before its end, but the kernel counts how
# often its program has run, which may begin in the middle of a use.
SCRIPT = r"""
export LD_LIBRARY_PATH=/tools/lib PATH=$PATH:/tools/bin HOME=/tmp
cd /tmp
[ "${1#*report}" = "$1" ] || exec $1
echo 1 >/proc/sys/kernel/bpf_stats_enabled
out=/tmp/out
sh -c "exec $1" >$out 2>&1 &
tool=$!
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
	until grep -q Attach $out; do alive; usleep 100000; done
	until grep -qs "^run_cnt:.*[1-9]" /proc/$tool/fdinfo/*; do alive; use; done
	use
	;;
trace-cmd*)
	until grep -q 1 /sys/kernel/tracing/events/nvgrace_gpu/nvgrace_gpu_mmap/enable &&
	      grep -q 1 /sys/kernel/tracing/tracing_on; do alive; usleep 100000; done
	use
	;;
*)
	until ls -l /proc/$tool/fd 2>/dev/null | grep -q perf_event; do alive; usleep 100000; done
	until grep -q nvgrace_gpu_wait $out && grep -q nvgrace_gpu_reset $out; do alive; use; done
	;;
esac
kill -INT $tool
wait $tool
cat $out
"""


@pytest.fixture(scope="module")
def host(kernel, tmp_path_factory):
    """The machine of the test programs, with the tools."""
    kernel = vm.Kernel(kernel)
    script = tmp_path_factory.mktemp("tracers") / "beside"
    script.write_text(SCRIPT)
    files = {**programs.compile_programs(PROGRAMS, kernel.arch), **packages.programs(packages.root("tracers"), TOOLS),
             "/tools/beside": str(script)}
    made = session.Interactive(kernel, gpus=machine.gpus(kernel), ram="3G", files=files,
                               module=str(programs.module_of(kernel)), log=str(programs.log_file(f"tracers-{kernel.name}")))
    yield made
    assert not [f for f in made.end().failures if not re.match(r"command \S+ failed with", f)]


def test_the_page_has_these_commands():
    """The lines of its code blocks."""
    assert re.findall(r"^    (\S.*)$", PAGE.read_text(), re.M) == [c for commands, _ in EXAMPLES.values() for c in commands]


@pytest.mark.vm
@pytest.mark.kernels("newest")
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in ("record", "faults", "waits") else []) for name in EXAMPLES])
def test_example(host, kernel, name):
    commands, patterns = EXAMPLES[name]
    has = " ".join(set().union(*(session.words_of(vm.Kernel(kernel), HERE / f"{program}.c") for program in PROGRAMS)))
    for i, command in enumerate(commands):
        said = "\n".join(host.run(f"{name}-{i}", f"HAS='{has}' sh /tools/beside {shlex.quote(command)}").output)
        assert "it never listened" not in said
    for pattern in patterns:
        assert re.search(pattern, said), said
