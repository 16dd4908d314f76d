"""The computer that this process runs on, or a machine whose file systems are below a directory.

`root` is the directory of `/sys`, `/proc` and `/dev`: `/` for this computer, else a mount of a
virtual machine's files, or a directory made for a test.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from openrbu.buffers import Buffer
from openrbu.errors import ObstacleError
from openrbu.formats import rom_identity
from openrbu.formats.rom_identity import IDENTITY, revision_in
from openrbu.hosts.base import DMI_TABLE, EFI_VARIABLES, OwnRbu
from openrbu.hosts.older_journals import older_journals
from openrbu.hosts.restart_command import SYSTEMD_RUNS, restart_command
from openrbu.machine import path_locks
from openrbu.memory.kcore import open_kcore
from openrbu.memory.physical import ReadableMemory
from openrbu.system import immutable
from openrbu.system.flocks import one_for_all
from openrbu.system.free_memory import take_and_free
from openrbu.system.lock_holders import flock_holders, process_title
from openrbu.system.lockfile import acquire_within, try_lock

JOURNAL = "/var/lib/openrbu/journal.jsonl"


class LinuxHost:
    """A Linux machine, used through its files."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    @property
    def name(self) -> str:
        return "this machine" if self._root == Path("/") else f"the machine at {self._root}"

    @property
    def journal_path(self) -> Path:
        """A file of the machine's own, whoever runs this and whatever is in the environment."""
        return self._path(JOURNAL)

    @property
    def lasting_journal_path(self) -> Path:
        return self.journal_path

    @property
    def older_journal_paths(self) -> tuple[Path, ...]:
        """Until 0.2 the journal was in the home of the user who ran the update: root, with root's
        home or, by sudo, with that of another user. One that this user does not own is left out."""
        return older_journals(self._root)

    @contextlib.contextmanager
    def lock_files(self) -> Iterator[tuple[int, ...]]:
        """The kernel's file of the SMBIOS tables, which only root can open, and which processes
        with other mounts have, too; where it is this computer's own, a directory that processes in
        containers have, as far as the kernel allows that; and the directory of the journal
        (docs/decisions/0024-the-machines-own-lock.md)."""
        from openrbu.system.libc import SYSFS, file_system_type  # noqa: PLC0415  (start-up time)

        with contextlib.ExitStack() as stack:
            fds = []
            with contextlib.suppress(FileNotFoundError, PermissionError):
                table = stack.enter_context(self._opened(DMI_TABLE, os.O_RDONLY))
                fds.append(table)
                if file_system_type(table) == SYSFS and (fd := one_for_all()) is not None:
                    stack.callback(os.close, fd)
                    fds.append(fd)
                journals = str(Path(JOURNAL).parent)
                fds.append(stack.enter_context(self._opened(journals, os.O_RDONLY)))
            yield tuple(fds)

    @property
    def physical_memory(self) -> ReadableMemory | None:
        """RAM through `/proc/kcore`. (Today's kernels show no RAM through `/dev/mem`.)"""
        return open_kcore(self._root)

    @property
    def frame_table(self) -> None:
        """None: Xen does not show it to programs."""

    @property
    def own_rbu(self) -> OwnRbu | None:
        """None: the kernel's driver is used."""
        return None

    @property
    def offers_own_rbu(self) -> bool:
        return False

    def hardware_revision(self, system_id: int | None) -> int | None:
        """The revision in the BIOS's identity in the ROM, if that has the system ID of SMBIOS.
        (Kernels show the first MiB through `/dev/mem`, except under lockdown.)"""
        if system_id is None:
            return None
        try:
            with self._opened("/dev/mem", os.O_RDONLY) as fd:
                identity = os.pread(fd, IDENTITY.size_bytes, rom_identity.ADDRESS)
        except OSError:
            return None
        return revision_in(identity, system_id)

    def now(self) -> dt.datetime:
        return dt.datetime.now().astimezone()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def exists(self, path: str) -> bool:
        try:
            return self._path(path).exists()
        except OSError as error:  # this process can't use it, or there can be no such name
            if error.errno not in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG):
                raise
            return False

    def names(self, path: str) -> list[str]:
        return [each.name for each in self._path(path).iterdir()]

    def chunks(self, path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        with self._opened(path, os.O_RDONLY) as fd:
            if offset:
                os.lseek(fd, offset, os.SEEK_SET)
            while chunk := os.read(fd, size_bytes):
                yield chunk

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        is_variable = path.startswith(f"{EFI_VARIABLES}/")
        allowed = immutable.writable(self._path(path)) if is_variable else contextlib.nullcontext()
        with allowed, self._opened(path, os.O_WRONLY) as fd:
            rest = memoryview(data)
            while rest:
                done = os.pwrite(fd, rest, offset) if offset else os.write(fd, rest)
                if not done:
                    raise OSError(errno.EIO, "the file takes no more data")
                rest, offset = rest[done:], offset + done

    def make_file(self, path: str) -> None:
        file = self._path(path)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(file, flags, 0o600))

    def remove_file(self, path: str) -> None:
        self._path(path).unlink()

    def kernel_path(self, path: str) -> str:
        """The same path, where the first process finds the same directory there; else the path
        through this process's entry in `/proc`, which leads to its root."""
        try:
            is_same = (self._root / "proc/1/root" / path.lstrip("/")).samefile(self._path(path))
        except OSError:
            is_same = False
        if is_same or self._root != Path("/"):
            return path
        return f"/proc/{os.getpid()}/root{path}"

    @contextlib.contextmanager
    def path_lock(self, path: str) -> Iterator[None]:
        with self._opened(path, os.O_WRONLY) as fd:  # sysfs has files that can't be read
            if not acquire_within(lambda: try_lock(fd), path_locks.TIMEOUT_S):
                holders = ", ".join(map(process_title, flock_holders(fd)))
                raise path_locks.still_locked(path, holders or "another program")
            yield

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        words = [f"{key}={value}" for key, value in parameters.items()]
        self._run("modprobe", name, *words, what=f"module {name} can't be loaded")

    def unload_module(self, name: str) -> None:
        self._run("rmmod", name, what=f"module {name} can't be unloaded")

    def module_is_loaded(self, name: str) -> bool:
        return self.exists(f"/sys/module/{name}")

    def clear_free_memory(self, size_bytes: int) -> None:
        take_and_free(size_bytes)

    def restart(self) -> None:
        """Through the init system, and with the BIOS: see `hosts.restart_command`."""
        command = restart_command(runs_systemd=self.exists(SYSTEMD_RUNS))
        why = "the machine can't be restarted"
        self._run(*command.words, what=why, variables=command.variables)

    def _path(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    @contextlib.contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        """An open file, for the block. Errors in the block name the file.

        :raise OSError: the kernel's error.
        """
        fd = os.open(self._path(path), flags | os.O_CLOEXEC)
        try:
            yield fd
        except OSError as error:
            error.filename = error.filename or path
            raise
        finally:
            os.close(fd)

    def _run(
        self, program: str, *arguments: str, what: str, variables: Mapping[str, str] | None = None
    ) -> None:
        if self._root != Path("/"):
            raise ObstacleError(f"{what}: {self.name} is only a directory, not a running machine")
        found = shutil.which(program)
        if found is None:
            raise ObstacleError(f"{what}: the program {program} is not installed")
        done = subprocess.run(
            [found, *arguments],
            env={**os.environ, **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"{program} ended with {done.returncode}"
            raise ObstacleError(f"{what}: {said}")
