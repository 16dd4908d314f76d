"""Memory as a Linux shows it: free blocks, what is available, the pools of huge pages, and what
becomes of its content.

Facts: docs/reference/linux-files.md, L4, L10 and L13.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from openrbu.errors import DamagedInputError
from openrbu.formats.buddyinfo import ZoneFree, parse_buddyinfo
from openrbu.formats.meminfo import meminfo_bytes
from openrbu.hosts.base import Host, read_text
from openrbu.linux.files import COMMAND_LINE, text_of
from openrbu.units import HUGE_PAGE_BYTES

BUDDYINFO = "/proc/buddyinfo"
MEMINFO = "/proc/meminfo"
NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"

_NODE_POOL = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"


@dataclass(frozen=True, slots=True)
class HugePagePool:
    """The huge pages of one node; of all, where `node` is None. `count`: how many the kernel holds.

    The number in the file at `path` can be changed.
    """

    path: str
    node: int | None
    count: int


def read_zones(host: Host) -> tuple[ZoneFree, ...]:
    """The free memory of each zone; empty where this user can't read it."""
    try:
        return tuple(parse_buddyinfo(read_text(host, BUDDYINFO)))
    except (OSError, DamagedInputError):
        return ()


def read_available_bytes(host: Host) -> int | None:
    """How much programs can have before the kernel runs out (MemAvailable); None where it does not
    say."""
    return _meminfo(host, "MemAvailable")


def read_huge_page_pools(host: Host) -> tuple[HugePagePool, ...]:
    """The pools of huge pages of 2 MiB; empty where this kernel has none that can be changed.

    :raise OSError: the kernel's error.
    """
    nodes = sorted({zone.node for zone in read_zones(host)})
    paths = [(_NODE_POOL.format(node), node) for node in nodes]
    if paths and all(host.exists(path) for path, _ in paths):
        return tuple(HugePagePool(path, node, read_count(host, path)) for path, node in paths)
    size_bytes = _meminfo(host, "Hugepagesize") or HUGE_PAGE_BYTES
    if len(nodes) > 1 or size_bytes != HUGE_PAGE_BYTES or not host.exists(NR_HUGEPAGES):
        return ()
    return (HugePagePool(NR_HUGEPAGES, None, read_count(host, NR_HUGEPAGES)),)


def read_count(host: Host, path: str) -> int:
    """The number in a file.

    :raise OSError: the kernel's error.
    """
    text = read_text(host, path)
    return int(text) if text.isdecimal() else 0


def _meminfo(host: Host, name: str) -> int | None:
    """A size of `/proc/meminfo` in bytes; None where it is not there."""
    try:
        text = read_text(host, MEMINFO)
    except OSError:
        return None
    return meminfo_bytes(text, name)


# -- what becomes of memory -----------------------------------------------------------------

CPUINFO = "/proc/cpuinfo"
KPAGEFLAGS = "/proc/kpageflags"
RESUME = "/sys/power/resume"

_ENCRYPTING = {"sme": "SME", "sev": "SEV", "tme": "TME"}
"""The flags in `/proc/cpuinfo` of processors that can encrypt memory, and their names."""

_FLAGS_LINE = re.compile(r"^flags\s*: (?P<flags>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MemoryTraits:
    """What this kernel does with its memory, as far as its files say it.

    `encryption`: the ways in which the processor can encrypt memory. `is_encrypted`: whether the
    command line says that it does (`mem_encrypt`); None: it says nothing of it. `clears`: the words
    of the command line that have freed pages cleared or overwritten. `resume`: the device that is
    read at a start after hibernation, `major:minor`; empty: none. `has_page_flags`: whether the
    kernel says which pages are free.
    """

    encryption: tuple[str, ...]
    is_encrypted: bool | None
    clears: tuple[str, ...]
    resume: str
    has_page_flags: bool


def read_traits(host: Host) -> MemoryTraits:
    """Read them.

    Source: docs/reference/linux-files.md, L13.
    """
    flags = _FLAGS_LINE.search(text_of(host, CPUINFO) or "")
    known = flags["flags"].split() if flags is not None else []
    words = (text_of(host, COMMAND_LINE) or "").split()
    encrypt = [word.partition("=")[2] for word in words if word.startswith("mem_encrypt=")]
    clears = ("init_on_free=1", "init_on_free=on", "page_poison=1", "page_poison=on")
    resume = text_of(host, RESUME) or ""
    return MemoryTraits(
        encryption=tuple(name for flag, name in _ENCRYPTING.items() if flag in known),
        is_encrypted=encrypt[-1] == "on" if encrypt else None,
        clears=tuple(word for word in words if word in clears),
        resume="" if resume == "0:0" else resume,
        has_page_flags=host.exists(KPAGEFLAGS),
    )
