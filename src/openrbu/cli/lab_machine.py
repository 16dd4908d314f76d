"""The machine of `rbu lab update` and `rbu lab shell`: its options, and its start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openrbu._vendor import typer
from openrbu.cli.options import complete_kernels, complete_models, size_of
from openrbu.cli.show import cell_text, print_note
from openrbu.cli.status import post_rows
from openrbu.cli.waits import waits

if TYPE_CHECKING:
    from openrbu.bios.post_report import PostReport
    from openrbu.lab.kernels import KernelChoice
    from openrbu.lab.machine import LabMachine
    from openrbu.lab.packages import GuestSoftware
    from openrbu.lab.xen import XenBoot
    from openrbu.machine.factory import MachineSpec

_CONSOLE_LINES = 8
"""How many lines of a lost guest's console are shown."""

BiosVersionOption = Annotated[
    str | None,
    typer.Option(
        "--bios-version",
        metavar="VERSION",
        help="The version of its BIOS. Without it: the model's.",
    ),
]
Ram = Annotated[
    str | None,
    typer.Option(
        "--ram",
        metavar="SIZE",
        help="Its memory (256M to 16G). Without it: 512M; with --xen 1G.",
    ),
]
Cpus = Annotated[
    int,
    typer.Option("--cpus", metavar="N", help="How many processors it has (1 to 16)."),
]
KernelWords = Annotated[
    str,
    typer.Option(
        "--kernel-words",
        metavar="WORDS",
        help="Further words for its kernel's command line ('lockdown=integrity reboot=warm').",
    ),
]
Xen = Annotated[
    bool,
    typer.Option(
        "--xen",
        help="Run Xen on it, and Linux as dom0 with half of the memory (at most 3/4).",
    ),
]
KernelOption = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        metavar="PACKAGE|FILE",
        help="Its kernel: a package (linux-image-amd64/trixie: as Debian 13 has it), or a file "
        "such as /boot/vmlinuz-6.1.0. Without it: Debian's newest.",
        autocompletion=complete_kernels,
    ),
]
Modules = Annotated[
    Path | None,
    typer.Option(
        "--modules",
        metavar="DIR",
        help="The modules of a kernel that is a file. Without it: /lib/modules/RELEASE.",
    ),
]
WithoutModule = Annotated[
    list[str] | None,
    typer.Option(
        "--without-module",
        metavar="NAME",
        help="A module that its kernel is not to have, such as dell_rbu. May be repeated.",
    ),
]
RamFile = Annotated[
    Path | None,
    typer.Option(
        "--ram-file",
        metavar="FILE",
        help="Keep its memory in FILE, a new file that stays: rbu scan can search it.",
    ),
]


def model_option(text: str) -> Any:
    """The option `--model`, with `text` as its help."""
    return typer.Option("--model", metavar="MODEL", help=text, autocompletion=complete_models)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of a lab machine, as they were given."""

    model: str
    bios_version: str | None
    ram: str | None
    cpus: int
    kernel: KernelChoice
    kernel_words: str
    xen: bool
    ram_file: Path | None
    admin_password: str | None = field(default=None, repr=False)
    without_modules: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What a lab machine is made of: the guest's software, the machine's spec, and Xen or None."""

    wanted: Wanted
    software: GuestSoftware
    spec: MachineSpec
    xen: XenBoot | None

    @property
    def document(self) -> dict[str, Any]:
        """What the machine is, for JSON."""
        return {
            "model": self.spec.model,
            "kernel": self.software.release,
            "cpus": self.wanted.cpus,
            "ram_bytes": self.spec.ram_bytes,
            "xen": self.xen is not None,
        }


def make_parts(wanted: Wanted, flash_size_bytes: int) -> Parts:
    """Check the options, then get what the machine needs.

    :raise OpenRbuError: when such a machine is not possible (then nothing is fetched), or the lab
        lacks something.
    """
    from openrbu.lab import sizes, xen
    from openrbu.lab.packages import get_guest_software, get_xen
    from openrbu.lab.trial import machine_spec_for

    ram_bytes = xen.DEFAULT_RAM_BYTES if wanted.xen else sizes.DEFAULT_RAM_BYTES
    if wanted.ram is not None:
        ram_bytes = size_of(wanted.ram, "--ram")
    sizes.check_machine(wanted.model, ram_bytes, wanted.cpus, wanted.kernel_words)
    if wanted.xen:
        xen.check_ram(ram_bytes)
    if wanted.ram_file is None:
        sizes.check_memory(ram_bytes)
    with waits() as shown:
        software = get_guest_software(shown.say, wanted.kernel, shown.downloading)
        hypervisor = get_xen(shown.say, shown.downloading) if wanted.xen else None
    spec = machine_spec_for(
        software,
        wanted.model,
        wanted.bios_version,
        flash_size_bytes,
        ram_bytes=ram_bytes,
        admin_password=wanted.admin_password,
    )
    host = None if hypervisor is None else xen.XenBoot.of(hypervisor, ram_bytes)
    return Parts(wanted, software, spec, host)


@contextlib.contextmanager
def machine_of(parts: Parts, *, on_terminal: bool = False) -> Iterator[LabMachine]:
    """A machine that is on during the block.

    :raise OpenRbuError: when it can't be started.
    """
    from openrbu.lab.accel import TCG, accelerator
    from openrbu.lab.guest import GuestLostError
    from openrbu.lab.machine import CannotStartError, LabMachine
    from openrbu.lab.programs import find_qemu

    wanted, software, spec = parts.wanted, parts.software, parts.spec
    with waits() as shown:
        found = accelerator(find_qemu(), software.vmlinuz, shown.say)
    how = "emulated" if found == TCG else found.upper()
    with (
        _terminal_restored(on_terminal),
        LabMachine(
            software,
            spec,
            accelerator=found,
            cpus=wanted.cpus,
            kernel_words=wanted.kernel_words,
            without_modules=wanted.without_modules or (),
            ram_file=wanted.ram_file,
            xen=parts.xen,
            on_terminal=on_terminal,
        ) as machine,
    ):
        is_up = False
        try:
            with waits() as shown:
                shown.say(f"starting a {spec.model} with BIOS {spec.bios_version} ({how}) …")
                machine.power_on()
            is_up = True
            where = "" if parts.xen is None else ", dom0 of Xen"
            print_note(f"started: Linux {machine.guest.release}{where}")
            yield machine
        except CannotStartError as error:
            print_restart(error.post)
            raise
        except GuestLostError as error:
            for line in error.console.splitlines()[-_CONSOLE_LINES:]:
                print_note(f"console: {line}")
            raise
        finally:
            if wanted.ram_file is not None and not is_up:
                wanted.ram_file.unlink()


@contextlib.contextmanager
def _terminal_restored(is_used: bool) -> Iterator[None]:
    """Restore the terminal's settings after the block, also when a QEMU that used it was killed."""
    if not is_used:
        yield
        return
    import fcntl
    import termios

    before, flags = termios.tcgetattr(0), fcntl.fcntl(0, fcntl.F_GETFL)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        fcntl.fcntl(0, fcntl.F_SETFL, flags)


def print_restart(post: PostReport) -> int:
    """Print what the BIOS did. Returns the exit code for that."""
    from openrbu.update.restarted import post_failure

    told = "; ".join(f"{name}: {cell_text(cell)}" for name, cell in post_rows(post))
    print_note(f"restarted; {told}")
    failure = post_failure(post)
    return 0 if failure is None else int(failure.exit_code)
