"""Plain files of a simulated kernel, in its memory: what a program makes for the firmware class.

A file's content is in pages of the kernel, as in tmpfs. They are freed, not cleared, when the file
is removed. Only root can use these files.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from functools import partial

from openrbu.buffers import Buffer
from openrbu.drivers.extents import Block
from openrbu.drivers.firmware_image import FirmwareImage
from openrbu.drivers.states import FirmwareImageState
from openrbu.drivers.sysfs import BinaryAttribute, Directory, SysfsTree
from openrbu.errors import KernelError
from openrbu.memory.pages import PageSource

DIRECTORIES = ("/run", "/lib/firmware")
"""In which, and in directories below them, there can be files."""


class PlainFiles:
    """The files. `tree` has them by their whole paths."""

    def __init__(self, tree: SysfsTree, pages: PageSource) -> None:
        self.tree, self._pages = tree, pages
        self._contents: dict[str, FirmwareImage] = {}
        for directory in DIRECTORIES:
            tree.add(directory, Directory())

    def make(self, path: str) -> None:
        """Make an empty file, and the directories above it.

        :raise KernelError: EACCES outside of `DIRECTORIES`; or as `SysfsTree.add`.
        """
        if not path.startswith(tuple(f"{each}/" for each in DIRECTORIES)):
            raise KernelError(errno.EACCES, path)
        self._add(path, FirmwareImage(self._pages))

    def remove(self, path: str) -> None:
        """Remove a file.

        :raise KernelError: ENOENT when there is none.
        """
        content = self.find(path)
        if content is None:
            raise KernelError(errno.ENOENT, path)
        content.release()
        del self._contents[path]
        self.tree.remove(path)

    def find(self, path: str) -> FirmwareImage | None:
        """The content of the file at this path, in which slashes may be doubled; None: there is
        none."""
        return self._contents.get(re.sub("/+", "/", path))

    def blocks(self) -> Iterator[Block]:
        """The blocks of pages that the files have."""
        for content in self._contents.values():
            yield from content.blocks

    def snapshot(self) -> dict[str, FirmwareImageState]:
        """The state that `restore` needs, by path."""
        return {path: content.snapshot() for path, content in self._contents.items()}

    def restore(self, state: dict[str, FirmwareImageState]) -> None:
        """Have the files of a snapshot. The page allocator is restored separately.

        :raise DamagedInputError: when the blocks of a file are too small for it.
        :raise KernelError: when two files can't be beside each other.
        """
        for path, saved in state.items():
            self._add(path, FirmwareImage.restore(self._pages, saved))

    def _add(self, path: str, content: FirmwareImage) -> None:
        node = BinaryAttribute(content.read, mode=0o600)
        node.writer = partial(_write, node, content)
        self.tree.add(path, node)
        self._contents[path] = content


def _write(node: BinaryAttribute, content: FirmwareImage, offset: int, data: Buffer) -> None:
    content.write(offset, data)
    node.size_bytes = content.size_bytes
