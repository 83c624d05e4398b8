# SPDX-License-Identifier: GPL-2.0-only
"""A DMA engine in the model's BAR0, as a GH100 has: the falcon of the optical
flow accelerator (OFA), which copies between its own data memory (DMEM) and the
host's memory. The firmware of the foundation security processor (FSP) must
allow that first, by a message in its mailbox (EMEM).

Only what a user needs for this DMA is here. Registers have the names that
NVIDIA publishes in https://github.com/NVIDIA/open-gpu-kernel-modules,
src/common/inc/swref/published. BAR0's memory keeps those that only store a
value. Registers of 32 bits are written whole."""

import collections
import dataclasses
import struct

BOOT_0 = 0x0                    # NV_PMC_BOOT_0
GH100 = 0x180000A1
# Both say that what follows a reset is done. The FSP's own is the model's
# HBM_REGISTER.
MEMORY_CLEARED = 0x100B20
DMA_TOP_BITS = 0x100F04         # bits 63:47 of addresses

FSP_EMEM_SIZE = 8 << 10
FSP_EMEMC, FSP_EMEMD = 0x8F2AD0, 0x8F2AD4       # of port 2
FSP_QUEUE_HEAD, FSP_QUEUE_TAIL = 0x8F2C10, 0x8F2C14
FSP_MSGQ_HEAD, FSP_MSGQ_TAIL = 0x8F2C90, 0x8F2C94
FSP_CHANNEL, FSP_CHANNEL_SIZE = 0x800, 0x400    # the part of EMEM for these queues
EMEMC_OFFSET, EMEMC_AINCW, EMEMC_AINCR = 0xFFFC, 1 << 24, 1 << 25

MCTP_WHOLE = 3 << 30            # the first packet of a message, and the last
MCTP_NVIDIA = 0x10DE << 8 | 0x7E
NVDM_RESPONSE, NVDM_FBDMA = 0x15, 0x22
FBDMA_ENABLE = 1

OFA = 0x844000
DMACTL = OFA + 0x10C
DMATRFBASE, DMATRFMOFFS, DMATRFCMD, DMATRFFBOFFS, DMATRFBASE1 = (OFA + at for at in (0x110, 0x114, 0x118, 0x11C, 0x128))
ENGINE = OFA + 0x3C0
FBIF_TRANSCFG, FBIF_CTL = OFA + 0x400, OFA + 0x424
DMACTL_REQUIRE_CTX = 1
CMD_IDLE, CMD_IMEM, CMD_WRITE = 1 << 1, 1 << 4, 1 << 5
CTL_PHYSICAL = 0x90             # physical addresses, without a context
TRANSCFG_HOST = 0x5             # a physical address of coherent host memory
TRANSCFG_MASK = 0x7
LARGEST = 6                     # code of 256 bytes; 0 is 4 bytes
DMEM_SIZE = 64 << 10
NOT_ALLOWED = 0xBADF5040        # what registers read that firmware keeps closed

# Those that more than memory stands behind.
READ = (BOOT_0, MEMORY_CLEARED, FSP_EMEMD, DMATRFCMD, ENGINE)
READ_ONLY = (BOOT_0, MEMORY_CLEARED, ENGINE)


@dataclasses.dataclass
class Transfer:
    address: int
    size: int
    dmem: int
    write: bool


