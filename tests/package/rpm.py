#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The RPMs' scripts and files through a whole life, in what order they do what.

Inside the toolbox, after `make rpm`, with the real rpm and a database of its own. dkms, dracut and udevadm only note how they
are called, and what DKMS keeps is kept as it does; the real ones are called by the tests of the whole system.
"""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

import scratch

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
	[ -e $dir/source/dkms.conf ] || { echo "$version was not added" >&2; exit 3; } ;;
esac
"""

NOTES_CALL = """#!/bin/sh
echo "${0##*/} $*" >> /var/calls
"""


class Life(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """Another version of the packages, of the same sources."""
        build = scratch.PROJECT / "build"
        copy = pathlib.Path(tempfile.mkdtemp(prefix="rpm-test-", dir=build))
        cls.addClassCleanup(shutil.rmtree, copy)
        subprocess.run("tar -c --exclude=./build --exclude=./.git --exclude=__pycache__ . | tar -x -C " + str(copy), shell=True,
                       cwd=scratch.PROJECT, check=True)
        for place in ("dkms.conf", "debian/changelog", f"rpm/{NAME}.spec"):
            file = copy / place
            text = file.read_text()
            if VERSION not in text:
                raise AssertionError(f"{place} has no {VERSION}")
            file.write_text(text.replace(VERSION, NEXT))
        result = subprocess.run(["scripts/package", "rpm"], cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                check=False)
        if result.returncode:
            raise AssertionError(result.stdout)
        cls.next = copy / "build" / "packages" / f"{PACKAGE}-{NEXT}-1.noarch.rpm"

    def setUp(self):
        self.host = scratch.Scratch()
        self.addCleanup(self.host.close)
        shutil.copy(scratch.package(f"{PACKAGE}-*.noarch.rpm"), self.host.shared / "this.rpm")
        shutil.copy(self.next, self.host.shared / "next.rpm")
        shutil.copy(scratch.package("nvgrace-gpu-*.x86_64.rpm"), self.host.shared / "cli.rpm")
        self.host.write("/usr/sbin/dkms", DKMS, 0o755)
        self.host.write("/usr/bin/dracut", NOTES_CALL, 0o755)
        self.host.write("/usr/bin/udevadm", NOTES_CALL, 0o755)
        self.host.sh("rm -rf /usr/lib/modules/*; mkdir -p /var/lib/rpm")
        for kernel in KERNELS:
            self.host.write(f"/usr/lib/modules/{kernel}/build/Makefile", "")
        self.host.write("/usr/lib/modules/6.1-without-headers/modules.dep", "")
        self.before = self.host.files()

    def rpm(self, *args, ok=True):
        """The calls that the packages' scripts made meanwhile."""
        calls = self.host.dir / "upper" / "var" / "calls"
        calls.unlink(missing_ok=True)
        # This database knows no RPM that provides what they need.
        result = self.host.run("rpm", "--nodeps", *args)
        self.assertNotIn("warning: %post", result.stdout)
        self.assertNotIn("scriptlet failed", result.stdout)
        self.said = result.stdout
        return calls.read_text().splitlines() if calls.exists() else []

    def added(self, version):
        return [f"dkms add -m {NAME} -v {version}", *(f"dkms install -m {NAME} -v {version} -k {k}" for k in KERNELS)]

    @staticmethod
    def removed(version):
        return [f"dkms remove -m {NAME} -v {version} --all"]

    def assert_there(self, version):
        self.assertEqual(self.host.sh(f"ls /var/lib/dkms/{NAME}; ls -d /usr/src/{NAME}-*; rpm -q {PACKAGE}").stdout.split(),
                         [version, f"/usr/src/{NAME}-{version}", f"{PACKAGE}-{version}-1.noarch"])
        self.assertEqual(self.host.sh(f"rpm --verify --nodeps {PACKAGE} | grep -v ' c /etc/nvgrace-gpu.conf' || :").stdout, "")

    def test_install_upgrade_downgrade_reinstall_remove(self):
        self.assertEqual(self.rpm("--install", "/mnt/this.rpm"), self.added(VERSION))
        self.assert_there(VERSION)
        self.assertEqual(self.rpm("--upgrade", "/mnt/next.rpm"), self.removed(VERSION) + self.added(NEXT))
        self.assert_there(NEXT)
        self.assertEqual(self.rpm("--upgrade", "--oldpackage", "/mnt/this.rpm"), self.removed(NEXT) + self.added(VERSION))
        self.assert_there(VERSION)
        self.assertEqual(self.rpm("--reinstall", "/mnt/this.rpm"), self.removed(VERSION) + self.added(VERSION))
        self.assert_there(VERSION)
        self.assertEqual(self.rpm("--erase", PACKAGE), self.removed(VERSION))
        self.assertEqual(self.left(), set())

    def left(self):
        return {path for path in self.host.files() - self.before if not path.startswith(("/var/lib/rpm/", "/var/calls"))}

    def test_the_administrators_files_are_kept(self):
        self.rpm("--install", "/mnt/this.rpm")
        self.host.write("/etc/nvgrace-gpu.conf", "# mine\n")
        self.host.write("/etc/nvgrace-gpu.conf.d/0009:01:00.0.conf", "ignore 0009:01:00.0\n")
        self.rpm("--upgrade", "/mnt/next.rpm")
        self.assertEqual(self.host.sh("cat /etc/nvgrace-gpu.conf").stdout, "# mine\n")
        self.rpm("--erase", PACKAGE)
        self.assertEqual(self.left(), {"/etc/nvgrace-gpu.conf.rpmsave", "/etc/nvgrace-gpu.conf.d/0009:01:00.0.conf"})

    def test_the_initramfs_is_renewed_where_the_configuration_binds(self):
        dracut = ["dracut --force --regenerate-all"]
        self.rpm("--install", "/mnt/this.rpm")
        self.host.write("/etc/nvgrace-gpu.conf", "bind all\n")
        self.assertEqual(self.rpm("--upgrade", "/mnt/next.rpm"), self.removed(VERSION) + self.added(NEXT) + dracut)
        self.assertEqual(self.rpm("--erase", PACKAGE), self.removed(NEXT) + dracut)

    def test_what_dkms_can_not_do_does_not_fail_the_installation(self):
        self.host.write("/var/fail-install", "")
        self.assertEqual(self.rpm("--install", "/mnt/this.rpm"), self.added(VERSION))
        self.host.write("/var/fail-remove", "")
        self.rpm("--upgrade", "/mnt/next.rpm")
        self.rpm("--erase", PACKAGE)
        self.assertEqual(self.host.run("rpm", "-q", PACKAGE, ok=False).returncode, 1)

    def test_a_version_of_other_origin_gives_way(self):
        self.host.write(f"/usr/src/{NAME}-0.0.9/dkms.conf", "")
        self.host.run("dkms", "add", "-m", NAME, "-v", "0.0.9")
        self.assertEqual(self.rpm("--install", "/mnt/this.rpm"), self.removed("0.0.9") + self.added(VERSION))

    def test_the_tool_needs_no_scripts(self):
        self.assertEqual(self.rpm("--install", "/mnt/cli.rpm"), [])
        self.assertEqual(self.host.run("nvgrace-gpu", "--version", ok=False).returncode, 0)
        self.assertEqual(self.rpm("--erase", "nvgrace-gpu"), [])
        self.assertEqual(self.left(), set())

    def test_contents(self):
        files = {name: self.host.run("rpm", "-qpl", "--noartifact", f"/mnt/{name}.rpm").stdout.split() for name in ("this", "cli")}
        for path in ("/etc/nvgrace-gpu.conf", "/etc/nvgrace-gpu.conf.d", "/usr/lib/udev/nvgrace-gpu",
                     "/usr/lib/udev/rules.d/60-nvgrace-gpu.rules", "/usr/lib/dracut/modules.d/90nvgrace-gpu/module-setup.sh",
                     f"/usr/src/{NAME}-{VERSION}/dkms.conf", f"/usr/src/{NAME}-{VERSION}/Kbuild"):
            self.assertIn(path, files["this"])
        self.assertEqual([path for path in files["this"] if "initramfs-tools" in path], [])
        for path in ("/usr/sbin/nvgrace-gpu", "/usr/share/bash-completion/completions/nvgrace-gpu"):
            self.assertIn(path, files["cli"])


if __name__ == "__main__":
    unittest.main()
