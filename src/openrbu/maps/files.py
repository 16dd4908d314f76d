"""A map as a file: SVG and HTML by ourselves, PNG by matplotlib (the extra `plot`).

Texts come from memory that may be damaged or hostile; none of them becomes markup.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from openrbu.errors import ObstacleError, OutputError, UsageError
from openrbu.maps.memory_map import MemoryMap
from openrbu.maps.picture import PAPER, WIDTH, Picture, picture_of
from openrbu.system.installed import remedy_for

_FONTS = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"

SUFFIXES = (".svg", ".png", ".html")


def check_map_path(path: Path) -> None:
    """Check that a map can have this name, before the work that leads to it.

    :raise UsageError: when the name has another suffix than those of `SUFFIXES`.
    :raise ObstacleError: when it is a PNG, and matplotlib is not installed.
    :raise OutputError: when its directory does not exist.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"a map's name ends in .svg, .png or .html, not {path.name!r}")
    if suffix == ".png" and importlib.util.find_spec("matplotlib") is None:
        raise ObstacleError(f"a map as PNG takes matplotlib: {remedy_for('plot')}")
    if not path.parent.is_dir():
        raise OutputError(f"{path} can't be written: there is no directory {path.parent}")


def map_file(mapped: MemoryMap, path: Path) -> bytes:
    """The content of a file with the map; its name says which kind. The same map gives the same
    bytes.

    :raise UsageError | ObstacleError | OutputError: as `check_map_path`.
    """
    check_map_path(path)
    suffix = path.suffix.lower()
    if suffix == ".html":
        from openrbu.maps.page import page_of  # noqa: PLC0415  (start-up time)

        return page_of(mapped).encode()
    picture = picture_of(mapped)
    return svg(picture).encode() if suffix == ".svg" else png(picture)


def _clean(text: str) -> str:
    """A text without what XML forbids and what can't be seen."""
    return "".join(c if c.isprintable() else "?" for c in text)


def svg(picture: Picture) -> str:
    """The picture as SVG."""
    size = f'width="{WIDTH}" height="{picture.height:g}" viewBox="0 0 {WIDTH} {picture.height:g}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONTS}">',
        f"<title>{escape(_clean(picture.title))}</title>",
        f'<rect width="100%" height="100%" fill="{PAPER}"/>',
    ]
    lines += [
        f'<rect x="{rect.x:.6g}" y="{rect.y:.6g}" width="{rect.width:.6g}" '
        f'height="{rect.height:.6g}" fill={quoteattr(rect.colour)}/>'
        for rect in picture.rects
    ]
    for text in picture.texts:
        weight = ' font-weight="bold"' if text.is_bold else ""
        lines.append(
            f'<text x="{text.x:.6g}" y="{text.y:.6g}" font-size="{text.size}"{weight} '
            f'fill={quoteattr(text.colour)} xml:space="preserve">{escape(_clean(text.text))}</text>'
        )
    return "\n".join((*lines, "</svg>", ""))


def png(picture: Picture) -> bytes:
    """The picture as PNG, twice as large."""
    import matplotlib as mpl  # noqa: PLC0415  (an extra, and slow to import)
    from matplotlib.collections import PatchCollection  # noqa: PLC0415  (an extra)
    from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    from matplotlib.patches import Rectangle  # noqa: PLC0415  (an extra)

    dots, points = 100, 72
    settings: dict[Any, Any] = {"text.parse_math": False, "font.family": "DejaVu Sans Mono"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # one that the font has not is a box
        figure = Figure(figsize=(WIDTH / dots, picture.height / dots), facecolor=PAPER)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(picture.height, 0)
        axes.set_axis_off()
        patches = [
            Rectangle((rect.x, rect.y), rect.width, rect.height, color=rect.colour, linewidth=0)
            for rect in picture.rects
        ]
        axes.add_collection(PatchCollection(patches, match_original=True, antialiased=False))
        for text in picture.texts:
            axes.text(
                text.x,
                text.y,
                _clean(text.text),
                fontsize=text.size * points / dots,
                color=text.colour,
                fontweight="bold" if text.is_bold else "normal",
            )
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=2 * dots, metadata={"Software": None})
        return file.getvalue()
