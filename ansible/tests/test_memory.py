"""What a roll-out remembers of its earlier runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rigs.playbooks import Fleet, Played


def roll_out(fleet: Fleet, image: Path, *words: str, code: int = 0, **more: Any) -> Played:
    given = {
        "rollout_image": str(image),
        "rollout_directory": str(fleet.directory / "rollout"),
        **{f"rollout_{key}": value for key, value in more.items()},
    }
    return fleet.play("openrbu.firmware.rollout", "-e", json.dumps(given), *words, code=code)


def summary(fleet: Fleet) -> Any:
    return json.loads((fleet.directory / "rollout/summary.json").read_text("utf-8"))


def states(fleet: Fleet) -> dict[str, str]:
    return {name: each["state"] for name, each in summary(fleet)["machines"].items()}


def rows(fleet: Fleet) -> dict[str, Any]:
    """What `rbu report` says of each machine."""
    report = fleet.rbu("report", *sorted((fleet.directory / "rollout/machines").glob("*.json")))
    return {each["name"]: each for each in report["machines"]}


POLICY = '\nschema = 1\n[systems.0x0121]\ntarget = "A06"\n'


@pytest.mark.parametrize("how", ["an image", "a policy"])
def test_a_version_that_runs_in_spite_of_a_failure_has_failed(fleet: Fleet, how: str) -> None:
    fleet.machine("a", faults=("12v-not-removed",))
    fleet.machine("b")
    image, more = fleet.image("A06"), dict[str, Any]()
    if how == "a policy":
        (fleet.directory / "images").mkdir()
        image = image.rename(fleet.directory / "images" / image.name).parent
        (fleet.directory / "policy.toml").write_text(POLICY, "utf-8")
        more = {"policy": str(fleet.directory / "policy.toml")}
    for before in ("failed", "failed_before"):
        roll_out(fleet, image, code=2, **more)
        assert states(fleet) == {"a": before, "b": "stopped"}
        assert "0x0009" in summary(fleet)["machines"]["a"]["message"]
        told = rows(fleet)["a"]
        assert (told["outcome"], told["completion_code"]) == ("refused", "0x0009")
    if how == "an image":
        roll_out(fleet, image, retry_failed=True)
        assert states(fleet) == {"a": "up_to_date", "b": "updated"}
        assert "0x0009" in summary(fleet)["machines"]["a"]["message"]
