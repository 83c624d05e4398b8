# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu bench, test and scrub --verify, with ASan and UBSan, on a GPU that
fake_vfio.c imitates: failures that a virtual GPU does not have.
test_testers_in_machine.py and test_scrub_in_machine.py test these commands with
the driver.

The program has a tree as its /sys, in a mount namespace of its own.
"""

import errno
import fcntl
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess

import pytest

from boot.test_initramfs import NAME, module
from cli.common import build, sanitizer_options, validate
from cli.test_trees import G1

BUS_ADRERR, BUS_MCEERR_AO = 2, 5
KiB, MiB = 1 << 10, 1 << 20
USEMEM, RESMEM = 512 * KiB, 256 * KiB
BASES = {"usemem_base": "0x4000000000", "resmem_base": "0x4000080000"}
# The program does not wait for complaints of the kernel, which come before it waits.
CLOCK = "fast=1000"
# Memory that fills its BARs. Of words with the same name, the first counts.
GPU = f"usemem={USEMEM} bar4={USEMEM} resmem={RESMEM} bar2={RESMEM} {CLOCK}"
SIZES = {"mode": "carve-out", "usemem_size": USEMEM, "usemem_bar_size": USEMEM, "resmem_size": RESMEM,
         "resmem_bar_size": RESMEM, "readiness": "ready", **BASES}
DEVICE = f"/sys/bus/pci/devices/{G1}"
# What cmocka 1.1.7 prints of a case that is skipped.
SKIPPED = """TAP version 13
1..1
# needs such a thing
ok 1 # SKIP b
# ok - some"""


class Played:
    """Each test runs the program on self.tree."""

    # Options of unshare(1).
    namespaces = ("--mount",)

    @pytest.fixture(autouse=True)
    def played(self, tree, fake_vfio):
        assert os.geteuid() == 0, "not root, as in the toolbox"
        self.tree, self.library = tree, fake_vfio
        self.log = self.tree.file("/log/nvgrace-gpu-test.log").root / "log/nvgrace-gpu-test.log"
        self.records = self.tree.file("/records").root / "records"
        self.files = {"/var/log": self.log.parent}
        self.tree.file("/sys/bus/pci/drivers/nvgrace_gpu_vfio_pci/features", "")
        self.tree.file(f"{DEVICE}/rescan")
        self.tree.device(G1, driver="nvgrace_gpu_vfio_pci", **SIZES)

    def replace(self, path, text):
        """Puts a file with this text in the place of another, such as one in
        /proc."""
        self.tree.file(f"/replaced{path}", text)
        self.files[path] = self.tree.root / f"replaced{path}"

    def run_words(self, *words, play="", env=None, preload=(), options="", program=None, **streams):
        """The CompletedProcess of the tool, or of another program. play, env: for
        fake_vfio.c. preload: libraries before that one. options: of env(1)."""
        # The rest of these two stays visible.
        mounts = "".join(f"mount -t overlay overlay -o lowerdir='{self.tree.root / name}':/{name} /{name} && "
                         for name in ("etc", "usr") if (self.tree.root / name).is_dir())
        mounts += "".join(f"mount --bind '{here}' {path} && " for path, here in
                          {"/sys": self.tree.root / "sys", **self.files}.items())
        variables = {"KMSG": self.records, "LD_PRELOAD": ":".join(map(str, (*preload, self.library))), "PLAY": play, **(env or {})}
        sets = "".join(f"{name}={shlex.quote(str(value))} " for name, value in variables.items())
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", **sanitizer_options("verify_asan_link_order=0")}
        done = subprocess.run(["unshare", *self.namespaces, "sh", "-c", f'{mounts} exec env {options} {sets} "$@"', "sh",
                               build().parent / (program or "nvgrace-gpu"), *words], text=True, timeout=600, env=environment,
                              **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams})
        assert done.returncode != 99, done.stderr
        assert "runtime error" not in (done.stderr or "")
        return done

    def check_failure(self, play, status, words, command, **more):
        """The command ends with this status and a message with these words,
        which is returned."""
        done = self.run_words(*command, G1, play=f"{play} {GPU}", **more)
        assert (done.returncode, done.stdout) == (status, ""), (play, done.stderr)
        assert words in done.stderr, play
        return done.stderr


