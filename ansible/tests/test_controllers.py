"""One controller at a time has a roll-out, and who dies gives it back."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.playbooks import COLLECTIONS, PLUGIN_UTILS, Fleet, plugin_util

MODULE = f"{PLUGIN_UTILS}.controllers"
CONTROLLERS = plugin_util("controllers")
HOLDER = f"""
import importlib, sys, time
from pathlib import Path
sys.path.insert(0, {str(COLLECTIONS)!r})
importlib.import_module({MODULE!r}).claim(Path(sys.argv[1]))
print("claimed", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def another_controller(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the roll-out of a directory."""
    command = [sys.executable, "-c", HOLDER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        try:
            yield process
        finally:
            process.kill()


def test_one_controller_at_a_time_and_none_after_its_death(tmp_path: Path) -> None:
    with another_controller(tmp_path) as process:
        with pytest.raises(ValueError, match=f"another controller, pid {process.pid} on"):
            CONTROLLERS.claim(tmp_path)
        process.kill()
        process.wait()
        with another_controller(tmp_path):
            pass


def test_a_controller_may_claim_what_it_has(tmp_path: Path) -> None:
    with another_controller(tmp_path) as process:
        pid = (tmp_path / "controller.lock").read_text().split()[0]
        assert pid == str(process.pid)
    twice = HOLDER.replace(
        "print", f"importlib.import_module({MODULE!r}).claim(Path(sys.argv[1]))\nprint"
    )
    done = subprocess.run(
        [sys.executable, "-c", twice.replace("sleep(60)", "sleep(0)"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("claimed\n", "")


def test_a_second_controller_is_refused_before_it_touches_a_machine(fleet: Fleet) -> None:
    fleet.machine("a")
    directory = fleet.directory / "rollout"
    directory.mkdir()
    given = {"rollout_image": str(fleet.image("A06")), "rollout_directory": str(directory)}
    words = ("openrbu.firmware.rollout", "-e", json.dumps(given))
    with another_controller(directory) as process:
        before = sorted(directory.iterdir())
        played = fleet.play(*words, code=2)
        said = played.of("a", "Check what is asked for")["msg"]
        assert f"another controller, pid {process.pid} on " in said
        assert str(directory) in said
        assert fleet.rbu("status", "--machine", "a")["state"] == "none"
        assert sorted(directory.iterdir()) == before
        fleet.play(*words, "--check")
    fleet.play(*words)
    assert fleet.rbu("status", "--machine", "a")["bios"]["version"] == "A06"
