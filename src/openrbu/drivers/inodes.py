"""The nodes of a tree of attributes, their modes, owners and times, and who may change them.

What sysfs does (docs/reference/linux-files.md, L1; each measured on Linux):

- A mode, an owner or a time stays until the node is removed. The first change sets all times of the
  node to now; each one sets the time of the change.
- The owner is of the first class of mode bits only, the group of the second, all others of the
  third. root is of all classes.
- A file without a read bit can't be opened for reading, not even by root; the same for writing. A
  binary attribute that can't be read or written can't be opened for it, whatever its mode.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from openrbu.buffers import Buffer
from openrbu.errors import KernelError
from openrbu.typed_json import Natural
from openrbu.units import PAGE_SIZE

_NS = 10**9

Time = int | Literal["now"] | None
"""A time to set, in nanoseconds; None: it stays."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The user that makes a system call, its groups, and whether it has CAP_SYS_RAWIO."""

    uid: Natural = 0
    sys_rawio: bool = True
    gids: tuple[Natural, ...] = ()

    @property
    def is_root(self) -> bool:
        return self.uid == 0


ROOT = Caller()

Show = Callable[[], str]
Store = Callable[[bytes], None]
BinaryRead = Callable[[int, int], bytes]
BinaryWrite = Callable[[int, Buffer], None]


@dataclass(frozen=True, slots=True)
class Change:
    """What chmod(2), chown(2) and utimensat(2) set of a node; None: it stays as it is."""

    mode: Natural | None = None
    uid: Natural | None = None
    gid: Natural | None = None
    accessed_ns: Time = None
    modified_ns: Time = None


@dataclass(slots=True, eq=False)
class Inode:
    """What every node has. The tree sets its number and its time (seconds) when it is added; the
    other times are None until something of it is changed."""

    number: int = field(default=0, kw_only=True)
    born_at: float = field(default=0.0, kw_only=True)
    is_of_hardware: bool = field(default=False, kw_only=True)  # a write changes no kernel
    uid: int = field(default=0, kw_only=True)
    gid: int = field(default=0, kw_only=True)
    accessed_ns: int | None = field(default=None, kw_only=True)
    modified_ns: int | None = field(default=None, kw_only=True)
    changed_at: float | None = field(default=None, kw_only=True)


@dataclass(slots=True, eq=False)
class TextAttribute(Inode):
    """An attribute of text. `show` makes the whole text, one character for each byte; `store` gets
    the bytes of one write. `size_bytes` is what `stat` shows: a page in sysfs, 0 in `/proc`.
    `show_others`: makes the text for users other than root; None: they get the same."""

    show: Show | None = None
    store: Store | None = None
    mode: int = 0o644
    size_bytes: int = PAGE_SIZE
    show_others: Show | None = None


@dataclass(slots=True, eq=False)
class BinaryAttribute(Inode):
    """An attribute of bytes. `reader(offset, size)` and `writer(offset, data)` get every call.

    `may_open`: called before it is opened, and raises when it must not be. `rawio`: a write needs
    CAP_SYS_RAWIO. `size_bytes` is what `stat` shows, and with `is_limited` nothing is read behind
    it; 0: no size is declared, and there is no limit.
    """

    reader: BinaryRead | None = None
    writer: BinaryWrite | None = None
    mode: int = 0o644
    size_bytes: int = 0
    rawio: bool = False
    is_limited: bool = True
    may_open: Callable[[], None] = lambda: None


Attribute = TextAttribute | BinaryAttribute


@dataclass(slots=True, eq=False)
class Symlink(Inode):
    """A symbolic link; `target` is as `readlink` shows it, relative or absolute."""

    target: str
    mode: int = 0o777

    size_bytes = 0


@dataclass(slots=True, eq=False)
class Directory(Inode):
    """A directory; `children` belong to the tree: use `SysfsTree.add` and `remove`."""

    children: dict[str, Node] = field(default_factory=dict)
    mode: int = 0o755

    size_bytes = 0


Node = Directory | TextAttribute | BinaryAttribute | Symlink


