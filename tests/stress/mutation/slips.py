# SPDX-License-Identifier: GPL-2.0-only
"""Makes mistakes: the mutants of a C file, each of which differs from it by one
small slip in a function.

Calls that log, and their arguments, are left out: a test that needs a log line
checks it. Names of flags and errors don't count as numbers, because one more is
just another label. Offsets are in bytes, and text is latin-1, so that they are
the same in characters. A mutant keeps the number of lines, so that its object
code can be compared."""

import ctypes
import re
import typing

from clang.cindex import CursorKind, Diagnostic, Index, conf

KINDS = {
    "delete": "a statement that is an expression or a jump",
    "negate": "a condition, or an operand of && or ||",
    "never": "a block never runs",
    "logic": "&& for ||, or the other way round",
    "boundary": "< for <=, > for >=, or the other way round",
    "arithmetic": "+ for -, * for /, << for >>, | for &, or the other way round",
    "constant": "a number one more or less, or its name one more",
    "return": "0 is returned",
}
SWAPPED = {"&&": ("logic", "||"), "||": ("logic", "&&"), "<": ("boundary", "<="), "<=": ("boundary", "<"),
           ">": ("boundary", ">="), ">=": ("boundary", ">"), **{old: ("arithmetic", new) for old, new in zip(
               "+ - * / % << >> | & += -= |= &=".split(), "- + / * * >> << & | -= += &= |=".split())}}
# Brackets and operators mean nothing in comments, strings and characters.
NO_CODE = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)
NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*")
NAME = re.compile(r"(?!NULL\b|THIS_MODULE\b|KBUILD_|GFP_|TASK_|VM_|E[A-Z0-9]+\b)[A-Z][A-Z0-9_]+\b(?!\s*\()")
LOG = re.compile(r"(?:pci|dev|pr)_(?:emerg|alert|crit|err|warn|notice|info|dbg)\w*\s*\(")
NOT_DELETED = re.compile(r"(?:if|for|while|do|switch|case|default)\b|\{|\w+\s*:|$")
# What a parser needs of gcc's arguments.
ARGUMENT = re.compile(r"-(?:[DUI].+|nostdinc|std=.+|fms-extensions|f(?:un)?signed-char|fshort-wchar)$")
# For these kinds of nodes, if the code begins with that: which children are
# conditions, and which stand in the place of statements. A macro may loop, too.
PARTS = {CursorKind.COMPOUND_STMT: (r"\{", [], slice(None)), CursorKind.IF_STMT: (r"if\b", [0], slice(1, None)),
         CursorKind.WHILE_STMT: (r"while\b", [0], slice(1, None)), CursorKind.DO_STMT: (r"do\b", [1], slice(1)),
         CursorKind.FOR_STMT: (r"\w", [], slice(-1, None)), CursorKind.LABEL_STMT: (r"\w", [], slice(-1, None)),
         CursorKind.CASE_STMT: (r"\w", [], slice(-1, None)), CursorKind.DEFAULT_STMT: (r"\w", [], slice(-1, None)),
         CursorKind.CONDITIONAL_OPERATOR: (r"[^?]*\?(?!:)", [0], slice(0))}


class NotUnderstood(Exception):
    """clang finds errors in a file. Its argument: the first one."""


class Mutant(typing.NamedTuple):
    """A file with new in the place of old, which begins at start."""

    file: str
    function: str
    kind: str
    line: int
    start: int
    old: str
    new: str

    def __str__(self):
        return f"{self.file}:{self.line}: {self.function} {self.kind}: {' '.join(f'{self.old} -> {self.new}'.split())}"

    @property
    def files(self):
        return [self.file]

    def applied(self, text):
        return text[:self.start] + self.new + text[self.start + len(self.old):]


