"""What is written in a locale that has ASCII only."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from io import BytesIO, TextIOWrapper

import pytest

from openrbu.cli import letters
from openrbu.cli.app import COMMANDS
from rigs.cli import RBU, Cli

SAY_A_LOCALE = ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING", "PYTHONUTF8")

ASCII_LOCALES = [
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"},
    {"LANG": "C"},
    {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
]

WORDS = [
    "plan image.hdr -m demo",
    "status -m demo",
    "history -m demo",
    "machine list",
    "machine show demo",
    "machine log demo",
    "machine models",
    "machine profiles",
    "machine rules",
    "machine faults",
    "scan demo",
    "scan demo --map",
    "info image.hdr",
    "balloon show xen",
    "balloon watch xen",
    "try --make-image --model precision-390 -- true",
    "run --machine demo --trace t.trace -- cat /sys/class/dmi/id/bios_version",
    "trace t.trace",
    "build nothing -o x --bios-version A01 --system 1",
    "packets image.hdr -o image.pkt",
    "packets image.hdr --explain 1",
]
"""A command line for each kind of output."""


def within(locale: dict[str, str]) -> dict[str, str]:
    """The environment with no other locale than this one."""
    rest = {name: value for name, value in os.environ.items() if name not in SAY_A_LOCALE}
    return rest | locale


@pytest.fixture
def _machines(rbu: Cli) -> None:
    rbu.image()
    rbu("machine", "new", "demo", "--ram", "256M")
    rbu("update", "image.hdr", "-m", "demo", "--reboot")
    rbu.image("A07")
    rbu("balloon", "host", "xen", "--ram", "512M", "--dom0", "256M")
    rbu("balloon", "guest", "xen", "a", "--memory", "64M")


def on_a_terminal(rbu: Cli, words: list[str], environment: dict[str, str]) -> bytes:
    """What a command writes on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**environment, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [*RBU, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=rbu.directory,
    ):
        os.close(theirs)
        written = b""
        while True:
            try:
                some = os.read(ours, 65536)
            except OSError:  # EIO: the command has ended
                break
            if not some:
                break
            written += some
    os.close(ours)
    return written


ENDINGS = {"try": 1, "build": 2}
"""The exit codes of those that do not succeed: here every update is refused, and a file missing."""


@pytest.mark.usefixtures("_machines")
def test_every_command_writes_ascii_where_nothing_else_can_be_shown(rbu: Cli) -> None:
    for words in WORDS:
        piped = rbu.process(*words.split(), env=within(ASCII_LOCALES[0]))
        assert piped.returncode == ENDINGS.get(words.split()[0], 0), piped
        assert_readable(piped.stdout + piped.stderr)


@pytest.mark.usefixtures("_machines")
def test_on_such_a_terminal_every_command_draws_in_ascii(rbu: Cli) -> None:
    for words in WORDS:
        if not words.startswith("try"):  # nothing else than in a pipe
            assert_readable(on_a_terminal(rbu, words.split(), within(ASCII_LOCALES[-1])))


def assert_readable(written: bytes) -> None:
    assert written
    assert written.isascii(), written
    assert b"\\u" not in written
    assert b"Traceback" not in written


@pytest.mark.parametrize("words", [[name] for name in COMMANDS] + [["lab", "shell"]])
def test_help_is_in_ascii_there(rbu: Cli, words: list[str]) -> None:
    environment = within(ASCII_LOCALES[0])
    piped = rbu.process(*words, "--help", env=environment)
    assert piped.stdout.startswith(b"Usage: rbu ")
    assert piped.stdout.isascii()
    assert b"\\u" not in piped.stdout
    if words == ["run"]:
        assert b"{CMD ...}" in piped.stdout
        assert on_a_terminal(rbu, ["run", "--help"], environment).isascii()


@pytest.mark.usefixtures("_machines")
@pytest.mark.parametrize("locale", ASCII_LOCALES)
def test_an_arrow_is_two_letters_in_such_a_locale(rbu: Cli, locale: dict[str, str]) -> None:
    done = rbu.process("plan", "image.hdr", "-m", "demo", env=within(locale))
    assert b"A06 -> A07" in done.stdout


@pytest.mark.usefixtures("_machines")
@pytest.mark.parametrize(
    "locale", [{}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONIOENCODING": "utf-8"}]
)
def test_an_arrow_is_one_elsewhere(rbu: Cli, locale: dict[str, str]) -> None:
    done = rbu.process("plan", "image.hdr", "-m", "demo", env=within(locale))
    assert "A06 \N{RIGHTWARDS ARROW} A07" in done.stdout.decode()


def test_a_character_without_a_likeness_is_escaped() -> None:
    a = "\N{LATIN SMALL LETTER A WITH DIAERESIS}"
    assert letters.like(f"b{a}r \N{HORIZONTAL ELLIPSIS}", "ascii") == "b\\xe4r ..."
    text = f"b{a}r \N{RIGHTWARDS ARROW}"
    assert letters.like(text, "latin-1") == f"b{a}r ->"
    assert letters.like(text, None) == text


def test_a_stream_takes_what_has_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_CTYPE", "LANG", "PYTHONIOENCODING", "PYTHONUTF8"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", "C")
    written = BytesIO()
    stream = TextIOWrapper(written, encoding="utf-8")
    letters.prepare(stream)
    stream.write("\N{RIGHTWARDS ARROW}\N{SNOWMAN}\udcff")
    stream.flush()
    assert written.getvalue() == b"->\\u2603\\udcff"
    assert sys.stdout.encoding != "ascii"
