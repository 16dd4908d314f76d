"""Serves a machine's files on a descriptor of /dev/fuse, with libfuse in a thread.

libfuse is made for a program of its own: it changes to the root directory, sets handlers for
signals that have none, writes errors to standard error, and can be stopped only by a signal. This
module keeps all that from the rest of the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from openrbu.errors import ObstacleError
from openrbu.fuse.callers import CallerMap
from openrbu.fuse.filesystem import FileSystem, PathLock
from openrbu.fuse.library import mfusepy
from openrbu.fuse.requests import Requests
from openrbu.fuse.translation import Translation
from openrbu.kernel.files import File, Files
from openrbu.system.interrupts import ENDING_SIGNALS
from openrbu.system.libc import LIBC, call
from openrbu.system.signals import SIGNAL_CHECK_S

_CLONE_FS = 0x200  # linux/sched.h
_LOG_LINE_BYTES = 1024
_WAKE_UP_S = 0.01

_LogFunction = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

_libfuse = ctypes.CDLL(mfusepy._libfuse._name)  # what mfusepy has no names for
_libfuse.fuse_get_session.restype = ctypes.c_void_p
_libfuse.fuse_get_context.restype = ctypes.POINTER(mfusepy.fuse_context)


class FuseSession:
    """One mount, served from `start` until it is unmounted or until `stop`.

    The session owns the descriptor `fd` and closes it at the end; programs that still use the mount
    get ENOTCONN then. `log` gets a line for each defect; it is called in another thread.
    `path_lock`: see `FileSystem`. `on_ioctl`: see `FileSystem.watch_ioctl`; None: nobody watches.
    """

    def __init__(
        self,
        files: Files,
        fd: int,
        callers: CallerMap,
        *,
        log: Callable[[str], None] = lambda line: None,
        path_lock: PathLock = lambda path: contextlib.nullcontext(),
        on_ioctl: Callable[[File, int], None] | None = None,
    ) -> None:
        self._fd, self._log = fd, log
        self._requests = Requests(fd)
        self._system = _ObservedFileSystem(
            files,
            callers,
            self._requests,
            log,
            path_lock=path_lock,
            on_init=self._on_init,
            on_destroy=self._on_destroy,
        )
        if on_ioctl is not None:
            self._system.watch_ioctl(on_ioctl)
        self._on_line = _LogFunction(self._take_line)
        self._last_line = ""
        self._failure: str | None = None  # known when it has ended
        self._handle: int | None = None  # libfuse's struct fuse_session, while there is one
        self._has_started, self._has_ended = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # the thread takes it to drop the handle, and to end
        self._thread = threading.Thread(target=self._run, name="fuse", daemon=True)

    def start(self) -> None:
        """Begin to serve. The mount can be used when this returns.

        :raise ObstacleError: when libfuse can't serve it.
        """
        self._thread.start()
        self._has_started.wait()
        self._raise_failure()

    def wait(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait until it is unmounted, or stopped. Signals are handled meanwhile. `check` is called
        every `SIGNAL_CHECK_S`; an exception of it ends the wait.

        :raise ObstacleError: when it ended in another way.
        """
        while not self._has_ended.wait(SIGNAL_CHECK_S):
            check()
        self._raise_failure()

    def stop(self) -> None:
        """Stop serving, even when programs still use the mount. The dead mount stays until
        `unmount`."""
        if self._thread.ident is None:
            os.close(self._fd)
            return
        self._has_started.wait()
        with self._lock:
            if self._handle is not None:
                _libfuse.fuse_session_exit(ctypes.c_void_p(self._handle))
        _make_interrupting(signal.SIGRTMAX)
        while not self._has_ended.wait(_WAKE_UP_S):
            # It waits for a request in read(2). A signal just before that has no effect: again.
            with self._lock:  # a thread that has ended can't get a signal
                if not self._has_ended.is_set():
                    signal.pthread_kill(self._thread.ident, signal.SIGRTMAX)

    def _raise_failure(self) -> None:
        if self._has_ended.is_set() and self._failure is not None:
            raise ObstacleError(f"the mount can't be served: {self._failure}")

    # -- in the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        self._failure = "an unexpected error, which is on standard error"
        _libfuse.fuse_set_log_func(self._on_line)
        try:
            call("unshare", _CLONE_FS)  # the working directory is this thread's own from here on
            Translation(self._system, f"/dev/fd/{self._fd}", foreground=True, nothreads=True)
            self._failure = None
        except OSError as error:
            self._failure = f"its thread can't have its own working directory: {error.strerror}"
        except RuntimeError as error:
            self._failure = self._last_line or f"libfuse ended with {error}"
        finally:
            _libfuse.fuse_set_log_func(None)
            with self._lock:
                self._has_ended.set()
            self._has_started.set()

    def _take_line(self, _level: int, text: bytes, arguments: int) -> None:
        buffer = ctypes.create_string_buffer(_LOG_LINE_BYTES)
        LIBC.vsnprintf(buffer, ctypes.c_size_t(_LOG_LINE_BYTES), text, ctypes.c_void_p(arguments))
        self._last_line = " ".join(buffer.value.decode(errors="replace").split())
        self._log(self._last_line)

    def _on_init(self) -> None:
        context = _libfuse.fuse_get_context().contents
        self._handle = _libfuse.fuse_get_session(ctypes.c_void_p(context.fuse))
        self._requests.follow(_libfuse, self._handle)
        for signum in ENDING_SIGNALS:
            if signal.getsignal(signum) is signal.SIG_DFL:
                LIBC.signal(int(signum), None)
        self._has_started.set()

    def _on_destroy(self) -> None:
        with self._lock:
            self._handle = None


class _ObservedFileSystem(FileSystem):
    """Calls `on_init` when libfuse begins to serve, and `on_destroy` when it ends."""

    def __init__(
        self,
        files: Files,
        callers: CallerMap,
        requests: Requests,
        log: Callable[[str], None],
        *,
        path_lock: PathLock,
        on_init: Callable[[], None],
        on_destroy: Callable[[], None],
    ) -> None:
        super().__init__(files, callers, requests, log, path_lock=path_lock)
        self._on_init, self._on_destroy = on_init, on_destroy

    def init_with_config(self, connection: object, config: Any) -> None:
        super().init_with_config(connection, config)
        self._on_init()

    def destroy(self, _path: str) -> None:
        self._on_destroy()


def _make_interrupting(signum: int) -> None:
    """Have a signal interrupt system calls and do nothing else. Python can set a handler only in
    the main thread, so the handler is C's `abs`, a function of a number that has no effect."""
    LIBC.signal(int(signum), LIBC.abs)
    LIBC.siginterrupt(int(signum), 1)
