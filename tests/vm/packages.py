# SPDX-License-Identifier: GPL-2.0-only
"""Programs of Debian's packages for a machine: what `scripts/toolbox root` has unpacked, with its libraries."""

import pathlib
import re
import subprocess
import sys

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent


def root(name):
    """The directory that `scripts/toolbox root NAME` has made."""
    done = subprocess.run([PROJECT / "scripts/toolbox", "root", name], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return pathlib.Path(done.stdout.strip())


def libraries(paths, directory):
    """{name: path} of the libraries below a directory that programs are linked with, and those that these need."""
    there = {p.name: p for p in pathlib.Path(directory).rglob("*.so*")}
    found, todo = {}, list(paths)
    while todo:
        said = subprocess.run(["readelf", "-d", todo.pop()], capture_output=True, text=True, check=True).stdout
        # What isn't there, as the loader, the machine has of its own.
        for name in re.findall(r"\(NEEDED\).*\[(.*)\]", said):
            if name in there and name not in found:
                found[name] = there[name].resolve()
                todo.append(found[name])
    return found


def programs(directory, names):
    """{path in the machine: path here}: programs in /tools/bin, and in /tools/lib all that they are linked with."""
    files = {f"/tools/bin/{name}": (directory / "usr/bin" / name).resolve() for name in names}
    files.update({f"/tools/lib/{name}": path for name, path in libraries(files.values(), directory / "usr/lib").items()})
    return {guest: str(path) for guest, path in files.items()}
