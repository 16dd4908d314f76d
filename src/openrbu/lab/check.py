"""What a lab needs, which of it is on this computer, and the commands that get the rest."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.lab.accel import KVM, accelerator, is_kvm_usable
from openrbu.lab.apt import FetchError, Package
from openrbu.lab.packages import (
    INSTALLED_SEABIOS,
    ROLES,
    cached_package,
    initramfs_place,
    virtme_run,
    wanted_packages,
)
from openrbu.lab.programs import INSTALL_EXTRA, QEMU, find_program, run
from openrbu.lab.sizes import DEFAULT_RAM_BYTES, needed_memory_bytes
from openrbu.system.home import cache_home
from openrbu.system.meminfo import available_memory_bytes
from openrbu.units import MIB, human_size

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


def check(say: Callable[[str], None]) -> list[Need]:
    """All that a lab needs. `say` gets a line before a check that takes seconds.

    :raise ObstacleError: when the cache can't be read.
    """
    cache = cache_home()
    packages, to_fetch_bytes = _packages(cache)
    return [
        *_qemu(),
        _python_package("qemu.qmp"),
        _virtme_ng(),
        _program("file", "file"),
        _program("setpriv", "util-linux"),
        *packages,
        _accelerator(cache, say),
        _memory(),
        _disk(cache, to_fetch_bytes + DISK_BYTES),
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
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Need(name, State.MISSING, "not in this Python", INSTALL_EXTRA)
    return Need(name, State.HERE, version)


def _virtme_ng() -> Need:
    program = virtme_run()
    if program is None:
        return Need("virtme-ng", State.MISSING, "no virtme-run in PATH", INSTALL_EXTRA)
    return Need("virtme-ng", State.HERE, str(program))


def _program(name: str, package: str) -> Need:
    program = find_program(name)
    if program is None:
        return Need(name, State.MISSING, "not in PATH", f"apt-get install {package}")
    return Need(name, State.HERE, str(program))


def _packages(cache: Path) -> tuple[list[Need], int]:
    """The needs for packages; and the bytes on disk for fetching and unpacking the missing ones."""
    have = {role: cached_package(cache, role) for role in ROLES}
    if INSTALLED_SEABIOS.exists():
        have["seabios"] = INSTALLED_SEABIOS
    kernel, busybox = have["kernel"], have["busybox"]
    is_made = kernel and busybox and initramfs_place(cache, kernel, busybox).exists()
    if is_made and have["kmod"] is None:  # only unpacking a kernel and making the initramfs need it
        del have["kmod"]
    wanted: dict[str, Package] = {}
    why, remedy = "", None
    if None in have.values():
        try:
            wanted = wanted_packages()
        except FetchError as error:
            why, remedy = str(error), "apt-get update" if find_program("apt-get") else _COPY
    needs, size_bytes = [], 0
    for role, path in have.items():
        package = wanted.get(role)
        if path is not None:
            needs.append(Need(role, State.HERE, str(path)))
        elif package is not None:
            text = f"{package.name} {package.version} ({human_size(package.size_bytes)})"
            needs.append(Need(role, State.TO_FETCH, text))
            size_bytes += package.size_bytes + package.unpacked_bytes
        else:
            needs.append(Need(role, State.MISSING, why, remedy))
    return needs, size_bytes


def _accelerator(cache: Path, say: Callable[[str], None]) -> Need:
    """The accelerator. It is never missing, because emulation always works."""
    name = "accelerator"
    if not is_kvm_usable():
        return Need(name, State.HERE, "tcg: emulation, because there is no usable /dev/kvm")
    program, kernel = find_program(QEMU), cached_package(cache, "kernel")
    vmlinuz = kernel and next(kernel.glob("boot/vmlinuz-*"), None)
    if program is None or vmlinuz is None:
        return Need(name, State.HERE, "tcg, or kvm: checked once QEMU and a kernel are here")
    if accelerator(program, vmlinuz, say) == KVM:
        return Need(name, State.HERE, "kvm")
    return Need(name, State.HERE, "tcg: emulation, because a guest hung with KVM in a trial")


def _memory() -> Need:
    free_bytes = available_memory_bytes()
    if free_bytes is None:
        return Need("memory", State.HERE, "the kernel does not say how much is free")
    return _room("memory", free_bytes, MEMORY_BYTES, "end programs that use much of it")


def _disk(cache: Path, needed_bytes: int) -> Need:
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    return _room(
        "disk", free_bytes, needed_bytes, "OPENRBU_CACHE=DIR names another directory", str(cache)
    )


def _room(name: str, free_bytes: int, needed_bytes: int, remedy: str, where: str = "") -> Need:
    at = f" at {where}" if where else ""
    text = f"{human_size(free_bytes)} free{at}; {human_size(needed_bytes)} are needed"
    if free_bytes < needed_bytes:
        return Need(name, State.MISSING, text, remedy)
    return Need(name, State.HERE, text)


def obstacle(needs: list[Need]) -> ObstacleError | None:
    """An error that names in one line what is missing and the commands that get it; None when
    nothing is missing."""
    missing = [need for need in needs if need.state is State.MISSING]
    if not missing:
        return None
    names = ", ".join(need.name for need in missing)
    remedies = "; ".join(dict.fromkeys(need.remedy for need in missing if need.remedy))
    return ObstacleError(f"the lab lacks {names}" + (f": {remedies}" if remedies else ""))
