# SPDX-License-Identifier: GPL-2.0-only
"""The programs that "nvgrace-gpu test --full" runs, as packages install them, on
model GPUs: they agree with what the lab knows of these GPUs, and the tool reports
what they say."""

import json
import os
import re
import subprocess
import tarfile
import tempfile

import pytest

from cli import common
from lab import machine, needs, programs, session, vm

DRIVER = "nvgrace_gpu_vfio_pci"
KERNELS = ("newest", "newest-64k", "stable", "oldstable", "newest-amd64")

# The programs that take no longer than seconds, for kinds of GPUs other than the
# first.
SHORT = ("region", "sysfs", "config", "mmap", "rw", "trace", "dma", "cdev", "reset", "gate")

# Kinds of GPUs, with the programs that run on each, and words of needs.py that
# don't hold there.
KINDS = {
    "gh200": (None, ()),
    "odd": (SHORT, ()),         # ends within a page
    "second": (SHORT, ()),      # fills its BARs, as cxlsoft does
    "s95": (SHORT, ()),         # as large as a real one
    "nodefect": (SHORT, ("carve-out",)),
    "softreset": (SHORT, ()),
    "cxlsoft": (SHORT, ()),
}

# GPUs that fill their BARs, and cases that are no subject for them.
FULL = ("second", "cxlsoft")
NO_TAIL = {"rw::a_large_tail_reads_as_ones", "rw::vectors_are_read_and_written_in_a_row"}

# With 64K pages, a table maps 512 MiB. Cases that are no subject for a GPU with few.
FEW_TABLES = {
    "second": {"mmap::a_hole_in_a_mapping_leaves_the_rest_in_resmem"},
    "cxlsoft": {"mmap::a_hole_in_a_mapping_leaves_the_rest", "mmap::a_hole_in_a_mapping_leaves_the_rest_in_resmem",
                "mmap::pages_leave_huge_entries_their_place", "mmap::mremap_moves_and_shrinks_but_never_grows", "mmap::a_child_shares_the_memory"},
}

# With both parts, as small as a carve-out can be, and no tail.
TOOL_GPUS = [{"name": "gh200", "size": "1.5G"}]

LINE = re.compile(r"case (\S+) (\d+)(?: (.*))?")


def make(*arguments):
    with programs.locked("hardware"):
        subprocess.run(["make", "-s", *arguments], cwd=vm.PROJECT, check=True)


class Host:
    """A machine with what the packages of tool and tests install."""

    def __init__(self, name, tool=False, module=None):
        self.kernel = vm.Kernel(name)
        root = programs.BUILD / "hardware" / f"installed-{name}"
        make("install-tests", f"DESTDIR={root}", f"CROSS_COMPILE={self.kernel.arch.gcc.removesuffix('gcc')}")
        files = {f"/{path.relative_to(root)}": str(path) for path in root.rglob("*") if path.is_file()}
        files[f"/boot/config-{self.kernel.release}"] = str(self.kernel.headers / ".config")
        with tempfile.TemporaryDirectory() as directory:
            if tool:
                files.update(common.installed(self.kernel, directory))
            self.session = session.Interactive(
                self.kernel, gpus=TOOL_GPUS if tool else machine.gpus(self.kernel), ram=machine.ram_size(self.kernel), append=machine.APPEND, files=files,
                module=module or str(programs.module_of(self.kernel)), log=str(programs.log_file(f"hardware-{name}{'-tool' if tool else ''}")))
        self._count = 0

    def run(self, text):
        """The Command of this text."""
        self._count += 1
        return self.session.run(f"run-{self._count}", text)

    def tests(self, kind):
        """Run all cases on a GPU: ({name: None if it passed, "failed" or why it
        was skipped}, all lines)."""
        chosen = KINDS[kind][0] or ["$(cat order)"]
        # The races themselves are driver/thp.c's own.
        done = self.run(f"cd /usr/libexec/nvgrace-gpu-tests; export ROUNDS=100; bind {kind} {DRIVER};"
                        f"for program in {' '.join(chosen)}; do for case in $(./$program --list); do "
                        f"./$program $case $(gpu {kind}) >/tmp/out 2>&1; rc=$?; cat /tmp/out;"
                        f'echo "case $program::$case $rc $(tail -n 1 /tmp/out)"; done; done; unbind {kind}')
        assert not done.rc
        ends = {m[1]: {"0": None, "4": (m[3] or "").removeprefix("# ").partition(": ")[0]}.get(m[2], "failed")
                for line in done.output if (m := LINE.fullmatch(line))}
        return ends, "\n".join(done.output)

    def end(self):
        return [f for f in self.session.end().failures if not re.match(r"command \S+ failed with", f)]


