# SPDX-License-Identifier: GPL-2.0-only
"""What the driver does with good and odd firmware tables. There is a GPU for each
table. Its name begins with the verdict: an errno, with which binding fails;
"memory", bound with all of it; "warned", the same without the claim of a part,
because its range holds something other than RAM; "core", bound without memory, as
by vfio-pci. Each bind logs what its table expects, and nothing else. The driver
must read the readiness registers of GPUs that it binds with memory, and of no
other."""

import errno
import re

import pytest

from lab import acpi, programs, session, vm
from lab.machine import FUNCTIONAL, GiB, KiB, MiB

pytestmark = pytest.mark.vm

# Which marker chooses the tables of a kernel.
KERNELS = {"newest": "check", "oldstable": "all", "stable": "long", "newest-64k": "long"}

DRIVER = "nvgrace_gpu_vfio_pci"
BASE, SIZE = acpi.BASE_PROPERTY, acpi.SIZE_PROPERTY
PAGE = 64 * KiB         # of whatever kernel
TOP = 1 << 64

# RAM, its end, and the end of the CPU's addresses.
RAM, RAM_END = vm.RAM_ADDRESS, vm.RAM_ADDRESS + GiB
CPU_END = 1 << 48      # of a neoverse-n1

# What QEMU's virt machine has below RAM.
GIC, PCI_WINDOW = 0x0800_0000, 0x1000_0000
# And above it.
ECAM, PCI_WINDOW_64, PCI_WINDOW_64_END = 0x40_1000_0000, 0x80_0000_0000, 0x100_0000_0000

# The memory of HOLDER, and that of a GPU, unless its table needs another place.
M = 2048 * GiB
OWN = M + 1024 * GiB


def table(line=None, base=OWN, size=FUNCTIONAL, **model):
    """A GPU with two integers in its table, or None for no such property. line: an
    error or a warning in the log, with the words of expected()."""
    return {"dsd": {"base": base, "size": size}, "line": line, "model": model}


UPDATE = "; update the system firmware"
BOTH = f"{BASE} {{base}} with {SIZE} {{size}}"
ONLY_BASE = f"firmware gives {BASE} {{base}} but no {SIZE}{UPDATE}"
ONLY_SIZE = f"firmware gives {SIZE} {{size}} but no {BASE}{UPDATE}"
NO_LINK = f"firmware property {SIZE} is 0: the C2C link failed to train; power-cycle the host"
TOO_FAR = f"{BOTH} ends beyond this CPU's last physical address {{cpu_last}}{UPDATE}"
UNALIGNED = f"{BASE} {{base}} is not aligned to this kernel's page size {{page}}{UPDATE} or use a kernel with smaller pages"
TOO_LITTLE = f"{SIZE} {{size}} is too little memory: this GPU needs 1 GiB for resmem and 512 MiB for usemem{UPDATE}"
LESS_THAN_A_PAGE = f"{SIZE} {{size}} is too little memory{UPDATE}"
TOO_WIDE = f"{SIZE} {{size}} needs a BAR larger than the 0x10000000000 bytes that vfio has room for{UPDATE}"
IN_RAM = f"{BOTH} overlaps System RAM of the host; unload the driver that onlined it, or offline and remove its NUMA node"
OF_HOLDER = f"{BOTH} overlaps the memory of {{holder}}{UPDATE}"
OWNED = f"{{usemem}} belongs to another driver already, which /proc/iomem names; unbind that driver, or{UPDATE[1:]}"
OWNED_RESMEM = OWNED.replace("usemem", "resmem")
UNCLAIMED = "can't claim {usemem}; binding continues without the claim; /proc/iomem shows what is there"

