"""Dumps of memory: the same RAM gives the same search, whatever the format of its dump."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu import api
from openrbu.dumps import packed, spool
from openrbu.dumps.opening import open_dump
from openrbu.errors import AddressError, DamagedInputError, ObstacleError, UsageError
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.version import BiosVersion
from openrbu.hosts.linux import LinuxHost
from openrbu.memory.kcore import Kcore
from openrbu.memory.physical import Region
from openrbu.memory.scan import SearchResult
from openrbu.memory.windows import HasWindows, Window, windows
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from rigs.cli import RBU, Cli
from rigs.dumps import (
    FORMATS,
    Ram,
    elf,
    elf_header,
    found_in,
    lime,
    lime_header,
    many_segments,
    program_32,
    program_64,
    ram_with,
    raw,
    scattered,
)

RANGES = [(0x1000, 0x9F000), (MIB, 3 * MIB), (4 * MIB, 5 * MIB)]
PAGES = [page for start, end in RANGES for page in range(start, end - PAGE_SIZE, 2 * PAGE_SIZE)]
IMAGE = make_image(
    random.Random(5).randbytes(64 * KIB),
    version=BiosVersion.parse("A05"),
    systems=[SystemId(0x121)],
)
PACKETS = [bytes(split(IMAGE, set_id=b"_A05"))[at : at + 4096] for at in range(0, 18 * 4096, 4096)]


@pytest.fixture(scope="module")
def ram() -> Ram:
    return ram_with(RANGES, scattered(PACKETS, PAGES) | {4 * MIB + 4096: IMAGE})


@pytest.fixture(scope="module")
def expected(ram: Ram, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    path = tmp_path_factory.mktemp("raw") / "dump"
    path.write_bytes(raw(ram))
    return found_in(path)


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "dump"
    path.write_bytes(data)
    return path


def refused(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(DamagedInputError) as refusal, open_dump(write(tmp_path, data)):
        pass
    text = str(refusal.value)
    assert "\n" not in text
    return text


# -- the same everywhere --------------------------------------------------------------------


def test_the_raw_dump_has_the_whole_set_and_the_image_where_they_were_put(
    expected: SearchResult, ram: Ram
) -> None:
    (found,) = expected.packet_sets
    places = scattered(PACKETS, PAGES)
    assert sorted(places) == sorted(at for copies in found.places.values() for at in copies)
    assert [each.address for each in expected.images] == [4 * MIB + 4096]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_same_search_at_the_same_addresses(
    tmp_path: Path, ram: Ram, expected: SearchResult, name: str
) -> None:
    path = write(tmp_path, FORMATS[name](ram))
    assert found_in(path) == expected
    with open_dump(path) as memory:
        assert not memory.notes
        assert memory.format.partition(" in ")[0] == re.split(" in | of ", name, maxsplit=1)[0]
        assert memory.read(PhysAddr(MIB), 2 * MIB) == ram[MIB]


def test_thousands_of_segments_in_any_sequence_are_one_memory(
    tmp_path: Path, ram: Ram, expected: SearchResult
) -> None:
    path = write(tmp_path, many_segments(ram, 50))
    with open_dump(path) as memory:
        assert memory.regions == tuple(
            Region(PhysAddr(start), PhysAddr(end)) for start, end in RANGES
        )
    assert found_in(path) == expected


quick = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def memories(draw: st.DrawFn) -> Ram:
    """Ranges of any size, some adjacent, with packets on some pages."""
    content = scattered(PACKETS[: draw(st.integers(1, 18))], PAGES[:60], draw(st.integers(0, 99)))
    cuts = draw(st.lists(st.integers(0, 0x90000), min_size=2, max_size=8, unique=True))
    ranges = list(zip(sorted(cuts), sorted(cuts)[1:], strict=False))
    kept = [each for each in ranges if draw(st.booleans())] or ranges[:1]
    whole = raw(ram_with([(0, 0x90000)], content))
    return {start: whole[start:end] for start, end in kept}


@quick
@given(ram=memories())
def test_any_memory_is_the_same_in_lime_elf_and_a_stream(tmp_path: Path, ram: Ram) -> None:
    results = [
        found_in(write(tmp_path, FORMATS[name](ram)))
        for name in ("LiME", "ELF core", "ELF core of 32 bit", "LiME in zlib")
    ]
    assert all(each == results[0] for each in results)
    with open_dump(write(tmp_path, lime(ram))) as memory:
        for start, part in ram.items():
            assert memory.read(PhysAddr(start), len(part)) == part
        looked_at = bytearray(0x90000)
        for address, window in windows(memory, PhysAddr(0), PhysAddr(0x90000)):
            looked_at[address : address + len(window)] = window
        assert looked_at.rstrip(b"\0") == raw(ram).rstrip(b"\0")


# -- a raw dump that does not begin at 0 ----------------------------------------------------


@pytest.mark.parametrize("first", [MIB, MIB - 0x400, MIB + 0x123])
def test_a_dump_that_begins_anywhere_has_true_addresses_with_its_offset(
    tmp_path: Path, ram: Ram, expected: SearchResult, first: int
) -> None:
    path = write(tmp_path, raw(ram)[first:])
    with open_dump(path, offset=first) as memory:
        assert memory.regions == (Region(PhysAddr(first), PhysAddr(5 * MIB)),)
        assert memory.read(PhysAddr(2 * MIB), 99) == raw(ram)[2 * MIB : 2 * MIB + 99]
    found = found_in(path, offset=first)
    low = -(-first // PAGE_SIZE) * PAGE_SIZE
    places = {
        number: copies
        for number, copies in expected.packet_sets[0].places.items()
        if copies[0] >= low
    }
    assert found.packet_sets[0].places == places
    assert found.images == expected.images


def test_a_size_off_pages_is_noted(tmp_path: Path, ram: Ram) -> None:
    with open_dump(write(tmp_path, raw(ram)[: 3 * MIB + 5])) as memory:
        (note,) = memory.notes
    assert "5 bytes more than whole pages" in note
    assert "--offset" in note
    assert "--any-alignment" in note


@pytest.mark.parametrize("offset", [-1, 1 << 52])
def test_an_offset_is_a_physical_address(tmp_path: Path, offset: int) -> None:
    with pytest.raises(UsageError), open_dump(write(tmp_path, bytes(4096)), offset=offset):
        pass


def test_an_offset_is_refused_for_what_has_addresses(tmp_path: Path, ram: Ram) -> None:
    for data in (lime(ram), elf(ram)):
        with pytest.raises(UsageError, match="addresses of its own"):
            found_in(write(tmp_path, data), offset=MIB)


def test_what_has_none_is_taken_for_raw_with_an_offset(tmp_path: Path) -> None:
    data = b"PK\x03\x04" + bytes(4 * MIB)
    assert "unzip" in refused(tmp_path, data)
    assert found_in(write(tmp_path, data), offset=0).packet_sets == ()


# -- what is in memory and not in the file --------------------------------------------------


def test_what_a_segment_has_in_memory_only_is_zeros(tmp_path: Path) -> None:
    start = 64 + 2 * 56
    table = program_64(1, start, 0, MIB, 0x1800, 0x3000)
    table += program_64(1, start + 0x1800, 0, MIB + 0x3000, 4096, 4096)
    data = elf_header(2) + table + b"\x11" * 0x1800 + b"\x22" * 4096
    with open_dump(write(tmp_path, data)) as memory:
        assert memory.regions == (Region(PhysAddr(MIB), PhysAddr(MIB + 0x4000)),)
        whole = b"\x11" * 0x1800 + bytes(0x1800) + b"\x22" * 4096
        assert memory.read(PhysAddr(MIB), 0x4000) == whole
        assert bytes(memory.view(PhysAddr(MIB + 0x17FF), 3)) == b"\x11\0\0"
        runs = list(memory.populated(PhysAddr(0), PhysAddr(2 * MIB)))
        assert runs[0].start == MIB
        for address, size in ((MIB - 1, 2), (MIB + 0x3FFF, 2), (0, 1), (5 * MIB, 1)):
            with pytest.raises(AddressError):
                memory.read(PhysAddr(address), size)


def test_holes_of_a_file_are_not_gone_through(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(3 * GIB)
        file.write(PACKETS[0])
    found = found_in(path)
    assert found.packet_sets[0].places == {0: (3 * GIB,)}
    with open_dump(path) as memory:
        assert isinstance(memory, HasWindows)
        sizes = [len(window) for _, window in memory.windows(PhysAddr(0), PhysAddr(1 << 40))]
    assert sum(sizes) < MIB


def test_a_window_is_mapped_and_limited(tmp_path: Path) -> None:
    path = write(tmp_path, lime({MIB: random.Random(3).randbytes(MIB) * 40}))
    with open_dump(path) as memory:
        seen = b"".join(bytes(view) for _, view in memory.windows(PhysAddr(0), PhysAddr(GIB)))
        assert seen == memory.read(PhysAddr(MIB), 40 * MIB)
        assert max(len(view) for _, view in memory.windows(PhysAddr(0), PhysAddr(GIB))) <= 32 * MIB


def test_a_dump_is_closed_behind_its_block_and_leaves_no_file_open(
    tmp_path: Path, ram: Ram
) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    for name in ("LiME", "LiME in gzip in xz"):
        with open_dump(write(tmp_path, FORMATS[name](ram))) as memory:
            pass
        with pytest.raises(UsageError, match="closed"):
            memory.read(PhysAddr(MIB), 1)
    refused(tmp_path, lime(ram)[:-1])
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_dump_that_is_cut_while_it_is_read_is_told(tmp_path: Path, ram: Ram) -> None:
    path = write(tmp_path, raw(ram))
    with open_dump(path) as memory:
        os.truncate(path, MIB)
        with pytest.raises(DamagedInputError, match="was cut while it was read"):
            memory.read(PhysAddr(MIB), 1)


def test_a_dump_that_is_cut_while_it_is_mapped_is_told(tmp_path: Path) -> None:
    """Whoever cuts it waits until nobody looks at the part that is mapped."""
    path = write(tmp_path, bytes(4096) + b"memory" * (80 * MIB // 6))
    with open_dump(path) as memory, contextlib.ExitStack() as stack:
        assert isinstance(memory, HasWindows)
        windows_of_it = memory.windows(PhysAddr(0), PhysAddr(GIB))
        _, window = next(windows_of_it)
        assert isinstance(window.obj, mmap.mmap)
        with pytest.raises(BlockingIOError):  # who does not want to wait is told that, too
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        cut = subprocess.Popen((sys.executable, "-c", CUT, str(path)), stdin=-3, stdout=-1)
        stack.enter_context(cut)
        assert cut.stdout is not None
        assert cut.stdout.read(1) == b"o"  # is about to cut it
        assert window[-6:].tobytes() != b""  # every byte of it is still there
        with pytest.raises(DamagedInputError, match="was cut while it was read"):
            go_through(windows_of_it, cut)


def go_through(rest: Iterator[Window], cut: subprocess.Popen[bytes]) -> None:
    for _, window in rest:
        assert not isinstance(window.obj, mmap.mmap)
        cut.wait()


CUT = """
import os, sys
os.write(1, b"o")
os.truncate(sys.argv[1], 4096)
"""


def test_no_other_process_is_kept_from_a_dump_that_nobody_reads(tmp_path: Path, ram: Ram) -> None:
    path = write(tmp_path, raw(ram))
    with open_dump(path) as memory:
        assert isinstance(memory, HasWindows)
        for _ in memory.windows(PhysAddr(0), PhysAddr(GIB)):
            break
        with path.open("r+b") as file:
            windows_of_it = memory.windows(PhysAddr(0), PhysAddr(GIB))
            _, window = next(windows_of_it)
            assert not isinstance(window.obj, mmap.mmap)  # it is copied
            file.truncate(0)
            with pytest.raises(DamagedInputError, match="was cut while it was read"):
                list(windows_of_it)


# -- pipes ----------------------------------------------------------------------------------


def test_a_pipe_gives_what_the_file_gives(tmp_path: Path, ram: Ram, expected: SearchResult) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(FORMATS["LiME in xz"](ram),))
    writer.start()
    assert found_in(fifo) == expected
    writer.join()


@pytest.mark.parametrize("name", ["raw", "LiME", "raw in gzip"])
@pytest.mark.parametrize("is_file", [True, False], ids=["file", "pipe"])
def test_standard_input_is_a_dump(rbu: Cli, ram: Ram, name: str, is_file: bool) -> None:
    path = rbu.write("dump", FORMATS[name](ram))
    command = [*RBU, "scan", "-", "--json"]
    if is_file:
        with Path(path).open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, check=False)
    else:
        data = Path(path).read_bytes()
        done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f'"format": "{name}"'.encode() in done.stdout
    assert b'"packet_count": 18' in done.stdout


def test_a_disk_without_room_is_told_with_what_to_do(
    tmp_path: Path, ram: Ram, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, FORMATS["raw in gzip"](ram))
    monkeypatch.setattr(spool, "_CHECKED_BYTES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(spool, "_LEFT_FREE", 1)
        patch.setattr(spool, "GIB", 1 << 60)
        with pytest.raises(ObstacleError, match=r"does not fit into .*TMPDIR"):
            found_in(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(ObstacleError, match=r"does not fit into .*TMPDIR"):
            found_in(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(ObstacleError, match="TMPDIR"):
        found_in(path)


def test_zeros_of_a_stream_take_no_room(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(MIB)
    file = spool.spooled(iter([bytes(MIB)] * 63 + [data]), "it")
    assert file.size_bytes == 64 * MIB
    assert file.read(63 * MIB, MIB) == data
    assert sum(end - start for start, end in file.written(0, 64 * MIB)) <= 2 * MIB
    file.close()


# -- zstd -----------------------------------------------------------------------------------


def test_zstd_is_read_where_there_is_the_library_and_else_told(
    tmp_path: Path, ram: Ram, expected: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = packed._zstd_library()
    assert library is not None
    data = raw(ram)
    frames = library.compress(data[:MIB]) + library.compress(data[MIB:])
    path = write(tmp_path, b"\x50\x2a\x4d\x18\x04\0\0\0skip" + frames)
    assert found_in(path) == expected
    assert "can't be unpacked" in refused(tmp_path, frames[:2000])
    monkeypatch.setattr(packed, "_zstd_library", lambda: None)
    with pytest.raises(ObstacleError, match=r"zstd -dc FILE \| rbu scan -"):
        found_in(path)


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"KDUMP   ", "makedumpfile -E"),
        (b"makedumpfile\0\0\0\0", "makedumpfile -R"),
        (b"AVML\2\0\0\0", "avml-convert"),
        (b"\xd2\xbe\xd2\xbe", "-f NAME.vmem rbu.RbuScan"),
        (b"PAGEDUMP", "vol -p examples/volatility3 -f FILE rbu.RbuScan"),
        (b"PAGEDU64", "rbu.RbuScan"),
        (b"HIBR", "start it, and dump"),
        (b"QEVM\0\0\0\3", "dump-guest-memory"),
        (b"LibvirtQemudSave", "virsh dump --memory-only"),
        (b"\x7fVirtualBox SavedState V2.0\n", "dumpvmcore"),
        (b"\x04\x22\x4d\x18", "lz4 -dc"),
        (b"QFI\xfb", "not memory"),
        (bytes(4086) + b"S1SUSPEND\0", "hibernated"),
    ],
)
def test_other_formats_are_refused_by_name_with_what_to_do(
    rbu: Cli, head: bytes, says: str
) -> None:
    path = rbu.write("dump", head.ljust(2 * MIB, b"\0"))
    assert says in rbu.fails(5, "scan", path)


def test_the_memory_of_a_vmware_machine_needs_its_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "machine.vmem"
    path.write_bytes(bytes(MIB))
    assert found_in(path).packet_sets == ()
    (tmp_path / "machine.vmss").write_bytes(b"")
    with pytest.raises(
        DamagedInputError,
        match=r"machine\.vmss has the addresses .* -f .*machine\.vmem rbu\.RbuScan",
    ):
        found_in(path)
    assert found_in(path, offset=0).packet_sets == ()


PART = b"x" * 4096
PROGRAM = program_64(1, 120, 0, MIB, 4096, 4096)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lime_header(MIB, MIB + 4095) + PART[:-1], "cut"),
        (lime_header(MIB, MIB + 4095) + PART + lime_header(0, 4095)[:20], "cut inside"),
        (lime_header(MIB, MIB + 4095) + PART * 2, "no LiME header at offset 0x1020"),
        (lime_header(MIB, MIB - 1) + PART, "before its start"),
        (lime_header(0, (1 << 64) - 1) + PART, "cut"),
        (lime_header((1 << 64) - 4096, (1 << 64) - 1) + PART, "52 bits"),
        (lime_header(1 << 52, (1 << 52) + 4095) + PART, "52 bits"),
        (lime_header(MIB, MIB + 4095, version=2) + PART, "version 2"),
        ((lime_header(MIB, MIB + 4095) + PART) * 2 + lime_header(MIB, MIB) + b"y", "different"),
        (elf_header(1) + PROGRAM + PART[:-1], "cut"),
        (elf_header(2) + PROGRAM, "ends inside of its 2 program headers"),
        (elf_header(1)[:50], "ends inside of its header"),
        (elf_header(0) + PART, "no loadable segment"),
        (elf_header(1, kind=2) + PROGRAM + PART, "not a core"),
        (elf_header(1, order=2) + PROGRAM + PART, "big-endian"),
        (elf_header(1, bits=96) + PROGRAM + PART, "unknown class"),
        (elf_header(0xFFFF) + PROGRAM + PART, "PN_XNUM"),
        (elf_header(0xFFFF, shoff=1 << 63) + PROGRAM + PART, "PN_XNUM"),
        (elf_header(0xFFFF, shoff=120) + PROGRAM + b"\xff" * 4096, "4294967295 segments"),
        (elf_header(1) + program_64(1, 120, 0, 0, 4096, 1 << 63) + PART, "52 bits"),
        (elf_header(1) + program_64(1, (1 << 64) - 1, 0, 0, 4096, 4096) + PART, "cut"),
        (elf_header(1) + program_64(1, 120, 0, (1 << 64) - 1, 4096, 4096) + PART, "no physical"),
        (
            elf_header(2) + program_64(1, 200, 4096, 0, 4096, 4096) * 2 + PART * 2,
            "no physical addresses",
        ),
        (elf_header(1) + program_64(1, 120, 0x400000, 0, 4096, 4096) + PART, "no physical"),
        (
            elf_header(1, bits=32) + program_32(1, 84, 0x8048000, 0, 4096, 4096) + PART,
            "no physical",
        ),
        (
            elf_header(2) + PROGRAM + program_64(1, 200, 0, MIB + 64, 1 << 29, 1 << 29) + PART,
            "cut",
        ),
        (
            elf_header(2) + program_64(1, 176, 0, 0, 1, 1 << 40) * 2 + b"x",
            "no physical addresses",
        ),
        (b"\x1f\x8b\x08" + bytes(100), "gzip stream can't be unpacked"),
        (b"\xfd7zXZ\0" + bytes(100), "xz stream can't be unpacked"),
        (FORMATS["raw in gzip"]({0: bytes(9999)})[:-9], "gzip stream can't be unpacked"),
        (FORMATS["raw in gzip"]({0: bytes(9999)}) + b"tail", "follows"),
        (bytes(4095), "less than a page"),
        (b"", "less than a page"),
        (FORMATS["raw in gzip"]({0: b"small"}), "less than a page"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_what_is_damaged_is_one_line(tmp_path: Path, data: bytes, says: str) -> None:
    assert says in refused(tmp_path, data)


@pytest.mark.parametrize("virtual", [0, 0xC0000000, 0x40000000])
def test_a_32_bit_core_with_one_segment_at_address_0_is_memory(
    tmp_path: Path, virtual: int
) -> None:
    """As of a kernel of 32 bits whose RAM is in one piece from 0 on."""
    program = program_32(1, 84, virtual, 0, 4096, 4096)
    with open_dump(write(tmp_path, elf_header(1, bits=32) + program + PART)) as memory:
        assert memory.regions == (Region(PhysAddr(0), PhysAddr(4096)),)


def test_the_same_bytes_twice_are_fine_and_others_are_not(tmp_path: Path) -> None:
    """A kernel's text is in a segment of its own, too."""
    part = random.Random(2).randbytes(4 * PAGE_SIZE)
    start = 64 + 2 * 56
    both = program_64(1, start, 0, MIB, len(part), len(part))
    both += program_64(1, start + len(part), 0, MIB + PAGE_SIZE, PAGE_SIZE + 9, PAGE_SIZE + 9)
    data = elf_header(2) + both + part + part[PAGE_SIZE : 2 * PAGE_SIZE + 9]
    with open_dump(write(tmp_path, data)) as memory:
        assert memory.read(PhysAddr(MIB), len(part)) == part
    last = bytes([data[-1] ^ 1])
    assert "different bytes for the memory at 0x101000" in refused(tmp_path, data[:-1] + last)


