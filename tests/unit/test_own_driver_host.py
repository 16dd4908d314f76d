"""An update with openrbu's own driver, on a machine whose kernel has none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.formats.hdr import Image
from openrbu.hosts.linux import LinuxHost
from openrbu.hosts.own_driver import DriverChoice
from openrbu.units import KIB, MIB
from openrbu.update.arming import arm
from openrbu.update.cancelling import cancel
from openrbu.update.checks.check import Verdict
from openrbu.update.driver import DATA, IMAGE_TYPE, LOADING, PACKET_SIZE, STAGED, RbuDriver
from openrbu.update.flow import perform
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.report import NextRestart, UpdateState, read_status
from openrbu.update.staged_update import StagedChangedError
from rigs.hazards import KERNEL, put, sound_machine
from rigs.killed import killed_at_step
from rigs.machines import image as image_of
from rigs.machines import published
from rigs.own_driver import RamFileHost
from rigs.own_memory import HUGE, free_pages, make_computer, whole_ram

POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"

WITHOUT_END = 200
"""More steps than an update has."""

PAGES = [HUGE * number for number in (9, 8, 7, 10, 11, 12, 13, 14, 15, 16, 3)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A sound machine whose kernel has no dell_rbu."""
    root = sound_machine(tmp_path)
    put(root, f"/lib/modules/{KERNEL}/modules.dep", "kernel/drivers/net/dummy.ko:\n")
    make_computer(root, PAGES, ram_bytes=36 * MIB)
    return root


@contextlib.contextmanager
def opened(root: Path, choice: DriverChoice = "auto") -> Iterator[RamFileHost]:
    with contextlib.closing(RamFileHost(root, choice)) as host:
        yield host


@pytest.fixture
def image() -> Image:
    return image_of()


def test_what_it_has_staged_is_dropped_whatever_it_is(tree: Path) -> None:
    """The bug of some kernels, which crash then, is not its own."""
    with opened(tree) as host:
        driver = RbuDriver(host)
        driver.load("packet")
        driver.set_packet_size(4 * KIB)
        host.write(LOADING, b"1")
        host.write(DATA, bytes(range(256)) * 64)
        host.write(LOADING, b"0")
        assert driver.staged_size_bytes == 16 * KIB
        driver.unload()
        assert not driver.is_loaded


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_an_update_goes_through_without_the_kernels_driver(
    tree: Path, image: Image, mode: str
) -> None:
    options = Options(mode="mono" if mode == "mono" else "packet")
    with opened(tree) as host:
        plan = make_plan(host, image, options)
        (row,) = (check for check in plan.checks if check.name == "driver")
        assert row.verdict is Verdict.HANDLED
        outcome = perform(host, plan)
        assert outcome is not None
        assert outcome.mode == mode
        assert outcome.verified.extents is not None
    with opened(tree) as host:  # another process
        status = read_status(host)
        assert status.is_armed
        assert status.next_restart is NextRestart.UPDATES
        assert status.is_staged_as_armed
        assert status.staged_mode == mode
        assert host.own_rbu is not None
        assert host.own_rbu.staged_regions
        assert cancel(host).changed
        assert not host.exists(IMAGE_TYPE)
    assert sorted(free_pages(tree)) == sorted(PAGES)
    assert not (tree / "ram").read_bytes().strip(b"\0")


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_what_it_has_staged_is_armed_by_another_process(
    tree: Path, image: Image, mode: str
) -> None:
    options = Options(mode="mono" if mode == "mono" else "packet")
    with opened(tree) as host:
        assert perform(host, make_plan(host, image, options), arm=False) is not None
    with opened(tree) as host:
        assert read_status(host).state is UpdateState.STAGED
        outcome = arm(host)
        assert (outcome.driver, outcome.mode, outcome.is_armed) == ("own", mode, True)
    with opened(tree) as host:
        assert read_status(host).next_restart is NextRestart.UPDATES
        assert not arm(host).changed
        assert cancel(host).changed
    assert not (tree / "ram").read_bytes().strip(b"\0")


