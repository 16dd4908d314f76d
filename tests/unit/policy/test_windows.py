"""When a policy's windows are open, by clocks that are set forward and back."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu.policy.model import Window
from openrbu.policy.windows import WindowState, window_state

BERLIN = ZoneInfo("Europe/Berlin")
SATURDAY, SUNDAY = 5, 6


def window(start: str, end: str, *days: int, zone: ZoneInfo = BERLIN) -> Window:
    times = dt.time.fromisoformat(start), dt.time.fromisoformat(end)
    return Window(frozenset(days or range(7)), *times, zone, zone.key)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_without_windows_any_time_is_right() -> None:
    assert window_state([], at("2026-11-29T12:00")) == WindowState(is_open=True)


@pytest.mark.parametrize(
    ("now", "is_open"),
    [
        ("2026-11-28T20:59", False),  # Saturday, 21:59 in Berlin
        ("2026-11-28T21:00", True),
        ("2026-11-29T02:59", True),  # Sunday morning belongs to Saturday's window
        ("2026-11-29T03:00", False),
        ("2026-11-29T21:00", False),
    ],
)
def test_a_window_over_midnight_is_of_the_day_on_which_it_opens(now: str, is_open: bool) -> None:
    found = window_state([window("22:00", "04:00", SATURDAY)], at(now))
    assert found.is_open is is_open
    if is_open:
        assert (found.opens_at, found.closes_at) == (None, at("2026-11-29T03:00"))


def test_a_window_that_ends_when_it_starts_has_a_whole_day() -> None:
    found = window_state([window("00:00", "00:00", SUNDAY)], at("2026-11-29T12:00"))
    assert found == WindowState(is_open=True, closes_at=at("2026-11-29T23:00"))


def test_windows_that_follow_each_other_are_one() -> None:
    found = window_state(
        [window("22:00", "00:00", SATURDAY), window("00:00", "02:00", SUNDAY)],
        at("2026-11-28T22:00"),
    )
    assert found.closes_at == at("2026-11-29T01:00")


@pytest.mark.parametrize(
    ("start", "end", "opens", "closes"),
    [
        ("01:00", "04:00", "2026-03-29T00:00", "2026-03-29T02:00"),  # two hours, not three
        ("02:30", "05:00", "2026-03-29T01:30", "2026-03-29T03:00"),  # 02:30 does not exist
        ("02:10", "02:50", "2026-04-05T00:10", "2026-04-05T00:50"),  # the next Sunday's
    ],
)
def test_clocks_that_are_set_forward(start: str, end: str, opens: str, closes: str) -> None:
    found = window_state([window(start, end, SUNDAY)], at("2026-03-28T12:00"))
    assert (found.opens_at, found.closes_at) == (at(opens), at(closes))


def test_clocks_that_are_set_back() -> None:
    """02:00 to 03:00 comes twice, on 25 October 2026."""
    found = window_state([window("01:30", "02:30", SUNDAY)], at("2026-10-25T00:15"))
    assert found == WindowState(is_open=True, closes_at=at("2026-10-25T01:30"))


MOMENTS = st.integers(0, 2 * 365 * 24 * 60).map(
    lambda minutes: at("2026-01-01T00:00") + dt.timedelta(minutes=minutes)
)
CLOCKS = st.times().map(lambda time: time.replace(second=0, microsecond=0))
ZONES = st.sampled_from(["Europe/Berlin", "UTC", "America/New_York", "Australia/Lord_Howe"])


@st.composite
def any_windows(draw: st.DrawFn) -> list[Window]:
    return [
        Window(
            frozenset(draw(st.sets(st.integers(0, 6), min_size=1))),
            draw(CLOCKS),
            draw(CLOCKS),
            ZoneInfo(name := draw(ZONES)),
            name,
        )
        for _ in range(draw(st.integers(1, 3)))
    ]


@given(any_windows(), MOMENTS)
def test_what_opens_is_open_then_and_what_closes_is_closed(
    windows: list[Window], now: dt.datetime
) -> None:
    found = window_state(windows, now)
    assert found.closes_at is not None
    assert found.closes_at > now
    if found.is_open:
        assert found.opens_at is None
    else:
        assert found.opens_at is not None
        assert now < found.opens_at < found.closes_at
        assert window_state(windows, found.opens_at).is_open
        just_before = found.opens_at - dt.timedelta(seconds=1)
        assert not window_state(windows, just_before).is_open
