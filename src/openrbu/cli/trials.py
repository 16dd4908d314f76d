"""The command `rbu try`: an update tool on many virtual machines, with a verdict on each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openrbu._vendor import typer
from openrbu.cli import show
from openrbu.cli.files import unwritable
from openrbu.cli.options import (
    complete_faults,
    complete_models,
    complete_profiles,
    complete_rules,
    complete_verdicts,
    size_of,
)
from openrbu.cli.show import Answer, Block, Cell, Facts, Table, bad, caution, good
from openrbu.errors import OpenRbuError, UsageError

if TYPE_CHECKING:
    from openrbu.trials.combinations import Combination
    from openrbu.trials.records import TrialResult


class TrialsFailedError(OpenRbuError):
    """Trials had another verdict than was expected."""

    kind = "trials_failed"


@dataclass(frozen=True)
class Choice:
    """The options that choose machines."""

    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Try this model; repeatable (default: those that the image is for).",
            autocompletion=complete_models,
        ),
    ] = None
    profile: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            metavar="PROFILE",
            help="Which kernel's dell_rbu; repeatable (default: documented).",
            autocompletion=complete_profiles,
        ),
    ] = None
    bios: Annotated[
        list[str] | None,
        typer.Option(
            "--bios",
            metavar="RULES",
            help="The rule set of the BIOS; repeatable (default: that of the model).",
            autocompletion=complete_rules,
        ),
    ] = None
    ram: Annotated[
        list[str] | None,
        typer.Option("--ram", metavar="SIZE", help="The machine's memory (512M, 5G); repeatable."),
    ] = None
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="FAULT",
            help="An accident, see rbu machine faults; several at once with commas, none for a "
            "machine without; repeatable.",
            autocompletion=complete_faults,
        ),
    ] = None
    matrix: Annotated[
        bool,
        typer.Option(
            "--matrix",
            help="The default matrix: all models and kernels, other BIOSes, and accidents. --model "
            "and --profile choose from it.",
        ),
    ] = False

    def combinations(self, image: Path | None) -> list[Combination]:
        """The machines that they choose for an image; None: one is made for each model.

        :raise UsageError: when there is nothing of that name, or two options don't go together.
        """
        from openrbu.trials import tool

        machines, profiles = tool.machines_to_try(image, self.model or ()), self.profile or ()
        if self.matrix:
            if self.bios or self.ram or self.fault:
                raise UsageError("--matrix has its own --bios, --ram and --fault: leave them out")
            return tool.matrix_of(machines, profiles)
        return tool.combined(
            machines,
            profiles=profiles,
            bios_rules=self.bios or (),
            ram_sizes=[size_of(text, "--ram") for text in self.ram or ()],
            faults=self.fault or (),
        )


Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[IMAGE] -- TOOL …",
        help="The image for the tool, then the tool and its own arguments.",
    ),
]
MakeImage = Annotated[
    bool,
    typer.Option(
        "--make-image", help="Make an image for each model; the words are the tool alone."
    ),
]
Expected = Annotated[
    list[str] | None,
    typer.Option(
        "--expect",
        metavar="[FAULT=]VERDICT",
        help="Which verdict is fine, for all or with that fault; repeatable (default: updated; the "
        "matrix has its own for accidents).",
        autocompletion=complete_verdicts,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict/--no-strict",
        help="Whether an update is luck that no driver held until the restart.",
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="When a tool is killed.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", metavar="N", help="How many at a time (default: one for each processor)."
    ),
]
Keep = Annotated[
    str | None,
    typer.Option("--keep", metavar="DIR", help="Keep machines and output in this directory."),
]
JUnit = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="Write the results as JUnit XML, too."),
]


def try_tool(
    words: Words,
    *,
    choice: Choice,
    make_image: MakeImage = False,
    expect: Expected = None,
    strict: Strict = True,
    timeout: Timeout = 60.0,
    jobs: Jobs = None,
    keep: Keep = None,
    junit: JUnit = None,
) -> Answer:
    """Try an update tool on virtual machines, and say what became of each machine's BIOS.

    The tool runs unmodified, as under rbu run: once on each combination of what is chosen, on a
    fresh machine that is removed afterwards. Then the machine restarts. The verdict is what is seen
    on the machine then, not what the tool says. The tool finds the image's path in OPENRBU_IMAGE,
    and in place of {image} in its arguments.

    The exit code is 0 when each verdict is as expected, and 1 when one is not.

    \b
    Examples:  rbu try --matrix --make-image -- ./my-update {image}
               rbu try A06.hdr --profile linux --fault none --fault password -- ./my-update A06.hdr
               rbu try other.hdr --model poweredge-2650 --expect refused --expect not_tried \\
                   -- ./my-update other.hdr
    """
    from openrbu.trials import tool

    if junit is not None and not junit.absolute().parent.is_dir():
        raise UsageError(f"--junit: there is no directory {junit.absolute().parent}")
    image, command = (None, words) if make_image else (Path(words[0]), words[1:])
    if not command:
        raise UsageError("which tool? rbu try IMAGE -- TOOL …, or rbu try --make-image -- TOOL …")
    combinations = tool.expecting(choice.combinations(image), expect or ())
    with _counting(len(combinations)) as count:
        results = tool.try_tool(
            command,
            image,
            combinations,
            jobs=jobs,
            timeout_s=timeout,
            strict=strict,
            keep=None if keep is None else Path(keep),
            done=lambda result: count(),
        )
    if junit is not None:
        _write_junit(junit, results)
    return _answer(results, _left_out(image, combinations) if choice.matrix else "")


@contextlib.contextmanager
def _counting(total: int) -> Iterator[Callable[[], None]]:
    """On a terminal a bar that what is yielded moves by one."""
    console = show.error_console()
    if console is None:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


def _write_junit(path: Path, results: list[TrialResult]) -> None:
    from openrbu.system.files import write_whole
    from openrbu.trials.junit import junit_document

    try:
        write_whole(path, junit_document(results))
    except OSError as error:
        raise unwritable(path, error) from None


def _left_out(image: Path | None, combinations: list[Combination]) -> str:
    """A line for a matrix that an image makes smaller."""
    from openrbu.machine.models import MODELS

    models = {each.model for each in combinations}
    if image is None or len(models) == len(MODELS):
        return ""
    return (
        f"{image} is for {', '.join(sorted(models))} of {len(MODELS)} models; "
        "--make-image tries all"
    )


def _answer(results: list[TrialResult], note: str) -> Answer:
    failed = [each for each in results if not each.is_fine]
    document = {
        "trials": [_document(each) for each in results],
        "passed": len(results) - len(failed),
        "failed": len(failed),
    }
    rows = [_row(each) for each in results]
    blocks: list[Block] = [Table("Trials", ("machine", "verdict", "exit", "because"), rows)]
    blocks += _failure_blocks(failed)
    if note:
        blocks.append(caution(f"note: {note}"))
    counted = f"{len(results)} trial{'s' * (len(results) != 1)}"
    if not failed:
        return Answer(document, [*blocks, good(f"{counted}, each as expected")])
    error = TrialsFailedError(f"{len(failed)} of {counted} not as expected")
    return Answer(document, blocks, error)


def _row(result: TrialResult) -> tuple[Cell, ...]:
    mark = good if result.is_fine else bad
    status = str(result.exit_status)
    return (result.combination.name, mark(result.verdict), status, result.why)


def _failure_blocks(failed: list[TrialResult]) -> list[Block]:
    """Why trials failed: one block for all machines on which that is the same."""
    names: dict[str, list[str]] = {}
    rows: dict[str, list[tuple[str, Cell]]] = {}
    for each in failed:
        own = _failure_rows(each)
        names.setdefault(repr(own), []).append(each.combination.name)
        rows[repr(own)] = own
    blocks: list[Block] = []
    for key, machines in names.items():
        if len(machines) == 1:
            blocks.append(Facts(machines[0], rows[key]))
        else:
            heads = ("machines", *("",) * len(machines))
            listed: list[tuple[str, Cell]] = list(zip(heads, machines, strict=False))
            blocks.append(Facts(f"{len(machines)} machines", [*listed, *rows[key]]))
    return blocks


def _failure_rows(result: TrialResult) -> list[tuple[str, Cell]]:
    from openrbu.trials.junit import expected_words, status_words

    rows: list[tuple[str, Cell]] = [
        ("verdict", bad(result.verdict)),
        ("because", result.why),
        ("expected", expected_words(result.combination)),
        ("the tool", f"ended with {status_words(result.exit_status)}"),
    ]
    heads = ("it said", *("",) * len(result.tool_said))
    rows += zip(heads, result.tool_said, strict=False)
    if result.kernel_said:
        rows.append(("kernel", result.kernel_said))
    return rows


def _document(result: TrialResult) -> dict[str, Any]:
    combination, code = result.combination, result.completion_code
    return {
        "name": combination.name,
        "model": combination.model,
        "profile": combination.profile,
        "bios_rules": combination.bios_rules,
        "faults": list(combination.faults),
        "ram_bytes": combination.ram_bytes,
        "verdict": result.verdict,
        "passed": result.is_fine,
        "why": result.why,
        "expected": list(combination.expected),
        "may_give_up": combination.may_give_up,
        "exit_status": result.exit_status,
        "version_before": result.version_before,
        "version_after": result.version_after,
        "completion_code": None if code is None else f"{code:#06x}",
        "found_in_held_memory": result.found_in_held_memory,
        "restarted_itself": result.restarted_itself,
        "tool_said": list(result.tool_said),
        "kernel_said": result.kernel_said or None,
        "seconds": result.seconds,
    }
