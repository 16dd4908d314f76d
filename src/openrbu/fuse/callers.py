"""Who makes a system call on a mount."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field

from openrbu.drivers.sysfs import Caller

_CAP_SYS_RAWIO = 1 << 17  # linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_NOBODY = 65534


class Capabilities:
    """Reads capabilities with capget(2), always into the same memory: for one thread.

    Not out of /proc/PID/status, which takes 25 µs against 1: they are asked for with each write.
    """

    def __init__(self) -> None:
        self._header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)  # the version, the process
        self._data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the high 32
        self._capget = ctypes.CDLL(None).capget
        self._arguments = ctypes.byref(self._header), ctypes.byref(self._data)

    def effective(self, pid: int) -> int:
        """The low 32 of a process or thread; none when it is gone, or can't be seen from here."""
        if not pid:  # capget would take it for this process
            return 0
        self._header[1] = pid
        return 0 if self._capget(*self._arguments) else self._data[0]


@dataclass(frozen=True)
class Callers:
    """Which users of this computer are who on the machine.

    The user `root_uid` is the machine's root, everybody else a plain user of it. All files belong
    to `root_uid` and `root_gid`. With `capabilities_count` root needs CAP_SYS_RAWIO among its
    effective capabilities where the driver asks for it; else the machine's root has it.
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
            return bool(self._capabilities.effective(pid) & _CAP_SYS_RAWIO)
        return uid == self.root_uid
