# SPDX-License-Identifier: GPL-2.0-only
"""The jobs that tests/check.py runs."""

import dataclasses
import pathlib
import subprocess
import sys

PROJECT = pathlib.Path(__file__).resolve().parent.parent

# Kernels, with the seconds that the program "race" takes on each.
KERNELS = {"oldstable": 20, "stable": 20, "newest": 30, "newest-64k": 10, "newest-amd64": 10}

# None of the programs may depend on those before it.
REVERSED = ("newest-64k",)

# `make check` only builds for these, or boots a few guests, because each differs
# in one thing from a kernel there.
KERNELS_LONG = ("stable-16k", "newest-16k", "stable-rt", "newest-rt", "oldstable-amd64", "stable-amd64")

# Of the program "races": its tests, by words of their names, and the rounds of
# each of three workers. A bind and an open count as 100 rounds.
RACES_LONG = {"races-resets": "races:34000:resets", "races-mappings": "races:34000:munmap:mremap:mprotect:huge",
              "races-closing": "races:34000:closing", "races-unbinding": "races:34000:unbinding",
              "races-binding": "races:100000:readiness:openers"}

# Seeds and operations: a million on one kernel, and as many as the debugging
# kernel does in an hour.
RANDOM_LONG = tuple(f"random:{seed}:250000" for seed in range(2, 6))
RANDOM_PRESSED = {"oldstable": 8, "newest": 9}
RANDOM_DEBUG = ("random:6:25000", "random:7:25000")

# Arguments of test_guest.py: hosts on which KVM maps usemem cacheable, as
# Device memory, and not at all.
GUEST_HOSTS = ("newest", "newest-16k", "newest-64k", "stable", "newest:neoverse-n1")


@dataclasses.dataclass
class Job:
    """One program. width: processors that it keeps busy. modules: kernels whose
    module it needs. kernels: others, for which it builds modules itself. after:
    jobs that must have passed before."""

    name: str
    argv: "list[str]"
    width: int = 1
    modules: tuple = ()
    kernels: tuple = ()
    after: tuple = ()


def toolbox(*words):
    return subprocess.run([PROJECT / "scripts/dev/toolbox", *words], capture_output=True, text=True,
                          check=True).stdout.strip()


def module_job(kernel):
    """Builds one kernel's module. The matrix builds all, and checks more."""
    more = "" if kernel.endswith("-amd64") else "ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-"
    if kernel == "next":
        # As in scripts/dev/matrix: its headers are for a newer compiler.
        more += " CC=aarch64-linux-gnu-gcc KCFLAGS=-Wno-attributes"
    if kernel == "kcsan":
        more += ' KCFLAGS="$(python3 tests/testkernel/kcsan.py $kdir)"'
    command = (f"kdir=$(scripts/dev/toolbox kdir {kernel}) && scripts/dev/toolbox cached -- make modules KDIR=$kdir {more}"
               " && echo '1 passed, 0 failed, 0 skipped'")
    return Job(f"module-{kernel}", ["sh", "-c", command], width=2)


PACKAGES = Job("packages", ["sh", "-c", "scripts/packaging/package deb && scripts/packaging/package rpm && scripts/packaging/repo"
                            " && echo '1 passed, 0 failed, 0 skipped'"])


