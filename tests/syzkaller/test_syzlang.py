#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Tests the description against the grammar and the kernel's headers, and that
each kind of mistake in it is refused.

    test_syzlang.py [unittest's arguments]

Runs inside the toolbox, with the newest kernel's headers for x86-64.
"""

import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "vm")]
import check  # noqa: E402  (needs the path above)
import syzlang  # noqa: E402
import uapi  # noqa: E402
import vm  # noqa: E402

FILE = HERE / "nvgrace_gpu_vfio.txt"
VALUES = {"ZERO": 0, "ONE": 1, "BIG": 1 << 33}

# A small correct text, in which the tests make mistakes.
GOOD = """\
# A comment.
include <uapi/linux/vfio.h>
define TWO	(ONE + ONE)
resource fd_a[fd]
resource fd_b[fd_a]: -1, 7
resource id_a[int32]

list = ZERO, ONE, 0x10
names = "one", "two"
type page int64[0:0x10000, 0x1000]

open_a {
	argsz	len[parent, int32]
	flags	flags[list, int32]
	id	id_a	(out)
	rest	array[int8, 0:4]
}

type pair[FLAGS, T] {
	first	const[FLAGS, int16]
	second	T
} [packed]

either [
	a	int64
	b	pair[ONE, int8[1:5]]
] [varlen]

openat$a(file ptr[in, string["/dev/a#b"]], flags const[ONE]) fd_a
dup$b(fd fd_a) fd_b
ioctl$a(fd fd_b, arg ptr[inout, open_a], n len[arg])	# with a comment
ioctl$b(fd fd, arg ptr[in, either], id id_a, p page, v vma) (disabled)
ioctl$c(fd fd_a, name ptr[in, string[names]], size bytesize[name])
"""

# (old text, new text, part of the message)
SYNTAX = (
    ("list = ZERO", "list = ", "expected"),
    ("list = ZERO", "list ZERO", "no statement begins"),
    ("list = ZERO, ", "list = ZERO ", "end of the line"),
    ("const[ONE]", "const[ONE", "expected ,"),
    ("const[ONE])", "const[ONE)]", "expected ,"),
    ("dup$b(", "dup$(", "not a name of a call"),
    ("dup$b(", "Dup$b(", "not a name of a call"),
    ("dup$b(fd fd_a)", "dup$b(fd)", "expected a name"),
    ("dup$b(fd fd_a)", "dup$b(fd fd_a, fd fd_a)", "two arguments"),
    ("dup$b(fd fd_a) fd_b", "dup$b(fd fd_a) fd_b fd_b", "end of the line"),
    ("(disabled)", "(broken)", "no attribute broken"),
    ("(out)", "(outer)", "no attribute outer"),
    ("[packed]", "[pack]", "no attribute pack"),
    ("[varlen]", "[packed]", "no attribute packed"),
    ("] [varlen]", "", "expected a name"),
    ("} [packed]", "", "expected a name"),
    ("open_a {", "open_a {}", "end of the line"),
    ("	id	id_a	(out)", "	argsz	id_a	(out)", "the name argsz here"),
    ("	id	id_a	(out)", "	parent	id_a	(out)", "the name parent here"),
    ("string[\"/dev/a#b\"]", "string[\"/dev/a#b]", "no token begins"),
    ("0x10\n", "0x\n", "no token begins"),
    ("# A comment.", "; A comment.", "no token begins"),
    ("resource id_a[int32]", "resource id_a", "end of the line"),
    ("resource id_a[int32]", "resource [int32]", "expected a name"),
    ("type pair[FLAGS, T]", "type pair[FLAGS, FLAGS]", "different names"),
    ("type pair[FLAGS, T]", "type pair[]", "needs parameters"),
    ("define TWO", "define TWO 1\ndefine TWO", "defined twice"),
    ("names = ", "list = 1\nnames = ", "is already defined"),
    ("either [", "open_a [", "is already defined"),
    ("dup$b(", "openat$a(fd fd_a)\ndup$b(", "is already defined"),
    ("	a	int64\n	b	pair[ONE, int8[1:5]]\n", "", "has no fields"),
)

MEANING = (
    ("resource fd_a[fd]", "resource fd_a[fs]", "the base of a resource"),
    ("resource fd_a[fd]", "resource fd_a[string]", "the base of a resource"),
    ("resource fd_a[fd]", "resource fd_a[fd_b]", "the base of a resource"),
    ("resource fd_a[fd]", "resource fd[int32]\nresource fd_a[fd]", "a name of the language or"),
    ("type page int64", "type vma int64\ntype page int64", "a name of the language or"),
    ("flags[list, int32]", "flags[lists, int32]", "no flags lists"),
    ("flags[list, int32]", "flags[list]", "needs the size"),
    ("flags[list, int32]", "flags[list, fd]", "not the size of a value"),
    ("flags[list, int32]", "flags[names, int32]", "another kind"),
    ("flags[list, int32]", "flags", "needs options"),
    ("flags[list, int32]", "flags[list, int32, int8]", "too many options"),
    ("list = ZERO", "list = BIG", "more than 4 bytes"),
    ("string[names]", "string[list]", "another kind"),
    ("string[names]", "string[names, 4]", "one value"),
    ("pair[ONE, ", "pair[BIG, ", "more than 2 bytes"),
    ("pair[ONE, ", "pair[NONE, ", "no constant NONE"),
    ("const[FLAGS, int16]", "const[ONE, int16]", "does not use FLAGS"),
    ("const[FLAGS, int16]", "const[FLAGS[1], int16]", "takes no options"),
    ("const[ONE])", "const[ONE, int32])", "too many options"),
    ("const[ONE])", "const[NONE])", "no constant NONE"),
    ("len[parent, int32]", "len[parents, int32]", "not in the same list"),
    ("len[parent, int32]", "len[flags, int32]", "has no length"),
    ("len[parent, int32]", "len[4, int32]", "a field's name"),
    ("len[parent, int32]", "length[parent, int32]", "no type length"),
    ("n len[arg]", "n len[args]", "not in the same list"),
    ("n len[arg]", "n len[parent]", "not in the same list"),
    ("n len[arg]", "n len[fd]", "has no length"),
    ("array[int8, 0:4]", "array[int8]", "a type and a size"),
    ("array[int8, 0:4]", "array[int8, 0]", "always empty"),
    ("array[int8, 0:4]", "array[int8, 4:1]", "the range from 4 to 1"),
    ("array[int8, 0:4]", "array[open_a, 0:4]", "contains itself"),
    ("array[int8, 0:4]", "array[int9, 0:4]", "no type int9"),
    ("int8[1:5]", "int8[1:500]", "does not fit"),
    ("int8[1:5]", "int8[5:1]", "the range from 5"),
    ("int8[1:5]", "int8[1, 5]", "multiples"),
    ("pair[ONE, int8[1:5]]", "pair[ONE]", "2 parameters"),
    ("pair[ONE, int8[1:5]]", "id_a[ONE]", "takes no options"),
    ("ptr[inout, open_a]", "ptr[open_a]", "a direction and a type"),
    ("ptr[inout, open_a]", "ptr[sideways, open_a]", "a direction and a type"),
    ("ptr[inout, open_a]", "open_a", "needs a pointer"),
    ("ptr[inout, open_a]", "array[int8, 4]", "needs a pointer"),
    ("ptr[in, string[names]]", "string[names]", "needs a pointer"),
    ("v vma)", "v vma[0])", "can't be here"),
    ("v vma)", "v void)", "can't be here"),
    ("dup$b(", "reboot$b(", "not a call that replay.c supports"),
    ("p page, v vma)", "p page, v vma, w vma, x vma)", "more than six"),
    ("dup$b(fd fd_a) fd_b", "dup$b(fd fd_a) page", "is not a resource"),
    ("dup$b(fd fd_a) fd_b", "dup$b(fd fd_a)", "no call makes a fd_b"),
    ("	(out)", "", "no call makes a id_a"),
    ("id id_a, ", "", "no call takes a id_a"),
    ("p page, ", "", "nothing uses page"),
    ("string[names]", "string[\"a\"]", "nothing uses names"),
    ("ptr[in, either]", "ptr[in, int8]", "nothing uses"),
)

# Mistakes in the description itself, which the comparison must find.
HEADERS = (
    ("	flags		const[0, int32]\n	out_ioas_id", "	out_ioas_id", "nvgrace_iommu_ioas_alloc: size: 8 in the description, 12"),
    ("	length	int64[0x10000:0x200000, 0x10000]\n", "	length	int32[0x10000:0x200000, 0x10000]\n",
     "nvgrace_vfio_region_dma_range: size of length: 4 in the description, 8"),
    ("	segment		const[0, int16]\n	bus		const[0, int8]\n", "	bus		const[0, int8]\n	segment		const[0, int16]\n",
     "nvgrace_vfio_pci_dependent_device: size: "),
    ("	wakeup_eventfd	fd", "	wakeup_event	fd", "vfio_device_low_power_entry_with_wakeup has no field wakeup_event"),
    ("VFIO_DEVICE_GET_IRQ_INFO", "VFIO_DEVICE_GET_IRQS_INFO", "no constant VFIO_DEVICE_GET_IRQS_INFO"),
    ("include <uapi/linux/iommufd.h>", "", "no constant IOMMU_"),
    ("nvgrace_vfio_group_status", "nvgrace_vfio_group_state", "no struct vfio_group_state"),
    ("nr_ranges	len[dma_ranges, int32]", "nr_ranges	len[dma_ranges, int64]", "vfio_device_feature_dma_buf: "),
)


def accepted(text, values=None):
    description = syzlang.parse(text, "text")
    return check.resolved(description, VALUES if values is None else values)


class Language(unittest.TestCase):
    def refused(self, old, new, said):
        self.assertIn(old, GOOD)
        with self.assertRaises(syzlang.Mistake) as caught:
            accepted(GOOD.replace(old, new, 1))
        self.assertIn(said, str(caught.exception))
        return str(caught.exception)

    def test_a_good_text_is_accepted(self):
        calls, resolver = accepted(GOOD)
        self.assertEqual(list(calls), ["openat$a", "dup$b", "ioctl$a", "ioctl$b", "ioctl$c"])
        self.assertEqual(calls["dup$b"].result, "fd_b")
        self.assertEqual(resolver.records["open_a"].fixed, 12)
        self.assertEqual(resolver.records["pair[ONE, int8[1:5]]"].size, 3)
        self.assertIsNone(resolver.records["either"].size)
        self.assertEqual(calls["ioctl$b"].arguments[3].node, check.Int(8, 0, 0x10000, 0x1000, True))
        self.assertEqual(calls["ioctl$a"].arguments[0].node.values, (-1, 7))
        self.assertEqual(calls["openat$a"].arguments[0].node.target.values, ("/dev/a#b",))

    def test_constants_are_found(self):
        self.assertEqual(check.constants(syzlang.parse(GOOD)), {"ZERO", "ONE"})

    def test_mistakes_of_the_grammar_are_refused_with_their_line(self):
        for old, new, said in SYNTAX:
            with self.subTest(f"{old!r} -> {new!r}"):
                self.assertRegex(self.refused(old, new, said), r"^text:\d+: ")

    def test_what_makes_no_sense_is_refused_with_its_line(self):
        for old, new, said in MEANING:
            with self.subTest(f"{old!r} -> {new!r}"):
                self.assertRegex(self.refused(old, new, said), r"^(text|elsewhere):\d+: ")


class TheDescription(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.headers = vm.Kernel("newest-amd64").headers
        cls.text = FILE.read_text("utf-8")

    def compared(self, text):
        description = syzlang.parse(text, FILE.name)
        calls, resolver = check.resolved(description, uapi.values(description, self.headers))
        return calls, uapi.compare(description, self.headers, resolver.records)

    def test_it_is_as_the_headers_are(self):
        calls, facts = self.compared(self.text)
        self.assertGreater(facts, 200)
        # The calls in which the driver takes part.
        for name in ("GET_REGION_INFO", "SET_IRQS_eventfd", "PCI_HOT_RESET", "IOEVENTFD", "FEATURE_low_power", "FEATURE_dma_buf",
                     "BIND_IOMMUFD", "ATTACH_IOMMUFD_PT", "DETACH_IOMMUFD_PT", "MAP_DMA", "GROUP_GET_DEVICE_FD", "RESET"):
            self.assertIn(f"ioctl$nvgrace_{name}", calls)

    def test_mistakes_against_the_headers_are_refused(self):
        for old, new, said in HEADERS:
            with self.subTest(f"{old!r} -> {new!r}"):
                self.assertIn(old, self.text)
                with self.assertRaises(syzlang.Mistake) as caught:
                    self.compared(self.text.replace(old, new))
                self.assertIn(said, str(caught.exception))


if __name__ == "__main__":
    unittest.main()
