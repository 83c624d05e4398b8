#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Shows that the tests in the virtual machine can fail: plants one mistake at a
time in a copy of the driver, which a test program must find.

    mutants.py [--random OPERATIONS] [FILE...]

Inside the toolbox. Part of `make check-long`, at half a minute a mistake. With
FILEs, only the mistakes in these. With --random, the program "random" must find
them within OPERATIONS of the seed that `make check` uses; mistakes that it
can't see are printed with the reason. As many machines run at a time as there
are processors. A mistake whose code is gone from the sources is a failure. The
last line is the sum.
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile

import suite
import vm

# File, old text, new text, the program that must fail, and the kernel, if not
# newest.
MUTANTS = (
    ("src/region.c", "if (!(vma->vm_flags & VM_SHARED))", "if (0)", "mmap"),
    ("src/region.c", "if (vma->vm_flags & VM_EXEC)", "if (0)", "mmap", "oldstable"),    # newer kernels say no themselves
    ("src/region.c", "vm_flags_clear(vma, VM_MAYEXEC);", "", "mmap", "oldstable"),
    ("src/region.c", "if (end > nvgrace_gpu_mappable(region))", "if (end > region->bar_size)", "mmap"),
    ("src/region.c", "!IS_ALIGNED(pfn, 1UL << order)", "0", "mmap"),
    ("src/region.c", "for (; addr < end; addr += PAGE_SIZE)", "for (; 0; addr += PAGE_SIZE)", "mmap"),
    ("src/region.c", "around = huge ? PMD_SIZE :", "around = 0 ? PMD_SIZE :", "mmap"),
    ("src/region.c", "COMPAT_HUGE_FAULT(fault_order)", "", "mmap"),
    ("src/region.c", "nvgrace_gpu_mappable(region);\n\n\tret", "region->length;\n\n\tret", "region"),
    ("src/cfgemu.c", "PCI_BASE_ADDRESS_5 + 4", "PCI_BASE_ADDRESS_5", "config"),
    ("src/cfgemu.c", "gpu->usemem.bar_written = 0;", "", "reset"),
    ("src/rw.c", "memset(ones, 0xff, size);", "memset(ones, 0, size);", "rw"),
    ("src/rw.c", "count = min_t(u64, count, region->bar_size - offset);", "", "rw"),
    ("src/window.c", "region->window[i] = NULL;", "", "rw"),
    ("src/window.c", "vm_unmap_aliases();", "return;", "rw"),
    ("src/window.c", "WINDOW - offset % WINDOW", "WINDOW", "rw"),
    ("src/window.c", "map + offset % WINDOW", "map + (offset & ~7ULL) % WINDOW", "rw"),
    ("src/rw.c", "copy_words(mem, bounce, len);", "copy_words(mem, bounce, round_up(len, 2));", "rw"),
    ("src/rw.c", "if (fatal_signal_pending(current)) {", "if (0) {", "rw"),
    ("src/rw.c", "\tpagefault_disable();\n", "", "race"),
    ("src/rw.c", "count <= RW_SMALL ||\n\t\t\t\t   fruitless == RW_TRIES", "count <= RW_SMALL", "rw"),
    ("src/rw.c", "done += ret;", "done += ret ? len : 0;", "rw"),
    ("src/rw.c", "done += piece - missed;", "done += piece;", "rw"),
    ("src/rw.c", "__copy_to_user_inatomic(buf + done, mem + done, piece)", "__copy_to_user_inatomic(buf + done, mem, piece)", "rw"),
    ("src/rw.c", "__copy_from_user_inatomic(mem + done, buf + done, piece)", "copy_from_user(mem + done, buf + done, piece)", "rw"),
    ("src/region.c", "vma->vm_end & PMD_MASK", "vma->vm_end", "mmap"),
    ("src/region.c", "vmf->pmd - (fault - addr) / PMD_SIZE", "vmf->pmd", "mmap"),
    # The narrowest race of all.
    ("src/region.c", "vmf->pmd & PAGE_MASK", "vmf->pmd", "thp:4000"),
    ("src/probe.c", "if (!mem->size)", "if (0)", "discovery"),
    ("src/probe.c", "last > compat_phys_last()", "0", "discovery"),
    ("src/probe.c", "if (!PAGE_ALIGNED(mem->base))", "if (0)", "discovery"),
    ("src/probe.c", "IORES_DESC_NONE) == REGION_DISJOINT", "IORES_DESC_NONE) != REGION_INTERSECTS", "discovery"),
    ("src/probe.c", "ret = -EBUSY;", "", "discovery"),
    ("src/probe.c", "DVSEC_NO_MIG_DEFECT\tBIT(0)", "DVSEC_NO_MIG_DEFECT\tBIT(1)", "discovery"),
    ("src/probe.c", "count == 1 &&", "count >= 1 &&", "discovery"),
    ("src/probe.c", "\tif (res->flags & IORESOURCE_WINDOW)\n\t\treturn 0;", "\treturn 0;", "discovery"),
    ("src/device.c", "nvgrace_gpu_gate_asleep(to_nvgrace_gpu(core_vdev));", ";", "power"),
    ("src/device.c", ".ioctl\t\t= vfio_pci_core_ioctl,", ".ioctl\t\t= nvgrace_gpu_region_ioctl,", "plain"),
    ("src/device.c", "!(flags & VFIO_DEVICE_FEATURE_PROBE);", "true;", "gate"),
    ("src/device.c", "trace_nvgrace_gpu_config(gpu->core.pdev, write, offset, count,", "trace_nvgrace_gpu_config(gpu->core.pdev, write, *ppos, count,",
     "trace"),
    ("src/ready.c", "\tif (training->c2c == TRAINED) {", "\tif (1) {", "ready"),
    ("src/ready.c", "TRAINING_MS\t\t30000", "TRAINING_MS\t\t2000", "ready"),
    ("src/gate.c", "\tnvgrace_gpu_cfgemu_reset(gpu);", "\t;", "reset"),
    ("src/reset.c", "\t\tpci_restore_state(pdev);", "\t\t;", "aer"),
    ("src/gate.c", "if (gpu->closed)\n\t\treturn READ_ONCE", "if (0)\n\t\treturn READ_ONCE", "gate"),
    ("src/gate.c", "== current ? -EIO : -EAGAIN", "== current ? -EAGAIN : -EAGAIN", "gate"),
    ("src/gate.c", "if (gpu->link_frozen)\n\t\treturn -EIO;", "", "aer"),
    ("src/gate.c", "return memory_enabled(gpu) ? 0 : -EIO;", "return 0;", "gate"),
    ("src/gate.c", "gpu->core.pm_runtime_engaged && !awake", "0", "power"),
    ("src/gate.c", "if (!ret && !gpu->core.pm_runtime_engaged)", "if (!ret)", "power"),
    ("src/gate.c", "gpu->closed | reason);\n\tnvgrace_gpu_window_unmap(gpu);", "gpu->closed | reason);", "gate"),
    ("src/gate.c", "count_reset(gpu);\n\tup_write(&gpu->gate);\n\tzap(gpu);", "count_reset(gpu);\n\tup_write(&gpu->gate);", "gate"),
    ("src/gate.c", "\tfind_gpu(gpu);\n\topen_for(gpu, CLOSED_RESET);", "\topen_for(gpu, CLOSED_RESET);", "aer"),
    ("src/reset.c", "return state == pci_channel_io_frozen ? PCI_ERS_RESULT_NEED_RESET : ret;", "return ret;", "aer"),
    ("src/gate.c", "\tforget_ready(gpu);\n\tup_write(&gpu->gate);\n\t/* Tasks that wait for", "\tup_write(&gpu->gate);\n\t/* Tasks that wait for",
     "aer"),
    ("src/gate.c", "\tWRITE_ONCE(gpu->link_frozen, false);\n\tup_write", "\tup_write", "aer"),
    ("src/reset.c", "if (has_lost_bars(pdev))", "if (0)", "aer"),
    ("src/reset.c", "if (gpu->saved_state && !pci_load", "if (!pci_load", "failures"),
    ("src/gate.c", "WRITE_ONCE(gpu->failed_for, READ_ONCE(gpu->epoch));", ";", "aer"),
    ("src/reset.c", "high != upper_32_bits(bar0)", "false", "aer"),
    ("src/gate.c", "return pm_cap && covers", "return false && covers", "gate"),
    ("src/gate.c", "pm_cap + PCI_PM_CTRL, 2)", "pm_cap, 2)", "gate"),
    ("src/gate.c", "return !COMPAT_CORE_ZAPS &&", "return false &&", "gate", "oldstable"),     # newer kernels do it themselves
    ("src/gate.c", "\t\tforget_ready(gpu);\n\topen_for(gpu, CLOSED_CONFIG);", "\t\t;\n\topen_for(gpu, CLOSED_CONFIG);", "gate"),
    ("src/gate.c", "close_for(gpu, CLOSED_CONFIG);", ";", "gate"),
    ("src/gate.c", "if (data_race(!!gpu->core.pm_runtime_engaged))", "if (0)", "gate"),
    ("src/gate.c", "close_for(gpu, CLOSED_SUSPEND);", ";", "gate"),
    ("src/gate.c", "\tforget_ready(gpu);\n\tup_write(&gpu->gate);\n\tzap(gpu);\n}\n\nvoid nvgrace_gpu_gate_resume", "\tup_write(&gpu->gate);\n\tzap(gpu);\n}\n\nvoid nvgrace_gpu_gate_resume", "gate"),
    ("src/gate.c", "TASK_KILLABLE :\n\t\t\t\t\t\t\tSLEEP_STATE", "TASK_KILLABLE :\n\t\t\t\t\t\t\tTASK_KILLABLE", "gate"),
    ("src/device.c", "\t.freeze\t\t\t= hibernate,\n", "", "scrub:5"),
    ("src/gate.c", "gpu->epoch == epoch ? check(gpu, true) : -EAGAIN", "check(gpu, true)", "wait"),
    ("src/gate.c", "kind == POLL_IN_USE &&\n\t\t\t READ_ONCE(gpu->failed_for) == epoch", "0", "wait"),
    ("src/gate.c", "TASK_KILLABLE | TASK_FREEZABLE_UNSAFE", "TASK_UNINTERRUPTIBLE", "gate"),
    ("src/gate.c", "\t\tWRITE_ONCE(gpu->failed_for, READ_ONCE(gpu->epoch));\n", "\t\t;\n", "aer"),
    ("src/region.c", "if (compat_pmd_is_huge(vmf))", "if (0)", "thp"),
    ("include/compat/mm.h", "vmf_insert_pfn_pmd(vmf, compat_huge_pfn(pfn), false)",
     "vmf_insert_pfn_pmd(vmf, compat_huge_pfn(pfn), vmf->flags & FAULT_FLAG_WRITE)", "thp"),
    ("src/shadow.c", "\tshadow->f_mapping = mapping->inode->i_mapping;\n", "", "gate", "oldstable"),
    ("src/dmabuf.c", "return nvgrace_gpu_gate_wait_export(gpu);", "return 0;", "dmabuf"),
    ("src/dmabuf.c", "region->base, nvgrace_gpu_mappable(region));", "region->base, region->bar_size);", "dmabuf"),
    ("src/region.c", "*pgoff = vma->vm_pgoff + (pfn - first);", "*pgoff = vma->vm_pgoff;", "poison"),
    ("src/region.c", "\tnvgrace_gpu_poison_report(region->gpu, pfn);\n", "", "poison"),
    ("src/rw.c", "if (!write || !PAGE_ALIGNED(offset) || len < PAGE_SIZE)", "if (!write || len < PAGE_SIZE)", "poison"),
    ("src/rw.c", "\tnvgrace_gpu_poison_forget(region, offset, reports);\n", "", "poison"),
    ("src/poison.c", "before = bad > start ? bad - start : 0;", "before = 0;", "poison"),
    ("src/poison.c", "\tif (poison->overflow)\n\t\tbefore = 0;\n", "", "poison"),
    ("src/scrub.c", "\tnvgrace_gpu_poison_forget_all(&gpu->usemem);\n", "", "poison"),
    # No mistake about caches: an emulated CPU has none.
    ("src/scrub.c", "atomic64_set(&s->next_resmem, 0);", "atomic64_set(&s->next_resmem, S64_MAX / 2);", "scrub:5"),
    ("src/scrub.c", "atomic64_set(&s->next_usemem, 0);", "atomic64_set(&s->next_usemem, SZ_512M);", "scrub:5"),
    ("src/scrub.c", "\t\tret = pass(gpu, count, true);", "\t\tret = 0;", "trace"),
    ("src/scrub.c", "count = count_steps(region, s->again);", "count = count_steps(region, false) - s->again;", "trace"),
    ("src/scrub.c", "len = min_t(u64, STEP, region->length - offset);", "len = min_t(u64, STEP - 1, region->length - offset);", "scrub:5"),
    ("src/scrub.c", "len = min_t(u64, STEP, region->length - offset);", "len = min_t(u64, STEP, round_down(region->length - offset, PAGE_SIZE));",
     "scrub:5"),
    ("src/scrub.c", "set_state(gpu, NVGRACE_GPU_SCRUB_RUNNING);", "set_state(gpu, NVGRACE_GPU_SCRUB_CLEAN);", "scrub:5"),
    ("src/scrub.c", "\ts->must_reset = gpu->core.needs_reset;", "\ts->must_reset = false;", "scrub:5"),
    ("src/scrub.c", "\ts->must_reset = true;", "\ts->must_reset = false;", "scrub:5"),
    ("src/scrub.c", "\ts->must_reset = ret;", "\ts->must_reset = false;", "scrub:5"),
    ("src/scrub.c", "if (nvgrace_gpu_scrub_wanted() && !s->stopping)\n\t\tqueue_attempt(gpu);", ";", "scrub:5"),
    ("src/scrub.c", "s->state == NVGRACE_GPU_SCRUB_CLEAN) {", "true) {", "scrub:5"),
    ("src/scrub.c", "set_state(gpu, NVGRACE_GPU_SCRUB_DIRTY);\n\tmutex_unlock(&gpu", "mutex_unlock(&gpu", "scrub:5"),
    ("src/scrub.c", "return -ERESTARTNOINTR;", "return -EIO;", "scrub:5"),
    ("src/scrub.c", "cancel_work_sync(", "flush_work(", "scrub:5"),
    ("src/scrub.c", "\tpm_runtime_put(&gpu->core.pdev->dev);\n\t/* After", "\t/* After", "scrub:5"),
    ("src/scrub.c", "\tnvgrace_gpu_gate_device_closing(gpu);\n", "", "scrub:5"),
    ("src/scrub.c", "\t\t\tret = -ENODEV;\n\t\t\tbreak;", "\t\t\t;", "scrub:5"),
    ("src/scrub.c", "\tif (s->state == NVGRACE_GPU_SCRUB_CLEAN)\n\t\tset_state(gpu, NVGRACE_GPU_SCRUB_UNKNOWN);", "", "scrub:5"),
    ("src/scrub.c", "\tif (s->open || s->stopping)\n\t\tret = -EBUSY;", "\tif (0)\n\t\tret = -EBUSY;", "scrub:5"),
    ("src/scrub.c", "\t\tqueue_attempt(gpu);\n\t\tmutex_unlock(&s->lock);\n\t\twait_for_attempt(gpu);", "\t\tmutex_unlock(&s->lock);", "scrub:5"),
    ("src/scrub.c", "\t\tret = pci_reset_function_locked(pdev);", "\t\tret = 0;", "scrub:5"),
    ("src/scrub.c", "\t\tret = lock_device(gpu);\n", "\t\tret = 0;\n", "scrub:5"),
    ("src/scrub.c", "\tpci_cfg_access_lock(pdev);\n\tret = pci_reset_function_locked(pdev);\n\tpci_cfg_access_unlock(pdev);\n",
     "\tret = pci_reset_function_locked(pdev);\n", "scrub:5"),
    ("src/scrub.c", "\tpci_cfg_access_lock(gpu->core.pdev);\n\tret = begin_access(gpu);\n\tpci_cfg_access_unlock(gpu->core.pdev);\n",
     "\tret = begin_access(gpu);\n", "scrub:5"),
    ("src/device.c", "\tnvgrace_gpu_scrub_requested(to_nvgrace_gpu(core_vdev));", "\t;", "scrub:5"),
    ("src/rw.c", "if (nvgrace_gpu_gate_epoch(region->gpu) != epoch)", "if (0)", "scrub:5"),
    ("src/sysfs.c", "DEVICE_ATTR_WO(scrub);", "DEVICE_ATTR(scrub, 0220, NULL, scrub_store);", "scrub:5"),
    ("src/sysfs.c", "DEVICE_ATTR_ADMIN_RO", "DEVICE_ATTR_RO", "sysfs"),
    # Addresses where a client can read them: hexadecimal, decimal, in the log,
    # in binary.
    ("src/sysfs.c", "DEVICE_ATTR_ADMIN_RO", "DEVICE_ATTR_RO", "privilege"),
    ("src/sysfs.c", "SIZE_ATTR(resmem, size, length);", "SIZE_ATTR(resmem, size, base);", "privilege"),
    ("src/probe.c", " gpu->usemem.length, gpu->usemem.bar_size,", " gpu->usemem.base, gpu->usemem.bar_size,", "privilege"),
    ("src/region.c", "sparse->areas[0].offset = 0;", "sparse->areas[0].offset = region->base;", "privilege"),
    ("src/cfgemu.c", "gpu->resmem.bar_written = 0;", "gpu->resmem.bar_written = gpu->resmem.base;", "privilege"),
    ("src/region.c", "if (end > nvgrace_gpu_mappable(region))", "if (0)", "privilege"),
    # For the GPU's own file, unlike others, the kernel itself allows executable
    # mappings.
    ("src/region.c", "if (vma->vm_flags & VM_EXEC)", "if (0)", "privilege", "newest-64k"),
    ("src/region.c", "vm_flags_clear(vma, VM_MAYEXEC);", "", "privilege", "newest-64k"),
    # What a random sequence finds.
    ("src/rw.c", "memory = min_t(u64, count, region->length - offset);", "memory = count;", "random:1:20000"),
)


