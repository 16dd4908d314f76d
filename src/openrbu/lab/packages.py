"""The software of a guest: Debian's packages, fetched into a cache and unpacked there.

Theory of operation. apt says which versions there are. `apt-get download` fetches a package and
checks it against the archive's signatures. Nothing is installed, and root is not needed. The cache
has a directory for each package and version. One process at a time makes such a directory under
another name, and renames it when it is complete; so a directory that is there can be used without
a lock. What is in the cache is used without asking apt: remove the cache to get newer packages.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from openrbu.errors import ObstacleError, OpenRbuError
from openrbu.lab.apt import (
    Package,
    download,
    failure_text,
    find_newest,
    find_packages,
    unpack,
)
from openrbu.lab.programs import INSTALL_EXTRA, QEMU, ProcessResult, find_program, run, search_path
from openrbu.system.home import cache_home
from openrbu.system.lockfile import LockFile
from openrbu.system.signals import SIGNAL_CHECK_S
from openrbu.system.waiting import Deadline, wait_for
from openrbu.units import human_size

INSTALLED_SEABIOS = Path("/usr/share/seabios/bios-256k.bin")
"""A file of the package seabios, which Debian's QEMU depends on."""

_NEWEST = {
    "kernel": ("linux-image-amd64", "linux-image-[0-9]"),
    "xen": ("xen-system-amd64", "xen-hypervisor-[0-9]"),
}
"""Packages that depend on the newest kernel and hypervisor (Debian 12), and how their names
begin."""

_PATTERNS = {
    "kernel": "linux-image-[0-9]*",
    "busybox": "busybox-static",
    "kmod": "kmod",
    "seabios": "seabios",
    "xen": "xen-hypervisor-[0-9]*",
}
"""By role: how the names of the packages, and of their directories in the cache, begin."""

ROLES = ("kernel", "busybox", "kmod", "seabios")
"""The roles of the packages in `GuestSoftware`. `xen` is fetched only for a Xen host."""

_NO_GUEST_HAS = ("gpu", "hid", "iio", "infiniband", "media", "net", "scsi", "staging", "usb")
_LEFT_OUT = tuple(
    f"**/lib/modules/*/kernel/{kind}"
    for kind in ("sound", *(f"drivers/{kind}" for kind in _NO_GUEST_HAS))
)
"""Drivers for devices that no guest has. Debian 12's kernel has 400 MB with them, 160 without."""

_XEN_ELF = "boot/xen.elf-"

_FRESH = ".new-"
"""The beginning of the names of directories that are not complete yet."""

_NEEDED_IN_INITRAMFS = (b"modules/9p.ko", b"modules/9pnet_virtio.ko", b"modules/virtio_console.ko")


@dataclass(frozen=True, slots=True)
class GuestSoftware:
    """A guest's software, unpacked in the cache.

    `modules` is `…/lib/modules/RELEASE`, with the lists that depmod makes. `initramfs` loads the
    modules for 9p and for virtio consoles, mounts the host's root, which is the 9p share
    `/dev/root`, read-only, and runs the program there that `init=` on the kernel's command line
    names. `busybox` is linked statically. `seabios` has 256 KiB.
    """

    release: str
    vmlinuz: Path
    modules: Path
    initramfs: Path
    busybox: Path
    seabios: Path


def get_guest_software(say: Callable[[str], None]) -> GuestSoftware:
    """The software, from the cache where that has it. `say` gets a line before each thing that is
    fetched or made.

    :raise ObstacleError: when something is not available; the text says what to do.
    """
    cache = cache_home()
    with cache_errors(cache), contextlib.ExitStack() as stack:
        return _SoftwareBuilder(cache, say, stack).software()


def get_seabios(say: Callable[[str], None]) -> Path:
    """SeaBIOS alone, as `get_guest_software` has it.

    :raise ObstacleError: as `get_guest_software`.
    """
    cache = cache_home()
    with cache_errors(cache), contextlib.ExitStack() as stack:
        return _SoftwareBuilder(cache, say, stack).seabios()


def get_xen(say: Callable[[str], None]) -> Path:
    """The Xen hypervisor: the ELF file that a boot loader starts.

    :raise ObstacleError: as `get_guest_software`.
    """
    cache = cache_home()
    with cache_errors(cache), contextlib.ExitStack() as stack:
        return _SoftwareBuilder(cache, say, stack).xen()


