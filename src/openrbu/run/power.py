"""What a program under `rbu run` asks of the machine's power, and who waits to hear of it."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from openrbu.errors import MachineError

if TYPE_CHECKING:
    from openrbu.machine.base import Machine


class PowerAction(Enum):
    """What is to become of the machine. The value says it in words."""

    RESTART = "restart"
    POWER_OFF = "power off"
    HALT = "halt"
    KEXEC = "start another kernel by kexec"


@dataclass(frozen=True, slots=True)
class PowerWish:
    """`action`; `at_once`: programs get no SIGTERM before they are killed, as with `kexec -e`;
    `is_scheduled`: it is done when the program has ended, as with `shutdown -r +1`."""

    action: PowerAction
    at_once: bool = False
    is_scheduled: bool = False


class PowerSwitch:
    """Has the wish of the programs on a machine. Any thread may call.

    `wake_up` is a descriptor that can be read as soon as there is a wish for now. The first such
    wish counts: what follows comes from programs that are about to be ended.
    """

    def __init__(self) -> None:
        self.wake_up = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._now: PowerWish | None = None
        self._scheduled: PowerWish | None = None
        self._lock = threading.Lock()

    @property
    def wish(self) -> PowerWish | None:
        """What is to be done; None: nothing."""
        return self._now or self._scheduled

    def ask(self, wish: PowerWish) -> None:
        """Ask for something. A wish for later replaces the one before."""
        with self._lock:
            if wish.is_scheduled:
                self._scheduled = wish
            elif self._now is None:
                self._now = wish
                os.eventfd_write(self.wake_up, 1)

    def cancel(self) -> None:
        """Forget what was scheduled: `shutdown -c`."""
        self._scheduled = None

    def close(self) -> None:
        os.close(self.wake_up)


def has_kexec(machine: Machine) -> bool:
    """Whether a kernel is loaded for kexec: a restart that nobody forces goes to it. A kernel that
    has crashed starts no other."""
    with (
        contextlib.suppress(MachineError),
        contextlib.closing(machine.open("/sys/kernel/kexec_loaded", reading=True)) as file,
    ):
        return file.read(0, 1) == b"1"
    return False
