"""Report: how an update ended, from the BIOS's own record after the restart."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.formats.dell import CompletionCode
from openrbu.hosts.base import Host
from openrbu.linux.facts import LinuxFacts
from openrbu.linux.reboot import Boot, read_boot, read_kexec
from openrbu.memory.physical import Region
from openrbu.units import MAX_BLOCK_BYTES, PAGE_SIZE
from openrbu.update.arm import read_armed, read_token
from openrbu.update.arming_checks import cmos_doubt
from openrbu.update.begun_loads import BegunLoad, begun_load
from openrbu.update.clearing import Clearing
from openrbu.update.driver import Mode, RbuDriver, ReadBack
from openrbu.update.ending import Ending, has_new_record, judge, likely_cause, succeeded
from openrbu.update.exclusion import BusyError, alone_on, has_locked, who_updates
from openrbu.update.firmware_file import take_away_of_killed
from openrbu.update.journal import BYPASSED, STAGED, Attempt, Journal
from openrbu.update.own_memory import moved, staged_in
from openrbu.update.restart import detours, next_kind
from openrbu.update.target import Target, read_target

_NOT_ARMED = {
    "started": "the tool or the machine ended before the update was armed",
    STAGED: "the machine was restarted before the update was armed: what was staged is lost",
}
"""Why an update with this last event, of a boot before, has no result."""


class UpdateState(StrEnum):
    """How far an update has come that waits for the next restart."""

    NONE = "none"
    STAGED = "staged"
    """openrbu has staged and verified one, and not armed it."""
    STAGED_CHANGED = "staged_changed"
    """The same, but what is staged now is something else, or nothing."""
    ARMED = "armed"
    UNDER_WAY = "under_way"
    """Another process updates the machine now."""
    CUT_OFF = "cut_off"
    """The last one ended before it was armed, and did not say so: it was killed."""
    UNKNOWN = "unknown"
    """The token can't be read from here."""