@pytest.fixture(scope="module")
def host(kernel):
    made = Host(kernel)
    yield made
    assert not made.end()


def all_cases():
    """{program: its cases that don't need the lab}."""
    sources = (p for p in sorted(programs.DRIVER.iterdir()) if p.suffix == ".c" or p.is_dir() and p.name != "__pycache__")
    found = {p.stem: [case for case in programs.cases(p) if "lab" not in case.words] for p in sources}
    return {program: cases for program, cases in found.items() if cases}


def expected(host, kind, lacks=()):
    """{name: None or the word that it needs} for a GPU. lacks: more words that
    don't hold."""
    chosen, lacking = KINDS[kind]
    lacks = (*lacking, *lacks)
    ends = {}
    for program, cases in all_cases().items():
        for case in cases if not chosen or program in chosen else ():
            missing = next((w for w in case.words.split() if w in lacks or not needs.holds(host.kernel, w)), None)
            ends[f"{program}::{case.name}"] = missing and f"needs {missing}"
    unfit = NO_TAIL if kind in FULL else set()
    if host.kernel.has("CONFIG_ARM64_64K_PAGES"):
        unfit = unfit | FEW_TABLES.get(kind, set())
    ends.update({name: "not so on this GPU" for name in unfit})
    return ends


def test_every_program_with_such_cases_is_in_the_archive():
    make("-C", "tests/hardware", "archive")
    with tarfile.open(programs.BUILD / "nvgrace-gpu-tests.tar.gz") as tar:
        names = [m.name.rpartition("/")[2] for m in tar if m.isfile()]
        assert set(names) == set(all_cases()) | {"LICENSE", "order"}
        order = next(m for m in tar if m.name.endswith("/order"))
        assert sorted(tar.extractfile(order).read().decode().split()) == sorted(all_cases())


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames:
        # A stand-in can't be every kind.
        model = {g["name"] for g in machine.MODEL_GPUS}
        metafunc.parametrize("kernel,kind", [
            pytest.param(kernel, kind, marks=pytest.mark.all if in_check(kernel, kind) else pytest.mark.long)
            for kernel in metafunc.config.getoption("kernel") or KERNELS for kind in KINDS if kernel != "oldstable" or kind not in model],
            scope="module")


def in_check(kernel, kind):
    """Whether `make check-all` has such a run, rather than `make check-long`. On the
    newest kernel, the tool has one there; with 64K pages and for other GPUs, the tests
    of the driver have the same cases."""
    return (kernel, kind) == ("oldstable", "gh200")


def test_on(host, kind):
    ends, said = host.tests(kind)
    assert ends == expected(host, kind), said


# ---- the tool --------------------------------------------------------------------

def wanted_of_tool(host, lacks=()):
    """{case: "passed" or "skipped"} on TOOL_GPUS."""
    ends = {**expected(host, "gh200", lacks), **dict.fromkeys(NO_TAIL, "not so on this GPU")}
    return {name: "skipped" if reason else "passed" for name, reason in ends.items()}


