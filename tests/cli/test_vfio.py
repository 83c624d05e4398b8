# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu bench, test and scrub --verify, with ASan and UBSan, on a GPU that
fake_vfio.c imitates: failures that a virtual GPU does not have.
test_bench_in_machine.py and test_scrub_in_machine.py test these commands with
the driver.

The program has a tree as its /sys, in a mount namespace of its own.
"""

import errno
import fcntl
import json
import os
import pathlib
import pty
import re
import resource
import shlex
import shutil
import signal
import subprocess
import types

import pytest

from boot.test_initramfs import NAME, module
from cli.common import build, sanitizer_options, shown, validate
from cli.test_trees import G1, OF_RESMEM
from lab import acpi

BUS_ADRERR, BUS_MCEERR_AO = 2, 5
KiB, MiB = 1 << 10, 1 << 20
USEMEM, RESMEM = 512 * KiB, 256 * KiB
BASES = {"usemem_base": "0x4000000000", "resmem_base": "0x4000080000"}
# The program's clock, which a busy machine does not change. A bench with the
# budget of 5 s reads it 500 times. The program does not wait for complaints of
# the kernel, which come before it waits.
CLOCK = "tick=10 fast=1000"
# Memory that fills its BARs. Of words with the same name, the first counts.
GPU = f"usemem={USEMEM} bar4={USEMEM} resmem={RESMEM} bar2={RESMEM} {CLOCK}"
SIZES = {"mode": "carve-out", "usemem_size": USEMEM, "usemem_bar_size": USEMEM, "resmem_size": RESMEM,
         "resmem_bar_size": RESMEM, "readiness": "ready", **BASES}
DEVICE = f"/sys/bus/pci/devices/{G1}"
STEPS = ("look", "open", "touch", "sample", "pattern", "reset", "d3hot", "file", "scrub")
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

    def run_words(self, *words, play="", env=None, preload=(), options="", **streams):
        """The CompletedProcess of the program. play, env: for fake_vfio.c.
        preload: libraries before that one. options: of env(1)."""
        # The rest of these two stays visible.
        mounts = "".join(f"mount -t overlay overlay -o lowerdir='{self.tree.root / name}':/{name} /{name} && "
                         for name in ("etc", "usr") if (self.tree.root / name).is_dir())
        mounts += "".join(f"mount --bind '{here}' {path} && " for path, here in
                          {"/sys": self.tree.root / "sys", **self.files}.items())
        variables = {"KMSG": self.records, "LD_PRELOAD": ":".join(map(str, (*preload, self.library))), "PLAY": play, **(env or {})}
        sets = "".join(f"{name}={shlex.quote(str(value))} " for name, value in variables.items())
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", **sanitizer_options("verify_asan_link_order=0")}
        done = subprocess.run(["unshare", *self.namespaces, "sh", "-c", f'{mounts} exec env {options} {sets} "$@"', "sh",
                               build(), *words], text=True, timeout=600, env=environment,
                              **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams})
        assert done.returncode != 99, done.stderr
        assert "runtime error" not in (done.stderr or "")
        return done

    def run_test(self, play="", status=0, words=(), **more):
        """{id of a check: (outcome, text)} of "test", and its document."""
        done = self.run_words("test", "--yes", "--json", "--seed=1", "--ready-within=3600", *words, G1, play=f"{play} {GPU}", **more)
        assert done.returncode == status, (play, done.stdout, done.stderr)
        document = json.loads(done.stdout)
        validate(document)
        assert document["passed"] is (not status)
        checks = {}
        for check in document["checks"]:
            checks.setdefault(check["id"], (check["outcome"], check["text"]))
        return checks, document

    def check_failure(self, play, status, words, command=("test", "--yes"), **more):
        """The command ends with this status and a message with these words,
        which is returned."""
        done = self.run_words(*command, G1, play=f"{play} {GPU}", **more)
        assert (done.returncode, done.stdout) == (status, ""), (play, done.stderr)
        assert words in done.stderr, play
        return done.stderr


class Opening(Played):
    def test_refused(self):
        self.tree.device("0019:01:00.0", driver="nouveau", group=13)
        done = self.run_words("test", "--yes", "0019:01:00.0")
        assert (done.returncode, done.stdout) == (4, "")
        assert 'bound to nouveau; stop what uses it, and run "nvgrace-gpu bind 0019:01:00.0"' in done.stderr

    def test_unplugged_meanwhile(self):
        """A file that can't be read has no product."""
        for command in ("test", "bench"):
            self.check_failure(f"fail={DEVICE}/device:2:{errno.ENODEV}", 3, f"nvgrace-gpu: {G1}: the device is gone\n",
                               (command, "--yes"))

    def test_no_answer(self):
        """The end of the input is no agreement."""
        leader, follower = pty.openpty()
        os.write(leader, b"\x04")
        done = self.run_words("test", G1, play=GPU, stdin=follower, stderr=follower)
        os.close(follower)
        assert (done.returncode, done.stdout) == (4, "")
        text = b"".join(shown(leader)).decode()
        os.close(leader)
        assert "Continue? [y/N] \r\n" in text
        assert f"{G1}: nothing done" in text

    def test_group(self):
        """Each step of opening the group's file may fail."""
        for play, status, words in (
                (f"fail=/dev/vfio/12:1:{errno.EBUSY}", 4, "in use: another process has /dev/vfio/12 open; end that process"),
                (f"fail=/dev/vfio/12:1:{errno.EPERM}", 5, "can't open /dev/vfio/12: Operation not permitted; use sudo"),
                (f"fail=/dev/vfio/12:1:{errno.ENODEV}", 1, "can't open /dev/vfio/12: No such device; load the modules vfio"),
                (f"fail=/dev/vfio/12:1:{errno.EMFILE}", 1, "can't open /dev/vfio/12: Too many open files\n"),
                (f"fail=/dev/vfio/vfio:1:{errno.ENXIO}", 1, "can't open /dev/vfio/vfio: No such device or address; load"),
                (f"fail=CHECK_EXTENSION:1:{errno.EINVAL}", 1, "vfio has no type1 IOMMU driver; load the module vfio_iommu"),
                ("not-viable", 4, "a device in its IOMMU group 12 is not bound to a vfio driver (VFIO_GROUP_GET_STATUS"),
                (f"fail=GET_STATUS:1:{errno.EIO}", 4, "a device in its IOMMU group 12 is not bound to a vfio driver"),
                (f"fail=SET_CONTAINER:1:{errno.EIO}", 1, "VFIO_GROUP_SET_CONTAINER failed: Input/output error"),
                (f"fail=SET_IOMMU:1:{errno.EPERM}", 4, "(VFIO_SET_IOMMU: Operation not permitted)"),
                (f"fail=GET_DEVICE_FD:1:{errno.EBUSY}", 4, "(VFIO_GROUP_GET_DEVICE_FD: Device or resource busy)"),
                (f"fail=GET_INFO:1:{errno.EIO}", 1, "VFIO_DEVICE_GET_INFO failed: Input/output error"),
                (f"fail=GET_REGION_INFO:1:{errno.EIO}", 1, "VFIO_DEVICE_GET_REGION_INFO failed: Input/output error"),
                (f"fail=GET_REGION_INFO:2:{errno.EIO}", 1, "VFIO_DEVICE_GET_REGION_INFO failed: Input/output error")):
            assert f"nvgrace-gpu: {G1}: " in self.check_failure(play, status, words)

    def test_own_file(self):
        """So may each step of opening the device's own file."""
        self.tree.file(f"{DEVICE}/vfio-dev/vfio7/dev", "511:7")
        for play, status, words in (
                (f"fail=/dev/iommu:1:{errno.ENOENT}", 1, "can't open /dev/iommu: No such file or directory; load"),
                (f"fail=/dev/vfio/devices/vfio7:1:{errno.EACCES}", 5, "can't open /dev/vfio/devices/vfio7: Permission denied"),
                (f"fail=BIND_IOMMUFD:1:{errno.EINVAL}", 4, "(VFIO_DEVICE_BIND_IOMMUFD: Device or resource busy)"),
                (f"fail=BIND_IOMMUFD:1:{errno.ENODEV}", 1, "VFIO_DEVICE_BIND_IOMMUFD failed: No such device"),
                (f"fail=IOAS_ALLOC:1:{errno.ENOMEM}", 1, "IOMMU_IOAS_ALLOC failed: Cannot allocate memory"),
                (f"fail=ATTACH_IOMMUFD:1:{errno.EINVAL}", 1, "VFIO_DEVICE_ATTACH_IOMMUFD_PT failed: Invalid argument")):
            self.check_failure(f"cdev {play}", status, words)
        _, document = self.run_test("cdev")
        assert document["mode"] == "cdev"
        # The file is in sysfs, but not in /dev.
        _, document = self.run_test("")
        assert document["mode"] == "group"

    def test_no_group(self):
        """Without an IOMMU group there is only the device's own file."""
        self.tree.without(f"{DEVICE}/iommu_group")
        self.check_failure("", 4, "no IOMMU group; check that the host has an IOMMU and that it is on")
        self.tree.file(f"{DEVICE}/vfio-dev/vfio7/dev", "511:7")
        _, document = self.run_test("cdev")
        assert document["mode"] == "cdev"

    def test_no_memory(self):
        """What vfio shows has no memory that can be mapped."""
        plain = "the driver nvgrace_gpu_vfio_pci shows no GPU memory: firmware reports none"
        for play in ("usemem=0 bar4=0 resmem=0 bar2=0", "caps=none", "caps=other", "caps=empty", "caps=hole",
                     # More than there is in the BAR.
                     f"bar4={USEMEM // 2} resmem=0 bar2=0"):
            self.check_failure(play, 4, plain)

    def test_memory_that_cannot_be_mapped(self):
        for command, words in ((("test", "--yes"), "can't map the memory of the GPU"),
                               (("bench", "--yes", "--quick"), "mapping GPU memory failed: Cannot allocate memory")):
            self.check_failure(f"fail=map:1:{errno.ENOMEM}", 1, words, command)


