"""The command `balloon watch`: run and show the guests of a Xen host until they have settled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openrbu._vendor import typer
from openrbu.cli.balloon import HostName, clock_of
from openrbu.cli.balloon_screen import screen_for
from openrbu.cli.balloon_view import host_blocks
from openrbu.cli.show import Answer, Block, caution, good
from openrbu.errors import MachineError, OutputError, UsageError

if TYPE_CHECKING:
    from openrbu.balloon.status import GuestStatus
    from openrbu.balloon.watch import WatchedHost

Seconds = Annotated[
    float | None,
    typer.Option(
        "--for", metavar="SECONDS", help="Watch for that long, even when all have settled."
    ),
]
ChartPath = Annotated[
    Path | None,
    typer.Option("--chart", metavar="FILE", help="Draw what happened (.svg or .png)."),
]


def watch(
    context: typer.Context,
    host: HostName,
    *,
    seconds: Seconds = None,
    chart: ChartPath = None,
    as_json: bool,
) -> Answer:
    """Watch the guests of a Xen host move towards their targets.

    All guests that no other process has are run here meanwhile, and targets that other commands set
    take effect. It ends when each guest has reached its target or has given up, or by Ctrl-C, which
    is not a failure. On a terminal there is a live picture, in a pipe a line for each change, and
    with --json one document with all events.

    \b
    Examples:  rbu balloon watch xen1
               rbu balloon watch xen1 --for 60 --chart xen1.svg
    """
    from openrbu.balloon.charts import check_path
    from openrbu.balloon.watch import open_watched_host

    if seconds is not None and not 0 < seconds < math.inf:
        raise UsageError(f"--for: {seconds:g} is not a time in seconds")
    if chart is not None:
        check_path(chart)
        _check_place(chart)
    with open_watched_host(host, clock=clock_of(context)) as watched:
        try:
            with screen_for(watched, as_json=as_json) as screen:
                watched.run(seconds, screen.update)
        except MachineError as error:
            # of a host that is gone only what happened before is known
            answer = Answer(watched.events_document(), (), watched.problem() or error)
        else:
            answer = Answer(watched.document(), _blocks(watched))
        return answer if chart is None else _with_chart(answer, watched, chart)


def _check_place(chart: Path) -> None:
    """:raise OutputError: when there is no directory for the chart, or this user may not write."""
    from openrbu.system.denied import why_not_writable

    directory = chart.absolute().parent
    is_there = directory.is_dir()
    why = why_not_writable(directory) if is_there else f"there is no directory {directory}"
    if why:
        raise OutputError(f"{chart} can't be written: {why}")


def _with_chart(answer: Answer, watched: WatchedHost, chart: Path) -> Answer:
    """Draw the chart. Returns the answer with the chart's name, or with why it was not drawn."""
    from openrbu.balloon.charts import draw

    try:
        draw(chart, [watched.panel()])
    except OutputError as error:
        return Answer(answer.document, answer.blocks, answer.error or error)
    document = {**answer.document, "chart": str(chart)}
    return Answer(document, [*answer.blocks, good(f"drawn: {chart}")], answer.error)


def _blocks(watched: WatchedHost) -> list[Block]:
    """The host after it was watched, and what to do next."""
    status = watched.status
    blocks = host_blocks(status)
    after = f"after {watched.elapsed_s:.1f} s"
    if status.has_settled is False:
        return [
            *blocks,
            caution(f"{after} not all have settled: continue with rbu balloon watch {status.host}"),
        ]
    blocks += [_retry_hint(status.host, each) for each in status.guests if each.has_given_up]
    others = [each for each in status.guests if each.has_settled is None]
    for each in others:
        if each.problem is not None:  # it is told above, and stays as it is
            continue
        owner = f"process {each.owner}" if each.owner else "another process"
        blocks.append(caution(f"{owner} has {each.info.name}: it may still move"))
    if len(others) < len(status.guests):
        blocks.append(f"{'the others' if others else 'all'} have settled {after}")
    return blocks


def _retry_hint(host: str, guest: GuestStatus) -> Block:
    """The command that makes a guest that gave up try again."""
    from openrbu.drivers.xen_balloon_profiles import balloon_profile

    name = guest.info.name
    size = "SIZE" if balloon_profile(guest.profile).same_target_is_tried else "ANOTHER_SIZE"
    return caution(f"{name} gave up; to make it try again: rbu balloon target {host} {name} {size}")
