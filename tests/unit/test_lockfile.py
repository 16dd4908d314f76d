"""A lock file has one holder, whatever becomes of the file meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from openrbu.errors import MachineError
from openrbu.machine import store
from openrbu.machine.removal import remove_machine
from openrbu.system.lockfile import LockFile, TakenError, acquire_within, owned, owner_of
from rigs.machines import make
from rigs.small_disks import no_writes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_one_has_it_and_another_one_reads_who_until_it_is_let_go_of(path: Path) -> None:
    with LockFile(path, create=True) as other:
        with LockFile(path, create=True) as one:
            assert one.acquire()
            one.write("somebody")
            assert (other.acquire(), other.is_locked(), other.read()) == (False, True, "somebody")
        assert not other.is_locked()
        assert other.acquire()


def test_a_file_that_was_removed_is_not_what_is_taken(path: Path) -> None:
    with LockFile(path, create=True) as late:
        with LockFile(path, create=True) as first:
            assert first.acquire()
            first.remove()
        with LockFile(path, create=True) as second:
            assert second.acquire()
            assert not late.acquire()
        assert late.acquire()
        with LockFile(path, create=False) as again:
            assert again.is_locked()


def test_a_file_that_was_removed_is_made_anew_only_where_it_is_to_be(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LockFile(path, create=False)
    with LockFile(path, create=True) as maker, LockFile(path, create=False) as finder:
        path.unlink()
        with pytest.raises(FileNotFoundError):
            finder.acquire()
        assert maker.acquire()
        assert path.exists()


def test_the_last_text_of_an_owner_can_be_read_after_it_removed_the_file(path: Path) -> None:
    with LockFile(path, create=True) as waiting:
        with LockFile(path, create=True) as holder:
            assert holder.acquire()
            holder.remove()
            assert waiting.is_locked()
            holder.write("the disk is full")
        assert not waiting.is_locked()
        assert waiting.read() == "the disk is full"


def test_what_was_written_is_gone_with_the_next_text_and_the_file_never_gets_smaller(
    path: Path,
) -> None:
    with LockFile(path, create=True) as lock:
        assert lock.acquire()
        lock.write("a long text")
        lock.write("short")
        assert lock.read() == "short"
        assert path.read_bytes() == b"short      "


@pytest.mark.parametrize("what", ["a link", "a FIFO"])
def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    directory = make(tmp_path)
    if what == "a link":
        (directory / "lock").symlink_to(tmp_path / "victim")
    else:
        os.mkfifo(directory / "lock")
    with pytest.raises(MachineError, match="lock"), store.locked(directory):
        pass
    assert not (tmp_path / "victim").exists()


def test_who_opened_the_lock_of_a_machine_that_was_removed_has_no_other_machine(
    tmp_path: Path,
) -> None:
    directory = make(tmp_path)
    with LockFile(directory / "lock", create=True) as late:
        with store.locked(directory):
            remove_machine(directory)
        make(tmp_path)
        with store.locked(directory):
            assert not late.acquire()


def test_a_lock_is_waited_for_but_not_for_ever(path: Path) -> None:
    one = LockFile(path, create=True)
    with LockFile(path, create=True) as other:
        assert acquire_within(one.acquire, 0.0)
        assert not acquire_within(other.acquire, 0.02)
        closing = threading.Timer(0.05, one.close)
        closing.start()
        assert acquire_within(other.acquire, 60.0)
        closing.join()


# -- an owner -------------------------------------------------------------------------------


def test_an_owner_says_who_it_is_and_what_it_does_until_it_lets_go(path: Path) -> None:
    assert owner_of(path) is None
    with owned(path, "serving"):
        with pytest.raises(TakenError) as caught, owned(path):
            pass
        assert (caught.value.owner, caught.value.role) == (str(os.getpid()), "serving")
        assert owner_of(path) == str(os.getpid())
    assert owner_of(path) is None
    with owned(path), pytest.raises(TakenError) as caught, owned(path, "serving"):
        pass
    assert caught.value.role == ""


def test_an_owner_that_has_not_said_so_yet_is_unknown(path: Path) -> None:
    with LockFile(path, create=True) as silent:
        assert silent.acquire()
        with pytest.raises(TakenError, match="taken by process unknown") as caught, owned(path):
            pass
        assert caught.value.owner is None


def test_an_owner_lets_go_on_a_disk_that_takes_nothing_any_more(path: Path) -> None:
    with no_writes() as refuse, owned(path):
        refuse()
        with pytest.raises(OSError, match="File too large"):
            path.write_text("more")
    with owned(path):
        pass


def test_only_who_may_make_the_file_makes_it(path: Path) -> None:
    with pytest.raises(FileNotFoundError), owned(path, create=False):
        pass
    with owned(path), pytest.raises(TakenError), owned(path, create=False):
        pass
