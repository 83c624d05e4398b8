# SPDX-License-Identifier: GPL-2.0-only
"""Records the output of `make demo`, `nvgrace-gpu status` and `nvgrace-gpu
doctor` in docs/pictures/*.txt. `make pictures` calls it, inside the toolbox, before
scripts/dev/pictures.

Two machines boot, one after the other: that of the demo, and one whose kernel runs
at EL2, so that the doctor finds KVM. MASKS replaces what differs between two runs,
before the comparison with earlier records.
"""

import contextlib
import difflib
import io
import re
import subprocess
import sys
import tempfile

import demo
from cli import common
from lab import programs, vm

PICTURES = vm.PROJECT / "docs" / "pictures"

# A page shows this width without making the letters smaller.
COLUMNS = 110

# Command, title and description of each record.
RECORDS = {
    "demo": ("make demo", "Output of make demo",
             "Terminal output of make demo: it builds the module, boots a virtual GH200, binds the GPU, draws usemem as BAR4"
             " (94.5 GiB of 128 GiB) and resmem as BAR2 (1.25 GiB of 2 GiB), sizes both BARs in config space, moves data"
             " through mmap, pread and pwrite, resets the device, and ends in a table in which every step has succeeded."),
    "status": ("nvgrace-gpu status 0000:01:00.0", "Output of nvgrace-gpu status",
               "Terminal output of nvgrace-gpu status for a bound GPU: its driver, IOMMU group, features and readiness, a"
               " drawing of its memory with the addresses of usemem (BAR4, write-back) and resmem (BAR2, non-cacheable), how"
               " much of each BAR is memory, and its entries in /proc/iomem."),
    "doctor": ("nvgrace-gpu doctor", "Output of nvgrace-gpu doctor",
               "Terminal output of nvgrace-gpu doctor: one line for each finding, with its verdict, the host or the GPU, and"
               " its name. Most are good. Notes say what the kernel lacks and that scrubbing is off, and an unknown that there is"
               " no QEMU; all have a reason and a remedy. The last line counts the verdicts."),
}

# What may differ between two runs: (pattern, replacement).
MASKS = (
    (r"\b\d+\.\d+\.\d+\S*-arm64\b", "<kernel>"),
    (r"\b\d+(\.\d+)? s\b", "<time>"),
    (r"\bpread \d+\.\d, pwrite \d+\.\d\b", "<speeds>"),
    (r"\bversion \d+\.\d+\.\d+(\+git\S*)?", "<version>"),
    # The kernel and the machine assign these.
    (r"\bat 0x[0-9a-f]+, the device's own", "<address>"),
    (r"group \d+\b", "<group>"),
)

HEAD = """\
# SPDX-License-Identifier: GPL-2.0-only
# Recorded by `make pictures`.
# title: {title}
# desc: {desc}
# columns: {columns}

# {command}
"""


class Screen(io.StringIO):
    """Looks like a terminal to the program that prints on it. Copies the output
    to that of this program."""

    def isatty(self):
        return True

    def write(self, text):
        sys.__stdout__.write(text)
        sys.__stdout__.flush()
        return super().write(text)

    def lines(self):
        """The lines, without the text that was overwritten."""
        return [line.rsplit("\r", 1)[-1].rstrip() for line in self.getvalue().strip("\n").split("\n")]


def run_demo():
    screen = Screen()
    with contextlib.redirect_stdout(screen):
        demo.main()
    return screen.lines()


def run_tool():
    """{name: lines} that nvgrace-gpu prints on a terminal."""
    kernel = vm.Kernel(demo.KERNEL)
    log = programs.log_file("pictures")
    commands = {
        "prepare": "mkdir -p /dev/pts; mount -t devpts devpts /dev/pts; /usr/sbin/nvgrace-gpu bind $(gpu gh200)",
        # The doctor's exit status depends on its findings.
        "status": f"/tests/terminal {COLUMNS} /usr/sbin/nvgrace-gpu status $(gpu gh200)",
        "doctor": f"/tests/terminal {COLUMNS} /usr/sbin/nvgrace-gpu doctor || true",
    }
    with tempfile.TemporaryDirectory() as directory:
        files = {**common.installed(kernel, directory),
                 "/tests/terminal": str(common.build_helper("terminal", directory, kernel.arch.gcc)),
                 f"/boot/config-{kernel.release}": str(kernel.headers / ".config")}
        with vm.Machine(kernel, hypervisor="max", gpus=[{"name": "gh200", "size": demo.SIZE}], files=files,
                        memory="128G", timeout=1800, log=str(log),
                        commands=[{"name": n, "run": text} for n, text in commands.items()]) as machine:
            result = machine.run()
    if result.failures:
        sys.exit("\n".join(f"record: {f}" for f in result.failures) + f"\nrecord: the machine's console is in {log}")
    return {name: "\n".join(result.command(name).output).strip("\n").split("\n") for name in ("status", "doctor")}


def text_of(name, lines):
    command, title, desc = RECORDS[name]
    head = HEAD.format(command=command, title=title, desc=desc, columns=COLUMNS)
    return head + "".join(line.rstrip() + "\n" for line in lines)


def masked(text):
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text)
    return text.splitlines()


def differences(name, text):
    """Lines of a diff from the record to the text."""
    path = PICTURES / f"{name}.txt"
    recorded = path.read_text("utf-8") if path.exists() else ""
    return list(difflib.unified_diff(masked(recorded), masked(text), path.name, "now", lineterm="", n=0))


def main():
    for name, lines in {"demo": run_demo(), **run_tool()}.items():
        text = text_of(name, lines)
        # A difference only in masked text needs no new record.
        if differences(name, text):
            (PICTURES / f"{name}.txt").write_text(text, "utf-8")
            print(f"docs/pictures/{name}.txt")


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, vm.ConfigError) as error:
        sys.exit(f"record: {error}")
