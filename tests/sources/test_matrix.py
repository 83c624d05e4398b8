# SPDX-License-Identifier: GPL-2.0-only
"""The module builds for each kernel without a warning, with exactly the features
that the kernel provides. The cache keeps what the build prints, by all that it
reads."""

import re
import subprocess
import warnings

import pytest

from lab import archive, programs, toolbox, vm

EARLY = toolbox.ask("kernels", "--early").split()

# Features, by the first version of Debian's that has each: the mainline version,
# unless a stable release has brought it to an older one.
FEATURES = {
    (6, 1): "VFIO_ALLOC_DEVICE",
    (6, 2): "BIND_IOMMUFD",
    (6, 3): "VM_FLAGS_SET",
    (6, 6): "DETACH_IOAS HUGE_FAULT_ORDER RELEASE_FAULT_LOCK",
    (6, 9): "VM_ALLOW_ANY_UNCACHED",
    (6, 10): "VFIO_DEVICE_INODE",
    (6, 12): "CORE_DISABLE_IDLE_D3",
    (6, 15): "PASID_ATTACH_IOAS",
    (6, 17): "MATCH_TOKEN_UUID VMF_INSERT_PFN_PMD_PLAIN",
    (6, 19): "GET_REGION_INFO_CAPS REGISTER_PFN_ADDRESS_SPACE GET_DMABUF_PHYS",
    (7, 2): "VFIO_PCI_CORE_GET_IOMAP",
}


# check-all builds for these, each of which differs from the others in its version or
# architecture.
ALL = ("oldstable", "stable", "newest", "newest-amd64")


def kernels():
    """Those that must work, those of which a fault is only a warning, and the one
    that tests boot but no package has."""
    for name in (*toolbox.ask("kernels").split(), *EARLY):
        yield pytest.param(name, marks=pytest.mark.all if name in ALL else pytest.mark.long)
    yield pytest.param("newest-64k", marks=[pytest.mark.long, pytest.mark.needs("kernel newest-64k")])


@pytest.mark.parametrize("name", kernels())
def test_build(name):
    def make():
        done = subprocess.run(["scripts/dev/matrix", name], cwd=vm.PROJECT, capture_output=True, text=True)
        assert not done.returncode, done.stdout + done.stderr
        # The probes that must compile did so in one file.
        assert name in EARLY or (programs.BUILD / "matrix" / name / "probes/together.o").exists()
        return done.stdout.encode()

    try:
        kernel = vm.Kernel(name)
    except vm.ConfigError:      # Debian may not have it
        assert name in EARLY
        said = make().decode()
    else:
        said = archive.cached(f"matrix-{name}", programs.made_of_module(kernel, "scripts/dev/matrix"), make).read_text()
    if "early warning: " in said:
        warnings.warn(said)
        return
    version = kernel.version[:2]
    assert {f.upper() for f in re.findall(r"^\| (\w+) +\| +yes \|$", said, re.M)} == \
        {f for since, names in FEATURES.items() if since <= version for f in names.split()}
