# SPDX-License-Identifier: GPL-2.0-only
"""The test channel: what an init says, and the answers to its questions."""

import contextlib
import re

from lab.verdict import Command

# What a handler returns that answers later, by Channel.answer().
LATER = object()


class Channel:
    """One virtio-serial port over which an init talks.

    A machine has one, and one for each guest in it. Boots and commands of a
    guest add up over all its lives."""

    def __init__(self, machine, name, mark=">"):
        self.machine, self.name, self.mark = machine, name, mark
        self.boots = []         # seconds since the machine's start
        self.commands = []
        self.dmesg = []
        self.console = []       # of a guest
        self.failures = []
        self.counters = []      # of lines that ran: an archive in base64
        self.current = None     # the Command that runs
        self.done = self._in_dmesg = False
        self._connection = None

    def connected(self, connection):
        self._connection = connection

    def console_line(self, line):
        self.machine.note(self.mark.replace(">", "|"), line)
        self.console.append(line)

    def line(self, line):
        now = self.machine.elapsed()
        self.machine.note("d" if self._in_dmesg else self.mark, line)
        # If what a command has printed last lacks its newline, a marker follows
        # in the same line: at the command's end, or when another of its
        # processes asks. QEMU prints a warning in two pieces.
        if self.current and (match := re.search(rf"(?<=.)@@(?:RC {re.escape(self.current.name)} \d+$|HOST )", line)):
            self.current.output.append(line[:match.start()])
            line = line[match.start():]
        if not line.startswith("@@"):
            if self._in_dmesg:
                self.dmesg.append(line)
            elif self.current:
                self.current.output.append(line)
            return
        word, _, rest = line[2:].partition(" ")
        if word == "BOOT":
            self.boots.append(now)
            self.current, self._in_dmesg, self.done = None, False, False
        elif word == "RUN":
            self.current = Command(rest)
            self._command_started = now
            self.commands.append(self.current)
        elif word == "RC" and self.current and rest.rpartition(" ")[0] == self.current.name:
            self.current.rc = int(rest.rpartition(" ")[2])
            self.current.seconds = now - self._command_started
            self.current = None
        elif word == "HOST":
            self._answer(rest)
        elif word == "COUNTERS":
            self.counters.append(rest)
        elif word == "DMESG":
            self._in_dmesg = True
        elif word == "DONE":
            self.done = True
            self._in_dmesg = False
            self._bid_farewell()
        elif word == "FAIL":
            self.failures.append("the guest gave up: " + rest)
        elif self.current:
            self.current.output.append(line)

    def _bid_farewell(self):
        """The guest waits for this before it goes. It may have gone."""
        if self._connection:
            with contextlib.suppress(OSError):
                self._connection.sendall(b"done\n")

    def _answer(self, question):
        name, *words = question.split()
        try:
            answer = self.machine.handlers[name](self.machine, *words)
            if answer is LATER:
                return
            answer = "ok" if answer is None else f"ok {answer}"
        # The guest must not wait for ever, whatever a handler does.
        except Exception as e:  # pylint: disable=broad-exception-caught
            answer = f"error {type(e).__name__}: {e}"
        self.answer(answer, question)

    def answer(self, answer, question):
        """Answer the guest, which waits for this. answer: "ok ..." or "error ...".
        """
        answer = answer.replace("\n", " ").rstrip()
        self.machine.note("<", answer)
        try:
            self._connection.sendall(answer.encode() + b"\n")
        except OSError as e:
            self.failures.append(f"the guest left before the answer to {question!r}: {e}")
