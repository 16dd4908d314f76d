"""Update tools on many virtual machines.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.api.images import StrPath
    from openrbu.trials.combinations import Combination
    from openrbu.trials.records import TrialResult


def try_tool(
    command: Sequence[str],
    image: StrPath | None = None,
    *,
    machines: Sequence[Combination] | None = None,
    jobs: int | None = None,
    timeout_s: float = 60.0,
    strict: bool = True,
    keep: StrPath | None = None,
) -> list[TrialResult]:
    """Run an update tool on fresh virtual machines, restart each, and return what became of its
    BIOS, in the sequence of `machines`.

    The tool finds the path of the image in place of `{image}` in `command`, and in the environment
    variable `OPENRBU_IMAGE`. `image` None: one is made for each model, newer than what the machine
    has. `machines` None: the models that the image is for. `jobs`: how many run at a time; None: as
    many as there are processors. `timeout_s`: when a tool is killed. `strict`: an update that no
    driver held until the restart is not an update, but luck. `keep`: an empty directory for the
    machines and for what the tools print, which stay; None: nothing is left.

    Other than `run`, it may be called in any thread, and with other threads.

    :raise UsageError: when the command is empty or there is no such program, when a number is not
        more than 0, when a machine can't be, or when `image` can't be read.
    :raise DamagedInputError: when `image` has no header of an image.
    :raise ObstacleError: when this computer does not allow it; `errors.OpenRbuError` of that `kind`
        where the trial's own process finds that out.
    """
    from openrbu.trials import tool

    path = None if image is None else Path(image)
    return tool.try_tool(
        command,
        path,
        tool.machines_to_try(path) if machines is None else machines,
        jobs=jobs,
        timeout_s=timeout_s,
        strict=strict,
        keep=None if keep is None else Path(keep),
    )
