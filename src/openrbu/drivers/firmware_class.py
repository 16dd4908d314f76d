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

A file of the right name comes first: where one is in `/lib/firmware`, or in the directory that the
parameter `path` names, the image is that file's, and no entry is made. Where there is no such
file and `ignore_sysfs_fallback` is 1, the request fails: no entry is made either.

An image that is being loaded is in physical memory, in page blocks that need not be adjacent, as in
a kernel's vmalloc buffer. When the load ends, they are freed and *not cleared*. So page-aligned
copies of the image, complete or not, remain in free memory, where a BIOS may find them.

A kernel makes the entry in the background, some time after the request. Here that time is
`delay_s`: `run_due`, which is called before each access, answers the requests that are due.
`timeout` can be read and written, but has no effect.

Sources: docs/reference/firmware-class.md, F1 to F6; the kernel's document of `dell_rbu` for `1`,
`0` and `-1`; for what it does not say, Debian's 6.1.192, with which this is compared. Only measured
there: numbers are read with `simple_int`; `data` reads as empty before a load; an entry that
accepts data before `1` discards them at `1`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from types import MappingProxyType
from typing import Protocol

from openrbu.buffers import Buffer
from openrbu.drivers.firmware_image import FirmwareImage, LoadedImage, LoadingImage
from openrbu.drivers.numbers import c_string, simple_int
from openrbu.drivers.objects import add_device
from openrbu.drivers.states import FirmwareRequestState, FirmwareState
from openrbu.drivers.sysfs import BinaryAttribute, Symlink, SysfsTree, TextAttribute
from openrbu.errors import DamagedInputError, KernelError
from openrbu.memory.pages import PageSource

CLASS_PATH = "/class/firmware"

SEARCH_PATH = "/module/firmware_class/parameters/path"
"""In `/sys`: the directory in which the kernel searches first."""

CONFIG = "/sys/kernel/firmware_config"
"""In `/proc`: a directory of switches."""

DIRECTORIES = ("/lib/firmware/updates", "/lib/firmware")
"""In which the kernel searches for a file, after the one of `SEARCH_PATH`. In each of them a
directory with the name of its release comes first; that is this computer's, as uname(2) says."""

_MAX_PATH_CHARACTERS = 255
DEFAULT_TIMEOUT_S = 60

OnImage = Callable[[LoadedImage], None]


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
    image: LoadingImage
    due_at: float | None  # when the entry appears; None: it exists
    state: _State = _State.WAITING

    @property
    def path(self) -> str:
        return f"{self.device_path}/firmware/{self.name}"


class FirmwareFile(Protocol):
    """A file as the kernel finds it."""

    @property
    def size_bytes(self) -> int: ...

    def views(self) -> Iterator[Buffer]:
        """Its content, in pieces.

        :raise OSError: when it can't be read.
        """


