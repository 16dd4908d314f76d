# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""What a run of a roll-out takes over from the ledger of the runs before it.

The truth is on the machines. But a machine that died in an earlier run says nothing any more, and a
machine that this run has not to do with (`--limit`) is not asked. Those have failed as long as
nothing newer is heard of them: otherwise each run would have a budget of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

from ansible_collections.openrbu.firmware.plugins.plugin_utils.processes import is_alive
from ansible_collections.openrbu.firmware.plugins.plugin_utils.states import (
    FAILED,
    FAILED_BEFORE,
    RESTARTING,
    STOPPED,
    UP_TO_DATE,
    WAITING,
    Entry,
)

_SINCE = "; now: "
_NOBODY_HEARD = "its restart had begun when the controller died, and nobody has heard how it ended"


def remembered(database: sqlite3.Connection) -> dict[str, Entry]:
    """The machines in a ledger, as its last run left them.

    :raise sqlite3.Error: when it is damaged.
    """
    has_tables = database.execute("select 1 from sqlite_master where name = 'machine'").fetchone()
    if not has_tables:
        return {}
    rows = database.execute(
        "select name, state, message, process, updated_at, restart from machine"
    )
    return {row[0]: Entry(*row) for row in rows}


def joined(
    entries: Sequence[Entry], past: Mapping[str, Entry], inventory: Collection[str] | None = None
) -> list[Entry]:
    """What staging has found on each machine of this run, and what the runs before have seen of it
    and of others. `inventory`: all hosts that there are; None: all that were ever seen.

    A machine that is in no inventory any more is forgotten, but for one that has failed.
    """
    now = [_since(entry, past[entry.name]) if entry.name in past else entry for entry in entries]
    here = {entry.name for entry in entries}
    others = [_left_out(old) for name, old in past.items() if name not in here]
    known = None if inventory is None else set(inventory)
    return now + [
        each
        for each in others
        if known is None or each.name in known or each.state in (FAILED_BEFORE, RESTARTING)
    ]


def _since(entry: Entry, old: Entry) -> Entry:
    """A machine that an earlier run has seen, too."""
    entry = entry._replace(updated_at=old.updated_at, restart=old.restart)
    if old.state == RESTARTING and is_alive(old.process):
        message = "a worker of an earlier run restarts it"
        return entry._replace(state=RESTARTING, message=message, process=old.process)
    if old.state == RESTARTING or old.state in (FAILED, FAILED_BEFORE):
        if entry.state in (WAITING, UP_TO_DATE, FAILED_BEFORE):
            return entry  # the machine itself knows better
        why = _how(old)
        return entry._replace(state=FAILED_BEFORE, message=why + _SINCE + entry.message)
    return entry


def _left_out(old: Entry) -> Entry:
    """A machine that is not in this play."""
    entry = old._replace(takes_part=False)
    if old.state == RESTARTING and is_alive(old.process):
        return entry
    if old.state in (RESTARTING, FAILED, FAILED_BEFORE):
        return entry._replace(state=FAILED_BEFORE, message=_how(old), process="")
    if old.state == WAITING:
        return entry._replace(state=STOPPED, message="not restarted: it was left out")
    return entry


def _how(old: Entry) -> str:
    """How a machine has failed, without what later runs have added."""
    if old.state == RESTARTING:
        return _NOBODY_HEARD
    return old.message.partition(_SINCE)[0]
