"""Runs sequences of operations on two sides, a kernel and a profile, and tells where they differ.

A `Side` makes system calls and gives what each came to. `hunt` lets hypothesis make sequences; one
that differs is shrunk and reported as a shell script. A lost guest is no difference: the sequence
it was lost in is said, and nothing is shrunk.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from lab.script import Difference, as_script
from lab.sequences import (
    DATA,
    EVERY_TEXT,
    INVENTORY,
    LOADING,
    MODULE,
    PACKET_SIZE,
    STAGED,
    TIMEOUT,
    Sequence,
    sequences,
)
from openrbu.drivers.dell_rbu import DellRbu
from openrbu.drivers.dell_rbu_profiles import Profile, profile
from openrbu.drivers.inodes import ROOT, Change, change
from openrbu.errors import KernelError, UsageError
from openrbu.kernel.kernel import Kernel
from openrbu.lab.call_messages import split
from openrbu.lab.calls import (
    Call,
    Exists,
    LinkStatus,
    ListDir,
    Load,
    Read,
    ReadLink,
    Result,
    Send,
    SetMode,
    SpliceIn,
    Unload,
    Value,
    WaitForDriver,
    Write,
)
from openrbu.lab.guest import GuestLostError
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import KIB, MIB
from rigs.lab import SharedMachine

Side = Callable[[list[Call]], list[Result]]

RESET: list[Call] = [
    SetMode(LOADING, 0o644),
    Write(LOADING, b"-1"),
    WaitForDriver(),
    Unload(MODULE),
    Write(TIMEOUT, b"60"),
    Load(MODULE),
]
"""What comes before each sequence: the module is loaded anew, and nothing is staged."""

_BUILD = Path(__file__).parents[2] / "build" / "lab"
_RAM_BYTES = 128 * MIB
_PIPE_BYTES = 64 * KIB
_SEQUENCES_A_ROUND = 50


class ProfileSide:
    """The virtual machine's kernel with a profile, made anew for each sequence.

    `moments` counts the states that were met, so that one can see how deep the sequences lead.
    """

    def __init__(self, directory: Path, profile: Profile) -> None:
        self._directory, self._profile = directory, profile
        self.moments: Counter[str] = Counter()

    def __call__(self, calls: list[Call]) -> list[Result]:
        memory = RamFile.create(self._directory / "ram", pc_regions(_RAM_BYTES))
        with contextlib.closing(memory):
            kernel = Kernel(memory, profile=self._profile, boot_id="", dmi=(b"", b""))
            return [self._make(kernel, call) for call in calls]

    def _make(self, kernel: Kernel, call: Call) -> Result:
        before = _Seen.of(kernel)
        result = made(kernel, call)
        moment = _moment(before, call, result, _Seen.of(kernel))
        if moment:
            self.moments[moment] += 1
        return result


def made(kernel: Kernel, call: Call) -> Result:
    """Make a call in the virtual machine's kernel."""
    try:
        return Result(_value(kernel, call))
    except KernelError as error:
        is_in_use = isinstance(call, Unload) and error.errno == errno.EBUSY
        # rmmod says EBUSY, and so does the profile; the system call itself says EAGAIN.
        return Result(errno=errno.EAGAIN if is_in_use else error.errno)
    except UsageError:  # a parameter that is refused before any kernel is asked
        return Result(errno=errno.EINVAL)


def _value(kernel: Kernel, call: Call) -> Value:  # noqa: C901, PLR0911 - one for each kind of call
    match call:
        case Read():
            return kernel.read(call.path, call.offset, call.size_bytes)
        case Write():
            return kernel.write(call.path, call.data, call.offset)
        case Send():
            # a pipe takes no more, and a mount lets programs read instead
            return kernel.read(call.path, call.offset, min(call.size_bytes, _PIPE_BYTES))
        case SpliceIn():
            return _spliced(kernel, call)
        case SetMode():
            tree, inner = kernel.tree(call.path)
            change(tree.lookup(inner), call.path, Change(mode=call.mode), ROOT, now=0.0)
            return None
        case Exists():
            return kernel.exists(call.path)
        case ListDir():
            return tuple(kernel.list(call.path))
        case WaitForDriver():
            return True
        case Load():
            kernel.load_module(call.module, call.parameters)
            return None
        case Unload():
            kernel.unload_module(call.module)
            return None
    tree, inner = kernel.tree(call.path)
    if isinstance(call, ReadLink):
        return tree.readlink(inner)
    seen = tree.stat(inner, follow=False)
    return LinkStatus(seen.mode, seen.size_bytes)


