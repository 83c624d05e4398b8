# SPDX-License-Identifier: GPL-2.0-only
"""Those parts of the runner that need no machine: the log scan above all, the
ACPI table, the initramfs and the verdict. test_machine.py tests the machine
itself."""

import dataclasses
import pathlib
import re
import socket
import struct
import subprocess
import tempfile
import threading
import unittest
from unittest import mock

from lab import kcsan, verdict, vm
from lab import qemu as emulator

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

    def test_known_harmless_lines_have_a_reason(self):
        for pattern, reason in verdict.KNOWN_HARMLESS:
            self.assertGreater(len(reason), 20, pattern)


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

    def test_a_report_at_the_logs_end(self):
        self.assertEqual(len(kcsan.judge(self.OURS[:-1])[0]), 1)

    @staticmethod
    def report(*frames, access="write", by="interrupt"):
        """A report of two accesses: one of the kernel in a task, and one with
        these frames."""
        return [f"[   14.1] {line}" for line in (
            "=" * 66, "BUG: KCSAN: data-race in tick / tick", "",
            "read to 0xffff000006eba090 of 4 bytes by task 9 on cpu 1:", " tick+0x10/0x20", " ret_from_fork+0x10/0x20", "",
            f"{access} to 0xffff000006eba090 of 4 bytes by {by} on cpu 0:", *(f" {f}" for f in frames), "",
            "Reported by Kernel Concurrency Sanitizer on:", "Workqueue: events zero [nvgrace_gpu_vfio_pci]", "=" * 66)]

    # What an interrupt leaves on the stack, and the driver below.
    ENTRY = ("handle_irq+0x10/0x20", "call_on_irq_stack+0x30/0x48", "el1_interrupt+0x34/0x5c", "el1h_64_irq_handler+0x14/0x1c",
             "el1h_64_irq+0x6c/0x70")
    ZERO = "zero_region+0x1d4/0x2f0 [nvgrace_gpu_vfio_pci]"

    def counts(self, *frames, **more):
        races, others = kcsan.judge(self.report(*frames, **more))
        self.assertEqual(len(races) + sum(others.values()), 1)
        return bool(races)

    def test_an_interrupt_is_not_the_drivers(self):
        self.assertFalse(self.counts("wq_worker_tick+0x1c/0xc8", *self.ENTRY, "__pi_memset_generic+0x60/0x188", self.ZERO))

    def test_a_function_of_the_driver_in_an_interrupt(self):
        self.assertTrue(self.counts("wake+0x10/0x20", "gpu_irq+0x8/0x80 [nvgrace_gpu_vfio_pci]", *self.ENTRY, "idle+0x8/0x10"))

    def test_softirqs(self):
        below = ("el1_interrupt+0x34/0x5c", "el1h_64_irq+0x6c/0x70", self.ZERO)
        self.assertFalse(self.counts("run_timer+0x8/0x10", "call_on_irq_stack+0x30/0x48", "irq_exit+0x8/0x10", *below))
        # The driver enables softirqs, which then run.
        self.assertFalse(self.counts("run_timer+0x8/0x10", "call_on_irq_stack+0x30/0x48", "local_bh_enable+0x8/0x10", self.ZERO))

    def test_preemption_after_an_interrupt(self):
        self.assertFalse(self.counts("schedule+0x8/0x10", "el1_interrupt+0x34/0x5c", "el1h_64_irq+0x6c/0x70", self.ZERO, by="task 7"))

    def test_exceptions_of_the_processor(self):
        fault = ("handle_mm_fault+0x8/0x10", "el1h_64_sync+0x6c/0x70")
        self.assertFalse(self.counts("page_add+0x8/0x10", *fault, "copy_page+0x8/0x10", self.ZERO, by="task 7"))
        self.assertTrue(self.counts("gpu_fault+0x8/0x10 [nvgrace_gpu_vfio_pci]", *fault, "copy_page+0x8/0x10", by="task 7"))
        # Each system call begins with one.
        self.assertTrue(self.counts("mutex_lock+0x8/0x10", self.ZERO, "el0_svc+0x18/0x58", "el0t_64_sync_handler+0x98/0xdc",
                                    "el0t_64_sync+0x154/0x158", by="task 7"))

    def test_a_delayed_access(self):
        late = {"access": "write (reordered)", "by": "task 7"}
        moved = " |", "+-> reordered to: set+0x10/0x20"
        self.assertTrue(self.counts(self.ZERO, "kthread+0x8/0x10", *moved, **late))
        self.assertFalse(self.counts("set+0x8/0x20", *self.ENTRY, self.ZERO, *moved, **late))
        # The function with the access is not on the stack.
        self.assertTrue(self.counts("cond_resched+0x8/0x20", *self.ENTRY, self.ZERO, **late))

    def test_how_the_driver_is_compiled(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            (path / "System.map").write_text("ffff8000801b27e0 T kcsan_skip_report\nffff8000807f5630 d kcsan_skip\n")
            self.assertIn("-DKCSAN_SKIP=0xffff8000807f5630UL", kcsan.compiler_flags(path).split())
            for symbols, drawn in ((b"\0__tsan_read8\0kcsan_draw_read8\0", True), (b"\0__tsan_read8\0", False)):
                (path / "module.ko").write_bytes(symbols)
                self.assertIs(kcsan.is_drawn(path / "module.ko"), drawn)

    def test_what_the_detector_counts(self):
        self.assertEqual(kcsan.counters(["setup_watchpoints: 6225", "data_races: 563"]),
                         {"setup_watchpoints": 6225, "data_races": 563})


class Sizes(unittest.TestCase):
    def test_values(self):
        for text, value in (("256G", 256 << 30), ("33.25G", 133 << 28), ("0x17f0000000", 0x17F0000000), ("1.5G-1", (3 << 29) - 1),
                            ("4096", 4096), ("2T", 2 << 40), ("1G + 4K", (1 << 30) + 4096), (77, 77)):
            self.assertEqual(vm.parse_size(text), value)

    def test_nonsense(self):
        for text in ("", "G", "1X", "0.3K", "12 34x", "1G 1.1.1"):
            with self.assertRaises(vm.ConfigError, msg=text):
                vm.parse_size(text)


def placed(*gpus):
    gpus = [vm.GpuConfig(**g) for g in gpus]
    vm.place_gpus(gpus, 0x8000000000)
    return gpus


class Placing(unittest.TestCase):
    def test_memory_is_dealt_out_in_whole_blocks(self):
        a, b, c = placed({"name": "a", "size": "1.5G-1"}, {"name": "b", "size": "3G", "base": "0x9000000000"},
                         {"name": "c", "size": 4096})
        self.assertEqual((a.base, b.base, c.base), (0x8000000000, 0x9000000000, 0x90C0000000))

    def test_addresses_follow_the_slots(self):
        late, early = placed({"name": "late", "slot": 9}, {"name": "early", "slot": 5})
        self.assertEqual((late.pci, late.port, late.acpi), ("0000:02:00.0", "0000:00:09.0", r"\_SB.PCI0.S48.S00"))
        self.assertEqual((early.pci, early.port), ("0000:01:00.0", "0000:00:05.0"))

    def test_many(self):
        gpus = placed(*({"name": f"g{i}"} for i in range(32)))
        self.assertEqual(len({g.pci for g in gpus}), 32)
        self.assertEqual(len({g.acpi for g in gpus}), 32)
        self.assertEqual((gpus[9].slot, gpus[9].function), (5, 1))

    def test_refusals(self):
        for gpus in ([{"name": "a"}, {"name": "a"}], [{"name": "two words"}], [{"name": "a", "slot": 3}],
                     [{"name": "a", "slot": 5}, {"name": "b", "slot": 5}], [{"name": "a", "slot": 5, "function": 1}]):
            with self.assertRaises(vm.ConfigError, msg=gpus):
                placed(*gpus)


class Architectures(unittest.TestCase):
    def test_ram_and_memory(self):
        self.assertEqual(vm.ram_range(vm.ARM64, 1 << 30), (1 << 30, 2 << 30))
        self.assertEqual(vm.ram_range(vm.AMD64, 1 << 30), (0, 1 << 30))
        self.assertEqual(vm.ram_range(vm.AMD64, 3 << 30), (4 << 30, 5 << 30))
        for ram in (1 << 30, 3 << 30):
            self.assertEqual(vm.memory_address(vm.ARM64, ram, 256 << 30), 512 << 30)
        self.assertEqual(vm.memory_address(vm.AMD64, 1 << 30, 256 << 30), 512 << 30)
        self.assertEqual(vm.memory_address(vm.AMD64, 1 << 30, 4 << 30), (1024 - 8) << 30)
        self.assertEqual(vm.memory_address(vm.AMD64, 3 << 30, 256 << 30), 256 << 30)
        self.assertEqual(vm.memory_address(vm.AMD64, 3 << 30, 4 << 30), 8 << 30)

    def test_the_last_slot(self):
        gpu = vm.GpuConfig(name="a", slot=31)
        vm.place_gpus([gpu], 0)
        with self.assertRaises(vm.ConfigError):
            vm.place_gpus([gpu], 0, vm.AMD64)


class FakeQemu(threading.Thread):
    """Memory behind the gdb protocol. The answers come in pieces, as a stream's
    may."""

    def __init__(self, memory):
        super().__init__(daemon=True)
        self.ours, self.theirs = socket.socketpair()
        self.memory, self.asked = memory, []
        self.start()

    def answer(self, packet):
        self.asked.append(packet)
        if packet == "c":
            return "T05thread:01;"
        if packet[0] == "m":
            address, count = (int(n, 16) for n in packet[1:].split(","))
            return bytes(self.memory.get(a, 0) for a in range(address, address + count)).hex()
        if packet[0] == "M":
            place, data = packet[1:].split(":")
            for i, b in enumerate(bytes.fromhex(data)):
                self.memory[int(place.split(",")[0], 16) + i] = b
            return "OK"
        return "OK" if packet[0] in "ZzD" else "E01"

    def run(self):
        received = b""
        with self.theirs:
            while more := self.theirs.recv(4096):
                received += more
                while match := re.search(rb"\$([^#]*)#..", received):
                    received = received[match.end():]
                    text = self.answer(match[1].decode()).encode()
                    for piece in (b"+$" + text[:3], text[3:] + b"#%02x" % (sum(text) & 0xFF)):
                        self.theirs.sendall(piece)


class AcpiIntegers(unittest.TestCase):
    @staticmethod
    def tables(revision):
        """Memory with an RSDP, an RSDT of two tables, a FADT and the header of
        a DSDT."""
        memory = {}

        def put(address, data):
            memory.update({address + i: b for i, b in enumerate(data)})

        dsdt = bytearray(b"DSDT" + struct.pack("<IBB", 36, revision, 0) + b"BOCHS BXPC    ".ljust(26))
        dsdt[9] = -sum(dsdt) & 0xFF
        put(0xF1230, b"RSD PTR " + bytes(8) + struct.pack("<I", 0x7000))
        put(0x7000, b"RSDT" + struct.pack("<I", 44) + bytes(28) + struct.pack("<II", 0x8000, 0x8100))
        put(0x8000, b"APIC")
        put(0x8100, b"FACP" + bytes(36) + struct.pack("<I", 0x9000))
        put(0x9000, dsdt)
        return memory

    def test_the_dsdt_gets_revision_2(self):
        for revision in (1, 2):
            qemu = FakeQemu(self.tables(revision))
            with qemu.ours:
                vm.widen_acpi_integers(vm.Debugger(qemu.ours))
            table = [qemu.memory[0x9000 + i] for i in range(36)]
            self.assertEqual(table[8], 2)
            self.assertEqual(sum(table) & 0xFF, 0, "the checksum holds")
            self.assertEqual(qemu.asked[:2], ["Z1,100000,1", "c"])
            self.assertEqual(qemu.asked[-2:], ["z1,100000,1", "D"])

    def test_no_tables(self):
        for memory in ({}, {a: b for a, b in self.tables(1).items() if not 0x8100 <= a < 0x8200}):
            qemu = FakeQemu(memory)
            with qemu.ours, self.assertRaises(OSError):
                vm.widen_acpi_integers(vm.Debugger(qemu.ours))

    def test_errors(self):
        qemu = FakeQemu({})
        with qemu.ours:
            debugger = vm.Debugger(qemu.ours)
            with self.assertRaisesRegex(OSError, "E01"):
                debugger.ask("?")
        ours, theirs = socket.socketpair()
        theirs.close()
        with ours, self.assertRaises(OSError):
            vm.Debugger(ours).ask("c")


class Table(unittest.TestCase):
    def compiled(self, *gpus):
        with tempfile.TemporaryDirectory() as directory:
            return vm.compile_asl(vm.make_asl(placed(*gpus)), directory)

    def decompiled(self, *gpus):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "t.aml")
            path.write_bytes(self.compiled(*gpus))
            subprocess.run(["iasl", "-d", str(path)], check=True, capture_output=True, stdin=subprocess.DEVNULL)
            return path.with_suffix(".dsl").read_text()

    def test_header(self):
        table = self.compiled({"name": "a", "size": "3G"})
        self.assertEqual(table[:4], b"SSDT")
        self.assertEqual(sum(table) & 0xFF, 0)
        self.assertEqual(table[8], 2, "a revision whose integers have 64 bits")

    def test_plain_values(self):
        text = self.decompiled({"name": "a", "size": "3G"}, {"name": "b", "size": 0x17F0000000})
        for want in ("nvidia,gpu-mem-base-pa", "0x0000008000000000", "0xC0000000", "0x00000080C0000000", "0x00000017F0000000",
                     r"\_SB.PCI0.S28.S00", r"\_SB.PCI0.S30.S00"):
            self.assertIn(want, text)

    def test_values_of_other_types(self):
        text = self.decompiled(
            {"name": "string", "dsd": {"base": {"string": 'a "quoted" \\word'}}},
            {"name": "buffer", "dsd": {"base": {"buffer": [1, 2, 255]}}},
            {"name": "package", "dsd": {"base": {"package": [1]}, "size": {"package": [1, 2**64 - 1]}}},
            {"name": "reference", "dsd": {"base": {"reference": r"\_SB.PCI0"}}},
            {"name": "huge", "dsd": {"base": 2**64 - 1, "size": 0}},
            {"name": "other", "size": "3G", "dsd": {"nvidia,egm-pxm": 1}})
        for want in (r"a \"quoted\" \\word", "0x01, 0x02, 0xFF", "Ones", "Zero", "nvidia,egm-pxm"):
            self.assertIn(want, text)

    def test_power(self):
        text = self.decompiled({"name": "a", "size": "3G"}, {"name": "b", "model": {"power": True}})
        # The second bus. And only the GPU with power, although it has no
        # properties.
        for want in ("OperationRegion (PWRR, SystemMemory, 0x0000004010200000, 0x0100)", "PowerResource (PWRS", "Name (_PR3"):
            self.assertEqual(text.count(want), 1, want)
        self.assertIn(r"\_SB.PCI0.S30.S00", text)

    def test_missing_properties(self):
        no_size, nothing, no_dsd = placed({"name": "a", "size": "3G", "dsd": {"size": None}}, {"name": "b"},
                                          {"name": "c", "size": "3G", "dsd": None})
        self.assertEqual(list(vm.properties_of(no_size)), [vm.BASE_PROPERTY])
        self.assertIsNone(vm.properties_of(nothing))
        self.assertIsNone(vm.properties_of(no_dsd))

    def test_refusals(self):
        for value in (-1, 1 << 64, True, {"string": "a", "buffer": []}, {"float": 1}, [1]):
            with self.assertRaises(vm.ConfigError, msg=value):
                vm.asl_value(value)

    def test_a_table_that_is_no_asl(self):
        with tempfile.TemporaryDirectory() as directory, self.assertRaises(vm.ConfigError):
            vm.compile_asl("DefinitionBlock (", directory)


