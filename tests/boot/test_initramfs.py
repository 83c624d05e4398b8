# SPDX-License-Identifier: GPL-2.0-only
"""What doctor reads in an initramfs: archives as the distributions make them,
which their own programs unpack, in a scratch system."""

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import tempfile

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
            subprocess.run(["dpkg-deb", "-x", scratch.deb(suite, package), directory], check=True)
        files = [f for f in pathlib.Path(directory).rglob("*") if f.name in ("unmkinitramfs", "lsinitrd", "skipcpio")]
        return {f"/{f.relative_to(directory)}": f.read_bytes() for f in files}


class Images:
    """A system, whose initramfs the tests replace."""

    READERS = ("trixie", "initramfs-tools-core", "initramfs-tools-bin")

    def __init__(self, system):
        self.program, self.system = build(), system
        self.system.env = sanitizer_options()
        # The toolbox's kernels have no images.
        self.system.empty("/usr/lib/modules")
        with tempfile.TemporaryDirectory() as directory:
            self.old, self.new = module(directory, OLD), module(directory, NEW)
        self.parts = {RULE: b"# the rule\n", HELPER: b"#!/bin/sh\n",
                     "etc/nvgrace-gpu.conf.d/all.conf": b"# all of them\nbind all\n", **OF_INITRAMFS_TOOLS}
        for path in ("/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs", "/usr/share/initramfs-tools/hooks/nvgrace-gpu",
                     f"/{RULE}", f"/{HELPER}"):
            self.system.write(path, "# there\n")
        self.system.write("/etc/nvgrace-gpu.conf.d/x.conf", "bind all\n")
        for name in ("modules.order", "modules.builtin"):
            self.system.write(f"/usr/lib/modules/{RELEASE}/{name}", "")
        self.system.write(f"/usr/lib/modules/{RELEASE}/{DKMS}", self.new)
        self.system.sh(f"depmod {RELEASE}")
        self.read_with(unpackers(*self.READERS))

    def read_with(self, programs):
        """Only these programs that unpack images are there."""
        self.system.sh("rm -rf /usr/bin/unmkinitramfs /usr/bin/lsinitrd /usr/lib/dracut")
        for path, data in programs.items():
            self.system.write(path, data, 0o755)

    def look(self, image, name=f"/boot/initrd.img-{RELEASE}"):
        """The doctor's findings about this image, and the lines of its answer.
        A record must give the same findings."""
        boot = self.system.dir / "upper/boot"
        shutil.rmtree(boot, ignore_errors=True)
        if image is not None:
            self.system.write(name, image, 0o600)
        record = self.system.shared / "record"
        self.system.sh("rm -rf /mnt/record")
        done = self.system.run(self.program, "doctor", "--json", "--record", "/mnt/record", ok=False)
        assert done.returncode in (0, 6, 7), done.stdout
        document = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("{"))[0]
        validate(document)
        found = [f for f in document["findings"] if f["id"] == "initramfs"]
        again = json.loads(run("doctor", "--json", root=record).stdout)["findings"]
        assert [f for f in again if f["id"] == "initramfs"] == found
        answer = record / "answers/initramfs"
        return found, answer.read_text().splitlines() if answer.exists() else []

    def judged(self, image, verdict, words, *where):
        """look() with one finding, which has this verdict and these words; the lines of
        its answer."""
        (found,), answer = self.look(image, *where)
        assert found["verdict"] == verdict, found
        assert re.search(words, f"{found['text']} {found['reason']} {found['remedy']}"), found
        return answer

    def whole(self, **more):
        return {**self.parts, f"usr/lib/modules/{RELEASE}/{DKMS}": self.new, **more}


@pytest.fixture(scope="module")
def images():
    with contextlib.closing(scratch.Scratch()) as system:
        yield Images(system)


def test_where_it_can_be(images):
    images.system.write("/etc/machine-id", "abc\n")
    for name in (f"/boot/initramfs-{RELEASE}.img", f"/boot/abc/{RELEASE}/initrd", f"/boot/efi/abc/{RELEASE}/initrd"):
        answer = images.judged(cpio(images.whole()), "good", "^1 kernel: each has the module", name)
        assert answer[1] == f"image: {name}"
    images.system.write("/etc/kernel/entry-token", "mine\n")
    try:
        assert images.look(cpio(images.whole()), f"/boot/mine/{RELEASE}/initrd")[1][1] == f"image: /boot/mine/{RELEASE}/initrd"
    finally:
        images.system.sh("rm /etc/kernel/entry-token")


def test_every_compression(images):
    plain = cpio(images.whole())
    for how in (None, *PACKERS):
        answer = images.judged(pack(plain, how) if how else plain, "good", "^1 kernel: each has the module")
        assert answer == [f"kernel: {RELEASE}", f"image: /boot/initrd.img-{RELEASE}", f"installed: {DKMS} {NEW}",
                          f"module: {DKMS} {NEW}", "parts: rule helper", "directive: bind all"]


def test_names_of_images(images):
    image = pack(cpio(images.whole()), "zstd")
    for name in (f"/boot/initramfs-{RELEASE}.img", f"/boot/initrd-{RELEASE}"):
        answer = images.judged(image, "good", ".", name)
        assert f"image: {name}" in answer


def test_archives_in_a_row(images):
    """Early archives with microcode or modules, zero bytes between them,
    and a compressed last one."""
    early = cpio({"kernel/x86/microcode/GenuineIntel.bin": b"x" * 5000, "early_cpio": b"1\n"})
    modules = cpio({f"usr/lib/modules/{RELEASE}/{DKMS}.xz": pack(images.new, "xz")})
    for image in (early + pack(cpio(images.whole()), "gzip"), early + bytes(1024) + modules + bytes(4) +
                  pack(cpio(images.parts), "zstd"), modules + cpio(images.parts), cpio(images.parts) + pack(modules, "xz")):
        answer = images.judged(image, "good", ".")
        assert f"module: {DKMS} {NEW}" in answer


