"""Modes, owners, times, events, and bytes by sendfile: on a mount and on a real kernel.

A program asks for all of it where the files are. What is expected was seen on Debian's 6.1.192.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest

from rigs.driver import DEVICE, FIRMWARE, NewSystem, System

pytestmark = pytest.mark.profiles("linux", in_process=False)


class Files(System, Protocol):
    """A `System` on whose files programs can be run."""

    def path(self, path: str) -> Path: ...

    def run(self, argv: Sequence[str], standard_input: str = "") -> str: ...

    def close(self) -> None: ...


@pytest.fixture
def system(new_system: NewSystem) -> Iterator[Any]:
    system: Any = new_system()
    with closing(system):
        system.load_module()
        yield system


PROGRAM = """
import errno, json, os, stat, sys

def told(call, *arguments, **more):
    try:
        return call(*arguments, **more)
    except OSError as error:
        return errno.errorcode[error.errno]

def put(path, data, offset=0):
    fd = os.open(path, os.O_WRONLY)
    try:
        return os.pwrite(fd, data, offset)
    finally:
        os.close(fd)

def get(path, fd=None):
    fd = os.open(path, os.O_RDONLY) if fd is None else fd
    with open(fd, "rb", buffering=0) as file:
        return file.read().decode("latin-1")

root = os.geteuid(), os.getegid()  # who makes a mount is the machine's root

def look(path):
    seen = os.lstat(path)
    owners = zip((seen.st_uid, seen.st_gid), root)
    return [f"{stat.S_IMODE(seen.st_mode):o}", *(0 if own == its else own for own, its in owners)]

said = {}
device, entry, asked = sys.argv[1:4]
exec(sys.stdin.read())
json.dump(said, sys.stdout)
"""


def ask(system: Files, script: str, asked: object = None) -> Any:
    """What a script has put into `said`."""
    files = [str(system.path(path)) for path in (DEVICE, FIRMWARE)]
    argv = [sys.executable, "-IS", "-c", PROGRAM, *files, json.dumps(asked)]
    return json.loads(system.run(argv, script))


UUID = "12345678-1234-1234-1234-123456789ABC"
EVENTS: dict[str, str | int] = {
    **{text: len(text) for text in ("add", "remove\n", "change\0", "move", "online", "offline")},
    **{text: len(text) for text in ("bind", "unbind", f"add {UUID}", f"add {UUID} A=1 b=c\n")},
    **dict.fromkeys(("junk", "ADD", "addx", " add", "add ", "add\n\n", "add 1", "\n"), "EINVAL"),
    **dict.fromkeys((f"add {UUID} A", f"add {UUID} ", f"add {UUID}  A=1", "x" * 5000), "EINVAL"),
}


def test_an_event_has_to_be_one(system: Files) -> None:
    script = """
for text in json.loads(asked):
    said[text] = told(put, f"{device}/uevent", text.encode())
"""
    assert ask(system, script, list(EVENTS)) == EVENTS


CHANGES = """
for name, path in (("text", f"{device}/uevent"), ("binary", f"{device}/image_type")):
    steps = said[name] = []
    for call in (
        lambda: os.chmod(path, 0o6777),
        lambda: os.chown(path, 1, 2),
        lambda: os.chmod(path, 0),
        lambda: os.close(os.open(path, os.O_RDONLY)),
        lambda: os.chmod(path, 0o200),
        lambda: put(path, b"add" if name == "text" else b"mono"),
        lambda: get(path),
        lambda: os.chown(path, *root),
        lambda: os.chmod(path, 0o644),
        lambda: os.truncate(path, 10),
        lambda: os.truncate(path, 1 << 31),
        lambda: os.utime(path, ns=(-5, 7)),
    ):
        steps.append([told(call), *look(path)])
    said[f"{name}'s times"] = [os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns]
for name in ("data", "modalias"):
    os.chmod(f"{device}/{name}", 0o666)
    said[name] = told(put, f"{device}/{name}", b"x")
