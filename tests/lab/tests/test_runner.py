# SPDX-License-Identifier: GPL-2.0-only
"""The judge: the scan of kernel logs, KCSAN's reports, and the verdict on what a
machine says. test_machine.py has the machine itself."""

import types

import pytest

from lab import kcsan, verdict, vm


def test_what_a_configuration_allows():
    splat = "[    3.1] WARNING: CPU: 1 PID: 60 at mm/memory.c:2222 remap_pfn_range+0x1c/0x30"
    other = "[    3.1] BUG: unable to handle page fault for address: ffff8000"
    assert vm.scan_log([splat, other], [r"at mm/memory\.c:2222"]) == [other]
    assert vm.scan_log([splat], [r"at mm/other\.c"]) == [splat]


# ---- KCSAN's reports: on the driver, and on others ------------------------------------

RULER = "[   12.3] " + "=" * 66
OURS = [RULER, "[   12.3][  T77] BUG: KCSAN: data-race in gpu_wait [nvgrace_gpu_vfio_pci] / wake",
        "[   12.3] write to 0xffff0000040000a0 of 4 bytes by task 77 on cpu 0:", "[   12.3]  wake+0x10/0x20",
        "[   12.3] read to 0xffff0000040000a0 of 4 bytes by task 78 on cpu 1:",
        "[   12.3]  gpu_wait+0x44/0x90 [nvgrace_gpu_vfio_pci]", "[   12.3]  vfio_read+0x20/0x30", RULER]
CALLED = [line.replace(" [nvgrace_gpu_vfio_pci] /", " /") for line in OURS]
OTHERS = [line.replace(" [nvgrace_gpu_vfio_pci]", "") for line in OURS]


def test_races_of_the_driver_count():
    races, others = kcsan.judge(["[   12.0] boot", *OURS, "[   13.0] more"])
    assert [len(r) for r in races] == [6] and not others
    # So does what the driver called.
    assert len(kcsan.judge(CALLED)[0]) == 1


def test_races_of_the_kernel_are_only_counted():
    races, others = kcsan.judge([*OTHERS, *OTHERS])
    assert not races and list(others.values()) == [2]


# What an interrupt leaves on the stack, and the driver below.
ENTRY = ("handle_irq+0x10/0x20", "call_on_irq_stack+0x30/0x48", "el1_interrupt+0x34/0x5c", "el1h_64_irq_handler+0x14/0x1c",
         "el1h_64_irq+0x6c/0x70")

# What the driver's fault on a user's buffer leaves there.
FAULT = ("handle_mm_fault+0x88/0x1fc", "fixup_user_fault+0xdc/0x1f4", "fault_in_safe_writeable+0x8c/0x14c")


@pytest.mark.parametrize("counts, frames", [
    (False, ("wq_worker_tick+0x1c/0xc8", *ENTRY, "__pi_memset_generic+0x60/0x188", "zero_region+0x1d4/0x2f0 [nvgrace_gpu_vfio_pci]")),
    (True, ("wake+0x10/0x20", "gpu_irq+0x8/0x80 [nvgrace_gpu_vfio_pci]", *ENTRY, "idle+0x8/0x10")),
    (False, ("percpu_counter_add_batch+0x1a0/0x260", "__handle_mm_fault+0x28e4/0x2a94", *FAULT,
             "nvgrace_gpu_rw+0x798/0xad0 [nvgrace_gpu_vfio_pci]")),
    (True, ("gpu_fault+0x44/0x90 [nvgrace_gpu_vfio_pci]", "__handle_mm_fault+0x28e4/0x2a94", *FAULT, "copy+0x10/0x20")),
], ids=["in an interrupt of the driver", "in an interrupt by the driver", "in a fault of the driver", "in a fault by the driver"])
def test_races_in_interrupts_and_faults(counts, frames):
    """A report of two accesses: one of the kernel in a task, and one with these
    frames."""
    races, others = kcsan.judge([f"[   14.1] {line}" for line in (
        "=" * 66, "BUG: KCSAN: data-race in tick / tick", "",
        "read to 0xffff000006eba090 of 4 bytes by task 9 on cpu 1:", " tick+0x10/0x20", " ret_from_fork+0x10/0x20", "",
        "write to 0xffff000006eba090 of 4 bytes by interrupt on cpu 0:", *(f" {f}" for f in frames), "",
        "Reported by Kernel Concurrency Sanitizer on:", "Workqueue: events zero [nvgrace_gpu_vfio_pci]", "=" * 66)])
    assert (len(races), sum(others.values())) == (counts, not counts)


# ---- what an init says, where test_machine.py can't make it say so -----------------------

class FakeKernel(vm.Kernel):
    def __init__(self):     # pylint: disable=super-init-not-called  # which reads a kernel's headers
        self.name, self.release, self.arch = "fake", "0.0", vm.ARM64


SPLAT = "[    2.5] BUG: bad"
# Each line comes at one of the ports: the questions (?), what is printed (>), and the
# console (|).
GOOD = ("? next", "> hello", "> \0", "? next 0", "> \0", "? next 0", "> [ 1.0] log", "> \0", "? next 0")


def judged(*said, **more):
    """What is wrong with the run of a machine that has said this."""
    machine = vm.Machine(FakeKernel(), commands=[{"name": n, "run": "true"} for n in ("first", "second")], **more)
    channel = machine.channel
    channel.connection = types.SimpleNamespace(sendall=lambda _: None)
    for line in said:
        {"?": channel.question, ">": channel.printed, "|": channel.console_line}[line[0]](line[2:])
    return verdict.judge(machine, "QEMU ended with 0")


def test_the_init_gives_up():
    assert judged("? next", "| init: no memory device") == [
        "command first did not end", "command second was never started", "command dmesg was never started",
        "the machine ended before it was told to (QEMU ended with 0); the console's last line: 'init: no memory device'"]


def test_a_splat_on_the_console_or_in_dmesg():
    printed = ["> " + SPLAT if "log" in line else line for line in GOOD]
    for said in ((f"| {SPLAT}", *GOOD), printed, (f"| {SPLAT}", *printed)):
        assert judged(*said) == ["kernel log: BUG: bad"]
        assert not judged(*said, allow=["BUG: bad"])
