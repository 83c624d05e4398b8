# SPDX-License-Identifier: GPL-2.0-only
"""The model GPU's resets: if they lost or kept the wrong things, tests of the driver
would pass for nothing. Those fail where it is ready too early or too late, and QEMU
and the kernel use all else that it has."""

import contextlib
import os
import socket
import struct

import pytest

from lab.model import gpu as model
from lab.model import l2

# A busy machine is slow. After this time, the model is stuck.
STUCK_S = 300
CONFIG, BAR0, BAR2 = 7, 0, 2
CONTROL = 0xF00000


class Client:
    """A minimal client of the protocol."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(STUCK_S)
        self.sock.connect(path)
        self.ident = 0

    def close(self):
        self.sock.close()

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def ask(self, command, body=b""):
        """The reply's body. Raises OSError for an error reply."""
        self.ident += 1
        self.sock.sendall(struct.pack("=HHIII", self.ident, command, 16 + len(body), 0, 0) + body)
        ident, answered, size, flags, error = struct.unpack("=HHIII", self.exactly(16))
        reply = self.exactly(size - 16)
        assert (ident, answered, flags & 0xF) == (self.ident, command, 1), "not the reply to what was asked"
        if flags & 0x20:
            raise OSError(error, os.strerror(error))
        return reply

    def read(self, region, at, count):
        return self.ask(model.REGION_READ, struct.pack("=QII", at, region, count))[16:]

    def write(self, region, at, data):
        self.ask(model.REGION_WRITE, struct.pack("=QII", at, region, len(data)) + data)

    def read32(self, region, at):
        return struct.unpack("<I", self.read(region, at, 4))[0]

    def write32(self, region, at, value):
        self.write(region, at, struct.pack("<I", value))


@pytest.fixture
def serve(tmp_path):
    """A function for a device with these fields: the device, and a client."""
    with contextlib.ExitStack() as stack:
        def serve(**fields):
            gpu = model.Gpu(**fields)
            stack.callback(gpu.close)
            stack.callback(model.Server(gpu, str(tmp_path / "gpu.sock")).start().stop)
            client = Client(str(tmp_path / "gpu.sock"))
            stack.callback(client.close)
            return gpu, client
        yield serve


def capability(c, wanted):
    at = c.read(CONFIG, 0x34, 1)[0]
    while c.read(CONFIG, at, 1)[0] != wanted:
        at = c.read(CONFIG, at + 1, 1)[0]
        assert at, "no such capability"
    return at


