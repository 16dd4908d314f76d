"""Which image a tool gets for a machine, and which machines an image is for."""

from __future__ import annotations

from collections.abc import Sequence
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


def make_images(names: Sequence[str], directory: Path) -> dict[str, tuple[Path, BiosVersion]]:
    """Make an image for each of these models: `NAME.hdr` in the directory, with its version, which
    is one newer than the model's.

    :raise OSError: when a file can't be written.
    """
    made = {}
    for name in names:
        model, path = MODELS[name], directory / f"{name}.hdr"
        version = next_version(BiosVersion.parse(model.bios_version))
        data = make_firmware(f"{model.product} BIOS {version}", model.flash_size_bytes)
        image = make_image(data, version=version, systems=[SystemId(model.system_id)])
        path.write_bytes(image)
        made[name] = path, version
    return made


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
