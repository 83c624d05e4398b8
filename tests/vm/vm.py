#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Boots a virtual GH200 under plain QEMU emulation, runs commands in it, and gives a verdict.

It owns the machine: the ACPI table, the initramfs, QEMU, the model GPUs, the GPU memory and the log scan. Test files
import Machine; people and the Makefile call it as a program, inside the toolbox (scripts/toolbox run):

    vm.py run --kernel NAME --config FILE.json|- [--module PATH.ko] [--timeout S] [--log FILE]

README.md beside this file describes the configuration, the machine and what a command finds in the guest.
"""

import argparse
import base64
import contextlib
import dataclasses
import fractions
import gzip
import hashlib
import json
import lzma
import os
import pathlib
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent / "model")]
import gpu as model  # noqa: E402  (needs the path above)
import packages  # noqa: E402

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "nvgrace-gpu-vfio-pci"
MEMORY_BLOCK = 512 << 20
# Of GPU memory: half of the 64-bit PCI window of QEMU's virt machine.
MEMORY_MAX = 256 << 30
# And config space here, 1 MiB a bus.
ECAM = 0x40_1000_0000

BASE_PROPERTY = "nvidia,gpu-mem-base-pa"
SIZE_PROPERTY = "nvidia,gpu-mem-size"

# What the kernel says when something is wrong, whatever the tests say. Case counts.
SPLATS = tuple(re.compile(p) for p in (
    r"WARNING:",
    r"\bBUG:",
    r"\bBUG at ",
    r"\bOops\b",
    r"Internal error",
    r"Unable to handle",
    r"Call [Tt]race",
    r"possible circular locking",
    r"possible recursive locking",
    r"possible irq lock inversion",
    r"inconsistent lock state",
    r"suspicious RCU usage",
    r"Invalid wait context",
    r"held lock freed",
    r"lock held when returning to user space",
    r"\bKASAN\b",
    r"\bKCSAN\b",
    r"\bUBSAN\b",
    r"\bKFENCE\b",
    r"\bkmemleak: \d+ new suspected",
    r"blocked for more than",
    r"rcu.*(self-)?detected.*stall",
    r"rcu.*kthread starved",
    r"soft lockup",
    r"hard LOCKUP",
    r"Kernel panic",
    r"[Bb]ad page",
    r"Bad rss-counter",
    r"refcount_t: ",
    r"list_(add|del) corruption",
    r"scheduling while atomic",
    r"sleeping function called from invalid context",
    r"unreferenced object",
    r"VM_FAULT_OOM leaked out",
    r"DMA-API: (?!preallocated|debugging enabled)",
))

# What a distribution's kernel says in this emulation although nothing is wrong: (pattern, reason).
KNOWN_HARMLESS = ()


class ConfigError(Exception):
    """The description of the machine makes no sense; nothing was started."""


def parse_size(value):
    """An integer, or a string like "256G", "33.25G", "0x17f0000000", "1.5G-1"."""
    if isinstance(value, int):
        return value
    total = fractions.Fraction(0)
    for sign, number, unit in re.findall(r"([+-]?)(0x[0-9a-fA-F_]+|[0-9]+(?:\.[0-9]+)?)([KMGT]?)", value.replace(" ", "")):
        term = fractions.Fraction(int(number, 16) if number.startswith("0x") else fractions.Fraction(number))
        term *= 1 << 10 * " KMGT".index(unit or " ")
        total += -term if sign == "-" else term
    if not re.fullmatch(r"([+-]?(0x[0-9a-fA-F_]+|[0-9]+(\.[0-9]+)?)[KMGT]?)+", value.replace(" ", "")) or total.denominator != 1:
        raise ConfigError(f"{value!r} is no size")
    return int(total)


def round_up(value, unit):
    return -(-value // unit) * unit


# ----------------------------------------------------------------------------------------------------------------
# Architectures


@dataclasses.dataclass(frozen=True)
class Arch:
    """What is different from one processor architecture to the other; all else is the same machine."""

    name: str                   # as Debian calls it
    option: str                 # what its kernels are configured with
    qemu: str
    machine: str                # QEMU's machine, without what depends on the kernel
    cpu: str
    firmware: "tuple[str, ...]"     # QEMU's arguments
    iommu: "tuple[str, ...]"        # QEMU's arguments for the IOMMU in front of model GPUs
    iommu_module: "str | None"      # its driver, where that is a module: kernels without it have no model GPU
    append: str                 # the kernel's command line
    console: str
    phys_bits: int              # of a physical address of this CPU
    last_slot: int              # the last one that is free for root ports
    libraries: str              # where the guest's libraries are, here and there
    loader: str                 # of dynamic programs in the guest
    busybox: str                # static, in the toolbox; with "NAME:" in front, below what that names in tests/programs.conf
    gcc: str                    # compiles the guest's programs
    make: "tuple[str, ...]"     # what `make modules` needs


ARM64 = Arch(
    name="arm64", option="CONFIG_ARM64", qemu="qemu-system-aarch64",
    machine="virt,gic-version=3", cpu="neoverse-n1", firmware=("-bios", "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
    iommu=("-device", "virtio-iommu-pci,addr=1"), iommu_module="virtio_iommu",
    # A Grace CPU does without kpti, and emulation pays for it with three times the time for a system call (6.1 would
    # have it on neoverse-n1).
    append="kpti=off", console="ttyAMA0",
    phys_bits=48, last_slot=31,
    libraries="/usr/lib/aarch64-linux-gnu", loader="/lib/ld-linux-aarch64.so.1", busybox="/usr/bin/busybox",
    gcc="aarch64-linux-gnu-gcc", make=("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"))

AMD64 = Arch(
    name="amd64", option="CONFIG_X86_64", qemu="qemu-system-x86_64",
    # Without interrupt remapping vfio refuses the group; that needs the IO-APIC outside of the kernel.
    # erms, fsrm: where a kernel believes that copies of single bytes are fast, it makes them, and here they aren't.
    machine="q35,kernel-irqchip=split", cpu="max,la57=off,erms=off,fsrm=off",
    # Hotplug by the ports themselves, as on the other machine: ports of ACPI hotplug know no reset.
    firmware=("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
    iommu=("-device", "intel-iommu,caching-mode=on,intremap=on"), iommu_module=None,
    # The emulator's CPU has no holes to mitigate; and the kernel counts ten ticks of the timer within a moment that may be
    # too short on a busy machine: it panics.
    append="intel_iommu=on mitigations=off no_timer_check", console="ttyS0",
    phys_bits=40, last_slot=30,
    libraries="/usr/lib/x86_64-linux-gnu", loader="/lib64/ld-linux-x86-64.so.2",
    busybox="shell:/usr/bin/busybox", gcc="gcc", make=())

ARCHITECTURES = (ARM64, AMD64)


def at_el2(arch, cpu="max"):
    """The same with a CPU that starts at EL2, so that there is KVM. "max" has FEAT_S2FWB and CACHE_DIC, as Grace has,
    and here not what takes most of the emulator's time: the other kind of pointer authentication, and 52-bit addresses,
    which Grace has not either."""
    if cpu == "max":
        cpu = "max,pauth-impdef=on,sve=off,sme=off,lpa2=off"
    return dataclasses.replace(arch, machine=f"{arch.machine},virtualization=on", cpu=cpu)


def ram_range(arch, ram):
    """First address of the part of RAM that is highest, and the address behind it. With so much RAM, QEMU's q35 has
    2 GiB of it below 4 GiB and the rest above."""
    if arch.name == ARM64.name:
        return 1 << 30, (1 << 30) + ram
    if ram < 0xB0000000:
        return 0, ram
    return 4 << 30, (2 << 30) + ram


def memory_address(arch, ram, size):
    """Where the firmware puts a BAR that is larger than all others together. SeaBIOS: behind RAM, if that reaches beyond
    4 GiB, and otherwise as far up as it can be with room for the others behind it."""
    if arch.name == ARM64.name:
        # The begin of the 64-bit window of QEMU's virt machine.
        return 0x8000000000
    end = ram_range(arch, ram)[1]
    return round_up(end, size) if end > 4 << 30 else (1 << arch.phys_bits) - 2 * size


# ----------------------------------------------------------------------------------------------------------------
# What a machine is made of


@dataclasses.dataclass
class GpuConfig:
    """One GPU; README.md explains the fields."""

    name: str
    slot: "int | None" = None
    function: int = 0
    base: "int | str | None" = None
    size: "int | str | None" = None
    dsd: "dict | None" = dataclasses.field(default_factory=dict)
    model: dict = dataclasses.field(default_factory=dict)
    ready: bool = True
    neighbour: bool = False

    # Filled in by place_gpus().
    port: str = ""
    pci: str = ""
    acpi: str = ""


def place_gpus(gpus, memory_address, arch=ARM64):
    """Give every GPU a root port, the address that the firmware's bus numbering leads to, and its memory."""
    names = [g.name for g in gpus]
    if len(set(names)) != len(names) or not all(re.fullmatch(r"[\w.-]+", n) for n in names):
        raise ConfigError(f"names of GPUs must be unique words: {names}")
    taken = {(g.slot, g.function) for g in gpus if g.slot is not None}
    if len(taken) != sum(g.slot is not None for g in gpus):
        raise ConfigError("two GPUs in one slot")
    free = ((slot, function) for slot in range(4, arch.last_slot + 1) for function in range(8) if (slot, function) not in taken)
    if len(gpus) <= 20:
        free = ((slot, 0) for slot in range(5, arch.last_slot + 1) if not any(slot == s for s, _ in taken))
    end = memory_address
    for g in gpus:
        if g.slot is None:
            g.slot, g.function = next(free)
        if not 4 <= g.slot <= arch.last_slot or not 0 <= g.function <= 7:
            raise ConfigError(f"{g.name}: slots are 4 to {arch.last_slot}, functions 0 to 7")
        if g.size is not None:
            g.size = parse_size(g.size)
            g.base = end if g.base is None else parse_size(g.base)
            end = max(end, round_up(g.base + g.size, MEMORY_BLOCK))
        elif g.base is not None:
            g.base = parse_size(g.base)
    used = {(g.slot, g.function) for g in gpus}
    for slot, function in used:
        if function and (slot, 0) not in used:
            raise ConfigError(f"slot {slot} has a function {function} but no function 0")
    # The firmware numbers the buses in the order in which it meets the bridges; there are no others than ours.
    for bus, g in enumerate(sorted(gpus, key=lambda g: (g.slot, g.function)), 1):
        g.port = f"0000:00:{g.slot:02x}.{g.function}"
        g.pci = f"0000:{bus:02x}:00.0"
        # What QEMU's DSDT calls the device in slot 0 behind the port; init compares it with what the kernel found.
        g.acpi = f"\\_SB.PCI0.S{g.slot << 3 | g.function:02X}.S00"


