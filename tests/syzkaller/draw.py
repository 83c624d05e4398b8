# SPDX-License-Identifier: GPL-2.0-only
"""Draws programs from a description. They use files and numbers that their
earlier calls made. Arguments are in range, at its ends and out of range. The
same seed gives the same programs with every version of Python.

    programs = draw(calls, resolver, seed=1, count=1000, worlds=WORLDS)
    table = serialise(programs, calls)      # for replay.c
    print(programs[7])                      # as text
"""

import dataclasses
import functools
import operator
import struct

import check
import syzlang

# A program starts with nothing open, with the GPU open by its group, or by its
# cdev.
WORLDS = ("fresh", "group", "cdev")
GIVEN = {
    "fresh": {},
    "group": {"fd_nvgrace_container": 0, "fd_nvgrace_group": 1, "fd_nvgrace_device": 2},
    "cdev": {"fd_nvgrace_iommu": 0, "fd_nvgrace_cdev": 2, "nvgrace_ioas": 3, "nvgrace_devid": 4},
}
# The calls that make a resource, in an order that their arguments don't show.
BY_GROUP = ("openat$nvgrace_container", "syz_open_dev$nvgrace_group", "ioctl$nvgrace_GROUP_SET_CONTAINER", "ioctl$nvgrace_SET_IOMMU",
            "ioctl$nvgrace_GROUP_GET_DEVICE_FD")
BY_CDEV = ("openat$nvgrace_iommu", "syz_open_dev$nvgrace_cdev", "ioctl$nvgrace_BIND_IOMMUFD", "ioctl$nvgrace_IOAS_ALLOC",
           "ioctl$nvgrace_ATTACH_IOMMUFD_PT")
RECIPES = {
    "fd_nvgrace_container": BY_GROUP[:1],
    "fd_nvgrace_group": BY_GROUP[1:2],
    "fd_nvgrace_iommu": BY_CDEV[:1],
    "fd_nvgrace_cdev": BY_CDEV,
    "nvgrace_ioas": (BY_CDEV[0], BY_CDEV[3]),
    "nvgrace_devid": BY_CDEV[:3],
    "fd_nvgrace_event": ("eventfd2$nvgrace",),
    "fd_nvgrace_dmabuf": ("ioctl$nvgrace_FEATURE_dma_buf",),
}
# Calls that must come before others, although no argument requires it.
BEFORE = {"ioctl$nvgrace_GROUP_UNSET_CONTAINER": ("ioctl$nvgrace_GROUP_SET_CONTAINER",),
          "ioctl$nvgrace_IOAS_UNMAP": ("ioctl$nvgrace_IOAS_MAP",),
          # A GPU in low power refuses to enter it again.
          "ioctl$nvgrace_FEATURE_low_power": ("ioctl$nvgrace_FEATURE_exit",),
          "ioctl$nvgrace_FEATURE_wakeup": ("ioctl$nvgrace_FEATURE_exit",),
          "ioctl$nvgrace_SET_IRQS_none": ("ioctl$nvgrace_SET_IRQS_one",),
          "ioctl$nvgrace_SET_IRQS_bool": ("ioctl$nvgrace_SET_IRQS_one",)}
# A reset takes 100 ms or more, and leaves less to break. Other calls have a
# weight of 8.
WEIGHTS = {"ioctl$nvgrace_RESET": 2, "ioctl$nvgrace_PCI_HOT_RESET": 1, "ioctl$nvgrace_FEATURE_low_power": 2,
           "ioctl$nvgrace_FEATURE_wakeup": 2, "close$nvgrace": 2, "pwrite64$nvgrace_command": 3, "pwrite64$nvgrace_config": 3,
           "mmap$nvgrace_usemem": 16, "mmap$nvgrace_resmem": 16, "pread64$nvgrace_vma": 16, "pwrite64$nvgrace_vma": 16}
