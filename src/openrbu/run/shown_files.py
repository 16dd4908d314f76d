"""Files that a program under `rbu run` finds at their usual paths, and files that it must not find.

What is in `/sys` is in `openrbu.run.overlay`.
"""

from __future__ import annotations

PROC_FILES = (
    "/proc/buddyinfo",
    "/proc/cmdline",
    "/proc/cpuinfo",
    "/proc/iomem",
    "/proc/kcore",
    "/proc/kpageflags",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/sys/kernel/bootloader_type",
    "/proc/sys/kernel/firmware_config/force_sysfs_fallback",
    "/proc/sys/kernel/firmware_config/ignore_sysfs_fallback",
    "/proc/sys/kernel/modules_disabled",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/vm/compact_memory",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/nr_hugepages",
)
"""The files of the machine's `/proc` that are shown, each where this computer has such a file to
bind it on. One that the machine does not have can't be opened."""

DEVICES = ("/dev/kmsg", "/dev/mem", "/dev/port")
"""The files of the machine's `/dev`. Where this computer has them and the machine has not, they
can't be opened."""

XEN = "/proc/xen"
"""The directory of Linux's files as a guest of Xen. This computer may not have it."""

NO_ENTRY = (
    # This computer's firmware, by ways other than the files that are served.
    "/dev/cpu/*/msr",
    "/dev/i2c-*",
    "/dev/ipmi*",
    "/dev/ipmi/*",
    "/dev/ipmidev/*",
    "/dev/kmem",
    "/dev/mei*",
    "/dev/mtd*",
    "/dev/mtd/*",
    "/dev/nvram",
    "/dev/rtc*",
    "/dev/spidev*",
    "/dev/tpm*",
    "/dev/uio*",
    "/dev/wmi/dell-smbios",
    "/proc/mtrr",
    # This computer's memory, by ways other than the files that are served.
    "/proc/sys/vm/nr_hugepages_mempolicy",
    "/proc/sys/vm/nr_overcommit_hugepages",
    "/proc/pagetypeinfo",
    "/proc/slabinfo",
    "/proc/vmstat",
    "/proc/zoneinfo",
    # What this computer's kernel has said, and what it is built from.
    "/proc/config.gz",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kmsg",
    # The hypervisor that this computer runs on, and its other guests.
    "/dev/xen/*",
    "/proc/xen/*",
    "/run/xenstored/*",
    # This computer's power: with these a program would restart it.
    "/dev/initctl",
    "/dev/watchdog*",
    "/proc/sysrq-trigger",
    "/run/dbus/system_bus_socket",
    "/run/initctl",
    "/run/openrc/init.ctl",
    "/run/systemd/private",
)
"""Glob patterns of files of this computer that a program under `rbu run` must not open: it would
take them for the virtual machine's."""

EMPTY = ("/etc/crypttab", "/etc/default/kexec")
"""Files of this computer that are empty for a program under `rbu run`: they are about its disks and
its restart."""
