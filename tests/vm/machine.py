# SPDX-License-Identifier: GPL-2.0-only
"""The machine on which the test programs of tests/vm/guest run: which GPUs it has, and where their memory is.

It owns the GPUs' names, which the programs know, and nothing else; whoever boots the machine imports it:

    kernel = vm.Kernel(name)
    vm.Machine(kernel, gpus=machine.gpus(kernel), ram=machine.ram_size(kernel), append=machine.APPEND, ...)

All programs share one machine, since a boot costs more than most of them. Ranges of memory overlap where nothing else
is said below: a test binds one GPU at a time, or several of SIDE_BY_SIDE.
"""

import dataclasses

import vm

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30


@dataclasses.dataclass(frozen=True)
class At:
    """An address, in bytes from a place that isn't the same in every machine."""

    place: str
    offset: int = 0

    def __add__(self, offset):
        return At(self.place, self.offset + offset)

    def __sub__(self, offset):
        return At(self.place, self.offset - offset)


# GPU memory, RAM (the highest part of it), its end, and the end of the addresses that the CPU has.
M, RAM, RAM_END, CPU_END = At("memory"), At("RAM"), At("RAM's end"), At("the CPU's end")


def ram_size(kernel):
    """Bytes of RAM. KASAN takes an eighth of it, and an eighth of what the driver maps: a test makes it map 8 GiB.
    An x86-64 machine needs enough for a part of it to be above 4 GiB, with nothing behind."""
    return (3 if kernel.has("CONFIG_KASAN") or kernel.arch is vm.AMD64 else 1) * GiB


def resolved(value, places):
    """A value of GPUS with numbers in place of each At."""
    if isinstance(value, At):
        return places[value.place] + value.offset
    if isinstance(value, dict):
        return {k: resolved(v, places) for k, v in value.items()}
    if isinstance(value, list):
        return [resolved(v, places) for v in value]
    return value


# A test writes a stand-in's registers while a driver that waits for them has the BAR.
APPEND = "iomem=relaxed"

# usemem 1.5 GiB, resmem 1.25 GiB: both end before their BARs do.
FUNCTIONAL = 0xB000_0000

# 95.75 and 33.25 GiB.
SIZE_95 = 0x17_F000_0000
SIZE_33Q = 0x8_5000_0000

# Memory of these may be in use at the same time.
SIDE_BY_SIDE = ("gh200", "second", "odd", "s1h", "noc2c", "nohbm")


def gpu(name, base=None, size=None, dsd=None, ready=True, neighbour=False, **model):
    """dsd: what the firmware says in place of base and size. model: parameters of the model GPU. neighbour: there is
    another function on its bus."""
    return {"name": name, "base": base, "size": size, "dsd": dsd or {}, "ready": ready, "neighbour": neighbour, "model": model}


def refused(name, base=None, size=None, dsd=None):
    """A GPU whose memory would never be ready: it must be refused before anybody waits for that."""
    return gpu(name, base, size, dsd, ready=False)


# A stand-in takes 24 MiB of the host bridge's 32-bit window: these are as many as fit.
GPUS = [
    # Memory that works.
    gpu("gh200", M, FUNCTIONAL, aer=True, bar2_size=64 * KiB),      # its own BAR2 must not be seen
    # Both parts fill their BARs. The id is another product's: the kernel keeps bus resets from 10de:2340 to 237f.
    gpu("second", M + 4 * GiB, 3 * GiB, aer=True, device=0x2941),
    gpu("odd", M + 8 * GiB + 64 * KiB, 0xB000_1235),        # aligned to a page at most; the last page isn't whole
    gpu("s1h", M + 12 * GiB, 1536 * MiB),
    gpu("s33", M + 18 * GiB, 33 * GiB),
    gpu("s33q", M + 18 * GiB, SIZE_33Q),
    gpu("s95", M + 18 * GiB, SIZE_95),

    # One of the two registers says that the memory is ready, the other one never. A stand-in has both ready, for the
    # test to change.
    gpu("noc2c", M + 14 * GiB, 1536 * MiB, c2c={"ready_after_ms": None}),
    gpu("nohbm", M + 16 * GiB, 1536 * MiB, hbm={"ready_after_ms": None}),

    # No memory of its own, as a guest sees a GPU: there is nothing to wait for.
    gpu("none", ready=False, bar2_size=64 * KiB),

    # One step inside of what is refused below.
    gpu("afterram", RAM_END, FUNCTIONAL),
    gpu("adjacent", M + FUNCTIONAL, FUNCTIONAL),
    gpu("topmost", CPU_END - FUNCTIONAL, FUNCTIONAL),

    # One property without the other; the C2C link failed.
    refused("onlybase", base=M),
    refused("onlysize", dsd={"size": FUNCTIONAL}),
    refused("sizezero", M, 0),

    # Of the wrong type. Of a table with a buffer for a value, the kernel takes nothing at all.
    refused("strbase", M, FUNCTIONAL, dsd={"base": {"string": "0x8000000000"}}),
    gpu("bufsize", M, FUNCTIONAL, dsd={"size": {"buffer": list(FUNCTIONAL.to_bytes(8, "little"))}}, ready=False),
    refused("pkgbase", M, FUNCTIONAL, dsd={"base": {"package": [M, 0]}}),
    gpu("pkg1", M, FUNCTIONAL, dsd={"base": {"package": [M]}}),     # the property API reads this as an integer

    # No address of this machine's; and 2^64 is where numbers end.
    refused("beyond", CPU_END - FUNCTIONAL + 64 * KiB, FUNCTIONAL),
    refused("wraps", (1 << 64) - GiB, FUNCTIONAL),
    refused("unaligned", M + 0x800, FUNCTIONAL),

    # Memory of somebody else.
    refused("inram", RAM + 256 * MiB, 256 * MiB),           # all of it
    refused("ramedge", RAM_END - 64 * KiB, FUNCTIONAL),
    refused("aroundram", RAM - 512 * MiB, 8 * GiB),
    gpu("overlap", M + FUNCTIONAL - 64 * KiB, FUNCTIONAL),  # with gh200: of whatever size, its last page
    # usemem begins in front of the host bridge's window and ends in it: it can't be claimed, resmem can.
    gpu("claimbusy", M - 256 * MiB, FUNCTIONAL),

    # Too little, and more than vfio has room for.
    refused("small", M, 1536 * MiB - 1),
    refused("tiny", M, GiB),
    refused("hugebar", 1 << 41, (1 << 40) + 2 * GiB),
]

