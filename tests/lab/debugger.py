# SPDX-License-Identifier: GPL-2.0-only
"""A client of QEMU's gdb server."""

import re


class Debugger:
    """A client of QEMU's gdb server."""

    def __init__(self, connection):
        self.connection = connection
        self.received = b""
        self._numbers = None

    def ask(self, packet):
        """Send a packet and return the answer. Raises OSError if QEMU goes
        away or stays silent for too long."""
        data = packet.encode()
        self.connection.sendall(b"$%s#%02x" % (data, sum(data) & 0xFF))
        while not (match := re.search(rb"\$([^#]*)#..", self.received, re.S)):
            more = self.connection.recv(65536)
            if not more:
                raise ConnectionError("QEMU has closed the debugger's connection")
            self.received += more
        self.received = self.received[match.end():]
        self.connection.sendall(b"+")
        answer = match[1].decode()
        if answer.startswith("E"):
            raise OSError(f"QEMU's debugger answers {packet!r} with {answer}")
        return answer

    def read(self, address, count):
        return b"".join(bytes.fromhex(self.ask(f"m{a:x},{min(1024, address + count - a):x}"))
                        for a in range(address, address + count, 1024))

    def write(self, address, data):
        self.ask(f"M{address:x},{len(data):x}:{data.hex()}")

    def physical(self):
        """From now on, addresses are physical."""
        self.ask("Qqemu.PhyMemMode:1")

    def register(self, cpu, name):
        """The value of a system register. CPUs are counted from 0."""
        if self._numbers is None:
            text, piece = "", "m"
            while piece.startswith("m"):
                piece = self.ask(f"qXfer:features:read:system-registers.xml:{len(text):x},1000")
                text += piece[1:]
            self._numbers = {n: int(i) for n, i in re.findall(r'<reg name="(\w+)"[^>]* regnum="(\d+)"', text)}
        self.ask(f"Hg{cpu + 1:x}")
        return int.from_bytes(bytes.fromhex(self.ask(f"p{self._numbers[name]:x}")), "little")
