"""The state of the kernel of a machine that is on, saved on the disk between two commands.

Theory of operation. Three files tell the status of the machine:

===========  ==============================================================================
state.json   exists: the machine is on, and no process has changed it since the state was saved
state.lost   exists without state.json: the machine is on in a process, or that process died,
             and the machine lost its power
state.spare  disk space, allocated in advance, for the next state
===========  ==============================================================================

`mark_in_use` renames state.json to state.lost before the first change. `save` writes into
state.spare, renames that to state.json, and state.lost to state.spare. So when a process dies in
between, the machine loses its power, as by a power cut. And when the disk becomes full in between,
the state can still be saved, because its space is allocated already. (This does not hold for a file
system that never writes in place, such as btrfs.)

A state.json is complete and on the disk before it gets that name, so the death of a process leaves
no incomplete one. A damaged state.json was damaged by something else, and one that is not
understood was written by another version of openrbu. Neither is a power cut: both are refused, and
stay as they are (`docs/state.md`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from openrbu.errors import DamagedInputError, MachineError, OpenRbuError
from openrbu.file_format import NewerFormatError
from openrbu.machine import state_formats
from openrbu.machine.state_formats import MachineState
from openrbu.system.kept_files import is_odd, open_kept, read_kept, remove_whatever
from openrbu.typed_json import to_text
from openrbu.units import KIB, MIB

SPARE_BYTES = 256 * KIB
"""Enough for the state of a kernel with thousands of scattered packets. A usual state has 2 KiB."""

_LEAST_SPARE_BYTES = 32 * KIB
_FLASH_FOR_ALL = 16 * MIB
"""An image for a flash of this size is thousands of packets."""

MAX_STATE_BYTES = 64 * MIB
"""More than the state of any machine has: a million runs of pages in a balloon have 15 MiB."""

_MAX_SHOWN = 200
"""How much of a reason is shown: it may contain a value of thousands of digits."""

_NOT_THE_FILES_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of opening a file that come from this process or this computer."""

_UNFIT = (LookupError, TypeError, ValueError, ArithmeticError, MemoryError, OpenRbuError)
"""What the parts of a machine raise when they are to continue from a state with impossible
values."""


def spare_for(flash_size_bytes: int) -> int:
    """The size in bytes of the spare of a machine: enough for the state with an image for its flash
    in scattered packets."""
    share = SPARE_BYTES * flash_size_bytes // _FLASH_FOR_ALL
    return min(SPARE_BYTES, max(_LEAST_SPARE_BYTES, share))


class StateRefusedError(MachineError):
    """There is a saved state that this openrbu does not understand. The file stays as it is."""

    kind = "state_refused"


