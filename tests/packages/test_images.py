# SPDX-License-Identifier: GPL-2.0-only
"""Installing in an image of a host, under a running kernel that the image does not
have: DKMS builds for the kernel in the image, with Debian's real DKMS and headers."""

import os
import shutil

import pytest

from lab.system import scratch

pytestmark = [pytest.mark.needs("trees"), pytest.mark.usefixtures("built_packages")]
NAME = "nvgrace-gpu-vfio-pci"


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_dkms_builds_for_the_kernel_of_the_image(suite):
    host = scratch.Scratch(lower=scratch.tree(suite))
    try:
        shutil.copy(scratch.package(f"{NAME}-dkms_{scratch.deb_version()}_all.deb"), host.shared / "our.deb")
        said = host.sh("""
            apt-get -q update
            apt-get -q -y install gcc make linux-headers-amd64 kmod
            kernel=$(ls /lib/modules)
            touch /lib/modules/$kernel/modules.order /lib/modules/$kernel/modules.builtin
            mkdir -p /lib/modules/$kernel/kernel /etc/dkms
            depmod $kernel
            # Where the module is tested, kernels are those of x86-64.
            echo 'BUILD_EXCLUSIVE_ARCH="x86_64"' >/etc/dkms/nvgrace-gpu-vfio-pci.conf
            apt-get -q -y install /mnt/our.deb""").stdout
        kernel = host.sh("ls /lib/modules").stdout.split()
        assert len(kernel) == 1 and kernel[0] != os.uname().release
        path = host.sh(f"modinfo -k {kernel[0]} -n {NAME}", ok=False).stdout.strip()
        assert "/updates/dkms/" in path, said
        assert host.sh(f"dpkg-query -W -f '${{db:Status-Status}}' {NAME}-dkms").stdout == "installed"
        assert "is not built for the running kernel" not in said
    finally:
        host.close()
