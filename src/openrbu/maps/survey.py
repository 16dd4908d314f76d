"""Makes the map of a memory: what was found in it, and who uses its pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from openrbu.formats.hdr import Header
from openrbu.formats.packet import HEADER_SIZE_BYTES, PACKET_HEADER, set_id_text
from openrbu.formats.systems import title_of
from openrbu.lazy import np, npt
from openrbu.maps.memory_map import MappedSet, Mark, MemoryMap, Ranges
from openrbu.maps.usage import Usage
from openrbu.memory.held import HeldPages
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.ram_array import Addresses
from openrbu.memory.search_result import FoundSet, SearchResult
from openrbu.units import MAX_ORDER, PAGE_SIZE, human_size


def make_map(
    name: str,
    memory: ReadableMemory,
    seen: SearchResult,
    *,
    usage: Usage | None = None,
    held: tuple[Region, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> MemoryMap:
    """The map of a memory in which a search found `seen`.

    `usage`: of the system that runs there; None where none does, as in a dump. `held`: what its
    driver holds for the BIOS; None where that is not known, and then a packet that the page flags
    don't call free is taken for held.
    """
    regions = memory.regions
    usage = usage or Usage()
    end = regions[-1].end
    ranges = dict(usage.ranges)
    if not usage.is_known:
        ranges["ram"] = Ranges.of((region.start, region.end) for region in regions)
    ranges["no_ram"] = Ranges.of(_gaps(regions))
    if held is not None:
        ranges["held"] = Ranges.of((region.start, region.end) for region in held)
    ghosts = _Ghosts(usage, held)
    sets = tuple(_mapped_set(memory, found, ghosts) for found in seen.packet_sets)
    marks = tuple(sorted(_marks(seen, ghosts), key=lambda mark: mark.address))
    for key, spans in _found_spans(sets, marks).items():
        ranges[key] = Ranges.of(spans)
    ranges["reject"] = Ranges.of(
        (mark.address, mark.address + mark.size_bytes) for mark in marks if mark.kind == "reject"
    )
    return MemoryMap(
        name,
        end,
        ranges,
        usage.zones,
        sets,
        marks,
        seen.reject_count - (len(seen.headers) - len(seen.images)),  # bare ones have their marks
        (*notes, *usage.notes),
    )


class _Ghosts:
    """Says which places are leftover copies: pages that nobody holds."""

    def __init__(self, usage: Usage, held: tuple[Region, ...] | None) -> None:
        self._held = None if held is None else HeldPages(held)
        self.are_known = self._held is not None or usage.is_known
        loose = ("cache", "balloon", *(f"free_{order}" for order in range(MAX_ORDER + 1)))
        self._loose = [usage.ranges[key] for key in loose if key in usage.ranges]

    def among(self, addresses: Addresses, sizes: Addresses) -> npt.NDArray[np.bool_] | None:
        """Which of the places [address, address + size) are; None where that is not known."""
        if self._held is not None:
            places = zip(addresses.tolist(), sizes.tolist(), strict=True)
            return np.array([not self._held.has_all(*place) for place in places], np.bool_)
        if not self.are_known:
            return None
        is_ghost = np.zeros(len(addresses), np.bool_)
        for ranges in self._loose:
            is_ghost |= ranges.bytes_in(addresses, addresses + sizes) > 0
        return is_ghost

    def has(self, address: int, size_bytes: int) -> bool:
        """Whether this place is one; False where that is not known."""
        answer = self.among(np.array([address]), np.array([size_bytes]))
        return answer is not None and bool(answer[0])


def _gaps(regions: Iterable[Region]) -> Iterator[tuple[int, int]]:
    """The ranges below the end of RAM in which there is none."""
    position = 0
    for region in regions:
        if region.start > position:
            yield position, region.start
        position = region.end


def _mapped_set(memory: ReadableMemory, found: FoundSet, ghosts: _Ghosts) -> MappedSet:
    pairs = sorted((address, number) for number, at in found.places.items() for address in at)
    addresses = np.array([address for address, _ in pairs], np.int64)
    numbers = np.array([number for _, number in pairs], np.uint16)
    headers = [bytes(memory.read(address, HEADER_SIZE_BYTES)) for address, _ in pairs]
    checksums = np.frombuffer(b"".join(headers), PACKET_HEADER.dtype)["pktChksum"].copy()
    sizes = np.array([found.size_of(number) for _, number in pairs], np.int64)
    model = next((h for h, (_, number) in zip(headers, pairs, strict=True) if number), headers[0])
    title = "" if found.image_header is None else _image_title(found.image_header)
    return MappedSet(
        found, model, addresses, numbers, checksums, ghosts.among(addresses, sizes), title
    )


def _image_title(header: Header) -> str:
    return f"{header.version} for {', '.join(map(title_of, header.systems)) or 'no system'}"


def _marks(seen: SearchResult, ghosts: _Ghosts) -> Iterator[Mark]:
    """The images, the headers without one, and the rejects."""
    whole = {each.address for each in seen.images}
    for image in seen.images:
        is_ghost = ghosts.has(image.address, image.size_bytes)
        facts = (
            ("size", f"{human_size(image.size_bytes)} ({image.size_bytes} bytes)"),
            ("quick check", image.header.quick_check_text),
            ("check word of the data", f"{image.data_word:#010x}"),
        )
        title = f"image {_image_title(image.header)}"
        kind = "ghost" if is_ghost else "image"
        yield Mark(kind, image.address, image.size_bytes, title, facts)
    for header in seen.headers:
        if header.address not in whole:
            behind = "an image that was overwritten" if header.size_bytes else "no whole image"
            size = header.size_bytes or header.header.size_bytes
            title = f"header of {_image_title(header.header)}"
            yield Mark("header", header.address, size, title, (("behind it", behind),))
    yield from _rejects(seen)


def _rejects(seen: SearchResult) -> Iterator[Mark]:
    """What only looks like a packet or an image, and packets with a wrong checksum."""
    told = {each.address for each in seen.headers}
    damaged = {each.address: each for each in seen.damaged}
    for reject in seen.rejects:
        packet = damaged.get(reject.address)
        if packet is not None:
            header = packet.header
            title = f"packet {header.number} of set {set_id_text(header.set_id)}: wrong checksum"
            facts = (
                ("packets of the set", str(header.total)),
                ("its words sum to", f"{packet.word_sum:#06x}, not 0"),
            )
            yield Mark("reject", reject.address, header.size_bytes, title, facts)
        elif reject.address not in told:
            yield Mark("reject", reject.address, PAGE_SIZE, reject.why)


def _found_spans(
    sets: Iterable[MappedSet], marks: Iterable[Mark]
) -> dict[str, list[tuple[int, int]]]:
    """Where packets, images, headers and leftover copies are, by the key of their kind."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for each in sets:
        ghost = each.is_ghost
        for place, (address, number) in enumerate(
            zip(each.addresses.tolist(), each.numbers.tolist(), strict=True)
        ):
            kind = "ghost" if ghost is not None and ghost[place] else "packet"
            spans.setdefault(kind, []).append((address, address + each.found.size_of(number)))
    for mark in marks:
        if mark.kind != "reject":
            span = (mark.address, mark.address + mark.size_bytes)
            spans.setdefault(mark.kind, []).append(span)
    return spans
