# SPDX-License-Identifier: GPL-2.0-only
"""How pytest runs the tests: what each needs, where it runs and when.

Each case of a C program in driver/ is an item for each kernel, as in
"driver/mmap.c::a_hole_in_a_mapping_leaves_the_rest[newest]". Cases of one kernel
share a machine, or three where tests run in parallel, which is up until the last
of them has run. A C program in unit/ runs here.

Markers: "check" chooses the tests of `make check`, "all" those that `make
check-all` adds, "long" and "packages" those of `make check-long`. "measure" is for
the tests of the tests. Cases run on the kernels that --kernel names, or those of
the chosen marker, or else on newest. The marker "needs" says what a test needs
besides Debian's kernels; scripts/dev/prepare makes it before."""

import collections
import functools
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from cli import common
from lab import needs, programs, toolbox, vm
from lab import session as machines

TESTS = pathlib.Path(__file__).resolve().parent

# The kernels whose cases a marker chooses. Those of "long" differ in one thing from
# one of the others. Of newest-64k, stable and oldstable, each has a part.
KERNELS = {
    "check": ("newest",),
    "all": ("newest", "newest-64k", "stable", "oldstable"),
    "long": ("newest-64k", "stable", "oldstable", "stable-16k", "newest-16k", "stable-rt", "newest-rt", "debug", "debug-64k", "kcsan"),
}
MARKERS = (*KERNELS, "packages", "measure")

# Debian's kernels that check-all builds for, beside newest.
PACKAGED = ("oldstable", "stable", "stable-amd64", "newest-amd64")

# On this kernel the programs run in the opposite order: none may depend on
# those before it.
REVERSED = "newest-64k"

# On newest, the cases of `make check` share three machines, in which they take about as
# long: one for each of these words of needs.py, and one for all others. A boot takes 9 s
# of a processor and 0.3 s for each GPU, so all cases of another kernel have one machine.
MACHINES = ("waits", "scrubs")

# Groups that take long, the longest first, so that none of them begins last.
LONG_GROUPS = ("packages/test_life.py", "packages/test_upgrade.py", "waits", "scrubs", "driver", "firmware/test_tables.py", "sources/test_style.py",
               "sources/test_demo.py", "guests/test_guest.py", "sources/test_static.py", "sources/test_matrix.py", "driver/test_large_scrub.py",
               "packages/test_dkms.py", "packages/test_compilers.py", "packages/test_images.py", "packages/test_lint.py", "cli/test_faults.py",
               "cli/test_testers_in_machine.py", "driver/test_tracers.py", "hardware/test_hardware.py",
               "guests/test_lines.py", "packages/test_capture.py", "boot/test_udev.py", "cli/test_doctor_in_machine.py",
               "cli/test_scrub_in_machine.py", "packages/test_vendors.py", "cli/test_in_machine.py", "cli/test_records.py", "packages/test_publish.py",
               "packages/test_modules.py", "lab/tests/test_machine.py", "packages/test_rpm.py", "packages/test_release.py")

# In the place of a kernel: why the tool can't be tested.
TOOL = "nvgrace-gpu"

# Seconds between lists of what is running.
SIGN_OF_LIFE = 60


@functools.lru_cache(None)
def kernel_of(name):
    return vm.Kernel(name)


@functools.cache
def is_there(name):
    try:
        return bool(kernel_of(name))
    except vm.ConfigError:
        return False


# ---- options and markers -----------------------------------------------------

def pytest_addoption(parser):
    parser.addoption("--kernel", action="append", default=[], help="a name of tests/lab/kernels.conf; may be repeated")
    parser.addoption("--set", action="append", default=[], metavar="PROGRAM.NAME=N", help="a setting of a program in driver/")
    parser.addoption("--needs", metavar="FILE", help="run nothing, and write what the chosen tests need for scripts/dev/prepare")
    parser.addoption("--made", metavar="FILE", help="the file of --needs, when prepare has made that: cases on other kernels are not looked at")
    parser.addoption("--busy", type=int, default=0, metavar="N", help="run beside N processes that never sleep")


def chosen_kernels(config):
    """The kernels whose cases are collected."""
    if names := config.getoption("kernel"):
        return names
    words = re.findall(r"\w+", config.getoption("markexpr"))
    names = dict.fromkeys(kernel for marker in words for kernel in KERNELS.get(marker, ()))
    if made := config.getoption("made"):
        lines = pathlib.Path(made).read_text("utf-8").splitlines()
        names = [kernel for kernel in names if f"kernel {kernel}" in lines]
    return list(names) or ["newest"]


