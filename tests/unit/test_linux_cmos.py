"""The ways to CMOS on a Linux, by trees of files and by a chip behind ports."""

from __future__ import annotations

import datetime as dt
import errno
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.cmos_file import CMOS_FILE_BYTES, CmosFile
from openrbu.cmos import IndexedActivation, needed_indexes
from openrbu.errors import KernelError, ObstacleError
from openrbu.formats.lockdown import LOCKDOWN
from openrbu.formats.tokens import IndexedIoToken, tokens_for_update
from openrbu.hosts.linux import LinuxHost
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.cmos import CLOCK, NVMEM, NVRAM, PORT, ClockHitError, find_cmos
from openrbu.machine.virtual import VirtualMachine
from openrbu.ports import PC_PORTS
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.target import read_target
from rigs.machines import (
    PortsOnly,
    Watched,
    as_nobody,
    in_child,
    kill_self,
    make,
    opened_up,
    running,
)
from rigs.needs import leave_out
from rigs.systems import ALL_REAL, tables_of

FIRST, SECOND = PC_PORTS
NEEDED = range(0x40, 0x79)
NVMEM_BYTES = 242


def put(root: Path, path: str, data: bytes) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def way(root: Path, ports: tuple[int, int] = FIRST) -> tuple[str, tuple[str, ...]]:
    found = find_cmos(LinuxHost(root), ports, NEEDED)
    return found.path, found.not_used


# -- which way ------------------------------------------------------------------------------


def test_the_kernels_own_file_is_the_first_way_and_begins_at_index_14(tmp_path: Path) -> None:
    file = put(tmp_path, NVMEM, bytes(range(14, 256)))
    put(tmp_path, NVRAM, bytes(114))
    put(tmp_path, PORT, bytes(1 << 16))
    found = find_cmos(LinuxHost(tmp_path), FIRST, NEEDED)
    assert (found.path, found.not_used, found.is_locked) == (NVMEM, (), True)
    assert found.cmos.read(0x78) == b"\x78"
    assert found.cmos.read(14, 114) == bytes(range(14, 128))
    found.cmos.write(0x78, 0xA5)
    found.cmos.write(0x0E, 0x5A)
    data = file.read_bytes()
    assert (data[0x78 - 14], data[0]) == (0xA5, 0x5A)
    assert [i for i, byte in enumerate(data, 14) if byte != i] == [14, 0x78]
    assert (tmp_path / "dev/port").read_bytes() == bytes(1 << 16)


def test_without_it_dev_nvram_is_and_else_dev_port_and_it_is_told_why(tmp_path: Path) -> None:
    put(tmp_path, PORT, bytes(1 << 16))
    missing = f"{NVMEM}: No such file or directory"
    assert way(tmp_path) == (
        PORT,
        (missing, f"{NVRAM}: No such file or directory (modprobe nvram)"),
    )
    assert not find_cmos(LinuxHost(tmp_path), FIRST, NEEDED).is_locked
    put(tmp_path, NVRAM, bytes(range(14, 128)))
    assert way(tmp_path) == (NVRAM, (missing,))
    assert find_cmos(LinuxHost(tmp_path), FIRST, NEEDED).cmos.read(0x78) == b"\x78"


def test_a_file_that_ends_before_the_bytes_is_no_way(tmp_path: Path) -> None:
    put(tmp_path, NVMEM, bytes(0x60))
    put(tmp_path, PORT, bytes(1 << 16))
    path, (why, _) = way(tmp_path)
    assert path == PORT
    assert why == f"{NVMEM}: the file is too short"


