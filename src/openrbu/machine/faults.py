"""All faults that a machine can have on purpose: `rbu machine new --fault`.

Each group is defined in its own folder, beside what it breaks. Here they are one list, with what
can't go together, and with those that are another name for an option of a machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from openrbu.bios import faults as firmware
from openrbu.errors import UsageError
from openrbu.faults import FaultKind, Faults
from openrbu.faults import parse_faults as parse
from openrbu.kernel import faults as kernel
from openrbu.memory import faults as memory

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Spec = TypeVar("Spec", bound=DataclassInstance)

GROUPS: Mapping[str, tuple[FaultKind, ...]] = MappingProxyType(
    {"memory": memory.FAULTS, "kernel": kernel.FAULTS, "firmware": firmware.FAULTS}
)
"""All faults, by group."""

EITHER_OR: tuple[tuple[FaultKind, FaultKind, str], ...] = (
    (kernel.NO_MODULE, kernel.BUILT_IN, "a driver that is built in is there"),
    (kernel.NO_MODULE, kernel.BUGS_OF_5_7, "a module that is not there has no bugs"),
    (kernel.NO_FIRMWARE_ENTRY, kernel.SLOW_ENTRIES, "an entry that never comes is not slow"),
    (kernel.LOCKDOWN_INTEGRITY, kernel.LOCKDOWN_CONFIDENTIALITY, "a kernel has one lockdown"),
)
"""Pairs of faults that no machine can have, and why."""


_FIXED: Mapping[FaultKind, tuple[str, object]] = MappingProxyType(
    {
        kernel.COLD_RESTART: ("has_reboot_files", False),
        kernel.BUGS_OF_5_7: ("profile", "linux-5.7"),
        firmware.PASSWORD: ("admin_password", "openrbu"),
    }
)
"""Faults that are another name for an option: the field of `MachineSpec`, and its value."""

_WORDS: Mapping[FaultKind, str] = MappingProxyType(
    {
        kernel.LOCKDOWN_INTEGRITY: "lockdown=integrity",
        kernel.LOCKDOWN_CONFIDENTIALITY: "lockdown=confidentiality",
    }
)
"""Faults that are a word of the kernel's command line."""

_OPTIONS = {
    "has_reboot_files": "--without-reboot-files",
    "profile": "a --profile",
    "admin_password": "a password",
    "entry_delay_s": "--entry-delay",
}


def all_faults() -> tuple[FaultKind, ...]:
    """All faults, in the order in which they are listed."""
    return tuple(kind for kinds in GROUPS.values() for kind in kinds)


def parse_faults(labels: Iterable[str]) -> Faults:
    """The faults that `labels` name, such as `no-battery` and `fragmented=3`.

    :raise UsageError: when there is no such fault, or it is named twice, or its number is not
        possible; or when two of them can't be together.
    """
    faults = parse(labels, all_faults())
    for one, other, why in EITHER_OR:
        if one in faults and other in faults:
            raise UsageError(f"the faults {one.name} and {other.name} can't be together: {why}")
    return faults


def with_options(spec: Spec, faults: Faults) -> Spec:
    """A `MachineSpec` with the fields set for which a fault is another name.

    :raise UsageError: when the spec has another value there.
    """
    wanted = {kind: _FIXED[kind] for kind in faults if kind in _FIXED}
    if kernel.SLOW_ENTRIES in faults:
        wanted[kernel.SLOW_ENTRIES] = ("entry_delay_s", float(faults[kernel.SLOW_ENTRIES]))
    defaults = {field.name: field.default for field in dataclasses.fields(spec)}
    changes: dict[str, Any] = {}
    for kind, (name, value) in wanted.items():
        if getattr(spec, name) not in (defaults[name], value):
            option = _OPTIONS[name]
            raise UsageError(f"the fault {kind.name} is another name for {option}: give only one")
        changes[name] = value
    words = [_WORDS[kind] for kind in faults if kind in _WORDS]
    if words:
        own: Any = spec
        changes["kernel_words"] = " ".join(filter(None, [own.kernel_words, *words]))
    return dataclasses.replace(spec, **changes)
