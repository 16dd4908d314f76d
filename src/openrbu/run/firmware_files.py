"""The directories in which a program under `rbu run` gives an image to the kernel as a file.

The machine's kernel finds there what the program makes (`machine.program_files`), and this computer
keeps its own: `/lib/firmware` lies under an overlay, and what is made at the top of `/run`, in
memory of its own, is gone with the program.

A real kernel looks below the root of its first process. For the program that is its own root, so
`/proc/1/root` leads there.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from openrbu.run import namespace
from openrbu.run.stand_ins import cover
from openrbu.system.libc import MS_NOSUID, call

_LIBRARY = Path("/lib")
_FIRMWARE, _RUN = _LIBRARY / "firmware", Path("/run")
_FIRST_ROOT = "/proc/1/root"
_OF_OPENRBU = "openrbu-firmware"
"""In `/run`: of an update of this computer."""


def make_directories() -> None:
    """Have the directories for firmware and modules, where this computer has none.

    :raise OSError: the kernel's error.
    """
    missing = [each for each in ("firmware", "modules") if not (_LIBRARY / each).is_dir()]
    if missing:
        here = namespace.working_directory()
        cover(os.path.realpath(_LIBRARY), {f"{each}/.none": "" for each in missing})
        namespace.enter_again(here, os.path.realpath(_LIBRARY))


def install() -> None:
    """Cover the directories in this process's mount namespace.

    :raise OSError: the kernel's error.
    """
    here = namespace.working_directory()
    if _RUN.is_dir():
        namespace.replace(str(_RUN), without=(_OF_OPENRBU,))
    _overlay(os.path.realpath(_FIRMWARE))
    _be_the_first_root()
    namespace.enter_again(here, str(_RUN), os.path.realpath(_FIRMWARE))


def _overlay(path: str) -> None:
    """Cover a directory, so that what is changed there is changed in memory. Where the kernel
    allows no such overlay, it is empty.

    :raise OSError: the kernel's error.
    """
    with namespace.pinned(path) as below:
        namespace.mount_tmpfs(path)
        with namespace.pinned(path) as top:
            for each in ("upper", "work"):
                (top / each).mkdir()
            layers = f"lowerdir={below},upperdir={top}/upper,workdir={top}/work"
            try:
                call("mount", b"none", os.fsencode(path), b"overlay", MS_NOSUID, layers.encode())
            except OSError:
                namespace.mount_tmpfs(path)


def _be_the_first_root() -> None:
    """Have `/proc/1/root` lead to the root of the process that follows it, where that can be."""
    link = _RUN / ".root"
    with contextlib.suppress(FileNotFoundError, PermissionError):
        link.symlink_to("/")
        with namespace.cloned(str(link)) as tree:
            namespace.attach(tree, _FIRST_ROOT)
        link.unlink()
