"""Debian's packages: what apt knows about them, and how they are downloaded and unpacked.

Nothing is installed, and root is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.lab.programs import ProcessResult, find_program, run
from openrbu.units import KIB

_LIKE_DEBIAN = "the lab's packages are Debian's for amd64; on other systems, fill the cache on a \
Debian system and copy it here"


class FetchError(ObstacleError):
    """A package is not available."""

    kind = "fetch"


@dataclass(frozen=True, slots=True)
class Package:
    """A package that apt knows. `size_bytes`: of the download. `unpacked_bytes`: when unpacked.
    `depends`: the text of its field Depends."""

    name: str
    version: str
    size_bytes: int
    unpacked_bytes: int
    depends: str = ""

    @property
    def directory_name(self) -> str:
        """The name of its directory in the cache, without colons: they separate search paths."""
        return f"{self.name}_{self.version.replace(':', '%3a')}"


@dataclass(frozen=True, slots=True)
class Apt:
    """apt as this computer has it configured, or as the file `config` says beyond that."""

    config: Path | None = None

    def command(self, program: str, *words: str) -> list[str]:
        """The words that run one of apt's programs."""
        # As root, apt would warn that the user _apt can't write in the cache.
        options = ["-o", "APT::Sandbox::User=root"]
        if self.config is not None:
            options += ["-c", str(self.config)]
        return [program, *options, *words]

    def find_packages(self, names: Sequence[str]) -> dict[str, Package]:
        """The packages of these names, each in the version that apt would install.

        :raise FetchError: when apt is not installed, or does not know one of the packages.
        """
        for program in ("apt-cache", "apt-get", "dpkg-deb"):
            if find_program(program) is None:
                raise FetchError(f"{program} is not installed: {_LIKE_DEBIAN}")
        ended = run(self.command("apt-cache", "show", "--no-all-versions", *names))
        known = {}
        for paragraph in ended.out.split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", paragraph, re.MULTILINE))
            if "Package" in fields:
                known[fields["Package"]] = _package(fields)
        for name in names:
            if name not in known:
                raise FetchError(
                    f"apt does not know the package {name}: try apt-get update ({_LIKE_DEBIAN})"
                )
        return known

    def find_newest(self, empty: str, pattern: str) -> Package:
        """The newest package of a kind: the one on which the empty package `empty` depends.

        :raise FetchError: when it depends on no package whose name matches `pattern`.
        """
        depends = self.find_packages([empty])[empty].depends
        found = re.search(pattern + "[^ ,]*", depends)
        if found is None:
            raise FetchError(f"apt's package {empty} does not depend on {pattern}…: {depends!r}")
        return self.find_packages([found[0]])[found[0]]

    def download(self, package: Package, directory: Path) -> Path:
        """Download a package into `directory`; its file.

        :raise FetchError: when apt can't fetch it.
        """
        name = f"{package.name}={package.version}"
        ended = run(self.command("apt-get", "--quiet", "download", name), directory=directory)
        debs = list(directory.glob("*.deb"))
        if ended.status != 0 or not debs:
            raise FetchError(
                f"{package.name} {package.version} can't be fetched: {failure_text(ended)} "
                "(apt-get update may help)"
            )
        return debs[0]


def _package(fields: dict[str, str]) -> Package:
    size, unpacked = int(fields["Size"]), int(fields["Installed-Size"]) * KIB
    depends = fields.get("Depends", "")
    return Package(fields["Package"], fields["Version"], size, unpacked, depends)


def unpack(deb: Path, root: Path) -> None:
    """Unpack a package into `root`, and remove its file.

    :raise FetchError: when it is damaged, or the disk has no room for it.
    """
    ended = run(["dpkg-deb", "-x", deb, root])
    if ended.status != 0:
        raise FetchError(f"{deb.name} can't be unpacked: {failure_text(ended)}")
    deb.unlink()


def failure_text(ended: ProcessResult) -> str:
    """Why a program failed, as it wrote it: apt's first error, else the last line."""
    lines = [line.strip() for line in (ended.err + ended.out).splitlines() if line.strip()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    return (errors or lines[-1:] or [f"it ended with status {ended.status}"])[0]
