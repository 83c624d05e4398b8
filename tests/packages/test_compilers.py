# SPDX-License-Identifier: GPL-2.0-only
"""DKMS builds the module for a kernel of another compiler than gcc, and on a file
system without exec. The system is Debian 13's, with its real compilers, headers and
DKMS."""

import shutil

import pytest

from lab.system import scratch

# In the pipeline, unit/test_kernel_compiler.py asks the same of stand-ins.
pytestmark = [pytest.mark.long, pytest.mark.needs("trees")]
NAME = "nvgrace-gpu-vfio-pci"


@pytest.fixture(name="host", scope="module")
def fixture_host(built_packages):   # pylint: disable=unused-argument  # makes the package
    host = scratch.Scratch(lower=scratch.tree("trixie"))
    shutil.copy(scratch.package("*-dkms_*.deb"), host.shared / "our.deb")
    host.sh(f"""
        apt-get -q update
        apt-get -q -y install gcc gcc-12 make linux-headers-amd64 dkms
        dpkg-deb -x /mnt/our.deb /
        # Where the module is tested, kernels are those of x86-64.
        sed -i 's/^BUILD_EXCLUSIVE_ARCH=.*/BUILD_EXCLUSIVE_ARCH="x86_64"/' /usr/src/{NAME}-*/dkms.conf
        cp -a /usr/src/{NAME}-* /var/copy
        dkms add {NAME}/{scratch.version()}
        # A kernel of another vendor, whose headers don't name its compiler.
        of=$(ls /lib/modules | head -n 1) k=6.12-vendor
        cp -a "/usr/src/linux-headers-$of" "/usr/src/linux-headers-$k"
        rm "/usr/src/linux-headers-$k/.kernelvariables"
        sed -i "s/$of/$k/" "/usr/src/linux-headers-$k/include/generated/utsrelease.h"
        mkdir -p "/lib/modules/$k/kernel"
        ln -s "/usr/src/linux-headers-$k" "/lib/modules/$k/build"
        touch "/lib/modules/$k/modules.order" "/lib/modules/$k/modules.builtin"
        depmod "$k"
        # Debian 12's default.
        ln -sf gcc-12 /usr/bin/gcc""")
    yield host
    host.close()


def install(kernel, before=""):
    return f"""
        {before}
        dkms install {NAME}/{scratch.version()} -k {kernel} || {{ cat /var/lib/dkms/{NAME}/*/build/make.log; exit 1; }}
        find -L /lib/modules/{kernel}/updates -name '{NAME}.ko*' | grep .
        head -n 60 /var/lib/dkms/{NAME}/*/{kernel}/*/log/make.log
        dkms uninstall {NAME}/{scratch.version()} -k {kernel} >&2"""


def test_the_kernel_s_compiler_is_used(host):
    said = host.sh(install("6.12-vendor")).stdout
    assert "differs from the one used to build the kernel" not in said, said


def test_without_that_of_dkms(host):
    """DKMS before 3.2 says nothing of compilers."""
    done = host.sh("""
        cd /var/copy
        ! gcc -dumpversion | grep '^14'
        make modules KDIR=/lib/modules/6.12-vendor/build 2>&1
        readelf -p .comment build/6.12-vendor/*.ko""")
    assert ") 14." in done.stdout, done.stdout
    assert "differs from the one used to build the kernel" not in done.stdout


def test_nothing_of_dkms_tree_is_executed(host):
    """As hardening guides mount /var."""
    host.sh(install("6.12-vendor", f"""
        dkms remove {NAME}/{scratch.version()} --all
        mount -t tmpfs -o noexec,mode=755 tmpfs /var/lib/dkms
        dkms add {NAME}/{scratch.version()}"""))


def test_the_caller_s_compiler_wins(host):
    """Though it can't build this kernel's modules."""
    said = host.sh("cd /var/copy; ! make modules KDIR=/lib/modules/6.12-vendor/build CC=gcc-12").stdout
    assert "gcc-12: error: unrecognized command-line option" in said, said


def test_built_modules_alone(host):
    """A host without compiler and source gets a tarball of another's modules, which
    has dkms.conf and none of the scripts beside it."""
    name = f"{NAME}/{scratch.version()}"
    said = host.sh(f"""
        dkms build {name} -k 6.12-vendor >&2
        dkms mktarball {name} -k 6.12-vendor --binaries-only --archive /var/built.tar.gz
        dkms remove {name} --all
        rm -rf /usr/src/{NAME}-* /var/lib/dkms/{NAME}
        # DKMS 3.2 ends with 1 whatever such a tarball contains.
        dkms ldtarball /var/built.tar.gz || :
        find /var/lib/dkms/{NAME} -name '{NAME}.ko*'""").stdout
    assert "No such file" not in said, said
    assert f"/6.12-vendor/x86_64/module/{NAME}.ko" in said.splitlines()[-1], said
