# SPDX-License-Identifier: GPL-2.0-only
"""What doctor reads in an initramfs: archives as the distributions make them,
which their own programs unpack, in a scratch system."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import pytest

from cli.common import build, run, sanitizer_options, validate
from lab.system import scratch

pytestmark = [pytest.mark.all, pytest.mark.needs("trees")]

RELEASE = "6.18.1-test"
NAME = "nvgrace-gpu-vfio-pci"
DKMS, IN_TREE = f"updates/dkms/{NAME}.ko", f"kernel/drivers/vfio/pci/nvgrace-gpu/{NAME}.ko"
RULE, HELPER = "usr/lib/udev/rules.d/60-nvgrace-gpu.rules", "usr/lib/udev/nvgrace-gpu"
OLD, NEW = "A" * 23, "B" * 23
PACKERS = {"gzip": ["gzip", "-c"], "xz": ["xz", "-c", "--check=crc32"], "zstd": ["zstd", "-qc"],
           "bzip2": ["bzip2", "-c"]}
# What shows who made an image.
OF_INITRAMFS_TOOLS, OF_DRACUT = {"scripts/functions": b""}, {"usr/lib/dracut/modules.txt": b""}


def module(directory, srcversion):
    """The bytes of an object file that modinfo reads as a module with this
    srcversion."""
    source, out = pathlib.Path(directory, "m.c"), pathlib.Path(directory, "m.o")
    source.write_text('__attribute__((section(".modinfo"), used)) static const char info[] =\n'
                      f'\t"srcversion={srcversion}\\0vermagic={RELEASE} SMP\\0name=nvgrace_gpu_vfio_pci";\n')
    subprocess.run(["gcc", "-c", "-o", out, source], check=True)
    return out.read_bytes()


def cpio(files):
    """An archive of {path: bytes} in the kernel's format."""
    with tempfile.TemporaryDirectory() as directory:
        names = []
        for name, data in files.items():
            path = pathlib.Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            names += [str(p) for p in reversed(pathlib.Path(name).parents)] + [name]
        return subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=directory, check=True,
                              input="\n".join(dict.fromkeys(names)).encode(), stdout=subprocess.PIPE).stdout


def pack(data, how):
    # libkmod needs the size in the header, which zstd writes for files.
    size = [f"--stream-size={len(data)}"] if how == "zstd" else []
    return subprocess.run([*PACKERS[how], *size], input=data, stdout=subprocess.PIPE, check=True).stdout


def unpackers(suite, *packages):
    """{path: bytes} of the programs in these packages that unpack an image."""
    with tempfile.TemporaryDirectory() as directory:
        for package in packages:
            deb, = (scratch.tree(suite) / "srv/debian").glob(f"{package}_*.deb")
            subprocess.run(["dpkg-deb", "-x", deb, directory], check=True)
        files = [f for f in pathlib.Path(directory).rglob("*") if f.name in ("unmkinitramfs", "lsinitrd", "skipcpio")]
        return {f"/{f.relative_to(directory)}": f.read_bytes() for f in files}


