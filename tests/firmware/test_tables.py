# SPDX-License-Identifier: GPL-2.0-only
"""What the driver does with good and odd firmware tables. There is a GPU for each
table. Its name begins with the verdict: an errno, with which binding fails after
one line of the log has said why; "memory", bound with all of it; "warned", the
same with a warning, because the range holds something other than RAM; "core",
bound without memory, as by vfio-pci. The driver must read the readiness registers
of GPUs that it binds with memory, and of no other. driver/discovery.c has the text
of each line."""

import errno
import re

import pytest

from lab import machine, programs, session, vm
from lab.machine import CPU_END, FUNCTIONAL, M, RAM, RAM_END, GiB, KiB, MiB

pytestmark = pytest.mark.vm

DRIVER = "nvgrace_gpu_vfio_pci"
PAGE = 64 * KiB         # of whatever kernel
TOP = 1 << 64

# What QEMU's virt machine has below RAM.
GIC, PCI_WINDOW = 0x0800_0000, 0x1000_0000
# And above it.
ECAM, PCI_WINDOW_64 = 0x40_1000_0000, 0x80_0000_0000

# A GPU's memory, unless its table needs another place. Not the memory of
# HOLDER.
OWN = M + 1024 * GiB


def table(base=OWN, size=FUNCTIONAL, **model):
    """A GPU with two integers in its table."""
    return {"dsd": {"base": base, "size": size}, "model": model}


def says(**dsd):
    """A GPU with another value for one of two good integers. None: no such
    property."""
    return {"dsd": {"base": OWN, "size": FUNCTIONAL, **dsd}}


# The ids of the driver, and models that are never ready.
IDS = (0x2342, 0x2343, 0x2345, 0x2348, 0x2941, 0x31C2)
NEVER = {"ready_after_ms": None}
CXL_NEVER = {**NEVER, "cxl": {"valid": NEVER, "active": NEVER}}

# Values that are no integers.
SHAPES = {
    "text": {"string": hex(FUNCTIONAL)},
    "no-text": {"string": ""},
    "long-text": {"string": "0" * 200},
    "format": {"string": "%s%n%p"},
    "two-integers": {"package": [FUNCTIONAL, 0]},
    "many-integers": {"package": [FUNCTIONAL] * 40},
    "text-in-a-package": {"package": [{"string": "1"}]},
    "empty-package": {"package": []},
    "device": {"reference": "\\_SB.PCI0"},
    "devices": {"package": [{"reference": "\\_SB.PCI0"}] * 2},
}


# The other properties of real machines.
PXM = {"nvidia,gpu-mem-pxm-start": 16, "nvidia,gpu-mem-pxm-count": 8}
EGM = {"nvidia,egm-base-pa": 0x100000000000, "nvidia,egm-size": 0x7000000000, "nvidia,egm-pxm": 1,
       "nvidia,egm-retired-pages-data-base": 0x80000000}

