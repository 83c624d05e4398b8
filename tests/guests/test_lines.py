# SPDX-License-Identifier: GPL-2.0-only
"""QEMU 10.0 and 11 and libvirt 11.3 and 12.8 accept what `nvgrace-gpu guest` prints for them.

There are no such GPUs here and no KVM for Arm. Each GPU is therefore a function
with BARs of the same sizes, the processors are emulated, and what only an SMMU in
hardware has is left out. All else is as it was printed.
"""

import contextlib
import functools
import json
import pathlib
import re
import shlex
import shutil
import socket
import struct
import subprocess
import tempfile
import time

import pytest

from cli.guest_hosts import FIRMWARE, GPU_NODES, KINDS, NIC0, QEMU, TRAY, Tree, descriptor, host
from lab import packages
from lab.arch import NATIVE

pytestmark = pytest.mark.needs("root virt", "root virt-sid", "root tpm")


HERE = pathlib.Path(__file__).resolve().parent
# Debian 13's and sid's.
ROOTS = {"11.3": "virt", "12.8": "virt-sid"}


@functools.cache
def root(libvirt="11.3"):
    return packages.root(ROOTS[libvirt])


def qemu(version):
    """The command and the environment of a version."""
    if version == "11.1":
        return ["qemu-system-aarch64"], None
    libraries = pathlib.Path(f"{root()}{NATIVE.libraries}")
    return ([root() / "usr/bin/qemu-system-aarch64", "-L", root() / "usr/share/qemu"],
            {"LD_LIBRARY_PATH": str(libraries), "QEMU_MODULE_DIR": str(libraries / "qemu"), "PATH": "/usr/bin"})


# Small, because the emulator has to clear it.
SMALL = ["--memory=1G", "--cpus=4", "--all", "--format=qemu"]
TYPE1 = ("VFIO_IOMMU_TYPE1=m",)
HOSTS = {
    "one GH200, QEMU 10.0": {"qemu": "10.0", "config": TYPE1, "initiators": False},
    "one GH200, QEMU 10.0, iommufd": {"qemu": "10.0", "config": ("IOMMUFD=m", "VFIO_DEVICE_CDEV=y")},
    "four GH200s, QEMU 10.0": {"qemu": "10.0", "config": TYPE1, "gpus": 4, "per_node": 4},
    "two GB200s at two nodes, QEMU 10.0": {"qemu": "10.0", "config": TYPE1, "kind": "gb200", "gpus": 2},
    "one GH200": {},
    "one GH200, the least window": {"bits": 40},
    "one GH200, pinned to the node that this machine has": {"words": ["--pin"]},
    "two GH200s at two nodes": {"gpus": 2},
    "two GH200s at two nodes, 40 bits": {"gpus": 2, "bits": 40, "config": TYPE1},
    "two GH200s at two nodes, 41 bits": {"gpus": 2, "bits": 41, "config": TYPE1},
    "four GH200s at four nodes, 41 bits": {"gpus": 4, "bits": 41, "config": TYPE1, "words": ["--memory=2G"]},
    "four GB200s at two nodes, 43 bits": {"kind": "gb200", "gpus": 4, "per_node": 2, "bits": 43, "config": TYPE1},
    "four GB200s, two to an SMMU": {"kind": "gb200", "gpus": 4, "per_node": 2, "per_smmu": 2},
    "four GB300s": {"kind": "gb300", "gpus": 4, "per_node": 2, "per_smmu": 2},
    "a tray": {"kind": "gb200", "gpus": 2, "tray": TRAY},
    "a tray, QEMU 10.0": {"kind": "gb200", "gpus": 2, "tray": TRAY, "qemu": "10.0", "config": TYPE1},
    "two GH200s and a NIC, 40 bits": {"gpus": 2, "per_node": 2, "bits": 40, "config": TYPE1, "tray": {NIC0: TRAY[NIC0]}},
}


