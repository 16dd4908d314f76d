"""Which image: of all that a directory or a package has, the newest that fits a machine.

What is passed over is told with its reason, so that a choice can be checked. Where a choice would
be a guess it is an error: versions of two styles, and two different images of one version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import DamagedInputError, NotForThisMachineError, OpenRbuError, UsageError
from openrbu.formats.hdr import Header, sha256_of
from openrbu.formats.loading import LoadedImage, load_images, only_image
from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.system.files import read_input
from openrbu.update.target import Target

if TYPE_CHECKING:
    from openrbu.policy.deciding import Step

MAX_FILES = 10_000
"""More are no directory of images, but one that was named by mistake."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that was found, without its data. `found_at`: where it is in a package. `sha256`: of
    the image, as hexadecimal digits. `minimum_version`: what a machine has to run already."""

    path: Path
    found_at: str | None
    header: Header
    sha256: str
    damage: str | None = None
    minimum_version: BiosVersion | None = None

    @property
    def version(self) -> BiosVersion:
        return self.header.version

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"{self.path}: {self.found_at}" if self.found_at else str(self.path)


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A file, or an image, that was not chosen, and `why`. `version` None: it has no image."""

    path: Path
    found_at: str | None
    version: str | None
    why: str


@dataclass(frozen=True, slots=True)
class FoundImages:
    """What is at a path. `only`: the image of a file with just one, which is used whatever it is; a
    choice is made of anything else. `others`: files without an image, and why they have none."""

    path: Path
    only: LoadedImage | None
    candidates: tuple[Candidate, ...] = ()
    others: tuple[PassedOver, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """The image that was chosen, where it is, `why`, and what was not chosen. `is_given`: there was
    no choice, because the file has just one image."""

    image: LoadedImage
    path: Path
    why: str
    passed_over: tuple[PassedOver, ...] = ()
    is_given: bool = False


# -- finding --------------------------------------------------------------------------------


def find_images(path: Path) -> FoundImages:
    """The images in a file, or in all files below a directory.

    :raise UsageError: when it can't be read, or a directory has over `MAX_FILES` files.
    :raise DamagedInputError | NotForRbuError | ObstacleError: when a file has no image.
    """
    if path.is_dir():
        return _in_directory(path)
    only = only_image(path)
    if only is not None:
        return FoundImages(path, only)
    return FoundImages(path, None, tuple(_candidates(path)))


def _in_directory(directory: Path) -> FoundImages:
    candidates: list[Candidate] = []
    others: list[PassedOver] = []
    for path in _files(directory):
        try:
            candidates += _candidates(path)
        except OpenRbuError as error:
            others.append(PassedOver(path, None, None, str(error)))
    return FoundImages(directory, None, tuple(candidates), tuple(others))


def _files(directory: Path) -> list[Path]:
    """All files below a directory, sorted. Links to directories are not followed.

    :raise UsageError: when a directory can't be read, or there are too many files.
    """
    files: list[Path] = []

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename} can't be read: {error.strerror}")

    for folder, _, names in os.walk(directory, onerror=refuse):
        files += [path for name in names if (path := Path(folder, name)).is_file()]
        if len(files) > MAX_FILES:
            raise UsageError(
                f"{directory} has over {MAX_FILES:,} files: name a directory with images only"
            )
    return sorted(files)


def _candidates(path: Path) -> Iterator[Candidate]:
    """The images in a file.

    :raise OpenRbuError: as `load_images`.
    """
    for each in load_images(read_input(path)).images:
        yield _candidate(path, each)


def _candidate(path: Path, loaded: LoadedImage) -> Candidate:
    manifest = loaded.manifest
    return Candidate(
        path,
        loaded.found_at,
        loaded.image.header,
        sha256_of(loaded.image),
        loaded.damage,
        None if manifest is None else manifest.minimum_version,
    )


# -- choosing -------------------------------------------------------------------------------


