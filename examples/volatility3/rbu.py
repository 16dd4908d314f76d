# This file is licensed under the Volatility Software License 1.0,
# https://www.volatilityfoundation.org/license/vsl-v1.0, as volatility3 asks of its plugins.
# openrbu, which it imports, is licensed under the Apache License 2.0.
"""A plugin for volatility3: openrbu's search for BIOS updates in the memory of any dump that
volatility3 reads. `vol -p DIRECTORY_OF_THIS_FILE -f DUMP rbu.RbuScan`; see README.md beside it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from volatility3.framework import exceptions, interfaces, renderers
from volatility3.framework.configuration import requirements
from volatility3.framework.layers import intel, physical
from volatility3.framework.renderers import format_hints

from openrbu import api
from openrbu.dumps.kinds import HEAD_BYTES, Format, NotRead, format_of
from openrbu.dumps.packed import stream_kind
from openrbu.errors import AddressError
from openrbu.formats.packet import set_id_text
from openrbu.memory.physical import Region
from openrbu.memory.search_result import FoundSet, SearchResult
from openrbu.units import GIB, MIB, PhysAddr

Row = tuple[int, tuple[Any, ...]]
"""The depth in the tree, and the values of the columns."""

WINDOW_BYTES = 16 * MIB
"""What is read of a layer at once."""

_VMWARE_WHOLE_BYTES = 3 * GIB
"""Up to this size the memory of a VMware machine has no gap."""


class LayerMemory:
    """A layer of volatility3 as `openrbu.memory.physical.ReadableMemory`: what it maps is RAM, what
    it does not map is a hole."""

    is_mapped = False

    def __init__(self, layer: interfaces.layers.DataLayerInterface) -> None:
        self._layer = layer
        self.regions = tuple(
            Region(PhysAddr(start), PhysAddr(end)) for start, end in _joined(_mapped(layer))
        )
        self._starts = [region.start for region in self.regions]

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        if not size_bytes:
            return b""
        number = bisect_right(self._starts, address) - 1
        if number < 0 or address + size_bytes > self.regions[number].end:
            raise AddressError(f"{size_bytes} bytes at {address:#x} are outside RAM")
        return bytes(self._layer.read(address, size_bytes))

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        buffer[:] = self.read(address, len(buffer))

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        return memoryview(self.read(address, size_bytes))

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        parts = (region.clip(start, end) for region in self.regions)
        return (part for part in parts if part is not None)

    def windows(self, start: PhysAddr, end: PhysAddr) -> Iterator[tuple[PhysAddr, memoryview]]:
        """See `openrbu.memory.windows`."""
        for part in self.populated(start, end):
            for low in range(part.start, part.end, WINDOW_BYTES):
                address = PhysAddr(low)
                yield address, self.view(address, min(WINDOW_BYTES, part.end - low))


def _mapped(layer: interfaces.layers.DataLayerInterface) -> Iterator[tuple[int, int]]:
    """The parts of a layer that can be read, each as [start, end)."""
    low, size = layer.minimum_address, layer.maximum_address + 1 - layer.minimum_address
    if isinstance(layer, interfaces.layers.TranslationLayerInterface):
        for start, length, *_ in layer.mapping(low, size, ignore_errors=True):
            yield start, start + length
    else:
        yield low, low + size


def _joined(parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(parts):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        elif start < end:
            joined.append((start, end))
    return joined


class RbuScan(interfaces.plugins.PluginInterface):
    """Finds BIOS updates of Dell machines in memory: RBU packets and images, by openrbu."""

    _required_framework_version = (2, 0, 0)
    _version = (1, 0, 0)

    @classmethod
    def get_requirements(cls) -> list[interfaces.configuration.RequirementInterface]:
        return [
            requirements.TranslationLayerRequirement(
                name="primary", description="Memory layer to search"
            ),
            requirements.BooleanRequirement(
                name="any-alignment",
                description="Find packets and images that begin at any byte, not only at a page's",
                default=False,
                optional=True,
            ),
        ]

    def run(self) -> renderers.TreeGrid:
        layer = self.context.layers[self.config["primary"]]
        while isinstance(layer, intel.Intel):
            layer = self.context.layers[layer.config["memory_layer"]]
        if isinstance(layer, physical.FileLayer):
            _check_raw(layer)
        memory = LayerMemory(layer)
        found = api.scan(memory, any_alignment=bool(self.config.get("any-alignment")))
        columns = [
            ("Finding", str),
            ("Address", format_hints.Hex),
            ("Size", int),
            ("Packet", int),
            ("Detail", str),
        ]
        return renderers.TreeGrid(columns, _rows(layer, memory, found))


def _check_raw(layer: physical.FileLayer) -> None:
    """Volatility takes a file of a format that it does not know for a raw dump, and so with wrong
    addresses.

    :raise LayerException: when it is not one.
    """
    size = layer.maximum_address + 1
    head = layer.read(0, min(size, HEAD_BYTES))
    kind, stream = format_of(head), stream_kind(head)
    if stream is not None:
        raise exceptions.LayerException(layer.name, "this is a compressed file: unpack it")
    if isinstance(kind, NotRead):
        advice = "" if "volatility3" in kind.advice else f": {kind.advice}"
        raise exceptions.LayerException(
            layer.name, f"volatility3 does not read {kind.name}, or not this kind of it{advice}"
        )
    if kind is not Format.RAW:
        raise exceptions.LayerException(
            layer.name, f"volatility3 can't read this {kind.value}: rbu scan FILE can, or says why"
        )
    path = Path(url2pathname(urlparse(layer.location).path))
    if path.suffix == ".vmem":
        beside = [path.with_suffix(each) for each in (".vmss", ".vmsn")]
        if size > _VMWARE_WHOLE_BYTES or any(each.exists() for each in beside):
            raise exceptions.LayerException(
                layer.name,
                "the .vmss or .vmsn of this VMware machine is missing or can't be read: without it "
                "nobody knows where the parts of memory were",
            )


def _row(finding: str, address: int, size: int, detail: str, packet: int | None = None) -> Row:
    nothing = renderers.NotApplicableValue()
    number = nothing if packet is None else packet
    return 0, (finding, format_hints.Hex(address), size or nothing, number, detail)


def _rows(
    layer: interfaces.layers.DataLayerInterface, memory: LayerMemory, found: SearchResult
) -> Iterator[Row]:
    """What was searched, and what was found in it."""
    size = sum(region.size_bytes for region in memory.regions)
    what = f"searched: {type(layer).__name__}, RAM in {len(memory.regions)} range(s)"
    yield _row("memory", memory.regions[0].start, size, what)
    for each in found.packet_sets:
        yield from _set_rows(each)
    for image in found.images:
        detail = f"version {image.header.version.text}"
        yield _row("image", image.address, image.size_bytes, detail)
    whole = {image.address for image in found.images}
    for header in found.headers:
        if header.address not in whole:
            state = header.state.name.lower().replace("_", " ")
            detail = f"version {header.header.version.text}, {state}"
            yield _row("header", header.address, header.size_bytes, detail)
    for reject in found.rejects:
        yield _row("reject", reject.address, 0, reject.why)
    if found.reject_count > len(found.rejects):
        more = f"{found.reject_count - len(found.rejects)} more rejects are not listed"
        yield _row("reject", found.rejects[-1].address, 0, more)


def _set_rows(found: FoundSet) -> Iterator[Row]:
    """A packet set, and below it each of its packets, copies included."""
    there = f"{len(found.places)} of {found.total} packets"
    version = found.image_header and f"version {found.image_header.version.text}"
    parts = (set_id_text(found.set_id), version, there, *found.conflicts)
    size = sum(found.size_of(number) * len(at) for number, at in found.places.items())
    yield _row("packet set", found.lowest, size, ", ".join(part for part in parts if part))
    for number, places in found.places.items():
        for copy, address in enumerate(places):
            detail = "copy" if copy else ""
            _, values = _row("packet", address, found.size_of(number), detail, number)
            yield 1, values
