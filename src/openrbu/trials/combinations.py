"""Which machines a tool is tried on: combinations of a model, a kernel, a BIOS and faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from openrbu.bios.rules import rule_set
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.machine.factory import MachineSpec
from openrbu.machine.faults import parse_faults, with_options
from openrbu.machine.models import DEFAULT_MODEL, MODELS, model
from openrbu.trials.verdicts import Verdict
from openrbu.typed_json import Natural
from openrbu.units import GIB, MIB

UNARMED = (Verdict.NOT_TRIED, Verdict.LEFT_STAGED)
"""The verdicts on a tool after which a restart changes nothing."""

DEFAULT_PROFILE = "documented"


@dataclass(frozen=True, slots=True)
class Combination:
    """One machine to try, and which verdicts are expected of it.

    A field that is None: as the model has it. `system_id` and `flash_size_bytes` are given where
    the image is for a system that is no model. `expected`: names of verdicts, any of which is
    fine. `may_give_up`: it is fine, too, when the tool does not arm the BIOS and says that it has
    failed: a verdict of `UNARMED`, and an exit code that is not 0.
    """

    model: str = DEFAULT_MODEL
    profile: str = DEFAULT_PROFILE
    bios_rules: str | None = None
    faults: tuple[str, ...] = ()
    ram_bytes: Natural | None = None
    system_id: Natural | None = None
    flash_size_bytes: Natural | None = None
    expected: tuple[str, ...] = (Verdict.UPDATED.value,)
    may_give_up: bool = False

    @property
    def name(self) -> str:
        """Its name: what is not as the model has it, in one line."""
        words = [self.model, self.profile]
        if self.system_id is not None:
            words.append(f"{self.system_id:#06x}")
        if self.bios_rules is not None:
            words.append(f"bios={self.bios_rules}")
        if self.ram_bytes is not None:
            words.append(f"ram={_short_size(self.ram_bytes)}")
        return " ".join((*words, *self.faults))

    @property
    def spec(self) -> MachineSpec:
        """How the machine is made."""
        return MachineSpec(
            model=self.model,
            profile=self.profile,
            bios_rules=self.bios_rules,
            faults=self.faults,
            ram_bytes=self.ram_bytes,
            system_id=self.system_id,
            flash_size_bytes=self.flash_size_bytes,
        )

    def check(self) -> None:
        """
        :raise UsageError: when there is no model, profile, rule set or fault of a name in it, or
            when two things in it don't go together.
        """
        model(self.model)
        profile(self.profile)
        if self.bios_rules is not None:
            rule_set(self.bios_rules)
        with_options(self.spec, parse_faults(self.faults))

    def is_fine(self, verdict: str, exit_status: int) -> bool:
        """Whether a verdict of that name is one that is expected."""
        gave_up = verdict in UNARMED and exit_status != 0
        return verdict in self.expected or (self.may_give_up and gave_up)


def _short_size(size_bytes: int) -> str:
    unit, letter = (GIB, "G") if size_bytes % GIB == 0 else (MIB, "M")
    return f"{size_bytes // unit}{letter}"


NO_FAULT = "none"
"""Stands for a machine without a fault, where faults are chosen."""


def combined(
    bases: Sequence[Combination],
    *,
    profiles: Sequence[str] = (),
    bios_rules: Sequence[str] = (),
    ram_sizes: Sequence[int] = (),
    faults: Sequence[str] = (),
) -> list[Combination]:
    """Each of `bases` with each of the others; what is empty stays as the base has it. One text of
    `faults` may have several, with commas; `NO_FAULT` is none."""
    choices = product(
        bases,
        profiles or (None,),
        bios_rules or (None,),
        ram_sizes or (None,),
        faults or (None,),
    )
    return [_with(*each) for each in choices]


def _with(
    base: Combination, profile: str | None, rules: str | None, ram: int | None, fault: str | None
) -> Combination:
    made = base
    if profile is not None:
        made = replace(made, profile=profile)
    if rules is not None:
        made = replace(made, bios_rules=rules)
    if ram is not None:
        made = replace(made, ram_bytes=ram)
    if fault is not None:
        labels = () if fault == NO_FAULT else tuple(fault.split(","))
        made = replace(made, faults=labels)
    return made


def models_of(names: Sequence[str]) -> list[Combination]:
    """A combination for each model of these names, with the defaults."""
    return [Combination(model=name) for name in names or MODELS]
