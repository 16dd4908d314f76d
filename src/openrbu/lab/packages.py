"""What a guest is made of: Debian's packages, fetched into a cache and unpacked there.

Theory of operation. apt says which versions there are; `apt-get download` fetches a package and
checks it against the archive's signatures; nothing is installed, and root is not needed. The cache
has a directory for each package and version. It is made beside, under another name, and renamed
when it is whole, by one process at a time: who finds a directory may use it without a lock. What
is in the cache is used as it is, without asking apt: removing it is the way to get newer ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from openrbu.errors import ObstacleError, OpenRbuError
from openrbu.lab.programs import INSTALL_EXTRA, QEMU, Ended, find_program, run, search_path
from openrbu.machine.lockfile import LockFile
from openrbu.signals import LOOK_UP_S
from openrbu.units import KIB, human_size

INSTALLED_SEABIOS = Path("/usr/share/seabios/bios-256k.bin")
"""Of the package seabios, which Debian's QEMU needs anyway."""

_NEWEST_KERNEL = "linux-image-amd64"  # empty; it depends on the kernel of the day (in Debian 12)

_PATTERNS = {
    "kernel": "linux-image-[0-9]*",
    "busybox": "busybox-static",
    "kmod": "kmod",
    "seabios": "seabios",
}
"""The packages by what they are for, as the cache's directories begin."""

ROLES = tuple(_PATTERNS)

_NO_GUEST_HAS = ("gpu", "hid", "iio", "infiniband", "media", "net", "scsi", "staging", "usb")
_LEFT_OUT = tuple(
    f"**/lib/modules/*/kernel/{kind}"
    for kind in ("sound", *(f"drivers/{kind}" for kind in _NO_GUEST_HAS))
)
"""Drivers for what no guest has. Debian 12's kernel takes 400 MB with them, and 160 without."""

_FRESH = ".new-"
"""How the names of directories begin in which something is being made."""

_NEEDED_IN_INITRAMFS = (b"modules/9p.ko", b"modules/9pnet_virtio.ko", b"modules/virtio_console.ko")

_LIKE_DEBIAN = "the lab's packages are Debian's for amd64; on other systems, fill the cache on a \
Debian system and copy it here"


class FetchError(ObstacleError):
    """A package can't be had."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that apt knows: sizes in bytes, of the download and unpacked."""

    name: str
    version: str
    size_bytes: int
    unpacked_bytes: int

    @property
    def directory_name(self) -> str:
        """Its directory in the cache. A version's colon would cut a search path in two."""
        return f"{self.name}_{self.version.replace(':', '%3a')}"


@dataclass(frozen=True, slots=True)
class Kit:
    """What a guest is made of, unpacked in the cache.

    `modules` is `…/lib/modules/RELEASE`, with the lists that depmod makes. `initramfs` mounts the
    host's root, which it expects as the 9p share `/dev/root`, read-only, and runs what `init=` on
    the kernel's command line names there; it has loaded the modules of 9p and virtio consoles by
    then. `busybox` is static. `seabios` is 256 KiB.
    """

    release: str
    vmlinuz: Path
    modules: Path
    initramfs: Path
    busybox: Path
    seabios: Path


def cache_home() -> Path:
    """Where packages are kept: `$OPENRBU_CACHE`, else the platform's user cache directory."""
    given = os.environ.get("OPENRBU_CACHE")
    if given:
        return Path(given).absolute()
    import platformdirs  # noqa: PLC0415  (start-up time)

    return Path(platformdirs.user_cache_dir("openrbu"))


def get_kit(say: Callable[[str], None]) -> Kit:
    """A kit, out of the cache where it is there. `say` gets a line about each thing that is fetched
    or made, before it is.

    :raise ObstacleError: when something can't be had; it says what, and what to do.
    """
    cache = cache_home()
    with cache_errors(cache), contextlib.ExitStack() as stack:
        return _Maker(cache, say, stack).kit()


def get_seabios(say: Callable[[str], None]) -> Path:
    """SeaBIOS alone, as `get_kit` has it.

    :raise ObstacleError: as `get_kit`.
    """
    cache = cache_home()
    with cache_errors(cache), contextlib.ExitStack() as stack:
        return _Maker(cache, say, stack).seabios()


