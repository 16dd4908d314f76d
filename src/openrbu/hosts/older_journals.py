"""Where openrbu 0.2 and before kept the journal of a real machine: in a user's home."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path

from openrbu.system.home import state_home

_IN_HOME = Path(".local/state/openrbu/journal.jsonl")


def older_journals(root: Path) -> tuple[Path, ...]:
    """The journals in homes below `root`, the one that was written last at the end.

    The homes are root's and that of the user of sudo, and on this computer `$OPENRBU_HOME` and the
    user's state directory. Only files that belong to the user of this process count: an update
    takes root, so root wrote its journal, and nobody else may tell root what was done.
    """
    homes = [Path("/root")]
    if user := os.environ.get("SUDO_USER"):
        with contextlib.suppress(KeyError):
            homes.append(Path(pwd.getpwnam(user).pw_dir))
    paths = [root / home.relative_to("/") / _IN_HOME for home in homes]
    if root == Path("/"):
        paths.append(state_home() / "journal.jsonl")
    found = {}
    for path in dict.fromkeys(paths):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                found[path] = status.st_mtime_ns
    return tuple(sorted(found, key=found.__getitem__))
