"""Will the BIOS be armed: the token, the CMOS around it, and the admin password."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from openrbu.cmos import IndexedActivation
from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.system.times import local_time
from openrbu.update.arm import NoAnswerError, activation_for, find_way, read_armed
from openrbu.update.arming_checks import (
    ARMED_ALREADY,
    ignored_because,
    wrong_checks,
)
from openrbu.update.checks import password
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation

if TYPE_CHECKING:
    from openrbu.update.journal import Attempt

_check = partial(Check, Question.ARMING)
_in_the_way = partial(_check, verdict=Verdict.IN_THE_WAY)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether this machine's BIOS can be armed, and will take what is staged."""
    if seen.target.rbu is not None:
        yield from _token(seen)
    yield from password.checks(seen)


def _last(seen: Situation) -> Attempt | None:
    """The last update of the journal; None where that can't be read, which an update will tell."""
    from openrbu.update.journal import Journal  # noqa: PLC0415  (start-up time)

    with contextlib.suppress(ObstacleError, DamagedInputError):
        return Journal.of(seen.host).last
    return None


def _is_left_armed(seen: Situation) -> bool:
    """Whether the token is still set for an update that is lost."""
    from openrbu.update.ending import is_left_armed  # noqa: PLC0415  (start-up time)

    return is_left_armed(seen.host, seen.target, _last(seen))


def _by_whom(last: Attempt | None) -> str:
    """By whom the BIOS was armed, as far as the journal says."""
    if last is None or not last.may_be_armed:
        return "by another program"
    version, when = last.fields.get("to_version"), last.events[0][1]
    return f"for the update to {version} of {local_time(when, 'minutes')}"


def _token(seen: Situation) -> Iterator[Check]:
    try:
        token = activation_for(seen.host, seen.target)
    except NoAnswerError as error:
        yield _in_the_way("token", str(error), obstacle="ports_do_not_answer")
        return
    except (ObstacleError, OSError) as error:
        yield _in_the_way("token", str(error), obstacle="no_switch")
        return
    if isinstance(token, IndexedActivation):
        yield from _way(seen)
        yield from _cmos(seen, token)
    armed = read_armed(seen.host, seen.target)
    if armed and _is_left_armed(seen):
        text = "the token is still set for an update that is lost: the BIOS did not run since then"
        yield _check("token", text, Verdict.HANDLED, "the update clears it first")
    elif armed:
        text = f"{ARMED_ALREADY} ({_by_whom(_last(seen))})"
        yield _in_the_way("token", text, obstacle="armed_already")
    elif armed is None:
        text = "the activation token can't be read before the dcdbas module is loaded"
        yield _check("token", text, Verdict.HANDLED, "the update loads it")
    else:
        text = f"the activation token can be read through {token.way}, and is clear"
        yield _check("token", text, Verdict.FINE)


def _way(seen: Situation) -> Iterator[Check]:
    """By which way the CMOS with the token is reached."""
    assert seen.target.tokens is not None
    way = find_way(seen.host, seen.target.tokens)
    if way.is_locked:
        text = f"CMOS is reached through {way.path}, which keeps the kernel's clock driver out"
        yield _check("cmos_way", text, Verdict.FINE)
    else:
        yield _check(
            "cmos_way",
            f"CMOS is reached through {way.path} only, where the kernel's clock driver can come in "
            f"between ({'; '.join(way.not_used)})",
            Verdict.HANDLED,
            "each byte is read until reads agree, and compared with the rest after a write",
        )


def _cmos(seen: Situation, token: IndexedActivation) -> Iterator[Check]:
    """Whether a BIOS will act on the token: the check values of CMOS."""
    wrong = wrong_checks(token)
    if not wrong:
        ranges = [f"{check.first:#04x} to {check.last:#04x}" for check in token.check_ranges]
        text = f"the check values over the indexes {', '.join(ranges)} of CMOS are right"
        none = "this CMOS has no check value that could be wrong"
        yield _check("cmos", text if ranges else none, Verdict.FINE)
        return
    if not seen.options.mend_cmos:
        text = f"{ignored_because(wrong)}, or use --mend-cmos"
        yield _in_the_way("cmos", text, obstacle="cmos_not_believed")
    else:
        text = "--mend-cmos repairs this before the BIOS is armed"
        yield _check("cmos", wrong, Verdict.HANDLED, text)