def bar_sizes(kind):
    facts = KINDS[kind]
    return [facts["usemem_bar_size"], facts.get("resmem_bar_size") or facts["own_bar2"], 16 << 20]


def guest(facts, *words):
    facts = dict(facts)
    words = [*words, *(f"--device={address}" for address in facts.get("tray", {})), *facts.pop("words", [])]
    with Tree() as t:
        done = host(t, **facts).run("guest", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def arguments(text):
    command = shlex.split(text[text.index("\nexec "):].replace("\\\n", ""))
    return command[command.index("/usr/bin/qemu-system-aarch64") + 1:]


def stand_in(words, kind, disk, tray):
    """The printed arguments with what stands for the hardware."""
    changed = []
    for word in words:
        if match := re.fullmatch(r"vfio-pci,id=((?:gpu|dev)\d+),host=([^,]+),bus=(port\d+),rombar=0(?:,ats=off)?(?:,iommufd=iommufd0)?", word):
            # A function has one BAR of any size; a GPU has three.
            sizes = [size for size in tray[match[2]][1] if size] if match[2] in tray else bar_sizes(kind)
            for function, size in enumerate(sizes):
                name = f",id={match[1]},multifunction=on" if function == 0 else ""
                changed += ["-device"] if function else []
                changed.append(f"pci-testdev,bus={match[3]},addr=00.{function},membar={size},rombar=0{name}")
            continue
        for pattern, text in ((r"accel=kvm", "accel=tcg"), (r",accel=on,ats=on,ril=off,ssidsize=20,oas=48", ""),
                              (r",host-nodes=\d+,policy=preferred", ""), (r"^(driver=.*file\.filename=).*", rf"\g<1>{disk}"),
                              (r"^host$", "max"), (r"driver=qcow2", "driver=raw"), (r"^mon:stdio$", "CONSOLE"),
                              # This machine has no /dev/iommu. Nothing uses it
                              # before a device of vfio does.
                              (r"^iommufd,id=iommufd0$", "iommufd,id=iommufd0,fd=FD")):
            word = re.sub(pattern, text, word)
        changed.append(word)
    return changed


class Machine:
    """QEMU with these arguments, stopped before its first instruction, with its
    monitor and with qtest, which reads and writes its memory."""

    def __init__(self, version, words, directory, before="", path=None):
        """before: what the printed script does first, in the directory and with
        this PATH."""
        directory = pathlib.Path(directory)
        self.nothing = open("/dev/null", "rb")
        self.console = directory / "console"
        self.console.touch()
        words = [re.sub("^CONSOLE$", f"file:{self.console}", w) for w in words]
        words = [w.replace("fd=FD", f"fd={self.nothing.fileno()}") for w in words]
        sockets = ["-S", "-qmp", f"unix:{directory}/qmp,server=on,wait=off", "-qtest", f"unix:{directory}/qtest,server=on,wait=off"]
        self.log = open(directory / "log", "w+", encoding="utf-8")
        command, environment = qemu(version)
        if before:
            command = ["sh", "-c", f'{before}\nexec "$@"', "sh", *command]
            environment = {**(environment or {}), "PATH": f"{path}:/usr/bin"}
        self.process = subprocess.Popen([*command, *words, *sockets], env=environment, cwd=directory, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=subprocess.STDOUT, pass_fds=[self.nothing.fileno()])
        self.files = [self.nothing]
        self.qmp = self.connect(directory / "qmp")
        self.qmp.readline()
        self.ask("qmp_capabilities")
        self.qtest = self.connect(directory / "qtest")

    def connect(self, path):
        connection = socket.socket(socket.AF_UNIX)
        while True:
            try:
                connection.connect(str(path))
                break
            except OSError:
                if self.process.poll() is not None:
                    self.log.seek(0)
                    raise AssertionError(f"QEMU has ended: {self.log.read()}") from None
        self.files.append(connection)
        return connection.makefile("rw", encoding="ascii")

    def ask(self, command, **words):
        self.qmp.write(json.dumps({"execute": command, "arguments": words}) + "\n")
        self.qmp.flush()
        while True:
            answer = json.loads(self.qmp.readline())
            if "event" not in answer:
                assert "return" in answer, answer
                return answer["return"]

    def human(self, line):
        return self.ask("human-monitor-command", **{"command-line": line})

    def test(self, line):
        self.qtest.write(line + "\n")
        self.qtest.flush()
        while True:
            answer = self.qtest.readline().split()
            if answer[0] != "IRQ":
                assert answer[0] == "OK", answer
                return answer[1] if len(answer) > 1 else ""

    def firmware_file(self, key, length, skip=0):
        """Reads from QEMU's table of files for the firmware, by its DMA."""
        request, at, device = 0x4010_0000, 0x4020_0000, 0x0902_0000
        todo = [(8 | 2 | key << 16, length)] if not skip else [(8 | 4 | key << 16, skip), (2, length)]
        for control, count in todo:
            block = struct.pack(">IIQ", control, count, at)
            self.test(f"write {request:#x} {len(block):#x} 0x{block.hex()}")
            # The register is big-endian, and its second half starts the
            # transfer.
            self.test(f"writel {device + 16:#x} 0x0")
            self.test(f"writel {device + 20:#x} {int.from_bytes(request.to_bytes(4, 'little'), 'big'):#x}")
        return bytes.fromhex(self.test(f"read {at:#x} {length:#x}")[2:])

    def acpi(self):
        """{signature: table} of the ACPI tables that QEMU gives the firmware."""
        data = b""
        count, = struct.unpack(">I", self.firmware_file(0x19, 4))
        for entry in range(count):
            size, key, _, name = struct.unpack(">IHH56s", self.firmware_file(0x19, 64, 4 + 64 * entry))
            if name.rstrip(b"\0") == b"etc/acpi/tables":
                data = self.firmware_file(key, size)
        tables = {}
        for found in re.finditer(rb"([A-Z][A-Z0-9]{3})(.{4})..BOCHS ", data, re.S):
            tables[found[1].decode()] = data[found.start():found.start() + struct.unpack("<I", found[2])[0]]
        return tables

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        for file in (self.qmp, self.qtest, *self.files, self.log):
            with contextlib.suppress(OSError):
                file.close()


def generic_initiators(srat):
    """{node: bus of the PCI device} of SRAT's generic initiators."""
    found, at = {}, 48
    while at < len(srat):
        if srat[at] == 5:
            node, = struct.unpack_from("<I", srat, at + 4)
            segment, bus, flags = struct.unpack_from("<HB13xI", srat, at + 8)
            assert srat[at + 3] == 1 and flags & 1 and not segment, "no PCI device, or not enabled"
            found[node] = bus
        at += srat[at + 1]
    return found


def smmus(iort):
    """How many SMMUv3s IORT has, and the first buses that root complexes map to
    them."""
    count, offset = struct.unpack_from("<II", iort, 36)
    kinds, mapped = {}, []
    nodes = []
    for _ in range(count):
        kind, length = struct.unpack_from("<BH", iort, offset)
        mappings, array = struct.unpack_from("<II", iort, offset + 8)
        kinds[offset] = kind
        nodes.append((offset, kind, mappings, array))
        offset += length
    for at, kind, mappings, array in nodes:
        for i in range(mappings if kind == 2 else 0):
            first, _, _, reference, _ = struct.unpack_from("<IIIII", iort, at + array + 20 * i)
            if kinds[reference] == 4:
                mapped.append(first >> 8)
    return list(kinds.values()).count(4), sorted(mapped)


def parents(qtree):
    """{id of a device: the ids of the buses above it, from the nearest}"""
    found, path = {}, []
    for line in qtree.splitlines():
        match = re.match(r'( *)(bus|dev): ([^,]+)(?:, id "(.*)")?$', line)
        if not match:
            continue
        path = [p for p in path if p[0] < len(match[1])]
        if match[2] == "bus":
            path.append((len(match[1]), match[3]))
        elif match[4]:
            found[match[4]] = [name for _, name in reversed(path)]
    return found


# Its packages over the toolbox's tree, because a daemon finds its parts by their
# paths. This machine has no GPUs and only one NUMA node: the command
# line that libvirt would start is for domains without what needs them, or huge pages.
LIBVIRT_SYSTEM = """
set -e
root=$1 dir=$2 tpm=$3
mkdir -p "$dir/upper/etc/libvirt" "$dir/upper/var" "$dir/work" "$dir/root"
ln -s /run "$dir/upper/var/run"
cd "$dir/upper/etc"
printf 'root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/false\n' >passwd
printf 'root:x:0:\nlibvirt-qemu:x:64055:\nkvm:x:64054:\n' >group
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\n' >libvirt/qemu.conf
printf 'unix_sock_group = "root"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n' >libvirt/libvirtd.conf
mount -t overlay -o "lowerdir=$root:$tpm:/,upperdir=$dir/upper,workdir=$dir/work" scratch "$dir/root"
cd "$dir/root"
mount --rbind /dev dev
mount --rbind /proc proc
for d in tmp run; do mount -t tmpfs scratch "$d"; done
cp -r "$dir/domains" tmp
touch "$dir/capabilities"
mkdir -p tmp/out
mount --bind "$dir" tmp/out
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root sh -ec '
    libvirtd >/tmp/log 2>&1 &
    pid=$!
    trap "kill $pid" EXIT
    until virsh -q uri >/tmp/uri 2>&1; do
        kill -0 $pid || { cat /tmp/log; exit 1; }
        sleep 0.2
    done
    virsh domcapabilities --arch aarch64 --machine virt --virttype qemu >/tmp/out/capabilities
    for file in /tmp/domains/*.xml; do
        virt-xml-validate $file domain
        virsh define --validate $file
        virsh domxml-to-native qemu-argv ${file%.xml}.argv
        virsh undefine --nvram gh200
    done'
"""
DOMAINS = {"11.3": {
    "one": ({"qemu": "10.0"}, []),
    "pinned": ({"qemu": "10.0"}, ["--pin"]),
    "ssh": ({"qemu": "10.0"}, ["--ssh-port=2222", "--cloud-init=/srv/it's <a> & b.iso"]),
    "secure": ({"qemu": "10.0"}, ["--secure-boot", "--tpm", "--uefi-vars=/srv/it's <a> & b.fd"]),
    "tray": ({"qemu": "10.0", "gpus": 2, "tray": TRAY}, []),
    "two": ({"qemu": "10.0", "gpus": 2}, []),
    "four": ({"qemu": "10.0", "gpus": 4, "per_node": 2, "kind": "gb200"}, ["--hugepages=1G", "--disk=/dev/vg/disk"]),
    "plain": ({"qemu": "9.2", "initiators": False, "pages": 4096}, ["--disk=/srv/it's <a> & b.qcow2"]),
}, "12.8": {
    "four": ({"gpus": 4, "per_node": 2, "kind": "gb200"}, ["--hugepages=1G", "--disk=/dev/vg/disk"]),
    "iommufd": ({"config": ("IOMMUFD=m", "VFIO_DEVICE_CDEV=y")}, []),
    "one": ({}, []),
    "plain": ({"qemu": "10.0", "config": TYPE1}, ["--disk=/srv/it's <a> & b.qcow2"]),
    "pinned": ({"gpus": 2}, ["--pin"]),
    "secure": ({}, ["--secure-boot", "--tpm", "--uefi-vars=/srv/it's <a> & b.fd"]),
    "ssh": ({}, ["--ssh-port=2222", "--cloud-init=/srv/it's <a> & b.iso"]),
    "tray": ({"gpus": 2, "kind": "gb200", "tray": TRAY}, []),
    "two": ({"gpus": 2}, []),
}}


# ---- libvirt -----------------------------------------------------------------

@pytest.mark.parametrize("version", DOMAINS)
def test_libvirt_accepts_every_domain(version, tmp_path):
    """Only KVM is changed, which does not exist here for Arm."""
    plans = {}
    subprocess.run(["mount", "-t", "tmpfs", "scratch", tmp_path], check=True)
    try:
        (tmp_path / "domains").mkdir()
        for name, (facts, words) in DOMAINS[version].items():
            facts = {**facts, "libvirt": version}
            text = guest(facts, "--all", "--format=libvirt", *words)
            text = text.replace("<domain type='kvm'", "<domain type='qemu'").replace("mode='host-passthrough'", "mode='maximum'")
            (tmp_path / f"domains/{name}.xml").write_text(text)
            (tmp_path / f"domains/{name}.argv").write_text(re.sub("<(hostdev|numatune|memoryBacking).*?</\\1>", "", text, flags=re.S))
            plans[name] = json.loads(guest(facts, "--all", "--format=json", *words))
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", LIBVIRT_SYSTEM, "sh", root(version), tmp_path, packages.root("tpm")],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        capabilities = (tmp_path / "capabilities").read_text() if not done.returncode else ""
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert not done.returncode, done.stdout
    assert len(re.findall("/tmp/domains/.*xml validates", done.stdout)) == len(DOMAINS[version])
    lines = re.findall("^.*/usr/bin/qemu-system-aarch64 .*$", done.stdout, re.M)
    for (name, plan), line in zip(sorted(plans.items()), lines, strict=True):
        check_line(name, plan, shlex.split(line), version)
    # Of a machine without /dev/iommu and KVM for Arm, 12.8 says "no".
    said = [line.split(": ")[0] for line in read_capabilities(capabilities)]
    assert said == (["iommufd"] if version == "12.8" else [])


def read_capabilities(text):
    """What the tool reads of a libvirt's domcapabilities, which it asks only on
    an Arm host."""
    with tempfile.TemporaryDirectory() as directory:
        program = pathlib.Path(directory, "reads")
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "glib-2.0", "libxml-2.0"], capture_output=True, text=True, check=True).stdout
        subprocess.run(["gcc", "-D_GNU_SOURCE", f"-I{HERE.parents[1] / 'cli'}", "-o", program, HERE / "programs/capabilities.c",
                        HERE.parents[1] / "cli/facts/libvirt.c", *flags.split()], check=True)
        return subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout.splitlines()


