# SPDX-License-Identifier: GPL-2.0-only
"""Guests that use a GPU's memory, on hosts that are virtual machines themselves;
see README.md. Each host boots once and runs the guests that were chosen, mostly one
after the other. The consoles are in build/log/guest-HOST-CPU.log."""

import json
import pathlib
import re
import time

import pytest

from cli import common
from guests import shared
from guests.shared import MEMORY, GiB, Gpu
from lab import gpu_memory, programs, session, stage2, vm

pytestmark = pytest.mark.needs("root qemu")

HERE = pathlib.Path(__file__).resolve().parent

FIRMWARE = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"

# Kernel, processor, and what KVM does there with usemem. From Linux 6.17, it maps
# usemem cacheable on a processor with FEAT_S2FWB and CACHE_DIC, such as "max" and
# Grace.
HOSTS = {("newest", "max"): "cached", ("newest-16k", "max"): "cached", ("newest-64k", "max"): "cached",
         ("stable", "max"): "device", ("newest", "neoverse-n1"): "refused"}

GPUS = [
    # usemem has 1.5 GiB, resmem 1.25 GiB. Neither fills its BAR.
    Gpu("gh200", MEMORY, 0xB000_0000),
    # Both parts fill their BARs.
    Gpu("second", MEMORY + 4 * GiB, 3 * GiB),
    # GB200: no carve-out, the device's own BAR2, readiness by the CXL DVSEC. Its
    # link has errors, and a neighbour delays the recovery.
    Gpu("gb200", MEMORY + 8 * GiB, 0xB000_0000, neighbour=True, aer=True, device=0x2941, mig_dvsec=1, bar2_size=64 << 10,
        ready_after_ms=None, cxl={"timeout": 1, "active": {"ready_after_reset_ms": 300}}),
]


# -----------------------------------------------------------------------------
# The guests


class Guest:
    """A guest.

    name: for the host's programs and the runner. gpus: names of its GPUs, in
    the order of its buses. commands: the guest's. iommufd: whether QEMU uses
    it. printed: whether `nvgrace-gpu guest` prints QEMU's options. run: the
    host's script, in which "@" starts this guest and "@NAME" another; without
    one, the guest before starts this one. params: parameters of the module
    gpumem. reboots: whether a reboot does not end it.
    """

    def __init__(self, name, gpus, commands, iommufd=False, printed=False, run="@", params="", reboots=False):
        self.name, self.gpus, self.commands, self.reboots = name, gpus, commands, reboots
        self.iommufd, self.printed, self.run, self.params = iommufd, printed, run, params

    def options(self):
        """QEMU's options, to which bin/start adds what the test needs."""
        if self.printed:
            return f"$(printed {' '.join(f'$(gpu {gpu})' for gpu in self.gpus)})"
        return shared.qemu_options(self.gpus, self.iommufd)


def uses(*what):
    return [(w, f"/tests/uses {w}") for w in what]


# Boots four times: it reboots, is reset from QEMU's monitor, and is killed.
LIFE = [("use", "if [ $(host boots life) = 1 ]; then /tests/uses memory; else /tests/uses kept; fi"),
        ("go", "case $(host boots life) in 1) reboot -f ;; 4) ;; *) sleep 1000 ;; esac")]
LIFE_RUN = """
    until_used() {
        until [ "$(host used life)" -ge $1 ]; do
            kill -0 $qemu || return 1
            usleep 200000
        done
    }
    mkfifo /tmp/monitor.in /tmp/monitor.out
    cat /tmp/monitor.out >/dev/null &
    @ -chardev pipe,id=monitor,path=/tmp/monitor -mon monitor &
    qemu=$!
    until_used 2 || exit 1
    gpu=$(ls -l /proc/$qemu/fd | sed -n 's/.* \\([0-9]*\\) -> .*vfio[-/]device.*/\\1/p')
    # While the guest is stopped, its registers stay as the reset leaves them.
    echo stop >/tmp/monitor.in
    echo "BARs: $(/tests/bars $qemu $gpu)"
    # After this reset, the memory is not ready until the driver has checked it
    # 50 times.
    host after_reset gh200 never
    echo system_reset >/tmp/monitor.in
    until [ "$(/tests/bars $qemu $gpu 2>/dev/null)" = "0xc 0xc" ]; do
        kill -0 $qemu || exit 1
        usleep 100000
    done
    echo "BARs: empty"
    before=$(host looks gh200)
    echo cont >/tmp/monitor.in
    until [ "$(host looks gh200)" -gt $((before + 50)) ]; do
        kill -0 $qemu || exit 1
        usleep 100000
    done
    host after_reset gh200 0
    host ready gh200 0
    until_used 3 || exit 1
    kill -9 $qemu
    # The kernel closes a killed program's files late. Until then, opening the
    # guest's ports again is EBUSY, and so is opening the GPU.
    wait $qemu
    @"""
