"""Firmware files that programs give a machine's kernel: which ones it finds below their root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrbu.drivers.firmware_class import SEARCH_PATH
from openrbu.errors import KernelError
from openrbu.hosts.base import read_file
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.base import Machine
from openrbu.machine.program_files import ProgramFiles
from openrbu.update.driver import IMAGE_TYPE
from rigs.machines import make, running
from rigs.served import client, serving

DATA = "/sys/devices/platform/dell_rbu/data"


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[int]:
    """A descriptor of a directory, as it is given as a root."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def find(tmp_path: Path) -> Iterator[Callable[[str], bytes | None]]:
    """What is found below `tmp_path`."""
    files = ProgramFiles()
    with opened(tmp_path) as root, contextlib.closing(files):
        files.use("test", f"/proc/self/fd/{root}")

        def content(path: str) -> bytes | None:
            found = files.find(path)
            return None if found is None else b"".join(found.views())

        yield content


def test_links_lead_to_what_the_program_sees(
    tmp_path: Path, find: Callable[[str], bytes | None]
) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/image").write_bytes(b"image")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr/all").symlink_to("/lib")
    (tmp_path / "up").symlink_to("../../../usr/all/image")
    (tmp_path / "host").symlink_to(f"{tmp_path}/usr/lib/image")  # not below its root
    for path in ("/lib/image", "//lib/./image", "/usr/all/image", "/up", "/lib/../../lib/image"):
        assert find(path) == b"image", path
    for path in ("/host", "/image", "/lib/image/x", "/a\0b", ""):
        assert find(path) is None, path


def test_what_is_no_file_or_is_served_is_not_found(
    tmp_path: Path, find: Callable[[str], bytes | None]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/image").write_bytes(b"image")
    (tmp_path / "to-sys").symlink_to("/sys")
    (tmp_path / "round").symlink_to("round")
    for path in ("/fifo", "/sys", "/sys/image", "/to-sys/image", "/round"):
        assert find(path) is None, path


def test_a_path_through_a_process_leads_to_its_root(
    tmp_path: Path, find: Callable[[str], bytes | None]
) -> None:
    (tmp_path / "image").write_bytes(b"image")
    assert find(f"/proc/{os.getpid()}/root{tmp_path}/image") == b"image"
    assert find(f"/proc/self/root{tmp_path}/image") is None
    assert find(f"/proc/{os.getpid()}/root/proc/self/status") is None


def test_a_root_is_an_open_directory_and_nothing_else() -> None:
    with contextlib.closing(ProgramFiles()) as files:
        for root in ("/", "/proc/self/cwd", f"/proc/{os.getpid()}/root", "/proc/1/fd/0/..", "\0"):
            with pytest.raises(KernelError):
                files.use("test", root)
        with pytest.raises(FileNotFoundError):
            files.use("test", f"/proc/{os.getpid()}/fd/999999")


def check_it_is_staged_while_used(machine: Machine, top: Path) -> None:
    """A file below a root is staged, and not when the root is no longer used."""
    top.mkdir()
    (top / "dell_rbu").write_bytes(b"image")
    host = VirtualHost(machine)
    machine.load_module("dell_rbu", {})
    host.write(f"/sys{SEARCH_PATH}", b"/\0")
    with opened(top) as root:
        machine.use_root(root)
    host.write(IMAGE_TYPE, b"init")
    assert read_file(host, DATA) == b"image"
    machine.use_root(None)
    host.write(IMAGE_TYPE, b"init")
    with pytest.raises(KernelError, match="no image is staged"):
        read_file(host, DATA)


def test_the_kernel_takes_a_file_while_the_root_is_used(tmp_path: Path) -> None:
    with running(make(tmp_path, faults=("no-firmware-entry",))) as machine:
        check_it_is_staged_while_used(machine, tmp_path / "root")


def test_the_kernel_of_a_machine_in_another_process_does_so_too(tmp_path: Path) -> None:
    directory = make(tmp_path, faults=("no-firmware-entry",))
    with serving(directory), client(directory) as machine:
        check_it_is_staged_while_used(machine, tmp_path / "root")
