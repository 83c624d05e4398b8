# SPDX-License-Identifier: GPL-2.0-only
"""A machine that stays up and runs the test programs that it is told to."""

import os
import re

from lab import gpu_memory, kcsan, machine, needs, programs, vm

# A test's line of TAP.
TAP = re.compile(r"(?P<bad>not )?ok \d+ - (?P<name>\S+)")
# Seconds without a word after which a machine is stuck rather than slow.
SILENCE = int(os.environ.get("SILENCE", 1800))
# What the kernel says of a task or a processor that hangs. It fails the run, and the
# kernel would say it again and again.
HUNG = re.compile(r"blocked for more than|rcu.*detected.*stall|soft lockup")
# Seconds that a machine has after that.
HANGS = 60


class Ended(Exception):
    """The machine has ended, or its time is over."""


class Interactive:
    """A machine that runs commands as it is told. options: those of vm.Machine."""

    def __init__(self, kernel, handlers=None, **options):
        self._hangs = False
        self.machine = vm.Machine(kernel, handlers=handlers, echo=self._heard, timeout=SILENCE, **options)
        self.channel = self.machine.channel
        self.channel.hold = True
        self.machine.start()

    def _heard(self, mark, line):
        if self._hangs:
            return
        self._hangs = bool(HUNG.search(line))
        self.machine.timeout = self.machine.elapsed() + (HANGS if self._hangs else SILENCE)

    def follow(self, command):
        """What is said during a command, line by line, until it has ended: (">", what
        it prints) and ("|", the kernel's log)."""
        count = 0
        while True:
            while count < len(command.lines):
                yield command.lines[count]
                count += 1
            if command.rc is not None:
                return
            if not self.machine.loop(lambda: len(command.lines) > count or command.rc is not None):
                raise Ended

    def run(self, name, text):
        """The command's channel.Command, when it has ended."""
        command = self.channel.run(name, text)
        for _ in self.follow(command):
            pass
        return command

    def scan(self, log):
        """The lines of a log that fail a test in this machine."""
        return vm.scan_log(log, self.machine.allow)

    def end(self):
        """Switch the machine off: its Result."""
        self.channel.finish()
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
    words = set().union(*(words_of(kernel, path, extra) for path in paths))
    own = sorted(w.removeprefix("lab:") for w in words if w.startswith("lab:"))
    modules = programs.out_of_tree(kernel, *(programs.HERE / "modules" / name for name in own))
    files = {f"/tests/{name}.ko": path for name, path in zip(own, modules)}
    for folder in {path.parent for path in paths}:
        files.update(programs.compile_programs([p.stem for p in paths if p.parent == folder], kernel.arch, folder))
    for word in sorted(w for w in words if w.startswith("module:")):
        files.update(programs.module_file(kernel, word.removeprefix("module:")))
    if kernel.has("CONFIG_DEBUG_KMEMLEAK"):
        files["/tests/leaks"] = str(programs.HERE / "leaks")
    return files


class Session(Interactive):
    """A machine with the GPUs of machine.py, for test programs: the paths of
    their sources or, of several sources, of their folders. extra: words that
    hold, too. options: other options of vm.Machine."""

    def __init__(self, kernel, paths, extra=(), **options):
        self.kernel = kernel
        self._words = {path.stem: words_of(kernel, path, extra) for path in paths}
        allow = [*options.pop("allow", ()), *(kcsan.ALLOW if kernel.has("CONFIG_KCSAN") else ()),
                 # The script judges each of them.
                 *([r"kmemleak: \d+ new suspected memory leaks"] if kernel.has("CONFIG_DEBUG_KMEMLEAK") else ())]
        super().__init__(kernel, gpu_memory.HANDLERS, **{
            "gpus": machine.gpus(kernel), "ram": machine.ram_size(kernel), "append": machine.APPEND, "files": files_of(kernel, paths, extra),
            "module": str(programs.module_of(kernel)), "log": str(programs.log_file(f"vm-{kernel.name}")), "allow": allow, **options})
        if kernel.has("CONFIG_KCSAN"):
            self.channel.run("kcsan", kcsan.SWITCH_ON)

    def program(self, name, *cases, **settings):
        """Start a program, or some of its cases: a Program."""
        settings["HAS"] = " ".join(sorted(self._words[name]))
        environment = " ".join(f"{key}='{value}'" for key, value in settings.items())
        return Program(self, self.channel.run(name, f"host restore; {environment} exec /tests/{name} {' '.join(cases)}"))

    def finish(self):
        """Switch the machine off, and return what is wrong with it as a whole:
        a list of lines."""
        bad = []
        try:
            if self.kernel.has("CONFIG_DEBUG_KMEMLEAK") and (leaks := self.run("leaks", "sh /tests/leaks")).rc:
                bad += leaks.output
            if self.kernel.has("CONFIG_KCSAN"):
                if not kcsan.counters(self.run("kcsan-counters", kcsan.COUNTERS).output).get("setup_watchpoints"):
                    bad.append("KCSAN watched no access")
                bad += [line for race in kcsan.judge(self.channel.console)[0] for line in race]
        except Ended:
            pass
        # Programs' failures are those of their cases.
        bad += [f for f in self.end().failures if not re.match(r"command \S+ failed with", f)]
        # Below 4 GiB there is room for some 46 BARs of 16 MiB. Without its
        # BAR0, a GPU fails tests far from the cause.
        bar0 = dict(re.findall(r"pci (\S+): BAR 0 \[mem [^]]*\]: (assigned|failed to assign)", "\n".join(self.channel.output("dmesg"))))
        return bad + [f"{address} has no BAR0" for address, end in bar0.items() if end != "assigned"]


class Program:
    """One run of a test program. It goes on while its cases are reported, so
    that each case takes as long as it takes."""

    def __init__(self, session, command):
        self.name, self.command = command.name, command
        self._cases, self._known = self._reports(session), {}

    def _reports(self, session):
        """(the line of TAP as a match, what was said since the case before) of each
        case, and at the end None with the rest."""
        match, said = None, []
        for mark, line in session.follow(self.command):
            if mark == "|":
                continue
            # cmocka says why a case failed after its result.
            if match and not line.startswith("#"):
                yield match, said
                match, said = None, []
            said.append(line)
            if (match := match or TAP.match(line)) and not match["bad"]:
                yield match, said
                match, said = None, []
        if match:
            yield match, said
            said = []
        yield None, said

    def _log(self, case):
        """The kernel's log of a case, which begins with a line by main.c."""
        inside, log = False, []
        for line in self.command.log:
            if begin := re.search(rf"\b{self.name}: (\w+) begins$", line):
                inside = begin[1] == case
            elif inside:
                log.append(line)
        return log

    def may_report(self, case):
        """Whether it has reported a case, or has not ended."""
        return case in self._known or None not in self._known

    def case(self, name):
        """(its line of TAP as a match, what was said since the case before, its
        kernel log). If the program has ended without the case, None instead of the
        match, and what was said at last."""
        while name not in self._known and None not in self._known:
            match, said = next(self._cases)
            self._known[match and match["name"]] = match, said
        return *self._known[name if name in self._known else None], self._log(name)

    def all(self):
        """([lines of failed cases], all lines, the kernel's log) when the
        program has ended."""
        matches = [match for match, _ in self._cases]
        bad = [match[0] for match in matches if match and match["bad"]]
        if self.command.rc and not bad:
            bad.append(f"{self.name} ended with {self.command.rc}")
        if matches == [None]:
            bad.append(f"{self.name} reported no test")
        return bad, self.command.output, self.command.log