TOGETHER = """
    @left &
    left=$!
    @right || exit 1
    wait $left"""

# The host kills its QEMU after it has written to both parts.
TENANT = [("use", "/tests/uses memory"), ("go", "sleep 1000")]
TENANT_RUN = f"""
    parameter=/sys/module/nvgrace_gpu_vfio_pci/parameters/scrub
    state=/sys/bus/pci/devices/$(gpu gh200)/nvgrace_gpu/scrub_state
    echo Y >$parameter
    @ &
    qemu=$!
    until [ "$(host used tenant)" -ge 1 ]; do
        kill -0 $qemu || exit 1
        usleep 200000
    done
    kill -9 $qemu
    wait $qemu
    while grep -q "dirty\\|scrubbing" $state; do
        usleep 200000
    done
    echo "$(cat $state), remains: $(host remains {GPUS[0].base:#x} {GPUS[0].size:#x})"
    echo N >$parameter"""

# The link of its GPU freezes while all its processors touch the memory. The
# recovery waits until QEMU has answered, or minutes have passed. After that, a
# reset of the guest brings the memory back.
FROZEN = [("use", "if [ $(host boots gb200) = 1 ]; then for a in memory normal dma touch; do /tests/uses $a; done; "
                  "else /tests/uses kept; fi"),
          ("go", "[ $(host boots gb200) = 2 ] || sleep 1000")]
FROZEN_RUN = """
    neighbour=/sys/module/neighbour/parameters
    insmod /tests/aer_inject.ko && insmod /tests/neighbour.ko || exit 1
    mkfifo /tmp/qmp.in /tmp/qmp.out
    exec 5<>/tmp/qmp.out
    ask() {
        echo "{'execute': '$1'}" >/tmp/qmp.in
        while read -r -t 300 answer <&5; do
            case $answer in
            '{"return"'* | '{"error"'*) echo "$1: $answer" && return ;;
            esac
        done
        return 1
    }
    # Its processors' registers would come between the answers.
    trap "cat /tmp/gb200" EXIT
    @ -smp 3 -chardev pipe,id=qmp,path=/tmp/qmp -mon chardev=qmp,mode=control >/tmp/gb200 2>&1 &
    qemu=$!
    until [ "$(host used gb200)" -ge 1 ]; do
        kill -0 $qemu || exit 1
        usleep 200000
    done
    ask qmp_capabilities
    echo 1 >$neighbour/hold
    bus=$(gpu gb200)
    bus=${bus#*:}
    # A data link error, as struct aer_error of tests/lab/guest/lib.c.
    { printf "\\x${bus%%:*}\\0\\0\\0\\20"; head -c 23 /dev/zero; } >/tmp/error
    cat /tmp/error >/dev/aer_inject || exit 1
    # The drivers are notified in the order of the bus, this one last.
    until [ "$(cat $neighbour/asked)" = Y ]; do
        usleep 100000
    done
    ask query-status && ask stop && ask query-status && ask cont && ask query-status && echo "answered"
    echo 0 >$neighbour/hold
    until dmesg | grep -q "device recovery successful"; do
        usleep 100000
    done
    ask system_reset
    until ask query-status | grep prelaunch; do
        kill -0 $qemu || exit 1
    done
    ask cont
    wait $qemu"""

