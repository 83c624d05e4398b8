# SPDX-License-Identifier: GPL-2.0-only
"""Checks a description in syzlang, and resolves its types.

    calls, resolver = resolved(description, values)     # values: uapi.values()

Every name must be defined and used, lengths must be of an existing field,
options must fit their type, and a call must make each resource. The result has
the arguments of each call as a tree of the classes below, with C's sizes and
alignments.
"""

import dataclasses

import syzlang
from syzlang import Mistake, Range, String, Type

INTS = {"int8": 1, "int16": 2, "int32": 4, "int64": 8, "intptr": 8}
LENGTHS = {"len": 0, "bytesize": 1}
BUILTIN = (*INTS, *LENGTHS, "const", "flags", "ptr", "array", "string", "vma", "vma64", "void")
# Used here, but defined by syzkaller's other descriptions.
ELSEWHERE = "resource fd[int32]: -1\n"
SYSCALLS = ("openat", "syz_open_dev", "eventfd2", "close", "dup", "ioctl", "pread64", "pwrite64", "mmap", "munmap", "mremap",
            "mprotect", "madvise")
POINTER = 8


@dataclasses.dataclass(frozen=True)
class Int:
    size: int
    low: int
    high: int
    step: int = 1
    ranged: bool = False

    @property
    def align(self):
        return self.size


@dataclasses.dataclass(frozen=True)
class Const(Int):
    """A constant, whose value is low."""


@dataclasses.dataclass(frozen=True)
class Choice:
    size: int
    name: str
    values: tuple

    @property
    def align(self):
        return self.size


@dataclasses.dataclass(frozen=True)
class Length:
    """The length of the field target, or of the struct around it ("parent"), in
    bytes or in elements of an array."""

    size: int
    target: str
    in_bytes: bool

    @property
    def align(self):
        return self.size


@dataclasses.dataclass(frozen=True)
class Handle:
    size: int
    resource: str
    values: tuple

    @property
    def align(self):
        return self.size


@dataclasses.dataclass(frozen=True)
class Area:
    """Pages of the process."""

    size: int = POINTER
    align: int = POINTER


@dataclasses.dataclass(frozen=True)
class Pointer:
    direction: str
    target: object
    size: int = POINTER
    align: int = POINTER


@dataclasses.dataclass(frozen=True)
class Array:
    element: object
    low: int
    high: int

    @property
    def align(self):
        return self.element.align

    @property
    def size(self):
        return self.element.size * self.low if self.low == self.high and self.element.size is not None else None


@dataclasses.dataclass(frozen=True)
class Text:
    name: str               # of the flags, or ""
    values: tuple
    align: int = 1

    @property
    def size(self):
        return len(self.values[0]) + 1 if len(self.values) == 1 else None


@dataclasses.dataclass(frozen=True)
class Void:
    size: int = 0
    align: int = 1


@dataclasses.dataclass(frozen=True)
class Member:
    name: str
    node: object
    direction: str
    offset: "int | None"    # None after a member without fixed size; 0 in a union


@dataclasses.dataclass(frozen=True)
class Record:
    """A struct or union."""

    name: str
    members: tuple
    is_union: bool
    size: "int | None"
    align: int
    fixed: int              # bytes before the first member without fixed size, or all


@dataclasses.dataclass(frozen=True)
class Call:
    name: str
    syscall: str
    arguments: tuple        # Members
    result: "str | None"    # a resource


