"""A plan says how the machine is powered, how far its kernel is locked, and which disks the TPM
unlocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openrbu.hosts.linux import LinuxHost
from openrbu.linux.encrypted_disks import EncryptedDisk, read_encrypted_disks
from openrbu.linux.facts import LinuxFacts
from openrbu.update.checks.check import Check, Verdict
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from rigs.hazards import (
    EFI,
    GLOBAL_VARIABLE,
    clevis_token,
    compact_jwe,
    luks2_header,
    put,
    put_disk,
    put_tpm,
    put_variable,
    sound_machine,
)
from rigs.machines import image

SUPPLY = "/sys/class/power_supply"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    return sound_machine(tmp_path)


def checks(machine: Path, name: str) -> list[Check]:
    """The checks of that name."""
    planned = make_plan(LinuxHost(machine), image(), Options())
    return [each for each in planned.checks if each.name == name]


def check(machine: Path, name: str) -> Check:
    (found,) = checks(machine, name)
    return found


# -- power ----------------------------------------------------------------------------------


def put_supplies(machine: Path, **supplies: str) -> None:
    """These supplies and no others, each as `type Mains, online 1`."""
    for old in (machine / SUPPLY.lstrip("/")).glob("*"):
        old.rename(machine / old.name)  # the files stay somewhere else in the tree
    for name, attributes in supplies.items():
        for attribute in attributes.split(", "):
            file, _, content = attribute.partition(" ")
            put(machine, f"{SUPPLY}/{name}/{file}", f"{content}\n")


MAINS = "type Mains, online 1"
NO_MAINS = "type Mains, online 0"
FULL = "type Battery, present 1, status Full, capacity 97"
DISCHARGING = "type Battery, present 1, status Discharging, capacity 60"


@pytest.mark.parametrize(
    ("supplies", "mains", "battery"),
    [
        ({}, "fine: the kernel shows no supply that could be off", ""),
        (
            {"AC": MAINS, "BAT0": FULL},
            r"fine: mains power is connected \(AC\)",
            "fine: .* BAT0 has 97",
        ),
        (
            {"AC": NO_MAINS, "BAT0": DISCHARGING},
            "in_the_way: .*on its battery.*0x0007",
            "fine: .*60",
        ),
        ({"AC": NO_MAINS, "C1": "type USB, online 1", "BAT0": FULL}, r"fine: .*\(C1\)", "fine"),
        ({"BAT0": DISCHARGING}, "in_the_way: this machine runs on its battery", "fine"),
        ({"BAT0": FULL}, "fine: the kernel shows no supply", "fine"),
        ({"C1": "type USB, online 0"}, "fine: the kernel shows no supply", ""),
        ({"C1": "type USB, online 0", "BAT0": FULL}, "fine: the kernel shows no supply", "fine"),
        ({"C1": "type USB, online 0", "BAT0": DISCHARGING}, "in_the_way: this machine", "fine"),
        ({"PS1": NO_MAINS}, "unknown: PS1 says that mains power is off", ""),
        ({"PS1": NO_MAINS, "PS2": MAINS}, r"fine: .*\(PS2\)", ""),
        ({"UPS": "type UPS, online 1, status Discharging"}, "in_the_way: the UPS UPS runs on", ""),
        ({"AC": MAINS, "BAT0": "type Battery, present 0"}, "fine", "unknown: .*taken out.*0x0005"),
        (
            {"AC": MAINS, "BAT0": "type Battery, capacity 9, status Charging"},
            "fine",
            "in_the_way: .*9 %.*charge it to 10 %.*0x0006",
        ),
        (
            {"AC": MAINS, "BAT0": "type Battery, capacity 4", "BAT1": "type Battery, capacity 80"},
            "fine",
            "fine: .*BAT1 has 80 %",
        ),
        (
            {"AC": MAINS, "BAT0": "type Battery, energy_now 4200000, energy_full 56000000"},
            "fine",
            "in_the_way: the battery BAT0 has 7 %",
        ),
        ({"AC": MAINS, "BAT0": "type Battery, status Unknown"}, "fine", "unknown: the level"),
        ({"AC": MAINS, "mouse": "type Battery, scope Device, capacity 3"}, "fine", ""),
    ],
)
def test_power_is_judged_by_the_supplies_of_the_machine_itself(
    machine: Path, supplies: dict[str, str], mains: str, battery: str
) -> None:
    put_supplies(machine, **supplies)
    for name, wanted in (("mains", mains), ("battery", battery)):
        said = [f"{each.verdict.value}: {each.message}" for each in checks(machine, name)]
        assert len(said) == bool(wanted), said
        assert all(re.match(wanted, each) for each in said), said


def test_a_kernel_that_shows_no_supplies_at_all_says_nothing_of_power(machine: Path) -> None:
    put_supplies(machine)
    (machine / SUPPLY.lstrip("/")).rmdir()
    assert checks(machine, "mains") == checks(machine, "battery") == []


# -- Secure Boot and lockdown ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(b"\1", Verdict.UNKNOWN), (b"\0", Verdict.FINE), (b"", Verdict.UNKNOWN)],
)
def test_secure_boot_is_told_where_uefi_started_linux(
    machine: Path, value: bytes, verdict: Verdict
) -> None:
    assert checks(machine, "secure_boot") == []
    put_variable(machine, f"SecureBoot-{GLOBAL_VARIABLE}", value)
    assert check(machine, "secure_boot").verdict is verdict


def test_without_efivars_secure_boot_is_not_known(machine: Path) -> None:
    (machine / EFI.lstrip("/")).mkdir(parents=True)
    assert "can't be read" in check(machine, "secure_boot").found


@pytest.mark.parametrize(
    ("content", "level", "verdict"),
    [
        ("[none] integrity confidentiality\n", "none", Verdict.FINE),
        ("none [integrity] confidentiality\n", "integrity", Verdict.HANDLED),
        ("none integrity [confidentiality]\n", "confidentiality", Verdict.UNKNOWN),
    ],
)
def test_the_lockdown_is_the_word_in_brackets(
    machine: Path, content: str, level: str, verdict: Verdict
) -> None:
    put(machine, "/sys/kernel/security/lockdown", content)
    assert LinuxFacts(LinuxHost(machine)).lockdown == level
    assert check(machine, "lockdown").verdict is verdict


def test_a_kernel_without_that_file_says_nothing_of_lockdown(machine: Path) -> None:
    (machine / "sys/kernel/security/lockdown").unlink()
    put(machine, "/sys/kernel/security/lsm", "capability,landlock\n")
    assert checks(machine, "lockdown") == []


@pytest.mark.parametrize(
    ("words", "level", "says"),
    [
        ("quiet", None, "can't be known: securityfs is not mounted"),
        ("lockdown=integrity quiet", "integrity", "(integrity, by its command line)"),
        ("lockdown=nonsense", None, "can't be known"),
    ],
)
def test_without_securityfs_the_command_line_says_it_or_it_can_not_be_known(
    machine: Path, words: str, level: str | None, says: str
) -> None:
    (machine / "sys/kernel/security/lockdown").unlink()
    put(machine, "/proc/cmdline", words)
    assert LinuxFacts(LinuxHost(machine)).lockdown == level
    row = check(machine, "lockdown")
    assert says in row.found
    expected = Verdict.UNKNOWN if level is None else Verdict.HANDLED
    assert (row.verdict, bool(row.advice)) == (expected, True)


def test_without_securityfs_secure_boot_is_a_sign_of_lockdown(machine: Path) -> None:
    (machine / "sys/kernel/security/lockdown").unlink()
    put_variable(machine, f"SecureBoot-{GLOBAL_VARIABLE}", b"\1")
    assert "Secure Boot is on, with which many kernels are" in check(machine, "lockdown").found


# -- encrypted disks ------------------------------------------------------------------------


def disks(machine: Path) -> tuple[EncryptedDisk, ...]:
    return read_encrypted_disks(LinuxHost(machine))


@pytest.mark.parametrize(
    ("content", "kind", "tokens", "uses_tpm"),
    [
        (luks2_header(), "LUKS2", (), False),
        (luks2_header({"type": "systemd-tpm2"}), "LUKS2", ("systemd-tpm2",), True),
        (luks2_header({"type": "systemd-recovery"}), "LUKS2", ("systemd-recovery",), False),
        (luks2_header(clevis_token("tang")), "LUKS2", ("clevis tang",), False),
        (luks2_header(clevis_token("tpm2")), "LUKS2", ("clevis tpm2",), True),
        (
            luks2_header(
                clevis_token("sss", {"jwe": [compact_jwe("tang"), compact_jwe("tpm2")]}),
            ),
            "LUKS2",
            ("clevis sss tang tpm2",),
            True,
        ),
        (b"LUKS\xba\xbe\0\1".ljust(1024, b"\0"), "LUKS1", (), False),
        (b"\xeb\x58\x90-FVE-FS-\0\2\x08".ljust(512, b"\0"), "BitLocker", (), False),
    ],
)
def test_an_encrypted_disk_is_known_by_its_first_sectors(
    machine: Path, content: bytes, kind: str, tokens: tuple[str, ...], uses_tpm: bool
) -> None:
    put_disk(machine, "nvme0n1p3", content, "259:3")
    (disk,) = disks(machine)
    assert disk == EncryptedDisk("/dev/nvme0n1p3", kind, tokens)
    assert disk.uses_tpm == uses_tpm


@pytest.mark.parametrize(
    "area",
    [b"", b"{", b"[]", b'{"tokens": []}', b'{"tokens": {"0": 5}}', b"[" * 9000],
    ids=["empty", "half", "a list", "no tokens", "a number", "deep"],
)
def test_a_header_that_is_not_right_has_no_tokens(machine: Path, area: bytes) -> None:
    header = luks2_header()[:4096] + area.ljust(12288, b"\0")
    put_disk(machine, "sda3", header, "8:3")
    assert disks(machine) == (EncryptedDisk("/dev/sda3", "LUKS2"),)


@pytest.mark.parametrize("protected", [None, 7, "", "%%%", "e30", "W10"])
def test_a_token_of_clevis_that_is_not_right_names_no_pin(machine: Path, protected: object) -> None:
    token = {"type": "clevis", "jwe": {"protected": protected}}
    put_disk(machine, "sda3", luks2_header(token, {"type": "clevis", "jwe": 5}), "8:3")
    assert disks(machine)[0].tokens == ("clevis", "clevis")


def test_a_disk_that_udev_knows_to_be_plain_is_not_read(machine: Path) -> None:
    put_disk(machine, "sda3", luks2_header(), "8:3")
    put(machine, "/run/udev/data/b8:3", "S:disk/by-label/root\nE:ID_FS_TYPE=ext4\n")
    put_disk(machine, "loop0", luks2_header(), "7:0")
    put_disk(machine, "sdb", luks2_header(), "8:16")
    put(machine, "/sys/class/block/sdb/size", "0\n")
    assert disks(machine) == ()


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ("E:ID_FS_TYPE=crypto_LUKS\nE:ID_FS_VERSION=1\n", "LUKS1"),
        ("E:ID_FS_TYPE=crypto_LUKS\nE:ID_FS_VERSION=2\n", "LUKS2"),
        ("E:ID_FS_TYPE=BitLocker\n", "BitLocker"),
    ],
)
def test_a_disk_that_udev_knows_to_be_encrypted_and_none_can_read_is_told(
    machine: Path, record: str, kind: str
) -> None:
    put_tpm(machine)
    put_disk(machine, "dm-1", b"", "254:1")
    (machine / "dev/dm-1").unlink()
    put(machine, "/run/udev/data/b254:1", record)
    assert disks(machine) == (EncryptedDisk("/dev/dm-1", kind, is_readable=False),)
    said = check(machine, "encrypted_disks")
    assert said.verdict is Verdict.UNKNOWN
    assert f"/dev/dm-1 ({kind})" in said.found
    assert ("BitLocker in Windows" in said.advice) == (kind == "BitLocker")


def test_disks_that_a_tpm_unlocks_are_named_and_the_recovery_key_asked_for(machine: Path) -> None:
    put_disk(machine, "sda3", luks2_header(clevis_token("tpm2")), "8:3")
    put(
        machine,
        "/etc/crypttab",
        "# tpm2-device=auto\nroot UUID=1 none luks,tpm2-device=auto\nswap /dev/sdb1 x swap\n",
    )
    assert checks(machine, "tpm") == []  # without a TPM nothing is asked of the disks
    put_tpm(machine)
    said = check(machine, "tpm")
    assert said.verdict is Verdict.UNKNOWN
    assert (
        "TPM 2.0 unlocks /dev/sda3 (LUKS2, clevis tpm2), root (/etc/crypttab, tpm2-device)"
        in said.found
    )
    assert "recovery key" in said.advice


@pytest.mark.parametrize(
    ("major", "name"), [("1\n", "TPM 1.2"), ("2\n", "TPM 2.0"), ("", "TPM")], ids=str.strip
)
def test_a_tpm_that_unlocks_nothing_is_fine(machine: Path, major: str, name: str) -> None:
    put(machine, "/sys/class/tpm/tpm0/tpm_version_major", major)
    put(machine, "/sys/class/tpm/tpmrm0", "")
    said = check(machine, "tpm")
    assert (said.verdict, said.found) == (
        Verdict.FINE,
        f"{name}; no disk is seen that it unlocks",
    )
