# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""What a roll-out leaves on the controller: the answers of rbu on each machine, and a summary."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ORDER = ("plan", "status", "update", "arm", "reboot", "now")
"""The answers of a machine in the order of a roll-out."""
SUMMARY_S = 2.0
"""The summary is no older than that while machines restart."""


def machine_file(directory: Path, host: str) -> Path:
    """Where the answers of a host are, for `rbu report`."""
    return directory / "machines" / (re.sub(r"[^A-Za-z0-9._-]", "_", host) + ".json")


def save_answers(directory: Path, host: str, steps: Iterable[dict[str, Any]]) -> None:
    """Save what rbu answered in each step, one document after another."""
    documents = [_named(each, host) for answers in steps for each in _documents(answers)]
    _save_documents(machine_file(directory, host), documents)


def save_no_answer(directory: Path, host: str, why: str) -> None:
    """Save why there is no answer of a host, where there is none of an earlier run either: a report
    has a row for it, too."""
    path = machine_file(directory, host)
    if any("machine" in each for each in _saved(path)):
        return
    at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    said = {"command": "plan", "machine": None, "computer": host, "at": at}
    error = {"kind": "not_staged", "message": why, "exit_code": 1}
    _save(path, json.dumps({"schema": 1, "error": error, "said": said}) + "\n")


def _named(document: dict[str, Any], host: str) -> dict[str, Any]:
    """An answer under the name that a real machine has in the inventory: the computer's own, and
    its service tag, may be those of others, too. A virtual one says its name."""
    said = document.get("said") or {}
    if said.get("machine") or "computer" not in said:
        return document
    return {**document, "said": {**said, "computer": host}}


def _documents(answers: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of a step in their order. Where the plan says what prevents an update, the status
    after it is left out: of a report's answers the newest counts."""
    left_out = {"status"} if (answers.get("plan") or {}).get("error") else set()
    return [answers[name] for name in ORDER if answers.get(name) and name not in left_out]


def save_summary(directory: Path, summary: dict[str, Any]) -> None:
    _save(directory / "summary.json", json.dumps(summary, indent=1) + "\n")


def is_summary_old(directory: Path) -> bool:
    """Whether the summary should be written again while the roll-out goes on: for thousands of
    machines that is too much work for each of them."""
    try:
        return abs(time.time() - (directory / "summary.json").stat().st_mtime) > SUMMARY_S
    except OSError:
        return True


def put_away_answers(directory: Path, inventory: Iterable[str]) -> None:
    """Move the answers of hosts that are in no inventory any more to `gone`: a report of what is in
    `machines` is one of the fleet as it is."""
    known = {machine_file(directory, host).name for host in inventory}
    for path in (directory / "machines").glob("*.json"):
        if path.name not in known:
            (directory / "gone").mkdir(exist_ok=True)
            path.replace(directory / "gone" / path.name)


def has_answers(directory: Path, host: str) -> bool:
    """Whether there are answers of a host, of this run or an earlier one."""
    return machine_file(directory, host).exists()


def knows_version(directory: Path, host: str, version: object) -> bool:
    """Whether the last answer of a host is its status, and says that this version runs."""
    (last,) = _saved(machine_file(directory, host))[-1:] or [{}]
    return version is not None and (last.get("bios") or {}).get("version") == version


def _save_documents(path: Path, documents: Sequence[Any]) -> None:
    """Save answers, in place of older ones only. To those that say nothing of the machine but that
    it does not answer, what was known of it is kept."""
    if not documents:
        return
    before = _saved(path)
    if _newest(before) > _newest(documents):
        return
    if not any("machine" in each for each in documents):
        documents = [each for each in before if "machine" in each] + list(documents)
    _save(path, "".join(json.dumps(each) + "\n" for each in documents))


def _saved(path: Path) -> list[Any]:
    """The documents in a file of answers; none: there is no file, or something else is in it."""
    try:
        text = path.read_text("utf-8").strip()
        decoder, found, at = json.JSONDecoder(), [], 0
        while at < len(text):
            document, at = decoder.raw_decode(text, at)
            found.append(document)
            at += len(text[at:]) - len(text[at:].lstrip())
    except (OSError, ValueError):
        return []
    return found if all(isinstance(each, dict) for each in found) else []


def _newest(documents: Iterable[Any]) -> str:
    """When the last of these was said, as a text that sorts; empty: an old rbu said none."""
    return max((str((each.get("said") or {}).get("at", "")) for each in documents), default="")


def _save(path: Path, text: str) -> None:
    """Save a file as a whole: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, "utf-8")
    fresh.replace(path)