def _spliced(kernel: Kernel, call: SpliceIn) -> int:
    """As the kernel does it: writes, until one is refused or all is taken."""
    done = 0
    file = kernel.open(call.path, writing=True)
    try:
        while done < len(call.data):
            done += file.write(call.offset + done, call.data[done:])
    except KernelError:
        if not done:
            raise
    return done


@dataclass(frozen=True)
class _Seen:
    """Of a driver, what says how deep in its states it is."""

    image_type: str = ""
    staged: int = 0
    has_entry: bool = False

    @classmethod
    def of(cls, kernel: Kernel) -> _Seen:
        driver = kernel.modules.get(MODULE)
        if not isinstance(driver, DellRbu):
            return cls()
        has_entry = kernel.firmware.is_requested(MODULE)
        return cls(driver.image_type, len(driver.staged_blocks), has_entry)


MOMENTS = (
    "a monolithic image is staged",
    "packets are staged",
    "a monolithic image is read back",
    "packets are read back",
    "packets are dropped by a packet size",
    "a load ends with nothing staged",
    "an entry is aborted",
    "what is staged is dropped by image_type",
    "an unload is refused",
    "a driver with an image is unloaded",
)
"""The deep states. A hunt of some thousand operations meets each of them."""


def _moment(before: _Seen, call: Call, result: Result, after: _Seen) -> str | None:  # noqa: PLR0911
    kind = "a monolithic image is" if after.image_type == "mono" else "packets are"
    match call:
        case Read(path=path) if path == STAGED and result.value:
            return f"{kind} read back"
        case Write(path=path) if path == PACKET_SIZE and before.staged > after.staged:
            return "packets are dropped by a packet size"
        case Write(path=path, data=data) if path == LOADING and before.has_entry:
            if after.staged:
                return f"{kind} staged"
            if not after.has_entry:
                ends = data.startswith(b"0")
                return "a load ends with nothing staged" if ends else "an entry is aborted"
        case Write() if before.staged > after.staged:
            return "what is staged is dropped by image_type"
        case Unload() if result.errno == errno.EAGAIN:
            return "an unload is refused"
        case Unload() if before.staged:
            return "a driver with an image is unloaded"
    return None


@dataclass
class Tally:
    """What a hunt has done so far."""

    operations: int = 0
    sequences: int = 0
    errnos: Counter[str] = field(default_factory=Counter)

    def count(self, sequence: Sequence, results: list[Result]) -> None:
        self.operations += len(sequence)
        self.sequences += 1
        numbers = (each.errno for each in results if each.errno is not None)
        self.errnos.update(errno.errorcode[number] for number in numbers)

    def __str__(self) -> str:
        errnos = ", ".join(f"{name} {count}" for name, count in self.errnos.most_common())
        return f"{self.operations} operations in {self.sequences} sequences; errors: {errnos}"


class StuckError(RuntimeError):
    """The kernel's driver is in a state that it can't be brought out of."""


