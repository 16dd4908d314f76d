"""Our rule sets do what the real code does in each of the oracle's own cases, step by step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.rules import Identity
from rigs.oracle import (
    REAL_FLASH_BYTES,
    Told,
    oracle_module,
    our_d500,
    our_poweredge,
    real_d500,
    real_poweredge,
)

pytestmark = pytest.mark.untraced  # as test_random_memories

KINDS = {"mono": 42, "packets": 63, "whole": 7, "d500": 17}
"""How many cases there are of each kind: none is passed over unseen."""


def cases_of(kind: str) -> list[Any]:
    """The oracle's cases. (What it asks with `--strict` is not asked for here.)"""
    cases = getattr(oracle_module("cases"), f"_{kind}")()
    return [case for case in cases if not case.is_strict]


@pytest.mark.parametrize("kind", KINDS)
def test_each_case_of_the_oracle_comes_out_as_in_the_real_code(tmp_path: Path, kind: str) -> None:
    cases = cases_of(kind)
    real, ours = (real_d500, our_d500) if kind == "d500" else (real_poweredge, our_poweredge)
    for case in cases:
        path = tmp_path / "ram"
        with path.open("wb") as file:
            file.truncate(case.size)
            for at, piece in case.pieces:
                os.pwrite(file.fileno(), piece[: case.size - at], at)
        system = case.system
        machine = Identity(system.system_id, REAL_FLASH_BYTES, system.revision, system.features)
        told: tuple[Told, Told] = real(path, machine), ours(path, machine)
        assert told[0] == told[1], case.name
    assert len(cases) >= KINDS[kind]
