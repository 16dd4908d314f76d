"""Verify: what was staged is what was meant, and any BIOS that could be the machine's takes it.

Two looks, because each alone has been wrong on real machines: a driver's read-back can be right
while no BIOS would find the image (pages of a Xen guest are not contiguous in machine memory), and
can be wrong while the memory is right (kernels since 5.7 skipped a packet).

Physical memory is shown to each judge twice. Once as it is: a ghost of another update may be what
a BIOS takes. And once without what may be overwritten before the restart is done: the buffer that
the image came in by is freed, not cleared; the page cache has the file; this program has the image.
So the pages have to be held by the kernel, as far as it says which are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from openrbu.bios.rules.ruleset import FoundUpdate, RejectedError
from openrbu.buffers import Buffer, same_bytes
from openrbu.errors import UpdateFailedError
from openrbu.formats.hdr import MAGIC_WORD, Image
from openrbu.formats.image_check import MAX_DATA_BYTES
from openrbu.formats.packet_header import (
    PACKET_HEADER,
    PACKET_MAGIC,
    PacketHeader,
)
from openrbu.hosts.base import Host
from openrbu.lazy import np, npt
from openrbu.memory.narrowed import NarrowedMemory
from openrbu.memory.page_flags import ENTRY_BYTES, FreePages
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.ram_array import Addresses
from openrbu.units import KIB, MAX_BLOCK_BYTES, MIB, PAGE_SHIFT
from openrbu.update.driver import CHUNK_BYTES, ReadBack
from openrbu.update.judges import Judge, Judges
from openrbu.update.target import is_on_xen

KPAGEFLAGS = "/proc/kpageflags"

_FURTHEST_BYTES = MAX_DATA_BYTES + MIB
"""How far behind its first page an image or a packet may reach."""

_POWER_CYCLE = "; power cycle the machine, which clears its memory, and try again"

_PART_FRAMES = CHUNK_BYTES // ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class Finding:
    """That a BIOS by the rule set `rules` takes the image: as `mode`, from `extents`."""

    rules: str
    mode: str
    extents: tuple[Region, ...]


class StrangerError(UpdateFailedError):
    """Memory that nobody holds keeps a BIOS from what is staged; `why`. Clearing it may help."""

    kind = "stranger"

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}{_POWER_CYCLE}")
        self.why = why


@dataclass(frozen=True, slots=True)
class Verified:
    """What was seen. `findings`: what each BIOS that could be the machine's takes out of physical
    memory; None where the host shows none."""

    read_back: ReadBack
    findings: tuple[Finding, ...] | None

    @property
    def extents(self) -> tuple[Region, ...] | None:
        """Where in physical memory the image lies; None where the host shows none."""
        return None if self.findings is None else self.findings[0].extents


def compare(staged: Iterable[bytes], meant: Buffer, *, packet_size_bytes: int | None) -> ReadBack:
    """Compare what the driver gives back with what it was given, byte for byte."""
    expected = memoryview(meant)
    chunks: list[bytes] = []
    size_bytes, is_right = 0, True
    for chunk in staged:
        end = size_bytes + len(chunk)
        is_right = is_right and same_bytes(expected[size_bytes:end], chunk)
        size_bytes = end
        chunks.append(chunk)
    if not size_bytes and len(meant):
        return ReadBack.NOTHING
    if is_right and size_bytes == len(meant):
        return ReadBack.RIGHT
    given = b"".join(chunks)
    if packet_size_bytes and _skips_a_packet(given, memoryview(meant), packet_size_bytes):
        return ReadBack.SKIPS_A_PACKET
    return ReadBack.DIFFERENT


def _skips_a_packet(given: bytes, meant: memoryview, packet_size_bytes: int) -> bool:
    """Whether packet 0 or 1 is left out and the rest moved up: the bug of kernels since 5.7. The
    size is right; what stands at the end is anything."""
    if len(given) != len(meant):
        return False
    view = memoryview(given)
    return any(
        same_bytes(view[:gap], meant[:gap])
        and same_bytes(view[gap:-packet_size_bytes], meant[gap + packet_size_bytes :])
        for gap in (0, packet_size_bytes)
    )


def read_free_pages(host: Host, pages: Addresses) -> FreePages | None:
    """Which pages are free or will be, of those at these addresses and near them; None where the
    host does not say, or on Xen does not say where they are.

    :raise OSError: as the kernel answers.
    """
    if not host.exists(KPAGEFLAGS):
        return None
    table = host.frame_table
    if table is not None:
        end = int(pages.max(initial=0)) + _FURTHEST_BYTES
        return FreePages.by_machine_frame(_flags(host, 0, ENTRY_BYTES * len(table)), table, end)
    if is_on_xen(host):
        return None
    parts = {int(part) for part in np.unique(pages >> PAGE_SHIFT) // _PART_FRAMES}
    parts |= {part + 1 for part in parts}  # what begins in a part may end in the next one
    return FreePages(
        (part * _PART_FRAMES, _flags(host, part * CHUNK_BYTES, CHUNK_BYTES))
        for part in sorted(parts)
    )


def _flags(host: Host, offset: int, size_bytes: int) -> bytes:
    """A part of the file, as far as it goes."""
    flags = bytearray()
    for chunk in host.chunks(KPAGEFLAGS, CHUNK_BYTES, offset):
        flags += chunk
        if len(flags) >= size_bytes:
            break
    return bytes(flags[:size_bytes])


def find_staged(
    memory: ReadableMemory,
    image: Image,
    judges: Judges,
    *,
    packets: Buffer | None = None,
    free_pages: Callable[[Addresses], FreePages | None] = lambda pages: None,
) -> tuple[Finding, ...]:
    """What each judge takes out of memory, if all of them take this image.

    `packets` are those that it was staged in, back to back; None: in one piece. `free_pages` tells
    which of the pages at some addresses are free or will be. A copy there does not count as staged,
    and a BIOS may meet it all the same.

    :raise StrangerError: when one of them would, but for what lies in free memory.
    :raise UpdateFailedError: when one of them would not.
    :raise OSError: as the kernel answers.
    """
    seen = NarrowedMemory.of(memory)
    free = free_pages(seen.pages)
    ours = _of_image(seen, image) if packets is None else _of_packets(seen, memoryview(packets))
    fleeting = np.zeros(len(seen.pages), np.bool_) if free is None else _fleeting(seen, free, image)
    views = _Views(seen, seen.only(ours), seen.only(~fleeting), seen.only(ours & ~fleeting))
    return tuple(_judged(judge, views, image) for judge in judges)


@dataclass(frozen=True, slots=True)
class _Views:
    """The same memory: as it is; with nothing but what is staged; with nothing that may be
    overwritten before the restart; with neither."""

    all: NarrowedMemory
    ours: NarrowedMemory
    held: NarrowedMemory
    ours_held: NarrowedMemory


def _judged(judge: Judge, views: _Views, image: Image) -> Finding:
    """What a judge takes out of what is staged; and nothing else in memory keeps it from that.

    :raise StrangerError | UpdateFailedError: as `find_staged`.
    """
    found = _look(judge, views.ours_held, image)
    if isinstance(found, str):
        among_free = _look(judge, views.ours, image)
        if isinstance(among_free, Finding):
            raise UpdateFailedError(
                "what is staged is only in memory that is free, a file's or a program's, where it "
                f"may be overwritten; of the rest a BIOS by the {judge.name} rules says: {found}"
            )
        raise UpdateFailedError(_refusal(judge, among_free, views.ours, image))
    for view, is_free in ((views.held, False), (views.all, True)):
        among_others = _look(judge, view, image)
        if isinstance(among_others, str):
            why = (
                f"a BIOS by the {judge.name} rules would not come to what is staged, for what else "
                f"lies in memory: {among_others}"
            )
            raise StrangerError(why) if is_free else UpdateFailedError(f"{why}{_POWER_CYCLE}")
    return found


def _of_image(seen: NarrowedMemory, image: Image) -> npt.NDArray[np.bool_]:
    """Which of the pages begin with the image's header."""
    header = image.header.build()
    starts = [
        word == MAGIC_WORD and seen.starts_with(address, header)
        for address, word in zip(seen.pages.tolist(), seen.words.tolist(), strict=True)
    ]
    return np.array(starts, np.bool_)


