"""How an update ended: the BIOS's record and version, the token, and this boot, compared with the
journal.

Theory of operation. A BIOS that finds its token set searches memory, records a completion code with
the time, and clears the token, whatever it found. So after another boot:

==============  =========  =========  ========================================================
the record      the token  version    the update
==============  =========  =========  ========================================================
is new          clear      the new    was installed
is new          clear      the old    was refused: the code says why
is as before    is set     the old    the BIOS has not run: kexec. It is still armed, and what
                                      was staged is ordinary memory now
is as before    clear      the old    the BIOS has not looked: something else cleared the token
==============  =========  =========  ========================================================

The record has no seconds: two updates with one result in the same minute have the same record.
Facts: docs/reference/bios-rules.md, B1; docs/reference/linux-files.md, L7.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from openrbu.formats.dell import CompletionCode
from openrbu.formats.version import BiosVersion
from openrbu.hosts.base import Host
from openrbu.linux.reboot import Boot, read_boot
from openrbu.update.arm import read_armed
from openrbu.update.driver import RbuDriver
from openrbu.update.journal import BYPASSED, Attempt
from openrbu.update.target import Target


class Ending(StrEnum):
    """How an update ended."""

    UPDATED = "updated"
    REFUSED = "refused"
    """The BIOS tried it, or searched for it; its completion code says what happened."""
    NOT_LOOKED = "not_looked"
    """The BIOS ran, and did not look for it: the token is clear, and there is no new record."""
    BYPASSED = "bypassed"
    """Linux was started again without the BIOS. It is still armed; what was staged is lost."""
    NOT_KNOWN = "not_known"
    """The same version as before was to be installed, and the BIOS's record is the same."""
    PENDING = "pending"
    """It waits for its restart."""


class PasswordUse(StrEnum):
    """What became of the BIOS admin password in an update, as the journal has it. The password
    itself is never there."""

    VERIFIED = "verified"
    """The BIOS verified it before anything was staged."""
    NOT_VERIFIED = "not_verified"
    """It was sent in packet 0, and nothing verifies it before the restart."""
    LEFT_OUT = "left_out"
    """SMBIOS says that one is set, and the BIOS got none."""


_CAUSES = {
    CompletionCode.INCONSISTENT_IMAGE: "the BIOS does not take this image: it is for another "
    "system or hardware revision, or it was changed in memory",
    CompletionCode.FLASH_NOT_ACCESSIBLE: "the flash is write-protected, or broken",
    CompletionCode.FLASH_NOT_READY: "the flash is broken",
    CompletionCode.PROGRAMMING_DISABLED: "the BIOS setup or a jumper forbids to write the flash",
    CompletionCode.NO_BATTERY: "no battery is in the machine: put one in, and connect mains power",
    CompletionCode.BATTERY_NOT_CHARGED: "the battery is low: charge it",
    CompletionCode.NO_EXTERNAL_POWER: "the machine ran on its battery: connect mains power",
    CompletionCode.TWELVE_VOLTS_NOT_SET: "the hardware of the machine",
    CompletionCode.TWELVE_VOLTS_NOT_REMOVED: "the hardware of the machine",
    CompletionCode.ERASE_FAILED: "the flash is broken or write-protected",
    CompletionCode.FLASH_FAILURE: "the flash is broken, or the power failed meanwhile",
    CompletionCode.MISCOMPARE: "the flash is broken",
    CompletionCode.IMAGE_NOT_FOUND: "what was staged was not in memory any more: a cold restart, a "
    "power cycle or a firmware that clears memory at each restart loses it; or the image has "
    "another size than this machine's flash",
}
_PASSWORD_CAUSES = {
    PasswordUse.NOT_VERIFIED: "the BIOS admin password that was given is wrong: nothing verified "
    "it before the restart",
    PasswordUse.LEFT_OUT: "a BIOS admin password is set, and the BIOS got none",
}
_TOKEN_CLEARED = (
    "the token was cleared before the BIOS came to it: another program did that, or CMOS lost its "
    "values and the BIOS loaded its defaults"
)
_ANOTHER_VERSION = "the BIOS has undone the update, or has installed another image"


def bios_record(target: Target) -> list[Any] | None:
    """The BIOS's record of the last update: completion code and time; None where there is none."""
    rbu = target.rbu
    if rbu is None:
        return None
    return [rbu.completion_code, rbu.when.isoformat() if rbu.when is not None else None]


