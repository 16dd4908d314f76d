"""Whatever is put away is taken out the same, and goes on the same: for each record, for each part.

Records of any values are made from the types of their fields, so that a field that is added later
is in these tests at once.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu.drivers.dcdbas import Dcdbas
from openrbu.drivers.dell_rbu import DellRbu
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.drivers.extents import Block, to_rows
from openrbu.drivers.firmware_class import FirmwareClass
from openrbu.drivers.states import (
    DcdbasState,
    DellRbuState,
    FirmwareImageState,
    FirmwareRequestState,
    FirmwareState,
    XenBalloonState,
)
from openrbu.drivers.sysfs import SysfsTree
from openrbu.drivers.xen_balloon import to_runs
from openrbu.drivers.xen_balloon_profiles import BALLOON_PROFILES, balloon_profile
from openrbu.errors import OpenRbuError
from openrbu.kernel.balloon import XenGuest
from openrbu.kernel.kernel import Kernel
from openrbu.kernel.states import KernelState
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.typed_json import Natural
from openrbu.units import MIB
from openrbu.xen.guest_memory import GuestMemory
from openrbu.xen.hypervisor import Hypervisor
from rigs import state_schema
from rigs.balloon import Guest, Host
from rigs.kept import kept
from rigs.make_state_goldens import BALLOON, DEVICE, ENTRY
from rigs.packed_machine import pieces

# -- records of any values ------------------------------------------------------------------


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of the kind that a field has."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        return st.builds(
            kind, **{field.name: values_of(hints[field.name]) for field in fields(kind)}
        )
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values_of, arguments))
    if origin is tuple:
        return _tuples_of(arguments)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), values_of(arguments[1]), max_size=3)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(),
        str: st.text(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        types.NoneType: st.none(),
        Natural: st.integers(0, 1 << 64),
    }
    return simple[kind]


def _tuples_of(kinds: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if kinds[-1] is Ellipsis:
        return st.lists(values_of(kinds[0]), max_size=4).map(tuple)
    return st.tuples(*map(values_of, kinds))


@pytest.mark.parametrize("kind", state_schema.FILES.values(), ids=list(state_schema.FILES))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_kept_in_a_file_is_read_as_it_was(kind: type, data: st.DataObject) -> None:
    kept(data.draw(values_of(kind)))


# -- each driver: what is taken out says of itself what it was made from --------------------

MEMORY = 64 * MIB
BLOCKS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4096)), max_size=12)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> RamFile:
    return RamFile.create(tmp_path_factory.mktemp("ram") / "ram", pc_regions(MEMORY))


def allocated(pages: BuddyAllocator, wanted: list[tuple[int, int]]) -> list[Block]:
    return [Block(pages.allocate(order), order, size) for order, size in wanted]


@settings(deadline=None)
@given(values_of(XenBalloonState), st.lists(st.integers(0, (1 << 32) - 1), unique=True))
def test_a_balloon_is_what_its_snapshot_says(state: XenBalloonState, frames: list[int]) -> None:
    state = replace(state, frames=to_runs(np.array(frames, np.uint32)))
    balloon = Guest(Host(), frames=4, pages=4).balloon
    balloon.restore(kept(state))
    assert balloon.snapshot() == state
    assert balloon.ballooned().tolist() == frames
    assert balloon.due_s == (-inf if state.due_s == "at once" else state.due_s)


@settings(deadline=None)
@given(values_of(DellRbuState), BLOCKS)
def test_a_dell_rbu_is_what_its_snapshot_says(
    memory: RamFile, state: DellRbuState, wanted: list[tuple[int, int]]
) -> None:
    pages, tree = BuddyAllocator(memory), SysfsTree()
    blocks = allocated(pages, wanted)
    state = replace(state, staged=to_rows(blocks), is_mono=state.is_mono and len(blocks) == 1)
    firmware = FirmwareClass(tree, pages)
    firmware.install(SysfsTree())
    driver = DellRbu(tree, firmware, pages, profile=profile("linux"))
    driver.restore(kept(state))
    assert driver.snapshot() == state
    assert driver.staged_blocks == tuple(blocks)
    assert tree.exists("/class/firmware/dell_rbu/loading") is state.has_entry


@settings(deadline=None)
@given(values_of(DcdbasState), st.integers(0, 3), st.lists(st.integers(0), min_size=3, max_size=3))
def test_a_dcdbas_is_what_its_snapshot_says(
    memory: RamFile, state: DcdbasState, order: int, numbers: list[int]
) -> None:
    pages, tree = BuddyAllocator(memory), SysfsTree()
    driver = Dcdbas(tree, pages, lambda command: command)
    controls = dict(zip(driver.snapshot().host_controls, numbers, strict=True))
    buffer = None if state.buffer is None else (pages.allocate(order), order, 4096)
    state = replace(state, buffer=buffer, host_controls=controls)
    driver.restore(kept(state))
    assert driver.snapshot() == state


@settings(deadline=None)
@given(values_of(FirmwareRequestState), values_of(FirmwareState), st.booleans(), BLOCKS)
def test_a_firmware_class_is_what_its_snapshot_says(
    memory: RamFile,
    request_state: FirmwareRequestState,
    state: FirmwareState,
    ignores: bool,
    wanted: list[tuple[int, int]],
) -> None:
    pages = BuddyAllocator(memory)
    blocks = [block._replace(size_bytes=block.capacity_bytes) for block in allocated(pages, wanted)]
    image = FirmwareImageState(sum(each.size_bytes for each in blocks), to_rows(blocks))
    switches = {"ignore_sysfs_fallback": ignores, "force_sysfs_fallback": not ignores}
    requests = {"x": replace(request_state, image=image)}
    state = replace(state, switches=switches, requests=requests)
    firmware = FirmwareClass(SysfsTree(), pages, delay_s=5.0)
    firmware.install(SysfsTree())
    firmware.request("x", "/devices/x", lambda image: None)
    firmware.restore(kept(state))
    assert firmware.snapshot() == state


# -- a whole kernel: put away half-way, it goes on as one that was not -----------------------

DCDBAS = "/sys/devices/platform/dcdbas"
Operation = tuple[str, Any]

FIRST_PAGES = 18_000
"""Of the other guest: it leaves some 900."""

WRITES: list[Operation] = [
    (f"{DEVICE}/image_type", b"mono"),
    (f"{DEVICE}/image_type", b"packet"),
    (f"{DEVICE}/image_type", b"init"),
    (f"{DEVICE}/packet_size", b"4096"),
    (f"{DEVICE}/packet_size", b"1024"),
    (f"{ENTRY}/loading", b"1"),
    (f"{ENTRY}/loading", b"0"),
    (f"{ENTRY}/loading", b"-1"),
    (f"{ENTRY}/data", b"some of an image" * 999),
    ("/sys/class/firmware/timeout", b"7"),
    ("/sys/module/dell_rbu/parameters/allocation_floor", b"0x2200000"),
    (f"{DCDBAS}/smi_data_buf_size", b"6000"),
    (f"{DCDBAS}/smi_data", b"1IMS" + bytes(48)),
    (f"{DCDBAS}/smi_request", b"1"),
    (f"{DCDBAS}/host_control_action", b"3"),
    (f"{DCDBAS}/host_control_smi_type", b"5"),
    (f"{DCDBAS}/host_control_on_shutdown", b"1"),
    ("/sys/kernel/reboot/mode", b"warm"),
    ("/sys/kernel/reboot/type", b"pci"),
    ("/sys/kernel/reboot/force", b"1"),
    (f"{BALLOON}/max_retry_count", b"2"),
    (f"{BALLOON}/max_retry_count", b"0"),
    (f"{BALLOON}/max_schedule_delay", b"3"),
    (f"{BALLOON}/scrub_pages", b"0"),
    (f"{BALLOON}/target_kb", b"39000"),
    (f"{BALLOON}/target_kb", b"40500"),
]
OTHERS: list[Operation] = [
    ("load", "dell_rbu"),
    ("load", "dcdbas"),
    ("unload", "dell_rbu"),
    ("unload", "dcdbas"),
    *(("read staged at", offset) for offset in (1, 1023, 4096, 5000, 9000)),
    *(("wait", seconds) for seconds in (0.5, 1.0, 5.0)),
    *(("toolstack", kib) for kib in (36_000, 38_000, 40_960)),
    *(("others have", pages) for pages in (FIRST_PAGES, FIRST_PAGES + 500, 28_000)),
    *(("read", path) for path in (f"{DEVICE}/data", f"{ENTRY}/data", f"{DCDBAS}/smi_data")),
]
LOOKS = [
    "/proc/modules", "/proc/buddyinfo", "/sys/class/firmware/timeout",
    *(f"/sys/kernel/reboot/{name}" for name in ("mode", "type", "force")),
    *(f"{BALLOON}/{name}" for name in (
        "target_kb", "info/current_kb", "info/low_kb", "retry_count", "schedule_delay",
        "max_retry_count", "max_schedule_delay", "scrub_pages",
    )),
    *(f"{DCDBAS}/host_control_{name}" for name in ("action", "smi_type", "on_shutdown")),
    f"{DEVICE}/image_type", f"{DEVICE}/packet_size", f"{ENTRY}/loading",
]  # fmt: skip


class Computer:
    """A kernel on Linux's own machine, or as a guest of Xen beside another one."""

    def __init__(self, directory: Path, balloon: str | None, delay_s: float, driver: str) -> None:
        directory.mkdir(exist_ok=True)
        self.ram = RamFile.create(directory / "ram", pc_regions(128 * MIB))
        self.now_s, self._delay_s, self._driver = 1000.0, delay_s, driver
        self._xen: XenGuest | None = None
        if balloon is not None:
            host = Hypervisor.in_memory(self.ram.regions, backing=self.ram)
            self._other = host.create_domain("other", pages=FIRST_PAGES, max_pages=28_000)
            domain = host.create_domain("a", pages=9500, max_pages=10_240)
            self._xen = XenGuest(domain, balloon_profile(balloon))
            self._memory: Any = GuestMemory(domain, self.ram)
        else:
            self._memory = self.ram
        self.kernel = self.fresh()

    def fresh(self, saved: KernelState | None = None) -> Kernel:
        return Kernel(
            self._memory, profile=profile(self._driver), boot_id="0f3c", dmi=None, xen=self._xen,
            entry_delay_s=self._delay_s, now=lambda: self.now_s, smi=lambda command: command,
            saved=saved,
        )  # fmt: skip

    def do(self, operation: Operation) -> object:
        """One operation: what it brings, or what is wrong."""
        what, value = operation
        try:
            return self._do(what, value)
        except OpenRbuError as error:
            return str(error)

    def _do(self, what: str, value: Any) -> object:
        simple: dict[str, Callable[[], object]] = {
            "load": lambda: self.kernel.load_module(value, {}),
            "unload": lambda: self.kernel.unload_module(value),
            "read": lambda: self.kernel.read(value, 0, 5000),
            "read staged at": lambda: self.kernel.read(f"{DEVICE}/data", value, 5000),
            "wait": lambda: self._wait(value),
            "toolstack": lambda: self._set_target_kib(value),
            "others have": lambda: self._give_others(value),
        }
        if what in simple:
            return simple[what]()
        return self.kernel.write(what, value, 0)

    def _wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.kernel.run_due()

    def _set_target_kib(self, kib: int) -> None:
        if self._xen is not None:
            self._xen.domain.set_target_kib(kib)

    def _give_others(self, pages: int) -> None:
        """Have the other guest have so many pages, as far as there are."""
        if self._xen is None:
            return
        frames = np.arange(FIRST_PAGES, 28_000, dtype=np.uint32)
        table = self._other.table[frames]
        self._other.decrease(frames[table != 0xFFFF_FFFF])
        self._other.populate(frames[: pages - FIRST_PAGES])

    def looks(self) -> list[object]:
        """What its files show."""
        return [self.do(("read", path)) for path in LOOKS]


