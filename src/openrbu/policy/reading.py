"""A policy out of its file (TOML), with everything that is wrong with it.

Each problem says where it is, as a path of keys, and what is allowed there. A key that is not known
is a problem: a mistyped one would be a rule that nobody keeps. `src/openrbu/schemas/policy.json`
describes the same file for editors; a test compares the two.
"""

from __future__ import annotations

import codecs
import datetime as dt
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.policy.deciding import unreachable
from openrbu.policy.model import (
    DAYS,
    Policy,
    PowerRule,
    StepRule,
    SystemRule,
    VersionRange,
    Window,
    are_comparable,
)

SCHEMA = 1

MAX_POLICY_BYTES = 1 << 20

MAX_OF_A_SYSTEM = 200
"""How many steps, and how many images, a system may have: each is compared with each."""

ZoneOf = Callable[[str], dt.tzinfo]
"""The time zone of a name, or an error of the kind `KeyError`, `ValueError` or `OSError`."""

_ID = re.compile(r"0[xX][0-9A-Fa-f]{1,4}")
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TAG = re.compile(r"[0-9A-Za-z]{5,7}")

_TOP = ("schema", "systems", "pinned", "windows", "power")
_SYSTEM = ("name", "target", "allow_downgrade", "steps", "images", "windows", "power")
_STEP = ("from", "via")
_WINDOW = ("days", "start", "end", "zone")
_POWER = ("minimum_battery_percent", "needs_mains")

