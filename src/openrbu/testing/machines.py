"""Machines for tests: made in a directory of the test, and removed after it.

A program runs on a machine in a process of its own (`rbu run`), because that needs a process
without other threads. All else is done in this process, with `openrbu.api`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from openrbu import api, errors
from openrbu.system.processes import descendants, kill_descendants, signal_descendants
from openrbu.units import parse_size

RBU = (sys.executable, "-P", "-c", "from openrbu.cli.main import entry; raise SystemExit(entry())")
"""The command `rbu`, wherever it is installed. What lies in the working directory is not imported
(-P)."""

_ALIASES = {"bios": "bios_rules", "ram": "ram_bytes", "flash_size": "flash_size_bytes"}
"""Names that the command line has, and those of the fields of `MachineSpec`."""


@dataclass(frozen=True, slots=True)
class Bios:
    """The BIOS of a machine. `rules`: the rule set that it follows."""

    version: str
    release_date: str
    rules: str


@dataclass(frozen=True, slots=True)
class Staged:
    """What the driver holds for the BIOS. `mode`: `mono` or `packet`."""

    mode: str
    size_bytes: int


class DellMachine:
    """A virtual machine, on, with no module loaded.

    `name` and `home` are what `rbu --machine NAME` with `OPENRBU_HOME` finds it by; `directory` is
    that of its files. Use it in one thread at a time.
    """

    def __init__(self, home: Path, name: str) -> None:
        self.home, self.name = home, name
        self.directory = home / "machines" / name
        self.trace_file: Path | None = None
        self._runs = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} in {str(self.home)!r}>"

    # -- programs ---------------------------------------------------------------------------

    def run(
        self,
        *command: str | os.PathLike[str],
        input: str | None = None,  # noqa: A002  (as subprocess.run has it)
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
        check: bool = False,
        trace: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the machine, as `rbu run` does: its exit code, what it printed.

        The options are those of `subprocess.run`. A program that is not there ends with 127, one
        that a signal has ended with 128 and the signal's number, and 4 means that this computer
        does not allow it (`stderr` says why). `trace`: keep what it does, for `trace`.

        :raise subprocess.CalledProcessError: with `check`, when it ends with anything but 0.
        :raise subprocess.TimeoutExpired: when it takes longer than `timeout` seconds. It is killed
            with all that it has started.
        """
        words = ["run", "--machine", self.name]
        self.trace_file = None
        if trace:
            self._runs += 1
            self.trace_file = self.home / f"{self.name}-{self._runs}.trace"
            words += ["--trace", str(self.trace_file)]
        with subprocess.Popen(
            [*RBU, *words, "--", *_words(command)],
            text=True,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**(os.environ if env is None else env), "OPENRBU_HOME": str(self.home)},
            cwd=cwd,
        ) as running:
            try:
                out, err = running.communicate(input, timeout)
            except BaseException as error:
                _kill_with_descendants(running)
                if isinstance(error, subprocess.TimeoutExpired):
                    error.cmd = _words(command)
                raise
        result = subprocess.CompletedProcess(_words(command), running.returncode, out, err)
        if check:
            result.check_returncode()
        return result

    @property
    def trace(self) -> api.TraceReport:
        """What the last program did with the machine's files.

        :raise openrbu.errors.UsageError: when no program was run, or the last one without a trace.
        """
        if self.trace_file is None:
            raise errors.UsageError("no program was run with a trace")
        return api.read_trace(self.trace_file)

    def rbu(self, *words: str | os.PathLike[str]) -> Any:
        """What `rbu WORDS --json` says, with this machine's home.

        :raise subprocess.CalledProcessError: when it ends with anything but 0.
        """
        done = subprocess.run(
            [*RBU, *_words(words), "--json"],
            capture_output=True,
            check=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OPENRBU_HOME": str(self.home)},
        )
        return json.loads(done.stdout)

    # -- the machine ------------------------------------------------------------------------

    @contextlib.contextmanager
    def opened(self) -> Iterator[api.Machine]:
        """The machine as `openrbu.api` has it, for the block. No program can run on it meanwhile.

        :raise openrbu.errors.MachineError: when it can't be opened.
        """
        with at_home(self.home), api.open_machine(self.name) as machine:
            yield machine

    def load(self, module: str, **parameters: str | int) -> None:
        """`modprobe MODULE PARAMETER=VALUE …`. Nothing is done when it is loaded.

        :raise OSError: as the machine's kernel answers.
        """
        with self._virtual() as virtual:
            if module not in virtual.modules:
                virtual.load_module(module, {name: str(parameters[name]) for name in parameters})

    def unload(self, module: str) -> None:
        """`rmmod MODULE`.

        :raise OSError: as the machine's kernel answers.
        """
        with self._virtual() as virtual:
            virtual.unload_module(module)

    def restart(self, *, cold: bool = False) -> api.Restarted:
        """Restart, as the kernel's reboot mode says; `cold`: with a power cycle, which clears
        memory. What the BIOS did is in `post` of the result.

        :raise openrbu.errors.MachineError: when its flash has no BIOS.
        """
        with self.opened() as machine:
            restarted = machine.restart(cold=cold)
        assert restarted is not None, "a virtual machine restarts at once"
        return restarted

    @property
    def bios(self) -> Bios:
        """The BIOS that runs."""
        from openrbu.formats import dell  # noqa: PLC0415  (start-up time)

        with self._virtual() as virtual:
            information = dell.BiosInformation.of(virtual.status().tables)
            rules = virtual.config.bios_rules
        return Bios(information.version, information.release_date, rules)

    @property
    def armed(self) -> bool:
        """Whether the next restart looks for an update."""
        with self._virtual() as virtual:
            return virtual.status().is_armed

    @property
    def staged(self) -> Staged | None:
        """What the driver holds for the BIOS; None: nothing, or it is not loaded."""
        with self.opened() as machine:
            status = machine.status()
        if not status.staged_size_bytes:
            return None
        return Staged(status.staged_mode, status.staged_size_bytes)

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the loaded modules, sorted."""
        with self._virtual() as virtual:
            return virtual.modules

    @property
    def log(self) -> tuple[str, ...]:
        """What the machine's kernel has said in its log, such as why an image was not staged."""
        from openrbu.machine.kernel_log import read_log  # noqa: PLC0415  (start-up time)

        return tuple(each.text for each in read_log(self.directory) if each.event == "line")

    @contextlib.contextmanager
    def _virtual(self) -> Iterator[api.VirtualMachine]:
        with self.opened() as machine:
            assert machine.virtual is not None, "it has a name"
            yield machine.virtual


