"""What holds for every command: errors, JSON, pipes, terminals, signals, start-up."""

import contextlib
import errno
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu import __version__
from openrbu.cli import main, show
from openrbu.cli.show import Facts, Table, bad, good, printable
from openrbu.errors import DamagedInputError
from openrbu.system.descriptors import readable
from openrbu.system.interrupts import TerminatedBySignal
from rigs.cli import RBU, Cli

# -- usage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("frobnicate",), "rbu --help"),
        (("info",), "rbu info --help"),
        (("info", "a", "b"), "rbu info --help"),
        (("info", "--colour"), "rbu info --help"),
        (("update", "a", "--mode", "smoke"), "rbu update --help"),
        (("machine",), "rbu machine --help"),
        (("machine", "new"), "rbu machine new --help"),
        (("build", "a", "-o"), "rbu --help"),
    ],
)
def test_a_usage_error_is_one_line_with_a_hint_at_help(
    rbu: Cli, words: tuple[str, ...], says: str
) -> None:
    assert f"; see: {says}\n" in rbu.fails(2, *words)


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("update", ""), "IMAGE"),
        (("plan", "image.hdr", "--policy", ""), "--policy"),
        (("report", "one.json", ""), "[FILES]..."),
        (("mount", ""), "DIR"),
    ],
)
def test_an_empty_path_is_not_the_working_directory(
    rbu: Cli, words: tuple[str, ...], where: str
) -> None:
    """As a shell has it of a variable that is not set."""
    assert f"Invalid value for '{where}': the path is empty" in rbu.fails(2, *words)


def test_a_usage_error_comes_as_json_too(rbu: Cli) -> None:
    error = rbu.json("info", code=2)["error"]
    assert (error["kind"], error["exit_code"]) == ("usage", 2)
    assert "rbu info --help" in error["message"]


def test_the_error_line_stays_beside_the_json(rbu: Cli) -> None:
    ended = rbu("info", "nowhere", "--json")
    assert ended.err == f"rbu: {ended.document['error']['message']}\n"


def test_help_is_shown_for_every_command(rbu: Cli) -> None:
    top = rbu("--help")
    assert top.code == 0
    assert "Exit codes: 0 done" in top.out
    assert max(map(len, top.out.splitlines())) <= 80
    groups = {
        "machine": ("new", "list", "show", "reboot", "off", "rm"),
        "module": ("load", "unload"),
    }
    names = ["info", "extract", "build", "packets", "join", "plan", "update", "status", "cancel"]
    names += ["history", "scan", *groups]
    for name in names:
        assert f"  {name} " in top.out
        for command in ([name], *([name, second] for second in groups.get(name, ()))):
            ended = rbu(*command, "--help")
            assert ended.code == 0
            assert ended.out.startswith(f"Usage: rbu {' '.join(command)} ")
            assert "Exit codes" in ended.out
            assert name in groups or "Example:  rbu " in ended.out


def test_rbu_alone_shows_help_and_ends_with_2(rbu: Cli) -> None:
    ended = rbu()
    assert (ended.code, ended.err) == (2, "")
    assert ended.out == rbu("--help").out


def test_a_name_with_control_characters_stays_on_one_line(rbu: Cli) -> None:
    assert "\\x1b" in rbu.fails(2, "info", "evil\x1b[31m\nname")


# -- processes ------------------------------------------------------------------------------


def test_as_a_process_an_error_is_one_line_and_a_code(rbu: Cli) -> None:
    done = rbu.process("info", rbu.write("empty", b""))
    assert (done.returncode, done.stdout) == (5, b"")
    assert done.stderr.startswith(b"rbu: ")
    assert done.stderr.count(b"\n") == 1


