"""The journal: a file of lines that survives crashes, full disks and damage."""

from __future__ import annotations

import datetime as dt
import json
import os
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu import __version__
from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.linux.reboot import REBOOT_MODE
from openrbu.update.journal import VERIFIED, Change, Journal
from rigs.machines import as_nobody, in_child, opened_up

AT = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
LATER = AT + dt.timedelta(minutes=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "er" / "journal.jsonl"


def test_there_is_none_before_the_first_update(path: Path) -> None:
    journal = Journal(path)
    assert (journal.attempts(), journal.last) == ([], None)
    assert not path.parent.exists()


def test_an_update_is_the_events_with_its_name(path: Path) -> None:
    journal = Journal(path)
    journal.append("one", "started", AT, to_version="A06")
    journal.append("two", "started", AT, to_version="A07")
    journal.append("one", "armed", LATER, mode="mono", to_version="A06b")
    one, two = journal.attempts()
    assert one.events == (("started", AT), ("armed", LATER))
    assert one.fields == {"openrbu": __version__, "to_version": "A06b", "mode": "mono"}
    assert (one.outcome, two.outcome) == ("armed", "started")
    assert journal.last == two


@pytest.mark.parametrize(
    ("event", "is_open"),
    [
        ("started", True),
        ("armed", True),
        ("result", False),
        ("failed", False),
        ("interrupted", False),
        ("cancelled", False),
    ],
)
def test_an_update_is_open_until_it_is_known_how_it_ended(
    path: Path, event: str, is_open: bool
) -> None:
    journal = Journal(path)
    journal.append("one", event, AT)
    assert journal.last is not None
    assert journal.last.is_open == is_open


def test_each_line_is_one_event_in_json_with_the_version_of_the_tool(path: Path) -> None:
    before = os.umask(0o077)  # as root may have: all users may read it nevertheless
    Journal(path).append("one", "failed", AT, why="a\nb", extents=[[1, 2]])
    os.umask(before)
    (line,) = path.read_bytes().splitlines()
    assert json.loads(line) == {
        "schema": 1,
        "id": "one",
        "event": "failed",
        "at": "2026-03-04T05:06:07+00:00",
        "openrbu": __version__,
        "why": "a\nb",
        "extents": [[1, 2]],
    }
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, 400))
def test_a_last_line_that_is_cut_off_anywhere_is_left_out_and_written_over(
    path: Path, cut: int
) -> None:
    path.unlink(missing_ok=True)
    journal = Journal(path)
    journal.append("one", "started", AT)
    first = path.read_bytes()
    journal.append("one", "armed", AT, note="x" * 100)
    whole = path.read_bytes()
    kept = max(len(first), len(whole) - 1 - cut)
    path.write_bytes(whole[:kept])
    assert [attempt.outcome for attempt in journal.attempts()] == ["started"]
    journal.append("one", "cancelled", LATER)
    assert path.read_bytes().startswith(first)
    assert [event for event, _ in journal.attempts()[0].events] == ["started", "cancelled"]


def test_a_first_line_that_is_cut_off_is_written_over_too(path: Path) -> None:
    journal = Journal(path)
    journal.append("one", "started", AT)
    path.write_bytes(path.read_bytes()[:20])
    journal.append("two", "started", AT)
    assert [attempt.id for attempt in journal.attempts()] == ["two"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"junk",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b"7",
        b'"text"',
        b"{}",
        b'{"id": "x"}',
        b'{"id": "x", "event": "armed"}',
        b'{"id": "x", "event": "armed", "at": "noon"}',
        b'{"id": "x", "event": "armed", "at": 5}',
        b'{"id": "x", "event": 5, "at": "2026-03-04T05:06:07"}',
        b'{"id": ["x"], "event": "armed", "at": "2026-03-04T05:06:07"}',
        b'{"id": null, "event": "armed", "at": "2026-03-04T05:06:07"}',
        b'{"id": "x", "event": "changing", "at": "2026-03-04T05:06:07"}',
        b'{"id": "x", "event": "changing", "at": "2026-03-04", "before": "", "after": 1}',
    ],
)
def test_a_damaged_line_is_told_by_its_number_and_what_to_do(path: Path, line: bytes) -> None:
    journal = Journal(path)
    journal.append("one", "started", AT)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DamagedInputError, match=r"line 2 of the journal .* move the file away"):
        journal.attempts()
    path.rename(path.with_name("away"))
    assert journal.attempts() == []


def test_a_line_of_a_newer_openrbu_is_refused_and_kept(path: Path) -> None:
    Journal(path).append("one", "started", AT)
    text = path.read_text().replace('"schema": 1', '"schema": 4')
    path.write_text(text)
    with pytest.raises(
        ObstacleError, match=r"line 1 .* a newer openrbu .schema 4; this one knows 3"
    ):
        Journal(path).attempts()
    assert path.read_text() == text


