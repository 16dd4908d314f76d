"""The files of openrbu's own driver, and this computer's beside them."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from openrbu.drivers.sysfs import Symlink, SysfsTree, TextAttribute
from openrbu.errors import KernelError
from openrbu.fuse.tree_files import TreeFiles
from openrbu.hosts.own_driver import REAL_SYS
from openrbu.run.overlay import (
    KMOD,
    OF_OWN_DRIVER,
    Overlay,
    real_entries,
)

DIRECTORIES = (
    "bus/pci",
    "bus/platform/devices",
    "bus/platform/drivers/dcdbas",
    "class/dmi/id",
    "class/firmware",
    "devices/platform/dell_rbu",  # of a driver that was loaded when nobody thought of it
    "devices/platform/serial8250",
    "firmware/dmi",
    "kernel/reboot",
    "module/ext4",
)
LINKS = {
    "bus/platform/devices/dell_rbu": "../../../devices/platform/dell_rbu",
    "bus/platform/devices/serial8250": "../../../devices/platform/serial8250",
}


class Driver:
    """A driver's tree."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tree = SysfsTree()
        self.tree.add("/devices/platform/dell_rbu/image_type", TextAttribute(lambda: "mono\n"))
        link = Symlink("../../../devices/platform/dell_rbu")
        self.tree.add("/bus/platform/devices/dell_rbu", link)
        self.tree.add("/class/firmware/timeout", TextAttribute(lambda: "ours\n"))


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    for name in DIRECTORIES:
        (tmp_path / "sys" / name).mkdir(parents=True)
    for name, target in LINKS.items():
        (tmp_path / "sys" / name).symlink_to(target)
    (tmp_path / "sys/class/firmware/timeout").write_text("theirs\n")
    return tmp_path / "sys"


@pytest.fixture
def files(sys: Path) -> Overlay:
    real = real_entries(sys.parent, OF_OWN_DRIVER)
    return Overlay(TreeFiles(Driver()), real, places=OF_OWN_DRIVER, later=sys)


def error_of(call: object, path: str, **how: bool) -> str:
    assert callable(call)
    with pytest.raises(KernelError) as caught:
        call(path, **how)
    return caught.value.name


def read(files: Overlay, path: str) -> bytes:
    return files.open(path, reading=True).read(0, 100)


def test_the_drivers_files_are_ours_and_all_else_is_this_computers(files: Overlay) -> None:
    assert files.list("/sys") == [
        "bus", "class", "devices", "firmware", "kernel", "module",
    ]  # fmt: skip
    assert read(files, "/sys/devices/platform/dell_rbu/image_type") == b"mono\n"
    assert files.list("/sys/devices/platform/dell_rbu") == ["image_type"]
    # Where this computer has an entry, that is bound on a placeholder.
    assert error_of(files.open, "/sys/class/firmware/timeout", reading=True) == "EPERM"
    for path in ("/sys/kernel", "/sys/firmware", "/sys/class/dmi", "/sys/module/ext4"):
        assert stat.S_ISDIR(files.stat(path).mode)
        assert not files.is_machines(path)
    assert files.readlink("/sys/bus/platform/devices/serial8250").endswith("/serial8250")


def test_a_module_that_is_loaded_while_the_program_runs_shows(files: Overlay, sys: Path) -> None:
    """An update tool loads dcdbas, and uses its files then."""
    path = "/sys/devices/platform/dcdbas"
    assert error_of(files.stat, path) == "ENOENT"
    (sys / "devices/platform/dcdbas").mkdir()
    (sys / "bus/platform/devices/dcdbas").symlink_to("../../../devices/platform/dcdbas")
    assert "dcdbas" in files.list("/sys/devices/platform")
    assert stat.S_ISLNK(files.stat(path).mode)
    assert files.readlink(path) == f"{REAL_SYS}/devices/platform/dcdbas"
    assert files.readlink("/sys/bus/platform/devices/dcdbas") == (
        "../../../devices/platform/dcdbas"
    )
    (sys / "devices/platform/dcdbas").rmdir()
    assert error_of(files.stat, path) == "ENOENT"
    assert "dcdbas" not in files.list("/sys/devices/platform")


def test_a_driver_of_the_kernel_never_shows_through(files: Overlay, sys: Path) -> None:
    (sys / "module/dell_rbu").mkdir()
    assert files.list("/sys/module") == ["ext4"]
    assert error_of(files.stat, "/sys/module/dell_rbu") == "ENOENT"
    assert files.list("/sys/bus/platform/devices") == ["dell_rbu", "serial8250"]


def test_what_only_binds_need_is_there_and_not_listed(files: Overlay) -> None:
    for path in (REAL_SYS, KMOD):
        assert stat.S_ISDIR(files.stat(path).mode)
        assert path.rpartition("/")[2] not in files.list("/sys")


def test_a_tree_has_its_root_and_sys_alone() -> None:
    files = TreeFiles(Driver())
    assert files.list("/") == ["sys"]
    assert stat.S_ISDIR(files.stat("/").mode)
    assert files.stat("/").inode != files.stat("/sys").inode
    assert files.list("/sys") == ["bus", "class", "devices"]
    assert error_of(files.stat, "/proc") == "ENOENT"
    assert error_of(files.readlink, "/") == "EINVAL"
    assert error_of(files.open, "/", reading=True) == "EISDIR"
    file = files.open("/sys/devices/platform/dell_rbu/image_type", reading=True)
    assert (file.read(0, 10), file.stat().size_bytes) == (b"mono\n", 4096)
    file.close()