def test_another_module(images):
    image = images.whole(**{f"usr/lib/modules/{RELEASE}/{DKMS}": images.old})
    answer = images.judged(pack(cpio(image), "zstd"), "warning", rf"another module.*update-initramfs -u -k {RELEASE}")
    assert f"module: {DKMS} {OLD}" in answer


def test_the_kernels_own_module(images):
    image = {**images.parts, f"lib/modules/{RELEASE}/{IN_TREE}.zst": pack(images.new, "zstd")}
    answer = images.judged(cpio(image), "warning", "another module")
    assert f"module: {IN_TREE} {NEW}" in answer
    # A module without a srcversion is judged by its place.
    answer = images.judged(cpio(images.whole(**{f"usr/lib/modules/{RELEASE}/{DKMS}": b"no module at all"})), "good", ".")
    assert f"module: {DKMS} -" in answer
    # With both modules, modprobe loads that of DKMS.
    images.judged(cpio({**image, f"lib/modules/{RELEASE}/{DKMS}": images.new}), "good", ".")


def test_what_is_missing(images):
    images.judged(pack(cpio(images.parts), "gzip"), "warning", "has no module")
    for part in (RULE, HELPER):
        images.judged(cpio({k: v for k, v in images.whole().items() if k != part}), "warning", "binds no GPU")
    images.judged(cpio(OF_DRACUT), "warning", "binds no GPU")


def test_another_configuration(images):
    conf = "etc/nvgrace-gpu.conf.d/all.conf"
    for text in (b"bind 0009:01:00.0\n", b"bind all\nignore 0009:01:00.0\n", b"# bind all\n"):
        images.judged(cpio(images.whole(**{conf: text})), "warning", "another configuration")
    # The same directives, with other spaces and in another file.
    images.judged(cpio({**images.whole(**{conf: b""}), "etc/nvgrace-gpu.conf": b"\tbind   all # really\r\nbind all"}), "good", ".")


def test_each_reader(images):
    """The programs of Debian 12 and 13, which other distributions have, too."""
    early = cpio({"kernel/x86/microcode/GenuineIntel.bin": b"x" * 5000, "early_cpio": b"1\n"})
    image = early + pack(cpio(images.whole()), "zstd")
    try:
        for suite, packages in (("bookworm", ["initramfs-tools-core"]), ("bookworm", ["dracut-core"]), ("trixie", ["dracut-core"])):
            images.read_with(unpackers(suite, *packages))
            answer = images.judged(image, "good", ".")
            assert answer[3:] == [f"module: {DKMS} {NEW}", "parts: rule helper", "directive: bind all"]
            images.judged(image[:-700], "unknown", "can't unpack it")
            assert images.system.sh("ls /var/tmp").stdout == ""
        images.read_with({})
        images.judged(image, "unknown", "neither unmkinitramfs nor lsinitrd is there")
    finally:
        images.read_with(unpackers(*Images.READERS))


def test_what_cannot_be_read(images):
    plain = cpio(images.whole())
    packed = pack(plain, "zstd")
    for image in (plain[:-700], packed[:len(packed) // 2], b"", bytes(5000), b"unheard-of" * 99, b"070701" + b"z" * 200, b"0",
                  plain.replace(b"070701", b"07070f", 1), b"070701" + b"ffffffff" * 13, pack(b"no archive at all", "gzip")):
        images.judged(image, "unknown", "unpack it|could be unpacked")


def test_what_is_not_shown(images):
    """What an image lacks is only said of all of it."""
    init = {"init": b"#!/bin/sh\n"}
    for image in (pack(cpio(init), "zstd") + pack(cpio(images.whole()), "zstd"), pack(cpio(init), "gzip"),
                  # dracut's files outside of the image in the image are these.
                  cpio({**init, **OF_DRACUT, "squash-root.img": b"hsqs"}), cpio({**OF_DRACUT, "erofs-root.img": b""})):
        images.judged(image, "unknown", "what could be unpacked|in an image of their own")


def test_a_unified_kernel_image(images):
    images.system.write("/etc/machine-id", "abc\n")
    for name in (f"/efi/EFI/Linux/abc-{RELEASE}.efi", f"/boot/efi/EFI/Linux/linux-{RELEASE}-abc.efi"):
        try:
            answer = images.judged(cpio(OF_DRACUT), "warning", f'run "kernel-install add {RELEASE} /lib/modules/{RELEASE}/vmlinuz"', name)
        finally:
            (images.system.dir / "upper" / name.lstrip("/")).unlink()
        assert answer[1] == f"image: {name}"


def test_no_image(images):
    assert images.look(None) == ([], [])
    # A kernel without a known one.
    answer = images.judged(b"", "unknown", f"no initramfs of Linux {RELEASE}, which boots next, is known", f"/boot/vmlinuz-{RELEASE}")
    assert answer == [f"kernel: {RELEASE}", "image: none"]


def test_no_wish(images):
    """An image keeps a configuration that was removed from /etc. An image
    without one is good."""
    images.system.write("/etc/nvgrace-gpu.conf.d/x.conf", b"# nothing\n")
    try:
        images.judged(cpio(images.whole()), "warning", "still binds")
        images.judged(cpio(OF_DRACUT), "good", "no initramfs binds a GPU")
    finally:
        images.system.write("/etc/nvgrace-gpu.conf.d/x.conf", b"bind all\n")
