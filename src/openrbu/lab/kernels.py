"""The kernel of a guest: Debian's newest, that of another package, or a file.

A kernel and its modules are where its package has them, `lib/modules` or `usr/lib/modules`, and its
modules are as they are there, compressed or not.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from openrbu.errors import ObstacleError, UsageError
from openrbu.lab import calls
from openrbu.lab.bzimage import release_of
from openrbu.lab.suites import SUITE

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")

IN_INITRAMFS = ("9p", "9pnet_virtio", "virtio_console")
"""Modules, or parts of the kernel, without which no guest starts: its root, and the way to it."""

_NEEDED = (*IN_INITRAMFS, "overlay")


@dataclass(frozen=True, slots=True)
class KernelPackage:
    """A kernel's package by its name, or by that of a package which depends on it
    (`linux-image-amd64`). `suite`: of Debian's archive; without it, as apt is configured."""

    name: str
    suite: str | None = None

    def __str__(self) -> str:
        return self.name if self.suite is None else f"{self.name}/{self.suite}"

    @property
    def directory_name(self) -> str:
        """The name of the directory in the cache for what this names."""
        return str(self).replace("/", "@")


@dataclass(frozen=True, slots=True)
class KernelFile:
    """A kernel in a file (a bzImage, as /boot/vmlinuz-…). `modules`: the directory of its modules;
    without it, /lib/modules/RELEASE."""

    vmlinuz: Path
    modules: Path | None = None

    def __str__(self) -> str:
        return str(self.vmlinuz)


KernelChoice = KernelPackage | KernelFile

DEFAULT_KERNEL = KernelPackage("linux-image-amd64")
"""Debian's newest, as apt is configured."""


def kernel_choice(text: str | None, modules: Path | None) -> KernelChoice:
    """The kernel that the options `--kernel` and `--modules` name.

    :raise UsageError: when they name none.
    """
    if text is not None and Path(text).is_file():
        return KernelFile(Path(text).absolute(), modules and modules.absolute())
    if modules is not None:
        raise UsageError("--modules are those of a kernel that is a file: --kernel FILE")
    if text is None:
        return DEFAULT_KERNEL
    name, slash, suite = text.partition("/")
    if not _PACKAGE.fullmatch(name) or (slash and not SUITE.fullmatch(suite)):
        raise UsageError(
            f"{text} is neither a kernel's file nor a package (examples: linux-image-amd64, "
            "linux-image-amd64/trixie)"
        )
    return KernelPackage(name, suite or None)


@dataclass(frozen=True)
class Kernel:
    """A kernel that is there. `modules` is `…/lib/modules/RELEASE`, with the lists that depmod
    makes. `name` is that of no other kernel in the cache."""

    name: str
    vmlinuz: Path
    modules: Path

    @property
    def release(self) -> str:
        return self.modules.name

    def files_of(self, module: str) -> tuple[Path, ...]:
        """The files to load for a module, in sequence: those that it needs, then its own. None when
        it is built in.

        :raise ObstacleError: when the kernel does not have it.
        """
        return () if module in self._built_in else calls.module_files(self.modules, module)

    def file_to_leave_out(self, module: str) -> Path | None:
        """The file without which a guest has not this module; None when the kernel has it not.

        :raise ObstacleError: when it is built in.
        :raise UsageError: when no guest starts without it.
        """
        if calls.module_name(module) in _NEEDED:
            raise UsageError(f"no guest starts without the module {module}")
        try:
            files = self.files_of(calls.module_name(module))
        except ObstacleError:
            return None
        if not files:
            raise ObstacleError(f"{module} is built into the kernel {self.release}")
        return files[-1]

    @cached_property
    def _built_in(self) -> frozenset[str]:
        try:
            lines = (self.modules / "modules.builtin").read_text().splitlines()
        except FileNotFoundError:
            return frozenset()
        return frozenset(calls.module_name(line) for line in lines)

    def check(self) -> None:
        """:raise ObstacleError: when no guest starts with it."""
        for module in _NEEDED:
            try:
                self.files_of(module)
            except ObstacleError:
                raise ObstacleError(
                    f"no guest starts with the kernel {self.release}: it has no module {module}"
                ) from None


def kernel_in(root: Path) -> Kernel:
    """The kernel in the directory of a package.

    :raise ObstacleError: when there is none.
    """
    vmlinuz = next(root.glob("boot/vmlinuz-*"), None)
    if vmlinuz is None:
        raise missing_inside(root, "boot/vmlinuz-*")
    for pattern in ("lib/modules/*", "usr/lib/modules/*"):
        for modules in root.glob(pattern):
            return Kernel(root.name, vmlinuz, modules)
    raise missing_inside(root, "lib/modules/*")


def missing_inside(root: Path, pattern: str) -> ObstacleError:
    """The error for a package's directory that lacks what matches the glob `pattern`."""
    return ObstacleError(
        f"there is no {pattern} in {root}: remove that directory, and it is made again"
    )


def kernel_of_file(choice: KernelFile) -> Kernel:
    """The kernel in a file, with its modules.

    :raise ObstacleError: when it can't be a guest's.
    """
    release = release_of(choice.vmlinuz)
    if release is None:
        raise ObstacleError(f"{choice.vmlinuz} is not a kernel for x86 (a bzImage)")
    modules = choice.modules or Path("/lib/modules") / release
    if not (modules / "modules.dep").exists():
        raise ObstacleError(
            f"{modules} has no modules.dep for the kernel {release}: --modules names the directory "
            "of its modules, and depmod makes that list"
        )
    modules = modules.resolve()
    if modules.name != release:
        raise ObstacleError(f"the kernel is {release}, and {modules} has modules for another")
    stamps = [(path, path.stat()) for path in (choice.vmlinuz, modules / "modules.dep")]
    text = repr([(str(path), found.st_size, found.st_mtime_ns) for path, found in stamps])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Kernel(f"{release}-{key}", choice.vmlinuz, modules)
