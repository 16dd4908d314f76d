"""Choose KVM where a trial shows that it works, else emulation.

A guest may hang although /dev/kvm exists. (Seen with KVM inside of a virtual machine: a few
instructions of a BIOS ran, and a kernel stopped at its first ones.) So the trial boots a kernel up
to its panic, which comes because there is no root file system. The trial takes seconds; its result
is remembered until the computer is restarted.
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
"""The time limit of a boot that takes one second with KVM, and three with emulation."""

_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FINAL_LINE = b"Unable to mount root fs"


def accelerator(qemu: Path, vmlinuz: Path, say: Callable[[str], None]) -> str:
    """`kvm` where it works on this computer, else `tcg`. `say` gets a line before a trial."""
    if not is_kvm_usable():
        return TCG
    remembered = remembered_accelerator()
    if remembered is not None:
        return remembered
    say(f"checking whether KVM works here (up to {TRIAL_LIMIT_S:.0f} s) …")
    found = KVM if boots(qemu, vmlinuz, KVM) else TCG
    with contextlib.suppress(OSError):  # then it is tried again next time
        _memory().parent.mkdir(parents=True, exist_ok=True)
        write_whole(_memory(), f"{_boot_id()} {found}\n".encode())
    return found


def is_kvm_usable() -> bool:
    """Whether this user may open /dev/kvm. Guests may still hang with it."""
    return os.access(_DEVICE, os.R_OK | os.W_OK)


def remembered_accelerator() -> str | None:
    """The result of the last trial since the computer was started; None when there was none."""
    try:
        boot_id, found = _memory().read_text().split()
    except (OSError, ValueError):  # no file, or an incomplete one
        return None
    return found if boot_id == _boot_id() and found in (KVM, TCG) else None


def boots(qemu: Path, vmlinuz: Path, name: str, limit_s: float = TRIAL_LIMIT_S) -> bool:
    """Whether a kernel runs from its start to its panic with the accelerator `name`."""
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