def check_line(name, plan, found, version):
    """What libvirt would start is the plan."""
    nodes = len(plan["nodes"])
    assert sum(w.startswith("node,nodeid=") for w in found) == nodes, name
    assert sum("pcie-root-port" in w and "pci." in w for w in found) >= len(plan["gpus"]), name
    assert sum('"pxb-pcie"' in w for w in found) == len(plan["buses"]), name
    ports = [device["port_speed"] for device in names(plan).values()]
    assert [json.loads(w).get("x-speed") for w in found if '"pcie-root-port"' in w][:len(ports)] == [str(p) if p else None for p in ports], name
    for bus in plan["buses"]:
        assert any(f'"bus_nr":{bus["number"]}' in w and f'"numa_node":{bus["node"]}' in w for w in found), name
    smmus_found = [json.loads(w) for w in found if '"arm-smmuv3"' in w]
    assert [s["accel"] for s in smmus_found] == [True] * (len(plan["buses"]) if plan["accel_smmu"] else 0), name
    if version == "11.3":
        assert sum(w.startswith("acpi-generic-initiator,") for w in found) == GPU_NODES * len(plan["gpus"]), name
    distances = nodes * (nodes - 1) // 2 if plan["nodes"][0]["distances"] else 0
    # Of its own elements, libvirt passes on both directions.
    pairs = {frozenset(pair) for w in found for pair in re.findall(r"^dist,src=(\d+),dst=(\d+),", w)}
    assert sum(len(pair) == 2 for pair in pairs) == distances, name
    wanted = "ms" if plan["secure_boot"] else "no-secboot"
    assert any(f"AAVMF_CODE.{wanted}.fd" in w for w in found), name
    assert not plan["uefi_vars"] or any(plan["uefi_vars"] in w for w in found), name
    assert any(re.search("^tpm-tis|tpm-tis-device", w) for w in found) == plan["tpm"], name
    assert any(re.search("(^|,)highmem-mmio-size=", w) for w in found) == plan["window"]["set"], name
    assert sum(w.startswith("node,nodeid=") and "cpus=" in w for w in found) == plan["gpus"][0]["first_node"], name


