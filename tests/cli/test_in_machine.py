# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu(8) in a virtual GH200: it binds, refuses, fails and restores.

Each test checks the output of one or more commands, which are below. The program
itself loads the module.
"""

import re

import pytest

from cli import common, in_machine
from cli.in_machine import InMachine
from lab import programs

MODULE = common.MODULE
DRIVER = "nvgrace_gpu_vfio_pci"

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
    "before": "run list; run list --json",
    "dry": "run bind --dry-run $(gpu a); state a; ls /sys/module | grep nvgrace || echo 'state: not loaded'",
    "four": "retried late bind_four",
    "again": "run bind $(gpu a)",
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
    "zero-restored": "modprobe vfio-pci; bind zero vfio-pci; run bind $(gpu zero); state zero; unbind zero",
    "mixed": "run bind $(gpu a) $(gpu zero); state a; state zero",
    "interrupted": """
        modprobe vfio-pci
        bind never vfio-pci
        retried late interrupt_bind
        unbind never""",
    "locked": "retried late bind_two_at_once",
    # The udev rule's program: it restores a GPU, and continues a bind that was
    # cut short.
    "helper-restores": """
        modprobe vfio-pci
        bind zero vfio-pci
        /usr/lib/udev/nvgrace-gpu bind $(gpu zero)
        echo "run-rc: $?"
        state zero
        # The rule writes the override before it runs the program.
        echo nvgrace_gpu_vfio_pci >$devices/$(gpu zero)/driver_override
        /usr/lib/udev/nvgrace-gpu bind $(gpu zero)
        echo "run-rc: $?"
        state zero
        unbind zero""",
    "helper-refuses": """
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
        # nvgrace-gpu does not count it as bound either.
        $nvgrace bind $(gpu a) >/tmp/third &
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
        cat $devices/$(gpu a)/nvgrace_gpu/mode | sed 's/^/mode: /'""",
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
    "no-rule": """
        mv /usr/lib/udev/rules.d/60-nvgrace-gpu.rules /tmp
        run bind --persist $(gpu b)
        state b
        ls -A /etc/nvgrace-gpu.conf.d 2>/dev/null | sed 's/^/left: /'
        mv /tmp/60-nvgrace-gpu.rules /usr/lib/udev/rules.d/""",
    "persist": """
        mkdir -p /etc /usr/sbin /usr/share/initramfs-tools/hooks
        printf '#!/bin/sh\\necho "$0 $*" >>/tmp/initramfs; exit $(cat /tmp/initramfs-status)\\n' \\
            >/usr/sbin/update-initramfs
        chmod 755 /usr/sbin/update-initramfs
        cp /usr/sbin/update-initramfs /usr/sbin/mkinitramfs
        touch /usr/share/initramfs-tools/hooks/nvgrace-gpu
        echo 0 >/tmp/initramfs-status
        run unbind $(gpu a)
        run bind --persist $(gpu a)
        run list
        ls -l /etc/nvgrace-gpu.conf.d
        cat /etc/nvgrace-gpu.conf.d/*
        run bind --persist $(gpu a)
        run bind --persist --no-initramfs $(gpu b)
        run unbind --persist --json $(gpu a) $(gpu b)
        ls -A /etc/nvgrace-gpu.conf.d | sed 's/^/left: /'
        sed 's/^/initramfs: /' /tmp/initramfs""",
    "persist-fails": """
        run bind --persist $(gpu zero)
        ls -A /etc/nvgrace-gpu.conf.d | sed 's/^/left: /'
        echo 3 >/tmp/initramfs-status
        run bind --boot-only $(gpu zero)
        echo 0 >/tmp/initramfs-status
        run unbind --boot-only $(gpu zero)
        echo "bind all" >/etc/nvgrace-gpu.conf
        run bind $(gpu a)
        run unbind --persist $(gpu a)
        echo "ignore $(gpu a)" >>/etc/nvgrace-gpu.conf
        run bind --persist $(gpu a)
        echo "bind all" >/etc/nvgrace-gpu.conf.d/$(gpu b).conf
        run unbind --persist $(gpu b)
        cat /etc/nvgrace-gpu.conf.d/$(gpu b).conf
        rm /etc/nvgrace-gpu.conf /etc/nvgrace-gpu.conf.d/*""",
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
    "no-module": f"""
        rmmod {DRIVER}
        mv /lib/modules/$(uname -r)/modules.dep.bin /tmp
        run bind $(gpu b)
        state b
        mv /tmp/modules.dep.bin /lib/modules/$(uname -r)/
        echo broken >/lib/modules/$(uname -r)/updates/dkms/{MODULE}
        run bind $(gpu b)
        state b""",
}


class Cli(InMachine):
    LOG, GPUS, COMMANDS, LIBRARY, HELPERS = "cli", GPUS, COMMANDS, LIBRARY, ("device_only",)

    @classmethod
    def files(cls, kernel, directory):
        return {**in_machine.UDEV, "/tests/holder.ko": programs.out_of_tree(kernel, programs.HERE / "modules/holder")}

    def states(self, command):
        """[(name, driver, override)] of the command's states."""
        return [tuple((line + "  ").split(" ")[:3]) for line in self.lines(command, "state")]

    def test_before(self):
        gpus = self.documents("before")[0]["gpus"]
        self.assertEqual([g["address"] for g in gpus], sorted(self.pci.values()))
        self.assertEqual({g["state"] for g in gpus}, {"unbound"})
        self.assertEqual({g["product"] for g in gpus}, {"GH200 120GB"})
        self.assertEqual(self.codes("before"), [0, 0])

    def test_dry_run(self):
        out = self.text("dry", "run-out")
        for step in ("load the module nvgrace-gpu-vfio-pci", f"{self.pci['a']}/driver_override", "drivers_probe"):
            self.assertIn(step, out)
        self.assertEqual(self.states("dry")[0], ("a", "", "(null)"))
        self.assertIn("not loaded", self.text("dry", "state"))

    def test_four_in_parallel(self):
        """Four binds wait at the same time. The first loads the module."""
        self.assertEqual(self.codes("four"), [0])
        document, = self.documents("four")
        self.assertEqual([(r["address"], r["result"]) for r in document["results"]],
                         [(self.pci[n], "bound") for n in "abcd"])
        self.assertEqual(self.states("four"), [(n, DRIVER, DRIVER) for n in "abcd"])

    def test_already_bound(self):
        self.assertEqual(self.codes("again"), [0])
        self.assertIn(f"{self.pci['a']}: already bound to {DRIVER}", self.text("again", "run-out"))

    def test_list(self):
        self.assertEqual(self.codes("list"), [0, 0])
        gpus = {g["address"]: g for g in self.documents("list")[0]["gpus"]}
        a = gpus[self.pci["a"]]
        self.assertEqual((a["state"], a["driver"], a["driver_override"], a["mode"], a["readiness"]),
                         ("bound", DRIVER, DRIVER, "carve-out", "ready"))
        self.assertEqual(a["usemem"], {"size": 0x60000000, "bar_size": 0x80000000, "base": hex(self.base["a"])})
        self.assertEqual(a["resmem"], {"size": 0x50000000, "bar_size": 0x80000000,
                                       "base": hex(self.base["a"] + 0x60000000)})
        self.assertEqual(a["holders"], [])
        row = next(line for line in self.lines("list", "run-out") if line.startswith(self.pci["a"]))
        self.assertRegex(row, r"1\.50 GiB +(off +)?no +bound$")

    def test_status(self):
        self.assertEqual(self.codes("status"), [0, 0])
        document, = self.documents("status")
        base = self.base["a"]
        self.assertEqual([(m["part"], m["start"], m["size"], m["bar"], m["mappable"]) for m in document["memory_map"]],
                         [("usemem", hex(base), 0x60000000, 4, True),
                          ("resmem", hex(base + 0x60000000), 0x50000000, 2, True)])
        self.assertEqual([b["bar"] for b in document["own_bars"]], [0])
        self.assertTrue(any("nvgrace" in r["name"] for r in document["iomem"]), document["iomem"])
        self.assertIsNotNone(document["features"])
        drawing = self.text("status", "run-out")
        for edge in (base, base + 0x60000000, base + 0xB0000000):
            self.assertRegex(drawing, rf"0x{edge:x} \+-+\+")

    def test_in_use(self):
        pid = self.lines("in-use", "holder")[0]
        self.assertEqual(self.codes("in-use"), [4, 0, 0, 0])
        self.assertRegex(self.text("in-use", "run-err"),
                         rf"nvgrace-gpu: {self.pci['a']}: in use: process {pid} \(.*\) has /dev/vfio/\d+; shut down that")
        self.assertEqual(self.states("in-use"), [("a", DRIVER, DRIVER), ("a", "", "(null)")])
        self.assertRegex(self.text("in-use", "run-out"), rf"{self.pci['a']} .* in-use")
        a = next(g for g in self.documents("in-use")[0]["gpus"] if g["address"] == self.pci["a"])
        self.assertEqual([str(h["pid"]) for h in a["holders"]], [pid])

    def test_anonymous_device(self):
        pid, = self.lines("anonymous", "holder")
        self.assertEqual(self.codes("anonymous"), [0, 0, 4, 0])
        told = "not told" not in self.command("anonymous").output
        self.assertIn("has anon_inode:[vfio-device]" if told else "may have it open through vfio",
                      self.text("anonymous", "run-err"))
        holders = {g["address"]: [(str(h["pid"]), h["certain"]) for h in g["holders"]]
                   for g in self.documents("anonymous")[0]["gpus"]}
        self.assertEqual(holders[self.pci["a"]], [(pid, told)])
        self.assertEqual(holders[self.pci["b"]], [] if told else [(pid, False)])

    def test_kernel_gives_the_reason(self):
        self.assertEqual(self.codes("zero"), [1])
        error = self.text("zero", "run-err")
        self.assertIn(f"nvgrace-gpu: {self.pci['zero']}: {DRIVER} refused it; it is unbound as before", error)
        self.assertRegex(error, rf"{self.pci['zero']}: kernel: .*the C2C link failed to train")
        self.assertEqual(self.states("zero"), [("zero", "", "(null)")])
        result, = self.documents("zero-json")[0]["results"]
        self.assertEqual((result["result"], result["exit_status"]), ("failed", 1))
        self.assertTrue(any("failed to train" in line for line in result["kernel_log"]))

    def test_driver_of_before_is_restored(self):
        self.assertEqual(self.codes("zero-restored"), [1])
        self.assertIn("it is bound to vfio-pci as before", self.text("zero-restored", "run-err"))
        self.assertEqual(self.states("zero-restored"), [("zero", "vfio-pci", "vfio-pci")])

    def test_one_of_two_fails(self):
        self.assertEqual(self.codes("mixed"), [1])
        self.assertEqual(self.states("mixed"), [("a", DRIVER, DRIVER), ("zero", "", "(null)")])

    def test_interrupted(self):
        self.assertEqual(self.codes("interrupted"), [130])
        self.assertIn("interrupted; it is bound to vfio-pci as before", self.text("interrupted", "run-out"))
        self.assertEqual(self.states("interrupted"), [("never", "vfio-pci", "vfio-pci")])

    def test_two_at_once(self):
        self.assertEqual(self.codes("locked"), [4])
        self.assertIn("another nvgrace-gpu is changing it", self.text("locked", "run-err"))
        self.assertEqual(self.lines("locked", "first"), ["0"])
        self.assertEqual(self.states("locked"), [("a", DRIVER, DRIVER)])

    def test_helper_restores(self):
        self.assertEqual(self.codes("helper-restores"), [1, 1])
        self.assertEqual(self.states("helper-restores"), [("zero", "vfio-pci", "vfio-pci")] * 2)
        self.assertIn("refused it, and it is bound to vfio-pci again", self.output("helper-restores"))

    def test_helper_refuses(self):
        """The udev rule's program unbinds a GPU from vfio-pci, unless a process
        has it open."""
        self.assertEqual(self.codes("helper-refuses"), [1, 0, 0])
        pid = self.lines("helper-refuses", "holder")[0]
        self.assertRegex(self.output("helper-refuses"), rf"still bound to vfio-pci: in use: process {pid} \(.*/dev/vfio/\d+")
        self.assertEqual(self.states("helper-refuses"), [("b", "vfio-pci", "vfio-pci"), ("b", DRIVER, DRIVER)])
        self.assertEqual(self.lines("helper-refuses", "logged"), ["1"])

    def test_cut_short(self):
        self.assertEqual(self.codes("cut-short"), [0, 0, 0])
        self.assertRegex(self.text("cut-short", "third"), "(already )?bound to ")
        self.assertEqual(self.states("cut-short"), [("a", DRIVER, DRIVER)])
        self.assertEqual(self.lines("cut-short", "mode"), ["carve-out"])

    def test_wait(self):
        self.assertEqual(self.codes("wait"), [0, 1, 0])
        self.assertIn(f"{self.pci['a']}: bound and ready", self.text("wait", "run-out"))
        self.assertEqual(self.states("wait"), [("a", DRIVER, DRIVER)])
        self.assertEqual(self.lines("wait", "first"), ["0"])

    def test_log(self):
        """The system's log has a line for each change and each failed one, and
        none for --dry-run."""
        a, zero = self.pci["a"], self.pci["zero"]
        lines = [line for line in self.lines("logged", "log") if "nvgrace-gpu[" in line]
        self.assertEqual(len(lines), 3, lines)
        self.assertRegex(lines[0], rf"daemon\.notice .*unbind {re.escape(a)} by uid 0: unbound; now without a driver")
        self.assertIn(f"bind {a} by uid 0: bound to {DRIVER}", lines[1])
        self.assertRegex(lines[2], rf"daemon\.err .*bind {re.escape(zero)} by uid 0: {DRIVER} refused it")

    def test_no_rule(self):
        """Without the udev rule, the command refuses to bind at boot."""
        self.assertEqual(self.codes("no-rule"), [4])
        self.assertIn("can't be bound at boot: the udev rule", self.text("no-rule", "run-err"))
        self.assertEqual(self.states("no-rule"), [("b", "", "(null)")])
        self.assertEqual(self.lines("no-rule", "left"), [])

    def test_persist(self):
        a, b = self.pci["a"], self.pci["b"]
        output = self.output("persist")
        self.assertEqual(self.codes("persist"), [0] * 6)
        self.assertRegex(output, rf"-rw-r--r-- .* {re.escape(a)}\.conf")
        self.assertIn(f"\nbind {a}\n", output)
        self.assertRegex(output, rf"{re.escape(a)} .* yes +bound")
        self.assertIn(f"at every boot, by /etc/nvgrace-gpu.conf.d/{a}.conf:2", self.text("persist", "run-out"))
        document, = self.documents("persist")
        self.assertEqual([(r["address"], r["result"], r["boot"]) for r in document["results"]],
                         [(a, "unbound", "removed"), (b, "unbound", "removed")])
        self.assertEqual(document["initramfs"], {"command": "/usr/sbin/update-initramfs -u -k all", "exit_status": 0})
        self.assertEqual(self.lines("persist", "left"), [])
        self.assertIn('the initramfs keeps the old configuration until you run "/usr/sbin/update-initramfs -u -k all"',
                      self.text("persist", "run-err"))
        # Not if the GPU was already persisted, and not with --no-initramfs. For
        # two GPUs, once.
        self.assertEqual(self.lines("persist", "initramfs"), ["/usr/sbin/update-initramfs -u -k all"] * 2)

    def test_persist_fails(self):
        a, b, zero = (self.pci[n] for n in ("a", "b", "zero"))
        self.assertEqual(self.codes("persist-fails"), [1, 1, 0, 0, 1, 4, 4])
        self.assertEqual(self.lines("persist-fails", "left"), [])
        error = self.text("persist-fails", "run-err")
        self.assertIn("can't update the initramfs: /usr/sbin/update-initramfs exited with 3", error)
        self.assertIn(f"{a}: unbound; now without a driver; but /etc/nvgrace-gpu.conf:1 binds it at boot; remove that "
                      f'line, or add "ignore {a}"', error)
        self.assertIn(f"{a}: /etc/nvgrace-gpu.conf:2 ignores it at boot", error)
        self.assertIn(f"{b}: /etc/nvgrace-gpu.conf.d/{b}.conf:1 was not written by", error)
        self.assertIn("bind all", self.command("persist-fails").output)
        self.assertIn(f"{zero}: left as it is now; no longer at boot", self.text("persist-fails", "run-out"))

    def test_unbind_all(self):
        self.assertEqual(self.codes("unbind-all"), [0, 0, 0])
        self.assertEqual(self.states("unbind-all"), [(n, "", "(null)") for n in "abcd"])
        self.assertIn("no GPU is bound to", self.text("unbind-all", "run-err"))

    def test_default_driver(self):
        self.assertEqual(self.codes("default-driver"), [0] * 6)
        self.assertEqual(self.states("default-driver"),
                         [("a", "", "(null)"), ("a", "vfio-pci", "(null)"), ("a", DRIVER, DRIVER)])
        self.assertIn("unbound; now bound to vfio-pci", self.text("default-driver", "run-out"))
        self.assertIn(f"bound to {DRIVER} (was vfio-pci)", self.text("default-driver", "run-out"))

    def test_new_id(self):
        """No success while the GPU is bound."""
        self.assertEqual(self.codes("new-id"), [0, 1, 1, 0])
        error = self.text("new-id", "run-err")
        self.assertIn(f"{self.pci['a']}: unbound, but {DRIVER} has bound it again", error)
        self.assertIn(f'run "echo 10de 2342 > /sys/bus/pci/drivers/{DRIVER}/remove_id"', error)
        self.assertEqual(self.documents("new-id")[0]["results"][0]["result"], "failed")
        self.assertEqual(self.states("new-id"), [("a", DRIVER, "(null)"), *((n, "", "(null)") for n in "abcd")])

    def test_users(self):
        """A bind that a driver's users hold up ends with an interruption, and says
        what remains."""
        self.assertEqual(self.codes("users"), [130, 0, 0])
        self.assertRegex(self.text("users", "run-err"), rf"{self.pci['a']}: its driver has not unbound it, and the kernel goes on "
                         rf"with that until the last user of the GPU is gone \(.*\); nothing .*; driver_override is {DRIVER}; end what")
        self.assertEqual(self.states("users"), [("a", "", DRIVER)])

    def test_no_module(self):
        self.assertEqual(self.codes("no-module"), [1, 1])
        error = self.text("no-module", "run-err")
        self.assertRegex(error, r"the kernel \S+ has no module nvgrace-gpu-vfio-pci; install nvgrace-gpu-vfio-pci-dkms")
        self.assertIn("can't load the module nvgrace-gpu-vfio-pci: ", error)
        self.assertEqual(self.states("no-module"), [("b", "", "(null)")] * 2)


@pytest.mark.long
class Stable(Cli):
    KERNEL, __test__ = "stable", True


class Newest(Cli):
    KERNEL, __test__ = "newest", True
