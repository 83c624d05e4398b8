#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Mistakes without an author: mutants of the driver, drawn by lot from all that
mutate.py makes. The test programs must find each of them.

    mutants_generated.py [--seed N] [--count N] [--first N] [--skip N]
                         [--machines N] [--only WORDS] [--no-control] [--anew] [--list]

Inside the toolbox. Part of `make check-long`. Each mutant runs with the
programs that could see it, likely finders first, in one boot per kernel. It
counts as found when a test fails, when the kernel is in trouble, or when the
machine says nothing for SILENCE_S seconds, because some mistakes make it hang.
The draw skips mutants that the compiler finds, with the warnings that fail the
job `matrix`, and mutants that compile to the same code as the driver. The next
mutant takes their place.

The job fails if less than FOUND_PERCENT of the draw are found, or if
mutants.survivors does not list a mutant that was not found. Mutants listed
there as equivalent are no mistakes, and are not drawn. Every entry there must
name an existing mutant. Before all that, the programs must find nothing in the
driver itself. The last line is the sum of mutants found and unexplained, and of
these checks.

All this takes hours. What a run found out is kept in the cache, by the content
of the driver and of its tests: a run that was interrupted goes on when it is
started again. --anew tries every mutant.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading
import time

import archive
import mutants
import mutate
import suite
import syntax
import vm

COUNT = 150
FOUND_PERCENT = 90
SURVIVORS = pathlib.Path(__file__).resolve().parent / "mutants.survivors"

# Every test prints something much sooner.
SILENCE_S = 300
LIMIT = ("--silence", str(SILENCE_S))
# timeout(1)'s status when the time is over.
TIMEOUT = 124
# As scripts/dev/matrix has it.
WARNINGS = ("W=1",)

# As many operations as kernels other than newest get.
RANDOM = f"random:{suite.RANDOM_SEED}:{suite.RANDOM_ELSEWHERE}"
# The programs that could see a mistake in a file, likely and quick ones first.
# "KERNEL/" in front runs the program there instead of on newest, which takes
# another machine. Numbers of rounds are the lowest that show something.
PROGRAMS = {
    "src/arith.c": ("discovery", "config", RANDOM),
    "src/cfgemu.c": ("config", "reset", "rare", RANDOM, "privilege"),
    "src/device.c": ("region", "mmap", "config", "sysfs", "reset", "trace", "poison", "power", "gate", "dmabuf", "discovery",
                     "plain", "scrub:5", "cycles", RANDOM, "privilege", "races"),
    "src/dmabuf.c": ("dmabuf", RANDOM),
    # Linux 6.12 does not log that error recovery failed.
    "src/gate.c": ("mmap", "reset", "gate", "power", "aer", "wait", "trace", "dmabuf", "ready", "config", "scrub:5", "rare", RANDOM,
                   "cycles", "races", "stable/aer"),
    "src/poison.c": ("poison",),
    "src/probe.c": ("discovery", "plain", "sysfs", "region", "reset", "ready", "scrub:5", "failures", "rare", "cycles", RANDOM,
                    "privilege", "races"),
    "src/ready.c": ("ready", "wait", "power", "aer", "discovery", "scrub:5", "failures", "rare", RANDOM, "cycles", "races"),
    # What the newest kernel itself checks.
    "src/region.c": ("region", "mmap", "poison", "trace", "config", "reset", "gate", "wait", "thp:300", "rare", "failures", RANDOM,
                     "cycles", "privilege", "races", "oldstable/mmap"),
    "src/reset.c": ("reset", "aer", "gate", "wait", "trace", "scrub:5", "rare", RANDOM, "stable/aer"),
    "src/rw.c": ("rw", "trace", "power", "gate", "scrub:5", "race:20", "rare", "failures", RANDOM, "cycles", "privilege", "races"),
    "src/scrub.c": ("scrub:5", "failures", "sysfs", "trace", "poison", "aer", "rare"),
    "src/shadow.c": ("oldstable/mmap", "oldstable/reset", "oldstable/gate", "oldstable/cycles", f"oldstable/{RANDOM}", "oldstable/races"),
    "src/sysfs.c": ("sysfs", "discovery", "scrub:5", "privilege"),
    "src/window.c": ("rw", "power", "gate", "scrub:5", "cycles", "failures", RANDOM),
}
# Programs on this machine, before all others.
HERE = {"src/arith.c": ["tests/unit/run"]}
# Nothing to get wrong: trace.c only instantiates the tracepoints.
WITHOUT = ("src/trace.c",)