# An alignment fault goes to the guest. But if the emulator finds it during the
# walk of stage 2, it goes to KVM, which can't handle it: QEMU then stops the
# guest, but does not end.
UNALIGNED_RUN = """
    @ >/tmp/unaligned 2>&1 &
    qemu=$!
    until grep "kvm run failed" /tmp/unaligned 2>/dev/null; do
        kill -0 $qemu || exit 0
        usleep 200000
    done
    kill -9 $qemu
    # Until the kernel has closed its files, the GPU is in use.
    wait $qemu
    exit 0"""

# The guest's NUMA nodes 1 to 8 are the GPU's. gpumem adds the memory to node 1.
NODES = "/sys/devices/system/node"
INITIATORS = [("nodes", f"[ $(cat {NODES}/possible) = 0-8 ] && [ $(cat {NODES}/has_generic_initiator) = 1-8 ]"),
              ("pages", "/tests/uses pages 1"),
              ("node", f"""
                   blocks=$(echo /sys/bus/pci/devices/*/blocks)
                   echo 1 >$blocks && cat {NODES}/has_memory && grep 'MemTotal: *524288 kB' {NODES}/node1/meminfo
                   found=$?
                   echo 0 >$blocks && exit $found""")]

# Two GPUs need 17 nodes, and this kernel, as Debian's kernels do, has 16: it loses one of
# theirs, which the tool has told. Memory, which needs no nodes here, works for both.
LOST = [("nodes", f"""
             cat {NODES}/possible {NODES}/has_generic_initiator
             [ $(cat {NODES}/possible) = 0-15 ] && [ $(ls -d {NODES}/node* | wc -l) -le 16 ]""")]


def guests(host, cpu, kind):
    """The guests of a host, in the order of their starts. kind is what KVM
    does with usemem."""
    iommufd = host == "newest-64k"
    first = Guest("first", ["gh200"], uses("memory", "normal", "types", "dma", "pages"), iommufd)
    tenant = Guest("tenant", ["gh200"], TENANT, iommufd, run=TENANT_RUN)
    if kind == "device":
        # usemem is Device memory. A kernel can't use it as its own memory,
        # because it clears and copies pages with accesses that Device memory
        # forbids.
        first.commands = uses("memory", "types", "dma")
        return [first, tenant, Guest("unaligned", ["gh200"], uses("normal"), run=UNALIGNED_RUN)]
    if kind == "refused":
        return [Guest("refused", ["gh200"], [], run="! @")]
    if host == "newest-16k":
        # What life shows does not depend on the size of pages.
        return [first, tenant]
    life = Guest("life", ["gh200"], LIFE, iommufd, run=LIFE_RUN, reboots=True)
    # A host has ports for no more than seven guests.
    if host != "newest":
        return [first, life, tenant]
    return [first, life,
            Guest("two", ["gh200", "second"], [*uses("memory", "normal", "dma"), *LOST], printed=True),
            Guest("left", ["gh200"], uses("memory", "kept"), run=TOGETHER),
            Guest("right", ["second"], uses("memory", "kept"), run=""),
            Guest("gb200", ["gb200"], FROZEN, run=FROZEN_RUN, reboots=True),
            Guest("nodes", ["gh200"], [*uses("memory"), *INITIATORS], printed=True, params="node=1")]


# -----------------------------------------------------------------------------
# The host


def files_for_guests(host, wanted, kind, directory):
    """{path in the host: path here} of QEMU, of the files that it starts, and
    of the host's modules for a guest's test."""
    module = shared.driver()
    compiled = programs.compile_programs(["bars", "uses"], vm.ARM64, HERE / "programs")
    by_name = {g.name: g for g in GPUS}
    files = {**shared.files(), "/tests/bars": compiled["/tests/bars"]}
    for guest in wanted:
        lines, act = directory / f"{guest.name}.gpus", directory / guest.name
        lines.write_text("".join(by_name[name].line(kind) for name in guest.gpus))
        params = f"{guest.params} device_memory={'y' if kind == 'device' else 'n'}"
        act.write_bytes(vm.run_files({"/tests/uses": compiled["/tests/uses"], "/tests/gpus": str(lines)},
                                     module=module, module_params=params))
        files[f"/guest/acts/{guest.name}"] = str(act)
        if guest.run:
            start = directory / f"{guest.name}.sh"
            start.write_text(script(guest, {g.name: g for g in wanted}))
            files[f"/guest/scripts/{guest.name}"] = str(start)
    if any(guest.run is FROZEN_RUN for guest in wanted):
        files |= programs.module_file(host, "aer_inject")
        files["/tests/neighbour.ko"] = programs.out_of_tree(host, programs.HERE / "modules/neighbour")[0]
    if any(guest.printed for guest in wanted):
        files["/guest/firmware"] = FIRMWARE
    return files


