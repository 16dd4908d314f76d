"""Bytes that a program does not ask for by read(2): by sendfile, splice and copy_file_range.

A real sysfs gives them. A mount can't, and says so: programs then read. What it must never say is
end of file, as FUSE does by itself of a file without a size, nor give bytes that are not there.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from openrbu.units import PAGE_SIZE
from rigs.mounted import Mounted, needs_fuse
from rigs.mounts import DEVICE, ENTRY

IMAGE = bytes(range(1, 251)) * 100
STAGED = f"{DEVICE}/data"
SIZELESS = (STAGED, f"{DEVICE}/image_type", f"{DEVICE}/packet_size", "proc/modules")
TEXTS = (f"{DEVICE}/uevent", f"{DEVICE}/modalias", "sys/class/firmware/timeout")

COPIES = "import shutil, sys; shutil.{}(sys.argv[1], sys.argv[2])"
SENDFILE = """
import os, sys

fd, to, give = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT), 1
while give:
    try:
        give = os.sendfile(to, fd, None, 1 << 24)
    except OSError:
        break
while data := os.read(fd, 1 << 16) if give else b"":
    os.write(to, data)
"""
"""As busybox's cat and cp do: what sendfile says, and only after an error what read says."""

PROGRAMS = {
    **{name: [name, "{from}", "{to}"] for name in ("cp", "install")},
    **{f"cp {how}": ["cp", how, "{from}", "{to}"] for how in ("-p", "-a", "--sparse=always")},
    "cat": ["sh", "-c", "cat < {from} > {to}"],
    "cat to a pipe": ["sh", "-c", "cat {from} | cat > {to}"],
    "dd": ["dd", "if={from}", "of={to}", "status=none"],
    "dd of large blocks": ["dd", "if={from}", "of={to}", "bs=1M", "status=none"],
    "tail": ["sh", "-c", "tail -c +1 {from} > {to}"],
    **{
        f"Python's {name}": [sys.executable, "-IS", "-c", COPIES.format(name), "{from}", "{to}"]
        for name in ("copyfile", "copy", "copy2")
    },
    "sendfile, and read after an error": [sys.executable, "-ISc", SENDFILE, "{from}", "{to}"],
}


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A mount with an image staged."""
    needs_fuse()
    with tempfile.TemporaryDirectory() as home, closing(Mounted(Path(home), "linux")) as mounted:
        mounted.load_module()
        for path, data in (
            (f"{DEVICE}/image_type", b"init"),
            (f"{ENTRY}/loading", b"1"),
            (f"{ENTRY}/data", IMAGE),
            (f"{ENTRY}/loading", b"0"),
        ):
            mounted.write(f"/{path}", data)
        yield mounted.root


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_copies_what_is_staged(root: Path, tmp_path: Path, name: str) -> None:
    words = {"from": str(root / STAGED), "to": str(tmp_path / "copy")}
    argv = [word.format_map(words) for word in PROGRAMS[name]]
    subprocess.run(argv, check=True)
    assert (tmp_path / "copy").read_bytes() == IMAGE


def test_a_whole_directory_is_copied(root: Path, tmp_path: Path) -> None:
    def unreadable(_directory: str, names: list[str]) -> set[str]:
        return {"autosuspend_delay_ms"} & set(names)  # EIO, as in sysfs

    tree = shutil.copytree(root / DEVICE, tmp_path / "tree", symlinks=True, ignore=unreadable)
    for name in ("data", "image_type", "uevent", "power/control"):
        assert (tree / name).read_bytes() == (root / DEVICE / name).read_bytes() != b"", name


def answers(path: Path, other: Path) -> dict[str, object]:
    """What each of the calls says of a file, after `fstat`, which tells the kernel its size."""
    calls: dict[str, Callable[[int, int], int]] = {
        "sendfile": lambda to, fd: os.sendfile(to, fd, None, PAGE_SIZE),
        "sendfile from a place": lambda to, fd: os.sendfile(to, fd, 1, PAGE_SIZE),
        "splice": lambda to, fd: os.splice(fd, to, PAGE_SIZE),
        "copy_file_range": lambda to, fd: os.copy_file_range(fd, out, PAGE_SIZE),
    }
    said: dict[str, object] = {}
    reading, writing = os.pipe()
    out = os.open(other, os.O_RDWR | os.O_CREAT)
    for name, call in calls.items():
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fstat(fd)
            said[name] = call(writing, fd)
        except OSError as error:
            said[name] = errno.errorcode[error.errno or 0]
        finally:
            os.close(fd)
    for fd in (reading, writing, out):
        os.close(fd)
    return said


@pytest.mark.parametrize("path", [*SIZELESS, *TEXTS])
def test_what_can_not_be_given_is_refused(root: Path, tmp_path: Path, path: str) -> None:
    said = answers(root / path, tmp_path / "copy")
    assert said.pop("copy_file_range") in ("EINVAL", "EXDEV")
    assert said == dict.fromkeys(("sendfile", "sendfile from a place", "splice"), "EINVAL")


@pytest.mark.parametrize("path", SIZELESS)
def test_a_program_sees_no_size(root: Path, path: str) -> None:
    for _ in range(2):
        assert (root / path).stat().st_size == 0
        with (root / path).open("rb", buffering=0) as file:
            assert os.fstat(file.fileno()).st_size == 0
            assert file.seek(0, os.SEEK_END) == 0
            assert file.seek(0) == 0
            assert file.read()
            assert os.fstat(file.fileno()).st_size == 0


def test_who_looks_at_a_file_meanwhile_adds_no_bytes(root: Path, tmp_path: Path) -> None:
    """Where the kernel of this computer may read a text for sendfile (seen on 6.18), one in three
    gets zeros behind the text, up to a whole page."""
    path = root / TEXTS[0]
    looking = f"import os\nprint(flush=True)\nwhile True: os.stat({str(path)!r})"
    beside = subprocess.Popen([sys.executable, "-ISc", looking], stdout=subprocess.PIPE)
    try:
        assert beside.stdout is not None
        beside.stdout.readline()
        got = {answers(path, tmp_path / "copy")["sendfile"] for _ in range(100)}
    finally:
        beside.kill()
        beside.communicate()
    assert got == {"EINVAL"}
