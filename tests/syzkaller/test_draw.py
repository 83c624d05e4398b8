#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Tests of draw.py: the same seed gives the same programs, they contain every
call, and they use nothing before it exists.

    test_draw.py [unittest's arguments]

Runs inside the toolbox.
"""

import collections
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "vm")]
import check  # noqa: E402  (needs the path above)
import draw  # noqa: E402
import replay  # noqa: E402

COUNT = 800
WORLDS = (draw.WORLDS[:2], draw.WORLDS)


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.calls, cls.resolver = replay.described()
        cls.programs = {w: cls.drawn(1, w) for w in WORLDS}

    @classmethod
    def drawn(cls, seed, worlds):
        return draw.draw(cls.calls, cls.resolver, seed, COUNT, worlds)

    def test_a_seed_gives_the_same_bytes(self):
        for worlds, programs in self.programs.items():
            table = draw.serialise(programs, self.calls)
            self.assertEqual(draw.serialise(self.drawn(1, worlds), self.calls), table)
            self.assertNotEqual(draw.serialise(self.drawn(2, worlds), self.calls), table)

    def test_numbers_are_the_same_everywhere(self):
        # Published by splitmix64's authors for this seed.
        random = draw.Random(1234567)
        self.assertEqual([random.next() for _ in range(3)], [6457827717110365317, 3203168211198807973, 9817491932198370423])

    def test_every_call_is_in_them(self):
        for programs in self.programs.values():
            counted = collections.Counter(d.call.name for p in programs for d in p.calls)
            self.assertEqual(set(counted), set(self.calls))
            self.assertEqual(len(programs), COUNT)

    def test_nothing_is_used_before_it_is_made(self):
        for program in (p for programs in self.programs.values() for p in programs):
            for i, drawn in enumerate(program.calls):
                self.assertEqual(drawn.index, i)
                values = [(k, v) for k, v, _ in drawn.arguments] + [(k, v) for _, k, _, v in drawn.moves]
                for kind, value in values:
                    if kind == draw.RESULT:
                        self.assertLess(value, i, program)
                    elif kind == draw.GIVEN_VALUE:
                        self.assertIn(value, draw.GIVEN[program.world].values(), program)
                    elif kind == draw.AREA:
                        self.assertLess(value, draw.AREA_UNITS * draw.UNIT)
                for offset, data in drawn.data:
                    self.assertLessEqual(offset + len(data), draw.ARENA)

    def test_commands_and_paths_are_never_changed(self):
        """Otherwise root's programs might affect more than the GPU."""
        for program in (p for programs in self.programs.values() for p in programs):
            for drawn in program.calls:
                arguments = drawn.call.arguments
                if drawn.call.syscall == "ioctl":
                    self.assertEqual(drawn.arguments[1][1], arguments[1].node.low)
                for argument, (kind, value, _) in zip(arguments, drawn.arguments):
                    if isinstance(argument.node, check.Pointer) and isinstance(argument.node.target, check.Text) and kind == draw.POINTER:
                        text = argument.node.target
                        if text.name:
                            self.assertEqual([k for _, k, _, _ in drawn.moves], [draw.ADDRESS])
                        else:
                            self.assertIn((value, text.values[0].encode()), drawn.data)

    def test_values_are_in_range_and_out_of_it(self):
        """For one argument, the position in usemem."""
        node = self.calls["pread64$nvgrace_usemem"].arguments[3].node
        seen = [d.arguments[3][1] for programs in self.programs.values() for p in programs for d in p.calls
                if d.call.name == "pread64$nvgrace_usemem"]
        self.assertIn(node.low, seen)
        self.assertIn(node.high, seen)
        self.assertTrue(any(node.low < v < node.high for v in seen))
        self.assertTrue(any(not node.low <= v <= node.high for v in seen))

    def test_a_program_that_failed_is_found_and_printed(self):
        lines = ["CPU: 0 PID: 7 Comm: syz-17 Tainted: G", "@@replay program 23: WARNING: CPU", "CPU: 1 PID: 8 Comm: syz-17", "Comm: sh"]
        self.assertEqual(replay.failed_programs(lines), [17, 23])
        program = self.programs[WORLDS[0]][400]
        text = str(program).splitlines()
        self.assertEqual(text[0], f"# program 400, world {program.world}")
        self.assertEqual(len(text), 1 + len(program.calls))
        for line, drawn in zip(text[1:], program.calls):
            self.assertRegex(line, rf"^r\d+ = {drawn.call.name.replace('$', '[$]')}\(.*\)$")


if __name__ == "__main__":
    unittest.main()
