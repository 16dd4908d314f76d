"""The firmware class of a Linux: how an image can be given to a driver that asks for one.

A kernel looks for a file first: in the directory that its parameter `path` names, then in four
directories below `/lib/firmware`, each as its first process finds them; then for the same with
`.xz` or `.zst` behind the name. Only where there is none it makes an entry in `/sys/class/firmware`
(the sysfs fallback), if it was built with that, and is not told to ignore it.

Facts: docs/reference/firmware-class.md, F5 and F6.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.hosts.base import Host
from openrbu.linux.files import RELEASE, number_of, text_of

CLASS = "/sys/class/firmware"
SEARCH_PATH = "/sys/module/firmware_class/parameters/path"
IGNORE_FALLBACK = "/proc/sys/kernel/firmware_config/ignore_sysfs_fallback"

LIBRARY = "/lib/firmware"

_FIRST_ROOT = "/proc/1/root"
"""The root of the first process, which may be another one than this program's (containers)."""

_PACKED = ("", ".xz", ".zst")


@dataclass(frozen=True, slots=True)
class FirmwareRequests:
    """`has_fallback`: the kernel was built with the sysfs fallback. `ignores_fallback`: it is told
    not to use it. `search_path`: the directory in which it searches first; empty: none; None where
    it has no such parameter, or does not show it. `timeout_s`: the file `timeout`; None: there is
    none.

    `files`: the files with the driver's name that the kernel finds, by the paths under which this
    program finds them; the first one is what it takes.
    """

    has_fallback: bool
    ignores_fallback: bool
    search_path: str | None
    timeout_s: int | None
    files: tuple[str, ...]

    @property
    def uses_fallback(self) -> bool:
        """Whether a request for a file that is nowhere makes an entry."""
        return self.has_fallback and not self.ignores_fallback


def read_firmware_class(host: Host, name: str) -> FirmwareRequests:
    """The firmware class as it is now, for a driver that requests a file of this `name`. openrbu's
    own driver makes its entry, and looks for no file."""
    if host.own_rbu is not None:
        return FirmwareRequests(True, False, None, None, ())
    search_path = text_of(host, SEARCH_PATH)
    release = text_of(host, RELEASE)
    updates = f"{LIBRARY}/updates"
    directories = [search_path] if search_path else []
    for base in (updates, LIBRARY):
        directories += [f"{base}/{release}"] if release else []
        directories.append(base)
    return FirmwareRequests(
        has_fallback=host.exists(CLASS),
        ignores_fallback=number_of(host, IGNORE_FALLBACK) == 1,
        search_path=search_path,
        timeout_s=number_of(host, f"{CLASS}/timeout"),
        files=tuple(
            path
            for packed in _PACKED
            for directory in directories
            if host.exists(path := _seen(host, f"{directory}/{name}{packed}"))
        ),
    )


def _seen(host: Host, path: str) -> str:
    """Where this program finds what the kernel finds at `path`."""
    seen = f"{_FIRST_ROOT}{path}"
    return seen if host.exists(_FIRST_ROOT) else path
