"""The files of openrbu's own driver: a tree in which each change of the driver is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ParamSpec

from openrbu.drivers.sysfs import BinaryAttribute, Node, SysfsTree, TextAttribute

_CHANGING = ("/loading", "/image_type", "/packet_size", "/allocation_floor")
"""How the paths of the files end through which the driver is changed. Not `data`, through which an
image is delivered: that is in the memory of the process."""

_Parameters = ParamSpec("_Parameters")


class RecordingTree(SysfsTree):
    """A tree whose driver files are changed within `changing`."""

    def __init__(self, changing: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__(now=time.time)
        self._changing = changing

    def add(self, path: str, node: Node) -> None:
        if path.endswith(_CHANGING):
            if isinstance(node, TextAttribute) and node.store is not None:
                node.store = self._recorded(node.store)
            elif isinstance(node, BinaryAttribute) and node.writer is not None:
                node.writer = self._recorded(node.writer)
        super().add(path, node)

    def _recorded(self, write: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
        def recorded(*arguments: _Parameters.args, **named: _Parameters.kwargs) -> None:
            with self._changing():
                write(*arguments, **named)

        return recorded
