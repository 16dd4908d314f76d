"""The kernel's firmware class: user space delivers an image to a driver that requests one.

Theory of operation. A driver *requests* an image by name. This makes an entry: a directory with the
files `loading` and `data`. The entry exists until user space has delivered the image or aborted;
then it is removed, and the driver has to request again. A number written to `loading` is a command:

========  ========================  =========================  ==========================
          `1` begin                 `0` end                    `-1` abort, other: complain
========  ========================  =========================  ==========================
waiting   start -> loading          complain -> gone           drop -> gone
loading   start again -> loading    deliver -> gone            drop -> gone
========  ========================  =========================  ==========================

An image that is being loaded is in physical memory, in page blocks that need not be adjacent, as in
a kernel's vmalloc buffer. When the load ends, they are freed and *not cleared*. So page-aligned
copies of the image, complete or not, remain in free memory, where a BIOS may find them.

A kernel makes the entry in the background, some time after the request. Here that time is
`delay_s`: `run_due`, which is called before each access, makes the entries that are due. `timeout`
can be read and written, but has no effect.

Sources: docs/reference/firmware-class.md, F1 to F4; the kernel's document of `dell_rbu` for `1`,
`0` and `-1`; for what it does not say, Debian's 6.1.192, with which this is compared. Only measured
there: numbers are read with `simple_int`; `data` reads as empty before a load; an entry that
accepts data before `1` discards them at `1`.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from types import MappingProxyType

from openrbu.buffers import Buffer
from openrbu.drivers.extents import Block, Extents, blocks_in, free_all, to_rows
from openrbu.drivers.numbers import simple_int
from openrbu.drivers.objects import add_device
from openrbu.drivers.states import FirmwareImageState, FirmwareRequestState, FirmwareState
from openrbu.drivers.sysfs import BinaryAttribute, Symlink, SysfsTree, TextAttribute
from openrbu.errors import DamagedInputError, KernelError
from openrbu.memory.pages import PageSource
from openrbu.units import GIB, MAX_ORDER, PAGE_SIZE, pages_for

CLASS_PATH = "/class/firmware"
DEFAULT_TIMEOUT_S = 60

MAX_IMAGE_BYTES = 1 * GIB
"""The largest image: a write beyond this size is EFBIG, so that a wrong offset can't take all
memory. (A real 6.1 crashes on an offset of 2 GiB.)"""


_AHEAD_SHARE, _AHEAD_PAGES = 16, 16
"""For small writes, a sixteenth of the image's pages, 16 at most, are allocated ahead."""


