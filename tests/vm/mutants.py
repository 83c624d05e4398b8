#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Shows that the tests in the virtual machine can fail: puts one mistake at a time into a copy of the driver, and expects
a test program to find it.

    mutants.py

Inside the toolbox. Part of `make check-long`, at half a minute a mistake. A mistake that the
sources no longer have room for is a failure, so that the list stays true. The last line is the sum.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import vm

# File, what to replace and by what, and the program that must fail; and where it must, if not on 7.2.
MUTANTS = (
    ("src/region.c", "if (!(vma->vm_flags & VM_SHARED))", "if (0)", "mmap"),
    ("src/region.c", "if (vma->vm_flags & VM_EXEC)", "if (0)", "mmap", "6.1"),    # 7.2 itself says no
    ("src/region.c", "vm_flags_clear(vma, VM_MAYEXEC);", "", "mmap", "6.1"),
    ("src/region.c", "if (end > nvgrace_gpu_mappable(region))", "if (end > region->bar_size)", "mmap"),
    ("src/region.c", "if (!IS_ALIGNED(pfn, 1UL << order))", "if (0)", "mmap"),
    ("src/region.c", "for (; addr < last; addr += PAGE_SIZE)", "for (; 0; addr += PAGE_SIZE)", "mmap"),
    ("src/region.c", "COMPAT_HUGE_FAULT(fault_order)", "", "mmap"),
    ("src/region.c", "nvgrace_gpu_mappable(region);\n\n\tret", "region->length;\n\n\tret", "region"),
    ("src/cfgemu.c", "PCI_BASE_ADDRESS_5 + 4", "PCI_BASE_ADDRESS_5", "config"),
    ("src/cfgemu.c", "gpu->usemem.bar_written = 0;", "", "reset"),
    ("src/rw.c", "memset(ones, 0xff, size);", "memset(ones, 0, size);", "rw"),
    ("src/rw.c", "count = min_t(u64, count, region->bar_size - offset);", "", "rw"),
    ("src/rw.c", "region->window[i] = NULL;", "", "rw"),
    ("src/rw.c", "RW_WINDOW - (offset + done) % RW_WINDOW", "RW_WINDOW", "rw"),
    ("src/rw.c", "map + offset % RW_WINDOW", "map + (offset & ~7ULL) % RW_WINDOW", "rw"),
    ("src/rw.c", "copy_words(mem, bounce, len);", "copy_words(mem, bounce, round_up(len, 2));", "rw"),
    ("src/rw.c", "if (fatal_signal_pending(current)) {", "if (0) {", "rw"),
    ("src/probe.c", "if (!mem->size)", "if (0)", "discovery"),
    ("src/probe.c", "last > compat_phys_last()", "0", "discovery"),
    ("src/probe.c", "if (!PAGE_ALIGNED(mem->base))", "if (0)", "discovery"),
    ("src/probe.c", "IORES_DESC_NONE) == REGION_DISJOINT", "IORES_DESC_NONE) != REGION_INTERSECTS", "discovery"),
    ("src/probe.c", "ret = -EBUSY;", "", "discovery"),
    ("src/probe.c", "DVSEC_NO_MIG_DEFECT\tBIT(0)", "DVSEC_NO_MIG_DEFECT\tBIT(1)", "discovery"),
    ("src/probe.c", "count == 1 &&", "count >= 1 &&", "discovery"),
    ("src/probe.c", "was_reset(pdev_to_gpu(pdev), NVGRACE_GPU_RESET_DONE);", "", "reset"),
    ("src/probe.c", "nvgrace_gpu_forget_ready(to_nvgrace_gpu(core_vdev));", ";", "power"),
    ("src/probe.c", "\t\tpci_restore_state(pdev);", "\t\t;", "aer"),
    ("src/probe.c", "trace_nvgrace_gpu_config(gpu->core.pdev, write, offset, count,", "trace_nvgrace_gpu_config(gpu->core.pdev, write, *ppos, count,",
     "trace"),
    ("src/ready.c", "st->c2c == TRAINED && st->hbm == TRAINED", "(st->c2c == TRAINED || st->hbm == TRAINED)", "ready"),
    ("src/ready.c", "set_current_state(TASK_KILLABLE);", "set_current_state(TASK_UNINTERRUPTIBLE);", "ready"),
    ("src/ready.c", "TRAINING_MS\t\t30000", "TRAINING_MS\t\t2000", "ready"),
    ("src/ready.c", "if (!ret && !gpu->core.pm_runtime_engaged)", "if (!ret)", "power"),
    ("src/dmabuf.c", "region->base, nvgrace_gpu_mappable(region));", "region->base, region->bar_size);", "dmabuf"),
    ("src/region.c", "*pgoff = vma->vm_pgoff + (pfn - first);", "*pgoff = vma->vm_pgoff;", "poison"),
    ("src/sysfs.c", "DEVICE_ATTR_ADMIN_RO", "DEVICE_ATTR_RO", "sysfs"),
)

def try_one(file, old, new, program, kernel="7.2"):
    """True if the program fails on the mutant; prints what happened."""
    kernel = vm.Kernel(kernel)
    with tempfile.TemporaryDirectory(prefix="mutant-", dir=vm.PROJECT / "build") as directory:
        copy = pathlib.Path(directory)
        for name in ("Makefile", "Kbuild", "dkms.conf", "src", "include", "scripts", "tests"):
            source = vm.PROJECT / name
            if source.is_dir():
                shutil.copytree(source, copy / name)
            else:
                shutil.copy2(source, copy / name)
        text = (copy / file).read_text()
        title = f"{program} finds {file}: {old.strip()!r} -> {new.strip()!r}"
        if old not in text:
            print(f"not ok - {title}: not there any more", flush=True)
            return False
        (copy / file).write_text(text.replace(old, new, 1))
        made = subprocess.run(["make", "modules", f"KDIR=/usr/src/linux-headers-{kernel.release}", "ARCH=arm64",
                               "CROSS_COMPILE=aarch64-linux-gnu-"], cwd=copy, capture_output=True, text=True)
        if made.returncode:
            print(f"not ok - {title}: does not compile\n{made.stderr[-2000:]}", flush=True)
            return False
        # Some mistakes are found by a machine that hangs.
        run = subprocess.run(["python3", "tests/vm/suite.py", "--timeout", "240", kernel.name, program], cwd=copy, capture_output=True,
                             text=True)
        lines = [line for line in run.stdout.splitlines() if line.startswith("not ok ")]
        if run.returncode and lines:
            print(f"ok - {title}\n#   {lines[0][:110]}", flush=True)
            return True
        print(f"not ok - {title}: passed\n{run.stderr[-500:]}", flush=True)
        return False


def main():
    results = [try_one(*mutant) for mutant in MUTANTS]
    passed = sum(results)
    print(f"{passed} passed, {len(results) - passed} failed, 0 skipped")
    sys.exit(passed != len(results))


if __name__ == "__main__":
    main()
