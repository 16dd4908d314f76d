"""Whether a window of a policy is open, and when the next one opens.

A window's times are those of a clock on the wall. A start that the clock skips in spring comes as
much later; an end that it skips, as much sooner; of an end that comes twice in autumn the second
counts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openrbu.policy.model import Window

_DAYS_AHEAD = 15
"""Two weeks: the clocks may skip the only window of one of them."""


@dataclass(frozen=True, slots=True)
class WindowState:
    """Whether updates are allowed at one moment. `opens_at`: when they will be; None: they are.
    `closes_at`: when the open window, or else the next one, ends; None: there are no windows."""

    is_open: bool
    opens_at: dt.datetime | None = None
    closes_at: dt.datetime | None = None


def window_state(windows: Sequence[Window], now: dt.datetime) -> WindowState:
    """What the windows say of the moment `now`, which has a zone. Without any, all is allowed."""
    if not windows:
        return WindowState(is_open=True)
    spans = sorted(span for window in windows for span in _spans(window, now))
    moment = now.astimezone(dt.UTC)
    opened = [end for start, end in spans if start <= moment < end]
    if opened:
        return WindowState(is_open=True, closes_at=_joined_end(spans, max(opened)))
    start, end = next(span for span in spans if span[0] > moment)
    return WindowState(is_open=False, opens_at=start, closes_at=_joined_end(spans, end))


_Span = tuple[dt.datetime, dt.datetime]


def _joined_end(spans: Sequence[_Span], end: dt.datetime) -> dt.datetime:
    """The end of the windows that follow each other without a gap, up to those that are known."""
    for start, later in spans:
        if start <= end < later:
            end = later
    return end


def _spans(window: Window, now: dt.datetime) -> Iterator[_Span]:
    """The times in UTC at which a window opens and closes, from yesterday on. One that the clocks
    skip as a whole is none."""
    today = now.astimezone(window.zone).date()
    for ahead in range(-1, _DAYS_AHEAD + 1):
        day = today + dt.timedelta(days=ahead)
        if day.weekday() not in window.days:
            continue
        last = day if window.end > window.start else day + dt.timedelta(days=1)
        start = dt.datetime.combine(day, window.start, window.zone).astimezone(dt.UTC)
        end = dt.datetime.combine(last, window.end, window.zone).replace(fold=1)
        if start < end.astimezone(dt.UTC):
            yield start, end.astimezone(dt.UTC)
