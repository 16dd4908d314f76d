"""What a test needs of the machine that it runs on, and what happens where that is not there."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def leave_out(reason: str) -> NoReturn:
    """End a test that can't run here, for a reason that the test report shows.

    With OPENRBU_NOTHING_LEFT_OUT=1, as in CI, that is a failure: what is missing has to be put
    there.
    """
    if os.environ.get("OPENRBU_NOTHING_LEFT_OUT") == "1":
        pytest.fail(f"nothing may be left out here, but {reason}")
    pytest.skip(reason)


def program(name: str, package: str) -> str:
    """Where a program is, on a path that leads to root's, too; without it the test is left out."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return found or leave_out(f"the package {package} is not installed")
