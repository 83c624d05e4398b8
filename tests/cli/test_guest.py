# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu guest, with ASan and UBSan: what it prints for hosts of every
kind, and what it refuses. tests/guests/test_lines.py starts what it prints."""

import json
import os
import re
import shlex
import xml.etree.ElementTree as ET

import pytest

from cli.common import validate
from cli.guest_hosts import GPU_NODES, NIC0, NIC1, NVME, TRAY, GiB, TiB, Tree, address, descriptor, host

ONE_TYPE1 = ("VFIO_IOMMU_TYPE1=m",)
TRAY_WORDS = ["--all", *(f"--device={a}" for a in TRAY)]
ONLY_IOMMUFD = ("IOMMUFD=m", "VFIO_DEVICE_CDEV=y")

# name: (host, words of the command line, options that must be there, options
# that must not). "" in a pattern is anything.
HOSTS = {
    "one GH200, all that there is": (
        {}, [],
        [r"-machine virt,accel=kvm,gic-version=3,ras=on,highmem-mmio-size=4T", r"-cpu host", r"-smp 16$", r"-m 64G",
         r"-object iommufd,id=iommufd0", r"-device pxb-pcie,id=pcie\.1,bus=pcie\.0,bus_nr=16,numa_node=0",
         r"-device arm-smmuv3,id=smmuv3\.1,primary-bus=pcie\.1,accel=on,ats=on,ril=off,ssidsize=20,oas=48",
         r"-device pcie-root-port,id=port0,bus=pcie\.1,chassis=1,io-reserve=0",
         r"-device vfio-pci,id=gpu0,host=0009:01:00\.0,bus=port0,rombar=0,iommufd=iommufd0",
         r"-object acpi-generic-initiator,id=gi7,pci-dev=gpu0,node=8", r"-numa dist,src=0,dst=1,val=80",
         r"-numa dist,src=1,dst=2,val=11"],
        ["host-nodes", "pcie\\.2", "node=9"]),
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
    "the SMMU isn't wanted": (
        {}, ["--accel-smmu=off"], [r"bus=pcie\.0,chassis=1", r"rombar=0,ats=off$"], ["iommufd", "smmu", "pxb"]),
    "iommufd is wanted, the SMMU isn't": (
        {}, ["--accel-smmu=off", "--iommufd=on"], [r"-object iommufd", r"ats=off,iommufd=iommufd0"], ["smmu", "pxb"]),
    "iommufd isn't wanted": ({}, ["--iommufd=off"], [r"rombar=0,ats=off$"], ["iommufd", "smmu"]),
    "two GH200s at two nodes, and QEMU 9.2 has room for one root complex": (
        {"gpus": 2, "qemu": "9.2", "config": ONE_TYPE1}, ["--all"], [r"id=port1,bus=pcie\.0,chassis=2", r"host-nodes=1"], ["highmem", "pxb"]),
    "two GH200s at two nodes, 40 bits": (
        {"gpus": 2, "bits": 40, "config": ONE_TYPE1}, ["--all"], [r"highmem-mmio-size=512G", r"id=port1,bus=pcie\.0"], ["pxb"]),
    "two GH200s at two nodes, 41 bits": (
        {"gpus": 2, "bits": 41, "config": ONE_TYPE1}, ["--all"], [r"highmem-mmio-size=1T", r"id=port1,bus=pcie\.2"], []),
    "a file in memory is no device": ({}, ["--disk=/dev/shm/x.qcow2"], [r"file\.driver=file,"], ["host_device"]),
    "two GH200s, one to a node and an SMMU": (
        {"gpus": 2}, ["--all"],
        [r"highmem-mmio-size=4T", r"-smp 32,sockets=2,cores=16$", r"-m 128G", r"memory-backend-ram,id=m1,size=64G,host-nodes=1,policy=preferred",
         r"node,nodeid=1,cpus=16-31,memdev=m1", r"pxb-pcie,id=pcie\.2,bus=pcie\.0,bus_nr=32,numa_node=1",
         r"arm-smmuv3,id=smmuv3\.2,primary-bus=pcie\.2,accel=on", r"pcie-root-port,id=port1,bus=pcie\.2,chassis=2",
         r"id=gi8,pci-dev=gpu1,node=10", r"id=gi15,pci-dev=gpu1,node=17", r"dist,src=0,dst=1,val=40", r"dist,src=0,dst=2,val=80",
         r"dist,src=0,dst=10,val=120", r"dist,src=2,dst=10,val=160"],
        ["pcie\\.3", "node=18"]),
    "the second of two": (
        {"gpus": 2}, [address(1)],
        [r"vfio-pci,id=gpu0,host=0019:01:00\.0", r"memory-backend-ram,id=m0,size=64G,host-nodes=1,policy=preferred", r"dist,src=0,dst=1,val=80"],
        ["gpu1"]),
    "four GH200s": (
        {"gpus": 4}, ["--all"],
        [r"highmem-mmio-size=4T", r"-smp 64", r"pxb-pcie,id=pcie\.4,bus=pcie\.0,bus_nr=64,numa_node=3", r"nodeid=35$"], ["nodeid=36"]),
    "four GB200s, two to an SMMU": (
        {"kind": "gb200", "gpus": 4, "per_node": 2, "per_smmu": 2}, ["--all"],
        [r"highmem-mmio-size=4T", r"id=port1,bus=pcie\.1,chassis=2", r"id=port2,bus=pcie\.2,chassis=3", r"smmuv3\.2,primary-bus=pcie\.2"],
        ["smmuv3\\.3"]),
    "two SMMUs at one node": (
        {"kind": "gb200", "gpus": 2, "per_node": 2}, ["--all"], [r"pxb-pcie,id=pcie\.2,bus=pcie\.0,bus_nr=32,numa_node=0", r"highmem-mmio-size=4T"], []),
    "four GB300s": ({"kind": "gb300", "gpus": 4, "per_node": 2}, ["--all"], [r"highmem-mmio-size=8T"], []),
    "few address bits": ({"bits": 40}, [], [r"highmem-mmio-size=512G"], []),
    "KVM can't be opened": ({"bits": 0}, [], [r"highmem-mmio-size=4T"], []),
    "huge pages": (
        {}, ["--hugepages=1G", "--memory=32G", "--cpus=8", "--name=a b", "--disk=/dev/vg/a,b"],
        [r"-m 32G", r"-smp 8", r"memory-backend-memfd,id=m0,size=32G,hugetlb=on,hugetlbsize=1G",
         r"-name guest=a b", r"driver=raw,node-name=disk0,file.driver=host_device,file.filename=/dev/vg/a,,b"], []),
    "a tray": (
        {"gpus": 2, "tray": TRAY}, TRAY_WORDS,
        [r"pxb-pcie,id=pcie\.2,bus=pcie\.0,bus_nr=32,numa_node=1", r"pxb-pcie,id=pcie\.3,bus=pcie\.0,bus_nr=48,numa_node=0",
         r"pxb-pcie,id=pcie\.4,bus=pcie\.0,bus_nr=52,numa_node=1", r"pxb-pcie,id=pcie\.5,bus=pcie\.0,bus_nr=56,numa_node=0",
         r"smmuv3\.5,primary-bus=pcie\.5,accel=on", r"id=port1,bus=pcie\.2,chassis=2,io-reserve=0$",
         r"id=port2,bus=pcie\.3,chassis=3,io-reserve=0,x-speed=32$", r"id=port3,bus=pcie\.4,chassis=4,io-reserve=0,x-speed=64$",
         r"id=port4,bus=pcie\.5,chassis=5,io-reserve=0$", r"vfio-pci,id=dev0,host=0000:01:00\.0,bus=port2,rombar=0,iommufd=iommufd0$",
         r"id=dev2,host=0002:01:00\.0,bus=port4", r"id=gi15,pci-dev=gpu1,node=17"],
        ["gi16", "pci-dev=dev", "pcie\\.6", "node=18"]),
    "a NIC beside one GPU, without an SMMU": (
        {"tray": TRAY, "config": ONE_TYPE1}, [address(0), f"--device={NIC0}", "--device=0:1:0.0"],
        [r"id=port0,bus=pcie\.1", r"pxb-pcie,id=pcie\.2,bus=pcie\.0,bus_nr=32,numa_node=0", r"id=gpu0,.*rombar=0,ats=off$",
         r"id=dev0,host=0000:01:00\.0,bus=port1,rombar=0$"],
        ["dev1", "smmu", "iommufd"]),
    "a NIC where the window has room for one root complex": (
        {"gpus": 2, "per_node": 2, "qemu": "9.2", "config": ONE_TYPE1, "tray": TRAY}, ["--all", f"--device={NIC0}"],
        [r"id=port2,bus=pcie\.0,chassis=3"], ["pxb"]),
    "the NIC of the other socket": ({"gpus": 2, "tray": TRAY}, [address(0), f"--device={NIC1}"], [r"pcie\.2,bus=pcie\.0,bus_nr=32,numa_node=0"], []),
    "pinned": (
        {}, ["--pin"], [r"^-c 0-71 /usr/bin/qemu-system-aarch64$", r"id=m0,size=64G,host-nodes=0,policy=bind"], []),
    "pinned to two nodes": (
        {"gpus": 2}, ["--all", "--pin"], [r"^-c 0-71,72-143 /usr/bin/qemu-system-aarch64$", r"id=m1,size=64G,host-nodes=1,policy=bind"], ["preferred"]),
    "an image for cloud-init": (
        {}, ["--cloud-init=/srv/a,b.iso"], [r"driver=raw,file\.driver=file,node-name=seed0,read-only=on,file\.filename=/srv/a,,b\.iso$", r"drive=seed0$"], ["vvfat"]),
    "a folder for cloud-init, and ssh": (
        {}, ["--cloud-init=/etc", "--ssh-port=2222"],
        [r"-blockdev driver=vvfat,label=CIDATA,node-name=seed0,read-only=on,dir=/etc$", r"-netdev user,id=net0,hostfwd=tcp:127\.0\.0\.1:2222-:22$"], []),
    "UEFI without variables": (
        {}, [], [r"-drive if=pflash,format=raw,readonly=on,file\.driver=file,file\.filename=/usr/share/AAVMF/AAVMF_CODE\.no-secboot\.fd$"], ["VARS", "tpm"]),
    "UEFI's variables": (
        {}, ["--uefi-vars=it's, vars.fd"],
        [r"-drive if=pflash,format=raw,readonly=on,.*AAVMF_CODE\.no-secboot\.fd$", r"-drive if=pflash,format=raw,readonly=off,file\.driver=file,file\.filename=it's,, vars\.fd$"], ["tpm"]),
    "secure boot": (
        {}, ["--secure-boot"], [r"readonly=on,.*AAVMF_CODE\.ms\.fd$", r"readonly=off,.*file\.filename=gh200-vars\.fd$"], ["no-secboot"]),
    "a TPM": (
        {}, ["--tpm", "--name=a b"],
        [r"-chardev socket,id=tpm0,path=\./a b-tpm/socket$", r"-tpmdev emulator,id=tpm0,chardev=tpm0$", r"-device tpm-tis-device,tpmdev=tpm0$"], ["VARS"]),
    "a small host": ({"memory_kib": 4 << 20, "cpus": 2, "pages": 4096}, [], [r"-smp 2", r"-m 2G"], []),
    "uneven numbers": (
        {"gpus": 2, "pages": 4096}, ["--all", "--cpus=5", "--memory=6M"],
        [r"-smp 5,sockets=5,cores=1$", r"nodeid=0,cpus=0-2,memdev=m0", r"nodeid=1,cpus=3-4,memdev=m1", r"id=m0,size=4M", r"id=m1,size=2M"], []),
}

# (host, words, status, what the message says)
REFUSED = {
    "three GPUs without highmem-mmio-size": ({"gpus": 3, "qemu": "9.2"}, ["--all"], 4, "window of 1 TiB.*QEMU 10.0 or later"),
    "no accelerated SMMU": ({"qemu": "10.0"}, ["--accel-smmu=on"], 4, "QEMU 11.0 or later has it"),
    "an SMMU without iommufd": ({}, ["--accel-smmu=on", "--iommufd=off"], 2, "leave out --iommufd=off"),
    "a kernel without nesting": ({"config": (*ONLY_IOMMUFD, "VFIO_IOMMU_TYPE1=m")}, ["--accel-smmu=on"], 4, "CONFIG_ARM_SMMU_V3_IOMMUFD"),
    "a kernel without iommufd": ({"config": ONE_TYPE1}, ["--iommufd=on"], 4, "lacks CONFIG_IOMMUFD or CONFIG_VFIO_DEVICE_CDEV"),
    "a kernel with iommufd only": ({"config": ONLY_IOMMUFD}, ["--iommufd=off"], 4, "no type1.*--iommufd=off"),
    "a kernel with neither": ({"config": ()}, [], 4, "no type1.*lacks CONFIG_IOMMUFD"),
    "too few address bits": ({"gpus": 4, "bits": 40, "kind": "gb300"}, ["--all"], 4, r"need 44 bits, and KVM gives it 40"),
    "no QEMU": ({"qemu": None}, [], 4, "no QEMU in .*--format=kubevirt"),
    "no libvirt": ({}, ["--format=libvirt"], 4, "no libvirt.*--format=qemu"),
    "more memory than the host has": ({}, ["--memory=1T"], 4, "have only 480 GiB"),
    "memory that is no multiple": ({}, ["--memory=1000M"], 2, "multiple of 512 MiB"),
    "a node without a processor": ({"gpus": 2}, ["--all", "--cpus=1"], 2, "from 2 to 512"),
    "too many processors": ({}, ["--cpus=513"], 2, "from 1 to 512"),
    "huge pages that the host lacks": ({}, ["--hugepages=16M", "--memory=32M"], 4, "only: 2 MiB, 512 MiB, 1 GiB"),
    "huge pages that KubeVirt's node lacks": ({}, ["--format=kubevirt", "--hugepages=3G", "--memory=6G"], 4, "only: 2 MiB, 512 MiB, 1 GiB"),
    "KubeVirt without iommufd": ({"config": ONE_TYPE1}, ["--format=kubevirt"], 4, "no accelerated SMMUv3: the kernel lacks CONFIG_IOMMUFD"),
    "libvirt 11.3 and the SMMU": ({"libvirt": "11.3"}, ["--accel-smmu=on"], 4, "libvirt 12.7 or later"),
    "libvirt 11.3 and iommufd": ({"libvirt": "11.3"}, ["--iommufd=on"], 4, "libvirt 12.1 or later"),
    "fifteen GPUs at nine nodes": ({"gpus": 15, "per_node": 1}, ["--all"], 4, "15 GPUs .* need 135 NUMA nodes, and QEMU has 128"),
    "two SMMUs in 40 bits": ({"gpus": 2, "bits": 40}, ["--all", "--accel-smmu=on"], 4, "need 41 bits, and KVM gives it 40"),
    "a device that there is not": ({}, ["--all", "--device=0000:09:00.0"], 3, "0000:09:00.0: no such PCI device"),
    "a device that is no address": ({}, ["--all", "--device=nic"], 2, "nic: not a PCI address"),
    "a device of two names": ({"tray": TRAY}, ["--all", "--device=01:00.0"], 2, "matches .*; add the domain"),
    "a GPU as another device": ({"gpus": 2}, [address(0), f"--device={address(1)}"], 2, "a GPU; give its address without --device"),
    "a NIC for KubeVirt": ({"tray": TRAY}, ["--all", "--format=kubevirt", f"--device={NIC0}"], 2, "--device is not for KubeVirt"),
    "a NIC with a BAR of 3 MiB": ({"tray": {**TRAY, NIC0: (0, (3 << 20, 0, 0), "")}}, ["--all", f"--device={NIC0}"], 4, "impossible size"),
    "more strict memory than a node has": (
        {"gpus": 2, "memory_kib": {0: 200 << 20, 1: 40 << 20}}, ["--all", "--pin", "--memory=128G"], 4, "--pin: .* has 64 GiB, and node 1 of the host has only 40 GiB"),
    "UEFI's variables for KubeVirt": ({}, ["--format=kubevirt", "--uefi-vars=/x"], 2, "not for KubeVirt.*bootloader.efi and devices.tpm"),
    "a TPM for KubeVirt": ({}, ["--format=kubevirt", "--tpm"], 2, "not for KubeVirt"),
    "sixteen GPUs": ({"gpus": 16, "per_node": 16}, ["--all"], 4, "128; name at most 15"),
}


def guest(tree, *words, status=0):
    named = any(w == "--all" or ":" in w and not w.startswith("--") for w in words)
    done = tree.run("guest", *words, *([] if named else [address(0)]))
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
        found = options(guest(host(tree, **facts), "--format=qemu", *words).stdout)
        for pattern in there:
            assert any(re.search(pattern, o) for o in found), f"{pattern} is not in\n" + "\n".join(found)
        for pattern in absent:
            assert not [o for o in found if re.search(pattern, o)], pattern

    @pytest.mark.parametrize("facts, words, status, message", REFUSED.values(), ids=REFUSED)
    def test_refusals(self, tree, facts, words, status, message):
        done = guest(host(tree, **facts), *words, status=status)
        assert re.search(message, done.stderr)
        assert done.stdout == ""

    def test_each_reason(self, tree):
        """Every option has its reason above the command, in lines that fit."""
        text = guest(host(tree), "--format=qemu").stdout
        head = text[:text.index("\nexec ")]
        for word in ("machine", "ras", "window", "cpu", "cpus", "memory", "memory_backend", "nodes", "distances", "iommufd", "buses",
                     "smmu", "port", "gpu", "initiators", "firmware", "disk", "network", "console"):
            assert re.search(rf"(?m)^# {word}: ", head)
        assert max(map(len, head.splitlines())) <= 80

    @pytest.mark.parametrize("pages, said", ((4096, "QEMU aligns it to huge pages"), (16384, "--hugepages=32M"), (65536, "--hugepages=512M")))
    def test_alignment(self, tree, pages, said):
        """QEMU aligns memory to 2 MiB, which is a huge page only with 4K pages."""
        reasons = json.loads(guest(host(tree, pages=pages), "--format=json").stdout)["reasons"]
        assert said in reasons["memory_backend"]

    def test_published(self, tree):
        """What people wrote by hand for such hosts is there: NVIDIA's line of
        the accelerated SMMU's patches, with two GPUs behind two SMMUs."""
        found = " ".join(options(guest(host(tree, kind="gb200", gpus=2), "--format=qemu", "--all").stdout))
        assert int(re.search(r"highmem-mmio-size=(\d+)T", found)[1]) >= 2
        for what, count in {"pxb-pcie": 2, "arm-smmuv3": 2, "pcie-root-port": 2, "vfio-pci": 2, "acpi-generic-initiator": 16,
                            "accel=on,ats=on,ril=off,ssidsize=20,oas=48": 2, "rombar=0": 2, "iommufd=iommufd0": 2,
                            "gic-version=3": 1, "-cpu host": 1}.items():
            assert found.count(what) == count, what

    def test_old_record(self):
        """A record without QEMU's lists: its version decides."""
        for version, there in (("9.2", False), ("10.0", True)):
            with Tree() as tree:
                host(tree, qemu=version).without("/answers/qemu-options")
                assert ("highmem" in "".join(options(guest(tree, "--format=qemu").stdout))) == there
        with Tree() as tree:
            host(tree).file("/answers/qemu", "/usr/bin/qemu-system-aarch64: garbage").without("/answers/qemu-options")
            assert re.search("no -object acpi-generic-initiator.*QEMU 9.0", guest(tree, status=4).stderr)

    @pytest.mark.parametrize("libvirt, begin", (("11.3", "<!-- Made"), (None, "#!/bin/sh")))
    def test_default_format(self, tree, libvirt, begin):
        assert guest(host(tree, libvirt=libvirt)).stdout.startswith(begin)

    def test_findings_of_formats(self, tree):
        """libvirt and KubeVirt don't need this user's limit, and KubeVirt doesn't
        use this host's QEMU."""
        host(tree, qemu="9.2", libvirt="12.8").file("/answers/memlock", "8388608").file("/answers/euid", "1000")
        tree.file("/answers/qemu", "/usr/bin/qemu-system-aarch64: QEMU emulator version 9.1.0")
        for name, wanted in (("qemu", {"memlock", "qemu"}), ("libvirt", {"qemu"}), ("kubevirt", set())):
            text = guest(tree, f"--format={name}").stdout
            assert set(re.findall(r"doctor: this guest (?:fails|is slow): (memlock|qemu):", text)) == wanted, name

    def test_findings(self):
        """The doctor's findings that matter, and no others."""
        with Tree() as tree:
            host(tree).file("/answers/kvm", "state: open\naddress-bits: 48\ncap-243: 0").file("/answers/cpu-dic", "0")
            done = guest(tree, "--format=qemu")
            assert "this guest fails: kvm-usemem" in done.stderr
            assert re.search(r"# doctor: this guest fails: kvm-usemem: KVM refuses usemem", done.stdout)
        with Tree() as tree:
            host(tree).file("/answers/kernel-release", "6.12.1").file("/sys/bus/pci/drivers/nvgrace_gpu_vfio_pci/features", "pmd_pfnmap zap")
            tree.file("/answers/kvm", "state: open\naddress-bits: 48\ncap-243: 0")
            assert "this guest fails: dma-backend" in guest(tree, "--format=json", "--accel-smmu=on").stderr
            # By itself, the plan does without what fails.
            done = guest(tree, "--format=json")
            assert (done.stderr, json.loads(done.stdout)["accel_smmu"]) == ("", False)
            assert "Linux 6.19 or later" in "".join(json.loads(done.stdout)["notes"])
            done = guest(tree, "--format=json", "--accel-smmu=off")
            assert done.stderr == ""
            assert ("kvm-usemem", "slow") in [(f["id"], f["effect"]) for f in json.loads(done.stdout)["findings"]]


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

    def test_machine(self):
        self.refuse("x86_64 machine", lambda tree: tree.file("/answers/machine", "x86_64"))

    def test_shared(self, tree):
        """Two GPUs in one group, of which one is named; both; and two with the
        same memory."""
        def same_group(tree):
            tree.file(f"/sys/kernel/iommu_groups/20/devices/{address(1)}/x")
            tree.file(f"/sys/kernel/iommu_groups/21/devices/{address(0)}/x")
        self.refuse(r"shares IOMMU group 20 with 0019:01:00\.0.*name both", same_group, gpus=2)
        self.refuse("0009:01:00.0 is not alone in its IOMMU group", same_group, words=["--all", "--accel-smmu=on"], gpus=2)
        same_group(host(tree, gpus=2))
        assert "smmuv3" not in guest(tree, "--format=qemu", "--all").stdout.split("\nexec ")[1]
        self.refuse("its memory is also that of 0019", self.attribute("nvgrace_gpu/usemem_base", hex(4 * TiB), 1), words=["--all"], gpus=2)
        self.refuse("in no IOMMU group", lambda tree: tree.without(f"sys/bus/pci/devices/{address(0)}/iommu_group"))

    def test_devices(self):
        """A device that vfio doesn't have, and one that shares its group."""
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

        def shared(tree):
            tree.file(f"sys/kernel/iommu_groups/60/devices/{NVME}/x")
            tree.file(f"/sys/bus/pci/devices/{NVME}/class", "0x010802")
        self.refuse("0000:01:00.0: shares IOMMU group 60 with 0002:01:00.0", shared, words=words, tray=TRAY)
        self.refuse("0000:01:00.0 is not alone in its IOMMU group", shared, words=[*words, f"--device={NVME}", "--accel-smmu=on"], tray=TRAY)
        many = {f"{i:04x}:02:00.0": TRAY[NVME] for i in range(17)}
        self.refuse("17 times --device; give at most 16", lambda tree: None, words=["--all", *(f"--device={a}" for a in many)], tray=many)
        many.popitem()
        self.refuse("need 25 root complexes", lambda tree: None, words=["--all", *(f"--device={a}" for a in many)], tray=many, gpus=9)

    @pytest.mark.parametrize("words, there", ((["--all", f"--device={NIC0}"], True), (["--all"], False)))
    def test_peer_to_peer(self, tree, words, there):
        """With iommufd and without dma-bufs, no device reaches the GPU's memory."""
        host(tree, tray=TRAY, config=ONLY_IOMMUFD, qemu="10.0").file("/sys/bus/pci/drivers/nvgrace_gpu_vfio_pci/features", "pmd_pfnmap zap")
        findings = json.loads(guest(tree, "--format=json", *words).stdout)["findings"]
        assert ("peer-to-peer" in [f["id"] for f in findings]) == there

    def test_other_socket(self, tree):
        notes = json.loads(guest(host(tree, gpus=2, tray=TRAY), "--format=json", f"--device={NIC1}").stdout)["notes"]
        assert "0010:01:00.0 is near node 1 of the host, of which" in "".join(notes)

    def test_iommu(self):
        def other(tree):
            link = f"/sys/bus/pci/devices/{address(0)}/iommu"
            tree.without(link).link(link, "../../x/iommu/virtio-iommu0")
        self.refuse("virtio-iommu0, not an SMMUv3", other, words=["--accel-smmu=on"])
        self.refuse("not known which SMMU", lambda tree: tree.without(f"sys/bus/pci/devices/{address(0)}/iommu"), words=["--accel-smmu=on"])

    def test_distances(self):
        """Distances that ACPI does not permit, or not enough of them: none."""
        for text in ("10 80", " ".join(["0"] * 9), " ".join(["300"] * 9), "a b", ""):
            with Tree() as tree:
                host(tree).file("/sys/devices/system/node/node0/distance", text)
                found = guest(tree, "--format=qemu").stdout
                assert "-numa dist" not in found
                assert "note: no distances between the nodes, so that QEMU" in found
                found = guest(tree, "--format=kubevirt").stdout
                assert "KubeVirt 1.9 starts no" in found
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
            words = ["--all", f"--format={('qemu', 'libvirt', 'json')[number % 3]}"]
            assert tree.run("guest", *words, sanitized=True).returncode < 8, (path, garbage)
            path.write_bytes(kept)


