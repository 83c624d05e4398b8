# SPDX-License-Identifier: GPL-2.0-only
"""Translates a guest's address by an arm64 host's stage-2 page tables, into the
host's address and the memory type.

Follows the Arm ARM, chapter D8: VMSAv8-64 with granules of 4, 16 and 64 KiB,
for 48-bit output addresses. The caller supplies registers and memory;
test_guest.py reads them through QEMU's debugger.
"""

import dataclasses

# VTCR_EL2.TG0
GRANULE_SHIFT = {0: 12, 1: 16, 2: 14}
ADDRESS = (1 << 48) - 1

# Descriptor bits 5:2. The first one exists only with FEAT_S2FWB: write-back,
# whatever the guest's own tables say.
TYPES = {0b0110: "write-back, forced", 0b1111: "write-back", 0b0101: "non-cacheable",
         0b0001: "device-nGnRE", 0b0000: "device-nGnRnE"}


@dataclasses.dataclass
class Entry:
    """A leaf of the tables."""

    level: int
    size: int       # bytes that it maps
    address: int    # the host's address of the byte
    type: str


class NotMapped(Exception):
    """The tables do not map an address."""


def first_level(vtcr, granule):
    """The level at which the walk begins. SL0 and SL2 of VTCR_EL2 encode it,
    depending on the granule."""
    sl0 = vtcr >> 6 & 3
    if granule == 12:
        # SL0 3 is level 3, with FEAT_TTST. SL2 is level -1.
        return -1 if vtcr >> 33 & 1 else (2, 1, 0, 3)[sl0]
    return 3 - sl0


def translate(read, vttbr, vtcr, address):
    """The Entry of a guest physical address; raises NotMapped if there is none.

    read(address, count) must return bytes of the host's memory.
    """
    granule = GRANULE_SHIFT[vtcr >> 14 & 3]
    stride = granule - 3
    bits = 64 - (vtcr & 0x3F)
    if address >> bits:
        raise NotMapped(f"{address:#x} has more than {bits} bits")
    level = start = first_level(vtcr, granule)
    # Bit 0 is CnP, and the VMID is above the address. Several tables of the
    # first level follow each other.
    table = vttbr & ADDRESS & ~0x1F
    while True:
        shift = granule + (3 - level) * stride
        index = address >> shift
        if level != start:
            index &= (1 << stride) - 1
        descriptor = int.from_bytes(read(table + index * 8, 8), "little")
        if not descriptor & 1 or level == 3 and not descriptor & 2:
            raise NotMapped(f"{address:#x}: level {level} has {descriptor:#x}")
        if level == 3 or not descriptor & 2:
            break
        table = descriptor & ADDRESS & -(1 << granule)
        level += 1
    attributes = descriptor >> 2 & 15
    return Entry(level, 1 << shift, (descriptor & ADDRESS & -(1 << shift)) | address & (1 << shift) - 1,
                 TYPES.get(attributes, f"{attributes:#06b}"))
