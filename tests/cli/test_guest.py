# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu guest, with ASan and UBSan: what it prints for hosts of every
kind, and what it refuses. tests/guests/test_lines.py starts what it prints."""

import json
import os
import re
import shlex
import socket
import string
import subprocess
import xml.etree.ElementTree as ET

import pytest

from cli.common import validate
from cli.guest_hosts import GPU_NODES, NIC0, NIC1, NVME, RECORDED, TRAY, GiB, Tree, address, descriptor, host

ONE_TYPE1 = ("VFIO_IOMMU_TYPE1=m",)
TRAY_WORDS = ["--all", *(f"--device={a}" for a in TRAY)]
# What virt-install and libvirt 12.8 made.
DOMAIN = f"--domain={RECORDED}/domain-plain.xml"
ONLY_IOMMUFD = ("IOMMUFD=m", "VFIO_DEVICE_CDEV=y")

# name: (host, words of the command line, options that must be there, options
# that must not). "" in a pattern is anything.
HOSTS = {
    "one GH200, all that there is": (
        {}, ["--accel-smmu=on"],
        [r"-machine virt-11\.1,accel=kvm,gic-version=3,ras=on,highmem-mmio-size=4T", r"-cpu host", r"-smp 16$", r"-m 64G",
         r"-object iommufd,id=iommufd0", r"-device pxb-pcie,id=pcie\.1,bus=pcie\.0,bus_nr=16,numa_node=0",
         r"-device arm-smmuv3,id=smmuv3\.1,primary-bus=pcie\.1,accel=on$",
         r"-device pcie-root-port,id=port0,bus=pcie\.1,chassis=1,io-reserve=0",
         r"-device vfio-pci,id=gpu0,host=0009:01:00\.0,bus=port0,rombar=0,iommufd=iommufd0",
         r"-object acpi-generic-initiator,id=gi7,pci-dev=gpu0,node=8", r"-numa dist,src=0,dst=1,val=80",
         r"-numa dist,src=1,dst=2,val=11"],
        ["host-nodes", "pcie\\.2", "node=9", "-netdev", "-nic", "virtio-blk"]),
    "one GH200, by itself": ({}, [], [r"bus=pcie\.0,chassis=1", r"rombar=0,ats=off$"], ["iommufd", "smmu", "pxb"]),
    "QEMU 11.0, which can't hide ATS": (
        {"qemu": "11.0"}, [], [r"-machine virt,", r"arm-smmuv3,id=smmuv3\.1,primary-bus=pcie\.1,accel=on,ats=on,ril=off,ssidsize=20,oas=48$"], ["ats=off"]),
    "one GH200, Debian 13": (
        {"qemu": "10.0", "pages": 4096, "config": ONE_TYPE1, "initiators": False}, [],
        [r"highmem-mmio-size=4T", r"-device pcie-root-port,id=port0,bus=pcie\.0,chassis=1", r"vfio-pci,id=gpu0,host=0009:01:00\.0,bus=port0,rombar=0$"],
        ["iommufd", "smmu", "pxb", "dist"]),
    "QEMU 9.2 has no highmem-mmio-size": (
        {"qemu": "9.2", "config": ONE_TYPE1}, [], [r"-machine virt,accel=kvm,gic-version=3,ras=on$"], ["highmem", "pxb"]),
    "two GH200s and QEMU 9.2": (
        {"gpus": 2, "per_node": 2, "qemu": "9.2", "config": ONE_TYPE1}, ["--all"], [r"id=port1,bus=pcie\.0,chassis=2"], ["highmem"]),
    "only iommufd in the kernel": (
        {"qemu": "10.0", "config": ONLY_IOMMUFD}, [], [r"-object iommufd", r"rombar=0,iommufd=iommufd0"], ["smmu", "pxb"]),
    "two GH200s at two nodes, and QEMU 9.2 has room for one root complex": (
        {"gpus": 2, "qemu": "9.2", "config": ONE_TYPE1}, ["--all"], [r"id=port1,bus=pcie\.0,chassis=2", r"host-nodes=1"], ["highmem", "pxb"]),
    "two GH200s at two nodes, 40 bits": (
        {"gpus": 2, "bits": 40, "config": ONE_TYPE1}, ["--all"], [r"highmem-mmio-size=512G", r"id=port1,bus=pcie\.0"], ["pxb"]),
    "two GH200s at two nodes, 41 bits": (
        {"gpus": 2, "bits": 41, "config": ONE_TYPE1}, ["--all"], [r"highmem-mmio-size=1T", r"id=port1,bus=pcie\.2"], []),
    "two GH200s, one to a node and an SMMU": (
        {"gpus": 2}, ["--all", "--accel-smmu=on"],
        [r"highmem-mmio-size=4T", r"-smp 32,sockets=2,cores=16$", r"-m 128G", r"memory-backend-ram,id=m1,size=64G,host-nodes=1,policy=preferred",
         r"node,nodeid=1,cpus=16-31,memdev=m1", r"pxb-pcie,id=pcie\.2,bus=pcie\.0,bus_nr=18,numa_node=1",
         r"arm-smmuv3,id=smmuv3\.2,primary-bus=pcie\.2,accel=on", r"pcie-root-port,id=port1,bus=pcie\.2,chassis=2",
         r"id=gi8,pci-dev=gpu1,node=10", r"id=gi15,pci-dev=gpu1,node=17", r"dist,src=0,dst=1,val=40", r"dist,src=0,dst=2,val=80",
         r"dist,src=0,dst=10,val=120", r"dist,src=2,dst=10,val=160"],
        ["pcie\\.3", "node=18"]),
    "the second of two": (
        {"gpus": 2}, [address(1)],
        [r"vfio-pci,id=gpu0,host=0019:01:00\.0", r"memory-backend-ram,id=m0,size=64G,host-nodes=1,policy=preferred", r"dist,src=0,dst=1,val=80"],
        ["gpu1"]),
    "four GH200s": (
        {"gpus": 4}, ["--all", "--accel-smmu=on"],
        [r"highmem-mmio-size=4T", r"-smp 64", r"pxb-pcie,id=pcie\.4,bus=pcie\.0,bus_nr=22,numa_node=3", r"nodeid=35$"], ["nodeid=36"]),
    "four GB200s, two to an SMMU": (
        {"kind": "gb200", "gpus": 4, "per_node": 2, "per_smmu": 2}, ["--all", "--accel-smmu=on"],
        [r"highmem-mmio-size=4T", r"pxb-pcie,id=pcie\.2,bus=pcie\.0,bus_nr=19,numa_node=1", r"id=port1,bus=pcie\.1,chassis=2", r"id=port2,bus=pcie\.2,chassis=3", r"smmuv3\.2,primary-bus=pcie\.2"],
        ["smmuv3\\.3"]),
    "two SMMUs at one node": (
        {"kind": "gb200", "gpus": 2, "per_node": 2}, ["--all", "--accel-smmu=on"], [r"pxb-pcie,id=pcie\.2,bus=pcie\.0,bus_nr=18,numa_node=0", r"highmem-mmio-size=4T"], []),
    "four GB300s": ({"kind": "gb300", "gpus": 4, "per_node": 2}, ["--all"], [r"highmem-mmio-size=8T"], []),
    "eight GH200s, each with room to spare": ({"gpus": 8}, ["--all"], [r"highmem-mmio-size=8T"], []),
    "few address bits": ({"bits": 40}, [], [r"highmem-mmio-size=512G"], []),
    "KVM can't be opened": ({"bits": 0}, [], [r"highmem-mmio-size=4T"], []),
    "huge pages": (
        {}, ["--hugepages=1G", "--memory=32G", "--cpus=8", "--disk=/dev/vg/a,b"],
        [r"-m 32G", r"-smp 8", r"memory-backend-memfd,id=m0,size=32G,hugetlb=on,hugetlbsize=1G",
         r"-drive if=none,id=disk0,format=raw,file=/dev/vg/a,,b"], []),
    "a tray": (
        {"gpus": 2, "tray": TRAY}, [*TRAY_WORDS, "--accel-smmu=on"],
        [r"pxb-pcie,id=pcie\.2,bus=pcie\.0,bus_nr=18,numa_node=1", r"pxb-pcie,id=pcie\.3,bus=pcie\.0,bus_nr=20,numa_node=0",
         r"pxb-pcie,id=pcie\.4,bus=pcie\.0,bus_nr=22,numa_node=1", r"pxb-pcie,id=pcie\.5,bus=pcie\.0,bus_nr=24,numa_node=0",
         r"smmuv3\.5,primary-bus=pcie\.5,accel=on", r"id=port1,bus=pcie\.2,chassis=2,io-reserve=0$",
         r"id=port2,bus=pcie\.3,chassis=3,io-reserve=0,x-speed=32$", r"id=port3,bus=pcie\.4,chassis=4,io-reserve=0,x-speed=64$",
         r"id=port4,bus=pcie\.5,chassis=5,io-reserve=0$", r"vfio-pci,id=dev0,host=0000:01:00\.0,bus=port2,rombar=0,iommufd=iommufd0$",
         r"id=dev2,host=0002:01:00\.0,bus=port4", r"id=gi15,pci-dev=gpu1,node=17"],
        ["gi16", "pci-dev=dev", "pcie\\.6", "node=18"]),
    "a NIC beside one GPU, without an SMMU": (
        {"tray": TRAY, "config": ONE_TYPE1}, [address(0), f"--device={NIC0}", "--device=0:1:0.0"],
        [r"id=port0,bus=pcie\.1", r"pxb-pcie,id=pcie\.2,bus=pcie\.0,bus_nr=18,numa_node=0", r"id=gpu0,.*rombar=0,ats=off$",
         r"id=dev0,host=0000:01:00\.0,bus=port1,rombar=0$"],
        ["dev1", "smmu", "iommufd"]),
    "a NIC where the window has room for one root complex": (
        {"gpus": 2, "per_node": 2, "qemu": "9.2", "config": ONE_TYPE1, "tray": TRAY}, ["--all", f"--device={NIC0}"],
        [r"id=port2,bus=pcie\.0,chassis=3"], ["pxb"]),
    "the NIC of the other socket": ({"gpus": 2, "tray": TRAY}, [address(0), f"--device={NIC1}"], [r"pcie\.2,bus=pcie\.0,bus_nr=18,numa_node=0"], []),
    "pinned": (
        {}, ["--pin"], [r"^-c 0-71 /usr/bin/qemu-system-aarch64$", r"id=m0,size=64G,host-nodes=0,policy=bind"], []),
    "pinned to two nodes": (
        {"gpus": 2}, ["--all", "--pin", "--cpus=2"], [r"^-c 0-143 /usr/bin/qemu-system-aarch64$", r"id=m1,size=64G,host-nodes=1,policy=bind"], ["preferred"]),
    "pinned beside isolated processors": ({"isolated": "8-71"}, ["--pin"], [r"^-c 0-7 /usr/bin/qemu-system-aarch64$"], []),
    "pinned where all processors are isolated": ({"isolated": "0-71"}, ["--pin"], [r"^-c 0-71 /usr/bin/qemu-system-aarch64$"], []),
    "UEFI": (
        {}, [], [r"-drive if=pflash,format=raw,readonly=on,file\.driver=file,file\.filename=/usr/share/AAVMF/AAVMF_CODE\.no-secboot\.fd$"], ["VARS", "tpm"]),
    "uneven numbers": (
        {"gpus": 2, "pages": 4096}, ["--all", "--cpus=5", "--memory=6M"],
        [r"-smp 5,sockets=5,cores=1$", r"nodeid=0,cpus=0-2,memdev=m0", r"nodeid=1,cpus=3-4,memdev=m1", r"id=m0,size=4M", r"id=m1,size=2M"], []),
}

# (host, words, status, what the message says)
REFUSED = {
    "three GPUs without highmem-mmio-size": ({"gpus": 3, "qemu": "9.2"}, ["--all"], 4, "window of 1 TiB.*QEMU 10.0 or later"),
    "no accelerated SMMU": ({"qemu": "10.0"}, ["--accel-smmu=on"], 4, "QEMU 11.0 or later has it"),
    "a kernel without nesting": ({"config": (*ONLY_IOMMUFD, "VFIO_IOMMU_TYPE1=m")}, ["--accel-smmu=on"], 4, "CONFIG_ARM_SMMU_V3_IOMMUFD"),
    "a kernel without iommufd": ({"config": ONE_TYPE1}, ["--accel-smmu=on"], 4, "lacks CONFIG_IOMMUFD or CONFIG_VFIO_DEVICE_CDEV"),
    "a kernel with neither": ({"config": ()}, [], 4, "lacks CONFIG_IOMMUFD.*no type1"),
    "too few address bits": ({"gpus": 4, "bits": 40, "kind": "gb300"}, ["--all"], 4, r"need 44 bits, and KVM gives it 40"),
    "no QEMU": ({"qemu": None}, [], 4, "qemu-system-aarch64: no QEMU in .*install QEMU 10.0 or later"),
    "no libvirt": ({}, [DOMAIN], 4, "no libvirt in /usr/sbin"),
    "libvirt without a domain": ({"libvirt": "12.8"}, ["--format=libvirt"], 2, "needs --domain: virt-install"),
    "a domain's memory twice": ({"libvirt": "12.8"}, [DOMAIN, "--memory=64G"], 2, "not for --domain, which has its own"),
    "a domain as a script": ({"libvirt": "12.8"}, [DOMAIN, "--format=qemu"], 2, "not for --domain"),
    "nothing to remove from": ({"libvirt": "12.8"}, ["--remove"], 2, "--remove needs --domain"),
    "GPUs to remove": ({"libvirt": "12.8"}, [DOMAIN, "--remove", "--all"], 2, "takes all GPUs out"),
    **{f"{word} to remove": ({"libvirt": "12.8"}, [DOMAIN, "--remove", word], 2, "takes all GPUs out")
       for word in ("--format=json", "--pin", "--accel-smmu=on", f"--device={NIC0}")},
    "more memory than the host has": ({}, ["--memory=1T"], 4, "have only 480 GiB"),
    "a node without a processor": ({"gpus": 2}, ["--all", "--cpus=1"], 4, "give the guest 2 or more"),
    "huge pages that the host lacks": ({}, ["--hugepages=16M", "--memory=32M"], 4, "16 MiB: the host has none of this size"),
    "libvirt 11.3 and the SMMU": ({"libvirt": "11.3"}, [DOMAIN, "--accel-smmu=on"], 4, "libvirt 12.7 or later"),
    "libvirt 11.3 and iommufd": ({"libvirt": "11.3", "config": ONLY_IOMMUFD}, [DOMAIN], 4, "libvirt 12.1 or later has it; the kernel has no type1"),
    "a window above much memory": ({"bits": 40, "memory_kib": {0: 1 << 30}}, ["--memory=600G"], 4, "need 41 bits, and KVM gives it 40"),
    "two SMMUs in 40 bits": ({"gpus": 2, "bits": 40}, ["--all", "--accel-smmu=on"], 4, "need 41 bits, and KVM gives it 40"),
    "a device that there is not": ({}, ["--all", "--device=0000:09:00.0"], 3, "0000:09:00.0: no such PCI device"),
    "a device that is no address": ({}, ["--all", "--device=nic"], 2, "nic: not a PCI address"),
    "a device of two names": ({"tray": TRAY}, ["--all", "--device=01:00.0"], 2, "matches .*; add the domain"),
    "a GPU as another device": ({"gpus": 2}, [address(0), f"--device={address(1)}"], 2, "a GPU; give its address without --device"),
    "a NIC with a BAR of 3 MiB": ({"tray": {**TRAY, NIC0: (0, (3 << 20, 0, 0), "")}}, ["--all", f"--device={NIC0}"], 4, "impossible size"),
    "more strict memory than a node has": (
        {"gpus": 2, "memory_kib": {0: 200 << 20, 1: 40 << 20}}, ["--all", "--pin", "--memory=128G"], 4, "--pin: .* has 64 GiB, and node 1 of the host has only 40 GiB"),
    "sixteen GPUs": ({"gpus": 16, "per_node": 16}, ["--all"], 4, "16 GPUs and 0 other devices; name at most 15 GPUs"),
}


def guest(tree, *words, status=0, sanitized=False):
    named = any(w in ("--all", "--remove") or ":" in w and not w.startswith("--") for w in words)
    done = tree.run("guest", *words, *([] if named else [address(0)]), sanitized=sanitized)
    assert done.returncode == status, (done.returncode, done.stderr, done.stdout)
    return done


def options(text):
    """The options of the command: what sh would pass, two words each."""
    command = text[text.index("\nexec "):].replace("\\\n", "")
    words = shlex.split(command)[2:]
    found = []
    for word in words:
        if word.startswith("-"):
            found.append(word)
        else:
            found[-1] += f" {word}"
    return found


class Lines:
    @pytest.mark.parametrize("facts, words, there, absent", HOSTS.values(), ids=HOSTS)
    def test_hosts(self, tree, facts, words, there, absent):
        found = options(guest(host(tree, **facts), "--format=qemu", *words, sanitized=True).stdout)
        for pattern in there:
            assert any(re.search(pattern, o) for o in found), f"{pattern} is not in\n" + "\n".join(found)
        for pattern in absent:
            assert not [o for o in found if re.search(pattern, o)], pattern

    @pytest.mark.parametrize("facts, words, status, message", REFUSED.values(), ids=REFUSED)
    def test_refusals(self, tree, facts, words, status, message):
        done = guest(host(tree, **facts), *words, status=status)
        assert re.search(message, done.stderr)
        assert done.stdout == ""

    def test_head(self, tree):
        """Lines that fit, and the command that made it."""
        text = guest(host(tree), "--accel-smmu=on").stdout
        head = text[:text.index("\nexec ")]
        assert max(map(len, head.splitlines())) <= 80
        assert "guest --accel-smmu=on 0009:01:00.0" in head.replace("\n# ", " ")

    def test_published(self, tree):
        """What people wrote by hand for such hosts is there: NVIDIA's line of
        the accelerated SMMU's patches, with two GPUs behind two SMMUs."""
        found = " ".join(options(guest(host(tree, kind="gb200", gpus=2, qemu="11.0"), "--all").stdout))
        assert int(re.search(r"highmem-mmio-size=(\d+)T", found)[1]) >= 2
        for what, count in {"pxb-pcie": 2, "arm-smmuv3": 2, "pcie-root-port": 2, "vfio-pci": 2, "acpi-generic-initiator": 16,
                            "accel=on,ats=on,ril=off,ssidsize=20,oas=48": 2, "rombar=0": 2, "iommufd=iommufd0": 2,
                            "gic-version=3": 1, "-cpu host": 1}.items():
            assert found.count(what) == count, what

    def test_pasid(self, tree):
        """NVIDIA's QEMU 10.1 has this property for ssidsize, by its source. It can't be run
        here, so this is what 11.1 lists, but for that line."""
        lists = (RECORDED / "qemu-11.1.txt").read_text()
        changed = re.sub(r"(?m)^  ssidsize=.*", "  pasid=<bool>", lists)
        assert changed != lists
        host(tree).file("/answers/qemu-options", changed)
        assert any(o.endswith("accel=on,ats=on,ril=off,pasid=on,oas=48") for o in options(guest(tree, "--accel-smmu=on").stdout))

    def test_newest(self, tree):
        """Of several, the newest QEMU, in whatever order they are."""
        versions = {"/usr/local/bin/qemu-system-aarch64": "11.0.2", "/usr/bin/qemu-system-aarch64": "11.1.0", "/usr/libexec/qemu-kvm": "10.2.0"}
        host(tree).file("/answers/qemu", "\n".join(f"{path}: QEMU emulator version {version}" for path, version in versions.items()))
        assert "\nexec /usr/bin/qemu-system-aarch64 " in guest(tree).stdout

    def test_type1_of_unknown_origin(self, tree):
        """It is loaded, although the configuration does not have it."""
        host(tree, config=()).file("/sys/module/vfio_iommu_type1/x")
        assert "iommufd" not in " ".join(options(guest(tree).stdout))

    def test_old_record(self):
        """A record without QEMU's lists: its version decides."""
        for version, there in (("9.2", False), ("10.0", True)):
            with Tree() as tree:
                host(tree, qemu=version).without("/answers/qemu-options")
                assert ("highmem" in "".join(options(guest(tree, "--format=qemu").stdout))) == there
        with Tree() as tree:
            host(tree).file("/answers/qemu", "/usr/bin/qemu-system-aarch64: garbage").without("/answers/qemu-options")
            assert re.search("no -object acpi-generic-initiator.*QEMU 9.0", guest(tree, status=4).stderr)

    @pytest.mark.parametrize("gpus, shift, said", ((1, None, None), (2, None, 5), (4, None, 6), (1, 2, None), (2, 4, 5), (2, 6, 5)))
    def test_nodes_of_kernels(self, gpus, shift, said):
        """What the guest's kernel needs, and the host's if it has too few."""
        with Tree() as tree:
            config = ("VFIO_IOMMU_TYPE1=m", *([f"NODES_SHIFT={shift}"] if shift else []))
            notes = json.loads(guest(host(tree, gpus=gpus, config=config), "--format=json", "--all").stdout)["notes"]
        assert [n for n in notes if n.startswith("this guest has")] == [n for n in notes if f"CONFIG_NODES_SHIFT={said} or more" in n]
        assert any(n.startswith("this guest has") for n in notes) == bool(said)
        needed = 9 * gpus
        assert any(f"this host needs {needed} NUMA nodes" in n for n in notes) == bool(shift and 1 << shift < needed)

    def test_group_of_a_nic(self, tree):
        """Two functions of a NIC in one group have no SMMU, and the GPU keeps its own."""
        second = NIC0[:-1] + "1"
        tray = {NIC0: TRAY[NIC0], second: TRAY[NIC0]}
        host(tree, tray=tray)
        for other, group in ((second, 60), (NIC0, 61)):
            tree.file(f"/sys/kernel/iommu_groups/{group}/devices/{other}/x").file(f"/sys/bus/pci/devices/{other}/class", "0x020000")
        document = json.loads(guest(tree, "--format=json", "--all", "--accel-smmu=on", *(f"--device={a}" for a in tray)).stdout)
        assert [bool(b["host_smmu"]) for b in document["buses"]] == [True, False, False]
        assert sum("has no SMMU in the guest" in n for n in document["notes"]) == 2

    def test_memory_of_nodes(self):
        """What isn't there is named."""
        with Tree() as tree:
            document = json.loads(guest(host(tree, gpus=2, memory_kib={0: 480 << 20, 1: 8 << 20}), "--all", "--format=json").stdout)
        assert document["memory"] == 128 << 30
        assert any("node 1 of the host has only 8 GiB: the rest comes from other nodes" in n for n in document["notes"])
        with Tree() as tree:
            host(tree).file("/sys/devices/system/node/node0/meminfo", f"Node 0 MemTotal: {480 << 20} kB\nNode 0 MemFree: {8 << 20} kB")
            assert any("of the host's node 0, 8 GiB are free now" in n for n in json.loads(guest(tree, "--format=json").stdout)["notes"])
        with Tree() as tree:
            host(tree, gpus=2).file("/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/free_hugepages", "3")
            notes = json.loads(guest(tree, "--all", "--format=json", "--hugepages=1G").stdout)["notes"]
            assert [n[:60] for n in notes if "huge pages" in n] == ["node 1 of the host has 3 free huge pages of 1 GiB, and the g"]
            assert "hugepages-1048576kB/nr_hugepages first" in "".join(notes)

    @pytest.mark.parametrize("facts, words, accel, said", (
        ({}, ["--accel-smmu=on"], True, True), ({}, [], False, False), ({"qemu": "11.0"}, [], False, False),
        ({"tray": TRAY, "config": ONLY_IOMMUFD}, [f"--device={NIC0}"], False, True), ({"tray": TRAY}, [f"--device={NIC0}"], False, False),
        ({"config": ONLY_IOMMUFD}, [], False, False)))
    def test_no_dma_bufs(self, tree, facts, words, accel, said):
        """By itself, the plan does without an SMMU then; what is wished has a note."""
        host(tree, **facts).file("/sys/bus/pci/drivers/nvgrace_gpu_vfio_pci/features", "pmd_pfnmap zap")
        plan = json.loads(guest(tree, "--format=json", "--all", *words).stdout)
        assert (plan["accel_smmu"], any(n.startswith("vfio does not export") for n in plan["notes"])) == (accel, said)


