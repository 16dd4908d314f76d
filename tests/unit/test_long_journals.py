"""A journal of many updates: its last ones are read from its end, and what is before is not."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.machine.store import machine_directory
from openrbu.units import KIB
from openrbu.update.journal import SCHEMA, VERIFIED, Change, Journal
from rigs.cli import Cli

AT = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
MANY = 20_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def event(attempt_id: str, name: str, **more: object) -> bytes:
    """A line of a journal."""
    facts = {"schema": 1, "id": attempt_id, "event": name, "at": AT.isoformat(), **more}
    return json.dumps(facts, ensure_ascii=False).encode() + b"\n"


def many(count: int = MANY) -> bytes:
    """The lines of so many updates, each of which ended."""
    lines = (event(f"{n}", "started") + event(f"{n}", "failed", why="ü" * 20) for n in range(count))
    return b"".join(lines)


def read_bytes() -> int:
    """What this process has read from files until now, in bytes."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


def test_the_last_update_is_read_from_the_end(path: Path) -> None:
    path.write_bytes(many())
    journal, before = Journal(path), read_bytes()
    last = journal.last
    assert last is not None
    assert (last.id, last.outcome) == (f"{MANY - 1}", "failed")
    assert read_bytes() - before < 100 * KIB < path.stat().st_size / 10
    assert [each.id for each in journal.attempts(3)] == [f"{MANY - n}" for n in (3, 2, 1)]
    journal.append("new", "started", AT)
    assert read_bytes() - before < 500 * KIB
    assert journal.last is not None
    assert journal.last.id == "new"


def test_a_last_line_that_is_cut_off_is_left_out(path: Path) -> None:
    path.write_bytes(many(500) + event("new", "started") + event("new", "armed")[:-1])
    last = Journal(path).last
    assert last is not None
    assert last.events == (("started", AT),)


@pytest.mark.parametrize("cut", [0, 1, 300 * KIB])
def test_a_line_longer_than_what_is_read_at_once_is_whole_or_written_over(
    path: Path, cut: int
) -> None:
    extents = [[n, n + 1] for n in range(60_000)]
    start = many(10) + event("long", "started", why="a\nb ü")
    line = event("long", "armed", extents=extents)
    path.write_bytes(start + line[: len(line) - cut])
    journal = Journal(path)
    last = journal.last
    assert last is not None
    assert last.fields["why"] == "a\nb ü"
    assert last.fields.get("extents") == (None if cut else extents)
    journal.append("long", "cancelled", AT)
    assert path.read_bytes().startswith(start if cut else start + line)
    (ended,) = journal.attempts(1)
    assert [name for name, _ in ended.events] == [
        "started",
        *([] if cut else ["armed"]),
        "cancelled",
    ]
    assert len(journal.attempts()) == 11


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_an_update_that_a_later_one_settles_is_whole(path: Path, count: int) -> None:
    """The next update writes how the one before was interrupted, behind its own first line."""
    lines = [event("one", "started"), event("two", "started"), event("one", "interrupted")]
    path.write_bytes(many(50) + b"".join(lines))
    journal = Journal(path)
    assert journal.attempts(count) == journal.attempts()[-count:]
    one, two = journal.attempts(2)
    assert (one.id, one.outcome, two.id, two.outcome) == ("one", "interrupted", "two", "started")


_STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["armed", "result", "cancelled", VERIFIED, "/x"])),
    max_size=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS, count=st.integers(1, 7), is_begun=st.booleans())
def test_the_last_updates_are_the_last_of_all_whatever_was_written(
    path: Path, steps: list[tuple[int, str]], count: int, is_begun: bool
) -> None:
    """Also where an update has no first line, which openrbu does not write."""
    path.unlink(missing_ok=True)
    journal, seen = Journal(path), set[int]()
    for number, what in steps:
        attempt_id = f"{number}"
        if is_begun and number not in seen:
            journal.append(attempt_id, "started", AT, to_version="A06")
        seen.add(number)
        if what.startswith("/"):
            journal.append_change(attempt_id, Change(what, "1", "2"), AT)
        else:
            journal.append(attempt_id, what, AT, **{what: number})
    assert journal.attempts(count) == journal.attempts()[-count:]


# -- what can't be read ---------------------------------------------------------------------

DAMAGE = {
    "damaged": (b"junk\n", DamagedInputError, "is damaged: move the file away"),
    "newer": (
        event("x", "started").replace(b'"schema": 1', b'"schema": 99'),
        ObstacleError,
        rf"a newer openrbu \(schema 99; this one knows {SCHEMA}\)",
    ),
}


@pytest.mark.parametrize(("line", "error", "says"), DAMAGE.values(), ids=DAMAGE)
def test_a_line_before_the_last_updates_is_told_by_who_reads_it(
    path: Path, line: bytes, error: type[Exception], says: str
) -> None:
    path.write_bytes(many(3) + line + event("one", "started") + event("two", "started"))
    journal = Journal(path)
    assert journal.last is not None
    assert journal.last.id == "two"
    assert [each.id for each in journal.attempts(2)] == ["one", "two"]
    for count in (3, 100, None):
        with pytest.raises(error, match=rf"line 7 of the journal .*{says}"):
            journal.attempts(count)


@pytest.mark.parametrize(("line", "error", "says"), DAMAGE.values(), ids=DAMAGE)
def test_a_line_of_the_last_update_is_told_with_its_number(
    path: Path, line: bytes, error: type[Exception], says: str
) -> None:
    path.write_bytes(many() + event("one", "started") + line + event("one", "armed"))
    with pytest.raises(error, match=rf"line {2 * MANY + 2} of the journal .*{says}"):
        _ = Journal(path).last


# -- the commands ---------------------------------------------------------------------------


@pytest.fixture
def demo(rbu: Cli) -> Cli:
    """A machine called demo, with a damaged line far back in its journal, and 2 updates since."""
    rbu("machine", "new", "demo")
    journal = machine_directory("demo") / "journal.jsonl"
    journal.write_bytes(b"junk\n" + event("one", "started") + event("one", "failed", why="it did"))
    rbu("update", rbu.image("A06"), "--machine", "demo", "--reboot")
    return rbu


def test_status_and_update_need_the_last_update_only(demo: Cli) -> None:
    assert demo.json("status", "--machine", "demo")["last_update"]["ending"] == "updated"
    assert demo("update", demo.image("A07"), "--machine", "demo", "--reboot").code == 0


def test_history_shows_the_last_updates_and_tells_of_damage_before(demo: Cli) -> None:
    updates = demo.json("history", "--machine", "demo", "--last", "1")["updates"]
    assert [each["to_version"] for each in updates] == ["A06"]
    updates = demo.json("history", "--machine", "demo", "--last", "2")["updates"]
    assert [each["why"] for each in updates] == ["it did", None]
    for words in ((), ("--last", "3")):
        told = demo("history", "--machine", "demo", *words)
        assert (told.code, told.out) == (5, "")
        assert "line 1 of the journal" in told.err
    assert demo("history", "--machine", "demo", "--last", "0").code == 2
