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

import pytest

from cli.common import NOBODY, build, make, run, validate
from cli.doctor_trees import unfold
from packages.common import named

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent

HOSTS = unfold.hosts()
GPU = "0009:01:00.0"
# The words of remedies for which the program has those of the host.
FILLED = (r"\b(?:ADDRESS|COMMAND|GPU|ID|KERNEL|KEY|MODULES|NAME|PACKAGE|RELEASE|TREE|VERSION)\b"
          "|have it built again by who built it|have the (?:image made again by its owner|module built for that kernel)")


@pytest.fixture(scope="module")
def directory():
    with tempfile.TemporaryDirectory(prefix="doctor-") as name:
        # Another user than root also runs the program.
        os.chmod(name, 0o755)
        yield pathlib.Path(name)


@pytest.fixture(scope="module")
def recorded(directory):
    """A function: the tree of the recorded host of this name."""
    @functools.cache
    def of(name):
        root = directory / name
        root.mkdir()
        unfold.unfold(HOSTS, name, root)
        return root

    return of


@pytest.fixture(scope="module")
def of_host(recorded):
    """A function: the findings of the recorded host of this name."""
    return functools.cache(lambda name: findings(recorded(name)))


def findings(root, *words, sanitized=False):
    done = run("doctor", "--json", *words, root=root, sanitized=sanitized)
    document = json.loads(done.stdout)
    validate(document)
    return document["findings"], done


def explanations():
    """[(id, verdict, remedy)] of each case: of the tables that the program prints."""
    cases = []
    for block in run("doctor", "--explain").stdout.split("\n### ")[1:]:
        for row in re.findall(r"^\| (?!verdict)(\w+) \| .* \|(.*) \|$", block.replace("\\|", "&#124;"), re.M):
            cases.append((block.partition("\n")[0], row[0], row[1].strip().replace("&#124;", "|")))
    return cases


class Findings:
    def test_every_host(self, of_host):
        for name, host in HOSTS.items():
            with named(f"{name}, {host.where}"):
                self.check(host, *of_host(name))

    def check(self, host, found, done):
        for e in host.expected:
            same = [f for f in found if f["id"] == e.finding and f["device"] == e.device]
            assert same, f"no finding {e.finding} of {e.device or 'the host'}"
            said = [f"{f['verdict']}: {f['text']} {f['reason'] or ''} {f['remedy'] or ''}".strip() for f in same]
            assert any(s.startswith(e.verdict + ": ") and re.search(e.pattern or "", s) for s in said), (e, said)
        for never in host.never:
            assert never not in [f["id"] for f in found]
        worst = max(unfold.STATUS[f["verdict"]] for f in found)
        assert done.returncode == worst, done.stderr
        assert worst == host.status, [f for f in found if unfold.STATUS[f["verdict"]] == worst]
        assert done.stderr == ""
        for f in found:
            assert (f["reason"] is None, f["remedy"] is None) == (f["verdict"] == "good",) * 2, f
            # The kernel quotes `like this'.
            assert not re.search(r"\(null\)|%[sduz]|`(?!\w+')|[{}]", f"{f['text']}{f['reason']}{f['remedy']}"), f

    def test_each_case_has_a_host(self, of_host):
        """Hosts expect each verdict. Each case with a remedy is found, with that
        remedy in the host's words."""
        cases = explanations()
        possible = {case[:2] for case in cases}
        expected = {(e.finding, e.verdict) for host in HOSTS.values() for e in host.expected}
        assert expected == possible, f"edit cli/doctor/table.h or tests/cli/doctor_trees/*.tree: {sorted(expected ^ possible)}"
        found = {(f["id"], f["verdict"], (f["remedy"] or "").replace('"', "")) for name in HOSTS for f in of_host(name)[0]}
        for finding, verdict, remedy in cases:
            parts = re.split(FILLED, remedy.translate({ord("`"): None, ord('"'): None}))
            pattern = re.compile(".*".join(map(re.escape, parts)))
            assert any(f[:2] == (finding, verdict) and pattern.fullmatch(f[2]) for f in found), \
                f"edit tests/cli/doctor_trees/*.tree: no host has {finding} {verdict} with this remedy: {remedy}"


