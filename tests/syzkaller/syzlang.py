# SPDX-License-Identifier: GPL-2.0-only
"""Reads a description in syzlang, the language of syzkaller's descriptions,
with only the grammar that this folder's needs.

    description = parse(text, "name.txt")

Raises Mistake, with the line, for everything else, so that a typing error can't
pass for some other syntax of syzkaller. check.py checks the meaning.
"""

import dataclasses
import re

TOKEN = re.compile(r"""\s*(?:(?P<string>"[^"]*")|(?P<number>-?0x[0-9a-fA-F]+\b|-?[0-9]+\b)|(?P<name>[A-Za-z_][A-Za-z0-9_$]*)|(?P<mark>[][(){},:=]))""")

IN, OUT, INOUT = "in", "out", "inout"
STRUCT_ATTRIBUTES = ("packed",)
UNION_ATTRIBUTES = ("varlen",)
CALL_ATTRIBUTES = ("disabled", "no_generate")
FIELD_ATTRIBUTES = (IN, OUT, INOUT)


class Mistake(Exception):
    """An error in a description, with its place."""

    def __init__(self, where, text):
        super().__init__(f"{where}: {text}")


@dataclasses.dataclass(frozen=True)
class Type:
    """A type with its options, which are types, numbers, strings and ranges; a
    constant is a type without options."""

    name: str
    options: tuple = ()

    def __str__(self):
        return self.name + (f"[{', '.join(map(str, self.options))}]" if self.options else "")


@dataclasses.dataclass(frozen=True)
class Range:
    """first:last."""

    first: "int | Type"
    last: "int | Type"

    def __str__(self):
        return f"{self.first}:{self.last}"


@dataclasses.dataclass(frozen=True)
class String:
    """A quoted text, without the quotes."""

    text: str

    def __str__(self):
        return f'"{self.text}"'


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a struct or union, or an argument of a call."""

    name: str
    type: Type
    where: str
    attributes: tuple = ()


@dataclasses.dataclass(frozen=True)
class Struct:
    """A struct or a union; with parameters, a template of one."""

    name: str
    fields: tuple
    where: str
    is_union: bool = False
    attributes: tuple = ()
    parameters: tuple = ()


@dataclasses.dataclass(frozen=True)
class Alias:
    """type NAME TYPE."""

    name: str
    type: Type
    where: str


@dataclasses.dataclass(frozen=True)
class Resource:
    """A kind of values that some calls make and others take."""

    name: str
    base: Type
    values: tuple
    where: str


@dataclasses.dataclass(frozen=True)
class Flags:
    """A list of constants or of strings."""

    name: str
    values: tuple
    where: str


@dataclasses.dataclass(frozen=True)
class Call:
    """A call, with its variant's name."""

    name: str
    arguments: tuple
    result: "Type | None"
    where: str
    attributes: tuple = ()

    @property
    def syscall(self):
        return self.name.split("$")[0]


@dataclasses.dataclass
class Description:
    """The contents of a file. Structs, aliases and resources share their
    names."""

    types: dict = dataclasses.field(default_factory=dict)      # Struct, Alias, Resource
    flags: dict = dataclasses.field(default_factory=dict)
    calls: dict = dataclasses.field(default_factory=dict)
    defines: dict = dataclasses.field(default_factory=dict)    # {name, with parameters: C text}
    includes: list = dataclasses.field(default_factory=list)

    def resources(self):
        return {n: t for n, t in self.types.items() if isinstance(t, Resource)}


