"""Virtual machines as hosts of the real ansible-playbook."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrbu.units import MIB
from rigs.machines import FLASH_BYTES, image_bytes, make, running
from rigs.needs import leave_out

ROOT = Path(__file__).parents[2]
COLLECTIONS = ROOT / "ansible"
ANSIBLE = Path(os.environ.get("OPENRBU_ANSIBLE", ROOT / "build/ansible/bin"))
"""The directory of ansible-playbook: `make ansible` sets it up."""

PLUGIN_UTILS = "ansible_collections.openrbu.firmware.plugins.plugin_utils"
INVENTORY = "fleet.openrbu.yml"


def plugin_util(name: str) -> Any:
    """A module of the collection's `plugin_utils`."""
    sys.path.insert(0, str(COLLECTIONS))
    try:
        return importlib.import_module(f"{PLUGIN_UTILS}.{name}")
    finally:
        sys.path.remove(str(COLLECTIONS))


def flash_of(model: str) -> int:
    """The size of these machines' flash: small, but where the model's real BIOS knows its own."""
    return MIB if model in ("poweredge-2950", "latitude-d500") else FLASH_BYTES


def made_image(model: str, version: str | None = None, seed: int = 1) -> bytes:
    """An image for that flash."""
    return image_bytes(model, version, seed=seed, flash_size_bytes=flash_of(model))


@dataclass(frozen=True, slots=True)
class Played:
    """How a run of ansible-playbook ended: what it printed, and each result that callbacks saw."""

    code: int
    out: str
    results: Sequence[Mapping[str, Any]]

    def of(self, host: str, task: str = "") -> Mapping[str, Any]:
        """The one result of a host, in the task whose name ends so."""
        found = [
            each for each in self.results if each["host"] == host and each["task"].endswith(task)
        ]
        assert len(found) == 1, [(each["host"], each["task"]) for each in self.results]
        result: Mapping[str, Any] = {"outcome": found[0]["outcome"], **found[0]["result"]}
        return result


class Fleet:
    """Machines in a directory of their own, and playbooks for them."""

    def __init__(self, directory: Path) -> None:
        if not (ANSIBLE / "ansible-playbook").exists():
            leave_out("there is no Ansible in build/ansible: make ansible")
        self.directory = directory
        self.home = directory / "home"
        (directory / INVENTORY).write_text(
            f"plugin: openrbu.firmware.machines\nhome: {self.home}\n", "utf-8"
        )
        (directory / "ansible.cfg").write_text(
            "[defaults]\n"
            f"collections_path = {COLLECTIONS}\n"
            f"callback_plugins = {COLLECTIONS / 'tests/callback'}\n"
            "log_path = ansible.log\n"
            "retry_files_enabled = false\n"
            "[inventory]\n"
            "enable_plugins = openrbu.firmware.machines\n",
            "utf-8",
        )

    def machine(self, name: str, model: str = "poweredge-2650", **spec: Any) -> Path:
        """Make a machine, and switch it on. Returns its directory."""
        spec = {"flash_size_bytes": flash_of(model)} | spec
        directory = make(self.home, model, name=name, **spec)
        with running(directory):
            return directory

    def image(self, version: str = "A06", model: str = "poweredge-2650") -> Path:
        """An image for that model's flash."""
        path = self.directory / f"{model}-{version}.hdr"
        path.write_bytes(made_image(model, version))
        return path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that ansible-playbook is run with."""
        keep = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        keep.pop("OPENRBU_HOME", None)
        return keep | {
            "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.directory / "ansible-home"),
            "PATH": f"{ANSIBLE}:{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "LC_ALL": "C.UTF-8",
        }

    def command(self, playbook: str, *words: str) -> list[str]:
        """ansible-playbook with the inventory of this fleet. `playbook`: its text, or its name in a
        collection."""
        if "\n" in playbook:
            path = self.directory / "playbook.yml"
            path.write_text(playbook, "utf-8")
            playbook = str(path)
        return [str(ANSIBLE / "ansible-playbook"), "-i", INVENTORY, playbook, *words]

    def play(self, playbook: str, *words: str, code: int = 0) -> Played:
        """Run a playbook, which has to end with `code`."""
        results = self.directory / "results.jsonl"
        results.unlink(missing_ok=True)
        ended = subprocess.run(
            self.command(playbook, *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.directory,
            env=self.environment
            | {"ANSIBLE_CALLBACKS_ENABLED": "results", "RESULTS_FILE": str(results)},
            stdin=subprocess.DEVNULL,
        )
        assert ended.returncode == code, ended.stdout
        lines = results.read_text("utf-8").splitlines() if results.exists() else []
        return Played(ended.returncode, ended.stdout, [json.loads(line) for line in lines])

    def tasks(self, *tasks: str, words: Sequence[str] = (), code: int = 0) -> Played:
        """Run tasks, each a text of YAML, on all machines."""
        steps = "\n".join(
            f"    - {line}" if first else f"      {line}"
            for task in tasks
            for first, line in zip((True, *[False] * 99), task.splitlines(), strict=False)
        )
        text = f"- hosts: all\n  gather_facts: false\n  tasks:\n{steps}\n"
        return self.play(text, *words, code=code)

    def rbu(self, *words: object) -> Any:
        """What a command of rbu says with --json, whether it fails or not; but for when it was."""
        command = [sys.executable, "-m", "openrbu", *map(str, words), "--json"]
        ended = subprocess.run(
            command,
            capture_output=True,
            check=False,
            env={**os.environ, "OPENRBU_HOME": str(self.home)},
        )
        document = json.loads(ended.stdout)
        document.pop("said", None)
        return document