def test_dev_nvram_whose_check_value_is_wrong_says_eio_and_is_no_way(tmp_path: Path) -> None:
    """A file of this computer that says the same stands in for it: the first page of a process."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvram").symlink_to("/proc/self/mem")
    put(tmp_path, PORT, bytes(1 << 16))
    path, (_, why) = way(tmp_path)
    assert path == PORT
    assert why == f"{NVRAM}: Input/output error"


@pytest.mark.parametrize("ports", [SECOND, (0x74, 0x75)])
def test_ports_that_no_file_has_are_reached_through_dev_port(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    put(tmp_path, NVMEM, bytes(NVMEM_BYTES))
    put(tmp_path, NVRAM, bytes(114))
    file = put(tmp_path, PORT, bytes(1 << 16))
    found = find_cmos(LinuxHost(tmp_path), ports, NEEDED)
    assert found.path == PORT
    assert found.not_used == tuple(
        f"{path}: it does not have these bytes" for path in (NVMEM, NVRAM)
    )
    found.cmos.write(0x68, 0xA5)
    data = file.read_bytes()
    assert (data[ports[0]], data[ports[1]], sum(data)) == (0x68, 0xA5, 0x68 + 0xA5)


def test_indexes_that_the_clock_has_or_that_lie_behind_the_bank_are_in_no_file(
    tmp_path: Path,
) -> None:
    put(tmp_path, NVMEM, bytes(NVMEM_BYTES))
    put(tmp_path, PORT, bytes(1 << 16))
    for needed in (range(0x0D, 0x20), range(0x70, 0x81)):
        assert find_cmos(LinuxHost(tmp_path), FIRST, needed).path == PORT


def test_under_lockdown_the_file_is_the_way_and_without_it_the_lockdown_is_told(
    tmp_path: Path,
) -> None:
    put(tmp_path, LOCKDOWN, b"none [integrity] confidentiality\n")
    put(tmp_path, PORT, b"")
    host = Watched(LinuxHost(tmp_path), refuse_ports)
    with pytest.raises(ObstacleError) as told:
        find_cmos(host, FIRST, NEEDED)
    assert str(told.value) == (
        "CMOS at the ports 0x70 and 0x71 can't be reached from here (it takes root): "
        f"{NVMEM}: No such file or directory; {NVRAM}: No such file or directory (modprobe nvram); "
        f"{PORT}: the kernel is locked down (integrity)"
    )
    put(tmp_path, NVMEM, bytes(NVMEM_BYTES))
    assert find_cmos(host, FIRST, NEEDED).path == NVMEM


def refuse_ports(name: str, arguments: tuple[Any, ...]) -> None:
    """What a kernel that is locked down says."""
    if name in ("chunks", "write") and arguments[0] == PORT:
        raise PermissionError(errno.EPERM, "Operation not permitted", PORT)


def test_who_may_use_none_of_the_files_is_told_so_for_each(tmp_path: Path) -> None:
    for path in (NVMEM, NVRAM, PORT):
        put(tmp_path, path, bytes(NVMEM_BYTES)).chmod(0o600)
    opened_up(tmp_path / "dev/port")
    opened_up(tmp_path / NVMEM[1:])
    if os.geteuid():
        leave_out("only root can become another user")

    def work() -> None:
        with pytest.raises(ObstacleError, match=f"{NVMEM}: Permission denied; .*{PORT}: Perm"):
            find_cmos(LinuxHost(tmp_path), FIRST, NEEDED)

    as_nobody(work)


def test_looking_for_the_way_writes_nothing(tmp_path: Path) -> None:
    files = [put(tmp_path, path, bytes(NVMEM_BYTES)) for path in (NVMEM, NVRAM, PORT)]
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    find_cmos(LinuxHost(tmp_path), FIRST, NEEDED)
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == before


# -- the files in use -----------------------------------------------------------------------


def test_a_file_that_goes_while_it_is_used_is_told_by_its_name(tmp_path: Path) -> None:
    file = put(tmp_path, NVMEM, bytes(NVMEM_BYTES))
    cmos = find_cmos(LinuxHost(tmp_path), FIRST, NEEDED).cmos
    file.unlink()
    for call in (lambda: cmos.read(0x78), lambda: cmos.write(0x78, 1)):
        with pytest.raises(FileNotFoundError) as told:
            call()
        assert str(told.value.filename).endswith(NVMEM)


def test_a_virtual_machine_shows_its_cmos_in_the_kernels_file(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        cmos = (machine.directory / "cmos").read_bytes()
        first = cmos[256 * 0x70 + 14 : 256 * 0x70 + 128]
        second = cmos[256 * 0x72 + 128 : 256 * 0x73]
        assert b"".join(host.chunks(NVMEM, 1000)) == first + second
        host.write(NVMEM, b"\xa5", 0x78 - 14)
        host.write(NVMEM, b"\x5a\x5b\x5c", 0xFE - 14)
        with pytest.raises(KernelError, match="File too large"):
            host.write(NVMEM, b"\x5d", NVMEM_BYTES)
        cmos = (machine.directory / "cmos").read_bytes()
        assert cmos[256 * 0x70 + 0x78] == 0xA5
        assert cmos[256 * 0x72 + 0xFE : 256 * 0x73] == b"\x5a\x5b"
        machine.cmos.out8(0x70, 0x33)
        assert len(b"".join(host.chunks(NVMEM, 1))) == NVMEM_BYTES
        assert machine.cmos.in8(0x70) == 0x33


def test_a_token_is_armed_and_disarmed_without_a_port_on_a_machine_that_is_locked_down(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:
        host = Watched(VirtualHost(machine), refuse_ports)
        token = activation_for(host, read_target(host))
        before = (machine.directory / "cmos").read_bytes()
        for armed in (True, False):
            set_armed(token, armed=armed)
            assert token.is_armed == machine.is_armed == armed
        assert (machine.directory / "cmos").read_bytes() == before


@pytest.mark.skipif(not ALL_REAL, reason="tables of real machines are not here")
def test_the_tokens_of_all_known_machines_but_two_are_in_the_kernels_file(tmp_path: Path) -> None:
    put(tmp_path, NVMEM, bytes(NVMEM_BYTES))
    put(tmp_path, PORT, bytes(1 << 16))
    ways: dict[str, str] = {}
    for name in ALL_REAL:
        tokens = tokens_for_update(tables_of(name))
        if tokens is not None and isinstance(tokens.activate, IndexedIoToken):
            needed = needed_indexes(tokens)
            ways[name] = find_cmos(LinuxHost(tmp_path), tokens.activate.ports, needed).path
    others = {name for name, path in ways.items() if path != NVMEM}
    assert others == {"PE8450", "xps-m1530-A12"}
    assert len(ways) == 22


def test_a_process_that_is_killed_after_it_used_cmos_takes_no_power_from_the_machine(
    tmp_path: Path,
) -> None:
    """One that has changed something of its kernel does."""
    with running(make(tmp_path)) as machine:
        directory = machine.directory

    def work() -> None:
        machine = VirtualMachine(directory)
        host = VirtualHost(machine)
        set_armed(activation_for(host, read_target(host)), armed=True)
        host.write(PORT, b"\x20\x05", 0x70)
        kill_self()

    assert in_child(work) == -signal.SIGKILL
    with VirtualMachine(directory) as again:
        assert (again.is_on, again.is_armed) == (True, True)


# -- ports, beside a clock ------------------------------------------------------------------


class Chip:
    """A clock's chip: CMOS behind ports 0x70 and 0x71, and a kernel's driver that selects a
    register before some writes: before those of the numbers in `select`."""

    def __init__(self, path: Path, select: dict[int, int]) -> None:
        path.write_bytes(bytes(CMOS_FILE_BYTES))
        self.cmos, self._select = CmosFile(path), select
        self._data_writes = 0

    def out8(self, port: int, value: int) -> None:
        if port == 0x71:
            self._data_writes += 1
            if self._data_writes in self._select:
                self.cmos.out8(0x70, self._select[self._data_writes])
        self.cmos.out8(port, value)

    def in8(self, port: int) -> int:
        return self.cmos.in8(port)

    def at(self, index: int) -> int:
        self.cmos.out8(0x70, index)
        return self.cmos.in8(0x71)

    def put(self, index: int, value: int) -> None:
        self.cmos.out8(0x70, index)
        self.cmos.out8(0x71, value)


class Clocked(PortsOnly):
    """A host with that chip, whose clock counts on from 1,000,000 with the system's time, unless
    its year was written."""

    def __init__(self, chip: Chip) -> None:
        super().__init__(LinuxHost(Path("/nowhere")), chip)
        self._chip = chip
        self.shows_clock = True

    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(2_000_000, dt.UTC)

    def chunks(self, path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        if path == CLOCK and self.shows_clock:
            yield f"{1_000_000 + 31_536_000 * self._chip.at(9)}\n".encode()
        else:
            yield from super().chunks(path, size_bytes, offset)


@pytest.fixture
def chip_path(tmp_path: Path) -> Path:
    return tmp_path / "chip"


def cmos_of(chip: Chip, *, shows_clock: bool = True) -> Any:
    host = Clocked(chip)
    host.shows_clock = shows_clock
    return find_cmos(host, FIRST, NEEDED).cmos


class Flickering(Chip):
    """A chip of which some reads bring another byte: those of the numbers in `wrong`."""

    wrong: Collection[int] = ()
    reads = 0

    def in8(self, port: int) -> int:
        self.reads += 1
        return super().in8(port) ^ (0x5A if self.reads in self.wrong else 0)


def test_a_byte_is_what_three_looks_in_a_row_agree_on(chip_path: Path) -> None:
    chip = Flickering(chip_path, {})
    chip.put(0x20, 1)
    chip.put(0x21, 2)
    cmos = cmos_of(chip)
    for wrong, looks in (((), 3), ((2, 4), 5), ((5,), 6)):
        chip.reads, chip.wrong = 0, wrong
        assert cmos.read(0x20, 2) == b"\1\2"
        assert chip.reads == 2 * looks


def test_a_byte_that_never_stays_is_what_the_last_look_brought(chip_path: Path) -> None:
    chip = Flickering(chip_path, {})
    cmos = cmos_of(chip)
    chip.reads, chip.wrong = 0, range(1, 100, 2)
    assert cmos.read(0x20) == b"\x5a"
    assert chip.reads == 17


def test_a_write_that_hits_the_year_is_told(chip_path: Path) -> None:
    chip = Chip(chip_path, {1: 0x09})
    with pytest.raises(ClockHitError, match=r"has hit the clock .* off by \+1261440000 s now: set"):
        cmos_of(chip).write(0x78, 40)
    chip = Chip(chip_path, {1: 0x09})
    cmos_of(chip, shows_clock=False).write(0x78, 40)  # nothing says so then
    assert chip.at(9) == 40


def test_a_write_that_hits_the_clocks_format_is_put_right(chip_path: Path) -> None:
    chip = Chip(chip_path, {1: 0x0B, 3: 0x0A})
    chip.put(0x0A, 0x26)
    chip.put(0x0B, 0x02)
    cmos = cmos_of(chip)
    cmos.write(0x78, 0xFD)
    assert (chip.at(0x0B), chip.at(0x78)) == (0x02, 0)
    cmos.write(0x78, 0x40)
    assert (chip.at(0x0A), chip.at(0x0B), chip.at(0x78)) == (0x26, 0x02, 0)
    cmos.write(0x78, 0x40)
    assert (chip.at(0x0A), chip.at(0x0B), chip.at(0x78)) == (0x26, 0x02, 0x40)


def test_the_clocks_interrupts_are_the_kernels_own(chip_path: Path) -> None:
    """Bits that a kernel sets at any time are left as they are."""
    chip = Chip(chip_path, {})
    cmos = cmos_of(chip)
    chip.put(0x0B, 0x72)
    cmos.write(0x78, 0x40)
    assert chip.at(0x0B) == 0x72


def test_a_token_is_set_through_ports_although_writes_go_astray(chip_path: Path) -> None:
    """One hits another setting, one its check value."""
    tokens = tokens_for_update(tables_of("made-390"))
    assert tokens is not None
    chip = Chip(chip_path, {4: 0x45, 6: 0x6E})
    token = IndexedActivation(cmos_of(chip), tokens, None)
    token.repair()
    before = [chip.at(index) for index in range(14, 128)]
    chip._data_writes = 3
    token.arm()
    assert (token.is_armed, token.wrong_checks) == (True, ())
    assert {i for i in range(14, 128) if chip.at(i) != before[i - 14]} == {0x78}
