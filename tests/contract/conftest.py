"""The systems that the contract is checked on: one suite, every way of serving the driver.

A test says by the mark `profiles` which profiles it is about. It is run with each of them, in this
process and on a mount; with `linux`, which is what a current kernel does, on such a kernel; and
with `documented` as openrbu's own driver, with huge pages of this computer, on a mount.
`in_process=False` is for tests of files: in process there are none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.driver import InProcess, NewSystem, System
from rigs.kernel import RealKernel
from rigs.mounted import Mounted
from rigs.own_mounted import KeptMemory, MountedOwnDriver, huge_pages

IN_PROCESS, MOUNTED, KERNEL, OWN = "in process", "mounted", "real kernel", "own driver"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "new_system" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("profiles")
    assert mark is not None, "a contract test says which profiles it is about"
    served = (IN_PROCESS, MOUNTED) if mark.kwargs.get("in_process", True) else (MOUNTED,)
    # To another user all profiles are alike: the first is enough.
    marks = {
        (MOUNTED, name): pytest.mark.untraced if number else pytest.mark.privilege
        for number, name in enumerate(mark.args)
    }
    ways = [
        pytest.param(way, name, marks=marks.get((way, name), ()))
        for name in mark.args
        for way in served
    ]
    if "linux" in mark.args:
        ways.append(pytest.param(KERNEL, "linux", marks=pytest.mark.lab))
    if "documented" in mark.args:
        ways.append(pytest.param(OWN, "documented", marks=pytest.mark.privilege))
    metafunc.parametrize(("way", "name"), ways)


@pytest.fixture
def new_system(
    request: pytest.FixtureRequest, way: str, name: str, tmp_path: Path
) -> Iterator[NewSystem]:
    """The driver with the profile `name`, served in the given way. To be used once in a test."""
    with contextlib.ExitStack() as stack:
        own: KeptMemory | None = request.getfixturevalue("own_memory") if way == OWN else None
        shared = request.getfixturevalue("shared_machine") if way == KERNEL else None

        def new() -> System:
            if shared is not None:
                return stack.enter_context(contextlib.closing(RealKernel(shared)))
            if own is not None:
                return stack.enter_context(contextlib.closing(MountedOwnDriver(tmp_path, own)))
            if way == MOUNTED:
                return stack.enter_context(contextlib.closing(Mounted(tmp_path, name)))
            return InProcess(tmp_path, name)

        yield new


@pytest.fixture(scope="session")
def own_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptMemory]:
    """Huge pages of this computer, the same ones for all tests."""
    with huge_pages(tmp_path_factory.mktemp("pages")) as memory:
        yield memory
