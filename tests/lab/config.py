# SPDX-License-Identifier: GPL-2.0-only
"""What a machine can be configured with: sizes, and GPUs with their addresses.
README.md beside this file explains the fields."""

import dataclasses
import fractions
import re

from lab.arch import ARM64, round_up

MEMORY_BLOCK = 512 << 20
# Of GPU memory: half of the 64-bit PCI window of QEMU's virt machine.
MEMORY_MAX = 256 << 30


class ConfigError(Exception):
    """The machine's configuration makes no sense. Nothing was started."""


def parse_size(value):
    """An integer, or a string like "256G", "33.25G", "0x17f0000000",
    "1.5G-1"."""
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


@dataclasses.dataclass
class GpuConfig:
    """One GPU."""

    name: str
    slot: "int | None" = None
    function: int = 0
    base: "int | str | None" = None
    size: "int | str | None" = None
    dsd: "dict | None" = dataclasses.field(default_factory=dict)
    model: dict = dataclasses.field(default_factory=dict)
    ready: bool = True
    neighbour: bool = False

    # Set by place_gpus().
    port: str = ""
    pci: str = ""
    acpi: str = ""


def place_gpus(gpus, memory_address, arch=ARM64):
    """Give each GPU a root port, the address that follows from the firmware's
    bus numbers, and its memory."""
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
    # The firmware numbers buses in the order of their bridges. The machine has
    # no other bridges.
    for bus, g in enumerate(sorted(gpus, key=lambda g: (g.slot, g.function)), 1):
        g.port = f"0000:00:{g.slot:02x}.{g.function}"
        g.pci = f"0000:{bus:02x}:00.0"
        # The name in QEMU's DSDT of the device in slot 0 of the port's bus;
        # init compares it with what the kernel found.
        g.acpi = f"\\_SB.PCI0.S{g.slot << 3 | g.function:02X}.S00"
