# SPDX-License-Identifier: GPL-2.0-only
"""What users read and type: help, manual page and completions agree, as do the
documented exit statuses; colours and widths; the installed files."""

import configparser
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import tempfile
import termios

import pytest

from cli import common
from cli.common import NOBODY, PROJECT, SCHEMA, build, run, sanitizer_options, shown, validator
from cli.test_trees import G1, G2, Tree
from lab import programs

COMMANDS = ("list", "bind", "unbind", "status", "doctor", "metrics", "wait", "bench", "test", "scrub", "guest")
# Commands without options.
WORDS = ("help", "version")
MANUAL = "cli/nvgrace-gpu.8.scd"
COMPLETION = PROJECT / "cli/completion.bash"


def make(*words):
    # build() makes the program in the same folder.
    with programs.locked("cli-native"):
        done = common.make(f"OUT={PROJECT}/build/cli/native", *words)
    assert not done.returncode, done.stderr
    return done


def help_options(command=None):
    """{long option: (short option or "", argument or "")} in --help."""
    text = run(*([command] if command else []), "--help").stdout
    found = {}
    for short, long, argument in re.findall(r"^ +(?:-(.), +)?--([a-z-]+)(\[?=[A-Za-z0-9|]+\]?)?(?: |$)", text, re.M):
        found[long] = (short, argument)
    return found


