# SPDX-License-Identifier: GPL-2.0-only
"""The model GPU: a vfio-user server that QEMU's vfio-user-pci device presents
to a virtual machine.

It has what a driver sees of a GH200's PCI function: config space, resets, and
the registers of BAR0 that say whether the GPU memory is ready. GPU memory is
not behind this function, and the model has none. The VM runner (lab/vm.py)
makes one Gpu per device in its own process.

Class Spec has the parameters. README.md beside this file describes the control
block of BAR0.

The protocol is that of libvfio-user's docs/vfio-user.rst, version 0.0, as QEMU
10.1 to 11 speaks it: a 16-byte header (message id, command, size, flags,
error), then the command's own structure, all in host byte order."""

import array
import dataclasses
import errno
import json
import mmap
import os
import select
import socket
import struct
import threading
import time

from lab.model import falcon, l2

# Commands of the protocol.
VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO, GET_REGION_IO_FDS, GET_IRQ_INFO, SET_IRQS, \
    REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET = range(1, 14)

HEADER = struct.Struct("=HHIII")
FLAG_REPLY = 1
FLAG_TYPE = 0xF
FLAG_NO_REPLY = 0x10
FLAG_ERROR = 0x20

MAX_TRANSFER = 1 << 20
# QEMU 11 never answers a DMA_READ whose answer does not fit into its socket's
# buffer (about 200 KiB) at once.
DMA_CHUNK = 64 << 10
MAX_FDS = 8
MAX_MESSAGE = MAX_TRANSFER + 4096

# Region and interrupt indices of a VFIO PCI device.
BAR0_REGION, BAR2_REGION, ROM_REGION, CONFIG_REGION, NUM_REGIONS = 0, 2, 6, 7, 9
MSI_IRQ, MSIX_IRQ, NUM_IRQS = 1, 2, 5
REGION_FLAG_READ, REGION_FLAG_WRITE, REGION_FLAG_MMAP = 1, 2, 4
IRQ_FLAG_EVENTFD = 1

BAR0_SIZE = 16 << 20
CONFIG_SIZE = 4096
C2C_REGISTER = 0x1498
HBM_REGISTER = 0x200BC
READY_VALUE = 0xFF
NEVER = 0xFFFFFFFF

CONTROL_BLOCK = 0xF00000
CONTROL_SIZE = 0x1000
CONTROL_MAGIC = 0x4D47564E

# Offsets of capabilities in config space. The extended ones are chained from
# EXT_CAPS.
PM_CAP, MSI_CAP, PCIE_CAP, MSIX_CAP = 0x40, 0x50, 0x60, 0xC8
# MSI-X where other NVIDIA GPUs have it. QEMU keeps table and pending bits.
MSIX_VECTORS, MSIX_TABLE, MSIX_PENDING = 6, 0xB90000, 0xBA0000
EXT_CAPS, EXT_CAP_STEP = 0x100, 0x40
# A register of the model alone: 1 while it has power. A real device's power is
# cut from outside. Here the firmware's table writes this register, which works
# without power. A vfio client reaches it too, and has to leave it alone.
POWER_REGISTER = 0xF8
EXP_DEVCTL = PCIE_CAP + 8
DEVCTL_FLR = 0x8000
# Link Status and Link Status 2. When the Link Status of the root port above is
# read, QEMU 11 makes the port's value from these two, in this order.
PORT_READS = (CONFIG_REGION, PCIE_CAP + 0x12, 2), (CONFIG_REGION, PCIE_CAP + 0x32, 2)

CXL_INFO_VALID, CXL_ACTIVE = 1, 2

@dataclasses.dataclass
class Readiness:
    """When something becomes ready, in ms after the model's start and after
    each reset. None: never."""

    ready_after_ms: "int | None" = 0
    ready_after_reset_ms: "int | None" = 0

    @classmethod
    def from_dict(cls, given):
        """By default, the delay after a reset is the one after the start."""
        return cls(**{"ready_after_reset_ms": given.get("ready_after_ms", 0), **given})

@dataclasses.dataclass
class Cxl:
    """A CXL Device DVSEC (vendor 0x1e98, id 0)."""

    size: int = 96 << 30
    # The encoded Memory_Active_Timeout.
    timeout: int = 0
    # When Memory_Info_Valid and Memory_Active are set.
    valid: Readiness = dataclasses.field(default_factory=Readiness)
    active: Readiness = dataclasses.field(default_factory=Readiness)
    # Range 1 Size Low reads all ones.
    gone: bool = False

