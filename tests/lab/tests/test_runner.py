# SPDX-License-Identifier: GPL-2.0-only
"""The judge: the scan of kernel logs, KCSAN's reports, and the verdict on what a
machine says. test_machine.py has the machine itself."""

import unittest
from unittest import mock

from lab import kcsan, verdict, vm

# One line for every pattern of verdict.SPLATS, in the same order, as a kernel
# prints it.
SPLAT_SAMPLES = (
    "[    3.1] WARNING: CPU: 1 PID: 60 at mm/memory.c:2222 remap_pfn_range+0x1c/0x30",
    "[    3.1] BUG: unable to handle page fault for address: ffff8000",
    "[    3.1] kernel BUG at mm/memory.c:2113!",
    "[    3.1] Oops: 0000 [#1] PREEMPT SMP",
    "[    3.1] Internal error: synchronous external abort: 0000000096000210 [#1] SMP",
    "[    3.1] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010",
    "[    3.1] Call trace:",
    "[    3.1] WARNING possible circular locking dependency detected",
    "[    3.1] possible recursive locking detected",
    "[    3.1] possible irq lock inversion dependency detected",
    "[    3.1] inconsistent lock state",
    "[    3.1] suspicious RCU usage",
    "[    3.1] [ BUG: Invalid wait context ]",
    "[    3.1] held lock freed!",
    "[    3.1] lock held when returning to user space!",
    "[    3.1] BUG KASAN slab-use-after-free in nvgrace_gpu_read",
    "[    3.1] BUG KCSAN data-race in a / b",
    "[    3.1] UBSAN: shift-out-of-bounds in src/probe.c:10:2",
    "[    3.1] BUG KFENCE: out-of-bounds read in x",
    "[   66.1] kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "[  243.1] INFO: task cat:77 blocked for more than 120 seconds.",
    "[   63.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "[   63.1] rcu: rcu_preempt kthread starved for 5250 jiffies!",
    "[   63.1] watchdog: soft lockup - CPU#0 stuck for 26s!",
    "[   63.1] watchdog: Watchdog detected hard LOCKUP on cpu 1",
    "[    3.1] Kernel panic - not syncing: Fatal exception",
    "[    3.1] page: bad page state in process cat  pfn:80000",
    "[    3.1] Bad rss-counter state mm:00000000 type:MM_ANONPAGES val:1",
    "[    3.1] refcount_t: underflow; use-after-free.",
    "[    3.1] list_del corruption. prev->next should be ffff, but was 0",
    "[    3.1] scheduling while atomic: cat/77/0x00000002",
    "[    3.1] sleeping function called from invalid context at mm/memory.c:1",
    "unreferenced object 0xffff000004000000 (size 128):",
    "[   60.1] Huh VM_FAULT_OOM leaked out to the #PF handler. Retrying PF",
    "[    3.1] DMA-API: vfio-pci 0000:01:00.0: device driver failed to check map error",
)

CLEAN_LOG = """\
[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x414fd0c1]
[    0.000000] ACPI: Early table checksum verification disabled
[    0.000000] ACPI: Table Upgrade: install [SSDT-NVGRAC-  GPUMEM]
[    0.000000] Early memory node ranges
[    0.000000] rcu: Hierarchical RCU implementation.
[    0.000000] rcu: RCU calculated value of scheduler-enlistment delay is 25 jiffies.
[    0.000000] kfence: initialized - using 2097152 bytes for 255 objects at 0x(____ptrval____)-0x(____ptrval____)
[    0.000000] software IO TLB: mapped [mem 0x000000006de00000-0x0000000071e00000] (64MB)
[    0.713028] acpi PNP0A08:00: ECAM area [mem 0x4010000000-0x401fffffff] reserved by PNP0C02:00
[    0.867844] acpi PNP0C02:00: Could not reserve [mem 0x4010000000-0x401fffffff window]
[    1.835150] Checked W+X mappings: passed, no W+X pages found
[    2.136494] pcieport 0000:00:05.0: AER: enabled with IRQ 51
[    2.150766] VFIO - User Level meta-driver version: 0.3
[    2.250766] nvgrace_gpu_vfio_pci: loading out-of-tree module taints kernel.
[    2.260766] nvgrace_gpu_vfio_pci: module verification failed: signature and/or required key missing - tainting kernel
[    2.714919] pci 0000:01:00.0: enabling device (0000 -> 0002)
""".splitlines()


