"""A plan is for one machine as it was: what becomes of it on another one, or after a change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu import api
from openrbu.units import MIB
from rigs.machines import FLASH_BYTES, image

SPEC = {"model": "precision-390", "ram_bytes": 64 * MIB, "flash_size_bytes": FLASH_BYTES}


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[api.Machine]:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path))
    api.make_machine("one", api.MachineSpec(**SPEC))  # type: ignore[arg-type]
    with api.open_machine("one") as machine:
        yield machine


@pytest.mark.parametrize("model", ["precision-390", "poweredge-2650"])
def test_a_plan_for_another_machine_is_refused_even_where_the_models_are_the_same(
    one: api.Machine, model: str
) -> None:
    spec = api.MachineSpec(**(SPEC | {"model": model}))  # type: ignore[arg-type]
    api.make_machine("two", spec)
    with api.open_machine("two") as two:
        with pytest.raises(
            api.errors.NotForThisMachineError, match="made for machine 'one', not for machine 'two'"
        ):
            two.update(one.plan(image()))
        assert not two.status().is_armed
        assert two.history() == ()


def test_a_plan_that_was_carried_out_already_has_nothing_to_do(one: api.Machine) -> None:
    plan = one.plan(image())
    assert one.update(plan) is not None
    one.restart()
    assert one.update(plan) is None
    assert not one.status().is_armed
    assert len(one.history()) == 1


def test_a_machine_that_has_become_newer_refuses_an_old_plan(one: api.Machine) -> None:
    old = one.plan(image(version="2.3.0"))
    one.update(one.plan(image(version="2.4.0")))
    one.restart()
    with pytest.raises(api.errors.ObstacleError, match=r"2\.3\.0 is not newer than 2\.4\.0"):
        one.update(old)
    assert not one.status().is_armed


def test_a_plan_with_nothing_to_do_is_made_anew_when_the_machine_runs_another_version(
    one: api.Machine,
) -> None:
    same = one.plan(image(version="2.1.2"), api.Options(allow_downgrade=True))
    assert same.nothing_to_do
    one.update(one.plan(image()))
    one.restart()
    assert one.update(same) is not None
    restarted = one.restart()
    assert restarted is not None
    assert restarted.post.version_after == "2.1.2"
