"""What happens on a lab machine as its operator does and sees it, and its RAM from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.version import BiosVersion
from openrbu.machine.models import MODELS
from openrbu.memory.scan import SearchResult, search
from rigs.lab import Lab
from rigs.needs import program
from rigs.schemas import check_output

if TYPE_CHECKING:
    from openrbu.lab.machine import LabMachine

MODEL = "precision-390"

HOLD = """\
import mmap, subprocess, sys
path, *command = sys.argv[1:]
data = open(path, "rb").read().translate(bytes(range(255, -1, -1)))
size = -(-len(data) // (2 << 20)) * (2 << 20)
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
memory[: len(data)] = data
status = subprocess.call(command)
memory[: len(data)] = bytes(len(data))
sys.exit(status)
"""
"""Holds what a file has, inverted, in huge pages (MAP_HUGETLB) while a command runs; clears them
then. Inverted, because else the page cache held it, too."""


class Story:
    """A machine that is up; files for it go into `directory`, which its guest sees, too."""

    def __init__(self, lab: Lab, machine: LabMachine, directory: Path) -> None:
        self._lab, self.machine, self._directory = lab, machine, directory
        self.old = machine.flash.current.version

    # -- images -----------------------------------------------------------------------------

    def newer(self, steps: int = 1) -> str:
        """A version that is newer than the machine's: later ones the more `steps`."""
        start, _, last = self.old.rpartition(".")
        return f"{start}.{int(last) + steps}"

    def image(self, version: str, *, system: int = MODELS[MODEL].system_id) -> bytes:
        bios = self._lab.bios(version, flash_bytes=self.machine.flash.size_bytes)
        return make_image(bios, version=BiosVersion.parse(version), systems=[SystemId(system)])

    def file(self, name: str, data: bytes) -> str:
        path = self._directory / name
        path.write_bytes(data)
        return str(path)

    def holding(self, name: str, data: bytes, *command: str) -> tuple[str, ...]:
        """The words that run a command while a program holds `data` in memory."""
        inverted = self.file(name, data.translate(bytes(range(255, -1, -1))))
        return (sys.executable, "-c", HOLD, inverted, *command)

    # -- programs in the guest --------------------------------------------------------------

    def tries(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program that does not end the machine."""
        said: dict[int, bytes] = {1: b"", 2: b""}

        def take(stream: int, data: bytes) -> None:
            said[stream] += data

        ran = self.machine.run(argv, output=take)
        assert ran.status is not None, "the machine was restarted"
        return subprocess.CompletedProcess(argv, ran.status, said[1].decode(), said[2].decode())

    def says(self, *argv: str) -> str:
        """What a program that works writes to standard output."""
        done = self.tries(*argv)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def shell(self, line: str) -> str:
        return self.says("sh", "-euc", line)

    def rbu(self, *words: str, status: int = 0) -> Any:
        """What `rbu … --json` says."""
        done = self.tries("rbu", *words, "--json")
        assert done.returncode == status, done
        check_output([*words, "--json"], done.stdout)
        return json.loads(done.stdout)

    def start_kernel(self, *argv: str) -> None:
        """Run a program that starts another kernel in the guest, without a restart."""
        from openrbu.lab import boot

        self.machine.guest.run_until_up(argv, env=boot.environment())

    def until_restart(self, *argv: str) -> str:
        """Run a program until the machine asks for its restart, where it stands still, RAM as it
        was left. What the program had said."""
        from openrbu.lab import boot
        from openrbu.lab.guest import RESET, GuestStoppedError

        said = bytearray()
        status: int | str
        environment = boot.environment()
        try:
            status = self.machine.guest.run(
                argv, env=environment, output=lambda stream, data: said.extend(data)
            )
        except GuestStoppedError as stopped:
            status = stopped.reason
        assert status == RESET, said.decode()
        return said.decode()

    # -- from outside -----------------------------------------------------------------------

    @property
    def journal(self) -> Sequence[dict[str, Any]]:
        """The events in the guest's own journal."""
        path = self.machine.directory / "disk" / "openrbu" / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def search(self) -> SearchResult:
        """What a BIOS would find in RAM now."""
        return search(self.machine.ram, flash_size_bytes=self.machine.flash.size_bytes)

    def versions(self) -> tuple[str | None, str, str, str]:
        """The BIOS's version: by its own words on the console, in the guest's sysfs, by dmidecode,
        and in the flash."""
        return (
            self.machine.bios_on_console,
            self.shell("cat /sys/class/dmi/id/bios_version").strip(),
            self.says(program("dmidecode", "dmidecode"), "-s", "bios-version").strip(),
            self.machine.flash.current.version,
        )


def packets(image: bytes) -> bytes:
    """The same image in packets of 4 KiB, as a packet file has them."""
    return bytes(split(image, set_id=0x4C4142))
