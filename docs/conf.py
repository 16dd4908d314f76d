"""How `make docs` makes the site: Sphinx, with MyST for Markdown and the theme Furo.

The pages stay what they are on a code host: plain Markdown. The tree of pages is here, and is put
behind the page that it belongs to when that page is read. A page that is in no tree, a link that
leads nowhere and an anchor without a heading are warnings, and `make docs` takes none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

project = "openrbu"
author = "The openrbu developers"
html_title = "openrbu"
language = "en"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
myst_heading_anchors = 5
highlight_language = "none"
smartquotes = False  # `--` begins an option
nitpicky = True
suppress_warnings = ["myst.header"]  # sections with an ID are all headings of the third level

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

HERE = Path(__file__).parent
LINK_UP = re.compile(r"\[([^\]]*)\]\((\.\./[^)\s]+)\)")

TREES: dict[str, dict[str, list[str]]] = {
    "index": {
        "Getting started": [
            "install",
            "start-administrator",
            "start-tool-author",
            "start-researcher",
        ],
        "How to": [
            "how-to/update-one-server",
            "how-to/policy",
            "how-to/password",
            "how-to/without-the-module",
            "how-to/fragmented-memory",
            "how-to/xen",
            "how-to/many-machines",
            "how-to/ci",
            "how-to/read-a-dump",
            "how-to/report-many",
            "how-to/watch",
            "how-to/ironic",
        ],
        "In depth": [
            "real-machine",
            "machines",
            "run",
            "trace",
            "ci",
            "scan",
            "xen",
            "lab",
            "kernel-differences",
            "library",
        ],
        "Look up": [
            "troubleshooting",
            "commands",
            "reference/options",
            "reference/json",
            "reference/exit-codes",
            "reference/environment",
            "reference/README",
            "glossary",
        ],
        "The project": ["what-works", "proven", "architecture", "state", "decisions/README"],
    },
    "reference/README": {"": ["*"]},
    "decisions/README": {"": ["0*"]},
}
"""Of a page: the captions behind it, and the pages below each. `*` is all that are named nowhere
else."""


OPTIONS = "reference/options"
"""The page whose text is made from the code."""

LISTED = "decisions/README"
"""The page whose tree is its text, too: the others have theirs at the side only."""


def named() -> set[str]:
    """All pages that a tree names."""
    return {name for tree in TREES.values() for names in tree.values() for name in names}


def pages(tree: str, names: list[str]) -> list[str]:
    """The pages of one caption, with their paths from docs/."""
    if not any("*" in name for name in names):
        return names
    folder = (HERE / tree).parent
    found = sorted(path for name in names for path in folder.glob(f"{name}.md"))
    paths = [path.relative_to(HERE).with_suffix("").as_posix() for path in found]
    return [path for path in paths if path != tree and path not in named()]


def numbered(name: str) -> str:
    """The number of a decision, and its title."""
    title = (HERE / f"{name}.md").read_text("utf-8").partition("\n")[0]
    return f"{Path(name).name[:4]} {title.removeprefix('# ').replace('`', '')}"


def outside(page: str, link: re.Match[str]) -> str:
    """A link to a Markdown file that is not in docs/, as one to a copy of it beside the site. Other
    files are copied without help."""
    text, target = link[1], link[2].partition("#")[0]
    path = (HERE / page).parent.joinpath(target).resolve()
    if path.is_relative_to(HERE) or path.suffix != ".md":
        return link[0]
    return f"{{download}}`{text} <{target}>`"


def options() -> str:
    """What the commands say of their options, by the Python that openrbu is installed in."""
    python = os.environ.get("OPENRBU_PYTHON", sys.executable)
    script = str(HERE.parent / "scripts" / "options-page")
    return subprocess.run([python, script], capture_output=True, text=True, check=True).stdout


def prepare(_app: Any, page: str, content: list[str]) -> None:
    """Prepare the text of a page for MyST."""
    content[0] = LINK_UP.sub(partial(outside, page), content[0])
    if page == OPTIONS:
        content[0] += f"\n\n{options()}"
    add_tree(page, content)


def add_tree(page: str, content: list[str]) -> None:
    """Put the tree of pages that belongs to `page` behind its text."""
    for caption, names in TREES.get(page, {}).items():
        lines = "\n".join(
            f"{numbered(name)} </{name}>" if page == LISTED else f"/{name}"
            for name in pages(page, names)
        )
        options = (":maxdepth: 1\n" if page == LISTED else ":hidden:\n") + (
            f":caption: {caption}\n" if caption else ""
        )
        content[0] += f"\n\n```{{toctree}}\n{options}\n{lines}\n```\n"


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", prepare)
    return {"parallel_read_safe": True}
