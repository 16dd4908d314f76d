"""Which machine this is, and whether its BIOS is one that RBU is known to update: its system ID by
each way, what it says of RBU, and whether it takes UEFI capsules instead.

Facts: docs/reference/platform.md, V1, V2 and V3.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from openrbu.formats.chassis import (
    MachineKind,
    chassis_text,
    has_uefi,
    machine_kind,
    release_year,
    system_id_by_sku,
)
from openrbu.formats.dell import system_ids
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation

if TYPE_CHECKING:
    from openrbu.linux.efi import CapsuleTarget

_check = partial(Check, Question.IMAGE)

_UEFI_YEAR = 2011
"""Since about then Dell's client machines have UEFI."""

_IGNORES = "--allow-known-broken ignores this"


def checks(seen: Situation) -> Iterator[Check]:
    """Which machine this is, and whether RBU is its way."""
    yield _machine(seen)
    yield from _system_id(seen)
    yield from _rbu(seen)
    yield from _client(seen)
    yield from _capsules(seen)


def _machine(seen: Situation) -> Check:
    """Vendor, product, chassis, and the BIOS that runs."""
    target = seen.target
    chassis = chassis_text(target.tables)
    text = (
        f"{target.system.vendor or 'no vendor'} {target.title}"
        + (f", {chassis}" if chassis else "")
        + f"; BIOS {target.bios.version or 'without a version'}"
        + (f" of {target.bios.release_date}" if target.bios.release_date else "")
    )
    if target.is_dell:
        return _check("machine", text, Verdict.FINE)
    return _check("machine", text, Verdict.UNKNOWN, "RBU is known of Dell's machines only")


def _system_id(seen: Situation) -> Iterator[Check]:
    """The system ID by each way that has one, and the hardware revision."""
    ids, revision = system_ids(seen.target.tables), seen.target.hardware_revision
    if not ids:
        return
    sku = system_id_by_sku(seen.target.tables)
    if sku is not None:
        ids["the SKU number"] = sku
    if revision is not None and seen.target.system_id is not None:  # read from where that ID is
        ids["the BIOS in its ROM"] = seen.target.system_id
    told = f"hardware revision {revision}"
    if revision is None:
        told = "the hardware revision can't be read here"
    if len(set(ids.values())) == 1:
        ways = " and by ".join(ids)
        text = f"{seen.target.system_id:#06x} by {ways}; {told}"
        yield _check("system_id", text, Verdict.FINE)
        return
    said = ", ".join(f"{way} says {each:#06x}" for way, each in ids.items())
    yield _check(
        "system_id",
        f"the tables disagree: {said}; {told}",
        Verdict.UNKNOWN,
        f"{next(iter(ids))} counts here, as for Dell's tools: check that the image is for this "
        "very model",
    )


def _rbu(seen: Situation) -> Iterator[Check]:
    """What the RBU structure says; that there is none is an obstacle of staging."""
    if seen.target.rbu is not None:
        kinds = "monolithic images and packets" if seen.takes_packets else "monolithic images only"
        yield _check("rbu_structure", f"SMBIOS says that the BIOS takes {kinds}", Verdict.FINE)


def _client(seen: Situation) -> Iterator[Check]:
    """A client machine with an RBU structure: whether it is of the time when RBU worked there."""
    target = seen.target
    if target.rbu is None or machine_kind(target.tables) is not MachineKind.CLIENT:
        return
    year = release_year(target.bios)
    since = "RBU has not worked properly on client machines since they have UEFI (Dell, 2016)"
    if seen.linux.efi is not None or has_uefi(target.tables):
        text = f"a client machine with UEFI, whose tables still have an RBU structure: {since}"
        if seen.options.allow_known_broken:
            yield _check("client_machine", text, Verdict.UNKNOWN)
        else:
            yield _check(
                "client_machine",
                text,
                Verdict.IN_THE_WAY,
                f"update it with fwupdmgr, or from the BIOS's own boot menu ({_IGNORES})",
                obstacle="client_with_uefi",
            )
    elif year is not None and year >= _UEFI_YEAR:
        yield _check(
            "client_machine",
            f"a client machine with a BIOS of {year}: {since}, and this one may have it",
            Verdict.UNKNOWN,
            "after the restart `rbu status` says whether the BIOS took the image",
        )
    else:
        text = "a client machine of before UEFI, when RBU was its way"
        yield _check("client_machine", text, Verdict.FINE)


def _capsules(seen: Situation) -> Iterator[Check]:
    """Whether UEFI capsules update this machine's BIOS."""
    efi = seen.linux.efi
    if efi is None:
        yield _check("capsules", "Linux was not started by UEFI: no capsules here", Verdict.FINE)
        return
    firmware = efi.system_firmware
    if firmware is None:
        text = "UEFI started Linux, and takes no capsules for the system's firmware"
        yield _check("capsules", text, Verdict.FINE)
        return
    text = f"this machine's BIOS takes UEFI capsules ({_entry_text(firmware)})"
    is_way = seen.target.rbu is not None and (
        machine_kind(seen.target.tables) is MachineKind.SERVER or seen.options.allow_known_broken
    )
    if is_way:
        text = f"{text}; its tables have an RBU structure, too"
        yield _check("capsules", text, Verdict.UNKNOWN, "fwupdmgr is the tested way")
    else:
        advice = "update it with fwupdmgr: `fwupdmgr refresh`, `fwupdmgr update`"
        yield _check(
            "capsules",
            text,
            Verdict.IN_THE_WAY,
            advice if seen.target.rbu is None else f"{advice} ({_IGNORES})",
            obstacle="takes_capsules",
        )


def _entry_text(firmware: CapsuleTarget) -> str:
    """What the ESRT says: the GUID, the version, the last attempt."""
    words = [firmware.guid]
    if firmware.version is not None:
        words.append(f"version {firmware.version:#010x}")
    attempt = firmware.last_attempt
    words.append(f"last attempt: {attempt}" if attempt else "no attempt is known")
    return ", ".join(words)