class Explanations:
    def test_remedies_are_for_what_is_not_good(self):
        for finding, verdict, remedy in explanations():
            assert (not remedy) == (verdict == "good"), f"edit cli/doctor/table.h: {finding}, {verdict}: the remedy is {remedy or 'missing'}"

    def test_those_that_are_named(self):
        text = run("doctor", "--explain", "kvm", "device").stdout
        assert re.findall(r"^#.*$", text, re.M) == ["### kvm", "### device"]
        assert "\n| bad | PRODUCT does not answer: its configuration space reads as all ones" in text
        for words, said in (("qemu", "kmv"), '"kmv"'), (("--json",), "leave out --json"):
            done = run("doctor", "--explain", *words)
            assert (done.returncode, done.stdout) == (2, "")
            assert said in done.stderr

    def test_the_page_is_what_make_generated_writes(self):
        done = make("page", f"OUT={build().parent}")
        assert (PROJECT / "docs/doctor.md").read_text() == done.stdout, f"run make page: {done.stderr}"


class Output:
    ORDER = ("bad", "warning", "note", "unknown", "good")

    def test_text_says_what_json_says(self, recorded):
        """The worst comes first, and what is good only with --all."""
        found, done = findings(recorded("bookworm"))
        counts = [sum(f["verdict"] == v for f in found) for v in self.ORDER]
        last = "{} bad, {} warning, {} note, {} unknown, {} good".format(*counts)
        for words, end in (([], " (--all)"), (["--all"], "")):
            plain = run("doctor", *words, root=recorded("bookworm"))
            assert plain.returncode == done.returncode
            assert "\033" not in plain.stdout
            lines = []
            for f in sorted(found, key=lambda f: self.ORDER.index(f["verdict"])):
                if f["verdict"] != "good" or words:
                    lines.append(f"{f['verdict']:7}  {f['device'] or 'host':12}  {f['id']}: {f['text']}")
                    lines += [f"         {word}: {f[word]}" for word in ("reason", "remedy") if f[word]]
            assert plain.stdout.splitlines() == [*lines, "", last + end]

    def test_limits_of_the_kernel_do_not_count(self, recorded):
        """A limit that only another kernel removes is a note. So the status on
        a distribution's kernel is 0."""
        found, done = findings(recorded("bookworm-today"))
        notes = {f["id"] for f in found if f["verdict"] == "note"}
        assert notes == {"huge-mappings", "memory-errors", "peer-to-peer", "kernel-options", "kvm-usemem", "kvm-resmem"}
        assert done.returncode == 0
        assert run("doctor", "--quiet", root=recorded("bookworm-today")).stdout == ""

    def test_fail_on(self, recorded):
        for host, words, status in (("qemu-9.1", (), 6), ("qemu-9.1", ("--fail-on=warning",), 6),
                                    ("qemu-9.1", ("--fail-on", "bad"), 0), ("bookworm", ("--fail-on=bad",), 7),
                                    ("good", ("--fail-on=warning",), 0)):
            assert run("doctor", *words, root=recorded(host)).returncode == status, (host, words)
        for word in "good", "unknown", "", "Bad":
            assert run("doctor", f"--fail-on={word}", root=recorded("good")).returncode == 2, word

    def test_ignored(self, recorded):
        """A finding that is left out does not count either, on any device."""
        found, done = findings(recorded("qemu-9.1"), "--ignore=qemu")
        assert "qemu" not in [f["id"] for f in found]
        assert done.returncode == 0
        text = run("doctor", "--ignore", "qemu,kernel-options", "--all", root=recorded("qemu-9.1")).stdout
        assert not re.search("qemu:|kernel-options:", text)
        assert " 0 warning, " in text
        found, done = findings(recorded("off-the-bus"), "--ignore=device,qemu")
        assert "device" not in [f["id"] for f in found]
        assert done.returncode == 0
        for word in ("", "qemu,", "qmeu", "qemu,all"):
            done = run("doctor", f"--ignore={word}", root=recorded("good"))
            assert (done.returncode, done.stdout) == (2, ""), word
            assert "no finding has the name" in done.stderr

    def test_quiet_is_for_what_is_wrong(self, recorded):
        found, done = findings(recorded("bookworm"), "--quiet")
        assert {f["verdict"] for f in found} == {"warning", "bad"}
        assert done.returncode == 7
        done = run("doctor", "-q", root=recorded("good"))
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)

    def test_only_the_devices_named(self, recorded):
        found, _ = findings(recorded("four"), "19:1:0.0")
        assert {f["device"] for f in found} == {None, "0019:01:00.0"}
        found, _ = findings(recorded("four"))
        assert {f["device"] for f in found} == {None, GPU, "0019:01:00.0"}

    def test_no_control_characters(self, recorded, directory):
        root = directory / "escapes"
        shutil.copytree(recorded("unbound"), root, symlinks=True)
        device = root / "sys/bus/pci/devices" / GPU
        (device / "driver_override").write_bytes(b"\033[31mred\x9b\n")
        (root / "etc/nvgrace-gpu.conf").write_bytes(b"bind \033]0;title\007\n")
        (root / "answers/qemu").write_bytes(b"/usr/bin/\033[2J: QEMU 11.0\n")
        for words in ("doctor",), ("doctor", "--json"):
            out = run("--root", root, *words).stdout
            assert all(c == "\n" or " " <= c <= "~" for c in out), repr(out)


