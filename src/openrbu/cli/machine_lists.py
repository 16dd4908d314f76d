"""What a virtual machine can be made of: machine models, profiles, rules, faults."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum

from openrbu.cli.show import Answer, Table
from openrbu.units import human_size


def models() -> Answer:
    """List the models that a virtual machine can be.

    \b
    Example:  rbu machine models
    """
    from openrbu.machine.models import DEFAULT_MODEL, MODELS

    documents = [
        {
            "name": each.name,
            "is_default": each.name == DEFAULT_MODEL,
            "vendor": each.vendor,
            "product": each.product,
            "system_id": f"{each.system_id:#06x}",
            "bios_version": each.bios_version,
            "bios_rules": each.bios_rules,
            "flash_size_bytes": each.flash_size_bytes,
            "ram_bytes": each.ram_bytes,
            "takes_packets": bool(each.packets),
            "tokens": each.tokens.name.lower(),
        }
        for each in MODELS.values()
    ]
    rows = [
        (
            each.name,
            each.product,
            f"{each.system_id:#06x}",
            each.bios_version,
            each.bios_rules,
            human_size(each.flash_size_bytes),
            human_size(each.ram_bytes),
            "mono, packets" if each.packets else "mono",
            each.tokens.value,
        )
        for each in MODELS.values()
    ]
    columns = ("name", "product", "ID", "BIOS", "rules", "flash", "RAM", "updates by", "tokens")
    return Answer({"models": documents}, [Table("Models", columns, rows)])


def profiles() -> Answer:
    """List the kernels' drivers that a virtual machine can have.

    \b
    Example:  rbu machine profiles
    """
    from openrbu.drivers.dell_rbu_profiles import PROFILES

    documents = [
        {
            name: value.value if isinstance(value, Enum) else value
            for name, value in asdict(each).items()
        }
        for each in PROFILES.values()
    ]
    rows = [(each.name, each.summary) for each in PROFILES.values()]
    columns = ("name", "how its dell_rbu behaves")
    return Answer({"profiles": documents}, [Table("Profiles", columns, rows)])


def rules() -> Answer:
    """List the rule sets that a virtual machine's BIOS can follow.

    \b
    Example:  rbu machine rules
    """
    from openrbu.bios.rules import RULE_SETS

    documents = [
        {
            "name": each.name,
            "summary": each.summary,
            "knows_packets": each.knows_packets,
            "looks_above_4_gib": each.searches_above_4_gib,
            "token_cleared": each.token_cleared.value,
            "records_in_cmos": each.records_in_cmos,
        }
        for each in RULE_SETS.values()
    ]
    rows = [(each.name, each.summary) for each in RULE_SETS.values()]
    return Answer({"rules": documents}, [Table("Rule sets", ("name", "what it does"), rows)])


def faults() -> Answer:
    """List the faults that a virtual machine can have on purpose, and what each does.

    \b
    Example:  rbu machine faults
    """
    from openrbu.machine.faults import GROUPS

    documents = [
        {
            "name": kind.name,
            "group": group,
            "usage": kind.usage,
            "does": kind.does,
            "value": kind.value or None,
            "least": kind.values[0] if kind.value else None,
            "most": kind.values[-1] if kind.value else None,
            "default": kind.default,
        }
        for group, kinds in GROUPS.items()
        for kind in kinds
    ]
    rows = [(kind.usage, group, kind.does) for group, kinds in GROUPS.items() for kind in kinds]
    return Answer({"faults": documents}, [Table("Faults", ("fault", "of", "what it does"), rows)])
