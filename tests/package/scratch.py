# SPDX-License-Identifier: GPL-2.0-only
"""A throw-away system to install packages in: the toolbox's tree with a layer of its own above it.

For the tests of this folder, inside the toolbox. Nothing runs at boot in there: what needs systemd, udev or a kernel
of its own is tested in a virtual machine.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGES = PROJECT / "build" / "packages"

# Mounts end with the command: they are in its own namespace. The project is there, and can't be written to, but for the
# counters of tests/coverage.
ENTER = """
set -e
dir=$1 project=$2
shift 2
mount -t overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" scratch "$dir/root"
cd "$dir/root"
mount --rbind /dev dev
mount --rbind /proc proc
for d in tmp run; do mount -t tmpfs -o mode=1777 scratch "$d"; done
mount --rbind "$dir/shared" mnt
mkdir -p "./$project"
mount --bind "$project" "./$project"
mount -o remount,bind,ro "./$project"
[ -z "${COVERAGE:-}" ] || mount --bind "$project/build/coverage" "./$project/build/coverage"
exec chroot . /usr/bin/env -i "$@"
"""


def version():
    """The package's, of dkms.conf."""
    return re.search(r'^PACKAGE_VERSION="(.*)"$', (PROJECT / "dkms.conf").read_text(), re.M)[1]


def deb_version():
    """With Debian's revision, of debian/changelog."""
    return re.match(r"\S+ \((\S+)\)", (PROJECT / "debian" / "changelog").read_text())[1]


def package(pattern):
    """The one package in build/packages of this name, which `make deb` or `make rpm` puts there."""
    found = sorted(PACKAGES.glob(pattern))
    if len(found) != 1:
        kind = "rpm" if pattern.endswith("rpm") else "deb"
        raise AssertionError(f"{len(found)} files in {PACKAGES} are {pattern}: run `make {kind}` first")
    return found[0]


class Scratch:
    """run() runs a command in there; shared is a folder that is /mnt inside; path() is where a changed file is."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="scratch-"))
        for name in ("upper", "work", "root", "shared"):
            (self.dir / name).mkdir()
        self.shared = self.dir / "shared"
        self.env = {}

    def close(self):
        shutil.rmtree(self.dir)

    def run(self, *argv, ok=True, stdin=""):
        """Its CompletedProcess, with both outputs in stdout; ok: whether a status other than 0 is an error."""
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
               "DEBIAN_FRONTEND": "noninteractive", **self.env}
        result = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", ENTER, "sh", self.dir, PROJECT,
             *(f"{k}={v}" for k, v in env.items()), *argv],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, input=stdin, errors="replace", check=False)
        if ok and result.returncode:
            raise AssertionError(f"{' '.join(map(str, argv))}: status {result.returncode}\n{result.stdout}")
        return result

    def sh(self, script, **kwargs):
        return self.run("sh", "-ec", script, **kwargs)

    def write(self, path, text, mode=0o644):
        """Not while a command runs."""
        file = self.dir / "upper" / path.lstrip("/")
        if path.startswith("/lib/") or path.startswith("/sbin/") or path.startswith("/bin/"):
            raise ValueError(f"{path}: in the layer, only /usr has it")
        file.parent.mkdir(parents=True, exist_ok=True)
        # What was removed is a character device, 0:0.
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def files(self):
        """All that was added to the tree or changed in it, as paths in there."""
        upper = self.dir / "upper"
        return {"/" + str(pathlib.Path(where, name).relative_to(upper))
                for where, dirs, names in os.walk(upper) for name in names
                if not pathlib.Path(where, name).is_char_device()}