@pytest.mark.parametrize("balloon", [None, *BALLOON_PROFILES])
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    before=st.lists(st.sampled_from([*WRITES, *OTHERS]), max_size=16),
    after=st.lists(st.sampled_from([*WRITES, *OTHERS]), max_size=8),
    delay_s=st.sampled_from([0.0, 2.0]),
    driver=st.sampled_from(["documented", "linux"]),
)
def test_a_kernel_put_away_and_taken_out_goes_on_as_one_that_was_not(
    tmp_path: Path,
    balloon: str | None,
    *,
    before: list[Operation],
    after: list[Operation],
    delay_s: float,
    driver: str,
) -> None:
    one, other = (Computer(tmp_path / name, balloon, delay_s, driver) for name in ("one", "other"))
    for operation in [("load", "dell_rbu"), ("load", "dcdbas"), *before]:
        assert one.do(operation) == other.do(operation)
    saved = kept(one.kernel.snapshot())
    one.kernel = one.fresh(saved)
    assert one.kernel.snapshot() == saved
    assert one.looks() == other.looks()
    for operation in after:
        assert one.do(operation) == other.do(operation)
    assert one.looks() == other.looks()
    assert one.kernel.snapshot() == other.kernel.snapshot()
    assert list(pieces(tmp_path / "one" / "ram")) == list(pieces(tmp_path / "other" / "ram"))
    one.ram.close()
    other.ram.close()
