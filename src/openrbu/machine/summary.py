"""What a list shows of a machine, and keeps of it: see `machine.summary_file`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrbu.errors import OpenRbuError
from openrbu.machine import summary_file

if TYPE_CHECKING:
    from openrbu.machine.base import MachineStatus
    from openrbu.machine.config import MachineConfig


@dataclass(frozen=True, slots=True)
class MachineSummary:
    """A machine and its status: `config` as `MachineConfig`, the rest as `MachineStatus` and the
    tables there have it. `completion`: the BIOS's record of the last update, as its code and the
    time (ISO 8601); None where the tables have none."""

    config: dict[str, Any]
    vendor: str
    product: str
    service_tag: str
    system_id: int | None
    bios_version: str
    bios_release_date: str
    flash_size_bytes: int
    is_on: bool
    lost_power: bool
    is_armed: bool
    modules: list[str]
    reboot_mode: str | None
    completion: list[Any] | None
    table_problems: list[str]
    lacks: list[str]


def summary_of(config: MachineConfig, status: MachineStatus) -> MachineSummary:
    """The summary of a machine that is open."""
    from openrbu.formats import dell  # noqa: PLC0415  (start-up time)
    from openrbu.machine.factory_tables import lacking  # noqa: PLC0415  (start-up time)

    tables = status.tables
    system, bios = dell.SystemInformation.of(tables), dell.BiosInformation.of(tables)
    rbu = dell.RbuInformation.of(tables)
    when = None if rbu is None or rbu.when is None else rbu.when.isoformat()
    return MachineSummary(
        config=asdict(config),
        vendor=system.vendor,
        product=system.product,
        service_tag=system.service_tag,
        system_id=dell.system_id(tables),
        bios_version=bios.version,
        bios_release_date=bios.release_date,
        flash_size_bytes=status.flash_size_bytes,
        is_on=status.is_on,
        lost_power=status.lost_power,
        is_armed=status.is_armed,
        modules=list(status.modules),
        reboot_mode=status.reboot_mode,
        completion=None if rbu is None else [rbu.completion_code, when],
        table_problems=list(tables.problems),
        lacks=list(lacking(tables)),
    )


def told(config: MachineConfig, status: Callable[[], MachineStatus]) -> MachineSummary | None:
    """The summary that is kept of a machine. None: a list has to open it, because it can't be told
    now, such as with a broken flash; or because other processes change it, too, as those that run
    the guests of a Xen host."""
    if config.xen is None:
        with contextlib.suppress(OpenRbuError, OSError):
            return summary_of(config, status())
    return None


def keep(directory: Path, summary: MachineSummary | None) -> None:
    """Keep the summary of the machine in a directory, if there is one. The caller has its lock, and
    changes nothing after this."""
    if summary is not None:
        summary_file.write(directory, asdict(summary))


def kept(directory: Path) -> MachineSummary | None:
    """What is kept of the machine in a directory. None: nothing that is known to be right, so the
    machine has to be opened. The directories above it are the caller's to check."""
    found = summary_file.read(directory)
    return None if found is None else MachineSummary(**found)
