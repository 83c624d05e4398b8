# SPDX-License-Identifier: GPL-2.0-only
"""Hosts with GPUs for guests, as trees: test_guest.py and
tests/guests/test_lines.py make guests of them."""

import json
import pathlib

from cli.test_trees import OF_RESMEM, GiB, Tree

TiB = 1 << 40
GPU_NODES = 8
# What programs of these versions print; test_lines.py compares it with the programs.
RECORDED = pathlib.Path(__file__).with_name("recorded")

# What Debian's qemu-efi-aarch64 describes; test_lines.py compares it with the
# package: the file's name, UEFI, the template of its variables, and the features.
FIRMWARE = {
    "40-edk2-aarch64-secure-enrolled.json": ("AAVMF_CODE.ms.fd", "AAVMF_VARS.ms.fd", ["enrolled-keys", "secure-boot", "verbose-static"]),
    "50-edk2-aarch64-secure.json": ("AAVMF_CODE.secboot.fd", "AAVMF_VARS.fd", ["secure-boot", "verbose-static"]),
    "60-edk2-aarch64.json": ("AAVMF_CODE.no-secboot.fd", "AAVMF_VARS.fd", ["verbose-static"]),
}

# BAR4, BAR2 and BAR0 as a guest sees them, and the driver's attributes.
KINDS = {
    "gh200": {"device": "0x2342", "mode": "carve-out", "usemem_bar_size": 128 * GiB, "resmem_bar_size": 2 * GiB},
    # Its own BAR2 stays visible.
    "gb200": {"device": "0x2941", "mode": "no-carve-out", "usemem_bar_size": 256 * GiB, "own_bar2": 256 * GiB},
    "gb300": {"device": "0x31c2", "mode": "no-carve-out", "usemem_bar_size": 512 * GiB, "own_bar2": 512 * GiB},
}


# What a tray has beside two GPUs: address, node, the sizes of its BARs, GT/s.
NIC0, NIC1, NVME = "0000:01:00.0", "0010:01:00.0", "0002:01:00.0"
TRAY = {
    NIC0: (0, (64 << 20, 0, 0), "32.0 GT/s PCIe"),
    NIC1: (1, (64 << 20, 8 << 20, 0), "64.0 GT/s PCIe"),
    NVME: (0, (16 << 10, 0, 0), "16.0 GT/s PCIe"),
}


