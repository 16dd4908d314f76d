"""Files of a simulated kernel that never change.

`/proc/cpuinfo` has one processor, which can't encrypt memory; `modules_disabled` lets modules be
loaded.
"""

from __future__ import annotations

from functools import partial

from openrbu.drivers.sysfs import SysfsTree, TextAttribute

_CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 15
model name\t: Intel(R) Core(TM)2 CPU          6600  @ 2.40GHz
stepping\t: 6
cpu MHz\t\t: 2400.000
cache size\t: 4096 KB
physical id\t: 0
siblings\t: 1
core id\t\t: 0
cpu cores\t: 1
fpu\t\t: yes
cpuid level\t: 10
wp\t\t: yes
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
fxsr sse sse2 ss ht syscall nx lm constant_tsc nopl pni ssse3 cx16 lahf_lm
bogomips\t: 4800.00
clflush size\t: 64
cache_alignment\t: 64
address sizes\t: 36 bits physical, 48 bits virtual

"""


def add_constant_files(proc: SysfsTree) -> None:
    """Add the files."""
    for path, text in (("/cpuinfo", _CPUINFO), ("/sys/kernel/modules_disabled", "0\n")):
        proc.add(path, TextAttribute(partial(str, text), mode=0o444, size_bytes=0))