class BadInput:
    def complains(self, status, *words):
        done = run(*words)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert done.stderr.startswith("nvgrace-gpu: "), done.stderr
        return done.stderr

    def test_addresses(self, recorded):
        self.complains(3, "--root", recorded("good"), "doctor", "0001:02:03.4")
        assert "not a GPU that this driver supports" in self.complains(
            3, "--root", recorded("shared-with-host"), "doctor", "0009:01:00.1")

    def test_record(self, recorded, directory):
        assert "--root" in self.complains(2, "--root", recorded("good"), "doctor", "--record", "x")
        assert "exist" in self.complains(2, "doctor", "--record", directory)
        assert "No such file" in self.complains(2, "doctor", "--record", f"{directory}/no/such")

    @pytest.mark.all
    def test_garbage_in_every_file(self, recorded, directory):
        """Files with content that no kernel writes cause no crash, and findings
        keep their texts."""
        random.seed(1)
        root = directory / "garbage"
        junk = [b"", b"\n", b"\xff" * 3, b"0x", b"-1\n", b"99999999999999999999999\n", bytes(range(256)), b": " * 4000,
                b"CONFIG_\nCONFIG_=\n=\n", b"18446744073709551615\n", b"path:\nsigner:\nsig_key: 1\n"]
        files = sorted(p.relative_to(recorded("good")) for p in recorded("good").rglob("*") if p.is_file() and not p.is_symlink())
        assert len(files) > 40
        for n, file in enumerate(files):
            shutil.copytree(recorded("good"), root, symlinks=True)
            (root / file).write_bytes(junk[n % len(junk)] if n % 3 else random.randbytes(300))
            found, done = findings(root, sanitized=True)
            assert done.returncode in (0, 6, 7), (file, done.stderr)
            assert len(found) > 10, file
            shutil.rmtree(root)

    def test_nothing_at_all(self, directory):
        root = directory / "empty"
        root.mkdir()
        found, done = findings(root)
        assert done.returncode == 7
        assert [f["verdict"] for f in found if f["id"] == "gpus"] == ["bad"]

    def test_full_disk(self, recorded):
        with open("/dev/full", "w") as full:
            done = subprocess.run([build(), "--root", recorded("good"), "doctor"], stdout=full,
                                  stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1


class Record:
    """A record of this machine gives the same findings.
    test_doctor_in_machine.py tests that
    with GPUs."""

    def round_trip(self, directory, name, **kwargs):
        place = directory / f"place-{name}"
        place.mkdir()
        os.chmod(place, 0o777)
        record = place / "record"
        live = run("doctor", "--record", record, **kwargs)
        assert "recorded in" in live.stderr
        assert record.stat().st_mode & 0o777 == 0o700
        again = run("--root", record, "doctor")
        assert not {"kernel-config", "command-line", "acpi-tables"} & {p.name for p in (record / "answers").iterdir()}
        assert (again.stdout, again.returncode) == (live.stdout, live.returncode)
        return record

    def test_round_trip(self, directory):
        record = self.round_trip(directory, "root")
        names = {p.name for p in (record / "answers").iterdir()}
        assert {"euid", "kernel-release", "machine", "page-size", "kvm"} <= names

    def test_round_trip_of_a_user(self, directory):
        assert os.geteuid() == 0, "not root, as in the toolbox"
        record = self.round_trip(directory, "user", **NOBODY)
        assert (record / "answers/euid").read_text() == "65534"

    def test_what_cannot_be_written_is_said(self):
        done = run("doctor", "--record", "/proc/nothing")
        assert (done.returncode, done.stdout) == (2, "")

    def test_a_full_disk_is_said(self, directory):
        """On file systems that become full after some bytes or some files."""
        place = directory / "full"
        place.mkdir()
        said = set()
        for size in ("size=4k", *(f"nr_inodes={n}" for n in (3, 4, 6, 9, 20, 40))):
            mount = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
            done = run("doctor", "--record", place / "record",
                       before=["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh", size, place])
            assert done.returncode == 1, f"{size}: {done.stderr}"
            match = re.search(r"--record \S+: (/\S+): No space left on device; the record is not complete", done.stderr)
            assert match, f"{size}: {done.stderr}"
            said.add(match[1])
        assert len(said) > 3, said
