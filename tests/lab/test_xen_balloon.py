"""The balloon driver of a real dom0, under Xen 4.17, does as our model of it, profile `linux`.

One guest is for all of them. Its host is short of memory: dom0 can't have all its frames. The same
calls are made on both sides and have to come to the same: values, errnos, bytes taken, and the
contents of the files when all has been done that was to do.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from lab.balloon import (
    CURRENT_KB,
    DELAY,
    DEVICE,
    FILES,
    LOW_KB,
    MAX_DELAY,
    MAX_RETRIES,
    RETRIES,
    SCRUB,
    SUBSYSTEM,
    TARGET,
    TARGET_KB,
    Both,
    make_both,
)
from openrbu.lab.calls import Call, ListDir, Read, ReadLink, Stat, Write
from openrbu.units import KIB
from rigs.lab import Lab, SharedMachine

pytestmark = pytest.mark.lab

HOME_KIB = 630_000
"""Where a test starts, and ends."""

ALL_KIB = 1 << 20
"""More than dom0 has frames."""

OPERATIONS = 100

NUMBERS = [
    *[b"500000", b"500000\n", b"0x7A120", b"0x7a120\n", b"0X7a120", b"01720440", b"01720440\n"],
    *[b"500000K", b"500000k\n", b"512000kB", b"0x7a120K", b"0x7a120g", b"489M", b"1G", b"1g"],
    *[b"1T", b"1t", b"1P", b"1p", b"1E", b"16E", b"17E", b"500000KB", b"500000K \n", b"500000b"],
    *[b"500000 ", b"500000  \n", b"500000 x", b"500000x", b"500000 K", b"500000,3", b"500000.9"],
    *[b"500000\n\n", b"500000\njunk", b"500000\0", b"500000\0junk", b"5e5", b"1_000", b"1.5G"],
    *[b" 500000", b"\t500000", b"\n500000", b"+500000", b"-500000", b"--1", b"-1", b"junk"],
    *[b"", b"\n", b"\0", b"K", b"0K", b"0x", b"0xz", b"08", b"0900000", b"0", b"1", b"3", b"4"],
    *[b"500001", b"500003", b"500004", b"500005", b"512000001", b"512004095", b"512004096"],
    *[b"4294967295", b"4294967296", b"4294967297", b"17179869184", b"18014398509481983"],
    *[b"18014398509481984", b"18014398509481983K", b"18014398509481984K", b"18446744073709551615"],
    *[b"18446744073709551616", b"18446744074209551616", b"0xffffffffffffffff"],
    *[b"0x10000000000000000", b"0x1000000000007a120", b"0777777777777777777777777"],
    *[b"1" * 5000, b"600000" + b" " * 4090, b"0" * 4089 + b"500000", b"0" * 4091 + b"500000"],
]
"""For `target_kb` and `target`, which refuse nothing."""

SETTINGS = [
    *[b"5", b"5\n", b"10", b"0x10", b"0X1f", b"010", b"0", b"+7", b"7\0", b"7\0x", b"0xA", b""],
    *[b" 7", b"7 ", b"7\n\n", b"-7", b"-1", b"\n", b"\0", b"7x", b"x", b"a", b"08", b"0x", b"++7"],
    *[b"4294967295", b"4294967296", b"18446744073709551615", b"18446744073709551616"],
    *[b"0xffffffff", b"0x10000000000000000", b"1" * 5000, b"0" * 4096 + b"7"],
]
"""For the two that take C numbers."""

BOOLEANS = [
    *[b"0", b"1", b"0\n", b"1\n", b"y", b"Y", b"n", b"N", b"yes", b"no", b"t", b"T", b"f", b"F"],
    *[b"on", b"On", b"oN", b"off", b"OFF", b"of", b"true", b"false", b"00", b"01", b"1x", b"0x"],
    *[b"nope", b"yup", b"offf", b"o", b"2", b"-1", b" 1", b"", b"\n", b"\0", b"enable", b"ox"],
]


@pytest.fixture(scope="module")
def both_sides(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    real = SharedMachine(lab.xen_machine)
    try:
        yield make_both(real, tmp_path_factory.mktemp("model"))
    finally:
        real.close()


@pytest.fixture
def both(both_sides: Both) -> Both:
    """Both sides, settled at `HOME_KIB`, their settings as after a start."""
    for path, text in ((MAX_RETRIES, b"4"), (MAX_DELAY, b"32"), (SCRUB, b"1")):
        both_sides.set(path, text)
    both_sides.set(TARGET_KB, HOME_KIB)
    both_sides.comes_to(1, 1)
    return both_sides


def home(path: str) -> Write:
    """Back to `HOME_KIB`, before a target that would be the guest's end has been followed far."""
    return Write(path, b"%d" % (HOME_KIB * KIB if path == TARGET else HOME_KIB))


