# SPDX-License-Identifier: GPL-2.0-only
"""What doctor finds in an initramfs: archives as the distributions make them,
which their own programs list, in a scratch system."""

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
CORE = "kernel/drivers/vfio/pci/vfio-pci-core.ko\n"
DKMS, IN_TREE = f"updates/dkms/{NAME}.ko", f"kernel/drivers/vfio/pci/nvgrace-gpu/{NAME}.ko"
CONF = "etc/nvgrace-gpu.conf.d/all.conf"
RULE, HELPER = "usr/lib/udev/rules.d/60-nvgrace-gpu.rules", "usr/lib/udev/nvgrace-gpu"
INIT = {"init": b"#!/bin/sh\n"}
PACKERS = {"gzip": ["gzip", "-c"], "xz": ["xz", "-c", "--check=crc32"], "zstd": ["zstd", "-qc"],
           "bzip2": ["bzip2", "-c"]}


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


def listers(suite, *packages):
    """{path: bytes} of the programs in these packages that list an image."""
    with tempfile.TemporaryDirectory() as directory:
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", scratch.deb(suite, package), directory], check=True)
        files = [f for f in pathlib.Path(directory).rglob("*") if f.name in ("lsinitramfs", "unmkinitramfs", "lsinitrd", "skipcpio")]
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
            self.module = module(directory, "A" * 23)
        self.parts = {RULE: b"# the rule\n", HELPER: b"#!/bin/sh\n", CONF: b"bind all\n", **INIT}
        for path in ("/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs", "/usr/share/initramfs-tools/hooks/nvgrace-gpu",
                     f"/{HELPER}"):
            self.system.write(path, "# there\n")
        self.system.write(f"/{RULE}", "# the rule\n")
        self.system.write(f"/{CONF}", "bind all\n")
        self.system.write(f"/usr/lib/modules/{RELEASE}/modules.order", "")
        self.system.write(f"/usr/lib/modules/{RELEASE}/{DKMS}", self.module)
        self.built_in(CORE)
        self.read_with(listers(*self.READERS))

    def built_in(self, names):
        """What the kernel has without a file."""
        self.system.write(f"/usr/lib/modules/{RELEASE}/modules.builtin", names)
        self.system.sh(f"depmod {RELEASE}")

    def read_with(self, programs):
        """Only these programs that list images are there."""
        self.system.sh("rm -rf /usr/bin/lsinitramfs /usr/bin/unmkinitramfs /usr/bin/lsinitrd /usr/lib/dracut")
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
        return {**self.parts, f"usr/lib/modules/{RELEASE}/{DKMS}": self.module, **more}


@pytest.fixture(scope="module")
def images():
    with contextlib.closing(scratch.Scratch()) as system:
        yield Images(system)


def files(*names):
    return sorted(f"file: {name}" for name in names)


WHOLE = files(f"{RULE} 11", HELPER, f"{CONF} 9", f"usr/lib/modules/{RELEASE}/{DKMS}")


