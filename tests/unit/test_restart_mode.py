"""The kind of the next restart: chosen, and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openrbu.hosts.virtual import VirtualHost
from openrbu.update.restart import REBOOT_MODE, choose_warm, restart_mode, restore
from rigs.machines import Watched, make, running


def test_a_warm_restart_is_not_chosen_twice(tmp_path: Path) -> None:
    writes: list[str] = []

    def note(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write":
            writes.append(arguments[0])

    with running(make(tmp_path)) as machine:
        host = Watched(VirtualHost(machine), note)
        host.write(REBOOT_MODE, b"cold")
        choose_warm(host)
        choose_warm(host)
        assert restart_mode(host) == "warm"
        assert writes == [REBOOT_MODE, REBOOT_MODE]


def test_what_somebody_else_has_chosen_since_stays(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        host.write(REBOOT_MODE, b"cold")
        choose_warm(host)
        host.write(REBOOT_MODE, b"hard")
        restore(host, "cold")
        assert restart_mode(host) == "hard"
        host.write(REBOOT_MODE, b"warm")
        restore(host, "cold")
        assert restart_mode(host) == "cold"