class StateFile:
    """The three files in the directory of a machine or a guest. The caller has its lock.

    `whose` is the name for it in messages ("machine 'demo'"), and `way_out` the command that
    discards the state.
    """

    def __init__(self, directory: Path, whose: str, way_out: str) -> None:
        self._whose, self._way_out = whose, way_out
        self._path = directory / "state.json"
        self._lost = directory / "state.lost"
        self._spare = directory / "state.spare"
        self.spare_bytes = SPARE_BYTES
        self._last: str | None = None
        self.is_in_use = False

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
        return os.path.lexists(self._lost) and not os.path.lexists(self._path)

    def read(self) -> MachineState | None:
        """The saved state; None when there is none.

        :raise StateRefusedError: when it has a newer format, contains what this openrbu does not
            know, is damaged, can't be read, or is something other than a file. What is there stays
            as it is.
        """
        try:
            data = read_kept(self._path, max_bytes=MAX_STATE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NOT_THE_FILES_FAULT:
                raise
            raise self.refusal(f"state.json can't be read: {error.strerror}") from None
        try:
            state = state_formats.read(data)
        except NewerFormatError as error:
            raise self.refusal(f"{error}: update openrbu") from None
        except DamagedInputError as error:
            raise self.refusal(str(error)) from None
        self._last = to_text(state)
        return state

    def refusal(self, why: str) -> StateRefusedError:
        """The error for a state that can't be used, and why."""
        return StateRefusedError(
            f"{self._whose} can't continue from its state: {why}; nothing was changed; to discard "
            f"the state: {self._way_out}"
        )

    @contextlib.contextmanager
    def refused_if_unfit(self) -> Iterator[None]:
        """A block that continues from a state that was read.

        :raise StateRefusedError: when the state does not fit this machine.
        """
        try:
            yield
        except MachineError:  # not because of the state
            raise
        except _UNFIT as error:
            why = str(error) or repr(error)
            why = why if len(why) <= _MAX_SHOWN else f"{why[:_MAX_SHOWN]}…"
            raise self.refusal(f"it does not fit ({why})") from None

    def mark_in_use(self) -> None:
        """Mark the machine as in use by this process: until `save`, the death of this process is a
        power cut.

        :raise OSError: when the disk has no room to save the state later, or this process may not
            write a file of its size; then nothing has changed.
        """
        if self.is_in_use:
            return
        self._check_limit()
        self._make_spare()
        self.mark_lost()
        self.is_in_use = True

    def _check_limit(self) -> None:
        """Check that this process may write to all of the spare. Allocating one that is there
        already does not find that out.

        :raise OSError: when it may not.
        """
        import resource  # noqa: PLC0415  (start-up time)

        limit_bytes, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit_bytes != resource.RLIM_INFINITY and limit_bytes < self.spare_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self._spare))

    def _make_spare(self) -> None:
        fd = self._open_spare()
        try:
            os.posix_fallocate(fd, 0, self.spare_bytes)
            # EFBIG at a limit (ulimit -f), which fallocate does not tell
            os.pwrite(fd, b" ", self.spare_bytes - 1)
        finally:
            os.close(fd)

    def _open_spare(self) -> int:
        """Open the spare; its descriptor. It is emptied when no state can have its size.

        :raise OSError: when it can't be opened.
        """
        if is_odd(self._spare):
            remove_whatever(self._spare)
        fd = open_kept(self._spare, os.O_RDWR | os.O_CREAT)
        if os.fstat(fd).st_size > MAX_STATE_BYTES:
            os.ftruncate(fd, 0)
        return fd

    def discard(self) -> None:
        """`mark_lost`, whatever is in place of the three files."""
        for path in (self._path, self._lost, self._spare):
            if is_odd(path):
                remove_whatever(path)
        self.mark_lost()

    def mark_lost(self) -> None:
        """Mark the machine as off without power, until `save`."""
        try:
            self._path.replace(self._lost)
        except FileNotFoundError:
            self._lost.touch()

    def save(self, state: MachineState) -> None:
        """Save the state. After an error state.json and state.lost are unchanged.

        :raise MachineError: when the machine has lost its power, because an error of the disk came
            after `mark_in_use`.
        :raise OSError: for an error of the disk.
        """
        try:
            self._put(to_text(state))
        except OSError as error:
            if not self.is_lost:
                raise
            raise MachineError(
                f"{self._whose} has lost its power, because its state can't be saved: "
                f"{error.strerror}"
            ) from None

    def _put(self, text: str) -> None:
        if text == self._last:
            if self.is_in_use:
                self._lost.replace(self._path)
                self.is_in_use = False
            return
        fd = self._open_spare()
        try:
            data = state_formats.build(text)
            if len(data) > MAX_STATE_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self._spare))
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
        with contextlib.suppress(OSError):  # `mark_in_use` raises it when there is no room then
            self._make_spare()
        self._last, self.is_in_use = text, False

    def delete(self) -> None:
        """Delete all three files, because the machine was switched off."""
        for path in (self._path, self._lost, self._spare):
            remove_whatever(path)
        self._last, self.is_in_use = None, False
