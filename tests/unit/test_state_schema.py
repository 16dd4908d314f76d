"""Whoever changes what is kept in files has to raise the format, and keep a machine of it.

If one of these fails, docs/state.md says what is to be done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from openrbu.machine.config import FORMAT as MACHINE_FORMAT
from openrbu.machine.state_formats import FORMAT as STATE_FORMAT
from rigs import state_schema

STATES = Path(__file__).parents[1] / "data" / "states"
KEPT = [
    pytest.param(title, text, id=f"{path.parent.name}: {title}")
    for path in sorted(STATES.glob("*/formats"))
    for title, text in state_schema.from_text(path.read_text()).items()
]

WHAT_TO_DO = (
    "what is kept in files has changed, and its format has not: raise FORMAT, write a converter "
    "from the format before, and keep machines of it (docs/state.md)"
)


@pytest.mark.parametrize(("title", "text"), KEPT)
def test_a_format_of_which_there_are_machines_stays_as_it_is(title: str, text: str) -> None:
    assert state_schema.sections().get(title, text) == text, WHAT_TO_DO


@pytest.mark.parametrize("title", state_schema.FILES)
def test_there_are_machines_of_todays_formats(title: str) -> None:
    kept = [path.read_text() for path in STATES.glob("*/formats")]
    assert any(title in state_schema.from_text(text) for text in kept), (
        f"no machine is kept that has {title}: make some (docs/state.md)"
    )


@pytest.mark.parametrize("numbered", [STATE_FORMAT, MACHINE_FORMAT])
def test_each_older_format_has_a_converter(numbered: object) -> None:
    assert isinstance(numbered, type(STATE_FORMAT))
    assert list(numbered.converters) == list(range(1, numbered.number))


def test_the_text_of_the_formats_is_read_as_it_was_written() -> None:
    sections = state_schema.sections()
    assert state_schema.from_text(state_schema.to_text(sections)) == sections


@dataclass(frozen=True)
class Inner:
    one: int


@dataclass(frozen=True)
class Before:
    inner: Inner | None


@dataclass(frozen=True)
class MoreInside:
    inner: tuple[Inner, ...] | None


def test_the_text_names_each_field_of_each_record_and_its_kind() -> None:
    assert state_schema.section(Before) == ("#1\n    inner: #2 | null\n\n#2\n    one: int\n")
    assert state_schema.section(MoreInside) != state_schema.section(Before)
