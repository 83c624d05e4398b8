# SPDX-License-Identifier: GPL-2.0-only
"""The tests for hardware, from their archive, on model GPUs: they run as on a
host, and agree with what the lab knows of these GPUs."""

import os
import pathlib
import re
import subprocess
import tarfile
import tempfile

import pytest

from lab import machine, needs, programs, session, vm

HERE = pathlib.Path(__file__).resolve().parent
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
    "second": {"mmap::a_hole_in_a_mapping_leaves_the_rest"},
    "cxlsoft": {"mmap::a_hole_in_a_mapping_leaves_the_rest", "mmap::pages_leave_huge_entries_their_place",
                "mmap::mremap_moves_and_shrinks_but_never_grows", "mmap::a_child_shares_the_memory"},
}

LINE = re.compile(r"(not )?ok (\d+) - (\S+?)(?: # SKIP (.*))?")


def make(*arguments):
    with programs.locked("hardware"):
        subprocess.run(["make", "-s", *arguments], cwd=vm.PROJECT, check=True)


@pytest.fixture(scope="module")
def bundle():
    make("-C", "tests/hardware", "archive")
    return programs.BUILD / "nvgrace-gpu-tests.tar.gz"


class Host:
    """A machine with the unpacked archive."""

    def __init__(self, name, bundle, module=None):
        self.kernel = vm.Kernel(name)
        files = {"/tests.tar.gz": str(bundle),
                 "/tests/sleeper.ko": programs.out_of_tree(self.kernel, programs.HERE / "modules" / "sleeper")}
        # What the packages install, in a folder that no other worker writes.
        root = programs.BUILD / "hardware" / f"installed-{name}"
        make("install-tests", f"DESTDIR={root}", f"CROSS_COMPILE={self.kernel.arch.gcc.removesuffix('gcc')}")
        files.update({f"/{path.relative_to(root)}": str(path) for path in root.rglob("*") if path.is_file()})
        files[f"/boot/config-{self.kernel.release}"] = str(self.kernel.headers / ".config")
        self.session = session.Interactive(
            self.kernel, gpus=machine.gpus(self.kernel), ram=machine.ram_size(self.kernel), append=machine.APPEND, files=files,
            allow=["unknown parameter 'Oops' ignored"], module=module or str(programs.module_of(self.kernel)), log=str(programs.log_file(f"hardware-{name}{'-other' if module else ''}")))
        self._count = 0
        self.run("tar xzf /tests.tar.gz && mv nvgrace-gpu-tests-* /bundle")

    def run(self, text):
        """The Command of this text."""
        self._count += 1
        return self.session.run(f"run-{self._count}", text)

    def tests(self, kind, arguments=""):
        """Run the script on a GPU, which is bound meanwhile: (exit status,
        {name: None if it passed, "failed" or why it was skipped}, all lines)."""
        assert not self.run(f"bind {kind} {DRIVER}").rc
        # The races themselves are driver/thp.c's own.
        done = self.run(f"cd /tmp; ROUNDS=100 /bundle/nvgrace-gpu-tests --yes --output report {arguments} $(gpu {kind})")
        assert not self.run(f"unbind {kind}").rc
        ends = {}
        for line in done.output:
            if match := LINE.fullmatch(line):
                assert match[3] not in ends
                ends[match[3]] = "failed" if match[1] else match[4]
        return done.rc, ends, done.output

    def end(self):
        return [f for f in self.session.end().failures if not re.match(r"command \S+ failed with", f)]


@pytest.fixture(scope="module")
def host(kernel, bundle):
    made = Host(kernel, bundle)
    yield made
    assert not made.end()


def case_groups():
    """{program: [(words, cases)]} of the groups that don't need the lab."""
    found = {}
    for source in sorted(programs.DRIVER.iterdir()):
        if source.suffix == ".c" or source.is_dir() and source.name != "__pycache__":
            groups = [(case.words.split(), [case.name]) for case in programs.cases(source) if "lab" not in case.words]
            if groups:
                found[source.stem] = groups
    return found


def expected(host, kind, lacks=()):
    """{name: None or the word that it needs} for a GPU. lacks: more words that
    don't hold."""
    chosen, lacking = KINDS[kind]
    lacks = (*lacking, *lacks)
    ends = {}
    for program, groups in case_groups().items():
        if chosen and program not in chosen:
            continue
        for words, cases in groups:
            missing = next((w for w in words if w in lacks or not needs.holds(host.kernel, w)), None)
            ends.update({f"{program}::{case}": missing and f"needs {missing}" for case in cases})
    unfit = NO_TAIL if kind in FULL else set()
    if host.kernel.has("CONFIG_ARM64_64K_PAGES"):
        unfit = unfit | FEW_TABLES.get(kind, set())
    ends.update({name: "this GPU is no subject for it" for name in unfit})
    return ends