@dataclasses.dataclass
class Spec:
    """One device. Sizes are in bytes: BARs have powers of two from 4096
    on, and BAR2's cache is a number of lines."""

    vendor: int = 0x10DE
    device: int = 0x2342
    # A smaller BAR0 lacks the registers after its end, among them those of msix and
    # falcon. The host puts a prefetchable one above 4 GiB.
    bar0_size: int = BAR0_SIZE
    bar0_prefetchable: bool = False
    # A 64-bit prefetchable BAR2 of the device's own, backed by a memfd that QEMU
    # maps; 0: none.
    bar2_size: int = 0
    # A write-back cache in front of BAR2 (l2.py). What was written last is in
    # the cache alone, and Gpu.drop_cache() or a reset drops it. QEMU then asks
    # the model for every access, at most 8 bytes at a time, so BAR2 is slow.
    bar2_cache: int = 0
    # What both readiness registers read while not ready.
    unready_value: int = 0
    # An MSI capability with one vector.
    msi: bool = False
    # An MSI-X capability with six vectors, table and pending bits in BAR0.
    msix: bool = False
    # The PCI Express capability. Without it, the function is a conventional PCI
    # device, without flr and extended capabilities: mig_dvsec, cxl and aer.
    pcie: bool = True
    # A DMA engine that the machine can use (README.md).
    falcon: bool = False
    # Function level reset, by the Initiate-FLR bit.
    flr: bool = True
    # Readiness by each register.
    c2c: Readiness = dataclasses.field(default_factory=Readiness)
    hbm: Readiness = dataclasses.field(default_factory=Readiness)
    # NVIDIA's DVSEC (vendor 0x10de, id 3) with this 16-bit word at +0x0a. Bit 0:
    # the MIG defect is absent.
    mig_dvsec: "int | None" = None
    cxl: "Cxl | None" = None
    # Advanced Error Reporting. The model makes no errors; aer_inject of Linux
    # can.
    aer: bool = False
    # A register in config space that cuts the power (README.md).
    power: bool = False
    # Without NoSoftReset: leaving D3hot for D0 is a reset, which soft_resets
    # counts.
    soft_reset: bool = False

    @classmethod
    def from_dict(cls, given):
        """The Spec of a dict. ready_after_ms and ready_after_reset_ms may stand
        for both registers."""
        given = dict(given)
        default = {k: given.pop(k) for k in ("ready_after_ms", "ready_after_reset_ms") if k in given}
        for name in ("c2c", "hbm"):
            given[name] = Readiness.from_dict({**default, **given.get(name, {})})
        if given.get("cxl") is not None:
            cxl = given["cxl"]
            given["cxl"] = Cxl(**{**cxl, **{name: Readiness.from_dict(cxl.get(name, {})) for name in ("valid", "active")}})
        return cls(**given)

class Timer:
    """One readiness condition over time."""

    def __init__(self, readiness):
        self._readiness = readiness
        self.reset_ms = readiness.ready_after_reset_ms
        self.start(readiness.ready_after_ms)

    def restore(self):
        self.reset_ms = self._readiness.ready_after_reset_ms
        if self.at is None:
            self.start(self.reset_ms)

    def start(self, ms):
        self.at = None if ms is None else time.monotonic() + ms / 1000

    def ready(self):
        return self.at is not None and time.monotonic() >= self.at

