"""The differential test finds what it is to find: profiles that were made wrong on purpose."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.differ import MOMENTS, DifferenceError, ProfileSide, Tally, hunt
from lab.sequences import IMAGE_TYPE, LOADING, STAGED
from openrbu.drivers.dell_rbu_profiles import BadPacketSize, Profile, profile
from openrbu.lab.calls import Call, Exists, LinkStatus, Load, Read, Result, Stat, Unload, Write
from openrbu.lab.guest import GuestLostError

pytestmark = pytest.mark.untraced  # thousands of operations: traced they take minutes

LINUX = profile("linux")
SEED = 4
MOST_OPERATIONS = 3000
"""A difference is found within so many, on average in much fewer."""


def enough(tally: Tally) -> bool:
    return tally.operations >= MOST_OPERATIONS


@pytest.fixture
def kernel(tmp_path: Path) -> ProfileSide:
    """Stands for the kernel: the profile as it is."""
    directory = tmp_path / "kernel"
    directory.mkdir()
    return ProfileSide(directory, LINUX)


def test_a_profile_does_not_differ_from_itself_and_deep_states_are_met(
    kernel: ProfileSide, tmp_path: Path
) -> None:
    side = ProfileSide(tmp_path, LINUX)
    tally = hunt(kernel, side, seed=SEED, enough=enough)
    assert MOST_OPERATIONS <= tally.operations < MOST_OPERATIONS + 200
    assert set(side.moments) == set(MOMENTS)
    assert {"EINVAL", "ENOMEM", "ENOENT", "EAGAIN", "EEXIST", "EACCES"} <= set(tally.errnos)
    print(tally, side.moments)


PROFILES: dict[str, Profile] = {
    "bad sizes are garbage": replace(LINUX, bad_packet_size=BadPacketSize.GARBAGE),
    "bad sizes drop packets": replace(LINUX, bad_packet_size=BadPacketSize.KEEP),
    "the first packet is skipped": replace(LINUX, skips_first_packet=True),
    "the entry comes back": replace(LINUX, entry_comes_back=True),
    "the entry is there at load": replace(LINUX, entry_at_load=True),
    "no data before 1": replace(LINUX, data_before_loading=False),
    "long transfers": replace(LINUX, transfer_limit_bytes=None),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_that_behaves_otherwise_is_found_out(
    kernel: ProfileSide, tmp_path: Path, name: str
) -> None:
    with pytest.raises(DifferenceError) as found:
        hunt(kernel, ProfileSide(tmp_path, PROFILES[name]), seed=SEED, enough=enough)
    difference = found.value.difference
    assert len(difference.calls) <= 16, "it was shrunk"


Mutation = Callable[[Call, Result], Result]


def errno_of_unload(call: Call, result: Result) -> Result:
    is_refused = isinstance(call, Unload) and result.errno == errno.EAGAIN
    return Result(errno=errno.EBUSY) if is_refused else result


def errno_of_nothing_staged(call: Call, result: Result) -> Result:
    return Result(b"") if result.errno == errno.ENOMEM else result


def last_byte_of_an_odd_read(call: Call, result: Result) -> Result:
    value = result.value
    if isinstance(call, Read) and call.path == STAGED and call.offset % 4096 and value:
        assert isinstance(value, bytes)
        return Result(value[:-1] + bytes([value[-1] ^ 1]))
    return result


def entry_that_stays(call: Call, result: Result) -> Result:
    return Result(value=True) if isinstance(call, Exists) and call.path == LOADING else result


def mode_of_a_file(call: Call, result: Result) -> Result:
    value = result.value
    if isinstance(call, Stat) and call.path == STAGED and isinstance(value, LinkStatus):
        return Result(value._replace(mode=0o100644))
    return result


def short_write_that_says_it_took_all(call: Call, result: Result) -> Result:
    if isinstance(call, Write) and result.errno is None:
        return Result(len(call.data))
    return result


def second_load_that_works(call: Call, result: Result) -> Result:
    is_there = isinstance(call, Load) and result.errno == errno.EEXIST
    return Result() if is_there else result


def blank_before_a_type(call: Call, result: Result) -> Result:
    is_it = isinstance(call, Write) and call.path == IMAGE_TYPE and call.data.startswith(b" ")
    return Result(len(call.data)) if is_it and isinstance(call, Write) else result


MUTATIONS: tuple[Mutation, ...] = (
    errno_of_unload,
    errno_of_nothing_staged,
    last_byte_of_an_odd_read,
    entry_that_stays,
    mode_of_a_file,
    short_write_that_says_it_took_all,
    second_load_that_works,
    blank_before_a_type,
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_result_that_is_wrong_is_found(
    kernel: ProfileSide, tmp_path: Path, mutation: Mutation
) -> None:
    right = ProfileSide(tmp_path, LINUX)

    def wrong(calls: list[Call]) -> list[Result]:
        return list(map(mutation, calls, right(calls)))

    with pytest.raises(DifferenceError) as found:
        hunt(kernel, wrong, seed=SEED, enough=enough)
    difference = found.value.difference
    assert len(difference.calls) <= 16, "it was shrunk"
    assert "THIS DIFFERS" in str(found.value)


def test_a_guest_that_is_lost_is_no_difference_and_is_not_asked_again(
    kernel: ProfileSide, tmp_path: Path
) -> None:
    asked = 0

    def mortal(calls: list[Call]) -> list[Result]:
        nonlocal asked
        asked += 1
        if asked == 20:
            raise GuestLostError("its kernel panicked")
        assert asked < 20
        return kernel(calls)

    with pytest.raises(GuestLostError, match="its kernel panicked") as lost:
        hunt(mortal, ProfileSide(tmp_path, LINUX), seed=SEED, enough=enough)
    assert "in this sequence:\n#!/bin/sh\n" in "".join(lost.value.__notes__)
    assert asked == 20


def test_a_guest_that_is_lost_while_a_difference_is_shrunk_is_lost(
    kernel: ProfileSide, tmp_path: Path
) -> None:
    differs = ProfileSide(tmp_path, PROFILES["the entry comes back"])
    left: list[int] = []

    def mortal(calls: list[Call]) -> list[Result]:
        if not left and kernel(calls) != differs(calls):
            left.extend(range(5))
        elif left:
            left.pop()
            if not left:
                raise GuestLostError("its kernel panicked")
        return kernel(calls)

    with pytest.raises(GuestLostError):
        hunt(
            mortal,
            ProfileSide(tmp_path, PROFILES["the entry comes back"]),
            seed=SEED,
            enough=enough,
        )
