"""How the Xen balloon driver behaves in which kernel, as named behaviours.

Theory of operation. A step of the driver ends in one of four ways, and the profile says what
follows from each. The driver never asks *which kernel* it runs in.

=============================  ==============  ==================  ============
after a step that …            `hard-limit`    `linux-2.6.18-xen`  `linux`
=============================  ==============  ==================  ============
moved all that was asked       go on           go on               go on
was granted some of the pages  give up         wait                go on
was granted no page            give up         wait                back off
found the guest short          wait            wait                back off
-----------------------------  --------------  ------------------  ------------
the same target again          tries at once   tries at once       is ignored
=============================  ==============  ==================  ============

- *go on*: the next batch at once, while there is something to move.
- *wait*: the next batch one second later, for as long as it takes.
- *back off*: the next batch after a delay that doubles each time, unless the limit of tries is
  reached.
- *give up*: the pages that were granted are given back, the size that had been reached is the *hard
  limit*, and nothing is tried until a target is set, even the same one.

Where the same target is ignored, neither a driver that waits nor one that has given up tries again.
Another target is tried even where the guest has too few frames for both of them.

Sources: docs/reference/balloon.md, X3 and X4. `linux-2.6.18-xen` does what the document says,
`hard-limit` what it says was before; `linux` was compared with Debian's 6.1.192 under Xen 4.17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from openrbu.errors import UsageError


class Reaction(Enum):
    """What follows a step."""

    GO_ON = auto()
    WAIT = auto()
    BACK_OFF = auto()
    GIVE_UP = auto()


@dataclass(frozen=True, slots=True)
class BalloonProfile:
    """One way that the driver is known to behave.

    - `on_partial_grant`, `on_no_grant`, `on_short_guest`: see the table above.
    - `same_target_is_tried`: the same target, set again, has the driver try at once.
    - `has_settings`: the back-off and the scrubbing are shown and set in files.
    - `has_proc_file`: there is `/proc/xen/balloon`.
    - `max_retry_count`: what it is at the start; 0: no limit.
    """

    name: str
    on_partial_grant: Reaction = Reaction.WAIT
    on_no_grant: Reaction = Reaction.WAIT
    on_short_guest: Reaction = Reaction.WAIT
    same_target_is_tried: bool = True
    has_settings: bool = False
    has_proc_file: bool = True
    max_retry_count: int = 0

    @property
    def has_hard_limit(self) -> bool:
        """Whether growing can end in a hard limit, which is shown."""
        return Reaction.GIVE_UP in (self.on_partial_grant, self.on_no_grant)


_DOCUMENTED = BalloonProfile("linux-2.6.18-xen")
_BEFORE = BalloonProfile(
    "hard-limit", on_partial_grant=Reaction.GIVE_UP, on_no_grant=Reaction.GIVE_UP
)
_CURRENT = BalloonProfile(
    "linux",
    on_partial_grant=Reaction.GO_ON,
    on_no_grant=Reaction.BACK_OFF,
    on_short_guest=Reaction.BACK_OFF,
    same_target_is_tried=False,
    has_settings=True,
    has_proc_file=False,
    max_retry_count=4,
)

DEFAULT_BALLOON_PROFILE = _CURRENT.name
BALLOON_PROFILES: Mapping[str, BalloonProfile] = MappingProxyType(
    {each.name: each for each in (_CURRENT, _DOCUMENTED, _BEFORE)}
)
"""All profiles by name."""


def balloon_profile(name: str) -> BalloonProfile:
    """The profile of that name.

    :raise UsageError: when there is none.
    """
    try:
        return BALLOON_PROFILES[name]
    except KeyError:
        raise UsageError(
            f"there is no balloon profile {name!r}; there are: {', '.join(BALLOON_PROFILES)}"
        ) from None
