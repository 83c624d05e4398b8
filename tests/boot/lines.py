# SPDX-License-Identifier: GPL-2.0-only
"""Lines of the configuration. test_udev.py holds the udev rule's program to this
table, and cli/test_trees.py nvgrace-gpu(8).

GOOD: {text: whether it binds each of the GPUs}. BAD: lines of which both complain, and
that stop no line with an address. UNCLEAR: {text: whether it binds each of the GPUs}, if
a line of it may be an "ignore" that nobody can read."""

GPUS = FIRST, SECOND = "0009:01:00.0", "0019:01:00.0"
# As the kernel names them in /sys/bus/pci/slots and serial_number.
SLOTS, SERIALS = ("3", "GPU1"), ("48-b0-2d-ff-ff-12-34-56", "48-b0-2d-ff-ff-12-34-57")

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
    # As nvidia-smi prints addresses.
    f"bind 0000{FIRST}": (True, False),
    f"bind all\nignore 0000{SECOND}": (True, False),
    "id 10de:2342": (False, False),
    # As 0.2.0 had them.
    "bind slot=3": (True, False),
    "bind all\nignore slot=GPU1": (True, False),
    "bind slot=gpu1": (False, False),
    f"bind serial={SERIALS[1].upper()}": (False, True),
    f"bind all\nignore serial={SERIALS[0]}": (False, True),
}

BAD = [
    "bnid all", "bind", "ignore", f"bind {FIRST} {SECOND}", "bind all all", "bind 01:00.0", "bind *", "bind ../../x",
    "bind 0009:01:00", "bind 0009:01:20.0", "bind 0009:01:00.9", "bind 009:01:00.0", "bind 0009-01:00.0", "bind 0009:1:00.0",
    "bind 0009:01-00.0", "bind 0009:01:0.0", "bind 0009:01:00-0", "bind 0009:01:00./", "bind 0009:01:00.00", "bind 0009:21:20.0",
    "bind ALL", "BIND all", 'bind "all"', "bind=all", "$(touch /x)", "ignore x", "ignore all", "id", "id 297e", "id 10de:297",
    "id 10de:297e0", "id 8086:297e", "id 10de:297e 10de:297f", "id 10de:29g3", "bind slot=", "bind slot=a/b", "bind serial=12-34",
    # Neither space nor tab.
    *(f"bind{c}all" for c in "\v\f\r\b\x01\x1f\x7f\0"), *(f"bind all{c}" for c in "\v\f\x1b\0"), "bind all\r\r", "bind \x1b[2J", "\x01",
    f"# a comment {chr(7)}", "bind all\v", "bind\u00a0all", "bind\u3000all", "\0" * 40, "bi\0nd all",
]

UNCLEAR = {
    f"bind all\n{line}": (False, False) for line in (
        "ignore 0019:1:00.0", "ignore", "ignore 19:01:00.0", "ignroe 0019:01:00.0", "Ignore 0019:01:00.0", "ignore=0019:01:00.0",
        "ignore 0019:01:00.0 0009:01:00.0", "ignore slot=", "ignore serial=12", "ignore \u0660019:01:00.0", "ignore 0019:01:00.0\v",
        "\ufeffignore 0019:01:00.0", "exclude 0019:01:00.0", "bind all ignore 0019:01:00.0", "\0" * 40, "# mine\rignore 0019:01:00.0\rx")
} | {
    # What was typed is another one's address, or this one's.
    f"bind {FIRST}\nignore 19:1:0.0": (True, False),
    f"bind {FIRST}\nignore 9:1:0.0": (False, False),
    f"bind {FIRST}\nignroe {FIRST}": (False, False),
    f"bind {FIRST}\nbind {SECOND}\nignore {SECOND}x {SECOND}": (True, False),
    # These can't be an "ignore".
    "bind all\nbind x": (True, True),
    "bind all\nid x": (True, True),
    # A slot or a number of which the kernel says nothing for a GPU.
    "bind all\nignore slot=4": (True, True),
}