def test_more_ranges_than_any_computer_has_are_refused(tmp_path: Path) -> None:
    data = b"".join(lime_header(at, at) + b"$" for at in range(0, 50_001 * 8192, 8192))
    assert "50001 ranges" in refused(tmp_path, data)
    found = found_in(write(tmp_path, data[: 20_000 * 33]))
    assert found.reject_count == 0


def test_ranges_that_overlap_by_much_are_not_compared_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    size = 300 * MIB
    both = program_64(1, 4096, 0, MIB, size, size) + program_64(1, 4096, 0, 2 * MIB, size, size)
    path.write_bytes(elf_header(2) + both)
    os.truncate(path, size + 4096)
    with pytest.raises(DamagedInputError, match="overlap by more than 256 MiB"):
        found_in(path)


@quick
@given(data=st.binary(max_size=600), count=st.integers(0, 9), at=st.integers(0, 500))
def test_any_bytes_are_memory_or_one_line(tmp_path: Path, data: bytes, count: int, at: int) -> None:
    for whole in (lime({MIB: PART, 2 * MIB: PART}), elf({MIB: PART}), elf({MIB: PART}, bits=32)):
        spoiled = bytearray(whole)
        spoiled[at : at + count] = data[:count]
        for each in (bytes(spoiled), whole[:4] + data):
            with contextlib.suppress(DamagedInputError, UsageError):
                found_in(write(tmp_path, each))


