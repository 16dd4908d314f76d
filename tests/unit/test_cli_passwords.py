"""The BIOS admin password on the command line: how it is given, and that it is kept nowhere."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.smi import SmiHandler
from openrbu.errors import UsageError
from openrbu.formats.smi_passwords import (
    ADMIN_PASSWORD,
    VERIFY_IN_ARGUMENTS,
    VERIFY_IN_BUFFER,
    scan_codes,
)
from openrbu.formats.tokens import SmiCall
from openrbu.units import MIB
from rigs.cli import RBU, Cli, ProcessResult
from rigs.served import serving

PASSWORD = "Zebra7-k"
WRONG = "Zebra8-k"

VERIFYING = (VERIFY_IN_ARGUMENTS, VERIFY_IN_BUFFER)

PROMPT = b"it is not shown): "


@pytest.fixture
def guarded(rbu: Cli) -> Cli:
    """A Precision T7600 called `box`, with an admin password, in the file `password`, too."""
    rbu.write("password", PASSWORD.encode() + b"\n")
    rbu.write("wrong", WRONG.encode())
    make(rbu, "box", "precision-t7600")
    return rbu


def make(rbu: Cli, name: str, model: str) -> None:
    words = ("machine", "new", name, "--model", model, "--ram", "64M", "--flash-size", "1M")
    assert rbu(*words, "--admin-password-file", "password").code == 0


def new_bios(rbu: Cli, system: int = 0x0495, version: str = "A02") -> Path:
    return rbu.image(version, system=system, size_bytes=MIB, name=f"{system}.hdr")


def on_terminal(rbu: Cli, words: Sequence[object], typed: bytes) -> ProcessResult:
    """Run a command with a terminal; at the prompt `typed` is typed. `out` is all that appears on
    the terminal, `err` is empty."""
    ours, theirs = pty.openpty()
    line = ["setsid", "--ctty", "--wait", *RBU, *map(str, words)]
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, cwd=rbu.directory)
    os.close(theirs)
    seen = b""
    try:
        while piece := _read(ours):
            seen += piece
            if typed and seen.endswith(PROMPT):
                os.write(ours, typed)
                typed = b""
    finally:
        os.close(ours)
    return ProcessResult(process.wait(), seen.decode(), "")


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # EIO: the other end is closed
        return b""


# -- ways in --------------------------------------------------------------------------------


def test_a_password_is_read_from_a_file_from_standard_input_and_from_a_descriptor(
    guarded: Cli,
) -> None:
    words = ("update", new_bios(guarded), "--machine", "box", "--json")
    cancel = ("cancel", "--machine", "box", "--json")
    with guarded.directory.joinpath("password").open("rb") as file:
        fd = file.fileno()
        ways: list[tuple[tuple[str, ...], dict[str, Any]]] = [
            (("--password-file", "password"), {}),
            (("--password-file", "-"), {"input": PASSWORD.encode()}),
            (("--password-file", f"/dev/fd/{fd}"), {"pass_fds": [fd]}),
            (("--password-fd", str(fd)), {"pass_fds": [fd]}),
            (("--password-fd", "0"), {"input": PASSWORD.encode() + b"\r\n"}),
        ]
        for way, how in ways:
            for command in (words, cancel):
                file.seek(0)
                ended = guarded.process(*command, *way, **how)
                assert (ended.returncode, ended.stderr) == (0, b""), (way, ended)


def test_a_password_is_asked_for_on_the_terminal_where_one_is_set_and_is_not_shown(
    guarded: Cli,
) -> None:
    typed = PASSWORD.encode() + b"\n"
    for words in (
        ("update", new_bios(guarded), "--machine", "box"),
        ("cancel", "--machine", "box"),
        ("plan", new_bios(guarded), "--machine", "box", "--ask-password"),
        ("update", new_bios(guarded), "--machine", "box", "--ask-password", "--json"),
        ("cancel", "--machine", "box", "--ask-password"),
    ):
        ended = on_terminal(guarded, words, typed)
        assert ended.code == 0, ended
        assert PROMPT.decode() in ended.out
        assert PASSWORD not in ended.out


def test_nobody_is_asked_who_reads_json_or_where_something_else_is_in_the_way(
    guarded: Cli,
) -> None:
    words = ("update", new_bios(guarded), "--machine", "box")
    older = ("update", new_bios(guarded, version="A00"), "--machine", "box")
    other = ("update", new_bios(guarded, system=0x0121), "--machine", "box")
    for line, code in (((*words, "--json"), 4), (older, 4), (other, 3)):
        ended = on_terminal(guarded, line, b"never typed\n")
        assert ended.code == code, ended
        assert PROMPT.decode() not in ended.out


@pytest.mark.parametrize("typed", [b"\n", b"\x04"])
def test_an_empty_answer_changes_nothing(guarded: Cli, typed: bytes) -> None:
    ended = on_terminal(guarded, ("update", new_bios(guarded), "--machine", "box"), typed)
    assert ended.code == 2
    assert "no password was given; nothing was changed" in ended.out
    assert guarded.json("history", "--machine", "box")["updates"] == []


def test_ctrl_c_at_the_question_leaves_the_terminal_and_the_machine_as_they_were(
    guarded: Cli,
) -> None:
    ended = on_terminal(guarded, ("update", new_bios(guarded), "--machine", "box"), b"\x03")
    assert ended.code == 130
    assert guarded.json("history", "--machine", "box")["updates"] == []


def test_standard_input_that_is_a_terminal_is_not_read_for_it(guarded: Cli) -> None:
    for way in (("--password-file", "-"), ("--password-fd", "0")):
        words = ("plan", new_bios(guarded), "--machine", "box", *way)
        ended = on_terminal(guarded, words, b"")
        assert ended.code == 2
        assert "use --ask-password" in ended.out


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (("--password-file", "nowhere"), "can't be read"),
        (("--password-file", "empty"), "no password"),
        (("--password-file", "two"), "more than one line"),
        (("--password-fd", "77"), "descriptor 77 is not open"),
        (("--password-fd", "-1"), "is not open"),
        (("--password-fd", str(1 << 40)), "can't be read"),
        (("--ask-password", "--password-file", "password"), "in one way"),
        (("--password-fd", "0", "--password-file", "password"), "in one way"),
        (("--without-password", "--password-file", "password"), "don't go together"),
        (("--without-password", "--password-fd", "0"), "--password-fd don't go together"),
        (("--without-password", "--ask-password"), "--without-password and --ask-password don't"),
    ],
)
def test_a_password_that_can_not_be_read_is_a_usage_error(
    guarded: Cli, way: tuple[str, ...], said: str
) -> None:
    guarded.write("empty", b"\n")
    guarded.write("two", b"one\ntwo\n")
    words = ("plan", new_bios(guarded), "--machine", "box", *way)
    assert said in guarded.fails(2, *words)


def test_without_a_terminal_nobody_is_asked(guarded: Cli) -> None:
    words = ("plan", new_bios(guarded), "--machine", "box", "--ask-password")
    ended = guarded.process(*words, start_new_session=True)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"there is no terminal to ask for the password on" in ended.stderr


def test_a_descriptor_that_was_not_given_to_the_process_is_not_read(guarded: Cli) -> None:
    with guarded.directory.joinpath("password").open("rb") as file:
        words = ("plan", new_bios(guarded), "--machine", "box", "--password-fd", file.fileno())
        assert "is not open" in guarded.fails(2, *words)


def test_the_environment_gives_no_password(guarded: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRBU_PASSWORD", PASSWORD)
    plan = guarded.json("plan", new_bios(guarded), "--machine", "box", code=4)
    assert [each["kind"] for each in plan["obstacles"]] == ["password_needed"]


def test_what_was_planned_is_said_with_the_way_of_the_password(guarded: Cli) -> None:
    words = ("plan", new_bios(guarded), "--machine", "box", "--password-file")
    assert guarded(*words, "password").out.rstrip().endswith("--password-file password")


@pytest.mark.parametrize("password", [b"", b"x" * 33, "für".encode(), b"two\nlines"])
def test_a_machine_has_a_password_that_a_bios_setup_takes(rbu: Cli, password: bytes) -> None:
    rbu.write("odd", password)
    rbu.fails(2, "machine", "new", "box", "--admin-password-file", "odd")
    assert rbu.json("machine", "list")["machines"] == []


# -- a wrong one ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_wrong_password_is_told_in_one_line_and_changes_nothing(
    guarded: Cli, is_loaded: bool
) -> None:
    if is_loaded:
        guarded.json("module", "load", "dcdbas", "--machine", "box")
    before = guarded.json("machine", "show", "box")
    words = ("update", new_bios(guarded), "--machine", "box", "--password-file", "wrong")
    ended = guarded(*words)
    assert (ended.code, ended.err.count("\n")) == (4, 1)
    assert "does not take the admin password" in ended.err
    assert guarded.json("machine", "show", "box") == before
    assert guarded.json("status", "--machine", "box")["staged_size_bytes"] == 0


@pytest.mark.parametrize("is_loaded", [False, True])
def test_each_command_tries_a_wrong_password_once(
    guarded: Cli, monkeypatch: pytest.MonkeyPatch, is_loaded: bool
) -> None:
    words = ("update", new_bios(guarded), "--machine", "box")
    assert guarded(*words, "--password-file", "password").code == 0
    if is_loaded:
        guarded.json("module", "load", "dcdbas", "--machine", "box")
    tries, answer = [], SmiHandler.__call__

    def counting(bios: SmiHandler, buffer: bytes) -> bytes:
        call = SmiCall.unpack(buffer)
        tries.append(call.smi_class == ADMIN_PASSWORD and call.smi_select in VERIFYING)
        return answer(bios, buffer)

    monkeypatch.setattr(SmiHandler, "__call__", counting)
    cancel, wrong = ("cancel", "--machine", "box"), ("--password-file", "wrong")
    guarded.fails(4, *cancel, *wrong)
    assert sum(tries) == 1
    assert guarded(*cancel, "--password-file", "password").code == 0
    tries.clear()
    ended = guarded(*words, *wrong)
    assert (ended.code, sum(tries)) == (4, 1)


def test_cancelling_with_a_wrong_password_leaves_the_update_armed(guarded: Cli) -> None:
    words = ("update", new_bios(guarded), "--machine", "box", "--password-file", "password")
    assert guarded(*words).code == 0
    for way, said in (((), "--password-file"), (("--password-file", "wrong"), "does not take")):
        assert said in guarded.fails(4, "cancel", "--machine", "box", *way)
        assert guarded.json("status", "--machine", "box")["is_armed"]
    assert guarded.json("cancel", "--machine", "box", "--password-file", "password")["was_armed"]


# -- kept nowhere ---------------------------------------------------------------------------


def traces(data: bytes, password: str = PASSWORD) -> list[str]:
    """The forms in which a password is in `data`."""
    forms = {
        "text": password.encode(),
        "keys": scan_codes(password),
        "UTF-16": password.encode("utf-16-le"),
        "capitals": password.upper().encode(),
    }
    return [name for name, form in forms.items() if form in data]


def test_a_password_is_found_by_the_search_for_it() -> None:
    for form in (PASSWORD.encode(), scan_codes(PASSWORD), PASSWORD.encode("utf-16-le")):
        assert traces(b"..." + form + b"...")
    assert not traces(b"nothing of it: Zebra7 k")
    with pytest.raises(UsageError):
        traces(b"", "ü")


@pytest.mark.parametrize(
    ("given", "is_served"), [("password", False), ("wrong", False), ("password", True)]
)
def test_no_output_no_file_and_no_memory_has_the_password_after_an_update(
    guarded: Cli, given: str, is_served: bool
) -> None:
    """Packets and one piece; by SMI and by CMOS; planned, armed, cancelled, installed."""
    make(guarded, "cmos", "precision-390")
    if given == "wrong":  # a module that stays: its buffer has what was called last
        guarded.json("module", "load", "dcdbas", "--machine", "box")
    password = PASSWORD if given == "password" else WRONG
    home = guarded.directory.parent / "home"
    with serving(home / "machines" / "box") if is_served else contextlib.nullcontext():
        for machine, system, mode in (
            ("box", 0x0495, "packet"),
            ("box", 0x0495, "mono"),
            ("cmos", 0x01DE, "packet"),
            ("cmos", 0x01DE, "mono"),
        ):
            image = new_bios(guarded, system, "A02" if machine == "box" else "2.3.0")
            chosen = (image, "--machine", machine, "--mode", mode, "--reinstall")
            way, on = ("--password-file", given), ("--machine", machine)
            for words in (
                ("plan", *chosen, *way),
                ("update", *chosen, *way),
                ("status", *on),
                ("scan", machine),
                ("cancel", *on, *way),
                ("update", *chosen, *way, "--json"),
                ("history", *on, "--json"),
            ):
                ended = guarded(*words)
                assert not traces(f"{ended.out}{ended.err}".encode(), password)
            for path in (each for each in home.rglob("*") if each.is_file()):
                assert not traces(path.read_bytes(), password), path
            if not is_served:
                guarded("machine", "reboot", machine)
