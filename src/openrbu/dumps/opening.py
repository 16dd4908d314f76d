"""A dump of memory is opened: what it is, and where in memory its bytes were.

What is not understood is an error, never memory without anything in it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from openrbu.dumps.dump_file import DumpFile
from openrbu.dumps.dump_memory import DumpMemory
from openrbu.dumps.elf import elf_pieces
from openrbu.dumps.kinds import HEAD_BYTES, PLUGIN, Format, NotRead, format_of
from openrbu.dumps.packed import PACKED_BYTES, stream_kind, unpacked_streams
from openrbu.dumps.pieces import HIGHEST_ADDRESS, Piece, in_sequence
from openrbu.dumps.spool import sequence, spooled
from openrbu.errors import DamagedInputError, ObstacleError, UsageError
from openrbu.formats.lime import lime_ranges
from openrbu.units import GIB, MIB, PAGE_SIZE

STANDARD_INPUT = "-"

_MOST_PACKED = 2
"""Streams inside each other."""

_FROM_PIPE_BYTES = MIB

_KCORE = Path("/proc/kcore")

_VMWARE_SIDECARS = (".vmss", ".vmsn")
_VMWARE_WHOLE_BYTES = 3 * GIB
"""From here on, a VMware machine has a gap in its memory that its .vmem does not have."""


@contextlib.contextmanager
def open_dump(path: Path | str, *, offset: int | None = None) -> Iterator[DumpMemory]:
    """The memory in a file, `-` for standard input: a raw dump, LiME or an ELF core, also as a
    compressed stream.

    `offset` is the physical address of the first byte of a raw dump (None: 0).

    :raise UsageError: when there is no such file, it can't be one with memory, or `offset` is
        given for a dump that has addresses of its own.
    :raise DamagedInputError: when it is damaged, contradicts itself, is smaller than a page, or
        is of a format that is not read.
    :raise ObstacleError: when it can't be read, or what is unpacked does not fit on the disk.
    """
    if offset is not None and not 0 <= offset < HIGHEST_ADDRESS:
        raise UsageError(f"there is no physical address {offset:#x}")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(contextlib.closing(_opened(path, is_raw=offset is not None)))
        packed: list[str] = []
        while kind := stream_kind(file.read(0, HEAD_BYTES)):
            packed.append(kind.name)
            if len(packed) > _MOST_PACKED:
                raise DamagedInputError(f"{file.name} is compressed more than {_MOST_PACKED} times")
            chunks = unpacked_streams(kind, sequence(file, PACKED_BYTES))
            with _named(file.name):
                unpacked = spooled(chunks, file.name)
            file = stack.enter_context(contextlib.closing(unpacked))
        yield memory_in(file, offset, packed=tuple(packed))


def memory_in(file: DumpFile, offset: int | None, *, packed: tuple[str, ...] = ()) -> DumpMemory:
    """The memory in an open file that is no compressed stream; `packed` names those that it was
    unpacked from.

    Raises what `open_dump` raises.
    """
    found = format_of(file.read(0, HEAD_BYTES))
    if isinstance(found, NotRead):
        if offset is None or found.has_addresses:
            raise DamagedInputError(f"{file.name} is {found.name}: {found.advice}")
        found = Format.RAW
    if offset is not None and found is not Format.RAW:
        raise UsageError(
            f"{file.name} is in the format {found.value}, which has addresses of its own: --offset "
            "is for raw dumps"
        )
    with _named(file.name, found.value):
        pieces = in_sequence(_pieces(file, found, offset or 0), file.read)
    name = " in ".join((found.value, *reversed(packed)))
    return DumpMemory(file, pieces, name, _notes(file, found))


def _pieces(file: DumpFile, found: Format, offset: int) -> list[Piece]:
    if found is Format.LIME:
        return [
            Piece(each.address, each.address + each.size_bytes, each.offset)
            for each in lime_ranges(file.read, file.size_bytes)
        ]
    if found is Format.ELF:
        return elf_pieces(file.read, file.size_bytes)
    if file.size_bytes < PAGE_SIZE:
        raise DamagedInputError(f"it has {file.size_bytes} bytes, less than a page of memory")
    return [Piece(offset, offset + file.size_bytes, 0)]


def _notes(file: DumpFile, found: Format) -> tuple[str, ...]:
    rest = file.size_bytes % PAGE_SIZE
    if found is not Format.RAW or not rest:
        return ()
    note = (
        f"its size is {rest} bytes more than whole pages: it was cut, or does not begin at a page "
        "(--offset), or memory was left out of it, and then addresses behind that are wrong; "
        "--any-alignment finds what is off a page therefore"
    )
    return (note,)


@contextlib.contextmanager
def _named(name: str, format_name: str = "") -> Iterator[None]:
    """Puts the file's name, and its format, in front of what is wrong with it."""
    try:
        yield
    except DamagedInputError as error:
        of_format = f" ({format_name})" if format_name else ""
        raise DamagedInputError(f"{name}{of_format}: {error}") from None


def _opened(path: Path | str, *, is_raw: bool) -> DumpFile:
    """The file; what comes through a pipe as a file of its own. `is_raw`: the caller says so."""
    if str(path) == STANDARD_INPUT:
        return _standard_input()
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise UsageError(f"{path} is not a regular file: a file with a dump of RAM is needed")
        if not is_raw:
            _check_vmware(path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    if stat.S_ISFIFO(mode):
        return _from_pipe(fd, str(path))
    return _file_in_place(fd, str(path))


def _standard_input() -> DumpFile:
    name = "standard input"
    try:
        fd = os.dup(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # closed, or not a file
        raise UsageError("there is no standard input to read a dump from") from None
    if os.isatty(fd):
        os.close(fd)
        raise UsageError("standard input is a terminal: a dump of RAM is needed there")
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0:
            return _file_in_place(fd, name)
    return _from_pipe(fd, name)


def _file_in_place(fd: int, name: str) -> DumpFile:
    """An open file. Closes it when it is this computer's own memory, whose segments have more than
    RAM: to read a device's registers can do anything."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(fd), _KCORE.stat()):
            os.close(fd)
            raise UsageError(f"{name} is this computer's own memory: name it, rbu scan {_KCORE}")
    return DumpFile(fd, name)


def _from_pipe(fd: int, name: str) -> DumpFile:
    """What is read from `fd` to its end; closes it."""
    try:
        return spooled(_read_on(fd, name), name)
    finally:
        os.close(fd)


def _read_on(fd: int, name: str) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(fd, _FROM_PIPE_BYTES)
        except OSError as error:
            raise ObstacleError(f"{name} can't be read: {error.strerror}") from None
        if not piece:
            return
        yield piece


def _check_vmware(path: Path) -> None:
    """:raise DamagedInputError: when it is the memory of a VMware machine, without its gap."""
    if path.suffix != ".vmem":
        return
    sidecars = [path.with_suffix(each) for each in _VMWARE_SIDECARS]
    known = [each for each in sidecars if each.exists()]
    if known or path.stat().st_size > _VMWARE_WHOLE_BYTES:
        where = f"{known[0].name} has" if known else "a .vmss or .vmsn beside it has"
        raise DamagedInputError(
            f"{path} is the memory of a VMware machine: {where} the addresses of its parts; "
            f"search it with volatility3: {PLUGIN.format(path)} (--offset 0: take it as it is)"
        )
