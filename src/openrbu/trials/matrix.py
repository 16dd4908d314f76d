"""The default matrix of `rbu try`: which machines a tool is tried on when nothing else is chosen.

All models with all kernels, where a good tool updates. Then single machines that differ in what
has made tools fail: another BIOS than the model's own, more RAM than there is below 4 GiB, and
accidents. There a good tool updates, or gives up and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from openrbu.drivers.dell_rbu_profiles import PROFILES
from openrbu.machine.models import MODELS
from openrbu.trials.combinations import Combination
from openrbu.trials.verdicts import Verdict
from openrbu.units import GIB, MIB

KERNEL = "linux"
"""The kernel of the single machines."""

ODD_MACHINES: tuple[Combination, ...] = (
    # Another BIOS: the published rules search from 1 MiB up and refuse what contradicts.
    Combination("poweredge-2650", bios_rules="published"),
    Combination("precision-390", bios_rules="published"),
    # RAM above 4 GiB, where kernels put packets and few BIOSes search.
    Combination("precision-390", ram_bytes=5 * GIB, may_give_up=True),
    Combination("poweredge-2950", ram_bytes=5 * GIB, may_give_up=True),
    # Little RAM.
    Combination("latitude-d500", ram_bytes=64 * MIB, may_give_up=True),
    # Firmware that does not write its flash.
    *(
        Combination(model, faults=(fault,), expected=(Verdict.REFUSED.value,), may_give_up=True)
        for model, fault in (
            ("latitude-d500", "no-battery"),
            ("poweredge-2950", "flash-not-accessible"),
            ("precision-390", "erase-fails"),
        )
    ),
    # The BIOS asks for its admin password, which the tool has not got.
    *(
        Combination(
            model,
            faults=("password",),
            expected=(Verdict.UPDATED.value, Verdict.REFUSED.value),
            may_give_up=True,
        )
        for model in ("precision-390", "precision-t7600")
    ),
)
"""Machines of the matrix beside models × kernels, of the kernel `KERNEL`."""


def default_matrix() -> Iterator[Combination]:
    """All combinations of the default matrix."""
    for model in MODELS:
        for profile in PROFILES:
            yield Combination(model, profile)
    for each in ODD_MACHINES:
        yield replace(each, profile=KERNEL)