def long_jobs():
    """The jobs of `make check-long`. All but PACKAGES are campaigns."""
    return [
        *(Job(f"vm-{k}", ["python3", "tests/vm/suite.py", "--timeout", "6000", k], modules=(k,)) for k in KERNELS_LONG),
        Job("vm-next", ["python3", "tests/vm/suite.py", "--timeout", "6000", "next"], modules=("next",)),
        Job("vm-debug", ["python3", "tests/vm/suite.py", "--timeout", "6000", "debug"], modules=("debug",)),
        Job("vm-debug-64k", ["python3", "tests/vm/suite.py", "--timeout", "9000", "debug-64k"], modules=("debug-64k",)),
        Job("vm-kcsan", ["python3", "tests/vm/suite.py", "--timeout", "9000", "kcsan"], modules=("kcsan",)),
        *(Job(name, ["python3", "tests/vm/suite.py", "--timeout", "14000", "debug", program], modules=("debug",))
          for name, program in RACES_LONG.items()),
        Job("cycles-long", ["python3", "tests/vm/suite.py", "--timeout", "6000", "newest", "cycles:1000"], modules=("newest",)),
        Job("scrub-long", ["python3", "tests/vm/suite.py", "--timeout", "6000", "newest", "scrub:1000"], modules=("newest",)),
        Job("random", ["python3", "tests/vm/suite.py", "--timeout", "6000", "newest", *RANDOM_LONG], modules=("newest",)),
        Job("random-debug", ["python3", "tests/vm/suite.py", "--timeout", "6000", "debug", *RANDOM_DEBUG], modules=("debug",)),
        *(Job(f"random-pressed-{k}", ["python3", "tests/vm/suite.py", "--timeout", "9000", k, f"random:--pressed:{seed}:500000"],
              modules=(k,)) for k, seed in RANDOM_PRESSED.items()),
        Job("faults", ["tests/testkernel/faults"], modules=("debug",)),
        Job("controls", ["tests/testkernel/controls"], modules=("debug",)),
        Job("controls-kcsan", ["tests/testkernel/controls", "kcsan"], modules=("kcsan",)),
        Job("vfio-selftests", ["tests/testkernel/selftests"], modules=("debug",)),
        Job("mutants", ["python3", "tests/vm/mutants.py"], width=2, modules=("oldstable", "newest", "newest-64k")),
        Job("mutants-generated", ["python3", "tests/vm/mutants_generated.py"], width=2, modules=("oldstable", "stable", "newest")),
        Job("fuzz-long", ["tests/fuzz/run", "300"]),
        Job("coverage", ["python3", "tests/coverage/coverage.py"], modules=("stable", "newest", "newest-64k"), kernels=("gcov",)),
        Job("static-all", ["sh", "-c", "exec scripts/dev/toolbox cached python3 tests/static/run.py $(scripts/dev/toolbox kernels)"]),
        PACKAGES,
        Job("package-lint", ["tests/package/lint"], after=("packages",)),
        Job("dkms-all", ["python3", "tests/package/dkms.py"], after=("packages",)),
    ]


