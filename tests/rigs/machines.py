"""Small virtual machines to try: 64 MiB of RAM, a flash of 128 KiB unless a test wants another."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from openrbu.bios.rules import PUBLISHED, FoundUpdate, Identity
from openrbu.buffers import Buffer
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.tokens import IndexedIoToken
from openrbu.formats.version import BiosVersion
from openrbu.linux.cmos import NVMEM, PORT
from openrbu.linux.files import RELEASE
from openrbu.linux.firmware_class import CLASS, IGNORE_FALLBACK, SEARCH_PATH
from openrbu.linux.memory import BUDDYINFO, KPAGEFLAGS, MEMINFO
from openrbu.linux.reboot import OVERWRITE_LOCK, OVERWRITE_REQUEST
from openrbu.machine.factory import MachineSpec, make_machine
from openrbu.machine.models import MODELS
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.physical import ReadableMemory
from openrbu.ports import IoPorts, PortCmos
from openrbu.units import KIB, MIB
from openrbu.update import flow
from openrbu.update.options import Options
from openrbu.update.outcome import Outcome
from openrbu.update.plan import make_plan, refuse_new
from openrbu.update.possible_bioses import PossibleBios, PossibleBioses
from openrbu.update.progress import SilentProgress
from openrbu.update.target import HYPERVISOR_PATH

Quiet = SilentProgress

FLASH_BYTES = 128 * KIB
REBOOT_MODE = "/sys/kernel/reboot/mode"
DEVICE = "/sys/devices/platform/dell_rbu"
ENTRY = "/sys/class/firmware/dell_rbu"

NOBODY = 65534

NOT_NEEDED = frozenset(
    {
        KPAGEFLAGS,
        HYPERVISOR_PATH,
        SEARCH_PATH,
        IGNORE_FALLBACK,
        RELEASE,
        f"{CLASS}/timeout",
        BUDDYINFO,
        MEMINFO,
        NVMEM,
        OVERWRITE_REQUEST,
        OVERWRITE_LOCK,
    }
)
"""Files without which an update goes on: what can't be read of them is looked at again, or is not
known then."""

PROFILES = ("documented", "linux-2.6.16", "linux-5.7", "linux-6.16", "linux")

WAYS = [
    ("poweredge-2650", "mono"),
    ("precision-390", "mono"),
    ("precision-390", "packet"),
    ("precision-t7600", "mono"),
    ("precision-t7600", "packet"),
]
"""Every kind of token with every mode that goes with it."""

NEWER = {
    "poweredge-2650": "A06",
    "precision-390": "2.3.0",
    "precision-t7600": "A02",
    "poweredge-2950": "0.2.9",
    "latitude-d500": "A10",
}
OLDER = {
    "poweredge-2650": "A04",
    "precision-390": "2.1.1",
    "precision-t7600": "A00",
    "poweredge-2950": "0.2.6",
    "latitude-d500": "A07",
}


def published(image: Image, *, packets_known: bool = True) -> PossibleBioses:
    """The published rules as the only possible BIOS, of a machine that the image is for."""
    identity = Identity(
        system_id=image.header.systems[0].id,
        flash_size_bytes=image.flash_size_bytes,
        knows_packets=packets_known,
    )

    def find(memory: ReadableMemory) -> FoundUpdate:
        return PUBLISHED.find_update(memory, identity)

    return PossibleBioses((PossibleBios(PUBLISHED.name, find, searches_above_4_gib=False),))


def make(home: Path, model: str = "precision-390", *, name: str = "box", **spec: Any) -> Path:
    """Make a machine, off; its directory."""
    own = {} if "tables" in spec else {"model": model}
    wanted: dict[str, Any] = {"ram_bytes": 64 * MIB, "flash_size_bytes": FLASH_BYTES, **own} | spec
    before = os.environ.get("OPENRBU_HOME")
    os.environ["OPENRBU_HOME"] = str(home)
    try:
        return make_machine(name, MachineSpec(**wanted))
    finally:
        os.environ.pop("OPENRBU_HOME")
        if before is not None:
            os.environ["OPENRBU_HOME"] = before


@contextlib.contextmanager
def running(
    directory: Path, *, faults: tuple[str, ...] = (), **arguments: Any
) -> Iterator[VirtualMachine]:
    """The machine, switched on where it is off. `faults`: beside those that it was made with."""
    with VirtualMachine(directory, more_faults=faults, **arguments) as machine:
        if not machine.is_on:
            machine.power_on()
        yield machine


def image_bytes(
    model: str = "precision-390",
    version: str | None = None,
    *,
    seed: int = 1,
    flash_size_bytes: int = FLASH_BYTES,
    system_id: int | None = None,
) -> bytes:
    """An image for a model; newer than what the model comes with unless told."""
    return make_image(
        random.Random(seed).randbytes(flash_size_bytes),
        version=BiosVersion.parse(version or NEWER[model]),
        systems=[SystemId(MODELS[model].system_id if system_id is None else system_id)],
    )


def image(model: str = "precision-390", version: str | None = None, **more: Any) -> Image:
    return Image.parse(image_bytes(model, version, **more))


def update(host: Any, what: Image, *, arm: bool = True, **options: Any) -> Outcome:
    """Plan and perform."""
    outcome = flow.perform(host, make_plan(host, what, Options(**options)), Quiet(), arm=arm)
    assert outcome is not None, "the machine runs that version already"
    return outcome


def status(machine: VirtualMachine) -> dict[str, Any]:
    """How a machine that is on stands: all that an update that failed must leave as it was."""
    assert machine.kernel is not None
    return {
        "kernel": machine.kernel.snapshot(),
        "is_armed": machine.is_armed,
        "cmos": (machine.directory / "cmos").read_bytes(),
        "nvram": machine.nvram.contents.settings.copy(),
        "bios": machine.flash.current,
    }


def files(directory: Path, leave_out: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Every file's bytes."""
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.iterdir())
        if path.name not in leave_out
    }


