#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The module builds without a warning where a vendor's kernel differs from
Debian's: with Debian's headers, changed as they are there.

    vendors.py [unittest's arguments]

Runs inside the toolbox.
"""

import re
import unittest

import scratch
from scratch import release

# Where it was seen: the kernel that is changed, a header of it, and what is
# replaced there by what.
CHANGES = {
    # A stable fix of June 2026 made it a bool again.
    "RHEL 10.0, 6.12.0-55.24.1": ("newest", "include/linux/vfio_pci_core.h",
                                  r"\bbool(\s+)pm_runtime_engaged;", r"bool\1pm_runtime_engaged:1;"),
}


class Vendors(unittest.TestCase):
    def test_builds(self):
        for where, (kernel, header, old, new) in CHANGES.items():
            with self.subTest(where):
                headers = f"/usr/src/linux-headers-{release(kernel)}"
                path = f"{headers.replace('-arm64', '-common')}/{header}"
                with open(path, encoding="utf-8") as file:
                    text, count = re.subn(old, new, file.read())
                self.assertEqual(count, 1, f"{path} has changed")
                host = scratch.Scratch(cached=True)
                self.addCleanup(host.close)
                host.write(path, text)
                out = host.sh(f"""
                    mkdir /var/module && cd {scratch.PROJECT}
                    cp -r Kbuild Makefile dkms.conf src include scripts /var/module && cd /var/module
                    make modules W=1 KDIR={headers} ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-
                    test -e build/*/nvgrace-gpu-vfio-pci.ko""").stdout
                self.assertNotRegex(out, "warning:|error:")


if __name__ == "__main__":
    unittest.main()
