"""A tree of attributes: the contract between a driver and whatever serves its files.

A driver adds directories, attributes and links. In-process callers, FUSE and the tests all use
`SysfsTree.read`, `write`, `list` and `lookup`, and get the kernel's errno in a `KernelError`.

What sysfs does (docs/reference/linux-files.md, L1; each seen on Linux):

- A text attribute is shown whole when it is read. A read that goes on where the last one of the
  same open file ended gets more of what was shown then; one at another offset, and one at 0, has
  it shown anew. Every write is a fresh store, whatever its offset.
- A binary attribute gets offset and size as they are.
- A kernel moves a page at most in one call, and writing nothing is no store.
- Nobody, root included, opens for reading what has no read bit or for writing what has no write
  bit: EACCES. Other users than root are held to the mode bits.
- A file that is open when its attribute goes answers ENODEV from then on, also when another one
  comes in its place.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from openrbu.buffers import Buffer
from openrbu.errors import KernelError
from openrbu.units import PAGE_SIZE

_MAX_LINKS = 40  # Linux follows no more than 40 links in one path (path_resolution(7))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a system call: a user, and whether CAP_SYS_RAWIO is among its capabilities."""

    uid: int = 0
    sys_rawio: bool = True

    @property
    def is_root(self) -> bool:
        return self.uid == 0


ROOT = Caller()

Show = Callable[[], str]
Store = Callable[[bytes], None]
BinaryRead = Callable[[int, int], bytes]
BinaryWrite = Callable[[int, Buffer], None]


@dataclass(slots=True, eq=False)
class _Inode:
    """What every node has. The tree gives it a number and a time (seconds) when it is added."""

    number: int = field(default=0, kw_only=True)
    born_at: float = field(default=0.0, kw_only=True)


@dataclass(slots=True, eq=False)
class TextAttribute(_Inode):
    """An attribute of text: `show` makes all of it, one character for a byte; `store` takes one
    write. `size_bytes` is what `stat` shows: a page in sysfs, 0 in `/proc`."""

    show: Show | None = None
    store: Store | None = None
    mode: int = 0o644
    size_bytes: int = PAGE_SIZE


@dataclass(slots=True, eq=False)
class BinaryAttribute(_Inode):
    """An attribute of bytes: `reader(offset, size)` and `writer(offset, data)` see every call.

    `rawio` means that writing takes CAP_SYS_RAWIO. `size_bytes` is what `stat` shows; 0 means no
    size was declared, and no limit.
    """

    reader: BinaryRead | None = None
    writer: BinaryWrite | None = None
    mode: int = 0o644
    size_bytes: int = 0
    rawio: bool = False


Attribute = TextAttribute | BinaryAttribute


@dataclass(slots=True, eq=False)
class Symlink(_Inode):
    """A symbolic link; `target` is as `readlink` shows it, relative or absolute."""

    target: str
    mode: int = 0o777

    size_bytes = 0


@dataclass(slots=True, eq=False)
class Directory(_Inode):
    """A directory; `children` belong to the tree: use `SysfsTree.add` and `remove`."""

    children: dict[str, Node] = field(default_factory=dict)
    mode: int = 0o755

    size_bytes = 0


Node = Directory | TextAttribute | BinaryAttribute | Symlink
_NodeT = TypeVar("_NodeT", bound=Node)


@dataclass(frozen=True, slots=True)
class Stat:
    """What `stat` shows. `mode` has the type's bits; `changed_at` is in seconds."""

    mode: int
    link_count: int
    size_bytes: int
    inode: int
    changed_at: float

    @classmethod
    def of(cls, node: Node) -> Stat:
        """As sysfs counts: a directory has two links and one for each directory in it."""
        links, kind = 1, stat.S_IFREG
        if isinstance(node, Directory):
            links = 2 + sum(isinstance(child, Directory) for child in node.children.values())
            kind = stat.S_IFDIR
        elif isinstance(node, Symlink):
            kind = stat.S_IFLNK
        return cls(kind | node.mode, links, node.size_bytes, node.number, node.born_at)


