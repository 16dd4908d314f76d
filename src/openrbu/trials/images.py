"""Which image a tool gets for a machine, and which machines an image is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openrbu.bios.firmware import make_firmware
from openrbu.errors import UsageError
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.machine.models import DEFAULT_MODEL, MODELS, Model
from openrbu.trials.combinations import Combination


def machines_for(image: Image) -> list[Combination]:
    """The models that an image is for. Where it is for none, a machine of its first system, made
    like the model that is closest.

    :raise UsageError: when it is for no system.
    """
    ids = [system.id for system in image.header.systems]
    if not ids:
        raise UsageError("the image is for no system: name a --model")
    names = [model.name for model in MODELS.values() if model.system_id in ids]
    if names:
        return [Combination(model=name) for name in names]
    size = image.flash_size_bytes
    return [Combination(model=_closest(image), system_id=ids[0], flash_size_bytes=size)]


def _closest(image: Image) -> str:
    """The model whose BIOS has versions of the image's style, and a flash of its size."""

    def distance(model: Model) -> tuple[bool, bool]:
        style = BiosVersion.parse(model.bios_version).style
        differs = style is not image.header.version.style
        return differs, model.flash_size_bytes != image.flash_size_bytes

    default = MODELS[DEFAULT_MODEL]
    return min((default, *MODELS.values()), key=distance).name


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The file that a tool gets, and the version of the image in it."""

    path: Path
    version: BiosVersion


def make_image_for(combination: Combination, directory: Path) -> ImageFile:
    """Make an image for a machine: `NAME.hdr` in the directory, one version newer than the model's.

    :raise OSError: when the file can't be written.
    """
    model = MODELS[combination.model]
    system_id = combination.system_id or model.system_id
    size = combination.flash_size_bytes or model.flash_size_bytes
    version = next_version(BiosVersion.parse(model.bios_version))
    image = make_image(
        make_firmware(f"{model.product} BIOS {version}", size),
        version=version,
        systems=[SystemId(system_id)],
    )
    path = directory / f"{model.name}-{system_id:04x}-{size:x}.hdr"
    path.write_bytes(image)
    return ImageFile(path, version)


def next_version(version: BiosVersion) -> BiosVersion:
    """A newer version of the same style: A06 after A05, 2.1.3 after 2.1.2.

    :raise UsageError: when there is none.
    """
    if version.style is VersionStyle.NEW:
        numbers = [*map(int, version.text.split(".")), 0, 0][:3]
        text = f"{numbers[0]}.{numbers[1]}.{numbers[2] + 1}"
    else:
        number = version.text[1:]
        text = f"{version.text[0]}{int(number) + 1:02}" if number.isdigit() else ""
    newer = BiosVersion.parse(text)
    if not newer.is_newer_than(version):
        raise UsageError(f"there is no version that follows {version}")
    return newer
