# SPDX-License-Identifier: GPL-2.0-only
"""`make publish`: two versions in one folder, which a web server on the loopback
interface serves to apt and dnf, with the commands of README.md. Where only their names
count, packages are empty."""

import contextlib
import functools
import hashlib
import html
import http.server
import os
import pathlib
import re
import shutil
import threading
import time

import pytest

from lab import packages
from lab.system import scratch
from packages import common
from packages.common import named, run

pytestmark = [pytest.mark.long, pytest.mark.needs("root installers")]

NAME = "nvgrace-gpu-vfio-pci"
OLD, NEW = "998.1.0", "999.1.0"
PUBLIC = "scripts/packaging/nvgrace-gpu.asc"
MAINTAINER = "Owner <owner@example.org>"
ARCHS = ["amd64", "arm64"]


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):    # pylint: disable=arguments-differ
        pass


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextlib.contextmanager
def served(folder):
    """The URL of a web server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def make_empty(sources, version):
    """Packages with the names of a version's, and its tarball."""
    made = sources / "build/packages"
    made.mkdir(parents=True)
    for name, archs in ((f"{NAME}-dkms", ["all"]), (f"{NAME}-udev", ["all"]), ("nvgrace-gpu", ARCHS), ("nvgrace-gpu-tests", ARCHS)):
        for arch in archs:
            control = sources / "build/empty/DEBIAN/control"
            control.parent.mkdir(parents=True, exist_ok=True)
            control.write_text(f"Package: {name}\nVersion: {version}-1\nArchitecture: {arch}\n"
                               "Maintainer: Owner <owner@example.org>\nDescription: empty\n")
            run("dpkg-deb", "--build", control.parents[1], made)
    spec = sources / "build/empty.spec"
    spec.write_text(f"Name: {NAME}\nVersion: {version}\nRelease: 1\nSummary: empty\nLicense: GPL-2.0-only\n%description\n" +
                    "".join(f"%package {name}\nSummary: empty\n{more}\n%description {name}\n%files {name}\n"
                            for name, more in (("dkms", "BuildArch: noarch"), ("-n nvgrace-gpu", ""), ("-n nvgrace-gpu-tests", ""))))
    for what, arch in (("-ba", "x86_64"), ("-bb", "aarch64")):
        run("rpmbuild", what, "--target", f"{arch}-linux", "--define", f"_topdir {sources}/build/rpm", spec)
    for file in (sources / "build/rpm").rglob("*.rpm"):
        file.rename(made / file.name)
    common.make_packages("dist", sources=sources)


class Release:
    """Two versions, each in its copy of the sources, are published."""

    __test__ = False
    # Of these, the packages are real.
    built = ()

    @pytest.fixture(scope="class")
    def key(self, work):
        home = work / "gnupg"
        yield common.make_key(home)
        run("gpgconf", "--homedir", home, "--kill", "all")

    @pytest.fixture(scope="class")
    def url(self, work):
        with served(work / "site") as there:
            yield there

    @pytest.fixture(scope="class", autouse=True)
    def published(self, request, work, key, url):
        cls = request.cls
        cls.work, cls.site, cls.url, cls.env = work, work / "site", url, {**key, "URL": url}
        cls.secret = run("gpg", "--homedir", key["GNUPGHOME"], "--armor", "--export-secret-keys")
        cls.public = run("gpg", "--homedir", key["GNUPGHOME"], "--armor", "--export")

        # A folder of the site that is none of this project's.
        cls.site.mkdir()
        (cls.site / "CNAME").write_text("gpu.example.org\n")
        cls.sources = {}
        for version in (OLD, NEW):
            copy = cls.sources[version] = common.copy_sources(work / version)
            common.set_version(copy, version)
            cls.settings(copy, MAINTAINER=MAINTAINER, SITE="")
            run("scripts/packaging/site", cwd=copy)
            (copy / PUBLIC).write_text(cls.public)
            changes = copy / "CHANGELOG.md"
            changes.write_text(f"# Changelog\n\n## {version}, 2027-01-15\n\n- A change.\n\n## 0.0.1, 2020-01-01\n\n- Old.\n")
            # Its time is noon, which may not have come yet.
            spec = copy / f"rpm/{NAME}.spec"
            tomorrow = time.strftime("* %a %b %d %Y ", time.gmtime(time.time() + 86400))
            spec.write_text(re.sub(r"(?m)^\* \w+ \w+ \d+ \d+ ", tomorrow, spec.read_text(), count=1))
            if version in cls.built:
                common.make_packages("dist", "deb", "rpm", sources=copy)
            else:
                make_empty(copy, version)
            cls.publish(version)

    @staticmethod
    def settings(sources, **values):
        """The owner's settings."""
        makefile = sources / "Makefile"
        for name, value in values.items():
            makefile.write_text(re.sub(rf"(?m)^{name}[ \t]*:=.*", f"{name} := {value}", makefile.read_text()))

    @classmethod
    def publish(cls, version, ok=True, site=None, **env):
        return run("make", "publish", f"DESTDIR={site or cls.site}", cwd=cls.sources[version], ok=ok, **{**cls.env, **env})


