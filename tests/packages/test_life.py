# SPDX-License-Identifier: GPL-2.0-only
"""The packages in whole Debian systems: install, bind, boot, new kernel, upgrade
in use, removal.

Each test has its own machine (lab/system/machine.py) with a fresh copy of the
image, and fails with its first step that fails. The machines' logs are
build/log/life-NAME.log."""

import contextlib
import json
import pathlib
import re
import shlex
import shutil

import pytest

from lab import programs
from lab.system import scratch
from lab.system.machine import PROJECT, System
from lab.system.scratch import version
from packages import common, domain, guide
from packages.common import make_packages, run, step

# A machine and each command in it have limits of their own.
pytestmark = [pytest.mark.usefixtures("built_packages"), pytest.mark.timeout(0)]

NAME = "nvgrace-gpu-vfio-pci"
DRIVER = "nvgrace_gpu_vfio_pci"
DKMS_PACKAGE, CLI_PACKAGE = f"{NAME}-dkms", "nvgrace-gpu"
NEXT = "+test1"
# Only ends what hangs: beside a load of 14, apt with dracut's initramfs took more
# than 2400 s.
SLOW = 7200

# The tests bind the first one, and never the second.
GPUS = [{"name": "wanted", "size": "3G"}, {"name": "other", "size": "3G"}]


# -----------------------------------------------------------------------------
# The machine's disk of packages


def build_next(kind, directory):
    """Makes a repository of the same sources with a later version: apt's if kind is
    "deb", or dnf's if it is "rpm"."""
    directory.mkdir()
    with common.new_folder() as work:
        sources = common.copy_sources(work / "sources")
        common.set_version(sources, version() + NEXT)
        make_packages(kind, sources=sources)
        for f in sources.glob(f"build/packages/*.{kind}"):
            shutil.copy(f, directory)
    run("sh", "-c", {"deb": "apt-ftparchive packages . >Packages", "rpm": "createrepo_c -q ."}[kind], cwd=directory)


def compile_program(name, directory, *options):
    """Compiles NAME.c of this folder for the machine; the program's path."""
    run("aarch64-linux-gnu-gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-I", PROJECT / "cli", "-o", directory / name,
        pathlib.Path(__file__).with_name(f"{name}.c"), *options)
    return directory / name


def packages_disk(work, next_kind="", stand_in=False, guest=False, deb=None):
    """Makes the machine's /srv/packages: the repositories of `make repo`, signed by a
    new key, as the guide says, and what else a test needs."""
    directory = work / "packages"
    run("scripts/packaging/repo", directory, **common.make_key(work / "gnupg"))
    if deb:
        shutil.copy(deb, directory / "module.deb")
    # Static: the C library here is newer than that of Debian 12.
    compile_program("uses_memory", directory, PROJECT / "cli/system/vfio.c", "-static")
    shutil.copytree(PROJECT / "debian" / "tests", directory / "tests")
    if next_kind:
        build_next(next_kind, directory / "next")
    if stand_in:
        common.build_stand_in(directory, [p for arch in ("noarch", "aarch64") for p in directory.glob(f"rpm/*.{arch}.rpm")])
    if guest:
        program = compile_program("bar_words", directory, "-static")
        (directory / "guest.cpio").write_bytes(domain.initramfs(program.read_bytes()))
    return directory


@contextlib.contextmanager
def started(name, next_kind="", stand_in=False, guest=False, deb=None, **more):
    """A booted machine for a test. A step at the end reports its failures."""
    with common.new_folder() as work:
        with step("packages for the machine"):
            machine = System(GPUS, packages=packages_disk(work, next_kind, stand_in, guest, deb),
                             log=programs.log_file(f"life-{name}"), **more)
        with machine as m:
            with step("boot"):
                m.boot()
            yield m
            with step("the kernel's logs have no trouble"):
                m.power_off()
                assert not m.failures, "\n".join(m.failures)


# -----------------------------------------------------------------------------
# The machine's state