def all_jobs(quick):
    """The jobs of `make check` or `make check-quick`, long ones first where the
    order is free."""
    kernels = {"newest": 10} if quick else KERNELS
    vms = [Job(f"vm-{k}", ["python3", "tests/vm/suite.py", "--race", str(race), *(["--reversed"] if k in REVERSED else []), k],
               modules=(k,)) for k, race in kernels.items()]
    cli = Job("cli", ["tests/cli/run"])
    short = [
        Job("fuzz", ["tests/fuzz/run", "2" if quick else "5"]),
        Job("model", ["python3", "tests/model/test_gpu.py"]),
        Job("stage2", ["python3", "tests/guest/test_stage2.py"]),
        Job("harness", ["python3", "tests/vm/test_vm.py"]),
        Job("unit", ["tests/unit/run"]),
        Job("style", ["scripts/dev/style", toolbox("checkpatch")]),
    ]
    if quick:
        return [*vms, cli, *short]
    return [
        Job("matrix", ["scripts/dev/matrix"], width=2),
        PACKAGES,
        Job("package-bind", ["python3", "tests/package/life.py", "--part", "bind"], after=("packages",)),
        *vms,
        Job("guest", ["python3", "tests/guest/test_guest.py", *GUEST_HOSTS], modules=("stable", "newest", "newest-16k", "newest-64k")),
        Job("dkms", ["python3", "tests/package/dkms.py", "Configuration", "KernelRange", "Tool", "Dkms32"], after=("packages",)),
        Job("doctor", ["python3", "tests/cli/vm_doctor.py"], modules=("stable", "newest")),
        Job("scrub", ["python3", "tests/vm/test_scrub.py", "newest"], modules=("newest",)),
        Job("firmware", ["python3", "tests/vm/test_firmware.py", "newest"], modules=("newest",)),
        cli,
        Job("tracers", ["python3", "tests/vm/tracers.py", "newest"], modules=("newest",)),
        Job("cli-vm-stable", ["python3", "tests/cli/test_vm.py", "stable"], modules=("stable",)),
        Job("cli-vm-newest", ["python3", "tests/cli/test_vm.py", "newest"], modules=("newest",)),
        Job("cli-bench-stable", ["python3", "tests/cli/vm_bench.py", "stable"], modules=("stable",)),
        # Opens the device's own file, which Debian's kernels lack.
        Job("cli-bench-newest-64k", ["python3", "tests/cli/vm_bench.py", "newest-64k"], modules=("newest-64k",)),
        Job("cli-bench-newest", ["python3", "tests/cli/vm_bench.py", "newest"], modules=("newest",)),
        Job("cli-scrub-newest", ["python3", "tests/cli/vm_scrub.py", "newest"], modules=("newest",)),
        Job("bench", ["python3", "tests/bench/bench.py", "--smoke", "newest"], modules=("newest",)),
        Job("package-rpm", ["python3", "tests/package/rpm.py"], after=("packages",)),
        Job("package-repo", ["python3", "tests/package/repo.py"], after=("packages",)),
        Job("release", ["python3", "tests/package/release.py"], after=("packages",)),
        Job("kernels", ["python3", "tests/package/kernels.py"]),
        Job("vendors", ["python3", "tests/package/vendors.py"]),
        Job("headers", ["python3", "tests/package/headers.py"]),
        Job("own-kernel", ["python3", "tests/testkernel/test_build.py"]),
        Job("guest-lines", ["python3", "tests/guest/test_lines.py"]),
        Job("udev", ["python3", "tests/package/udev.py"]),
        Job("probes", ["tests/probes/run"]),
        Job("machine", ["python3", "tests/vm/test_boot.py", "newest"]),
        Job("machine-amd64", ["python3", "tests/vm/test_boot.py", "newest-amd64"]),
        Job("demo", ["python3", "tests/demo/record.py", "--check"], modules=("newest",)),
        Job("static", ["scripts/dev/toolbox", "cached", "python3", "tests/static/run.py", "oldstable", "newest"]),
        *short,
    ]


def chosen(mode, names):
    """The jobs of a mode, or those of them with these names. Before them comes
    what builds their modules: the matrix, or a job for each kernel."""
    every = long_jobs() if mode == "long" else all_jobs(mode == "quick")
    unknown = set(names) - {j.name for j in every}
    if unknown:
        sys.exit(f"check.py: no job named {', '.join(sorted(unknown))}; there are: {', '.join(j.name for j in every)}")
    wanted = [j for j in every if j.name in names or not names]
    if names and PACKAGES in every and any("packages" in j.after for j in wanted) and PACKAGES not in wanted:
        wanted.insert(0, PACKAGES)
    if any(j.name == "matrix" for j in wanted):
        for job in wanted:
            job.after += ("matrix",) if job.modules else ()
        return wanted
    modules = {k: module_job(k) for j in wanted for k in j.modules}
    for job in wanted:
        job.after += tuple(modules[k].name for k in job.modules)
    return [*modules.values(), *wanted]


def made_here(wanted):
    """The kernels of these jobs that no package has, in the order of the
    jobs."""
    names = [k for job in wanted for k in (*job.modules, *job.kernels)]
    return [k for k in dict.fromkeys(names) if (PROJECT / "tests" / "testkernel" / f"{k}.config").exists()]