# -- the command, the library ---------------------------------------------------------------


def test_scan_shows_format_and_notes_and_takes_an_offset(rbu: Cli, ram: Ram) -> None:
    path = rbu.write("dump", raw(ram)[MIB + 0x400 : 3 * MIB + 5])
    document = rbu.json("scan", path, "--offset", "0x100400")
    assert document["format"] == "raw"
    assert "whole pages" in document["notes"][0]
    assert document["packet_sets"][0]["lowest"] >= "0x101000"
    assert "whole pages" in rbu("scan", path, "--offset", str(MIB)).out
    assert "--offset" in rbu.fails(2, "scan", path, "--offset", "1M")
    assert "addresses of its own" in rbu.fails(
        2, "scan", rbu.write("lime", lime(ram)), "--offset=0"
    )
    rbu("machine", "new", "demo")
    assert "virtual machine" in rbu.fails(2, "scan", "demo", "--offset=0")
    assert "format" not in rbu.json("scan", "demo")


def test_a_program_opens_a_dump_by_its_path_and_offset(tmp_path: Path, ram: Ram) -> None:
    path = write(tmp_path, raw(ram)[MIB:])
    with api.open_dump(str(path), offset=MIB) as memory:
        assert api.scan(memory).images[0].address == 4 * MIB + 4096


def test_kcore_by_its_name_is_this_computers_memory_and_never_read_like_a_file() -> None:
    if LinuxHost().physical_memory is None:
        with pytest.raises((ObstacleError, UsageError)), api.open_dump("/proc/kcore"):
            pass
        return
    with api.open_dump("/proc/kcore") as memory:
        assert isinstance(memory, Kcore)
    with pytest.raises(UsageError), api.open_dump("/proc/kcore", offset=0):
        pass
    with pytest.raises(UsageError, match="own memory"), open_dump("/proc/kcore"):
        pass


def test_no_standard_input_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageError, match="no standard input"), open_dump("-"):
        pass


def test_temporary_files_go_where_tmpdir_says_and_have_no_name(
    tmp_path: Path, ram: Ram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    path = write(tmp_path, FORMATS["raw in gzip"](ram))
    with open_dump(path):
        fds = list(Path("/proc/self/fd").iterdir())
        links = [str(fd.readlink()) for fd in fds if fd.is_symlink()]
        assert list(tmp_path.iterdir()) == [path]
    assert any(link.startswith(f"{tmp_path}/") and "deleted" in link for link in links)
