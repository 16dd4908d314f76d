"""A map as rows of letters, with a legend: for a terminal of any width, with colours or without.

The address space is drawn as rows of cells, from the lowest address on. Each cell is a letter, so
that no colour is needed, and all letters are ASCII. Rows in which there is no RAM are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from openrbu.formats.packet import set_id_text
from openrbu.lazy import np, npt
from openrbu.maps.kinds import KIND_OF, KINDS, free_key
from openrbu.maps.memory_map import MappedSet, MemoryMap
from openrbu.maps.runs import PacketRun, packet_runs
from openrbu.memory.ram_array import Addresses
from openrbu.units import MAX_ORDER, PAGE_SIZE, human_size

Span: TypeAlias = tuple[str, str]
"""A text and its style, as rich writes it; an empty style is none."""
Line: TypeAlias = list[Span]

NARROWEST, WIDEST = 40, 200
MOST_ROWS = 16
MOST_ZOOMS, MOST_ZOOM_ROWS = 3, 12
"""How many parts of memory are drawn larger below a set, and in how many rows."""
MOST_LISTED = 10
"""How many runs of packets, and how many other findings, are listed."""

_MISSING, _DIFFERS = "?", "!"


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows of cells: `starts` are the addresses of the rows that have RAM, ascending."""

    cell_bytes: int
    columns: int
    starts: Addresses

    @property
    def row_bytes(self) -> int:
        return self.cell_bytes * self.columns

    def cells(self) -> Addresses:
        """The address of each cell, shape (rows, columns)."""
        offsets = np.arange(self.columns, dtype=np.int64) * self.cell_bytes
        cells: Addresses = self.starts[:, None] + offsets[None, :]
        return cells


