"""The Debian package's pages: what they link to is in the package, too."""

from __future__ import annotations

import runpy
from pathlib import Path

MAKE_DEB = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "make-deb"))


def test_each_link_of_a_page_in_the_package_leads_to_a_file_in_it(tmp_path: Path) -> None:
    MAKE_DEB["stage_pages"](tmp_path)
    assert (tmp_path / "docs" / "scan.md").is_file()
    assert MAKE_DEB["dead_links"](tmp_path) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    MAKE_DEB["stage_pages"](tmp_path)
    (tmp_path / "docs" / "scan.svg").unlink()
    outside = "[1](../..) [2](nowhere.md#there) [3](index.md) [4](#here) [5](https://example.org)"
    (tmp_path / "docs" / "lab.md").write_text(outside)
    assert MAKE_DEB["dead_links"](tmp_path) == [
        "docs/lab.md: ../..",
        "docs/lab.md: nowhere.md",
        "docs/scan.md: scan.svg",
    ]
