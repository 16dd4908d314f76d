"""Rule sets: what BIOSes do with a staged update. They are to a BIOS what profiles are to a driver.

`published` follows the published rules. The others do what the code of real BIOSes does: that code
was run in an emulator, and the tests compare each rule set with it, step by step (`tests/oracle`).
"""

from __future__ import annotations

from collections.abc import Mapping

from openrbu.bios.rule_names import check_rule_name
from openrbu.bios.rules import latitude_d500, poweredge_2950, published
from openrbu.bios.rules.ruleset import (
    FoundUpdate,
    Identity,
    RejectedError,
    RuleSet,
    TokenCleared,
    Trace,
)
from openrbu.formats import dell
from openrbu.formats.smbios import Tables

__all__ = [
    "PUBLISHED",
    "RULE_SETS",
    "FoundUpdate",
    "Identity",
    "RejectedError",
    "RuleSet",
    "TokenCleared",
    "Trace",
    "known_flash_size",
    "rule_set",
    "rules_for",
]

PUBLISHED = published.RULES

RULE_SETS: Mapping[str, RuleSet] = {
    rules.name: rules for rules in (PUBLISHED, poweredge_2950.RULES, latitude_d500.RULES)
}

_RULES_OF_SYSTEM = {
    **dict.fromkeys((0x01B1, 0x01B2, 0x01B3, 0x01B8, 0x01BB), poweredge_2950.RULES),
    0x0152: latitude_d500.RULES,
}
"""The systems whose BIOS's code is known, because whole images of it exist: PowerEdge 2900, 2950,
1950, 1900 and 1955 (0.2.8, 0.2.9), Latitude D500 (A10)."""


def rule_set(name: str) -> RuleSet:
    """The rule set called `name`.

    :raise UsageError: when there is none; the message names them all.
    """
    check_rule_name(name)
    return RULE_SETS[name]


def rules_for(tables: Tables) -> RuleSet:
    """The rule set for the machine with these tables: the one of its BIOS's own code if that is
    known, else `published`."""
    return _RULES_OF_SYSTEM.get(dell.system_id(tables) or 0, PUBLISHED)


def known_flash_size(tables: Tables) -> int | None:
    """The size of the data in an image for this machine, in bytes, from its BIOS's own code.

    None if that code is not known.
    """
    return rules_for(tables).real_data_bytes
