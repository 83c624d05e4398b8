# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu doctor, with ASan and UBSan, on records of good and broken hosts,
and on trees that describe no possible host."""

import functools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import unittest

import pytest

from cli.common import build, run, sanitizer_options, shown, validate
from cli.doctor_trees import unfold

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent

STATUS = {"good": 0, "unknown": 0, "note": 0, "warning": 6, "bad": 7}
HOSTS = unfold.hosts()
GPU = "0009:01:00.0"
# The words of remedies for which the checks fill in those of the host.
FILLED = "|".join(("install the headers of Linux RELEASE", "update-initramfs -u -k RELEASE.*vmlinuz",
                   " and update the initramfs", ": update it", "ADDRESS", "MODULES", "RELEASE", "UNITS", "VERSION", "XXXX"))

# setUpModule() makes it.
DIRECTORY = None


def setUpModule():
    global DIRECTORY  # pylint: disable=global-statement  # unittest gives setUpModule() nothing else
    DIRECTORY = tempfile.TemporaryDirectory(prefix="doctor-")
    # Another user than root also runs the program.
    os.chmod(DIRECTORY.name, 0o755)


def tearDownModule():
    DIRECTORY.cleanup()


def tree(name):
    root = pathlib.Path(DIRECTORY.name, name)
    if not root.exists():
        root.mkdir()
        unfold.unfold(HOSTS, name, root)
    return root


def findings(root, *words, sanitized=False):
    done = run("doctor", "--json", *words, root=root, sanitized=sanitized)
    document = json.loads(done.stdout)
    validate(document)
    return document["findings"], done


@functools.cache
def of_host(name):
    return findings(tree(name))


def explanations(*ids):
    document = json.loads(run("doctor", "--explain", "--json", *ids).stdout)
    validate(document)
    return document["explanations"]


class Findings(unittest.TestCase):
    def test_every_host(self):
        for name, host in HOSTS.items():
            with self.subTest(host=name, where=host.where):
                self.check(host, *of_host(name))

    def check(self, host, found, done):
        for e in host.expected:
            same = [f for f in found if f["id"] == e.finding and f["device"] == e.device]
            self.assertTrue(same, f"no finding {e.finding} of {e.device or 'the host'}")
            said = [f"{f['verdict']}: {f['text']} {f['reason'] or ''} {f['remedy'] or ''}".strip() for f in same]
            self.assertTrue(any(s.startswith(e.verdict + ": ") and re.search(e.pattern or "", s) for s in said), (e, said))
        for never in host.never:
            self.assertNotIn(never, [f["id"] for f in found])
        worst = max((0 if f["accepted"] else STATUS[f["verdict"]] for f in found))
        self.assertEqual(done.returncode, worst, done.stderr)
        self.assertEqual(worst, host.status, [f for f in found if STATUS[f["verdict"]] == worst])
        self.assertEqual(done.stderr, "")
        for f in found:
            self.assertEqual((f["reason"] is None, f["remedy"] is None), (f["verdict"] == "good",) * 2, f)
            self.assertNotRegex(f"{f['text']}{f['reason']}{f['remedy']}", r"\(null\)|%[sduz]|`|RELEASE|MODULES|UNITS", f)

    def test_each_case_has_a_host(self):
        """Hosts expect each verdict. Each case with a remedy is found, with that
        remedy in the host's words."""
        possible = {(e["id"], case["verdict"]) for e in explanations() for case in e["cases"]}
        self.assertEqual({(e.finding, e.verdict) for host in HOSTS.values() for e in host.expected}, possible)
        found = {(f["id"], f["verdict"], (f["remedy"] or "").replace('"', "")) for name in HOSTS for f in of_host(name)[0]}
        for e in explanations():
            for case in e["cases"]:
                parts = re.split(FILLED, (case["remedy"] or "").translate({ord("`"): None, ord('"'): None}))
                pattern = re.compile(".*".join(map(re.escape, parts)))
                self.assertTrue(any(f[:2] == (e["id"], case["verdict"]) and pattern.fullmatch(f[2]) for f in found), (e["id"], case))


class Explanations(unittest.TestCase):
    def test_remedies_are_for_what_is_not_good(self):
        for explanation in explanations():
            for case in explanation["cases"]:
                self.assertEqual(case["remedy"] is None, case["verdict"] == "good", (explanation["id"], case))

    def test_those_that_are_named(self):
        self.assertEqual([e["id"] for e in explanations("kvm", "qemu", "kvm")], ["kvm", "qemu"])
        text = run("doctor", "--explain", "kvm", "pci-errors").stdout
        self.assertEqual(re.findall(r"^#.*$", text, re.M), ["### kvm", "### pci-errors"])
        self.assertIn("\n| warning | at least one | run `dmesg \\| grep AER`; ", text)
        done = run("doctor", "--explain", "qemu", "kmv")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn('"kmv"', done.stderr)


