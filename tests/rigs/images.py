"""BIOS images and headers: made ones, and the vendor's where they are known (see `rigs.systems`).

The vendor's lie beside the checkout and are not part of it.
"""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

import pytest

from openrbu.formats.hdr import HEADER_SIZE_BYTES, SystemId, make_image
from openrbu.formats.image_check import ImageState
from openrbu.formats.version import BiosVersion
from openrbu.units import MIB
from rigs.systems import DATA

_WHOLE, _HEADERS = DATA / "hdr-whole", DATA / "hdr"

_MISC_FLAGS = 51
_NOTEBOOK = (SystemId(0x0152),)
_SERVERS = tuple(SystemId(number) for number in (0x01B1, 0x01B2, 0x01B3, 0x01B8))


def _image(version: str, systems: tuple[SystemId, ...], *, is_changed: bool = False) -> bytes:
    """An image with 1 MiB of data. `is_changed`: a byte of its header was changed afterwards."""
    data = random.Random(f"{version} {systems}").randbytes(MIB)
    image = bytearray(make_image(data, version=BiosVersion.parse(version), systems=systems))
    image[_MISC_FLAGS] ^= is_changed
    return bytes(image)


_MADE = {
    "made-server": _image("0.2.8", _SERVERS),
    "made-server-changed": _image("0.2.8", _SERVERS, is_changed=True),
    "made-notebook": _image("A10", _NOTEBOOK),
}

_REAL_STATES = {
    "MLB-000208.HDR": ImageState.WHOLE,
    "MLB-000209.HDR": ImageState.WHOLE,
    "MLB-990209.HDR": ImageState.HEADER_CHANGED,
    "system_bios_0x1028_0x0152_version_a09.hdr": ImageState.WHOLE,
    "system_bios_0x1028_0x0152_version_a10.hdr": ImageState.WHOLE,
    "system_bios_0x1028_0x0152_version_p09.hdr": ImageState.HEADER_CHANGED,
    "system_bios_0x1028_0x0152_version_x09.hdr": ImageState.HEADER_CHANGED,
}

IMAGE_STATES = {
    "made-server": ImageState.WHOLE,
    "made-server-changed": ImageState.HEADER_CHANGED,
    "made-notebook": ImageState.WHOLE,
    **(_REAL_STATES if _WHOLE.is_dir() else {}),
}
"""The state of each image with 1 MiB of data, by its name."""

each_image = pytest.mark.parametrize(("name", "state"), IMAGE_STATES.items())

each_notebook_a10 = pytest.mark.parametrize(
    "name",
    [
        name
        for name in ("made-notebook", "system_bios_0x1028_0x0152_version_a10.hdr")
        if name in IMAGE_STATES
    ],
)
"""Run a test once for each image A10 for a Latitude D500."""


def image_named(name: str) -> bytes:
    """The bytes of an image of `IMAGE_STATES`."""
    return _MADE[name] if name in _MADE else gzip.decompress((_WHOLE / f"{name}.gz").read_bytes())


def _facts(header_version: str, version: str, systems: tuple[SystemId, ...]) -> dict[str, Any]:
    return {
        "header_length": HEADER_SIZE_BYTES,
        "header_version": header_version,
        "bios_version": version,
        "quick_check": "Copyright 2005 Dell Inc.",
        "systems": [{"id": f"{each.id:#06x}", "revision": each.revision} for each in systems],
        "data_size": 0,
    }


def headers() -> dict[str, tuple[bytes, dict[str, Any]]]:
    """By name: a header without data, and what is known of it; `error` if it is damaged."""
    found: dict[str, tuple[bytes, dict[str, Any]]] = {
        "made-server": (_MADE["made-server"][:84], _facts("2.1", "0.2.8", _SERVERS)),
        "made-notebook": (_MADE["made-notebook"][:84], _facts("1.0", "A10", _NOTEBOOK)),
        "made-bad": (b"$RBX" + _MADE["made-server"][4:84], {"error": "no $RBU"}),
    }
    if _HEADERS.is_dir():
        known = json.loads((_HEADERS / "expected.json").read_text())
        found |= {name: ((_HEADERS / name).read_bytes(), known[name]) for name in known}
    return found
