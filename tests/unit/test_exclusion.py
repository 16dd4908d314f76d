"""One update of a machine at a time, whatever home, user and mounts its process has."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError
from openrbu.hosts.base import DMI_TABLE
from openrbu.hosts.linux import JOURNAL, LinuxHost
from openrbu.hosts.virtual import VirtualHost
from openrbu.system.flocks import find_holder, one_for_all
from openrbu.update.exclusion import BusyError, alone_on, who_updates
from openrbu.update.journal import Journal
from rigs.machines import as_nobody, make, opened_up, running
from rigs.needs import leave_out

HOLD = (
    "import sys; from pathlib import Path\n"
    "from openrbu.hosts.linux import LinuxHost\n"
    "from openrbu.update.exclusion import BusyError, alone_on\n"
    "try:\n"
    "    with alone_on(LinuxHost(Path(sys.argv[1]))):\n"
    "        print('alone', flush=True); sys.stdin.read()\n"
    "except BusyError as busy: print(busy)\n"
)
"""A process that has the lock until its standard input ends, or says who has it."""

HOLD_ALL = (
    "import sys\n"
    "from openrbu.system.flocks import HeldError, hold, one_for_all\n"
    "try:\n"
    "    with hold((one_for_all(),)): print('alone', flush=True); sys.stdin.read()\n"
    "except HeldError as held: print(held)\n"
)
"""The same with the lock that all processes of this computer have."""

OTHER_MOUNTS = 'mount -t tmpfs none /run; mount -t tmpfs none /var/lib; exec "$@"'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    table = tmp_path / "root" / DMI_TABLE.lstrip("/")
    table.parent.mkdir(parents=True)
    table.write_bytes(b"")
    return tmp_path / "root"


@contextmanager
def another(
    root: Path | None, *, words: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> Iterator[tuple[int, str]]:
    """Another process that wants to have the lock: its ID, and what it says. Without `root` it is
    the lock that all processes have."""
    script = (HOLD_ALL,) if root is None else (HOLD, str(root))
    process = subprocess.Popen(
        [*words, sys.executable, "-c", *script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    with process:
        assert process.stdout is not None
        yield process.pid, process.stdout.readline().strip()
        process.kill()


def test_two_homes_of_one_machine_have_one_lock_and_one_history(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = LinuxHost(root)
    with another(root, environment={"OPENRBU_HOME": "/nowhere", "HOME": str(tmp_path)}) as (_, one):
        assert one == "alone"
        monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "other"))
        monkeypatch.setenv("HOME", str(tmp_path / "other"))
        with pytest.raises(BusyError, match="an update is under way"), alone_on(host):
            pass
    with alone_on(host):  # it is free when that process is killed
        pass
    assert host.journal_path == root / JOURNAL.lstrip("/")
    assert LinuxHost().journal_path == Path("/var/lib/openrbu/journal.jsonl")


def test_who_has_the_lock_is_told_with_its_command_its_time_and_its_user(root: Path) -> None:
    host = LinuxHost(root)
    assert who_updates(host) == ""
    with another(root) as (pid, _):
        with pytest.raises(BusyError) as busy, alone_on(host):
            pass
        holder = busy.value.holder
        assert holder is not None
        assert (holder.pid, holder.since is None) == (pid, False)
        assert abs((host.now() - (holder.since or host.now())).total_seconds()) < 3600
        assert holder.command.startswith(f"{sys.executable} -c import sys; from pathlib")
        assert "\n" not in str(busy.value)
        assert f"wait for it: process {pid} ({sys.executable} -c" in str(busy.value)
        assert who_updates(host) == holder.text
        assert holder.text.endswith(f", of {holder.user}")
    assert who_updates(host) == ""


def test_another_thread_of_this_process_is_told_as_such(root: Path) -> None:
    said: list[str] = []

    def work() -> None:
        try:
            with alone_on(LinuxHost(root)):
                said.append("alone")
        except BusyError as busy:
            said.append(str(busy))

    with alone_on(LinuxHost(root)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert said == ["an update is under way, wait for it: this very process, in another thread"]


def test_the_lock_is_of_the_file_so_a_mount_over_the_directories_does_not_hide_it(
    root: Path,
) -> None:
    if os.geteuid():
        leave_out("only root may mount")
    words = ("unshare", "--mount", "sh", "-euc", OTHER_MOUNTS, "sh")
    with another(root) as (pid, _), another(root, words=words) as (_, said):
        assert f"process {pid} (" in said
    with another(root, words=words) as (pid, said):
        assert said == "alone"
        with pytest.raises(BusyError, match=f"process {pid} "), alone_on(LinuxHost(root)):
            pass


def test_a_lock_of_the_kernels_own_is_seen_from_other_namespaces() -> None:
    """From one with other mounts, network and process IDs, as a container has."""
    if os.geteuid():
        leave_out("only root has the lock of this computer")
    if (fd := one_for_all()) is None:
        leave_out("this kernel has no fsopen, or this root may not use it")
    mounts = ("unshare", "--mount", "--net", "sh", "-euc", OTHER_MOUNTS, "sh")
    contained = (*mounts[:-4], "--pid", "--fork", "--mount-proc", *mounts[-4:])
    try:
        with another(None) as (pid, one):
            assert one == "alone"
            with another(None, words=mounts) as (_, said):
                assert said.startswith(f"process {pid} (")
            with another(None, words=contained) as (_, said):
                assert said == "a process that can't be seen from here"
            is_held, holder = find_holder((fd,))
            assert (is_held, holder and holder.pid) == (True, pid)
    finally:
        os.close(fd)


def test_who_only_looks_is_not_taken_for_one_who_updates(root: Path) -> None:
    host = LinuxHost(root)
    with host.lock_files() as fds:
        assert find_holder(fds) == (False, None)  # the lock to look with is kept until the end
        assert who_updates(host) == ""


def test_virtual_machines_have_a_lock_each(tmp_path: Path) -> None:
    with (
        running(make(tmp_path, name="one")) as one,
        running(make(tmp_path, name="two")) as two,
        alone_on(VirtualHost(one)),
    ):
        with alone_on(VirtualHost(two)):
            pass
        with pytest.raises(BusyError), alone_on(VirtualHost(one)):
            pass


def test_what_is_raised_in_the_block_is_not_taken_for_the_locks_own(root: Path) -> None:
    with pytest.raises(OSError, match="the driver") as raised, alone_on(LinuxHost(root)):
        raise OSError(errno.EIO, "the driver")
    assert not isinstance(raised.value, ObstacleError)


def test_a_table_that_can_not_be_opened_for_another_reason_is_an_obstacle(root: Path) -> None:
    table = root / DMI_TABLE.lstrip("/")
    table.unlink()
    table.symlink_to(table)
    with (
        pytest.raises(ObstacleError, match="can't be locked: Too many levels"),
        alone_on(LinuxHost(root)),
    ):
        pass
    assert who_updates(LinuxHost(root)) == ""


def test_who_may_not_update_a_machine_can_not_lock_it_but_read_its_history(root: Path) -> None:
    table = root / DMI_TABLE.lstrip("/")
    host = LinuxHost(root)
    Journal.of(host).append("one", "started", host.now())
    opened_up(table)
    opened_up(host.journal_path)
    table.chmod(0o400 if os.geteuid() == 0 else 0)
    if os.geteuid():
        host.journal_path.chmod(0o444)

    def work() -> None:
        with alone_on(host), host.lock_files() as fds:
            assert fds == ()
        assert [each.id for each in Journal.of(host).attempts()] == ["one"]
        with pytest.raises(ObstacleError, match=r"journal .* can't be written: Permission denied"):
            Journal.of(host).append("two", "started", host.now())

    as_nobody(work)


# -- the journals of openrbu 0.2 ------------------------------------------------------------


def test_the_journal_in_a_home_is_taken_over_where_it_belongs_to_this_user(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SUDO_USER", raising=False)
    host = LinuxHost(root)
    in_root = root / "root/.local/state/openrbu/journal.jsonl"
    Journal(in_root).append("one", "started", host.now())
    Journal(tmp_path / "home/journal.jsonl").append("two", "started", host.now())
    assert host.older_journal_paths == (in_root,)
    assert LinuxHost().older_journal_paths[-1:] == (tmp_path / "home/journal.jsonl",)
    assert [each.id for each in Journal.of(host).attempts()] == ["one"]
    Journal.of(host).append("one", "interrupted", host.now())
    assert [each.outcome for each in Journal(host.journal_path).attempts()] == ["interrupted"]


def test_a_journal_of_another_user_or_a_link_is_not_believed(root: Path) -> None:
    if os.geteuid():
        leave_out("only root can make a file another user's")
    host = LinuxHost(root)
    in_root = root / "root/.local/state/openrbu/journal.jsonl"
    Journal(in_root).append("one", "started", host.now())
    os.chown(in_root, 1, 1)
    assert host.older_journal_paths == ()
    moved = in_root.rename(in_root.with_name("moved"))
    os.chown(moved, 0, 0)
    in_root.symlink_to(moved)
    assert host.older_journal_paths == ()


def test_the_home_of_the_user_of_sudo_is_looked_into(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = LinuxHost(root)
    monkeypatch.setenv("SUDO_USER", "daemon")
    home = Path("~daemon").expanduser().relative_to("/")
    path = root / home / ".local/state/openrbu/journal.jsonl"
    Journal(path).append("one", "started", host.now())
    assert host.older_journal_paths == (path,)
    monkeypatch.setenv("SUDO_USER", "nobody-of-that-name")
    assert not host.older_journal_paths
