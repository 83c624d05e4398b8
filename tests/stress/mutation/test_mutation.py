# SPDX-License-Identifier: GPL-2.0-only
"""Shows that the tests would find mistakes in the driver: each item plants one in
a copy of the sources, where a test must fail. The patches of patches/ are
mistakes that slips.py can't make; each names the tests that must find it. slips.py
makes the mutants, and a random choice takes one function after the other. A mutant
that no test finds needs a line in the file "survivors".

    scripts/dev/toolbox root analysis
    scripts/dev/toolbox run -- pytest -n 2 tests/stress/mutation -k "gate-epoch or mutant[7]"

What found a mistake is in build/junit.xml."""

import collections
import contextlib
import functools
import hashlib
import itertools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import pytest

from lab import packages, programs, vm

pytestmark = [pytest.mark.measure, pytest.mark.needs("root analysis")]

HERE = pathlib.Path(__file__).resolve().parent
PATCHES = sorted(p.stem for p in (HERE / "patches").iterdir())
COUNT, SEED = 200, 2342

# The programs that could see a mistake in a file, likely and quick ones first,
# on newest or on another kernel. trace.c only instantiates the tracepoints.
PROGRAMS = {
    "src/arith.c": "unit discovery firmware config random",
    "src/cfgemu.c": "config reset oddities random privilege",
    "src/device.c": "region mmap config sysfs reset trace poison power gate dmabuf discovery plain scrub cycles random privilege"
                    " races",
    "src/dmabuf.c": "dmabuf random",
    # Linux 6.12 does not log that error recovery failed.
    "src/gate.c": "mmap reset gate power aer wait trace dmabuf ready config scrub oddities random cycles races stable/aer",
    "src/poison.c": "poison",
    "src/probe.c": "discovery firmware plain sysfs region reset ready scrub failures oddities cycles random privilege races",
    "src/ready.c": "ready wait power aer discovery scrub failures oddities random cycles races",
    # What the newest kernel itself checks.
    "src/region.c": "region mmap poison trace config reset gate wait thp oddities failures random cycles privilege races"
                    " oldstable/mmap",
    "src/reset.c": "reset aer gate wait trace scrub oddities random stable/aer",
    "src/rw.c": "rw trace power gate scrub own_mapping oddities failures random cycles privilege races",
    "src/scrub.c": "scrub failures sysfs trace poison aer oddities",
    "src/shadow.c": "oldstable/mmap oldstable/reset oldstable/gate oldstable/cycles oldstable/random oldstable/races",
    "src/sysfs.c": "sysfs discovery scrub privilege",
    "src/window.c": "rw power gate scrub cycles failures random",
}
# Tests that are no programs of driver/.
FOLDERS = {"unit": "tests/unit/test_arith.c", "firmware": "tests/firmware"}
# For which kernel a file is parsed and compiled, if not newest.
BUILT = {"src/shadow.c": "oldstable"}
# The lowest numbers that show something.
SETTINGS = ("random.OPERATIONS=10000", "scrub.ROUNDS=5", "own_mapping.RACE_S=20")


def by_kernel(wanted):
    """{kernel: names of programs}, a machine each."""
    found = {}
    for word in wanted:
        kernel, _, name = word.rpartition("/")
        found.setdefault(kernel or "newest", []).append(name)
    return found


class Copy:
    """A copy of the sources for one mistake after the other. Only what a
    mistake changes is built again."""

    def __init__(self, directory):
        self.tree = pathlib.Path(directory)
        for name in ("Makefile", "Kbuild", "dkms.conf", "pytest.ini", "cli", "src", "include", "scripts", "tests"):
            (shutil.copytree if (vm.PROJECT / name).is_dir() else shutil.copy2)(vm.PROJECT / name, self.tree / name)

    @contextlib.contextmanager
    def changed(self, file, text):
        """A context in which a file has this text."""
        path = self.tree / file
        good = path.read_bytes()
        try:
            path.write_text(text, "latin-1")
            yield
        finally:
            path.write_bytes(good)

    def failed(self, wanted, settings=()):
        """The first test that fails on each kernel, or ""."""
        for kernel, names in by_kernel(wanted).items():
            paths = [FOLDERS.get(n) or programs.source_of(n).relative_to(vm.PROJECT) for n in names]
            command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "--kernel", kernel,
                       *(w for s in (*SETTINGS, *settings) for w in ("--set", s)), *paths]
            # A mistake may make a machine hang.
            done = subprocess.run(command, cwd=self.tree, capture_output=True, text=True, env={**os.environ, "SILENCE": "300"})
            found = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", done.stdout, re.M)
            assert found or not done.returncode, done.stdout + done.stderr
            yield found[1] if found else ""


