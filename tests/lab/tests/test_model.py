# SPDX-License-Identifier: GPL-2.0-only
"""The model GPU's resets: if they lost or kept the wrong things, tests of the driver
would pass for nothing. Those fail where it is ready too early or too late, and QEMU
and the kernel use all else that it has."""

import os
import socket
import struct
import tempfile
import unittest

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


class ServerCase(unittest.TestCase):
    """A server for a device that the test specifies, and a client."""

    def serve(self, **fields):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.gpu = model.Gpu(**fields)
        self.addCleanup(self.gpu.close)
        server = model.Server(self.gpu, directory.name + "/gpu.sock").start()
        self.addCleanup(server.stop)
        client = Client(directory.name + "/gpu.sock")
        self.addCleanup(client.close)
        return client

    def capability(self, c, wanted):
        at = c.read(CONFIG, 0x34, 1)[0]
        while c.read(CONFIG, at, 1)[0] != wanted:
            at = c.read(CONFIG, at + 1, 1)[0]
            self.assertTrue(at, "no such capability")
        return at


class Resets(ServerCase):
    def test_a_reset_drops_what_was_written_last(self):
        """With a cache, the memory has what was written before that."""
        c = self.serve(bar2_size=1 << 16, bar2_cache=4 * l2.LINE)
        self.gpu.bar2[:] = b"old " * (1 << 14)
        new = b"new " * (10 * l2.LINE // 4)
        c.write(BAR2, 0, new)
        # In the cache again, and so written last, like the end.
        c.write(BAR2, 6 * l2.LINE + 2, b"xy")
        self.assertEqual(c.read(BAR2, 6 * l2.LINE - 2, 8), b"w nexyne")
        self.assertEqual(c.read(BAR2, 0, len(new))[7 * l2.LINE:], new[7 * l2.LINE:])
        self.assertEqual(self.gpu.bar2[:7 * l2.LINE], new[:6 * l2.LINE] + b"old " * (l2.LINE // 4))
        c.ask(model.RESET)
        self.assertEqual(c.read(BAR2, 0, 10 * l2.LINE), new[:6 * l2.LINE] + b"old " * (4 * l2.LINE // 4))
        # Nothing is left to drop.
        self.assertEqual(self.gpu.drop_cache(), 0)

    def test_an_evicted_line_is_kept(self):
        """A line that is written twice, with others in between, survives."""
        c = self.serve(bar2_size=1 << 16, bar2_cache=2 * l2.LINE)
        self.gpu.bar2[:] = b"old " * (1 << 14)
        for _ in range(2):
            c.write(BAR2, 0, b"new " * (4 * l2.LINE // 4))
        self.assertEqual(self.gpu.drop_cache(), 2)
        self.assertEqual(c.read(BAR2, 0, 4 * l2.LINE), b"new " * (4 * l2.LINE // 4))

    def test_device_reset(self):
        c = self.serve()
        c.write(CONFIG, 4, b"\x06\0")
        c.write(BAR0, 0x2000, b"left")
        self.assertEqual(c.ask(model.RESET), b"")
        self.assertEqual(c.read(CONFIG, 4, 2), b"\0\0")
        self.assertEqual(c.read(BAR0, 0x2000, 4), bytes(4))
        self.assertEqual((self.gpu.counters["resets"], self.gpu.counters["device_reset"]), (1, 1))

    def test_flr(self):
        c = self.serve()
        pcie = self.capability(c, 0x10)
        for width, data in ((2, b"\x10\xa8"), (4, b"\x10\xa8\0\0"), (1, b"\xa8")):
            c.write(CONFIG, 4, b"\x06\0")
            c.write(CONFIG, 0x10, struct.pack("<Q", 0x8000000000))
            at = pcie + 8 if width > 1 else pcie + 9
            before = self.gpu.counters["flr"]
            c.write(CONFIG, at, data)
            self.assertEqual(self.gpu.counters["flr"], before + 1)
            self.assertEqual(c.read(CONFIG, 4, 2), b"\0\0")
            self.assertEqual(struct.unpack("<Q", c.read(CONFIG, 0x10, 8))[0], 4)
            self.assertFalse(c.read(CONFIG, pcie + 9, 1)[0] & 0x80, "the bit reads as 0")
        c.write(CONFIG, pcie + 8, b"\x10\x28")
        self.assertEqual(self.gpu.counters["flr"], 3, "without the bit there is none")
        self.assertEqual(self.gpu.counters["device_reset"], 0)

    def test_power_state(self):
        c = self.serve()
        pm = self.capability(c, 0x01)
        c.write(CONFIG, pm + 4, b"\x03\0")
        self.assertEqual(c.read(CONFIG, pm + 4, 1)[0] & 3, 3)
        self.assertTrue(c.read(CONFIG, pm + 4, 1)[0] & 8, "no reset comes with it")
        c.write32(0, 0x100, 7)
        c.write(CONFIG, pm + 4, b"\0\0")
        self.assertEqual(c.read32(0, 0x100), 7)
        self.assertEqual(self.gpu.counters["soft_resets"], 0)

    def test_leaving_d3hot_is_a_reset_on_request(self):
        c = self.serve(soft_reset=True, ready_after_reset_ms=None)
        pm = self.capability(c, 0x01)
        self.assertFalse(c.read(CONFIG, pm + 4, 1)[0] & 8)
        c.write32(0, 0x100, 7)
        for state, soft_resets in ((0, 0), (3, 0), (3, 0), (0, 1), (0, 1)):
            c.write(CONFIG, pm + 4, bytes((state, 0)))
            self.assertEqual(c.read(CONFIG, pm + 4, 1)[0] & 3, state)
            self.assertEqual(self.gpu.counters["soft_resets"], soft_resets)
            self.assertEqual(c.read32(0, 0x100), 0 if soft_resets else 7)
            self.assertEqual(c.read32(0, model.C2C_REGISTER), 0 if soft_resets else 0xFF)
        self.assertEqual(self.gpu.counters["resets"], 0)

    def test_resets_are_counted(self):
        c = self.serve()
        c.ask(model.RESET)
        c.write(CONFIG, 0x68, b"\0\x80")
        self.assertEqual((c.read32(BAR0, CONTROL + 4), c.read32(BAR0, CONTROL + 0x20)), (2, 1))
        self.assertEqual(c.read32(BAR0, CONTROL + 0x1C), 1)

    def test_scratch_survives_a_reset(self):
        c = self.serve()
        c.write32(BAR0, CONTROL + 0x24, 0xC0FFEE)
        c.ask(model.RESET)
        self.assertEqual(c.read32(BAR0, CONTROL + 0x24), 0xC0FFEE)
