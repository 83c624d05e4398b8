# SPDX-License-Identifier: GPL-2.0-only
"""Programs of Debian packages that machines get, with their libraries."""

import pathlib
import re
import subprocess
import sys

from lab import toolbox


def root(name):
    """The directory that `scripts/dev/toolbox root NAME` made."""
    try:
        return pathlib.Path(toolbox.ask("root", name))
    except toolbox.Failed as e:
        sys.exit(str(e))


def libraries(paths, directory):
    """The libraries below a directory that programs are linked with, and what
    these are linked with: {name: path}."""
    there = {p.name: p for p in pathlib.Path(directory).rglob("*.so*")}
    found, todo = {}, list(paths)
    while todo:
        said = subprocess.run(["readelf", "-d", todo.pop()], capture_output=True, text=True, check=True).stdout
        # The machine has the others, such as the loader.
        for name in re.findall(r"\(NEEDED\).*\[(.*)\]", said):
            if name in there and name not in found:
                found[name] = there[name].resolve()
                todo.append(found[name])
    return found


def programs(directory, names):
    """Programs in /tools/bin, and their libraries in /tools/lib: {path in the
    guest: path here}."""
    files = {f"/tools/bin/{name}": (directory / "usr/bin" / name).resolve() for name in names}
    files.update({f"/tools/lib/{name}": path for name, path in libraries(files.values(), directory / "usr/lib").items()})
    return {guest: str(path) for guest, path in files.items()}
