# SPDX-License-Identifier: GPL-2.0-only
"""scripts/dev/toolbox finds its kernels while Debian replaces them.

It runs as on a host, in a copy of the project with other kernels, and with a mirror
of its own, whose packages are nearly empty. `make check-all` has what happens most.
"""

import os
import re
import shutil
import stat
import subprocess

import pytest

from lab.system import scratch
from packages.common import named

pytestmark = pytest.mark.long

CONF = """
releases	bookworm	trixie
oldstable	arm64	oldstable			arm64		yes
stable		arm64	stable				arm64		yes
newest		arm64	stable-backports,stable		arm64		yes
newest-16k	arm64	stable-backports,stable		arm64-16k	yes
next		arm64	experimental			arm64		early
"""

# What Debian has at first. For newest, it still has the version before.
DEBIAN = {"bookworm": ["6.1.9-1"], "trixie": ["6.12.9-1"], "trixie-backports": ["7.3.4-1", "7.3.10-1"],
          "experimental": ["7.4~rc3-1"], "sid": []}

# The toolbox makes its tree with this. The only program that it then runs in
# there is depmod.
MMDEBSTRAP = """#!/bin/sh
set -e
for word; do case $word in *.partial) dir=$word ;; esac; done
mkdir -p "$dir/usr/bin" "$dir/usr/sbin" "$dir/usr/lib" "$dir/etc" "$dir/var/lib/dpkg"
: >"$dir/var/lib/dpkg/status"
ln -s usr/lib "$dir/lib"
echo 'int main(void) { return 0; }' | gcc -static -x c -o "$dir/usr/sbin/depmod" -
"""

# Signs with a key that takes the place of Debian's.
MAKE_KEY = """
export GNUPGHOME=/mnt/gpg
install -d -m 700 /mnt/gpg
gpg --batch --quiet --passphrase '' --quick-generate-key test@example.org ed25519 sign never
gpg --export >/mnt/keyring.gpg
gpgconf --kill all
"""
PUBLISH = """
export GNUPGHOME=/mnt/gpg
cd /mnt/mirror
for suite in dists/*; do
	for arch in arm64 amd64; do
		mkdir -p $suite/main/binary-$arch
		apt-ftparchive --arch $arch packages pool/${suite#dists/} >$suite/main/binary-$arch/Packages
	done
	name=${suite#dists/}
	apt-ftparchive -o APT::FTPArchive::Release::Suite=$name -o APT::FTPArchive::Release::Codename=$name \
		-o APT::FTPArchive::Release::Components=main -o 'APT::FTPArchive::Release::Architectures=arm64 amd64' \
		release $suite >/mnt/Release
	gpg --batch --quiet --clearsign --output - /mnt/Release >$suite/InRelease
done
gpgconf --kill all
"""


def release(version, flavour="arm64"):
    """The release of Debian's kernel of that version."""
    upstream = re.sub(r"-\d+$", "", version)
    return f"{upstream.replace('~', '-')}-{flavour}" if "~" in upstream else f"{upstream}+deb-{flavour}"


