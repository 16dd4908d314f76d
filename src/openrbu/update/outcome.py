"""What an update has come to: staged and verified, and armed or not; and what the journal keeps of
that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openrbu.update.arm import ActivationToken, SmiActivation
from openrbu.update.driver import Mode
from openrbu.update.ending import PasswordUse
from openrbu.update.verify import Verified
from openrbu.update.ways import Way


@dataclass(frozen=True, slots=True)
class Outcome:
    """A staged and verified update of the BIOS to `version`. `mode`: what the BIOS finds; `way`:
    how it was staged. `tried`: one text for each attempt to stage it that failed before.
    `token_way`: the file through which the token is set. `is_armed`: the BIOS is armed for it.
    `changed`: something was staged or armed just now; False: all was done before, and was only
    verified again."""

    attempt_id: str
    mode: Mode
    verified: Verified
    tried: tuple[str, ...]
    staged_sha256: str
    token_way: str
    way: Way
    version: str
    is_armed: bool = True
    changed: bool = True

    @property
    def driver(self) -> str:
        """Who has staged it: the `kernel`'s driver, or openrbu's `own`."""
        return "own" if self.verified.staged_in else "kernel"

    @property
    def packet_size_bytes(self) -> int | None:
        """The size of the staged packets; None: it is in one piece."""
        return self.way.packet_size_bytes if self.mode == "packet" else None


def evidence(outcome: Outcome, password_use: str | None) -> dict[str, Any]:
    """The fields of the journal's lines `verified`, `staged` and `armed`: what was seen before
    arming, with the first 16 extents. `password_use`: see `password_use`."""
    extents = outcome.verified.places
    return {
        "driver": outcome.driver,
        "mode": outcome.mode,
        "way": outcome.way.name,
        "packet_size_bytes": outcome.packet_size_bytes,
        "tried": list(outcome.tried),
        "read_back": outcome.verified.read_back.value,
        "staged_sha256": outcome.staged_sha256,
        "seen_in_memory": outcome.verified.extents is not None,
        "extent_count": len(extents),
        "extents": [[extent.start, extent.end] for extent in extents[:16]],
        "taken_by": [finding.rules for finding in outcome.verified.findings or ()],
        "token_way": outcome.token_way,
        "admin_password": password_use,
    }


def password_use(token: ActivationToken, *, is_in_packets: bool, is_known_set: bool) -> str | None:
    """What became of the BIOS admin password, for the journal: a `PasswordUse`, or None where none
    is known to be set and none was sent. `is_in_packets`: packet 0 has one; `is_known_set`: SMBIOS
    says that one is set.

    :raise ObstacleError | UpdateFailedError | OSError: as `SmiActivation.unlock`.
    """
    if isinstance(token, SmiActivation) and token.unlock():
        return PasswordUse.VERIFIED.value
    if is_in_packets:
        return PasswordUse.NOT_VERIFIED.value
    return PasswordUse.LEFT_OUT.value if is_known_set else None
