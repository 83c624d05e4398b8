#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Tests the virtual GH200 without the module under test: every kernel boots,
the GPUs are in their places and work, stock vfio-pci takes them, and the runner
notices whatever goes wrong.

    scripts/dev/toolbox run python3 tests/vm/test_boot.py [KERNEL...]

Without names, it boots all kernels of tests/kernels.conf that must work. The
runner's own tests use the last one named. Two machines run at a time."""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import vm  # noqa: E402  (needs the path above)


KERNELS = sys.argv[1:] or subprocess.run([vm.PROJECT / "scripts/dev/toolbox", "kernels"], capture_output=True, text=True,
                                         check=True).stdout.split()
POOL = concurrent.futures.ThreadPoolExecutor(2)
SIZE = 0x17F0000000

SMOKE = [
    {"name": "devices", "run": """
        for g in first second; do
            d=/sys/bus/pci/devices/$(gpu $g)
            echo "$g $(cat $d/vendor $d/device $d/class | tr '\\n' ' ')"
            echo "$g resets: $(cat $d/reset_method)"
        done"""},
    {"name": "table", "run": "for t in /sys/firmware/acpi/tables/SSDT*; do grep -c NVGRAC $t; done"},
    {"name": "ready", "run": "bar0 first 0x1498; bar0 first 0x200bc; bar0 second 0x1498; bar0 second 0x200bc"},
    {"name": "reset", "run": "echo 1 >/sys/bus/pci/devices/$(gpu first)/reset && bar0 first 0x1498"},
    {"name": "vfio-pci", "run": """
        modprobe vfio-pci
        for g in first second; do
            bind $g vfio-pci || exit 1
            group=$(readlink /sys/bus/pci/devices/$(gpu $g)/iommu_group)
            echo "group of $(ls /sys/kernel/iommu_groups/${group##*/}/devices)"
            [ -c /dev/vfio/${group##*/} ] || exit 1
        done
        unbind first && bind first vfio-pci"""},
    {"name": "memory", "run": """
        base=$(awk '$1 == "second" { print $3 }' /vm/gpus.conf)
        [ $(host peek $base 4) = 00000000 ] || exit 1
        devmem $base 32 0x11223344 && [ $(host peek $base 4) = 44332211 ] || exit 1
        host poke $base 0badcafe && [ $(devmem $base 32) = 0xFECAAD0B ] || exit 1
        host peek 0x1000 4"""},
]


def smoke(kernel):
    gpus = [{"name": "first", "size": "3G"}, {"name": "second", "size": SIZE, "ready": False}]
    with vm.Machine(kernel, gpus=gpus, commands=SMOKE, timeout=900) as machine:
        return machine.run()