def test_where_the_driver_was_stopped_since_nothing_is_armed(tree: Path, image: Image) -> None:
    with opened(tree) as host:
        assert perform(host, make_plan(host, image, Options()), arm=False) is not None
        host.driver_for_change.stop()
    with opened(tree) as host, pytest.raises(StagedChangedError, match="was unloaded"):
        arm(host)
    with opened(tree) as host:
        assert not read_status(host).is_armed


def test_an_update_that_is_killed_at_any_step_is_told_and_cancelled(
    tree: Path, image: Image
) -> None:
    options = Options(mode="mono")
    found: list[bool] = []
    for number in range(1, WITHOUT_END):
        was_killed = killed_at_step(
            number,
            lambda: opened(tree),
            lambda host: perform(host, make_plan(host, image, options)),
        )
        with opened(tree) as host:
            status = read_status(host)
            (bios,) = published(image)
            if status.is_armed:
                assert status.next_restart is NextRestart.UPDATES
                assert bios.find(whole_ram(tree)).has(image)
            found.append(bool(status.is_armed))
            cancel(host)
            status = read_status(host)
            assert (status.is_armed, status.staged_size_bytes) == (False, 0)
            assert not host.exists(IMAGE_TYPE)
        assert sorted(free_pages(tree)) == sorted(PAGES)
        assert not (tree / "ram").read_bytes().strip(b"\0")
        if not was_killed:
            break
    assert found == sorted(found)  # not armed up to some step, and armed from then on
    assert found[0] is False
    assert found[-1] is True


def test_a_driver_that_an_operator_started_stays_after_a_cancel(tree: Path, image: Image) -> None:
    with opened(tree) as host:
        host.driver_for_change.load(is_kept=True)
        assert perform(host, make_plan(host, image, Options())) is not None
        assert cancel(host).changed
        assert host.exists(IMAGE_TYPE)
        host.driver_for_change.stop()


def test_without_memory_for_one_piece_the_update_fails_and_leaves_nothing(tree: Path) -> None:
    """Of four huge pages no two lie side by side, and the image has more than one."""
    (tree / "free").write_text("".join(f"{HUGE * number}\n" for number in (3, 5, 7, 9)))
    large = image_of(flash_size_bytes=3 * MIB)
    with opened(tree) as host:
        plan = make_plan(host, large, Options(mode="mono", allow_any_system=True))
        with pytest.raises(UpdateFailedError, match="huge pages were got"):
            perform(host, plan)
        assert not host.exists(IMAGE_TYPE)
    assert sorted(free_pages(tree)) == [HUGE * number for number in (3, 5, 7, 9)]


@pytest.mark.parametrize(
    ("counts", "pool", "verdict"),
    [
        ("60000 9 0 0 0 0 0 0 0 0 0", 0, Verdict.UNKNOWN),  # single pages: compacting may fail
        ("60000 9 0 0 0 0 0 0 0 0 0", 1, Verdict.HANDLED),
        ("60000 9 0 0 0 0 0 0 0 1 0", 0, Verdict.HANDLED),
        ("60000 9 0 0 0 0 0 0 0 0 9", 0, Verdict.FINE),
        ("60 9 0 0 0 0 0 0 0 0 0", 0, Verdict.UNKNOWN),
    ],
)
def test_a_plan_promises_no_huge_pages_where_none_is_whole(
    tree: Path, counts: str, pool: int, verdict: Verdict
) -> None:
    put(tree, "/proc/buddyinfo", f"Node 0, zone DMA32 {counts}\n")
    put(tree, f"{POOL}/free_hugepages", f"{pool}\n")
    large = image_of(flash_size_bytes=3 * MIB)
    with opened(tree) as host:
        plan = make_plan(host, large, Options(mode="mono", allow_any_system=True))
        (row,) = (check for check in plan.checks if check.name == "own_driver")
    assert row.verdict is verdict
    if verdict is Verdict.UNKNOWN:
        assert "restart" in row.advice
        assert ("compacting" in row.advice) == ("60000" in counts)