TABLES = {
    "core-nothing": {"dsd": None},
    "core-another-property": {"dsd": {"nvidia,gpu-mem-pxm-start": 1}},
    "core-names-in-capitals": {"dsd": {"NVIDIA,GPU-MEM-BASE-PA": M, "NVIDIA,GPU-MEM-SIZE": FUNCTIONAL}},
    # If one property is a buffer, or a package in a package, the kernel drops
    # all.
    "core-base-buffer": says(base={"buffer": list(range(8))}),
    "core-size-buffer": says(size={"buffer": list(range(8))}),
    "core-size-empty-buffer": says(size={"buffer": []}),
    "core-base-package-in-a-package": says(base={"package": [{"package": [FUNCTIONAL]}]}),
    "core-size-package-in-a-package": says(size={"package": [{"package": [FUNCTIONAL]}]}),
    # What edk2-nvidia makes for a Grace host, without and with extended GPU
    # memory.
    "memory-eight-properties-egm-off": says(**PXM, **dict.fromkeys(EGM, 0)),
    "memory-eight-properties-egm-on": says(**PXM, **EGM),

    "EINVAL-only-base": says(size=None),
    "EINVAL-only-size": says(base=None),
    "EINVAL-only-base-zero": says(base=0, size=None),
    "EINVAL-only-size-zero": says(base=None, size=0),

    **{f"EINVAL-base-{what}": says(base=value) for what, value in SHAPES.items()},
    **{f"EINVAL-size-{what}": says(size=value) for what, value in SHAPES.items()},
    # The kernel's interface returns the same for such a package and an integer.
    "memory-base-in-a-package": says(base={"package": [OWN]}),
    "memory-size-in-a-package": says(size={"package": [FUNCTIONAL]}),

    # Without memory, there is nothing to wait for. With memory, a GPU that has a
    # CXL DVSEC is ready by that alone.
    **{f"core-{device:x}": {"dsd": None, "model": {"device": device, **NEVER}} for device in IDS},
    **{f"core-{device:x}-cxl": {"dsd": None, "model": {"device": device, **CXL_NEVER}} for device in IDS},
    **{f"memory-{device:x}": table(device=device) for device in IDS},
    **{f"memory-{device:x}-cxl": table(device=device, cxl={}, **NEVER) for device in IDS},

    # Limits.
    "ENOMEM-size-zero": table(size=0),
    "ENOMEM-both-zero": table(base=0, size=0),
    "EINVAL-size-1": table(size=1),
    "EINVAL-size-1GiB": table(size=GiB),
    "EINVAL-size-1536MiB-less-1": table(size=1536 * MiB - 1),
    "memory-size-1536MiB": table(size=1536 * MiB),
    "memory-size-1536MiB-and-1": table(size=1536 * MiB + 1),
    "memory-size-2GiB-less-1": table(size=2 * GiB - 1),
    "memory-size-480GiB": table(size=480 * GiB),
    "memory-size-of-largest-BAR": table(base=1 << 42, size=(1 << 40) + GiB),
    "EOVERFLOW-larger-BAR": table(base=1 << 42, size=(1 << 40) + GiB + 512 * MiB),
    "EOVERFLOW-size-2-to-the-47": table(size=1 << 47),
    "EOVERFLOW-size-2-to-the-63": table(size=1 << 63),
    "EOVERFLOW-size-minus-1": table(size=TOP - 1),
    "EOVERFLOW-size-up-to-2-to-64": table(size=(1 << 64) - (1 << 39)),
    "EINVAL-base-1": table(base=1),
    "EINVAL-base-unaligned": table(base=OWN + 0x800),
    "EINVAL-base-last-byte-of-page": table(base=OWN + PAGE - 1),
    "EOVERFLOW-base-minus-1": table(base=TOP - 1),
    "EOVERFLOW-base-minus-4096": table(base=TOP - 4096),
    "EOVERFLOW-base-2-to-the-63": table(base=1 << 63),
    "EOVERFLOW-base-behind-the-CPUs": table(base=CPU_END),
    "EOVERFLOW-a-page-too-far": table(base=CPU_END - FUNCTIONAL + PAGE),
    "EOVERFLOW-a-byte-too-far": table(base=CPU_END - FUNCTIONAL, size=FUNCTIONAL + 1),
    "memory-up-to-the-CPUs-end": table(base=CPU_END - FUNCTIONAL),

    # Without the MIG defect, no 1 GiB are carved out.
    "EINVAL-sound-part-half-a-page": table(size=2048, mig_dvsec=1),
    "memory-sound-part-64MiB": table(size=64 * MiB, mig_dvsec=1),
    "EOVERFLOW-sound-part-larger-BAR": table(base=1 << 42, size=(1 << 40) + 1, mig_dvsec=1),
    "memory-sound-part-largest-BAR": table(base=1 << 42, size=1 << 40, mig_dvsec=1),

    # The host's own memory.
    "EBUSY-RAM-inside": table(base=RAM + 64 * MiB, size=512 * MiB),
    "EBUSY-RAM-all-of-it": table(base=RAM, size=2 * GiB),
    "EBUSY-RAM-around": table(base=RAM - 512 * MiB, size=8 * GiB),
    "EBUSY-RAM-first-page": table(base=RAM - FUNCTIONAL % GiB, size=FUNCTIONAL % GiB + PAGE, mig_dvsec=1),
    "EBUSY-RAM-last-page": table(base=RAM_END - PAGE),
    "EBUSY-RAM-in-resmem-alone": table(base=0, size=2 * GiB),
    "memory-right-behind-RAM": table(base=RAM_END),
    "EBUSY-base-zero": table(base=0),

    # Memory of HOLDER.
    "EBUSY-GPU-the-same": table(base=M),
    "EBUSY-GPU-its-first-page": table(base=M - FUNCTIONAL + PAGE),
    "EBUSY-GPU-its-last-page": table(base=M + FUNCTIONAL - PAGE),
    "EBUSY-GPU-inside": table(base=M + PAGE, size=1536 * MiB),
    "EBUSY-GPU-around": table(base=M - GiB, size=8 * GiB),
    "memory-GPU-right-behind": table(base=M + FUNCTIONAL),

    # Other devices' registers, which their drivers have claimed.
    "EBUSY-GIC": table(base=GIC, size=16 * MiB, mig_dvsec=1),
    "EBUSY-config-space": table(base=ECAM, size=256 * MiB, mig_dvsec=1),
    "EBUSY-into-config-space": table(base=ECAM - MiB, size=2 * MiB, mig_dvsec=1),
    "EBUSY-config-space-in-resmem-alone": table(base=ECAM - 1536 * MiB + PAGE, size=1536 * MiB),
    # Windows of the host bridge. They are no RAM, so the driver only warns.
    "warned-around-the-PCI-window": table(base=PCI_WINDOW - 64 * MiB, size=700 * MiB, mig_dvsec=1),
    "warned-into-the-64-bit-window": table(base=PCI_WINDOW_64 - 256 * MiB, size=256 * MiB + PAGE, mig_dvsec=1),
}

