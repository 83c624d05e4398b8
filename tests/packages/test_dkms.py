# SPDX-License-Identifier: GPL-2.0-only
"""Tests of dkms.conf and of the .deb's maintainer scripts with the real DKMS
2.8, 3.0 and 3.2, which hosts have.

tests/lab/system/trees has them. Each test has a temporary system with the
toolbox's arm64 kernel headers. Only uname(1) is replaced, to report a Grace host,
and make cross-compiles. `make check-all` uses 3.2, and `make check-long` all three.
"""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from lab.system import scratch
from lab.system.scratch import release
from packages.common import LIFE, named, run

pytestmark = [pytest.mark.long, pytest.mark.needs("trees")]

NAME = "nvgrace-gpu-vfio-pci"
VERSION = scratch.version()
NEXT = "999.1"
# A configuration file that version 0.1.0 shipped.
SHIPPED = scratch.PROJECT / "tests" / "packages" / "nvgrace-gpu.conf-0.1.0"
CONF = "/etc/nvgrace-gpu.conf"

UNAME = """#!/bin/sh
case $1 in
-r) cat /etc/test-kernel ;;
-m) cat /etc/test-machine ;;
*) exec /usr/bin/uname.real "$@" ;;
esac
"""

# Records its arguments and the module that it would put into that initramfs.
UPDATE_INITRAMFS = f"""#!/bin/sh
for kernel; do :; done
echo "$* $(modinfo -k "$kernel" -n {NAME} 2>&1)" >> /var/initramfs-calls
[ ! -e /var/fail-initramfs ] && touch "/boot/initrd.img-$kernel"
"""


class Host(scratch.Scratch):
    """A Grace host with Debian, a version of DKMS, and the running kernel's
    headers."""

    def __init__(self, suite, kernel, machine="aarch64"):
        super().__init__(cached=True)
        # For the package's make, which cross-compiles.
        self.env |= {"ARCH": "arm64", "CROSS_COMPILE": "aarch64-linux-gnu-"}
        shutil.copy(scratch.deb(suite, "dkms"), self.shared / "dkms.deb")
        shutil.copy(scratch.package("*-dkms_*.deb"), self.shared / "our.deb")
        shutil.copy(scratch.package("nvgrace-gpu_*_amd64.deb"), self.shared / "tool.deb")
        self.write("/etc/test-kernel", kernel + "\n")
        self.write("/etc/test-machine", machine + "\n")
        if suite == "bullseye":
            # 2.8 is Ubuntu 22.04's, and reads the distribution from this file.
            self.write("/etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\n")
        # 2.8 sets PATH, so the program itself must be replaced.
        self.sh("mv /usr/bin/uname /usr/bin/uname.real")
        self.write("/usr/bin/uname", UNAME, 0o755)
        # Without the toolbox's kernels, which would slow down each depmod.
        vfio = pathlib.Path("/usr/lib/modules", release("stable"), "kernel/drivers/vfio")
        shutil.copytree(vfio, self.shared / "vfio", ignore=shutil.ignore_patterns("nvgrace*"))
        self.empty("/usr/lib/modules")
        self.add_kernel(kernel)
        # dh-dkms is only for building packages, and has a file of DKMS 2.8.
        self.sh("dpkg --purge --force-depends dh-dkms; dpkg --install --force-depends /mnt/dkms.deb /mnt/tool.deb")

    def add_kernel(self, name, like=None, change=""):
        """Add a kernel with the toolbox's headers, or with a copy of those of
        "like". The command "change" edits the copy's configuration, in
        $config."""
        if not like:
            headers = os.path.realpath(f"/usr/lib/modules/{name}/build")
        else:
            headers = f"/usr/src/linux-headers-{name}"
            self.sh(f"""
                cp -a "$(readlink -f '/usr/lib/modules/{like}/build')" {headers}
                cd {headers}
                sed -i 's/UTS_RELEASE .*/UTS_RELEASE "{name}"/' include/generated/utsrelease.h
                for config in .config include/config/auto.conf; do {change or ":"}; done""")
        # DKMS calls depmod only for kernels whose list of modules is not empty.
        self.sh(f"""
            mkdir -p '/usr/lib/modules/{name}/kernel'
            cd '/usr/lib/modules/{name}'
            ln -s '{headers}' build
            cp -r /mnt/vfio kernel
            touch modules.order modules.builtin
            depmod '{name}'""")

    def kernel_scripts(self, name):
        """Run the hooks of a kernel's packages; their output."""
        return self.sh(f"for s in /etc/kernel/postinst.d/dkms /etc/kernel/header_postinst.d/dkms; do $s {name}; done").stdout

    def dpkg(self, *args):
        return self.run("dpkg", "--force-depends", *args).stdout

    def modules(self):
        """{kernel: path of the module below its directory}"""
        found = self.sh(f"find -L /usr/lib/modules -name build -prune -o -name '{NAME}.ko*' -print").stdout.split()
        result = {}
        for path in found:
            kernel, below = path.removeprefix("/usr/lib/modules/").split("/", 1)
            if kernel in result:
                raise AssertionError(f"{kernel} has it twice: {path} and {result[kernel]}")
            result[kernel] = below
        return result

    def status(self):
        """The lines of "dkms status" in the form of 3.x, without
        parentheses."""
        text = self.run("dkms", "status", NAME).stdout
        return sorted(re.sub(r" \(.*", "", line.replace(f"{NAME}, ", f"{NAME}/"))
                      for line in text.splitlines() if line.startswith(NAME))

    def initramfs_calls(self):
        """{kernel: module} of the new calls of update-initramfs."""
        calls = self.dir / "upper" / "var" / "initramfs-calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        found = [re.fullmatch(r"-u -k (\S+) (.*)", line).groups() for line in lines]
        if len(dict(found)) != len(found):
            raise AssertionError(f"one was updated twice: {found}")
        return dict(found)

    def repack(self, name, version, change=""):
        """Make another version of the package, changed by a command."""
        self.sh(f"""
            dpkg-deb --raw-extract /mnt/our.deb /tmp/d
            cd /tmp/d
            mv usr/src/{NAME}-{VERSION} usr/src/{NAME}-{version}
            {change}
            sed -i 's/{VERSION.replace('.', '[.]')}/{version}/g' DEBIAN/control DEBIAN/p* DEBIAN/md5sums usr/src/*/dkms.conf
            dpkg-deb --build --root-owner-group /tmp/d /mnt/{name}.deb""")


