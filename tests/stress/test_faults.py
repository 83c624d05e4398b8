# SPDX-License-Identifier: GPL-2.0-only
"""Every possible failure happens, one at a time, while the driver is used: the
cases of faults.c, on the debug kernel or the one that --kernel names."""

import pathlib

import pytest

from lab import programs, session, vm

SOURCE = pathlib.Path(__file__).resolve().parent / "faults.c"

# Both parts, of which the second ends 7 MiB into a window of the driver's; and
# one part of 7 MiB, as on a GPU without the MIG defect.
GPUS = [{"name": "gh200", "size": "2G+7M"}, {"name": "small", "size": "7M", "model": {"mig_dvsec": 1}}]

# A bug in vfio: when it can't create a group, it warns about the incomplete
# one. The warning's own line identifies it. Other trouble logs a line of its
# own besides the trace.
#
# When memory for the static keys or the tracepoints of a module that is being
# loaded can't be allocated, the kernel warns, and does so again as it undoes
# what there is of them.
ALLOW = [r"WARNING: drivers/vfio/group\.c:\d+ at vfio_group_release\+",
         r"WARNING: kernel/jump_label\.c:\d+ at jump_label_(module_notify|del_module)\+",
         r"WARNING: kernel/trace/trace_events\.c:\d+ at event_(define_fields|file_put)\+",
         r"\] Call trace:$",
         # When the kernel can't allocate a page table, it retries and logs that.
         r"VM_FAULT_OOM leaked out to the #PF handler\. Retrying PF"]


@pytest.fixture(scope="module")
def machine(request):
    name = (request.config.getoption("kernel") or ["debug"])[0]
    made = session.Session(vm.Kernel(name), [SOURCE], gpus=GPUS, ram="1G", allow=ALLOW,
                           log=str(programs.log_file(f"faults-{name}")))
    yield made
    assert not made.finish()


@pytest.mark.parametrize("case", [case.name for case in programs.cases(SOURCE)])
def test_every_failure(machine, case):
    bad, said, log = machine.program("faults", case).all()
    bad += vm.scan_log(log, ALLOW)
    assert not bad, "\n".join([*bad, *said])