# Values that are no integers, and how the log shows them.
TEXT = "is the text \"%s\", not one 64-bit integer"
COUNT = "is not one 64-bit integer (value count or error: %d)"
SHAPES = {
    "text": ({"string": hex(FUNCTIONAL)}, TEXT % hex(FUNCTIONAL)),
    "no-text": ({"string": ""}, TEXT % ""),
    "long-text": ({"string": "0" * 200}, TEXT % ("0" * 40)),
    "format": ({"string": "%s%n%p"}, TEXT % "%s%n%p"),
    "two-integers": ({"package": [FUNCTIONAL, 0]}, COUNT % 2),
    "many-integers": ({"package": [FUNCTIONAL] * 40}, COUNT % 40),
    "text-in-a-package": ({"package": [{"string": "1"}]}, TEXT % "1"),
    "empty-package": ({"package": []}, COUNT % 0),
    "device": ({"reference": "\\_SB.PCI0"}, COUNT % -errno.EPROTO),
    "devices": ({"package": [{"reference": "\\_SB.PCI0"}] * 2}, COUNT % 2),
}

# The ids of the driver, and models that are never ready.
IDS = (0x2342, 0x2343, 0x2345, 0x2348, 0x2941, 0x31C2)
NEVER = {"ready_after_ms": None}
CXL_NEVER = {**NEVER, "cxl": {"valid": NEVER, "active": NEVER}}


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
    "core-base-buffer": table(base={"buffer": list(range(8))}),
    "core-size-buffer": table(size={"buffer": list(range(8))}),
    "core-size-empty-buffer": table(size={"buffer": []}),
    "core-base-package-in-a-package": table(base={"package": [{"package": [FUNCTIONAL]}]}),
    "core-size-package-in-a-package": table(size={"package": [{"package": [FUNCTIONAL]}]}),
    # What edk2-nvidia makes for a Grace host, without and with extended GPU
    # memory.
    "memory-eight-properties-egm-off": {"dsd": {"base": OWN, "size": FUNCTIONAL, **PXM, **dict.fromkeys(EGM, 0)}},
    "memory-eight-properties-egm-on": {"dsd": {"base": OWN, "size": FUNCTIONAL, **PXM, **EGM}},

    "EINVAL-only-base": table(ONLY_BASE, size=None),
    "EINVAL-only-size": table(ONLY_SIZE, base=None),
    "EINVAL-only-base-zero": table(ONLY_BASE, base=0, size=None),
    "EINVAL-only-size-zero": table(ONLY_SIZE, base=None, size=0),

    **{f"EINVAL-base-{what}": table(f"firmware property {BASE} {said}{UPDATE}", base=value) for what, (value, said) in SHAPES.items()},
    **{f"EINVAL-size-{what}": table(f"firmware property {SIZE} {said}{UPDATE}", size=value) for what, (value, said) in SHAPES.items()},
    # The kernel's interface returns the same for such a package and an integer.
    "memory-base-in-a-package": table(base={"package": [OWN]}),
    "memory-size-in-a-package": table(size={"package": [FUNCTIONAL]}),

    # Without memory, there is nothing to wait for. With memory, a GPU that has a
    # CXL DVSEC is ready by that alone.
    **{f"core-{device:x}": {"dsd": None, "model": {"device": device, **NEVER}} for device in IDS},
    **{f"core-{device:x}-cxl": {"dsd": None, "model": {"device": device, **CXL_NEVER}} for device in IDS},
    **{f"memory-{device:x}": table(device=device) for device in IDS},
    **{f"memory-{device:x}-cxl": table(device=device, cxl={}, **NEVER) for device in IDS},

    # Limits.
    "ENOMEM-size-zero": table(NO_LINK, size=0),
    "ENOMEM-both-zero": table(NO_LINK, base=0, size=0),
    "EINVAL-size-1": table(TOO_LITTLE, size=1),
    "EINVAL-size-1GiB": table(TOO_LITTLE, size=GiB),
    "EINVAL-size-1536MiB-less-1": table(TOO_LITTLE, size=1536 * MiB - 1),
    "memory-size-1536MiB": table(size=1536 * MiB),
    "memory-size-1536MiB-and-1": table(size=1536 * MiB + 1),
    "memory-size-2GiB-less-1": table(size=2 * GiB - 1),
    "memory-size-480GiB": table(size=480 * GiB),
    "memory-size-of-largest-BAR": table(base=1 << 42, size=(1 << 40) + GiB),
    "EOVERFLOW-larger-BAR": table(TOO_WIDE, base=1 << 42, size=(1 << 40) + GiB + 512 * MiB),
    "EOVERFLOW-size-2-to-the-47": table(TOO_WIDE, size=1 << 47),
    "EOVERFLOW-size-2-to-the-63": table(TOO_FAR, size=1 << 63),
    "EOVERFLOW-size-minus-1": table(TOO_FAR, size=TOP - 1),
    "EOVERFLOW-size-up-to-2-to-64": table(TOO_FAR, size=(1 << 64) - (1 << 39)),
    "EINVAL-base-1": table(UNALIGNED, base=1),
    "EINVAL-base-unaligned": table(UNALIGNED, base=OWN + 0x800),
    "EINVAL-base-last-byte-of-page": table(UNALIGNED, base=OWN + PAGE - 1),
    "EOVERFLOW-base-minus-1": table(TOO_FAR, base=TOP - 1),
    "EOVERFLOW-base-minus-4096": table(TOO_FAR, base=TOP - 4096),
    "EOVERFLOW-base-2-to-the-63": table(TOO_FAR, base=1 << 63),
    "EOVERFLOW-base-behind-the-CPUs": table(TOO_FAR, base=CPU_END),
    "EOVERFLOW-a-page-too-far": table(TOO_FAR, base=CPU_END - FUNCTIONAL + PAGE),
    "EOVERFLOW-a-byte-too-far": table(TOO_FAR, base=CPU_END - FUNCTIONAL, size=FUNCTIONAL + 1),
    "memory-up-to-the-CPUs-end": table(base=CPU_END - FUNCTIONAL),

    # Without the MIG defect, no 1 GiB are carved out.
    "memory-a-part-with-the-defect": table(mig_dvsec=0),
    "EINVAL-sound-part-half-a-page": table(LESS_THAN_A_PAGE, size=2048, mig_dvsec=1),
    "memory-sound-part-64MiB": table(size=64 * MiB, mig_dvsec=1),
    "EOVERFLOW-sound-part-larger-BAR": table(TOO_WIDE, base=1 << 42, size=(1 << 40) + 1, mig_dvsec=1),
    "memory-sound-part-largest-BAR": table(base=1 << 42, size=1 << 40, mig_dvsec=1),

    # The host's own memory.
    "EBUSY-RAM-inside": table(IN_RAM, base=RAM + 64 * MiB, size=512 * MiB),
    "EBUSY-RAM-all-of-it": table(IN_RAM, base=RAM, size=2 * GiB),
    "EBUSY-RAM-around": table(IN_RAM, base=RAM - 512 * MiB, size=8 * GiB),
    "EBUSY-RAM-first-page": table(IN_RAM, base=RAM - FUNCTIONAL % GiB, size=FUNCTIONAL % GiB + PAGE, mig_dvsec=1),
    "EBUSY-RAM-last-page": table(IN_RAM, base=RAM_END - PAGE),
    "EBUSY-RAM-in-resmem-alone": table(IN_RAM, base=0, size=2 * GiB),
    "memory-right-behind-RAM": table(base=RAM_END),
    "EBUSY-base-zero": table(IN_RAM, base=0),

    # Memory of HOLDER.
    "EBUSY-GPU-the-same": table(OF_HOLDER, base=M),
    "EBUSY-GPU-its-first-page": table(OF_HOLDER, base=M - FUNCTIONAL + PAGE),
    "EBUSY-GPU-its-last-page": table(OF_HOLDER, base=M + FUNCTIONAL - PAGE),
    "EBUSY-GPU-inside": table(OF_HOLDER, base=M + PAGE, size=1536 * MiB),
    "EBUSY-GPU-around": table(OF_HOLDER, base=M - GiB, size=8 * GiB),
    "memory-GPU-right-behind": table(base=M + FUNCTIONAL),

    # Other devices' registers, which their drivers have claimed.
    "EBUSY-GIC": table(OWNED, base=GIC, size=16 * MiB, mig_dvsec=1),
    "EBUSY-config-space": table(OWNED, base=ECAM, size=256 * MiB, mig_dvsec=1),
    "EBUSY-into-config-space": table(OWNED, base=ECAM - MiB, size=2 * MiB, mig_dvsec=1),
    "EBUSY-config-space-in-resmem-alone": table(OWNED_RESMEM, base=ECAM - 1536 * MiB + PAGE, size=1536 * MiB),
    # Windows of the host bridge. They are no RAM, so the driver only warns.
    "warned-around-the-PCI-window": table(UNCLAIMED, base=PCI_WINDOW - 64 * MiB, size=700 * MiB, mig_dvsec=1),
    "warned-into-the-64-bit-window": table(UNCLAIMED, base=PCI_WINDOW_64 - 256 * MiB, size=256 * MiB + PAGE, mig_dvsec=1),
    "warned-of-usemem-alone": table(UNCLAIMED, base=PCI_WINDOW_64_END - 256 * MiB),
}

