"""What `dell_rbu` has staged: the pages, how they are filled, read back and dropped."""

from __future__ import annotations

from openrbu.drivers.dell_rbu_profiles import KernelOopsError, Profile
from openrbu.drivers.extents import Block, Extents, free_all, zero_whole
from openrbu.drivers.firmware_image import LoadedImage
from openrbu.memory.pages import PageSource
from openrbu.units import PhysAddr


class StagedData:
    """The one block of a monolithic image (`mono`), or a list of blocks with packets: never both.

    All readers of packets share the `cursor`: see `dell_rbu`.
    """

    def __init__(self, pages: PageSource, profile: Profile) -> None:
        self._pages, self._profile = pages, profile
        self.mono: Block | None = None
        self.packets: list[Block] = []
        self.cursor = 0
        self._extents = Extents(pages.memory)

    @property
    def blocks(self) -> list[Block]:
        """All blocks, in sequence."""
        return self.packets if self.mono is None else [self.mono]

    @property
    def size_bytes(self) -> int:
        return self._extents.size_bytes

    def restore(self, blocks: list[Block], *, is_mono: bool, cursor: int) -> None:
        """Continue with blocks that are filled.

        :raise ValueError: when a monolithic image does not have exactly one block.
        """
        if is_mono:
            (self.mono,) = blocks
        else:
            self.packets = blocks
        self._find_extents()
        self.cursor = cursor

    def fill(self, image: LoadedImage, *, packet_size_bytes: int) -> None:
        """Write the image into the blocks, and zeros into the rest of each block.

        :raise OSError: when memory can't be written (RAM in a file on a full disk). Nothing is
            staged then.
        """
        self._find_extents()
        memory = self._pages.memory
        try:
            position = 0
            for view in image.views():
                self._extents.write(position, view)
                position += len(view)
            for block in self.blocks:
                if rest := block.capacity_bytes - block.size_bytes:
                    memory.zero(PhysAddr(block.address + block.size_bytes), rest)
        except OSError:
            self.drop(packet_size_bytes)
            raise

    def _find_extents(self) -> None:
        pieces = ((block.address, block.size_bytes) for block in self.blocks)
        self._extents = Extents(self._pages.memory, pieces)

    # -- reading back -----------------------------------------------------------------------

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One read of the whole data. With packets it moves the cursor."""
        if self.mono is not None:
            return self._extents.read(offset, size_bytes)
        total = self.size_bytes
        if offset > total:
            return b""
        wanted = min(size_bytes, total - offset)
        skipped = self.packets[0].size_bytes if self._profile.skips_first_packet else 0
        data = self._extents.read(skipped + self.cursor, wanted)
        is_past_the_end = offset + size_bytes > total
        self.cursor = 0 if is_past_the_end else min(self.cursor + wanted, total)
        return data.ljust(wanted, b"\0")

    # -- dropping ---------------------------------------------------------------------------

    def drop(self, packet_size_bytes: int) -> None:
        """Clear and free everything.

        :raise KernelOopsError: when there are packets, and the profile has that bug.
        """
        self.drop_packets(packet_size_bytes)
        self.drop_mono()

    def drop_mono(self) -> None:
        """Clear and free the block of a monolithic image, if there is one."""
        if self.mono is not None:
            zero_whole(self._pages.memory, [self.mono])
            self._free([self.mono])
            self.mono = None

    def drop_packets(self, packet_size_bytes: int) -> None:
        """Clear and free the packets, if there are any. `packet_size_bytes` is the driver's: with
        one of the profiles' bugs, so much is cleared of each packet.

        :raise KernelOopsError: when there are packets, and the profile has that bug.
        """
        if not self.packets:
            return
        oopses = self._profile.oopses_on_clearing
        cleared = self.packets[1:] if oopses else self.packets
        zero_whole(self._pages.memory, cleared)
        if self._profile.clears_past_a_short_packet:
            self._zero_past_short_packets(cleared, packet_size_bytes)
        if oopses:
            raise KernelOopsError("dell_rbu cleared a packet list that was not empty")
        self._free(self.packets)
        self.packets = []

    def _zero_past_short_packets(self, packets: list[Block], packet_size_bytes: int) -> None:
        memory = self._pages.memory
        for block in packets:
            start = block.address + block.capacity_bytes
            for region in memory.regions:
                part = region.clip(start, block.address + packet_size_bytes)
                if part is not None:
                    memory.zero(part.start, part.size_bytes)

    def _free(self, blocks: list[Block]) -> None:
        free_all(self._pages, blocks)
        self._extents, self.cursor = Extents(self._pages.memory), 0
