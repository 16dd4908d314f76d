"""A virtual Dell machine: RAM, CMOS, flash, a BIOS that starts it and a kernel that runs on it.

Power: `off` → `power_on` → on → `restart` (warm keeps RAM, cold clears it) → on → `power_off`.

Between two commands the machine stays on: its kernel is put away in `state.json`. That file is
taken out of the way at the first change, and written again when the machine is closed; a process
that dies in between takes the machine's power with it, as a power cut does. What is left then is
what a real machine has left: flash, CMOS, NVRAM, and empty RAM at the next start.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from openrbu.bios.cmos import CmosFile
from openrbu.bios.faults import parse_fault
from openrbu.bios.flash import Flash, FlashFile
from openrbu.bios.nvram import NvramFile
from openrbu.bios.post import Board, PostReport, post
from openrbu.bios.power import PowerCutError, PowerRail
from openrbu.bios.smi import SmiHandler
from openrbu.bios.switch import bios_switch
from openrbu.drivers.profiles import profile
from openrbu.errors import MachineError
from openrbu.formats import dell
from openrbu.formats.smbios import Tables
from openrbu.machine import store
from openrbu.machine.kernel import Kernel
from openrbu.memory.physical import RamFile, pc_regions

Clock = Callable[[], dt.datetime]


def local_now() -> dt.datetime:
    """The wall clock, as a PC's real-time clock shows it."""
    return dt.datetime.now().astimezone()


