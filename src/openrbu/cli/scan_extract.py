"""`rbu scan --extract DIR`: writes the images that a search found.

A whole image is written once, however many copies of it are in memory, and only after its check
words were found right in the bytes that are written. Of a packet set without a whole image there is
a file of what is there, which ends with `.part`, with zeros in its holes, and beside it a map of
the holes in JSON. Headers without a whole image are not written: what follows them is not known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrbu.cli.files import make_directory, safe_names, save, would_change
from openrbu.cli.scan_document import MAX_LISTED, bare_headers
from openrbu.cli.show import Block, caution, good, hex_address
from openrbu.errors import DamagedInputError, ObstacleError, OutputError
from openrbu.formats.hdr import Image
from openrbu.formats.packet import set_id_text
from openrbu.memory.joined_image import joined_image
from openrbu.memory.mending import MAX_JOINED_BYTES
from openrbu.memory.physical import ReadableMemory
from openrbu.units import PhysAddr, human_size

if TYPE_CHECKING:
    from openrbu.bios.findings import Findings
    from openrbu.memory.search_result import FoundImage, FoundSet


@dataclass(slots=True)
class _Output:
    """A file to write. `make` reads its bytes from memory; nothing is kept between two calls."""

    stem: str
    suffix: str
    make: Callable[[], bytes]
    document: dict[str, Any]
    path: Path = field(default_factory=Path)
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _LeftOut:
    address: int
    why: str


class Extraction:
    """Writes what was found in a memory to files in a directory.

    `name` is the memory's, with which the names of all files begin.

    :raise ObstacleError: when a file exists with other content; then nothing is written.
    :raise OutputError: when a file can't be written. What was written before is whole.
    """

    def __init__(self, memory: ReadableMemory, findings: Findings, directory: Path, name: str):
        self._memory, self._findings, self._directory = memory, findings, directory
        self._prefix = Path(name).stem
        self._left_out: list[_LeftOut] = []
        self._by_digest: dict[str, _Output] = {}
        self._outputs = [*self._images(), *self._sets()]
        for suffix in {each.suffix for each in self._outputs}:
            alike = [each for each in self._outputs if each.suffix == suffix]
            for each, file in zip(alike, safe_names((o.stem for o in alike), suffix), strict=True):
                each.path = directory / file
        self._write()

    def _write(self) -> None:
        for output in self._outputs:  # check all first: write nothing when one can't be written
            _check_unused(output.path, output.make())
        if self._outputs:
            make_directory(self._directory)
        for number, output in enumerate(self._outputs):
            try:
                output.changed = save(output.path, output.make(), force=False)
            except OutputError as error:
                before = ", ".join(str(each.path) for each in self._outputs[:number][:MAX_LISTED])
                told = f" (written before that: {before})" if before else ""
                raise OutputError(f"{error}{told}") from None

    def _images(self) -> Iterator[_Output]:
        for found in self._findings.result.images:
            data = self._image_bytes(found)
            if data is None:
                why = "it changed while it was read"
                self._left_out.append(_LeftOut(found.address, why))
                continue
            digest = hashlib.sha256(data).hexdigest()
            known = self._by_digest.get(digest)
            if known is not None:
                known.document["addresses"].append(hex_address(found.address))
                continue
            stem = f"{self._prefix}-{found.address:#x}-{found.header.version.text}"
            document: dict[str, Any] = {
                "kind": "image",
                "addresses": [hex_address(found.address)],
                "set_id": None,
                "version": found.header.version.text,
                "size_bytes": found.size_bytes,
                "sha256": digest,
            }
            output = _Output(stem, ".hdr", self._maker_of_image(found), document)
            self._by_digest[digest] = output
            yield output
        for bare in bare_headers(self._findings.result):
            why = "a header without a whole image: how long the rest is, or what, is not known"
            self._left_out.append(_LeftOut(bare.address, why))

    def _image_bytes(self, found: FoundImage) -> bytes | None:
        """The image's bytes; None if they are no whole image any more."""
        data = self._memory.read(found.address, found.size_bytes)
        try:
            return data if Image.parse(data).is_whole else None
        except DamagedInputError:
            return None

    def _maker_of_image(self, found: FoundImage) -> Callable[[], bytes]:
        def make() -> bytes:
            data = self._image_bytes(found)
            if data is None:
                raise DamagedInputError(
                    f"the image at {found.address:#x} changed while it was written: try again"
                )
            return data

        return make

    def _sets(self) -> Iterator[_Output]:
        for found in self._findings.result.packet_sets:
            header = found.image_header
            version = "" if header is None else f"-{header.version.text}"
            stem = f"{self._prefix}-{found.lowest:#x}-set-{set_id_text(found.set_id)}{version}"
            joined = self._findings.joined[found.set_id]
            document: dict[str, Any] = {
                "kind": "set",
                "addresses": [hex_address(found.lowest)],
                "set_id": f"{found.set_id:#010x}",
                "version": None if header is None else header.version.text,
            }
            if joined.state is not None and joined.damage is None:
                document |= {"size_bytes": joined.size_bytes, "sha256": joined.sha256}
                yield _Output(stem, ".hdr", self._maker_of_set(found), document)
                continue
            size = found.joined_size_bytes
            if size > MAX_JOINED_BYTES:
                why = f"a packet set that claims {human_size(size)}, more than any image has"
                self._left_out.append(_LeftOut(found.lowest, why))
                continue
            holes = holes_of(found)
            document |= {"kind": "part", "size_bytes": size, "sha256": None}
            yield _Output(stem, ".part", self._maker_of_part(found), document)
            hole_map = self._map_of(found, holes, joined.damage)
            document = {**document, "kind": "map", "size_bytes": len(hole_map)}
            yield _Output(stem, ".part.json", partial(bytes, hole_map), document)

    def _maker_of_set(self, found: FoundSet) -> Callable[[], bytes]:
        return lambda: joined_image(self._memory, found).build()

    def _maker_of_part(self, found: FoundSet) -> Callable[[], bytes]:
        skip, size = found.header_size_bytes, found.packet_size_bytes - found.header_size_bytes

        def make() -> bytes:
            return b"".join(
                self._memory.read(PhysAddr(found.places[number][0] + skip), size)
                if number in found.places
                else bytes(size)
                for number in range(1, found.total)
            )

        return make

    def _map_of(self, found: FoundSet, holes: list[tuple[int, int]], damage: str | None) -> bytes:
        """The map of the holes in a part, as JSON. `damage`: why it is not a whole image."""
        size = found.packet_size_bytes - found.header_size_bytes
        document = {
            "schema": 1,
            "set_id": f"{found.set_id:#010x}",
            "damage": damage,
            "size_bytes": found.joined_size_bytes,
            "packet_count": found.total,
            "missing_count": len(found.missing),
            "has_packet_0": 0 in found.places,
            "hole_count": len(holes),
            "holes": [
                {
                    "start": (first - 1) * size,
                    "end": last * size,
                    "first_packet": first,
                    "last_packet": last,
                }
                for first, last in holes
            ],
        }
        return json.dumps(document, indent=2).encode() + b"\n"

    @property
    def document(self) -> dict[str, Any]:
        return {
            "changed": any(each.changed for each in self._outputs),
            "files": [
                {"file": str(each.path), "changed": each.changed, **each.document}
                for each in self._outputs
            ],
            "left_out_count": len(self._left_out),
            "left_out": [
                {"address": hex_address(each.address), "why": each.why}
                for each in self._left_out[:MAX_LISTED]
            ],
        }

    @property
    def blocks(self) -> list[Block]:
        from openrbu.cli.scan_blocks import MAX_SHOWN

        lines: list[Block] = [_line(each) for each in self._outputs[:MAX_SHOWN]]
        if len(self._outputs) > MAX_SHOWN:
            lines.append(f"  … and {len(self._outputs) - MAX_SHOWN} more")
        if self._left_out:
            first = self._left_out[0]
            text = f"not written: {len(self._left_out)}, such as {first.address:#x}: {first.why}"
            lines.append(caution(text))
        return lines


def _check_unused(path: Path, data: bytes) -> None:
    """Check that no file with other content is in the way.

    :raise ObstacleError: when there is one.
    """
    try:
        would_change(path, data, force=False)
    except ObstacleError:
        text = f"{path} exists with other content: nothing was written; name another directory"
        raise ObstacleError(text) from None


def _line(output: _Output) -> Block:
    if not output.changed:
        return f"{output.path} exists already with this content"
    if output.document["kind"] == "part":
        return caution(f"wrote {output.path}: not a whole image, zeros where packets are missing")
    return good(f"wrote {output.path}")


def holes_of(found: FoundSet) -> list[tuple[int, int]]:
    """The packets with data that are missing: the first and last number of each run of them."""
    holes: list[tuple[int, int]] = []
    for number in found.missing:
        if number == 0:
            continue
        if holes and holes[-1][1] == number - 1:
            holes[-1] = (holes[-1][0], number)
        else:
            holes.append((number, number))
    return holes
