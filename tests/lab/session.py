# SPDX-License-Identifier: GPL-2.0-only
"""A machine that stays up and runs the test programs that it is told to.

The guest's init asks for the next command, and gets it when there is one. In
between, nothing is read from the machine, which then waits."""

import os
import re

from lab import channel, kcsan, machine, needs, programs, vm

# A test's line of TAP.
TAP = re.compile(r"(?P<bad>not )?ok \d+ - (?P<name>\S+)(?P<skip> # SKIP.*)?")
# Seconds without a word after which a machine is stuck rather than slow.
SILENCE = int(os.environ.get("SILENCE", 1800))


class Ended(Exception):
    """The machine has ended, or its time is over."""


class Interactive:
    """A machine that runs commands as it is told. options: those of vm.Machine.
    lines: what it has said, as (mark, line); README.md has the marks."""

    def __init__(self, kernel, handlers=None, **options):
        self.lines = []
        self._asked = False
        self.machine = vm.Machine(kernel, handlers={**(handlers or {}), "next": self._next}, echo=self._heard, timeout=SILENCE,
                                  **options)
        self.machine.start()
        self.machine.begin_result()

    def _next(self, _machine):
        self._asked = True
        return channel.LATER

    def _heard(self, mark, line):
        self.lines.append((mark, line))
        self.machine.timeout = self.machine.elapsed() + SILENCE

    def start(self, name, text):
        """Begin a command when the one before has ended."""
        if not self.machine.loop(lambda: self._asked):
            raise Ended
        self._asked = False
        self.machine.channel.answer(f"ok {name} {text}", name)

    def read(self):
        """Read on until something was said. Returns False if no command runs."""
        count = len(self.lines)
        if not self._asked and not self.machine.loop(lambda: len(self.lines) > count or self._asked):
            raise Ended
        return not self._asked

    def run(self, name, text):
        """The command's Command, when it has ended."""
        self.start(name, text)
        while self.read():
            pass
        return self.machine.channel.commands[-1]

    def scan(self, log):
        """The lines of a log that fail a test in this machine."""
        return vm.scan_log(log, self.machine.allow)

    def end(self):
        """Switch the machine off: its Result."""
        if self.machine.loop(lambda: self._asked):
            self.machine.channel.answer("error no more", "next")
        return self.machine.run()


def words_of(kernel, path, extra=()):
    """The words of a program's cases that run on a kernel."""
    def hold(words):
        return all(needs.holds(kernel, w, extra) for w in words)
    words = {w for case in programs.cases(path) if hold(case.words.split()) for w in case.words.split()}
    return words.union(*(joined for joined in (w[1:].split("+") for w in words if w.startswith("?")) if hold(joined)))


def files_of(kernel, paths, extra=()):
    """What these programs need in a machine, compiled unless it is there: {path in
    the guest: path here}."""
    files = {}
    for folder in {path.parent for path in paths}:
        files.update(programs.compile_programs([p.stem for p in paths if p.parent == folder], kernel.arch, folder))
    words = set().union(*(words_of(kernel, path, extra) for path in paths))
    for word in words:
        kind, _, name = word.rpartition(":")
        if kind == "module":
            files.update(programs.module_file(kernel, name))
        elif kind == "lab":
            files[f"/tests/{name}.ko"] = programs.out_of_tree(kernel, programs.HERE / "modules" / name)
    return files


