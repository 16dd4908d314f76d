"""CMOS on a Linux: the ways to its bytes, the safest first.

1. The kernel's nvmem file. The kernel takes the lock that its clock driver takes, and allows it
   under lockdown, too. (The file of the first bank goes on with the second one; which of the second
   bank's bytes these are, only the chip knows: they are not used.)
2. `/dev/nvram`, with the same lock. It has the first bank, where the PC's check value is right.
   (Its module may have to be loaded.)
3. `/dev/port`, for the ports that no file serves, and where there is no file. It races with the
   kernel's clock driver, so a byte is read until several reads agree, is written together with its
   index, and the clock is looked at before and after.

Facts: docs/reference/smbios-and-tokens.md, S16.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.hosts.base import Host
from openrbu.linux.facts import LinuxFacts
from openrbu.linux.files import number_of
from openrbu.ports import BANK_1_BYTES, CLOCK_BYTES, PC_PORTS, Cmos, PortCmos

NVMEM = "/sys/bus/nvmem/devices/cmos_nvram0/nvmem"
NVRAM = "/dev/nvram"
PORT = "/dev/port"

CLOCK = "/sys/class/rtc/rtc0/since_epoch"
"""The clock of CMOS, in seconds since 1970."""

_FIRST_PORTS = PC_PORTS[0]

_LOOKS, _MAX_LOOKS = 3, 16
"""How many looks at a byte through `/dev/port`, one after the other, have to agree; and after how
many the last one counts: a byte such as a clock's seconds may always change."""

_PAUSE_S = 0.003
"""Between two looks. While the clock counts, 2 ms long, the driver selects one register again and
again; looks without a pause then agree on that register's value (measured: 21 of 1,000)."""

_CLOCK_REGISTERS = {0x0A: 0x70, 0x0B: 0x8F}
"""The clock's registers A and B, with the bits that nobody changes while a clock runs: whether and
in which format it counts."""

_CLOCK_TOLERANCE_S = 3.0
"""How far the clock and the time of the system may move apart during a write: both are whole
seconds, and a clock that was hit is off by far more."""


class ClockHitError(UpdateFailedError):
    """A write through `/dev/port` has set the clock."""

    kind = "clock_hit"


@dataclass(frozen=True, slots=True)
class CmosWay:
    """The way to a bank of CMOS: `path` is the file. `not_used` says for each better way why it
    does not work, in one line."""

    cmos: Cmos
    path: str
    not_used: tuple[str, ...]

    @property
    def is_locked(self) -> bool:
        """Whether the kernel keeps its own clock driver out meanwhile."""
        return self.path != PORT


def find_cmos(host: Host, ports: tuple[int, int], needed: range) -> CmosWay:
    """The first way to the bank behind `ports` on which the indexes `needed` can be read and
    written. Nothing is written.

    :raise ObstacleError: when there is none; it says of each way why.
    """
    not_used: list[str] = []
    for cmos in _ways(host, ports):
        why = _why_not(host, cmos, ports, needed)
        if not why:
            return CmosWay(cmos, cmos.path, tuple(not_used))
        not_used.append(f"{cmos.path}: {why}")
    index_port, data_port = ports
    raise ObstacleError(
        f"CMOS at the ports {index_port:#04x} and {data_port:#04x} can't be reached from here "
        f"(it takes root): {'; '.join(not_used)}"
    )


def _ways(host: Host, ports: tuple[int, int]) -> Iterator[_KernelFile | _DevPort]:
    yield _KernelFile(host, NVMEM)
    yield _KernelFile(host, NVRAM)
    yield _DevPort(host, ports)


def _why_not(
    host: Host, cmos: _KernelFile | _DevPort, ports: tuple[int, int], needed: range
) -> str:
    """Why this way does not work; empty: it does."""
    is_file = isinstance(cmos, _KernelFile)
    if is_file and not (
        ports == _FIRST_PORTS and needed.start in cmos.indexes and needed[-1] in cmos.indexes
    ):
        return "it does not have these bytes"
    try:
        host.write(cmos.path, b"")  # opens it
        if is_file:
            cmos.read(needed.start, len(needed))
    except OSError as error:
        return _words(host, cmos.path, error)
    return ""


