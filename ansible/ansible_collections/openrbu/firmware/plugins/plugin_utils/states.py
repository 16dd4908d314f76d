# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The states of a machine in the ledger of a roll-out."""

from __future__ import annotations

from typing import Any, NamedTuple

WAITING, RESTARTING = "waiting", "restarting"
UPDATED, FAILED, STOPPED = "updated", "failed", "stopped"
UP_TO_DATE, NOT_STAGED, FAILED_BEFORE = "up_to_date", "not_staged", "failed_before"
PINNED, NOT_IN_POLICY = "pinned", "not_in_policy"

AS_WANTED = (UP_TO_DATE, PINNED)
"""With nothing to do, as the image or the policy wants it."""
TOLD_APART = (FAILED_BEFORE, NOT_IN_POLICY)
"""Not staged, for a reason that is counted apart: `NOT_STAGED` may keep a run from beginning."""


class Entry(NamedTuple):
    """A machine when the run begins: its name, its state, and what is to be said of it. `process`:
    who restarts it. `updated_at`: when this roll-out has updated it (UTC), if it has. `takes_part`:
    it is in this play. `restart`: what is kept of its last restart by this roll-out, as JSON."""

    name: str
    state: str
    message: str = ""
    process: str = ""
    updated_at: str = ""
    restart: str = ""
    takes_part: bool = True


def is_staged(result: dict[str, Any]) -> bool:
    """Whether a result of bios_stage is no failure. The role takes failures as such off (Ansible
    would print them whole), so that `failed` of a result says nothing."""
    return "state" in result and not result.get("unreachable")
