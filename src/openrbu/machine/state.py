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

A state.json is replaced whole and is on the disk before it has that name, so no death of a process
leaves half of one. One that is damaged was damaged by something else, and one that is not
understood was written by another openrbu: neither is a power cut. Both are refused, and left as
they are (`docs/state.md`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from openrbu.errors import DamagedInputError, MachineError, OpenRbuError
from openrbu.file_format import NewerFormatError
from openrbu.machine import state_formats
from openrbu.machine.state_formats import MachineState
from openrbu.typed_json import to_text
from openrbu.units import KIB

SPARE_BYTES = 256 * KIB
"""Room for the state of a kernel with thousands of scattered packets. A usual one has 2 KiB."""


_UNFIT = (LookupError, TypeError, ValueError, ArithmeticError, MemoryError, OpenRbuError)
"""What parts raise that are to go on from a state with impossible values in it."""


class StateRefusedError(MachineError):
    """A state is there that this openrbu does not understand. It is left as it is."""

    kind = "state_refused"


class StateFile:
    """The three files in a directory, a machine's or a guest's. The caller holds its lock.

    In messages it is called `whose` ("machine 'demo'"), and `way_out` is the command that throws
    the state away.
    """

    def __init__(self, directory: Path, whose: str, way_out: str) -> None:
        self._whose, self._way_out = whose, way_out
        self._path = directory / "state.json"
        self._lost = directory / "state.lost"
        self._spare = directory / "state.spare"
        self._last: str | None = None
        self.is_taken = False

    @classmethod
    def of_machine(cls, directory: Path) -> StateFile:
        """The state of the machine in a directory."""
        name = directory.name
        return cls(directory, f"machine {name!r}", f"rbu machine off {name}")

    @classmethod
    def of_guest(cls, directory: Path, host: str) -> StateFile:
        """The state of the guest in a directory."""
        name = directory.name
        way_out = f"rbu balloon guest {host} {name} --rm"
        return cls(directory, f"guest {name!r} of {host!r}", way_out)

    @property
    def is_lost(self) -> bool:
        """Whether the machine was on in a process that died."""
        return self._lost.exists() and not self._path.exists()

    def read(self) -> MachineState | None:
        """The state that was put away; None when there is none.

        :raise StateRefusedError: when it can't be understood: it is of a newer format, says what
            this openrbu does not know, or is damaged. The file stays as it is.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            state = state_formats.read(data)
        except NewerFormatError as error:
            raise self.refusal(f"{error}: update openrbu") from None
        except DamagedInputError as error:
            raise self.refusal(str(error)) from None
        self._last = to_text(state)
        return state

    def refusal(self, why: str) -> StateRefusedError:
        """That the state can't be gone on from."""
        return StateRefusedError(
            f"{self._whose} can't go on from its state: {why}; nothing was changed; to throw the "
            f"state away: {self._way_out}"
        )

    @contextlib.contextmanager
    def refused_if_unfit(self) -> Iterator[None]:
        """Go on, inside of it, from a state that was read.

        :raise StateRefusedError: when what it says can't be of this machine.
        """
        try:
            yield
        except MachineError:  # not because of the state
            raise
        except _UNFIT as error:
            raise self.refusal(f"it does not fit ({str(error) or repr(error)})") from None

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

    def put(self, state: MachineState) -> None:
        """Put the state away, whole or not at all.

        :raise OSError: when the disk refuses.
        """
        text = to_text(state)
        if text == self._last:
            if self.is_taken:
                self._lost.replace(self._path)
                self.is_taken = False
            return
        fd = os.open(self._spare, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            data = state_formats.build(text)
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