def by_tool(host):
    """(JSON, log, {case: "passed", "failed" or "skipped"}) of "test --full"."""
    done = host.run(f"export ROUNDS=100; mkdir -p /var/log; bind gh200 {DRIVER}; /usr/sbin/nvgrace-gpu test --yes --full --json --ready-within=3600 $(gpu gh200) >/tmp/json;"
                    "echo; cat /tmp/json; echo LOG; cat /var/log/nvgrace-gpu-test.log; unbind gh200")
    text = "\n".join(done.output)
    document, log = text[text.index("\n{\n"):].split("\nLOG\n")
    document = json.loads(document)
    common.validate(document)
    return document, log, {f"{c['id']}::{c['text'].partition(':')[0]}": c["outcome"] for c in document["checks"]
                           if c["step"] == "driver" and c["id"] != "host"}


@pytest.mark.kernels("newest")
def test_the_tool_runs_them_all(kernel):
    host = Host(kernel, tool=True)
    names = host.run("/usr/sbin/nvgrace-gpu test --list --full").output
    document, log, ends = by_tool(host)
    assert [name for name in names if "::" in name] == list(ends), log
    assert ends == wanted_of_tool(host), log
    assert document["passed"] and document["steps"][-1] == {"name": "driver", "outcome": "passed"}, log
    assert all(f"of {len(ends)}, {name}\n" in log for name in ends)
    assert not host.end()


# ---- another driver --------------------------------------------------------------

# The cases that fail with the driver of Linux 7.3, of which BASELINE_KO is a build:
# a file below the checkout.
DIFFERENT = {f"{program}::{case}" for program, cases in {
    # It doesn't split accesses that cover a register of a fake BAR and others, and
    # keeps these registers over resets that it doesn't request itself.
    "config": (
        "every_width_agrees_with_bytewise_reads_below_0x40", "every_width_agrees_after_values_were_written",
        "the_whole_config_space_in_one_read_is_its_bytes", "reading_24_bytes_at_0x10_shows_all_three_bars",
        "every_write_that_touches_a_fake_bar_is_its_bytes", "writing_12_bytes_at_0x14_writes_bar1_and_all_of_bar2",
        "writing_across_0x28_leaves_what_is_behind_alone", "a_reset_through_sysfs_clears_the_bars",
        "a_write_that_faults_anywhere_leaves_the_fake_bars", "each_element_of_a_vector_begins_where_the_last_ended",
        "a_vector_ends_before_the_element_that_faults", "an_flr_through_config_space_clears_the_bars",
        "one_write_that_sets_bars_and_starts_an_flr_leaves_them_clear"),
    # It accepts private mappings, and a fault brings in one entry.
    "mmap": [f"{case}{part}" for part in ("", "_in_resmem")
             for case in ("a_private_mapping_is_EINVAL", "an_aligned_mapping_costs_few_faults",
                          "a_misaligned_mapping_shows_the_right_memory_in_few_faults")],
    # An access that fails in its middle has failed as a whole. One that begins in the
    # memory ends with it, but here, a BAR has no more.
    "rw": ("a_fault_in_the_middle_ends_the_access_there",),
    # Its memory can be accessed without power and decoding.
    "gate": ("while_decoding_is_off_nothing_is_in_reach", "decoding_may_be_switched_by_a_byte",
             "decoding_may_be_switched_with_what_follows", "decoding_may_be_switched_with_what_precedes",
             "in_D3hot_nothing_is_in_reach", "any_write_that_covers_the_power_state_counts"),
}.items() for case in cases}

if os.environ.get("BASELINE_KO"):
    @pytest.mark.parametrize("kernel", KERNELS[:1], scope="module")
    def test_of_another_driver(kernel):
        host = Host(kernel, tool=True, module=os.environ["BASELINE_KO"])
        document, log, ends = by_tool(host)
        assert ends == {**wanted_of_tool(host, ("this-driver",)), **dict.fromkeys(DIFFERENT, "failed")}, log
        assert not document["passed"]
        assert not host.end()
