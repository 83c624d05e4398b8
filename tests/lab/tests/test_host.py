# SPDX-License-Identifier: GPL-2.0-only
"""How scripts/dev/toolbox gets root and private mounts on different hosts: be_root
of scripts/dev/step.sh."""

import shutil
import subprocess

from lab import vm

# The mount on /mnt is private if it is only in this script's list of mounts.
SCRIPT = """#!/bin/bash
cd /tmp || exit
. /step.sh
log=/dev/null
be_root "$@"
echo "$PWD $# $2 $(id -u)"
unshare --mount --user true && mount -t tmpfs private /mnt && grep -c ' /mnt ' /proc/self/mounts
"""

# A directory with what the script needs. Only things in it are mount points.
ENTER = """
cd "$1" || exit
mkdir -p usr proc dev mnt tmp
ln -sf usr/bin usr/lib usr/lib64 usr/sbin .
mount --bind /usr usr && mount --rbind /proc proc && mount --rbind /dev dev || exit
chroot . /script one "two words" || exit
grep -c '/mnt ' /proc/self/mounts || true
"""


STEP = vm.PROJECT / "scripts/dev/step.sh"


def test_a_chroot_becomes_the_root_of_its_own_mounts(tmp_path):
    shutil.copy(STEP, tmp_path)
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    done = subprocess.run(["unshare", "--mount", "sh", "-c", ENTER, "sh", tmp_path], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("/tmp 2 two words 0\n1\n0\n", "")


def test_a_user_without_namespaces_learns_what_is_missing():
    """nobody has no other users in /etc/subuid. The project may be in a folder
    that only root may enter."""
    done = subprocess.run(["bash", "-c", f"{STEP.read_text()}\nbe_root"], cwd="/", user=65534, group=65534, extra_groups=[],
                          capture_output=True, text=True)
    assert done.returncode == 1 and "install uidmap" in done.stderr, done.stderr