def asl_value(value):
    """A property's value: integer, {"string": s}, {"buffer": [bytes]}, {"package": [values]}, {"reference": path}."""
    if isinstance(value, bool):
        raise ConfigError("a property can't be a boolean")
    if isinstance(value, int):
        if not 0 <= value < 1 << 64:
            raise ConfigError(f"{value:#x} is no ACPI integer")
        return f"0x{value:016X}"
    if isinstance(value, str):
        return asl_value(parse_size(value))
    if isinstance(value, dict) and len(value) == 1:
        (kind, content), = value.items()
        if kind == "string":
            return '"' + "".join(c if c not in '"\\' else "\\" + c for c in content) + '"'
        if kind == "buffer":
            return f"Buffer ({len(content)}) {{ {', '.join(f'0x{b:02X}' for b in content)} }}"
        if kind == "package":
            return f"Package ({len(content)}) {{ {', '.join(map(asl_value, content))} }}"
        if kind == "reference":
            return content
    raise ConfigError(f"{value!r} can't be a property's value")


def properties_of(g):
    """The _DSD's properties, or None for no _DSD: what base and size say, changed by what dsd says."""
    if g.dsd is None:
        return None
    properties = {BASE_PROPERTY: g.base, SIZE_PROPERTY: g.size}
    for name, value in g.dsd.items():
        properties[{"base": BASE_PROPERTY, "size": SIZE_PROPERTY}.get(name, name)] = value
    return {name: value for name, value in properties.items() if value is not None} or None