@pytest.fixture
def served(tree: Path, image: Image) -> Iterator[Path]:
    """What `rbu update` finds under `rbu run`: an image is staged, the driver's files are at their
    paths, and another process has the driver."""
    with opened(tree) as host:
        assert perform(host, make_plan(host, image, Options(mode="mono")), arm=False) is not None
        shown = {
            path: b"".join(host.chunks(path, MIB)) for path in (IMAGE_TYPE, PACKET_SIZE, STAGED)
        }
        locked = host.store.locked
    with locked():
        for path, content in shown.items():
            put(tree, path, content)
        put(tree, "/sys/module/dell_rbu/refcnt", "0\n")
        (tree / "sys/.real").mkdir()
        yield tree


def test_under_run_it_is_known_that_the_driver_is_openrbus_own(served: Path) -> None:
    with opened(served) as host:
        status = read_status(host)
        assert (status.has_own_driver, status.state) == (True, UpdateState.STAGED)
        assert host.own_rbu is not None
        assert status.staged_regions == host.own_rbu.staged_regions != ()
        assert host.own_rbu.largest_block_bytes == 64 * MIB
        assert host.own_rbu.is_kept
        assert arm(host).driver == "own"
        assert read_status(host).next_restart is NextRestart.UPDATES


def test_under_run_nothing_is_armed_whose_pages_have_moved(served: Path) -> None:
    (served / "moved").write_text(" ".join(map(str, PAGES)))
    with opened(served) as host:
        assert read_status(host).moved
        with pytest.raises(UpdateFailedError, match="has moved pages"):
            arm(host)
        assert not read_status(host).is_armed


def test_under_run_modules_are_left_to_its_commands(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr(LinuxHost, "load_module", lambda *words: called.append(words[1]))
    monkeypatch.setattr(LinuxHost, "unload_module", lambda *words: called.append(words[1]))
    with opened(served) as host:
        host.load_module("dell_rbu", {})
        host.unload_module("dell_rbu")
        assert host.own_rbu is not None
        host.own_rbu.reserve(4 * MIB, block_bytes=4 * MIB)  # who serves it takes it
    assert called == ["dell_rbu", "dell_rbu"]


@pytest.mark.parametrize("choice", ["auto", "kernel", "own"])
def test_which_driver_is_used(tmp_path: Path, choice: DriverChoice) -> None:
    """On a kernel that has one to load, and on one that has loaded it."""
    root = sound_machine(tmp_path)
    make_computer(root, PAGES, ram_bytes=36 * MIB)
    with opened(root, choice) as host:
        assert (host.own_rbu is not None) == (choice == "own")
    put(root, IMAGE_TYPE, "mono\n")
    with opened(root, choice) as host:
        assert host.own_rbu is None


def test_a_kernel_that_loads_no_modules_has_none(tree: Path) -> None:
    put(tree, "/proc/sys/kernel/modules_disabled", "1\n")
    with opened(tree) as host:
        assert host.own_rbu is not None
    with opened(tree, "kernel") as host, pytest.raises(ObstacleError):
        host.load_module("dell_rbu", {})


def test_where_memory_can_not_be_read_the_drivers_own_addresses_are_told(
    tree: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under lockdown=confidentiality."""
    monkeypatch.setattr(RamFileHost, "physical_memory", None)
    with opened(tree) as host:
        outcome = perform(host, make_plan(host, image, Options(mode="mono")))
        assert outcome is not None
        assert outcome.verified.extents is None
        assert host.own_rbu is not None
        assert outcome.verified.places == host.own_rbu.staged_regions
        (place,) = outcome.verified.places
    assert whole_ram(tree).read(place.start, place.size_bytes) == image.build()


def test_where_neither_driver_can_be_had_the_plan_says_what_is_missing_for_each(
    tree: Path, image: Image
) -> None:
    put(tree, "/proc/filesystems", "nodev\ttmpfs\n")
    with opened(tree) as host:
        plan = make_plan(host, image, Options())
        assert [each.kind for each in plan.obstacles] == ["driver_absent", "no_hugetlbfs"]
        with pytest.raises(ObstacleError, match="no hugetlbfs"):
            host.load_module("dell_rbu", {})
        assert not host.store.has_record
