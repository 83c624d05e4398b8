# SPDX-License-Identifier: GPL-2.0-only
"""What a machine was doing when its time was over: the registers of its
processors, and the state of QEMU's threads.

Two samples follow each other, so that they show what does not move."""

import json
import pathlib
import re
import socket
import time

# Seconds that QEMU has for each answer. Its main loop may be what hangs.
ANSWER = 300
APART = 2


def _ask(command, **arguments):
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


def _registers(monitor):
    """Yields lines from QEMU's monitor, through QMP. QEMU doesn't take a second
    connection soon after the first."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
        connection.settimeout(ANSWER)
        connection.connect(monitor)
        connection.sendall(_ask("qmp_capabilities"))
        for pause in (0, APART):
            time.sleep(pause)
            connection.sendall(_ask("human-monitor-command", **{"command-line": "info registers -a"}))
            # What else it sends are events, and an empty answer to the first command.
            said = next((text for line in answers if (text := json.loads(line).get("return"))), "QEMU has closed its monitor")
            yield from filter(None, said.splitlines())


def _threads(pid):
    """A line for each thread of a process: its name, its state, its time in
    clock ticks (user, system), and where it waits in the kernel."""
    for task in sorted(pathlib.Path(f"/proc/{pid}/task").iterdir(), key=lambda p: int(p.name)):
        try:
            name, _, rest = (task / "stat").read_text("utf-8").partition("(")[2].rpartition(")")
            fields = rest.split()
            yield (f"thread {task.name} {name}: {fields[0]}, user {fields[11]}, system {fields[12]}, "
                   f"in {(task / 'wchan').read_text('utf-8')}, call {(task / 'syscall').read_text('utf-8').strip()}")
        except OSError as e:
            yield f"thread {task.name}: {e.strerror}"


def report(pid, monitor):
    """Yields lines about a QEMU with this pid and monitor's socket. A monitor
    that does not answer is a line, too."""
    yield from _threads(pid)
    try:
        yield from _registers(monitor)
    except (OSError, ValueError) as e:
        yield f"no more is known: {e}"
    yield from _threads(pid)


def places(lines):
    """The program counters of each processor in what report() has said, in a
    line."""
    found = {}
    for cpu, place in re.findall(r"CPU#(\d+)\b.*?\b(?:RIP|PC)=([0-9a-f]+)", "\n".join(lines), re.S):
        found.setdefault(int(cpu), []).append(place)
    return "; ".join(f"CPU {cpu} at {', then '.join(at)}" for cpu, at in found.items()) or "no registers are known"
