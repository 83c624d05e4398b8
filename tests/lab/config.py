# SPDX-License-Identifier: GPL-2.0-only
"""What a machine can be configured with: sizes, and GPUs with their addresses.
README.md beside this file explains the fields."""

import dataclasses
import fractions
import re

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
    base: "int | str | None" = None
    size: "int | str | None" = None
    dsd: "dict | None" = dataclasses.field(default_factory=dict)
    model: dict = dataclasses.field(default_factory=dict)
    ready: bool = True
    neighbour: bool = False

    # Set by place_gpus().
    slot: int = 0
    function: int = 0
    port: str = ""
    pci: str = ""
    acpi: str = ""


def place_gpus(gpus, memory_address):
    """Give each GPU a root port, the address that follows from the firmware's
    bus numbers, and its memory."""
    names = [g.name for g in gpus]
    if len(set(names)) != len(names) or not all(re.fullmatch(r"[\w.-]+", n) for n in names):
        raise ConfigError(f"names of GPUs must be unique words: {names}")
    end = memory_address
    for number, g in enumerate(gpus):
        g.slot, g.function = (5 + number, 0) if len(gpus) <= 20 else (4 + number // 8, number % 8)
        if g.size is not None:
            g.size = parse_size(g.size)
            g.base = end if g.base is None else parse_size(g.base)
            end = max(end, -(-(g.base + g.size) // MEMORY_BLOCK) * MEMORY_BLOCK)
        elif g.base is not None:
            g.base = parse_size(g.base)
        g.port = f"0000:00:{g.slot:02x}.{g.function}"
        # The firmware numbers buses in the order of their bridges. The machine has
        # no other bridges.
        g.pci = f"0000:{number + 1:02x}:00.0"
        # The name in QEMU's DSDT of the device in slot 0 of the port's bus;
        # init compares it with what the kernel found.
        g.acpi = f"\\_SB.PCI0.S{g.slot << 3 | g.function:02X}.S00"
