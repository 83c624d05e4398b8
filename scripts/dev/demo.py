# SPDX-License-Identifier: GPL-2.0-only
"""`make demo`: boots a virtual GH200, and does with its GPU what an administrator
does, by nvgrace-gpu(8).

    demo.py             show it
    demo.py --record    the same, and write what nvgrace-gpu prints to README.md,
                        where it differs; `make generated` calls this

Inside the toolbox."""

import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile

from cli import common
from lab import programs, session, vm

README = vm.PROJECT / "README.md"
PLACE = re.compile(r"(?<=<!-- make generated records this. -->\n\n).*?(?=\n<!-- It ends here. -->)", re.S)

KERNEL = "newest"
# A GH200 of 96 GB: 95.75 GiB.
SIZE = 0x17_F000_0000
STEPS = (
    ("Bind the GPU to this driver", "bind {gpu}"),
    ("Check the host", "doctor"),
    ("Show what a VMM gets: two ordinary BARs", "status {gpu}"),
    ("Open it as a VMM does, size its BARs, and move data", "test --yes --until=touch {gpu}"),
    ("Give it back", "unbind {gpu}"),
)

# What may differ between two runs.
VARIABLE = re.compile(r"\d+\.\d+\.\d+\S*-arm64"         # the kernel
                      r"|\d+\.\d+\.\d+(\+git[^\s,]*)?"   # the version
                      r"|EDK II, [^,]+, [\d/]+"
                      r"|after \d+ ms"
                      # The kernel and the machine assign these.
                      r"|0x[0-9a-f]+, the device's own|group \d+")


def machine(directory):
    """A virtual GH200 that boots."""
    kernel = vm.Kernel(KERNEL)
    print(f"building the module and nvgrace-gpu for Linux {kernel.release} (arm64) ...", flush=True)
    files = {**common.installed(kernel, directory), **common.testers(kernel, directory), **kernel.config_file}
    # At EL2, where the kernel has KVM.
    return session.Interactive(kernel, gpus=[{"name": "gh200", "size": SIZE}], files=files, memory="128G", hypervisor="max",
                               log=str(programs.log_file("demo")))


def steps(booted):
    """Does the steps in a machine: what they print, with their titles."""
    print("booting a virtual GH200 (QEMU, emulated; 95.75 GiB of GPU memory, sparse): half a minute ...\n", flush=True)
    booted.run("prepare", "mkdir -p /var/log")
    shown = []
    for number, (title, words) in enumerate(STEPS, 1):
        words = words.format(gpu=booted.machine.gpus[0].pci)
        print(f"{number}. {title}:\n\n# nvgrace-gpu {words}", flush=True)
        done = booted.run(words.split()[0], f"/usr/sbin/nvgrace-gpu {words}")
        output = "".join(f"{line.rstrip()}\n" for line in done.output)
        print(output, flush=True)
        shown.append(f"# nvgrace-gpu {words}\n{output}")
        if done.rc:
            break
    return "\n".join(shown)


def run():
    """Shows all of it: what the steps have printed."""
    text = ""
    with tempfile.TemporaryDirectory() as directory:
        booted = machine(directory)
        with booted.machine:
            with contextlib.suppress(session.Ended):      # the result says why
                text = steps(booted)
            result = booted.end()
    log = pathlib.Path(booted.machine.log_path).relative_to(vm.PROJECT)
    assert not result.failures, "\n".join([*result.failures, f"the machine's console is in {log}"])
    print(f"A real kernel, driver, vfio and ACPI table; the GPU is a model, the CPU emulated. Kernel log: clean.\n"
          f"{result.seconds:.0f} s in the machine; its console is in {log}.")
    return text


def recorded():
    """That text as README.md has it."""
    return re.sub("^    ", "", PLACE.search(README.read_text("utf-8"))[0], flags=re.M)


def comparable(text):
    """The words. Lines break elsewhere if what is in them has another length."""
    return VARIABLE.sub("...", " ".join(text.split())).split()


def main():
    text = run()
    if sys.argv[1:] == ["--record"] and comparable(text) != comparable(recorded()):
        indented = re.sub("^(?=.)", "    ", text, flags=re.M)
        README.write_text(PLACE.sub(lambda _: indented, README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.CalledProcessError, vm.ConfigError) as error:
        sys.exit(f"demo: {error}")