_NOT_WATCHED = (
    "name",
    "journal_path",
    "lasting_journal_path",
    "older_journal_paths",
    "lock_files",
    "now",
    "sleep",
    "frame_table",
    "own_rbu",
    "offers_own_rbu",
)

Hook = Callable[[str, tuple[Any, ...]], None]


class Watched:
    """A host that tells `before` of each call, and of each piece that is read, before it is made.

    `replaced` has attributes that it shows instead of the host's own.
    """

    def __init__(self, host: Any, before: Hook, replaced: Mapping[str, Any] | None = None) -> None:
        self._host, self._before, self._replaced = host, before, replaced or {}

    def __getattr__(self, name: str) -> Any:
        if name in self._replaced:
            return self._replaced[name]
        if name in _NOT_WATCHED:
            return getattr(self._host, name)
        if name == "physical_memory":
            self._before(name, ())
            return getattr(self._host, name)

        def call(*arguments: Any) -> Any:
            self._before(name, arguments)
            result = getattr(self._host, name)(*arguments)
            return self._watched_chunks(result, arguments) if name == "chunks" else result

        return call

    def _watched_chunks(self, chunks: Iterator[bytes], arguments: tuple[Any, ...]) -> Any:
        for chunk in chunks:
            yield chunk
            self._before("chunk", arguments)


class PortsOnly(Watched):
    """The host as one whose CMOS is reached through these I/O ports, by `/dev/port`. None: it has
    no such file either."""

    def __init__(self, host: Any, ports: IoPorts | None) -> None:
        super().__init__(host, lambda name, arguments: None)
        self._ports = ports

    def chunks(self, path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        if self._is_port(path):
            assert self._ports is not None
            yield bytes(self._ports.in8(port) for port in range(offset, offset + size_bytes))
        else:
            yield from self._host.chunks(path, size_bytes, offset)

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        if self._is_port(path):
            assert self._ports is not None
            for port, value in enumerate(data, offset):
                self._ports.out8(port, value)
        else:
            self._host.write(path, data, offset)

    def sleep(self, seconds: float) -> None:
        """Nothing: nobody else uses these ports."""

    def _is_port(self, path: str) -> bool:
        if path == NVMEM or (path == PORT and self._ports is None):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return path == PORT


def bank_of(machine: VirtualMachine, token: IndexedIoToken) -> PortCmos:
    """The bank of a machine's CMOS that a token is in."""
    return PortCmos(machine.cmos, token.ports)


def hidden_memory(host: Any) -> Watched:
    """The host as one that does not show physical memory."""
    return Watched(host, lambda name, arguments: None, {"physical_memory": None})


class FailAt:
    """A hook that raises at call number `number`, and with `on` at all later ones, too. The calls
    with which an update looks again at what may have come in its way don't count, some 100: a look
    that fails is a fact that is not known, as `test_unreadable_facts` shows."""

    def __init__(self, number: int, error: BaseException, *, on: bool = False) -> None:
        self.number, self.error, self.on = number, error, on
        self.calls = 0
        self.failed: tuple[Any, ...] = ()

    @property
    def has_failed(self) -> bool:
        return self.calls >= self.number

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if is_a_look():
            return
        self.calls += 1
        if self.calls == self.number:
            self.failed = (name, *arguments)
        if self.calls == self.number or (self.on and self.has_failed):
            raise self.error


def is_a_look() -> bool:
    """Whether an update looks again, now, at what may have come in its way."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not refuse_new.__code__:
        frame = frame.f_back
    return frame is not None


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], None]) -> int:
    """Do `work` in a process of its own; its exit code, negative for a signal.

    1: `work` raised, and the traceback is on standard error.
    """
    sys.stdout.flush()
    with warnings.catch_warnings():  # of the threads that numpy has, which a child needs not
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  (this process ends here, whatever it is)
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def as_nobody(work: Callable[[], None]) -> None:
    """Do it as a user who may nothing."""
    if os.geteuid():
        work()
        return

    def drop_and_work() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        work()

    assert in_child(drop_and_work) == 0


def opened_up(path: Path) -> None:
    """Let every user pass through the directories above."""
    for parent in path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)


def killed_at_line(number: int, folders: tuple[str, ...], work: Callable[[], None]) -> bool:
    """Do `work` in a process that kills itself before line `number` of what it runs in these
    folders of openrbu; False when it was through before that."""
    left = number

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        return on_line if any(f"/openrbu/{folder}" in path for folder in folders) else None

    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if not left:
                kill_self()
        return on_line

    def traced() -> None:
        sys.settrace(on_call)
        work()
        sys.settrace(None)

    code = in_child(traced)
    assert code in (0, -signal.SIGKILL)
    return code != 0
