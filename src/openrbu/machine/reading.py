"""A machine in a directory that this user may read and not write.

Theory of operation. To open a machine is to lock it and to write beside it, such as the result of
its last update. Where that is not possible, those who only look open a copy: small files are copied
to a temporary directory, and RAM is the machine's own, opened for reading. What is written to the
copy is gone with it. Meanwhile the machine's lock is shared, so that no process changes it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from openrbu.machine import store
from openrbu.machine.virtual import VirtualMachine
from openrbu.system.files import fresh_directory
from openrbu.system.signals import signals_deferred

_RAM = "ram"
_NOT_COPIED = (_RAM, "lock", "socket", "state.spare", "summary")


@contextlib.contextmanager
def looked_at(directory: Path) -> Iterator[VirtualMachine]:
    """The machine in a directory, to be looked at until the end of the block.

    :raise InUseError: when another process has it.
    :raise MachineError: when its files can't be read, or there is no place for the copy.
    """
    import tempfile  # noqa: PLC0415  (start-up time)

    with contextlib.ExitStack() as stack:
        with store.disk_errors(directory):
            stack.enter_context(store.shared(directory))
            with signals_deferred():
                made = fresh_directory(Path(tempfile.gettempdir()), "openrbu-reading-")
                stack.callback(shutil.rmtree, made)
            copy = made / directory.name
            _copy_files(directory, copy)
            _link_ram(directory / _RAM, copy / _RAM)
        yield stack.enter_context(VirtualMachine(copy, copy_of=directory))


def _copy_files(directory: Path, copy: Path) -> None:
    copy.mkdir(mode=0o700)
    for each in sorted(directory.iterdir()):
        if each.name in _NOT_COPIED or each.is_symlink():
            continue
        if each.is_dir():
            _copy_files(each, copy / each.name)
        elif each.is_file():
            shutil.copyfile(each, copy / each.name)


def _link_ram(ram: Path, link: Path) -> None:
    """RAM that is gone, which only a machine that is off may lack, is empty RAM of the copy."""
    if ram.exists():
        link.symlink_to(ram.resolve())
    elif ram.is_symlink():
        link.touch()
