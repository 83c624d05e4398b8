# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu bind and unbind, with ASan and UBSan, on files in place of the
kernel's: steps that fail. test_in_machine.py binds GPUs to the driver.

Shell commands of fake_vfio.c change the files as the kernel does.
"""

import errno
import json
import os
import stat
import subprocess

import pytest

from boot.test_initramfs import NAME, module
from cli.common import validate
from cli.test_trees import G1
from cli.test_vfio import DEVICE, Played

OURS = "nvgrace_gpu_vfio_pci"
DRIVERS = "/sys/bus/pci/drivers"
OVERRIDE, PROBE = f"{DEVICE}/driver_override", "/sys/bus/pci/drivers_probe"
CONFIG = "/etc/nvgrace-gpu.conf.d"
UPDATE = "/usr/sbin/update-initramfs"


def binds(driver):
    """The command with which the kernel binds the GPU to this driver."""
    return f"ln -sfn {DRIVERS}/{driver} {DEVICE}/driver"


UNBINDS = f"rm {DEVICE}/driver"


class Kernel(Played):
    @pytest.fixture(autouse=True)
    def kernel(self, played):
        self.tree.without(f"{DEVICE}/driver", f"{DEVICE}/iommu_group")
        self.tree.file("/sys/kernel/iommu_groups/12/type", "DMA").link(f"{DEVICE}/iommu_group", "/sys/kernel/iommu_groups/12")
        self.tree.file(OVERRIDE, "(null)").file(PROBE, "").file(f"{DEVICE}/rescan", "")
        for name in ("bind", "unbind"):
            self.tree.file(f"{DRIVERS}/{OURS}/{name}", "").file(f"{DRIVERS}/nouveau/{name}", "")

    def bound(self, driver, override="(null)"):
        link = self.tree.root / f"{DEVICE}/driver".lstrip("/")
        link.unlink(missing_ok=True)
        if driver:
            link.symlink_to(f"{DRIVERS}/{driver}")
        self.tree.file(OVERRIDE, override)

    def override(self):
        return (self.tree.root / OVERRIDE.lstrip("/")).read_text().strip()

    def driver(self):
        link = self.tree.root / f"{DEVICE}/driver".lstrip("/")
        return os.readlink(link).rpartition("/")[2] if link.is_symlink() else None

    def wait_until(self, condition):
        """A command that waits for the condition, also a command. It does not
        outlive the test by more than a moment."""
        return f"until {condition}; do [ -d {self.tree.root} ] || break; sleep 0.05; done"

    def change(self, *words, status=0, play="", at="", records=(), **more):
        """The result of the command, and its standard error. at: as AT of
        fake_vfio.c."""
        self.tree.file("/records", "\n".join(records))
        # The kernel's file has nothing left of a longer text.
        done = self.run_words(*words, "--json", G1, play=play, **more, env={
            "AT": f">{OVERRIDE}:: >{OVERRIDE}\n{at}", "KMSG": self.tree.root / "records"})
        assert done.returncode == status, (done.stdout, done.stderr)
        document = json.loads(done.stdout)
        validate(document)
        result, = document["results"]
        made = document["initramfs"]
        assert (made["exit_status"] != 0 if made else result["exit_status"]) == status
        return result, done.stderr


class Bind(Kernel):
    def test_bound(self):
        for before, message in ((None, f"bound to {OURS}"), ("nouveau", f"bound to {OURS} (was nouveau)")):
            self.bound(before)
            result, _ = self.change("bind", at=f">{DRIVERS}/nouveau/unbind:{UNBINDS}\n>{PROBE}:{binds(OURS)}")
            assert (result["result"], result["message"], result["changed"]) == ("bound", message, True)
            assert (self.driver(), self.override()) == (OURS, OURS)

    def test_refused_by_the_driver(self):
        """The GPU gets its former driver and override back. The message has the
        driver's lines of the kernel's log."""
        records = [f"6,1,2,-;{OURS} {G1}: a part", "3,2,3,-;vfio-pci 0001:01:00.0: another", f"3,3,4,-;pci {G1}: the reason"]
        result, error = self.change("bind", status=1, records=records)
        assert result["message"] == f"{OURS} refused it; it is unbound as before"
        assert result["kernel_log"] == [f"{OURS} {G1}: a part", f"pci {G1}: the reason"]
        assert f"nvgrace-gpu: {G1}: kernel: pci {G1}: the reason\n" in error
        assert self.override() == ""
        # Without such a line.
        self.bound("nouveau", "nouveau")
        steps = f">{DRIVERS}/nouveau/unbind:{UNBINDS}\n>{DRIVERS}/nouveau/bind:{binds('nouveau')}"
        result, _ = self.change("bind", status=1, at=steps, play=f"fail=>{PROBE}:1:{errno.ENODEV}")
        assert ((result["message"], result["next"], result["changed"]) ==
                (f"{OURS} refused it: No such device; it is bound to nouveau as before",
                 f'run "nvgrace-gpu doctor {G1}"', False))
        assert (self.driver(), self.override()) == ("nouveau", "nouveau")
        # Without an IOMMU.
        self.tree.without(f"{DEVICE}/iommu_group")
        result, _ = self.change("bind", status=1, at=steps)
        assert (result["next"] == "check that the IOMMU is on, because the device has no IOMMU group; "
                                         f'run "nvgrace-gpu doctor {G1}"')

    def test_override_fails(self):
        result, _ = self.change("bind", status=1, play=f"fail=>{OVERRIDE}:1:{errno.EBUSY}:1")
        assert result["message"] == "can't set driver_override: Device or resource busy; it is unbound as before"
        result, _ = self.change("bind", status=1, play=f"fail=>{OVERRIDE}:1:{errno.EBUSY}")
        assert (result["message"] == "can't set driver_override: Device or resource busy; and can't restore "
                                            "the former state: Device or resource busy")
        assert result["changed"] is True

    def test_former_driver(self):
        """A driver that does not release the GPU, or does not take it again."""
        self.bound("nouveau")
        result, _ = self.change("bind", status=1, play=f"fail=>{DRIVERS}/nouveau/unbind:1:{errno.EBUSY}")
        assert ((result["message"], result["next"]) ==
                ("can't unbind it from nouveau: Device or resource busy; it is bound to nouveau as before",
                 f'end what uses the device; run "nvgrace-gpu doctor {G1}"'))
        # ENOTSUPP, which user space has no name for, and which is too large for an exit status.
        result, _ = self.change("bind", status=1, at=f">{DRIVERS}/nouveau/unbind:{UNBINDS}", play=f"fail=>{DRIVERS}/nouveau/bind:1:524")
        assert (result["message"], result["changed"]) == (f"{OURS} refused it; and can't restore nouveau: Input/output error", True)
        # Without an error of the write.
        self.bound("nouveau")
        result, _ = self.change("bind", status=1, at=f">{DRIVERS}/nouveau/unbind:{UNBINDS}")
        assert (result["message"], result["changed"]) == (f"{OURS} refused it; and can't restore nouveau: No such device", True)

    def test_lock(self):
        self.tree.without(f"{DEVICE}/rescan")
        result, _ = self.change("bind", status=1)
        assert result["message"] == "can't lock it: No such file or directory"

    def test_wait_for_one_that_goes(self):
        done = self.run_words("wait", "--timeout=0", G1, play=f"fail=?{DEVICE}:1:{errno.ENODEV}")
        assert (done.returncode, done.stderr) == (1, f'nvgrace-gpu: {G1}: the device is gone; see "nvgrace-gpu doctor {G1}"\n')

    def test_another_bind(self):
        """The link to the driver exists, but another process's bind has not
        ended: the command waits for it."""
        self.tree.without(f"{DEVICE}/nvgrace_gpu/mode")
        self.bound(OURS, OURS)
        result, _ = self.change("bind")
        assert result["result"] == "already-bound"
        # That bind fails.
        result, _ = self.change("bind", at=f">{DRIVERS}/{OURS}/bind:{UNBINDS}\n>{PROBE}:{binds(OURS)}")
        assert (result["result"], result["message"]) == ("bound", f"bound to {OURS}")

    def test_it_says_what_it_waits_for(self):
        """The driver waits until the message has come."""
        notice = f"nvgrace-gpu: {G1}: still waiting: "
        memory = f"{notice}the GPU's memory becomes ready, within 30 s on a GH200, or the bind fails\n"
        path = self.tree.root / "said"
        said = self.wait_until(f'grep -q "still waiting: the GPU\'s memory" {path}')
        with open(path, "w", encoding="ascii") as file:
            self.change("bind", at=f">{PROBE}:{said}; {binds(OURS)}", play="fast=50", stderr=file)
        lines = path.read_text("ascii").splitlines(keepends=True)
        assert lines.count(memory) == 1, lines
        # A busy machine may take long to write the override.
        assert set(lines) <= {memory, f"{notice}the kernel is busy with the device\n"}

    def test_interrupted(self):
        """Before the first step, and while the driver is bound: the GPU is
        restored."""
        # The program has taken the signal when it is no longer pending.
        taken = self.wait_until("! grep -q '^ShdPnd:.*[4-7c-f]...$' /proc/$PPID/status")
        # It ends the child process that writes.
        ended = self.wait_until("! kill -0 $PPID 2>/dev/null")
        for at in (f">{DEVICE}/rescan:kill -TERM $PPID; {taken}",
                   f">{PROBE}:kill -TERM $(cut -d' ' -f4 /proc/$PPID/stat); {ended}"):
            self.bound("nouveau")
            result, _ = self.change("bind", status=130, at=f"{at}\n>{DRIVERS}/nouveau/unbind:{UNBINDS}\n"
                                                           f">{DRIVERS}/nouveau/bind:{binds('nouveau')}")
            assert (result["result"], result["message"]) == ("interrupted", "interrupted; it is bound to nouveau as before")
            assert self.driver() == "nouveau"

    def test_caller_that_ignores_its_children(self):
        """Their exit statuses are known nevertheless."""
        result, _ = self.change("bind", status=1, options="--ignore-signal=CHLD", play=f"fail=>{OVERRIDE}:1:{errno.EBUSY}:1")
        assert result["message"] == "can't set driver_override: Device or resource busy; it is unbound as before"

    def test_no_module(self):
        """The module is not installed, or can't be loaded."""
        directory = self.tree.root / f"{DRIVERS}/{OURS}".lstrip("/")
        directory.rename(directory.with_name("away"))
        release = os.uname().release
        result, _ = self.change("bind", status=1)
        assert result["message"] == f"there is no module nvgrace-gpu-vfio-pci: neither DKMS nor Linux {release} has one"
        assert result["next"].startswith('run "apt install nvgrace-gpu-vfio-pci-dkms"')
        path = self.tree.root / f"usr/lib/modules/{release}/updates/{NAME}.ko"
        path.parent.mkdir(parents=True)
        path.write_bytes(module(path.parent, "A" * 23))
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            self.tree.file(f"/usr/lib/modules/{release}/{name}", b"")
        subprocess.run(["depmod", "-b", self.tree.root / "usr", release], check=True, stderr=subprocess.DEVNULL)
        records = ["3,1,2,-;nvgrace_gpu_vfio_pci: reason", "3,2,3,-;another line"]
        for error, following in ((errno.EKEYREJECTED, "the kernel does not trust its signature; "), (errno.ENOKEY, "the kernel "),
                                 (errno.ENOEXEC, 'run "nvgrace-gpu doctor"')):
            result, _ = self.change("bind", status=1, play=f"fail=insmod:1:{error}", records=records)
            assert result["message"] == f"can't load the module nvgrace-gpu-vfio-pci: {os.strerror(error)}"
            assert result["next"].startswith(following), result
            assert result["kernel_log"] == ["nvgrace_gpu_vfio_pci: reason"]


