"""The kernel's document, statement by statement, as the `documented` profile keeps it.

Each test names the lines that it is about and says them in other words; paths and commands are the
document's own. All of it goes through `rig.System`, so it can run on whatever serves the files.

The same tests ask which of it holds on a current kernel: the profile `linux`, and a real one. All
does, but for when the firmware entry is there:

- lines 33-38: loading the driver makes three of the five files; `init` makes the other two.
- lines 77-79: the entry goes when a download ends. Each download takes an `init` of its own, and
  after one there is nothing to write -1 to.
- lines 27-28: so the directory `firmware` goes, too.

And reading: a read brings a page at most, so packets are read page by page here.

=======  ===================================================================================
lines    test, or why there is none
=======  ===================================================================================
1-8      what the document is for; the driver does nothing with it
10-17    who uses the driver, and where to read about them
19-20    test_both_ways_of_updating_are_there
20-21    test_a_monolithic_image_lies_in_memory_as_one_piece
21-23    test_packets_lie_in_memory_each_as_one_piece
23-24    test_packets_are_read_back_in_their_order
25       test_unloading_frees_all_memory
27-28    test_a_staged_image_waits_for_whoever_tells_the_bios
30-31    test_unloading_after_staging_loses_the_image
33-38    test_loading_the_driver_makes_five_files
40-41    test_both_ways_of_updating_are_there; which one a BIOS knows is the BIOS's affair
42-43    test_a_monolithic_image_lies_in_memory_as_one_piece
44-45    test_packets_lie_in_memory_each_as_one_piece
47       test_the_type_is_mono_unless_told_otherwise
47-49    test_the_type_can_be_given_when_the_driver_is_loaded
49-50    test_the_type_can_be_changed_later
52-54    test_packets_need_a_packet_size_first
55-62    test_any_file_of_pieces_of_packet_size_is_taken_as_packets; what is in a packet is between
         the application and the BIOS, see the tests of the packet format
63       test_the_steps_bring_packets_as_well
64-66    test_packets_lie_in_memory_each_as_one_piece
67       test_all_packets_come_in_one_operation
69-70    test_a_monolithic_image_is_taken_as_it_is
72-75    test_the_three_steps_download_an_image
77-79    test_the_entry_stays_until_it_is_sent_away
80       test_the_driver_is_in_use_while_the_entry_is_there
81-82    test_writing_a_type_or_init_frees_the_memory
84-85    test_steps_one_and_three_alone_make_the_entry_disappear
86-87    test_init_makes_the_entry_again
88       test_init_leaves_the_type_alone
90-91    test_the_image_can_be_read_back_and_not_written_there
93-95    about a patch of another part of the kernel, long since merged
96-98    test_a_staged_image_waits_for_whoever_tells_the_bios
99       test_unloading_after_staging_loses_the_image
=======  ===================================================================================
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from openrbu.errors import KernelError
from openrbu.units import PAGE_SIZE
from rigs.driver import (
    DEVICE,
    FIRMWARE,
    NewSystem,
    Shell,
    System,
    cat,
    gave_all_back,
    holds_memory,
    pattern,
)

pytestmark = pytest.mark.profiles("documented", "linux")

IMAGE = pattern(300_000)
PACKET_SIZE = 8192
PACKETS = pattern(40 * PACKET_SIZE, seed=2)


@pytest.fixture
def system(new_system: NewSystem) -> System:
    """A machine with the driver loaded as it comes."""
    system = new_system()
    system.load_module()
    return system


@pytest.fixture
def shell(system: System, tmp_path: Path) -> Shell:
    """A shell in a directory with an image and a file of packets in it."""
    (tmp_path / "bios_image.hdr").write_bytes(IMAGE)
    (tmp_path / "packets").write_bytes(PACKETS)
    return Shell(system, tmp_path)


def has_entry(system: System) -> bool:
    return system.exists("/sys/class/firmware/dell_rbu/loading")


def ask_for_entry(shell: Shell) -> None:
    """What brings the entry back (line 87), where it is not there."""
    if not has_entry(shell.system):
        shell("echo init > /sys/devices/platform/dell_rbu/image_type")


def send_entry_away(shell: Shell) -> None:
    """What comes before unloading (line 79), where the entry is there."""
    if has_entry(shell.system):
        shell("echo -1 > /sys/class/firmware/dell_rbu/loading")


def download(shell: Shell, file_name: str = "bios_image.hdr") -> None:
    """The three steps (lines 73-75)."""
    ask_for_entry(shell)
    shell("echo 1 > /sys/class/firmware/dell_rbu/loading")
    shell(f"cp {file_name} /sys/class/firmware/dell_rbu/data")
    shell("echo 0 > /sys/class/firmware/dell_rbu/loading")


def choose_packets(shell: Shell) -> None:
    """Packet mode (lines 50 and 54)."""
    shell("echo packet > /sys/devices/platform/dell_rbu/image_type")
    shell(f"echo {PACKET_SIZE} > /sys/devices/platform/dell_rbu/packet_size")


def staged(system: System) -> bytes | None:
    """What the driver holds, or None for nothing."""
    try:
        return cat(system, "/sys/devices/platform/dell_rbu/data")
    except KernelError as error:
        if error.errno != errno.ENOMEM:
            raise
        return None


def places_held(shell: Shell, pieces: list[bytes]) -> list[set[int]]:
    """Where in memory the driver has each piece: those places of it that are wiped as soon as the
    driver has to let go. Whatever else looks the same is nobody's: a kernel wipes no buffer."""
    system = shell.system
    seen = [set(system.find_in_memory(piece)) for piece in pieces]
    shell("echo mono > /sys/devices/platform/dell_rbu/image_type")
    return [
        places - set(system.find_in_memory(piece))
        for places, piece in zip(seen, pieces, strict=True)
    ]


