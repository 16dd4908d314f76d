"""Which tests come first where several processes share them, and where the lab's tests are."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from rigs.longest import SECONDS, TESTS, longest_first


def item(path: str, name: str) -> pytest.Item:
    return cast(pytest.Item, SimpleNamespace(path=TESTS / path, name=name))


def test_the_files_that_take_longest_come_first_each_in_its_own_sequence() -> None:
    short, long = "unit/test_units.py", max(SECONDS, key=lambda name: SECONDS[name])
    many = "unit/test_packet.py"
    items = [item(short, "a"), *(item(many, str(n)) for n in range(3)), item(long, "d")]
    items += [item(long, "c")]
    longest_first(items)
    assert [each.name for each in items] == ["d", "c", "0", "1", "2", "a"]


def test_each_file_whose_time_is_known_is_there() -> None:
    assert [name for name in SECONDS if not (TESTS / name).is_file()] == []


def test_make_test_lab_looks_for_the_labs_tests_wherever_there_are_any() -> None:
    marked = {
        path.relative_to(TESTS).parts[0]
        for path in TESTS.rglob("test_*.py")
        if re.search(r"mark\.lab\b", path.read_text()) and path != Path(__file__)
    }
    makefile = (TESTS.parent / "Makefile").read_text()
    (line,) = re.findall(r"^LAB_TESTS = (.*)", makefile, re.MULTILINE)
    assert marked <= set(re.findall(r"tests/(\w+)", line)), "they would be left out"