class Unbind(Kernel):
    @pytest.fixture(autouse=True)
    def is_bound(self, kernel):
        self.bound(OURS, OURS)
        self.unbinds = f">{DRIVERS}/{OURS}/unbind:{UNBINDS}"

    def test_unbound(self):
        result, _ = self.change("unbind", at=self.unbinds)
        assert (result["message"], self.override()) == ("unbound; now without a driver", "")
        # It is not bound, but its override would bind it.
        self.bound(None, OURS)
        result, _ = self.change("unbind", at=f">{PROBE}:{binds('nouveau')}")
        assert (result["message"], self.override()) == ("was not bound; cleared its driver_override", "")
        result, _ = self.change("unbind")
        assert (result["result"], result["message"]) == ("already-unbound", f"not bound to {OURS}, but to nouveau")

    def test_no_probe(self):
        result, _ = self.change("unbind", "--no-probe", at=f"{self.unbinds}\n>{PROBE}:{binds('nouveau')}")
        assert result["message"] == "unbound; now without a driver"
        self.bound(OURS, OURS)
        result, _ = self.change("unbind", at=f"{self.unbinds}\n>{PROBE}:{binds('nouveau')}")
        assert result["message"] == "unbound; now bound to nouveau"

    def test_it_fails(self):
        result, _ = self.change("unbind", status=1, play=f"fail=>{OVERRIDE}:1:{errno.EIO}:1")
        assert ((result["message"], self.override()) ==
                (f"can't clear driver_override: Input/output error; it is bound to {OURS} as before", OURS))
        result, _ = self.change("unbind", status=1, play=f"fail=>{DRIVERS}/{OURS}/unbind:1:{errno.EBUSY}")
        assert ((result["message"], self.override()) ==
                (f"can't unbind it from {OURS}: Device or resource busy; it is bound to {OURS} as before", OURS))

    def test_state_can_not_be_read(self):
        """The second time, since the survey comes first. A driver that can't be
        read is not taken for none."""
        for path, what in ((f"@{DEVICE}/driver", "driver"), (OVERRIDE, "driver_override")):
            for command in ("bind", "unbind"):
                result, _ = self.change(command, status=1, at=self.unbinds, play=f"fail={path}:2:{errno.EIO}:1")
                assert (result["message"], result["changed"]) == (f"can't read its {what}: Input/output error", False)
                assert (self.driver(), self.override()) == (OURS, OURS)
        unread = f"fail=@{DEVICE}/driver:3:{errno.EIO}:1"
        result, _ = self.change("unbind", status=1, play=f"{unread} fail=>{DRIVERS}/{OURS}/unbind:1:{errno.EBUSY}")
        assert result["message"] == f"can't unbind it from {OURS}: Device or resource busy; it is bound to {OURS} as before"
        result, _ = self.change("unbind", at=self.unbinds, play=unread)
        assert result["message"] == "unbound; now without a driver"

    def test_another_binds_it_again(self):
        """Another process, and at once. One that unbinds it first does no harm."""
        result, _ = self.change("unbind", at=f">{OVERRIDE}:{UNBINDS}", play=f"fail=>{DRIVERS}/{OURS}/unbind:1:{errno.ENODEV}")
        assert result["message"] == "unbound; now without a driver"
        self.bound(OURS, OURS)
        result, _ = self.change("unbind", status=1)
        assert result["message"] == f"unbound, but another process has bound it to {OURS} again; it is bound to {OURS} as before"


