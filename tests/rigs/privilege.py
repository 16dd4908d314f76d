"""Tests whose outcome may depend on who runs them: the mark `privilege`, run as another user, too.

A test module has the mark when its text names what asks for the user, or what sets what a user may,
or a module of `RIGS` or `_ASKING`; so whoever writes such a test need not think of it. One that
takes long may say that shorter ones ask the same of another user (the mark `any_user`). A contract
test has it, besides, where the driver is on a mount with the first of the test's profiles
(`tests/contract/conftest.py`). The refusals of the virtual kernel do not count: whom it serves is
an argument.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]

RIGS = ("held_files", "mounted", "mounts", "run", "served", "small_disks")
"""Mounts, files of other processes and users, processes that own a machine, and full disks."""

_USERS = (
    r"as_nobody|geteuid|getuid|os\.access|chmod|chown|setpriv|unshare|fusermount|setrlimit|lockfile"
)
_ASKING = ("lab.accel",)
"""Modules of ours that ask what the user may: `lab.accel` asks os.access of /dev/kvm."""

_IMPORTED = "|".join(
    [rf"rigs(?:\.| import ){name}" for name in RIGS]
    + [name.replace(".", r"(?:\.| import )") for name in _ASKING]
)
_NAMED = re.compile(rf"\b(?:{_USERS}|{_IMPORTED})\b")

WHY_LEFT_OUT = (
    "nothing in them asks who runs them, mounts, or reaches a machine of another process; or they "
    "take long, and shorter ones do"
)


@cache
def depends_on_the_user(module: Path) -> bool:
    """Whether the tests of a module may do something else for another user."""
    text = module.read_text()
    if "pytest.mark.any_user" in text:
        return False
    return module.parent.name == "mount" or _NAMED.search(text) is not None


def left_out() -> list[str]:
    """The modules of unit tests without the mark, as paths from the folder of tests."""
    modules = sorted((TESTS / "unit").rglob("test_*.py"))
    return [str(path.relative_to(TESTS)) for path in modules if not depends_on_the_user(path)]
