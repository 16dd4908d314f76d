"""Huge pages of this computer's own kernel: a few of them, given back at once.

Its mount is in namespaces and a /dev of the test's own, and goes away with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rigs import real_huge_pages
from rigs.huge_pages import needs_huge_pages
from rigs.mounts import AS_NOBODY
from rigs.needs import program

PROGRAM = real_huge_pages.__name__
TESTS = Path(real_huge_pages.__file__).parents[1]

NAMESPACES = ("--mount", "--pid", "--fork", "--mount-proc")
OWN_DEV = ("sh", "-euc", 'mount -t tmpfs none /dev; exec "$@"', "sh")


def test_pages_are_where_they_are_said_to_be_and_nothing_is_left_by_killed_processes(
    tmp_path: Path,
) -> None:
    needs_huge_pages()
    words = [program("unshare", "util-linux"), *NAMESPACES, *OWN_DEV, sys.executable, "-m", PROGRAM]
    done = subprocess.run(
        [*words, str(tmp_path)], cwd=TESTS, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "taken 0",
        "asked while it is held True",
        "moved ()",
        "read back True",
        "kernel says huge True",
        "seen in another mapping [True, True, True, True]",
        "looked 0",
        "left True",
        "killed True {0, 9}",
    ]


def test_who_is_not_root_gets_no_pages() -> None:
    prefix = () if os.geteuid() else AS_NOBODY
    script = "from rigs.real_huge_pages import *\nHugePageBackend().new(print).allocate(9)"
    done = subprocess.run(
        [*prefix, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS,
    )
    assert "KernelError: " in done.stderr.splitlines()[-1]