def test_the_files_have_the_same_names_modes_and_sizes(both: Both) -> None:
    calls: list[Call] = [ListDir(path) for path in (SUBSYSTEM, DEVICE, f"{DEVICE}/info")]
    calls += [Stat(path) for path in (SUBSYSTEM, DEVICE, f"{DEVICE}/info", *FILES)]
    both.do(*calls, ReadLink(f"{DEVICE}/subsystem"))


def test_files_to_be_read_refuse_writes_and_are_read_from_an_offset(both: Both) -> None:
    both.do(*(Write(path, b"1") for path in (CURRENT_KB, LOW_KB, RETRIES, DELAY)))
    both.do(*(Read(TARGET_KB, offset, 3) for offset in (0, 3, 6, 7, 8, 4096)))
    both.do(Write(TARGET_KB, b"510004", 3), home(TARGET_KB))


@pytest.mark.parametrize("path", [TARGET_KB, TARGET])
def test_each_number_format_sets_the_same_target(both: Both, path: str) -> None:
    both.set(SCRUB, 0)  # scrubbing would only take time
    calls: list[Call] = []
    for text in NUMBERS:
        calls += Write(path, text), Read(TARGET_KB), Read(TARGET), home(path)
    both.do(*calls)
    both.comes()


@pytest.mark.parametrize(
    ("path", "formats"), [(MAX_RETRIES, SETTINGS), (MAX_DELAY, SETTINGS), (SCRUB, BOOLEANS)]
)
def test_each_format_of_a_setting_is_taken_or_refused_alike(
    both: Both, path: str, formats: list[bytes]
) -> None:
    calls: list[Call] = []
    for text, before in itertools.product(formats, (b"0", b"1")):
        calls += Write(path, before), Write(path, text), Read(path)
    both.do(*calls)


def test_down_and_up_and_no_further_than_it_has_frames(both: Both) -> None:
    for kib in (HOME_KIB - 30_000, HOME_KIB, HOME_KIB + 4, HOME_KIB - 2052, HOME_KIB + 9_999):
        both.set(TARGET_KB, kib)
        both.comes_to(1, 1)
    both.set(MAX_RETRIES, 1)
    both.set(TARGET, b"1G")
    files = both.comes()
    assert int(files[CURRENT_KB]) < int(files[CURRENT_KB]) + int(files[LOW_KB]) < ALL_KIB
    assert files[TARGET_KB] == f"{ALL_KIB}\n", "a target is no goal"


def test_a_short_host_is_asked_again_after_twice_the_time_and_four_times_in_all(
    both: Both,
) -> None:
    both.set(TARGET_KB, ALL_KIB)
    both.comes_to(2, 2)
    both.tries_again(3, 4)
    both.tries_again(4, 8)
    both.tries_again(1, 1)
    assert both.model.due_s is None


