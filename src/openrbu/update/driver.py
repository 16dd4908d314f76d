"""The `dell_rbu` driver as the application uses it: its files and the order of writing them.

The order and the meaning of each file are those of the kernel's document and of the driver as it
is today (docs/reference/driver-files.md, D8); `tests/contract` holds both to it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Literal

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, ObstacleError, UpdateFailedError
from openrbu.hosts.base import Host, read_text
from openrbu.system.waiting import Deadline, comes_about
from openrbu.units import MIB

DEVICE = "/sys/devices/platform/dell_rbu"
IMAGE_TYPE = f"{DEVICE}/image_type"
PACKET_SIZE = f"{DEVICE}/packet_size"
STAGED = f"{DEVICE}/data"
ENTRY = "/sys/class/firmware/dell_rbu"
LOADING = f"{ENTRY}/loading"
DATA = f"{ENTRY}/data"
USE_COUNT = "/sys/module/dell_rbu/refcnt"

Mode = Literal["mono", "packet"]
Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call."""

CHUNK_BYTES = 1 * MIB
ENTRY_WAIT_SECONDS = 10.0
"""How long the entry may take to appear after `init`, or to go: the kernel does both in the
background."""


class ReadBack(Enum):
    """What the driver's `data` file gives back."""

    RIGHT = "right"
    NOTHING = "nothing"
    SKIPS_A_PACKET = "skips a packet"
    DIFFERENT = "different"


class RbuDriver:
    """The driver's files on one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def is_loaded(self) -> bool:
        return self._host.exists(IMAGE_TYPE)

    @property
    def has_entry(self) -> bool:
        """Whether the firmware entry is there, which takes an image."""
        return self._host.exists(LOADING)

    @property
    def is_in_use(self) -> bool:
        """Whether the firmware entry keeps the module in use: it is there, or on its way.

        One that is on its way shows in the module's use count only (seen on Debian's 6.1.192).
        """
        if self.has_entry:
            return True
        return self._host.exists(USE_COUNT) and read_text(self._host, USE_COUNT) != "0"

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
        """Give the firmware entry up and unload the module; all that was staged is freed.

        :raise ObstacleError: when the entry does not go, or the host says why the module stays.
        :raise OSError: as the kernel answers.
        """
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

        :raise ObstacleError: when there is no entry to hand it to.
        :raise OSError: as the kernel answers; the load is aborted then.
        """
        self.summon_entry()
        try:
            self._host.write(LOADING, b"1\n")
            for offset in range(0, len(data), CHUNK_BYTES):
                chunk = memoryview(data)[offset : offset + CHUNK_BYTES]
                self._host.write(DATA, chunk, offset)
                progress(len(chunk))
        except BaseException:
            with contextlib.suppress(OSError, ObstacleError):
                self.abandon_entry()
            raise
        self._host.write(LOADING, b"0\n")
        self._await_taken()

    def overwrite_freed(self, size_bytes: int) -> None:
        """Overwrite the memory in which the kernel kept an image of this size during its delivery.

        The kernel frees that memory without clearing it, and a BIOS would take its content for an
        image or for packets. So this delivers as many zeros and aborts the delivery: the kernel
        gives it the same memory, as far as a program can have an influence on that. Afterwards
        there is no firmware entry.

        :raise ObstacleError: when the entry does not appear, or does not disappear.
        :raise OSError: what the kernel returns.
        """
        self.summon_entry()
        try:
            self._host.write(LOADING, b"1\n")
            zeros = bytes(min(size_bytes, CHUNK_BYTES))
            for offset in range(0, size_bytes, CHUNK_BYTES):
                self._host.write(DATA, zeros[: size_bytes - offset], offset)
        finally:
            self.abandon_entry()

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
        from openrbu.formats.packet_header import PacketHeader  # noqa: PLC0415  (start-up time)

        staged = b"".join(self.staged())
        size_bytes = self.packet_size_bytes or len(staged)
        try:
            numbers = [
                PacketHeader.parse(staged, offset).number
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

    def request_entry(self) -> None:
        """Ask for the firmware entry, which comes when the kernel has made it. What is staged is
        freed.

        :raise OSError: as the kernel answers.
        """
        self._host.write(IMAGE_TYPE, b"init\n")

    def summon_entry(self) -> None:
        """Have the firmware entry there. What is staged is freed, where it has to be asked for.

        :raise ObstacleError: when it does not come within `ENTRY_WAIT_SECONDS`.
        :raise OSError: as the kernel answers.
        """
        if not self._comes(self._is_there):
            raise ObstacleError(
                f"{ENTRY} did not appear within {ENTRY_WAIT_SECONDS:.0f} s after init was written "
                "to image_type: try again, or see whether the kernel has the firmware loader "
                "fallback (CONFIG_FW_LOADER_USER_HELPER)"
            )

    def _is_there(self) -> bool:
        """Look for the entry, and ask for it where none is on its way.

        While the one before is still going, asking is lost (seen on Debian's 6.1.192).
        """
        if not self.is_in_use:
            self.request_entry()
        return self.has_entry

    def abandon_entry(self) -> None:
        """`-1`: the entry goes, and with it what was delivered and not taken. One that is on its
        way is waited for.

        :raise ObstacleError: when the module is still in use after `ENTRY_WAIT_SECONDS`.
        :raise OSError: as the kernel answers.
        """
        if not self._comes(self._has_gone):
            raise ObstacleError(
                f"dell_rbu is still in use after {ENTRY_WAIT_SECONDS:.0f} s of waiting for its "
                f"firmware entry ({ENTRY}), which has to be given up first: try again later"
            )

    def _has_gone(self) -> bool:
        """Write `-1` where there is an entry, and see whether one is left or on its way."""
        if self.has_entry:
            try:
                self._host.write(LOADING, b"-1\n")
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):  # it went by itself
                    raise
        return not self.is_in_use

    def _await_taken(self) -> None:
        """Wait until the driver has had what was delivered: the kernel hands it over in the
        background, and the entry holds the module until then (seen on Debian's 6.1.192 with two
        processors, where more than half of all loads could not be read back at once).

        Where the entry is to come back and takes its time, there is no telling: what was taken,
        reading back shows.
        """
        self._comes(lambda: self.has_entry or not self.is_in_use)

    def _comes(self, is_so: Callable[[], bool]) -> bool:
        """Whether it is so within `ENTRY_WAIT_SECONDS`, looked at less and less often."""
        deadline = Deadline(ENTRY, ENTRY_WAIT_SECONDS, clock=_HostClock(self._host))
        return comes_about(is_so, deadline, 0.01, longest_s=0.5)


class _HostClock:
    """Time as a host lets it pass: a virtual machine's entries come while it pauses."""

    def __init__(self, host: Host) -> None:
        self._host, self._now_s = host, 0.0

    def monotonic(self) -> float:
        return self._now_s

    def wait(self, seconds: float) -> None:
        self._host.pause(seconds)
        self._now_s += seconds
