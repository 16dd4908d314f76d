"""Will the BIOS be armed: the token, the CMOS around it, and the admin password."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.errors import ObstacleError
from openrbu.update.arm import ActivationToken, NoAnswerError, activation_for, read_armed
from openrbu.update.arming_checks import (
    ARMED_ALREADY,
    token_problem,
    wrong_checks,
)
from openrbu.update.checks import password
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation

_check = partial(Check, Question.ARMING)
_in_the_way = partial(_check, verdict=Verdict.IN_THE_WAY)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether this machine's BIOS can be armed, and will take what is staged."""
    if seen.target.rbu is not None:
        yield from _token(seen)
    yield from password.checks(seen)


def _token(seen: Situation) -> Iterator[Check]:
    try:
        token = activation_for(seen.host, seen.target)
    except NoAnswerError as error:
        yield _in_the_way("token", str(error), obstacle="ports_do_not_answer")
        return
    except ObstacleError as error:
        yield _in_the_way("token", str(error), obstacle="no_switch")
        return
    yield from _cmos(seen, token)
    armed = read_armed(seen.host, seen.target)
    if armed:
        yield _in_the_way("token", ARMED_ALREADY, obstacle="armed_already")
    elif armed is None:
        text = "the activation token can't be read before the dcdbas module is loaded"
        yield _check("token", text, Verdict.HANDLED, "the update loads it")
    else:
        yield _check("token", "the activation token can be read, and is clear", Verdict.FINE)


def _cmos(seen: Situation, token: ActivationToken) -> Iterator[Check]:
    """Whether a BIOS will act on the token: the check values of CMOS."""
    if not seen.options.mend_cmos:
        doubt = token_problem(token)
        if doubt:
            text = f"{doubt}, or use --mend-cmos"
            yield _in_the_way("cmos", text, obstacle="cmos_not_believed")
    elif wrong := wrong_checks(token):
        text = "--mend-cmos repairs this before the BIOS is armed"
        yield _check("cmos", wrong, Verdict.HANDLED, text)
