"""The answers that a roll-out keeps: the newest, and none that says less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rigs.playbooks import plugin_util

REPORTS = plugin_util("reports")


def said(second: int, **what: Any) -> dict[str, Any]:
    return {"said": {"at": f"2026-05-04T03:02:{second:02}.000+00:00"}, **what}


def kept(directory: Path) -> list[int]:
    """The seconds of the answers that are kept."""
    path = REPORTS.machine_file(directory, "a")
    return [int(each["said"]["at"][17:19]) for each in REPORTS._saved(path)]


def test_an_older_answer_replaces_no_newer_one(tmp_path: Path) -> None:
    REPORTS.save_answers(tmp_path, "a", [{"plan": said(1, machine={}), "now": said(9, machine={})}])
    REPORTS.save_answers(tmp_path, "a", [{"plan": said(5, machine={})}])
    assert kept(tmp_path) == [1, 9]
    REPORTS.save_answers(tmp_path, "a", [{"plan": said(10, machine={})}])
    assert kept(tmp_path) == [10]


def test_no_answer_and_an_answer_without_the_machine_remove_nothing(tmp_path: Path) -> None:
    REPORTS.save_answers(tmp_path, "a", [{"plan": said(1, machine={}), "now": said(2, machine={})}])
    REPORTS.save_answers(tmp_path, "a", [{}])
    assert kept(tmp_path) == [1, 2]
    for second in (3, 4):
        REPORTS.save_answers(tmp_path, "a", [{"plan": said(second, error={"kind": "off"})}])
        assert kept(tmp_path) == [1, 2, second]


def test_a_file_that_is_none_is_replaced(tmp_path: Path) -> None:
    path = REPORTS.machine_file(tmp_path, "a")
    path.parent.mkdir()
    for text in ("", "half of {", "[1]"):
        path.write_text(text, "utf-8")
        REPORTS.save_answers(tmp_path, "a", [{"plan": said(1)}])
        assert json.loads(path.read_text("utf-8")) == said(1)
