# SPDX-License-Identifier: GPL-2.0-only
"""What nvgrace-gpu metrics --output=FILE does to a FILE of each kind: only a
regular file is replaced.

The devices are nodes of the test's own, so that the host keeps its /dev.
"""

import os
import pathlib
import socket
import stat
import subprocess
import tempfile
import threading

import pytest

from cli.common import NOBODY, build, run
from cli.test_trees import G1

# The numbers of these devices on every Linux.
NULL, FULL = os.makedev(1, 3), os.makedev(1, 7)


class Files:
    """The folder of the files, and a host's tree."""

    def __init__(self, directory, tree):
        self.directory, self.tree = directory, tree.bound(G1)
        self.expected = run("metrics", root=tree.root).stdout

    def write(self, file, status=0, error="", **more):
        done = run("metrics", f"--output={file}", root=self.tree.root, **more)
        assert (done.returncode, done.stderr) == (status, f"nvgrace-gpu: --output={file}: {error}\n" if error else "")
        return done

    def names(self):
        return sorted(p.name for p in self.directory.iterdir())

    def node(self, name, number):
        path = self.directory / name
        os.mknod(path, stat.S_IFCHR | 0o666, number)
        return path


@pytest.fixture
def files(tree):
    # Another user than root enters it.
    with tempfile.TemporaryDirectory(prefix="replace-") as directory:
        yield Files(pathlib.Path(directory), tree)


def test_device(files):
    for name, number, status, error in (("null", NULL, 0, ""), ("full", FULL, 1, "No space left on device")):
        path = files.node(name, number)
        link = files.directory / f"{name}-link"
        link.symlink_to(name)
        for file in (path, link):
            files.write(file, status, error)
            assert stat.S_ISCHR(path.lstat().st_mode), path
            assert path.lstat().st_rdev == number
            assert link.is_symlink()
    assert files.names() == ["full", "full-link", "null", "null-link"]


def test_fifo(files):
    path = files.directory / "fifo"
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_text("utf-8")))
    reader.start()
    files.write(path)
    reader.join()
    assert read == [files.expected]
    assert path.is_fifo()
    assert files.names() == ["fifo"]


def test_socket(files):
    path = files.directory / "socket"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))
        files.write(path, 1, "No such device or address")
    assert path.is_socket()
    assert files.names() == ["socket"]


def test_link(files):
    """It is followed, also to a file that is not there yet and to one in
    another directory, which gets the temporary file."""
    files.directory.joinpath("other").mkdir()
    target = files.directory / "other/target.prom"
    for name, to in (("absolute", target), ("relative", "other/target.prom"), ("second", "absolute")):
        link = files.directory / name
        link.symlink_to(to)
        for before in (None, "old"):
            target.unlink(missing_ok=True)
            if before:
                target.write_text(before)
            inode = target.stat().st_ino if before else None
            files.write(link)
            assert link.is_symlink()
            assert (target.read_text("utf-8"), os.listdir(target.parent)) == (files.expected, [target.name])
            assert target.stat().st_ino != inode
    assert files.names() == ["absolute", "other", "relative", "second"]
    loop = files.directory / "loop"
    loop.symlink_to("loop")
    files.write(loop, 1, "Too many levels of symbolic links")
    nowhere = files.directory / "nowhere"
    nowhere.symlink_to("no/such")
    files.write(nowhere, 1, "No such file or directory")
    assert nowhere.is_symlink()


def test_directory(files):
    files.write(files.directory, 1, "Is a directory")
    files.write(f"{files.directory}/no/such", 1, f"{files.directory}/no: No such file or directory; name a file in the folder that your "
                "collector reads; for nvgrace-gpu-metrics.service, it is FILE= of \"systemctl edit nvgrace-gpu-metrics.service\"")
    assert files.names() == []
    assert list(files.directory.parent.glob(f".{files.directory.name}*")) == []


def test_standard_output(files):
    """By each of its names, and whatever it is. What the file already has
    stays."""
    for file in ("-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"):
        assert files.write(file).stdout == files.expected
        path = files.directory / "out"
        path.write_text("first\n")
        with open(path, "a", encoding="utf-8") as out:
            done = subprocess.run([build(), "--root", files.tree.root, "metrics", "-o", file],
                                  stdout=out, stderr=subprocess.PIPE, text=True)
            inode = os.fstat(out.fileno()).st_ino
        assert (done.returncode, done.stderr) == (0, "")
        assert (path.read_text("utf-8"), path.stat().st_ino) == (f"first\n{files.expected}", inode)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            done = subprocess.run([build(), "--root", files.tree.root, "metrics", "-o", file],
                                  stdout=theirs, stderr=subprocess.PIPE, text=True)
            theirs.close()
            with ours.makefile() as read:
                assert (done.returncode, done.stderr, read.read()) == (0, "", files.expected)
    assert files.names() == ["out"]


def test_full_disk(files):
    """The old file stays, or none is left. The disk is one of the test's
    own, in a mount namespace that ends with it."""
    for old in ("", "echo old > nvgrace.prom"):
        script = f"""
            mount -t tmpfs -o size=16k none {files.directory} && cd {files.directory} || exit 99
            {old}
            cat /dev/zero > filler 2>/dev/null
            "$@"
            echo status $?
            for file in .* *; do [ -f "$file" ] && echo "$file"; done
            cat nvgrace.prom 2>/dev/null
            true"""
        done = run("metrics", f"--output={files.directory}/nvgrace.prom", root=files.tree.root,
                   before=["unshare", "--mount", "sh", "-c", script, "sh"])
        assert done.stdout.split("\n") == ["status 1", "filler", *(["nvgrace.prom", "old"] if old else []), ""]
        assert done.stderr == f"nvgrace-gpu: --output={files.directory}/nvgrace.prom: No space left on device\n"


def test_directory_without_permission(files):
    """Another user can't replace a file there, and leaves it as it is. A
    device there can be written."""
    files.directory.chmod(0o755)
    file = files.directory / "nvgrace.prom"
    file.write_text("old")
    file.chmod(0o666)
    null = files.node("null", NULL)
    null.chmod(0o666)
    subprocess.run(["chmod", "-R", "a+rX", files.tree.root], check=True)
    files.write(file, 1, "Permission denied", **NOBODY)
    files.write(files.directory / "new.prom", 1, "Permission denied", **NOBODY)
    files.write(null, **NOBODY)
    assert (file.read_text(), files.names()) == ("old", ["null", "nvgrace.prom"])
