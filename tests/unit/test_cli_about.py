"""The commands help and version, and words that name a thing twice."""

from __future__ import annotations

import platform

import pytest

from openrbu import __version__
from openrbu.cli.app import COMMANDS, Group
from rigs.cli import Cli


def all_words() -> list[str]:
    """Each command and each group, as its words."""
    words = list(COMMANDS)
    for name, row in COMMANDS.items():
        if isinstance(row, Group):
            words += [f"{name} {second}" for second in row.rows]
    return words


@pytest.mark.parametrize("words", ["", *all_words()])
def test_help_of_a_command_is_what_the_command_says_of_itself(rbu: Cli, words: str) -> None:
    asked, own = rbu("help", *words.split()), rbu(*words.split(), "--help")
    assert (asked.code, asked.out, asked.err) == (0, own.out, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("statsu", "there is no command rbu statsu; did you mean rbu status? See: rbu --help"),
        ("machine nwe", "there is no command rbu machine nwe; did you mean rbu machine new? See"),
        ("new", "there is no command rbu new; did you mean rbu machine new? See: rbu --help"),
        ("xyzzy", "there is no command rbu xyzzy; see: rbu --help"),
        ("info new", "rbu info has no commands of its own; see: rbu info --help"),
        ("machine new x", "rbu machine new has no commands of its own; see: rbu machine new -"),
    ],
)
def test_help_of_what_is_no_command_names_what_is_near(rbu: Cli, words: str, said: str) -> None:
    assert rbu.fails(2, "help", *words.split()).startswith(f"rbu: {said}")


def test_the_version_is_told_in_three_ways(rbu: Cli) -> None:
    for words in ("version", "-V", "--version"):
        assert rbu(words).out == f"rbu {__version__}\n"
    document = rbu.json("version")
    assert document["version"] == __version__
    assert document["python_version"] == platform.python_version()
    assert rbu("version", "--help").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("status", "-m", "one", "-m", "two"),
        ("history", "--machine", "one", "-m", "two"),
        ("plan", "image.hdr", "-m", "one", "--machine=two"),
        ("run", "-m", "one", "-m", "two", "--", "true"),
        ("mount", "here", "-m", "one", "-m", "two"),
    ],
)
def test_two_machines_are_refused_and_none_is_dropped(rbu: Cli, words: tuple[str, ...]) -> None:
    rbu.image()
    assert rbu.fails(2, *words) == (
        "rbu: one machine at a time, not one, two: use --machine once\n"
    )


def test_a_machine_named_twice_is_one_machine(rbu: Cli) -> None:
    rbu("machine", "new", "one")
    assert rbu("status", "-m", "one", "-m", "one").code == 0
