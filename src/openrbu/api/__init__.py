"""openrbu as a library: what `rbu` does with images, memory and machines. See docs/library.md.

    from openrbu import api

    image = api.read_image("A06.hdr")
    with api.open_machine("demo") as machine:
        outcome = machine.update(machine.plan(image))
        if outcome is not None:
            machine.restart()

Results are frozen. Errors are `openrbu.errors.OpenRbuError`, whose classes say what is at fault.
The names in `__all__` are public; everything else in openrbu may change at any time.

A name is imported from its module (`_PUBLIC`) when it is first used, and a function imports what it
needs when it is called. So the import of `openrbu.api` itself loads almost nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from openrbu import errors

if TYPE_CHECKING:
    from openrbu.api.drivers import driver_status, start_driver, stop_driver
    from openrbu.api.images import (
        build_image,
        explain_packet,
        join,
        packets,
        read_image,
        read_images,
    )
    from openrbu.api.machines import (
        Machine,
        machine_names,
        make_machine,
        open_machine,
        remove_machine,
        switch_off,
    )
    from openrbu.api.maps import map_memory
    from openrbu.api.memory import open_dump, scan
    from openrbu.api.policies import check_policy, find_images, read_policy
    from openrbu.api.reports import read_report, report_page
    from openrbu.api.running import run, run_all
    from openrbu.api.trials import try_tool
    from openrbu.bios.post_report import PostReport
    from openrbu.formats.hdr import Image, SystemId
    from openrbu.formats.image_packets import ImagePackets, JoinedImage
    from openrbu.formats.loading import LoadedFile, LoadedImage
    from openrbu.formats.packet_explained import PacketReading
    from openrbu.hosts.base import Host
    from openrbu.machine.base import Machine as VirtualMachine
    from openrbu.machine.factory import MachineSpec
    from openrbu.maps.memory_map import MemoryMap
    from openrbu.memory.physical import ReadableMemory
    from openrbu.memory.search_result import SearchResult
    from openrbu.own_driver.status import OwnDriverStatus
    from openrbu.policy.deciding import Decision, Step
    from openrbu.policy.model import Policy
    from openrbu.reports.report import ReportRow
    from openrbu.run.power import PowerAction
    from openrbu.run.programs import ProgramEnd
    from openrbu.run.trace_file import TraceEvent, TraceHead, TraceReport, read_trace
    from openrbu.trials.combinations import Combination
    from openrbu.trials.records import TrialResult
    from openrbu.update.cancelling import Cancelled
    from openrbu.update.checks.check import Check, Question, Verdict
    from openrbu.update.choosing import Choice, FoundImages, PassedOver
    from openrbu.update.journal import Attempt
    from openrbu.update.options import Options
    from openrbu.update.outcome import Outcome
    from openrbu.update.plan import Plan
    from openrbu.update.progress import ProgressReporter
    from openrbu.update.report import UpdateStatus
    from openrbu.update.restarted import Restarted

__all__ = [
    "Attempt",
    "Cancelled",
    "Check",
    "Choice",
    "Combination",
    "Decision",
    "FoundImages",
    "Host",
    "Image",
    "ImagePackets",
    "JoinedImage",
    "LoadedFile",
    "LoadedImage",
    "Machine",
    "MachineSpec",
    "MemoryMap",
    "Options",
    "Outcome",
    "OwnDriverStatus",
    "PacketReading",
    "PassedOver",
    "Plan",
    "Policy",
    "PostReport",
    "PowerAction",
    "ProgramEnd",
    "ProgressReporter",
    "Question",
    "ReadableMemory",
    "ReportRow",
    "Restarted",
    "SearchResult",
    "Step",
    "SystemId",
    "TraceEvent",
    "TraceHead",
    "TraceReport",
    "TrialResult",
    "UpdateStatus",
    "Verdict",
    "VirtualMachine",
    "build_image",
    "check_policy",
    "driver_status",
    "errors",
    "explain_packet",
    "find_images",
    "join",
    "machine_names",
    "make_machine",
    "map_memory",
    "open_dump",
    "open_machine",
    "packets",
    "read_image",
    "read_images",
    "read_policy",
    "read_report",
    "read_trace",
    "remove_machine",
    "report_page",
    "run",
    "run_all",
    "scan",
    "start_driver",
    "stop_driver",
    "switch_off",
    "try_tool",
]

_PUBLIC: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "Attempt": ("openrbu.update.journal", "Attempt"),
        "Cancelled": ("openrbu.update.cancelling", "Cancelled"),
        "Check": ("openrbu.update.checks.check", "Check"),
        "Choice": ("openrbu.update.choosing", "Choice"),
        "Combination": ("openrbu.trials.combinations", "Combination"),
        "Decision": ("openrbu.policy.deciding", "Decision"),
        "FoundImages": ("openrbu.update.choosing", "FoundImages"),
        "Host": ("openrbu.hosts.base", "Host"),
        "Image": ("openrbu.formats.hdr", "Image"),
        "ImagePackets": ("openrbu.formats.image_packets", "ImagePackets"),
        "JoinedImage": ("openrbu.formats.image_packets", "JoinedImage"),
        "LoadedFile": ("openrbu.formats.loading", "LoadedFile"),
        "LoadedImage": ("openrbu.formats.loading", "LoadedImage"),
        "Machine": ("openrbu.api.machines", "Machine"),
        "MachineSpec": ("openrbu.machine.factory", "MachineSpec"),
        "MemoryMap": ("openrbu.maps.memory_map", "MemoryMap"),
        "Options": ("openrbu.update.options", "Options"),
        "Outcome": ("openrbu.update.outcome", "Outcome"),
        "OwnDriverStatus": ("openrbu.own_driver.status", "OwnDriverStatus"),
        "PacketReading": ("openrbu.formats.packet_explained", "PacketReading"),
        "PassedOver": ("openrbu.update.choosing", "PassedOver"),
        "Plan": ("openrbu.update.plan", "Plan"),
        "Policy": ("openrbu.policy.model", "Policy"),
        "PostReport": ("openrbu.bios.post_report", "PostReport"),
        "PowerAction": ("openrbu.run.power", "PowerAction"),
        "ProgramEnd": ("openrbu.run.programs", "ProgramEnd"),
        "ProgressReporter": ("openrbu.update.progress", "ProgressReporter"),
        "Question": ("openrbu.update.checks.check", "Question"),
        "ReadableMemory": ("openrbu.memory.physical", "ReadableMemory"),
        "ReportRow": ("openrbu.reports.report", "ReportRow"),
        "Restarted": ("openrbu.update.restarted", "Restarted"),
        "SearchResult": ("openrbu.memory.search_result", "SearchResult"),
        "Step": ("openrbu.policy.deciding", "Step"),
        "SystemId": ("openrbu.formats.hdr", "SystemId"),
        "TraceEvent": ("openrbu.run.trace_file", "TraceEvent"),
        "TraceHead": ("openrbu.run.trace_file", "TraceHead"),
        "TraceReport": ("openrbu.run.trace_file", "TraceReport"),
        "TrialResult": ("openrbu.trials.records", "TrialResult"),
        "UpdateStatus": ("openrbu.update.report", "UpdateStatus"),
        "Verdict": ("openrbu.update.checks.check", "Verdict"),
        "VirtualMachine": ("openrbu.machine.base", "Machine"),
        "build_image": ("openrbu.api.images", "build_image"),
        "check_policy": ("openrbu.api.policies", "check_policy"),
        "driver_status": ("openrbu.api.drivers", "driver_status"),
        "explain_packet": ("openrbu.api.images", "explain_packet"),
        "find_images": ("openrbu.api.policies", "find_images"),
        "join": ("openrbu.api.images", "join"),
        "machine_names": ("openrbu.api.machines", "machine_names"),
        "make_machine": ("openrbu.api.machines", "make_machine"),
        "map_memory": ("openrbu.api.maps", "map_memory"),
        "open_dump": ("openrbu.api.memory", "open_dump"),
        "open_machine": ("openrbu.api.machines", "open_machine"),
        "packets": ("openrbu.api.images", "packets"),
        "read_image": ("openrbu.api.images", "read_image"),
        "read_images": ("openrbu.api.images", "read_images"),
        "read_policy": ("openrbu.api.policies", "read_policy"),
        "read_report": ("openrbu.api.reports", "read_report"),
        "read_trace": ("openrbu.run.trace_file", "read_trace"),
        "remove_machine": ("openrbu.api.machines", "remove_machine"),
        "report_page": ("openrbu.api.reports", "report_page"),
        "run": ("openrbu.api.running", "run"),
        "run_all": ("openrbu.api.running", "run_all"),
        "scan": ("openrbu.api.memory", "scan"),
        "start_driver": ("openrbu.api.drivers", "start_driver"),
        "stop_driver": ("openrbu.api.drivers", "stop_driver"),
        "switch_off": ("openrbu.api.machines", "switch_off"),
        "try_tool": ("openrbu.api.trials", "try_tool"),
    }
)
"""Where the public names are: module, and name in it."""


def __getattr__(name: str) -> object:
    """A public name, imported from its module (PEP 562).

    :raise AttributeError: when there is no such name.
    """
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    """The names that there are, those that were not used yet included (PEP 562)."""
    return sorted({*globals(), *__all__})
