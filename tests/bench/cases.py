"""What `make bench` measures: the work, without the clock."""

from __future__ import annotations

import mmap
import os
import shutil
import time
import zlib
from pathlib import Path
from typing import Self

from openrbu.formats import packet
from openrbu.formats.hdr import Image, SystemId, image_at, make_image
from openrbu.formats.version import BiosVersion
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.factory import MachineSpec, make_machine
from openrbu.machine.models import MODELS
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.memory.scan import search
from openrbu.units import GIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update import flow
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.progress import SilentProgress as Quiet

IMAGE_BYTES = 16 * MIB


def fresh_copy() -> bytearray:
    """16 MiB copied into memory that this process did not have before."""
    source = memoryview(_SOURCE)
    with mmap.mmap(-1, IMAGE_BYTES) as target:
        target[:] = source
        return bytearray(target[:1])


_SOURCE = os.urandom(IMAGE_BYTES)


class Packets:
    """A 16 MiB image and its packets of 4 KiB."""

    def __init__(self) -> None:
        self._image = memoryview(_SOURCE)
        self._packets = self.split()

    def copy(self) -> bytes:
        return bytes(self._image)

    def split(self) -> memoryview:
        return packet.split(self._image, packet_size_bytes=4096, set_id=b"_A06")

    def join(self) -> packet.PacketSet:
        return packet.join(self._packets)


class WholeImage:
    """A 16 MiB image, judged by its check words, and looked for with something behind it."""

    def __init__(self) -> None:
        self._raw = memoryview(_image(IMAGE_BYTES))
        self._more = memoryview(bytes(self._raw) + _SOURCE[:PAGE_SIZE])

    def crc32(self) -> int:
        return zlib.crc32(self._raw)

    def judge(self) -> None:
        assert Image.parse(self._raw).is_whole

    def find_end(self) -> None:
        found = image_at(self._more)
        assert found is not None
        assert found.size_bytes == len(self._raw)


class TouchedRam:
    """1 GiB of RAM in a file, every page written and mapped."""

    def __init__(self, path: Path) -> None:
        self._region = Region(PhysAddr(MIB), PhysAddr(MIB + GIB))
        self._ram = RamFile.create(path, (self._region,))
        block = bytes(range(1, 252)) * (4 * MIB // 251 + 1)
        for address in range(self._region.start, self._region.end, 4 * MIB):
            self._ram.write(PhysAddr(address), memoryview(block)[: 4 * MIB])
        fd = os.open(path, os.O_RDONLY)
        self._map = mmap.mmap(fd, self._region.end, mmap.MAP_SHARED, mmap.PROT_READ)
        os.close(fd)

    def find(self) -> int:
        return self._map.find(b"$RPK", self._region.start)

    def search(self) -> object:
        return search(self._ram, self._region.start, self._region.end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
        self._ram.close()


def write_image(
    path: Path,
    flash_size_bytes: int = IMAGE_BYTES,
    model: str = "precision-t7600",
    version: str = "9.9.9",
) -> None:
    """An image for a model, of 16 MiB for a Precision T7600 unless said otherwise."""
    path.write_bytes(_image(flash_size_bytes, model, version))


def _image(flash_size_bytes: int, model: str = "precision-t7600", version: str = "9.9.9") -> bytes:
    return make_image(
        memoryview(_SOURCE)[:flash_size_bytes],
        version=BiosVersion.parse(version),
        systems=[SystemId(MODELS[model].system_id)],
    )


class WholeUpdate:
    """A machine of 1 GiB with a flash of 16 MiB, updated in packets in one process."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._image = _image(IMAGE_BYTES)

    def prepare(self) -> None:
        os.environ["OPENRBU_HOME"] = str(self._home)
        spec = MachineSpec(model="precision-t7600", ram_bytes=GIB, flash_size_bytes=IMAGE_BYTES)
        self._machine = VirtualMachine(make_machine("bench", spec))
        self._machine.power_on()

    def run(self) -> None:
        host = VirtualHost(self._machine)
        plan = make_plan(host, Image.parse(self._image), Options(mode="packet"))
        flow.perform(host, plan, Quiet())
        report = self._machine.restart()
        assert report.completion_code == 0, report

    def tidy(self) -> None:
        self._machine.close()
        shutil.rmtree(self._home)


def large_machine() -> None:
    """A machine of 1 TiB: made, powered on, updated, restarted. Prints seconds and MiB resident."""
    start = time.perf_counter()
    with VirtualMachine(
        make_machine("large", MachineSpec("precision-390", ram_bytes=1024 * GIB))
    ) as vm:
        vm.power_on()
        host = VirtualHost(vm)
        image = Image.parse(_image(MIB, "precision-390"))
        flow.perform(host, make_plan(host, image, Options()), Quiet())
        report = vm.restart()
    assert report.completion_code == 0, report
    seconds = time.perf_counter() - start
    # not getrusage: its maximum is inherited from the process that forked this one
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(seconds, int(status["VmHWM"].split()[0]) / 1024)