def pci(m, name="wanted"):
    return next(g.pci for g in m.gpus if g.name == name)


def driver_of(m, name="wanted"):
    return m.ask(f"d=$(readlink /sys/bus/pci/devices/{pci(m, name)}/driver) && echo ${{d##*/}} || true")


def override_of(m, name="wanted"):
    text = m.ask(f"cat /sys/bus/pci/devices/{pci(m, name)}/driver_override")
    return "" if text == "(null)" else text


def check_built(m, release, wanted=None):
    """Checks that DKMS has the module for a kernel, and that modprobe would
    load it."""
    wanted = wanted or version()
    assert re.search(rf"^{NAME}/{re.escape(wanted)}, {re.escape(release)}, aarch64: installed", m.ask("dkms status"), re.M)
    path = m.ask(f"modinfo -k {release} -n {NAME}")
    assert "/updates/dkms/" in path, f"modprobe would load {path}"
    found = m.ask(f"modinfo -k {release} -F version {NAME}")
    assert found == wanted, f"the module has version {found!r}"
    alias = m.ask(f"modprobe -S {release} -R vfio_pci:v000010DEd00002342sv00000000sd00000000bc03sc02i00").splitlines()
    assert DRIVER in alias, f"modprobe finds {alias} for the device"


def check_nothing_bound(m):
    for g in m.gpus:
        assert driver_of(m, g.name) != DRIVER, f"{g.pci} is bound"
        assert override_of(m, g.name) == "", f"{g.pci} has a driver_override"


def check_nouveau_alias(m):
    """Checks that nouveau would take the GPU if no other driver did."""
    assert "nouveau" in m.ask(f"modprobe -R $(cat /sys/bus/pci/devices/{pci(m)}/modalias)").split()
    assert not m.ask("modprobe -c | grep -E '^(blacklist|install) nouveau' || true"), "a configuration of modprobe disables nouveau"


def check_bound_at_boot(m):
    """Checks that udev bound the GPU before any program could use it, and that
    no other driver had it."""
    address = pci(m)
    assert driver_of(m) == DRIVER, (f"{address} has {driver_of(m) or 'no driver'}:\n" +
           m.run(f"dmesg | grep -E 'nvgrace|nouveau|{address}'", check=False).output)
    log = m.ask("dmesg").splitlines()
    bound = [float(t[1]) for line in log if (t := re.match(rf"\[ *([0-9.]+)\] {DRIVER} {address}: usemem ", line))]
    assert len(bound) == 1, f"it was bound {len(bound)} times"
    others = [line for line in log if re.search(rf"\bnouveau {address}", line)]
    assert not others, "nouveau had it:\n" + "\n".join(others)

    def monotonic(command):
        return int(m.ask(command).partition("=")[2]) / 1e6

    up = monotonic("systemctl show -p ActiveEnterTimestampMonotonic multi-user.target")
    assert bound[0] < up, f"bound at {bound[0]} s, multi-user.target was there at {up} s"
    root = monotonic("systemctl show -p UserspaceTimestampMonotonic")
    assert bound[0] < root, f"bound at {bound[0]} s, the initramfs was left at {root} s"
    assert driver_of(m, "other") != DRIVER, "the other GPU, which is not configured, is bound"
    assert override_of(m, "other") == "", "the other GPU has an override"


def nouveau_tried(m, name):
    return bool(m.ask(f"dmesg | grep -E '\\bnouveau {pci(m, name)}' || true"))


def in_initrd(m, release, word):
    """The files in a kernel's initramfs whose names contain this word."""
    m.run(f"ls=lsinitramfs; command -v $ls || ls=lsinitrd; $ls /boot/initrd.img-{release} >/run/initrd.list",
          timeout=SLOW)
    assert int(m.ask("wc -l </run/initrd.list")) > 100, "the list of the initramfs's files is too short"
    return m.ask(f"grep -F {word} /run/initrd.list || true")


