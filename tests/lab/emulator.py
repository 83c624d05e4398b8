# SPDX-License-Identifier: GPL-2.0-only
"""What the machines of vm.py and the systems of system/machine.py have in common:
the models of their GPUs, QEMU, and what comes from it, line by line."""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import tempfile
import time

from lab.model import gpu as model

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def end_by_signals():
    """Make signals raise SystemExit, which unwinds every "finally" and "with".
    Later signals are ignored."""
    def leave(number, frame):
        for n in ENDING:
            signal.signal(n, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in ENDING:
        signal.signal(number, leave)


class Emulator:
    """A machine with self.gpus. What starts goes into self._running, which ends it."""

    def __init__(self, echo):
        self.echo = echo
        self.models = {}
        self.qemu = self._log = None
        self._running = contextlib.ExitStack()
        self._started = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """End what is running. May be called at any time, more than once."""
        self._running.close()

    def elapsed(self):
        """Seconds since the machine's start."""
        return time.monotonic() - self._started

    def note(self, mark, line):
        """Log a line. README.md lists the marks."""
        if self._log:
            self._log.write(f"{self.elapsed():8.3f} {mark} {line}\n")
            self._log.flush()
        if self.echo:
            self.echo(mark, line)

    # Start.

    def _start_models(self, directory):
        self._selector = self._running.enter_context(selectors.DefaultSelector())
        self._streams = {}      # open, with what is left of each
        for i, g in enumerate(self.gpus):
            device = model.Gpu(model.Spec.from_dict({**({} if g.ready else {"ready_after_ms": None}), **g.model}))
            self._running.callback(device.close)
            self.models[g.name] = model.Server(device, f"{directory}/gpu{i}.sock").start()
            self._running.callback(self.models[g.name].stop)

    def _listen(self, path):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._running.callback(listener.close)
        listener.bind(path)
        listener.listen(1)
        return listener

    def _expect(self, path, line, connected):
        """When QEMU connects a port, connected() gets the stream, and line() each of
        its lines."""
        def accept():
            stream = listener.accept()[0]
            self._running.callback(stream.close)
            self._selector.unregister(listener)
            connected(stream)
            self._follow(stream, line)

        listener = self._listen(path)
        self._selector.register(listener, selectors.EVENT_READ, accept)

    def _follow(self, stream, line):
        self._streams[stream] = b""
        self._selector.register(stream, selectors.EVENT_READ, lambda: self._read(stream, line))

    def _start_qemu(self, arguments, console_line, **options):
        self._stderr = self._running.enter_context(tempfile.TemporaryFile())
        self.qemu = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=self._stderr, **options)
        self._running.callback(self.qemu.stdout.close)
        self._running.callback(self._end_qemu)
        self._follow(self.qemu.stdout, console_line)

    def _end_qemu(self):
        if self.qemu.poll() is None:
            self.qemu.kill()
        self.qemu.wait()

    # Run.

    def _read(self, stream, line):
        """Pass whole lines on, and what is left at the end. Returns what has come."""
        data = os.read(stream.fileno(), 65536)
        *lines, rest = (self._streams[stream] + data).split(b"\n")
        self._streams[stream] = rest
        if not data:
            lines += [rest] if rest else []
            self._selector.unregister(stream)
            del self._streams[stream]
        for text in lines:
            line(text.decode("utf-8", "replace").rstrip("\r"))
        return data

    def _last_words(self):
        """What QEMU has said of itself."""
        self._stderr.seek(0)
        return self._stderr.read().decode("utf-8", "replace").strip()
