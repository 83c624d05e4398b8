# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's command line for a machine."""

import functools
import json
import os
import pathlib
import struct
import subprocess
import tempfile

from lab import archive
from lab.arch import ARM64, NATIVE

# A busy host can stop a processor, or a process of the host that a processor
# waits for. These limits are longer than its pauses and shorter than a test
# program's time: a soft lockup is one of a minute, as is an RCU stall.
WATCHDOGS = "watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60"
MESSAGE_TIMEOUT_MS = 600000

TCG = "tcg,thread=multi"
# Seconds. If a sound KVM takes longer, machines are emulated.
PROBE_LIMIT = 20


def say_and_end(word):
    """A program for arm64 that is a whole kernel: it prints the word and powers
    the machine off."""
    code = [0xD2A12001]                                 # mov x1, #0x9000000, the serial port
    for letter in word.encode():
        code += [0x52800000 | letter << 5, 0xB9000020]  # mov w0, #letter; str w0, [x1]
    # mov w0, #0x84000008, PSCI's SYSTEM_OFF; hvc #0; b .
    return struct.pack(f"<{len(code) + 4}I", *code, 0x52800100, 0x72B08000, 0xD4000002, 0x14000000)


@functools.cache
def runs(accelerator, cpu):
    """Whether QEMU can run an arm64 machine in this way. /dev/kvm may exist and
    yet refuse it, or never return from it."""
    with tempfile.NamedTemporaryFile() as kernel:
        kernel.write(say_and_end("works"))
        kernel.flush()
        try:
            done = subprocess.run([ARM64.qemu, "-M", ARM64.machine, "-cpu", cpu, "-accel", accelerator, "-nodefaults", "-display",
                                   "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel.name], stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=PROBE_LIMIT)
        except subprocess.TimeoutExpired:
            return False
    return done.stdout == b"works"


def processor(arch):
    """KVM if this machine can run the other one by itself. A machine at EL2 is
    always emulated, and so is every one where CI is set, so that results do not
    depend on the host."""
    if (NATIVE is ARM64 and arch.name == ARM64.name and "virtualization=on" not in arch.machine
            and not os.environ.get("CI") and runs("kvm", "host")):
        return ["-cpu", "host", "-accel", "kvm"]
    return ["-cpu", arch.cpu, "-accel", TCG]


def base(machine):
    """Processor and RAM, and the console on standard output."""
    arch = machine.arch
    return [arch.qemu, "-M", f"{arch.machine},memory-backend=ram",
            *processor(arch), "-smp", str(machine.smp), "-m", f"{machine.ram >> 20}M",
            # Shared, so that a vfio-user device can map it for DMA.
            "-object", f"memory-backend-memfd,id=ram,size={machine.ram},share=on",
            "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot",
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]


def boot(machine, initrd):
    """Firmware and kernel."""
    arch = machine.arch
    # Warnings must be seen, and boot should be fast. Nothing here changes what
    # the driver meets.
    append = (f"console={arch.console} loglevel=7 log_buf_len=4M printk.devkmsg=on panic=-1 oops=panic rdinit=/init "
              f"{WATCHDOGS} {arch.append} {machine.append}").strip()
    return [*arch.firmware, "-kernel", str(machine.kernel.image()), "-initrd", str(initrd), "-append", append]


def debugger(machine, directory):
    """A gdb server of a machine with guests."""
    return ["-gdb", f"unix:{directory}/gdb.sock,server=on,wait=off"] if machine.guests else []


def ports_of(machine):
    """The machine's ports, as (channel, what comes there, the socket's name). A
    guest's are also for its console."""
    for channel in (machine.channel, *machine.guests.values()):
        for port in ("printed", "questions", *(["console"] if channel.name else [])):
            yield channel, port, f"guest-{channel.name}-{port}" if channel.name else port


def ports(machine, directory):
    """A serial device for the machine, and one for each guest: one that has more than
    fifteen ports loses messages about them."""
    a, several = [], ",multifunction=on" if machine.guests else ""
    for number, name in enumerate(("", *machine.guests)):
        a += ["-device", f"virtio-serial-pci,id=serial{number},addr=2.{number}{several}"]
        for channel, _, port in ports_of(machine):
            if channel.name == name:
                a += ["-chardev", f"socket,id={port},path={directory}/{port}.sock",
                      "-device", f"virtserialport,bus=serial{number}.0,chardev={port},name={port}"]
    return a


def gpu(machine, directory, number):
    """A GPU behind its root port, and its neighbour."""
    g = machine.gpus[number]
    several = ",multifunction=on" if any(o.slot == g.slot and o is not g for o in machine.gpus) else ""
    a = ["-device", f"pcie-root-port,id=port{number},bus=pcie.0,addr={g.slot:x}.{g.function},chassis={number + 1}{several}"]
    a += ["-device", json.dumps({"driver": "vfio-user-pci", "bus": f"port{number}", "addr": "0", "rombar": 0,
                                 "multifunction": g.neighbour, "x-msg-timeout": MESSAGE_TIMEOUT_MS,
                                 # A write to memory is done when the model has it.
                                 "x-no-posted-writes": "bar2_cache" in g.model,
                                 "socket": {"type": "unix", "path": f"{directory}/gpu{number}.sock"}})]
    if g.neighbour:
        a += ["-device", f"pci-testdev,bus=port{number},addr=0.1"]
    return a


@functools.cache
def environment():
    """QEMU's environment, in which malloc_trim.c takes the place of the C library's
    function."""
    source = pathlib.Path(__file__).with_name("malloc_trim.c")

    def make():
        with tempfile.NamedTemporaryFile() as out:
            subprocess.run([NATIVE.gcc, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", out.name, source], check=True)
            return pathlib.Path(out.name).read_bytes()

    return {**os.environ, "LD_PRELOAD": str(archive.cached("malloc_trim.so", [source.read_bytes()], make, 0o755))}


def arguments(machine, directory, initrd):
    """The whole command line. The sockets are in directory."""
    # If the runner is killed by force, the kernel ends QEMU.
    a = ["setpriv", "--pdeathsig", "KILL", *base(machine), *boot(machine, initrd), *debugger(machine, directory)]
    # QEMU wants an IOMMU before the devices behind it.
    a += machine.arch.iommu
    a += ports(machine, directory)
    if machine.memory_size:
        a += ["-object", f"memory-backend-file,id=gpumem,size={machine.memory_size},share=on,reserve=off,align=2M,"
              f"mem-path=/proc/self/fd/{machine.memory_fd}", "-device", "ivshmem-plain,memdev=gpumem,addr=3"]
    for number in range(len(machine.gpus)):
        a += gpu(machine, directory, number)
    for device in machine.devices:
        a += ["-device", device]
    return a
