"""KVM where it works, found out by trying; else emulation.

A /dev/kvm that is there may still hang a guest (seen: KVM inside of a virtual machine, where a few
instructions of a BIOS ran and a kernel stopped for good on its first ones). So what is tried is a
kernel's boot, up to the panic that it ends with for want of a root. That takes seconds, and is
remembered until the computer is started anew.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from openrbu.lab.programs import running, wait
from openrbu.system.files import write_whole
from openrbu.system.home import cache_home

KVM, TCG = "kvm", "tcg"

TRIAL_LIMIT_S = 10.0
"""For a boot that takes KVM one second, and emulation three."""

_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FINAL_LINE = b"Unable to mount root fs"


def accelerator(qemu: Path, vmlinuz: Path, say: Callable[[str], None]) -> str:
    """`kvm` where it works here, else `tcg`. `say` gets a line before a trial."""
    if not is_kvm_usable():
        return TCG
    remembered = remembered_accelerator()
    if remembered is not None:
        return remembered
    say(f"trying whether KVM works here (up to {TRIAL_LIMIT_S:.0f} s) …")
    found = KVM if boots(qemu, vmlinuz, KVM) else TCG
    with contextlib.suppress(OSError):  # then it is tried again next time
        _memory().parent.mkdir(parents=True, exist_ok=True)
        write_whole(_memory(), f"{_boot_id()} {found}\n".encode())
    return found


def is_kvm_usable() -> bool:
    """Whether there is a /dev/kvm that this user may use, whatever guests do with it."""
    return os.access(_DEVICE, os.R_OK | os.W_OK)


def remembered_accelerator() -> str | None:
    """What a trial has found since the computer was started; None when there was none."""
    try:
        boot_id, found = _memory().read_text().split()
    except (OSError, ValueError):  # none, or not whole
        return None
    return found if boot_id == _boot_id() and found in (KVM, TCG) else None


def boots(qemu: Path, vmlinuz: Path, name: str, limit_s: float = TRIAL_LIMIT_S) -> bool:
    """Whether a kernel runs from its start to its last words under the accelerator `name`."""
    command: list[str | Path] = [qemu, "-accel", name, "-machine", "pc,graphics=off"]
    command += ["-cpu", "max", "-m", "128M"]
    command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    command += ["-kernel", vmlinuz, "-append", "console=ttyS0 quiet panic=-1"]
    with tempfile.TemporaryFile() as said, running(command, said, said) as process:
        wait(process, limit_s)
        said.seek(0)
        return _FINAL_LINE in said.read()


def _memory() -> Path:
    return cache_home() / "accelerator"


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()
