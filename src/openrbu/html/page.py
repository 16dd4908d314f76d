"""One HTML file out of a skeleton, a style, a program and data.

A page's files are in a folder of its own: `page.html`, `page.css` and `page.js`. What all pages
share is here: `base.css` and `base.js` come before a page's own. In the skeleton, `@@POLICY@@`,
`@@STYLE@@`, `@@DATA@@` and `@@PROGRAM@@` stand for the parts. No text of the data becomes markup:
programs make text nodes only, and the page's policy allows no other program, no style from
elsewhere and no request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

_SHARED = resources.files("openrbu.html")


def page_from(files: Traversable, data: dict[str, Any]) -> str:
    """The page with the files in the folder `files`. Its program finds `data` in `data`."""
    style = _read(_SHARED / "base.css") + _read(files / "page.css")
    program = _read(_SHARED / "base.js") + _read(files / "page.js")
    program = f'"use strict";\n(() => {{\n{program}}})();\n'
    parts = {
        "POLICY": (
            f"default-src 'none'; script-src '{_digest(program)}'; style-src '{_digest(style)}'; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
        "STYLE": style,
        "PROGRAM": program,
        "DATA": _as_json(data),
    }
    head, *rest = _read(files / "page.html").split("@@")
    names, texts = rest[0::2], rest[1::2]
    return head + "".join(parts[name] + text for name, text in zip(names, texts, strict=True))


def _read(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a content security policy calls an inline program or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _as_json(data: dict[str, Any]) -> str:
    """JSON for an element of HTML: no character of it can end the element."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
