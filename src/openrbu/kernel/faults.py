"""Faults of a machine's kernel, on purpose."""

from __future__ import annotations

from openrbu.drivers.sysfs import SysfsTree, TextAttribute
from openrbu.faults import FaultKind, Faults

NO_MODULE = FaultKind("no-module", "The kernel has no module dell_rbu: modprobe does not find it.")
BUILT_IN = FaultKind(
    "built-in",
    "The driver dell_rbu is built into the kernel: nobody loads it, and nobody unloads it.",
)
NO_FIRMWARE_ENTRY = FaultKind(
    "no-firmware-entry",
    "The kernel is built without the sysfs fallback: there is no /sys/class/firmware, and an image "
    "is given as a file.",
)
LOCKDOWN_INTEGRITY = FaultKind(
    "lockdown-integrity",
    "The kernel is locked down, as with lockdown=integrity on its command line: no /dev/mem and no "
    "/dev/port.",
)
LOCKDOWN_CONFIDENTIALITY = FaultKind(
    "lockdown-confidentiality",
    "The kernel is locked down, as with lockdown=confidentiality: no /proc/kcore either.",
)
KEXEC_LOADED = FaultKind(
    "kexec-loaded",
    "A kernel is loaded for kexec: a plain reboot starts it, and the BIOS does not run.",
)

SLOW_ENTRIES = FaultKind(
    "slow-entries",
    "The kernel makes a firmware entry only SECONDS (2) after the driver asked for it, as "
    "--entry-delay does.",
    value="SECONDS",
    values=range(1, 3601),
    default=2,
)
COLD_RESTART = FaultKind(
    "cold-restart",
    "The kernel restarts cold, which clears memory, and has no /sys/kernel/reboot to change that, "
    "as --without-reboot-files makes it.",
)
BUGS_OF_5_7 = FaultKind(
    "linux-5.7-bugs",
    "The driver has the bugs of Linux 5.7, as --profile linux-5.7 does: it reads packets back "
    "wrong, and dropping them crashes the kernel.",
)

FAULTS = (
    NO_MODULE,
    BUILT_IN,
    BUGS_OF_5_7,
    NO_FIRMWARE_ENTRY,
    SLOW_ENTRIES,
    LOCKDOWN_INTEGRITY,
    LOCKDOWN_CONFIDENTIALITY,
    COLD_RESTART,
    KEXEC_LOADED,
)

_RELEASE = "6.1.0-openrbu"


def show_no_module(proc: SysfsTree, files: SysfsTree, faults: Faults) -> None:
    """Show that the kernel lacks the module, where it does: modprobe's list is without it."""
    if NO_MODULE in faults:
        release = TextAttribute(lambda: f"{_RELEASE}\n", mode=0o444, size_bytes=0)
        proc.add("/sys/kernel/osrelease", release)
        nothing = TextAttribute(lambda: "", mode=0o444, size_bytes=0)
        files.add(f"/lib/modules/{_RELEASE}/modules.dep", nothing)
