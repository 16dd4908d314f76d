"""/dev/fuse, and mounting what is served through it.

A mount of ours has the type `fuse.openrbu` and the machine's directory as its source. What
`rbu run` mounts has another type: it covers this computer's own files, and must not be taken for a
dead mount, which any command removes.

Every command looks for dead mounts, so what only mounting needs is imported where it is used.
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

_MNT_DETACH = 2  # sys/mount.h
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mount of ours: where it is, and the machine's directory."""

    target: str
    source: str


def open_device() -> int:
    """A descriptor of /dev/fuse.

    :raise ObstacleError: when it is not there, or not for this user.
    """
    try:
        return os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        text = "is not there: load the kernel module (modprobe fuse); a container needs the device"
    except PermissionError:
        text = "can't be opened by this user: give it mode 0666, as distributions do, or be root"
    except OSError as error:
        text = f"can't be opened: {error.strerror}; load the kernel module: modprobe fuse"
    raise ObstacleError(f"{FUSE_DEVICE} {text}")


def mount_device(
    fd: int, target: str, source: str, *, kind: str = FILE_SYSTEM_TYPE, allow_other: bool = False
) -> None:
    """Mount what `fd` serves at `target`, a path without links. That takes CAP_SYS_ADMIN in this
    user namespace.

    :raise ObstacleError: when the kernel refuses, or there is a link in the path by now.
    """
    # mount(8), fuse.txt of the kernel: rootmode is octal
    options = f"fd={fd},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
    if allow_other:
        options += ",allow_other"
    from openrbu.system.libc import MS_NODEV, MS_NOSUID, call  # noqa: PLC0415  (start-up time)

    try:
        with _held(target) as place:
            texts = [os.fsencode(text) for text in (source, place, kind)]
            call("mount", *texts, MS_NOSUID | MS_NODEV, options.encode())
    except PermissionError:
        raise ObstacleError(
            f"{target} can't be mounted on: mounting takes CAP_SYS_ADMIN, which this root has not "
            "got (a container: --cap-add SYS_ADMIN --device /dev/fuse)"
        ) from None
    except OSError as error:
        raise ObstacleError(f"{target} can't be mounted on: {error.strerror}") from None


def mount_with_helper(target: str, source: str, *, allow_other: bool = False) -> int:
    """Mount at `target` as a plain user, through fusermount3; the descriptor to serve.

    :raise ObstacleError: when there is no such helper, or it refuses.
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
        raise ObstacleError(f"{HELPER} mounted {target}, but passed no descriptor on")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def unmount(target: str) -> None:
    """Unmount what is at `target`, a path without links, lazily: whoever is in it stays in it.

    :raise ObstacleError: when that is refused, or there is a link in the path by now.
    """
    from openrbu.system.libc import call  # noqa: PLC0415  (start-up time)

    try:
        with _held(target) as place:
            call("umount2", os.fsencode(place), _MNT_DETACH)
    except OSError as error:
        if not os.geteuid():
            raise ObstacleError(f"{target} can't be unmounted: {error.strerror}") from None
        _run_helper(["-u", "-z", "--", target])


@contextlib.contextmanager
def _held(target: str) -> Iterator[str]:
    """Another name of what is at `target`: it means the same until the end of the block, whatever
    becomes of the path. Who may write to a directory above could put a link in its place.

    :raise OSError: when nothing is there, or there is a link in the path.
    """
    fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
    try:
        place = f"/proc/self/fd/{fd}"
        if str(Path(place).readlink()) != target:
            raise OSError(errno.ELOOP, "there is a link in its path")
        yield place
    finally:
        os.close(fd)


def real_path(path: str) -> str:
    """A path without links. What is mounted there is not asked, which may be of no use any more."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return os.path.realpath(path)
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    finally:
        os.close(fd)


def mounts() -> Iterator[Mount]:
    """The mounts of ours in this mount namespace, the latest first: those that this user made.

    Another user's may have any source: what it says of a machine is not to be believed.
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
    """Unmount everything of the machine whose directory is `source`; how many mounts that were.

    The caller holds the machine's lock, so no process serves them. One that can't be unmounted,
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
        raise ObstacleError(f"a plain user mounts through {HELPER}: install the package fuse3")
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