class Archive(unittest.TestCase):
    def test_cpio_reads_it(self):
        cpio = vm.Cpio()
        cpio.file("/a/b/run", b"#!/bin/sh\n", 0o755)
        cpio.file("a/b/odd", b"x" * 7)
        cpio.link("/a/link", "b/run")
        with tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, "file").write_text("content")
            cpio.tree("/tree", directory)
            out = pathlib.Path(directory, "out")
            out.mkdir()
            subprocess.run(["cpio", "-id", "--quiet"], input=cpio.finish(), cwd=out, check=True)
            self.assertEqual((out / "a/link").read_text(), "#!/bin/sh\n")
            self.assertEqual((out / "a/b/run").stat().st_mode & 0o777, 0o755)
            self.assertEqual((out / "a/b/odd").read_bytes(), b"x" * 7)
            self.assertEqual((out / "tree/file").read_text(), "content")

    def test_missing_files(self):
        with self.assertRaises(vm.ConfigError):
            vm.Cpio().tree("/x", "/nonexistent/file")


class Processor(unittest.TestCase):
    def test_kvm_must_run_a_machine(self):
        runs = emulator.runs.__wrapped__
        with mock.patch.object(emulator, "PROBE_LIMIT", None):
            self.assertTrue(runs(emulator.TCG, "max"))
            self.assertFalse(runs("none", "max"))
        with tempfile.TemporaryDirectory() as directory, mock.patch.object(emulator, "PROBE_LIMIT", 0.1):
            hangs = pathlib.Path(directory, "qemu")
            hangs.write_text("#!/bin/sh\nexec sleep infinity\n")
            hangs.chmod(0o755)
            with mock.patch.object(emulator, "ARM64", dataclasses.replace(vm.ARM64, qemu=str(hangs))):
                self.assertFalse(runs("kvm", "host"))

    def test_kvm_is_for_arm64_on_arm64_outside_ci(self):
        for native, arch, works, ci, accelerator in (
                (vm.ARM64, vm.ARM64, True, "", "kvm"), (vm.ARM64, vm.ARM64, False, "", emulator.TCG),
                (vm.ARM64, vm.ARM64, True, "true", emulator.TCG), (vm.ARM64, vm.at_el2(vm.ARM64), True, "", emulator.TCG),
                (vm.ARM64, vm.AMD64, True, "", emulator.TCG), (vm.AMD64, vm.ARM64, True, "", emulator.TCG)):
            with self.subTest(native=native.name, machine=arch.machine, works=works, ci=ci), \
                    mock.patch.multiple(emulator, NATIVE=native, runs=lambda *_, works=works: works), \
                    mock.patch.dict("os.environ", CI=ci):
                self.assertEqual(emulator.processor(arch)[-1], accelerator)


