#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The module builds without a warning where a vendor's kernel differs from
Debian's, or the build says what it can't decide: with Debian's headers, changed
as they are there.

    vendors.py [unittest's arguments]

Runs inside the toolbox.
"""

import re
import unittest

import scratch
from scratch import release

# Where it was seen: the kernel that is changed, a header of it, what is replaced
# there by what, and the feature that is then absent.
BUILDS = {
    # A stable fix of June 2026 made it a bool again.
    "RHEL 10.0, 6.12.0-55.24.1": ("newest", "include/linux/vfio_pci_core.h",
                                  r"\bbool(\s+)pm_runtime_engaged;", r"bool\1pm_runtime_engaged:1;", None),
    "NVIDIA's kernels, another struct pfn_address_space": (
        "newest", "include/linux/memory-failure.h", r"\bint \(\*pfn_to_vma_pgoff\)[^;]*;",
        "void (*failure)(struct pfn_address_space *space, unsigned long pfn);", "REGISTER_PFN_ADDRESS_SPACE"),
    "before Linux 6.6, huge_fault without an order": (
        "stable", "include/linux/mm.h", r"(struct vm_operations_struct \{)((?:.|\n)*?huge_fault\)\(struct vm_fault \*vmf,) unsigned int order",
        r"enum page_entry_size { PE_SIZE_PTE, PE_SIZE_PMD, PE_SIZE_PUD };\n\1\2 enum page_entry_size size", "HUGE_FAULT_ORDER"),
}
# The same with what the build says: no vendor is known to have these.
STOPS = {
    "a renamed function": ("newest", "include/linux/memory-failure.h", r"\bregister_pfn_address_space\b", "add_pfn_address_space",
                           "'register_pfn_address_space'"),
    "a renamed type": ("newest", "include/linux/vfio_pci_core.h", r"\bvfio_pci_core_device\b", "vfio_pci_device",
                       "struct vfio_pci_core_device"),
}


class Vendors(unittest.TestCase):
    def build(self, change):
        """make's status, what it has printed, and the features that it has
        found."""
        kernel, header, old, new = change
        headers = f"/usr/src/linux-headers-{release(kernel)}"
        path = f"{headers.replace('-arm64', '-common')}/{header}"
        with open(path, encoding="utf-8") as file:
            text, count = re.subn(old, new, file.read())
        self.assertNotEqual(count, 0, f"{path} has changed")
        host = scratch.Scratch(cached=True)
        self.addCleanup(host.close)
        host.write(path, text)
        done = host.sh(f"""
            mkdir /var/module && cd {scratch.PROJECT}
            cp -r Kbuild Makefile dkms.conf src include scripts /var/module && cd /var/module
            make modules W=1 KDIR={headers} ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-
            test -e build/*/nvgrace-gpu-vfio-pci.ko""", ok=False)
        return done.returncode, done.stdout, host.sh("cat /var/module/build/*/include/generated/*.h", ok=False).stdout

    def test_builds(self):
        for where, (*change, absent) in BUILDS.items():
            with self.subTest(where):
                status, out, features = self.build(change)
                self.assertEqual(status, 0, out)
                self.assertNotRegex(out, "warning:|error:")
                if absent:
                    self.assertIn(f"/* HAVE_{absent}: absent */", features)

    def test_stops(self):
        """An unknown interface never counts as absent."""
        for where, (*change, words) in STOPS.items():
            with self.subTest(where):
                status, out, features = self.build(change)
                self.assertNotEqual(status, 0, features)
                self.assertIn("can't decide what this kernel has", out)
                self.assertRegex(out, words)


if __name__ == "__main__":
    unittest.main()
