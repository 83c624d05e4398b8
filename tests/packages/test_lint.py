# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the packages without installing them: lintian and rpmlint print
only complaints that are accepted with a reason, older releases have what the
packages need, the same sources give the same bytes, and the versions agree."""

import os
import re

import pytest

from lab.system.scratch import PACKAGES, PROJECT
from packages import common
from packages.common import run

pytestmark = pytest.mark.long
packaged = pytest.mark.usefixtures("built_packages")

# What the RPMs may require, because RHEL 9, the oldest system, provides it: glibc 2.34,
# GLib 2.68, json-c 0.14, kmod 28, rpm 4.16, and in CRB cmocka 1.1.
PROVIDED = r"""libc\.so\.6\((GLIBC_2\.([0-9]|[12][0-9]|3[0-4])(\.[0-9]+)?)?\)\(64bit\)
libcmocka\.so\.0\(\)\(64bit\)
libglib-2\.0\.so\.0\(\)\(64bit\)
libjson-c\.so\.5\((JSONC_0\.14)?\)\(64bit\)
libkmod\.so\.2\((LIBKMOD_(5|6|22))?\)\(64bit\)
rtld\(GNU_HASH\)
rpmlib\((CompressedFileNames|FileDigests|PayloadFilesHavePrefix|PayloadIsZstd|RichDependencies)\) <= [-.0-9]+
/bin/(ba)?sh
(dkms >= 2\.8|gcc|kmod|make|nvgrace-gpu = .*)
config\(nvgrace-gpu\) = .*""".splitlines()
# What the .debs may depend on, because Ubuntu 22.04, the oldest system, has it: glibc
# 2.35, cmocka 1.1.5, GLib 2.72, json-c 0.15, kmod 29, DKMS 2.8.7. Since Debian 13 and
# Ubuntu 24.04, libglib2.0-0t64 provides libglib2.0-0.
DEPENDS = ["libc6 (>= 2.34)", "libcmocka0 (>= 1.0.0)", "libglib2.0-0 (>= 2.68.0)", "libjson-c5 (>= 0.15)", "libkmod2 (>= 5~)",
           "kmod", "dkms (>= 2.8)"]


@packaged
@pytest.mark.all
def test_lintian_finds_nothing():
    # For lintian, a changelog with one entry is Debian's first upload, which
    # would close a request for the package.
    done = run("lintian", "--allow-root", "--suppress-tags", "initial-upload-closes-no-bugs", "-EviL", "+pedantic",
               *PACKAGES.glob("*.changes"), LC_ALL="C")
    said = [line for line in done.splitlines() if line and not re.match(r"N:( |$)", line)]
    assert not said, "\n".join(said)


@packaged
@pytest.mark.all
def test_rpmlint_finds_nothing():
    done = run("rpmlint", "--config", "rpm/rpmlint.toml", *PACKAGES.glob("*.rpm"), *(PROJECT / "rpm").glob("*.spec"), LC_ALL="C")
    assert re.search("; 0 errors|; has taken", done), f"it did not come to its end: {done}"
    assert not re.search(r": [EW]: ", done), done


@pytest.mark.parametrize("path", [*sorted((PROJECT / "debian").rglob("*lintian-overrides")), PROJECT / "rpm/rpmlint.toml"],
                         ids=lambda p: p.name)
def test_every_override_has_its_reason(path):
    """A comment above it, or above the overrides before it."""
    reason, overrides = False, 0
    for number, line in enumerate(map(str.strip, path.read_text().splitlines()), 1):
        if line.startswith("#"):
            reason = True
        elif not line or line in ("Filters = [", "]"):
            reason = False
        else:
            overrides += 1
            assert reason, f"line {number}: {line}"
    assert overrides


def test_shellcheck_finds_nothing_in_what_dkms_conf_reads():
    """It has no shebang, by which test_static.py finds scripts. DKMS and dkms.conf set
    its variables."""
    run("shellcheck", "--severity=warning", "--exclude=SC2154", "scripts/dkms-left-out")


@packaged
def test_rhel_9_has_what_the_rpms_require():
    for package in PACKAGES.glob("*.rpm"):
        if not package.name.endswith(".src.rpm"):
            # On stderr it complains that the toolbox has no RPM database.
            required = run("sh", "-c", 'rpm -qp --requires "$1" 2>/dev/null', "sh", package).splitlines()
            assert required, package.name
            assert not [r for r in required if not any(re.fullmatch(p, r) for p in PROVIDED)], package.name


@packaged
def test_ubuntu_22_04_has_what_the_debs_need():
    for package in PACKAGES.glob("*.deb"):
        needed = run("dpkg-deb", "--field", package, "Depends").strip().split(", ")
        assert not [n for n in needed if n not in DEPENDS and not re.match(r"nvgrace-gpu \((=|>=|<<) ", n)], package.name


@pytest.fixture
def copy(work):
    """A copy of the sources."""
    return common.copy_sources(work / "copy")


@packaged
def test_the_same_sources_give_the_same_bytes(copy):
    """In another folder, with other times, and without the compiler's cache."""
    for path in copy.rglob("*"):
        os.utime(path, (978307200, 978307200), follow_symlinks=False)
    common.make_packages("deb", "rpm", sources=copy, cached=False)
    # buildinfo and changes describe the machine that built them.
    one, other = ({p.name: p.read_bytes() for p in folder.iterdir() if p.name.endswith((".deb", ".dsc", ".tar.xz", ".rpm"))}
                  for folder in (PACKAGES, copy / "build/packages"))
    assert len(one) == 15 and one.keys() == other.keys()
    assert not [name for name in one if one[name] != other[name]]


@pytest.mark.parametrize("place", ["debian/changelog", "rpm/nvgrace-gpu-vfio-pci.spec"])
def test_a_version_that_differs_is_refused(copy, place):
    """dkms.conf has the last release."""
    release = re.search(r'^PACKAGE_VERSION="(.*?)(\+git)?"$', (copy / "dkms.conf").read_text(), re.M)[1]
    (copy / place).write_text((copy / place).read_text().replace(release, "999.9"))
    said = run("scripts/packaging/package", "deb", cwd=copy, ok=False)
    assert re.search(f"{place} .*{re.escape(release)}", said), said
