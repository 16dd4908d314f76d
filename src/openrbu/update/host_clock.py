"""Time as it goes on for a host."""

from __future__ import annotations

from openrbu.hosts.base import Host


class HostClock:
    """A clock that counts a host's pauses: a virtual machine makes its entries during a pause."""

    def __init__(self, host: Host) -> None:
        self._host, self._now_s = host, 0.0

    def monotonic(self) -> float:
        return self._now_s

    def wait(self, seconds: float) -> None:
        self._host.sleep(seconds)
        self._now_s += seconds
