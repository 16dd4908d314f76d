"""The kinds of memory on a map, and how each looks: a letter, a name, a colour."""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.units import MAX_ORDER


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of memory. `colour` and `ink` are of pictures: of the area, and of a letter on it;
    `style` is of a terminal, as rich writes it. A *mark* is shown wherever there is any of it; of
    the other kinds that one is shown of which there is most."""

    key: str
    letter: str
    title: str
    colour: str
    ink: str
    style: str
    is_mark: bool = False


def free_key(order: int) -> str:
    """The key of the free blocks of an order."""
    return f"free_{order}"


_FREE_COLOURS = (
    *("#e6f3d8", "#d9edc7", "#cbe6b6", "#bcdfa6", "#abd696", "#99cc87"),
    *("#86c179", "#72b46b", "#5ea65e", "#4a9651", "#368545"),
)
_FREE_STYLES = (194, 193, 157, 156, 150, 120, 114, 113, 77, 71, 35)
"""Colours of the 256 of a terminal, from the smallest blocks to the largest ones."""


def _free(order: int) -> Kind:
    letter = str(order) if order < MAX_ORDER else "."
    title = f"free, blocks of order {order}"
    style = f"black on color({_FREE_STYLES[order]})"
    return Kind(free_key(order), letter, title, _FREE_COLOURS[order], "#173d1c", style)


KINDS: tuple[Kind, ...] = (
    Kind("no_ram", "-", "no RAM", "#ffffff", "#808080", "bright_black"),
    Kind("ram", "m", "RAM", "#d5d9de", "#30363c", "black on color(252)"),
    Kind("used", "#", "in use", "#b4b0a9", "#2b2926", "black on color(249)"),
    Kind("cache", "c", "programs and page cache", "#a9c8e6", "#17344f", "black on color(153)"),
    Kind("balloon", "B", "not this system's", "#d9c2ec", "#3c2358", "black on color(183)"),
    *(_free(order) for order in range(MAX_ORDER + 1)),
    Kind("held", "H", "held for the BIOS", "#f2a93b", "#3f2700", "black on color(215)", True),
    Kind("header", "h", "image header alone", "#c65f9a", "#ffffff", "white on color(132)", True),
    Kind("ghost", "g", "leftover copy", "#9a7fd1", "#ffffff", "white on color(97)", True),
    Kind("reject", "!", "only looks like one", "#d6392b", "#ffffff", "white on color(160)", True),
    Kind("image", "I", "image", "#0f4f8f", "#ffffff", "white on color(24)", True),
    Kind("packet", "P", "packet", "#1f74d1", "#ffffff", "white on color(26)", True),
)
"""All kinds. Of two marks in one place the later one here is shown."""

KIND_OF = {kind.key: kind for kind in KINDS}
