#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Tests of making a release: the owner's settings, the files with the version,
and the tarball.

    release.py [unittest's arguments]

Runs inside the toolbox, after `make deb rpm`, in copies of the project below
build/, which are removed.
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest

import scratch

NAME = "nvgrace-gpu-vfio-pci"
VERSION = scratch.version()
# With characters that are special for a shell, make or awk.
MAINTAINER = "Seán O'Brien & Söhne <sean@example.org>"
RELEASES = "https://example.org/a&b"
NEXT = "999.10.0"
EPOCH = "1800000000"    # Friday, 15 January 2027


class Copy(unittest.TestCase):
    def setUp(self):
        (scratch.PROJECT / "build").mkdir(exist_ok=True)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="release-test-", dir=scratch.PROJECT / "build"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.copy = self.make_copy("copy")

    def make_copy(self, name):
        copy = self.dir / name
        skip = shutil.ignore_patterns(".git", "__pycache__", ".checkpatch-*")
        # Some files are named "build", too.
        shutil.copytree(scratch.PROJECT, copy, symlinks=True, ignore=lambda folder, names: skip(folder, names) | {
            n for n in names if n == "build" and (pathlib.Path(folder) / n).is_dir()})
        return copy

    def run_in(self, where, *argv, ok=True, **env):
        result = subprocess.run(argv, cwd=where, env={**os.environ, **env}, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual(result.returncode == 0, ok, result.stdout)
        return result.stdout

    def change(self, name, pattern, text):
        file = self.copy / name
        changed, count = re.subn(pattern, lambda _: text, file.read_text(), flags=re.M)
        self.assertEqual(count, 1, f"{name}: {pattern}")
        file.write_text(changed)

    def read(self, name):
        return (self.copy / name).read_text()

    def dist(self, where):
        self.run_in(where, "make", "dist")
        return next((where / "build" / "dist").glob("*.tar.xz"))


class Dist(Copy):
    def test_the_same_bytes_wherever_and_whenever(self):
        other = self.make_copy("other")
        for path in [other, *other.rglob("*")]:
            os.utime(path, (1, 1), follow_symlinks=False)
        first, second = self.dist(self.copy), self.dist(other)
        self.assertEqual(first.name, f"{NAME}-{VERSION}.tar.xz")
        self.assertEqual(first.read_bytes(), second.read_bytes())
        self.run_in(first.parent, "sha256sum", "--check", f"{first.name}.sha256")

        with self.subTest("it has all files, in one folder"):
            with tarfile.open(first) as tar:
                names = {m.name for m in tar.getmembers() if m.isfile()}
                self.assertEqual({(m.uid, m.gid, m.uname, m.gname) for m in tar.getmembers()}, {(0, 0, "", "")})
                self.assertEqual(len({m.mtime for m in tar.getmembers()}), 1)
            wanted = {f"{NAME}-{VERSION}/{p.relative_to(self.copy)}" for p in self.copy.rglob("*")
                      if p.is_file() and p.relative_to(self.copy).parts[0] != "build"}
            self.assertEqual(names, wanted)

        with self.subTest("what is unpacked makes the same again"):
            self.run_in(self.dir, "tar", "-xf", first)
            self.assertEqual(self.dist(self.dir / f"{NAME}-{VERSION}").read_bytes(), first.read_bytes())

    def test_the_source_packages_contain_it(self):
        tarball = self.dist(self.copy).read_bytes()
        again = "the packages have other sources; run `make deb rpm`"
        self.assertTrue(scratch.package(f"{NAME}_{VERSION}.orig.tar.xz").read_bytes() == tarball, again)
        self.run_in(self.dir, "sh", "-ec", f"rpm2cpio {scratch.package('*.src.rpm')} | cpio --quiet -id")
        self.assertTrue((self.dir / f"{NAME}-{VERSION}.tar.xz").read_bytes() == tarball, again)

    def test_uscan_finds_it(self):
        """With the pattern of debian/watch, as uscan reads it."""
        self.change("Makefile", r"^RELEASES .*", f"RELEASES := {RELEASES}")
        tarball = self.dist(self.copy)
        with tarfile.open(tarball) as tar:
            watch = tar.extractfile(f"{NAME}-{VERSION}/debian/watch").read().decode()
        lines = [line for line in watch.splitlines() if line and not line.startswith("#")]
        self.assertEqual(lines[0], "version=4")
        url, pattern = lines[1].split()
        self.assertEqual(url, RELEASES + "/")
        # uscan(1), "Watch file examples", defines these words.
        pattern = pattern.replace("@ANY_VERSION@", r"[-_]?[Vv]?(\d[\-+\.:\~\da-zA-Z]*)").replace(
            "@ARCHIVE_EXT@", r"(?i)(?:\.(?:tar\.xz|tar\.bz2|tar\.gz|tar\.zstd?|zip|tgz|tbz|txz))")
        match = re.fullmatch(pattern.replace("(?i)", ""), tarball.name)
        self.assertEqual(match[1], VERSION)


class Settings(Copy):
    def test_the_maintainer_goes_everywhere(self):
        self.change("Makefile", r"^MAINTAINER .*", f"MAINTAINER := {MAINTAINER}")
        with tarfile.open(self.dist(self.copy)) as tar:
            def read(name):
                return tar.extractfile(f"{NAME}-{VERSION}/{name}").read().decode()
            self.assertIn(f"\nMaintainer: {MAINTAINER}\n", read("debian/control"))
            self.assertEqual(read("debian/control").count("Maintainer: "), 1)
            self.assertRegex(read("debian/changelog"), rf"(?s)^{NAME} \({re.escape(VERSION)}-.*?\n -- {re.escape(MAINTAINER)}  \S")
            self.assertRegex(read(f"rpm/{NAME}.spec"),
                             rf"%changelog\n\* \w+ \w+ \d+ \d+ {re.escape(MAINTAINER)} - {re.escape(VERSION)}-1\n")
        headers = subprocess.run([scratch.PROJECT / "scripts" / "toolbox", "kdir", "newest"], capture_output=True, text=True,
                                 check=True).stdout.strip()
        self.run_in(self.copy, "scripts/toolbox", "cached", "make", "modules", f"KDIR={headers}", "ARCH=arm64",
                    "CROSS_COMPILE=aarch64-linux-gnu-")
        module = next((self.copy / "build").glob(f"*/{NAME}.ko"))
        self.assertEqual(self.run_in(self.copy, "modinfo", "-F", "author", module), MAINTAINER + "\n")

    def test_what_is_malformed_is_refused(self):
        for name, value in (("MAINTAINER", ""), ("MAINTAINER", "Somebody"), ("MAINTAINER", "a@example.org"),
                            ("MAINTAINER", "A <a>"), ("RELEASES", ""), ("RELEASES", "example.org/"),
                            ("RELEASES", "https://example.org/")):
            with self.subTest(f"{name}={value}"):
                kept = self.read("Makefile")
                self.change("Makefile", rf"^{name} .*", f"{name} := {value}")
                self.assertIn(name, self.run_in(self.copy, "make", "dist", ok=False))
                (self.copy / "Makefile").write_text(kept)


class Version(Copy):
    def unreleased(self, text):
        self.change("CHANGELOG.md", r"(?s)^## .*", f"{text}## 0.0.1, 2020-01-01\n\n- Old.\n")

    def test_one_command_for_all_places(self):
        self.unreleased("## Unreleased\n\n- First change, with 100% of\n  two lines.\n- " + "word " * 30 + "\n\n")
        before = self.read("debian/changelog")
        self.run_in(self.copy, "make", "version", f"V={NEXT}", SOURCE_DATE_EPOCH=EPOCH)
        self.assertIn(f'PACKAGE_VERSION="{NEXT}"\n', self.read("dkms.conf"))
        self.assertRegex(self.read("CHANGELOG.md"), rf"\n## {NEXT}, 2027-01-15\n\n- First change")
        self.assertNotIn("Unreleased\n", self.read("CHANGELOG.md"))
        maintainer = re.search(r"^MAINTAINER := (.*)", self.read("Makefile"), re.M)[1]
        new = self.read("debian/changelog").removesuffix(before)
        self.assertEqual(new.splitlines()[:3], [f"{NAME} ({NEXT}-1) unstable; urgency=medium", "",
                                                "  * First change, with 100% of two lines."])
        self.assertIn(f"\n -- {maintainer}  Fri, 15 Jan 2027 08:00:00 +0000\n\n", new)
        self.assertLessEqual(max(len(line) for line in new.splitlines() if not line.startswith(" -- ")), 80)
        self.run_in(self.copy, "dpkg-parsechangelog", "--all")
        spec = self.read(f"rpm/{NAME}.spec")
        self.assertRegex(spec, rf"(?m)^Version: +{NEXT}$")
        self.assertIn(f"%changelog\n* Fri Jan 15 2027 {maintainer} - {NEXT}-1\n- First change, with 100%% of two lines.\n", spec)
        changes = self.run_in(self.copy, "rpmspec", "-q", "--srpm", "--qf", "[%{CHANGELOGTEXT}\n]", f"rpm/{NAME}.spec")
        self.assertIn("- First change, with 100% of two lines.\n- word word", changes)

        with self.subTest("the packages' builder agrees, and nothing states the old one"):
            self.assertEqual(self.dist(self.copy).name, f"{NAME}-{NEXT}.tar.xz")
        with self.subTest("twice is once too often"):
            self.assertIn("not later", self.run_in(self.copy, "make", "version", f"V={NEXT}", ok=False))

    def test_what_is_refused_changes_nothing(self):
        self.unreleased("## Unreleased\n\n- Change.\n\n")

        def state():
            return {p: hashlib.sha256(p.read_bytes()).digest() for p in self.copy.rglob("*") if p.is_file()}
        before = state()
        for version, reason in (("", "is no version"), ("1.2", "is no version"), ("v1.2.3", "is no version"),
                                ("1.2.3-1", "is no version"), ("01.2.3", "is no version"), ("0.0.9", "is not later"),
                                (VERSION, "is not later")):
            with self.subTest(version):
                self.assertIn(reason, self.run_in(self.copy, "make", "version", f"V={version}", ok=False))
                self.assertEqual(state(), before)

    def test_without_changes_there_is_no_release(self):
        for text in ("", "## Unreleased\n\n"):
            self.unreleased(text)
            self.assertIn("CHANGELOG.md", self.run_in(self.copy, "make", "version", f"V={NEXT}", ok=False))
            self.copy = self.make_copy(f"again{len(text)}")


if __name__ == "__main__":
    unittest.main()
