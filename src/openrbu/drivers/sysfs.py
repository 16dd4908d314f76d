"""A tree of attributes: the interface between a driver and the code that serves its files.

A driver adds directories, attributes and links. In-process callers, FUSE and the tests all use
`SysfsTree.read`, `write`, `list` and `lookup`, and get the kernel's errno in a `KernelError`.

What sysfs does (docs/reference/linux-files.md, L1; each measured on Linux):

- A text attribute makes its whole text when it is read. A read that begins where the last read of
  the same open file ended continues with the same text; a read at another offset, or at 0, makes
  the text again. Every write is a new store, at any offset.
- A binary attribute gets offset and size unchanged.
- One call moves at most a page. A write of no bytes is not a store.
- An attribute that can't be read or written, and whose mode was changed so that it can be opened
  for it, says EIO.
- When an attribute is removed, a file that is open returns ENODEV from then on, also when another
  attribute is added at the same path.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TypeVar

from openrbu.buffers import Buffer
from openrbu.drivers.inodes import (
    ROOT,
    Attribute,
    BinaryAttribute,
    Caller,
    Change,
    Directory,
    Node,
    Stat,
    Symlink,
    TextAttribute,
    change,
    require_openable,
)
from openrbu.errors import KernelError
from openrbu.units import PAGE_SIZE

__all__ = (
    "ROOT",
    "Attribute",
    "BinaryAttribute",
    "Caller",
    "Change",
    "Directory",
    "Node",
    "OpenFile",
    "Stat",
    "Symlink",
    "SysfsTree",
    "TextAttribute",
)

_MAX_LINKS = 40  # Linux follows no more than 40 links in one path (path_resolution(7))

_NodeT = TypeVar("_NodeT", bound=Node)


class OpenFile:
    """An attribute that a program has opened. The file's mode was checked before."""

    __slots__ = ("_changes", "_is_root", "_path", "_read_to", "_shown", "_tree", "attribute")

    def __init__(self, tree: SysfsTree, path: str, attribute: Attribute, caller: Caller) -> None:
        self._tree, self._path = tree, path
        self.attribute, self._is_root = attribute, caller.is_root
        self._shown, self._read_to = b"", 0
        self._changes = -1  # of the tree, at the last check that the attribute is there

    def stat(self) -> Stat:
        """`fstat`."""
        return Stat.of(self.attribute)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One `pread`.

        :raise KernelError: ENODEV when the attribute was removed, or the attribute's own error.
        """
        self._require_there()
        attribute = self.attribute
        if isinstance(attribute, TextAttribute):
            return self._read_text(attribute, offset, size_bytes)
        if attribute.size_bytes and attribute.is_limited:
            size_bytes = min(size_bytes, max(0, attribute.size_bytes - offset))
        size_bytes = min(size_bytes, self._tree.transfer_limit_bytes or size_bytes)
        assert attribute.reader is not None
        return attribute.reader(offset, size_bytes) if size_bytes else b""

    def _read_text(self, attribute: TextAttribute, offset: int, size_bytes: int) -> bytes:
        if offset == 0 or offset != self._read_to:
            show = attribute.show if self._is_root else attribute.show_others or attribute.show
            if show is None:
                raise KernelError(errno.EIO, self._path)
            self._shown = show().encode("latin-1")
        part = self._shown[offset : offset + size_bytes]
        self._read_to = offset + len(part)
        return part

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        """One `pwrite`. Returns the number of bytes written, which may be less than all.

        :raise KernelError: ENODEV when the attribute was removed, EPERM without CAP_SYS_RAWIO if
            that is needed, or the attribute's own error.
        """
        self._require_there()
        attribute = self.attribute
        if not data:
            return 0
        if isinstance(attribute, TextAttribute):
            taken = data[:PAGE_SIZE]
            if attribute.store is None:
                raise KernelError(errno.EIO, self._path)
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
        if not self._tree.is_at(self._path, self.attribute):
            raise KernelError(errno.ENODEV, self._path)
        self._changes = self._tree.changes


class SysfsTree:
    """A tree of nodes. Paths are absolute in the tree: `/devices/…` in a tree mounted at `/sys`.

    `numbers` are the inode numbers for new nodes, `now` is the time in seconds. A binary file moves
    at most `transfer_limit_bytes` in one call; None: no limit.
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
        """Add `node` at `path`, and the directories above it.

        :raise KernelError: EEXIST when there is a node, ENOTDIR when a part is not a directory.
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
        """Remove the node at `path`, and all nodes below it. Links are not followed.

        :raise KernelError: ENOENT when there is no node.
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
        node, _ = self._direct(path)
        if node is None or (follow and isinstance(node, Symlink)):
            node = self._walk(path, follow=follow)[1]
        return node

    def _direct(self, path: str) -> tuple[Node | None, bool]:
        """The fast way for a path without links, as nearly all are: the node, and whether it is
        known that there is no other. None: there is none, or `_walk` has to find it."""
        node: Node = self.root
        for part in path.split("/"):
            if not part:
                continue
            if part in (".", "..") or not isinstance(node, Directory):
                return None, False
            child = node.children.get(part)
            if child is None:
                return None, True
            node = child
        return node, not isinstance(node, Symlink)

    def _walk(self, path: str, *, follow: bool) -> tuple[list[str], Node]:
        """Follow `path`. Returns the names from the root to the node, and the node."""
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

    def is_at(self, path: str, node: Node) -> bool:
        """Whether `node` is at `path`, a path without links."""
        here: Node | None = self.root
        for part in _parts(path):
            if not isinstance(here, Directory):
                return False
            here = here.children.get(part)
        return here is node

    def exists(self, path: str) -> bool:
        """Whether `path` leads to a node; links are followed."""
        node, is_known = self._direct(path)
        if is_known:
            return node is not None
        try:
            self._walk(path, follow=True)
        except KernelError:
            return False
        return True

    def stat(self, path: str, *, follow: bool = True) -> Stat:
        """What `stat` shows, or `lstat` without `follow`.

        :raise KernelError: as `lookup`.
        """
        return Stat.of(self.lookup(path, follow=follow))

    def change(self, path: str, wanted: Change, caller: Caller = ROOT) -> None:
        """chmod(2), chown(2) or utimensat(2) of the node at a path. A last link is not followed.

        :raise KernelError: EPERM, EACCES, or as `lookup`.
        """
        change(self.lookup(path, follow=False), path, wanted, caller, self._now())

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted.

        :raise KernelError: ENOTDIR when it is not a directory.
        """
        node = self.lookup(path)
        if not isinstance(node, Directory):
            raise KernelError(errno.ENOTDIR, path)
        return sorted(node.children)

    def readlink(self, path: str) -> str:
        """The target of a link.

        :raise KernelError: EINVAL when it is not a link.
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
        node, is_known = self._direct(path)
        names: Iterable[str] = filter(None, path.split("/"))
        if node is None or not is_known:
            names, node = self._walk(path, follow=True)
        if isinstance(node, Directory):
            raise KernelError(errno.EISDIR, path)
        assert not isinstance(node, Symlink)
        require_openable(node, path, caller, reading=reading, writing=writing)
        if isinstance(node, BinaryAttribute):
            node.may_open()
        return OpenFile(self, "/".join(names), node, caller)

    def read(
        self, path: str, offset: int = 0, size_bytes: int = PAGE_SIZE, *, caller: Caller = ROOT
    ) -> bytes:
        """Open, one `pread`, close.

        :raise KernelError: as `open` and `OpenFile.read`.
        """
        return self.open(path, reading=True, caller=caller).read(offset, size_bytes)

    def write(self, path: str, data: Buffer, offset: int = 0, *, caller: Caller = ROOT) -> int:
        """Open, one `pwrite`, close. Returns the number of bytes written.

        :raise KernelError: as `open` and `OpenFile.write`.
        """
        file = self.open(path, writing=True, caller=caller)
        return file.write(offset, data, sys_rawio=caller.sys_rawio)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