class NextRestart(StrEnum):
    """What the next restart will do."""

    CHANGES_NOTHING = "changes_nothing"
    UPDATES = "updates"
    FINDS_NOTHING = "finds_nothing"
    """The BIOS is armed, and nothing is staged: it will record 0x000D."""
    FINDS_ANOTHER = "finds_another"
    """What is staged is not what was verified and armed."""
    MEMORY_MOVED = "memory_moved"
    """The kernel has moved pages of what is staged: the BIOS will not find it where it was."""
    TAKES_NO_PACKETS = "takes_no_packets"
    """Packets are staged, and the BIOS does not look for any: it will record 0x000D."""
    SKIPS_BIOS = "skips_bios"
    """Linux or systemd starts something else, and the BIOS does not run: it stays armed, and what
    is staged is lost."""
    CLEARS_MEMORY = "clears_memory"
    """The BIOS will find nothing, because this kind of restart may clear memory: 0x000D."""
    IGNORES_TOKEN = "ignores_token"
    """The token is set, and the BIOS will ignore it: a check value of CMOS is wrong."""
    UNKNOWN = "unknown"
    """The token can't be read from here."""


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """The status of a machine.

    `is_armed` says whether the token is set; None where it can't be read from here. `cmos_doubt`
    says what is wrong with the CMOS around the token; empty: nothing. `restart_mode` is the kind of
    the next restart; None where nothing says. `restart_problem`: why it may clear memory, and what
    to do; empty: it keeps it, as far as is known. `staged_mode` is the driver's image type.
    `is_staged_as_armed` is False where what is staged is known to differ from what the last update
    verified. `begun_load`: a load of firmware that was begun and not ended; None: there
    is none, or an update is under way."""

    target: Target
    module_is_loaded: bool
    staged_size_bytes: int
    staged_mode: str
    is_staged_as_armed: bool
    is_armed: bool | None
    cmos_doubt: str
    restart_mode: str | None
    restart_problem: str
    last: Attempt | None
    boot: Boot
    begun_load: BegunLoad | None = None
    has_driver_bug: bool = False
    """Whether what is staged shows that the kernel's driver has the bug `clearing.BUG`."""
    under_way: str = ""
    """Which process updates the machine now, in words; empty: none does, as far as can be seen."""
    token_way: str = ""
    """The file through which the token is read; empty where there is none."""
    detour: str = ""
    """What the next restart would start in place of the BIOS, and what to do; empty: nothing, as
    far as is known."""
    token_problem: str = ""
    """Why the token can't be read; empty: it can."""
    staged_version: str = ""
    """The version of the image that is staged; empty: nothing is, or what is staged does not begin
    like an image or its packets."""

    has_own_driver: bool = False
    """Whether openrbu's own driver is used, and not the kernel's."""
    staged_regions: tuple[Region, ...] = ()
    """Where in physical memory openrbu's own driver has staged it; empty for the kernel's."""
    moved: tuple[Region, ...] = ()
    """The parts of these that are somewhere else by now."""
    lockdown: str | None = None
    """How far the kernel is locked down: `none`, `integrity` or `confidentiality`; None where it
    does not say. Source: docs/reference/platform.md, V5."""
    sees_memory: bool = False
    """Whether physical memory can be read, so that an update is verified where the BIOS searches,
    and not by the driver's read-back alone."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """How the BIOS takes an image, by its RBU structure in SMBIOS; empty where it has none."""
        if self.target.rbu is None:
            return ()
        return ("mono", "packet") if self.target.rbu.packet_supported else ("mono",)

    @property
    def was_cut_off(self) -> bool:
        """Whether the last update ended before it was armed, and did not say so: it was killed."""
        return self.last is not None and self.last.outcome == "started" and not self.under_way

    @property
    def is_verified(self) -> bool:
        """Whether openrbu armed the BIOS, after it had verified what is staged."""
        armed_by_us = self.last is not None and self.last.outcome == "armed"
        return armed_by_us and self.is_staged_as_armed

    @property
    def state(self) -> UpdateState:
        """How far an update has come, as far as can be seen from here."""
        is_staged = self.last is not None and self.last.outcome == STAGED
        is_right = self.staged_size_bytes > 0 and self.is_staged_as_armed and not self.moved
        cases = (
            (bool(self.under_way), UpdateState.UNDER_WAY),
            (bool(self.is_armed), UpdateState.ARMED),
            (self.was_cut_off, UpdateState.CUT_OFF),
            (is_staged and is_right, UpdateState.STAGED),
            (is_staged, UpdateState.STAGED_CHANGED),
            (self.is_armed is None, UpdateState.UNKNOWN),
        )
        return next((what for is_so, what in cases if is_so), UpdateState.NONE)

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
            (bool(self.detour), NextRestart.SKIPS_BIOS),
            (bool(self.restart_problem), NextRestart.CLEARS_MEMORY),
            (bool(self.moved), NextRestart.MEMORY_MOVED),
            (self.staged_mode == "packet" and not takes_packets, NextRestart.TAKES_NO_PACKETS),
            (not self.is_staged_as_armed, NextRestart.FINDS_ANOTHER),
        )
        return next((what for is_so, what in cases if is_so), NextRestart.UPDATES)


def read_status(host: Host) -> UpdateStatus:
    """Read the status of the machine; record the result of the last update in the journal, where
    the BIOS has given one, and take a file away that a killed update has left.

    :raise ObstacleError: when the machine's files or its journal can't be read or written.
    :raise DamagedInputError: when its SMBIOS tables or its journal are damaged.
    """
    try:
        target = read_target(host)
        last = Journal.of(host).last
        if last is not None and last.is_open and last.changes:
            from openrbu.update.holding import give_back_of_killed  # noqa: PLC0415  (start-up time)

            give_back_of_killed(host)
        record_result(host, target)
        take_away_of_killed(host)
        driver = RbuDriver(host)
        staged, sha256, version = _staged(driver) if driver.is_loaded else (0, "", "")
        last, token = Journal.of(host).last, read_token(host, target)
        kind, under_way, own = next_kind(host), who_updates(host), host.own_rbu
        return UpdateStatus(
            target,
            module_is_loaded=driver.is_loaded,
            staged_size_bytes=staged,
            staged_mode=driver.image_type if driver.is_loaded else "",
            is_staged_as_armed=_is_as_armed(last, sha256),
            is_armed=token.is_armed,
            cmos_doubt=cmos_doubt(host, target),
            restart_mode=kind.mode,
            restart_problem=kind.problem,
            last=last,
            boot=read_boot(host),
            begun_load=None if under_way else begun_load(host),
            has_driver_bug=driver.is_loaded and driver.clearing is Clearing.CRASHES,
            under_way=under_way,
            token_way=token.way,
            detour=next((each.message for each in detours(host, read_kexec(host))), ""),
            token_problem=token.problem,
            staged_version=version,
            has_own_driver=own is not None,
            staged_regions=staged_in(host),
            moved=moved(host),
            lockdown=LinuxFacts(host).lockdown,
            sees_memory=host.physical_memory is not None,
        )
    except OSError as error:  # such as ENODEV for a file that existed a moment ago
        path = f" ({error.filename})" if error.filename else ""
        raise ObstacleError(
            f"the machine changed or ended while its status was read: {error.strerror}{path}; try "
            "again"
        ) from None


def read_history(host: Host, last: int | None = None) -> tuple[Attempt, ...]:
    """The updates that were tried on the machine, oldest first, or the `last` of them; with the
    result of the last one, where the machine's status can be read and its BIOS has given a result.

    :raise ObstacleError | DamagedInputError: when the journal can't be read.
    """
    with contextlib.suppress(ObstacleError):  # off, or no SMBIOS: the journal is there anyway
        record_result(host, read_target(host))
    return tuple(Journal.of(host).attempts(last))


def _staged(driver: RbuDriver) -> tuple[int, str, str]:
    """How many bytes are staged, their SHA-256 as hexadecimal digits, and the image's version."""
    import hashlib  # noqa: PLC0415  (start-up time)

    sha256, size_bytes = hashlib.sha256(), 0
    start: list[bytes] = []
    for chunk in driver.staged():
        if size_bytes < MAX_BLOCK_BYTES + PAGE_SIZE:
            start.append(chunk)
        sha256.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, sha256.hexdigest(), _version_in(b"".join(start))