class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.program = build()
        cls.system = scratch.Scratch()
        cls.addClassCleanup(cls.system.close)
        cls.system.env = sanitizer_options()
        # The toolbox's kernels have no images.
        cls.system.empty("/usr/lib/modules")
        with tempfile.TemporaryDirectory() as directory:
            cls.old, cls.new = module(directory, OLD), module(directory, NEW)
        cls.parts = {RULE: b"# the rule\n", HELPER: b"#!/bin/sh\n",
                     "etc/nvgrace-gpu.conf.d/all.conf": b"# all of them\nbind all\n", **OF_INITRAMFS_TOOLS}
        for path in ("/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs", "/usr/share/initramfs-tools/hooks/nvgrace-gpu",
                     f"/{RULE}", f"/{HELPER}"):
            cls.system.write(path, "# there\n")
        cls.system.write("/etc/nvgrace-gpu.conf.d/x.conf", "bind all\n")
        for name in ("modules.order", "modules.builtin"):
            cls.system.write(f"/usr/lib/modules/{RELEASE}/{name}", "")
        cls.put(f"/usr/lib/modules/{RELEASE}/{DKMS}", cls.new)
        cls.system.sh(f"depmod {RELEASE}")
        cls.read_with(unpackers("trixie", "initramfs-tools-core", "initramfs-tools-bin"))

    @classmethod
    def read_with(cls, programs):
        """Only these programs that unpack images are there."""
        cls.system.sh("rm -rf /usr/bin/unmkinitramfs /usr/bin/lsinitrd /usr/lib/dracut")
        for path, data in programs.items():
            cls.put(path, data, 0o755)

    @classmethod
    def put(cls, path, data, mode=0o644):
        file = cls.system.dir / "upper" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        # The overlay marks a removed file with a character device 0:0.
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        file.chmod(mode)

    def look(self, image, name=f"/boot/initrd.img-{RELEASE}", mode=0o600):
        """The doctor's findings about this image, and the lines of its answer.
        A record must give the same findings."""
        boot = self.system.dir / "upper/boot"
        shutil.rmtree(boot, ignore_errors=True)
        if image is not None:
            self.put(name, image)
            (self.system.dir / "upper" / name.lstrip("/")).chmod(mode)
        record = self.system.shared / "record"
        self.system.sh("rm -rf /mnt/record")
        done = self.system.run(self.program, "doctor", "--json", "--record", "/mnt/record", ok=False)
        self.assertIn(done.returncode, (0, 6, 7), done.stdout)
        document = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("{"))[0]
        validate(document)
        found = [f for f in document["findings"] if f["id"] == "initramfs"]
        again = json.loads(run("doctor", "--json", root=record).stdout)["findings"]
        self.assertEqual([f for f in again if f["id"] == "initramfs"], found)
        answer = record / "answers/initramfs"
        return found, answer.read_text().splitlines() if answer.exists() else []

    def assert_one(self, found, verdict, words):
        self.assertEqual([f["verdict"] for f in found], [verdict], found)
        self.assertRegex(f"{found[0]['text']} {found[0]['reason']} {found[0]['remedy']}", words)

    def whole(self, **more):
        return {**self.parts, f"usr/lib/modules/{RELEASE}/{DKMS}": self.new, **more}

    def test_where_it_can_be(self):
        self.system.write("/etc/machine-id", "abc\n")
        for name in (f"/boot/initramfs-{RELEASE}.img", f"/boot/abc/{RELEASE}/initrd", f"/boot/efi/abc/{RELEASE}/initrd"):
            with self.subTest(name):
                found, answer = self.look(cpio(self.whole()), name)
                self.assert_one(found, "good", "of 1 kernel")
                self.assertEqual(answer[1], f"image: {name}")
        self.system.write("/etc/kernel/entry-token", "mine\n")
        self.assertEqual(self.look(cpio(self.whole()), f"/boot/mine/{RELEASE}/initrd")[1][1], f"image: /boot/mine/{RELEASE}/initrd")

    def test_every_compression(self):
        plain = cpio(self.whole())
        for how in (None, *PACKERS):
            with self.subTest(how):
                found, answer = self.look(pack(plain, how) if how else plain)
                self.assert_one(found, "good", "of 1 kernel")
                self.assertEqual(answer, [f"kernel: {RELEASE}", f"image: /boot/initrd.img-{RELEASE}",
                                          f"installed: {DKMS} {NEW}", f"module: {DKMS} {NEW}", "parts: rule helper",
                                          "directive: bind all"])

    def test_names_of_images(self):
        image = pack(cpio(self.whole()), "zstd")
        for name in (f"/boot/initramfs-{RELEASE}.img", f"/boot/initrd-{RELEASE}"):
            found, answer = self.look(image, name)
            self.assert_one(found, "good", ".")
            self.assertIn(f"image: {name}", answer)

    def test_archives_in_a_row(self):
        """Early archives with microcode or modules, zero bytes between them,
        and a compressed last one."""
        early = cpio({"kernel/x86/microcode/GenuineIntel.bin": b"x" * 5000, "early_cpio": b"1\n"})
        modules = cpio({f"usr/lib/modules/{RELEASE}/{DKMS}.xz": pack(self.new, "xz")})
        for image in (early + pack(cpio(self.whole()), "gzip"), early + bytes(1024) + modules + bytes(4) +
                      pack(cpio(self.parts), "zstd"), modules + cpio(self.parts), cpio(self.parts) + pack(modules, "xz")):
            found, answer = self.look(image)
            self.assert_one(found, "good", ".")
            self.assertIn(f"module: {DKMS} {NEW}", answer)

    def test_another_module(self):
        image = self.whole(**{f"usr/lib/modules/{RELEASE}/{DKMS}": self.old})
        found, answer = self.look(pack(cpio(image), "zstd"))
        self.assertIn(f"module: {DKMS} {OLD}", answer)
        self.assert_one(found, "warning", rf"another module.*update-initramfs -u -k {RELEASE}")

    def test_the_kernels_own_module(self):
        image = {**self.parts, f"lib/modules/{RELEASE}/{IN_TREE}.zst": pack(self.new, "zstd")}
        found, answer = self.look(cpio(image))
        self.assertIn(f"module: {IN_TREE} {NEW}", answer)
        self.assert_one(found, "warning", "another module")
        # A module without a srcversion is judged by its place.
        found, answer = self.look(cpio(self.whole(**{f"usr/lib/modules/{RELEASE}/{DKMS}": b"no module at all"})))
        self.assertIn(f"module: {DKMS} -", answer)
        self.assert_one(found, "good", ".")
        # With both modules, modprobe loads that of DKMS.
        found, _ = self.look(cpio({**image, f"lib/modules/{RELEASE}/{DKMS}": self.new}))
        self.assert_one(found, "good", ".")

    def test_what_is_missing(self):
        found, _ = self.look(pack(cpio(self.parts), "gzip"))
        self.assert_one(found, "warning", "has no module")
        for part in (RULE, HELPER):
            found, _ = self.look(cpio({k: v for k, v in self.whole().items() if k != part}))
            self.assert_one(found, "warning", "binds no GPU")
        found, _ = self.look(cpio(OF_DRACUT))
        self.assert_one(found, "warning", "binds no GPU")

    def test_another_configuration(self):
        conf = "etc/nvgrace-gpu.conf.d/all.conf"
        for text in (b"bind 0009:01:00.0\n", b"bind all\nignore 0009:01:00.0\n", b"# bind all\n"):
            found, _ = self.look(cpio(self.whole(**{conf: text})))
            self.assert_one(found, "warning", "another configuration")
        # The same directives, with other spaces and in another file.
        found, _ = self.look(cpio({**self.whole(**{conf: b""}), "etc/nvgrace-gpu.conf": b"\tbind   all # really\r\nbind all"}))
        self.assert_one(found, "good", ".")

    def test_each_reader(self):
        """The programs of Debian 12 and 13, which other distributions have, too."""
        self.addCleanup(self.read_with, unpackers("trixie", "initramfs-tools-core", "initramfs-tools-bin"))
        early = cpio({"kernel/x86/microcode/GenuineIntel.bin": b"x" * 5000, "early_cpio": b"1\n"})
        image = early + pack(cpio(self.whole()), "zstd")
        for suite, packages in (("bookworm", ["initramfs-tools-core"]), ("bookworm", ["dracut-core"]), ("trixie", ["dracut-core"])):
            with self.subTest(f"{suite} {packages}"):
                self.read_with(unpackers(suite, *packages))
                found, answer = self.look(image)
                self.assert_one(found, "good", ".")
                self.assertEqual(answer[3:], [f"module: {DKMS} {NEW}", "parts: rule helper", "directive: bind all"])
                self.assert_one(self.look(image[:-700])[0], "unknown", "can't unpack it")
                self.assertEqual(self.system.sh("ls /var/tmp").stdout, "")
        self.read_with({})
        self.assert_one(self.look(image)[0], "unknown", "neither unmkinitramfs nor lsinitrd is there")

    def test_what_cannot_be_read(self):
        plain = cpio(self.whole())
        packed = pack(plain, "zstd")
        for image in (plain[:-700], packed[:len(packed) // 2], b"", bytes(5000), b"unheard-of" * 99, b"070701" + b"z" * 200, b"0",
                      plain.replace(b"070701", b"07070f", 1), b"070701" + b"ffffffff" * 13, pack(b"no archive at all", "gzip")):
            with self.subTest(image[:16]):
                self.assert_one(self.look(image)[0], "unknown", "unpack it|could be unpacked")

    def test_what_is_not_shown(self):
        """What an image lacks is only said of all of it."""
        init = {"init": b"#!/bin/sh\n"}
        for image in (pack(cpio(init), "zstd") + pack(cpio(self.whole()), "zstd"), pack(cpio(init), "gzip"),
                      # dracut's files outside of the image in the image are these.
                      cpio({**init, **OF_DRACUT, "squash-root.img": b"hsqs"}), cpio({**OF_DRACUT, "erofs-root.img": b""})):
            self.assert_one(self.look(image)[0], "unknown", "what could be unpacked|in an image of their own")

    def test_a_unified_kernel_image(self):
        self.system.write("/etc/machine-id", "abc\n")
        for name in (f"/efi/EFI/Linux/abc-{RELEASE}.efi", f"/boot/efi/EFI/Linux/linux-{RELEASE}-abc.efi"):
            try:
                found, answer = self.look(cpio(OF_DRACUT), name)
            finally:
                (self.system.dir / "upper" / name.lstrip("/")).unlink()
            self.assertEqual(answer[1], f"image: {name}")
            self.assert_one(found, "warning", f'run "kernel-install add {RELEASE} /lib/modules/{RELEASE}/vmlinuz"')

    def test_no_image(self):
        self.assertEqual(self.look(None), ([], []))
        # A kernel without a known one.
        found, answer = self.look(b"", f"/boot/vmlinuz-{RELEASE}")
        self.assert_one(found, "unknown", f"no initramfs of {RELEASE} is known")
        self.assertEqual(answer, [f"kernel: {RELEASE}", "image: none"])

    def test_no_wish(self):
        """An image keeps a configuration that was removed from /etc. An image
        without one is good."""
        self.put("/etc/nvgrace-gpu.conf.d/x.conf", b"# nothing\n")
        try:
            found, _ = self.look(cpio(self.whole()))
            self.assert_one(found, "warning", "still binds")
            found, _ = self.look(cpio(OF_DRACUT))
            self.assert_one(found, "good", "binds no GPU")
        finally:
            self.put("/etc/nvgrace-gpu.conf.d/x.conf", b"bind all\n")