@dataclass(frozen=True, slots=True)
class Stat:
    """What `stat` shows. `mode` has the type's bits; `changed_at` is in seconds. Where the other
    times are None, they are the same."""

    mode: Natural
    link_count: Natural
    size_bytes: Natural
    inode: Natural
    changed_at: float
    uid: Natural = 0
    gid: Natural = 0
    accessed_ns: int | None = None
    modified_ns: int | None = None

    @classmethod
    def of(cls, node: Node) -> Stat:
        """As sysfs counts: a directory has two links and one for each directory in it."""
        links, kind = 1, stat.S_IFREG
        if isinstance(node, Directory):
            links = 2 + sum(isinstance(child, Directory) for child in node.children.values())
            kind = stat.S_IFDIR
        elif isinstance(node, Symlink):
            kind = stat.S_IFLNK
        changed_at = node.born_at if node.changed_at is None else node.changed_at
        return cls(
            kind | node.mode,
            links,
            node.size_bytes,
            node.number,
            changed_at,
            node.uid,
            node.gid,
            node.accessed_ns,
            node.modified_ns,
        )


def allowed_bits(mode: int, uid: int, gid: int, caller: Caller) -> int:
    """What the mode lets a caller do: `R_OK`, `W_OK`, `X_OK` together. For root: what it lets
    anyone do."""
    if caller.is_root:
        return (mode | mode >> 3 | mode >> 6) & 0o7
    if caller.uid == uid:
        return mode >> 6 & 0o7
    return (mode >> 3 if gid in caller.gids else mode) & 0o7


def require_openable(
    node: Attribute, path: str, caller: Caller, *, reading: bool, writing: bool
) -> None:
    """Check that a caller may open an attribute.

    :raise KernelError: EACCES when its mode, or the attribute, does not allow it.
    """
    allowed = allowed_bits(node.mode, node.uid, node.gid, caller)
    if isinstance(node, BinaryAttribute):
        allowed &= ~((0o4 if node.reader is None else 0) | (0o2 if node.writer is None else 0))
    wanted = (0o4 if reading else 0) | (0o2 if writing else 0)
    if wanted & ~allowed:
        raise KernelError(errno.EACCES, path)


def change(node: Node, path: str, wanted: Change, caller: Caller, now: float) -> None:
    """Change a node for a caller; `now` in seconds.

    :raise KernelError: EPERM or EACCES when the caller may not do it; then nothing is changed.
    """
    _require_changeable(node, path, wanted, caller)
    now_ns = int(now * _NS)
    if node.changed_at is None:
        node.accessed_ns = node.modified_ns = now_ns
    node.changed_at = now
    if wanted.accessed_ns is not None:
        node.accessed_ns = now_ns if wanted.accessed_ns == "now" else wanted.accessed_ns
    if wanted.modified_ns is not None:
        node.modified_ns = now_ns if wanted.modified_ns == "now" else wanted.modified_ns
    if wanted.uid is not None or wanted.gid is not None:
        node.uid = node.uid if wanted.uid is None else wanted.uid
        node.gid = node.gid if wanted.gid is None else wanted.gid
        if not isinstance(node, Directory):
            node.mode &= ~_dropped_by_chown(node.mode)
    if wanted.mode is not None:
        node.mode = wanted.mode & 0o7777
        if not caller.is_root and node.gid not in caller.gids:
            node.mode &= ~stat.S_ISGID


def _dropped_by_chown(mode: int) -> int:
    return stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)


def _require_changeable(node: Node, path: str, wanted: Change, caller: Caller) -> None:
    if caller.is_root:
        return
    if caller.uid != node.uid:
        is_touch = wanted == Change(accessed_ns="now", modified_ns="now")
        if is_touch and allowed_bits(node.mode, node.uid, node.gid, caller) & 0o2:
            return
        raise KernelError(errno.EACCES if is_touch else errno.EPERM, path)
    is_given_away = wanted.uid not in (None, node.uid)
    if is_given_away or wanted.gid not in (None, node.gid, *caller.gids):
        raise KernelError(errno.EPERM, path)
