# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu, with ASan and UBSan, on trees of good, odd and broken hosts. The
commands are list, status and wait, and bind and unbind with --dry-run.
test_in_machine.py binds and unbinds GPUs."""

import json
import os
import pathlib
import random
import re
import stat
import subprocess
import tempfile
import unittest

import pytest

from boot import lines, takeover
from cli.common import build, run, validate

OURS = "nvgrace_gpu_vfio_pci"
GiB = 1 << 30
G1, G2 = "0009:01:00.0", "0019:01:00.0"
SIZES = {"mode": "carve-out", "usemem_size": 0x17A0000000, "usemem_bar_size": 128 * GiB, "resmem_size": 0x50000000,
         "resmem_bar_size": 2 * GiB, "usemem_base": "0x4000000000", "resmem_base": "0x57a0000000", "readiness": "ready"}


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

    def numa_node(self, number, *blocks, cpus="", kib=98):
        """Adds a NUMA node with memory blocks of 128 MiB."""
        self.file("/sys/devices/system/memory/block_size_bytes", "8000000")
        d = f"/sys/devices/system/node/node{number}"
        self.file(f"{d}/cpulist", cpus).file(f"{d}/meminfo", f"Node {number} MemTotal:       {kib} kB")
        for block in blocks:
            self.file(f"{d}/memory{block}/state", "online")
        return self

    def run(self, *words, **more):
        return run(*words, root=self.root, **more)

    def json(self, *words, status=0):
        done = self.run(*words, "--json")
        assert done.returncode == status, (done.returncode, done.stderr)
        document = json.loads(done.stdout)
        validate(document)
        return document

    def states(self):
        return {g["address"]: g["state"] for g in self.json("list")["gpus"]}


class List(unittest.TestCase):
    def test_no_gpu(self):
        with Tree() as t:
            t.device("0000:00:01.0", "0x1533", "0x8086").device("0001:01:00.0", "0x2330")
            done = t.run("list")
            self.assertEqual((done.returncode, done.stdout), (0, ""))
            self.assertEqual(done.stderr, "nvgrace-gpu: no supported GPU on this host\n")
            self.assertEqual(t.json("list")["gpus"], [])

    def test_nothing_at_all(self):
        with tempfile.TemporaryDirectory() as empty:
            self.assertEqual(run("list", root=empty).returncode, 0)

    def test_every_product(self):
        with Tree() as t:
            products = [("0x2342", "GH200 120GB"), ("0x2343", "GH200"), ("0x2345", "GH200 480GB"), ("0x2348", "GH200"),
                        ("0x2941", "GB200"), ("0x31c2", "GB300")]
            for i, (device, _) in enumerate(products):
                t.device(f"000{i}:01:00.0", device)
            self.assertEqual([g["product"] for g in t.json("list")["gpus"]], [name for _, name in products])

    def test_order_is_that_of_numbers(self):
        with Tree() as t:
            for address in ("0019:01:00.0", "0009:01:00.0", "10000:01:00.0", "0009:10:00.0", "0009:02:00.0"):
                t.device(address)
            self.assertEqual([g["address"] for g in t.json("list")["gpus"]],
                             ["0009:01:00.0", "0009:02:00.0", "0009:10:00.0", "0019:01:00.0", "10000:01:00.0"])

    def test_states(self):
        with Tree() as t:
            t.device(G1).bound(G2, group=13).bound("0029:01:00.0", group=14).device("0039:01:00.0", driver="nouveau")
            t.device("0049:01:00.0", driver="nvidia")
            t.file("/proc/driver/nvidia/gpus/0049:01:00.0/numa_status", "Node:         17\nStatus:       online")
            t.process(77, "qemu-system-aarch64", "/dev/vfio/vfio", "/dev/vfio/14")
            self.assertEqual(t.states(), {G1: "unbound", G2: "bound", "0029:01:00.0": "in-use",
                                          "0039:01:00.0": "other-driver", "0049:01:00.0": "memory-online"})
            rows = t.run("list", "--wide").stdout.splitlines()
            self.assertEqual(rows[0].split(), "ADDRESS PRODUCT NUMA DRIVER GROUP USEMEM RESMEM BOOT STATE".split())
            self.assertEqual(rows[1].split(), [G1, "GH200", "480GB", "0", "-", "12", "-", "-", "no", "unbound"])
            self.assertRegex(rows[2], rf"^{G2} +GH200 480GB +0 +{OURS} +13 +94\.50 GiB +1\.25 GiB +no +bound$")
            # Each column begins below its title.
            self.assertEqual({row.index(row.split()[-1]) for row in rows}, {rows[0].index("STATE")})

    def test_what_json_has(self):
        with Tree() as t:
            t.bound(G1).file("/etc/nvgrace-gpu.conf", "\nbind all").process(5, "sh", "/dev/null")
            t.file("/sys/bus/pci/slots/GPU0/address", "0009:01:00").file("/sys/bus/pci/slots/3/address", "0019:01:00")
            t.file(f"/sys/bus/pci/devices/{G1}/serial_number", "48-B0-2D-FF-FF-12-34-56")
            gpu, = t.json("list")["gpus"]
            self.assertEqual(gpu, {
                "address": G1, "vendor": "10de", "device": "2345", "product": "GH200 480GB", "state": "bound",
                "driver": OURS, "driver_override": OURS, "numa_node": 0, "iommu_group": 12, "slot": "GPU0",
                "serial": "48-b0-2d-ff-ff-12-34-56", "mode": "carve-out", "readiness": "ready",
                "scrub_state": None, "scrub_progress": None, "last_scrub": None,
                "usemem": {"size": 0x17A0000000, "bar_size": 128 * GiB, "base": "0x4000000000"},
                "resmem": {"size": 0x50000000, "bar_size": 2 * GiB, "base": "0x57a0000000"},
                "persisted": {"file": "/etc/nvgrace-gpu.conf", "line": 2}, "at_boot": False,
                "boot_obstacle": "the udev rule 60-nvgrace-gpu.rules is missing", "holders": []})

    def test_fits_the_terminal(self):
        """A width of 80 has room for the most important columns, even with a
        long driver name. --wide prints all columns."""
        with Tree() as t:
            t.bound(G1).device(G2, driver="nouveau", group=13).device("10019:01:00.0")
            for columns, least in ((None, 6), ("80", 6), ("100", 8), ("120", 9), ("40", 4)):
                out = t.run("list", env={"COLUMNS": columns} if columns else {}).stdout
                rows = out.splitlines()
                titles = rows[0].split()
                self.assertGreaterEqual(len(titles), least, columns)
                self.assertLessEqual({"ADDRESS", "DRIVER", "BOOT", "STATE"}, set(titles))
                if columns != "40":
                    self.assertLessEqual(max(map(len, rows)), int(columns or 80))
                # Each cell begins below its title.
                for title, cell in (("DRIVER", OURS), ("STATE", "bound"), ("BOOT", "no")):
                    self.assertEqual(rows[0].index(title), re.search(rf"\b{cell}\b", rows[1]).start(), title)
            self.assertEqual(len(t.run("list", "-w").stdout.splitlines()[0].split()), 9)

    def test_scrubbing(self):
        """If the driver reports a scrub state, there is one more column before
        BOOT, and JSON has state and progress."""
        with Tree() as t:
            t.bound(G1, scrub_state="clean", scrub_progress=1 << 30).device(G2, driver="nouveau", group=13)
            rows = t.run("list", "--wide").stdout.splitlines()
            self.assertEqual(rows[0].split(), "ADDRESS PRODUCT NUMA DRIVER GROUP USEMEM RESMEM SCRUB BOOT STATE".split())
            self.assertRegex(rows[1], r" 1\.25 GiB +clean +no +bound$")
            self.assertRegex(rows[2], r" - +- +- +no +other-driver$")
            self.assertEqual([(g["scrub_state"], g["scrub_progress"]) for g in t.json("list")["gpus"]],
                             [("clean", 1 << 30), (None, None)])
        # A width of 80 shows it too, unless another column would have to go.
        with Tree() as t:
            t.bound(G1)
            for state, there in (("off", True), ("unknown", True), ("scrubbing", False)):
                t.file(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/scrub_state", state)
                rows = t.run("list").stdout.splitlines()
                self.assertLessEqual(max(map(len, rows)), 80)
                titles = set(rows[0].split())
                self.assertLessEqual({"ADDRESS", "PRODUCT", "DRIVER", "USEMEM", "BOOT", "STATE"}, titles)
                self.assertEqual("SCRUB" in titles, there, state)

    def test_boot_tells_the_truth(self):
        """A line that no program reads at boot does not count."""
        def boot(t):
            gpu, = t.json("list")["gpus"]
            return t.run("list").stdout.splitlines()[1].split()[-2], gpu["at_boot"], gpu["boot_obstacle"]

        rule, helper = "/usr/lib/udev/rules.d/60-nvgrace-gpu.rules", "/usr/lib/udev/nvgrace-gpu"
        with Tree() as t:
            t.bound(G1)
            self.assertEqual(boot(t), ("no", False, None))
            t.package()
            self.assertEqual(boot(t), ("no", False, None))
            t.file("/etc/nvgrace-gpu.conf.d/all.conf", "bind all")
            self.assertEqual(boot(t), ("yes", True, None))
            self.assertRegex(t.run("status", G1).stdout, r"at boot +bound, by /etc/nvgrace-gpu\.conf\.d/all\.conf:1")
            (t.root / helper.lstrip("/")).unlink()
            self.assertEqual(boot(t)[:2], ("blocked", False))
            self.assertIn(f"the program {helper} of {rule} is missing", boot(t)[2])
            self.assertRegex(t.run("status", G1).stdout,
                             r"at boot +not bound, although .*all\.conf:1 binds it:\n {13}the program /usr/lib")
            t.package()
            # udev(7) has two ways to mask a rule.
            t.link("/etc/udev/rules.d/60-nvgrace-gpu.rules", "/dev/null")
            self.assertEqual(boot(t), ("blocked", False, "/etc/udev/rules.d/60-nvgrace-gpu.rules masks the udev rule"))
            (t.root / "etc/udev/rules.d/60-nvgrace-gpu.rules").unlink()
            t.file("/etc/udev/rules.d/60-nvgrace-gpu.rules", b"")
            self.assertEqual(boot(t)[0], "blocked")
            t.file("/etc/udev/rules.d/60-nvgrace-gpu.rules", "# the administrator's own")
            self.assertEqual(boot(t)[0], "yes")
            (t.root / rule.lstrip("/")).unlink()
            self.assertEqual(boot(t)[0], "yes")

    def test_other_modes(self):
        with Tree() as t:
            t.bound(G1)
            for name in ("resmem_size", "resmem_bar_size", "resmem_base"):
                (t.root / f"sys/bus/pci/devices/{G1}/nvgrace_gpu/{name}").unlink()
            t.file(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/mode", "no-carve-out")
            t.device(G2, driver=OURS, mode="core-only")
            first, second = t.json("list")["gpus"]
            self.assertEqual((first["mode"], first["usemem"]["size"], first["resmem"]),
                             ("no-carve-out", 0x17A0000000, None))
            self.assertEqual((second["mode"], second["usemem"], second["readiness"]), ("core-only", None, None))
            self.assertIn("A plain PCI device", t.run("status", G2).stdout)

    def test_a_user_sees_less(self):
        """What a user can't read is unknown."""
        with Tree() as t:
            t.bound(G1).file("/answers/euid", "1000")
            for name in ("usemem_base", "resmem_base"):
                (t.root / f"sys/bus/pci/devices/{G1}/nvgrace_gpu/{name}").unlink()
            gpu, = t.json("list")["gpus"]
            self.assertIsNone(gpu["holders"])
            self.assertIsNone(gpu["usemem"]["base"])
            done = t.run("status", G1)
            self.assertIn("only root can see all", done.stdout)
            self.assertNotIn("0x4000000000", done.stdout)


