# SPDX-License-Identifier: GPL-2.0-only
"""The programs that "nvgrace-gpu test" runs, as packages install them, on model GPUs:
they agree with what the lab knows of these GPUs, and the tool reports what they
say."""

import json
import os
import re
import subprocess
import tempfile
import typing

import pytest

from cli import common
from lab import machine, needs, programs, session, vm

DRIVER = "nvgrace_gpu_vfio_pci"
KERNELS = ("newest", "newest-64k", "stable", "oldstable")

# The programs that take no longer than seconds, for kinds of GPUs other than the
# first, whatever they have of memory.
SHORT = ("region", "sysfs", "config", "mmap", "rw", "trace", "dma", "cdev", "reset", "gate")

# Cases that are no subject for a GPU that fills its BARs.
NO_TAIL = {"rw::a_large_tail_reads_as_ones", "rw::vectors_are_read_and_written_in_a_row"}


class Kind(typing.NamedTuple):
    """The programs that run on a GPU, all without; words of needs.py that don't hold
    there; cases that are no subject for it."""

    programs: tuple = ()
    lacks: tuple = ()
    unfit: set = frozenset()


KINDS = {
    "gh200": Kind(),
    "odd": Kind((*SHORT, "memory")),    # ends within a page
    "s95": Kind(SHORT),         # as large as a real one
    "nodefect": Kind(SHORT, ("carve-out",)),
}

# With both parts, as small as a carve-out can be, and no tail.
TOOL_GPUS = [{"name": "gh200", "size": "1.5G"}]
TOOL = Kind(unfit=NO_TAIL)


class Host:
    """A machine with what the packages of tool and tests install."""

    def __init__(self, name, tool=False, module=None):
        self.kernel = vm.Kernel(name)
        root = programs.BUILD / "hardware" / f"installed-{name}"
        with programs.locked("hardware"):
            subprocess.run(["scripts/dev/toolbox", "cached", "--", "make", "-s", "install-tests", f"DESTDIR={root}",
                            f"CROSS_COMPILE={self.kernel.arch.gcc.removesuffix('gcc')}"], cwd=vm.PROJECT, check=True)
        files = {f"/{path.relative_to(root)}": str(path) for path in root.rglob("*") if path.is_file()}
        files.update(self.kernel.config_file)
        with tempfile.TemporaryDirectory() as directory:
            if tool:
                files.update(common.installed(self.kernel, directory))
            self.session = session.Interactive(
                self.kernel, gpus=TOOL_GPUS if tool else machine.gpus(self.kernel), ram=machine.ram_size(self.kernel),
                files=files, module=module or str(programs.module_of(self.kernel)), log=str(programs.log_file(f"hardware-{name}{'-tool' if tool else ''}")))
        self._count = 0

    def run(self, text):
        """What these commands print. The races themselves are driver/thp.c's own."""
        self._count += 1
        done = self.session.run(f"run-{self._count}", f"cd /usr/libexec/nvgrace-gpu-tests; export ROUNDS=100; {text}")
        assert not done.rc, done.output
        return "\n".join(done.output)

    def programs(self, name, kind):
        """Runs the programs on a GPU: ({case: None if it passed, "failed" or why it
        was skipped}, all lines)."""
        said = self.run(f"bind {name} {DRIVER}; for program in {' '.join(all_cases(kind))}; do"
                        " for case in $(./$program --list | awk -F'\t' '$3 !~ /lab/ { print $2 }'); do echo case $program::$case;"
                        f" ./$program $case $(gpu {name}) 2>&1 || echo failed; done; done; unbind {name}")
        blocks = re.split(r"^case (\S+)\n", said, flags=re.M)[1:]
        return {case: "failed" if "\nfailed" in text else reason(re.search("^# (.*)", text, re.M)[1]) if "# SKIP" in text else None
                for case, text in zip(blocks[::2], blocks[1::2], strict=True)}, said

    def tool(self):
        """The same of "test --full", as (JSON, these, the log)."""
        said = self.run(f"mkdir -p /var/log; bind gh200 {DRIVER}; /usr/sbin/nvgrace-gpu test --yes --full --json $(gpu gh200) >/tmp/json;"
                        "echo; cat /tmp/json; echo LOG; cat /var/log/nvgrace-gpu-test.log; unbind gh200")
        document, log = said[said.index("\n{\n"):].split("\nLOG\n")
        document = json.loads(document)
        common.validate(document)
        ends = {}
        for check in document["checks"]:
            if "::" in check["id"]:
                ends[check["id"]] = {"passed": None, "skipped": reason(check["text"])}.get(check["outcome"], check["outcome"])
        return document, ends, log

    def end(self):
        return [f for f in self.session.end().failures if not re.match(r"command \S+ failed with", f)]


