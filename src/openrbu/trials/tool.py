"""Tries an update tool on many machines: what `rbu try` and `openrbu.api.try_tool` do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from openrbu.drivers.dell_rbu_profiles import PROFILES, profile
from openrbu.errors import UsageError
from openrbu.formats.loading import load_image
from openrbu.machine.models import model
from openrbu.trials.combinations import Combination, combined, models_of
from openrbu.trials.images import ImageFile, machines_for, make_image_for
from openrbu.trials.matrix import default_matrix
from openrbu.trials.records import Order, TrialResult
from openrbu.trials.runner import Trial, run_trials, trials_directory
from openrbu.trials.verdicts import verdict_named

TIMEOUT_S = 60.0

__all__ = ["combined", "expecting", "machines_to_try", "matrix_of", "try_tool"]

PLACEHOLDER = "{image}"


def try_tool(
    command: Sequence[str],
    image: Path | None,
    combinations: Sequence[Combination],
    *,
    jobs: int | None = None,
    timeout_s: float = TIMEOUT_S,
    strict: bool = True,
    keep: Path | None = None,
    done: Callable[[TrialResult], None] = lambda result: None,
) -> list[TrialResult]:
    """Try a tool on each machine; the results, in the sequence of `combinations`.

    `image` None: an image is made for each model. The tool finds its path in the environment
    variable `OPENRBU_IMAGE`, and in place of `{image}` in `command`. `jobs`: how many trials at a
    time, None: as many as there are processors. `timeout_s`: when a tool is killed. `strict`: luck
    does not count as an update. `keep`: a directory for the files of all trials, which stays.
    `done` gets each result when it is there.

    :raise UsageError: when the command is empty, a number is not positive, or a machine can't be.
    :raise DamagedInputError: when the image can't be read.
    :raise ObstacleError: when this computer does not allow it.
    :raise TrialError: as the first trial that can't be done says.
    """
    if not command or not command[0]:
        raise UsageError("which tool? name it after --")
    if shutil.which(command[0]) is None:
        raise UsageError(f"{command[0]}: there is no such program, or it can't be executed")
    if timeout_s <= 0 or (jobs is not None and jobs < 1):
        raise UsageError("the number of jobs and the timeout have to be more than 0")
    if not combinations:
        raise UsageError("there is no machine to try it on")
    for each in combinations:
        each.check()
    with trials_directory(keep) as directory:
        trials = []
        files = _image_files(image, combinations, directory)
        for combination, file in zip(combinations, files, strict=True):
            words = tuple(word.replace(PLACEHOLDER, str(file.path)) for word in command)
            order = Order(
                combination,
                words,
                version=file.version.text,
                timeout_s=timeout_s,
                strict=strict,
                parent=os.getpid(),
                removes=keep is None,
            )
            trials.append(Trial(order, file.path))
        processors = len(os.sched_getaffinity(0))
        return run_trials(trials, directory, jobs=jobs or processors, done=done)


def _image_files(
    image: Path | None, combinations: Sequence[Combination], directory: Path
) -> list[ImageFile]:
    """The file for the tool on each machine."""
    if image is not None:
        version = load_image(image).image.header.version
        return [ImageFile(image.absolute(), version)] * len(combinations)
    made: dict[tuple[str, int | None, int | None], ImageFile] = {}
    keys = [(each.model, each.system_id, each.flash_size_bytes) for each in combinations]
    for key, each in zip(keys, combinations, strict=True):
        if key not in made:
            made[key] = make_image_for(each, directory)
    return [made[key] for key in keys]


def machines_to_try(image: Path | None, models: Sequence[str] = ()) -> list[Combination]:
    """A machine for each of these models; without names, for each that the image is for.

    :raise UsageError: when there is no such model.
    :raise UsageError, DamagedInputError: when the image can't be read.
    """
    for name in models:
        model(name)
    if models or image is None:
        return models_of(models)
    return machines_for(load_image(image).image)


def matrix_of(machines: Sequence[Combination], profiles: Sequence[str] = ()) -> list[Combination]:
    """What the default matrix has of the models of these machines, and of these profiles; with
    machines that are no models, each of them with each profile.

    :raise UsageError: when there is no profile of that name.
    """
    for name in profiles:
        profile(name)
    models = {each.model for each in machines if each.system_id is None}
    others = [each for each in machines if each.system_id is not None]
    return [
        *(
            each
            for each in default_matrix()
            if each.model in models and (not profiles or each.profile in profiles)
        ),
        *combined(others, profiles=profiles or tuple(PROFILES)),
    ]


def expecting(combinations: Sequence[Combination], expected: Sequence[str]) -> list[Combination]:
    """The combinations with other verdicts expected: each text of `expected` is `VERDICT`, for all,
    or `FAULT=VERDICT`, for those with that fault. Several for one combination: any is fine.

    :raise UsageError: when there is no such verdict, or no combination has the fault.
    """
    for_all: list[str] = []
    by_fault: dict[str, list[str]] = {}
    for text in expected:
        fault, _, name = text.rpartition("=")
        wanted = by_fault.setdefault(fault, []) if fault else for_all
        wanted.append(verdict_named(name).value)
    known = {label for each in combinations for label in each.faults}
    if missing := by_fault.keys() - known:
        raise UsageError(f"no machine is tried with the fault {min(missing)}")
    return [_expecting(each, for_all, by_fault) for each in combinations]


def _expecting(
    combination: Combination, for_all: list[str], by_fault: dict[str, list[str]]
) -> Combination:
    own = [name for label in combination.faults for name in by_fault.get(label, ())]
    verdicts = own or for_all
    if not verdicts:
        return combination
    return replace(combination, expected=tuple(verdicts), may_give_up=False)