def grid_of(
    mapped: MemoryMap, columns: int, most_rows: int, start: int = 0, end: int | None = None
) -> Grid:
    """The grid of [start, end) with the smallest cells that has at most so many rows; a cell is
    2**n pages, and a row begins at a multiple of its size."""
    gaps = mapped.ranges["no_ram"]
    end = mapped.end if end is None else end
    cell = PAGE_SIZE
    while True:
        row = cell * columns
        first = start // row
        count = -(-end // row) - first
        if count <= 64 * most_rows:
            starts = (first + np.arange(count, dtype=np.int64)) * row
            ends = np.minimum(starts + row, mapped.end)
            with_ram = gaps.bytes_in(starts, ends) < ends - starts
            if int(with_ram.sum()) <= most_rows:
                return Grid(cell, columns, starts[with_ram])
        cell *= 2


def zoomed(mapped: MemoryMap, found: MappedSet, overview: Grid, most_rows: int) -> Iterator[Grid]:
    """Grids of the parts of memory that have the packets of a set, the first `MOST_ZOOMS` of them.
    Only those whose cells are much smaller than those of the overview."""
    for start, end in parts_with(found, overview)[:MOST_ZOOMS]:
        grid = grid_of(mapped, overview.columns, most_rows, start, end)
        if 4 * grid.cell_bytes <= overview.cell_bytes:
            yield grid


def parts_with(found: MappedSet, overview: Grid) -> list[tuple[int, int]]:
    """The parts of memory that have the packets of a set, ascending, each as (start, end)."""
    sizes = np.array([found.found.size_of(int(number)) for number in found.numbers], np.int64)
    ends = found.addresses + sizes
    cuts = np.flatnonzero(found.addresses[1:] - ends[:-1] > overview.row_bytes // 4)
    firsts, lasts = [0, *(cuts + 1).tolist()], [*cuts.tolist(), len(ends) - 1]
    return [
        (int(found.addresses[first]), int(ends[last]))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def draw_strip(mapped: MemoryMap, width: int) -> list[Line]:
    """The map in lines of at most `width` characters (from 40 on)."""
    width = max(NARROWEST, min(WIDEST, width))
    digits = max(8, len(f"{mapped.end - 1:x}"))
    label = digits + 4  # 0x, and two blanks
    columns = (width - label) // 8 * 8
    grid = grid_of(mapped, columns, MOST_ROWS)
    lines: list[Line] = [
        _plain(f"{mapped.name}: {human_size(_ram_bytes(mapped))} of RAM"),
        _plain(f"a letter is {human_size(grid.cell_bytes)}, a row {human_size(grid.row_bytes)}"),
    ]
    lines += _rows(mapped, grid, digits)
    lines += [_plain(""), *_legend(mapped, width)]
    for each in mapped.sets:
        lines += [_plain(""), *_set_lines(each, width)]
        lines += _near_lines(mapped, each, grid, digits)
    lines += _mark_lines(mapped, width)
    lines += [line for note in mapped.notes for line in _wrapped(f"note: {note}", width)]
    return lines


def _near_lines(mapped: MemoryMap, each: MappedSet, grid: Grid, digits: int) -> Iterator[Line]:
    """The parts of memory that have the packets of a set, drawn larger."""
    cell_bytes = 0
    for near in zoomed(mapped, each, grid, MOST_ZOOM_ROWS):
        if near.cell_bytes != cell_bytes:
            cell_bytes = near.cell_bytes
            yield _plain(f"where they lie, a letter is {human_size(cell_bytes)}:")
        else:
            yield _plain("")
        yield from _rows(mapped, near, digits, with_zones=False)
    parts = parts_with(each, grid)
    if cell_bytes and len(parts) > MOST_ZOOMS:
        more = len(parts) - MOST_ZOOMS
        yield _plain(
            f"... and {more} more {'part' if more == 1 else 'parts'}, up to {parts[-1][1]:#x}"
        )


def _plain(text: str) -> Line:
    return [(text, "")]


def _wrapped(text: str, width: int) -> list[Line]:
    """A text in lines, those after the first one indented."""
    import textwrap  # noqa: PLC0415  (start-up time)

    return [_plain(line) for line in textwrap.wrap(text, width, subsequent_indent="  ")]


def _ram_bytes(mapped: MemoryMap) -> int:
    return mapped.end - mapped.ranges["no_ram"].size_bytes


def _rows(mapped: MemoryMap, grid: Grid, digits: int, *, with_zones: bool = True) -> Iterator[Line]:
    kinds = mapped.kinds_in(grid.cells().ravel(), grid.cell_bytes).reshape(-1, grid.columns)
    told = 0 if with_zones else len(mapped.zones)
    due = int(grid.starts[0]) if len(grid.starts) and not with_zones else 0
    for start, row in zip(grid.starts.tolist(), kinds, strict=True):
        if start > due:
            yield _plain(f"{'':{digits + 4}}no RAM up to {start:#x}")
        due = start + grid.row_bytes
        begin = [z for z in mapped.zones[told:] if z.start < due]
        told += len(begin)
        if begin:
            yield _plain("zone " + ", ".join(f"{z.name} from {z.start:#x}" for z in begin))
        yield [(f"0x{start:0{digits}x}  ", ""), *_letters(row)]


def _letters(row: npt.NDArray[np.intp]) -> Iterator[Span]:
    """A row of kinds as letters; those of one kind in a sequence are one span."""
    cuts = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
    for low, high in pairwise(cuts):
        place = int(row[low])
        if place >= 0:
            kind = KINDS[place]
            yield kind.letter * (high - low), kind.style


def _legend(mapped: MemoryMap, width: int) -> list[Line]:
    """Each kind with how much there is of it, as many in a line as fit. Marks have lines of their
    own: they lie in memory that is free or in use, and over each other."""
    free = [free_key(order) for order in range(MAX_ORDER + 1)]
    entries: list[Line] = []
    marks: list[Line] = []
    for place in mapped.kinds:
        kind = KINDS[place]
        if kind.key not in free:
            size = human_size(mapped.ranges[kind.key].size_bytes)
            into = marks if kind.is_mark else entries
            into.append([(kind.letter, kind.style), (f" {kind.title} {size}", "")])
    letters: Line = []
    for key in free:
        letters.append((KIND_OF[key].letter, KIND_OF[key].style))
    there = [mapped.ranges[key].size_bytes for key in free if key in mapped.ranges]
    if there:
        text = f" free {human_size(sum(there))}, by order"
        entries.append([*letters, (text, "")])
    if marks:
        marks[0] = [("in it: ", ""), *marks[0]]
    return [*_side_by_side(entries, width), *_side_by_side(marks, width)]


def _side_by_side(entries: list[Line], width: int) -> list[Line]:
    """Entries in lines, as many in each as fit."""
    lines: list[Line] = []
    used = width
    for entry in entries:
        length = sum(len(text) for text, _ in entry)
        if used + 3 + length > width:
            lines.append([])
            used = -3
        elif lines[-1]:
            lines[-1].append(("   ", ""))
        lines[-1] += entry
        used += 3 + length
    return lines


def _set_lines(mapped: MappedSet, width: int) -> Iterator[Line]:
    """A packet set: its packets by number, and where they are in memory."""
    found = mapped.found
    size = human_size(found.packet_size_bytes)
    head = f"packet set {set_id_text(found.set_id)}: {len(found.places)} of {found.total} packets"
    yield from _wrapped(f"{head} of {size}{', ' if mapped.title else ''}{mapped.title}", width)
    yield from _numbers(mapped, width)
    for conflict in found.conflicts[:MOST_LISTED]:
        yield from _wrapped(f"conflict: {conflict}", width)
    runs = packet_runs(mapped)
    before: PacketRun | None = None
    for run in runs[:MOST_LISTED]:
        gap = "" if before is None else f", {human_size(run.start - before.end)} further on"
        if before is not None and run.start == before.end:
            gap = ", right behind"
        yield from _wrapped(f"  {run.start:#x}  {run.text}{gap}", width)
        before = run
    if len(runs) > MOST_LISTED:
        yield _plain(f"  ... and {len(runs) - MOST_LISTED} more places")


def _numbers(mapped: MappedSet, width: int) -> Iterator[Line]:
    """The packets by number, one letter for each, or for some where the line is too short."""
    total, last = mapped.found.total, str(mapped.found.total - 1)
    room = width - len(last) - 6
    each = -(-total // room)
    states = mapped.states()
    cuts = np.arange(0, total, each)
    worst = np.minimum.reduceat(states, cuts)
    looks = (
        (_MISSING, KIND_OF["reject"].style),
        (KIND_OF["ghost"].letter, KIND_OF["ghost"].style),
        (KIND_OF["packet"].letter, KIND_OF["packet"].style),
    )
    yield [("  0 [", ""), *(looks[state] for state in worst.tolist()), (f"] {last}", "")]
    counts = [int((states == state).sum()) for state in range(3)]
    words = []
    if counts[0]:
        words.append(f"{_MISSING} missing: {counts[0]}")
    if counts[1]:
        words.append(f"{KIND_OF['ghost'].letter} only as a leftover copy: {counts[1]}")
    if each > 1:
        words.append(f"a letter is {each} packets, and shows the worst of them")
    if words:
        yield from _wrapped("  " + "; ".join(words), width)


def _mark_lines(mapped: MemoryMap, width: int) -> Iterator[Line]:
    """The images, headers and rejects, the first ones of each kind."""
    for kind in ("image", "ghost", "header", "reject"):
        marks = [mark for mark in mapped.marks if mark.kind == kind]
        if not marks:
            continue
        count = mapped.reject_count if kind == "reject" else len(marks)
        yield _plain("")
        letter = KIND_OF[kind]
        yield [(letter.letter, letter.style), (f" {letter.title}: {count}", "")]
        for mark in marks[:MOST_LISTED]:
            yield from _wrapped(f"  {mark.address:#x}  {mark.title}", width)
        if count > (shown := min(MOST_LISTED, len(marks))):
            yield _plain(f"  ... and {count - shown} more")


def as_text(lines: Sequence[Line]) -> str:
    """The lines without their styles."""
    return "".join("".join(text for text, _ in line) + "\n" for line in lines)
