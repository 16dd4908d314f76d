"""A map as a picture of rectangles and texts, which SVG and PNG have in common.

Lengths are in pixels, from the top left. As on a terminal, each kind has a letter beside its
colour, so that the picture can be read in grey, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from openrbu.formats.packet import set_id_text
from openrbu.lazy import np
from openrbu.maps.kinds import KIND_OF, KINDS, Kind
from openrbu.maps.memory_map import MappedSet, MemoryMap
from openrbu.maps.runs import packet_runs
from openrbu.maps.strip import Grid, grid_of, zoomed
from openrbu.units import human_size

WIDTH = 960
INK, FAINT, PAPER = "#22262b", "#6a7078", "#ffffff"

_MARGIN, _LABEL, _COLUMNS, _MOST_ROWS = 20, 104, 128, 32
_MOST_ZOOM_ROWS = 16
_CELL, _ROW, _LINE = 6, 13, 18
_LEAST_RUN = 4
"""How many cells of one kind have its letter on them, if it is not a mark."""
_MOST_LISTED = 12
_MOST_LETTERS = 110


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text whose baseline begins at (x, y)."""

    x: float
    y: float
    text: str
    size: int = 12
    colour: str = INK
    is_bold: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    title: str
    height: float
    rects: tuple[Rect, ...]
    texts: tuple[Text, ...]


class _Canvas:
    """Collects shapes, from the top down. `y` is where the next ones go."""

    def __init__(self) -> None:
        self.rects: list[Rect] = []
        self.texts: list[Text] = []
        self.y = float(_MARGIN)

    def line(self, text: str, *, size: int = 12, colour: str = INK, is_bold: bool = False) -> None:
        """A line of text, cut to the picture's width."""
        if len(text) > _MOST_LETTERS:
            text = text[: _MOST_LETTERS - 3] + "..."
        self.y += size + 6
        self.texts.append(Text(_MARGIN, self.y - 4, text, size, colour, is_bold))


def picture_of(mapped: MemoryMap) -> Picture:
    """The picture of a map."""
    canvas = _Canvas()
    grid = grid_of(mapped, _COLUMNS, _MOST_ROWS)
    title = f"The memory of {mapped.name}"
    ram = human_size(mapped.end - mapped.ranges["no_ram"].size_bytes)
    canvas.line(title, size=16, is_bold=True)
    cell, row = human_size(grid.cell_bytes), human_size(grid.row_bytes)
    canvas.line(f"{ram} of RAM; a cell is {cell}, a row {row}", colour=FAINT)
    canvas.y += 8
    _draw_grid(canvas, mapped, grid)
    _draw_legend(canvas, mapped)
    for each in mapped.sets:
        _draw_set(canvas, each)
        for near in zoomed(mapped, each, grid, _MOST_ZOOM_ROWS):
            canvas.line(f"Where they lie, a cell is {human_size(near.cell_bytes)}:", colour=FAINT)
            canvas.y += 4
            _draw_grid(canvas, mapped, near, with_zones=False)
    _draw_marks(canvas, mapped)
    for note in mapped.notes:
        canvas.line(f"note: {note}", colour=FAINT)
    return Picture(title, canvas.y + _MARGIN, tuple(canvas.rects), tuple(canvas.texts))


def _draw_grid(canvas: _Canvas, mapped: MemoryMap, grid: Grid, *, with_zones: bool = True) -> None:
    kinds = mapped.kinds_in(grid.cells().ravel(), grid.cell_bytes).reshape(-1, grid.columns)
    left, told = _MARGIN + _LABEL, 0 if with_zones else len(mapped.zones)
    due = int(grid.starts[0]) if len(grid.starts) else 0
    for start, row in zip(grid.starts.tolist(), kinds, strict=True):
        canvas.y += _ROW // 2 if start > due else 0
        due = start + grid.row_bytes
        begin = [zone for zone in mapped.zones[told:] if zone.start < due]
        told += len(begin)
        y = canvas.y
        canvas.texts.append(Text(_MARGIN, y + _ROW - 3, f"{start:#011x}", 10, FAINT))
        cuts = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
        for low, high in pairwise(cuts):
            if row[low] < 0:
                continue
            kind = KINDS[row[low]]
            x, width = left + low * _CELL, (high - low) * _CELL
            canvas.rects.append(Rect(x, y, width, _ROW - 1, kind.colour))
            if kind.is_mark or high - low >= _LEAST_RUN:
                canvas.texts.append(Text(x + 1, y + _ROW - 4, kind.letter, 9, kind.ink))
        if begin:
            names = ", ".join(zone.name for zone in begin)
            x = left + grid.columns * _CELL + 6
            canvas.texts.append(Text(x, y + _ROW - 3, names, 9, FAINT))
        canvas.y += _ROW
    canvas.y += 8


