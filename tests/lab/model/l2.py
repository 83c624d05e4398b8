# SPDX-License-Identifier: GPL-2.0-only
"""A write-back cache in front of a memory, as a GPU's L2 is: what was written
last is in the cache alone, above the memory's old content, and is lost if the
cache is dropped."""

import collections

LINE = 64


class Cache:
    """Lines that were written and have not reached the memory yet, in the order
    of the last write. If there are too many, the oldest one is written to the
    memory."""

    def __init__(self, memory, size):
        self.memory, self.count = memory, size // LINE
        self.lines = collections.OrderedDict()

    def _pieces(self, at, count):
        """(start of the line, offset in it, bytes) of the lines of an access."""
        while count:
            offset = at % LINE
            piece = min(count, LINE - offset)
            yield at - offset, offset, piece
            at, count = at + piece, count - piece

    def read(self, at, count):
        data = b""
        for start, offset, piece in self._pieces(at, count):
            line = self.lines.get(start) or self.memory[start:start + LINE]
            data += bytes(line[offset:offset + piece])
        return data

    def write(self, at, data):
        done = 0
        for start, offset, piece in self._pieces(at, len(data)):
            line = self.lines.pop(start, None) or bytearray(self.memory[start:start + LINE])
            line[offset:offset + piece] = data[done:done + piece]
            self.lines[start] = line
            done += piece
            if len(self.lines) > self.count:
                start, line = self.lines.popitem(last=False)
                self.memory[start:start + LINE] = line

    def drop(self):
        """Lose the lines. Returns their number."""
        dropped = len(self.lines)
        self.lines.clear()
        return dropped