def script(guest, by_name):
    """The host's command for a guest."""
    def start(match):
        one = by_name[match[1] or guest.name]
        # A panic reboots, which must end every guest but those that test
        # reboots.
        return f"start {one.name} {one.options()}{'' if one.reboots else ' -no-reboot'}"
    return "PATH=$PATH:/usr/sbin:/guest/bin\n" + re.sub(r"@(\w*)", start, guest.run)


def boots(machine, guest):
    return len(machine.guests[guest].boots)


def used(machine, guest):
    """How often the guest has finished its command "use"."""
    return sum(c.name == "use" and c.rc is not None for c in machine.guests[guest].commands)


def looks(machine, gpu):
    """How often the driver has checked whether the GPU's memory is ready."""
    return machine.models[gpu].gpu.counters["c2c_reads"]


def look_up(machine, address):
    """Size, host's address and type of the mapping at a guest's address. There
    must be only one guest, and it must be running."""
    failure = "no processor is in a guest"
    for _ in range(50):
        with machine.stopped() as debugger:
            debugger.physical()
            for cpu in range(machine.smp):
                table = debugger.register(cpu, "VTTBR_EL2")
                if table & stage2.ADDRESS:
                    try:
                        e = stage2.translate(debugger.read, table, debugger.register(cpu, "VTCR_EL2"), int(address, 0))
                        return f"{e.size:#x} {e.address:#x} {e.type}"
                    except stage2.NotMapped as e:
                        failure = e
        time.sleep(0.05)
    raise LookupError(failure)


HANDLERS = {**gpu_memory.HANDLERS, "boots": boots, "used": used, "looks": looks, "stage2": look_up}

# doctor's verdict on usemem, by how KVM then maps it.
DOCTOR = {"cached": "good", "device": "note", "refused": "bad"}


class Host:
    """A host that is up. names: the guests that it will run."""

    def __init__(self, kernel, cpu, names, directory):
        self.kind = HOSTS[kernel, cpu]
        kernel = vm.Kernel(kernel)
        # A guest that has no script belongs to the one before it.
        every = guests(kernel.name, cpu, self.kind)
        self.guests = {g.name: g for g, before in zip(every, [None, *every])
                       if g.name in names or not g.run and before.name in names}
        files = {**common.installed(kernel, directory), **files_for_guests(kernel, self.guests.values(), self.kind, directory),
                 **kernel.config_file}
        self.session = session.Interactive(kernel, HANDLERS, gpus=[g.config() for g in GPUS], ram=shared.RAM, hypervisor=cpu, files=files,
                                           guests={g.name: g.commands for g in self.guests.values()}, module=None,
                                           log=str(programs.log_file(f"guest-{kernel.name}-{cpu}")))
        self.gpus = " ".join(f"$(gpu {g.name})" for g in GPUS)
        assert not self.run("bind", f"nvgrace-gpu bind {self.gpus}").rc
        # Before the first guest.
        self.doctor = self.run("doctor", "nvgrace-gpu doctor --json $(gpu gh200); [ $? -lt 8 ]")
        self.run("trace", "cd /sys/kernel/tracing/events/nvgrace_gpu; echo 1 >nvgrace_gpu_reset/enable; echo 1 >nvgrace_gpu_wait/enable")

    def run(self, name, text):
        return self.session.run(name, f"PATH=$PATH:/usr/sbin; {text}")

    def end(self):
        assert not self.run("unbind", f"nvgrace-gpu unbind {self.gpus}").rc
        return self.session.end().failures


@pytest.fixture(scope="module")
def host(request, tmp_path_factory):
    chosen = [i.callspec.params for i in request.session.items if i.path == request.path]
    made = Host(*request.param, {p["name"] for p in chosen if p["host"] == request.param}, tmp_path_factory.mktemp("host"))
    yield made
    assert not made.end()


