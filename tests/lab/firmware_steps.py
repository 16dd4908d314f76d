"""What a kernel does with a firmware file and its switches, step by step: the same steps are done
on a real kernel (this file is run in a guest) and on a virtual machine's.

Run as a program it writes what was seen on standard output, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from openrbu.formats.packet import split
from openrbu.hosts.base import Host, read_file, read_text
from openrbu.hosts.linux import LinuxHost
from openrbu.linux.firmware_class import IGNORE_FALLBACK, SEARCH_PATH
from openrbu.update.driver import LOADING, Mode, RbuDriver

FORCE_FALLBACK = "/proc/sys/kernel/firmware_config/force_sysfs_fallback"
DIRECTORY = "/run/steps"
FILE = f"{DIRECTORY}/dell_rbu"
IMAGE = bytes(split(bytes(range(256)) * 40, packet_size_bytes=4096, set_id=1))

Seen = tuple[str, Any]


def steps(host: Host) -> Iterator[Seen]:
    """What is done, and what is seen then. The module is not loaded before, nor after."""
    host.load_module("dell_rbu", {})
    yield from _switches(host)
    yield from _search_path(host)
    here = host.kernel_path(DIRECTORY) if host.exists(DIRECTORY) else ""
    host.make_file(FILE)
    here = here or host.kernel_path(DIRECTORY)
    host.write(SEARCH_PATH, here.encode() + b"\0")
    modes: tuple[Mode, ...] = ("mono", "packet")
    for ignored in (b"0", b"1"):
        host.write(IGNORE_FALLBACK, ignored)
        for mode in modes:
            yield f"an empty file, {ignored!r}, {mode}", _asked(host, mode)
    host.write(FILE, IMAGE)
    for ignored in (b"0", b"1"):
        host.write(IGNORE_FALLBACK, ignored)
        for mode in modes:
            yield f"a file, {ignored!r}, {mode}", _asked(host, mode)
    yield "packets of no size", _asked(host, "packet", packet_size_bytes=0)
    host.write(SEARCH_PATH, here.encode() + b"/\0")
    yield "a slash behind the path", _asked(host, "mono")
    host.remove_file(FILE)
    yield "a file that is gone", _asked(host, "mono")
    yield from _entry(host)
    host.write(SEARCH_PATH, b"\0")
    RbuDriver(host).unload()


def _switches(host: Host) -> Iterator[Seen]:
    for path in (IGNORE_FALLBACK, FORCE_FALLBACK):
        for text in (b"1\n", b"0", b"2", b"-1", b"x", b"01", b"0\n"):
            yield f"{path} {text!r}", _errno(lambda: host.write(path, text))  # noqa: B023
            yield f"{path} after {text!r}", read_file(host, path).decode()


def _search_path(host: Host) -> Iterator[Seen]:
    for text in (b"/a", b"/b\n", b"/c\0more", b"/" + b"d" * 254, b"/" + b"e" * 255, b"\n", b"\0"):
        yield f"path {text!r}", _errno(lambda: host.write(SEARCH_PATH, text))  # noqa: B023
        yield f"path after {text!r}", read_file(host, SEARCH_PATH).decode()


def _entry(host: Host) -> Iterator[Seen]:
    """An entry that is there when a file appears, or when the fallback is switched off."""
    host.write(IGNORE_FALLBACK, b"0")
    yield "no file", _asked(host, "mono", keep=True)
    host.make_file(FILE)
    host.write(FILE, IMAGE)
    host.write(IGNORE_FALLBACK, b"1")
    yield "an entry before the file", _asked(host, "mono", keep=True)
    host.write(LOADING, b"-1")
    host.remove_file(FILE)
    yield "no file, ignored", _asked(host, "mono")
    host.write(IGNORE_FALLBACK, b"0")


def _asked(host: Host, mode: Mode, *, packet_size_bytes: int = 4096, keep: bool = False) -> Any:
    """What there is after `init`: an entry, and the staged bytes."""
    driver = RbuDriver(host)
    if not driver.has_entry:
        driver.set_type(mode)
        driver.set_packet_size(packet_size_bytes)
    has_entry = driver.ensure_entry()
    staged = b"".join(driver.staged())
    seen = {"entry": has_entry, "staged": len(staged), "is_right": staged == IMAGE}
    if has_entry and not keep:
        driver.abort_entry()
    return {
        **seen,
        "type": driver.image_type,
        "users": read_text(host, "/sys/module/dell_rbu/refcnt"),
    }


def _errno(call: Callable[[], object]) -> int:
    """The error of a call; 0: none."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


if __name__ == "__main__":
    print(json.dumps(list(steps(LinuxHost()))))
