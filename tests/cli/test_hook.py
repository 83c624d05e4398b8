# SPDX-License-Identifier: GPL-2.0-only
"""docs/libvirt-hook-qemu, with the domain of docs/libvirt-domain.xml and a
sysfs made for the test."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

DOCS = pathlib.Path(__file__).resolve().parent.parent.parent / "docs"
ADDRESS = "0009:01:00.0"


class Hook(unittest.TestCase):
    """Runs the hook with a program in place of nvgrace-gpu, which records its
    arguments and exits with a status."""

    def run_hook(self, *words, can_scrub=True, status=0):
        with tempfile.TemporaryDirectory() as directory:
            top = pathlib.Path(directory)
            device = top / "sys/bus/pci/devices" / ADDRESS / "nvgrace_gpu"
            device.mkdir(parents=True)
            if can_scrub:
                (device / "scrub").touch()
            program = top / "nvgrace-gpu"
            program.write_text(f"#!/bin/sh\necho \"$@\" >{top}/said\necho a line\nexit {status}\n")
            program.chmod(0o755)
            with open(DOCS / "libvirt-domain.xml", "rb") as domain:
                run = subprocess.run([sys.executable, str(DOCS / "libvirt-hook-qemu"), "guest", *words, "-"], stdin=domain,
                                     env={**os.environ, "PATH": f"{top}:{os.environ['PATH']}", "NVGRACE_GPU_ROOT": directory},
                                     capture_output=True, text=True)
            said = top / "said"
            return run.returncode, said.read_text().strip() if said.exists() else None, run.stdout + run.stderr

    def test_a_guest_that_starts_has_its_gpus_cleared(self):
        self.assertEqual(self.run_hook("prepare", "begin"), (0, f"scrub {ADDRESS}", ""))

    def test_a_gpu_that_can_not_be_cleared_keeps_the_guest_from_starting(self):
        self.assertEqual(self.run_hook("prepare", "begin", status=4), (4, f"scrub {ADDRESS}", ""))

    def test_other_moments_and_other_devices_are_left_alone(self):
        self.assertEqual(self.run_hook("release", "end"), (0, None, ""))
        self.assertEqual(self.run_hook("prepare", "begin", can_scrub=False), (0, None, ""))