class DifferenceError(AssertionError):
    """The two sides differ. Its text is the report."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference)
        self.difference = difference

    def __str__(self) -> str:
        return f"kernel and profile differ:\n{as_script(self.difference)}"


def compared(kernel: Side, profile: Side, calls: list[Call]) -> Difference:
    """Make the calls on both sides, after `RESET`, and then those of `INVENTORY`.

    :raise StuckError: when the kernel's module could not be loaded anew.
    """
    seen, wanted = (side(RESET + calls + INVENTORY) for side in (profile, kernel))
    start = len(RESET)
    if wanted[start - 1] != Result():
        raise StuckError(f"the kernel's module could not be loaded anew: {wanted[:start]}")
    return Difference(calls + INVENTORY, wanted[start:], seen[start:])


def hunt(kernel: Side, profile: Side, *, seed: int, enough: Callable[[Tally], bool]) -> Tally:
    """Compare `EVERY_TEXT`, which does not count, and random sequences until it is `enough`.

    :raise DifferenceError: when the sides differ; the sequence has been shrunk then.
    :raise GuestLostError: when the kernel's machine is lost; a note has the sequence.
    """
    tally = Tally()
    texts = _Round(kernel, profile, Tally(), lambda tally: False)
    texts.run_one(EVERY_TEXT)
    texts.end()
    for number in itertools.count():
        if enough(tally):
            return tally
        _Round(kernel, profile, tally, enough).run(seed * 1_000_000 + number)
    raise AssertionError("the numbers have come to an end")


class _Round:
    """Some sequences of hypothesis's.

    It makes them and never hears of a failure, so that it does not try to repeat or to shrink one:
    a lost guest can't be asked again, and `shrunk` knows better what may be left out.
    """

    def __init__(
        self, kernel: Side, profile: Side, tally: Tally, enough: Callable[[Tally], bool]
    ) -> None:
        self._kernel, self._profile, self._tally, self._enough = kernel, profile, tally, enough
        self._difference: Difference | None = None
        self._lost: GuestLostError | None = None

    def run(self, seed: int) -> None:
        made = settings(
            max_examples=_SEQUENCES_A_ROUND,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(sequences())(self.run_one))
        seeded(seed)(made)()
        self.end()

    def end(self) -> None:
        """Say what was found, if anything was."""
        if self._lost is not None:
            raise self._lost
        if self._difference is not None:
            raise self._shrunk(self._difference)

    def _shrunk(self, difference: Difference) -> DifferenceError:
        try:
            return DifferenceError(shrunk(difference, self._kernel, self._profile))
        except StuckError as stuck:
            error = DifferenceError(difference)
            error.add_note(f"it could not be shrunk: {stuck}")
            return error

    def run_one(self, sequence: Sequence) -> None:
        is_over = self._lost is not None or self._difference is not None
        if is_over or self._enough(self._tally):
            return
        calls = [call for operation in sequence for call in operation]
        try:
            difference = compared(self._kernel, self._profile, calls)
        except GuestLostError as error:
            error.add_note(f"in this sequence:\n{as_script(Difference(calls, [], []))}")
            self._lost = error
            return
        self._tally.count(sequence, difference.kernel[: len(calls)])
        if difference.kernel != difference.profile:
            self._difference = difference


# -- shrinking ------------------------------------------------------------------------------


def shrunk(difference: Difference, kernel: Side, profile: Side) -> Difference:
    """The same with fewer calls and shorter data, as long as it differs.

    A call stays together with the wait after it: without, the kernel would still be at work. Texts
    stay as they are, so that no small packet size comes about, and no flood of packets.

    :raise GuestLostError: when the kernel's machine is lost.
    """
    units = _units(difference.calls[: -len(INVENTORY)])
    size = len(units)
    while size:
        start = 0
        while start < len(units):
            fewer = units[:start] + units[start + size :]
            if smaller := _still(fewer, kernel, profile):
                difference, units = smaller, fewer
            else:
                start += size
        size //= 2
    for index, unit in enumerate(units):
        call = unit[0]
        while isinstance(call, Write) and call.path == DATA and len(call.data) > 1:
            call = replace(call, data=call.data[: len(call.data) // 2])
            shorter = [*units[:index], [call, *unit[1:]], *units[index + 1 :]]
            if not (smaller := _still(shorter, kernel, profile)):
                break
            difference, units = smaller, shorter
    return difference.until_first(len(difference.calls) - len(INVENTORY))


def _units(calls: list[Call]) -> list[list[Call]]:
    units: list[list[Call]] = []
    for call in calls:
        if isinstance(call, WaitForDriver) and units:
            units[-1].append(call)
        else:
            units.append([call])
    return units


def _still(units: list[list[Call]], kernel: Side, profile: Side) -> Difference | None:
    difference = compared(kernel, profile, [call for unit in units for call in unit])
    return difference if difference.kernel != difference.profile else None


# -- on the lab's machine -------------------------------------------------------------------


class Hunt:
    """Hunts on the lab's machine, for differences to the profile `linux`. What it does and did is
    printed; scripts of differences go into `build/lab`."""

    def __init__(self, machine: SharedMachine, directory: Path) -> None:
        self._machine = machine
        self._profile = ProfileSide(directory, profile("linux"))
        self.moments = self._profile.moments

    def __call__(self, seed: int, enough: Callable[[Tally], bool]) -> Tally:
        """Hunt with that seed until it is enough.

        :raise DifferenceError, GuestLostError: as `hunt`.
        """
        print(f"seed {seed}; to repeat it: OPENRBU_LAB_SEED={seed}")
        try:
            tally = hunt(self._kernel, self._profile, seed=seed, enough=enough)
        except DifferenceError as error:
            error.add_note(f"seed {seed}; the script is in {_keep(error.difference)}")
            raise
        except GuestLostError as error:
            error.add_note(f"seed {seed}")
            raise
        met = ", ".join(f"{name} {count}" for name, count in self.moments.most_common())
        print(f"{tally}\nmet: {met}")
        return tally

    def _kernel(self, calls: list[Call]) -> list[Result]:
        return [each for group in split(calls) for each in self._machine.calls(group)]


def _keep(difference: Difference) -> Path:
    _BUILD.mkdir(parents=True, exist_ok=True)
    numbers = (_BUILD / f"difference-{number}.sh" for number in itertools.count(1))
    path = next(path for path in numbers if not path.exists())
    path.write_text(as_script(difference))
    return path