def test_every_program_with_such_cases_is_in_the_archive(bundle):
    with tarfile.open(bundle) as tar:
        for arch in ("aarch64", "x86_64"):
            assert {m.name.rpartition("/")[2] for m in tar if f"/{arch}/" in m.name} == set(case_groups())


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames:
        # A stand-in can't be every kind.
        model = {g["name"] for g in machine.MODEL_GPUS}
        metafunc.parametrize("kernel,kind", [
            pytest.param(kernel, kind, marks=pytest.mark.all if in_check(kernel, kind) else pytest.mark.long)
            for kernel in metafunc.config.getoption("kernel") or KERNELS for kind in KINDS if kernel != "oldstable" or kind not in model],
            scope="module")


def in_check(kernel, kind):
    """Whether `make check-all` has such a run, rather than `make check-long`."""
    return kernel == "newest" or kind == "gh200" and kernel != "newest-amd64" or (kernel, kind) == ("newest-64k", "odd")


def test_on(host, kind):
    rc, ends, lines = 0, {}, []
    for program in KINDS[kind][0] or [""]:
        this, some, said = host.tests(kind, program and f"--only {program}")
        rc, ends, lines = max(rc, this), {**ends, **some}, lines + said
    assert ends == expected(host, kind), "\n".join(lines)
    assert not rc, "\n".join(lines)


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
    "mmap": ("a_private_mapping_is_EINVAL", "an_aligned_mapping_costs_few_faults",
             "a_misaligned_mapping_shows_the_right_memory_in_few_faults"),
    # An access that fails in its middle has failed as a whole, and one that begins
    # in the memory ends with it.
    "rw": ("every_access_around_the_end_of_the_memory_is_right", "a_fault_in_the_middle_ends_the_access_there"),
    # Its memory can be accessed without power and decoding.
    "gate": ("while_decoding_is_off_nothing_is_in_reach", "in_D3hot_nothing_is_in_reach",
             "any_write_that_covers_the_power_state_counts"),
}.items() for case in cases}

if os.environ.get("BASELINE_KO"):
    @pytest.mark.parametrize("kernel", KERNELS[:1], scope="module")
    def test_of_another_driver(kernel, bundle):
        host = Host(kernel, bundle, module=os.environ["BASELINE_KO"])
        rc, said = run_script(host, "--yes $gpu", f"bind gh200 {DRIVER}", "unbind gh200")
        assert rc == 2 and "--driver tests it all the same" in said, said
        rc, ends, lines = host.tests("gh200", "--driver")
        wanted = expected(host, "gh200", ("this-driver",))
        wanted.update({name: "failed" for name in DIFFERENT})
        assert ends == wanted, "\n".join(lines)
        assert rc == 1
        assert not host.end()


# ---- what may go wrong ---------------------------------------------------------

@pytest.mark.parametrize("shell", ("dash", "bash"))
def test_who_is_not_root_sees_names_only(bundle, shell):
    """busybox's shell runs the script in the machines."""
    nobody = {"user": 65534, "group": 65534, "extra_groups": [], "capture_output": True, "text": True}
    with tempfile.TemporaryDirectory() as place, tarfile.open(bundle) as tar:
        pathlib.Path(place).chmod(0o755)
        tar.extractall(place, filter="data")
        script, = pathlib.Path(place).glob("*/nvgrace-gpu-tests")
        done = subprocess.run([shell, script, "--list", "--only", "rw"], **nobody)
        assert not done.returncode and "rw::the_start_of_the_memory_is_right" in done.stdout, done.stderr
        done = subprocess.run([shell, script, "0009:01:00.0"], **nobody)
        assert done.returncode == 2 and "only root" in done.stderr


def run_script(host, arguments, before="true", after="true"):
    """(exit status, output) of the script, between shell commands."""
    done = host.run(f"cd /tmp; gpu=$(gpu gh200); {before}; /bundle/nvgrace-gpu-tests {arguments}; rc=$?; {after}; exit $rc")
    return done.rc, "\n".join(done.output)


GROUP = "group=$(readlink /sys/bus/pci/devices/$gpu/iommu_group); group=/dev/vfio/${group##*/}"

