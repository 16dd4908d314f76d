"""The command `rbu`: runs one command line, shows its answer, says in one line what went wrong.

Theory of operation. A command is a function that returns an `Answer`: a document for `--json`,
blocks for people, and the error that the command ends with although it has something to show (a
plan with something in its way). All else that goes wrong is raised. Only this module turns errors
into a line on standard error, a document on standard output and an exit code.

Ctrl-C, SIGTERM and SIGHUP are raised as `Stopped`, so that what was begun is undone on the way out.
Nothing is imported at the top that `rbu --version` does not need: start-up time.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from openrbu import __version__
from openrbu.lazy import use_one_blas_thread
from openrbu.system.interrupts import Stopped, signals_raised

if TYPE_CHECKING:
    from openrbu.balloon.clock import Clock
    from openrbu.cli.commands import Invocation
    from openrbu.cli.show import Answer
    from openrbu.errors import OpenRbuError

_YOUNG_OBJECTS = 50_000
"""New objects between two looks for garbage; Python's own number, 700, is for long-lived programs
of fewer objects."""

EXIT_FAILED = 1
EXIT_USAGE = 2

_TAKE_A_WORD: dict[tuple[str, ...], tuple[str, ...]] = {
    ("run",): ("-m", "--machine"),
    ("lab", "shell"): ("--model", "--bios-version", "--ram", "--ram-file", "--after-restart"),
}
"""The commands that run a program, and those of their options that the next word belongs to."""


def entry() -> int:
    """What the program `rbu` is: `main`, with a garbage collector that is out of its way.

    A command makes some 100,000 objects when it is loaded, and few of them are garbage. Looking
    through them takes 6 ms on the way, and 15 ms more at the end of the process, when Python looks
    for cycles among all that there is: they are frozen, so that it does not. Returns as `main`.
    """
    gc.set_threshold(_YOUNG_OBJECTS)
    try:
        return main()
    finally:
        gc.freeze()


def main(arguments: Sequence[str] | None = None, *, clock: Clock | None = None) -> int:
    """Run one command line, without the program's name; the process's own where none is given.
    `clock` is what balloon commands go by; None: this computer's.

    Returns the exit code. SystemExit comes out of shell completion only.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:  # without the import of everything else
        with contextlib.suppress(OSError, AttributeError):  # a full disk, a closed stream
            sys.stdout.write(f"rbu {__version__}\n")
            sys.stdout.flush()
            return 0
    use_one_blas_thread()
    _fill_streams()
    with signals_raised():
        try:
            return _run(words, clock)
        except Stopped as stop:  # before anything was begun, or while another one was told of
            if sys.stderr is not None:
                print(f"rbu: {stop.text}", file=sys.stderr)
            return stop.exit_code


def _fill_streams() -> None:
    """Have the standard streams that the caller closed lead nowhere. Else what is opened next would
    get their numbers, and what is said its text."""
    with contextlib.suppress(OSError):  # where /dev has none
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
    try:
        result = _call(words, Invocation(as_json, clock))
        if isinstance(result, int):
            return result
        if not as_json:
            show.emit(result.blocks)
        document.update(result.document)
        if result.error is not None:
            raise result.error
        if as_json:
            show.emit_document(document)
        return 0
    except OpenRbuError as error:
        return _fail_as(error, document, as_json=as_json)
    except (Stopped, RuntimeError) as error:
        stop = error if isinstance(error, Stopped) else error.__cause__
        if not isinstance(stop, Stopped):  # up to 3.11 a class that is being made wraps it
            raise
        kind, text, exit_code = "interrupted", stop.text, stop.exit_code
    except OSError as error:
        kind, text, exit_code = "system", show.os_error_text(error), EXIT_FAILED
    failure = {"kind": kind, "message": text, "exit_code": exit_code}
    return _fail({"error": failure}, as_json=as_json)


def _own_words(words: list[str]) -> list[str]:
    """Those in which an option is rbu's own: up to `--`, or up to the program that is to run."""
    own = words[: words.index("--")] if "--" in words else words
    for command, take_a_word in _TAKE_A_WORD.items():
        if tuple(own[: len(command)]) == command:
            for number in range(len(command), len(own)):
                if not own[number].startswith("-") and own[number - 1] not in take_a_word:
                    return own[:number]
    return own


def _call(words: list[str], invocation: Invocation) -> Answer | int:
    """Parse the words and call the command.

    :raise UsageError: when the words make no command line.
    """
    import typer

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
    except typer.Abort:  # end of file where a question was asked
        raise UsageError("no answer was given; nothing was changed") from None
    if not words:
        return EXIT_USAGE
    return 0 if result is None else result


def _fail_as(error: OpenRbuError, document: dict[str, Any], *, as_json: bool) -> int:
    """Say what is wrong; what there is to show is shown in the document beside it."""
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
    """Show a document with an error: as a line on standard error, and whole where JSON is wanted.

    Returns its exit code.
    """
    from openrbu.cli import show
    from openrbu.errors import OpenRbuError

    failure = document["error"]
    if as_json:
        # What keeps the document from being written can't be told in it; the line is still there.
        with contextlib.suppress(OpenRbuError):
            show.emit_document(document)
    show.complain(failure["message"])
    exit_code: int = failure["exit_code"]
    return exit_code
