# SPDX-License-Identifier: GPL-2.0-only
"""The judge: the scan of kernel logs, KCSAN's reports, and the verdict on what a
machine says. test_machine.py has the machine itself."""

import types

import pytest

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
    "[    3.1] nvgrace_gpu_vfio_pci: init suspiciously returned 1, it should follow 0/-E convention",
    "[    3.1] DMA-API: vfio-pci 0000:01:00.0: device driver failed to check map error",
)


@pytest.mark.parametrize("sample, pattern", zip(SPLAT_SAMPLES, verdict.SPLATS, strict=True))
def test_every_pattern_is_found(sample, pattern, monkeypatch):
    # Alone, so that no other pattern matches instead.
    monkeypatch.setattr(verdict, "SPLATS", (pattern,))
    assert vm.scan_log(["[    3.0] before", sample, "[    3.2] after"]) == [sample]


def test_what_a_configuration_allows():
    splat, other = SPLAT_SAMPLES[:2]
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


@pytest.mark.parametrize("counts, frames", [
    (False, ("wq_worker_tick+0x1c/0xc8", *ENTRY, "__pi_memset_generic+0x60/0x188", "zero_region+0x1d4/0x2f0 [nvgrace_gpu_vfio_pci]")),
    (True, ("wake+0x10/0x20", "gpu_irq+0x8/0x80 [nvgrace_gpu_vfio_pci]", *ENTRY, "idle+0x8/0x10")),
], ids=["in an interrupt of the driver", "in an interrupt by the driver"])
def test_races_in_interrupts(counts, frames):
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


def judged(*said, guest=(), **more):
    """A machine that has said this, and what is wrong with its run."""
    machine = vm.Machine(FakeKernel(), commands=[{"name": n, "run": "true"} for n in ("first", "second")],
                         guests={"g": [("a", "true"), ("b", "true")]}, **more)
    machine._started = 0.0
    for channel, lines in ((machine.channel, said), (machine.guests["g"], guest)):
        channel.connection = types.SimpleNamespace(sendall=lambda _: None)
        for line in lines:
            {"?": channel.question, ">": channel.printed, "|": channel.console_line}[line[0]](line[2:])
    return machine, verdict.judge(machine, "QEMU ended with 0")


def ran(channel):
    return [(c.name, c.rc, c.output) for c in channel.commands]


def test_a_good_run():
    machine, failures = judged(*GOOD)
    assert ran(machine.channel) == [("first", 0, ["hello"]), ("second", 0, []), ("dmesg", 0, ["[ 1.0] log"])]
    assert machine.channel.done and not failures


def test_a_commands_end_waits_for_what_it_has_printed():
    """The question may come first. A command may end within a line, or print NULs."""
    machine, _ = judged("? next", "> one", "? next 3", "> a\0b", "> two\0", "? next 0", "> three\0")
    assert ran(machine.channel) == [("first", 3, ["one", "a\0b", "two"]), ("second", 0, ["three"]), ("dmesg", None, [])]


def test_the_init_gives_up():
    _, failures = judged("? next", "| init: no memory device")
    assert failures == ["command first did not end", "command second was never started", "command dmesg was never started",
                        "the machine ended before it was told to (QEMU ended with 0); the console's last line: 'init: no memory device'"]


def test_a_splat_on_the_console_or_in_dmesg():
    printed = ["> " + SPLAT if "log" in line else line for line in GOOD]
    for said in ((f"| {SPLAT}", *GOOD), printed, (f"| {SPLAT}", *printed)):
        assert judged(*said)[1] == ["kernel log: BUG: bad"]
        assert not judged(*said, allow=["BUG: bad"])[1]


def test_a_guest_in_the_machine():
    """It is killed in its first command, in the middle of a line, and boots again."""
    machine, failures = judged(*GOOD, guest=("? next", "> half", "? ", "? next", "> \0", "? next 0", "> said", "> \0", "? next 1", f"> {SPLAT}", "> \0", "? next 0"))
    guest = machine.guests["g"]
    assert ran(guest) == [("a", None, ["half"]), ("a", 0, []), ("b", 1, ["said"]), ("dmesg", 0, [SPLAT])]
    assert len(guest.boots) == 2 and guest.done
    # Of its commands, the test that started it must judge.
    assert failures == ["kernel log of guest g: BUG: bad"]
