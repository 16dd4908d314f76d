# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The ledger of one run of a roll-out: who may restart now, and what came of it.

Theory of operation. Ansible's workers are processes that know nothing of each other, and its own
limits count failures only when a whole batch is over. So each restart asks here first, in one
transaction, and tells afterwards how it went:

    waiting ──take──► restarting ──give──► updated | failed
       │                 └── leave ──► stopped | not_staged
       └──────────────take──► stopped

A restart may begin when its wave is open (all machines of the waves before have ended) and when
fewer machines are failed or restarting than the budget allows: so never more than the budget fail,
whatever happens to those that restart at the same time. Where the budget is used up, or a machine
of a canary wave has failed, nobody else begins. A machine with several steps stays `restarting`
from the first to the last, and asks before each further one whether it may `go_on`.

The ledger is no truth: that is on the machines. A run makes its ledger anew from what the machines
say, those that an earlier run has seen fail included.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.openrbu.firmware.plugins.plugin_utils.orphans import is_orphan

WAITING, RESTARTING = "waiting", "restarting"
UPDATED, FAILED, STOPPED = "updated", "failed", "stopped"
UP_TO_DATE, NOT_STAGED, FAILED_BEFORE = "up_to_date", "not_staged", "failed_before"
PINNED, NOT_IN_POLICY = "pinned", "not_in_policy"

AS_WANTED = (UP_TO_DATE, PINNED)
"""With nothing to do, as the image or the policy wants it."""
TOLD_APART = (FAILED_BEFORE, NOT_IN_POLICY)
"""Not staged, for a reason that is counted apart: `NOT_STAGED` may keep a run from beginning."""

LOOK_AGAIN_S = 0.1
BUSY_S = 600.0

_TABLES = """
create table machine (
  name text primary key, place integer, wave integer, state text, pid integer, message text);
create index by_state on machine (state, wave);
create table rule (name text primary key, value text);
"""

_TIME = r"([01]\d|2[0-3]):([0-5]\d)"
_WINDOW = re.compile(rf"{_TIME}-{_TIME}")


class Entry(NamedTuple):
    """A machine when the run begins: its name, its state, and what is to be said of it."""

    name: str
    state: str
    message: str = ""


