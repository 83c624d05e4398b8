# SPDX-License-Identifier: GPL-2.0-only
"""The firmware's tables: the SSDT that describes the GPUs' memory and power, as on
a GH200 host, and the IORT of a machine whose IOMMU doesn't translate."""

import pathlib
import struct
import subprocess

from lab.model import gpu as model
from lab.archive import Cpio
from lab.config import ConfigError, parse_size

# Config space on QEMU's virt machine, 1 MiB a bus.
ECAM = 0x40_1000_0000

BASE_PROPERTY = "nvidia,gpu-mem-base-pa"
SIZE_PROPERTY = "nvidia,gpu-mem-size"


def asl_value(value):
    """A property's value in ASL: an integer, {"string": s}, {"buffer":
    [bytes]}, {"package": [values]} or {"reference": path}."""
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
    """The properties in the _DSD, from base, size and dsd; None for no _DSD."""
    if g.dsd is None:
        return None
    properties = {BASE_PROPERTY: g.base, SIZE_PROPERTY: g.size}
    for name, value in g.dsd.items():
        properties[{"base": BASE_PROPERTY, "size": SIZE_PROPERTY}.get(name, name)] = value
    return {name: value for name, value in properties.items() if value is not None} or None


def make_asl(gpus):
    """One SSDT that adds properties and power resources to the ACPI objects
    that QEMU's table has for the GPUs."""
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
    """_PR0 and _PR3, which make D3cold possible.

    _ON and _OFF write the model's power register through ECAM memory, because
    the kernel evaluates _STA before it knows the bus. _ON also writes D0: QEMU
    hides the BARs of a device that was put into D3hot until it sees D0 written,
    and does not notice that power has come back."""
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
    """The compiled table. iasl's warnings are errors, because the kernel might
    read such a table in another way than its author meant."""
    asl = pathlib.Path(directory, "gpu.asl")
    asl.write_text(source)
    done = subprocess.run(["iasl", "-we", "-p", str(asl.with_suffix("")), str(asl)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ConfigError(f"iasl refuses the table:\n{source}\n{done.stdout}{done.stderr}")
    return asl.with_suffix(".aml").read_bytes()


def make_iort():
    """The IORT, ACPI's table of IOMMUs, for arch.untranslated(): buses 1 and
    higher, which have the GPUs, are behind the SMMUv3."""
    def node(kind, body, mappings=(), revision=0):
        head = struct.pack("<BHBIII", kind, 16 + len(body) + 20 * len(mappings), revision, 0, len(mappings),
                           16 + len(body) if mappings else 0)
        # First id, number of ids less one, what the first id becomes, target
        # node, flags.
        return head + body + b"".join(struct.pack("<IIIII", *m, 0) for m in mappings)

    its_at = 48
    its = node(0, struct.pack("<II", 1, 0))
    smmu_at = its_at + len(its)
    # Registers and interrupts of QEMU's virt machine: event, page request,
    # error, sync. Flag 1: coherent with the CPU's caches.
    smmu = node(4, struct.pack("<QIIQIIIIIII", 0x09050000, 1, 0, 0, 0, 106, 107, 109, 108, 0, 0), [(0, 0xffff, 0, its_at)])
    # The host bridge: memory is coherent, no ATS, segment 0.
    bridge = node(2, struct.pack("<IBHBII", 1, 0, 0, 3, 0, 0), [(0, 0xff, 0, its_at), (0x100, 0xfeff, 0x100, smmu_at)])
    nodes = its + smmu + bridge
    # The names of QEMU's table and a later revision, so that this one replaces
    # it.
    head = struct.pack("<4sIBB6s8sI4sI", b"IORT", 48 + len(nodes), 0, 0, b"BOCHS ", b"BXPC    ", 2, b"TEST", 1)
    table = bytearray(head + struct.pack("<III", 3, 48, 0) + nodes)
    table[9] = -sum(table) & 0xff
    return bytes(table)


def archive_of_tables(gpus, arch, directory):
    """The archive with the firmware's tables, which comes first in an initramfs.
    """
    cpio = Cpio()
    if any(properties_of(g) or g.model.get("power") for g in gpus):
        cpio.file("kernel/firmware/acpi/gpu.aml", compile_asl(make_asl(gpus), directory))
    if not arch.translates:
        cpio.file("kernel/firmware/acpi/iort.aml", make_iort())
    return cpio.finish()
