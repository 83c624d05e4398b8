# SPDX-License-Identifier: GPL-2.0-only
"""The model GPU: a test for each message of the protocol, then the device's
behaviour."""

import array
import errno
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from lab.model import falcon, l2
from lab.model import gpu as model

# A busy machine is slow. After this time, the model is stuck.
STUCK_S = 300


class Client:
    """A minimal client of the protocol."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(STUCK_S)
        self.sock.connect(path)
        self.ident = 0

    def close(self):
        self.sock.close()

    def send(self, command, body=b"", fds=(), flags=0, size=None, ident=None, error=0):
        if ident is None:
            self.ident += 1
            ident = self.ident
        message = struct.pack("=HHIII", ident, command, 16 + len(body) if size is None else size, flags, error) + body
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([message], control)

    def _exactly(self, count, fds):
        data = b""
        while len(data) < count:
            part, control, _, _ = self.sock.recvmsg(count - len(data), socket.CMSG_SPACE(32))
            for _, _, payload in control:
                got = array.array("i")
                got.frombytes(payload)
                fds.extend(got)
            if not part:
                raise EOFError
            data += part
        return data

    def receive(self):
        fds = []
        ident, command, size, flags, error = struct.unpack("=HHIII", self._exactly(16, fds))
        return ident, command, flags, error, self._exactly(size - 16, fds), fds

    def ask(self, command, body=b"", fds=()):
        """The reply's body. Raises OSError for an error reply."""
        reply, received = self.ask_fds(command, body, fds)
        for fd in received:
            os.close(fd)
        return reply

    def ask_fds(self, command, body=b"", fds=()):
        self.send(command, body, fds)
        ident, answered, flags, error, reply, received = self.receive()
        assert (ident, answered, flags & 0xF) == (self.ident, command, 1), "not the reply to what was asked"
        if flags & 0x20:
            assert error, "an error reply without an error"
            raise OSError(error, os.strerror(error))
        return reply, received

    def read(self, region, at, count):
        body = struct.pack("=QII", at, region, count)
        reply = self.ask(model.REGION_READ, body)
        assert reply[:16] == body and len(reply) == 16 + count
        return reply[16:]

    def write(self, region, at, data):
        body = struct.pack("=QII", at, region, len(data))
        assert self.ask(model.REGION_WRITE, body + data) == body

    def read32(self, region, at):
        return struct.unpack("<I", self.read(region, at, 4))[0]

    def write32(self, region, at, value):
        self.write(region, at, struct.pack("<I", value))


CONFIG, BAR0, BAR2 = 7, 0, 2
CONTROL = 0xF00000