def make_asl(gpus):
    """One SSDT that adds properties, and what cuts the power, to the ACPI object that QEMU's table has for each GPU."""
    out = ['DefinitionBlock ("", "SSDT", 2, "NVGRAC", "GPUMEM", 1)', "{"]
    for g in gpus:
        properties = properties_of(g)
        if properties is None and not g.model.get("power"):
            continue
        out += [f"    External ({g.acpi}, DeviceObj)",
                f"    Scope ({g.acpi})", "    {"]
        if properties is not None:
            out += ["        Name (_DSD, Package (2)", "        {",
                    '            ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),',
                    f"            Package ({len(properties)})", "            {"]
            out += [f'                Package (2) {{ "{n}", {asl_value(value)} }},' for n, value in properties.items()]
            out += ["            }", "        })"]
        out += power_resource(g) if g.model.get("power") else []
        out += ["    }"]
    return "\n".join(out + ["}", ""])


def power_resource(g):
    """_PR0 and _PR3, which make D3cold possible: _ON and _OFF write the model's power register, in the memory through
    which config space is reached, since the kernel asks for _STA before it knows of the bus. QEMU keeps the BARs away
    from a device that was put into D3hot until it sees D0 written: power that comes back is no news to it."""
    bus = int(g.pci.split(":")[1], 16)
    return [f"        OperationRegion (PWRR, SystemMemory, {ECAM + (bus << 20):#x}, 0x100)",
            "        Field (PWRR, DWordAcc, NoLock, Preserve)", "        {",
            f"            Offset ({model.PM_CAP + 4:#x}), PMCS, 32,",
            f"            Offset ({model.POWER_REGISTER:#x}), PWRF, 32", "        }",
            "        PowerResource (PWRS, 0, 0)", "        {",
            "            Method (_STA, 0, NotSerialized) { Return (PWRF) }",
            "            Method (_ON, 0, NotSerialized) { PWRF = 1 PMCS = 0 }",
            "            Method (_OFF, 0, NotSerialized) { PWRF = 0 }", "        }",
            "        Name (_PR0, Package (1) { PWRS })",
            "        Name (_PR3, Package (1) { PWRS })"]


