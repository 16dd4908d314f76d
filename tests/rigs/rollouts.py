"""The collection's roll-out on a `Fleet`, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import IO, Any, Self

from openrbu.system.descriptors import readable
from rigs.playbooks import Fleet, Played

ROLLOUT = "openrbu.firmware.rollout"
PATIENCE_S = 120.0
CHECKED = "Check what is asked for"
RESTARTED = "Arm, restart, and hear what the BIOS says"
POLICY = """
schema = 1
[systems.0x0121]
target = "A07"
steps = [{ from = "..A05", via = "A06" }]
"""


def settings(fleet: Fleet, image: Path, **more: Any) -> list[str]:
    """The words for a roll-out of this image; `more`: variables of the role, without its prefix,
    and of openrbu."""
    given = {
        "rollout_image": str(image),
        "rollout_directory": str(fleet.directory / "rollout"),
        **{key if "openrbu" in key else f"rollout_{key}": value for key, value in more.items()},
    }
    return ["-e", json.dumps(given)]


def roll_out(fleet: Fleet, image: Path, *words: str, code: int = 0, **more: Any) -> Played:
    return fleet.play(ROLLOUT, *settings(fleet, image, **more), *words, code=code)


class Begun:
    """A roll-out that goes on, in a process group of its own, to the end of the block at most."""

    def __init__(self, fleet: Fleet, *words: str, printed: IO[bytes] | None = None) -> None:
        self._ended, held = os.pipe()  # each worker inherits the other end
        output = subprocess.DEVNULL if printed is None else printed
        self.process = subprocess.Popen(
            fleet.command(ROLLOUT, *words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=fleet.directory,
            env=fleet.environment,
            start_new_session=True,
            pass_fds=[held],
        )
        os.close(held)

    def kill_controller(self) -> None:
        """Kill it, and wait for its workers, which are in groups of their own and end what they
        have begun, as rbu on a real server would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if not readable([self._ended], PATIENCE_S):
            raise TimeoutError("workers of a controller that is gone do not end")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill_controller()
        os.close(self._ended)


def summary(fleet: Fleet) -> Any:
    return json.loads((fleet.directory / "rollout/summary.json").read_text("utf-8"))


def states(fleet: Fleet) -> dict[str, str]:
    return {name: each["state"] for name, each in summary(fleet)["machines"].items()}


def rows(fleet: Fleet) -> dict[str, Any]:
    """What `rbu report` says of each machine."""
    report = fleet.rbu("report", *sorted((fleet.directory / "rollout/machines").iterdir()))
    return {each["name"]: each for each in report["machines"]}


def outcomes(fleet: Fleet) -> dict[str, str]:
    """What `rbu report` says of each machine, in a word."""
    return {name: each["outcome"] for name, each in rows(fleet).items()}


def status(fleet: Fleet, name: str) -> Any:
    return fleet.rbu("status", "--machine", name)


def changes(played: Played) -> list[str]:
    return [each["host"] for each in played.results if each["result"].get("changed")]


def policy_with(fleet: Fleet, *versions: str, pinned: str = "") -> dict[str, Any]:
    """The policy as a file, with images of these versions, as settings of a roll-out."""
    images = fleet.directory / "images"
    images.mkdir(exist_ok=True)
    for version in versions:
        image = fleet.image(version)
        image.rename(images / image.name)
    policy = fleet.directory / "policy.toml"
    policy.write_text(f"{POLICY}[pinned]\n{pinned}\n")
    return {"image": images, "policy": str(policy)}
