# SPDX-License-Identifier: GPL-2.0-only
"""What a machine's run showed, and whether it is a failure: the scan of kernel
logs above all."""

import dataclasses
import json
import pathlib
import re

# Lines of a kernel log that fail a run, whatever the tests said. The tool judges
# by the same.
SPLATS = tuple(re.compile(json.loads(line.rstrip(",")))
               for line in (pathlib.Path(__file__).resolve().parents[2] / "cli/test/splats.h").read_text("utf-8").splitlines()
               if line.startswith('"'))

# Lines that distribution kernels log in this emulation although nothing is
# wrong: (pattern, reason).
KNOWN_HARMLESS = ()


@dataclasses.dataclass
class Command:
    """How a command of the guest ended, and what it printed."""

    name: str
    rc: "int | None" = None
    output: "list[str]" = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclasses.dataclass
class Result:
    """What a machine's run showed. Without failures, it passed."""

    kernel: object              # the Kernel
    commands: "list[Command]" = dataclasses.field(default_factory=list)
    failures: "list[str]" = dataclasses.field(default_factory=list)
    console: "list[str]" = dataclasses.field(default_factory=list)
    dmesg: "list[str]" = dataclasses.field(default_factory=list)
    boot_seconds: "float | None" = None
    seconds: float = 0.0

    @property
    def release(self):
        return self.kernel.release

    @property
    def ok(self):
        return not self.failures

    def command(self, name):
        return next(c for c in self.commands if c.name == name)

    def output(self, name):
        return "\n".join(self.command(name).output)


def scan_log(lines, allow=()):
    """The lines of a kernel log that match SPLATS. allow: regular expressions
    of lines that may be there."""
    allowed = [re.compile(p) for p in allow] + [re.compile(p) for p, _ in KNOWN_HARMLESS]
    hits = []
    for line in lines:
        if any(p.search(line) for p in SPLATS) and not any(a.search(line) for a in allowed):
            hits.append(line)
    return hits


def troubles(lines, allow=()):
    """What scan_log() finds, each line once and without its time, since console
    and dmesg have the same lines."""
    return list(dict.fromkeys(re.sub(r"^\[[ 0-9.]+\](\[[^]]*\])? *", "", hit) for hit in scan_log(lines, allow)))


def judge(machine, result, ended):
    """Add to result.failures what is wrong with the run of a machine. ended:
    how QEMU ended."""
    for c in result.commands:
        if c.rc is None:
            result.failures.append(f"command {c.name} did not end")
        elif c.rc:
            result.failures.append(f"command {c.name} failed with {c.rc}")
    seen = {c.name for c in result.commands}
    result.failures += [f"command {n} was never started" for n, _ in machine.commands if n not in seen]
    if not machine.channel.done:
        result.failures.append(f"the guest never said that it was done ({ended})")
    # The console has what came too late for dmesg, dmesg what the console was
    # too slow for.
    logs = {"kernel log": result.console + result.dmesg}
    for name, guest in machine.guests.items():
        result.failures += [f"guest {name}: {f}" for f in guest.failures]
        logs[f"kernel log of guest {name}"] = guest.console + guest.dmesg
    for name, lines in logs.items():
        result.failures += [f"{name}: {t}" for t in troubles(lines, machine.allow)]
