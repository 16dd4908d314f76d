"""The `dell_rbu` driver as the application uses it: its files, and the sequence of writes.

The sequence and the meaning of each file follow the kernel's document and the driver as it is
today (docs/reference/driver-files.md, D8); `tests/contract` checks them.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Literal

from openrbu.buffers import Buffer
from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.hosts.base import Host, read_text
from openrbu.linux.firmware_class import read_firmware_class
from openrbu.system.waiting import Deadline, comes_about
from openrbu.units import MIB
from openrbu.update.firmware_file import NAME, given_as_file
from openrbu.update.host_clock import HostClock

if TYPE_CHECKING:
    from openrbu.update.clearing import Clearing

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
_ENTRY_GOES_SECONDS = 1.0
"""How long an entry is given to go where what was delivered is not there."""

ENTRY_WAIT_SECONDS = 10.0
"""How long to wait for the entry to appear after `init`, or to disappear: the kernel does both in
the background."""


class ReadBack(Enum):
    """What reading the driver's `data` file returned, compared with what was delivered."""

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
        """Whether the firmware entry exists, through which an image is delivered. The kernel makes
        `loading` a moment before `data` (seen on Debian's 6.1.192, once in 1,379 requests)."""
        return self._host.exists(LOADING) and self._host.exists(DATA)

    @property
    def is_loading(self) -> bool:
        """Whether a load was begun through the entry, and not ended.

        :raise OSError: what the kernel returns, except that there is no entry.
        """
        if not self.has_entry:
            return False
        try:
            return next(self._host.chunks(LOADING, 16), b"").strip() == b"1"
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # it is gone already
                raise
            return False

    @property
    def loading_size_bytes(self) -> int | None:
        """How many bytes were loaded until now; None where that can't be read."""
        try:
            return sum(map(len, self._host.chunks(DATA, CHUNK_BYTES)))
        except OSError:
            return None

    @property
    def is_in_use(self) -> bool:
        """Whether a firmware entry keeps the module in use: it exists, or the kernel makes or
        removes it just now, which only the module's use count shows (seen on 6.1.192)."""
        if self._host.exists(LOADING):
            return True
        return self.shows_use and read_text(self._host, USE_COUNT) != "0"

    @property
    def shows_use(self) -> bool:
        """Whether the kernel shows how often the module is in use: not where it is built in."""
        return self._host.exists(USE_COUNT)

    def load(self, mode: Mode) -> None:
        """Load the module with this image type, where it is not loaded.

        :raise ObstacleError: when it can't be loaded.
        """
        if self._host.exists(IMAGE_TYPE):
            return
        self._host.load_module("dell_rbu", {"image_type": mode})
        if not self._host.exists(IMAGE_TYPE):
            raise ObstacleError("the dell_rbu module is loaded, but its files are not there")

    def unload(self) -> None:
        """Abort the firmware entry and unload the module, which frees everything that is staged.

        :raise MayCrashError: when that may crash the kernel.
        :raise ObstacleError: when the entry does not disappear, or the module can't be unloaded.
        :raise OSError: what the kernel returns.
        """
        self.check_clearing()
        self.abort_entry()
        self._host.unload_module("dell_rbu")

    @property
    def image_type(self) -> str:
        return read_text(self._host, IMAGE_TYPE)

    @property
    def packet_size_bytes(self) -> int:
        text = read_text(self._host, PACKET_SIZE)
        return int(text) if text.isdigit() else 0

    def set_type(self, image_type: str) -> None:
        """Write `mono`, `packet` or `init`; the driver frees everything that is staged.

        :raise MayCrashError: when that may crash the kernel.
        """
        self.check_clearing()
        self._host.write(IMAGE_TYPE, f"{image_type}\n".encode())

    def set_packet_size(self, packet_size_bytes: int) -> None:
        """Set the packet size; the driver drops the staged packets.

        :raise MayCrashError: when that may crash the kernel.
        :raise UpdateFailedError: when the driver shows another size afterwards.
        """
        self.check_clearing()
        self._host.write(PACKET_SIZE, f"{packet_size_bytes}\n".encode())
        taken = self.packet_size_bytes
        if taken != packet_size_bytes:
            raise UpdateFailedError(
                f"the driver shows packet size {taken} after {packet_size_bytes} was written"
            )

    def deliver(self, data: Buffer, progress: Progress) -> None:
        """Deliver `data` to the driver: write `1` to loading, then the bytes, then `0` to loading.
        Where the kernel makes no firmware entry, or loads another file instead, as a file.

        The kernel does not report whether the driver had memory for it: read it back.

        :raise ObstacleError: when no firmware entry appears, and it can't be given as a file.
        :raise OSError: what the kernel returns; the delivery is aborted.
        """
        if not self._has_way_through_entry():
            self._deliver_as_file(data)
            progress(len(data))
            return
        try:
            self._host.write(LOADING, b"1\n")
            for offset in range(0, len(data), CHUNK_BYTES):
                chunk = memoryview(data)[offset : offset + CHUNK_BYTES]
                self._host.write(DATA, chunk, offset)
                progress(len(chunk))
        except BaseException:
            with contextlib.suppress(OSError, ObstacleError):
                self.abort_entry()
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
        if not self._has_way_through_entry():
            self._overwrite_by_file(size_bytes)
            return
        try:
            self._host.write(LOADING, b"1\n")
            zeros = bytes(min(size_bytes, CHUNK_BYTES))
            for offset in range(0, size_bytes, CHUNK_BYTES):
                self._host.write(DATA, zeros[: size_bytes - offset], offset)
        finally:
            self.abort_entry()

    def _has_way_through_entry(self) -> bool:
        """Whether there is a firmware entry now. False: the kernel makes none, or would load a file
        instead; what was staged may be freed, or that file may be staged."""
        if self.has_entry:
            return True
        firmware = read_firmware_class(self._host, NAME)
        if (firmware.files or not firmware.uses_fallback) and not self.is_in_use:
            return False
        return self.ensure_entry()

    def _deliver_as_file(self, data: Buffer, *, zeros: int = 0) -> None:
        """Have the kernel load `data` from a file, and as many `zeros`. Where the kernel does not
        show the use of the module, and nothing is staged of zeros alone, nothing shows when it is
        done: it is given `_ENTRY_GOES_SECONDS`.

        :raise ObstacleError: when no file can be made, or the kernel is not done with it within
            `ENTRY_WAIT_SECONDS`.
        """
        with given_as_file(self._host, data, zeros=zeros):
            self.request_entry()
            shows_end = self.shows_use or len(data) > 0
            limit_s = ENTRY_WAIT_SECONDS if shows_end else _ENTRY_GOES_SECONDS
            if not self._wait_until(self._is_file_read, limit_s) and shows_end:
                raise ObstacleError(
                    f"the kernel is not done with loading a file after {ENTRY_WAIT_SECONDS:.0f} s: "
                    "try again later"
                )
            if self.has_entry:
                self.abort_entry()
                raise ObstacleError(
                    f"the kernel did not find the file that it was given ({NAME}): see its log"
                )

    def _is_file_read(self) -> bool:
        """Whether the kernel is done with a file; where it does not show the use of the module:
        whether it has staged something."""
        return self.has_entry or (not self.is_in_use if self.shows_use else self.has_staged_data)

    def _overwrite_by_file(self, size_bytes: int) -> None:
        """As `overwrite_freed`. Packets of no size are not staged, so the driver takes nothing."""
        image_type, packet_size_bytes = self.image_type, self.packet_size_bytes
        self.set_type("packet")
        self.set_packet_size(0)
        try:
            self._deliver_as_file(b"", zeros=size_bytes)
        finally:
            self.set_packet_size(packet_size_bytes)
            self.set_type(image_type)

    def staged(self) -> Iterator[bytes]:
        """The staged data as the driver gives it back, in chunks, in sequence; no chunk when
        nothing is staged.

        :raise OSError: what the kernel returns, except ENOMEM, which means that nothing is staged.
        """
        try:
            yield from self._host.chunks(STAGED, CHUNK_BYTES)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise

    @property
    def clearing(self) -> Clearing:
        """What happens when the driver drops what is staged: some kernels crash (see
        `update.clearing`); openrbu's own driver is no kernel's."""
        from openrbu.update.clearing import Clearing, clearing_of  # noqa: PLC0415  (start-up time)

        is_own = self._host.own_rbu is not None
        if is_own or self.image_type != "packet" or not self.has_staged_data:
            return Clearing.IS_SAFE
        return clearing_of(b"".join(self.staged()), self.packet_size_bytes)

    def check_clearing(self) -> None:
        """Each call that makes the driver drop what is staged begins with this.

        :raise MayCrashError: when that may crash the kernel.
        """
        from openrbu.update.clearing import (  # noqa: PLC0415  (start-up time)
            Clearing,
            MayCrashError,
        )

        if self.is_loaded and (clearing := self.clearing) is not Clearing.IS_SAFE:
            raise MayCrashError(clearing)

    @property
    def staged_size_bytes(self) -> int:
        """How many bytes are staged. This reads to the end: so the driver's read position of
        packets, which all readers share, is at the start again."""
        return sum(map(len, self.staged()))

    @property
    def has_staged_data(self) -> bool:
        return self.staged_size_bytes > 0

    def request_entry(self) -> None:
        """Write `init`: the kernel makes a firmware entry in the background, and the driver frees
        what is staged.

        :raise MayCrashError: when that may crash the kernel.
        :raise OSError: what the kernel returns.
        """
        self.check_clearing()
        self._host.write(IMAGE_TYPE, b"init\n")

    def ensure_entry(self) -> bool:
        """Wait until the firmware entry exists; request it where it does not, which frees what is
        staged. False: the kernel has answered the request without an entry. It has loaded a file,
        or has no sysfs fallback.

        :raise ObstacleError: when it does not answer within `ENTRY_WAIT_SECONDS`.
        :raise OSError: what the kernel returns.
        """
        request = _Request(self)
        if not self._wait_until(request.is_answered):
            raise ObstacleError(
                f"{ENTRY} did not appear within {ENTRY_WAIT_SECONDS:.0f} s after init was written "
                "to image_type: try again, or check that the kernel has the firmware loader "
                "fallback (CONFIG_FW_LOADER_USER_HELPER)"
            )
        return self.has_entry

    def abort_entry(self) -> None:
        """Write `-1`: the kernel removes the entry and drops what was delivered so far. An entry
        that the kernel is still making is waited for, then removed.

        :raise ObstacleError: when the module is still in use after `ENTRY_WAIT_SECONDS`.
        :raise OSError: what the kernel returns.
        """
        if not self._wait_until(self._is_entry_gone):
            raise ObstacleError(
                f"dell_rbu is still in use after {ENTRY_WAIT_SECONDS:.0f} s of waiting for its "
                f"firmware entry ({ENTRY}) to disappear: try again later"
            )

    def _is_entry_gone(self) -> bool:
        """Write `-1` where there is an entry. True: none exists, and the kernel is making none."""
        if self.has_entry:
            try:
                self._host.write(LOADING, b"-1\n")
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):  # it is gone already
                    raise
        return not self.is_in_use

    def _await_taken(self) -> None:
        """Wait until the driver has got what was delivered: the kernel passes it on in the
        background, and the entry keeps the module in use until then (seen on Debian's 6.1.192 with
        two processors, where more than half of all loads could not be read back at once).

        A driver that makes a new entry after each delivery does not show when it is done: reading
        back shows what it took.
        """
        self._wait_until(lambda: self.has_entry or not self.is_in_use)

    def let_entry_go(self) -> None:
        """Wait a moment for a firmware entry to go.

        Right after a delivery the old entry may still be there, and the driver not have its data:
        the kernel removes the one and passes on the other in the background. A driver that makes a
        new entry after each delivery has one for good, and looks the same.
        """
        self._wait_until(lambda: not self.is_in_use, _ENTRY_GOES_SECONDS)

    def _wait_until(self, is_so: Callable[[], bool], limit_s: float = ENTRY_WAIT_SECONDS) -> bool:
        """Whether the condition becomes true within the limit; it is checked less and less
        often."""
        deadline = Deadline(ENTRY, limit_s, clock=HostClock(self._host))
        return comes_about(is_so, deadline, 0.01, longest_s=0.5)


class _Request:
    """A request for a firmware entry."""

    def __init__(self, driver: RbuDriver) -> None:
        self._driver, self._is_made = driver, False

    def is_answered(self) -> bool:
        """Whether the entry exists, or the kernel is done with the request without one. Makes the
        request where the kernel is not busy with an entry: it is lost while the kernel still
        removes the entry before (seen on Debian's 6.1.192)."""
        if not self._driver.is_in_use:
            if self._is_made:
                return True
            self._driver.request_entry()
            self._is_made = self._driver.shows_use
        return self._driver.has_entry
