# SPDX-License-Identifier: GPL-2.0-only
"""QEMU 10.0 and 11 and libvirt 11.3 and 12.8 accept what `nvgrace-gpu guest` prints for
them, and libvirt keeps it in the domains of virt-install.

There are no such GPUs here and no KVM for Arm. Each GPU is therefore a function
with BARs of the same sizes, the processors are emulated, and what only an SMMU in
hardware has is left out. All else is as it was printed.
"""

import contextlib
import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import time
import xml.etree.ElementTree as ET

import pytest

from cli.common import build
from cli.guest_hosts import FIRMWARE, GPU_NODES, KINDS, NIC0, RECORDED, TRAY, Tree, descriptor, host
from lab import packages
from lab.arch import NATIVE

pytestmark = pytest.mark.needs("root virt", "root virt-sid")


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
SMALL = ["--memory=1G", "--cpus=4", "--all"]
TYPE1 = ("VFIO_IOMMU_TYPE1=m",)
IOMMUFD = ("IOMMUFD=m", "VFIO_DEVICE_CDEV=y", "ARM_SMMU_V3_IOMMUFD=y")
HOSTS = {
    "one GH200, QEMU 10.0": {"qemu": "10.0", "config": TYPE1, "initiators": False},
    "one GH200, QEMU 10.0, iommufd": {"qemu": "10.0", "config": ("IOMMUFD=m", "VFIO_DEVICE_CDEV=y")},
    "four GH200s, QEMU 10.0": {"qemu": "10.0", "config": TYPE1, "gpus": 4, "per_node": 4},
    "two GB200s at two nodes, QEMU 10.0": {"qemu": "10.0", "config": TYPE1, "kind": "gb200", "gpus": 2},
    "one GH200": {},
    "one GH200 with an SMMU": {"words": ["--accel-smmu=on"]},
    "one GH200, the least window": {"bits": 40},
    "one GH200, pinned to the node that this machine has": {"words": ["--pin"]},
    "two GH200s at two nodes": {"gpus": 2},
    "two GH200s at two nodes, 40 bits": {"gpus": 2, "bits": 40, "config": TYPE1},
    "two GH200s at two nodes, 41 bits": {"gpus": 2, "bits": 41, "config": TYPE1},
    "four GH200s at four nodes, 41 bits": {"gpus": 4, "bits": 41, "config": TYPE1, "words": ["--memory=2G"]},
    "four GB200s at two nodes, 43 bits": {"kind": "gb200", "gpus": 4, "per_node": 2, "bits": 43, "config": TYPE1},
    "four GB200s, two to an SMMU": {"kind": "gb200", "gpus": 4, "per_node": 2, "per_smmu": 2, "words": ["--accel-smmu=on"]},
    "four GB300s": {"kind": "gb300", "gpus": 4, "per_node": 2, "per_smmu": 2},
    "a tray": {"kind": "gb200", "gpus": 2, "tray": TRAY, "words": ["--accel-smmu=on"]},
    "a tray, QEMU 10.0": {"kind": "gb200", "gpus": 2, "tray": TRAY, "qemu": "10.0", "config": TYPE1},
    "two GH200s and a NIC, 40 bits": {"gpus": 2, "per_node": 2, "bits": 40, "config": TYPE1, "tray": {NIC0: TRAY[NIC0]}},
}


def bars_of(address, kind, tray):
    """The sizes of a device's BARs."""
    facts = KINDS[kind]
    return ([size for size in tray[address][1] if size] if address in tray else
            [facts["usemem_bar_size"], facts.get("resmem_bar_size") or facts["own_bar2"], 16 << 20])


def functions(name, bus, sizes):
    """QEMU's options for what stands for a device. A function has one BAR of any size, and
    a GPU has three."""
    return [word for function, size in enumerate(sizes) for word in
            ("-device", f"pci-testdev,bus={bus},addr=00.{function},membar={size},rombar=0" +
             (f",id={name},multifunction=on" if function == 0 else ""))]


