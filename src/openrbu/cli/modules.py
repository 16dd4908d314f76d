"""Commands on kernel modules: module load, module unload."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Annotated

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.options import ModuleChoice, OnMachine
from openrbu.cli.show import Answer, good
from openrbu.errors import ObstacleError, UsageError
from openrbu.update.driver import RbuDriver

Module = Annotated[
    ModuleChoice, typer.Argument(metavar="MODULE", help="dell_rbu, dcdbas or xen_balloon.")
]
Parameters = Annotated[
    list[str] | None,
    typer.Argument(metavar="PARAM=VALUE", help="Such as image_type=packet."),
]

OWN = "openrbu's own driver"
_NO_MODULE = "the kernel has no dell_rbu (rbu driver status shows it, rbu driver stop ends it)"


def load(
    module: Module = ModuleChoice.DELL_RBU,
    parameters: Parameters = None,
    *,
    machine: OnMachine = None,
) -> Answer:
    """Load a kernel module, with parameters.

    On a computer whose kernel has no dell_rbu, openrbu's own driver is started in its place, as
    `rbu driver start` does; `rbu driver stop` stops it.

    \b
    Example:  rbu module load dell_rbu image_type=packet --machine demo
    """
    wanted = _parameters(parameters or ())
    name = module.value
    with api.open_machine(machine) as opened:
        if module is ModuleChoice.XEN_BALLOON:
            return _built_in(opened)
        is_own = _is_own(opened, module)
        document = {"module": name, "driver": _driver(is_own), "is_loaded": True}
        if opened.host.module_is_loaded(name):
            already = f"{OWN} is started" if is_own else f"module {name} is loaded"
            return Answer({"changed": False, **document}, [f"nothing to do: {already} already"])
        opened.host.load_module(name, wanted)
    done = f"{OWN} is started: {_NO_MODULE}" if is_own else f"module {name} is loaded"
    return Answer({"changed": True, **document}, [good(done)])


def unload(
    module: Module = ModuleChoice.DELL_RBU,
    *,
    abort: Annotated[
        bool,
        typer.Option(
            "--abort", help="First abort the firmware entry, which keeps dell_rbu in use."
        ),
    ] = False,
    machine: OnMachine = None,
) -> Answer:
    """Unload a kernel module. Unloading dell_rbu frees everything that is staged.

    Where openrbu's own driver is in the place of dell_rbu, it is stopped.

    While its firmware entry exists, dell_rbu can't be unloaded; --abort removes the entry, as
    `echo -1 > /sys/class/firmware/dell_rbu/loading` does.

    \b
    Example:  rbu module unload dell_rbu --abort --machine demo
    """
    name = module.value
    with api.open_machine(machine) as opened:
        if module is ModuleChoice.XEN_BALLOON:
            _built_in(opened)
            raise ObstacleError("xen_balloon is built into this kernel: it can't be unloaded")
        is_own = _is_own(opened, module)
        document = {"module": name, "driver": _driver(is_own), "is_loaded": False}
        if not opened.host.module_is_loaded(name):
            not_there = f"{OWN} is not started" if is_own else f"module {name} is not loaded"
            return Answer({"changed": False, **document}, [f"nothing to do: {not_there}"])
        if abort and module is ModuleChoice.DELL_RBU:
            RbuDriver(opened.host).abort_entry()
        try:
            opened.host.unload_module(name)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            what = f"{OWN} can't be stopped" if is_own else f"module {name} can't be unloaded"
            raise ObstacleError(
                f"{what}: {error.strerror}; --abort removes its firmware entry "
                "first, as echo -1 > /sys/class/firmware/dell_rbu/loading does"
            ) from None
    done = f"{OWN} is stopped" if is_own else f"module {name} is unloaded"
    return Answer({"changed": True, **document}, [good(done)])


def _is_own(machine: api.Machine, module: ModuleChoice) -> bool:
    """Whether openrbu's own driver is this module there, or would be."""
    return module is ModuleChoice.DELL_RBU and machine.host.own_rbu is not None


def _driver(is_own: bool) -> str:
    return "own" if is_own else "kernel"


def _built_in(machine: api.Machine) -> Answer:
    """The answer for the balloon driver, which is not a module but part of a kernel on Xen.

    :raise ObstacleError: when this one does not run on Xen.
    """
    from openrbu.drivers.xen_balloon_files import DEVICE_PATH

    name = ModuleChoice.XEN_BALLOON.value
    if not machine.host.exists(f"/sys{DEVICE_PATH}"):
        raise ObstacleError(
            f"{name} is built into kernels and works only on Xen; {machine.host.name} does not run "
            "on Xen (rbu balloon host makes a machine that does)"
        )
    document = {"changed": False, "module": name, "driver": _driver(False), "is_loaded": True}
    return Answer(document, [f"nothing to do: {name} is built into this kernel"])


def _parameters(words: Sequence[str]) -> dict[str, str]:
    """`PARAM=VALUE` words as a mapping.

    :raise UsageError: when a word is not one, or a parameter is given twice.
    """
    parameters: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise UsageError(f"{word!r} is not PARAM=VALUE (example: image_type=packet)")
        if name in parameters:
            raise UsageError(f"parameter {name} is given twice")
        parameters[name] = value
    return parameters