# Each differs from a table of `make check` only in the id, or in which of the two
# properties has the wrong type: on oldstable in check-all, and on newest in check-long.
SIMILAR = {*(f"{mode}-{device:x}{cxl}" for mode in ("core", "memory") for device in IDS[1:] for cxl in ("", "-cxl")),
           *(f"EINVAL-size-{what}" for what in SHAPES)}

# The GPU that stays bound while the others are tried.
HOLDER = "holder"

# Of this size, the BAR0 of a GPU for each table fits below 4 GiB. It has both
# readiness registers.
BAR0_SIZE = 256 * KiB

BIND = f"""
pci=$(gpu $1)
d=/sys/bus/pci/devices/$pci
claims() {{
    sed -n "s/^ *\\([0-9a-f-]*\\) : {DRIVER} $pci \\(.*\\)/\\2 $1 \\1/p" /proc/iomem
}}
echo {DRIVER} >$d/driver_override
dmesg -c >/dev/null
echo $pci >/sys/bus/pci/drivers/{DRIVER}/bind 2>/dev/null
dmesg -r | sed "s/^/log /"
[ ! -e $d/nvgrace_gpu ] || for f in mode usemem_size resmem_size; do
    [ ! -e $d/nvgrace_gpu/$f ] || echo $f $(cat $d/nvgrace_gpu/$f)
done
claims claimed
echo >$d/driver_override
[ $1 != {HOLDER} ] || exit 0
[ ! -e $d/driver ] || echo $pci >$d/driver/unbind
claims left
"""