def guest(facts, *words):
    facts = dict(facts)
    words = [*words, *(f"--device={address}" for address in facts.get("tray", {})), *facts.pop("words", [])]
    with Tree() as t:
        done = host(t, **facts).run("guest", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def arguments(text):
    command = shlex.split(text[text.index("\nexec "):].replace("\\\n", ""))
    # Before -machine is what the script's name decides.
    return command[command.index("-machine"):-1]


def stand_in(words, kind, disk, tray):
    """The printed arguments with what stands for the hardware."""
    changed = []
    for word in words:
        if match := re.fullmatch(r"vfio-pci,id=((?:gpu|dev)\d+),host=([^,]+),bus=(port\d+),rombar=0(?:,ats=off)?(?:,iommufd=iommufd0)?", word):
            changed += functions(match[1], match[3], bars_of(match[2], kind, tray))[1:]
            continue
        for pattern, text in ((r"accel=kvm", "accel=tcg"), (r",accel=on(,ats=on,ril=off,ssidsize=20,oas=48)?$", ""),
                              (r",host-nodes=\d+,policy=preferred", ""), (r"^(if=none,.*file=).*", rf"\g<1>{disk}"),
                              (r"^host$", "max"), (r"format=qcow2", "format=raw"), (r"^mon:stdio$", "CONSOLE"),
                              # This machine has no /dev/iommu. Nothing uses it
                              # before a device of vfio does.
                              (r"^iommufd,id=iommufd0$", "iommufd,id=iommufd0,fd=FD")):
            word = re.sub(pattern, text, word)
        changed.append(word)
    return changed


class Monitors:
    """A QEMU that runs: its monitor, and qtest, which reads and writes its memory."""

    def __init__(self, directory):
        self.files = []
        self.qmp = self.connect(directory / "qmp")
        self.qmp.readline()
        self.ask("qmp_capabilities")
        self.qtest = self.connect(directory / "qtest")

    def connect(self, path):
        connection = socket.socket(socket.AF_UNIX)
        self.files.append(connection)
        while True:
            try:
                connection.connect(str(path))
                return connection.makefile("rw", encoding="ascii")
            except OSError:
                self.check()

    def check(self):
        """Raises why nothing listens, if nothing will."""
        raise AssertionError("no such socket")

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
        for file in (self.qmp, self.qtest, *self.files):
            with contextlib.suppress(OSError):
                file.close()


class Machine(Monitors):
    """QEMU with these arguments, stopped before its first instruction."""

    def __init__(self, version, words, directory):
        directory = pathlib.Path(directory)
        self.nothing = open("/dev/null", "rb")
        self.console = directory / "console"
        self.console.touch()
        words = [re.sub("^CONSOLE$", f"file:{self.console}", w) for w in words]
        words = [w.replace("fd=FD", f"fd={self.nothing.fileno()}") for w in words]
        sockets = ["-S", "-qmp", f"unix:{directory}/qmp,server=on,wait=off", "-qtest", f"unix:{directory}/qtest,server=on,wait=off"]
        self.log = open(directory / "log", "w+", encoding="utf-8")
        command, environment = qemu(version)
        self.process = subprocess.Popen([*command, *words, *sockets], env=environment, cwd=directory, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=subprocess.STDOUT, pass_fds=[self.nothing.fileno()])
        super().__init__(directory)

    def check(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise AssertionError(f"QEMU has ended: {self.log.read()}")

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.nothing.close()
        super().__exit__(*exc)


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


# ---- libvirt -----------------------------------------------------------------

# Its packages over the toolbox's tree, because a daemon finds its parts by their
# paths. Commands come from standard input.
LIBVIRT_SYSTEM = """
set -e
root=$1 dir=$2
mkdir -p "$dir/upper/etc/libvirt" "$dir/upper/etc/ssl/certs" "$dir/upper/var" "$dir/work" "$dir/root"
ln -s /run "$dir/upper/var/run"
cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$dir/upper/etc/ssl/certs/ca-certificates.crt"
cd "$dir/upper/etc"
printf 'root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/false\n' >passwd
printf 'root:x:0:\nlibvirt-qemu:x:64055:\nkvm:x:64054:\n' >group
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = "file"\n' >libvirt/qemu.conf
printf 'unix_sock_group = "root"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n' >libvirt/libvirtd.conf
mount -t overlay -o "lowerdir=$root:/,upperdir=$dir/upper,workdir=$dir/work" scratch "$dir/root"
cd "$dir/root"
mount --rbind /dev dev
mount --rbind /proc proc
mount --bind -o ro /sys sys
for d in tmp run; do mount -t tmpfs scratch "$d"; done
mkdir -p tmp/out srv
mount --bind "$dir" tmp/out
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8 sh -ec '
    libvirtd >/tmp/log 2>&1 &
    pid=$!
    trap "kill $pid; kill \\$(cat /run/libvirt/qemu/gh200.pid 2>/dev/null)" EXIT
    until virsh -q uri >/tmp/uri 2>&1; do
        kill -0 $pid || { cat /tmp/log; exit 1; }
        sleep 0.2
    done
    cd /tmp/out
    qemu-img create -q -f qcow2 /srv/disk.qcow2 1G
    truncate -s 1M /srv/seed.iso
    define() { virsh -q "define --validate $1; dumpxml --inactive --security-info gh200; undefine --nvram --tpm gh200" >"$2"; }
    give() { host=$1; shift; ./nvgrace-gpu --root="hosts/$host/tree" guest $(cat "hosts/$host/words") "$@" 2>>notes; }
    take() { ./nvgrace-gpu --root="hosts/$1/tree" guest --remove --domain="$2"; }
    while read -r script; do
        . "./$script"
        echo "done with $script"
    done'
"""

# What virt-install is asked for: six guests of different kinds.
GUESTS = {
    "plain": "--graphics vnc,password=password --network none",
    "server": "--boot firmware=efi,firmware.feature0.enabled=no,firmware.feature0.name=secure-boot --network user --tpm none"
              " --disk /srv/seed.iso,device=cdrom --controller type=scsi,model=virtio-scsi",
    "pages": "--memorybacking hugepages.page0.size=1048576,hugepages.page0.unit=KiB --graphics none --network none",
    "cells": "--graphics none --network none"
             " --cpu mode=maximum,numa.cell0.cpus=0-7,numa.cell0.memory=1048576,numa.cell1.cpus=8-15,numa.cell1.memory=1048576",
    "tuned": "--graphics none --cpu mode=maximum,topology.sockets=2,topology.cores=8,topology.threads=1 --cputune shares=2048 --iothreads 2"
             " --watchdog default --memballoon none --network none",
    "override": "--graphics none --qemu-commandline=-msg --qemu-commandline=timestamp=on --network none",
}
# The hosts whose GPUs they get, with more words for the command: each guest those of
# the first host, and the first guest those of all.
GIVERS = {
    "11.3": {"two": {"gpus": 2, "qemu": "10.0", "words": ["--pin"]}, "one": {"qemu": "10.0"},
             "tray": {"gpus": 2, "qemu": "10.0", "tray": TRAY}},
    "12.8": {"two": {"gpus": 2, "words": ["--pin"]}, "one": {}, "smmu": {"words": ["--accel-smmu=on"]},
             "four": {"gpus": 4, "per_node": 2, "kind": "gb200", "config": IOMMUFD},
             "tray": {"gpus": 2, "kind": "gb200", "tray": TRAY, "words": ["--accel-smmu=on"]}},
}
MAKE = """
virt-install --name gh200 --arch aarch64 --virt-type qemu --features gic.version=3 --import --disk /srv/disk.qcow2 --osinfo debian12 \
    --memory 2048 --vcpus 16 --cpu mode=maximum {words} --print-xml >{name}.raw
define {name}.raw {name}.bare
"""
# From what libvirt makes of the domain: given, and what libvirt makes of that; the same
# for a domain that libvirt has not read before.
CHANGE = """
this={name}.{host}
give {host} --domain={name}.bare >$this.given
give {host} --domain={name}.bare --format=json >$this.json
define $this.given $this.defined
give {host} --domain=$this.defined | cmp - $this.defined
take {host} $this.given | cmp - {name}.bare
take {host} $this.defined >$this.removed
define $this.removed $this.again
cmp $this.again {name}.bare
give {host} --domain={name}.raw >$this.first
define $this.first $this.first-defined
give {host} --domain=$this.first-defined | cmp - $this.first-defined
take {host} $this.first | cmp - {name}.raw
"""
START = """
virsh -q "define {this}.here; start --paused gh200"
"""
STOP = """
virsh -q "destroy gh200; undefine --nvram --tpm gh200"
rm -f qmp qtest
"""


class Libvirt:
    """A system whose libvirtd runs, for scripts of sh in its folder."""

    def __init__(self, version, directory):
        self.directory = directory
        self.process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", LIBVIRT_SYSTEM, "sh", root(version), directory],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, text):
        (self.directory / "script").write_text(text)
        self.process.stdin.write("script\n")
        self.process.stdin.flush()
        said = ""
        while not said.endswith("done with script\n"):
            more = self.process.stdout.readline()
            assert more, f"{text}\n{said}"
            said += more

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.communicate()


def domain_here(text, kind, tray):
    """A domain with what stands for the hardware, for this machine: it has one node, no
    huge pages and no GPUs."""
    qemu_names = "{http://libvirt.org/schemas/domain/qemu/1.0}"
    domain = ET.fromstring(text)
    parents = {child: parent for parent in domain.iter() for child in parent}
    ports = {c.get("index"): c.find("alias").get("name") for c in domain.iter("controller") if c.find("alias") is not None}
    words = ["-qmp", "unix:/tmp/out/qmp,server=on,wait=off", "-qtest", "unix:/tmp/out/qtest,server=on,wait=off"]
    for hostdev in domain.findall("devices/hostdev"):
        place, name = hostdev.find("source/address"), hostdev.find("alias").get("name")
        address = "{domain:04x}:{bus:02x}:{slot:02x}.{function}".format(**{k: int(v, 0) for k, v in place.attrib.items()})
        # As JSON, like libvirt's: QEMU makes all others first.
        for word in functions(name, ports[str(int(hostdev.find("address").get("bus"), 0))], bars_of(address, kind, tray))[1::2]:
            device = dict(pair.split("=") for pair in f"driver={word}".split(","))
            words += ["-device", json.dumps({k: int(v) if v.isdigit() else v == "on" if k == "multifunction" else v for k, v in device.items()})]
        if (nodes := hostdev.find("acpi")) is not None:
            first, last = map(int, nodes.get("nodeset").split("-"))
            words += [w for n in range(first, last + 1) for w in ("-object", f"acpi-generic-initiator,id=gi{n},pci-dev={name},node={n}")]
    removed = [*(e for tag in ("hostdev", "numatune", "memoryBacking", "cputune", "tpm") for e in domain.iter(tag)),
               *(d for d in domain.iter(f"{qemu_names}device") if not d.get("alias").startswith("ua-nvgrace-port"))]
    for element in removed:
        parents[element].remove(element)
    for override in domain.findall(f"{qemu_names}override"):
        if not len(override):
            domain.remove(override)
    for driver in domain.findall("devices/iommu/driver"):
        del driver.attrib["accel"]
    line = domain.find(f"{qemu_names}commandline")
    if line is None:
        line = ET.SubElement(domain, f"{qemu_names}commandline")
    for word in words:
        ET.SubElement(line, f"{qemu_names}arg", value=word)
    return ET.tostring(domain, "unicode")


@pytest.mark.parametrize("version", GIVERS)
def test_domains_of_virt_install(version, tmp_path):
    """libvirt accepts them with GPUs, keeps what they got, has the first domain again
    without them, and starts the machine that was planned."""
    subprocess.run(["mount", "-t", "tmpfs", "scratch", tmp_path], check=True)
    try:
        shutil.copy(build(), tmp_path)
        for name, facts in GIVERS[version].items():
            facts = dict(facts)
            words = ["--all", *(f"--device={a}" for a in facts.get("tray", {})), *facts.pop("words", [])]
            with Tree() as t:
                host(t, **{"libvirt": version, "config": (*TYPE1, *IOMMUFD), **facts})
                shutil.copytree(t.root, tmp_path / "hosts" / name / "tree", symlinks=True)
                (tmp_path / "hosts" / name / "words").write_text(" ".join(words))
        with Libvirt(version, tmp_path) as libvirt:
            libvirt.run("virsh version --daemon >version\n"
                        "virsh domcapabilities --arch aarch64 --machine virt --virttype qemu >domcapabilities.xml\n")
            for guest_name, more in GUESTS.items():
                libvirt.run(MAKE.format(name=guest_name, words=more))
                for name, facts in list(GIVERS[version].items())[:None if guest_name == "plain" else 1]:
                    this = tmp_path / f"{guest_name}.{name}"
                    libvirt.run(CHANGE.format(name=guest_name, host=name))
                    changed = domain_here(this.with_name(f"{this.name}.given").read_text(), facts.get("kind", "gh200"), facts.get("tray", {}))
                    this.with_name(f"{this.name}.here").write_text(changed)
                    libvirt.run(START.format(this=this.name))
                    with Monitors(tmp_path) as machine:
                        check_tables(machine, json.loads(this.with_name(f"{this.name}.json").read_text()), "ua-nvgrace-", "ua-nvgrace-bus", 0,
                                     guest_name == "cells")
                    libvirt.run(STOP)
        said = [(tmp_path / name).read_text() for name in ("version", "domcapabilities.xml")]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    # What recorded hosts say, but for the patches of the distribution.
    daemon, capabilities = (RECORDED / f"virsh-version-{version}.txt").read_text(), (RECORDED / "domcapabilities-12.8.xml").read_text()
    assert re.search("daemon: (.*)", said[0])[1].startswith(version) and re.search("daemon: (.*)", daemon)[1].startswith(version)
    # Of iommufd, libvirt 11.3 says nothing.
    enum = "(?s)<enum name='iommufd'>.*?</enum>"
    assert re.findall(enum, said[1]) == (re.findall(enum, capabilities) if version == "12.8" else [])


# ---- QEMU --------------------------------------------------------------------

def names(plan):
    """{id: device of the plan}, in the order of their ports"""
    return {**{f"gpu{i}": gpu for i, gpu in enumerate(plan["gpus"])}, **{f"dev{i}": device for i, device in enumerate(plan["devices"])}}


def check_tables(machine, plan, prefix="", buses="pcie.", first=1, own=False):
    """What QEMU made of the line: tree, memory and ACPI's tables. prefix and buses begin
    the names of devices and root complexes; first: the number of the first of these. own:
    the distances between its processors' nodes are the domain's."""
    tree = "\n".join(machine.human("info qtree").splitlines())
    above = parents(tree)
    behind = [f"{buses}{i + first}" for i, b in enumerate(plan["buses"]) if b["host_smmu"]]
    assert sorted(re.findall(r'primary-bus = ".*/([^"/]+)"', tree)) == sorted(behind)
    for i, (name, device) in enumerate(names(plan).items()):
        assert above[prefix + name][0] == f"{prefix}port{i}"
        assert above[prefix + name][1] == ("pcie.0" if device["bus"] is None else f"{buses}{device['bus'] + first}")
        # QEMU's own ports have 16 GT/s.
        speed, = re.findall(rf'id "{prefix}port{i}"\n(?:(?! +dev: ).*\n)*? +x-speed = "(\d+)"', tree)
        assert int(speed) == (device["port_speed"] or 16)
    size = plan["window"]["size"]
    windows = re.findall(r"([0-9a-f]{16})-([0-9a-f]{16}).*alias pcie-mmio-high ", machine.human("info mtree"))
    assert {int(last, 16) - int(first, 16) + 1 for first, last in windows} == {size}
    assert int(windows[0][1], 16) + 1 <= 1 << plan["window"]["address_bits"]
    tables = machine.acpi()
    nodes = len(plan["nodes"])
    cpu_nodes = nodes - GPU_NODES * len(plan["gpus"])
    # Before the firmware has counted the buses, QEMU doesn't list them, and their numbers
    # are 0.
    places = {d["qdev_id"]: d["bus"] for d in devices(machine)}
    counted = f"{prefix}gpu0" in places
    assert generic_initiators(tables["SRAT"]) == {
        gpu["first_node"] + n: places[f"{prefix}gpu{i}"] if counted else 0 for i, gpu in enumerate(plan["gpus"]) for n in range(GPU_NODES)}
    assert cpu_nodes == plan["gpus"][0]["first_node"]
    assert smmus(tables["IORT"]) == (len(behind), [b["number"] if counted else 0 for b in plan["buses"] if b["host_smmu"]])
    if plan["nodes"][0]["distances"]:
        wanted = [(d, not own or n["gpu"] is not None or k["gpu"] is not None) for n in plan["nodes"]
                  for k, d in zip(plan["nodes"], n["distances"], strict=True)]
        found = zip(tables["SLIT"][44:], wanted, strict=True)
        assert all(is_there == distance for is_there, (distance, counts) in found if counts), (tables["SLIT"][44:], wanted)


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
    plan = json.loads(guest(facts, *SMALL, "--format=json"))
    with Machine(facts.get("qemu", "11.1"), words, tmp_path) as machine:
        check_firmware(machine, plan)
        # QEMU makes the tables when the firmware reads them, with the numbers
        # of its buses.
        machine.ask("stop")
        check_tables(machine, plan)


# ---- the script --------------------------------------------------------------

def script(directory, facts, *words):
    """The printed script with what stands for the hardware, in a folder with blanks."""
    folder = directory / "it's a folder"
    folder.mkdir()
    text = guest(facts, *SMALL, *words)
    command, environment = qemu(facts.get("qemu", "11.1"))
    disk = directory / "disk"
    disk.write_bytes(bytes(1 << 20))
    words = stand_in(arguments(text), "gh200", disk, {})
    begin = text[:text.index("    -machine ")].replace("/usr/bin/qemu-system-aarch64", shlex.join(map(str, command)))
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in (environment or {}).items() if name != "PATH")
    # The emulator's processors wait at the first instruction, with their threads there.
    words = [w.replace("CONSOLE", "mon:stdio") for w in words]
    file = folder / "gh 200.sh"
    file.write_text(begin.replace("\nexec ", f"\n{exports}exec ") + f'    -S {shlex.join(words)} \\\n    "$@"\n')
    file.chmod(0o755)
    return file


def until(condition, process):
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return found


class Monitor:
    """The script's QMP socket, which has one client at a time."""

    def __init__(self, path):
        self.client = socket.socket(socket.AF_UNIX)
        self.client.connect(str(path))
        self.stream = self.client.makefile("rw")
        self.stream.readline()
        self.ask("qmp_capabilities")

    def ask(self, command):
        self.stream.write(json.dumps({"execute": command}) + "\n")
        self.stream.flush()
        while "return" not in (answer := json.loads(self.stream.readline())):
            pass
        return answer["return"]

    def close(self):
        self.stream.close()
        self.client.close()


@pytest.mark.parametrize("facts", [{}, {"qemu": "10.0", "config": TYPE1}], ids=["11.1", "10.0"])
def test_script_starts_anywhere(facts, tmp_path):
    """From another folder and without a terminal or an environment, as cron does, and by a
    relative path; a second start leaves the first one alone; it is ended by its socket or
    its pid, and starts again."""
    file = script(tmp_path, facts)
    (tmp_path / "other" / file.parent.name).mkdir(parents=True)
    # The socket's name is relative there: the path may be long.
    socket_path = tmp_path / "qmp"
    socket_path.symlink_to(file.with_name("gh_200.qmp"))
    pid = file.with_name("gh_200.pid")
    for way, folder, environment, end in (
            ((file, "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="), "/", {}, "quit"),
            (("sh", file.relative_to(tmp_path)), tmp_path, {"PATH": "/usr/bin:/bin", "CDPATH": tmp_path / "other"}, "kill")):
        with subprocess.Popen(way, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=environment, start_new_session=True) as process:
            until(lambda number=str(process.pid): pid.exists() and pid.read_text().strip() == number and
                  file.with_name("gh_200.qmp").exists(), process)
            monitor = Monitor(socket_path)
            assert monitor.ask("query-name") == {"name": "gh_200"}
            second = subprocess.run([file], cwd="/tmp", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            assert second.returncode and "pid" in second.stderr.lower(), second
            assert monitor.ask("query-status")["status"] == "prelaunch"
            networks = [d for d in monitor.ask("query-pci")[0]["devices"] if d["class_info"]["class"] == 0x200]
            assert len(networks) == (end == "quit")
            if end == "quit":
                monitor.ask("quit")
            else:
                process.send_signal(signal.SIGTERM)
            process.wait()
            monitor.close()
        assert not pid.exists()
    assert sorted(p.name for p in file.parent.iterdir()) == ["gh 200.sh", *(["gh_200.qmp"] if file.with_name("gh_200.qmp").exists() else [])]


def test_script_pins_each_processor(tmp_path):
    """To the isolated ones, and the rest of QEMU to the others of this node."""
    cpus = sorted(os.sched_getaffinity(0))
    facts = {"cpus": cpus[-1] + 1, "isolated": str(cpus[-1])} if len(cpus) > 1 else {"cpus": cpus[-1] + 1}
    file = script(tmp_path, facts, "--pin")
    text = file.read_text()
    # Memory of this machine, which QEMU could bind to node 0 only with its own.
    file.write_text(text.replace(",host-nodes=0,policy=bind", ""))
    file.chmod(0o755)
    with subprocess.Popen([file], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        def places():
            found = {}
            for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    name = (task / "comm").read_text().strip()
                    if name.startswith("CPU "):
                        found[name] = os.sched_getaffinity(int(task.name))
            return found
        try:
            wanted = {cpus[-1]} if "isolated" in facts else set(range(cpus[-1] + 1)) & set(cpus)
            until(lambda: len(places()) == 4 and all(place == wanted for place in places().values()), process)
            if "isolated" in facts:
                assert cpus[-1] not in os.sched_getaffinity(process.pid)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("version", ROOTS)
def test_packages_describe_firmware_as_recorded_hosts_do(version):
    found = {}
    for file in (root(version) / "usr/share/qemu/firmware").glob("*.json"):
        found[file.name] = json.loads(file.read_text(encoding="utf-8"))
        del found[file.name]["description"], found[file.name]["tags"]
    assert found == {name: descriptor(*words) for name, words in FIRMWARE.items()}


@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_qemu_lists_what_recorded_hosts_of_its_version_list(version):
    """The same names and defaults, whatever their texts are."""
    (command, environment), recorded = qemu(version), (RECORDED / f"qemu-{version}.txt").read_text()

    def lines(text):
        return sorted({(m[1], m[2]) for m in re.finditer(r"(?m)^ +([\w-]+)[=\n ].*?(\(default: auto\))?$", text)})
    for question, said in re.findall(r"(?ms)^\$ /usr/bin/qemu-system-aarch64 (.*?)\n(.*?)(?=^\$ |\Z)", recorded):
        now = subprocess.run([*command, *question.split()], env=environment, capture_output=True, text=True, check=True).stdout
        assert lines(now) == lines(said), question


@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_qemu_has_each_property(version):
    """Of every device and object that is printed, by its help."""
    (command, environment), seen = qemu(version), set()
    facts = {"qemu": version, "gpus": 2, "tray": TRAY, "config": IOMMUFD}
    texts = [guest({**facts, "words": words}, *SMALL, "--hugepages=1G", "--memory=2G") for words in
             (["--pin"], *([["--accel-smmu=on"]] if version == "11.1" else []))]
    for text in texts:
        words = arguments(text)
        for option, value in zip(words, words[1:]):
            if option in ("-device", "-object"):
                kind, *properties = value.split(",")
                seen |= {(option, kind, p.partition("=")[0]) for p in properties}
    helps = {(option, kind): subprocess.run([*command, option, f"{kind},help"], env=environment, capture_output=True, text=True, check=True).stdout
             for option, kind, _ in seen}
    for option, kind, name in seen:
        # Those of every device.
        assert name in ("id", "bus") or re.search(rf"(?m)^ +{name}=", helps[option, kind]), (kind, name)


def test_qemu_11_knows_the_accelerated_smmu():
    """It refuses an option that it doesn't know, and only later that there is no
    SMMU in hardware."""
    words = ["-machine", "virt,accel=qtest,gic-version=3", "-display", "none", "-nodefaults", "-device", "pxb-pcie,id=pcie.1,bus=pcie.0",
             "-device", "arm-smmuv3,primary-bus=pcie.1,accel=on,nosuch=1"]
    done = subprocess.run(["qemu-system-aarch64", *words], capture_output=True, text=True, check=False)
    assert "nosuch" in done.stderr