_A_VERSION = "a version such as A10 or 2.10.0"
_A_RANGE = "a version, or a range of versions of one style such as ..A06, A07..A09 or 2.1.0.."
_A_DIGEST = "a SHA-256 of 64 lower-case hexadecimal digits"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a policy. `path`: the keys to it, such as
    `systems.0x0121.steps[0].via`; empty: the file as a whole."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """A policy that was read. With `problems` it must not be used."""

    policy: Policy
    problems: tuple[Problem, ...]


def read_policy(data: bytes, zone_of: ZoneOf) -> ReadPolicy:
    """The policy in the bytes of a file, and all that is wrong with it."""
    if len(data) > MAX_POLICY_BYTES:
        return ReadPolicy(Policy(), (Problem("", f"over {MAX_POLICY_BYTES} bytes"),))
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        problem = Problem("", "it is no TOML: it is UTF-16; save it as UTF-8")
        return ReadPolicy(Policy(), (problem,))
    try:
        document = tomllib.loads(data.decode("utf-8-sig"))  # a byte order mark of some editors
    except (tomllib.TOMLDecodeError, RecursionError, UnicodeDecodeError) as error:
        why = str(error) or type(error).__name__
        return ReadPolicy(Policy(), (Problem("", f"it is no TOML: {why}"),))
    reader = _Reader(zone_of)
    policy = reader.policy(document)
    problems = reader.problems
    if not problems:
        rules = tuple(policy.systems.values())
        problems = [Problem(path, why) for path, why in unreachable(rules)]
        problems += [each for rule in rules for each in _unused(rule)]
    return ReadPolicy(policy, tuple(problems))


@dataclass(slots=True)
class _Reader:
    """Reads the parts of one document. What is wrong is added to `problems`, and something that is
    right takes its place."""

    zone_of: ZoneOf
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, path: str, allowed: str, found: object) -> None:
        """Add a problem: nothing, or something else was found than what is allowed."""
        if found is None:
            text = f"it is missing: {allowed}"
        else:
            text = f"{allowed} is allowed, {_shown(found)} was found"
        self.problems.append(Problem(path, text))

    def table(self, path: str, value: object, keys: tuple[str, ...]) -> Mapping[str, Any]:
        """A table that has no other keys than these."""
        found = self.any_table(path, value)
        for key in found:
            if key not in keys:
                message = f"no such key; allowed are {', '.join(keys)}"
                self.problems.append(Problem(_join(path, key), message))
        return found

    def any_table(self, path: str, value: object) -> Mapping[str, Any]:
        if isinstance(value, dict):
            return value
        self.wrong(path, "a table", value)
        return {}

    def array(self, path: str, value: object) -> Iterator[tuple[str, Any]]:
        """The items of an array, each with its path."""
        if not isinstance(value, list):
            self.wrong(path, "an array", value)
            return
        for place, item in enumerate(value):
            yield f"{path}[{place}]", item

    def few(self, path: str, value: object) -> Iterator[tuple[str, Any]]:
        """The same, of an array that has not too many."""
        if isinstance(value, list) and len(value) > MAX_OF_A_SYSTEM:
            self.wrong(path, f"at most {MAX_OF_A_SYSTEM}", f"{len(value)} of them")
            return
        yield from self.array(path, value)

    def boolean(self, path: str, value: object) -> bool:
        if not isinstance(value, bool):
            self.wrong(path, "true or false", value)
            return False
        return value

    def text(self, path: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            self.wrong(path, "a text", value)
            return ""
        return value

    def version(self, path: str, value: object) -> BiosVersion | None:
        version = _version_in(value)
        if version is None:
            self.wrong(path, _A_VERSION, value)
        return version

    # -- the parts of the file --------------------------------------------------------------

    def policy(self, document: object) -> Policy:
        top = self.table("", document, _TOP)
        if top.get("schema") is not SCHEMA and (
            type(top.get("schema")) is not int or top.get("schema") != SCHEMA
        ):
            self.wrong("schema", str(SCHEMA), top.get("schema"))
        systems: dict[int, SystemRule] = {}
        if "systems" not in top:
            self.problems.append(Problem("systems", "it is missing: a table for each system"))
        for key, value in self.any_table("systems", top.get("systems", {})).items():
            path = _join("systems", key)
            if not _ID.fullmatch(key):
                self.wrong(path, "a system ID such as 0x0121", key)
                continue
            system_id = int(key, 16)
            if system_id in systems:
                self.problems.append(Problem(path, f"{system_id:#06x} is there twice"))
            if (rule := self.system(path, system_id, value)) is not None:
                systems[system_id] = rule
        return Policy(
            systems,
            dict(self.pins(top.get("pinned", {}))),
            self.windows("windows", top.get("windows", [])),
            self.power("power", top.get("power", {})),
        )

    def system(self, path: str, system_id: int, value: object) -> SystemRule | None:
        found = self.table(path, value, _SYSTEM)
        if "name" in found:
            self.text(f"{path}.name", found["name"])
        target = self.version(f"{path}.target", found.get("target"))
        steps = tuple(self.steps(f"{path}.steps", found.get("steps", [])))
        digests = tuple(self.digests(f"{path}.images", found.get("images", {})))
        allows = self.boolean(f"{path}.allow_downgrade", found.get("allow_downgrade", False))
        windows = power = None
        if "windows" in found:
            windows = self.windows(f"{path}.windows", found["windows"])
        if "power" in found:
            power = self.power(f"{path}.power", found["power"])
        if target is None:
            return None
        name = str(found.get("name", ""))
        return SystemRule(system_id, target, steps, digests, allows, windows, power, name)

    def steps(self, path: str, value: object) -> Iterator[StepRule]:
        """The steps; their ranges must not overlap, or which one counts would be a guess."""
        before: list[tuple[str, VersionRange]] = []
        for place, item in self.few(path, value):
            found = self.table(place, item, _STEP)
            start = _range_in(found.get("from"))
            if start is None:
                self.wrong(f"{place}.from", _A_RANGE, found.get("from"))
            via = self.version(f"{place}.via", found.get("via"))
            if start is None or via is None:
                continue
            if start.has(via):
                message = f"{via} lies in the step's own range {start}, so it leads nowhere"
                self.problems.append(Problem(f"{place}.via", message))
            for other, other_start in before:
                if start.overlaps(other_start):
                    message = f"{start} and {other_start} of {other} have versions in common"
                    self.problems.append(Problem(f"{place}.from", message))
            before.append((place, start))
            yield StepRule(start, via)

    def digests(self, path: str, value: object) -> Iterator[tuple[BiosVersion, str]]:
        seen: list[BiosVersion] = []
        table = self.any_table(path, value)
        if len(table) > MAX_OF_A_SYSTEM:
            self.wrong(path, f"at most {MAX_OF_A_SYSTEM} images", f"{len(table)} of them")
            return
        for key, text in table.items():
            place = _join(path, key)
            version = self.version(place, key)
            if not isinstance(text, str) or not _SHA256.fullmatch(text):
                self.wrong(place, _A_DIGEST, text)
            elif version is not None:
                if any(version.same_as(each) for each in seen):
                    self.problems.append(Problem(place, f"the version {version} is there twice"))
                seen.append(version)
                yield version, text

    def pins(self, value: object) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for tag, why in self.any_table("pinned", value).items():
            path = _join("pinned", tag)
            if not _TAG.fullmatch(tag):
                self.wrong(path, "a service tag of 5 to 7 letters and digits", tag)
            if tag.upper() in seen:
                self.problems.append(Problem(path, f"the service tag {tag} is there twice"))
            seen.add(tag.upper())
            yield tag, self.text(path, why)

    def windows(self, path: str, value: object) -> tuple[Window, ...]:
        found = []
        for place, item in self.array(path, value):
            window = self.table(place, item, _WINDOW)
            days = frozenset(self.days(f"{place}.days", window.get("days", list(DAYS))))
            start = self.time(f"{place}.start", window.get("start"))
            end = self.time(f"{place}.end", window.get("end"))
            name = self.text(f"{place}.zone", window.get("zone"))
            zone = self.zone(f"{place}.zone", name) if name else None
            if start is not None and end is not None and zone is not None:
                found.append(Window(days, start, end, zone, name))
        return tuple(found)

    def days(self, path: str, value: object) -> Iterator[int]:
        if value == []:
            self.wrong(path, f"one or more of {', '.join(DAYS)}", "an empty array")
        for place, item in self.array(path, value):
            if item in DAYS:
                yield DAYS.index(item)
            else:
                self.wrong(place, " or ".join(DAYS), item)

    def time(self, path: str, value: object) -> dt.time | None:
        if isinstance(value, str) and _TIME.fullmatch(value):
            return dt.time.fromisoformat(value)
        self.wrong(path, 'a time of day as a text, such as "22:00",', value)
        return None

    def zone(self, path: str, name: str) -> dt.tzinfo | None:
        try:
            return self.zone_of(name)
        except (KeyError, ValueError, OSError):
            self.wrong(path, "a time zone that this computer knows, such as Europe/Berlin,", name)
            return None

    def power(self, path: str, value: object) -> PowerRule:
        found = self.table(path, value, _POWER)
        needs = self.boolean(f"{path}.needs_mains", found.get("needs_mains", False))
        percent = found.get("minimum_battery_percent")
        if percent is not None and (type(percent) is not int or not 0 <= percent <= 100):
            self.wrong(f"{path}.minimum_battery_percent", "a number from 0 to 100", percent)
            percent = None
        return PowerRule(percent, needs)


def _unused(rule: SystemRule) -> Iterator[Problem]:
    """The images of versions that are never installed: of a mistyped one nobody asks the digest."""
    installed = [rule.target, *(each.via for each in rule.steps)]
    for version, _ in rule.digests:
        if not any(version.same_as(each) for each in installed):
            message = f"{version} is neither the target nor what a step installs (via)"
            yield Problem(_join(f"{rule.path}.images", version.text), message)


def _join(path: str, key: str) -> str:
    """The path of a key in a table."""
    plain = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key[:40]}"'
    return f"{path}.{plain}" if path else plain


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _version_in(value: object) -> BiosVersion | None:
    """A version that can be read."""
    if not isinstance(value, str):
        return None
    version = BiosVersion.parse(value)
    return None if version.style is VersionStyle.UNREADABLE else version


def _range_in(value: object) -> VersionRange | None:
    """A range of versions, or one version."""
    if not isinstance(value, str):
        return None
    if ".." not in value:
        version = _version_in(value)
        return None if version is None else VersionRange(version, version)
    parts = value.split("..")
    if len(parts) != 2 or not any(part.strip() for part in parts):
        return None
    ends = [_version_in(part) if part.strip() else None for part in parts]
    if any(part.strip() and end is None for part, end in zip(parts, ends, strict=True)):
        return None
    first, last = ends
    if first is None or last is None:
        return VersionRange(first, last)
    is_in_order = are_comparable(first, last) and not first.is_newer_than(last)
    return VersionRange(first, last) if is_in_order else None
