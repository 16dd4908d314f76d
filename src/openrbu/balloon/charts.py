"""Charts of balloons over time, as SVG or PNG (the extra `plot`: matplotlib).

A chart can be read without colour: each guest has a brightness and a mark of its own, and its name
is at the end of its line. Its target is dashed. The area at the bottom is what the host had free.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrbu.errors import ObstacleError, OutputError, UsageError
from openrbu.lazy import np
from openrbu.system.denied import why_refused
from openrbu.system.installed import remedy_for
from openrbu.units import PAGES_PER_MIB
from openrbu.xen.samples import BalloonActivity, Samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")

_STYLES = (
    *(("#08306b", "o"), ("#b8400e", "s"), ("#3fa67a", "^"), ("#c9a0dc", "D")),
    *(("#202020", "v"), ("#8c6d00", "P"), ("#7fb8e6", "*"), ("#7b3f1d", "X")),
)
"""Colour and mark of each guest in turn. The first four differ most in brightness."""
_MOST_NAMED = len(_STYLES)
"""With more guests than this, neither names nor targets are drawn: they could not be read."""

_SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "path.simplify_threshold": 0.5,  # of a dot: a staircase of thousands of batches is a slope
    "svg.fonttype": "path",
    "svg.hashsalt": "openrbu",
    "text.parse_math": False,  # a guest may be called $x$
}

_NAME_LETTERS = 20
_NAME_HEIGHT = 0.06
"""The height of a name, as a fraction of the panel's."""

_INK, _FAINT, _FREE = "#333333", "#d9d9d9", "#ececec"


@dataclass(frozen=True, slots=True)
class Annotation:
    """Something that happened to the whole host."""

    time_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One part of a picture: balloons from 0 s to `end_s`. `free_pages` is what the host had free
    at the start; None: that is not drawn."""

    title: str
    samples: Samples
    end_s: float
    free_pages: int | None = None
    annotations: Sequence[Annotation] = ()


def check_path(path: Path) -> None:
    """Check that a chart can have this name, before the work that leads to it.

    :raise UsageError: when the name has another suffix than those of `SUFFIXES`.
    :raise ObstacleError: when matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"a chart's name ends in {' or '.join(SUFFIXES)}, not {path.name!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ObstacleError(f"a chart takes matplotlib: {remedy_for('plot')}")


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Draw panels one below the other, with the same axes. The same panels give the same file.

    :raise UsageError: when the name has another suffix than those of `SUFFIXES`.
    :raise ObstacleError: when matplotlib is not installed.
    :raise OutputError: when the file can't be written.
    """
    check_path(path)
    import matplotlib as mpl  # noqa: PLC0415  (an extra, and slow to import)

    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # a letter that the font does not have is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph")
        figure = _figure(panels)
        metadata: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
        try:
            figure.savefig(path, dpi=130, metadata=metadata)
        except OSError as error:
            raise OutputError(f"{path} can't be written: {why_refused(error, path)}") from None


def _figure(panels: Sequence[Panel]) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415  (see `draw`)

    figure = Figure(figsize=(10, 1.2 + 3.4 * len(panels)), layout="constrained")
    rows = figure.subplots(len(panels), sharex=True, sharey=True, squeeze=False)
    for panel, (axes,) in zip(panels, rows, strict=True):
        _draw_panel(axes, panel)
    rows[-1][0].set_xlabel("seconds")
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, loc="left", fontsize=11, color=_INK)
    axes.set_ylabel("MiB")
    axes.set_xlim(0, panel.end_s)
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.margins(y=0.14)  # annotations stand above the lines
    if panel.free_pages is not None:
        _draw_free(axes, panel, panel.free_pages)
    guests = panel.samples.guests
    is_named = len(guests) <= _MOST_NAMED
    for number, guest in enumerate(guests):
        _draw_guest(axes, panel, guest, number, is_named=is_named)
    axes.set_ylim(bottom=0)
    if is_named:
        _draw_names(axes, panel)
    for annotation in panel.annotations:
        axes.axvline(annotation.time_s, color=_INK, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate(
            annotation.text,
            (annotation.time_s, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            color=_INK,
        )


def _draw_free(axes: Axes, panel: Panel, free_pages: int) -> None:
    times_s, released = panel.samples.released_pages()
    # matplotlib simplifies lines but not areas, so this has no more corners than can be seen
    moments_s = np.linspace(0, panel.end_s, 500)
    rows = times_s.searchsorted(moments_s, side="right")
    free_mib = (free_pages + np.concatenate(([0], released))[rows]) / PAGES_PER_MIB
    axes.fill_between(moments_s, free_mib, color=_FREE, linewidth=0)
    axes.annotate(
        "free on the host",
        (panel.end_s, 0),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        color="#777777",
        fontsize=9,
    )


def _draw_guest(axes: Axes, panel: Panel, guest: str, number: int, *, is_named: bool) -> None:
    curve = panel.samples.curve(guest)
    times_s = [*curve.times_s, panel.end_s]
    current = [*curve.current_pages, curve.current_pages[-1]]
    current_mib = [pages / PAGES_PER_MIB for pages in current]
    colour, mark = _STYLES[number % len(_STYLES)]
    axes.plot(
        times_s,
        current_mib,
        drawstyle="steps-post",
        color=colour,
        linewidth=1.8 if is_named else 0.8,
        marker=mark if is_named else None,
        markersize=5,
        markevery=0.11,
        clip_on=False,
    )
    if not is_named:
        return
    target_mib = [*curve.target_pages, curve.target_pages[-1]]
    axes.plot(
        times_s,
        [pages / PAGES_PER_MIB for pages in target_mib],
        drawstyle="steps-post",
        color=colour,
        linewidth=1.0,
        linestyle=(0, (5, 4)),
    )
    for start_s, _ in curve.spans(BalloonActivity.STALLED, panel.end_s):
        pages = int(curve.current_pages[curve.times_s.searchsorted(start_s)])
        side = 1 if number % 2 == 0 else -1
        _draw_stall(axes, f"{guest} gives up", (start_s, pages / PAGES_PER_MIB), side)


def _draw_names(axes: Axes, panel: Panel) -> None:
    """Write each guest's name at the end of its line, or higher where another name is."""
    height = _NAME_HEIGHT * axes.get_ylim()[1]
    ends = [
        (int(panel.samples.curve(guest).current_pages[-1]) / PAGES_PER_MIB, number, guest)
        for number, guest in enumerate(panel.samples.guests)
    ]
    free_from = 0.0
    for mib, number, guest in sorted(ends):
        y_mib = max(mib, free_from)
        free_from = y_mib + height
        axes.annotate(
            guest if len(guest) <= _NAME_LETTERS else f"{guest[: _NAME_LETTERS - 1]}…",
            (panel.end_s, y_mib),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=_STYLES[number][0],
            fontweight="bold",
            annotation_clip=False,
        )


def _draw_stall(axes: Axes, text: str, point: tuple[float, float], side: int) -> None:
    """Mark the point (s, MiB) where a guest gave up, with the text above the line (`side` 1) or
    below it (-1)."""
    axes.annotate(
        f"{text} at {point[0]:.1f} s",
        point,
        xytext=(8, 20 * side),
        textcoords="offset points",
        va="center",
        color=_INK,
        fontsize=9,
        arrowprops={"arrowstyle": "->", "color": _INK, "shrinkB": 3},
    )
