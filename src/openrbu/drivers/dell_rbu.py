"""The `dell_rbu` driver: stages a BIOS image in memory, where a BIOS finds it after a restart.

Theory of operation. The driver has an image type, a packet size and the staged data: one block of
pages with a monolithic image, or a list of blocks with packets. The firmware class delivers an
image; the device's files set the rest. What each event does:

=====================  ============  ============  =================================  ==========
event                  packets       monolithic    sets                               entry
=====================  ============  ============  =================================  ==========
`image_type`: mono     dropped       dropped       the type                           stays
`image_type`: packet   dropped       dropped       the type                           stays
`image_type`: init     dropped       dropped       nothing                            made
`packet_size`: number  dropped       stays         the packet size, below 0xFFFFFFFF  stays
image, empty           stays         stays         nothing                            gone
image, type mono       (none there)  replaced      nothing                            by profile
image, type packet     replaced      (none there)  nothing                            by profile
unload                 dropped       dropped                                          EBUSY if any
=====================  ============  ============  =================================  ==========

Dropped data is zeroed and freed, so that no old packet remains for the BIOS. Differences between
kernels are in the profile. If an image can't be staged, the write to `loading` returns no error;
only a read of `data` does, with ENOMEM.

Packets are read back through a *cursor* that all readers share. The offset of a read decides how
many bytes it returns, but these are the bytes after those of the last read; at the end they are
zeros. A read past the end sets the cursor back to the start. So only reads in sequence from the
start return what is staged.

Sources: docs/reference/driver-files.md, D1 to D6; the kernel's document of this driver; for what it
does not say, Debian's 6.1.192, with which the profile `linux` is compared. Only measured there:
what the module parameter accepts (any text of up to 16 characters; with a type other than `mono`
and `packet` nothing is staged and `data` reads as empty), the zeros above, that the offset of a
write does not matter, and that a short read of the text files returns one byte less.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from openrbu.buffers import Buffer
from openrbu.drivers.dell_rbu_profiles import (
    GARBAGE_PACKET_SIZE,
    BadPacketSize,
    Profile,
)
from openrbu.drivers.extents import Block, blocks_in, free_all, to_rows
from openrbu.drivers.firmware_class import FirmwareClass
from openrbu.drivers.firmware_image import LoadedImage
from openrbu.drivers.numbers import c_string, scan_unsigned, strict_unsigned, unsigned_long
from openrbu.drivers.objects import add_driver, device_path, module_path, remove_driver
from openrbu.drivers.staged_data import StagedData
from openrbu.drivers.states import DellRbuState
from openrbu.drivers.sysfs import BinaryAttribute, SysfsTree, TextAttribute
from openrbu.errors import KernelError
from openrbu.memory.pages import PageSource
from openrbu.units import GIB, MAX_ORDER, MIB, PhysAddr, order_for

NAME: Final = "dell_rbu"
DEVICE_PATH = device_path(NAME)
FLOOR_PATH = f"{module_path(NAME)}/parameters/allocation_floor"
VERSION = "3.2"
DEFAULT_ALLOCATION_FLOOR = 1 * MIB

_MONO_BELOW = PhysAddr(4 * GIB)
_MAX_TYPE_CHARACTERS = 16
_PACKET_SIZE_LIMIT = 0xFFFFFFFF
_WORD_LIMIT = 1 << 64

_KEYWORDS = (b"mono", b"packet", b"init")
"""The first of these that is in a text written to `image_type` decides what the text means."""


class DellRbu:
    """One loaded module: first `load` or `restore`, at the end `unload`.

    `image_type` and `allocation_floor` (a physical address) are the module's parameters.
    `is_built_in`: it is part of the kernel. `largest_order`: that of the largest block of pages
    which it asks for.
    """

    def __init__(
        self,
        tree: SysfsTree,
        firmware: FirmwareClass,
        pages: PageSource,
        *,
        profile: Profile,
        is_built_in: bool = False,
        image_type: str = "mono",
        allocation_floor: int = DEFAULT_ALLOCATION_FLOOR,
        largest_order: int = MAX_ORDER,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tree, self._firmware, self._pages = tree, firmware, pages
        self._profile, self._log, self._is_built_in = profile, log, is_built_in
        self._largest_order = largest_order
        self._image_type = image_type
        self._allocation_floor = allocation_floor
        self._packet_size_bytes = 0
        self._staged = StagedData(pages, profile)

    # -- properties -------------------------------------------------------------------------

    @property
    def image_type(self) -> str:
        """`mono` or `packet`, or another text that was given at load."""
        return self._image_type

    @property
    def packet_size_bytes(self) -> int:
        return self._packet_size_bytes

    @property
    def staged_blocks(self) -> tuple[Block, ...]:
        """All staged blocks, in sequence."""
        return tuple(self._staged.blocks)

    @property
    def staged_size_bytes(self) -> int:
        return self._staged.size_bytes

    # -- load and unload --------------------------------------------------------------------

    def load(self) -> None:
        """`modprobe`: add the files.

        :raise KernelError: ENOSPC when `image_type` is longer than 16 characters; EEXIST when the
            driver is loaded in this tree.
        """
        if len(self._image_type) > _MAX_TYPE_CHARACTERS:
            raise KernelError(
                errno.ENOSPC,
                detail=f"image_type takes {_MAX_TYPE_CHARACTERS} characters, "
                f"not {self._image_type!r}",
            )
        self._add_files()
        if self._profile.entry_at_load:
            self._request_entry()

    def unload(self) -> None:
        """`rmmod`: free everything and remove the files.

        :raise KernelError: EBUSY while the firmware entry exists; nothing is changed then.
        :raise KernelOopsError: when packets are staged and the profile has that bug.
        """
        if self._firmware.is_requested(NAME):
            raise KernelError(
                errno.EBUSY, detail=f"Module {NAME} is in use; write -1 to loading first"
            )
        self._drop_everything()
        remove_driver(self._tree, NAME)

    def snapshot(self) -> DellRbuState:
        """The state that `restore` needs. Staged bytes stay in memory and are not in it."""
        return DellRbuState(
            module=NAME,
            image_type=self._image_type,
            packet_size_bytes=self._packet_size_bytes,
            allocation_floor=self._allocation_floor,
            staged=to_rows(self._staged.blocks),
            is_mono=self._staged.mono is not None,
            cursor=self._staged.cursor,
            has_entry=self._firmware.is_requested(NAME),
        )

    def restore(self, state: DellRbuState) -> None:
        """Instead of `load`: continue from a snapshot, in a new tree.

        The page allocator is restored separately, and the firmware class after this.

        :raise ValueError: when a monolithic image does not have exactly one block.
        """
        self._image_type = state.image_type
        self._packet_size_bytes = state.packet_size_bytes
        self._allocation_floor = state.allocation_floor
        blocks = list(blocks_in(state.staged, largest_order=self._largest_order))
        self._staged.restore(blocks, is_mono=state.is_mono, cursor=state.cursor)
        self._add_files()
        if state.has_entry:
            self._request_entry()

    # -- files ------------------------------------------------------------------------------

    def _add_files(self) -> None:
        is_used = None if self._is_built_in else partial(self._firmware.is_requested, NAME)
        add_driver(self._tree, NAME, version=VERSION, users=is_used)
        for name, node in (
            ("image_type", BinaryAttribute(self._read_image_type, self._write_image_type)),
            ("packet_size", BinaryAttribute(self._read_packet_size, self._write_packet_size)),
            ("data", BinaryAttribute(self._read_data, mode=0o444)),
        ):
            self._tree.add(f"{DEVICE_PATH}/{name}", node)
        floor = TextAttribute(lambda: f"{self._allocation_floor}\n", self._store_floor)
        self._tree.add(FLOOR_PATH, floor)

    def _request_entry(self) -> None:
        self._firmware.request(
            NAME,
            DEVICE_PATH,
            self._on_image,
            data_before_loading=self._profile.data_before_loading,
        )

    def _read_image_type(self, offset: int, size_bytes: int) -> bytes:
        return _first_read(self._image_type, offset, size_bytes)

    def _write_image_type(self, offset: int, data: Buffer) -> None:
        text = c_string(data).partition(b"\n")[0].partition(b" ")[0]
        keyword = next((word for word in _KEYWORDS if word in text), None)
        if keyword is None:
            raise KernelError(
                errno.EINVAL, f"{DEVICE_PATH}/image_type", "the types are mono and packet"
            )
        self._drop_everything()
        if keyword != b"init":
            self._image_type = keyword.decode()
        elif not self._firmware.is_requested(NAME):
            self._request_entry()

    def _read_packet_size(self, offset: int, size_bytes: int) -> bytes:
        return _first_read(str(self._packet_size_bytes), offset, size_bytes)

    def _write_packet_size(self, offset: int, data: Buffer) -> None:
        rule = self._profile.bad_packet_size
        if rule is BadPacketSize.REFUSE:
            value = strict_unsigned(bytes(data))
            if value is None or value >= _WORD_LIMIT:
                raise KernelError(errno.EINVAL, f"{DEVICE_PATH}/packet_size")
        else:
            value = scan_unsigned(bytes(data))
        self._drop_packets()
        if value is None:
            if rule is BadPacketSize.GARBAGE:
                self._packet_size_bytes = GARBAGE_PACKET_SIZE
        elif value < _PACKET_SIZE_LIMIT:
            self._packet_size_bytes = value

    def _store_floor(self, text: bytes) -> None:
        self._allocation_floor = unsigned_long(text, FLOOR_PATH)

    def _read_data(self, offset: int, size_bytes: int) -> bytes:
        if self._image_type not in ("mono", "packet"):
            return b""
        if not self._staged.blocks:
            raise KernelError(errno.ENOMEM, f"{DEVICE_PATH}/data", "no image is staged")
        return self._staged.read(offset, size_bytes)

    # -- staging ----------------------------------------------------------------------------

    def _on_image(self, image: LoadedImage) -> None:
        """Stage an image that the firmware class delivers; its request is over already."""
        if not image.size_bytes:
            return
        if self._image_type == "mono":
            self._stage_mono(image)
        elif self._image_type == "packet":
            self._stage_packets(image)
        if self._profile.entry_comes_back and not image.is_from_file:
            self._request_entry()

    def _stage_mono(self, image: LoadedImage) -> None:
        size_bytes, mono = image.size_bytes, self._staged.mono
        if mono is not None and mono.capacity_bytes >= size_bytes:
            block = mono._replace(size_bytes=size_bytes)
        else:
            self._staged.drop_mono()
            order = order_for(size_bytes)
            try:
                address = self._allocate(order, below=_MONO_BELOW)
            except KernelError as error:
                self._log(f"{NAME}: no memory for an image of {size_bytes} bytes: {error.strerror}")
                return
            block = Block(address, order, size_bytes)
        self._staged.mono = block
        self._fill(image)

    def _stage_packets(self, image: LoadedImage) -> None:
        self._drop_packets()
        if not self._packet_size_bytes:
            self._log(f"{NAME}: packet_size is not set")
            return
        most = self._profile.most_packets_below_floor
        if most is not None and self._allocation_floor // self._packet_size_bytes > most:
            self._log(f"{NAME}: no memory to list all packets that fit below allocation_floor")
            return
        packets, held = self._staged.packets, list[Block]()
        try:
            for start in range(0, image.size_bytes, self._packet_size_bytes):
                size_bytes = min(self._packet_size_bytes, image.size_bytes - start)
                packets.append(self._allocate_packet(size_bytes, held))
        except KernelError as error:
            self._log(f"{NAME}: no memory for packet {len(packets)}: {error.strerror}")
            self._drop_packets()
        else:
            self._fill(image)
        finally:
            free_all(self._pages, held)

    def _allocate_packet(self, size_bytes: int, held: list[Block]) -> Block:
        """Allocate a block at or above the floor; blocks below it are added to `held`.

        The blocks in `held` stay allocated until all packets have one. The result is the same as if
        each packet were searched from the start, but the time does not grow with the square of the
        floor.
        """
        order = order_for(size_bytes)
        while True:
            address = self._allocate(order, below=self._profile.packets_below)
            block = Block(address, order, size_bytes)
            if address >= self._allocation_floor:
                return block
            held.append(block)

    def _allocate(self, order: int, *, below: PhysAddr | None) -> PhysAddr:
        if order > self._largest_order:
            raise KernelError(
                errno.ENOMEM, detail=f"no block is larger than order {self._largest_order}"
            )
        return self._pages.allocate(order, below=below)

    def _fill(self, image: LoadedImage) -> None:
        self._staged.fill(image, packet_size_bytes=self._packet_size_bytes)

    def _drop_everything(self) -> None:
        self._staged.drop(self._packet_size_bytes)

    def _drop_packets(self) -> None:
        self._staged.drop_packets(self._packet_size_bytes)


def _first_read(text: str, offset: int, size_bytes: int) -> bytes:
    """The bytes for a read of a text file: all at offset 0, none at any other offset.

    One byte of the reader's buffer is not used, as for the NUL of a C string.
    """
    return b"" if offset else os.fsencode(f"{text}\n")[: max(0, size_bytes - 1)]