class _Function:
    """found: the mutants of one function, {(start, end, new): kind}."""

    def __init__(self, text, cursor):
        self.text, self.found = text, {}
        # The same length, with blanks for what is no code.
        self.code = NO_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
        self.visit(list(cursor.get_children())[-1], False)

    def span(self, cursor):
        """Where a node is in this file. Code that a macro makes is at the
        macro's use, code in a macro's argument at its own place."""
        offsets = [ctypes.c_uint(), ctypes.c_uint()]
        for location, offset in zip((cursor.extent.start, cursor.extent.end), offsets):
            conf.lib.clang_getFileLocation(location, None, None, None, ctypes.byref(offset))
        start, end = offsets[0].value, offsets[1].value
        # A macro that ends another macro's argument ends where it starts.
        return start, re.compile(r"\b\w+|").match(self.code, end).end()

    def replace(self, kind, start, end, new):
        # If that macro has arguments, its end is not known.
        if kind not in ("negate", "never", "return") or self.code.count("(", start, end) == self.code.count(")", start, end):
            self.found.setdefault((start, end, new), kind)

    def negate(self, cursor):
        start, end = self.span(cursor)
        self.replace("negate", start, end, f"!({self.text[start:end]})")

    def delete(self, cursor):
        start, end = self.span(cursor)
        semicolon = re.compile(r"\s*;").match(self.code, end)
        if cursor.kind != CursorKind.DECL_STMT and semicolon and not NOT_DELETED.match(self.code[start:end]):
            self.replace("delete", start, semicolon.end(), "{ }" + "\n" * self.text.count("\n", start, semicolon.end()))

    def operator(self, node, children):
        """The operator of a node with two operands, after its mutants; ""
        in a macro."""
        (_, first), (second, _) = left, right = [self.span(c) for c in children]
        operator = self.code[first:second].strip()
        if not node[0] <= left[0] < first <= second < right[1] <= node[1] or operator not in SWAPPED:
            return ""
        for child in children if operator in ("&&", "||") else ():
            self.negate(child)
        kind, new = SWAPPED[operator]
        at = self.code.index(operator, first)
        self.replace(kind, at, at + len(operator), new)
        return operator

    def visit(self, cursor, flags):
        """flags: whether names of numbers are flags here."""
        start, end = self.span(cursor)
        code, children = self.code[start:end], list(cursor.get_children())
        if LOG.match(code):
            return
        begin, conditions, statements = PARTS.get(cursor.kind, ("$.", [], slice(0)))
        if re.match(begin, code):
            for child in children[statements]:
                self.delete(child)
            for i in conditions:
                self.negate(children[i])
        if cursor.kind == CursorKind.IF_STMT and code.startswith("if") and self.code[self.span(children[1])[0]] == "{":
            self.replace("never", *self.span(children[0]), "0")
        elif cursor.kind in (CursorKind.BINARY_OPERATOR, CursorKind.COMPOUND_ASSIGNMENT_OPERATOR):
            if operator := self.operator((start, end), children):
                flags = operator in ("|", "&", "|=", "&=")
        elif cursor.kind == CursorKind.RETURN_STMT and re.match(r"return\b(?!\s*(0|NULL|false)$).", code):
            self.replace("return", *self.span(children[0]), "0")
        elif cursor.kind == CursorKind.INTEGER_LITERAL:
            if number := NUMBER.match(self.code, start):
                for sign in "+-" if int(number[1], 0) else "+":
                    self.replace("constant", *number.span(), f"({number[0]} {sign} 1)")
            elif not flags and (name := NAME.match(self.code, start)):
                self.replace("constant", *name.span(), f"({name[0]} + 1)")
        elif cursor.kind not in (CursorKind.UNEXPOSED_EXPR, CursorKind.PAREN_EXPR):
            flags = cursor.kind == CursorKind.UNARY_OPERATOR and code.startswith("~")
        for child in children:
            self.visit(child, flags)


def mutants(file, path, command, directory):
    """All mutants of a file, in the order of their places. path: where it is
    now; command: of the compiler, which runs in that directory."""
    words, arguments = iter(command), ["--target=aarch64-linux-gnu", "-working-directory", str(directory)]
    for word in words:
        if word in ("-include", "-isystem"):
            arguments += [word, next(words)]
        elif ARGUMENT.match(word):
            arguments.append(word)
    unit = Index.create().parse(str(path), arguments)
    for said in unit.diagnostics:
        if said.severity >= Diagnostic.Error:
            raise NotUnderstood(f"clang does not understand {file}: {said.spelling}")
    text, found = path.read_text("latin-1"), []
    for cursor in unit.cursor.get_children():
        if cursor.kind == CursorKind.FUNCTION_DECL and cursor.is_definition() and cursor.location.file.name == str(path):
            found += [Mutant(file, cursor.spelling, kind, text.count("\n", 0, start) + 1, start, text[start:end], new)
                      for (start, end, new), kind in sorted(_Function(text, cursor).found.items())]
    return found