LONGEST = 6                 # calls drawn for a program, without those that make resources
EACH = 3                    # programs for each call, before those at random
MORE = {"ioctl$nvgrace_IOAS_MAP_FILE": 12}  # instead of EACH: it has many ways to fail
UNIT = 1 << 16              # of areas: the largest page
AREA_UNITS = 64
ARENA = 1 << 20

# How values are drawn: also out of range; in range; or those most likely to
# succeed.
ANY, GOOD, PLAIN = range(3)

# Kinds of arguments and of values in memory; replay.c has the same.
VALUE, RESULT, MEMORY, GIVEN_VALUE, POINTER, AREA, ADDRESS = range(7)
ADDRESS_SIZE = 16
MASK = (1 << 64) - 1


class Random:
    """A random number generator (splitmix64), the same with every Python."""

    def __init__(self, seed):
        self.state = seed & MASK

    def next(self):
        self.state = self.state + 0x9E3779B97F4A7C15 & MASK
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        return z ^ z >> 31

    def below(self, n):
        return self.next() % n

    def one_in(self, n):
        return not self.below(n)

    def pick(self, values):
        return values[self.below(len(values))]


@dataclasses.dataclass
class Drawn:
    """A call with its arguments, (kind, value) each, and the memory before
    it."""

    call: check.Call
    index: int
    arguments: list = dataclasses.field(default_factory=list)
    data: list = dataclasses.field(default_factory=list)        # (offset, bytes)
    moves: list = dataclasses.field(default_factory=list)       # (offset, kind, size, value)
    words: list = dataclasses.field(default_factory=list)

    def __str__(self):
        return f"r{self.index} = {self.call.name}({', '.join(self.words)})"


