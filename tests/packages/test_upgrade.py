# SPDX-License-Identifier: GPL-2.0-only
"""Upgrades from the real packages of the last two releases, which
tests/lab/system/release makes from their commits: by apt in Debian 12 and 13, with
their initramfs-tools, and by dnf. Also what is left in images that these make, after
unbind and after removal."""

import shutil
import tempfile

import pytest

from boot import lines
from boot.test_initramfs import module
from lab import packages
from lab.archive import CACHE
from lab.system import scratch
from packages import common
from packages.common import named, run

pytestmark = pytest.mark.usefixtures("built_packages")

NAME = "nvgrace-gpu-vfio-pci"
KERNEL = "6.12-test"
IMAGE = f"/boot/initrd.img-{KERNEL}"
OURS = {"usr/lib/udev/rules.d/60-nvgrace-gpu.rules", "usr/lib/udev/nvgrace-gpu", "etc/nvgrace-gpu.conf.d/all.conf",
        f"usr/lib/modules/{KERNEL}/updates/{NAME}.ko"}
DKMS, TOOL, TESTS, UDEV = f"{NAME}-dkms", "nvgrace-gpu", "nvgrace-gpu-tests", f"{NAME}-udev"
# The release before the upgrade; what is installed of it; the configuration, which
# boot/lines.py has; and what is upgraded: all, or a package that takes the others along.
WAYS = {"dkms": ("0.3.0", (DKMS, TOOL, TESTS), "bind all", ""), "udev": ("0.3.0", (UDEV, TOOL), "bind all", ""),
        "udev alone": ("0.3.0", (UDEV,), "bind all", ""), "tool": ("0.3.0", (DKMS, TOOL, TESTS), "bind all", TOOL),
        "slot": ("0.2.0", (DKMS, TOOL, TESTS), "bind slot=3", ""), "ignored slot": ("0.2.0", (DKMS,), "bind all\nignore slot=GPU1", DKMS)}
# Making the packages of a release takes minutes, so only check-long makes those before
# the last one.
each_way = pytest.mark.parametrize("way", [
    pytest.param(way, marks=[pytest.mark.needs(f"release {WAYS[way][0]}"), pytest.mark.all if WAYS[way][0] == "0.3.0" else pytest.mark.long])
    for way in WAYS])
CONF = "/etc/nvgrace-gpu.conf.d/all.conf"


def repository(place, source, kind):
    """apt's or dnf's, without a signature, of the packages in a folder."""
    place.mkdir()
    for file in source.glob({"deb": "*.deb", "rpm": "*.rpm"}[kind]):
        shutil.copy(file, place)
    run("sh", "-c", {"deb": "apt-ftparchive packages . >Packages", "rpm": "createrepo_c -q ."}[kind], cwd=place)


def in_image(host):
    """The project's files in the image."""
    said = host.sh(f"lsinitramfs {IMAGE}").stdout.splitlines()
    assert "init" in said
    return {line.removesuffix(".zst").removesuffix(".xz") for line in said if "nvgrace" in line and not line.endswith(".d")}


@pytest.fixture(name="debian", params=["bookworm", "trixie"])
def fixture_debian(request, scratch_system):
    """A system with a kernel that has the module, and an image for it."""
    host = scratch_system(lower=scratch.tree(request.param))
    repository(host.shared / "new", scratch.PACKAGES, "deb")
    for address, slot in zip(lines.GPUS, lines.SLOTS):
        for file, text in (("vendor", "0x10de"), ("device", "0x2342")):
            host.write(f"/sys/bus/pci/devices/{address}/{file}", f"{text}\n")
        host.write(f"/sys/bus/pci/slots/{slot}/address", address.removesuffix(".0") + "\n")
    with tempfile.TemporaryDirectory() as place:
        (host.shared / "module.ko").write_bytes(module(place, "A" * 23))
    host.sh(f"""
        echo 'deb [trusted=yes] file:/mnt/new ./' >/etc/apt/sources.list.d/ours.list
        apt-get -q update
        apt-get -q -y install udev kmod initramfs-tools
        mkdir -p /lib/modules/{KERNEL}/updates
        cp /mnt/module.ko /lib/modules/{KERNEL}/updates/{NAME}.ko
        touch /lib/modules/{KERNEL}/modules.order /lib/modules/{KERNEL}/modules.builtin /boot/vmlinuz-{KERNEL}
        printf 'CONFIG_RD_GZIP=y\\nCONFIG_BLK_DEV_INITRD=y\\n' >/boot/config-{KERNEL}
        # "dep" would look at this host's devices.
        echo MODULES=list >/etc/initramfs-tools/conf.d/modules
        depmod {KERNEL}
        update-initramfs -c -k {KERNEL}""")
    return host