class Names:
    """Names and paths with whatever bytes."""

    NASTY = ("it's", 'a "b" $HOME `id`', "a;b|c&d", "<a>&'\"", "-x", "ü → ∞", "a,b,,c", "x\\y")

    def test_shell(self, tree):
        host(tree)
        for name in self.NASTY:
            found = options(guest(tree, "--format=qemu", f"--name={name}", f"--disk={name}").stdout)
            assert f"-name guest={name.replace(',', ',,')}" in found
            assert "-blockdev driver=raw,node-name=disk0,file.driver=file,file.filename=" + name.replace(",", ",,") in found

    def test_record(self, tree):
        """Whoever made the record can't add to what is printed, by the path of
        its QEMU or the name of a GPU's folder."""
        program = "/usr/bin/$(id); 'x"
        host(tree, gpus=2).file("/answers/qemu", f"{program}: QEMU emulator version 11.1.0").without("/answers/qemu-options")
        devices = tree.root / "sys/bus/pci/devices"
        for name in (";$(id)", "\nkind: x"):
            (devices / address(1)).rename(devices / f"0019:01:00.0{name}")
            text = guest(tree, "--format=qemu", "--all").stdout
            assert shlex.split(text[text.index("\nexec "):].replace("\\\n", ""))[1] == program
            assert "gpu1" not in text
            (devices / f"0019:01:00.0{name}").rename(devices / address(1))

    def test_xml(self, tree):
        host(tree, libvirt="11.3")
        for name in self.NASTY:
            domain = ET.fromstring(guest(tree, f"--name={name}", f"--disk=/x/{name}").stdout)
            assert domain.find("name").text == name
            assert domain.find("devices/disk/source").get("file") == f"/x/{name}"

    def test_refused(self, tree):
        host(tree, libvirt="11.3")
        for word in ("a\nb", "\x1b[0m", "", "\x7f"):
            for option in ("--name", "--disk"):
                assert "control character" in guest(tree, f"{option}={word}", status=2).stderr
        for word in (b"--name=\xff", b"--name=\xc3", b"--name=\xe2\x82", b"--disk=\xc0\xaf", b"--name=\xf5aaa", b"--name=\xed\xa0\x80", b"--name=\xe0\x80\xaf",
                     b"--name=\xf4\x90\x80\x80", b"--name=\xef\xbf\xbf"):
            assert "UTF-8" in guest(tree, os.fsdecode(word), status=2).stderr
        assert "slash" in guest(tree, "--name=a/b", status=2).stderr
        assert "slash" in guest(tree, "--name=  ", status=2).stderr
        assert "absolute path" in guest(tree, "--disk=a", status=2).stderr
        for word in ("A", "a_b", "-a", "a-", "a" * 64):
            assert "hyphens" in guest(tree, "--format=kubevirt", f"--name={word}", status=2).stderr
        assert "is for --format=libvirt" in guest(tree, "--format=qemu", "--fragment", status=2).stderr
        assert "make one with" in guest(tree, "--cloud-init=/etc", status=2).stderr
        assert "absolute path" in guest(tree, "--cloud-init=a.iso", status=2).stderr
        assert "control character" in guest(tree, "--cloud-init=\n", status=2).stderr
        for words in (["--cloud-init=/a"], ["--ssh-port=1"]):
            assert "not for KubeVirt" in guest(tree, "--format=kubevirt", *words, status=2).stderr
        assert "absolute path" in guest(tree, "--uefi-vars=a", status=2).stderr
        assert "control character" in guest(tree, "--uefi-vars=", status=2).stderr
        for name in ("a/b", "a,b", "a" * 81):
            assert "without comma and slash" in guest(tree, "--format=qemu", "--tpm", f"--name={name}", status=2).stderr
        for port in ("0", "65536", "-1", "x", ""):
            assert "not a port" in guest(tree, f"--ssh-port={port}", status=2).stderr

    def test_sizes(self, tree):
        host(tree)
        for word in ("", "0G", "64", "G", "-1G", "99999999999T", "1.5G", "x", "9223372036854775807G", "0x10G"):
            if word != "0x10G":
                assert "not a size" in guest(tree, f"--memory={word}", status=2).stderr, word
        for word in ("0", "-1", "x", "99999999999", "0x10"):
            assert "not a number" in guest(tree, f"--cpus={word}", status=2).stderr
        for option in ("--accel-smmu", "--iommufd"):
            assert 'use "auto"' in guest(tree, f"{option}=yes", status=2).stderr
        assert 'use "qemu"' in guest(tree, "--format=xml", status=2).stderr


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
            assert file.read_text() == guest(tree, f"--format={fmt}").stdout
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
    @staticmethod
    def domain(**facts):
        words = facts.pop("words", [])
        with Tree() as tree:
            return ET.fromstring(guest(host(tree, **facts), "--format=libvirt", "--all", *words).stdout)

    def test_old(self):
        """libvirt 11.3: what it has no element for is in qemu:commandline."""
        domain = self.domain(libvirt="11.3")
        values = [a.get("value") for a in domain.iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg")]
        assert "highmem-mmio-size=4T" in values
        assert "acpi-generic-initiator,id=gi7,pci-dev=ua-gpu0,node=8" in values
        assert "dist,src=0,dst=1,val=80" in values
        assert len(domain.findall("cpu/numa/cell")) == 1
        assert domain.find("devices/hostdev/rom").get("bar") == "off"
        assert domain.find("cpu/topology").attrib == {"sockets": "1", "cores": "16", "threads": "1"}
        assert domain.find("devices/emulator").text == "/usr/bin/qemu-system-aarch64"

    def test_new(self):
        """libvirt 12.8 has elements for all."""
        domain = self.domain(libvirt="12.8", gpus=2)
        assert domain.find("{http://libvirt.org/schemas/domain/qemu/1.0}commandline") is None
        assert domain.find("devices/controller[@model='pcie-root']/pcihole64").text == str(4 << 30)
        cells = domain.findall("cpu/numa/cell")
        assert [c.get("memory") != "0" for c in cells] == [True] * 2 + [False] * 16
        assert domain.find("cpu/topology").attrib == {"sockets": "2", "cores": "16", "threads": "1"}
        assert [s.get("value") for s in cells[0].iter("sibling")] == ["10", "40"] + ["80"] * 8 + ["120"] * 8
        assert [h.find("acpi").get("nodeset") for h in domain.findall("devices/hostdev")] == ["2-9", "10-17"]
        assert ([i.find("driver").attrib for i in domain.findall("devices/iommu")] ==
                [{"pciBus": str(n), "accel": "on", "ats": "on", "ril": "off", "ssidsize": "20", "oas": "48"} for n in (1, 2)])
        assert [h.find("driver").get("iommufd") for h in domain.findall("devices/hostdev")] == ["yes"] * 2
        assert [n.get("nodeset") for n in domain.findall("numatune/memnode")] == ["0", "1"]
        for i, port in enumerate(domain.findall("devices/controller[@model='pcie-root-port']")):
            assert port.get("index") == str(3 + i)
            assert port.find("address").get("bus") == f"0x0{i + 1}"

    def test_tray(self):
        """Other devices have their ports, and no nodes."""
        domain = self.domain(libvirt="12.8", gpus=2, tray=TRAY, words=TRAY_WORDS[1:])
        devices = domain.findall("devices/hostdev")
        assert [d.find("alias").get("name") for d in devices] == ["ua-gpu0", "ua-gpu1", "ua-dev0", "ua-dev1", "ua-dev2"]
        assert [d.find("acpi") is None for d in devices] == [False] * 2 + [True] * 3
        assert [d.find("address").get("bus") for d in devices] == [f"0x{n:02x}" for n in range(6, 11)]
        assert len(domain.findall("devices/iommu")) == 5
        qemu = "{http://libvirt.org/schemas/domain/qemu/1.0}"
        assert ([(d.get("alias"), d.find(f"{qemu}frontend/{qemu}property").get("value")) for d in domain.iter(f"{qemu}device")] ==
                [("pci.8", "32"), ("pci.9", "64")])

    def test_pin(self):
        """Each processor runs on those of its node."""
        domain = self.domain(libvirt="12.8", gpus=2, words=["--pin", "--cpus=3"])
        assert ([p.attrib for p in domain.findall("cputune/vcpupin")] ==
                [{"vcpu": str(n), "cpuset": cpus} for n, cpus in enumerate(["0-71", "0-71", "72-143"])])
        assert domain.find("cputune/emulatorpin").attrib == {"cpuset": "0-71,72-143"}
        assert ([n.attrib for n in domain.findall("numatune/memnode")] ==
                [{"cellid": str(n), "mode": "strict", "nodeset": str(n)} for n in range(2)])

    def test_pinned_to_less(self, tree):
        """Processors whose numbers have gaps, and fewer than the guest's."""
        host(tree, gpus=2).file("/sys/devices/system/node/node0/cpulist", "0,2-3,7,9-11").file("/sys/devices/system/node/node1/cpulist", "8")
        document = json.loads(guest(tree, "--format=json", "--all", "--pin", "--cpus=4").stdout)
        assert [n["host_cpus"] for n in document["nodes"]][:3] == ["0,2-3,7,9-11", "8", None]
        assert sum("pinned to, has 1" in n for n in document["notes"]) == 1

    def test_ats(self):
        """Without an SMMU, libvirt's guest does not see ATS either."""
        qemu = "{http://libvirt.org/schemas/domain/qemu/1.0}"
        for words, seen in ((["--accel-smmu=off"], 2), ([], 0)):
            domain = self.domain(libvirt="12.8", gpus=2, words=words)
            assert ([(d.get("alias"), d.find(f"{qemu}frontend/{qemu}property").attrib) for d in domain.iter(f"{qemu}device")] ==
                    [(f"ua-gpu{i}", {"name": "ats", "type": "string", "value": "off"}) for i in range(seen)])

    @pytest.mark.parametrize("size, there", (("274877906944", True), ("0", False)))
    def test_egm(self, tree, size, there):
        """Memory that firmware sets aside for guests is not in this guest."""
        host(tree).file("/answers/acpi-tables", f"SSDT5: nvidia,gpu-mem-base-pa nvidia,gpu-mem-size nvidia,egm-size={size}")
        notes = json.loads(guest(tree, "--format=json").stdout)["notes"]
        assert any("256 GiB" in n and "EGM" in n for n in notes) == there

    @pytest.mark.parametrize("words, there", (([], True), (["--accel-smmu=off"], False)))
    def test_kernel_of_the_guest(self, tree, words, there):
        """What its kernel needs depends on the SMMU."""
        notes = json.loads(guest(host(tree), "--format=json", *words).stdout)["notes"]
        assert any("CONFIG_ARM_SMMU_V3_SVA" in n for n in notes) == there

    @pytest.mark.parametrize("memory, there", (("480G", True), ("400G", False)))
    def test_all_memory(self, tree, memory, there):
        notes = json.loads(guest(host(tree), "--format=json", f"--memory={memory}").stdout)["notes"]
        assert any("nearly all memory" in n for n in notes) == there

    @pytest.mark.parametrize("said, there", (("iommu: smmuv3", False), ("iommu: smmuv3\niommufd: yes", True)))
    def test_domcapabilities(self, tree, said, there):
        """libvirt says that its QEMU has no iommufd."""
        host(tree, libvirt="12.8").file("/answers/libvirt-capabilities", said)
        assert ("iommufd='yes'" in guest(tree).stdout) == there

    def test_huge_pages(self):
        domain = self.domain(libvirt="11.3", words=["--hugepages=1G"])
        assert domain.find("memoryBacking/hugepages/page").attrib == {"size": "1048576", "unit": "KiB"}

    def test_fragment(self):
        with Tree() as tree:
            text = guest(host(tree, libvirt="12.8"), "--fragment").stdout
        parts = ET.fromstring(f"<x>{text}</x>")
        assert [p.tag for p in parts] == ["features", "cpu", "devices"]
        assert parts.find("devices/disk") is None
        assert parts.find("devices/hostdev") is not None
        assert "16 processors" in text
        # An older libvirt's needs a name that only <domain> can declare.
        with Tree() as tree:
            text = guest(host(tree, libvirt="11.3"), "--fragment").stdout
        ET.fromstring(f"<domain {re.search('xmlns:qemu=[^ ]+', text)[0]}>{text}</domain>")


class Firmware:
    """Which firmware a guest gets, by the descriptors that are installed."""

    @staticmethod
    def plan(tree, *words):
        return json.loads(guest(tree, "--format=json", *words).stdout)

    def test_none(self, tree):
        host(tree).without("/usr/share/qemu/firmware")
        plan = self.plan(tree)
        assert plan["firmware"] == "/usr/share/AAVMF/AAVMF_CODE.fd"
        assert "install qemu-efi-aarch64" in plan["reasons"]["firmware"]
        assert "with secure boot and its keys" in guest(tree, "--secure-boot", "--format=qemu", status=4).stderr
        assert re.search("in flash; on Debian, install", guest(tree, "--uefi-vars=x", "--format=qemu", status=4).stderr)

    def test_no_swtpm(self, tree):
        host(tree, libvirt="12.8").without("/usr/bin/swtpm_setup")
        assert "no swtpm_setup in /usr/bin, which libvirt needs" in guest(tree, "--tpm", status=4).stderr
        guest(tree, "--tpm", "--format=qemu")
        tree.without("/usr/bin/swtpm")
        assert "no swtpm in" in guest(tree, "--tpm", "--format=qemu", status=4).stderr

    def test_administrators(self, tree):
        """A file in /etc is read before the package's, and replaces one of its name."""
        host(tree).file("/etc/qemu/firmware/59-own.json", json.dumps(descriptor("own.fd", "own-vars.fd", [])))
        tree.file("/etc/qemu/firmware/40-edk2-aarch64-secure-enrolled.json", "")
        assert self.plan(tree)["firmware"] == "/usr/share/AAVMF/own.fd"
        assert "with secure boot" in guest(tree, "--secure-boot", "--format=qemu", status=4).stderr

    def test_others(self):
        """What is for other machines, or no descriptor at all, is passed over."""
        good = descriptor("first.fd", "vars.fd", [])
        files = good["mapping"]
        for wrong in ({"interface-types": ["bios"]}, {"targets": [{"architecture": "x86_64", "machines": ["virt-*"]}]},
                      {"targets": [{"architecture": "aarch64", "machines": ["sbsa-ref*"]}]}, {"targets": 1}, {"targets": [1]},
                      {"mapping": {**files, "device": "memory"}}, {"mapping": {**files, "mode": "stateless"}}, {"mapping": []},
                      {"mapping": {**files, "executable": {"filename": "first.fd", "format": "raw"}}},
                      {"mapping": {**files, "executable": {"filename": 7, "format": "raw"}}},
                      {"mapping": {**files, "nvram-template": {"filename": "/vars.fd", "format": "vmdk"}}}, {"features": ["secure-boot"]}):
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
        found = options(guest(tree, "--format=qemu", "--uefi-vars=v").stdout)
        assert ([o.split(",")[1:3] for o in found if "pflash" in o] ==
                [["format=qcow2", "readonly=on"], ["format=qcow2", "readonly=off"]])

    def test_libvirt(self):
        """It chooses the firmware by the features, and copies the template itself."""
        for words, features, nvram in (([], {"secure-boot": "no"}, None), (["--secure-boot"], {"enrolled-keys": "yes", "secure-boot": "yes"}, None),
                                       (["--uefi-vars=/srv/<a> & b"], {"secure-boot": "no"}, "/srv/<a> & b")):
            domain = Domains.domain(libvirt="12.8", words=[*words, "--tpm"])
            assert {f.get("name"): f.get("enabled") for f in domain.findall("os/firmware/feature")} == features
            assert domain.findtext("os/nvram") == nvram
            assert domain.find("devices/tpm/backend").attrib == {"type": "emulator", "version": "2.0"}


class Others:
    def test_json(self):
        for facts in ({}, {"gpus": 4}, {"config": ONE_TYPE1, "initiators": False}, {"libvirt": "11.3", "qemu": "9.2"}):
            with Tree() as tree:
                document = json.loads(guest(host(tree, **facts), "--format=json", "--all").stdout)
            validate(document)
            gpus = facts.get("gpus", 1)
            assert len(document["nodes"]) == gpus + GPU_NODES * gpus
            assert [g["address"] for g in document["gpus"]] == [address(i) for i in range(gpus)]
        with Tree() as tree:
            document = json.loads(guest(host(tree, gpus=2, tray=TRAY), "--format=json", "--pin", *TRAY_WORDS).stdout)
        validate(document)
        assert ([(d["address"], d["bus"], d["port_speed"]) for d in document["devices"]] ==
                [(NIC0, 2, 32), (NIC1, 3, 64), (NVME, 4, None)])

    def test_kubevirt(self):
        with Tree() as tree:
            text = guest(host(tree, gpus=2, kind="gb200", qemu=None), "--format=kubevirt", "--all", "--name=vm-1", "--disk=pvc-1").stdout
        for line in ("      - GraceIOVirtualization", "      - PCINUMAAwareTopology", "      - IOMMUFD", '      - pciVendorSelector: "10DE:2941"',
                     "          sockets: 2", "          cores: 16", "          dedicatedCpuPlacement: true", "            guestMappingPassthrough: {}",
                     "            pageSize: 512Mi",
                     '            deviceName: "nvidia.com/GB200"', '          claimName: "pvc-1"', '  name: "vm-1"', "          guest: 128Gi"):
            assert line in text.splitlines()
        # KubeVirt's own plugin takes GPUs of vfio-pci only.
        assert text.count("externalResourceProvider: true\n") == 1
        assert text.count("pciVendorSelector") == 1
        assert text.count("deviceName: ") == 2
        assert "additionalPCIDeviceIDs" not in text
        with Tree() as tree:
            assert "additionalPCIDeviceIDs" in guest(host(tree, kind="gb300"), "--format=kubevirt").stdout
        # KubeVirt has no spare room: 2 TiB for two GPUs.
        assert "64-bit PCI hole of 2T" in text
