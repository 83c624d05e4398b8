# SPDX-License-Identifier: GPL-2.0-only
"""`make module-packages`: packages of the built module, on hosts without a
compiler and without DKMS.

They are installed with the real apt and dnf in systems that do not boot; test_life.py
installs them in a whole system, which binds with them."""

import re
import shutil

import pytest

from lab import packages
from lab.system import scratch
from lab.system.scratch import release
from packages import common
from packages.common import run

# They build in one folder.
pytestmark = pytest.mark.xdist_group("module-packages")

NAME = "nvgrace-gpu-vfio-pci"


@pytest.fixture(name="key", scope="module")
def fixture_key():
    """Options that sign, with paths that the toolbox sees."""
    with common.new_folder() as where:
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=site key/", "-days", "36500",
            "-keyout", where / "key.pem", "-out", where / "cert.pem")
        yield [f"SIGN_KEY={where}/key.pem", f"SIGN_CERT={where}/cert.pem"]


@pytest.fixture(name="made", scope="module")
def fixture_made(key):
    """The .deb and the .rpm for a kernel of this machine, signed."""
    return common.module_packages("stable-amd64", *key)[1]


@pytest.fixture(name="repository", scope="module")
def fixture_repository(made, built_packages):   # pylint: disable=unused-argument
    """A signed repository with these and the packages of these sources, for a host
    that has it at /mnt/repo."""
    with common.new_folder() as work:
        variables = {**common.make_key(work / "gnupg"), "MODULES": common.MODULE_PACKAGES, "URL": "file:/mnt/repo"}
        with common.locked("module-packages"):
            run("scripts/packaging/repo", work / "repo", **variables)
        yield work / "repo"


def add_kernels(host):
    """Two kernels: the packages' one, and a newer one. Of each, only what is
    about vfio."""
    for kernel in (release("stable-amd64"), release("newest-amd64")):
        source, to = f"/usr/lib/modules/{kernel}", host.shared / "modules" / kernel
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(f"{source}/kernel/drivers/vfio", to / "kernel/drivers/vfio", ignore=shutil.ignore_patterns("nvgrace*"))
        for lists in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            shutil.copy(f"{source}/{lists}", to / lists)
    host.sh("mkdir -p /usr/lib/modules && cp -r /mnt/modules/. /usr/lib/modules && for k in /usr/lib/modules/*; do depmod ${k##*/}; done")


def assert_no_lists(host):
    """depmod has not run for a kernel that isn't there."""
    assert host.sh("ls /usr/lib/modules/*/modules.* 2>/dev/null || :").stdout == ""


def module_of(host, kernel):
    """The path of the module that modprobe would load, or ""."""
    return host.sh(f"modinfo -k {kernel} -n {NAME} 2>/dev/null || :").stdout.strip()


def check_installed(host):
    ours, other = release("stable-amd64"), release("newest-amd64")
    path = module_of(host, ours)
    assert path.endswith(f"/{ours}/updates/nvgrace-gpu/{NAME}.ko")
    assert module_of(host, other) == ""
    alias = host.sh(f"modprobe -S {ours} -R vfio_pci:v000010DEd00002342sv00000000sd00000000bc03sc02i00").stdout.split()
    assert "nvgrace_gpu_vfio_pci" in alias
    assert host.sh(f"modinfo -k {ours} -F vermagic {NAME}").stdout.split()[0] == ours
    # DKMS builds for the same kernel, too, on a host that has it.
    host.sh(f"""
        mkdir -p /lib/modules/{ours}/updates/dkms
        cp {path} /lib/modules/{ours}/updates/dkms
        depmod {ours}""")
    assert module_of(host, ours) == path
    host.sh(f"rm -r /lib/modules/{ours}/updates/dkms && depmod {ours}")
    # DKMS and the source are not there, nor a compiler.
    assert host.sh("for p in dkms gcc cc make; do command -v $p || :; done; ls -d /usr/src/nvgrace* 2>/dev/null || :").stdout == ""
    assert host.run("/usr/lib/udev/nvgrace-gpu", "configured", ok=False).returncode == 1


def check_removed(host):
    ours = release("stable-amd64")
    assert module_of(host, ours) == ""
    assert host.sh(f"ls -d /usr/lib/modules/{ours}/updates /usr/lib/depmod.d/*nvgrace* 2>/dev/null || :").stdout == ""


