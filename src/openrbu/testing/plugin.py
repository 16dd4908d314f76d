"""The pytest plugin of openrbu: fixtures `dell_machine` and `xen_host`. docs/ci.md shows their use.

pytest loads this module in each run of everybody who has openrbu installed. So it imports nothing
but pytest, and does nothing until a test asks for one of the fixtures.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from openrbu.testing.machines import DellMachine, XenHost

FIXTURES = ("dell_machine", "xen_host")

_NOTHING_LEFT_OUT = "OPENRBU_NOTHING_LEFT_OUT"
_HOME = "openrbu"
_MAX_TRACE_LINES = 60

_CHECKED = pytest.StashKey[bool]()
"""Whether a program was run on a machine in this session."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("openrbu").addoption(
        "--openrbu-required",
        action="store_true",
        help="Fail tests with dell_machine or xen_host where no program can run on a virtual "
        f"machine, instead of skipping them (also: {_NOTHING_LEFT_OUT}=1, or openrbu_required).",
    )
    parser.addini("openrbu_required", "As --openrbu-required.", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    for fixture in FIXTURES:
        config.addinivalue_line(
            "markers",
            f"{fixture}(model=…, profile=…, bios=…, bios_version=…, faults=…, …): what the "
            "machine of this fixture is; a list of values runs the test with each of them.",
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each combination of the values that are lists in its marks."""
    for fixture in FIXTURES:
        if fixture not in metafunc.fixturenames:
            continue
        how = _marked(metafunc.definition, fixture)
        lists = {name: value for name, value in how.items() if isinstance(value, list)}
        if lists:
            combinations = [
                dict(zip(lists, each, strict=True)) for each in itertools.product(*lists.values())
            ]
            ids = ["-".join(map(_word, each.values())) for each in combinations]
            metafunc.parametrize(fixture, combinations, indirect=True, ids=ids)


@pytest.fixture
def dell_machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DellMachine]:
    """A virtual Dell machine, on, with no module loaded: `openrbu.testing.DellMachine`.

    `@pytest.mark.dell_machine(model="precision-390", profile="linux", bios="published")` says what
    it is. In this test `OPENRBU_HOME` is where it is. The test is skipped where no program can run
    on a machine.
    """
    from openrbu import testing  # noqa: PLC0415  (start-up time)

    how = _how(request, "dell_machine")
    home = _home(tmp_path, monkeypatch)
    with _made(request, testing.machine(home, **how)) as machine:
        yield machine


@pytest.fixture
def xen_host(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[XenHost]:
    """A virtual Dell machine that runs Xen: `openrbu.testing.XenHost`. Programs run on its dom0.

    `@pytest.mark.xen_host(ram="1G", dom0="256M", dom0_max="512M")` says what it is.
    """
    from openrbu import testing  # noqa: PLC0415  (start-up time)

    how = _how(request, "xen_host")
    home = _home(tmp_path, monkeypatch)
    with _made(request, testing.xen_host(home, **how)) as host:
        yield host


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show with a test that failed what the last program did with its machine."""
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    if call.when != "call" or not report.failed:
        return
    for name in FIXTURES:
        machine: DellMachine | None = getattr(item, "funcargs", {}).get(name)
        if machine is not None and machine.trace_file is not None:
            report.sections.append((f"trace of the last program ({name})", _trace_text(machine)))


def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / _HOME
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("OPENRBU_HOME", str(home))
    return home


def _how(request: pytest.FixtureRequest, fixture: str) -> dict[str, Any]:
    """What the machine of a test is to be: from its marks, and its parameters."""
    if any(mark.args for mark in request.node.iter_markers(fixture)):
        problem = f"{request.node.nodeid}: the mark {fixture} takes names, NAME=VALUE"
        pytest.fail(problem, pytrace=False)
    how = _marked(request.node, fixture)
    how.update(getattr(request, "param", None) or {})
    return how


def _marked(node: pytest.Item, fixture: str) -> dict[str, Any]:
    """The values in the marks of a test, those of its class and module included; the nearest mark
    decides."""
    how: dict[str, Any] = {}
    for mark in reversed(list(node.iter_markers(fixture))):
        how |= mark.kwargs
    return how


def _word(value: object) -> str:
    """A value in the name of a test."""
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


@contextlib.contextmanager
def _made(request: pytest.FixtureRequest, machine: Any) -> Iterator[Any]:
    """The machine of a test; the test is left out where no program can run on one."""
    from openrbu.errors import UsageError  # noqa: PLC0415  (start-up time)

    with contextlib.ExitStack() as stack:
        made, problem = None, ""
        try:
            made = stack.enter_context(machine)
        except UsageError as error:
            problem = f"{request.node.nodeid}: {error}"
        if made is None:
            pytest.fail(problem, pytrace=False)
        _leave_out_where_nothing_runs(request.config, made)
        yield made


def _leave_out_where_nothing_runs(config: pytest.Config, machine: DellMachine) -> None:
    """Skip the test, or fail it, where no program can run on a machine. This is tried once in a
    session where it works."""
    from openrbu.testing.machines import why_nothing_runs  # noqa: PLC0415  (start-up time)

    if config.stash.get(_CHECKED, False):
        return
    reason = why_nothing_runs(machine)
    if reason is None:
        config.stash[_CHECKED] = True
        return
    text = f"no program can run on a virtual machine here: {reason}"
    if _is_required(config):
        pytest.fail(f"nothing may be left out, but {text}", pytrace=False)
    pytest.skip(text)


def _is_required(config: pytest.Config) -> bool:
    options: Mapping[str, Any] = vars(config.option)
    return bool(
        options.get("openrbu_required")
        or config.getini("openrbu_required")
        or os.environ.get(_NOTHING_LEFT_OUT) == "1"
    )


def _trace_text(machine: DellMachine) -> str:
    """The last lines of what `rbu trace` shows."""
    from openrbu.testing.machines import RBU  # noqa: PLC0415  (start-up time)

    command = [*RBU, "trace", str(machine.trace_file)]
    shown = subprocess.run(command, capture_output=True, check=False, text=True)
    lines = (shown.stdout + shown.stderr).splitlines()
    if len(lines) > _MAX_TRACE_LINES:
        lines[:-_MAX_TRACE_LINES] = [f"… {len(lines) - _MAX_TRACE_LINES} lines before"]
    return "\n".join(lines)