@contextlib.contextmanager
def cache_errors(cache: Path) -> Iterator[None]:
    """Turn an OSError in the block into an `ObstacleError` that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OpenRbuError):
            raise
        raise ObstacleError(
            f"the cache {cache} can't be used: {error.strerror}; OPENRBU_CACHE=DIR names another "
            "directory"
        ) from None


def cached_package(cache: Path, role: str) -> Path | None:
    """The directory in the cache of the package for `role` (a key of `_PATTERNS`), of several the
    last by name; None when there is none."""
    return max((cache / "packages").glob(f"{_PATTERNS[role]}_*"), default=None)


def initramfs_place(cache: Path, kernel: Path, busybox: Path) -> Path:
    """The path of the initramfs for the packages in these directories, made or not."""
    return cache / "initramfs" / f"{kernel.name}+{busybox.name}.cpio"


def wanted_packages() -> dict[str, Package]:
    """The packages of `GuestSoftware` by role, as apt knows them now.

    :raise FetchError: when apt is not installed, or does not know one of them.
    """
    names = {"busybox": "busybox-static", "kmod": "kmod"}
    if not INSTALLED_SEABIOS.exists():
        names["seabios"] = "seabios"
    kernel = find_newest(*_NEWEST["kernel"])
    known = find_packages([*names.values()])
    return {"kernel": kernel} | {role: known[name] for role, name in names.items()}


class _SoftwareBuilder:
    """Finds software in the cache, and makes what is missing there. The cache is locked at the
    first need, until `stack` is closed."""

    def __init__(
        self, cache: Path, say: Callable[[str], None], stack: contextlib.ExitStack
    ) -> None:
        self._cache, self._say, self._stack = cache, say, stack
        self._packages = cache / "packages"
        self._is_locked = False

    @cached_property
    def _wanted(self) -> dict[str, Package]:
        return wanted_packages()

    def software(self) -> GuestSoftware:
        if not any((self._cache / "initramfs").glob("*")):  # checked before anything is fetched
            _programs_for_initramfs()
        kernel, busybox = self._need("kernel", self._list_modules), self._need("busybox")
        modules = _inside(kernel, "lib/modules/*")
        return GuestSoftware(
            release=modules.name,
            vmlinuz=_inside(kernel, "boot/vmlinuz-*"),
            modules=modules,
            initramfs=self._initramfs(kernel, busybox),
            busybox=_inside(busybox, "bin/busybox"),
            seabios=self.seabios(),
        )

    def seabios(self) -> Path:
        if INSTALLED_SEABIOS.exists():
            return INSTALLED_SEABIOS
        return _inside(self._need("seabios"), "usr/share/seabios/bios-256k.bin")

    def xen(self) -> Path:
        return _inside(self._need("xen", _unpack_xen), f"{_XEN_ELF}*")

    def _need(self, role: str, finish: Callable[[Path], None] | None = None) -> Path:
        """The directory of the package for `role`. `finish` completes a new one after unpacking.

        :raise FetchError: when it is not in the cache and can't be fetched.
        """
        found = cached_package(self._cache, role)
        if found is None:
            self._lock()
            found = cached_package(self._cache, role)
        if found is None:
            package = self._wanted[role] if role in ROLES else find_newest(*_NEWEST[role])
            found = self._fetch(package, finish)
        return found

    def _fetch(self, package: Package, finish: Callable[[Path], None] | None) -> Path:
        self._check_room(package.size_bytes + package.unpacked_bytes)
        size = human_size(package.size_bytes)
        self._say(f"fetching {package.name} {package.version} ({size}) …")
        with self._fresh() as fresh:
            root = fresh / "root"
            root.mkdir()
            unpack(download(package, fresh), root)
            _leave_out(root)
            if finish is not None:
                finish(root)
            return root.rename(self._packages / package.directory_name)

    def _list_modules(self, kernel: Path) -> None:
        """Have depmod write the lists of modules and of their dependencies."""
        release = _inside(kernel, "lib/modules/*").name
        ended = self._run_with_kmod(["depmod", "-b", kernel, release], kernel)
        if ended.status != 0:
            raise ObstacleError(f"depmod failed on {kernel}: {failure_text(ended)}")

    def _run_with_kmod(self, command: list[str | Path], directory: Path) -> ProcessResult:
        """Run a program with depmod and modprobe in its PATH."""
        kmod = _inside(self._need("kmod"), "bin/kmod")
        with self._fresh() as tools:
            for name in ("depmod", "modprobe"):  # the package's own links point to /bin
                (tools / name).symlink_to(kmod)
            # virtme-run makes a temporary directory and does not remove it.
            environment = {"PATH": search_path(tools), "TMPDIR": str(tools)}
            return run(command, directory=directory, environment=environment)

    def _initramfs(self, kernel: Path, busybox: Path) -> Path:
        """The initramfs that virtme-ng makes for a kernel."""
        place = initramfs_place(self._cache, kernel, busybox)
        if place.exists():
            return place
        program = _programs_for_initramfs()
        self._lock()
        if place.exists():
            return place
        self._say(f"making an initramfs for {kernel.name}")
        place.parent.mkdir(exist_ok=True)
        with self._fresh() as fresh:
            made = fresh / "initramfs"
            command: list[str | Path] = [program, "--kimg", _inside(kernel, "boot/vmlinuz-*")]
            command += ["--mods", "auto", "--force-initramfs", "--force-9p", "--disable-kvm"]
            command += ["--busybox", _inside(busybox, "bin/busybox")]
            command += ["--dry-run", "--save-initramfs", made]
            ended = self._run_with_kmod(command, fresh)
            if ended.status != 0 or not made.exists():
                raise ObstacleError(f"virtme-run made no initramfs: {failure_text(ended)}")
            data = made.read_bytes()
            missing = [name.decode() for name in _NEEDED_IN_INITRAMFS if name not in data]
            if missing:  # it does not fail when it finds no modules
                raise ObstacleError(f"virtme-run made an initramfs without {', '.join(missing)}")
            made.rename(place)
        return place

    def _lock(self) -> None:
        """Lock the cache, so that only this process makes something in it. Incomplete directories
        of killed processes are removed."""
        if self._is_locked:
            return
        self._packages.mkdir(parents=True, exist_ok=True)
        lock = self._stack.enter_context(LockFile(self._cache / "lock", create=True))
        if not lock.acquire():
            self._say("waiting for another process that fetches packages …")
            wait_for(lock.acquire, Deadline("the packages"), SIGNAL_CHECK_S)
        self._is_locked = True
        for left in self._packages.glob(f"{_FRESH}*"):
            shutil.rmtree(left)

    @contextlib.contextmanager
    def _fresh(self) -> Iterator[Path]:
        """A directory to make something in, removed at the end of the block."""
        self._lock()
        with tempfile.TemporaryDirectory(prefix=_FRESH, dir=self._packages) as directory:
            yield Path(directory)

    def _check_room(self, size_bytes: int) -> None:
        """:raise ObstacleError: when the cache's disk does not have `size_bytes` free."""
        free = shutil.disk_usage(self._packages).free
        if free < size_bytes:
            raise ObstacleError(
                f"the cache {self._cache} has room for {human_size(free)}, and "
                f"{human_size(size_bytes)} are needed; OPENRBU_CACHE=DIR names another directory"
            )


