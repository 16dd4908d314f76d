"""What a trial gets, and what it returns: the files `order.json` and `report.json` of a trial."""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.trials.combinations import Combination


@dataclass(frozen=True, slots=True)
class Order:
    """One trial: `command` is run on a machine that is `combination`, with an image of `version`.

    `parent`: the process that waits for the trial; `removes`, whether it removes what trials have
    written. `timeout_s`: when the tool is killed.
    """

    combination: Combination
    command: tuple[str, ...]
    version: str
    timeout_s: float
    strict: bool
    parent: int
    removes: bool


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What became of a machine on which a tool had run.

    `verdict`: the name of a `Verdict`, `why` one line about it. `exit_status`: the tool's, or the
    negative number of the signal that ended it. `completion_code`: what the BIOS recorded at the
    last start with an update; None if there was none. `found_in_held_memory`: as of `PostReport`.
    `restarted_itself`: the tool restarted the machine. `tool_said`: the last lines that it
    printed, on standard output or standard error. `kernel_said`: the last line of the kernel's log
    about the driver; empty if there is none. `seconds`: the time of the tool.
    """

    combination: Combination
    verdict: str
    why: str
    exit_status: int
    version_before: str
    version_after: str
    completion_code: int | None
    found_in_held_memory: bool | None
    restarted_itself: bool
    tool_said: tuple[str, ...]
    kernel_said: str
    seconds: float

    @property
    def is_fine(self) -> bool:
        """Whether the verdict is one that was expected."""
        return self.combination.is_fine(self.verdict, self.exit_status)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial could not be done: an `OpenRbuError`, as `kind`, exit code and message."""

    kind: str
    exit_code: int
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a trial: either a result or a failure."""

    result: TrialResult | None
    failure: Failure | None
