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
from openrbu.units import GIB

KERNEL = "linux"
"""The kernel of the single machines."""

BROKEN_KERNEL = "linux-5.7"
"""It reads packets back wrong, and crashes when packets are dropped."""

_OTHER_BIOSES = (
    Combination("poweredge-2650", bios_rules="published"),
    Combination("precision-390", bios_rules="published"),
)
"""The published rules refuse what contradicts, where these models' own BIOSes take the first."""

_MUCH_RAM = (
    Combination("precision-390", ram_bytes=5 * GIB),
    Combination("poweredge-2950", ram_bytes=5 * GIB),
)
"""Kernels put packets above 4 GiB, where few BIOSes search."""

_ACCIDENTS = (
    ("precision-390", "fragmented=3"),
    ("latitude-d500", "fragmented=6"),
    ("poweredge-2650", "little-memory"),
    ("poweredge-2950", "allocation-fails=2"),
    ("precision-390", "memory-changes"),
    ("latitude-d500", "no-module"),
    ("poweredge-2650", "built-in"),
    ("precision-390", "no-firmware-entry"),
    ("poweredge-2950", "slow-entries=1"),
    ("poweredge-2650", "lockdown-integrity"),
    ("latitude-d500", "cold-restart"),
    ("precision-390", "kexec-loaded"),
)
"""A good tool updates, or gives up."""

_REFUSING = (
    ("latitude-d500", "no-battery"),
    ("poweredge-2950", "flash-not-accessible"),
    ("precision-390", "erase-fails"),
    ("precision-390", "password"),
    ("precision-t7600", "password"),
)
"""The BIOS may refuse there, which a tool can't know beforehand."""

UPDATED, REFUSED = Verdict.UPDATED.value, Verdict.REFUSED.value

ODD_MACHINES: tuple[Combination, ...] = (
    *_OTHER_BIOSES,
    *(replace(each, may_give_up=True) for each in _MUCH_RAM),
    *(Combination(model, faults=(fault,), may_give_up=True) for model, fault in _ACCIDENTS),
    *(
        Combination(model, faults=(fault,), expected=(UPDATED, REFUSED), may_give_up=True)
        for model, fault in _REFUSING
    ),
)
"""Machines of the matrix beside models × kernels, of the kernel `KERNEL`."""


def default_matrix() -> Iterator[Combination]:
    """All combinations of the default matrix."""
    for model in MODELS:
        for profile in PROFILES:
            yield Combination(model, profile, may_give_up=profile == BROKEN_KERNEL)
    for each in ODD_MACHINES:
        yield replace(each, profile=KERNEL)
