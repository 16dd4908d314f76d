"""A mount namespace of its own, in which a program finds a virtual machine's files in place.

Theory of operation. The process enters a mount namespace (`enter`), opens `/dev/fuse` there and has
a FUSE file system mounted on `/sys`, whose root has the machine's `sys`, `proc` and `dev`
(`openrbu.fuse.overlay`). Once that is served, `furnish` binds its `sys` over `/sys` and this
computer's own entries on the placeholders in it, and files of its `proc` and `dev` on those that
are there. Nothing of it is seen outside of the namespace, and all of it goes with the last process
in it.

Nothing can be made in a real `/proc`. Where the machine has files in `/proc/xen`, and this computer
has no such directory, the machine's `proc` is bound over `/proc` as its `sys` over `/sys`.

Binding takes MS_REC throughout: in a user namespace nothing may be uncovered that a mount hides.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.fuse.overlay import LINKS_TO_SELF, MERGED, PROCESSES, REFUSED, Real
from openrbu.system.libc import MS_BIND, MS_NOSUID, MS_PRIVATE, MS_REC, call

# linux/sched.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000

# asm-generic/unistd.h, linux/fcntl.h, linux/mount.h. The numbers are those of every architecture
# but alpha.
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_RECURSIVE = -100, 0x100, 0x8000
_OPEN_TREE_CLONE, _F_EMPTY_PATH = 1, 4

PROC_FILES = (
    "/proc/buddyinfo",
    "/proc/kpageflags",
    "/proc/modules",
    "/proc/sys/kernel/random/boot_id",
)
"""What of the machine's `/proc` is shown, where this computer has such a file to bind it on."""

PORTS = "/dev/port"

XEN = "/proc/xen"
"""Files of Linux as a guest of Xen, which this computer may have no directory for."""

NO_ENTRY = (
    # This computer's firmware, past the files that are served.
    "/dev/cpu/*/msr",
    "/dev/ipmi*",
    "/dev/ipmi/*",
    "/dev/ipmidev/*",
    "/dev/kmem",
    "/dev/mem",
    "/dev/mtd*",
    "/dev/mtd/*",
    "/dev/nvram",
    "/dev/wmi/dell-smbios",
    # This computer's memory, in which nothing of the machine's is to be found.
    "/proc/kcore",
    # The hypervisor that this computer runs on, and who else is a guest of it.
    "/dev/xen/*",
    "/proc/xen/*",
    "/run/xenstored/*",
    # This computer's power: who answers there would restart it.
    "/dev/initctl",
    "/dev/watchdog*",
    "/proc/sysrq-trigger",
    "/run/dbus/system_bus_socket",
    "/run/initctl",
    "/run/openrc/init.ctl",
    "/run/systemd/private",
)
"""What a program must not reach that believes it runs on the virtual machine: glob patterns."""

Where = str | Path