def _of_packets(seen: NarrowedMemory, packets: memoryview) -> npt.NDArray[np.bool_]:
    """Which of the pages begin with one of these packets."""
    first = PacketHeader.parse(packets)
    headers, size = seen.headers, first.size_bytes
    is_ours: npt.NDArray[np.bool_] = headers["pktSetId"] == first.set_id
    is_ours &= (seen.words == PACKET_MAGIC) & (headers["pktNum"] < first.total)
    for place in np.flatnonzero(is_ours).tolist():
        start = int(headers["pktNum"][place]) * size
        packet = bytes(packets[start : start + size])
        is_ours[place] = seen.starts_with(int(seen.pages[place]), packet)
    return is_ours


def _fleeting(seen: NarrowedMemory, free: FreePages, image: Image) -> npt.NDArray[np.bool_]:
    """Which packets and images lie, if only in part, in memory that is free or will be."""
    headers = seen.headers
    sizes = np.where(
        seen.words == PACKET_MAGIC, headers["pktSize"].astype(np.int64) * KIB, image.size_bytes
    )
    sizes = np.maximum(sizes, PACKET_HEADER.size_bytes)
    places = zip(seen.pages.tolist(), sizes.tolist(), strict=True)
    return np.array([free.any_in(address, size) for address, size in places], np.bool_)


def _look(judge: Judge, memory: ReadableMemory, image: Image) -> Finding | str:
    """That a BIOS takes this image out of a memory, or why it does not."""
    try:
        find = judge.find(memory)
    except RejectedError as refused:
        return str(refused)
    if _is_image(find, image):
        return Finding(judge.name, find.mode, find.extents)
    return f"it takes another image, {_place(find)}"


def _refusal(judge: Judge, problem: str, seen: NarrowedMemory, image: Image) -> str:
    """What to say when a BIOS would not take what is staged."""
    text = f"a BIOS by the {judge.name} rules would not take what is staged: {problem}"
    if judge.find_anywhere is None:
        return text
    try:
        is_above = _is_image(judge.find_anywhere(seen), image)
    except RejectedError:
        return text
    if not is_above:
        return text
    mono = "use --mode mono, or " if image.size_bytes <= MAX_BLOCK_BYTES else ""
    return (
        "packets lie above 4 GiB, where the published rules have no BIOS look (that of a PowerEdge "
        f"2950 does): {mono}start Linux with mem=3G for the update; --memory-above-4g goes on all "
        "the same"
    )


def _place(find: FoundUpdate) -> str:
    kind = "in packets" if find.mode == "packet" else "in one piece"
    return f"{kind} at {find.extents[0].start:#x}"


def _is_image(find: FoundUpdate, image: Image) -> bool:
    return find.image.header == image.header and same_bytes(find.image.body, image.body)
