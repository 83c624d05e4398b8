# SPDX-License-Identifier: GPL-2.0-only
"""What all guests share: their kernel, QEMU in the host, its options, and the
GPUs of the host."""

import pathlib

from lab import packages, programs, vm

HERE = pathlib.Path(__file__).resolve().parent

# The kernel of every guest, Debian stable's.
KERNEL = "stable"

GiB = 1 << 30
# RAM of a host, and where the GPUs' memory begins.
RAM = 3 * GiB
MEMORY = vm.MEMORY_ADDRESS


class Gpu:
    """A GPU of the host, and what its guest must see."""

    def __init__(self, name, base, size, neighbour=False, **more):
        self.name, self.base, self.size, self.neighbour, self.more = name, base, size, neighbour, more
        self.native = bool(more.get("mig_dvsec"))
        self.usemem = size if self.native else (size - GiB) // vm.MEMORY_BLOCK * vm.MEMORY_BLOCK
        self.resmem = size - self.usemem

    def config(self):
        return {"name": self.name, "base": self.base, "size": self.size, "neighbour": self.neighbour, "model": self.more}

    @staticmethod
    def _bar(length):
        return 1 << (length - 1).bit_length()

    def line(self, kind):
        """Its line in /tests/gpus, for programs/uses.c."""
        resmem = (self.base + self.usemem, self.resmem) if self.resmem else (0, 0)
        bar2 = self._bar(self.resmem) if self.resmem else self.more.get("bar2_size", 0)
        numbers = (self.base, self.usemem, *resmem, self._bar(self.usemem), bar2)
        return f"{self.name} {' '.join(f'{n:#x}' for n in numbers)} {kind}\n"


def files():
    """{path in the host: path here} of QEMU and of what each guest boots."""
    kernel = vm.Kernel(KERNEL)
    return {**packages.programs(packages.root("qemu"), ["qemu-system-aarch64"]), "/guest/bin": str(HERE / "bin"),
            "/guest/base": str(kernel.initramfs()), "/guest/kernel": str(kernel.image())}


def driver():
    """The path of the guests' driver."""
    return programs.out_of_tree(vm.Kernel(KERNEL), HERE / "driver")[0]


def qemu_options(gpus, iommufd=False):
    """QEMU's options for a guest with these GPUs, given by their names, which
    the host's shell expands."""
    window, backend, device = "", "", ""
    if len(gpus) > 1:
        window = ",highmem-mmio-size=1T"
    if iommufd:
        backend, device = " -object iommufd,id=iommufd0", ",iommufd=iommufd0"
    buses = list(enumerate(gpus, 1))
    return "".join([f"-M virt,accel=kvm,gic-version=3{window} -cpu host -smp 1 -m 512M{backend}",
                    *(f" -device pcie-root-port,id=port{n},bus=pcie.0,chassis={n}" for n, _ in buses),
                    *(f" -device vfio-pci,host=$(gpu {gpu}),bus=port{n},rombar=0{device}" for n, gpu in buses)])