@pytest.mark.needs("trees")
@pytest.mark.parametrize("suite, kernel_first", [pytest.param("bookworm", True, marks=pytest.mark.long), ("trixie", False)])
def test_apt_without_a_compiler(scratch_system, repository, suite, kernel_first):
    host = scratch_system(lower=scratch.tree(suite))
    host.sh("apt-get -q update && apt-get -q -y install kmod")
    if kernel_first:
        add_kernels(host)
    shutil.copytree(repository, host.shared / "repo")
    package = f"{NAME}-modules-{release('stable-amd64')}"
    # apt itself must choose the package with the rule, and not DKMS.
    host.sh(f"""
        cp /mnt/repo/nvgrace-gpu.sources /etc/apt/sources.list.d/our.sources
        apt-get -q -o APT::Update::Error-Mode=any update
        apt-get -q -y -o APT::Install-Recommends=true install {package}""")
    if not kernel_first:
        assert_no_lists(host)
        add_kernels(host)
    check_installed(host)
    for argv in ("list", "--version"):
        host.run("nvgrace-gpu", argv)
    host.sh(f"apt-get -q -y remove {package}")
    check_removed(host)
    # Nothing takes the place of what is purged.
    assert "Inst " not in host.sh("apt-get -q -s -o APT::Install-Recommends=true purge nvgrace-gpu").stdout
    host.sh("apt-get -q -y purge nvgrace-gpu")
    assert host.sh("find /etc /usr/lib /usr/share /usr/src -name '*nvgrace*' ! -path '/usr/share/keyrings/*'").stdout == ""


@pytest.mark.needs("root installers")
def test_dnf_without_a_compiler(scratch_system, repository):
    host = scratch_system(lower=f"{packages.root('installers')}:/")
    host.empty("/usr/lib/modules")
    add_kernels(host)
    host.sh("""
        mkdir -p /var/lib/rpm /etc/yum.repos.d
        rm -rf /usr/bin/gcc /usr/bin/cc /usr/bin/make /usr/sbin/dkms""")
    shutil.copytree(repository, host.shared / "repo")
    package = f"{NAME}-modules-{release('stable-amd64')}"
    host.sh("cp /mnt/repo/nvgrace-gpu.repo /etc/yum.repos.d")
    common.build_stand_in(host.shared, [next(repository.glob(f"rpm/{p}")) for p in
                                        (f"{package}-*.rpm", "nvgrace-gpu-[0-9]*.x86_64.rpm")])
    dnf = "dnf -y --repofrompath=stand-in,file:///mnt/stand-in --setopt=stand-in.gpgcheck=0"
    host.sh(f"{dnf} install {package}")
    check_installed(host)
    host.sh(f"{dnf} remove {package}")
    check_removed(host)
    # As in an image whose kernel comes later.
    host.sh("rm -r /usr/lib/modules/*")
    host.sh(f"{dnf} install {package}")
    assert_no_lists(host)
    add_kernels(host)
    check_installed(host)


def test_the_kernels_own_program_has_signed_it(scratch_system, made):
    deb = next(p for p in made if p.suffix == ".deb")
    host = scratch_system()
    shutil.copy(deb, host.shared / "module.deb")
    said = host.sh(f"dpkg-deb -x /mnt/module.deb /tmp/d && find /tmp/d -name '{NAME}.ko' -exec modinfo {{}} +").stdout
    assert re.search(r"(?m)^signer: +site key$", said), said
    assert re.search(r"(?m)^sig_hashalgo: +sha256$", said), said


def test_lintian_finds_nothing(made):
    deb = next(p for p in made if p.suffix == ".deb")
    said = run("lintian", "--allow-root", "-EviL", "+pedantic", deb, LC_ALL="C").splitlines()
    assert not [line for line in said if line and not re.match(r"N:( |$)", line)], "\n".join(said)


def test_the_rpm_has_its_list_of_changes(made):
    rpm = next(p for p in made if p.suffix == ".rpm")
    newest = re.search(r"(?m)^%changelog\n\* .* (\S+)$", (common.PROJECT / f"rpm/{NAME}.spec").read_text())[1]
    assert newest in run("rpm", "-qp", "--changelog", rpm)


@pytest.mark.parametrize("words, message", [
    (["SIGN_KEY=/none/key.pem"], 'must both name a file: "/none/key.pem", ""'),
    (["SIGN_CERT=/none/cert.pem"], 'must both name a file: "", "/none/cert.pem"'),
], ids=["a key alone", "a certificate alone"])
def test_no_unsigned_package_if_a_key_is_named(words, message):
    said, made = common.module_packages("stable-amd64", *words, ok=False)
    assert message in said
    assert not made


def test_the_same_bytes_again(made, key):
    before = [p.read_bytes() for p in made]
    again = common.module_packages("stable-amd64", *key)[1]
    assert again == made
    assert [p.read_bytes() for p in again] == before