class Output(unittest.TestCase):
    def test_text_says_what_json_says(self):
        found, done = findings(tree("bookworm"))
        plain = run("doctor", root=tree("bookworm"))
        self.assertEqual(plain.returncode, done.returncode)
        self.assertNotIn("\033", plain.stdout)
        lines = plain.stdout.splitlines()
        at = 0
        for f in found:
            where = f["device"] or "host"
            self.assertEqual(lines[at], f"{f['verdict']:7}  {where:12}  {f['id']}: {f['text']}")
            at += 1
            for word in "reason", "remedy":
                if f[word]:
                    self.assertEqual(lines[at], f"         {word}: {f[word]}")
                    at += 1
        counts = [sum(f["verdict"] == v for f in found) for v in ("bad", "warning", "note", "unknown", "good")]
        self.assertEqual(lines[at:], ["", "{} bad, {} warning, {} note, {} unknown, {} good; 0 accepted".format(*counts)])

    def test_limits_of_the_kernel_do_not_count(self):
        """A limit that only another kernel removes is a note. So the status on
        a distribution's kernel is 0."""
        found, done = findings(tree("bookworm-today"))
        notes = {f["id"] for f in found if f["verdict"] == "note"}
        self.assertEqual(notes, {"huge-mappings", "memory-errors", "peer-to-peer", "kernel-options", "kvm-usemem", "kvm-resmem",
                                 "guest-smmu"})
        self.assertEqual(done.returncode, 0)
        self.assertEqual(run("doctor", "--quiet", root=tree("bookworm-today")).stdout, "")

    def test_fail_on(self):
        for host, words, status in (("qemu-9.1", (), 6), ("qemu-9.1", ("--fail-on=warning",), 6),
                                    ("qemu-9.1", ("--fail-on", "bad"), 0), ("bookworm", ("--fail-on=bad",), 7),
                                    ("good", ("--fail-on=warning",), 0)):
            self.assertEqual(run("doctor", *words, root=tree(host)).returncode, status, (host, words))
        for word in "good", "unknown", "", "Bad":
            self.assertEqual(run("doctor", f"--fail-on={word}", root=tree("good")).returncode, 2, word)

    def test_accepted_is_said_but_quiet(self):
        found, _ = findings(tree("accepted"))
        accepted = [f for f in found if f["accepted"]]
        self.assertEqual([(f["id"], f["verdict"], f["accepted"]) for f in accepted],
                         [("qemu", "warning", "/etc/nvgrace-gpu.accept:2")])
        done = run("doctor", root=tree("accepted"))
        self.assertIn(f"qemu: {accepted[0]['text']} (accepted by /etc/nvgrace-gpu.accept:2)\n", done.stdout)
        self.assertTrue(done.stdout.endswith("; 1 accepted\n"))
        self.assertEqual(run("doctor", "-q", root=tree("accepted")).stdout, "")
        # A line for a GPU that is not checked is no mistake.
        found, _ = findings(tree("accepted-of-one-gpu"), GPU)
        self.assertEqual([f["verdict"] for f in found if f["id"] == "accepted"], ["good"])
        root = pathlib.Path(DIRECTORY.name, "accepted-elsewhere")
        shutil.copytree(tree("four"), root, symlinks=True)
        (root / "etc/nvgrace-gpu.accept").write_text(f"pci-errors warning {GPU}\n")
        found, _ = findings(root, "0019:01:00.0")
        self.assertNotIn("note", [f["verdict"] for f in found if f["id"] == "accepted"])
        found, _ = findings(root, GPU)
        self.assertEqual([f["verdict"] for f in found if f["id"] == "accepted"], ["note"])

    def test_quiet_is_for_what_is_wrong(self):
        found, done = findings(tree("bookworm"), "--quiet")
        self.assertEqual({f["verdict"] for f in found}, {"warning", "bad"})
        self.assertEqual(done.returncode, 7)
        done = run("doctor", "-q", root=tree("good"))
        self.assertEqual((done.stdout, done.stderr, done.returncode), ("", "", 0))

    def test_only_the_devices_named(self):
        found, _ = findings(tree("four"), "19:1:0.0")
        self.assertEqual({f["device"] for f in found}, {None, "0019:01:00.0"})
        found, _ = findings(tree("four"))
        self.assertEqual({f["device"] for f in found}, {None, GPU, "0019:01:00.0"})

    def test_json_has_its_version(self):
        document = json.loads(run("doctor", "-j", root=tree("good")).stdout)
        self.assertEqual((document["schema"], document["command"]), (1, "doctor"))

    def test_colour_is_for_terminals(self):
        for env, coloured in (({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
            leader, follower = os.openpty()
            subprocess.run([build(), "--root", tree("good"), "doctor"], stdout=follower,
                           env={**env, **sanitizer_options()}, check=True)
            os.close(follower)
            out = b"".join(shown(leader))
            os.close(leader)
            self.assertIn(b"gpus", out)
            self.assertEqual(b"\033[" in out, coloured, env)

    def test_no_control_characters(self):
        root = pathlib.Path(DIRECTORY.name, "escapes")
        shutil.copytree(tree("unbound"), root, symlinks=True)
        device = root / "sys/bus/pci/devices" / GPU
        (device / "driver_override").write_bytes(b"\033[31mred\x9b\n")
        (root / "etc/nvgrace-gpu.conf").write_bytes(b"bind \033]0;title\007\n")
        (root / "answers/qemu").write_bytes(b"/usr/bin/\033[2J: QEMU 11.0\n")
        for words in ("doctor",), ("doctor", "--json"):
            out = run("--root", root, *words).stdout
            self.assertTrue(all(c == "\n" or " " <= c <= "~" for c in out), repr(out))


class BadInput(unittest.TestCase):
    def complains(self, status, *words):
        done = run(*words)
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        self.assertTrue(done.stderr.startswith("nvgrace-gpu: "), done.stderr)
        return done.stderr

    def test_addresses(self):
        self.complains(3, "--root", tree("good"), "doctor", "0001:02:03.4")
        self.assertIn("not a GPU that this driver supports", self.complains(
            3, "--root", tree("shared-with-host"), "doctor", "0009:01:00.1"))

    def test_record(self):
        self.assertIn("--root", self.complains(2, "--root", tree("good"), "doctor", "--record", "x"))
        self.assertIn("exist", self.complains(2, "doctor", "--record", DIRECTORY.name))
        self.assertIn("No such file", self.complains(2, "doctor", "--record", f"{DIRECTORY.name}/no/such"))

    def test_options(self):
        done = run("doctor", "--unheard-of")
        self.assertEqual((done.returncode, done.stdout), (2, ""))

    @pytest.mark.all
    def test_garbage_in_every_file(self):
        """Files with content that no kernel writes cause no crash, and findings
        keep their texts."""
        random.seed(1)
        root = pathlib.Path(DIRECTORY.name, "garbage")
        junk = [b"", b"\n", b"\xff" * 3, b"0x", b"-1\n", b"99999999999999999999999\n", bytes(range(256)), b": " * 4000,
                b"CONFIG_\nCONFIG_=\n=\n", b"18446744073709551615\n", b"path:\nsigner:\nsig_key: 1\n"]
        files = sorted(p.relative_to(tree("good")) for p in tree("good").rglob("*") if p.is_file() and not p.is_symlink())
        self.assertGreater(len(files), 40)
        for n, file in enumerate(files):
            shutil.copytree(tree("good"), root, symlinks=True)
            (root / file).write_bytes(junk[n % len(junk)] if n % 3 else random.randbytes(300))
            found, done = findings(root, sanitized=True)
            self.assertIn(done.returncode, (0, 6, 7), (file, done.stderr))
            self.assertGreater(len(found), 10, file)
            shutil.rmtree(root)

    def test_nothing_at_all(self):
        root = pathlib.Path(DIRECTORY.name, "empty")
        root.mkdir()
        found, done = findings(root)
        self.assertEqual(done.returncode, 7)
        self.assertEqual([f["verdict"] for f in found if f["id"] == "gpus"], ["bad"])

    def test_full_disk(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([build(), "--root", tree("good"), "doctor"], stdout=full,
                                  stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 1)


class Record(unittest.TestCase):
    """A record of this machine gives the same findings.
    test_doctor_in_machine.py tests that
    with GPUs."""

    def round_trip(self, name, **kwargs):
        place = pathlib.Path(DIRECTORY.name, f"place-{name}")
        place.mkdir()
        os.chmod(place, 0o777)
        record = place / "record"
        live = run("doctor", "--record", record, **kwargs)
        self.assertIn("recorded in", live.stderr)
        self.assertEqual(record.stat().st_mode & 0o777, 0o700)
        again = run("--root", record, "doctor")
        self.assertEqual((again.stdout, again.returncode), (live.stdout, live.returncode))
        return record

    def test_round_trip(self):
        record = self.round_trip("root")
        names = {p.name for p in (record / "answers").iterdir()}
        self.assertLessEqual({"euid", "kernel-release", "machine", "page-size", "kvm"}, names)

    def test_round_trip_of_a_user(self):
        if os.geteuid():
            self.fail("not root, as in the toolbox")
        record = self.round_trip("user", user=65534, group=65534, extra_groups=[])
        self.assertEqual((record / "answers/euid").read_text(), "65534")

    def test_what_cannot_be_written_is_said(self):
        done = run("doctor", "--record", "/proc/nothing")
        self.assertEqual((done.returncode, done.stdout), (2, ""))

    def test_a_full_disk_is_said(self):
        """On file systems that become full after some bytes or some files."""
        place = pathlib.Path(DIRECTORY.name, "full")
        place.mkdir()
        said = set()
        for size in ("size=4k", *(f"nr_inodes={n}" for n in (3, 4, 6, 9, 20, 40))):
            mount = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
            done = run("doctor", "--record", place / "record",
                       before=["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh", size, place])
            self.assertEqual(done.returncode, 1, f"{size}: {done.stderr}")
            match = re.search(r"--record \S+: (/\S+): No space left on device; the record is not complete", done.stderr)
            self.assertTrue(match, f"{size}: {done.stderr}")
            said.add(match[1])
        self.assertGreater(len(said), 3, said)
