# SPDX-License-Identifier: GPL-2.0-only
"""Archives in the kernel's format, compressed files, and a cache for what takes
long to make."""

import contextlib
import glob
import gzip
import hashlib
import lzma
import os
import pathlib
import subprocess
import tempfile
import time

from lab.config import ConfigError

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "nvgrace-gpu-vfio-pci"
# Seconds after which something unused leaves the cache.
UNUSED_S = 30 * 24 * 3600


class Cpio:
    """An archive in the kernel's "newc" format."""

    def __init__(self):
        self.out = bytearray()
        self.inode = 0
        self.directories = set()

    def _entry(self, name, mode, data=b"", rdev=(0, 0)):
        self.inode += 1
        encoded = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(encoded), 0)
        self.out += b"070701" + b"".join(b"%08X" % f for f in fields) + encoded
        self.out += bytes(-len(self.out) % 4)
        self.out += data
        self.out += bytes(-len(self.out) % 4)

    def _parents(self, name):
        for parent in reversed(pathlib.PurePosixPath(name).parents):
            if str(parent) != "." and str(parent) not in self.directories:
                self.directories.add(str(parent))
                self._entry(str(parent), 0o040755)

    def file(self, name, data, mode=0o644):
        name = name.lstrip("/")
        self._parents(name)
        self._entry(name, 0o100000 | mode, data if isinstance(data, bytes) else data.encode())

    def link(self, name, target):
        name = name.lstrip("/")
        self._parents(name)
        self._entry(name, 0o120777, target.encode())

    def device(self, name, major, minor):
        name = name.lstrip("/")
        self._parents(name)
        self._entry(name, 0o020600, rdev=(major, minor))

    def tree(self, name, path):
        """A file, or a directory with everything below it."""
        path = pathlib.Path(path)
        if not path.exists():
            raise ConfigError(f"{path} is not there (wanted as {name} in the guest)")
        if path.is_dir():
            for child in sorted(path.iterdir()):
                self.tree(f"{name}/{child.name}", child)
        else:
            self.file(name, path.read_bytes(), path.stat().st_mode & 0o777)

    def finish(self):
        self._entry("TRAILER!!!", 0)
        self.out += bytes(-len(self.out) % 512)
        return bytes(self.out)


def decompress(data, name):
    """The content of a file whose name says how it is compressed."""
    if name.endswith(".xz"):
        return lzma.decompress(data)
    if name.endswith(".zst"):
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    if name.endswith(".gz"):
        return gzip.decompress(data)
    return data


def cached(name, inputs, make, mode=0o644):
    """The path in the cache of what make() returns, as bytes. Calls make() only
    if the cache has nothing of that name from the same inputs."""
    digest = hashlib.sha256()
    for i in inputs:
        digest.update(b"%d\0" % len(i))
        digest.update(i)
    path = CACHE / "vm" / f"{name}-{digest.hexdigest()[:16]}"
    if path.exists():
        os.utime(path)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, make(), mode)
    # Those of former inputs that nobody has used for long.
    for old in path.parent.glob(f"{glob.escape(name)}-{16 * '[0-9a-f]'}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > UNUSED_S:
                old.unlink()
    return path


def write(path, data, mode=0o644):
    """Write a file as a whole: another process sees the former file or this
    one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
        try:
            f.write(data)
            f.flush()
            os.fchmod(f.fileno(), mode)
            os.rename(f.name, path)
        except BaseException:
            os.unlink(f.name)
            raise
