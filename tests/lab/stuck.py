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


class Monitor:
    """QEMU's monitor, through QMP."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(ANSWER)
            self._socket.connect(path)
            self._file = self._socket.makefile("rwb", buffering=0)
            self._file.readline()       # the greeting
            self.ask("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self._socket.close()

    def ask(self, command, **arguments):
        """The answer to a command. Raises OSError if none comes."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        for line in self._file:
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise OSError(f"QEMU's monitor answers {command} with {answer['error']}")
            # Anything else is an event.
        raise ConnectionError("QEMU has closed its monitor")


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
        # QEMU doesn't take a second connection soon after the first.
        with Monitor(monitor) as m:
            for pause in (0, APART):
                time.sleep(pause)
                registers = m.ask("human-monitor-command", **{"command-line": "info registers -a"})
                yield from filter(None, registers.splitlines())
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
