"""The cache of unpacked packages: locked, filled, and its errors told.

The cache has a directory for each package and version. One process at a time makes such a directory
under another name, and renames it when it is complete; so a directory that is there can be used
without a lock.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from openrbu.errors import ObstacleError, OpenRbuError
from openrbu.lab.apt import Apt, Package, unpack
from openrbu.system.denied import why_refused
from openrbu.system.home import CACHE_VARIABLE
from openrbu.system.lockfile import LockFile
from openrbu.system.signals import SIGNAL_CHECK_S
from openrbu.system.waiting import Deadline, wait_for
from openrbu.units import human_size, human_sizes

Download = tuple[Path, int]
"""The directory in which a file grows, and the bytes that it will have."""

Downloading = Callable[[Download], AbstractContextManager[object]]
"""A block in which something is downloaded, such as one that shows how far it is."""

ANOTHER_CACHE = f"{CACHE_VARIABLE}=DIR names another directory"

_FRESH = ".new-"
"""The beginning of the names of directories that are not complete yet."""


@contextlib.contextmanager
def cache_errors(cache: Path) -> Iterator[None]:
    """Turn an OSError in the block into an `ObstacleError` that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OpenRbuError):
            raise
        raise ObstacleError(
            f"the cache {cache} can't be used: {why_refused(error, cache)}; {ANOTHER_CACHE}"
        ) from None


class PackageCache:
    """The cache in `directory`. It is locked at the first need, until `stack` is closed. `say` gets
    a line before each thing that is fetched, and `downloading` is entered while that is done."""

    def __init__(
        self,
        directory: Path,
        say: Callable[[str], None],
        stack: contextlib.ExitStack,
        downloading: Downloading = contextlib.nullcontext,
    ) -> None:
        self.directory, self.say, self._stack = directory, say, stack
        self._downloading = downloading
        self._packages = directory / "packages"
        self._is_locked = False

    def fetch(
        self, apt: Apt, package: Package, place: Path, finish: Callable[[Path], None]
    ) -> Path:
        """Fetch and unpack a package into a new directory in `place`. `finish` completes it after
        unpacking.

        :raise FetchError: when it can't be fetched.
        :raise ObstacleError: when the disk has no room for it.
        """
        self._check_room(package.size_bytes + package.unpacked_bytes)
        size = human_size(package.size_bytes)
        self.say(f"fetching {package.name} {package.version} ({size}) …")
        with self.fresh() as fresh:
            root = fresh / "root"
            root.mkdir()
            with self._downloading((fresh, package.size_bytes)):
                deb = apt.download(package, fresh)
            unpack(deb, root)
            finish(root)
            place.mkdir(parents=True, exist_ok=True)
            return root.rename(place / package.directory_name)

    def lock(self) -> None:
        """Lock the cache, so that only this process makes something in it. Incomplete directories
        of killed processes are removed."""
        if self._is_locked:
            return
        self._packages.mkdir(parents=True, exist_ok=True)
        lock = self._stack.enter_context(LockFile(self.directory / "lock", create=True))
        if not lock.acquire():
            self.say("waiting for another process that fetches packages …")
            wait_for(lock.acquire, Deadline("the packages"), SIGNAL_CHECK_S)
        self._is_locked = True
        for left in self._packages.glob(f"{_FRESH}*"):
            shutil.rmtree(left)

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Path]:
        """A directory to make something in, removed at the end of the block."""
        self.lock()
        with tempfile.TemporaryDirectory(prefix=_FRESH, dir=self._packages) as directory:
            yield Path(directory)

    def _check_room(self, size_bytes: int) -> None:
        """:raise ObstacleError: when the cache's disk does not have `size_bytes` free."""
        free = shutil.disk_usage(self._packages).free
        if free < size_bytes:
            room, needed = human_sizes(free, size_bytes)
            raise ObstacleError(
                f"the cache {self.directory} has room for {room}, and {needed} are "
                f"needed; {ANOTHER_CACHE}"
            )
