"""What keeps a process from having huge pages at known addresses, as far as files say it.

Each obstacle is told before anything is done; what files don't say (how fragmented memory is) only
the attempt shows, and `KernelError` of `HugePages.allocate` tells it. Not an obstacle is
`vm.nr_overcommit_hugepages`: it limits pages that no number was raised for. Memory encryption is
a check of each plan, whatever has the pages.

Facts: docs/reference/linux-files.md, L10, L13 and L17.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openrbu.formats.meminfo import MARGIN_BYTES
from openrbu.own_driver.hugetlbfs import FILE_SYSTEM_TYPE
from openrbu.own_driver.pagemap import PAGEMAP
from openrbu.own_driver.pools import LinuxHugePages
from openrbu.units import human_sizes

_SYS_ADMIN = 1 << 21
"""CAP_SYS_ADMIN in the masks of `/proc/PID/status` (linux/capability.h)."""

_FIRST_PROCESSES = "pid:[4026531836]"
"""The namespace of process IDs that a kernel starts with: the number is the same on all."""

_STATUS_FILE = "/proc/self/status"
_STATUS = re.compile(r"^(?P<name>Uid|CapEff):\s+(?P<words>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something that has to be changed first. `name` is for scripts; `remedy` says what to do, and
    is empty where nothing helps."""

    name: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}" if self.remedy else self.text


def obstacles(root: Path = Path("/"), *, needed_bytes: int = 0) -> tuple[Obstacle, ...]:
    """The obstacles to having so many bytes in huge pages of the computer whose files are below
    `root`, for the process whose `/proc/self` that is; the most important one first.

    The names: `not_root`, `no_huge_pages`, `no_hugetlbfs`, `container`, `fixed_number`,
    `hidden_addresses`, `too_little_memory`.
    """
    return tuple(_found(root, needed_bytes))


def _found(root: Path, needed_bytes: int) -> Iterator[Obstacle]:
    status = {
        match["name"]: match["words"] for match in _STATUS.finditer(_text(root, _STATUS_FILE))
    }
    user = status.get("Uid", "").split()[1:2]
    if user and user != ["0"]:
        yield Obstacle("not_root", "only root may take huge pages", "use root")
    kernel = LinuxHugePages(root)
    pools = _pools(kernel)
    if not pools:
        yield Obstacle(
            "no_huge_pages",
            "this kernel has no huge pages of 2 MiB",
            "use another kernel (CONFIG_HUGETLBFS; a paravirtual guest of Xen has none)",
        )
        return
    systems = [line.split("\t")[-1] for line in _text(root, "/proc/filesystems").splitlines()]
    if systems and FILE_SYSTEM_TYPE not in systems:
        yield Obstacle(
            "no_hugetlbfs", "this kernel has no hugetlbfs", "use a kernel with CONFIG_HUGETLBFS"
        )
    if _is_container(root):
        yield Obstacle(
            "container",
            "this is a container: what it takes does not outlive it",
            "use the computer itself",
        )
    elif _is_read_only(root, pools[0]):
        yield Obstacle(
            "fixed_number",
            f"the number of huge pages can't be changed here ({pools[0]} is read-only)",
            "use the computer itself, not a container",
        )
    if _addresses_are_hidden(root, status.get("CapEff", "")):
        yield Obstacle(
            "hidden_addresses",
            f"this process may not see where its pages are ({PAGEMAP} needs CAP_SYS_ADMIN)",
            "use root, outside of containers and user namespaces",
        )
    available = kernel.available_bytes()
    if available is not None and available < needed_bytes + MARGIN_BYTES:
        there, needed = human_sizes(available, needed_bytes + MARGIN_BYTES)
        yield Obstacle(
            "too_little_memory",
            f"{there} are available, and {needed} are needed to take pages and "
            "leave the machine enough",
            "end programs, or restart first",
        )


def _pools(kernel: LinuxHugePages) -> list[str]:
    """The paths of the pools; none where they can't be read."""
    try:
        return [pool.path for pool in kernel.pools()]
    except OSError:
        return []


def _is_container(root: Path) -> bool:
    """Whether this process has another first process than the computer."""
    try:
        namespace = str((root / "proc/self/ns/pid").readlink())
    except OSError:  # a kernel without these namespaces
        return False
    return namespace != _FIRST_PROCESSES


def _is_read_only(root: Path, path: str) -> bool:
    """Whether the mount that a path is in is read-only, as the table of mounts says."""
    best, is_read_only = "", False
    for line in _text(root, "/proc/self/mounts").splitlines():
        _, target, _, options, *_ = [*line.split(" "), "", "", "", ""]
        prefix = target.rstrip("/") + "/"
        if path.startswith(prefix) and len(prefix) >= len(best):
            best, is_read_only = prefix, "ro" in options.split(",")
    return is_read_only


def _addresses_are_hidden(root: Path, capabilities: str) -> bool:
    """Whether the kernel tells this process no physical addresses."""
    if not (root / PAGEMAP.lstrip("/")).exists():
        return True
    try:
        has_capability = not capabilities or bool(int(capabilities, 16) & _SYS_ADMIN)
    except ValueError:
        has_capability = True
    users = _text(root, "/proc/self/uid_map").split()
    is_first_namespace = not users or users == ["0", "0", str((1 << 32) - 1)]
    return not (has_capability and is_first_namespace)


def _text(root: Path, path: str) -> str:
    """A file as text; empty where it can't be read."""
    try:
        return (root / path.lstrip("/")).read_text(errors="surrogateescape")
    except OSError:
        return ""
