"""Adds to a wheel and an sdist what `make dist` has made in build/share: manual pages, completions.

`pip install .` in a clone comes without them, also after `make dist`: making them takes what
openrbu needs to run, and what is left there from an earlier build may be of another version.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MADE = "build/share"

WANTED = "OPENRBU_BUILD_SHARE"
"""The variable that scripts/make-dist sets: these files are of the tree that is built."""

OF_AN_SDIST = "PKG-INFO"
"""What the top of an unpacked sdist has, and a clone has not: its files were made with it."""


class MadeFiles(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files before the build. `version`: `editable` for one that needs none."""
        root = Path(self.root)
        is_of_this_tree = WANTED in os.environ or (root / OF_AN_SDIST).is_file()
        if version == "editable" or not is_of_this_tree or not (root / MADE).is_dir():
            return
        if self.target_name == "wheel":
            build_data["shared_data"][MADE] = "share"
        else:
            build_data["force_include"][MADE] = MADE
