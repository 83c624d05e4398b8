# SPDX-License-Identifier: GPL-2.0-only
"""scripts/dev/check-headers builds the module in Debian's systems, as containers have
them, with its real packages."""

import pytest

from lab.system import scratch
from packages.common import named

pytestmark = [pytest.mark.long, pytest.mark.needs("trees")]

COPY = f"""
mkdir /var/module && cd {scratch.PROJECT}
cp -r Kbuild Makefile dkms.conf src include scripts /var/module
"""


def check(system, *folders):
    """The status of check-headers, all that it has printed, its table of kernels, and the
    features that the table of the only kernel says that it has."""
    done = system.run("/var/module/scripts/dev/check-headers", *folders, ok=False)
    lines = system.run("cat", "/var/module/build/headers.md").stdout.split("\n\n", maxsplit=1)[0].splitlines()
    kernels = dict(line.strip("| ").split(" | ") for line in lines[2:])
    features = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("| ") and line.endswith(" yes |")}
    return done.returncode, done.stdout, kernels, features


@pytest.mark.parametrize("suite, has, lacks", [
    ("bookworm", {"vfio_alloc_device"}, {"vm_flags_set", "huge_fault_order"}),
    ("trixie", {"vm_flags_set", "huge_fault_order"}, {"register_pfn_address_space"})])
def test_check_headers(scratch_system, suite, has, lacks):
    system = scratch_system(lower=scratch.tree(suite))
    system.sh(COPY)
    with named("no kernel"):
        status, said, kernels, _ = check(system)
        assert (status, kernels) == (1, {})
        assert "no kernel found; install a package with headers" in said
    with named("plain headers"):
        system.sh("apt-get -qq update; apt-get -qq -y --no-install-recommends install gcc libc6-dev make linux-headers-amd64")
        status, said, kernels, features = check(system)
        assert (status, list(kernels.values())) == (0, ["built"]), said
        assert has <= features
        assert not lacks & features
        kernel, = kernels
        folder = f"/lib/modules/{kernel}/build"
        assert check(system, folder)[::2] == (0, {kernel: "built"})
    with named("missing and broken headers"):
        system.sh("""
            mkdir /lib/modules/9.1
            echo '#error broken here' >>$(readlink -f /usr/src/linux-headers-*-common)/include/linux/vfio_pci_core.h""")
        status, said, kernels, features = check(system)
        assert (status, features) == (1, set())
        assert set(kernels) == {"/usr/lib/modules/9.1/build", kernel}
        assert all(result.startswith("**failed**: see build/headers-") for result in kernels.values())
        assert "no kernel release in /usr/lib/modules/9.1/build/" in said
        assert "#error broken here" in said
