"""The kind of the next restart: chosen, and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openrbu.hosts.virtual import VirtualHost
from openrbu.update.journal import Change, Journal
from openrbu.update.restart import choose_warm, restart_mode
from openrbu.update.undo import Undo, put_back
from rigs.machines import REBOOT_MODE, Watched, make, running


def test_a_warm_restart_is_not_chosen_twice(tmp_path: Path) -> None:
    writes: list[str] = []

    def note(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write":
            writes.append(arguments[0])

    changes: list[tuple[str, str]] = []

    def before_change(path: str, after: str) -> None:
        assert restart_mode(host) == "cold"
        changes.append((path, after))

    with running(make(tmp_path)) as machine:
        host = Watched(VirtualHost(machine), note)
        host.write(REBOOT_MODE, b"cold")
        choose_warm(host, before_change)
        choose_warm(host, before_change)
        assert restart_mode(host) == "warm"
        assert writes == [REBOOT_MODE, REBOOT_MODE]
        assert changes == [(REBOOT_MODE, "warm")]


def test_what_somebody_else_has_chosen_since_stays(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        host.write(REBOOT_MODE, b"hard")
        put_back(host, Change(REBOOT_MODE, "cold", "warm"))
        assert restart_mode(host) == "hard"
        host.write(REBOOT_MODE, b"warm")
        put_back(host, Change(REBOOT_MODE, "cold", "warm"))
        assert restart_mode(host) == "cold"
        host.write(REBOOT_MODE, b"hard")
        put_back(host, Change(REBOOT_MODE, "cold", None))  # whatever it is
        assert restart_mode(host) == "cold"


def test_what_a_setting_was_is_in_the_journal_before_it_changes(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        journal = Journal.of(host)
        journal.append("one", "started", host.now())
        host.write(REBOOT_MODE, b"hard")
        undo = Undo(host, journal, "one")
        undo.before_change("the kind of restart", REBOOT_MODE, "warm")
        undo.before_change("the same once more", REBOOT_MODE, None)
        last = journal.last
        assert last is not None
        assert last.changes == (
            Change(REBOOT_MODE, "hard", "warm"),
            Change(REBOOT_MODE, "hard", None),
        )
        assert (last.outcome, "path" in last.fields) == ("started", False)
        host.write(REBOOT_MODE, b"soft")
        assert undo.run() == []
        assert restart_mode(host) == "hard"
