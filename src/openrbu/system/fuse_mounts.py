"""/dev/fuse, and mounts of file systems that are served through it.

A mount of openrbu has the type `fuse.openrbu` and the machine's directory as its source. A mount of
`rbu run` has another type: it covers this computer's own files, and must not be mistaken for a dead
mount, which any command removes.

Every command searches for dead mounts, so modules that only mounting needs are imported where they
are used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from openrbu.errors import ObstacleError

FUSE_DEVICE = "/dev/fuse"
FILE_SYSTEM_TYPE = "fuse.openrbu"
RUN_TYPE = "fuse.openrbu-run"
HELPER = "fusermount3"

_DEVICE_NUMBER = os.makedev(10, 229)  # Documentation/admin-guide/devices.txt of Linux
_MNT_DETACH = 2  # sys/mount.h
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mount of openrbu: its mount point, and the machine's directory."""

    target: str
    source: str


def open_device() -> int:
    """A descriptor of /dev/fuse.

    :raise ObstacleError: when it does not exist, or this user can't open it.
    """
    try:
        fd = os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(fd).st_rdev == _DEVICE_NUMBER:
            return fd
        os.close(fd)
        text = "is another file: it has to be the character device 10, 229 (mknod)"
    except FileNotFoundError:
        text = (
            "does not exist: load the kernel module (modprobe fuse); a container needs the device"
        )
    except PermissionError:
        text = "can't be opened by this user: give it mode 0666, as distributions do, or use root"
        if not os.geteuid():
            text = (
                "can't be opened, not even by root: a container needs the device (--device "
                f"{FUSE_DEVICE}), and a file system that is mounted with nodev has none"
            )
    except OSError as error:
        text = f"can't be opened: {error.strerror}; load the kernel module: modprobe fuse"
    raise ObstacleError(f"{FUSE_DEVICE} {text}")


def mount_device(
    fd: int, target: str, source: str, *, kind: str = FILE_SYSTEM_TYPE, allow_other: bool = False
) -> None:
    """Mount the file system that `fd` serves at `target`, a path without links. This needs
    CAP_SYS_ADMIN in this user namespace.

    :raise ObstacleError: when the kernel refuses, or the path has a link now.
    """
    # mount(8), fuse.txt of the kernel: rootmode is octal
    options = f"fd={fd},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
    if allow_other:
        options += ",allow_other"
    from openrbu.system.libc import MS_NODEV, MS_NOSUID, call  # noqa: PLC0415  (start-up time)

    try:
        with _pinned(target) as pinned:
            texts = [os.fsencode(text) for text in (source, pinned, kind)]
            call("mount", *texts, MS_NOSUID | MS_NODEV, options.encode())
    except PermissionError:
        raise ObstacleError(
            f"{target} can't be mounted on: mounting needs CAP_SYS_ADMIN, which this root does not "
            "have (in a container: --cap-add SYS_ADMIN --device /dev/fuse)"
        ) from None
    except OSError as error:
        raise ObstacleError(f"{target} can't be mounted on: {error.strerror}") from None


def mount_with_helper(target: str, source: str, *, allow_other: bool = False) -> int:
    """Mount at `target` as a user without privileges, through fusermount3. Returns the descriptor
    to serve.

    :raise ObstacleError: when fusermount3 is not installed, or it refuses.
    """
    import socket  # noqa: PLC0415  (start-up time)

    name = re.sub(r"([\\,])", r"\\\1", source)
    options = f"nosuid,nodev,subtype=openrbu,fsname={name}"
    if allow_other:
        options += ",allow_other"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _run_helper(
            ["-o", options, "--", target],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
        )
        theirs.close()
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        raise ObstacleError(f"{HELPER} mounted {target}, but returned no descriptor")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def unmount(target: str) -> None:
    """Unmount `target`, a path without links, lazily: a process with open files in it keeps them.

    :raise ObstacleError: when the kernel refuses, or the path has a link now.
    """
    from openrbu.system.libc import call  # noqa: PLC0415  (start-up time)

    try:
        with _pinned(target) as pinned:
            call("umount2", os.fsencode(pinned), _MNT_DETACH)
    except OSError as error:
        if not os.geteuid():
            raise ObstacleError(f"{target} can't be unmounted: {error.strerror}") from None
        _run_helper(["-u", "-z", "--", target])


@contextlib.contextmanager
def _pinned(target: str) -> Iterator[str]:
    """Another path to the node at `target`; it leads to that node until the end of the block.
    (A user who may write to a directory above `target` could put a link there.)

    :raise OSError: when `target` does not exist, or the path has a link.
    """
    fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
    try:
        pinned = f"/proc/self/fd/{fd}"
        if str(Path(pinned).readlink()) != target:
            raise OSError(errno.ELOOP, "there is a link in its path")
        yield pinned
    finally:
        os.close(fd)


def real_path(path: str) -> str:
    """`path` without links. A file system that is mounted there is not called: its server may be
    dead."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return os.path.realpath(path)
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    finally:
        os.close(fd)


def mounts() -> Iterator[Mount]:
    """The mounts of openrbu in this mount namespace that this user made, the latest first.

    Those of other users are left out: they may have any text as their source.
    """
    mine = f"user_id={os.geteuid()}".encode()
    lines = Path("/proc/self/mountinfo").read_bytes()
    if f" {FILE_SYSTEM_TYPE} ".encode() not in lines:
        return
    for line in reversed(lines.splitlines()):
        before, _, after = line.partition(b" - ")  # proc(5)
        kind, source, options = after.split(b" ")[:3]
        if kind == FILE_SYSTEM_TYPE.encode() and mine in options.split(b","):
            yield Mount(_unescaped(before.split(b" ")[4]), _unescaped(source))


def remove_dead_mounts(source: str) -> int:
    """Unmount all mounts of the machine whose directory is `source`. Returns how many there were.

    The caller has the machine's lock, so no process serves them. A mount that can't be unmounted,
    such as another user's, stays.
    """
    removed = 0
    for mount in mounts():
        if mount.source == source:
            try:
                unmount(mount.target)
            except ObstacleError:
                continue
            removed += 1
    return removed


def _unescaped(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))


def _run_helper(
    arguments: list[str], *, pass_fds: list[int] | None = None, env: dict[str, str] | None = None
) -> None:
    import shutil  # noqa: PLC0415  (start-up time)
    import subprocess  # noqa: PLC0415  (start-up time)

    if shutil.which(HELPER) is None:
        raise ObstacleError(
            f"{HELPER} is needed for mounting without root: install the package fuse3"
        )
    done = subprocess.run(
        [HELPER, *arguments],
        pass_fds=pass_fds or (),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()).removeprefix(f"{HELPER}: ")
        raise ObstacleError(f"{HELPER}: {said or f'ended with {done.returncode}'}")
