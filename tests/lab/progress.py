# SPDX-License-Identifier: GPL-2.0-only
"""Shows what is going on, and for how long. scripts/dev/demo.py uses it."""

import subprocess
import sys
import threading
import time

# Seconds between reports where a line can't be overwritten.
QUIET = 10


class Step:
    """with Step("doing something"): ... shows the text and the seconds, on a
    terminal every second."""

    def __init__(self, text):
        self.text = text
        self._over = threading.Event()

    def __enter__(self):
        self._start = time.monotonic()
        print(f"{self.text} ...", end="" if sys.stdout.isatty() else "\n", flush=True)
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()
        return self

    def _tick(self):
        terminal = sys.stdout.isatty()
        while not self._over.wait(1 if terminal else QUIET):
            seconds = time.monotonic() - self._start
            if terminal:
                print(f"\r{self.text} ... {seconds:.0f} s", end="", flush=True)
            else:
                print(f"  ... {seconds:.0f} s", flush=True)

    def __exit__(self, *exc):
        self._over.set()
        self._thread.join()
        seconds = time.monotonic() - self._start
        start = "\r" if sys.stdout.isatty() else ""
        print(f"{start}{self.text} ... {'failed after ' if exc and exc[0] else ''}{seconds:.0f} s", flush=True)


def run(argv, **kwargs):
    """Run a command quietly. If it fails, print its output and raise
    subprocess.CalledProcessError."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if done.returncode:
        print("\n" + done.stdout, flush=True)
        raise subprocess.CalledProcessError(done.returncode, argv)