class Line:
    """The tokens of one line, taken from left to right."""

    def __init__(self, where, text):
        self.where = where
        self.tokens = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = TOKEN.match(text, position)
            if not match:
                raise Mistake(where, f"no token begins at {text[position:].strip()[:20]!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()

    def peek(self):
        return self.tokens[0][1] if self.tokens else ""

    def take(self, *marks):
        """Take the next token, which must be one of marks, if there are any."""
        if not self.tokens:
            raise Mistake(self.where, f"expected {' or '.join(marks) or 'more'}, found the end of the line")
        kind, text = self.tokens.pop(0)
        if marks and (text not in marks or kind == "string"):
            raise Mistake(self.where, f"expected {' or '.join(marks)}, found {text}")
        return kind, text

    def name(self):
        kind, text = self.take()
        if kind != "name":
            raise Mistake(self.where, f"expected a name, found {text}")
        return text

    def maybe(self, mark):
        if self.peek() == mark and self.tokens[0][0] == "mark":
            self.tokens.pop(0)
            return True
        return False

    def end(self):
        if self.tokens:
            raise Mistake(self.where, f"expected the end of the line, found {self.peek()}")

    def listed(self, close, item):
        """Take items with commas between them, and the closing mark."""
        items = []
        while not self.maybe(close):
            if items:
                self.take(",")
            items.append(item())
        return tuple(items)

    def value(self):
        """A number, a string, or a type, which may be a constant."""
        kind, text = self.take()
        if kind == "number":
            return int(text, 0)
        if kind == "string":
            return String(text[1:-1])
        if kind == "name":
            return Type(text, self.options())
        raise Mistake(self.where, f"expected a value or a type, found {text}")

    def options(self):
        return self.listed("]", self.option) if self.maybe("[") else ()

    def option(self):
        first = self.value()
        if self.maybe(":"):
            return Range(first, self.value())
        return first

    def type(self):
        return Type(self.name(), self.options())

    def attributes(self, opening, closing, known):
        if not self.maybe(opening):
            return ()
        found = self.listed(closing, self.name)
        for name in found:
            if name not in known:
                raise Mistake(self.where, f"no attribute {name} here")
        return found


class Parser:
    """One file, line by line."""

    def __init__(self, text, name):
        self.name = name
        self.lines = []
        for number, line in enumerate(text.splitlines(), 1):
            # A number sign in a string, as in names of devices, does not begin
            # a comment.
            code = re.sub(r'^((?:[^"#]|"[^"]*")*)#.*', r"\1", line)
            if code.strip():
                self.lines.append((f"{name}:{number}", code))
        self.description = Description()

    def add(self, table, item):
        if item.name in table:
            raise Mistake(item.where, f"{item.name} is already defined at {table[item.name].where}")
        table[item.name] = item

    def run(self):
        while self.lines:
            where, text = self.lines.pop(0)
            if match := re.fullmatch(r"(include|incdir)\s+<([^<>]+)>\s*", text):
                self.description.includes.append((match[1], match[2], where))
            elif match := re.fullmatch(r"define\s+((\w+)(?:\(\w+\))?)\s+(.+?)\s*", text):
                if match[2] in (n.split("(")[0] for n in self.description.defines):
                    raise Mistake(where, f"{match[2]} is defined twice")
                self.description.defines[match[1]] = match[3]
            else:
                self.statement(Line(where, text))
        return self.description

    def statement(self, line):
        name = line.name()
        description = self.description
        if name == "resource":
            self.add(description.types, self.resource(line))
        elif name == "type":
            self.add(description.types, self.type(line))
        elif line.maybe("("):
            self.add(description.calls, self.call(line, name))
        elif line.maybe("="):
            self.add(description.flags, self.flags(line, name))
        elif line.peek() in "{[" and line.peek():
            self.add(description.types, self.struct(line, name, ()))
        else:
            raise Mistake(line.where, f"no statement begins with {name}")

    def resource(self, line):
        name = line.name()
        line.take("[")
        base = line.type()
        line.take("]")
        values = []
        if line.maybe(":"):
            values.append(line.value())
            while line.maybe(","):
                values.append(line.value())
        line.end()
        return Resource(name, base, tuple(values), line.where)

    def type(self, line):
        """An alias, or a template of a struct."""
        name = line.name()
        if line.maybe("["):
            parameters = line.listed("]", line.name)
            if not parameters or len(set(parameters)) != len(parameters):
                raise Mistake(line.where, f"{name} needs parameters with different names")
            return self.struct(line, name, parameters)
        alias = Alias(name, line.type(), line.where)
        line.end()
        return alias

    def struct(self, line, name, parameters):
        where = line.where
        is_union = line.take("{", "[")[1] == "["
        closing = "]" if is_union else "}"
        line.end()
        fields = []
        while True:
            if not self.lines:
                raise Mistake(where, f"{name} is not closed")
            line = Line(*self.lines.pop(0))
            if line.maybe(closing):
                break
            field = line.name()
            if any(field == f.name for f in fields) or field == "parent":
                raise Mistake(line.where, f"a field can't have the name {field} here")
            fields.append(Field(field, line.type(), line.where, line.attributes("(", ")", FIELD_ATTRIBUTES)))
            line.end()
        attributes = line.attributes("[", "]", UNION_ATTRIBUTES if is_union else STRUCT_ATTRIBUTES)
        line.end()
        if not fields:
            raise Mistake(where, f"{name} has no fields")
        return Struct(name, tuple(fields), where, is_union, attributes, parameters)

    def flags(self, line, name):
        values = [line.value()]
        while line.maybe(","):
            values.append(line.value())
        line.end()
        return Flags(name, tuple(values), line.where)

    def call(self, line, name):
        if not re.fullmatch(r"[a-z0-9_]+(\$[A-Za-z0-9_]+)?", name):
            raise Mistake(line.where, f"{name} is not a name of a call")
        arguments = line.listed(")", lambda: Field(line.name(), line.type(), line.where))
        names = [a.name for a in arguments]
        if len(set(names)) != len(names):
            raise Mistake(line.where, f"{name} has two arguments with the same name")
        result = line.type() if line.tokens and line.peek() != "(" else None
        attributes = line.attributes("(", ")", CALL_ATTRIBUTES)
        line.end()
        return Call(name, arguments, result, line.where, attributes)


def parse(text, name="description"):
    """The Description of a text; raises Mistake if the text is wrong."""
    return Parser(text, name).run()
