# SPDX-License-Identifier: GPL-2.0-only
"""The domain of docs/libvirt-domain.xml, changed to start in the machine of
test_life.py's test_libvirt, and its guest."""

import re
import xml.etree.ElementTree as ET

from lab.system.machine import PROJECT, vm

PAGE = PROJECT / "docs" / "libvirt-domain.xml"
NAME = "gh200"
ALIAS = "ua-gpu1"
NODES = range(1, 9)
# Small, because the machine itself has little more.
MEMORY = 512    # MiB

# In the machine: the folder of the guest's kernel and initramfs, and the file
# with the guest's console.
FILES = "/var/lib/libvirt/images"
CONSOLE = f"/var/log/libvirt/qemu/{NAME}.console"

# The guest's init prints what it sees of the GPU, in lines "@@WORD TEXT", and
# ends.
INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
say() { echo "@@$*" >/dev/console; }
say kernel "$(uname -r)"
say possible "$(cat /sys/devices/system/node/possible)"
say initiators "$(cat /sys/devices/system/node/has_generic_initiator)"
for gpu in /sys/bus/pci/devices/*; do
	[ "$(cat $gpu/vendor)" = 0x10de ] || continue
	say gpu "$(cat $gpu/device)"
	echo 1 >$gpu/enable
	n=0
	while read -r first last flags; do
		case $n in
		2|4)	say bar$n $((last - first + 1))
			say memory$n "$(bar_words $gpu/resource${n}_wc 2>&1)" ;;
		esac
		n=$((n + 1))
	done <$gpu/resource
done
say end
poweroff -f
"""


def initramfs(program):
    """The guest's initramfs. program: the bytes of bar_words.c, compiled."""
    out = vm.Cpio()
    with open(vm.ARM64.busybox, "rb") as f:
        out.file("bin/busybox", f.read(), 0o755)
    out.file("bin/bar_words", program, 0o755)
    out.file("init", INIT, 0o755)
    out.device("dev/console", 5, 1)
    for name in ("proc", "sys"):
        out.file(f"{name}/.directory", b"")
    return out.finish()


def as_it_stands():
    return PAGE.read_text()


def for_machine(pci, managed):
    """The page's domain with the values that the page leaves to the reader, and
    with the guest above instead of a disk."""
    ET.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
    domain = ET.fromstring(as_it_stands())

    domain.find("memory").set("unit", "MiB")
    domain.find("memory").text = str(MEMORY)
    domain.find("vcpu").text = "1"
    cell = domain.find("cpu/numa/cell[@id='0']")
    for name, value in (("cpus", "0"), ("memory", str(MEMORY)), ("unit", "MiB")):
        cell.set(name, value)

    hostdev, = domain.findall("devices/hostdev")
    hostdev.set("managed", managed)
    words = re.fullmatch(r"(\w+):(\w+):(\w+)\.(\w)", pci).groups()
    for name, value in zip(("domain", "bus", "slot", "function"), words):
        hostdev.find("source/address").set(name, f"0x{value}")

    devices = domain.find("devices")
    devices.remove(devices.find("disk"))
    boot = domain.find("os")
    boot.remove(boot.find("boot"))
    for name, value in (("kernel", f"{FILES}/vmlinuz"), ("initrd", f"{FILES}/guest.cpio"),
                        ("cmdline", "console=ttyAMA0 panic=-1 quiet")):
        ET.SubElement(boot, name).text = value
    # A panic of the kernel must end the guest.
    ET.SubElement(domain, "on_reboot").text = "destroy"
    devices.remove(devices.find("console"))
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=CONSOLE)
    return ET.tostring(domain, encoding="unicode")


def seen(console):
    """{word: [texts]} of the guest's "@@" lines."""
    said = {}
    for word, text in re.findall(r"@@(\w+) ?(.*)", console.replace("\r", "")):
        said.setdefault(word, []).append(text)
    return said
