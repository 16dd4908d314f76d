"""Manual pages and completions are in what `make dist` builds, and in no other wheel of a clone."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

HOOK = runpy.run_path(str(Path(__file__).parents[2] / "packaging" / "hatch_build.py"))


def built(root: Path, target: str = "wheel", version: str = "standard") -> dict[str, Any]:
    """What the hook adds to a build of a tree in which `make dist` has made something before."""
    (root / "build" / "share").mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"shared_data": {}, "force_include": {}}
    hook = HOOK["MadeFiles"](str(root), {}, None, None, str(root / "dist"), target)
    hook.initialize(version, data)
    return data


def test_a_clone_is_installed_without_what_an_earlier_build_has_left(tmp_path: Path) -> None:
    assert built(tmp_path) == {"shared_data": {}, "force_include": {}}


def test_what_make_dist_builds_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRBU_BUILD_SHARE", "1")
    assert built(tmp_path)["shared_data"] == {"build/share": "share"}
    assert built(tmp_path, "sdist")["force_include"] == {"build/share": "build/share"}
    assert built(tmp_path, version="editable")["shared_data"] == {}


def test_a_wheel_that_is_built_from_the_sdist_has_them(tmp_path: Path) -> None:
    (tmp_path / "PKG-INFO").touch()
    assert built(tmp_path)["shared_data"] == {"build/share": "share"}
