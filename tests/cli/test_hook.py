# SPDX-License-Identifier: GPL-2.0-only
"""docs/libvirt-hook-qemu, with the domain of docs/libvirt-domain.xml and a
sysfs made for the test."""

import os
import pathlib
import subprocess
import sys

import pytest

DOCS = pathlib.Path(__file__).resolve().parent.parent.parent / "docs"
ADDRESS = "0009:01:00.0"


@pytest.fixture
def hook(tmp_path):
    """Runs the hook with a program in place of nvgrace-gpu, which records its
    arguments and exits with a status: what the hook exits with, the arguments,
    and all output."""
    device = tmp_path / "sys/bus/pci/devices" / ADDRESS / "nvgrace_gpu"
    device.mkdir(parents=True)
    program, said = tmp_path / "nvgrace-gpu", tmp_path / "said"

    def run(*words, can_scrub=True, status=0):
        (device / "scrub").unlink(missing_ok=True)
        if can_scrub:
            (device / "scrub").touch()
        said.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\necho \"$@\" >{said}\necho a line\nexit {status}\n")
        program.chmod(0o755)
        with open(DOCS / "libvirt-domain.xml", "rb") as domain:
            done = subprocess.run([sys.executable, DOCS / "libvirt-hook-qemu", "guest", *words, "-"], stdin=domain,
                                  env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NVGRACE_GPU_ROOT": str(tmp_path)},
                                  capture_output=True, text=True)
        return done.returncode, said.read_text().strip() if said.exists() else None, done.stdout + done.stderr

    return run


def test_a_guest_that_starts_has_its_gpus_cleared(hook):
    assert hook("prepare", "begin") == (0, f"scrub {ADDRESS}", "")


def test_a_gpu_that_can_not_be_cleared_keeps_the_guest_from_starting(hook):
    assert hook("prepare", "begin", status=4) == (4, f"scrub {ADDRESS}", "")


def test_other_moments_and_other_devices_are_left_alone(hook):
    assert hook("release", "end") == (0, None, "")
    assert hook("prepare", "begin", can_scrub=False) == (0, None, "")
