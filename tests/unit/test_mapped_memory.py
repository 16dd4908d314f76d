"""Memory that is parts of files, and the addresses of this process's own pages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openrbu.errors import AddressError, ObstacleError
from openrbu.memory.physical import Region
from openrbu.own_driver.mapped_memory import LOST, MappedMemory, Piece
from openrbu.own_driver.pagemap import address_of, addresses_in
from openrbu.units import GIB, MIB, PAGE_SIZE, PhysAddr

PIECE = 4 * PAGE_SIZE


def piece(address: int, fd: int, offset: int) -> Piece:
    return Piece(PhysAddr(address), PIECE, fd, offset)


@pytest.fixture
def file(tmp_path: Path) -> int:
    path = tmp_path / "file"
    path.write_bytes(b"".join(bytes([number]) * PIECE for number in range(1, 5)))
    return os.open(path, os.O_RDWR)


def test_pieces_are_in_the_sequence_of_their_addresses(file: int) -> None:
    memory = MappedMemory(alignment_bytes=PAGE_SIZE)
    memory.have(
        [piece(5 * GIB, file, 3 * PIECE), piece(MIB + PIECE, file, 0), piece(MIB, file, PIECE)]
    )
    assert memory.regions == (
        Region(PhysAddr(MIB), PhysAddr(MIB + 2 * PIECE)),
        Region(PhysAddr(5 * GIB), PhysAddr(5 * GIB + PIECE)),
    )
    assert bytes(memory.view(PhysAddr(MIB + PIECE - 2), 4)) == b"\2\2\1\1"
    memory.write(PhysAddr(MIB + PIECE - 1), b"ab")
    assert os.pread(file, 2, 0) == b"b\1"
    assert os.pread(file, 1, 2 * PIECE - 1) == b"a"
    memory.zero(PhysAddr(5 * GIB + 1), PIECE - 1)
    assert os.pread(file, PIECE, 3 * PIECE) == b"\4".ljust(PIECE, b"\0")
    buffer = bytearray(4)
    memory.read_into(PhysAddr(MIB + PIECE - 2), buffer)
    assert buffer == b"\2ab\1"
    parts = list(memory.populated(PhysAddr(MIB + PAGE_SIZE), PhysAddr(6 * GIB)))
    assert parts == [Region(PhysAddr(MIB + PAGE_SIZE), memory.regions[0].end), memory.regions[1]]


@pytest.mark.parametrize("address", [0, MIB - 1, MIB + PIECE - 1, MIB + PIECE, 5 * GIB])
def test_what_is_not_there_is_an_error(file: int, address: int) -> None:
    memory = MappedMemory(alignment_bytes=PAGE_SIZE)
    memory.have([piece(MIB, file, 0), piece(2 * MIB, file, PIECE)])
    for use in (memory.read, memory.view, memory.zero):
        with pytest.raises(AddressError):
            use(PhysAddr(address), 2)
    with pytest.raises(AddressError):
        memory.write(PhysAddr(address), b"ab")


def test_views_stay_valid_when_there_is_more_or_nothing(file: int) -> None:
    memory = MappedMemory(alignment_bytes=PAGE_SIZE)
    memory.have([piece(MIB, file, 0)])
    view = memory.view(PhysAddr(MIB), 4)
    memory.have([piece(MIB, file, 0), piece(MIB - PIECE, file, PIECE)])
    memory.write(PhysAddr(MIB), b"more")
    assert bytes(view) == b"more"
    memory.forget()
    assert bytes(view) == bytes(4)
    assert memory.regions == ()
    with pytest.raises(AddressError):
        memory.read(PhysAddr(MIB), 1)


def test_a_file_that_is_gone_is_zeros() -> None:
    memory = MappedMemory(alignment_bytes=PAGE_SIZE)
    memory.have([piece(MIB, LOST, 0), piece(MIB + PIECE, LOST, PIECE)])
    assert memory.read(PhysAddr(MIB), 2 * PIECE) == bytes(2 * PIECE)
    memory.write(PhysAddr(MIB), b"x")


def test_an_entry_is_an_address_or_hidden_or_of_no_page() -> None:
    assert address_of(1 << 63 | 1 << 61 | 0x1B200) == 0x1B200000
    assert address_of(0x1B200) is None
    with pytest.raises(ObstacleError, match="CAP_SYS_ADMIN"):
        address_of(1 << 63)


def test_the_kernel_tells_root_where_a_page_is_and_others_nothing() -> None:
    memory = MappedMemory(alignment_bytes=PAGE_SIZE)
    fd = os.memfd_create("page")
    os.ftruncate(fd, PIECE)
    memory.have([piece(MIB, fd, 0)])
    place = memory.place_of(PhysAddr(MIB))
    try:
        (address,) = addresses_in(Path("/proc/self/pagemap"), [place])
    except ObstacleError:
        capabilities = Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0]
        users = Path("/proc/self/uid_map").read_text().split()
        assert not int(capabilities, 16) >> 21 & 1 or users != ["0", "0", "4294967295"]
    else:
        assert address is not None
        assert address % PAGE_SIZE == 0
