"""Runs trials, several at a time, each in a process and a directory of its own.

Theory of operation. This process starts workers, without threads, and waits for the end of any of
them (pidfd_open(2)). A worker is in a session of its own, so that Ctrl-C reaches this process
alone, which then gives the trials up (`deadline.GIVE_UP`). A worker that is given up ends all that
its tool has started, and then itself. When all have ended, the directories are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openrbu.errors import ExitCode, ObstacleError, OpenRbuError, UsageError
from openrbu.system.descriptors import readable
from openrbu.system.signals import SIGNAL_CHECK_S, signals_deferred
from openrbu.trials.deadline import GIVE_UP
from openrbu.trials.records import Failure, Order, Report, TrialResult
from openrbu.trials.trial_files import ORDER, OUTPUT, REPORT, TEMPORARY
from openrbu.typed_json import read, to_text

IMAGE_VARIABLE = "OPENRBU_IMAGE"

_END_S = 10.0
"""How long a worker that is given up may take, until it is killed."""

_WORKER = "openrbu.trials.worker"

_INTERPRETER = "/proc/self/exe"
"""What runs this process, also where the path of it is closed to this user."""


class TrialError(OpenRbuError):
    """A trial could not be done: its error, with the `kind` and the exit code that it had there."""

    kind = "trial"

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.kind, self.exit_code = failure.kind, ExitCode(failure.exit_code)


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial to do, and the path of the image for its tool."""

    order: Order
    image: Path


@contextlib.contextmanager
def trials_directory(keep: Path | None) -> Iterator[Path]:
    """A directory for trials, which is removed after the block; or `keep`, which stays.

    :raise UsageError: when `keep` can't be made, or is not empty.
    """
    if keep is None:
        directory = Path(tempfile.mkdtemp(prefix="rbu-try-"))
        try:
            yield directory
        finally:
            with signals_deferred():
                shutil.rmtree(directory, ignore_errors=True)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        is_empty = not any(keep.iterdir())
    except OSError as error:
        raise UsageError(f"{keep} can't be used: {error.strerror}") from None
    if not is_empty:
        raise UsageError(f"{keep} is not empty: give a directory that is, or a new one")
    yield keep.absolute()


def run_trials(
    trials: Sequence[Trial],
    directory: Path,
    *,
    jobs: int,
    done: Callable[[TrialResult], None] = lambda result: None,
) -> list[TrialResult]:
    """Do trials in `directory`, `jobs` at a time; their results, in the sequence of the trials.

    `done` gets each result when it is there.

    :raise TrialError: when one can't be done; the others are given up.
    :raise ObstacleError: when a worker has died.
    """
    results: dict[int, TrialResult] = {}
    waiting = list(enumerate(trials))[::-1]
    workers: dict[int, _Worker] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                number, trial = waiting.pop()
                with signals_deferred():  # each worker that was started is in `workers`
                    worker = _Worker(number, trial, directory / _directory_name(number, trial))
                    workers[worker.end] = worker
            for end in readable(workers, SIGNAL_CHECK_S):
                worker = workers.pop(end)
                results[worker.number] = result = worker.result()
                if worker.trial.order.removes:
                    shutil.rmtree(worker.directory, ignore_errors=True)
                done(result)
    finally:
        with signals_deferred():
            for worker in workers.values():
                worker.give_up()
            for worker in workers.values():
                worker.end_now()
    return [results[number] for number in range(len(trials))]


def _directory_name(number: int, trial: Trial) -> str:
    name = trial.order.combination.name.replace(" ", "_").replace("/", "_")
    return f"{number + 1:03}-{name}"


class _Worker:
    """The process of a trial. `end`: a descriptor that can be read when it has ended."""

    def __init__(self, number: int, trial: Trial, directory: Path) -> None:
        self.number, self.directory, self.trial = number, directory, trial
        (directory / TEMPORARY).mkdir(parents=True)
        (directory / ORDER).write_text(to_text(trial.order))
        environment = {
            **os.environ,
            IMAGE_VARIABLE: str(trial.image),
            "TMPDIR": str(directory / TEMPORARY),
        }
        with (directory / OUTPUT).open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER, str(directory)],
                executable=_INTERPRETER,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        self.end = os.pidfd_open(self._process.pid)

    def result(self) -> TrialResult:
        """What the worker, which has ended, reports.

        :raise TrialError: when the trial could not be done.
        :raise ObstacleError: when it has died.
        """
        os.close(self.end)
        status = self._process.wait()
        path = self.directory / REPORT
        if status or not path.exists():
            lines = (self.directory / OUTPUT).read_text(errors="replace").splitlines()
            last = f": {lines[-1]}" if lines else ""
            name = self.trial.order.combination.name
            raise ObstacleError(f"the process of the trial {name!r} has ended{last}")
        report = read(Report, json.loads(path.read_text()))
        if report.failure is not None:
            raise TrialError(report.failure)
        assert report.result is not None
        return report.result

    def give_up(self) -> None:
        """Have the worker end, and all that its tool has started."""
        self._process.send_signal(GIVE_UP)

    def end_now(self) -> None:
        """Wait for the end of a worker that was given up."""
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self.end)
