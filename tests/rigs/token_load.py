"""Uses the token of the machine it runs on, very often, beside a program that uses the clock.

Words: how many reads, how many cycles of arming and disarming, and the way: `kernel` is the first
one that openrbu finds, `nvram` its second one (the PC's check value is made right for it), `port`
its last one, `careless` is `/dev/port` as a program uses it that looks once and compares nothing.
Writes what it saw as JSON.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import struct
import sys
import time
from collections import Counter
from pathlib import Path

from openrbu.buffers import Buffer
from openrbu.cmos import IndexedActivation, needed_indexes, store
from openrbu.errors import OpenRbuError
from openrbu.formats.tokens import IndexedIoToken
from openrbu.hosts.linux import LinuxHost
from openrbu.linux.cmos import NVMEM, NVRAM, PORT, find_cmos
from openrbu.ports import Cmos, PortCmos
from openrbu.update.arm import set_armed
from openrbu.update.target import read_target

RTC = "/dev/rtc0"
RTC_RD_TIME, RTC_ALM_SET, RTC_AIE_ON, RTC_AIE_OFF = 0x80247009, 0x40247007, 0x7001, 0x7002
"""linux/rtc.h; a time is nine ints."""

HIDDEN = {"kernel": (), "nvram": (NVMEM,), "port": (NVMEM, NVRAM), "careless": ()}
"""The files that a way is without."""

ALARM = struct.pack("9i", 0, 0, 4, 1, 0, 130, 0, 0, 0)


class CarelessPorts:
    """`/dev/port`, open all the time."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/port", os.O_RDWR)

    def out8(self, port: int, value: int) -> None:
        os.pwrite(self._fd, bytes([value]), port)

    def in8(self, port: int) -> int:
        return os.pread(self._fd, 1, port)[0]


def use_clock() -> None:
    """Read the clock in both ways, and set its alarm, until the process is ended."""
    fd = os.open(RTC, os.O_RDONLY)
    time_buffer = bytearray(36)
    while True:
        for _ in range(20):
            fcntl.ioctl(fd, RTC_RD_TIME, time_buffer)
            Path("/proc/driver/rtc").read_text()
        fcntl.ioctl(fd, RTC_ALM_SET, ALARM)
        fcntl.ioctl(fd, RTC_AIE_ON)
        fcntl.ioctl(fd, RTC_AIE_OFF)


class ClockUser:
    """A process that uses the clock while the block runs. `has_ended`: it could not go on, because
    the kernel refused the clock."""

    has_ended = False

    def __enter__(self) -> ClockUser:
        self._child = os.fork()
        if not self._child:
            try:
                use_clock()
            finally:
                os._exit(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.has_ended = os.waitpid(self._child, os.WNOHANG) != (0, 0)
        if not self.has_ended:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)


def settings(cmos: Cmos) -> bytes:
    return cmos.read(cmos.indexes.start, len(cmos.indexes))


class Without(LinuxHost):
    """This computer without these files."""

    def __init__(self, *paths: str) -> None:
        super().__init__()
        self._paths = paths

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        if path in self._paths:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        super().write(path, data, offset)


def main(reads: int, cycles: int, how: str) -> None:
    host = LinuxHost()
    target = read_target(host)
    tokens = target.tokens
    assert tokens is not None
    assert isinstance(tokens.activate, IndexedIoToken)
    ports, needed = tokens.activate.ports, needed_indexes(tokens)
    way = find_cmos(host, ports, needed)
    if how == "nvram":
        store(way.cmos, dict(enumerate(sum(way.cmos.read(0x10, 0x1E)).to_bytes(2, "big"), 0x2E)))
    used = find_cmos(Without(*HIDDEN[how]), ports, needed)
    cmos: Cmos = PortCmos(CarelessPorts(), ports) if how == "careless" else used.cmos
    token = IndexedActivation(cmos, tokens, target.system_id)
    before = settings(way.cmos)
    location = tokens.activate.location
    right = way.cmos.read(location)
    wrong: Counter[str] = Counter()
    times = []
    with ClockUser() as clock:
        times.append(time.monotonic())
        for _ in range(reads):
            wrong["reads"] += cmos.read(location) != right
        times.append(time.monotonic())
        for number in range(2 * cycles):
            armed = number % 2 == 0
            try:
                set_armed(token, armed=armed)
                wrong["checks"] += token.wrong_checks != ()
            except OpenRbuError as error:
                wrong[error.kind] += 1
        times.append(time.monotonic())
    document = {
        "way": PORT if how == "careless" else used.path,
        "wrong": {what: number for what, number in wrong.items() if number},
        "bytes_changed": [
            index
            for index, (one, other) in enumerate(zip(before, settings(way.cmos), strict=True), 14)
            if one != other
        ],
        "clock_failed": clock.has_ended,
        "reads_s": times[1] - times[0],
        "cycles_s": times[2] - times[1],
        "processors": os.cpu_count(),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
