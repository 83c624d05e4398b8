# SPDX-License-Identifier: GPL-2.0-only
"""scripts/dev/check-headers builds the module in systems as containers have them:
in Debian's with its real packages, and with stand-ins for dnf and zypper that put
headers in their places."""


import pytest

from lab.system import scratch
from lab.system.scratch import release
from packages.common import named

pytestmark = pytest.mark.needs("trees")

# The stand-ins write down their arguments. A package puts headers of Debian's
# where the distribution has them.
DNF = """#!/bin/sh
echo "dnf $*" >>/mnt/said
case $* in
*kernel-64k-devel) mkdir -p /usr/src/kernels && ln -s {headers} /usr/src/kernels/64k ;;
*kernel-none) exit 1 ;;
esac
"""
ZYPPER = """#!/bin/sh
echo "zypper $*" >>/mnt/said
case $* in
*kernel-default-devel) mkdir -p /usr/src/linux-6.12-obj/x86_64 && ln -s {headers} /usr/src/linux-6.12-obj/x86_64/default ;;
esac
"""
COPY = f"""
mkdir /var/module && cd {scratch.PROJECT}
cp -r Kbuild Makefile dkms.conf src include scripts /var/module
"""


class Host:
    @pytest.fixture(autouse=True)
    def new(self, scratch_system):
        self.scratch_system = scratch_system

    def host(self, **kwargs):
        self.system = self.scratch_system(**kwargs)
        self.system.sh(COPY)

    def check(self, *words):
        """The status of check-headers, all that it has printed, and its table
        of kernels."""
        done = self.system.run("/var/module/scripts/dev/check-headers", *words, ok=False)
        lines = self.system.run("cat", "/var/module/build/headers.md").stdout.split("\n\n", maxsplit=1)[0].splitlines()
        kernels = dict(line.strip("| ").split(" | ") for line in lines[2:])
        return done.returncode, done.stdout, kernels


@pytest.mark.long
class Debian(Host):
    def features(self, said):
        """The features that the table of the only kernel says that it has."""
        return {line.split()[1] for line in said.splitlines() if line.startswith("| ") and line.endswith(" yes |")}

    def try_suite(self, suite, has, lacks):
        self.host(lower=scratch.tree(suite))
        with named("no kernel"):
            status, said, kernels = self.check()
            assert (status, kernels) == (1, {})
            assert "no kernel found; name the packages with headers" in said
        with named("plain headers, beside a package that does not exist"):
            status, said, kernels = self.check("linux-headers-amd64", "linux-headers-nvidia-64k")
            assert status == 1, said
            assert "can't install linux-headers-nvidia-64k; has this system such a package?" in said
            assert list(kernels.values()) == ["built"], said
            assert has <= self.features(said)
            assert not lacks & self.features(said)
        with named("plain headers"):
            kernel, = kernels
            folder = f"/lib/modules/{kernel}/build"
            assert self.check(folder)[::2] == (0, {kernel: "built"})
        with named("missing, incomplete and broken headers"):
            self.system.sh(f"""
                mkdir -p /lib/modules/9.1 /usr/src/kernels
                cp -r {folder}/ /usr/src/kernels/incomplete
                rm /usr/src/kernels/incomplete/Module.symvers
                echo '#error broken here' >>$(readlink -f /usr/src/linux-headers-*-common)/include/linux/vfio_pci_core.h""")
            status, said, kernels = self.check()
            assert status == 1
            assert len(kernels) == 3, said
            assert "**failed**: no headers there; install the package" in kernels["/usr/lib/modules/9.1/build"]
            assert "**failed**: the headers lack Module.symvers" in kernels["/usr/src/kernels/incomplete"]
            assert "**failed**: the build failed" in kernels[kernel]
            assert "#error broken here" in said
            assert self.features(said) == set()

    def test_oldstable(self):
        self.try_suite("bookworm", has={"vfio_alloc_device"}, lacks={"vm_flags_set", "huge_fault_order"})

    def test_stable(self):
        self.try_suite("trixie", has={"vm_flags_set", "huge_fault_order"}, lacks={"register_pfn_address_space"})


class StandIns(Host):
    def start(self, name, text):
        """A system whose only package manager is a stand-in."""
        self.host(cached=True)
        self.system.empty("/usr/lib/modules")
        self.system.write(f"/usr/bin/{name}", text.format(headers=f"/usr/src/linux-headers-{release('stable-amd64')}"), 0o755)
        self.system.sh("rm /usr/bin/apt-get")

    def said(self):
        return (self.system.shared / "said").read_text().splitlines()

    def test_dnf(self):
        self.start("dnf", DNF)
        status, said, kernels = self.check("kernel-64k-devel", "kernel-none")
        assert status == 1
        assert "can't install kernel-none" in said
        assert kernels == {release("stable-amd64"): "built"}, said
        install = "dnf -q -y --setopt=install_weak_deps=False install "
        assert self.said() == [install + "gcc make diffutils findutils gawk", install + "kernel-64k-devel",
                               install + "kernel-none"]

    @pytest.mark.long
    def test_zypper(self):
        self.start("zypper", ZYPPER)
        status, said, kernels = self.check("kernel-default-devel")
        assert (status, kernels) == (0, {release("stable-amd64"): "built"}), said
        install = "zypper -q --non-interactive --gpg-auto-import-keys install --no-recommends "
        assert self.said() == [install + "gcc make diffutils findutils gawk", install + "kernel-default-devel"]

    def test_no_package_manager(self):
        self.start("other", DNF)
        status, said, kernels = self.check("kernel-devel")
        assert (status, kernels) == (1, {})
        assert "neither apt-get nor dnf nor zypper" in said

    def test_compiler_fails(self):
        self.start("dnf", "#!/bin/sh\nexit 1\n")
        status, said, _ = self.check("kernel-devel")
        assert status == 1
        assert "can't install a compiler and make" in said
