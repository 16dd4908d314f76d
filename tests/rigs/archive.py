"""A Debian archive in a directory, of small packages made here; apt itself fetches them from it.

The kernel is none but in the fields that say its version, and modprobe is a script. What takes them
for real ones is real: apt, dpkg-deb, virtme-run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from rigs.needs import leave_out

RELEASE = "9.9.0-1-amd64"
KERNEL = f"linux-image-{RELEASE}"
KERNEL_DIRECTORY = f"{KERNEL}_9.9.1-1"
MODULES = ("9p", "9pnet_virtio", "virtio_console", "overlay")

_KMOD = """\
#!/bin/sh
# depmod -b ROOT RELEASE, and modprobe … -d ROOT … ALIAS, which says what it would load.
case "$0" in
*/depmod)
  cd "$2/lib/modules/$3" && find kernel -name '*.ko*' | sort | sed 's/$/:/' >modules.dep
  exit ;;
esac
while [ $# -gt 1 ]; do [ "$1" = -d ] && root=$2; shift; done
case "$1" in
fs-9p) name=9p ;;
virtio:d00000009*) name=9pnet_virtio ;;
virtio:d00000003*) name=virtio_console ;;
esac
for file in "$root"/lib/modules/*/kernel/$name.ko*; do
  [ -f "$file" ] && echo "insmod $file"
done
"""

_APT = """\
Dir::State "{state}"; Dir::State::status "{state}/status"; Dir::Cache "{state}/cache";
Dir::Etc::SourceList "{state}/sources.list"; Dir::Etc::SourceParts "-"; Dir::Etc::Parts "-";
Acquire::AllowInsecureRepositories "true"; APT::Get::AllowUnauthenticated "true";
APT::Architecture "amd64"; APT::Architectures {{ "amd64"; }};
"""

_OF_DEBIAN = "Origin: Debian\nLabel: Debian\nDate: Sat, 28 Nov 2026 00:00:00 UTC\n"


class Archive:
    """An archive below `directory`, and an apt that knows no other, by way of $APT_CONFIG."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for program in ("apt-get", "dpkg-deb"):
            if shutil.which(program) is None:
                leave_out(f"there is no {program} here to make an archive for")
        self.directory, self._state = directory / "archive", directory / "apt"
        for path in ("archive", "apt/lists/partial", "apt/cache/archives/partial"):
            (directory / path).mkdir(parents=True)
        (self._state / "status").touch()
        (self._state / "sources.list").write_text(f"deb [trusted=yes] file:{self.directory} ./\n")
        config = self._state / "apt.conf"
        config.write_text(_APT.format(state=self._state))
        monkeypatch.setenv("APT_CONFIG", str(config))
        self._index: dict[str | None, list[str]] = {}

    def fill(self, *, without: str = "", programs: str = "bin") -> None:
        """All that a guest's software is made of, but for the module `without`. `programs`: the
        directory that programs are in."""
        modules = {
            f"lib/modules/{RELEASE}/kernel/{name}.ko": b"module"
            for name in MODULES
            if name != without
        }
        left_out = {
            f"lib/modules/{RELEASE}/kernel/{d}/x.ko": b"x" for d in ("sound", "drivers/net")
        }
        kernel = {f"boot/vmlinuz-{RELEASE}": vmlinuz(), **modules, **left_out}
        self.add(KERNEL, "9.9.1-1", kernel)
        self.add("linux-image-amd64", "9.9.1-1", {}, f"Depends: {KERNEL} (= 9.9.1-1)\n")
        self.add("busybox-static", "1:1.2-3", {f"{programs}/busybox": b"#!/bin/sh\n"})
        self.add("kmod", "30-1", {f"{programs}/kmod": _KMOD.encode()})
        self.add("seabios", "1.0-1", {"usr/share/seabios/bios-256k.bin": b"bios"})
        self.update()

    def add(
        self,
        name: str,
        version: str,
        files: dict[str, bytes],
        fields: str = "",
        *,
        installed_size_kib: int = 1,
        suite: str | None = None,
    ) -> None:
        """A package. It is in `suite`, of which apt knows nothing; without it, in the one that apt
        is configured for."""
        root = self.directory / "root"
        for path, data in files.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(0o755)
        (root / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody\n"
        control += f"Installed-Size: {installed_size_kib}\n{fields}Description: made for a test\n"
        (root / "DEBIAN" / "control").write_text(control)
        deb = self.directory / f"{name}.deb"
        _run("dpkg-deb", "--root-owner-group", "-b", root, deb)
        shutil.rmtree(root)
        data = deb.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        where = f"Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {digest}\n"
        self._index.setdefault(suite, []).append(control + where)
        index = "\n".join(self._index[suite]).encode()
        if suite is None:
            (self.directory / "Packages").write_bytes(index)
        else:
            self._write_suite(suite, index)

    def _write_suite(self, suite: str, index: bytes) -> None:
        place, name = self.directory / "dists" / suite, "main/binary-amd64/Packages"
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(index)
        digest = hashlib.sha256(index).hexdigest()
        fields = f"Suite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: main\n"
        (place / "Release").write_text(
            f"{_OF_DEBIAN}{fields}SHA256:\n {digest} {len(index)} {name}\n"
        )

    def be_debians(self) -> None:
        """Have apt take it for Debian's archive."""
        index = (self.directory / "Packages").read_bytes()
        digest = hashlib.sha256(index).hexdigest()
        (self.directory / "Release").write_text(
            f"{_OF_DEBIAN}SHA256:\n {digest} {len(index)} Packages\n"
        )
        self.update()

    def update(self) -> None:
        """Have apt read the archive's index."""
        _run("apt-get", "-o", "APT::Sandbox::User=root", "update")

    def vanish(self) -> None:
        """The packages are gone; apt knows of them still."""
        for deb in self.directory.glob("*.deb"):
            deb.unlink()


def vmlinuz(release: str = RELEASE) -> bytes:
    """What says that it is a Linux kernel, and its version (the boot protocol's setup header)."""
    header = bytearray(2048)
    header[0x1FE:0x200] = b"\x55\xaa"
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H6xH", header, 0x206, 0x020F, 0x400)
    text = f"{release} (made for a test) #1\0".encode()
    header[0x600 : 0x600 + len(text)] = text
    return bytes(header)


def _run(*command: str | Path) -> None:
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def program(directory: Path, name: str, text: str) -> Path:
    """A shell script that can be run."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def put_first(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Have programs in `directory` be found before all others."""
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
