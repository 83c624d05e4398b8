# SPDX-License-Identifier: GPL-2.0-only
"""Tests of making a release: the owner's settings, the files with the version,
and the tarball.

They run in copies of the project below build/, which are removed.
"""

import hashlib
import os
import re
import shutil
import tarfile

import pytest

from lab import toolbox
from lab.system import scratch
from packages.common import copy_sources, make_key, named, new_folder, run

NAME = "nvgrace-gpu-vfio-pci"
# Of a copy of a checkout, without git.
VERSION = re.search(r'^PACKAGE_VERSION="(.*)"$', (scratch.PROJECT / "dkms.conf").read_text(), re.M)[1]
# With characters that are special for a shell, make or awk.
MAINTAINER = "Seán O'Brien & Söhne <sean@example.org>"
SITE = "https://example.org/~a/gpu"
NEXT = "999.10.0"
EPOCH = "1800000000"    # Friday, 15 January 2027


class Copy:
    @pytest.fixture(autouse=True)
    def copied(self):
        with new_folder() as self.dir:
            self.copy = self.make_copy("copy")
            yield

    def make_copy(self, name):
        return copy_sources(self.dir / name)

    def change(self, name, pattern, text):
        file = self.copy / name
        changed, count = re.subn(pattern, lambda _: text, file.read_text(), flags=re.M)
        assert count == 1, f"{name}: {pattern}"
        file.write_text(changed)

    def read(self, name):
        return (self.copy / name).read_text()

    def dist(self, where):
        run("make", "dist", cwd=where)
        return next((where / "build" / "dist").glob("*.tar.xz"))


class Dist(Copy):
    def test_the_same_bytes_wherever_and_whenever(self):
        other = self.make_copy("other")
        for path in [other, *other.rglob("*")]:
            os.utime(path, (1, 1), follow_symlinks=False)
        first, second = self.dist(self.copy), self.dist(other)
        assert first.name == f"{NAME}-{VERSION}.tar.xz"
        assert first.read_bytes() == second.read_bytes()
        run("sha256sum", "--check", f"{first.name}.sha256", cwd=first.parent)

        with named("it has all files, in one folder"):
            with tarfile.open(first) as tar:
                names = {m.name for m in tar.getmembers() if m.isfile()}
                assert {(m.uid, m.gid, m.uname, m.gname) for m in tar.getmembers()} == {(0, 0, "", "")}
                assert len({m.mtime for m in tar.getmembers()}) == 1
            wanted = {f"{NAME}-{VERSION}/{p.relative_to(self.copy)}" for p in self.copy.rglob("*")
                      if p.is_file() and p.relative_to(self.copy).parts[0] != "build"}
            assert names == wanted

        with named("what is unpacked makes the same again"):
            run("tar", "-xf", first, cwd=self.dir)
            assert self.dist(self.dir / f"{NAME}-{VERSION}").read_bytes() == first.read_bytes()

    @pytest.mark.usefixtures("built_packages")
    def test_the_source_packages_contain_it(self):
        version = scratch.version()
        orig = scratch.package(f"{NAME}_{version}.orig.tar.xz")
        run("sh", "-ec", f"rpm2cpio {scratch.package('*.src.rpm')} | cpio --quiet -id", cwd=self.dir)
        assert (self.dir / f"{NAME}-{version}.tar.xz").read_bytes() == orig.read_bytes()
        run("tar", "-xf", orig, cwd=self.dir)
        unpacked = self.dir / f"{NAME}-{version}"
        assert self.dist(unpacked).read_bytes() == orig.read_bytes()
        shutil.rmtree(unpacked / "build")
        # These have the version or the owner's settings.
        changed = {"dkms.conf", "scripts/this-version", "debian/changelog", "debian/control", "debian/watch", f"rpm/{NAME}.spec"}
        for path in unpacked.rglob("*"):
            name = path.relative_to(unpacked)
            if path.is_file() and str(name) not in changed:
                assert path.read_bytes() == (self.copy / name).read_bytes(), f"{name} differs"


