# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of packages share: steps with names, and packages of these
sources or of a copy."""

import contextlib
import os
import re
import shutil
import subprocess
import sys

from lab.programs import locked
from lab.system.scratch import PROJECT

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


def left_out(folder, names):
    """Those of a folder's names that no package has, as scripts/packaging/package finds
    them without git."""
    return {n for n in names if n in (".git", "__pycache__") or n.startswith(".checkpatch-")
            or n == "build" and os.path.isdir(os.path.join(folder, n))}


def copy_sources(to):
    """Copy the project to a new folder, below build/ if the toolbox is to work
    there; the folder."""
    return shutil.copytree(PROJECT, to, symlinks=True, ignore=left_out)


def make_packages(*kinds, sources=PROJECT, cached=True):
    """Make sources/build/packages. With cached, a compiler takes what it has
    compiled before from the cache."""
    for kind in kinds:
        # All make RPMs in the same folder of /tmp, because the bytes depend on it.
        with locked("rpmbuild"):
            done = subprocess.run([*(["scripts/dev/toolbox", "cached"] if cached else []), "scripts/packaging/package", kind], cwd=sources,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert not done.returncode, done.stdout
