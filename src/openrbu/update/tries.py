"""Try the ways to stage an image, one after the other, until one is verified.

`ways` says which they are; here each is carried out.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from openrbu.errors import UpdateFailedError
from openrbu.hosts.base import Host
from openrbu.update import stage, ways
from openrbu.update.checks.situation import Situation
from openrbu.update.clearing import Clearing
from openrbu.update.driver import RbuDriver
from openrbu.update.holding import HeldMemory
from openrbu.update.plan import Plan
from openrbu.update.progress import ProgressReporter
from openrbu.update.undo import Undo
from openrbu.update.verify import (
    LeftoverCopyError,
    NotTakenError,
    OtherDataError,
    ReadBackError,
    TooHighError,
    Verified,
)
from openrbu.update.ways import Trouble, Way

_MOST_CLEARINGS = 2

_TROUBLES: tuple[tuple[type[UpdateFailedError], Trouble], ...] = (
    (stage.OutOfMemoryError, Trouble.SHORT),
    (ReadBackError, Trouble.DIFFERENT),
    (TooHighError, Trouble.TOO_HIGH),
    (OtherDataError, Trouble.OTHER_DATA),
    (NotTakenError, Trouble.NOT_TAKEN),
)
"""The trouble that an error is; the first that fits."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A way that worked, what was verified, and one text for each try that failed before."""

    way: Way
    verified: Verified
    tried: tuple[str, ...]
    sha256: str


