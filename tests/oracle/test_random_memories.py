"""Over random memories our rule sets and the code of real BIOSes agree, step by step.

All is compared: which pages begin like an image, in which order, which check each fails, which is
taken; which packets are taken from where, what the set is, the password, the image put together.

OPENRBU_ORACLE_MEMORIES says over how many memories each rule set is tried (50 here, so 100 in all;
`make oracle-soak` tries 5,000). A memory that makes a difference is shrunk and shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from rigs.oracle import (
    Told,
    oracle_module,
    our_d500,
    our_poweredge,
    real_d500,
    real_poweredge,
)
from rigs.oracle_memories import Made, d500_memories, poweredge_memories

pytestmark = pytest.mark.untraced  # the emulator of the real code is traced, too: minutes

MEMORIES = int(os.environ.get("OPENRBU_ORACLE_MEMORIES", "50"))

randomly = settings(
    max_examples=MEMORIES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def oracle() -> None:
    """Without the oracle these tests are left out, and say so."""
    oracle_module("bioses")


def check(path: Path, made: Made, *sides: Callable[..., Told]) -> None:
    made.write(path)
    real, ours = (side(path, made.machine, made.low_top) for side in sides)
    assert ours == real, f"\n real: {real}\n ours: {ours}"


@randomly
@given(poweredge_memories())
def test_the_rule_set_of_a_poweredge_2950_does_what_its_code_does(
    tmp_path_factory: pytest.TempPathFactory, made: Made
) -> None:
    check(tmp_path_factory.getbasetemp() / "poweredge", made, real_poweredge, our_poweredge)


@randomly
@given(d500_memories())
def test_the_rule_set_of_a_latitude_d500_does_what_its_code_does(
    tmp_path_factory: pytest.TempPathFactory, made: Made
) -> None:
    check(tmp_path_factory.getbasetemp() / "d500", made, real_d500, our_d500)