@pytest.mark.usefixtures("built_packages")
class Cases:
    """Tests for each version of DKMS."""

    __test__ = False
    suite = ""
    skipped = 77
    # Whether, on Debian, it moves a kernel's own module of this name away.
    moves_original = False

    @pytest.fixture(autouse=True)
    def new(self, scratch_system):
        self.scratch_system = scratch_system

    def host(self, *args, **kwargs):
        return self.scratch_system(self.suite, *args, kind=Host, **kwargs)

    def assert_installed(self, host, version, *kernels):
        assert host.status() == sorted(f"{NAME}/{version}, {k}, aarch64: installed" for k in kernels)
        modules = host.modules()
        assert set(modules) == set(kernels)
        for kernel, path in modules.items():
            assert re.search(rf"^updates/dkms/{NAME}\.ko(\.xz|\.zst|\.gz)?$", path)
            # modprobe would load this one, by depmod's list.
            found = host.run("modinfo", "-k", kernel, "-F", "filename", NAME).stdout.strip()
            assert "/updates/dkms/" in found
            assert "aarch64" in host.run("modinfo", "-k", kernel, "-F", "vermagic", NAME).stdout

    def test_install_new_kernel_upgrade_downgrade_reinstall_remove_purge(self):
        first, second = release("stable"), release("oldstable")
        host = self.host(first)
        host.repack("next", NEXT)
        before = host.files()

        for way, which in LIFE:
            with named(way):
                version = {"our": VERSION, "next": NEXT}[which]
                said = host.dpkg("--install", f"/mnt/{which}.deb")
                assert "would bind no GPU" not in said
                self.assert_installed(host, version, first)
                assert host.sh(f"ls -d /usr/src/{NAME}-*").stdout.split() == [f"/usr/src/{NAME}-{version}"]

        # A distribution's own copy that is installed later must not be used.
        host.sh(f"""
            own=/usr/lib/modules/{first}/kernel/drivers/vfio/pci/nvgrace-gpu
            mkdir -p $own
            cp /usr/lib/modules/{first}/updates/dkms/{NAME}.ko* $own
            depmod {first}""")
        found = host.run("modinfo", "-k", first, "-F", "filename", NAME).stdout.strip()
        assert "/updates/dkms/" in found
        host.sh(f"rm -r /usr/lib/modules/{first}/kernel/drivers/vfio/pci/nvgrace-gpu")

        host.add_kernel(second)
        host.kernel_scripts(second)
        self.assert_installed(host, VERSION, first, second)

        host.dpkg("--remove", f"{NAME}-dkms")
        assert host.modules() == {}
        assert host.sh(f"ls -d /var/lib/dkms/{NAME}* /usr/src/{NAME}* 2>/dev/null || :").stdout == ""
        left = host.files() - before
        assert {path for path in left if "nvgrace" in path and not path.startswith("/var/lib/dpkg/info/")} == set()
        host.dpkg("--purge", f"{NAME}-dkms")
        assert {path for path in host.files() - before if "nvgrace" in path} == set()

    def test_a_shipped_configuration_file_goes_and_a_changed_one_counts(self):
        host = self.host_without_headers()
        shutil.copy(SHIPPED, host.shared / "shipped")
        host.repack("shipped", "0.0.1", f"mkdir etc; cp /mnt/shipped etc/nvgrace-gpu.conf; echo {CONF} >DEBIAN/conffiles; rm DEBIAN/postinst")
        # Version 0.1.0 had no other package.
        host.dpkg("--purge", "nvgrace-gpu")
        for change, status in (("", 1), ("bind all\n", 0)):
            with named(change):
                host.dpkg("--install", "/mnt/shipped.deb")
                host.sh(f"printf '%s' '{change}' >> {CONF}")
                # dpkg must not ask, because without an answer it fails.
                host.dpkg("--install", "/mnt/our.deb", "/mnt/tool.deb")
                assert host.sh(f"ls {CONF} 2>/dev/null || :").stdout == (f"{CONF}\n" if change else "")
                assert host.run("/usr/lib/udev/nvgrace-gpu", "configured", ok=False).returncode == status
                host.dpkg("--install", "/mnt/our.deb")
                assert host.run("/usr/lib/udev/nvgrace-gpu", "configured", ok=False).returncode == status
                host.dpkg("--purge", f"{NAME}-dkms", "nvgrace-gpu")
                assert host.sh("ls -d /etc/nvgrace-gpu.* 2>/dev/null || :").stdout == ""

    def test_the_initramfs_is_updated_where_the_configuration_binds(self):
        first, second = release("stable"), release("oldstable")
        host = self.host(first)
        host.write("/usr/sbin/update-initramfs", UPDATE_INITRAMFS, 0o755)
        host.write("/usr/sbin/mkinitramfs", "", 0o755)
        own = f"/usr/lib/modules/{first}/updates/dkms/{NAME}.ko"
        host.write(f"/boot/initrd.img-{first}", "")
        with named("not while nothing is bound"):
            host.dpkg("--install", "/mnt/our.deb")
            assert host.initramfs_calls() == {}
        host.write("/etc/nvgrace-gpu.conf.d/all.conf", "bind all\n")
        # A kernel without the module, and one without an initramfs.
        host.sh("mkdir /usr/lib/modules/5.10-old /usr/lib/modules/5.11-gone; touch /boot/initrd.img-5.10-old")
        with named("the installation updates all, once"):
            assert "can't update" not in host.dpkg("--install", "/mnt/our.deb")
            calls = host.initramfs_calls()
            assert set(calls) == {first, "5.10-old"}
            assert os.path.realpath(calls[first]).startswith(own), calls
        with named("headers that come after their kernel: the copy in that initramfs is a distribution's"):
            host.add_kernel(second)
            host.sh(f"""
                cd /usr/lib/modules/{second}
                mkdir -p kernel/drivers/vfio/pci/nvgrace-gpu
                # Like the kernel's own module, this copy has no version.
                own=$(find kernel -name 'vfio-pci.ko*')
                cp $own kernel/drivers/vfio/pci/nvgrace-gpu/{NAME}.ko"${{own##*.ko}}"
                depmod {second}""")
            host.write(f"/boot/initrd.img-{second}", "")
            host.run("dkms", "autoinstall", "-k", second)
            calls = host.initramfs_calls()
            assert set(calls) == {second}
            assert "/updates/dkms/" in calls[second]
        def copies():
            """The paths of the distribution's module."""
            return host.sh(f"find /usr/lib/modules/{second}/kernel /var/lib/dkms/{NAME} -path '*/build' -prune -o "
                           f"-path '*/aarch64/module' -prune -o -name '{NAME}.ko*' ! -name '*.origin' -print").stdout

        where = rf"^/usr/lib/modules/{second}/kernel/\S+\n$"
        away = rf"^/var/lib/dkms/{NAME}/original_module/{second}/aarch64/\S+\n$"
        with named("the distribution's copy while DKMS has its own, as the guide says"):
            assert re.search(away if self.moves_original else where, copies())
        host.run("dkms", "uninstall", f"{NAME}/{VERSION}", "-k", second)
        with named("and afterwards"):
            assert re.search(where, copies())
        with named("what fails is said, and fails nothing"):
            host.write("/var/fail-initramfs", "")
            said = host.run("dkms", "install", f"{NAME}/{VERSION}", "-k", second).stdout
            again = f'until you run "/usr/sbin/update-initramfs -u -k {second}" again'
            assert again in said
            said = host.dpkg("--install", "/mnt/our.deb")
            assert again in said
            assert "install ok installed" in host.run("dpkg", "--status", f"{NAME}-dkms").stdout

    def host_without_headers(self):
        """A host where DKMS builds nothing, which is fast."""
        kernel = release("stable")
        host = self.host(kernel)
        host.sh(f"rm /usr/lib/modules/{kernel}/build")
        return host

    def test_one_rule_finds_the_program_that_makes_the_initramfs(self):
        """For the installation, for one kernel, and for the removal, when the
        package's files are gone."""
        host = self.host_without_headers()
        kernel = release("stable")
        host.write(f"/boot/initrd.img-{kernel}", "")
        calls = {"update-initramfs": [f"update-initramfs -u -k {kernel}"], "dracut": [f"dracut --force /boot/initrd.img-{kernel} {kernel}"], "": []}
        for programs, wanted in ((["/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs"], "update-initramfs"),
                                 (["/usr/bin/dracut"], "dracut"),
                                 (["/usr/bin/dracut", "/usr/sbin/mkinitramfs"], "dracut"),
                                 (["/usr/bin/dracut", "/usr/sbin/update-initramfs"], "dracut"),
                                 # Without the program that makes one, there is none.
                                 (["/usr/sbin/update-initramfs"], "")):
            with named(programs):
                host.sh("rm -f /usr/sbin/mkinitramfs /usr/sbin/update-initramfs /usr/bin/dracut")
                for path in programs:
                    host.write(path, '#!/bin/sh\necho "${0##*/} $*" >> /var/calls\n', 0o755)
                host.write("/etc/nvgrace-gpu.conf.d/all.conf", "bind all\n")
                for step in ("dpkg --force-depends --install /mnt/our.deb", f"/usr/src/{NAME}-{VERSION}/scripts/renew-initramfs {kernel}",
                             f"dpkg --remove {NAME}-dkms", "dpkg --remove nvgrace-gpu"):
                    host.sh(f": >/var/calls; {step}")
                    assert host.sh("cat /var/calls").stdout.splitlines() == calls[wanted], step
                host.dpkg("--install", "/mnt/tool.deb")

    def test_a_kernel_without_the_module_is_named(self):
        """When this package comes, and when a kernel does, by dpkg's triggers."""
        host = self.host_without_headers()
        kernel = release("stable")
        host.write(f"/boot/vmlinuz-{kernel}", "")
        words = "Linux {0} has no nvgrace-gpu-vfio-pci, and would bind no GPU: DKMS can't build it, because the headers of Linux {0} are"
        assert "would bind no GPU" not in host.dpkg("--install", "/mnt/our.deb")
        host.write("/etc/nvgrace-gpu.conf.d/all.conf", "bind all\n")
        assert words.format(kernel) in host.dpkg("--install", "/mnt/our.deb")
        host.sh("""
            mkdir -p /tmp/k/DEBIAN /tmp/k/boot /tmp/k/usr/lib/modules/99.1-test
            cd /tmp/k
            touch boot/vmlinuz-99.1-test usr/lib/modules/99.1-test/modules.order usr/lib/modules/99.1-test/modules.builtin
            printf '%s\\n' 'Package: kernel' 'Version: 1' 'Architecture: all' 'Maintainer: x <x@example.org>' 'Description: x' >DEBIAN/control
            printf '#!/bin/sh\\ndepmod 99.1-test\\n' >DEBIAN/postinst
            chmod 755 DEBIAN/postinst
            dpkg-deb --build --root-owner-group /tmp/k /mnt/kernel.deb""")
        assert words.format("99.1-test") in host.dpkg("--install", "/mnt/kernel.deb")

    def test_removal_where_the_helper_fails(self):
        """As where /sys is read-only."""
        host = self.host_without_headers()
        host.dpkg("--install", "/mnt/our.deb")
        host.write("/usr/lib/udev/nvgrace-gpu", "#!/bin/sh\necho no >&2\nexit 1\n", 0o755)
        assert "until the next boot" in host.dpkg("--remove", f"{NAME}-dkms")
        assert host.status() == []

    def test_what_is_left_out_is_no_failure_and_has_a_reason(self):
        known = release("stable")
        host = self.host(known)
        host.dpkg("--install", "/mnt/our.deb")
        base = {known}
        for kernel, change, reason in (
                ("5.10.0-test", "", "needs Linux 6.1 or later"),
                ("6.12.0-plain", "sed -i /CONFIG_VFIO_PCI_CORE=/d $config", "configured without CONFIG_VFIO_PCI_CORE"),
                ("6.12.0-egm", "echo CONFIG_NVGRACE_EGM=m >> $config", "CONFIG_NVGRACE_EGM"),
        ):
            with named(kernel):
                host.add_kernel(kernel, known, change)
                said = host.kernel_scripts(kernel)
                assert f"{NAME} is not built for kernel {kernel}: " in said
                assert reason in said
                result = host.run("dkms", "build", f"{NAME}/{VERSION}", "-k", kernel, ok=False)
                assert result.returncode == self.skipped, result.stdout
                assert reason in result.stdout
                assert set(host.modules()) == base
        # On such a kernel, an upgrade of the package must succeed, too.
        host.write("/etc/test-kernel", "6.12.0-egm\n")
        assert "CONFIG_NVGRACE_EGM" in host.dpkg("--install", "/mnt/our.deb")

        with named("the administrator says otherwise"):
            advice = re.search(r"put (BUILD_\S+) into (/etc/dkms/\S+\.conf)\.", host.kernel_scripts("6.12.0-egm"))
            host.write(advice[2], advice[1] + "\n")
            assert "is not built" not in host.kernel_scripts("6.12.0-egm")
            assert "6.12.0-egm" in host.modules()

    def test_another_machine(self):
        kernel = release("stable")
        host = self.host(kernel, machine="x86_64")
        said = host.dpkg("--install", "/mnt/our.deb")
        assert "this kernel is for x86_64" in said
        assert host.modules() == {}
        assert host.status() == [f"{NAME}/{VERSION}: added"]
        host.dpkg("--purge", f"{NAME}-dkms")

    def test_each_command_on_sources_laid_out_by_hand(self):
        kernel = release("stable")
        host = self.host(kernel)
        host.sh(f"""
            cd {scratch.PROJECT}
            mkdir /usr/src/{NAME}-{VERSION}
            cp -r Kbuild Makefile dkms.conf include scripts src /usr/src/{NAME}-{VERSION}""")
        module = f"{NAME}/{VERSION}"
        host.run("dkms", "add", module)
        assert host.status() == [f"{module}: added"]
        host.run("dkms", "build", module)
        assert host.status() == [f"{module}, {kernel}, aarch64: built"]
        assert host.modules() == {}
        host.run("dkms", "install", module)
        self.assert_installed(host, VERSION, kernel)
        host.run("dkms", "uninstall", module)
        assert host.status() == [f"{module}, {kernel}, aarch64: built"]
        assert host.modules() == {}
        host.run("dkms", "install", module)
        self.assert_installed(host, VERSION, kernel)
        host.run("dkms", "remove", module, "--all")
        assert host.status() == []
        assert host.modules() == {}
        assert host.sh(f"ls -d /var/lib/dkms/{NAME} 2>/dev/null || :").stdout == ""


