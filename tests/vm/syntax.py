# SPDX-License-Identifier: GPL-2.0-only
"""Parses a C file: the functions that it defines, as trees of nodes with their
places in the file.

It uses libclang's C interface, which is in clang's package. Code from a macro
has the place of the macro's use, code in a macro's argument its own place.
Offsets are in bytes. Text here is latin-1, so that they are the same in
characters.
"""

import ctypes
import dataclasses
import glob
import pathlib
import re

# The arguments of gcc that a parser needs: paths of headers, definitions, and
# the dialect.
KEPT = re.compile(r"-(?:D.+|U.+|nostdinc|std=.+|fms-extensions|f(?:un)?signed-char|fshort-wchar)$")
# CXDiagnosticSeverity
ERROR = 3
# CXTranslationUnit_None; CXChildVisit_Continue
NO_OPTIONS, CONTINUE = 0, 1


class SyntaxProblem(Exception):
    """clang does not understand the file."""


@dataclasses.dataclass
class Node:
    """One node. kind is clang's name; name is that of a function."""

    kind: str
    start: int
    end: int
    children: "list[Node]"
    name: str = ""

    def walk(self):
        yield self
        for child in self.children:
            yield from child.walk()


class _Cursor(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("xdata", ctypes.c_int), ("data", ctypes.c_void_p * 3)]


class _Location(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p * 2), ("place", ctypes.c_uint)]


class _Range(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p * 2), ("begin", ctypes.c_uint), ("end", ctypes.c_uint)]


class _String(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("flags", ctypes.c_uint)]


_VISITOR = ctypes.CFUNCTYPE(ctypes.c_int, _Cursor, _Cursor, ctypes.c_void_p)
_PROTOTYPES = {
    "createIndex": (ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
    "disposeIndex": (None, ctypes.c_void_p),
    "parseTranslationUnit2": (ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int,
                              ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p)),
    "disposeTranslationUnit": (None, ctypes.c_void_p),
    "getNumDiagnostics": (ctypes.c_uint, ctypes.c_void_p),
    "getDiagnostic": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint),
    "getDiagnosticSeverity": (ctypes.c_int, ctypes.c_void_p),
    "formatDiagnostic": (_String, ctypes.c_void_p, ctypes.c_uint),
    "disposeDiagnostic": (None, ctypes.c_void_p),
    "getTranslationUnitCursor": (_Cursor, ctypes.c_void_p),
    "visitChildren": (ctypes.c_uint, _Cursor, _VISITOR, ctypes.c_void_p),
    "getCursorKindSpelling": (_String, ctypes.c_int),
    "getCursorSpelling": (_String, _Cursor),
    "getCursorExtent": (_Range, _Cursor),
    "getCursorLocation": (_Location, _Cursor),
    "getRangeStart": (_Location, _Range),
    "getRangeEnd": (_Location, _Range),
    "Location_isFromMainFile": (ctypes.c_int, _Location),
    "getFileLocation": (None, _Location, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint)),
    "getCString": (ctypes.c_char_p, _String),
    "disposeString": (None, _String),
}


class _Clang:
    """libclang's functions, by their names without "clang_"."""

    def __init__(self):
        found = sorted(glob.glob("/usr/lib/*-linux-gnu/libclang-[0-9]*.so.1"))
        if not found:
            raise SyntaxProblem("there is no libclang")
        library = ctypes.CDLL(found[-1])
        for name, (result, *arguments) in _PROTOTYPES.items():
            function = getattr(library, "clang_" + name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def text(self, string):
        value = (self.getCString(string) or b"").decode("utf-8", "replace")
        self.disposeString(string)
        return value

    def offset(self, location):
        value = ctypes.c_uint()
        self.getFileLocation(location, None, None, None, ctypes.byref(value))
        return value.value

    def children(self, cursor):
        found = []

        def visit(child, parent, data):
            found.append(child)
            return CONTINUE

        self.visitChildren(cursor, _VISITOR(visit), None)
        return found

    def kind(self, cursor):
        return self.text(self.getCursorKindSpelling(cursor.kind))

    def node(self, cursor):
        extent = self.getCursorExtent(cursor)
        kind = self.kind(cursor)
        name = self.text(self.getCursorSpelling(cursor)) if kind == "FunctionDecl" else ""
        return Node(kind, self.offset(self.getRangeStart(extent)), self.offset(self.getRangeEnd(extent)),
                    [self.node(c) for c in self.children(cursor)], name)


def arguments_of(command, directory):
    """The arguments of a compiler that a parser needs, with absolute paths.
    directory: where the compiler runs."""
    kept, words = [], iter(command)
    for word in words:
        if word in ("-include", "-isystem", "-I"):
            kept += [word, str(directory / next(words))]
        elif word.startswith("-I"):
            kept.append(f"-I{directory / word[2:]}")
        elif KEPT.match(word):
            kept.append(word)
    return kept


def functions(path, arguments=()):
    """The functions that a file defines, each a FunctionDecl with its
    tree."""
    clang = _Clang()
    index = clang.createIndex(0, 0)
    unit = ctypes.c_void_p()
    words = (ctypes.c_char_p * len(arguments))(*(a.encode() for a in arguments))
    try:
        if clang.parseTranslationUnit2(index, str(pathlib.Path(path)).encode(), words, len(arguments), None, 0, NO_OPTIONS,
                                       ctypes.byref(unit)):
            raise SyntaxProblem(f"{path}: clang can't read it")
        try:
            for i in range(clang.getNumDiagnostics(unit)):
                diagnostic = clang.getDiagnostic(unit, i)
                severity, text = clang.getDiagnosticSeverity(diagnostic), clang.text(clang.formatDiagnostic(diagnostic, 1))
                clang.disposeDiagnostic(diagnostic)
                if severity >= ERROR:
                    raise SyntaxProblem(f"{path}: {text}")
            return [clang.node(cursor) for cursor in clang.children(clang.getTranslationUnitCursor(unit))
                    if clang.kind(cursor) == "FunctionDecl" and clang.Location_isFromMainFile(clang.getCursorLocation(cursor))]
        finally:
            clang.disposeTranslationUnit(unit)
    finally:
        clang.disposeIndex(index)
