# SPDX-License-Identifier: GPL-2.0-only
"""Installing in an image of a host, under a running kernel that the image does not
have: DKMS builds for the kernel in the image, with Debian's real DKMS and headers.
test_publish.py builds the examples of images."""

import os
import shutil

import pytest

from lab import packages
from lab.system import scratch
from packages import common

pytestmark = pytest.mark.usefixtures("built_packages")
NAME = "nvgrace-gpu-vfio-pci"


# Where the module is tested, kernels are those of x86-64.
ARCH = "mkdir -p /etc/dkms && echo 'BUILD_EXCLUSIVE_ARCH=\"x86_64\"' >/etc/dkms/nvgrace-gpu-vfio-pci.conf"


@pytest.mark.long
@pytest.mark.needs("trees")
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_dkms_builds_for_the_kernel_of_the_image(scratch_system, suite):
    host = scratch_system(lower=scratch.tree(suite))
    shutil.copy(scratch.package("*-dkms_*.deb"), host.shared / "our.deb")
    shutil.copy(scratch.package("nvgrace-gpu_*_amd64.deb"), host.shared / "tool.deb")
    host.sh("""
        apt-get -q update
        apt-get -q -y install gcc make linux-headers-amd64 kmod
        kernel=$(ls /lib/modules)
        touch /lib/modules/$kernel/modules.order /lib/modules/$kernel/modules.builtin
        mkdir -p /lib/modules/$kernel/kernel
        depmod $kernel""")
    said = host.sh(f"""
        {ARCH}
        apt-get -q -y install /mnt/our.deb /mnt/tool.deb""").stdout
    kernel = host.sh("ls /lib/modules").stdout.split()
    assert len(kernel) == 1 and kernel[0] != os.uname().release
    path = host.sh(f"modinfo -k {kernel[0]} -n {NAME}", ok=False).stdout.strip()
    assert "/updates/dkms/" in path, said
    assert host.sh(f"dpkg-query -W -f '${{db:Status-Status}}' {NAME}-dkms").stdout == "installed"
    assert "is not built for the running kernel" not in said


@pytest.mark.needs("root installers", "trees")
def test_dnf_builds_for_the_kernel_of_the_image(scratch_system):
    host = scratch_system(cached=True, lower=f"{packages.root('installers')}:/")
    kernel = scratch.release("stable-amd64")
    host.empty("/usr/lib/modules")
    rpm = scratch.package(f"{NAME}-dkms-*.noarch.rpm")
    shutil.copy(rpm, host.shared / "our.rpm")
    shutil.copy(scratch.deb("trixie", "dkms"), host.shared / "dkms.deb")
    common.build_stand_in(host.shared, [rpm])
    folder = host.shared / "modules" / kernel
    folder.mkdir(parents=True)
    (folder / "build").symlink_to(os.readlink(f"/usr/lib/modules/{kernel}/build"))
    for lists in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(f"/usr/lib/modules/{kernel}/{lists}", folder)
    said = host.sh(f"""
        cp -r /mnt/modules/. /usr/lib/modules
        depmod {kernel}
        mkdir -p /var/lib/rpm /etc/yum.repos.d
        dpkg --install --force-depends /mnt/dkms.deb
        {ARCH}
        dnf -y --nogpgcheck --repofrompath=stand-in,file:///mnt/stand-in --setopt=install_weak_deps=0 install /mnt/our.rpm""").stdout
    path = host.sh(f"modinfo -k {kernel} -n {NAME}", ok=False).stdout.strip()
    assert "/updates/dkms/" in path, said
    assert host.sh("ls /usr/lib/modules").stdout.split() == [kernel]
    assert "is not built for the running kernel" not in said
