"""The software of a guest: Debian's packages, fetched into a cache and unpacked there.

Theory of operation. apt says which versions there are. `apt-get download` fetches a package and
checks it against the archive's signatures. Nothing is installed, and root is not needed. What is in
the cache is used without asking apt: remove the cache to get newer packages. Its `packages/` has
Debian's newest kernel and the other packages, `kernels/` the kernels that were asked for by name,
each in a directory of that name, and `apt/` has apt's lists of other suites.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.lab.apt import Apt, Package, failure_text
from openrbu.lab.bzimage import unpacked
from openrbu.lab.kernels import (
    DEFAULT_KERNEL,
    IN_INITRAMFS,
    Kernel,
    KernelChoice,
    KernelFile,
    KernelPackage,
    kernel_in,
    kernel_of_file,
    missing_inside,
)
from openrbu.lab.package_cache import Downloading, PackageCache, cache_errors
from openrbu.lab.programs import QEMU, ProcessResult, find_program, run, search_path
from openrbu.lab.suites import fetch_suite
from openrbu.system.home import cache_home
from openrbu.system.installed import remedy_for

INSTALLED_SEABIOS = Path("/usr/share/seabios/bios-256k.bin")
"""A file of the package seabios, which Debian's QEMU depends on."""

_KERNEL_NAMES = "linux-image-[0-9]"

_SUITES = ("bookworm", "bookworm-backports", "trixie")
"""Suites of Debian's archive whose kernels were tried: 6.1, and 6.12 in two ways of packaging."""

_NEWEST = {"xen": ("xen-system-amd64", "xen-hypervisor-[0-9]")}
"""A package that depends on the newest hypervisor (Debian 12), and how its name begins."""

_PATTERNS = {
    "kernel": f"{_KERNEL_NAMES}*",
    "busybox": "busybox-static",
    "kmod": "kmod",
    "seabios": "seabios",
    "xen": "xen-hypervisor-[0-9]*",
}
"""By role: how the names of the packages, and of their directories in the cache, begin."""

PACKAGE_PATTERNS = tuple(_PATTERNS.values())
"""How the names of the directories in `packages/` of the cache begin."""

ROLES = ("kernel", "busybox", "kmod", "seabios")
"""The roles of the packages in `GuestSoftware`. `xen` is fetched only for a Xen host."""

_NO_GUEST_HAS = ("gpu", "hid", "iio", "infiniband", "media", "net", "scsi", "staging", "usb")
_LEFT_OUT = tuple(
    f"**/lib/modules/*/kernel/{kind}"
    for kind in ("sound", *(f"drivers/{kind}" for kind in _NO_GUEST_HAS))
)
"""Drivers for devices that no guest has. Debian 12's kernel has 400 MB with them, 160 without."""

_XEN_ELF = "boot/xen.elf-"


@dataclass(frozen=True, slots=True)
class GuestSoftware:
    """A guest's software, unpacked in the cache.

    `image` is what QEMU starts: the kernel, uncompressed where that is possible. `initramfs` loads
    the modules for 9p and for virtio consoles, mounts the host's root, which is the 9p share
    `/dev/root`, read-only, and runs the program there that `init=` on the kernel's command line
    names. `busybox` is linked statically. `seabios` has 256 KiB.
    """

    kernel: Kernel
    image: Path
    initramfs: Path
    busybox: Path
    seabios: Path

    @property
    def release(self) -> str:
        """The kernel's release, as `uname -r` has it."""
        return self.kernel.release

    @property
    def vmlinuz(self) -> Path:
        """The kernel as its package has it."""
        return self.kernel.vmlinuz

    @property
    def modules(self) -> Path:
        """`…/lib/modules/RELEASE`, with the lists that depmod makes."""
        return self.kernel.modules


def get_guest_software(
    say: Callable[[str], None],
    choice: KernelChoice = DEFAULT_KERNEL,
    downloading: Downloading = contextlib.nullcontext,
) -> GuestSoftware:
    """The software, from the cache where that has it. `say` gets a line before each thing that is
    fetched or made, and `downloading` is entered for each download.

    :raise ObstacleError: when something is not available, or no guest starts with that kernel; the
        text says what to do.
    """
    cache = cache_home()
    with cache_errors(cache), contextlib.ExitStack() as stack:
        return _SoftwareBuilder(PackageCache(cache, say, stack, downloading)).software(choice)


def get_seabios(say: Callable[[str], None]) -> Path:
    """SeaBIOS alone, as `get_guest_software` has it.

    :raise ObstacleError: as `get_guest_software`.
    """
    cache = cache_home()
    with cache_errors(cache), contextlib.ExitStack() as stack:
        return _SoftwareBuilder(PackageCache(cache, say, stack)).seabios()


def get_xen(say: Callable[[str], None], downloading: Downloading = contextlib.nullcontext) -> Path:
    """The Xen hypervisor: the ELF file that a boot loader starts.

    :raise ObstacleError: as `get_guest_software`.
    """
    cache = cache_home()
    with cache_errors(cache), contextlib.ExitStack() as stack:
        return _SoftwareBuilder(PackageCache(cache, say, stack, downloading)).xen()


