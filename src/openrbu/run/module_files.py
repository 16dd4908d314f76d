"""The directory of the machine's kernel modules, where modprobe(8) and a plan look for it.

It has the name of the kernel that runs on this computer, because uname(2) says so in the namespace,
too. What is in it are the modules that the machine has; this computer's are not for its kernel.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from openrbu.run import namespace
from openrbu.run.module_commands import FILES

MODULES = Path("/lib/modules")

_SIGNED = "~Module signature appended~\n"
"""The end of a module's file that has a signature: nothing else is read of it."""


def install(served: Path) -> None:
    """Put it over `MODULES` in this process's mount namespace. `served`: the root of the machine's
    files. A
    kernel that lacks `dell_rbu` on purpose shows a release of its own there.

    :raise OSError: the kernel's error.
    """
    release = PurePosixPath(os.uname().release)
    there = dict(FILES)
    if (served / "proc/sys/kernel/osrelease").exists():
        del there["dell_rbu"]
    listed = "".join(f"{file}:\n" for file in there.values())
    files = {"modules.dep": listed, "modules.builtin": "", "modules.order": ""}
    files |= dict.fromkeys(there.values(), _SIGNED)
    namespace.mount_tmpfs(MODULES)
    for name, text in files.items():
        file = MODULES / release / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