def pytest_generate_tests(metafunc):
    """The kernels of a test with the marker "kernels", unless --kernel names
    others."""
    if marker := metafunc.definition.get_closest_marker("kernels"):
        metafunc.parametrize("kernel", metafunc.config.getoption("kernel") or marker.args, scope="module")


def pytest_pycollect_makeitem(collector, name, obj):
    """A class that has tests is a class of tests, whatever its name."""
    if isinstance(obj, type) and any(word.startswith("test_") for word in dir(obj)):
        return pytest.Class.from_parent(collector, name=name, obj=obj)
    return None


def marks_of(item):
    """The markers of an item, by its place."""
    path = item.path.relative_to(TESTS)
    if isinstance(item, Case):
        if item.config.getoption("kernel"):
            return MARKERS
        if item.kernel == "newest":
            return ["all" if "slow" in item.words else "check"]
        # What waits and scrubs runs on the oldest and the newest kernel, between
        # which stable lies. Of what doesn't see the size of pages, a kernel with large
        # ones has nothing that another one of the same version doesn't have.
        part = {"oldstable": True, "stable": not item.words.intersection(MACHINES), "newest-64k": "pages" in item.words}
        return ["all" if part.get(item.kernel) and "slow" not in item.words else "long"]
    if own := [m for m in MARKERS if item.get_closest_marker(m)]:
        return own
    if path.parts[0] == "stress":
        return ["long"]
    more = path.parts[0] in ("packages", "driver", "guests", "hardware", "lab") or "machine" in path.stem
    return ["all" if more else "check"]


def kernel_name(item):
    """The kernel that an item boots: of a case, a parameter "kernel", or a class
    with KERNEL."""
    if isinstance(item, Case):
        return item.kernel
    named = getattr(item, "callspec", None) and item.callspec.params.get("kernel")
    return named or getattr(getattr(item, "cls", None), "KERNEL", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        for mark in marks_of(item):
            item.add_marker(mark)
        kernel = kernel_name(item)
        if isinstance(item, Case):
            place = next((m for m in MACHINES if m in item.words and item.kernel == "newest" and "slow" not in item.words), "driver")
        else:
            place = str(item.path.relative_to(TESTS))
        item.add_marker(pytest.mark.xdist_group(f"{place} {kernel}" if kernel else place))
        if isinstance(item, Case) or kernel:
            item.add_marker("vm")
    # Cases of a kernel one after the other, since a worker has one machine.
    places = {program: place for place, program in enumerate(dict.fromkeys(i.program for i in items if isinstance(i, Case)))}
    items.sort(key=lambda i: (i.kernel, -places[i.program] if i.kernel == REVERSED else 0) if isinstance(i, Case) else ("", 0))


def pytest_collection_finish(session):
    """Writes the lines of --needs."""
    if not (file := session.config.getoption("needs")):
        return
    wanted = {"kernel newest"}
    for item in session.items:
        marks = marks_of(item)
        if "check" not in marks:
            wanted.update(("more", *(f"kernel {name}" for name in (PACKAGED if "all" in marks else ("--all",)))))
        if kernel := kernel_name(item):
            wanted.add(f"kernel {kernel}")
        for marker in item.iter_markers("needs"):
            wanted.update(marker.args)
    pathlib.Path(file).write_text("".join(f"{line}\n" for line in sorted(wanted)), "utf-8")


def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadGroupScheduling

    class LongestFirst(LoadGroupScheduling):    # pylint: disable=abstract-method  # xdist's own lack these, too
        def _assign_work_unit(self, node):
            def place(scope):
                return next((i for i, name in enumerate(LONG_GROUPS) if name in (scope, scope.split()[0])), len(LONG_GROUPS))
            self.workqueue.move_to_end(min(self.workqueue, key=place), last=False)
            super()._assign_work_unit(node)

    return LongestFirst(config, log)


# ---- cases of C programs -----------------------------------------------------

def pytest_collect_file(file_path, parent):
    if file_path.suffix != ".c":
        return None
    if file_path.is_relative_to(programs.DRIVER):
        return Source.from_parent(parent, path=file_path)
    return UnitSource.from_parent(parent, path=file_path) if file_path.parent == TESTS / "unit" else None


class Source(pytest.File):
    """A test program of the driver, or a source of one. The cases are those whose
    table is here."""

    @property
    def program(self):
        """The path of its source, or of the folder with its sources."""
        return self.path if self.path.parent.name == "driver" else self.path.parent

    def collect(self):
        try:
            cases = [case for case in programs.cases(self.program) if case.file == str(self.path.relative_to(vm.PROJECT))]
            return [Case.from_parent(self, name=f"{case.name}[{kernel}]", kernel=kernel, case=case)
                    for kernel in chosen_kernels(self.config) for case in cases if self.may_run(kernel, case)]
        except AssertionError as e:
            raise self.CollectError(str(e)) from None

    def may_run(self, kernel, case):
        """Whether a kernel has what a case needs. With --needs, or for a list, there may
        be no kernel yet: then it may have that."""
        if self.config.getoption("needs") or self.config.option.collectonly and not is_there(kernel):
            return True
        return all(needs.holds(kernel_of(kernel), w) for w in case.words.split())


class Case(pytest.Item):
    """A case of a test program, on a kernel."""

    def __init__(self, *, kernel, case, **more):
        super().__init__(**more)
        self.kernel, self.case, self.words = kernel, case.name, set(case.words.split())
        self.program = self.parent.program.stem

    def runtest(self):
        worker = self.config.stash[MACHINE]
        match, said, log = worker.run(self)
        if bad := worker.session.scan(log):
            raise Failed(["the kernel's log:", *bad, *said])
        if not match or match["bad"]:
            raise Failed([*said, *([] if match else [f"{self.program} ended without this case"])])

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, Failed):
            return "\n".join(excinfo.value.args[0])
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, None, self.name