@pytest.mark.parametrize(
    ("most_retries", "most_delay_s", "tries"),
    [
        (1, 32, [(1, 1)]),
        (2, 32, [(2, 2), (1, 1)]),
        (3, 1, [(2, 1), (3, 1), (1, 1)]),
        (3, 3, [(2, 2), (3, 3), (1, 1)]),
    ],
)
def test_the_settings_bound_how_often_and_how_long(
    both: Both, most_retries: int, most_delay_s: int, tries: list[tuple[int, int]]
) -> None:
    both.set(MAX_RETRIES, most_retries)
    both.set(MAX_DELAY, most_delay_s)
    both.set(TARGET_KB, ALL_KIB)
    first, *others = tries
    both.comes_to(*first)
    for each in others:
        both.tries_again(*each)


def test_without_a_delay_it_gives_up_soon(both: Both) -> None:
    both.set(MAX_RETRIES, 3)
    both.set(MAX_DELAY, 0)
    both.set(TARGET_KB, ALL_KIB)
    both.model.give_up()
    both.comes_to(1, 1)


def test_without_a_limit_it_is_tried_on_until_there_is_one(both: Both) -> None:
    both.set(MAX_RETRIES, 0)
    both.set(MAX_DELAY, 1)
    both.set(TARGET_KB, ALL_KIB)
    both.comes_to(2, 1)
    for retries in (3, 4, 5):
        both.tries_again(retries, 1)
    both.set(MAX_RETRIES, 3)
    both.tries_again(1, 1)


def test_after_giving_up_only_another_target_is_tried(both: Both) -> None:
    both.set(MAX_RETRIES, 1)
    both.set(TARGET_KB, ALL_KIB)
    both.comes_to(1, 1)
    both.set(MAX_RETRIES, 4)
    both.set(TARGET_KB, ALL_KIB)
    both.stays()
    both.set(TARGET_KB, ALL_KIB + 4)
    both.comes_to(2, 2)


def test_another_target_is_tried_at_once_and_counts_on(both: Both) -> None:
    both.set(TARGET_KB, ALL_KIB)
    both.comes_to(2, 2)
    both.set(TARGET_KB, ALL_KIB)
    both.stays()
    both.set(TARGET_KB, 2 * ALL_KIB)
    both.comes_to(3, 4)
    here_kib = int(both.comes()[CURRENT_KB])
    both.set(TARGET_KB, here_kib)
    both.comes_to(4, 8)
    both.set(TARGET_KB, here_kib - 400)
    both.comes_to(1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_random_operations_come_to_the_same(both: Both, seed: int) -> None:
    dice = random.Random(seed)
    both.set(MAX_RETRIES, 1)  # what falls short has ended then, before the next one
    for _ in range(OPERATIONS):
        both.do(*random_operation(dice))
        both.comes()


def random_operation(dice: random.Random) -> list[Call]:
    """Calls that leave both sides with something to do that ends of itself."""
    path = dice.choice((TARGET_KB, TARGET))
    unit = KIB if path == TARGET else 1
    size = (HOME_KIB + dice.randrange(-6000, 6000)) * unit + dice.randrange(4 * unit)
    match dice.randrange(8):
        case 0:
            return [Write(path, dice.choice(NUMBERS)), home(path)]
        case 1:
            setting = dice.choice((MAX_RETRIES, MAX_DELAY))
            return [Write(setting, dice.choice(SETTINGS)), Write(MAX_RETRIES, b"1")]
        case 2:
            return [Write(SCRUB, dice.choice(BOOLEANS))]
        case 3:
            return [Write(path, b"%d" % (size + dice.choice((1, 1000)) * ALL_KIB * unit))]
        case 4:
            return [Write(path, b"%d" % size), Write(path, b"%d" % (HOME_KIB * unit))]
        case _:
            form = dice.choice(("{}", "{}\n", "0x{:x}", "0{:o}\n", "{} junk", "{}\0"))
            return [Write(path, form.format(size).encode())]


def test_the_hypervisor_is_shown_alike(both: Both) -> None:
    names = ("type", "guest_type", "uuid", "version/major", "version/minor")
    both.do(*(Read(f"/sys/hypervisor/{name}") for name in names))
    both.do(*(Stat(f"/sys/hypervisor/{name}") for name in names))