class Publish(Release):
    __test__ = True

    @pytest.fixture(scope="class", autouse=True)
    def git(self, request, work):
        """The toolbox has none."""
        root = packages.root("installers")
        git = work / "bin" / "git"
        git.parent.mkdir()
        git.symlink_to(root / "usr/bin/git")
        request.cls.git_env = {"PATH": f"{git.parent}:{os.environ['PATH']}", "GIT_EXEC_PATH": str(root / "usr/lib/git-core"),
                               "GIT_TEMPLATE_DIR": "", "GIT_CONFIG_GLOBAL": "/dev/null"}

    def test_what_is_there(self):
        found = contents(self.site)
        for version in (OLD, NEW):
            for name in (f"apt/pool/nvgrace-gpu_{version}-1_arm64.deb", f"rpm/nvgrace-gpu-{version}-1.aarch64.rpm",
                         f"releases/{NAME}-{version}.tar.xz"):
                assert name in found
            run("sha256sum", "--check", f"{NAME}-{version}.tar.xz.sha256", cwd=self.site / "releases")
            tarball = self.site / "releases" / f"{NAME}-{version}.tar.xz"
            run("sqv", "--keyring", self.site / "nvgrace-gpu.asc", f"{tarball}.asc", tarball)
        assert found["CNAME"] == b"gpu.example.org\n"
        assert b"PRIVATE KEY" not in b"".join(found.values())
        page = found["index.html"].decode()
        assert f"The newest version is {NEW}." in page
        assert f"{self.url}/nvgrace-gpu.sources" in page
        assert found["nvgrace-gpu.asc"].decode() == self.public
        assert b"\nSigned-By: /usr/share/keyrings/nvgrace-gpu.asc\n" in found["nvgrace-gpu.sources"]
        names = re.findall(r'href="([^"]*\.tar\.xz)"', found["releases/index.html"].decode())
        assert names == [f"{NAME}-{NEW}.tar.xz", f"{NAME}-{OLD}.tar.xz"]

    def test_lists_of_both_are_there(self):
        """For hosts to which a cache gives the first release's list of lists."""
        suite = self.site / "apt/dists/stable"
        assert "Acquire-By-Hash: yes\n" in (suite / "InRelease").read_text()
        for arch in ("amd64", "arm64"):
            lists = list((suite / f"main/binary-{arch}/by-hash/SHA256").iterdir())
            assert len(lists) == 4
            for file in lists:
                assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name
        for kind in ("primary", "filelists", "other"):
            assert len(list(self.site.glob(f"rpm/repodata/*-{kind}.xml.*"))) == 2

    def test_two_runs_give_the_same_bytes(self):
        other = self.work / "the other"
        other.mkdir()
        (other / "CNAME").write_text("gpu.example.org\n")
        self.publish(OLD, site=other)
        self.publish(NEW, site=os.path.relpath(other, self.sources[NEW]))
        assert contents(other) == contents(self.site)
        with named("one that was interrupted"):
            for name in ("apt/dists/stable/InRelease", "rpm/repodata/repomd.xml", "rpm/repodata/repomd.xml.asc"):
                (other / name).unlink()
            (other / f"releases/{NAME}-{NEW}.tar.xz").unlink()
            (other / ".new/rpm").mkdir(parents=True)
            (other / f".new/rpm/nvgrace-gpu-{NEW}-1.x86_64.rpm").write_text("half")
            self.publish(NEW, site=other)
            assert contents(other) == contents(self.site)

    def test_what_is_refused_changes_nothing(self):
        before = contents(self.site)
        sources, empty = self.sources[NEW], self.work / "empty"

        def refused(said, site=empty, **env):
            with named(said):
                assert said in self.publish(NEW, ok=False, site=site, **env)

        refused(f"has version {NEW} already", site=self.site)
        refused("needs a key", GPG_KEY="")
        refused("No secret key", GPG_KEY="nobody@example.org")
        refused(f"the tag is v1.2.3, but dkms.conf has the version {NEW}", TAG="v1.2.3")
        refused("SITE in the Makefile is empty", URL="")
        self.settings(sources, MAINTAINER="Some <some@project.example>")
        refused("MAINTAINER in the Makefile has no address")
        self.settings(sources, MAINTAINER=MAINTAINER)
        conf = sources / "dkms.conf"
        conf.write_text(conf.read_text().replace(NEW, f"{NEW}+git"))
        refused(f"{NEW}+git is not a release")
        conf.write_text(conf.read_text().replace("+git", ""))
        kept = (sources / PUBLIC).rename(sources / "kept")
        refused(f"there is no {PUBLIC}")
        kept.rename(sources / PUBLIC)

        modules = sources / "build/modules"
        modules.mkdir()
        refused("no packages in", MODULES="build/modules")
        (modules / f"{NAME}-modules-6.12_{OLD}-1_arm64.deb").touch()
        refused(f"is not of version {NEW}", MODULES="build/modules")
        shutil.rmtree(modules)
        for name in (f"nvgrace-gpu_{NEW}-1_arm64.deb", f"nvgrace-gpu-{NEW}-1.aarch64.rpm"):
            kept = (sources / "build/packages" / name).rename(sources / "kept")
            refused(f"there is no build/packages/{name.partition('-1')[0]}")
            kept.rename(sources / "build/packages" / name)

        later = self.work / "later"
        (later / "releases").mkdir(parents=True)
        (later / f"releases/{NAME}-1000.0.0.tar.xz").touch()
        refused("has version 1000.0.0, which is later", site=later)
        assert len(contents(later)) == 1
        assert contents(self.site) == before
        assert not empty.exists()

    def test_the_next_key(self):
        """A release by the old key brings hosts the next one: the next part of the same
        key, for signing only."""
        home, site = self.work / "primary", self.work / "next"

        def gpg(*argv):
            return run("gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", "", *argv)

        home.mkdir(mode=0o700)
        gpg("--quick-generate-key", "primary <primary@example.org>", "rsa3072", "cert", "never")
        primary = re.search(r"(?m)^fpr:+(\w+):", gpg("--with-colons", "--list-keys"))[1]
        keys, public = [], []
        for number in (1, 2):
            gpg("--quick-add-key", primary, "rsa3072", "sign", "1y")
            # What the workflow gets: not the primary key.
            part = re.findall(r"(?m)^ssb:.*\nfpr:+(\w+):", gpg("--with-colons", "--list-secret-keys"))[-1]
            secret = gpg("--armor", "--export-secret-subkeys", f"{part}!")
            keys.append(self.release("key", OLD, SIGNING_KEY=secret))
            keys[-1]["GNUPGHOME"] = str(shutil.copytree(keys[-1]["GNUPGHOME"], self.work / f"part{number}",
                                                        ignore=shutil.ignore_patterns("S.*")))
            public.append(gpg("--armor", "--export"))
        (home / "revoke").write_text("key 1\nrevkey\ny\n0\n\ny\nsave\n")
        gpg("--command-file", home / "revoke", "--edit-key", primary)
        revoked = gpg("--armor", "--export")
        run("gpgconf", "--homedir", home, "--kill", "all")

        def publish(version, keyring, env, **more):
            (self.sources[version] / PUBLIC).write_text(keyring)
            return self.publish(version, site=site, **env, **more)

        try:
            publish(OLD, public[0], keys[0])
            assert f"have {site}/nvgrace-gpu.asc don't accept the key" in publish(NEW, public[1], keys[1], ok=False)
            assert f"have {PUBLIC} don't accept the key" in publish(NEW, public[0], keys[1], ok=False)
            assert f"have {PUBLIC} don't accept the key" in publish(NEW, revoked, keys[0], ok=False)
            shutil.rmtree(site)
            publish(OLD, public[1], keys[0])
            publish(NEW, public[1], keys[1])
        finally:
            for sources in self.sources.values():
                (sources / PUBLIC).write_text(self.public)

    def release(self, word, version, ok=True, **env):
        """A step of the workflow; for the key, the variables that it sets."""
        said = run("scripts/packaging/release", word, cwd=self.sources[version], ok=ok, **{**self.git_env, "URL": self.url, **env})
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line) if ok and word == "key" else said

    @pytest.fixture
    def no_checkout_stays(self):
        yield
        for sources in self.sources.values():
            shutil.rmtree(sources / ".git", ignore_errors=True)

    @pytest.mark.usefixtures("no_checkout_stays")
    def test_a_tag_makes_it(self):
        """The steps of the release's workflow, but for those on the forge."""
        forge = self.work / "forge.git"
        run("git", "init", "-q", "--bare", forge, **self.git_env)
        for secret, said in (("", "SIGNING_KEY"), ("rubbish", "no key"), (self.public, "only a public key")):
            assert said in self.release("key", OLD, ok=False, SIGNING_KEY=secret)
        for version in (OLD, NEW):
            sources, tag = self.sources[version], f"v{version}"

            def git(*argv, cwd=sources):
                return run("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", *argv, cwd=cwd, **self.git_env)

            git("init", "-q")
            git("config", "user.name", "Test")
            git("config", "user.email", "test@example.org")
            git("add", "--all")
            git("commit", "-q", "-m", f"release {version}")
            env = {**self.release("key", version, SIGNING_KEY=self.secret), "TAG": tag}
            assert "can't read the branch main" in self.release("check", version, ok=False, **env)
            git("remote", "add", "origin", forge)
            git("push", "-q", "--force", "origin", "HEAD:main")
            git("commit", "-q", "--amend", "--no-edit", "--date=2020-01-01T00:00:00Z")
            assert "not on the branch main" in self.release("check", version, ok=False, **env)
            git("push", "-q", "--force", "origin", "HEAD:main")
            assert "the tag is v1.2.3" in self.release("check", version, ok=False, **{**env, "TAG": "v1.2.3"})
            if version == NEW:
                with named("a branch that somebody else has pushed to"):
                    other = self.work / "else"
                    git("clone", "-q", "--branch", "gh-pages", forge, other)
                    (other / "apt/pool/more.deb").touch()
                    for argv in (("add", "--all"), ("commit", "-q", "-m", "more"), ("push", "-q", "origin", "gh-pages")):
                        git(*argv, cwd=other)
                    assert "has signed the newest commit of gh-pages" in self.release("check", version, ok=False, **env)
                    git("push", "-q", "--force", "origin", "HEAD~:gh-pages", cwd=other)
            self.release("check", version, **env)
            self.release("site", version, HOST_TOOLS="yes", **env)
            self.release("site", version, **env)       # as after a failure
            attached, site = contents(sources / "build/release"), contents(sources / "build/site")
            assert set(attached) == {pathlib.Path(name).name for name in contents(self.site)
                                     if re.search(rf"{re.escape(version)}[-.]|^nvgrace-gpu\.asc$", name)}
            assert attached.items() <= {pathlib.Path(name).name: data for name, data in site.items()}.items()
            git("push", "-q", "origin", "gh-pages")
            assert f"has version {version} already" in self.release("check", version, ok=False, **env)
            assert self.release("notes", version).strip() == "- A change."
        # The key has another name in the signatures, so lists of signed RPMs differ.
        names, wanted = ({re.sub(r"[0-9a-f]{64}-", "", name) for name in files} for files in (site, contents(self.site)))
        assert names - {".git"} == wanted - {"CNAME"}
        with named("what hosts get"), served(self.sources[NEW] / "build/site") as url:
            self.release("served", NEW, URL=url)
            list_ = self.sources[NEW] / "build/site/rpm/repodata/repomd.xml"
            list_.write_bytes(list_.read_bytes() + b" ")
            assert "repomd.xml is not what the branch" in self.release("served", NEW, ok=False, URL=url, TRIES="1")


