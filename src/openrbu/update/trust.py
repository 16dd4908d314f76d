"""Trust: whether this machine's BIOS will believe that it is armed, and take what it is given.

The token alone does not tell. It may be behind ports that nobody answers; CMOS around it may have
a wrong check value, for which a BIOS loads its defaults at the next start, and by default no update
is wanted; and a BIOS with an admin password takes no packets without it. What of that can be known
beforehand is an obstacle of the plan, and is looked at again when the token is set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from openrbu.cmos import IndexedActivation, checks_text
from openrbu.errors import ObstacleError
from openrbu.formats.security import PasswordStatus, admin_password_status
from openrbu.hosts.base import Host
from openrbu.update.arm import NoAnswerError, Switch, read_armed, switch_for
from openrbu.update.obstacle import Obstacle
from openrbu.update.target import Target

if TYPE_CHECKING:
    from openrbu.update.driver import Mode
    from openrbu.update.options import Options

ARMED_ALREADY = "the BIOS is armed already: restart, or `rbu cancel` first"

_LOOKS = 3
"""How often CMOS has to look wrong. A kernel's clock driver uses the same ports: with it at work, 5
of 100 bytes that a program read through `/dev/port` were others (measured on 6.1)."""

_NO_PASSWORD = (
    "SMBIOS says that a BIOS admin password is set, and then the BIOS takes no packets without it: "
    "give it (--password-file), or say that there is none (--without-password); some Dell BIOSes "
    "of 2003 to 2006 seem to say so whether there is one or not"
)

_NO_PLACE_FOR_IT = (
    "SMBIOS says that a BIOS admin password is set: a monolithic image has no place for it, and "
    "the published rules ask for none"
)

_NOT_WANTED = (
    "a password is given, and SMBIOS says that none is set: a BIOS may refuse packets with one"
)


def obstacles(host: Host, target: Target, options: Options, mode: Mode) -> Iterator[Obstacle]:
    """What keeps this machine's BIOS from being armed, or from taking what it is armed for."""
    if target.rbu is None:
        return
    try:
        switch = switch_for(host, target)
    except NoAnswerError as error:
        yield Obstacle("ports_do_not_answer", str(error))
    except ObstacleError as error:
        yield Obstacle("no_switch", str(error))
    else:
        doubt = "" if options.mend_cmos else disbelief(switch)
        if doubt:
            yield Obstacle("cmos_not_believed", f"{doubt}, or use --mend-cmos")
        if read_armed(host, target):
            yield Obstacle("armed_already", ARMED_ALREADY)
    if mode == "packet" and lacks_password(target, options):
        yield Obstacle("password_needed", _NO_PASSWORD)


def notes(host: Host, target: Target, options: Options, mode: Mode) -> Iterator[str]:
    """What else there is to know of that."""
    if target.tables.problems:
        yield f"the SMBIOS tables are broken: {'; '.join(target.tables.problems)}"
    if mode == "mono" and _has_admin_password(target):
        yield _NO_PLACE_FOR_IT
    status = admin_password_status(target.tables)
    if mode == "packet" and options.password is not None and status is PasswordStatus.DISABLED:
        yield _NOT_WANTED
    if options.mend_cmos and target.rbu is not None:
        with contextlib.suppress(ObstacleError):  # an obstacle of the plan
            if wrong := wrong_checks(switch_for(host, target)):
                yield f"{wrong}: --mend-cmos makes it right before the BIOS is armed"


def lacks_password(target: Target, options: Options) -> bool:
    """Whether the BIOS will take no packets, for want of a password."""
    is_silent = options.password is None and not options.without_password
    return is_silent and _has_admin_password(target)


def _has_admin_password(target: Target) -> bool:
    return admin_password_status(target.tables) is PasswordStatus.ENABLED


def wrong_checks(switch: Switch) -> str:
    """Which check values of CMOS are wrong; empty: none, or the token is not there."""
    if not isinstance(switch, IndexedActivation):
        return ""
    for _ in range(_LOOKS):
        wrong = switch.wrong_checks
        if not wrong:
            return ""
    return f"in CMOS {checks_text(wrong)}"


def disbelief(switch: Switch) -> str:
    """Why a BIOS would not believe the token, and what to do; empty: it would."""
    wrong = wrong_checks(switch)
    if not wrong:
        return ""
    return (
        f"{wrong}: at the next start a BIOS loads its defaults for that, and drops the token; "
        "restart once and look at its setup"
    )


def cmos_doubt(host: Host, target: Target) -> str:
    """What is wrong with CMOS, where the token is in it: nobody answers, or which check values are
    wrong; empty: nothing, or it can't be read from here."""
    try:
        return wrong_checks(switch_for(host, target))
    except NoAnswerError as error:
        return str(error)
    except ObstacleError:
        return ""


def mend(switch: Switch, undo: Callable[[str, Callable[[], None]], None]) -> None:
    """Make the check values of CMOS right; `undo` gets what puts them back, before."""
    if isinstance(switch, IndexedActivation) and wrong_checks(switch):
        undo("the check values of CMOS", switch.saved_checks())
        switch.repair()
