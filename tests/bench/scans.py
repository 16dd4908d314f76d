"""`rbu scan` as a command, beside the tools with which one would search a dump by hand.

All read the same file, warm, and write into a pipe that is read. (A tool that sees that nobody
reads its output ends early.)
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from bench import cases
from openrbu.formats.packet import split
from openrbu.units import GIB, MIB, PAGE_SIZE

RBU = str(Path(sys.executable).with_name("rbu"))

BOTH = r"\$RPK|\$RBU"

SPARSE_BYTES = 1024 * GIB

Command = tuple[str, ...]


class Dumps:
    """A raw dump of 1 GiB with the packets of an image of 1 MiB among random bytes, and one of
    1 TiB that is a hole but for the same packets."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.dense, self.sparse = directory / "dense", directory / "sparse"
        cases.write_image(directory / "image", MIB, "precision-390")
        packets = split((directory / "image").read_bytes(), set_id=b"_A06")
        pages = random.Random(1).sample(range(GIB // PAGE_SIZE), len(packets) // PAGE_SIZE)
        with self.dense.open("wb") as file:
            for seed in range(GIB // (64 * MIB)):
                file.write(random.Random(seed).randbytes(64 * MIB))
        self.sparse.touch()
        os.truncate(self.sparse, SPARSE_BYTES)
        for path, stride in ((self.dense, 1), (self.sparse, SPARSE_BYTES // GIB)):
            with path.open("r+b") as file:
                for number, page in enumerate(pages):
                    file.seek(page * stride * PAGE_SIZE)
                    file.write(packets[number * PAGE_SIZE : (number + 1) * PAGE_SIZE])

    @property
    def commands(self) -> dict[str, Command]:
        """What is timed, by its name in the table. Tools that are not installed are left out."""
        dense = str(self.dense)
        every: dict[str, Command] = {
            "cat": ("cat", dense),
            "grep -abo": ("grep", "-aboE", BOTH, dense),
            "rg -abo": ("rg", "-abo", BOTH, dense),
            "rbu scan": (RBU, "scan", dense),
            "rbu scan --any-alignment": (RBU, "scan", dense, "--any-alignment"),
            "rbu scan of 1 TiB, nearly all a hole": (RBU, "scan", str(self.sparse)),
        }
        return {name: words for name, words in every.items() if shutil.which(words[0])}


def resident_mib(command: Command) -> float:
    """How much memory a command had at most. (A process begins with the maximum of the one that
    starts it: a small one does.)"""
    ask = "import resource; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    start = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=-3);"
    done = subprocess.run(
        (sys.executable, "-c", f"{start} {ask}", *command),
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout) / 1024


def run(command: Command) -> None:
    """Run a command to its end."""
    environment = {**os.environ, "LC_ALL": "C"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        while process.stdout.read(MIB):
            pass
    assert process.returncode == 0, command