def _leave_out(root: Path) -> None:
    """Remove the drivers that no guest needs."""
    for pattern in _LEFT_OUT:
        for directory in root.glob(pattern):
            shutil.rmtree(directory)


def _unpack_xen(root: Path) -> None:
    """Unpack the package's compressed hypervisor to a file beside it."""
    packed = _inside(root, "boot/xen-*.gz")
    name = packed.name.removeprefix("xen-").removesuffix(".gz")
    with gzip.open(packed) as source, (root / f"{_XEN_ELF}{name}").open("wb") as elf:
        shutil.copyfileobj(source, elf)


def _inside(root: Path, pattern: str) -> Path:
    """The first path in a package's directory that matches the glob `pattern`.

    :raise ObstacleError: when there is none.
    """
    found = next(root.glob(pattern), None)
    if found is None:
        raise ObstacleError(
            f"there is no {pattern} in {root}: remove that directory, and it is made again"
        )
    return found


def _programs_for_initramfs() -> Path:
    """The path of virtme-run.

    :raise ObstacleError: when it, or a program that it runs, is not installed.
    """
    for name, package in ((QEMU, "qemu-system-x86"), ("file", "file")):
        if find_program(name) is None:
            raise ObstacleError(f"the lab needs {name}: apt-get install {package}")
    program = virtme_run()
    if program is None:
        raise ObstacleError(f"the lab needs the Python package virtme-ng: {INSTALL_EXTRA}")
    return program


def virtme_run() -> Path | None:
    """virtme-ng's program, of this Python or of the system; None when it is not installed."""
    program = Path(sysconfig.get_path("scripts"), "virtme-run")
    return program if program.exists() else find_program("virtme-run")