def _draw_legend(canvas: _Canvas, mapped: MemoryMap) -> None:
    """The kinds of memory, which add up to all of it; and what was found in it."""
    kinds = [KINDS[place] for place in mapped.kinds]
    _draw_kinds(canvas, mapped, [kind for kind in kinds if not kind.is_mark])
    found = [kind for kind in kinds if kind.is_mark]
    if found:
        canvas.y += 4
        canvas.line("In it:", size=11, colour=FAINT)
        _draw_kinds(canvas, mapped, found)


def _draw_kinds(canvas: _Canvas, mapped: MemoryMap, kinds: Sequence[Kind]) -> None:
    """Kinds and their sizes in three columns."""
    width = (WIDTH - 2 * _MARGIN) / 3
    for number, kind in enumerate(kinds):
        if number % 3 == 0:
            canvas.y += _LINE
        x, y = _MARGIN + number % 3 * width, canvas.y
        outline = FAINT if kind.key == "no_ram" else kind.colour
        canvas.rects.append(Rect(x - 1, y - 11, 16, 14, outline))
        canvas.rects.append(Rect(x, y - 10, 14, 12, kind.colour))
        canvas.texts.append(Text(x + 4, y, kind.letter, 10, kind.ink))
        size = human_size(mapped.ranges[kind.key].size_bytes)
        canvas.texts.append(Text(x + 22, y, f"{kind.title}: {size}", 11))
    canvas.y += 10


def _draw_set(canvas: _Canvas, mapped: MappedSet) -> None:
    found = mapped.found
    canvas.y += 8
    head = f"Packet set {set_id_text(found.set_id)}: {len(found.places)} of {found.total} packets"
    canvas.line(f"{head}{', ' if mapped.title else ''}{mapped.title}", size=13, is_bold=True)
    _draw_numbers(canvas, mapped)
    for conflict in found.conflicts[:_MOST_LISTED]:
        canvas.line(f"conflict: {conflict}", colour=KIND_OF["reject"].colour)
    runs = packet_runs(mapped)
    for run in runs[:_MOST_LISTED]:
        canvas.line(f"{run.start:#011x}  {run.text}", size=11)
    if len(runs) > _MOST_LISTED:
        canvas.line(f"... and {len(runs) - _MOST_LISTED} more places", size=11, colour=FAINT)


def _draw_numbers(canvas: _Canvas, mapped: MappedSet) -> None:
    """A bar of all packets by number: there, a leftover copy alone, or missing."""
    total, width = mapped.found.total, WIDTH - 2 * _MARGIN
    states = mapped.states()
    cuts = [0, *(np.flatnonzero(np.diff(states)) + 1).tolist(), total]
    looks = [KIND_OF[key] for key in ("reject", "ghost", "packet")]
    for low, high in pairwise(cuts):
        kind = looks[int(states[low])]
        x = _MARGIN + low * width / total
        canvas.rects.append(Rect(x, canvas.y, (high - low) * width / total, 14, kind.colour))
        letter = "?" if kind.key == "reject" else kind.letter
        canvas.texts.append(Text(x + 1, canvas.y + 11, letter, 9, kind.ink))
    canvas.y += 18
    missing = mapped.found.missing
    if missing:
        first = ", ".join(map(str, missing[:_MOST_LISTED]))
        more = ", ..." if len(missing) > _MOST_LISTED else ""
        canvas.line(f"? missing: {first}{more}", size=11)


def _draw_marks(canvas: _Canvas, mapped: MemoryMap) -> None:
    for kind in _kinds_of_marks(mapped):
        marks = [mark for mark in mapped.marks if mark.kind == kind]
        count = mapped.reject_count if kind == "reject" else len(marks)
        canvas.y += 8
        look = KIND_OF[kind]
        canvas.line(f"{look.letter}  {look.title}: {count}", size=13, is_bold=True)
        for mark in marks[:_MOST_LISTED]:
            canvas.line(f"{mark.address:#011x}  {mark.title}", size=11)
        if count > (shown := min(_MOST_LISTED, len(marks))):
            canvas.line(f"... and {count - shown} more", size=11, colour=FAINT)


def _kinds_of_marks(mapped: MemoryMap) -> Iterator[str]:
    there = {mark.kind for mark in mapped.marks}
    return (kind for kind in ("image", "ghost", "header", "reject") if kind in there)
