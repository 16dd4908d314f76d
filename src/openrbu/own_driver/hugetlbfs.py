"""Where files of huge pages are: in a hugetlbfs mount that is there, or in one of our own.

What the mount keeps has to be there for later processes, too. So where this process has a mount
namespace of its own, the mount is one of the first process's, and its files are used through that
process's entry in `/proc`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from openrbu.errors import ObstacleError
from openrbu.formats.meminfo import meminfo_bytes
from openrbu.units import HUGE_PAGE_BYTES, MIB

OWN_MOUNT = "/dev/openrbu-hugepages"
"""Below `/dev`, where a shutdown with systemd leaves mounts alone, as that of its own huge pages
(its unit `dev-hugepages.mount`; API file systems). Below `/run` it unmounts them before the reset,
and the files are gone."""
USUAL_MOUNT = "/dev/hugepages"

FILE_SYSTEM_TYPE = "hugetlbfs"

_FIRST_PROCESS = "/proc/1"

_PARENT = re.compile(r"^PPid:\t([1-9][0-9]*)$", re.MULTILINE)
_ESCAPE = re.compile(r"\\([0-7]{3})")
_PAGE_SIZE = re.compile(r"pagesize=(?P<number>[0-9]{1,6})(?P<unit>[KMG])")
_LIMIT = re.compile(r"(^|,)(ro|size=[^,]*|nr_inodes=[^,]*)(,|$)")


class Mount(NamedTuple):
    """A directory for files of huge pages of 2 MiB. `is_ours`: it was mounted by this program."""

    directory: str
    is_ours: bool


def find_mount(root: Path = Path("/")) -> Mount | None:
    """The mount whose files a process can use here; None: there is none without a limit that a
    shutdown leaves alone (see `OWN_MOUNT`)."""
    view = _view(root)
    found = [each for each in _mounts(root, view) if each.directory.startswith(f"{view}/dev/")]
    own = [mount for mount in found if mount.is_ours]
    usual = [mount for mount in found if mount.directory == view + USUAL_MOUNT]
    return next(iter([*own, *usual, *found]), None)


def own_mount(root: Path = Path("/")) -> Mount:
    """The mount that `make_mount` makes."""
    return Mount(_view(root) + OWN_MOUNT, is_ours=True)


def as_seen_here(mount: Mount, root: Path = Path("/")) -> Mount:
    """A mount that another process has found, by a path at which this process has it, too: as the
    first process sees it, as this one does, or as one does that has started it, such as `rbu run`
    in a chroot. The same where none of them has it."""
    views = ["" if mount.directory.startswith(f"{_FIRST_PROCESS}/") else _view(root), ""]
    for view in (*views, *(f"/proc/{pid}/root" for pid in _ancestors(root))):
        seen = mount._replace(directory=view + mount.directory)
        with contextlib.suppress(OSError):
            if (root / seen.directory.lstrip("/")).is_mount():
                return seen
    return mount


def _ancestors(root: Path) -> Iterator[str]:
    """The numbers of the processes that have started this one, the nearest first."""
    pid = "self"
    with contextlib.suppress(OSError):
        while pid != "1" and (match := _PARENT.search((root / f"proc/{pid}/status").read_text())):
            pid = match[1]
            yield pid


def make_mount(mount: Mount, root: Path = Path("/")) -> None:
    """Mount a hugetlbfs of our own.

    :raise ObstacleError: when it can't be mounted; the text says why.
    """
    view = mount.directory.removesuffix(OWN_MOUNT)
    directory = root / mount.directory.lstrip("/")
    options = f"pagesize={HUGE_PAGE_BYTES // MIB}M,mode=0700"
    words = ["mount", "-t", FILE_SYSTEM_TYPE, "-o", options, "openrbu", OWN_MOUNT]
    with contextlib.suppress(OSError):  # the mount says it better
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _run([*_in_view(view), *words], f"{FILE_SYSTEM_TYPE} can't be mounted at {OWN_MOUNT}")


def remove_mount(mount: Mount, root: Path = Path("/")) -> None:
    """Take away a mount of our own, which has no files. Another process may still look at it.

    :raise ObstacleError: when it can't be unmounted; the text says why.
    """
    view = mount.directory.removesuffix(OWN_MOUNT)
    directory = root / mount.directory.lstrip("/")
    if directory.is_mount():
        _run([*_in_view(view), "umount", "--lazy", OWN_MOUNT], f"{OWN_MOUNT} can't be unmounted")
    with contextlib.suppress(OSError):
        directory.rmdir()


def _view(root: Path) -> str:
    """What goes before a path so that the first process has the same file there."""
    try:
        own, first = ((root / f"proc/{each}/ns/mnt").readlink() for each in ("self", "1"))
    except OSError:  # no such files, or not allowed to look
        return ""
    return "" if own == first else f"{_FIRST_PROCESS}/root"


def _in_view(view: str) -> list[str]:
    """The words before a command that has to mount where that is."""
    return ["nsenter", f"--mount={_FIRST_PROCESS}/ns/mnt"] if view else []


def _mounts(root: Path, view: str) -> Iterator[Mount]:
    """The mounts of pages of 2 MiB that can be written and have no limit."""
    table = f"{_FIRST_PROCESS}/mounts" if view else "/proc/self/mounts"
    try:
        text = (root / table.lstrip("/")).read_text(errors="surrogateescape")
    except OSError:
        return
    for line in text.splitlines():
        _, target, kind, options, *_ = [*line.split(" "), "", "", "", ""]
        if kind != FILE_SYSTEM_TYPE or _LIMIT.search(options):
            continue
        if _page_bytes(root, options) == HUGE_PAGE_BYTES:
            target = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), target)
            yield Mount(view + target, is_ours=target == OWN_MOUNT)


def _page_bytes(root: Path, options: str) -> int | None:
    """The size of a mount's pages; None where it is not known."""
    match = _PAGE_SIZE.search(options)
    if match is not None:
        return int(match["number"]) << 10 * ("KMG".index(match["unit"]) + 1)
    with contextlib.suppress(OSError):
        return meminfo_bytes((root / "proc/meminfo").read_text(), "Hugepagesize")
    return None


def _run(words: list[str], what: str) -> None:
    """Run a program of this computer.

    :raise ObstacleError: when it is not there or fails.
    """
    program = shutil.which(words[0])
    if program is None:
        raise ObstacleError(f"{what}: the program {words[0]} is not installed")
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        [program, *words[1:]], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"{words[0]} ended with {done.returncode}"
        raise ObstacleError(f"{what}: {said}")
