# SPDX-License-Identifier: GPL-2.0-only
"""The machine's files: the initramfs that all runs on a kernel share, and the
part that each run adds."""

import pathlib
import re
import shutil
import subprocess
import tempfile

from lab import archive

HERE = pathlib.Path(__file__).resolve().parent

# What a machine needs beside the kernel's built-in drivers. vfio-pci is there
# for comparison.
MODULES = ("virtio_pci", "virtio_console", "vfio", "vfio_iommu_type1", "vfio_pci_core", "vfio_pci")
NOT_LOADED = ("vfio_pci",)
LIBRARIES = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1", "libcmocka.so.0")


def uncompressed(name):
    return re.sub(r"\.(xz|zst|gz)$", "", name)


def module_files(kernel):
    """Kernel modules as {path in the guest: path here}, and the paths of those
    that init loads, in that order."""
    files, load = {}, []
    iommu = [kernel.arch.iommu_module] if kernel.arch.iommu_module else []
    for module in [*iommu, *MODULES]:
        for path in kernel.module_files(module):
            guest = kernel.guest_name(path)
            if guest not in files:
                files[guest] = path
                if module not in NOT_LOADED:
                    load.append(uncompressed(guest))
    return files, load


def program_files(arch):
    """busybox, and what dynamic programs need: {path in the guest: path here}.
    """
    files = {"/bin/busybox": arch.busybox, arch.loader: f"{arch.libraries}/{pathlib.Path(arch.loader).name}"}
    for name in LIBRARIES:
        files[f"{arch.libraries.removeprefix('/usr')}/{name}"] = f"{arch.libraries}/{name}"
    return files


def add_index(cpio, kernel, modules):
    """Add what modprobe reads, for modules {path in the guest: content}."""
    with tempfile.TemporaryDirectory() as scratch:
        base = pathlib.Path(scratch, "lib/modules", kernel.release)
        base.mkdir(parents=True)
        for guest, data in modules.items():
            file = pathlib.Path(scratch + guest)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            if (kernel.directory / name).exists():
                shutil.copy(kernel.directory / name, base)
        subprocess.run(["depmod", "-b", scratch, kernel.release], check=True)
        for name in ("modules.dep", "modules.alias", "modules.symbols", "modules.builtin"):
            if (base / name).exists():
                cpio.file(f"/lib/modules/{kernel.release}/{name}", (base / name).read_bytes())


def shared(kernel):
    """The archive's path in the cache: busybox, kernel modules and the
    libraries of dynamic programs."""
    modules, load = module_files(kernel)
    contents = {guest: pathlib.Path(host).read_bytes() for guest, host in {**program_files(kernel.arch), **modules}.items()}
    load = "".join(p + "\n" for p in load)

    def make():
        cpio = archive.Cpio()
        cpio.device("/dev/console", 5, 1)
        unpacked = {}
        for guest, data in contents.items():
            if guest in modules:
                unpacked[uncompressed(guest)] = archive.decompress(data, guest)
            else:
                cpio.file(guest, data, 0o755)
        for guest, data in unpacked.items():
            cpio.file(guest, data)
        add_index(cpio, kernel, unpacked)
        cpio.file("/vm/modules", load)
        return cpio.finish()

    key = [pathlib.Path(m).read_bytes() for m in (__file__, archive.__file__)] + [load.encode()]
    for guest, data in contents.items():
        key += [guest.encode(), data]
    return archive.cached(f"initramfs-{kernel.release}", key, make)


def run_files(files=None, memory="", gpus="", module=None, module_params=""):
    """The archive that follows shared() in an initramfs: init, what it reads,
    and files {path in the guest: path here}."""
    cpio = archive.Cpio()
    cpio.file("/init", (HERE / "init").read_bytes(), 0o755)
    cpio.tree("/vm/bin", HERE / "bin")
    cpio.file("/vm/memory", memory)
    cpio.file("/vm/gpus.conf", gpus)
    if module:
        cpio.tree("/vm/module.ko", module)
        cpio.file("/vm/module.params", module_params + "\n")
    for guest, host in (files or {}).items():
        cpio.tree(guest, host)
    return cpio.finish()