os.chmod(device, 0o700)
said["directory"] = look(device)
os.chmod(device, 0o755)
said["link"] = [told(os.lchown, f"{device}/subsystem", 3, 4), *look(f"{device}/subsystem")]
"""
STEPS: list[list[Any]] = [
    [None, "6777", 0, 0],
    [None, "777", 1, 2],
    [None, "0", 1, 2],
    ["EACCES", "0", 1, 2],
    [None, "200", 1, 2],
    [3, "200", 1, 2],
    ["EACCES", "200", 1, 2],
    [None, "200", 0, 0],
    [None, "644", 0, 0],
    [None, "644", 0, 0],
    ["EFBIG", "644", 0, 0],
    [None, "644", 0, 0],
]


def test_root_changes_modes_owners_and_times(system: Files) -> None:
    said = ask(system, CHANGES)
    assert said.pop("text") == STEPS
    assert said.pop("binary") == [[4, *step[1:]] if step[0] == 3 else step for step in STEPS]
    assert said == {
        "text's times": [-5, 7],
        "binary's times": [-5, 7],
        "data": "EACCES",
        "modalias": "EIO",
        "directory": ["700", 0, 0],
        "link": [None, "777", 3, 4],
    }


VANISHED = """
reader = os.open(f"{entry}/loading", os.O_RDONLY)
there = os.open(entry, os.O_RDONLY)
before = os.fstat(reader)
put(f"{entry}/loading", b"-1")
while os.path.exists(f"{entry}/loading"):
    os.sched_yield()
said["same"] = os.fstat(reader) == before
said["read"] = told(os.pread, reader, 10, 0)
said["directory"] = [told(os.listdir, there), os.fstat(there).st_nlink]
said["in it"] = told(os.stat, "loading", dir_fd=there)
"""


def test_an_open_file_outlives_its_entry(system: Files) -> None:
    system.write(f"{DEVICE}/image_type", b"init")
    system.settle()
    assert ask(system, VANISHED) == {
        "same": True,
        "read": "ENODEV",
        "directory": [[], 2],
        "in it": "ENOENT",
    }


BYTES = """
def copied(path):
    out = os.memfd_create("copy")
    fd = os.open(path, os.O_RDONLY)
    os.fstat(fd)
    try:
        while os.sendfile(out, fd, None, 1 << 20):
            pass
    except OSError as error:
        said["refused"] = errno.errorcode[error.errno]
        os.write(out, get(path).encode("latin-1"))
    os.lseek(out, 0, 0)
    return get(path, out)

source = os.memfd_create("image")
os.write(source, bytes(range(250)) * 80)
os.lseek(source, 0, 0)
put(f"{entry}/loading", b"1")
data = os.open(f"{entry}/data", os.O_WRONLY)
said["sent"] = os.sendfile(data, source, None, 1 << 20)
reading, writing = os.pipe()
os.write(writing, b"spliced")
said["spliced"] = os.splice(reading, data, 100)
said["written"] = os.pwritev(data, [b"wri", b"", b"tten"], 3)
append = os.open(f"{entry}/data", os.O_WRONLY | os.O_APPEND)
os.write(writing, b"more")
said["appended"] = told(os.splice, reading, append, 4)
whole = bytearray(bytes(range(250)) * 80 + b"spliced")
whole[3:10] = b"written"
for name in ("data", "loading", "uevent"):
    said[name] = copied(f"{entry}/{name}") == get(f"{entry}/{name}") != ""
put(f"{entry}/loading", b"0")
while os.path.exists(f"{entry}/loading"):
    os.sched_yield()
said["staged"] = copied(f"{device}/data") == whole.decode("latin-1")
"""


def test_bytes_come_and_go_by_other_calls_than_read_and_write(system: Files) -> None:
    system.write(f"{DEVICE}/image_type", b"init")
    system.settle()
    said = ask(system, BYTES)
    assert said.pop("refused", "EINVAL") == "EINVAL"
    assert said == {
        "sent": 20_000,
        "spliced": 7,
        "written": 7,
        "appended": "EINVAL",
        **dict.fromkeys(("data", "loading", "uevent", "staged"), True),
    }