class Holders(unittest.TestCase):
    """The processes that have a GPU open, by each kind of file."""

    def holders(self, t, address=G1):
        gpu = next(g for g in t.json("list")["gpus"] if g["address"] == address)
        return [(h["pid"], h["file"], h["certain"]) for h in gpu["holders"]]

    def test_group_file(self):
        with Tree() as t:
            t.bound(G1).bound(G2, group=13)
            t.process(10, "qemu", "/dev/vfio/12").process(11, "other", "/dev/vfio/1", "/dev/vfio/122", "/dev/vfio/vfio")
            self.assertEqual(self.holders(t), [(10, "/dev/vfio/12", True)])
            self.assertEqual(self.holders(t, G2), [])

    def test_device_file(self):
        with Tree() as t:
            t.bound(G1).file(f"/sys/bus/pci/devices/{G1}/vfio-dev/vfio3/dev", "511:3")
            t.process(10, "qemu", "/dev/vfio/devices/vfio3")
            t.process(11, "other", "/dev/vfio/devices/vfio30", "/dev/iommu")
            self.assertEqual(self.holders(t), [(10, "/dev/vfio/devices/vfio3", True)])

    def test_passed_on_device(self):
        """Later kernels report the device of an anonymous file. On others, it
        may be that of any GPU."""
        anonymous = "anon_inode:[vfio-device]"
        with Tree() as t:
            t.bound(G1).bound(G2, group=13)
            t.process(10, "vmm", anonymous, fd3=f"pos:\t0\nvfio-device-syspath: /sys/devices/pci0019:00/{G2}")
            self.assertEqual((self.holders(t), self.holders(t, G2)), ([], [(10, anonymous, True)]))
            # The container's file names no device.
            t.process(11, "old", anonymous, "/dev/vfio/vfio", fd3="pos:\t0")
            self.assertEqual(self.holders(t), [(11, anonymous, False)])
            self.assertIn("may have it open through vfio", t.run("unbind", "--dry-run", G1).stderr)
            # The group's file names the device.
            t.process(12, "qemu", anonymous, "/dev/vfio/7", fd3="pos:\t0")
            self.assertEqual(self.holders(t), [(11, anonymous, False)])

    def test_once_a_process(self):
        with Tree() as t:
            t.bound(G1).process(10, "qemu", "/dev/vfio/12", "/dev/vfio/12")
            self.assertEqual(len(self.holders(t)), 1)

    def test_drm(self):
        with Tree() as t:
            t.device(G1, driver="nouveau").file(f"/sys/bus/pci/devices/{G1}/drm/renderD129/dev", "226:129")
            t.process(10, "Xorg", "/dev/dri/renderD128").process(11, "glxgears", "/dev/dri/renderD129")
            self.assertEqual(self.holders(t), [(11, "/dev/dri/renderD129", True)])

    def test_nvidia(self):
        with Tree() as t:
            t.device(G1, driver="nvidia")
            t.file(f"/proc/driver/nvidia/gpus/{G1}/information", "Model: \t\t NVIDIA GH200\nDevice Minor: \t 1")
            t.process(10, "python3", "/dev/nvidia0", "/dev/nvidiactl").process(11, "nvidia-persiste", "/dev/nvidia1")
            self.assertEqual(self.holders(t), [(11, "/dev/nvidia1", True)])
            self.assertIn("systemctl stop nvidia-persistenced", t.run("bind", "--dry-run", G1).stderr)
            # Only character devices count, and not a disk of this name.
            t.process(12, "sh", "/dev/gpu").node("/dev/gpu", 195, 1)
            for text, held in (("Character devices:\n195 nvidia", True), ("Character devices:\nBlock devices:\n195 nvidia", False)):
                t.file("/proc/devices", text)
                self.assertEqual((12, "/dev/gpu", True) in self.holders(t), held, text)


