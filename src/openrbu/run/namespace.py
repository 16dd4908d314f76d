"""A mount namespace in which a program finds a virtual machine's files at their usual paths.

Theory of operation. The process enters a new mount namespace (`enter`), opens `/dev/fuse` there and
mounts a FUSE file system on `/sys`. The root of that file system has the machine's `sys`, `proc`
and `dev` (`openrbu.run.overlay`). Once it is served, `install_files` binds the machine's `sys`
over `/sys`, this computer's own entries on the placeholders in it, and the machine's files of
`proc` and `dev` on the files of this computer. All this is visible only inside of the namespace,
and ends with the last process in it.

No file can be made in a real `/proc`. Where the machine has files in `/proc/xen`, or one at
`/proc/kcore`, and this computer has none, the machine's `proc` is bound over `/proc`, as its `sys`
over `/sys`.

What is left of this computer's `/sys` and `/proc/sys` can only be read (`openrbu.run.read_only`).

Every bind mount needs MS_REC: in a user namespace the kernel does not allow to uncover what another
mount hides.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.hosts.linux import JOURNAL
from openrbu.hosts.own_driver import REAL_SYS
from openrbu.run.overlay import (
    LINKS_TO_SELF,
    OF_MACHINE,
    OF_OWN_DRIVER,
    PROCESSES,
    REFUSED,
    Places,
    RealEntry,
)
from openrbu.run.read_only import OF_PROC, make_read_only
from openrbu.run.shown_files import DEVICES, EMPTY, NO_ENTRY, PROC_FILES, XEN
from openrbu.system.libc import MS_BIND, MS_NOSUID, MS_PRIVATE, MS_REC, call

# linux/sched.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000

# asm-generic/unistd.h, linux/fcntl.h, linux/mount.h. The numbers are those of every architecture
# but alpha.
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_RECURSIVE = -100, 0x100, 0x8000
_OPEN_TREE_CLONE, _F_EMPTY_PATH = 1, 4

HISTORY = Path(JOURNAL).parent
_PTMX = Path("/dev/ptmx")

Where = str | Path


def enter() -> None:
    """Give this process a new mount namespace, and a new user namespace where it needs one.

    In the user namespace the process is uid 0, and files of its user outside belong to uid 0.

    :raise ObstacleError: when this computer does not allow it.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        call("unshare", _CLONE_NEWNS)
    except PermissionError:  # a plain user, or root in a container
        _enter_user_namespace(uid, gid)
    try:
        _make_mounts_private(b"/")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _make_mounts_private_from_a_chroot()


def _make_mounts_private(top: bytes) -> None:
    """Keep what is mounted here from other namespaces. `top`: where the uppermost mount is.

    :raise OSError: the kernel's error; EINVAL when `top` is no mount point.
    """
    call("mount", b"none", top, None, MS_REC | MS_PRIVATE, None)


def _make_mounts_private_from_a_chroot() -> None:
    """The same where `/` is a plain directory, as chroot(1) makes it: the mount that it is in can
    be changed only from above. A process whose working directory is not below its root finds the
    way up by `..`, chroot(2); afterwards it has the same root and working directory as before.

    :raise OSError: the kernel's error.
    """
    with opened_directory("/") as root, opened_directory(".") as here:
        os.chroot("/sys")  # any directory
        os.fchdir(root)
        while not Path().samefile(".."):
            os.chdir("..")
        try:
            _make_mounts_private(b".")
        finally:
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(here)


@contextlib.contextmanager
def opened_directory(path: Where) -> Iterator[int]:
    """A descriptor (O_PATH) of a directory.

    :raise OSError: the kernel's error.
    """
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _enter_user_namespace(uid: int, gid: int) -> None:
    try:
        call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise ObstacleError(
            f"this process may not make a namespace ({error.strerror}): run it as root with "
            "CAP_SYS_ADMIN (a container: --cap-add SYS_ADMIN --device /dev/fuse), or have the "
            "administrator check these sysctls: user.max_user_namespaces, "
            "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns; in a "
            "chroot only root may"
        ) from None