def compile_asl(source, directory):
    """iasl's output, with every warning an error: a table that the interpreter would read in another way than we
    mean is no test."""
    asl = pathlib.Path(directory, "gpu.asl")
    asl.write_text(source)
    done = subprocess.run(["iasl", "-we", "-p", str(asl.with_suffix("")), str(asl)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ConfigError(f"iasl refuses the table:\n{source}\n{done.stdout}{done.stderr}")
    return asl.with_suffix(".aml").read_bytes()


class Cpio:
    """An archive in the kernel's "newc" format."""

    def __init__(self):
        self.out = bytearray()
        self.inode = 0
        self.directories = set()

    def _entry(self, name, mode, data=b"", rdev=(0, 0)):
        self.inode += 1
        encoded = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(encoded), 0)
        self.out += b"070701" + b"".join(b"%08X" % f for f in fields) + encoded
        self.out += bytes(-len(self.out) % 4)
        self.out += data
        self.out += bytes(-len(self.out) % 4)

    def _parents(self, name):
        for parent in reversed(pathlib.PurePosixPath(name).parents):
            if str(parent) != "." and str(parent) not in self.directories:
                self.directories.add(str(parent))
                self._entry(str(parent), 0o040755)

    def file(self, name, data, mode=0o644):
        name = name.lstrip("/")
        self._parents(name)
        self._entry(name, 0o100000 | mode, data if isinstance(data, bytes) else data.encode())

    def link(self, name, target):
        name = name.lstrip("/")
        self._parents(name)
        self._entry(name, 0o120777, target.encode())

    def device(self, name, major, minor):
        name = name.lstrip("/")
        self._parents(name)
        self._entry(name, 0o020600, rdev=(major, minor))

    def tree(self, name, path):
        path = pathlib.Path(path)
        if not path.exists():
            raise ConfigError(f"{path} is not there (wanted as {name} in the guest)")
        if path.is_dir():
            for child in sorted(path.iterdir()):
                self.tree(f"{name}/{child.name}", child)
        else:
            self.file(name, path.read_bytes(), path.stat().st_mode & 0o777)

    def finish(self):
        self._entry("TRAILER!!!", 0)
        self.out += bytes(-len(self.out) % 512)
        return bytes(self.out)


class Debugger:
    """A client of QEMU's gdb server: what is needed to change memory between firmware and kernel."""

    def __init__(self, connection):
        self.connection = connection
        self.received = b""
        self._numbers = None

    def ask(self, packet):
        """Send a packet, and the answer to it; raises OSError if QEMU goes away or is silent for too long."""
        data = packet.encode()
        self.connection.sendall(b"$%s#%02x" % (data, sum(data) & 0xFF))
        while not (match := re.search(rb"\$([^#]*)#..", self.received, re.S)):
            more = self.connection.recv(65536)
            if not more:
                raise ConnectionError("QEMU has closed the debugger's connection")
            self.received += more
        self.received = self.received[match.end():]
        self.connection.sendall(b"+")
        answer = match[1].decode()
        if answer.startswith("E"):
            raise OSError(f"QEMU's debugger answers {packet!r} with {answer}")
        return answer

    def read(self, address, count):
        return b"".join(bytes.fromhex(self.ask(f"m{a:x},{min(1024, address + count - a):x}"))
                        for a in range(address, address + count, 1024))

    def write(self, address, data):
        self.ask(f"M{address:x},{len(data):x}:{data.hex()}")

    def physical(self):
        """From now on, addresses are those of the machine."""
        self.ask("Qqemu.PhyMemMode:1")

    def register(self, cpu, name):
        """A system register of a CPU, counted from 0."""
        if self._numbers is None:
            text, piece = "", "m"
            while piece.startswith("m"):
                piece = self.ask(f"qXfer:features:read:system-registers.xml:{len(text):x},1000")
                text += piece[1:]
            self._numbers = {n: int(i) for n, i in re.findall(r'<reg name="(\w+)"[^>]* regnum="(\d+)"', text)}
        self.ask(f"Hg{cpu + 1:x}")
        return int.from_bytes(bytes.fromhex(self.ask(f"p{self._numbers[name]:x}")), "little")


# Where a bzImage is entered, with paging off and after the firmware's last step.
KERNEL_ENTRY = 0x100000


def widen_acpi_integers(debugger):
    """Run the machine up to the kernel's first instruction, and make the DSDT one of revision 2.

    By the DSDT's revision the kernel decides for all tables how wide an integer is. That of QEMU's q35 is 1, which
    means 32 bits: too few for the address of GPU memory. On hosts with such memory it is 2."""
    debugger.ask(f"Z1,{KERNEL_ENTRY:x},1")
    debugger.ask("c")
    area = debugger.read(0xF0000, 0x10000)
    rsdp = next((at for at in range(0, len(area), 16) if area[at:at + 8] == b"RSD PTR "), None)
    if rsdp is None:
        raise OSError("the firmware has left no ACPI tables")
    rsdt, = struct.unpack_from("<I", area, rsdp + 16)
    length, = struct.unpack("<I", debugger.read(rsdt + 4, 4))
    for table, in struct.iter_unpack("<I", debugger.read(rsdt + 36, length - 36)):
        if debugger.read(table, 4) == b"FACP":
            dsdt, = struct.unpack("<I", debugger.read(table + 40, 4))
            revision, checksum = debugger.read(dsdt + 8, 2)
            debugger.write(dsdt + 8, bytes([2, checksum + revision - 2 & 0xFF]))
            break
    else:
        raise OSError("there is no FADT")
    debugger.ask(f"z1,{KERNEL_ENTRY:x},1")
    # The machine runs on by itself.
    debugger.ask("D")


# ----------------------------------------------------------------------------------------------------------------
# Kernels


def cached(name, inputs, make):
    """The file of that name in the cache, made by make() -> bytes unless one from the same inputs is there."""
    digest = hashlib.sha256()
    for i in inputs:
        digest.update(b"%d\0" % len(i))
        digest.update(i)
    path = CACHE / "vm" / f"{name}-{digest.hexdigest()[:16]}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
            try:
                f.write(make())
                f.flush()
                os.rename(f.name, path)
            except BaseException:
                os.unlink(f.name)
                raise
    return path


def decompress(data, name):
    if name.endswith(".xz"):
        return lzma.decompress(data)
    if name.endswith(".zst"):
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    if name.endswith(".gz"):
        return gzip.decompress(data)
    return data


class Kernel:
    """A kernel of tests/kernels.conf, unpacked by scripts/toolbox, or one that tests/testkernel/build has made."""

    # What a machine needs, beside what the kernel has built in. vfio-pci is there to compare with.
    MODULES = ("virtio_pci", "virtio_console", "vfio", "vfio_iommu_type1", "vfio_pci_core", "vfio_pci")
    NOT_LOADED = ("vfio_pci",)

    def __init__(self, name):
        self.name = name
        self.release = self._ask("release")
        self.headers = pathlib.Path(self._ask("kdir"))
        config = (self.headers / ".config").read_text()
        self.arch = next(a for a in ARCHITECTURES if f"\n{a.option}=y\n" in config)
        # All of a kernel is below one directory, "/" for Debian's, laid out as Debian does: boot, usr/lib/modules, usr/src.
        self.root = self.headers.parents[2]
        self.directory = self.root / "usr/lib/modules" / self.release
        # Whether a machine with it can have the model GPU.
        self.has_model = self.arch.iommu_module is None or bool(self._files(self.arch.iommu_module))

    def _ask(self, word):
        done = subprocess.run([str(PROJECT / "scripts/toolbox"), word, self.name], capture_output=True, text=True)
        if done.returncode:
            raise ConfigError(f"kernel {self.name}: {done.stderr.strip()}")
        return done.stdout.strip()

    def has(self, option):
        """Whether the kernel was configured with option=y."""
        return f"\n{option}=y\n" in (self.headers / ".config").read_text()

    def _files(self, module):
        """The module's files and those it depends on, in the order of loading; none if it doesn't exist or is
        built in."""
        done = subprocess.run(["modprobe", "-d", str(self.root), "-S", self.release, "--show-depends", module],
                              capture_output=True, text=True)
        # With -d / the names begin with two slashes.
        return [re.sub("^//", "/", line.split()[1]) for line in done.stdout.splitlines() if line.startswith("insmod ")]

    def provides(self, module):
        """Whether there is a module of that name."""
        return bool(self._files(module))

    def module_path(self, module):
        """The module's own file, as it is in the package."""
        return pathlib.Path(self._files(module)[-1])

    def _guest_name(self, path):
        """What a file of this kernel is called in the guest, where /lib is no link."""
        return re.sub(r"^(usr/)?", "/", str(pathlib.Path(path).relative_to(self.root)))

    def image(self):
        """The image, unpacked if it is an EFI zboot one: emulated, it takes seconds to unpack itself."""
        for path in (self.root / "boot" / f"vmlinuz-{self.release}", self.directory / "vmlinuz"):
            if path.exists():
                break
        else:
            raise ConfigError(f"kernel {self.name} has no image: tests/kernels.conf says that it isn't booted")
        data = path.read_bytes()
        if data[4:8] != b"zimg":
            return path
        offset, size = struct.unpack_from("<II", data, 8)
        kind = data[24:56].split(b"\0")[0].decode()
        payload = data[offset:offset + size]
        suffix = {"gzip": ".gz", "zstd": ".zst", "xzkern": ".xz"}.get(kind)
        if suffix is None:
            return path
        return cached(f"image-{self.release}", [data], lambda: decompress(payload, suffix))

    def initramfs(self):
        """busybox, kernel modules and the libraries of dynamic programs: what no run changes."""
        paths, load = [], []
        iommu = [self.arch.iommu_module] if self.arch.iommu_module else []
        for module in [*iommu, *self.MODULES]:
            for path in self._files(module):
                if path not in paths:
                    paths.append(path)
                    if module not in self.NOT_LOADED:
                        load.append(re.sub(r"\.(xz|zst|gz)$", "", self._guest_name(path)))
        libraries, loader = self.arch.libraries, self.arch.loader
        name, _, busybox = self.arch.busybox.rpartition(":")
        wanted = {"/bin/busybox": f"{packages.root(name)}{busybox}" if name else busybox, loader: f"{libraries}/{pathlib.Path(loader).name}"}
        for name in ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1",
                     "libcmocka.so.0"):
            wanted[f"{libraries.removeprefix('/usr')}/{name}"] = f"{libraries}/{name}"
        wanted.update({self._guest_name(p): p for p in paths})
        contents = {guest: pathlib.Path(host).read_bytes() for guest, host in wanted.items()}

        def make():
            cpio = Cpio()
            cpio.device("/dev/console", 5, 1)
            with tempfile.TemporaryDirectory() as scratch:
                base = pathlib.Path(scratch, "lib/modules", self.release)
                base.mkdir(parents=True)
                for guest, data in contents.items():
                    name = re.sub(r"\.(xz|zst|gz)$", "", guest)
                    data = decompress(data, guest) if name != guest else data
                    cpio.file(name, data, 0o755 if "/modules/" not in name else 0o644)
                    if "/modules/" in name:
                        file = pathlib.Path(scratch + name)
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(data)
                for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
                    if (self.directory / name).exists():
                        shutil.copy(self.directory / name, base)
                subprocess.run(["depmod", "-b", scratch, self.release], check=True)
                for name in ("modules.dep", "modules.alias", "modules.symbols", "modules.builtin"):
                    if (base / name).exists():
                        cpio.file(f"/lib/modules/{self.release}/{name}", (base / name).read_bytes())
            cpio.file("/vm/modules", "".join(p + "\n" for p in load))
            return cpio.finish()

        key = [pathlib.Path(__file__).read_bytes()]
        for guest, data in contents.items():
            key += [guest.encode(), data]
        return cached(f"initramfs-{self.release}", key, make)


