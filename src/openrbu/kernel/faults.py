"""Faults of a machine's kernel, on purpose."""

from __future__ import annotations

from openrbu.faults import FaultKind

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

FAULTS = (COLD_RESTART, SLOW_ENTRIES, BUGS_OF_5_7)