def round_up(value, unit):
    return -(-value // unit) * unit


class Resolver:
    def __init__(self, description, values):
        self.description = description
        self.types = {**syzlang.parse(ELSEWHERE, "elsewhere").types, **description.types}
        self.values = values
        self.used = set()
        self.made = set()
        self.taken = set()
        self.records = {}           # {type with its options: Record}
        self.open = []

    # Values.

    def number(self, value, where):
        if isinstance(value, int):
            return value
        if isinstance(value, Type) and not value.options:
            if value.name in self.values:
                return self.values[value.name]
            raise Mistake(where, f"there is no constant {value.name}")
        raise Mistake(where, f"expected a number, found {value}")

    def range(self, value, where):
        if isinstance(value, Range):
            low, high = self.number(value.first, where), self.number(value.last, where)
        else:
            low = high = self.number(value, where)
        if low > high:
            raise Mistake(where, f"the range from {low} to {high} is empty")
        return low, high

    def flag_values(self, name, where, kind):
        flags = self.description.flags.get(name)
        if not flags:
            raise Mistake(where, f"there are no flags {name}")
        self.used.add(name)
        strings = [isinstance(v, String) for v in flags.values]
        if not all(strings) if kind is String else any(strings):
            raise Mistake(where, f"{name} has values of another kind")
        if kind is String:
            return tuple(v.text for v in flags.values)
        return tuple(self.number(v, flags.where) for v in flags.values)

    # Types.

    def node(self, kind, where, in_struct):
        """Resolves a type. in_struct: it is a field's, which must have a
        size."""
        if not isinstance(kind, Type):
            raise Mistake(where, f"expected a type, found {kind}")
        if kind.name in BUILTIN:
            return self.builtin(kind, where, in_struct)
        found = self.types.get(kind.name)
        if found is None:
            raise Mistake(where, f"there is no type {kind.name}")
        self.used.add(kind.name)
        if isinstance(found, syzlang.Struct):
            return self.record(found, kind, where)
        if kind.options:
            raise Mistake(where, f"{kind.name} takes no options")
        if isinstance(found, syzlang.Alias):
            return self.node(found.type, found.where, True)
        return self.handle(found)

    def handle(self, resource):
        values = tuple(self.number(v, resource.where) for v in resource.values)
        base, seen = resource.base, {resource.name}
        while base.name not in INTS:
            above = self.types.get(base.name)
            if not isinstance(above, syzlang.Resource) or base.name in seen or base.options:
                raise Mistake(resource.where, f"{base} can't be the base of a resource")
            seen.add(base.name)
            self.used.add(base.name)
            values = values or tuple(self.number(v, above.where) for v in above.values)
            base = above.base
        return Handle(INTS[base.name], resource.name, values or (0,))

    def parents(self, name):
        """A resource and the ones that it is based on."""
        found = []
        while name in self.types:
            found.append(name)
            name = self.types[name].base.name
        return found

    def base(self, options, at, where, in_struct):
        """The size that an option names. A struct's field needs one; an
        argument must not have one."""
        if len(options) > at + 1 or len(options) == at + 1 and not in_struct:
            raise Mistake(where, "too many options")
        if len(options) <= at:
            if in_struct:
                raise Mistake(where, "a field needs the size of its value, such as int32")
            return POINTER
        if not isinstance(options[at], Type) or options[at].name not in INTS or options[at].options:
            raise Mistake(where, f"{options[at]} is not the size of a value")
        return INTS[options[at].name]

    def builtin(self, kind, where, in_struct):
        name, options = kind.name, kind.options
        if name in INTS:
            return self.int(kind, where)
        if name in ("vma", "vma64", "void"):
            if options or name == "void" and not in_struct:
                raise Mistake(where, f"{kind} can't be here")
            return Void() if name == "void" else Area()
        if not options:
            raise Mistake(where, f"{name} needs options")
        if name == "const":
            size = self.base(options, 1, where, in_struct)
            value = self.number(options[0], where)
            if not -(1 << 8 * size - 1) <= value < 1 << 8 * size:
                raise Mistake(where, f"{value:#x} has more than {size} bytes")
            return Const(size, value, value)
        if name == "flags":
            size = self.base(options, 1, where, in_struct)
            if not isinstance(options[0], Type):
                raise Mistake(where, f"expected flags, found {options[0]}")
            values = self.flag_values(options[0].name, where, int)
            if any(v >= 1 << 8 * size for v in values):
                raise Mistake(where, f"{options[0]} has more than {size} bytes")
            return Choice(size, options[0].name, values)
        if name in LENGTHS:
            if not isinstance(options[0], Type) or options[0].options:
                raise Mistake(where, f"expected a field's name, found {options[0]}")
            return Length(self.base(options, 1, where, in_struct), options[0].name, bool(LENGTHS[name]))
        if name == "ptr":
            if len(options) != 2 or not isinstance(options[0], Type) or options[0].name not in syzlang.FIELD_ATTRIBUTES:
                raise Mistake(where, "a pointer needs a direction and a type")
            return Pointer(options[0].name, self.node(options[1], where, True))
        if name == "array":
            if len(options) != 2:
                raise Mistake(where, "an array needs a type and a size")
            low, high = self.range(options[1], where)
            if low < 0 or not high:
                raise Mistake(where, "the array is always empty")
            return Array(self.node(options[0], where, True), low, high)
        if len(options) != 1:
            raise Mistake(where, "a string needs one value or flags")
        if isinstance(options[0], String):
            return Text("", (options[0].text,))
        return Text(options[0].name, self.flag_values(options[0].name, where, String))

    def int(self, kind, where):
        size, options = INTS[kind.name], kind.options
        if not options:
            return Int(size, 0, (1 << 8 * size) - 1)
        if len(options) > 2 or len(options) == 2 and not isinstance(options[0], Range):
            raise Mistake(where, "an integer takes a range, and a number for multiples")
        low, high = self.range(options[0], where)
        step = self.number(options[1], where) if len(options) == 2 else 1
        if step < 1 or not -(1 << 8 * size - 1) <= low <= high < 1 << 8 * size:
            raise Mistake(where, f"{kind} does not fit into {size} bytes")
        return Int(size, low, high, step, True)

    # Structs.

    def substitute(self, kind, arguments, where):
        """A type of a template with the arguments for the parameters."""
        if isinstance(kind, Type):
            if kind.name in arguments:
                if kind.options:
                    raise Mistake(where, f"the parameter {kind.name} takes no options")
                return arguments[kind.name]
            return Type(kind.name, tuple(self.substitute(o, arguments, where) for o in kind.options))
        if isinstance(kind, Range):
            return Range(self.substitute(kind.first, arguments, where), self.substitute(kind.last, arguments, where))
        return kind

    def record(self, struct, kind, where):
        if len(kind.options) != len(struct.parameters):
            raise Mistake(where, f"{struct.name} has {len(struct.parameters)} parameters")
        if str(kind) in self.records:
            return self.records[str(kind)]
        if str(kind) in self.open:
            raise Mistake(where, f"{struct.name} contains itself")
        self.open.append(str(kind))
        arguments = dict(zip(struct.parameters, kind.options))
        for parameter in struct.parameters:
            if not any(mentions(f.type, parameter) for f in struct.fields):
                raise Mistake(struct.where, f"{struct.name} does not use {parameter}")
        members = []
        for field in struct.fields:
            node = self.node(self.substitute(field.type, arguments, field.where), field.where, True)
            direction = field.attributes[0] if field.attributes else ""
            members.append((field, Member(field.name, node, direction, None)))
        found = self.layout(struct, [m for _, m in members])
        for field, member in members:
            self.check_length(member.node, [m for _, m in members], field.where, True)
        self.open.pop()
        self.records[str(kind)] = found
        return found

    def layout(self, struct, members):
        packed = "packed" in struct.attributes
        align = 1 if packed else max(m.node.align for m in members)
        if struct.is_union:
            sizes = [m.node.size for m in members]
            members = tuple(dataclasses.replace(m, offset=0) for m in members)
            size = None if "varlen" in struct.attributes or None in sizes else round_up(max(sizes), align)
            return Record(struct.name, members, True, size, align, 0 if size is None else size)
        placed, offset, fixed = [], 0, 0
        for member in members:
            if offset is not None and not packed:
                offset = round_up(offset, member.node.align)
            placed.append(dataclasses.replace(member, offset=offset))
            if offset is not None:
                fixed = offset
                offset = None if member.node.size is None else offset + member.node.size
        size = None if offset is None else round_up(offset, align)
        return Record(struct.name, tuple(placed), False, size, align, fixed if size is None else size)

    def check_length(self, node, members, where, in_struct):
        if not isinstance(node, Length) or node.target == "parent" and in_struct:
            return
        target = next((m.node for m in members if m.name == node.target), None)
        if target is None:
            raise Mistake(where, f"the length of {node.target}, which is not in the same list")
        if not isinstance(target, (Array, Pointer, Area, Record, Text)):
            raise Mistake(where, f"{node.target} has no length")

    # Calls.

    def call(self, call):
        if call.syscall not in SYSCALLS:
            raise Mistake(call.where, f"{call.syscall} is not a call that replay.c supports")
        if len(call.arguments) > 6:
            raise Mistake(call.where, f"{call.name} has more than six arguments")
        members = []
        for argument in call.arguments:
            node = self.node(argument.type, argument.where, False)
            if isinstance(node, (Array, Text, Record, Void)):
                raise Mistake(argument.where, f"{argument.name} needs a pointer to its type")
            members.append(Member(argument.name, node, "in", None))
            self.flow(node, "in")
        for argument, member in zip(call.arguments, members):
            self.check_length(member.node, members, argument.where, False)
        result = None
        if call.result:
            if call.result.options or not isinstance(self.types.get(call.result.name), syzlang.Resource):
                raise Mistake(call.where, f"{call.result} is not a resource")
            result = call.result.name
            self.used.add(result)
            self.made.add(result)
        return Call(call.name, call.syscall, tuple(members), result)

    def flow(self, node, direction):
        """Notes the resources that a node takes and makes; the direction is
        that of the kernel's access."""
        if isinstance(node, Handle):
            if direction != syzlang.OUT:
                self.taken.add(node.resource)
            if direction != syzlang.IN:
                self.made.add(node.resource)
        elif isinstance(node, Pointer):
            self.flow(node.target, node.direction)
        elif isinstance(node, Array):
            self.flow(node.element, direction)
        elif isinstance(node, Record):
            for member in node.members:
                # Of what the kernel reads and writes, only marked fields are
                # new.
                self.flow(member.node, member.direction or ("in" if direction == syzlang.INOUT else direction))

    def run(self):
        description = self.description
        for name, item in description.types.items():
            if name in BUILTIN or name in syzlang.parse(ELSEWHERE).types:
                raise Mistake(item.where, f"{name} is a name of the language or of syzkaller")
        calls = {name: self.call(call) for name, call in description.calls.items()}
        for name, item in {**description.types, **description.flags}.items():
            if name not in self.used:
                raise Mistake(item.where, f"nothing uses {name}")
        for name, item in description.resources().items():
            self.handle(item)
            if not any(name in self.parents(made) for made in self.made):
                raise Mistake(item.where, f"no call makes a {name}")
            if not set(self.parents(name)) & self.taken:
                raise Mistake(item.where, f"no call takes a {name}")
        return calls


def mentions(kind, name):
    if isinstance(kind, Type):
        return kind.name == name or any(mentions(o, name) for o in kind.options)
    return isinstance(kind, Range) and (mentions(kind.first, name) or mentions(kind.last, name))


def resolved(description, values):
    """{name: Call} of a Description, and its Resolver; raises Mistake if it is
    wrong."""
    resolver = Resolver(description, values)
    return resolver.run(), resolver


def constants(description):
    """The names in a Description that must be constants."""
    found = set()

    def option(value, known):
        if isinstance(value, Range):
            option(value.first, known)
            option(value.last, known)
        elif isinstance(value, Type):
            walk(value, known)

    def walk(kind, known):
        if kind.name in LENGTHS:
            return
        if kind.name not in BUILTIN and kind.name not in known and not kind.options:
            found.add(kind.name)
        for value in kind.options[kind.name == "ptr":]:
            option(value, known)

    names = {*description.types, *description.flags, *syzlang.parse(ELSEWHERE).types}
    for item in description.types.values():
        if isinstance(item, syzlang.Struct):
            for field in item.fields:
                walk(field.type, names | set(item.parameters))
        elif isinstance(item, syzlang.Alias):
            walk(item.type, names)
        else:
            found.update(v.name for v in item.values if isinstance(v, Type))
    for flags in description.flags.values():
        found.update(v.name for v in flags.values if isinstance(v, Type))
    for call in description.calls.values():
        for argument in call.arguments:
            walk(argument.type, names)
    return found
