"""Keeps a program under `rbu run` from this computer's own firmware, and from restarting it.

The program believes that it runs on the virtual machine. As root it could reach more of this
computer than files:

- `reboot(2)`, `kexec` and kernel modules: the program and all its children lose CAP_SYS_BOOT and
  CAP_SYS_MODULE (capabilities(7): the bounding set). The calls for modules and `reboot(2)` act on
  the virtual machine (`openrbu.run.kernel_calls`).
- Devices under another name, and this computer's clock: they lose CAP_MKNOD and CAP_SYS_TIME.
- Port I/O by `iopl(2)` and `ioperm(2)`, which reaches this computer's CMOS: the kernel does not
  execute them, and the parent of the program answers in its place (`openrbu.run.supervisor`).
- Signals to process 1, with which some programs restart a computer, are refused: EPERM. So are
  those to all processes at once (`kill -1`), as a shutdown sends them.
- What this computer's kernel has said, `syslog(2)`, is refused; the machine's is at `/dev/kmsg`.
- Processes outside: their namespaces, memory and files would lead around all that. `setns(2)` is
  refused, and they lose CAP_SYS_PTRACE. Without that a process may look into another one only if
  it has all capabilities of that: programs under `rbu run` have the same, others have more.

The last four are done by a seccomp filter (`openrbu.run.filter`). CAP_SYS_RAWIO stays, because the
driver requires it for writing to its firmware `data`.
"""

from __future__ import annotations

from openrbu.fuse.capabilities import (
    CAP_MKNOD,
    CAP_SYS_BOOT,
    CAP_SYS_MODULE,
    CAP_SYS_PTRACE,
    CAP_SYS_TIME,
    Capabilities,
)
from openrbu.run.filter import Rule, Verdict, install

RULES = (
    Rule("kill", Verdict.REFUSE, first_arguments=(1, 0xFFFFFFFF)),
    Rule("setns", Verdict.REFUSE),
    Rule("syslog", Verdict.REFUSE),
    Rule("iopl", Verdict.NOTIFY),
    Rule("ioperm", Verdict.NOTIFY),
    Rule("reboot", Verdict.NOTIFY),
    Rule("init_module", Verdict.NOTIFY),
    Rule("finit_module", Verdict.NOTIFY),
    Rule("delete_module", Verdict.NOTIFY),
)
"""What becomes of the program's calls. `openrbu.run.programs` has a handler for each that is
notified."""


def guard(*, listening: bool = False) -> int:
    """Guard this computer against this process and all programs that it runs. It can't be undone.

    Returns the descriptor that tells of notified calls with `listening`; without, they are refused.

    :raise OSError: the kernel's error. Where only the listener is refused, `guard()` works.
    """
    # uname(2) is not asked for the architecture: it shows a personality, which setarch(8) can set.
    Capabilities().drop(CAP_MKNOD, CAP_SYS_BOOT, CAP_SYS_MODULE, CAP_SYS_PTRACE, CAP_SYS_TIME)
    return install(RULES, listening=listening)