def test_in_a_pipe_there_are_no_escape_codes_and_no_boxes(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--ram", "256M")
    path = rbu.image()
    for words in (
        ("plan", path, "-m", "demo"),
        ("update", path, "-m", "demo", "--reboot"),
        ("history", "-m", "demo"),
    ):
        done = rbu.process(*words)
        assert (done.returncode, done.stderr) == (0, b"")
        assert not set(done.stdout.decode()) & set("\x1b╭─│")


def test_a_reader_that_goes_away_is_no_error(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--ram", "256M")
    path = rbu.image()
    read, write = os.pipe()
    os.close(read)
    command = [*RBU, "update", str(path), "-m", "demo"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rbu.json("status", "-m", "demo")["is_armed"] is True


def test_a_full_disk_under_the_output_is_one_line(rbu: Cli) -> None:
    path = rbu.image()
    info = ["info", str(path)]
    helps = (["help"], ["help", "plan"], ["plan", "--help"], ["plan", "-h"])
    for words in (info, [*info, "--json"], *helps):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run([*RBU, *words], stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 1
        assert done.stderr == b"rbu: the output can't be written: No space left on device\n"


def test_a_closed_output_is_no_traceback(rbu: Cli) -> None:
    command = f"{sys.executable} -c 'from openrbu.cli.main import main; raise SystemExit(main())'"
    for words, code in ((f"info {rbu.image()} >&-", 0), ("--version >&-", 0), ("info 2>&-", 2)):
        shell = ["/bin/sh", "-c", f"{command} {words}"]
        done = subprocess.run(shell, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.untraced
def test_a_disk_that_fills_up_under_an_output_file_leaves_none(rbu: Cli) -> None:
    path = rbu.write("bios.bin", bytes(65536))

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    words = ("build", path, "-o", "a.hdr", "--bios-version", "A06", "--system", "0x0121")
    done = rbu.process(*words, preexec_fn=small_files)
    assert done.returncode == 1
    assert done.stderr == b"rbu: a.hdr can't be written: File too large\n"
    assert rbu.files == ["bios.bin"]


def test_a_locale_that_can_write_ascii_only_is_enough(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--ram", "256M")
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = rbu.process("plan", rbu.image(), "-m", "demo", env=env)
    assert done.returncode == 0
    assert b"A05 -> A06" in done.stdout


def test_debug_adds_the_traceback(rbu: Cli) -> None:
    done = rbu.process("info", "nowhere", env={**os.environ, "OPENRBU_DEBUG": "1"})
    assert done.returncode == 2
    assert b"Traceback" in done.stderr


# -- start-up -------------------------------------------------------------------------------


def imports(rbu: Cli, *words: object) -> set[str]:
    """The modules that a command imports."""
    command = [sys.executable, "-X", "importtime", *RBU[1:], *map(str, words)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=rbu.directory)
    lines = done.stderr.decode().splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if "|" in line}


@pytest.mark.untraced
def test_the_version_needs_next_to_nothing(rbu: Cli) -> None:
    modules = imports(rbu, "--version")
    assert "openrbu.cli.main" in modules
    assert not modules & {"openrbu._vendor", "rich", "numpy", "openrbu.errors", "dataclasses"}
    assert rbu("--version").out == f"rbu {__version__}\n"


def test_info_in_a_pipe_imports_neither_numpy_nor_rich(rbu: Cli) -> None:
    modules = imports(rbu, "info", rbu.image())
    assert "openrbu.formats.hdr" in modules
    assert not modules & {"numpy", "rich.console", "openrbu.formats.packages", "openrbu.machine"}


# -- terminals and signals ------------------------------------------------------------------


@contextlib.contextmanager
def on_terminal(
    *words: object, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command with a terminal, and our end of it."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", **environment}
    process = subprocess.Popen(
        [*RBU, *map(str, words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(fd: int, text: bytes, seconds: float = 30.0) -> bytes:
    """What a terminal shows, up to `text` or the end."""
    seen, end = b"", time.monotonic() + seconds
    while text not in seen and time.monotonic() < end:
        if readable([fd], 0.2):
            try:
                piece = os.read(fd, 4096)
            except OSError:  # the process has gone
                break
            if not piece:
                break
            seen += piece
    return seen


def wait_until_asleep(process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Until a process waits in a system call."""
    end = time.monotonic() + seconds
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
        assert time.monotonic() < end


END = b"\0 never shown \0"


def test_a_terminal_gets_boxes_and_colours_and_a_progress_bar(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--ram", "256M")
    with on_terminal("update", rbu.image(), "-m", "demo") as (process, terminal):
        shown = read_until(terminal, END).decode()
        assert process.wait() == 0
    assert {"╭", "\x1b", "━"} <= set(shown)
    assert "verifying in the driver" in shown
    assert "\x1b[32marmed" in shown


def test_no_color_means_no_colour(rbu: Cli) -> None:
    with on_terminal("info", rbu.image(), NO_COLOR="1") as (process, terminal):
        shown = read_until(terminal, END).decode()
        assert process.wait() == 0
    assert "╭" in shown
    assert "\x1b[32m" not in shown
    with on_terminal("info", "nowhere", NO_COLOR="1") as (process, terminal):
        assert b"\x1b" not in read_until(terminal, END)


def test_rm_asks_on_a_terminal(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--ram", "256M")
    for answer, code, left in ((b"n\n", 2, 1), (b"y\n", 0, 0)):
        with on_terminal("machine", "rm", "demo") as (process, terminal):
            assert b"Remove machine demo for good?" in read_until(terminal, b"[y/N]")
            os.write(terminal, answer)
            read_until(terminal, END)
            assert process.wait() == code
        assert len(rbu.json("machine", "list")["machines"]) == left


def test_ctrl_c_at_a_question_ends_with_130(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--ram", "256M")
    with on_terminal("machine", "rm", "demo") as (process, terminal):
        read_until(terminal, b"[y/N]")
        wait_until_asleep(process)  # a signal just before the read would wait for the answer
        process.send_signal(signal.SIGINT)
        assert b"rbu: interrupted" in read_until(terminal, END)
        assert process.wait() == 130
    assert len(rbu.json("machine", "list")["machines"]) == 1


@pytest.mark.parametrize("shown", [b"Update", b"staging", b"verifying"])
def test_ctrl_c_during_an_update_leaves_all_or_nothing(rbu: Cli, shown: bytes) -> None:
    rbu("machine", "new", "big", "--model", "precision-t7600", "--ram", "256M")
    path = rbu.image("A02", system=0x0495, size_bytes=10 << 20)
    with on_terminal("update", path, "-m", "big") as (process, terminal):
        read_until(terminal, shown)
        process.send_signal(signal.SIGINT)
        said = read_until(terminal, END)
        code = process.wait()
    now = rbu.json("status", "-m", "big")
    if code == 0:  # it was through before the signal came
        assert now["is_armed"] is True
        return
    assert code == 130
    assert b"rbu: interrupted" in said
    assert (now["is_armed"], now["staged_size_bytes"]) in {(False, 0), (None, 0)}


def test_an_ignored_hangup_stays_ignored(rbu: Cli) -> None:
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from openrbu.cli import main, show\n"
        "show_blocks = show.emit\n"
        "show.emit = lambda blocks: (os.kill(os.getpid(), signal.SIGHUP), show_blocks(blocks))\n"
        "sys.exit(main.main())\n"
    )
    command = [sys.executable, "-c", script, "info", str(rbu.image())]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"A06" in done.stdout


def test_an_interrupt_while_a_class_is_made_is_an_interrupt(
    rbu: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting:
        def __set_name__(self, owner: type, name: str) -> None:
            signal.raise_signal(signal.SIGTERM)

    def draw(_: object) -> None:
        type("Anything", (), {"field": Interrupting()})

    monkeypatch.setattr(show, "_draw_plain", draw)
    ended = rbu("info", rbu.image())
    assert (ended.code, ended.err) == (143, "rbu: interrupted\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TerminatedBySignal(signal.SIGTERM), "rbu: interrupted\n"),
        (DamagedInputError("the header is cut off"), "rbu: the header is cut off\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.hdr"), "rbu: a.hdr: No such file\n"),
    ],
)
def test_notes_that_python_adds_to_an_exception_are_not_shown(
    rbu: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, line: str
) -> None:
    def fail(words: list[str], invocation: object) -> None:
        raise error

    error.add_note("Error calling __set_name__ on 'X' instance 'x' in 'Y'")
    monkeypatch.setattr(main, "_call", fail)
    ended, as_json = rbu("info", "a.hdr"), rbu("info", "a.hdr", "--json")
    assert (ended.out, ended.err, as_json.err) == ("", line, line)
    assert as_json.document["error"]["message"] == line[len("rbu: ") : -1]


def test_shell_completion_completes_machine_names(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--ram", "256M")
    env = {
        **os.environ,
        "_RBU_COMPLETE": "complete_bash",
        "COMP_WORDS": "rbu status --machine d",
        "COMP_CWORD": "3",
    }
    done = rbu.process(env=env)
    assert done.stdout.decode().split() == ["demo"]


# -- drawing --------------------------------------------------------------------------------


def test_plain_blocks_are_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show.emit(
        [
            Facts("Title", [("name", "value"), ("longer name", good("fine")), ("", "more")]),
            Table("Unseen", ("a", "column"), [("1", bad("2")), ("33", "4")]),
            "a line",
        ]
    )
    assert capsys.readouterr().out == (
        "Title\n"
        "  name:         value\n"
        "  longer name:  fine\n"
        "                more\n"
        "A   COLUMN\n"
        "1   2\n"
        "33  4\n"
        "a line\n"
    )


def test_text_from_files_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show.emit(["\x1b]0;owned\a\r\nnext", Facts("\x1b[2J", [("a\b", "\udcff")])])
    out = capsys.readouterr().out
    assert out.count("\n") == 3
    assert out.replace("\n", "").isprintable()
    assert printable("tab\there") == "tab\\there"


def test_a_document_is_one_and_says_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    show.emit_document({"a": 1})
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "a": 1}


def test_a_table_looks_at_each_cell_a_few_times_however_long_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Row(list[str]):
        looked_at = 0

        def __iter__(self) -> Iterator[str]:
            Row.looked_at += 1
            return super().__iter__()

    show.emit([Table("", ("a", "b"), [Row(["1", "2"]) for _ in range(100)])])
    assert len(capsys.readouterr().out.splitlines()) == 101
    assert Row.looked_at <= 300


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_half_a_compiled_module_is_told_and_is_no_answer_to_a_question(
    words: tuple[str, ...], rbu: Cli, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [*RBU, "machine", "list", *words]
    subprocess.run(command, check=True, env=environment, cwd=rbu.directory, capture_output=True)
    (module,) = (tmp_path / "compiled").rglob("cli/machines.cpython-*.pyc")
    module.write_bytes(module.read_bytes()[:-100])
    ended = subprocess.run(
        command, check=False, env=environment, cwd=rbu.directory, capture_output=True, text=True
    )
    says = "a compiled module of Python is cut short"
    assert ended.returncode == 1
    if words:
        assert json.loads(ended.stdout)["error"]["message"].startswith(says)
    else:
        assert f"rbu: {says}" in ended.stderr
