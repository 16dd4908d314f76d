# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The ledger of one run of a roll-out: who may restart now, and what came of it.

Theory of operation. Ansible's workers are processes that know nothing of each other, and its own
limits count failures only when a whole batch is over. So each restart asks here first, in one
transaction, and tells afterwards how it went:

    waiting ──take──► restarting ──give──► updated | failed
       │  ▲              ├── leave ──► stopped | not_staged
       │  └──────────────┘ (its controller is gone)
       └────take, pass_over──► stopped

A restart may begin when its wave is open (all machines of the waves before have ended) and when
fewer machines are failed or restarting than the budget allows: so never more than the budget fail,
whatever happens to those that restart at the same time. Where the budget is used up, or a machine
of a canary wave has failed, nobody else begins. A machine with several steps stays `restarting`
from the first to the last, and asks before each further one whether it may `go_on`.

The ledger is no truth: that is on the machines. A run makes its ledger anew from what the machines
say, and takes over from the run before what no machine says any more (`memory`): who has died, who
is not in this play, and whom a worker of a controller that was killed restarts still.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.openrbu.firmware.plugins.plugin_utils.memory import joined, remembered
from ansible_collections.openrbu.firmware.plugins.plugin_utils.orphans import is_orphan
from ansible_collections.openrbu.firmware.plugins.plugin_utils.processes import (
    is_alive,
    this_process,
)
from ansible_collections.openrbu.firmware.plugins.plugin_utils.states import (
    AS_WANTED,
    FAILED,
    FAILED_BEFORE,
    NOT_IN_POLICY,
    NOT_STAGED,
    PINNED,
    RESTARTING,
    STOPPED,
    TOLD_APART,
    UP_TO_DATE,
    UPDATED,
    WAITING,
    Entry,
)

__all__ = [
    "AS_WANTED",
    "FAILED_BEFORE",
    "NOT_IN_POLICY",
    "NOT_STAGED",
    "PINNED",
    "TOLD_APART",
    "UP_TO_DATE",
    "WAITING",
]

LOOK_AGAIN_S = 0.1
BUSY_S = 600.0

_TABLES = (
    "drop table if exists machine",
    "drop table if exists rule",
    "drop table if exists speaker",
    """create table machine (name text primary key, place integer, wave integer, state text,
       process text, message text, updated_at text, restart text)""",
    "create index by_state on machine (state, wave)",
    "create table rule (name text primary key, value text)",
    "create table speaker (message text primary key, name text)",
)

_TIME = r"([01]\d|2[0-3]):([0-5]\d)"
_WINDOW = re.compile(rf"{_TIME}-{_TIME}")


def share_of(what: object, count: int) -> int:
    """A number of machines, written as such or as a share of `count` such as `1%`; at least one.

    :raise ValueError: when it is neither, or none, or more than all.
    """
    found = re.fullmatch(r"(\d+)(\s*%)?", str(what).strip())
    if found is None:
        raise ValueError(f"it is a number of machines or a share such as 10%: {what!r}")
    number = int(found[1])
    if number == 0:
        raise ValueError(f"it is one machine or more, or a share from 1% to 100%: {what!r}")
    if not found[2]:
        return number
    if number > 100:
        raise ValueError(f"a share is 100% or less: {what!r}")
    return max(1, count * number // 100)


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
    """Whether `now` is in a window such as `22:00-04:30`; an empty one is always open. As in a
    policy (`openrbu.policy.windows`; a test compares the two, because a controller needs no
    openrbu): one that ends at or before its begin ends on the next day."""
    found = _WINDOW.fullmatch(window)
    if found is None:
        return not window
    begin, end = (dt.time(int(found[at]), int(found[at + 1])) for at in (1, 3))
    return begin <= now < end if begin < end else now >= begin or now < end


def open_ledger(
    path: Path,
    entries: Iterable[Entry],
    *,
    waves: Iterable[object],
    budget: object,
    canary_waves: int,
    window: str = "",
    inventory: Collection[str] | None = None,
) -> dict[str, Any]:
    """Begin a run: make the ledger anew, from these machines and from what an earlier run's knows.
    `inventory`: all hosts that there are. Of these, and not of those that happen to wait or to take
    part, a budget may be a share: so it is the same in each run. Returns the summary.

    :raise ValueError: when waves, budget or window are not valid, or the ledger is damaged.
    """
    check_window(window)
    try:
        with _changing(path, "rwc") as database:
            machines = joined(list(entries), remembered(database), inventory)
            waiting = [each.name for each in machines if each.state == WAITING]
            sizes = wave_sizes(waves, len(waiting))
            allowed = share_of(budget, len(machines))
            failed = sum(each.state == FAILED_BEFORE for each in machines)
            rules = {
                "budget": allowed,
                "canary_waves": canary_waves,
                "window": window,
                "waves": json.dumps(sizes),
                "stopped": _used_up(failed, allowed) if failed >= allowed else "",
            }
            _write(database, machines, sizes, rules)
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"{path} can't be read ({error}): who has failed before is not known. Without the file "
            "a roll-out begins anew"
        ) from error
    return summary(path)


