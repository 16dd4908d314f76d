"""Verify: the driver has what was delivered, and any BIOS that could be the machine's takes it.

There are two checks, because each alone has been wrong on real machines: what a driver gives back
can be right while no BIOS would find the image (pages of a Xen guest are not contiguous in machine
memory), and can be wrong while the memory is right (kernels since 5.7 skipped a packet).

Each possible BIOS searches physical memory twice, where it has other data, too. Once as it is: a
BIOS may take a leftover copy of another update. And once without what may be overwritten before the
restart: the buffer of the delivery is freed, not cleared; the page cache has the file; this program
has the image. So the image has to be in pages that the kernel uses, as far as the kernel says which
ones those are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from openrbu.bios.rules.ruleset import FoundUpdate, RejectedError
from openrbu.buffers import Buffer, same_bytes
from openrbu.errors import DamagedInputError, UpdateFailedError
from openrbu.formats.hdr import Image
from openrbu.formats.image_check import MAX_DATA_BYTES
from openrbu.formats.packet_header import PacketHeader
from openrbu.hosts.base import Host
from openrbu.lazy import np, npt
from openrbu.linux.memory import KPAGEFLAGS
from openrbu.memory.narrowed import NarrowedMemory
from openrbu.memory.page_flags import ENTRY_BYTES, FreePages
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.ram_array import Addresses
from openrbu.units import MIB, PAGE_SHIFT
from openrbu.update.driver import CHUNK_BYTES, ReadBack
from openrbu.update.possible_bioses import PossibleBios, PossibleBioses
from openrbu.update.target import is_on_xen

_FURTHEST_BYTES = MAX_DATA_BYTES + MIB
"""How far from the start of its first page an image or a packet may reach."""

_POWER_CYCLE = "power cycle the machine, which clears its memory, and try again"

_TOO_HIGH = (
    "packets are above 4 GiB, where a BIOS with the published rules does not search (that of a "
    "PowerEdge 2950 does)"
)

_PART_FRAMES = CHUNK_BYTES // ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class Finding:
    """A BIOS with the rule set `rules` takes the image: in `mode`, from `extents`."""

    rules: str
    mode: str
    extents: tuple[Region, ...]


class ReadBackError(UpdateFailedError):
    """The driver gives back something else than was delivered."""

    kind = "read_back"


class NotTakenError(UpdateFailedError):
    """A possible BIOS would not take what is staged from where it is. Staged in another way, it
    may."""

    kind = "not_taken"


class OtherDataError(NotTakenError):
    """Other data in memory keeps a BIOS from what is staged: `why` says how. `also`: what to try
    before the power cycle that clears memory."""

    kind = "other_data"

    def __init__(self, why: str, also: str = "") -> None:
        super().__init__(f"{why}; {also}{_POWER_CYCLE}")
        self.why = why


class LeftoverCopyError(OtherDataError):
    """The other data is a leftover copy in free memory: clearing that may help."""

    kind = "stranger"


class TooHighError(NotTakenError):
    """Packets are above 4 GiB, where a possible BIOS does not search."""

    kind = "too_high"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was verified. `findings`: what each possible BIOS takes out of physical memory; None
    where physical memory can't be read. `staged_in`: where openrbu's own driver has staged it;
    empty with the kernel's, which does not say it."""

    read_back: ReadBack
    findings: tuple[Finding, ...] | None
    staged_in: tuple[Region, ...] = ()

    @property
    def extents(self) -> tuple[Region, ...] | None:
        """Where in physical memory the image is; None where that can't be read."""
        return None if self.findings is None else self.findings[0].extents

    @property
    def places(self) -> tuple[Region, ...]:
        """Where the image is, as was seen, or else as openrbu's own driver says; empty: nobody
        says."""
        return self.staged_in if self.extents is None else self.extents


def compare(staged: Iterable[bytes], meant: Buffer, *, packet_size_bytes: int | None) -> ReadBack:
    """Compare what the driver gives back (`staged`) with what was delivered (`meant`), byte by
    byte. `packet_size_bytes`: None for one monolithic image."""
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
    """Whether packet 0 or 1 is missing and the others moved up: the bug of kernels since 5.7. The
    size is right; the last packet's bytes are arbitrary."""
    if len(given) != len(meant):
        return False
    view = memoryview(given)
    return any(
        same_bytes(view[:gap], meant[:gap])
        and same_bytes(view[gap:-packet_size_bytes], meant[gap + packet_size_bytes :])
        for gap in (0, packet_size_bytes)
    )


