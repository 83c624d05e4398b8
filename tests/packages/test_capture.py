# SPDX-License-Identifier: GPL-2.0-only
"""The images of the kernel of a crash dump, which kdump-tools and dracut make by
the same hooks as any other, bind no GPU."""

import shutil
import tempfile

import pytest

from boot.test_initramfs import module
from lab.system import scratch

pytestmark = pytest.mark.needs("trees")

NAME = "nvgrace-gpu-vfio-pci"
KERNEL = "6.12-test"
# What lsinitramfs and lsinitrd list of this project.
OURS = {"60-nvgrace-gpu.rules", "nvgrace-gpu", "all.conf", f"{NAME}.ko"}


@pytest.fixture(name="host", scope="module", params=[pytest.param("bookworm", marks=pytest.mark.long), "trixie"])
def fixture_host(built_packages, request):   # pylint: disable=unused-argument  # makes the package
    host = scratch.Scratch(lower=scratch.tree(request.param))
    shutil.copy(scratch.package("nvgrace-gpu_*_amd64.deb"), host.shared / "our.deb")
    with tempfile.TemporaryDirectory() as place:
        (host.shared / "module.ko").write_bytes(module(place, "A" * 23))
    host.sh(f"""
        apt-get -q update
        apt-get -q -y install udev kmod initramfs-tools dracut-core kdump-tools libglib2.0-0
        dpkg-deb -x /mnt/our.deb /
        echo 'bind all' >/etc/nvgrace-gpu.conf.d/all.conf
        mkdir -p /lib/modules/{KERNEL}/updates
        cp /mnt/module.ko /lib/modules/{KERNEL}/updates/{NAME}.ko
        touch /lib/modules/{KERNEL}/modules.order /lib/modules/{KERNEL}/modules.builtin /boot/vmlinuz-{KERNEL}
        printf 'CONFIG_RD_GZIP=y\\nCONFIG_BLK_DEV_INITRD=y\\n' >/boot/config-{KERNEL}
        # Trixie's kdump-tools makes no image in a chroot.
        ln -sf false /usr/bin/ischroot
        # "dep" would look at this host's devices.
        echo MODULES=list >/etc/initramfs-tools/conf.d/modules
        depmod {KERNEL}""")
    yield host
    host.close()


def ours(host, command, image):
    """The names of this project's files in an image that a command makes."""
    said = host.sh(f"{command} >&2; test -s {image}\n"
                   f"lsinitramfs {image} | grep . || lsinitrd {image} | sed 's/.* //'").stdout
    assert "/modprobe" in said, said
    return {line.rpartition("/")[2].removesuffix(".zst").removesuffix(".xz") for line in said.splitlines()} & OURS


def test_kdump_tools(host):
    assert ours(host, f"mkinitramfs -o /var/tmp/ordinary {KERNEL}", "/var/tmp/ordinary") == OURS
    assert ours(host, f"/etc/kernel/postinst.d/kdump-tools {KERNEL}", f"/var/lib/kdump/initrd.img-{KERNEL}") == set()


def test_a_copy_of_the_configuration_for_kdump(host):
    assert ours(host, f"""
        cp -a /etc/initramfs-tools /var/tmp/copy
        mkdir -p /var/tmp/copy/conf.d; echo MODULES=list >/var/tmp/copy/conf.d/zzz-kdump
        mkinitramfs -d /var/tmp/copy -o /var/tmp/dump {KERNEL}""", "/var/tmp/dump") == set()


@pytest.mark.long
def test_an_old_copy_is_made_again(host):
    """As 0.2.0's hook left one, by an upgrade or a removal."""
    image, hook = f"/var/lib/kdump/initrd.img-{KERNEL}", "/usr/share/initramfs-tools/hooks/nvgrace-gpu"
    old = f"""
        sed -i.new 's/^if .*CONFDIR.*/if false; then/' {hook}
        /etc/kernel/postinst.d/kdump-tools {KERNEL}
        mv {hook}.new {hook}"""
    assert ours(host, old, image) == OURS
    assert ours(host, "/usr/lib/udev/nvgrace-gpu renew", image) == set()
    before = host.sh(f"stat -c %y {image}").stdout
    host.sh("/usr/lib/udev/nvgrace-gpu renew")
    assert host.sh(f"stat -c %y {image}").stdout == before


@pytest.mark.long
@pytest.mark.parametrize("arguments, wanted", [
    ("--no-hostonly", OURS),
    ("--hostonly --hostonly-mode strict -o 'plymouth resume ifcfg earlykdump'", set()),
])
def test_dracut(host, arguments, wanted):
    assert ours(host, f"dracut --force {arguments} /var/tmp/image {KERNEL}", "/var/tmp/image") == wanted
