"""The journal: a file of lines that survives crashes, full disks and damage."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu import __version__
from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.update.journal import BusyError, Journal
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
    Journal(path).append("one", "failed", AT, why="a\nb", extents=[[1, 2]])
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
    assert path.stat().st_mode & 0o777 == 0o600


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
    text = path.read_text().replace('"schema": 1', '"schema": 2')
    path.write_text(text)
    with pytest.raises(
        ObstacleError, match=r"line 1 .* a newer openrbu .schema 2; this one knows 1"
    ):
        Journal(path).attempts()
    assert path.read_text() == text


def test_one_that_can_not_be_written_is_an_obstacle(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.mkdir()
    journal = Journal(path)
    calls: tuple[Callable[[], object], ...] = (
        lambda: journal.append("one", "started", AT),
        lambda: journal.locked().__enter__(),
    )
    for call in calls:
        with pytest.raises(ObstacleError, match="can't be written: it is a directory, not a file"):
            call()
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


def test_only_one_process_is_at_an_update_at_a_time(path: Path) -> None:
    journal = Journal(path)
    script = (
        "import sys; from pathlib import Path\n"
        "from openrbu.update.journal import Journal\n"
        "with Journal(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(BusyError, match="an update is under way, wait for it"),
            journal.locked(),
        ):
            pass
        assert journal.attempts() == []
        other.kill()
    with journal.locked():
        journal.append("one", "started", AT)


def test_what_is_raised_while_it_is_held_is_not_taken_for_its_own(path: Path) -> None:
    with (
        pytest.raises(OSError, match="the driver") as raised,
        Journal(path).locked(),
    ):
        raise OSError(errno.EIO, "the driver")
    assert not isinstance(raised.value, ObstacleError)
