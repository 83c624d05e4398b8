# SPDX-License-Identifier: GPL-2.0-only
"""An init as the runner sees it: what its commands print, on one port; its
questions, on another; and the console, with the kernel's log.

The question "next STATUS" ends a command, and its answer is the text of the next
one. It may overtake what the command has printed, after which the init therefore
prints a NUL and a newline."""

import base64
import dataclasses


@dataclasses.dataclass
class Command:
    """A command of an init."""

    name: str
    text: str = ""
    rc: "int | None" = None     # when it has ended
    # What was said meanwhile: (">", what it has printed) and ("|", the log).
    lines: "list[tuple[str, str]]" = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def output(self):
        return [line for mark, line in self.lines if mark == ">"]

    @property
    def log(self):
        return [line for mark, line in self.lines if mark == "|"]


class Channel:
    """The init of a machine, or of a guest in it, over all the guest's lives.

    script: (name, text) of the commands of each boot, after which it switches off.
    hold: run() gives the commands, and finish() those of the script."""

    def __init__(self, machine, name="", script=()):
        self.machine, self.name, self.script, self.hold = machine, name, script, False
        self.boots = []         # seconds since the machine's start
        self.commands, self.console, self.failures = [], [], []
        self.done = False       # it has run all commands, and may switch off
        self.connection = None  # of the port for questions
        self._todo, self._current, self._started = [], None, 0.0
        # Whether it waits for a command; the status of the one before; whether all
        # that this one has printed is here.
        self._waits, self._status, self._printed = False, None, False

    @property
    def running(self):
        """The name of the command that runs."""
        return self._current and self._current.name

    def _said(self, mark, line):
        self.machine.note(self.name + mark, line)
        if self._current:
            self._current.lines.append((mark, line))

    def console_line(self, line):
        self.console.append(line)
        self._said("|", line)

    def printed(self, line):
        text = line.removesuffix("\0")
        if text or text == line:
            self._said(">", text)
        if text != line:
            self._printed = True
            self._go_on()

    def question(self, line):
        name, *words = line.split() or [None]
        if not name:
            return      # what a guest has left that was killed
        self.machine.note(self.name + "?", line)
        if name == "next":
            if not words:
                self.boots.append(self.machine.elapsed())
                if not self.hold:
                    self._todo = [Command(*c) for c in self.script]
                self._current, self.done = None, False
            self._waits, self._status = True, words and int(words[0])
            self._go_on()
            return
        try:
            answer = self.machine.handlers[name](self.machine, *words)
            self._answer("ok" if answer is None else f"ok {answer}", line)
        # The init must not wait for ever, whatever a handler does.
        except Exception as e:  # pylint: disable=broad-exception-caught
            self._answer(f"error {type(e).__name__}: {e}", line)

    def _answer(self, answer, question, mark="<", shown=None):
        answer = answer.replace("\n", " ").rstrip()
        self.machine.note(self.name + mark, shown or answer)
        try:
            self.connection.sendall(answer.encode() + b"\n")
        except OSError as e:
            self.failures.append(f"{self.name or 'the machine'} left before the answer to {question!r}: {e}")

    def _go_on(self):
        """Answer an init that waits for a command, if there is an answer."""
        if not self._waits:
            return
        if self._current and self._printed:
            self._current.seconds = self.machine.elapsed() - self._started
            self._current.rc, self._current = self._status, None
        if self._current or self.hold and not self._todo:
            return
        self._waits = self._printed = False
        if not self._todo:
            self.done = True
            self._answer("error no more", "next")
            return
        self._current, self._started = self._todo.pop(0), self.machine.elapsed()
        self.commands.append(self._current)
        text = self._current.text
        self._answer(f"ok {base64.b64encode(text.encode()).decode()}", "next", "$", f"{self._current.name}: {text}")

    def run(self, name, text):
        """The Command of a text, which runs when those before have ended."""
        command = Command(name, text)
        self._todo.append(command)
        self._go_on()
        return command

    def finish(self):
        """Have the init run its script and switch off, after all other commands."""
        self.hold = False
        self._todo += [Command(*c) for c in self.script]
        self._go_on()

    def output(self, name):
        """What the last command of that name has printed."""
        return next((c.output for c in reversed(self.commands) if c.name == name), [])
