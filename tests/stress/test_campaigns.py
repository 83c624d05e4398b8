# SPDX-License-Identifier: GPL-2.0-only
"""Programs of driver/ with more rounds or other seeds than `make check` has time for. Each item has a machine of its own."""

import pytest

from lab import programs, session, vm

# Cases of races.c, with the rounds of each of three workers. A bind and an open
# count as 100 rounds.
RACES = [*((f"faults_and_reads_beside_{what}", 3_000) for what in (
             "resets", "munmap", "mremap", "mprotect", "decoding", "closing", "unbinding")),
         ("binding_beside_readiness_and_kills", 10_000), ("two_openers_in_turn", 10_000)]
LATE = ("a_scrub_does_not_wait_for_the_device_lock_for_ever", "a_scrub_fails_if_recovery_fails",
        "unbinding_does_not_repeat_a_scrub_that_failed_meanwhile")
GIVES_UP = ("unbinding_gives_up_a_scrub_that_gets_no_further", "unbinding_gives_up_no_scrub_that_waits_for_readiness")
RANDOM = "sequences_agree_with_the_model"

# (kernel, program, cases, settings)
CAMPAIGNS = [
    *(("debug", "races", (case,), {"ROUNDS": rounds}) for case, rounds in RACES),
    # Minutes in which the machine has nothing to do.
    *((kernel, "aer", LATE, {}) for kernel in ("kcsan", "stable-16k")),
    *((kernel, "scrub", GIVES_UP, {}) for kernel in ("newest", "stable")),
    *((kernel, "reset", ("a_gpu_that_is_gone_for_minutes_after_a_reset_comes_back",), {}) for kernel in ("newest", "stable")),
    ("newest-64k", "thp", ("huge_entries_and_pages_of_usemem_side_by_side", "huge_entries_and_pages_of_resmem_side_by_side"), {"ROUNDS": 3000}),
    # On the older one, the driver has address spaces of its own (src/shadow.c).
    *((kernel, "cycles", ("uses_leave_addresses_and_references_as_they_were",), {"USES": 1000})
      for kernel in ("newest", "oldstable")),
    ("newest", "scrub", ("nobody_sees_anything_when_all_happens_at_once",), {"ROUNDS": 1000}),
    *(("newest", "random", (RANDOM,), {"SEED": seed, "OPERATIONS": 250_000}) for seed in range(2, 6)),
    *(("debug", "random", (RANDOM,), {"SEED": seed, "OPERATIONS": 10_000}) for seed in (6, 7)),
    *((kernel, "random", (RANDOM,), {"SEED": seed, "OPERATIONS": 500_000})
      for kernel, seed in (("oldstable", 8), ("newest", 9))),
]

def named(campaign):
    kernel, program, cases, settings = campaign
    return "-".join([kernel, program, *(cases if program == "races" else ()), *(f"{k}={v}" for k, v in settings.items())])

@pytest.mark.parametrize("kernel, program, cases, settings",
                         [pytest.param(*c, id=named(c), marks=pytest.mark.needs(f"kernel {c[0]}")) for c in CAMPAIGNS])
def test_campaign(kernel, program, cases, settings):
    machine = session.Session(vm.Kernel(kernel), [programs.source_of(program)], extra=("late",))
    bad, all_of_it = [], []
    for case in cases:
        failed, said, log = machine.program(program, case, SECONDS=14_000, **settings).all()
        bad += [*failed, *machine.scan(log)]
        all_of_it += said
    bad += machine.finish()
    assert not bad, "\n".join([*bad, *all_of_it[-100:]])
