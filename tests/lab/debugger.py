# SPDX-License-Identifier: GPL-2.0-only
"""A client of QEMU's gdb server, and the change to ACPI on x86-64 that it
makes."""

import re
import struct

# Entry point of a bzImage, with paging off, after the firmware's last step.
KERNEL_ENTRY = 0x100000


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


def widen_acpi_integers(debugger):
    """Run the machine up to the kernel's first instruction, change the DSDT's
    revision to 2, and let the machine run on.

    The DSDT's revision decides how wide integers are in all tables. QEMU's q35
    has revision 1: 32 bits, too few for the address of GPU memory. Hosts with
    such memory have revision 2."""
    debugger.ask(f"Z1,{KERNEL_ENTRY:x},1")
    debugger.ask("c")
    area = debugger.read(0xF0000, 0x10000)
    rsdp = next((at for at in range(0, len(area), 16) if area[at:at + 8] == b"RSD PTR "), None)
    if rsdp is None:
        raise OSError("the firmware has left no ACPI tables")
    rsdt, = struct.unpack_from("<I", area, rsdp + 16)
    length, = struct.unpack("<I", debugger.read(rsdt + 4, 4))
    for table, in struct.iter_unpack("<I", debugger.read(rsdt + 36, length - 36)):
        if debugger.read(table, 4) == b"FACP":
            dsdt, = struct.unpack("<I", debugger.read(table + 40, 4))
            revision, checksum = debugger.read(dsdt + 8, 2)
            debugger.write(dsdt + 8, bytes([2, checksum + revision - 2 & 0xFF]))
            break
    else:
        raise OSError("there is no FADT")
    debugger.ask(f"z1,{KERNEL_ENTRY:x},1")
    # Detaching resumes the machine.
    debugger.ask("D")