def test_where_the_boot_loader_has_it(images):
    """What its entry names counts, and not what is in a usual place, too. An entry
    that names nothing that is there does not."""
    entry, image = f"/boot/loader/entries/{RELEASE}.conf", f"/boot/os/{RELEASE}/initrd-0a1b2c3d"
    images.look(None)
    for name, data in ((f"/boot/initrd.img-{RELEASE}", cpio(images.whole())), (image, cpio(INIT)),
                       (entry, f"linux /os/{RELEASE}/linux\ninitrd {image.removeprefix('/boot')}\n".encode())):
        images.system.write(name, data)
    renew = [images.program.parent / "udev/nvgrace-gpu", "renew"]
    said = images.system.run(images.program, "doctor", ok=False).stdout
    assert re.search(rf"which boots next, lacks the udev rule.*\n +reason: {image} .*\n +remedy: .*mkinitramfs -o {image} {RELEASE}", said), said
    assert f"mkinitramfs -o {image} {RELEASE}" in images.system.run(*renew, ok=False).stdout
    # It boots next, and is on a partition that is not mounted: the whole image in the usual place does not boot.
    images.system.write("/boot/grub/grub.cfg", "blscfg\n")
    images.system.sh(f"mv {image} /boot/away")
    said = images.system.run(images.program, "doctor", ok=False).stdout
    assert re.search(rf"not known what the initramfs of .*, which boots next, contains\n +reason: {image}: .*may not be mounted", said), said
    images.system.sh(f"mv /boot/away {image}")
    # Red Hat's entries also have a variable of GRUB's.
    images.system.write(entry, f"linux /os/{RELEASE}/linux\ninitrd {image.removeprefix('/boot')} $tuned_initrd\n".encode())
    assert f"mkinitramfs -o {image} {RELEASE}" in images.system.run(*renew, ok=False).stdout
    # GRUB's menu does not have that entry.
    images.system.write("/boot/grub/grub.cfg", f"menuentry x {{\nlinux /vmlinuz-{RELEASE}\ninitrd /initrd.img-{RELEASE}\n}}\n")
    assert f"update-initramfs -u -k {RELEASE}" in images.system.run(*renew, ok=False).stdout
    images.system.sh(f"rm /boot/grub/grub.cfg {image}")
    assert f"update-initramfs -u -k {RELEASE}" in images.system.run(*renew, ok=False).stdout


def test_a_kernel_without_what_the_module_needs(images):
    images.built_in("")
    images.judged(cpio(images.whole()), "warning", "which boots next, can't load the module.*has no vfio_pci_core")
    images.built_in(CORE)


def test_every_compression(images):
    plain = cpio(images.whole())
    for how in (None, *PACKERS):
        answer = images.judged(pack(plain, how) if how else plain, "good", "^1 kernel: each has the module")
        assert answer[:2] == [f"kernel: {RELEASE}", f"image: /boot/initrd.img-{RELEASE}"]
        assert sorted(answer[2:]) == WHOLE


def test_archives_in_a_row(images):
    """Early archives with microcode or modules, zero bytes between them,
    and a compressed last one."""
    early = cpio({"kernel/x86/microcode/GenuineIntel.bin": b"x" * 5000, "early_cpio": b"1\n"})
    place = f"usr/lib/modules/{RELEASE}/{DKMS}.xz"
    modules = cpio({place: pack(images.module, "xz")})
    for image in (early + pack(cpio(images.whole()), "gzip"),
                  early + bytes(1024) + modules + bytes(4) + pack(cpio(images.parts), "zstd"), modules + cpio(images.parts)):
        images.judged(image, "good", ".")


def test_what_is_missing(images):
    images.judged(pack(cpio(images.parts), "gzip"), "warning", rf"does not have the module.*update-initramfs -u -k {RELEASE}")
    own = {**images.parts, f"lib/modules/{RELEASE}/{IN_TREE}.zst": pack(images.module, "zstd")}
    images.judged(cpio(own), "warning", "does not have the module")
    images.judged(cpio({**own, f"lib/modules/{RELEASE}/{DKMS}": images.module}), "good", ".")
    for part in (RULE, HELPER):
        images.judged(cpio({k: v for k, v in images.whole().items() if k != part}), "warning", "binds no GPU")
    images.judged(cpio(INIT), "warning", "binds no GPU")


def test_another_configuration(images):
    for more in ({"etc/nvgrace-gpu.conf": b""}, {CONF.replace("all", "other"): b""}):
        images.judged(cpio(images.whole(**more)), "warning", "other files of the configuration")
    for more in ({CONF: b"bind all\nignore 0019:01:00.0\n"}, {RULE: b"# an older rule\n"}):
        images.judged(cpio(images.whole(**more)), "warning", "the rule or the configuration in another size")


