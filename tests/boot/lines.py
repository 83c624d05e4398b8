# SPDX-License-Identifier: GPL-2.0-only
"""Lines of the configuration, which two programs read: the udev helper at boot, and
nvgrace-gpu. test_udev.py and cli/test_trees.py hold both to this table.

GOOD: {text: whether it binds each of the GPUs}. BAD: lines that both ignore, with
a complaint about line 1 and none about others."""

GPUS = FIRST, SECOND = "0009:01:00.0", "0019:01:00.0"

GOOD = {
    "": (False, False),
    f"bind {FIRST}": (True, False),
    f"bind {SECOND}": (False, True),
    "bind all": (True, True),
    f"bind all\nignore {FIRST}": (False, True),
    f"ignore {FIRST}\nbind all": (False, True),
    f"  bind\t{FIRST}   # the first\r\n\r\n": (True, False),
    f"\n\t bind\t{SECOND.upper()} # x": (False, True),
    "bind all#": (True, True),
    "bind all\r": (True, True),
    f"# bind {FIRST}\n\n#\n": (False, False),
    "bind 0029:01:00.0": (False, False),
    # Both leave out bytes of zero.
    f"bind {FIRST}\0\n": (True, False),
    "bi\0nd all": (True, True),
    f"bind all\nignore {FIRST}\0": (False, True),
    "id 10de:2342": (False, False),
}

BAD = [
    "bnid all", "bind", "ignore", f"bind {FIRST} {SECOND}", "bind all all", "bind 01:00.0", "bind *", "bind ../../x",
    "bind 0009:01:00", "bind 0009:01:20.0", "bind 0009:01:00.9", "bind 009:01:00.0", "bind 0009-01:00.0", "bind 0009:1:00.0",
    "bind 0009:01-00.0", "bind 0009:01:0.0", "bind 0009:01:00-0", "bind 0009:01:00./", "bind 0009:01:00.00", "bind 0009:21:20.0",
    "bind ALL", "BIND all", 'bind "all"', "bind=all", "$(touch /x)", "ignore x", "ignore all", "id", "id 297e", "id 10de:297",
    "id 10de:297e0", "id 8086:297e", "id 10de:297e 10de:297f", "id 10de:29g3",
    # As 0.2.0 had them.
    "bind slot=GPU0", "ignore slot=GPU0", "bind serial=48-b0-2d-ff-ff-12-34-56", "bind slot=", "bind slot=a/b",
    # Neither space nor tab.
    *(f"bind{c}all" for c in "\v\f\r\b\x01\x1f\x7f"), *(f"bind all{c}" for c in "\v\f\x1b"), "bind all\r\r", "bind \x1b[2J", "\x01",
    f"# a comment {chr(7)}", f"bind {FIRST}\v", "bind\u00a0all", "bind\u3000all",
]
