"""A Xen host of 512 MiB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.machine.config import XenConfig
from openrbu.machine.virtual import VirtualMachine
from openrbu.machine.xen_host import XenHost
from openrbu.units import MIB
from rigs.guests import Clock
from rigs.machines import make


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A host of 512 MiB that is on; its dom0 has 128 of them."""
    xen = XenConfig(dom0_bytes=128 * MIB, dom0_max_bytes=256 * MIB, profile="linux")
    directory = make(tmp_path, name="host", ram_bytes=512 * MIB, xen=xen)
    with VirtualMachine(directory) as machine:
        machine.power_on()
    return directory


@pytest.fixture
def host(directory: Path, clock: Clock) -> Iterator[XenHost]:
    """The same, opened. At the end no frame is lost, whatever happened."""
    with XenHost(directory, now=clock) as host:
        yield host
        host.hypervisor.check()