def run_files(commands, files=None, memory="", gpus="", module=None, module_params="", coverage=False):
    """The part of an initramfs behind Kernel.initramfs(): init, what it reads, and files {guest path: host path}."""
    cpio = Cpio()
    cpio.file("/init", (HERE / "init").read_bytes(), 0o755)
    cpio.tree("/vm/bin", HERE / "bin")
    cpio.file("/vm/memory", memory)
    cpio.file("/vm/gpus.conf", gpus)
    listed = ""
    for i, (name, text) in enumerate(commands):
        cpio.file(f"/vm/commands.d/{i:03}", text + "\n", 0o755)
        listed += f"/vm/commands.d/{i:03} {name}\n"
    cpio.file("/vm/commands", listed)
    if module:
        cpio.tree("/vm/module.ko", module)
        cpio.file("/vm/module.params", module_params + "\n")
    if coverage:
        cpio.file("/vm/coverage", "")
    for guest, host in (files or {}).items():
        cpio.tree(guest, host)
    return cpio.finish()


# ----------------------------------------------------------------------------------------------------------------
# Verdicts


def scan_log(lines, allow=()):
    """The lines of a kernel log that tell of trouble. allow: regular expressions of lines that may be there."""
    allowed = [re.compile(p) for p in allow] + [re.compile(p) for p, _ in KNOWN_HARMLESS]
    hits = []
    for line in lines:
        if any(p.search(line) for p in SPLATS) and not any(a.search(line) for a in allowed):
            hits.append(line)
    return hits


def troubles(lines, allow=()):
    """What scan_log() finds, each once and without its time: console and dmesg have the same lines."""
    return list(dict.fromkeys(re.sub(r"^\[[ 0-9.]+\](\[[^]]*\])? *", "", hit) for hit in scan_log(lines, allow)))


@dataclasses.dataclass
class Command:
    """A command's fate in the guest."""

    name: str
    rc: "int | None" = None
    output: "list[str]" = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclasses.dataclass
class Result:
    """What a machine's run has shown. failures is empty when all is well."""

    kernel: str
    release: str
    commands: "list[Command]" = dataclasses.field(default_factory=list)
    failures: "list[str]" = dataclasses.field(default_factory=list)
    console: "list[str]" = dataclasses.field(default_factory=list)
    dmesg: "list[str]" = dataclasses.field(default_factory=list)
    boot_seconds: "float | None" = None
    seconds: float = 0.0

    @property
    def ok(self):
        return not self.failures

    def command(self, name):
        return next(c for c in self.commands if c.name == name)

    def output(self, name):
        return "\n".join(self.command(name).output)


class Channel:
    """One port over which an init talks: what it said, in the order of commands, and answers to its questions.

    A machine has one, and one for each guest in it; of a guest, boots and commands add up over all its lives."""

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
        self.machine._note(self.mark.replace(">", "|"), line)
        self.console.append(line)

    def line(self, line):
        now = time.monotonic()
        self.machine._note("d" if self._in_dmesg else self.mark, line)
        # A command's last line may lack its end: our marker then follows in the same line.
        head, mark, rest = line.partition("@@RC ")
        if mark and head and self.current and rest.startswith(self.current.name + " "):
            self.current.output.append(head)
            line = mark + rest
        if not line.startswith("@@"):
            if self._in_dmesg:
                self.dmesg.append(line)
            elif self.current:
                self.current.output.append(line)
            return
        word, _, rest = line[2:].partition(" ")
        if word == "BOOT":
            self.boots.append(now - self.machine._started)
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
        elif word == "FAIL":
            self.failures.append("the guest gave up: " + rest)
        elif self.current:
            self.current.output.append(line)

    def _answer(self, question):
        name, *words = question.split()
        try:
            answer = self.machine.handlers[name](self.machine, *words)
            answer = "ok" if answer is None else f"ok {answer}"
        except Exception as e:  # whatever a handler does, the guest must not wait for ever
            answer = f"error {type(e).__name__}: {e}"
        answer = answer.replace("\n", " ").rstrip()
        self.machine._note("<", answer)
        try:
            self._connection.sendall(answer.encode() + b"\n")
        except OSError as e:
            self.failures.append(f"the guest left before the answer to {question!r}: {e}")


