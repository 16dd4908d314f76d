"""The processes of this computer, and who has started them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from openrbu.system.processes import descendants, process_ids


def test_a_process_that_ends_while_processes_are_looked_at_is_none(tmp_path: Path) -> None:
    """What leads through the directory of a process that has ended is ESRCH, and not ENOENT."""
    ended, running = (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)
    )
    with ended, running:
        directory = os.open(f"/proc/{ended.pid}", os.O_PATH | os.O_DIRECTORY)
        ended.kill()
        ended.wait()
        (tmp_path / str(ended.pid)).symlink_to(f"/proc/{os.getpid()}/fd/{directory}")
        for each in (os.getpid(), running.pid):
            (tmp_path / str(each)).symlink_to(f"/proc/{each}")
        (tmp_path / "self").symlink_to("/proc/self")
        try:
            assert {ended.pid, running.pid} <= set(process_ids(tmp_path))
            assert list(descendants(os.getpid(), tmp_path)) == [running.pid]
        finally:
            os.close(directory)
            running.kill()
