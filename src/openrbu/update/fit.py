"""Fit: whether an image is for a machine: damage, the system, the version, and whether RBU is known
to work there.

How it is staged, and whether the BIOS can be armed, is in `plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openrbu.bios.rules import known_flash_size
from openrbu.errors import ExitCode
from openrbu.formats.hdr import Image, SystemId
from openrbu.formats.systems import known_system, title_of
from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.units import human_size
from openrbu.update.obstacle import Obstacle
from openrbu.update.options import Options
from openrbu.update.target import Target


def obstacles(image: Image, target: Target, options: Options) -> Iterator[Obstacle]:
    """Why this image can't be installed on this machine, in whichever mode it is staged."""
    if image.damage is not None:
        yield Obstacle("damaged_image", image.damage, ExitCode.DAMAGED_INPUT)
    if not options.allow_any_system:
        yield from _wrong_machine(image, target)
    if not options.allow_known_broken:
        yield from _known_broken(target)
    if not (options.allow_downgrade or is_same_version(image, target)):
        yield from _wrong_version(image.header.version, target.version)
    minimum = options.minimum_version
    if minimum is not None and minimum.is_newer_than(target.version):
        yield Obstacle(
            "below_minimum_version",
            f"the package is for machines that run {minimum.text} or newer, and this one runs "
            f"{target.bios.version}: install that version first",
        )


def notes(image: Image, target: Target, options: Options) -> Iterator[str]:
    """Notes on that which do not prevent an update."""
    if options.allow_any_system:
        for obstacle in _wrong_machine(image, target):
            yield f"{obstacle.message}: the BIOS refuses it, unless it does not check that"
    systems = options.package_systems
    if systems and target.system_id is not None and target.system_id not in systems:
        yield f"the package's own list of systems does not include {target.system_id:#06x}"
    yield from options.package_notes
    revisions, revision = _revisions_for(image, target), target.hardware_revision
    if any(revisions):
        of_this = f"the image is for {_revisions_text(revisions)} of this system"
        if revision is None:
            yield f"{of_this}; the revision of this machine can't be read here"
        elif revision in revisions:
            yield f"{of_this}; this machine has revision {revision}"
    size, rom = image.flash_size_bytes, target.flash_size_bytes
    is_known = known_flash_size(target.tables) is not None
    if image.is_whole and not is_known and rom is not None and size != rom:
        yield (
            f"the image has {human_size(size)} ({size} bytes) for the flash, and SMBIOS says that "
            f"this machine's ROM has {human_size(rom)} ({rom} bytes): SMBIOS is often wrong there; "
            "a BIOS whose flash is of another size refuses the image and changes nothing"
        )
    if target.system_id is not None:
        known = known_system(target.system_id)
        if known.what and not known.is_broken:  # broken is an obstacle, not a note
            yield f"known about {title_of(SystemId(known.id))}: {known.what}"


def is_same_version(image: Image, target: Target) -> bool:
    """Whether the machine runs the image's version. (Two empty versions may differ: False.)"""
    version = image.header.version
    return bool(version.text) and target.version.same_as(version)


def _revisions_for(image: Image, target: Target) -> list[int]:
    """The hardware revisions of the machine's system that the image is for."""
    return sorted({each.revision for each in image.header.systems if each.id == target.system_id})


def _revisions_text(revisions: Sequence[int]) -> str:
    """`revision 1`, `revisions 0, 1`."""
    word = "revision" if len(revisions) == 1 else "revisions"
    return f"{word} {', '.join(map(str, revisions))}"


def _wrong_machine(image: Image, target: Target) -> Iterator[Obstacle]:
    """Why the image is for another machine."""
    end = ExitCode.NOT_FOR_THIS_MACHINE
    header, system_id, revision = image.header, target.system_id, target.hardware_revision
    if system_id is None:
        yield Obstacle(
            "not_a_dell", f"{target.title} shows no Dell system ID: no image is for it", end
        )
    elif not header.is_for(system_id):
        systems = ", ".join(map(title_of, header.systems)) or "no system"
        yield Obstacle(
            "wrong_system",
            f"the image is for {systems}, not for {target.title} ({system_id:#06x})",
            end,
        )
    elif revision is not None and not header.is_for(system_id, revision):
        listed = _revisions_text(_revisions_for(image, target))
        yield Obstacle(
            "wrong_revision",
            f"the image is for {listed} of this system, and "
            f"{target.title} ({system_id:#06x}) has revision {revision}",
            end,
        )


def _known_broken(target: Target) -> Iterator[Obstacle]:
    if target.system_id is None:
        return
    known = known_system(target.system_id)
    if known.is_broken:
        yield Obstacle(
            "rbu_known_broken",
            f"RBU is known to be broken on {title_of(SystemId(known.id))}: {known.what} "
            "(--allow-known-broken ignores this)",
        )


def _wrong_version(new: BiosVersion, current: BiosVersion) -> Iterator[Obstacle]:
    """Why the version is not an update: it is older, or can't be compared."""
    kind = "downgrade"
    unclear = [
        f"{whose} version '{version.text}' can't be read"
        if version.text
        else f"{whose} version is empty"
        for whose, version in (("the image's", new), ("this machine's", current))
        if version.style is VersionStyle.UNREADABLE
    ]
    if unclear:
        kind, text = "unclear_age", f"the age is not clear: {' and '.join(unclear)}"
    elif new.is_special and not current.is_special:
        text = f"{new.text} is a special build: it never counts as newer than {current.text}"
    elif new.is_newer_than(current):
        return
    else:
        text = f"{new.text} is not newer than {current.text}, which this machine runs"
    yield Obstacle(kind, f"{text} (--allow-downgrade installs it)")
