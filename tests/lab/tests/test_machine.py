# SPDX-License-Identifier: GPL-2.0-only
"""The virtual GH200 without the module under test: a kernel boots, the GPUs are
in their places and work, stock vfio-pci takes them, and the runner notices
whatever goes wrong."""

import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys

import pytest

from lab import vm

SIZE = 0x17F0000000
# A busy machine is slow. What takes longer never ends.
STUCK_S = 300

SMOKE = [
    {"name": "devices", "run": """
        for g in first second; do
            d=/sys/bus/pci/devices/$(gpu $g)
            echo "$g $(cat $d/vendor $d/device $d/class | tr '\\n' ' ')"
            echo "$g resets: $(cat $d/reset_method)"
        done"""},
    {"name": "table", "run": "for t in /sys/firmware/acpi/tables/SSDT*; do grep -c NVGRAC $t; done"},
    {"name": "ready", "run": "bar0 first 0x1498; bar0 first 0x200bc; bar0 second 0x1498; bar0 second 0x200bc"},
    {"name": "reset", "run": "echo 1 >/sys/bus/pci/devices/$(gpu first)/reset && bar0 first 0x1498"},
    {"name": "vfio-pci", "run": """
        modprobe vfio-pci
        for g in first second; do
            bind $g vfio-pci || exit 1
            group=$(readlink /sys/bus/pci/devices/$(gpu $g)/iommu_group)
            echo "group of $(ls /sys/kernel/iommu_groups/${group##*/}/devices)"
            [ -c /dev/vfio/${group##*/} ] || exit 1
        done
        unbind first && bind first vfio-pci"""},
    {"name": "memory", "run": """
        base=$(awk '$1 == "second" { print $3 }' /vm/gpus.conf)
        [ $(host peek $base 4) = 00000000 ] || exit 1
        devmem $base 32 0x11223344 && [ $(host peek $base 4) = 44332211 ] || exit 1
        host poke $base 0badcafe && [ $(devmem $base 32) = 0xFECAAD0B ] || exit 1
        host peek 0x1000 4"""},
]


@pytest.fixture(scope="module", params=["newest", pytest.param("newest-amd64", marks=pytest.mark.long)])
def kernel(request):
    return request.param


def boot(name, commands, **more):
    with vm.Machine(name, commands=commands, **{"memory": 0, **more}) as machine:
        return machine.run()


# ---- what a machine has ------------------------------------------------------

@pytest.fixture(scope="module")
def smoke(kernel):
    gpus = [{"name": "first", "size": "3G"}, {"name": "second", "size": SIZE, "ready": False}]
    return boot(kernel, SMOKE, gpus=gpus, memory="256G", timeout=900)


def test_only_a_peek_at_memory_that_is_not_there_fails(smoke):
    assert smoke.failures == ["command memory failed with 1"]
    assert "ValueError: 4 bytes at 0x1000 are not in the GPU memory" in smoke.output("memory")


def test_the_kernel_is_the_one_asked_for(smoke):
    assert any(f"Linux version {smoke.release} " in line for line in smoke.dmesg)


def test_devices(smoke):
    modelled = smoke.kernel.has_model
    for name in ("first", "second"):
        assert f"{name} {'0x10de 0x2342 0x030200' if modelled else '0x1234 0x1111 0x038000'}" in smoke.output("devices")
        # Linux does no bus reset for this NVIDIA id. A bochs-display has no
        # other reset.
        assert f"{name} resets: {'flr' if modelled else 'bus'}" in smoke.output("devices")


def test_our_table_is_there(smoke):
    assert sum(map(int, smoke.command("table").output)) == 1


def test_readiness(smoke):
    assert smoke.command("ready").output == ["0x000000FF"] * 2 + ["0x00000000"] * 2
    assert smoke.command("reset").output == ["0x000000FF"]


def test_each_gpu_has_a_group_of_its_own(smoke):
    assert smoke.command("vfio-pci").output == ["group of 0000:01:00.0", "group of 0000:02:00.0"]