def _write(
    database: sqlite3.Connection,
    machines: Iterable[Entry],
    sizes: Iterable[int],
    rules: Mapping[str, object],
) -> None:
    """Write a whole ledger, in place of what it was. The waiting machines are in waves of `sizes`,
    all others in none (-1)."""
    for statement in _TABLES:
        database.execute(statement)
    waves = iter([number for number, size in enumerate(sizes) for _dummy in range(size)])
    database.executemany(
        "insert into machine values (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                each.name,
                place if each.takes_part else -1,
                next(waves) if each.state == WAITING else -1,
                each.state,
                each.process,
                each.message,
                each.updated_at,
                each.restart,
            )
            for place, each in enumerate(machines)
        ],
    )
    database.executemany("insert into rule values (?, ?)", list(rules.items()))


@contextlib.contextmanager
def _changing(path: Path, mode: str = "rw") -> Iterator[sqlite3.Connection]:
    """The ledger, for one transaction that no other process comes between."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
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
        "update machine set state = ?, message = ?, process = ? where name = ?",
        (state, message, this_process() if state == RESTARTING else "", name),
    )
    if state == UPDATED:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        database.execute("update machine set updated_at = ? where name = ?", (now, name))


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
                return NOT_STAGED, "the roll-out does not know this machine"
            state, message, wave = found
            if state not in (WAITING, RESTARTING):
                return state, message
            _count_the_dead(database)
            # Where it restarts, a worker of an earlier run does that: it is waited for.
            answer = _may_begin(database, wave) if state == WAITING else None
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


def was_of_another(path: Path, name: str) -> bool:
    """Whether a worker of an earlier run had this machine when this run began. What that has made
    of it, no staging of this run has seen."""
    with _changing(path) as database:
        return bool(_count(database, "name = ? and wave < 0", name))


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
    rows = database.execute("select name, process from machine where state = ?", (RESTARTING,))
    for name, process in rows.fetchall():
        if not is_alive(process):
            _failed(database, name, "the process that restarted it is gone")


def _failed(database: sqlite3.Connection, name: str, message: str) -> None:
    """Write down a failure, and stop where it is one too many."""
    _set(database, name, FAILED, message)
    rules = _rules(database)
    (wave,) = database.execute("select wave from machine where name = ?", (name,)).fetchone()
    failed = _count(database, "state in (?, ?)", FAILED, FAILED_BEFORE)
    if failed >= int(rules["budget"]):
        _stop(database, _used_up(failed, int(rules["budget"])))
    elif 0 <= wave < int(rules["canary_waves"]):
        _stop(database, f"the canary {name} has failed")


def give(
    path: Path,
    name: str,
    *,
    updated: bool,
    message: str,
    restart: Mapping[str, Any] | None = None,
) -> None:
    """Tell how the restart of a machine went. `restart`: what is kept of it for the summary."""
    with _changing(path) as database:
        if restart is not None:
            text = json.dumps(restart)
            database.execute("update machine set restart = ? where name = ?", (text, name))
        if updated:
            _set(database, name, UPDATED, message)
        else:
            _failed(database, name, message)


def leave(path: Path, name: str, why: str, state: str = STOPPED) -> None:
    """Take back that a machine may restart, or restart once more: it is no failure. `WAITING`: an
    orphan leaves it to the next run, which may have begun and wait for it."""
    with _changing(path) as database:
        _set(database, name, state, why)


def pass_over(path: Path, name: str, why: str) -> tuple[str, str]:
    """Let a machine go that waits, and for which nobody can ask: others wait for it. Where it is a
    canary, nobody restarts. Returns its state and a message."""
    with _changing(path) as database:
        found: tuple[str, str, int] | None = database.execute(
            "select state, message, wave from machine where name = ?", (name,)
        ).fetchone()
        if found is None or found[0] != WAITING:
            return found[:2] if found else (STOPPED, why)
        _set(database, name, STOPPED, why)
        if found[2] < int(_rules(database)["canary_waves"]):
            _stop(database, f"the canary {name} was not restarted")
        return STOPPED, why


def speaks_for_all(path: Path, name: str, message: str) -> bool:
    """Whether this machine, which was not restarted for this reason, is the one that says so: the
    first that asks here with that reason."""
    with _changing(path) as database:
        database.execute("insert or ignore into speaker values (?, ?)", (message, name))
        (first,) = database.execute(
            "select name from speaker where message = ?", (message,)
        ).fetchone()
        return bool(first == name)


def summary(path: Path) -> dict[str, Any]:
    """What the ledger says: counts by state, each machine, the rules, and why it was stopped."""
    with _changing(path) as database:
        rules = _rules(database)
        rows = database.execute(
            "select name, wave, state, message, updated_at, restart, place from machine "
            "order by place < 0, place, name"
        )
        machines: dict[str, Mapping[str, Any]] = {
            name: {
                "wave": wave if wave >= 0 else None,
                "state": state,
                "message": message or None,
                "updated_at": updated_at or None,
                "restart": json.loads(restart) if restart else None,
                "takes_part": place >= 0,
            }
            for name, wave, state, message, updated_at, restart, place in rows
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
