# SPDX-License-Identifier: GPL-2.0-only
"""Scrubs of a GPU as large as real ones, of one with a cache that a reset drops, and
while the machine is switched off. Each has a machine of its own. scrub.c has all
other tests."""

import os
import random
import subprocess
import tempfile
import threading

import pytest

from lab import gpu_memory, programs, vm

pytestmark = pytest.mark.kernels("newest")

GiB = 1 << 30
BASE = 0x80_0000_0000
DRIVER = "nvgrace_gpu_vfio_pci"

BIND = f"bind g {DRIVER} || exit 1"
STATE = "cat /sys/bus/pci/devices/$(gpu g)/nvgrace_gpu/scrub_state"
WAIT = f"until [ $({STATE}) != scrubbing ]; do usleep 100000; done; {STATE}"


class Machine(vm.Machine):
    """A machine with huge pages for the GPU's memory, if the kernel has them.
    Without them, it takes twice as long to write all of it."""

    def _open_memory(self):
        with tempfile.TemporaryDirectory() as place:
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", "huge=always,size=100%", "memory", place], capture_output=True)
            if done.returncode:
                return super()._open_memory()
            # The file system exists for as long as the file does.
            fd = os.open(place, os.O_RDWR | os.O_TMPFILE)
            subprocess.run(["umount", "--lazy", place], check=True)
            return fd


def run(kernel, gpus, commands, handlers, timeout, memory="256G", append=""):
    """Boot with these GPUs and the module parameter on, and run commands, with which
    nothing may be wrong in the machine. Unless there is another memory, the first
    GPU's is at BASE."""
    kernel = vm.Kernel(kernel)
    with Machine(kernel, gpus=gpus, memory=memory, module=str(programs.module_of(kernel)), module_params="scrub=1", append=append,
                 handlers={**gpu_memory.HANDLERS, **handlers}, commands=commands, timeout=timeout,
                 log=str(programs.log_file(f"scrub-{kernel.name}"))) as machine:
        result = machine.run()
    assert not result.failures
    return result


def gpu(size):
    return [{"name": "g", "base": BASE, "size": size}]


class Kept:
    """The memory that a machine leaves: the part of a machine that
    gpu_memory.remains() uses."""

    def __init__(self):
        self.fd = None

    def keep(self, machine):
        self.fd = os.dup(machine.memory_fd)

    def read_gpu_memory(self, address, count):
        return os.pread(self.fd, count, address - BASE)

    def remains(self, base, size):
        return gpu_memory.remains(self, hex(base), hex(size))


@pytest.mark.long
def test_switching_off_waits_for_a_scrub(kernel):
    size = 3 * GiB
    kept = Kept()
    # After a pause of the shell, the scrub has ended before the machine is
    # switched off. Then another machine tries.
    for _ in range(4):
        result = run(kernel, gpu(size), [{"name": "begin", "run": f"host soil {BASE:#x} {size:#x}; host keep; {BIND}"},
                                         {"name": "state", "run": STATE}], {"keep": kept.keep}, timeout=1200)
        if result.output("state").strip() != "clean":
            break
        os.close(kept.fd)
    assert result.output("state").strip() == "scrubbing"
    assert kept.remains(BASE, size) == "0"
    os.close(kept.fd)


# Bound without the parameter, so that a shutdown finds the GPUs dirty.
QUIETLY = f"echo 0 >/sys/module/{DRIVER}/parameters/scrub"
SCRUBS = f"echo 1 >/sys/module/{DRIVER}/parameters/scrub"


def test_at_shutdown_gpus_are_scrubbed_side_by_side(kernel):
    """The scrub of the second GPU begins before that of the first has ended."""
    size, second = 3 * GiB, BASE + 4 * GiB
    gpus = [{"name": "g", "base": BASE, "size": size}, {"name": "h", "base": second, "size": size}]
    kept = Kept()
    bind = "; ".join(f"bind {name} {DRIVER} || exit 1" for name in "gh")
    begin = f"{QUIETLY}; host soil {BASE:#x} {size:#x}; host soil {second:#x} {size:#x}; host keep; {bind}; {SCRUBS}"
    left = []

    def keep(machine):
        # A scrub begins with a reset, and writes the end of each part last.
        kept.keep(machine)
        machine.models["h"].gpu.on_reset = lambda: left.append(any(kept.read_gpu_memory(BASE + size - 4096, 4096)))

    run(kernel, gpus, [{"name": "begin", "run": begin}], {"keep": keep}, timeout=1200)
    assert [kept.remains(base, size) for base in (BASE, second)] == ["0", "0"]
    os.close(kept.fd)
    assert left[:1] == [True]


@pytest.mark.long
def test_a_shutdown_during_a_bind_leaves_what_is_bound_clean(kernel):
    """A GPU that is not ready yet is being bound, which takes until its wait
    fails. It has no user's data, and its memory must not be written."""
    size, soiled, second = 2 * GiB, 16 << 20, BASE + 4 * GiB
    gpus = [{"name": "g", "base": BASE, "size": size},
            {"name": "h", "base": second, "size": size, "model": {"ready_after_ms": None}}]
    kept = Kept()
    begin = (f"{QUIETLY}; host soil {BASE:#x} {size:#x}; host soil {second:#x} {soiled:#x}; host keep; {BIND}; {SCRUBS}; "
             f"(bind h {DRIVER} &) && until grep -q \"$(gpu h) usemem\" /proc/iomem; do usleep 10000; done")
    run(kernel, gpus, [{"name": "begin", "run": begin}], {"keep": kept.keep}, timeout=1200)
    assert kept.remains(BASE, size) == "0"
    assert kept.remains(second, soiled) != "0"
    os.close(kept.fd)
    log = programs.log_file(f"scrub-{kernel}").read_text(errors="replace")
    assert log.count("overwriting the last") == 1


