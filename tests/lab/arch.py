# SPDX-License-Identifier: GPL-2.0-only
"""The processor architectures of the virtual GH200, and where each has RAM and
GPU memory."""

import dataclasses
import platform


@dataclasses.dataclass(frozen=True)
class Arch:
    """What differs between architectures. Everything else is the same
    machine."""

    name: str                   # Debian's
    option: str                 # in the configuration of its kernels
    qemu: str
    machine: str                # QEMU's machine, without what depends on the kernel
    cpu: str
    firmware: "tuple[str, ...]"     # QEMU's arguments
    iommu: "tuple[str, ...]"        # QEMU's arguments for the IOMMU in front of the GPUs
    iommu_module: "str | None"      # its driver, if a module
    append: str                 # the kernel's command line
    console: str
    phys_bits: int              # of a physical address of this CPU
    libraries: str              # of the guest's programs, here and in the guest
    loader: str                 # of dynamic programs in the guest
    busybox: str                # static; "NAME:" in front: below "toolbox root NAME"
    # The prefix of compiler and binutils. This machine's own have such names,
    # too.
    tools: str
    make: "tuple[str, ...]"     # what `make modules` needs
    # Whether the IOMMU translates the GPUs' DMA. If not, the machine has
    # acpi.make_iort(), too.
    translates: bool = True

    @property
    def gcc(self):
        """Compiles the guest's programs."""
        return f"{self.tools}gcc"


ARM64 = Arch(
    name="arm64", option="CONFIG_ARM64", qemu="qemu-system-aarch64",
    machine="virt,gic-version=3", cpu="neoverse-n1", firmware=("-bios", "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
    iommu=("-device", "virtio-iommu-pci,addr=1"), iommu_module="virtio_iommu",
    # A Grace CPU needs no kpti. Linux 6.1 would enable it on neoverse-n1, and
    # emulated system calls would take three times as long.
    append="kpti=off", console="ttyAMA0",
    phys_bits=48,
    libraries="/usr/lib/aarch64-linux-gnu", loader="/lib/ld-linux-aarch64.so.1", busybox="/usr/bin/busybox",
    tools="aarch64-linux-gnu-", make=("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"))

AMD64 = Arch(
    name="amd64", option="CONFIG_X86_64", qemu="qemu-system-x86_64",
    # vfio refuses a group without interrupt remapping, which needs the IO-APIC
    # in QEMU. erms and fsrm make the kernel copy single bytes, which is slow
    # here.
    machine="q35,kernel-irqchip=split", cpu="max,la57=off,erms=off,fsrm=off",
    # Native hotplug, as on arm64: ports with ACPI hotplug have no reset.
    firmware=("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
    iommu=("-device", "intel-iommu,caching-mode=on,intremap=on"), iommu_module=None,
    # The emulated CPU has nothing to mitigate. no_timer_check: the kernel
    # panics unless it counts ten timer ticks in an interval that is too short
    # on a busy machine. tsc=unstable: there, the kernel can also measure a
    # wrong rate of the TSC, and that clock's watchdog is no help: in Linux 7.3, a
    # processor that compares TSCs can wait without interrupts for another one
    # that stop_machine() holds, with a timeout in jiffies, which then stand still.
    append="intel_iommu=on mitigations=off no_timer_check tsc=unstable", console="ttyS0",
    phys_bits=40,
    libraries="/usr/lib/x86_64-linux-gnu", loader="/lib64/ld-linux-x86-64.so.2",
    busybox="shell:/usr/bin/busybox",
    tools="x86_64-linux-gnu-", make=("ARCH=x86_64", "CROSS_COMPILE=x86_64-linux-gnu-"))

ARCHITECTURES = (ARM64, AMD64)
# That of this machine.
NATIVE = ARM64 if platform.machine() == "aarch64" else AMD64


def round_up(value, unit):
    return -(-value // unit) * unit


def at_el2(arch, cpu="max"):
    """The same machine with a CPU that starts at EL2, so that it has KVM.

    "max" has FEAT_S2FWB and CACHE_DIC, like Grace. Two features that take most
    of the emulator's time are off: the architected pointer authentication
    algorithm, and 52-bit addresses, which Grace lacks as well."""
    if cpu == "max":
        cpu = "max,pauth-impdef=on,sve=off,sme=off,lpa2=off"
    return dataclasses.replace(arch, machine=f"{arch.machine},virtualization=on", cpu=cpu)


def untranslated(arch):
    """The same arm64 machine for a kernel without a driver for virtio-iommu, such
    as `oldstable`.

    QEMU's SMMUv3 refuses vfio-user devices. So the machine has one with no device
    behind it, and a table that says that the GPUs are. The kernel's driver gives
    them the IOMMU groups that vfio needs, and its mappings have no effect: a GPU's
    DMA would not be translated."""
    return dataclasses.replace(arch, machine=f"{arch.machine},iommu=smmuv3,default-bus-bypass-iommu=on", iommu=(),
                               iommu_module=None, translates=False)


def ram_range(arch, ram):
    """First address of the highest part of RAM, and the address after it. From
    0xb0000000 bytes on, QEMU's q35 puts 2 GiB below 4 GiB and the rest above.
    """
    if arch.name == ARM64.name:
        return 1 << 30, (1 << 30) + ram
    if ram < 0xB0000000:
        return 0, ram
    return 4 << 30, (2 << 30) + ram


def memory_address(arch, ram, size):
    """Where the firmware puts a BAR that is larger than all others together.

    SeaBIOS puts it after RAM if RAM reaches beyond 4 GiB. Otherwise it goes as
    high as leaves room for the other BARs after it."""
    if arch.name == ARM64.name:
        # The start of the 64-bit window of QEMU's virt machine.
        return 0x8000000000
    end = ram_range(arch, ram)[1]
    return round_up(end, size) if end > 4 << 30 else (1 << arch.phys_bits) - 2 * size