def check_gone(m, release):
    """Checks that nothing of the module, the rule or the override is left."""
    assert NAME not in m.ask("dkms status")
    left = m.ask(f"""
        find /lib/modules -name '{NAME}*' -not -path '*/kernel/*'
        ls -d /var/lib/dkms/{NAME} /usr/src/{NAME}-* /usr/lib/udev/nvgrace-gpu /usr/lib/udev/rules.d/60-nvgrace-gpu.rules \
            /usr/share/initramfs-tools/hooks/nvgrace-gpu /usr/lib/dracut/modules.d/90nvgrace-gpu /usr/sbin/nvgrace-gpu 2>/dev/null || :""")
    assert not left
    for g in m.gpus:
        assert override_of(m, g.name) == "", f"{g.pci} still has a driver_override"
    assert not in_initrd(m, release, "nvgrace")


# -----------------------------------------------------------------------------
# Steps for .deb and .rpm


def bind_and_reboot(m):
    with step("one command binds it, now and at every boot"):
        m.run(f"nvgrace-gpu bind --persist {pci(m)}", timeout=SLOW)
        assert driver_of(m) == DRIVER, f"it is with {driver_of(m) or 'no driver'}"
        assert m.ask("ls /etc/nvgrace-gpu.conf.d") == f"{pci(m)}.conf", "the configuration isn't where it should be"
        assert driver_of(m, "other") != DRIVER, "the other GPU is bound, too"
    with step("reboot"):
        m.reboot()
    with step("bound in the initramfs, before multi-user.target; nouveau, which has its alias, got only the other one"):
        check_nouveau_alias(m)
        check_bound_at_boot(m)
        assert nouveau_tried(m, "other"), "nouveau wasn't loaded: this run shows nothing about it"
    with step("nvgrace-gpu list reports the same"):
        listed = json.loads(m.ask("nvgrace-gpu list --json"))
        devices = {d["address"]: d for d in listed["gpus"]}
        wanted, other = devices[pci(m)], devices[pci(m, "other")]
        assert wanted["driver"] == DRIVER and wanted["persisted"], f"{wanted}"
        assert other["driver"] != DRIVER and not other["persisted"], f"{other}"


def new_kernel(m):
    old = m.release
    with step("a newer kernel through apt: DKMS builds for it by itself"):
        new = scratch.release("newest")
        m.run(f"apt-get install -y linux-image-{new} linux-headers-{new}", timeout=SLOW)
        assert new != old, f"{old} is the newest kernel"
        check_built(m, new)
    with step("boot into it"):
        m.reboot()
        assert m.release == new, f"this is {m.release}, not {new}"
    with step("bound again, before multi-user.target, and nouveau didn't get it"):
        check_nouveau_alias(m)
        check_bound_at_boot(m)


@contextlib.contextmanager
def held(m):
    """A client uses the device during the "with" block, and must still work
    afterwards."""
    def rounds():
        return int(m.ask("cat /run/client.rounds 2>/dev/null || echo 0"))

    m.run(f"systemd-run -q --unit=client -p TimeoutStopSec=600 /srv/packages/uses_memory {pci(m)} /run/client.rounds")
    m.run("timeout 600 bash -c 'until [ -s /run/client.rounds ]; do sleep 0.2; done'")
    before = rounds()
    yield
    assert m.ask("systemctl is-active client || true") == "active", \
        "the client ended:\n" + m.run("journalctl -u client --no-pager", check=False).output
    assert driver_of(m) == DRIVER, "the device was taken from its driver"
    now = rounds()
    assert now > before, f"the client made no progress: {before} rounds, then {now}"
    # It must also make progress afterwards.
    m.run(f"timeout 600 bash -c 'until [ \"$(cat /run/client.rounds)\" -gt {now + 3} ] 2>/dev/null; do sleep 0.2; done'")
    m.run("systemctl stop client")
    # systemd forgets a unit that ended successfully, and shows this result.
    assert m.ask("systemctl show -p Result --value client") == "success", \
        "the client failed:\n" + m.run("journalctl -u client --no-pager", check=False).output


