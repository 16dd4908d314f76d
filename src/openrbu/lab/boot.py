"""How a guest is started: QEMU's arguments, the first program, the environment of programs.

The guest's root is this computer's root, copy on write: it is mounted read-only through 9p, with a
file system in the guest's memory over it. So Python, openrbu and the user's files have the same
paths as on this computer, and the guest's changes do not reach this computer. Only `/lab` is
written through: it is the machine's disk, which keeps its content over a restart. The journal of
updates is there, too: `/var/lib/openrbu` is `/lab/openrbu`.

QEMU's initial RAM file system is virtme-ng's: it mounts the root and starts the program of `init=`.
Here that is a shell which reads `init.sh`. It keeps running, as the parent of orphaned processes.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import openrbu
from openrbu.formats.smbios import Structure, Tables
from openrbu.lab.agent import PORT_NAME
from openrbu.lab.packages import GuestSoftware
from openrbu.lab.scratch import fd_path
from openrbu.lab.sizes import LOW_RAM_BYTES
from openrbu.lab.xen import XenBoot
from openrbu.system.home import HOME_VARIABLE
from openrbu.units import MIB

DISK = "disk"
"""The directory in a machine's directory that the guest has as `/lab`."""

_KERNEL_LINE = (
    'console={console} quiet loglevel=1 oops=panic panic=-1{quick}{words} init=/bin/sh -- "{init}"'
)

_QUICK = " cryptomgr.notests acpi=noirq"
"""For a kernel that no Xen runs: without the tests that it makes of its ciphers, and with the
interrupts as the BIOS has routed them. Under emulation, each takes 0.6 s of its start."""

_END_OF_TABLE = 127

_INIT = """\
#!/bin/sh
# The first program of a lab's guest. The file systems of this machine, then the agent.
b() {{ {busybox} "$@"; }}
b mount -t tmpfs tmpfs /run
# A program in this first root takes 0.13 s to start under emulation: it is read anew each time.
b cp {busybox} /run/busybox
b() {{ /run/busybox "$@"; }}
b mount -t proc proc /proc
{overlay}
b mkdir -p /run/host /run/up /run/work /run/root
b mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=524288 host /run/host
b mount -t overlay -o lowerdir=/run/host,upperdir=/run/up,workdir=/run/work overlay /run/root
cd /run/root
b mkdir -p lab lib/modules
b mount -t proc proc proc
b mount -t sysfs sys sys
b mount -t devtmpfs dev dev
b mkdir -p dev/pts dev/shm
b mount -t devpts devpts dev/pts
b mount -t tmpfs tmpfs dev/shm
b mount -t tmpfs tmpfs run
b mount -t tmpfs tmpfs lib/modules
{place_modules}
b mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 lab lab
b mkdir -p lab/openrbu var/lib/openrbu
b mount -o bind lab/openrbu var/lib/openrbu
for name in modprobe insmod rmmod lsmod depmod; do
  [ -e sbin/$name ] || b ln -s {busybox} sbin/$name
done
for name in reboot poweroff halt shutdown systemctl; do
  b rm -f sbin/$name bin/$name
  printf %s {power} >sbin/$name
  b chmod 755 sbin/$name
done
b hostname lab
b ip link set lo up
b chroot . /usr/bin/env PYTHONPATH={package} {python} -S -m openrbu.lab.agent {port}
"""

_ALL_MODULES = "b ln -s {modules} lib/modules/{release}"

_SOME_MODULES = """\
b mkdir -p /run/modules/host /run/modules/up /run/modules/work lib/modules/{release}
b mount -o bind /run/host{modules} /run/modules/host
b mount -t overlay -o lowerdir=/run/modules/host,upperdir=/run/modules/up,\
workdir=/run/modules/work overlay lib/modules/{release}
for file in {left_out}; do
  b rm lib/modules/{release}/$file
  b sed -i "\\|^$file:|d" lib/modules/{release}/modules.dep
done"""
"""kmod's own list, `modules.dep.bin`, still has what is left out: it says "No such file" then."""

