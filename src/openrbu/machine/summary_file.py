"""What a list shows of a machine, kept in the machine's directory, so that a list need not open it.

Theory of operation. The file `summary` has what the machine is and its status, while no process has
the machine. The process that gets the machine's lock makes the file void before anything else
(`make_void`), and writes it again when it closes the machine (`write`). So what is read there was
so at that moment. A process that is killed leaves a void file.

A person may change the files of a machine by hand, too. So the file also has a stamp of each file
from which the summary was made, and of the directory itself. Where one is another now, the summary
does not count. Who finds none that counts opens the machine, which writes one.

The file is overwritten in place: to make it, or to give it another name, would change the
directory's stamp.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

from openrbu import __version__
from openrbu.system.kept_files import OddFileError, open_kept, remove_whatever
from openrbu.units import KIB

NAME = "summary"

_FORMAT = 1
"""Of the file; another openrbu does not read it."""

_SOURCES = (
    "machine.json",
    "smbios_entry_point",
    "DMI",
    "cmos",
    "flash",
    "flash.own",
    "nvram.json",
    "state.json",
    "ram",
)
"""The files of which a summary is made."""

_SHARED = "flash"
"""Each machine that comes to have the same file changes its ctime, and nothing else of it."""

_VOID = b"-" * 8
_MAX_BYTES = 64 * KIB
_FOR_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def make_void(directory: Path) -> None:
    """Make the summary of the machine in a directory void, where there is one; remove what is in
    its place and is no file. The caller has its lock.

    :raise OSError: when it can't be written; then nothing may be changed.
    """
    try:
        fd = open_kept(directory / NAME, os.O_WRONLY)
    except FileNotFoundError:
        return
    except OddFileError:
        remove_whatever(directory / NAME)
        return
    try:
        if os.fstat(fd).st_size:
            os.pwrite(fd, _VOID, 0)
    finally:
        os.close(fd)


def write(directory: Path, summary: dict[str, Any]) -> None:
    """Write the summary of the machine in a directory. The caller has its lock, and changes nothing
    after this. Where it can't be written, a list opens the machine."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        fd = open_kept(directory / NAME, os.O_WRONLY | os.O_CREAT)
        stack.callback(os.close, fd)
        opened = os.open(directory, _FOR_READING | os.O_DIRECTORY)
        stack.callback(os.close, opened)
        facts = {
            "format": _FORMAT,
            "openrbu": __version__,
            "stamps": _stamps(opened),
            "summary": summary,
        }
        text = json.dumps(facts).encode()
        data = b"%08x" % zlib.crc32(text) + text
        if os.pwrite(fd, data, 0) == len(data):
            os.ftruncate(fd, len(data))


def read(directory: Path) -> dict[str, Any] | None:
    """The summary of the machine in a directory. None: there is none that is known to be right, so
    the machine has to be opened. The directories above it are the caller's to check."""
    try:
        fd = os.open(directory, _FOR_READING | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        text = _sound_text(fd)
        if text is None or os.fstat(fd).st_uid not in (os.geteuid(), 0):
            return None
        facts = json.loads(text)
        is_ours = facts["format"] == _FORMAT and facts["openrbu"] == __version__
        if is_ours and facts["stamps"] == _stamps(fd):
            summary: dict[str, Any] = facts["summary"]
            return summary
    finally:
        os.close(fd)
    return None


def _sound_text(directory: int) -> bytes | None:
    """What the file in an open directory has behind its checksum; None: there is none, or it is
    void."""
    try:
        fd = os.open(NAME, _FOR_READING, dir_fd=directory)
    except OSError:
        return None
    try:
        data = os.read(fd, _MAX_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)
    text = data[len(_VOID) :]
    return text if data.startswith(b"%08x" % zlib.crc32(text)) else None


def _stamps(directory: int) -> list[list[int] | None]:
    """What changes with an open directory and with each of the sources in it; None for one that is
    not there."""
    stamps: list[list[int] | None] = [_stamp(os.fstat(directory))]
    for name in _SOURCES:
        try:
            stamp = _stamp(os.stat(name, dir_fd=directory))
            stamps.append(stamp[:-1] if name == _SHARED else stamp)
        except OSError:
            stamps.append(None)
    return stamps


def _stamp(found: os.stat_result) -> list[int]:
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