def choose(found: FoundImages, target: Target, step: Step | None = None) -> Choice:
    """The newest of the images that fits the machine; with a `step` of a policy the one for that.
    A file with one image is that image, whatever it is for: a plan says what is wrong with it.

    :raise NotForThisMachineError: when none fits.
    :raise UsageError: when a choice would be a guess.
    :raise DamagedInputError: when a file has changed since it was looked at.
    """
    if found.only is not None:
        why = "it is the only image in the file"
        return Choice(found.only, found.path, why, is_given=True)
    fitting: list[Candidate] = []
    passed = list(found.others)
    for each in found.candidates:
        why_not = _why_not(each, target, step)
        if why_not:
            passed.append(PassedOver(each.path, each.found_at, each.version.text, why_not))
        else:
            fitting.append(each)
    if not fitting:
        raise NotForThisMachineError(_none_fits(found, target, step, passed))
    newest = _newest(fitting)
    for each in fitting:
        if each is not newest:
            why_not = f"{newest.version} is newer"
            if each.version.same_as(newest.version):
                why_not = f"it is the same image as {newest.place}"
            passed.append(PassedOver(each.path, each.found_at, each.version.text, why_not))
    why = f"{newest.version} is the newest of {len(found.candidates)} images that fits"
    if step is not None:
        why = f"{newest.version} is the policy's next step ({step.by})"
    elif len(found.candidates) == 1:
        why = "it is the only image, and fits"
    passed.sort(key=lambda each: (each.path, each.found_at or ""))
    return Choice(_read_again(newest), newest.path, why, tuple(passed))


def _why_not(each: Candidate, target: Target, step: Step | None) -> str:
    """Why an image does not fit; empty: it does."""
    if each.damage is not None:
        return each.damage
    if another := _another_system(each, target):
        return another
    if each.version.style is VersionStyle.UNREADABLE:
        return "its version can't be read"
    if step is not None:
        return _why_not_the_step(each, step)
    minimum = each.minimum_version
    if minimum is not None and minimum.is_newer_than(target.version):
        return f"its package is for machines that run {minimum} or newer"
    return ""


def _another_system(each: Candidate, target: Target) -> str:
    """That an image is for other machines; empty: it is for this one."""
    system_id, revision = target.system_id, target.hardware_revision
    if system_id is None or not each.header.is_for(system_id):
        systems = ", ".join(f"{system.id:#06x}" for system in each.header.systems) or "no system"
        return f"it is for {systems}"
    if each.header.is_for(system_id, revision):
        return ""
    return f"it is not for revision {revision} of this system"


def _why_not_the_step(each: Candidate, step: Step) -> str:
    if not each.version.same_as(step.version):
        return f"the policy's next step is {step.version}"
    if step.sha256 is not None and each.sha256 != step.sha256:
        return "its SHA-256 is not the one of the policy"
    return ""


def _none_fits(
    found: FoundImages, target: Target, step: Step | None, passed: Sequence[PassedOver]
) -> str:
    """The error's text: what was looked for, and of the first few what is wrong with them."""
    title = target.title
    if target.system_id is not None:
        title = f"{title} ({target.system_id:#06x})"
    wanted = "no image" if step is None else f"no image of {step.version}, the policy's next step,"
    told = [f"{each.path.name}: {each.why}" for each in passed[:3]]
    more = f"; {len(passed) - 3} more" if len(passed) > 3 else ""
    looked = f" ({'; '.join(told)}{more})" if told else ""
    return f"{found.path} has {wanted} for {title}{looked}"


def _newest(fitting: Sequence[Candidate]) -> Candidate:
    """The newest; of the same image in several places the first.

    :raise UsageError: when it is not known which is newer, or two that are not the same have the
        newest version.
    """
    from openrbu.policy.model import are_comparable  # noqa: PLC0415  (start-up time)

    newest = fitting[0]
    for each in fitting[1:]:
        if not are_comparable(each.version, newest.version):
            raise UsageError(
                f"{newest.version} ({newest.place}) and {each.version} ({each.place}) are versions "
                "of two styles, and which is newer would be a guess: name the image"
            )
        if each.version.is_newer_than(newest.version):
            newest = each
    for each in fitting:
        if each.version.same_as(newest.version) and each.sha256 != newest.sha256:
            raise UsageError(
                f"{newest.place} and {each.place} are two different images of {newest.version}: "
                "name the one to install"
            )
    return newest


def _read_again(chosen: Candidate) -> LoadedImage:
    """The image of a candidate, with its data.

    :raise DamagedInputError: when it is not there any more.
    """
    file = load_images(read_input(chosen.path))
    for each in file.images:
        if each.found_at == chosen.found_at and sha256_of(each.image) == chosen.sha256:
            return LoadedImage(
                each.image, each.found_at, each.manifest, each.end_is_known, file.notes
            )
    raise DamagedInputError(f"{chosen.place} was changed while it was looked at")
