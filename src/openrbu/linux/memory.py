"""Memory as a Linux shows it: free blocks, what is available, the pools of huge pages.

Facts: docs/reference/linux-files.md, L4 and L10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from openrbu.errors import DamagedInputError
from openrbu.formats.buddyinfo import ZoneFree, parse_buddyinfo
from openrbu.hosts.base import Host, read_text
from openrbu.units import KIB, MIB

BUDDYINFO = "/proc/buddyinfo"
MEMINFO = "/proc/meminfo"
NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"

HUGE_PAGE_BYTES = 2 * MIB
HUGE_PAGE_ORDER = 9

_NODE_POOL = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"

_MEMINFO_LINE = re.compile(r"^(?P<name>\S+): +(?P<kib>[0-9]{1,19}) kB$", re.MULTILINE)


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
    sizes = {match["name"]: int(match["kib"]) * KIB for match in _MEMINFO_LINE.finditer(text)}
    return sizes.get(name)
