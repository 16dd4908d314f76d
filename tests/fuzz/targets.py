"""What is fuzzed: each parser of what others wrote, with the errors that it may raise.

A target is given any bytes. It returns, or it raises an error of `raises`; all else is a fault.
`seeds` makes what the fuzzer begins with, by the makers that the tests use.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fuzz import seeds
from openrbu.bios.closer_look import look_closer
from openrbu.bios.nvram import Nvram, NvramRecord
from openrbu.bios.rules import RULE_SETS, Identity
from openrbu.cli.scan_extract import Extraction
from openrbu.dumps.dump_file import DumpFile
from openrbu.dumps.dump_memory import DumpMemory
from openrbu.dumps.opening import memory_in
from openrbu.dumps.packed import PACKED_BYTES, stream_kind, unpacked_streams
from openrbu.errors import OpenRbuError
from openrbu.file_format import parse_object
from openrbu.formats import chassis, dell, fadt, hdr, packet, packet_header, tokens
from openrbu.formats.buddyinfo import parse_buddyinfo
from openrbu.formats.entry_point import EntryPoint
from openrbu.formats.image_packets import join_image
from openrbu.formats.lockdown import lockdown_asked, lockdown_in
from openrbu.formats.meminfo import meminfo_bytes
from openrbu.formats.packages.manifest import parse_manifest
from openrbu.formats.packages.search import search_package
from openrbu.formats.packet_explained import explain_packet
from openrbu.formats.reboot_words import parse_reboot_words
from openrbu.formats.rom_identity import revision_in
from openrbu.formats.smbios import Tables, parse_memory_dump, parse_structures
from openrbu.formats.version import BiosVersion
from openrbu.lab.bzimage import unpack
from openrbu.lab.call_messages import calls_of_message, results_of_message
from openrbu.machine import state_formats
from openrbu.machine.config import MachineConfig
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.buddy_state import AllocatorState
from openrbu.memory.kcore import look_at_kcore
from openrbu.memory.narrowed import NarrowedMemory
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.ram_file import RamFile
from openrbu.memory.scan import search
from openrbu.own_driver.blocks import FreeBlocks
from openrbu.own_driver.store import DriverRecord
from openrbu.policy.deciding import decide
from openrbu.policy.reading import read_policy
from openrbu.run.trace_file import read_trace
from openrbu.sharing import wire
from openrbu.typed_json import read as read_record
from openrbu.units import MIB, PhysAddr
from openrbu.update.journal import Journal

_MOST_UNPACKED_BYTES = 4 * MIB

_LEAST_MEMORY_BYTES = 0x4000


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
    for look in (packet.join, join_image, explain_packet):
        with contextlib.suppress(OpenRbuError):
            look(data)


def _package(data: bytes) -> None:
    search_package(data)


def _policy(data: bytes) -> None:
    """A policy, and what it says of a machine."""
    read = read_policy(data, lambda name: dt.UTC)
    now = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)
    if not read.problems:
        for system_id in read.policy.systems:
            for text in ("A05", "2.1.0", "?"):
                version = BiosVersion.parse(text)
                decide(
                    read.policy, system_id=system_id, version=version, service_tag="", now=now
                ).refusal_of(version)


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
    with contextlib.suppress(OpenRbuError):
        BiosVersion.parse(text)
    with contextlib.suppress(OpenRbuError):
        parse_reboot_words(text)
    fadt.parse_reset_register(data)
    for look in (parse_buddyinfo, lockdown_in, lockdown_asked):
        with contextlib.suppress(OpenRbuError):
            look(text)
    meminfo_bytes(text, "MemTotal")
    revision_in(data, 0x0121)


# -- memory -------------------------------------------------------------------------------------


def _scratch() -> Path:
    """A path for one file, in memory."""
    return Path(f"/dev/shm/openrbu-fuzz-{os.getpid()}")


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[DumpFile]:
    fd = os.memfd_create("fuzz")
    os.write(fd, data)
    with contextlib.closing(DumpFile(fd, "fuzz", is_private=True)) as file:
        yield file


@contextlib.contextmanager
def _memory(data: bytes) -> Iterator[DumpMemory]:
    """The input from 1 MiB on, where BIOSes begin to search."""
    with _file(data.ljust(_LEAST_MEMORY_BYTES, b"\0")) as file:
        yield memory_in(file, MIB)


def _read_some(memory: ReadableMemory) -> None:
    for region in memory.regions[:8]:
        memory.read(region.start, min(region.size_bytes, 4096))
        for _ in zip(range(8), memory.populated(region.start, region.end), strict=False):
            pass


def _dump(data: bytes) -> None:
    with _file(data) as file:
        _read_some(memory_in(file, None))


def _stream(data: bytes) -> None:
    kind = stream_kind(data[:64])
    if kind is not None:
        unpacked = 0
        chunks = (data[at : at + PACKED_BYTES] for at in range(0, len(data), PACKED_BYTES))
        for part in unpacked_streams(kind, chunks):
            unpacked += len(part)
            if unpacked > _MOST_UNPACKED_BYTES:
                return


def _findings(data: bytes) -> None:
    """As `rbu scan --extract` does."""
    with _memory(data) as memory:
        narrowed = NarrowedMemory.of(memory)
        found = look_closer(narrowed, search(narrowed))
        directory = _scratch()
        try:
            Extraction(narrowed, found, directory, "fuzz")
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _anywhere(data: bytes) -> None:
    with _memory(data) as memory:
        search(memory, any_alignment=True)


def _rules(data: bytes) -> None:
    with _memory(data) as memory:
        for rules in RULE_SETS.values():
            with contextlib.suppress(OpenRbuError):
                rules.find_update(memory, Identity(0x0121, 0x10000))


def _kcore(data: bytes) -> None:
    """`/proc/iomem`, a zero byte, and `/proc/kcore`."""
    iomem, _, kcore = data.partition(b"\0")
    root = _scratch()
    (root / "proc").mkdir(parents=True)
    try:
        (root / "proc/iomem").write_bytes(iomem)
        (root / "proc/kcore").write_bytes(kcore)
        memory = look_at_kcore(root).memory
        if memory is not None:
            with contextlib.suppress(OSError):  # the file is cut
                _read_some(memory)
    finally:
        shutil.rmtree(root)


# -- what openrbu itself has written, and somebody changed ---------------------------------------


def _state(data: bytes) -> None:
    with contextlib.suppress(OpenRbuError):
        state_formats.read(data)
    document = parse_object(data)
    with contextlib.suppress(OpenRbuError):  # where somebody mends the checksum, too
        found = state_formats.FORMAT.number_of(document)
        state = state_formats.FORMAT.convert(document.get("state", {}), found)
        read_record(state_formats.MachineState, state)
    for kind in (MachineConfig, DriverRecord, NvramRecord):
        with contextlib.suppress(OpenRbuError):
            read_record(kind, document)
    with contextlib.suppress(OpenRbuError, ValueError):  # as its caller does
        Nvram.parse(data)


@lru_cache(maxsize=1)
def _ram() -> RamFile:
    """16 MiB, which nothing writes to."""
    path = _scratch()
    ram = RamFile.create(path, (Region(PhysAddr(0), PhysAddr(16 * MIB)),))
    path.unlink()
    return ram


def _rows(data: bytes) -> None:
    """Blocks that a state says are handed out, in a memory of 16 MiB."""
    whole = len(data) // 32 * 32
    rows = tuple(struct.iter_unpack("<QQQQ", data[:whole]))
    blocks = FreeBlocks([Region(PhysAddr(0), PhysAddr(16 * MIB))], alignment_bytes=2 * MIB)
    with contextlib.suppress(OpenRbuError):
        blocks.take_rows(rows)
    state = AllocatorState(reserved=((0, MIB),), allocated=rows)
    BuddyAllocator.restore(_ram(), state)


def _lines(data: bytes) -> None:
    path = _scratch()
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


TARGETS: dict[str, Target] = {
    "image": Target(_image, seeds.images),
    "packets": Target(_packets, seeds.packet_sets),
    "package": Target(_package, seeds.packages),
    "manifest": Target(_manifest, seeds.manifests),
    "structures": Target(_structures, lambda: [seeds.table(each) for each in seeds.tables()]),
    "tables": Target(_tables, lambda: [seeds.memory_dump(each) for each in seeds.tables()]),
    "texts": Target(_texts, seeds.shown_texts),
    "dump": Target(_dump, seeds.dumps),
    "stream": Target(_stream, seeds.streams),
    "findings": Target(_findings, seeds.memories),
    "anywhere": Target(_anywhere, seeds.memories),
    "rules": Target(_rules, seeds.memories),
    "kcore": Target(_kcore, seeds.kcores),
    "state": Target(_state, seeds.states),
    "rows": Target(_rows, seeds.saved_rows),
    "lines": Target(_lines, seeds.journals),
    "policy": Target(_policy, seeds.policies),
    "message": Target(_message, seeds.messages, (wire.WireError, OpenRbuError)),
    "bzimage": Target(unpack, seeds.bzimages),
}
