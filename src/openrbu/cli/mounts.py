"""The command `rbu mount`: a virtual machine's files as files of this computer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from openrbu.cli.options import machine_option
from openrbu.cli.show import Answer, emit, good, print_error
from openrbu.errors import UsageError

LOG_NAME = "mount.log"

# Not a Path: typer would access it, and a dead mount there may not respond. (The shell completes
# both in the same way.)
Directory = Annotated[str, typer.Argument(metavar="DIR", help="An empty directory to mount it at.")]
MachineName = Annotated[str | None, machine_option("The virtual machine.")]
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
    """Mount a virtual machine's /sys, /proc and /dev at a directory.

    They are files like a kernel's: read and write them with any program. Other commands can use
    the machine at the same time. The mount ends when it is unmounted, or with Ctrl-C, SIGTERM or
    --stop. While the machine is off, the directory is empty.

    \b
    Examples:  rbu mount /mnt --machine demo
               rbu mount /mnt --machine demo --detach
               echo 1 > /mnt/sys/class/firmware/dell_rbu/loading
               rbu mount /mnt --stop
    """
    from openrbu.fuse import detached, mounting
    from openrbu.machine.store import existing_directory
    from openrbu.system.fuse_mounts import real_path

    target = real_path(directory)
    if stop:
        if machine is not None or detach or allow_other:
            raise UsageError("--stop takes DIR alone")
        return _stop(target)
    if machine is None:
        raise UsageError("which machine? name it with --machine NAME")
    source = existing_directory(machine)
    mounting.check_target(target)

    def serve(ready: Callable[[], None]) -> None:
        mounting.serve(
            source,
            target,
            mounting.open_machine(source),
            allow_other=allow_other,
            ready=ready,
            waiting=print_waiting,
            log=print_error,
        )

    document = {"changed": True, "machine": machine, "directory": target}
    is_at = f"machine {machine} is mounted at {target}"
    if detach:
        pid = detached.serve_detached(serve, source / LOG_NAME, print_error)
        line = good(f"{is_at}; rbu mount {target} --stop ends it")
        return Answer({**document, "pid": pid}, [line])
    told = [] if as_json else [good(f"{is_at}; Ctrl-C or umount {target} ends it")]
    detached.serve_in_foreground(serve, lambda: emit(told))
    return Answer(document, [f"machine {machine} is not mounted at {target} any more"])


def _stop(target: str) -> Answer:
    from openrbu.fuse import mounting

    document = {"directory": target}
    source = mounting.served_at(target)
    if source is None:
        nothing = f"nothing to do: no machine is mounted at {target}"
        return Answer({"changed": False, **document}, [nothing])
    mounting.stop(target, source, waiting=print_waiting)
    name = Path(source).name
    line = good(f"machine {name} is not mounted at {target} any more")
    return Answer({"changed": True, "machine": name, **document}, [line])


def print_waiting(programs: int) -> None:
    if programs:
        noun = "program that uses" if programs == 1 else "programs that use"
        print_error(f"waiting for {programs} {noun} the machine")
