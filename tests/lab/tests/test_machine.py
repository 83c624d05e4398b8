# SPDX-License-Identifier: GPL-2.0-only
"""The runner notices what goes wrong in a machine, and leaves nothing."""

import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys

import pytest

from lab import session, vm

# A busy machine is slow. What takes longer never ends.
STUCK_S = 300


@pytest.fixture
def kernel():
    return "newest"


def boot(name, commands, **more):
    with vm.Machine(name, commands=commands, **{"memory": 0, **more}) as machine:
        return machine.run()


@pytest.mark.long
def test_a_kernel_crash(kernel):
    text = "\n".join(boot(kernel, [{"name": "crash", "run": "sleep 1; echo c >/proc/sysrq-trigger; sleep 60"}]).failures)
    for want in ("command crash did not end", "command dmesg was never started", "ended before it was told to", "sysrq triggered crash", "Kernel panic"):
        assert want in text
    # The machine ends with the panic.
    assert "timeout" not in text


@pytest.mark.parametrize("limit, begin", [
    pytest.param("SILENCE", "sleep 8", marks=pytest.mark.long),
    ("HANGS", "echo 'rcu: INFO: rcu_sched detected stalls on CPUs/tasks:' >/dev/kmsg"),
], ids=["silent", "stalled"])
def test_a_timeout(kernel, limit, begin, monkeypatch):
    """Also of a machine that goes on to say something."""
    machine = session.Interactive(kernel, memory=0)
    with machine.machine:
        machine.run("up", "true")
        monkeypatch.setattr(session, limit, 2)
        with pytest.raises(session.Ended):
            machine.run("hang", f"{begin}; while :; do echo again; sleep 1; done")
        said = [re.sub(r"\d+", "N", failure) for failure in machine.end().failures]
    assert said.count("timeout after N s, in command hang") == 1, said


def children_of(pid):
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{pid}\n" in status.read_text():
                found.append(int(status.parent.name))
        except OSError:
            pass    # gone meanwhile
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, *(pytest.param(s, marks=pytest.mark.long) for s in (signal.SIGINT, signal.SIGKILL))], ids=lambda s: s.name)
def test_nothing_is_left_when_the_program_is_ended(kernel, number, tmp_path):
    config = tmp_path / "config"
    config.write_text(json.dumps({"gpus": [{"name": "g", "size": "3G"}], "commands": ["echo begun; sleep 600"]}))
    said = ""
    with subprocess.Popen([sys.executable, "-m", "lab.vm", "--kernel", kernel, "--config", config],
                          env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as program:
        for line in program.stdout:
            said += line
            if line == "begun\n":
                break
        children = [os.pidfd_open(pid) for pid in children_of(program.pid)]
        program.send_signal(number)
    assert len(children) == 1, said
    # A process that has ended is readable.
    assert select.select(children, [], [], STUCK_S)[0] == children
    os.close(children[0])
    assert program.returncode == (-number if number == signal.SIGKILL else 128 + number)
    # SIGKILL leaves the machine's folder.
    assert [p.name[:3] for p in tmp_path.iterdir() if p != config] == ["vm-"] * (number == signal.SIGKILL)
