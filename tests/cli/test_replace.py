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
import unittest

from cli.common import build, build_helper, run
from cli.test_trees import G1, Tree

# The numbers of these devices on every Linux.
NULL, FULL = os.makedev(1, 3), os.makedev(1, 7)


class Replace(unittest.TestCase):
    def setUp(self):
        self.tree = Tree()
        self.tree.__enter__()
        self.addCleanup(self.tree.__exit__, None, None, None)
        self.tree.bound(G1)
        directory = tempfile.TemporaryDirectory(prefix="replace-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.expected = run("metrics", root=self.tree.root).stdout

    def write(self, file, status=0, error="", **more):
        done = run("metrics", f"--output={file}", root=self.tree.root, **more)
        self.assertEqual((done.returncode, done.stderr),
                         (status, f"nvgrace-gpu: --output={file}: {error}\n" if error else ""))
        return done

    def names(self):
        return sorted(p.name for p in self.directory.iterdir())

    def node(self, name, number):
        path = self.directory / name
        os.mknod(path, stat.S_IFCHR | 0o666, number)
        return path

    def test_device(self):
        for name, number, status, error in (("null", NULL, 0, ""), ("full", FULL, 1, "No space left on device")):
            path = self.node(name, number)
            link = self.directory / f"{name}-link"
            link.symlink_to(name)
            for file in (path, link):
                self.write(file, status, error)
                self.assertTrue(stat.S_ISCHR(path.lstat().st_mode), path)
                self.assertEqual(path.lstat().st_rdev, number)
                self.assertTrue(link.is_symlink())
        self.assertEqual(self.names(), ["full", "full-link", "null", "null-link"])

    def test_fifo(self):
        path = self.directory / "fifo"
        os.mkfifo(path)
        read = []
        reader = threading.Thread(target=lambda: read.append(path.read_text("utf-8")))
        reader.start()
        self.write(path)
        reader.join()
        self.assertEqual(read, [self.expected])
        self.assertTrue(path.is_fifo())
        self.assertEqual(self.names(), ["fifo"])

    def test_socket(self):
        path = self.directory / "socket"
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(path))
            self.write(path, 1, "No such device or address")
        self.assertTrue(path.is_socket())
        self.assertEqual(self.names(), ["socket"])

    def test_link(self):
        """It is followed, also to a file that is not there yet and to one in
        another directory, which gets the temporary file."""
        self.directory.joinpath("other").mkdir()
        target = self.directory / "other/target.prom"
        for name, to in (("absolute", target), ("relative", "other/target.prom"), ("second", "absolute")):
            link = self.directory / name
            link.symlink_to(to)
            for before in (None, "old"):
                target.unlink(missing_ok=True)
                if before:
                    target.write_text(before)
                inode = target.stat().st_ino if before else None
                self.write(link)
                self.assertTrue(link.is_symlink())
                self.assertEqual((target.read_text("utf-8"), os.listdir(target.parent)), (self.expected, [target.name]))
                self.assertNotEqual(target.stat().st_ino, inode)
        self.assertEqual(self.names(), ["absolute", "other", "relative", "second"])
        loop = self.directory / "loop"
        loop.symlink_to("loop")
        self.write(loop, 1, "Too many levels of symbolic links")
        nowhere = self.directory / "nowhere"
        nowhere.symlink_to("no/such")
        self.write(nowhere, 1, "No such file or directory")
        self.assertTrue(nowhere.is_symlink())

    def test_directory(self):
        self.write(self.directory, 1, "Is a directory")
        self.write(f"{self.directory}/no/such", 1, "No such file or directory")
        self.assertEqual(self.names(), [])
        self.assertEqual(list(self.directory.parent.glob(f".{self.directory.name}*")), [])

    def test_standard_output(self):
        """By each of its names, and whatever it is. What the file already has
        stays."""
        for file in ("-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"):
            self.assertEqual(self.write(file).stdout, self.expected)
            path = self.directory / "out"
            path.write_text("first\n")
            with open(path, "a", encoding="utf-8") as out:
                done = subprocess.run([build(), "--root", self.tree.root, "metrics", "-o", file],
                                      stdout=out, stderr=subprocess.PIPE, text=True)
                inode = os.fstat(out.fileno()).st_ino
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual((path.read_text("utf-8"), path.stat().st_ino), (f"first\n{self.expected}", inode))
            ours, theirs = socket.socketpair()
            with ours, theirs:
                done = subprocess.run([build(), "--root", self.tree.root, "metrics", "-o", file],
                                      stdout=theirs, stderr=subprocess.PIPE, text=True)
                theirs.close()
                with ours.makefile() as read:
                    self.assertEqual((done.returncode, done.stderr, read.read()), (0, "", self.expected))
        self.assertEqual(self.names(), ["out"])

    def test_full_disk(self):
        """The old file stays, or none is left. The disk is one of the test's
        own, in a mount namespace that ends with it."""
        for old in ("", "echo old > nvgrace.prom"):
            script = f"""
                mount -t tmpfs -o size=16k none {self.directory} && cd {self.directory} || exit 99
                {old}
                cat /dev/zero > filler 2>/dev/null
                "$@"
                echo status $?
                for file in .* *; do [ -f "$file" ] && echo "$file"; done
                cat nvgrace.prom 2>/dev/null
                true"""
            done = run("metrics", f"--output={self.directory}/nvgrace.prom", root=self.tree.root,
                       before=["unshare", "--mount", "sh", "-c", script, "sh"])
            self.assertEqual(done.stdout.split("\n"),
                             ["status 1", "filler", *(["nvgrace.prom", "old"] if old else []), ""])
            self.assertEqual(done.stderr,
                             f"nvgrace-gpu: --output={self.directory}/nvgrace.prom: No space left on device\n")

    def test_directory_without_permission(self):
        """Another user can't replace a file there, and leaves it as it is. A
        device there can be written."""
        self.directory.chmod(0o755)
        file = self.directory / "nvgrace.prom"
        file.write_text("old")
        file.chmod(0o666)
        null = self.node("null", NULL)
        null.chmod(0o666)
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0o755)
            nobody = build_helper("as_nobody", place)
            subprocess.run(["chmod", "-R", "a+rX", self.tree.root], check=True)
            before = ["sh", "-c", 'cp "$2" "$0/program" && chmod 755 "$0/program" && shift 2 && '
                      'exec "$0/as_nobody" "$0/program" "$@"', place, nobody]
            self.write(file, 1, "Permission denied", before=before)
            self.write(self.directory / "new.prom", 1, "Permission denied", before=before)
            self.write(null, before=before)
        self.assertEqual((file.read_text(), self.names()), ("old", ["null", "nvgrace.prom"]))
