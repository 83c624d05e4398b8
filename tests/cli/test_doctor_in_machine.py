# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu doctor in a virtual GH200 whose kernel runs at EL2. The tests
compare its findings with what KVM does."""

import base64
import io
import json
import pathlib
import re
import subprocess
import tarfile
import tempfile

import pytest

from cli import common, in_machine
from lab import programs, vm

GPUS = [
    {"name": "good", "size": "3G"},
    {"name": "zero", "base": 0x8100000000, "size": 0},
    # This one stays unbound, with a malformed override.
    {"name": "hyphens", "size": "3G"},
]

COMMANDS = {
    "before": "run doctor --json",
    "bind": "/usr/sbin/nvgrace-gpu bind $(gpu good)",
    "refused": "/usr/sbin/nvgrace-gpu bind $(gpu zero); [ $? = 1 ]",
    "override": "echo nvgrace-gpu-vfio-pci >/sys/bus/pci/devices/$(gpu hyphens)/driver_override",
    "after": "run doctor --json",
    "one": "run doctor --json $(gpu good)",
    "bars": "host counters good; /usr/sbin/nvgrace-gpu doctor >/dev/null; host counters good",
    # A QEMU that prints its version, and a libvirt that hangs. The doctor gives
    # each 10 s. After a pause of the machine, it tries again.
    "programs": """
        mkdir -p /usr/bin
        printf '#!/bin/sh\\necho "QEMU emulator version 9.1.2 (Debian)"; echo more\\n' >/usr/bin/qemu-system-aarch64
        printf '#!/bin/sh\\nexec sleep 1000\\n' >/usr/sbin/libvirtd
        chmod 755 /usr/bin/qemu-system-aarch64 /usr/sbin/libvirtd
        for try in 1 2 3 4; do
            run doctor --json >/tmp/programs
            grep -q 'qemu-system-aarch64 is' /tmp/programs && break
        done
        cat /tmp/programs
        rm /usr/bin/qemu-system-aarch64 /usr/sbin/libvirtd""",
    "kvm": "[ -c /dev/kvm ] || exit 0; /tests/doctor_kvm good",
    "record": """
        /usr/sbin/nvgrace-gpu doctor --record /tmp/record >/tmp/live
        /usr/sbin/nvgrace-gpu --root /tmp/record doctor >/tmp/replayed
        cmp /tmp/live /tmp/replayed || exit 1
        cp /tmp/live /tmp/record/live
        tar -cz -f - -C /tmp/record . | base64""",
}

# Each file of sign() replaces the module: doctor checks it, then insmod tries
# to load it.
SIGNATURES = {
    name: f"""
        cp /signed/{name}.ko /lib/modules/$(uname -r)/updates/dkms/{programs.MODULE}
        run doctor --json
        # insmod, because busybox's modprobe has another index than libkmod.
        insmod /signed/{name}.ko 2>&1 && echo accepted || true"""
    for name in ("unsigned", "foreign", "trusted")
}


def sign(kernel, directory):
    """Makes three files that replace the module: it without a signature, it
    with the signature of an unknown key, and one that the kernel trusts. The
    last is a module of the kernel, because only its makers have that key."""
    place = pathlib.Path(directory, "signed")
    place.mkdir()
    ours = programs.module_of(kernel).read_bytes()
    (place / "unsigned.ko").write_bytes(ours)
    (place / "foreign.ko").write_bytes(ours)
    key, certificate = place / "key", place / "certificate"
    subprocess.run(["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                    "-outform", "DER", "-subj", "/CN=DKMS module signing key/"], check=True, stderr=subprocess.DEVNULL)
    tool, = pathlib.Path("/usr/lib").glob(f"linux-kbuild-{kernel.release.split('-')[0]}/scripts/sign-file")
    subprocess.run([tool, "sha256", key, certificate, place / "foreign.ko"], check=True)
    packed, = (kernel.directory / "kernel/drivers/vfio/pci").glob("vfio-pci.ko.*")
    (place / "trusted.ko").write_bytes(vm.decompress(packed.read_bytes(), packed.name))
    return {f"/signed/{p.name}": str(p) for p in place.glob("*.ko")}


class Doctor(in_machine.InMachine):
    GPUS, HELPERS = GPUS, ("doctor_kvm",)

    @classmethod
    def files(cls, kernel, directory):
        return kernel.config_file

    def findings(self, command):
        """{(id, GPU's name or None): finding} of the command, and its exit
        status."""
        document, = self.documents(command)
        names = {address: name for name, address in self.pci.items()}
        return {(f["id"], names.get(f["device"])): f for f in document["findings"]}, self.codes(command)[0]

    def verdict(self, found, finding, gpu=None):
        assert (finding, gpu) in found
        return found[finding, gpu]["verdict"]

    def said(self, found, finding, gpu=None):
        f = found[finding, gpu]
        return f"{f['text']} {f['reason'] or ''} {f['remedy'] or ''}"


class Signatures(Doctor):
    """The tests on a kernel that loads only signed modules."""

    KERNEL, __test__ = "newest", True
    LOG, COMMANDS, OPTIONS = "doctor-signatures", SIGNATURES, {"append": "module.sig_enforce=1"}

    @classmethod
    def files(cls, kernel, directory):
        return {**super().files(kernel, directory), **sign(kernel, directory)}

    def check(self, name, verdict, pattern):
        found, _ = self.findings(name)
        assert self.verdict(found, "module-signature") == verdict, found["module-signature", None]
        assert re.search(pattern, self.said(found, "module-signature"))
        assert re.search("^accepted$" if verdict == "good" else "Key was rejected by service", self.command(name).output[-1])

    def test_unsigned(self):
        self.check("unsigned", "bad", r"not signed.*module\.sig_enforce")

    def test_of_an_unknown_key(self):
        self.check("foreign", "bad", "does not have the key of the module's signer, DKMS module signing key")

    def test_of_the_kernels_key(self):
        self.check("trusted", "good", "trusts the key of the module's signer")


class Host(Doctor):
    """CPU: QEMU's name of one, on which the kernel runs at EL2."""

    COMMANDS, CPU = COMMANDS, None

    @classmethod
    def prepare(cls, kernel):
        cls.LOG, cls.OPTIONS = f"doctor-{cls.CPU or 'el1'}", {"hypervisor": cls.CPU}

    def test_before(self):
        found, _ = self.findings("before")
        assert self.verdict(found, "gpus") == "good"
        assert "updates/dkms" in self.said(found, "module")
        assert self.verdict(found, "kernel") == "good"
        assert self.verdict(found, "vfio") == "good"
        assert self.verdict(found, "iommu") == "good"
        assert ("readiness", "good") not in found
        assert self.verdict(found, "firmware", "good") == "good"
        assert self.verdict(found, "binding", "good") == "good"
        assert ("module-loaded", None) not in found

    def test_after(self):
        found, rc = self.findings("after")
        assert rc == 7
        for finding in "binding", "firmware", "readiness", "iommu-group", "override":
            assert self.verdict(found, finding, "good") == "good", found[finding, "good"]
        assert self.verdict(found, "module-loaded") == "good"
        assert self.verdict(found, "module-signature") == "good"
        # The loaded module's features and the kernel's configuration agree.
        assert self.verdict(found, "huge-mappings") == "good"
        before, _ = self.findings("before")
        for finding in "huge-mappings", "memory-errors", "peer-to-peer", "dma-backend":
            assert self.verdict(found, finding) == self.verdict(before, finding), finding

    def test_refused(self):
        found, _ = self.findings("after")
        assert self.verdict(found, "binding", "zero") == "bad"
        assert "the C2C link failed to train" in self.said(found, "binding", "zero")

    def test_hyphens(self):
        found, _ = self.findings("after")
        assert self.verdict(found, "override", "hyphens") == "bad"

    def test_programs(self):
        found, _ = self.findings("programs")
        assert found["qemu", None]["text"] == "/usr/bin/qemu-system-aarch64 is 9.1"
        assert ("libvirt", None) not in found

    def test_only_that_gpu(self):
        found, _ = self.findings("one")
        assert {gpu for _, gpu in found} == {None, "good"}

    def test_no_register_is_touched(self):
        before, after = map(json.loads, self.command("bars").output)
        assert before["bar0_reads"] + before["c2c_reads"] > 0
        for name in before:
            if not name.startswith("config_"):
                assert after[name] == before[name], name
        # Of configuration space, the doctor reads only the first register.
        assert after["config_reads"] - before["config_reads"] <= 4

    def test_record_says_the_same_here(self):
        """A record gives the same findings on another machine of another
        architecture."""
        text = "".join(self.command("record").output)
        # The program has printed a line before the record.
        data = base64.b64decode(text[text.index("H4sI"):])
        with tempfile.TemporaryDirectory() as directory:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(directory, filter="data")
            replayed = common.run("doctor", root=directory).stdout
            assert replayed == pathlib.Path(directory, "live").read_text()
            assert len(data) < 256 << 10

    def test_kvm_does_what_was_said(self):
        found, _ = self.findings("after")
        if not self.CPU:
            assert self.verdict(found, "kvm") == "bad"
            assert ("kvm-usemem", None) not in found
            return
        does = dict(line.split(": ") for line in self.command("kvm").output)
        said = self.verdict(found, "kvm-usemem")
        expected = {("taken", "1"): "good", ("taken", "0"): "note", ("EINVAL", "0"): "bad"}
        assert said == expected.get((does["usemem"], does["cap"])), (does, found["kvm-usemem", None])
        assert self.verdict(found, "kvm-resmem") == "good"
        assert does["resmem"] == "taken"
        # The results of docs/guests.md.
        assert said == ("note" if vm.Kernel(self.KERNEL).version < (6, 17) else "good" if self.CPU == "max" else "bad")
        if said == "bad":
            assert re.search("lacks (CACHE_DIC|FEAT_S2FWB)", self.said(found, "kvm-usemem"))


@pytest.mark.long
class StableMax(Host):
    """"max" has FEAT_S2FWB and CACHE_DIC, as Grace has."""

    KERNEL, CPU, __test__ = "stable", "max", True


class NewestMax(Host):
    KERNEL, CPU, __test__ = "newest", "max", True


@pytest.mark.long
class NewestNeoverseN1(Host):
    """This CPU has neither."""

    KERNEL, CPU, __test__ = "newest", "neoverse-n1", True


@pytest.mark.long
class NewestEL1(Host):
    """A kernel at EL1, without KVM."""

    KERNEL, __test__ = "newest", True
