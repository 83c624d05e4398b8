# SPDX-License-Identifier: GPL-2.0-only
"""`make publish`: two versions in one folder, which a web server on the loopback
interface serves to apt and dnf, with the commands of README.md."""

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

# It builds all packages of two versions.
pytestmark = [pytest.mark.long, pytest.mark.needs("root installers", "trees")]

NAME = "nvgrace-gpu-vfio-pci"
OLD, NEW = "0.2.0", "999.1.0"
PUBLIC = "scripts/packaging/nvgrace-gpu.asc"


# Answers as the forge's client, and keeps what it was called with.
GH = """#!/bin/sh
echo "$*" >> "$0.said"
case $2 in
view) [ -e "$0.$3" ] ;;
create) cat > "$0.$3" ;;
edit) git ls-remote --quiet --exit-code origin gh-pages ;;
esac
"""


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
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Publish:
    @pytest.fixture(scope="class")
    def key(self, work):
        home = work / "gnupg"
        yield common.make_key(home)
        run("gpgconf", "--homedir", home, "--kill", "all")

    @pytest.fixture(scope="class")
    def url(self, work):
        with contextlib.ExitStack() as stack:
            yield stack.enter_context(served(work / "site"))

    @pytest.fixture(scope="class", autouse=True)
    def published(self, request, work, key, url):
        cls = request.cls
        cls.work, cls.site, cls.url, cls.env = work, work / "site", url, {**key, "URL": url}

        # The toolbox has no git.
        root = packages.root("installers")
        git = work / "bin" / "git"
        git.parent.mkdir()
        git.symlink_to(root / "usr/bin/git")
        cls.gh = git.parent / "gh"
        cls.gh.write_text(GH)
        cls.gh.chmod(0o755)
        cls.git = {"PATH": f"{git.parent}:{os.environ['PATH']}", "GIT_EXEC_PATH": str(root / "usr/lib/git-core"),
                   "GIT_TEMPLATE_DIR": "", "GIT_CONFIG_GLOBAL": "/dev/null"}
        cls.secret = run("gpg", "--homedir", key["GNUPGHOME"], "--armor", "--export-secret-keys")
        cls.public = run("gpg", "--homedir", key["GNUPGHOME"], "--armor", "--export")

        # A folder of the site that is none of this project's.
        cls.site.mkdir()
        (cls.site / "CNAME").write_text("gpu.example.org\n")
        cls.sources = {}
        for version in (OLD, NEW):
            copy = cls.sources[version] = common.copy_sources(work / version)
            common.set_version(copy, version)
            # The project may have been set up.
            makefile = copy / "Makefile"
            makefile.write_text(re.sub(r"(?m)^SITE[ \t]*:=.*", "SITE :=", makefile.read_text()))
            run("scripts/packaging/site", cwd=copy)
            (copy / PUBLIC).write_text(cls.public)
            changes = copy / "CHANGELOG.md"
            changes.write_text(f"# Changelog\n\n## {version}, 2027-01-15\n\n- A change.\n\n## 0.0.1, 2020-01-01\n\n- Old.\n")
            # Its time is noon, which may not have come yet.
            spec = copy / f"rpm/{NAME}.spec"
            tomorrow = time.strftime("* %a %b %d %Y ", time.gmtime(time.time() + 86400))
            spec.write_text(re.sub(r"(?m)^\* \w+ \w+ \d+ \d+ ", tomorrow, spec.read_text(), count=1))
            common.make_packages("dist", "deb", "rpm", sources=copy)
            cls.publish(version)

    @classmethod
    def publish(cls, version, ok=True, site=None, **env):
        return run("make", "publish", f"DESTDIR={site or cls.site}", cwd=cls.sources[version], ok=ok, **{**cls.env, **env})

    def commands(self, kind):
        """Those of README and index.html that install the packages."""
        said = run("scripts/packaging/site", "--commands", kind, self.url)
        assert html.escape(said.strip(), quote=False) in (self.site / "index.html").read_text()
        # The kernel that runs the tests may be any, and the server has no certificate.
        return said.replace(" ca-certificates", "").replace(" linux-headers-$(uname -r)", "").replace(" install ", " install -y ").splitlines()

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
            for kind in ("sha256", "sha512"):
                lists = list((suite / f"main/binary-{arch}/by-hash" / kind.upper()).iterdir())
                assert len(lists) == 4
                for file in lists:
                    assert hashlib.new(kind, file.read_bytes()).hexdigest() == file.name
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
        for said, version, env in ((f"has version {NEW} already", NEW, {}), ("needs a key", NEW, {"GPG_KEY": ""}),
                                   ("No secret key", NEW, {"GPG_KEY": "nobody@example.org"}),
                                   (f"the tag is v1.2.3, but dkms.conf has the version {NEW}", NEW, {"TAG": "v1.2.3"}),
                                   ("SITE in the Makefile is empty", NEW, {"URL": ""})):
            with named(said):
                # Where nothing is published yet, only the version is no reason.
                site = self.site if "already" in said else self.work / "empty"
                assert said in self.publish(version, ok=False, site=site, **env)
        assert "is not a release" in (run("scripts/packaging/repo", "--publish", self.site, ok=False, **self.env)
                      if "+git" in scratch.version() else "is not a release")
        public = self.sources[NEW] / PUBLIC
        with named("no key for the hosts"):
            kept = public.rename(f"{public}.kept")
            assert f"there is no {public}" in self.publish(NEW, ok=False, site=self.work / "empty")
            kept.rename(public)
        with named("another key"):
            other = self.work / "other"
            other.mkdir()
            shutil.copy(self.site / "nvgrace-gpu.asc", other)
            key = common.make_key(self.work / "gnupg-other", "other")
            assert f"{PUBLIC} has not the key" in self.publish(NEW, ok=False, site=other, **key)
            public.write_text(run("gpg", "--homedir", key["GNUPGHOME"], "--armor", "--export"))
            assert f"{other}/nvgrace-gpu.asc has not the key" in self.publish(NEW, ok=False, site=other, **key)
            public.write_text(self.public)
            assert len(contents(other)) == 1
        with named("modules of another version"):
            modules = self.sources[NEW] / "build/modules"
            modules.mkdir()
            assert "no packages in" in self.publish(NEW, ok=False, site=self.work / "empty", MODULES="build/modules")
            (modules / f"{NAME}-modules-6.12_{OLD}-1_arm64.deb").touch()
            assert f"is not of version {NEW}" in self.publish(NEW, ok=False, site=self.work / "empty", MODULES="build/modules")
            shutil.rmtree(modules)
        with named("a later version"):
            later = self.work / "later"
            (later / "releases").mkdir(parents=True)
            (later / f"releases/{NAME}-1000.0.0.tar.xz").touch()
            assert "has version 1000.0.0, which is later" in self.publish(NEW, ok=False, site=later)
            assert len(contents(later)) == 1
        for name in (f"nvgrace-gpu_{NEW}-1_arm64.deb", f"nvgrace-gpu-{NEW}-1.aarch64.rpm"):
            with named(f"no {name}"):
                package = self.sources[NEW] / "build/packages" / name
                kept = package.rename(f"{package}.kept")
                said = self.publish(NEW, ok=False, site=self.work / "empty")
                assert f"there is no build/packages/{name.partition('-1')[0]}" in said
                kept.rename(package)
        with named("a file in the way"):
            file = self.sources[NEW] / "Makefile"
            assert f"can't write to {file}" in self.publish(NEW, ok=False, site=file / "site")
        assert "name the folder" in run("make", "publish", cwd=self.sources[NEW], ok=False, **self.env)
        assert contents(self.site) == before
        assert not (self.work / "empty").exists()

    def test_the_next_key(self):
        """A release by the old key brings hosts the next one: the next part of the same
        key, for signing only."""
        def gpg(*argv):
            return run("gpg", "--homedir", self.work / "primary", "--batch", "--pinentry-mode", "loopback", "--passphrase", "",
                       *argv)

        home = self.work / "primary"
        home.mkdir(mode=0o700)
        gpg("--quick-generate-key", "primary <primary@example.org>", "rsa3072", "cert", "never")
        primary = re.search(r"(?m)^fpr:+(\w+):", gpg("--with-colons", "--list-keys"))[1]
        site, keys = self.work / "next", []
        for number in (1, 2):
            gpg("--quick-add-key", primary, "rsa3072", "sign", "1y")
            # What the workflow gets: not the primary key.
            part = re.findall(r"(?m)^ssb:.*\nfpr:+(\w+):", gpg("--with-colons", "--list-secret-keys"))[-1]
            there = self.work / f"part{number}"
            there.mkdir(mode=0o700)
            (there / "secret").write_text(gpg("--armor", "--export-secret-subkeys", f"{part}!"))
            run("gpg", "--homedir", there, "--batch", "--import", there / "secret")
            run("gpgconf", "--homedir", there, "--kill", "all")
            keys.append(({"GPG_KEY": primary, "GNUPGHOME": str(there)}, gpg("--armor", "--export")))
        run("gpgconf", "--homedir", home, "--kill", "all")
        (first, alone), (second, both) = keys
        try:
            (self.sources[OLD] / PUBLIC).write_text(alone)
            self.publish(OLD, site=site, **first)
            (self.sources[NEW] / PUBLIC).write_text(both)
            assert f"{site}/nvgrace-gpu.asc has not the key" in self.publish(NEW, ok=False, site=site, **second)
            (self.sources[OLD] / PUBLIC).write_text(both)
            shutil.rmtree(site)
            self.publish(OLD, site=site, **first)
            self.publish(NEW, site=site, **second)
        finally:
            for sources in self.sources.values():
                (sources / PUBLIC).write_text(self.public)
        for keyring, good in ((both, True), (alone, False)):
            (self.work / "keyring.asc").write_text(keyring)
            run("sqv", "--keyring", self.work / "keyring.asc", site / "apt/dists/stable/Release.gpg",
                site / "apt/dists/stable/Release", ok=good)

    @pytest.fixture
    def no_checkout_stays(self):
        yield
        for sources in self.sources.values():
            shutil.rmtree(sources / ".git", ignore_errors=True)

    @pytest.mark.usefixtures("no_checkout_stays")
    def test_a_tag_makes_it(self):
        """The steps of the release's workflow, but for those on the forge."""
        forge = self.work / "forge.git"
        run("git", "init", "-q", "--bare", forge, **self.git)
        for version in (OLD, NEW):
            sources = self.sources[version]

            def git(*argv, sources=sources):
                return run("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", *argv, cwd=sources, **self.git)

            def release(word, ok=True, sources=sources, **env):
                return run("scripts/packaging/release", word, cwd=sources, ok=ok, **{**self.git, "URL": self.url, **env})

            git("init", "-q")
            git("config", "user.name", "Test")
            git("config", "user.email", "test@example.org")
            git("add", "--all")
            git("commit", "-q", "-m", f"release {version}")

            assert "SIGNING_KEY" in release("key", ok=False, SIGNING_KEY="")
            assert "no key" in release("key", ok=False, SIGNING_KEY="rubbish")
            assert "only a public key" in release("key", ok=False, SIGNING_KEY=(self.site / "nvgrace-gpu.asc").read_text())
            key = dict(line.split("=", 1) for line in release("key", SIGNING_KEY=self.secret).splitlines() if "=" in line)
            assert "can't read the branch main" in release("check", ok=False, TAG=f"v{version}", **key)
            git("remote", "add", "origin", forge)
            git("push", "-q", "--force", "origin", "HEAD:main")
            git("commit", "-q", "--amend", "--no-edit", "--date=2020-01-01T00:00:00Z")
            assert "not on the branch main" in release("check", ok=False, TAG=f"v{version}", **key)
            git("push", "-q", "--force", "origin", "HEAD:main")
            assert "SITE in the Makefile is empty" in release("check", ok=False, TAG=f"v{version}", URL="", **key)
            assert "the tag is v1.2.3" in release("check", ok=False, TAG="v1.2.3", **key)
            assert "can't be made" in release("check", ok=False, TAG=f"v{version}", **{**key, "GPG_KEY": "nobody@example.org"})
            release("check", TAG=f"v{version}", **key)
            release("site", TAG=f"v{version}", **key)
            release("site", TAG=f"v{version}", **key)       # as after a failure
            attached = contents(sources / "build/release")
            assert set(attached) == {pathlib.Path(name).name for name in contents(self.site)
                                     if re.search(rf"{re.escape(version)}[-.]|^nvgrace-gpu\.asc$", name)}
            site = {pathlib.Path(name).name: data for name, data in contents(sources / "build/site").items()}
            assert attached == {name: site[name] for name in attached}
            tag = f"v{version}"
            for word in ("attach", "attach", "push"):   # once more, as after a failure
                release(word, TAG=tag)
            assert f"has version {version} already" in release("check", ok=False, TAG=tag, **key)
            with served(sources / "build/site") as url:
                release("served", URL=url)
                data = (sources / "build/site/rpm/repodata/repomd.xml").read_bytes()
                (sources / "build/site/rpm/repodata/repomd.xml").write_bytes(data + b" ")
                assert "repomd.xml is not what the branch" in release("served", ok=False, URL=url, TRIES="1")
                (sources / "build/site/rpm/repodata/repomd.xml").unlink()
                assert "404" in release("served", ok=False, URL=url, TRIES="1")
            release("go", TAG=tag)
            said = pathlib.Path(f"{self.gh}.said")
            view = f"release view {tag}"
            upload = " ".join((f"release upload {tag} --clobber", *(f"build/release/{name}" for name in sorted(attached))))
            assert said.read_text().splitlines() == [
                view, f"release create {tag} --verify-tag --draft --title {tag} --notes-file -", upload, view, upload,
                f"release edit {tag} --draft=false"]
            assert pathlib.Path(f"{self.gh}.{tag}").read_text().strip() == "- A change."
            said.unlink()
            if version == OLD:
                with named("a branch that somebody else has pushed to"):
                    git("clone", "-q", "--branch", "gh-pages", forge, self.work / "else")
                    (self.work / "else/apt/pool/more.deb").touch()
                    for argv in (("add", "--all"), ("commit", "-q", "-m", "more"), ("push", "-q", "--force", "origin", "HEAD:gh-pages")):
                        git("-C", self.work / "else", *argv)
                    git("fetch", "-q", "origin", "gh-pages")
                    newer = self.sources[NEW]
                    shutil.copytree(sources / ".git", newer / ".git")
                    for argv in (("add", "--all"), ("commit", "-q", "-m", f"release {NEW}"), ("push", "-q", "origin", "HEAD:main")):
                        git("-C", newer, *argv)
                    key["GNUPGHOME"] = str(self.work / "gnupg")
                    said = run("scripts/packaging/release", "check", cwd=newer, ok=False, TAG=f"v{NEW}", URL=self.url, **self.git, **key)
                    assert "has signed the newest commit of gh-pages" in said
                    shutil.rmtree(newer / ".git")
                    git("push", "-q", "--force", "origin", "HEAD:main", "gh-pages:gh-pages")
        files = run("git", "--git-dir", forge, "ls-tree", "-r", "--name-only", "gh-pages", **self.git).split()
        # Those of the other tests, whose site was there before and whose key has
        # another name in the signatures.
        assert ({re.sub(r"[0-9a-f]{64}-", "", name) for name in files} ==
                {re.sub(r"[0-9a-f]{64}-", "", name) for name in contents(self.site)} - {"CNAME"})

    def install_with_apt(self, scratch_system, suite):
        host = scratch_system(lower=scratch.tree(suite))
        *download, install = self.commands("deb")
        host.sh("\n".join((*download, "apt-get update")))
        with named("an old version"):
            host.sh(f"apt-get install -y --no-install-recommends {NAME}-dkms={OLD}-1 nvgrace-gpu={OLD}-1")
            assert host.sh("dpkg -S /usr/share/keyrings/nvgrace-gpu.asc").stdout.startswith("nvgrace-gpu: ")
            assert host.sh("nvgrace-gpu --version").stdout == f"nvgrace-gpu {OLD}\n"
        with named("the upgrade"):
            host.sh(install)
            assert host.sh("nvgrace-gpu --version").stdout == f"nvgrace-gpu {NEW}\n"
            assert host.sh("ls /usr/src | grep nvgrace").stdout == f"{NAME}-{NEW}\n"

    def test_debian_12(self, scratch_system):
        self.install_with_apt(scratch_system, "bookworm")

    def test_debian_13(self, scratch_system):
        self.install_with_apt(scratch_system, "trixie")

    @pytest.mark.packages
    @pytest.mark.needs("root images")
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
        with named("a changed list, with which other repositories work"):
            file = self.site / "rpm/repodata/repomd.xml"
            data = file.read_bytes()
            file.write_bytes(data + b"<!-- -->")
            said = host.sh(f"dnf clean all && dnf -y {more} upgrade", ok=False)
            assert "Bad GPG signature" in said.stdout
            assert said.returncode == 0
            file.write_bytes(data)
            assert host.run(*version).stdout == f"{OLD}\n"
        with named("the upgrade"):
            host.sh(f"dnf -y {more} upgrade")
            host.sh(install.replace(" install ", f" {more} install "))
            assert host.run(*version).stdout == f"{NEW}\n"
