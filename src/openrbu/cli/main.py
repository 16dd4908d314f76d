"""The command `rbu`: runs one command line, prints its answer, or one line that says what failed.

Theory of operation. A command is a function that returns an `Answer`: a document for `--json`,
blocks for people, and the error with which the command ends although it has something to show (such
as a plan with obstacles). All other errors are raised. Only this module turns errors into a line on
standard error, a document on standard output and an exit code.

Ctrl-C, SIGTERM and SIGHUP are raised as `TerminatedBySignal`, so that a command undoes what it has
begun. Nothing is imported at the top that `rbu --version` does not need: start-up time.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from openrbu import __version__
from openrbu.lazy import use_one_blas_thread
from openrbu.system.interrupts import TerminatedBySignal, signals_raised

if TYPE_CHECKING:
    from openrbu.balloon.clock import Clock
    from openrbu.cli.commands import Invocation
    from openrbu.cli.show import Answer
    from openrbu.errors import OpenRbuError

_YOUNG_OBJECTS = 50_000
"""How many new objects start a garbage collection; Python's own number, 700, is for programs that
run longer and have fewer objects."""

EXIT_FAILED = 1
EXIT_USAGE = 2

_OPTIONS_WITH_VALUE: dict[tuple[str, ...], tuple[str, ...]] = {
    ("run",): ("-m", "--machine", "--trace"),
    ("lab", "shell"): (
        "--model",
        "--bios-version",
        "--ram",
        "--cpus",
        "--kernel",
        "--modules",
        "--kernel-words",
        "--ram-file",
        "--admin-password-file",
        "--after-restart",
    ),
}
"""The commands that run a program, and those of their options that take the next word as value."""

_HALF_A_MODULE = (
    "a compiled module of Python is cut short, as a full disk leaves it: remove the directories "
    "__pycache__ of openrbu and its packages; Python makes them again"
)


def entry() -> int:
    """The program `rbu`: `main`, with less garbage collection.

    A command makes some 100,000 objects when it is loaded, and few of them are garbage. Collections
    take 6 ms during the run, and 15 ms more at the end of the process, when Python searches all
    objects for cycles; frozen objects are not searched. Returns the exit code.
    """
    gc.set_threshold(_YOUNG_OBJECTS)
    try:
        return main()
    finally:
        gc.freeze()


def main(arguments: Sequence[str] | None = None, *, clock: Clock | None = None) -> int:
    """Run one command line. `arguments`: its words without the program's name; None: the process's
    own. `clock`: the time for balloon commands; None: this computer's.

    Returns the exit code. Only shell completion raises SystemExit.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["--version"], ["-V"], ["version"]):  # without the import of everything else
        with contextlib.suppress(OSError, AttributeError):  # a full disk, a closed stream
            sys.stdout.write(f"rbu {__version__}\n")
            sys.stdout.flush()
            return 0
    use_one_blas_thread()
    _fill_streams()
    with signals_raised():
        try:
            return _run(words, clock)
        except TerminatedBySignal as stop:  # before a command, or while a signal was reported
            if sys.stderr is not None:
                print(f"rbu: {stop.text}", file=sys.stderr)
            return stop.exit_code


def _fill_streams() -> None:
    """Open /dev/null for each standard stream that the caller has closed. Else the next files would
    be opened with their numbers, and output would be written into those files."""
    with contextlib.suppress(OSError):  # no /dev/null
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(fd)


