"""The names that scripts know errors by."""

from __future__ import annotations

import importlib
import pkgutil

import openrbu
from openrbu.errors import OpenRbuError

KINDS = {
    "AddressError": "address",
    "BusyError": "busy",
    "CannotStartError": "cannot_start",
    "ClockHitError": "clock_hit",
    "CommandError": "command",
    "DamagedInputError": "damaged_input",
    "DocumentError": "document",
    "FetchError": "fetch",
    "FlashError": "flash",
    "GuestFailedError": "guest_failed",
    "GuestInUseError": "guest_in_use",
    "GuestLostError": "guest_lost",
    "GuestStoppedError": "guest_stopped",
    "HypercallError": "hypercall",
    "InUseError": "in_use",
    "KernelError": "kernel",
    "KernelOopsError": "kernel_died",
    "MachineError": "machine",
    "MayCrashError": "may_crash",
    "MovedError": "moved",
    "NewerFormatError": "newer_format",
    "NoAnswerError": "no_answer",
    "NotKeptError": "not_kept",
    "NotStagedError": "not_staged",
    "NotTakenError": "not_taken",
    "NotForRbuError": "not_for_rbu",
    "NotForThisMachineError": "not_for_this_machine",
    "ObstacleError": "obstacle",
    "OtherDataError": "other_data",
    "OutOfMemoryError": "out_of_memory",
    "OutputError": "output",
    "PasswordNeededError": "password_needed",
    "PowerFailedError": "power_failed",
    "QemuError": "qemu",
    "RamGoneError": "ram_gone",
    "ReadBackError": "read_back",
    "RejectedError": "rejected",
    "StagedChangedError": "staged_changed",
    "StateRefusedError": "state_refused",
    "LeftoverCopyError": "stranger",
    "StrayWriteError": "stray_write",
    "TooHighError": "too_high",
    "TrialError": "trial",
    "TrialsFailedError": "trials_failed",
    "UpdateFailedError": "update_failed",
    "UsageError": "usage",
    "WrongPasswordError": "wrong_password",
}
"""`error.kind` of JSON. Scripts compare these: a class may be renamed, its kind stays."""


def _classes(root: type[OpenRbuError]) -> list[type[OpenRbuError]]:
    """All classes below `root`, after every module of openrbu has been imported."""
    below = [each for each in root.__subclasses__() if each.__module__.startswith("openrbu.")]
    return [*below, *(deeper for each in below for deeper in _classes(each))]


IN_AN_AGENT = "openrbu.ironic.manager"
"""Needs what Ironic's agent has installed: `make ironic` imports it. Its errors are Ironic's."""


def _import_everything() -> None:
    for module in pkgutil.walk_packages(openrbu.__path__, "openrbu."):
        if not module.name.endswith("__main__") and module.name != IN_AN_AGENT:
            importlib.import_module(module.name)


def test_the_kind_of_each_error_is_its_own_and_stays() -> None:
    _import_everything()
    classes = set(_classes(OpenRbuError))
    assert {each for each in classes if "kind" not in vars(each)} == set()
    assert {each.__name__: each.kind for each in classes} == KINDS
