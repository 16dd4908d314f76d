"""What a lab needs, which of it is on this computer, and the commands that get the rest."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.lab.accel import KVM, accelerator, is_kvm_usable
from openrbu.lab.apt import Apt, FetchError, Package
from openrbu.lab.kernels import (
    DEFAULT_KERNEL,
    KernelChoice,
    KernelFile,
    kernel_in,
    kernel_of_file,
)
from openrbu.lab.package_cache import ANOTHER_CACHE
from openrbu.lab.packages import (
    INSTALLED_SEABIOS,
    ROLES,
    cached_kernel,
    cached_package,
    initramfs_place,
    kernel_package,
    virtme_run,
    wanted_packages,
)
from openrbu.lab.programs import QEMU, find_program, run
from openrbu.lab.sizes import DEFAULT_RAM_BYTES, available_memory_bytes, needed_memory_bytes
from openrbu.lab.suites import debian_archive, known_suite
from openrbu.system.denied import why_not_writable
from openrbu.system.home import cache_home
from openrbu.system.installed import find_bundled, remedy_for
from openrbu.units import MIB, human_size, human_sizes

MEMORY_BYTES = needed_memory_bytes(DEFAULT_RAM_BYTES)

DISK_BYTES = 64 * MIB
"""For machines and their consoles, in addition to packages."""

_COPY = "copy the cache of a Debian system here"


class State(StrEnum):
    """Whether a need is met. A lab fetches what is `TO_FETCH` itself when it starts."""

    HERE = "here"
    TO_FETCH = "to fetch"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a lab needs. `text`: what was found, or why nothing. `remedy`: the command
    that gets it, when it is missing."""

    name: str
    state: State
    text: str
    remedy: str | None = None


def check(say: Callable[[str], None], choice: KernelChoice = DEFAULT_KERNEL) -> list[Need]:
    """All that a lab needs for that kernel. `say` gets a line before a check that takes seconds.

    :raise ObstacleError: when the cache can't be read.
    """
    cache = cache_home()
    packages, to_fetch_bytes, has_all = _packages(cache, choice)
    return [
        *_qemu(),
        _python_package("qemu.qmp"),
        _virtme_ng(),
        _program("file", "file"),
        _program("setpriv", "util-linux"),
        *packages,
        _accelerator(cache, choice, say),
        _memory(),
        _disk(cache, to_fetch_bytes + DISK_BYTES) if has_all else _cache(cache, to_fetch_bytes),
    ]


def _qemu() -> Iterator[Need]:
    install = "apt-get install qemu-system-x86"
    program = find_program(QEMU)
    if program is None:
        yield Need(QEMU, State.MISSING, "not in PATH", install)
        return
    version = run([program, "--version"])
    if version.status != 0:
        yield Need(QEMU, State.MISSING, f"{program} does not run", install)
        return
    yield Need(QEMU, State.HERE, version.out.partition("\n")[0])
    if "virtio-9p-pci" in run([program, "-device", "help"]).out:
        yield Need("9p in QEMU", State.HERE, "virtio-9p-pci")
    else:
        yield Need("9p in QEMU", State.MISSING, "no virtio-9p-pci", install)


def _python_package(name: str) -> Need:
    find_bundled()
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Need(name, State.MISSING, "not in this Python", remedy_for("lab"))
    return Need(name, State.HERE, version)


def _virtme_ng() -> Need:
    program = virtme_run()
    if program is None:
        return Need("virtme-ng", State.MISSING, "no virtme-run in PATH", remedy_for("lab"))
    return Need("virtme-ng", State.HERE, str(program))


def _program(name: str, package: str) -> Need:
    program = find_program(name)
    if program is None:
        return Need(name, State.MISSING, "not in PATH", f"apt-get install {package}")
    return Need(name, State.HERE, str(program))


def _packages(cache: Path, choice: KernelChoice) -> tuple[list[Need], int, bool]:
    """The needs for packages; the bytes on disk for fetching and unpacking the missing ones; and
    whether the cache has all, so that nothing has to be put into it."""
    have = {role: cached_package(cache, role) for role in ROLES}
    if INSTALLED_SEABIOS.exists():
        have["seabios"] = INSTALLED_SEABIOS
    kernel_need, kernel_name, to_fetch_bytes = _kernel(cache, choice)
    del have["kernel"]
    busybox = have["busybox"]
    is_made = kernel_name and busybox and initramfs_place(cache, kernel_name, busybox).exists()
    if is_made and have["kmod"] is None:  # only unpacking a kernel and making the initramfs need it
        del have["kmod"]
    missing = tuple(role for role, path in have.items() if path is None)
    wanted, why, remedy = _known(lambda: wanted_packages(missing))
    needs = [kernel_need]
    for role, path in have.items():
        package = wanted.get(role)
        if path is not None:
            needs.append(Need(role, State.HERE, str(path)))
        elif package is not None:
            needs.append(_to_fetch(role, package))
            to_fetch_bytes += package.size_bytes + package.unpacked_bytes
        else:
            needs.append(Need(role, State.MISSING, why, remedy))
    has_all = bool(is_made) and all(need.state is State.HERE for need in needs)
    return needs, to_fetch_bytes, has_all