# What differs most. "nodes" is what the tool prints, and "first" is the same on newest.
IN_CHECK_ALL = ("newest-doctor", "newest-nodes", "newest-64k-first")


def cases():
    """A case for doctor, and one for each guest that has a script, on each host."""
    for (kernel, cpu), kind in HOSTS.items():
        names = [g.name for g in guests(kernel, cpu, kind) if g.run]
        for name in ("doctor", *names):
            case = "-".join([kernel, *([cpu] if cpu != "max" else []), name])
            yield pytest.param(kernel, (kernel, cpu), name, marks=[] if case in IN_CHECK_ALL else [pytest.mark.long], id=case)


@pytest.mark.parametrize(("kernel", "host", "name"), cases(), indirect=["host"], scope="module")
def test_guest(kernel, host, name):
    if name == "doctor":
        check_doctor(host)
        return
    command = host.run(name, f"sh /guest/scripts/{name}")
    said = "\n".join(command.output)
    assert not command.rc, said
    special = {"refused": check_refused, "unaligned": check_unaligned, "tenant": check_tenant}
    for guest in [name, *(["right"] if name == "left" else [])]:
        special.get(guest, check_guest)(host.guests[guest], host.session.machine.guests[guest], said)
    if name == "gb200":
        check_frozen(said)
    if name == "two":
        assert "CONFIG_NODES_SHIFT=5 or more" in " ".join(said.replace("\n#", "").split()), said
    if name == "life":
        check_life(host, said)


def check_guest(guest, channel, said):
    """Checks a guest's output and how it ended."""
    bad = [f"{c.name} ended with {c.rc}\n" + "\n".join(c.output) for c in channel.commands if c.rc != 0 and c.name != "go"]
    assert not bad, "\n".join(bad)
    for command in channel.commands:
        if "/tests/uses" in command.text:
            assert any(line.startswith("ok ") for line in command.output), f"{command.name} reported no test"
    assert channel.done


def check_refused(guest, channel, said):
    """QEMU says that KVM refuses the memory."""
    assert re.search("kvm_set_user_memory_region.*Invalid argument", said)


def check_unaligned(guest, channel, said):
    """An unaligned access to Device memory is a SIGBUS, or the guest's end, as
    docs/guests.md says."""
    stopped = [c.rc for c in channel.commands] == [None] and "kvm run failed" in said
    assert stopped or channel.done and any("Bus error" in line for c in channel.commands for line in c.output), said


def check_tenant(guest, channel, said):
    """Of a guest that wrote to both parts and was killed, nothing is left."""
    assert said.endswith("clean, remains: 0"), said


def check_doctor(host):
    """doctor has foretold how KVM maps both parts."""
    assert not host.doctor.rc
    findings = {f["id"]: f["verdict"] for f in json.loads("\n".join(host.doctor.output))["findings"]}
    assert (findings["kvm-usemem"], findings["kvm-resmem"]) == (DOCTOR[host.kind], "good")


def check_frozen(said):
    """QEMU has answered before the recovery went on."""
    assert re.search(r'^stop: {"return": {}}$.*"running": false.*^answered$', said, re.M | re.S), said


def check_life(host, said):
    """By the host's output and by the driver's tracepoints, each start of a guest
    resets its GPU."""
    assert boots(host.session.machine, "life") == 4
    # It had given its BARs addresses, and a reset takes them away. QEMU writes
    # to the same port.
    assert re.search(r"BARs: 0x80[0-9a-f]{8} 0x80[0-9a-f]{8}$.*BARs: empty$", said, re.M | re.S), said
    traced = "\n".join(host.run("traced", "grep nvgrace_gpu_ /sys/kernel/tracing/trace").output)
    resets = len(re.findall("nvgrace_gpu_reset: .*cause=reset", traced))
    assert resets >= sum(len(channel.boots) for channel in host.session.machine.guests.values()), traced
    # The first use, which is a fault, waits until the memory is ready: 50 checks,
    # with increasing pauses between them.
    pauses = [int(ns) for ns in re.findall(r"nvgrace_gpu_wait: .*when=use result=0 ns=(\d+)", traced)]
    assert sum(pauses) > 100_000_000, traced
