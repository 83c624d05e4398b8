# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu metrics: the values are right, and the output is valid by
Prometheus's own parser and, in check-all, by promtool."""

import json
import re
import subprocess

import pytest
from prometheus_client import parser

from cli.common import PROJECT, run
from cli.doctor_trees import unfold
from cli.test_trees import G1, G2, SIZES

PREFIX = "nvgrace_gpu_"
ALERTS = PROJECT / "docs/prometheus-alerts.yml"
ALERT_TESTS = PROJECT / "tests/cli/alerts.yml"


def families(text):
    return {f.name: f for f in parser.text_string_to_metric_families(text)}


def metrics(root):
    done = run("metrics", root=root)
    assert (done.returncode, done.stderr) == (0, "")
    return families(done.stdout)


def value(found, name, **own):
    """The value of the sample with these labels; None without one. There
    must not be two."""
    family = found[PREFIX + name.removesuffix("_total")]
    values = [s.value for s in family.samples if s.name == PREFIX + name and own.items() <= s.labels.items()]
    assert len(values) <= 1, (name, own, values)
    return values[0] if values else None


def test_values(tree):
    tree.bound(G1).device(G2, driver="nvidia", group=13).process(10, "qemu", "/dev/vfio/12").package()
    tree.file(f"/proc/driver/nvidia/gpus/{G2}/numa_status", "Node: 4\nStatus: online")
    tree.file("/etc/nvgrace-gpu.conf.d/x.conf", f"bind {G1}")
    tree.file(f"/sys/bus/pci/devices/{G1}/aer_dev_fatal", "DLP 1\nTOTAL_ERR_FATAL 3")
    tree.file(f"/sys/bus/pci/devices/{G1}/aer_dev_nonfatal", "TOTAL_ERR_NONFATAL 0")
    tree.file("/sys/module/nvgrace_gpu_vfio_pci/version", "0.3.0").file(f"/sys/bus/pci/devices/{G1}/serial_number", "48-b0-2d-ff-ff-12-34-56")
    found = metrics(tree.root)
    assert value(found, "module_info", version="0.3.0") == 1
    assert value(found, "device_info", address=G1, serial="48-b0-2d-ff-ff-12-34-56") == 1
    for name, first, second in (("bound", 1, 0), ("ready", 1, 0), ("in_use", 1, 0), ("memory_online", 0, 1),
                                ("bound_at_boot", 1, 0), ("usemem_bytes", SIZES["usemem_size"], None),
                                ("resmem_bytes", SIZES["resmem_size"], None)):
        assert (value(found, name, address=G1), value(found, name, address=G2)) == (first, second), name
    assert value(found, "pci_uncorrected_errors_total", address=G1, severity="fatal") == 3
    assert value(found, "pci_uncorrected_errors_total", address=G1, severity="nonfatal") == 0
    assert value(found, "pci_uncorrected_errors_total", address=G2, severity="fatal") is None
    assert value(found, "device_info", address=G2, product="GH200 480GB") == 1
    for address, state, driver in ((G1, "in-use", "nvgrace_gpu_vfio_pci"), (G2, "memory-online", "nvidia")):
        for family, word in (("state", state), ("driver", driver)):
            samples = [s for s in found[PREFIX + family].samples if s.labels["address"] == address]
            assert [s.labels[family] for s in samples if s.value] == [word]
            assert len(samples) >= 5
    assert (value(found, "mode", address=G1, mode="carve-out"), value(found, "mode", address=G2)) == (1, None)
    assert [value(found, "readiness", address=G1, readiness=w) for w in ("ready", "unknown", "failed")] == [1, 0, 0]
    version = subprocess.check_output(["sh", PROJECT / "scripts/this-version"], text=True).strip()
    assert value(found, "tool_info", version=version) == 1
    # What the driver does not report has no sample.
    for name in ("scrub_state", "scrub_progress_bytes", "resets_total", "waits_total", "scrubs_total",
                 "scrub_last_clean", "scrub_last_timestamp_seconds", "scrub_last_duration_seconds",
                 "scrub_verified_timestamp_seconds"):
        assert found[PREFIX + name.removesuffix("_total")].samples == []


