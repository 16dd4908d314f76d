"""The rule set and the hardware revision of a machine: ordered, kept, shown, and followed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.rules import RULE_SETS
from openrbu.errors import MachineError, UsageError
from openrbu.formats import dell
from openrbu.formats.dell import CompletionCode
from openrbu.machine.config import load_config
from openrbu.machine.models import MODELS
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import KIB, MIB, PhysAddr
from rigs.cli import Cli
from rigs.machines import image_bytes, make, running

RAM = ("--ram", "64M")
FLASH_BYTES = 1 * MIB


def put_and_arm(machine: VirtualMachine, image: bytes) -> None:
    machine.ram.write(PhysAddr(8 * MIB), image)
    assert machine._activation is not None
    machine._activation.arm()  # type: ignore[union-attr]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_names_a_rule_set_that_there_is(model: str) -> None:
    assert MODELS[model].bios_rules in RULE_SETS


def test_a_machine_made_before_there_were_rule_sets_follows_the_published_rules(
    tmp_path: Path,
) -> None:
    path = make(tmp_path) / "machine.json"
    document = json.loads(path.read_text())
    assert document["bios_rules"] == "poweredge-2950"
    del document["bios_rules"], document["hardware_revision"]
    document["format"] = 1
    path.write_text(json.dumps(document))
    config = load_config(path.parent)
    assert (config.bios_rules, config.hardware_revision) == ("published", 0)


@pytest.mark.parametrize(
    "broken", [{"bios_rules": "award"}, {"hardware_revision": 8}, {"hardware_revision": "1"}]
)
def test_a_machine_of_a_rule_set_that_there_is_not_is_damaged(
    tmp_path: Path, broken: dict[str, object]
) -> None:
    path = make(tmp_path) / "machine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | broken))
    with pytest.raises(MachineError, match="damaged"):
        load_config(path.parent)


@pytest.mark.parametrize("order", [{"bios_rules": "award"}, {"hardware_revision": 8}])
def test_what_can_not_be_is_not_made(tmp_path: Path, order: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make(tmp_path, **order)


def test_an_image_for_another_hardware_revision_is_refused(tmp_path: Path) -> None:
    image = image_bytes("poweredge-2950", flash_size_bytes=FLASH_BYTES)
    order: dict[str, Any] = {"flash_size_bytes": None, "hardware_revision": 1}
    with running(make(tmp_path, "poweredge-2950", **order)) as machine:
        put_and_arm(machine, image)
        report = machine.restart(cold=False)
        assert report.completion_code == CompletionCode.IMAGE_NOT_FOUND
        assert "system ID and revision" in report.reason


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ("poweredge-2950", CompletionCode.COMPLETED),
        ("published", CompletionCode.COMPLETED),
        ("latitude-d500", CompletionCode.IMAGE_NOT_FOUND),
    ],
)
def test_a_machine_follows_the_rule_set_that_was_ordered(
    tmp_path: Path, rules: str, code: CompletionCode
) -> None:
    image = image_bytes("poweredge-2950", flash_size_bytes=FLASH_BYTES)
    order: dict[str, Any] = {"flash_size_bytes": None, "bios_rules": rules}
    with running(make(tmp_path, "poweredge-2950", **order)) as machine:
        put_and_arm(machine, image)
        assert machine.restart(cold=False).completion_code == code


@pytest.mark.parametrize(
    ("system", "rules", "flash"),
    [(0x01BB, "poweredge-2950", MIB), (0x0152, "latitude-d500", MIB), (0x0121, "published", None)],
)
def test_real_tables_bring_the_rule_set_and_the_flash_of_their_system(
    tmp_path: Path, system: int, rules: str, flash: int | None
) -> None:
    tables = make(tmp_path, "poweredge-2650", name="tables", flash_size_bytes=None)
    order: dict[str, Any] = {"tables": tables, "system_id": system, "flash_size_bytes": None}
    with running(make(tmp_path, **order)) as machine:
        assert machine.config.bios_rules == rules
        assert machine.flash.size_bytes == (flash or 512 * KIB)
        assert dell.BiosInformation.of(machine.tables).rom_size_bytes == 512 * KIB


def test_a_d500_takes_1_mib_although_its_smbios_says_512_kib(tmp_path: Path) -> None:
    with running(make(tmp_path, "latitude-d500", flash_size_bytes=None)) as machine:
        assert dell.BiosInformation.of(machine.tables).rom_size_bytes == 512 * KIB
        rbu = dell.RbuInformation.of(machine.tables)
        assert rbu is not None
        assert (rbu.minimum_size_kib, rbu.packet_supported) == (513, False)
        image = image_bytes("latitude-d500", flash_size_bytes=FLASH_BYTES)
        put_and_arm(machine, image)
        report = machine.restart(cold=False)
        assert (report.completion_code, report.version_after) == (CompletionCode.COMPLETED, "A10")


# -- on the command line -------------------------------------------------------------------------


def test_bios_revision_and_flash_size_are_ordered_and_shown(rbu: Cli) -> None:
    words = ("--bios", "published", "--revision", "3", "--flash-size", "2M")
    rbu.json("machine", "new", "m", "--model", "precision-390", *words, *RAM)
    shown = rbu.json("machine", "show", "m")
    assert (shown["bios_rules"], shown["hardware_revision"]) == ("published", 3)
    assert shown["flash_size_bytes"] == 2 * MIB
    told = rbu("machine", "show", "m").out
    assert "published" in told
    assert "hardware revision" in told


@pytest.mark.parametrize("words", [("--bios", "award"), ("--revision", "8"), ("--revision", "-1")])
def test_what_can_not_be_is_a_matter_of_usage(rbu: Cli, words: tuple[str, ...]) -> None:
    rbu.fails(2, "machine", "new", "m", *words, *RAM)
    assert rbu.json("machine", "list")["machines"] == []


def test_the_rule_sets_are_listed_with_a_line_each(rbu: Cli) -> None:
    document = rbu.json("machine", "rules")
    assert [each["name"] for each in document["rules"]] == list(RULE_SETS)
    by_name = {each["name"]: each for each in document["rules"]}
    assert by_name["poweredge-2950"] == {
        "name": "poweredge-2950",
        "summary": RULE_SETS["poweredge-2950"].summary,
        "knows_packets": True,
        "looks_above_4_gib": True,
        "token_cleared": "last",
        "records_in_cmos": True,
    }
    told = rbu("machine", "rules").out
    assert all(name in told for name in RULE_SETS)


def test_names_of_rule_sets_are_completed() -> None:
    from openrbu.cli.options import complete_rules

    assert complete_rules("pow") == ["poweredge-2950"]
    assert complete_rules("") == list(RULE_SETS)


def test_a_plan_shows_the_rules_that_the_machines_own_bios_follows(rbu: Cli) -> None:
    """Beside those that the update is checked with: outside it is not known which one it has."""
    path = rbu.image()
    for rules in ("published", "poweredge-2950", "latitude-d500"):
        rbu("machine", "new", rules, "--bios", rules, *RAM)
        ended = rbu("plan", path, "--machine", rules)
        assert ended.code == 0
        rows = dict(row.strip().partition(":  ")[::2] for row in ended.out.splitlines())
        assert rows.get("its BIOS rules", rows["BIOS rules"]).split(",")[0].strip() == rules
        planned = rbu.json("plan", path, "--machine", rules)
        assert planned["machine_bios_rules"] == rules
        assert ("not among those below" in ended.out) == (rules not in planned["bios_rules"])


def test_a_model_beside_tables_is_a_matter_of_usage(rbu: Cli) -> None:
    """Such a machine was made after the tables, and the model did not count."""
    rbu("machine", "new", "first", "--model", "precision-390", *RAM)
    tables = ("--from-tables", rbu.directory.parent / "home" / "machines" / "first")
    told = rbu.fails(2, "machine", "new", "m", "--model", "latitude-d500", *tables, *RAM)
    assert "either a latitude-d500 or the one that the tables in" in told
    made = rbu.json("machine", "new", "m", *tables, *RAM)
    assert made["product"] == "Precision WorkStation 390"


def test_an_empty_bios_version_is_a_matter_of_usage(rbu: Cli) -> None:
    """It was taken for the model's own."""
    told = rbu.fails(2, "machine", "new", "m", "--bios-version", "", *RAM)
    assert "'' is not a BIOS version" in told
    assert rbu.json("machine", "list")["machines"] == []