class Failed(Exception):
    """What a case said."""


class Worker:
    """The machine of this process, and the program that runs in it."""

    # A kernel on which a machine ended so often is not booted again.
    ENOUGH = 3

    def __init__(self, broken):
        self.kernel = self.session = self.program = None
        self.broken = broken    # why there is no machine, by kernel
        self.ended = collections.Counter()

    def run(self, item):
        """What the item's program says of its case."""
        if item.kernel in self.broken:
            pytest.skip("there is no machine for it")
        chosen = [i for i in item.session.items if isinstance(i, Case) and i.kernel == item.kernel]
        try:
            if self.kernel != item.kernel:
                self.session = machines.Session(kernel_of(item.kernel), list(dict.fromkeys(i.parent.program for i in chosen)))
                self.kernel, self.program = item.kernel, None
            if not self.program or self.program.name != item.program or not self.program.may_report(item.case):
                # After a crash, the program goes on with the next case.
                left = chosen[chosen.index(item):]
                self.program = self.session.program(item.program, *(i.case for i in left if i.program == item.program), **settings(item))
            return self.program.case(item.case)
        except machines.Ended:
            self.ended[item.kernel] += 1
            if self.ended[item.kernel] == self.ENOUGH:
                self.broken[item.kernel] = f"its machine has ended {self.ENOUGH} times"
            said = [line for command in self.session.channel.commands[-1:] for _, line in command.lines[-60:]]
            raise Failed([*said, *self.end()]) from None

    def end(self):
        """What was wrong with the machine as a whole."""
        if not self.session:
            return []
        ended, self.session, self.kernel = self.session, None, None
        return ended.finish()


def settings(item):
    """A program's settings of --set."""
    return dict(word.removeprefix(f"{item.program}.").split("=", 1) for word in item.config.getoption("set")
                if word.startswith(f"{item.program}."))


MACHINE = pytest.StashKey()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    worker = item.config.stash[MACHINE]
    if worker.session and (not isinstance(nextitem, Case) or nextitem.kernel != worker.kernel):
        if bad := worker.end():
            pytest.fail("the machine: " + "\n".join(bad), pytrace=False)


class UnitSource(pytest.File):
    """A test program that runs here, with sanitizers."""

    def collect(self):
        for case in programs.listed(self.executable):
            yield UnitCase.from_parent(self, name=case.name)

    @functools.cached_property
    def executable(self):
        # kbuild's command line provides these includes.
        return programs.compiled(self.path.stem, [
            *programs.compiler(vm.NATIVE, [self.path, programs.HERE / "guest/main.c", *programs.LIBRARY, vm.PROJECT / "src/arith.c"]),
            "-g", "-O1", "-std=gnu11", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-include", "stdbool.h",
            f"-I{vm.PROJECT / 'include'}"])