class FirmwareClass:
    """The entries below `/class/firmware` in `tree`. `log` gets the lines that a kernel would log.

    A request is answered `delay_s` seconds, by the clock `now`, after it was made. `find_file` has
    the content of the file at a path; None: there is none. `has_fallback`: entries are made; if
    not, a request for a file that is not there fails. `new_image`: makes the empty image of a
    request; None: in pages.
    """

    def __init__(
        self,
        tree: SysfsTree,
        pages: PageSource,
        *,
        find_file: Callable[[str], FirmwareFile | None] = lambda path: None,
        has_fallback: bool = True,
        new_image: Callable[[], LoadingImage] | None = None,
        delay_s: float = 0.0,
        now: Callable[[], float] = lambda: 0.0,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tree, self._pages, self._log = tree, pages, log
        self._delay_s, self._now = delay_s, now
        self._find_file, self._has_fallback = find_file, has_fallback
        self._new_image = new_image or partial(FirmwareImage, pages)
        self._timeout_s = DEFAULT_TIMEOUT_S
        self._search_path = ""
        self._switches = dict.fromkeys(("ignore_sysfs_fallback", "force_sysfs_fallback"), False)
        self._requests: dict[str, _Request] = {}

    def install(self, proc: SysfsTree) -> None:
        """Add the search path; with the fallback the class's directory, `timeout`, and the switches
        in the tree of `/proc`, too. Call it once, before the first request."""
        path = TextAttribute(lambda: f"{self._search_path}\n", self._store_path)
        self._tree.add(SEARCH_PATH, path)
        if not self._has_fallback:
            return
        timeout = TextAttribute(lambda: f"{self._timeout_s}\n", self._store_timeout)
        self._tree.add(f"{CLASS_PATH}/timeout", timeout)
        for name in self._switches:
            switch = TextAttribute(
                partial(self._show_switch, name), partial(self._store_switch, name), size_bytes=0
            )
            proc.add(f"{CONFIG}/{name}", switch)

    def request(
        self,
        name: str,
        device_path: str,
        on_image: OnImage,
        *,
        data_before_loading: bool = False,
    ) -> None:
        """Request an image: from a file, or else by an entry for `name` below the device, for user
        space to deliver one.

        `on_image` is called at most once, when a load ends. The request is over then, so it may
        request again, except after a load from a file: there would be no end of those. After an
        abort it is not called. `data_before_loading` is as in `Profile`.

        :raise KernelError: EEXIST when an image of that name is requested already.
        """
        if name in self._requests:
            raise KernelError(errno.EEXIST, f"{CLASS_PATH}/{name}")
        image = self._new_image()
        due_at = self._now() + self._delay_s
        self._requests[name] = _Request(
            name, device_path, on_image, data_before_loading, image, due_at
        )
        self.run_due()

    def run_due(self) -> None:
        """Answer the requests that are due.

        The clock may be set back: no request waits for longer than `delay_s` from now.
        """
        if all(request.due_at is None for request in self._requests.values()):
            return  # the usual case, without reading the clock, which takes most of the time
        now = self._now()
        for request in list(self._requests.values()):
            if request.due_at is None:
                continue
            request.due_at = min(request.due_at, now + self._delay_s)
            if request.due_at <= now:
                self._answer(request)

    def _answer(self, request: _Request) -> None:
        """Load the image from a file where there is one; else make the entry, where the kernel does
        that."""
        found = self._file_for(request.name)
        if found is None and self._has_fallback and not self._switches["ignore_sysfs_fallback"]:
            self._add_entry(request)
            return
        del self._requests[request.name]
        if found is None:
            self._log(f"{request.name}: no such file, and no sysfs fallback")
            return
        try:
            for view in found.views():
                request.image.write(request.image.size_bytes, view)
            request.image.is_from_file = True
            request.on_image(request.image)
        except OSError as error:
            self._log(f"{request.name}: the file can't be loaded: {error.strerror}")
        finally:
            request.image.release()

    def _file_for(self, name: str) -> FirmwareFile | None:
        """The first file of this name in the directories in which the kernel searches. An empty one
        does not count."""
        first = (self._search_path,) if self._search_path else ()
        release = os.uname().release
        usual = [path for each in DIRECTORIES for path in (f"{each}/{release}", each)]
        for directory in (*first, *usual):
            found = self._find_file(f"{directory}/{name}")
            if found is not None and found.size_bytes:
                return found
        return None

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
        return FirmwareState(self._timeout_s, self._search_path, dict(self._switches), requests)

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
        if state.switches.keys() != self._switches.keys():
            raise DamagedInputError("the firmware class has other switches")
        self._timeout_s, self._search_path = state.timeout_s, state.search_path
        self._switches = dict(state.switches)
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

    def _store_path(self, text: bytes) -> None:
        """The text up to the first NUL; a newline at its end belongs to it."""
        path = c_string(text)
        if len(path) > _MAX_PATH_CHARACTERS:
            raise KernelError(errno.ENOSPC, SEARCH_PATH)
        self._search_path = path.decode("latin-1")

    def _show_switch(self, name: str) -> str:
        return f"{int(self._switches[name])}\n"

    def _store_switch(self, name: str, text: bytes) -> None:
        """0 or 1, also with zeros before it."""
        digits = text.strip()
        if not digits.isdigit() or digits.lstrip(b"0") not in (b"", b"1"):
            raise KernelError(errno.EINVAL, f"{CONFIG}/{name}")
        self._switches[name] = digits.endswith(b"1")

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
