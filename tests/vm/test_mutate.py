#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Unit tests of mutate.py, which makes the mistakes, and of the list of
survivors. Part of the job `harness`. Inside the toolbox, because of libclang.
"""

import pathlib
import sys
import tempfile
import unittest
from unittest import mock

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import mutants_generated  # noqa: E402  (needs the path above)
import mutate  # noqa: E402
import suite  # noqa: E402
import syntax  # noqa: E402

HEAD = """\
#define LIMIT	8
#define FLAG	(1 << 3)
#define EINVAL	22
#define SET(to, value)	do { if (1) (to) = (value); } while (0)
#define for_each(i, n)	for ((i) = 0; (i) < (n); (i)++)
#define max(a, b)	({ int _a = (a), _b = (b); _a > _b ? _a : _b; })
#define pci_err(dev, ...)	call(__VA_ARGS__)
enum word { WORD, OTHER };
struct s { int a, b; };
int call(int, ...);
extern int x, y;
"""


def made(body, head=HEAD):
    """{name without file and function: the body with the mutant}, of a function
    f with that body."""
    text = f"{head}int f(int n, struct s *s)\n{{\n{body}\n}}\n"
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(text)
        file.flush()
        found = mutate.mutants("a.c", text, syntax.functions(file.name))
    result = {}
    for m in found:
        prefix = "a.c:f: "
        assert m.name.startswith(prefix) and m.name not in result, m.name
        new = m.applied(text)
        assert new.count("\n") == text.count("\n"), m.name
        result[m.name[len(prefix):]] = new[len(head) + len("int f(int n, struct s *s)\n{\n"):-len("\n}\n")]
    return result


class Generator(unittest.TestCase):
    maxDiff = None

    def assert_made(self, body, expected):
        self.assertEqual(made(body), expected)

    def test_statements(self):
        self.assert_made("\tx = n;\n\tcall(n);\n\tx += y;\n\tx++;", {
            "delete x = n;": "\t{ }\n\tcall(n);\n\tx += y;\n\tx++;",
            "delete call(n);": "\tx = n;\n\t{ }\n\tx += y;\n\tx++;",
            "delete x += y;": "\tx = n;\n\tcall(n);\n\t{ }\n\tx++;",
            "delete x++;": "\tx = n;\n\tcall(n);\n\tx += y;\n\t{ }"})

    def test_a_statement_of_several_lines(self):
        self.assert_made("\tcall(n, /* ; */\n\t     x);", {"delete call(n, x);": "\t{ }\n"})

    def test_declarations_and_messages_stay(self):
        self.assert_made("\tint i = n;\n\tpci_err(s, n ? 3 : 4);", {})

    def test_code_in_comments_and_strings_is_none(self):
        self.assert_made("\t/* x = 1; */\n\t// if (n) return 5;\n\tcall(n, \"x < 7; && (\");", {
            "delete call(n, \"x < 7; && (\");": "\t/* x = 1; */\n\t// if (n) return 5;\n\t{ }"})

    def test_jumps_and_labels(self):
        self.assert_made("\tif (n)\n\t\tgoto out;\n\twhile (x) {\n\t\tcontinue;\n\t\tbreak;\n\t}\nout:\n\treturn n;", {
            "negate n in if (n)": "\tif (!(n))\n\t\tgoto out;\n\twhile (x) {\n\t\tcontinue;\n\t\tbreak;\n\t}\nout:\n\treturn n;",
            "delete goto out;": "\tif (n)\n\t\t{ }\n\twhile (x) {\n\t\tcontinue;\n\t\tbreak;\n\t}\nout:\n\treturn n;",
            "negate x in while (x) {": "\tif (n)\n\t\tgoto out;\n\twhile (!(x)) {\n\t\tcontinue;\n\t\tbreak;\n\t}\nout:\n\treturn n;",
            "delete continue;": "\tif (n)\n\t\tgoto out;\n\twhile (x) {\n\t\t{ }\n\t\tbreak;\n\t}\nout:\n\treturn n;",
            "delete break;": "\tif (n)\n\t\tgoto out;\n\twhile (x) {\n\t\tcontinue;\n\t\t{ }\n\t}\nout:\n\treturn n;",
            "delete return n;": "\tif (n)\n\t\tgoto out;\n\twhile (x) {\n\t\tcontinue;\n\t\tbreak;\n\t}\nout:\n\t{ }"})

    def test_else_if(self):
        self.assert_made("\tif (n)\n\t\tx = n;\n\telse if (y)\n\t\tx = y;\n\telse\n\t\ty = n;", {
            "negate n in if (n)": "\tif (!(n))\n\t\tx = n;\n\telse if (y)\n\t\tx = y;\n\telse\n\t\ty = n;",
            "delete x = n;": "\tif (n)\n\t\t{ }\n\telse if (y)\n\t\tx = y;\n\telse\n\t\ty = n;",
            "negate y in else if (y)": "\tif (n)\n\t\tx = n;\n\telse if (!(y))\n\t\tx = y;\n\telse\n\t\ty = n;",
            "delete x = y;": "\tif (n)\n\t\tx = n;\n\telse if (y)\n\t\t{ }\n\telse\n\t\ty = n;",
            "delete y = n;": "\tif (n)\n\t\tx = n;\n\telse if (y)\n\t\tx = y;\n\telse\n\t\t{ }"})

    def test_each_part_of_a_condition(self):
        self.assert_made("\twhile (n && (x ||\n\t\t    y))\n\t\t;", {
            "negate n in while (n && (x ||": "\twhile (!(n) && (x ||\n\t\t    y))\n\t\t;",
            "negate n && (x || y) in while (n && (x ||": "\twhile (!(n && (x ||\n\t\t    y)))\n\t\t;",
            "negate (x || y) in while (n && (x ||": "\twhile (n && !((x ||\n\t\t    y)))\n\t\t;",
            "negate x in while (n && (x ||": "\twhile (n && (!(x) ||\n\t\t    y))\n\t\t;",
            "negate y in y))": "\twhile (n && (x ||\n\t\t    !(y)))\n\t\t;"})

    def test_for_without_parts(self):
        self.assertEqual(set(made("\tfor (;;)\n\t\t;\n\tfor (; n;)\n\t\t;\n\tfor (n = x; ; n++)\n\t\t;\n\tfor (n = x; y; n++) {\n\t}")),
                         {"negate n in for (; n;)", "negate y in for (n = x; y; n++) {"})

    def test_do(self):
        self.assert_made("\tdo {\n\t\tn++;\n\t} while (n);", {
            "delete n++;": "\tdo {\n\t\t{ }\n\t} while (n);", "negate n in } while (n);": "\tdo {\n\t\tn++;\n\t} while (!(n));"})

    def test_switch(self):
        self.assert_made("\tswitch (n) {\n\tcase 1:\n\t\tx = n;\n\t\tbreak;\n\tdefault:\n\t\ty = n;\n\t}", {
            "delete x = n;": "\tswitch (n) {\n\tcase 1:\n\t\t{ }\n\t\tbreak;\n\tdefault:\n\t\ty = n;\n\t}",
            "delete break;": "\tswitch (n) {\n\tcase 1:\n\t\tx = n;\n\t\t{ }\n\tdefault:\n\t\ty = n;\n\t}",
            "delete y = n;": "\tswitch (n) {\n\tcase 1:\n\t\tx = n;\n\t\tbreak;\n\tdefault:\n\t\t{ }\n\t}"})

    def test_conditional_operators(self):
        self.assert_made("\tint i = n ? x : y, j = x ?: y;", {
            "negate n in int i = n ? x : y, j = x ?: y;": "\tint i = !(n) ? x : y, j = x ?: y;",
            "negate x in int i = n ? x : y, j = x ?: y;": "\tint i = n ? x : y, j = !(x) ? (x) : (y);"})

    def test_comparisons(self):
        self.assert_made("\tint i = (n) < x, j = n >= x;", {
            "< -> <= in int i = (n) < x, j = n >= x;": "\tint i = (n) <= x, j = n >= x;",
            ">= -> > in int i = (n) < x, j = n >= x;": "\tint i = (n) < x, j = n > x;"})

    def test_numbers(self):
        self.assert_made("\tint i[LIMIT], j = 0xffUL, k = 010;", {
            "LIMIT -> LIMIT + 1 in int i[LIMIT], j = 0xffUL, k = 010;": "\tint i[(LIMIT + 1)], j = 0xffUL, k = 010;",
            "0xffUL -> 0x100UL in int i[LIMIT], j = 0xffUL, k = 010;": "\tint i[LIMIT], j = 0x100UL, k = 010;",
            "0xffUL -> 0xfeUL in int i[LIMIT], j = 0xffUL, k = 010;": "\tint i[LIMIT], j = 0xfeUL, k = 010;",
            "010 -> 9 in int i[LIMIT], j = 0xffUL, k = 010;": "\tint i[LIMIT], j = 0xffUL, k = 9;",
            "010 -> 7 in int i[LIMIT], j = 0xffUL, k = 010;": "\tint i[LIMIT], j = 0xffUL, k = 7;"})

    def test_zero_has_one_neighbour(self):
        self.assert_made("\tint i = 0;", {"0 -> 1 in int i = 0;": "\tint i = 1;"})

    def test_labels_are_no_numbers(self):
        self.assert_made("\tint i = -EINVAL, j = n & FLAG, k = WORD, l = ~FLAG, m = max(n & FLAG, n);", {})

    def test_macros(self):
        # The whole statement, and what is written as an argument. Nothing in
        # the macro's own text.
        self.assert_made("\tSET(s->a, s->b || 4);", {
            "delete SET(s->a, s->b || 4);": "\t{ }",
            "negate s->b in SET(s->a, s->b || 4);": "\tSET(s->a, !(s->b) || 4);",
            "negate 4 in SET(s->a, s->b || 4);": "\tSET(s->a, s->b || !(4));",
            "4 -> 5 in SET(s->a, s->b || 4);": "\tSET(s->a, s->b || 5);",
            "4 -> 3 in SET(s->a, s->b || 4);": "\tSET(s->a, s->b || 3);"})

    def test_macros_in_macros(self):
        self.assert_made("\tSET(x, n || s->a == LIMIT);\n\tSET(y, n && max(x, LIMIT));", {
            "delete SET(x, n || s->a == LIMIT);": "\t{ }\n\tSET(y, n && max(x, LIMIT));",
            "delete SET(y, n && max(x, LIMIT));": "\tSET(x, n || s->a == LIMIT);\n\t{ }",
            "negate n in SET(x, n || s->a == LIMIT);": "\tSET(x, !(n) || s->a == LIMIT);\n\tSET(y, n && max(x, LIMIT));",
            "negate s->a == LIMIT in SET(x, n || s->a == LIMIT);": "\tSET(x, n || !(s->a == LIMIT));\n\tSET(y, n && max(x, LIMIT));",
            "LIMIT -> LIMIT + 1 in SET(x, n || s->a == LIMIT);": "\tSET(x, n || s->a == (LIMIT + 1));\n\tSET(y, n && max(x, LIMIT));",
            "negate n in SET(y, n && max(x, LIMIT));": "\tSET(x, n || s->a == LIMIT);\n\tSET(y, !(n) && max(x, LIMIT));",
            "negate max(x, LIMIT) in SET(y, n && max(x, LIMIT));": "\tSET(x, n || s->a == LIMIT);\n\tSET(y, n && !(max(x, LIMIT)));",
            "LIMIT -> LIMIT + 1 in SET(y, n && max(x, LIMIT));": "\tSET(x, n || s->a == LIMIT);\n\tSET(y, n && max(x, (LIMIT + 1)));"})

    def test_a_macro_as_a_loop(self):
        self.assert_made("\tfor_each(x, LIMIT)\n\t\tcall(n);\n\tfor_each(x, n) {\n\t\tcall(y);\n\t}", {
            "LIMIT -> LIMIT + 1 in for_each(x, LIMIT)": "\tfor_each(x, (LIMIT + 1))\n\t\tcall(n);\n\tfor_each(x, n) {\n\t\tcall(y);\n\t}",
            "delete call(n);": "\tfor_each(x, LIMIT)\n\t\t{ }\n\tfor_each(x, n) {\n\t\tcall(y);\n\t}",
            "delete call(y);": "\tfor_each(x, LIMIT)\n\t\tcall(n);\n\tfor_each(x, n) {\n\t\t{ }\n\t}"})

    def test_macros_in_conditions(self):
        self.assert_made("\tif (max(n, 2) > x)\n\t\t;", {
            "negate max(n, 2) > x in if (max(n, 2) > x)": "\tif (!(max(n, 2) > x))\n\t\t;",
            "2 -> 3 in if (max(n, 2) > x)": "\tif (max(n, 3) > x)\n\t\t;",
            "2 -> 1 in if (max(n, 2) > x)": "\tif (max(n, 1) > x)\n\t\t;",
            "> -> >= in if (max(n, 2) > x)": "\tif (max(n, 2) >= x)\n\t\t;"})

    def test_a_function_that_a_macro_makes_is_left_alone(self):
        self.assert_made("", {})
        self.assertEqual(made("", HEAD + "#define MAKE(name) int name(int n) { return n + 3; }\nMAKE(g)\n"), {})

    def test_equal_lines_have_names_of_their_own(self):
        self.assertEqual(list(made("\tif (n)\n\t\tx = n;\n\telse\n\t\tx = n;")),
                         ["negate n in if (n)", "delete x = n;", "delete x = n; (2)"])

    def test_what_clang_does_not_understand(self):
        with self.assertRaises(syntax.SyntaxProblem):
            made("\tx = no_such_name;")

    def test_what_a_parser_is_told(self):
        command = "gcc -Wp,-MMD,a.d -nostdinc -Iinclude -I /usr/x -include b.h -DA=1 -mabi=lp64 -O2 -std=gnu11 -c -o a.o a.c".split()
        self.assertEqual(syntax.arguments_of(command, pathlib.Path("/d")),
                         ["-nostdinc", "-I/d/include", "-I", "/usr/x", "-include", "/d/b.h", "-DA=1", "-std=gnu11"])


class Draw(unittest.TestCase):
    all = [mutate.Mutant("a.c", f"a.c:f: {i}", 0, 1, "") for i in range(100)]

    def test_a_seed_gives_the_same_draw(self):
        self.assertEqual(mutate.draw(self.all), mutate.draw(list(reversed(self.all))))
        self.assertNotEqual(mutate.draw(self.all), mutate.draw(self.all, mutate.SEED + 1))
        self.assertEqual(set(mutate.draw(self.all)), set(self.all))

    def test_what_is_new_leaves_the_rest_in_order(self):
        more = [*self.all, mutate.Mutant("a.c", "a.c:f: more", 0, 1, "")]
        self.assertEqual([m for m in mutate.draw(more) if m in self.all], mutate.draw(self.all))

    def test_a_diff(self):
        text = "int f(void)\n{\n\tcall(1,\n\t     2);\n\treturn 0;\n}\n"
        start = text.index("call")
        mutant = mutate.Mutant("a.c", "a.c:f: delete", start, text.index(";") + 1, "{ }\n")
        self.assertEqual(mutant.diff(text), "--- a.c:3\n int f(void)\n {\n-\tcall(1,\n-\t     2);\n+\t{ }\n \treturn 0;\n }")


class Compiler(unittest.TestCase):
    text = "int f(int n)\n{\n\tint i = n;\n\n\treturn i + 1 - 1;\n}\n"

    def objection(self, old, new):
        """Compiler.objection() to one change of the text."""
        start = self.text.index(old)
        mutant = mutate.Mutant("src/a.c", "src/a.c:f: it", start, start + len(old), new)
        with tempfile.TemporaryDirectory() as directory:
            build = pathlib.Path(directory, "build", "1.0")
            (build / "src").mkdir(parents=True)
            (build / "src/a.c").write_text(self.text)
            (build / "src/.a.o.cmd").write_text("savedcmd_src/a.o := gcc -Wp,-MMD,src/.a.o.d -O2 -Wall -g -c -o src/a.o src/a.c ; true\n")
            place = mock.Mock(directory=pathlib.Path(directory))
            found = mutants_generated.Compiler(place, mock.Mock(release="1.0")).objection(mutant, self.text)
            self.assertEqual((build / "src/a.c").read_text(), self.text)
            self.assertEqual([p.name for p in (build / "src").glob("*.o")], [])
        return found

    def test_a_mutant_for_a_machine(self):
        self.assertEqual(self.objection("1;", "2;"), "")

    def test_the_same_code(self):
        self.assertEqual(self.objection("i + 1 - 1", "i"), "the compiler makes the same of it")

    def test_an_error(self):
        self.assertRegex(self.objection("int i", "i"), "^the compiler finds it: .*undeclared")

    def test_a_warning(self):
        self.assertRegex(self.objection("return i", "return n"), "^the compiler finds it: .*unused")


class Survivors(unittest.TestCase):
    def test_the_list(self):
        read = mutants_generated.read_survivors("# head\n\na.c:f: delete x;\n\tunseen: nobody\n\tlooks\n\na.c:g: 1 -> 2\n\tequivalent: so it is\n")
        self.assertEqual(read, {"a.c:f: delete x;": mutants_generated.Survivor("unseen", "nobody looks"),
                                "a.c:g: 1 -> 2": mutants_generated.Survivor("equivalent", "so it is")})

    def test_mistakes_in_it(self):
        for text in ("a\n", "a\n\tbecause\n", "\tunseen: x\n", "a\n\tunseen: x\na\n\tunseen: x\n", "a\n\tunseen:\n"):
            with self.subTest(text), self.assertRaises(mutants_generated.ListProblem):
                mutants_generated.read_survivors(text)

    def test_ours(self):
        self.assertIsInstance(mutants_generated.read_survivors(mutants_generated.SURVIVORS.read_text("utf-8")), dict)

    def test_the_verdict(self):
        def failed(results, controls=(True,), stale=()):
            return mutants_generated.judged(results, list(controls), list(stale))[1:]
        self.assertEqual(failed(9 * [True] + [None]), (12, 0))
        self.assertEqual(failed(8 * [True] + 2 * [None]), (10, 1))
        self.assertEqual(failed(9 * [True] + [False]), (12, 1))
        self.assertEqual(failed(10 * [True], [True, False]), (13, 1))
        self.assertEqual(failed(10 * [True], [True], ["gone"]), (12, 1))
        self.assertEqual(failed([]), (2, 1))

    def test_an_interrupted_run_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "cache", "results")
            earlier = mutants_generated.Earlier(path)
            self.assertEqual(earlier.known, {})
            earlier.add("a.c:f: delete x;", "not ok 1 - it")
            earlier.add("a.c:g: 1 -> 2", "")
            with open(path, "a", encoding="utf-8") as f:
                f.write('["a.c:h: 1 ->')
            again = mutants_generated.Earlier(path)
            self.assertEqual(again.known, {"a.c:f: delete x;": "not ok 1 - it", "a.c:g: 1 -> 2": ""})
            again.add("a.c:h: 1 -> 2", "")
            self.assertEqual(len(mutants_generated.Earlier(path).known), 3)
            again.forget()
            self.assertEqual(mutants_generated.Earlier(path).known, {})

    def test_results_are_of_one_driver(self):
        kernel = mock.Mock(release="1.0")
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(mutants_generated.vm, "PROJECT", pathlib.Path(folder)):
            source = pathlib.Path(folder, "src", "a.c")
            source.parent.mkdir()
            (source.parent.parent / "Kbuild").write_text("")
            source.write_text("x")
            first = mutants_generated.Earlier.of([kernel]).path
            self.assertNotEqual(mutants_generated.Earlier.of([mock.Mock(release="1.1")]).path, first)
            (source.parent / "README.md").write_text("")
            self.assertEqual(mutants_generated.Earlier.of([kernel]).path, first)
            source.write_text("y")
            self.assertNotEqual(mutants_generated.Earlier.of([kernel]).path, first)

    def test_machines(self):
        with mock.patch.dict(mutants_generated.PROGRAMS, {"a.c": ("b", "oldstable/c", "d:5", "oldstable/e:1:2")}):
            self.assertEqual(mutants_generated.machines("a.c"),
                             [("newest", ["b", "d:5"]), ("oldstable", ["c", "e:1:2"])])

    def test_programs_exist(self):
        for programs in mutants_generated.PROGRAMS.values():
            for kernel, names in mutants_generated.grouped(programs):
                self.assertIn(kernel, ("oldstable", "stable", "newest"))
                for name in names:
                    self.assertIn(name.split(":")[0], (*suite.PROGRAMS, *suite.NEEDS))

    def test_all_files_have_programs(self):
        sources = {f"src/{p.name}" for p in (HERE.parent.parent / "src").glob("*.c")}
        self.assertEqual(sources, {*mutants_generated.PROGRAMS, *mutants_generated.WITHOUT})


if __name__ == "__main__":
    unittest.main()
