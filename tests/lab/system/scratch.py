# SPDX-License-Identifier: GPL-2.0-only
"""A temporary system to install packages in: the toolbox's tree with an
overlay.

It does not boot. Tests that need systemd, udev or another kernel use a virtual
machine.
"""

import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

from lab import toolbox

PROJECT = pathlib.Path(__file__).resolve().parents[3]
PACKAGES = PROJECT / "build" / "packages"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The mounts are in the command's own namespace and end with it. The project is
# visible and read-only, except for the counters of tests/stress/coverage. If there is a
# folder of compiled files, it is at /var/cache/ccache.
ENTER = """
set -e
dir=$1 project=$2 ccache=$3 lower=$4
shift 4
mount -t overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" scratch "$dir/root"
cd "$dir/root"
mount --rbind /dev dev
mount --rbind /proc proc
for d in tmp run; do mount -t tmpfs -o mode=1777 scratch "$d"; done
mount --rbind "$dir/shared" mnt
mkdir -p "./$project"
mount --bind "$project" "./$project"
mount -o remount,bind,ro "./$project"
if [ -n "$ccache" ]; then
	mkdir -p "$ccache" var/cache/ccache
	mount --bind "$ccache" var/cache/ccache
fi
[ -z "${COVERAGE:-}" ] || mount --bind "$project/build/coverage" "./$project/build/coverage"
exec chroot . /usr/bin/env -i "$@"
"""


def version():
    """The version of packages that are built in the toolbox, without a
    revision."""
    return subprocess.run(["sh", "scripts/this-version"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.strip()


def package(pattern):
    """The only package in build/packages that matches."""
    found = sorted(PACKAGES.glob(pattern))
    assert len(found) == 1, f"{len(found)} files in {PACKAGES} match {pattern} instead of one"
    return found[0]


@functools.cache
def release(kernel):
    """The release of a kernel of tests/lab/kernels.conf."""
    return toolbox.ask("release", kernel)


def tree(suite):
    """The system of a suite of Debian that tests/lab/system/trees made, for a Scratch's
    lower."""
    done = subprocess.run([PROJECT / "tests/lab/system/trees", "--directory"], stdout=subprocess.PIPE, text=True, check=True)
    return pathlib.Path(done.stdout.strip(), suite)


def deb(suite, package):
    """A package in tree(suite)."""
    return next(tree(suite).glob(f"srv/debian/{package}_*.deb"))


class Scratch:
    """run() runs a command inside. shared is the folder that is /mnt inside,
    and env the environment for commands. With cached, a compiler takes what it
    has compiled before from the cache, as in `scripts/dev/toolbox cached`. lower is
    the system below the overlay."""

    def __init__(self, cached=False, lower="/"):
        self.lower = lower
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="scratch-"))
        for name in ("upper", "work", "root", "shared"):
            (self.dir / name).mkdir()
        self.shared = self.dir / "shared"
        self.env = {}
        self.ccache = ""
        if cached:
            self.ccache = pathlib.Path(os.environ["XDG_CACHE_HOME"], "nvgrace-gpu-vfio-pci", "ccache")
            self.env = {"PATH": f"/usr/lib/ccache:{PATH}", "CCACHE_DIR": "/var/cache/ccache", "CCACHE_MAXSIZE": "1G",
                        "CCACHE_COMPILERCHECK": "content", "CCACHE_DEPEND": "1"}

    def close(self):
        shutil.rmtree(self.dir)

    def run(self, *argv, ok=True, stdin=""):
        """A command's CompletedProcess, with stderr in stdout. With ok, a
        status other than 0 raises AssertionError."""
        env = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8",
               "DEBIAN_FRONTEND": "noninteractive", **self.env}
        result = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", ENTER, "sh", self.dir, PROJECT, self.ccache,
             self.lower, *(f"{k}={v}" for k, v in env.items()), *argv],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, input=stdin, errors="replace", check=False)
        if ok and result.returncode:
            raise AssertionError(f"{' '.join(map(str, argv))}: status {result.returncode}\n{result.stdout}")
        return result

    def sh(self, script, **kwargs):
        return self.run("sh", "-ec", script, **kwargs)

    def write(self, path, content, mode=0o644):
        """Write a file of text or of bytes; not allowed while a command runs."""
        file = self.dir / "upper" / path.lstrip("/")
        if path.startswith("/lib/") or path.startswith("/sbin/") or path.startswith("/bin/"):
            raise ValueError(f"{path} is a link; use its path below /usr")
        file.parent.mkdir(parents=True, exist_ok=True)
        # The overlay marks a removed file with a character device 0:0.
        file.unlink(missing_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)

    def empty(self, path):
        """Hide what the toolbox has in a directory; only before anything is
        written there. Removing thousands of files takes seconds."""
        directory = self.dir / "upper" / path.lstrip("/")
        directory.mkdir(parents=True)
        os.setxattr(directory, "trusted.overlay.opaque", b"y")

    def files(self):
        """The files that were added or changed, as paths inside."""
        upper = self.dir / "upper"
        return {"/" + str(pathlib.Path(where, name).relative_to(upper))
                for where, dirs, names in os.walk(upper) for name in names
                if not pathlib.Path(where, name).is_char_device()}