# Why the program "random" can't see what some programs find, and single
# mistakes, by how they begin.
UNSEEN_PROGRAMS = {
    "discovery": "tables of the firmware, of which its GPU has a good one",
    "plain": "a GPU without memory",
    "ready": "a GPU that is late or never ready when it is bound",
    "wait": "a wait that fails, which takes 30 s",
    "trace": "the fields of tracepoints",
    "sysfs": "the modes of attributes",
    "poison": "memory errors",
    "privilege": "addresses in files and answers, and a client without root",
    "scrub": "the module parameter is off",
    "aer": "recoveries that fail, of GPUs whose bus is never reset",
}
UNSEEN = {
    "for (; addr < end": "the number of faults",
    "around = huge": "the number of faults",
    "COMPAT_HUGE_FAULT": "the size of entries",
    "region->window[i] = NULL;": "the kernel's own mappings of closed devices",
    "if (fatal_signal_pending": "how soon a killed access ends",
    "close_for(gpu, CLOSED_SUSPEND)": "the host's suspend",
    "forget_ready(gpu);\n\tup_write(&gpu->gate);\n\tzap": "the host's suspend",
    "TASK_KILLABLE :": "the host's suspend",
    "gpu->closed | reason)": "the kernel's own mappings, which show nothing else",
}