def man_sections():
    """{title: text} of the manual page's source. Options begin a line."""
    parts = re.split(r"^# (.*)$", (PROJECT / MANUAL).read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def man_options(section):
    found = {}
    for line in re.findall(r"^(?:\*-.*)$", section, re.M):
        line = line.replace("*", "").replace("_", "")
        match = re.fullmatch(r"(?:-(.), )?--([a-z-]+)(\[?=[A-Za-z0-9|]+\]?)?", line)
        found[match[2]] = (match[1] or "", match[3] or "")
    return found


class Agreement:
    """--help, the manual page and the completion have the same options, with
    the same letters and arguments."""

    COMMON = {"help", "usage", "version"}

    def test_help_and_manual(self):
        sections = man_sections()
        assert man_options(sections["GLOBAL OPTIONS"]) == help_options(), f"edit {MANUAL}, GLOBAL OPTIONS"
        for command in COMMANDS:
            own = {k: v for k, v in help_options(command).items() if k not in self.COMMON}
            assert man_options(sections[command.upper()]) == own, f"edit {MANUAL}, {command.upper()}"
            assert own

    def test_synopsis(self):
        """The line of each command has its options and no others."""
        synopsis = man_sections()["SYNOPSIS"].replace("*", "").replace("_", "")
        for command in COMMANDS:
            line = next(part for part in re.split(r"\n\n", synopsis) if re.search(rf"\] {command}\b", part))
            own = {k for k in help_options(command) if k not in self.COMMON} | {"root"}
            assert set(re.findall(r"--([a-z-]+)", line)) == own, f"edit {MANUAL}, SYNOPSIS, {command}"

    def test_commands(self):
        text = run("--help").stdout
        assert tuple(re.findall(r"^  ([a-z]+) .* {2,}", text, re.M)) == COMMANDS + WORDS

    def test_ways_to_ask(self):
        """-h and help print what --help prints, for the program and for each
        command; version prints what --version prints."""
        alone = run()
        assert (alone.returncode, alone.stderr) == (0, "")
        assert {run(*w).stdout for w in (["-h"], ["help"], ["help", "help"], ["help", "version"], [])} == {run("--help").stdout}
        for command in COMMANDS:
            text = run(command, "--help").stdout
            assert text.startswith(f"Usage: nvgrace-gpu {command}"), text
            for words in ([command, "-h"], ["help", command], ["--root", "/", "help", command]):
                done = run(*words)
                assert (done.returncode, done.stdout, done.stderr) == (0, text, ""), words
        assert run("version").stdout == run("--version").stdout

    def test_exit_statuses(self):
        """program.h, the manual page and --help have the same numbers."""
        code = set(re.findall(r"EXIT_\w+ = (\d+),", (PROJECT / "cli/system/program.h").read_text()))
        assert set(re.findall(r"^\*(\d+)\*$", man_sections()["EXIT STATUS"], re.M)) == code
        status = run("--help").stdout.partition("Exit status:")[2]
        assert set(re.findall(r"(?:^|, |,\n)\s*(\d+)\s", status)) == code

    def test_states(self):
        states = set(json.loads(SCHEMA.read_text())["$defs"]["gpu"]["properties"]["state"]["examples"])
        assert set(re.findall(r"^\*([a-z-]+)\*$", man_sections()["LIST"], re.M)) == states
        text = run("list", "--help").stdout.partition("is one of")[2]
        assert set(re.findall(r"^  ([a-z-]+)  +\S", text, re.M)) == states

    def test_scrub_states(self, tree):
        """The manual page, the schema, status and metrics have all states that
        the description of the attribute has."""
        files = (PROJECT / "docs/ABI/sysfs-driver-nvgrace-gpu").read_text()
        words = set(re.findall(r"^\t\t([a-z]+)\t", re.search(r"/scrub_state\n(.*?)\nWhat:", files, re.S)[1], re.M))
        assert len(words) == 6
        assert words <= set(re.findall(r"\*([a-z]+)\*", man_sections()["SCRUB"]))
        text = json.loads(SCHEMA.read_text())["$defs"]["gpu"]["properties"]["scrub_state"]["description"]
        assert words <= set(re.findall(r"[a-z]+", text))
        tree.bound(G1, scrub_progress=0)
        for word in words:
            tree.file(f"/sys/bus/pci/devices/{G1}/nvgrace_gpu/scrub_state", word)
            assert re.search(rf"\n  scrub +{word}: ", run("status", G1, root=tree.root).stdout)
            found = re.findall(r'^nvgrace_gpu_scrub_state\{.*,scrub_state="(\w+)"\} ([01])$', run("metrics", root=tree.root).stdout, re.M)
            assert dict(found) == {each: str(int(each == word)) for each in words}

    def test_steps_of_test(self):
        """The options and the manual page have the same steps, in the same order."""
        steps = help_options("test")["until"][1].lstrip("=").split("|")
        assert re.findall(r"^\*([a-z0-9]+)\*$", man_sections()["TEST"], re.M) == steps, f"edit {MANUAL}, TEST"

    def test_missing_package(self):
        """Of commands that are programs of their own."""
        folder = build().parent / "libexec"
        done = subprocess.run(["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none "$1"; exec "$2" test x', "sh", folder, build()],
                              capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, f"nvgrace-gpu: can't run {folder}/nvgrace-gpu/test: No such file or directory; "
                                                     "install the package nvgrace-gpu-tests\n")

    def test_schema(self):
        validator()
        text = (PROJECT / "cli/system/output.h").read_text()
        version = int(re.search(r"SCHEMA_VERSION (\d+)", text)[1])
        assert json.loads(SCHEMA.read_text())["properties"]["schema"]["const"] == version
        assert f"Its member *schema* is {version}" in man_sections()["JSON"].replace("\n", " ")

    def test_all_facts_are_required(self):
        gpu = json.loads(SCHEMA.read_text())["$defs"]["gpu"]
        assert list(gpu["properties"]) == gpu["required"], f"edit {SCHEMA.name}, gpu, required"

    def test_schema_has_room(self, tree):
        """The schema accepts names and values that a later version may add."""
        tree.package().bound(G1, scrub_state="clean", scrub_progress=7)
        documents = [tree.json(*words) for words in (["list"], ["bind", "-n", "--persist", G1], ["status", G1], ["status"])]
        documents.append(json.loads(tree.run("doctor", "--json").stdout))
        for document in documents:
            assert list(validator().iter_errors(self.later(document))) == [], document["command"]
            # It does not accept everything.
            assert list(validator().iter_errors({**document, "schema": 3}))
            for name in document.keys() - {"schema", "command"}:
                without = {k: v for k, v in document.items() if k != name}
                # A status without "gpus" would be that of one GPU, and it has
                # no such members.
                assert list(validator().iter_errors(without)), (document["command"], name)

    def later(self, value):
        """The value with a new name in every object, and new words where the
        schema permits them."""
        if isinstance(value, list):
            return [self.later(v) for v in value]
        if not isinstance(value, dict):
            return value
        words = {k: f"new-{v}" for k, v in value.items() if k in ("state", "mode", "result", "boot", "verdict", "id", "part",
                                                                    "cache", "readiness", "scrub_state") and isinstance(v, str)}
        return {**{k: self.later(v) for k, v in value.items()}, **words, "new": {"x": [1]}}

    def test_version(self):
        version = subprocess.check_output(["sh", PROJECT / "scripts/this-version"], text=True).strip()
        for words in (["--version"], ["-V"], ["list", "--version"], ["version"]):
            assert run(*words).stdout == f"nvgrace-gpu {version}\n"


class ManualPage:
    def test_renders(self):
        make("man")
        page = PROJECT / "build/cli/native/nvgrace-gpu.8"
        for device in ("utf8", "ascii"):
            # "all" does not include undefined macros.
            done = subprocess.run(["groff", "-man", "-w", "all", "-w", "mac", f"-T{device}", page], capture_output=True, text=True, check=True)
            assert done.stderr == ""
            for word in COMMANDS:
                assert re.search(rf"{word.upper()}", done.stdout)
        assert "@VERSION@" not in page.read_text()


class Completion:
    def complete(self, *words, root=None):
        """The words that bash offers for the last of these words."""
        with tempfile.TemporaryDirectory() as directory:
            script = pathlib.Path(directory, "nvgrace-gpu")
            # The completion gets addresses from the program.
            script.write_text(f'#!/bin/sh\nexec {build()} {f"--root {root}" if root else ""} "$@"\n')
            script.chmod(0o755)
            # For readline, a colon is a word.
            parts = [p for w in (str(script), *words) for p in (re.split(r"(:|=)", w) if w else [""]) if p or not w]
            quoted = " ".join("'" + p + "'" for p in parts)
            line = " ".join((str(script), *words))
            done = subprocess.run(["bash", "-c", f"""
                . /usr/share/bash-completion/bash_completion
                . {COMPLETION}
                COMP_WORDS=({quoted}) COMP_CWORD={len(parts) - 1} COMP_LINE='{line}' COMP_POINT={len(line)} COMP_TYPE=9
                compopt() {{ :; }}
                _nvgrace_gpu
                printf '%s\\n' "${{COMPREPLY[@]}}" """], capture_output=True, text=True, check=True, cwd=directory)
            assert done.stderr == ""
            return {word for word in done.stdout.split("\n") if word}

    def test_commands(self):
        assert self.complete("") == {*COMMANDS, *WORDS}
        assert self.complete("help", "") == {*COMMANDS, *WORDS}
        assert self.complete("b") == {"bench", "bind"}
        assert self.complete("--root", "/", "st") == {"status"}

    def test_options(self):
        """All options of --help, and no others."""
        for command in (None, *COMMANDS):
            words = [command] if command else []
            assert self.complete(*words, "-") == {f"--{o}" for o in help_options(command)}, command
        assert self.complete("unbind", "--no-") == {"--no-probe", "--no-initramfs"}

    def test_addresses(self, tree):
        tree.device(G1).device(G2).device("0000:00:01.0", "0x1533", "0x8086")
        for command in ("bind", "unbind", "status", "doctor", "wait", "bench", "test", "scrub", "guest"):
            assert self.complete(command, "", root=tree.root) == {G1, G2}, command
        assert self.complete("wait", "-t5", "", root=tree.root) == {G1, G2}
        assert self.complete("metrics", "", root=tree.root) == set()
        # bash replaces only the text after the last colon.
        assert self.complete("bind", "0009:", root=tree.root) == {"01:00.0"}
        assert self.complete("bind", "--persist", G1, "0019", root=tree.root) == {G2}
        assert self.complete("--root", str(tree.root), "bind", "") == {G1, G2}
        assert self.complete("list", "", root=tree.root) == set()

    def test_directories(self, tmp_path):
        (tmp_path / "tree").mkdir()
        (tmp_path / "file").touch()
        for words in (["--root", f"{tmp_path}/"], ["doctor", "--record", f"{tmp_path}/"], [f"--root={tmp_path}/"],
                      ["doctor", "-qr", f"{tmp_path}/"]):
            assert self.complete(*words) == {f"{tmp_path}/tree"}, words
        for words in (["guest", "--disk", f"{tmp_path}/"], ["guest", "--domain", f"{tmp_path}/"], ["metrics", "-o", f"{tmp_path}/"]):
            assert self.complete(*words) == {f"{tmp_path}/tree", f"{tmp_path}/file"}, words

    def test_words(self):
        assert self.complete("doctor", "--fail-on", "") == {"bad", "warning"}
        assert self.complete("wait", "--timeout", "") == set()
        assert self.complete("guest", "--format", "") == {"qemu", "libvirt", "json"}
        assert self.complete("guest", "--accel-smmu", "") == {"auto", "on", "off"}
        assert self.complete("guest", "--accel-smmu=o") == {"on", "off"}
        assert self.complete("guest", "--memory", "") == set()
        assert self.complete("test", "--until", "s") == {"sample", "scrub"}
        assert self.complete("bench", "-y", "--rounds", "") == set()
        assert self.complete("guest", "--device", "") == set()
        assert self.complete("bind", "--", "-") == set()

    def test_nothing_of_an_unknown_command(self):
        assert self.complete("frob", "") == set()


@pytest.mark.all
class OtherShells:
    """zsh and fish offer what --help has, as bash does."""

    @pytest.fixture(autouse=True)
    def host(self, tree, tmp_path):
        self.place = tmp_path
        tree.device(G1).device(G2).device("0000:00:01.0", "0x1533", "0x8086")
        script = self.place / "nvgrace-gpu"
        script.write_text(f'#!/bin/sh\nexec {build()} --root {tree.root} "$@"\n')
        script.chmod(0o755)
        self.env = {"PATH": f"{self.place}:{os.environ['PATH']}", "HOME": str(self.place), "TERM": "dumb", "LC_ALL": "C.UTF-8",
                    **sanitizer_options()}

    def options(self, offered):
        return {word.removesuffix("=") for word in offered if word.startswith("--")}

    def check(self, complete):
        assert complete("") == {*COMMANDS, *WORDS}
        assert complete("help", "") == {*COMMANDS, *WORDS}
        for command in (None, *COMMANDS):
            words = [command] if command else []
            assert self.options(complete(*words, "-")) == {f"--{o}" for o in help_options(command)}, command
        for command in ("bind", "unbind", "status", "doctor", "wait", "bench", "test", "scrub", "guest"):
            assert complete(command, "00") == {G1, G2}, command
        assert complete("bind", "--persist", G1, "0019") == {G2}
        assert complete("list", "00") == set()
        with Tree() as other:
            other.device("0049:01:00.0")
            assert complete("--root", str(other.root), "bind", "00") == {"0049:01:00.0"}
        assert complete("guest", "--accel-smmu", "o") == {"on", "off"}

    def fish(self, *words):
        line = " ".join(["nvgrace-gpu", *words])
        done = subprocess.run(["fish", "--no-config", "-c",
                               f"source {PROJECT}/cli/completion.fish; complete -C '{line}'"],
                              capture_output=True, text=True, check=True, env=self.env, cwd=self.place)
        assert done.stderr == ""
        return {line.split("\t")[0] for line in done.stdout.splitlines()}

    def zsh(self, *words):
        """The words that zsh offers. It completes only on a terminal, which its
        module zpty provides. A tab key starts the completion."""
        functions = self.place / "functions"
        functions.mkdir(exist_ok=True)
        (functions / "_nvgrace-gpu").write_text((PROJECT / "cli/completion.zsh").read_text())
        line = " ".join(["nvgrace-gpu", *words])
        script = f"""
            zmodload zsh/zpty
            zpty -b z zsh -f -i
            say() {{ zpty -w z "$1"; }}
            say 'PROMPT=; fpath=({functions} $fpath); autoload -U compinit; compinit -u -d {self.place}/dump'
            say "zstyle ':completion:*' list-separator '#'; zstyle ':completion:*' group-name ''; LISTMAX=0; stty cols 500 rows 500"
            say 'bindkey "^I" complete-word; zle -C complete-word complete-word report'
            say 'report() {{ compadd() {{ local -a said; builtin compadd -O said "$@"; print -rC1 -- "@@"$^said >>{self.place}/found;
                builtin compadd "$@"; }}; _main_complete; unfunction compadd; print "@@@" >>{self.place}/found; }}'
            rm -f {self.place}/found
            zpty -w -n z $'{line}\t'
            for ((i = 0; i < 6000; i++)); do
                grep -q '^@@@$' {self.place}/found 2>/dev/null && break
                sleep 0.05
            done
            zpty -d z
        """
        done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, env=self.env, cwd=self.place)
        found = self.place / "found"
        assert found.exists() and "@@@" in found.read_text(), done.stdout + done.stderr
        return {line[2:] for line in found.read_text().splitlines() if line.startswith("@@") and line != "@@@" and line != "@@"}

    def test_fish(self):
        self.check(self.fish)

    def test_zsh(self):
        self.check(self.zsh)


class Usage:
    def test_usage_errors(self):
        for words in (["frob"], ["bind"], ["bind", "--all", G1], ["bind", "--boot-only", "--persist", G1],
                      ["list", "x"],
                      ["unbind", "--boot-only", "--no-probe", G1], ["bind", "--no-initramfs", G1],
                      ["help", "frob"], ["help", "list", "bind"], ["version", "x"], ["wait"], ["wait", "--all", G1],
                      ["wait", "--timeout=x", G1], ["wait", "--timeout=86401", G1], ["wait", "--timeout=-1", G1],
                      ["bench"], ["bench", G1, G2], ["bench", "--rounds=0", G1],
                      ["scrub"], ["scrub", "--all", G1], ["scrub", "--no-wait", G1], ["scrub", "nonsense"],
                      ["metrics", "x"], ["metrics", "--format=labels"], ["doctor", "--fail-on=good"],
                      ["status", G1, G2], ["status", "--watch=0", G1], ["status", "--watch=x", G1], ["status", "--watch=86401", G1], ["--frob"],
                      ["list", "--frob"], ["doctor", "--frob"], ["status", "--watch=-1", G1], ["status", "--watch=99999999999999999999", G1],
                      ["--root", "/nowhere", "list"], ["--root", "/etc/passwd", "list"], ["bind", "nonsense"]):
            done = run(*words)
            assert (done.returncode, done.stdout) == (2, ""), (words, done.stderr)
            assert done.stderr.startswith("nvgrace-gpu"), done.stderr

    def test_not_root(self):
        """Users other than root can read everything, and get a message for the
        rest."""
        assert os.geteuid() == 0, "not root, as in the toolbox"
        for command in ("bind", "unbind"):
            done = run(command, "--all", **NOBODY)
            assert (done.returncode, done.stdout) == (5, "")
            assert f"nvgrace-gpu: only root may {command} GPUs; use sudo" in done.stderr
        done = run("scrub", "--all", **NOBODY)
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr == "nvgrace-gpu: only root may scrub GPUs; use sudo\n"
        assert run("list", **NOBODY).returncode == 0
        assert run("unbind", "--all", "--dry-run", **NOBODY).returncode == 0

    def test_output_that_fails(self):
        with open("/dev/full", "w", encoding="utf-8") as full, Tree() as tree:
            tree.device(G1)
            environment = {"PATH": os.environ["PATH"], **sanitizer_options()}
            for words in (["list"], ["list", "--json"], ["status", G1], ["status", "--watch", G1], ["--help"], ["--version"],
                          ["help"], ["help", "bind"], ["version"], ["list", "--help"], ["doctor", "--help"],
                          ["scrub", "-h"], ["metrics"], ["metrics", "--usage"]):
                done = subprocess.run([build(), "--root", tree.root, *words], stdout=full,
                                      stderr=subprocess.PIPE, text=True, env=environment, timeout=600)
                assert done.returncode == 1, words
                assert "standard output: No space left on device" in done.stderr
                assert done.stderr.count("standard output") == 1
            # What was found is worth more.
            done = subprocess.run([build(), "--root", tree.root, "doctor"], stdout=full, stderr=subprocess.PIPE,
                                  text=True, env=environment, timeout=600)
            assert done.returncode == 7
            assert "standard output: No space left on device" in done.stderr

    def test_a_message_is_one_write(self):
        """Another process's message can't come between its parts."""
        # A read takes what one write has put into such a pipe.
        reader, writer = os.pipe2(os.O_DIRECT)
        with Tree() as tree, open(reader, "rb", buffering=0) as messages:
            tree.device(G1)
            with open(writer, "wb") as stderr:
                subprocess.run([build(), "--root", tree.root, "status", G2], stderr=stderr, check=False, timeout=600)
            assert re.fullmatch(rb"nvgrace-gpu: \S+: .*\n", messages.read(65536))
            assert not messages.read()


class Terminal:
    def on_terminal(self, *words, columns=100, until=None, **env):
        """The output of the program on a terminal of that width, and its exit
        status. until: it gets SIGINT when it has printed this text twice."""
        leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (24, columns))
        process = subprocess.Popen([build(), *map(str, words)], stdin=follower, stdout=follower, stderr=follower,
                                   env={"PATH": os.environ["PATH"], "TERM": "xterm", **sanitizer_options(), **env})
        os.close(follower)
        text = b""
        for more in shown(leader):
            text += more
            if until and text.count(until) >= 2:
                process.send_signal(signal.SIGINT)
                until = None
        os.close(leader)
        return text.decode().replace("\r\n", "\n"), process.wait()

    def test_colour(self, tree):
        build()
        tree.bound(G1)
        for command in (["list"], ["status", G1], ["doctor"]):
            assert "\x1b[" in self.on_terminal("--root", tree.root, *command)[0]
            for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
                assert "\x1b[" not in self.on_terminal("--root", tree.root, *command, **env)[0]
            # no-color.org: an empty string means that it is not set.
            assert "\x1b[" in self.on_terminal("--root", tree.root, *command, NO_COLOR="")[0]
            assert "\x1b" not in run(*command, root=tree.root, env={"TERM": "xterm"}).stdout
        assert "\x1b" not in self.on_terminal("--root", tree.root, "list", "--json")[0]
        # Green, yellow and red.
        tree.device(G2, driver="nouveau", group=13).device("0029:01:00.0", driver="nvidia", group=14)
        tree.file("/proc/driver/nvidia/gpus/0029:01:00.0/numa_status", "Node: 4\nStatus: online")
        found = re.findall(r"\x1b\[(\d+)m([\w-]+)\x1b\[0m\n", self.on_terminal("--root", tree.root, "list")[0])
        assert found == [("32", "bound"), ("33", "other-driver"), ("31", "memory-online")]

    def test_width(self, tree):
        build()
        tree.bound(G1)
        widths = []
        for columns in (140, 80):
            text, _ = self.on_terminal("--root", tree.root, "status", G1, columns=columns)
            widths.append(max(map(len, re.sub(r"\x1b\[[0-9;]*[mJH]", "", text).split("\n"))))
        wide, narrow = widths
        assert wide > narrow
        assert narrow <= 80

    def test_words_wrap(self, tree):
        """On a terminal, status and doctor fit its width. Programs get each
        reason in one line."""
        build()
        tree.bound(G1, readiness="failed").file("/etc/nvgrace-gpu.conf.d/all.conf", "bind all")
        # The drawing of status needs 80.
        for command, widths in ((["status", G1], (80, 120)), (["doctor"], (60, 80, 120))):
            for columns in widths:
                text, _ = self.on_terminal("--root", tree.root, *command, columns=columns, NO_COLOR="1")
                # A path or another long word can't wrap.
                long = [line for line in text.split("\n") if len(line) > columns and " " in line.strip()]
                assert long == [], (command, columns)
        assert max(map(len, run("status", G1, root=tree.root).stdout.split("\n"))) < 81
        text, _ = self.on_terminal("--root", tree.root, "doctor", columns=60, NO_COLOR="1")
        one = run("doctor", root=tree.root).stdout
        # The lines that continue are indented below the first word.
        # This host has no release, after which a line ends with a space.
        assert re.sub(r"\n {17,}", " ", text) == one.replace(" \n", "\n")
        assert text != one

    def test_watch(self, tree):
        """The program clears the screen and draws again until a signal ends
        it."""
        build()
        tree.bound(G1)
        text, status = self.on_terminal("--root", tree.root, "status", "--watch=1", G1, until=b"write-back")
        assert status == -signal.SIGINT
        assert text.count("\x1b[H\x1b[2J") >= 2

    @pytest.mark.parametrize("words", (["--json"], []))
    def test_watch_ends_with_the_device(self, tree, words):
        tree.bound(G1)
        process = subprocess.Popen([build(), "--root", tree.root, "status", "--watch=1", *words, G1],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        # This line ends a document. A text has this one.
        first = line = ""
        while line != "}\n" and "at boot" not in line:
            line = process.stdout.readline()
            assert line
            first += line
        tree.without(f"/sys/bus/pci/devices/{G1}/vendor")
        rest, error = process.communicate(timeout=600)
        assert process.returncode == 3
        assert f"{G1}: the device is gone" in error
        assert "\x1b" not in rest
        # An empty line comes before the next text. On a busy machine,
        # there are more before the device goes.
        between = "" if words else "\n"
        assert rest.replace(between + first, "") == between


class Install:
    FILES = {"usr/sbin/nvgrace-gpu": 0o755, "usr/lib/udev/nvgrace-gpu": 0o755,
             "usr/share/man/man8/nvgrace-gpu.8": 0o644,
             "usr/share/bash-completion/completions/nvgrace-gpu": 0o644, "usr/share/nvgrace-gpu/schema.json": 0o644,
             "usr/share/zsh/vendor-completions/_nvgrace-gpu": 0o644,
             "usr/share/fish/vendor_completions.d/nvgrace-gpu.fish": 0o644,
             **{f"usr/lib/systemd/system/nvgrace-gpu-{unit}": 0o644
                for unit in ("ready.service", "metrics.service", "metrics.timer")}}

    def test_files(self, tmp_path):
        make("install", f"DESTDIR={tmp_path}")
        root = tmp_path
        files = {str(p.relative_to(root)): p.stat().st_mode & 0o777 for p in root.rglob("*") if p.is_file()}
        assert files == self.FILES
        assert (root / "usr/share/nvgrace-gpu/schema.json").read_bytes() == SCHEMA.read_bytes()

    def test_prefix(self, tmp_path):
        make("install", f"DESTDIR={tmp_path}", "prefix=/opt/x")
        assert (tmp_path / "opt/x/sbin/nvgrace-gpu").exists()
        unit = (tmp_path / "opt/x/lib/systemd/system/nvgrace-gpu-ready.service").read_text()
        assert "\nExecStart=/opt/x/sbin/nvgrace-gpu wait --all\n" in unit

    def test_metrics_unit(self, tree, tmp_path):
        """What the service runs writes the file that it names."""
        make("install", f"DESTDIR={tmp_path}")
        units = (tmp_path / "usr/lib/systemd/system")
        text = (units / "nvgrace-gpu-metrics.service").read_text()
        name = re.search(r"^Environment=FILE=(/\S+\.prom)$", text, re.M)[1]
        program, *words = re.search(r"^ExecStart=(.*)$", text, re.M)[1].split()
        assert (tmp_path / program.lstrip("/")).exists()
        file = (tmp_path / pathlib.Path(name).name)
        done = run(*(w.replace("${FILE}", str(file)) for w in words), root=tree.root)
        assert (done.returncode, done.stderr) == (0, "")
        assert "nvgrace_gpu_tool_info" in file.read_text()
        assert "[Install]" not in text

    def test_unit(self, tmp_path):
        """The unit runs the installed program, before the services that start
        guests. The installation does not enable it."""
        make("install", f"DESTDIR={tmp_path}")
        text = (tmp_path / "usr/lib/systemd/system/nvgrace-gpu-ready.service").read_text()
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str
        unit.read_string(text)
        program, *words = unit["Service"]["ExecStart"].split()
        assert (tmp_path / program.lstrip("/")).exists()
        assert words == ["wait", "--all"]
        assert run(*words, "--timeout=0", root=tmp_path).returncode == 0
        assert (unit["Service"]["Type"], unit["Service"]["RemainAfterExit"]) == ("oneshot", "yes")
        assert {"libvirtd.service", "virtqemud.service", "nova-compute.service", "kubelet.service",
                "openstack-nova-compute.service", "incus.service"} <= set(unit["Unit"]["Before"].split())
        assert [str(p) for p in tmp_path.rglob("*.wants/*")] == []
        assert "@" not in text

    def test_cross(self):
        """The program for aarch64 hosts needs only these libraries."""
        program = build("aarch64-linux-gnu-")
        done = subprocess.run(["aarch64-linux-gnu-readelf", "-hd", program], capture_output=True, text=True, check=True)
        assert re.search(r"Machine: +AArch64", done.stdout)
        assert (set(re.findall(r"NEEDED.*\[(lib[\w.-]*?)\.so", done.stdout)) ==
                {"libglib-2.0", "libjson-c", "libkmod", "libc"})
        symbols = subprocess.run(["aarch64-linux-gnu-nm", "-D", "--undefined-only", program], capture_output=True, text=True,
                                 check=True).stdout
        assert " json_object_new_int64" in symbols
        assert "json_object_new_uint64" not in symbols, "json-c 0.13 of SLES 15 lacks it"


class Guide:
    def test_guests_are_told_of_the_last_ones_data(self):
        """The page itself says it, before the first command that assigns a
        GPU."""
        text = (PROJECT / "docs/guests.md").read_text()
        assert "**GPU memory is not cleared between users, unless you switch that on.**" in text[:text.index("\n## QEMU\n")]
