"""Programs under `rbu run`, as root and as a plain user."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openrbu.machine.config import XenConfig
from openrbu.units import MIB
from rigs.cli import RBU
from rigs.machines import NOBODY, make, opened_up, running
from rigs.mounted import needs_fuse
from rigs.needs import leave_out

USERS = ("root", "nobody")

FUSE_DEVICE_NUMBER = os.makedev(10, 229)  # Documentation/admin-guide/devices.txt of Linux

_PRIVATELY = ("unshare", "--mount", "sh", "-euc")
"""`unshare` makes its mounts private."""


@dataclass(frozen=True)
class Runner:
    """Runs programs on the machine `name`. `prefix` is what a command line begins with, `options`
    are those of `rbu run`."""

    name: str
    directory: Path
    prefix: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def line(self, *words: object) -> list[str]:
        """The command line that runs a program."""
        options = ("--machine", self.name, *self.options)
        return [*self.prefix, *RBU, "run", *options, "--", *map(str, words)]

    def __call__(self, *words: object, **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.line(*words), capture_output=True, check=False, text=True, **how)

    def start(self, *words: object, **how: Any) -> subprocess.Popen[str]:
        """Run a program; the caller ends it. Its standard input and output are pipes."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen(self.line(*words), text=True, **pipes | how)

    def says(self, *words: object, **how: Any) -> str:
        """What a program writes; it has to end well, and without a word on standard error."""
        ended = self(*words, **how)
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return ended.stdout

    def privately(self, script: str) -> Runner:
        """The same in a mount namespace of this computer in which `script` was run before."""
        needs_root()
        prefix = (*_PRIVATELY, f'{script}\nexec "$@"', "sh")
        return replace(self, prefix=(*prefix, *self.prefix))


def xen_order(profile: str) -> dict[str, Any]:
    """What makes a machine a host of Xen: dom0 has 128 MiB and may have 192."""
    xen = XenConfig(dom0_bytes=128 * MIB, dom0_max_bytes=192 * MIB, profile=profile)
    return {"ram_bytes": 256 * MIB, "xen": xen}


EM_X86_64 = 62  # elf.h
IS_X86_64 = Path(sys.executable).read_bytes()[18:20] == struct.pack("H", EM_X86_64)
"""uname(2) would tell the personality."""


def needs_x86_64() -> None:
    if not IS_X86_64:
        leave_out("this is no x86-64, which has the calls for port I/O")


def needs_root() -> None:
    if os.geteuid():
        leave_out("only root can mount things without a user namespace")


def runner(home: Path, user: str, model: str = "precision-t7600", **spec: Any) -> Runner:
    """For a machine made and switched on under `home`."""
    directory = make(home, model, **spec)
    with running(directory):
        pass
    if user == "root":
        needs_root()
        needs_fuse()
        return Runner(directory.name, directory)
    if os.geteuid():
        needs_fuse()
        needs_namespaces()
        return Runner(directory.name, directory)
    return _runner_of_nobody(home, directory)


def _runner_of_nobody(home: Path, directory: Path) -> Runner:
    """A plain user of a computer with a `/dev/fuse` for everybody, as most have it."""
    device = home / "fuse"
    os.mknod(device, 0o020666, FUSE_DEVICE_NUMBER)
    device.chmod(0o666)
    opened_up(home)
    for path in (home, *home.rglob("*")):
        if path != device:
            shutil.chown(path, NOBODY, NOBODY)
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    needs_namespaces(drop)
    script = f'mount --bind {device} /dev/fuse; exec "$@"'
    return Runner(directory.name, directory, (*_PRIVATELY, script, "sh", *drop))


def needs_namespaces(prefix: tuple[str, ...] = ()) -> None:
    tried = subprocess.run(
        [*prefix, "unshare", "--user", "--mount", "--map-root-user", "true"],
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        leave_out("plain users can have no namespaces here")


def with_python(run: Runner, hold: Path) -> Runner:
    """The same where a plain user may not enter a directory in which this Python is."""
    python = Path(sys.executable).resolve()
    closed = [each for each in python.parents if not each.stat().st_mode & 0o001]
    if not closed:
        return run
    top, name = closed[-1], python.relative_to(closed[-1]).parts[0]
    hold.mkdir()
    return run.privately(
        f"mount --bind {top} {hold}; mount -t tmpfs -o mode=755 none {top}\n"
        f"mkdir {top}/{name}; mount --bind {hold}/{name} {top}/{name}"
    )