class Scan(unittest.TestCase):
    def test_there_is_a_sample_for_every_pattern(self):
        self.assertEqual(len(SPLAT_SAMPLES), len(verdict.SPLATS))

    def test_every_pattern_is_found(self):
        for sample, pattern in zip(SPLAT_SAMPLES, verdict.SPLATS):
            with self.subTest(pattern=pattern.pattern):
                self.assertRegex(sample, pattern)
                # Alone, so that no other pattern matches instead.
                with mock.patch.object(verdict, "SPLATS", (pattern,)):
                    self.assertEqual(vm.scan_log(CLEAN_LOG + [sample] + CLEAN_LOG), [sample])

    def test_a_clean_log_passes(self):
        self.assertEqual(vm.scan_log(CLEAN_LOG), [])

    def test_what_a_configuration_allows(self):
        splat = SPLAT_SAMPLES[0]
        self.assertEqual(vm.scan_log([splat], [r"at mm/memory\.c:2222"]), [])
        self.assertEqual(vm.scan_log([splat, SPLAT_SAMPLES[1]], [r"at mm/memory\.c:2222"]), [SPLAT_SAMPLES[1]])
        self.assertEqual(vm.scan_log([splat], [r"at mm/other\.c"]), [splat])


class Races(unittest.TestCase):
    """KCSAN's reports: on the driver, and on others."""

    RULER = "[   12.3] " + "=" * 66
    OURS = [RULER, "[   12.3][  T77] BUG: KCSAN: data-race in gpu_wait [nvgrace_gpu_vfio_pci] / wake",
            "[   12.3] write to 0xffff0000040000a0 of 4 bytes by task 77 on cpu 0:", "[   12.3]  wake+0x10/0x20",
            "[   12.3] read to 0xffff0000040000a0 of 4 bytes by task 78 on cpu 1:",
            "[   12.3]  gpu_wait+0x44/0x90 [nvgrace_gpu_vfio_pci]", "[   12.3]  vfio_read+0x20/0x30", RULER]
    CALLED = [line.replace(" [nvgrace_gpu_vfio_pci] /", " /") for line in OURS]
    OTHERS = [line.replace(" [nvgrace_gpu_vfio_pci]", "") for line in OURS]

    def test_ours_counts(self):
        races, others = kcsan.judge(["[   12.0] boot", *self.OURS, "[   13.0] more"])
        self.assertEqual([len(r) for r in races], [6])
        self.assertEqual(others, {})

    def test_what_the_driver_called_counts(self):
        self.assertEqual(len(kcsan.judge(self.CALLED)[0]), 1)

    def test_the_kernels_own_are_only_counted(self):
        races, others = kcsan.judge([*self.OTHERS, *self.OTHERS])
        self.assertEqual(races, [])
        self.assertEqual(list(others.values()), [2])

    @staticmethod
    def report(*frames):
        """A report of two accesses: one of the kernel in a task, and one with
        these frames."""
        return [f"[   14.1] {line}" for line in (
            "=" * 66, "BUG: KCSAN: data-race in tick / tick", "",
            "read to 0xffff000006eba090 of 4 bytes by task 9 on cpu 1:", " tick+0x10/0x20", " ret_from_fork+0x10/0x20", "",
            "write to 0xffff000006eba090 of 4 bytes by interrupt on cpu 0:", *(f" {f}" for f in frames), "",
            "Reported by Kernel Concurrency Sanitizer on:", "Workqueue: events zero [nvgrace_gpu_vfio_pci]", "=" * 66)]

    # What an interrupt leaves on the stack, and the driver below.
    ENTRY = ("handle_irq+0x10/0x20", "call_on_irq_stack+0x30/0x48", "el1_interrupt+0x34/0x5c", "el1h_64_irq_handler+0x14/0x1c",
             "el1h_64_irq+0x6c/0x70")
    ZERO = "zero_region+0x1d4/0x2f0 [nvgrace_gpu_vfio_pci]"

    def counts(self, *frames):
        races, others = kcsan.judge(self.report(*frames))
        self.assertEqual(len(races) + sum(others.values()), 1)
        return bool(races)

    def test_an_interrupt_is_not_the_drivers(self):
        self.assertFalse(self.counts("wq_worker_tick+0x1c/0xc8", *self.ENTRY, "__pi_memset_generic+0x60/0x188", self.ZERO))

    def test_a_function_of_the_driver_in_an_interrupt(self):
        self.assertTrue(self.counts("wake+0x10/0x20", "gpu_irq+0x8/0x80 [nvgrace_gpu_vfio_pci]", *self.ENTRY, "idle+0x8/0x10"))


