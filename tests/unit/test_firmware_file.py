"""An image that is given to the kernel as a file: where it makes no firmware entry, or another file
would be staged instead."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.buffers import Buffer
from openrbu.errors import ObstacleError
from openrbu.hosts.base import read_file
from openrbu.hosts.linux import LinuxHost
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.firmware_class import (
    IGNORE_FALLBACK,
    SEARCH_PATH,
    FirmwareRequests,
    read_firmware_class,
)
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.scan import search
from openrbu.update import firmware_file, report
from openrbu.update.cancelling import cancel
from openrbu.update.driver import _ENTRY_GOES_SECONDS, ENTRY, IMAGE_TYPE, USE_COUNT, RbuDriver
from openrbu.update.firmware_file import given_as_file
from rigs.machines import (
    FLASH_BYTES,
    NEWER,
    PROFILES,
    image,
    image_bytes,
    killed_at_line,
    make,
    running,
    update,
)

MODES = ("mono", "packet")
FOREIGN = "/lib/firmware/dell_rbu"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    """One with today's kernel."""
    with running(make(tmp_path, profile="linux")) as machine:
        yield machine


def ignoring(machine: VirtualMachine) -> VirtualHost:
    """The host of a machine whose kernel makes no firmware entries."""
    host = VirtualHost(machine)
    host.write(IGNORE_FALLBACK, b"1\n")
    return host


def put_file(host: Any, path: str, data: bytes) -> None:
    host.make_file(path)
    host.write(path, data)


def taken_away(host: VirtualHost) -> bool:
    """Whether nothing is left of a file of ours."""
    return not firmware_file.is_left(host) and read_file(host, SEARCH_PATH) == b"\n"