class XenHost(DellMachine):
    """A machine that runs Xen; programs run on its dom0. `rbu("balloon", "show", host.name)` shows
    the host, `rbu("balloon", "guest", host.name, …)` makes a guest."""


@contextlib.contextmanager
def machine(
    home: str | os.PathLike[str], *, name: str = "dell", **how: Any
) -> Iterator[DellMachine]:
    """A virtual machine for the block, under `home`; it is removed afterwards.

    `how` are fields of `openrbu.api.MachineSpec`: `model`, `profile`, `bios_version`, `faults` …
    Also: `bios`, the rule set of its BIOS; `ram` and `flash_size`, a number of bytes or a text such
    as `"2G"`.

    :raise openrbu.errors.UsageError: for a field or a value that there is not.
    :raise openrbu.errors.ObstacleError: when it can't be made.
    """
    with _made(DellMachine(Path(home).absolute(), name), _spec(how)) as made:
        yield made


@contextlib.contextmanager
def xen_host(
    home: str | os.PathLike[str],
    *,
    name: str = "xen",
    ram: int | str = "1G",
    dom0: int | str = "256M",
    dom0_max: int | str | None = None,
    balloon: str | None = None,
    **how: Any,
) -> Iterator[XenHost]:
    """A machine that runs Xen, for the block. dom0 starts with `dom0` and may have `dom0_max`
    (twice that). `balloon`: the profile of its balloon driver. `how`: as of `machine`.

    :raise openrbu.errors.UsageError | openrbu.errors.ObstacleError: as `machine`.
    """
    from openrbu.drivers.xen_balloon_profiles import (  # noqa: PLC0415  (start-up time)
        DEFAULT_BALLOON_PROFILE,
    )
    from openrbu.machine.config import XenConfig  # noqa: PLC0415  (start-up time)

    dom0_bytes = _bytes("dom0", dom0)
    xen = XenConfig(
        dom0_bytes=dom0_bytes,
        dom0_max_bytes=2 * dom0_bytes if dom0_max is None else _bytes("dom0_max", dom0_max),
        profile=balloon or DEFAULT_BALLOON_PROFILE,
    )
    how = {"model": "precision-390", "ram": ram, **how, "xen": xen}
    with _made(XenHost(Path(home).absolute(), name), _spec(how)) as made:
        yield made


