# SPDX-License-Identifier: GPL-2.0-only
"""stage2.py with page tables in memory."""

import unittest

from lab import stage2

WRITE_BACK, NON_CACHEABLE = 0b0110 << 2, 0b0101 << 2
TABLE, BLOCK, PAGE = 3, 1, 3
ROOT = 0x4000_0000


def vtcr(granule, bits, sl0, sl2=0):
    return {12: 0, 14: 2, 16: 1}[granule] << 14 | sl0 << 6 | 64 - bits | sl2 << 33


class Tables(unittest.TestCase):
    def translate(self, address, vtcr_el2, descriptors, table=ROOT):
        def read(at, count):
            self.assertEqual(count, 8)
            return descriptors.get(at, 0).to_bytes(8, "little")
        # The VMID and CnP are not part of the address.
        return stage2.translate(read, 0x1234 << 48 | table | 1, vtcr_el2, address)

    def test_a_page_of_4k_at_level_3(self):
        address = 0x80_1234_5678
        found = self.translate(address, vtcr(12, 40, 1), {
            # Two consecutive tables of level 1, for ten bits of the address.
            ROOT + 8 * (address >> 30): 0x5000_0000 | TABLE,
            0x5000_0000 + 8 * (address >> 21 & 511): 0x5000_1000 | TABLE,
            0x5000_1000 + 8 * (address >> 12 & 511): 0x90_0000_7000 | 0x7FC | PAGE})
        self.assertEqual((found.level, found.size, found.address), (3, 4096, 0x90_0000_7678))

    def test_blocks_of_each_granule(self):
        address = 0x80_2345_6789
        for granule, block in ((12, 21), (14, 25), (16, 29)):
            with self.subTest(granule=granule):
                stride = granule - 3
                found = self.translate(address, vtcr(granule, 40, 1), {
                    ROOT + 8 * (address >> block + stride): 0x5000_0000 | TABLE,
                    0x5000_0000 + 8 * (address >> block & (1 << stride) - 1): 0x90_0000_0000 | WRITE_BACK | BLOCK}
                    if granule == 12 else
                    {ROOT + 8 * (address >> block): 0x90_0000_0000 | WRITE_BACK | BLOCK})
                self.assertEqual(found.size, 1 << block)
                self.assertEqual(found.level, 2)
                self.assertEqual(found.address, 0x90_0000_0000 + address % (1 << block))
                self.assertEqual(found.type, "write-back, forced")

    def test_types(self):
        for bits, name in ((0b0110, "write-back, forced"), (0b1111, "write-back"), (0b0101, "non-cacheable"),
                           (0b0001, "device-nGnRE"), (0b1000, "0b1000")):
            found = self.translate(0, vtcr(12, 39, 1), {ROOT: 0x80_0000_0000 | bits << 2 | BLOCK})
            self.assertEqual((found.type, found.size), (name, 1 << 30))

    def test_level_minus_1_and_0(self):
        descriptors = {ROOT + 8: 0x5000_0000 | TABLE, 0x5000_0000: 0x5000_1000 | TABLE,
                       0x5000_1000: 0x80_0000_0000 | NON_CACHEABLE | BLOCK}
        self.assertEqual(self.translate(1 << 48, vtcr(12, 52, 0, 1), descriptors).size, 1 << 30)
        descriptors = {ROOT: 0x5000_0000 | TABLE, 0x5000_0000: 0x80_0000_0000 | NON_CACHEABLE | BLOCK}
        self.assertEqual(self.translate(5, vtcr(12, 48, 2), descriptors).address, 0x80_0000_0005)

    def test_not_mapped(self):
        v = vtcr(12, 39, 1)
        for address, descriptors in ((0, {}), (1 << 39, {}), (0, {ROOT: 0x5000_0000 | TABLE}),
                                     # There are no blocks at level 3.
                                     (0, {ROOT: 0x5000_0000 | TABLE, 0x5000_0000: 0x5000_1000 | TABLE, 0x5000_1000: BLOCK})):
            with self.assertRaises(stage2.NotMapped):
                self.translate(address, v, descriptors)