class Bench(Played):
    """Opening a GPU, and "nvgrace-gpu bench" of it."""

    def run_words(self, *words, **more):
        return super().run_words(*words, program=build().parent / "libexec/nvgrace-gpu/bench", **more)

    def check_failure(self, play, status, words, command=("--yes", "--quick"), **more):
        return super().check_failure(play, status, words, command, **more)

    def bench(self, play=""):
        """Its document, and the figures by name."""
        done = self.run_words("--yes", "--quick", "--json", G1, play=f"{play} {GPU}")
        assert done.returncode == 0, (play, done.stderr)
        document = json.loads(done.stdout)
        validate(document)
        return document, {f["name"]: f for f in document["figures"]}

    def test_refused(self):
        self.tree.device("0019:01:00.0", driver="nouveau", group=13)
        done = self.run_words("--yes", "0019:01:00.0")
        assert (done.returncode, done.stdout) == (4, "")
        assert 'bound to nouveau; stop what uses it, and run "nvgrace-gpu bind 0019:01:00.0"' in done.stderr
        self.tree.without("/sys/bus/pci/devices/0019:01:00.0/driver")
        done = self.run_words("--yes", "0019:01:00.0")
        assert (done.returncode, 'not bound to a driver; run "nvgrace-gpu bind 0019:01:00.0"' in done.stderr) == (4, True)
        done = self.run_words(G1, play=GPU, stdin=subprocess.DEVNULL)
        assert (done.returncode, "overwrites the memory of this GPU, and there is no terminal to ask on; add --yes" in done.stderr) == (4, True)

    def test_unplugged_meanwhile(self):
        """A file that can't be read has no product."""
        self.check_failure(f"fail={DEVICE}/device:2:{errno.ENODEV}", 3, f"nvgrace-gpu: {G1}: the device is gone\n")

    def test_group(self):
        """Each step of opening the group's file may fail."""
        for play, status, words in (
                (f"fail=/dev/vfio/12:1:{errno.EBUSY}", 4, "in use: another process has /dev/vfio/12 open; end that process"),
                (f"fail=/dev/vfio/12:1:{errno.EPERM}", 5, "can't open /dev/vfio/12: Operation not permitted; use sudo"),
                (f"fail=/dev/vfio/12:1:{errno.ENODEV}", 1, f'/dev/vfio/12 failed: No such device; run "nvgrace-gpu doctor {G1}"'),
                ("not-viable", 4, "a device in its IOMMU group 12 is not bound to a vfio driver (VFIO_GROUP_GET_STATUS"),
                (f"fail=SET_CONTAINER:1:{errno.EIO}", 1, "VFIO_GROUP_SET_CONTAINER failed: Input/output error"),
                (f"fail=GET_REGION_INFO:2:{errno.EIO}", 1, "VFIO_DEVICE_GET_REGION_INFO failed: Input/output error")):
            assert f"nvgrace-gpu: {G1}: " in self.check_failure(play, status, words)

    def test_own_file(self):
        """So may each step of opening the device's own file. Without an IOMMU group there
        is only that."""
        self.tree.file(f"{DEVICE}/vfio-dev/vfio7/dev", "511:7")
        for play, status, words in (
                (f"fail=/dev/vfio/devices/vfio7:1:{errno.EACCES}", 5, "can't open /dev/vfio/devices/vfio7: Permission denied"),
                (f"fail=BIND_IOMMUFD:1:{errno.EINVAL}", 4, "(VFIO_DEVICE_BIND_IOMMUFD: Device or resource busy)"),
                (f"fail=ATTACH_IOMMUFD:1:{errno.EINVAL}", 1, "VFIO_DEVICE_ATTACH_IOMMUFD_PT failed: Invalid argument")):
            self.check_failure(f"cdev {play}", status, words)
        assert self.bench("cdev")[0]["mode"] == "cdev"
        # The file is in sysfs, but not in /dev.
        assert self.bench()[0]["mode"] == "group"
        self.tree.without(f"{DEVICE}/iommu_group")
        assert self.bench("cdev")[0]["mode"] == "cdev"
        self.check_failure("", 4, "no IOMMU group; check that the host has an IOMMU and that it is on")

    def test_no_memory(self):
        """What vfio shows has no memory that can be mapped."""
        plain = "the driver nvgrace_gpu_vfio_pci shows no GPU memory: firmware reports none"
        for play in ("usemem=0 bar4=0 resmem=0 bar2=0", "caps=none", "caps=other", "caps=empty", "caps=hole",
                     # More than there is in the BAR.
                     f"bar4={USEMEM // 2} resmem=0 bar2=0"):
            self.check_failure(play, 4, plain)

    def test_a_plain_device(self):
        """It has no memory. It is not even opened, which would reset it."""
        self.tree.file(f"{DEVICE}/nvgrace_gpu/mode", "core-only")
        self.check_failure(f"fail=/dev/vfio/12:1:{errno.EIO}", 4, "shows no GPU memory: firmware reports none")

    def test_what_can_not_be_measured(self):
        """A figure without a value has its reason."""
        _, figures = self.bench(f"no-reset fail=MAP_DMA:1:{errno.ENOMEM}")
        for name, reason in (("reset", "vfio can't reset this GPU alone"), ("reset-ready", "vfio can't reset this GPU alone"),
                             ("dma-map/usemem/256MiB", "can't map"), ("pread/usemem/64MiB", "less memory than a block"),
                             ("pread-tail/resmem/1MiB", "less memory than a block")):
            assert (figures[name]["count"], figures[name]["reason"]) == (0, reason)
        self.tree.file(f"{DEVICE}/vfio-dev/vfio7/dev", "511:7")
        _, figures = self.bench(f"cdev fail=IOAS_MAP:1:{errno.EFAULT}")
        assert figures["dma-map/usemem/256MiB"]["reason"] == "iommufd can't map device memory"

    def test_rounds(self):
        done = self.run_words("--yes", "--rounds=2", "--json", G1, play=GPU)
        document = json.loads(done.stdout)
        validate(document)
        assert {f["count"] for f in document["figures"] if not f["reason"]} == {2}
        assert ({(f["unit"], f["better"]) for f in document["figures"]} ==
                {("s", "lower"), ("faults", "lower"), ("B/s", "higher"), ("1/s", "higher")})
        assert all(f["median"] == pytest.approx((f["min"] + f["max"]) / 2) and f["min"] <= f["max"] for f in document["figures"] if f["count"])
        for number in ("0", "1001", "x"):
            assert f"--rounds={number}: not a whole number" in self.run_words(f"--rounds={number}", G1).stderr

    def test_it_ends_when_a_step_fails(self):
        for play, words in (
                (f"fail=/dev/vfio/12:2:{errno.EBUSY}", "in use: another process has /dev/vfio/12 open"),
                (f"fail=RESET:1:{errno.EIO}", 'VFIO_DEVICE_RESET failed: Input/output error; run "dmesg'),
                (f"fail=UNMAP_DMA:1:{errno.EINVAL}", "unmapping for DMA failed: Invalid argument"),
                (f"fail=map:1:{errno.ENOMEM}", "mapping GPU memory failed: Cannot allocate memory"),
                (f"fail=read:4:{errno.EIO}", "pread failed: Input/output error"),
                (f"fail=write:1:{errno.EIO}", "pwrite failed: Input/output error"),
                ("dead=0", "SIGBUS: a memory error, or the GPU does not answer or is not ready; run")):
            assert f"nvgrace-gpu: {G1}: {words}" in self.check_failure(play, 1, words)


