# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu bench and test in a virtual GH200: what they measure, find and
refuse, and how they end when interrupted. hardware/test_hardware.py has all cases.

Faults are made in the machine's memory, which is a file of this process. A
thread keeps setting one bit (a stuck bit), or keeps copying a page to another
place (two addresses that access the same memory).
"""

import ctypes
import mmap
import re

import pytest

from cli import common, in_machine
from cli.in_machine import DRIVER, SMALL, InMachine, MiB
from lab import programs

# The memory is not a multiple of pages or words, and its BAR is larger.
ODD_SIZE = 48 * MiB + 0x1235
GPUS = [
    {"name": "small", "size": 64 * MiB, "model": {**SMALL, "aer": True}},
    # The kernel does bus resets, too, for this id.
    {"name": "odd", "size": ODD_SIZE, "model": {**SMALL, "device": 0x2941}},
    {"name": "both", "size": "1.5G"},
    {"name": "dead", "size": 32 * MiB, "model": SMALL},
    {"name": "ill", "size": 32 * MiB, "model": SMALL},
    {"name": "unbound", "size": 32 * MiB, "model": SMALL},
]

STUCK_AT, STUCK_BIT = 24 * MiB + 0x1238, 5
# Not at a multiple of 2 MiB, where an earlier step finds it.
ALIAS_FROM, ALIAS_TO = 3 * MiB, 41 * MiB

LIBRARY = in_machine.LIBRARY + r"""
mkdir -p /var/log
# idle NAME: prints the GPU's state, which is "bound" if no process has it open.
idle() { $nvgrace list --json >/tmp/list; grep -A8 "\"address\": \"$(gpu $1)\"" /tmp/list | grep '"state"' | sed "s/^.*\"state\"/idle: $1/"; }
# interrupt_bench SIGNAL NAME: while it measures.
interrupt_bench() {
	$nvgrace bench --yes --rounds=1000 $(gpu $2) >/tmp/out 2>/tmp/err &
	pid=$!
	until ls -l /proc/$pid/fd 2>/dev/null | grep -q 'vfio[-/]device'; do kill -0 $pid || exit 1; usleep 50000; done
	kill -$1 $pid
	wait $pid
	echo "signal: $1 $? $(tail -n 1 /tmp/err)"
}
# with_case COMMANDS: a copy of "test", in whose step "touch" these run.
with_case() {
	rm -rf /tmp/t
	mkdir -p /tmp/t/nvgrace-gpu /tmp/t/nvgrace-gpu-tests
	cp /usr/libexec/nvgrace-gpu/test /tmp/t/nvgrace-gpu
	echo memory >/tmp/t/nvgrace-gpu-tests/order
	printf '%s\n' '#!/bin/sh' 'if [ $1 = --list ]; then' "printf 'x\tboth_ends_keep_what_is_written\t\n'" 'else' "$1" 'fi' >/tmp/t/nvgrace-gpu-tests/memory
	chmod 755 /tmp/t/nvgrace-gpu-tests/memory
}
find_wrong() { run test --yes --until=pattern $(gpu small); [ $rc = 1 ]; }
"""

COMMANDS = {
    "vfio-pci": """
        modprobe vfio-pci
        bind unbound vfio-pci
        run bench --yes $(gpu unbound)
        run test --yes $(gpu unbound)
        unbind unbound""",
    "bind": "run bind $(gpu small) $(gpu odd) $(gpu both) $(gpu dead) $(gpu ill)",
    "in-use": """
        open_gpu small
        run bench --yes $(gpu small)
        run test --yes $(gpu small)
        close_gpu""",
    "no-access": """
        mkdir -p /etc
        echo nobody:x:65534:65534::/:/bin/sh >/etc/passwd
        say user su nobody -c "$nvgrace bench --yes $(gpu small)"
        chmod 666 $(group small) /dev/vfio/vfio
        say unlogged su nobody -c "$nvgrace test --yes $(gpu small)"
        say group su nobody -c "$nvgrace test --yes --json --log=/tmp/nobody.log $(gpu small)"
        chmod 600 $(group small)""",
    "quick": "run bench --yes --quick --json $(gpu both); run bench --yes --rounds=2 --json $(gpu odd); run bench --yes --quick $(gpu small)",
    "interrupted": """
        for signal in TERM HUP KILL; do
            interrupt_bench $signal small
            idle small
        done
        run unbind $(gpu small)
        run bind $(gpu small)""",
    "good": """
        before=$(cat $devices/$(gpu odd)/reset_method)
        run test --yes --json $(gpu odd)
        echo "methods: $before"
        echo "methods: $(cat $devices/$(gpu odd)/reset_method)"
        idle odd""",
    "stuck": """
        host stick small || exit 1
        retried planted_late find_wrong
        host unplant
        run test --yes --until=pattern $(gpu small)""",
    "alias": """
        host alias small || exit 1
        retried planted_late find_wrong
        host unplant""",
    # A memory error, as the kernel reports it, while a case runs.
    "complaint": """
        with_case "$nvgrace unbind \\$2; printf 0x%x $(($(cat $devices/$(gpu ill)/nvgrace_gpu/usemem_base) + 0x500000)) >/sys/devices/system/memory/hard_offline_page"
        say run /tmp/t/nvgrace-gpu/test --yes --json $(gpu ill)
        idle ill""",
    # An error that the GPU reports by PCIe: bus, device, function and a gap; a
    # completer abort; no corrected error, an empty header, domain 0.
    "aer": r"""
        insmod /tests/aer_inject.ko
        { printf "\\$(printf %03o 0x$(gpu small | cut -d: -f2))\0\0\0\0\200\0\0"; head -c 24 /dev/zero; } >/tmp/error
        with_case "cat /tmp/error >/dev/aer_inject"
        say run /tmp/t/nvgrace-gpu/test --yes --json $(gpu small)
        idle small
        rmmod aer_inject""",
    # The driver waits 30 s for each.
    "dead": """
        host after_reset dead never || exit 1
        run bench --yes --quick $(gpu dead)
        run test --yes --json $(gpu dead)
        idle dead""",
    "waiting": "interrupt_bench TERM dead; idle dead",
}

# The compiler's number of this memory order of C.
SEQ_CST = 5

class Testers(InMachine):
    LOG, GPUS, LIBRARY, HELPERS = "cli-testers", GPUS, LIBRARY, ("device_only",)

    @classmethod
    def handlers(cls):
        def stick(machine, name):
            at = cls.base[name] + STUCK_AT - machine.memory_address
            page = mmap.mmap(machine.memory_fd, mmap.PAGESIZE, offset=at - at % mmap.PAGESIZE)
            byte = ctypes.byref(ctypes.c_uint8.from_buffer(page, at % mmap.PAGESIZE))
            # Atomic, because the machine may write to the byte between a read
            # and a write.
            fetch_or = getattr(ctypes.CDLL("libatomic.so.1"), "__atomic_fetch_or_1")
            cls.planted.start(lambda: fetch_or(byte, 1 << STUCK_BIT, SEQ_CST))

        def alias(machine, name):
            at = cls.base[name]
            cls.planted.start(lambda: machine.write_gpu_memory(at + ALIAS_TO, machine.read_gpu_memory(at + ALIAS_FROM, 4096)))

        return {"stick": stick, "alias": alias}

    @classmethod
    def files(cls, kernel, directory):
        return {**common.testers(kernel, directory), **(programs.module_file(kernel, "aer_inject") if cls.aer else {})}

    @classmethod
    def prepare(cls, kernel):
        cls.aer = kernel.provides("aer_inject")
        cls.COMMANDS = {name: text + "\ntrue" for name, text in COMMANDS.items() if cls.aer or name != "aer"}
        cls.cdev = kernel.has("CONFIG_VFIO_DEVICE_CDEV")
        cls.page = 65536 if kernel.has("CONFIG_ARM64_64K_PAGES") else 4096

    def check_idle(self, command, name, times=1):
        assert self.lines(command, "idle") == [f'{name}: "bound",'] * times

    def test_refusals(self):
        unbound, small = self.pci["unbound"], self.pci["small"]
        for command, status, words in (
                ("vfio-pci", 4, f"{unbound}: the driver vfio-pci shows no GPU memory; bind the GPU to {DRIVER}"),
                ("in-use", 4, f"{small}: in use: process {''.join(self.lines('in-use', 'holder'))} (device_only)")):
            assert set(self.codes(command)) == {status}, command
            assert words in self.text(command, "run-err")

    def test_access(self):
        """A user with access to the files need not be root."""
        assert self.codes("no-access", "user") == [5]
        assert re.search(r"can't open /dev/vfio/\d+: Permission denied; use sudo", self.text("no-access", "user-err"))
        assert self.codes("no-access", "unlogged") == [5]
        assert "name another one with --log" in self.text("no-access", "unlogged-err")
        assert self.codes("no-access", "group") == [0], self.text("no-access", "group-out")
        document, = self.documents("no-access", "group")
        assert "memory::after_a_scrub_all_of_the_memory_is_zero" in [c["id"] for c in document["checks"] if c["outcome"] == "skipped"]

    def test_figures(self):
        assert self.codes("quick") == [0, 0, 0]
        both, odd = self.documents("quick")
        assert both["usemem"] == {"size": 512 * MiB, "mappable": 512 * MiB, "bar_size": 512 * MiB}
        wanted = {"open", "reset", "reset-ready", "config-read", "first-touch-misaligned/usemem/256MiB", "first-touch-misaligned-faults/usemem/256MiB"}
        for part in ("usemem", "resmem"):
            wanted |= {f"{kind}/{part}/256MiB" for kind in ("first-touch", "first-touch-faults", "dma-map", "dma-unmap")}
            wanted |= {f"{kind}/{part}/{size}" for kind in ("pread", "pwrite") for size in ("8B", "4KiB", "64KiB", "1MiB", "64MiB")}
            wanted |= {f"memcpy-from/{part}/1MiB", f"memcpy-to/{part}/1MiB", f"pread-tail/{part}/1MiB"}
        figures = {f["name"]: f for f in both["figures"]}
        # iommufd can't map GPU memory.
        assert set(figures) == {name for name in wanted if not (self.cdev and name.startswith("dma-unmap"))}
        for name, figure in figures.items():
            if not figure["count"]:
                assert figure["reason"] and (name.startswith("pread-tail/") or self.cdev and name.startswith("dma-")), figure
                continue
            # Every figure is possible: no step takes no time, and no memory is faster
            # than this.
            assert figure["reason"] is None and 0 < figure["min"] < 1e13, figure
        # One fault maps hundreds of huge pages, or the pages of several page tables.
        pages = max(2048, self.page // 8) * self.page
        assert figures["first-touch-faults/usemem/256MiB"]["max"] in (1, 2)
        assert figures["first-touch-misaligned-faults/usemem/256MiB"]["min"] - 256 * MiB // pages in (0, 1)
        assert odd["usemem"] == {"size": ODD_SIZE, "mappable": ODD_SIZE // self.page * self.page, "bar_size": 64 * MiB}
        assert (odd["resmem"], odd["rounds"]) == (None, 2)
        figures = {f["name"]: f for f in odd["figures"]}
        assert figures["pread-tail/usemem/1MiB"]["count"] == 2
        assert figures["pread/usemem/64MiB"]["reason"] == "less memory than a block"
        assert re.search(r"^  pread/usemem/4KiB +[\d.]+ MB/s$", self.text("quick", "run-out"), re.M)

    def test_interrupted(self):
        """After each signal, no process has the GPU open, and it can be unbound."""
        said = self.lines("interrupted", "signal")
        assert [line.split()[:2] for line in said] == [["TERM", "130"], ["HUP", "130"], ["KILL", "137"]]
        assert all("interrupted; the GPU is bound and closed as before" in line for line in said[:2])
        self.check_idle("interrupted", "small", 3)
        assert self.codes("interrupted") == [0, 0]

    def test_good_memory(self):
        assert self.codes("good") == [0]
        odd, = self.documents("good")
        assert {s["outcome"] for s in odd["steps"]} == {"passed"} and len(odd["steps"]) == 9
        # Each method that the kernel has for the GPU, and then all again.
        before, after = self.lines("good", "methods")
        text = next(c["text"] for c in odd["checks"] if c["step"] == "reset")
        assert (after, [line.split(":")[0] for line in text.splitlines()]) == (before, before.split())
        assert "flr" in before.split()
        self.check_idle("good", "odd")

    def test_stuck_bit(self):
        assert self.codes("stuck") == [1, 0]
        bit = STUCK_BIT + 8 * (STUCK_AT % 8)
        assert (f"first at byte {STUCK_AT // 8 * 8} of usemem: 1 of 64 bits differ, the lowest is bit {bit}"
                in re.sub(r"\s+", " ", self.text("stuck", "run-out")))

    def test_alias(self):
        assert self.codes("alias") == [1]
        said = re.sub(r"\s+", " ", self.text("alias", "run-out"))
        assert f"first at byte {ALIAS_TO} of usemem" in said
        # A copy of an earlier pattern belongs to no place.
        assert f"it is the word of byte {ALIAS_FROM} of usemem: two addresses access the same memory" in said

    def check_complaint(self, command, name, complaints):
        """The step is the last, and the host's complaints are those."""
        assert self.codes(command) == [1]
        document, = self.documents(command)
        assert [s["outcome"] for s in document["steps"]] == ["passed"] * 2 + ["failed"] + ["skipped"] * 6
        found = [c["text"] for c in document["checks"] if (c["step"], c["id"], c["outcome"]) == ("touch", "host", "failed")]
        for complaint in complaints:
            assert any(re.match(complaint, text) for text in found), document["checks"]
        self.check_idle(command, name)

    def test_memory_error(self):
        """The step in which the kernel reports an error is the last. Meanwhile, the GPU
        can't be unbound."""
        self.check_complaint("complaint", "ill", [r"kernel: Memory failure: 0x\.\.\.: "])
        assert "another nvgrace-gpu is changing it; wait until that ends" in self.text("complaint", "run-out")

    def test_pcie_error(self):
        """The kernel's log and the counts have it."""
        if self.aer:
            self.check_complaint("aer", "small", ["kernel: .*AER: ", "uncorrected (fatal )?PCIe errors: 1, before: 0"])

    def test_memory_that_never_gets_ready(self):
        assert self.codes("dead") == [1, 1]
        assert "SIGBUS: a memory error, or the GPU does not answer or is not ready" in self.text("dead", "run-err")
        document, = self.documents("dead")
        assert [s["name"] for s in document["steps"] if s["outcome"] == "failed"] == ["touch"]
        self.check_idle("dead", "dead")

    def test_interrupted_while_it_waits(self):
        """Also in the kernel, for memory that isn't ready."""
        assert self.lines("waiting", "signal")[0].startswith("TERM 130 ")
        self.check_idle("waiting", "dead")

@pytest.mark.long
class Stable(Testers):
    KERNEL, __test__ = "stable", True

class Newest(Testers):
    KERNEL, __test__ = "newest", True

@pytest.mark.long
class Newest64k(Testers):
    KERNEL, __test__ = "newest-64k", True