# Each differs from a table of `make check` only in the id, or in which of the two
# properties has the wrong type.
IN_CHECK_ALL = {*(f"{mode}-{device:x}{cxl}" for mode in ("core", "memory") for device in IDS[1:] for cxl in ("", "-cxl")),
                *(f"EINVAL-size-{what}" for what in SHAPES)}

# The GPU that stays bound while the others are tried.
HOLDER = "holder"

# Of this size, the BAR0 of a GPU for each table fits below 4 GiB. It has both
# readiness registers.
BAR0_SIZE = 256 * KiB

BIND = f"""
d=/sys/bus/pci/devices/$(gpu $1)
echo {DRIVER} >$d/driver_override
dmesg -c >/dev/null
echo $(gpu $1) >/sys/bus/pci/drivers/{DRIVER}/bind 2>/dev/null
dmesg -r | sed "s/^/log /"
[ ! -e $d/nvgrace_gpu ] || for f in mode usemem_size resmem_size; do
    [ ! -e $d/nvgrace_gpu/$f ] || echo $f $(cat $d/nvgrace_gpu/$f)
done
[ $1 = {HOLDER} ] || [ ! -e $d/driver ] || echo $(gpu $1) >$d/driver/unbind
echo >$d/driver_override
"""


def lines_of(pci, output):
    """[(level, line of the driver about a GPU)], and the driver core's error or
    0."""
    said, error = [], 0
    for line in output:
        match = re.fullmatch(r"log <(\d+)>\[ *[\d.]+\] (.*)", line)
        if not match:
            continue
        level, text = int(match[1]) & 7, match[2]
        if found := re.search(r"failed with error -(\d+)$", text):
            error = int(found[1])
        elif text.startswith(f"{DRIVER} {pci}: ") and not re.search(r"enabling device|Adding to iommu|HDA controller|took \d+ usecs", text):
            said.append((level, text))
    return said, error