def read_free_pages(host: Host, pages: Addresses) -> FreePages | None:
    """Which of the pages at these addresses, and near them, are free or will be freed. None where
    the host does not say, or where it is on Xen and does not say which machine frames they are.

    :raise OSError: what the kernel returns.
    """
    if not host.exists(KPAGEFLAGS):
        return None
    table = host.frame_table
    if table is not None:
        end = int(pages.max(initial=0)) + _FURTHEST_BYTES
        return FreePages.by_machine_frame(_flags(host, 0, ENTRY_BYTES * len(table)), table, end)
    if is_on_xen(host):
        return None
    # Not np.unique: it loads numpy.ma, which takes longer than all of this.
    parts = set(((pages >> PAGE_SHIFT) // _PART_FRAMES).tolist())
    parts |= {part + 1 for part in parts}  # an image that begins in one part may end in the next
    own = host.own_rbu
    return FreePages(
        (
            (part * _PART_FRAMES, _flags(host, part * CHUNK_BYTES, CHUNK_BYTES))
            for part in sorted(parts)
        ),
        held=() if own is None else own.staged_regions,
    )


def _flags(host: Host, offset: int, size_bytes: int) -> bytes:
    """A part of the file; less at the end of the file."""
    flags = bytearray()
    for chunk in host.chunks(KPAGEFLAGS, CHUNK_BYTES, offset):
        flags += chunk
        if len(flags) >= size_bytes:
            break
    return bytes(flags[:size_bytes])


def find_staged(
    memory: ReadableMemory,
    image: Image,
    bioses: PossibleBioses,
    *,
    packets: Buffer | None = None,
    free_pages: Callable[[Addresses], FreePages | None] = lambda pages: None,
) -> tuple[Finding, ...]:
    """What each possible BIOS takes out of memory, if all of them take this image.

    `packets` are those that it was staged in, back to back; None: in one piece. `free_pages` says
    which of the pages at some addresses are free or will be freed. A copy there does not count as
    staged, but a BIOS may find it.

    The memory of a running machine changes meanwhile. A free page with a packet may be taken for
    something else, often for this process, between two looks at it. So a check that fails is
    repeated with the pages that still begin as they did, as long as these become fewer; all of
    memory is searched once.

    :raise LeftoverCopyError: when one of them does not take it because of a leftover copy in free
        memory.
    :raise OtherDataError: when one of them does not take it because of other data in memory.
    :raise NotTakenError: when one of them does not take it from where it is.
    :raise DamagedInputError: when what was found is not what was copied a moment later.
    :raise OSError: what the kernel returns.
    """
    seen = NarrowedMemory.of(memory)
    while True:
        try:
            return _find_among(seen, image, bioses, packets, free_pages(seen.pages))
        except (NotTakenError, DamagedInputError):
            left = seen.still_there()
            if len(left.pages) == len(seen.pages):
                raise
            seen = left


def _find_among(
    seen: NarrowedMemory,
    image: Image,
    bioses: PossibleBioses,
    packets: Buffer | None,
    free: FreePages | None,
) -> tuple[Finding, ...]:
    """`find_staged` in the pages that were found."""
    ours = _of_image(seen, image) if packets is None else _of_packets(seen, memoryview(packets))
    freed = (
        np.zeros(len(seen.pages), np.bool_) if free is None else _in_free_memory(seen, free, image)
    )
    staged = ours & ~freed
    views = _Views(seen.only(staged), seen.only(ours), tuple(_with_others(seen, staged, freed)))
    return tuple(_take(bios, views, image) for bios in bioses)


@dataclass(frozen=True, slots=True)
class _Views:
    """The same memory: only what is staged and in use until the restart (`staged`); what is staged,
    also where it may be overwritten (`ours`); and the views of `_with_others`."""

    staged: NarrowedMemory
    ours: NarrowedMemory
    with_others: tuple[tuple[NarrowedMemory, type[OtherDataError]], ...]


def _with_others(
    seen: NarrowedMemory, staged: npt.NDArray[np.bool_], freed: npt.NDArray[np.bool_]
) -> Iterator[tuple[NarrowedMemory, type[OtherDataError]]]:
    """Memory with other data in it than what is staged, as far as there is any: what the kernel
    keeps in use until the restart, and all as it is. With each the error for data that keeps a BIOS
    from what is staged."""
    if (staged != ~freed).any():
        yield seen.only(~freed), OtherDataError
    if freed.any():
        yield seen, LeftoverCopyError


def _take(bios: PossibleBios, views: _Views, image: Image) -> Finding:
    """What a possible BIOS takes out of what is staged, when nothing else in memory keeps it from
    that.

    :raise LeftoverCopyError | OtherDataError | NotTakenError: as `find_staged`.
    """
    found = _search(bios, views.staged, image)
    if isinstance(found, str):
        among_free = _search(bios, views.ours, image)
        if isinstance(among_free, Finding):
            raise NotTakenError(
                "what is staged is only in memory that is free, or in use by a file or a program, "
                f"where it may be overwritten; a BIOS with the {bios.name} rules says of the "
                f"rest: {found}"
            )
        raise _refusal(bios, among_free, views.ours, image)
    for view, error in views.with_others:
        among_others = _search(bios, view, image)
        if isinstance(among_others, str):
            raise error(
                f"a BIOS with the {bios.name} rules would not take what is staged, because of "
                f"other data in memory: {among_others}"
            )
    return found


def _of_image(seen: NarrowedMemory, image: Image) -> npt.NDArray[np.bool_]:
    """Which of the pages begin with the image's header."""
    header = image.header.build()
    starts = [
        not is_packet and seen.starts_with(address, header)
        for address, is_packet in zip(seen.pages.tolist(), seen.is_packet.tolist(), strict=True)
    ]
    return np.array(starts, np.bool_)


def _of_packets(seen: NarrowedMemory, packets: memoryview) -> npt.NDArray[np.bool_]:
    """Which of the pages begin with one of these packets."""
    first = PacketHeader.parse(packets)
    headers, size = seen.headers, first.size_bytes
    is_ours: npt.NDArray[np.bool_] = headers["pktSetId"] == first.set_id
    is_ours &= seen.is_packet & (headers["pktNum"] < first.total)
    for place in np.flatnonzero(is_ours).tolist():
        start = int(headers["pktNum"][place]) * size
        packet = bytes(packets[start : start + size])
        is_ours[place] = seen.starts_with(int(seen.pages[place]), packet)
    return is_ours


def _in_free_memory(seen: NarrowedMemory, free: FreePages, image: Image) -> npt.NDArray[np.bool_]:
    """Which packets and images are, fully or partly, in memory that is free or will be freed."""
    places = zip(seen.pages.tolist(), seen.sizes(image.size_bytes).tolist(), strict=True)
    return np.array([free.any_in(address, size) for address, size in places], np.bool_)


def _search(bios: PossibleBios, memory: ReadableMemory, image: Image) -> Finding | str:
    """How this BIOS takes this image out of a memory; or a text that says why it does not."""
    try:
        find = bios.find(memory)
    except RejectedError as refused:
        return str(refused)
    if find.has(image):
        return Finding(bios.name, find.mode, find.extents)
    return f"it takes another image, {_place(find)}"


def _refusal(bios: PossibleBios, problem: str, seen: NarrowedMemory, image: Image) -> NotTakenError:
    """The error for a BIOS that would not take what is staged."""
    error = NotTakenError(
        f"a BIOS with the {bios.name} rules would not take what is staged: {problem}"
    )
    if bios.find_anywhere is None:
        return error
    try:
        is_above = bios.find_anywhere(seen).has(image)
    except RejectedError:
        return error
    return TooHighError(_TOO_HIGH) if is_above else error


def _place(find: FoundUpdate) -> str:
    kind = "in packets" if find.mode == "packet" else "in one piece"
    return f"{kind} at {find.extents[0].start:#x}"
