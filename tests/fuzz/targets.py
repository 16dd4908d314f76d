"""What is fuzzed: each parser of what others wrote, with the errors that it may raise.

A target is given any bytes. It returns, or it raises an error of `raises`; all else is a fault.
`seeds` makes what the fuzzer begins with, by the makers that the tests use.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from openrbu.bios.rules import RULE_SETS, Identity
from openrbu.dumps.dump_file import DumpFile
from openrbu.dumps.opening import memory_in
from openrbu.dumps.packed import stream_kind, unpacked_streams
from openrbu.errors import OpenRbuError
from openrbu.file_format import parse_object
from openrbu.formats import chassis, dell, fadt, hdr, packet, packet_header, tokens
from openrbu.formats.buddyinfo import parse_buddyinfo
from openrbu.formats.entry_point import EntryPoint
from openrbu.formats.packages.manifest import parse_manifest
from openrbu.formats.packages.search import search_package
from openrbu.formats.reboot_words import parse_reboot_words
from openrbu.formats.smbios import Tables, parse_memory_dump, parse_structures
from openrbu.formats.version import BiosVersion
from openrbu.lab.bzimage import unpack
from openrbu.lab.call_messages import calls_of_message, results_of_message
from openrbu.machine import state_formats
from openrbu.machine.config import MachineConfig
from openrbu.memory.scan import search
from openrbu.own_driver.store import DriverRecord
from openrbu.run.trace_file import read_trace
from openrbu.sharing import wire
from openrbu.typed_json import read as read_record
from openrbu.units import MIB
from openrbu.update.journal import Journal

_MOST_UNPACKED_BYTES = 4 * MIB


@dataclass(frozen=True, slots=True)
class Target:
    """`seeds` is called once, when the target is fuzzed."""

    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    raises: tuple[type[Exception], ...] = (OpenRbuError,)

    def __call__(self, data: bytes) -> None:
        """Give it an input.

        :raise Exception: an error that it may not raise.
        """
        with contextlib.suppress(*self.raises):
            self.run(data)


# -- files of updates ---------------------------------------------------------------------------


def _image(data: bytes) -> None:
    image = hdr.image_at(memoryview(data))
    if image is not None:
        image.build()
    with contextlib.suppress(OpenRbuError):
        hdr.Header.parse(data).build()
    hdr.Image.parse(data)


def _packets(data: bytes) -> None:
    packet_header.parse_password_item(data[:64])
    with contextlib.suppress(OpenRbuError):
        packet_header.PacketHeader.parse(data)
    packet.join(data)


def _package(data: bytes) -> None:
    search_package(data)


def _manifest(data: bytes) -> None:
    parse_manifest(data)


# -- what firmware and kernels say --------------------------------------------------------------


def _facts_of(tables: Tables) -> None:
    """All that is read out of tables; each has to cope with the rest being damaged."""
    dell.system_ids(tables)
    for part in (dell.BiosInformation, dell.SystemInformation, dell.RbuInformation):
        with contextlib.suppress(OpenRbuError):
            part.of(tables)
    for look in (tokens.all_tokens, tokens.tokens_for_update, tokens.port_pairs):
        with contextlib.suppress(OpenRbuError):
            look(tables)
    chassis.machine_kind(tables)
    chassis.chassis_text(tables)
    chassis.system_id_by_sku(tables)


def _structures(data: bytes) -> None:
    _facts_of(parse_structures(data))


def _tables(data: bytes) -> None:
    with contextlib.suppress(OpenRbuError):
        EntryPoint.parse(data)
    _facts_of(parse_memory_dump(data))


def _texts(data: bytes) -> None:
    text = data.decode("latin-1")
    BiosVersion.parse(text)
    parse_reboot_words(text)
    fadt.parse_reset_register(data)
    parse_buddyinfo(text)


# -- memory -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[DumpFile]:
    fd = os.memfd_create("fuzz")
    os.write(fd, data)
    with contextlib.closing(DumpFile(fd, "fuzz")) as file:
        yield file


def _dump(data: bytes) -> None:
    with _file(data) as file:
        memory = memory_in(file, None)
        for region in memory.regions[:8]:
            memory.read(region.start, min(region.size_bytes, 4096))
            for _ in zip(range(8), memory.populated(region.start, region.end), strict=False):
                pass


def _stream(data: bytes) -> None:
    kind = stream_kind(data[:64])
    if kind is not None:
        unpacked = 0
        for part in unpacked_streams(kind, iter([data])):
            unpacked += len(part)
            if unpacked > _MOST_UNPACKED_BYTES:
                return


def _search(data: bytes) -> None:
    """Memory with the input from 1 MiB on, where BIOSes begin to search."""
    with _file(data.ljust(0x4000, b"\0")) as file:
        memory = memory_in(file, MIB)
        search(memory)
        for rules in RULE_SETS.values():
            with contextlib.suppress(OpenRbuError):
                rules.find_update(memory, Identity(0x0121, 0x10000))


# -- what openrbu itself has written, and somebody changed ---------------------------------------


def _state(data: bytes) -> None:
    with contextlib.suppress(OpenRbuError):
        state_formats.read(data)
    document = parse_object(data)
    for kind in (state_formats.MachineState, MachineConfig, DriverRecord):
        with contextlib.suppress(OpenRbuError):
            read_record(kind, document)


def _lines(data: bytes) -> None:
    path = Path(f"/dev/shm/openrbu-fuzz-{os.getpid()}")  # a file in memory
    path.write_bytes(data)
    with contextlib.suppress(OpenRbuError):
        Journal(path).attempts()
    with contextlib.suppress(OpenRbuError):
        read_trace(path)
    path.unlink()


class _Received:
    """A connection through which these bytes come."""

    def __init__(self, data: bytes) -> None:
        self._left = io.BytesIO(data)

    def recv(self, size_bytes: int, /) -> bytes:
        return self._left.read(size_bytes)

    def sendall(self, data: object, flags: int, /) -> None:
        raise AssertionError((data, flags))


def _message(data: bytes) -> None:
    message = wire.receive(_Received(data))
    if message is None:
        return
    for look in (calls_of_message, results_of_message):
        with contextlib.suppress(wire.WireError):
            look(message.header, message.payload)
    wire.error_of(message.header)


# -- seeds --------------------------------------------------------------------------------------


def _images() -> list[bytes]:
    from rigs.package_makers import image_of

    return [image_of(b"flash" * 700), image_of(b"a", "1.2.3", 0x0221)]


def _packet_sets() -> list[bytes]:
    image, _ = _images()
    return [
        bytes(packet.split(image, packet_size_bytes=2048, set_id=7, password_crc=crc))
        for crc in (None, 0x12345678)
    ]


def _packages() -> list[bytes]:
    from rigs import package_makers as makers

    image, _ = _images()
    return [
        makers.gzip_of(image),
        makers.bzip2_of(image),
        makers.lzma_alone_of(image),
        makers.tar_of(("a.hdr", image)),
        makers.zip_of(("a.hdr", image)),
        makers.client_exe(image),
        makers.lvfs_cabinet(),
        makers.pfs_exe(),
        makers.uefi_capsule(),
    ]


def _manifests() -> list[bytes]:
    from rigs.package_makers import manifest_of

    return [manifest_of().encode(), manifest_of(minimum="A04").encode("utf-16")]


def _dell_tables() -> list[Tables]:
    from rigs.made_tables import dell_tables, some_tables

    return [some_tables(), dell_tables(system_id=0x0121, product="PowerEdge 2650", packets=True)]


def _dumps() -> list[bytes]:
    from rigs.dumps import FORMATS

    ram = {0: bytes(0x1000), 0x100000: _packet_sets()[0][:0x2000]}
    return [data for make in FORMATS.values() if len(data := make(ram)) < 0x8000]


def _streams() -> list[bytes]:
    return [each for each in (*_packages()[:3], *_dumps()) if stream_kind(each[:64])]


def _memories() -> list[bytes]:
    image, _ = _images()
    in_pages = packet.split(image, packet_size_bytes=4096, set_id=7, password_crc=None)
    return [image, bytes(in_pages)]


def _records() -> list[bytes]:
    return [
        b'{"format": 1, "boot_id": "x", "phase": "ready", "memory": {"kind": "huge_pages"}}',
        json.dumps({"format": 2, "crc32": 1, "state": {"boot_id": "x", "kernel": {}}}).encode(),
    ]


def _journals() -> list[bytes]:
    line = {"schema": 1, "id": "a", "event": "started", "at": "2026-11-29T04:00:00+00:00"}
    more = {**line, "sha256": "00", "from_version": "A05", "to_version": "A06", "mode": "packet"}
    return [json.dumps(line).encode() + b"\n", json.dumps(more).encode() + b"\n"]


def _messages() -> list[bytes]:
    header = json.dumps({"calls": [{"call": "read", "with": {"path": "x", "size": 1}}]}).encode()
    return [struct.pack(">II", len(header), 0) + header]


def _shown_texts() -> list[bytes]:
    return [b"A06", b"1.2.3", b"reboot=warm", b"Node 0, zone  Normal  1  2  3  4  5  6  7  8  9  1"]


TARGETS: dict[str, Target] = {
    "image": Target(_image, _images),
    "packets": Target(_packets, _packet_sets),
    "package": Target(_package, _packages),
    "manifest": Target(_manifest, _manifests),
    "structures": Target(_structures, lambda: [_table(each) for each in _dell_tables()]),
    "tables": Target(_tables, lambda: [_memory_dump(each) for each in _dell_tables()]),
    "texts": Target(_texts, _shown_texts),
    "dump": Target(_dump, _dumps),
    "stream": Target(_stream, _streams),
    "search": Target(_search, _memories),
    "state": Target(_state, _records),
    "lines": Target(_lines, _journals),
    "message": Target(_message, _messages, (wire.WireError, OpenRbuError)),
    "bzimage": Target(unpack, lambda: _packages()[:2]),
}


def _memory_dump(tables: Tables) -> bytes:
    """As dmidecode writes it: the entry point, and the tables from byte 32 on."""
    return tables.entry_point.build().ljust(32, b"\0") + _table(tables)


def _table(tables: Tables) -> bytes:
    return b"".join(each.build() for each in tables.structures)
