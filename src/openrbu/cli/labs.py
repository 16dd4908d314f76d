"""Commands on the lab: lab check, lab bios, lab clean."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from openrbu._vendor import typer
from openrbu.cli.files import save
from openrbu.cli.lab_machine import KernelOption, Modules
from openrbu.cli.options import Force, OutputFile, size_of
from openrbu.cli.show import Answer, Block, Cell, Facts, Table, bad, caution, good, print_note
from openrbu.cli.waits import waits

if TYPE_CHECKING:
    from openrbu.lab.check import Need


def check(*, kernel: KernelOption = None, modules: Modules = None) -> Answer:
    """Show what a lab needs, what is installed, and the command that gets the rest.

    Nothing is fetched. What is "to fetch" is fetched from Debian's archive when it is first
    needed: it is unpacked in a cache (OPENRBU_CACHE), and not installed.

    \b
    Examples:  rbu lab check
               rbu lab check --kernel linux-image-amd64/trixie
    """
    from openrbu.lab.check import check as check_needs
    from openrbu.lab.check import obstacle
    from openrbu.lab.kernels import kernel_choice
    from openrbu.system.home import cache_home

    needs = check_needs(print_note, kernel_choice(kernel, modules))
    error = obstacle(needs)
    document = {
        "is_ready": error is None,
        "cache": str(cache_home()),
        "needs": [asdict(need) for need in needs],
    }
    blocks = [_needs_table(needs)]
    if error is None:
        return Answer(document, [*blocks, good("a lab can be started here")])
    return Answer(document, blocks, error)


def _needs_table(needs: list[Need]) -> Table:
    """The needs as a table; with a column of remedies where there are any."""
    columns, with_remedy = ["need", "state", "what is here"], any(need.remedy for need in needs)
    rows: list[list[Cell]] = [[need.name, _state(need), need.text] for need in needs]
    if with_remedy:
        columns.append("what gets it")
        for row, need in zip(rows, needs, strict=True):
            row.append(need.remedy or "")
    return Table("What a lab needs", columns, rows)


def _state(need: Need) -> Cell:
    from openrbu.lab.check import State

    mark = {State.HERE: good, State.TO_FETCH: caution, State.MISSING: bad}[need.state]
    return mark(need.state.value)


def bios(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version that it reports.")],
    *,
    output: OutputFile,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="SIZE", help="Put 0xFF before it up to this size (512K, 1M)."
        ),
    ] = None,
    force: Force = False,
) -> Answer:
    """Make a BIOS that starts in the lab: the real SeaBIOS with another version.

    With --size, 0xFF bytes are put before it, as in a machine's flash. rbu build makes an image
    from it.

    \b
    Example:  rbu lab bios 2.3.0 -o bios.bin --size 1M
              rbu build bios.bin -o 2.3.0.hdr --bios-version 2.3.0 --system 0x01de
    """
    from openrbu.lab.packages import get_seabios
    from openrbu.lab.seabios import bios_version, fill_flash, rename_bios
    from openrbu.system.files import read_input
    from openrbu.units import human_size

    with waits() as shown:
        rom = read_input(get_seabios(shown.say))
    renamed = rename_bios(rom, version)
    if size is not None:
        renamed = fill_flash(renamed, size_of(size, "--size"))
    changed = save(output, renamed, force=force)
    seabios_version = bios_version(rom)
    rows: list[tuple[str, Cell]] = [
        ("BIOS version", version),
        ("made of", f"SeaBIOS {seabios_version}"),
        ("size", f"{human_size(len(renamed))} ({len(renamed)} bytes)"),
    ]
    document = {
        "changed": changed,
        "file": str(output),
        "bios_version": version,
        "seabios_version": seabios_version,
        "size_bytes": len(renamed),
    }
    saved = good(f"wrote {output}") if changed else f"{output} exists already with this content"
    return Answer(document, [Facts(str(output), rows), saved])


def clean() -> Answer:
    """Remove what the lab has left: its cache, and what killed processes left of machines.

    Nothing is asked: what the lab needs it fetches again. What a running guest uses stays, and so
    does every file that is not the lab's.

    \b
    Example:  rbu lab clean
    """
    from openrbu.errors import ObstacleError
    from openrbu.lab.cleaning import clean as clean_lab
    from openrbu.system.home import cache_home
    from openrbu.units import human_size

    cache = cache_home()
    found = clean_lab(cache)
    removed, stays = [e for e in found if not e.why], [e for e in found if e.why]
    freed_bytes = sum(each.size_bytes for each in removed)
    document = {
        "changed": bool(removed),
        "cache": str(cache),
        "freed_bytes": freed_bytes,
        "removed": [
            {"path": str(each.path), "what": each.what, "size_bytes": each.size_bytes}
            for each in removed
        ],
        "left": [{"path": str(each.path), "what": each.what, "why": each.why} for each in stays],
    }
    rows: list[list[Cell]] = [
        [human_size(each.size_bytes), each.what, str(each.path)] for each in removed
    ]
    blocks: list[Block] = [Table("Removed", ["size", "what", "path"], rows)] if rows else []
    if rows:
        blocks.append(good(f"{human_size(freed_bytes)} are free again"))
    elif not stays:
        blocks.append(f"nothing to do: the lab has left nothing in {cache} or of its machines")
    if not stays:
        return Answer(document, blocks)
    reasons = ", ".join(sorted({each.why for each in stays}))
    number = "one thing" if len(stays) == 1 else f"{len(stays)} things"
    error = ObstacleError(f"{number} of the lab stayed, such as {stays[0].path}: {reasons}")
    return Answer(document, blocks, error)