def unpacked(host):
    """The folder of the image's files."""
    return host.sh(f"rm -rf /var/tmp/i; unmkinitramfs {IMAGE} /var/tmp/i; dirname $(find /var/tmp/i -name init)").stdout.strip()


@pytest.mark.needs("trees")
@each_way
def test_apt(debian, way):
    version, names, conf, upgraded = WAYS[way]
    repository(debian.shared / "old", CACHE / f"release-{version}", "deb")
    debian.sh(f"""
        sed -i s/new/old/ /etc/apt/sources.list.d/ours.list
        apt-get -q update
        apt-get -q -y install --no-install-recommends {' '.join(names)}""")
    debian.write(CONF, conf)
    debian.sh(f"update-initramfs -u -k {KERNEL}")
    assert in_image(debian) == OURS
    assert debian.sh(f"head -c 2 {unpacked(debian)}/usr/lib/udev/nvgrace-gpu").stdout == "#!"
    debian.sh("sed -i s/old/new/ /etc/apt/sources.list.d/ours.list; apt-get -q update")
    with named("an upgrade without removing anything"):
        said = debian.sh(f"apt-get -q -y -o APT::Get::Upgrade-Allow-New=true {'install' if upgraded else 'upgrade'} {upgraded}").stdout
        assert " 0 to remove and 0 not upgraded" in said, said
        versions = set(debian.sh(f"dpkg-query -W -f '${{Version}}\\n' nvgrace-gpu {' '.join(names)}").stdout.split())
        assert len(versions) == 1 and versions.pop().startswith(scratch.version())
    with named("the image has the new program, which finds its libraries and binds the same GPUs"):
        assert in_image(debian) == OURS
        top = unpacked(debian)
        debian.sh(f"cp -r /sys {top}")
        match = [debian.run("chroot", top, "/usr/lib/udev/nvgrace-gpu", "match", a, ok=False) for a in lines.GPUS]
        assert [(m.returncode, m.stdout) for m in match] == [(0 if binds else 1, "") for binds in lines.GOOD[conf]]
    with named("purge"):
        debian.sh("mkdir -p /var/lib/prometheus/node-exporter; touch /var/lib/prometheus/node-exporter/nvgrace-gpu.prom "
                  "/etc/udev/rules.d/61-nvgrace-gpu-scrub.rules")
        said = debian.sh(f"apt-get -q -y purge nvgrace-gpu {' '.join(names)}").stdout
        assert "Inst " not in said
        # initramfs-tools copies each rule of the administrator.
        assert {f for f in in_image(debian) if f not in OURS or "modules" not in f} == {"usr/lib/udev/rules.d/61-nvgrace-gpu-scrub.rules"}
        assert "/etc/udev/rules.d/61-nvgrace-gpu-scrub.rules is yours, and stays" in said
        left = debian.sh("find /etc /usr /var/lib /run -name '*nvgrace*' ! -path '/usr/lib/modules/*'").stdout.split()
        assert left == ["/etc/udev/rules.d/61-nvgrace-gpu-scrub.rules"]


@pytest.mark.all
@pytest.mark.needs("trees")
def test_undo_and_purge_in_any_order(debian):
    """The guide's file and command, and its undo."""
    install = f"apt-get -q -y install --no-install-recommends {NAME}-dkms"
    bound = f"mkdir -p /etc/nvgrace-gpu.conf.d; echo 'bind all' >/etc/nvgrace-gpu.conf.d/all.conf; update-initramfs -u -k {KERNEL}"
    for undo in (["rm /etc/nvgrace-gpu.conf.d/all.conf", "/usr/lib/udev/nvgrace-gpu renew"],
                 ["rm /etc/nvgrace-gpu.conf.d/all.conf", "apt-get -q -y purge nvgrace-gpu"],
                 ["apt-get -q -y remove nvgrace-gpu"],
                 [f"apt-get -q -y purge {NAME}-dkms", "apt-get -q -y purge nvgrace-gpu"],
                 ["dpkg --purge --force-depends nvgrace-gpu"]):
        with named(undo):
            debian.sh(install)
            debian.sh(bound)
            assert in_image(debian) == OURS
            for command in undo:
                debian.sh(command)
            assert {f for f in in_image(debian) if "modules" not in f} == set()
            debian.sh(f"apt-get -q -y --allow-remove-essential purge {NAME}-dkms nvgrace-gpu || dpkg --purge {NAME}-dkms")


