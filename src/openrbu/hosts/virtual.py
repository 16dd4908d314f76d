"""A virtual machine as a host, as a program that runs on it sees it."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from openrbu.buffers import Buffer
from openrbu.errors import KernelError, ObstacleError
from openrbu.formats.lockdown import LOCKDOWN, lockdown_in
from openrbu.hosts.base import read_text
from openrbu.hosts.whole_paths import whole_path
from openrbu.machine import store
from openrbu.machine.base import Machine
from openrbu.machine.clock import Clock, local_now
from openrbu.memory.frames import Frames
from openrbu.memory.physical import ReadableMemory

_JOURNAL = "journal.jsonl"


class VirtualHost:
    """The host that runs on `machine`. Most calls need the machine to be on."""

    def __init__(self, machine: Machine, *, clock: Clock = local_now) -> None:
        self._machine = machine
        self._clock = clock

    @property
    def name(self) -> str:
        return f"machine {self._machine.name!r}"

    @property
    def journal_path(self) -> Path:
        return self._machine.directory / _JOURNAL

    @property
    def lasting_journal_path(self) -> Path:
        return self._machine.original / _JOURNAL

    @property
    def older_journal_paths(self) -> tuple[Path, ...]:
        return ()

    @contextlib.contextmanager
    def lock_files(self) -> Iterator[tuple[int, ...]]:
        """The machine's directory."""
        fd = os.open(self._machine.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield (fd,)
        finally:
            os.close(fd)

    @property
    def physical_memory(self) -> ReadableMemory | None:
        return None if self._is_confidential() else self._machine.ram

    def _is_confidential(self) -> bool:
        """Whether the kernel is locked down so far that no program reads physical memory."""
        if not self._machine.is_on or not self._machine.exists(LOCKDOWN):
            return False
        return lockdown_in(read_text(self, LOCKDOWN)) == "confidentiality"

    @property
    def frame_table(self) -> Frames | None:
        return self._machine.frame_table

    @property
    def own_rbu(self) -> None:
        """None: the kernel's driver is used."""
        return None

    @property
    def offers_own_rbu(self) -> bool:
        return False

    def hardware_revision(self, system_id: int | None) -> int:
        return self._machine.config.hardware_revision

    def now(self) -> dt.datetime:
        return self._clock()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def exists(self, path: str) -> bool:
        return self._machine.exists(path)

    def names(self, path: str) -> list[str]:
        with whole_path(path):
            return self._machine.files.list(path)

    def chunks(self, path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        with (
            whole_path(path),
            contextlib.closing(self._machine.open(path, reading=True)) as file,
        ):
            while chunk := file.read(offset, size_bytes):
                yield chunk
                offset += len(chunk)

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        with (
            store.disk_errors(self._machine.directory),
            whole_path(path),
            contextlib.closing(self._machine.open(path, writing=True)) as file,
        ):
            done = file.write(offset, data)
            while done < len(data):
                done += file.write(offset + done, memoryview(data)[done:])

    def make_file(self, path: str) -> None:
        with store.disk_errors(self._machine.directory), whole_path(path):
            self._machine.make_file(path)

    def remove_file(self, path: str) -> None:
        with store.disk_errors(self._machine.directory), whole_path(path):
            self._machine.remove_file(path)

    def kernel_path(self, path: str) -> str:
        return path

    def path_lock(self, path: str) -> AbstractContextManager[None]:
        return self._machine.path_lock(path)

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        try:
            with store.disk_errors(self._machine.directory):
                self._machine.load_module(name, parameters)
        except KernelError as error:
            raise ObstacleError(f"module {name} can't be loaded: {error.strerror}") from None

    def unload_module(self, name: str) -> None:
        with store.disk_errors(self._machine.directory):
            self._machine.unload_module(name)

    def module_is_loaded(self, name: str) -> bool:
        return name in self._machine.modules

    def clear_free_memory(self, size_bytes: int) -> None:
        pass

    def restart(self) -> None:
        self._machine.restart()