class Hosts(Release):
    __test__ = True
    built = (NEW,)

    def commands(self, kind):
        """Those of README and index.html that install the packages."""
        said = run("scripts/packaging/site", "--commands", kind, self.url)
        assert html.escape(said.strip(), quote=False) in (self.site / "index.html").read_text()
        # The kernel that runs the tests may be any, and the server has no certificate.
        return said.replace(" ca-certificates", "").replace(" linux-headers-$(uname -r)", "").replace(" install ", " install -y ").splitlines()

    @pytest.mark.needs("trees")
    def test_apt(self, scratch_system):
        host = scratch_system(lower=scratch.tree("bookworm"))
        *download, install = self.commands("deb")
        host.sh("\n".join((*download, "apt-get update")))
        with named("an old version"):
            host.sh(f"apt-get install -y --no-install-recommends {NAME}-dkms={OLD}-1 nvgrace-gpu={OLD}-1")
        with named("the upgrade"):
            host.sh(install)
            assert host.sh("dpkg -S /usr/share/keyrings/nvgrace-gpu.asc").stdout.startswith("nvgrace-gpu: ")
            assert host.sh("nvgrace-gpu --version").stdout == f"nvgrace-gpu {NEW}\n"

    @pytest.mark.packages
    @pytest.mark.needs("root images", "trees")
    def test_images_of_the_examples(self, scratch_system):
        """Buildah builds both Containerfiles of docs/examples, for x86-64."""
        host = scratch_system(lower=f"{packages.root('images')}:/")
        run("tar", "-C", scratch.tree("trixie"), "-cf", host.shared / "base.tar", ".")
        for name in ("Containerfile", "kmm-Containerfile"):
            shutil.copy(scratch.PROJECT / "docs/examples" / name, host.shared)
        host.write("/etc/containers/policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
        host.env = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
        # The scratch system has a limit that is lower than Buildah's own.
        limits = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"
        inside = "buildah --root /mnt/storage --runroot /mnt/run"
        build = f"{inside} build --network host {limits} --build-arg BASE=localhost/base --build-arg SITE={self.url}"
        with named("the base"):
            # Where the examples are tested, kernels are those of x86-64.
            (host.shared / f"{NAME}.conf").write_text('BUILD_EXCLUSIVE_ARCH="x86_64"\n')
            host.sh(f"""
                base=$({inside} from scratch)
                {inside} add $base /mnt/base.tar /
                {inside} copy $base /mnt/{NAME}.conf /etc/dkms/
                {inside} commit --rm $base localhost/base
                rm /mnt/base.tar
                mkdir /mnt/context""")
        with named("a host"):
            host.sh(f"{build} --build-arg KERNEL=amd64 --tag host --file /mnt/Containerfile /mnt/context")
            host.sh(f"{inside} from {limits} --name host localhost/host")
            kernel, = host.sh(f"ls $({inside} mount host)/lib/modules").stdout.split()
            assert kernel != os.uname().release
            said = host.sh(f"{inside} run host -- sh -ec 'modinfo -k {kernel} -n {NAME}; lsinitramfs /boot/initrd.img-{kernel}; nvgrace-gpu --version'").stdout
            assert f"/{kernel}/updates/dkms/{NAME}.ko" in said.splitlines()[0]
            for file in (f"updates/dkms/{NAME}.ko", "usr/lib/udev/nvgrace-gpu", "etc/nvgrace-gpu.conf.d/all.conf"):
                assert file in said
            assert f"nvgrace-gpu {NEW}\n" in said
        with named("a module"):
            # The node's modules, which the operator mounts.
            host.sh(f"mkdir -p /mnt/node && cp -r $({inside} mount host)/usr/lib/modules /mnt/node")
            host.sh(f"{build} --build-arg KERNEL_FULL_VERSION={kernel} --volume /mnt/node/modules:/host/lib/modules:ro "
                    "--tag module --file /mnt/kmm-Containerfile /mnt/context")
            host.sh(f"{inside} from {limits} --name module localhost/module")
            files = host.sh(f"cd $({inside} mount module)/opt && find . ! -type d").stdout.split()
            assert f"./lib/modules/{kernel}/updates/{NAME}.ko" in files
            # The worker of the operator has kmod, and the node's modules.
            shown = host.sh(f"""
                mkdir -p /host/lib && ln -s /mnt/node/modules /host/lib/modules
                modprobe -d $({inside} mount module)/opt -S {kernel} --show-depends {NAME}""").stdout
            assert "vfio-pci-core" in shown
            assert f"/updates/{NAME}.ko" in shown

    def test_dnf(self, scratch_system):
        host = scratch_system(lower=f"{packages.root('installers')}:/")
        host.sh("mkdir -p /var/lib/rpm /etc/yum.repos.d")
        rpms = [*self.site.glob(f"rpm/{NAME}-dkms-{NEW}-*.rpm"), *self.site.glob(f"rpm/nvgrace-gpu-{NEW}-*.x86_64.rpm")]
        common.build_stand_in(host.shared, rpms)
        # These systems have DKMS and a kernel of their own, and the toolbox has no curl.
        *_, download, install = self.commands("rpm")
        _, _, path, url = download.split()
        host.write(path, run("python3", "-c", f"import urllib.request; print(urllib.request.urlopen('{url}').read().decode(), end='')"))
        more = "--repofrompath=stand-in,file:///mnt/stand-in --setopt=stand-in.gpgcheck=0 --setopt=install_weak_deps=0"
        version = ["rpm", "-q", "--qf", "%{VERSION}\n", "nvgrace-gpu"]
        with named("an old version"):
            host.sh(f"dnf -y {more} install {NAME}-dkms-{OLD} nvgrace-gpu-{OLD}")
            assert host.run(*version).stdout == f"{OLD}\n"
        with named("the upgrade"):
            host.sh(f"dnf -y {more} upgrade")
            host.sh(install.replace(" install ", f" {more} install "))
            assert host.run(*version).stdout == f"{NEW}\n"