def test_a_crash_kernel_leaves_the_memory_alone(kernel):
    """It says so on its command line. Nothing is scrubbed, and shutdown waits for
    nothing."""
    size = 3 * GiB
    kept = Kept()
    demand = f"echo 1 >/sys/bus/pci/devices/$(gpu g)/nvgrace_gpu/scrub || echo refused; {STATE}"
    result = run(kernel, gpu(size), [{"name": "begin", "run": f"host soil {BASE:#x} {size:#x}; host keep; {BIND}; {STATE}"},
                                     {"name": "demand", "run": demand}], {"keep": kept.keep}, timeout=1200,
                 # The kernel takes any address for the place of the old one's headers.
                 append="elfcorehdr=0x50000000")
    assert result.output("begin").strip() == "off"
    assert result.output("demand").split()[-2:] == ["refused", "off"]
    gpu_memory.is_soiled(kept, hex(BASE), hex(size))
    os.close(kept.fd)
    log = programs.log_file(f"scrub-{kernel}").read_text(errors="replace")
    assert "Power down" in log
    assert "scrub:" not in log
    assert "cleared" not in log


class Drain(threading.Thread):
    """Frees the host's memory for the zeros that a machine writes, except in
    blocks with content to check. No computer here has as much memory as the
    GPU."""

    BLOCK = 2 << 20

    def __init__(self, machine, size, kept):
        super().__init__(daemon=True)
        self.machine, self.ended = machine, threading.Event()
        edges = sorted({at // self.BLOCK for at in kept})
        self.ranges = []
        start = 0
        for block in (*edges, size // self.BLOCK):
            if block > start:
                self.ranges.append((start * self.BLOCK, (block - start) * self.BLOCK))
            start = block + 1

    def run(self):
        while not self.ended.wait(0.1):
            for start, count in self.ranges:
                gpu_memory.free(self.machine, BASE + start, count)


# As large as 32 bits can't count, and as large as real ones.
@pytest.mark.parametrize("size", [pytest.param(9 * GiB, id="9"), pytest.param(65 * GiB, marks=pytest.mark.long, id="65")])
def test_large_memory_ends_clean(kernel, size):
    """Some 200 pages have content: at both ends, on both sides of the border
    between the parts, and anywhere."""
    page = gpu_memory.PAGE
    chance = random.Random(64)
    places = {0, size - page, size - GiB, size - GiB - page, *(chance.randrange(size // page) * page for _ in range(200))}
    drains = []

    def fill(machine):
        for place in places:
            gpu_memory.soil(machine, hex(BASE + place), hex(page))
        drains.append(Drain(machine, size, places))
        drains[0].start()

    def left(machine):
        drains[0].ended.set()
        drains[0].join()
        return " ".join(hex(p) for p in sorted(places) if machine.read_gpu_memory(BASE + p, page) != bytes(page)) or "none"

    begin = f"host fill; {BIND}"
    wait = f"{WAIT}; host left"
    result = run(kernel, gpu(size), [{"name": "begin", "run": begin}, {"name": "end", "run": wait}],
                 {"fill": fill, "left": left}, timeout=3600)
    assert result.output("end").split() == ["clean", "none"]


# Of the GPU with a cache. QEMU asks the model for each byte.
SMALL, CACHE = 64 << 10, 16 << 10


@pytest.mark.long
def test_a_gpu_with_a_cache_ends_clean(kernel):
    """A write-back cache in the GPU keeps what was written last, and a reset
    drops it. Another device's BAR is the memory behind that cache, because the
    model can't see what the machine writes to QEMU's memory. So each scrub
    writes more than the cache holds, and what it holds at the end covers zeros.
    """
    def fill(machine):
        memory = machine.models["memory"].gpu
        memory.bar2[:SMALL] = gpu_memory.soil_of(BASE, SMALL)
        machine.models["g"].gpu.on_reset = lambda: dropped.append(memory.drop_cache())

    def left(machine):
        return str(SMALL - machine.models["memory"].gpu.bar2[:SMALL].count(0))

    dropped = []
    # Larger than all other BARs, so it is where the firmware puts the first.
    gpus = [{"name": "g", "base": BASE, "size": SMALL, "model": {"mig_dvsec": 1}},
            {"name": "memory", "dsd": None, "model": {"vendor": 0x1af4, "bar2_size": GiB, "bar2_cache": CACHE}}]
    result = run(kernel, gpus, [
        {"name": "place", "run": "d=/sys/bus/pci/devices/$(gpu memory) && echo 1 >$d/enable && sed -n 3p $d/resource"},
        {"name": "begin", "run": f"host fill; {BIND}"},
        {"name": "end", "run": WAIT},
        {"name": "reset", "run": "host left; echo 1 >/sys/bus/pci/devices/$(gpu g)/reset; host left"}],
        {"fill": fill, "left": left}, timeout=3600, memory="0")
    assert [int(at, 0) for at in result.output("place").split()[:1]] == [BASE]
    assert result.output("end").split() == ["clean"]
    # The first reset comes before the zeros. Without dirty lines, the second
    # would show nothing.
    assert dropped[1:] == [CACHE // 64]
    assert result.output("reset").split() == ["0", "0"]