def _kernel(cache: Path, choice: KernelChoice) -> tuple[Need, str | None, int]:
    """The need for the kernel; its name where it is here; the bytes on disk that it takes if not.

    Of another suite apt knows nothing before its lists are fetched: then no size is told.
    """
    role = "kernel"
    try:
        if isinstance(choice, KernelFile):
            kernel = kernel_of_file(choice)
        elif (found := cached_kernel(cache, choice)) is not None:
            kernel = kernel_in(found)
        elif choice.suite is not None and known_suite(cache, choice.suite) is None:
            debian_archive()
            return Need(role, State.TO_FETCH, f"{choice}, as Debian's archive has it then"), None, 0
        else:
            apt = Apt() if choice.suite is None else known_suite(cache, choice.suite)
            package = kernel_package(apt or Apt(), choice)
            size_bytes = package.size_bytes + package.unpacked_bytes
            return _to_fetch(role, package), None, size_bytes
        kernel.check()
    except FetchError as error:
        return Need(role, State.MISSING, str(error), _remedy()), None, 0
    except ObstacleError as error:
        return Need(role, State.MISSING, str(error), "--kernel names another"), None, 0
    where = choice if isinstance(choice, KernelFile) else cached_kernel(cache, choice)
    return Need(role, State.HERE, str(where)), kernel.name, 0


def _known(find: Callable[[], dict[str, Package]]) -> tuple[dict[str, Package], str, str | None]:
    """What apt knows of packages; or why it does not, and what helps."""
    try:
        return find(), "", None
    except FetchError as error:
        return {}, str(error), _remedy()


def _remedy() -> str:
    return "apt-get update" if find_program("apt-get") else _COPY


def _to_fetch(role: str, package: Package) -> Need:
    text = f"{package.name} {package.version} ({human_size(package.size_bytes)})"
    return Need(role, State.TO_FETCH, text)


def _accelerator(cache: Path, choice: KernelChoice, say: Callable[[str], None]) -> Need:
    """The accelerator. It is never missing, because emulation always works."""
    name = "accelerator"
    if not is_kvm_usable():
        return Need(name, State.HERE, "tcg: emulation, because there is no usable /dev/kvm")
    program, vmlinuz = find_program(QEMU), _vmlinuz(cache, choice)
    if program is None or vmlinuz is None:
        return Need(name, State.HERE, "tcg, or kvm: checked once QEMU and a kernel are here")
    if accelerator(program, vmlinuz, say) == KVM:
        return Need(name, State.HERE, "kvm")
    return Need(name, State.HERE, "tcg: emulation, because a guest hung with KVM in a trial")


def _vmlinuz(cache: Path, choice: KernelChoice) -> Path | None:
    """The kernel's file, where it is here."""
    if isinstance(choice, KernelFile):
        return choice.vmlinuz
    kernel = cached_kernel(cache, choice)
    return kernel and next(kernel.glob("boot/vmlinuz-*"), None)


def _memory() -> Need:
    free_bytes = available_memory_bytes()
    if free_bytes is None:
        return Need("memory", State.HERE, "the kernel does not say how much is free")
    return _room("memory", free_bytes, MEMORY_BYTES, "end programs that use much of it")


def _cache(cache: Path, to_fetch_bytes: int) -> Need:
    """The need for a cache to put something into: that it can be written, and its disk has room."""
    for directory in (cache, cache / "packages"):
        if why := why_not_writable(directory):
            text = f"the cache {cache} can't be written: {why}"
            return Need("writable cache", State.MISSING, text, ANOTHER_CACHE)
    return _disk(cache, to_fetch_bytes + DISK_BYTES)


def _disk(cache: Path, needed_bytes: int) -> Need:
    existing = next(path for path in (cache, *cache.parents) if os.path.lexists(path))
    free_bytes = shutil.disk_usage(existing).free
    return _room("disk", free_bytes, needed_bytes, ANOTHER_CACHE, str(cache))


def _room(name: str, free_bytes: int, needed_bytes: int, remedy: str, where: str = "") -> Need:
    at = f" at {where}" if where else ""
    free, needed = human_sizes(free_bytes, needed_bytes)
    text = f"{free} free{at}; {needed} are needed"
    if free_bytes < needed_bytes:
        return Need(name, State.MISSING, text, remedy)
    return Need(name, State.HERE, text)


_LACKING = {"disk": "space on the disk", "kernel": "a kernel", "memory": "free memory"}
"""Names of needs as the end of `the lab lacks …`, where the name alone would not say it."""


def obstacle(needs: list[Need]) -> ObstacleError | None:
    """An error that names in one line what is missing and the commands that get it; None when
    nothing is missing."""
    missing = [need for need in needs if need.state is State.MISSING]
    if not missing:
        return None
    names = ", ".join(_LACKING.get(need.name, need.name) for need in missing)
    remedies = "; ".join(dict.fromkeys(need.remedy for need in missing if need.remedy))
    return ObstacleError(f"the lab lacks {names}" + (f": {remedies}" if remedies else ""))
