#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Tests scrubbing while the machine is switched off, of a GPU as large as real
ones, and of one with a cache that a reset drops. Each has a machine of its own.

    test_scrub.py [KERNEL]

Inside the toolbox, after `make modules` for that kernel (default newest).
guest/scrub.c has all other tests. The last line is the sum."""

import ctypes
import os
import random
import subprocess
import sys
import tempfile
import threading

import content
import suite
import vm

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


def run(kernel, gpus, commands, handlers, timeout, memory="256G"):
    """Boot with these GPUs and the module parameter on. Unless there is another
    memory, the first one's is at BASE."""
    module = vm.PROJECT / "build" / kernel.release / suite.MODULE
    log = vm.PROJECT / "build/log" / f"scrub-{kernel.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with Machine(kernel, gpus=gpus, memory=memory, module=str(module), module_params="scrub=1",
                    handlers={**content.HANDLERS, **handlers}, commands=commands, timeout=timeout, log=str(log)) as machine:
        return machine.run()


def gpu(size):
    return [{"name": "g", "base": BASE, "size": size}]


def power_off(kernel, tap):
    """Switching off waits for scrubbing, and the memory ends clean."""
    size = 3 * GiB
    kept = []
    # After a pause of the shell, the scrub has ended before the machine is
    # switched off. Then another machine tries.
    for _ in range(4):
        while kept:
            os.close(kept.pop())
        result = run(kernel, gpu(size), [{"name": "begin", "run": f"host soil {BASE:#x} {size:#x}; host keep; {BIND}"},
                                    {"name": "state", "run": STATE}],
                     {"keep": lambda machine: kept.append(os.dup(machine.memory_fd))}, timeout=1200)
        if result.failures or result.output("state").strip() != "clean":
            break
    for failure in result.failures:
        print(f"# {failure}")
    tap.check("nothing is wrong in the machine", not result.failures)
    tap.check("it was switched off in the middle", result.output("state").strip() == "scrubbing", result.output("state"))

    class Memory:
        """The part of a machine that content.remains() uses, after the
        machine's end."""

        @staticmethod
        def read_gpu_memory(address, count):
            return os.pread(kept[0], count, address - BASE)

    left = content.remains(Memory, hex(BASE), hex(size))
    tap.check("no byte is left of what was there", left == "0", left)
    os.close(kept[0])


class Drain(threading.Thread):
    """Frees the host's memory for the zeros that a machine writes, except in
    blocks with content to check. No computer here has as much memory as the
    GPU."""

    BLOCK = 2 << 20

    def __init__(self, fd, size, kept):
        super().__init__(daemon=True)
        self.fd, self.ended = fd, threading.Event()
        edges = sorted({at // self.BLOCK for at in kept})
        self.ranges = []
        start = 0
        for block in (*edges, size // self.BLOCK):
            if block > start:
                self.ranges.append((start * self.BLOCK, (block - start) * self.BLOCK))
            start = block + 1
        self.libc = ctypes.CDLL(None, use_errno=True)

    def run(self):
        while not self.ended.wait(0.1):
            for start, count in self.ranges:
                self.libc.fallocate(self.fd, content.PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(start), ctypes.c_long(count))


def large(kernel, tap):
    """64 GiB, of which some 200 pages have content: at both ends, on both sides
    of the border between the parts, and anywhere."""
    size = 65 * GiB
    chance = random.Random(64)
    places = {0, size - content.PAGE, size - GiB, size - GiB - content.PAGE, *(chance.randrange(size // content.PAGE) * content.PAGE for _ in range(200))}
    drains = []

    def fill(machine):
        for place in places:
            content.soil(machine, hex(BASE + place), hex(content.PAGE))
        drains.append(Drain(machine.memory_fd, size, places))
        drains[0].start()

    def left(machine):
        drains[0].ended.set()
        drains[0].join()
        return " ".join(hex(p) for p in sorted(places) if machine.read_gpu_memory(BASE + p, content.PAGE) != bytes(content.PAGE)) or "none"

    tracing = "/sys/kernel/tracing"
    begin = f"host fill; echo 1 >{tracing}/events/nvgrace_gpu/nvgrace_gpu_scrub/enable; {BIND}"
    wait = f"{WAIT}; host left; sed -n 's/.* written=//p' {tracing}/trace"
    result = run(kernel, gpu(size), [{"name": "begin", "run": begin}, {"name": "end", "run": wait}],
                 {"fill": fill, "left": left}, timeout=3600)
    for failure in result.failures:
        print(f"# {failure}")
    tap.check("nothing is wrong in the machine", not result.failures)
    # The second pass: 2 GiB of usemem, and resmem.
    tap.check("64 GiB end clean", result.output("end").split() == ["clean", "none", str(size + 3 * GiB)], result.output("end"))


# Of the GPU with a cache. QEMU asks the model for each byte.
SMALL, CACHE = 64 << 10, 16 << 10


def forgetful(kernel, tap):
    """A write-back cache in the GPU keeps what was written last, and a reset
    drops it. Another device's BAR is the memory behind that cache, because the
    model can't see what the machine writes to QEMU's memory. So each scrub
    writes more than the cache holds, and what it holds at the end covers zeros.
    """
    def fill(machine):
        memory = machine.models["memory"].gpu
        memory.bar2[:SMALL] = content.soil_of(BASE, SMALL)
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
    for failure in result.failures:
        print(f"# {failure}")
    place = result.output("place").split()[:1]
    tap.check("nothing is wrong in the machine with a cache", not result.failures)
    tap.check("the memory is where it should be", [int(at, 0) for at in place] == [BASE], result.output("place"))
    tap.check("a GPU with a cache ends clean", result.output("end").split() == ["clean"], result.output("end"))
    # The first reset comes before the zeros. Without dirty lines, the second
    # would show nothing.
    tap.check("the reset afterwards drops a full cache", dropped[1:] == [CACHE // 64], str(dropped))
    tap.check("no byte is left below the cache", result.output("reset").split() == ["0", "0"], result.output("reset"))


def main():
    kernel = vm.Kernel(sys.argv[1] if len(sys.argv) > 1 else "newest")
    tap = suite.Tap()
    forgetful(kernel, tap)
    power_off(kernel, tap)
    large(kernel, tap)
    print(f"{tap.passed} passed, {tap.failed} failed, {tap.skipped} skipped")
    sys.exit(bool(tap.failed))


if __name__ == "__main__":
    main()
