"""What every platform device and its module show in sysfs, whatever the driver.

Seen on Debian's 6.1.192. Nothing here binds drivers to devices, so `driver_override` can't be
written.
"""

from __future__ import annotations

from openrbu.drivers.sysfs import Symlink, SysfsTree, TextAttribute


def device_path(name: str) -> str:
    """Where the platform device `name` is in the tree."""
    return f"/devices/platform/{name}"


def add_platform_device(tree: SysfsTree, name: str) -> None:
    """Add the device's directory, and the link to it on the platform bus.

    :raise KernelError: EEXIST when there is such a device.
    """
    path = device_path(name)
    _add_text(tree, f"{path}/uevent", f"MODALIAS=platform:{name}\n")
    _add_text(tree, f"{path}/modalias", f"platform:{name}\n")
    _add_text(tree, f"{path}/driver_override", "(null)\n")
    _add_text(tree, f"{path}/power/control", "auto\n")
    _add_text(tree, f"{path}/power/runtime_status", "unsupported\n")
    tree.add(f"{path}/subsystem", Symlink("../../../bus/platform"))
    tree.add(f"/bus/platform/devices/{name}", Symlink(f"../../../devices/platform/{name}"))


def remove_platform_device(tree: SysfsTree, name: str) -> None:
    """Take both away again, with all that a driver has added to the directory."""
    tree.remove(f"/bus/platform/devices/{name}")
    tree.remove(device_path(name))


def _add_text(tree: SysfsTree, path: str, text: str) -> None:
    tree.add(path, TextAttribute(lambda: text, mode=0o444))
