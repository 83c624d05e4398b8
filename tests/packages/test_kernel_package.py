# SPDX-License-Identifier: GPL-2.0-only
"""What the real dpkg and rpm say of the package that the running kernel is from."""

import os
import pathlib

import pytest

from cli.common import build

RELEASE = os.uname().release
CONTROL = f"Package: linux-image-unsigned-{RELEASE}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\nDescription: x\n"
SPEC = f"""Name: kernel-64k-core
Version: 5.14.0
Release: 570.el9
Summary: x
License: x
BuildArch: noarch
%description
%files
/lib/modules/{RELEASE}/vmlinuz
"""


@pytest.fixture(name="host")
def fixture_host(scratch_system):
    host = scratch_system()
    host.empty("/usr/lib/modules")
    # DKMS has the source, and no headers.
    host.write("/var/lib/dkms/nvgrace-gpu-vfio-pci/1/source/dkms.conf", "")
    return host


def answer(host):
    host.sh(f"mkdir -p /lib/modules/{RELEASE}; touch /lib/modules/{RELEASE}/modules.order; depmod {RELEASE}")
    host.run(build(), "doctor", "--record", "/mnt/record", ok=False)
    return pathlib.Path(host.shared / "record/answers/kernel-package").read_text(encoding="utf-8")


def test_dpkg(host):
    host.write("/var/p/DEBIAN/control", CONTROL)
    host.write(f"/var/p/boot/vmlinuz-{RELEASE}", "")
    host.sh("chmod -R go-w /var/p; dpkg-deb --build /var/p && dpkg --install /var/p.deb")
    assert answer(host) == f"dpkg linux-image-unsigned-{RELEASE}"


def test_rpm(host):
    host.write("/var/p.spec", SPEC)
    host.write(f"/var/root/lib/modules/{RELEASE}/vmlinuz", "")
    host.sh("rpmbuild --quiet -bb --define '_topdir /var/top' --buildroot /var/root /var/p.spec; rpm -i --nodeps /var/top/RPMS/noarch/*.rpm")
    assert answer(host) == "rpm kernel-64k-core 5.14.0-570.el9"
