# SPDX-License-Identifier: GPL-2.0-only
"""The module builds without a warning where a vendor's kernel differs from
Debian's, or the build says what it can't decide: with Debian's headers, changed
as vendors change theirs. The cache keeps what a build said, by all that it reads."""

import contextlib
import json
import re

import pytest

from lab import archive, programs, vm
from lab.system import scratch

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


def build(name, base, header, old, new):
    """make's status, what it has printed, and the features that it has found."""
    inputs = programs.made_of_module(vm.Kernel(base), "tests/packages/test_vendors.py")
    kept = archive.cached("vendor-" + re.sub(r"\W+", "-", name), inputs, lambda: json.dumps(changed(base, header, old, new)).encode())
    return json.loads(kept.read_text())


def changed(base, header, old, new):
    headers = f"/usr/src/linux-headers-{scratch.release(base)}"
    path = f"{headers.replace('-arm64', '-common')}/{header}"
    with open(path, encoding="utf-8") as file:
        text, count = re.subn(old, new, file.read())
    assert count, f"{path} has changed"
    with contextlib.closing(scratch.Scratch(cached=True)) as host:
        host.write(path, text)
        done = host.sh(f"""
            mkdir /var/module && cd {scratch.PROJECT}
            cp -r Kbuild Makefile dkms.conf src include scripts /var/module && cd /var/module
            make modules W=1 KDIR={headers} ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-
            test -e build/*/nvgrace-gpu-vfio-pci.ko""", ok=False)
        return done.returncode, done.stdout, host.sh("cat /var/module/build/*/include/generated/*.h", ok=False).stdout


@pytest.mark.parametrize("where", BUILDS)
def test_the_module_builds_for(where):
    *change, absent = BUILDS[where]
    status, out, features = build(where, *change)
    assert not status, out
    assert not re.search("warning:|error:", out), out
    if absent:
        assert f"/* HAVE_{absent}: absent */" in features


# unit/test_probes.py asks the same, with headers of its own.
@pytest.mark.long
@pytest.mark.parametrize("where", STOPS)
def test_an_unknown_interface_never_counts_as_absent(where):
    *change, words = STOPS[where]
    status, out, features = build(where, *change)
    assert status, features
    assert "can't decide what this kernel has" in out
    assert words in out
