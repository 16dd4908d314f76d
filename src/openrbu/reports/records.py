"""The parts of rbu's documents that a report is made of, as records.

The whole documents are described in `schemas/`. A document of a newer openrbu may have more keys.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Said:
    """Which command says it, of which machine (None: the computer), when (RFC 3339)."""

    command: str
    machine: str | None
    computer: str
    at: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed, for people."""

    message: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine is, by its SMBIOS tables."""

    vendor: str
    product: str
    service_tag: str
    system_id: str | None
    system_name: str | None


@dataclass(frozen=True, slots=True)
class Bios:
    """The BIOS that runs."""

    version: str


@dataclass(frozen=True, slots=True)
class Completion:
    """The BIOS's record of its last update: its code in hex."""

    code: str


@dataclass(frozen=True, slots=True)
class Event:
    """An event of an update, and when it was."""

    event: str
    at: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One update of a journal."""

    id: str
    outcome: str
    from_version: str | None
    to_version: str | None
    version_now: str | None
    completion_code: str | None
    ending: str | None
    likely_cause: str | None
    why: str | None
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """What `rbu status` says."""

    machine: Machine
    bios: Bios
    is_armed: bool | None
    state: str
    next_restart: str
    completion: Completion | None
    update_under_way: str | None
    last_update: Attempt | None
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a policy says of a machine; `target` None: nothing of its system. `pinned`: why it
    leaves the machine alone; None: it does not."""

    target: str | None
    pinned: str | None = None


@dataclass(frozen=True, slots=True)
class Waits:
    """An update that was staged or armed before a plan was made; `version` None: by another
    program."""

    is_armed: bool
    version: str | None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What a plan says is in the way, by its name."""

    kind: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What `rbu plan` says."""

    machine: Machine
    current_version: str
    new_version: str
    is_needed: bool
    waits: Waits | None = None
    obstacles: tuple[Obstacle, ...] = ()
    policy: Policy | None = None
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class NoStep:
    """What `rbu plan` and `rbu update` say where a policy has no step, so that no image was chosen.
    `error` None: the machine runs its target."""

    machine: Machine
    current_version: str
    policy: Policy
    waits: Waits | None = None
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """What a virtual machine's BIOS did at a start, as `rbu machine reboot` says it."""

    attempted: bool
    version_after: str | None = None
    completion_code: str | None = None
    reason: str | None = None
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """What `rbu update` says."""

    changed: bool
    plan: Plan
    armed: bool = False
    result: Post | None = None
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """What `rbu arm` says; `version` is the image's."""

    machine: Machine
    from_version: str
    version: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """What `rbu cancel` says."""

    changed: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class History:
    """What `rbu history` says."""

    updates: tuple[Attempt, ...]
