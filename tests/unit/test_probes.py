# SPDX-License-Identifier: GPL-2.0-only
"""scripts/probe-kernel: a probe that decides nothing makes it fail with the
compiler's output and without a header. sources/test_matrix.py shows what it finds
in each kernel."""

import collections
import os
import re
import shutil
import subprocess

import pytest

from lab import vm

SCRIPTS = vm.PROJECT / "scripts"
PROBES = sorted(p for p in (SCRIPTS / "probes").glob("*.c") if not p.name.startswith("control-"))

MEMBER = "no member named 'nvgrace_planted'"
USE_MEMBER = "void f(struct vfio_device *d); void f(struct vfio_device *d) { d->nvgrace_planted = 0; }"
UNEXPECTED = "int planted = nvgrace_unexpected;"
UNDECLARED = "'nvgrace_unexpected' undeclared"

pytestmark = pytest.mark.long

Done = collections.namedtuple("Done", "status said")


class Copy:
    """A copy of probe-kernel and of its controls."""

    def __init__(self, folder):
        self.folder, self.header = folder, folder / "features.h"
        (folder / "scripts/probes").mkdir(parents=True)
        shutil.copy(SCRIPTS / "probe-kernel", folder / "scripts")
        self.add(SCRIPTS.glob("probes/control-*.c"))

    def add(self, probes):
        for probe in probes:
            shutil.copy(probe, self.folder / "scripts/probes")

    def plant(self, name, text, absent_if=MEMBER):
        (self.folder / f"scripts/probes/{name}.c").write_text(
            f"/*\n * absent-if: {absent_if}\n */\n#include <linux/vfio_pci_core.h>\n{text}\n")

    def probe(self, kernel, *arguments, headers=None, **environment):
        kernel = vm.Kernel(kernel)
        inherited = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"}
        done = subprocess.run([self.folder / "scripts/probe-kernel", headers or kernel.headers, self.folder / "work", self.header, "-j2",
                               *kernel.arch.make, *arguments], env={**inherited, **environment}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        return Done(done.returncode, done.stdout)

    def found(self):
        return set(re.findall(r"^#define HAVE_([A-Z0-9_]+) 1$", self.header.read_text(), re.M))

    def refused(self, *words, done):
        """It failed, printed each word, and left no header."""
        assert done.status and all(word in done.said for word in words), done.said
        assert not self.header.exists()


@pytest.fixture
def copy(tmp_path):
    """With only the controls."""
    return Copy(tmp_path)


@pytest.fixture
def whole(copy):
    copy.add(PROBES)
    return copy


def test_the_compiler_is_asked_in_english(copy):
    compiler, locales = copy.folder / "cc", copy.folder / "locales"
    compiler.write_text(f'#!/bin/sh\necho "${{LC_ALL:-${{LC_MESSAGES:-${{LANG:-}}}}}} ${{LANGUAGE:-}}" >>{locales}\nexec gcc "$@"\n')
    compiler.chmod(0o755)
    copy.probe("stable-amd64", f"CC={compiler}", LANG="de_DE.UTF-8", LC_MESSAGES="de_DE.UTF-8", LANGUAGE="de")
    # Only the plain C locale ignores LANGUAGE.
    assert all(re.fullmatch(r"(C|POSIX) .*|C\.UTF-8 ", line) for line in locales.read_text().splitlines())


# ---- errors that nobody expects ----------------------------------------------

def test_an_unexpected_error_is_named_however_long_the_log_is(whole):
    whole.plant("aa-planted", UNEXPECTED)
    whole.refused("aa-planted", UNDECLARED, done=whole.probe("oldstable"))


def test_a_probe_that_expects_no_error(copy):
    (copy.folder / "scripts/probes/planted.c").write_text(f"#include <linux/vfio.h>\n{USE_MEMBER}\n")
    copy.refused("planted", "'nvgrace_planted'", done=copy.probe("newest"))


@pytest.mark.parametrize(("compiler", "word"), [("/bin/false", "control-pass"), ("/nowhere/gcc", "/nowhere/gcc")])
def test_a_compiler_that_does_not_work(whole, compiler, word):
    whole.refused("can't decide", word, done=whole.probe("newest", f"CC={compiler}"))


def test_a_missing_header(copy):
    copy.plant("planted", f"#include <linux/nvgrace_no_such.h>\n{USE_MEMBER}")
    copy.refused("planted", "linux/nvgrace_no_such.h", done=copy.probe("newest"))


def test_no_headers_at_all(whole):
    nowhere = whole.folder / "nowhere"
    whole.refused("can't decide", str(nowhere), done=whole.probe("newest", headers=nowhere))


def test_the_control_that_must_fail_compiles(copy):
    copy.plant("control-fail", "int planted;")
    copy.refused("control", "must fail", done=copy.probe("newest"))


def test_the_control_that_must_compile_is_absent(copy):
    copy.plant("control-pass", USE_MEMBER)
    copy.refused("control", "must compile", done=copy.probe("newest"))


# ---- the header --------------------------------------------------------------

def test_a_failure_leaves_a_header_from_before_alone(copy):
    copy.plant("planted", UNEXPECTED)
    copy.header.write_text("old\n")
    done = copy.probe("newest")
    assert done.status and copy.header.read_text() == "old\n", done.said


def test_an_expected_error_is_an_absence(copy):
    """The header has no control, and no rest is beside it."""
    copy.plant("planted", USE_MEMBER)
    done = copy.probe("newest")
    assert not done.status, done.said
    text = copy.header.read_text()
    assert "HAVE_PLANTED: absent" in text and "CONTROL" not in text
    assert not (copy.folder / "features.h.tmp").exists()


def test_two_probes_for_one_thing_are_both_absent(copy):
    """The compiler reports the second use of an unknown function only once the
    first one is gone."""
    for letter in "ab":
        copy.plant(f"planted-{letter}", f"void {letter}(void); void {letter}(void) {{ nvgrace_planted(); }}",
                   "function 'nvgrace_planted'")
    done = copy.probe("newest")
    assert not done.status, done.said
    assert all(f"HAVE_PLANTED_{letter}: absent" in copy.header.read_text() for letter in "AB")


def test_probes_that_do_not_compile_in_one_file_are_compiled_alone(copy):
    # They define the same name.
    copy.plant("planted-a", "int planted;")
    copy.plant("planted-b", "int planted = 1; static int planted_b __maybe_unused;")
    copy.plant("planted-c", "static long planted = 1; static long *p __maybe_unused = &planted;")
    done = copy.probe("newest")
    assert not done.status, done.said
    assert copy.found() == {"PLANTED_A", "PLANTED_B", "PLANTED_C"}


@pytest.mark.all
@pytest.mark.parametrize("path", PROBES, ids=lambda p: p.stem)
def test_a_probe_names_its_version_and_commit(path):
    text = path.read_text().replace("\n", " ").replace(" * ", " ")
    assert re.search(r'Since Linux \d+\.\d+, [0-9a-f]{12} \("', text)
