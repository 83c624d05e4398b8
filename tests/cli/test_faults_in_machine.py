# SPDX-License-Identifier: GPL-2.0-only
"""nvgrace-gpu in a virtual GH200 while one call that changes something fails.

fail_call.c makes the call fail.
"""

import re

import pytest

from cli import common, in_machine
from cli.in_machine import SMALL, InMachine, MiB
from cli.test_faults import STATUSES

pytestmark = pytest.mark.long

GPUS = [{"name": "a", "size": 32 * MiB, "model": SMALL}, {"name": "b", "size": 32 * MiB, "model": SMALL}]

# How many calls of each command fail, spread evenly. A command takes up to 2 s.
POINTS = 40

LIBRARY = in_machine.LIBRARY + r"""
state() {
	driver=$(readlink $devices/$(gpu $1)/driver)
	echo "state: ${driver##*/} $(cat $devices/$(gpu $1)/driver_override) $(ls -A /etc/nvgrace-gpu.conf.d | tr '\n' ' ')"
}
# failing N COMMAND...: runs COMMAND, whose N-th call fails.
failing() {
	n=$1
	shift
	rm -f /tmp/failed
	say run env LD_PRELOAD=/tests/fail_call.so FAIL_KIND=w FAIL_CALL=$n FAIL_FILE=/tmp/failed $nvgrace "$@"
	echo "failed: $(cat /tmp/failed)"
}
# each BEFORE COMMAND...: lets all calls of COMMAND fail, or POINTS of them, one
# in each run. The script BEFORE runs before each.
each() {
	before=$1
	shift
	eval "$before"
	failing 1000000000 "$@"
	read -r name count </tmp/failed
	step=$(((count + POINTS - 1) / POINTS))
	i=1
	while [ $i -le $count ]; do
		eval "$before"
		state a
		failing $i "$@"
		state a
		i=$((i + step))
	done
}
""".replace("POINTS", str(POINTS))

QUIET = ">/dev/null 2>&1"
COMMANDS = {
    "prepare": "mkdir -p /etc/nvgrace-gpu.conf.d /var/log; modprobe vfio-pci; echo 1 >/proc/sys/kernel/printk",
    "bind": f"each '$nvgrace unbind --persist --no-initramfs $(gpu a) {QUIET}' bind --persist --no-initramfs $(gpu a)",
    "unbind": f"each '$nvgrace bind --persist --no-initramfs $(gpu a) {QUIET}' unbind --persist --no-initramfs $(gpu a)",
    "from-vfio-pci": f"each '$nvgrace unbind --persist --no-initramfs $(gpu a) {QUIET}; bind a vfio-pci' bind $(gpu a)",
    "bound": "run unbind $(gpu a); run bind $(gpu a) $(gpu b)",
    "scrub": "each : scrub --verify $(gpu a)",
    "sound": "run scrub --verify $(gpu a); run unbind $(gpu a) $(gpu b)",
}


class Faults(InMachine):
    KERNEL, __test__ = "newest", True
    LOG, GPUS, COMMANDS, LIBRARY = "cli-faults", GPUS, COMMANDS, LIBRARY

    @classmethod
    def files(cls, kernel, directory):
        return {**in_machine.udev(kernel), "/tests/fail_call.so": str(common.build_library("fail_call", directory, kernel.arch.gcc))}

    def runs(self, command):
        """[(the call that failed, status, state before, state after, output)]
        of a command's runs."""
        found = []
        for before, run, after in re.findall(r"^state: (.*)\n((?:(?!state: ).*\n)*)state: (.*)$", self.output(command), re.M):
            status, failed = re.search(r"^run-rc: (\d+)\n(?:.*\n)*?failed: (.*)$", run, re.M).groups()
            found.append((failed, int(status), before, after, "\n".join(re.findall("^run-(?:out|err): (.*)$", run, re.M))))
        assert len(found) > 5, f"{command}: {self.output(command)[-3000:]}"
        return found

    def check(self, command, judge):
        """judge(status, state before, state after, output) returns what is
        wrong, or None."""
        wrong = []
        for failed, status, before, after, said in self.runs(command):
            what = judge(status, before, after, said)
            if not failed or status not in STATUSES or not said:
                what = "it did not end with a status and a message"
            if what:
                wrong.append(f"{command}, {failed} fails: {what}: status {status}, before: {before}, after: {after}\n{said}")
        assert wrong == [], "\n".join(wrong)

    def check_whole(self, command):
        def judge(status, before, after, said):
            if status and after != before and not re.search("can't restore|at boot|initramfs", said):
                return "the change is neither complete nor undone, and no message says so"
            return None

        self.check(command, judge)

    def check_as_before(self, command):
        self.check(command, lambda status, before, after, said: None if after == before else "the GPU's state changed")

    def test_bind_is_whole_or_is_put_back(self):
        self.check_whole("bind")

    def test_unbind_is_whole_or_is_put_back(self):
        self.check_whole("unbind")

    def test_bind_from_vfio_pci_is_whole_or_is_put_back(self):
        self.check_whole("from-vfio-pci")

    def test_scrub_leaves_the_gpu_as_it_was(self):
        self.check_as_before("scrub")

    def test_the_gpu_is_sound_in_the_end(self):
        assert self.codes("sound") == [0, 0]
