"""Faults of machines: how they are written, what can't be together, and the lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.rules import RULE_SETS
from openrbu.drivers.dell_rbu_profiles import PROFILES
from openrbu.errors import UsageError
from openrbu.faults import FaultKind, parse_faults
from openrbu.kernel.faults import SLOW_ENTRIES
from openrbu.machine import faults
from openrbu.machine.config import load_config
from openrbu.machine.models import DEFAULT_MODEL, MODELS
from rigs.cli import Cli
from rigs.machines import make, running

PLAIN = FaultKind("plain", "Does it.")
NUMBERED = FaultKind("numbered", "Does it N times.", value="N", values=range(11))
OPTIONAL = FaultKind("optional", "Does it N times.", value="N", values=range(1, 11), default=4)
KINDS = (PLAIN, NUMBERED, OPTIONAL)


# -- how they are written -------------------------------------------------------------------


def test_a_fault_is_a_name_with_a_number_where_it_takes_one() -> None:
    assert parse_faults(["plain", "numbered=0", "optional"], KINDS) == {
        PLAIN: 1,
        NUMBERED: 0,
        OPTIONAL: 4,
    }
    assert parse_faults(["optional=10"], KINDS) == {OPTIONAL: 10}
    assert [kind.usage for kind in KINDS] == ["plain", "numbered=N", "optional[=N]"]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["gremlins"], "no fault is called 'gremlins'; there are: plain, numbered, optional"),
        ([""], "no fault is called ''"),
        (["PLAIN"], "no fault is called 'PLAIN'"),
        (["plain="], "the fault plain takes no number, not even ''"),
        (["plain=1"], "takes no number, not even '1'"),
        (["numbered"], "the fault numbered needs a number: numbered=N"),
        (["numbered=11"], "the fault numbered takes a number from 0 to 10, not '11'"),
        (["numbered=-1"], "from 0 to 10, not '-1'"),
        (["numbered=٣"], "from 0 to 10"),
        (["numbered=" + "9" * 5000], "from 0 to 10"),
        (["optional="], "the fault optional takes a number from 1 to 10, not ''"),
        (["optional=1=2"], "not '1=2'"),
        (["numbered=1", "numbered=2"], "the fault numbered is given twice"),
    ],
)
def test_what_is_no_fault_is_refused_in_one_line(labels: list[str], says: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_faults(labels, KINDS)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_each_fault_has_a_name_of_its_own_and_one_sentence() -> None:
    kinds = faults.all_faults()
    assert len({kind.name for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind.name == kind.name.lower()
        assert kind.does.endswith(".")
        assert kind.does.count(". ") == 0
        assert kind.default is None or kind.default in kind.values
        assert (kind.value in kind.does) == bool(kind.value) or not kind.value


# -- those that are another name for an option ----------------------------------------------


def test_a_fault_that_is_another_name_for_an_option_sets_it(tmp_path: Path) -> None:
    labels = ("slow-entries=3", "cold-restart", "linux-5.7-bugs", "password")
    directory = make(tmp_path, faults=labels)
    config = load_config(directory)
    assert config.faults == labels
    assert (config.entry_delay_s, config.has_reboot_files) == (3.0, False)
    assert config.profile == "linux-5.7"
    with running(directory) as machine:
        assert machine.nvram.contents.admin_password_crc is not None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            {"faults": ("slow-entries",), "entry_delay_s": 1.0},
            "the fault slow-entries is another name for --entry-delay: give only one",
        ),
        (
            {"faults": ("linux-5.7-bugs",), "profile": "linux"},
            "the fault linux-5.7-bugs is another name for a --profile: give only one",
        ),
        (
            {"faults": ("password",), "admin_password": "secret"},
            "the fault password is another name for a password: give only one",
        ),
    ],
)
def test_such_a_fault_beside_another_value_of_the_option_is_refused(
    tmp_path: Path, spec: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError) as raised:
        make(tmp_path, **spec)
    assert str(raised.value) == says


# -- the lists ------------------------------------------------------------------------------


def test_the_lists_show_all_that_there_is(rbu: Cli) -> None:
    lists = {
        "models": list(MODELS),
        "profiles": list(PROFILES),
        "rules": list(RULE_SETS),
        "faults": [kind.name for kind in faults.all_faults()],
    }
    for what, names in lists.items():
        document = rbu.json("machine", what)
        assert [each["name"] for each in document[what]] == names
        shown = rbu("machine", what).out
        assert all(name in shown for name in names)


def test_a_list_tells_what_a_machine_would_be(rbu: Cli) -> None:
    for each in rbu.json("machine", "models")["models"]:
        assert each["is_default"] == (each["name"] == DEFAULT_MODEL)
        assert each["bios_rules"] in RULE_SETS
    assert all(each["summary"] for each in rbu.json("machine", "profiles")["profiles"])
    listed = {each["name"]: each for each in rbu.json("machine", "faults")["faults"]}
    assert listed["no-battery"]["value"] is None
    assert listed["slow-entries"] == {
        "name": "slow-entries",
        "group": "kernel",
        "usage": "slow-entries[=SECONDS]",
        "does": SLOW_ENTRIES.does,
        "value": "SECONDS",
        "least": 1,
        "most": 3600,
        "default": 2,
    }