def resource(*sizes):
    """The kernel's file of a device with BARs 0, 2 and 4 of these sizes."""
    lines, at = [], 0x661000000000
    for size in sizes:
        at = -(-at // max(size, 1)) * max(size, 1)
        lines.append(f"{at:#018x} {at + size - 1:#018x} 0x000000000014220c" if size else "0x0 0x0 0x0")
        lines.append("0x0 0x0 0x0")
        at += size
    return "\n".join(lines)


def descriptor(code, variables, features):
    """A file of /usr/share/qemu/firmware."""
    files = {"executable": code, "nvram-template": variables}
    return {"interface-types": ["uefi"], "features": features,
            "mapping": {"device": "flash", **{name: {"filename": f"/usr/share/AAVMF/{file}", "format": "raw"} for name, file in files.items()}},
            "targets": [{"architecture": "aarch64", "machines": ["virt-*"]}]}


def address(number):
    return f"{number:03d}9:01:00.0"


def host(tree, kind="gh200", gpus=1, per_node=1, per_smmu=1, pages=65536, qemu="11.1", libvirt=None,
         config=("IOMMUFD=m", "VFIO_DEVICE_CDEV=y", "VFIO_IOMMU_TYPE1=m", "ARM_SMMU_V3_IOMMUFD=y"), bits=48, initiators=True,
         memory_kib=480 << 20, cpus=72, tray=None, isolated=""):
    """Fills a tree. per_node and per_smmu: GPUs that share a NUMA node or an
    SMMU. tray: devices beside the GPUs."""
    facts = dict(KINDS[kind])
    device, own = facts.pop("device"), facts.pop("own_bar2", 128 * GiB)
    sizes = {"usemem_size": facts["usemem_bar_size"] * 3 // 4}
    if "resmem_bar_size" in facts:
        sizes["resmem_size"] = facts["resmem_bar_size"] // 2
    processors = -(-gpus // per_node)
    for i in range(gpus):
        where = f"/sys/bus/pci/devices/{address(i)}"
        tree.bound(address(i), device=device, group=20 + i, node=i // per_node, usemem_base=hex((4 + i) * TiB), **{
            **facts, **sizes})
        tree.file(f"{where}/resource", resource(16 << 20, own, 32 << 20))
        tree.file(f"{where}/class", "0x030200")
        if kind != "gh200":
            tree.without(*(f"{where}/nvgrace_gpu/{name}" for name in OF_RESMEM))
        tree.link(f"{where}/iommu", f"../../../platform/arm-smmu-v3.{i // per_smmu}.auto/iommu/smmu3.{i // per_smmu:#018x}")
        tree.file(f"/sys/kernel/iommu_groups/{20 + i}/devices/{address(i)}/class", "0x030200")
    for i, (where, (node, bars, speed)) in enumerate((tray or {}).items()):
        device = f"/sys/bus/pci/devices/{where}"
        tree.device(where, vendor="0x15b3", device="0x1021", driver="vfio-pci", group=60 + i, node=node)
        tree.file(f"{device}/resource", resource(*bars)).file(f"{device}/max_link_speed", speed)
        tree.file(f"{device}/vfio-dev/vfio{60 + i}/dev", "511:1")
        tree.link(f"{device}/iommu", f"../../../platform/arm-smmu-v3.{60 + i}.auto/iommu/smmu3.{60 + i:#018x}")
        tree.file(f"/sys/kernel/iommu_groups/{60 + i}/devices/{where}/class", "0x020000")
    for i in range(processors):
        tree.numa_node(i, cpus=f"{i * cpus}-{(i + 1) * cpus - 1}", kib=memory_kib[i] if isinstance(memory_kib, dict) else memory_kib)
    total = processors + GPU_NODES * gpus
    owner = [None] * processors + [i for i in range(gpus) for _ in range(GPU_NODES)]
    near = list(range(processors)) + [i // per_node for i in range(gpus) for _ in range(GPU_NODES)]

    def distance(a, b):
        if a == b:
            return 10
        if owner[a] is None and owner[b] is None:
            return 40
        if owner[a] is not None and owner[b] is not None:
            return 11 if owner[a] == owner[b] else 160
        return 80 if near[a] == near[b] else 120

    for i in range(total if initiators else processors):
        if i >= processors:
            tree.numa_node(i, kib=0)
        tree.file(f"/sys/devices/system/node/node{i}/distance",
                  " ".join(str(distance(i, k)) for k in range(total if initiators else processors)))
    if initiators:
        tree.file("/sys/devices/system/node/has_generic_initiator", f"{processors}-{total - 1}")
    answers = {"machine": "aarch64", "kernel-release": "7.2.3-arm64", "page-size": pages, "euid": 0,
               "kernel-log": "",
               "kernel-config": "\n".join(f"CONFIG_{c}" for c in ("VFIO_PCI_CORE=m", *config)),
               "kvm": f"state: open\naddress-bits: {bits}\ncap-243: 1" if bits else "state: open\ncap-243: 1"}
    if qemu:
        program = "/usr/bin/qemu-system-aarch64"
        answers["qemu"] = f"{program}: QEMU emulator version {qemu}.0"
        lists = RECORDED / f"qemu-{qemu}.txt"
        if lists.exists():
            answers["qemu-options"] = lists.read_text()
    if libvirt:
        answers["libvirt"] = f"/usr/sbin/virtqemud: virtqemud (libvirt) {libvirt}.0"
        said = RECORDED / f"virsh-version-{libvirt}.txt"
        if said.exists():
            answers["libvirt-version"] = said.read_text()
    for name, text in answers.items():
        tree.file(f"/answers/{name}", text)
    tree.file("/sys/bus/pci/drivers/nvgrace_gpu_vfio_pci/features", "dmabuf iommufd pmd_pfnmap uncached_guest zap")
    for name, words in FIRMWARE.items():
        tree.file(f"/usr/share/qemu/firmware/{name}", json.dumps(descriptor(*words)))
    tree.file("/sys/devices/system/cpu/isolated", isolated)
    tree.link("/sys/class/iommu/smmu3.0x0000000000000000", "../../devices/x")
    for size in (2048, 524288, 1048576):
        tree.file(f"/sys/kernel/mm/hugepages/hugepages-{size}kB/free_hugepages", "100")
        for i in range(processors):
            tree.file(f"/sys/devices/system/node/node{i}/hugepages/hugepages-{size}kB/free_hugepages", "100")
    return tree


__all__ = ["address", "host", "TRAY", "NIC0", "NIC1", "NVME", "GiB", "TiB", "Tree", "KINDS", "RECORDED", "GPU_NODES", "FIRMWARE", "descriptor"]
