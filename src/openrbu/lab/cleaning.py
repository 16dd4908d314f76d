"""Removes what the lab has left on this computer: its cache, and directories of killed processes.

Only what the lab itself makes is removed, by its names and its content, and only where it belongs
to this user: the cache may have been told to be in a directory with other files in it. What a
running guest uses stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from openrbu.lab.packages import PACKAGE_PATTERNS
from openrbu.lab.scratch import MACHINE_PREFIX, USED, remove_tree
from openrbu.system.lockfile import try_lock

_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Left:
    """Something of the lab's. `what` it is, in words. `why`: it stays; empty: it was removed."""

    path: Path
    what: str
    size_bytes: int
    why: str = ""


def clean(cache: Path, temporary: Path | None = None) -> list[Left]:
    """Remove what the lab has left in its cache and in the directory for temporary files (None:
    this process's own); what that was."""
    place = Path(tempfile.gettempdir()) if temporary is None else temporary
    done = [_removed(path, "a machine of a process that was killed") for path in _dead(place)]
    with _unused(cache) as why:
        found = list(_in_cache(cache))
        if why:
            return done + [Left(path, what, _size(path), why) for path, what in found]
        done += [_removed(path, what) for path, what in found]
        for name in ("packages", "kernels", "apt", "initramfs"):
            with contextlib.suppress(OSError):  # something else is in it
                (cache / name).rmdir()
        for name in (_LOCK, USED):
            if _is_own(cache / name, stat.S_ISREG):
                (cache / name).unlink()
    with contextlib.suppress(OSError):
        cache.rmdir()
    return done


def _in_cache(cache: Path) -> Iterator[tuple[Path, str]]:
    """What of the lab's is in its cache, and what it is."""
    for pattern in PACKAGE_PATTERNS:
        yield from _kept(cache / "packages", f"{pattern}_*", "a package of Debian's", stat.S_ISDIR)
    yield from _kept(cache / "packages", ".new-*", "a package that was begun", stat.S_ISDIR)
    for kernel in _own(cache / "kernels", "linux-image-*"):
        yield kernel, "a kernel that was asked for by name"
    for suite in _own(cache / "apt", "*"):
        if (suite / "apt.conf").is_file() and (suite / "sources.list").is_file():
            yield suite, "apt's lists of a suite"
    yield from _kept(cache / "initramfs", "*.cpio", "an initramfs", stat.S_ISREG)
    yield from _kept(cache, "accelerator", "whether KVM works here", stat.S_ISREG)


def _own(directory: Path, pattern: str) -> list[Path]:
    """This user's directories of such names in a directory of this user's."""
    return [path for path, _ in _kept(directory, pattern, "", stat.S_ISDIR)]


def _kept(
    directory: Path, pattern: str, what: str, is_kind: Callable[[int], bool]
) -> Iterator[tuple[Path, str]]:
    if _is_own(directory, stat.S_ISDIR):
        for path in sorted(directory.glob(pattern)):
            if _is_own(path, is_kind):
                yield path, what


def _is_own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is of this kind itself (a link is not), and belongs to this user."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        return is_kind(status.st_mode) and status.st_uid == os.geteuid()
    return False


def _dead(place: Path) -> Iterator[Path]:
    """The directories of machines whose process has ended without removing them."""
    for path in sorted(place.glob(f"{MACHINE_PREFIX}*-*")):
        owner = path.name.removeprefix(MACHINE_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists() and _is_own(path, stat.S_ISDIR):
            yield path


def _removed(path: Path, what: str) -> Left:
    size_bytes = _size(path)
    try:
        remove_tree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        return Left(path, what, size_bytes, error.strerror or str(error))
    return Left(path, what, size_bytes)


def _size(path: Path) -> int:
    """How much of the disk it takes; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for each in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):
            status = each.lstat()
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


@contextlib.contextmanager
def _unused(cache: Path) -> Iterator[str]:
    """Keep guests and those who fetch packages from using the cache in the block. Why that is not
    possible; empty: nobody uses it."""
    with contextlib.ExitStack() as stack:
        why = ""
        for name, uses in ((_LOCK, "a process fetches packages"), (USED, "a guest runs with it")):
            try:
                fd = os.open(cache / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:  # nobody can have locked what is not there
                continue
            stack.callback(os.close, fd)
            if not try_lock(fd, fcntl.LOCK_EX):
                why = why or uses
        yield why