@contextlib.contextmanager
def cache_errors(cache: Path) -> Iterator[None]:
    """What the disk under the cache refuses, as an `ObstacleError` that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OpenRbuError):
            raise
        raise ObstacleError(
            f"the cache {cache} can't be used: {error.strerror}; OPENRBU_CACHE names another place"
        ) from None


def cached_package(cache: Path, role: str) -> Path | None:
    """The directory of the package for `role` ("kernel" …) in the cache; of several the last one by
    name."""
    return max((cache / "packages").glob(f"{_PATTERNS[role]}_*"), default=None)


def initramfs_place(cache: Path, kernel: Path, busybox: Path) -> Path:
    """Where the initramfs for the packages in these directories is, once it is made."""
    return cache / "initramfs" / f"{kernel.name}+{busybox.name}.cpio"


def wanted_packages() -> dict[str, Package]:
    """The packages that a kit is made of, by what they are for, as apt knows them today.

    :raise FetchError: when there is no apt, or it does not know one of them.
    """
    for program in ("apt-cache", "apt-get", "dpkg-deb"):
        if find_program(program) is None:
            raise FetchError(f"there is no {program} here: {_LIKE_DEBIAN}")
    names = [_NEWEST_KERNEL, "busybox-static", "kmod"]
    if not INSTALLED_SEABIOS.exists():
        names.append("seabios")
    known = _ask_apt(names)
    depends = known[_NEWEST_KERNEL]["Depends"]
    kernel = re.search(r"linux-image-[^ ,]+", depends)
    if kernel is None:
        raise FetchError(f"apt's package {_NEWEST_KERNEL} depends on no kernel, but on {depends!r}")
    known |= _ask_apt([kernel[0]])
    fitting = {"kernel": kernel[0], "busybox": "busybox-static", "kmod": "kmod"}
    if "seabios" in known:
        fitting["seabios"] = "seabios"
    return {role: _package(known[name]) for role, name in fitting.items()}


def _ask_apt(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """apt's fields about packages, of the version that it would install.

    :raise FetchError: when it does not know one.
    """
    ended = run(["apt-cache", "show", "--no-all-versions", *names])
    known = {}
    for paragraph in ended.out.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", paragraph, re.MULTILINE))
        if "Package" in fields:
            known[fields["Package"]] = fields
    for name in names:
        if name not in known:
            raise FetchError(f"apt knows no package {name}: try apt-get update ({_LIKE_DEBIAN})")
    return known


def _package(fields: dict[str, str]) -> Package:
    size, unpacked = int(fields["Size"]), int(fields["Installed-Size"]) * KIB
    return Package(fields["Package"], fields["Version"], size, unpacked)


class _Maker:
    """Takes what the cache has, and makes what it lacks. The lock is taken when it is needed first,
    and held as long as `stack`."""

    def __init__(
        self, cache: Path, say: Callable[[str], None], stack: contextlib.ExitStack
    ) -> None:
        self._cache, self._say, self._stack = cache, say, stack
        self._packages = cache / "packages"
        self._is_locked = False

    @cached_property
    def _wanted(self) -> dict[str, Package]:
        return wanted_packages()

    def kit(self) -> Kit:
        if not any((self._cache / "initramfs").glob("*")):  # before much is fetched for nothing
            _programs_for_initramfs()
        kernel, busybox = self._need("kernel", self._list_modules), self._need("busybox")
        modules = _inside(kernel, "lib/modules/*")
        return Kit(
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

    def _need(self, role: str, finish: Callable[[Path], None] | None = None) -> Path:
        """The directory of a package. `finish` does what is to be done to it before it is whole.

        :raise FetchError: when it is not there and can't be fetched.
        """
        found = cached_package(self._cache, role)
        if found is None:
            self._lock()
            found = cached_package(self._cache, role)
        if found is None:
            found = self._fetch(self._wanted[role], finish)
        return found

    def _fetch(self, package: Package, finish: Callable[[Path], None] | None) -> Path:
        self._check_room(package.size_bytes + package.unpacked_bytes)
        size = human_size(package.size_bytes)
        self._say(f"fetching {package.name} {package.version} ({size}) …")
        with self._fresh() as fresh:
            deb = self._download(package, fresh)
            root = fresh / "root"
            root.mkdir()
            _unpack(deb, root)
            if finish is not None:
                finish(root)
            return root.rename(self._packages / package.directory_name)

    def _download(self, package: Package, directory: Path) -> Path:
        """A package's file, in `directory`.

        :raise FetchError: when apt can't fetch it.
        """
        name = f"{package.name}={package.version}"
        # Root's apt would warn that a user of its own can't write here.
        as_this_user = ("-o", "APT::Sandbox::User=root")
        ended = run(["apt-get", "--quiet", *as_this_user, "download", name], directory=directory)
        debs = list(directory.glob("*.deb"))
        if ended.status != 0 or not debs:
            raise FetchError(
                f"{package.name} {package.version} can't be fetched: {_complaint(ended)} (apt-get "
                "update may help)"
            )
        return debs[0]

    def _list_modules(self, kernel: Path) -> None:
        """Have depmod list what modules there are and what they need."""
        release = _inside(kernel, "lib/modules/*").name
        ended = self._run_with_kmod(["depmod", "-b", kernel, release], kernel)
        if ended.status != 0:
            raise ObstacleError(f"depmod failed on {kernel}: {_complaint(ended)}")

    def _run_with_kmod(self, command: list[str | Path], directory: Path) -> Ended:
        """Run a program that finds depmod and modprobe in its PATH."""
        kmod = _inside(self._need("kmod"), "bin/kmod")
        with self._fresh() as tools:
            for name in ("depmod", "modprobe"):  # the package's own links lead to /bin
                (tools / name).symlink_to(kmod)
            # virtme-run makes links in a directory of its own, which is not to outlive it.
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
                raise ObstacleError(f"virtme-run made no initramfs: {_complaint(ended)}")
            data = made.read_bytes()
            missing = [name.decode() for name in _NEEDED_IN_INITRAMFS if name not in data]
            if missing:  # it does not tell when it finds no modules
                raise ObstacleError(f"virtme-run made an initramfs without {', '.join(missing)}")
            made.rename(place)
        return place

    def _lock(self) -> None:
        """Be the one process that makes something; what a killed one left behind is removed."""
        if self._is_locked:
            return
        self._packages.mkdir(parents=True, exist_ok=True)
        lock = self._stack.enter_context(LockFile(self._cache / "lock", create=True))
        if not lock.take():
            self._say("waiting for another process that fetches packages …")
            while not lock.take():
                time.sleep(LOOK_UP_S)
        self._is_locked = True
        for left in self._packages.glob(f"{_FRESH}*"):
            shutil.rmtree(left)

    @contextlib.contextmanager
    def _fresh(self) -> Iterator[Path]:
        """A directory to make something in, which goes with the block."""
        self._lock()
        with tempfile.TemporaryDirectory(prefix=_FRESH, dir=self._packages) as directory:
            yield Path(directory)

    def _check_room(self, size_bytes: int) -> None:
        """:raise ObstacleError: when this much does not fit on the cache's disk."""
        free = shutil.disk_usage(self._packages).free
        if free < size_bytes:
            raise ObstacleError(
                f"the cache {self._cache} has room for {human_size(free)}, and "
                f"{human_size(size_bytes)} are needed; OPENRBU_CACHE names another place"
            )


