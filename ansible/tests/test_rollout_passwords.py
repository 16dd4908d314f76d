"""Where a password may be left by a roll-out: nowhere."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.playbooks import Fleet
from rigs.rollouts import roll_out, states

PASSWORD = "Zq7-geheim"


class Watcher:
    """Looks at the arguments and the environment of all processes, for a text."""

    def __init__(self, text: str) -> None:
        self._text, self._is_over = text.encode(), threading.Event()
        self.looks, self.found = 0, set[str]()

    def _look(self) -> None:
        while not self._is_over.is_set():
            self.looks += 1
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    for name in ("cmdline", "environ"):
                        with contextlib.suppress(OSError):
                            if self._text in (entry / name).read_bytes():
                                self.found.add(f"{name} of {(entry / 'comm').read_text()}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()


@pytest.mark.parametrize("in_process", [True, False], ids=["in process", "as on a real server"])
def test_a_password_is_left_nowhere(fleet: Fleet, in_process: bool) -> None:
    fleet.machine("a", "precision-t7600", admin_password=PASSWORD)
    fleet.machine("b", "precision-t7600", admin_password=PASSWORD, faults=("erase-fails",))
    (fleet.directory / "secret.yml").write_text(f"rollout_password: {PASSWORD}\n")
    watcher = Watcher(PASSWORD)
    with watcher.watching():
        played = roll_out(
            fleet,
            fleet.image("A02", "precision-t7600"),
            *("-e", "@secret.yml", "-vvvv", "--diff"),
            code=2,
            openrbu_in_process=in_process,
            reboot={"reboot_timeout": 60},
        )
    assert states(fleet) == {"a": "updated", "b": "failed"}
    assert watcher.looks > 10
    assert watcher.found == set()
    assert PASSWORD not in played.out
    left = [
        path
        for path in fleet.directory.rglob("*")
        if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]
    assert left == [fleet.directory / "secret.yml"]
