# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu bench and test in a virtual GH200: what they measure, find and
refuse, and how they end when interrupted.

Each test checks the output of one or more commands, which are below. No test
checks a time, because times mean nothing in this machine.

Faults are made in the machine's memory, which is a file of this process. A
thread keeps setting one bit (a stuck bit), or keeps copying a page to another
place (two addresses that access the same memory).
"""

import ctypes
import mmap
import re

import pytest

from cli import in_machine
from cli.in_machine import DRIVER, SMALL, InMachine, MiB
from lab import programs

ODD_SIZE = 48 * MiB + 0x1235
GPUS = [
    {"name": "small", "size": 64 * MiB, "model": {**SMALL, "aer": True}},
    # The memory is not a multiple of pages or words, and its BAR is larger.
    # The kernel does bus resets, too, for this id.
    {"name": "odd", "size": ODD_SIZE, "model": {**SMALL, "device": 0x2941}},
    {"name": "both", "size": "1.5G"},
    {"name": "slow", "size": 32 * MiB, "model": {**SMALL, "ready_after_reset_ms": 6000}},
    {"name": "dead", "size": 32 * MiB, "model": SMALL},
    {"name": "dead2", "size": 32 * MiB, "model": SMALL},
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
# opened: waits until the program has the GPU open, and sets pid to its number.
# $terminal is the process of the terminal on which it runs.
opened() {
	until pid=$(ls -l /proc/[0-9]*/fd/* 2>/dev/null | sed -n "s#.* /proc/\([0-9]*\)/fd/[0-9]* -> .*vfio[-/]device.*#\1#p"); [ "$pid" ]; do
		kill -0 $terminal || exit 1
		usleep 50000
	done
}
# On a machine that pauses, memory may take any time to become ready.
patient="--ready-within 3600"
# interrupt_bench STEP: types ^C during a step. A bench that then has little to
# do may end first, with status 0.
interrupt_bench() {
	say key /tests/terminal 100 -t $1 '^C' $nvgrace bench --quick --yes $(gpu small)
	[ $rc != 0 ]
}
# find_stuck OPTION...: tests memory that has a stuck bit.
find_stuck() {
	run test $patient --yes --time 5 "$@" $(gpu small)
	[ $rc = 1 ]
}
# find_alias OPTION...: tests memory that has an alias. If the thread pauses, its
# copy may be one of an earlier pattern.
find_alias() {
	find_stuck "$@" && tr -s '\n ' '  ' </tmp/out | grep -q -e '"content_of": {' -e "two addresses access the same memory"
}
# begin_pattern NAME: starts a test, and returns in its step "pattern", in which
# it stays until end_pattern or a complaint.
begin_pattern() {
	$nvgrace test $patient --yes --json --time 3600 --log=/tmp/pattern.log $(gpu $1) >/tmp/pattern.out 2>/tmp/err &
	pid=$!
	until grep -q 'step 5 of 9' /tmp/pattern.log; do
		kill -0 $pid || exit 1
		usleep 50000
	done
}
end_pattern() {
	wait $pid
	echo "pattern-rc: $?"
	sed 's/^/pattern-out: /' /tmp/pattern.out
	tail -n 1 /tmp/pattern.log | sed 's/^/log: /'
	rm /tmp/pattern.log
	idle $1
}
interrupt_wait() {
	/tests/terminal 80 -t 'reset' '^C' $nvgrace bench --yes --quick $(gpu dead) >/tmp/terminal
	rc=$?
	echo "signal: INT $rc"
	[ $rc = 130 ]
}
"""