class WithRule(Kernel):
    """The udev rule is installed, and nothing is bound at boot."""

    @pytest.fixture(autouse=True)
    def rule(self, kernel):
        self.tree.package()
        # An overlay without an upper folder can't be written.
        self.folder = self.tree.root / CONFIG.lstrip("/")
        self.folder.mkdir(parents=True)
        self.files[CONFIG] = self.folder
        self.at = f">{PROBE}:{binds(OURS)}"

    def left(self):
        return sorted(p.name for p in self.folder.iterdir())


class Boot(WithRule):
    """bind --persist and the initramfs."""

    def test_file(self):
        result, _ = self.change("bind", "--persist", at=self.at)
        own = f"{CONFIG}/{G1}.conf"
        assert (result["boot"], result["message"]) == ("persisted", f"bound to {OURS}; at every boot, by {own}")
        assert self.left() == [f"{G1}.conf"]
        assert stat.S_IMODE((self.folder / f"{G1}.conf").stat().st_mode) == 0o644
        result, _ = self.change("bind", "--persist")
        assert (result["boot"], result["message"]) == ("already-persisted", f"already bound to {OURS}; at every boot, by {own}:2")
        result, _ = self.change("unbind", "--persist", at=f">{DRIVERS}/{OURS}/unbind:{UNBINDS}")
        assert (result["boot"], result["message"]) == ("removed", "unbound; now without a driver; no longer at boot")
        assert self.left() == []
        result, _ = self.change("unbind", "--persist")
        assert result["message"] == f"not bound to {OURS}; no line binds it at boot"
        # Another file is the administrator's.
        (self.folder / "all.conf").write_text("bind all\n")
        result, _ = self.change("unbind", "--persist", status=1)
        assert ((result["message"], result["next"]) ==
                (f"not bound to {OURS}; but {CONFIG}/all.conf:1 binds it at boot", f'remove that line, or add "ignore {G1}"'))

    def test_failed_bind_is_not_persisted(self):
        result, _ = self.change("bind", "--persist", status=1)
        assert result["boot"] is None
        assert self.left() == []

    def test_file_that_can_not_be_checked(self):
        """Neither is it overwritten, nor does it stay."""
        own = f"{CONFIG}/{G1}.conf"
        play = f"fail=?{own}:1:{errno.EIO}"
        result, _ = self.change("bind", "--persist", status=4, at=self.at, play=play)
        assert (result["message"], self.driver(), self.left()) == (f"can't check for {own}: Input/output error", None, [])
        (self.folder / f"{G1}.conf").write_text(f"bind {G1}\n")
        # The second time, there is none.
        for _ in range(2):
            self.change("unbind", "--persist", play=play)
            assert self.left() == []
        # Neither can the folder's other files be read.
        (self.folder / f"{G1}.conf").write_text(f"bind {G1}\n")
        result, _ = self.change("unbind", "--persist", status=4, play=f"fail={CONFIG}:1:{errno.EIO}")
        assert (result["message"], self.left()) == (f"{CONFIG} can't be read: Input/output error", [f"{G1}.conf"])

    def test_folder_can_not_be_written(self):
        del self.files[CONFIG]
        result, _ = self.change("bind", "--persist", status=1, at=self.at)
        assert (result["message"], self.driver()) == (f"can't write a file in {CONFIG}: Read-only file system", None)
        (self.folder / f"{G1}.conf").write_text(f"bind {G1}\n")
        self.bound(OURS, OURS)
        result, _ = self.change("unbind", "--persist", status=1, at=f">{DRIVERS}/{OURS}/unbind:{UNBINDS}")
        assert (result["message"] == f"unbound; now without a driver; but can't remove {CONFIG}/{G1}.conf: "
                                            "Read-only file system")

    def test_file_fails(self):
        for play, message in (
                (f"fail=mkdir:1:{errno.EROFS}", f"can't write a file in {CONFIG}: Read-only file system"),
                (f"fail=fsync:1:{errno.EIO}", f"can't write a file in {CONFIG}: Input/output error"),
                (f"fail=rename:1:{errno.EIO}",
                 f"bound to {OURS}; but not at boot: can't write {CONFIG}/{G1}.conf: Input/output error")):
            self.bound(None)
            result, _ = self.change("bind", "--persist", status=1, at=self.at, play=play)
            assert (result["message"], result["boot"], self.left()) == (message, None, [])

    def test_file_is_something_else(self):
        """A device, FIFO or directory with the file's name stays, and nothing
        is bound. A link to a missing file is followed."""
        own = self.folder / f"{G1}.conf"
        for make in (lambda: os.mknod(own, stat.S_IFCHR | 0o666, os.makedev(1, 3)), lambda: os.mkfifo(own), own.mkdir,
                     lambda: own.symlink_to("/dev/null")):
            make()
            before = own.lstat()
            result, _ = self.change("bind", "--persist", status=4, at=self.at)
            assert ((result["message"], self.driver(), self.left()) ==
                    (f"{CONFIG}/{own.name} exists, but does not bind it", None, [own.name]))
            assert (own.lstat().st_ino, own.lstat().st_mode) == (before.st_ino, before.st_mode)
            (own.unlink, own.rmdir)[stat.S_ISDIR(before.st_mode)]()
        own.symlink_to("kept-elsewhere")
        result, _ = self.change("bind", "--persist", at=self.at)
        assert (result["boot"], own.is_symlink(), self.left()) == ("persisted", True, [own.name, "kept-elsewhere"])
        assert f"bind {G1}\n" in own.read_text("ascii")

    def test_initramfs(self):
        """The command that updates it may fail in each way. An image is a list of
        its files."""
        release = "6.12-test"
        image, hook = self.tree.root / f"boot/initrd.img-{release}", "/usr/share/initramfs-tools/hooks/nvgrace-gpu"
        self.tree.file(f"/usr/lib/modules/{release}/modules.dep", "").file(f"/boot/initrd.img-{release}", "init\n")
        self.tree.file("/usr/sbin/mkinitramfs", "").file(hook, "").file("/usr/bin/lsinitramfs", '#!/bin/sh\ncat - "$2"\n')
        (self.tree.root / "usr/bin/lsinitramfs").chmod(0o755)
        self.files["/boot"] = image.parent
        # In the boot loader's entry, the microcode comes first.
        self.tree.file("/boot/microcode.img", "").file("/boot/grub/grub.cfg",
                       f"menuentry x {{\nlinux /vmlinuz-{release}\ninitrd /microcode.img /{image.name}\n}}\n")
        program = self.tree.root / UPDATE.lstrip("/")
        files = "usr/lib/udev/rules.d/60-nvgrace-gpu.rules usr/lib/udev/nvgrace-gpu"
        # A new file, which may be as old as the one before.
        makes = (f"#!/bin/sh\necho made\necho init >/boot/new\nls {CONFIG}/*.conf >/dev/null 2>&1 && "
                 f"printf '%s\\n' {files} {CONFIG.lstrip('/')}/{G1}.conf >>/boot/new\n"
                 "touch -r /boot/initrd.img-$3 /boot/new\nmv /boot/new /boot/initrd.img-$3\n")
        command = f"{UPDATE} -u -k {release}"
        for text, status, words in (
                (makes, 0, "made\n"),
                ("#!/bin/sh\nexit 7", 1, f"can't update /boot/initrd.img-{release}: {UPDATE} exited with 7; it keeps the old"),
                ("#!/bin/sh\nexit 0", 1, f"{UPDATE} succeeded, but the image has not changed"),
                ("#!/bin/sh\ntouch /boot/initrd.img-$3", 1, f"{UPDATE} succeeded, but the image still has files"),
                ("#!/bin/sh\nkill -KILL $$", 1, f"{UPDATE} did not finish: Interrupted"),
                (None, 1, f"{UPDATE} did not finish: Permission denied; it keeps")):
            self.tree.file(UPDATE, text or "#!/bin/sh")
            program.chmod(0o755 if text else 0o644)
            image.write_text("init\n")
            if "made" in words or "exited" in words:    # how it fails is the same for both
                self.change("bind", "--boot-only", status=status)
            image.write_text(f"init\n{files}\n")
            done = self.run_words("unbind", "--boot-only", G1)
            assert done.returncode == status, done.stderr
            assert f"updating the initramfs: {command}\n" in done.stdout
            assert words in done.stderr
            if status:
                assert f'until you run "{command}" again' in done.stderr
        # An image that still binds is made again, and one that doesn't is left. The program
        # that lists it gets nothing of what is for the caller.
        self.tree.file(UPDATE, makes)
        program.chmod(0o755)
        image.write_text(f"init\n{files}\netc/nvgrace-gpu.conf.d/all.conf\n")
        for said in (f"updating the initramfs: {command}\n", ""):
            with open(self.tree.file("/for-the-caller", files.replace(" ", "\n")).root / "for-the-caller", "rb") as stdin:
                done = self.run_words("unbind", "--boot-only", G1, stdin=stdin)
            assert (done.returncode, done.stderr) == (0, "made\n" if said else "")
            assert done.stdout == f"{G1}: left as it is now; no line binds it at boot\n{said}"
        assert image.read_text() == "init\n"
        # Lines of the same length have no other size: an image that is older than the
        # configuration is made again.
        own = self.folder / f"{G1}.conf"
        own.write_text(f"bind {G1}\n")
        image.write_text(f"init\n{files}\n{CONFIG.lstrip('/')}/{G1}.conf\n")
        for later, said in ((1, f"updating the initramfs: {command}\n"), (0, "")):
            os.utime(own, ns=(0, image.stat().st_mtime_ns + later))
            done = self.run_words("bind", "--boot-only", G1)
            assert (done.returncode, done.stdout) == (0, f"{G1}: left as it is now; at every boot, by {CONFIG}/{own.name}:1\n{said}")
        own.unlink()
        image.write_text(f"init\n{files}\n")
        done = self.run_words("unbind", "--boot-only", "--no-initramfs", G1)
        assert (done.returncode, done.stderr) == (0, f'nvgrace-gpu: /boot/{image.name} keeps the old configuration; run "{command}"\n')
        # Without a program that makes one, its owner is asked to.
        program.unlink()
        image.write_text(f"init\n{files}\n")
        done = self.run_words("unbind", "--boot-only", G1)
        assert done.returncode == 1
        assert f"can't update /boot/initrd.img-{release}; neither update-initramfs nor dracut" in done.stderr
        # So the udev rule's program fails, too, unless it is for another kernel. For a package
        # that goes, it names such an image.
        done = self.run_words("images", program="udev/nvgrace-gpu")
        assert (done.returncode, f"{image.name} has files of this package, and binds GPUs at boot" in done.stderr) == (0, True)
        for words, status in (((), 1), ((release,), 1), (("7.0",), 0)):
            assert self.run_words("renew", *words, program="udev/nvgrace-gpu").returncode == status, words
        # The image of a crash dump's kernel only loses these files.
        image.write_text("init\n")
        dump, remakes = image.with_name(f"initramfs-{release}kdump.img"), self.tree.root / "usr/bin/kdumpctl"
        dump.write_text(f"init\n{files}\n")
        self.tree.file("/usr/bin/kdumpctl", f'#!/bin/sh\n[ "$*" = rebuild ] && echo init >/boot/{dump.name}')
        remakes.chmod(0o755)
        assert self.run_words("images", program="udev/nvgrace-gpu").stdout == "/usr/bin/kdumpctl rebuild\n"
        done = self.run_words("unbind", "--boot-only", G1)
        assert (done.returncode, dump.read_text()) == (0, "init\n")
        assert "updating the initramfs: /usr/bin/kdumpctl rebuild\n" in done.stdout
        # For the packages, the status says whether this kernel would bind GPUs.
        for line, status in (("", 0), ("bind all", 1)):
            (self.folder / "all.conf").write_text(line)
            done = self.run_words("kernels", program="udev/nvgrace-gpu")
            assert (done.returncode, f"Linux {release} has no {NAME}, and would bind no GPU" in done.stderr) == (status, bool(status))


