"""How things stand with an update on a machine: a word for scripts, and words for people."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Sense(StrEnum):
    """Whether somebody has to look at it."""

    GOOD = "good"
    OPEN = "open"
    BAD = "bad"


class Outcome(NamedTuple):
    """Its words, and whether somebody has to look at it."""

    words: str
    sense: Sense


NO_ANSWER = "no_answer"
"""Of what should be a machine's answer, and is none."""

OUTCOMES = {
    "updated": Outcome("updated", Sense.GOOD),
    "not_needed": Outcome("not needed: the version runs", Sense.GOOD),
    "pinned": Outcome("left alone: pinned by the policy", Sense.GOOD),
    "not_in_policy": Outcome("not in the policy", Sense.OPEN),
    "step_made": Outcome("a step made, and not the last", Sense.OPEN),
    "ready": Outcome("ready for the update", Sense.OPEN),
    "under_way": Outcome("under way", Sense.OPEN),
    "staged": Outcome("staged, not armed", Sense.OPEN),
    "pending": Outcome("armed: waits for the restart", Sense.OPEN),
    "cancelled": Outcome("cancelled", Sense.OPEN),
    "none": Outcome("no update tried", Sense.OPEN),
    "not_known": Outcome("not known: the version is the same", Sense.OPEN),
    "refused": Outcome("refused by the BIOS", Sense.BAD),
    "not_looked": Outcome("not looked at by the BIOS", Sense.BAD),
    "bypassed": Outcome("not restarted through the BIOS", Sense.BAD),
    "staged_in_vain": Outcome("staged, and not there any more", Sense.BAD),
    "armed_in_vain": Outcome("armed in vain", Sense.BAD),
    "prevented": Outcome("prevented", Sense.BAD),
    "interrupted": Outcome("interrupted before it was armed", Sense.BAD),
    "failed": Outcome("failed", Sense.BAD),
    NO_ANSWER: Outcome("no answer", Sense.BAD),
}
"""Each outcome that a report knows. The endings of an update are among them (`update/ending.py`),
and the events of a journal with which one ends before it is armed."""


def outcome_words(outcome: str) -> str:
    """An outcome for people; one that only a newer openrbu knows, as it is."""
    known = OUTCOMES.get(outcome)
    return outcome.replace("_", " ") if known is None else known.words


def sense_of(outcome: str) -> Sense:
    """Whether somebody has to look at it; one that is not known is to be looked at."""
    known = OUTCOMES.get(outcome)
    return Sense.BAD if known is None else known.sense
