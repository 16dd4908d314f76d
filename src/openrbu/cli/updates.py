"""Commands that plan, do and take back an update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrbu.cli import progress, show
from openrbu.cli.interrupts import UpdateTeller
from openrbu.cli.options import (
    AllowKnownBroken,
    AsJson,
    ImageFile,
    ModeChoice,
    OnMachine,
    PacketSize,
    PasswordFile,
    Reinstall,
    password_of,
    size_of,
)
from openrbu.cli.plan_view import (
    armed_blocks,
    hints,
    outcome_document,
    plan_document,
    plan_rows,
)
from openrbu.cli.show import Answer, Block, Facts, caution, good
from openrbu.cli.status import (
    post_document,
    post_rows,
    update_failure,
)
from openrbu.errors import OpenRbuError
from openrbu.sharing.session import Session, open_session

if TYPE_CHECKING:
    from openrbu.formats.loading import LoadedImage
    from openrbu.update.driver import Mode as StagingMode
    from openrbu.update.options import Options
    from openrbu.update.plan import Plan

_MODES: dict[ModeChoice, StagingMode | None] = {
    ModeChoice.AUTO: None,
    ModeChoice.MONO: "mono",
    ModeChoice.PACKET: "packet",
}

Mode = Annotated[
    ModeChoice,
    typer.Option("--mode", help="How to stage: in one block of memory, or in packets."),
]
AllowDowngrade = Annotated[
    bool, typer.Option("--allow-downgrade", help="Take an older version, or one of unclear age.")
]
AllowAnySystem = Annotated[
    bool,
    typer.Option(
        "--allow-any-system",
        help="Try it although the image is for another system or hardware revision.",
    ),
]
WithoutPassword = Annotated[
    bool,
    typer.Option(
        "--without-password", help="There is no BIOS admin password, whatever SMBIOS says."
    ),
]
MemoryAbove4g = Annotated[
    bool,
    typer.Option(
        "--memory-above-4g",
        help="Packets may lie above 4 GiB, where the published rules have no BIOS look.",
    ),
]
MendCmos = Annotated[
    bool,
    typer.Option(
        "--mend-cmos", help="Make wrong check values of CMOS right, so that the BIOS believes it."
    ),
]


def plan(
    image: ImageFile,
    *,
    machine: OnMachine = None,
    mode: Mode = ModeChoice.AUTO,
    packet_size: PacketSize = "4096",
    reinstall: Reinstall = False,
    allow_downgrade: AllowDowngrade = False,
    allow_any_system: AllowAnySystem = False,
    allow_known_broken: AllowKnownBroken = False,
    memory_above_4g: MemoryAbove4g = False,
    password_file: PasswordFile = None,
    without_password: WithoutPassword = False,
    mend_cmos: MendCmos = False,
    as_json: AsJson = False,
) -> Answer:
    """Show what an update would do, and what stands in its way.

    Changes nothing. Ends with 0 when the update could be done or is not needed, else as the
    update itself would.

    \b
    Example:  rbu plan A06.hdr --machine demo
    """
    from openrbu.formats.loading import load_image
    from openrbu.update.plan import make_plan

    loaded = load_image(image)
    options = _options(
        mode,
        packet_size,
        loaded,
        reinstall=reinstall,
        allow_downgrade=allow_downgrade,
        allow_any_system=allow_any_system,
        allow_known_broken=allow_known_broken,
        memory_above_4g=memory_above_4g,
        password=password_of(password_file),
        without_password=without_password,
        mend_cmos=mend_cmos,
    )
    with open_session(machine) as session:
        planned = make_plan(session.host, loaded.image, options)
        refusal = planned.refusal
        blocks: list[Block] = [Facts("Plan", plan_rows(session, planned))]
        blocks += [_nothing_to_do(planned)] if planned.nothing_to_do else hints(planned)
        if not planned.nothing_to_do and refusal is None:
            blocks.append(good(f"ready: rbu update {image}{session.option}{_asked(options)}"))
        return Answer(
            {"changed": False, **plan_document(session, planned, loaded)}, blocks, refusal
        )


def update(
    image: ImageFile,
    *,
    machine: OnMachine = None,
    mode: Mode = ModeChoice.AUTO,
    packet_size: PacketSize = "4096",
    reboot: Annotated[
        bool, typer.Option("--reboot", help="Restart the machine when it is armed.")
    ] = False,
    reinstall: Reinstall = False,
    allow_downgrade: AllowDowngrade = False,
    allow_any_system: AllowAnySystem = False,
    allow_known_broken: AllowKnownBroken = False,
    memory_above_4g: MemoryAbove4g = False,
    password_file: PasswordFile = None,
    without_password: WithoutPassword = False,
    mend_cmos: MendCmos = False,
    as_json: AsJson = False,
) -> Answer:
    """Stage and verify an image, and arm the BIOS.

    The next restart updates the BIOS; --reboot does that too.

    Whatever goes wrong before the end, Ctrl-C included, leaves the machine as it was. A machine
    that runs this version already is left alone.

    \b
    Example:  rbu update A06.hdr --machine demo --reboot
    """
    from openrbu.formats.loading import load_image
    from openrbu.update.flow import perform
    from openrbu.update.journal import Journal
    from openrbu.update.plan import make_plan

    loaded = load_image(image)
    options = _options(
        mode,
        packet_size,
        loaded,
        reinstall=reinstall,
        allow_downgrade=allow_downgrade,
        allow_any_system=allow_any_system,
        allow_known_broken=allow_known_broken,
        memory_above_4g=memory_above_4g,
        password=password_of(password_file),
        without_password=without_password,
        mend_cmos=mend_cmos,
    )
    teller = UpdateTeller()
    with teller.telling(), open_session(machine) as session:
        planned = make_plan(session.host, loaded.image, options)
        document = {"changed": False, "plan": plan_document(session, planned, loaded)}
        if planned.nothing_to_do:
            return Answer(document, [_nothing_to_do(planned)])
        if planned.refusal is not None:
            return Answer(document, hints(planned), planned.refusal)
        if as_json:
            show.check_output()
        else:
            show.emit([Facts("Update", plan_rows(session, planned)), *hints(planned)])
        teller.begin(Journal(session.host.journal_path))
        with progress.watching() as watcher:
            outcome = perform(session.host, planned, watcher)
        assert outcome is not None, "there is something to do"
        document |= {"changed": True, **outcome_document(outcome)}
        armed = armed_blocks(planned, outcome)
        if not reboot:
            return Answer(document | {"restarted": False}, [*armed, _what_now(session)])
        if not as_json:
            show.emit(armed)
        teller.end()
        return _restart(session, planned, document)


def _options(mode: ModeChoice, packet_size: str, loaded: LoadedImage, **others: Any) -> Options:
    """What the operator and the package ask for; `others` are options by their names there.

    :raise UsageError: when the packet size is none.
    """
    from openrbu.formats.packet import check_packet_size
    from openrbu.update.options import Options

    size = size_of(packet_size, "--packet-size")
    check_packet_size(size)
    manifest = loaded.manifest
    minimum = None if manifest is None else manifest.minimum_version
    systems = () if manifest is None else manifest.systems
    return Options(
        mode=_MODES[mode],
        packet_size_bytes=size,
        minimum_version=minimum,
        package_systems=frozenset(each.id for each in systems),
        package_notes=loaded.notes,
        **others,
    )


def _asked(options: Options) -> str:
    """The options that take an obstacle away, as on the command line."""
    names = (
        "reinstall",
        "allow_downgrade",
        "allow_any_system",
        "allow_known_broken",
        "memory_above_4g",
        "without_password",
        "mend_cmos",
    )
    return "".join(f" --{name.replace('_', '-')}" for name in names if getattr(options, name))


# -- the plan -------------------------------------------------------------------------------


def _nothing_to_do(planned: Plan) -> Block:
    running = f"{planned.target.title} runs {planned.target.bios.version} already"
    return good(f"nothing to do: {running} (--reinstall installs it once more)")


# -- doing it -------------------------------------------------------------------------------


def _what_now(session: Session) -> Block:
    if session.machine is not None:
        return f"next: rbu machine reboot {session.machine.name}"
    return "next: restart this machine (no power cycle: it would lose the image), then: rbu status"


def _restart(session: Session, planned: Plan, document: dict[str, Any]) -> Answer:
    """Restart, and show what the BIOS made of it where that is known at once. Without the new
    version it is a failure, whatever the BIOS says."""
    from openrbu.update.report import read_status

    try:
        session.host.restart()
    except OpenRbuError as error:  # the update is armed all the same
        return Answer(document | {"restarted": False}, [_what_now(session)], error)
    document = document | {"restarted": True, "is_armed": None}
    if session.machine is None:
        return Answer(document, ["restarting; rbu status tells how it ended"])
    now = read_status(session.host)
    post = session.machine.last_post
    assert post is not None, "a virtual machine that was restarted has been through POST"
    document |= {"is_armed": now.is_armed, "result": post_document(post)}
    blocks = [Facts("Restarted", post_rows(post))]
    return Answer(document, blocks, update_failure(post, planned.image.header.version))


# -- taking it back -------------------------------------------------------------------------


def cancel(
    *,
    machine: OnMachine = None,
    as_json: AsJson = False,
) -> Answer:
    """Take an armed or staged update back.

    First the BIOS's token is cleared, then the image in memory.

    \b
    Example:  rbu cancel --machine demo
    """
    from openrbu.update import flow

    with open_session(machine) as session:
        done = flow.cancel(session.host)
    document = {
        "changed": done.changed,
        "was_armed": done.was_armed,
        "was_staged": done.was_staged,
        "left_staged": done.left_staged,
        "problem": done.problem or None,
    }
    lines: list[Block] = []
    if done.was_armed:
        lines.append(good("disarmed: the next restart changes nothing"))
    if done.left_staged:
        lines.append(
            caution(
                "note: this kernel can't drop the packets that its driver holds; they do nothing "
                "without the token, and a power cycle clears them"
            )
        )
    elif done.was_staged:
        lines.append(good("freed: nothing is staged any more"))
    if done.problem:
        lines.append(caution(f"note: {done.problem}"))
    return Answer(document, lines or ["nothing to cancel: nothing is staged or armed"])
