# SPDX-License-Identifier: GPL-2.0-only
"""build --tree makes a kernel of any source, which stays as it is, and says what
the source lacks. The source here is a few files that stand for Linux."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from lab import toolbox, vm

BUILD = vm.PROJECT / "tests/lab/kernels/build"

SOURCE = {
    "Kbuild": "", "arch/arm64/Kconfig": "", "arch/arm64/Makefile": "", "arch/arm64/include/asm/page.h": "", "mm/memory.c": "",
    "Makefile": """
tinyconfig:
	@echo CONFIG_TINY=y >.config
olddefconfig:
	@test ! -e Module.symvers.o
modules:
Image:
	@mkdir -p arch/arm64/boot include/config
	@echo 9.9-own >include/config/kernel.release
	@cp mm/memory.c arch/arm64/boot/Image
	@touch System.map Module.symvers
modules_install:
	@mkdir -p $(INSTALL_MOD_PATH)/lib/modules/9.9-own
""",
    # This kernel doesn't know all options.
    "scripts/kconfig/merge_config.sh": "#!/bin/sh\nshift 2\ncat \"$@\" | grep -v VFIO_PCI_DMABUF >>.config\n",
    "scripts/config": "#!/bin/sh\n",
    # What an earlier build has left.
    "Module.symvers.o": "", ".config": "CONFIG_LEFT=y\n", "include/generated/autoconf.h": "",
}


class Tree(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.tree = self.folder / "linux"
        for name, text in SOURCE.items():
            self.write(name, text)
        self.kernels = self.folder / "nvgrace-gpu-vfio-pci/testkernel"

    def write(self, name, text):
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run_in_cache(self, *command):
        return subprocess.run(command, env={**os.environ, "XDG_CACHE_HOME": str(self.folder)}, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)

    def build(self, *words):
        return self.run_in_cache(BUILD, "--tree", *words)

    def built(self, *words):
        """The configuration of the kernel that is now there, and what build
        has printed."""
        before = {path: path.stat().st_mtime_ns for path in self.tree.rglob("*")}
        done = self.build(self.tree, *words)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.tree.rglob("*")}, before)
        name, = (path.name for path in self.kernels.glob("own-*"))
        release = self.run_in_cache(toolbox.TOOLBOX, "release", name).stdout.strip()
        self.assertEqual(release, "9.9-own")
        headers = pathlib.Path(self.run_in_cache(toolbox.TOOLBOX, "kdir", name).stdout.strip())
        return (headers / ".config").read_text().splitlines(), done.stdout

    def test_without_configuration(self):
        config, said = self.built()
        for line in ("CONFIG_TINY=y", "CONFIG_ARM64_64K_PAGES=y", "CONFIG_VFIO_PCI=m"):
            self.assertIn(line, config)
        self.assertNotIn("CONFIG_LEFT=y", config)
        self.assertIn("CONFIG_VFIO_PCI_DMABUF isn't as asked for", said)
        self.assertIn("going on without these options", said)
        self.assertEqual(self.build(self.tree).stdout, "", "the kernel is built again")

    def test_with_configuration(self):
        vendor = self.folder / "vendor.config"
        vendor.write_text("CONFIG_ARM64=y\nCONFIG_BUILT_IN=y\nCONFIG_OTHER_DRIVER=m\n")
        config, _ = self.built(vendor)
        for line in ("CONFIG_ARM64=y", "CONFIG_BUILT_IN=y", "CONFIG_VFIO_PCI=m"):
            self.assertIn(line, config)
        for line in ("CONFIG_TINY=y", "CONFIG_OTHER_DRIVER=m", "CONFIG_ARM64_64K_PAGES=y"):
            self.assertNotIn(line, config)

    def test_changed_source(self):
        self.built()
        self.write("mm/memory.c", "int changed;\n")
        self.assertEqual(self.build(self.tree).returncode, 0)
        images = {(folder / "boot/vmlinuz-9.9-own").read_text() for folder in self.kernels.glob("own-*")}
        self.assertEqual(images, {"", "int changed;\n"})

    def test_refusals(self):
        other = self.folder / "other.config"
        other.write_text("CONFIG_X86_64=y\n")
        for words, reason in (((self.folder,), "is not a kernel's source for arm64"), ((self.tree, other), "is not a configuration for arm64"),
                              ((self.tree, other, other), "usage: build")):
            done = self.build(*words)
            self.assertEqual(done.returncode, 1)
            self.assertIn(reason, done.stdout)
        done = self.run_in_cache(toolbox.TOOLBOX, "release", "own-0")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("there is no kernel own-0", done.stdout)

    def test_broken_source(self):
        self.write("Makefile", SOURCE["Makefile"].replace("olddefconfig:\n", "olddefconfig: scripts/tool\n"))
        done = self.build(self.tree)
        self.assertEqual(done.returncode, 1)
        self.assertIn("No rule to make target 'scripts/tool'", done.stdout)
        self.assertEqual(list(self.kernels.glob("own-*")), [])