class FakeKernel(vm.Kernel):
    def __init__(self):     # pylint: disable=super-init-not-called  # which reads a kernel's headers
        self.name, self.release, self.arch, self.has_model = "fake", "0.0", vm.ARM64, True


class Verdict(unittest.TestCase):
    """The verdict on what a machine says on both channels."""

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
        self.sent = [c.args[0].decode() for c in port.sendall.call_args_list]
        return result

    GOOD = "@@BOOT 1.0 0.0\n@@RUN first\nhello\n@@RC first 0\n@@RUN second\n@@RC second 0\n@@DMESG\n@@DONE"

    def test_all_well(self):
        result = self.judge(self.GOOD)
        self.assertEqual(result.failures, [])
        self.assertEqual(result.output("first"), "hello")

    def test_a_command_fails(self):
        self.assertEqual(self.judge(self.GOOD.replace("first 0", "first 3")).failures, ["command first failed with 3"])

    def test_a_command_never_ends_or_starts(self):
        result = self.judge("@@BOOT 1.0 0.0\n@@RUN first\nhello")
        self.assertEqual(result.failures[:2], ["command first did not end", "command second was never started"])

    def test_no_done(self):
        failures = self.judge(self.GOOD.replace("@@DONE", "")).failures
        self.assertEqual(len(failures), 1)
        self.assertIn("never said", failures[0])

    def test_a_last_line_without_end(self):
        result = self.judge(self.GOOD.replace("hello\n", "hello"))
        self.assertTrue(result.ok)
        self.assertEqual(result.output("first"), "hello")

    def test_the_guest_gives_up(self):
        self.assertIn("the guest gave up: no memory device", self.judge("@@FAIL no memory device\n@@DMESG\n@@DONE").failures)
        self.assertIn("the guest gave up: no port", self.judge("", ["@@FAIL no port"]).failures)

    def test_a_splat_on_the_console_or_in_dmesg(self):
        splat = "[    2.5] BUG: bad"
        self.assertEqual(self.judge(self.GOOD, [splat]).failures, ["kernel log: BUG: bad"])
        in_dmesg = self.GOOD.replace("@@DMESG\n", f"@@DMESG\n{splat}\n")
        self.assertEqual(self.judge(in_dmesg, [splat]).failures, ["kernel log: BUG: bad"])
        self.assertEqual(self.judge(in_dmesg, allow=["BUG: bad"]).failures, [])

    def test_what_commands_print_is_no_splat(self):
        self.assertTrue(self.judge(self.GOOD.replace("hello", "checks for WARNING: pass")).ok)

    def test_a_command_cannot_end_another(self):
        result = self.judge(self.GOOD.replace("hello", "@@RC second 0"))
        self.assertTrue(result.ok)
        self.assertEqual(result.output("first"), "@@RC second 0")

    def test_handlers(self):
        def double(machine, number):
            return str(2 * int(number))

        self.judge(self.GOOD.replace("hello", "@@HOST double 21\n@@HOST double x\n@@HOST nobody"), handlers={"double": double})
        self.assertEqual(self.sent[0], "ok 42\n")
        self.assertTrue(self.sent[1].startswith("error ValueError: "))
        self.assertTrue(self.sent[2].startswith("error KeyError: "))

    def test_a_question_after_half_a_line(self):
        result = self.judge(self.GOOD.replace("hello", "qemu: option -mon: @@HOST seven\nwarning: old"), handlers={"seven": lambda m: 7})
        self.assertEqual(self.sent[0], "ok 7\n")
        self.assertEqual(result.output("first"), "qemu: option -mon: \nwarning: old")

    def test_done_is_answered(self):
        self.judge(self.GOOD)
        self.assertEqual(self.sent, ["done\n"])

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

    def test_an_answer_may_be_0_or_nothing(self):
        self.judge(self.GOOD.replace("hello", "@@HOST zero\n@@HOST nothing"),
                   handlers={"zero": lambda m: 0, "nothing": lambda m: None})
        self.assertEqual(self.sent, ["ok 0\n", "ok\n", "done\n"])

    def test_guests_ask(self):
        self.judge(self.GOOD, guests={"g": "@@BOOT 1.0 0.0\n@@HOST half 42"}, handlers={"half": lambda m, n: int(n) // 2})
        self.assertEqual(self.sent, ["done\n", "ok 21\n"])


class Configuration(unittest.TestCase):
    def test_unknown_keys(self):
        with self.assertRaises(vm.ConfigError):
            vm.machine_from_config(FakeKernel(), {"gpu": []})
        with self.assertRaises(vm.ConfigError):
            vm.machine_from_config(FakeKernel(), {"gpus": [{"name": "a", "colour": 1}]})

    def test_memory(self):
        self.assertEqual(vm.machine_from_config(FakeKernel(), {"memory": {"size": "64G"}}).memory_size, 64 << 30)
        self.assertEqual(vm.machine_from_config(FakeKernel(), {"memory": 0}).memory_size, 0)
        for size in ("3G", "512G"):
            with self.assertRaises(vm.ConfigError):
                vm.machine_from_config(FakeKernel(), {"memory": size})

    def test_command_names(self):
        for commands in ([{"name": "a b", "run": ""}], [{"name": "a", "run": ""}, {"name": "a", "run": ""}]):
            with self.assertRaises(vm.ConfigError):
                vm.Machine(FakeKernel(), commands=commands)

    def test_memory_from_outside(self):
        machine = vm.Machine(FakeKernel(), memory="1G")
        with tempfile.TemporaryFile() as f:
            f.truncate(1 << 30)
            machine.memory_fd = f.fileno()
            machine.write_gpu_memory(0x8000000010, b"data")
            self.assertEqual(machine.read_gpu_memory(0x800000000E, 8), b"\0\0data\0\0")
            for address, count in ((0x7FFFFFFFFF, 1), (0x803FFFFFFF, 2)):
                with self.assertRaises(ValueError):
                    machine.read_gpu_memory(address, count)
