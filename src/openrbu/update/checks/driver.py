"""Can the driver be used: is it there, can an image be given to it, and is it free."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.hosts.base import OwnRbu
from openrbu.linux.files import names_in
from openrbu.linux.firmware_class import LIBRARY, SEARCH_PATH
from openrbu.linux.modules import Module, lack_of, refusal_of, wants_signature
from openrbu.units import human_size
from openrbu.update.begun_loads import ADVICE, begun_load
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.driver import RbuDriver
from openrbu.update.exclusion import who_updates
from openrbu.update.firmware_file import NAME

LOCKS = "/var/lock"
"""Where programs keep their lock files."""

_TOOLS = ("dell", "dup", "dsu", "srvadmin")
"""In the names of lock files of the vendor's programs."""

_check = partial(Check, Question.STAGING)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the driver is there, takes an image, and is nobody else's."""
    driver = RbuDriver(seen.host)
    own = seen.host.own_rbu
    if own is not None and not driver.is_loaded:
        yield _own(seen, own)
    elif driver.is_loaded:
        what = "the dell_rbu module is loaded" if own is None else "openrbu's own driver is started"
        yield _check("driver", what, Verdict.FINE)
        yield from _staged(driver)
        yield from _load(seen)
    else:
        yield _unloaded(seen.linux.rbu_module, seen.linux.lockdown)
    if own is None:
        yield from _file(seen)
        yield from _fallback(seen)
    yield from _tools(seen)


def _own(seen: Situation, own: OwnRbu) -> Check:
    """Why openrbu's own driver is used; or where that can't have any memory, as a further check
    says, what keeps the kernel's from being used."""
    module, lockdown = seen.linux.rbu_module, seen.linux.lockdown
    text = "the dell_rbu module is not loaded"
    if problem := lack_of(module) or refusal_of(module, lockdown):
        if own.obstacles(0) or seen.on_xen:
            return _unloaded(module, lockdown)
        text = f"{text}, and {problem[0]}"
    return _check("driver", text, Verdict.HANDLED, "openrbu's own driver takes its place")


def _unloaded(module: Module, lockdown: str | None) -> Check:
    """Whether the module can be loaded."""
    if module.is_built_in:
        return _check("driver", "the dell_rbu driver is built into the kernel", Verdict.FINE)
    text = "the dell_rbu module is not loaded"
    if problem := lack_of(module):
        kind, what, advice = "driver_absent", *problem
    elif problem := refusal_of(module, lockdown):
        kind, what, advice = "driver_refused", *problem
    elif module.is_signed is None and wants_signature(module, lockdown):
        return _check(
            "driver",
            f"{text}; this kernel loads signed modules only, and the signature of "
            f"{module.file or 'this one'} can't be read here",
            Verdict.UNKNOWN,
            "load it now to see: modprobe dell_rbu",
        )
    else:
        return _check("driver", text, Verdict.HANDLED, "the update loads it")
    return _check("driver", f"{text}, and {what}", Verdict.IN_THE_WAY, advice, obstacle=kind)


def _file(seen: Situation) -> Iterator[Check]:
    """Whether somebody has left a file that would be staged."""
    firmware = seen.linux.firmware_class
    if not firmware.files:
        return
    found = (
        f"there is a file {firmware.files[0]}, which the kernel would stage in place of the image"
    )
    if firmware.search_path is None:
        advice = f"remove it, or move it away ({SEARCH_PATH} is missing)"
        yield _check("firmware_file", found, Verdict.IN_THE_WAY, advice)
    else:
        advice = "the update gives the image as a file that the kernel finds before it"
        yield _check("firmware_file", found, Verdict.HANDLED, advice)


def _fallback(seen: Situation) -> Iterator[Check]:
    """Whether the kernel takes an image from a program; nothing where it shows no firmware class at
    all."""
    firmware = seen.linux.firmware_class
    if firmware.uses_fallback:
        found = "the kernel takes an image from a program"
        yield _check("firmware_class", found, Verdict.FINE)
        return
    why = "is told to ignore" if firmware.has_fallback else "does not have"
    found = f"the kernel {why} the sysfs fallback, through which a program gives it an image"
    if firmware.search_path is not None:
        advice = "the update gives it the image as a file"
        yield _check("firmware_class", found, Verdict.HANDLED, advice)
    elif firmware.has_fallback:
        advice = f"put the image at {LIBRARY}/{NAME} by hand ({SEARCH_PATH} is missing)"
        yield _check("firmware_class", found, Verdict.IN_THE_WAY, advice, "no_firmware_fallback")


def _staged(driver: RbuDriver) -> Iterator[Check]:
    """What is staged already."""
    size_bytes = driver.staged_size_bytes
    if not size_bytes:
        return
    what = "in packets" if driver.image_type == "packet" else "in one piece"
    text = f"{human_size(size_bytes)} {what} are staged already"
    if why_not := driver.clearing.why_not:
        advice = "restart the machine first"
        yield _check("staged_already", f"{text}, and {why_not}", Verdict.IN_THE_WAY, advice)
    else:
        yield _check("staged_already", text, Verdict.HANDLED, "the update frees it")


def _load(seen: Situation) -> Iterator[Check]:
    """A load that was begun and not ended."""
    begun = begun_load(seen.host)
    if begun is None:
        return
    under_way = who_updates(seen.host)
    text = begun.message
    if under_way:
        text = f"an update is under way ({under_way})"
        yield _check("load_under_way", text, Verdict.IN_THE_WAY, "wait for it")
    elif begun.is_ours:
        yield _check("load_under_way", text, Verdict.HANDLED, "the update takes it over")
    else:
        yield _check("load_under_way", text, Verdict.IN_THE_WAY, ADVICE)


def _tools(seen: Situation) -> Iterator[Check]:
    """Lock files of other programs that update this machine."""
    locks = [name for name in names_in(seen.host, LOCKS) if _is_of_tool(name)]
    if locks:
        paths = ", ".join(f"{LOCKS}/{name}" for name in locks)
        yield _check(
            "other_tool",
            f"a program of the vendor seems to be at work, or was interrupted ({paths})",
            Verdict.UNKNOWN,
            "wait until it is done",
        )


def _is_of_tool(name: str) -> bool:
    return name.lower().lstrip(".").startswith(_TOOLS)