class Buffer:
    """The memory that a call's pointer refers to, while it is drawn."""

    def __init__(self, start):
        self.start = start
        self.bytes = bytearray()
        self.moves = []
        self.made = []          # (resource, offset, size)

    def pad(self, align):
        self.bytes += bytes(-len(self.bytes) % align)

    def put(self, value, size):
        self.bytes += (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def set(self, at, value, size):
        self.bytes[at:at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")


class Program:
    def __init__(self, number, world, random, resolver):
        self.number, self.world = number, world
        self.random, self.resolver = random, resolver
        self.calls = []
        self.arena = 0
        self.resources = {name: [(GIVEN_VALUE, n)] for name, n in GIVEN[world].items()}

    def __str__(self):
        return "\n".join([f"# program {self.number}, world {self.world}", *map(str, self.calls)])

    # Resources.

    def sources(self, name):
        """The existing values of a resource, the newest last."""
        return [s for made, sources in self.resources.items() if name in self.resolver.parents(made) for s in sources]

    def made(self, name, source):
        self.resources.setdefault(name, []).append(source)

    # Values of a type: how is ANY, GOOD or PLAIN.

    def int(self, node, how):
        random = self.random
        if how == PLAIN:
            return node.low if node.ranged else 1
        if how == ANY and random.one_in(6):
            return random.pick((0, 1, node.low - 1, node.high + 1, (1 << 8 * node.size) - 1, 1 << 8 * node.size - 1, random.next()))
        if not node.ranged:
            return random.pick((0, 1, 0xffffffff, 1 << random.below(8 * node.size), random.next()))
        if random.one_in(4):
            return node.low
        if random.one_in(6):
            return node.high // node.step * node.step
        return node.low + random.below((node.high - node.low) // node.step + 1) * node.step

    def choice(self, node, how):
        random = self.random
        bits = len(node.values) > 1 and all(v & v - 1 == 0 for v in node.values)
        if how == PLAIN:
            return functools.reduce(operator.or_, node.values) if bits else node.values[0]
        if how == ANY and random.one_in(8):
            return random.pick((0, (1 << 8 * node.size) - 1, random.next()))
        values = node.values
        if bits and not random.one_in(3):
            value = 0
            for v in values:
                value |= v * random.below(2)
            return value
        return random.pick(values)

    def handle(self, node, how):
        """(kind, value, text) of a resource."""
        random = self.random
        sources = self.sources(node.resource)
        if how == ANY and random.one_in(12):
            sources = [s for found in self.resources.values() for s in found]
        if not sources or how == ANY and random.one_in(12):
            value = random.pick(node.values)
            return VALUE, value & MASK, str(value)
        kind, value = sources[-1] if how == PLAIN else random.pick(sources)
        word = {RESULT: f"r{value}", GIVEN_VALUE: f"given{value}"}.get(kind) or f"*{value:#x}"
        return kind, value, word

    def area(self):
        """(first byte, length) of pages; it starts in the first half of the
        area, and may be up to half of the area long."""
        return self.random.below(AREA_UNITS // 2) * UNIT, (1 + self.random.below(32)) * UNIT

    def length(self, value, how):
        random = self.random
        if how or not random.one_in(6):
            return value
        return random.pick((0, max(value - 1, 0), value + 1, 2 * value))

    # Memory for pointers. Each function returns the length in bytes and in
    # elements, and a text.

    def write(self, buffer, node, how, direction):
        if isinstance(node, check.Const):
            value = self.random.next() if how == ANY and self.random.one_in(16) else node.low
            buffer.put(value, node.size)
            return node.size, 1, f"{value & (1 << 8 * node.size) - 1:#x}"
        if isinstance(node, (check.Int, check.Choice)):
            value = self.int(node, how) if isinstance(node, check.Int) else self.choice(node, how)
            buffer.put(value, node.size)
            return node.size, 1, f"{value & (1 << 8 * node.size) - 1:#x}"
        if isinstance(node, check.Length):
            buffer.put(0, node.size)            # set when its target is known
            return node.size, 1, ""
        if isinstance(node, check.Handle):
            return self.write_handle(buffer, node, how, direction)
        if isinstance(node, check.Area):
            start, length = self.area()
            buffer.moves.append((buffer.start + len(buffer.bytes), AREA, node.size, start))
            buffer.put(0, node.size)
            return length, 1, f"area+{start:#x}"
        if isinstance(node, check.Array):
            return self.write_array(buffer, node, how, direction)
        if isinstance(node, check.Text):
            return self.write_text(buffer, node)
        if isinstance(node, check.Record):
            return self.write_record(buffer, node, how, direction)
        assert isinstance(node, check.Void), node
        return 0, 0, "void"

    def write_handle(self, buffer, node, how, direction):
        at = buffer.start + len(buffer.bytes)
        buffer.put(0, node.size)
        if direction == syzlang.OUT:
            buffer.made.append((node.resource, at, node.size))
            return node.size, 1, f"-> {node.resource}"
        kind, value, word = self.handle(node, how)
        if kind == VALUE:
            buffer.set(at - buffer.start, value, node.size)
        else:
            buffer.moves.append((at, kind, node.size, value))
        return node.size, 1, word

    def write_array(self, buffer, node, how, direction):
        start = len(buffer.bytes)
        count = node.low + self.random.below(node.high - node.low + 1)
        # Mostly fewer than 64.
        if node.high > 64 and not self.random.one_in(4):
            count = node.low + self.random.below(64)
        if how == PLAIN:
            count = max(node.low, 1)
        words = []
        if direction == syzlang.OUT and isinstance(node.element, check.Int):
            buffer.bytes += bytes(count * node.element.size)
        else:
            for _ in range(count):
                buffer.pad(node.element.align)
                words.append(self.write(buffer, node.element, how, direction)[2])
        return len(buffer.bytes) - start, count, f"[{', '.join(words) or count}]"

    def write_text(self, buffer, node):
        if node.name == "nvgrace_addresses":
            buffer.moves.append((buffer.start + len(buffer.bytes), ADDRESS, ADDRESS_SIZE, 0))
            buffer.bytes += bytes(ADDRESS_SIZE)
            return ADDRESS_SIZE, ADDRESS_SIZE, "the GPU's address"
        text = self.random.pick(node.values)
        buffer.bytes += text.encode() + b"\0"
        return len(text) + 1, len(text) + 1, f'"{text}"'

    def write_record(self, buffer, node, how, direction):
        start = len(buffer.bytes)
        members = node.members
        if node.is_union:
            members = (self.random.pick(members),)
        sizes, positions, words = {}, {}, {}
        for member in members:
            if node.align > 1:
                buffer.pad(member.node.align)
            positions[member.name] = len(buffer.bytes)
            *sizes[member.name], words[member.name] = self.write(buffer, member.node, how, member.direction or (
                syzlang.IN if direction == syzlang.INOUT else direction))
        if node.size is not None:
            buffer.bytes += bytes(start + node.size - len(buffer.bytes))
        total = len(buffer.bytes) - start
        for member in members:
            if isinstance(member.node, check.Length):
                in_bytes, elements = (total, total) if member.node.target == "parent" else sizes[member.node.target]
                value = self.length(in_bytes if member.node.in_bytes else elements, how)
                buffer.set(positions[member.name], value, member.node.size)
                words[member.name] = f"{value:#x}"
        return total, total, "{" + ", ".join(f"{n}={w}" for n, w in words.items()) + "}"

    # Calls.

    def needs(self, node, direction="in"):
        """Resources that a node takes."""
        if isinstance(node, check.Handle):
            return [node.resource] if direction != syzlang.OUT else []
        if isinstance(node, check.Pointer):
            return self.needs(node.target, node.direction)
        if isinstance(node, check.Array):
            return self.needs(node.element, direction)
        if isinstance(node, check.Record):
            return [r for m in node.members
                    for r in self.needs(m.node, m.direction or (syzlang.IN if direction == syzlang.INOUT else direction))]
        return []

    def make(self, name, calls, cdev):
        """Draws the calls that make a resource, unless it exists."""
        recipe = RECIPES.get(name)
        if name == "fd_nvgrace_device":
            recipe = BY_CDEV if cdev else BY_GROUP
        for step in recipe or ():
            if calls[step].result and self.sources(calls[step].result):
                continue
            if not any(d.call.name == step for d in self.calls):
                self.add(calls[step], calls, PLAIN, cdev)

    def add(self, call, calls, how, cdev):
        """Draws a call, preceded by those that it needs."""
        for step in BEFORE.get(call.name, ()) if how else ():
            self.add(calls[step], calls, PLAIN, cdev)
        for argument in call.arguments:
            for name in self.needs(argument.node):
                if not self.sources(name) and (how or not self.random.one_in(8)):
                    self.make(name, calls, cdev)
        drawn = Drawn(call, len(self.calls))
        lengths, results = {}, []
        for argument in call.arguments:
            node = argument.node
            if isinstance(node, check.Pointer):
                buffer = Buffer(self.arena)
                *lengths[argument.name], word = self.write(buffer, node.target, how, node.direction)
                results += buffer.made
                drawn.moves += buffer.moves
                if any(buffer.bytes):
                    drawn.data.append((self.arena, bytes(buffer.bytes.rstrip(b"\0"))))
                argued = (POINTER, self.arena, f"&{self.arena:#x}={word}")
                # Space for calls that write beyond, because their length is too
                # large.
                self.arena = check.round_up(self.arena + 2 * len(buffer.bytes) + 64, 64)
                if how == ANY and self.random.one_in(40):
                    argued = (VALUE, 0, "0")
            elif isinstance(node, check.Area):
                start, length = self.area()
                lengths[argument.name] = [length, length]
                argued = (AREA, start, f"area+{start:#x}")
            elif isinstance(node, check.Handle):
                argued = self.handle(node, how)
            elif isinstance(node, check.Length):
                argued = None
            elif isinstance(node, check.Const):
                argued = (VALUE, node.low & MASK, f"{node.low:#x}")
            else:
                value = (self.int(node, how) if isinstance(node, check.Int) else self.choice(node, how)) & MASK
                argued = (VALUE, value, f"{value:#x}")
            drawn.arguments.append(argued)
        for i, argument in enumerate(call.arguments):
            if isinstance(argument.node, check.Length):
                value = self.length(lengths[argument.node.target][not argument.node.in_bytes], how)
                drawn.arguments[i] = (VALUE, value, f"{value:#x}")
        drawn.words = [word for _, _, word in drawn.arguments]
        self.calls.append(drawn)
        if call.result:
            self.made(call.result, (RESULT, drawn.index))
        for name, offset, size in results:
            self.made(name, (MEMORY, offset | size << 32))
        assert self.arena < ARENA


def possible(program_needs, world):
    """Whether a call that needs these resources makes sense in a world."""
    absent = {"group": ("fd_nvgrace_iommu", "fd_nvgrace_cdev", "nvgrace_ioas", "nvgrace_devid"),
              "cdev": ("fd_nvgrace_container", "fd_nvgrace_group")}.get(world, ())
    return not set(program_needs) & set(absent)


def draw(calls, resolver, seed, count, worlds):
    """EACH programs for every call in every world where it makes sense, and the
    rest of count at random."""
    random = Random(seed)
    programs = []

    def new(world):
        programs.append(Program(len(programs), world, random, resolver))
        return programs[-1]

    for world in worlds:
        for call in calls.values():
            needs = [n for a in call.arguments for n in Program(0, world, random, resolver).needs(a.node)]
            opens = call.name in (*BY_GROUP, *BY_CDEV, "ioctl$nvgrace_GROUP_UNSET_CONTAINER")
            if possible(needs, world) and (world != "fresh" or opens or not any(possible(needs, w) for w in worlds[1:])):
                # In "fresh", one only: opening takes as long as 20 other
                # programs.
                for i in range(MORE.get(call.name, EACH) if world != "fresh" else 1):
                    new(world).add(call, calls, GOOD if i else PLAIN, world == "cdev")
    weighted = {w: [c for c in calls.values() for _ in range(WEIGHTS.get(c.name, 8))
                    if possible([n for a in c.arguments for n in Program(0, w, random, resolver).needs(a.node)], w)]
                for w in worlds}
    assert len(programs) < count, "count leaves no programs to draw at random"
    while len(programs) < count:
        # Programs of one world follow each other, because it stays open for
        # them.
        world = "fresh" if random.one_in(60) else worlds[1 + len(programs) // 100 % (len(worlds) - 1)]
        program = new(world)
        cdev = "cdev" in worlds and not random.one_in(2)
        for _ in range(1 + random.below(LONGEST)):
            program.add(random.pick(weighted[world]), calls, random.pick((ANY, GOOD)), cdev)
    return programs


def serialise(programs, calls):
    """The table for replay.c, which reads it."""
    names = list(calls)
    out = [b"SYZ1", struct.pack("<II", len(calls), len(programs))]
    for program in programs:
        out.append(struct.pack("<II", WORLDS.index(program.world), len(program.calls)))
        for drawn in program.calls:
            out.append(struct.pack("<IIIII", names.index(drawn.call.name), check.SYSCALLS.index(drawn.call.syscall),
                                   len(drawn.arguments), len(drawn.data), len(drawn.moves)))
            out += [struct.pack("<IIQ", kind, 0, value) for kind, value, _ in drawn.arguments]
            for offset, data in drawn.data:
                out.append(struct.pack("<II", offset, len(data)) + data + bytes(-len(data) % 4))
            out += [struct.pack("<IIIIQ", offset, kind, size, 0, value) for offset, kind, size, value in drawn.moves]
    return b"".join(out)