@pytest.mark.all
@pytest.mark.needs("trees")
def test_what_can_not_be_read_can_not_be_read_in_the_image(debian):
    """But what reads as nothing is nothing there, too."""
    debian.sh(f"apt-get -q -y install --no-install-recommends {DKMS}")
    for make, binds in (("ln -s /dev/null", True), ("mkdir", False), ("ln -s /srv/later", False)):
        with named(make):
            debian.sh(f"cd /etc/nvgrace-gpu.conf.d; rm -rf *; echo 'bind all' >{CONF}; {make} kept.conf")
            said = debian.sh("/usr/lib/udev/nvgrace-gpu renew").stdout
            assert ("kept.conf: " in said) != binds, said
            top = unpacked(debian)
            debian.sh(f"cp -r /sys {top}")
            for root in ("/", top):
                done = debian.run("chroot", root, "/usr/lib/udev/nvgrace-gpu", "match", lines.FIRST, ok=False)
                assert (done.returncode == 0) == binds, root


@pytest.mark.all
@pytest.mark.needs("trees")
def test_an_image_that_does_not_change_is_named(debian):
    debian.sh(f"apt-get -q -y install --no-install-recommends {NAME}-dkms")
    debian.sh(f"echo 'bind all' >/etc/nvgrace-gpu.conf.d/all.conf; update-initramfs -u -k {KERNEL}")
    debian.sh("rm /etc/nvgrace-gpu.conf.d/all.conf; sed -i s/=yes/=no/ /etc/initramfs-tools/update-initramfs.conf")
    done = debian.run("/usr/lib/udev/nvgrace-gpu", "renew", ok=False)
    assert done.returncode == 1
    assert f'forbids it: run "mkinitramfs -o {IMAGE} {KERNEL}"' in done.stdout
    said = debian.sh("apt-get -q -y purge nvgrace-gpu").stdout
    assert f"{IMAGE} has files of this package, and binds GPUs at boot until it is made again; " in said


@pytest.mark.needs("root installers")
@each_way
def test_dnf(scratch_system, way):
    version, names, conf, upgraded = WAYS[way]
    host = scratch_system(lower=f"{packages.root('installers')}:/")
    host.empty("/usr/lib/modules")
    host.sh("mkdir -p /var/lib/rpm /etc/yum.repos.d")
    for name, source in (("old", CACHE / f"release-{version}"), ("new", scratch.PACKAGES)):
        repository(host.shared / name, source, "rpm")
    common.build_stand_in(host.shared, [p for name in ("old", "new") for p in (host.shared / name).glob("*.rpm")
                                        if ".src." not in p.name and ".aarch64." not in p.name])
    dnf = "dnf -y --setopt=install_weak_deps=False --repofrompath=stand-in,file:///mnt/stand-in --nogpgcheck --repofrompath="
    host.sh(f"{dnf}old,file:///mnt/old install {' '.join(names)}")
    host.write(CONF, conf)
    # Without "best=True", which RHEL sets, "install" upgrades nothing.
    said = host.sh(f"{dnf}new,file:///mnt/new upgrade {upgraded}").stdout
    assert "scriptlet failed" not in said and "warning: %" not in said, said
    found = set(host.sh("rpm -qa --qf '%{NAME} %{VERSION}\\n' 'nvgrace-gpu*'").stdout.splitlines())
    wanted = {*names, TOOL} - {UDEV}
    assert {line.split()[0] for line in found} == wanted
    assert {line.split()[1] for line in found} == {scratch.version()}
    assert host.sh(f"cat {CONF}; head -c 4 /usr/lib/udev/nvgrace-gpu").stdout == f"{conf}\x7fELF"
    assert host.run("/usr/lib/udev/nvgrace-gpu", "configured").stdout == ""
