# SPDX-License-Identifier: GPL-2.0-only
"""Makes mistakes: all mutants of a C file that differ from it by one small
slip.

There are three kinds. clang says where they apply:

delete      a statement that does something: an expression (an assignment, a
            call, a macro used like one), return, goto, break or continue.
            Initialisers of declarations stay. So do if, for, while, do and
            switch, whose parts are deleted one by one.
negate      a condition: of if, while, do, for, ?: (GNU's ?: without a middle,
            too), and each operand of && and ||.
off by one  a literal integer, one more and one less; the name of a number, one
            more; and < for <=, > for >= and the other way round.

Log calls (pci_err() and the like) are left out with all in them: tests that
need a line check it, and other lines are for people. Names of flags (operands
of |, & and ~, GFP_*, TASK_* and VM_*), errors and enumerators are left out as
well, because one more is another label and no slip. Text between functions,
such as definitions of macros, has no mutants.

A mutant keeps the number of lines, so that its object code can be compared. Its
name has no line number and stays the same as long as its line and its
function's name do. The draw is in the order of a hash of the names, so that a
change of the sources leaves the rest of a draw as it was.
"""

import dataclasses
import hashlib
import re

SEED = 2342

# Comments, strings and characters. Brackets and operators mean nothing there.
NO_CODE = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)
NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)([uUlL]*)")
NAME = re.compile(r"[A-Z][A-Z0-9_]+\b(?!\s*\()")
LABEL = re.compile(r"NULL|THIS_MODULE|KBUILD_\w+|(?:GFP|TASK|VM)_\w+|E[A-Z0-9]+")
LOG = re.compile(r"(?:pci|dev|pr)_(?:emerg|alert|crit|err|warn|notice|info|dbg)\w*\s*\(")
KEYWORD = re.compile(r"(?:if|for|while|do|switch|case|default|return|goto|break|continue)\b")

# Statements that are not deleted as a whole; and jumps.
WHOLE = ("CompoundStmt", "IfStmt", "ForStmt", "WhileStmt", "SwitchStmt", "LabelStmt", "CaseStmt", "DefaultStmt", "NullStmt",
         "DeclStmt", "DoStmt", "UnexposedStmt")
JUMPS = ("ReturnStmt", "GotoStmt", "BreakStmt", "ContinueStmt")
OTHER_COMPARISON = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """The file with text[start:end] replaced."""

    file: str
    name: str
    start: int
    end: int
    new: str

    def applied(self, text):
        return text[:self.start] + self.new + text[self.end:]

    def diff(self, text):
        """A diff for people. Both texts have the same number of lines."""
        old, new = text.splitlines(), self.applied(text).splitlines()
        changed = [i for i, (a, b) in enumerate(zip(old, new)) if a != b]
        first, last = changed[0], changed[-1] + 1
        before, behind = max(first - 2, 0), min(last + 2, len(old))
        return "\n".join([f"--- {self.file}:{first + 1}", *(f" {line}" for line in old[before:first]),
                          *(f"-{line}" for line in old[first:last]), *(f"+{line}" for line in new[first:last] if line.strip()),
                          *(f" {line}" for line in old[last:behind])])


def in_one_line(text):
    return " ".join(NO_CODE.sub(lambda m: m[0] if m[0][0] in "\"'" else " ", text).split())


