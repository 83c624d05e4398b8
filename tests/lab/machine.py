# SPDX-License-Identifier: GPL-2.0-only
"""The machine on which the test programs of tests/driver run: its GPUs, and
where their memory is. Use it as:

    kernel = vm.Kernel(name)
    vm.Machine(kernel, gpus=machine.gpus(kernel), ram=machine.ram_size(kernel), append=machine.APPEND, ...)

The programs know the GPUs by these names. All programs share one machine,
because a boot takes longer than most of them. Ranges of memory overlap except
where a comment says otherwise: a test binds one GPU at a time, or several of
gh200, second, odd, s1h, noc2c and nohbm."""

from lab import vm

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30


def ram_size(kernel):
    """Bytes of RAM. KASAN takes an eighth of RAM and an eighth of what the
    driver maps, and a test maps 8 GiB."""
    return (3 if kernel.has("CONFIG_KASAN") else 1) * GiB


# Programs map BAR0 by sysfs, which otherwise ends when vfio claims the BAR.
APPEND = "iomem=relaxed"

# usemem 1.5 GiB, resmem 1.25 GiB. Both end before their BARs do.
FUNCTIONAL = 0xB000_0000

# 95.75 and 33.25 GiB.
SIZE_95 = 0x17_F000_0000
SIZE_33Q = 0x8_5000_0000


def gpu(name, base=None, size=None, ready=True, neighbour=False, **model):
    """A GPU's configuration. base: from the start of GPU memory on. model: parameters
    of the model GPU. neighbour: whether its bus has another function."""
    return {"name": name, "base": base, "size": size, "ready": ready, "neighbour": neighbour, "model": model}


GPUS = [
    # Memory that works.
    gpu("gh200", 0, FUNCTIONAL, aer=True, bar2_size=64 * KiB),      # vfio must hide its own BAR2
    # Both parts fill their BARs. The id is another product's, because the
    # kernel does no bus resets for 10de:2340 to 237f.
    gpu("second", 4 * GiB, 3 * GiB, aer=True, device=0x2941),
    gpu("odd", 8 * GiB + 64 * KiB, 0xB000_1235),        # only page-aligned; ends within a page
    gpu("s1h", 12 * GiB, 1536 * MiB),
    gpu("s33", 18 * GiB, 33 * GiB),
    gpu("s33q", 18 * GiB, SIZE_33Q),
    gpu("s95", 18 * GiB, SIZE_95),

    # One of the two registers never says that the memory is ready.
    gpu("noc2c", 14 * GiB, 1536 * MiB, c2c={"ready_after_ms": None}),
    gpu("nohbm", 16 * GiB, 1536 * MiB, hbm={"ready_after_ms": None}),

    # No memory, as with a GPU in a guest. There is nothing to wait for. The
    # kernel does bus resets for its id, too.
    gpu("none", ready=False, aer=True, device=0x2941, bar2_size=64 * KiB),

    # One property without the other: the driver refuses it.
    gpu("onlybase", base=0, ready=False),

    # Memory that has another owner.
    gpu("overlap", FUNCTIONAL - 64 * KiB, FUNCTIONAL),  # with the last page of gh200, of any page size
    # usemem starts before the host bridge's window and ends in it. The driver
    # can claim resmem alone.
    gpu("claimbusy", -256 * MiB, FUNCTIONAL),

    # A DVSEC says that it has no resmem.
    gpu("nodefect", 18 * GiB, SIZE_33Q, mig_dvsec=1, bar2_size=64 * KiB),

    # Its power can be cut: D3cold.
    gpu("d3cold", 8 * GiB, FUNCTIONAL, power=True),

    # Leaving D3hot is a reset, which only the power state shows.
    gpu("softreset", 8 * GiB, FUNCTIONAL, soft_reset=True),

    # Little memory, all usemem, with fewer bytes after the last step of a scrub than
    # it has steps.
    gpu("tinymem", 15 * GiB + 768 * MiB, 64 * MiB + 3, mig_dvsec=1, device=0x2941),

    # For the program "random": both parts end before their BARs, one in the
    # middle of a page; the bus can be reset, and the power cut.
    gpu("random", 8 * GiB + 64 * KiB, 0xB000_1235, power=True, device=0x2941, bar2_size=64 * KiB),
    # It can't be reset: it has no FLR, and Linux does no bus reset for its id.
    gpu("noreset", 15 * GiB + 768 * MiB, 64 * MiB, mig_dvsec=1, flr=False),

    # So little memory that the kernel, by itself, would keep TLB entries of its
    # own mapping for later. A small BAR0, see below.
    gpu("flush", 15 * GiB + 768 * MiB, 16 * MiB, mig_dvsec=1, bar0_size=256 * KiB),

    # "ones": until they are ready, its registers read all ones, as if it was
    # gone. "smallbar0": BAR0 ends before the second register.
    gpu("ones", 15 * GiB + 768 * MiB, 64 * MiB, mig_dvsec=1, unready_value=0xFFFFFFFF),
    gpu("smallbar0", 15 * GiB + 768 * MiB, 64 * MiB, mig_dvsec=1, bar0_size=64 * KiB),

    # No memory and no PCI Express, as on a conventional bus of a guest.
    gpu("nopcie", ready=False, pcie=False, bar0_size=64 * KiB, bar2_size=64 * KiB),

    gpu("widest", 1536 * GiB, (1 << 40) + GiB),             # the largest BAR that vfio has room for

    # Ready by the CXL Device DVSEC, while the GH200's registers in BAR0 never
    # say so. Active after more than the 1 s that timeout code 0 allows.
    # With little memory, because its memory is often scrubbed.
    gpu("cxl", 15 * GiB + 768 * MiB, 64 * MiB, mig_dvsec=1, device=0x2941, ready_after_ms=None,
        cxl={"timeout": 1, "valid": {"ready_after_reset_ms": 300}, "active": {"ready_after_reset_ms": 1500}}),
    # It has 256 s to become active, longer than a test that keeps it waiting is
    # paused. Like some others it has a small BAR0: 48 of 16 MiB don't fit below
    # 4 GiB.
    gpu("cxllong", 15 * GiB + 768 * MiB, 64 * MiB, mig_dvsec=1, bar0_size=64 * KiB, device=0x2941, cxl={"timeout": 4}),
    gpu("cxlinvalid", 12 * GiB, 1536 * MiB, device=0x2941, cxl={"valid": {"ready_after_ms": None}}),
    gpu("cxlinactive", 12 * GiB, 1536 * MiB, device=0x2941, cxl={"active": {"ready_after_ms": None}}),
    # The neighbour on its bus takes part in error recovery. Memory_Info_Valid
    # must come within 1 s of a reset. Its BAR0 is the only one above 4 GiB, at
    # the start of the host bridge's window: a multiple of 4 GiB.
    gpu("neighbour", 4 * GiB, 1536 * MiB, neighbour=True, aer=True, device=0x2941, bar0_prefetchable=True, cxl={"timeout": 1}),
    gpu("cxlsoft", 12 * GiB, 1536 * MiB, device=0x2941, soft_reset=True, cxl={"timeout": 1}),
    gpu("cxlgone", 12 * GiB, 1536 * MiB, bar0_size=64 * KiB, device=0x2941, cxl={"gone": True}),
]


def gpus(kernel):
    """The GPUs of the machine that boots this vm.Kernel."""
    return [{**g, "base": None if g["base"] is None else vm.MEMORY_ADDRESS + g["base"]} for g in GPUS]
