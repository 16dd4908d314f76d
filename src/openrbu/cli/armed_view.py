"""How it is shown whether a BIOS is armed, with what the next restart will do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrbu.cli.identity import machine_words
from openrbu.cli.show import Cell, bad, caution

if TYPE_CHECKING:
    from openrbu.api import Machine
    from openrbu.update.report import UpdateStatus


def armed_cell(machine: Machine, now: UpdateStatus) -> Cell:
    """Whether the BIOS is armed, with what the next restart will do."""
    from openrbu.update.own_memory import moved_advice, moved_text
    from openrbu.update.report import NextRestart

    cancel = f"rbu cancel{machine_words(machine)} undoes it"
    advice = moved_advice(sees_memory=now.sees_memory)
    words: dict[NextRestart, Cell] = {
        NextRestart.UNKNOWN: f"can't be read: {now.token_problem}",
        NextRestart.CHANGES_NOTHING: _unarmed_cell(machine, now),
        NextRestart.UPDATES: caution(
            "yes: the next restart updates the BIOS"
            if now.is_verified
            else "yes, by another program: at the next restart the BIOS searches for an update"
        ),
        NextRestart.FINDS_NOTHING: bad(
            "yes, but nothing is staged: the next restart finds no image (0x000d), or one that is "
            f"still in freed memory; {cancel}"
        ),
        NextRestart.FINDS_ANOTHER: bad(
            f"yes, but something else is staged than was verified and armed; {cancel}"
        ),
        NextRestart.MEMORY_MOVED: bad(
            f"yes, but {moved_text(now.moved)}; {cancel}, then {advice}" if now.moved else "yes"
        ),
        NextRestart.TAKES_NO_PACKETS: bad(
            "yes, but packets are staged, and this machine's BIOS takes none: the next restart "
            f"finds no image (0x000d); {cancel}"
        ),
        NextRestart.SKIPS_BIOS: caution(f"yes, but {now.detour}"),
        NextRestart.CLEARS_MEMORY: caution(f"yes, but {now.restart_problem}"),
        NextRestart.IGNORES_TOKEN: bad(
            f"the token is set, but the BIOS will ignore it at the next restart; {cancel}"
        ),
    }
    if now.next_restart is NextRestart.UNKNOWN and now.cmos_doubt:
        return "can't be read: see below"
    return words[now.next_restart]


def _unarmed_cell(machine: Machine, now: UpdateStatus) -> Cell:
    """That the BIOS is not armed, and what waits for that."""
    from openrbu.update.report import UpdateState

    words = machine_words(machine)
    if now.state is UpdateState.STAGED:
        return caution(f"no: staged, not armed; rbu arm{words} arms it, rbu cancel{words} frees it")
    if now.state is UpdateState.STAGED_CHANGED:
        return bad(
            "no, and what is staged is not what was verified, so it can't be armed; "
            f"rbu cancel{words}, then update again"
        )
    return "no"