def test_one_that_can_not_be_written_is_an_obstacle(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.mkdir()
    journal = Journal(path)
    with pytest.raises(ObstacleError, match="can't be written: it is a directory, not a file"):
        journal.append("one", "started", AT)
    with pytest.raises(ObstacleError, match="can't be read: it is a directory, not a file"):
        journal.attempts()


def test_one_of_another_user_is_an_obstacle(path: Path) -> None:
    Journal(path).append("one", "started", AT)
    opened_up(path)
    path.chmod(0o600 if os.geteuid() == 0 else 0)

    def work() -> None:
        for call, says in (
            (lambda: Journal(path).append("two", "started", AT), "written"),
            (Journal(path).attempts, "read"),
        ):
            with pytest.raises(ObstacleError, match=f"can't be {says}: Permission denied"):
                call()

    as_nobody(work)


@pytest.mark.parametrize("more", [1, 50])
def test_a_line_that_the_disk_takes_a_part_of_is_taken_back(path: Path, more: int) -> None:
    journal = Journal(path)
    journal.append("one", "started", AT)
    whole = path.read_bytes()

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + more,) * 2)
        with pytest.raises(ObstacleError, match="can't be written: No space left"):
            journal.append("one", "armed", AT)

    assert in_child(work) == 0
    assert path.read_bytes() == whole


def test_lines_that_are_no_events_add_what_a_killed_tool_can_not_say(path: Path) -> None:
    journal = Journal(path)
    change = Change("/sys/x", "cold", "warm")
    journal.append("one", "started", AT, mode="mono")
    assert journal.last is not None
    assert not journal.last.is_verified
    journal.append("one", VERIFIED, AT, staged_sha256="ab")
    journal.append_change("one", change, AT)
    journal.append_change("one", Change("/sys/y", "0", None), AT)
    last = journal.last
    assert last is not None
    assert (last.outcome, last.is_open, last.is_verified) == ("started", True, True)
    assert last.events == (("started", AT),)
    assert last.changes == (change, Change("/sys/y", "0", None))
    assert last.fields == {"openrbu": __version__, "mode": "mono", "staged_sha256": "ab"}
    schemas = [json.loads(line)["schema"] for line in path.read_bytes().splitlines()]
    assert schemas == [1, 2, 2, 2]  # an older openrbu must not undo without them


def test_the_kind_of_restart_that_openrbu_0_2_wrote_down_is_a_change(path: Path) -> None:
    journal = Journal(path)
    journal.append("one", "started", AT, restart_before="cold")
    assert journal.last is not None
    assert journal.last.changes == (Change(REBOOT_MODE, "cold", "warm"),)


# -- the journals of openrbu 0.2 ------------------------------------------------------------


def older_journal(path: Path, attempt_id: str, *events: str) -> Path:
    for event in events:
        Journal(path).append(attempt_id, event, AT)
    return path


def test_a_new_journal_begins_with_the_sound_lines_of_the_older_ones(
    path: Path, tmp_path: Path
) -> None:
    first = older_journal(tmp_path / "alice" / "journal.jsonl", "one", "started", "armed", "result")
    second = older_journal(tmp_path / "root" / "journal.jsonl", "two", "started", "armed")
    second.write_bytes(second.read_bytes() + b"junk\n" + b'{"cut off')
    olds = [first.read_bytes(), second.read_bytes()]
    journal = Journal(path, (first, second, tmp_path / "none"))
    assert [each.outcome for each in journal.attempts()] == ["result", "armed"]
    assert not path.exists()  # who only reads makes no file
    journal.append("two", "cancelled", LATER)
    journal.append("three", "started", LATER)
    assert [each.outcome for each in journal.attempts()] == ["result", "cancelled", "started"]
    assert [first.read_bytes(), second.read_bytes()] == olds
    assert list(path.parent.iterdir()) == [path]
    older_journal(second, "four", "started")  # by an old openrbu: it is not read any more
    assert [each.id for each in journal.attempts()] == ["one", "two", "three"]


def test_a_journal_that_another_process_begins_meanwhile_is_not_replaced(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = older_journal(tmp_path / "old.jsonl", "old", "started")
    link = Path.hardlink_to

    def late(new: Path, target: Path) -> None:
        monkeypatch.setattr(Path, "hardlink_to", link)
        Journal(path).append("other", "started", AT)
        link(new, target)

    monkeypatch.setattr(Path, "hardlink_to", late)
    Journal(path, (older,)).append("mine", "started", AT)
    assert [each.id for each in Journal(path).attempts()] == ["other", "mine"]
    assert list(path.parent.iterdir()) == [path]
