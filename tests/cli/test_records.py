# SPDX-License-Identifier: GPL-2.0-only
"""Nine commands on 189 damaged records: they must not crash or hang, and must
print a clear message if they fail.

A record is a whole host with some damaged files. Its number is the seed, so that
all runs have the same records, and the cache keeps that a program had no
complaint. Each record is read by two of the commands. A complaint names the
record's number.
"""

import json
import os
import pathlib
import random
import re
import tempfile

import pytest

from cli.common import once, run, validator
from cli.doctor_trees import unfold

pytestmark = pytest.mark.all

# Three for each base and first command.
RECORDS = 189
GPU = "0009:01:00.0"
COMMANDS = (("list",), ("list", "--json"), ("status",), ("status", "--json", GPU), ("doctor",), ("doctor", "--json"),
            ("bind", "--dry-run", "--persist", "--json", "--all"), ("unbind", "--dry-run", "--boot-only", GPU),
            ("metrics",))
BASES = ("good", "nvidia-two", "initramfs", "sosreport", "four", "grub", "systemd-boot-chosen")

# Numbers and words that have broken programs before.
VALUES = (b"", b"\n", b"0\n", b"1\n", b"-1\n", b"0x\n", b"0xffffffffffffffff\n", b"18446744073709551616\n", b"1e9\n", b"nan\n",
          b"%s%n%s\n", b"(null)\n", b"\0\0\0", b"\xff\xfe\x1b[2J\n", b"A" * 70000, b"../../../../etc/shadow\n", b": : :\n" * 900,
          b"9" * 300 + b"\n", b"0009:01:00.0\n", b"kernel: \nimage: \nerror: \n", b"online\n", b"\n" * 5000)


def whole(root, base):
    """Makes a host that has files for every command."""
    unfold.unfold(unfold.hosts(), base, root)
    extra = {"proc/77/comm": "qemu", "proc/77/fdinfo/4": f"vfio-device-syspath: /sys/devices/x/{GPU}",
             f"proc/driver/nvidia/gpus/{GPU}/numa_status": "Node: 2\nStatus: offline",
             f"proc/driver/nvidia/gpus/{GPU}/information": "Device Minor: 0", "proc/devices": "195 nvidia",
             "sys/devices/system/memory/block_size_bytes": "8000000", "sys/devices/system/node/node2/cpulist": "",
             "sys/devices/system/node/node2/meminfo": "Node 2 MemTotal: 7 kB",
             "sys/devices/system/node/node2/memory64/state": "online", "sys/bus/pci/slots/1/address": "0009:01:00",
             f"sys/bus/pci/devices/{GPU}/resource": "0x661000000000 0x661000ffffff 0x14220c",
             f"sys/bus/pci/devices/{GPU}/serial_number": "48-b0-2d-ff-ff-12-34-56",
             f"sys/bus/pci/devices/{GPU}/drm/card0/dev": "226:0", "sys/class/vfio/12/dev": "511:12"}
    for name, text in extra.items():
        path = root / name
        if not any(p.is_symlink() for p in (path, *path.parents)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
    (root / "proc/77/fd").mkdir(exist_ok=True)
    for fd, target in enumerate(("/dev/vfio/12", "anon_inode:[vfio-device]", "/dev/dri/card0"), 3):
        (root / f"proc/77/fd/{fd}").symlink_to(target)


def damage(root, numbers):
    """Damages one to six files, links or folders of the tree."""
    for _ in range(numbers.randint(1, 6)):
        names = sorted(p for p in root.rglob("*"))
        path = numbers.choice(names)
        file = path.is_file() and not path.is_symlink()
        kind = numbers.randrange(12)
        data = path.read_bytes() if file else b""
        if kind < 4 and file:
            path.write_bytes(numbers.choice(VALUES))
        elif kind == 4 and data:
            path.write_bytes(data[:numbers.randrange(len(data))])
        elif kind == 5 and data:
            at = numbers.randrange(len(data))
            path.write_bytes(data[:at] + bytes([numbers.randrange(256)]) + data[at + 1:])
        elif kind == 6 and data:
            lines = data.splitlines(keepends=True)
            numbers.shuffle(lines)
            path.write_bytes(b"".join(lines * numbers.choice((1, 3))))
        elif kind == 7 and file:
            other = numbers.choice(names)
            if other.is_file() and not other.is_symlink():
                path.write_bytes(other.read_bytes())
        elif kind == 8:
            unfold.remove(path)
            path.symlink_to(numbers.choice(["/", "/dev/zero", path.name, "../..", "/nowhere", "", "x" * 200][:6]) or ".")
        elif kind == 9:
            unfold.remove(path)
            path.mkdir()
        elif kind == 10:
            unfold.remove(path)
            os.mkfifo(path)
        else:
            unfold.remove(path)
            if not any(root.iterdir()):
                return


def check(number):
    """Runs two commands on a record; the complaints about them."""
    numbers = random.Random(number)
    base = BASES[number % len(BASES)]
    # The pairs change with the number: each command reads each kind of host.
    chosen = number % len(COMMANDS), (number // len(COMMANDS)) % len(COMMANDS)
    complaints = []
    with tempfile.TemporaryDirectory(prefix="record-") as directory:
        root = pathlib.Path(directory, "root")
        root.mkdir()
        whole(root, base)
        damage(root, numbers)
        for words in (COMMANDS[c] for c in dict.fromkeys(chosen)):
            try:
                done = run(*words, root=root, sanitized=True)
                complaints += [f"record {number} ({base}), {' '.join(words)}: {c}" for c in judge(words, done)]
            # Also findings of sanitizers, and hangs.
            except Exception as error:  # pylint: disable=broad-exception-caught
                complaints.append(f"record {number} ({base}), {' '.join(words)}: {type(error).__name__}: {str(error)[:3000]}")
    return complaints


def judge(words, done):
    if done.returncode not in (0, 1, 2, 3, 4, 6, 7):
        yield f"status {done.returncode}: {done.stderr[-2000:]}"
    # 6 and 7 are the doctor's. All other failures have a message.
    if done.returncode in (1, 2, 3, 4) and not re.match(r"nvgrace-gpu: \S.{10,}", done.stderr):
        yield f"status {done.returncode} without a clear message: {done.stderr!r}"
    for line in done.stderr.splitlines():
        if not line.startswith("nvgrace-gpu: ") or re.search(r"\(null\)(?!\s*\")|: Success\b", line):
            yield f"unclear line: {line!r}"
    if not all(c == "\n" or " " <= c <= "~" for c in done.stdout + done.stderr):
        yield "the output has bytes that aren't printable"
    if "--json" in words and done.stdout:
        try:
            yield from (str(e)[:500] for e in validator().iter_errors(json.loads(done.stdout)))
        except ValueError as error:
            yield f"the output isn't JSON: {error}"
    if words == ("metrics",) and not done.stdout.endswith("\n"):
        yield "the metrics do not end with a whole line"


@pytest.mark.parametrize("base", BASES)
def test_records_of(base):
    def read():
        complaints = [c for number in range(BASES.index(base), RECORDS, len(BASES)) for c in check(number)]
        assert not complaints, "\n\n".join(complaints[:20])

    once(f"records-{base}", read)