class Dkms28(Cases):
    __test__ = True
    suite = "bullseye"
    skipped = 9

    def test_match(self):
        """In later versions, "dkms match" can't read the output of "dkms
        status"."""
        first, second = release("stable"), release("oldstable")
        host = self.host(first)
        host.dpkg("--install", "/mnt/our.deb")
        host.add_kernel(second)
        host.run("dkms", "match", "--templatekernel", first, "-k", second)
        self.assert_installed(host, VERSION, first, second)


class Dkms30(Cases):
    __test__ = True
    suite = "bookworm"


class Dkms32(Cases):
    __test__ = True
    suite = "trixie"
    moves_original = True

    @pytest.mark.all
    def test_install_new_kernel_upgrade_downgrade_reinstall_remove_purge(self):
        super().test_install_new_kernel_upgrade_downgrade_reinstall_remove_purge()

    def test_the_packages_own_test(self):
        """debian/tests/installed. test_life.py runs the test of the initramfs."""
        host = self.host(release("stable"), machine="x86_64")
        host.env["AUTOPKGTEST_TMP"] = "/tmp"
        # The toolbox's dpkg leaves manual pages out.
        host.dpkg("--path-include=/usr/share/man/*", "--install", "/mnt/our.deb", "/mnt/tool.deb")
        host.run(scratch.PROJECT / "debian" / "tests" / "installed")