# -- whole updates --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_an_update_is_done_where_the_kernel_ignores_the_fallback(
    tmp_path: Path, profile: str, mode: str, delay: float
) -> None:
    with running(make(tmp_path, profile=profile, entry_delay_s=delay)) as machine:
        host = ignoring(machine)
        outcome = update(host, image(), mode=mode)
        assert (outcome.mode, outcome.tried) == (mode, ())
        assert taken_away(host)
        assert not host.exists(ENTRY)
        host.restart()
        assert machine.last_post is not None
        assert machine.last_post.version_after == NEWER["precision-390"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", [FOREIGN, "/lib/firmware/updates/dell_rbu"])
def test_a_file_of_somebody_is_not_staged_instead(
    machine: VirtualMachine, mode: str, path: str
) -> None:
    host = VirtualHost(machine)
    foreign = b"not an image" * 10_000  # one in RAM, even in a file, would be a danger by itself
    put_file(host, path, foreign)
    update(host, image(), mode=mode)
    assert taken_away(host)
    assert read_file(host, path) == foreign, "it is not ours to remove"
    host.restart()
    assert machine.last_post is not None
    assert machine.last_post.version_after == NEWER["precision-390"]


@pytest.mark.parametrize("mode", MODES)
def test_a_cancelled_update_leaves_nothing_staged_and_no_file(
    machine: VirtualMachine, mode: str
) -> None:
    host = ignoring(machine)
    update(host, image(), mode=mode)
    done = cancel(host)
    assert (done.was_armed, done.was_staged, done.left_staged) == (True, True, False)
    assert taken_away(host)
    assert not RbuDriver(host).has_staged_data
    left = search(machine.ram, flash_size_bytes=FLASH_BYTES)
    assert (left.images, left.packet_sets) == ((), ())


def test_the_search_path_of_somebody_is_put_back(machine: VirtualMachine) -> None:
    host = ignoring(machine)
    host.write(SEARCH_PATH, b"/opt/firmware\n\0")  # a newline may be a part of it
    update(host, image(), mode="mono")
    assert read_file(host, SEARCH_PATH) == b"/opt/firmware\n\n"
    assert not firmware_file.is_left(host)


# -- the file alone -------------------------------------------------------------------------


def test_for_the_block_the_kernel_loads_that_file(machine: VirtualMachine) -> None:
    host = ignoring(machine)
    host.load_module("dell_rbu", {})
    driver, data = RbuDriver(host), b"an image" * 1000
    with given_as_file(host, data):
        driver.request_entry()
        assert b"".join(driver.staged()) == data
    assert taken_away(host)
    driver.request_entry()
    assert not driver.has_staged_data


def test_a_failure_in_the_block_takes_the_file_away_too(machine: VirtualMachine) -> None:
    host = ignoring(machine)
    with pytest.raises(KeyboardInterrupt), given_as_file(host, b"an image"):
        raise KeyboardInterrupt
    assert taken_away(host)


def test_a_search_path_that_somebody_changed_meanwhile_stays(machine: VirtualMachine) -> None:
    host = ignoring(machine)
    with given_as_file(host, b"an image"):
        host.write(SEARCH_PATH, b"/opt/firmware")
    assert read_file(host, SEARCH_PATH) == b"/opt/firmware\n"
    assert not firmware_file.is_left(host)


def test_the_bytes_of_the_file_do_not_stay_in_memory(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    data = image_bytes()
    with given_as_file(host, data):
        assert search(machine.ram, flash_size_bytes=FLASH_BYTES).headers
    assert not search(machine.ram, flash_size_bytes=FLASH_BYTES).headers


@pytest.mark.parametrize(
    "what", [report.read_status, cancel, lambda host: update(host, image(), mode="mono")]
)
def test_what_a_killed_process_left_is_taken_away_by_the_next_command(
    machine: VirtualMachine, what: Callable[[VirtualHost], object]
) -> None:
    host = ignoring(machine)
    killed = given_as_file(host, image_bytes())
    killed.__enter__()  # and nothing after that
    assert firmware_file.is_left(host)
    what(host)
    assert taken_away(host)
    left = search(machine.ram, flash_size_bytes=FLASH_BYTES)
    assert bool(left.headers) == machine.is_armed


# -- what a kernel says ---------------------------------------------------------------------


def test_facts_of_a_virtual_machine(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    assert read_firmware_class(host, "dell_rbu") == FirmwareRequests(True, False, "", 60, ())
    host.write(IGNORE_FALLBACK, b"1")
    host.write(SEARCH_PATH, b"/run/mine")
    put_file(host, FOREIGN, b"x")
    put_file(host, "/run/mine/dell_rbu", b"x")
    facts = read_firmware_class(host, "dell_rbu")
    assert facts == FirmwareRequests(True, True, "/run/mine", 60, ("/run/mine/dell_rbu", FOREIGN))
    assert not facts.uses_fallback


def put(root: Path, path: str, text: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_the_directories_are_searched_in_the_order_of_the_kernel(tmp_path: Path) -> None:
    put(tmp_path, "/proc/sys/kernel/osrelease", "6.1.0\n")
    put(tmp_path, SEARCH_PATH, "/opt/fw\n")
    order = [
        "/opt/fw/dell_rbu",
        "/lib/firmware/updates/6.1.0/dell_rbu",
        "/lib/firmware/updates/dell_rbu",
        "/lib/firmware/6.1.0/dell_rbu",
        "/lib/firmware/dell_rbu",
        "/opt/fw/dell_rbu.xz",
        "/lib/firmware/dell_rbu.zst",
    ]
    for path in order:
        put(tmp_path, path, "x")
    facts = read_firmware_class(LinuxHost(tmp_path), "dell_rbu")
    assert facts.files == tuple(order)
    assert not facts.has_fallback
    assert not facts.uses_fallback


def test_files_are_those_that_the_first_process_sees(tmp_path: Path) -> None:
    put(tmp_path, "/proc/1/root/lib/firmware/dell_rbu", "x")
    put(tmp_path, "/lib/firmware/updates/dell_rbu", "x")
    facts = read_firmware_class(LinuxHost(tmp_path), "dell_rbu")
    assert facts.files == ("/proc/1/root/lib/firmware/dell_rbu",)


def test_without_a_search_path_nothing_can_be_given(tmp_path: Path) -> None:
    with (
        pytest.raises(ObstacleError, match=r"path is missing\): put the image at /lib/firmware"),
        given_as_file(LinuxHost(tmp_path), b"x"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_zeros_in_a_file_take_no_memory(tmp_path: Path) -> None:
    put(tmp_path, SEARCH_PATH, "/before\n")
    (tmp_path / "run").mkdir()
    with given_as_file(LinuxHost(tmp_path), b"image", zeros=1 << 24):
        file = tmp_path / "run/openrbu-firmware/dell_rbu"
        assert file.stat().st_size == 5 + (1 << 24)
        assert file.stat().st_blocks * 512 < 1 << 20
        assert file.read_bytes() == b"image" + bytes(1 << 24)


def test_a_driver_that_is_built_in_is_waited_for_until_it_has_the_file(
    machine: VirtualMachine,
) -> None:
    """Its kernel does not show how often it is in use."""
    host = ignoring(machine)
    host.load_module("dell_rbu", {})
    pauses: list[float] = []

    class BuiltIn(VirtualHost):
        asked = False

        def exists(self, path: str) -> bool:
            return path != USE_COUNT and super().exists(path)

        def write(self, path: str, data: Buffer, offset: int = 0) -> None:
            if data == b"init\n":
                self.asked = True  # it is done later, in the background
            else:
                super().write(path, data, offset)

        def sleep(self, seconds: float) -> None:
            pauses.append(seconds)
            if self.asked:
                self.asked = False
                super().write(IMAGE_TYPE, b"init\n")

    driver = RbuDriver(BuiltIn(machine))
    driver.deliver(b"an image", lambda count: None)
    assert b"".join(driver.staged()) == b"an image"
    assert pauses
    assert taken_away(host)


def test_a_driver_that_is_built_in_is_not_waited_for_where_nothing_shows_its_end(
    machine: VirtualMachine,
) -> None:
    """Zeros alone are not staged, and its kernel does not show how often it is in use."""
    host = ignoring(machine)
    host.load_module("dell_rbu", {})
    pauses: list[float] = []

    class BuiltIn(VirtualHost):
        def exists(self, path: str) -> bool:
            return path != USE_COUNT and super().exists(path)

        def sleep(self, seconds: float) -> None:
            pauses.append(seconds)
            super().sleep(seconds)

    RbuDriver(BuiltIn(machine)).overwrite_freed(1 << 20)
    assert sum(pauses) < 2 * _ENTRY_GOES_SECONDS
    assert taken_away(host)


def test_where_no_file_can_be_made_it_is_told(tmp_path: Path) -> None:
    put(tmp_path, SEARCH_PATH, "\n")
    put(tmp_path, "/run", "in place of a directory")
    with (
        pytest.raises(ObstacleError, match=r"no file can be made .*\(/run/.*: Not a directory"),
        given_as_file(LinuxHost(tmp_path), b"x"),
    ):
        pass


def test_what_another_user_has_put_where_all_users_can_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "/etc/shadow", "of root's")
    theirs = tmp_path / "dev/shm/openrbu-firmware"
    theirs.mkdir(parents=True)
    (theirs / "dell_rbu").symlink_to(tmp_path / "etc/shadow")
    firmware_file.take_away(LinuxHost(tmp_path))
    assert (tmp_path / "etc/shadow").read_text() == "of root's"
    assert (theirs / "dell_rbu").is_symlink()


def test_a_file_is_given_on_a_linux_and_taken_away(tmp_path: Path) -> None:
    put(tmp_path, SEARCH_PATH, "/before\n")
    (tmp_path / "run").mkdir()
    host = LinuxHost(tmp_path)
    data = hashlib.sha256(b"x").digest() * 100_000
    with given_as_file(host, data):
        file = tmp_path / "run/openrbu-firmware/dell_rbu"
        assert file.read_bytes() == data
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
        assert (tmp_path / SEARCH_PATH[1:]).read_bytes()[:22] == b"/run/openrbu-firmware\0"
    assert not firmware_file.is_left(host)


def test_a_kill_at_any_line_is_cleaned_up_by_the_next_command(tmp_path: Path) -> None:
    put(tmp_path, SEARCH_PATH, "/before\n")
    (tmp_path / "run").mkdir()
    host, number, seen = LinuxHost(tmp_path), 0, set[tuple[bytes, bool]]()
    path = tmp_path / SEARCH_PATH[1:]

    def give() -> None:
        path.write_bytes(b"/before\n")  # a plain file keeps what was longer, unlike the parameter
        with given_as_file(host, b"an image"):
            path.write_bytes(read_file(host, SEARCH_PATH).partition(b"\0")[0] + b"\n")

    while killed_at_line(number + 1, ("update/firmware_file",), give):
        number += 1
        path_now = path.read_bytes().partition(b"\0")[0].strip()
        seen.add((path_now, firmware_file.is_left(host)))
        path.write_bytes(path_now + b"\n")
        firmware_file.take_away(host)
        assert path.read_bytes().partition(b"\0")[0].strip() == b"/before"
        assert not firmware_file.is_left(host)
    assert number > 40
    assert {(b"/before", False), (b"/before", True), (b"/run/openrbu-firmware", True)} <= seen
    assert (b"/run/openrbu-firmware", False) not in seen