def number(value):
    """The integer that a property's value is or begins with, or 0."""
    if isinstance(value, dict):
        value = [*value.get("package", []), 0][0]
    return value if isinstance(value, int) else 0


def bar(length):
    """The size of a BAR for so many bytes."""
    return 1 << (length - 1).bit_length() if length else 0


def expected(name, gpu, host):
    """(the error of a bind, what sysfs and /proc/iomem have after it, the lines of
    the log as (level, text))."""
    verdict = name.split("-")[0]
    if verdict == "core":
        return 0, ["mode core-only"], [(6, f"firmware gives no {BASE}: bound as a plain PCI device, without GPU memory")]
    base, size = number(gpu.dsd["base"]), number(gpu.dsd["size"])
    usemem = size if gpu.model.get("mig_dvsec") else max(size - GiB, 0) // (512 * MiB) * 512 * MiB
    resmem = size - usemem
    parts = {"usemem": (base, base + usemem - 1), "resmem": (base + usemem, base + size - 1)}
    line = (TABLES[name].get("line") or "").format(
        base=hex(base), size=hex(size), holder=host.gpus[HOLDER].pci, cpu_last=hex(CPU_END - 1),
        page="0x10000" if host.kernel.has("CONFIG_ARM64_64K_PAGES") else "0x1000",
        **{part: f"{part} [{start:#x}-{last:#x}]" for part, (start, last) in parts.items()})
    if verdict not in ("memory", "warned"):
        return getattr(errno, verdict), [], [(3, line)]
    sizes = [f"usemem_size {usemem}", f"resmem_size {resmem}"] if resmem else [f"usemem_size {usemem}"]
    claims = [f"{part} claimed {start:08x}-{last:08x}" for part, (start, last) in parts.items() if last > start and f"claim {part}" not in line]
    said = f"usemem {usemem:#x} bytes as BAR4 of {bar(usemem):#x}, resmem {resmem:#x} bytes as BAR2 of {bar(resmem):#x}"
    return 0, ["mode carve-out" if resmem else "mode no-carve-out", *sizes, *claims], [(4, line), (6, said)] if line else [(6, said)]