def packets_of(data: bytes) -> list[bytes]:
    return [data[start : start + PACKET_SIZE] for start in range(0, len(data), PACKET_SIZE)]


def test_both_ways_of_updating_are_there(system: System, shell: Shell) -> None:
    """Lines 19-20 and 40-41: there are two ways, in one piece and in packets."""
    download(shell)
    assert staged(system) == IMAGE
    choose_packets(shell)
    download(shell, "packets")
    assert staged(system) == PACKETS


def test_a_monolithic_image_lies_in_memory_as_one_piece(shell: Shell) -> None:
    """Lines 20-21 and 42-43: pages next to each other hold all of a monolithic image."""
    download(shell)
    assert len(places_held(shell, [IMAGE])[0]) == 1


def test_packets_lie_in_memory_each_as_one_piece(shell: Shell) -> None:
    """Lines 21-23, 44-45 and 64-66: the file is cut at packet_size; each piece lies in one."""
    choose_packets(shell)
    download(shell, "packets")
    for places in places_held(shell, packets_of(PACKETS)):
        assert len(places) == 1


def test_packets_are_read_back_in_their_order(system: System, shell: Shell) -> None:
    """Lines 23-24: the driver keeps the packets in a list, from which they are read back."""
    choose_packets(shell)
    download(shell, "packets")
    data = "/sys/devices/platform/dell_rbu/data"
    for start in range(0, len(PACKETS), PAGE_SIZE):
        assert system.read(data, start, PAGE_SIZE) == PACKETS[start : start + PAGE_SIZE]


@pytest.mark.parametrize("file_name", ["bios_image.hdr", "packets"])
def test_unloading_frees_all_memory(system: System, shell: Shell, file_name: str) -> None:
    """Line 25: unloading gives back everything that the driver had allocated."""
    before = system.free_bytes()
    if file_name == "packets":
        choose_packets(shell)
    download(shell, file_name)
    assert holds_memory(system, before)
    send_entry_away(shell)
    system.unload_module()
    assert gave_all_back(system, before)


def test_a_staged_image_waits_for_whoever_tells_the_bios(
    system: System, shell: Shell, name: str
) -> None:
    """Lines 27-28 and 96-98: it takes an application to tell the BIOS. The driver has no file for
    that, and the image just stays where it is."""
    ask_for_entry(shell)
    files = system.list("/sys/devices/platform/dell_rbu")
    download(shell)
    gone = set() if name == "documented" else {"firmware"}
    assert set(system.list("/sys/devices/platform/dell_rbu")) == set(files) - gone
    send_entry_away(shell)
    assert staged(system) == IMAGE


