"""Makes this computer's own files read-only for a program under `rbu run`.

The program is root, and believes that all it sees is the virtual machine. What it sets in `/sys` or
`/proc/sys` without a machine's entry there must not be set on this computer.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

from openrbu.system.libc import MS_BIND, call

# linux/mount.h, linux/fcntl.h; asm-generic/unistd.h: the number is that of every architecture but
# alpha
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY = 1
_MS_RDONLY, _MS_REMOUNT = 1, 32
_KEPT_FLAGS = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME
"""Of statvfs(3): they have the values of mount(2), which a remount has to repeat."""

OF_PROC = ("/proc/acpi", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/scsi", "/proc/sys")
"""Directories of this computer's `/proc` in which it can be set up, as containers protect them. The
machine's files lie over some in `/proc/sys`, and can be written."""


def make_read_only(mount_point: str | Path) -> None:
    """Make a mount of this process's namespace, and those below it, read-only: mount_setattr(2);
    before Linux 5.12 that mount alone.

    :raise OSError: the kernel's error.
    """
    path = os.fsencode(mount_point)
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    try:
        call(
            "syscall",
            _MOUNT_SETATTR,
            _AT_FDCWD,
            path,
            _AT_RECURSIVE,
            attributes,
            len(attributes),
        )
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        flags = os.statvfs(mount_point).f_flag & _KEPT_FLAGS
        call("mount", b"none", path, None, _MS_REMOUNT | MS_BIND | _MS_RDONLY | flags, None)
