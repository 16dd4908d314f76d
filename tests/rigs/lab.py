"""What tests that need QEMU share: the software, a machine that is up for all, its loss told.

One machine serves a whole test run. When it is lost, the test that was at work with it is an error,
and no failure: nothing was found out about what it tests. The next test gets a new machine.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openrbu.errors import ObstacleError
from openrbu.machine.factory import MachineSpec
from openrbu.units import MIB
from rigs.needs import leave_out

if TYPE_CHECKING:  # what is behind these needs the extra "lab"
    from openrbu.lab.calls import Call, Result
    from openrbu.lab.machine import LabMachine
    from openrbu.lab.packages import GuestSoftware

MODEL, BIOS_VERSION = "precision-390", "2.1.2"
BIOS_RULES = "published"
"""The strictest: what contradicts is refused."""

_LOST = ("guest", "lost")
"""A property of the report of a test that was at work with it."""

XEN_RAM_BYTES, DOM0_BYTES, DOM0_MAX_BYTES = 640 * MIB, 512 * MIB, 768 * MIB

_FLASH_BYTES = 1 * MIB
"""Of a Precision 390."""


@dataclass(frozen=True)
class Lab:
    """What machines are made of here."""

    software: GuestSoftware
    accelerator: str

    def bios(self, version: str = BIOS_VERSION, *, flash_bytes: int = _FLASH_BYTES) -> bytes:
        """A flash with SeaBIOS in it under that version."""
        from openrbu.lab.seabios import fill_flash, rename_bios

        return fill_flash(rename_bios(self.software.seabios.read_bytes(), version), flash_bytes)

    def machine(
        self,
        version: str = BIOS_VERSION,
        *,
        ram_bytes: int | None = None,
        flash_bytes: int = _FLASH_BYTES,
        cpus: int = 1,
        kernel_words: str = "",
        without_modules: Sequence[str] = (),
        ram_file: Path | None = None,
    ) -> LabMachine:
        """A machine, off, to be closed by whoever asked for it."""
        from openrbu.lab.machine import LabMachine

        spec = MachineSpec(
            model=MODEL,
            bios_version=version,
            firmware=self.bios(version, flash_bytes=flash_bytes),
            flash_size_bytes=flash_bytes,
            ram_bytes=ram_bytes,
            bios_rules=BIOS_RULES,
        )
        return LabMachine(
            self.software,
            spec,
            accelerator=self.accelerator,
            cpus=cpus,
            kernel_words=kernel_words,
            without_modules=without_modules,
            ram_file=ram_file,
        )

    def xen_machine(self) -> LabMachine:
        """A machine on which Xen is started, off. Linux, its dom0, has most of the memory, and what
        it may have at most is more than there is."""
        from openrbu.lab.machine import LabMachine
        from openrbu.lab.xen import XenBoot

        xen = XenBoot(self._xen(), DOM0_BYTES, DOM0_MAX_BYTES)
        firmware = self.bios()
        spec = MachineSpec(
            model=MODEL,
            bios_version=BIOS_VERSION,
            firmware=firmware,
            ram_bytes=XEN_RAM_BYTES,
            bios_rules=BIOS_RULES,
        )
        return LabMachine(self.software, spec, accelerator=self.accelerator, xen=xen)

    def _xen(self) -> Path:
        """The hypervisor; the test is left out where it can't be had."""
        from openrbu.lab.packages import get_xen

        try:
            return get_xen(_say)
        except ObstacleError as obstacle:
            leave_out(str(obstacle))


def find_lab(kernel: str | None = None) -> Lab:
    """The lab of this computer, with the kernel that `--kernel` would name; with None that of the
    environment variable OPENRBU_LAB_KERNEL, else Debian's newest. The test is left out where there
    is none."""
    try:
        from openrbu.lab.accel import accelerator
        from openrbu.lab.kernels import kernel_choice
        from openrbu.lab.packages import get_guest_software
        from openrbu.lab.programs import find_qemu

        qemu = find_qemu()
        kernel = kernel or os.environ.get("OPENRBU_LAB_KERNEL") or None
        software = get_guest_software(_say, kernel_choice(kernel, None))
        return Lab(software, accelerator(qemu, software.vmlinuz, _say))
    except ModuleNotFoundError as missing:
        leave_out(f'the lab needs the Python package of {missing.name}: the extra "lab" has it')
    except ObstacleError as obstacle:
        leave_out(str(obstacle))


def find_second_lab() -> Lab:
    """A lab with the other one of the two kernels that are tested: Debian 12's and Debian 13's."""
    is_13 = find_lab().software.release.startswith("6.12.")
    return find_lab("linux-image-amd64/bookworm" if is_13 else "linux-image-amd64/trixie")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


class SharedMachine:
    """A machine that many tests use, one after the other: it is started when it is first needed,
    and anew when it was lost."""

    def __init__(self, make: Callable[[], LabMachine]) -> None:
        self._make = make
        self._machine: LabMachine | None = None
        self.starts = 0

    @property
    def is_up(self) -> bool:
        """Whether it was started, and not lost since."""
        return self._machine is not None

    @property
    def machine(self) -> LabMachine:
        """The machine, up.

        :raise GuestLostError: when it does not come up.
        """
        if self._machine is None:
            machine = self._make()
            try:
                machine.power_on()
            except BaseException:
                machine.close()
                raise
            self._machine = machine
            self.starts += 1
        return self._machine

    def calls(self, wanted: Sequence[Call]) -> list[Result]:
        """Make system calls in it; what each of them answered.

        :raise GuestLostError: when it was lost meanwhile. The next call gets a new one.
        """
        with self._whose_loss_is_told() as machine:
            return machine.guest.calls(wanted)

    def run(self, argv: Sequence[str], standard_input: str = "") -> str:
        """Run a program in it; what that wrote.

        :raise GuestLostError: as `calls`.
        """
        out: list[bytes] = []
        with self._whose_loss_is_told() as machine:
            ran = machine.run(
                argv,
                standard_input=standard_input.encode(),
                output=lambda stream, data: out.append(data),
            )
        text = b"".join(out).decode()
        assert ran.status == 0, f"{argv}: {ran}, {text}"
        return text

    @contextlib.contextmanager
    def _whose_loss_is_told(self) -> Iterator[LabMachine]:
        from openrbu.lab.guest import GuestLostError, GuestStoppedError
        from openrbu.lab.qemu import QemuError

        machine = self.machine
        try:
            yield machine
        except (GuestLostError, QemuError):
            self.close()
            raise
        except GuestStoppedError as stopped:  # nobody asked for that
            lost = GuestLostError(str(stopped), machine.guest.console_text)
            self.close()
            raise lost from None

    def close(self) -> None:
        """End it."""
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.close()


@pytest.fixture(scope="session")
def lab() -> Lab:
    return find_lab()


@pytest.fixture(scope="session")
def shared_machine(lab: Lab) -> Iterator[SharedMachine]:
    """The machine of this test run."""
    shared = SharedMachine(lab.machine)
    yield shared
    shared.close()


# -- a lost guest is an error, and no failure -----------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and _is_loss(call.excinfo.value):
        report.user_properties.append(_LOST)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, str] | None:
    is_loss = isinstance(report, pytest.TestReport) and _LOST in report.user_properties
    return ("error", "E", "GUEST LOST") if is_loss else None


def _is_loss(error: BaseException) -> bool:
    if "openrbu.lab.guest" not in sys.modules:  # then there has been none
        return False
    from openrbu.lab.guest import GuestLostError
    from openrbu.lab.qemu import QemuError

    return isinstance(error, GuestLostError | QemuError)
