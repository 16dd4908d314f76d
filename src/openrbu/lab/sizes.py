"""Which machines QEMU can be here: the model, the sizes, and the words for its kernel."""

from __future__ import annotations

from openrbu.errors import ObstacleError, UsageError
from openrbu.hosts.linux import LinuxHost
from openrbu.linux.memory import read_available_bytes
from openrbu.machine.models import TokenKind, model
from openrbu.memory.physical import Region
from openrbu.units import GIB, MIB, exact_size, human_size, human_sizes

DEFAULT_RAM_BYTES = 512 * MIB
MIN_RAM_BYTES = 256 * MIB
MAX_RAM_BYTES = 16 * GIB

MAX_CPUS = 16

LOW_RAM_BYTES = 3 * GIB
"""How much of RAM is below 4 GiB at most, as in `memory.physical.pc_regions`. The rest begins at
4 GiB. QEMU's RAM file has no gap between the two."""

GAP_BYTES = 4 * GIB - LOW_RAM_BYTES

_EMULATOR_BYTES = 256 * MIB

MAX_KERNEL_WORDS = 1024
"""In characters. The kernel's whole command line may have 2047 (COMMAND_LINE_SIZE on x86)."""

_NOT_FOR_THE_KERNEL = ("--", "init", "rdinit", "root", "rootfstype", "rootflags")
"""Words that decide how the lab's own guest is started."""


def check_machine(name: str, ram_bytes: int, cpus: int = 1, kernel_words: str = "") -> None:
    """Refuse a machine that QEMU can't be. `name` is the model's.

    :raise ObstacleError: for a model whose tokens are reached through SMIs: QEMU does not have
        them.
    :raise UsageError: when there is no such model, or the size of RAM, the number of processors
        or the words for the kernel's command line are not possible.
    """
    if model(name).tokens is not TokenKind.INDEXED_IO:
        raise ObstacleError(
            f"the lab can't be a {name}: its tokens are reached by SMI, for which QEMU has no "
            "handler; use a virtual machine instead: rbu machine new --help"
        )
    if not MIN_RAM_BYTES <= ram_bytes <= MAX_RAM_BYTES or ram_bytes % MIB:
        raise UsageError(
            f"a lab machine has {exact_size(MIN_RAM_BYTES)} to {exact_size(MAX_RAM_BYTES)} of RAM "
            f"in whole MiB, not {exact_size(ram_bytes)}"
        )
    if not 1 <= cpus <= MAX_CPUS:
        raise UsageError(f"a lab machine has 1 to {MAX_CPUS} processors, not {cpus}")
    _check_kernel_words(kernel_words)


def _check_kernel_words(words: str) -> None:
    """:raise UsageError: as `check_machine`."""
    if not (words.isascii() and (words.isprintable() or not words)):
        raise UsageError(f"words for the kernel are printable ASCII, not {words!r}")
    if len(words) > MAX_KERNEL_WORDS:
        raise UsageError(
            f"words for the kernel have up to {MAX_KERNEL_WORDS} characters, not {len(words)}"
        )
    if words.count('"') % 2:
        raise UsageError(f"a quote is open in the words for the kernel: {words}")
    for word in words.split():
        if word.partition("=")[0] in _NOT_FOR_THE_KERNEL:
            raise UsageError(f"the lab itself sets how its guest starts: {word} can't be given")


def check_memory(ram_bytes: int) -> None:
    """Refuse a machine with more RAM than this computer has available.

    :raise ObstacleError: when it has less than `needed_memory_bytes`.
    """
    available = available_memory_bytes()
    needed = needed_memory_bytes(ram_bytes)
    if available is not None and available < needed:
        least, there = human_sizes(needed, available)
        raise ObstacleError(
            f"a lab machine with {human_size(ram_bytes)} of RAM needs {least} of this "
            f"computer's memory, and {there} are available: give it less, or end "
            "other programs"
        )


def available_memory_bytes() -> int | None:
    """This computer's memory that programs can still have; None where the kernel does not say."""
    return read_available_bytes(LinuxHost())


def needed_memory_bytes(ram_bytes: int) -> int:
    """This computer's memory for a machine and its emulator."""
    return ram_bytes + _EMULATOR_BYTES


def offsets_in_qemu(regions: tuple[Region, ...]) -> list[int]:
    """Where in QEMU's RAM file each region of physical memory begins."""
    return [each.start - (GAP_BYTES if each.start >= 4 * GIB else 0) for each in regions]