class ConfigSpace:
    """The 4096 bytes of config space, with a mask of the writable bits."""

    def __init__(self, spec):
        self.spec = spec
        self.bytes = bytearray(CONFIG_SIZE)
        self.writable = bytearray(CONFIG_SIZE)
        self.clear_on_write = bytearray(CONFIG_SIZE)
        self.cxl_at = None
        self._header()
        self._capabilities()
        self._extended_capabilities()
        self._defaults = bytes(self.bytes)

    def reset(self):
        self.bytes[:] = self._defaults

    def _put(self, at, fmt, value, writable=0):
        struct.pack_into("<" + fmt, self.bytes, at, value)
        struct.pack_into("<" + fmt, self.writable, at, writable)

    def _bar64(self, at, size, flags):
        """A 64-bit BAR. The mask makes sizing work: address bits below the size
        can't be written."""
        self._put(at, "Q", flags, ~(size - 1) & (1 << 64) - 1 if size else 0)

    def _header(self):
        s = self.spec
        self._put(0x00, "H", s.vendor)
        self._put(0x02, "H", s.device)
        self._put(0x04, "H", 0, 0x0546)         # memory, master, parity, SERR, INTx disable; no I/O space
        self._put(0x06, "H", 0x0010)            # there is a capability list
        struct.pack_into("<H", self.clear_on_write, 0x06, 0xF900)
        self._put(0x08, "I", 0x030200 << 8 | 0xA1)      # class, revision
        self._put(0x0C, "B", 0, 0xFF)
        self._bar64(0x10, s.bar0_size, 0xC if s.bar0_prefetchable else 0x4)
        if s.bar2_size:
            self._bar64(0x18, s.bar2_size, 0xC)
        self._put(0x2C, "H", 0x10DE)
        self._put(0x2E, "H", 0x16EB)
        self._put(0x34, "B", PM_CAP)
        self._put(0x3C, "B", 0, 0xFF)

    def _capabilities(self):
        last = PCIE_CAP if self.spec.pcie else 0
        after_msi = MSIX_CAP if self.spec.msix else last
        self._put(PM_CAP, "H", 0x01 | (MSI_CAP if self.spec.msi else after_msi) << 8)
        self._put(PM_CAP + 2, "H", 0x0003)              # PM 1.2, no D1/D2, no PME
        # NoSoftReset, unless leaving D3hot must reset the device.
        self._put(PM_CAP + 4, "H", 0x0000 if self.spec.soft_reset else 0x0008, 0x0003)
        if self.spec.msi:
            self._put(MSI_CAP, "H", 0x05 | after_msi << 8)
            self._put(MSI_CAP + 2, "H", 0x0080, 0x0071)  # 64-bit, one vector
            self._put(MSI_CAP + 4, "Q", 0, ~0x3 & (1 << 64) - 1)
            self._put(MSI_CAP + 12, "H", 0, 0xFFFF)
        if self.spec.msix:
            self._put(MSIX_CAP, "H", 0x11 | last << 8)
            self._put(MSIX_CAP + 2, "H", MSIX_VECTORS - 1, 0xC000)
            self._put(MSIX_CAP + 4, "I", MSIX_TABLE)    # both in BAR0
            self._put(MSIX_CAP + 8, "I", MSIX_PENDING)
        if self.spec.pcie:
            self._pcie()

    def _pcie(self):
        self._put(PCIE_CAP, "H", 0x10)
        self._put(PCIE_CAP + 2, "H", 0x0002)            # version 2, endpoint
        self._put(PCIE_CAP + 4, "I", 0x00008000 | (0x10000000 if self.spec.flr else 0))
        self._put(EXP_DEVCTL, "H", 0x2810, 0x7FFF)
        struct.pack_into("<H", self.clear_on_write, EXP_DEVCTL + 2, 0x000F)
        self._put(PCIE_CAP + 12, "I", 0x00000101)       # 2.5 GT/s, one lane: QEMU's root ports ask for no more
        self._put(PCIE_CAP + 16, "H", 0, 0x0FFB)
        self._put(PCIE_CAP + 18, "H", 0x0011)
        self._put(PCIE_CAP + 0x24, "I", 0x0000001F)     # completion timeout ranges and disable
        self._put(PCIE_CAP + 0x28, "H", 0, 0x001F)
        self._put(PCIE_CAP + 0x2C, "I", 0x00000002)
        self._put(PCIE_CAP + 0x30, "H", 0x0001, 0x000F)

    def _extended_capabilities(self):
        wanted = []
        if self.spec.mig_dvsec is not None:
            wanted.append(self._nvidia_dvsec)
        if self.spec.cxl is not None:
            wanted.append(self._cxl_dvsec)
        # Longer than a step, so it comes last.
        if self.spec.aer:
            wanted.append(self._aer)
        for i, put in enumerate(wanted):
            at = EXT_CAPS + i * EXT_CAP_STEP
            more = at + EXT_CAP_STEP if i + 1 < len(wanted) else 0
            # pylint: disable-next=comparison-with-callable  # which method this is
            ident = 0x0001 | 2 << 16 if put == self._aer else 0x0023 | 1 << 16
            self._put(at, "I", ident | more << 20)
            put(at)

    def _aer(self, at):
        """Masks and severities are PCIe's defaults. The model itself sets no
        error bit."""
        defined = 0x07FFF030
        struct.pack_into("<I", self.clear_on_write, at + 0x04, defined)
        self._put(at + 0x08, "I", 0x00400000, defined)
        self._put(at + 0x0C, "I", 0x00462030, defined)
        struct.pack_into("<I", self.clear_on_write, at + 0x10, 0xF1C1)
        self._put(at + 0x14, "I", 0x0000E000, 0xF1C1)

    def _nvidia_dvsec(self, at):
        self._put(at + 4, "I", 0x10DE | 0x010 << 20)
        self._put(at + 8, "H", 3)
        self._put(at + 0x0A, "H", self.spec.mig_dvsec)

    def _cxl_dvsec(self, at):
        self.cxl_at = at
        self._put(at + 4, "I", 0x1E98 | 2 << 16 | 0x03C << 20)
        self._put(at + 8, "H", 0)
        self._put(at + 0x0A, "H", 0x0016)               # mem capable, one HDM range
        self._put(at + 0x18, "I", self.spec.cxl.size >> 32)

    def set_cxl_status(self, valid, active):
        """Range 1 Size Low has the two status bits beside bits 31:28 of the
        size and the timeout."""
        cxl = self.spec.cxl
        low = (cxl.size & 0xF0000000) | (cxl.timeout & 7) << 13
        low |= (CXL_INFO_VALID if valid else 0) | (CXL_ACTIVE if active else 0)
        struct.pack_into("<I", self.bytes, self.cxl_at + 0x1C, 0xFFFFFFFF if cxl.gone else low)

    def read(self, at, count):
        return bytes(self.bytes[at:at + count])

    def write(self, at, data):
        for i, new in enumerate(data, at):
            mask = self.writable[i]
            old = self.bytes[i] & ~(self.clear_on_write[i] & new)
            self.bytes[i] = old & ~mask | new & mask

