# SPDX-License-Identifier: GPL-2.0-only
"""The kernels that machines boot."""

import pathlib
import re
import struct
import subprocess

from lab import initramfs, toolbox
from lab.arch import ARCHITECTURES, untranslated
from lab.archive import cached, decompress
from lab.config import ConfigError

PROJECT = pathlib.Path(__file__).resolve().parents[2]


class Kernel:
    """A kernel of tests/lab/kernels.conf, unpacked by scripts/dev/toolbox, or one that
    tests/lab/kernels/build made."""

    def __init__(self, name):
        self.name = name
        self.release = self._ask("release")
        self.headers = pathlib.Path(self._ask("kdir"))
        config = (self.headers / ".config").read_text()
        arch = next(a for a in ARCHITECTURES if f"\n{a.option}=y\n" in config)
        # The first two numbers, for what only the version of Linux decides.
        self.version = tuple(map(int, re.findall(r"\d+", self.release)[:2]))
        # The root of the kernel's files, "/" for Debian's, with Debian's
        # layout: boot, usr/lib/modules, usr/src.
        self.root = self.headers.parents[2]
        self.directory = self.root / "usr/lib/modules" / self.release
        self.arch = arch if arch.iommu_module is None or self.provides(arch.iommu_module) else untranslated(arch)

    def _ask(self, word):
        try:
            return toolbox.ask(word, self.name)
        except toolbox.Failed as e:
            raise ConfigError(f"kernel {self.name}: {e}") from None

    def has(self, option):
        """Whether the kernel was configured with option=y."""
        return f"\n{option}=y\n" in (self.headers / ".config").read_text()

    @property
    def config_file(self):
        """{path in a machine: path here} of the configuration, where Debian has it."""
        return {f"/boot/config-{self.release}": str(self.headers / ".config")}

    def module_files(self, module):
        """The files of the module and of those it depends on, in the order of
        loading. Empty if the module does not exist or is built in."""
        done = subprocess.run(["modprobe", "-d", str(self.root), "-S", self.release, "--show-depends", module],
                              capture_output=True, text=True)
        # With -d / the names begin with two slashes.
        return [re.sub("^//", "/", line.split()[1]) for line in done.stdout.splitlines() if line.startswith("insmod ")]

    def provides(self, module):
        """Whether there is a module of that name."""
        return bool(self.module_files(module))

    def module_path(self, module):
        """The module's own file, as in the package."""
        return pathlib.Path(self.module_files(module)[-1])

    def guest_name(self, path):
        """The guest's path of one of this kernel's files. /lib is no link
        there."""
        return re.sub(r"^(usr/)?", "/", str(pathlib.Path(path).relative_to(self.root)))

    def image(self):
        """The image's path. An EFI zboot image is unpacked, because unpacking
        itself under emulation takes it seconds."""
        for path in (self.root / "boot" / f"vmlinuz-{self.release}", self.directory / "vmlinuz"):
            if path.exists():
                break
        else:
            raise ConfigError(f"kernel {self.name} has no image: tests/lab/kernels.conf says that it isn't booted")
        data = path.read_bytes()
        if data[4:8] != b"zimg":
            return path
        offset, size = struct.unpack_from("<II", data, 8)
        kind = data[24:56].split(b"\0")[0].decode()
        payload = data[offset:offset + size]
        suffix = {"gzip": ".gz", "zstd": ".zst", "xzkern": ".xz"}.get(kind)
        if suffix is None:
            return path
        return cached(f"image-{self.release}", [data], lambda: decompress(payload, suffix))

    def initramfs(self):
        """The path of the initramfs that all runs on this kernel share."""
        return initramfs.shared(self)