def has_new_record(last: Attempt, target: Target) -> bool:
    """Whether the BIOS has recorded a result since the update began."""
    return bios_record(target) != last.fields.get("bios_record")


def succeeded(last: Attempt, target: Target) -> bool | None:
    """Whether the BIOS says "completed" and its version is the one that was staged.

    None: both were so before the update, and the BIOS's record has not changed. Then it did
    nothing, or it installed the same version once more in the same minute.
    """
    rbu = target.rbu
    is_complete = rbu is not None and rbu.completion_code == CompletionCode.COMPLETED
    meant = BiosVersion.parse(last.fields.get("to_version", ""))
    if not (is_complete and target.version.same_as(meant)):
        return False
    before = BiosVersion.parse(last.fields.get("from_version", ""))
    return True if not before.same_as(meant) or has_new_record(last, target) else None


def judge(last: Attempt, target: Target, boot: Boot, *, is_armed: bool | None) -> Ending:
    """How an update ended that was armed in another boot than this. `is_armed`: whether the token
    is set now; None: it can't be read."""
    success = succeeded(last, target)
    if success:
        return Ending.UPDATED
    if not has_new_record(last, target):
        is_unknown = is_armed is None and boot.is_by_kexec is True
        if is_armed or is_unknown:
            return Ending.BYPASSED
        if success is None:
            return Ending.NOT_KNOWN
        if not _may_be_new(last, target):
            return Ending.NOT_LOOKED
    return Ending.REFUSED


def _may_be_new(last: Attempt, target: Target) -> bool:
    """Whether the BIOS's record, which is the one from before, may be a new one: a failure in the
    minute in which the update began. The BIOS's clock shows local time or UTC."""
    rbu = target.rbu
    if rbu is None or rbu.when is None or rbu.completion_code == CompletionCode.COMPLETED:
        return False
    began = last.events[0][1]
    clocks = (began, began.astimezone(dt.UTC))
    return any(
        rbu.when.replace(tzinfo=None) == clock.replace(second=0, microsecond=0, tzinfo=None)
        for clock in clocks
    )


def likely_cause(ending: Ending, code: int | None, password_use: str | None = None) -> str:
    """Why an update was not installed, as far as the ending, the completion code and the use of the
    admin password (a `PasswordUse`) tell; empty: they don't."""
    if ending is Ending.NOT_LOOKED:
        return _TOKEN_CLEARED
    if ending is not Ending.REFUSED or code is None:
        return ""
    if code == CompletionCode.COMPLETED:
        return _ANOTHER_VERSION
    cause = next((text for known, text in _CAUSES.items() if known == code), "")
    of_password = next((t for use, t in _PASSWORD_CAUSES.items() if use == password_use), "")
    if code == CompletionCode.INCONSISTENT_IMAGE and of_password:
        return f"{of_password}. Or {cause}"
    return cause


def is_left_armed(host: Host, target: Target, last: Attempt | None) -> bool:
    """Whether the BIOS is armed for `last`, the last update of the journal, and that is lost,
    because Linux was started again without the BIOS: a new update may clear its token. Changes
    nothing.

    :raise OSError: what the kernel returns.
    """
    if last is None or not last.may_be_armed:
        return False
    boot = read_boot(host)
    if boot.id == last.fields.get("boot_id"):
        return False
    driver = RbuDriver(host)
    if driver.is_loaded and driver.has_staged_data:  # by somebody else
        return False
    armed = read_armed(host, target)
    return judge(last, target, boot, is_armed=armed) is Ending.BYPASSED


def ending_of(attempt: Attempt) -> Ending | None:
    """How an update ended, by its journal; None: it never got as far as its restart."""
    without_result = {"armed": Ending.PENDING, BYPASSED: Ending.BYPASSED}
    if attempt.outcome != "result":
        return without_result.get(attempt.outcome)
    if attempt.fields.get("ending") in set(Ending):
        return Ending(attempt.fields["ending"])
    return _ending_until_0_2(attempt.fields)


def _ending_until_0_2(fields: Mapping[str, Any]) -> Ending:
    """The ending in a result that an openrbu before 0.3 wrote."""
    success = fields.get("succeeded", False)
    if success is None:
        return Ending.NOT_KNOWN
    was_not_tried = fields.get("completion_code") in (None, CompletionCode.NEVER_TRIED)
    failure = Ending.NOT_LOOKED if was_not_tried else Ending.REFUSED
    return Ending.UPDATED if success else failure
