"""The commands `rbu lab update` and `rbu lab shell`: a real Linux on a Dell machine in QEMU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.lab_machine import (
    BiosVersionOption,
    Cpus,
    KernelOption,
    KernelWords,
    Modules,
    Ram,
    RamFile,
    Wanted,
    WithoutModule,
    Xen,
    machine_of,
    make_parts,
    model_option,
    print_restart,
)
from openrbu.cli.machine_options import AdminPasswordFile
from openrbu.cli.options import ImageFile, ModeChoice, PacketSize, size_of
from openrbu.cli.passwords import password_of
from openrbu.cli.show import Answer, Facts, print_error, print_note, write_through
from openrbu.cli.status import post_document, post_rows
from openrbu.cli.update_options import AllowAnySystem, AllowDowngrade, Mode
from openrbu.cli.waits import waits
from openrbu.errors import DamagedInputError, UsageError

if TYPE_CHECKING:
    from openrbu.lab.machine import LabMachine, ProgramResult
    from openrbu.lab.trial import Trial

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
"""The exit codes of shells for a program that can't be run."""


def update(
    image: ImageFile,
    *,
    model: Annotated[
        str | None, model_option("The machine's model. Without it: one that the image is for.")
    ] = None,
    bios_version: BiosVersionOption = None,
    ram: Ram = None,
    cpus: Cpus = 1,
    kernel: KernelOption = None,
    modules: Modules = None,
    kernel_words: KernelWords = "",
    without: WithoutModule = None,
    ram_file: RamFile = None,
    admin_password_file: AdminPasswordFile = None,
    xen: Xen = False,
    mode: Mode = ModeChoice.AUTO,
    packet_size: PacketSize = "4096",
    allow_downgrade: AllowDowngrade = False,
    allow_any_system: AllowAnySystem = False,
    power_cut: Annotated[
        bool,
        typer.Option("--power-cut", help="Cut the power instead of the restart: RAM is lost."),
    ] = False,
    as_json: bool,
) -> Answer:
    """Try an update in QEMU: real Linux, the real driver, a real BIOS.

    A Dell machine is made for the image and started with a SeaBIOS in its flash. In it, rbu update
    stages the image through the kernel's own dell_rbu and restarts. Then the BIOS of openrbu's
    virtual machines searches the guest's RAM, checks the image and writes the flash. The machine
    starts the new BIOS, if QEMU can start it: rbu lab bios makes one that it can.

    The exit code is the update's. Nothing is left afterwards.

    \b
    Examples:  rbu lab bios 2.3.0 -o bios.bin --size 1M
               rbu build bios.bin -o new.hdr --bios-version 2.3.0 --system 0x01de
               rbu lab update new.hdr
               rbu lab update new.hdr --mode packet --power-cut
               rbu lab update new.hdr --kernel linux-image-amd64/trixie --cpus 2 --ram 6G
               rbu lab update new.hdr --xen
    """
    from openrbu.lab.kernels import kernel_choice
    from openrbu.lab.trial import model_for

    choice = kernel_choice(kernel, modules)
    loaded = _sound_image(image)
    kind = model_for(loaded.image) if model is None else model
    words = _update_words(mode, packet_size, allow_downgrade, allow_any_system)
    password = password_of(admin_password_file)
    wanted = Wanted(
        kind, bios_version, ram, cpus, choice, kernel_words, xen, ram_file, password, without
    )
    parts = make_parts(wanted, len(loaded.image.flash_data))
    with machine_of(parts) as machine:
        trial = _tried(machine, image, words, password, cut_power=power_cut, as_json=as_json)
    return _trial_answer(trial, {"changed": False, **parts.document})


def _tried(
    machine: LabMachine,
    image: Path,
    words: list[str],
    password: str | None,
    *,
    cut_power: bool,
    as_json: bool,
) -> Trial:
    """Try the update, and show what it says in the guest."""
    from openrbu.lab.trial import try_update

    with waits() as shown:

        def output(data: bytes) -> None:
            shown.end()
            write_through(2 if as_json else 1, data)

        return try_update(
            machine,
            image.absolute(),
            words,
            password=password,
            cut_power=cut_power,
            step=shown.say,
            output=output,
        )


def _update_words(
    mode: ModeChoice, packet_size: str, allow_downgrade: bool, allow_any_system: bool
) -> list[str]:
    """The options of `rbu update` in the guest.

    :raise UsageError: when the packet size is not possible.
    """
    from openrbu.formats.packet import check_packet_size

    check_packet_size(size_of(packet_size, "--packet-size"))
    words = ["--mode", mode.value, "--packet-size", packet_size]
    words += ["--allow-downgrade"] * allow_downgrade
    return words + ["--allow-any-system"] * allow_any_system


def _sound_image(path: Path) -> api.LoadedImage:
    """The image in a file.

    :raise DamagedInputError: when it is not whole.
    """
    loaded = api.read_image(path)
    if loaded.image.damage:
        raise DamagedInputError(f"{path}: {loaded.image.damage}")
    return loaded


