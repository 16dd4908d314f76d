"""The shell blocks of docs/xen.md work, word for word."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rigs.mounted import needs_fuse
from rigs.needs import leave_out
from rigs.run import needs_namespaces

MANUAL = Path(__file__).parents[3] / "docs" / "xen.md"


def test_the_manuals_session_ends_with_a_new_bios(tmp_path: Path) -> None:
    needs_fuse()
    if os.geteuid():
        needs_namespaces()
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    if shutil.which("rbu", path=path) is None:
        leave_out("openrbu is not installed in the environment of this Python")
    blocks = re.findall(r"```sh\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert len(blocks) == 3
    env = {**os.environ, "PATH": path, "OPENRBU_HOME": str(tmp_path / "home")}
    ran = subprocess.run(
        ["sh", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran
    assert re.search(r"^a +1 GiB +1 GiB", ran.stdout, re.MULTILINE)
    assert "\n262144\n" in ran.stdout  # dom0, told through its file
    (line,) = ran.stderr.splitlines()
    assert "would not take what is staged" in line
    assert "2.1.2 → 2.3.0\n  BIOS says:     0x0000" in ran.stdout
