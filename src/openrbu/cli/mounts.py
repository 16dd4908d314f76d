"""The command `rbu mount`: a virtual machine's files as files of this computer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openrbu._vendor import typer
from openrbu.cli.options import machine_option
from openrbu.cli.show import Answer, emit, good, print_error
from openrbu.errors import UsageError

if TYPE_CHECKING:
    from openrbu.fuse.mounting import Open

LOG_NAME = "mount.log"

# Not a Path: typer would access it, and a dead mount there may not respond. (The shell completes
# both in the same way.)
Directory = Annotated[str, typer.Argument(metavar="DIR", help="An empty directory to mount it at.")]
MachineName = Annotated[
    str | None, machine_option("The virtual machine; without it, openrbu's own driver.")
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Serve it in the background; return when it is mounted.")
]
AllowOther = Annotated[
    bool,
    typer.Option(
        "--allow-other",
        help="Let other users access it, as far as the files' modes allow. Without root this "
        "needs user_allow_other in /etc/fuse.conf.",
    ),
]
Stop = Annotated[
    bool, typer.Option("--stop", help="End the mount at DIR; return when the machine is free.")
]


def mount(
    directory: Directory,
    *,
    machine: MachineName = None,
    detach: Detach = False,
    allow_other: AllowOther = False,
    stop: Stop = False,
    as_json: bool,
) -> Answer:
    """Mount the /sys, /proc and /dev of a virtual machine, or the /sys of openrbu's own driver.

    They are files like a kernel's: read and write them with any program. Other commands can use
    the machine at the same time. The mount ends when it is unmounted, or with Ctrl-C, SIGTERM or
    --stop. While the machine is off, the directory is empty.

    Without --machine it is the /sys of openrbu's own driver, which has this computer's memory. This
    needs root, and a kernel without dell_rbu.

    \b
    Examples:  rbu mount /mnt --machine demo
               rbu mount /mnt --machine demo --detach
               echo 1 > /mnt/sys/class/firmware/dell_rbu/loading
               rbu mount /mnt --stop
    """
    from openrbu.fuse import detached, mounting
    from openrbu.system.fuse_mounts import real_path

    target = real_path(directory)
    if stop:
        if machine is not None or detach or allow_other:
            raise UsageError("--stop takes DIR alone")
        return _stop(target)
    source, opened = _source(machine)
    mounting.check_target(target)

    def serve(ready: Callable[[], None]) -> None:
        mounting.serve(
            source,
            target,
            opened,
            allow_other=allow_other,
            ready=ready,
            waiting=print_waiting,
            log=print_error,
        )

    document = {"changed": True, "machine": machine, "directory": target}
    name = _name(str(source))
    is_at = f"{name} is mounted at {target}"
    if detach:
        pid = detached.serve_detached(serve, source / LOG_NAME, print_error)
        line = good(f"{is_at}; rbu mount {target} --stop ends it")
        return Answer({**document, "pid": pid}, [line])
    told = [] if as_json else [good(f"{is_at}; Ctrl-C or umount {target} ends it")]
    detached.serve_in_foreground(serve, lambda: emit(told))
    return Answer(document, [f"{name} is not mounted at {target} any more"])


def _source(machine: str | None) -> tuple[Path, Open]:
    """The directory of what is to be mounted, and what opens it."""
    from openrbu.fuse import mounting
    from openrbu.machine.store import existing_directory
    from openrbu.own_driver.backends import default_backend
    from openrbu.own_driver.store import DIRECTORY, Store

    if machine is None:
        Store().make_directory()
        return Path(DIRECTORY), mounting.open_own_driver(default_backend, print_error)
    source = existing_directory(machine)
    return source, mounting.open_machine(source)


def _stop(target: str) -> Answer:
    from openrbu.fuse import mounting
    from openrbu.own_driver.store import DIRECTORY

    document = {"directory": target}
    source = mounting.served_at(target)
    if source is None:
        nothing = f"nothing to do: no machine is mounted at {target}"
        return Answer({"changed": False, **document}, [nothing])
    mounting.stop(target, source, waiting=print_waiting)
    line = good(f"{_name(source)} is not mounted at {target} any more")
    machine = None if source == DIRECTORY else Path(source).name
    return Answer({"changed": True, "machine": machine, **document}, [line])


def _name(source: str) -> str:
    """What is mounted from a directory, in words."""
    from openrbu.own_driver.store import DIRECTORY

    return "openrbu's own driver" if source == DIRECTORY else f"machine {Path(source).name}"


def print_waiting(programs: int) -> None:
    if programs:
        noun = "program that uses" if programs == 1 else "programs that use"
        print_error(f"waiting for {programs} {noun} the machine")
