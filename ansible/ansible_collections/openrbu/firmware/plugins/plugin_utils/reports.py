# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""What a roll-out leaves on the controller: the answers of rbu on each machine, and a summary."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ORDER = ("plan", "status", "update", "arm", "reboot", "now")
"""The answers of a machine in the order of a roll-out."""


def machine_file(directory: Path, host: str) -> Path:
    """Where the answers of a host are, for `rbu report`."""
    return directory / "machines" / (re.sub(r"[^A-Za-z0-9._-]", "_", host) + ".json")


def save_answers(directory: Path, host: str, steps: Iterable[dict[str, Any]]) -> None:
    """Save what rbu answered in each step, one document after another."""
    documents = [each for answers in steps for each in _documents(answers)]
    text = "".join(json.dumps(each, indent=1) + "\n" for each in documents)
    _save(machine_file(directory, host), text)


def _documents(answers: dict[str, Any]) -> list[Any]:
    """The answers of a step in their order. Where the plan says what prevents an update, the status
    after it is left out: of a report's answers the newest counts."""
    left_out = {"status"} if (answers.get("plan") or {}).get("error") else set()
    return [answers[name] for name in ORDER if answers.get(name) and name not in left_out]


def save_summary(directory: Path, summary: dict[str, Any]) -> None:
    _save(directory / "summary.json", json.dumps(summary, indent=1) + "\n")


def forget_answers(directory: Path, hosts: Iterable[str]) -> None:
    """Remove the answers of an earlier run, so that none of them is taken for one of this run."""
    for host in hosts:
        machine_file(directory, host).unlink(missing_ok=True)


def _save(path: Path, text: str) -> None:
    """Save a file as a whole: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, "utf-8")
    fresh.replace(path)