@pytest.mark.all
@pytest.mark.usefixtures("built_packages")
class Tool:
    """The .deb of the tool, on a host where systemd runs."""

    def test_an_upgrade_does_not_stop_its_unit(self, scratch_system):
        host = scratch_system()
        shutil.copy(scratch.package("nvgrace-gpu_*_amd64.deb"), host.shared / "tool.deb")
        notes = '#!/bin/sh\necho "${0##*/} $*" >> /var/calls\n'
        for program in ("/usr/bin/systemctl", "/usr/bin/deb-systemd-invoke", "/usr/bin/deb-systemd-helper"):
            host.write(program, notes, 0o755)
        host.write("/etc/dpkg/dpkg.cfg.d/here", "force-depends\n")
        said = host.sh("""
            mkdir -p /run/systemd/system
            dpkg-deb --raw-extract /mnt/tool.deb /tmp/d
            sed -i 's/^Version: .*/Version: 999.1-1/' /tmp/d/DEBIAN/control
            dpkg-deb --build --root-owner-group /tmp/d /tmp/next.deb
            for step in "--install /mnt/tool.deb" "--install /tmp/next.deb" "--remove nvgrace-gpu"; do
                rm -f /var/calls
                dpkg $step
                echo "calls of $step: $(grep -E 'stop|disable|restart|try-restart' /var/calls | tr '\\n' ';')"
            done""").stdout
        assert [line for line in said.split("\n") if line.startswith("calls of")] == [
            "calls of --install /mnt/tool.deb: ", "calls of --install /tmp/next.deb: ",
            "calls of --remove nvgrace-gpu: deb-systemd-invoke stop nvgrace-gpu-ready.service nvgrace-gpu-metrics.timer;"]

    def test_it_has_the_guides(self, tmp_path):
        """As they are, because people read them with any program."""
        deb = scratch.package("nvgrace-gpu_*_amd64.deb")
        run("dpkg-deb", "--extract", deb, tmp_path)
        guides = (tmp_path / "usr/share/doc/nvgrace-gpu")
        for name in ("administration.md", "fleet.md", "guests.md", "doctor.md", "tracing.md", "libvirt-domain.xml", "libvirt-hook-qemu"):
            path = guides / name if name.endswith(".md") else guides / "examples" / name
            assert path.read_bytes() == (scratch.PROJECT / "docs" / name).read_bytes()


