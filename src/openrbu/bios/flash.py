"""Flash that survives a power cut at any operation: two banks, and a selector that is written last.

Facts: docs/reference/bios-rules.md, B2. Layout of the device: bank 0, bank 1, selector block 0,
selector block 1. A bank has a whole BIOS. A selector block has one record: which bank, which
version, the data's CRC-32, a sequence number, and a CRC-32 over the record. The valid record with
the highest number says what the machine runs. To install a BIOS: erase and program the *other* bank
block by block, and read each block back; then write a record with the next number into the *other*
selector block. If the power fails at any point, the current record is unchanged, and so is the bank
that it names. (There are two banks instead of a recovery block, because then no point needs a
special way to boot.)

NOR flash: to erase a block sets its bits to 1; programming can only clear bits.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from openrbu.bios import faults as broken
from openrbu.bios.power import PowerRail
from openrbu.buffers import Buffer, same_bytes
from openrbu.errors import MachineError, OpenRbuError
from openrbu.faults import FaultKind
from openrbu.formats.dell import CompletionCode, describe_completion
from openrbu.formats.layout import Field, Layout
from openrbu.system.kept_files import open_kept
from openrbu.units import KIB

BLOCK_BYTES = 64 * KIB
"""The erase block. ROM sizes in SMBIOS type 0 count in the same unit."""

RECORD = Layout(
    "flash selector record",
    Field("magic", "4s", required=b"$RBS"),
    Field("sequence", "I"),
    Field("bank", "I"),
    Field("version", "64s"),
    Field("release_date", "16s"),
    Field("data_crc32", "I"),
    Field("record_crc32", "I"),
)


class FlashError(OpenRbuError):
    """An operation of the flash failed; `code` is what the BIOS records."""

    kind = "flash"

    def __init__(self, code: CompletionCode) -> None:
        super().__init__(describe_completion(code))
        self.code = code


@dataclass(frozen=True, slots=True)
class BankRecord:
    """The record in a selector block: the machine runs `version` from `bank`."""

    sequence: int
    bank: int
    version: str
    release_date: str
    data_crc32: int

    def build(self) -> bytes:
        body = RECORD.pack(
            sequence=self.sequence,
            bank=self.bank,
            version=self.version.encode("ascii", "replace")[:64],
            release_date=self.release_date.encode("ascii", "replace")[:16],
            data_crc32=self.data_crc32,
        )[:-4]
        return body + zlib.crc32(body).to_bytes(4, "little")

    @classmethod
    def parse(cls, data: bytes) -> BankRecord | None:
        """The record in a selector block; None if there is no valid one."""
        values = RECORD.unpack(data)
        if RECORD.violation(values) or values["bank"] not in (0, 1):
            return None
        if zlib.crc32(data[: RECORD.size_bytes - 4]) != values["record_crc32"]:
            return None
        return cls(
            values["sequence"],
            values["bank"],
            values["version"].rstrip(b"\0").decode("ascii", "replace"),
            values["release_date"].rstrip(b"\0").decode("ascii", "replace"),
            values["data_crc32"],
        )


class FlashFile:
    """The device: a file that is erased in blocks and programmed in place. It does not know banks.

    A file that has more names than one is that of other machines, too, and is never written: a
    copy with the name `own` takes its place first. (None: PATH.own.)

    :raise MachineError: when the file is missing.
    """

    def __init__(
        self,
        path: Path,
        *,
        rail: PowerRail | None = None,
        faults: Collection[FaultKind] = (),
        own: Path | None = None,
    ) -> None:
        self._rail = rail or PowerRail()
        self._faults = faults
        self._own = own or path.with_name(f"{path.name}.own")
        self._has_room = False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise MachineError(f"the flash file {path} is missing") from None
        self.size_bytes = os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)

    def make_room(self) -> None:
        """Take the disk space for all that may be written, in a file that is this machine's alone.

        :raise OSError: when there is not enough; then nothing has changed.
        """
        if os.fstat(self._fd).st_nlink == 1:
            os.posix_fallocate(self._fd, 0, self.size_bytes)
        else:
            self._make_own()
        self._has_room = True

    def _make_own(self) -> None:
        fresh = self._own.with_name(f"{self._own.name}.new")
        fd = open_kept(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            os.posix_fallocate(fd, 0, self.size_bytes)
            os.pwrite(fd, self.read(0, self.size_bytes), 0)
            fresh.replace(self._own)
        except BaseException:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd = fd

    def read(self, offset: int, size_bytes: int) -> bytes:
        return os.pread(self._fd, size_bytes, offset)

    def erase(self, offset: int) -> None:
        """Set the block at `offset` to 0xFF.

        :raise FlashError: when a fault prevents it; with that fault's code.
        """
        self._stop_for(broken.FLASH_NOT_READY)
        self._stop_for(broken.ERASE_FAILS)
        self._put(offset, _ERASED)

    def program(self, offset: int, data: Buffer) -> None:
        """Clear bits at `offset` so that `data` is there, if the block was erased before.

        :raise FlashError: when a fault prevents it; with that fault's code.
        """
        self._stop_for(broken.FLASH_FAILS)
        old = self.read(offset, len(data))
        if old != _ERASED[: len(data)]:
            data = bytes(a & b for a, b in zip(old, data, strict=True))
        if broken.MISCOMPARE in self._faults:
            data = bytes([data[0] ^ 1]) + bytes(data[1:])
        self._put(offset, data)

    def _put(self, offset: int, data: Buffer) -> None:
        if not self._has_room:
            self.make_room()
        cut = self._rail.operation()
        os.pwrite(self._fd, data[: len(data) // 2] if cut else data, offset)
        if cut:
            self._rail.fail()

    def _stop_for(self, fault: broken.FlashFault) -> None:
        if fault in self._faults:
            raise FlashError(fault.code)


_ERASED = b"\xff" * BLOCK_BYTES


class Flash:
    """A machine's BIOS flash: two banks on a device.

    :raise MachineError: when the device's size is not that of two banks.
    """

    def __init__(self, device: FlashFile, *, faults: Collection[FaultKind] = ()) -> None:
        self._device = device
        self._faults = faults
        self._current: BankRecord | None = None
        self.size_bytes = device.size_bytes // 2 - BLOCK_BYTES
        if self.size_bytes <= 0 or device.size_bytes % (2 * BLOCK_BYTES):
            raise MachineError("the flash file is damaged: its size is not that of two banks")

    @staticmethod
    def content(data: Buffer, *, version: str, release_date: str) -> bytes:
        """The flash file of a machine that leaves the factory with `data` as its BIOS."""
        record = BankRecord(1, 0, version, release_date, zlib.crc32(data)).build()
        return bytes(data) + bytes(len(data)) + record.ljust(2 * BLOCK_BYTES, b"\0")

    @staticmethod
    def create(path: Path, data: Buffer, *, version: str, release_date: str) -> None:
        """Make that file."""
        with path.open("xb") as file:
            file.write(Flash.content(data, version=version, release_date=release_date))

    def make_room(self) -> None:
        """Take the disk space for an installation.

        :raise OSError: when there is not enough; then nothing has changed.
        """
        self._device.make_room()

    @property
    def current(self) -> BankRecord:
        """The current record: the one with the highest number whose bank is whole.

        :raise MachineError: when there is none: the machine can't start.
        """
        if self._current is not None:
            return self._current
        records = [record for _, record in self._records()]
        for record in sorted(records, key=lambda record: -record.sequence):
            if zlib.crc32(self._bank(record.bank)) == record.data_crc32:
                self._current = record
                return record
        raise MachineError("the flash has no whole BIOS: this machine can't start any more")

    def image(self) -> bytes:
        """The BIOS that the machine runs."""
        return self._bank(self.current.bank)

    def install(self, data: Buffer, *, version: str, release_date: str) -> None:
        """Make `data` the machine's BIOS, or keep the old one.

        :raise FlashError: when the flash fails. The machine runs the old BIOS, except with the
            fault 12v-not-removed: then it runs the new one.
        :raise PowerCutError: when the power fails. The machine runs the whole old or new BIOS.
        """
        for fault in broken.BEFORE_PROGRAMMING:
            if fault in self._faults:
                raise FlashError(fault.code)
        assert len(data) == self.size_bytes
        current = self.current
        bank = 1 - current.bank
        for offset in range(0, self.size_bytes, BLOCK_BYTES):
            self._write_block(bank * self.size_bytes + offset, data[offset : offset + BLOCK_BYTES])
        record = BankRecord(current.sequence + 1, bank, version, release_date, zlib.crc32(data))
        used = {slot for slot, found in self._records() if found == current}
        self._write_block(self._selector(0 if used == {1} else 1), record.build())
        self._current = record
        if broken.TWELVE_VOLTS_NOT_REMOVED in self._faults:
            raise FlashError(broken.TWELVE_VOLTS_NOT_REMOVED.code)

    def _write_block(self, offset: int, data: Buffer) -> None:
        self._device.erase(offset)
        self._device.program(offset, data)
        if not same_bytes(self._device.read(offset, len(data)), data):
            raise FlashError(CompletionCode.MISCOMPARE)

    def _records(self) -> list[tuple[int, BankRecord]]:
        """The valid records, each with the number of its selector block."""
        found = []
        for slot in (0, 1):
            record = BankRecord.parse(self._device.read(self._selector(slot), RECORD.size_bytes))
            if record is not None:
                found.append((slot, record))
        return found

    def _bank(self, bank: int) -> bytes:
        return self._device.read(bank * self.size_bytes, self.size_bytes)

    def _selector(self, slot: int) -> int:
        return 2 * self.size_bytes + slot * BLOCK_BYTES
