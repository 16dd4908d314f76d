"""Which user and process of this computer is which caller on the machine."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from openrbu.drivers.sysfs import Caller
from openrbu.fuse.capabilities import CAP_SYS_RAWIO, Capabilities

_NOBODY = 65534


@dataclass(frozen=True)
class CallerMap:
    """Maps users and processes of this computer to callers on the machine.

    The user `root_uid` is the machine's root; every other user is a plain user there. Files of the
    machine's root belong to `root_uid` and `root_gid` here. With `capabilities_count` root needs
    CAP_SYS_RAWIO among its effective capabilities where the driver asks for it; without, the
    machine's root always has it.

    A capability counts also when a process has it only in a user namespace below the mount's
    (measured: uid 0 without it that maps itself to root of a new namespace). A real kernel requires
    it in the initial namespace. capget(2), which is called at each write, does not say in which
    namespace a process has it.
    """

    root_uid: int = 0
    root_gid: int = 0
    capabilities_count: bool = True
    _capabilities: Capabilities = field(default_factory=Capabilities, repr=False, compare=False)

    @classmethod
    def of_this_process(cls) -> CallerMap:
        """For a mount that the user of this process makes. That user is the machine's root;
        capabilities count only where that user is root of this computer too."""
        uid = os.geteuid()
        return cls(uid, os.getegid(), capabilities_count=uid == 0)

    def caller(self, uid: int, gid: int, pid: int) -> Caller:
        """The caller for the process `pid` of the user `uid` and the group `gid`, as FUSE gives
        them."""
        if uid == self.root_uid:
            return Caller(0, self.has_rawio(uid, pid))
        gids = tuple(map(self.gid_there, (gid, *_groups_of(pid))))
        return Caller(self.uid_there(uid), self.has_rawio(uid, pid), gids)

    def uid_there(self, uid: int) -> int:
        """The user's number on the machine."""
        return 0 if uid == self.root_uid else uid or _NOBODY

    def gid_there(self, gid: int) -> int:
        """The group's number on the machine."""
        return 0 if gid == self.root_gid else gid or _NOBODY

    def uid_here(self, uid: int) -> int:
        """The number on this computer of a user of the machine."""
        return uid or self.root_uid

    def gid_here(self, gid: int) -> int:
        """The number on this computer of a group of the machine."""
        return gid or self.root_gid

    def has_rawio(self, uid: int, pid: int) -> bool:
        """Whether the process has CAP_SYS_RAWIO on the machine, now."""
        if self.capabilities_count:
            return self._capabilities.has(pid, CAP_SYS_RAWIO)
        return uid == self.root_uid


def _groups_of(pid: int) -> tuple[int, ...]:
    """The supplementary groups of a process: proc_pid_status(5). None when it has ended."""
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/status").open() as lines:
        for line in lines:
            name, _, numbers = line.partition(":")
            if name == "Groups":
                return tuple(map(int, numbers.split()))
    return ()