def grouped(programs):
    """[(kernel's name, programs)], a machine each, in the order in which they
    run."""
    found = {}
    for program in programs:
        kernel, _, name = program.rpartition("/")
        found.setdefault(kernel or "newest", []).append(name)
    return list(found.items())


def machines(file):
    """The machines for mutants of a file."""
    return grouped(PROGRAMS[file])


class BuildProblem(Exception):
    """The driver itself does not build."""


class ListProblem(Exception):
    """The list of survivors has a mistake."""


@dataclasses.dataclass(frozen=True)
class Survivor:
    """Why no program finds a mutant: it does nothing wrong ("equivalent"), or
    no program can see what it does ("unseen")."""

    why: str
    reason: str


def read_survivors(text):
    """{name: Survivor}. A name is a line; the indented lines below it are its
    reason."""
    found, name = {}, None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            name = None
        elif not line[0].isspace():
            if line in found:
                raise ListProblem(f"{SURVIVORS.name}:{number}: twice: {line}")
            name, found[line] = line, Survivor("", "")
        elif name is None:
            raise ListProblem(f"{SURVIVORS.name}:{number}: a reason without a mutant")
        elif found[name].why:
            found[name] = Survivor(found[name].why, f"{found[name].reason} {line.strip()}")
        else:
            match = re.match(r"\s+(equivalent|unseen): (\S.*)", line)
            if not match:
                raise ListProblem(f"{SURVIVORS.name}:{number}: neither equivalent nor unseen")
            found[name] = Survivor(match[1], match[2])
    for name, survivor in found.items():
        if not survivor.reason:
            raise ListProblem(f"{SURVIVORS.name}: without a reason: {name}")
    return found


