"""Plan: what an update would do here, and what prevents it. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from openrbu.errors import (
    DamagedInputError,
    ExitCode,
    NotForThisMachineError,
    ObstacleError,
    OpenRbuError,
    UsageError,
)
from openrbu.formats import packet
from openrbu.formats.buddyinfo import largest_low_block_bytes
from openrbu.formats.hdr import Image
from openrbu.hosts.base import Host
from openrbu.units import PAGE_SIZE, human_size, order_for
from openrbu.update.arming_checks import lacks_password
from openrbu.update.checks import (
    arming,
    driver,
    history,
    identity,
    platform,
    policy,
    rest,
    restart,
    search,
    staging,
)
from openrbu.update.checks import image as image_question
from openrbu.update.checks.check import Check, Question, Verdict, checks_of
from openrbu.update.checks.situation import Situation
from openrbu.update.driver import Mode
from openrbu.update.exclusion import BusyError
from openrbu.update.options import Options
from openrbu.update.possible_bioses import PossibleBioses, possible_bioses
from openrbu.update.target import Target, read_target
from openrbu.update.ways import Way, first_way, staged_bytes

_REFUSALS: Mapping[ExitCode, type[OpenRbuError]] = {
    ExitCode.DAMAGED_INPUT: DamagedInputError,
    ExitCode.NOT_FOR_THIS_MACHINE: NotForThisMachineError,
    ExitCode.USAGE: UsageError,
    ExitCode.OBSTACLE: ObstacleError,
}
"""The errors that obstacles become, the worst first: damage, then the wrong machine, which no
option and no waiting changes."""

_OWN_REFUSALS: Mapping[str, type[OpenRbuError]] = {"other_update": BusyError}
"""Obstacles that become an error of their own, by their name."""

_Checks = tuple[tuple[Question, Callable[[Situation], Iterable[Check]]], ...]

_CHECKS = (
    (Question.IMAGE, identity.checks),
    (Question.IMAGE, image_question.checks),
    (Question.STAGING, staging.checks),
    (Question.SEARCH, search.checks),
    (Question.ARMING, arming.checks),
    (Question.RESTART, restart.checks),
    (Question.REST, policy.checks),
    (Question.REST, platform.checks),
    (Question.REST, rest.checks),
    (Question.REST, history.checks),
)
"""The checks of a plan, in the order of `Question`."""

_LATE_CHECKS = (
    (Question.RESTART, restart.reset_checks),
    (Question.REST, platform.power_checks),
    (Question.REST, policy.checks),
)
"""What may come in the way while an image is staged, and until it is armed."""

_NEW_CHECKS = ((Question.STAGING, driver.checks), *_LATE_CHECKS)
"""What may come in the way after a plan was made, and is not looked at by the update itself."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an update would do.

    `is_needed` is False when the machine runs this version already and `Options.reinstall` is not
    set. `packet_count` is 0 in mono mode. `why_mode` is text for people. `checks` is all that was
    looked at, in the order of `Question`.
    `possible_bioses` are the BIOSes that could be the machine's; all have to take what is staged.
    `made_for` is the machine's name (`Host.name`). `way` is the way of staging that is tried first.
    """

    image: Image
    target: Target
    options: Options
    mode: Mode
    why_mode: str
    packet_count: int
    staged_size_bytes: int
    is_needed: bool
    checks: tuple[Check, ...]
    possible_bioses: PossibleBioses
    made_for: str
    way: Way

    @property
    def obstacles(self) -> tuple[Check, ...]:
        """The checks that are in the way."""
        return tuple(each for each in self.checks if each.is_in_the_way)

    @property
    def worst(self) -> Check | None:
        """The worst of the obstacles, which `refusal` is about; None: there is none."""
        order = list(_REFUSALS)
        return min(self.obstacles, key=lambda each: order.index(each.exit_code), default=None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the update takes care of, and what can't be known: a line each, for people."""
        told = (Verdict.HANDLED, Verdict.UNKNOWN)
        return tuple(each.message for each in self.checks if each.verdict in told)

    @property
    def block_size_bytes(self) -> int:
        """The size of the blocks of contiguous memory that staging needs."""
        piece = self.staged_size_bytes
        if self.mode == "packet" and not self.way.in_one_block:
            piece = self.options.packet_size_bytes
        return PAGE_SIZE << order_for(piece)

    @property
    def refusal(self) -> OpenRbuError | None:
        """The error with which an update would end before it begins: the worst obstacle. None: it
        can begin, or there is nothing to do.

        Most obstacles don't matter on a machine that runs the version already; but an image that is
        damaged, or for another machine, is always refused.
        """
        worst = self.worst
        if worst is None:
            return None
        if worst.exit_code is ExitCode.OBSTACLE and not self.is_needed:
            return None
        error = _OWN_REFUSALS.get(worst.kind, _REFUSALS[worst.exit_code])
        return error(worst.message)

    @property
    def nothing_to_do(self) -> bool:
        """Whether the machine runs the version already, so that an update leaves it alone."""
        return not self.is_needed and self.refusal is None

    def situation(self, host: Host) -> Situation:
        """The machine as it is now, with what was planned.

        :raise ObstacleError: as `Situation.of`.
        """
        return Situation.of(
            host,
            self.image,
            self.target,
            self.options,
            bioses=self.possible_bioses,
            mode=self.mode,
        )