COMMANDS = {
    "unbound": "run bench --yes $(gpu unbound); run test --yes $(gpu unbound)",
    "vfio-pci": """
        modprobe vfio-pci
        bind unbound vfio-pci
        run bench --yes $(gpu unbound)
        run test --yes $(gpu unbound)
        unbind unbound""",
    "bind": "mkdir -p /dev/pts; mount -t devpts devpts /dev/pts; run bind $(gpu small) $(gpu odd) $(gpu both) $(gpu slow) $(gpu dead) $(gpu dead2) $(gpu ill)",
    "unasked": "run bench $(gpu small); run bench --read-only $(gpu small); run test $(gpu small) </dev/null",
    "asked": """
        say no /tests/terminal 80 -t 'Continue?' 'n\r' $nvgrace test $patient $(gpu small)
        say yes /tests/terminal 80 -t 'Continue?' 'y\r' $nvgrace test $patient $(gpu small)""",
    "in-use": """
        open_gpu small
        run bench --yes $(gpu small)
        run test --yes $(gpu small)
        close_gpu""",
    "group-in-use": """
        exec 8<$(group small)
        run bench --yes --quick $(gpu small) 8<&-
        exec 8<&-""",
    "no-access": """
        mkdir -p /etc
        echo nobody:x:65534:65534::/:/bin/sh >/etc/passwd
        say user su nobody -c "$nvgrace bench --yes $(gpu small)"
        chmod 666 $(group small) /dev/vfio/vfio
        say unlogged su nobody -c "$nvgrace test --yes $(gpu small)"
        say group su nobody -c "$nvgrace test $patient --yes --json --log=/tmp/nobody.log $(gpu small)"
        chmod 600 $(group small)""",
    "no-vfio": """
        mv /dev/vfio/vfio /dev/vfio/away
        run bench --quick --yes $(gpu small)
        mv /dev/vfio/away /dev/vfio/vfio""",
    "no-type1": """
        rmmod vfio_iommu_type1
        run bench --quick --yes $(gpu small)
        modprobe vfio_iommu_type1""",
    "quick": "run bench --yes --quick --json $(gpu both)",
    "quick-odd": "run bench --yes --quick --json $(gpu odd)",
    "table": """
        for columns in 120 40; do
            say wide$columns /tests/terminal $columns $nvgrace bench --quick --yes $(gpu small)
            say test$columns /tests/terminal $columns $nvgrace test $patient --yes $(gpu small)
        done
        NO_COLOR=1 say plain /tests/terminal 100 $nvgrace bench --quick --yes $(gpu small)
        idle small""",
    "read-only": """
        host soil $(memory small) || exit 1
        run bench --read-only --quick --yes --json $(gpu small)
        host is_soiled $(memory small) && echo "intact: yes" """,
    "interrupted": """
        for step in first-touch dma-map read/usemem latency; do
            retried true interrupt_bench $step
            idle small
        done
        say key /tests/terminal 100 -t comparing '^C' $nvgrace test --time 600 --yes $(gpu small)
        idle small
        for signal in TERM HUP INT; do
            /tests/terminal 80 $nvgrace test --time 600 --yes $(gpu small) >/tmp/terminal 2>&1 &
            terminal=$!
            opened
            kill -$signal $pid
            wait $terminal
            echo "signal: $signal $?"
            idle small
        done
        /tests/terminal 80 $nvgrace bench --full --yes $(gpu small) >/tmp/terminal 2>&1 &
        terminal=$!
        opened
        kill -KILL $pid
        wait $terminal
        echo "signal: KILL $?"
        idle small
        run unbind $(gpu small)
        run bind $(gpu small)""",
    "pipe": """
        { $nvgrace test $patient --yes $(gpu small); echo "pipe-rc: $?" >&2; } 2>/tmp/err | true
        sed 's/^/err: /' /tmp/err
        $nvgrace test $patient --yes $(gpu small) >/dev/full 2>/tmp/err
        echo "full: $? $(tail -n 1 /tmp/err)"
        idle small""",
    "one-cpu": "say one taskset 1 $nvgrace test $patient --yes --json $(gpu odd)",
    "good": """
        run test $patient --yes --seed 7 $(gpu both)
        tail -n 1 /var/log/nvgrace-gpu-test.log | sed 's/^/log: /'
        before=$(cat $devices/$(gpu odd)/reset_method)
        run test $patient --yes --json --seed 7 $(gpu odd)
        echo "methods: $before"
        echo "methods: $(cat $devices/$(gpu odd)/reset_method)"
        run test $patient --yes --time 3 --json $(gpu small)""",
    "stuck": """
        host stick small || exit 1
        retried planted_late find_stuck --json
        retried planted_late find_stuck
        host unplant
        run test $patient --yes $(gpu small)""",
    "alias": """
        host alias small || exit 1
        retried planted_late find_alias --json
        retried planted_late find_alias
        host unplant""",
    # A memory error, as the kernel reports it, while the pattern is written.
    "complaint": """
        begin_pattern ill
        run test --yes $(gpu ill)
        printf '0x%x' $(($(cat $devices/$(gpu ill)/nvgrace_gpu/usemem_base) + 0x500000)) >/sys/devices/system/memory/hard_offline_page
        end_pattern ill""",
    # An error that the GPU reports by PCIe.
    "aer": r"""
        insmod /tests/aer_inject.ko
        begin_pattern small
        bus=$(gpu small | cut -d: -f2)
        # Bus, device, function and a gap; a completer abort; no corrected error,
        # an empty header, domain 0.
        { printf "\\$(printf %03o 0x$bus)\0\0\0\0\200\0\0"; head -c 24 /dev/zero; } >/tmp/error
        cat /tmp/error >/dev/aer_inject
        end_pattern small
        rmmod aer_inject""",
    "slow": "run test --yes --json $(gpu slow); run test $patient --yes $(gpu slow)",
    # The driver waits 30 s for each.
    "dead": """
        host after_reset dead never || exit 1
        host after_reset dead2 never || exit 1
        $nvgrace bench --yes --quick $(gpu dead) >/tmp/bench 2>&1 &
        pid=$!
        run test --yes --json $(gpu dead2)
        wait $pid
        echo "bench-rc: $?"
        sed 's/^/bench: /' /tmp/bench
        idle dead
        idle dead2""",
    "waiting": """
        retried late interrupt_wait
        idle dead""",
}