def _version_in(start: bytes) -> str:
    """The version of an image of which these bytes are the start, or its packets 0 and 1: the image
    begins in the second. Empty: they are neither."""
    from openrbu.formats.hdr import Header  # noqa: PLC0415  (start-up time)
    from openrbu.formats.packet_header import PacketHeader  # noqa: PLC0415  (start-up time)

    offset = 0
    with contextlib.suppress(DamagedInputError):
        first = PacketHeader.parse(start)
        second = PacketHeader.parse(start, first.size_bytes)
        if (first.number, second.number) != (0, 1):
            return ""
        offset = first.size_bytes + second.header_size_bytes
    with contextlib.suppress(DamagedInputError):
        return Header.parse(start, offset).version.text
    return ""


def is_staged_as_verified(host: Host, last: Attempt) -> bool:
    """Whether what this update has staged is still staged, and is what was verified.

    :raise OSError: what the kernel returns.
    """
    driver = RbuDriver(host)
    if not driver.is_loaded:
        return False
    size_bytes, sha256, _ = _staged(driver)
    return size_bytes > 0 and _is_as_armed(last, sha256) and not moved(host)


def _is_as_armed(last: Attempt | None, sha256: str) -> bool:
    """Whether what is staged is what the last update verified. True also where that is not known:
    another program armed it, or the kernel reads packets back wrongly."""
    if last is None or last.outcome not in (STAGED, "armed"):
        return True
    fields = last.fields
    if fields.get("read_back") != ReadBack.RIGHT.value:
        return True
    return bool(fields.get("staged_sha256", sha256) == sha256)


def record_result(host: Host, target: Target) -> None:
    """After a restart, record the BIOS's result in the journal, for the update that waits for it.
    Before it, record that an update is armed whose tool was killed before it could record that.
    While another process updates the machine, nothing is recorded: it does that itself.

    :raise ObstacleError: when the journal can't be read or written.
    :raise DamagedInputError: when the journal is damaged.
    """
    last = Journal.of(host).last
    if last is None or not last.is_open or _is_recorded(host, last):
        return
    if has_locked(host):
        _record(host, target)
        return
    with contextlib.suppress(BusyError), alone_on(host):
        _record(host, target)


def _is_recorded(host: Host, last: Attempt) -> bool:
    """Whether all is in the journal that can be known of an open update in this boot."""
    boot = read_boot(host)
    if last.fields.get("boot_id") == boot.id:
        return last.outcome != "started" and not last.is_verified
    return last.outcome == BYPASSED and last.fields.get("bypassed_boot_id") == boot.id


def _record(host: Host, target: Target) -> None:
    """As `record_result`, with the machine locked; the journal is read again."""
    journal = Journal.of(host)
    last = journal.last
    if last is None or not last.is_open:
        return
    boot = read_boot(host)
    if last.fields.get("boot_id") == boot.id:
        if _is_armed_unrecorded(host, target, last):
            journal.append(last.id, "armed", host.now())
        return
    if _is_recorded(host, last):
        return
    ending = judge(last, target, boot, is_armed=read_armed(host, target))
    if ending is Ending.BYPASSED and last.may_be_armed:
        facts = {"bypassed_boot_id": boot.id, "by_kexec": boot.is_by_kexec}
        journal.append(last.id, BYPASSED, host.now(), **facts)
        return
    if last.outcome in _NOT_ARMED and not _was_tried_unrecorded(last, target):
        why = _NOT_ARMED[last.outcome]
        journal.append(last.id, "interrupted", host.now(), why=why)
        return
    code = _code_for(ending, target)
    journal.append(
        last.id,
        "result",
        host.now(),
        completion_code=code,
        version_now=target.bios.version,
        succeeded=succeeded(last, target),
        ending=ending.value,
        likely_cause=likely_cause(ending, code, last.fields.get("admin_password")),
    )


def _is_armed_unrecorded(host: Host, target: Target, last: Attempt) -> bool:
    """Whether the tool was killed after it armed the BIOS, and before the journal said so."""
    return last.is_verified and not who_updates(host) and read_token(host, target).is_armed is True


def _code_for(ending: Ending, target: Target) -> int | None:
    """The BIOS's completion code for this update. None where there is none, or where "completed" is
    from an update before: the BIOS has not tried this one."""
    if target.rbu is None:
        return None
    code = target.rbu.completion_code
    is_old = ending is Ending.NOT_LOOKED and code != CompletionCode.NEVER_TRIED
    return None if is_old else code


def _was_tried_unrecorded(last: Attempt, target: Target) -> bool:
    """Whether the BIOS tried an update that the journal does not call armed, because the tool died
    after it armed the BIOS and before it wrote that down."""
    return has_new_record(last, target) or bool(succeeded(last, target))