def share_of(what: object, count: int) -> int:
    """A number of machines, written as such or as a share of `count` such as `1%`; at least one.

    :raise ValueError: when it is neither.
    """
    found = re.fullmatch(r"(\d+)(\s*%)?", str(what).strip())
    if found is None:
        raise ValueError(f"it is a number of machines or a share such as 10%: {what!r}")
    return max(1, count * int(found[1]) // 100 if found[2] else int(found[1]))


def wave_sizes(waves: Iterable[object], count: int) -> list[int]:
    """How many of `count` machines are in each wave. What is left is the last wave.

    :raise ValueError: as `share_of`.
    """
    sizes: list[int] = []
    left = count
    for wanted in [share_of(wave, count) for wave in waves] + [count]:
        if size := min(wanted, left):
            sizes.append(size)
        left -= size
    return sizes


def check_window(window: str) -> None:
    """:raise ValueError: when it is no window such as `22:00-04:30`."""
    if window and _WINDOW.fullmatch(window) is None:
        raise ValueError(f"a window is written as 22:00-04:30, not as {window!r}")


def in_window(window: str, now: dt.time) -> bool:
    """Whether `now` is in a window such as `22:00-04:30`; an empty one is always open."""
    found = _WINDOW.fullmatch(window)
    if found is None:
        return not window
    begin, end = (dt.time(int(found[at]), int(found[at + 1])) for at in (1, 3))
    return begin <= now < end if begin <= end else now >= begin or now < end


def open_ledger(
    path: Path,
    entries: Iterable[Entry],
    *,
    waves: Iterable[object],
    budget: object,
    canary_waves: int,
    window: str = "",
) -> dict[str, Any]:
    """Begin a run: make the ledger, in place of an earlier run's. Returns its summary.

    :raise ValueError: when waves, budget or window are not valid.
    """
    machines = list(entries)
    check_window(window)
    waiting = [each for each in machines if each.state == WAITING]
    sizes = wave_sizes(waves, len(waiting))
    allowed = share_of(budget, len(waiting))
    wave_of = [number for number, size in enumerate(sizes) for each in range(size)]
    waves_of = dict(zip((each.name for each in waiting), wave_of, strict=True))
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as database:
        database.executescript("pragma synchronous=off; begin;" + _TABLES)
        database.executemany(
            "insert into machine values (?, ?, ?, ?, 0, ?)",
            [
                (each.name, place, waves_of.get(each.name, -1), each.state, each.message)
                for place, each in enumerate(machines)
            ],
        )
        failed = sum(each.state == FAILED_BEFORE for each in machines)
        rules = {
            "budget": allowed,
            "canary_waves": canary_waves,
            "window": window,
            "waves": json.dumps(sizes),
            "stopped": _used_up(failed, allowed) if failed >= allowed else "",
        }
        database.executemany("insert into rule values (?, ?)", list(rules.items()))
        database.execute("commit")
    fresh.replace(path)
    return summary(path)


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[sqlite3.Connection]:
    """The ledger, for one transaction that no other process comes between."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with contextlib.closing(
        sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)
    ) as database:
        database.execute("pragma synchronous=off")
        database.execute("begin immediate")
        yield database
        database.execute("commit")


def _rules(database: sqlite3.Connection) -> dict[str, str]:
    return dict(database.execute("select name, value from rule"))


def _count(database: sqlite3.Connection, where: str, *values: object) -> int:
    (count,) = database.execute(f"select count(*) from machine where {where}", values).fetchone()
    return int(count)


def _set(database: sqlite3.Connection, name: str, state: str, message: str) -> None:
    database.execute(
        "update machine set state = ?, message = ?, pid = ? where name = ?",
        (state, message, os.getpid() if state == RESTARTING else 0, name),
    )


def _used_up(failed: int, allowed: int) -> str:
    return f"the budget is used up: {failed} failed, and {allowed} may"


def _stop(database: sqlite3.Connection, why: str) -> None:
    database.execute("update rule set value = ? where name = 'stopped' and value = ''", (why,))


def take(path: Path, name: str) -> tuple[str, str]:
    """Ask for the restart of a machine, and wait until it may begin. Returns its state and a
    message: `restarting`, when it may; else the state that it stays in."""
    while True:
        if is_orphan():
            return STOPPED, "not restarted: the controller is gone"
        with _changing(path) as database:
            found = database.execute(
                "select state, message, wave from machine where name = ?", (name,)
            ).fetchone()
            if found is None:
                return STOPPED, "the roll-out does not know this machine"
            state, message, wave = found
            if state != WAITING:
                return state, message
            _count_the_dead(database)
            answer = _may_begin(database, wave)
            if answer is not None:
                _set(database, name, *answer)
                return answer
        time.sleep(LOOK_AGAIN_S)


def _why_stopped(database: sqlite3.Connection) -> str:
    """Why nobody restarts any more; empty: somebody may."""
    rules = _rules(database)
    if not rules["stopped"] and not in_window(
        rules["window"], dt.datetime.now().astimezone().time()
    ):
        _stop(database, f"it is outside of the window {rules['window']}")
        rules = _rules(database)
    return rules["stopped"]


def go_on(path: Path) -> str:
    """Ask for one more restart of a machine that is restarting: for its next step. Returns why it
    must not be; empty: it may."""
    if is_orphan():
        return "the controller is gone"
    with _changing(path) as database:
        return _why_stopped(database)


def _may_begin(database: sqlite3.Connection, wave: int) -> tuple[str, str] | None:
    """The state that a waiting machine of that wave gets; None: it has to wait."""
    if why := _why_stopped(database):
        return STOPPED, f"not restarted: {why}"
    rules = _rules(database)
    if _count(database, "wave < ? and state in (?, ?)", wave, WAITING, RESTARTING):
        return None
    used = _count(database, "state in (?, ?, ?)", FAILED, FAILED_BEFORE, RESTARTING)
    return (RESTARTING, "") if used < int(rules["budget"]) else None


def _count_the_dead(database: sqlite3.Connection) -> None:
    """Count a machine as failed whose worker is gone: nobody will tell how its restart went."""
    rows = database.execute("select name, pid from machine where state = ?", (RESTARTING,))
    for name, pid in rows.fetchall():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            _failed(database, name, "the process that restarted it is gone")


def _failed(database: sqlite3.Connection, name: str, message: str) -> None:
    """Write down a failure, and stop where it is one too many."""
    _set(database, name, FAILED, message)
    rules = _rules(database)
    (wave,) = database.execute("select wave from machine where name = ?", (name,)).fetchone()
    failed = _count(database, "state in (?, ?)", FAILED, FAILED_BEFORE)
    if failed >= int(rules["budget"]):
        _stop(database, _used_up(failed, int(rules["budget"])))
    elif wave < int(rules["canary_waves"]):
        _stop(database, f"the canary {name} has failed")


def give(path: Path, name: str, *, updated: bool, message: str) -> None:
    """Tell how the restart of a machine went."""
    with _changing(path) as database:
        if updated:
            _set(database, name, UPDATED, message)
        else:
            _failed(database, name, message)


def leave(path: Path, name: str, why: str, state: str = STOPPED) -> None:
    """Take back that a machine may restart, or restart once more: it is no failure."""
    with _changing(path) as database:
        _set(database, name, state, why)


def summary(path: Path) -> dict[str, Any]:
    """What the ledger says: counts by state, each machine, the rules, and why it was stopped."""
    with _changing(path) as database:
        rules = _rules(database)
        rows = database.execute("select name, wave, state, message from machine order by place")
        machines: dict[str, Mapping[str, Any]] = {
            name: {"wave": wave if wave >= 0 else None, "state": state, "message": message or None}
            for name, wave, state, message in rows
        }
    states = [each["state"] for each in machines.values()]
    return {
        "budget": int(rules["budget"]),
        "canary_waves": int(rules["canary_waves"]),
        "window": rules["window"] or None,
        "waves": json.loads(rules["waves"]),
        "stopped": rules["stopped"] or None,
        "counts": {state: states.count(state) for state in sorted(set(states))},
        "machines": machines,
    }


def is_over(path: Path) -> bool:
    """Whether no machine waits or restarts any more."""
    with _changing(path) as database:
        return not _count(database, "state in (?, ?)", WAITING, RESTARTING)