class AtBoot(Kernel):
    """The steps of the udev rule's program that nvgrace-gpu(8) does otherwise."""

    @pytest.fixture(autouse=True)
    def configured(self, kernel):
        self.tree.file(f"{CONFIG}/all.conf", "bind all\n")

    def event(self, status, words, play="", at=""):
        self.tree.file("/records", "")
        # As a caller may have it.
        done = self.run_words("bind", G1, play=play, program="udev/nvgrace-gpu", options="--ignore-signal=CHLD", env={
            "AT": f">{OVERRIDE}:: >{OVERRIDE}\n{at}", "KMSG": self.tree.root / "records"})
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        assert words in done.stderr, done.stderr
        return done.stderr

    def test_bound(self):
        self.bound("nouveau")
        self.event(0, f"nvgrace-gpu: {G1}: bound to {OURS} (was nouveau)\n", at=f">{DRIVERS}/nouveau/unbind:{UNBINDS}\n>{PROBE}:{binds(OURS)}")
        assert (self.driver(), self.override()) == (OURS, OURS)
        assert self.event(0, "") == ""

    def test_open_files_are_looked_at_only_if_there_can_be_some(self):
        """A host may have very many."""
        for driver, group, looks in (("nouveau", False, True), (None, True, True), (None, False, False), (OURS, True, False)):
            self.bound(driver, OURS if driver == OURS else "(null)")
            self.tree.without("/sys/class/vfio/12", "/looked")
            if group:
                self.tree.file("/sys/class/vfio/12/dev", "240:0")
            self.event(0, "", at=f"/proc:touch {self.tree.root}/looked\n>{DRIVERS}/nouveau/unbind:{UNBINDS}\n>{PROBE}:{binds(OURS)}")
            assert (self.driver(), (self.tree.root / "looked").exists()) == (OURS, looks), (driver, group)

    def test_no_line_binds_it(self):
        for text in ("", f"bind all\nignore {G1}\n"):
            self.tree.file(f"{CONFIG}/all.conf", text)
            self.bound("nouveau")
            assert self.event(0, "") == ""
            assert (self.driver(), self.override()) == ("nouveau", "(null)")

    def test_without_module_no_other_driver_binds_it(self):
        """Unless one has it already."""
        directory = self.tree.root / f"{DRIVERS}/{OURS}".lstrip("/")
        directory.rename(directory.with_name("away"))
        self.bound(None)
        self.event(1, "there is no module nvgrace-gpu-vfio-pci: neither DKMS")
        assert self.override() == OURS
        self.bound("nouveau")
        self.event(1, "it is bound to nouveau as before")
        assert (self.driver(), self.override()) == ("nouveau", "")

    def test_a_refused_gpu_is_left_without_driver(self):
        self.bound(None)
        self.event(1, f"{OURS} refused it; ")
        assert self.override() == OURS

    def test_what_was_cut_short_goes_on(self):
        """The override is set already, and what was before is lost."""
        self.bound("nouveau", OURS)
        self.event(1, f"{OURS} refused it; it is bound to nouveau as before", at=f">{DRIVERS}/nouveau/unbind:{UNBINDS}\n"
                                                                                f">{DRIVERS}/nouveau/bind:{binds('nouveau')}")
        assert (self.driver(), self.override()) == ("nouveau", "nouveau")

    def test_leave(self):
        """Before the package is removed: overrides that name the driver go, but that of
        a GPU that is still bound. In a chroot nothing changes, since /sys is the host's."""
        self.files["/run"] = self.tree.file("/run/x").root / "run"
        self.tree.file(f"/sys/module/{OURS}/x").file("/usr/sbin/modprobe", f'#!/bin/sh\necho "$@"; [ ! -e {DEVICE}/driver ]')
        (self.tree.root / "usr/sbin/modprobe").chmod(0o755)
        stays = "nvgrace-gpu: can't unload nvgrace-gpu-vfio-pci, because devices are in use; it stays loaded until a reboot\n"
        for system, driver, said, override in ((False, None, "", OURS), (True, OURS, f"-r {NAME}\n{stays}", OURS), (True, None, f"-r {NAME}\n", "")):
            self.bound(driver, OURS)
            if system:
                self.tree.file("/run/systemd/system/x")
            done = self.run_words("leave", program="udev/nvgrace-gpu", env={"AT": f">{OVERRIDE}:: >{OVERRIDE}"})
            assert (done.returncode, done.stderr, self.override()) == (0, said, override)
        self.bound(None, OURS)
        done = self.run_words("leave", program="udev/nvgrace-gpu", play=f"fail=>{OVERRIDE}:1:{errno.EACCES}")
        assert done.returncode == 1
        assert done.stderr.endswith(f"nvgrace-gpu: {G1}: can't clear its driver_override; until a reboot, no driver can bind it\n")