class _Tries:
    """The tries of one update."""

    def __init__(
        self, host: Host, plan: Plan, data: bytes, progress: ProgressReporter, held: HeldMemory
    ) -> None:
        self._host, self._plan, self._data, self._progress = host, plan, data, progress
        self.held = held
        self.delivered_bytes = 0
        self._has_held = False
        self.tried: list[str] = []

    def run(self) -> Staged:
        """Try one way after the other until what was staged is verified.

        :raise UpdateFailedError: when no way works; the message says what was tried.
        """
        seen = self._seen()
        trouble, taken = ways.first_trouble(seen), list[str]()
        last: Way | None = None
        error: UpdateFailedError | None = None
        while True:
            way, why_not = ways.next_way(trouble, seen, last, taken)
            if way is None:
                raise self._failure(trouble, seen, last, why_not, error)
            taken.append(way.name)
            payload = self._payload(way)
            try:
                verified = self._try(way, payload)
            except (stage.OutOfMemoryError, ReadBackError, NotTakenError) as failed:
                trouble = next(each for kind, each in _TROUBLES if isinstance(failed, kind))
                error = failed
            else:
                sha256 = hashlib.sha256(payload.staged).hexdigest()
                return Staged(way, verified, tuple(self.tried), sha256)
            what = error.why if isinstance(error, OtherDataError) else str(error)
            self.tried.append(f"{what} ({way.how})" if way.how else what)
            if RbuDriver(self._host).clearing is not Clearing.IS_SAFE:
                raise error
            if trouble is not Trouble.SHORT:
                with self._held_again(is_useful=way.holds_memory):
                    stage.drop(self._host, len(payload.staged))
            last, seen = way, self._seen()

    def restore(self, before: stage.DriverState) -> None:
        """Put the driver back into the state before, and overwrite what was delivered.

        :raise OSError | ObstacleError: as `stage.restore`.
        """
        with self._held_again(is_useful=self._has_held):
            stage.restore(self._host, before, delivered_bytes=self.delivered_bytes)

    def _seen(self) -> Situation:
        return self._plan.situation(self._host)

    def _payload(self, way: Way) -> stage.Payload:
        return stage.make_payload(
            self._data,
            mode=way.mode,
            packet_size_bytes=way.packet_size_bytes,
            password=self._plan.options.password,
            in_one_block=way.in_one_block,
        )

    def _memory(self, way: Way) -> AbstractContextManager[None]:
        """The block in which a way needs memory above 4 GiB to be held."""
        if not way.holds_memory:
            return contextlib.nullcontext()
        self._has_held = True
        return self.held.held(self.delivered_bytes)

    @contextlib.contextmanager
    def _held_again(self, *, is_useful: bool) -> Iterator[None]:
        """The block in which a try is taken back whose memory above 4 GiB was held (`is_useful`):
        with that memory held, where it still can be. So what overwrites the try comes to lie where
        the try was."""
        with contextlib.ExitStack() as stack:
            if is_useful:
                with contextlib.suppress(OSError, stage.OutOfMemoryError):
                    stack.enter_context(self.held.held(self.delivered_bytes))
            yield

    def _try(self, way: Way, payload: stage.Payload) -> Verified:
        """Stage, and verify. Where only a leftover copy in free memory keeps a BIOS from the image,
        free memory is cleared and the image is staged once more: first as much memory as it takes
        for what was delivered just now, then much.

        :raise OutOfMemoryError | UpdateFailedError: as `stage`, `read_back` and `verify`.
        """
        host, progress = self._host, self._progress
        how = f", {way.how}" if way.how else ""
        progress.step(f"staging {payload.shape} ({way.mode}){how}")
        self.delivered_bytes = max(self.delivered_bytes, len(payload.staged))
        if way.drops_caches:
            stage.drop_caches(host)
        if way.compacts:
            with contextlib.suppress(OSError):
                host.write(ways.COMPACT_MEMORY, b"1")
        for clearings in range(_MOST_CLEARINGS + 1):
            with self._memory(way):
                stage.stage(host, payload, progress.delivering(len(payload.staged)))
                progress.step("verifying in the driver and in physical memory")
                seen = stage.read_back(host, payload)
            try:
                return stage.verify(host, payload, seen, self._plan.possible_bioses)
            except LeftoverCopyError as leftover:
                is_safe = RbuDriver(host).clearing is Clearing.IS_SAFE
                if clearings == _MOST_CLEARINGS or not is_safe:
                    raise
                self.tried.append(f"{leftover.why}: cleared free memory")
            progress.step("clearing free memory, and staging once more")
            with self._memory(way):
                stage.clear_memory(
                    host,
                    len(payload.staged),
                    much=clearings > 0,
                    caches=self._plan.options.drop_caches,
                )
        raise AssertionError("the last attempt returns or raises")

    def _failure(
        self,
        trouble: Trouble,
        seen: Situation,
        last: Way | None,
        why_not: Sequence[str],
        error: UpdateFailedError | None,
    ) -> UpdateFailedError:
        """The error when no way is left: what was tried, what could not be, and what to do."""
        told = "; ".join([*_without_repeated(self.tried), *why_not]) or str(error)
        if isinstance(error, OtherDataError):
            also = "" if seen.options.drop_caches else "try --drop-caches, or "
            return type(error)(told, also)
        advice = ways.advice(trouble, seen, last)
        return UpdateFailedError(f"{told}: {advice}" if advice else told)


def _without_repeated(tried: Sequence[str]) -> Iterator[str]:
    """What was tried, without what the next try says, too: that was the same, `(once more, …)`."""
    for this, following in zip(tried, [*tried[1:], ""], strict=True):
        if not following.startswith(f"{this.partition(' (once more')[0]} (once more"):
            yield this


def stage_somehow(
    host: Host, plan: Plan, data: bytes, progress: ProgressReporter, undo: Undo
) -> Staged:
    """Stage in the planned way; where that fails, in the other ways of `ways.LADDER`. `undo` gets
    the steps that undo it.

    :raise UpdateFailedError: when none works; the message says what was tried.
    """
    before = stage.read_driver_state(host)
    tries = _Tries(host, plan, data, progress, HeldMemory(host, undo.note))
    undo.add("the huge pages", tries.held.give_back)
    undo.add("the driver", lambda: tries.restore(before))
    stage.load_driver(host, "mono" if plan.way.in_one_block else plan.way.mode)
    return tries.run()
