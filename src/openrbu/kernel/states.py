"""The state of a running kernel, as it is saved on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from openrbu.drivers.extents import Block, blocks_in
from openrbu.drivers.states import (
    DellRbuState,
    FirmwareImageState,
    FirmwareState,
    ModuleState,
    XenBalloonState,
)
from openrbu.errors import DamagedInputError
from openrbu.formats.lockdown import LockdownLevel
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.buddy_state import AllocatorState
from openrbu.typed_json import Natural
from openrbu.units import PAGE_SHIFT, PhysAddr

RebootMode: TypeAlias = Literal["warm", "cold", "hard", "soft", "gpio"]
RebootType: TypeAlias = Literal["acpi", "kbd", "efi", "bios", "pci", "triple"]


@dataclass(frozen=True, slots=True)
class RestartState:
    """How a kernel will restart: what `/sys/kernel/reboot` shows. `by_kexec`: another kernel
    started it, without the BIOS. `kexec_loaded`: another one is loaded, which a plain restart
    starts."""

    mode: RebootMode
    type: RebootType
    force: bool
    by_kexec: bool
    kexec_loaded: bool


@dataclass(frozen=True, slots=True)
class KernelBalloonState:
    """The balloon of a guest of Xen. `serial`: the number of the toolstack's target that the driver
    has."""

    serial: Natural
    driver: XenBalloonState


@dataclass(frozen=True, slots=True)
class KernelState:
    """A kernel. `modules`: in the sequence in which they were loaded. `files`: its plain files, by
    path. `balloon`: None where Linux does not run on Xen."""

    allocator: AllocatorState
    restart: RestartState
    lockdown: LockdownLevel
    is_dead: bool
    firmware: FirmwareState
    modules: tuple[ModuleState, ...]
    files: dict[str, FirmwareImageState]
    balloon: KernelBalloonState | None


def check_blocks(allocator: BuddyAllocator, state: KernelState) -> None:
    """Check that all blocks of the drivers are allocated, and that no two drivers have the same.

    :raise DamagedInputError: when it is not so.
    """
    seen: set[int] = set()
    for block in _blocks_of(state):
        if not allocator.has_block(block.address, block.order) or block.address in seen:
            raise DamagedInputError(
                f"a driver has a block of order {block.order} at {block.address:#x} that is not "
                "allocated, or that another one has"
            )
        if block.size_bytes > block.capacity_bytes:
            raise DamagedInputError(
                f"a driver has more in the block at {block.address:#x} than there is room",
                expected=block.capacity_bytes,
                actual=block.size_bytes,
            )
        seen.add(block.address)


def unowned_blocks(state: KernelState, order: int) -> Iterator[PhysAddr]:
    """The addresses of the allocated blocks of this order that no driver has, ascending."""
    owned = {block.address for block in _blocks_of(state)}
    for row_order, first, count, distance in state.allocator.allocated:
        if row_order == order:
            places = (PhysAddr(first + n * distance << PAGE_SHIFT) for n in range(count))
            yield from (address for address in places if address not in owned)


def _blocks_of(state: KernelState) -> Iterator[Block]:
    for request in state.firmware.requests.values():
        yield from blocks_in(request.image.blocks)
    for file in state.files.values():
        yield from blocks_in(file.blocks)
    for module in state.modules:
        if isinstance(module, DellRbuState):
            yield from blocks_in(module.staged)
        elif module.buffer is not None:
            yield from blocks_in([(*module.buffer, 1)])
