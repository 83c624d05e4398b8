# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the RPMs' files and scriptlets, and of the order of their actions,
from installation to removal.

They use the real rpm with its own database. dkms, dracut, depmod and udevadm are
scripts that record their calls; the one for dkms also keeps DKMS's state.
test_life.py runs the real programs.
"""

import re
import shutil

import pytest

from lab.system import scratch
from packages import common
from packages.common import LIFE, named

pytestmark = pytest.mark.usefixtures("built_packages")

NAME = "nvgrace-gpu-vfio-pci"
PACKAGE = f"{NAME}-dkms"
VERSION, NEXT = scratch.version(), "999.1"
KERNELS = ["5.14.0-611.el9.aarch64", "6.12.0-55.el10_0.aarch64+64k"]

DKMS = """#!/bin/bash
echo "dkms $*" >> /var/calls
[ ! -e /var/fail-$1 ] || exit 10
action=$1
shift
while getopts m:v:k:-: o; do
	case $o in
	m) name=$OPTARG ;;
	v) version=$OPTARG ;;
	esac
done
dir=/var/lib/dkms/$name/$version
case $action in
add)
	[ -e /usr/src/$name-$version/dkms.conf ] || { echo "no source of $version" >&2; exit 2; }
	[ ! -e $dir ] || { echo "$version is there already" >&2; exit 3; }
	mkdir -p $dir
	ln -s /usr/src/$name-$version $dir/source ;;
remove)
	[ -e $dir/source/dkms.conf ] || { echo "$version is broken or not there" >&2; exit 3; }
	rm -r $dir
	rmdir --ignore-fail-on-non-empty /var/lib/dkms/$name ;;