def _words(host: Host, path: str, error: OSError) -> str:
    """Why a file can't be used."""
    if path == PORT and error.errno == errno.EPERM:
        lockdown = LinuxFacts(host).lockdown
        if lockdown not in (None, "none"):
            return f"the kernel is locked down ({lockdown})"
    if path == NVRAM and error.errno == errno.ENOENT:
        return f"{error.strerror} (modprobe nvram)"
    return error.strerror or str(error)


class _KernelFile:
    """The first bank in a file of the kernel, which begins behind the clock's registers."""

    indexes = range(CLOCK_BYTES, BANK_1_BYTES)

    def __init__(self, host: Host, path: str) -> None:
        self._host, self.path = host, path

    def read(self, index: int, count: int = 1) -> bytes:
        return _read(self._host, self.path, count, index - CLOCK_BYTES)

    def write(self, index: int, value: int) -> None:
        self._host.write(self.path, bytes([value]), index - CLOCK_BYTES)


def _read(host: Host, path: str, size_bytes: int, offset: int) -> bytes:
    """A part of a file, in one read.

    :raise OSError: the kernel's error, or that the file ends before.
    """
    data = next(host.chunks(path, size_bytes, offset), b"")
    if len(data) != size_bytes:
        raise OSError(errno.EIO, "the file is too short", path)
    return data


class _DevPort(PortCmos):
    """A bank through `/dev/port`."""

    path = PORT

    def __init__(self, host: Host, pair: tuple[int, int]) -> None:
        super().__init__(_Ports(host), pair)
        self._host, self._pair = host, pair

    def read(self, index: int, count: int = 1) -> bytes:
        seen, agreeing = super().read(index, count), [1] * count
        for _ in range(_MAX_LOOKS):
            if min(agreeing) >= _LOOKS:
                break
            self._host.sleep(_PAUSE_S)
            before, seen = seen, super().read(index, count)
            agreeing = [
                number + 1 if one == other else 1
                for number, one, other in zip(agreeing, before, seen, strict=True)
            ]
        return seen

    def write(self, index: int, value: int) -> None:
        """Index and byte in one system call, which the clock driver is less likely to fall into
        (measured: 5 of 4,141 writes went astray, not 266 of 2,826).

        :raise ClockHitError: when the clock was set by it.
        """
        index_port, data_port = self._pair
        clock, registers = self._clock_offset_s(), self._clock_registers()
        if data_port == index_port + 1:
            self._host.write(PORT, bytes([index, value]), index_port)
        else:
            super().write(index, value)
        for register, before in registers.items():
            if (self.read(register)[0] ^ before) & _CLOCK_REGISTERS[register]:
                super().write(register, before)
        now = self._clock_offset_s()
        if clock is not None and now is not None and abs(now - clock) > _CLOCK_TOLERANCE_S:
            raise ClockHitError(
                f"a write to CMOS through {PORT} has hit the clock of this machine, which is off "
                f"by {now - clock:+.0f} s now: set it (hwclock --systohc)"
            )

    def _clock_registers(self) -> dict[int, int]:
        """What the registers A and B are, where this bank has the clock."""
        if self._pair != _FIRST_PORTS:
            return {}
        return {register: self.read(register)[0] for register in _CLOCK_REGISTERS}

    def _clock_offset_s(self) -> float | None:
        """How far the clock is ahead of the system's time; None where there is no such file."""
        seconds = number_of(self._host, CLOCK)
        return None if seconds is None else seconds - self._host.now().timestamp()


class _Ports:
    """I/O ports through `/dev/port`, as `ports.IoPorts`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def out8(self, port: int, value: int) -> None:
        self._host.write(PORT, bytes([value]), port)

    def in8(self, port: int) -> int:
        return _read(self._host, PORT, 1, port)[0]
