"""Moments for people: local time, with its distance from UTC."""

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.system.times import local_time
from rigs.cli import Cli

MOMENT = dt.datetime(2026, 3, 1, 12, 5, 9, 250_000, dt.UTC)


@pytest.fixture
def _kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "XXX-5:45")  # as POSIX writes it; no database of zones is needed
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_kathmandu")
def test_a_moment_is_shown_in_local_time_with_the_zone() -> None:
    assert local_time(MOMENT) == "2026-03-01 17:50:09 +05:45"
    assert local_time(MOMENT, "minutes") == "2026-03-01 17:50 +05:45"
    assert local_time(MOMENT, "milliseconds") == "2026-03-01 17:50:09.250 +05:45"


@pytest.mark.usefixtures("_kathmandu")
@pytest.mark.parametrize("year", [1, 9999])
def test_a_moment_at_the_end_of_time_is_shown_as_it_is(year: int) -> None:
    moment = dt.datetime(year, 12 if year > 1 else 1, 31 if year > 1 else 1, tzinfo=dt.UTC)
    shown = moment.replace(hour=23) if year > 1 else moment.astimezone()
    assert local_time(shown).startswith(f"{year:04}-")


@pytest.mark.usefixtures("_kathmandu")
def test_people_read_local_time_and_scripts_rfc_3339(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    rbu("update", rbu.image(), "-m", "demo", "--reboot")
    (update,) = rbu.json("history", "-m", "demo")["updates"]
    began = dt.datetime.fromisoformat(update["events"][0]["at"])
    assert began.utcoffset() is not None
    for words in (("history", "-m", "demo"), ("status", "-m", "demo")):
        assert local_time(began) in rbu(*words).out
    line = rbu("machine", "log", "demo").out.splitlines()[0]
    assert " +05:45 " in line
    made = next(each for each in rbu("machine", "show", "demo").out.splitlines() if "made:" in each)
    assert made.endswith(" +05:45")


def test_a_machine_that_says_nonsense_about_when_it_was_made_is_shown(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    state = Path(os.environ["OPENRBU_HOME"], "machines", "demo", "machine.json")
    text = state.read_text()
    made = rbu.json("machine", "show", "demo")["created_at"]
    state.write_text(text.replace(made, "long ago"))
    assert "made:" in rbu("machine", "show", "demo").out