@pytest.mark.all
@pytest.mark.parametrize("options", ["", "-e", "-u", "-eu", "-eu -o pipefail", "-o posix", "-f"], ids=lambda o: o or "none")
def test_reading_dkms_conf_changes_nothing_else_and_fails_nowhere(options):
    """It must work for any program that reads it."""
    before, read = "o=$-", f". {scratch.PROJECT}/dkms.conf"
    # Prints the values, changes of the shell's options, and new names.
    show = ('echo "$PACKAGE_VERSION,$AUTOINSTALL,${MAKE[0]},${BUILT_MODULE_LOCATION[0]},$POST_INSTALL"; '
            '[[ $o = $- ]] || echo "options $o, then $-"; declare -F; compgen -v | grep -i nvgrace || :')
    for way in (f"{before}; {read}; {show}", f"({before}; {read}; {show})", f"x=$({before}; {read}; {show}); echo \"$x\"",
                f"cd {scratch.PROJECT}; {before}; . ./dkms.conf; {show}"):
        done = subprocess.run(["bash", *options.split(), "-c", way + "\ntrue"], cwd="/", capture_output=True, text=True,
                              env={"PATH": os.environ["PATH"]})
        assert (done.returncode, done.stderr) == (0, ""), way
        assert done.stdout == f"{VERSION},yes,make modules KDIR=,build/,scripts/renew-initramfs \n", way


