# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own vfio tests (tools/testing/selftests/vfio) pass with the
driver, on the debug kernel. They need iommufd and vfio's device files, which
Debian's kernels lack."""

import re

import pytest

from lab import programs, session, vm

pytestmark = pytest.mark.needs("kernel debug")

# The tests map whole BARs. With 3 GiB, both parts (2 GiB and 1 GiB) fill
# theirs.
GPUS = [{"name": name, "size": "3G", "model": {"msi": True, "msix": True, "falcon": True}} for name in ("first", "second")]

# The control for what DMA engines show: a network card that QEMU emulates, and
# vfio-pci.
CARD = "0000:00:04.0"
DEVICES = ["igb,bus=pcie.0,addr=4"]

# The tests need huge pages of both sizes. The machine's memory must hold those,
# 1 GiB for DMA, and the debug kernel.
RAM = "4G"
APPEND = "hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=4"

# Names of commands, each with a program and its arguments.
PROGRAMS = {
    "iommufd_setup": "vfio_iommufd_setup_test $(gpu first)",
    "device": "vfio_pci_device_test $(gpu first)",
    "dma_mapping": "vfio_dma_mapping_test -V iommufd_compat_type1_anonymous_hugetlb_1gb $(gpu first)",
    "dma_mapping_mmio": "vfio_dma_mapping_mmio_test $(gpu first)",
    "device_init_perf": "vfio_pci_device_init_perf_test $(gpu first) $(gpu second)",
    "driver": "vfio_pci_driver_test -V iommufd_compat_type1 -T send_msi $(gpu first)",
    "driver_igb": f"vfio_pci_driver_test -v iommufd {CARD}",
}
PAGE_BY_PAGE = "that mode maps page by page, and a request to the emulated IOMMU takes a millisecond: 262144 of them take minutes"
LEFT_OUT = {
    "vfio_dma_mapping_test, variant iommufd_compat_type1_anonymous_hugetlb_1gb": PAGE_BY_PAGE,
    "vfio_pci_driver_test, variant iommufd_compat_type1": PAGE_BY_PAGE,
    "vfio_pci_driver_test, send_msi of the GPU": "the tests' driver for NVIDIA's GPUs can't raise an interrupt; that for igb can",
    "vfio_pci_driver_test, other variants of igb": "they would show nothing of this driver",
    "vfio_pci_sriov_uapi_test": "wants vfio-pci as the driver of a virtual function, and shows nothing of this driver",
}

# Prepares the machine: binds the devices, and lets shared memory have huge
# pages, so that 1 GiB is mapped in some hundred requests to the IOMMU.
BIND = " && ".join([
    "bind first nvgrace_gpu_vfio_pci",
    "bind second nvgrace_gpu_vfio_pci",
    "modprobe vfio-pci",
    f"echo vfio-pci >/sys/bus/pci/devices/{CARD}/driver_override",
    f"echo {CARD} >/sys/bus/pci/drivers_probe",
    f"[ /sys/bus/pci/devices/{CARD}/driver -ef /sys/bus/pci/drivers/vfio-pci ]",
    "echo always >/sys/kernel/mm/transparent_hugepage/shmem_enabled",
])

# What the kernel logs when the IOMMU has refused an address.
FAULT = re.compile(r"virtio_iommu .*: page fault from EP (\d+) at ")

def endpoint(pci):
    """The IOMMU's number of a function."""
    bus, device, function = re.fullmatch(r"0000:(..):(..)\.(.)", pci).groups()
    return int(bus, 16) << 8 | int(device, 16) << 3 | int(function)


@pytest.fixture(scope="module")
def machine():
    kernel = vm.Kernel("debug")
    folder = kernel.root / "selftests"
    known = {p.split()[0] for p in PROGRAMS.values()} | {n for n in LEFT_OUT if "," not in n}
    assert {p.name for p in folder.glob("vfio_*_test")} == known, "the kernel has other test programs"
    made = session.Interactive(kernel, gpus=GPUS, ram=RAM, append=APPEND, devices=DEVICES, module=str(programs.module_of(kernel)),
                               files={"/selftests": str(folder), "/tests/leaks": str(programs.HERE / "leaks")},
                               allow=[r"kmemleak: \d+ new suspected memory leaks"], log=str(programs.log_file("selftests")))
    assert made.run("bind", BIND).rc == 0, "a device isn't bound"
    yield made
    leaks = made.run("leaks", "sh /tests/leaks")
    result = made.end()
    assert not leaks.rc, "\n".join(leaks.output)
    assert not [f for f in result.failures if not re.match(r"command \S+ failed with", f)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_kernels_own(machine, name):
    command = machine.run(name, f"/selftests/{PROGRAMS[name]}")
    said = "\n".join(command.output)
    planned, = re.findall(r"^1\.\.(\d+)", said, re.M)
    passed = len(re.findall(r"^ok \d+ (?!.*# SKIP)", said, re.M))
    assert not command.rc and passed == int(planned) > 0, said


def test_the_devices_made_the_accesses(machine):
    """The programs ignore most results of accesses to unmapped addresses. After
    them, since it counts what they did."""
    counters = {name: machine.machine.models["first"].gpu.counters[name] for name in ("dma_reads", "dma_writes", "dma_faults")}
    assert all(counters.values()), counters
    faulted = {int(match[1]) for line in machine.channel.console if (match := FAULT.search(line))}
    assert faulted == {endpoint(machine.machine.gpus[0].pci), endpoint(CARD)}
