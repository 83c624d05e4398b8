# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the package repositories of `make repo`, with a temporary key and
without.

Their files are below build/ and are removed. test_life.py uses the real dnf.
"""

import pathlib
import re
import shutil
import tempfile

import pytest

from lab import archive
from lab.system import scratch
from packages import common, guide
from packages.common import named, run

pytestmark = pytest.mark.usefixtures("built_packages")

# Debian's package lists, as scripts/dev/toolbox has read them.
LISTS = archive.CACHE / "apt/lists"


def make(work, **env):
    """A new repository, which has all packages that there are."""
    # The toolbox must see gpg's folder and the repository.
    repo = work / "repo"
    run("scripts/packaging/repo", repo, **env)
    for folder, kind in (("apt/pool", "deb"), ("rpm", "rpm")):
        assert {p.name for p in (repo / folder).glob("*.*")} == {p.name for p in scratch.PACKAGES.glob(f"*.{kind}")}
    return repo


class Unsigned:
    @pytest.fixture(scope="class", autouse=True)
    def unsigned(self, request, work):
        request.cls.work, request.cls.repo = work, make(work, GPG_KEY="")

    def test_nothing_is_signed(self):
        assert [p.name for p in self.repo.rglob("*") if p.suffix in (".asc", ".gpg") or p.name == "InRelease"] == []

    def test_a_key_that_cannot_sign(self):
        before = sorted(self.repo.rglob("*"))
        home = self.work / "keys"
        locked = common.make_key(home, "locked", passphrase="secret")
        old = common.make_key(home, "old", ("--faked-system-time", "20200101T000000"), expires="1y")
        for env, reason in (({**old, "GPG_KEY": "nobody@example.org"}, "nobody@example.org.*No secret key"),
                            (old, "old@example.org.*Unusable secret key"), (locked, "locked@example.org.*signing failed"),
                            ({**old, "GNUPGHOME": ""}, "needs GNUPGHOME"), ({**old, "GNUPGHOME": str(home / "no")}, "no such folder")):
            with named(reason):
                assert re.search(reason, run("scripts/packaging/repo", self.repo, ok=False, **env))
        assert sorted(self.repo.rglob("*")) == before


class Signed:
    @pytest.fixture(scope="class", autouse=True)
    def signed(self, request, work):
        cls = request.cls
        home = work / "gnupg"
        # Its owner has moved the day on which it expires.
        key = common.make_key(home, "test", ("--faked-system-time", "20200101T000000"), expires="1y")
        fingerprint = re.search(r"(?m)^fpr:+(\w+):", run("gpg", "--homedir", home, "--with-colons", "--list-keys"))[1]
        run("gpg", "--homedir", home, "--batch", "--quick-set-expire", fingerprint, "0")
        cls.work, cls.repo = work, make(work, **key)

    def apt(self, *argv, arch="amd64", more="", source=""):
        """The output of a command after "apt-get update", with only this repository
        and more lines in sources.list. source is a .sources file to use instead."""
        with tempfile.TemporaryDirectory(prefix="apt-") as folder:
            root = pathlib.Path(folder)
            for name in ("lists/partial", "cache/archives/partial", "etc", "empty"):
                (root / name).mkdir(parents=True)
            (root / "status").touch()
            list_ = root / ("sources.list" if not source else "guide.sources")
            list_.write_text(source or f"deb [signed-by={self.repo}/nvgrace-gpu.asc] file:{self.repo}/apt stable main\n{more}")
            (root / "apt.conf").write_text(f'''
            Dir::Etc::Main "/dev/null"; Dir::Etc::Parts "{root}/empty"; Dir::Etc::SourceParts "{root}/empty";
            Dir::Etc::TrustedParts "{root}/empty"; Dir::Etc::Trusted "/dev/null";
            Dir::Etc::SourceList "{list_}"; Dir::State "{root}"; Dir::State::Lists "{root}/lists";
            Dir::State::status "{root}/status"; Dir::Cache "{root}/cache"; APT::Architecture "{arch}"; APT::Architectures "{arch}";
            APT::Sandbox::User "root"; APT::Update::Error-Mode "any"; Acquire::Languages "none";\n''')
            run("apt-get", "update", APT_CONFIG=f"{root}/apt.conf")
            return run(*argv, APT_CONFIG=f"{root}/apt.conf")

    def test_apt_finds_both_packages_for_both_machines(self):
        for arch in ("amd64", "arm64"):
            out = self.apt("apt-cache", "policy", "nvgrace-gpu", "nvgrace-gpu-vfio-pci-dkms", arch=arch)
            version = re.escape(f"{scratch.version()}-1")
            for name in ("nvgrace-gpu", "nvgrace-gpu-vfio-pci-dkms"):
                assert re.search(rf"(?m)^{name}:\n  Installed: \(none\)\n  Candidate: {version}$", out)

    @pytest.mark.parametrize("arch", ["amd64", "arm64"])
    @pytest.mark.parametrize("suite", ["bookworm", "trixie", "sid"])
    def test_debian_has_what_the_packages_need(self, suite, arch):
        """apt resolves the guide's command with the lists of an old, the present and the
        next release. test_lint.py compares with what Ubuntu 22.04 has."""
        line = guide.install("deb").splitlines()[-1].split()
        assert line[:2] == ["apt-get", "install"]
        with tempfile.TemporaryDirectory() as where:
            list_, = LISTS.glob(f"*_dists_{suite}_main_binary-{arch}_Packages")
            shutil.copy(list_, f"{where}/Packages")
            out = self.apt("apt-get", "--simulate", *line[1:], "nvgrace-gpu-tests", arch=arch, more=f"deb [trusted=yes] copy:{where} ./\n")
        installed = re.findall(r"^Inst (\S+)", out, re.M)
        assert {"nvgrace-gpu", "nvgrace-gpu-tests", "nvgrace-gpu-vfio-pci-dkms", "dkms", "libc6"} <= set(installed), out

    def test_the_guides_source(self):
        """apt trusts what the guide writes, by the key that it names."""
        text = guide.install("deb").partition("<<'END'\n")[2].partition("END\n")[0]
        text = text.replace("/etc/apt/keyrings/", f"{self.repo}/").replace(guide.PLACE, str(self.repo))
        assert f"Signed-By: {self.repo}/nvgrace-gpu.asc\n" in text
        out = self.apt("apt-cache", "policy", "nvgrace-gpu", arch="arm64", source=text)
        assert f"Candidate: {scratch.version()}-1\n" in out

    def test_rpms_and_their_list_are_signed(self):
        with tempfile.TemporaryDirectory() as db:
            run("rpmkeys", "--dbpath", db, "--import", self.repo / "nvgrace-gpu.asc")
            run("rpmkeys", "--dbpath", db, "--checksig", "--define", "_pkgverify_level signature", *(self.repo / "rpm").glob("*.rpm"))
        data = self.repo / "rpm/repodata/repomd.xml"
        run("sqv", "--keyring", self.repo / "nvgrace-gpu.asc", f"{data}.asc", data)

    def test_no_secret_is_published(self):
        assert "PUBLIC KEY" in (self.repo / "nvgrace-gpu.asc").read_text()
        for file in self.repo.rglob("*"):
            if file.is_file():
                assert b"PRIVATE KEY" not in file.read_bytes()
