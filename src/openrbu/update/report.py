"""Report: what became of an update, from the BIOS's own record after the restart."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from openrbu.errors import ObstacleError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.version import BiosVersion
from openrbu.hosts.base import Host
from openrbu.update.arm import read_armed
from openrbu.update.driver import RbuDriver, ReadBack
from openrbu.update.journal import Attempt, Journal
from openrbu.update.restart import WARM, boot_id, restart_mode
from openrbu.update.target import Target, read_target
from openrbu.update.trust import cmos_doubt


class NextRestart(StrEnum):
    """What the next restart will do."""

    CHANGES_NOTHING = "changes_nothing"
    UPDATES = "updates"
    FINDS_NOTHING = "finds_nothing"
    """The BIOS is armed, and nothing is staged: it will record 0x000D."""
    FINDS_ANOTHER = "finds_another"
    """What is staged is not what was verified and armed."""
    TAKES_NO_PACKETS = "takes_no_packets"
    """Packets are staged, and the BIOS does not look for any: it will record 0x000D."""
    CLEARS_MEMORY = "clears_memory"
    """The same, because the restart is one that may clear memory and what is staged there."""
    IGNORES_TOKEN = "ignores_token"
    """The token is set in CMOS that the BIOS will not believe."""
    UNKNOWN = "unknown"
    """The token can't be read from here."""


@dataclass(frozen=True, slots=True)
class Status:
    """A machine as it stands. `is_armed` says whether the token is set, None where it can't be read
    from here; `cmos_doubt` what is wrong with the CMOS that it is in (empty: nothing);
    `restart_mode` is None where the kernel does not say what kind the next restart is.
    `staged_mode` is the driver's image type; `is_staged_as_armed` is False where what is staged
    differs from what the last update verified and armed, as far as that can be told."""

    target: Target
    module_is_loaded: bool
    staged_size_bytes: int
    staged_mode: str
    is_staged_as_armed: bool
    is_armed: bool | None
    cmos_doubt: str
    restart_mode: str | None
    last: Attempt | None

    @property
    def next_restart(self) -> NextRestart:
        """What the next restart will do, as far as can be seen from here."""
        rbu = self.target.rbu
        takes_packets = rbu is not None and rbu.packet_supported
        cases = (
            (self.is_armed is None, NextRestart.UNKNOWN),
            (not self.is_armed, NextRestart.CHANGES_NOTHING),
            (bool(self.cmos_doubt), NextRestart.IGNORES_TOKEN),
            (not self.staged_size_bytes, NextRestart.FINDS_NOTHING),
            (self.restart_mode not in (None, WARM), NextRestart.CLEARS_MEMORY),
            (self.staged_mode == "packet" and not takes_packets, NextRestart.TAKES_NO_PACKETS),
            (not self.is_staged_as_armed, NextRestart.FINDS_ANOTHER),
        )
        return next((what for is_so, what in cases if is_so), NextRestart.UPDATES)


def read_status(host: Host) -> Status:
    """Look at the machine; fill in the result of the last update, where the BIOS has given one.

    :raise ObstacleError: when the machine can't be looked at.
    """
    try:
        target = read_target(host)
        settle(host, target)
        driver = RbuDriver(host)
        staged, sha256 = _staged(driver) if driver.is_loaded else (0, "")
        last = Journal(host.journal_path).last
        return Status(
            target,
            module_is_loaded=driver.is_loaded,
            staged_size_bytes=staged,
            staged_mode=driver.image_type if driver.is_loaded else "",
            is_staged_as_armed=_is_as_armed(last, sha256),
            is_armed=read_armed(host, target),
            cmos_doubt=cmos_doubt(host, target),
            restart_mode=restart_mode(host),
            last=last,
        )
    except OSError as error:  # such as ENODEV of what was there a moment ago
        raise ObstacleError(
            f"the machine changed, or ended, while it was looked at: {error.strerror}; try again"
        ) from None


def read_history(host: Host) -> tuple[Attempt, ...]:
    """The updates that were tried on the machine, oldest first; with the result of the last one,
    where the machine can be looked at and its BIOS has given one.

    :raise ObstacleError | DamagedInputError: when the journal can't be read.
    """
    with contextlib.suppress(ObstacleError):  # off, or no SMBIOS: the journal is there anyway
        settle(host, read_target(host))
    return tuple(Journal(host.journal_path).attempts())


def _staged(driver: RbuDriver) -> tuple[int, str]:
    """How many bytes the driver has, and their SHA-256."""
    import hashlib  # noqa: PLC0415  (start-up time)

    sha256, size_bytes = hashlib.sha256(), 0
    for chunk in driver.staged():
        sha256.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, sha256.hexdigest()


def _is_as_armed(last: Attempt | None, sha256: str) -> bool:
    """Whether what is staged is what the last update armed; also where that can't be told: it was
    armed by another program, or on a kernel that reads packets back wrongly."""
    if last is None or last.outcome != "armed":
        return True
    fields = last.fields
    if fields.get("read_back") != ReadBack.RIGHT.value:
        return True
    return bool(fields.get("staged_sha256", sha256) == sha256)


def settle(host: Host, target: Target) -> None:
    """After a restart, write the BIOS's result behind the update that waits for it.

    :raise ObstacleError: when the journal can't be written.
    """
    journal = Journal(host.journal_path)
    last = journal.last
    if last is None or not last.is_open or last.fields.get("boot_id") == boot_id(host):
        return
    if last.outcome == "started" and not _bios_has_tried(last, target):
        why = "the tool or the machine ended before the update was armed"
        journal.append(last.id, "interrupted", host.now(), why=why)
        return
    journal.append(
        last.id,
        "result",
        host.now(),
        completion_code=_code_for(last, target),
        version_now=target.bios.version,
        succeeded=_succeeded(last, target),
    )


def _code_for(last: Attempt, target: Target) -> int | None:
    """The BIOS's word on this update; None where it has none, or has only the word "completed" that
    it gave on an update before: it has not tried this one."""
    if target.rbu is None:
        return None
    code = target.rbu.completion_code
    is_old = bios_record(target) == last.fields.get("bios_record")
    if is_old and code == CompletionCode.COMPLETED and _succeeded(last, target) is False:
        return None
    return code


def bios_record(target: Target) -> list[Any] | None:
    """What the BIOS says of the last update: completion code and time; None where it says nothing.

    Two updates that end alike in the same minute have the same record.
    """
    rbu = target.rbu
    if rbu is None:
        return None
    return [rbu.completion_code, rbu.when.isoformat() if rbu.when is not None else None]


def _bios_has_tried(last: Attempt, target: Target) -> bool:
    """Whether the BIOS met an update although its tool died before it wrote down that it armed."""
    has_new_record = bios_record(target) != last.fields.get("bios_record")
    return has_new_record or bool(_succeeded(last, target))


def _succeeded(last: Attempt, target: Target) -> bool | None:
    """Both have to hold: the BIOS says completed, and it is the version that was staged.

    None: that was so before the update, and the BIOS's record is the same: it did nothing, or the
    same once more in the same minute.
    """
    rbu = target.rbu
    is_complete = rbu is not None and rbu.completion_code == CompletionCode.COMPLETED
    meant = BiosVersion.parse(last.fields.get("to_version", ""))
    if not (is_complete and target.version.same_as(meant)):
        return False
    before = BiosVersion.parse(last.fields.get("from_version", ""))
    is_new = not before.same_as(meant) or bios_record(target) != last.fields.get("bios_record")
    return True if is_new else None
