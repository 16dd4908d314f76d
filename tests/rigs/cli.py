"""The command line under test: in this process for speed, as a process where it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openrbu.balloon.clock import Clock
from openrbu.cli.main import main
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.units import KIB
from rigs.schemas import check_output

FLASH_BYTES = 512 * KIB
"""The flash of a PowerEdge 2650, which most tests update."""

RBU = (sys.executable, "-c", "import sys; from openrbu.cli.main import entry; sys.exit(entry())")
"""`rbu` as a process, wherever it is installed."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Cli:
    """Runs `rbu` with a home of its own and its own directory to work in. `clock` is what balloon
    commands go by; None: this computer's."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.clock: Clock | None = None
        self._capsys = capsys

    def __call__(self, *words: object) -> ProcessResult:
        """Run a command in this process. With `--json` it has to say what its schema says."""
        self._capsys.readouterr()
        line = [str(word) for word in words]
        code = main(line, clock=self.clock)
        captured = self._capsys.readouterr()
        check_output(line, captured.out)
        return ProcessResult(code, captured.out, captured.err)

    def json(self, *words: object, code: int = 0) -> Any:
        """Run a command with `--json`, which has to end with `code`; what it says. Who says it, and
        when, is left out: of one state, two documents are equal then."""
        document = self.told(*words, code=code)
        document.pop("said", None)
        return document

    def told(self, *words: object, code: int = 0) -> Any:
        """The same with `said`."""
        ended = self(*words, "--json")
        assert ended.code == code, ended
        return ended.document

    def fails(self, code: int, *words: object) -> str:
        """Run a command that has to fail: nothing but one line is said. The line."""
        ended = self(*words)
        assert (ended.code, ended.out) == (code, ""), ended
        assert ended.err.startswith("rbu: ")
        assert ended.err.endswith("\n")
        assert ended.err.count("\n") == 1
        return ended.err

    def process(self, *words: object, **how: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command as a process; standard output and error are pipes."""
        command = [*RBU, *map(str, words)]
        return subprocess.run(command, capture_output=True, check=False, cwd=self.directory, **how)

    @property
    def files(self) -> list[str]:
        """What is in the working directory."""
        return names_in(self.directory)

    def write(self, name: str, data: bytes) -> Path:
        """A file to give to a command."""
        path = self.directory / name
        path.write_bytes(data)
        return path

    def image(
        self,
        version: str = "A06",
        *,
        system: int = 0x0121,
        size_bytes: int = FLASH_BYTES,
        name: str = "image.hdr",
    ) -> Path:
        """An image file."""
        return self.write(name, image_bytes(version, system=system, size_bytes=size_bytes))


def names_in(directory: Path) -> list[str]:
    """What is in a directory, sorted."""
    return sorted(each.name for each in directory.iterdir())


def image_bytes(
    version: str = "A06", *, system: int = 0x0121, size_bytes: int = FLASH_BYTES, filling: int = 0
) -> bytes:
    """An image; those of different `filling` (0 to 255) differ in their data."""
    block = version.encode().ljust(511, b"\xff") + bytes([filling])
    return make_image(
        block * (size_bytes // 512), version=BiosVersion.parse(version), systems=[SystemId(system)]
    )
