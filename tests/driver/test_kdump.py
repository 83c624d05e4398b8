# SPDX-License-Identifier: GPL-2.0-only
"""In the kernel of a crash dump, which says so on its command line, nothing is
scrubbed, and shutdown waits for nothing."""

import pytest

from lab import gpu_memory, programs, vm

pytestmark = pytest.mark.kernels("newest")

BASE, SIZE = 0x80_0000_0000, 3 << 30
STATE = "cat /sys/bus/pci/devices/$(gpu g)/nvgrace_gpu/scrub_state"


def test_a_crash_kernel_leaves_the_memory_alone(kernel):
    kernel = vm.Kernel(kernel)
    begin = f"host soil {BASE:#x} {SIZE:#x}; bind g nvgrace_gpu_vfio_pci || exit 1; {STATE}"
    demand = "echo 1 >/sys/bus/pci/devices/$(gpu g)/nvgrace_gpu/scrub || echo refused; " + STATE
    # The kernel takes any address for the place of the old one's headers.
    with vm.Machine(kernel, gpus=[{"name": "g", "base": BASE, "size": SIZE}], module=str(programs.module_of(kernel)),
                    module_params="scrub=1", append="elfcorehdr=0x50000000", handlers=gpu_memory.HANDLERS,
                    commands=[{"name": "begin", "run": begin}, {"name": "demand", "run": demand},
                              {"name": "left", "run": f"host remains {BASE:#x} {SIZE:#x}"}],
                    log=str(programs.log_file(f"kdump-{kernel.name}"))) as machine:
        result = machine.run()
    assert not result.failures
    assert result.output("begin").strip().endswith("off")
    assert result.output("demand").split()[-2:] == ["refused", "off"]
    assert not result.output("left").startswith("0")
