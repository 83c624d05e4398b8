# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu scrub, with ASan and UBSan, on files in place of the driver's.
test_scrub_in_machine.py tests it with the driver.

The program has a tree as its /sys, in a mount namespace of its own. Unlike the
driver's files, these never wake up poll(2).
"""

import contextlib
import json
import os
import pathlib
import pty
import re
import select
import subprocess
import termios
import time

import pytest

from cli.common import build, sanitizer_options, shown, validate
from cli.test_trees import G1, G2, SIZES

SIZE = SIZES["usemem_size"] + SIZES["resmem_size"]
# A busy machine is slow. After this time, it is stuck.
STUCK_S = 600


def until(what):
    end = time.monotonic() + STUCK_S
    while not what():
        assert time.monotonic() < end, f"it did not happen within {STUCK_S} s"
        time.sleep(0.01)


class Driver:
    """The files of a bound GPU. "scrub" is a FIFO: a program that opens it
    waits for begin(), as it would wait for the driver."""

    def __init__(self, tree, address, group, state="off", progress=0):
        tree.bound(address, group=group, scrub_state=state, scrub_progress=progress)
        self.files = tree.root / f"sys/bus/pci/devices/{address}/nvgrace_gpu"
        os.mkfifo(self.files / "scrub", 0o200)

    def begin(self, process, state="scrubbing", progress=None):
        """Waits until the program opens the file "scrub", sets the state, and
        reads what the program writes. So the program always sees that state."""
        def is_asking():
            assert process.poll() is None, process.communicate()
            try:
                links = [os.readlink(fd) for fd in pathlib.Path(f"/proc/{process.pid}/fd").iterdir()]
            except FileNotFoundError:   # closed meanwhile
                return False
            # With scrub_state open, it sleeps in no other place.
            asleep = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
            return asleep and any(link.endswith(f"{self.files.parent.name}/nvgrace_gpu/scrub_state") for link in links)

        until(is_asking)
        self.say(state, progress)
        fifo = os.open(self.files / "scrub", os.O_RDONLY | os.O_NONBLOCK)
        word = b""

        def has_come():
            nonlocal word
            try:
                word += os.read(fifo, 16)
            except BlockingIOError:
                pass
            return word

        until(has_come)
        os.close(fifo)
        assert word == b"1", word

    def say(self, state=None, progress=None):
        # The state comes last, because the program decides by it. The program
        # keeps that file open, so it can't be replaced.
        if progress is not None:
            (self.files / "scrub_progress").write_text(f"{progress}\n")
        if state is not None:
            with open(self.files / "scrub_state", "r+", encoding="ascii") as file:
                file.write(f"{state}\n".ljust(12, "\n"))


class Scrub:
    @pytest.fixture(autouse=True)
    def driver(self, tree):
        assert os.geteuid() == 0, "not root, as in the toolbox"
        self.tree, self.one = tree, Driver(tree, G1, 12)
        with contextlib.ExitStack() as self.end_of_test:
            yield

    def start(self, *words, **streams):
        script = 'mount --bind "$1" /sys && shift && exec "$@"'
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TERM": "xterm", "COLUMNS": "100",
                       **sanitizer_options()}
        process = subprocess.Popen(["unshare", "-m", "sh", "-c", script, "sh", self.tree.root / "sys",
                                    build(), "scrub", *words],
                                   **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **streams},
                                   env=environment)
        self.end_of_test.callback(self.stop, process)
        return process

    def stop(self, process):
        process.kill()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait()

    def end(self, process, status):
        out, error = process.communicate(timeout=STUCK_S)
        assert process.returncode == status, (out, error)
        assert "runtime error" not in (error or "")
        return out, error

    def test_ends(self):
        """All states in which a scrub may end, and unknown ones."""
        for state, words in (("failed", "the scrub failed; see the kernel's log; run \"echo 1 > "),
                             ("dirty", 'not known to be clean: its scrub state is now "dirty", because it was opened'),
                             ("off", 'is now "off"'), ("unknown", 'is now "unknown"'), ("", 'is now ""'),
                             ("\x1b[2J", 'is now "?[2J"')):
            self.one.say("off", 0)
            process = self.start("--json", G1)
            self.one.begin(process, progress=0)
            self.one.say(state, SIZE // 2)
            out, error = self.end(process, 1)
            assert f"nvgrace-gpu: {G1}: " in error
            assert words in error
            document = json.loads(out)
            validate(document)
            result, = document["results"]
            assert (result["result"], result["exit_status"], result["bytes"]) == ("failed", 1, SIZE // 2)

    def test_two(self):
        """The program starts both scrubs before one of them ends. A failed
        scrub does not change the result of the other."""
        two = Driver(self.tree, G2, 13)
        self.tree.device("0029:01:00.0", driver="nouveau", group=14)
        process = self.start("--json", "--all")
        self.one.begin(process)
        two.begin(process)
        self.one.say("failed", 1 << 20)
        time.sleep(0.6)
        assert process.poll() is None
        two.say("clean", SIZE)
        document = json.loads(self.end(process, 1)[0])
        validate(document)
        assert ([(r["address"], r["result"], r["bytes"]) for r in document["results"]] ==
                [(G1, "failed", 1 << 20), (G2, "clean", SIZE)])
        # Three digits, unless this took minutes.
        rate = document["results"][1]["bytes_per_second"] / 1e9
        assert document["results"][1]["message"].endswith(f"s, {rate:.{2 if rate < 9.995 else 1 if rate < 99.95 else 0}f} GB/s")

    def test_joined(self):
        """The rate counts only the bytes since the program started."""
        self.one.say("scrubbing", SIZE - (1 << 30))
        process = self.start("--json", G1)
        self.one.begin(process)
        time.sleep(0.3)
        self.one.say("clean", SIZE)
        result, = json.loads(self.end(process, 0)[0])["results"]
        assert (result["joined"], result["bytes"]) == (True, SIZE)
        assert result["bytes_per_second"] * result["seconds"] == pytest.approx(1 << 30, abs=1000)

    def test_missing_files(self):
        """Missing files. A program that opened the FIFO would hang here."""
        (self.one.files / "scrub").unlink()
        _, error = self.end(self.start(G1), 4)
        assert "can't scrub; install a later nvgrace-gpu-vfio-pci-dkms" in error
        # A driver that does not report the size of the memory.
        os.mkfifo(self.one.files / "scrub")
        (self.one.files / "usemem_size").unlink()
        _, error = self.end(self.start("--all"), 4)
        assert "can't scrub" in error
        (self.one.files / "usemem_size").write_text(f"{SIZE}\n")
        (self.one.files / "scrub_state").unlink()
        _, error = self.end(self.start(G1), 1)
        assert "can't start the scrub: No such file" in error

    def test_rubbish(self):
        """No content of scrub_progress makes the program crash or hang."""
        for progress in ("", "x", "-1", str(1 << 64), str((1 << 64) - 1), "0x10"):
            self.one.say("off")
            (self.one.files / "scrub_progress").write_text(progress)
            process = self.start("--json", G1)
            self.one.begin(process)
            self.one.say("failed")
            validate(json.loads(self.end(process, 1)[0]))

    def ask(self, answer, *words):
        """Runs the program with a terminal on which a person has typed; what
        the terminal shows."""
        leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (24, 40))
        self.end_of_test.callback(os.close, leader)
        os.write(leader, answer.encode())
        process = self.start(*words, stdin=follower, stderr=follower)
        os.close(follower)
        return process, leader

    def test_question(self):
        """On a terminal, it asks for all GPUs at once. The end of the input is
        no agreement. Nothing is scrubbed before that."""
        two = Driver(self.tree, G2, 13)
        for words, who, what in ((["--all"], f"{G1}, {G2}", "these GPUs"), ([G2], G2, "this GPU")):
            for answer in ("n\n", "\n", "\x04"):
                process, leader = self.ask(answer, *words)
                # A program that opened the FIFO would hang here.
                out, _ = self.end(process, 4)
                text = b"".join(shown(leader)).decode()
                assert out == ""
                assert f"{who}: scrub overwrites the memory of {what}. Continue? [y/N] " in text
                assert f"{who}: nothing done" in text
        for answer in ("y\n", "Yes\n"):
            process, leader = self.ask(answer, G2)
            two.begin(process, progress=0)
            two.say("clean", SIZE)
            assert re.search(f"^{G2}: clean; ", self.end(process, 0)[0])
            drawn = re.findall(r"\r( +\d+ % [^\x1b]*)", b"".join(shown(leader)).decode())
            assert drawn and max(map(len, drawn)) < 40
            two.say("off")

    def test_bar(self):
        """The line has bytes, rate and time left. It follows scrub_progress back
        after a reset, and ignores the value of the last scrub."""
        self.one.say("off", SIZE)
        leader, follower = pty.openpty()
        self.end_of_test.callback(os.close, leader)
        began = time.monotonic()
        process = self.start("--yes", G1, stderr=follower)
        os.close(follower)
        text = ""

        def read():
            nonlocal text
            assert select.select([leader], [], [], STUCK_S)[0], f"nothing more after {text}"
            try:
                more = os.read(leader, 65536).decode()
            except OSError:     # a terminal ends with EIO
                more = ""
            text += more
            return more

        def see(percent):
            begin = len(text)
            while f"\r{percent:3} % " not in text[begin:]:
                assert read(), text

        self.one.begin(process, progress=SIZE)
        see(0)
        for progress, percent in ((0, 0), (SIZE // 2, 50), (SIZE // 4, 25)):
            self.one.say("scrubbing", progress)
            see(percent)
        slowest = SIZE // 2 / (time.monotonic() - began) / 1e9
        self.one.say("clean", SIZE)
        while read():
            pass
        out, _ = process.communicate(timeout=STUCK_S)
        assert process.returncode == 0
        assert re.search(rf"^{G1}: clean; 95\.75 GiB in ", out)
        shown = re.findall(r"\r +(\d+) % (\d+:\d\d left, )?([\d.]+ \w+) of 95\.75 GiB, (\d+\.\d) GB/s", text)
        assert list(dict.fromkeys(s[0] for s in shown))[:3] == ["0", "50", "25"], text
        assert {s[2] for s in shown if s[0] == "50"} == {"47.87 GiB"}
        assert all(s[1] for s in shown if s[0] == "50"), shown
        assert all(float(s[3]) > slowest - 0.1 for s in shown if s[0] == "50"), (slowest, shown)
