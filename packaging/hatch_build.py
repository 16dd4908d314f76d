"""Adds to a wheel and an sdist what `make dist` has made in build/share: manual pages, completions.

Where nothing was made there, as with `pip install .` in a clone, a wheel comes without them: making
them takes what openrbu needs to run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MADE = "build/share"


class MadeFiles(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files before the build. `version`: `editable` for one that needs none."""
        if version == "editable" or not Path(self.root, MADE).is_dir():
            return
        if self.target_name == "wheel":
            build_data["shared_data"][MADE] = "share"
        else:
            build_data["force_include"][MADE] = MADE