class FakeKernel(vm.Kernel):
    def __init__(self):     # pylint: disable=super-init-not-called  # which reads a kernel's headers
        self.name, self.release, self.arch = "fake", "0.0", vm.ARM64


class Verdict(unittest.TestCase):
    """The verdict on what a machine says on both channels, where test_machine.py
    can't make it say so."""

    def judge(self, text, console=(), commands=("first", "second"), guests=None, **more):
        machine = self.machine = vm.Machine(FakeKernel(), commands=[{"name": n, "run": "true"} for n in commands],
                                            guests=tuple(guests or ()), **more)
        channel = machine.channel
        result = machine._result = vm.Result(machine.kernel, commands=channel.commands, failures=channel.failures,
                                             dmesg=channel.dmesg)
        machine._started = 0.0
        port = mock.Mock()
        machine.qemu = mock.Mock(returncode=0)
        for line in console:
            machine._console_line(line)
        for channel, said in [(machine.channel, text), *((machine.guests[g], t) for g, t in (guests or {}).items())]:
            channel.connected(port)
            for line in said.splitlines():
                channel.line(line)
        machine._judge(result)
        return result

    GOOD = "@@BOOT 1.0 0.0\n@@RUN first\nhello\n@@RC first 0\n@@RUN second\n@@RC second 0\n@@DMESG\n@@DONE"

    def test_the_guest_gives_up(self):
        self.assertIn("the guest gave up: no memory device", self.judge("@@FAIL no memory device\n@@DMESG\n@@DONE").failures)
        self.assertIn("the guest gave up: no port", self.judge("", ["@@FAIL no port"]).failures)

    def test_a_splat_on_the_console_or_in_dmesg(self):
        splat = "[    2.5] BUG: bad"
        self.assertEqual(self.judge(self.GOOD, [splat]).failures, ["kernel log: BUG: bad"])
        in_dmesg = self.GOOD.replace("@@DMESG\n", f"@@DMESG\n{splat}\n")
        self.assertEqual(self.judge(in_dmesg, [splat]).failures, ["kernel log: BUG: bad"])
        self.assertEqual(self.judge(in_dmesg, allow=["BUG: bad"]).failures, [])

    def test_a_command_cannot_end_another(self):
        result = self.judge(self.GOOD.replace("hello", "@@RC second 0"))
        self.assertTrue(result.ok)
        self.assertEqual(result.output("first"), "@@RC second 0")

    def test_a_guest_in_the_machine(self):
        twice = "@@BOOT 1.0 0.0\n@@RUN a\n@@BOOT 1.0 0.0\n@@RUN b\nsaid\n@@RC b 0\n@@DMESG\n[ 1.0] BUG: bad\n@@DONE"
        result = self.judge(self.GOOD, guests={"g": twice})
        guest = self.machine.guests["g"]
        self.assertEqual([(c.name, c.rc, c.output) for c in guest.commands], [("a", None, []), ("b", 0, ["said"])])
        self.assertEqual(len(guest.boots), 2)
        self.assertTrue(guest.done)
        self.assertEqual(result.failures, ["kernel log of guest g: BUG: bad"])
        # An unfinished guest alone is no failure: the test that started it
        # must judge.
        result = self.judge(self.GOOD, guests={"g": "@@BOOT 1.0 0.0\n@@FAIL no port"})
        self.assertFalse(self.machine.guests["g"].done)
        self.assertEqual(result.failures, ["guest g: the guest gave up: no port"])
