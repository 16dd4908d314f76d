"""What the operator asks of an update."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from openrbu.formats.packet import DEFAULT_PACKET_BYTES
from openrbu.formats.version import BiosVersion
from openrbu.update.driver import Mode

if TYPE_CHECKING:
    from openrbu.formats.loading import LoadedImage


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asks for. `mode` None: choose one that fits.

    `reinstall`: the version that the machine runs already is installed again. The `allow_…` take
    an obstacle out of the way: an older version or one of unclear age; an image for another system
    or hardware revision; a system on which RBU is known to be broken. `without_password`: the BIOS
    has no admin password, whatever SMBIOS says. `mend_cmos`: make wrong check values of CMOS right.
    `minimum_version`: what the machine has to run already, as the image's package says;
    `package_systems`: what that is for, where it says so; `package_notes`: what else of it is told.
    `memory_above_4g`: packets may lie above 4 GiB, where the published rules have no BIOS look.
    """

    mode: Mode | None = None
    packet_size_bytes: int = DEFAULT_PACKET_BYTES
    reinstall: bool = False
    allow_downgrade: bool = False
    allow_any_system: bool = False
    allow_known_broken: bool = False
    memory_above_4g: bool = False
    password: str | None = field(default=None, repr=False)
    without_password: bool = False
    minimum_version: BiosVersion | None = None
    package_systems: frozenset[int] = frozenset()
    package_notes: tuple[str, ...] = ()
    mend_cmos: bool = False

    def for_image(self, loaded: LoadedImage) -> Options:
        """These options, and what the package that the image is out of says of its use."""
        manifest = loaded.manifest
        if manifest is None:
            return replace(self, package_notes=loaded.notes)
        return replace(
            self,
            minimum_version=manifest.minimum_version,
            package_systems=frozenset(each.id for each in manifest.systems),
            package_notes=loaded.notes,
        )