# ---- QEMU --------------------------------------------------------------------

def names(plan):
    """{id: device of the plan}, in the order of their ports"""
    return {**{f"gpu{i}": gpu for i, gpu in enumerate(plan["gpus"])}, **{f"dev{i}": device for i, device in enumerate(plan["devices"])}}


def check_tables(machine, plan):
    """What QEMU made of the line: tree, memory and ACPI's tables."""
    above = parents(machine.human("info qtree"))
    for i, (name, device) in enumerate(names(plan).items()):
        bus = "pcie.0" if device["bus"] is None else f"pcie.{device['bus'] + 1}"
        assert above[name][:2] == [f"port{i}", bus]
    size = plan["window"]["size"]
    windows = re.findall(r"([0-9a-f]{16})-([0-9a-f]{16}).*alias pcie-mmio-high ", machine.human("info mtree"))
    assert {int(last, 16) - int(first, 16) + 1 for first, last in windows} == {size}
    assert int(windows[0][1], 16) + 1 <= 1 << plan["window"]["address_bits"]
    tables = machine.acpi()
    nodes = len(plan["nodes"])
    cpu_nodes = nodes - GPU_NODES * len(plan["gpus"])
    buses = {d["qdev_id"]: d["bus"] for d in devices(machine)}
    assert generic_initiators(tables["SRAT"]) == {
        gpu["first_node"] + n: buses[f"gpu{i}"] for i, gpu in enumerate(plan["gpus"]) for n in range(GPU_NODES)}
    assert cpu_nodes == plan["gpus"][0]["first_node"]
    count, buses = smmus(tables["IORT"])
    wanted = [b["number"] for b in plan["buses"] if b["host_smmu"]]
    assert (count, buses) == (len(wanted), wanted)
    if plan["nodes"][0]["distances"]:
        assert list(tables["SLIT"][44:]) == [d for n in plan["nodes"] for d in n["distances"]]