def reason(text):
    """Why a case was skipped, without the condition of one that is no subject."""
    return text.partition(": ")[0]


def all_cases(kind=TOOL):
    """{program: its cases that don't need the lab}."""
    found = {p.stem: [case for case in programs.cases(p) if "lab" not in case.words] for p in programs.all_of_driver()}
    return {program: cases for program, cases in found.items() if cases and program in (kind.programs or found)}


def expected(kernel, kind, lacks=()):
    """What Host has of these cases. lacks: more words that don't hold."""
    ends = {}
    for program, cases in all_cases(kind).items():
        for case in cases:
            missing = next((w for w in case.words.split() if w in (*kind.lacks, *lacks) or not needs.holds(kernel, w)), None)
            ends[f"{program}::{case.name}"] = missing and f"needs {missing}"
    return {**ends, **dict.fromkeys(kind.unfit, "not so on this GPU")}


@pytest.fixture(scope="module")
def host(kernel):
    made = Host(kernel)
    yield made
    assert not made.end()


@pytest.mark.check
def test_every_program_with_such_cases_is_installed(tmp_path):
    subprocess.run(["make", "-s", "-C", "tests/hardware", f"OUT={tmp_path}", tmp_path / "order"], cwd=vm.PROJECT, check=True)
    assert set((tmp_path / "order").read_text().split()) == set(all_cases())


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kernel,kind", [(kernel, kind) for kernel in metafunc.config.getoption("kernel") or KERNELS for kind in KINDS],
                             scope="module")


# In check-all, the tool runs them on the newest kernel, and the driver's tests have the
# same cases on the others.
@pytest.mark.long
def test_on(host, kind):
    ends, said = host.programs(kind, KINDS[kind])
    assert ends == expected(host.kernel, KINDS[kind]), said


@pytest.mark.kernels("newest")
def test_the_tool_runs_them_all(kernel):
    host = Host(kernel, tool=True)
    listed = host.run("/usr/sbin/nvgrace-gpu test --list --full").splitlines()
    names = [name.strip() for name in listed if "::" in name]
    # Each step but the first has a case, so none has another name.
    assert [a for a, b in zip(listed, listed[1:]) if "::" not in a + b] == ["look"]
    document, ends, log = host.tool()
    assert names == list(ends), log
    assert ends == expected(host.kernel, TOOL), log
    assert document["passed"] and document["steps"][-1] == {"name": "driver", "outcome": "passed"}, log
    assert all(f": case {name}\n" in log for name in ends)
    assert not host.end()


# The cases that fail with the driver of Linux 7.3, of which BASELINE_KO is a build:
# a file below the checkout.
DIFFERENT = {f"{program}::{case}" for program, cases in {
    # It doesn't split accesses that cover a register of a fake BAR and others, and
    # keeps these registers over resets that it doesn't request itself.
    "config": (
        "every_width_agrees_with_bytewise_reads_below_0x40", "the_whole_config_space_in_one_read_is_its_bytes",
        "every_write_that_touches_a_fake_bar_is_its_bytes", "a_reset_through_sysfs_clears_the_bars",
        "a_write_that_faults_anywhere_leaves_the_fake_bars", "each_element_of_a_vector_begins_where_the_last_ended",
        "an_flr_through_config_space_clears_the_bars",
        "one_write_that_sets_bars_and_starts_an_flr_leaves_them_clear"),
    # It accepts private mappings, and a fault brings in one entry.
    "mmap": [f"{case}{part}" for part in ("", "_in_resmem")
             for case in ("a_private_mapping_is_EINVAL", "an_aligned_mapping_costs_few_faults",
                          "a_misaligned_mapping_shows_the_right_memory_in_few_faults")],
    # An access that fails in its middle has failed as a whole. One that begins in the
    # memory ends with it, but here, a BAR has no more.
    "rw": ("a_fault_in_the_middle_ends_the_access_there", "a_fault_in_the_middle_ends_the_access_there_in_resmem"),
    # Its memory can be accessed without power and decoding.
    "gate": ("while_decoding_is_off_nothing_is_in_reach", "decoding_may_be_switched_by_a_byte",
             "decoding_may_be_switched_with_what_follows", "decoding_may_be_switched_with_what_precedes",
             "in_D3hot_nothing_is_in_reach", "any_write_that_covers_the_power_state_counts"),
}.items() for case in cases}

if os.environ.get("BASELINE_KO"):
    @pytest.mark.parametrize("kernel", KERNELS[:1], scope="module")
    def test_of_another_driver(kernel):
        host = Host(kernel, tool=True, module=os.environ["BASELINE_KO"])
        document, ends, log = host.tool()
        assert ends == {**expected(host.kernel, TOOL, ("this-driver",)), **dict.fromkeys(DIFFERENT, "failed")}, log
        assert not document["passed"]
        assert not host.end()
