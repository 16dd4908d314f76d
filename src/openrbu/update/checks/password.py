"""The admin password, a part of "will the BIOS be armed": whether one is set, whether it was given,
and whether the BIOS takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.errors import OpenRbuError
from openrbu.formats.security import PasswordStatus, admin_password_status
from openrbu.update.arming_checks import lacks_password
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.passwords import (
    HOW_TO_GIVE_IT,
    AdminPassword,
    PasswordNeededError,
    WrongPasswordError,
    admin_password,
)

_check = partial(Check, Question.ARMING, "admin_password")
_in_the_way = partial(_check, verdict=Verdict.IN_THE_WAY)

_NO_PLACE = "a monolithic image has no place for it, and the published rules ask for none"

_OR_THERE_IS_NONE = (
    f"{HOW_TO_GIVE_IT}, or say that there is none (--without-password); some Dell BIOSes of 2003 "
    "to 2006 seem to say so even when none is set"
)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the BIOS takes what it is given, without a password or with the one given; and who
    may change the token, then or later."""
    if seen.target.rbu is None:
        return
    try:
        known = admin_password(seen.host, seen.target)
        is_verified = _is_verified(seen, known)
    except (PasswordNeededError, WrongPasswordError) as error:
        yield _in_the_way(str(error), obstacle=error.kind)
        yield _writers(seen, is_set=True)
    except (OpenRbuError, OSError) as error:
        yield _check(
            "the BIOS can't be asked about its admin password", Verdict.UNKNOWN, str(error)
        )
        known = AdminPassword(admin_password_status(seen.target.tables))
        yield _unverified(seen, known)
        yield _writers(seen, is_set=known.is_set)
    else:
        text = f"the BIOS takes the admin password ({known.shape})"
        fine = _check(text, Verdict.FINE)
        yield fine if is_verified else _unverified(seen, known)
        yield _writers(seen, is_set=known.is_set)


def _writers(seen: Situation, *, is_set: bool) -> Check:
    """Who else can set or clear the token between now and the restart."""
    if not seen.is_armed_by_smi:
        why = "the BIOS's password does not protect CMOS" if is_set else "no password protects CMOS"
        text = f"any program of root can change it, because {why}"
    elif is_set:
        text = "only who gives the BIOS admin password can change it"
    else:
        text = (
            "any program of root can change it, because no BIOS admin password is known to be set"
        )
    return Check(Question.ARMING, "token_writers", f"the activation token: {text}", Verdict.FINE)


def _is_verified(seen: Situation, known: AdminPassword) -> bool:
    """Whether the BIOS gives a security key. One that has no password, or that can't be asked now,
    gives none.

    :raise OpenRbuError | OSError: as `AdminPassword.security_key`.
    """
    return not seen.options.without_password and bool(known.security_key(seen.options.password))


def _unverified(seen: Situation, known: AdminPassword) -> Check:
    """The check where the BIOS did not verify a password."""
    is_set = f"{known.who_says_so} that a BIOS admin password is set"
    if not known.is_set:
        return _not_set(seen, known)
    if seen.options.without_password:
        return _check(is_set, Verdict.UNKNOWN, "--without-password goes on without it")
    if not seen.is_armed_by_smi and seen.mode == "mono":
        return _check(is_set, Verdict.UNKNOWN, _NO_PLACE)
    if lacks_password(seen.target, seen.options):
        what = (
            "sets its token only with it" if seen.is_armed_by_smi else "takes no packets without it"
        )
        text = f"{is_set}, and then the BIOS {what}"
        return _in_the_way(text, advice=_OR_THERE_IS_NONE, obstacle="password_needed")
    return _given(seen, known, f"{is_set}, and one was given")


def _given(seen: Situation, known: AdminPassword, text: str) -> Check:
    """The check where one is set, and one was given that nobody has verified."""
    if not seen.is_armed_by_smi:
        advice = "nothing verifies it before the restart; with a wrong one the BIOS changes nothing"
        return _check(text, Verdict.UNKNOWN, advice)
    if known.interface is None:
        return _check(text, Verdict.HANDLED, "it is verified before anything is staged")
    return _check(text, Verdict.UNKNOWN, "the BIOS has no call that verifies it")


def _not_set(seen: Situation, known: AdminPassword) -> Check:
    is_given = seen.options.password is not None
    is_sure = known.answer is False or known.status is PasswordStatus.DISABLED
    if not is_sure:
        given = "; one was given" if is_given else ""
        text = f"SMBIOS does not say whether a BIOS admin password is set{given}"
        return _check(text, Verdict.FINE)
    if not is_given:
        return _check(f"{known.who_says_so} that no BIOS admin password is set", Verdict.FINE)
    text = f"a password was given, but {known.who_says_so} that none is set"
    return _check(text, Verdict.UNKNOWN, "a BIOS may refuse packets with one")
