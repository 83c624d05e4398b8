# SPDX-License-Identifier: GPL-2.0-only
"""What a test program's cases need of a kernel and its machine.

A program has groups of cases ("struct case_group" in guest/lib.h), each with words:

  lab           the lab itself: other GPUs than gh200, binding and unbinding, the
                model's registers, the runner's handlers, or a known size. Groups
                with no such word, nor lab:X, are part of the tests for hardware
                (tests/hardware)
  carve-out     a GPU with usemem and resmem, as all are that the lab's programs use
  type1         a container of type1; always there in the lab
  tracing       a user who may trace; always so in the lab
  this-driver   this driver, rather than Linux's own; always so in the lab
  slow          time: on the newest kernel, such cases are in check-all, and not in
                check; on others, in check-long, and not in check-all; always there
  CONFIG_X      an option that is y or m
  module:X      a module of the kernel's package, which the machine gets
  symbol:X      a symbol that modules may use
  lab:X         a module of lab/modules, which the machine gets; always there
  !WORD         that WORD doesn't hold
  ?WORD+WORD    nothing, but if all of these hold, they count like words of the
                group: the machine gets their modules, and machine_has() finds
                them

These words say what a case is like, and always hold:

  pages         it sees the size of pages, and so runs on a kernel with 64K pages in
                check-all
  waits         it waits for most of its time
  scrubs        it waits, or scrubs, for most of its time

This word holds only in a campaign:

  late          it takes minutes in which the machine has nothing to do"""

import functools

# Words that hold in every machine of the lab.
ALWAYS = ("lab", "carve-out", "this-driver", "type1", "tracing", "slow", "pages", "waits", "scrubs")


@functools.cache
def holds(kernel, word, extra=()):
    """Whether a word holds on a kernel."""
    if word.startswith("?"):
        return True
    if word.startswith("!"):
        return not holds(kernel, word[1:], extra)
    kind, _, name = word.rpartition(":")
    if kind == "module":
        return kernel.provides(name)
    if kind == "symbol":
        return f"\t{name}\t" in (kernel.headers / "Module.symvers").read_text()
    if kind == "lab" or word in ALWAYS:
        return True
    if word.startswith("CONFIG_"):
        return kernel.has(word)
    assert word == "late", f'"{word}" is no word of tests/lab/needs.py'
    return word in extra
