# SPDX-License-Identifier: GPL-2.0-only
"""`make publish`: two versions in one folder, which a web server on the loopback
interface serves to apt and dnf, with the commands of README.md."""

import contextlib
import functools
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

import pytest

from lab import packages
from lab.system import scratch
from packages import common
from packages.common import named

# It builds all packages of two versions.
pytestmark = [pytest.mark.long, pytest.mark.needs("root installers", "trees")]

NAME = "nvgrace-gpu-vfio-pci"
README = (scratch.PROJECT / "README.md").read_text()
OLD, NEW = "0.2.0", "999.1.0"
BOTH = f"{NAME}-dkms nvgrace-gpu"


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):    # pylint: disable=arguments-differ
        pass


def run(*argv, ok=True, cwd=scratch.PROJECT, **env):
    done = subprocess.run([str(a) for a in argv], cwd=cwd, env={**os.environ, **env}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert (done.returncode == 0) == ok, f"{argv}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Publish(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="publish-test-", dir=scratch.PROJECT / "build"))
        cls.addClassCleanup(shutil.rmtree, cls.work)
        home = cls.work / "gnupg"
        key = common.make_key(home)

        # The toolbox has no git.
        root = packages.root("installers")
        git = cls.work / "bin" / "git"
        git.parent.mkdir()
        git.symlink_to(root / "usr/bin/git")
        cls.git = {"PATH": f"{git.parent}:{os.environ['PATH']}", "GIT_EXEC_PATH": str(root / "usr/lib/git-core"),
                   "GIT_TEMPLATE_DIR": "", "GIT_CONFIG_GLOBAL": "/dev/null"}
        cls.secret = run("gpg", "--homedir", home, "--armor", "--export-secret-keys")
        cls.addClassCleanup(run, "gpgconf", "--homedir", home, "--kill", "all")

        cls.site = cls.work / "site"
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=cls.site))
        cls.addClassCleanup(server.server_close)
        threading.Thread(target=server.serve_forever).start()
        cls.addClassCleanup(server.shutdown)
        cls.url = f"http://127.0.0.1:{server.server_address[1]}"
        cls.env = {**key, "URL": cls.url}

        # A folder of the site that is none of this project's.
        cls.site.mkdir()
        (cls.site / "CNAME").write_text("gpu.example.org\n")
        cls.sources = {}
        for version in (OLD, NEW):
            copy = cls.sources[version] = common.copy_sources(cls.work / version)
            common.set_version(copy, version)
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

    def readme(self, kind):
        """README's commands that install the packages."""
        commands = re.search(rf"(?ms)^    curl \S+ \S+/nvgrace-gpu\.{kind} \S+\n    .*?install.*?\n", README)[0]
        site = re.search(r"^SITE\s*:=\s*(.*)", (scratch.PROJECT / "Makefile").read_text(), re.M)[1]
        self.assertIn(f"{site}/nvgrace-gpu.{kind}", commands)
        return commands.replace(site, self.url).replace(" install ", " install -y ")

    @contextlib.contextmanager
    def changed(self, pattern):
        """One byte of a file of the site is another one."""
        file, = self.site.glob(pattern)
        data = file.read_bytes()
        try:
            file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
            yield
        finally:
            file.write_bytes(data)

    def test_what_is_there(self):
        found = contents(self.site)
        for version in (OLD, NEW):
            for name in (f"apt/pool/nvgrace-gpu_{version}-1_arm64.deb", f"rpm/nvgrace-gpu-{version}-1.aarch64.rpm",
                         f"releases/{NAME}-{version}.tar.xz"):
                self.assertIn(name, found)
            run("sha256sum", "--check", f"{NAME}-{version}.tar.xz.sha256", cwd=self.site / "releases")
            tarball = self.site / "releases" / f"{NAME}-{version}.tar.xz"
            run("sqv", "--keyring", self.site / "nvgrace-gpu.asc", f"{tarball}.asc", tarball)
        self.assertEqual(found["CNAME"], b"gpu.example.org\n")
        self.assertNotIn(b"PRIVATE KEY", b"".join(found.values()))
        page = found["index.html"].decode()
        self.assertIn(f"The newest version is {NEW}.", page)
        self.assertIn(f"{self.url}/nvgrace-gpu.sources", page)
        names = re.findall(r'href="([^"]*\.tar\.xz)"', found["releases/index.html"].decode())
        self.assertEqual(names, [f"{NAME}-{NEW}.tar.xz", f"{NAME}-{OLD}.tar.xz"])

    def test_two_runs_give_the_same_bytes(self):
        other = self.work / "the other"
        other.mkdir()
        (other / "CNAME").write_text("gpu.example.org\n")
        self.publish(OLD, site=other)
        self.publish(NEW, site=os.path.relpath(other, self.sources[NEW]))
        self.assertEqual(contents(other), contents(self.site))
        with named("one that was interrupted"):
            shutil.rmtree(other / "apt/dists")
            (other / f"releases/{NAME}-{NEW}.tar.xz").unlink()
            (other / ".new/rpm").mkdir(parents=True)
            (other / f".new/rpm/nvgrace-gpu-{NEW}-1.x86_64.rpm").write_text("half")
            self.publish(NEW, site=other)
            self.assertEqual(contents(other), contents(self.site))

    def test_what_is_refused_changes_nothing(self):
        before = contents(self.site)
        for said, version, env in ((f"has version {NEW} already", NEW, {}), ("needs a key", NEW, {"GPG_KEY": ""}),
                                   ("No secret key", NEW, {"GPG_KEY": "nobody@example.org"}),
                                   (f"the tag is v1.2.3, but dkms.conf has the version {NEW}", NEW, {"TAG": "v1.2.3"}),
                                   ("SITE in the Makefile is https://", NEW, {"URL": ""})):
            with named(said):
                # Where nothing is published yet, only the version is no reason.
                site = self.site if "already" in said else self.work / "empty"
                self.assertIn(said, self.publish(version, ok=False, site=site, **env))
        self.assertIn("is not a release", run("scripts/packaging/repo", "--publish", self.site, ok=False, **self.env)
                      if "+git" in scratch.version() else "is not a release")
        with named("a later version"):
            later = self.work / "later"
            (later / "releases").mkdir(parents=True)
            (later / f"releases/{NAME}-1000.0.0.tar.xz").touch()
            self.assertIn("has version 1000.0.0, which is later", self.publish(NEW, ok=False, site=later))
            self.assertEqual(len(contents(later)), 1)
        with named("a file in the way"):
            file = self.sources[NEW] / "Makefile"
            self.assertIn(f"can't write to {file}", self.publish(NEW, ok=False, site=file / "site"))
        self.assertIn("name the folder", run("make", "publish", cwd=self.sources[NEW], ok=False, **self.env))
        self.assertEqual(contents(self.site), before)
        self.assertFalse((self.work / "empty").exists())

    def test_the_forge_has_what_the_owner_has_not_set(self):
        forge = {"GITHUB_REPOSITORY": "Owner/gpu"}
        self.assertEqual(run("scripts/packaging/setting", "SITE", **forge), "https://owner.github.io/gpu\n")
        self.assertEqual(run("scripts/packaging/setting", "MAINTAINER", **forge), "Owner <Owner@users.noreply.github.com>\n")
        copy = self.work / "set"
        for name in ("Makefile", "scripts/packaging/setting"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(scratch.PROJECT / name, copy / name)
        (copy / "Makefile").write_text("SITE := https://example.org/gpu\n")
        self.assertEqual(run("scripts/packaging/setting", "SITE", cwd=copy, **forge), "https://example.org/gpu\n")

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
            self.addCleanup(shutil.rmtree, sources / ".git")
            git("config", "user.name", "Test")
            git("config", "user.email", "test@example.org")
            git("add", "--all")
            git("commit", "-q", "-m", f"release {version}")

            self.assertIn("SIGNING_KEY", release("key", ok=False, SIGNING_KEY=""))
            self.assertIn("no key", release("key", ok=False, SIGNING_KEY="rubbish"))
            self.assertIn("only a public key", release("key", ok=False, SIGNING_KEY=(self.site / "nvgrace-gpu.asc").read_text()))
            key = dict(line.split("=", 1) for line in release("key", SIGNING_KEY=self.secret).splitlines() if "=" in line)
            self.assertIn("can't read the branches", release("site", ok=False, TAG=f"v{version}", **key))
            git("remote", "add", "origin", forge)
            release("site", TAG=f"v{version}", **key)
            self.assertIn("the tag is v1.2.3", release("site", ok=False, TAG="v1.2.3", **key))
            release("site", TAG=f"v{version}", **key)       # as after a failure
            attached = contents(sources / "build/release")
            self.assertEqual(set(attached), {pathlib.Path(name).name for name in contents(self.site)
                                             if re.search(rf"{re.escape(version)}[-.]|^nvgrace-gpu\.asc$", name)})
            site = {pathlib.Path(name).name: data for name, data in contents(sources / "build/site").items()}
            self.assertEqual(attached, {name: site[name] for name in attached})
            self.assertEqual(release("notes").strip(), "- A change.")
            git("push", "-q", "origin", "gh-pages")
        files = run("git", "--git-dir", forge, "ls-tree", "-r", "--name-only", "gh-pages", **self.git).split()
        # Those of the other tests, whose site was there before and whose key has
        # another name in the signatures.
        self.assertEqual({re.sub(r"[0-9a-f]{64}-", "", name) for name in files} - {".nojekyll"},
                         {re.sub(r"[0-9a-f]{64}-", "", name) for name in contents(self.site)} - {"CNAME"})

    def install_with_apt(self, suite):
        host = scratch.Scratch(lower=scratch.tree(suite))
        self.addCleanup(host.close)
        host.sh("apt-get update && apt-get install -y --no-install-recommends curl")
        download, install = self.readme("sources").splitlines()
        host.sh(f"{download}\napt-get update")
        with named("an old version"):
            host.sh(f"apt-get install -y --no-install-recommends {NAME}-dkms={OLD}-1 nvgrace-gpu={OLD}-1")
            self.assertEqual(host.sh("nvgrace-gpu --version").stdout, f"nvgrace-gpu {OLD}\n")
        with named("a changed package"), self.changed(f"apt/pool/nvgrace-gpu_{NEW}-1_amd64.deb"):
            said = host.sh(f"{install}", ok=False)
            self.assertNotEqual(said.returncode, 0)
            self.assertIn("Hash Sum mismatch", said.stdout)
            self.assertEqual(host.sh("nvgrace-gpu --version").stdout, f"nvgrace-gpu {OLD}\n")
        with named("a changed list"), self.changed("apt/dists/stable/InRelease"):
            host.sh("rm -r /var/lib/apt/lists")
            self.assertNotEqual(host.sh("apt-get -o APT::Update::Error-Mode=any update", ok=False).returncode, 0)
        with named("the upgrade"):
            host.sh(install)
            self.assertEqual(host.sh("nvgrace-gpu --version").stdout, f"nvgrace-gpu {NEW}\n")
            self.assertEqual(host.sh("ls /usr/src | grep nvgrace").stdout, f"{NAME}-{NEW}\n")

    def test_debian_12(self):
        self.install_with_apt("bookworm")

    def test_debian_13(self):
        self.install_with_apt("trixie")

    @pytest.mark.packages
    @pytest.mark.needs("root images")
    def test_images_of_the_examples(self):
        """Buildah builds both Containerfiles of docs/examples, for x86-64."""
        host = scratch.Scratch(lower=f"{packages.root('images')}:/")
        self.addCleanup(host.close)
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
            self.assertNotEqual(kernel, os.uname().release)
            said = host.sh(f"{inside} run host -- sh -ec 'modinfo -k {kernel} -n {NAME}; lsinitramfs /boot/initrd.img-{kernel}; nvgrace-gpu --version'").stdout
            self.assertIn(f"/{kernel}/updates/dkms/{NAME}.ko", said.splitlines()[0])
            for file in (f"updates/dkms/{NAME}.ko", "usr/lib/udev/nvgrace-gpu", "etc/nvgrace-gpu.conf.d/all.conf"):
                self.assertIn(file, said)
            self.assertIn(f"nvgrace-gpu {NEW}\n", said)
        with named("a module"):
            # The node's modules, which the operator mounts.
            host.sh(f"mkdir -p /mnt/node && cp -r $({inside} mount host)/usr/lib/modules /mnt/node")
            host.sh(f"{build} --build-arg KERNEL_FULL_VERSION={kernel} --volume /mnt/node/modules:/host/lib/modules:ro "
                    "--tag module --file /mnt/kmm-Containerfile /mnt/context")
            host.sh(f"{inside} from {limits} --name module localhost/module")
            files = host.sh(f"cd $({inside} mount module)/opt && find . ! -type d").stdout.split()
            self.assertIn(f"./lib/modules/{kernel}/updates/{NAME}.ko", files)
            # The worker of the operator has kmod, and the node's modules.
            shown = host.sh(f"""
                mkdir -p /host/lib && ln -s /mnt/node/modules /host/lib/modules
                modprobe -d $({inside} mount module)/opt -S {kernel} --show-depends {NAME}""").stdout
            self.assertIn("vfio-pci-core", shown)
            self.assertIn(f"/updates/{NAME}.ko", shown)

    def test_dnf(self):
        host = scratch.Scratch(lower=f"{packages.root('installers')}:/")
        self.addCleanup(host.close)
        host.sh("mkdir -p /var/lib/rpm /etc/yum.repos.d")
        rpms = [*self.site.glob(f"rpm/{NAME}-dkms-{NEW}-*.rpm"), *self.site.glob(f"rpm/nvgrace-gpu-{NEW}-*.x86_64.rpm")]
        common.build_stand_in(host.shared, rpms)
        # The toolbox has no curl.
        download, install = self.readme("repo").splitlines()
        _, _, path, url = download.split()
        host.write(path, run("python3", "-c", f"import urllib.request; print(urllib.request.urlopen('{url}').read().decode(), end='')"))
        more = "--repofrompath=stand-in,file:///mnt/stand-in --setopt=stand-in.gpgcheck=0 --setopt=install_weak_deps=0"
        version = ["rpm", "-q", "--qf", "%{VERSION}\n", "nvgrace-gpu"]
        with named("an old version"):
            host.sh(f"dnf -y {more} install {NAME}-dkms-{OLD} nvgrace-gpu-{OLD}")
            self.assertEqual(host.run(*version).stdout, f"{OLD}\n")
        with named("a changed package"), self.changed(f"rpm/nvgrace-gpu-{NEW}-1.x86_64.rpm"):
            self.assertNotEqual(host.sh(f"dnf -y {more} upgrade", ok=False).returncode, 0)
            self.assertEqual(host.run(*version).stdout, f"{OLD}\n")
        with named("a changed list"), self.changed("rpm/repodata/repomd.xml"):
            said = host.sh(f"dnf clean all && dnf -y {more} upgrade", ok=False)
            self.assertIn("Bad GPG signature", said.stdout)
            self.assertEqual(host.run(*version).stdout, f"{OLD}\n")
        with named("the upgrade"):
            host.sh(f"dnf -y {more} upgrade")
            host.sh(install.replace(" install ", f" {more} install "))
            self.assertEqual(host.run(*version).stdout, f"{NEW}\n")