def result(pci, output):
    """The same of a script's output."""
    error, found, said = 0, [], []
    for line in output:
        match = re.fullmatch(r"log <(\d+)>\[ *[\d.]+\] (.*)", line)
        if not match:
            if not line.startswith("log "):
                found.append(line)
            continue
        level, text = int(match[1]) & 7, match[2]
        if failed := re.search(r"failed with error -(\d+)$", text):
            error = int(failed[1])
        elif text.startswith(f"{DRIVER} {pci}: ") and not re.search(r"enabling device|Adding to iommu|HDA controller|took \d+ usecs", text):
            said.append((level, text.removeprefix(f"{DRIVER} {pci}: ")))
    return error, found, said


def misread(name, gpu, counters):
    """Why these are the wrong readiness registers to have read, or ""."""
    reads = counters["c2c_reads"], counters["hbm_reads"]
    wanted = name.split("-")[0] in ("memory", "warned") and "cxl" not in gpu.model
    return "" if all(reads) == any(reads) == wanted else f"the C2C register was read {reads[0]} times, that of the HBM {reads[1]} times"


class Host:
    """A machine with HOLDER and the GPUs of these tables."""

    def __init__(self, kernel, names, script):
        script.write_text(BIND)
        tables = {HOLDER: table(base=M), **{name: TABLES[name] for name in names}}
        gpus = [{"name": name, "dsd": t["dsd"], "model": {"bar0_size": BAR0_SIZE, **t.get("model", {})}}
                for name, t in tables.items()]
        self.kernel = kernel
        self.session = session.Interactive(kernel, gpus=gpus, memory="0", files={"/tests/bind": str(script)},
                                           module=str(programs.module_of(kernel)), log=str(programs.log_file(f"firmware-{kernel.name}")))
        self.gpus = {g.name: g for g in self.session.machine.gpus}
        self.bind(HOLDER)

    def bind(self, name):
        """What binding a GPU prints, and what is wrong in the kernel's log."""
        command = self.session.run(name, f"sh /tests/bind {name}")
        return command.output, self.session.scan(command.log)


def pytest_generate_tests(metafunc):
    chosen = metafunc.config.getoption("kernel")
    metafunc.parametrize("kernel,name", [
        pytest.param(kernel, name, marks=getattr(pytest.mark, "long" if kernel == "newest" and name in SIMILAR else KERNELS.get(kernel, "check")))
        for kernel in chosen or KERNELS for name in TABLES if chosen or kernel in ("newest", "oldstable") or name not in SIMILAR], scope="module")


@pytest.fixture(scope="module")
def host(kernel, request, tmp_path_factory):
    """The machine of the tables that are to be tested."""
    chosen = {i.callspec.params["name"] for i in request.session.items if i.path == request.path and i.callspec.params["kernel"] == kernel}
    made = Host(vm.Kernel(kernel), [n for n in TABLES if n in chosen], tmp_path_factory.mktemp("host") / "bind")
    yield made
    assert not made.session.end().failures


def test_table(host, name):
    output, log = host.bind(name)
    assert not log
    assert result(host.gpus[name].pci, output) == expected(name, host.gpus[name], host)
    assert not misread(name, host.gpus[name], host.session.machine.models[name].gpu.counters)