class Test(Played):
    """"nvgrace-gpu test", with programs of these tests."""

    STEPS = ("look", "open", "touch", "sample", "pattern", "reset", "d3hot", "file", "scrub")

    def programs(self, name="memory", **cases):
        """A copy of the command beside a program with these cases: {name: shell
        commands}, and one of the lab."""
        self.folder = self.tree.root / "libexec"
        listed = "".join(f"x.c\t{case}\tthis-driver\n" for case in cases) + "x.c\tother\tlab dma\n"
        text = "\n".join(f"{case}) {commands} ;;" for case, commands in {"--list": f"printf %s {shlex.quote(listed)}", **cases}.items())
        self.tree.file("/libexec/nvgrace-gpu-tests/order", name)
        self.tree.file(f"/libexec/nvgrace-gpu-tests/{name}", f"#!/bin/sh\ncase $1 in\n{text}\nesac")
        (self.folder / "nvgrace-gpu-tests" / name).chmod(0o755)
        (self.folder / "nvgrace-gpu").mkdir(exist_ok=True)
        shutil.copy(build().parent / "libexec/nvgrace-gpu/test", self.folder / "nvgrace-gpu/test")

    def run_words(self, *words, play="", **more):
        # A program that the command runs gets some time.
        return super().run_words(*words, program=self.folder / "nvgrace-gpu/test", play=f"fast=5 {play}", **more)

    def check_failure(self, play, status, words, command=(), **more):
        return super().check_failure(play, status, words, ("--yes", "--json", *command), **more)

    def run_test(self, *words, status=0, play="", **more):
        """[(id, outcome, text)] of the checks after the first step, and the steps by
        their outcome."""
        self.log.write_text("")
        done = self.run_words("--yes", "--json", *words, G1, play=f"{play} {GPU}", **more)
        assert done.returncode == status, (done.stdout, done.stderr)
        document = json.loads(done.stdout)
        validate(document)
        assert document["passed"] is (not status)
        steps = {}
        for step in document["steps"]:
            steps.setdefault(step["outcome"], []).append(step["name"])
        return [(c["id"], c["outcome"], c["text"]) for c in document["checks"] if c["step"] != "look"], steps

    def assert_ended(self):
        """Nothing of a case is left after it, but what init may not have reaped."""
        process = pathlib.Path("/proc", pathlib.Path(f"{self.records}.pid").read_text().strip(), "stat")
        assert not process.exists() or " Z " in process.read_text()

    def test_good(self):
        """Each case gets the address, with the GPU closed. The log has each step and
        case before it begins."""
        self.programs(both_ends_keep_what_is_written='[ "$2" = %s ] && ls -l /proc/$PPID/fd | grep -c memfd' % G1,
                      every_2_MiB_keep_what_is_written=f"echo {shlex.quote(SKIPPED)}", more="cat")
        checks, steps = self.run_test()
        # fake_vfio.c itself has its memory open.
        assert checks == [("memory::both_ends_keep_what_is_written", "passed", "1"),
                          ("memory::every_2_MiB_keep_what_is_written", "skipped", "needs such a thing")]
        assert steps == {"passed": list(self.STEPS)}
        said = [line.split(f"UTC {G1}: ", 1)[1] for line in self.log.read_text().splitlines()]
        assert [line.split(":")[0] for line in said if line.startswith("step ")] == [f"step {i} of 9, {name}" for i, name in enumerate(self.STEPS, 1)]
        assert said.index("case memory::both_ends_keep_what_is_written") < said.index("memory::both_ends_keep_what_is_written: passed")
        assert said[-1] == "end: passed"
        # With --full, the case that belongs to no step, too. What is for the caller is not for it.
        with open(__file__, "rb") as stdin:
            checks, steps = self.run_test("--full", stdin=stdin)
        assert (checks[-1], steps["passed"][-1]) == (("memory::more", "passed", ""), "driver")
        done = self.run_words("--yes", "--until=touch", G1, play=GPU, env={"COLUMNS": "40"})
        assert f"  passed   memory::both_ends_keep_what_is_written:\n           1\n{G1}: passed; " in done.stdout
        # The first step opens nothing, and asks nothing.
        done = self.run_words("--until=look", G1, play=f"{GPU} fail=/dev/vfio/12:1:{errno.EIO}", stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr

    def test_list(self):
        """This needs no GPU."""
        self.programs(every_2_MiB_keep_what_is_written="", more="")
        assert self.run_words("--list").stdout.split() == [*self.STEPS[:4], "memory::every_2_MiB_keep_what_is_written", *self.STEPS[4:]]
        assert self.run_words("--list", "--full").stdout.split()[-2:] == ["driver", "memory::more"]
        assert "--until=driver needs --full" in self.run_words("--yes", "--until=driver", G1).stderr
        assert "--until=end: no such step" in self.run_words("--yes", "--until=end", G1).stderr
        (self.folder / "nvgrace-gpu-tests/memory").write_text("#!/bin/sh\nexit 1\n")
        self.check_failure("", 1, "nvgrace-gpu-tests/memory doesn't list its cases")
        (self.folder / "nvgrace-gpu-tests/order").unlink()
        self.check_failure("", 1, "nvgrace-gpu-tests/order: No such file or directory; install the package nvgrace-gpu-tests")

    def test_cases_that_fail(self):
        """A failed step is the last. In the driver's, all cases run, unless the kernel
        complains."""
        self.programs(both_ends_keep_what_is_written="echo '# at 0x420000001000 or ffff800012345678'; exit 1", a="kill -9 $$", b="yes", c="true")
        checks, steps = self.run_test(status=1)
        assert checks == [("memory::both_ends_keep_what_is_written", "failed", "at 0x... or ...")]
        assert steps == {"passed": ["look", "open"], "failed": ["touch"], "skipped": list(self.STEPS[3:])}
        self.programs(a="kill -9 $$", b="yes", c="sleep 1000 & echo $! >$KMSG.pid; exit 0",
                      d="echo '4,1,1,-;possible circular locking dependency' >>$KMSG", e="true")
        checks, steps = self.run_test("--full", status=1)
        assert checks[0] == ("memory::a", "failed", "ended by signal 9\n")
        assert checks[1][2].startswith("Connection timed out\ny\ny\n")
        assert checks[2:] == [("memory::c", "passed", ""), ("memory::d", "passed", ""),
                              ("host", "failed", "kernel: possible circular locking dependency")]
        self.assert_ended()

    def test_which_lines_are_complaints(self):
        self.programs(both_ends_keep_what_is_written=f"cat {self.tree.root}/line >>$KMSG")
        for line, outcome in ((f"4,1,1,-;nvgrace_gpu_vfio_pci {G1}: a warning at 0x420000001000", "failed"),
                              ("4,1,1,-;WARNING: CPU: 0 PID: 1 at x.c:1 f+0x0/0x1", "failed"),
                              ("2,1,1,-;{1}[Hardware Error]: event severity: recoverable", "failed"),
                              ("4,1,1,-;{1}[Hardware Error]: event severity: corrected", "noted"),
                              (f"4,1,1,-;pcieport 0009:00:00.0: AER: Correctable error message received from {G1}", "noted"),
                              # Vendors' drivers and programs say much.
                              ("4,1,1,-;another driver's warning", None), ("6,1,1,-;nvgrace_gpu_vfio_pci: information", None),
                              ("11,1,1,-;a program's error", None), ("4,1,1,-;vfio-pci 0009:01:00.0: resetting", None)):
            self.records.write_text("3,1,1,-;an error of before\n")
            self.tree.file("/line", line)
            checks, _ = self.run_test("--until=touch", status=outcome == "failed", env={"AT": f"/dev/kmsg:true >{self.records}"})
            assert [o for i, o, _ in checks if i == "host"] == ([outcome] if outcome else []), line
            assert "0x4200" not in str(checks)
        # If it can't be read, or not all of it, nothing may seem good.
        checks, steps = self.run_test(status=1, play=f"fail=kmsg:1:{errno.EPIPE}:1")
        assert "the kernel's log was overwritten before it could be read" in checks[0][2] if checks else steps["failed"] == ["look"]

    def test_error_counts(self):
        """What the host counts during a step makes it the last."""
        taint, meminfo = "/proc/sys/kernel/tainted", "/proc/meminfo"
        bridge = "/sys/devices/pci0009:00/0009:00:00.0"
        device = self.tree.root / DEVICE.lstrip("/")
        real = self.tree.root / f"{bridge}/{G1}".lstrip("/")
        real.parent.mkdir(parents=True)
        device.rename(real)
        device.symlink_to(f"../../../devices/pci0009:00/0009:00:00.0/{G1}")
        self.tree.link("/sys/bus/pci/devices/0009:00:00.0", "../../../devices/pci0009:00/0009:00:00.0")
        for command, words in (
                (f"echo TOTAL_ERR_FATAL 5 >{bridge}/aer_dev_fatal", "uncorrected fatal PCIe errors: 7, before: 4"),
                ("echo 5 >/sys/devices/system/edac/mc/mc0/ue_count", "uncorrected memory errors: 6, before: 4"),
                (f"echo HardwareCorrupted: 8 kB >{meminfo}", "KiB of memory taken out of use: 8, before: 4"),
                (f"echo 516 >{taint}", "the kernel's taint, see /proc/sys/kernel/tainted: 516, before: 4"),
                (f"echo TOTAL_ERR_COR 5 >{bridge}/aer_dev_correctable", None)):
            for at in (DEVICE, bridge):
                for name in ("fatal", "nonfatal", "correctable"):
                    self.tree.file(f"{at}/aer_dev_{name}", f"Undefined 0\nTOTAL_ERR_{name.upper()} 2")
            self.tree.file("/sys/devices/system/edac/mc/mc0/ue_count", 3).file("/sys/devices/system/edac/mc/mc1/ue_count", 1)
            self.replace(taint, 4)
            self.replace(meminfo, "HardwareCorrupted:     4 kB")
            self.programs(every_2_MiB_keep_what_is_written=command)
            checks, steps = self.run_test(status=1 if words else 0)
            assert [text for i, _, text in checks if i == "host"] == ([words] if words else [])
            assert steps.get("failed", []) == (["sample"] if words else [])

    def test_a_host_that_dies(self):
        """The last line of the log is what the test was about to do."""
        self.programs(both_ends_keep_what_is_written="kill -KILL $PPID; sleep 100")
        self.log.write_text("")
        done = self.run_words("--yes", "--json", G1, play=GPU)
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
        assert self.log.read_text().endswith(f"{G1}: case memory::both_ends_keep_what_is_written\n")

    def test_interrupted(self):
        """A signal ends the case, and restores the list of reset methods."""
        methods = self.tree.file(f"{DEVICE}/reset_method", "flr bus").root / DEVICE.lstrip("/") / "reset_method"
        for name in ("INT", "TERM", "HUP"):
            self.programs(both_ends_keep_what_is_written=f"echo $$ >$KMSG.pid; echo bus >{DEVICE}/reset_method; kill -{name} $PPID; sleep 1000")
            self.check_failure("", 130, "interrupted; the GPU is bound as before, but its memory may be overwritten")
            assert (methods.read_text(), self.log.read_text().endswith(f"{G1}: interrupted\n")) == ("flr bus", True)
            self.assert_ended()
        # So does the end of the case.
        self.programs(both_ends_keep_what_is_written=f"echo bus >{DEVICE}/reset_method; kill -9 $$")
        self.run_test(status=1)
        assert methods.read_text() == "flr bus"

    def test_log_that_fails(self):
        """Nothing is done that the log does not say. A link that waits in /var/log
        leads nowhere; one that the user names is followed."""
        self.programs(both_ends_keep_what_is_written=f"touch {self.tree.root}/done")
        self.log.write_text("")
        _, steps = self.run_test(status=1, play=f"fail=fsync:1:{errno.ENOSPC}")
        assert (steps["skipped"], (self.tree.root / "done").exists()) == (list(self.STEPS), False)
        self.check_failure("", 1, "can't open the log file /missing/log: No such file or directory; name another one with --log", ("--log=/missing/log",))
        os.mkfifo(self.tree.root / "pipe")
        self.check_failure("", 1, "pipe: No such device or address; name another one", (f"--log={self.tree.root}/pipe",))
        other = self.tree.root / "other"
        self.log.unlink()
        self.log.symlink_to(other)
        self.check_failure("", 1, "Too many levels of symbolic links; name another one with --log")
        assert not other.exists()
        assert self.run_words("--yes", f"--log={self.log}", G1, play=GPU).returncode == 0
        assert other.read_text().endswith("end: passed\n")

    def test_it_can_not_be_opened(self):
        self.programs(both_ends_keep_what_is_written="true")
        self.check_failure(f"fail=/dev/vfio/12:1:{errno.EBUSY}", 4, "in use: another process has /dev/vfio/12 open")
        assert self.log.read_text().endswith("end: not possible\n")
        self.check_failure("caps=none", 4, "shows no GPU memory: firmware reports none")

    def test_two_at_once(self):
        self.programs(both_ends_keep_what_is_written="true")
        with open(self.tree.root / DEVICE.lstrip("/") / "rescan", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.check_failure("", 4, "another nvgrace-gpu is changing or testing it; wait until that ends")
        self.check_failure(f"fail=>{DEVICE}/rescan:1:{errno.EIO}", 1, "can't lock it: Input/output error")
        # A user can't lock it, and needs not.
        self.run_test(play=f"fail=>{DEVICE}/rescan:1:{errno.EACCES}")


class Scrub(Played):
    """--verify, and the driver's reason in the kernel's log. test_scrub.py has
    the rest."""

    @pytest.fixture(autouse=True)
    def driver(self, played):
        self.state = self.tree.root / DEVICE.lstrip("/") / "nvgrace_gpu/scrub_state"
        self.tree.file(f"{DEVICE}/nvgrace_gpu/scrub", "0").file(f"{DEVICE}/nvgrace_gpu/scrub_progress", "0")
        self.say("clean")
        # Of the toolbox, which has a /run of its own.
        self.kept = pathlib.Path(f"/run/nvgrace-gpu/{G1}.json")
        yield
        self.kept.unlink(missing_ok=True)

    def say(self, state):
        self.state.write_text(f"{state}\n")

    def scrub(self, play="", status=0, words=("--verify",), **more):
        done = self.run_words("scrub", "--json", *words, G1, play=f"{play} {GPU}", **more)
        assert done.returncode == status, (play, done.stderr)
        document = json.loads(done.stdout)
        validate(document)
        return document["results"][0], done.stderr

    def test_clean(self):
        self.records.write_text(f"6,1,2,-;nvgrace_gpu_vfio_pci {G1}: a line that is no reason\n")
        result, error = self.scrub()
        assert (error, result["kernel_log"]) == ("", [])
        assert result["verified"] == {**result["verified"], "complete": True, "bytes": USEMEM + RESMEM,
                                      "differences": 0, "places": []}
        assert "; read back all zeros: 768 KiB in " in result["message"]
        # It is kept for "status" and "metrics", until memory is not clean.
        kept = json.loads(self.kept.read_text("ascii"))
        validate(kept)
        assert [r["verified"]["differences"] for r in kept["results"]] == [0]
        self.scrub("soiled=0x1238", 1)
        assert not self.kept.exists()
        self.scrub(words=())
        assert not self.kept.exists()

    def test_it_can_not_be_kept(self):
        result, error = self.scrub(f"fail=rename:1:{errno.EIO}")
        assert ((result["result"], error) ==
                ("clean", f"nvgrace-gpu: {G1}: can't keep the result in {self.kept}: Input/output error\n"))
        assert not self.kept.exists()

    def test_what_is_not_clean(self):
        result, error = self.scrub("soiled=0x1238", 1)
        assert (result["verified"]["complete"], result["verified"]["differences"]) == (True, 2)
        assert result["verified"]["places"] == [{"part": "usemem", "offset": "0x1238", "address": "0x4000001238", "found": "0x5a"}]
        assert ("not clean: words of 8 bytes that are not 0: 2, the first is 0x000000000000005a at usemem + 0x1238, "
                "physical address 0x4000001238;") in error

    def test_what_was_written_last_is_read_first(self):
        """After the reset, the GPU's cache may have lost what the scrub wrote
        last: the end of each part."""
        size = 8 * MiB
        for name in ("usemem_size", "usemem_bar_size"):
            self.tree.file(f"{DEVICE}/nvgrace_gpu/{name}", size)
        _, error = self.scrub(f"usemem={size} bar4={size} resmem=0 bar2=0 dead={2 * MiB}", 1, preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
        assert f"--verify: SIGBUS at usemem + {size - MiB:#x}, " in error

    def test_memory_that_fails(self):
        result, _ = self.scrub(f"dead={64 * KiB}", 1)
        assert re.search("^--verify: SIGBUS at usemem \\+ 0x[0-9a-f]+, physical address 0x4000", result["message"])
        assert result["verified"]["complete"] is False
        # What can't be mapped is read by the file.
        self.tree.file(f"{DEVICE}/nvgrace_gpu/usemem_size", USEMEM - 4090)
        _, error = self.scrub(f"usemem={USEMEM - 4090} fail=read:1:{errno.EIO}", 1)
        assert "--verify: reading GPU memory failed: Input/output error; run \"nvgrace-gpu doctor" in error
        result, _ = self.scrub(f"fail=map:2:{errno.ENOMEM}", 1)
        assert "--verify: reading GPU memory failed: Cannot allocate memory" in result["message"]
        assert result["verified"]["complete"] is False

    def test_it_can_not_be_opened(self):
        for error, status, result in ((errno.EBUSY, 4, "refused"), (errno.EMFILE, 1, "failed")):
            found, said = self.scrub(f"fail=/dev/vfio/12:1:{error}", status)
            assert (found["result"], found["message"]) == (result, "scrubbed, but can't open it for --verify")
            assert "/dev/vfio/12" in said

    def test_the_kernels_reason(self):
        """The last line of the driver about this GPU. It has no characters that
        a terminal would interpret."""
        records = ["6,1,2,-;no record of a driver", "no semicolon", f"3,2,3,-;nvgrace_gpu_vfio_pci {G1}: the first",
                   "4,3,4,-;nvgrace_gpu_vfio_pci 0019:01:00.0: another GPU's",
                   rf"3,4,5,-;nvgrace_gpu_vfio_pci {G1}: it can't be mapped\x1b\x41\xZ\q" + "\t",
                   f"6,5,6,-;vfio-pci {G1}: another driver's"]
        self.say("failed")
        self.tree.file("/records", "\n".join(records))
        for play in ("", f"fail=kmsg:1:{errno.EPIPE}:1", f"fail=kmsg:2:{errno.EINTR}:1"):
            result, error = self.scrub(play, 1, ())
            assert result["kernel_log"] == [rf"nvgrace_gpu_vfio_pci {G1}: it can't be mapped?A\xZ\q?"]
            assert "the scrub failed; see the kernel's log; run " in error
            assert f"{G1}: kernel: nvgrace_gpu_vfio_pci {G1}: it can't be mapped?A" in error
        # A user may not read it.
        result, _ = self.scrub(f"fail=/dev/kmsg:1:{errno.EPERM}", 1, ())
        assert result["kernel_log"] == []

    def test_start_fails(self):
        for error, status, words in ((errno.EBUSY, 4, "in use, or being unbound; run "),
                                     (errno.EIO, 1, "can't start the scrub: Input/output error; run ")):
            _, said = self.scrub(f"fail=>{DEVICE}/nvgrace_gpu/scrub:1:{error}", status)
            assert f"{G1}: {words}" in said


class Doctor(Played):
    """What doctor asks of the host. doctor --record keeps the answers."""

    def answers(self, play=""):
        record = self.tree.root / "record"
        shutil.rmtree(record, ignore_errors=True)
        # The host of these tests has no GPU, so there are findings.
        # The programs that it runs get 500 s, unless the words in play say
        # otherwise.
        done = self.run_words("doctor", "--record", record, play=f"{play} fast=0.02")
        assert done.returncode in (0, 6, 7), done.stderr
        return {p.name: p.read_text().removesuffix("\n") for p in (record / "answers").iterdir()}

    def test_kvm(self):
        for error, state in ((errno.EACCES, "denied"), (errno.ENODEV, "absent"), (errno.EIO, "Input/output error")):
            assert self.answers(f"fail=/dev/kvm:1:{error}")["kvm"] == f"state: {state}"
        assert self.answers(f"kvm fail=CREATE_VM:1:{errno.EBUSY}")["kvm"] == "state: no VM: Device or resource busy"
        assert self.answers("kvm")["kvm"] == "state: open\ncap-243: 1"

    def test_kernel_log(self):
        """Of the log, only the lines that a check needs."""
        self.tree.file("/records", "5,0,1,-;Linux version\nno record\nx;y\n12,7,1,-;nvgrace-gpu: 1\n4,8,1,-;vfio_pci_core: Unknown symbol x (err -2)\n5,9,1,-;Loading of unsigned module is rejected")
        log = self.answers(f"fail=kmsg:2:{errno.EPIPE}:1")["kernel-log"]
        assert log.splitlines() == ["4 nvgrace-gpu: 1", "4 vfio_pci_core: Unknown symbol x (err -2)", "5 Loading of unsigned module is rejected"]
        assert "kernel-log" not in self.answers(f"fail=kmsg:2:{errno.EIO}")
        assert "kernel-log" not in self.answers(f"fail=/dev/kmsg:1:{errno.EPERM}")

    def test_tables_and_files_are_recorded_as_they_are(self):
        tables = "/sys/firmware/acpi/tables"
        texts = {f"{tables}/SSDT1": b"SSDT\0nvidia,gpu-mem-size\0\x0e", f"{tables}/DSDT": b"DSDT" * 9,
                 f"/usr/lib/modules/{os.uname().release}/config": b"CONFIG_X=y\n# CONFIG_Z is not set\n"}
        for path, text in texts.items():
            self.tree.file(path, text)
        self.tree.file(f"{tables}/FACP", b"nvidia,gpu-mem-size")
        texts["/proc/cmdline"] = pathlib.Path("/proc/cmdline").read_bytes()
        answers = self.answers()
        for path, text in texts.items():
            recorded = self.tree.root / "record" / path.removeprefix("/usr").lstrip("/")
            assert recorded.read_bytes() == text, path
        assert (self.tree.root / f"record{tables}/SSDT1").read_bytes() == texts[f"{tables}/SSDT1"]
        assert (self.tree.root / f"record{tables}/FACP").read_bytes() == b""
        assert not {"acpi-tables", "command-line", "kernel-config"} & answers.keys()

    def test_mok(self, tmp_path):
        """What mokutil 0.7.2 said of two keys of one name, and the numbers of the
        certificates by which modules are signed."""
        said = (pathlib.Path(__file__).parent / "recorded/mokutil-0.7.2.txt").read_text()
        numbers = [n.replace(":", "") for n in re.findall(r"Serial Number:\s+(\S+)", said)]
        ids = [i.replace(":", "").lower().lstrip("0") for i in re.findall(r"Subject Key Identifier:\s+(\S+)", said)]
        assert len(numbers) == len(ids) == 2
        program = self.tree.file("/usr/bin/mokutil", f"#!/bin/sh\n[ $1 = --list-enrolled ] && printf %s {shlex.quote(said)}").root / "usr/bin/mokutil"
        program.chmod(0o755)
        self.tree.file("/sys/module/module/parameters/sig_enforce", "Y")
        release = os.uname().release
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            self.tree.file(f"/usr/lib/modules/{release}/{name}", b"")
        path = self.tree.root / f"usr/lib/modules/{release}/weak-updates/{NAME}.ko"
        path.parent.mkdir(parents=True)
        sign = sorted(pathlib.Path("/usr/lib").glob("linux-kbuild-*/scripts/sign-file"))[0]
        self.tree.file(f"/usr/lib/modules/{release}/initramfs.img", b"x")
        listed = "\n".join(f"{n.lower().lstrip('0')} {i}" for n, i in zip(numbers, ids))
        for number in (numbers[0], "17"):
            path.write_bytes(module(path.parent, "A" * 23))
            (path.parent / "m.o").unlink()
            subprocess.run(["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-out", tmp_path / "der",
                            "-outform", "DER", "-subj", "/CN=DKMS module signing key/", "-set_serial", f"0x{number}"], check=True, stderr=subprocess.DEVNULL)
            subprocess.run([sign, "sha256", tmp_path / "key", tmp_path / "der", path], check=True)
            subprocess.run(["depmod", "-b", self.tree.root / "usr", release], check=True, stderr=subprocess.DEVNULL)
            found = self.answers()
            assert found["mok"] == listed, found["module"]
            assert f"/{NAME}.ko {'A' * 23} {number.lower().lstrip('0')} vfio_pci_core\n" in found["kernels"] + "\n", found["kernels"]
        program.write_text("#!/bin/sh\necho MokListRT is empty\n")
        assert self.answers()["mok"] == "none"
        # There is no Secure Boot.
        program.write_text("#!/bin/sh\nexit 255\n")
        assert "mok" not in self.answers()

    def test_initramfs(self):
        """An image that can't be listed. test_initramfs.py has the others."""
        image, lister = "/lib/modules/1.2/initramfs.img", "/usr/bin/lsinitramfs"
        self.tree.package().file("/etc/nvgrace-gpu.conf", "bind all").file(f"/usr{image}", b"x")
        for play, text, words in (
                ("", None, "neither lsinitramfs nor lsinitrd lists all of it"),
                (f"fail=?{image}:3:{errno.EACCES}", None, "only root can read it"),
                ("", "#!/bin/sh\necho init\nexit 1", "neither lsinitramfs nor lsinitrd lists all of it"),
                ("fast=100", "#!/bin/sh\nexec sleep 1000", "neither lsinitramfs nor lsinitrd lists all of it"),
                ("", "#!/bin/sh\necho bin", "neither lsinitramfs nor lsinitrd lists all of it")):
            if text:
                self.tree.file(lister, text)
                (self.tree.root / lister.lstrip("/")).chmod(0o755)
            # The other kernels are this machine's.
            assert self.answers(play)["initramfs"].splitlines()[:3] == ["kernel: 1.2", f"image: {image}", f"error: {words}"]

    def test_module(self):
        """The module of the running kernel, its options and its alias."""
        release = os.uname().release
        folder = self.tree.root / f"usr/lib/modules/{release}"
        path = folder / f"updates/dkms/{NAME}.ko"
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            self.tree.file(f"/usr/lib/modules/{release}/{name}", b"")

        def ask():
            subprocess.run(["depmod", "-b", self.tree.root / "usr", release], check=True, stderr=subprocess.DEVNULL)
            return self.answers()["module"].splitlines()

        backends = ["backend: vfio_iommu_type1 none", "backend: iommufd none"]
        assert ask() == ["path: none", *backends, "needs: vfio_pci_core none"]
        path.parent.mkdir(parents=True)
        path.write_bytes(module(path.parent, "A" * 23))
        (path.parent / "m.o").unlink()
        shown = f"/lib/modules/{release}/updates/dkms/{NAME}.ko"
        self.tree.file("/etc/modprobe.d/x.conf", "install nvgrace_gpu_vfio_pci /bin/false\noptions nvgrace_gpu_vfio_pci scrub=1")
        assert ask() == [f"path: {shown}", "srcversion: " + "A" * 23, "vermagic: 6.18.1-test SMP", "install: /bin/false",
                         "options: scrub=1", "alias: no", *backends, "needs: vfio_pci_core none"]
        # What it needs is masked, and then a part of the kernel.
        core = self.tree.root / f"usr/lib/modules/{release}/kernel/drivers/vfio/pci/vfio-pci-core.ko"
        core.parent.mkdir(parents=True)
        core.write_bytes(path.read_bytes())
        self.tree.file("/etc/modprobe.d/y.conf", "install vfio_pci_core /bin/false")
        assert ask()[-1] == f"needs: vfio_pci_core /lib/modules/{release}/kernel/drivers/vfio/pci/vfio-pci-core.ko install /bin/false"
        self.tree.without("/etc/modprobe.d/y.conf", str(core.relative_to(self.tree.root)))
        self.tree.file(f"/usr/lib/modules/{release}/modules.builtin", "kernel/drivers/vfio/pci/vfio-pci-core.ko")
        assert ask()[-1] == "needs: vfio_pci_core builtin"
        self.tree.file(f"/usr/lib/modules/{release}/modules.builtin", b"")
        ask()
        # The index has it, but the file is no module.
        path.write_bytes(b"rubbish")
        assert self.answers()["module"].splitlines()[:3] == [f"path: {shown}", "vermagic: unknown", "install: /bin/false"]
        # The table of kernels has its place, and its id if it has one.
        self.tree.file(f"/usr/lib/modules/{release}/initramfs.img", b"x")
        path.unlink()
        assert f"{release}: none" in self.answers()["kernels"].splitlines()
        # It is a part of the kernel.
        self.tree.file(f"/usr/lib/modules/{release}/modules.builtin", f"kernel/drivers/vfio/pci/nvgrace-gpu/{NAME}.ko")
        assert ask()[0] == "path: builtin"
        assert f"{release}: builtin" in self.answers()["kernels"].splitlines()

    def test_record_fails(self):
        done = self.run_words("doctor", "--record", self.tree.root / "record", play=f"fail=symlink:1:{errno.ENOSPC}")
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        # The findings are printed nevertheless.
        assert "good" in done.stdout

    def test_output_fails(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = self.run_words("doctor", "--json", stdout=full)
        assert (done.returncode, done.stderr) == (1, "nvgrace-gpu: standard output: No space left on device\n")

    def test_programs(self):
        """A program that is missing, broken, fails, hangs or prints too much
        has no version."""
        name = "/usr/bin/qemu-system-x86_64"
        program = self.tree.root / name.lstrip("/")
        for text, version in (("#!/bin/sh\necho QEMU 1.2; echo more", "QEMU 1.2"), ("#!/bin/sh\nexit 1", None),
                              ("#!/bin/sh\nkill -KILL $$", None), ("\x7fELF", None),
                              ("#!/bin/sh\nexec sleep 1000", None), ("#!/bin/sh\nexec yes 0123456789", None),
                              ("#!/bin/sh\n:", "")):
            self.tree.file(name, text)
            program.chmod(0o755)
            assert (self.answers("fast=50" if "sleep" in text else "").get("qemu") ==
                    (None if version is None else f"{name}: {version}")), text
