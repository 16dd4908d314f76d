"""A mount's life: mounting, serving, the ways it ends, and what a killed server leaves."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError
from openrbu.system import fuse_mounts
from openrbu.system.fuse_mounts import Mount, mounts, remove_dead_mounts, unmount
from rigs.machines import as_nobody, make, running
from rigs.mounted import Mounted, needs_fuse
from rigs.mounts import are_mounted, machine_with_driver, needs_root, unmounted


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Mounted]:
    mounted = Mounted(tmp_path)
    try:
        yield mounted
    finally:
        mounted.close()


_ALONE = """
import os, sys, threading
from pathlib import Path
from openrbu.fuse.callers import CallerMap
from openrbu.fuse.session import FuseSession
from openrbu.machine.virtual import VirtualMachine
from openrbu.system import fuse_mounts

directory, target = sys.argv[1:]
with VirtualMachine(Path(directory)) as machine:
    fd = fuse_mounts.open_device()
    fuse_mounts.mount_device(fd, target, directory)
    session = FuseSession(machine.files, fd, CallerMap.of_this_process(), log=print)
    session.start()
    print("ready", os.getcwd(), flush=True)
    END
"""


@contextlib.contextmanager
def alone(directory: Path, target: Path, end: str) -> Iterator[subprocess.Popen[str]]:
    """A process that serves a mount, and does `end` then."""
    needs_root()
    needs_fuse()
    target.mkdir(exist_ok=True)
    with unmounted(directory):
        process = subprocess.Popen(
            [sys.executable, "-c", _ALONE.replace("END", end), str(directory), str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


# -- a session ------------------------------------------------------------------------------


def test_the_working_directory_and_the_signals_stay_this_programs(tmp_path: Path) -> None:
    directory = make(tmp_path / "home")
    with alone(directory, tmp_path / "mount", "sys.stdin.read()") as process:
        assert first_line(process) == f"ready {Path.cwd()}\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


def test_a_session_ends_when_it_is_unmounted_from_outside(tmp_path: Path) -> None:
    directory = make(tmp_path / "home")
    with alone(directory, tmp_path / "mount", "session.wait(); print('over')") as process:
        first_line(process)
        subprocess.run(["umount", str(tmp_path / "mount")], check=True)
        assert process.communicate(timeout=30) == ("over\n", "")


def test_a_session_can_be_stopped_while_somebody_is_in_the_mount(tmp_path: Path) -> None:
    directory = make(tmp_path / "home")
    with running(directory):
        pass
    end = "sys.stdin.read(1); session.stop(); session.wait(); print('over')"
    with alone(directory, tmp_path / "mount", end) as process:
        first_line(process)
        fd = os.open(tmp_path / "mount/sys/class/firmware/timeout", os.O_RDONLY)
        assert os.read(fd, 3) == b"60\n"
        assert process.communicate("x", timeout=30) == ("over\n", "")
        for call in (lambda: os.read(fd, 3), lambda: os.close(fd)):
            with pytest.raises(OSError, match=r"not connected|abort"):
                call()
        assert remove_dead_mounts(str(directory)) == 1


def test_sessions_follow_one_another_at_one_place(tmp_path: Path) -> None:
    directory = make(tmp_path / "home")
    for _ in range(3):
        with alone(directory, tmp_path / "mount", "sys.stdin.read(); session.stop()") as process:
            first_line(process)
            assert process.communicate(timeout=30) == ("", "")
        assert mounts_below(tmp_path) == []


def test_a_session_that_never_began_closes_its_descriptor(system: Mounted) -> None:
    from openrbu.fuse.callers import CallerMap
    from openrbu.fuse.session import FuseSession

    reading, writing = os.pipe()
    FuseSession(system.machine.files, reading, CallerMap()).stop()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(reading)
    os.close(writing)


def test_what_is_no_fuse_device_fails_with_what_libfuse_says(
    system: Mounted, capfd: pytest.CaptureFixture[str]
) -> None:
    from openrbu.fuse.callers import CallerMap
    from openrbu.fuse.session import FuseSession

    said: list[str] = []
    nowhere = os.open("/dev/null", os.O_RDWR)
    session = FuseSession(system.machine.files, nowhere, CallerMap(), log=said.append)
    with pytest.raises(ObstacleError, match="the mount can't be served"):
        session.start()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("Translation", MemoryError(), "an unexpected error, which is on standard error"),
        ("call", PermissionError(errno.EPERM, "Not permitted"), "own working directory: Not perm"),
    ],
)
def test_whatever_ends_the_thread_it_is_not_said_to_serve(
    system: Mounted, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, says: str
) -> None:
    from openrbu.fuse import session as module
    from openrbu.fuse.callers import CallerMap

    def fail(*_: object, **__: object) -> None:
        raise error

    unexpected: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: unexpected.append(told.exc_value))
    monkeypatch.setattr(module, name, fail)
    nowhere = os.open("/dev/null", os.O_RDWR)
    session = module.FuseSession(system.machine.files, nowhere, CallerMap())
    for call in (session.start, session.wait):
        with pytest.raises(ObstacleError, match=f"the mount can't be served: .*{says}"):
            call()
    session.stop()
    session._thread.join()
    assert unexpected == ([error] if isinstance(error, MemoryError) else [])
    os.close(nowhere)


def test_many_threads_use_a_mount_at_once(system: Mounted) -> None:
    path = system.root / "sys/class/firmware/timeout"
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(50):
                path.write_text(f"{number}\n")
                assert path.read_text().strip().isdigit()
        except BaseException as error:  # noqa: BLE001  (told in the test's own thread)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# -- mounts ---------------------------------------------------------------------------------


def mounts_below(directory: Path) -> list[Mount]:
    return [mount for mount in mounts() if mount.target.startswith(f"{directory}/")]


def test_a_mount_is_known_by_its_type_and_the_machines_directory(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path)
    try:
        expected = [Mount(str(mounted.root), str(mounted.machine.directory))]
        assert mounts_below(tmp_path) == expected
        line = next(
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(mounted.root) in line
        )
        assert "nosuid,nodev" in line
        assert "allow_other" not in line
    finally:
        mounted.close()
    assert mounts_below(tmp_path) == []


def test_the_dead_mounts_of_one_machine_are_removed_whatever_their_names_are(
    tmp_path: Path,
) -> None:
    odd = tmp_path / "a b\tc\\d, \N{SNOWMAN}"
    one = make(odd / "home", name="one")
    other = make(tmp_path / "home", name="other")
    ends = "sys.stdin.read()"
    with alone(other, tmp_path / "kept", ends) as keeps, alone(one, odd / "mount", ends) as dies:
        first_line(keeps)
        first_line(dies)
        dies.kill()
        dies.wait()
        assert remove_dead_mounts(str(other.parent)) == 0
        assert are_mounted(one) == [str(odd / "mount")]
        assert remove_dead_mounts(str(one)) == 1
        assert (are_mounted(one), are_mounted(other)) == ([], [str(tmp_path / "kept")])
        assert list((odd / "mount").iterdir()) == []
        assert remove_dead_mounts(str(one)) == 0


@pytest.mark.untraced
def test_looking_for_dead_mounts_loads_no_library(tmp_path: Path) -> None:
    code = (
        "import sys; from openrbu.system.fuse_mounts import remove_dead_mounts; "
        "remove_dead_mounts('/nowhere'); "
        "print({'ctypes', 'socket', 'subprocess', 'mfusepy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "set()\n"


def test_loading_the_library_changes_no_environment() -> None:
    """Neither for other threads nor for a moment: each change is an event that Python tells of."""
    code = (
        "import os, sys\n"
        "events = []\n"
        "sys.addaudithook(lambda event, _: events.append(event))\n"
        "before = dict(os.environ)\n"
        "from openrbu.fuse.library import mfusepy\n"
        "told = {'os.putenv', 'os.unsetenv', 'subprocess.Popen', 'os.posix_spawn'} & set(events)\n"
        "print(told, dict(os.environ) == before, mfusepy.fuse_version_major)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "set() True 3\n"


# -- obstacles ------------------------------------------------------------------------------


def test_a_missing_device_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuse_mounts, "FUSE_DEVICE", str(tmp_path / "fuse"))
    with pytest.raises(ObstacleError, match=r"fuse does not exist: load the kernel module"):
        fuse_mounts.open_device()


def test_a_device_for_root_alone_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fuse"
    path.touch(mode=0o000)
    monkeypatch.setattr(fuse_mounts, "FUSE_DEVICE", str(path))

    def try_it() -> None:
        with pytest.raises(ObstacleError, match="can't be opened by this user"):
            fuse_mounts.open_device()

    for parent in tmp_path.parents:
        if parent != Path("/") and parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    as_nobody(try_it)


def test_a_place_that_can_not_be_mounted_on_is_named(tmp_path: Path) -> None:
    needs_root()
    needs_fuse()
    fd = fuse_mounts.open_device()
    try:
        with pytest.raises(ObstacleError, match=r"nowhere can't be mounted on: No such file"):
            fuse_mounts.mount_device(fd, str(tmp_path / "nowhere"), "x")
    finally:
        os.close(fd)
    with pytest.raises(ObstacleError, match="can't be unmounted: Invalid argument"):
        unmount(str(tmp_path))


def test_a_link_that_has_come_into_a_path_is_not_followed(system: Mounted, tmp_path: Path) -> None:
    """Whose directory it is may change it while root is about to mount there, or to unmount."""
    needs_root()
    elsewhere, theirs = tmp_path / "elsewhere", tmp_path / "theirs"
    (elsewhere / "mount").mkdir(parents=True)
    theirs.mkdir()
    (theirs / "directory").symlink_to(elsewhere)
    (theirs / "to").symlink_to(tmp_path)
    fd = fuse_mounts.open_device()
    before = mounts_below(tmp_path)
    assert [mount.target for mount in before] == [str(tmp_path / "mount")]
    try:
        for path in ("directory/mount", "directory"):
            with pytest.raises(ObstacleError, match="mounted on: there is a link in its path"):
                fuse_mounts.mount_device(fd, str(theirs / path), "x")
        with pytest.raises(ObstacleError, match="unmounted: there is a link in its path"):
            unmount(str(theirs / "to/mount"))
    finally:
        os.close(fd)
        after = mounts_below(tmp_path)
        for mount in after:
            if mount not in before:
                unmount(mount.target)
    assert after == before


def test_the_helpers_error_is_one_line(tmp_path: Path) -> None:
    needs_fuse()
    with pytest.raises(ObstacleError) as caught:
        fuse_mounts.mount_with_helper(str(tmp_path / "nowhere"), "x")
    assert str(caught.value).startswith("fusermount3: ")
    assert "No such file or directory" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_helper_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ObstacleError, match="install the package fuse3"):
        fuse_mounts.mount_with_helper(str(tmp_path), "x")


def test_the_helper_mounts_and_passes_the_descriptor(tmp_path: Path) -> None:
    needs_fuse()
    from openrbu.fuse.callers import CallerMap
    from openrbu.fuse.session import FuseSession

    odd = tmp_path / "a,b\\c d"
    directory = machine_with_driver(odd / "home")
    target = odd / "mount"
    target.mkdir()
    with running(directory) as machine, unmounted(directory):
        fd = fuse_mounts.mount_with_helper(str(target), str(directory))
        session = FuseSession(machine.files, fd, CallerMap.of_this_process())
        try:
            session.start()
            assert are_mounted(directory) == [str(target)]
            assert (target / "sys/class/firmware/timeout").read_text() == "60\n"
        finally:
            session.stop()