class ServerCase(unittest.TestCase):
    """A server for a device that the test specifies, and a client."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.path = self.directory.name + "/gpu.sock"

    def serve(self, **fields):
        self.gpu = model.Gpu(**fields)
        self.addCleanup(self.gpu.close)
        self.server = model.Server(self.gpu, self.path).start()
        self.addCleanup(self.server.stop)
        return self.connect()

    def connect(self):
        client = Client(self.path)
        self.addCleanup(client.close)
        return client

    def assertErrno(self, number):
        return _Raises(self, number)


class _Raises:
    def __init__(self, case, number):
        self.case, self.number = case, number

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.case.assertIsInstance(value, OSError, "no error reply came")
        self.case.assertEqual(value.errno, self.number)
        return True


class Messages(ServerCase):
    def test_version(self):
        c = self.serve()
        offer = {"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1 << 20, "write_multiple": True}}
        reply = c.ask(model.VERSION, struct.pack("=HH", 0, 1) + json.dumps(offer).encode() + b"\0")
        self.assertEqual(struct.unpack_from("=HH", reply), (0, 0))
        self.assertEqual(reply[-1:], b"\0")
        self.assertGreaterEqual(json.loads(reply[4:-1])["capabilities"]["max_msg_fds"], 1)

    def test_version_of_another_major_number(self):
        with self.assertErrno(errno.EINVAL):
            self.serve().ask(model.VERSION, struct.pack("=HH", 1, 0) + b"{}\0")

    def test_version_with_bad_json(self):
        with self.assertErrno(errno.EINVAL):
            self.serve().ask(model.VERSION, struct.pack("=HH", 0, 0) + b"{nonsense\0")

    def test_dma_map_and_unmap(self):
        c = self.serve()
        fd = os.memfd_create("client")
        self.addCleanup(os.close, fd)
        os.ftruncate(fd, 1 << 16)
        self.assertEqual(c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0x2000, 0x100000, 0x4000), [fd]), b"")
        with mmap.mmap(fd, 1 << 16) as memory:
            memory[0x2010:0x2014] = b"word"
            self.assertEqual(self.server.dma_read(0x100010, 4), b"word")
            self.server.dma_write(0x103FFC, b"last")
            self.assertEqual(memory[0x5FFC:0x6000], b"last")
        with self.assertErrno(errno.EEXIST):
            c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, 0x103000, 0x2000))
        unmap = struct.pack("=IIQQ", 24, 0, 0x100000, 0x4000)
        self.assertEqual(c.ask(model.DMA_UNMAP, unmap), unmap)
        with self.assertErrno(errno.ENOENT):
            c.ask(model.DMA_UNMAP, unmap)
        self.refused(c, lambda: self.server.dma_read(0x100010, 4))

    def test_dma_unmap_everything(self):
        c = self.serve()
        for address in (0x1000, 0x8000):
            c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, address, 0x1000))
        c.ask(model.DMA_UNMAP, struct.pack("=IIQQ", 24, 2, 0, 0))
        self.assertEqual(self.server.ranges, [])

    def test_dma_respects_the_direction_and_the_range(self):
        c = self.serve()
        c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 1, 0, 0x1000, 0x1000))
        with self.assertErrno(errno.EACCES):
            self.server.dma_write(0x1000, b"x")
        # The client decides about what isn't mapped.
        self.refused(c, lambda: self.server.dma_read(0x1FFF, 2))
        self.refused(c, lambda: self.server.dma_write(0x4000, b"x"))

    def test_device_get_info(self):
        reply = self.serve().ask(model.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        self.assertEqual(struct.unpack("=IIII", reply), (16, 3, 9, 5))

    def test_get_region_info(self):
        c = self.serve(bar2_size=1 << 16)

        def info(index):
            reply, fds = c.ask_fds(model.GET_REGION_INFO, struct.pack("=IIIIQQ", 32, 0, index, 0, 0, 0))
            self.addCleanup(lambda: [os.close(fd) for fd in fds])
            _, flags, answered, _, size, _ = struct.unpack("=IIIIQQ", reply)
            self.assertEqual(answered, index)
            return flags, size, len(fds)

        self.assertEqual(info(BAR0), (3, 16 << 20, 0))
        self.assertEqual(info(BAR2), (7, 1 << 16, 1))
        self.assertEqual(info(CONFIG), (3, 4096, 0))
        self.assertEqual(info(4), (0, 0, 0))
        with self.assertErrno(errno.EINVAL):
            info(9)

    def test_get_region_io_fds_is_refused(self):
        with self.assertErrno(errno.ENOSYS):
            self.serve().ask(model.GET_REGION_IO_FDS, bytes(16))

    def test_get_irq_info(self):
        for fields, counts in (({}, (0, 0)), ({"msi": True}, (1, 0)), ({"msi": True, "msix": True}, (1, 6))):
            with self.subTest(**fields):
                self.path = f"{self.directory.name}/{sum(counts)}.sock"
                c = self.serve(**fields)
                for index, count in zip((1, 2), counts):
                    reply = c.ask(model.GET_IRQ_INFO, struct.pack("=IIII", 16, 0, index, 0))
                    self.assertEqual(struct.unpack("=IIII", reply)[3], count)

    def test_set_irqs(self):
        c = self.serve(msi=True)
        fd = os.eventfd(0)
        self.addCleanup(os.close, fd)
        c.ask(model.SET_IRQS, struct.pack("=IIIII", 20, 4 | 32, 1, 0, 1), [fd])
        os.eventfd_write(self.server.irqs[1, 0], 1)
        self.assertEqual(os.eventfd_read(fd), 1)
        c.ask(model.SET_IRQS, struct.pack("=IIIII", 20, 1 | 32, 1, 0, 0))
        self.assertEqual(self.server.irqs, {})
        with self.assertErrno(errno.EINVAL):
            c.ask(model.SET_IRQS, struct.pack("=IIIII", 20, 4 | 32, 1, 0, 2))

    def test_set_irqs_of_both_kinds(self):
        c = self.serve(msi=True, msix=True)
        fd = os.eventfd(0)
        self.addCleanup(os.close, fd)
        for index, start, count in ((1, 0, 1), (2, 0, 2), (2, 5, 1)):
            c.ask(model.SET_IRQS, struct.pack("=IIIII", 20, 4 | 32, index, start, count), [fd] * count)
        self.assertEqual(set(self.server.irqs), {(1, 0), (2, 0), (2, 1), (2, 5)})
        c.ask(model.SET_IRQS, struct.pack("=IIIII", 20, 4 | 32, 2, 1, 1))
        self.assertEqual(set(self.server.irqs), {(1, 0), (2, 0), (2, 5)}, "without a file, a vector is off")
        c.ask(model.SET_IRQS, struct.pack("=IIIII", 20, 1 | 32, 2, 0, 0))
        self.assertEqual(set(self.server.irqs), {(1, 0)})

    def test_region_read_and_write(self):
        c = self.serve(bar2_size=1 << 16)
        for region in (BAR0, BAR2):
            for count in (1, 2, 4, 8, 24):
                data = bytes(range(1, count + 1))
                c.write(region, 0x100 + count, data)
                self.assertEqual(c.read(region, 0x100 + count, count), data)
        with self.assertErrno(errno.EINVAL):
            c.read(BAR2, (1 << 16) - 2, 4)
        with self.assertErrno(errno.EINVAL):
            c.read(4, 0, 4)
        with self.assertErrno(errno.EINVAL):
            c.ask(model.REGION_WRITE, struct.pack("=QII", 0, BAR0, 8) + b"few")

    def test_bar2_is_the_memory_that_its_fd_maps(self):
        c = self.serve(bar2_size=1 << 16)
        _, fds = c.ask_fds(model.GET_REGION_INFO, struct.pack("=IIIIQQ", 32, 0, BAR2, 0, 0, 0))
        self.addCleanup(os.close, fds[0])
        c.write(BAR2, 0x40, b"through a message")
        with mmap.mmap(fds[0], 1 << 16) as memory:
            self.assertEqual(memory[0x40:0x51], b"through a message")

    def test_a_reset_drops_what_was_written_last(self):
        """With a cache, the memory has what was written before that."""
        c = self.serve(bar2_size=1 << 16, bar2_cache=4 * l2.LINE)
        _, fds = c.ask_fds(model.GET_REGION_INFO, struct.pack("=IIIIQQ", 32, 0, BAR2, 0, 0, 0))
        self.assertEqual(fds, [], "QEMU must not write around the cache")
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

    def test_dma_by_messages(self):
        """Without an fd, the server asks, and the client answers like QEMU. The
        data takes more than one message."""
        c = self.serve()
        memory = bytearray(os.urandom(200 << 10))
        c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, 0x10000, len(memory)))

        def answer(messages):
            for _ in range(messages):
                ident, command, _, _, body, _ = c.receive()
                address, count = struct.unpack_from("=QQ", body)
                at = address - 0x10000
                if command == model.DMA_READ:
                    c.send(command, body[:16] + memory[at:at + count], flags=1, ident=ident)
                else:
                    memory[at:at + count] = body[16:]
                    c.send(command, body[:16], flags=1, ident=ident)

        peer = threading.Thread(target=answer, args=(4 + 2,))
        peer.start()
        want = bytes(memory)
        self.assertEqual(self.server.dma_read(0x10000, len(memory)), want)
        self.server.dma_write(0x10007, b"new" * 30000)
        peer.join()
        self.assertEqual(memory[7:7 + 90000], b"new" * 30000)
        self.assertEqual(memory[90007:], want[90007:])

    def refused(self, client, dma):
        """DMA for which the server asks the client, which refuses."""
        def refuse():
            ident, command, *_ = client.receive()
            client.send(command, flags=1 | 0x20, ident=ident, error=errno.EFAULT)

        peer = threading.Thread(target=refuse)
        peer.start()
        with self.assertErrno(errno.EFAULT):
            dma()
        peer.join()

    def test_dma_error_of_the_client(self):
        c = self.serve()
        c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, 0x10000, 0x1000))
        self.refused(c, lambda: self.server.dma_read(0x10000, 4))

    def test_device_reset(self):
        c = self.serve()
        c.write(CONFIG, 4, b"\x06\0")
        c.write(BAR0, 0x2000, b"left")
        self.assertEqual(c.ask(model.RESET), b"")
        self.assertEqual(c.read(CONFIG, 4, 2), b"\0\0")
        self.assertEqual(c.read(BAR0, 0x2000, 4), bytes(4))
        self.assertEqual((self.gpu.counters["resets"], self.gpu.counters["device_reset"]), (1, 1))

    def test_no_reply_means_none(self):
        c = self.serve()
        c.send(model.RESET, flags=0x10)
        c.send(99, flags=0x10)
        self.assertEqual(len(c.ask(model.GET_INFO, bytes(16))), 16)
        self.assertEqual(self.gpu.counters["device_reset"], 1)


class Malformed(ServerCase):
    def test_unknown_command(self):
        c = self.serve()
        with self.assertErrno(errno.ENOSYS):
            c.ask(99)
        self.assertEqual(len(c.ask(model.GET_INFO, bytes(16))), 16, "the connection must go on")

    def test_short_bodies(self):
        c = self.serve()
        for command in (model.VERSION, model.DMA_MAP, model.DMA_UNMAP, model.GET_INFO, model.GET_REGION_INFO,
                        model.GET_IRQ_INFO, model.SET_IRQS, model.REGION_READ, model.REGION_WRITE):
            with self.subTest(command=command), self.assertErrno(errno.EINVAL):
                c.ask(command, b"\0\0")

    def test_sizes_that_lose_the_boundary_end_the_connection(self):
        for size in (0, 15, 1 << 31):
            with self.subTest(size=size):
                self.path = f"{self.directory.name}/{size}.sock"
                c = self.serve()
                c.send(model.GET_INFO, size=size)
                self.assertEqual(c.receive()[2:4], (1 | 0x20, errno.EINVAL))
                with self.assertRaises(EOFError):
                    c.receive()
                self.assertEqual(len(self.connect().ask(model.GET_INFO, bytes(16))), 16)

    def test_dma_map_of_nothing_and_beyond_the_end(self):
        c = self.serve()
        for address, size in ((0, 0), ((1 << 64) - 0x1000, 0x2000)):
            with self.assertErrno(errno.EINVAL):
                c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, address, size))

    def test_unasked_answers_are_ignored(self):
        c = self.serve()
        c.send(model.DMA_READ, bytes(16), flags=1, ident=0x8001)
        self.assertEqual(len(c.ask(model.GET_INFO, bytes(16))), 16)

    def test_a_client_that_leaves_amid_a_message(self):
        c = self.serve()
        c.send(model.REGION_WRITE, b"\0" * 8, size=4096)
        c.close()
        self.assertEqual(len(self.connect().ask(model.GET_INFO, bytes(16))), 16)

    def test_descriptors_are_not_leaked(self):
        c = self.serve()
        c.ask(model.GET_INFO, bytes(16))    # the server's end of the connection is open for sure
        before = len(os.listdir("/proc/self/fd"))
        fd = os.memfd_create("client")
        os.ftruncate(fd, 4096)
        c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, 0, 4096), [fd])
        with self.assertErrno(errno.ENOSYS):
            c.ask(99, b"", [fd])
        os.close(fd)
        c.ask(model.DMA_UNMAP, struct.pack("=IIQQ", 24, 2, 0, 0))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class ConfigSpace(ServerCase):
    def bar(self, c, at):
        return struct.unpack("<Q", c.read(CONFIG, at, 8))[0]

    def capability(self, c, wanted):
        at, seen = c.read(CONFIG, 0x34, 1)[0], 0
        while at and seen < 48:
            ident, following = c.read(CONFIG, at, 2)
            if ident == wanted:
                return at
            at, seen = following, seen + 1
        return None

    def dvsec(self, c, vendor, ident):
        at, seen = 0x100, 0
        while at and seen < 64:
            header = c.read32(CONFIG, at)
            if header & 0xFFFF == 0x23 and c.read32(CONFIG, at + 4) & 0xFFFF == vendor \
                    and c.read32(CONFIG, at + 8) & 0xFFFF == ident:
                return at
            at, seen = header >> 20, seen + 1
        return None

    def test_identity(self):
        c = self.serve()
        self.assertEqual(c.read32(CONFIG, 0), 0x234210DE)
        self.assertEqual(c.read32(CONFIG, 8) >> 8, 0x030200)
        self.assertEqual(c.read(CONFIG, 0x0E, 1), b"\0", "a plain function")
        self.path += "2"
        c = self.serve(device=0x2941, subsystem=0x1234, revision=7, class_code=0x120000)
        self.assertEqual(c.read32(CONFIG, 0), 0x294110DE)
        self.assertEqual(c.read32(CONFIG, 8), 0x12000007)
        self.assertEqual(c.read32(CONFIG, 0x2C), 0x123410DE)

    def test_bar_sizing(self):
        c = self.serve(bar2_size=1 << 20)
        for at, size, flags in ((0x10, 16 << 20, 0x4), (0x18, 1 << 20, 0xC)):
            self.assertEqual(self.bar(c, at), flags)
            c.write32(CONFIG, at, 0xFFFFFFFF)
            c.write32(CONFIG, at + 4, 0xFFFFFFFF)
            got = self.bar(c, at)
            self.assertEqual(got & 0xF, flags)
            self.assertEqual((~(got & ~0xF) & (1 << 64) - 1) + 1, size)
            c.write(CONFIG, at, struct.pack("<Q", 0x8012345678))
            self.assertEqual(self.bar(c, at), 0x8012345678 & ~(size - 1) | flags)
        c.write(CONFIG, 0x20, b"\xff" * 8)
        self.assertEqual(c.read(CONFIG, 0x20, 8), bytes(8), "there is no BAR 4")

    def test_no_bar2_unless_asked_for(self):
        c = self.serve()
        c.write(CONFIG, 0x18, b"\xff" * 8)
        self.assertEqual(c.read(CONFIG, 0x18, 8), bytes(8))

    def test_read_only_bits(self):
        c = self.serve(mig_dvsec=1)
        pcie = self.capability(c, 0x10)
        before = c.read(CONFIG, 0, 4096)
        c.write(CONFIG, 0, b"\xff" * 0x10)
        c.write(CONFIG, 0x2C, b"\xff" * 0x10)
        c.write(CONFIG, 0x34, b"\xff" * 8)
        c.write(CONFIG, pcie, b"\xff" * 8)
        c.write(CONFIG, 0x100, b"\xff" * 64)
        after = c.read(CONFIG, 0, 4096)
        changed = {i for i in range(4096) if before[i] != after[i]}
        self.assertLessEqual(changed, {4, 5, 0x0C, 0x3C})

    def test_command_register(self):
        c = self.serve()
        c.write(CONFIG, 4, b"\xff\xff")
        self.assertEqual(c.read(CONFIG, 4, 2), b"\x46\x05")

    def test_widths_agree(self):
        c = self.serve(msi=True, bar2_size=4096, mig_dvsec=0, cxl={})
        whole = c.read(CONFIG, 0, 256)
        for width in (1, 2, 4, 8):
            self.assertEqual(b"".join(c.read(CONFIG, at, width) for at in range(0, 256, width)), whole)
        with self.assertErrno(errno.EINVAL):
            c.read(CONFIG, 4094, 4)

    def test_capabilities(self):
        c = self.serve()
        self.assertTrue(c.read(CONFIG, 6, 1)[0] & 0x10)
        self.assertIsNotNone(self.capability(c, 0x01))
        self.assertIsNone(self.capability(c, 0x05))
        pcie = self.capability(c, 0x10)
        self.assertEqual(c.read32(CONFIG, pcie) >> 20 & 0xF, 0, "an endpoint")
        self.assertTrue(c.read32(CONFIG, pcie + 4) & 1 << 28, "it has FLR")
        self.path += "2"
        c = self.serve(msi=True, flr=False)
        self.assertIsNotNone(self.capability(c, 0x05))
        pcie = self.capability(c, 0x10)
        self.assertFalse(c.read32(CONFIG, pcie + 4) & 1 << 28)
        c.write(CONFIG, pcie + 8, b"\0\x80")
        self.assertEqual(self.gpu.counters["resets"], 0)

    def test_msix(self):
        c = self.serve(msi=True, msix=True)
        self.assertIsNotNone(self.capability(c, 0x05))
        self.assertIsNotNone(self.capability(c, 0x10))
        at = self.capability(c, 0x11)
        self.assertEqual(struct.unpack("<HII", c.read(CONFIG, at + 2, 10)), (5, 0xB90000, 0xBA0000))
        c.write(CONFIG, at + 2, b"\xff\xff")
        self.assertEqual(c.read(CONFIG, at + 2, 2), b"\x05\xc0", "enable and mask can be written")
        self.path += "2"
        self.assertIsNone(self.capability(self.serve(), 0x11))

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
            self.assertEqual(self.bar(c, 0x10), 4)
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

    def test_a_small_bar0(self):
        c = self.serve(bar0_size=64 << 10)
        c.write(CONFIG, 0x10, b"\xff" * 4)
        self.assertEqual(struct.unpack("<I", c.read(CONFIG, 0x10, 4))[0] & ~0xF, 0xFFFF0000)
        self.assertEqual(c.read32(0, model.C2C_REGISTER), 0xFF)
        with self.assertRaises(Exception):
            c.read32(0, model.HBM_REGISTER)
        for size in (0, 5000, 32 << 20):
            with self.assertRaises(ValueError):
                model.Spec.from_dict({"bar0_size": size})

    def test_what_is_not_ready_may_read_as_anything(self):
        c = self.serve(unready_value=0xFFFFFFFF, hbm={"ready_after_ms": None})
        self.assertEqual(c.read32(0, model.HBM_REGISTER), 0xFFFFFFFF)
        self.assertEqual(c.read32(0, model.C2C_REGISTER), 0xFF)

    def test_no_extended_capabilities(self):
        self.assertEqual(self.serve().read(CONFIG, 0x100, 4096 - 0x100), bytes(4096 - 0x100))

    def test_nvidia_dvsec(self):
        for word in (0, 1, 0xFFFE):
            self.path = f"{self.directory.name}/{word}.sock"
            c = self.serve(mig_dvsec=word)
            at = self.dvsec(c, 0x10DE, 3)
            self.assertEqual(struct.unpack("<H", c.read(CONFIG, at + 0x0A, 2))[0], word)
            self.assertGreaterEqual(c.read32(CONFIG, at + 4) >> 20, 0x0C, "its length covers the word")
            self.assertIsNone(self.dvsec(c, 0x1E98, 0))

    def test_cxl_dvsec(self):
        c = self.serve(mig_dvsec=1, cxl={"size": 0x1780000000, "timeout": 2, "active": {"ready_after_ms": None}})
        self.assertIsNotNone(self.dvsec(c, 0x10DE, 3))
        at = self.dvsec(c, 0x1E98, 0)
        self.assertEqual(c.read32(CONFIG, at + 0x18), 0x17)
        low = c.read32(CONFIG, at + 0x1C)
        self.assertEqual(low & 0xF0000000, 0x80000000)
        self.assertEqual(low >> 13 & 7, 2)
        self.assertEqual(low & 3, 1, "valid, but not active")
        self.assertGreaterEqual(c.read32(CONFIG, at + 4) >> 20, 0x38)

    def test_cxl_delays(self):
        c = self.serve(cxl={"valid": {"ready_after_ms": 150}, "active": {"ready_after_ms": 300}})
        at = self.dvsec(c, 0x1E98, 0) + 0x1C
        seen = []
        while 3 not in seen:
            seen.append(c.read32(CONFIG, at) & 3)
        # A busy machine may miss some of them.
        self.assertEqual(seen, sorted(seen))
        self.assertNotIn(2, seen)

    def test_cxl_late_look(self):
        c = self.serve(cxl={"valid": {"ready_after_ms": None}, "active": {"ready_after_ms": None}})
        at = self.dvsec(c, 0x1E98, 0) + 0x1C
        self.gpu.look_late(2, 50, 0)
        begin = time.monotonic()
        self.assertEqual([c.read32(CONFIG, at) & 3 for _ in range(2)], [0, 0], "as it was")
        self.assertGreaterEqual(time.monotonic() - begin, 0.1)
        self.assertEqual(c.read32(CONFIG, at) & 3, 3)

    def test_cxl_device_gone(self):
        c = self.serve(cxl={"gone": True})
        self.assertEqual(c.read32(CONFIG, self.dvsec(c, 0x1E98, 0) + 0x1C), 0xFFFFFFFF)


    def test_aer_follows_the_dvsecs(self):
        c = self.serve(mig_dvsec=1, cxl={}, aer=True)
        at, seen = 0x100, []
        while at:
            header = c.read32(CONFIG, at)
            seen.append((header & 0xFFFF, header >> 16 & 0xF))
            last, at = at, header >> 20
        self.assertEqual(seen, [(0x23, 1), (0x23, 1), (0x01, 2)])
        # Severities can be set and status bits be cleared, but only defined
        # bits.
        self.assertEqual(c.read32(CONFIG, last + 0x0C), 0x00462030)
        c.write32(CONFIG, last + 0x0C, 0xFFFFFFFF)
        self.assertEqual(c.read32(CONFIG, last + 0x0C), 0x07FFF030)
        c.write32(CONFIG, last + 4, 0xFFFFFFFF)
        self.assertEqual(c.read32(CONFIG, last + 4), 0)

    def test_without_power_nothing_answers(self):
        c = self.serve(power=True, ready_after_reset_ms=None)
        seen = []
        self.gpu.on_power = seen.append
        c.write(CONFIG, 4, b"\x46\x05")
        c.write32(0, 0x100, 7)
        self.assertEqual(c.read32(CONFIG, model.POWER_REGISTER), 1)
        c.write32(CONFIG, model.POWER_REGISTER, 0)
        self.assertEqual(seen, [False])
        self.assertEqual(self.gpu.counters["accesses_without_power"], 0)
        self.assertEqual(c.read(CONFIG, 0, 4), b"\xff" * 4)
        self.assertEqual(c.read32(0, model.C2C_REGISTER), 0xFFFFFFFF)
        c.write32(0, 0x100, 8)
        # Writing half of the register does not restore power.
        c.write(CONFIG, model.POWER_REGISTER, b"\1")
        self.assertEqual(self.gpu.counters["accesses_without_power"], 4)
        c.write32(CONFIG, model.POWER_REGISTER, 1)
        self.assertEqual(seen, [False, True])
        self.assertEqual((self.gpu.counters["power_offs"], self.gpu.counters["power_ons"]), (1, 1))
        self.assertEqual(c.read(CONFIG, 4, 2), b"\0\0")
        self.assertEqual(c.read32(0, 0x100), 0)
        self.assertEqual(c.read32(0, model.HBM_REGISTER), 0)
        self.assertEqual(self.gpu.counters["accesses_without_power"], 4)
        self.assertEqual(self.gpu.counters["flr"], 0)

    def test_without_pcie_there_is_no_such_capability(self):
        for msi, caps in ((False, [0x01]), (True, [0x01, 0x05])):
            gpu = model.Gpu(pcie=False, msi=msi)
            self.addCleanup(gpu.close)
            at, found = gpu.read(CONFIG, 0x34, 1)[0], []
            while at:
                ident, at = gpu.read(CONFIG, at, 2)
                found.append(ident)
            self.assertEqual(found, caps)
            self.assertEqual(gpu.read(CONFIG, model.EXT_CAPS, 4), b"\0" * 4)
            gpu.write(CONFIG, model.EXP_DEVCTL, b"\0\x80")
            self.assertEqual(gpu.counters["flr"], 0)
        for more in ({"aer": True}, {"cxl": {}}, {"mig_dvsec": 0}):
            with self.assertRaises(ValueError):
                model.Spec.from_dict({"pcie": False, **more})

    def test_only_a_root_ports_reads_need_no_power(self):
        c = self.serve(power=True)
        status, status2 = (at for _, at, _ in model.PORT_READS)

        def counted(*accesses):
            """(accesses, reads by the port) that these are counted as."""
            c.write32(CONFIG, model.POWER_REGISTER, 0)
            before = dict(self.gpu.counters)
            for region, at, count in accesses:
                self.assertEqual(c.read(region, at, count), b"\xff" * count)
            c.write32(CONFIG, model.POWER_REGISTER, 1)
            return tuple(self.gpu.counters[n] - before[n] for n in ("accesses_without_power", "port_reads_without_power"))

        first, second = model.PORT_READS
        self.assertEqual(counted(first, second), (0, 1))
        self.assertEqual(counted(first, second, first, second), (0, 2))
        self.assertEqual(counted(first), (1, 0))
        self.assertEqual(counted(second), (1, 0))
        self.assertEqual(counted(second, first), (2, 0))
        self.assertEqual(counted(first, first, second), (1, 1))
        self.assertEqual(counted(first, second, second), (1, 1))
        self.assertEqual(counted(first, (CONFIG, 0, 4), second), (3, 0))
        self.assertEqual(counted(first, (CONFIG, model.POWER_REGISTER - 4, 4)), (2, 0))
        self.assertEqual(counted((CONFIG, status, 1), (CONFIG, status2, 1)), (2, 0))
        self.assertEqual(counted((CONFIG, status, 4), (CONFIG, status2, 4)), (2, 0))
        self.assertEqual(counted((CONFIG, status - 2, 4), (CONFIG, status2 - 2, 4)), (2, 0))
        self.assertEqual(counted((BAR0, status, 2), (BAR0, status2, 2)), (2, 0))
        self.assertEqual(counted((CONFIG, status + 2, 2), (CONFIG, status2 + 2, 2)), (2, 0))

    def test_a_write_is_no_read_by_a_root_port(self):
        c = self.serve(power=True)
        (_, status, _), (_, status2, _) = model.PORT_READS
        c.write32(CONFIG, model.POWER_REGISTER, 0)
        c.write(CONFIG, status, b"\0\0")
        c.write(CONFIG, status2, b"\0\0")
        self.assertEqual(self.gpu.counters["accesses_without_power"], 2)
        c.read(CONFIG, status, 2)
        c.write(CONFIG, status2, b"\0\0")
        self.assertEqual(self.gpu.counters["accesses_without_power"], 4)
        # Even reading the power register separates the two reads.
        c.read(CONFIG, status, 2)
        self.assertEqual(c.read32(CONFIG, model.POWER_REGISTER), 0)
        c.read(CONFIG, status2, 2)
        self.assertEqual(self.gpu.counters["accesses_without_power"], 6)
        self.assertEqual(self.gpu.counters["port_reads_without_power"], 0)
        # With power, nothing is counted.
        c.write32(CONFIG, model.POWER_REGISTER, 1)
        c.read(CONFIG, status, 2)
        c.read(CONFIG, status2, 2)
        self.assertEqual(self.gpu.counters["port_reads_without_power"], 0)

    def test_a_device_that_does_not_answer_loses_nothing(self):
        c = self.serve()
        c.write(CONFIG, 4, b"\x06\0")
        self.gpu.answer(False)
        self.assertEqual(c.read32(CONFIG, 0), 0xFFFFFFFF)
        self.assertEqual(c.read32(BAR0, model.C2C_REGISTER), 0xFFFFFFFF)
        c.write(CONFIG, 4, b"\0\0")
        c.write32(BAR0, 0x100, 7)
        self.gpu.answer(True)
        self.assertEqual(c.read32(CONFIG, 0) & 0xFFFF, 0x10DE)
        self.assertEqual(c.read(CONFIG, 4, 2), b"\x06\0")
        self.assertEqual(c.read32(BAR0, 0x100), 0)
        self.assertEqual(c.read32(BAR0, model.C2C_REGISTER), model.READY_VALUE)

    def test_the_power_register_is_there_only_on_request(self):
        c = self.serve()
        c.write32(CONFIG, model.POWER_REGISTER, 0)
        self.assertEqual(c.read32(CONFIG, model.POWER_REGISTER), 0)
        self.assertEqual(c.read32(CONFIG, 0) & 0xFFFF, 0x10DE)


class Readiness(ServerCase):
    C2C, HBM = 0x1498, 0x200BC

    def both(self, c):
        return c.read32(BAR0, self.C2C), c.read32(BAR0, self.HBM)

    def test_ready_at_once(self):
        self.assertEqual(self.both(self.serve()), (0xFF, 0xFF))

    def test_delay(self):
        start = time.monotonic()
        c = self.serve(ready_after_ms=300)
        while self.both(c) != (0xFF, 0xFF):
            pass
        self.assertGreaterEqual(time.monotonic() - start, 0.3)

    def test_registers_apart(self):
        c = self.serve(c2c={"ready_after_ms": 0}, hbm={"ready_after_ms": None})
        self.assertEqual(self.both(c), (0xFF, 0))
        c.ask(model.RESET)
        self.assertEqual(self.both(c), (0xFF, 0), "never is never, also after a reset")

    def test_delay_after_reset_only(self):
        c = self.serve(ready_after_reset_ms=None)
        self.assertEqual(self.both(c), (0xFF, 0xFF))
        c.ask(model.RESET)
        self.assertEqual(self.both(c), (0, 0))

    def test_delay_before_reset_only(self):
        c = self.serve(ready_after_ms=None, ready_after_reset_ms=0)
        self.assertEqual(self.both(c), (0, 0))
        c.ask(model.RESET)
        self.assertEqual(self.both(c), (0xFF, 0xFF))

    def test_reset_delays_can_be_restored(self):
        c = self.serve(c2c={"ready_after_ms": None}, cxl={"active": {"ready_after_reset_ms": None}})
        c.write32(BAR0, CONTROL + 0x10, 0)
        self.gpu.restore_reset_delays()
        c.ask(model.RESET)
        self.assertEqual(self.both(c), (0, 0xFF))
        self.assertFalse(self.gpu.timers["cxl_active"].ready())
        self.assertTrue(self.gpu.timers["cxl_valid"].ready())

    def test_writes_do_not_make_it_ready(self):
        c = self.serve(ready_after_ms=None)
        c.write32(BAR0, self.C2C, 0xFF)
        self.assertEqual(c.read32(BAR0, self.C2C), 0)

    def test_parts_of_a_register(self):
        c = self.serve()
        self.assertEqual(c.read(BAR0, self.C2C - 2, 8), b"\0\0\xff\0\0\0\0\0")
        self.assertEqual(c.read(BAR0, self.C2C + 1, 2), b"\0\0")
        self.assertEqual(self.gpu.counters["c2c_reads"], 2)


class ControlBlock(ServerCase):
    def test_registers(self):
        c = self.serve()
        self.assertEqual(c.read32(BAR0, CONTROL), 0x4D47564E)
        self.assertEqual(c.read(BAR0, CONTROL, 4), b"NVGM")
        c.write32(BAR0, CONTROL, 0)
        self.assertEqual(c.read32(BAR0, CONTROL), 0x4D47564E)
        for _ in range(3):
            c.read32(BAR0, 0x1498)
        c.read32(BAR0, 0x200BC)
        self.assertEqual((c.read32(BAR0, CONTROL + 8), c.read32(BAR0, CONTROL + 12)), (3, 1))

    def test_resets_are_counted(self):
        c = self.serve()
        c.ask(model.RESET)
        c.write(CONFIG, 0x68, b"\0\x80")
        self.assertEqual((c.read32(BAR0, CONTROL + 4), c.read32(BAR0, CONTROL + 0x20)), (2, 1))
        self.assertEqual(c.read32(BAR0, CONTROL + 0x1C), 1)

    def test_delay_of_the_next_resets(self):
        c = self.serve()
        self.assertEqual(c.read32(BAR0, CONTROL + 0x10), 0)
        c.write32(BAR0, CONTROL + 0x10, 600000)
        self.assertEqual(c.read32(BAR0, CONTROL + 0x10), 600000)
        self.assertEqual(c.read32(BAR0, CONTROL + 0x18), 1)
        c.ask(model.RESET)
        self.assertEqual(c.read32(BAR0, CONTROL + 0x18), 0)
        c.write32(BAR0, CONTROL + 0x10, 0)
        c.ask(model.RESET)
        self.assertEqual(c.read32(BAR0, CONTROL + 0x18), 1)
        c.write32(BAR0, CONTROL + 0x10, 0xFFFFFFFF)
        self.assertEqual(c.read32(BAR0, CONTROL + 0x10), 0xFFFFFFFF)
        c.ask(model.RESET)
        self.assertEqual(c.read32(BAR0, 0x1498), 0)

    def test_not_ready_from_now_on(self):
        c = self.serve()
        start = time.monotonic()
        c.write32(BAR0, CONTROL + 0x14, 200)
        while not c.read32(BAR0, CONTROL + 0x18):
            pass
        self.assertGreaterEqual(time.monotonic() - start, 0.2)
        c.write32(BAR0, CONTROL + 0x14, 0xFFFFFFFF)
        self.assertEqual((c.read32(BAR0, 0x1498), c.read32(BAR0, 0x200BC)), (0, 0))

    def test_scratch_survives_a_reset(self):
        c = self.serve()
        c.write32(BAR0, CONTROL + 0x24, 0xC0FFEE)
        c.ask(model.RESET)
        self.assertEqual(c.read32(BAR0, CONTROL + 0x24), 0xC0FFEE)

    def test_wide_and_unaligned_accesses(self):
        c = self.serve()
        c.write32(BAR0, CONTROL + 0x24, 0x44332211)
        self.assertEqual(c.read(BAR0, CONTROL + 0x23, 3), b"\0\x11\x22")
        self.assertEqual(c.read(BAR0, CONTROL - 4, 8), bytes(4) + b"NVGM")
        c.write(BAR0, CONTROL + 0x24, b"\xff\xff")
        self.assertEqual(c.read32(BAR0, CONTROL + 0x24), 0x44332211, "only whole registers can be written")

    def test_counters_of_bar0(self):
        c = self.serve()
        c.read32(BAR0, 0)
        c.write32(BAR0, 0, 1)
        self.assertEqual((self.gpu.counters["bar0_reads"], self.gpu.counters["bar0_writes"]), (1, 1))


class DmaEngine(ServerCase):
    """What a driver does with the falcon. The client's memory is at
    ADDRESS."""

    ADDRESS = 0x1234_5678_9A00_0000
    SIZE = 0x10000
    # The register that each step sets up; without one of them, nothing moves.
    SETUP = ((CONFIG, 4, 6), (BAR0, falcon.FBIF_TRANSCFG, 5), (BAR0, falcon.FBIF_CTL, 0x90), (BAR0, falcon.DMACTL, 0))

    def engine(self, mapped=True, message=True, setup=SETUP):
        self.path += "x"
        c = self.serve(falcon=True)
        fd = os.memfd_create("client")
        self.addCleanup(os.close, fd)
        os.ftruncate(fd, self.SIZE)
        if mapped:
            c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, self.ADDRESS, self.SIZE), [fd])
        self.memory = mmap.mmap(fd, self.SIZE)
        self.addCleanup(self.memory.close)
        if message:
            self.assertEqual(self.tell(c, 0x22, 1), 0)
        for region, at, value in setup:
            c.write32(region, at, value)
        return c

    def tell(self, c, kind, *words):
        """Send a message to the FSP; the status in its answer, or None."""
        message = (3 << 30, kind << 24 | 0x10DE7E, *words)
        c.write32(BAR0, falcon.FSP_EMEMC, 0x800 | 3 << 24)
        for word in message:
            c.write32(BAR0, falcon.FSP_EMEMD, word)
        return self.ring(c, len(message), kind)

    def ring(self, c, words, kind):
        c.write32(BAR0, falcon.FSP_QUEUE_TAIL, 0x800 + 4 * (words - 1))
        c.write32(BAR0, falcon.FSP_QUEUE_HEAD, 0x800)
        self.assertEqual(c.read32(BAR0, falcon.FSP_QUEUE_HEAD), c.read32(BAR0, falcon.FSP_QUEUE_TAIL), "it was taken")
        head, tail = c.read32(BAR0, falcon.FSP_MSGQ_HEAD), c.read32(BAR0, falcon.FSP_MSGQ_TAIL)
        if head == tail:
            return None
        self.assertEqual((head, tail), (0x800, 0x810))
        c.write32(BAR0, falcon.FSP_EMEMC, 0x800 | 3 << 24)
        answer = [c.read32(BAR0, falcon.FSP_EMEMD) for _ in range(5)]
        c.write32(BAR0, falcon.FSP_MSGQ_TAIL, head)
        self.assertEqual(answer[:4], [3 << 30, 0x1510DE7E, 0, kind])
        return answer[4]

    def command(self, c, address, size, write=False, dmem=0, more=0):
        for register, value in ((falcon.DMA_TOP_BITS, address >> 47), (falcon.DMATRFBASE1, address >> 40 & 0x7F),
                                (falcon.DMATRFBASE, address >> 8 & 0xFFFFFFFF), (falcon.DMATRFFBOFFS, address & 0xFF),
                                (falcon.DMATRFMOFFS, dmem)):
            c.write32(BAR0, register, value)
        c.write32(BAR0, falcon.DMATRFCMD, (size.bit_length() - 3) << 8 | bool(write) << 5 | more)

    def idle(self, c):
        return bool(c.read32(BAR0, falcon.DMATRFCMD) & 2)

    def counted(self):
        return tuple(self.gpu.counters[name] for name in ("dma_reads", "dma_writes", "dma_faults"))

    def copies(self, c):
        """Whether one block gets from one place to another."""
        self.memory[:] = b"y" * self.SIZE
        self.memory[0x100:0x200] = block = os.urandom(0x100)
        self.command(c, self.ADDRESS + 0x100, 0x100)
        first = self.idle(c)
        self.command(c, self.ADDRESS + 0x8000, 0x100, write=True)
        done = first and self.idle(c)
        self.assertEqual(self.memory[0x8000:0x8100], block if done else b"y" * 0x100)
        self.assertEqual(self.memory[0x8100:], b"y" * (self.SIZE - 0x8100), "nothing else is written")
        return done

    def test_identity(self):
        c = self.serve(falcon=True)
        c.write32(BAR0, falcon.BOOT_0, 7)
        self.assertEqual(c.read32(BAR0, falcon.BOOT_0), 0x180000A1, "a GH100")
        self.assertEqual(c.read32(BAR0, falcon.MEMORY_CLEARED), 1)
        self.assertEqual(c.read(BAR0, 2, 4), b"\0\x18\0\0")
        self.path += "2"
        self.assertEqual(self.serve().read32(BAR0, falcon.BOOT_0), 0, "without the parameter, it is memory")

    def test_copies(self):
        c = self.engine()
        self.assertTrue(self.idle(c))
        self.assertTrue(self.copies(c))
        self.assertEqual(self.counted(), (1, 1, 0))

    def test_sizes_and_places(self):
        c = self.engine()
        for size in (4, 8, 16, 32, 64, 128, 256):
            at = 0x300 + size
            self.memory[:] = b"y" * self.SIZE
            self.memory[at:at + size] = block = os.urandom(size)
            self.command(c, self.ADDRESS + at, size, dmem=0x1000 + size)
            self.command(c, self.ADDRESS + 0x8000 + size, size, write=True, dmem=0x1000 + size)
            self.assertTrue(self.idle(c))
            self.assertEqual(self.memory[0x8000 + size:0x8000 + 2 * size], block)
            self.assertEqual(self.memory[0x8000:].count(b"y"), 0x8000 - size + block.count(b"y"))

    def test_nothing_moves_before_everything_is_set_up(self):
        for i in range(len(self.SETUP)):
            with self.subTest(missing=self.SETUP[i]):
                self.assertFalse(self.copies(self.engine(setup=self.SETUP[:i] + self.SETUP[i + 1:])))
                self.assertEqual(self.counted(), (0, 0, 0))
        self.assertFalse(self.copies(self.engine(message=False)))

    def test_transfers_that_do_not_exist(self):
        c = self.engine()
        for offset, size, dmem, more in ((0, 512, 0, 0), (4, 8, 0, 0), (0, 8, 4, 0), (0, 256, falcon.DMEM_SIZE, 0),
                                         (0, 256, 0, 1 << 4), (0, 256, 0, 1 << 12)):
            self.command(c, self.ADDRESS + offset, size, dmem=dmem, more=more)
            self.assertFalse(self.idle(c))
            self.assertEqual(self.counted(), (0, 0, 0))
        self.assertTrue(self.copies(c), "the next one is done")

    def refuse(self, c):
        """Answer what the model asks like a client whose IOMMU refuses. Returns
        what the model asked."""
        ident, command, _, _, body, _ = c.receive()
        self.assertFalse(self.idle(c), "the client may read while the model waits for it")
        c.send(command, flags=1 | 0x20, ident=ident, error=errno.EINVAL)
        return command, *struct.unpack_from("=QQ", body)

    def test_faults(self):
        c = self.engine()
        unmapped = self.ADDRESS + self.SIZE
        self.command(c, unmapped, 256)
        self.assertEqual(self.refuse(c), (model.DMA_READ, unmapped, 256))
        self.assertFalse(self.idle(c), "a read that gets no data doesn't end")
        self.command(c, unmapped, 256, write=True)
        self.assertEqual(self.refuse(c), (model.DMA_WRITE, unmapped, 256))
        self.assertTrue(self.idle(c), "nobody answers writes")
        self.assertEqual(self.counted(), (0, 0, 2))
        self.assertTrue(self.copies(c), "after that, the engine works")

    def test_a_command_during_a_transfer_waits(self):
        c = self.engine()
        self.memory[0x100:0x200] = block = os.urandom(0x100)
        self.command(c, self.ADDRESS + 0x100, 0x100)
        self.command(c, self.ADDRESS + self.SIZE, 256, dmem=0x100)
        ident, command, *_ = c.receive()
        self.command(c, self.ADDRESS + 0x8000, 256, write=True)
        self.assertFalse(self.idle(c))
        self.assertNotEqual(self.memory[0x8000:0x8100], block)
        c.send(command, flags=1 | 0x20, ident=ident, error=errno.EINVAL)
        while not self.idle(c):
            pass
        self.assertEqual(self.memory[0x8000:0x8100], block)

    def test_a_reset_ends_it(self):
        c = self.engine()
        self.command(c, self.ADDRESS + self.SIZE, 256)
        ident, command, *_ = c.receive()
        c.ask(model.RESET)
        c.send(command, flags=1 | 0x20, ident=ident, error=errno.EINVAL)
        self.assertTrue(self.idle(c))
        self.assertEqual(c.read32(BAR0, falcon.ENGINE) >> 16, 0xBADF, "the firmware must allow it again")
        for region, at, value in self.SETUP:
            c.write32(region, at, value)
        self.assertFalse(self.copies(c))

    def test_a_client_that_leaves_amid_a_transfer(self):
        c = self.engine()
        self.command(c, self.ADDRESS + self.SIZE, 256)
        c.receive()
        c.close()
        c = self.connect()
        self.assertFalse(self.idle(c))
        self.assertEqual(self.counted(), (0, 0, 0))

    def test_no_dma_in_d3hot(self):
        c = self.engine()
        c.write(CONFIG, model.PM_CAP + 4, b"\x03\0")
        self.assertFalse(self.copies(c))
        c.write(CONFIG, model.PM_CAP + 4, b"\0\0")
        self.assertTrue(self.copies(c))

    def test_messages(self):
        c = self.engine(message=False)
        self.assertEqual(c.read32(BAR0, falcon.ENGINE) >> 16, 0xBADF)
        for kind, words in ((0x22, (2,)), (0x22, ()), (0x22, (1, 1)), (0x13, (1,))):
            self.assertEqual(self.tell(c, kind, *words), 1, "not known")
            self.assertEqual(c.read32(BAR0, falcon.ENGINE) >> 16, 0xBADF)
        # Not the last packet of a message, and another vendor's.
        for first, second in ((2 << 30, 0x2210DE7E), (3 << 30, 0x22807E7E)):
            c.write32(BAR0, falcon.FSP_EMEMC, 0x800 | 3 << 24)
            for word in (first, second, 1):
                c.write32(BAR0, falcon.FSP_EMEMD, word)
            self.assertIsNone(self.ring(c, 3, 0x22))
        self.assertEqual(self.tell(c, 0x22, 1), 0)
        self.assertEqual(c.read32(BAR0, falcon.ENGINE) >> 16, 0)

    def test_odd_heads_and_tails(self):
        c = self.engine(message=False)
        for head, tail in ((0x800, 0x800), (0x800, 0xC00), (0x800, 0x7FC), (0x800, 0x806), (0, 8), (0xFFFFFFFC, 0x800)):
            c.write32(BAR0, falcon.FSP_QUEUE_TAIL, tail)
            c.write32(BAR0, falcon.FSP_QUEUE_HEAD, head)
            self.assertEqual(c.read32(BAR0, falcon.FSP_MSGQ_HEAD), c.read32(BAR0, falcon.FSP_MSGQ_TAIL))

    def test_emem_port(self):
        c = self.engine(message=False)
        for control, after in ((0x7FC, 0x7FC), (0x7FC | 1 << 24, 0x800)):
            c.write32(BAR0, falcon.FSP_EMEMC, control)
            c.write32(BAR0, falcon.FSP_EMEMD, 0xC0FFEE)
            self.assertEqual(c.read32(BAR0, falcon.FSP_EMEMC) & 0xFFFF, after)
        c.write32(BAR0, falcon.FSP_EMEMC, 0xFFFC | 3 << 24)
        c.write32(BAR0, falcon.FSP_EMEMD, 1)
        self.assertEqual(c.read32(BAR0, falcon.FSP_EMEMD), 0, "after the last word comes the first")


class Clients(ServerCase):
    def test_the_next_client_finds_the_device_as_it_was(self):
        c = self.serve()
        c.write(CONFIG, 4, b"\x02\0")
        c.ask(model.DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, 0, 4096))
        c.close()
        self.assertEqual(self.connect().read(CONFIG, 4, 2), b"\x02\0")
        self.assertEqual(self.server.ranges, [], "the first client's memory is forgotten")

    def test_stop_removes_the_socket(self):
        self.serve()
        self.server.stop()
        self.assertFalse(os.path.exists(self.path))
        self.server.stop()


class Parameters(unittest.TestCase):
    def test_unknown_names(self):
        for given in ({"colour": 1}, {"hbm": {"ready_after": 1}}, {"cxl": {"speed": 1}}):
            with self.assertRaises(ValueError):
                model.Spec.from_dict(given)

    def test_registers_outside_bar0(self):
        for name in ("msix", "falcon"):
            with self.assertRaises(ValueError):
                model.Spec.from_dict({name: True, "bar0_size": 64 << 10})

    def test_bad_bar2_size(self):
        for size in (1, 12345, 3 << 20):
            with self.assertRaises(ValueError):
                model.Spec.from_dict({"bar2_size": size})

    def test_bad_bar2_cache(self):
        for given in ({"bar2_cache": 4096}, {"bar2_size": 4096, "bar2_cache": 4096}, {"bar2_size": 4096, "bar2_cache": 100},
                      {"bar2_size": 4096, "bar2_cache": -64}):
            with self.assertRaises(ValueError):
                model.Spec.from_dict(given)


class Program(unittest.TestCase):
    def test_serves_several_devices_until_sigterm(self):
        with tempfile.TemporaryDirectory() as directory:
            paths = [f"{directory}/{i}.sock" for i in range(3)]
            child = subprocess.Popen([sys.executable, "-m", "lab.model.gpu"] +
                                     [json.dumps({"socket": p, "device": 0x2340 + i}) for i, p in enumerate(paths)])
            try:
                end = time.monotonic() + STUCK_S
                while not all(map(os.path.exists, paths)) and time.monotonic() < end:
                    time.sleep(0.01)
                clients = [Client(p) for p in paths]
                for i, c in enumerate(clients):
                    self.assertEqual(c.read32(CONFIG, 0), 0x234010DE + (i << 16))
                child.send_signal(signal.SIGTERM)
                self.assertEqual(child.wait(timeout=STUCK_S), 0)
                self.assertEqual(os.listdir(directory), [])
                for c in clients:
                    c.close()
            finally:
                child.kill()
                child.wait()

    def test_bad_parameters(self):
        with tempfile.TemporaryDirectory() as directory:
            for text in ("nonsense", "{}", json.dumps({"socket": directory + "/s", "colour": 1})):
                done = subprocess.run([sys.executable, "-m", "lab.model.gpu", text], capture_output=True, timeout=STUCK_S)
                self.assertEqual(done.returncode, 1)
                self.assertEqual(os.listdir(directory), [])
