"""Where openrbu's own driver keeps its state between two processes: `/run/openrbu/driver`.

::

    lock                 locked (flock(2)) by the process that changes the driver
    record-BOOT_ID.json  the driver and its memory

The bytes of what is staged are in memory, and not here. A record is one of the boot whose ID it
has: after a restart the memory is the new Linux's. (A program under `rbu run` sees the boot ID of a
virtual machine, and this computer's `/run`: so it leaves the records of other boots alone.)

Before each change the record says what is going to happen (`phase`), and after it how the driver
is. So where a process is killed in a change, the next one finds that, clears all of the memory and
gives it back: what is half staged is worth nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from openrbu.drivers.states import DellRbuState
from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.file_format import FileFormat, parse_object
from openrbu.own_driver.own_memory import OwnMemoryRecord
from openrbu.system.files import write_whole
from openrbu.system.flocks import HeldError, hold
from openrbu.system.kept_files import open_kept, read_kept, remove_whatever
from openrbu.typed_json import Natural, to_text
from openrbu.typed_json import read as read_record
from openrbu.units import MIB

DIRECTORY = "/run/openrbu/driver"
BOOT_ID = "/proc/sys/kernel/random/boot_id"

FORMAT = FileFormat(1)
"""Of the record."""

_BOOT_ID = re.compile(r"[0-9A-Za-z-]{1,64}")

_MAX_RECORD_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class DriverRecord:
    """The state of the driver.

    `phase`: `ready`; or `changing` or `stopping`, while a process does that, and after it was
    killed in it. `is_kept`: an operator started the driver, who will stop it; if not, an update
    did. `is_flushed`: what is staged was written from the processor's caches to memory. `memory`:
    where its memory is.
    """

    format: Natural
    boot_id: str
    phase: Literal["ready", "changing", "stopping"]
    is_kept: bool
    is_flushed: bool
    driver: DellRbuState
    memory: OwnMemoryRecord


class Store:
    """The files of the driver of the computer whose file systems are below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self.directory = root / DIRECTORY.lstrip("/")

    @cached_property
    def boot_id(self) -> str:
        """The ID of this boot.

        :raise ObstacleError: when it can't be read, or is none.
        """
        try:
            found = (self._root / BOOT_ID.lstrip("/")).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ObstacleError(f"{BOOT_ID} can't be read: {error}") from None
        if not _BOOT_ID.fullmatch(found):
            raise ObstacleError(f"{BOOT_ID} has no boot ID, but {found[:40]!r}")
        return found

    @property
    def _record(self) -> Path:
        return self.directory / f"record-{self.boot_id}.json"

    @property
    def is_closed(self) -> bool:
        """Whether this user can't see what is in the directory."""
        return self.directory.exists() and not os.access(self.directory, os.R_OK | os.X_OK)

    @property
    def has_record(self) -> bool:
        """Whether there is a record of this boot.

        :raise ObstacleError: as `boot_id`.
        """
        try:
            return self.directory.exists() and self._record.exists()
        except PermissionError:
            return False

    def read(self) -> DriverRecord | None:
        """The record of this boot; None: the driver is not started, or this user can't see it.

        :raise ObstacleError: when it can't be read.
        :raise DamagedInputError: when it is damaged, or a newer openrbu wrote it.
        """
        try:
            data = read_kept(self._record, max_bytes=_MAX_RECORD_BYTES)
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            return None
        except OSError as error:
            raise ObstacleError(f"{self._record} can't be read: {error.strerror}") from None
        try:
            document = parse_object(data)
            found = FORMAT.number_of(document)
            record = read_record(DriverRecord, FORMAT.convert(document, found))
        except DamagedInputError as error:
            raise DamagedInputError(
                f"the state of openrbu's own driver is damaged ({self._record}): {error}; restart "
                "the machine, or remove the file: rbu driver stop clears its memory then"
            ) from None
        return record

    @property
    def stamp(self) -> tuple[int, int] | None:
        """Something that is another one after each change of the record; None: there is none."""
        try:
            seen = self._record.stat()
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns

    def save(self, record: DriverRecord) -> None:
        """Replace the record as a whole.

        :raise OSError: when it can't be written, and `strerror` names it; the one before is still
            there then.
        """
        try:
            write_whole(self._record, to_text(record).encode())
        except OSError as error:
            why = f"{self._record} can't be written: {error.strerror}"
            raise OSError(error.errno, why) from None

    def remove(self) -> None:
        """Remove the record.

        :raise OSError: when it can't be removed.
        """
        remove_whatever(self._record)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the driver for the block: no other process changes it.

        :raise ObstacleError: when another process has it, or this user may not.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.make_directory()
                fd = open_kept(self.directory / "lock", os.O_RDWR | os.O_CREAT)
                stack.callback(os.close, fd)
                stack.enter_context(hold([fd]))
            except HeldError as held:
                raise ObstacleError(
                    f"openrbu's own driver is in use: {held}; wait for it, or end it"
                ) from None
            except OSError as error:
                raise self._obstacle(error) from None
            yield

    def make_directory(self) -> None:
        """Make the directory, if it is not there.

        :raise ObstacleError: when this user may not.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise self._obstacle(error) from None

    def _obstacle(self, error: OSError) -> ObstacleError:
        return ObstacleError(
            f"openrbu's own driver can't be used: {error.filename or self.directory}: "
            f"{error.strerror}" + (" (it takes root)" if os.geteuid() else "")
        )

    @property
    def is_locked(self) -> bool:
        """Whether a process has the lock, as far as can be seen."""
        from openrbu.system.lockfile import LockFile  # noqa: PLC0415  (start-up time)

        with contextlib.suppress(OSError), LockFile(self.directory / "lock", create=False) as lock:
            return lock.is_locked()
        return False