def bind(source: Where, target: Where) -> None:
    """Show `source`, and what is mounted below it, at `target` too: a bind mount, mount(2).

    :raise OSError: the kernel's error; its file name is `target`.
    """
    try:
        call("mount", os.fsencode(source), os.fsencode(target), None, MS_BIND | MS_REC, None)
    except OSError as error:
        error.filename = str(target)
        raise


@contextlib.contextmanager
def cloned(path: str) -> Iterator[int]:
    """A descriptor of what is at `path` now, with what is mounted below it, for `attach`. A
    symbolic link is not followed: open_tree(2).

    :raise OSError: the kernel's error.
    """
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | _AT_SYMLINK_NOFOLLOW | os.O_CLOEXEC
    fd = call("syscall", _OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    try:
        yield fd
    finally:
        os.close(fd)


def attach(tree: int, path: str) -> None:
    """Show a `cloned` tree at `path`, which may be a symbolic link: move_mount(2).

    :raise OSError: the kernel's error.
    """
    call("syscall", _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(path), _F_EMPTY_PATH)


@contextlib.contextmanager
def pinned(path: Where) -> Iterator[Path]:
    """Another path to the directory that is at `path` now. It stays valid when something is mounted
    over `path`."""
    with opened_directory(path) as fd:
        yield Path(f"/proc/self/fd/{fd}")


def install_files(served: Path, real_sys: Path, real: Mapping[str, RealEntry]) -> None:
    """Mount a machine's files at their usual paths.

    `served` is the root of the file system that has them, `real_sys` the directory that was at
    `/sys` before; both are `pinned` paths. `real` are this computer's entries in the merged
    directories, by path.

    :raise OSError: the kernel's error.
    """
    here = working_directory()
    for path in _install_sys(served, real_sys, real, OF_MACHINE):
        make_read_only(path)
    for path in filter(os.path.isdir, OF_PROC):
        bind(path, path)
        make_read_only(path)
    for path in PROC_FILES:
        source = served / path[1:]
        _bind_if_there(source if source.exists() else served / REFUSED[1:], path)
    _show_devices(served)
    for path in EMPTY:
        _bind_if_there(Path(os.devnull), path)
    for pattern in NO_ENTRY:
        for found in Path("/").glob(pattern[1:]):
            _bind_if_there(served / REFUSED[1:], found)
    _show_what_proc_lacks(served, real)
    enter_again(here, "/dev", "/proc", "/sys")


def install_own_driver(served: Path, real_sys: Path, real: Mapping[str, RealEntry]) -> None:
    """Mount the files of openrbu's own driver at their usual paths: as `install_files`, and all
    else stays this computer's.

    :raise OSError: the kernel's error.
    """
    here = working_directory()
    for _ in _install_sys(served, real_sys, real, OF_OWN_DRIVER):
        pass  # it can be written
    # Alone: what is mounted on it is what is served, too.
    call("mount", os.fsencode(real_sys), os.fsencode(REAL_SYS), None, MS_BIND, None)
    enter_again(here, "/sys")


def _install_sys(
    served: Path, real_sys: Path, real: Mapping[str, RealEntry], places: Places
) -> Iterator[str]:
    """Mount what is served at `/sys`, and bind this computer's own entries in it, one at each step.

    :raise OSError: the kernel's error.
    """
    bind(served / "sys", "/sys")
    for path in _placeholders(real, "/sys/", places):
        with contextlib.suppress(FileNotFoundError):  # gone since the names were taken
            bind(real_sys / path.removeprefix("/sys/"), path)
            yield path


def _placeholders(
    real: Mapping[str, RealEntry], above: str, places: Places = OF_MACHINE
) -> Iterator[str]:
    """The paths of `real` that begin with `above` and on which the real entry is to be bound."""
    for path, entry in real.items():
        if path.startswith(above) and path not in places.merged and entry.kind != stat.S_IFLNK:
            yield path


def _make_ptmx() -> None:
    """Make the device of which programs get terminals, pts(4). No bind mount of it would do: the
    kernel looks for `pts` beside it. In a user namespace it is a link to the one in there.

    :raise OSError: the kernel's error.
    """
    try:
        os.mknod(_PTMX, stat.S_IFCHR, os.makedev(5, 2))
        _PTMX.chmod(0o666)
    except PermissionError:
        _PTMX.symlink_to(f"pts/{_PTMX.name}")


def _show_devices(served: Path) -> None:
    """Show the machine's files in `/dev`.

    :raise OSError: the kernel's error.
    """
    missing = [each for each in DEVICES if not Path(each).exists() and (served / each[1:]).exists()]
    if missing:
        replace("/dev", without=(_PTMX.name,))
        _make_ptmx()
    for path in missing:
        Path(path).touch()
    for path in DEVICES:
        source = served / path[1:]
        _bind_if_there(source if source.exists() else served / REFUSED[1:], path)


def _show_what_proc_lacks(served: Path, real: Mapping[str, RealEntry]) -> None:
    """Show the machine's `/proc/xen`, if it has files there, and hide this computer's. Where the
    machine has that, or another of the files, and this computer's `/proc` has no such name to bind
    it on, the machine's `/proc` is shown.

    :raise OSError: the kernel's error.
    """
    xen = served / XEN[1:]
    if Path(XEN).exists():
        _bind_if_there(xen, XEN)
    elif xen.exists() and any(xen.iterdir()):
        _replace_proc(served, real)
        return
    names = [path for path in PROC_FILES if path.count("/") == XEN.count("/")]
    if any(not Path(each).exists() and (served / each[1:]).exists() for each in names):
        _replace_proc(served, real)


def _replace_proc(served: Path, real: Mapping[str, RealEntry]) -> None:
    """Bind the served `/proc` over `/proc`, and attach what was at `/proc` until then, with its
    mounts, to it at `PROCESSES`.

    :raise OSError: the kernel's error.
    """
    with cloned("/proc") as before:
        bind(served / "proc", "/proc")
        attach(before, PROCESSES)
    for name in LINKS_TO_SELF:  # programs expect a number when they read one of these
        with cloned(f"{PROCESSES}/{name}") as link:
            attach(link, f"/proc/{name}")
    for path in _placeholders(real, "/proc/"):
        _bind_if_there(Path(PROCESSES, path.removeprefix("/proc/")), path)


def _bind_if_there(source: Path, target: Where) -> None:
    """Bind, unless one of the two paths is missing or in a directory that may not be entered."""
    try:
        bind(source, target)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            raise


def show_history(directory: Path) -> None:
    """Show a machine's directory where Linux has its history of updates: the machine's journal is
    in it, and the lock of its updates is on it. So a program has both as `rbu --machine` has them.

    :raise OSError: the kernel's error.
    """
    here = working_directory()
    if not HISTORY.exists():
        replace(str(HISTORY.parent))
        HISTORY.mkdir()
    bind(directory, HISTORY)
    enter_again(here, str(HISTORY.parent))


def working_directory() -> Path | None:
    """This process's working directory; None where it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def enter_again(here: Path | None, *covered: str) -> None:
    """Enter the working directory once more, where it is in one of `covered`, which something was
    mounted over."""
    if here is not None and any(map(here.is_relative_to, covered)):
        with contextlib.suppress(FileNotFoundError):
            os.chdir(here)


def replace(path: str, without: Collection[str] = ()) -> None:
    """Mount a tmpfs over a directory that has the same entries, so that more can be made there;
    names in `without` are left out.

    :raise OSError: the kernel's error.
    """
    with pinned(path) as real:
        mount_tmpfs(path)
        mirror(real, path, without)


def mirror(real: Path, path: str, without: Collection[str] = ()) -> None:
    """Make the entries of the directory `real` at `path`, too; names in `without` are left out.

    :raise OSError: the kernel's error.
    """
    for entry in real.iterdir():
        if entry.name not in without:
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                _mirror_entry(entry, Path(path, entry.name))


def mount_tmpfs(path: Where) -> None:
    """Mount an empty tmpfs over a directory.

    :raise OSError: the kernel's error.
    """
    call("mount", b"none", os.fsencode(path), b"tmpfs", MS_NOSUID, b"mode=755")


def _mirror_entry(entry: Path, path: Path) -> None:
    """Make the same entry at `path`, which does not exist: a link, or a bind mount.

    :raise FileNotFoundError: when `entry` has been removed; `path` does not exist then.
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