# Arguments and commands before and after, with what the script must say, which
# then tests nothing.
REFUSED = {
    "unbound": ("--yes $gpu", "true", "true", "is bound to no driver"),
    "no-such-device": ("--yes 0042:00:00.0", "true", "true", "there is no PCI device 0042:00:00.0"),
    "no-address": ("--yes 'a b'", "true", "true", '"a b" is no PCI address'),
    "no-answer": ("$gpu </dev/null", f"bind gh200 {DRIVER}", "unbind gh200", "nothing was tested"),
    "not-yes": ("$gpu </tmp/no", f"echo y >/tmp/no; bind gh200 {DRIVER}", "unbind gh200", "nothing was tested"),
    "in-use": ("--yes $gpu", f"bind gh200 {DRIVER}; {GROUP}; exec 9<>$group", "exec 9>&-; unbind gh200", "is in use by process"),
    "read-only": ("--yes --output /proc/report $gpu", f"bind gh200 {DRIVER}", "unbind gh200", "can't write /proc/report"),
    "beside-another": ("--yes $gpu", f"bind gh200 {DRIVER}; echo 1 >/run/nvgrace-gpu-tests.$gpu",
                       "rm /run/nvgrace-gpu-tests.$gpu; unbind gh200", "process 1 is testing"),
}


@pytest.mark.kernels("newest")
@pytest.mark.parametrize("name", REFUSED)
def test_refuses(host, name):
    arguments, before, after, reason = REFUSED[name]
    rc, said = run_script(host, arguments, before, after)
    assert rc == 2 and reason in said, said
    assert "ok 1" not in said


@pytest.mark.kernels("newest")
def test_the_installed_script_finds_its_programs(host):
    done = host.run(f"cd /tmp; bind gh200 {DRIVER}; /usr/sbin/nvgrace-gpu-tests --yes --only region $(gpu gh200); unbind gh200; "
                    "cat nvgrace-gpu-tests-*.txt")
    count = sum(len(cases) for _, cases in case_groups()["region"])
    assert f"# {count} passed, 0 failed, 0 skipped" in done.output, "\n".join(done.output)


@pytest.mark.kernels("newest")
def test_after_a_killed_run_it_runs(host):
    """A lock of a process that no longer exists."""
    rc, said = run_script(host, "--yes --output report --only region $gpu", f"bind gh200 {DRIVER}; echo 99999 >/run/nvgrace-gpu-tests.$gpu",
                          "ls /run/nvgrace-gpu-tests*; unbind gh200")
    assert not rc, said
    assert "No such file" in said


# Runs the script in the foreground, so that SIGINT reaches it, and does something
# when it has begun to race.
BESIDE = (f"cd /tmp; rm -f report; gpu=$(gpu gh200); bind gh200 {DRIVER};"
          "{ until grep -qs '^ok 1' report; do usleep 100000; done; %s; } &"
          "sh -c 'echo $$ >/tmp/script; exec /bundle/nvgrace-gpu-tests --yes --output report --only races $0' $gpu;"
          'echo "ended with $?"; wait;'
          'echo "left: $(ls /run | grep nvgrace; ls /sys/kernel/tracing/instances; ps | grep [b]undle/[ax])";'
          "cat report; unbind gh200")


@pytest.mark.kernels("newest")
@pytest.mark.parametrize("signal", ("INT", "TERM"))
def test_a_signal_ends_it(host, signal):
    said = host.run(BESIDE % f"kill -{signal} $(cat /tmp/script)").output
    text = "\n".join(said)
    assert "ended with 3" in said, text
    assert said.count("Bail out! interrupted") == 2, text
    assert "left: " in said, text


@pytest.mark.kernels("newest")
def test_a_complaint_of_the_kernel_ends_it(host):
    said = host.run(BESIDE % "insmod /tests/sleeper.ko Oops=1; rmmod sleeper").output
    text = "\n".join(said)
    assert "ended with 3" in said, text
    assert said.count("Bail out! the kernel complained") == 2, text
    assert any(line.startswith("# kernel: ") and "Oops" in line for line in said), text
    assert "left: " in said, text


@pytest.mark.parametrize("kernel", ["newest-64k"], scope="module")
def test_without_type1_it_uses_iommufd(host):
    rc, said = run_script(host, "--yes --output report --only region $gpu", f"bind gh200 {DRIVER}; mv /dev/vfio/vfio /tmp/type1",
                          "mv /tmp/type1 /dev/vfio/vfio; unbind gh200")
    assert not rc, said


@pytest.mark.kernels("newest")
def test_shows_addresses_only_if_told(host):
    base = next(g["base"] for g in machine.gpus(host.kernel) if g["name"] == "gh200")
    for option in ("", "--addresses"):
        rc, said = run_script(host, f"--yes --output report --only trace {option} $gpu", f"bind gh200 {DRIVER}", "unbind gh200")
        assert not rc, said
        assert (f"{base:x}" in said) == bool(option), said