class Status(unittest.TestCase):
    def test_drawing(self):
        with Tree() as t:
            t.bound(G1).process(10, "qemu", "/dev/vfio/12")
            t.file("/proc/iomem", "\n".join([
                "80000000-ffffffff : System RAM", "4000000000-579fffffff : nvgrace-gpu usemem",
                "57a0000000-57efffffff : nvgrace-gpu resmem", "  57a0001000-57a0001fff : odd\x1b[2J",
                "5800000000-5fffffffff : x"]))
            out = t.run("status", "9:1:0.0", env={"COLUMNS": "100"}).stdout
            lines = out.splitlines()
            self.assertEqual(lines[0], f"{G1}  GH200 480GB  10de:2345  in-use")
            edges = [line.split()[0] for line in lines if line.endswith("-+")]
            self.assertEqual(edges, ["0x4000000000", "0x57a0000000", "0x57f0000000"])
            self.assertRegex(out, r"\| usemem +\|  BAR4, 128 GiB\n.*\| 94\.50 GiB +\|  mappable, write-back")
            self.assertRegex(out, r"\| resmem +\|  BAR2, 2 GiB\n.*\| 1\.25 GiB +\|  mappable, non-cacheable")
            self.assertRegex(out, r"BAR4 +\[#+\.+\] 94\.50 GiB of 128 GiB; the rest reads as ones")
            self.assertRegex(out, r"BAR0 +16 MiB at 0x661000000000")
            self.assertIn("by process 10 (qemu), /dev/vfio/12", out)
            self.assertIn("57a0001000-57a0001fff : odd?[2J", out)
            self.assertNotIn("5800000000", out)
            self.assertNotIn("\x1b", out)

    def test_scrubbing(self):
        with Tree() as t:
            t.bound(G1)
            self.assertNotIn("scrub", t.run("status", G1).stdout)
            size = SIZES["usemem_size"] + SIZES["resmem_size"]
            d = f"/sys/bus/pci/devices/{G1}/nvgrace_gpu"
            for state, progress, text in (
                    ("off", 0, "off: GPU memory is not cleared"), ("unknown", 0, "unknown: not scrubbed since"),
                    ("scrubbing", 0, "scrubbing: 0 %"), ("scrubbing", size // 2, "scrubbing: 50 %"),
                    ("scrubbing", size - 1, "scrubbing: 99 %"), ("scrubbing", size + 1, "scrubbing\n"),
                    ("scrubbing", "x", "scrubbing\n"), ("clean", size, "clean: all zeros"), ("dirty", size, "dirty: opened"),
                    ("failed", 7, "failed: see the kernel's log"), ("later", 7, "later\n")):
                t.file(f"{d}/scrub_state", state).file(f"{d}/scrub_progress", progress)
                self.assertRegex(t.run("status", G1).stdout, rf"\n  scrub +{text}", state)
            self.assertEqual(t.json("status", G1)["gpu"]["scrub_state"], "later")

    def test_last_scrub(self):
        """When it ended, how and how long it took, and when the memory was
        read back."""
        with Tree() as t:
            t.bound(G1, scrub_state="off", scrub_count=0, scrub_result="none", scrub_time=0, scrub_ms=0)
            none = {"count": 0, "result": None, "time": None, "milliseconds": None, "verified_time": None}
            self.assertEqual(t.json("status", G1)["gpu"]["last_scrub"], none)
            self.assertNotIn("last scrub", t.run("status", G1).stdout)
            d = f"/sys/bus/pci/devices/{G1}/nvgrace_gpu"
            t.file(f"{d}/scrub_count", 3).file(f"{d}/scrub_time", 1795564812).file(f"{d}/scrub_ms", 1234)
            for result in ("clean", "failed"):
                t.file(f"{d}/scrub_result", result)
                self.assertRegex(t.run("status", G1).stdout, rf"\n  last scrub {result}, 2026-11-25 00:00:12 UTC, 1\.234 s\n")
            self.assertEqual(t.json("list")["gpus"][0]["last_scrub"], {
                "count": 3, "result": "failed", "time": 1795564812, "milliseconds": 1234, "verified_time": None})
            for text, time in (('{"time": 1795564813}', 1795564813), ("{", None), ("[]", None), ('{"time": -1}', None),
                               ('{"time": "x"}', None), ("{}", None)):
                t.file(f"/run/nvgrace-gpu/{G1}.json", text)
                self.assertEqual(t.json("status", G1)["gpu"]["last_scrub"]["verified_time"], time, text)
                shown = "\n  read zeros 2026-11-25 00:00:13 UTC\n" in t.run("status", G1).stdout
                self.assertEqual(shown, time is not None)
            t.file(f"{d}/scrub_time", 1 << 60)
            self.assertIn("last scrub failed, ?, 1.234 s", t.run("status", G1).stdout)

    def test_width(self):
        with Tree() as t:
            t.bound(G1)
            for columns in ("1", "80", "100", "1000", "rubbish", ""):
                out = t.run("status", G1, env={"COLUMNS": columns}).stdout
                limit = 110 if columns in ("100", "1000") else 80
                self.assertLessEqual(max(map(len, out.splitlines())), limit, columns)

    def test_tail_of_a_page(self):
        with Tree() as t:
            t.bound(G1, resmem_size=0x50001235).file("/answers/page-size", "65536")
            document = t.json("status", G1)
            self.assertEqual([(m["part"], m["start"], m["size"], m["mappable"]) for m in document["memory_map"]], [
                ("usemem", "0x4000000000", 0x17A0000000, True), ("resmem", "0x57a0000000", 0x50000000, True),
                ("resmem", "0x57f0000000", 0x1235, False)])
            self.assertIn("less than a page: not mappable", t.run("status", G1).stdout)

    def test_json(self):
        with Tree() as t:
            t.bound(G1).file("/proc/iomem", "4000000000-579fffffff : nvgrace-gpu usemem")
            document = t.json("status", G1)
            self.assertEqual(document["features"], ["iommufd", "pmd_pfnmap", "uncached_guest"])
            self.assertEqual(document["own_bars"],
                             [{"bar": 0, "start": "0x661000000000", "size": 16 << 20, "hidden": False}])
            self.assertEqual(document["iomem"],
                             [{"start": "0x4000000000", "end": "0x579fffffff", "name": "nvgrace-gpu usemem"}])
            t.file(f"/sys/bus/pci/drivers/{OURS}/features", "none")
            self.assertEqual(t.json("status", G1)["features"], [])

    def test_hidden_bars(self):
        """status reports each BAR of the device that a fake BAR hides from the
        guest."""
        bars = "\n".join(["0x0000661000000000 0x0000661000ffffff 0x000000000014220c", "0x0 0x0 0x0",
                          "0x0000662000000000 0x0000662000ffffff 0x000000000014220c", "0x0 0x0 0x0",
                          "0x0000663000000000 0x0000663001ffffff 0x000000000014220c", "0x0 0x0 0x0"])
        with Tree() as t:
            t.bound(G1).device(G2, driver="vfio-pci")
            for address in (G1, G2):
                t.file(f"/sys/bus/pci/devices/{address}/resource", bars)
            self.assertEqual([(b["bar"], b["hidden"]) for b in t.json("status", G1)["own_bars"]],
                             [(0, False), (2, True), (4, True)])
            self.assertEqual([b["hidden"] for b in t.json("status", G2)["own_bars"]], [False] * 3)
            out = t.run("status", G1, env={"COLUMNS": "100"}).stdout
            self.assertRegex(out, r"BAR2 +16 MiB at 0x662000000000, the device's own; a guest sees resmem instead\n")
            self.assertRegex(out, r"BAR4 +32 MiB at 0x663000000000, the device's own; a guest sees usemem instead\n")
            self.assertRegex(out, r"BAR0 .*the device's own\n")
            # Without the MIG defect, the guest has the device's BAR2.
            for name in ("resmem_size", "resmem_bar_size", "resmem_base"):
                (t.root / f"sys/bus/pci/devices/{G1}/nvgrace_gpu/{name}").unlink()
            t.file(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/mode", "no-carve-out")
            self.assertEqual([b["hidden"] for b in t.json("status", G1)["own_bars"]], [False, False, True])

    def test_all(self):
        """Without an address, the output is that of all GPUs, one after the
        other."""
        with Tree() as t:
            t.bound(G1).device(G2, group=13)
            self.assertEqual(t.run("status").stdout, "\n".join(t.run("status", a).stdout for a in (G1, G2)))
            document = t.json("status")
            for one in document["gpus"]:
                self.assertEqual({"schema": 1, "command": "status", **one}, t.json("status", one["gpu"]["address"]))
            self.assertEqual([one["gpu"]["address"] for one in document["gpus"]], [G1, G2])
        with Tree() as t:
            done = t.run("status")
            self.assertEqual((done.returncode, done.stdout), (0, ""))
            self.assertIn("no supported GPU", done.stderr)
            self.assertEqual(t.json("status")["gpus"], [])

    def test_unbound(self):
        with Tree() as t:
            t.device(G1)
            document = t.json("status", G1)
            self.assertEqual((document["features"], document["memory_map"], document["iomem"]), (None, [], None))
            self.assertIn(f"Not bound to {OURS}", t.run("status", G1).stdout)

    def test_readiness(self):
        with Tree() as t:
            for word, text in (("ready", "ready"), ("unknown", "no access since"), ("failed", "did not become ready")):
                if word == "ready":
                    t.bound(G1, readiness=word)
                else:
                    t.file(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/readiness", word)
                self.assertRegex(t.run("status", G1).stdout, rf"readiness.*{text}")


class Addresses(unittest.TestCase):
    def status(self, t, typed):
        done = t.run("status", typed)
        return done.returncode, (done.stdout or done.stderr).splitlines()[0]

    def test_short_ones(self):
        with Tree() as t:
            t.device(G1).device("0009:01:00.1", "0x1234").device("0019:02:00.0")
            for typed in (G1, "01:00.0", "1:0.0", "9:1:0.0", "0009:1:0.0"):
                self.assertEqual(self.status(t, typed), (0, f"{G1}  GH200 480GB  10de:2345  unbound"), typed)
            t.device("0019:01:00.0")
            code, line = self.status(t, "01:00.0")
            self.assertEqual((code, line), (2, f"nvgrace-gpu: 01:00.0: matches {G1}, {G2}; add the domain"))
            self.assertEqual(self.status(t, G1)[0], 0)

    def test_nonsense(self):
        with Tree() as t:
            t.device(G1)
            for typed in ("", "gpu0", "01:00", "01:00.8", "01:20.0", "0009:01:00.0 ", "0009:01:00.0/", "x0009:01:00.0",
                          "::.", "-1:00.0", "9:9:9:9.0", "000000009:01:00.0", "../../x", "01:00.0\n", "é:00.0",
                          ":" * 5000):
                done = t.run("status", "--", typed)
                self.assertEqual(done.returncode, 2, typed)
                self.assertIn("not a PCI address", done.stderr)

    def test_no_such_device(self):
        with Tree() as t:
            t.device(G1).device("0000:00:01.0", "0x1533", "0x8086")
            self.assertEqual(self.status(t, "0000:05:00.0")[0], 3)
            code, line = self.status(t, "0000:00:01.0")
            self.assertEqual(code, 3)
            self.assertIn("8086:1533 is not a GPU that this driver supports", line)


class Refusals(unittest.TestCase):
    """--dry-run refuses what the commands refuse without it."""

    def refused(self, t, *words, command="bind"):
        done = t.run(command, "--dry-run", *words)
        self.assertEqual(done.returncode, 4, done.stdout)
        document = t.json(command, "--dry-run", *words, status=4)
        self.assertEqual([r["result"] for r in document["results"] if r["exit_status"]], ["refused"])
        return done.stderr

    def test_in_use(self):
        with Tree() as t:
            t.device(G1, driver="vfio-pci").device(G2, group=13).process(10, "qemu-system-aar", "/dev/vfio/12")
            error = self.refused(t, G1, G2)
            self.assertEqual(error, f"nvgrace-gpu: {G1}: in use: process 10 (qemu-system-aar) has /dev/vfio/12; "
                                    "shut down that virtual machine\n")
            # The other GPU could still be bound.
            results = t.json("bind", "--dry-run", G1, G2, status=4)["results"]
            self.assertEqual([r["result"] for r in results], ["refused", "planned"])

    def test_memory_online_by_nvidia(self):
        with Tree() as t:
            t.device(G1, driver="nvidia").device(G2).numa_node(0, 16, cpus="0-71").numa_node(4, 2048, 2049)
            t.file(f"/proc/driver/nvidia/gpus/{G1}/numa_status", "Node:  4\nStatus:  online")
            t.file("/proc/iomem", "80000000-87ffffff : System RAM\n4000000000-57ffffffff : System RAM (NVIDIA)")
            error = self.refused(t, G1)
            self.assertIn("its memory is online as System RAM of this host", error)
            self.assertIn("for s in /sys/devices/system/node/node4/memory*/state; do echo offline > $s; done", error)
            self.assertEqual(t.run("bind", "--dry-run", G2).returncode, 0)
            # Only root can read addresses. What the driver reports is enough.
            t.file("/proc/iomem", "0-0 : System RAM\n0-0 : System RAM (NVIDIA)")
            t.file("/sys/devices/system/memory/block_size_bytes", "x")
            self.assertIn("node/node4/memory*/state", self.refused(t, G1))
            (t.root / "sys/devices/system/memory/block_size_bytes").unlink()
            self.assertIn("node/node4/memory*/state", self.refused(t, G1))

    def no_command(self, t, *words):
        """Checks that the message has no command that takes memory offline,
        because that may be the host's."""
        error = self.refused(t, *(words or (G1,)))
        self.assertNotIn("offline >", error)
        self.assertNotIn("memory*", error)
        self.assertIn("is online", error)
        self.assertIn(f"nvgrace-gpu bind --boot-only {G1}", error)

    def test_no_remedy_for_memory_that_may_be_the_hosts(self):
        ranges = "80000000-87ffffff : System RAM\n4000000000-400fffffff : System RAM (NVIDIA)"
        online = f"/proc/driver/nvidia/gpus/{G1}/numa_status"

        def tree(t, *nodes):
            t.device(G1).numa_node(0, 16, cpus="0-71").file("/proc/iomem", ranges)
            for n, *blocks in nodes:
                t.numa_node(n, *blocks)
            return t

        with Tree() as t:       # sysfs has no nodes
            self.no_command(t.device(G1).file("/proc/iomem", ranges))
        with Tree() as t:       # no node without processors
            self.no_command(tree(t))
        with Tree() as t:       # a node with memory beyond the range, as of CXL
            self.no_command(tree(t, (1, 4096, 4097)))
        with Tree() as t:       # a node with some memory beyond the range
            self.no_command(tree(t, (1, 2048, 4097)))
        with Tree() as t:       # two such nodes
            self.no_command(tree(t, (1, 2048), (2, 2049)))
        with Tree() as t:       # another NVIDIA GPU, whose memory it may be
            tree(t, (1, 2048, 2049)).device("0001:01:00.0", "0x2330").file("/sys/bus/pci/devices/0001:01:00.0/class",
                                                                           "0x030200")
            self.no_command(t)
        with Tree() as t:       # the driver reports a node of the host
            self.no_command(tree(t, (1, 2048, 2049)).file(online, "Node: 0\nStatus: online"))
        with Tree() as t:       # the driver reports none
            self.no_command(tree(t, (1, 4096)).file(online, "Node: -1\nStatus: online"))
        with Tree() as t:       # the driver reports one that does not exist
            self.no_command(tree(t).file(online, "Node: 7\nStatus: online"))
        with Tree() as t:       # the driver reports it for two GPUs
            tree(t, (1, 2048, 2049)).file(online, "Node: 1\nStatus: online").device(G2)
            t.file(f"/proc/driver/nvidia/gpus/{G2}/numa_status", "Node: 1\nStatus: online")
            self.no_command(t)

    def test_memory_offline(self):
        with Tree() as t:
            t.device(G1, driver="nvidia")
            t.file(f"/proc/driver/nvidia/gpus/{G1}/numa_status", "Node: -1\nStatus: offline \t")
            self.assertEqual(t.run("bind", "--dry-run", G1).returncode, 0)

    def test_memory_left_online(self):
        """The driver that added the memory is no longer loaded. With one GPU,
        it is that GPU's."""
        with Tree() as t:
            t.device(G1)
            t.file("/proc/iomem", "80000000-ffffffff : System RAM\n4000000000-57ffffffff : System RAM (NVIDIA)")
            t.numa_node(0, 16, cpus="0-71").numa_node(1, 2048, 2049).numa_node(2, kib=0)
            t.file("/sys/devices/system/node/possible", "0-7")
            error = self.refused(t, G1)
            self.assertIn("4000000000-57ffffffff, System RAM (NVIDIA)", error)
            self.assertIn("node/node1/memory*/state", error)

    def test_memory_of_a_bound_gpu(self):
        """The driver has the GPU, but the host uses the same memory."""
        with Tree() as t:
            t.bound(G1).file("/proc/iomem", "80000000-ffffffff : System RAM\n4000000000-57ffffffff : System RAM (other)")
            self.assertEqual(t.states(), {G1: "memory-online"})
            t.file("/proc/iomem", "80000000-ffffffff : System RAM\n5800000000-59ffffffff : System RAM (other)")
            self.assertEqual(t.states(), {G1: "bound"})

    def test_ordinary_memory_is_nobodys(self):
        with Tree() as t:
            t.device(G1).file("/proc/iomem", "80000000-ffffffff : System RAM\n100000000-1ffffffff : System RAM (kmem)")
            self.assertEqual(t.run("bind", "--dry-run", G1).returncode, 0)

    def test_nothing_binds_at_boot(self):
        """Without the udev rule and its program, the command refuses to bind at
        boot. It still unbinds, and binds now."""
        with Tree() as t:
            t.device(G1).file(f"/etc/nvgrace-gpu.conf.d/{G1}.conf", f"bind {G1}")
            for word in ("--persist", "--boot-only"):
                error = self.refused(t, word, G1)
                self.assertIn("can't be bound at boot: the udev rule", error)
                self.assertIn("install nvgrace-gpu-vfio-pci-dkms", error)
                self.assertEqual(t.run("unbind", "--dry-run", word, G1).returncode, 0)
            self.assertEqual(t.run("bind", "--dry-run", G1).returncode, 0)
            t.package()
            self.assertEqual(t.run("bind", "--dry-run", "--persist", G1).returncode, 0)

    def test_virtual_functions(self):
        with Tree() as t:
            t.package().device(G1, driver="nvidia").file(f"/sys/bus/pci/devices/{G1}/sriov_numvfs", "2\n")
            function = "0009:01:00.4"
            t.device(function).link(f"/sys/bus/pci/devices/{function}/physfn", f"../{G1}")
            said = self.refused(t, G1)
            self.assertIn("2 of its virtual functions (SR-IOV) are on", said)
            self.assertIn(f'run "echo 0 > /sys/bus/pci/devices/{G1}/sriov_numvfs"', said)
            self.assertEqual([g["address"] for g in t.json("list")["gpus"]], [G1])
            done = t.run("bind", "--dry-run", function)
            self.assertEqual(done.returncode, 3)
            self.assertIn(f"{function}: a virtual function (SR-IOV)", done.stderr)
            # This driver doesn't bind a GPU with functions on, but one that is bound can have got some.
            t.file(f"/sys/bus/pci/devices/{G1}/sriov_numvfs", "0\n")
            self.assertEqual(t.run("bind", "--dry-run", G1).returncode, 0)

    def test_configuration(self):
        with Tree() as t:
            t.package().bound(G1).file("/etc/nvgrace-gpu.conf", f"# nothing\nignore {G1}")
            self.assertIn("/etc/nvgrace-gpu.conf:2 ignores it at boot", self.refused(t, "--persist", G1))
            own = f"/etc/nvgrace-gpu.conf.d/{G1}.conf"
            t.file("/etc/nvgrace-gpu.conf").file(own, f"bind {G1}\nbind {G2}")
            self.assertIn(f"{own}:2 was not written by", self.refused(t, "--persist", G1, command="unbind"))
            t.file(own, "rubbish")
            self.assertIn(f"{own} exists, but does not bind it", self.refused(t, "--persist", G1))
            self.assertIn(f"{own}:1 was not written by", self.refused(t, "--boot-only", G1, command="unbind"))
            t.file(own, f"bind {G1}\n".encode() + b"\0bind all\n")
            self.assertIn(f"{own} has NUL bytes", self.refused(t, "--boot-only", G1, command="unbind"))


class Steps(unittest.TestCase):
    def steps(self, t, *words):
        result, = t.json(words[0], "--dry-run", *words[1:])["results"]
        return result["steps"]

    def test_bind(self):
        with Tree() as t:
            t.package().device(G1, driver="nouveau")
            d = f"/sys/bus/pci/devices/{G1}"
            steps = [f"write {OURS} into {d}/driver_override", f"write {G1} into /sys/bus/pci/drivers/nouveau/unbind",
                     f"write {G1} into /sys/bus/pci/drivers_probe"]
            self.assertEqual(self.steps(t, "bind", G1), ["load the module nvgrace-gpu-vfio-pci", *steps])
            t.file(f"/sys/bus/pci/drivers/{OURS}/bind")
            self.assertEqual(self.steps(t, "bind", G1), steps)
            own = f"write /etc/nvgrace-gpu.conf.d/{G1}.conf"
            self.assertEqual(self.steps(t, "bind", "--persist", G1), [*steps, own])
            self.assertEqual(self.steps(t, "bind", "--boot-only", G1), [own])
            self.assertEqual(t.run("bind", "-n", G1).stdout.splitlines(), [f"{G1}: would", *("  " + s for s in steps)])
            self.assertFalse((t.root / "etc").exists())

    def test_bound_already(self):
        with Tree() as t:
            t.bound(G1)
            self.assertEqual(self.steps(t, "bind", G1), [])
            self.assertEqual(t.run("bind", "-n", G1).stdout, f"{G1}: nothing to do\n")

    def test_unbind(self):
        with Tree() as t:
            t.bound(G1).device(G2, driver="nouveau")
            d = f"/sys/bus/pci/devices/{G1}"
            steps = [f"clear {d}/driver_override", f"write {G1} into /sys/bus/pci/drivers/{OURS}/unbind"]
            probe = f"write {G1} into /sys/bus/pci/drivers_probe"
            self.assertEqual(self.steps(t, "unbind", G1), [*steps, probe])
            self.assertEqual(self.steps(t, "unbind", "--no-probe", G1), steps)
            self.assertEqual(self.steps(t, "unbind", "--all"), [*steps, probe])
            self.assertEqual(self.steps(t, "unbind", G2), [])

    def test_left_over_override(self):
        with Tree() as t:
            t.device(G1, override=OURS).device(G2, driver="nouveau", override=OURS)
            self.assertEqual(len(self.steps(t, "unbind", G1)), 2)
            self.assertEqual(self.steps(t, "unbind", G2), [f"clear /sys/bus/pci/devices/{G2}/driver_override"])

    def test_persisted_by_others(self):
        with Tree() as t:
            t.package().bound(G1).file("/etc/nvgrace-gpu.conf.d/50-all.conf", "bind all")
            result, = t.json("bind", "--dry-run", "--persist", G1)["results"]
            self.assertEqual((result["boot"], result["steps"]), ("already-persisted", []))
            result, = t.json("unbind", "--dry-run", "--boot-only", G1)["results"]
            self.assertEqual(result["boot"], "still-persisted")
            t.file(f"/etc/nvgrace-gpu.conf.d/{G1}.conf", f"bind {G1}")
            result, = t.json("unbind", "--dry-run", "--boot-only", G1)["results"]
            self.assertEqual((result["boot"], result["steps"]),
                             ("still-persisted", [f"remove /etc/nvgrace-gpu.conf.d/{G1}.conf"]))

    def test_changed(self):
        """"changed" is true if the command would change something."""
        with Tree() as t:
            t.package().bound(G1).device(G2, group=13)

            def changed(*words, status=0):
                document = t.json(words[0], "--dry-run", *words[1:], status=status)
                self.assertEqual(document["changed"], any(r["changed"] for r in document["results"]))
                return [r["changed"] for r in document["results"]]

            self.assertEqual(changed("bind", G1, G2), [False, True])
            self.assertEqual(changed("bind", "--persist", G1), [True])
            self.assertEqual(changed("unbind", G1, G2), [True, False])
            t.process(10, "qemu", "/dev/vfio/12")
            self.assertEqual(changed("unbind", G1, status=4), [False])

    def test_an_added_id(self):
        """A GPU whose id only the configuration has is one of the GPUs."""
        with Tree() as t:
            t.device(G1, device="0x297e").package()
            self.assertEqual(t.json("list")["gpus"], [])
            self.assertEqual(t.run("bind", "-n", G1).returncode, 3)
            for number, word in enumerate(("10de:297e", "10DE:297E")):
                t.file("/etc/nvgrace-gpu.conf.d/ids.conf", f"bind all\nid {word}")
                gpu = t.json("list")["gpus"][0]
                self.assertEqual((gpu["address"], gpu["product"]), (G1, "GPU of an added id"), number)
            self.assertEqual(t.run("bind", "-n", G1).returncode, 0)
            for word in ("", "297e", "10de:297", "8086:297e", "10de:297e x"):
                t.file("/etc/nvgrace-gpu.conf.d/ids.conf", f"id {word}")
                self.assertEqual(t.json("list")["gpus"], [])
                found = [f for f in json.loads(t.run("doctor", "--json").stdout)["findings"] if f["id"] == "configuration"]
                self.assertIn("needs exactly one id of NVIDIA", found[0]["reason"])

    def test_initramfs(self):
        with Tree() as t:
            t.package().bound(G1)
            tools = "/usr/sbin/update-initramfs -u -k all"
            dracut = "/usr/bin/dracut --regenerate-all --force"

            def command(*words):
                part = t.json("bind", "-n", "--persist", G1, *words)["initramfs"]
                return part and part["command"]

            t.file("/usr/sbin/update-initramfs").file("/usr/bin/dracut")
            self.assertIsNone(command())            # nothing from the packages
            t.file("/usr/lib/dracut/modules.d/90nvgrace-gpu/module-setup.sh")
            self.assertEqual(command(), dracut)
            t.file("/usr/share/initramfs-tools/hooks/nvgrace-gpu")
            self.assertEqual(command(), dracut)     # dracut's update-initramfs
            t.file("/usr/sbin/mkinitramfs")
            self.assertEqual(command(), tools)
            self.assertIsNone(command("--no-initramfs"))
            done = t.run("bind", "-n", "--persist", "--no-initramfs", G1)
            self.assertEqual((done.returncode, done.stderr), (0, "nvgrace-gpu: the initramfs would keep the old configuration "
                                                             f'until you run "{tools}"\n'))
            t.file("/etc/nvgrace-gpu.conf", "bind all")
            self.assertIsNone(command())            # no change

    def test_all(self):
        with Tree() as t:
            done = t.run("bind", "--dry-run", "--all")
            self.assertEqual((done.returncode, done.stderr), (3, "nvgrace-gpu: no supported GPU on this host\n"))
            self.assertEqual(t.run("unbind", "--dry-run", "--all").returncode, 0)
            t.device(G1).device(G2)
            self.assertEqual(len(t.json("bind", "--dry-run", "--all")["results"]), 2)

    def test_twice_is_once(self):
        with Tree() as t:
            t.device(G1)
            self.assertEqual(len(t.json("bind", "--dry-run", G1, "1:0.0", G1)["results"]), 1)

    def test_one_wrong_address_stops_all(self):
        with Tree() as t:
            t.device(G1)
            document = t.json("bind", "--dry-run", G1, "0000:07:00.0", status=3)
            self.assertEqual(document["results"], [])

    def test_a_tree_is_not_changed(self):
        with Tree() as t:
            t.device(G1)
            for command in ("bind", "unbind"):
                done = t.run(command, G1)
                self.assertEqual(done.returncode, 2)
                self.assertIn("can't change a recorded tree; add --dry-run", done.stderr)


class Configuration(unittest.TestCase):
    def persisted(self, t):
        return {g["address"]: g["persisted"] and (pathlib.Path(g["persisted"]["file"]).name, g["persisted"]["line"])
                for g in t.json("list")["gpus"]}

    def test_lines(self):
        with Tree() as t:
            t.device(G1).device(G2)
            for text, binds in lines.GOOD.items():
                t.file("/etc/nvgrace-gpu.conf", text.encode())
                self.assertEqual(tuple(map(bool, self.persisted(t).values())), binds, text)
                self.assertEqual(t.run("list").stderr.count("\n"), "\0" in text, text)

    def test_malformed_lines(self):
        with Tree() as t:
            t.device(G1)
            for text in lines.BAD:
                t.file("/etc/nvgrace-gpu.conf", f"{text}\nbind {G1}".encode())
                done = t.run("list")
                self.assertIn("nvgrace-gpu: /etc/nvgrace-gpu.conf:1: ", done.stderr, text)
                self.assertEqual(done.stderr.count("\n"), 1, text)
                self.assertNotIn("\x1b", done.stderr)
                self.assertEqual(self.persisted(t), {G1: ("nvgrace-gpu.conf", 2)}, text)

    def test_which_files(self):
        with Tree() as t:
            t.device(G1)
            for name in (".hidden.conf", "x.conf~", "conf", ".conf", "x.conf.dpkg-old"):
                t.file(f"/etc/nvgrace-gpu.conf.d/{name}", "bind all")
            self.assertEqual(self.persisted(t), {G1: None})
            t.file("/etc/nvgrace-gpu.conf.d/x.conf", b"bind all")  # no newline
            self.assertEqual(self.persisted(t), {G1: ("x.conf", 1)})

    def test_unreadable(self):
        with Tree() as t:
            t.device(G1)
            (t.root / "etc/nvgrace-gpu.conf").mkdir(parents=True)
            self.assertIn("/etc/nvgrace-gpu.conf: can't be read: Is a directory", t.run("list").stderr)
            t.file("/etc/nvgrace-gpu.conf.d/nul.conf", b"bind all\0\nignore all\n")
            self.assertIn("has NUL bytes", t.run("list").stderr)


class Takeover(unittest.TestCase):
    """bind refuses the same GPUs as the udev rule's program, by one table."""

    def test_table(self):
        for case in takeover.CASES:
            with self.subTest(case.name), Tree() as t:
                case.build(t.root)
                done = t.run("bind", "--dry-run", takeover.GPU)
                expected = {"taken": (0, ""), "in use": (4, "in use: "), "online": (4, "its memory is online")}
                status, word = expected[case.verdict]
                self.assertEqual(done.returncode, status, done.stdout + done.stderr)
                self.assertIn(word, done.stderr)
                if case.names:
                    self.assertIn(case.names, done.stderr)


class Links(unittest.TestCase):
    """Links of a record stay inside the record, and lead there to what they
    named on the host."""

    def build(self, t):
        t.device(G1)
        d = f"/sys/bus/pci/devices/{G1}"
        secret = pathlib.Path(tempfile.mkdtemp(prefix="outside-"))
        self.addCleanup(lambda: (secret.joinpath("numa_node").unlink(), secret.rmdir()))
        (secret / "numa_node").write_text("7\n")
        return d, secret

    def node(self, t):
        document = json.loads(t.run("list", "--json").stdout)
        return document["gpus"][0]["numa_node"]

    def test_links(self):
        with Tree() as t:
            d, secret = self.build(t)
            place = t.root / f"{d.lstrip('/')}/numa_node"
            for target in (f"{secret}/numa_node", "../" * 40 + f"{secret}/numa_node"):
                place.unlink()
                place.symlink_to(target)
                self.assertIsNone(self.node(t), target)
            # A link to a directory outside.
            place.unlink()
            place.symlink_to("../away/numa_node")
            (place.parent.parent / "away").symlink_to(secret)
            self.assertIsNone(self.node(t))
            # Absolute links, and links with more ".." than the path has
            # components.
            t.file("/opt/node", "5")
            for target in ("/opt/node", "../" * 40 + "opt/node", "//opt/./../opt/node"):
                place.unlink()
                place.symlink_to(target)
                self.assertEqual(self.node(t), 5, target)
            # A link to itself.
            place.unlink()
            place.symlink_to("numa_node")
            self.assertIsNone(self.node(t))
            # A link to a directory inside, as in /sys.
            place.unlink()
            place.write_text("3\n")
            real = t.root / "sys/devices/pci0009:00"
            real.mkdir(parents=True)
            place.parent.rename(real / G1)
            place.parent.symlink_to(f"/sys/devices/pci0009:00/{G1}")
            self.assertEqual(self.node(t), 3)
            # Lists of names, and whether a file exists.
            t.link("/sys/bus/pci/slots", str(secret))
            t.link("/usr/lib/udev", "/")
            self.assertEqual(t.run("status", G1).returncode, 0)

    def test_device_files_are_not_opened(self):
        with Tree() as t:
            t.device(G1)
            (t.root / f"sys/bus/pci/devices/{G1}/numa_node").unlink()
            t.node(f"/sys/bus/pci/devices/{G1}/numa_node", 1, 5)  # /dev/zero
            self.assertIsNone(self.node(t))

    def test_page_sizes(self):
        """Arm has three page sizes. Any other size in a record counts as
        4096."""
        for text, tail in (("4096", 0x235), ("16384", 0x1235), ("65536", 0x1235), ("1", 0x235), ("3", 0x235),
                           ("0", 0x235), ("8192", 0x235), ("18446744073709551615", 0x235), ("4096 x", 0x235)):
            with Tree() as t:
                t.bound(G1, resmem_size=0x50001235).file("/answers/page-size", text)
                pieces = t.json("status", G1)["memory_map"]
                self.assertEqual([p["size"] for p in pieces if not p["mappable"]], [tail], text)
                self.assertIn(t.run("doctor").returncode, (0, 6, 7), text)


class Wait(unittest.TestCase):
    def wait(self, t, *words):
        return t.run("wait", "--timeout=0", *words)

    def test_bound_and_ready(self):
        with Tree() as t:
            t.bound(G1).device(G2, group=13)
            done = self.wait(t, G1)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{G1}: bound and ready\n", ""))
            done = self.wait(t, G1, G2)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertEqual(done.stderr, f'nvgrace-gpu: {G2}: not bound to a driver; see "nvgrace-gpu doctor {G2}"\n')

    def test_what_is_not_enough(self):
        with Tree() as t:
            t.bound(G1, readiness="failed").device(G2, driver="nouveau", group=13)
            self.assertIn("its memory is not ready", self.wait(t, G1).stderr)
            self.assertIn("bound to nouveau", self.wait(t, G2).stderr)
            t.file(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/readiness", "unknown")
            self.assertEqual(self.wait(t, G1).returncode, 0)
            # The link to the driver exists before the bind ends.
            (t.root / f"sys/bus/pci/devices/{G1}/nvgrace_gpu/mode").unlink()
            self.assertIn("still being bound", self.wait(t, G1).stderr)
            # The kernel's driver of this name has none of these files.
            (t.root / f"sys/bus/pci/drivers/{OURS}/features").unlink()
            self.assertEqual(self.wait(t, G1).returncode, 0)

    def test_all_are_those_of_the_configuration(self):
        with Tree() as t:
            t.bound(G1).device(G2, group=13)
            self.assertEqual(self.wait(t, "--all").stdout, "the configuration binds no present GPU\n")
            t.file("/etc/nvgrace-gpu.conf", f"bind {G1}\nbind 0029:01:00.0")
            self.assertEqual(self.wait(t, "--all").stdout, f"{G1}: bound and ready\n")
            t.file("/etc/nvgrace-gpu.conf.d/x.conf", "bind all")
            self.assertEqual(self.wait(t, "--all").returncode, 1)
            t.file("/etc/nvgrace-gpu.conf.d/y.conf", f"ignore {G2}")
            self.assertEqual(self.wait(t, "--all").returncode, 0)

    def test_it_waits(self):
        """wait ends as soon as the GPU is bound."""
        with Tree() as t:
            t.bound(G1)
            mode = t.root / f"sys/bus/pci/devices/{G1}/nvgrace_gpu/mode"
            mode.rename(t.root / "mode")
            process = subprocess.Popen([build(), "--root", t.root, "wait", "--timeout=600", G1],
                                       stdout=subprocess.PIPE, text=True)
            with self.assertRaises(subprocess.TimeoutExpired):
                process.wait(1)
            (t.root / "mode").rename(mode)
            self.assertEqual(process.communicate(timeout=600)[0], f"{G1}: bound and ready\n")
            self.assertEqual(process.returncode, 0)

    def test_it_gives_up(self):
        with Tree() as t:
            t.device(G1)
            done = t.run("wait", "-t", "1", G1)
            self.assertEqual(done.returncode, 1)


@pytest.mark.all
class Garbage(unittest.TestCase):
    """With missing files, or files of any content, the commands end with an
    exit status and without a finding of the sanitizers."""

    COMMANDS = (["list"], ["list", "--json"], ["status", G1], ["status", "--json", G1], ["bind", "-n", "--persist", G1],
                ["unbind", "-n", "--persist", G1], ["bind", "-n", "--all", "--json"], ["status"],
                ["wait", "--timeout=0", G1])

    def whole(self, t):
        t.bound(G1, scrub_state="scrubbing", scrub_progress=7).process(10, "qemu", "/dev/vfio/12", "anon_inode:[vfio-device]", fd4="x")
        t.file("/proc/iomem", "4000000000-579fffffff : nvgrace-gpu usemem\n  0-0 : x")
        t.file("/etc/nvgrace-gpu.conf", "bind all")
        t.file(f"/proc/driver/nvidia/gpus/{G1}/numa_status", "Status: offline")
        t.file(f"/proc/driver/nvidia/gpus/{G1}/information", "Device Minor: 0")
        t.file("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: 7 kB")
        t.file("/sys/bus/pci/slots/1/address", "0009:01:00")
        return sorted(p for p in t.root.rglob("*") if p.is_file() and not p.is_symlink())

    def try_all(self, t, what, commands=COMMANDS):
        for words in commands:
            done = t.run(*words, sanitized=True)
            self.assertIn(done.returncode, range(5), (what, words, done.stderr))
            if "--json" in words and done.stdout:
                validate(json.loads(done.stdout))
            self.assertNotIn("\x1b", done.stdout + done.stderr)

    def test_missing(self):
        """A host that lacks one file, for each of its files. The commands take
        turns."""
        with Tree() as t:
            for number, path in enumerate(self.whole(t)):
                content = path.read_bytes()
                path.unlink()
                self.try_all(t, path, self.COMMANDS[number % 3::3])
                path.write_bytes(content)

    def test_rubbish(self):
        numbers = random.Random(1)
        for round_ in range(6):
            with Tree() as t:
                for path in self.whole(t):
                    content = numbers.choice([
                        b"", b"\n", b"\0\0", b"-1\n", b"0x\n", b"99999999999999999999\n", b"0xffffffffffffffff\n",
                        b"1e9\n", b"18446744073709551615\n", b"\xff\xfe\x1b[2J\n", bytes(numbers.randbytes(300)),
                        b"A" * 70000, None])
                    if path.name in ("vendor", "device") and round_ % 2:
                        continue        # else the commands read only these two
                    if content is None:
                        path.unlink()
                        path.mkdir()
                    else:
                        path.write_bytes(content)
                self.try_all(t, f"round {round_}")

    def test_no_end(self):
        """The commands do not hang on files that block or have no end."""
        with Tree() as t:
            t.bound(G1)
            path = t.root / f"sys/bus/pci/devices/{G1}/numa_node"
            path.unlink()
            os.mkfifo(path)
            self.try_all(t, "fifo")
            path.unlink()
            path.symlink_to("/dev/zero")
            self.assertIsNone(t.json("list")["gpus"][0]["numa_node"])
            # No file is as long as this one, which has no blocks.
            t.file("/etc/nvgrace-gpu.conf")
            os.truncate(t.root / "etc/nvgrace-gpu.conf", 65 << 20)
            self.assertIn("nvgrace-gpu: /etc/nvgrace-gpu.conf: can't be read: File too large\n", t.run("list").stderr)



class Exercise(unittest.TestCase):
    """bench, test and scrub refuse the GPUs of a tree, which can't be opened.
    test_bench_in_machine.py and test_scrub_in_machine.py have the other reasons
    to refuse one."""

    def test_recorded_trees_are_refused(self):
        with Tree() as t:
            t.bound(G1).device(G2).device("0000:00:01.0", "0x1533", "0x8086")
            for command in ("bench", "test"):
                for address in (G1, G2, "9:1:0.0"):
                    done = t.run(command, "--yes", address)
                    self.assertEqual((done.returncode, done.stdout), (2, ""))
                    self.assertIn(f"can't open a GPU of a recorded tree; run \"nvgrace-gpu {command}\" without --root",
                                  done.stderr)
                for address, status, words in (("01:00.0", 2, "matches"), ("0000:00:01.0", 3, "not a GPU that this driver"),
                                               ("0049:01:00.0", 3, "no such PCI device"), ("x", 2, "not a PCI address")):
                    done = t.run(command, "--yes", address)
                    self.assertEqual((done.returncode, done.stdout), (status, ""), address)
                    self.assertIn(words, done.stderr)

    def test_nothing_of_a_tree_is_scrubbed(self):
        with Tree() as t:
            t.bound(G1, scrub_state="off", scrub_progress=0, scrub="")
            for words in (["--all"], [G1], ["--verify", "--json", G1]):
                done = t.run("scrub", *words)
                self.assertEqual((done.returncode, done.stdout), (2, ""), words)
                self.assertIn("can't scrub a GPU of a recorded tree", done.stderr)
            self.assertEqual((t.root / f"sys/bus/pci/devices/{G1}/nvgrace_gpu/scrub").read_text(), "\n")