class _Function:
    """The mutants of one function, from its tree."""

    def __init__(self, file, text, code, tree):
        self.file, self.text, self.code, self.tree = file, text, code, tree
        self.found = {}     # {(start, end, new): what}, in the order in which they were found
        self.labels = set()     # where operands of |, & and ~ begin

    # Places.

    def starts_with(self, node, word):
        return re.match(rf"{word}\b", self.code[node.start:node.end]) is not None

    def closing(self, start):
        """The positions of the first opening bracket from start on, and after
        the bracket that closes it."""
        first = at = self.code.index("(", start)
        depth = 0
        while True:
            depth += {"(": 1, ")": -1}.get(self.code[at], 0)
            at += 1
            if not depth:
                return first, at

    def line(self, at):
        first = self.text.rfind("\n", 0, at) + 1
        last = self.text.find("\n", at)
        return in_one_line(self.text[first:last])

    # What is found.

    def add(self, start, end, new, what):
        self.found.setdefault((start, end, new), what)

    def delete(self, node):
        behind = re.compile(r"\s*;").match(self.code, node.end)
        if behind:
            old = self.text[node.start:behind.end()]
            self.add(node.start, behind.end(), "{ }" + "\n" * old.count("\n"), f"delete {in_one_line(old)}")

    def replace(self, start, end, new, verb):
        self.add(start, end, new, f"{verb} in {self.line(start)}")

    def negate(self, node):
        old, code = self.text[node.start:node.end], self.code[node.start:node.end]
        # If a macro ends another macro's argument, clang gives the argument's
        # end.
        if old and code.count("(") == code.count(")"):
            self.replace(node.start, node.end, f"!({old})", f"negate {in_one_line(old)}")

    # The tree.

    def statement(self, node):
        """A node in the place of a statement."""
        code = self.code[node.start:node.end]
        if LOG.match(code):
            return
        if node.kind not in (*WHOLE, *JUMPS):
            self.delete(node)
        elif KEYWORD.match(code):
            if node.kind in JUMPS:
                self.delete(node)
        elif re.match(r"\w+\s*\(", code) and self.closing(node.start)[1] == node.end:
            # A macro, used like a function.
            self.delete(node)
        self.visit(node)

    def condition_and_body(self, node):
        """The nodes in the brackets, and the statements after them, of if,
        while, for and macros like these."""
        _, end = self.closing(node.start)
        inside = [c for c in node.children if c.end < end and c.start >= node.start and c.end > c.start]
        behind = [c for c in node.children if c.start >= end]
        return inside, behind

    def of_for(self, node, inside):
        """Negate the condition of a for. Any of the three parts may be
        missing."""
        first, end = self.closing(node.start)
        depth, parts = 0, [first]
        for at in range(first + 1, end - 1):
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(self.code[at], 0)
            if self.code[at] == ";" and not depth:
                parts.append(at)
        for child in inside:
            if len(parts) == 3 and parts[1] < child.start and child.end <= parts[2]:
                self.negate(child)

    def visit(self, node):
        code = self.code[node.start:node.end]
        if LOG.match(code):
            return
        handler = getattr(self, "visit_" + node.kind, None)
        if handler:
            handler(node, code)
        else:
            self.expression(node, code)
            self.all_of(node.children)

    def all_of(self, nodes):
        for node in nodes:
            self.visit(node)

    def statements(self, nodes):
        for node in nodes:
            self.statement(node)

    def visit_CompoundStmt(self, node, code):
        # A compound that a macro makes is no list of statements in this file.
        (self.statements if code.startswith("{") else self.all_of)(node.children)

    def looping(self, node, word):
        inside, behind = self.condition_and_body(node) if "(" in self.code[node.start:node.end] else (node.children, [])
        if self.starts_with(node, word):
            if word == "for":
                self.of_for(node, inside)
            elif word != "switch" and inside:
                self.negate(inside[-1])
        self.all_of(c for c in node.children if c not in behind)
        self.statements(behind)

    def visit_IfStmt(self, node, code):
        self.looping(node, "if")

    def visit_WhileStmt(self, node, code):
        self.looping(node, "while")

    def visit_ForStmt(self, node, code):
        self.looping(node, "for")

    def visit_SwitchStmt(self, node, code):
        self.looping(node, "switch")

    def visit_DoStmt(self, node, code):
        if not self.starts_with(node, "do"):
            self.all_of(node.children)
            return
        body, condition = node.children
        self.statement(body)
        self.negate(condition)
        self.visit(condition)

    def visit_LabelStmt(self, node, code):
        self.statements(node.children)

    def visit_CaseStmt(self, node, code):
        self.statements(node.children[-1:])

    def visit_DefaultStmt(self, node, code):
        self.statements(node.children[-1:])

    # Expressions.

    def between(self, node):
        """(operator, left, right) of a node with two operands, which are None
        otherwise. The operator is "" if the places are not in that order, as in
        macros."""
        if len(node.children) != 2:
            return "", *[None] * 2
        left, right = node.children
        if not node.start <= left.start < left.end <= right.start < right.end <= node.end:
            return "", left, right
        return self.code[left.end:right.start].strip(), left, right

    def expression(self, node, code):
        if node.kind in ("BinaryOperator", "CompoundAssignOperator"):
            operator, left, right = self.between(node)
            if operator in ("&&", "||"):
                self.negate(left)
                self.negate(right)
            elif operator in OTHER_COMPARISON:
                at = self.code.index(operator, left.end)
                new = OTHER_COMPARISON[operator]
                self.replace(at, at + len(operator), new, f"{operator} -> {new}")
        elif node.kind == "ConditionalOperator":
            first, second = node.children[:2]
            if self.code[first.end:second.start].strip() == "?":
                self.negate(first)
        elif node.kind == "UnexposedExpr" and node.children:
            self.without_a_middle(node)
        self.constant(node)

    def without_a_middle(self, node):
        """x ?: y"""
        first = node.children[0]
        middle = re.compile(r"\s*\?\s*:\s*").match(self.code, first.end)
        if first.start == node.start and middle and middle.end() < node.end:
            old, other = self.text[first.start:first.end], self.text[middle.end():node.end]
            self.replace(node.start, node.end, f"!({old}) ? ({old}) : ({other})", f"negate {in_one_line(old)}")

    def constant(self, node):
        """A number in this file, or one from a macro, in the place of whose
        number clang sees the name."""
        if node.kind != "IntegerLiteral":
            return
        if number := NUMBER.match(self.code, node.start):
            digits, suffix = number.groups()
            value = int(digits, 8 if re.fullmatch("0[0-7]+", digits) else 0)
            for new in (value + 1, value - 1):
                if new >= 0:
                    new = f"{new:#x}{suffix}" if digits[:2] in ("0x", "0X") else f"{new}{suffix}"
                    self.replace(*number.span(), new, f"{number[0]} -> {new}")
        elif (name := NAME.match(self.code, node.start)) and node.start not in self.labels and not LABEL.fullmatch(name[0]):
            self.replace(*name.span(), f"({name[0]} + 1)", f"{name[0]} -> {name[0]} + 1")

    def prepare(self):
        """Correct the ends of nodes, and find the operands of |, & and ~.

        If a node ends with a macro's name in another macro's argument, clang
        gives the start of the name as the end."""
        for node in self.tree.walk():
            if node.end and re.match(r"\w", self.code[node.end:node.end + 1]) and not re.match(r"\w", self.code[node.end - 1]):
                node.end += re.match(r"\w+", self.code[node.end:]).end()
                if re.match(r"\s*\(", self.code[node.end:]):
                    node.end = self.closing(node.end)[1]
        for node in self.tree.walk():
            if node.kind in ("BinaryOperator", "CompoundAssignOperator"):
                operator, *operands = self.between(node)
                if operator in ("|", "&", "^", "|=", "&=", "^="):
                    self.labels |= {c.start for c in operands if c.kind != "BinaryOperator"}
            elif node.kind == "UnaryOperator" and self.code.startswith("~", node.start):
                self.labels |= {c.start for c in node.children}

    def mutants(self):
        self.prepare()
        for node in self.tree.children:
            if node.kind == "CompoundStmt" and self.code[node.start:node.start + 1] == "{":
                self.visit(node)
        return [(*key, f"{self.file}:{self.tree.name}: {what}") for key, what in self.found.items()]


def mutants(file, text, functions):
    """All Mutants of a file, in the order of their places. functions: as
    syntax.functions() returns them."""
    # The same length, with blanks for what is no code.
    code = NO_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    found = sorted(m for tree in functions for m in _Function(file, text, code, tree).mutants())
    names, result = {}, []
    for start, end, new, name in found:
        names[name] = names.get(name, 0) + 1
        again = f" ({names[name]})" if names[name] > 1 else ""
        result.append(Mutant(file, name + again, start, end, new))
    return result


def draw(found, seed=SEED):
    """All mutants, in the order in which that seed draws them."""
    return sorted(found, key=lambda m: hashlib.sha256(f"{seed} {m.name}".encode()).digest())
