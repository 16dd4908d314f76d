"""Checks before arming: whether this machine's BIOS will act on its token, and take the packets.

The token alone is not enough. Its ports may belong to no device. CMOS around it may have a wrong
check value: then a BIOS loads its defaults at the next start, and by default the token is clear.
And a BIOS with an admin password takes no packets without it. What can be known of that before an
update is an obstacle of the plan, and is checked again when the token is set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from openrbu.cmos import IndexedActivation, checks_text
from openrbu.errors import ObstacleError
from openrbu.formats.security import PasswordStatus, admin_password_status
from openrbu.hosts.base import Host
from openrbu.update.arm import ActivationToken, NoAnswerError, activation_for, read_armed
from openrbu.update.obstacle import Obstacle
from openrbu.update.target import Target

if TYPE_CHECKING:
    from openrbu.update.driver import Mode
    from openrbu.update.options import Options

ARMED_ALREADY = "the BIOS is armed already: restart, or `rbu cancel` first"

_MAX_READS = 3
"""How many reads of CMOS have to give a wrong check value. A kernel's clock driver uses the same
ports: at the same time, 5 of 100 bytes that a program read through `/dev/port` were wrong (measured
on 6.1)."""

_NO_PASSWORD = (
    "SMBIOS says that a BIOS admin password is set, and then the BIOS takes no packets without it: "
    "give it (--password-file), or say that there is none (--without-password); some Dell BIOSes "
    "of 2003 to 2006 seem to say so even when none is set"
)

_NO_PLACE_FOR_IT = (
    "SMBIOS says that a BIOS admin password is set: a monolithic image has no place for it, and "
    "the published rules ask for none"
)

_NOT_WANTED = (
    "a password was given, but SMBIOS says that none is set: a BIOS may refuse packets with one"
)


def obstacles(host: Host, target: Target, options: Options, mode: Mode) -> Iterator[Obstacle]:
    """Why this machine's BIOS can't be armed, or would not take what is staged."""
    if target.rbu is None:
        return
    try:
        token = activation_for(host, target)
    except NoAnswerError as error:
        yield Obstacle("ports_do_not_answer", str(error))
    except ObstacleError as error:
        yield Obstacle("no_switch", str(error))
    else:
        doubt = "" if options.mend_cmos else token_problem(token)
        if doubt:
            yield Obstacle("cmos_not_believed", f"{doubt}, or use --mend-cmos")
        if read_armed(host, target):
            yield Obstacle("armed_already", ARMED_ALREADY)
    if mode == "packet" and lacks_password(target, options):
        yield Obstacle("password_needed", _NO_PASSWORD)


def notes(host: Host, target: Target, options: Options, mode: Mode) -> Iterator[str]:
    """Notes on that which do not prevent an update."""
    if target.tables.problems:
        yield f"the SMBIOS tables are broken: {'; '.join(target.tables.problems)}"
    if mode == "mono" and _has_admin_password(target):
        yield _NO_PLACE_FOR_IT
    status = admin_password_status(target.tables)
    if mode == "packet" and options.password is not None and status is PasswordStatus.DISABLED:
        yield _NOT_WANTED
    if options.mend_cmos and target.rbu is not None:
        with contextlib.suppress(ObstacleError):  # an obstacle of the plan
            if wrong := wrong_checks(activation_for(host, target)):
                yield f"{wrong}: --mend-cmos repairs this before the BIOS is armed"


def lacks_password(target: Target, options: Options) -> bool:
    """Whether the BIOS will refuse packets because no password was given."""
    is_silent = options.password is None and not options.without_password
    return is_silent and _has_admin_password(target)


def _has_admin_password(target: Target) -> bool:
    return admin_password_status(target.tables) is PasswordStatus.ENABLED


def wrong_checks(token: ActivationToken) -> str:
    """Which check values of CMOS are wrong, as text; empty: none, or the token is not in CMOS."""
    if not isinstance(token, IndexedActivation):
        return ""
    for _ in range(_MAX_READS):
        wrong = token.wrong_checks
        if not wrong:
            return ""
    return f"in CMOS {checks_text(wrong)}"


def token_problem(token: ActivationToken) -> str:
    """Why a BIOS would ignore the token, and what to do; empty: it would not."""
    wrong = wrong_checks(token)
    if not wrong:
        return ""
    return (
        f"{wrong}: because of that a BIOS loads its defaults at the next start and clears the "
        "token; restart once and check its setup"
    )


def cmos_doubt(host: Host, target: Target) -> str:
    """What is wrong with the CMOS that the token is in: no device responds, or check values are
    wrong. Empty: nothing, or it can't be read from here."""
    try:
        return wrong_checks(activation_for(host, target))
    except NoAnswerError as error:
        return str(error)
    except ObstacleError:
        return ""


def repair_checks(token: ActivationToken, undo: Callable[[str, Callable[[], None]], None]) -> None:
    """Repair the check values of CMOS. `undo` is called before, with a step that restores them."""
    if isinstance(token, IndexedActivation) and wrong_checks(token):
        undo("the check values of CMOS", token.saved_checks())
        token.repair()