class FirmwareImage:
    """The `size_bytes` bytes that were loaded. A driver only reads it.

    Its memory is freed when the driver's callback returns: the driver must not keep a view of it.
    """

    def __init__(self, pages: PageSource) -> None:
        self._pages = pages
        self._blocks: list[Block] = []
        self._extents = Extents(pages.memory)
        self.size_bytes = 0

    def views(self, start: int = 0, size_bytes: int | None = None) -> Iterator[memoryview]:
        """Views of the bytes from `start` on, at most `size_bytes` in all, without a copy."""
        left = max(0, self.size_bytes - start)
        return self._extents.views(start, left if size_bytes is None else min(left, size_bytes))

    def read(self, start: int = 0, size_bytes: int | None = None) -> bytes:
        """A copy of the same bytes."""
        return b"".join(self.views(start, size_bytes))

    def write(self, offset: int, data: Buffer) -> None:
        """Write bytes; the image grows if it has to. Bytes that are skipped are zeros.

        :raise KernelError: EFBIG above MAX_IMAGE_BYTES; ENOMEM when there are no pages. The image
            is not changed then.
        """
        end = offset + len(data)
        if end > MAX_IMAGE_BYTES:
            raise KernelError(errno.EFBIG, detail=f"no image is larger than {MAX_IMAGE_BYTES}")
        self._reserve(end)
        if offset > self.size_bytes:
            self._extents.zero(self.size_bytes, offset - self.size_bytes)
        self._extents.write(offset, data)
        self.size_bytes = max(self.size_bytes, end)

    def release(self) -> None:
        """Free the memory without clearing it."""
        free_all(self._pages, self._blocks)
        self._blocks, self._extents, self.size_bytes = [], Extents(self._pages.memory), 0

    def snapshot(self) -> FirmwareImageState:
        """The state from which `restore` makes the same image, in the same memory."""
        return FirmwareImageState(self.size_bytes, to_rows(self._blocks))

    @classmethod
    def restore(cls, pages: PageSource, state: FirmwareImageState) -> FirmwareImage:
        """The image of which the snapshot was taken.

        :raise DamagedInputError: when its blocks are too small for it.
        """
        image = cls(pages)
        image._append(list(blocks_in(state.blocks)))
        image.size_bytes = state.size_bytes
        if image.size_bytes > image._extents.size_bytes:
            raise DamagedInputError(
                "a firmware image is larger than its blocks",
                expected=image._extents.size_bytes,
                actual=image.size_bytes,
            )
        return image

    def _reserve(self, size_bytes: int) -> None:
        """Allocate pages for `size_bytes` bytes, and some more for further small writes."""
        room_bytes = self._extents.size_bytes
        if size_bytes <= room_bytes:
            return
        missing = pages_for(size_bytes - room_bytes)
        ahead = min(room_bytes // PAGE_SIZE // _AHEAD_SHARE, _AHEAD_PAGES)
        if missing < ahead:
            with contextlib.suppress(KernelError):
                self._append(self._allocated(ahead))
                return
        self._append(self._allocated(missing))

    def _allocated(self, missing: int) -> list[Block]:
        """Allocate blocks of `missing` pages in all, each as large as possible.

        :raise KernelError: ENOMEM when there are not as many pages. None is allocated then.
        """
        added: list[Block] = []
        largest = MAX_ORDER
        while missing:
            order = min(largest, missing.bit_length() - 1)
            try:
                address = self._pages.allocate(order)
            except KernelError:
                if order == 0:
                    free_all(self._pages, added)
                    raise
                largest = order - 1
                continue
            added.append(Block(address, order, PAGE_SIZE << order))
            missing -= 1 << order
        return added

    def _append(self, blocks: list[Block]) -> None:
        self._blocks += blocks
        for block in blocks:
            self._extents.append(block.address, block.capacity_bytes)


OnImage = Callable[[FirmwareImage], None]


class _State(Enum):
    WAITING = auto()
    LOADING = auto()
    GONE = auto()


class _Command(Enum):
    BEGIN = 1
    END = 0
    ABORT = -1
    OTHER = None


class _Step(Enum):
    START = auto()
    DELIVER = auto()
    DROP = auto()
    COMPLAIN = auto()


_TABLE: Mapping[tuple[_State, _Command], tuple[_Step, _State]] = MappingProxyType(
    {
        (_State.WAITING, _Command.BEGIN): (_Step.START, _State.LOADING),
        (_State.WAITING, _Command.END): (_Step.COMPLAIN, _State.GONE),
        (_State.WAITING, _Command.ABORT): (_Step.DROP, _State.GONE),
        (_State.WAITING, _Command.OTHER): (_Step.COMPLAIN, _State.GONE),
        (_State.LOADING, _Command.BEGIN): (_Step.START, _State.LOADING),
        (_State.LOADING, _Command.END): (_Step.DELIVER, _State.GONE),
        (_State.LOADING, _Command.ABORT): (_Step.DROP, _State.GONE),
        (_State.LOADING, _Command.OTHER): (_Step.COMPLAIN, _State.GONE),
    }
)


@dataclass(slots=True)
class _Request:
    """A driver's request, and its state."""

    name: str
    device_path: str
    on_image: OnImage
    data_before_loading: bool
    image: FirmwareImage
    due_at: float | None  # when the entry appears; None: it exists
    state: _State = _State.WAITING

    @property
    def path(self) -> str:
        return f"{self.device_path}/firmware/{self.name}"


class FirmwareClass:
    """The entries below `/class/firmware` in `tree`. `log` gets the lines that a kernel would log.

    An entry appears `delay_s` seconds, by the clock `now`, after it was requested.
    """

    def __init__(
        self,
        tree: SysfsTree,
        pages: PageSource,
        *,
        delay_s: float = 0.0,
        now: Callable[[], float] = lambda: 0.0,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tree, self._pages, self._log = tree, pages, log
        self._delay_s, self._now = delay_s, now
        self._timeout_s = DEFAULT_TIMEOUT_S
        self._requests: dict[str, _Request] = {}

    def install(self) -> None:
        """Add the class's directory and `timeout`. Call it once, before the first request."""
        timeout = TextAttribute(lambda: f"{self._timeout_s}\n", self._store_timeout)
        self._tree.add(f"{CLASS_PATH}/timeout", timeout)

    def request(
        self,
        name: str,
        device_path: str,
        on_image: OnImage,
        *,
        data_before_loading: bool = False,
    ) -> None:
        """Make an entry for `name` below the device, for user space to deliver an image.

        `on_image` is called at most once, when a load ends. The entry is removed then, so it may
        request again. After an abort it is not called. `data_before_loading` is as in `Profile`.

        :raise KernelError: EEXIST when an image of that name is requested already.
        """
        if name in self._requests:
            raise KernelError(errno.EEXIST, f"{CLASS_PATH}/{name}")
        image = FirmwareImage(self._pages)
        due_at = self._now() + self._delay_s
        self._requests[name] = _Request(
            name, device_path, on_image, data_before_loading, image, due_at
        )
        self.run_due()

    def run_due(self) -> None:
        """Make the entries that are due.

        The clock may be set back: no entry waits for longer than `delay_s` from now.
        """
        if all(request.due_at is None for request in self._requests.values()):
            return  # the usual case, without reading the clock, which takes most of the time
        now = self._now()
        for request in self._requests.values():
            if request.due_at is None:
                continue
            request.due_at = min(request.due_at, now + self._delay_s)
            if request.due_at <= now:
                self._add_entry(request)

    def _add_entry(self, request: _Request) -> None:
        request.due_at = None
        link = Symlink(_relative(request.path, CLASS_PATH))
        self._tree.add(f"{CLASS_PATH}/{request.name}", link)
        add_device(
            self._tree,
            request.path,
            subsystem=_relative(CLASS_PATH, request.path),
            uevent=lambda: f"FIRMWARE={request.name}\nTIMEOUT={self._timeout_s}\nASYNC=1\n",
        )
        self._tree.add(f"{request.path}/device", Symlink(f"../../../{_base(request.device_path)}"))
        self._tree.add(
            f"{request.path}/loading",
            TextAttribute(
                lambda: f"{int(request.state is _State.LOADING)}\n",
                partial(self._store_loading, request),
            ),
        )
        self._tree.add(
            f"{request.path}/data",
            BinaryAttribute(
                partial(_read_data, request),
                partial(_write_data, request),
                rawio=True,
            ),
        )

    def is_requested(self, name: str) -> bool:
        """Whether there is an entry of that name, or there will be one."""
        return name in self._requests

    def snapshot(self) -> FirmwareState:
        """The state that `restore` needs."""
        requests = {
            name: FirmwareRequestState(
                is_loading=request.state is _State.LOADING,
                due_at=request.due_at,
                image=request.image.snapshot(),
            )
            for name, request in self._requests.items()
        }
        return FirmwareState(self._timeout_s, requests)

    def restore(self, state: FirmwareState) -> None:
        """Continue from a snapshot.

        The drivers are restored first: each makes its own requests again. The page allocator is
        restored separately.

        :raise DamagedInputError: when the snapshot has other requests than the drivers.
        """
        if state.requests.keys() != self._requests.keys():
            raise DamagedInputError(
                "the firmware class has other requests for an image than the drivers",
                expected=sorted(self._requests),
                actual=sorted(state.requests),
            )
        self._timeout_s = state.timeout_s
        for name, saved in state.requests.items():
            request = self._requests[name]
            request.state = _State.LOADING if saved.is_loading else _State.WAITING
            request.image = FirmwareImage.restore(self._pages, saved.image)
            if request.due_at is not None:  # the driver has just requested it again
                request.due_at = saved.due_at
                if request.due_at is None:
                    self._add_entry(request)

    def _store_timeout(self, text: bytes) -> None:
        self._timeout_s = max(0, simple_int(text))

    def _store_loading(self, request: _Request, text: bytes) -> None:
        value = simple_int(text)
        command = _Command(value) if value in (1, 0, -1) else _Command.OTHER
        step, request.state = _TABLE[request.state, command]
        if step is _Step.COMPLAIN:
            self._log(f"firmware {request.name}: loading_store: unexpected value ({value})")
        if request.state is _State.GONE:
            self._remove_entry(request)
        try:
            if step is _Step.DELIVER:
                request.on_image(request.image)
        finally:
            request.image.release()  # also at a start, which drops the bytes loaded before

    def _remove_entry(self, request: _Request) -> None:
        del self._requests[request.name]
        self._tree.remove(f"{CLASS_PATH}/{request.name}")
        self._tree.remove(request.path)
        parent = f"{request.device_path}/firmware"
        if not self._tree.list(parent):
            self._tree.remove(parent)


def _read_data(request: _Request, offset: int, size_bytes: int) -> bytes:
    return request.image.read(offset, size_bytes)


def _write_data(request: _Request, offset: int, data: Buffer) -> None:
    may_write = request.state is _State.LOADING or (
        request.state is _State.WAITING and request.data_before_loading
    )
    if not may_write:
        raise KernelError(errno.ENODEV, detail="no load has begun: write 1 to loading first")
    request.image.write(offset, data)


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _relative(target: str, directory: str) -> str:
    """The path from `directory` to `target`; the two have no common part."""
    return "../" * directory.strip("/").count("/") + "../" + target.lstrip("/")
