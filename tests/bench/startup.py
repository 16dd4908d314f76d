"""What a command costs before and after its work: the CPU time of whole processes.

CPU time and not the time on the clock, which other programs of the computer make longer. A command
loads bytecode that is there already (`make setup` compiles it), whatever the environment says; but
for those of `UNCOMPILED_WISHES`, which are a tree of sources where nothing compiled is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import openrbu
from bench import cases
from openrbu.units import MIB

MACHINES = ("one", "two", "three")

RBU = str(Path(sys.executable).with_name("rbu"))

PYTHON = "python -c pass"

WISHES = {
    "rbu --version": 3.0,
    "rbu info": 11.0,
    "rbu status": 11.0,
    "rbu plan": 11.0,
    "rbu machine list": 11.0,
}
"""How many times the CPU time of `python -c pass` a command may take: 11 times is 120 ms where the
issue was written."""

UNCOMPILED_WISHES = {"rbu info": 10.0, "rbu status": 25.0, "rbu plan": 29.0}
"""The same where each source of openrbu that is loaded is compiled, as in some containers."""

UNCOMPILED = ", uncompiled"

OTHERS = {"fwupdtool": ("fwupdtool", "--version"), "smbios-sys-info": ("smbios-sys-info",)}
"""Programs of others for the same machines, timed where they are installed."""

BESIDE = (("rbu --version", "fwupdtool", 1.0), ("rbu status", "smbios-sys-info", 3.0))
"""Which command is held against which of them, and the highest ratio that is wanted.
`smbios-sys-info` ends early on a computer that has no SMBIOS tables of Dell's."""

Command = tuple[str, ...]


class Home:
    """A directory with three machines that are on, and an image of 1 MiB for them."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.image = directory / "image.hdr"
        cases.write_image(self.image, MIB, "poweredge-2650")
        self.environment = {**os.environ, "OPENRBU_HOME": str(directory / "home")}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.uncompiled = {
            **self.environment,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(directory / "src"),
        }
        shutil.copytree(
            Path(openrbu.__file__).parent,
            directory / "src" / "openrbu",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        for name in MACHINES:
            self.run((RBU, "machine", "new", name))

    def run(self, command: Command) -> None:
        subprocess.run(command, check=True, capture_output=True, env=self.environment)

    @property
    def commands(self) -> Mapping[str, Command]:
        """What is timed, by its name in the table."""
        image, machine = str(self.image), MACHINES[0]
        return {
            PYTHON: (sys.executable, "-c", "pass"),
            "rbu --version": (RBU, "--version"),
            "rbu info": (RBU, "info", image),
            "rbu status": (RBU, "status", "--machine", machine),
            "rbu plan": (RBU, "plan", image, "--machine", machine),
            "rbu machine list": (RBU, "machine", "list"),
            **{name: words for name, words in OTHERS.items() if shutil.which(words[0])},
        }

    def cpu_seconds(self, rounds: range) -> dict[str, float]:
        """The least CPU time of each command, user and system, the commands taking turns."""
        what = {name: (command, self.environment) for name, command in self.commands.items()}
        for name in UNCOMPILED_WISHES:
            what[name + UNCOMPILED] = self.commands[name], self.uncompiled
        least = dict.fromkeys(what, float("inf"))
        for _ in rounds:
            for name, (command, environment) in what.items():
                least[name] = min(least[name], self._cpu_s(command, environment))
        return least

    def _cpu_s(self, command: Command, environment: Mapping[str, str]) -> float:
        nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
        pid = os.posix_spawnp(command[0], command, environment, file_actions=nowhere)
        _, _, usage = os.wait4(pid, 0)
        return usage.ru_utime + usage.ru_stime