def cached_package(cache: Path, role: str) -> Path | None:
    """The directory in the cache of the package for `role` (a key of `_PATTERNS`), of several the
    last by name; None when there is none."""
    return max((cache / "packages").glob(f"{_PATTERNS[role]}_*"), default=None)


def cached_kernel(cache: Path, choice: KernelPackage) -> Path | None:
    """The directory in the cache of a kernel's package; None when there is none."""
    if choice == DEFAULT_KERNEL:
        return cached_package(cache, "kernel")
    place = cache / "kernels" / choice.directory_name
    return max(place.glob("*_*"), default=None)


def kernels_to_name(cache: Path) -> list[str]:
    """Packages for a `KernelPackage`, as texts: Debian's usual ones, and those in the cache."""
    usual = [str(DEFAULT_KERNEL), *(f"{DEFAULT_KERNEL}/{suite}" for suite in _SUITES)]
    fetched = (path.name.replace("@", "/") for path in (cache / "kernels").glob("*"))
    return list(dict.fromkeys([*usual, *sorted(fetched)]))


def initramfs_place(cache: Path, kernel_name: str, busybox: Path) -> Path:
    """The path of the initramfs for a kernel and the package of busybox, made or not."""
    return cache / "initramfs" / f"{kernel_name}+{busybox.name}.cpio"


def wanted_packages(roles: tuple[str, ...] = ROLES) -> dict[str, Package]:
    """The packages for these roles, as apt knows them now. `kernel` is Debian's newest.

    :raise FetchError: when apt is not installed, or does not know one of them.
    """
    names = {"busybox": "busybox-static", "kmod": "kmod"}
    if not INSTALLED_SEABIOS.exists():
        names["seabios"] = "seabios"
    names = {role: name for role, name in names.items() if role in roles}
    found = {"kernel": kernel_package(Apt(), DEFAULT_KERNEL)} if "kernel" in roles else {}
    known = Apt().find_packages([*names.values()]) if names else {}
    return found | {role: known[name] for role, name in names.items()}


def kernel_package(apt: Apt, choice: KernelPackage) -> Package:
    """The package that has the kernel: the one that is named, or the one on which that depends.

    :raise FetchError: as `Apt.find_newest`.
    """
    if choice.name.startswith("linux-image-") and choice.name[len("linux-image-")].isdigit():
        return apt.find_packages([choice.name])[choice.name]
    return apt.find_newest(choice.name, _KERNEL_NAMES)


