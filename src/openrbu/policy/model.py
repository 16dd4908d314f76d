"""What a policy says. Made by `reading`, asked by `deciding`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from openrbu.formats.version import BiosVersion, VersionStyle

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""The days of a week as a policy names them, by `datetime.date.weekday`."""


def are_comparable(one: BiosVersion, other: BiosVersion) -> bool:
    """Whether it is known which of two versions is newer: both can be read, and are of one style.
    (That `2.1.0` comes after `A05` is true of most systems, and a guess.)"""
    return one.style is other.style is not VersionStyle.UNREADABLE


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The versions of one style from `first` to `last`, both included; None: without an end there.
    One of them at least is given."""

    first: BiosVersion | None
    last: BiosVersion | None

    def has(self, version: BiosVersion) -> bool:
        """Whether a version lies in it. One of another style does not."""
        ends = [each for each in (self.first, self.last) if each is not None]
        if not all(are_comparable(version, each) for each in ends):
            return False
        is_below = self.first is not None and self.first.is_newer_than(version)
        is_above = self.last is not None and version.is_newer_than(self.last)
        return not (is_below or is_above)

    def overlaps(self, other: VersionRange) -> bool:
        """Whether a version may lie in both. Ranges of two styles have none in common."""
        mine, theirs = self.last or self.first, other.last or other.first
        assert mine is not None
        assert theirs is not None
        if not are_comparable(mine, theirs):
            return False
        return not (_is_before(self, other) or _is_before(other, self))

    def __str__(self) -> str:
        if self.first is not None and self.last is not None and self.first.same_as(self.last):
            return self.first.text
        return f"{self.first or ''}..{self.last or ''}"


def _is_before(one: VersionRange, other: VersionRange) -> bool:
    """Whether one range ends before the other begins."""
    return one.last is not None and other.first is not None and other.first.is_newer_than(one.last)


@dataclass(frozen=True, slots=True)
class StepRule:
    """Machines that run a version of `start` install `via` next."""

    start: VersionRange
    via: BiosVersion


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which machines may be updated: from `start` until `end` on each of `days` (numbers
    as of `datetime.date.weekday`), by the clock of `zone`. One that ends at or before its start
    ends on the next day."""

    days: frozenset[int]
    start: dt.time
    end: dt.time
    zone: dt.tzinfo
    zone_name: str


@dataclass(frozen=True, slots=True)
class PowerRule:
    """What a machine's power has to be like. `minimum_battery_percent`: of a machine that has a
    battery; None: nothing more than an update wants anyway. `needs_mains`: mains power has to be
    known to be connected."""

    minimum_battery_percent: int | None = None
    needs_mains: bool = False


@dataclass(frozen=True, slots=True)
class SystemRule:
    """What the machines with one system ID are to run. `digests`: the SHA-256 of the image of a
    version. `windows` and `power` None: those of the policy."""

    system_id: int
    target: BiosVersion
    steps: tuple[StepRule, ...] = ()
    digests: tuple[tuple[BiosVersion, str], ...] = ()
    allow_downgrade: bool = False
    windows: tuple[Window, ...] | None = None
    power: PowerRule | None = None
    name: str = ""

    @property
    def path(self) -> str:
        """Where in the file it is."""
        return f"systems.{self.system_id:#06x}"

    def digest_of(self, version: BiosVersion) -> str | None:
        """The SHA-256 that an image of this version has to have, as hexadecimal digits; None: the
        policy does not say."""
        return next((text for each, text in self.digests if each.same_as(version)), None)


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy. `pinned`: machines that are left alone, by service tag, and why."""

    systems: Mapping[int, SystemRule] = field(default_factory=dict)
    pinned: Mapping[str, str] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    power: PowerRule = PowerRule()

    def at_any_time(self) -> Policy:
        """The same without its windows: they are for what a restart installs, and not for what is
        only staged."""
        systems = {key: replace(rule, windows=()) for key, rule in self.systems.items()}
        return replace(self, systems=systems, windows=())

    def windows_of(self, system_id: int | None) -> tuple[Window, ...]:
        """The windows for a system; none: at any time."""
        rule = None if system_id is None else self.systems.get(system_id)
        return self.windows if rule is None or rule.windows is None else rule.windows

    def power_of(self, system_id: int | None) -> PowerRule:
        """The rule for a system's power."""
        rule = None if system_id is None else self.systems.get(system_id)
        return self.power if rule is None or rule.power is None else rule.power
