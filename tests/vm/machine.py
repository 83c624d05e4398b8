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

M = vm.PCI_WINDOW
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

# QEMU's virt machine has its RAM here.
RAM = 0x4000_0000


@dataclasses.dataclass
class RamEnd:
    """An address, in bytes from the end of RAM."""

    offset: int


def ram_size(kernel):
    """Bytes of RAM. KASAN takes an eighth of it, and an eighth of what the driver maps: a test makes it map 8 GiB."""
    return (3 if kernel.has("CONFIG_KASAN") else 1) * GiB


# iomem: a test writes a stand-in's registers while a driver that waits for them has the BAR. kpti: a Grace CPU does
# without, and emulation pays for it with three times the time for a system call (6.1 would have it on neoverse-n1).
APPEND = "iomem=relaxed kpti=off"

# usemem 1.5 GiB, resmem 1.25 GiB: both end before their BARs do.
FUNCTIONAL = 0xB000_0000

# 95.75 and 33.25 GiB.
SIZE_95 = 0x17_F000_0000
SIZE_33Q = 0x8_5000_0000

# Memory of these may be in use at the same time.
SIDE_BY_SIDE = ("gh200", "second", "odd", "s1h", "noc2c", "nohbm")


def gpu(name, base=None, size=None, dsd=None, ready=True, **model):
    """dsd: what the firmware says in place of base and size. model: parameters of the model GPU."""
    return {"name": name, "base": base, "size": size, "dsd": dsd or {}, "ready": ready, "model": model}


def refused(name, base=None, size=None, dsd=None):
    """A GPU whose memory would never be ready: it must be refused before anybody waits for that."""
    return gpu(name, base, size, dsd, ready=False)


# A stand-in takes 24 MiB of the host bridge's 32-bit window: these are as many as fit.
GPUS = [
    # Memory that works.
    gpu("gh200", M, FUNCTIONAL, bar2_size=64 * KiB),        # its own BAR2 must not be seen
    # Both parts fill their BARs. The id is another product's: the kernel keeps bus resets from 10de:2340 to 237f.
    gpu("second", M + 4 * GiB, 3 * GiB, device=0x2941),
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
    gpu("afterram", RamEnd(0), FUNCTIONAL),
    gpu("adjacent", M + FUNCTIONAL, FUNCTIONAL),
    gpu("topmost", (1 << 48) - FUNCTIONAL, FUNCTIONAL),

    # One property without the other; the C2C link failed.
    refused("onlybase", base=M),
    refused("onlysize", dsd={"size": FUNCTIONAL}),
    refused("sizezero", M, 0),

    # Of the wrong type. Of a table with a buffer for a value, the kernel takes nothing at all.
    refused("strbase", M, FUNCTIONAL, dsd={"base": {"string": f"{M:#x}"}}),
    gpu("bufsize", M, FUNCTIONAL, dsd={"size": {"buffer": list(FUNCTIONAL.to_bytes(8, "little"))}}, ready=False),
    refused("pkgbase", M, FUNCTIONAL, dsd={"base": {"package": [M, 0]}}),
    gpu("pkg1", M, FUNCTIONAL, dsd={"base": {"package": [M]}}),     # the property API reads this as an integer

    # No address of this machine's: its CPUs have 48 bits, and 2^64 is where numbers end.
    refused("beyond", (1 << 48) - FUNCTIONAL + 64 * KiB, FUNCTIONAL),
    refused("wraps", (1 << 64) - GiB, FUNCTIONAL),
    refused("unaligned", M + 0x800, FUNCTIONAL),

    # Memory of somebody else.
    refused("inram", RAM + 256 * MiB, 256 * MiB),           # all of it
    refused("ramedge", RamEnd(-64 * KiB), FUNCTIONAL),
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

    # For these there is no room beside 31 stand-ins.
    gpu("widest", 1 << 41, (1 << 40) + GiB),                # the largest BAR that vfio has room for

    # Ready by the CXL Device DVSEC; the registers of the GH200, in BAR0, never say so. Active after more than the 1 s
    # that a timeout code of 0 would allow.
    gpu("cxl", M + 12 * GiB, 1536 * MiB, device=0x2941, ready_after_ms=None,
        cxl={"timeout": 1, "valid": {"ready_after_reset_ms": 300}, "active": {"ready_after_reset_ms": 1500}}),
    gpu("cxlinvalid", M + 12 * GiB, 1536 * MiB, device=0x2941, cxl={"valid": {"ready_after_ms": None}}),
    gpu("cxlinactive", M + 12 * GiB, 1536 * MiB, device=0x2941, cxl={"active": {"ready_after_ms": None}}),
    gpu("cxlgone", M + 12 * GiB, 1536 * MiB, device=0x2941, cxl={"gone": True}),
]


def gpus(kernel):
    """The GPUs of the machine that boots this vm.Kernel."""
    end = RAM + ram_size(kernel)
    return [{**g, "base": end + g["base"].offset} if isinstance(g["base"], RamEnd) else g
            for g in GPUS + (MODEL_GPUS if kernel.has_virtio_iommu else [])]
