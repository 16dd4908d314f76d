"""Bytes scattered over memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from openrbu.drivers.extents import Block, Extents, blocks_in, to_rows
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.units import PAGE_SIZE, PhysAddr

PAGES = 64


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[RamFile]:
    """Two regions side by side, each byte the number of its page."""
    middle, end = PhysAddr(PAGES // 2 * PAGE_SIZE), PhysAddr(PAGES * PAGE_SIZE)
    memory = RamFile.create(tmp_path / "ram", (Region(PhysAddr(0), middle), Region(middle, end)))
    for page in range(PAGES):
        memory.write(PhysAddr(page * PAGE_SIZE), bytes([page]) * PAGE_SIZE)
    yield memory
    memory.close()


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, PAGE_SIZE)), max_size=20),
    start=st.integers(0, 30_000),
    size_bytes=st.integers(0, 30_000),
)
def test_reading_is_slicing(
    memory: RamFile, pieces: list[tuple[int, int]], start: int, size_bytes: int
) -> None:
    expected = b"".join(bytes([page]) * size for page, size in pieces)
    extents = Extents(memory, ((PhysAddr(page * PAGE_SIZE), size) for page, size in pieces))
    assert extents.size_bytes == len(expected)
    assert extents.read(start, size_bytes) == expected[start : start + size_bytes]


def test_neighbours_become_one_but_not_across_regions(memory: RamFile) -> None:
    extents = Extents(memory, ((PhysAddr(n * PAGE_SIZE), PAGE_SIZE) for n in range(PAGES)))
    half = PAGES // 2 * PAGE_SIZE
    assert list(extents.pieces(0, 2 * half)) == [(0, half), (half, half)]
    assert extents.read(half - 1, 2) == bytes([PAGES // 2 - 1, PAGES // 2])


def test_writing_and_clearing_reach_only_the_bytes_meant(memory: RamFile) -> None:
    extents = Extents(memory, [(PhysAddr(8192), 100), (PhysAddr(0), 100)])
    extents.write(90, b"x" * 20)
    extents.zero(95, 10)
    assert memory.read(PhysAddr(8192 + 85), 20) == b"\2" * 5 + b"x" * 5 + bytes(5) + b"\2" * 5
    assert memory.read(PhysAddr(0), 15) == bytes(5) + b"x" * 5 + bytes(5)


@given(
    blocks=st.lists(
        st.builds(
            Block,
            st.integers(0, 8).map(lambda page: PhysAddr(page * PAGE_SIZE)),
            st.integers(0, 1),
            st.sampled_from([100, PAGE_SIZE]),
        )
    )
)
def test_rows_hold_all_blocks(blocks: list[Block]) -> None:
    assert list(blocks_in(to_rows(blocks))) == blocks


def test_like_blocks_side_by_side_are_one_row() -> None:
    blocks = [Block(PhysAddr(n * PAGE_SIZE), 0, 4000) for n in range(1000)]
    assert to_rows(blocks) == ((0, 0, 4000, 1000),)