class Earlier:
    """What became of mutants, of this driver with these tests, in this run and
    earlier ones: {name: the failure that found it, or ""}. The name DRIVER is
    for the driver itself."""

    # What a result depends on, beside the kernels: these, without documentation
    # and without tests of the tests.
    INPUTS = ("Kbuild", "src", "include", "tests/model", "tests/testkernel", "tests/unit", "tests/vm")
    WITHOUT = re.compile(r"test_.*|.*\.md|.*\.survivors|.*\.pyc")
    DRIVER = "the driver itself"

    def __init__(self, path):
        self.path, self.known = path, {}
        self.lock = threading.Lock()
        if path.exists():
            # The last line is incomplete if a run was killed while it wrote.
            *lines, rest = path.read_text("utf-8").split("\n")
            self.known = dict(json.loads(line) for line in lines if line)
            if rest:
                path.write_text("".join(f"{line}\n" for line in lines), "utf-8")

    @classmethod
    def of(cls, kernels):
        """Those of the driver and the tests of this tree, on these kernels."""
        digest = hashlib.sha256(" ".join(sorted(k.release for k in kernels)).encode())
        for name in cls.INPUTS:
            top = vm.PROJECT / name
            for path in sorted(p for p in (top.rglob("*") if top.is_dir() else [top]) if p.is_file()):
                if not cls.WITHOUT.fullmatch(path.name):
                    digest.update(f"{path.relative_to(vm.PROJECT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        return cls(archive.CACHE / "mutants" / digest.hexdigest()[:16])

    def forget(self):
        self.known = {}
        self.path.unlink(missing_ok=True)

    def add(self, name, failed):
        with self.lock:
            self.known[name] = failed
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(json.dumps([name, failed]) + "\n")


class Compiler:
    """Compiles single files in a workplace as kbuild does."""

    def __init__(self, place, kernel):
        self.place, self.kernel = place, kernel
        self.build = place.directory / "build" / kernel.release
        self.good = {}

    def command(self, file):
        """kbuild's command without other outputs, and without debugging
        information, which depends on positions in the file."""
        record = self.build / pathlib.Path(file).parent / f".{pathlib.Path(file).stem}.o.cmd"
        line = record.read_text().splitlines()[0].partition(":=")[2].partition(" ; ")[0]
        return [word for word in shlex.split(line) if not word.startswith("-Wp,-M")] + ["-g0"]

    def directory(self, command):
        """Where kbuild runs the compiler. Older ones do so in the kernel's
        headers."""
        return self.kernel.headers if os.path.isabs(command[command.index("-o") + 1]) else self.build

    def compile(self, file):
        """The object, and the compiler's messages."""
        command = self.command(file)
        directory = self.directory(command)
        out = self.build / "mutant.o"
        out.unlink(missing_ok=True)
        command[command.index("-o") + 1] = str(out)
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
        return out.read_bytes() if out.exists() else b"", done.stderr

    def functions(self, file):
        target = [] if self.kernel.arch is vm.AMD64 else ["--target=aarch64-linux-gnu"]
        command = self.command(file)
        arguments = syntax.arguments_of(command, self.directory(command))
        return syntax.functions(self.build / file, [*arguments, *target])

    def objection(self, mutant, text):
        """Why a mutant needs no machine, or ""."""
        file = self.build / mutant.file
        if mutant.file not in self.good:
            self.good[mutant.file], said = self.compile(mutant.file)
            if said:
                raise BuildProblem(said)
        good = file.read_bytes()
        # make must not rebuild because of this change.
        times = file.stat()
        file.write_bytes(mutant.applied(text).encode("latin-1"))
        try:
            code, said = self.compile(mutant.file)
        finally:
            file.write_bytes(good)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        if said or not code:
            complaints = [line for line in said.splitlines() if re.search(r"(error|warning):", line)]
            return f"the compiler finds it: {complaints[0].partition(': ')[2] if complaints else said[:200]}"
        return "the compiler makes the same of it" if code == self.good[mutant.file] else ""


class Campaign:
    def __init__(self, places, seed):
        self.places, self.seed = places, seed
        self.kernels = {name: vm.Kernel(name) for name in sorted({name for file in PROGRAMS for name, _ in machines(file)})}
        self.texts = {file: (vm.PROJECT / file).read_bytes().decode("latin-1") for file in PROGRAMS}
        self.survivors = read_survivors(SURVIVORS.read_text("utf-8"))
        self.earlier = Earlier.of(self.kernels.values())
        self.compilers = {}
        self.all = []

    def compiler(self, place, file):
        """The Compiler of the first kernel on which the file's programs run.
        The whole module is built before, so that later builds compile only what
        changed."""
        kernel = self.kernels[machines(file)[0][0]]
        if (place, kernel.name) not in self.compilers:
            if why := place.compiled(kernel, *WARNINGS):
                raise BuildProblem(why)
            self.compilers[place, kernel.name] = Compiler(place, kernel)
        return self.compilers[place, kernel.name]

    def find(self):
        """All mutants."""
        first = self.places.all[0]
        for file, text in self.texts.items():
            self.all += mutate.mutants(file, text, self.compiler(first, file).functions(file))

    def stale(self):
        """Entries of the list whose mutants do not exist."""
        names = {m.name for m in self.all}
        return [name for name in self.survivors if name not in names]

    def draw(self, count):
        """The first count mutants of the draw that need a machine, and
        [(Mutant, why)] of those before them that do not."""
        waiting = mutate.draw(self.all, self.seed)
        good, aside = [], []

        def look(place, mutant):
            known = self.survivors.get(mutant.name)
            if known and known.why == "equivalent":
                return f"equivalent: {known.reason}"
            return self.compiler(place, mutant.file).objection(mutant, self.texts[mutant.file])

        while len(good) < count and waiting:
            now, waiting = waiting[:8 * self.places.count], waiting[8 * self.places.count:]
            for mutant, why in zip(now, self.places.map(look, now)):
                if len(good) == count:
                    break
                if why:
                    aside.append((mutant, why))
                else:
                    good.append(mutant)
        return good, aside

    def here(self, place, file):
        """What the programs of HERE find in a workplace's copy of a file, as a
        line of TAP, or ""."""
        for program in HERE.get(file, ()):
            # timeout ends the program's whole group of processes. Some mistakes
            # make it run forever.
            done = subprocess.run(["timeout", str(SILENCE_S), program], cwd=place.directory, capture_output=True, text=True)
            if done.returncode == TIMEOUT:
                return f"not ok - {program}: does not end within {SILENCE_S} s"
            if done.returncode:
                return f"not ok - {program}: {(done.stdout + done.stderr).strip().splitlines()[-1]}"
        return ""

    def control_here(self, place, file):
        """control() for the programs of HERE, which take seconds."""
        failed = self.here(place, file)
        print(f"{'not ok' if failed else 'ok'} - {Earlier.DRIVER}, {file} on this machine: {failed or 'nothing fails'}", flush=True)
        return not failed

    def control(self, place, machine):
        """Whether the programs of a machine find nothing in the driver itself.
        Otherwise their failures mean nothing."""
        kernel, programs = machine
        what = f"{Earlier.DRIVER} on {kernel}"
        failed, why = self.earlier.known.get(what), ""
        if failed is None:
            why = place.compiled(self.kernels[kernel], *WARNINGS)
            failed, why = ("", why) if why else mutants.first_failure(place.directory, self.kernels[kernel], programs, LIMIT)
        good = not failed and not why
        if good:
            self.earlier.add(what, "")
        print(f"{'ok' if good else 'not ok'} - {what}: {failed or why or 'nothing fails'}", flush=True)
        return good

    def run(self, place, mutant):
        """(failure, trouble) of all programs for the mutant, as
        mutants.first_failure() has them."""
        changed = mutant.applied(self.texts[mutant.file]).encode("latin-1")
        with place.changed(mutant.file, changed):
            failed, why = self.here(place, mutant.file), ""
        for kernel, programs in machines(mutant.file):
            if not failed and not why:
                failed, why = place.failure_with(mutant.file, changed, self.kernels[kernel], programs, WARNINGS, LIMIT)
        return failed, why

    def try_one(self, place, mutant):
        """Whether it was found, or None if the list says that it can't be.
        Prints what happened."""
        text = self.texts[mutant.file]
        known = self.survivors.get(mutant.name)
        if known:
            print(f"# {mutant.name}\n#   known, {known.why}: {known.reason}", flush=True)
            return None
        failed, why, note = self.earlier.known.get(mutant.name), "", "in an earlier run"
        if failed is None:
            start = time.monotonic()
            failed, why = self.run(place, mutant)
            note = f"{time.monotonic() - start:.0f} s"
            if not why:
                self.earlier.add(mutant.name, failed)
        if failed:
            print(f"ok - {mutant.name}\n#   {failed[:150]}; {note}", flush=True)
        else:
            print(f"not ok - {mutant.name}: {why or 'survived'}; {note}\n{mutant.diff(text)}", flush=True)
        return bool(failed)


def judged(results, controls, stale):
    """The lines about the draw as a whole, and how much passed and failed, from
    the results of try_one(), control() and stale()."""
    found, known = results.count(True), results.count(None)
    enough = found * 100 >= FOUND_PERCENT * len(results) > 0
    lines = [f"{'ok' if enough else 'not ok'} - at least {FOUND_PERCENT} % are found: {found} of {len(results)}; {known} are known not to be",
             f"{'not ok' if stale else 'ok'} - {SURVIVORS.name} is about mutants that there are", *(f"#   {name}" for name in stale)]
    return (lines, found + controls.count(True) + enough + (not stale),
            results.count(False) + controls.count(False) + (not enough) + bool(stale))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=mutate.SEED)
    parser.add_argument("--count", type=int, default=COUNT, metavar="N", help=f"mutants of the draw (default {COUNT})")
    parser.add_argument("--first", type=int, metavar="N", help="only the first so many of them")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="without the first so many")
    parser.add_argument("--only", action="append", metavar="WORDS", help="instead of a draw, the mutants with these words in their"
                        " names; may be given again")
    parser.add_argument("--no-control", action="store_true", help="don't run the programs with the driver itself")
    parser.add_argument("--anew", action="store_true", help="forget what earlier runs found out")
    parser.add_argument("--list", action="store_true", help="what is drawn, and what is not: without machines")
    parser.add_argument("--machines", type=int, metavar="N", help="at a time (default: processors)")
    args = parser.parse_args()
    with mutants.Workplaces(args.machines) as places:
        campaign = Campaign(places, args.seed)
        if args.anew:
            campaign.earlier.forget()
        campaign.find()
        stale = campaign.stale()
        if args.only:
            drawn, aside = [m for m in campaign.all if any(words in m.name for words in args.only)], []
            campaign.survivors = {}
        else:
            drawn, aside = campaign.draw(min(args.count, args.first or args.count))
            drawn = drawn[args.skip:]
        print(f"# {len(campaign.all)} mutants; {len(drawn)} drawn with seed {args.seed}, {len(aside)} set aside")
        if args.list:
            for mutant, why in aside:
                print(f"# aside: {mutant.name}\n#   {why}")
            for mutant in drawn:
                print(f"{mutant.name}\n{mutant.diff(campaign.texts[mutant.file])}")
            return
        every = grouped(dict.fromkeys(p for programs in PROGRAMS.values() for p in programs))
        controls = []
        if not args.no_control:
            controls = places.map(campaign.control_here, HERE) + places.map(campaign.control, every)
        results = places.map(campaign.try_one, drawn) if all(controls) else []
    lines, passed, failed = judged(results, controls, stale)
    print("\n".join(lines))
    print(f"{passed} passed, {failed} failed, 0 skipped")
    sys.exit(bool(failed))


if __name__ == "__main__":
    try:
        main()
    except (BuildProblem, ListProblem, syntax.SyntaxProblem) as e:
        print(f"not ok - {e}\n0 passed, 1 failed, 0 skipped")
        sys.exit(1)
