"""The kernel of a machine that is on, put away on the disk between two commands.

Theory of operation. Which of three files is there says how the machine stands:

===========  ==============================================================================
state.json   the machine is on, and no process has changed anything since it was put away
state.lost   and no state.json: the machine is on in a process, or lost its power with it
state.spare  room on the disk, taken beforehand, that the next state will be written into
===========  ==============================================================================

`take` makes state.json the state.lost, before the first change. `put` writes into the spare, makes
that state.json, and state.lost the next spare. So a process that dies in between takes the
machine's power with it, as a power cut does; and a disk that fills up in between does not keep the
state from being put away, because it goes where there is room already. (Not where a file system
never writes in place, such as btrfs.)
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

from openrbu.errors import MachineError
from openrbu.units import KIB

FORMAT = 1
"""Of the state; a reader refuses newer ones."""

SPARE_BYTES = 256 * KIB
"""Room for the state of a kernel with thousands of scattered packets. A usual one has 2 KiB."""

State = dict[str, Any]


class StateFile:
    """The three files in a machine's directory. The caller holds the machine's lock."""

    def __init__(self, directory: Path) -> None:
        self._name = directory.name
        self._path = directory / "state.json"
        self._lost = directory / "state.lost"
        self._spare = directory / "state.spare"
        self._last: str | None = None
        self.is_taken = False

    @property
    def is_lost(self) -> bool:
        """Whether the machine was on in a process that died."""
        return self._lost.exists() and not self._path.exists()

    def read(self) -> State | None:
        """The state that was put away; None when there is none, or it was damaged and so is lost.

        :raise MachineError: when a newer openrbu put it away.
        """
        try:
            document = json.loads(self._path.read_bytes())
            if document["format"] > FORMAT:
                raise MachineError(
                    f"machine {self._name!r} was last used by a newer openrbu (its state has "
                    f"format {document['format']}; this one knows {FORMAT}): update openrbu"
                )
            state: State = document["state"]
            text = json.dumps(state)
            if document["crc32"] != zlib.crc32(text.encode()):
                raise ValueError("the state is damaged")
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, RecursionError):
            self.lose()
            return None
        self._last = text
        return state

    def take(self) -> None:
        """From here on until `put`, the death of this process is a power cut.

        :raise OSError: when there is no room to put the state away later; then nothing happened.
        """
        if self.is_taken:
            return
        self._make_spare()
        self.lose()
        self.is_taken = True

    def _make_spare(self) -> None:
        fd = os.open(self._spare, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SPARE_BYTES)
        finally:
            os.close(fd)

    def lose(self) -> None:
        """The machine is not on any more, unless a process says so with `put`."""
        try:
            self._path.replace(self._lost)
        except FileNotFoundError:
            self._lost.touch()

    def put(self, state: State) -> None:
        """Put the state away, whole or not at all.

        :raise OSError: when the disk refuses.
        """
        text = json.dumps(state)
        if text == self._last:
            if self.is_taken:
                self._lost.replace(self._path)
                self.is_taken = False
            return
        crc = zlib.crc32(text.encode())
        fd = os.open(self._spare, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            data = f'{{"format": {FORMAT}, "crc32": {crc}, "state": {text}}}'.encode()
            data = data.ljust(os.fstat(fd).st_size)  # the spare has an older state in it
            os.posix_fallocate(fd, 0, len(data))
            done = 0
            while done < len(data):
                done += os.pwrite(fd, memoryview(data)[done:], done)
            os.fdatasync(fd)  # or a crash of this computer could leave that older state
        finally:
            os.close(fd)
        self._spare.replace(self._path)
        with contextlib.suppress(FileNotFoundError):
            self._lost.replace(self._spare)
        with contextlib.suppress(OSError):  # the next `take` tells, if there is no room then
            self._make_spare()
        self._last, self.is_taken = text, False

    def drop(self) -> None:
        """The machine was switched off."""
        for path in (self._path, self._lost, self._spare):
            path.unlink(missing_ok=True)
        self._last, self.is_taken = None, False
