"""Who makes a system call on a mount."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

from openrbu.drivers.sysfs import Caller

_CAP_SYS_RAWIO = 1 << 17  # linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Callers:
    """Which users of this computer are who on the machine.

    The user `root_uid` is the machine's root, everybody else a plain user of it. All files belong
    to `root_uid` and `root_gid`. With `capabilities_count` root needs CAP_SYS_RAWIO among its
    effective capabilities where the driver asks for it; else the machine's root has it.
    """

    root_uid: int = 0
    root_gid: int = 0
    capabilities_count: bool = True

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
            return bool(effective_capabilities(pid) & _CAP_SYS_RAWIO)
        return uid == self.root_uid


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_DataPair = _Data * 2

_capget = ctypes.CDLL(None).capget


def effective_capabilities(pid: int) -> int:
    """The low 32 effective capabilities of a process or thread; none when it is gone.

    capget(2) and not /proc/PID/status: 2 µs against 25, and it is asked for with each write.
    """
    if not pid:  # in a namespace that can't be seen from here; capget would take it for this one
        return 0
    data = _DataPair()
    if _capget(ctypes.byref(_Header(_CAPABILITY_VERSION_3, pid)), data):
        return 0
    return int(data[0].effective)