@pytest.mark.all
@pytest.mark.parametrize("options", ["-eu", ""], ids=lambda o: o or "none")
def test_dkms_conf_names_the_reason_for_a_kernel_that_is_left_out(options):
    done = subprocess.run(["bash", *options.split(), "-c", ". ./dkms.conf; echo \"$AUTOINSTALL,$BUILD_EXCLUSIVE_KERNEL\""],
                          cwd=scratch.PROJECT, capture_output=True, text=True, check=True,
                          env={"PATH": os.environ["PATH"], "kernelver": "5.10.0", "arch": "aarch64"})
    assert done.stdout == ",^$\n"
    assert re.search(rf"^{NAME} is not built for kernel 5\.10\.0: it needs Linux 6\.1 or later.*\n$", done.stderr)


def allowed(name):
    """Whether dkms.conf allows a kernel; then the probes decide."""
    matches = 'kernelver= arch=aarch64; . ./dkms.conf; [[ "$1" =~ $BUILD_EXCLUSIVE_KERNEL ]]'
    return not subprocess.run(["bash", "-c", matches, "bash", name], cwd=scratch.PROJECT).returncode


@pytest.mark.all
@pytest.mark.parametrize("name", [
    "6.1.0-50-arm64", "6.12.107+deb13-arm64-16k", "7.2.12+deb13-arm64", "7.0.0-1004-nvidia-64k", "10.0.1", "6.8.0-1018-nvidia-64k",
    "6.12.0-55.9.1.el10_0.aarch64+64k", "6.4.0-150600.23.60-64kb", "5.14.0-503.11.1.el9_5.aarch64",
    "5.14.0-570.12.1.el9_6.aarch64+64k", "5.14.0-611.el9.aarch64", "5.14.0-1001.2.el9.aarch64"])
def test_dkms_conf_allows(name):
    assert allowed(name)


@pytest.mark.all
@pytest.mark.parametrize("name", [
    "5.14.0-427.13.1.el9_4.aarch64", "5.14.0-70.el9.aarch64", "5.14.0", "5.14.21-150500.55.12-64kb", "5.14.0-1054-oem",
    "5.15.0-1061-nvidia", "6.0.0-6-arm64", "5.10.0-30-arm64", "4.18.0-553.el8_10.aarch64"])
def test_dkms_conf_leaves_out(name):
    assert not allowed(name)
