"""Checks before arming: whether this machine's BIOS will act on its token, and take the packets.

The token alone is not enough. Its ports may belong to no device. CMOS around it may have a wrong
check value: then a BIOS loads its defaults at the next start, and by default the token is clear.
And a BIOS with an admin password takes no packets without it. What can be known of that before an
update is an obstacle of the plan (`checks/arming.py`), and is checked again when the token is set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from openrbu.cmos import IndexedActivation, checks_text
from openrbu.errors import ObstacleError
from openrbu.formats.security import PasswordStatus, admin_password_status
from openrbu.hosts.base import Host
from openrbu.update.arm import ActivationToken, NoAnswerError, activation_for
from openrbu.update.target import Target

if TYPE_CHECKING:
    from openrbu.update.options import Options

ARMED_ALREADY = "the BIOS is armed already: restart, or `rbu cancel` first"

_MAX_READS = 3
"""How many reads of CMOS have to give a wrong check value. A kernel's clock driver uses the same
ports: at the same time, 5 of 100 bytes that a program read through `/dev/port` were wrong (measured
on 6.1)."""


def lacks_password(target: Target, options: Options) -> bool:
    """Whether the BIOS will refuse packets because no password was given."""
    is_silent = options.password is None and not options.without_password
    return is_silent and has_admin_password(target)


def has_admin_password(target: Target) -> bool:
    """Whether SMBIOS says that an admin password is set."""
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
    return ignored_because(wrong) if wrong else ""


def ignored_because(wrong: str) -> str:
    """The same where it is known already which check values are `wrong`."""
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
