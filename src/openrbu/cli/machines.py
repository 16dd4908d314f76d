"""Commands on virtual machines: machine new, list, show, reboot, off, rm."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.identity import system_name
from openrbu.cli.machine_options import (
    AdminPasswordFile,
    BiosRules,
    EntryDelay,
    Faults,
    FlashSize,
    Fragment,
    KernelWords,
    ModelName,
    OfSystem,
    ProfileName,
    Revision,
    TablesDirectory,
    WithoutRebootFiles,
)
from openrbu.cli.options import (
    MachineName,
    confirm,
    hex_number_of,
    size_of,
)
from openrbu.cli.passwords import password_of
from openrbu.cli.show import (
    Answer,
    Block,
    Cell,
    Facts,
    StyledText,
    Table,
    bad,
    caution,
    good,
)
from openrbu.cli.status import (
    completion_words,
    post_document,
    post_rows,
    record_document,
    table_rows,
)
from openrbu.errors import OpenRbuError, UsageError
from openrbu.system.times import local_time
from openrbu.units import human_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openrbu.bios.post_report import PostReport
    from openrbu.machine.base import Machine, MachineStatus
    from openrbu.machine.summary import MachineSummary


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new machine's name.")],
    *,
    model: ModelName = None,
    bios_version: Annotated[
        str | None,
        typer.Option("--bios-version", metavar="VERSION", help="The version of its BIOS."),
    ] = None,
    ram: Annotated[
        str | None, typer.Option("--ram", metavar="SIZE", help="Its memory (512M, 4G, 1T).")
    ] = None,
    profile: ProfileName = None,
    from_tables: TablesDirectory = None,
    system: OfSystem = None,
    bios: BiosRules = None,
    revision: Revision = 0,
    flash_size: FlashSize = None,
    fault: Faults = None,
    fragment: Fragment = None,
    admin_password_file: AdminPasswordFile = None,
    entry_delay: EntryDelay = 0.0,
    kernel_words: KernelWords = "",
    without_reboot_files: WithoutRebootFiles = False,
) -> Answer:
    """Make a virtual machine, and switch it on.

    \b
    Example:  rbu machine new demo --model precision-390 --ram 2G
    """
    from openrbu.sharing.access import open_machine

    fragmented = () if fragment is None else (f"fragmented={fragment}",)
    spec = api.MachineSpec(
        model=model,
        bios_version=bios_version,
        ram_bytes=None if ram is None else size_of(ram, "--ram"),
        profile="documented" if profile is None else profile,
        tables=from_tables,
        system_id=None if system is None else hex_number_of(system, "--system"),
        bios_rules=bios,
        hardware_revision=revision,
        flash_size_bytes=None if flash_size is None else size_of(flash_size, "--flash-size"),
        faults=(*(fault or ()), *fragmented),
        admin_password=password_of(admin_password_file),
        entry_delay_s=entry_delay,
        kernel_words=kernel_words,
        has_reboot_files=not without_reboot_files,
    )
    api.make_machine(name, spec)
    with open_machine(name) as machine:
        document, facts = _shown(machine)
        lacks = [caution(f"note: {line}") for line in document["lacks"]]
        return Answer({"changed": True, **document}, [good(f"made and on: {name}"), *lacks, facts])


def list_machines(*, as_json: bool) -> Answer:
    """List the virtual machines.

    \b
    Example:  rbu machine list
    """
    from openrbu.machine.store import is_machine, machine_directory

    documents: list[dict[str, Any]] = []
    rows: list[tuple[Cell, ...]] = []
    for name, shown in _summaries():
        if isinstance(shown, OpenRbuError):  # one in use or damaged does not hide the others
            if is_machine(machine_directory(name)):  # else it was removed just now
                documents.append({"name": name, "problem": str(shown)})
                rows.append((name, bad(str(shown)), "", "", ""))
            continue
        if as_json:
            documents.append(_machine_document(name, shown))
        product = shown.product or shown.config["model"]
        ram = human_size(shown.config["ram_bytes"])
        rows.append((name, product, shown.bios_version, _power(shown), ram))
    table = Table("Machines", ("name", "model", "BIOS", "power", "RAM"), rows)
    nothing = "there are no machines; make one: rbu machine new NAME"
    return Answer({"machines": documents}, [table if rows else nothing])


def _summaries() -> Iterator[tuple[str, MachineSummary | OpenRbuError]]:
    """What a list shows of each machine, with its name, or why it can't be shown. A machine is
    opened only where what is kept of it may be old."""
    from openrbu.machine import summary
    from openrbu.machine.store import check_owner, machine_directory

    names, is_ours, turn = api.machine_names(), False, None
    with contextlib.suppress(OpenRbuError):
        check_owner(machine_directory(names[0] if names else "none"))
        is_ours = True
    for name in names:
        found = summary.kept(machine_directory(name)) if is_ours else None
        if found is not None:
            yield name, found
            continue
        from openrbu.machine.turns import turn as new_turn
        from openrbu.sharing.access import open_machine

        turn = turn or new_turn()  # one for all, however many machines are in use
        try:
            with open_machine(name, reading=True, within=turn) as machine:
                found = summary.summary_of(machine.config, machine.status())
        except OpenRbuError as error:
            yield name, error
        else:
            yield name, found


def show_machine(
    name: MachineName,
) -> Answer:
    """Show what a virtual machine is made of, and its status.

    \b
    Example:  rbu machine show demo
    """
    from openrbu.sharing.access import open_machine

    with open_machine(name, reading=True) as machine:
        document, facts = _shown(machine)
        return Answer(document, [facts])


def reboot(
    name: MachineName,
    *,
    cold: Annotated[
        bool,
        typer.Option(
            "--cold", help="Do a power cycle: it clears memory, and a staged image is lost."
        ),
    ] = False,
    kexec: Annotated[
        bool,
        typer.Option("--kexec", help="Start Linux once more without the BIOS, in the same memory."),
    ] = False,
) -> Answer:
    """Restart a virtual machine, and show what its BIOS did.

    A machine that is off is switched on. Memory is kept if the kernel's reboot mode is warm; an
    update sets that. The exit code is 1 when the BIOS tried an update and failed, or when an
    update was armed and its version does not run now.

    \b
    Example:  rbu machine reboot demo
    """
    if cold and kexec:
        raise UsageError("--cold and --kexec don't go together")
    with api.open_machine(name) as machine:
        if kexec:
            assert machine.virtual is not None
            machine.virtual.kexec()
            document = {"changed": True, "name": name, "attempted": False}
            return Answer(document, [kexec_words(name)])
        restarted = machine.restart(cold=cold)
    assert restarted is not None, "a virtual machine returns its BIOS's report"
    post = restarted.post
    document = {"changed": True, "name": name, **post_document(post)}
    return Answer(document, [restarted_facts(name, post)], restarted.failure)


def restarted_facts(name: str, post: PostReport) -> Facts:
    """What a machine's BIOS did at a restart."""
    return Facts(f"{name} restarted", post_rows(post))