# ----------------------------------------------------------------------------------------------------------------
# The machine


class Machine:
    """One boot of one virtual GH200.

    with Machine("7.2", gpus=[{"name": "gpu", "size": "3G"}], commands=["ls /dev/vfio"]) as m:
        result = m.run()

    handlers: host-side functions by name, each called as handler(machine, *words) -> answer (a str without line
    breaks) when the guest says "@@HOST name words...". They run while the asking program waits.
    hypervisor: QEMU's name of a CPU, which then starts the kernel at EL2 (arm64): a host with /dev/kvm.
    guests: names of guests that such a host may run; each gets a test channel and a console of its own (README.md).
    """

    def __init__(self, kernel, gpus=(), memory="256G", ram="1G", smp=2, files=None, commands=(), module=None,
                 module_params="", append="", handlers=None, allow=(), timeout=120, log=None, echo=None,
                 hypervisor=None, guests=()):
        self.kernel = kernel if isinstance(kernel, Kernel) else Kernel(kernel)
        self.arch = self.kernel.arch
        if hypervisor:
            self.arch = at_el2(self.arch, hypervisor)
        self.memory_size = parse_size(memory or 0)
        if self.memory_size & (self.memory_size - 1) or self.memory_size > MEMORY_MAX:
            raise ConfigError("the memory's size must be a power of two up to 256G")
        self.ram, self.smp = parse_size(ram), smp
        self.memory_address = memory_address(self.arch, self.ram, self.memory_size) if self.memory_size else 0
        self.gpus = [g if isinstance(g, GpuConfig) else GpuConfig(**g) for g in gpus]
        place_gpus(self.gpus, self.memory_address, self.arch)
        self.files = dict(files or {})
        self.commands = []
        for i, c in enumerate(commands, 1):
            name, text = (c["name"], c["run"]) if isinstance(c, dict) else (f"cmd{i}", c)
            if not re.fullmatch(r"[\w.:,+=@%/-]+", name) or any(name == n for n, _ in self.commands):
                raise ConfigError(f"command names must be unique words: {name!r}")
            self.commands.append((name, text))
        self.module, self.module_params, self.append = module, module_params, append
        self.handlers = {"peek": self._peek, "poke": self._poke, "counters": self._counters, "ready": self._ready,
                         **(handlers or {})}
        self.allow, self.timeout, self.log_path, self.echo = tuple(allow), timeout, log, echo
        # Set by tests/coverage: where to leave the machine's counters of lines that ran.
        self.coverage = os.environ.get("COVERAGE")
        self.kind = "vfio-user" if self.kernel.has_model else "bochs"
        self.models = {}
        self.channel = Channel(self, "test")
        self.guests = {name: Channel(self, f"guest-{name}", f"{name}>") for name in guests}
        self.qemu = self._log = self._trouble = None
        self.memory_fd = -1
        self._stack = contextlib.ExitStack()
        self._started = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """End everything that start() started. Safe to call at any time, more than once."""
        self._stack.close()

    # Making it.

    def _files(self, directory):
        """The initramfs: the ACPI table in front, as the kernel wants it, then what no run changes, then this run's."""
        parts = []
        if any(properties_of(g) or g.model.get("power") for g in self.gpus):
            table = Cpio()
            table.file("kernel/firmware/acpi/gpu.aml", compile_asl(make_asl(self.gpus), directory))
            parts.append(table.finish())
        parts.append(self.kernel.initramfs().read_bytes())
        memory = f"{self.memory_address:#x} {self.memory_size:#x}\n" if self.memory_size else ""
        gpus = "".join(f"{g.name} {g.pci} {self._hex(g.base)} {self._hex(g.size)} {self.kind} {g.port} {g.acpi} "
                       f"{'yes' if g.ready else 'no'}\n" for g in self.gpus)
        parts.append(run_files(self.commands, self.files, memory, gpus, self.module, self.module_params,
                               bool(self.coverage)))
        path = pathlib.Path(directory, "initrd")
        path.write_bytes(b"".join(parts))
        return path

    @staticmethod
    def _hex(value):
        return "-" if value is None else f"{value:#x}"

    def _arguments(self, directory, initrd):
        smmu = ",iommu=smmuv3" if self.kind == "bochs" else ""
        # Warnings must be seen, boot should be fast: nothing here changes what the driver meets.
        append = (f"console={self.arch.console} loglevel=7 log_buf_len=4M panic=-1 oops=panic rdinit=/init "
                  f"{self.arch.append} {self.append}").strip()
        # A runner that is killed by force can clean up nothing: the kernel then ends QEMU.
        a = ["setpriv", "--pdeathsig", "KILL", self.arch.qemu, "-M", f"{self.arch.machine},memory-backend=ram{smmu}",
             "-cpu", self.arch.cpu, "-accel", "tcg,thread=multi", "-smp", str(self.smp), "-m", f"{self.ram >> 20}M",
             # Shared, so that a vfio-user device can map it for DMA.
             "-object", f"memory-backend-memfd,id=ram,size={self.ram},share=on",
             "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot",
             *self.arch.firmware, "-kernel", str(self.kernel.image()), "-initrd", str(initrd), "-append", append,
             "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
             "-chardev", f"socket,id=test,path={directory}/test.sock"]
        if self.guests:
            self.gdb = f"{directory}/gdb.sock"
            a += ["-gdb", f"unix:{self.gdb},server=on,wait=off"]
        elif self.arch.name == AMD64.name:
            a += ["-S", "-chardev", f"socket,id=gdb,path={directory}/gdb.sock", "-gdb", "chardev:gdb"]
        # QEMU wants an IOMMU before the devices behind it.
        if self.kind == "vfio-user":
            a += self.arch.iommu
        a += ["-device", "virtio-serial-pci,addr=2", "-device", "virtserialport,chardev=test,name=test"]
        for guest in self.guests.values():
            for name in (guest.name, f"{guest.name}-console"):
                a += ["-chardev", f"socket,id={name},path={directory}/{name}.sock",
                      "-device", f"virtserialport,chardev={name},name={name}"]
        if self.memory_size:
            a += ["-object", f"memory-backend-file,id=gpumem,size={self.memory_size},share=on,reserve=off,"
                  f"mem-path=/proc/self/fd/{self.memory_fd}", "-device", "ivshmem-plain,memdev=gpumem,addr=3"]
        for i, g in enumerate(self.gpus):
            several = ",multifunction=on" if any(o.slot == g.slot and o is not g for o in self.gpus) else ""
            a += ["-device", f"pcie-root-port,id=port{i},bus=pcie.0,addr={g.slot:x}.{g.function},chassis={i + 1}{several}"]
            if self.kind == "bochs":
                a += ["-device", f"bochs-display,bus=port{i},addr=0"]
            else:
                a += ["-device", json.dumps({"driver": "vfio-user-pci", "bus": f"port{i}", "addr": "0", "rombar": 0,
                                             "multifunction": g.neighbour,
                                             "socket": {"type": "unix", "path": f"{directory}/gpu{i}.sock"}})]
            if g.neighbour:
                a += ["-device", f"pci-testdev,bus=port{i},addr=0.1"]
        return a

    def start(self):
        """Start the models and QEMU. run() does it; a test that wants to look at the machine meanwhile may."""
        enter = self._stack.callback
        directory = tempfile.mkdtemp(prefix="vm-")
        enter(shutil.rmtree, directory, ignore_errors=True)
        if self.log_path:
            self._log = self._stack.enter_context(open(self.log_path, "w", encoding="utf-8"))
        if self.memory_size:
            self.memory_fd = os.memfd_create("gpu-memory")
            enter(os.close, self.memory_fd)
            os.ftruncate(self.memory_fd, self.memory_size)
        initrd = self._files(directory)
        if self.kind == "vfio-user":
            for i, g in enumerate(self.gpus):
                try:
                    device = model.Gpu(model.Spec.from_dict({**({} if g.ready else {"ready_after_ms": None}), **g.model}))
                except (TypeError, ValueError) as e:
                    raise ConfigError(f"{g.name}: {e}") from None
                enter(device.close)
                server = model.Server(device, f"{directory}/gpu{i}.sock").start()
                enter(server.stop)
                self.models[g.name] = server
        self._listeners = [(self._listen(f"{directory}/test.sock"), self.channel.connected, self.channel.line)]
        for guest in self.guests.values():
            self._listeners += [(self._listen(f"{directory}/{guest.name}.sock"), guest.connected, guest.line),
                                (self._listen(f"{directory}/{guest.name}-console.sock"), lambda stream: None,
                                 guest.console_line)]
        debugger = self._listen(f"{directory}/gdb.sock") if self.arch.name == AMD64.name else None
        self._stderr = open(f"{directory}/qemu.err", "w+b")
        enter(self._stderr.close)
        self._started = time.monotonic()
        self.qemu = subprocess.Popen(
            self._arguments(directory, initrd), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr,
            pass_fds=[self.memory_fd] if self.memory_fd >= 0 else [])
        enter(self.qemu.stdout.close)
        enter(self._end_qemu)
        if debugger:
            try:
                debugger.settimeout(min(self.timeout, 60))
                connection, _ = debugger.accept()
                with connection:
                    connection.settimeout(min(self.timeout, 60))
                    widen_acpi_integers(Debugger(connection))
            except OSError as e:
                self._trouble = f"before the kernel: {e}"
                self._end_qemu()
        return self

    def _listen(self, path):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._stack.callback(listener.close)
        listener.bind(path)
        listener.listen(1)
        return listener

    def _end_qemu(self):
        if self.qemu.poll() is None:
            self.qemu.kill()
        self.qemu.wait()

    # Running it.

    def run(self):
        """Boot, run all commands, power off; the Result. Never raises for what happens in the guest."""
        if self.qemu is None:
            self.start()
        result = self.begin_result()
        if self._trouble:
            result.failures.append(self._trouble)
        try:
            self._loop(result)
            result.seconds = time.monotonic() - self._started
            result.boot_seconds = next(iter(self.channel.boots), None)
            self._stderr.seek(0)
            self._errors = self._stderr.read().decode("utf-8", "replace").strip()
        finally:
            self.close()
        self._judge(result)
        return result

    def begin_result(self):
        """The Result that grows as the machine talks."""
        self._result = Result(self.kernel.name, self.kernel.release, commands=self.channel.commands,
                              failures=self.channel.failures, dmesg=self.channel.dmesg)
        return self._result

    def _loop(self, result):
        buffers = {}
        with selectors.DefaultSelector() as selector:
            selector.register(self.qemu.stdout, selectors.EVENT_READ, self._console_line)
            buffers[self.qemu.stdout] = b""
            open_streams = {self.qemu.stdout}
            for listener, connected, line in self._listeners:
                selector.register(listener, selectors.EVENT_READ, (connected, line))
            while open_streams:
                # A handler may change it.
                left = self._started + self.timeout - time.monotonic()
                if left <= 0:
                    current = self.channel.current
                    where = f"in command {current.name}" if current else "outside any command"
                    result.failures.append(f"timeout after {self.timeout:.0f} s, {where}")
                    return
                for key, _ in selector.select(min(left, 1)):
                    if isinstance(key.data, tuple):
                        stream = key.fileobj.accept()[0]
                        self._stack.callback(stream.close)
                        selector.unregister(key.fileobj)
                        connected, line = key.data
                        connected(stream)
                        selector.register(stream, selectors.EVENT_READ, line)
                        buffers[stream] = b""
                        open_streams.add(stream)
                        continue
                    data = os.read(key.fd, 65536)
                    *lines, buffers[key.fileobj] = (buffers[key.fileobj] + data).split(b"\n")
                    if not data:
                        lines += [buffers[key.fileobj]] if buffers[key.fileobj] else []
                        selector.unregister(key.fileobj)
                        open_streams.discard(key.fileobj)
                    for line in lines:
                        key.data(line.decode("utf-8", "replace").rstrip("\r"))
        # Both ends are closed: QEMU is as good as gone, and close() sees to the rest.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.qemu.wait(timeout=10)

    def _note(self, mark, line):
        if self._log:
            self._log.write(f"{time.monotonic() - self._started:8.3f} {mark} {line}\n")
            self._log.flush()
        if self.echo:
            self.echo(mark, line)

    def _console_line(self, line):
        self._note("|", line)
        self._result.console.append(line)
        if line.startswith("@@FAIL "):
            self._result.failures.append("the guest gave up: " + line[7:])

    def _save_counters(self, result):
        """An archive of its own for each machine."""
        if not self.channel.counters:
            result.failures.append("the guest sent no counters of lines")
            return
        with tempfile.NamedTemporaryFile(dir=self.coverage, prefix=f"{self.kernel.name}-", suffix=".tgz", delete=False) as f:
            f.write(base64.b64decode("".join(self.channel.counters)))

    def _judge(self, result):
        if self.coverage and self.channel.done:
            self._save_counters(result)
        for c in result.commands:
            if c.rc is None:
                result.failures.append(f"command {c.name} did not end")
            elif c.rc:
                result.failures.append(f"command {c.name} failed with {c.rc}")
        seen = {c.name for c in result.commands}
        result.failures += [f"command {n} was never started" for n, _ in self.commands if n not in seen]
        if not self.channel.done:
            why = self._errors or f"QEMU ended with {self.qemu.returncode}"
            result.failures.append(f"the guest never said that it was done ({why})")
        # The console has what came too late for dmesg, dmesg what the console was too slow for.
        logs = {"kernel log": result.console + result.dmesg}
        for name, guest in self.guests.items():
            result.failures += [f"guest {name}: {f}" for f in guest.failures]
            logs[f"kernel log of guest {name}"] = guest.console + guest.dmesg
        for name, lines in logs.items():
            result.failures += [f"{name}: {t}" for t in troubles(lines, self.allow)]

    # The GPU memory, from outside.

    def _offset(self, address, count):
        if not self.memory_address <= address <= address + count <= self.memory_address + self.memory_size:
            raise ValueError(f"{count} bytes at {address:#x} are not in the GPU memory")
        return address - self.memory_address

    def read_gpu_memory(self, address, count):
        """count bytes at a physical address, as the guest's CPUs see it."""
        return os.pread(self.memory_fd, count, self._offset(address, count))

    def write_gpu_memory(self, address, data):
        os.pwrite(self.memory_fd, data, self._offset(address, len(data)))

    @contextlib.contextmanager
    def stopped(self):
        """A Debugger, while the machine with guests stands still."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(30)
            connection.connect(self.gdb)
            debugger = Debugger(connection)
            try:
                yield debugger
            finally:
                debugger.ask("D")

    # Host-side handlers that every machine has.

    @staticmethod
    def _peek(machine, address, count):
        return machine.read_gpu_memory(int(address, 0), int(count, 0)).hex()

    @staticmethod
    def _poke(machine, address, data):
        machine.write_gpu_memory(int(address, 0), bytes.fromhex(data))

    def _model(self, name):
        if name not in self.models:
            raise ValueError(f"there is no model of a GPU {name} in this machine ({self.kind})")
        return self.models[name].gpu

    @staticmethod
    def _counters(machine, name):
        return json.dumps(machine._model(name).counters)

    @staticmethod
    def _ready(machine, name, ms):
        machine._model(name).not_ready_for(None if ms == "never" else int(ms, 0))


# ----------------------------------------------------------------------------------------------------------------
# The program


ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CONFIG_KEYS = {"memory", "ram", "smp", "gpus", "files", "commands", "module_params", "append", "allow", "timeout"}


def machine_from_config(kernel, config, **more):
    unknown = set(config) - CONFIG_KEYS
    if unknown:
        raise ConfigError(f"unknown in the configuration: {', '.join(sorted(unknown))}")
    given = dict(config)
    if isinstance(given.get("memory"), dict):
        given["memory"] = given["memory"].get("size", 0)
    try:
        return Machine(kernel, **{**given, **{k: v for k, v in more.items() if v is not None}})
    except TypeError as e:
        raise ConfigError(str(e)) from None


def print_result(result, out):
    for c in result.commands:
        print(f"{'ok    ' if c.rc == 0 else 'FAILED'} {c.name} ({c.seconds:.1f} s)", file=out)
    for f in result.failures:
        print(f"FAILED {f}", file=out)
    boot = "never booted" if result.boot_seconds is None else f"booted in {result.boot_seconds:.1f} s"
    print(f"{'ok    ' if result.ok else 'FAILED'} kernel {result.kernel} ({result.release}): {boot}, "
          f"{result.seconds:.1f} s in all", file=out)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="vm.py", description="Boot a virtual GH200 and run commands in it.")
    commands = parser.add_subparsers(dest="what", required=True)
    run = commands.add_parser("run", help="boot, run the configuration's commands, print a verdict")
    run.add_argument("--kernel", required=True, help="a name of tests/kernels.conf")
    run.add_argument("--config", required=True, help="a JSON file, - for standard input")
    run.add_argument("--module", help="the kernel module to load before the commands")
    run.add_argument("--timeout", type=float, help="seconds for everything (default 120)")
    run.add_argument("--log", help="write console and test channel there, with times")
    run.add_argument("--quiet", action="store_true", help="print only the verdict, not what the commands say")
    args = parser.parse_args(argv)

    def echo(mark, line):
        if mark == ">":
            print(line, flush=True)

    def leave(number, frame):
        # As an exception it passes through every "finally" and "with" on its way out; a second one must not stop it.
        for n in ENDING:
            signal.signal(n, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in ENDING:
        signal.signal(number, leave)
    try:
        config = json.loads(sys.stdin.read() if args.config == "-" else pathlib.Path(args.config).read_text("utf-8"))
        with machine_from_config(args.kernel, config, module=args.module, timeout=args.timeout, log=args.log,
                                 echo=None if args.quiet else echo) as machine:
            result = machine.run()
    except (ConfigError, OSError, ValueError) as e:
        print(f"vm.py: {e}", file=sys.stderr)
        return 2
    print_result(result, sys.stdout)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