def _unpack(deb: Path, root: Path) -> None:
    """Unpack a package, but for what no guest needs.

    :raise FetchError: when it is damaged, or does not fit on the disk.
    """
    ended = run(["dpkg-deb", "-x", deb, root])
    if ended.status != 0:
        raise FetchError(f"{deb.name} can't be unpacked: {_complaint(ended)}")
    deb.unlink()
    for pattern in _LEFT_OUT:
        for directory in root.glob(pattern):
            shutil.rmtree(directory)


def _inside(root: Path, pattern: str) -> Path:
    """What a package has at a path, which may be a pattern.

    :raise ObstacleError: when it is not there.
    """
    found = next(root.glob(pattern), None)
    if found is None:
        raise ObstacleError(f"there is no {pattern} in {root}: remove that, to have it made anew")
    return found


def _programs_for_initramfs() -> Path:
    """See that virtme-run can do its work; where it is.

    :raise ObstacleError: when it, or a program that it runs, is not there.
    """
    for name, package in ((QEMU, "qemu-system-x86"), ("file", "file")):
        if find_program(name) is None:
            raise ObstacleError(f"the lab needs {name}: apt-get install {package}")
    program = virtme_run()
    if program is None:
        raise ObstacleError(f"the lab needs the Python package virtme-ng: {INSTALL_EXTRA}")
    return program


def virtme_run() -> Path | None:
    """virtme-ng's program, of this Python's own or of the system; None where it is not."""
    program = Path(sysconfig.get_path("scripts"), "virtme-run")
    return program if program.exists() else find_program("virtme-run")


def _complaint(ended: Ended) -> str:
    """What a program said about why it failed: apt's first error, else the last line."""
    lines = [line.strip() for line in (ended.err + ended.out).splitlines() if line.strip()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    return (errors or lines[-1:] or [f"it ended with status {ended.status}"])[0]