# -----------------------------------------------------------------------------
# The tests


def install_deb(m):
    with step("apt install from the local repository, as docs/administration.md says"):
        m.run(f"ln -s /srv/packages {guide.PLACE}")
        m.run("set -e\n" + guide.install("deb"), timeout=SLOW)
    with step("DKMS has built the module for the running kernel"):
        check_built(m, m.release)
    with step("nothing is bound"):
        check_nothing_bound(m)
        assert not m.ask(f"lsmod | grep {DRIVER} || true"), "the module is loaded"


def upgrade_deb(m, removes_old):
    """Upgrades in use, then reboots. removes_old: whether DKMS must no longer
    have the old version."""
    old, new = version(), version() + NEXT
    with step("an upgrade while a client holds the device: the client goes on"):
        with held(m):
            m.run("echo 'deb [trusted=yes] file:/srv/packages/next ./' >/etc/apt/sources.list.d/next.list")
            m.run(f"apt-get update && apt-get install -y --only-upgrade {DKMS_PACKAGE} {CLI_PACKAGE}", timeout=SLOW)
            # DKMS then builds for the running and the newest kernel, and for
            # others when they boot.
            check_built(m, m.release, new)
            if removes_old:
                assert old + "," not in m.ask("dkms status")
    with step("after a reboot the new version is bound"):
        m.reboot()
        check_bound_at_boot(m)
        assert m.ask(f"cat /sys/module/{DRIVER}/version") == new, "an old module is loaded"


def purge_deb(m):
    m.run(f"apt-get purge -y {DKMS_PACKAGE} {CLI_PACKAGE}", timeout=SLOW)
    left = m.ask("find /etc -name '*nvgrace*' -not -path '/etc/apt/*'")
    assert not left, f"left in /etc: {left}"


def add_repository(m):
    """The guide's commands without the last, which installs."""
    m.run(f"ln -s /srv/packages {guide.PLACE}")
    m.run("set -e\n" + "\n".join(guide.install("deb").splitlines()[:-1]), timeout=SLOW)


def install_built(m):
    """Installs a package with the built module, which started() has had."""
    with step("apt install of the built module, and nothing is bound"):
        add_repository(m)
        m.run(f"apt-get install -y {CLI_PACKAGE} /srv/packages/module.deb", timeout=SLOW)
        assert m.ask(f"modinfo -n {NAME}").endswith(f"/{m.release}/updates/nvgrace-gpu/{NAME}.ko")
        check_nothing_bound(m)


