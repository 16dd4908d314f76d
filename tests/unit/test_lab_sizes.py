"""Which machines the lab can be: sizes, processors, words for the kernel; QEMU's RAM file."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.errors import ObstacleError, UsageError
from openrbu.lab import boot, sizes
from openrbu.memory.physical import pc_regions
from openrbu.units import GIB, MIB
from rigs.cli import Cli
from rigs.lab import MODEL


def test_models_that_qemu_can_not_be_are_refused() -> None:
    with pytest.raises(ObstacleError, match=r"its tokens are reached by SMI"):
        sizes.check_machine("precision-t7600", 512 * MIB)


@pytest.mark.parametrize("ram_bytes", [255 * MIB, 16 * GIB + MIB, 512 * MIB + 4096])
def test_sizes_of_ram_that_qemu_can_not_have_are_refused(ram_bytes: int) -> None:
    with pytest.raises(UsageError, match=r"has 256 MiB to 16 GiB of RAM in whole MiB, not"):
        sizes.check_machine(MODEL, ram_bytes)


@pytest.mark.parametrize("cpus", [-1, 0, 17])
def test_numbers_of_processors_that_qemu_can_not_have_are_refused(cpus: int) -> None:
    with pytest.raises(UsageError, match=rf"has 1 to 16 processors, not {cpus}"):
        sizes.check_machine(MODEL, GIB, cpus)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("quiet\nreboot=warm", "printable ASCII"),
        ("name=größer", "printable ASCII"),
        ("x" * 1025, "up to 1024 characters, not 1025"),
        ('name="a b', "a quote is open"),
        ("quiet -- x", "-- can't be given"),
        ("init=/bin/sh", "init=/bin/sh can't be given"),
        ("root=/dev/sda1", "root=/dev/sda1 can't be given"),
    ],
)
def test_words_that_the_kernel_can_not_have_are_refused(words: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        sizes.check_machine(MODEL, GIB, 1, words)


def test_words_for_the_kernel_stand_before_the_guests_first_program() -> None:
    line = boot.Setup(kernel_words="lockdown=integrity reboot=warm").kernel_line(Path("/init.sh"))
    assert line.endswith(' lockdown=integrity reboot=warm init=/bin/sh -- "/init.sh"')
    assert line.startswith("console=ttyS0 ")


def test_a_machine_with_more_memory_than_there_is_here_is_refused_before_anything_is_fetched(
    rbu: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRBU_CACHE", str(rbu.directory / "cache"))
    monkeypatch.setattr(sizes, "available_memory_bytes", lambda: 16 * GIB)
    sizes.check_memory(15 * GIB)
    said = rbu.fails(4, "lab", "shell", "--ram", "16G", "--", "true")
    assert said == (
        "rbu: a lab machine with 16 GiB of RAM needs 16.3 GiB of this computer's memory, and "
        "16 GiB are available: give it less, or end other programs\n"
    )
    assert rbu.files == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--ram", "17G"], "256 MiB to 16 GiB of RAM"),
        (["--cpus", "17"], "1 to 16 processors, not 17"),
        (["--kernel-words", "init=/x"], "init=/x can't be given"),
    ],
)
def test_the_commands_refuse_what_can_not_be_in_one_line(
    rbu: Cli, words: list[str], reason: str
) -> None:
    assert reason in rbu.fails(2, "lab", "shell", *words, "--", "true")


def test_qemu_has_what_is_above_4_gib_in_its_file_right_behind_what_is_below_3() -> None:
    assert sizes.offsets_in_qemu(pc_regions(512 * MIB)) == [0, MIB]
    assert sizes.offsets_in_qemu(pc_regions(6 * GIB)) == [0, MIB, 3 * GIB]