def enter() -> None:
    """Give this process a mount namespace of its own, and a user namespace where it needs one.

    In that one it is uid 0, and a file that uid 0 owns is one that its user owns outside.

    :raise ObstacleError: when this computer does not allow it.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        call("unshare", _CLONE_NEWNS)
    except PermissionError:  # a plain user, or root in a container
        _enter_user_namespace(uid, gid)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def _enter_user_namespace(uid: int, gid: int) -> None:
    try:
        call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise ObstacleError(
            f"this process may have no namespace here ({error.strerror}): run it as root with "
            "CAP_SYS_ADMIN (a container: --cap-add SYS_ADMIN --device /dev/fuse), or have the "
            "administrator look at these sysctls: user.max_user_namespaces, "
            "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns"
        ) from None


def bind(source: Where, target: Where) -> None:
    """Show `source`, and what is mounted below it, at `target` as well.

    :raise OSError: as the kernel answers; it names the target.
    """
    try:
        call("mount", os.fsencode(source), os.fsencode(target), None, MS_BIND | MS_REC, None)
    except OSError as error:
        error.filename = str(target)
        raise


@contextlib.contextmanager
def cloned(path: str) -> Iterator[int]:
    """What is at `path` now, and what is mounted below it, to be shown elsewhere, too (`attach`). A
    link stands for itself: open_tree(2).

    :raise OSError: as the kernel answers.
    """
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | _AT_SYMLINK_NOFOLLOW | os.O_CLOEXEC
    fd = call("syscall", _OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    try:
        yield fd
    finally:
        os.close(fd)


def attach(tree: int, path: str) -> None:
    """Show what was `cloned` at `path`, which may be a link: move_mount(2).

    :raise OSError: as the kernel answers.
    """
    call("syscall", _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(path), _F_EMPTY_PATH)


@contextlib.contextmanager
def pinned(path: Where) -> Iterator[Path]:
    """What is at `path` now, as a path that leads there whatever is mounted over it."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def furnish(served: Path, real_sys: Path, real: Mapping[str, Real]) -> None:
    """Put a machine's files in place. `served` is the root of the file system that has them,
    `real_sys` what was at `/sys` before, `real` the placeholders in it. Both paths are `pinned`.

    :raise OSError: as the kernel answers.
    """
    here = Path.cwd()
    bind(served / "sys", "/sys")
    for path in _placeholders(real, "/sys/"):
        with contextlib.suppress(FileNotFoundError):  # gone since the names were taken
            bind(real_sys / path.removeprefix("/sys/"), path)
    for path in PROC_FILES:
        _bind_if_there(served / path[1:], path)
    if (served / PORTS[1:]).exists():
        if not Path(PORTS).exists():
            replace_dev()
            Path(PORTS).touch()
        bind(served / PORTS[1:], PORTS)
    for pattern in NO_ENTRY:
        for found in Path("/").glob(pattern[1:]):
            _bind_if_there(served / REFUSED[1:], found)
    _show_xen(served, real)
    if any(map(here.is_relative_to, ("/dev", "/proc", "/sys"))):
        with contextlib.suppress(FileNotFoundError):
            os.chdir(here)


def _placeholders(real: Mapping[str, Real], above: str) -> Iterator[str]:
    """Where something real is to be bound, of what begins with `above`."""
    for path, entry in real.items():
        if path.startswith(above) and path not in MERGED and entry.kind != stat.S_IFLNK:
            yield path


def _show_xen(served: Path, real: Mapping[str, Real]) -> None:
    """Show what the machine has in `/proc/xen`, if anything, and nothing of this computer's.

    :raise OSError: as the kernel answers.
    """
    xen = served / XEN[1:]
    if Path(XEN).exists():
        _bind_if_there(xen, XEN)
    elif xen.exists() and any(xen.iterdir()):
        _replace_proc(served, real)


def _replace_proc(served: Path, real: Mapping[str, Real]) -> None:
    """Put the served `/proc` in place, and what is at `/proc` now, as far as it is furnished by
    then, in that.

    :raise OSError: as the kernel answers.
    """
    with cloned("/proc") as before:
        bind(served / "proc", "/proc")
        attach(before, PROCESSES)
    for name in LINKS_TO_SELF:  # who reads one of them wants a number
        with cloned(f"{PROCESSES}/{name}") as link:
            attach(link, f"/proc/{name}")
    for path in _placeholders(real, "/proc/"):
        _bind_if_there(Path(PROCESSES, path.removeprefix("/proc/")), path)


def _bind_if_there(source: Path, target: Where) -> None:
    """Bind unless one of the two is missing, or behind a directory that nobody here may enter."""
    try:
        bind(source, target)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            raise


def replace_dev() -> None:
    """Put a `/dev` with the same entries over it, in which more can be made.

    :raise OSError: as the kernel answers.
    """
    with pinned("/dev") as real:
        call("mount", b"none", b"/dev", b"tmpfs", MS_NOSUID, b"mode=755")
        for entry in real.iterdir():
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                _repeat(entry, Path("/dev", entry.name))


def _repeat(entry: Path, path: Path) -> None:
    """Show an entry at `path` as well, where nothing is.

    :raise FileNotFoundError: when it goes meanwhile; nothing is at `path` then.
    """
    mode = entry.lstat().st_mode
    if stat.S_ISLNK(mode):
        path.symlink_to(entry.readlink())
        return
    if stat.S_ISDIR(mode):
        path.mkdir()
    else:
        path.touch()
    try:
        bind(entry, path)
    except FileNotFoundError:
        path.rmdir() if stat.S_ISDIR(mode) else path.unlink()
        raise
