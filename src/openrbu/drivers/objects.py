"""The files of every device, platform device and module in sysfs, for any driver.

Names, modes, contents and link counts were measured on Debian's 6.1.192
(docs/reference/linux-files.md, L8). Power management, binding drivers to devices and events are not
simulated: writes to those files are refused with EPERM, except `uevent`, which takes the name of an
event and does nothing. A module's notes, sections and checksum come from a compiled file; these
drivers have none.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

from openrbu.drivers.sysfs import Directory, Symlink, SysfsTree, TextAttribute
from openrbu.errors import KernelError

_EVENT = re.compile(
    rb"(add|remove|change|move|online|offline|bind|unbind)"
    rb"( [0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}( [0-9a-zA-Z]+=[0-9a-zA-Z]+)*)?[\n\0]?"
)
"""What `uevent` takes: an action, and a UUID with values for the event. Each case was tried on
Debian's 6.1.192."""

_POWER = (
    ("async", "disabled", 0o644),
    ("control", "auto", 0o644),
    ("runtime_active_kids", "0", 0o444),
    ("runtime_active_time", "0", 0o444),
    ("runtime_enabled", "disabled", 0o444),
    ("runtime_status", "unsupported", 0o444),
    ("runtime_suspended_time", "0", 0o444),
    ("runtime_usage", "0", 0o444),
)

_MODULE = (
    ("coresize", "20480"),
    ("initsize", "0"),
    ("initstate", "live"),
    ("taint", ""),
)


def device_path(name: str) -> str:
    """Where the platform device `name` is in the tree."""
    return f"/devices/platform/{name}"


def module_path(name: str) -> str:
    """Where the module `name` is in the tree."""
    return f"/module/{name}"


def add_device(tree: SysfsTree, path: str, *, subsystem: str, uevent: Callable[[], str]) -> None:
    """Add the files of a device's directory. `subsystem` is the target of its link, as `readlink`
    shows it; `uevent` makes the text that describes the device to udev.

    :raise KernelError: EEXIST when there is such a device.
    """
    _add_device_files(tree, path, uevent)
    tree.add(f"{path}/subsystem", Symlink(subsystem))


def add_driver(
    tree: SysfsTree,
    name: str,
    *,
    version: str = "",
    users: Callable[[], int] | None = lambda: 0,
) -> None:
    """Add the files of the module `name` and of its platform device of that name.

    `version` is the module's, empty if it has none; `users` returns the reference count: while it
    is not 0, the module can't be unloaded; None: it is built in, and has fewer files.

    :raise KernelError: EEXIST when the driver is loaded in this tree.
    """
    device, module, modalias = device_path(name), module_path(name), f"platform:{name}\n"
    add_device(
        tree, device, subsystem="../../../bus/platform", uevent=lambda: f"MODALIAS={modalias}"
    )
    add_text(tree, f"{device}/modalias", modalias, 0o444)
    add_text(tree, f"{device}/driver_override", "(null)\n", 0o644)
    tree.add(f"/bus/platform/devices/{name}", Symlink(f"../../../devices/platform/{name}"))
    if version:
        add_text(tree, f"{module}/version", f"{version}\n", 0o444)
    tree.add(f"{module}/uevent", TextAttribute(store=_take_event, mode=0o200))
    if users is None:
        return
    for file, text in _MODULE:
        add_text(tree, f"{module}/{file}", f"{text}\n", 0o444)
    tree.add(f"{module}/refcnt", TextAttribute(lambda: f"{int(users())}\n", mode=0o444))
    for directory in ("holders", "notes", "sections"):
        tree.add(f"{module}/{directory}", Directory())


def remove_driver(tree: SysfsTree, name: str) -> None:
    """Remove both, with everything that a driver added to their directories."""
    tree.remove(f"/bus/platform/devices/{name}")
    tree.remove(device_path(name))
    tree.remove(module_path(name))


def system_device_path(name: str) -> str:
    """Where the one device of the system subsystem `name` is in the tree."""
    return f"/devices/system/{name}/{name}0"


def add_system_device(tree: SysfsTree, name: str) -> None:
    """Add the files of the system subsystem `name` and of its only device.

    :raise KernelError: EEXIST when the subsystem is in this tree already.
    """
    device, bus = system_device_path(name), f"/bus/{name}"
    add_device(tree, device, subsystem=f"../../../..{bus}", uevent=lambda: "")
    _add_device_files(tree, f"/devices/system/{name}", lambda: "")
    tree.add(f"{bus}/devices/{name}0", Symlink(f"../../..{device}"))
    tree.add(f"{bus}/drivers", Directory())
    add_text(tree, f"{bus}/drivers_autoprobe", "1\n", 0o644)
    tree.add(f"{bus}/drivers_probe", TextAttribute(store=_refuse, mode=0o200))
    tree.add(f"{bus}/uevent", TextAttribute(store=_take_event, mode=0o200))


def _add_device_files(tree: SysfsTree, path: str, uevent: Callable[[], str]) -> None:
    tree.add(f"{path}/uevent", TextAttribute(uevent, _take_event))
    for name, text, mode in _POWER:
        add_text(tree, f"{path}/power/{name}", f"{text}\n", mode)
    delay = TextAttribute(_no_autosuspend, _refuse)
    tree.add(f"{path}/power/autosuspend_delay_ms", delay)


def add_text(tree: SysfsTree, path: str, text: str, mode: int = 0o444) -> None:
    """Add an attribute that always shows this text. A write is refused with EPERM."""
    tree.add(path, TextAttribute(lambda: text, _refuse if mode & 0o222 else None, mode=mode))


def _no_autosuspend() -> str:
    raise KernelError(errno.EIO)


def _take_event(data: bytes) -> None:
    if not _EVENT.fullmatch(data):
        raise KernelError(errno.EINVAL)


def _refuse(_data: bytes) -> None:
    raise KernelError(errno.EPERM)
