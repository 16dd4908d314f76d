"""The whole of an update, step by step: plan → stage → verify → restart kind → arm.

The token is set last, and only after both looks of `verify`. Whatever goes wrong before that, an
interrupt included, leaves the machine as it was: not armed, nothing staged, the driver and the kind
of restart as before. Undoing goes the other way round, the token first.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from openrbu.errors import (
    DamagedInputError,
    ExitCode,
    KernelError,
    NotForThisMachineError,
    ObstacleError,
    OpenRbuError,
    UpdateFailedError,
    UsageError,
)
from openrbu.hosts.base import Host, read_text
from openrbu.signals import signals_held
from openrbu.update import restart, stage
from openrbu.update.arm import set_armed, switch_for
from openrbu.update.driver import Mode, Progress, RbuDriver
from openrbu.update.journal import Journal
from openrbu.update.plan import Obstacle, Plan
from openrbu.update.target import read_target
from openrbu.update.verify import ReadBack, Verified

COMPACT_MEMORY = "/proc/sys/vm/compact_memory"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Watcher(Protocol):
    """Somebody who is shown how it goes."""

    def step(self, text: str) -> None:
        """A step begins."""

    def delivering(self, total_bytes: int) -> Progress:
        """Bytes are about to go to the driver; the result is called with how many went."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A staged, verified and armed update: `tried` says what did not work on the way."""

    attempt_id: str
    mode: Mode
    verified: Verified
    tried: tuple[str, ...]


@dataclass(slots=True)
class _Undo:
    """What has to be taken back, last first."""

    steps: list[tuple[str, Callable[[], None]]] = field(default_factory=list)

    def add(self, what: str, step: Callable[[], None]) -> None:
        self.steps.append((what, step))

    def run(self) -> list[str]:
        """Take all back; what could not be is told."""
        left = []
        with signals_held():
            for what, step in reversed(self.steps):
                try:
                    step()
                except (OSError, OpenRbuError) as error:
                    left.append(f"{what} ({error})")
        return left


def refuse(plan: Plan) -> None:
    """Raise the first obstacle of a plan.

    :raise UsageError | NotForThisMachineError | ObstacleError | DamagedInputError: as it ends.
    """
    kinds: dict[ExitCode, type[OpenRbuError]] = {
        ExitCode.USAGE: UsageError,
        ExitCode.NOT_FOR_THIS_MACHINE: NotForThisMachineError,
        ExitCode.OBSTACLE: ObstacleError,
        ExitCode.DAMAGED_INPUT: DamagedInputError,
    }
    worst: Obstacle | None = min(plan.obstacles, key=_weight, default=None)
    if worst is not None:
        raise kinds[worst.exit_code](worst.message)


def _weight(obstacle: Obstacle) -> int:
    """Damage first, then the wrong machine: what no option and no waiting can mend."""
    order = (
        ExitCode.DAMAGED_INPUT,
        ExitCode.NOT_FOR_THIS_MACHINE,
        ExitCode.USAGE,
        ExitCode.OBSTACLE,
    )
    return order.index(obstacle.exit_code)


def perform(host: Host, plan: Plan, watcher: Watcher) -> Outcome:
    """Stage, verify and arm what was planned.

    :raise OpenRbuError: as `refuse`, or `UpdateFailedError`; the machine is as it was then.
    """
    refuse(plan)
    data = plan.image.build()
    journal, attempt_id = Journal(host.journal_path), uuid.uuid4().hex[:12]
    journal.append(attempt_id, "started", host.now(), **_facts(host, plan, data))
    undo = _Undo()
    try:
        mode, verified, tried = _stage_somehow(host, plan, data, watcher, undo)
        restart_before = _arm(host, watcher, undo)
        evidence = _evidence(mode, verified, tried)
        journal.append(attempt_id, "armed", host.now(), **evidence, restart_before=restart_before)
    except BaseException as error:  # noqa: BLE001  (an interrupt is undone like a failure)
        left = undo.run()
        with contextlib.suppress(ObstacleError):
            event = "failed" if isinstance(error, (OpenRbuError, OSError)) else "interrupted"
            journal.append(attempt_id, event, host.now(), why=str(error), left=left)
        raise _told(error, left) from None
    return Outcome(attempt_id, mode, verified, tried)


def _facts(host: Host, plan: Plan, data: bytes) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "from_version": plan.target.bios.version,
        "to_version": plan.image.header.version.text,
        "system_id": plan.target.system_id,
        "mode": plan.mode,
        "packet_size_bytes": plan.options.packet_size_bytes if plan.mode == "packet" else None,
        "boot_id": boot_id(host),
    }


