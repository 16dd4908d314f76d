"""Who makes a system call on a mount."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from openrbu.drivers.sysfs import Caller
from openrbu.fuse.capabilities import CAP_SYS_RAWIO, Capabilities

_NOBODY = 65534


@dataclass(frozen=True)
class Callers:
    """Which users of this computer are who on the machine.

    The user `root_uid` is the machine's root, everybody else a plain user of it. All files belong
    to `root_uid` and `root_gid`. With `capabilities_count` root needs CAP_SYS_RAWIO among its
    effective capabilities where the driver asks for it; else the machine's root has it.

    One that a process has only in a user namespace below the mount's counts too (measured: uid 0
    without it that maps itself to root of a new namespace), where a kernel wants it in the initial
    one. capget(2) does not tell them apart, and is asked at each write.
    """

    root_uid: int = 0
    root_gid: int = 0
    capabilities_count: bool = True
    _capabilities: Capabilities = field(default_factory=Capabilities, repr=False, compare=False)

    @classmethod
    def of_this_process(cls) -> Callers:
        """As befits a mount that this user makes: one of root's own, or one of a plain user's."""
        uid = os.geteuid()
        return cls(uid, os.getegid(), capabilities_count=uid == 0)

    def caller(self, uid: int, pid: int) -> Caller:
        """The process `pid` of the user `uid`, both as FUSE tells them."""
        if uid == self.root_uid:
            return Caller(0, self.has_rawio(uid, pid))
        return Caller(uid or _NOBODY, self.has_rawio(uid, pid))

    def has_rawio(self, uid: int, pid: int) -> bool:
        """Whether the process has CAP_SYS_RAWIO on the machine, now."""
        if self.capabilities_count:
            return self._capabilities.has(pid, CAP_SYS_RAWIO)
        return uid == self.root_uid