class BadRecords:
    def refuse(self, message, change, words=(), status=4, **facts):
        with Tree() as tree:
            host(tree, **facts)
            change(tree)
            done = guest(tree, *words, status=status)
            assert re.search(message, done.stderr)
            assert done.stdout == ""

    def attribute(self, name, value, number=0):
        return lambda tree: tree.file(f"/sys/bus/pci/devices/{address(number)}/{name}", value)

    def test_no_numa(self):
        self.refuse("no NUMA node", lambda tree: tree.without("sys/devices/system/node"))
        self.refuse("numa_node is -1", self.attribute("numa_node", -1), words=["--all"], gpus=2)
        self.refuse("not known which processors", lambda tree: tree.file("/sys/devices/system/node/node0/cpulist"))

    @pytest.mark.parametrize("node", (-1, 3))
    def test_one_node(self, tree, node):
        """A GPU of no node, or of its own, is near the only processors."""
        host(tree)
        self.attribute("numa_node", node)(tree)
        assert "nodeid=0,cpus=0-15" in guest(tree, "--format=qemu").stdout

    def test_bars(self):
        for name, value in (("usemem_bar_size", 0), ("usemem_bar_size", 3 * GiB), ("usemem_bar_size", 1 << 50), ("usemem_bar_size", "x"),
                            ("usemem_bar_size", (1 << 64) - 1), ("resmem_bar_size", 3), ("resmem_bar_size", 1 << 63)):
            self.refuse("impossible size", self.attribute(f"nvgrace_gpu/{name}", value))
        self.refuse("impossible size", self.attribute("resource", "0x0 0x2fffffff 0x14220c"))

    def test_unbound(self):
        device = f"sys/bus/pci/devices/{address(0)}"
        self.refuse("not bound; only nvgrace_gpu_vfio_pci.*bind --persist", lambda tree: tree.without(f"{device}/driver", f"{device}/nvgrace_gpu"))

        def other(tree):
            tree.without(f"{device}/driver", f"{device}/nvgrace_gpu").link(f"/{device}/driver", "../../../bus/pci/drivers/nvidia")
        self.refuse("bound to nvidia", other)
        self.refuse("reports no memory", self.attribute("nvgrace_gpu/mode", "core-only"))
        self.refuse("no GPU is bound", lambda tree: tree.without(f"{device}/driver", f"{device}/nvgrace_gpu"), words=["--all"], status=3)
        self.refuse("no such PCI device", lambda tree: None, words=["0099:01:00.0"], status=3)

    def test_shared(self, tree):
        """Two GPUs in one group, whose names kernel and libvirt want: no SMMU."""
        def same_group(tree):
            tree.file(f"/sys/kernel/iommu_groups/20/devices/{address(1)}/x")
            tree.file(f"/sys/kernel/iommu_groups/21/devices/{address(0)}/x")
        self.refuse("0009:01:00.0 has no SMMUv3.*or is not alone in its IOMMU group", same_group, words=["--all", "--accel-smmu=on"], gpus=2)
        same_group(host(tree, gpus=2))
        assert "smmuv3" not in guest(tree, "--format=qemu", "--all").stdout.split("\nexec ")[1]

    def test_devices(self):
        """A device that vfio doesn't have, and too many."""
        where = f"sys/bus/pci/devices/{NIC0}"
        words = ["--all", f"--device={NIC0}"]

        def driver(name):
            def change(tree):
                tree.without(f"{where}/driver", f"{where}/vfio-dev")
                if name:
                    tree.link(f"/{where}/driver", f"../../../bus/pci/drivers/{name}")
            return change
        self.refuse(r"0000:01:00\.0: bound to mlx5_core, not to a driver of vfio", driver("mlx5_core"), words=words, tray=TRAY)
        self.refuse(r"0000:01:00\.0: not bound, not to a driver of vfio", driver(None), words=words, tray=TRAY)
        many = {f"{i:04x}:02:00.0": TRAY[NVME] for i in range(31)}
        self.refuse("1 GPUs and 31 other devices; name at most 15 GPUs and 31 devices", lambda tree: None,
                    words=["--all", *(f"--device={a}" for a in many)], tray=many)

    def test_iommu(self):
        def other(tree):
            link = f"/sys/bus/pci/devices/{address(0)}/iommu"
            tree.without(link).link(link, "../../x/iommu/virtio-iommu0")
        self.refuse("0009:01:00.0 has no SMMUv3", other, words=["--accel-smmu=on"])
        self.refuse("0009:01:00.0 has no SMMUv3", lambda tree: tree.without(f"sys/bus/pci/devices/{address(0)}/iommu"), words=["--accel-smmu=on"])

    def test_distances(self):
        """Distances that ACPI does not permit, or not enough of them: none."""
        for text in ("10 80", " ".join(["0"] * 9), " ".join(["255"] * 9), "a b", ""):
            with Tree() as tree:
                host(tree).file("/sys/devices/system/node/node0/distance", text)
                found = guest(tree, "--format=qemu").stdout
                assert "-numa dist" not in found
                assert "note: no distances between the nodes, so that QEMU" in found
        with Tree() as tree:
            host(tree).file("/sys/devices/system/node/node1/distance", "80 10 10" + " 11" * 6)
            assert "dist,src=1,dst=2,val=11" in guest(tree, "--format=qemu").stdout
        for text in ("1-4", "99999999999999999999-3", "x", "1-70000000", ",,"):
            with Tree() as tree:
                host(tree).file("/sys/devices/system/node/has_generic_initiator", text)
                guest(tree, "--format=qemu")

    @pytest.mark.all
    def test_garbage(self, tree):
        """No garbage in a file of the record is a crash. Garbage and formats take
        turns."""
        host(tree, libvirt="12.8")
        files = [p for p in sorted(tree.root.rglob("*")) if p.is_file() and ("node" in str(p) or "0009" in str(p) or "answers" in str(p))]
        for number, path in enumerate(files):
            kept = path.read_bytes()
            garbage = (b"", b"\xff" * 300, b"18446744073709551615\n")[number // 3 % 3]
            path.write_bytes(garbage)
            words = ["--all", *([], [DOMAIN], ["--format=json"])[number % 3]]
            assert tree.run("guest", *words).returncode < 8, (path, garbage)
            path.write_bytes(kept)


class Names:
    """Paths with whatever bytes."""

    NASTY = ("it's", 'a "b" $HOME `id`', "a;b|c&d", "<a>&'\"", "-x", "ü → ∞", "a,b,,c", "x\\y")

    def test_shell(self, tree):
        host(tree)
        for name in self.NASTY:
            found = options(guest(tree, f"--disk={name}").stdout)
            assert f"-drive if=none,id=disk0,format=raw,file={os.getcwd()}/{name}".replace(",b,,c", ",,b,,,,c") in found
        # By a shell, to which each of these can mean something.
        words = [f"--disk={c}x" for c in string.punctuation]
        head = guest(tree, *words).stdout.partition(" guest ")[2].partition("\n#\n")[0].replace("\n# ", " ")
        assert subprocess.check_output(["sh", "-c", f"printf '%s\\n' {head}"], text=True).splitlines() == [*words, address(0)]

    def test_record(self, tree):
        """Whoever made the record can't add to what is printed, by the path of
        its QEMU, its machine or the name of a GPU's folder."""
        program = "/usr/bin/$(id); 'x"
        host(tree, gpus=2).file("/answers/qemu", f"{program}: QEMU emulator version 11.1.0")
        tree.file("/answers/qemu-options", f"$ {program} -machine virt,help\nvirt;$(id)-machine options:\n  ras=x\n$ {program} -object help\n"
                  "  acpi-generic-initiator\n")
        devices = tree.root / "sys/bus/pci/devices"
        for name in (";$(id)", "\nkind: x"):
            (devices / address(1)).rename(devices / f"0019:01:00.0{name}")
            text = guest(tree, "--all").stdout
            words = shlex.split(text[text.index("\nexec "):].replace("\\\n", ""))
            assert words[1] == program
            assert words[words.index("-machine") + 1].startswith("virt;$(id),accel=kvm")
            assert "gpu1" not in text
            (devices / f"0019:01:00.0{name}").rename(devices / address(1))

    def test_refused(self, tree):
        host(tree)
        for word in ("a\nb", "\x1b[0m", "", "\x7f"):
            assert "control character" in guest(tree, f"--disk={word}", status=2).stderr
        for word in (b"\xff", b"\xc3", b"\xe2\x82", b"\xc0\xaf", b"\xf5aaa", b"\xed\xa0\x80", b"\xe0\x80\xaf", b"\xf4\x90\x80\x80"):
            assert "UTF-8" in guest(tree, os.fsdecode(b"--disk=" + word), status=2).stderr

    def test_disk(self, tree, tmp_path):
        """Its format is in its first bytes, and it must be one that QEMU boots."""
        host(tree)
        for name, begin, found, note in (("a.img", b"QFI\xfb\0\0\0\3", "qcow2", True), ("a.qcow2", b"QFI\xfb\0\0\0\3", "qcow2", False), ("b.raw", b"", "raw", False),
                                         ("b.qcow2", b"\x55\xaa", "raw", True), ("b", b"QFI\xfb", "qcow2", False)):
            (tmp_path / name).write_bytes(begin)
            document = json.loads(guest(tree, "--format=json", f"--disk={tmp_path}/{name}").stdout)
            validate(document)
            assert (document["disk"], document["disk_format"]) == (f"{tmp_path}/{name}", found)
            assert any("which its name does not say" in n for n in document["notes"]) == note
        for name, found in (("none.qcow2", "qcow2"), ("none", "raw"), (".", "raw")):
            document = json.loads(guest(tree, "--format=json", f"--disk={tmp_path}/{name}").stdout)
            assert (document["disk_format"], any("can't be read here" in n for n in document["notes"])) == (found, True)

    def test_sizes(self, tree):
        host(tree)
        for word in ("", "0G", "64", "G", "-1G", "99999999999T", "1.5G", "x", "9223372036854775807G", "1048577T"):
            assert "not a size" in guest(tree, f"--memory={word}", status=2).stderr, word
        for word in ("0", "-1", "x", "99999999999", "0x10"):
            assert "not a number" in guest(tree, f"--cpus={word}", status=2).stderr
        assert 'use one of "auto"' in guest(tree, "--accel-smmu=yes", status=2).stderr
        for word in ("xml", "kubevirt"):
            assert 'use one of "qemu"' in guest(tree, f"--format={word}", status=2).stderr


class Output:
    def test_file(self, tree, tmp_path):
        host(tree)
        file = tmp_path / "gh200.sh"
        for fmt, before, mode in (("qemu", None, 0o755), ("json", None, 0o644), ("qemu", 0o600, 0o700), ("json", 0o600, 0o600)):
            file.unlink(missing_ok=True)
            if before:
                file.touch()
                file.chmod(before)
            done = guest(tree, f"--format={fmt}", f"--output={file}")
            assert done.stdout == ""
            assert file.stat().st_mode & 0o777 == mode
            without = re.sub(r"(?s) with: nvgrace-gpu guest.*?\n#\n", "", file.read_text(), count=1)
            assert without == re.sub(r"(?s) with: nvgrace-gpu guest.*?\n#\n", "", guest(tree, f"--format={fmt}").stdout, count=1)
        assert [p.name for p in file.parent.iterdir()] == ["gh200.sh"]

    def test_refused(self, tree, tmp_path):
        """A folder, and one that does not exist: nothing changes. test_replace has
        the other kinds of files."""
        host(tree)
        for place, message in ((tmp_path, "Is a directory"), (f"{tmp_path}/no/file", "No such file")):
            assert re.search(f"--output=.*{message}", guest(tree, f"--output={place}", status=1).stderr)
        assert list(tmp_path.iterdir()) == []

    def test_full(self, tree):
        host(tree)
        done = tree.run("guest", "--all", before=("sh", "-c", 'exec "$@" >/dev/full', "sh"))
        assert done.returncode == 1
        assert "No space left" in done.stderr


class Domains:
    """What a domain gets, and loses again. test_lines.py has libvirt read it."""

    PLAIN = (RECORDED / "domain-plain.xml").read_text()

    @staticmethod
    def change(text, *words, status=0, sanitized=False, **facts):
        """What the command prints for a domain on standard input."""
        with Tree() as tree:
            host(tree, **{"libvirt": "12.8", **facts})
            done = tree.run("guest", "--domain=-", *(words or ["--all"]), input=text, sanitized=sanitized)
        assert done.returncode == status, (done.returncode, done.stderr)
        return done.stderr if status else done.stdout

    @pytest.mark.parametrize("facts, words", (({}, []), ({"gpus": 2}, []), ({"gpus": 2, "tray": TRAY}, TRAY_WORDS[1:]), ({"gpus": 2}, ["--pin"]),
                                              ({}, ["--accel-smmu=on"]), ({"libvirt": "11.3", "qemu": "10.0", "config": ONE_TYPE1}, []),
                                              ({"libvirt": "11.3", "gpus": 2, "initiators": False}, ["--pin"])))
    def test_there_and_back(self, facts, words):
        """A second time changes nothing, and without GPUs each byte is as before. Other
        words replace what was added."""
        for text in (self.PLAIN, self.edited()):
            given = self.change(text, "--all", *words, **facts)
            assert given != text
            ET.fromstring(given)
            assert self.change(given, "--all", *words, **facts) == given
            assert self.change(given, "--remove") == text
            other = self.change(given, address(0), **facts)
            assert self.change(other, address(0), **facts) == other
            assert self.change(other, "--remove") == text
        assert self.change(self.PLAIN, "--remove") == self.PLAIN

    @pytest.mark.parametrize("old, new", (
        ("<cpu mode='maximum' check='none'/>", "<cpu mode='maximum'></cpu>"), ("<cpu mode='maximum' check='none'/>", ""),
        ("METADATA", "<metadata/>"), ("METADATA", "<metadata>\n    <!-- mine -->\n  </metadata>"), ("METADATA", ""), ("METADATA", "<metadata>\n\t</metadata>"),
        ("<devices>", "<cputune></cputune><numatune/><qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'/><devices>"),
        ("<devices>", "<cputune><!-- mine --></cputune>\n\t<devices>")))
    def test_empty_elements(self, old, new):
        """They stay as they are written, with a comment or without."""
        text = self.PLAIN.replace(re.search("(?s)<metadata>.*</metadata>", self.PLAIN)[0] if old == "METADATA" else old, new)
        given = self.change(text, "--all", "--pin", gpus=2)
        assert self.change(given, "--all", "--pin", gpus=2) == given
        assert self.change(given, "--remove") == text

    def test_what_others_add(self):
        """In an element that this command has made, too."""
        more = "<topology sockets='2' cores='8' threads='1'/>"
        given = self.change(self.PLAIN.replace("<cpu mode='maximum' check='none'/>", "")).replace("<numa>", f"{more}<numa>")
        assert more in self.change(given, sanitized=True) and more in self.change(given, "--remove", sanitized=True)

    def edited(self):
        """As an administrator writes it: comments, tabs, entities, CDATA, other quotes."""
        text = self.PLAIN.replace("  <memory ", "\t<!-- a > b <memory> -- -->\n\t<title>a &lt;b&gt; &amp; c &#x263a;</title>\n  <memory ".replace(" -- ", " "))
        text = text.replace("<vcpu placement='static'>16</vcpu>", '<vcpu\n placement="static" >16</vcpu><!-- x --><description><![CDATA[ <domain> </domain> ]]></description>')
        return "<?xml version='1.0'?>\n<!-- first -->" + text.replace("<cpu mode='maximum' check='none'/>", "<cpu mode='maximum' check='none' />") + "<!-- last -->"

    def test_elements(self):
        domain = ET.fromstring(self.change(self.PLAIN, gpus=2))
        assert domain.find("devices/controller[@model='pcie-root']/pcihole64").text == str(4 << 30)
        cells = domain.findall("cpu/numa/cell")
        assert [(c.get("cpus"), c.get("memory")) for c in cells] == [("0-7", str(32 << 20)), ("8-15", str(32 << 20))] + [(None, "0")] * 16
        assert [s.get("value") for s in cells[0].iter("sibling")] == ["10", "40"] + ["80"] * 8 + ["120"] * 8
        hosts = [h for h in domain.findall("devices/hostdev")]
        assert [(h.find("acpi").get("nodeset"), h.get("managed"), h.find("rom").get("bar")) for h in hosts] == [("2-9", "no", "off"), ("10-17", "no", "off")]
        assert [(n.get("nodeset"), n.get("mode")) for n in domain.findall("numatune/memnode")] == [("0", "preferred"), ("1", "preferred")]
        qemu = "{http://libvirt.org/schemas/domain/qemu/1.0}"
        assert domain.find(f"{qemu}commandline") is None
        assert ([(d.get("alias"), d.find(f"{qemu}frontend/{qemu}property").attrib) for d in domain.iter(f"{qemu}device")] ==
                [(f"ua-nvgrace-gpu{i}", {"name": "ats", "type": "string", "value": "off"}) for i in range(2)])
        # The last bus is a byte, however many devices there are.
        many = {f"{i:04x}:02:{i:02x}.{i % 8}": TRAY[NVME] for i in range(16)}
        domain = ET.fromstring(self.change(self.PLAIN, "--all", *(f"--device={a}" for a in many), gpus=15, tray=many, memory_kib=480 << 20))
        buses = [int(t.get("busNr")) for t in domain.findall("devices/controller[@model='pcie-expander-bus']/target")]
        assert len(buses) == 31 and buses == sorted(set(buses)) and buses[-1] < 255
        sources = ["{domain}:{bus}:{slot}.{function}".format(**a.attrib).replace("0x", "") for a in domain.findall("devices/hostdev/source/address")]
        assert sources == [*map(address, range(15)), *many]
        domain = ET.fromstring(self.change(self.PLAIN, "--all", "--accel-smmu=on", *TRAY_WORDS[1:], gpus=2, tray=TRAY))
        assert [i.find("driver").attrib for i in domain.findall("devices/iommu")] == [{"pciBus": str(n), "accel": "on"} for n in range(15, 20)]
        assert [h.find("driver").get("iommufd") for h in domain.findall("devices/hostdev")] == ["yes"] * 5
        assert ([(d.get("alias"), d.find(f"{qemu}frontend/{qemu}property").get("value")) for d in domain.iter(f"{qemu}device")] ==
                [("ua-nvgrace-port2", "32"), ("ua-nvgrace-port3", "64")])

    def test_old_libvirt(self):
        """What libvirt 11.3 has no element for is in qemu:commandline, beside what is there."""
        own = "<qemu:commandline>\n    <qemu:arg value='-msg'/>\n    <qemu:arg value='timestamp=on'/>\n  </qemu:commandline>\n</domain>"
        text = self.PLAIN.replace("</domain>", own).replace("<domain type='qemu'>", "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>")
        given = self.change(text, libvirt="11.3")
        values = [a.get("value") for a in ET.fromstring(given).iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg")]
        assert values[:3] == ["-msg", "timestamp=on", "-machine"]
        for value in ("highmem-mmio-size=4T", "acpi-generic-initiator,id=ua-nvgrace-gi7,pci-dev=ua-nvgrace-gpu0,node=8", "dist,src=0,dst=1,val=80"):
            assert value in values
        assert self.change(given, "--remove") == text
        assert "<ras state='on'/>" in given and "<ras" not in self.change(text, libvirt="10.2")
        # A later libvirt has elements for all of it.
        later = self.change(given)
        assert "generic-initiator" not in later and "<acpi nodeset='1-8'/>" in later
        assert self.change(later, "--remove") == text
        assert "nodes, initiators or a window of its own" in self.change(text.replace("'-msg'", "'-numa'").replace("timestamp=on", "node,nodeid=1"), status=4)

    def test_own_nodes(self):
        """Cells of the domain stay, and each stands for a node of the host."""
        own = "<cpu mode='maximum'>\n    <numa>\n%s    </numa>\n  </cpu>"
        cells = [f"      <cell id='{i}' cpus='{8 * i}-{8 * i + 7}' memory='32' unit='GiB'/>\n" for i in range(2)]
        text = self.PLAIN.replace("<cpu mode='maximum' check='none'/>", own % "".join(cells))
        given = self.change(text, gpus=2)
        found = ET.fromstring(given)
        assert [c.get("memory") for c in found.findall("cpu/numa/cell")] == ["32"] * 2 + ["0"] * 16
        assert [len(c.findall("distances/sibling")) for c in found.findall("cpu/numa/cell")] == [0] * 2 + [18] * 16
        assert self.change(given, "--remove") == text
        # To these cells, libvirt adds the distances to those that came.
        for ids, left in ((("0", "2", "17"), None), (("0", "1", "2"), ["0", "1"]), (("0",), ["0"])):
            siblings = "".join(f"<sibling id='{i}' value='20'/>" for i in ids)
            listed = given.replace("unit='GiB'/>", f"unit='GiB'><distances>{siblings}</distances></cell>", 1)
            kept = ET.fromstring(self.change(listed, "--remove")).find("cpu/numa/cell/distances")
            assert (None if kept is None else [s.get("id") for s in kept]) == left
        assert "2 NUMA cells, and these GPUs are near 1" in self.change(text, address(1), gpus=2, status=4)
        tuned = text.replace("<cpu mode", "<numatune>\n    <memnode cellid='0' mode='strict' nodeset='1'/>\n    <memnode cellid='1' mode='strict' nodeset='0'/>\n  </numatune>\n  <cpu mode")
        pinned = ET.fromstring(self.change(tuned, "--all", "--pin", gpus=2))
        assert [p.get("cpuset") for p in pinned.findall("cputune/vcpupin")] == ["72-143"] * 8 + ["0-71"] * 8
        assert len(pinned.findall("numatune/memnode")) == 2
        for cell in ("<cell id='5' cpus='0-15' memory='64' unit='GiB'/>", "<cell id='0' memory='64' unit='GiB'/>", "<cell cpus='0' memory='1' unit='GiB'/>" * 16):
            assert "has no cpus, or an id" in self.change(self.PLAIN.replace("<cpu mode='maximum' check='none'/>", own % cell), status=4)

    def test_pins(self):
        """One of the isolated processors each, or those of the node."""
        for isolated, cpuset, rest in (("", ["0-71"] * 16, "0-71"), ("8-71", [str(8 + i) for i in range(16)], "0-7"), ("0,2", ["0", "2"] * 8, "1,3-71")):
            domain = ET.fromstring(self.change(self.PLAIN, "--all", "--pin", isolated=isolated))
            tune = domain.find("cputune")
            assert domain.find("numatune/memnode").get("mode") == "strict"
            assert [(p.get("vcpu"), p.get("cpuset")) for p in tune.findall("vcpupin")] == [(str(i), c) for i, c in enumerate(cpuset)]
            assert tune.find("emulatorpin").get("cpuset") == rest
        # On another host, they replace those of before.
        before, after = (self.change(self.PLAIN, "--all", "--pin", isolated=isolated) for isolated in ("", "8-71"))
        assert self.change(before, "--all", "--pin", isolated="8-71") == after

    @pytest.mark.parametrize("old, new, message", (
        ("arch='aarch64'", "arch='x86_64'", "not the machine virt of aarch64"), ("machine='virt-11.1'", "machine='sbsa-ref'", "not the machine virt"),
        ("<acpi/>", "", "no <acpi/>"), ("<memory unit='KiB'>67108864", "<memory unit='x'>1", "<memory> or <vcpu>"),
        ("<memory unit='KiB'>67108864", "<memory unit='TiB'>1", "have only 480 GiB"), (">16</vcpu>", ">0</vcpu>", "<memory> or <vcpu>"),
        (">16</vcpu>", ">1048577</vcpu>", "<memory> or <vcpu>"),
        ("model='pcie-root'/>", "model='pcie-root'><pcihole64 unit='GiB'>64</pcihole64></controller>", "<pcihole64> has 64 GiB"),
        *(("<devices>", f"<devices><controller type='pci' index='20' model='pcie-expander-bus'><target busNr='{n}'/></controller>",
           f"has the busNr {n}, and the GPUs need those from 64 to 125") for n in (64, 125)),
        ("qemu-system-aarch64</emulator>", "qemu-mine</emulator>", "qemu-mine: no QEMU in"),
        ("<devices>", "<memoryBacking><hugepages><page size='16' unit='M'/></hugepages></memoryBacking><devices>", "huge pages of 16 MiB: the host has none"),
    ))
    def test_what_does_not_go_with_gpus(self, old, new, message):
        assert old in self.PLAIN
        assert message in self.change(self.PLAIN.replace(old, new, 1), status=4)

    def test_own_window(self):
        """It stays, if it is large enough."""
        text = self.PLAIN.replace("model='pcie-root'/>", "model='pcie-root'><pcihole64 unit='TiB'>8</pcihole64></controller>")
        given = self.change(text)
        assert [e.text for e in ET.fromstring(given).iter("pcihole64")] == ["8"]
        assert self.change(given, "--remove") == text
        assert json.loads(self.change(text, "--all", "--format=json"))["window"]["size"] == 8 << 40

    def test_units(self):
        """As libvirt knows them: powers of 1024, and "GB" of 1000."""
        for words, size in (("unit='GiB'>64", 64 << 30), ("unit='g'>64", 64 << 30), ("unit='GB'>64", 64 * 1000 ** 3), ("unit='bytes'>1073741824", 1 << 30),
                            (">1048576", 1 << 30), ("unit='MB'>1001", 1001 * 1000 ** 2 // 1024 * 1024 + 1024)):
            text = self.PLAIN.replace("<memory unit='KiB'>67108864", f"<memory {words}")
            assert json.loads(self.change(text, "--all", "--format=json"))["memory"] == size

    def test_huge_pages_of_cells(self):
        """Those of each cell, and not of the first; where none has a size, nothing is known."""
        cells = "<cpu><numa>" + "".join(f"<cell id='{i}' cpus='{8 * i}-{8 * i + 7}' memory='32' unit='GiB'/>" for i in range(2)) + "</numa></cpu>"
        for page, node in (("<page size='1' unit='G' nodeset='0'/>", None), ("<page size='1' unit='G' nodeset='1'/>", 1), ("<page size='1' unit='G'/>", 1),
                           ("<page size='2' unit='M'/><page size='1' unit='G' nodeset='0'/>", 1), ("", None)):
            text = self.PLAIN.replace("<cpu mode='maximum' check='none'/>", f"<memoryBacking><hugepages>{page}</hugepages></memoryBacking>{cells}")
            with Tree() as tree:
                host(tree, gpus=2, libvirt="12.8").file("/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/free_hugepages", "3")
                tree.file("/sys/devices/system/node/node0/meminfo", f"Node 0 MemTotal: {480 << 20} kB\nNode 0 MemFree: {8 << 20} kB")
                if node is None:
                    tree.file("/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/free_hugepages", "32")
                notes = json.loads(tree.run("guest", "--domain=-", "--all", "--format=json", input=text).stdout)["notes"]
            assert [re.match(r"node (\d) of the host has \d+ free huge pages", n)[1] for n in notes if "huge pages" in n] == ([str(node)] if node else [])
            assert any("are free now" in n for n in notes) == ("nodeset='1'" in page)

    def test_pinned_already(self):
        """The domain's own pins stay."""
        for pin, words in (("<vcpupin vcpu='0' cpuset='1'/>", []), ("<emulatorpin cpuset='1'/>", ["--pin"])):
            text = self.PLAIN.replace("<devices>", f"<cputune>{pin}</cputune><devices>")
            given = self.change(text, "--all", *words)
            assert pin in given and given.count("<emulatorpin") == len(words)
            assert self.change(given, "--remove") == text

    def test_no_domain(self, tree, tmp_path):
        """Nothing is printed for what is no domain, and a file stays as it is."""
        host(tree, libvirt="12.8")
        file = tmp_path / "domain.xml"
        for text, message in (("", "not a domain"), ("<x/>", "its root element is <x>"), ("<domain>", "not a domain of libvirt"), ("\0", "zero byte"),
                              (self.PLAIN[:3000], "not a domain"), (self.PLAIN + "<x/>", "not a domain"), ("<domain>" * 70 + "</domain>" * 70, "levels"),
                              ("<domain a='1' b=>", "not a domain"), (b"<domain>\xff</domain>".decode("latin-1"), "can't have GPUs"), ("<domain/>", "can't have GPUs")):
            file.write_text(text, "utf-8")
            done = tree.run("guest", "--all", f"--domain={file}", f"--output={file}")
            assert done.returncode in (1, 4) and message in done.stderr and not done.stdout, done.stderr
            assert file.read_text("utf-8") == text
        file.write_bytes(b"<domain>\xff</domain>")
        assert "UTF-8" in tree.run("guest", "--all", f"--domain={file}").stderr
        assert "No such file" in tree.run("guest", "--all", f"--domain={tmp_path}/none").stderr
        file.write_text(self.PLAIN)
        # As ssh has it: a socket, which can't be opened again.
        mine, its = socket.socketpair()
        with mine, its:
            mine.sendall(self.PLAIN.encode())
            mine.shutdown(socket.SHUT_WR)
            of_socket = tree.run("guest", "--all", "--domain=-", stdin=its)
        assert tree.run("guest", "--all", f"--domain={file}", f"--output={file}").returncode == 0
        assert of_socket.stdout == file.read_text()
        assert file.read_text() == tree.run("guest", "--all", f"--domain={file}").stdout != self.PLAIN

    @pytest.mark.all
    def test_damaged(self):
        """A domain with a damaged place, with and without GPUs, is changed or refused."""
        with Tree() as tree:
            host(tree, libvirt="12.8", gpus=2)
            for text in (self.PLAIN, self.change(self.PLAIN, gpus=2)):
                for number in range(18):
                    at = len(text) * number // 18
                    broken = text[:at] + ("", "\0", "<", "'", "99999999999999999999", "</devices>")[number % 6] + text[at + 7 * (number % 3):]
                    for words in (["--all"], ["--remove"]):
                        done = tree.run("guest", "--domain=-", *words, input=broken)
                        assert done.returncode in (0, 1, 2, 4), (done.returncode, done.stderr)
                        assert bool(done.stdout) == (done.returncode == 0)

    def test_what_virsh_says(self, tree):
        """The running daemon decides, and its QEMU's iommufd, unless that is not said."""
        recorded = (RECORDED / "domcapabilities-12.8.xml").read_text()
        yes = recorded.replace("<value>no</value>\n      </enum>\n    </hostdev>", "<value>yes</value></enum></hostdev>")
        assert yes != recorded
        host(tree, libvirt="12.8", config=ONLY_IOMMUFD)
        assert "<acpi nodeset" in guest(tree, DOMAIN).stdout
        tree.file("/answers/libvirt-version", (RECORDED / "virsh-version-11.3.txt").read_text())
        assert "libvirt 12.1 or later" in guest(tree, DOMAIN, status=4).stderr
        tree.without("/answers/libvirt-version")
        for said, there in ((recorded, False), (self.PLAIN, True), (yes, True), ("iommu: smmuv3", True), ("<", True)):
            tree.file("/answers/libvirt-capabilities", said)
            assert ("iommufd='yes'" in guest(tree, DOMAIN, status=0 if there else 4).stdout) == there


class Notes:
    @pytest.mark.parametrize("words, said", ((["--accel-smmu=on"], "need --accel-smmu=off"), (["--accel-smmu=off"], None), ([], "--accel-smmu=on adds it")))
    def test_kernel_of_the_guest(self, tree, words, said):
        """What its kernel needs depends on the SMMU, and which option changes that."""
        notes = [n for n in json.loads(guest(host(tree), "--format=json", *words).stdout)["notes"] if "CONFIG_ARM_SMMU_V3_SVA" in n]
        assert [said in n for n in notes] == [True] * bool(said)

    def test_pinned_to_less(self, tree):
        """Processors whose numbers have gaps, and fewer than the guest's."""
        host(tree, gpus=2).file("/sys/devices/system/node/node0/cpulist", "0,2-3,7,9-11").file("/sys/devices/system/node/node1/cpulist", "8")
        document = json.loads(guest(tree, "--format=json", "--all", "--pin", "--cpus=4").stdout)
        assert [n["host_cpus"] for n in document["nodes"]][:3] == ["0,2-3,7,9-11", "8", None]
        assert sum("pinned to, has 1" in n for n in document["notes"]) == 1
        pins = re.search("\npins='([^']*)'\n", guest(tree, "--format=qemu", "--all", "--pin", "--cpus=18").stdout)[1]
        assert pins.split() == ["0,2-3,7,9-11"] * 9 + ["8"] * 9


class Firmware:
    """Which firmware a guest gets, by the descriptors that are installed."""

    @staticmethod
    def plan(tree, *words):
        return json.loads(guest(tree, "--format=json", *words).stdout)

    def test_none(self, tree):
        host(tree).without("/usr/share/qemu/firmware")
        assert self.plan(tree)["firmware"] == "/usr/share/AAVMF/AAVMF_CODE.fd"

    def test_administrators(self, tree):
        """A file in /etc is read before the package's, and replaces one of its name."""
        host(tree).file("/etc/qemu/firmware/59-own.json", json.dumps(descriptor("own,1.fd", "own-vars.fd", [])))
        tree.file("/etc/qemu/firmware/40-edk2-aarch64-secure-enrolled.json", "")
        assert self.plan(tree)["firmware"] == "/usr/share/AAVMF/own,1.fd"
        assert any(o.endswith(",file.filename=/usr/share/AAVMF/own,,1.fd") for o in options(guest(tree).stdout))

    def test_others(self):
        """What is for other machines, or no descriptor at all, is passed over."""
        good = descriptor("first.fd", "vars.fd", [])
        files = good["mapping"]
        for wrong in ({"interface-types": ["bios"]}, {"targets": [{"architecture": "x86_64", "machines": ["virt-*"]}]},
                      {"targets": [{"architecture": "aarch64", "machines": ["sbsa-ref*"]}]}, {"targets": 1}, {"targets": [1]},
                      {"mapping": {**files, "device": "memory"}}, {"mapping": {**files, "mode": "stateless"}}, {"mapping": []},
                      {"mapping": {**files, "executable": {"filename": "first.fd", "format": "raw"}}},
                      {"mapping": {**files, "executable": {"filename": 7, "format": "raw"}}},
                      {"mapping": {**files, "executable": {"filename": "/vars.fd", "format": "vmdk"}}}, {"features": ["secure-boot"]}):
            with Tree() as tree:
                host(tree).file("/etc/qemu/firmware/00.json", json.dumps({**good, **wrong}))
                assert self.plan(tree)["firmware"] == "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd"
        for text in ("", "[", "[]", "1", '"x"', "\0", "null"):
            with Tree() as tree:
                host(tree).file("/etc/qemu/firmware/00.json", text)
                assert self.plan(tree)["firmware"] == "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd"

    def test_qcow2(self, tree):
        """As Fedora has it."""
        wanted = descriptor("code.qcow2", "vars.qcow2", [])
        for file in ("executable", "nvram-template"):
            wanted["mapping"][file]["format"] = "qcow2"
        host(tree).file("/etc/qemu/firmware/00.json", json.dumps(wanted))
        assert [o.split(",")[1:3] for o in options(guest(tree).stdout) if "pflash" in o] == [["format=qcow2", "readonly=on"]]


class Others:
    def test_json(self):
        for facts in ({}, {"gpus": 4}, {"config": ONE_TYPE1, "initiators": False}, {"libvirt": "11.3", "qemu": "9.2"}):
            with Tree() as tree:
                document = json.loads(guest(host(tree, **facts), "--format=json", "--all", *([DOMAIN] if "libvirt" in facts else [])).stdout)
            validate(document)
            gpus = facts.get("gpus", 1)
            assert len(document["nodes"]) == gpus + GPU_NODES * gpus
            assert [g["address"] for g in document["gpus"]] == [address(i) for i in range(gpus)]
        with Tree() as tree:
            document = json.loads(guest(host(tree, gpus=2, tray=TRAY), "--format=json", "--pin", *TRAY_WORDS).stdout)
        validate(document)
        assert ([(d["address"], d["bus"], d["port_speed"]) for d in document["devices"]] ==
                [(NIC0, 2, 32), (NIC1, 3, 64), (NVME, 4, None)])