def test_unloading_after_staging_loses_the_image(system: System, shell: Shell) -> None:
    """Lines 30-31 and 99: not to be done by whoever wants the update. If done, the driver's copy
    is wiped from memory and a driver loaded again knows nothing of it."""
    download(shell)
    places = set(system.find_in_memory(IMAGE))
    send_entry_away(shell)
    system.unload_module()
    assert len(places - set(system.find_in_memory(IMAGE))) == 1
    system.load_module()
    assert staged(system) is None


def test_loading_the_driver_makes_five_files(new_system: NewSystem, name: str) -> None:
    """Lines 33-38: these are there once the driver is loaded, and not before. A current kernel
    makes the first two when it is asked for them."""
    system = new_system()
    paths = [
        "/sys/class/firmware/dell_rbu/loading",
        "/sys/class/firmware/dell_rbu/data",
        "/sys/devices/platform/dell_rbu/image_type",
        "/sys/devices/platform/dell_rbu/data",
        "/sys/devices/platform/dell_rbu/packet_size",
    ]
    assert [path for path in paths if system.exists(path)] == []
    system.load_module()
    assert [path for path in paths if system.exists(path)] == (
        paths if name == "documented" else paths[2:]
    )
    system.write("/sys/devices/platform/dell_rbu/image_type", b"init\n")
    system.settle()
    assert [path for path in paths if system.exists(path)] == paths


def test_the_type_is_mono_unless_told_otherwise(system: System) -> None:
    """Line 47: monolithic is the default."""
    assert system.read("/sys/devices/platform/dell_rbu/image_type") == b"mono\n"


def test_the_type_can_be_given_when_the_driver_is_loaded(new_system: NewSystem) -> None:
    """Lines 47-49: with image_type=packet it starts with packets."""
    system = new_system()
    system.load_module(image_type="packet")
    assert system.read("/sys/devices/platform/dell_rbu/image_type") == b"packet\n"


def test_the_type_can_be_changed_later(system: System, shell: Shell) -> None:
    """Lines 49-50: by writing to image_type."""
    shell("echo packet > /sys/devices/platform/dell_rbu/image_type")
    assert system.read("/sys/devices/platform/dell_rbu/image_type") == b"packet\n"


def test_packets_need_a_packet_size_first(system: System, shell: Shell) -> None:
    """Lines 52-54: without a packet size no packets are taken; with one they are."""
    shell("echo packet > /sys/devices/platform/dell_rbu/image_type")
    download(shell, "packets")
    assert staged(system) is None
    shell(f"echo {PACKET_SIZE} > /sys/devices/platform/dell_rbu/packet_size")
    download(shell, "packets")
    assert staged(system) == PACKETS


def test_any_file_of_pieces_of_packet_size_is_taken_as_packets(
    system: System, shell: Shell, tmp_path: Path
) -> None:
    """Lines 55-62: the user puts packets of header and data back to back in a file. The driver
    doesn't look inside: it takes any bytes, and a last packet that is shorter."""
    made = pattern(3 * PACKET_SIZE + 100, seed=3)
    (tmp_path / "made").write_bytes(made)
    choose_packets(shell)
    download(shell, "made")
    assert staged(system) == made


def test_the_steps_bring_packets_as_well(system: System, shell: Shell) -> None:
    """Line 63: a file of packets goes to the same data file."""
    choose_packets(shell)
    ask_for_entry(shell)
    shell("echo 1 > /sys/class/firmware/dell_rbu/loading")
    shell("cp packets /sys/class/firmware/dell_rbu/data")
    assert cat(system, "/sys/class/firmware/dell_rbu/data") == PACKETS
    shell("echo 0 > /sys/class/firmware/dell_rbu/loading")
    assert staged(system) == PACKETS


def test_all_packets_come_in_one_operation(system: System, shell: Shell, tmp_path: Path) -> None:
    """Line 67: one load is one whole set: it is not added to what an earlier one brought."""
    (tmp_path / "first").write_bytes(PACKETS[:PACKET_SIZE])
    choose_packets(shell)
    download(shell, "first")
    assert staged(system) == PACKETS[:PACKET_SIZE]
    download(shell, "packets")
    assert staged(system) == PACKETS


def test_a_monolithic_image_is_taken_as_it_is(system: System, shell: Shell) -> None:
    """Lines 69-70: a .hdr file is copied to the data file unchanged, and is staged unchanged."""
    download(shell)
    assert staged(system) == IMAGE