install)
	[ -e $dir/source/dkms.conf ] || { echo "$version was not added" >&2; exit 3; }
	while [ $# -gt 1 ]; do
		[ "$1" != -k ] || $dir/source/scripts/renew-initramfs $2
		shift
	done ;;
esac
"""

NOTES_CALL = """#!/bin/sh
echo "${0##*/} $*" >> /var/calls
[ ! -e /var/fail-${0##*/} ]
"""

# An old version of the package, with the configuration file.
SHIPPED = scratch.PROJECT / "tests" / "packages" / "nvgrace-gpu.conf-0.1.0"
OLD_SPEC = f"""Name: {PACKAGE}
Version: 0.0.1
Release: 1
Summary: Old
License: GPL-2.0-only
BuildArch: noarch
%description
Old.
%install
mkdir -p %{{buildroot}}/etc/nvgrace-gpu.conf.d
cp /mnt/shipped %{{buildroot}}/etc/nvgrace-gpu.conf
%files
%config(noreplace) /etc/nvgrace-gpu.conf
%dir /etc/nvgrace-gpu.conf.d
"""

KERNEL_SPEC = """Name: kernel
Version: 99.1
Release: 1
Summary: A kernel
License: GPL-2.0-only
BuildArch: noarch
%description
A kernel.
%install
mkdir -p %{buildroot}/boot %{buildroot}/lib/modules/99.1-test
touch %{buildroot}/boot/vmlinuz-99.1-test
%post
touch /lib/modules/99.1-test/modules.dep.bin
%files
/boot/vmlinuz-99.1-test
/lib/modules/99.1-test
"""


class Life:
    @pytest.fixture(scope="class", autouse=True)
    def later_version(self, request, work):
        """Builds another version of the packages from the same sources."""
        copy = common.copy_sources(work / "copy")
        common.set_version(copy, NEXT)
        common.make_packages("rpm", sources=copy)
        request.cls.next = copy / "build" / "packages" / f"{PACKAGE}-{NEXT}-1.noarch.rpm"
        request.cls.next_cli = copy / "build" / "packages" / f"nvgrace-gpu-{NEXT}-1.x86_64.rpm"

    @pytest.fixture(autouse=True)
    def host_before(self, scratch_system, later_version):
        self.host = scratch_system()
        shutil.copy(scratch.package(f"{PACKAGE}-*.noarch.rpm"), self.host.shared / "our.rpm")
        shutil.copy(self.next, self.host.shared / "next.rpm")
        shutil.copy(scratch.package("nvgrace-gpu-[0-9]*.x86_64.rpm"), self.host.shared / "cli.rpm")
        shutil.copy(self.next_cli, self.host.shared / "next-cli.rpm")
        self.host.write("/usr/sbin/dkms", DKMS, 0o755)
        self.host.write("/usr/bin/dracut", NOTES_CALL, 0o755)
        self.host.write("/usr/bin/udevadm", NOTES_CALL, 0o755)
        self.host.write("/usr/sbin/depmod", NOTES_CALL, 0o755)
        self.host.empty("/usr/lib/modules")
        self.host.sh("mkdir -p /var/lib/rpm")
        for kernel in KERNELS:
            self.host.write(f"/usr/lib/modules/{kernel}/build/Makefile", "")
            self.host.write(f"/boot/initramfs-{kernel}.img", "")
        self.host.write("/usr/lib/modules/6.1-without-headers/modules.dep", "")
        self.rpm("--install", "/mnt/cli.rpm")
        self.before = self.host.files()

    def rpm(self, *args):
        """Runs rpm; the calls that the packages' scriptlets made."""
        calls = self.host.dir / "upper" / "var" / "calls"
        calls.unlink(missing_ok=True)
        # --nodeps: this database has no packages with their dependencies.
        result = self.host.run("rpm", "--nodeps", *args)
        assert "warning: %" not in result.stdout
        assert "scriptlet failed" not in result.stdout
        self.said = result.stdout
        return calls.read_text().splitlines() if calls.exists() else []

    def added(self, version):
        return [f"dkms add -m {NAME} -v {version}", *(f"dkms install -m {NAME} -v {version} -k {k}" for k in KERNELS)]

    @staticmethod
    def removed(version):
        return [f"dkms remove -m {NAME} -v {version} --all"]

    def assert_there(self, version):
        assert (self.host.sh(f"ls /var/lib/dkms/{NAME}; ls -d /usr/src/{NAME}-*; rpm -q {PACKAGE}").stdout.split() ==
                [version, f"/usr/src/{NAME}-{version}", f"{PACKAGE}-{version}-1.noarch"])
        assert self.host.sh(f"rpm --verify --nodeps {PACKAGE} || :").stdout == ""

    def test_install_upgrade_downgrade_reinstall_remove(self):
        before = []
        for way, which in LIFE:
            with named(way):
                version = {"our": VERSION, "next": NEXT}[which]
                words = ["--upgrade", "--oldpackage"] if way == "downgrade" else [f"--{way}"]
                assert self.rpm(*words, f"/mnt/{which}.rpm") == before + self.added(version)
                self.assert_there(version)
                before = self.removed(version)
        assert self.rpm("--erase", PACKAGE) == before
        assert self.left() == set()

    def left(self):
        return {path for path in self.host.files() - self.before if not path.startswith(("/var/lib/rpm/", "/var/calls"))}

    def test_the_administrators_files_are_kept(self):
        self.rpm("--install", "/mnt/our.rpm")
        mine = {"/etc/nvgrace-gpu.conf": "# mine\n", "/etc/nvgrace-gpu.conf.d/all.conf": "ignore 0009:01:00.0\n"}
        for path, text in mine.items():
            self.host.write(path, text)
        self.rpm("--upgrade", "/mnt/next.rpm", "/mnt/next-cli.rpm")
        self.rpm("--erase", PACKAGE, "nvgrace-gpu")
        assert self.left() == set(mine)
        for path in mine:
            assert f"nvgrace-gpu: {path} is yours, and stays" in self.said
        for path, text in mine.items():
            assert self.host.sh(f"cat {path}").stdout == text

    def test_a_configuration_file_that_was_shipped(self):
        """Unchanged, it is removed. Changed, it stays and is still read."""
        shutil.copy(SHIPPED, self.host.shared / "shipped")
        (self.host.shared / "old.spec").write_text(OLD_SPEC)
        self.host.run("rpmbuild", "-bb", "--define", "_rpmdir /mnt", "--define", "_rpmfilename old.rpm", "/mnt/old.spec")
        for change, wanted in (("", set()), ("bind all\n", {"/etc/nvgrace-gpu.conf"})):
            with named(change):
                self.rpm("--erase", "nvgrace-gpu")
                self.rpm("--install", "/mnt/old.rpm")
                self.host.sh(f"printf '%s' '{change}' >> /etc/nvgrace-gpu.conf")
                self.rpm("--upgrade", "/mnt/our.rpm", "/mnt/cli.rpm")
                assert {p for p in self.left() if p.startswith("/etc/")} == wanted
                assert self.host.run("/usr/lib/udev/nvgrace-gpu", "configured", ok=False).returncode == (0 if change else 1)
                self.rpm("--erase", PACKAGE)
                assert self.left() == wanted
                self.host.sh("rm -f /etc/nvgrace-gpu.conf")

    def test_the_initramfs_is_updated_once_where_the_configuration_binds(self):
        each = [f"dracut --force /boot/initramfs-{k}.img {k}" for k in sorted(KERNELS)]
        assert self.rpm("--install", "/mnt/our.rpm") == self.added(VERSION)
        self.host.write("/etc/nvgrace-gpu.conf.d/all.conf", "bind all\n")
        assert self.rpm("--upgrade", "/mnt/next.rpm", "/mnt/next-cli.rpm") == self.removed(VERSION) + self.added(NEXT) + each
        assert self.rpm("--erase", PACKAGE) == self.removed(NEXT) + each
        # Without the dracut module, and by what was noted before it went.
        assert self.rpm("--erase", "nvgrace-gpu") == each
        assert "/etc/nvgrace-gpu.conf.d/all.conf is yours, and stays" in self.said

    def test_both_are_removed(self):
        each = [f"dracut --force /boot/initramfs-{k}.img {k}" for k in sorted(KERNELS)]
        self.rpm("--install", "/mnt/our.rpm")
        self.host.write("/etc/nvgrace-gpu.conf.d/all.conf", "bind all\n")
        for path in ("/var/lib/prometheus/node-exporter/nvgrace-gpu.prom", "/etc/kubernetes/node-feature-discovery/features.d/nvgrace-gpu"):
            self.host.write(path, "old\n")
        calls = self.rpm("--erase", PACKAGE, "nvgrace-gpu")
        assert calls[:1] == self.removed(VERSION) and calls[-len(each):] == each, calls
        assert self.left() == {"/etc/nvgrace-gpu.conf.d/all.conf"}

    def test_a_failing_dracut_is_reported_and_fails_nothing(self):
        self.host.write("/var/fail-dracut", "")
        self.host.write("/etc/nvgrace-gpu.conf.d/all.conf", "bind all\n")
        self.rpm("--install", "/mnt/our.rpm")
        for kernel in KERNELS:
            assert f'run "/usr/bin/dracut --force /boot/initramfs-{kernel}.img {kernel}" again' in self.said
        self.host.run("rpm", "-q", PACKAGE)
        self.rpm("--erase", PACKAGE, "nvgrace-gpu")
        for kernel in KERNELS:
            assert f'until you run "/usr/bin/dracut --force /boot/initramfs-{kernel}.img {kernel}"' in self.said
        assert self.host.run("rpm", "-q", PACKAGE, ok=False).returncode == 1

    def test_a_later_build_updates_that_kernels_initramfs(self):
        """As DKMS's POST_INSTALL, in a system with dracut."""
        self.rpm("--install", "/mnt/our.rpm")
        kernel = KERNELS[1]
        calls = self.host.dir / "upper" / "var" / "calls"
        for name, images, wanted in (("Red Hat", [f"/boot/initramfs-{kernel}.img"], f"/boot/initramfs-{kernel}.img"),
                                     ("SUSE", [f"/boot/initrd-{kernel}"], f"/boot/initrd-{kernel}"),
                                     ("a folder for each machine", [f"/boot/abc/{kernel}/initrd"], f"/boot/abc/{kernel}/initrd"),
                                     ("a boot partition of its own", [f"/efi/abc/{kernel}/initrd"], f"/efi/abc/{kernel}/initrd"),
                                     ("the kernel's folder", [f"/lib/modules/{kernel}/initrd"], f"/lib/modules/{kernel}/initrd"),
                                     ("a unified image of dracut", [uki := f"/efi/EFI/Linux/linux-{kernel}-abc.efi"], f"--uefi {uki}"),
                                     ("none", [], None)):
            with named(name):
                self.host.sh(f"rm -rf /boot/* /efi /lib/modules/*/initrd; for f in {' '.join(images)}; do install -D /dev/null $f; done")
                root, token, path = (wanted or "").partition("/abc/")
                if token:
                    self.host.write(f"{root}/loader/entries/abc-{kernel}.conf", f"linux /abc/{kernel}/linux\ninitrd {token}{path}\n")
                for conf, expected in (("", []), ("bind all\n", [f"depmod {kernel}", f"dracut --force {wanted} {kernel}"])):
                    self.host.write("/etc/nvgrace-gpu.conf.d/all.conf", conf)
                    calls.unlink(missing_ok=True)
                    self.host.run("sh", "-c", f"cd /usr/src/{NAME}-{VERSION} && exec scripts/renew-initramfs {kernel}")
                    # depmod's lists are made anyway.
                    assert (calls.read_text().splitlines() if calls.exists() else []) == (expected if wanted else expected[:1])

    def test_a_kernel_without_the_module_is_named(self):
        """When this package comes, and when a kernel does, by rpm's file triggers."""
        words = "Linux {0} has no nvgrace-gpu-vfio-pci, and would bind no GPU: "
        kernel = "99.1-test"
        (self.host.shared / "kernel.spec").write_text(KERNEL_SPEC)
        self.host.sh("rpmbuild -bb --define '_rpmdir /mnt' /mnt/kernel.spec")
        self.rpm("--install", "/mnt/noarch/kernel-99.1-1.noarch.rpm")
        assert words.format(kernel) not in self.said
        self.host.write("/etc/nvgrace-gpu.conf.d/all.conf", "bind all\n")
        self.rpm("--install", "/mnt/our.rpm")
        assert words.format(kernel) + f"DKMS can't build it, because the headers of Linux {kernel} are" in self.said
        self.rpm("--erase", PACKAGE)
        assert words.format(kernel) not in self.said
        self.rpm("--reinstall", "/mnt/noarch/kernel-99.1-1.noarch.rpm")
        assert words.format(kernel) in self.said

    def test_what_dkms_can_not_do_does_not_fail_the_installation(self):
        self.host.write("/var/fail-install", "")
        assert self.rpm("--install", "/mnt/our.rpm") == self.added(VERSION)
        self.host.write("/var/fail-remove", "")
        self.rpm("--upgrade", "/mnt/next.rpm")
        self.rpm("--erase", PACKAGE)
        assert self.host.run("rpm", "-q", PACKAGE, ok=False).returncode == 1

    def test_a_version_of_other_origin_gives_way(self):
        self.host.write(f"/usr/src/{NAME}-0.0.9/dkms.conf", "")
        self.host.run("dkms", "add", "-m", NAME, "-v", "0.0.9")
        assert self.rpm("--install", "/mnt/our.rpm") == self.removed("0.0.9") + self.added(VERSION)

    def test_the_tool(self):
        """Its unit is disabled when it is removed, and no upgrade touches it.
        Without systemd, all works, too."""
        unit = "nvgrace-gpu-ready.service nvgrace-gpu-metrics.timer"
        preset, disable, reload = (f"systemctl --no-reload preset {unit}", f"systemctl --no-reload disable --now {unit}",
                                   "systemctl daemon-reload")
        for systemd in (True, False):
            if systemd:
                self.host.write("/usr/bin/systemctl", NOTES_CALL, 0o755)
            else:
                self.host.sh("rm -f /usr/bin/systemctl")
            self.rpm("--erase", "nvgrace-gpu")
            self.before = self.host.files()
            for words, calls in ((["--install", "/mnt/cli.rpm"], [preset]), (["--upgrade", "/mnt/next-cli.rpm"], [reload]),
                                 (["--erase", "nvgrace-gpu"], [disable, reload])):
                assert self.rpm(*words) == (calls if systemd else [])
                if "--erase" not in words:
                    assert self.host.run("nvgrace-gpu", "--version", ok=False).returncode == 0
            assert self.left() == set()
            self.rpm("--install", "/mnt/cli.rpm")

    def test_the_tool_owns_its_folders(self):
        """But those of others, such as systemd's."""
        for folder in ("/usr/share/fish", "/usr/share/fish/vendor_completions.d", "/usr/share/nvgrace-gpu"):
            assert self.host.run("rpm", "-qf", "--qf", "%{NAME}", folder).stdout.endswith("nvgrace-gpu"), folder

    def test_contents(self):
        files = {name: self.host.run("rpm", "-qpl", "--noartifact", f"/mnt/{name}.rpm").stdout.split() for name in ("our", "cli")}
        for path in ("/etc/nvgrace-gpu.conf.d", "/usr/lib/udev/nvgrace-gpu", "/usr/lib/udev/rules.d/60-nvgrace-gpu.rules",
                     "/usr/lib/dracut/modules.d/90nvgrace-gpu/module-setup.sh"):
            assert path in files["cli"]
        for path in (f"/usr/src/{NAME}-{VERSION}/dkms.conf", f"/usr/src/{NAME}-{VERSION}/Kbuild"):
            assert path in files["our"]
        assert [path for path in files["cli"] if "initramfs-tools" in path] == []
        # The package owns it but does not contain it.
        assert "/etc/nvgrace-gpu.conf" in files["cli"]
        assert self.host.sh("rpm2cpio /mnt/cli.rpm | cpio --quiet -t | grep '^./etc/' || :").stdout == "./etc/nvgrace-gpu.conf.d\n"
        requires = self.host.run("rpm", "-qp", "--qf", "[%{REQUIRENAME} %{REQUIREFLAGS:deptype}\n]", "/mnt/our.rpm").stdout
        for scriptlet in ("post", "preun"):
            assert re.search(rf"(?m)^dkms .*\b{scriptlet}\b", requires)
        for path in ("administration.md", "fleet.md", "guests.md", "doctor.md", "tracing.md", "sysfs-driver-nvgrace-gpu", "examples/libvirt-domain.xml", "examples/libvirt-hook-qemu",
                     "examples/prometheus-alerts.yml", "examples/nfd-rule.yaml"):
            assert f"/usr/share/doc/nvgrace-gpu/{path}" in files["cli"]
        for path in ("/usr/sbin/nvgrace-gpu", "/usr/share/bash-completion/completions/nvgrace-gpu"):
            assert path in files["cli"]