def check_firmware(machine, plan):
    """The real firmware gives the root port of every GPU a window that holds
    its BARs, apart from the others. It has done so when it looks for
    something to boot, of which it then says that there is none."""
    machine.ask("cont")
    while b"BdsDxe" not in machine.console.read_bytes():
        assert machine.process.poll() is None
        time.sleep(0.1)
    found = {d["qdev_id"]: d["pci_bridge"]["bus"]["prefetchable_range"] for d in devices(machine)
             if d["qdev_id"].startswith("port")}
    found = {name: (w["base"], w["limit"]) for name, w in found.items()}
    bars = [device["bars"] for device in names(plan).values()]
    assert len(found) == len(bars)
    end = 256 << 30
    for name, (first, last) in sorted(found.items(), key=lambda f: f[1]):
        assert first >= end
        wanted = bars[int(name[4:])]
        assert last - first + 1 >= (wanted - (32 << 20) if wanted > 1 << 30 else wanted)
        end = last + 1
    assert end <= 1 << plan["window"]["address_bits"]


def devices(machine):
    todo = [d for bus in machine.ask("query-pci") for d in bus["devices"]]
    for device in todo:
        todo += device.get("pci_bridge", {}).get("devices", [])
    return todo


@pytest.mark.parametrize("facts", HOSTS.values(), ids=HOSTS)
def test_line(facts, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    words = stand_in(arguments(guest(facts, *SMALL)), facts.get("kind", "gh200"), disk, facts.get("tray", {}))
    plan = json.loads(guest(facts, *SMALL[:-1], "--format=json"))
    with Machine(facts.get("qemu", "11.1"), words, tmp_path) as machine:
        check_firmware(machine, plan)
        # QEMU makes the tables when the firmware reads them, with the numbers
        # of its buses.
        machine.ask("stop")
        check_tables(machine, plan)


@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_the_guest_sees_cloud_inits_folder(version, tmp_path):
    """As a FAT file system with the label and both files, read by QEMU itself."""
    folder = tmp_path / "it's, a seed"
    folder.mkdir()
    for name in ("user-data", "meta-data"):
        (folder / name).write_text(f"the text of {name}\n")
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    facts = {"qemu": version, "config": TYPE1}
    words = arguments(guest(facts, *SMALL, f"--cloud-init={folder}", "--ssh-port=40022"))
    with Machine(version, stand_in(words, "gh200", disk, {}), tmp_path) as machine:
        machine.human('qemu-io seed0 "read -v 0 512k"')
        assert "40022" in machine.human("info usernet")
        # QEMU prints the rest at its end.
        machine.ask("quit")
        machine.process.wait()
        machine.log.seek(0)
        dump = b"".join(bytes.fromhex(line[11:58]) for line in machine.log.read().splitlines() if re.match("[0-9a-f]{8}:  ", line))
    # 8 characters of a name, 3 of its extension, and the flag of a label, "(".
    assert b"CIDATA     (" in dump
    for name in ("user-data", "meta-data"):
        assert f"the text of {name}".encode() in dump
        # Its long name begins with 5 characters of UTF-16.
        assert name[:5].encode("utf-16-le") in dump


def preparations(text):
    """What the printed script does before it starts QEMU."""
    return "\n".join(line for line in text[:text.index("\nexec ")].splitlines() if not line.startswith("#"))


def swtpm(directory):
    """A folder for PATH with swtpm and its libraries."""
    (directory / "bin").mkdir()
    program = directory / "bin/swtpm"
    there = packages.root("tpm")
    program.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={there}{NATIVE.libraries}:{there}{NATIVE.libraries}/swtpm exec {there}/usr/bin/swtpm "$@"\n')
    program.chmod(0o755)
    return program.parent


def is_listening(path):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def test_secure_boot_refuses_an_unsigned_program_and_the_tpm_ends_with_qemu(tmp_path):
    """By the real firmware and swtpm, which the printed script starts. The next
    start finds the variables as the firmware has left them."""
    folder = tmp_path / "seed"
    (folder / "EFI/BOOT").mkdir(parents=True)
    # No program, but firmware first looks for a signature.
    header = struct.pack("<2s58xI", b"MZ", 64) + struct.pack("<4sHHIIIHH", b"PE\0\0", 0xaa64, 1, 0, 0, 0, 240, 0x22)
    optional = struct.pack("<HBBIIIIIQIIHHHHHHIIIIHHQQQQII128x", 0x20b, 0, 0, 512, 0, 0, 4096, 4096, 0, 4096, 512, 0, 0, 0, 0, 0, 0, 0, 8192, 512, 0,
                           10, 0, 0, 0, 0, 0, 0, 16)
    section = struct.pack("<8sIIIIIIHHI", b".text", 512, 4096, 512, 512, 0, 0, 0, 0, 0x60000020)
    (folder / "EFI/BOOT/BOOTAA64.EFI").write_bytes((header + optional + section).ljust(512, b"\0") + bytes(512))
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    text = guest({}, *SMALL, "--secure-boot", "--tpm", "--uefi-vars=it's, the variables", f"--cloud-init={folder}")
    words = stand_in(arguments(text), "gh200", disk, {})
    path, control, variables = swtpm(tmp_path), tmp_path / "gh200-tpm/socket", tmp_path / "it's, the variables"
    template = pathlib.Path("/usr/share/AAVMF/AAVMF_VARS.ms.fd").read_bytes()
    with Machine("11.1", words, tmp_path, preparations(text), path) as machine:
        assert variables.read_bytes() == template
        assert [t["model"] for t in machine.ask("query-tpm")] == ["tpm-tis"]
        machine.ask("cont")
        while b"Access Denied" not in machine.console.read_bytes():
            assert machine.process.poll() is None
            time.sleep(0.1)
        assert "TPM2" in machine.acpi()
    while is_listening(control):
        time.sleep(0.1)
    left = variables.read_bytes()
    assert left != template
    with Machine("11.1", words, tmp_path, preparations(text), path) as machine:
        assert variables.read_bytes() == left
        assert machine.ask("query-tpm")
    while is_listening(control):
        time.sleep(0.1)


@pytest.mark.parametrize("version", ROOTS)
def test_packages_describe_firmware_as_recorded_hosts_do(version):
    found = {}
    for file in (root(version) / "usr/share/qemu/firmware").glob("*.json"):
        found[file.name] = json.loads(file.read_text(encoding="utf-8"))
        del found[file.name]["description"], found[file.name]["tags"]
    assert found == {name: descriptor(*words) for name, words in FIRMWARE.items()}


@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_qemu_lists_what_recorded_hosts_of_its_version_list(version):
    (command, environment), found = qemu(version), set()
    for option, text, prefix in (("-machine", "virt,help", "machine"), ("-object", "help", "object"),
                                 ("-device", "vfio-pci,help", "vfio-pci"), ("-device", "pxb-pcie,help", "pxb-pcie"),
                                 ("-device", "arm-smmuv3,help", "arm-smmuv3")):
        said = subprocess.run([*command, option, text], env=environment, capture_output=True, text=True, check=True).stdout
        found |= {f"{prefix}.{name}" for name in re.findall(r"^ +([\w-]+)", said, re.M)}
    assert found & set(QEMU["11.1"].split()) == set(QEMU[version].split())


@pytest.mark.parametrize("version", ROOTS)
def test_libvirts_schema_has_what_recorded_hosts_have(version):
    """By its schema, the tool prints for a libvirt what it prints by the record."""
    with Tree() as t:
        host(t, qemu="11.1", libvirt=version)
        recorded = t.run("guest", "--all").stdout
        (t.root / "answers/libvirt-elements").unlink()
        schemas = "usr/share/libvirt/schemas"
        shutil.copytree(root(version) / schemas, t.root / schemas)
        done = t.run("guest", "--all")
        assert (done.returncode, done.stderr, done.stdout) == (0, "", recorded)
        assert ("accel='on'" in recorded, "iommufd='yes'" in recorded, "<acpi nodeset='1-8'/>" in recorded) == (version == "12.8",) * 3
        if version == "12.8":
            # As the same libvirt's version alone.
            shutil.rmtree(t.root / schemas)
            assert t.run("guest", "--all").stdout == recorded


def test_qemu_11_knows_the_accelerated_smmu():
    """It refuses an option that it doesn't know, and only later that there is no
    SMMU in hardware."""
    words = ["-machine", "virt,accel=qtest,gic-version=3", "-display", "none", "-nodefaults", "-device", "pxb-pcie,id=pcie.1,bus=pcie.0",
             "-device", "arm-smmuv3,primary-bus=pcie.1,accel=on,ats=on,ril=off,ssidsize=20,oas=48,nosuch=1"]
    done = subprocess.run(["qemu-system-aarch64", *words], capture_output=True, text=True, check=False)
    assert "nosuch" in done.stderr

