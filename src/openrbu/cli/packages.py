"""The commands info and extract: a package and the images in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.files import make_directory, safe_names, save, would_change
from openrbu.cli.images import header_document, image_document, image_rows, saved, systems_text
from openrbu.cli.options import Force, ImageFile
from openrbu.cli.show import Answer, Block, Cell, Facts, bad, caution
from openrbu.errors import DamagedInputError

if TYPE_CHECKING:
    from openrbu.api import LoadedFile, LoadedImage
    from openrbu.formats.packages.manifest import Manifest


def info(
    image: ImageFile,
    *,
    as_json: bool,
) -> Answer:
    """Show what an image is.

    It shows the version, the systems, sizes, check words and the digest.

    Of a package it shows the description and each image inside. The exit code is 5 when an image
    is not whole: changed, cut, or with bytes after its end.

    \b
    Example:  rbu info A06.hdr
    """
    inside = api.read_images(image)
    damage = next((why for each in inside.images if (why := each.damage)), None)
    error = None if damage is None else DamagedInputError(f"{image}: {damage}")
    # Make only one of both: each reads the whole image for its digest.
    if as_json:
        document = {
            "file": str(image),
            "file_size_bytes": inside.size_bytes,
            **_package_document(inside),
            "images": [_document(each) for each in inside.images],
        }
        return Answer(document, (), error)
    blocks: list[Block] = []
    if inside.manifest is not None:
        blocks.append(Facts(f"{image}, by its package.xml", _manifest_rows(inside.manifest)))
    for each in inside.images:
        title = str(image) if each.found_at is None else f"{image} > {each.found_at}"
        blocks.append(Facts(title, _rows(each)))
    blocks += [caution(f"note: {note}") for note in inside.notes]
    return Answer({}, blocks, error)


def extract(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A vendor's package, or a dump.")],
    *,
    directory: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Where to put the images.")
    ] = ".",
    force: Force = False,
) -> Answer:
    """Get the .HDR images out of a vendor's package.

    Finds them in gzip, xz, bzip2 and LZMA streams, in tar and zip archives and cabinets, after a
    shell script or a program, and directly in any file. Nothing is run. The name of a written
    file consists of the package's name and the BIOS version.

    An image is written up to where its check words are right, and only when it is whole. For a
    file that contains nothing for RBU, rbu says what it is and what to do instead, and ends with
    3; with 4 when another program has to unpack it.

    \b
    Example:  rbu extract PE2650-BIOS-LX-A06.BIN -o images
    """
    into = Path(directory)
    inside = api.read_images(file, up_to_its_end=True)
    found = [each for each in inside.images if each.damage is None]
    left_out = [each for each in inside.images if each.damage is not None]
    names = safe_names((f"{file.stem}-{each.image.header.version.text}" for each in found), ".hdr")
    outputs = [(into / name, each.image.build()) for name, each in zip(names, found, strict=True)]
    for path, data in outputs:  # check all first: write nothing when one can't be written
        would_change(path, data, force=force)
    if outputs:
        make_directory(into)
    written = [save(path, data, force=force) for path, data in outputs]
    documents = [
        {"file": str(path), "changed": new, **_document(each)}
        for (path, _), each, new in zip(outputs, found, written, strict=True)
    ]
    blocks: list[Block] = [
        saved(path, new, f"{each.image.header.version} for {systems_text(each.image.header)}")
        for (path, _), each, new in zip(outputs, found, written, strict=True)
    ]
    blocks += [caution(f"not written: {_where(each)}: {each.damage}") for each in left_out]
    blocks += [caution(f"note: {note}") for note in inside.notes]
    if inside.manifest is not None:
        blocks.append(Facts("by its package.xml", _manifest_rows(inside.manifest)))
    document = {
        "changed": any(written),
        **_package_document(inside),
        "images": documents,
        "left_out": [_document(each) for each in left_out],
    }
    return Answer(document, blocks, _refusal(file, found, left_out))


def _refusal(
    file: Path, found: Sequence[LoadedImage], left_out: Sequence[LoadedImage]
) -> DamagedInputError | None:
    """The error when an image was not written: it is damaged, or only headers were found."""
    worst = [each for each in left_out if each.end_is_known or not found]
    if not worst:
        return None
    return DamagedInputError(f"{file}: not written: {_where(worst[0])}: {worst[0].damage}")


def _where(loaded: LoadedImage) -> str:
    version = loaded.image.header.version
    return f"{version}" if loaded.found_at is None else f"{version} ({loaded.found_at})"


def _document(loaded: LoadedImage) -> dict[str, Any]:
    """An image for `--json`, and where it was found; without a known end only its header."""
    if loaded.end_is_known:
        return {"found_at": loaded.found_at, **image_document(loaded.image)}
    header = header_document(loaded.image.header)
    return {
        "found_at": loaded.found_at,
        **header,
        "state": "end_not_known",
        "damage": loaded.damage,
        "size_bytes": None,
    }


def _rows(loaded: LoadedImage) -> list[tuple[str, Cell]]:
    if loaded.end_is_known:
        return image_rows(loaded.image)
    header = loaded.image.header
    return [
        ("BIOS version", header.version.text),
        ("for systems", systems_text(header)),
        ("check words", bad(loaded.damage or "")),
    ]


def _package_document(inside: LoadedFile) -> dict[str, Any]:
    """A package's description of itself, and notes on it, for `--json`."""
    return {
        "package": None if inside.manifest is None else manifest_document(inside.manifest),
        "notes": list(inside.notes),
    }


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    """What a package's `package.xml` says."""
    minimum = manifest.minimum_version
    return {
        "name": manifest.name,
        "component_type": manifest.component_type,
        "version": manifest.version,
        "dell_version": manifest.dell_version,
        "release_date": manifest.release_date,
        "minimum_version": None if minimum is None else minimum.text,
        "systems": [
            {"id": f"{system.id:#06x}", "name": system.name} for system in manifest.systems
        ],
    }


def _manifest_rows(manifest: Manifest) -> list[tuple[str, Cell]]:
    minimum = manifest.minimum_version
    systems = [f"{system.id:#06x} {system.name}".rstrip() for system in manifest.systems]
    rows = [
        ("package", manifest.name),
        ("package version", manifest.version or manifest.dell_version),
        ("released", manifest.release_date),
        ("minimum BIOS", None if minimum is None else minimum.text),
        ("for systems", ", ".join(systems)),
    ]
    return [(name, value) for name, value in rows if value]