def make_plan(host: Host, image: Image, options: Options) -> Plan:
    """Check the machine and the image; change nothing.

    :raise UsageError: when the packet size is not valid.
    :raise ObstacleError: when the machine's SMBIOS tables can't be read.
    :raise DamagedInputError: when they are damaged.
    """
    packet.check_packet_size(options.packet_size_bytes)
    target = read_target(host)
    bioses = possible_bioses(image, target, options)
    seen = Situation.of(host, image, target, options, bioses=bioses)
    mode, why_mode = _choose_mode(seen)
    seen = replace(seen, mode=mode)
    packet_count, staged = 0, image.size_bytes
    if mode == "packet":
        staged = staged_bytes(seen, options.packet_size_bytes)  # 0, too many: an obstacle
        packet_count = staged // options.packet_size_bytes
    return Plan(
        image,
        target,
        options,
        mode,
        why_mode,
        packet_count,
        staged,
        is_needed=options.reinstall or not image_question.is_same_version(image, target),
        checks=tuple(
            check for question, look in _CHECKS for check in checks_of(question, look, seen)
        ),
        possible_bioses=bioses,
        made_for=host.name,
        way=first_way(seen),
    )


class Situated(Protocol):
    """What has a situation: a plan, or what is staged."""

    def situation(self, host: Host) -> Situation:
        """The machine as it is now."""


def refuse_new(host: Host, meant: Situated, *, is_staged: bool = False) -> None:
    """Look again at what may have come in the way since the plan was made: the driver, the restart,
    the power and the policy; all but the driver where the image `is_staged` already.

    :raise ObstacleError: when something has.
    """
    _refuse(meant.situation(host), _LATE_CHECKS if is_staged else _NEW_CHECKS)


def refuse_by_policy(host: Host, meant: Situated) -> None:
    """Refuse what the operator's policy does not allow on this machine now.

    :raise ObstacleError: when it does not.
    """
    _refuse(meant.situation(host), ((Question.REST, policy.checks),))


def _refuse(seen: Situation, checks: _Checks) -> None:
    """:raise ObstacleError: when one of these checks is in the way."""
    for question, look in checks:
        for check in checks_of(question, look, seen):
            if check.is_in_the_way:
                raise ObstacleError(check.message)


def _choose_mode(seen: Situation) -> tuple[Mode, str]:
    """The mode, and why."""
    image, target, options = seen.image, seen.target, seen.options
    if options.mode is not None:
        return options.mode, "as asked for"
    if not seen.takes_packets:
        return "mono", "this machine's BIOS takes monolithic images only"
    if image.size_bytes > seen.largest_block_bytes:
        largest = human_size(seen.largest_block_bytes)
        return "packet", f"no block of memory is larger than {largest}"
    if seen.on_xen:
        return "packet", "on Xen only single pages are sure to be contiguous in machine memory"
    fits_low = largest_low_block_bytes(seen.zones) >= image.size_bytes
    # only packets carry a password
    has_password = options.password is not None or lacks_password(target, options)
    if seen.may_be_too_high and fits_low and not has_password:
        return "mono", "packets may be placed above 4 GiB, where not every BIOS searches"
    return "packet", "packets fit into any free memory"
