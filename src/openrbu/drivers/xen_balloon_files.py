"""The files of the Xen balloon driver.

In `/sys/devices/system/xen_memory/xen_memory0`, in KiB unless it says otherwise:

======================  ====  ===================================================================
file                    mode
======================  ====  ===================================================================
`target_kb`             0644  the target; takes a number, `0x` and `0` before it count
`target`                0644  the target in bytes; takes a size with a suffix such as `M` or `G`
`info/current_kb`       0444  what the guest has
`info/low_kb`           0444  what is in the balloon
`info/high_kb`          0444  0: there is no high memory on 64-bit guests
`info/hard_limit_kb`    0444  (`hard-limit` only) the hard limit, or `???` while none is known
`schedule_delay`        0444  (`linux` only, as all below) seconds to the next try, hexadecimal
`retry_count`           0444  the number of that try, hexadecimal
`max_schedule_delay`    0644  the longest delay; shown in hexadecimal, read as C writes numbers
`max_retry_count`       0644  the most tries; 0: no limit. Shown and read likewise
`scrub_pages`           0644  1: pages are cleared before they are given back
======================  ====  ===================================================================

`/proc/xen/balloon` (not in `linux`) shows all of that in one text, and takes a size as `target`
does. Setting a target makes the work due but does not do it: the code that serves the files calls
`XenBalloon.run`.

Facts and their sources: docs/reference/balloon.md, X5. Names, modes and the directories around them
were seen on Debian's 6.1.192 under Xen 4.17.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from openrbu.drivers.numbers import (
    c_string,
    memparse,
    simple_strtoull_any_base,
    strict_bool,
    unsigned_long,
)
from openrbu.drivers.objects import add_system_device, system_device_path
from openrbu.drivers.sysfs import Directory, SysfsTree, TextAttribute
from openrbu.drivers.xen_balloon import XenBalloon
from openrbu.errors import KernelError
from openrbu.units import KIB, PAGE_KIB, PAGE_SIZE

SUBSYSTEM = "xen_memory"
DEVICE_PATH = system_device_path(SUBSYSTEM)
_PROC_DIRECTORY = "/xen"
PROC_PATH = f"{_PROC_DIRECTORY}/balloon"

_WORD_MASK = (1 << 64) - 1
_MAX_PROC_BYTES = 64


class XenMemory:
    """The files of one driver, in the trees behind `/sys` and `/proc`. `install` adds them."""

    def __init__(self, balloon: XenBalloon, sys: SysfsTree, proc: SysfsTree) -> None:
        self._balloon, self._sys, self._proc = balloon, sys, proc

    def install(self) -> None:
        """Add the files.

        :raise KernelError: EEXIST when there are such files in these trees.
        """
        balloon, profile = self._balloon, self._balloon.profile
        add_system_device(self._sys, SUBSYSTEM)
        self._add("target_kb", self._show_target_kb, self._store_target_kb)
        self._add("target", self._show_target, self._store_target)
        self._add("info/current_kb", lambda: f"{_kib(balloon.current_pages)}\n")
        self._add("info/low_kb", lambda: f"{_kib(balloon.low_pages)}\n")
        self._add("info/high_kb", lambda: f"{_kib(balloon.high_pages)}\n")
        if profile.has_hard_limit:
            self._add("info/hard_limit_kb", lambda: f"{_kib(balloon.hard_limit_pages)}\n")
        if profile.has_settings:
            self._add_settings()
        self._proc.add(_PROC_DIRECTORY, Directory(mode=0o555))
        if profile.has_proc_file:
            file = TextAttribute(self._show_proc, self._store_proc, size_bytes=0)
            self._proc.add(PROC_PATH, file)

    def _add_settings(self) -> None:
        balloon = self._balloon
        self._add("schedule_delay", lambda: _hexadecimal(balloon.schedule_delay_s))
        self._add("retry_count", lambda: _hexadecimal(balloon.retry_count))
        self._add(
            "max_schedule_delay",
            lambda: _hexadecimal(balloon.max_schedule_delay_s),
            self._store_max_schedule_delay,
        )
        self._add(
            "max_retry_count",
            lambda: _hexadecimal(balloon.max_retry_count),
            self._store_max_retry_count,
        )
        self._add("scrub_pages", lambda: f"{int(balloon.scrub_pages)}\n", self._store_scrub_pages)

    def _add(
        self, name: str, show: Callable[[], str], store: Callable[[bytes], None] | None = None
    ) -> None:
        mode = 0o444 if store is None else 0o644
        self._sys.add(f"{DEVICE_PATH}/{name}", TextAttribute(show, store, mode=mode))

    # -- in /sys ----------------------------------------------------------------------------

    def _show_target_kb(self) -> str:
        return f"{_kib(self._balloon.target_pages)}\n"

    def _store_target_kb(self, text: bytes) -> None:
        self._set_target_bytes(simple_strtoull_any_base(c_string(text)) * KIB & _WORD_MASK)

    def _show_target(self) -> str:
        return f"{self._balloon.target_pages * PAGE_SIZE}\n"

    def _store_target(self, text: bytes) -> None:
        self._set_target_bytes(memparse(c_string(text)))

    def _store_max_schedule_delay(self, text: bytes) -> None:
        path = f"{DEVICE_PATH}/max_schedule_delay"
        self._balloon.max_schedule_delay_s = unsigned_long(text, path)

    def _store_max_retry_count(self, text: bytes) -> None:
        self._balloon.max_retry_count = unsigned_long(text, f"{DEVICE_PATH}/max_retry_count")

    def _store_scrub_pages(self, text: bytes) -> None:
        value = strict_bool(text)
        if value is None:
            raise KernelError(errno.EINVAL, f"{DEVICE_PATH}/scrub_pages")
        self._balloon.scrub_pages = value

    def _set_target_bytes(self, size_bytes: int) -> None:
        self._balloon.set_target_pages(size_bytes // PAGE_SIZE)

    # -- in /proc ---------------------------------------------------------------------------

    def _show_proc(self) -> str:
        balloon = self._balloon
        rows: list[tuple[str, int | None]] = [
            ("Current allocation", balloon.current_pages),
            ("Requested target", balloon.target_pages),
            ("Low-mem balloon", balloon.low_pages),
            ("High-mem balloon", balloon.high_pages),
            ("Driver pages", 0),  # no driver here takes pages out of the balloon
        ]
        if balloon.profile.has_hard_limit:
            rows.append(("Xen hard limit", balloon.hard_limit_pages))
        return "".join(f"{name + ':':19} {_kib(pages):>8} kB\n" for name, pages in rows)

    def _store_proc(self, text: bytes) -> None:
        if len(text) <= 1:
            raise KernelError(errno.EBADMSG, f"/proc{PROC_PATH}")
        if len(text) > _MAX_PROC_BYTES:
            raise KernelError(errno.EFBIG, f"/proc{PROC_PATH}")
        self._set_target_bytes(memparse(c_string(text)))


def _kib(pages: int | None) -> str:
    return "???" if pages is None else str(pages * PAGE_KIB)


def _hexadecimal(value: int) -> str:
    return f"{value:x}\n"
