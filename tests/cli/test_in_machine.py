# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu(8) in a virtual GH200: it binds, refuses, fails and restores.

Each test checks the output of one or more commands, which are below. The program
itself loads the module.
"""

import re

import pytest

from cli import in_machine
from cli.in_machine import DRIVER, InMachine
from lab import programs

# Four that become ready late (see "four"), one whose firmware reports that the
# link failed to train, and one that never becomes ready.
GPUS = [
    *({"name": name, "size": 0xB0000000} for name in ("a", "b", "c", "d")),
    {"name": "zero", "base": 0x8100000000, "size": 0},
    {"name": "never", "size": "3G", "ready": False},
]

# Shell functions for the commands.
LIBRARY = in_machine.LIBRARY + r"""
state() {
	driver=$(readlink $devices/$(gpu $1)/driver)
	echo "state: $1 ${driver##*/} $(cat $devices/$(gpu $1)/driver_override)"
}
# hold FILE: has it open until let_go.
hold() {
	mkfifo /tmp/fifo
	{ read -r word </tmp/fifo; } 8<"$1" &
	holder=$!
	until [ -e /proc/$holder/fd/8 ]; do
		kill -0 $holder || return
		usleep 10000
	done
	echo "holder: $holder"
}
let_go() {
	echo go >/tmp/fifo
	wait $holder
	rm /tmp/fifo
}
# looks NAME: how often the driver has read whether the GPU's memory is ready.
looks() { host counters $1 | sed 's/.*"c2c_reads": \([0-9]*\),.*/\1/'; }
# looked NAME COUNT PID: waits until that is more than COUNT. Fails if the
# process PID ends before.
looked() {
	until [ $(looks $1) -gt $2 ]; do
		kill -0 $3 || return
		usleep 100000
	done
}
# No memory is ready before the driver has read the registers of all four.
bind_four() {
	for g in a b c d; do
		host ready $g never || return
		looks $g >/tmp/looks-$g
	done
	{ run bind --json $(gpu a) $(gpu b) $(gpu c) $(gpu d); exit $rc; } &
	pid=$!
	for g in a b c d; do looked $g $(cat /tmp/looks-$g) $pid; done
	for g in a b c d; do host ready $g 0; done
	wait $pid
	rc=$?
	for g in a b c d; do state $g; done
	[ $rc = 0 ] || { $nvgrace unbind --all >/dev/null 2>&1; false; }
}
interrupt_bind() {
	before=$(looks never)
	setsid $nvgrace bind $(gpu never) >/tmp/out 2>&1 &
	pid=$!
	# A read of the model's register shows that the wait has begun.
	looked never $before $pid
	kill -TERM $pid
	wait $pid
	rc=$?
	echo "run-rc: $rc"
	sed 's/^/run-out: /' /tmp/out
	state never
	[ $rc = 130 ]
}
bind_two_at_once() {
	$nvgrace unbind $(gpu a) >/dev/null 2>&1
	host ready a never || return
	$nvgrace bind $(gpu a) >/dev/null 2>&1 &
	pid=$!
	until [ "$(cat $devices/$(gpu a)/driver_override)" = nvgrace_gpu_vfio_pci ]; do
		kill -0 $pid || break
		usleep 10000
	done
	run bind $(gpu a)
	host ready a 0
	wait $pid
	rc=$?
	echo "first: $rc"
	state a
	[ $rc = 0 ]
}
"""

COMMANDS = {
    "four": "retried late bind_four",
    "list": "run list; run list --json",
    "status": "run status $(gpu a); run status --json $(gpu a)",
    "in-use": """
        hold $(group a)
        run unbind $(gpu a)
        state a
        run list
        run list --json
        let_go
        run unbind $(gpu a)
        state a""",
    # A device's file, without its group's, is anonymous. Later kernels report
    # the device.
    "anonymous": """
        run bind $(gpu a) $(gpu b)
        open_gpu a
        grep -h syspath /proc/$holder/fdinfo/* || echo "not told"
        run list --json
        run unbind $(gpu a)
        close_gpu
        run unbind $(gpu a)""",
    "zero": "run bind $(gpu zero); state zero",
    "zero-json": "run bind --json $(gpu zero)",
    "mixed": "run bind $(gpu a) $(gpu zero); state a; state zero",
    "interrupted": """
        modprobe vfio-pci
        bind never vfio-pci
        retried late interrupt_bind
        unbind never""",
    "locked": "retried late bind_two_at_once",
    "helper-refuses": """
        mkdir -p /etc/nvgrace-gpu.conf.d
        echo "bind all" >/etc/nvgrace-gpu.conf.d/all.conf
        modprobe vfio-pci
        bind b vfio-pci
        hold $(group b)
        /usr/lib/udev/nvgrace-gpu bind $(gpu b)
        echo "run-rc: $?"
        state b
        let_go
        /usr/lib/udev/nvgrace-gpu bind $(gpu b)
        echo "run-rc: $?"
        state b
        dmesg | grep -c "nvgrace-gpu: $(gpu b): bound to nvgrace_gpu_vfio_pci (was vfio-pci)" | sed 's/^/logged: /'
        run unbind $(gpu b)""",
    "cut-short": """
        run unbind $(gpu a)
        host ready a 8000
        /usr/lib/udev/nvgrace-gpu bind $(gpu a) &
        first=$!
        # The link to the driver exists while the driver waits.
        until [ -e $devices/$(gpu a)/driver ]; do usleep 10000; done
        /usr/lib/udev/nvgrace-gpu bind $(gpu a) &
        second=$!
        # The second one sees that within this time. If not, it has less to do.
        sleep 2
        $nvgrace bind $(gpu a) >/tmp/third 2>&1 &
        third=$!
        sleep 1
        kill -KILL $first
        wait $first
        wait $second
        echo "run-rc: $?"
        wait $third
        echo "run-rc: $?"
        sed 's/^/third: /' /tmp/third
        state a
        cat $devices/$(gpu a)/nvgrace_gpu/mode | sed 's/^/mode: /'
        rm /etc/nvgrace-gpu.conf.d/all.conf""",
    "wait": """
        run unbind $(gpu a)
        run wait --timeout=0 $(gpu a)
        host ready a 3000
        $nvgrace bind $(gpu a) >/dev/null 2>&1 &
        pid=$!
        run wait $(gpu a)
        state a
        wait $pid
        echo "first: $?" """,
    "logged": """
        syslogd -n -O /tmp/messages -l 8 &
        syslogd=$!
        until [ -S /dev/log ] || [ -L /dev/log ]; do usleep 10000; done
        run unbind $(gpu a)
        run bind --dry-run $(gpu a)
        run bind $(gpu a)
        run bind $(gpu zero)
        # syslogd writes a message some time after it gets it.
        until grep -q "bind $(gpu zero)" /tmp/messages; do usleep 10000; done
        kill $syslogd
        wait $syslogd
        sed 's/^/log: /' /tmp/messages""",
    "unbind-all": "run bind $(gpu a) $(gpu b); run unbind --all; run unbind --all; for g in a b c d; do state $g; done",
    "default-driver": """
        # vfio-pci, which has this id, is the default driver.
        modprobe vfio-pci
        run bind $(gpu a)
        echo 10de 2342 >/sys/bus/pci/drivers/vfio-pci/new_id
        run unbind --no-probe $(gpu a)
        state a
        run bind $(gpu a)
        run unbind $(gpu a)
        state a
        run bind $(gpu a)
        state a
        run unbind --no-probe $(gpu a)
        echo 10de 2342 >/sys/bus/pci/drivers/vfio-pci/remove_id
        for d in /sys/bus/pci/drivers/vfio-pci/0*; do echo ${d##*/} >/sys/bus/pci/drivers/vfio-pci/unbind; done""",
    "new-id": f"""
        # As a guide to Grace hosts does it: this binds all free GPUs of this id.
        run bind $(gpu a)
        echo 10de 2342 >/sys/bus/pci/drivers/{DRIVER}/new_id
        run unbind $(gpu a)
        state a
        run unbind --json $(gpu a)
        echo 10de 2342 >/sys/bus/pci/drivers/{DRIVER}/remove_id
        run unbind --all
        for g in a b c d; do state $g; done""",
    "users": """
        # A driver that waits for its users with the device's lock.
        insmod /tests/holder.ko
        echo holder >$devices/$(gpu a)/driver_override
        echo $(gpu a) >/sys/bus/pci/drivers_probe
        cat /dev/null >/tmp/err
        $nvgrace bind $(gpu a) >/tmp/out 2>/tmp/err &
        pid=$!
        until grep -q "still waiting: the driver unbinds the device" /tmp/err; do kill -0 $pid || break; usleep 100000; done
        kill -TERM $pid
        wait $pid
        echo "run-rc: $?"
        sed "s/^/run-err: /" /tmp/err
        echo 1 >/sys/module/holder/parameters/release
        for i in $(seq 600); do [ -e $devices/$(gpu a)/driver ] || break; usleep 100000; done
        state a
        run bind $(gpu a)
        run unbind $(gpu a)
        rmmod holder""",
}


class Cli(InMachine):
    LOG, GPUS, COMMANDS, LIBRARY, HELPERS = "cli", GPUS, COMMANDS, LIBRARY, ("device_only",)

    @classmethod
    def files(cls, kernel, directory):
        return {**in_machine.udev(kernel), "/tests/holder.ko": programs.out_of_tree(kernel, programs.HERE / "modules/holder")[0]}

    def states(self, command):
        """[(name, driver, override)] of the command's states."""
        return [tuple((line + "  ").split(" ")[:3]) for line in self.lines(command, "state")]

    def test_four_in_parallel(self):
        """Four binds wait at the same time. The first loads the module."""
        assert self.codes("four") == [0]
        document, = self.documents("four")
        assert [(r["address"], r["result"]) for r in document["results"]] == [(self.pci[n], "bound") for n in "abcd"]
        assert self.states("four") == [(n, DRIVER, DRIVER) for n in "abcd"]

    def test_list(self):
        assert self.codes("list") == [0, 0]
        gpus = {g["address"]: g for g in self.documents("list")[0]["gpus"]}
        a = gpus[self.pci["a"]]
        assert ((a["state"], a["driver"], a["driver_override"], a["mode"], a["readiness"]) ==
                ("bound", DRIVER, DRIVER, "carve-out", "ready"))
        assert a["usemem"] == {"size": 0x60000000, "bar_size": 0x80000000, "base": hex(self.base["a"])}
        assert a["resmem"] == {"size": 0x50000000, "bar_size": 0x80000000,
                               "base": hex(self.base["a"] + 0x60000000)}
        assert a["holders"] == []
        row = next(line for line in self.lines("list", "run-out") if line.startswith(self.pci["a"]))
        assert re.search(r"1\.50 GiB +(off +)?no +bound$", row)

    def test_status(self):
        assert self.codes("status") == [0, 0]
        document, = self.documents("status")
        base = self.base["a"]
        assert ([(m["part"], m["start"], m["size"], m["bar"], m["mappable"]) for m in document["memory_map"]] ==
                [("usemem", hex(base), 0x60000000, 4, True),
                 ("resmem", hex(base + 0x60000000), 0x50000000, 2, True)])
        assert [b["bar"] for b in document["own_bars"]] == [0]
        assert any("nvgrace" in r["name"] for r in document["iomem"]), document["iomem"]
        assert document["features"] is not None
        drawing = self.text("status", "run-out")
        for edge in (base, base + 0x60000000, base + 0xB0000000):
            assert re.search(rf"0x{edge:x} \+-+\+", drawing)

    def test_in_use(self):
        pid = self.lines("in-use", "holder")[0]
        assert self.codes("in-use") == [4, 0, 0, 0]
        assert re.search(rf"nvgrace-gpu: {self.pci['a']}: in use: process {pid} \(.*\) has /dev/vfio/\d+; shut down that",
                         self.text("in-use", "run-err"))
        assert self.states("in-use") == [("a", DRIVER, DRIVER), ("a", "", "(null)")]
        assert re.search(rf"{self.pci['a']} .* in-use", self.text("in-use", "run-out"))
        a = next(g for g in self.documents("in-use")[0]["gpus"] if g["address"] == self.pci["a"])
        assert [str(h["pid"]) for h in a["holders"]] == [pid]

    def test_anonymous_device(self):
        pid, = self.lines("anonymous", "holder")
        assert self.codes("anonymous") == [0, 0, 4, 0]
        told = "not told" not in self.command("anonymous").output
        assert ("has anon_inode:[vfio-device]" if told else "may have it open through vfio") in self.text("anonymous", "run-err")
        holders = {g["address"]: [(str(h["pid"]), h["certain"]) for h in g["holders"]]
                   for g in self.documents("anonymous")[0]["gpus"]}
        assert holders[self.pci["a"]] == [(pid, told)]
        assert holders[self.pci["b"]] == ([] if told else [(pid, False)])

    def test_kernel_gives_the_reason(self):
        assert self.codes("zero") == [1]
        error = self.text("zero", "run-err")
        assert f"nvgrace-gpu: {self.pci['zero']}: {DRIVER} refused it; it is unbound as before" in error
        assert re.search(rf"{self.pci['zero']}: kernel: .*the C2C link failed to train", error)
        assert self.states("zero") == [("zero", "", "(null)")]
        result, = self.documents("zero-json")[0]["results"]
        assert (result["result"], result["exit_status"]) == ("failed", 1)
        assert any("failed to train" in line for line in result["kernel_log"])

    def test_one_of_two_fails(self):
        assert self.codes("mixed") == [1]
        assert self.states("mixed") == [("a", DRIVER, DRIVER), ("zero", "", "(null)")]

    def test_interrupted(self):
        assert self.codes("interrupted") == [130]
        assert "interrupted; it is bound to vfio-pci as before" in self.text("interrupted", "run-out")
        assert self.states("interrupted") == [("never", "vfio-pci", "vfio-pci")]

    def test_two_at_once(self):
        assert self.codes("locked") == [4]
        assert "another nvgrace-gpu is changing it" in self.text("locked", "run-err")
        assert self.lines("locked", "first") == ["0"]
        assert self.states("locked") == [("a", DRIVER, DRIVER)]

    def test_helper_refuses(self):
        """The udev rule's program unbinds a GPU from vfio-pci, unless a process
        has it open."""
        assert self.codes("helper-refuses") == [4, 0, 0]
        pid = self.lines("helper-refuses", "holder")[0]
        assert re.search(rf"in use: process {pid} \(.*/dev/vfio/\d+; shut down", self.output("helper-refuses"))
        assert self.states("helper-refuses") == [("b", "vfio-pci", "vfio-pci"), ("b", DRIVER, DRIVER)]
        assert self.lines("helper-refuses", "logged") == ["1"]

    def test_cut_short(self):
        """The program at boot waits for what is left of another, the command does not."""
        assert self.codes("cut-short") == [0, 0, 4]
        assert "another nvgrace-gpu is changing it" in self.text("cut-short", "third")
        assert self.states("cut-short") == [("a", DRIVER, DRIVER)]
        assert self.lines("cut-short", "mode") == ["carve-out"]

    def test_wait(self):
        assert self.codes("wait") == [0, 1, 0]
        assert f"{self.pci['a']}: bound and ready" in self.text("wait", "run-out")
        assert self.states("wait") == [("a", DRIVER, DRIVER)]
        assert self.lines("wait", "first") == ["0"]

    def test_log(self):
        """The system's log has a line for each change and each failed one, and
        none for --dry-run."""
        a, zero = self.pci["a"], self.pci["zero"]
        lines = [line for line in self.lines("logged", "log") if "nvgrace-gpu[" in line]
        assert len(lines) == 3, lines
        assert re.search(rf"daemon\.notice .*unbind {re.escape(a)} by uid 0: unbound; now without a driver", lines[0])
        assert f"bind {a} by uid 0: bound to {DRIVER}" in lines[1]
        assert re.search(rf"daemon\.err .*bind {re.escape(zero)} by uid 0: {DRIVER} refused it", lines[2])

    def test_unbind_all(self):
        assert self.codes("unbind-all") == [0, 0, 0]
        assert self.states("unbind-all") == [(n, "", "(null)") for n in "abcd"]
        assert "no GPU is bound to" in self.text("unbind-all", "run-err")

    def test_default_driver(self):
        assert self.codes("default-driver") == [0] * 6
        assert self.states("default-driver") == [("a", "", "(null)"), ("a", "vfio-pci", "(null)"), ("a", DRIVER, DRIVER)]
        assert "unbound; now bound to vfio-pci" in self.text("default-driver", "run-out")
        assert f"bound to {DRIVER} (was vfio-pci)" in self.text("default-driver", "run-out")

    def test_new_id(self):
        """No success while the GPU is bound."""
        assert self.codes("new-id") == [0, 1, 1, 0]
        error = self.text("new-id", "run-err")
        assert f"{self.pci['a']}: unbound, but {DRIVER} has bound it again" in error
        assert f'run "echo 10de 2342 > /sys/bus/pci/drivers/{DRIVER}/remove_id"' in error
        assert self.documents("new-id")[0]["results"][0]["result"] == "failed"
        assert self.states("new-id") == [("a", DRIVER, "(null)"), *((n, "", "(null)") for n in "abcd")]

    def test_users(self):
        """A bind that a driver's users hold up ends with an interruption, and says
        what remains."""
        assert self.codes("users") == [130, 0, 0]
        assert re.search(rf"{self.pci['a']}: its driver has not unbound it, and the kernel goes on "
                         rf"with that until the last user of the GPU is gone \(.*\); nothing .*; driver_override is {DRIVER}; end what",
                         self.text("users", "run-err"))
        assert self.states("users") == [("a", "", DRIVER)]


@pytest.mark.long
class Stable(Cli):
    KERNEL, __test__ = "stable", True


class Newest(Cli):
    KERNEL, __test__ = "newest", True