# Answers as git does in a checkout, which the toolbox lacks.
GIT = """#!/bin/sh
case "$*" in
*"log -1 --format=%ct %H") echo "1800000000 0123456789abcdef0123456789abcdef01234567" ;;
*"log -1 --format=%ct") echo 1800000000 ;;
*"log -1 --format=%H -G"*) echo "$RELEASE" ;;
*"status --porcelain --untracked-files=no") printf "%s" "$CHANGED" ;;
*) exit 1 ;;
esac
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHECKOUT = "1.2.3+git20270115080000.01234567"


class ThisVersion(Copy):
    @pytest.fixture(autouse=True)
    def checkout(self, copied):
        (self.copy / ".git").mkdir()
        git = self.dir / "bin" / "git"
        git.parent.mkdir()
        git.write_text(GIT)
        git.chmod(0o755)
        self.path = {"PATH": f"{git.parent}:{os.environ['PATH']}"}

    def declare(self, version):
        self.change("dkms.conf", r'^PACKAGE_VERSION=.*', f'PACKAGE_VERSION="{version}"')
        self.change("debian/changelog", r"\A\S+ \(.*?-", f"{NAME} (1.2.3-")
        self.change(f"rpm/{NAME}.spec", r"^Version:.*", "Version: 1.2.3")

    def version(self, **env):
        return run("sh", "scripts/this-version", cwd=self.copy, **{**self.path, **env}).strip()

    def test_a_checkout_has_its_commit(self):
        self.declare("1.2.3+git")
        assert self.version() == CHECKOUT
        assert self.version(CHANGED=" M src/rw.c") == CHECKOUT + ".dirty"
        assert self.version(PATH=os.environ["PATH"]) == "1.2.3+git"
        (self.copy / ".git").rmdir()
        assert self.version() == "1.2.3+git"

    def test_a_release_is_only_the_commit_that_sets_the_number(self):
        self.declare("1.2.3")
        assert self.version(RELEASE=COMMIT) == "1.2.3"
        assert self.version(RELEASE=COMMIT, CHANGED=" M src/rw.c") == CHECKOUT + ".dirty"
        assert self.version(RELEASE=COMMIT[::-1]) == CHECKOUT
        (self.copy / ".git").rmdir()
        assert self.version() == "1.2.3"

    def test_what_git_archive_writes(self):
        for declared, version in (("1.2.3+git", CHECKOUT), ("1.2.3", "1.2.3")):
            self.declare(declared)
            file = self.copy / "scripts" / "this-version"
            text = file.read_text()
            assert "$Format:%ct %H$" in text
            file.write_text(text.replace("$Format:%ct %H$", f"1800000000 {COMMIT}"))
            assert self.version() == version
            file.write_text(text)

    def test_the_order(self):
        """For dpkg and for rpm: a release, its successors, the next release."""
        versions = ["1.2.3", "1.2.3+git", "1.2.3+git20270115080000.f1234567", "1.2.3+git20270115080000.f1234567.dirty",
                    "1.2.3+git20270115080001.01234567", "1.2.4", "1.2.10"]
        for a, b in zip(versions, versions[1:]):
            run("dpkg", "--compare-versions", f"{a}-1", "lt", f"{b}-1", cwd=self.dir)
            said = run("rpm", "--eval", f'%{{lua:print(rpm.vercmp("{a}-1", "{b}-1"))}}', cwd=self.dir)
            assert said == "-1\n", (a, b)

    @pytest.mark.long
    def test_native_builds(self):
        """What README says for a host, but for the check of what is installed:
        the toolbox has it in other packages."""
        self.declare("1.2.3+git")
        run("dpkg-buildpackage", "-b", "--no-sign", "--no-check-builddeps", cwd=self.copy, **self.path,
            DEB_BUILD_OPTIONS="noautodbgsym")
        package = self.dir / f"{NAME}-dkms_{CHECKOUT}-1_all.deb"
        assert f"./usr/src/{NAME}-{CHECKOUT}/dkms.conf" in run("dpkg-deb", "--contents", package, cwd=self.dir)
        run("dpkg-deb", "--extract", package, "extracted", cwd=self.dir)
        source = self.dir / "extracted" / "usr" / "src" / f"{NAME}-{CHECKOUT}"
        assert f'PACKAGE_VERSION="{CHECKOUT}"\n' in (source / "dkms.conf").read_text()
        assert run("sh", "scripts/this-version", cwd=source) == CHECKOUT + "\n"
        run("dpkg-deb", "--extract", next(self.dir.glob("nvgrace-gpu_*.deb")), "extracted", cwd=self.dir)
        assert run("extracted/usr/sbin/nvgrace-gpu", "--version", cwd=self.dir) == f"nvgrace-gpu {CHECKOUT}\n"
        run("debian/rules", "clean", cwd=self.copy, **self.path)

        # A tarball of files that git would call committed.
        (self.copy / ".git").rmdir()
        file = self.copy / "scripts" / "this-version"
        file.write_text(file.read_text().replace("$Format:%ct %H$", f"1800000000 {COMMIT}"))
        tarball = self.dist(self.copy)
        assert tarball.name == f"{NAME}-{CHECKOUT}.tar.xz"
        # The toolbox has no RPM database, and no tool for debugging symbols.
        run("rpmbuild", "-ta", "--nodeps", "--define", f"_topdir {self.dir}/rpm", "--define", "debug_package %{nil}", tarball)
        names = {path.name for path in (self.dir / "rpm" / "RPMS").rglob("*.rpm")}
        assert f"{NAME}-dkms-{CHECKOUT}-1.noarch.rpm" in names
        assert any(name.startswith(f"nvgrace-gpu-{CHECKOUT}-1.") for name in names), names

    def test_dkms_conf_says_whether_this_is_a_release(self):
        """Between releases it ends in +git, for copies without git."""
        first = re.search(r"^## (\S+)", (scratch.PROJECT / "CHANGELOG.md").read_text(), re.M)[1]
        assert VERSION.endswith("+git") == (first == "Unreleased")


class Settings(Copy):
    def test_the_maintainer_goes_everywhere(self):
        self.change("Makefile", r"^MAINTAINER .*", f"MAINTAINER := {MAINTAINER}")
        with tarfile.open(self.dist(self.copy)) as tar:
            def read(name):
                return tar.extractfile(f"{NAME}-{VERSION}/{name}").read().decode()
            assert f"\nMaintainer: {MAINTAINER}\n" in read("debian/control")
            assert read("debian/control").count("Maintainer: ") == 1
            assert re.search(rf"(?s)^{NAME} \({re.escape(VERSION)}-.*?\n -- {re.escape(MAINTAINER)}  \S", read("debian/changelog"))
            assert re.search(rf"%changelog\n\* \w+ \w+ \d+ \d+ {re.escape(MAINTAINER)} - {re.escape(VERSION)}-1\n",
                             read(f"rpm/{NAME}.spec"))
        headers = toolbox.ask("kdir", "newest")
        run("scripts/dev/toolbox", "cached", "make", "modules", f"KDIR={headers}", "ARCH=arm64",
            "CROSS_COMPILE=aarch64-linux-gnu-", cwd=self.copy)
        module = next((self.copy / "build").glob(f"*/{NAME}.ko"))
        assert run("modinfo", "-F", "author", module, cwd=self.copy) == MAINTAINER + "\n"

    def set_site(self, site):
        self.change("Makefile", r"^SITE[ \t]*:=.*", f"SITE := {site}")
        run("scripts/packaging/site", cwd=self.copy)

    def test_readme_names_a_repository_only_if_there_is_one(self):
        self.set_site("")
        files = ("README.md", "debian/watch", "docs/examples/Containerfile", "docs/examples/kmm-Containerfile")
        without = [self.read(name) for name in files]
        for text in without:
            assert "nvgrace-gpu.repo" not in text
            assert not re.search(r"://(?!dl\.fedoraproject\.org)\S*/(releases/ |nvgrace-gpu\.sources)", text)
        self.set_site(SITE)
        for name in files:
            assert SITE in self.read(name), name
        readme = self.read("README.md")
        for kind in ("deb", "rpm"):
            for line in run("scripts/packaging/site", "--commands", kind, SITE, cwd=self.copy).splitlines():
                assert f"\n    {line}\n" in readme
        run("scripts/packaging/site", "--check", cwd=self.copy)
        with named("another site"):
            self.set_site("https://other.example.org")
            assert SITE not in "".join(self.read(name) for name in files)
        with named("it is gone"):
            self.change("Makefile", r"^SITE[ \t]*:=.*", "SITE :=")
            assert "README.md is not what SITE" in run("scripts/packaging/site", "--check", cwd=self.copy, ok=False)
            run("scripts/packaging/site", cwd=self.copy)
            assert [self.read(name) for name in files] == without

    def test_readme_without_its_marks(self):
        self.set_site("")
        self.change("README.md", r"^<!-- The end of what it writes\. -->\n", "")
        before = self.read("README.md")
        self.change("Makefile", r"^SITE[ \t]*:=.*", f"SITE := {SITE}")
        assert "README.md lacks the lines" in run("scripts/packaging/site", cwd=self.copy, ok=False)
        assert self.read("README.md") == before

    def test_readme_begins_with_the_guides_commands(self):
        """Those of a checkout, which need no repository."""
        install = self.read("README.md").partition("\n## Install\n")[2].partition("\n## ")[0]
        block = re.search(r"(?m)(?:^    .*\n)+", install)[0]
        guide = self.read("docs/administration.md").partition("\n### Build on the host\n")[2]
        assert re.search(r"(?m)(?:^    .*\n)+", guide)[0] == block

    def test_a_project_with_its_settings_passes_the_tests_of_style(self):
        self.change("Makefile", r"^MAINTAINER .*", f"MAINTAINER := {MAINTAINER}")
        self.set_site(SITE)
        home = self.dir / "gnupg"
        env = make_key(home)
        (self.copy / "scripts/packaging/nvgrace-gpu.asc").write_text(run("gpg", "--armor", "--export", **env))
        run("gpgconf", "--homedir", home, "--kill", "all")
        run("python3", "-m", "pytest", "-q", "tests/sources/test_style.py::test_style", cwd=self.copy)

    def test_this_tree_fits_its_own_settings(self):
        run("scripts/packaging/site", "--check", cwd=self.copy)

    def test_what_is_malformed_is_refused(self):
        for name, value in (("MAINTAINER", ""), ("MAINTAINER", "Somebody"), ("MAINTAINER", "a@example.org"),
                            ("MAINTAINER", "A <a>"), ("SITE", "example.org/"), ("SITE", "https://example.org/"),
                            ("SITE", "https://example.org/a&b"), ("SITE", "https://example.org/$(id)")):
            with named(f"{name}={value}"):
                kept = self.read("Makefile")
                self.change("Makefile", rf"^{name}[ \t]*:=.*", f"{name} := {value}")
                assert f"{name} in the Makefile is not" in run("make", "dist", cwd=self.copy, ok=False)
                (self.copy / "Makefile").write_text(kept)


class Version(Copy):
    def unreleased(self, text):
        self.change("CHANGELOG.md", r"(?s)^## .*", f"{text}## 0.0.1, 2020-01-01\n\n- Old.\n")

    def test_one_command_for_all_places(self):
        self.unreleased("## Unreleased\n\n### Driver\n\n- First change.\n\n")
        before = self.read("debian/changelog")
        run("make", "version", f"V={NEXT}", cwd=self.copy, SOURCE_DATE_EPOCH=EPOCH)
        assert f'PACKAGE_VERSION="{NEXT}"\n' in self.read("dkms.conf")
        assert f"\n## {NEXT}, 2027-01-15\n\n### Driver\n\n- First change.\n\n## 0.0.1, " in self.read("CHANGELOG.md")
        maintainer = re.search(r"^MAINTAINER := (.*)", self.read("Makefile"), re.M)[1]
        assert self.read("debian/changelog") == (f"{NAME} ({NEXT}-1) unstable; urgency=medium\n\n  * /usr/share/doc/nvgrace-gpu/changelog.gz has what is new.\n\n"
                                                 f" -- {maintainer}  Fri, 15 Jan 2027 08:00:00 +0000\n\n{before}")
        run("dpkg-parsechangelog", "--all", cwd=self.copy)
        spec = self.read(f"rpm/{NAME}.spec")
        assert re.search(rf"(?m)^Version: +{NEXT}$", spec)
        assert f"\n%changelog\n* Fri Jan 15 2027 {maintainer} - {NEXT}-1\n- CHANGELOG.md has what is new.\n\n* " in spec

        with named("the packages' builder agrees, and nothing states the old one"):
            assert self.dist(self.copy).name == f"{NAME}-{NEXT}.tar.xz"
        with named("twice is once too often"):
            assert "not later" in run("make", "version", f"V={NEXT}", cwd=self.copy, ok=False)

    def test_what_is_refused_changes_nothing(self):
        self.unreleased("## Unreleased\n\n- Change.\n\n")

        def state():
            return {p: hashlib.sha256(p.read_bytes()).digest() for p in self.copy.rglob("*") if p.is_file()}
        before = state()
        for version, reason in (("", "is not a version"), ("1.2", "is not a version"), ("v1.2.3", "is not a version"),
                                ("1.2.3-1", "is not a version"), ("01.2.3", "is not a version"), ("0.0.9", "is not later"),
                                (VERSION.removesuffix("+git"), "is not later")):
            with named(version):
                assert reason in run("make", "version", f"V={version}", cwd=self.copy, ok=False)
                assert state() == before

    def test_without_changes_there_is_no_release(self):
        for text in ("", "## Unreleased\n\n"):
            self.unreleased(text)
            assert "CHANGELOG.md" in run("make", "version", f"V={NEXT}", cwd=self.copy, ok=False)
            self.copy = self.make_copy(f"again{len(text)}")
