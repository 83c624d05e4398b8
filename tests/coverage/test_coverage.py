#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Unit tests of tests/coverage: how it reads sources and traces, and that its
judgement can fail."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import shell  # noqa: E402  (needs the path above)
import tracefile  # noqa: E402

TEXT = """\
static int one(void)
{ /* \v */
	if (fails())
		return -EIO;
	if (fails_too())
		return -EIO;
	return 0;
}

TRACE_EVENT(planted,
	TP_ARGS(x))
"""
INFO = """\
TN:
SF:/project/src/one.c
BRDA:3,0,0,5
BRDA:3,0,1,0
BRDA:5,0,0,-
BRDA:5,0,1,1
DA:3,5
DA:4,0
DA:5,5
DA:6,{second}
DA:7,5
end_of_record
SF:/usr/include/stdio.h
DA:1,0
end_of_record
"""
REASONS = """\
# A comment.
* The call
  never fails.
src/one.c one: return -EIO;
"""


def complaints(reasons, second=5, patterns=("src/*",)):
    entries, bad = tracefile.read_reasons(reasons)
    missed = tracefile.missed_lines(tracefile.read(INFO.format(second=second), "/project"), {"src/one.c": TEXT})
    return bad + tracefile.judge(missed, entries, patterns)


class Reasons(unittest.TestCase):
    def test_a_line_with_a_reason_may_be_missed(self):
        self.assertEqual(complaints(REASONS), [])

    def test_a_line_without_may_not(self):
        self.assertEqual(complaints(""), ["not reached, without a reason: src/one.c:4 one: return -EIO;"])

    def test_each_of_several_alike_needs_its_own(self):
        found = complaints(REASONS, second=0)
        self.assertEqual(found, ["not reached, without a reason: src/one.c:6 one: return -EIO;"])
        self.assertEqual(complaints(REASONS + "src/one.c one: return -EIO;\n", second=0), [])

    def test_a_reason_that_nothing_needs(self):
        for line in ("src/one.c one: return -EIO;", "src/one.c one: return 0;", "src/two.c one: return -EIO;"):
            with self.subTest(line):
                found = complaints(f"{REASONS}{line}\n")
                self.assertEqual(len(found), 1)
                self.assertRegex(found[0], r"^reasons:5: this line is reached, or gone: ")

    def test_reasons_of_other_parts_are_left_alone(self):
        self.assertEqual(complaints(REASONS + "cli/main.c main: exit(1);\n"), [])

    def test_chance_may_reach_a_line(self):
        self.assertEqual(complaints(REASONS + "~ Only now and then.\nsrc/one.c one: return 0;\n"), [])

    def test_what_is_no_entry(self):
        for text in ("src/one.c one: return -EIO;\n", REASONS + "src/one.c return -EIO;\n", REASONS + "*\n"):
            with self.subTest(text):
                self.assertTrue(tracefile.read_reasons(text)[1])


class Shares(unittest.TestCase):
    def test_too_few(self):
        for done, all_, good in ((95, 100, True), (94, 100, False), (949, 1000, False), (0, 0, False)):
            source = tracefile.Source(lines={n: n < done for n in range(all_)})
            with self.subTest(f"{done} of {all_} lines"):
                self.assertEqual(not tracefile.thresholds({"x": source}), good)
        source = tracefile.Source(lines={1: 1}, branches={(1, "0", n): n < 89 for n in range(100)})
        self.assertIn("branches: 89.0 % of 100", tracefile.thresholds({"x": source})[0])

    def test_what_a_tracefile_says(self):
        found = tracefile.read(INFO.format(second=5), "/project")
        self.assertEqual(list(found), ["src/one.c"])
        self.assertEqual([str(s) for s in tracefile.shares(found)], ["80.0 % of 5", "50.0 % of 4"])

    def test_a_label_is_no_line(self):
        found = {"x": tracefile.Source(lines={1: 5, 2: 0, 3: 0})}
        tracefile.drop_labels(found, {"x": "one();\n\tout:\n\tcase 1:\n"})
        self.assertEqual(found["x"].missed(), [3])

    def test_functions(self):
        self.assertEqual(tracefile.functions(TEXT)[3:], ["one"] * 6 + ["-"] + ["TRACE_EVENT"] * 3)
        self.assertEqual(tracefile.functions("put() { echo; }\nlast() {\n\tx\n}\ny\n")[1:], ["put", "last", "last", "last", "-", "-"])


SCRIPT = """\
#!/bin/sh
# A comment.
choose() {
	case $1 in
	a|b) return 0 ;;
	c) ;;
	*)
		echo other \\
			words ;;
	esac
	if [ "$1" = c ]; then
		echo c
	else
		echo d
	fi
	while read -r x; do
		echo "$x"
	done < /dev/null
}

choose c
"""


class Shell(unittest.TestCase):
    def trace(self, text, prelude=":"):
        """{what: how often} of a script's trace by bash, and the script's
        output."""
        with tempfile.TemporaryDirectory() as directory:
            script = pathlib.Path(directory, "script")
            script.write_text(text)
            done = subprocess.run(["bash", "-c", f'{prelude}; PS4="+\\$LINENO "; set -x; . "$0"', script], capture_output=True,
                                  text=True, check=True)
        return done.stderr, done.stdout

    def test_each_command_is_traced(self):
        """Exactly the commands that shell.py counts are those that bash traces.
        """
        self.assertEqual(shell.commands(SCRIPT), [4, 5, 8, 11, 12, 14, 16, 17, 21])
        self.assertEqual(shell.source(SCRIPT, [], self.trace(SCRIPT)[0]).missed(), [5, 8, 14, 17])

    def test_the_copy_does_the_same_and_says_more(self):
        copy, points = shell.instrument(SCRIPT)
        self.assertEqual(copy.count("\n"), SCRIPT.count("\n"))
        trace, printed = self.trace(copy, shell.PRELUDE)
        self.assertEqual(printed, self.trace(SCRIPT)[1])
        source = shell.source(SCRIPT, points, trace)
        self.assertEqual(source.missed(), [5, 8, 14, 17])
        # case: c. if: then. while: the end.
        self.assertEqual([key[0] for key, times in source.branches.items() if times], [6, 11, 16])
        self.assertEqual([key[0] for key, times in source.branches.items() if not times], [5, 7, 11, 16])

    def test_conditions_of_a_line(self):
        for line, wanted in (("a && b || c", ["a", "b"]), ("if ! a; then", ["a"]), ("if a; then b; else c; fi", ["a"]),
                             ("{ a || b; }; then", ["a", "b"]), ("while x=; read -r x || [ \"$x\" ]; do", ["read -r x", '[ "$x" ]']),
                             ("for x in y; do", []), ('echo "a && b" \'; then\' # && c', []), ("x=$(a && b) || c", ["x=$(a && b)"]),
                             ("[ -n x ] || y=yes ;;", ["[ -n x ]"])):
            with self.subTest(line):
                self.assertEqual([line[b:e] for b, e in shell.conditions(line)], wanted)


if __name__ == "__main__":
    unittest.main()
