# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu, with ASan and UBSan, on trees of good, odd and broken hosts. The
commands are list, status and wait, and bind and unbind with --dry-run.
test_in_machine.py binds and unbinds GPUs."""

import json
import os
import pathlib
import re
import stat
import subprocess
import tempfile

import pytest

from boot import lines, takeover
from cli.common import build, run, validate
from cli.doctor_trees import unfold

OURS = "nvgrace_gpu_vfio_pci"
GiB = 1 << 30
G1, G2 = "0009:01:00.0", "0019:01:00.0"
SIZES = {"mode": "carve-out", "usemem_size": 0x17A0000000, "usemem_bar_size": 128 * GiB, "resmem_size": 0x50000000,
         "resmem_bar_size": 2 * GiB, "usemem_base": "0x4000000000", "resmem_base": "0x57a0000000", "readiness": "ready"}


# What the driver does not report of a GPU without a carve-out.
OF_RESMEM = ("resmem_size", "resmem_bar_size", "resmem_base")


class Tree:
    """A host's tree. Each method adds something to it. As a context manager, it
    removes the tree at the end."""

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="tree-")
        self.root = pathlib.Path(self._directory.name)
        (self.root / "sys/bus/pci/devices").mkdir(parents=True)
        return self

    def __exit__(self, *exc):
        self._directory.cleanup()

    def file(self, path, content=""):
        path = self.root / path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
        return self

    def link(self, path, target):
        path = self.root / path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
        return self

    def without(self, *paths):
        """Removes files, links or folders."""
        for path in paths:
            unfold.remove(self.root / path.lstrip("/"))
        return self

    def device(self, address, device="0x2345", vendor="0x10de", driver=None, group=12, node=0, override="(null)",
               **ours):
        """Adds a PCI device. ours: files of the driver's sysfs group."""
        d = f"/sys/bus/pci/devices/{address}"
        self.file(f"{d}/vendor", vendor).file(f"{d}/device", device).file(f"{d}/numa_node", node)
        self.file(f"{d}/driver_override", override)
        bar0 = "0x0000661000000000 0x0000661000ffffff 0x000000000014220c"
        self.file(f"{d}/resource", "\n".join([bar0] + ["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 6))
        if group is not None:
            self.link(f"{d}/iommu_group", f"../../../kernel/iommu_groups/{group}")
        if driver:
            self.link(f"{d}/driver", f"../../../bus/pci/drivers/{driver}")
            self.file(f"/sys/bus/pci/drivers/{driver}/unbind")
        for name, value in ours.items():
            self.file(f"{d}/nvgrace_gpu/{name}", value)
        return self

    def bound(self, address, **more):
        self.file(f"/sys/bus/pci/drivers/{OURS}/features", "iommufd pmd_pfnmap uncached_guest")
        return self.device(address, driver=OURS, override=OURS, **{**SIZES, **more})

    def process(self, pid, comm, *files, **fdinfo):
        """Adds a process. files: those it has open, from descriptor 3 on.
        fdinfo: fd4="text"."""
        self.file(f"/proc/{pid}/comm", comm)
        for fd, target in enumerate(files, 3):
            self.link(f"/proc/{pid}/fd/{fd}", target)
        for fd, text in fdinfo.items():
            self.file(f"/proc/{pid}/fdinfo/{fd[2:]}", text)
        return self

    def package(self):
        """Adds the udev rule and its program, which bind at boot."""
        return self.file("/usr/lib/udev/rules.d/60-nvgrace-gpu.rules", "# the rule").file("/usr/lib/udev/nvgrace-gpu")

    def node(self, path, major, minor):
        """Adds the file of a character device, which no program may open."""
        path = self.root / path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(major, minor))
        return self

    def numa_node(self, number, cpus="", kib=98):
        """Adds a NUMA node."""
        d = f"/sys/devices/system/node/node{number}"
        return self.file(f"{d}/cpulist", cpus).file(f"{d}/meminfo", f"Node {number} MemTotal:       {kib} kB")

    def run(self, *words, **more):
        """With sanitizers, so that a leak of memory fails a test."""
        return run(*words, root=self.root, **{"sanitized": True, **more})

    def json(self, *words, status=0):
        done = self.run(*words, "--json")
        assert done.returncode == status, (done.returncode, done.stderr)
        document = json.loads(done.stdout)
        validate(document)
        return document

    def states(self):
        return {g["address"]: g["state"] for g in self.json("list")["gpus"]}


class List:
    def test_no_gpu(self, tree):
        tree.device("0000:00:01.0", "0x1533", "0x8086").device("0001:01:00.0", "0x2330")
        done = tree.run("list")
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "nvgrace-gpu: no supported GPU on this host\n"
        assert tree.json("list")["gpus"] == []

    def test_nothing_at_all(self, tmp_path):
        assert run("list", root=tmp_path).returncode == 0

    def test_every_product(self, tree):
        products = [("0x2342", "GH200 120GB"), ("0x2343", "GH200"), ("0x2345", "GH200 480GB"), ("0x2348", "GH200"),
                    ("0x2941", "GB200"), ("0x31c2", "GB300")]
        for i, (device, _) in enumerate(products):
            tree.device(f"000{i}:01:00.0", device)
        assert [g["product"] for g in tree.json("list")["gpus"]] == [name for _, name in products]

    def test_order_is_that_of_numbers(self, tree):
        for address in ("0019:01:00.0", "0009:01:00.0", "10000:01:00.0", "0009:10:00.0", "0009:02:00.0"):
            tree.device(address)
        assert ([g["address"] for g in tree.json("list")["gpus"]] ==
                ["0009:01:00.0", "0009:02:00.0", "0009:10:00.0", "0019:01:00.0", "10000:01:00.0"])

    def test_states(self, tree):
        tree.device(G1).bound(G2, group=13).bound("0029:01:00.0", group=14).device("0039:01:00.0", driver="nouveau")
        tree.device("0049:01:00.0", driver="nvidia")
        tree.file("/proc/driver/nvidia/gpus/0049:01:00.0/numa_status", "Node:         17\nStatus:       online")
        tree.process(77, "qemu-system-aarch64", "/dev/vfio/vfio", "/dev/vfio/14")
        assert tree.states() == {G1: "unbound", G2: "bound", "0029:01:00.0": "in-use",
                                 "0039:01:00.0": "other-driver", "0049:01:00.0": "memory-online"}
        rows = tree.run("list", "--wide").stdout.splitlines()
        assert rows[0].split() == "ADDRESS PRODUCT NUMA DRIVER GROUP USEMEM RESMEM BOOT STATE".split()
        assert rows[1].split() == [G1, "GH200", "480GB", "0", "-", "12", "-", "-", "no", "unbound"]
        assert re.search(rf"^{G2} +GH200 480GB +0 +{OURS} +13 +94\.50 GiB +1\.25 GiB +no +bound$", rows[2])
        # Each column begins below its title.
        assert {row.index(row.split()[-1]) for row in rows} == {rows[0].index("STATE")}

    def test_what_json_has(self, tree):
        tree.bound(G1).file("/etc/nvgrace-gpu.conf", "\nbind all").process(5, "sh", "/dev/null")
        tree.file("/sys/bus/pci/slots/GPU0/address", "0009:01:00").file("/sys/bus/pci/slots/3/address", "0019:01:00")
        tree.file(f"/sys/bus/pci/devices/{G1}/serial_number", "48-B0-2D-FF-FF-12-34-56")
        gpu, = tree.json("list")["gpus"]
        assert gpu == {
            "address": G1, "vendor": "10de", "device": "2345", "product": "GH200 480GB", "state": "bound",
            "driver": OURS, "driver_override": OURS, "numa_node": 0, "iommu_group": 12, "slot": "GPU0",
            "serial": "48-b0-2d-ff-ff-12-34-56", "mode": "carve-out", "readiness": "ready",
            "scrub_state": None, "scrub_progress": None, "last_scrub": None,
            "usemem": {"size": 0x17A0000000, "bar_size": 128 * GiB, "base": "0x4000000000"},
            "resmem": {"size": 0x50000000, "bar_size": 2 * GiB, "base": "0x57a0000000"},
            "persisted": {"file": "/etc/nvgrace-gpu.conf", "line": 2}, "at_boot": False,
            "boot_obstacle": "the udev rule 60-nvgrace-gpu.rules is missing", "holders": []}

    def test_fits_the_terminal(self, tree):
        """A width of 80 has room for the most important columns, even with a
        long driver name. --wide prints all columns."""
        tree.bound(G1).device(G2, driver="nouveau", group=13).device("10019:01:00.0")
        for columns, least in ((None, 6), ("80", 6), ("100", 8), ("120", 9), ("40", 4)):
            out = tree.run("list", env={"COLUMNS": columns} if columns else {}).stdout
            rows = out.splitlines()
            titles = rows[0].split()
            assert len(titles) >= least, columns
            assert {"ADDRESS", "DRIVER", "BOOT", "STATE"} <= set(titles)
            if columns != "40":
                assert max(map(len, rows)) <= int(columns or 80)
            # Each cell begins below its title.
            for title, cell in (("DRIVER", OURS), ("STATE", "bound"), ("BOOT", "no")):
                assert rows[0].index(title) == re.search(rf"\b{cell}\b", rows[1]).start(), title
        wide = tree.run("list", "-w").stdout.splitlines()
        for spare, count in ((0, 9), (-1, 8)):
            out = tree.run("list", env={"COLUMNS": str(max(map(len, wide)) + spare)}).stdout
            assert len(out.splitlines()[0].split()) == count

    def test_scrubbing(self, tree):
        """If the driver reports a scrub state, there is one more column before
        BOOT, and JSON has state and progress."""
        tree.bound(G1, scrub_state="clean", scrub_progress=1 << 30).device(G2, driver="nouveau", group=13)
        rows = tree.run("list", "--wide").stdout.splitlines()
        assert rows[0].split() == "ADDRESS PRODUCT NUMA DRIVER GROUP USEMEM RESMEM SCRUB BOOT STATE".split()
        assert re.search(r" 1\.25 GiB +clean +no +bound$", rows[1])
        assert re.search(r" - +- +- +no +other-driver$", rows[2])
        assert [(g["scrub_state"], g["scrub_progress"]) for g in tree.json("list")["gpus"]] == [("clean", 1 << 30), (None, None)]

    def test_scrubbing_where_there_is_room(self, tree):
        """A width of 80 shows it too, unless another column would have to go."""
        tree.bound(G1)
        for state, there in (("off", True), ("unknown", True), ("scrubbing", False)):
            tree.file(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/scrub_state", state)
            rows = tree.run("list").stdout.splitlines()
            assert max(map(len, rows)) <= 80
            titles = set(rows[0].split())
            assert {"ADDRESS", "PRODUCT", "DRIVER", "USEMEM", "BOOT", "STATE"} <= titles
            assert ("SCRUB" in titles) == there, state

    def test_boot_tells_the_truth(self, tree):
        """A line that no program reads at boot does not count."""
        def boot(tree):
            gpu, = tree.json("list")["gpus"]
            return tree.run("list").stdout.splitlines()[1].split()[-2], gpu["at_boot"], gpu["boot_obstacle"]

        rule, helper = "/usr/lib/udev/rules.d/60-nvgrace-gpu.rules", "/usr/lib/udev/nvgrace-gpu"
        tree.bound(G1)
        assert boot(tree) == ("no", False, None)
        tree.package()
        assert boot(tree) == ("no", False, None)
        tree.file("/etc/nvgrace-gpu.conf.d/all.conf", "bind all")
        assert boot(tree) == ("yes", True, None)
        assert re.search(r"at boot +bound, by /etc/nvgrace-gpu\.conf\.d/all\.conf:1", tree.run("status", G1).stdout)
        tree.without(helper)
        assert boot(tree)[:2] == ("blocked", False)
        assert f"the program {helper} of {rule} is missing" in boot(tree)[2]
        assert re.search(r"at boot +not bound, although .*all\.conf:1 binds it:\n {13}the program /usr/lib",
                         tree.run("status", G1).stdout)
        tree.package()
        # udev(7) has two ways to mask a rule.
        tree.link("/etc/udev/rules.d/60-nvgrace-gpu.rules", "/dev/null")
        assert boot(tree) == ("blocked", False, "/etc/udev/rules.d/60-nvgrace-gpu.rules masks the udev rule")
        tree.without("/etc/udev/rules.d/60-nvgrace-gpu.rules").file("/etc/udev/rules.d/60-nvgrace-gpu.rules", b"")
        assert boot(tree)[0] == "blocked"
        tree.file("/etc/udev/rules.d/60-nvgrace-gpu.rules", "# the administrator's own")
        assert boot(tree)[0] == "yes"
        tree.without(rule)
        assert boot(tree)[0] == "yes"

    def test_the_kernel_that_boots_next(self, tree):
        """Without a module there, nothing is bound at the next boot."""
        tree.bound(G1).package().file("/etc/nvgrace-gpu.conf", "bind all")
        tree.file("/boot/grub/grub.cfg", "set default=0\nmenuentry x {\nlinux /vmlinuz-7.2 ro\n}\nmenuentry y {\nlinux /vmlinuz-7.1 ro\n}")
        for kernels, boots in (("7.1: updates/dkms/m.ko A\n7.2: none", False), ("7.1: none\n7.2: updates/dkms/m.ko A", True),
                               ("7.1: none\n7.2: builtin", True), ("7.2: none", False),
                               # That is another system's kernel, of which nothing is known.
                               ("7.1: none", True), ("7.1: none\n7.0: none", True), ("", True)):
            tree.file("/answers/kernels", kernels)
            gpu, = tree.json("list")["gpus"]
            assert gpu["at_boot"] == boots, kernels
            words = "Linux 7.2, which boots next, has no nvgrace-gpu-vfio-pci"
            assert gpu["boot_obstacle"] == (None if boots else words), kernels
            # The same again, as text.
            assert ("blocked" in tree.run("list", sanitized=False).stdout) == (not boots)
            done = tree.run("bind", "--dry-run", "--persist", G1)
            assert (done.returncode, words in done.stderr) == (0, not boots), kernels
            assert (words in " ".join(tree.run("status", G1, sanitized=False).stdout.split())) == (not boots)
        tree.file("/answers/kernels", "7.2: builtin").file("/boot/grub/grub.cfg", "menuentry x {\nlinux /vmlinuz-7.2 ro single\n}")
        gpu, = tree.json("list")["gpus"]
        assert gpu["boot_obstacle"] == 'the next boot is of a rescue system ("single" on the kernel command line)'
        # A release can be the beginning of another one.
        tree.file("/answers/kernels", "7.2: updates/dkms/m.ko A\n7.2-64k: none")
        tree.file("/boot/grub/grub.cfg", "menuentry x {\nlinux /vmlinuz-7.2-64k ro\n}")
        assert tree.json("list")["gpus"][0]["boot_obstacle"].startswith("Linux 7.2-64k, which boots next, has no")

    def test_other_modes(self, tree):
        d = f"/sys/bus/pci/devices/{G1}/nvgrace_gpu"
        tree.bound(G1, mode="no-carve-out").without(*(f"{d}/{name}" for name in OF_RESMEM))
        tree.device(G2, driver=OURS, mode="core-only")
        first, second = tree.json("list")["gpus"]
        assert (first["mode"], first["usemem"]["size"], first["resmem"]) == ("no-carve-out", 0x17A0000000, None)
        assert (second["mode"], second["usemem"], second["readiness"]) == ("core-only", None, None)
        assert "A plain PCI device" in tree.run("status", G2).stdout

    def test_a_user_sees_less(self, tree):
        """What a user can't read is unknown."""
        d = f"/sys/bus/pci/devices/{G1}/nvgrace_gpu"
        tree.bound(G1).file("/answers/euid", "1000").without(f"{d}/usemem_base", f"{d}/resmem_base")
        gpu, = tree.json("list")["gpus"]
        assert gpu["holders"] is None
        assert gpu["usemem"]["base"] is None
        done = tree.run("status", G1)
        assert "only root can see all" in done.stdout
        assert "0x4000000000" not in done.stdout


class Holders:
    """The processes that have a GPU open, by each kind of file."""

    def holders(self, tree, address=G1):
        gpu = next(g for g in tree.json("list")["gpus"] if g["address"] == address)
        return [(h["pid"], h["file"], h["certain"]) for h in gpu["holders"]]

    def test_group_file(self, tree):
        tree.bound(G1).bound(G2, group=13)
        tree.process(10, "qemu", "/dev/vfio/12").process(11, "other", "/dev/vfio/1", "/dev/vfio/122", "/dev/vfio/vfio")
        assert self.holders(tree) == [(10, "/dev/vfio/12", True)]
        assert self.holders(tree, G2) == []

    def test_passed_on_device(self, tree):
        """Later kernels report the device of an anonymous file. On others, it
        may be that of any GPU."""
        anonymous = "anon_inode:[vfio-device]"
        tree.bound(G1).bound(G2, group=13)
        tree.process(10, "vmm", anonymous, fd3=f"pos:\t0\nvfio-device-syspath: /sys/devices/pci0019:00/{G2}")
        assert (self.holders(tree), self.holders(tree, G2)) == ([], [(10, anonymous, True)])
        # The container's file names no device.
        tree.process(11, "old", anonymous, "/dev/vfio/vfio", fd3="pos:\t0")
        assert self.holders(tree) == [(11, anonymous, False)]
        assert "may have it open through vfio" in tree.run("unbind", "--dry-run", G1).stderr
        assert "perhaps by process 11 (old), " in tree.run("status", G1).stdout
        # The group's file names the device.
        tree.process(12, "qemu", anonymous, "/dev/vfio/7", fd3="pos:\t0")
        assert self.holders(tree) == [(11, anonymous, False)]

    def test_once_a_process(self, tree):
        tree.bound(G1).process(10, "qemu", "/dev/vfio/12", "/dev/vfio/12")
        assert len(self.holders(tree)) == 1

    def test_nvidia(self, tree):
        tree.device(G1, driver="nvidia")
        tree.file(f"/proc/driver/nvidia/gpus/{G1}/information", "Model: \t\t NVIDIA GH200\nDevice Minor: \t 1")
        tree.process(10, "python3", "/dev/nvidia0", "/dev/nvidiactl").process(11, "nvidia-persiste", "/dev/nvidia1")
        assert self.holders(tree) == [(11, "/dev/nvidia1", True)]
        assert "systemctl stop nvidia-persistenced" in tree.run("bind", "--dry-run", G1).stderr
        # Only character devices count, and not a disk of this name.
        tree.process(12, "sh", "/dev/gpu").node("/dev/gpu", 195, 1)
        for text, held in (("Character devices:\n195 nvidia", True), ("Character devices:\nBlock devices:\n195 nvidia", False)):
            tree.file("/proc/devices", text)
            assert ((12, "/dev/gpu", True) in self.holders(tree)) == held, text


class Status:
    def test_drawing(self, tree):
        tree.bound(G1).process(10, "qemu", "/dev/vfio/12")
        tree.file("/proc/iomem", "\n".join([
            "80000000-ffffffff : System RAM", "4000000000-579fffffff : nvgrace-gpu usemem",
            "57a0000000-57efffffff : nvgrace-gpu resmem", "  57a0001000-57a0001fff : odd\x1b[2J",
            "5800000000-5fffffffff : x"]))
        out = tree.run("status", "9:1:0.0", env={"COLUMNS": "100"}).stdout
        lines = out.splitlines()
        assert lines[0] == f"{G1}  GH200 480GB  10de:2345  in-use"
        edges = [line.split()[0] for line in lines if line.endswith("-+")]
        assert edges == ["0x4000000000", "0x57a0000000", "0x57f0000000"]
        assert re.search(r"\| usemem +\|  BAR4, 128 GiB\n.*\| 94\.50 GiB +\|  mappable, write-back", out)
        assert re.search(r"\| resmem +\|  BAR2, 2 GiB\n.*\| 1\.25 GiB +\|  mappable, non-cacheable", out)
        assert re.search(r"BAR4 +\[#+\.+\] 94\.50 GiB of 128 GiB; the rest reads as ones", out)
        assert re.search(r"BAR0 +16 MiB at 0x661000000000", out)
        assert "by process 10 (qemu), /dev/vfio/12" in out
        assert "57a0001000-57a0001fff : odd?[2J" in out
        assert "5800000000" not in out
        assert "\x1b" not in out

    def test_scrubbing(self, tree):
        tree.bound(G1)
        assert "scrub" not in tree.run("status", G1).stdout
        size = SIZES["usemem_size"] + SIZES["resmem_size"]
        d = f"/sys/bus/pci/devices/{G1}/nvgrace_gpu"
        for state, progress, text in (
                ("off", 0, "off: GPU memory is not cleared"), ("unknown", 0, "unknown: not scrubbed since"),
                ("scrubbing", 0, "scrubbing: 0 %"), ("scrubbing", size // 2, "scrubbing: 50 %"),
                ("scrubbing", size - 1, "scrubbing: 99 %"), ("scrubbing", size + 1, "scrubbing\n"),
                ("scrubbing", "x", "scrubbing\n"), ("clean", size, "clean: all zeros"), ("dirty", size, "dirty: opened"),
                ("failed", 7, "failed: see the kernel's log"), ("later", 7, "later\n")):
            tree.file(f"{d}/scrub_state", state).file(f"{d}/scrub_progress", progress)
            assert re.search(rf"\n  scrub +{text}", tree.run("status", G1).stdout), state
        assert tree.json("status", G1)["gpu"]["scrub_state"] == "later"

    def test_last_scrub(self, tree):
        """When it ended, how and how long it took, and when the memory was
        read back."""
        tree.bound(G1, scrub_state="off", scrub_count=0, scrub_result="none", scrub_time=0, scrub_ms=0)
        none = {"count": 0, "result": None, "time": None, "milliseconds": None, "verified_time": None}
        assert tree.json("status", G1)["gpu"]["last_scrub"] == none
        assert "last scrub" not in tree.run("status", G1).stdout
        d = f"/sys/bus/pci/devices/{G1}/nvgrace_gpu"
        tree.file(f"{d}/scrub_count", 3).file(f"{d}/scrub_time", 1795564812).file(f"{d}/scrub_ms", 1234)
        for result in ("clean", "failed"):
            tree.file(f"{d}/scrub_result", result)
            assert re.search(rf"\n  last scrub {result}, 2026-11-25 00:00:12 UTC, 1\.234 s\n", tree.run("status", G1).stdout)
        assert tree.json("list")["gpus"][0]["last_scrub"] == {
            "count": 3, "result": "failed", "time": 1795564812, "milliseconds": 1234, "verified_time": None}
        for text, time in (('{"time": 1795564813}', 1795564813), ("{", None), ("[]", None), ('{"time": -1}', None),
                           ('{"time": "x"}', None), ("{}", None)):
            tree.file(f"/run/nvgrace-gpu/{G1}.json", text)
            assert tree.json("status", G1)["gpu"]["last_scrub"]["verified_time"] == time, text
            shown = "\n  read zeros 2026-11-25 00:00:13 UTC\n" in tree.run("status", G1, sanitized=False).stdout
            assert shown == (time is not None)
        tree.file(f"{d}/scrub_time", 1 << 60)
        assert "last scrub failed, ?, 1.234 s" in tree.run("status", G1).stdout

    def test_width(self, tree):
        tree.bound(G1)
        for columns in ("1", "80", "100", "1000", "rubbish", ""):
            out = tree.run("status", G1, env={"COLUMNS": columns}).stdout
            limit = 110 if columns in ("100", "1000") else 80
            assert max(map(len, out.splitlines())) <= limit, columns

    def test_tail_of_a_page(self, tree):
        tree.bound(G1, usemem_bar_size=SIZES["usemem_size"], resmem_size=0x50001235).file("/answers/page-size", "65536")
        document = tree.json("status", G1)
        assert [(m["part"], m["start"], m["size"], m["mappable"]) for m in document["memory_map"]] == [
            ("usemem", "0x4000000000", 0x17A0000000, True), ("resmem", "0x57a0000000", 0x50000000, True),
            ("resmem", "0x57f0000000", 0x1235, False)]
        out = tree.run("status", G1).stdout
        assert "less than a page: not mappable" in out
        assert re.search(r"BAR4 +\[#+\] 94\.50 GiB of 94\.50 GiB\n", out)

    def test_json(self, tree):
        tree.bound(G1).file("/proc/iomem", "4000000000-579fffffff : nvgrace-gpu usemem")
        document = tree.json("status", G1)
        assert document["features"] == ["iommufd", "pmd_pfnmap", "uncached_guest"]
        assert document["own_bars"] == [{"bar": 0, "start": "0x661000000000", "size": 16 << 20, "hidden": False}]
        assert document["iomem"] == [{"start": "0x4000000000", "end": "0x579fffffff", "name": "nvgrace-gpu usemem"}]
        tree.file(f"/sys/bus/pci/drivers/{OURS}/features", "none")
        assert tree.json("status", G1)["features"] == []

    def test_hidden_bars(self, tree):
        """status reports each BAR of the device that a fake BAR hides from the
        guest."""
        bars = "\n".join(["0x0000661000000000 0x0000661000ffffff 0x000000000014220c", "0x0 0x0 0x0",
                          "0x0000662000000000 0x0000662000ffffff 0x000000000014220c", "0x0 0x0 0x0",
                          "0x0000663000000000 0x0000663001ffffff 0x000000000014220c", "0x0 0x0 0x0"])
        tree.bound(G1).device(G2, driver="vfio-pci")
        for address in (G1, G2):
            tree.file(f"/sys/bus/pci/devices/{address}/resource", bars)
        assert [(b["bar"], b["hidden"]) for b in tree.json("status", G1)["own_bars"]] == [(0, False), (2, True), (4, True)]
        assert [b["hidden"] for b in tree.json("status", G2)["own_bars"]] == [False] * 3
        out = tree.run("status", G1, env={"COLUMNS": "100"}).stdout
        assert re.search(r"BAR2 +16 MiB at 0x662000000000, the device's own; a guest sees resmem instead\n", out)
        assert re.search(r"BAR4 +32 MiB at 0x663000000000, the device's own; a guest sees usemem instead\n", out)
        assert re.search(r"BAR0 .*the device's own\n", out)
        # Without the MIG defect, the guest has the device's BAR2.
        d = f"/sys/bus/pci/devices/{G1}/nvgrace_gpu"
        tree.file(f"{d}/mode", "no-carve-out").without(*(f"{d}/{name}" for name in OF_RESMEM))
        assert [b["hidden"] for b in tree.json("status", G1)["own_bars"]] == [False, False, True]

    def test_all(self, tree):
        """Without an address, the output is that of all GPUs, one after the
        other."""
        tree.bound(G1).device(G2, group=13)
        assert tree.run("status").stdout == "\n".join(tree.run("status", a).stdout for a in (G1, G2))
        document = tree.json("status")
        for one in document["gpus"]:
            assert {"schema": 2, "command": "status", **one} == tree.json("status", one["gpu"]["address"])
        assert [one["gpu"]["address"] for one in document["gpus"]] == [G1, G2]

    def test_all_of_none(self, tree):
        done = tree.run("status")
        assert (done.returncode, done.stdout) == (0, "")
        assert "no supported GPU" in done.stderr
        assert tree.json("status")["gpus"] == []

    def test_unbound(self, tree):
        tree.device(G1, group=None)
        document = tree.json("status", G1)
        assert (document["features"], document["memory_map"], document["iomem"]) == (None, [], None)
        out = tree.run("status", G1).stdout
        assert f"Not bound to {OURS}" in out
        assert re.search(r"\n  IOMMU +no group\n", out)

    def test_extended_memory(self, tree):
        """Firmware states it, or says that there is none, or says nothing."""
        tree.device(G1)
        for text, size, said in (("", None, None), ("SSDT5 nvidia,egm-size=0", 0, "none"),
                                 (f"SSDT5 nvidia,egm-size={512 * GiB} nvidia,egm-pxm=17", 512 * GiB, "512 GiB set aside by firmware")):
            tree.file("/answers/acpi-tables", text)
            assert tree.json("status", G1)["egm_size"] == size
            found = re.search(r"\n  EGM +(.*)", tree.run("status", G1).stdout)
            assert found[1].startswith(said) if said else not found

    def test_readiness(self, tree):
        for word, text in (("ready", "ready"), ("unknown", "no access since"), ("failed", "did not become ready")):
            if word == "ready":
                tree.bound(G1, readiness=word)
            else:
                tree.file(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/readiness", word)
            assert re.search(rf"readiness.*{text}", tree.run("status", G1).stdout)


class Addresses:
    def status(self, tree, typed):
        done = tree.run("status", typed)
        return done.returncode, (done.stdout or done.stderr).splitlines()[0]

    def test_short_ones(self, tree):
        tree.device(G1).device("0009:01:00.1", "0x1234").device("0019:02:00.0")
        for typed in (G1, "01:00.0", "1:0.0", "9:1:0.0", "0009:1:0.0"):
            assert self.status(tree, typed) == (0, f"{G1}  GH200 480GB  10de:2345  unbound"), typed
        tree.device("0019:01:00.0")
        code, line = self.status(tree, "01:00.0")
        assert (code, line) == (2, f"nvgrace-gpu: 01:00.0: matches {G1}, {G2}; add the domain")
        assert self.status(tree, G1)[0] == 0

    def test_nonsense(self, tree):
        tree.device(G1)
        for typed in ("", "gpu0", "01:00", "01:00.8", "01:20.0", "0009:01:00.0 ", "0009:01:00.0/", "x0009:01:00.0",
                      "::.", "-1:00.0", "9:9:9:9.0", "000000009:01:00.0", "../../x", "01:00.0\n", "é:00.0",
                      ":" * 5000):
            done = tree.run("status", "--", typed)
            assert done.returncode == 2, typed
            assert "not a PCI address" in done.stderr

    def test_no_such_device(self, tree):
        tree.device(G1).device("0000:00:01.0", "0x1533", "0x8086")
        assert self.status(tree, "0000:05:00.0")[0] == 3
        code, line = self.status(tree, "0000:00:01.0")
        assert code == 3
        assert "8086:1533 is not a GPU that this driver supports" in line


class Refusals:
    """--dry-run refuses what the commands refuse without it."""

    def refused(self, tree, *words, command="bind"):
        done = tree.run(command, "--dry-run", *words)
        assert done.returncode == 4, done.stdout
        document = tree.json(command, "--dry-run", *words, status=4)
        assert [r["result"] for r in document["results"] if r["exit_status"]] == ["refused"]
        return done.stderr

    def test_in_use(self, tree):
        tree.device(G1, driver="vfio-pci").device(G2, group=13).process(10, "qemu-system-aar", "/dev/vfio/12")
        error = self.refused(tree, G1, G2)
        assert (error == f"nvgrace-gpu: {G1}: in use: process 10 (qemu-system-aar) has /dev/vfio/12; "
                                "shut down that virtual machine\n")
        # The other GPU could still be bound.
        results = tree.json("bind", "--dry-run", G1, G2, status=4)["results"]
        assert [r["result"] for r in results] == ["refused", "planned"]

    def test_memory_online_by_nvidia(self, tree):
        tree.device(G1, driver="nvidia").device(G2)
        tree.file(f"/proc/driver/nvidia/gpus/{G1}/numa_status", "Node:  4\nStatus:  online")
        tree.file("/proc/iomem", "80000000-87ffffff : System RAM\n4000000000-57ffffffff : System RAM (NVIDIA)")
        error = self.refused(tree, G1)
        assert "its memory is online as System RAM of this host" in error
        assert f"nvgrace-gpu bind --boot-only {G1}" in error
        assert tree.run("bind", "--dry-run", G2).returncode == 0
        # Only root can read addresses. What the driver reports is enough.
        tree.file("/proc/iomem", "0-0 : System RAM\n0-0 : System RAM (NVIDIA)")
        assert "is online" in self.refused(tree, G1)

    def test_memory_offline(self, tree):
        tree.device(G1, driver="nvidia")
        tree.file(f"/proc/driver/nvidia/gpus/{G1}/numa_status", "Node: -1\nStatus: offline \t")
        assert tree.run("bind", "--dry-run", G1).returncode == 0

    def test_memory_left_online(self, tree):
        """The driver that added the memory is no longer loaded. With one GPU,
        it is that GPU's."""
        tree.device(G1)
        tree.file("/proc/iomem", "80000000-ffffffff : System RAM\n4000000000-57ffffffff : System RAM (NVIDIA)")
        assert "4000000000-57ffffffff, System RAM (NVIDIA)" in self.refused(tree, G1)

    def test_memory_of_a_bound_gpu(self, tree):
        """The driver has the GPU, but the host uses the same memory."""
        tree.bound(G1).file("/proc/iomem", "80000000-ffffffff : System RAM\n4000000000-57ffffffff : System RAM (other)")
        assert tree.states() == {G1: "memory-online"}
        # Only of the other part.
        tree.file("/proc/iomem", "57a0000000-57bfffffff : System RAM (other)")
        assert tree.states() == {G1: "memory-online"}
        tree.file("/proc/iomem", "80000000-ffffffff : System RAM\n5800000000-59ffffffff : System RAM (other)")
        assert tree.states() == {G1: "bound"}

    def test_ordinary_memory_is_nobodys(self, tree):
        tree.device(G1).file("/proc/iomem", "80000000-ffffffff : System RAM\n100000000-1ffffffff : System RAM (kmem)")
        assert tree.run("bind", "--dry-run", G1).returncode == 0

    def test_nothing_binds_at_boot(self, tree):
        """Without the udev rule and its program, the command refuses to bind at
        boot. It still unbinds, and binds now."""
        tree.device(G1).file(f"/etc/nvgrace-gpu.conf.d/{G1}.conf", f"bind {G1}")
        for word in ("--persist", "--boot-only"):
            error = self.refused(tree, word, G1)
            assert "can't be bound at boot: the udev rule" in error
            assert "install the package nvgrace-gpu again" in error
            assert tree.run("unbind", "--dry-run", word, G1).returncode == 0
        assert tree.run("bind", "--dry-run", G1).returncode == 0
        tree.package()
        assert tree.run("bind", "--dry-run", "--persist", G1).returncode == 0

    def test_virtual_functions(self, tree):
        tree.package().device(G1, driver="nvidia").file(f"/sys/bus/pci/devices/{G1}/sriov_numvfs", "2\n")
        function = "0009:01:00.4"
        tree.device(function).link(f"/sys/bus/pci/devices/{function}/physfn", f"../{G1}")
        said = self.refused(tree, G1)
        assert "2 of its virtual functions (SR-IOV) are on" in said
        assert f'run "echo 0 > /sys/bus/pci/devices/{G1}/sriov_numvfs"' in said
        assert [g["address"] for g in tree.json("list")["gpus"]] == [G1]
        done = tree.run("bind", "--dry-run", function)
        assert done.returncode == 3
        assert f"{function}: a virtual function (SR-IOV)" in done.stderr
        # This driver doesn't bind a GPU with functions on, but one that is bound can have got some.
        tree.file(f"/sys/bus/pci/devices/{G1}/sriov_numvfs", "0\n")
        assert tree.run("bind", "--dry-run", G1).returncode == 0

    def test_configuration(self, tree):
        tree.package().bound(G1).file("/etc/nvgrace-gpu.conf", f"# nothing\nignore {G1}")
        assert "/etc/nvgrace-gpu.conf:2 ignores it at boot" in self.refused(tree, "--persist", G1)
        own = f"/etc/nvgrace-gpu.conf.d/{G1}.conf"
        tree.file("/etc/nvgrace-gpu.conf").file(own, f"bind {G1}\nbind {G2}")
        assert f"{own}:2 was not written by" in self.refused(tree, "--persist", G1, command="unbind")
        tree.file(own, "rubbish")
        assert f"{own} exists, but does not bind it" in self.refused(tree, "--persist", G1)
        assert f"{own}:1 was not written by" in self.refused(tree, "--boot-only", G1, command="unbind")
        tree.file(own, f"bind {G1}\n".encode() + b"\0bind all\n")
        assert f"{own}:2 was not written by" in self.refused(tree, "--boot-only", G1, command="unbind")


class Steps:
    def steps(self, tree, *words):
        result, = tree.json(words[0], "--dry-run", *words[1:])["results"]
        return result["steps"]

    def test_bind(self, tree):
        tree.package().device(G1, driver="nouveau")
        d = f"/sys/bus/pci/devices/{G1}"
        steps = [f"write {OURS} into {d}/driver_override", f"write {G1} into /sys/bus/pci/drivers/nouveau/unbind",
                 f"write {G1} into /sys/bus/pci/drivers_probe"]
        assert self.steps(tree, "bind", G1) == ["load the module nvgrace-gpu-vfio-pci", *steps]
        tree.file(f"/sys/bus/pci/drivers/{OURS}/bind")
        assert self.steps(tree, "bind", G1) == steps
        own = f"write /etc/nvgrace-gpu.conf.d/{G1}.conf"
        assert self.steps(tree, "bind", "--persist", G1) == [*steps, own]
        assert self.steps(tree, "bind", "--boot-only", G1) == [own]
        assert tree.run("bind", "-n", G1).stdout.splitlines() == [f"{G1}: would", *("  " + s for s in steps)]
        assert not (tree.root / "etc").exists()

    def test_bound_already(self, tree):
        tree.bound(G1)
        assert self.steps(tree, "bind", G1) == []
        assert tree.run("bind", "-n", G1).stdout == f"{G1}: nothing to do\n"

    def test_unbind(self, tree):
        tree.bound(G1).device(G2, driver="nouveau")
        d = f"/sys/bus/pci/devices/{G1}"
        steps = [f"clear {d}/driver_override", f"write {G1} into /sys/bus/pci/drivers/{OURS}/unbind"]
        probe = f"write {G1} into /sys/bus/pci/drivers_probe"
        assert self.steps(tree, "unbind", G1) == [*steps, probe]
        assert self.steps(tree, "unbind", "--no-probe", G1) == steps
        assert self.steps(tree, "unbind", "--all") == [*steps, probe]
        assert self.steps(tree, "unbind", G2) == []

    def test_left_over_override(self, tree):
        tree.device(G1, override=OURS).device(G2, driver="nouveau", override=OURS)
        assert len(self.steps(tree, "unbind", G1)) == 2
        assert self.steps(tree, "unbind", G2) == [f"clear /sys/bus/pci/devices/{G2}/driver_override"]

    def test_persisted_by_others(self, tree):
        tree.package().bound(G1).file("/etc/nvgrace-gpu.conf.d/50-all.conf", "bind all")
        result, = tree.json("bind", "--dry-run", "--persist", G1)["results"]
        assert (result["boot"], result["steps"]) == ("already-persisted", [])
        result, = tree.json("unbind", "--dry-run", "--boot-only", G1)["results"]
        assert result["boot"] == "still-persisted"
        tree.file(f"/etc/nvgrace-gpu.conf.d/{G1}.conf", f"bind {G1}")
        result, = tree.json("unbind", "--dry-run", "--boot-only", G1)["results"]
        assert (result["boot"], result["steps"]) == ("still-persisted", [f"remove /etc/nvgrace-gpu.conf.d/{G1}.conf"])

    def test_changed(self, tree):
        """"changed" is true if the command would change something."""
        tree.package().bound(G1).device(G2, group=13)

        def changed(*words, status=0):
            document = tree.json(words[0], "--dry-run", *words[1:], status=status)
            assert document["changed"] == any(r["changed"] for r in document["results"])
            return [r["changed"] for r in document["results"]]

        assert changed("bind", G1, G2) == [False, True]
        assert changed("bind", "--persist", G1) == [True]
        assert changed("unbind", G1, G2) == [True, False]
        tree.process(10, "qemu", "/dev/vfio/12")
        assert changed("unbind", G1, status=4) == [False]

    def test_an_added_id(self, tree):
        """A GPU whose id only the configuration has is one of the GPUs."""
        tree.device(G1, device="0x297e").package()
        assert tree.json("list")["gpus"] == []
        assert tree.run("bind", "-n", G1).returncode == 3
        for number, word in enumerate(("10de:297e", "10DE:297E")):
            tree.file("/etc/nvgrace-gpu.conf.d/ids.conf", f"bind all\nid {word}")
            gpu = tree.json("list")["gpus"][0]
            assert (gpu["address"], gpu["product"]) == (G1, "GPU of an added id"), number
        assert tree.run("bind", "-n", G1).returncode == 0
        for word in ("", "297e", "10de:297", "8086:297e", "10de:297e x"):
            tree.file("/etc/nvgrace-gpu.conf.d/ids.conf", f"id {word}")
            assert tree.json("list")["gpus"] == []
            found = [f for f in json.loads(tree.run("doctor", "--json").stdout)["findings"] if f["id"] == "configuration"]
            assert "needs exactly one id of NVIDIA" in found[0]["reason"]

    def test_initramfs(self, tree):
        """What makes a kernel's image: the command, or who else does."""
        image, other = "/boot/initrd.img-6.12.1", "/boot/initramfs-7.2.3.img"
        tree.package().bound(G1).file("/lib/modules/6.12.1/modules.dep").file("/lib/modules/7.2.3/modules.dep")
        tree.file(image).file(other).file("/lib/modules/6.1.0/modules.dep")
        tools = "/usr/sbin/update-initramfs -u -k 6.12.1 && /usr/sbin/mkinitramfs -o /boot/initramfs-7.2.3.img 7.2.3"
        dracut = f"/usr/bin/dracut --force {image} 6.12.1 && /usr/bin/dracut --force {other} 7.2.3"

        def command(*words):
            part = tree.json("bind", "-n", "--persist", G1, *words)["initramfs"]
            return part and part["command"]

        def remedies():
            done = tree.run("bind", "-n", "--persist", "--no-initramfs", G1)
            assert done.returncode == 0
            return done.stderr.splitlines()

        tree.file("/usr/sbin/update-initramfs").file("/usr/bin/dracut")
        assert command() is None            # nothing from the packages
        tree.file("/usr/lib/dracut/modules.d/90nvgrace-gpu/module-setup.sh")
        assert command() == dracut
        tree.file("/usr/share/initramfs-tools/hooks/nvgrace-gpu")
        assert command() == dracut     # dracut's update-initramfs
        tree.file("/usr/sbin/mkinitramfs")
        assert command() == tools
        assert command("--no-initramfs") is None
        first, second = tools.split(" && ")
        assert remedies() == [f'nvgrace-gpu: {path} would keep the old configuration; run "{text}"' for path, text in
                              ((image, first), (other, second))]
        # Unified kernel images.
        tree.file("/efi/EFI/Linux/abc-6.12.1.efi").file("/boot/efi/EFI/Linux/linux-7.2.3-abc.efi")
        assert command() == ("/usr/bin/kernel-install add 6.12.1 /lib/modules/6.12.1/vmlinuz && "
                             "/usr/bin/dracut --force --uefi /boot/efi/EFI/Linux/linux-7.2.3-abc.efi 7.2.3")
        tree.without("/efi", "/boot/efi")
        for name, text, words in (("/etc/initramfs-tools/update-initramfs.conf", "# all\nupdate_initramfs='no'", f"mkinitramfs -o {image} 6.12.1"),
                                  ("/usr/sbin/transactional-update", "", "transactional-update initrd"),
                                  ("/run/ostree-booted", "", "rpm-ostree initramfs --enable")):
            tree.file(name, text).file("/proc/self/mounts", "sys /sys sysfs ro 0 0\n/dev/sda1 / btrfs ro,relatime 0 0\n")
            assert command() == ""
            assert words in remedies()[0]
        tree.without("/run/ostree-booted").file("/proc/self/mounts", "/dev/sda1 / btrfs rw,relatime 0 0")
        assert "update_initramfs=no" in remedies()[0]
        tree.file("/etc/nvgrace-gpu.conf", "bind all")
        assert command() is None            # no change

    def test_all(self, tree):
        done = tree.run("bind", "--dry-run", "--all")
        assert (done.returncode, done.stderr) == (3, "nvgrace-gpu: no supported GPU on this host\n")
        assert tree.run("unbind", "--dry-run", "--all").returncode == 0
        tree.device(G1).device(G2)
        assert len(tree.json("bind", "--dry-run", "--all")["results"]) == 2
        # An ignored GPU is left out, and one that may be is refused.
        tree.package().file("/etc/nvgrace-gpu.conf", f"bind all\nignore {G2}")
        for words in ([], ["--persist"]):
            done = tree.run("bind", "--dry-run", "--all", "--json", *words)
            assert (done.returncode, done.stderr) == (0, f"nvgrace-gpu: {G2}: left out: /etc/nvgrace-gpu.conf:2 ignores it\n")
            assert [r["address"] for r in json.loads(done.stdout)["results"]] == [G1]
        tree.file("/etc/nvgrace-gpu.conf", f"bind {G1}\nignore {G2[:-1]}?")
        results = tree.json("bind", "--dry-run", "--all", status=4)["results"]
        assert [(r["result"], r["steps"]) for r in results] == [("refused", [])] * 2
        assert all("/etc/nvgrace-gpu.conf:2 may mean that it is to be ignored" in r["message"] for r in results)
        assert tree.json("bind", "--dry-run", G1)["results"][0]["result"] == "planned"

    def test_all_is_undone(self, tree):
        """By the same words, whatever has unbound a GPU since."""
        tree.package().device(G1).bound(G2)
        for gpu in (G1, G2):
            tree.file(f"/etc/nvgrace-gpu.conf.d/{gpu}.conf", f"bind {gpu}")
        results = tree.json("unbind", "--dry-run", "--persist", "--all")["results"]
        assert [(r["address"], f"remove /etc/nvgrace-gpu.conf.d/{r['address']}.conf" in r["steps"]) for r in results] == [(G1, True), (G2, True)]
        assert [r["address"] for r in tree.json("unbind", "--dry-run", "--all")["results"]] == [G2]

    def test_twice_is_once(self, tree):
        tree.device(G1)
        assert len(tree.json("bind", "--dry-run", G1, "1:0.0", G1)["results"]) == 1

    def test_one_wrong_address_stops_all(self, tree):
        tree.device(G1)
        document = tree.json("bind", "--dry-run", G1, "0000:07:00.0", status=3)
        assert document["results"] == []

    def test_a_tree_is_not_changed(self, tree):
        tree.device(G1)
        for command in ("bind", "unbind"):
            done = tree.run(command, G1)
            assert done.returncode == 2
            assert "can't change a recorded tree; add --dry-run" in done.stderr


class Configuration:
    @staticmethod
    def persisted(tree, sanitized=False):
        """({address: the line that binds it}, messages)"""
        done = tree.run("list", "--json", sanitized=sanitized)
        return {g["address"]: g["persisted"] and (pathlib.Path(g["persisted"]["file"]).name, g["persisted"]["line"])
                for g in json.loads(done.stdout)["gpus"]}, done.stderr

    def test_lines(self, tree):
        for address, slot, serial in zip((G1, G2), lines.SLOTS, lines.SERIALS):
            tree.device(address).file(f"/sys/bus/pci/slots/{slot}/address", address.rpartition(".")[0])
            tree.file(f"/sys/bus/pci/devices/{address}/serial_number", serial)
        for text, binds in {**lines.GOOD, **lines.UNCLEAR}.items():
            tree.file("/etc/nvgrace-gpu.conf", text.encode())
            persisted, messages = self.persisted(tree)
            assert tuple(map(bool, persisted.values())) == binds, text
            assert bool(messages) == (text in lines.UNCLEAR and "slot=4" not in text), text

    def test_malformed_lines(self, tree):
        """In one file, with a good line at its end. test_udev.py has each alone."""
        tree.device(G1).file("/etc/nvgrace-gpu.conf", "\n".join([*lines.BAD, f"bind {G1}"]).encode())
        persisted, messages = self.persisted(tree, sanitized=True)
        said = re.findall(r"(?m)^nvgrace-gpu: /etc/nvgrace-gpu\.conf:(\d+): ", messages)
        assert (said, messages.count("\n")) == ([str(i + 1) for i in range(len(lines.BAD))], len(lines.BAD))
        assert "\x1b" not in messages
        assert persisted == {G1: ("nvgrace-gpu.conf", len(lines.BAD) + 1)}

    def test_which_files(self, tree):
        tree.device(G1)
        for name in (".hidden.conf", "x.conf~", "conf", ".conf", "x.conf.dpkg-old"):
            tree.file(f"/etc/nvgrace-gpu.conf.d/{name}", "bind all")
        assert self.persisted(tree) == ({G1: None}, "")
        tree.file("/etc/nvgrace-gpu.conf.d/x.conf", b"bind all")  # no newline
        assert self.persisted(tree) == ({G1: ("x.conf", 1)}, "")

    def test_unreadable(self, tree):
        tree.device(G1)
        (tree.root / "etc/nvgrace-gpu.conf").mkdir(parents=True)
        assert "/etc/nvgrace-gpu.conf: can't be read: Is a directory" in tree.run("list").stderr
        # No file is as long as this one, which has no blocks.
        tree.without("/etc/nvgrace-gpu.conf").file("/etc/nvgrace-gpu.conf")
        os.truncate(tree.root / "etc/nvgrace-gpu.conf", 65 << 20)
        assert "nvgrace-gpu: /etc/nvgrace-gpu.conf: can't be read: File too large; " in tree.run("list").stderr


class Takeover:
    """Which GPUs bind refuses, and the udev rule's program, which asks the same."""

    @pytest.mark.parametrize("case", takeover.CASES, ids=lambda case: case.name)
    def test_table(self, tree, case):
        case.build(tree.root)
        done = tree.run("bind", "--dry-run", takeover.GPU)
        status, word = {"taken": (0, ""), "in use": (4, "in use: "), "online": (4, "its memory is online")}[case.verdict]
        assert done.returncode == status, done.stdout + done.stderr
        assert word in done.stderr
        assert case.names in done.stderr


class Links:
    """Links of a record stay inside the record, and lead there to what they
    named on the host."""

    def node(self, tree):
        document = json.loads(tree.run("list", "--json").stdout)
        return document["gpus"][0]["numa_node"]

    def test_links(self, tree, tmp_path):
        tree.device(G1)
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "numa_node").write_text("7\n")
        place = tree.root / f"sys/bus/pci/devices/{G1}/numa_node"
        for target in (f"{outside}/numa_node", "../" * 40 + f"{outside}/numa_node"):
            place.unlink()
            place.symlink_to(target)
            assert self.node(tree) is None, target
        # A link to a directory outside.
        place.unlink()
        place.symlink_to("../away/numa_node")
        (place.parent.parent / "away").symlink_to(outside)
        assert self.node(tree) is None
        # Absolute links, and links with more ".." than the path has
        # components.
        tree.file("/opt/node", "5")
        for target in ("/opt/node", "../" * 40 + "opt/node", "//opt/./../opt/node"):
            place.unlink()
            place.symlink_to(target)
            assert self.node(tree) == 5, target
        # A link to itself.
        place.unlink()
        place.symlink_to("numa_node")
        assert self.node(tree) is None
        # A link to a directory inside, as in /sys.
        place.unlink()
        place.write_text("3\n")
        real = tree.root / "sys/devices/pci0009:00"
        real.mkdir(parents=True)
        place.parent.rename(real / G1)
        place.parent.symlink_to(f"/sys/devices/pci0009:00/{G1}")
        assert self.node(tree) == 3
        # Lists of names, and whether a file exists.
        tree.link("/sys/bus/pci/slots", outside)
        tree.link("/usr/lib/udev", "/")
        assert tree.run("status", G1).returncode == 0

    def test_device_files_are_not_opened(self, tree):
        tree.device(G1)
        path = f"/sys/bus/pci/devices/{G1}/numa_node"
        tree.without(path).node(path, 1, 5)  # /dev/zero
        assert self.node(tree) is None
        # Nor does a FIFO make anything wait.
        os.mkfifo(tree.without(path).root / path.lstrip("/"))
        assert self.node(tree) is None

    def test_page_sizes(self, tree):
        """Arm has three page sizes. Any other size in a record counts as
        4096."""
        tree.bound(G1, resmem_size=0x50001235)
        for text, tail in (("4096", 0x235), ("16384", 0x1235), ("65536", 0x1235), ("1", 0x235), ("3", 0x235),
                           ("0", 0x235), ("8192", 0x235), ("18446744073709551615", 0x235), ("4096 x", 0x235)):
            tree.file("/answers/page-size", text)
            pieces = tree.json("status", G1)["memory_map"]
            assert [p["size"] for p in pieces if not p["mappable"]] == [tail], text
            assert tree.run("doctor").returncode in (0, 6, 7), text


class Wait:
    def wait(self, tree, *words):
        return tree.run("wait", "--timeout=0", *words)

    def test_bound_and_ready(self, tree):
        tree.bound(G1).device(G2, group=13)
        done = self.wait(tree, G1)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{G1}: bound and ready\n", "")
        done = self.wait(tree, G1, G2)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f'nvgrace-gpu: {G2}: not bound to a driver; see "nvgrace-gpu doctor {G2}"\n'

    def test_what_is_not_enough(self, tree):
        tree.bound(G1, readiness="failed").device(G2, driver="nouveau", group=13)
        assert "its memory is not ready" in self.wait(tree, G1).stderr
        assert "bound to nouveau" in self.wait(tree, G2).stderr
        tree.file(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/readiness", "unknown")
        assert self.wait(tree, G1).returncode == 0
        # The link to the driver exists before the bind ends.
        tree.without(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/mode")
        assert "still being bound" in self.wait(tree, G1).stderr
        # The kernel's driver of this name has none of these files.
        tree.without(f"/sys/bus/pci/drivers/{OURS}/features")
        assert self.wait(tree, G1).returncode == 0

    def test_all_are_those_of_the_configuration(self, tree):
        tree.bound(G1).device(G2, group=13)
        assert self.wait(tree, "--all").stdout == "the configuration binds no present GPU\n"
        tree.file("/etc/nvgrace-gpu.conf", f"bind {G1}\nbind 0029:01:00.0")
        assert self.wait(tree, "--all").stdout == f"{G1}: bound and ready\n"
        tree.file("/etc/nvgrace-gpu.conf.d/x.conf", "bind all")
        assert self.wait(tree, "--all").returncode == 1
        tree.file("/etc/nvgrace-gpu.conf.d/y.conf", f"ignore {G2}")
        assert self.wait(tree, "--all").returncode == 0

    def test_it_waits(self, tree):
        """wait ends as soon as the GPU is bound."""
        tree.bound(G1)
        mode = tree.root / f"sys/bus/pci/devices/{G1}/nvgrace_gpu/mode"
        mode.rename(tree.root / "mode")
        process = subprocess.Popen([build(), "--root", tree.root, "wait", "--timeout=86400", G1],
                                   stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        (tree.root / "mode").rename(mode)
        assert process.communicate(timeout=600)[0] == f"{G1}: bound and ready\n"
        assert process.returncode == 0

    def test_it_gives_up(self, tree):
        tree.device(G1)
        done = tree.run("wait", "-t", "1", G1)
        assert done.returncode == 1


class Exercise:
    """bench, test and scrub refuse the GPUs of a tree, which can't be opened.
    test_testers_in_machine.py and test_scrub_in_machine.py have the other reasons
    to refuse one."""

    def test_recorded_trees_are_refused(self, tree):
        tree.bound(G1)
        for command in ("bench", "test"):
            done = tree.run(command, "--yes", G1)
            assert (done.returncode, done.stdout) == (2, "")
            assert f"can't open a GPU of a recorded tree; run \"nvgrace-gpu {command}\" without --root" in done.stderr

    def test_nothing_of_a_tree_is_scrubbed(self, tree):
        tree.bound(G1, scrub_state="off", scrub_progress=0, scrub="")
        for words in (["--all"], [G1], ["--verify", "--json", G1]):
            done = tree.run("scrub", *words)
            assert (done.returncode, done.stdout) == (2, ""), words
            assert "can't scrub a GPU of a recorded tree" in done.stderr
        assert (tree.root / f"sys/bus/pci/devices/{G1}/nvgrace_gpu/scrub").read_text() == "\n"