def test_each_lister(images):
    """The programs of Debian 12 and 13, which other distributions have, too."""
    early = cpio({"kernel/x86/microcode/GenuineIntel.bin": b"x" * 5000, "early_cpio": b"1\n"})
    image = early + pack(cpio(images.whole()), "zstd")
    try:
        for suite, packages in (("bookworm", ["initramfs-tools-core"]), ("bookworm", ["dracut-core"]), ("trixie", ["dracut-core"])):
            images.read_with(listers(suite, *packages))
            assert sorted(images.judged(image, "good", ".")[2:]) == WHOLE
            images.judged(image[:-700], "unknown", "neither lsinitramfs nor lsinitrd lists all of it")
        images.read_with({})
        images.judged(image, "unknown", "neither lsinitramfs nor lsinitrd lists all of it")
    finally:
        images.read_with(listers(*Images.READERS))


def test_what_cannot_be_listed(images):
    plain = cpio(images.whole())
    packed = pack(plain, "zstd")
    for image in (packed[:len(packed) // 2], b"", bytes(5000), b"unheard-of" * 99, b"070701" + b"z" * 200, b"0",
                  plain.replace(b"070701", b"07070f", 1), b"070701" + b"ffffffff" * 13, pack(b"no archive at all", "gzip"),
                  # dracut's files outside of the image in the image are these.
                  cpio({**INIT, "squashfs-root.img": b"hsqs"}), cpio({"erofs-root.img": b""})):
        images.judged(image, "unknown", "lists all of it")


def test_a_unified_kernel_image(images):
    for name in (f"/efi/EFI/Linux/abc-{RELEASE}.efi", f"/boot/efi/EFI/Linux/linux-{RELEASE}-abc.efi"):
        command = (f"dracut --force --uefi {name} {RELEASE}" if "linux-" in name else
                   f"kernel-install add {RELEASE} /lib/modules/{RELEASE}/vmlinuz")
        try:
            answer = images.judged(cpio(INIT), "warning", command, name)
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
    images.system.write(f"/{CONF}", b"# nothing\n")
    try:
        images.judged(cpio(images.whole()), "warning", "still has files that bind GPUs")
        images.judged(cpio(INIT), "good", "no initramfs binds a GPU")
    finally:
        images.system.write(f"/{CONF}", b"bind all\n")


def test_kernels_without_the_module_are_named(images):
    """By the udev rule's program, for the packages: those that may boot next."""
    newer, program = "99.1-test", images.program.parent / "udev/nvgrace-gpu"
    images.look(b"", f"/boot/vmlinuz-{RELEASE}")

    def said(status):
        done = images.system.run(program, "kernels", ok=False)
        assert done.returncode == status
        return done.stdout

    assert said(0) == ""
    images.system.write(f"/boot/vmlinuz-{newer}", "")
    for name in ("modules.order", "modules.builtin"):
        images.system.write(f"/usr/lib/modules/{newer}/{name}", "")
    images.system.sh(f"depmod {newer}")
    try:
        words = f"nvgrace-gpu: Linux {newer} has no {NAME}, and would bind no GPU: "
        assert said(1).startswith(f"{words}neither DKMS nor Linux {newer} has one; run \"apt install {NAME}-dkms\"")
        images.system.write(f"/usr/src/{NAME}-1/dkms.conf", "")
        images.system.sh(f"mkdir -p /var/lib/dkms/{NAME}/1; ln -s /usr/src/{NAME}-1 /var/lib/dkms/{NAME}/1/source")
        assert said(1).startswith(f"{words}DKMS can't build it, because the headers of Linux {newer} are missing; install the headers")
        images.system.write(f"/usr/lib/modules/{newer}/build/Makefile", "")
        assert said(1).startswith(f"{words}DKMS has not built it")
        # The boot loader boots the other one.
        images.system.write("/boot/grub/grub.cfg", f"menuentry x {{\nlinux /boot/vmlinuz-{RELEASE}\n}}\n")
        assert said(0) == ""
        images.system.write("/boot/grub/grub.cfg", f"menuentry x {{\nlinux /boot/vmlinuz-{newer}\n}}\n")
        assert "would bind no GPU" in said(1)
        images.system.write(f"/{CONF}", "")
        assert said(0) == ""
    finally:
        images.system.write(f"/{CONF}", "bind all\n")
        images.system.sh(f"rm -r /usr/lib/modules/{newer} /usr/src/{NAME}-1 /var/lib/dkms/{NAME} /boot/grub")