def unseen(mutant):
    """Why the program "random" can't find a mistake; "" if it can."""
    _, old, _, program, *_ = mutant
    return UNSEEN_PROGRAMS.get(program.split(":")[0]) or next((why for start, why in UNSEEN.items() if old.strip().startswith(start)), "")


# For mistakes that make a machine hang.
TIMEOUT_S = 240
LIMIT = ("--timeout", str(TIMEOUT_S))


def first_failure(copy, kernel, programs, limit=LIMIT):
    """(failure, trouble) of programs in a machine with the copy's module: the
    first failure as a line of TAP, which ends the run, or "" if all pass; and
    what is wrong with the run itself, or ""."""
    command = ["python3", "tests/vm/suite.py", "--first-failure", *limit, kernel.name, *programs]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, cwd=copy, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            failed = next((line.rstrip() for line in process.stdout if line.startswith("not ok ")), "")
        if failed or not process.returncode:
            return failed, ""
        errors.seek(0)
        return "", f"ended with {process.returncode}\n{errors.read()[-2000:]}"


class Workplace:
    """A copy of the sources of the module and its tests, for one mutant after
    the other. Only what a mutant changes is built again."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        for name in ("Makefile", "Kbuild", "dkms.conf", "src", "include", "scripts", "tests"):
            source = vm.PROJECT / name
            if source.is_dir():
                shutil.copytree(source, self.directory / name)
            else:
                shutil.copy2(source, self.directory / name)

    def compiled(self, kernel, *more):
        """The compiler's complaint, or "" if there is a module. more: make's
        arguments."""
        made = subprocess.run(["make", "modules", f"KDIR={kernel.headers}", *kernel.arch.make, *more],
                              cwd=self.directory, capture_output=True, text=True)
        return made.stderr[-2000:] or f"status {made.returncode}" if made.returncode else ""

    @contextlib.contextmanager
    def changed(self, file, text):
        """A context in which the file has that text."""
        path = self.directory / file
        good = path.read_bytes()
        path.write_bytes(text)
        try:
            yield
        finally:
            path.write_bytes(good)

    def failure_with(self, file, text, kernel, programs, make=(), limit=LIMIT):
        """first_failure() with that text in a file."""
        with self.changed(file, text):
            why = self.compiled(kernel, *make)
            if why:
                return "", f"does not compile\n{why}"
            return first_failure(self.directory, kernel, programs, limit)

    def try_one(self, file, old, new, program, kernel="newest"):
        """Whether the program fails on the mutant. Prints what happened."""
        title = f"{program} finds {file}: {old.strip()!r} -> {new.strip()!r}"
        text = (self.directory / file).read_text()
        if old not in text:
            failed, why = "", "not there any more"
        else:
            failed, why = self.failure_with(file, text.replace(old, new, 1).encode(), vm.Kernel(kernel), [program])
        print(f"ok - {title}\n#   {failed[:110]}" if failed else f"not ok - {title}: {why or 'passed'}", flush=True)
        return bool(failed)


class Workplaces:
    """Workplaces for as many mutants at a time."""

    def __init__(self, count=None):
        self.count = count or os.cpu_count()
        self.all = []
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        (vm.PROJECT / "build").mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            for _ in range(self.count):
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="mutant-", dir=vm.PROJECT / "build"))
                self.all.append(Workplace(directory))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        self._stack.close()

    def map(self, work, items):
        """[work(workplace, item)], in the order of the items."""
        free = queue.SimpleQueue()
        for place in self.all:
            free.put(place)

        def somewhere(item):
            place = free.get()
            try:
                return work(place, item)
            finally:
                free.put(place)

        with concurrent.futures.ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(somewhere, items))


def try_all(mutants):
    """[whether it was found] of all, as many at a time as there are
    processors."""
    with Workplaces() as places:
        return places.map(lambda place, mutant: place.try_one(*mutant), mutants)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, metavar="OPERATIONS")
    parser.add_argument("files", nargs="*", metavar="FILE")
    args = parser.parse_args()
    wanted = [mutant for mutant in MUTANTS if not args.files or mutant[0] in args.files]
    if args.random:
        for mutant in wanted:
            if why := unseen(mutant):
                print(f"# not for random, since it can't see {why}: {mutant[0]}: {mutant[1].strip()!r}")
        program = f"random:{suite.RANDOM_SEED}:{args.random}"
        wanted = [(*mutant[:3], program, *mutant[4:]) for mutant in wanted if not unseen(mutant)]
    results = try_all(wanted)
    passed = sum(results)
    print(f"{passed} passed, {len(results) - passed} failed, 0 skipped")
    sys.exit(passed != len(results))


if __name__ == "__main__":
    main()
