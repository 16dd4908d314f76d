"""CMOS behind its ports, and the tokens and check values in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu.bios.activation import bios_activation
from openrbu.bios.cmos_file import CMOS_FILE_BYTES, CmosFile, cmos_file_bytes
from openrbu.bios.nvram import Nvram, NvramFile
from openrbu.bios.power import PowerRail
from openrbu.cmos import (
    IndexedActivation,
    NotKeptError,
    StrayWriteError,
    banks_of,
    check_value_is_right,
    expected_check_bytes,
    responds,
    set_token,
    store,
    token_is_active,
    write_check_value,
)
from openrbu.errors import MachineError, PowerCutError
from openrbu.formats import dell, smbios
from openrbu.formats.smbios import Structure, Tables
from openrbu.formats.tokens import (
    ACTIVATE,
    CANCEL,
    CheckRange,
    CheckType,
    IndexedIoToken,
    UpdateTokens,
    check_value,
    make_indexed_io,
    tokens_for_update,
)
from openrbu.ports import PC_BANKS, PC_PORTS, IoPorts, PortCmos
from rigs.boards import make_tables
from rigs.systems import NAMES, cmos_of, tables_of

INSIDE, OUTSIDE = 0x50, 0x78
NO_CHECK = CheckRange(0, 0, 0, 0)
CHECKS = [CheckRange(kind, 0x40, 0x5B, 0x6D) for kind in CheckType]


@dataclass(frozen=True)
class InCmos(UpdateTokens):
    """Both tokens are in CMOS."""

    activate: IndexedIoToken
    cancel: IndexedIoToken


def pair(location: int, check: CheckRange) -> InCmos:
    """Activate and cancel at a location of the bank at port 0x70."""
    return InCmos(
        IndexedIoToken(ACTIVATE, 0x70, 0x71, location, 0xBF, 0x40, check, 0xD401),
        IndexedIoToken(CANCEL, 0x70, 0x71, location, 0xBF, 0x00, check, 0xD401),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cmos"
    path.write_bytes(bytes(range(256)) * (CMOS_FILE_BYTES // 256))
    return path


def switch(ports: CmosFile, tokens: UpdateTokens, *, checks_cmos: bool = True) -> IndexedActivation:
    return IndexedActivation(bank(ports), tokens, None, checks_cmos=checks_cmos)


def bank(ports: IoPorts, pair: tuple[int, int] = PC_PORTS[0]) -> PortCmos:
    return PortCmos(ports, pair)


def made_right(path: Path, tokens: InCmos) -> None:
    """Not armed, and the check value right."""
    ports = CmosFile(path)
    set_token(bank(ports), tokens.cancel, None)
    write_check_value(bank(ports), tokens.activate, None)


def test_a_byte_stored_through_the_ports_is_read_back_and_lasts(path: Path) -> None:
    ports = CmosFile(path)
    ports.out8(0x70, 0x12)
    assert ports.in8(0x71) == 0x12
    ports.out8(0x71, 0xA5)
    assert ports.in8(0x71) == 0xA5
    again = CmosFile(path)
    again.out8(0x70, 0x12)
    assert again.in8(0x71) == 0xA5


def test_each_bank_has_its_own_index_and_its_own_bytes_at_256_times_the_port(path: Path) -> None:
    ports = CmosFile(path)
    ports.out8(0x70, 0x10)
    ports.out8(0x72, 0x20)
    ports.out8(0x71, 1)
    ports.out8(0x73, 2)
    assert (ports.in8(0x71), ports.in8(0x73)) == (1, 2)
    data = path.read_bytes()
    assert data[256 * 0x70 + 0x10] == 1
    assert data[256 * 0x72 + 0x20] == 2
    assert len(data) == CMOS_FILE_BYTES


def test_a_port_with_nothing_behind_it_floats_high_and_takes_nothing(path: Path) -> None:
    before = path.read_bytes()
    ports = CmosFile(path)
    for port in (0x60, 0x74, 0x75, 0xB2):
        ports.out8(port, 0)
        assert ports.in8(port) == 0xFF
    assert path.read_bytes() == before


M1530 = make_indexed_io(
    handle=0xD400,
    index_port=0x74,
    data_port=0x75,
    check=CheckRange(CheckType.WORD_SUM, 0x10, 0x2D, 0x2E),
    tokens=[(ACTIVATE, 0x78, 0xBF, 0x40), (CANCEL, 0x78, 0xBF, 0x00)],
)
"""Where an XPS M1530 has its tokens."""


def tables_with(*structures: Structure) -> Tables:
    return smbios.make_tables(smbios.make_entry_point(), structures)


def test_a_bank_is_behind_the_ports_that_the_tables_name_and_lasts(path: Path) -> None:
    odd = make_indexed_io(
        handle=0xD401, index_port=0x84, data_port=0x95, check=NO_CHECK, tokens=[(5, 1, 0xFE, 1)]
    )
    banks = banks_of(tables_with(M1530, odd))
    assert banks == {0x71: 0x70, 0x73: 0x72, 0x75: 0x74, 0x95: 0x84}
    path.write_bytes(bytes(cmos_file_bytes(banks)))
    ports = CmosFile(path, banks=banks)
    for data_port, index_port in banks.items():
        ports.out8(index_port, 0x20)
        ports.out8(data_port, data_port)
    again = CmosFile(path, banks=banks)
    for data_port, index_port in banks.items():
        again.out8(index_port, 0x20)
        assert again.in8(data_port) == data_port
        assert path.read_bytes()[256 * index_port + 0x20] == data_port


def test_a_file_with_a_pcs_two_banks_serves_others_too_and_grows_when_they_are_written_to(
    path: Path,
) -> None:
    before, banks = path.read_bytes(), banks_of(tables_with(M1530))
    ports = CmosFile(path, banks=banks)
    ports.out8(0x74, 0x78)
    assert ports.in8(0x75) == 0
    assert path.read_bytes() == before
    ports.out8(0x75, 0x40)
    data = path.read_bytes()
    assert (data[: len(before)], len(data)) == (before, 256 * 0x75)
    again = CmosFile(path, banks=banks)
    again.out8(0x74, 0x78)
    assert again.in8(0x75) == 0x40


@pytest.mark.parametrize("ports", [(0x71, 0x70), (0x71, 0x99), (0x99, 0x72), (0x99, 0x99)])
def test_tables_can_not_take_a_pcs_own_banks_away(ports: tuple[int, int]) -> None:
    index_port, data_port = ports
    odd = make_indexed_io(
        handle=0xD401,
        index_port=index_port,
        data_port=data_port,
        check=NO_CHECK,
        tokens=[(5, 1, 0xFE, 1)],
    )
    assert banks_of(tables_with(odd)) == PC_BANKS


def test_a_port_pair_without_a_device_is_told_from_one_with_all_bits_set(path: Path) -> None:
    def at(index_port: int, data_port: int) -> IndexedIoToken:
        return IndexedIoToken(ACTIVATE, index_port, data_port, 0x78, 0xBF, 0x40, CHECKS[0], 0xD401)

    ports = CmosFile(path)
    bank(ports).write(0x78, 0xFF)
    assert responds(bank(ports), at(0x70, 0x71))
    assert not responds(bank(ports, (0x74, 0x75)), at(0x74, 0x75))


def test_mending_makes_every_check_value_right_and_can_be_put_back(path: Path) -> None:
    lower = CheckRange(CheckType.BYTE_SUM, 0x10, 0x2D, 0x2E)
    own = pair(OUTSIDE, CHECKS[CheckType.CRC])
    beside = pair(0x20, lower).activate
    tokens = replace(own, checked=(own.activate, beside))
    before = path.read_bytes()
    bios = switch(CmosFile(path), tokens)
    assert bios.wrong_checks == (own.activate.check, lower)
    put_back = bios.saved_checks()
    bios.repair()
    assert not switch(CmosFile(path), tokens).wrong_checks
    changed = {i - 256 * 0x70 for i, byte in enumerate(path.read_bytes()) if byte != before[i]}
    assert changed <= {0x6D, 0x6E, 0x2E}
    put_back()
    assert path.read_bytes() == before


def test_a_wrong_check_value_over_another_range_behind_the_same_ports_is_enough(
    path: Path,
) -> None:
    own, beside = pair(OUTSIDE, CHECKS[1]), pair(0x20, CheckRange(0, 0x10, 0x2D, 0x2E)).activate
    tokens = replace(own, checked=(own.activate, beside))
    bios = switch(CmosFile(path), tokens)
    bios.repair()
    bios.arm()
    assert bios.is_armed
    bank(CmosFile(path)).write(0x11, 0x99)
    bios = switch(CmosFile(path), tokens)
    assert not bios.is_armed
    assert "indexes 0x10 to 0x2d is wrong" in bios.clear_if_check_is_wrong()
    assert not switch(CmosFile(path), tokens, checks_cmos=False).is_armed
    assert bios.wrong_checks == ()
    assert bios.clear_if_check_is_wrong() == ""


class Disturbed:
    """A bank of which the first writes store other bytes in their place, by index; `None`: what
    was to be stored."""

    def __init__(self, cmos: PortCmos, writes: list[dict[int, int] | None]) -> None:
        self._cmos, self._writes = cmos, writes
        self.indexes = cmos.indexes
        self.read = cmos.read
        self.written: list[tuple[int, int]] = []

    def write(self, index: int, value: int) -> None:
        self.written.append((index, value))
        instead = self._writes.pop(0) if self._writes else None
        for at, byte in ({index: value} if instead is None else instead).items():
            self._cmos.write(at, byte)


def test_what_is_stored_is_in_cmos_and_nothing_else_is_changed(path: Path) -> None:
    before = path.read_bytes()
    store(bank(CmosFile(path)), {0x78: 1, 0x40: 2})
    changed = {
        i - 256 * 0x70: byte for i, byte in enumerate(path.read_bytes()) if byte != before[i]
    }
    assert changed == {0x78: 1, 0x40: 2}


def test_a_write_that_goes_astray_is_made_again_and_its_neighbour_gets_its_byte_back(
    path: Path,
) -> None:
    before = bytearray(path.read_bytes())
    cmos = Disturbed(bank(CmosFile(path)), [{0x20: 0xA5}, {0x78: 0xA5, 0x21: 0xA5}])
    store(cmos, {0x78: 0xA5})
    before[256 * 0x70 + 0x78] = 0xA5
    assert path.read_bytes() == before
    assert cmos.written == [(0x78, 0xA5), (0x20, 0x20), (0x78, 0xA5), (0x20, 0x20), (0x21, 0x21)]


def test_a_byte_that_another_program_wrote_is_told_and_left(path: Path) -> None:
    cmos = Disturbed(bank(CmosFile(path)), [{0x78: 0xA5, 0x20: 0x99}])
    with pytest.raises(
        StrayWriteError, match="index 0x20 of CMOS changed from 0x20 to 0x99"
    ) as told:
        store(cmos, {0x78: 0xA5})
    assert (told.value.index, told.value.before, told.value.after) == (0x20, 0x20, 0x99)
    assert bank(CmosFile(path)).read(0x20) == b"\x99"


def test_the_century_may_be_set_while_a_token_is(path: Path) -> None:
    store(Disturbed(bank(CmosFile(path)), [{0x78: 0xA5, 0x32: 0x21}]), {0x78: 0xA5})
    assert bank(CmosFile(path)).read(0x32) == b"\x21"


def test_a_byte_that_cmos_does_not_keep_is_told_after_some_tries(path: Path) -> None:
    cmos = Disturbed(bank(CmosFile(path)), [{}] * 9)
    with pytest.raises(NotKeptError, match="does not keep the byte at index 0x78"):
        store(cmos, {0x78: 0xA5})
    assert cmos.written == [(0x78, 0xA5)] * 3


@pytest.mark.parametrize("index", [0x05, 0xF0])
def test_a_byte_outside_of_the_settings_is_stored_where_tables_ask_for_it(
    path: Path, index: int
) -> None:
    store(bank(CmosFile(path)), {index: 0xA5})
    assert path.read_bytes()[256 * 0x70 + index] == 0xA5


def test_the_first_bank_has_a_clock_and_ends_where_its_index_does_not_go_on(path: Path) -> None:
    ports = CmosFile(path)
    assert bank(ports).indexes == range(14, 128)
    assert bank(ports, PC_PORTS[1]).indexes == range(256)


def test_tokens_behind_different_ports_are_no_pair(path: Path) -> None:
    def structure(handle: int, index_port: int, *tokens: tuple[int, int, int, int]) -> Structure:
        return make_indexed_io(
            handle=handle,
            index_port=index_port,
            data_port=index_port + 1,
            check=NO_CHECK,
            tokens=list(tokens),
        )

    activate, cancel = (ACTIVATE, 0x78, 0xBF, 0x40), (CANCEL, 0x78, 0xBF, 0x00)
    apart = [structure(0xD400, 0x70, activate), structure(0xD401, 0x72, cancel)]
    assert tokens_for_update(tables_with(*apart)) is None
    found = tokens_for_update(tables_with(*apart, structure(0xD402, 0x72, activate)))
    assert found is not None
    assert isinstance(found.activate, IndexedIoToken)
    assert isinstance(found.cancel, IndexedIoToken)
    assert found.activate.ports == found.cancel.ports == (0x72, 0x73)


def test_a_cmos_file_that_is_missing_or_cut_is_refused(path: Path) -> None:
    path.write_bytes(bytes(CMOS_FILE_BYTES - 1))
    with pytest.raises(MachineError, match="bytes, not"):
        CmosFile(path)
    path.unlink()
    with pytest.raises(MachineError, match="missing"):
        CmosFile(path)


def test_a_power_cut_leaves_a_byte_old_and_storing_what_is_there_takes_no_operation(
    path: Path,
) -> None:
    ports = CmosFile(path, PowerRail(1))
    ports.out8(0x70, 0x30)
    ports.out8(0x71, 0x30)
    with pytest.raises(PowerCutError):
        ports.out8(0x71, 0x31)
    assert path.read_bytes()[256 * 0x70 + 0x30] == 0x30


@pytest.mark.parametrize("check", [NO_CHECK, *CHECKS])
@pytest.mark.parametrize("location", [INSIDE, OUTSIDE])
def test_arming_and_disarming_set_one_bit_and_keep_the_check_value_right(
    path: Path, location: int, check: CheckRange
) -> None:
    tokens = pair(location, check)
    made_right(path, tokens)
    before = path.read_bytes()

    switch(CmosFile(path), tokens).arm()
    ports = CmosFile(path)
    assert switch(ports, tokens).is_armed
    assert token_is_active(bank(ports), tokens.activate)
    assert not token_is_active(bank(ports), tokens.cancel)
    assert check_value_is_right(bank(ports), tokens.activate, None)
    changed = {i - 256 * 0x70 for i, byte in enumerate(path.read_bytes()) if byte != before[i]}
    check_bytes = {check.index, check.index + 1} if check.first <= location <= check.last else set()
    assert location in changed
    assert changed <= {location} | check_bytes
    assert path.read_bytes()[256 * 0x70 + location] == before[256 * 0x70 + location] | 0x40

    switch(CmosFile(path), tokens).disarm()
    assert not switch(CmosFile(path), tokens).is_armed
    assert path.read_bytes() == before


@pytest.mark.parametrize("check", CHECKS)
def test_the_check_value_is_what_the_format_says_over_the_bytes_of_the_range(
    path: Path, check: CheckRange
) -> None:
    ports = CmosFile(path)
    token = pair(INSIDE, check).activate
    expected = check_value(check.type, bytes(range(0x40, 0x5C)))
    assert expected_check_bytes(bank(ports), token, None) == expected
    write_check_value(bank(ports), token, None)
    start = 256 * 0x70 + check.index
    assert path.read_bytes()[start : start + len(expected)] == expected


def test_without_a_checked_range_there_is_no_check_value_and_none_is_written(path: Path) -> None:
    before = path.read_bytes()
    ports = CmosFile(path)
    token = pair(INSIDE, NO_CHECK).activate
    assert expected_check_bytes(bank(ports), token, None) is None
    assert check_value_is_right(bank(ports), token, None)
    write_check_value(bank(ports), token, None)
    assert path.read_bytes() == before


@pytest.mark.parametrize("location", [INSIDE, OUTSIDE])
@pytest.mark.parametrize("index", [0x40, 0x5B, 0x6D, 0x6E])
def test_cmos_with_a_wrong_check_value_is_not_believed_by_a_bios_but_read_by_a_tool(
    path: Path, location: int, index: int
) -> None:
    tokens = pair(location, CHECKS[CheckType.NEGATED_WORD_SUM])
    made_right(path, tokens)
    ports = CmosFile(path)
    switch(ports, tokens).arm()
    bank(ports).write(index, bank(ports).read(index)[0] ^ 1)
    assert not switch(ports, tokens).is_armed
    assert switch(ports, tokens, checks_cmos=False).is_armed


@pytest.mark.parametrize("check", CHECKS)
def test_a_power_cut_while_arming_or_disarming_never_leaves_a_bios_that_believes_the_half_of_it(
    path: Path, check: CheckRange
) -> None:
    tokens = pair(INSIDE, check)
    made_right(path, tokens)
    disarmed = path.read_bytes()
    switch(CmosFile(path), tokens).arm()
    armed = path.read_bytes()
    for start, act in ((disarmed, IndexedActivation.arm), (armed, IndexedActivation.disarm)):
        for cut_at in count(1):
            path.write_bytes(start)
            try:
                act(switch(CmosFile(path, PowerRail(cut_at)), tokens))
            except PowerCutError:
                is_armed = switch(CmosFile(path), tokens).is_armed
                assert is_armed == (path.read_bytes() == armed)
            else:
                break
        assert cut_at > 2
        assert switch(CmosFile(path), tokens).is_armed == (start == disarmed)


def test_a_check_value_is_not_touched_by_a_token_outside_of_its_range(path: Path) -> None:
    """A wrong one must not come right by it: what it covers may be rubbish."""
    tokens = pair(OUTSIDE, CHECKS[CheckType.WORD_SUM])
    bios = switch(CmosFile(path), tokens)
    bios.arm()
    assert not bios.is_armed
    assert not check_value_is_right(bank(CmosFile(path)), tokens.activate, None)


@given(byte=st.integers(0, 255), kind=st.sampled_from(CheckType), location=st.integers(0x40, 0x5B))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_arming_and_disarming_keep_all_other_bits_of_the_byte(
    path: Path, byte: int, kind: CheckType, location: int
) -> None:
    tokens = pair(location, CheckRange(kind, 0x40, 0x5B, 0x6D))
    ports = CmosFile(path)
    bank(ports).write(location, byte)
    write_check_value(bank(ports), tokens.activate, None)
    switch(ports, tokens).arm()
    assert bank(ports).read(location)[0] == byte | 0x40
    assert switch(ports, tokens).is_armed
    switch(ports, tokens).disarm()
    assert bank(ports).read(location)[0] == byte & ~0x40
    assert not switch(ports, tokens).is_armed


def test_a_system_whose_tables_carry_a_wrong_check_type_gets_the_value_that_it_really_uses(
    path: Path,
) -> None:
    check = CheckRange(CheckType.NEGATED_WORD_SUM, 0x40, 0x5B, 0x6D)
    token = IndexedIoToken(ACTIVATE, 0x70, 0x71, INSIDE, 0xBF, 0x40, check, 0xD402)
    ports = CmosFile(path)
    set_token(bank(ports), token, 0x0121)
    assert check_value_is_right(bank(ports), token, 0x0121)
    assert not check_value_is_right(bank(ports), token, 0x0122)


def test_the_switch_of_a_machine_is_where_its_tables_say_and_none_where_they_say_nothing(
    path: Path,
) -> None:
    NvramFile.create(path.with_name("nvram.json"), Nvram({ACTIVATE: 0, CANCEL: 0}))
    ports, nvram = CmosFile(path), NvramFile(path.with_name("nvram.json"))
    assert bios_activation(make_tables(None), ports, nvram) is None
    for place in ("checked-cmos", "smi"):
        found = bios_activation(make_tables(place), ports, nvram)
        assert found is not None
        kept = (path.read_bytes(), nvram.contents.build())
        if isinstance(found, IndexedActivation):
            found.arm()
            assert path.read_bytes()[256 * 0x72 + 0x68] == 0x68 & 0xF8 | 0x02
            assert nvram.contents.build() == kept[1]
        else:
            found.set_armed(True)
            assert nvram.contents.settings[ACTIVATE] == 1
            assert path.read_bytes() == kept[0]
        assert found.is_armed


def test_on_the_cmos_of_known_machines_the_token_can_be_set_and_taken_back(tmp_path: Path) -> None:
    tried = []
    for name in NAMES:
        tables, cmos = tables_of(name), cmos_of(name)
        tokens = tokens_for_update(tables)
        if not cmos or tokens is None or not isinstance(tokens.activate, IndexedIoToken):
            continue
        path = tmp_path / name
        path.write_bytes(cmos[:CMOS_FILE_BYTES].ljust(CMOS_FILE_BYTES, b"\0"))
        before, ports, system_id = path.read_bytes(), CmosFile(path), dell.system_id(tables)
        behind = PortCmos(ports, tokens.activate.ports)
        if not check_value_is_right(behind, tokens.activate, system_id):
            continue  # not a dump of all of its CMOS
        bios = IndexedActivation(behind, tokens, system_id, checks_cmos=True)
        assert not bios.is_armed, name
        bios.arm()
        armed = IndexedActivation(behind, tokens, system_id, checks_cmos=True)
        assert armed.is_armed, name
        bios.disarm()
        assert path.read_bytes() == before, name
        tried.append(name)
    assert len(tried) >= 5, tried