def _evidence(mode: Mode, verified: Verified, tried: tuple[str, ...]) -> dict[str, Any]:
    """What was seen before arming; of many extents the first are kept."""
    extents = verified.extents
    return {
        "mode": mode,
        "tried": list(tried),
        "read_back": verified.read_back.value,
        "seen_in_memory": extents is not None,
        "extent_count": len(extents or ()),
        "extents": [[extent.start, extent.end] for extent in (extents or ())[:16]],
    }


def boot_id(host: Host) -> str | None:
    """What tells one boot of the machine from another."""
    return read_text(host, BOOT_ID) if host.exists(BOOT_ID) else None


def _stage_somehow(
    host: Host, plan: Plan, data: bytes, watcher: Watcher, undo: _Undo
) -> tuple[Mode, Verified, tuple[str, ...]]:
    """Stage in the planned way; where memory does not allow it, in the next best.

    :raise UpdateFailedError: when no way works; the message says what was tried.
    """
    ground = stage.prepare(host, plan.mode)
    undo.add("the driver", lambda: stage.restore(host, ground))
    tried: list[str] = []
    for mode in _ways(host, plan):
        payload = stage.make_payload(
            data,
            mode=mode,
            packet_size_bytes=plan.options.packet_size_bytes,
            password=plan.options.password,
        )
        watcher.step(f"staging {payload.shape} ({mode})")
        stage.stage(host, payload, watcher.delivering(len(payload.staged)))
        watcher.step("verifying in the driver and in physical memory")
        try:
            verified = _verify(host, payload, undo)
        except stage.OutOfMemoryError as error:
            tried.append(str(error))
            continue
        return mode, verified, tuple(tried)
    raise UpdateFailedError(
        "; then ".join(tried) + ": free some memory, use smaller packets, or restart the machine"
    )


def _verify(host: Host, payload: stage.Payload, undo: _Undo) -> Verified:
    """Verify. A kernel that dies of dropping packets is not made to drop them on a failure."""
    seen = stage.read_back(host, payload)
    if seen is ReadBack.SKIPS_A_PACKET:
        undo.steps.clear()
        undo.add("the packets in memory, which this kernel can't drop", _impossible)
    return stage.verify(host, payload, seen)


def _impossible() -> None:
    raise ObstacleError("restart the machine")


def _ways(host: Host, plan: Plan) -> Iterator[Mode]:
    """The planned mode; again after compacting memory; then packets, where they may be chosen."""
    yield plan.mode
    if plan.mode == "mono" and host.exists(COMPACT_MEMORY):
        host.write(COMPACT_MEMORY, b"1")
        yield plan.mode
    rbu = plan.target.rbu
    free_to_choose = plan.options.mode is None and rbu is not None and rbu.packet_supported
    if plan.mode == "mono" and free_to_choose:
        yield "packet"


def _arm(host: Host, watcher: Watcher, undo: _Undo) -> str | None:
    """Set the kind of restart, then the token; the kind of restart that it was before."""
    switch = switch_for(host, read_target(host))
    watcher.step("choosing a warm restart")
    before = restart.choose_warm(host)
    undo.add("the kind of restart", lambda: restart.restore(host, before))
    watcher.step("arming the BIOS")
    undo.add("the BIOS's token", lambda: set_armed(switch, armed=False))
    set_armed(switch, armed=True)
    return before


def _told(error: BaseException, left: list[str]) -> BaseException:
    """The error to go on with: a system call's is made one of ours, and what is left is told."""
    if isinstance(error, KernelError) or (
        isinstance(error, OSError) and not isinstance(error, OpenRbuError)
    ):
        path = f" ({error.filename})" if error.filename else ""
        error = UpdateFailedError(f"the kernel refused: {error.strerror}{path}")
    if left and isinstance(error, OpenRbuError):
        return UpdateFailedError(f"{error}; could not be put back: {', '.join(left)}")
    return error


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a cancel took back. `left_staged`: this kernel can't drop what its driver holds; it is
    harmless without the token, and gone after a power cycle."""

    was_armed: bool
    was_staged: bool
    left_staged: bool = False

    @property
    def changed(self) -> bool:
        return self.was_armed or (self.was_staged and not self.left_staged)


def cancel(host: Host) -> Cancelled:
    """Take an armed or staged update back: the token first, then memory, then the restart kind.

    :raise ObstacleError: when the machine does not let the token be cleared.
    :raise UpdateFailedError: when the token stays set.
    """
    journal = Journal(host.journal_path)
    last = journal.last
    switch = switch_for(host, read_target(host))
    with signals_held():
        was_armed = switch.is_armed
        if was_armed:
            set_armed(switch, armed=False)
        driver = RbuDriver(host)
        was_staged = driver.is_loaded and driver.holds_something
        left_staged = was_staged and not stage.clear(host)
        if was_armed and last is not None:
            restart.restore(host, last.fields.get("restart_before"))
        if last is not None and last.is_open:
            journal.append(last.id, "cancelled", host.now())
    return Cancelled(was_armed, was_staged, left_staged)
