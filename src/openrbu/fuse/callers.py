"""Which user and process of this computer is which caller on the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from openrbu.drivers.sysfs import Caller
from openrbu.fuse.capabilities import CAP_SYS_RAWIO, Capabilities

_NOBODY_UID = 65534


@dataclass(frozen=True)
class CallerMap:
    """Maps users and processes of this computer to callers on the machine.

    The user `root_uid` is the machine's root; every other user is a plain user there. All files
    belong to `root_uid` and `root_gid`. With `capabilities_count` root needs CAP_SYS_RAWIO among
    its effective capabilities where the driver asks for it; without, the machine's root always has
    it.

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

    def caller(self, uid: int, pid: int) -> Caller:
        """The caller for the process `pid` of the user `uid`, both as FUSE gives them."""
        if uid == self.root_uid:
            return Caller(0, self.has_rawio(uid, pid))
        return Caller(uid or _NOBODY_UID, self.has_rawio(uid, pid))

    def has_rawio(self, uid: int, pid: int) -> bool:
        """Whether the process has CAP_SYS_RAWIO on the machine, now."""
        if self.capabilities_count:
            return self._capabilities.has(pid, CAP_SYS_RAWIO)
        return uid == self.root_uid
