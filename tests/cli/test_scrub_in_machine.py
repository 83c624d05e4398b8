# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu scrub in a virtual GH200: the memory becomes zeros. What scrub
refuses and verifies, and how it ends when interrupted.

Each test checks the output of one or more commands, which are below. No test
checks a time, because times mean nothing in this machine.

From outside the machine, the tests write to the memory before a scrub and read
it afterwards. A thread keeps writing a word other than 0 while the program
reads back.
"""

import re

import pytest

from cli import in_machine
from cli.in_machine import DRIVER, SMALL, InMachine, MiB

SIZES = {"small": 64 * MiB, "odd": 48 * MiB + 0x1235, "both": 1536 * MiB, "slow": 32 * MiB, "dead": 32 * MiB}
GPUS = [
    {"name": "small", "size": SIZES["small"], "model": SMALL},
    # The memory is not a multiple of pages or words.
    {"name": "odd", "size": SIZES["odd"], "model": SMALL},
    # It has usemem and resmem.
    {"name": "both", "size": SIZES["both"]},
    # Its scrubs don't end while it isn't ready (see prepare_slow).
    {"name": "slow", "size": SIZES["slow"], "model": SMALL},
    {"name": "dead", "size": SIZES["dead"], "model": SMALL},
    {"name": "plain"},
    {"name": "unbound", "size": 32 * MiB, "model": SMALL},
]

# The word that a thread keeps writing, and its place.
PLANTED_AT, PLANTED = 24 * MiB + 0x1238, 0x1122334455667788

LIBRARY = in_machine.LIBRARY + r"""
parameter=/sys/module/nvgrace_gpu_vfio_pci/parameters/scrub
attribute() { cat $devices/$(gpu $1)/nvgrace_gpu/$2; }
state() { echo "state: $1 $(attribute $1 scrub_state)"; }
soil() { for g; do host soil $(memory $g) || exit 1; done; }
# left NAME...: prints how many bytes aren't 0.
left() { for g; do echo "left: $g $(host remains $(memory $g) | cut -d" " -f1)"; done; }
ready_again() { host after_reset slow 0 && host ready slow 0; }
# ended NAME: waits until the scrub has ended.
ended() { while [ $(attribute $1 scrub_state) = scrubbing ]; do usleep 50000; done; }
# prepare_slow: lets the next scrub of "slow" wait for its memory. The first one
# after a bind resets the GPU, and the driver then waits 30 s.
prepare_slow() {
	ready_again
	$nvgrace unbind $(gpu slow) >/dev/null 2>&1
	$nvgrace bind $(gpu slow) >/dev/null 2>&1
	host after_reset slow never
	soil slow
}
# scrubbing: waits until "slow" is being scrubbed. Fails if process $pid ends
# before.
scrubbing() {
	until [ "$(attribute slow scrub_state)" = scrubbing ]; do
		kill -0 $pid || return
		usleep 10000
	done
}
# interrupt SIGNAL
interrupt() {
	prepare_slow
	$nvgrace scrub --all >/tmp/out 2>/tmp/err &
	pid=$!
	scrubbing
	kill -$1 $pid
	wait $pid
	echo "signal: $1 $?"
	sed "s/^/signal-err: /" /tmp/err
	state slow
	run status $(gpu slow)
	before=$(attribute slow scrub_state)
	ready_again
	ended slow
	state slow
	left slow
	[ $before = scrubbing ]
}
unbind_meanwhile() {
	prepare_slow
	$nvgrace scrub $(gpu slow) >/tmp/out 2>/tmp/err &
	pid=$!
	scrubbing || return
	$nvgrace unbind $(gpu slow) &
	unbind=$!
	# It clears the override before it unbinds.
	while [ "$(cat $devices/$(gpu slow)/driver_override)" = nvgrace_gpu_vfio_pci ]; do
		kill -0 $unbind || break
		usleep 10000
	done
	ready_again
	wait $unbind
	wait $pid
	echo "unbound-rc: $?"
	sed "s/^/unbound-out: /" /tmp/out /tmp/err
}
find_planted() {
	run scrub --verify "$@"
	[ $rc = 1 ]
}
"""

COMMANDS = {
    "nothing": "run scrub --all; run scrub $(gpu unbound); run scrub 0049:01:00.0 $(gpu small)",
    "bind": "for g in small odd both slow dead plain; do run bind $(gpu $g); done",
    "vfio-pci": "modprobe vfio-pci; bind unbound vfio-pci; run scrub $(gpu unbound); unbind unbound",
    "plain": "run scrub $(gpu plain)",
    "idle": "state small; soil small; run scrub $(gpu small); state small; left small",
    "json": "soil both odd; run scrub --json $(gpu both) $(gpu odd) $(gpu both); left both odd; run list --json",
    "in-use": """
        soil small odd
        open_gpu small
        run scrub $(gpu small) $(gpu odd)
        left small odd
        run scrub --json $(gpu small)
        close_gpu
        state small
        run scrub $(gpu small)
        left small""",
    "verify": """
        soil both odd
        run scrub --verify --json $(gpu both) $(gpu odd)
        left both odd
        run scrub --verify $(gpu small)
        state small""",
    "verify-differs": """
        host plant small || exit 1
        retried planted_late find_planted --json $(gpu small) $(gpu odd)
        retried planted_late find_planted $(gpu small)
        host unplant
        run scrub --verify $(gpu small)""",
    "parameter": """
        echo 1 >$parameter
        soil small
        run scrub --verify --json $(gpu small)
        ended small
        state small
        left small
        echo 0 >$parameter
        run scrub --verify --json $(gpu small)""",
    "interrupted": "for how in TERM HUP; do retried late interrupt $how; done",
    "unbound-meanwhile": "retried late unbind_meanwhile; run bind $(gpu slow)",
    # The first scrub after a bind resets the GPU. The driver waits 30 s.
    "failed": """
        $nvgrace unbind $(gpu dead)
        $nvgrace bind $(gpu dead)
        host after_reset dead never || exit 1
        soil small dead
        run scrub --json $(gpu small) $(gpu dead)
        left small
        state dead
        run status $(gpu dead)
        run scrub --all""",
}


class Scrub(InMachine):
    KERNEL, __test__ = "newest", True
    LOG, GPUS, LIBRARY, HELPERS = "cli-scrub", GPUS, LIBRARY, ("device_only",)
    COMMANDS = {name: text + "\ntrue" for name, text in COMMANDS.items()}

    @classmethod
    def handlers(cls):
        def plant(machine, name):
            cls.planted.start(lambda: machine.write_gpu_memory(cls.base[name] + PLANTED_AT, PLANTED.to_bytes(8, "little")))

        return {"plant": plant}

    def check_clean(self, command, *names):
        assert self.lines(command, "left") == [f"{name} 0" for name in names]

    def test_bound(self):
        assert self.codes("bind") == [0] * 6

    def test_nothing_to_scrub(self):
        """Without a bound GPU, --all does nothing. With a wrong address, no GPU
        is scrubbed."""
        assert self.codes("nothing") == [0, 4, 3]
        error = self.text("nothing", "run-err")
        assert f"nvgrace-gpu: no GPU with memory is bound to {DRIVER}" in error
        unbound = self.pci["unbound"]
        assert f'{unbound}: not bound to a driver; run "nvgrace-gpu bind {unbound}"' in error
        assert "0049:01:00.0: " in error
        assert self.pci["small"] not in error

    def test_refusals(self):
        unbound, plain = self.pci["unbound"], self.pci["plain"]
        for command, words in (
                ("vfio-pci", f"{unbound}: bound to vfio-pci, which can't scrub it; stop what uses it and run"),
                ("plain", f"{plain}: no memory to scrub: a plain PCI device")):
            assert set(self.codes(command)) == {4}, command
            assert words in self.text(command, "run-err")
            assert self.lines(command, "run-out") == []

    def test_idle(self):
        assert self.codes("idle") == [0]
        assert re.search(rf"^{self.pci['small']}: clean; 64 MiB in \d+\.\d\d s, [\d.]+ GB/s$", self.text("idle", "run-out"))
        assert self.lines("idle", "run-err") == []
        assert self.lines("idle", "state") == ["small off", "small clean"]
        self.check_clean("idle", "small")

    def test_json(self):
        """Each GPU has one result, in the order of the command line."""
        assert self.codes("json") == [0, 0]
        document, listed = self.documents("json")
        assert (document["command"], document["verify"]) == ("scrub", False)
        assert ([(r["address"], r["result"], r["exit_status"], r["bytes"], r["scrub_state"], r["verified"], r["next"],
                  r["kernel_log"], r["joined"]) for r in document["results"]] ==
                [(self.pci[n], "clean", 0, SIZES[n], "clean", None, None, [], False) for n in ("both", "odd")])
        for result in document["results"]:
            assert result["seconds"] > 0
            assert result["bytes_per_second"] * result["seconds"] == pytest.approx(result["bytes"], abs=1)
        self.check_clean("json", "both", "odd")
        states = {g["address"]: (g["scrub_state"], g["scrub_progress"]) for g in listed["gpus"]}
        last = next(g["last_scrub"] for g in listed["gpus"] if g["address"] == self.pci["both"])
        assert last["count"] and last["result"] == "clean" and last["time"] and last["milliseconds"] is not None
        assert ((states[self.pci["both"]], states[self.pci["plain"]], states[self.pci["unbound"]]) ==
                (("clean", SIZES["both"]), (None, None), (None, None)))

    def test_in_use(self):
        """A GPU in use keeps its content. The other GPU is scrubbed."""
        assert self.codes("in-use") == [4, 4, 0]
        holder = "".join(self.lines("in-use", "holder"))
        assert re.search(rf"{self.pci['small']}: in use: process {holder} \(device_only\) .*; end that program",
                         self.text("in-use", "run-err"))
        assert re.search(rf"(?m)^{self.pci['odd']}: clean; ", self.text("in-use", "run-out"))
        left = dict(line.split() for line in self.lines("in-use", "left")[:2])
        assert left == {"small": str(SIZES["small"]), "odd": "0"}
        assert self.lines("in-use", "left")[2] == "small 0"
        result, = self.documents("in-use")[0]["results"]
        assert (result["result"], result["bytes"], result["seconds"], result["bytes_per_second"]) == ("refused", None, None, None)
        assert self.lines("in-use", "state") == ["small off"]

    def test_verify(self):
        assert self.codes("verify") == [0, 0]
        document, = self.documents("verify")
        assert document["verify"] is True
        for result, name in zip(document["results"], ("both", "odd"), strict=True):
            verified = result["verified"]
            assert (result["result"], verified["complete"], verified["bytes"], verified["differences"],
                    verified["places"]) == ("clean", True, SIZES[name], 0, [])
            # Because it was opened after the scrub.
            assert result["scrub_state"] == "off"
        self.check_clean("verify", "both", "odd")
        assert re.search(r"clean; 64 MiB in .*; read back all zeros: 64 MiB in \d+\.\d\d s, ", self.text("verify", "run-out"))
        assert self.lines("verify", "state") == ["small off"]

    def test_verify_finds(self):
        """The result has the word that is not 0, with its place. The next GPU
        is verified too."""
        assert self.codes("verify-differs") == [1, 1, 0]
        document, = self.documents("verify-differs")
        first, second = document["results"]
        assert (first["result"], first["exit_status"], first["verified"]["differences"]) == ("failed", 1, 1)
        assert first["verified"]["places"] == [{
            "part": "usemem", "offset": hex(PLANTED_AT), "address": hex(self.base["small"] + PLANTED_AT),
            "found": hex(PLANTED)}]
        assert (second["result"], second["verified"]["complete"]) == ("clean", True)
        place = f"usemem + {PLANTED_AT:#x}, physical address {self.base['small'] + PLANTED_AT:#x}"
        error = self.text("verify-differs", "run-err")
        assert f"not clean: words of 8 bytes that are not 0: 1, the first is {PLANTED:#018x} at {place}" in error

    def test_parameter(self):
        """While the parameter is on, the driver scrubs again when --verify
        closes the GPU."""
        assert self.codes("parameter") == [0, 0]
        on, off = (d["results"][0] for d in self.documents("parameter"))
        assert on["scrub_state"] in ("scrubbing", "clean")
        assert self.lines("parameter", "state") == ["small clean"]
        self.check_clean("parameter", "small")
        assert off["scrub_state"] == "off"

    def test_interrupted(self):
        """The kernel continues the scrub, and the program's message says so."""
        assert self.lines("interrupted", "signal") == ["TERM 130", "HUP 130"]
        words = 'interrupted; the kernel continues scrubs that have started; "nvgrace-gpu status" shows them'
        assert self.text("interrupted", "signal-err").count(words) == 2
        assert self.lines("interrupted", "state") == ["slow scrubbing", "slow clean"] * 2
        shown = re.findall(r"(?m)^  scrub +scrubbing: \d+ % overwritten with zeros", self.text("interrupted", "run-out"))
        assert len(shown) == 2
        self.check_clean("interrupted", *["slow"] * 2)

    def test_unbound_meanwhile(self):
        """Unbinding may wait for the scrub or end it. The result is "clean"
        only if the program read that state."""
        text = self.text("unbound-meanwhile", "unbound-out")
        if self.lines("unbound-meanwhile", "unbound-rc") == ["0"]:
            assert f"{self.pci['slow']}: clean; " in text
        else:
            assert self.lines("unbound-meanwhile", "unbound-rc") == ["1"]
            assert re.search("unbound before the scrub ended|not known to be clean|the scrub failed", text)

    def test_failed(self):
        """The result has the kernel's line. The other GPU is scrubbed."""
        assert self.codes("failed") == [1, 0, 1]
        clean, dead = self.documents("failed")[0]["results"]
        assert (clean["result"], dead["result"], dead["exit_status"], dead["scrub_state"]) == ("clean", "failed", 1, "failed")
        self.check_clean("failed", "small")
        line, = dead["kernel_log"]
        assert re.search(rf"^{DRIVER} {self.pci['dead']}: ", line)
        assert '/reset", and scrub it again' in dead["next"]
        error = self.text("failed", "run-err")
        assert f"{self.pci['dead']}: the scrub failed; see the kernel's log; " in error
        assert f"{self.pci['dead']}: kernel: {line}" in error
        assert re.search(r"(?m)^  scrub +failed: see the kernel's log$", self.text("failed", "run-out"))
