"""What openrbu stages on a virtual machine, the code of a real BIOS takes, and so does our BIOS."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.rules import Identity
from openrbu.formats.dell import CompletionCode, RbuInformation
from openrbu.formats.hdr import Image
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import GIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.target import read_target
from rigs.boards import packets_of
from rigs.machines import REBOOT_MODE, image_bytes, make, running, update
from rigs.needs import leave_out
from rigs.oracle import (
    D500_SYSTEM,
    DATA,
    POWEREDGE_SYSTEM,
    REAL_FLASH_BYTES,
    Told,
    oracle_module,
    our_d500,
    our_poweredge,
    real_d500,
    real_poweredge,
)

SERVER = Identity(POWEREDGE_SYSTEM, REAL_FLASH_BYTES)
NOTEBOOK = Identity(D500_SYSTEM, REAL_FLASH_BYTES)


def vendor_image(name: str) -> bytes:
    """A whole image of the vendor's; without it the test is left out."""
    path = DATA / "hdr-whole" / f"{name}.gz"
    if not path.is_file():
        leave_out(f"there is no {path}")
    return gzip.decompress(path.read_bytes())


def stage(machine: VirtualMachine, image: bytes, mode: str, **options: Any) -> None:
    """Stage and arm."""
    update(VirtualHost(machine), Image.parse(image), mode=mode, **options)


def arm(machine: VirtualMachine) -> None:
    """Arm, and have the next restart keep memory."""
    host = VirtualHost(machine)
    set_armed(activation_for(host, read_target(host)), armed=True)
    host.write(REBOOT_MODE, b"warm")


def judged(machine: VirtualMachine) -> Told:
    """What the real code does with this machine's RAM; our rule set does the same."""
    path = machine.directory / "ram"
    if machine.config.bios_rules == "latitude-d500":
        real, ours = real_d500(path, NOTEBOOK), our_d500(path, NOTEBOOK)
    else:
        real, ours = real_poweredge(path, SERVER), our_poweredge(path, SERVER)
    assert ours == real
    return real


def check_installed(machine: VirtualMachine, version: str, image: bytes) -> None:
    """The restart brought it."""
    report = machine.restart()
    assert (report.completion_code, report.version_after) == (CompletionCode.COMPLETED, version)
    assert machine.flash.image() == Image.parse(image).flash_data
    rbu = RbuInformation.of(machine.tables)
    assert rbu is not None
    assert rbu.completion_code == CompletionCode.COMPLETED
    assert not machine.is_armed


@pytest.mark.parametrize("ram_bytes", [64 * MIB, 1 * GIB])
@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_an_image_of_ours_is_taken_by_the_code_of_a_poweredge(
    tmp_path: Path, mode: str, ram_bytes: int
) -> None:
    oracle_module("bioses")
    image = image_bytes("poweredge-2950", flash_size_bytes=REAL_FLASH_BYTES)
    spec: dict[str, Any] = {"flash_size_bytes": None, "ram_bytes": ram_bytes}
    with running(make(tmp_path, "poweredge-2950", **spec)) as machine:
        stage(machine, image, mode)
        told = judged(machine)
        found = told.first if mode == "mono" else told.second
        assert found is not None
        assert found.accepted is not None
        check_installed(machine, "0.2.9", image)


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_a_vendors_image_installs_on_a_poweredge_2950(tmp_path: Path, mode: str) -> None:
    image = vendor_image("MLB-000208.HDR")
    oracle_module("bioses")
    with running(make(tmp_path, "poweredge-2950", flash_size_bytes=None)) as machine:
        stage(machine, image, mode)
        told = judged(machine)
        assert (told.first.accepted is None) == (mode == "packet")
        assert told.packets is None or told.packets.image.startswith(image)
        check_installed(machine, "0.2.8", image)


def test_a_vendors_image_installs_on_a_latitude_d500(tmp_path: Path) -> None:
    image = vendor_image("system_bios_0x1028_0x0152_version_a10.hdr")
    oracle_module("bioses")
    with running(make(tmp_path, "latitude-d500", flash_size_bytes=None)) as machine:
        stage(machine, image, "mono")
        assert judged(machine).first.accepted is not None
        check_installed(machine, "A10", image)


def test_packets_above_4_gib_are_taken_by_both(tmp_path: Path) -> None:
    oracle_module("bioses")
    image = image_bytes("poweredge-2950", flash_size_bytes=REAL_FLASH_BYTES)
    spec: dict[str, Any] = {"flash_size_bytes": None, "ram_bytes": 4 * GIB}
    with running(make(tmp_path, "poweredge-2950", **spec)) as machine:
        for number, packet in enumerate(packets_of(image)):
            machine.ram.write(PhysAddr(4 * GIB + 16 * MIB + number * PAGE_SIZE), packet)
        arm(machine)
        told = judged(machine)
        assert told.second is not None
        assert told.second.accepted is not None
        check_installed(machine, "0.2.9", image)


def test_an_image_for_another_system_is_refused_by_both(tmp_path: Path) -> None:
    oracle_module("bioses")
    image = image_bytes("poweredge-2950", flash_size_bytes=REAL_FLASH_BYTES, system_id=0x01BB)
    with running(make(tmp_path, "poweredge-2950", flash_size_bytes=None)) as machine:
        stage(machine, image, "packet", allow_any_system=True)
        told = judged(machine)
        assert told.second is not None
        assert told.second.accepted is None
        assert machine.restart().completion_code == CompletionCode.IMAGE_NOT_FOUND