def misread(name, gpu, counters):
    """Why these are the wrong readiness registers to have read, or ""."""
    reads = counters["c2c_reads"], counters["hbm_reads"]
    wanted = name.split("-")[0] in ("memory", "warned") and "cxl" not in gpu.model
    return "" if all(reads) == any(reads) == wanted else f"the C2C register was read {reads[0]} times, that of the HBM {reads[1]} times"


def judge(name, gpu, output):
    """Why the result contradicts the verdict, or ""."""
    verdict = name.split("-")[0]
    said, error = lines_of(gpu.pci, output)
    fields = dict(line.split(" ", 1) for line in output if not line.startswith("log ") and " " in line)
    lines = "; ".join(text for _, text in said) or "nothing"
    if verdict not in ("memory", "warned", "core"):
        if error != getattr(errno, verdict) or fields:
            return f"error {error}, {fields}: {lines}"
        if [level for level, _ in said] != [3]:
            return f"there should be one line, an error: {said}"
        return ""
    if error:
        return f"error {error}: {lines}"
    if verdict == "core":
        return "" if fields == {"mode": "core-only"} and all(level > 4 for level, _ in said) else f"{fields}: {lines}"
    warned = any(level == 4 for level, _ in said)
    sizes = int(fields.get("usemem_size", 0)) + int(fields.get("resmem_size", 0))
    size = gpu.dsd["size"]
    size = size["package"][0] if isinstance(size, dict) else size
    # The carve-out loses at most 511 MiB after the last whole block.
    good = sizes <= size < sizes + 512 * MiB and warned == (verdict == "warned")
    return "" if good else f"{fields} of {size:#x}: {lines}"


class Host:
    """A machine with HOLDER and the GPUs of these tables."""

    def __init__(self, kernel, names, script):
        script.write_text(BIND)
        start, end = vm.ram_range(kernel.arch, GiB)
        places = {M.place: 2 << 40, RAM.place: start, RAM_END.place: end, CPU_END.place: 1 << kernel.arch.phys_bits}
        gpus = [{"name": name, **machine.resolved(TABLES.get(name) or table(base=M), places)} for name in (HOLDER, *names)]
        for gpu in gpus:
            gpu["model"] = {"bar0_size": BAR0_SIZE, **gpu.get("model", {})}
        self.session = session.Interactive(kernel, gpus=gpus, memory="0", files={"/tests/bind": str(script)},
                                           module=str(programs.module_of(kernel)), log=str(programs.log_file("firmware")))
        self.gpus = {g.name: g for g in self.session.machine.gpus}
        self.bind(HOLDER)

    def bind(self, name):
        """What binding a GPU prints, and what is wrong in the kernel's log."""
        position = len(self.session.lines)
        output = self.session.run(name, f"sh /tests/bind {name}").output
        return output, self.session.scan(line for mark, line in self.session.lines[position:] if mark == "|")


@pytest.fixture(scope="module")
def host(request, tmp_path_factory):
    """The machine of the tables that are to be tested."""
    chosen = {i.callspec.params["name"] for i in request.session.items if i.path == request.path}
    made = Host(vm.Kernel((request.config.getoption("kernel") or ["newest"])[0]), [n for n in TABLES if n in chosen],
                tmp_path_factory.mktemp("host") / "bind")
    yield made
    assert not made.session.end().failures


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.all if name in IN_CHECK_ALL else pytest.mark.check) for name in TABLES])
def test_table(host, name):
    output, log = host.bind(name)
    assert not log
    assert not judge(name, host.gpus[name], output)
    assert not misread(name, host.gpus[name], host.session.machine.models[name].gpu.counters)