def _trial_answer(trial: Trial, document: dict[str, Any]) -> Answer:
    if trial.post is None:
        if trial.status == 0:
            return Answer(document, ["nothing was done: the guest did not restart"])
        return Answer(document, [], trial.failure)
    post = trial.post
    rows = post_rows(post)
    if trial.started:
        rows += [
            ("console", f"SeaBIOS (version {trial.console_version})"),
            ("guest's tables", f"BIOS {trial.dmi_version}"),
            ("rbu status", "{code}: {meaning}".format(**trial.completion)),
        ]
    document |= {
        "changed": post.version_after != post.version_before,
        "result": post_document(post),
        "came_up": trial.started,
        "console_version": trial.console_version,
        "dmi_version": trial.dmi_version,
        "status": trial.status_document,
    }
    return Answer(document, [Facts("Restarted", rows)], trial.failure)


def shell(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CMD …]", help="A program, and its own arguments."),
    ] = None,
    *,
    model: Annotated[str, model_option("The machine's model.")] = "precision-390",
    bios_version: BiosVersionOption = None,
    ram: Ram = None,
    cpus: Cpus = 1,
    kernel: KernelOption = None,
    modules: Modules = None,
    kernel_words: KernelWords = "",
    without: WithoutModule = None,
    ram_file: RamFile = None,
    admin_password_file: AdminPasswordFile = None,
    xen: Xen = False,
    after_restart: Annotated[
        str | None,
        typer.Option(
            "--after-restart",
            metavar="COMMANDS",
            help="Shell commands to run after CMD has restarted the machine.",
        ),
    ] = None,
) -> int:
    """Run a shell, or a program, as root on a Dell machine in QEMU.

    The machine runs Debian's kernel; modprobe dell_rbu loads the real driver. It sees this
    computer's files and changes none of them; what it writes to /lab, its own disk, lasts over a
    restart. A restart works as on a Dell: the BIOS installs an update that is staged and armed,
    reports it, and the machine starts again.

    Without CMD and without a terminal, the shell commands on standard input are run. (A CMD gets
    no standard input.) The exit code is the program's; 126 or 127 if it can't be run. If it
    restarts the machine, it is that of --after-restart, or 1 when the BIOS refused an update.

    \b
    Examples:  rbu lab shell
               rbu lab shell -- smbios-token-ctl --token-id=0x5c --is-active
               rbu lab shell --after-restart 'dmidecode -t bios' -- ./my-tool new.hdr
               rbu lab shell --xen -- cat /sys/devices/system/xen_memory/xen_memory0/target_kb
    """
    from openrbu.lab.kernels import kernel_choice
    from openrbu.machine.models import model as model_named

    choice = kernel_choice(kernel, modules)
    is_interactive = not command and sys.stdin.isatty() and sys.stdout.isatty()
    if is_interactive:
        _check_interactive(xen, after_restart)
    standard_input = b"" if command or is_interactive else sys.stdin.buffer.read()
    password = password_of(admin_password_file)
    wanted = Wanted(
        model, bios_version, ram, cpus, choice, kernel_words, xen, ram_file, password, without
    )
    parts = make_parts(wanted, model_named(model).flash_size_bytes)
    with machine_of(parts, on_terminal=is_interactive) as machine:
        if is_interactive:
            return _interact(machine)
        return _run(machine, command or ["sh", "-s"], standard_input, after_restart)


def _check_interactive(xen: bool, after_restart: str | None) -> None:
    """Check that a shell on the terminal can have these options.

    :raise UsageError: when it can't.
    """
    if after_restart is not None:
        raise UsageError("--after-restart needs a CMD: a shell starts again after a restart")
    if xen:
        raise UsageError("--xen needs a CMD, or a script on standard input: Xen uses the terminal")


def _run(
    machine: LabMachine, words: list[str], standard_input: bytes, after_restart: str | None
) -> int:
    """Run a program, and the commands `after_restart` when it restarted the machine; the exit
    code."""
    here = str(Path.cwd())
    try:
        ran = machine.run(words, cwd=here, standard_input=standard_input, output=write_through)
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        print_error(f"{words[0]} can't be run: {error.strerror}")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
    status = _status_of(ran)
    if ran.post is not None and after_restart is not None:
        ran = machine.run(["sh", "-c", after_restart], cwd=here, output=write_through)
        status = _status_of(ran)
    return status


def _status_of(ran: ProgramResult) -> int:
    """The exit code for a program. Where it restarted the machine, print what the BIOS did."""
    return ran.status or 0 if ran.post is None else print_restart(ran.post)


def _greeting(machine: LabMachine) -> str:
    """Where one is in a shell, and how to leave it."""
    from openrbu.formats.dell import BiosInformation, SystemInformation

    tables = machine.tables
    system, bios = SystemInformation.of(tables), BiosInformation.of(tables)
    return (
        f"this is root's shell on a {system.product} with BIOS {bios.version} and Linux "
        f"{machine.guest.release}; exit (or Ctrl-D) switches the machine off, reboot restarts it"
    )


def _interact(machine: LabMachine) -> int:
    """Run a shell on the terminal, and another one after each restart. Returns its exit code."""
    while True:
        print_note(_greeting(machine))
        ran = machine.shell(["/bin/sh", "-i"], cwd=str(Path.cwd()))
        if ran.post is None:
            return ran.status or 0
        print_restart(ran.post)
