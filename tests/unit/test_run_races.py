"""What `rbu run` does when something goes at the wrong moment."""

from __future__ import annotations

import functools
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

from openrbu.run import child as run_child
from openrbu.run import namespace
from openrbu.run.launcher import Launcher
from openrbu.run.program import Program
from openrbu.system.libc import call
from rigs.cli import names_in
from rigs.machines import in_child, make
from rigs.mounted import needs_fuse
from rigs.run import needs_root


def test_a_device_that_goes_while_dev_is_repeated_is_left_out() -> None:
    def child() -> None:
        namespace.enter()
        call("mount", b"none", b"/dev", b"tmpfs", 0, None)
        Path("/dev/stays").write_text("here\n")
        Path("/dev/file").touch()
        Path("/dev/directory").mkdir()
        real = os.open("/dev", os.O_RDONLY)

        def remove(event: str, arguments: tuple[Any, ...]) -> None:
            """It is about to be made again: it has been looked at, and not been bound yet."""
            if event == "open" and str(arguments[0]) == "/dev/file":
                os.unlink("file", dir_fd=real)
            if event == "os.mkdir" and str(arguments[0]) == "/dev/directory":
                os.rmdir("directory", dir_fd=real)

        sys.addaudithook(remove)
        namespace.replace("/dev")
        assert names_in(Path(f"/proc/self/fd/{real}")) == ["stays"]
        assert names_in(Path("/dev")) == ["stays"]
        assert Path("/dev/stays").read_text() == "here\n"

    needs_root()
    assert in_child(child) == 0


def test_a_child_that_is_killed_before_it_goes_on_is_told_by_its_signal(tmp_path: Path) -> None:
    directory = make(tmp_path)

    def work() -> None:
        def become(_number: int, channel: socket.socket, parent: int) -> NoReturn:
            prepare = functools.partial(run_child.prepare, directory, {})
            run_child.become(prepare, ["true"], channel, parent)

        launcher = Launcher(become)
        child = Program(launcher, 0, ["true"])
        os.close(child.device())
        pid = child.pid
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            pass

        def kill(frame: FrameType, event: str, function: Any) -> None:
            """The word to go on was sent, and a process that is stopped has not read it."""
            if event == "c_return" and function.__name__ == "send":
                os.kill(pid, signal.SIGKILL)
                sent.append(pid)

        sent: list[int] = []
        sys.setprofile(kill)
        result = child.result()
        sys.setprofile(None)
        assert (result, sent) == (-signal.SIGKILL, [pid])
        child.close()
        launcher.close()

    needs_root()
    needs_fuse()
    assert in_child(work) == 0


def test_a_launcher_with_a_defect_leaves_no_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its parent takes its end for that of all that the program has started."""
    pids = tmp_path / "pids"

    def work() -> None:
        def become(_number: int, _channel: socket.socket, _parent: int) -> NoReturn:
            os.execvp("sh", ["sh", "-c", f"sleep 1000 & echo $$ $! >{pids}; wait"])

        launcher = Launcher(become)
        Program(launcher, 0, ["true"])
        while not pids.exists() or not pids.read_text().endswith("\n"):
            pass
        launcher._control.send(b"signal none")
        launcher.close()
        assert not [pid for pid in pids.read_text().split() if Path("/proc", pid).exists()]

    assert in_child(work) == 0
    assert "ValueError: invalid literal for int()" in capfd.readouterr().err


@pytest.mark.parametrize("has_read", [False, True])
def test_a_launcher_that_is_killed_is_an_error_of_the_start(has_read: bool) -> None:
    """Killed before it has the order to begin a program, or with it in its hands."""

    def work() -> None:
        def become(_number: int, _channel: socket.socket, _parent: int) -> NoReturn:
            pytest.fail("nothing begins")

        launcher = Launcher(become)
        os.kill(launcher._pid, signal.SIGSTOP if has_read else signal.SIGKILL)
        os.waitid(os.P_PID, launcher._pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

        def kill(frame: FrameType, event: str, function: Any) -> None:
            if event == "c_return" and function.__name__ == "sendmsg":
                os.kill(launcher._pid, signal.SIGKILL)

        sys.setprofile(kill if has_read else None)
        with pytest.raises(OSError, match="was killed" if has_read else "Broken pipe"):
            Program(launcher, 0, ["true"])
        sys.setprofile(None)
        launcher.close()

    assert in_child(work) == 0