# The compiler's number of this memory order of C.
SEQ_CST = 5


class Bench(InMachine):
    LOG, GPUS, LIBRARY, HELPERS = "cli-bench", GPUS, LIBRARY, ("device_only", "terminal")

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
        return programs.module_file(kernel, "aer_inject") if cls.aer else {}

    @classmethod
    def prepare(cls, kernel):
        cls.aer = kernel.provides("aer_inject")
        cls.COMMANDS = {name: text + "\ntrue" for name, text in COMMANDS.items() if cls.aer or name != "aer"}
        cls.cdev = kernel.has("CONFIG_VFIO_DEVICE_CDEV")
        cls.page = 65536 if kernel.has("CONFIG_ARM64_64K_PAGES") else 16384 if kernel.has("CONFIG_ARM64_16K_PAGES") else 4096

    def outcomes(self, document):
        return {c["id"]: c["outcome"] for c in document["checks"]}

    def check_idle(self, command, name, times=1):
        assert self.lines(command, "idle") == [f'{name}: "bound",'] * times

    def test_refusals(self):
        unbound, small = self.pci["unbound"], self.pci["small"]
        for command, status, words in (
                ("unbound", 4, f'{unbound}: not bound to a driver; run "nvgrace-gpu bind {unbound}"'),
                ("vfio-pci", 4, f"{unbound}: the driver vfio-pci shows no GPU memory; bind the GPU to {DRIVER}"),
                ("unasked", 4, f"{small}: bench overwrites the memory of this GPU, and there is no terminal to ask on; add --yes"),
                ("in-use", 4, f"{small}: in use: process {''.join(self.lines('in-use', 'holder'))} (device_only)"),
                ("group-in-use", 4, f"{small}: in use: "),
                ("no-vfio", 1, f"{small}: can't open /dev/vfio/vfio: No such file or directory; load the modules"),
                ("no-type1", 1, f"{small}: vfio has no type1 IOMMU driver; load the module")):
            # With its own file, the GPU can be opened nevertheless.
            if self.cdev and command in ("no-vfio", "no-type1", "group-in-use"):
                continue
            assert set(self.codes(command)) == {status}, command
            assert words in self.text(command, "run-err")
            assert self.lines(command, "run-out") == []

    def test_reading_alone_is_a_risk(self):
        """Without consent, bench doesn't read what nothing has written."""
        assert ("bench --read-only reads memory of this GPU that may never have been written, and a memory error there can "
                      "stop the host, and there is no terminal to ask on; add --yes" in self.text("unasked", "run-err"))

    def test_access(self):
        """A user with access to the files need not be root."""
        assert self.codes("no-access", "user") == [5]
        assert re.search(r"can't open /dev/vfio/\d+: Permission denied; use sudo", self.text("no-access", "user-err"))
        assert self.codes("no-access", "unlogged") == [5]
        assert "name another one with --log" in self.text("no-access", "unlogged-err")
        assert self.codes("no-access", "group") == [0]
        document, = self.documents("no-access", "group")
        assert document["passed"]
        assert [s["name"] for s in document["steps"] if s["outcome"] == "skipped"] == ["scrub"]
        assert [r["method"] for r in document["resets"]] == [None]

    def test_asks(self):
        assert (self.codes("asked", "no"), self.codes("asked", "yes")) == ([4], [0])
        assert "nothing done" in self.text("asked", "no-out")
        assert f"{self.pci['small']}: passed" in self.text("asked", "yes-out")

    def test_figures(self):
        assert self.codes("quick") == [0]
        document, = self.documents("quick")
        figures = {f["name"]: f for f in document["figures"]}
        assert len(figures) == len(document["figures"]), "two figures have the same name"
        assert (document["level"], document["mode"], document["threads"], document["page_size"],
                document["read_only"], document["grace"]) == ("quick", "cdev" if self.cdev else "group", 2, self.page, False, False)
        assert document["usemem"] == {"size": 512 * MiB, "mappable": 512 * MiB, "bar_size": 512 * MiB}
        wanted = {"open", "reset", "reset-ready", "config-read"}
        for part in ("usemem", "resmem"):
            wanted |= {f"{kind}/{part}/{share}" for share in ("0.125", "0.25", "0.50", "1.00")
                       for kind in ("first-touch", "first-touch-faults", "dma-map", "dma-unmap")}
            wanted |= {f"{kind}/{part}/{size}" for kind in ("pread", "pwrite") for size in ("4KiB", "64KiB", "1MiB", "64MiB")}
            wanted |= {f"memcpy-from/{part}/1MiB", f"memcpy-to/{part}/1MiB", f"pread/{part}/8B", f"pread-tail/{part}/1MiB"}
        wanted |= {f"first-touch-{kind}/usemem/256MiB" for kind in
                   ("aligned", "aligned-faults", "misaligned", "misaligned-faults")}
        for memory in ("usemem", "resmem", "host"):
            wanted |= {f"{kind}/{memory}/{threads}" for kind in ("read", "write", "copy") for threads in (1, 2)}
            wanted |= {f"latency/{memory}"}
        assert set(figures) == wanted
        for name, figure in figures.items():
            if not figure["count"]:
                # Memory that fills its BAR has no tail, and iommufd can't map
                # GPU memory. On a busy machine, bench omits slow steps.
                assert figure["reason"] and (name.startswith("pread-tail/") or "omitted" in figure["reason"] or
                                             self.cdev and name.startswith("dma-")), figure
                continue
            assert figure["reason"] is None
            assert figure["min"] <= figure["median"]
            assert figure["median"] <= figure["max"]
            # Every figure is possible: no step takes no time, and no memory is
            # faster than this.
            if not name.startswith("dma-"):
                assert figure["min"] > 0, name
            if figure["unit"] == "B/s":
                assert figure["max"] < 1e13, name
        # One fault maps hundreds of huge pages, or the pages of several page
        # tables.
        pages = max(2048, self.page // 8) * self.page
        assert figures["first-touch-faults/usemem/0.125"]["max"] in (1, 2)
        assert figures["first-touch-misaligned-faults/usemem/256MiB"]["min"] - 256 * MiB // pages in (0, 1)

    def test_odd_memory(self):
        assert self.codes("quick-odd") == [0]
        document, = self.documents("quick-odd")
        assert document["usemem"] == {"size": ODD_SIZE, "mappable": ODD_SIZE // self.page * self.page, "bar_size": 64 * MiB}
        assert document["resmem"] is None
        figures = {f["name"]: f for f in document["figures"]}
        assert figures["pread-tail/usemem/1MiB"]["count"]
        assert figures["pread/usemem/64MiB"]["reason"] == "less memory than a block"

    def test_table(self):
        for columns in (120, 40):
            assert (self.codes("table", f"wide{columns}"), self.codes("table", f"test{columns}")) == ([0], [0])
            for name in ("wide", "test"):
                lines = [re.sub(r"\x1b\[[0-9;]*[mK]", "", line) for line in self.lines("table", f"{name}{columns}-out")]
                # The bar overwrites itself in one line of the terminal, which
                # is not part of the table, as messages are not. A release is
                # one word, of any length.
                table = [line for line in lines if " %" not in line and not re.fullmatch(r"  kernel +\S+|nvgrace-gpu: .*", line)]
                assert max(map(len, table)) <= columns, table
                assert any(re.match(r"\[[#.]+\] +\d+ % ", line) for line in lines), lines[:3]
        text = self.text("table", "wide120-out")
        self.check_bars([re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines()])
        assert "this CPU is not a Neoverse V2" in text
        assert "left" in text
        assert "\x1b[1m" in text
        assert "\x1b[1m" not in self.text("table", "plain-out")
        self.check_idle("table", "small")

    def check_bars(self, lines):
        """The bar of a bandwidth is as long as its part of the largest in its
        table, which has 40 cells. It is empty if a step met a pause of the
        machine."""
        tables = {}
        for line in lines:
            if line.endswith("maximum"):
                rows = tables.setdefault(line.split("  ")[0], [])
            elif m := re.match(r"  (\S.*?) +([\d.]+) ([kMGT]?)B/s +[\d.]+ [kMGT]?B/s +[\d.]+ [kMGT]?B/s  (#*)$", line):
                rows.append((m[1], float(m[2]) * 1000 ** " kMGT".index(m[3] or " "), len(m[4])))
        assert "read usemem, 1 thread" in [name for name, _, _ in tables["Bandwidth through the mapping"]]
        assert "pread usemem, 4 KiB" in [name for name, _, _ in tables["Read and write through vfio"]]
        for rows in filter(None, tables.values()):
            most = max(value for _, value, _ in rows)
            for name, value, cells in rows:
                # The figure in the table has three digits.
                assert cells == pytest.approx(40 * value / most, abs=1), name

    def test_read_only(self):
        assert self.codes("read-only") == [0]
        assert self.lines("read-only", "intact") == ["yes"]
        document, = self.documents("read-only")
        figures = {f["name"]: f for f in document["figures"]}
        for name in ("reset", "reset-ready", "write/usemem/1", "copy/usemem/1", "latency/usemem", "pwrite/usemem/1MiB",
                     "memcpy-to/usemem/1MiB"):
            assert figures[name]["reason"] == "omitted: --read-only", name
        for name in ("open", "read/usemem/1", "write/host/1", "pread/usemem/1MiB"):
            assert figures[name]["count"], name
        # If a smaller one met a pause of the machine, bench omits it.
        figure = figures["first-touch/usemem/1.00"]
        assert figure["count"] or figure["reason"].startswith("omitted: it would take"), figure

    def test_interrupted(self):
        """In each phase, and after each signal, no process has the GPU open,
        and it can be unbound."""
        assert self.codes("interrupted", "key") == [130] * 5
        assert self.text("interrupted", "key-out").count("interrupted; the GPU is bound and closed as before") == 5
        assert self.lines("interrupted", "signal") == ["TERM 130", "HUP 130", "INT 130", "KILL 137"]
        self.check_idle("interrupted", "small", 9)
        assert self.codes("interrupted") == [0, 0]

    def test_output_that_fails(self):
        assert re.search(r"^1 .*standard output: No space left on device", self.text("pipe", "full"))
        self.check_idle("pipe", "small")

    def test_good_memory(self):
        assert self.codes("good") == [0, 0, 0]
        text = self.text("good", "run-out")
        assert re.search(r"passed +pattern +1\.50 GiB written, read back and inverted, 1 time", text)
        assert f"{self.pci['both']}: passed" in text
        assert "seed 0x7" in text
        odd, small = self.documents("good")
        assert self.outcomes(odd) == {
            # It has not been accessed since the last reset.
            "claims": "passed", "registers": "passed", "readiness": "noted", "reset-methods": "noted", "pcie-link": "noted",
            "sizes": "passed", "bars": "passed", "limits": "passed", "ends": "passed", "every-64-MiB": "passed",
            "every-2-MiB": "passed", "pattern": "passed", "reset": "passed", "content-after-reset": "noted", "d3hot": "passed",
            "content-after-d3hot": "noted", "file": "passed", "tail": "passed", "scrub": "passed", "zeros": "passed",
            "pcie-errors": "skipped", "memory-errors": "passed"}
        assert {s["outcome"] for s in odd["steps"]} == {"passed"}
        assert len(odd["steps"]) == 9
        # Each method that the kernel has for the GPU, and then all again.
        before, after = self.lines("good", "methods")
        assert (after, before.split()) == (before, [r["method"] for r in odd["resets"]])
        assert "flr" in before.split()
        assert self.text("good", "log").endswith(f"{self.pci['both']}: end: passed")
        # The model's reset does not change the memory.
        assert odd["content_survived_reset"] is True
        assert (odd["passed"], odd["passes"], odd["differences"], odd["seed"]) == (True, 1, 0, "0x7")
        assert small["passes"] >= 1
        assert self.outcomes(small)["pcie-errors"] == "passed"
        one, = self.documents("one-cpu", "one")
        assert (one["passed"], one["threads"]) == (True, 1)

    def test_stuck_bit(self):
        assert self.codes("stuck") == [1, 1, 0]
        document, = self.documents("stuck")
        word = STUCK_AT // 8 * 8
        bit = STUCK_BIT + 8 * (STUCK_AT % 8)
        assert document["passed"] is False
        assert {i for i, o in self.outcomes(document).items() if o == "failed"} == {"pattern"}
        assert document["differences"] >= 1
        place, = document["places"]
        assert (place["part"], place["offset"], place["address"]) == ("usemem", hex(word), hex(self.base["small"] + word))
        assert int(place["found"], 16) ^ int(place["expected"], 16) == 1 << bit
        assert place["content_of"] is None
        assert (document["bits_found_1"], document["bits_found_0"]) == (hex(1 << bit), "0x0")
        text = self.text("stuck", "run-out")
        assert f"usemem + {word:#x}" in text
        assert "physical" not in text
        assert re.search(rf"bit {bit} of +64 +reads +1", text.replace("\n", " "))
        assert f"{self.pci['small']}: FAILED" in text

    def test_alias(self):
        assert self.codes("alias") == [1, 1]
        document, = self.documents("alias")
        places = [(int(p["offset"], 0), p) for p in document["places"]]
        for offset, place in places:
            assert ALIAS_TO <= offset < ALIAS_TO + 4096, place
            assert place["address"] == hex(self.base["small"] + offset)
            # A copy of an earlier pattern belongs to no place.
            if place["content_of"]:
                source = offset - ALIAS_TO + ALIAS_FROM
                assert place["content_of"] == {"part": "usemem", "offset": hex(source),
                                               "address": hex(self.base["small"] + source)}
        assert len(places) == 16
        assert any(place["content_of"] for _, place in places), places
        assert "two addresses access the same memory" in re.sub(r"\s+", " ", self.text("alias", "run-out"))

    def check_pattern_failed(self, command, name, complaints):
        """The step is the last, and the host's complaints are those."""
        assert self.codes(command, "pattern") == [1]
        document, = self.documents(command, "pattern")
        assert [s["outcome"] for s in document["steps"]] == ["passed"] * 4 + ["failed"] + ["skipped"] * 4
        found = [c["text"] for c in document["checks"] if (c["step"], c["id"], c["outcome"]) == ("pattern", "host", "failed")]
        for complaint in complaints:
            assert any(re.match(complaint, text) for text in found), document["checks"]
        assert self.text(command, "log").endswith(f"{self.pci[name]}: end: FAILED")
        self.check_idle(command, name)

    def test_memory_error(self):
        """The step in which the kernel reports an error is the last. Meanwhile,
        another test is refused."""
        self.check_pattern_failed("complaint", "ill", [r"kernel: Memory failure: 0x\.\.\.: "])
        assert self.codes("complaint") == [4]

    def test_pcie_error(self):
        """The kernel's log and the counts have it."""
        if self.aer:
            self.check_pattern_failed("aer", "small", ["kernel: .*AER: ", "1 uncorrected PCIe errors were counted"])

    def test_slow_reset(self):
        assert self.codes("slow") == [1, 0]
        document, = self.documents("slow")
        assert self.outcomes(document)["reset"] == "failed"
        assert document["ready_seconds"] > document["ready_within"]
        assert document["ready_within"] == 5
        assert re.search(r"passed reset the memory is ready \d+\.\d+ s", re.sub(r"\s+", " ", self.text("slow", "run-out")))

    def test_memory_that_never_gets_ready(self):
        """A SIGBUS is a failed check, and its text has the address."""
        assert self.codes("dead") == [1]
        document, = self.documents("dead")
        outcomes = self.outcomes(document)
        assert (outcomes["sizes"], outcomes["ends"]) == ("passed", "failed")
        assert [s["name"] for s in document["steps"] if s["outcome"] == "failed"] == ["touch"]
        text = next(c["text"] for c in document["checks"] if c["id"] == "ends")
        assert "SIGBUS at usemem + 0x0: " in text
        assert self.lines("dead", "bench-rc") == ["1"]
        assert f"SIGBUS at usemem + 0x0, physical address {self.base['dead']:#x}: " in self.text("dead", "bench")
        assert self.lines("dead", "idle") == ['dead: "bound",', 'dead2: "bound",']

    def test_interrupted_while_it_waits(self):
        """SIGINT ends the program while it waits in the kernel for memory that
        isn't ready."""
        assert self.lines("waiting", "signal") == ["INT 130"]
        self.check_idle("waiting", "dead")


@pytest.mark.long
class Stable(Bench):
    KERNEL, __test__ = "stable", True


class Newest(Bench):
    KERNEL, __test__ = "newest", True


@pytest.mark.long
class Newest64k(Bench):
    KERNEL, __test__ = "newest-64k", True