def test_what_the_driver_may_tell(tree):
    tree.bound(G1).bound(G2, group=13, readiness="failed")
    d = f"/sys/bus/pci/devices/{G1}/nvgrace_gpu"
    tree.file(f"{d}/resets", "5").file(f"{d}/waits", "7").file(f"{d}/scrub_progress", 1 << 40)
    tree.file("/sys/module/nvgrace_gpu_vfio_pci/version", "")
    for state in ("off", "unknown", "scrubbing", "clean", "dirty", "failed", "of-a-later-version"):
        tree.file(f"{d}/scrub_state", state)
        found = metrics(tree.root)
        samples = {s.labels["scrub_state"]: s.value for s in found[PREFIX + "scrub_state"].samples}
        assert [k for k, v in samples.items() if v] == [state]
        assert len(samples) >= 6
    assert found[PREFIX + "module_info"].samples == []
    assert (value(found, "resets_total", address=G1), value(found, "waits_total", address=G1)) == (5, 7)
    assert (value(found, "scrub_progress_bytes", address=G1),
            value(found, "scrub_progress_bytes", address=G2)) == (1 << 40, None)
    assert (value(found, "ready", address=G2),
            value(found, "readiness", address=G2, readiness="failed")) == (0, 1)


def test_last_scrub(tree):
    names = ("scrub_last_clean", "scrub_last_timestamp_seconds", "scrub_last_duration_seconds")
    tree.bound(G1, scrub_count=0, scrub_result="none", scrub_time=0, scrub_ms=0)
    found = metrics(tree.root)
    assert [value(found, n, address=G1) for n in ("scrubs_total", *names)] == [0, None, None, None]
    d = f"/sys/bus/pci/devices/{G1}/nvgrace_gpu"
    tree.file(f"{d}/scrub_count", 2).file(f"{d}/scrub_time", 1795564812).file(f"{d}/scrub_ms", 61007)
    tree.file(f"/run/nvgrace-gpu/{G1}.json", '{"time": 1795564899}')
    for result, clean in (("clean", 1), ("failed", 0)):
        tree.file(f"{d}/scrub_result", result)
        found = metrics(tree.root)
        assert [value(found, n, address=G1) for n in ("scrubs_total", *names)] == [2, clean, 1795564812, 61.007]
    assert value(found, "scrub_verified_timestamp_seconds", address=G1) == 1795564899


@pytest.mark.parametrize("name", ["rescue-default", "four", "off-the-bus"])
def test_findings(tmp_path, name):
    """The numbers of doctor's findings, by verdict."""
    unfold.unfold(unfold.hosts(), name, tmp_path)
    found = metrics(tmp_path)
    text = run("doctor", root=tmp_path).stdout
    counts = re.search(r"^(\d+) bad, (\d+) warning, (\d+) note, (\d+) unknown, (\d+) good",
                       text, re.M)
    bad, warning, note, unknown, good = map(int, counts.groups())
    sums = {}
    for s in found[PREFIX + "findings"].samples:
        sums[s.labels["verdict"]] = sums.get(s.labels["verdict"], 0) + s.value
    assert sums == {"bad": bad, "warning": warning, "note": note, "unknown": unknown,
                    "good": good}
    named = [tuple(s.labels[k] for k in ("device", "finding", "verdict")) for s in found[PREFIX + "finding"].samples]
    document = json.loads(run("doctor", "--json", root=tmp_path).stdout)
    assert sorted(named) == sorted({(f["device"] or "host", f["id"], f["verdict"])
                                    for f in document["findings"]
                                    if f["verdict"] != "good"})


def test_a_user_sees_less(tree):
    tree.bound(G1).file("/answers/euid", "1000")
    assert value(metrics(tree.root), "in_use", address=G1) is None


def test_names(tree):
    """Each family has the prefix and a help text, and a size has its unit.
    The name of a counter ends in _total."""
    tree.bound(G1)
    text = run("metrics", root=tree.root).stdout
    totals = re.findall(r"^# TYPE (\w+_total) counter$", text, re.M)
    assert totals
    for name, family in families(text).items():
        assert name.startswith(PREFIX), name
        assert re.search(r"^[A-Z].*\.$", family.documentation)
        assert family.type == ("counter" if name + "_total" in totals else "gauge")
        for sample in family.samples:
            assert sample.name == name + "_total" * (family.type == "counter")
    # The manual page lists all families.
    page = (PROJECT / "cli/nvgrace-gpu.8.scd").read_text().partition("# METRICS")[2].partition("*-o*, *--output*")[0]
    documented = {w for line in re.findall(r"^(?:\*\w+\*(?:, )?)+$", page, re.M)
                  for w in re.findall(r"\*(\w+)\*", line)}
    assert documented == {name.removeprefix(PREFIX) for name in re.findall(r"^# TYPE (\w+) ", text, re.M)}


