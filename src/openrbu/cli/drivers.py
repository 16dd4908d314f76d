"""The commands of openrbu's own driver: driver start, driver status, driver stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.extents import MAX_EXTENTS, extents_document
from openrbu.cli.options import size_of
from openrbu.cli.show import Answer, Cell, Facts, bad, caution, good
from openrbu.errors import UsageError
from openrbu.units import PAGE_SIZE, human_size

if TYPE_CHECKING:
    from openrbu.api import OwnDriverStatus
    from openrbu.memory.physical import Region
    from openrbu.own_driver.backends import MemoryKind

_Memory = Literal["huge-pages", "crash-region", "pmem"]

_BLOCK = "2M"

_NOT_STARTED = "openrbu's own driver is not started"


def start(
    *,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Take so much memory below 4 GiB now (8M), and not only when it is needed.",
        ),
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(
            "--block",
            metavar="SIZE",
            help="With --memory: in contiguous blocks of this size, a power of two. An image in "
            "one piece is larger than its flash: for one of 8 MiB 16M. Without it: 2M.",
        ),
    ] = None,
    memory_from: Annotated[
        _Memory | None,
        typer.Option(
            "--memory-from",
            help="What its memory is. The last two take a prepared boot: crashkernel=64M or "
            "memmap=32M!192M on the kernel's command line. Without it: huge pages.",
        ),
    ] = None,
) -> Answer:
    """Start openrbu's own dell_rbu, on memory of this computer.

    rbu update starts it by itself where the kernel has no driver, and rbu cancel stops that one.
    One that is started here stays until rbu driver stop, or the restart. No process runs for it.

    \b
    Example:  rbu driver start --memory 16M --block 16M
    """
    size_bytes = _memory_bytes(memory, block)
    block_bytes = _block_bytes(_BLOCK if block is None else block)
    before = api.driver_status()
    kind = (memory_from or ("huge-pages" if before is None else before.memory)).replace("-", "_")
    now = api.start_driver(
        size_bytes, block_bytes=block_bytes, memory_from=cast("MemoryKind", kind)
    )
    what = "openrbu's own driver is started"
    if before is not None:
        more_bytes = now.size_bytes - before.size_bytes
        what += f" already; {human_size(more_bytes)} were added" if more_bytes > 0 else " already"
    return Answer(
        {"changed": before != now, **_document(now)}, [good(what), Facts("Driver", _rows(now))]
    )


def _memory_bytes(memory: str | None, block: str | None) -> int:
    """How much memory is asked for; 0: none.

    :raise UsageError: when it is no size, or less than a page; or for a block of no memory.
    """
    if memory is None and block is not None:
        raise UsageError("--block is about --memory, which is not given")
    size_bytes = 0 if memory is None else size_of(memory, "--memory")
    if memory is not None and size_bytes < PAGE_SIZE:
        raise UsageError(f"--memory {memory}: less than a page of 4 KiB; with a unit, such as 8M?")
    return size_bytes


def _block_bytes(block: str) -> int:
    """
    :raise UsageError: when it is no size that a block may have.
    """
    size_bytes = size_of(block, "--block")
    if size_bytes < PAGE_SIZE or size_bytes & (size_bytes - 1):
        raise UsageError(f"--block {block}: a block is a power of two from 4 KiB on, such as 4M")
    return size_bytes


def status() -> Answer:
    """Show openrbu's own dell_rbu: its memory, and what is staged in it.

    The addresses of its pages are read again. Pages that the kernel has moved are told: the BIOS
    would not find what was staged in them.

    \b
    Example:  rbu driver status --json
    """
    now = api.driver_status()
    if now is None:
        return Answer({"is_started": False}, [_NOT_STARTED])
    return Answer(_document(now), [Facts("Driver", _rows(now))])


def stop() -> Answer:
    """Stop openrbu's own dell_rbu: clear its memory, and give it back.

    Not while the BIOS is armed for what is staged: rbu cancel disarms it first.

    \b
    Example:  rbu driver stop
    """
    before = api.driver_status()
    was_started = api.stop_driver()
    dropped_bytes = before.staged_size_bytes if was_started and before else 0
    document = {
        "changed": was_started,
        "is_started": False,
        "dropped_size_bytes": dropped_bytes,
    }
    if not was_started:
        return Answer(document, [_NOT_STARTED])
    dropped = (
        f"what was staged ({human_size(dropped_bytes)}) was dropped; " if dropped_bytes else ""
    )
    lines: list[Cell] = [good(f"stopped: {dropped}its memory was cleared and given back")]
    if before and before.loses:
        lines.append(before.loses)
    return Answer(document, lines)


def _document(now: OwnDriverStatus) -> dict[str, Any]:
    return {
        "is_started": True,
        "memory": now.memory,
        "size_bytes": now.size_bytes,
        "memory_in": extents_document(now.regions),
        "image_type": now.image_type,
        "packet_size_bytes": now.packet_size_bytes,
        "staged_size_bytes": now.staged_size_bytes,
        "staged_in": extents_document(now.staged_regions),
        "moved_from": extents_document(now.moved),
        "is_kept": now.is_kept,
        "is_flushed": now.is_flushed,
        "loses": now.loses or None,
    }


def _rows(now: OwnDriverStatus) -> list[tuple[str, Cell]]:
    memory = "none yet: it is taken when something is staged"
    if now.size_bytes:
        memory = f"{human_size(now.size_bytes)} in {now.memory.replace('_', ' ')}"
    staged = "nothing"
    if now.staged_size_bytes:
        mode = "in packets" if now.image_type == "packet" else "in one piece"
        staged = f"{human_size(now.staged_size_bytes)} {mode}"
    rows: list[tuple[str, Cell]] = [("memory", memory), *_extent_rows(now.regions)]
    rows += [("staged", staged), *_extent_rows(now.staged_regions)]
    if now.loses:
        rows.append(("costs", bad(now.loses)))
    if now.moved:
        moved = "the kernel has moved these, or others use them: "
        moved += "the BIOS would not find them" if now.staged_size_bytes else "others are taken"
        rows.append(("moved", bad(moved)))
        rows += _extent_rows(now.moved)
    if now.staged_size_bytes:
        flushed = "flushed to memory; only the restart shows whether it stays there"
        doubt = "what is staged may be in the processor's caches only"
        rows.append(("caches", flushed if now.is_flushed else caution(doubt)))
    kept = "rbu driver stop, or the restart" if now.is_kept else "rbu cancel, or the restart"
    return [*rows, ("ends with", kept)]


def _extent_rows(regions: tuple[Region, ...]) -> list[tuple[str, Cell]]:
    rows: list[tuple[str, Cell]] = [
        ("", f"{each.start:#x} to {each.end:#x}") for each in regions[:MAX_EXTENTS]
    ]
    if len(regions) > MAX_EXTENTS:
        rows.append(("", f"and {len(regions) - MAX_EXTENTS} more"))
    return rows