class Gpu:
    """The device: regions, readiness, resets and counters, without sockets.

    Every method takes self.lock, so that a test may read and change a device
    that QEMU is using."""

    def __init__(self, spec=None, **fields):
        self.spec = spec or Spec.from_dict(fields)
        self.lock = threading.RLock()
        self.config = ConfigSpace(self.spec)
        self._make_bar0()
        self.bar2_fd = -1
        self.bar2 = None
        if self.spec.bar2_size:
            self.bar2_fd = os.memfd_create("model-bar2", os.MFD_CLOEXEC)
            os.ftruncate(self.bar2_fd, self.spec.bar2_size)
            self.bar2 = mmap.mmap(self.bar2_fd, self.spec.bar2_size)
        self.l2 = l2.Cache(self.bar2, self.spec.bar2_cache) if self.spec.bar2_cache else None
        self.timers = {"c2c": Timer(self.spec.c2c), "hbm": Timer(self.spec.hbm)}
        if self.spec.cxl:
            self.timers["cxl_valid"] = Timer(self.spec.cxl.valid)
            self.timers["cxl_active"] = Timer(self.spec.cxl.active)
        self.answers = True
        self.powered = True
        self.half_port_read = False
        # Called with True or False before anyone else can see the change.
        self.on_power = lambda on: None
        # Called after each reset, before anyone else can see it.
        self.on_reset = None
        self.counters = dict.fromkeys(
            ("resets", "flr", "device_reset", "c2c_reads", "hbm_reads", "bar0_reads", "config_reads", "soft_resets",
             "power_ons", "power_offs", "accesses_without_power", "port_reads_without_power",
             "dma_reads", "dma_writes", "dma_faults"), 0)

    def close(self):
        self.bar0.close()
        if self.bar2 is not None:
            self.bar2.close()
            os.close(self.bar2_fd)

    # What a test may do from outside the machine.

    def ready(self):
        with self.lock:
            return all(t.ready() for t in self.timers.values())

    def not_ready_for(self, ms):
        """Not ready from now on, for ms milliseconds. None: until a reset ends
        it."""
        with self.lock:
            for t in self.timers.values():
                t.start(ms)

    def set_reset_delay(self, ms):
        with self.lock:
            for t in self.timers.values():
                t.reset_ms = ms

    def restore_readiness(self):
        """Undo set_reset_delay(), also what the machine's register did. What
        waits for a reset goes on as after one."""
        with self.lock:
            for t in self.timers.values():
                t.restore()

    def answer(self, on):
        """While this is off, all reads are ones and all writes are lost, as if
        the device had left the bus."""
        with self.lock:
            self.answers = on

    def drop_cache(self):
        """Forget what BAR2's cache has not written to the memory. Returns the
        number of such lines."""
        with self.lock:
            return self.l2.drop() if self.l2 else 0

    def reset(self, kind):
        """Reset the device. kind: the counter that counts it, "flr" or
        "device_reset". Power stays as it is."""
        with self.lock:
            self.counters["resets"] += 1
            self.counters[kind] += 1
            self._start_anew()
            if self.on_reset:
                self.on_reset()     # pylint: disable=not-callable  # None until it is set

    def _make_bar0(self):
        self.bar0 = mmap.mmap(-1, BAR0_SIZE)
        self.falcon = falcon.Falcon(self.bar0) if self.spec.falcon else None

    def _start_anew(self):
        self.config.reset()
        self.bar0.close()
        self._make_bar0()
        self.drop_cache()
        for t in self.timers.values():
            t.start(t.reset_ms)

    def _in_d3hot(self):
        return self.config.read(PM_CAP + 4, 1)[0] & 3 == 3

    # DMA.

    def is_master(self):
        """Whether the function may read and write the host's memory."""
        with self.lock:
            return self.powered and self.answers and not self._in_d3hot() and bool(self.config.read(4, 1)[0] & 4)

    def count(self, name):
        with self.lock:
            self.counters[name] += 1

    def transfer(self, bus):
        """Do what the DMA engine was told to, through a Server and in its
        thread."""
        engine = self.falcon
        if engine:
            engine.move(self, bus)

    def _set_power(self, on):
        if on == self.powered:
            return
        self.counters["power_ons" if on else "power_offs"] += 1
        if on:
            self._start_anew()
        self.powered = on
        self.on_power(on)

    def _count_without_power(self, read=None):
        """Count an access that finds no power. read: (region, offset, count),
        or None for a write. The two PORT_READS together are one read of the
        root port's register, which has power. Either of them alone is an
        access like any other, as is a pair with something in between."""
        if self._end_port_read(read):
            self.counters["port_reads_without_power"] += 1
        elif read == PORT_READS[0]:
            self.half_port_read = True
        else:
            self.counters["accesses_without_power"] += 1

    def _end_port_read(self, read=None):
        """Whether read completes a pair of PORT_READS. Otherwise, count a first
        half that waits for its second."""
        whole = self.half_port_read and read == PORT_READS[1]
        self.counters["accesses_without_power"] += self.half_port_read and not whole
        self.half_port_read = False
        return whole

    def _is_power_register(self, index, at, count):
        return self.spec.power and (index, at, count) == (CONFIG_REGION, POWER_REGISTER, 4)

    # Regions.

    def region_info(self, index):
        """(flags, size, fd or -1)"""
        rw = REGION_FLAG_READ | REGION_FLAG_WRITE
        if index == BAR0_REGION:
            return rw, self.spec.bar0_size, -1
        if index == BAR2_REGION and self.bar2 is not None:
            # QEMU maps the memory, unless a cache is in front of it.
            return (rw, self.spec.bar2_size, -1) if self.l2 else (rw | REGION_FLAG_MMAP, self.spec.bar2_size, self.bar2_fd)
        if index == CONFIG_REGION:
            return rw, CONFIG_SIZE, -1
        return 0, 0, -1

    def _check(self, index, at, count):
        size = self.region_info(index)[1]
        if at + count > size or count > MAX_TRANSFER:
            raise OSError(errno.EINVAL, f"region {index} has no {count} bytes at {at:#x}")

    def read(self, index, at, count):
        with self.lock:
            self._check(index, at, count)
            if self._is_power_register(index, at, count):
                self._end_port_read()
                return struct.pack("<I", self.powered)
            if not self.answers:
                return b"\xff" * count
            if not self.powered:
                self._count_without_power((index, at, count))
                return b"\xff" * count
            if index == CONFIG_REGION:
                self.counters["config_reads"] += 1
                if self.config.cxl_at is not None:
                    # The one that comes later is read first: after a pause
                    # between them, it would come alone.
                    active = self.timers["cxl_active"].ready()
                    self.config.set_cxl_status(self.timers["cxl_valid"].ready(), active)
                return self.config.read(at, count)
            if index == BAR2_REGION:
                return self.l2.read(at, count) if self.l2 else self.bar2[at:at + count]
            self.counters["bar0_reads"] += 1
            return self._read_bar0(at, count)

    def write(self, index, at, data):
        with self.lock:
            self._check(index, at, len(data))
            if self._is_power_register(index, at, len(data)):
                self._end_port_read()
                self._set_power(bool(data[0] & 1))
            elif not self.answers:
                pass
            elif not self.powered:
                self._count_without_power()
            elif index == CONFIG_REGION:
                asleep = self._in_d3hot()
                self.config.write(at, data)
                if self.spec.soft_reset and asleep and not self._in_d3hot():
                    self.counters["soft_resets"] += 1
                    self._start_anew()
                if self.spec.pcie and self.spec.flr and self._has_flr(at, data):
                    self.reset("flr")
            elif index == BAR2_REGION and self.l2:
                self.l2.write(at, data)
            elif index == BAR2_REGION:
                self.bar2[at:at + len(data)] = data
            else:
                self._write_bar0(at, data)

    @staticmethod
    def _has_flr(at, data):
        high_byte = EXP_DEVCTL + 1
        return at <= high_byte < at + len(data) and data[high_byte - at] & (DEVCTL_FLR >> 8)

    @staticmethod
    def _overlap(at, count, where, size):
        return at < where + size and where < at + count

    def _read_bar0(self, at, count):
        data = bytearray(self.bar0[at:at + count])
        for where, name in ((C2C_REGISTER, "c2c"), (HBM_REGISTER, "hbm")):
            if self._overlap(at, count, where, 4):
                self.counters[name + "_reads"] += 1
                self._overlay(data, at, where, READY_VALUE if self.timers[name].ready() else self.spec.unready_value)
        for where in falcon.READ if self.falcon else ():
            if self._overlap(at, count, where, 4):
                self._overlay(data, at, where, self.falcon.read(where))
        if self._overlap(at, count, CONTROL_BLOCK, CONTROL_SIZE):
            first = max(at, CONTROL_BLOCK) & ~3
            for where in range(first, min(at + count, CONTROL_BLOCK + CONTROL_SIZE), 4):
                self._overlay(data, at, where, self._read_control(where - CONTROL_BLOCK))
        return bytes(data)

    @staticmethod
    def _overlay(data, at, where, value):
        for i, byte in enumerate(struct.pack("<I", value & 0xFFFFFFFF)):
            if 0 <= where + i - at < len(data):
                data[where + i - at] = byte

    def _write_bar0(self, at, data):
        if self._overlap(at, len(data), CONTROL_BLOCK, CONTROL_SIZE):
            if len(data) == 4 and at % 4 == 0:
                self._write_control(at - CONTROL_BLOCK, struct.unpack("<I", data)[0])
            return
        if self.falcon and len(data) == 4 and at % 4 == 0:
            self.falcon.write(at, struct.unpack("<I", data)[0])
            return
        # Reads of the readiness registers never get here, so what is written
        # over them stays hidden.
        self.bar0[at:at + len(data)] = data

    # The control block; README.md has the table.

    def _read_control(self, register):
        c = self.counters
        reset_ms = self.timers["c2c"].reset_ms
        return {
            0x00: CONTROL_MAGIC,
            0x04: c["resets"],
            0x08: c["c2c_reads"],
            0x0C: c["hbm_reads"],
            0x10: NEVER if reset_ms is None else reset_ms,
            0x18: int(self.ready()),
        }.get(register, 0)

    def _write_control(self, register, value):
        ms = None if value == NEVER else value
        if register == 0x10:
            self.set_reset_delay(ms)
        elif register == 0x14:
            self.not_ready_for(ms)

