# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of packages share: steps with names, and packages of these
sources or of a copy."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from lab import toolbox
from lab.programs import locked
from lab.system.scratch import PROJECT

# The life of a .deb and of an .rpm before it is removed: what is done, and with which
# package, this version's or a later one's.
LIFE = (("install", "our"), ("upgrade", "next"), ("downgrade", "our"), ("reinstall", "our"))

# Lets output through to the terminal; conftest.py sets it.
terminal = contextlib.nullcontext


@contextlib.contextmanager
def named(text):
    """What fails in here says this, too."""
    try:
        yield
    except BaseException as e:
        e.add_note(f"in: {text}")
        raise


@contextlib.contextmanager
def step(text):
    """The same for a part of a long test, which is shown when it begins."""
    # Its end is " (call)", after xdist's "@GROUP".
    test = re.split("[@ ]", os.environ["PYTEST_CURRENT_TEST"].rpartition("::")[2])[0]
    with terminal():
        print(f"\n... {test}: {text}", file=sys.stderr, flush=True)
    with named(text):
        yield


def run(*argv, ok=True, cwd=PROJECT, **env):
    """What a command has printed, also on stderr. With ok=False, it must fail."""
    done = subprocess.run([str(a) for a in argv], cwd=cwd, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (done.returncode == 0) == ok, f"{' '.join(map(str, argv))}: status {done.returncode}\n{done.stdout}"
    return done.stdout


@contextlib.contextmanager
def new_folder():
    """A temporary folder that the toolbox sees."""
    (PROJECT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="test-", dir=PROJECT / "build") as folder:
        yield pathlib.Path(folder)


def left_out(folder, names):
    """Those of a folder's names that no package has, as scripts/packaging/package finds
    them without git."""
    return {n for n in names if n in (".git", "__pycache__") or n.startswith(".checkpatch-")
            or n == "build" and os.path.isdir(os.path.join(folder, n))}


def copy_sources(to):
    """Copy the project to a new folder; the folder."""
    return shutil.copytree(PROJECT, to, symlinks=True, ignore=left_out)


def make_packages(*kinds, sources=PROJECT, cached=True):
    """Make sources/build/packages. With cached, a compiler takes what it has
    compiled before from the cache."""
    for kind in kinds:
        # All make RPMs in the same folder of /tmp, because the bytes depend on it.
        with locked("rpmbuild"):
            run(*(["scripts/dev/toolbox", "cached"] if cached else []), "scripts/packaging/package", kind, cwd=sources)


MODULE_PACKAGES = "build/module-packages"


def module_packages(kernel, *words, ok=True):
    """Make a kernel's packages of the built module in MODULE_PACKAGES; what make has
    printed, and their paths. Who reads that folder holds the same lock."""
    with locked("module-packages"):
        said = run("scripts/dev/toolbox", "cached", "make", "module-packages", f"KDIR={toolbox.ask('kdir', kernel)}", *words, ok=ok)
    return said, [PROJECT / p for p in re.findall(rf"(?m)^{MODULE_PACKAGES}/.*", said)]


def make_key(home, name="test", options=(), passphrase="", expires="never"):
    """Make a key in gpg's folder; the variables of scripts/packaging/repo that sign
    with it."""
    home.mkdir(mode=0o700, exist_ok=True)
    address = f"{name}@example.org"
    run("gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", passphrase, *options,
        "--quick-generate-key", f"{name} <{address}>", "rsa3072", "sign", expires)
    run("gpgconf", "--homedir", home, "--kill", "all")
    return {"GPG_KEY": address, "GNUPGHOME": str(home)}


def set_version(sources, version):
    """Declares a version in a copy of the project, as a release of it does."""
    old = re.search(r'^PACKAGE_VERSION="(.*?)(\+.*)?"$', (sources / "dkms.conf").read_text(), re.M)[1]
    for place in ("dkms.conf", "debian/changelog", "rpm/nvgrace-gpu-vfio-pci.spec"):
        file = sources / place
        text = file.read_text()
        assert old in text, place
        file.write_text(re.sub(re.escape(old) + r"(\+git)?", version, text))


def build_stand_in(directory, packages):
    """Makes the repository directory/stand-in with a package that provides what
    these RPMs require. Where the tests run, Debian's packages have it, some
    under other names (such as kernel-devel)."""
    def words(what):
        # On stderr it complains that the toolbox has no RPM database.
        said = run("sh", "-c", f'rpm -qp --{what} "$@" 2>/dev/null', "sh", *packages)
        return {line.strip() for line in said.splitlines() if line.strip()}

    own = {w.split()[0] for w in words("provides")}
    needed = sorted(w for w in words("requires") if not w.startswith(("rpmlib(", "(")) and w.split()[0] not in own)
    spec = directory / "stand-in.spec"
    spec.write_text("Name: stand-in\nVersion: 1\nRelease: 1\nSummary: Names of Debian's packages\n"
                    "License: GPL-2.0-only\nBuildArch: noarch\nAutoReqProv: no\n" +
                    "".join(f"Provides: {re.sub(r' *(>=|>) *', ' = ', w)}\n" for w in needed) +
                    "%description\nFor the test.\n%files\n")
    run("rpmbuild", "-bb", "--target", "noarch", "--define", f"_topdir {directory}/rpmbuild", spec)
    (directory / "stand-in").mkdir()
    for f in (directory / "rpmbuild" / "RPMS").rglob("*.rpm"):
        shutil.move(f, directory / "stand-in")
    shutil.rmtree(directory / "rpmbuild")
    run("createrepo_c", "-q", directory / "stand-in")