MODEL_GPUS = [
    # A stand-in can't have a DVSEC.
    gpu("nodefect", M + 18 * GiB, SIZE_33Q, mig_dvsec=1, bar2_size=64 * KiB),
    gpu("hasdefect", M + 18 * GiB, SIZE_33Q, mig_dvsec=0),

    # Its power can be cut: D3cold.
    gpu("d3cold", M + 8 * GiB, FUNCTIONAL, power=True),

    # Leaving D3hot is a reset, of which only the power state tells.
    gpu("softreset", M + 8 * GiB, FUNCTIONAL, soft_reset=True),

    # Little memory, all of it usemem, that ends in the middle of a page.
    gpu("tinymem", M + 15 * GiB + 768 * MiB, 64 * MiB + 0x1235, mig_dvsec=1, device=0x2941),

    # Everything at once: both parts end before their BARs, one in the middle of a page; its bus can be reset, and its power
    # cut. For the program of that name; stand-ins leave no room for it, and "odd" takes its place.
    gpu("random", M + 8 * GiB + 64 * KiB, 0xB000_1235, aer=True, power=True, device=0x2941, bar2_size=64 * KiB),

    # For these there is no room beside 31 stand-ins.
    gpu("widest", 1 << 41, (1 << 40) + GiB),                # the largest BAR that vfio has room for

    # Ready by the CXL Device DVSEC; the registers of the GH200, in BAR0, never say so. Active after more than the 1 s
    # that a timeout code of 0 would allow.
    gpu("cxl", M + 12 * GiB, 1536 * MiB, device=0x2941, ready_after_ms=None,
        cxl={"timeout": 1, "valid": {"ready_after_reset_ms": 300}, "active": {"ready_after_reset_ms": 1500}}),
    gpu("cxlinvalid", M + 12 * GiB, 1536 * MiB, device=0x2941, cxl={"valid": {"ready_after_ms": None}}),
    gpu("cxlinactive", M + 12 * GiB, 1536 * MiB, device=0x2941, cxl={"active": {"ready_after_ms": None}}),
    # A neighbour on its bus has a say in error recovery. Memory_Info_Valid must come within 1 s of a reset.
    gpu("neighbour", M + 4 * GiB, 3 * GiB, neighbour=True, aer=True, device=0x2941, cxl={"timeout": 1}),
    gpu("cxlsoft", M + 12 * GiB, 1536 * MiB, device=0x2941, soft_reset=True, cxl={"timeout": 1}),
    gpu("cxlgone", M + 12 * GiB, 1536 * MiB, device=0x2941, cxl={"gone": True}),
]


TEBIBYTES = ("hugebar", "widest")


def gpus(kernel):
    """The GPUs of the machine that boots this vm.Kernel."""
    ram = ram_size(kernel)
    start, end = vm.ram_range(kernel.arch, ram)
    places = {M.place: vm.memory_address(kernel.arch, ram, vm.MEMORY_MAX), RAM.place: start, RAM_END.place: end,
              CPU_END.place: 1 << kernel.arch.phys_bits}
    all_of_them = resolved(GPUS + (MODEL_GPUS if kernel.has_model else []), places)
    # An emulated x86-64 CPU has addresses for no more than a tebibyte; its config space is elsewhere.
    absent = (*TEBIBYTES, "d3cold") if kernel.arch is vm.AMD64 else ()
    wanted = [g for g in all_of_them if g["name"] not in absent]
    if kernel.arch is vm.AMD64:
        for g in wanted:
            g["model"].pop("power", None)
    return wanted
