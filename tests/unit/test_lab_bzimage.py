"""The kernel inside of a bzImage, as the boot protocol says where it is."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from openrbu.lab import bzimage as bzimage_module
from openrbu.lab.bzimage import unpack, unpacked
from rigs.lab import Lab
from rigs.machines import as_nobody, opened_up

KERNEL = b"\x7fELF and all of a kernel"


def bzimage(payload: bytes, *, setup_sectors: int = 3, magic: bytes = b"HdrS") -> bytes:
    image = bytearray((setup_sectors + 1) * 512)
    image[0x1F1] = setup_sectors
    image[0x202:0x206] = magic
    image[0x248:0x250] = (64).to_bytes(4, "little") + len(payload).to_bytes(4, "little")
    return bytes(image) + bytes(64) + payload + b"more"


def test_the_kernel_is_what_is_packed_with_xz() -> None:
    packed = lzma.compress(KERNEL) + len(KERNEL).to_bytes(4, "little")
    assert unpack(bzimage(packed)) == KERNEL
    assert unpack(bzimage(packed, setup_sectors=27)) == KERNEL


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"no bzImage",
        bzimage(lzma.compress(KERNEL), magic=b"HDRS"),
        bzimage(b"packed in another way"),
        bzimage(lzma.compress(b"no ELF file")),
    ],
)
def test_what_is_no_such_kernel_is_left_alone(image: bytes, tmp_path: Path) -> None:
    vmlinuz = tmp_path / "vmlinuz-1"
    vmlinuz.write_bytes(image)
    assert unpack(image) is None
    assert unpacked(vmlinuz) == vmlinuz
    assert list(tmp_path.iterdir()) == [vmlinuz]


def test_what_unpacks_to_far_more_than_a_kernel_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bzimage_module, "_MOST_UNPACKED_BYTES", 1000)
    assert unpack(bzimage(lzma.compress(KERNEL + bytes(900)))) is not None
    assert unpack(bzimage(lzma.compress(KERNEL + bytes(1000)))) is None


def test_it_is_unpacked_once(tmp_path: Path) -> None:
    vmlinuz = tmp_path / "vmlinuz-1"
    vmlinuz.write_bytes(bzimage(lzma.compress(KERNEL)))
    place = unpacked(vmlinuz)
    assert (place.name, place.read_bytes()) == ("vmlinux-1", KERNEL)
    place.write_bytes(b"\x7fELF as it is")
    assert unpacked(vmlinuz).read_bytes() == b"\x7fELF as it is"


def test_in_a_cache_of_another_user_the_image_itself_is_started(tmp_path: Path) -> None:
    vmlinuz = tmp_path / "vmlinuz-1"
    vmlinuz.write_bytes(bzimage(lzma.compress(KERNEL)))
    tmp_path.chmod(0o555)
    opened_up(tmp_path)

    def work() -> None:
        assert unpacked(vmlinuz) == vmlinuz

    as_nobody(work)
    assert list(tmp_path.iterdir()) == [vmlinuz]
    tmp_path.chmod(0o755)


@pytest.mark.lab
def test_debians_kernel_is_one(lab: Lab) -> None:
    kernel = unpack(lab.software.vmlinuz.read_bytes())
    assert kernel is not None
    assert b"Linux version " + lab.software.release.encode() in kernel