def test_the_model(kernel):
    result = boot(kernel, [
        {"name": "block", "run": "bar0 g 0xf00000; bar0 g 0xf00020; bar0 g 0xf00024 0x77; bar0 g 0xf00024"},
        {"name": "flr", "run": "echo flr >/sys/bus/pci/devices/$(gpu g)/reset_method; "
                               "echo 1 >/sys/bus/pci/devices/$(gpu g)/reset; bar0 g 0xf00020; bar0 g 0xf00024"},
        {"name": "not-ready", "run": "bar0 g 0xf00014 0xffffffff; bar0 g 0xf00018; bar0 g 0x1498"},
        {"name": "ready", "run": "host ready g 0; bar0 g 0xf00018; host counters g; host ready nobody 0"},
        {"name": "dvsec", "run": "od -An -tx1 -j 256 -N 12 /sys/bus/pci/devices/$(gpu g)/config"},
    ], gpus=[{"name": "g", "model": {"mig_dvsec": 1}}])
    assert result.failures == ["command ready failed with 1"]
    assert result.command("block").output == ["0x4D47564E", "0x00000000", "0x00000077"]
    assert result.command("flr").output == ["0x00000001", "0x00000077"]
    assert result.command("not-ready").output == ["0x00000000", "0x00000000"]
    ready, counters, error = result.command("ready").output
    assert ready == "0x00000001"
    assert json.loads(counters)["flr"] == 1
    assert "no model of a GPU nobody" in error
    assert result.output("dvsec").split() == "23 00 01 00 de 10 00 01 03 00 01 00".split()


def test_many_gpus(kernel):
    result = boot(kernel, [
        {"name": "all", "run": "for i in $(seq 0 23); do bar0 g$i 0xf00000 || exit 1; done"},
        {"name": "addresses", "run": "cat /vm/gpus.conf | wc -l"},
    ], gpus=[{"name": f"g{i}", "size": "3G"} for i in range(24)], memory="256G")
    assert result.failures == []
    assert result.command("all").output == ["0x4D47564E"] * 24
    assert result.output("addresses") == "24"


# ---- what can go wrong -------------------------------------------------------

def test_commands_that_fail(kernel):
    result = boot(kernel, [
        {"name": "fails", "run": "exit 7"},
        {"name": "killed", "run": "kill -9 $$"},
        {"name": "no-end", "run": "printf unfinished"},
        {"name": "splat", "run": "echo '<4>WARNING: not a real one' >/dev/kmsg"},
        {"name": "says-so", "run": "echo BUG: in the output only"},
    ])
    assert result.failures == ["command fails failed with 7", "command killed failed with 137",
                               "kernel log: WARNING: not a real one"]
    assert result.output("no-end") == "unfinished"


def test_a_kernel_crash(kernel):
    text = "\n".join(boot(kernel, [{"name": "crash", "run": "sleep 1; echo c >/proc/sysrq-trigger; sleep 60"}]).failures)
    for want in ("command crash did not end", "never said that it was done", "sysrq triggered crash", "Kernel panic"):
        assert want in text
    # The machine ends with the panic.
    assert "timeout" not in text


def test_a_timeout(kernel, tmp_path):
    def hurry(machine):
        """Leave two seconds from now, however long the boot took."""
        machine.timeout = machine.elapsed() + 2

    log = tmp_path / "stuck.log"
    result = boot(kernel, [{"name": "hang", "run": "host hurry; sleep 600"}], handlers={"hurry": hurry}, log=str(log))
    text = "\n".join(result.failures)
    assert re.search(r"(?m)^timeout after \d+ s, in command hang; the console's last line: .*; "
                     r"CPU 0 at [0-9a-f]+, then [0-9a-f]+; CPU 1 at [0-9a-f]+, then [0-9a-f]+$", text), text
    # The limit that hurry() has set, and not the machine's first one.
    assert "timeout after 600 s" not in text
    said = log.read_text()
    for want in (r"\? thread \d+ .*, call ", r"\? CPU#0", r"\? CPU#1", r"\? .*(?:PC|RIP)="):
        assert len(re.findall(want, said)) >= 2, want
    assert "no more is known" not in said


def test_memory_at_another_address(kernel):
    with vm.Machine(kernel, memory="4G", gpus=[{"name": "g", "size": "3G"}], timeout=900) as machine:
        place = machine.memory_address
        machine.memory_address -= 1 << 30
        result = machine.run()
    assert f"the guest gave up: the memory is at {place:#018x}, the SSDT was made for {place - (1 << 30):#x}" in result.failures


def children_of(pid):
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{pid}\n" in status.read_text():
                found.append(int(status.parent.name))
        except OSError:
            pass    # gone meanwhile
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_nothing_is_left_when_the_program_is_ended(kernel, number, tmp_path):
    config = tmp_path / "config"
    config.write_text(json.dumps({"gpus": [{"name": "g", "size": "3G"}], "commands": ["sleep 600"]}))
    said = ""
    with subprocess.Popen([sys.executable, "-m", "lab.vm", "run", "--kernel", kernel, "--config", config],
                          env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as program:
        for line in program.stdout:
            said += line
            if line.startswith("@@RUN"):
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
