# SPDX-License-Identifier: GPL-2.0-only
"""The processor architectures: arm64, which the virtual GH200 has, and x86-64, for which
programs and modules are compiled."""

import dataclasses
import platform


@dataclasses.dataclass(frozen=True)
class Arch:
    """What differs between architectures. Everything else is the same
    machine."""

    name: str                   # Debian's
    option: str                 # in the configuration of its kernels
    # The prefix of compiler and binutils. This machine's own have such names,
    # too.
    tools: str
    make: "tuple[str, ...]"     # what `make modules` needs
    libraries: str              # where Debian has them
    # Of machines.
    qemu: str = ""
    machine: str = ""           # QEMU's machine, without what depends on the kernel
    cpu: str = ""
    firmware: "tuple[str, ...]" = ()    # QEMU's arguments
    iommu: "tuple[str, ...]" = ()       # QEMU's arguments for the IOMMU in front of the GPUs
    iommu_module: "str | None" = None   # its driver, if a module
    append: str = ""            # the kernel's command line
    console: str = ""
    loader: str = ""            # of dynamic programs in the guest
    busybox: str = ""           # static
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
    libraries="/usr/lib/aarch64-linux-gnu", loader="/lib/ld-linux-aarch64.so.1", busybox="/usr/bin/busybox",
    tools="aarch64-linux-gnu-", make=("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"))

AMD64 = Arch(
    name="amd64", option="CONFIG_X86_64", libraries="/usr/lib/x86_64-linux-gnu",
    tools="x86_64-linux-gnu-", make=("ARCH=x86_64", "CROSS_COMPILE=x86_64-linux-gnu-"))

ARCHITECTURES = (ARM64, AMD64)
# That of this machine.
NATIVE = ARM64 if platform.machine() == "aarch64" else AMD64


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


# Where the firmware puts a BAR that is larger than all others together: the start of the
# 64-bit window of QEMU's virt machine. RAM is far below.
MEMORY_ADDRESS = 0x8000000000
RAM_ADDRESS = 1 << 30
