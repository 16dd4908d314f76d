"""Whether a process of this Linux can have huge pages whose physical addresses it knows: what
openrbu's own driver needs.

Facts: docs/reference/linux-files.md, L10; proc(5); the kernel's document of pagemap (the addresses
are zeros without CAP_SYS_ADMIN, since Linux 4.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from openrbu.hosts.base import Host
from openrbu.linux.files import text_of

PAGEMAP = "/proc/self/pagemap"
STATUS = "/proc/self/status"
FILE_SYSTEMS = "/proc/filesystems"
MOUNTS = "/proc/self/mounts"
HUGE_PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB"
OVERCOMMIT = "/proc/sys/vm/nr_overcommit_hugepages"

_CAP_SYS_ADMIN = 21
_EFFECTIVE = re.compile(r"^CapEff:\s*(?P<bits>[0-9a-f]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OwnMemoryFacts:
    """`has_huge_pages`: this kernel has huge pages of 2 MiB, and a file system for them.
    `has_pagemap`: it shows a process where its pages are. `is_admin`: this process has
    CAP_SYS_ADMIN; None where that can't be seen. `read_only`: the directory among `/proc/sys` and
    `/sys` that is mounted read-only, as in a container; empty: none.
    """

    has_huge_pages: bool
    has_pagemap: bool
    is_admin: bool | None
    read_only: str


def read_own_memory(host: Host) -> OwnMemoryFacts:
    """The facts as they are now."""
    file_systems = (text_of(host, FILE_SYSTEMS) or "").split()
    effective = _EFFECTIVE.search(text_of(host, STATUS) or "")
    is_admin = None
    if effective is not None:
        is_admin = bool(int(effective["bits"], 16) >> _CAP_SYS_ADMIN & 1)
    read_only = ""
    for line in (text_of(host, MOUNTS) or "").splitlines():
        words = line.split()
        if len(words) > 3 and words[1] in ("/proc", "/proc/sys", "/sys"):
            is_so = "ro" in words[3].split(",")
            read_only = words[1] if is_so else read_only.replace(words[1], "")
    return OwnMemoryFacts(
        has_huge_pages=host.exists(HUGE_PAGES) and "hugetlbfs" in file_systems,
        has_pagemap=host.exists(PAGEMAP),
        is_admin=is_admin,
        read_only=read_only,
    )
