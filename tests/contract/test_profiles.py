"""How the kernels and their document differ, behaviour by behaviour, on all five profiles.

What it says of `linux` is also tried on a real kernel.
"""

from __future__ import annotations

import errno

import pytest

from openrbu.drivers.dell_rbu_profiles import GARBAGE_PACKET_SIZE, PROFILES, KernelOopsError
from openrbu.errors import KernelError
from openrbu.units import KIB, PAGE_SIZE
from rigs.driver import (
    DEVICE,
    FIRMWARE,
    NewSystem,
    System,
    cat,
    copy_in,
    gave_all_back,
    holds_memory,
    pattern,
    stage,
    stage_packets,
)

ALL = tuple(PROFILES)
LINUX = tuple(name for name in ALL if name != "documented")
SOUND = tuple(name for name in ALL if name != "linux-5.7")

IMAGE = pattern(20_000)
PACKET_SIZE = 4096
PACKETS = pattern(5 * PACKET_SIZE, seed=2)


def ready(new_system: NewSystem, name: str) -> System:
    """The module loaded, and an entry to load through."""
    system = new_system()
    system.load_module()
    if name != "documented":
        system.write(f"{DEVICE}/image_type", b"init\n")
        system.settle()
    assert system.exists(f"{FIRMWARE}/loading")
    return system


def loading(system: System, text: str) -> None:
    system.write(f"{FIRMWARE}/loading", text.encode())
    system.settle()


def test_there_are_five_profiles() -> None:
    assert ALL == ("documented", "linux-2.6.16", "linux-5.7", "linux-6.16", "linux")


@pytest.mark.profiles(*ALL)
def test_only_in_documented_loading_the_module_makes_the_entry(
    new_system: NewSystem, name: str
) -> None:
    system = new_system()
    system.load_module()
    assert system.exists(f"{FIRMWARE}/loading") == (name == "documented")
    system.write(f"{DEVICE}/image_type", b"init\n")
    system.settle()
    assert system.exists(f"{FIRMWARE}/loading")


@pytest.mark.profiles(*ALL)
def test_only_in_documented_the_entry_comes_back_after_a_load(
    new_system: NewSystem, name: str
) -> None:
    system = ready(new_system, name)
    stage(system, IMAGE)
    assert system.exists(f"{FIRMWARE}/loading") == (name == "documented")
    assert cat(system, f"{DEVICE}/data") == IMAGE


@pytest.mark.profiles(*ALL)
def test_a_load_without_data_takes_the_entry_away(new_system: NewSystem, name: str) -> None:
    system = ready(new_system, name)
    loading(system, "1")
    loading(system, "0")
    assert not system.exists(f"{FIRMWARE}/loading")


@pytest.mark.profiles(*ALL)
def test_an_abort_takes_the_entry_away_and_unloading_works(
    new_system: NewSystem, name: str
) -> None:
    system = ready(new_system, name)
    loading(system, "1")
    copy_in(system, f"{FIRMWARE}/data", IMAGE)
    loading(system, "-1")
    assert not system.exists(f"{FIRMWARE}/loading")
    with pytest.raises(KernelError) as nothing:
        system.read(f"{DEVICE}/data")
    assert nothing.value.errno == errno.ENOMEM
    system.unload_module()
    assert not system.exists(DEVICE)


@pytest.mark.profiles(*SOUND)
def test_packets_are_read_back_whole(new_system: NewSystem, name: str) -> None:
    system = ready(new_system, name)
    stage_packets(system, PACKETS, PACKET_SIZE)
    assert cat(system, f"{DEVICE}/data") == PACKETS


@pytest.mark.parametrize("chunk", [1000, PACKET_SIZE, 128 * KIB])
@pytest.mark.profiles("linux-5.7")
def test_linux_5_7_reads_packets_back_without_the_first(new_system: NewSystem, chunk: int) -> None:
    system = ready(new_system, "linux-5.7")
    stage_packets(system, PACKETS, PACKET_SIZE)
    data = b""
    while piece := system.read(f"{DEVICE}/data", len(data), chunk):
        data += piece
    assert data == PACKETS[PACKET_SIZE:] + bytes(PACKET_SIZE)


@pytest.mark.parametrize("path", [f"{DEVICE}/image_type", f"{DEVICE}/packet_size"])
@pytest.mark.profiles(*SOUND)
def test_a_packet_list_can_be_cleared(new_system: NewSystem, name: str, path: str) -> None:
    system = ready(new_system, name)
    packets = pattern(100 * PACKET_SIZE)
    stage_packets(system, packets, PACKET_SIZE)  # a real kernel keeps some pages of the first time
    system.write(path, system.read(path))
    before = system.free_bytes()
    stage_packets(system, packets, PACKET_SIZE)
    assert holds_memory(system, before)
    system.write(path, system.read(path))
    with pytest.raises(KernelError) as nothing:
        system.read(f"{DEVICE}/data")
    assert nothing.value.errno == errno.ENOMEM
    assert gave_all_back(system, before)


@pytest.mark.parametrize("path", [f"{DEVICE}/image_type", f"{DEVICE}/packet_size"])
@pytest.mark.profiles("linux-5.7")
def test_linux_5_7_dies_of_clearing_a_packet_list(new_system: NewSystem, path: str) -> None:
    system = ready(new_system, "linux-5.7")
    system.write(path, system.read(path))  # an empty one is no trouble
    stage_packets(system, PACKETS, PACKET_SIZE)
    with pytest.raises(KernelOopsError):
        system.write(path, system.read(path))


