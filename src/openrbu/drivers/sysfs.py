"""A tree of attributes: the contract between a driver and whatever serves its files.

A driver adds directories, attributes and links. In-process callers, FUSE and the tests all use
`SysfsTree.read`, `write`, `list` and `lookup`, and get the kernel's errno in a `KernelError`.

What sysfs does (each seen on Linux):

- A text attribute is shown whole and read at an offset. Every write is a fresh store, whatever
  its offset.
- A binary attribute gets offset and size as they are.
- Nobody, root included, reads what has no read bit or writes what has no write bit: EACCES.
- Other users than root are held to the mode bits.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

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
BinaryWrite = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True)
class TextAttribute:
    """An attribute of at most a page of text: `show` makes all of it, `store` takes one write."""

    show: Show | None = None
    store: Store | None = None
    mode: int = 0o644

    size_bytes = PAGE_SIZE

    def read(self, offset: int, size_bytes: int) -> bytes:
        assert self.show is not None
        return self.show().encode()[offset : offset + size_bytes]

    def write(self, offset: int, data: bytes) -> None:
        assert self.store is not None
        self.store(data)


@dataclass(frozen=True, slots=True)
class BinaryAttribute:
    """An attribute of bytes: `reader(offset, size)` and `writer(offset, data)` see every call.

    `rawio` means that writing takes CAP_SYS_RAWIO. `size_bytes` is what `stat` shows; 0 means no
    size was declared, and no limit.
    """

    reader: BinaryRead | None = None
    writer: BinaryWrite | None = None
    mode: int = 0o644
    size_bytes: int = 0
    rawio: bool = False

    def read(self, offset: int, size_bytes: int) -> bytes:
        assert self.reader is not None
        if self.size_bytes:
            size_bytes = min(size_bytes, max(0, self.size_bytes - offset))
        return self.reader(offset, size_bytes) if size_bytes else b""

    def write(self, offset: int, data: bytes) -> None:
        assert self.writer is not None
        self.writer(offset, data)


Attribute = TextAttribute | BinaryAttribute


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link; `target` is as `readlink` shows it, relative or absolute."""

    target: str
    mode: int = 0o777


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory; `children` belong to the tree: use `SysfsTree.add` and `remove`."""

    children: dict[str, Node] = field(default_factory=dict)
    mode: int = 0o755


Node = Directory | TextAttribute | BinaryAttribute | Symlink


class SysfsTree:
    """Paths to nodes. Paths are absolute in the tree: `/devices/…` in a tree mounted at `/sys`."""

    def __init__(self) -> None:
        self.root = Directory()

    # -- for drivers ------------------------------------------------------------------------

    def add(self, path: str, node: Node) -> None:
        """Put `node` at `path`, making the directories above it.

        :raise KernelError: EEXIST when something is there, ENOTDIR when a part is no directory.
        """
        *above, name = _parts(path)
        directory = self.root
        for part in above:
            child = directory.children.setdefault(part, Directory())
            if not isinstance(child, Directory):
                raise KernelError(errno.ENOTDIR, path)
            directory = child
        if name in directory.children:
            raise KernelError(errno.EEXIST, path)
        directory.children[name] = node

    def remove(self, path: str) -> None:
        """Take away what is at `path`, and all below it. Links are not followed.

        :raise KernelError: ENOENT when nothing is there.
        """
        *above, name = _parts(path)
        directory = self.lookup("/" + "/".join(above))
        if not isinstance(directory, Directory) or name not in directory.children:
            raise KernelError(errno.ENOENT, path)
        del directory.children[name]

    # -- for callers ------------------------------------------------------------------------

    def lookup(self, path: str, *, follow: bool = True) -> Node:
        """The node at `path`; links are followed, the last one only with `follow`.

        :raise KernelError: ENOENT, ENOTDIR or ELOOP, as path lookup in Linux does.
        """
        todo = _parts(path)[::-1]
        trail: list[Directory] = [self.root]
        node: Node = self.root
        links = 0
        while todo:
            part = todo.pop()
            if not isinstance(node, Directory):
                raise KernelError(errno.ENOTDIR, path)
            if part == "..":
                trail = trail[:-1] or [self.root]
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
                    trail = [self.root]
                node = trail[-1]
                continue
            node = child
            if isinstance(child, Directory):
                trail.append(child)
        return node

    def exists(self, path: str) -> bool:
        """Whether `path` leads to anything, links followed."""
        try:
            self.lookup(path)
        except KernelError:
            return False
        return True

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

    def read(
        self, path: str, offset: int = 0, size_bytes: int = PAGE_SIZE, *, caller: Caller = ROOT
    ) -> bytes:
        """One `pread`.

        :raise KernelError: EACCES, EISDIR, or what the attribute answers.
        """
        attribute = self._attribute(path)
        _require(attribute.mode, 0o444, caller, path)
        return attribute.read(offset, size_bytes)

    def write(self, path: str, data: bytes, offset: int = 0, *, caller: Caller = ROOT) -> int:
        """One `pwrite`; the number of bytes taken, which is all of them.

        :raise KernelError: EACCES, EISDIR, EPERM without CAP_SYS_RAWIO where that is needed, or
            what the attribute answers.
        """
        attribute = self._attribute(path)
        _require(attribute.mode, 0o222, caller, path)
        if isinstance(attribute, BinaryAttribute) and attribute.rawio and not caller.sys_rawio:
            raise KernelError(errno.EPERM, path)
        attribute.write(offset, data)
        return len(data)

    def _attribute(self, path: str) -> Attribute:
        node = self.lookup(path)
        if isinstance(node, Directory):
            raise KernelError(errno.EISDIR, path)
        assert not isinstance(node, Symlink)
        return node


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _require(mode: int, wanted: int, caller: Caller, path: str) -> None:
    """Every attribute belongs to root; `wanted` is 0o444 to read, 0o222 to write."""
    bits = mode & wanted & (0o777 if caller.is_root else 0o007)
    if not bits:
        raise KernelError(errno.EACCES, path)