class Falcon:
    """From one reset to the next. The Gpu holds its lock when it calls read()
    and write()."""

    def __init__(self, bar0):
        self._bar0 = bar0
        self._emem = bytearray(FSP_EMEM_SIZE)
        self._dmem = bytearray(DMEM_SIZE)
        self._allowed = False
        self._transfers = collections.deque()
        self._moving = False
        self._done = True
        self._put(DMACTL, DMACTL_REQUIRE_CTX)

    def _get(self, register):
        return struct.unpack_from("<I", self._bar0, register)[0]

    def _put(self, register, value):
        struct.pack_into("<I", self._bar0, register, value)

    def read(self, register):
        """The value of one of READ."""
        if register == FSP_EMEMD:
            return struct.unpack_from("<I", self._emem, self._emem_port(EMEMC_AINCR))[0]
        if register == DMATRFCMD:
            idle = self._done and not self._moving and not self._transfers
            return self._get(DMATRFCMD) & ~CMD_IDLE | (CMD_IDLE if idle else 0)
        return {BOOT_0: GH100, MEMORY_CLEARED: 1, ENGINE: 0 if self._allowed else NOT_ALLOWED}[register]

    def write(self, register, value):
        if register in READ_ONLY:
            return
        self._put(register, value)
        if register == FSP_EMEMD:
            struct.pack_into("<I", self._emem, self._emem_port(EMEMC_AINCW), value)
        elif register == FSP_QUEUE_HEAD:
            self._message()
        elif register == DMATRFCMD:
            self._command(value)

    # The FSP.

    def _emem_port(self, increment):
        """The offset in EMEM that the port is at."""
        control = self._get(FSP_EMEMC)
        at = control & EMEMC_OFFSET
        if control & increment:
            self._put(FSP_EMEMC, control & ~EMEMC_OFFSET | at + 4 & EMEMC_OFFSET)
        return at % FSP_EMEM_SIZE

    def _message(self):
        """Take a message and answer it, at the same place. The queues are empty
        when head and tail agree; tail is the last word."""
        head, tail = self._get(FSP_QUEUE_HEAD), self._get(FSP_QUEUE_TAIL)
        if head != FSP_CHANNEL or not head < tail < head + FSP_CHANNEL_SIZE or tail % 4:
            return
        self._put(FSP_QUEUE_HEAD, tail)
        words = struct.unpack_from(f"<{(tail - head) // 4 + 1}I", self._emem, head)
        if words[0] & MCTP_WHOLE != MCTP_WHOLE or words[1] & 0xFFFFFF != MCTP_NVIDIA:
            return
        kind = words[1] >> 24
        known = kind == NVDM_FBDMA and words[2:] == (FBDMA_ENABLE,)
        self._allowed |= known
        answer = (MCTP_WHOLE, MCTP_NVIDIA | NVDM_RESPONSE << 24, 0, kind, 0 if known else 1)
        struct.pack_into("<5I", self._emem, head, *answer)
        self._put(FSP_MSGQ_TAIL, head + 4 * (len(answer) - 1))
        self._put(FSP_MSGQ_HEAD, head)

    # The falcon.

    def _command(self, command):
        """Queue a transfer. One that isn't allowed never becomes idle."""
        code = command >> 8 & 7
        size = 4 << code
        base = self._get(DMA_TOP_BITS) << 47 | (self._get(DMATRFBASE1) & 0x7F) << 40 | self._get(DMATRFBASE) << 8
        address = base + self._get(DMATRFFBOFFS) & (1 << 64) - 1
        dmem = self._get(DMATRFMOFFS)
        route = self._get(FBIF_TRANSCFG + 4 * (command >> 12 & 7))
        self._done = False
        if (self._allowed and code <= LARGEST and not command & CMD_IMEM and not (address | dmem) % size
                and dmem + size <= DMEM_SIZE and not self._get(DMACTL) & DMACTL_REQUIRE_CTX
                and self._get(FBIF_CTL) & CTL_PHYSICAL == CTL_PHYSICAL and route & TRANSCFG_MASK == TRANSCFG_HOST):
            self._transfers.append(Transfer(address, size, dmem, bool(command & CMD_WRITE)))

    def move(self, gpu, bus):
        """Do the transfers. Called without the Gpu's lock: the bus, a Server,
        may have to ask the client, and answers other requests meanwhile."""
        if self._moving:
            return
        self._moving = True
        try:
            while self._transfers:
                self._done = self._move(self._transfers.popleft(), gpu, bus)
        finally:
            self._moving = False

    def _move(self, t, gpu, bus):
        """Whether the falcon comes to the transfer's end. Writes to PCI Express
        have no answer, so that it never learns of one that fails."""
        if not gpu.is_master():
            return False
        try:
            if t.write:
                bus.dma_write(t.address, bytes(self._dmem[t.dmem:t.dmem + t.size]))
            else:
                self._dmem[t.dmem:t.dmem + t.size] = bus.dma_read(t.address, t.size)
        except ConnectionError:
            raise
        except OSError:
            gpu.count("dma_faults")
            return t.write
        gpu.count("dma_writes" if t.write else "dma_reads")
        return True