def test_the_three_steps_download_an_image(system: System, shell: Shell) -> None:
    """Lines 72-75: begin, copy, end. Nothing is staged before the end."""
    ask_for_entry(shell)
    shell("echo 1 > /sys/class/firmware/dell_rbu/loading")
    assert staged(system) is None
    shell("cp bios_image.hdr /sys/class/firmware/dell_rbu/data")
    assert staged(system) is None
    shell("echo 0 > /sys/class/firmware/dell_rbu/loading")
    assert staged(system) == IMAGE


def test_the_entry_stays_until_it_is_sent_away(system: System, shell: Shell, name: str) -> None:
    """Lines 77-79: -1 takes the entry away; a finished download does not, but on a current kernel
    it does."""
    stays = name == "documented"
    for _ in range(2):
        download(shell)
        assert system.exists("/sys/class/firmware/dell_rbu/loading") == stays
        assert system.exists("/sys/class/firmware/dell_rbu/data") == stays
    ask_for_entry(shell)
    shell("echo -1 > /sys/class/firmware/dell_rbu/loading")
    assert not system.exists("/sys/class/firmware/dell_rbu")
    assert system.list("/sys/class/firmware") == ["timeout"]


def test_the_driver_is_in_use_while_the_entry_is_there(system: System, shell: Shell) -> None:
    """Line 80: before that -1 the driver can't be unloaded, after it it can."""
    ask_for_entry(shell)
    with pytest.raises(KernelError) as refused:
        system.unload_module()
    assert refused.value.errno == errno.EBUSY
    assert system.exists(f"{DEVICE}/data")
    shell("echo -1 > /sys/class/firmware/dell_rbu/loading")
    system.unload_module()
    assert not system.exists(DEVICE)


@pytest.mark.parametrize("file_name", ["bios_image.hdr", "packets"])
@pytest.mark.parametrize("word", ["mono", "packet", "init"])
def test_writing_a_type_or_init_frees_the_memory(
    system: System, shell: Shell, word: str, file_name: str
) -> None:
    """Lines 81-82: any of the three words gives the memory back."""
    before = system.free_bytes()
    if file_name == "packets":
        choose_packets(shell)
    download(shell, file_name)
    assert holds_memory(system, before)
    shell(f"echo {word} > /sys/devices/platform/dell_rbu/image_type")
    assert gave_all_back(system, before)
    assert staged(system) is None


def test_steps_one_and_three_alone_make_the_entry_disappear(system: System, shell: Shell) -> None:
    """Lines 84-85: begin and end without any data lose the entry."""
    ask_for_entry(shell)
    shell("echo 1 > /sys/class/firmware/dell_rbu/loading")
    shell("echo 0 > /sys/class/firmware/dell_rbu/loading")
    assert not system.exists("/sys/class/firmware/dell_rbu")
    assert not system.exists(f"{DEVICE}/firmware")


def test_init_makes_the_entry_again(system: System, shell: Shell) -> None:
    """Lines 86-87: after that, init brings the entry back, and it works."""
    ask_for_entry(shell)
    shell("echo 1 > /sys/class/firmware/dell_rbu/loading")
    shell("echo 0 > /sys/class/firmware/dell_rbu/loading")
    shell("echo init > /sys/devices/platform/dell_rbu/image_type")
    assert system.read(f"{FIRMWARE}/loading") == b"0\n"
    download(shell)
    assert staged(system) == IMAGE


@pytest.mark.parametrize("word", ["mono", "packet"])
def test_init_leaves_the_type_alone(system: System, shell: Shell, word: str) -> None:
    """Line 88: init is no type; the type is what it was."""
    shell(f"echo {word} > /sys/devices/platform/dell_rbu/image_type")
    shell("echo init > /sys/devices/platform/dell_rbu/image_type")
    assert system.read("/sys/devices/platform/dell_rbu/image_type") == f"{word}\n".encode()


def test_the_image_can_be_read_back_and_not_written_there(system: System, shell: Shell) -> None:
    """Lines 90-91: the device's data file is for reading only, and has what was downloaded."""
    download(shell)
    assert cat(system, "/sys/devices/platform/dell_rbu/data") == IMAGE
    assert system.read("/sys/devices/platform/dell_rbu/data", PAGE_SIZE, 8) == IMAGE[4096:4104]
    with pytest.raises(KernelError) as refused:
        system.write("/sys/devices/platform/dell_rbu/data", b"x")
    assert refused.value.errno == errno.EACCES
