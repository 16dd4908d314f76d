"""A machine's files on a mount, call by call, as a Linux 6.1 was seen to answer."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.drivers.dcdbas import SMI_REQUEST
from openrbu.errors import MachineError, ObstacleError
from openrbu.machine import path_locks
from openrbu.machine.virtual import VirtualMachine
from rigs.mounted import Mounted, needs_fuse
from rigs.mounts import DEVICE, ENTRY, program

LOADING, DATA, TYPE = f"{ENTRY}/loading", f"{ENTRY}/data", f"{DEVICE}/image_type"
TIMEOUT = "sys/class/firmware/timeout"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Mounted]:
    """The driver as Linux has it."""
    mounted = Mounted(tmp_path, "linux")
    try:
        mounted.load_module()
        put(mounted.root / TYPE, b"init")
        yield mounted
    finally:
        mounted.close()


@pytest.fixture
def root(system: Mounted) -> Path:
    return system.root


def put(path: Path, data: bytes, flags: int = 0) -> int:
    """Open, one `write`, close."""
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        return os.write(fd, data)
    finally:
        os.close(fd)


def errno_of(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> str | None:
    try:
        call(*arguments, **keywords)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


def everything(root: Path) -> list[Path]:
    return [Path(top) / name for top, dirs, files in os.walk(root) for name in (*dirs, *files)]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# -- the lock on what calls the BIOS --------------------------------------------------------


@pytest.fixture
def smi_request(tmp_path: Path) -> Iterator[tuple[VirtualMachine, Path]]:
    """The machine, and the file on its mount."""
    needs_fuse()
    mounted = Mounted(tmp_path, model="precision-t7600")
    try:
        mounted.machine.load_module("dcdbas", {})
        yield mounted.machine, mounted.path(f"/sys{SMI_REQUEST}")
    finally:
        mounted.close()


def test_while_programs_have_it_open_for_writing_others_can_not_lock_it(
    smi_request: tuple[VirtualMachine, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, file = smi_request
    monkeypatch.setattr(path_locks, "TIMEOUT_S", 0.1)

    def is_locked() -> bool:
        try:
            with machine.path_lock(f"/sys{SMI_REQUEST}"):
                return False
        except ObstacleError:
            return True

    first, second = (os.open(file, os.O_WRONLY) for _ in range(2))
    assert is_locked()
    os.close(first)
    assert is_locked()
    os.close(second)
    assert not is_locked()


def test_while_another_has_it_locked_a_program_can_not_open_it_for_writing(
    smi_request: tuple[VirtualMachine, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, file = smi_request
    monkeypatch.setattr(path_locks, "TIMEOUT_S", 0.1)
    with machine.path_lock(f"/sys{SMI_REQUEST}"):
        assert errno_of(os.open, file, os.O_WRONLY) == "EBUSY"
        assert file.with_name("smi_data_buf_size").read_text() == "0\n"
    os.close(os.open(file, os.O_WRONLY))


# -- looking ----------------------------------------------------------------------------------


def test_every_file_looks_as_the_machine_has_it(system: Mounted) -> None:
    paths = everything(system.root)
    assert len(paths) > 50
    for path in [system.root, *paths]:
        seen = path.lstat()
        has = system.machine.files.stat("/" + str(path.relative_to(system.root)).strip("."))
        assert (seen.st_mode, seen.st_nlink, seen.st_size, seen.st_ino) == (
            has.mode,
            has.link_count,
            has.size_bytes,
            has.inode,
        )
        assert seen.st_mtime == seen.st_ctime == pytest.approx(has.changed_at, abs=1e-3)
        assert (seen.st_uid, seen.st_gid) == (os.geteuid(), os.getegid())
        assert (seen.st_blocks, seen.st_blksize) == (0, 4096)


def test_the_modes_sizes_and_links_are_a_kernels(root: Path) -> None:
    shown = {
        name: (oct((root / name).lstat().st_mode), (root / name).lstat().st_size)
        for name in (LOADING, DATA, TYPE, TIMEOUT, ENTRY, f"{DEVICE}/data", "sys/class")
    }
    assert shown == {
        LOADING: ("0o100644", 4096),
        DATA: ("0o100644", 0),
        TYPE: ("0o100644", 0),
        TIMEOUT: ("0o100644", 4096),
        ENTRY: ("0o120777", 0),
        f"{DEVICE}/data": ("0o100444", 0),
        "sys/class": ("0o40755", 0),
    }
    assert str((root / ENTRY).readlink()) == "../../devices/platform/dell_rbu/firmware/dell_rbu"


def test_a_directory_tells_the_kinds_and_numbers_of_what_is_in_it(root: Path) -> None:
    for top in (root, root / "sys/class/firmware", root / DEVICE):
        for entry in os.scandir(top):
            seen = entry.stat(follow_symlinks=False)
            assert entry.inode() == seen.st_ino
            assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(seen.st_mode)
            assert entry.is_symlink() == stat.S_ISLNK(seen.st_mode)


def test_dots_are_the_directory_and_the_one_above(root: Path) -> None:
    listed = subprocess.run(
        ["ls", "-ai", str(root / DEVICE)], capture_output=True, check=True, text=True
    ).stdout.split()
    numbers = dict(zip(listed[1::2], listed[::2], strict=True))
    assert numbers["."] == str((root / DEVICE).stat().st_ino)
    assert numbers[".."] == str((root / DEVICE).parent.stat().st_ino)


def test_the_file_system_is_empty_and_its_names_are_short(root: Path) -> None:
    shown = os.statvfs(root)
    assert (shown.f_bsize, shown.f_blocks, shown.f_namemax) == (4096, 0, 255)


# -- names that come and go -------------------------------------------------------------------


def test_an_entry_appears_and_vanishes_at_once(root: Path) -> None:
    for _ in range(20):
        assert (root / LOADING).exists()
        put(root / LOADING, b"-1\n")
        assert errno_of((root / LOADING).stat) == "ENOENT"
        assert errno_of((root / ENTRY).lstat) == "ENOENT"
        assert names(root / "sys/class/firmware") == ["timeout"]
        put(root / TYPE, b"init")
        assert (root / LOADING).read_text() == "0\n"


def test_a_module_that_goes_takes_its_files_along_at_once(system: Mounted) -> None:
    put(system.root / LOADING, b"-1\n")
    assert (system.root / DEVICE).is_dir()
    system.unload_module()
    assert not (system.root / DEVICE).exists()
    system.load_module()
    assert (system.root / TYPE).read_text() == "mono\n"


@pytest.mark.parametrize("name", [LOADING, DATA])
def test_a_file_that_is_open_is_no_device_once_its_entry_is_gone(root: Path, name: str) -> None:
    fd = os.open(root / name, os.O_RDWR)
    try:
        put(root / LOADING, b"-1\n")
        for _ in range(2):
            assert errno_of(os.read, fd, 10) == "ENODEV"
            assert errno_of(os.write, fd, b"1\n") == "ENODEV"
            put(root / TYPE, b"init")  # another entry of the same name changes nothing
        os.fsync(fd)
    finally:
        os.close(fd)


def test_files_of_a_machine_that_restarts_are_no_devices(system: Mounted) -> None:
    fd = os.open(system.root / TIMEOUT, os.O_RDWR)
    try:
        assert os.pread(fd, 10, 0) == b"60\n"
        system.machine.restart()
        assert errno_of(os.pread, fd, 10, 0) == "ENODEV"
        assert errno_of(os.write, fd, b"1") == "ENODEV"
        assert (system.root / TIMEOUT).read_text() == "60\n"
    finally:
        os.close(fd)


def test_a_machine_that_is_off_shows_nothing_until_it_is_on(system: Mounted) -> None:
    system.machine.power_off()
    assert names(system.root) == []
    assert errno_of((system.root / "sys").stat) == "ENOENT"
    system.machine.power_on()
    assert names(system.root) == ["dev", "proc", "sys"]


# -- reading and writing ----------------------------------------------------------------------


def test_a_file_is_written_and_read_one_byte_at_a_time(root: Path) -> None:
    data = bytes(range(200))
    put(root / LOADING, b"1\n")
    subprocess.run(["dd", f"of={root / DATA}", "bs=1", "status=none"], input=data, check=True)
    read = subprocess.run(
        ["dd", f"if={root / DATA}", "bs=1", "status=none"], capture_output=True, check=True
    )
    assert read.stdout == data


def test_a_write_takes_a_page_at_most_as_in_linux(root: Path) -> None:
    put(root / LOADING, b"1\n")
    assert put(root / DATA, bytes(9000)) == 4096


def test_two_descriptors_write_at_offsets_of_their_own(root: Path) -> None:
    put(root / LOADING, b"1\n")
    one, other = (os.open(root / DATA, os.O_RDWR) for _ in range(2))
    try:
        os.write(one, b"aaaa")
        os.write(other, b"bb")
        os.write(one, b"cc")
        os.pwrite(other, b"z", 8)
        assert os.pread(one, 20, 0) == b"bbaacc\0\0z"
        assert os.pread(other, 3, 2) == b"aac"
    finally:
        os.close(one)
        os.close(other)


def test_appending_writes_where_the_descriptor_stands(root: Path) -> None:
    put(root / LOADING, b"1\n")
    fd = os.open(root / DATA, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"A" * 3000)
        os.fstat(fd)  # the kernel takes the size 0 for where to append
        os.write(fd, b"B" * 3000)
        assert (root / DATA).read_bytes() == b"A" * 3000 + b"B" * 3000
        put(root / DATA, b"C" * 1000, os.O_APPEND)
        assert (root / DATA).read_bytes() == b"C" * 1000 + b"A" * 2000 + b"B" * 3000
    finally:
        os.close(fd)


def test_nothing_is_ever_cut_off(root: Path) -> None:
    put(root / LOADING, b"1\n")
    put(root / DATA, b"A" * 100)
    put(root / DATA, b"B" * 10, os.O_TRUNC | os.O_CREAT)
    os.truncate(root / DATA, 0)
    fd = os.open(root / DATA, os.O_WRONLY)
    os.ftruncate(fd, 5)
    os.close(fd)
    assert (root / DATA).read_bytes() == b"B" * 10 + b"A" * 90
    os.truncate(root / LOADING, 5000)
    assert (root / LOADING).stat().st_size == 4096
    assert (root / LOADING).read_text() == "1\n"


def test_one_reads_while_another_one_loads(root: Path) -> None:
    reader = os.open(root / DATA, os.O_RDONLY)
    try:
        put(root / LOADING, b"1\n")
        assert os.pread(reader, 10, 0) == b""
        put(root / DATA, b"123")
        assert os.pread(reader, 10, 0) == b"123"
        put(root / LOADING, b"0\n")
        assert errno_of(os.pread, reader, 10, 0) == "ENODEV"
    finally:
        os.close(reader)
    assert (root / DEVICE / "data").read_bytes() == b"123"


# -- what is refused --------------------------------------------------------------------------


def test_each_error_comes_from_the_call_that_earned_it(root: Path) -> None:
    assert errno_of(put, root / TYPE, b"nonsense\n") == "EINVAL"
    with (root / DEVICE / "data").open("rb", buffering=0) as file:
        assert errno_of(file.read, 10) == "ENOMEM"  # nothing is staged
    assert errno_of(os.open, root / DEVICE / "data", os.O_WRONLY) == "EACCES"
    assert errno_of(os.open, root / DEVICE, os.O_WRONLY) == "EISDIR"
    assert errno_of(os.open, root / TYPE, os.O_RDONLY | os.O_DIRECT) == "EINVAL"
    assert errno_of(os.open, root / f"{TYPE}/x", os.O_RDONLY) == "ENOTDIR"


REFUSED: dict[str, tuple[str | None, Callable[[Path, Path], Any]]] = {
    "create": ("EACCES", lambda new, old: new.touch()),
    "mknod of a file": ("EACCES", lambda new, old: os.mknod(new)),
    "mknod of a pipe": ("EPERM", lambda new, old: os.mkfifo(new)),
    "mkdir": ("EPERM", lambda new, old: new.mkdir()),
    "mkdir over a file": ("EEXIST", lambda new, old: old.mkdir()),
    "symlink": ("EPERM", lambda new, old: new.symlink_to("x")),
    "link": ("EPERM", lambda new, old: new.hardlink_to(old)),
    "rename": ("EPERM", lambda new, old: old.rename(new)),
    "unlink": ("EPERM", lambda new, old: old.unlink()),
    "unlink of nothing": ("ENOENT", lambda new, old: new.unlink()),
    "rmdir": ("EPERM", lambda new, old: old.resolve().parent.rmdir()),
    "rmdir of a file": ("ENOTDIR", lambda new, old: old.rmdir()),
    "a new file is none": ("EEXIST", lambda new, old: old.touch(exist_ok=False)),
    "set an attribute": ("ENOTSUP", lambda new, old: os.setxattr(old, "user.x", b"v")),
    "get an attribute": ("ENOTSUP", lambda new, old: os.getxattr(old, "user.x")),
    "truncate a directory": ("EISDIR", lambda new, old: os.truncate(old.parent, 0)),
    "truncate nothing": ("ENOENT", lambda new, old: os.truncate(new, 0)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_root_is_refused_what_sysfs_refuses(root: Path, what: str) -> None:
    answer, call = REFUSED[what]
    before = sorted(map(str, everything(root)))
    assert errno_of(call, root / f"{ENTRY}/new", root / LOADING) == answer
    assert sorted(map(str, everything(root))) == before


def test_the_last_calls_are_refused_as_sysfs_does(root: Path) -> None:
    code = f"""
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("{LOADING}", os.O_RDWR)
libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(100))
print(errno.errorcode[ctypes.get_errno()])
libc.ioctl(fd, 0x1234, 0)
print(errno.errorcode[ctypes.get_errno()])
libc.mmap.restype = ctypes.c_void_p
libc.mmap(None, ctypes.c_long(4096), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
print(errno.errorcode[ctypes.get_errno()])
"""
    assert program(root, code).split() == ["ENOTSUP", "ENOTTY", "ENODEV"]


# -- what should not happen -------------------------------------------------------------------


def test_a_machine_whose_kernel_died_answers_with_eio(system: Mounted) -> None:
    kernel = system.machine.running_kernel()
    fd = os.open(system.root / TIMEOUT, os.O_RDONLY)
    kernel.is_dead = True
    try:
        assert errno_of(os.read, fd, 1) == "EIO"
        assert errno_of((system.root / TIMEOUT).stat) == "EIO"
        with pytest.raises(MachineError):
            system.machine.files.list("/sys")
    finally:
        os.close(fd)
        kernel.is_dead = False


def test_a_defect_is_answered_with_eio_and_logged(
    system: Mounted, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    kernel = system.machine.running_kernel()
    with monkeypatch.context() as patch:
        patch.setattr(kernel.firmware, "run_due", None)
        assert errno_of((system.root / TIMEOUT).stat) == "EIO"
    assert set(system.log) == {"stat_of: TypeError: 'NoneType' object is not callable"}
    system.log.clear()
    assert (system.root / TIMEOUT).read_text() == "60\n"
    assert capfd.readouterr() == ("", "")


# -- an ordinary shell ------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["documented", "linux"])
def test_the_seed_documents_commands_work_in_a_shell(tmp_path: Path, profile: str) -> None:
    mounted = Mounted(tmp_path, profile)
    try:
        mounted.load_module()
        put(mounted.root / TYPE, b"init")
        image = os.urandom(300_001)
        (tmp_path / "bios_image.hdr").write_bytes(image)
        document = (
            "echo 1 > /sys/class/firmware/dell_rbu/loading\n"
            "cp bios_image.hdr /sys/class/firmware/dell_rbu/data\n"
            "echo 0 > /sys/class/firmware/dell_rbu/loading\n"
        )
        script = document.replace("/sys/", f"{mounted.root}/sys/")
        done = subprocess.run(
            ["/bin/sh", "-ec", script], cwd=tmp_path, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert (mounted.root / DEVICE / "data").read_bytes() == image
        shown = subprocess.run(
            ["/bin/sh", "-ec", f"cat {mounted.root / DEVICE}/data"], capture_output=True, check=True
        )
        assert shown.stdout == image
    finally:
        mounted.close()