@dataclasses.dataclass
class DmaRange:
    address: int
    size: int
    flags: int
    offset: int
    memory: "mmap.mmap | None"

class Server:
    """Speaks the protocol for one Gpu on one UNIX socket, with one client at a
    time, in a thread of its own.

    The owner calls start() and stop(). Any thread may call dma_read() and
    dma_write() while a client is connected."""

    def __init__(self, gpu, path):
        self.gpu = gpu
        self.path = path
        self.ranges = []
        self.connection = None
        self._send_lock = threading.Lock()
        self._answers = {}
        self._next_id = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(1)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="model " + path, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        """End the thread, drop the client and remove the socket."""
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        os.unlink(self.path)

    # The thread.

    def _run(self):
        while self._wait_for(self._listener):
            connection = self._listener.accept()[0]
            try:
                self.serve(connection)
            finally:
                connection.close()

    def _wait_for(self, sock):
        """Wait for sock. False when the server must stop."""
        ready = select.select([sock, self._wake_read], [], [])[0]
        return self._wake_read not in ready

    def serve(self, connection):
        """Answer one client until it leaves, or until message boundaries are
        lost."""
        self.connection = connection
        try:
            while self._serve_one(connection):
                pass
        except (ConnectionError, BrokenPipeError):
            pass
        finally:
            self._forget_client()

    def _forget_client(self):
        self.connection = None
        self._drop(list(self.ranges))
        for event, _ in self._answers.values():
            event.set()

    def _receive(self, connection, count, fds):
        data = bytearray()
        while len(data) < count:
            if not self._wait_for(connection):
                return None
            # SCM_RIGHTS is attached to the first byte, so keep what comes with
            # it.
            room = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
            part, control, _, _ = connection.recvmsg(count - len(data), room, socket.MSG_CMSG_CLOEXEC)
            for level, kind, payload in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    got = array.array("i")
                    got.frombytes(payload[:len(payload) - len(payload) % got.itemsize])
                    fds.extend(got)
            if not part:
                return None
            data += part
        return bytes(data)

    def _serve_one(self, connection):
        """Receive and handle one message. False when the client is gone."""
        fds = []
        try:
            header = self._receive(connection, HEADER.size, fds)
            if header is None:
                return False
            ident, command, size, flags, error = HEADER.unpack(header)
            if not HEADER.size <= size <= MAX_MESSAGE:
                # The start of the next message is unknown.
                self._send(ident, command, b"", error=errno.EINVAL)
                return False
            body = self._receive(connection, size - HEADER.size, fds)
            if body is None:
                return False
            if flags & FLAG_TYPE == FLAG_REPLY:
                self._take_answer(ident, flags, error, body)
                return True
            self._answer(ident, command, flags, body, fds)
            # After the answer: the client waits for it, and may have to answer
            # what DMA asks.
            self.gpu.transfer(self)
            return True
        finally:
            for fd in fds:
                if fd >= 0:
                    os.close(fd)

    def _answer(self, ident, command, flags, body, fds):
        """Do what a message asks for. An OSError is its error reply."""
        out_fds, reply, error = [], b"", 0
        try:
            handler = self._handlers.get(command)
            if flags & FLAG_TYPE or handler is None:
                raise OSError(errno.ENOSYS, f"command {command} is not known")
            reply = handler(self, body, fds, out_fds)
        except OSError as e:
            error = e.errno
        except struct.error:
            error = errno.EINVAL
        if not flags & FLAG_NO_REPLY:
            self._send(ident, command, reply, error, fds=out_fds)

    def _send(self, ident, command, body, error=0, flags=FLAG_REPLY, fds=()):
        if error:
            flags |= FLAG_ERROR
        message = HEADER.pack(ident, command, HEADER.size + len(body), flags, error) + body
        connection = self.connection
        if connection is None:
            raise ConnectionError("no client")
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with self._send_lock:
            sent = connection.sendmsg([message], control)
            connection.sendall(message[sent:])

    # Handlers: (body, fds received, fds to send) -> the reply's body.

    def _version(self, body, fds, out_fds):
        major, minor = struct.unpack_from("=HH", body)
        if major != 0:
            raise OSError(errno.EINVAL, f"version {major}.{minor} is not spoken here")
        caps = {"capabilities": {"max_msg_fds": MAX_FDS, "max_data_xfer_size": MAX_TRANSFER, "pgsizes": 4096,
                                 "max_dma_maps": 65535}}
        return struct.pack("=HH", 0, 0) + json.dumps(caps).encode() + b"\0"

    def _dma_map(self, body, fds, out_fds):
        _, flags, offset, address, size = struct.unpack("=IIQQQ", body)
        if size == 0 or address + size > 1 << 64 or flags & ~3:
            raise OSError(errno.EINVAL, "not a range")
        if any(r.address < address + size and address < r.address + r.size for r in self.ranges):
            raise OSError(errno.EEXIST, "overlaps a mapped range")
        memory = None
        if fds:
            protection = (mmap.PROT_READ if flags & 1 else 0) | (mmap.PROT_WRITE if flags & 2 else 0)
            page = offset & ~(mmap.PAGESIZE - 1)
            try:
                memory = mmap.mmap(fds[0], size + offset - page, mmap.MAP_SHARED, protection, offset=page)
            except (OSError, ValueError) as e:
                # The file can't be mapped, but the client answers DMA_READ and
                # DMA_WRITE for it.
                if isinstance(e, OSError) and e.errno not in (errno.ENODEV, errno.EACCES, errno.EPERM):
                    raise
            offset -= page
        self.ranges.append(DmaRange(address, size, flags, offset, memory))
        return b""

    def _dma_unmap(self, body, fds, out_fds):
        _, flags, address, size = struct.unpack_from("=IIQQ", body)
        if flags & 2:
            gone = list(self.ranges)
        else:
            gone = [r for r in self.ranges if address <= r.address and r.address + r.size <= address + size]
            if not gone:
                raise OSError(errno.ENOENT, "nothing is mapped there")
        self._drop(gone)
        return struct.pack("=IIQQ", 24, flags, address, size)

    def _drop(self, ranges):
        for r in ranges:
            self.ranges.remove(r)
            if r.memory is not None:
                r.memory.close()

    def _get_info(self, body, fds, out_fds):
        struct.unpack_from("=IIII", body)
        return struct.pack("=IIII", 16, 0x3, NUM_REGIONS, NUM_IRQS)     # can reset, is PCI

    def _get_region_info(self, body, fds, out_fds):
        _, _, index, _, _, _ = struct.unpack_from("=IIIIQQ", body)
        if index >= NUM_REGIONS:
            raise OSError(errno.EINVAL, f"no region {index}")
        flags, size, fd = self.gpu.region_info(index)
        if fd >= 0:
            out_fds.append(fd)
        return struct.pack("=IIIIQQ", 32, flags, index, 0, size, 0)

    def _vectors(self, index):
        spec = self.gpu.spec
        return {MSI_IRQ: int(spec.msi), MSIX_IRQ: MSIX_VECTORS if spec.msix else 0}.get(index, 0)

    def _get_irq_info(self, body, fds, out_fds):
        _, _, index, _ = struct.unpack_from("=IIII", body)
        if index >= NUM_IRQS:
            raise OSError(errno.EINVAL, f"no interrupt {index}")
        count = self._vectors(index)
        return struct.pack("=IIII", 16, IRQ_FLAG_EVENTFD if count else 0, index, count)

    def _set_irqs(self, body, fds, out_fds):
        _, _, index, start, count = struct.unpack_from("=IIIII", body)
        if index >= NUM_IRQS:
            raise OSError(errno.EINVAL, f"no interrupt {index}")
        have = self._vectors(index)
        if start + count > have:
            raise OSError(errno.EINVAL, f"interrupt {index} has {have} vectors")
        # The device never raises one.
        return b""

    def _region_read(self, body, fds, out_fds):
        offset, region, count = struct.unpack("=QII", body)
        return struct.pack("=QII", offset, region, count) + self.gpu.read(region, offset, count)

    def _region_write(self, body, fds, out_fds):
        offset, region, count = struct.unpack_from("=QII", body)
        data = body[16:]
        if len(data) != count:
            raise OSError(errno.EINVAL, f"{count} bytes announced, {len(data)} sent")
        self.gpu.write(region, offset, data)
        return struct.pack("=QII", offset, region, count)

    def _reset(self, body, fds, out_fds):
        self.gpu.reset("device_reset")
        return b""

    _handlers = {
        VERSION: _version, DMA_MAP: _dma_map, DMA_UNMAP: _dma_unmap, GET_INFO: _get_info,
        GET_REGION_INFO: _get_region_info, GET_IRQ_INFO: _get_irq_info, SET_IRQS: _set_irqs,
        REGION_READ: _region_read, REGION_WRITE: _region_write, RESET: _reset,
    }

    # DMA by the device.

    def _range_of(self, address, count, flag):
        for r in list(self.ranges):     # the server's thread may change it meanwhile
            if r.address <= address and address + count <= r.address + r.size:
                if not r.flags & flag:
                    raise PermissionError(errno.EACCES, f"DMA at {address:#x} is not allowed that way")
                return r
        return None

    def dma_read(self, address, count):
        """count bytes at the device's address of the client's memory. The
        client is asked even where it announced no mapping, because an IOMMU may
        allow accesses that it does not announce, as to other devices' memory.
        OSError if it refuses."""
        r = self._range_of(address, count, 1)
        if r is not None and r.memory is not None:
            at = address - r.address + r.offset
            return r.memory[at:at + count]
        data = b""
        while len(data) < count:
            n = min(DMA_CHUNK, count - len(data))
            where = address + len(data)
            answer = self._ask(DMA_READ, struct.pack("=QQ", where, n))
            data += answer[16:16 + n]
            if len(answer) < 16 + n:
                raise OSError(errno.EIO, f"a short answer to a DMA read at {where:#x}")
        return data

    def dma_write(self, address, data):
        r = self._range_of(address, len(data), 2)
        if r is not None and r.memory is not None:
            at = address - r.address + r.offset
            r.memory[at:at + len(data)] = data
            return
        for i in range(0, len(data), DMA_CHUNK):
            part = data[i:i + DMA_CHUNK]
            self._ask(DMA_WRITE, struct.pack("=QQ", address + i, len(part)) + part)

    def _ask(self, command, body, timeout=120):
        """Send a request and wait for the answer, which the server's thread
        receives."""
        event, answer = threading.Event(), []
        with self._send_lock:
            # Apart from the client's numbers, which count up from 0.
            self._next_id = self._next_id % 0x7FFF + 1
            ident = 0x8000 | self._next_id
            self._answers[ident] = (event, answer)
        try:
            self._send(ident, command, body, flags=0)
            if threading.current_thread() is self._thread:
                while not event.is_set() and self._serve_one(self.connection):
                    pass
            elif not event.wait(timeout):
                raise TimeoutError(f"no answer to command {command} within {timeout} s")
        finally:
            del self._answers[ident]
        if not answer:
            raise ConnectionError("the client went away")
        flags, error, reply = answer
        if flags & FLAG_ERROR:
            raise OSError(error, os.strerror(error))
        return reply

    def _take_answer(self, ident, flags, error, body):
        if ident in self._answers:
            event, answer = self._answers[ident]
            answer.extend((flags, error, body))
            event.set()
