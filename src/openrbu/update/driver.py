"""The `dell_rbu` driver as the application uses it: its files and the order of writing them.

The order and the meaning of each file are those of the kernel's document and of the driver as it
is today; `tests/contract` holds both to it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from typing import Literal

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, ObstacleError, UpdateFailedError
from openrbu.formats import packet
from openrbu.hosts.base import Host, read_text
from openrbu.units import MIB

DEVICE = "/sys/devices/platform/dell_rbu"
IMAGE_TYPE = f"{DEVICE}/image_type"
PACKET_SIZE = f"{DEVICE}/packet_size"
STAGED = f"{DEVICE}/data"
ENTRY = "/sys/class/firmware/dell_rbu"
LOADING = f"{ENTRY}/loading"
DATA = f"{ENTRY}/data"

Mode = Literal["mono", "packet"]
Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call."""

CHUNK_BYTES = 1 * MIB
ENTRY_WAIT_SECONDS = 10.0
"""How long the entry may take to appear after `init`: the kernel makes it in the background."""


class RbuDriver:
    """The driver's files on one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def is_loaded(self) -> bool:
        return self._host.exists(IMAGE_TYPE)

    @property
    def has_entry(self) -> bool:
        """Whether the firmware entry is there, which takes an image and keeps the module in use."""
        return self._host.exists(LOADING)

    def load(self, mode: Mode) -> None:
        """Have the module loaded.

        :raise ObstacleError: when it can't be.
        """
        if self._host.exists(IMAGE_TYPE):
            return
        self._host.load_module("dell_rbu", {"image_type": mode})
        if not self._host.exists(IMAGE_TYPE):
            raise ObstacleError("the dell_rbu module is loaded, but its files are not there")

    def unload(self) -> None:
        """Give the firmware entry up and unload the module; all that was staged is freed."""
        self.abandon_entry()
        self._host.unload_module("dell_rbu")

    @property
    def image_type(self) -> str:
        return read_text(self._host, IMAGE_TYPE)

    @property
    def packet_size_bytes(self) -> int:
        text = read_text(self._host, PACKET_SIZE)
        return int(text) if text.isdigit() else 0

    def set_type(self, image_type: str) -> None:
        """Choose `mono` or `packet`; whatever is staged is freed."""
        self._host.write(IMAGE_TYPE, f"{image_type}\n".encode())

    def set_packet_size(self, packet_size_bytes: int) -> None:
        """Set the packet size; staged packets are dropped.

        :raise UpdateFailedError: when the driver does not take it.
        """
        self._host.write(PACKET_SIZE, f"{packet_size_bytes}\n".encode())
        taken = self.packet_size_bytes
        if taken != packet_size_bytes:
            raise UpdateFailedError(
                f"the driver keeps packet size {taken} where {packet_size_bytes} was written"
            )

    def deliver(self, data: Buffer, progress: Progress) -> None:
        """Hand `data` to the driver: `1` to loading, the bytes, `0` to loading.

        Whether the driver could keep it is not said here: read it back.

        :raise OSError: as the kernel answers; the load is aborted then.
        """
        self.summon_entry()
        self._host.write(LOADING, b"1\n")
        try:
            for offset in range(0, len(data), CHUNK_BYTES):
                chunk = memoryview(data)[offset : offset + CHUNK_BYTES]
                self._host.write(DATA, chunk, offset)
                progress(len(chunk))
        except BaseException:
            self.abandon_entry()
            raise
        self._host.write(LOADING, b"0\n")

    def wash(self, size_bytes: int) -> None:
        """Put zeros where the kernel kept an image of this size while it was delivered.

        That memory is freed as it is, and what it holds looks like an image or like packets to a
        BIOS. A load of zeros that is aborted gets the same memory, as far as one can choose.

        :raise OSError: as the kernel answers.
        """
        had_entry = self.has_entry
        self.summon_entry()
        self._host.write(LOADING, b"1\n")
        try:
            zeros = bytes(min(size_bytes, CHUNK_BYTES))
            for offset in range(0, size_bytes, CHUNK_BYTES):
                self._host.write(DATA, zeros[: size_bytes - offset], offset)
        finally:
            self.abandon_entry()
        if had_entry:
            self.summon_entry()

    def staged(self) -> Iterator[bytes]:
        """What the driver says it holds, in order. Nothing staged: nothing comes.

        :raise OSError: as the kernel answers, but for ENOMEM, which means nothing is staged.
        """
        try:
            yield from self._host.chunks(STAGED, CHUNK_BYTES)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise

    @property
    def may_die_of_clearing(self) -> bool:
        """Whether this kernel may die when it drops the packets that it holds.

        Kernels from 5.7 until the fix "platform/x86: dell_rbu: Fix list usage" do, and the same
        bug makes them skip a packet at the start of what they read back. So what begins with the
        packets 0 and 1 is safe to drop; of anything else nothing is known.
        """
        if self.image_type != "packet" or not self.holds_something:
            return False
        staged = b"".join(self.staged())
        size_bytes = self.packet_size_bytes or len(staged)
        try:
            numbers = [
                packet.PacketHeader.parse(staged, offset).number
                for offset in range(0, min(2 * size_bytes, len(staged)), size_bytes)
            ]
        except DamagedInputError:  # what is skipped leaves zeros behind; or no packets of ours
            return True
        return numbers != list(range(len(numbers)))

    @property
    def staged_size_bytes(self) -> int:
        """How much is staged. This reads to the end, and so puts the read position of packets,
        which is the driver's and all readers', back to the start."""
        return sum(map(len, self.staged()))

    @property
    def holds_something(self) -> bool:
        return self.staged_size_bytes > 0

    def summon_entry(self) -> None:
        """Have the firmware entry there.

        :raise ObstacleError: when it does not come within `ENTRY_WAIT_SECONDS`.
        """
        if self.has_entry:
            return
        self._host.write(IMAGE_TYPE, b"init\n")
        waited, step = 0.0, 0.01
        while not self.has_entry:
            if waited >= ENTRY_WAIT_SECONDS:
                raise ObstacleError(
                    f"{ENTRY} did not appear within {ENTRY_WAIT_SECONDS:.0f} s: is the kernel's "
                    "firmware loader fallback (CONFIG_FW_LOADER_USER_HELPER) there?"
                )
            self._host.pause(step)
            waited, step = waited + step, min(2 * step, 0.5)

    def abandon_entry(self) -> None:
        """`-1`: the entry goes, and with it what was delivered and not taken."""
        if self.has_entry:
            with contextlib.suppress(OSError):
                self._host.write(LOADING, b"-1\n")