class Compiler:
    """Compiles single files of a copy as kbuild does, with all warnings."""

    def __init__(self, copy):
        self.copy, self.kernels = copy, {name: vm.Kernel(name) for name in ("newest", *BUILT.values())}
        for kernel in self.kernels.values():
            subprocess.run(["make", "-s", "modules", f"KDIR={kernel.headers}", *kernel.arch.make, "W=1"], cwd=copy.tree, check=True,
                           capture_output=True)

    def command(self, file):
        """kbuild's command for a file, without debugging information, which
        depends on positions in it; and the directory where it runs."""
        kernel = self.kernels[BUILT.get(file, "newest")]
        build = self.copy.tree / "build" / kernel.release
        record = (build / file).with_name(f".{pathlib.Path(file).stem}.o.cmd").read_text()
        words = shlex.split(record.splitlines()[0].partition(":=")[2].partition(" ; ")[0])
        # Older kernels run the compiler in their headers.
        directory = kernel.headers if os.path.isabs(words[words.index("-o") + 1]) else build
        return [w for w in words if not w.startswith("-Wp,-M")] + ["-g0"], directory

    def compiled(self, file):
        """The object code, or b"" if the compiler says anything."""
        command, directory = self.command(file)
        with tempfile.NamedTemporaryFile(dir=self.copy.tree) as out:
            command[command.index("-o") + 1] = out.name
            done = subprocess.run(command, cwd=directory, capture_output=True)
            return b"" if done.stderr or done.returncode else pathlib.Path(out.name).read_bytes()

    good = functools.lru_cache(None)(compiled)

    def is_mistake(self, mutant):
        """Whether it compiles without a warning, and to other code."""
        good = self.good(mutant.file)
        assert good, f"{mutant.file} does not compile without a warning"
        built = f"build/{self.kernels[BUILT.get(mutant.file, 'newest')].release}/{mutant.file}"
        with self.copy.changed(built, mutant.applied((self.copy.tree / built).read_text("latin-1"))):
            return self.compiled(mutant.file) not in (b"", good)


@contextlib.contextmanager
def new_copy():
    programs.BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mistake-", dir=programs.BUILD) as directory:
        yield Copy(directory)


@pytest.fixture(scope="module", name="copy")
def fixture_copy():
    with new_copy() as copy:
        yield copy


@pytest.fixture(scope="module", name="control")
def fixture_control(copy):
    """Fails if these programs find anything without a mistake."""
    passed = set()

    def control(wanted, settings=()):
        if todo := [w for w in wanted if (w, settings) not in passed]:
            assert not any(copy.failed(todo, settings)), "the tests fail without a mistake"
            passed.update((w, settings) for w in todo)
    return control


@pytest.mark.parametrize("name", PATCHES)
@pytest.mark.xdist_group("patches")
def test_patch(copy, control, record_property, name):
    patch = HERE / "patches" / f"{name}.patch"
    file, = re.findall(r"^\+\+\+ b/(.*)", patch.read_text(), re.M)
    with copy.changed(file, (copy.tree / file).read_text("latin-1")):
        subprocess.run(["patch", "-p1", "--fuzz=0", "-i", patch], cwd=copy.tree, check=True)
        found = []
        for program, *settings in (line.split() for line in re.findall(r"^Fails: (.*)$", patch.read_text(), re.M)):
            found += [(program, tuple(settings), failed) for failed in copy.failed([program], settings)]
    assert found and all(failed for _, _, failed in found), f"survives: {found}"
    record_property("found by", "; ".join(failed for _, _, failed in found))
    for program, settings, _ in found:
        control([program], settings)


@pytest.fixture(scope="module", name="drawn")
def fixture_drawn():
    """The first mutants of the draw that need a test. Places are no part of the
    draw, so that a change of the sources leaves the rest of it as it was."""
    root = packages.root("analysis") / "usr/lib"
    sys.path.append(str(root / "python3/dist-packages"))
    import clang.cindex
    from stress.mutation import slips
    clang.cindex.Config.set_library_path(root / pathlib.Path(vm.NATIVE.libraries).name)
    with new_copy() as copy:
        compiler = Compiler(copy)
        every = [m for file in PROGRAMS for m in slips.mutants(file, compiler.copy.tree / file, *compiler.command(file))]
        stale = set(excuses()) - {f"{m.function} {m.kind}" for m in every}
        assert not stale, f"survivors excuses what there is not: {stale}"
        ranks, order = collections.Counter(), []
        for mutant in sorted(every, key=lambda m: hashlib.sha256(f"{SEED} {m._replace(line=0, start=0)}".encode()).digest()):
            ranks[mutant.file, mutant.function] += 1
            order.append((ranks[mutant.file, mutant.function], len(order), mutant))
        usable, first = (mutant for _, _, mutant in sorted(order) if compiler.is_mistake(mutant)), []

        def draw(number):
            first.extend(itertools.islice(usable, max(0, number + 1 - len(first))))
            return first[number]
        yield draw


def excuses():
    """{"FUNCTION KIND": how many such mutants may survive}"""
    return collections.Counter(re.findall(r"^(\w+ \w+): \S", (HERE / "survivors").read_text(), re.M))


@pytest.fixture(scope="module", name="survivors")
def fixture_survivors():
    """Those that have survived so far, of which each has used up a line."""
    return collections.Counter()


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.xdist_group("mutants")
def test_mutant(copy, control, drawn, survivors, record_property, number):
    mutant = drawn(number)
    wanted = PROGRAMS[mutant.file].split()
    with copy.changed(mutant.file, mutant.applied((copy.tree / mutant.file).read_text("latin-1"))):
        found = next(filter(None, copy.failed(wanted)), "")
    record_property(str(mutant), found or "survives")
    kind = f"{mutant.function} {mutant.kind}"
    survivors[kind] += not found
    assert survivors[kind] <= excuses()[kind], f"no test finds {mutant}"
    control(wanted)