def odd(tree):
    return tree.bound(G1, readiness='a"b\\n').device(G2, driver='x"} 1', group=13).root


def test_odd_words(tree):
    """No content of a file can end a label."""
    found = metrics(odd(tree))
    assert value(found, "readiness", address=G1, readiness='a"b\\n') == 1
    assert value(found, "driver", address=G2, driver='x"} 1') == 1


@pytest.mark.all
def test_promtool(tree, tmp_path):
    names = ("good", "bookworm", "four", "no-gpu", "off-the-bus")
    for name in names:
        (tmp_path / name).mkdir()
        unfold.unfold(unfold.hosts(), name, tmp_path / name)
    for root in (odd(tree), *(tmp_path / name for name in names)):
        done = subprocess.run(["promtool", "check", "metrics"], input=run("metrics", root=root).stdout, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), root


def test_no_gpu(tree):
    assert metrics(tree.root)[PREFIX + "bound"].samples == []


def test_file(tree, tmp_path):
    """The file is replaced as a whole, and the collector can read it."""
    tree.bound(G1)
    file = (tmp_path / "nvgrace-gpu.prom")
    file.write_text("old")
    before = file.stat().st_ino
    done = run("metrics", f"--output={file}", root=tree.root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.read_text() == run("metrics", root=tree.root).stdout
    assert file.stat().st_ino != before
    assert file.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_no_folder(tree, tmp_path):
    """It says so before the doctor reads for seconds."""
    tree.bound(G1)
    file = tmp_path / "none/nvgrace-gpu.prom"
    done = run("metrics", f"--output={file}", root=tree.root)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"nvgrace-gpu: --output={file}: {file.parent}: No such file or directory; ")
    assert "it is FILE= of" in done.stderr
    for name in ("file.prom", "/dev/stdout", "-"):
        assert run("metrics", "-o", name, root=tree.root, cwd=tmp_path).returncode == 0, name


@pytest.mark.all
def test_a_metric_has_the_type_of_its_fact(tmp_path):
    """A word can't be a number, nor a number a word: that does not compile."""
    source = (PROJECT / "cli/metrics.c").read_text()
    for change in (('VALUE("bound", bound,', 'VALUE("bound", state,'), ('VALUE("bound", bound,', 'VALUE("bound", scrub_ms,'),
                   ('STATE("state", state,', 'STATE("state", bound,'), ('SECONDS("scrub_last_duration_seconds", scrub_ms,',
                                                                       'SECONDS("scrub_last_duration_seconds", resets,'), ("", "")):
        assert change[0] in source
        (tmp_path / "metrics.c").write_text(source.replace(*change))
        flags = subprocess.check_output(["pkg-config", "--cflags", "glib-2.0", "json-c"], text=True).split()
        done = subprocess.run(["gcc", "-fsyntax-only", '-DVERSION="x"', "-D_GNU_SOURCE", f"-I{PROJECT}/cli", f"-I{PROJECT}/include", *flags, tmp_path / "metrics.c"],
                              capture_output=True, text=True)
        assert (done.returncode == 0) == (change == ("", "")), (change, done.stderr)
        assert not change[0] or "undeclared" in done.stderr


@pytest.mark.all
def test_alert_rules(tree):
    """Those of the documentation, with the promises of their comments."""
    for words in (["check", "rules", "--lint=all", "--lint-fatal", ALERTS], ["test", "rules", ALERT_TESTS]):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    used = set(re.findall(r"nvgrace_gpu_\w+", ALERTS.read_text()))
    tree.bound(G1)
    text = run("metrics", root=tree.root).stdout
    assert used <= set(re.findall(r"^# TYPE (\w+) ", text, re.M))
    # Each alert has a test.
    assert set(re.findall(r"alert: (\w+)", ALERTS.read_text())) == set(re.findall(r"alertname: (\w+)", ALERT_TESTS.read_text()))
