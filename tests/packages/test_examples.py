# SPDX-License-Identifier: GPL-2.0-only
"""The examples of docs/fleet.md: Ansible runs the playbook, and the rule of Kubernetes
has the driver's ids."""

import contextlib
import json
import re
import shutil

import pytest

from cli.common import build
from cli.test_trees import G1, Tree
from lab import packages
from lab.system import scratch

EXAMPLES = scratch.PROJECT / "docs/examples"


@contextlib.contextmanager
def system(*roots):
    """A Scratch of the toolbox with nvgrace-gpu and programs of scripts/dev/toolbox."""
    host = scratch.Scratch(lower=":".join([*(str(packages.root(r)) for r in roots), "/"]))
    (host.dir / "upper/usr/sbin").mkdir(parents=True)
    shutil.copy(build(), host.dir / "upper/usr/sbin")
    try:
        yield host
    finally:
        host.close()


# ---- Kubernetes ---------------------------------------------------------------

@pytest.fixture(name="resources", scope="module")
def fixture_resources():
    """{name: document} of the YAML files."""
    with system("installers") as host:      # Ansible needs the library
        return json.loads(host.run("python3", "-c", """
import json, pathlib, sys, yaml
print(json.dumps({p.name: yaml.safe_load(p.read_text()) for p in pathlib.Path(sys.argv[1]).glob("*.yaml")}))
""", EXAMPLES).stdout)


@pytest.mark.needs("root installers")
def test_only_kernels_with_a_module_of_this_name_lose_it(resources):
    """On others, the operator's worker fails. It takes the first mapping that matches."""
    container = resources["kmm-module.yaml"]["spec"]["moduleLoader"]["container"]
    assert "inTreeModulesToRemove" not in container
    for kernel, loses in (("7.0.0-1018-nvidia-64k", True), ("7.0.0-2022-nvidia-bos-64k", True), ("7.0.0-42-generic-64k", False),
                          ("6.12.117+deb13-arm64", False), ("6.12.0-55.24.1.el10_0.aarch64+64k", False)):
        mapping = next(m for m in container["kernelMappings"] if re.search(m["regexp"], kernel))
        assert ("inTreeModulesToRemove" in mapping) == loses, kernel


@pytest.mark.needs("root installers")
def test_the_rule_has_the_drivers_ids(resources):
    rule, loaded = resources["nfd-rule.yaml"]["spec"]["rules"]
    driver = (scratch.PROJECT / "cli/system/program.h").read_text()
    assert loaded["matchFeatures"][0]["matchExpressions"].keys() == rule["labels"].keys()
    name, = loaded["matchFeatures"][1]["matchExpressions"]
    assert f'#define DRIVER_NAME "{name}"\n' in driver
    pci, = rule["matchFeatures"]
    ids = re.findall(r"\bGPU\(0x([0-9a-f]{4}),", (scratch.PROJECT / "include/nvgrace_gpu_ids.h").read_text())
    assert pci["matchExpressions"] == {"vendor": {"op": "In", "value": ["10de"]}, "device": {"op": "In", "value": ids}}


# ---- Ansible ------------------------------------------------------------------

@pytest.mark.needs("root installers")
def test_the_playbook_changes_a_host_once():
    with system("installers") as host:
        def play(*more, ok=True):
            """{counter: value} of the play, and what it printed."""
            said = host.run("ansible-playbook", "-i", "gpu_hosts,", "-c", "local", "-e", "ansible_become=false", *more,
                            "/mnt/play.yml", ok=ok).stdout
            return {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", said.partition("PLAY RECAP")[2])}, said

        host.sh(f"install -D -t /usr/lib/udev {build().parent}/udev/nvgrace-gpu && "
                f"install -D -m 644 -t /usr/lib/udev/rules.d {scratch.PROJECT}/scripts/udev/60-nvgrace-gpu.rules")
        # A group of the inventory, for one host.
        text = (EXAMPLES / "ansible.yml").read_text()
        assert "- hosts: gpu_hosts\n" in text
        (host.shared / "play.yml").write_text(text)
        assert play()[0] == {"ok": 1, "changed": 0, "unreachable": 0, "failed": 0, "skipped": 2, "rescued": 0, "ignored": 0}

        with Tree() as tree:
            tree.bound(G1).file(f"/sys/bus/pci/devices/{G1}/rescan")
            shutil.copytree(tree.root / "sys", host.dir / "upper/sys", symlinks=True, dirs_exist_ok=True)
        # This "host" has no IOMMU, KVM and so on, which the doctor finds.
        config = host.dir / f"upper/etc/nvgrace-gpu.conf.d/{G1}.conf"
        counts, said = play("--check", ok=False)
        assert (counts["changed"], counts["failed"], config.exists()) == (1, 1, False), said
        counts, said = play(ok=False)
        assert (counts["changed"], counts["failed"], config.exists()) == (1, 1, True), said
        bad = {f["id"] for f in json.loads(host.sh("nvgrace-gpu doctor --json 2>/dev/null", ok=False).stdout)["findings"]
               if f["verdict"] == "bad"}
        assert bad
        counts, said = play("-e", f"doctor_ignores={','.join(sorted(bad))}")
        assert (counts["ok"], counts["changed"], counts["failed"]) == (3, 0, 0), said
