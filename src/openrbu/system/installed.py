"""How openrbu came onto this computer, and which command adds an extra to it there.

A message that says "install that package" helps only where its command works: what was installed
by pipx is not the business of pip, and what came as a Debian package is not the one of either. The
signs are those that the installers leave for others:

- pipx: `pipx_metadata.json` in the environment;
- uv, as a tool: `uv-receipt.toml` in the environment;
- pip, and uv otherwise: `INSTALLER` and `direct_url.json` in the metadata (PEP 376, PEP 610);
- Debian: `/usr/lib/python3/dist-packages`, where only its packages have files (its Python policy);
- the single file: `PEX-INFO` in the environment that it unpacks.

Commands import this for messages that they hardly ever print. What takes long to load, such as
`importlib.metadata`, is loaded by the message.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution

PROJECT = "openrbu"

DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")

_ELSEWHERE = "this form of openrbu comes without it; docs/install.md has those with it"

_DEBIAN = {
    "lab": "apt-get install virtme-ng (Debian 12 has none: docs/install.md)",
    "plot": "apt-get install python3-matplotlib",
    "testing": "apt-get install python3-pytest",
}
"""What the Debian package does without. It has `mfusepy` and `qemu.qmp` in it: Debian 12 and 13
don't."""


class Way(Enum):
    """How openrbu was installed."""

    DEBIAN = "a Debian package"
    PIPX = "pipx"
    UV_TOOL = "uv tool"
    SINGLE_FILE = "the single file"
    UV_PIP = "uv, in an environment"
    PIP = "pip"
    SOURCE = "a source tree"


_RECEIPTS = {
    "pipx_metadata.json": Way.PIPX,
    "uv-receipt.toml": Way.UV_TOOL,
    "PEX-INFO": Way.SINGLE_FILE,
}
"""Files in an environment that say who made it."""


@dataclass(frozen=True)
class Installation:
    """Where openrbu is. `prefix`: of the environment (`sys.prefix`); `packages`: the directory with
    the package openrbu; `program`: this Python; `path`: where Python finds packages.

    `is_managed`: a Python into which pip installs only with `--break-system-packages` (PEP 668).
    """

    prefix: Path
    packages: Path
    program: str
    path: Sequence[str]
    is_managed: bool = False

    @classmethod
    def here(cls) -> Installation:
        """That of this process."""
        import sysconfig  # noqa: PLC0415  (see above)

        marker = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
        return cls(
            Path(sys.prefix),
            Path(__file__).resolve().parents[2],
            sys.executable or "python3",
            sys.path,
            is_managed=sys.prefix == sys.base_prefix and marker.exists(),
        )

    @property
    def way(self) -> Way:
        """How openrbu was installed."""
        for name, way in _RECEIPTS.items():
            if (self.prefix / name).exists():
                return way
        if self.packages == DIST_PACKAGES:
            return Way.DEBIAN
        distribution = self._distribution()
        if distribution is None:
            return Way.SOURCE
        installer = (distribution.read_text("INSTALLER") or "").strip()
        return Way.UV_PIP if installer == "uv" else Way.PIP

    def remedy(self, extra: str) -> str:
        """What adds an extra of openrbu here: a command for a shell; where none does, words."""
        way = self.way
        if way is Way.DEBIAN:
            return _DEBIAN.get(extra, _ELSEWHERE)
        if way is Way.SINGLE_FILE:
            return _ELSEWHERE
        return shlex.join(self._command(way, extra))

    def _command(self, way: Way, extra: str) -> list[str]:
        """The command that installs the packages of an extra beside openrbu."""
        needed = list(self._requirements(extra))
        if way is Way.PIPX:
            return ["pipx", "inject", self.prefix.name, *needed]
        if way is Way.UV_TOOL:  # it forgets what an earlier command had with it
            kept = [each for name in self._extras() for each in self._requirements(name)]
            every = dict.fromkeys([*kept, *needed])
            return ["uv", "tool", "install", *(f"--with={each}" for each in every), self._source()]
        if way is Way.UV_PIP:
            return ["uv", "pip", "install", "--python", self.program, *needed]
        pip = [self.program, "-m", "pip", "install"]
        if self.is_managed:
            pip.append("--break-system-packages")
        if way is Way.SOURCE:
            needed = [f"{self.packages.parent}[{extra}]"]
        return [*pip, *needed]

    def _distribution(self) -> Distribution | None:
        """The metadata of openrbu; None: it was not installed."""
        return next(iter(self._named(PROJECT)), None)

    def _named(self, name: str) -> Iterable[Distribution]:
        """What is installed under this name."""
        from importlib.metadata import distributions  # noqa: PLC0415  (see above)

        return distributions(name=name, path=list(self.path))

    def _requirements(self, extra: str) -> Iterator[str]:
        """The packages of an extra, with the versions that do. What they depend on otherwise, such
        as Python's version, is left out: only a Python that lacks a package asks for it."""
        distribution = self._distribution()
        for line in (distribution.requires if distribution else None) or ():
            requirement, _, condition = line.partition(";")
            if re.search(rf"""extra == ['"]{re.escape(extra)}['"]""", condition):
                yield requirement.strip()

    def _extras(self) -> Iterator[str]:
        """The extras of openrbu whose packages are all here."""
        distribution = self._distribution()
        names = distribution.metadata.get_all("Provides-Extra") if distribution else None
        for extra in names or ():
            packages = (re.split(r"[^\w.-]", each)[0] for each in self._requirements(extra))
            if all(any(self._named(each)) for each in packages):
                yield extra

    def _source(self) -> str:
        """What openrbu was installed from: a clone's directory, a file, an address, or its name."""
        import json  # noqa: PLC0415  (see above)
        from urllib.parse import unquote, urlsplit  # noqa: PLC0415  (see above)

        distribution = self._distribution()
        text = distribution.read_text("direct_url.json") if distribution else None
        if text is None:
            return PROJECT
        origin = json.loads(text)
        url: str = origin["url"]
        if url.startswith("file:"):
            return unquote(urlsplit(url).path)
        version_control = origin.get("vcs_info", {}).get("vcs")
        return f"{version_control}+{url}" if version_control else url


def find_bundled() -> None:
    """Have Python find the packages, too, that a package of openrbu has in it, where it has some.

    The Debian package has: Debian 12 and 13 have no mfusepy and no qemu.qmp. Those that Python
    finds elsewhere come first."""
    directory = Path(__file__).parents[1] / "_bundled"
    if str(directory) not in sys.path and directory.is_dir():
        sys.path.append(str(directory))


def remedy_for(extra: str) -> str:
    """What to do so that this openrbu has one of its extras, such as `fuse`."""
    return Installation.here().remedy(extra)
