"""One check of a plan: what was found, the verdict, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from openrbu.errors import ExitCode

if TYPE_CHECKING:
    from openrbu.update.checks.situation import Situation


class Question(StrEnum):
    """The questions that a plan answers, in the order in which it shows them. The value is for
    scripts, `text` for people."""

    IMAGE = "image"
    STAGING = "staging"
    SEARCH = "search"
    ARMING = "arming"
    RESTART = "restart"
    REST = "rest"

    @property
    def text(self) -> str:
        return _TEXTS[self]


_TEXTS = {
    Question.IMAGE: "Is the image for this machine?",
    Question.STAGING: "Can it be staged?",
    Question.SEARCH: "Will the BIOS find it?",
    Question.ARMING: "Will the BIOS be armed?",
    Question.RESTART: "Will the restart keep it?",
    Question.REST: "What else matters?",
}


class Verdict(StrEnum):
    """What a check means for the update."""

    FINE = "fine"
    HANDLED = "handled"
    """It would prevent the update, and the update itself takes care of it."""
    IN_THE_WAY = "in_the_way"
    """An obstacle: someone has to remove it first."""
    UNKNOWN = "unknown"
    """It can't be known from here whether it prevents the update."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a plan looked at.

    `name` is what was looked at, in snake_case for scripts. `found` says what was seen, and
    `advice` what to do; each is at most one line for people. Where it is in the way, `obstacle` is
    the obstacle's name for scripts (empty: the same as `name`), and `exit_code` is the exit code
    of the command.
    """

    question: Question
    name: str
    found: str
    verdict: Verdict
    advice: str = ""
    obstacle: str = ""
    exit_code: ExitCode = ExitCode.OBSTACLE

    @property
    def is_in_the_way(self) -> bool:
        return self.verdict is Verdict.IN_THE_WAY

    @property
    def kind(self) -> str:
        """The obstacle's name for scripts."""
        return self.obstacle or self.name

    @property
    def message(self) -> str:
        """What was found and what to do, in one line."""
        return f"{self.found}: {self.advice}" if self.advice else self.found


def checks_of(
    question: Question, look: Callable[[Situation], Iterable[Check]], seen: Situation
) -> Iterator[Check]:
    """The checks that `look` makes for a question. An error of the kernel that no check expects,
    such as one of a disk, is a check of its own in place of the rest: it is in the way, because an
    update would meet it, too."""
    try:
        yield from look(seen)
    except OSError as error:
        found = f"{error.filename or 'a file'} can't be read: {error.strerror}"
        advice = "see the kernel's log (dmesg)"
        yield Check(question, "unreadable", found, Verdict.IN_THE_WAY, advice)