class UnitCase(pytest.Item):
    """A case of such a program."""

    def runtest(self):
        done = subprocess.run([self.parent.executable, self.name], capture_output=True, text=True)
        assert not done.returncode and f"ok 1 - {self.name}" in done.stdout, done.stdout + done.stderr

    def reportinfo(self):
        return self.path, None, self.name


# ---- the run as a whole ------------------------------------------------------

def pytest_configure(config):
    # A shell starts its background jobs with the first signal ignored. Both end
    # a run with its machines.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", 143))
    config.stash[MACHINE] = Worker(getattr(config, "workerinput", {}).get("broken", {}))
    for name in (*MARKERS, "vm", "xdist_group", "kernels", "needs"):
        config.addinivalue_line("markers", name)
    if not hasattr(config, "workerinput"):
        # Each in its own session, as Linux shares processors between sessions.
        forever = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
        for _ in range(config.getoption("busy")):
            busy = subprocess.Popen([sys.executable, "-c", forever], start_new_session=True)
            config.add_cleanup(busy.kill)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session):
    """What the cases of programs and the tests of the tool need is made before they and
    the workers start, by this process. What can't be made is one error, and these
    don't run."""
    config = session.config
    if hasattr(config, "workerinput"):
        common.broken = config.stash[MACHINE].broken.get(TOOL)
        return
    threading.Thread(target=show_life, args=(config.get_terminal_writer(),), daemon=True).start()
    chosen = [pathlib.Path(config.invocation_params.dir, a.partition("::")[0]) for a in config.args]
    def is_chosen(path):
        return any(path.is_relative_to(c) or c.is_relative_to(path) for c in chosen)

    paths = [p for p in programs.all_of_driver() if is_chosen(p)]
    if is_chosen(TESTS / "cli") and not config.option.collectonly:
        try:
            common.build()
            common.try_schema()
        except (AssertionError, ValueError) as e:
            config.stash[MACHINE].broken[TOOL] = common.broken = str(e)
    try:
        programs.side_by_side(programs.cases, paths)
    except AssertionError:
        return      # their collection shows what doesn't compile
    for kernel in chosen_kernels(config) if paths and not config.option.collectonly else ():
        try:
            programs.side_by_side(lambda make: make(), (functools.partial(programs.module_of, kernel_of(kernel)),
                                                        functools.partial(machines.files_of, kernel_of(kernel), paths)))
        except (AssertionError, OSError, toolbox.Failed, subprocess.SubprocessError) as e:
            config.stash[MACHINE].broken[kernel] = str(e)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["broken"] = node.config.stash[MACHINE].broken


def pytest_terminal_summary(terminalreporter, config):
    for name, why in config.stash[MACHINE].broken.items():
        terminalreporter.section("the tool can't be tested" if name == TOOL else f"no machine for the cases on {name}")
        terminalreporter.line(why)


def pytest_sessionfinish(session):
    worker = session.config.stash[MACHINE]
    worker.end()
    if worker.broken and not hasattr(session.config, "workerinput"):
        session.exitstatus = 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With CI=true, a test that can't run has failed."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail") and \
            getattr(item, "kernel", TOOL) not in item.config.stash[MACHINE].broken:
        report.outcome = "failed"
        report.longrepr = f"skipped: {report.longrepr}"
    return report


def without_group(nodeid):
    """An item's name as it is without xdist, which adds the group."""
    return re.sub(r"@[^]@]*$", "", nodeid)


# When each test that runs has begun.
SINCE = {}


def pytest_runtest_logstart(nodeid):
    SINCE[nodeid] = time.monotonic()


def pytest_runtest_logfinish(nodeid):
    SINCE.pop(nodeid, None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    # So that --lf finds it in a run without xdist, too. Workers need the other name.
    if hasattr(report, "node"):
        report.nodeid = without_group(report.nodeid)


def show_life(out):
    """Lists now and then what is running, and for how long."""
    while True:
        time.sleep(SIGN_OF_LIFE)
        now = time.monotonic()
        # A copy, since other threads change it.
        if long := {n: now - s for n, s in dict(SINCE).items() if now - s >= SIGN_OF_LIFE}:
            out.line("\n... " + ", ".join(f"{without_group(n).removeprefix('tests/')} {s:.0f} s" for n, s in long.items()))
        # pytest leaves that to its exit, unless the output is a terminal.
        out.flush()