class Smoke(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.results = dict(zip(KERNELS, POOL.map(smoke, KERNELS)))
        for name, result in cls.results.items():
            if result.boot_seconds is not None:
                print(f"{name} ({result.release}): first command after {result.boot_seconds:.1f} s, "
                      f"off after {result.seconds:.1f} s", file=sys.stderr)

    def each(self):
        for name, result in self.results.items():
            with self.subTest(kernel=name):
                yield result, vm.Kernel(name).has_model

    def test_verdict(self):
        """The only failure is the one that is meant: a peek at memory that
        isn't there."""
        for result, _ in self.each():
            self.assertEqual(result.failures, ["command memory failed with 1"])
            self.assertIn("ValueError: 4 bytes at 0x1000 are not in the GPU memory", result.output("memory"))

    def test_the_kernel_is_the_one_asked_for(self):
        for result, _ in self.each():
            self.assertTrue(any(f"Linux version {result.release} " in line for line in result.dmesg))

    def test_devices(self):
        for result, modelled in self.each():
            ids = "0x10de 0x2342 0x030200" if modelled else "0x1234 0x1111 0x038000"
            for name in ("first", "second"):
                self.assertIn(f"{name} {ids}", result.output("devices"))
                # Linux does no bus reset for this NVIDIA id. A bochs-display
                # has no other reset.
                self.assertIn(f"{name} resets: {'flr' if modelled else 'bus'}", result.output("devices"))

    def test_our_table_is_there(self):
        for result, _ in self.each():
            self.assertEqual(sum(map(int, result.command("table").output)), 1)

    def test_readiness(self):
        for result, _ in self.each():
            self.assertEqual(result.command("ready").output, ["0x000000FF"] * 2 + ["0x00000000"] * 2)
            self.assertEqual(result.command("reset").output, ["0x000000FF"])

    def test_each_gpu_has_a_group_of_its_own(self):
        for result, _ in self.each():
            self.assertEqual(result.command("vfio-pci").output, ["group of 0000:01:00.0", "group of 0000:02:00.0"])


def boot(commands, **more):
    with vm.Machine(KERNELS[-1], commands=commands, **{"memory": 0, **more}) as machine:
        return machine.run()


def children_of(pid):
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{pid}\n" in status.read_text():
                found.append(int(status.parent.name))
        except OSError:
            pass    # gone meanwhile
    return found


class Runner(unittest.TestCase):
    """A machine for each thing that can go wrong, two at a time."""

    @classmethod
    def setUpClass(cls):
        start = POOL.submit
        cls.bad_commands = start(boot, [
            {"name": "fails", "run": "exit 7"},
            {"name": "killed", "run": "kill -9 $$"},
            {"name": "no-end", "run": "printf unfinished"},
            {"name": "splat", "run": "echo '<4>WARNING: not a real one' >/dev/kmsg"},
            {"name": "says-so", "run": "echo BUG: in the output only"},
        ])
        cls.crash = start(boot, [{"name": "crash", "run": "sleep 1; echo c >/proc/sysrq-trigger; sleep 60"}])
        cls.hang_log = pathlib.Path(tempfile.mkdtemp(prefix="test-boot-"), "hang.log")
        cls.addClassCleanup(shutil.rmtree, cls.hang_log.parent, ignore_errors=True)
        cls.hang = start(boot, [{"name": "hang", "run": "host hurry; sleep 600"}], handlers={"hurry": cls.hurry},
                         log=str(cls.hang_log))
        cls.moved = start(cls.boot_with_memory_elsewhere)
        cls.model = start(boot, [
            {"name": "block", "run": "bar0 g 0xf00000; bar0 g 0xf00020; bar0 g 0xf00024 0x77; bar0 g 0xf00024"},
            {"name": "flr", "run": "echo flr >/sys/bus/pci/devices/$(gpu g)/reset_method; "
                                   "echo 1 >/sys/bus/pci/devices/$(gpu g)/reset; bar0 g 0xf00020; bar0 g 0xf00024"},
            {"name": "not-ready", "run": "bar0 g 0xf00014 0xffffffff; bar0 g 0xf00018; bar0 g 0x1498"},
            {"name": "ready", "run": "host ready g 0; bar0 g 0xf00018; host counters g; host ready nobody 0"},
            {"name": "dvsec", "run": "od -An -tx1 -j 256 -N 12 /sys/bus/pci/devices/$(gpu g)/config"},
        ], gpus=[{"name": "g", "model": {"mig_dvsec": 1}}])
        cls.many = start(boot, [
            {"name": "all", "run": "for i in $(seq 0 23); do bar0 g$i 0xf00000 || exit 1; done"},
            {"name": "addresses", "run": "cat /vm/gpus.conf | wc -l"},
        ], gpus=[{"name": f"g{i}", "size": "3G"} for i in range(24)], memory="256G")
        cls.ended = {s: start(cls.end_runner, s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)}

    @staticmethod
    def boot_with_memory_elsewhere():
        machine = vm.Machine(KERNELS[-1], memory="4G", gpus=[{"name": "g", "size": "3G"}], timeout=900)
        machine.memory_address -= 1 << 30
        with machine:
            return machine.run()

    @staticmethod
    def end_runner(number):
        """Start vm.py as a program and end it in mid-run. Returns its exit
        status, what it said, the number of its children, those alive, and the
        directories left."""
        config = json.dumps({"gpus": [{"name": "g", "size": "3G"}], "commands": ["sleep 600"]})
        runner = subprocess.Popen([sys.executable, str(HERE / "vm.py"), "run", "--kernel", KERNELS[-1], "--config", "-"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        runner.stdin.write(config)
        runner.stdin.close()
        said = ""
        for line in runner.stdout:
            said += line
            if line.startswith("@@RUN"):
                break
        children = children_of(runner.pid)
        sockets = [re.search(r"path=([^,\0]*)/test.sock", pathlib.Path(f"/proc/{p}/cmdline").read_text()) for p in children]
        runner.send_signal(number)
        rc = runner.wait(timeout=300)
        runner.stdout.close()
        end = time.monotonic() + 100
        alive = children
        while alive and time.monotonic() < end:
            alive = [p for p in alive if os.path.exists(f"/proc/{p}")]
            time.sleep(0.05)
        return rc, said, len(children), alive, [s.group(1) for s in sockets if os.path.exists(s.group(1))]

    @staticmethod
    def hurry(machine):
        """Leave two seconds from now, however long the boot took."""
        machine.timeout = machine.elapsed() + 2

    def test_commands_that_fail(self):
        result = self.bad_commands.result()
        want = ["command fails failed with 7", "command killed failed with 137", "kernel log: WARNING: not a real one"]
        self.assertEqual(result.failures, want)
        self.assertEqual(result.output("no-end"), "unfinished")

    def test_a_kernel_crash(self):
        result = self.crash.result()
        text = "\n".join(result.failures)
        for want in ("command crash did not end", "never said that it was done", "sysrq triggered crash", "Kernel panic"):
            self.assertIn(want, text)
        self.assertNotIn("timeout", text, "the machine ends with the panic")

    def test_a_timeout(self):
        text = "\n".join(self.hang.result().failures)
        self.assertRegex(text, r"(?m)^timeout after \d+ s, in command hang; the console's last line: .*; "
                               r"CPU 0 at [0-9a-f]+, then [0-9a-f]+; CPU 1 at [0-9a-f]+, then [0-9a-f]+$")
        # The limit that hurry() has set, and not the machine's first one.
        self.assertNotIn("timeout after 600 s", text)
        log = self.hang_log.read_text()
        for want in (r"\? thread \d+ .*, call ", r"\? CPU#0", r"\? CPU#1", r"\? .*(?:PC|RIP)="):
            self.assertGreaterEqual(len(re.findall(want, log)), 2, want)
        self.assertNotIn("no more is known", log)

    def test_memory_at_another_address(self):
        result = self.moved.result()
        place = vm.memory_address(vm.Kernel(KERNELS[-1]).arch, 1 << 30, 4 << 30)
        self.assertIn(f"the guest gave up: the memory is at {place:#018x}, the SSDT was made for {place - (1 << 30):#x}",
                      result.failures)

    def test_the_model(self):
        if not vm.Kernel(KERNELS[-1]).has_model:
            self.fail("name a kernel with virtio-iommu last: the runner's own tests need the model GPU")
        result = self.model.result()
        self.assertEqual(result.failures, ["command ready failed with 1"])
        self.assertEqual(result.command("block").output, ["0x4D47564E", "0x00000000", "0x00000077"])
        self.assertEqual(result.command("flr").output, ["0x00000001", "0x00000077"])
        self.assertEqual(result.command("not-ready").output, ["0x00000000", "0x00000000"])
        ready, counters, error = result.command("ready").output
        self.assertEqual(ready, "0x00000001")
        self.assertEqual(json.loads(counters)["flr"], 1)
        self.assertIn("no model of a GPU nobody", error)
        self.assertEqual(result.output("dvsec").split(), "23 00 01 00 de 10 00 01 03 00 01 00".split())

    def test_many_gpus(self):
        result = self.many.result()
        self.assertEqual(result.failures, [])
        self.assertEqual(result.command("all").output, ["0x4D47564E"] * 24)
        self.assertEqual(result.output("addresses"), "24")

    def test_nothing_is_left_when_the_runner_is_ended(self):
        for number, future in self.ended.items():
            with self.subTest(signal=number.name):
                rc, said, children, alive, directories = future.result()
                self.assertEqual((children, alive), (1, []), f"exit status {rc}\n{said}")
                if number == signal.SIGKILL:
                    # SIGKILL leaves them. They go with the toolbox's private
                    # /tmp.
                    for d in directories:
                        subprocess.run(["rm", "-r", d], check=True)
                else:
                    self.assertEqual((rc, directories), (128 + number, []))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
