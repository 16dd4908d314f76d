"""System calls that restart a machine or load its modules, made by a program under `rbu run`.

Most programs call reboot(8) or modprobe(8), for which there are stand-ins. Those that make the
system call themselves (busybox, kmod by another path, an installer of one file) get its effect on
the virtual machine here: reboot(2), init_module(2), finit_module(2), delete_module(2).

A module is known by its name: that in the image's section `.modinfo`, or that of the file. What
else is in the file does not matter, because the machine has its own.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from openrbu.errors import MachineError, UsageError
from openrbu.kernel.module_parameters import KNOWN_PARAMETERS
from openrbu.machine.base import Machine
from openrbu.run.module_commands import known_parameters, module_name
from openrbu.run.notifications import Call
from openrbu.run.power import PowerAction, PowerSwitch, PowerWish, has_kexec
from openrbu.run.supervisor import UNANSWERED, Handler

# linux/reboot.h
_MAGIC = 0xFEE1DEAD
_MAGICS = (672274793, 85072278, 369367448, 537993216)
_CAD_ON, _CAD_OFF = 0x89ABCDEF, 0
_ACTIONS: Mapping[int, PowerAction] = MappingProxyType(
    {
        0x01234567: PowerAction.RESTART,
        0x4321FEDC: PowerAction.POWER_OFF,
        0x45584543: PowerAction.KEXEC,
        0xA1B2C3D4: PowerAction.RESTART,  # RESTART2, with words for the firmware
        0xCDEF0123: PowerAction.HALT,
    }
)
_32_BITS = 0xFFFFFFFF

_NAME_IN_IMAGE = re.compile(rb"\0name=([A-Za-z0-9_-]{1,55})\0")
_MAX_IMAGE_BYTES = 16 << 20
_MAX_TEXT_BYTES = 4096


class KernelCalls:
    """Answers these calls for the programs on `machine`. `uid`: the user of this computer who is
    root there."""

    def __init__(self, machine: Machine, switch: PowerSwitch, uid: int) -> None:
        self._machine, self._switch, self._uid = machine, switch, uid

    @property
    def handlers(self) -> dict[str, Handler]:
        """The handler of each call, for `supervisor.Supervisor`."""
        return {
            "reboot": self._for_root(self._reboot),
            "init_module": self._for_root(self._init_module),
            "finit_module": self._for_root(self._finit_module),
            "delete_module": self._for_root(self._delete_module),
        }

    def _for_root(self, handler: Handler) -> Handler:
        """The handler, for a caller who is root on the machine; others get EPERM."""

        def checked(call: Call) -> int:
            try:
                return handler(call) if _euid(call.thread) == self._uid else errno.EPERM
            except OSError as error:
                return error.errno or errno.EIO
            except MachineError:  # its kernel has crashed, or its process has ended
                return errno.EIO

        return checked

    def _reboot(self, call: Call) -> int:
        magic, magic2, command = (each & _32_BITS for each in call.arguments[:3])
        if magic != _MAGIC or magic2 not in _MAGICS:
            return errno.EINVAL
        if command in (_CAD_ON, _CAD_OFF):
            return 0
        action = _ACTIONS.get(command)
        if action is None or (action is PowerAction.KEXEC and not has_kexec(self._machine)):
            return errno.EINVAL
        self._switch.ask(PowerWish(action, at_once=True))
        return UNANSWERED

    def _init_module(self, call: Call) -> int:
        image, size_bytes, words = call.arguments[:3]
        data = _memory(call.thread, image, min(size_bytes, _MAX_IMAGE_BYTES))
        found = _NAME_IN_IMAGE.search(data)
        if found is None:
            return errno.ENOEXEC
        return self._load(found[1].decode(), _text(call.thread, words))

    def _finit_module(self, call: Call) -> int:
        descriptor, words = call.arguments[0] & _32_BITS, call.arguments[1]
        try:
            path = Path(f"/proc/{call.thread}/fd/{descriptor}").readlink()
        except FileNotFoundError:
            return errno.EBADF
        return self._load(module_name(path.name), _text(call.thread, words))

    def _load(self, name: str, words: bytes) -> int:
        name = module_name(name)
        parameters = known_parameters(name, os.fsdecode(words).split())
        try:
            self._machine.load_module(name, parameters)
        except UsageError:  # an address that is none, or a module that the machine does not have
            return errno.EINVAL if name in KNOWN_PARAMETERS else errno.ENOEXEC
        return 0

    def _delete_module(self, call: Call) -> int:
        name = os.fsdecode(_text(call.thread, call.arguments[0]))
        self._machine.unload_module(name)
        return 0


def _euid(thread: int) -> int:
    """The effective user of a thread, as this process sees it: proc(5)."""
    status = Path(f"/proc/{thread}/status").read_text()
    return int(status.partition("\nUid:")[2].split()[1])


def _memory(thread: int, address: int, size_bytes: int) -> bytes:
    """Bytes of a process's memory.

    :raise OSError: EFAULT where it has none there.
    """
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:  # noqa: PTH123  (unbuffered)
        try:
            data = os.pread(memory.fileno(), size_bytes, address)
        except (OSError, OverflowError):
            data = b""
    if not data and size_bytes:  # nothing is mapped there, or the process was killed meanwhile
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return data


def _text(thread: int, address: int) -> bytes:
    """A text in a process's memory, up to its NUL byte.

    :raise OSError: EFAULT where it has none there.
    """
    text = b""
    while b"\0" not in text and len(text) < _MAX_TEXT_BYTES:
        to_page_end = 4096 - (address + len(text)) % 4096
        text += _memory(thread, address + len(text), to_page_end)
    return text.partition(b"\0")[0]