class OpenFile:
    """An attribute that a program has open. What the file's mode lets it do was checked before."""

    __slots__ = ("_changes", "_path", "_read_to", "_shown", "_tree", "attribute")

    def __init__(self, tree: SysfsTree, path: str, attribute: Attribute) -> None:
        self._tree, self._path = tree, path
        self.attribute = attribute
        self._shown, self._read_to = b"", 0
        self._changes = -1  # of the tree, up to which the attribute is known to be there

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One `pread`.

        :raise KernelError: ENODEV when the attribute is gone, or what it answers.
        """
        self._require_there()
        attribute = self.attribute
        if isinstance(attribute, TextAttribute):
            return self._read_text(attribute, offset, size_bytes)
        if attribute.size_bytes:
            size_bytes = min(size_bytes, max(0, attribute.size_bytes - offset))
        size_bytes = min(size_bytes, self._tree.transfer_limit_bytes or size_bytes)
        assert attribute.reader is not None
        return attribute.reader(offset, size_bytes) if size_bytes else b""

    def _read_text(self, attribute: TextAttribute, offset: int, size_bytes: int) -> bytes:
        if offset == 0 or offset != self._read_to:
            assert attribute.show is not None
            self._shown = attribute.show().encode("latin-1")
        piece = self._shown[offset : offset + size_bytes]
        self._read_to = offset + len(piece)
        return piece

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        """One `pwrite`; the number of bytes taken, which may be less than all.

        :raise KernelError: ENODEV when the attribute is gone, EPERM without CAP_SYS_RAWIO where
            that is needed, or what the attribute answers.
        """
        self._require_there()
        attribute = self.attribute
        if not data:
            return 0
        if isinstance(attribute, TextAttribute):
            taken = data[:PAGE_SIZE]
            assert attribute.store is not None
            attribute.store(bytes(taken))
            return len(taken)
        if attribute.rawio and not sys_rawio:
            raise KernelError(errno.EPERM, self._path)
        taken = data[: self._tree.transfer_limit_bytes]
        assert attribute.writer is not None
        attribute.writer(offset, taken)
        return len(taken)

    def _require_there(self) -> None:
        if self._changes == self._tree.changes:
            return
        if not self._tree.holds(self._path, self.attribute):
            raise KernelError(errno.ENODEV, self._path)
        self._changes = self._tree.changes


class SysfsTree:
    """Paths to nodes. Paths are absolute in the tree: `/devices/…` in a tree mounted at `/sys`.

    `numbers` are the inode numbers to give out, `now` is the time in seconds. A binary file moves
    `transfer_limit_bytes` at most in one call; None: as many as are asked for.
    """

    def __init__(
        self,
        *,
        numbers: Iterator[int] | None = None,
        now: Callable[[], float] = lambda: 0.0,
        transfer_limit_bytes: int | None = None,
    ) -> None:
        self._numbers = count(1) if numbers is None else numbers
        self._now = now
        self.transfer_limit_bytes = transfer_limit_bytes
        self.changes = 0
        """How often a node was added or removed."""
        self.root = self._born(Directory())

    def _born(self, node: _NodeT) -> _NodeT:
        node.number, node.born_at = next(self._numbers), self._now()
        return node

    # -- for drivers ------------------------------------------------------------------------

    def add(self, path: str, node: Node) -> None:
        """Put `node` at `path`, making the directories above it.

        :raise KernelError: EEXIST when something is there, ENOTDIR when a part is no directory.
        """
        *above, name = _parts(path)
        directory = self.root
        for part in above:
            child = directory.children.get(part)
            if child is None:
                child = directory.children[part] = self._born(Directory())
            if not isinstance(child, Directory):
                raise KernelError(errno.ENOTDIR, path)
            directory = child
        if name in directory.children:
            raise KernelError(errno.EEXIST, path)
        directory.children[name] = self._born(node)
        self.changes += 1

    def remove(self, path: str) -> None:
        """Take away what is at `path`, and all below it. Links are not followed.

        :raise KernelError: ENOENT when nothing is there.
        """
        *above, name = _parts(path)
        directory = self.lookup("/" + "/".join(above))
        if not isinstance(directory, Directory) or name not in directory.children:
            raise KernelError(errno.ENOENT, path)
        del directory.children[name]
        self.changes += 1

    # -- for callers ------------------------------------------------------------------------

    def lookup(self, path: str, *, follow: bool = True) -> Node:
        """The node at `path`; links are followed, the last one only with `follow`.

        :raise KernelError: ENOENT, ENOTDIR or ELOOP, as path lookup in Linux does.
        """
        node: Node | None = self.root
        for part in path.split("/"):  # straight through directories, as nearly all paths lead
            if part:
                node = node.children.get(part) if isinstance(node, Directory) else None
        if node is None or (follow and isinstance(node, Symlink)):
            node = self._walk(path, follow=follow)[1]
        return node

    def _walk(self, path: str, *, follow: bool) -> tuple[list[str], Node]:
        """Where `path` really leads: the names from the root down, and the node."""
        todo = _parts(path)[::-1]
        names: list[str] = []
        trail: list[Directory] = [self.root]
        node: Node = self.root
        links = 0
        while todo:
            part = todo.pop()
            if not isinstance(node, Directory):
                raise KernelError(errno.ENOTDIR, path)
            if part == "..":
                trail = trail[:-1] or [self.root]
                names = names[:-1]
                node = trail[-1]
                continue
            child = node.children.get(part)
            if child is None:
                raise KernelError(errno.ENOENT, path)
            if isinstance(child, Symlink) and (todo or follow):
                links += 1
                if links > _MAX_LINKS:
                    raise KernelError(errno.ELOOP, path)
                todo.extend(_parts(child.target)[::-1])
                if child.target.startswith("/"):
                    names, trail = [], [self.root]
                node = trail[-1]
                continue
            node = child
            names.append(part)
            if isinstance(child, Directory):
                trail.append(child)
        return names, node

    def holds(self, path: str, node: Node) -> bool:
        """Whether `node` is at `path`, which has no link in it."""
        here: Node | None = self.root
        for part in _parts(path):
            if not isinstance(here, Directory):
                return False
            here = here.children.get(part)
        return here is node

    def exists(self, path: str) -> bool:
        """Whether `path` leads to anything, links followed."""
        try:
            self.lookup(path)
        except KernelError:
            return False
        return True

    def stat(self, path: str, *, follow: bool = True) -> Stat:
        """What `stat` shows, or `lstat` without `follow`.

        :raise KernelError: as `lookup`.
        """
        return Stat.of(self.lookup(path, follow=follow))

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted.

        :raise KernelError: ENOTDIR when it is none.
        """
        node = self.lookup(path)
        if not isinstance(node, Directory):
            raise KernelError(errno.ENOTDIR, path)
        return sorted(node.children)

    def readlink(self, path: str) -> str:
        """Where a link leads.

        :raise KernelError: EINVAL when it is no link.
        """
        node = self.lookup(path, follow=False)
        if not isinstance(node, Symlink):
            raise KernelError(errno.EINVAL, path)
        return node.target

    def open(
        self, path: str, *, reading: bool = False, writing: bool = False, caller: Caller = ROOT
    ) -> OpenFile:
        """Open an attribute for one of the two, or both.

        :raise KernelError: EACCES, EISDIR, or as `lookup`.
        """
        names, node = self._walk(path, follow=True)
        if isinstance(node, Directory):
            raise KernelError(errno.EISDIR, path)
        assert not isinstance(node, Symlink)
        if reading:
            _require(node.mode, 0o444, caller, path)
        if writing:
            _require(node.mode, 0o222, caller, path)
        return OpenFile(self, "/".join(names), node)

    def read(
        self, path: str, offset: int = 0, size_bytes: int = PAGE_SIZE, *, caller: Caller = ROOT
    ) -> bytes:
        """Open, one `pread`, close.

        :raise KernelError: as `open` and `OpenFile.read`.
        """
        return self.open(path, reading=True, caller=caller).read(offset, size_bytes)

    def write(self, path: str, data: Buffer, offset: int = 0, *, caller: Caller = ROOT) -> int:
        """Open, one `pwrite`, close; the number of bytes taken.

        :raise KernelError: as `open` and `OpenFile.write`.
        """
        file = self.open(path, writing=True, caller=caller)
        return file.write(offset, data, sys_rawio=caller.sys_rawio)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _require(mode: int, wanted: int, caller: Caller, path: str) -> None:
    """Every attribute belongs to root; `wanted` is 0o444 to read, 0o222 to write."""
    bits = mode & wanted & (0o777 if caller.is_root else 0o007)
    if not bits:
        raise KernelError(errno.EACCES, path)