def why_nothing_runs(machine: DellMachine) -> str | None:
    """Why no program can be run on a machine on this computer; None: it can.

    :raise RuntimeError: when it fails for another reason than this computer: a defect.
    """
    done = machine.run("true", trace=False)
    if done.returncode == errors.ExitCode.OBSTACLE:
        return done.stderr.strip().removeprefix("rbu: ")
    if done.returncode:
        raise RuntimeError(f"rbu run -- true ended with {done.returncode}: {done.stderr}")
    return None


@contextlib.contextmanager
def at_home(home: Path) -> Iterator[None]:
    """In this block this process finds the machines of `home`."""
    before = os.environ.get("OPENRBU_HOME")
    os.environ["OPENRBU_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OPENRBU_HOME"]
        else:
            os.environ["OPENRBU_HOME"] = before


_Machine = TypeVar("_Machine", bound=DellMachine)


@contextlib.contextmanager
def _made(machine: _Machine, spec: api.MachineSpec) -> Iterator[_Machine]:
    with at_home(machine.home):
        api.make_machine(machine.name, spec)
    try:
        yield machine
    finally:
        with at_home(machine.home):
            api.remove_machine(machine.name)


def _spec(how: Mapping[str, Any]) -> api.MachineSpec:
    """
    :raise openrbu.errors.UsageError: for a field that there is not, or a size that is none.
    """
    fields = {_ALIASES.get(name, name): value for name, value in how.items()}
    for name in ("ram_bytes", "flash_size_bytes"):
        if fields.get(name) is not None:
            fields[name] = _bytes(name, fields[name])
    if isinstance(fields.get("faults"), str):
        fields["faults"] = (fields["faults"],)
    known = {field.name for field in dataclasses.fields(api.MachineSpec)}
    for name in fields:
        if name not in known:
            raise errors.UsageError(
                f"a machine has no {name!r}; it has: {', '.join(sorted(known | set(_ALIASES)))}"
            )
    return api.MachineSpec(**fields)


def _bytes(name: str, size: int | str) -> int:
    """
    :raise openrbu.errors.UsageError: when it is not a size.
    """
    if isinstance(size, int):
        return size
    try:
        return parse_size(size)
    except ValueError as error:
        raise errors.UsageError(f"{name}: {error}") from None


def _kill_with_descendants(running: subprocess.Popen[str]) -> None:
    """Kill `rbu run`, and all that its program has started. It is stopped first, so that it does
    not go on when it sees the program's end. What it has forked, its launcher, is the last."""
    running.send_signal(signal.SIGSTOP)
    launcher = next(descendants(running.pid), None)
    if launcher is not None:
        kill_descendants(launcher)
    signal_descendants(running.pid, signal.SIGKILL)
    running.kill()


def _words(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    return [os.fspath(word) for word in command]
