"""The options of an update."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

from openrbu.errors import UsageError
from openrbu.formats.packet import DEFAULT_PACKET_BYTES
from openrbu.formats.version import BiosVersion
from openrbu.update.driver import Mode

if TYPE_CHECKING:
    from openrbu.formats.loading import LoadedImage
    from openrbu.policy.model import Policy


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an update. `mode` None: choose one that fits.

    `reinstall`: install the version again that the machine runs already. Each `allow_…` ignores an
    obstacle: an older version, or one whose age is not clear; an image for another system or
    hardware revision; a system on which RBU is known to be broken. `without_password`: the BIOS has
    no admin password, even where SMBIOS says that it has one. `mend_cmos`: repair wrong check
    values of CMOS. `allow_any_restart`: arm the BIOS even if the restart may clear memory, and the
    update with it. `policy`: what the operator allows, which the update must be a step of.
    `memory_above_4g`: packets may be above 4 GiB, where a BIOS with the published
    rules does not search.

    :raise UsageError: when there is no such mode, or with both a password and `without_password`.

    From the image's package: `minimum_version`, which the machine has to run already;
    `package_systems`, the IDs of the systems that it names; `package_notes`, to be shown.
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
    allow_any_restart: bool = False
    drop_caches: bool = False
    policy: Policy | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.password is not None and self.without_password:
            raise UsageError("a password and without_password don't go together")
        if self.mode not in (None, *get_args(Mode)):
            known = " or ".join(repr(each) for each in get_args(Mode))
            raise UsageError(f"{self.mode!r} is not a way to stage an image: {known}, or None")

    def for_image(self, loaded: LoadedImage) -> Options:
        """These options, with the requirements of the package that the image was in."""
        manifest = loaded.manifest
        if manifest is None:
            return replace(self, package_notes=loaded.notes)
        return replace(
            self,
            minimum_version=manifest.minimum_version,
            package_systems=frozenset(each.id for each in manifest.systems),
            package_notes=loaded.notes,
        )