@pytest.mark.profiles("linux-5.7")
def test_linux_5_7_dies_of_unloading_with_packets_staged(new_system: NewSystem) -> None:
    system = ready(new_system, "linux-5.7")
    stage_packets(system, PACKETS, PACKET_SIZE)
    with pytest.raises(KernelOopsError):
        system.unload_module()


@pytest.mark.profiles(*ALL)
def test_what_bad_text_does_to_the_packet_size(new_system: NewSystem, name: str) -> None:
    system = ready(new_system, name)
    system.write(f"{DEVICE}/packet_size", b"4096\n")
    if name == "linux":
        with pytest.raises(KernelError) as refused:
            system.write(f"{DEVICE}/packet_size", b"many\n")
        assert refused.value.errno == errno.EINVAL
    else:
        system.write(f"{DEVICE}/packet_size", b"many\n")
    old_value = name in ("documented", "linux")
    expected = 4096 if old_value else GARBAGE_PACKET_SIZE
    assert system.read(f"{DEVICE}/packet_size") == f"{expected}\n".encode()


@pytest.mark.profiles(*SOUND)
def test_only_linux_keeps_the_packets_when_it_refuses_a_size(
    new_system: NewSystem, name: str
) -> None:
    system = ready(new_system, name)
    stage_packets(system, PACKETS, PACKET_SIZE)
    if name == "linux":
        with pytest.raises(KernelError):
            system.write(f"{DEVICE}/packet_size", b"many\n")
        assert cat(system, f"{DEVICE}/data") == PACKETS
    else:
        system.write(f"{DEVICE}/packet_size", b"many\n")
        with pytest.raises(KernelError):
            system.read(f"{DEVICE}/data")


@pytest.mark.parametrize(
    ("text", "forgiving", "strict"),
    [
        (b"512", 512, 512),
        (b"512\n", 512, 512),
        (b"+512\n", 512, 512),
        (b"010\n", 10, 10),
        (b" 512\n", 512, None),
        (b"512 \n", 512, None),
        (b"512x\n", 512, None),
        (b"0x200\n", 0, None),
        (b"1.5\n", 1, None),
        (b"-0\n", 0, None),
        (b"-1\n", 4096, None),
        (b"4294967294", 4294967294, 4294967294),
        (b"4294967295", 4096, 4096),
        (b"18446744073709551615", 4096, 4096),
        (b"18446744073709551616", 4096, None),
        (b"9" * 5000, 4096, None),
    ],
)
@pytest.mark.profiles(*ALL)
def test_what_counts_as_a_packet_size(
    new_system: NewSystem, name: str, text: bytes, forgiving: int, strict: int | None
) -> None:
    system = ready(new_system, name)
    system.write(f"{DEVICE}/packet_size", b"4096\n")
    expected = strict if name == "linux" else forgiving
    if expected is None:
        with pytest.raises(KernelError) as refused:
            system.write(f"{DEVICE}/packet_size", text)
        assert refused.value.errno == errno.EINVAL
        expected = 4096
    else:
        system.write(f"{DEVICE}/packet_size", text)
    assert system.read(f"{DEVICE}/packet_size") == f"{expected}\n".encode()


@pytest.mark.profiles(*SOUND)
def test_packets_of_several_pages_stay_exact(new_system: NewSystem, name: str) -> None:
    """The last packet is shorter, and so has a smaller block than the others."""
    system = ready(new_system, name)
    image = pattern(3 * 16 * KIB + 10, seed=3)
    stage_packets(system, image, 16 * KIB)
    assert cat(system, f"{DEVICE}/data") == image
    stage_packets(system, PACKETS, PACKET_SIZE)
    assert cat(system, f"{DEVICE}/data") == PACKETS


@pytest.mark.profiles(*LINUX)
def test_linux_takes_data_before_the_load_begins_and_throws_it_away(
    new_system: NewSystem, name: str
) -> None:
    """Seen on Debian's 6.1.192."""
    system = ready(new_system, name)
    system.write(f"{FIRMWARE}/data", b"early")
    assert system.read(f"{FIRMWARE}/data") == b"early"
    assert system.read(f"{FIRMWARE}/loading") == b"0\n"
    loading(system, "1")
    assert system.read(f"{FIRMWARE}/data") == b""


@pytest.mark.profiles("documented")
def test_documented_takes_no_data_before_the_load_begins(new_system: NewSystem) -> None:
    system = ready(new_system, "documented")
    with pytest.raises(KernelError) as refused:
        system.write(f"{FIRMWARE}/data", b"early")
    assert refused.value.errno == errno.ENODEV
    assert system.read(f"{FIRMWARE}/data") == b""


@pytest.mark.profiles(*ALL)
def test_a_kernel_moves_a_page_at_most_in_one_read(new_system: NewSystem, name: str) -> None:
    system = ready(new_system, name)
    stage(system, IMAGE)
    moved = len(IMAGE) if name == "documented" else PAGE_SIZE
    assert system.read(f"{DEVICE}/data", 0, len(IMAGE)) == IMAGE[:moved]
    assert system.read(f"{DEVICE}/data", 100, len(IMAGE)) == IMAGE[100 : 100 + moved]
    assert cat(system, f"{DEVICE}/data") == IMAGE