class Debian:
    @pytest.fixture(autouse=True)
    def mirror(self, scratch_system):
        self.host = scratch_system()
        # Without its mark, this is no toolbox.
        mark = self.host.dir / "upper/etc/nvgrace-gpu-toolbox"
        mark.parent.mkdir()
        os.mknod(mark, stat.S_IFCHR, os.makedev(0, 0))
        self.host.write("/usr/bin/mmdebstrap", MMDEBSTRAP, mode=0o755)
        self.host.env = {"DEBIAN_MIRROR": "file:/mnt/mirror", "XDG_CACHE_HOME": "/mnt/cache"}
        self.shared = self.host.shared
        for name in ("scripts/dev", "tests/lab"):
            (self.shared / "project" / name).mkdir(parents=True)
        for name in ("toolbox", "step.sh"):
            shutil.copy(scratch.PROJECT / "scripts/dev" / name, self.shared / "project/scripts/dev")
        self.conf(CONF)
        self.host.sh(MAKE_KEY)
        keyring = self.host.dir / "upper/usr/share/keyrings/debian-archive-keyring.gpg"
        keyring.parent.mkdir(parents=True)
        shutil.copy(self.shared / "keyring.gpg", keyring)
        self.publish(DEBIAN)

    def conf(self, text):
        (self.shared / "project/tests/lab/kernels.conf").write_text(text)

    def publish(self, suites, lacks=()):
        """Makes the mirror again, with these versions in each suite, without
        the packages NAME=VERSION of lacks."""
        self.lacks = lacks
        mirror = self.shared / "mirror"
        shutil.rmtree(mirror, ignore_errors=True)
        for suite, versions in suites.items():
            (mirror / "dists" / suite).mkdir(parents=True)
            pool = mirror / "pool" / suite
            pool.mkdir(parents=True)
            for version in versions:
                self.package(pool, f"linux-kbuild-{version[0]}", version, "amd64")
                self.package(pool, "linux-source-" + re.match(r"\d+\.\d+", version)[0], version, "all")
                self.package(pool, f"linux-headers-{release(version)[:-6]}-common", version, "all")
                for flavour in ("arm64", "arm64-16k"):
                    name = release(version, flavour)
                    depends = (f"linux-headers-{release(version)[:-6]}-common (= {version}), "
                               f"linux-kbuild-{version[0]} (= {version})")
                    self.package(pool, f"linux-headers-{name}", version, "arm64", depends)
                    self.package(pool, f"linux-image-{name}", version, "arm64")
        self.host.sh(PUBLISH)

    def package(self, pool, name, version, arch, depends=""):
        if f"{name}={version}" in self.lacks:
            return
        folder = pool / "package"
        (folder / "DEBIAN").mkdir(parents=True)
        # What would be the kernel, to see which version was unpacked.
        content = folder / "usr/src" / name.replace("linux-image", "linux-headers") / name
        content.parent.mkdir(parents=True)
        content.write_text(version)
        fields = {"Package": name, "Version": version, "Architecture": arch, "Maintainer": "test", "Description": "test"}
        if depends:
            fields["Depends"] = depends
        (folder / "DEBIAN/control").write_text("".join(f"{k}: {v}\n" for k, v in fields.items()))
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "-Znone", folder, pool], check=True,
                       stdout=subprocess.DEVNULL)
        shutil.rmtree(folder)

    def toolbox(self, *words, ok=True, **env):
        settings = " ".join(f"{name}={value}" for name, value in env.items())
        return self.host.sh(f"cd /mnt/project && env {settings} scripts/dev/toolbox {' '.join(words)}", ok=ok)

    def release(self, name):
        return self.toolbox("release", name).stdout.splitlines()[-1]

    def test_the_newest_of_each(self):
        self.toolbox("kernel", "--all")
        assert self.release("newest") == release("7.3.10-1")
        assert self.release("newest-16k") == release("7.3.10-1", "arm64-16k")
        assert self.release("oldstable") == release("6.1.9-1")
        assert self.release("next") == release("7.4~rc3-1")
        image = next((self.shared / "cache").glob(f"*/tree-*/usr/src/linux-headers-{release('7.3.10-1')}/linux-image-*"))
        assert image.read_text() == "7.3.10-1"
        # Now it is there, nobody needs the mirror.
        shutil.rmtree(self.shared / "mirror")
        assert self.toolbox("kernel", "oldstable", "stable", "newest", "newest-16k").stdout == ""

    @pytest.mark.all
    def test_debian_replaces_one(self):
        self.toolbox("kernel", "newest", "stable")
        self.publish(DEBIAN | {"trixie-backports": ["7.3.11-1"]})
        assert self.toolbox("kernel", "newest").stdout == ""
        # A week later.
        self.toolbox("kernel", "newest", "newest-16k", "stable", TOOLBOX_REFRESH=1)
        assert self.release("newest") == release("7.3.11-1")
        assert self.release("newest-16k") == release("7.3.11-1", "arm64-16k")
        assert self.release("stable") == release("6.12.9-1")

    def test_one_package_is_gone(self):
        """The newest version of which all packages are there is used."""
        for lacks in ("linux-kbuild-7=7.3.10-1", f"linux-image-{release('7.3.10-1')}=7.3.10-1", "linux-source-7.3=7.3.10-1"):
            with named(lacks):
                self.publish(DEBIAN, lacks=[lacks])
                shutil.rmtree(self.shared / "cache", ignore_errors=True)
                self.toolbox("kernel", "newest")
                assert self.release("newest") == release("7.3.4-1")

    def test_only_the_source_is_gone(self):
        self.toolbox("kernel", "newest")
        self.publish(DEBIAN | {"trixie-backports": ["7.3.10-1", "7.3.11-1"]}, lacks=["linux-source-7.3=7.3.10-1"])
        source = self.toolbox("source", "newest").stdout
        assert "the mirror no longer has its source; looking for a newer kernel" in source
        assert re.search(r"/linux-source-7\.3_7\.3\.11-1_all\.deb\n$", source)
        assert self.release("newest") == release("7.3.11-1")

    def test_gone_while_the_lists_are_old(self):
        self.toolbox("kernel", "stable")
        self.publish(DEBIAN | {"trixie-backports": ["7.3.11-1"]})
        # The lists of before: Debian drops the packages while they are read.
        (self.shared / "mirror/pool/trixie-backports").rename(self.shared / "later")
        self.toolbox("kernel", "newest", ok=False)
        (self.shared / "later").rename(self.shared / "mirror/pool/trixie-backports")
        self.toolbox("kernel", "newest")
        assert self.release("newest") == release("7.3.11-1")

    def test_nothing_in_a_suite(self):
        for experimental in ([], None):
            with named(experimental):
                suites = DEBIAN | {"trixie-backports": [], "experimental": experimental}
                self.publish({suite: versions for suite, versions in suites.items() if versions is not None})
                said = self.toolbox("kernel", "--all", TOOLBOX_REFRESH=1).stdout
                assert "early warning: kernel next is not available; going on without it" in said
                # Right after a release of Debian, it has no backports.
                assert self.release("newest") == release("6.12.9-1")
        self.publish(DEBIAN | {"bookworm": []})
        done = self.toolbox("kernel", "oldstable", TOOLBOX_REFRESH=1)
        assert "oldstable: Debian has no such kernel now; keeping " + release("6.1.9-1") in done.stdout
        shutil.rmtree(self.shared / "cache")
        done = self.toolbox("kernel", "oldstable", ok=False)
        assert done.returncode == 1
        assert "oldstable: Debian has no such kernel now" in done.stdout
        shutil.rmtree(self.shared / "mirror")
        done = self.toolbox("kernel", "stable", ok=False)
        assert done.returncode == 1
        assert "can't reach Debian's mirror" in done.stdout

    def test_two_versions_of_a_release(self):
        """Each replaces the other in the tree, which clones share."""
        image = f"*/tree-*/usr/src/linux-headers-{release('6.1.9-1')}/linux-image-*"
        for version in ("6.1.9-1", "6.1.9-2", "6.1.9-1"):
            self.publish(DEBIAN | {"bookworm": [version]})
            self.toolbox("kernel", "oldstable", TOOLBOX_REFRESH=1)
            assert next((self.shared / "cache").glob(image)).read_text() == version

    def test_a_release_of_debian(self):
        """One line changes, also where the kernels of before are unpacked."""
        self.toolbox("kernel", "--all")
        self.publish({"trixie": ["6.12.9-1"], "trixie-backports": ["7.3.4-1"], "forky": ["7.6.2-1"],
                      "forky-backports": ["7.9.1-1"], "experimental": []})
        self.conf(CONF.replace("bookworm	trixie", "trixie	forky"))
        self.toolbox("kernel", "--all")
        for name, version in (("oldstable", "6.12.9-1"), ("stable", "7.6.2-1"), ("newest", "7.9.1-1")):
            assert self.release(name) == release(version)