_POWER = """\
#!/bin/sh
# In place of the programs of an init system: the lab has no init system.
case "${{0##*/}} $*" in
  reboot* | "shutdown "*-r* | "systemctl "*reboot*) what=reboot ;;
  poweroff* | halt* | shutdown* | "systemctl "*poweroff* | "systemctl "*halt*) what=poweroff ;;
  *) echo "${{0##*/}}: there is no init system in the lab" >&2; exit 1 ;;
esac
sync
exec {busybox} $what -f
"""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a guest is started, besides its machine's parts.

    `kernel_words` are further words of the kernel's command line. `on_terminal`: a shell may run on
    the terminal of this process. With `xen` the guest is a dom0. `left_out`: files of modules that
    the guest has not.
    """

    accelerator: str = "tcg"
    cpus: int = 1
    kernel_words: str = ""
    on_terminal: bool = False
    xen: XenBoot | None = None
    left_out: tuple[Path, ...] = ()

    def kernel_line(self, init: Path) -> str:
        """The kernel's command line. `init` is the guest's first program."""
        console, quick = ("ttyS0", _QUICK) if self.xen is None else ("hvc0", "")
        words = f" {self.kernel_words}" if self.kernel_words else ""
        return _KERNEL_LINE.format(console=console, quick=quick, words=words, init=init)


def write_init(software: GuestSoftware, directory: Path, left_out: Iterable[Path] = ()) -> Path:
    """Write the guest's first program into a machine's directory; its path. `left_out`: files of
    modules that the guest has not."""
    script = directory / "init.sh"
    words = {
        "power": _POWER.format(busybox=shlex.quote(str(software.busybox))),
        "busybox": software.busybox,
        "modules": software.modules,
        "release": software.release,
        "python": sys.executable,
        "port": PORT_NAME,
        "package": Path(openrbu.__file__).parent.parent,
    }
    quoted = {name: shlex.quote(str(word)) for name, word in words.items()}
    files = software.kernel.files_of("overlay")
    overlay = "\n".join(f"b insmod {shlex.quote(str(file))}" for file in files)
    names = " ".join(shlex.quote(str(file.relative_to(software.modules))) for file in left_out)
    place_modules = (_SOME_MODULES if names else _ALL_MODULES).format(**quoted, left_out=names)
    script.write_text(_INIT.format(**quoted, overlay=overlay, place_modules=place_modules))
    script.chmod(0o755)
    return script


def environment() -> dict[str, str]:
    """The environment of programs in the guest."""
    here = os.environ
    path = [str(Path(sys.executable).parent), here.get("PATH", os.defpath), "/usr/sbin:/sbin"]
    kept = {name: here[name] for name in ("TERM", "LANG", "LC_ALL", "COLUMNS") if name in here}
    return {
        **kept,
        "PATH": ":".join(path),
        "HOME": "/root",
        "USER": "root",
        HOME_VARIABLE: "/lab/openrbu",
    }


def on_terminal(software: GuestSoftware, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` with the terminal as its controlling terminal."""
    return [str(software.busybox), "setsid", "-c", *argv]


def for_qemu(tables: Tables) -> list[Structure]:
    """The structures to give to QEMU: all but the end of the table, which QEMU adds itself."""
    return [each for each in tables.structures if each.type != _END_OF_TABLE]


def arguments(
    software: GuestSoftware,
    directory: Path,
    setup: Setup,
    *,
    ram: tuple[int, int],
    rom: int,
    tables: Iterable[int],
    agent: int,
    console: int,
    xen_modules: Sequence[int],
) -> list[str]:
    """QEMU's arguments. `ram` is a descriptor and a size in bytes; `rom`, `tables`, `agent` (a
    socket) and `console` are descriptors. `xen_modules` are, for a dom0, the descriptors of the
    kernel and of the initial RAM file system.
    """
    ram_fd, ram_bytes = ram
    init = write_init(software, directory, setup.left_out)
    words = ["-nodefaults", "-display", "none", "-accel", setup.accelerator, "-cpu", "max"]
    words += ["-smp", str(setup.cpus), "-m", f"{ram_bytes // MIB}M"]
    # For less than 3.5 GiB of RAM, QEMU would have it all below 4 GiB.
    words += ["-machine", f"pc,memory-backend=ram,graphics=off,max-ram-below-4g={LOW_RAM_BYTES}"]
    backend = f"memory-backend-file,id=ram,size={ram_bytes},mem-path={fd_path(ram_fd)},share=on"
    words += ["-object", backend, "-bios", fd_path(rom)]
    for table in tables:
        words += ["-smbios", f"file={fd_path(table)}"]
    words += ["-action", "reboot=shutdown,shutdown=pause", "-rtc", "base=utc"]
    words += _kernel(software, setup, setup.kernel_line(init), xen_modules)
    for tag, path, readonly in (
        ("/dev/root", "/", "on"),  # virtme-ng's initial RAM file system mounts it
        ("host", "/", "on"),  # `init.sh` mounts it again, cached
        ("lab", str(directory / DISK), "off"),
    ):
        words += _shared(tag, path, readonly)
    words += ["-chardev", f"file,id=console,path={fd_path(console)},append=on"]
    words += ["-serial", "chardev:console", "-device", "virtio-serial-pci"]
    words += ["-chardev", f"socket,id=agent,fd={agent}"]
    words += ["-device", f"virtserialport,chardev=agent,name={PORT_NAME}"]
    if setup.on_terminal:
        words += ["-chardev", "stdio,id=terminal,signal=off,mux=on"]
        words += ["-device", "virtconsole,chardev=terminal"]
    return words


def _kernel(
    software: GuestSoftware, setup: Setup, line: str, xen_modules: Sequence[int]
) -> list[str]:
    if setup.xen is None:
        words = ["-kernel", str(software.image), "-initrd", str(software.initramfs)]
        return [*words, "-append", line]
    kernel, initramfs = xen_modules
    return setup.xen.arguments(kernel, initramfs, line)


def _shared(tag: str, path: str, readonly: str) -> list[str]:
    """QEMU's arguments for a directory of this computer as a 9p file system."""
    name = tag.strip("/").replace("/", "-")
    where = path.replace(",", ",,")
    options = f"security_model=none,readonly={readonly},multidevs=remap"
    return [
        *("-fsdev", f"local,id={name},path={where},{options}"),
        *("-device", f"virtio-9p-pci,fsdev={name},mount_tag={tag}"),
    ]