def kexec_words(name: str) -> StyledText:
    return good(f"{name} runs another kernel; the BIOS did not run")


def off_words(name: str) -> StyledText:
    return good(f"{name} is off")


def off(
    name: MachineName,
) -> Answer:
    """Switch a virtual machine off. What is staged in its memory is lost.

    \b
    Example:  rbu machine off demo
    """
    if not api.switch_off(name):
        return Answer({"changed": False, "name": name}, [f"nothing to do: {name} is off"])
    return Answer({"changed": True, "name": name}, [off_words(name)])


def remove(
    name: MachineName,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> Answer:
    """Remove a virtual machine with all its files, its journal included.

    \b
    Example:  rbu machine rm demo --yes
    """
    from openrbu.machine.store import existing_directory

    existing_directory(name)  # no question about a machine that does not exist
    confirm(f"Remove machine {name} for good?", yes=yes)
    api.remove_machine(name)
    return Answer({"changed": True, "name": name}, [good(f"removed {name}")])


def _power(status: MachineStatus | MachineSummary) -> Cell:
    if status.is_on:
        return good("on")
    return caution("off: lost its power") if status.lost_power else "off"


def _shown(machine: Machine) -> tuple[dict[str, Any], Block]:
    """A machine with its status, for `--json` and for people."""
    from openrbu.machine.summary import summary_of

    status = machine.status()
    document = _machine_document(machine.name, summary_of(machine.config, status))
    return document, _machine_facts(machine, status, document)


def _machine_document(name: str, shown: MachineSummary) -> dict[str, Any]:
    from openrbu.machine.store import machine_directory

    return {
        "name": name,
        "model": shown.config["model"],
        "vendor": shown.vendor,
        "product": shown.product,
        "service_tag": shown.service_tag,
        "system_id": None if shown.system_id is None else f"{shown.system_id:#06x}",
        "system_name": system_name(shown.system_id),
        "bios_version": shown.bios_version,
        "bios_release_date": shown.bios_release_date,
        "flash_size_bytes": shown.flash_size_bytes,
        "ram_bytes": shown.config["ram_bytes"],
        "profile": shown.config["profile"],
        "bios_rules": shown.config["bios_rules"],
        "hardware_revision": shown.config["hardware_revision"],
        "entry_delay_s": shown.config["entry_delay_s"],
        "kernel_words": shown.config["kernel_words"],
        "has_reboot_files": shown.config["has_reboot_files"],
        "xen": shown.config["xen"],
        "faults": list(shown.config["faults"]),
        "is_on": shown.is_on,
        "lost_power": shown.lost_power,
        "is_armed": shown.is_armed,
        "modules": shown.modules,
        "reboot_mode": shown.reboot_mode,
        "completion": _record(shown),
        "table_problems": shown.table_problems,
        "lacks": shown.lacks,
        "created_at": shown.config["created_at"],
        "directory": str(machine_directory(name)),
    }


def _record(shown: MachineSummary) -> dict[str, Any] | None:
    """The BIOS's record of the last update, for `--json`; None: there is none."""
    if shown.completion is None:
        return None
    code, when = shown.completion
    return record_document(code, None if when is None else dt.datetime.fromisoformat(when))


def _system_words(document: dict[str, Any]) -> str:
    """A machine's system ID, and the product with that ID where it is known."""
    if document["system_id"] is None:
        return "none"
    name = document["system_name"]
    return f"{document['system_id']} ({name})" if name else str(document["system_id"])


def _when_made(created_at: str) -> str:
    with contextlib.suppress(ValueError):  # the text of a file
        return local_time(dt.datetime.fromisoformat(created_at))
    return created_at


def _machine_facts(machine: Machine, status: MachineStatus, document: dict[str, Any]) -> Block:
    from openrbu.formats import dell

    rbu = dell.RbuInformation.of(status.tables)
    rows: list[tuple[str, Cell]] = [
        ("machine", f"{document['product']} ({document['model']})"),
        ("service tag", document["service_tag"] or "none"),
        ("system ID", _system_words(document)),
        ("BIOS", f"{document['bios_version']} of {document['bios_release_date']}"),
        ("BIOS rules", document["bios_rules"]),
        ("hardware revision", str(document["hardware_revision"])),
        ("flash", human_size(document["flash_size_bytes"])),
        ("RAM", human_size(document["ram_bytes"])),
        ("power", _power(status)),
        ("armed", caution("yes") if document["is_armed"] else "no"),
    ]
    if rbu is not None:
        kinds = "monolithic images and packets" if rbu.packet_supported else "monolithic images"
        rows.append(("updates by", kinds))
        rows.append(("BIOS says", completion_words(rbu.completion_code)))
    rows += table_rows(status.tables)
    if status.is_on:
        rows.append(("modules", ", ".join(document["modules"]) or "none"))
        rows.append(("reboot mode", document["reboot_mode"]))
    rows.append(("driver profile", document["profile"]))
    if machine.config.xen is not None:
        size = human_size(machine.config.xen.dom0_bytes)
        rows.append(("hypervisor", f"Xen; dom0 starts with {size} (rbu balloon show)"))
    if document["entry_delay_s"]:
        rows.append(("entry delay", f"{document['entry_delay_s']:g} s"))
    if document["kernel_words"]:
        rows.append(("kernel words", document["kernel_words"]))
    if not document["has_reboot_files"]:
        rows.append(("reboot files", "none (/sys/kernel/reboot)"))
    if document["faults"]:
        rows.append(("faults", bad(", ".join(document["faults"]))))
    rows.append(("made", _when_made(document["created_at"])))
    rows.append(("directory", document["directory"]))
    return Facts(machine.name, rows)
