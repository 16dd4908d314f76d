"""How the BIOS of a PowerEdge 2950 joins packets, step by step.

All of this was found by running that BIOS's code on memories made for it
(docs/reference/bios-rules.md, B5). A packet is *valid* when its words sum to 0 over `pktSize` KiB.

1. Valid packets of any set in 128 to 640 KiB, then those in 1 to 4 MiB, are copied to the first
   free space above 4 MiB; the search continues after the packet. For a packet of s bytes (whole
   pages) the space is searched from 4 MiB + s on. If a valid packet is in that space, the search
   continues after it. To find packets in the space, the BIOS goes from 4 MiB upwards, over each
   valid packet as a whole and over everything else page by page.
2. From 4 MiB up to the end of RAM below 4 GiB, then above 4 GiB in windows of 4092 MiB, each page
   that begins with `$RPK` is checked, also pages inside packets. As long as no packet was taken, a
   valid one defines the set: `pktSetId`, `totPkts`, `hdrSize`, and the size of each packet's data:
   `pktSize` less the header. (It is not itself taken if its number is not one of the set.)
3. Then the space for the image, from 0x101000 on, is prepared: zeros, and the mark GEOR at the
   start of each packet's data. A packet of the set is taken if its mark is still there. So the
   lowest duplicate is taken, unless its data begins with GEOR. Only the mark decides whether a
   number is one of the set: a larger number counts if GEOR is in memory there by chance. Anything
   in that space from 4 MiB on is overwritten. For a window above 4 GiB, the part of that space from
   4 MiB on is in the window.
4. Packet 0 is taken once. Bit 7 of the byte at offset 0x20 says that a password's CRC-32 follows.
5. The set is complete when as many packets were taken as it has; then the search ends.

A page that begins with `$RPK` and has `pktSize` 0, of any set, makes this BIOS read without an end,
if it reaches the page before the set is complete. A lowest packet with `totPkts` 0 or 1, or with a
header larger than the packet, makes it write without an end.

The end of RAM is rounded up to 64 MiB, the unit of CMOS index 0x2D. Reads after the end of RAM
return zeros. Other than in the real BIOS, the work is limited: checksums as in
`memory.packet_sums`, the steps of 1, the size of the image.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from openrbu.bios.rules.ruleset import Collected
from openrbu.bios.rules.scratch import HOLE, Scratch
from openrbu.formats.packet_header import (
    HEADER_SIZE_BYTES,
    PACKET_HEADER,
    PACKET_MAGIC,
    PARAGRAPH_BYTES,
    PASSWORD_ITEM,
    word_sum,
)
from openrbu.lazy import np
from openrbu.memory.packet_sums import WORK_BYTES, is_few, sums_of
from openrbu.memory.page_search import pages_beginning_with
from openrbu.memory.ram_array import RamArray
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr

PACKETS_START = PhysAddr(128 * KIB)
JOINED_AT = PhysAddr(0x101000)
"""Where the image is joined."""

MOVED_FROM = ((128 * KIB, 640 * KIB), (1 * MIB, 4 * MIB))
FLOOR = 4 * MIB
"""Where the search for packets begins, after those below were moved."""

TOP_UNIT_BYTES = 64 * MIB
WINDOW_BYTES = 4092 * MIB

MAX_JOINED_BYTES = 128 * MIB
"""More than the largest image: a flash has at most 64 MiB here."""

NO_PACKETS = "no packets"

_MAGIC = PACKET_MAGIC.to_bytes(4, "little")
_MARK = b"GEOR"
_PASSWORD_BIT = 0x80
MAX_STEPS = 8_000_000


class _StopError(Exception):
    """The collector stops, and its set is not complete."""

    def __init__(self, reason: str, *, leaves_ram: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.leaves_ram = reason, leaves_ram


def rounded_top(scratch: Scratch) -> int:
    """The end of RAM below 4 GiB, rounded up to the unit of CMOS."""
    return -(-scratch.low_top // TOP_UNIT_BYTES) * TOP_UNIT_BYTES


def collect(scratch: Scratch) -> Collected:
    """Join packets. Everything that the BIOS writes is in `scratch` afterwards."""
    collector = _Collector(scratch)
    try:
        collector.run()
    except _StopError as stop:
        return collector.outcome(stop.reason, leaves_ram=stop.leaves_ram)
    return collector.outcome("")


class _Pages:
    """The pages that begin with `$RPK`, and which of them are valid packets; kept up to date when
    memory is written."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        end = -(-scratch.top // PAGE_SIZE) * PAGE_SIZE
        bounds = PACKETS_START, PhysAddr(end)
        pages = pages_beginning_with(scratch.memory, *bounds, PACKET_MAGIC)
        self.addresses = [address for address, _ in pages]
        runs = scratch.memory.populated(*bounds)
        looked_through = sum(run.size_bytes for run in runs)
        self._work = 4 * looked_through + WORK_BYTES
        self._largest = 0
        # address: bytes of a valid packet; 0 not valid; -1 not checked; -2 its size is 0.
        self._known = dict.fromkeys(self.addresses, -2)
        if self.addresses:
            self._check(RamArray(scratch.memory, *bounds))

    def _check(self, ram: RamArray) -> None:
        """Check all of them as they are in memory."""
        claimed = dict(zip(self.addresses, _claimed_sizes(ram, self.addresses), strict=True))
        ends = {self._end_for(address) for address in self.addresses}
        checkable = [address for address in self.addresses if claimed[address]]
        # after RAM there are zeros: they add nothing
        sizes = [min(claimed[address], ram.bytes_left_at(address)) for address in checkable]
        sums = sums_of(ram, checkable, sizes)
        self._largest = max(claimed.values())
        for address in checkable:
            size, ram_end = claimed[address], address + ram.bytes_left_at(address)
            cut_in_the_middle = address + size > ram_end and ram_end not in ends
            is_sound = not sums.get(address) and not cut_in_the_middle
            self._known[address] = (size if is_sound else 0) if address in sums else -1

    def _end_for(self, address: int) -> int:
        """Where the zeros after RAM begin for a packet at `address`."""
        return self._scratch.low_top if address < 4 * GIB else self._scratch.top

    def size_of_sound(self, address: int) -> int:
        """The size in bytes of the valid packet at a page; 0 if there is none.

        :raise _StopError: when the BIOS would not stop there, or the limit of work is reached.
        """
        size = self._known.get(address)
        if size is None:
            size = self._known[address] = self._read_size(address)
        if size == -2:
            raise _StopError(
                f"the page at {address:#x} begins like a packet of 0 bytes: there the real BIOS "
                "reads without an end",
                leaves_ram=True,
            )
        if size == -1:
            raise _StopError("not all packets were checked: too many overlap")
        return size

    def _read_size(self, address: int) -> int:
        head = self._scratch.read(address, HEADER_SIZE_BYTES)
        if not head.startswith(_MAGIC):
            return 0
        size = int(PACKET_HEADER.unpack(head)["pktSize"]) * KIB
        if size == 0:
            return -2
        if address < HOLE.start < address + size:
            return 0
        self._work -= size
        if self._work < 0:
            return -1
        return 0 if word_sum(self._scratch.read(address, size)) else size

    def begins_like_one(self, address: int) -> bool:
        if not self._scratch.is_changed(address, len(_MAGIC)):
            return True
        return self._scratch.read(address, len(_MAGIC)) == _MAGIC

    def write(self, address: int, data: bytes) -> None:
        """Write, and forget the packets whose bytes may have changed."""
        self._scratch.write(address, data)
        end = address + len(data)
        first = bisect_left(self.addresses, address - self._largest)
        for page in self.addresses[first : bisect_left(self.addresses, end)]:
            self._known.pop(page, None)
        for page in range(-(-address // PAGE_SIZE) * PAGE_SIZE, end, PAGE_SIZE):
            offset = page - address
            if data[offset : offset + len(_MAGIC)] == _MAGIC:
                index = bisect_left(self.addresses, page)
                if index == len(self.addresses) or self.addresses[index] != page:
                    insort(self.addresses, page)
                if len(data) >= offset + 6:
                    claims = int.from_bytes(data[offset + 4 : offset + 6], "little") * KIB
                    self._largest = max(self._largest, claims)


class _Collector:
    """The state while packets are collected."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._pages = _Pages(scratch)
        self._top = rounded_top(scratch)
        self._steps = 0
        self.set_id: int | None = None
        self.total = self.data_size = self.header_size = 0
        self.seen = self.sound = 0
        self.taken: list[PhysAddr] = []
        self._moved_from: dict[int, int] = {}
        self._has_packet_0 = False
        self._password_crc: int | None = None

    def run(self) -> None:
        """Do all steps.

        :raise _StopError: when the set is not complete.
        """
        for start, end in MOVED_FROM:
            self._move_up(start, end)
        for base, end in self._windows():
            if self._sweep(base, end):
                return
        if self.set_id is None:
            raise _StopError(NO_PACKETS)
        raise _StopError(f"{len(self.taken)} of {self.total} packets")

    def outcome(self, reason: str, *, leaves_ram: bool = False) -> Collected:
        """The result. An empty `reason`: the set is complete."""
        size = max(0, self.total - 1) * self.data_size
        return Collected(
            is_complete=not reason,
            reason=reason,
            set_id=self.set_id,
            total=self.total,
            data_size=self.data_size,
            header_size=self.header_size,
            seen=self.seen,
            sound=self.sound,
            taken=tuple(self.taken),
            sources=tuple(PhysAddr(self._moved_from.get(at, at)) for at in self.taken),
            password_crc=self._password_crc,
            image=b"" if reason else self._scratch.read(JOINED_AT, size),
            leaves_ram=leaves_ram,
        )

    # -- low packets are moved up ----------------------------------------------------------------

    def _move_up(self, start: int, end: int) -> None:
        addresses = self._pages.addresses
        sources = addresses[bisect_left(addresses, start) : bisect_left(addresses, end)]
        behind = 0
        for source in sources:
            size = self._pages.size_of_sound(source) if source >= behind else 0
            if size:
                pages = _whole_pages(size)
                behind = source + pages
                place = self._free_place(pages)
                self._pages.write(place, self._scratch.read(source, size))
                self._moved_from[place] = source

    def _free_place(self, size_bytes: int) -> int:
        """The address to which a packet of so many bytes is moved."""
        place, behind = FLOOR + size_bytes, FLOOR
        addresses = self._pages.addresses
        for index in range(bisect_left(addresses, FLOOR), len(addresses)):
            page = addresses[index]
            if page >= place + size_bytes:
                break
            self._step()
            size = self._pages.size_of_sound(page) if page >= behind else 0
            if size:
                behind = page + _whole_pages(size)
                place = max(place, behind)
        if place + size_bytes > self._top:
            raise _StopError("no room above 4 MiB for the packets below it")
        return place

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _StopError(
                "no space was found for packets below 4 MiB: too many packets are above"
            )

    # -- packets are joined --------------------------------------------------------------------

    def _windows(self) -> Iterator[tuple[int, int]]:
        """For each range of memory: the offset of addresses from 4 MiB on, and the end.

        For a range above 4 GiB, addresses from 4 MiB on lead into a window of memory there.
        """
        yield 0, self._top
        start = 4 * GIB
        while start < self._scratch.top:
            size = min(WINDOW_BYTES, self._scratch.top - start)
            yield start - FLOOR, FLOOR + size
            start += size

    def _sweep(self, base: int, end: int) -> bool:
        """Check each page from 4 MiB to `end`, at offset `base`. Whether the set is complete."""
        addresses, at = self._pages.addresses, base + FLOOR
        while True:
            index = bisect_left(addresses, at)  # a write may have added pages
            if index == len(addresses) or addresses[index] >= base + end:
                return False
            page = addresses[index]
            at = page + PAGE_SIZE
            if not self._pages.begins_like_one(page):
                continue
            self.seen += 1
            if self._pages.size_of_sound(page):
                self.sound += 1
                if not self.taken:
                    self._begin_set(page, base)
                if self._take(page, base) and len(self.taken) == self.total:
                    return True

    def _begin_set(self, page: int, base: int) -> None:
        """Define the set by the packet at `page`, and prepare the space for the image."""
        header = PACKET_HEADER.unpack(self._scratch.read(page, HEADER_SIZE_BYTES))
        self.set_id, self.total = header["pktSetId"], header["totPkts"]
        self.header_size = header["hdrSize"] * PARAGRAPH_BYTES
        self.data_size = header["pktSize"] * KIB - self.header_size
        size = (self.total - 1) * self.data_size
        if self.total < 2 or self.data_size < 0 or JOINED_AT + size > self._top:
            raise _StopError(
                f"the lowest packet, at {page:#x}, says {self.total} packets of {self.data_size} "
                "bytes of data: the real BIOS writes over all memory then",
                leaves_ram=True,
            )
        if size > MAX_JOINED_BYTES:
            raise _StopError(f"the lowest packet, at {page:#x}, claims an image of {size} bytes")
        self._put(JOINED_AT, bytes(size), base)
        for number in range(1, self.total):
            self._put(self._place_of(number), _MARK, base)

    def _take(self, page: int, base: int) -> bool:
        """Take a valid packet if it is of the set and new. Whether it was taken."""
        head = self._scratch.read(page, HEADER_SIZE_BYTES + PASSWORD_ITEM.size_bytes)
        header = PACKET_HEADER.unpack(head)
        number = header["pktNum"]
        if header["pktSetId"] != self.set_id:
            return False
        if number == 0:
            if self._has_packet_0:
                return False
            self._has_packet_0 = True
            item = PASSWORD_ITEM.unpack(head, HEADER_SIZE_BYTES)
            self._password_crc = item["crc"] if item["info"] & _PASSWORD_BIT else None
        else:
            place = self._place_of(number)
            if self._get(place, base) != _MARK:
                return False
            data = self._scratch.read(page + self.header_size, self.data_size)
            self._put(place, data, base)
        self.taken.append(PhysAddr(page))
        return True

    def _place_of(self, number: int) -> int:
        return (JOINED_AT + (number - 1) * self.data_size) & 0xFFFFFFFF  # in a 32-bit register

    def _get(self, address: int, base: int) -> bytes:
        return self._scratch.read(address + (base if address >= FLOOR else 0), len(_MARK))

    def _put(self, address: int, data: bytes, base: int) -> None:
        """Write at `address`, as the BIOS sees memory with the offset `base`."""
        below = min(len(data), max(0, FLOOR - address))
        self._pages.write(address, data[:below])
        if below < len(data):
            self._pages.write(address + below + base, data[below:])


def _claimed_sizes(ram: RamArray, addresses: Sequence[int]) -> list[int]:
    """The size in bytes that the header at each page says, as far as RAM has it."""
    if is_few(addresses):
        header = PACKET_HEADER.size_bytes
        heads = (ram.data(PhysAddr(at), min(header, ram.bytes_left_at(at))) for at in addresses)
        return [int.from_bytes(head[4:6], "little") * KIB for head in heads]
    headers = ram.at(np.array(addresses, np.int64), PACKET_HEADER.dtype)
    sizes: list[int] = (headers["pktSize"].astype("int64") * KIB).tolist()
    return sizes


def _whole_pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_SIZE) * PAGE_SIZE
