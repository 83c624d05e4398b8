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


@dataclasses.dataclass
class Result:
    """What a machine's run showed. Without failures, it passed."""

    kernel: object              # the Kernel
    commands: list              # of channel.Command
    failures: "list[str]"
    console: "list[str]"
    boot_seconds: "float | None"
    seconds: float

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
    return [line for line in lines if any(p.search(line) for p in SPLATS) and not any(re.search(a, line) for a in allow)]


def troubles(lines, allow=()):
    """What scan_log() finds, each line once and without its time, since console
    and dmesg have the same lines."""
    return list(dict.fromkeys(re.sub(r"^\[[ 0-9.]+\](\[[^]]*\])? *", "", hit) for hit in scan_log(lines, allow)))


def judge(machine, ended):
    """What is wrong with the run of a machine. ended: how QEMU ended."""
    channel = machine.channel
    failures = list(channel.failures)
    failures += [f"command {c.name} " + ("did not end" if c.rc is None else f"failed with {c.rc}") for c in channel.commands if c.rc != 0]
    if not channel.done:
        started = {c.name for c in channel.commands}
        failures += [f"command {name} was never started" for name, _ in channel.script if name not in started]
        failures.append(f"the machine ended before it was told to ({ended}); the console's last line: {(channel.console or [''])[-1]!r}")
    for each in (channel, *machine.guests.values()):
        of = f" of guest {each.name}" if each.name else ""
        failures += [f"guest {each.name}: {f}" for f in each.failures if each.name]
        # The console has what came too late for dmesg, dmesg what the console was
        # too slow for.
        failures += [f"kernel log{of}: {t}" for t in troubles(each.console + each.output("dmesg"), machine.allow)]
    return failures