class VirtualMachine:
    """A machine out of its directory, held by this process until `close`.

    :raise MachineError: when another process has it, or its files don't allow it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock = local_now,
        rail: PowerRail | None = None,
        faulty_pages: Mapping[str, int] | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.directory, self.name = directory, directory.name
        self._clock, self._log = clock, log
        self._faulty_pages = faulty_pages
        self.kernel: Kernel | None = None
        self.last_post: PostReport | None = None
        self._state: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(store.locked(directory))
            self.config = store.load_config(directory)
            with store.disk_errors(directory):
                self._open_parts(stack, rail or PowerRail())
                self._wake()
            self._open = stack.pop_all()

    def _open_parts(self, stack: contextlib.ExitStack, rail: PowerRail) -> None:
        directory = self.directory
        faults = [parse_fault(label) for label in self.config.faults]
        self._factory_tables = Tables.parse(self._part("smbios_entry_point"), self._part("DMI"))
        self.system_id = dell.system_id(self._factory_tables)
        self.cmos = CmosFile(directory / "cmos", rail)
        self.nvram = NvramFile(directory / "nvram.json", rail)
        device = FlashFile(directory / "flash", rail=rail, faults=faults)
        stack.callback(device.close)
        self.flash = Flash(device, faults=faults)
        self.ram = RamFile(directory / "ram", pc_regions(self.config.ram_bytes))
        stack.callback(self.ram.close)
        self._switch = bios_switch(self._factory_tables, self.cmos, self.nvram)
        self._smi = self._switch if isinstance(self._switch, SmiHandler) else None

    def _part(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            raise MachineError(f"machine {self.name!r} has lost its file {name}") from None

    # -- power ------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        return self.kernel is not None

    @property
    def lost_power(self) -> bool:
        """Whether the machine is off because a process that ran it died."""
        return not self.is_on and (self.directory / "state.lost").exists()

    def power_on(self) -> PostReport:
        """Start with empty RAM.

        :raise MachineError: when it is on already, or its flash holds no BIOS.
        """
        if self.is_on:
            raise MachineError(f"machine {self.name!r} is on")
        with store.disk_errors(self.directory):
            self.ram.clear()
            return self._start()

    def restart(self, *, cold: bool | None = None) -> PostReport:
        """Restart; `cold` clears RAM. None: what the kernel's reboot mode says.

        A machine that is off is started.

        :raise PowerCutError: when the power rail fails in it; the machine is off then.
        """
        if self.kernel is None:
            return self.power_on()
        warm = self.kernel.reboot_mode == "warm" if cold is None else not cold
        self._before_change()
        with store.disk_errors(self.directory):
            if not warm:
                self.ram.clear()
            return self._start()

    def power_off(self) -> None:
        """Switch off; RAM is lost."""
        self._before_change()
        self.kernel = None
        with store.disk_errors(self.directory):
            self.ram.clear()
            for leftover in ("state.json", "state.lost"):
                (self.directory / leftover).unlink(missing_ok=True)

    def _start(self) -> PostReport:
        """POST, then the kernel. A BIOS that tried an update resets and clears RAM after it."""
        self.kernel = None
        board = Board(
            memory=self.ram,
            flash=self.flash,
            nvram=self.nvram,
            switch=self._switch,
            system_id=self.system_id,
            knows_packets=self._knows_packets(),
        )
        self.last_post = report = post(board, self._clock())
        if report.attempted:
            self.ram.clear()
        self.kernel = self._make_kernel(str(uuid.uuid4()))
        return report

    def _knows_packets(self) -> bool:
        information = dell.RbuInformation.of(self._factory_tables)
        return information is not None and information.packet_supported

    # -- what it shows ----------------------------------------------------------------------

    @property
    def tables(self) -> Tables:
        """The SMBIOS tables of this boot: the factory's, with the BIOS and the last update in."""
        record, nvram = self.flash.current, self.nvram.contents
        tables = dell.with_bios(self._factory_tables, record.version, record.release_date)
        if nvram.completed_at is not None:
            when = dt.datetime.fromisoformat(nvram.completed_at)
            tables = dell.with_result(tables, nvram.completion_code, when)
        return tables

    @property
    def is_armed(self) -> bool:
        """Whether the next start looks for an update."""
        return self._switch is not None and self._switch.is_armed

    def running_kernel(self) -> Kernel:
        """The kernel.

        :raise MachineError: when the machine is off.
        """
        if self.kernel is None:
            why = "lost its power when the process that ran it ended" if self.lost_power else "off"
            verb = "has" if self.lost_power else "is"
            text = f"machine {self.name!r} {verb + ' ' if not self.lost_power else ''}{why}"
            raise MachineError(f"{text}; start it: rbu machine reboot {self.name}")
        return self.kernel

    # -- kept between commands --------------------------------------------------------------

    def _make_kernel(self, boot_id: str) -> Kernel:
        self._state["boot_id"] = boot_id
        return Kernel(
            self.ram,
            profile=profile(self.config.profile),
            boot_id=boot_id,
            dmi=self.tables.build(),
            smi=self._smi,
            faulty_pages=self._faulty_pages,
            before_change=self._before_change,
            log=self._log,
        )

    def _wake(self) -> None:
        """Take the kernel out of `state.json`, where there is one."""
        path = self.directory / "state.json"
        try:
            state = json.loads(path.read_bytes())
            kernel = self._make_kernel(state["boot_id"])
            kernel.restore(state["kernel"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            path.replace(self.directory / "state.lost")
            return
        self.kernel, self._state = kernel, state

    def _before_change(self) -> None:
        """From here on, until `close`, the death of this process is a power cut."""
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "state.json").replace(self.directory / "state.lost")

    def close(self) -> None:
        """Put the kernel away and let go of the machine."""
        try:
            if self.kernel is not None:
                state = {"boot_id": self._state["boot_id"], "kernel": self.kernel.snapshot()}
                with store.disk_errors(self.directory):
                    self._put_away(state)
        finally:
            self._open.close()

    def _put_away(self, state: dict[str, Any]) -> None:
        path = self.directory / "state.json"
        if state != self._state or not path.exists():
            store.replace_file(path, json.dumps(state))
        (self.directory / "state.lost").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, PowerCutError):
            self.kernel = None
        self.close()
