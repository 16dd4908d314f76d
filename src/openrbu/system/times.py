"""Moments, as people read them. In JSON they stay as RFC 3339 has them."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Literal


def local_time(
    when: dt.datetime, precision: Literal["minutes", "seconds", "milliseconds"] = "seconds"
) -> str:
    """A moment (with a zone) in this computer's time zone, which `TZ` overrides, as
    `2026-03-01 14:05:09 +01:00`: the distance from UTC is clear everywhere, unlike names of zones
    such as IST."""
    with contextlib.suppress(OverflowError, ValueError):  # of the year 1 or 9999
        when = when.astimezone()
    bare = when.replace(tzinfo=None)
    zone = when.isoformat()[len(bare.isoformat()) :]
    return f"{bare.isoformat(sep=' ', timespec=precision)} {zone}"