class _SoftwareBuilder:
    """Finds software in the cache, and makes what is missing there."""

    def __init__(self, cache: PackageCache) -> None:
        self._cache = cache

    @cached_property
    def _wanted(self) -> dict[str, Package]:
        return wanted_packages(("busybox", "kmod", "seabios"))

    def software(self, choice: KernelChoice) -> GuestSoftware:
        if not any((self._cache.directory / "initramfs").glob("*")):  # before anything is fetched
            _programs_for_initramfs()
        if isinstance(choice, KernelFile):
            kernel = kernel_of_file(choice)
            image = kernel.vmlinuz
        else:
            kernel = kernel_in(self._kernel(choice))
            image = unpacked(kernel.vmlinuz)
        kernel.check()
        busybox = self._need("busybox")
        return GuestSoftware(
            kernel,
            image,
            initramfs=self._initramfs(kernel, busybox),
            busybox=_program(busybox, "busybox"),
            seabios=self.seabios(),
        )

    def seabios(self) -> Path:
        if INSTALLED_SEABIOS.exists():
            return INSTALLED_SEABIOS
        return _inside(self._need("seabios"), "usr/share/seabios/bios-256k.bin")

    def xen(self) -> Path:
        return _inside(self._need("xen", _unpack_xen), f"{_XEN_ELF}*")

    def _kernel(self, choice: KernelPackage) -> Path:
        """The directory of a kernel's package.

        :raise FetchError: when it is not in the cache and can't be fetched.
        """
        cache = self._cache.directory
        if (found := cached_kernel(cache, choice)) is not None:
            return found
        self._cache.lock()
        if (found := cached_kernel(cache, choice)) is not None:
            return found
        apt, place = Apt(), cache / "kernels" / choice.directory_name
        if choice == DEFAULT_KERNEL:
            place = cache / "packages"
        elif choice.suite is not None:
            self._cache.say(f"fetching the lists of Debian's suite {choice.suite} …")
            apt = fetch_suite(cache, choice.suite)
        package = kernel_package(apt, choice)
        return self._cache.fetch(apt, package, place, partial(self._finish_kernel, package.name))

    def _finish_kernel(self, package: str, root: Path) -> None:
        """Remove the drivers that no guest needs, and have depmod list the others."""
        for pattern in _LEFT_OUT:
            for directory in root.glob(pattern):
                shutil.rmtree(directory)
        try:
            kernel = kernel_in(root)
        except ObstacleError:
            raise ObstacleError(f"the package {package} has no kernel with modules") from None
        ended = self._run_with_kmod(["depmod", "-b", ".", kernel.release], kernel)
        if ended.status != 0:
            raise ObstacleError(f"depmod failed on {package}: {failure_text(ended)}")

    def _need(self, role: str, finish: Callable[[Path], None] = lambda root: None) -> Path:
        """The directory of the package for `role`. `finish` completes a new one after unpacking.

        :raise FetchError: when it is not in the cache and can't be fetched.
        """
        cache = self._cache.directory
        found = cached_package(cache, role)
        if found is None:
            self._cache.lock()
            found = cached_package(cache, role)
        if found is None:
            package = Apt().find_newest(*_NEWEST[role]) if role in _NEWEST else self._wanted[role]
            found = self._cache.fetch(Apt(), package, cache / "packages", finish)
        return found

    def _run_with_kmod(self, command: list[str | Path], kernel: Kernel) -> ProcessResult:
        """Run a program with depmod and modprobe in its PATH. Its directory has the kernel in
        `boot`, and the kernel's modules where any kmod looks for them."""
        kmod = _program(self._need("kmod"), "kmod")
        with self._cache.fresh() as fresh:
            tools, root = fresh / "tools", fresh / "root"
            tools.mkdir()
            for name in ("depmod", "modprobe"):  # the package's own links point to /bin
                (tools / name).symlink_to(kmod)
            (root / "boot").mkdir(parents=True)
            # No link: virtme-ng 1.35 (Debian 13) asks `file` about the link itself.
            shutil.copyfile(kernel.vmlinuz, root / f"boot/vmlinuz-{kernel.release}")
            (root / "usr/lib/modules").mkdir(parents=True)
            (root / f"usr/lib/modules/{kernel.release}").symlink_to(kernel.modules)
            (root / "lib").symlink_to("usr/lib")
            # virtme-run makes a temporary directory and does not remove it.
            environment = {"PATH": search_path(tools), "TMPDIR": str(tools)}
            return run(command, directory=root, environment=environment)

    def _initramfs(self, kernel: Kernel, busybox: Path) -> Path:
        """The initramfs that virtme-ng makes for a kernel."""
        place = initramfs_place(self._cache.directory, kernel.name, busybox)
        if place.exists():
            return place
        program = _programs_for_initramfs()
        self._cache.lock()
        if place.exists():
            return place
        self._cache.say(f"making an initramfs for {kernel.name}")
        place.parent.mkdir(exist_ok=True)
        with self._cache.fresh() as fresh:
            made = fresh / "initramfs"
            command: list[str | Path] = [program, "--kimg", f"boot/vmlinuz-{kernel.release}"]
            command += ["--mods", "auto", "--force-initramfs", "--force-9p", "--disable-kvm"]
            command += ["--busybox", _program(busybox, "busybox")]
            command += ["--dry-run", "--save-initramfs", made]
            ended = self._run_with_kmod(command, kernel)
            if ended.status != 0 or not made.exists():
                raise ObstacleError(f"virtme-run made no initramfs: {failure_text(ended)}")
            data = made.read_bytes()
            files = [file for module in IN_INITRAMFS for file in kernel.files_of(module)]
            missing = [file.name for file in files if f"modules/{file.name}".encode() not in data]
            if missing:  # it does not fail when it finds no modules
                raise ObstacleError(f"virtme-run made an initramfs without {', '.join(missing)}")
            made.rename(place)
        return place


def _unpack_xen(root: Path) -> None:
    """Unpack the package's compressed hypervisor to a file beside it."""
    packed = _inside(root, "boot/xen-*.gz")
    name = packed.name.removeprefix("xen-").removesuffix(".gz")
    with gzip.open(packed) as source, (root / f"{_XEN_ELF}{name}").open("wb") as elf:
        shutil.copyfileobj(source, elf)


def _program(root: Path, name: str) -> Path:
    """A program of a package: from Debian 13 on in `usr/bin`, before that in `bin`.

    :raise ObstacleError: when it is in neither.
    """
    return _inside(root, f"bin/{name}", f"usr/bin/{name}")


def _inside(root: Path, *patterns: str) -> Path:
    """The first path in a package's directory that matches one of these glob patterns.

    :raise ObstacleError: when there is none.
    """
    found = next((path for pattern in patterns for path in root.glob(pattern)), None)
    if found is None:
        raise missing_inside(root, patterns[-1])
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
        raise ObstacleError(f"the lab needs the Python package virtme-ng: {remedy_for('lab')}")
    return program


def virtme_run() -> Path | None:
    """virtme-ng's program, of this Python or of the system; None when it is not installed."""
    program = Path(sysconfig.get_path("scripts"), "virtme-run")
    return program if program.exists() else find_program("virtme-run")