def built_deb():
    """The package with the module for the image's kernel."""
    return next(p for p in common.module_packages("stable", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")[1] if p.suffix == ".deb")


@pytest.mark.all
@pytest.mark.needs("image plain")
def test_bind():
    """The test that is short enough for `make check-all`: an emulated compiler would
    take most of it. test_deb() begins in the same way with DKMS."""
    with started("bind", deb=built_deb(), image="plain") as m:
        install_built(m)
        bind_and_reboot(m)


@pytest.mark.packages
@pytest.mark.needs("image plain")
def test_a_host_without_compiler_binds_and_a_kernel_without_package_does_not():
    with started("modules", deb=built_deb(), image="plain") as m:
        with step("no compiler, no headers, no DKMS"):
            assert m.ask("for p in dkms gcc gcc-14 cc make; do command -v $p || :; done; ls /usr/src") == ""
        install_built(m)
        bind_and_reboot(m)
        with step("a newer kernel, without its package"):
            new = scratch.release("newest")
            m.run(f"apt-get install -y linux-image-{new}", timeout=SLOW)
            m.reboot()
            assert m.release == new
        with step("nothing is bound, and the doctor names the package"):
            assert driver_of(m) != DRIVER
            findings = json.loads(m.run("nvgrace-gpu doctor --json", check=False).output)["findings"]
            module, = (f for f in findings if f["id"] == "module")
            assert module["verdict"] == "bad"
            assert f"{NAME}-modules-{new}" in module["remedy"]


@pytest.mark.packages
@pytest.mark.needs("image base")
def test_autopkgtest():
    """autopkgtest's tests by debian/control. test_dkms.py runs
    debian/tests/installed, which needs manual pages, because this system has
    none."""
    with started("autopkgtest") as m:
        with step("Testsuite: autopkgtest-pkg-dkms, which installs, builds and installs the module"):
            add_repository(m)
            said = m.run("export AUTOPKGTEST_ARTIFACTS=$(mktemp -d)\n"
                         f"/usr/lib/dkms/dkms-autopkgtest {DKMS_PACKAGE}", timeout=SLOW).output
            assert f"I: PASS {NAME}/{version()} {m.release}" in said, said
        with step("debian/tests/initramfs"):
            m.run("AUTOPKGTEST_TMP=$(mktemp -d) sh /srv/packages/tests/initramfs", timeout=SLOW)


@pytest.mark.packages
@pytest.mark.needs("image base")
def test_deb():
    """The .deb from installation to purge."""
    with started("deb", next_kind="deb") as m:
        old = m.release
        install_deb(m)
        bind_and_reboot(m)
        new_kernel(m)
        upgrade_deb(m, removes_old=True)
        with step("remove: no module, no rule, no override; the configuration stays"):
            m.run(f"apt-get remove -y {DKMS_PACKAGE} {CLI_PACKAGE}", timeout=SLOW)
            for release in (old, m.release):
                check_gone(m, release)
            check_nothing_bound(m)
            assert m.ask("ls /etc/nvgrace-gpu.conf.d") == f"{pci(m)}.conf", "the configuration is gone"
        with step("purge: nothing in /etc"):
            purge_deb(m)
        with step("without it, the GPU is nouveau's again after a reboot"):
            m.reboot()
            check_nothing_bound(m)
            assert nouveau_tried(m, "wanted"), "nouveau doesn't try to take it"


@pytest.mark.packages
@pytest.mark.needs("image bookworm")
def test_bookworm():
    """Debian 12, the oldest one that the packages support."""
    with started("bookworm", next_kind="deb", image="bookworm") as m:
        with step("this is Debian 12, with its DKMS and kernel"):
            assert m.ask(". /etc/os-release; echo $VERSION_CODENAME") == "bookworm", "it is not"
            assert m.ask("dkms --version").startswith("dkms-3.0.10"), m.ask("dkms --version")
            assert m.release == scratch.release("oldstable"), m.release
        install_deb(m)
        bind_and_reboot(m)
        with step("a module that DKMS builds later gets into the initramfs: headers first, then dkms autoinstall"):
            assert "/updates/dkms/" in in_initrd(m, m.release, f"{NAME}.ko")
            m.run(f"dkms uninstall {NAME}/{version()} -k {m.release} && update-initramfs -u -k {m.release}", timeout=SLOW)
            assert "/updates/dkms/" not in in_initrd(m, m.release, f"{NAME}.ko")
            m.run("dkms autoinstall", timeout=SLOW)
            check_built(m, m.release)
            assert "/updates/dkms/" in in_initrd(m, m.release, f"{NAME}.ko")
        upgrade_deb(m, removes_old=False)
        with step("purge: no module, no rule, no override, nothing in /etc"):
            purge_deb(m)
            check_gone(m, m.release)
            check_nothing_bound(m)


@pytest.mark.packages
@pytest.mark.needs("image base")
def test_guide():
    """The administrator's guide, block by block."""
    with started("guide") as m:
        install_deb(m)
        for number, (words, commands) in enumerate(guide.blocks(), 1):
            if words[0] != "guide":
                continue
            with step(f"block {number}: {commands.splitlines()[0]}"):
                script = "set -e\n" + commands.replace(guide.ADDRESS, pci(m))
                done = m.run(script, check=words[1:] != ["any-status"], timeout=SLOW)
                assert done.rc < 100, f"a command could not run, or a signal ended it: status {done.rc}\n{done.output}"


def dnf(m, words):
    return m.run(f"dnf -q -y {words}", timeout=SLOW)


@pytest.mark.packages
@pytest.mark.needs("image base")
def test_rpm():
    """The same for the .rpm, with dnf, in a machine whose initramfs dracut
    makes."""
    with started("rpm", next_kind="rpm", stand_in=True) as m:
        both = f"{DKMS_PACKAGE} {CLI_PACKAGE}"
        old, new = version(), version() + NEXT
        with step("a system with dracut"):
            # The old initramfs also has these: the disks are behind the IOMMU.
            m.run("mkdir -p /etc/dracut.conf.d && "
                  "echo 'add_drivers+=\" virtio_iommu virtio_blk ext4 \"' >/etc/dracut.conf.d/test.conf")
            m.run("apt-get update && apt-get install -y dracut", timeout=SLOW)
        with step("dnf install from the local repository, as docs/administration.md says"):
            m.run(f"mkdir -p /etc/yum.repos.d && ln -s /srv/packages {guide.PLACE}")
            dnf(m, "--repofrompath=stand-in,file:///srv/packages/stand-in --repo=stand-in --nogpgcheck "
                   "install stand-in")
            m.run("set -e\n" + guide.install("rpm"), timeout=SLOW)
        with step("DKMS has built the module for the running kernel"):
            check_built(m, m.release)
        with step("nothing is bound"):
            check_nothing_bound(m)
        bind_and_reboot(m)
        with step("an upgrade while a client holds the device: the client goes on"):
            with held(m):
                dnf(m, f"--repofrompath=next,file:///srv/packages/next --nogpgcheck upgrade {both}")
                check_built(m, m.release, new)
                assert old + "," not in m.ask("dkms status")
        with step("downgrade"):
            dnf(m, f"downgrade {both}")
            check_built(m, m.release, old)
            assert new + "," not in m.ask("dkms status")
        with step("reinstall"):
            dnf(m, f"reinstall {both}")
            check_built(m, m.release, old)
        with step("the administrator's configuration remains, and the GPU is bound after a reboot"):
            assert m.ask("ls /etc/nvgrace-gpu.conf.d") == f"{pci(m)}.conf", "the configuration is gone"
            m.reboot()
            check_bound_at_boot(m)
        with step("remove: nothing left"):
            dnf(m, f"remove {both}")
            check_gone(m, m.release)
            check_nothing_bound(m)


def virsh(m, words, **more):
    return m.ask(f"virsh -q {words}", **more)


def define(m, text):
    m.run(f"cat >/run/domain.xml <<'END'\n{text}\nEND\nvirt-xml-validate /run/domain.xml domain", timeout=SLOW)
    virsh(m, "define --validate /run/domain.xml", timeout=SLOW)


def start_guest(m):
    """Starts the guest; the arguments of libvirt's QEMU."""
    virsh(m, f"start {domain.NAME}", timeout=SLOW)
    assert driver_of(m) == DRIVER, f"the GPU is with {driver_of(m) or 'no driver'}"
    assert driver_of(m, "other") != DRIVER and override_of(m, "other") == "", "the other GPU is bound, too"
    return m.ask(f"tr '\\0' '\\n' </proc/$(cat /run/libvirt/qemu/{domain.NAME}.pid)/cmdline").splitlines()


def check_guest(m):
    """Waits for the guest's end, and checks what it saw of the GPU and its
    memory."""
    off = f"until [ \"$(virsh -q domstate {domain.NAME})\" = 'shut off' ]; do sleep 2; done"
    done = m.run(f"timeout {SLOW} bash -c {shlex.quote(off)}; cat {domain.CONSOLE}", timeout=SLOW + 60)
    seen = domain.seen(done.output)
    log = f"virsh domstate --reason {domain.NAME}; cat /var/log/libvirt/qemu/{domain.NAME}.log"
    assert "end" in seen, f"the guest did not reach its end:\n{done.output}\n{m.run(log, check=False).output}"
    assert seen.get("gpu") == ["0x2342"], f"the guest saw {seen}"
    # 3 GiB: 1 GiB of resmem and 2 GiB of usemem, which fill their BARs.
    assert seen.get("bar2") == [str(1 << 30)] and seen.get("bar4") == [str(2 << 30)], f"the BARs are {seen}"
    for bar in (2, 4):
        assert seen.get(f"memory{bar}") == ["good"], f"the guest can't use BAR{bar}: {seen}"
    nodes = f"{domain.NODES[0]}-{domain.NODES[-1]}"
    assert seen.get("possible") == [f"0-{domain.NODES[-1]}"], f"the guest's NUMA nodes are {seen}"
    assert seen.get("initiators") == [nodes], f"the guest's generic initiators are {seen}"


@pytest.mark.packages
@pytest.mark.needs("image libvirt")
def test_libvirt():
    """libvirt assigns the GPU to a guest. It must find the driver by itself,
    and return the GPU afterwards."""
    with started("libvirt", guest=True, image="libvirt", virtualization=True, ram="3G") as m:
        install_deb(m)
        with step("the tables have the GPU's vfio_pci: alias; libvirt runs, with KVM"):
            alias = m.ask(f"sed s/^pci:/vfio_pci:/ /sys/bus/pci/devices/{pci(m)}/modalias")
            assert DRIVER in m.ask(f"modprobe -R '{alias}'").split(), f"modprobe does not find {DRIVER} for {alias}"
            m.run(f"grep '^alias vfio_pci:.* {DRIVER}$' /lib/modules/{m.release}/modules.alias")
            m.run("[ -c /dev/kvm ] && virsh version", timeout=SLOW)
            m.run(f"cp /boot/vmlinuz-{m.release} {domain.FILES}/vmlinuz && cp /srv/packages/guest.cpio {domain.FILES}/")
        with step("libvirt accepts docs/libvirt-domain.xml as it stands, and as this machine needs it"):
            define(m, domain.as_it_stands())
            virsh(m, f"undefine --nvram {domain.NAME}")
            define(m, domain.for_machine(pci(m), "yes"))
        with step("managed='yes': no vfio driver has the GPU; libvirt loads and binds this one"):
            check_nothing_bound(m)
            before = driver_of(m)
            assert not m.ask(f"lsmod | grep {DRIVER} || true"), "the module was loaded before"
            arguments = start_guest(m)
            assert m.ask(f"cat /sys/module/{DRIVER}/version") == version(), "another module of that name is loaded"
        with step("its QEMU has the device, without ROM, and eight generic initiators; AppArmor confines it"):
            objects = [a for a in arguments if a.startswith("acpi-generic-initiator,")]
            wanted = [f"acpi-generic-initiator,id=gi{n},pci-dev={domain.ALIAS},node={n}" for n in domain.NODES]
            assert objects == wanted, f"the objects are {objects}"
            devices = [json.loads(a) for a in arguments if a.startswith("{") and '"vfio-pci"' in a]
            assert (len(devices) == 1 and devices[0]["id"] == domain.ALIAS and devices[0]["host"] == pci(m)
                   and devices[0]["rombar"] == 0), f"the devices are {devices}"
            label = m.ask(f"cat /proc/$(cat /run/libvirt/qemu/{domain.NAME}.pid)/attr/apparmor/current")
            assert label.startswith("libvirt-") and label.endswith("(enforce)"), f"its AppArmor label is {label!r}"
        with step("the guest has both BARs in their sizes, their memory, and the NUMA nodes"):
            check_guest(m)
        with step("after the guest's end, libvirt has unbound the GPU"):
            check_nothing_bound(m)
            assert driver_of(m) == before, f"it was with {before or 'no driver'} and is with {driver_of(m) or 'none'}"
        with step("the same after virsh destroy"):
            start_guest(m)
            virsh(m, f"destroy {domain.NAME}", timeout=SLOW)
            check_nothing_bound(m)
            assert driver_of(m) == before, f"it was with {before or 'no driver'} and is with {driver_of(m) or 'none'}"
        with step("managed='no': libvirt uses a GPU that nvgrace-gpu has bound, and leaves it bound"):
            virsh(m, f"undefine --nvram {domain.NAME}")
            define(m, domain.for_machine(pci(m), "no"))
            m.run(f"nvgrace-gpu bind {pci(m)}", timeout=SLOW)
            start_guest(m)
            check_guest(m)
            assert driver_of(m) == DRIVER, f"the GPU is with {driver_of(m) or 'no driver'}"
            m.run(f"nvgrace-gpu unbind {pci(m)}", timeout=SLOW)
            check_nothing_bound(m)


KEY_REJECTED = "Key was rejected by service"
PASSWORD = "sesame-open"    # needed once, at the next boot


@pytest.mark.packages
@pytest.mark.needs("image base")
def test_secure_boot():
    """Firmware that checks signatures, a kernel that accepts only signed
    modules, and the owner's key."""
    with started("secure-boot", secure_boot=True) as m:
        with step("Secure Boot is on, and the kernel is locked down"):
            assert "SecureBoot enabled" in m.ask("mokutil --sb-state"), "Secure Boot is not enabled"
            assert "[integrity]" in m.ask("cat /sys/kernel/security/lockdown"), "the kernel isn't locked down"
        install_deb(m)
        with step("DKMS has signed the module with the key that it made"):
            signer = m.ask(f"modinfo -F signer {NAME}")
            assert signer and signer in m.ask("openssl x509 -inform der -in /var/lib/dkms/mok.pub -noout -subject"), \
                f"the module's signer is {signer!r}"
        with step("the kernel rejects the key, which is not enrolled; bind and doctor report that"):
            done = m.run(f"modprobe {NAME}", check=False)
            assert done.rc and KEY_REJECTED in done.output, f"modprobe said {done.rc}: {done.output}"
            done = m.run(f"nvgrace-gpu bind {pci(m)}", check=False)
            assert done.rc == 1 and KEY_REJECTED in done.output and "nvgrace-gpu doctor" in done.output, \
                f"bind said {done.rc}: {done.output}"
            check_nothing_bound(m)
            done = m.run("nvgrace-gpu doctor", check=False)
            assert done.rc == 7 and "mokutil --import" in done.output, f"doctor said {done.rc}: {done.output}"
        with step("the owner enrols it: mokutil now, and the shim's menu at the next boot"):
            # A person would type the password; here, it comes from a file.
            m.run(f"mokutil --generate-hash={PASSWORD} >/run/hash && "
                  "mokutil --hash-file /run/hash --import /var/lib/dkms/mok.pub")
            m.restart()
            for text, keys in (("Press any key", "\r"), ("Enroll MOK", DOWN + "\r"), ("View key 0", DOWN + "\r"),
                               ("Enroll the key", DOWN + "\r"), ("assword", PASSWORD + "\r"), ("Reboot", "\r")):
                m.wait_for_text(text, 300)
                m.keys(keys)
            m.wait_for_end(300)
            m.boot()
            assert "is already enrolled" in m.run("mokutil --test-key /var/lib/dkms/mok.pub", check=False).output, \
                "the firmware doesn't have the key"
        with step("now the kernel accepts the module, and the GPU can be bound"):
            m.run(f"nvgrace-gpu bind {pci(m)}")
            assert driver_of(m) == DRIVER, f"it is with {driver_of(m) or 'no driver'}"
            assert "E" not in m.ask(f"cat /sys/module/{DRIVER}/taint"), "the kernel took it as an unsigned module"


DOWN = "\x1b[B"