class Test(Played):
    def outcomes(self, checks):
        return {name: outcome for name, (outcome, _) in checks.items()}

    def steps(self, document):
        """The names of the steps that passed, failed and were skipped."""
        assert [s["name"] for s in document["steps"]] == list(STEPS[:len(document["steps"])])
        return tuple([s["name"] for s in document["steps"] if s["outcome"] == outcome]
                     for outcome in ("passed", "failed", "skipped"))

    def scrubs(self, state="clean"):
        """Lets the driver have sysfs files for scrubbing."""
        self.tree.file(f"{DEVICE}/nvgrace_gpu/scrub", "0").file(f"{DEVICE}/nvgrace_gpu/scrub_state", state)

    def has_methods(self, methods):
        """Lets the kernel have these reset methods. Returns the file."""
        self.tree.file(f"{DEVICE}/reset_method", methods)
        return self.tree.root / DEVICE.lstrip("/") / "reset_method"

    def all_steps(self):
        """The PLAY of a GPU in which every step finds something to do."""
        self.scrubs()
        self.has_methods("bus flr")
        return "pm scrubs after-reset=cleared"

    def test_good(self):
        checks, document = self.run_test(self.all_steps())
        assert set(self.outcomes(checks).values()) == {"passed", "noted", "skipped"}
        assert self.steps(document) == (list(STEPS), [], [])
        assert checks["tail"] == ("passed", "the memory fills its BARs")
        assert document["differences"] == 0
        assert document["resets"] == [{**r, "method": m, "content_survived": False}
                                      for r, m in zip(document["resets"], ("bus", "flr"), strict=True)]
        # What the driver or the GPU does not have is skipped.
        self.tree.without(f"{DEVICE}/reset_method", f"{DEVICE}/nvgrace_gpu/scrub")
        done = self.run_words("test", "--yes", "--time=2", G1, play=f"{GPU} fail=getrandom:1:{errno.ENOSYS}")
        assert done.returncode == 0
        assert ([line.split(": ")[2] for line in done.stderr.splitlines()] ==
                [f"step {i} of 9, {name}" for i, name in enumerate(STEPS, 1)])
        out = " ".join(done.stdout.split())
        assert re.search(rf"768 KiB written, read back and inverted, \d+ times? .*{G1}: passed$", out)
        assert "steps look, open, touch, sample, pattern, reset, file passed; d3hot, scrub skipped" in out

    def test_until(self):
        """Each step can be the last, and what follows is not done."""
        play = self.all_steps()
        for number, name in enumerate(STEPS, 1):
            done = self.run_words("test", "--yes", "--json", f"--until={name}", G1, play=f"{GPU} {play}")
            assert done.returncode == 0, done.stderr
            document = json.loads(done.stdout)
            validate(document)
            assert self.steps(document) == (list(STEPS[:number]), [], [])
            assert done.stderr.count("step ") == number
        # The first one opens nothing, and asks nothing.
        done = self.run_words("test", "--until=look", G1, play=f"{GPU} fail=/dev/vfio/12:1:{errno.EIO}", stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        assert "opened" not in done.stdout
        done = self.run_words("test", "--until=open", G1, play=GPU, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stdout) == (4, "")
        assert self.run_words("test", "--yes", "--until=end", G1).returncode == 2

    def programs(self, **cases):
        """Lets the package have a program "some" with these cases: {name: shell
        commands}, and one of the lab."""
        listed = "".join(f"some.c\t{name}\tthis-driver\n" for name in cases) + "some.c\tother\tlab dma\n"
        text = "\n".join(f"{name}) {commands} ;;" for name, commands in {"--list": f"printf %s {shlex.quote(listed)}", **cases}.items())
        self.tree.file("/programs/order", "some")
        self.tree.file("/programs/some", f"#!/bin/sh\ncase $1 in\n{text}\nesac")
        (self.tree.root / "programs/some").chmod(0o755)
        return f"--full={self.tree.root}/programs"

    def run_full(self, full, status):
        """The results of the last step, and all of the log."""
        self.log.write_text("")
        # A program that the program runs gets its time.
        _, document = self.run_test(f"fast=1 {self.all_steps()}", status, [full])
        assert document["steps"][-1] == {"name": "driver", "outcome": "failed" if status else "passed"}
        return [(c["id"], c["outcome"], c["text"]) for c in document["checks"] if c["step"] == "driver" and c["outcome"] != "noted"], self.log.read_text()

    def assert_ended(self):
        """Nothing of a case is left after it, but what init may not have reaped."""
        process = pathlib.Path("/proc", pathlib.Path(f"{self.records}.pid").read_text().strip(), "stat")
        assert not process.exists() or " Z " in process.read_text()

    def test_full(self):
        """Each case gets the address, with the GPU closed. One that fails is not
        the last one, but one of which the kernel complains is."""
        full = self.programs(a='[ "$2" = %s ]' % G1, b=f"echo {shlex.quote(SKIPPED)}", c="ls -l /proc/$PPID/fd | grep -c memfd")
        checks, log = self.run_full(full, 0)
        assert checks == [("some", "passed", "a"), ("some", "skipped", "b: needs such a thing"), ("some", "passed", "c")]
        assert re.search(r"step 10 of 10, driver: .*\n.*\n.*case 1 of 3, some::a\n.*passed: a\n.*case 2 of 3, some::b\n.*  needs such a thing\n.*skipped: b.*\n",
                         log)
        # fake_vfio.c itself has one open.
        assert re.search(r"some::c\n.*  1\n", log)
        full = self.programs(a="echo '# at 0x420000001000 or ffff800012345678'; exit 1", b="kill -9 $$", c="yes", d="sleep 1000 & echo $! >$KMSG.pid; exit 0",
                             e="echo '4,1,1,-;possible circular locking dependency' >>$KMSG", f="true")
        checks, log = self.run_full(full, 1)
        assert checks[:2] == [("some", "failed", "a: at 0x... or ..."), ("some", "failed", "b: ended by signal 9")]
        assert checks[2][2].startswith("c: Connection timed out: y: y"), checks[2]
        assert checks[3:] == [("some", "passed", "d"), ("some", "passed", "e"),
                              ("host", "failed", "kernel: possible circular locking dependency")]
        assert "some::f" not in log
        self.assert_ended()

    def test_full_interrupted(self):
        full = self.programs(a="echo $$ >$KMSG.pid; kill -TERM $PPID; sleep 1000")
        self.check_failure("fast=1", 130, "interrupted", ("test", "--yes", full))
        assert "some::a" in self.log.read_text().splitlines()[-2]
        assert self.log.read_text().endswith(f"{G1}: interrupted\n")
        self.assert_ended()

    def test_list(self):
        """This needs no GPU."""
        assert self.run_words("test", "--list").stdout.split() == list(STEPS)
        full = self.programs(a="true", b="true")
        assert self.run_words("test", "--list", full).stdout.split() == [*STEPS, "driver", "some::a", "some::b"]
        (self.tree.root / "programs/some").write_text("#!/bin/sh\nexit 1\n")
        self.check_failure("", 1, "programs/some doesn't list its cases", ("test", "--yes", full))
        self.check_failure("", 1, "can't read /missing/order: No such file or directory; install the package", ("test", "--yes", "--full=/missing"))
        assert "--until=driver needs --full" in self.run_words("test", "--yes", "--until=driver", G1).stderr

    @pytest.mark.all
    def test_complaints(self):
        """A step of which the kernel complains is the last."""
        play = self.all_steps()
        for number, name in enumerate(STEPS, 1):
            self.records.write_text("3,1,1,-;an error of before\n")
            at = (f"/dev/kmsg:true >{self.records}\n"
                  f"fsync:tail -n 1 {self.log} | grep -q 'step {number} of' && echo '3,2,2,-;an error at 0x420000001000' >>{self.records}; :")
            checks, document = self.run_test(play, 1, env={"AT": at})
            assert self.steps(document) == (list(STEPS[:number - 1]), [name], list(STEPS[number:]))
            # People paste it into reports.
            assert checks["host"] == ("failed", "kernel: an error at 0x...")
            assert [c["step"] for c in document["checks"] if c["outcome"] == "failed"] == [name]

    def test_which_lines_are_complaints(self):
        for line, outcome in ((f"4,1,1,-;nvgrace_gpu_vfio_pci {G1}: a warning", "failed"),
                              ("4,1,1,-;WARNING: CPU: 0 PID: 1 at x.c:1 f+0x0/0x1", "failed"),
                              ("4,1,1,-;possible recursive locking detected", "failed"),
                              ("2,1,1,-;{1}[Hardware Error]: event severity: recoverable", "failed"),
                              ("4,1,1,-;{1}[Hardware Error]: event severity: corrected", "noted"),
                              (f"4,1,1,-;pcieport 0009:00:00.0: AER: Correctable error message received from {G1}", "noted"),
                              # Vendors' drivers and programs say much.
                              ("4,1,1,-;another driver's warning", None), ("6,1,1,-;nvgrace_gpu_vfio_pci: information", None),
                              ("11,1,1,-;a program's error", None), ("4,1,1,-;vfio-pci 0009:01:00.0: resetting", None)):
            self.records.write_text("\n")
            self.tree.file("/line", line)
            checks, _ = self.run_test(status=outcome == "failed", env={
                "AT": f"RESET:cat {self.tree.root}/line >>{self.records}"})
            assert checks.get("host", (None,))[0] == outcome, line
            assert outcome is None or checks["host"][1].startswith("kernel: ")
        # If it can't be read, or not all of it, nothing may seem good.
        checks, _ = self.run_test(f"fail=/dev/kmsg:1:{errno.EPERM}")
        assert checks["log-of-kernel"][0] == "noted"
        checks, document = self.run_test(f"fail=kmsg:1:{errno.EPIPE}:1", 1)
        assert "the kernel's log was overwritten before it could be read" in checks["host"][1]
        assert self.steps(document)[1] == ["look"]

    def test_error_counts_stop(self):
        """What the host counts during a step makes it the last."""
        taint = "/proc/sys/kernel/tainted"
        bridge = "/sys/devices/pci0009:00/0009:00:00.0"
        device = self.tree.root / DEVICE.lstrip("/")
        real = self.tree.root / f"{bridge}/{G1}".lstrip("/")
        real.parent.mkdir(parents=True)
        device.rename(real)
        device.symlink_to(f"../../../devices/pci0009:00/0009:00:00.0/{G1}")
        self.tree.link("/sys/bus/pci/devices/0009:00:00.0", "../../../devices/pci0009:00/0009:00:00.0")
        for command, words in (
                (f"echo TOTAL_ERR_FATAL 5 >{bridge}/aer_dev_fatal", "3 uncorrected PCIe errors were counted"),
                ("echo 5 >/sys/devices/system/edac/mc/mc0/ue_count", "2 uncorrected memory errors were counted, and 0 KiB taken"),
                (f"echo 516 >{taint}", "the kernel is tainted by 0x200, which it was not before")):
            for at in (DEVICE, bridge):
                for name in ("fatal", "nonfatal", "correctable"):
                    self.tree.file(f"{at}/aer_dev_{name}", f"Undefined 0\nTOTAL_ERR_{name.upper()} 2")
            self.tree.file("/sys/devices/system/edac/mc/mc0/ue_count", 3)
            self.replace(taint, 4)
            checks, document = self.run_test(status=1, env={"AT": f"RESET:{command}"})
            assert words in checks["host"][1]
            assert self.steps(document)[1] == ["reset"]

    def test_log(self):
        """The log has each step before it begins, and all that was found. It
        grows with each test."""
        self.log.write_text("before\n")
        self.run_test(self.all_steps())
        lines = self.log.read_text().splitlines()
        assert lines[0] == "before"
        said = [line.split(f"UTC {G1}: ", 1)[1] for line in lines[1:]]
        assert said[0].startswith("begin: nvgrace-gpu "), said[0]
        assert ([line.split(":")[0] for line in said if line.startswith("step ")] ==
                [f"step {i} of 9, {name}" for i, name in enumerate(STEPS, 1)])
        assert (said.index('resets the GPU by flr; until then, reset_method has "bus flr"') <
                next(i for i, line in enumerate(said) if re.match(r"reset: passed: .* by flr;", line)))
        assert said[-1] == "end: passed"
        assert not [line for line in said if "0x4000" in line]

    def test_a_host_that_dies(self):
        """The last line of the log is what the test was about to do."""
        play = self.all_steps()
        for number, name in enumerate(STEPS, 1):
            self.log.write_text("")
            at = f"fsync:tail -n 1 {self.log} | grep -q 'step {number} of' && kill -KILL $PPID; :"
            done = self.run_words("test", "--yes", G1, play=f"{GPU} {play}", env={"AT": at})
            assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
            assert f": step {number} of 9, {name}: " in self.log.read_text().splitlines()[-1]
            assert f"step {number} of" not in done.stderr

    def test_log_that_fails(self):
        """Nothing is done that the log does not say."""
        self.log.write_text("")
        self.run_test(self.all_steps())
        good = self.log.read_text()
        for number in range(1, len(STEPS) + 1):
            self.log.write_text("")
            # The first is for the folder.
            count = good[:good.index(f"step {number} of")].count("\n") + 1
            checks, document = self.run_test(f"{self.all_steps()} fail=fsync:{count + 1}:{errno.ENOSPC}", 1)
            assert f"can't write to the log file /var/log/{self.log.name}: No space left on device" in checks["log"][1]
            assert self.steps(document) == (list(STEPS[:number - 1]), [], list(STEPS[number - 1:]))
        self.check_failure("", 1, "can't open the log file /missing/log: No such file or directory; name another one with --log",
                           ("test", "--yes", "--log=/missing/log"))
        # The first line is before all steps.
        for words in ([], ["--json"]):
            done = self.run_words("test", "--yes", "--log=/dev/full", *words, G1, play=GPU)
            assert done.returncode == 1
            assert "can't write to the log file /dev/full: No space left on device" in " ".join(done.stdout.split())
        validate(document := json.loads(done.stdout))
        assert document["checks"][0]["step"] == STEPS[0]

    def test_log_files(self):
        """A link that waits in /var/log leads nowhere. One that the user names
        is followed, and so is standard output."""
        other = self.tree.root / "other"
        self.log.unlink()
        self.log.symlink_to(other)
        self.check_failure("", 1, "Too many levels of symbolic links; name another one with --log")
        assert not other.exists()
        done = self.run_words("test", "--yes", f"--log={self.log}", G1, play=GPU)
        assert done.returncode == 0, done.stderr
        assert "end: passed" in other.read_text()
        with open(self.tree.root / "out", "w+", encoding="ascii") as out:
            done = self.run_words("test", "--yes", "--log=/dev/stdout", "--until=look", G1, play=GPU, stdout=out)
            out.seek(0)
            text = out.read()
        assert text.index("end: passed") < text.index(f"\n{G1}: passed")
        # Nothing waits for the reader of a pipe.
        os.mkfifo(self.tree.root / "pipe")
        self.check_failure("", 1, "pipe: No such device or address; name another one", ("test", "--yes", f"--log={self.tree.root}/pipe"))

    def test_reset_methods(self):
        """Each method is the only one for its reset. Then the list is as
        before."""
        file, seen = self.has_methods("device_specific bus flr"), self.tree.root / "seen"
        at = f"RESET:cat {DEVICE}/reset_method >>{seen}; echo >>{seen}"
        self.run_test(env={"AT": at})
        assert (seen.read_text().split(), file.read_text()) == (["device_specific", "bus", "flr"], "device_specific bus flr")
        # Also after a reset that fails, or memory that can't be used then.
        for play, method in ((f"fail=RESET:2:{errno.EIO}", "bus"), ("after-reset=dead", "device_specific")):
            seen.write_text("")
            checks, document = self.run_test(play, 1, env={"AT": at})
            assert file.read_text() == "device_specific bus flr"
            assert document["resets"][-1]["method"] == method
            assert self.steps(document)[1] == ["reset"]
        # If it can't be restored, the result says how.
        _, document = self.run_test(f"fail=>{DEVICE}/reset_method:4:{errno.EIO}", 1)
        assert any("can't restore reset_method: Input/output error; run \"echo device_specific bus flr > " in c["text"]
                   for c in document["checks"])
        file.write_text("device_specific bus flr")
        checks, _ = self.run_test(f"fail=>{DEVICE}/reset_method:1:{errno.EINVAL}:1", 1)
        assert "choosing a method in reset_method: Invalid argument" in checks["reset"][1]
        # Without permission, the kernel chooses.
        checks, document = self.run_test(f"fail=?{DEVICE}/reset_method:1:{errno.EACCES}")
        assert [r["method"] for r in document["resets"]] == [None]
        assert checks["reset"][1].endswith("by the kernel's choice; the limit is 3600 s"), checks

    def test_interrupted_reset(self):
        """A signal during a reset restores the list of methods."""
        file = self.has_methods("bus flr")
        for name in ("TERM", "HUP"):
            at = f"RESET:exec >/dev/null 2>&1; kill -{name} $PPID; while kill -0 $PPID; do sleep 0.1; done"
            self.log.write_text("")
            self.check_failure("", 130, "interrupted; the GPU is bound and closed as before, but its memory is overwritten", env={"AT": at})
            assert file.read_text() == "bus flr"
            assert self.log.read_text().endswith(f"{G1}: interrupted\n")

    def test_interrupted(self):
        """In each step, the message says what was done, and the log ends with
        the interruption."""
        play = self.all_steps()
        for number, name in enumerate(STEPS, 1):
            self.log.write_text("")
            at = (f"fsync:exec >/dev/null 2>&1; tail -n 1 {self.log} | grep -q 'step {number} of' || exit 0; kill -TERM $PPID; "
                  "while kill -0 $PPID; do sleep 0.1; done")
            # The step itself has not begun.
            words = "nothing done" if number < 3 else "the GPU is bound and closed as before" + ("" if number == 3 else ", but")
            self.check_failure(play, 130, f"{G1}: interrupted; {words}", env={"AT": at})
            lines = self.log.read_text().splitlines()
            assert f": step {number} of 9, {name}: " in lines[-2]
            assert lines[-1].endswith(f"{G1}: interrupted")

    def test_d3hot(self):
        checks, _ = self.run_test("pm")
        assert checks["d3hot"] == ("passed", "the memory is ready after D3hot")
        assert "the content survived D3hot" in checks["content-after-d3hot"][1]
        checks, document = self.run_test("pm=stuck", 1)
        assert checks["d3hot"][1] == "the power state reads as D0 where D3hot was set, and as D0 where D0 was set"
        assert self.steps(document)[1] == ["d3hot"]

    def test_scrub(self):
        self.scrubs()
        checks, _ = self.run_test("scrubs")
        assert [checks[name][0] for name in ("scrub", "zeros")] == ["passed", "passed"]
        # Of a driver that writes no zeros, the pattern is found.
        checks, document = self.run_test(status=1)
        assert "wrong words: " in checks["zeros"][1]
        assert (self.steps(document)[1], document["places"][0]["expected"]) == (["scrub"], "0x0")
        self.scrubs("failed")
        checks, _ = self.run_test(status=1)
        assert 'not clean after the scrub: its state is "failed"' in checks["scrub"][1]
        self.scrubs()
        checks, _ = self.run_test(f"fail=>{DEVICE}/nvgrace_gpu/scrub:1:{errno.EBUSY}", 1)
        assert "the driver can't scrub: Device or resource busy" in checks["scrub"][1]
        # It is unbound meanwhile.
        checks, _ = self.run_test(status=1, env={"AT": f"RESET:rm {DEVICE}/nvgrace_gpu/scrub_state"})
        assert "the driver can't scrub: No such file or directory" in checks["scrub"][1]

    def test_it_can_not_be_opened_again(self):
        """After the scrub."""
        self.scrubs()
        self.check_failure(f"fail=/dev/vfio/12:2:{errno.EBUSY}", 4, "in use: another process has /dev/vfio/12 open")
        assert self.log.read_text().endswith("end: not possible\n")

    def test_two_at_once(self):
        with open(self.tree.root / DEVICE.lstrip("/") / "rescan", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.check_failure("", 4, "another nvgrace-gpu is changing or testing it; wait until that ends")
        self.check_failure(f"fail=>{DEVICE}/rescan:1:{errno.EIO}", 1, "can't lock it: Input/output error")
        # A user can't lock it, and needs not.
        self.run_test(f"fail=>{DEVICE}/rescan:1:{errno.EACCES}")

    def test_a_plain_device(self):
        """It has no memory. It is not even opened, which would reset it."""
        self.tree.file(f"{DEVICE}/nvgrace_gpu/mode", "core-only")
        for command in ("test", "bench"):
            self.check_failure(f"fail=/dev/vfio/12:1:{errno.EIO}", 4, "shows no GPU memory: firmware reports none", (command, "--yes"))

    def test_look(self):
        """What the kernel has of the GPU, before it is opened."""
        iomem = "00000000-000fffff : System RAM\n4000000000-400007ffff : nvgrace_gpu usemem\n4000080000-40000bffff : other"
        self.replace("/proc/iomem", iomem)
        checks, document = self.run_test()
        claims = [(c["outcome"], c["text"]) for c in document["checks"] if c["id"] == "claims"]
        assert claims == [("passed", "/proc/iomem has usemem"),
                          ("noted", "/proc/iomem does not have resmem as claimed by the driver")]
        assert checks["registers"][0] == "passed"
        self.tree.file(f"{DEVICE}/nvgrace_gpu/readiness", "unknown")
        assert self.run_test()[0]["readiness"] == ("noted", "the driver reports: unknown")
        self.tree.file(f"{DEVICE}/nvgrace_gpu/readiness", "failed")
        checks, document = self.run_test(status=1)
        assert self.steps(document)[1] == ["look"]
        self.tree.file(f"{DEVICE}/nvgrace_gpu/readiness", "ready").file(f"{DEVICE}/resource", "0x0 0x0 0x0")
        checks, document = self.run_test(status=1)
        assert "BAR0 of the GPU has no address" in checks["registers"][1]

    def test_only_usemem(self):
        """A GPU without MIG has no resmem."""
        self.tree.without(*(f"{DEVICE}/nvgrace_gpu/{name}" for name in OF_RESMEM))
        self.tree.file(f"{DEVICE}/nvgrace_gpu/mode", "no-carve-out")
        _, document = self.run_test(f"resmem=0 bar2=0 {self.all_steps()}")
        assert document["resmem"] is None
        assert self.steps(document) == (list(STEPS), [], [])

    def test_report(self):
        """It has what a reader needs, and no physical address."""
        for name, text in (("bios_vendor", "NVIDIA"), ("bios_version", "1.2"), ("bios_date", "01/02/2026"), ("sys_vendor", "X"),
                           ("product_name", "Y")):
            self.tree.file(f"/sys/class/dmi/id/{name}", text)
        done = self.run_words("test", "--yes", G1, play=f"{GPU} alias=0:{USEMEM // 2}")
        out = " ".join(done.stdout.split())
        assert done.returncode == 1
        assert "firmware NVIDIA 1.2 of 01/02/2026, X Y " in out
        assert "steps look, open, touch, sample passed; pattern failed; reset, d3hot, file, scrub skipped" in out
        assert re.search(r"first at usemem \+ 0x[0-9a-f]+", out)
        assert not re.search("0x4000[0-9a-f]{6}|physical", out)

    def test_unknown_to_sysfs(self):
        """Another driver's sysfs says nothing about the memory."""
        self.tree.without(*(f"{DEVICE}/nvgrace_gpu/{name}" for name in SIZES))
        checks, document = self.run_test(f"alias=0:{USEMEM // 2}", 1)
        assert checks["sizes"] == ("passed", "BARs are powers of two; this driver has no sizes in sysfs")
        assert {checks[name][0] for name in ("claims", "readiness")} == {"skipped"}
        assert document["places"][0]["address"] is None

    def test_sizes(self):
        """vfio and sysfs differ."""
        small = USEMEM // 2
        for play, words in ((f"bar4={USEMEM + 4096}", f"BAR4 of usemem has {USEMEM + 4096} bytes, not a power of two"),
                            (f"bar4={2 * USEMEM}", f"BAR4 has {2 * USEMEM} bytes, but {USEMEM} in sysfs"),
                            (f"usemem={small}", f"{small} bytes of usemem can be mapped, but it has {USEMEM} in sysfs"),
                            ("usemem=0", "vfio shows no usemem, but sysfs does"),
                            ("resmem=0", "vfio shows no resmem, but sysfs does")):
            _, document = self.run_test(play, 1)
            texts = [c["text"] for c in document["checks"] if (c["id"], c["outcome"]) == ("sizes", "failed")]
            assert any(words in text for text in texts), (play, texts)

    def test_registers(self):
        checks, _ = self.run_test("wrong-bars", 1)
        assert checks["bars"][0] == "failed"
        assert re.search(rf"BAR4's register reads 0x[0-9a-f]+c after .* BAR of {USEMEM} bytes", checks["bars"][1])
        for play, words in (("no-config", "config space: Input/output error; run "),
                            (f"fail=write:1:{errno.EIO}", "config space: Input/output error"),
                            (f"fail=read:1:{errno.EPERM}", "config space: Operation not permitted")):
            checks, _ = self.run_test(play, 1)
            assert checks["bars"][0] == "failed"
            assert words in checks["bars"][1]
            # Nothing else is tried.
            assert "ends" not in checks

    def test_alias(self):
        """Two mapped pages are the same memory. The first step that accesses
        both finds it."""
        for size, at, step, check in ((128 * MiB, 64 * MiB, "touch", "every-64-MiB"), (8 * MiB, 2 * MiB, "sample", "every-2-MiB"),
                                      (USEMEM, USEMEM // 2, "pattern", "pattern")):
            for name in ("usemem_size", "usemem_bar_size"):
                self.tree.file(f"{DEVICE}/nvgrace_gpu/{name}", size)
            _, document = self.run_test(f"usemem={size} bar4={size} alias=0:{at}", 1)
            found = [c for c in document["checks"] if c["outcome"] == "failed"]
            assert {(c["step"], c["id"]) for c in found} == {(step, check)}
            assert any("two addresses access the same memory" in c["text"] for c in found), found
            # Either thread of the pattern may have written last, at each address. A
            # copy of an earlier pattern belongs to no place.
            for place in document["places"]:
                if place["content_of"]:
                    assert abs(int(place["offset"], 16) - int(place["content_of"]["offset"], 16)) == at
            assert self.steps(document) == (list(STEPS[:STEPS.index(step)]), [step], list(STEPS[STEPS.index(step) + 1:]))

    def test_tail(self):
        self.tree.file(f"{DEVICE}/nvgrace_gpu/usemem_bar_size", 2 * USEMEM)
        for play, status, words in (("", 0, "after the memory, all reads as 0xff, and writes are dropped"),
                                    ("tail=zeros", 1, "into usemem's BAR, after its memory, not all bytes read as 0xff"),
                                    ("tail=kept", 1, "into usemem's BAR, after its memory, a write is kept"),
                                    ("open-end", 1, "the page after usemem can be mapped")):
            _, document = self.run_test(f"bar4={2 * USEMEM} {play}", status)
            texts = [c["text"] for c in document["checks"]]
            assert any(words in text for text in texts), texts

    def test_files_that_fail(self):
        """The check reports the file's error."""
        # The registers of two BARs are read and written eight times. Then the
        # list of capabilities is read.
        for call, nth, check, words in (("read", 9, "d3hot", "config space"), ("read", 10, "file", "pread or pwrite"),
                                        ("write", 9, "file", "pread or pwrite")):
            checks, _ = self.run_test(f"fail={call}:{nth}:{errno.EIO}", 1)
            assert checks["bars"][0] == "passed"
            assert f"{words}: Input/output error" in checks[check][1]
        self.tree.file(f"{DEVICE}/nvgrace_gpu/usemem_bar_size", 2 * USEMEM)
        _, document = self.run_test(f"bar4={2 * USEMEM} fail=read:28:{errno.EIO}", 1)
        assert any("reading or writing after the memory: Input/output error" in c["text"] for c in document["checks"])

    def test_sigbus(self):
        """The check says where. What follows is skipped."""
        checks, document = self.run_test(f"dead={64 * KiB}", 1)
        assert checks["ends"][0] == "failed"
        assert f"SIGBUS at usemem + 0x{USEMEM - 64:x}: " in checks["ends"][1]
        assert self.steps(document)[1] == ["touch"]
        assert document["passes"] == 0

    def test_reset(self):
        checks, document = self.run_test("after-reset=cleared")
        assert re.search(r"did not survive the reset: 192 of 192 words of 8 bytes", checks["content-after-reset"][1])
        assert document["content_survived_reset"] is False
        checks, _ = self.run_test("no-reset")
        assert checks["reset"] == ("skipped", "vfio can't reset this GPU alone")
        assert "content-after-reset" not in checks
        checks, _ = self.run_test(f"fail=RESET:1:{errno.EAGAIN}", 1)
        assert "VFIO_DEVICE_RESET: Resource temporarily unavailable; run " in checks["reset"][1]
        checks, _ = self.run_test("after-reset=dead", 1)
        assert "SIGBUS at " in checks["content-after-reset"][1]

    def test_error_counts(self):
        """Errors that are counted during the test."""
        def counts(fatal, correctable):
            for name, count in (("fatal", fatal), ("nonfatal", 0), ("correctable", correctable)):
                self.tree.file(f"{DEVICE}/aer_dev_{name}", f"Undefined 0\nTOTAL_ERR_{name.upper()} {count}")
            for name in ("ue_count", "ce_count"):
                self.tree.file(f"/sys/devices/system/edac/mc/mc0/{name}", 3)

        for command, status, name, outcome, words in (
                (":", 0, "pcie-errors", "passed", "no PCIe errors during the test; since boot, 2 uncorrected"),
                (":", 0, "memory-errors", "passed", "no memory errors during the test"),
                (f"echo TOTAL_ERR_FATAL 5 >{DEVICE}/aer_dev_fatal", 1, "pcie-errors", "failed",
                 "3 uncorrected and 0 corrected PCIe errors during the test"),
                (f"echo TOTAL_ERR_COR 9 >{DEVICE}/aer_dev_correctable", 0, "pcie-errors", "noted",
                 "2 corrected PCIe errors during the test"),
                (f"rm {DEVICE}/aer_dev_nonfatal", 0, "pcie-errors", "skipped", "(no AER)"),
                ("echo 4 >/sys/devices/system/edac/mc/mc0/ce_count", 0, "memory-errors", "noted",
                 "1 corrected memory errors during the test"),
                ("echo 5 >/sys/devices/system/edac/mc/mc0/ue_count", 1, "memory-errors", "failed",
                 "0 KiB taken out of use and 2 uncorrected memory errors counted"),
                ("echo HardwareCorrupted: 8 kB >/proc/meminfo", 1, "memory-errors", "failed",
                 "4 KiB taken out of use and 0 uncorrected"),
                ("rm -r /sys/devices/system/edac; echo >/proc/meminfo", 0, "memory-errors", "skipped",
                 "this kernel counts no memory errors")):
            counts(2, 7)
            self.replace("/proc/meminfo", "MemTotal:  1000 kB\nHardwareCorrupted:     4 kB")
            checks, _ = self.run_test(status=status, env={"AT": f"RESET:{command}"})
            assert checks[name][0] == outcome, (command, checks[name])
            assert words in checks[name][1]

    def test_link(self):
        for speed, words in (("32.0 GT/s PCIe", "the PCIe link is 32.0 GT/s PCIe x16, the GPU's maximum"),
                             ("2.5 GT/s PCIe", "the PCIe link is 2.5 GT/s PCIe x16; the GPU supports 32.0 GT/s PCIe x16")):
            for name, text in (("current_link_speed", speed), ("max_link_speed", "32.0 GT/s PCIe"),
                               ("current_link_width", 16), ("max_link_width", 16)):
                self.tree.file(f"{DEVICE}/{name}", text)
            assert self.run_test()[0]["pcie-link"][1] == words

    def test_processors(self):
        """The threads run on the CPUs of the GPU's node, if there are any."""
        everywhere = len(os.sched_getaffinity(0))
        first = min(os.sched_getaffinity(0))
        for cpus, node, threads in ((str(first), 0, 1), (f"{first}-{first},", 0, 1), ("x", None, everywhere),
                                    ("", None, everywhere), ("9000", None, everywhere), (f"{first}-x", 0, 1),
                                    ("4-3", None, everywhere)):
            self.tree.file("/sys/devices/system/node/node0/cpulist", cpus)
            _, document = self.run_test()
            assert (document["numa_node"], document["threads"]) == (node, threads), cpus
        # Of a process that can't ask, one thread runs anywhere.
        _, document = self.run_test(f"fail=affinity:1:{errno.EINVAL}")
        assert (document["numa_node"], document["threads"]) == (None, 1)
        self.tree.file("/sys/devices/system/node/node0/cpulist", first)
        assert ", of node 0\n" in self.run_words("test", "--yes", G1, play=GPU).stdout

    def test_signals(self):
        """Advice that memory is bad ends nothing. SIGBUS from elsewhere does."""
        self.run_test(f"sigbus={BUS_MCEERR_AO}")
        checks, _ = self.run_test(f"sigbus={BUS_ADRERR}", 1)
        assert "SIGBUS at memory of the host: " in checks["file"][1]
        # From another process: the second one ends the program.
        self.run_test(env={"AT": "RESET:kill -BUS $PPID"})
        # A signal is lost if the one before it is still pending. The program
        # has ended when its output has, so the shell must not have that open.
        again = "RESET:exec >/dev/null 2>&1; while kill -BUS $PPID; do sleep 0.1; done"
        done = self.run_words("test", "--yes", G1, play=GPU, env={"AT": again})
        assert (done.returncode, done.stdout) == (-signal.SIGBUS, "")


class Bench(Played):
    def test_it_reads_what_it_has_written(self):
        figures = self.figures("unwritten")
        for part in ("usemem", "resmem"):
            assert figures[f"pread/{part}/64KiB"]["count"]

    def bench(self, play, *words, status=0, **more):
        done = self.run_words("bench", "--yes", "--quick", *words, G1, play=f"{play} {GPU}", **more)
        assert done.returncode == status, (play, done.stderr)
        return done

    def figures(self, play="", **more):
        document = json.loads(self.bench(play, "--json", **more).stdout)
        validate(document)
        return {f["name"]: f for f in document["figures"]}

    def test_what_can_not_be_measured(self):
        """A figure without a value has its reason."""
        figures = self.figures(f"no-reset no-config fail=MAP_DMA:1:{errno.ENOMEM}")
        for name, reason in (("reset", "vfio can't reset this GPU alone"), ("reset-ready", "vfio can't reset this GPU alone"),
                             ("config-read", "vfio shows no config space"), ("dma-unmap/usemem/1.00", "not mapped"),
                             ("dma-map/usemem/1.00", "can't map: Cannot allocate memory"),
                             ("pread/usemem/64MiB", "less memory than a block"),
                             ("pread-tail/resmem/1MiB", "resmem fills its BAR")):
            assert (figures[name]["count"], figures[name]["reason"]) == (0, reason)
        assert figures["read/usemem/1"]["count"]
        self.tree.file(f"{DEVICE}/vfio-dev/vfio7/dev", "511:7")
        for error, reason in ((errno.EFAULT, "iommufd of this kernel can't map device memory"),
                              (errno.EOPNOTSUPP, "iommufd of this kernel can't map device memory"),
                              (errno.ENOMEM, "can't map: Cannot allocate memory")):
            figures = self.figures(f"cdev fail=IOAS_MAP:1:{error}")
            assert figures["dma-map/usemem/1.00"]["reason"] == reason
        assert self.figures("cdev")["dma-unmap/usemem/1.00"]["count"]

    def test_levels(self):
        """More time, and more of the memory."""
        for words, level, tick in (([], "normal", 100), (["--full"], "full", 1000)):
            done = self.run_words("bench", "--yes", "--json", *words, G1, play=f"tick={tick} {GPU}")
            assert done.returncode == 0, done.stderr
            document = json.loads(done.stdout)
            validate(document)
            assert document["level"] == level
        # Less than one page for each thread, and little memory of the host.
        self.tree.without(*(f"{DEVICE}/nvgrace_gpu/{name}" for name in BASES))
        figures = self.figures("usemem=4096 bar4=4096 resmem=1048576 bar2=2097152 free=4096", status=0)
        assert all(figures[f"read/usemem/{n}"]["count"] for n in {1, len(os.sched_getaffinity(0))})
        assert figures["pread/resmem/64MiB"]["reason"] == "less memory than a block"
        for name in ("memcpy-to/resmem/1MiB", "memcpy-from/resmem/1MiB", "pread-tail/resmem/1MiB"):
            assert figures[name]["count"], name

    def test_too_large_for_the_time_that_is_left(self):
        """A step that takes longer for more memory is omitted, by what the
        smaller ones took."""
        figures = self.figures("tick=300")
        for name in ("first-touch/usemem/1.00", "first-touch-faults/usemem/1.00", "dma-map/usemem/1.00", "dma-unmap/usemem/1.00"):
            assert figures[name]["count"] == 0, name
            assert re.search(r"^omitted: it would take about [\d.]+ s$", figures[name]["reason"])
        assert figures["first-touch/usemem/0.125"]["count"]

    def test_narrow_terminal(self):
        for columns in (40, 60, 200):
            done = self.bench("", env={"COLUMNS": str(columns)})
            assert max(map(len, done.stdout.splitlines())) <= columns

    def test_it_ends_when_a_step_fails(self):
        for play, words in (
                (f"fail=/dev/vfio/12:2:{errno.EBUSY}", "can't reopen it: in use: another process has /dev/vfio/12 open"),
                (f"fail=GET_REGION_INFO:3:{errno.EIO}", "finding the memory again failed: Input/output error"),
                (f"fail=RESET:1:{errno.EIO}", 'VFIO_DEVICE_RESET failed: Input/output error; run "dmesg'),
                (f"fail=UNMAP_DMA:1:{errno.EINVAL}", "unmapping for DMA failed: Invalid argument"),
                (f"fail=map:2:{errno.ENOMEM}", "mapping GPU memory failed: Cannot allocate memory"),
                (f"fail=read:4:{errno.EIO}", "pread failed: Input/output error"),
                (f"fail=write:1:{errno.EIO}", "pwrite failed: Input/output error"),
                ("dead=0", "SIGBUS at usemem + 0x0, physical address 0x4000000000: a memory error, or the GPU does not")):
            done = self.bench(play, status=1)
            assert done.stdout == ""
            assert f"nvgrace-gpu: {G1}: {words}" in done.stderr

    def test_hints(self):
        """On a Grace CPU, the hints compare with published figures."""
        out = " ".join(self.bench("").stdout.split())
        assert "this CPU is not a Neoverse V2" in out
        self.replace("/proc/cpuinfo", "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd4f")
        out = " ".join(self.bench("").stdout.split())
        for operation, published in (("read", 238), ("write", 287)):
            assert re.search(rf"{operation} of usemem with \d+ threads?: [\d.]+ \w+/s, \d+ % of C2C's 450 GB/s each way "
                                  rf"\(NVIDIA Grace Hopper Superchip architecture\); {published} GB/s was reported", out)
        assert "the memory of this GPU was overwritten" in out
        # Nothing is written, so there is nothing to compare with.
        out = " ".join(self.bench("", "--read-only").stdout.split())
        assert "read of usemem with" in out
        assert "write of usemem with" not in out
        assert "was overwritten" not in out
        out = self.bench("usemem=0 bar4=0").stdout
        assert out.partition("\nHints\n")[2].startswith("  the memory of this GPU was overwritten"), out
        self.tree.file(f"{DEVICE}/device", "0x2941")
        assert "there are no published figures for this GPU to compare with" in " ".join(self.bench("").stdout.split())


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
        result, error = self.scrub()
        assert error == ""
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
        assert result["verified"]["places"] == [{"part": part, "offset": "0x1238", "address": address, "found": "0x5a"}
                                                for part, address in (("usemem", "0x4000001238"), ("resmem", "0x4000081238"))]
        assert "not clean: words of 8 bytes that are not 0: 2, the first at usemem + 0x1238, physical address" in error
        assert f"{G1}: usemem + 0x1238, physical address 0x4000001238: 0x000000000000005a\n" in error

    def test_what_was_written_last_is_read_first(self):
        """After the reset, the GPU's cache may have lost what the scrub wrote
        last: the end of each part."""
        self.tree.file("/sys/devices/system/node/node0/cpulist", min(os.sched_getaffinity(0)))
        size = 8 * MiB
        for name in ("usemem_size", "usemem_bar_size"):
            self.tree.file(f"{DEVICE}/nvgrace_gpu/{name}", size)
        _, error = self.scrub(f"usemem={size} bar4={size} resmem=0 bar2=0 dead={2 * MiB}", 1)
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
        assert "scrubbed, but can't map its memory for --verify: Cannot allocate memory" in result["message"]
        assert result["verified"] is None

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
        self.tree.file("/records", "5,0,1,-;Linux version\nno record\nx;y\n12,7,1,-;nvgrace-gpu: 1\n6,8,1,-;unsigned module x")
        log = self.answers(f"fail=kmsg:2:{errno.EPIPE}:1")["kernel-log"]
        assert log.splitlines() == ["6 log complete", "4 nvgrace-gpu: 1", "6 unsigned module x"]
        assert "kernel-log" not in self.answers(f"fail=kmsg:2:{errno.EIO}")
        assert "kernel-log" not in self.answers(f"fail=/dev/kmsg:1:{errno.EPERM}")

    def test_acpi_tables(self):
        tables = "/sys/firmware/acpi/tables"
        self.tree.file(f"{tables}/SSDT1", "nvidia,gpu-mem-size nvidia,gpu-mem-base-pa").file(f"{tables}/SSDT2", "x")
        self.tree.file(f"{tables}/DSDT", "nvidia,gpu-mem-size").file(f"{tables}/FACP", "nvidia,gpu-mem-size")
        wanted = "DSDT: nvidia,gpu-mem-size\nSSDT1: nvidia,gpu-mem-base-pa nvidia,gpu-mem-size"
        assert self.answers()["acpi-tables"] == wanted
        assert self.answers(f"fail={tables}/SSDT2:1:{errno.EIO}")["acpi-tables"] == wanted
        assert self.answers(f"fail={tables}/SSDT1:1:{errno.EACCES}")["acpi-tables"] == "denied: only root can read them"

    def test_egm(self, tmp_path):
        """Its size, as the compiler of ACPI's tables writes numbers of each width."""
        for size in (0, 1, 2, 0xA5, 0x1234, 0xFEDCBA98, 0x70_0000_0000):
            gpu = types.SimpleNamespace(acpi="\\_SB.GPU0", base=1 << 41, size=96 << 30, model={}, dsd={"nvidia,egm-size": size, "nvidia,egm-pxm": 1})
            self.tree.file("/sys/firmware/acpi/tables/SSDT1", acpi.compile_asl(acpi.make_asl([gpu]), tmp_path))
            assert self.answers()["acpi-tables"] == f"SSDT1: nvidia,gpu-mem-base-pa nvidia,gpu-mem-size nvidia,egm-size={size}"

    def test_limit(self):
        assert self.answers("unlimited")["memlock"] == "unlimited"
        limit, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, hard))
        try:
            assert self.answers()["memlock"] == "65536"
        finally:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, hard))

    def test_initramfs(self):
        """An image that can't be read. test_initramfs.py has the others."""
        image, unpacker = "/lib/modules/1.2/initramfs.img", "/usr/bin/unmkinitramfs"
        self.tree.package().file("/etc/nvgrace-gpu.conf", "bind all").file(f"/usr{image}", b"x").file("/var/tmp/other", "")
        for name in ("sbin/mkinitramfs", "sbin/update-initramfs", "share/initramfs-tools/hooks/nvgrace-gpu"):
            self.tree.file(f"/usr/{name}", "")
        for play, text, words in (
                ("", None, "neither unmkinitramfs nor lsinitrd is there to read it"),
                (f"fail=?{image}:2:{errno.EACCES}", None, "only root can read it"),
                ("", "#!/bin/sh\nexit 1", "unmkinitramfs or lsinitrd can't unpack it"),
                ("", "\x7fELF", "unmkinitramfs or lsinitrd can't unpack it"),
                ("fast=100", "#!/bin/sh\nexec sleep 1000", "unmkinitramfs or lsinitrd can't unpack it"),
                ("", "#!/bin/sh\n", "what could be unpacked was made by neither initramfs-tools nor dracut")):
            if text:
                self.tree.file(unpacker, text)
                (self.tree.root / unpacker.lstrip("/")).chmod(0o755)
            # The other kernels are this machine's.
            assert (self.answers(play)["initramfs"].splitlines()[:6] ==
                    ["kernel: 1.2", f"image: {image}", "installed: none", "module: none", "parts:", f"error: {words}"])
            assert [f.name for f in (self.tree.root / "var/tmp").iterdir()] == ["other"]

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

        assert ask() == ["path: none"]
        path.parent.mkdir(parents=True)
        path.write_bytes(module(path.parent, "A" * 23))
        (path.parent / "m.o").unlink()
        shown = f"/lib/modules/{release}/updates/dkms/{NAME}.ko"
        self.tree.file("/etc/modprobe.d/x.conf", "install nvgrace_gpu_vfio_pci /bin/false\noptions nvgrace_gpu_vfio_pci scrub=1")
        assert ask() == [f"path: {shown}", "srcversion: " + "A" * 23, "vermagic: 6.18.1-test SMP", "install: /bin/false",
                         "options: scrub=1", "alias: no"]
        # The index has it, but the file is no module.
        path.write_bytes(b"rubbish")
        assert self.answers()["module"].splitlines()[:2] == [f"path: {shown}", "install: /bin/false"]
        # The image of the initramfs is compared with the installed module.
        self.tree.package().file("/etc/nvgrace-gpu.conf", "bind all").file(f"/usr/lib/modules/{release}/initramfs.img", b"x")
        for name in ("sbin/mkinitramfs", "sbin/update-initramfs", "share/initramfs-tools/hooks/nvgrace-gpu"):
            self.tree.file(f"/usr/{name}", "")
        path.unlink()
        assert f"installed: updates/dkms/{NAME}.ko -" in self.answers()["initramfs"].splitlines()
        # It is a part of the kernel.
        self.tree.file(f"/usr/lib/modules/{release}/modules.builtin", f"kernel/drivers/vfio/pci/nvgrace-gpu/{NAME}.ko")
        assert ask()[0] == "path: builtin"

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