def _run(words: list[str], clock: Clock | None) -> int:
    """Run, show the answer or the error, return the exit code."""
    from openrbu.cli import show
    from openrbu.cli.commands import Invocation
    from openrbu.errors import OpenRbuError

    as_json = "--json" in _own_words(words)
    show.prepare_streams()
    document: dict[str, Any] = {}
    invocation = Invocation(as_json, clock)
    try:
        result = _call(words, invocation)
        if isinstance(result, int):
            return result
        if not as_json:
            show.emit(result.blocks)
        document.update(result.document)
        if result.error is not None:
            raise result.error
        if as_json:
            show.emit_document(_said(invocation) | document)
        return 0
    except OpenRbuError as error:
        return _fail_as(error, _said(invocation) | document, as_json=as_json)
    except (TerminatedBySignal, RuntimeError) as error:
        stop = error if isinstance(error, TerminatedBySignal) else error.__cause__
        # Python up to 3.11 wraps it while a class is made.
        if not isinstance(stop, TerminatedBySignal):
            raise
        kind, text, exit_code = "interrupted", stop.text, stop.exit_code
    except OSError as error:
        kind, text, exit_code = "system", show.os_error_text(error), EXIT_FAILED
    failure = {"kind": kind, "message": text, "exit_code": exit_code}
    return _fail({**_said(invocation), "error": failure}, as_json=as_json)


def _said(invocation: Invocation) -> dict[str, Any]:
    """Which command says something of which machine, when, and on which computer: the key `said` of
    a document. Nothing, where the command is about no machine, or is not known."""
    if not (invocation.as_json and invocation.said):
        return {}
    import datetime as dt

    at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    return {"said": {**invocation.said, "computer": os.uname().nodename, "at": at}}


def _own_words(words: list[str]) -> list[str]:
    """The words that are options and arguments of rbu: up to `--`, or up to the program to run."""
    own = words[: words.index("--")] if "--" in words else words
    for command, with_value in _OPTIONS_WITH_VALUE.items():
        if tuple(own[: len(command)]) == command:
            for number in range(len(command), len(own)):
                if not own[number].startswith("-") and own[number - 1] not in with_value:
                    return own[:number]
    return own


def _call(words: list[str], invocation: Invocation) -> Answer | int:
    """Parse the words and call the command.

    :raise UsageError: when the words are not a valid command line.
    """
    from openrbu._vendor import typer
    from openrbu.cli import show
    from openrbu.cli.app import build_command
    from openrbu.errors import UsageError

    command = build_command()
    asked = words or ["--help"]
    try:
        result: Answer | int | None = command.main(
            asked, prog_name="rbu", standalone_mode=False, obj=invocation
        )
    except typer.TyperException as error:
        text = " ".join(error.format_message().split()).rstrip(".")
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "rbu"
        raise UsageError(f"{text}; see: {path} --help") from None
    except typer.Abort as error:
        if "marshal" in str(error.__cause__):  # no question was asked
            raise OSError(errno.EIO, _HALF_A_MODULE) from None
        raise UsageError("no answer was given; nothing was changed") from None
    except OSError as error:
        if asked[0] != "help" and not {"--help", "-h"} & set(_own_words(asked)):
            raise
        raise show.output_error(error) from None
    if not words:
        return EXIT_USAGE
    return 0 if result is None else result


def _fail_as(error: OpenRbuError, document: dict[str, Any], *, as_json: bool) -> int:
    """Show an error; the document has it beside what the command has to show."""
    from openrbu.cli import show
    from openrbu.errors import DamagedInputError

    if os.environ.get("OPENRBU_DEBUG"):
        import traceback

        traceback.print_exception(error)
    failure: dict[str, Any] = {
        "kind": error.kind,
        "message": show.os_error_text(error) if isinstance(error, OSError) else str(error),
        "exit_code": int(error.exit_code),
    }
    if isinstance(error, DamagedInputError) and error.offset is not None:
        failure["offset_bytes"] = error.offset
    return _fail({**document, "error": failure}, as_json=as_json)


def _fail(document: dict[str, Any], *, as_json: bool) -> int:
    """Print the error as a line on standard error, and with --json the whole document.

    Returns the error's exit code.
    """
    from openrbu.cli import show
    from openrbu.errors import OpenRbuError

    failure = document["error"]
    if as_json:
        # An error in writing the document can't be in the document; the line is still printed.
        with contextlib.suppress(OpenRbuError):
            show.emit_document(document)
    show.print_error(failure["message"])
    exit_code: int = failure["exit_code"]
    return exit_code