class Session(Interactive):
    """A machine with the GPUs of machine.py, for test programs: the paths of
    their sources or, of several sources, of their folders. extra: words that
    hold, too. options: other options of vm.Machine."""

    def __init__(self, kernel, paths, extra=(), **options):
        self.kernel, self.extra = kernel, tuple(extra)
        self._paths = paths
        self._words = {path.stem: words_of(kernel, path, self.extra) for path in paths}
        allow = [*options.pop("allow", ()), *(kcsan.ALLOW if kernel.has("CONFIG_KCSAN") else ())]
        self._finds_leaks = kernel.has("CONFIG_DEBUG_KMEMLEAK")
        if self._finds_leaks:
            # The script judges each of them.
            allow.append(r"kmemleak: \d+ new suspected memory leaks")
        options = {"gpus": machine.gpus(kernel), "ram": machine.ram_size(kernel), "append": machine.APPEND,
                   "log": str(programs.log_file(f"vm-{kernel.name}")), **options}
        super().__init__(kernel, programs.HANDLERS, files=self._files(), module=str(programs.module_of(kernel)), allow=allow,
                         **options)
        if kernel.has("CONFIG_KCSAN"):
            self.run("kcsan", kcsan.SWITCH_ON)

    def _files(self):
        files = files_of(self.kernel, self._paths, self.extra)
        if self._finds_leaks:
            files["/tests/leaks"] = str(programs.HERE / "leaks")
        return files

    def program(self, name, case="", **settings):
        """Start a program, or one case of it: a Program."""
        settings["HAS"] = " ".join(sorted(self._words[name]))
        environment = " ".join(f"{key}='{value}'" for key, value in settings.items())
        self.start(name, f"host restore; {environment} exec /tests/{name} {case}")
        return Program(self, name)

    def finish(self):
        """Switch the machine off, and return what is wrong with it as a whole:
        a list of lines."""
        bad = []
        try:
            if self._finds_leaks and self.run("leaks", "sh /tests/leaks").rc:
                bad += self.machine.channel.commands[-1].output
            if self.kernel.has("CONFIG_KCSAN"):
                bad += self._races(self.run("kcsan-counters", kcsan.COUNTERS).output)
        except Ended:
            pass
        result = self.end()
        # Programs' failures are those of their cases.
        bad += [f for f in result.failures if not re.match(r"command \S+ failed with", f)]
        # Below 4 GiB there is room for some 46 BARs of 16 MiB. Without its
        # BAR0, a GPU fails tests far from the cause.
        bar0 = dict(re.findall(r"pci (\S+): BAR 0 \[mem [^]]*\]: (assigned|failed to assign)", "\n".join(result.dmesg)))
        bad += [f"{address} has no BAR0" for address, end in bar0.items() if end != "assigned"]
        return bad

    def _races(self, output):
        races, _ = kcsan.judge([line for mark, line in self.lines if mark == "|"])
        bad = [line for race in races for line in race]
        if not kcsan.counters(output).get("setup_watchpoints"):
            bad.append("KCSAN watched no access")
        return bad


class Program:
    """One run of a test program. It goes on while its cases are reported, so
    that each case takes as long as it takes."""

    def __init__(self, session, name):
        self.session, self.name = session, name
        self._position = len(session.lines)
        self._said, self._log, self._failed = [], [], None
        self._cases = {}
        self.running = True

    def _take(self):
        for mark, line in self.session.lines[self._position:]:
            if mark == "|":
                self._log.append(line)
            elif mark == ">":
                # cmocka says why a case failed after its result.
                if self._failed and not line.startswith("#"):
                    self._failed = None
                (self._said if self._failed is None else self._failed).append(line)
                if match := TAP.match(line):
                    self._cases[match["name"]] = (match, self._said, self._log)
                    self._failed = self._said if match["bad"] else None
                    self._said, self._log = [], []
        self._position = len(self.session.lines)

    def case(self, name):
        """(its line of TAP as a match, what was said since the case before, the
        kernel's log since then). None instead of the match if the program has
        ended without this case."""
        while True:
            self._take()
            if name in self._cases and (not self.running or self._cases[name][1] is not self._failed):
                return self._cases.pop(name)
            if not self.running:
                return None, self._said, self._log
            self.running = self.session.read()

    def all(self):
        """([lines of failed cases], all lines, the kernel's log) when the
        program has ended."""
        while self.running:
            self.running = self.session.read()
        self._take()
        said = [line for _, lines, _ in self._cases.values() for line in lines] + self._said
        log = [line for _, _, lines in self._cases.values() for line in lines] + self._log
        bad = [match[0] for match, _, _ in self._cases.values() if match["bad"]]
        if (rc := self.session.machine.channel.commands[-1].rc) and not bad:
            bad.append(f"{self.name} ended with {rc}")
        if not self._cases:
            bad.append(f"{self.name} reported no test")
        return bad, said, log
