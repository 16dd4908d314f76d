"""The command build; and how an image is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.files import save
from openrbu.cli.options import (
    Force,
    OutputFile,
    size_of,
)
from openrbu.cli.show import Answer, Block, Cell, Facts, bad, caution, good
from openrbu.units import human_size

if TYPE_CHECKING:
    from openrbu.formats.hdr import Header, Image, SystemId
    from openrbu.formats.version import BiosVersion


def image_document(image: Image) -> dict[str, Any]:
    """An image for `--json`: what its header says, its state, sizes and digest.

    `ends_at_bytes`: where its check words are right, or None; later bytes don't belong to it.
    """
    from openrbu.formats.hdr import sha256_of

    end, whole = image.check.end, image.up_to_its_end
    return {
        **header_document(image.header),
        "state": image.state.value,
        "damage": image.damage,
        "size_bytes": image.size_bytes,
        "ends_at_bytes": None if whole is None else whole.size_bytes,
        "flash_size_bytes": None if end is None else end.data_size_bytes,
        "data_check_word": None if whole is None else f"{whole.data_word:#010x}",
        "sha256": sha256_of(image),
    }


def header_document(header: Header) -> dict[str, Any]:
    """What an image's header says."""
    version = header.version
    return {
        "version": version.text,
        "version_style": version.style.value,
        "is_special_build": version.is_special,
        "header_version": header.header_version,
        "header_length_bytes": header.size_bytes,
        "quick_check": header.quick_check_text,
        "systems": [_system_document(system) for system in header.systems],
    }


def _system_document(system: SystemId) -> dict[str, Any]:
    """A system that an image is for, and what is known about it."""
    from openrbu.formats.systems import known_system

    known = known_system(system.id)
    return {
        "id": f"{system.id:#06x}",
        "revision": system.revision,
        "name": known.name or None,
        "known_against_rbu": known.what or None,
        "rbu_known_broken": known.is_broken,
    }


def systems_text(header: Header) -> str:
    """The systems that an image is for, on one line."""
    from openrbu.formats.systems import title_of

    return ", ".join(map(title_of, header.systems)) or "none"


def _system_rows(header: Header) -> list[tuple[str, Cell]]:
    """A row for each system that an image is for, with the known problems of RBU there."""
    from openrbu.formats.systems import known_system, title_of

    rows: list[tuple[str, Cell]] = []
    for system in header.systems:
        known = known_system(system.id)
        rows.append(("" if rows else "for systems", title_of(system)))
        if known.what:
            rows.append(("", bad(known.what) if known.is_broken else caution(known.what)))
    return rows or [("for systems", "none")]


def image_rows(image: Image) -> list[tuple[str, Cell]]:
    from openrbu.formats.hdr import sha256_of

    header, end, whole = image.header, image.check.end, image.up_to_its_end
    flash_data: Cell = caution("of unknown size: its end is not known")
    if end is not None and whole is not None:
        flash_data = f"{human_size(end.data_size_bytes)} ({end.data_size_bytes} bytes)"
    words: Cell = good("right: header and data are whole")
    if image.damage is not None:
        words = bad(image.damage)
    rows: list[tuple[str, Cell]] = [
        ("BIOS version", f"{header.version} ({_style_words(header.version)})"),
        *_system_rows(header),
        ("size", f"{human_size(image.size_bytes)} ({image.size_bytes} bytes)"),
        ("flash data", flash_data),
        ("check words", words),
        ("header", f"version {header.header_version}, {header.size_bytes} bytes"),
        ("quick check", header.quick_check_text),
        ("SHA-256", sha256_of(image)),
    ]
    if whole is not None and whole.size_bytes != image.size_bytes:
        place = [name for name, _ in rows].index("size") + 1
        rows.insert(
            place, ("ends at", f"{whole.size_bytes} bytes: its check words are right there")
        )
    return rows


def _style_words(version: BiosVersion) -> str:
    if version.is_special:
        return "a special build"
    words = {"old": "old style", "new": "new style", "unreadable": "it can't be read"}
    return words[version.style.value]


def saved(path: Path, is_new: bool, what: str) -> Block:
    if is_new:
        return good(f"wrote {path} ({what})")
    return f"{path} exists already with this content ({what})"


def build(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The file with the flash data.")],
    *,
    output: OutputFile,
    bios_version: Annotated[
        str,
        typer.Option(
            "--bios-version", metavar="VERSION", help="The BIOS version, such as A06 or 1.2.8."
        ),
    ],
    system: Annotated[
        list[str],
        typer.Option(
            "--system", metavar="ID[:REV]", help="A system it is for, such as 0x0121; repeatable."
        ),
    ],
    flash_size: Annotated[
        str | None,
        typer.Option(
            "--flash-size", metavar="SIZE", help="Put 0xFF before DATA up to this size (512K, 1M)."
        ),
    ] = None,
    force: Force = False,
) -> Answer:
    """Make a .HDR image from flash data.

    With --flash-size, 0xFF bytes are put before the data: a BIOS is at the end of its flash.

    \b
    Example:  rbu build bios.bin -o A06.hdr --bios-version A06 --system 0x0121
    """
    from openrbu.system.files import read_input

    image = api.build_image(
        read_input(data),
        version=bios_version,
        systems=system,
        flash_size_bytes=None if flash_size is None else size_of(flash_size, "--flash-size"),
    )
    changed = save(output, image.build(), force=force)
    line = saved(output, changed, human_size(image.size_bytes))
    blocks = [Facts(str(output), image_rows(image)), line]
    return Answer({"changed": changed, "file": str(output), **image_document(image)}, blocks)