def test_a_reset_drops_what_was_written_last(serve):
    """With a cache, the memory has what was written before that."""
    gpu, c = serve(bar2_size=1 << 16, bar2_cache=4 * l2.LINE)
    gpu.bar2[:] = b"old " * (1 << 14)
    new = b"new " * (10 * l2.LINE // 4)
    c.write(BAR2, 0, new)
    # In the cache again, and so written last, like the end.
    c.write(BAR2, 6 * l2.LINE + 2, b"xy")
    assert c.read(BAR2, 6 * l2.LINE - 2, 8) == b"w nexyne"
    assert c.read(BAR2, 0, len(new))[7 * l2.LINE:] == new[7 * l2.LINE:]
    assert gpu.bar2[:7 * l2.LINE] == new[:6 * l2.LINE] + b"old " * (l2.LINE // 4)
    c.ask(model.RESET)
    assert c.read(BAR2, 0, 10 * l2.LINE) == new[:6 * l2.LINE] + b"old " * (4 * l2.LINE // 4)
    # Nothing is left to drop.
    assert gpu.drop_cache() == 0


def test_an_evicted_line_is_kept(serve):
    """A line that is written twice, with others in between, survives."""
    gpu, c = serve(bar2_size=1 << 16, bar2_cache=2 * l2.LINE)
    gpu.bar2[:] = b"old " * (1 << 14)
    for _ in range(2):
        c.write(BAR2, 0, b"new " * (4 * l2.LINE // 4))
    assert gpu.drop_cache() == 2
    assert c.read(BAR2, 0, 4 * l2.LINE) == b"new " * (4 * l2.LINE // 4)


def test_device_reset(serve):
    gpu, c = serve()
    c.write(CONFIG, 4, b"\x06\0")
    c.write(BAR0, 0x2000, b"left")
    assert c.ask(model.RESET) == b""
    assert c.read(CONFIG, 4, 2) == b"\0\0"
    assert c.read(BAR0, 0x2000, 4) == bytes(4)
    assert (gpu.counters["resets"], gpu.counters["device_reset"]) == (1, 1)


def test_flr(serve):
    gpu, c = serve()
    pcie = capability(c, 0x10)
    for width, data in ((2, b"\x10\xa8"), (4, b"\x10\xa8\0\0"), (1, b"\xa8")):
        c.write(CONFIG, 4, b"\x06\0")
        c.write(CONFIG, 0x10, struct.pack("<Q", 0x8000000000))
        at = pcie + 8 if width > 1 else pcie + 9
        before = gpu.counters["flr"]
        c.write(CONFIG, at, data)
        assert gpu.counters["flr"] == before + 1
        assert c.read(CONFIG, 4, 2) == b"\0\0"
        assert struct.unpack("<Q", c.read(CONFIG, 0x10, 8))[0] == 4
        assert not c.read(CONFIG, pcie + 9, 1)[0] & 0x80, "the bit reads as 0"
    c.write(CONFIG, pcie + 8, b"\x10\x28")
    assert gpu.counters["flr"] == 3, "without the bit there is none"
    assert gpu.counters["device_reset"] == 0


def test_power_state(serve):
    gpu, c = serve()
    pm = capability(c, 0x01)
    c.write(CONFIG, pm + 4, b"\x03\0")
    assert c.read(CONFIG, pm + 4, 1)[0] & 3 == 3
    assert c.read(CONFIG, pm + 4, 1)[0] & 8, "no reset comes with it"
    c.write32(0, 0x100, 7)
    c.write(CONFIG, pm + 4, b"\0\0")
    assert c.read32(0, 0x100) == 7
    assert gpu.counters["soft_resets"] == 0


def test_leaving_d3hot_is_a_reset_on_request(serve):
    gpu, c = serve(soft_reset=True, ready_after_reset_ms=None)
    pm = capability(c, 0x01)
    assert not c.read(CONFIG, pm + 4, 1)[0] & 8
    c.write32(0, 0x100, 7)
    for state, soft_resets in ((0, 0), (3, 0), (3, 0), (0, 1), (0, 1)):
        c.write(CONFIG, pm + 4, bytes((state, 0)))
        assert c.read(CONFIG, pm + 4, 1)[0] & 3 == state
        assert gpu.counters["soft_resets"] == soft_resets
        assert c.read32(0, 0x100) == (0 if soft_resets else 7)
        assert c.read32(0, model.C2C_REGISTER) == (0 if soft_resets else 0xFF)
    assert gpu.counters["resets"] == 0


def test_readiness_is_restored(serve):
    gpu, c = serve()
    c.write32(0, CONTROL + 0x10, 0xFFFFFFFF)
    c.ask(model.RESET)
    assert c.read32(0, model.C2C_REGISTER) == 0
    gpu.restore_readiness()
    assert c.read32(0, model.C2C_REGISTER) == 0xFF
    c.ask(model.RESET)
    assert c.read32(0, model.C2C_REGISTER) == 0xFF


def test_resets_are_counted(serve):
    gpu, c = serve()
    c.ask(model.RESET)
    c.write(CONFIG, 0x68, b"\0\x80")
    assert c.read32(BAR0, CONTROL + 4) == 2
    assert (gpu.counters["flr"], gpu.counters["device_reset"]) == (1, 1)
