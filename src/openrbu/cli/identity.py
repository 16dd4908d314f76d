"""How an answer names its machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openrbu.api import Machine

if TYPE_CHECKING:
    from openrbu.update.target import Target


def machine_words(machine: Machine) -> str:
    """The option that names the same machine in another command line; empty: this computer."""
    return "" if machine.virtual is None else f" --machine {machine.virtual.name}"


def machine_document(machine: Machine, target: Target) -> dict[str, Any]:
    """Which machine it is, for `--json`."""
    system_id = target.system_id
    return {
        "name": machine.virtual.name if machine.virtual is not None else None,
        "vendor": target.system.vendor,
        "product": target.system.product,
        "service_tag": target.system.service_tag,
        "system_id": None if system_id is None else f"{system_id:#06x}",
        "system_name": system_name(system_id),
        "hardware_revision": target.hardware_revision,
    }


def machine_title(machine: Machine, target: Target) -> str:
    """Which machine it is, for people; with the product of its system ID, where that differs."""
    system_id = target.system_id
    identity = "no system ID" if system_id is None else f"system {system_id:#06x}"
    known = system_name(system_id)
    if known and known.casefold() != target.system.product.casefold():
        identity += f" ({known})"
    name = machine.host.name if machine.virtual is None else machine.virtual.name
    return f"{name}: {target.title}, {identity}"


def system_name(system_id: int | None) -> str | None:
    """The product that has this system ID; None: not known."""
    if system_id is None:
        return None
    from openrbu.formats.systems import known_system

    return known_system(system_id).name or None
