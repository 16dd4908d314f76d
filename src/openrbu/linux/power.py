"""Power supplies and batteries, as the kernel shows them.

Facts: docs/reference/platform.md, V4.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.hosts.base import Host
from openrbu.linux.files import names_in, number_of, text_of

_OF_A_PERIPHERAL = "Device"
_AMOUNTS = (("energy_now", "energy_full"), ("charge_now", "charge_full"))


@dataclass(frozen=True, slots=True)
class Supply:
    """A supply of the machine itself. `kind` is `Mains`, `Battery`, `UPS`, `USB` and others;
    `is_online` and `percent` are None where the supply does not say it, or says what can't be."""

    name: str
    kind: str
    is_online: bool | None
    is_present: bool
    status: str
    percent: int | None

    @property
    def is_battery(self) -> bool:
        return self.kind == "Battery"

    @property
    def is_discharging(self) -> bool:
        return self.status == "Discharging"


def read_supplies(host: Host, directory: str) -> tuple[Supply, ...]:
    """The machine's supplies, not those of a mouse or a headset."""
    found = (_read_supply(host, f"{directory}/{name}") for name in names_in(host, directory))
    return tuple(each for each in found if each is not None)


def _read_supply(host: Host, directory: str) -> Supply | None:
    if text_of(host, f"{directory}/scope") == _OF_A_PERIPHERAL:
        return None
    online = number_of(host, f"{directory}/online")
    return Supply(
        directory.rpartition("/")[2],
        text_of(host, f"{directory}/type") or "Unknown",
        None if online is None else online > 0,
        number_of(host, f"{directory}/present") != 0,
        text_of(host, f"{directory}/status") or "",
        _percent(host, directory),
    )


def _percent(host: Host, directory: str) -> int | None:
    capacity = number_of(host, f"{directory}/capacity")
    if capacity is not None:
        return _sound(capacity)
    for now, full in _AMOUNTS:
        has, most = number_of(host, f"{directory}/{now}"), number_of(host, f"{directory}/{full}")
        if has is not None and most:
            return _sound(100 * has // most)
    return None


def _sound(percent: int) -> int | None:
    """None: no battery has that much."""
    return percent if 0 <= percent <= 100 else None
