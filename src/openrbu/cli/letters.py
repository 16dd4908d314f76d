"""Characters for a terminal, a file or a locale that has ASCII only.

What openrbu itself writes has a likeness in ASCII (`->` for an arrow); other characters, such as
those of a file's name, are escaped (`\\u00e4`).
"""

from __future__ import annotations

import codecs
import os
from io import TextIOWrapper

_LIKE = {
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MIDDLE DOT}": ".",
    "\N{FULL BLOCK}": "#",
    "\N{BOX DRAWINGS HEAVY VERTICAL}": "|",
}

_HANDLER = "openrbu.like"
"""The name under which codecs find what replaces a character that they can't encode."""


def prepare(stream: TextIOWrapper) -> None:
    """Have a stream take any text; in a locale of ASCII it gets nothing else."""
    codecs.register_error(_HANDLER, _replaced)
    if _is_ascii_wanted():
        stream.reconfigure(encoding="ascii", errors=_HANDLER)
    else:
        stream.reconfigure(errors=_HANDLER)


def like(text: str, encoding: str | None) -> str:
    """The text with characters of this encoding only (None: any)."""
    if text.isascii() or encoding is None:
        return text
    codecs.register_error(_HANDLER, _replaced)
    return text.encode(encoding, _HANDLER).decode(encoding)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that can't be encoded: a handler for `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(_LIKE.get(each) or _escaped(each) for each in bad), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


def _is_ascii_wanted() -> bool:
    """Whether the user has a locale of ASCII, where Python writes UTF-8 all the same (PEP 540).

    Where only LANG names it, Python itself sets LC_CTYPE to C.UTF-8 before it starts (PEP 538). No
    locale at all, as in containers, is none of ASCII. What is said to Python counts more.
    """
    said = os.environ.get
    if said("PYTHONIOENCODING") or said("PYTHONUTF8"):
        return False
    coerced = said("LC_CTYPE") == "C.UTF-8" and said("LANG")
    locale = said("LC_ALL") or coerced or said("LC_CTYPE") or said("LANG")
    return locale in ("C", "POSIX")
