"""What may not be read or written is told truthfully, and what may be read is shown."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError
from openrbu.machine import store
from openrbu.run.trace import Trace
from openrbu.system import home
from openrbu.system.denied import why_denied
from openrbu.system.lockfile import owned
from rigs.cli import Cli, names_in
from rigs.machines import as_nobody, opened_up
from rigs.needs import leave_out

NOBODY = 65534

LOOKS = (
    ("status", "-m", "demo"),
    ("history", "-m", "demo"),
    ("machine", "list"),
    ("machine", "show", "demo"),
    ("machine", "map", "demo"),
    ("scan", "demo"),
)


@pytest.fixture
def demo(rbu: Cli) -> Cli:
    """A machine that was updated, and has the next update staged."""
    rbu("machine", "new", "demo", "--ram", "256M")
    assert rbu("update", rbu.image("A06"), "-m", "demo", "--reboot").code == 0
    assert rbu("update", rbu.image("A07"), "-m", "demo").code == 0
    return rbu


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Each file of a machine but its RAM, with the time of its last change."""
    files = [each for each in sorted(directory.iterdir()) if each.is_file() and each.name != "ram"]
    return {each.name: (each.stat().st_mtime_ns, each.read_bytes()) for each in files}


@pytest.fixture
def readable(demo: Cli) -> Iterator[Path]:
    """That machine's directory, which all may read, and who runs this may not write."""
    directory = store.machine_directory("demo")
    opened_up(directory)
    for each in directory.iterdir():
        each.chmod(0o444)
    directory.chmod(0o555)
    yield directory
    directory.chmod(0o755)


def look(demo: Cli) -> dict[tuple[str, ...], str]:
    """What the commands show that only look."""
    found: dict[tuple[str, ...], str] = {}
    for words in LOOKS:
        ended = demo(*words)
        assert (ended.code, ended.err) == (0, ""), words
        found[words] = ended.out
    return found


def test_who_may_only_read_a_machine_sees_what_its_owner_sees(
    demo: Cli, request: pytest.FixtureRequest
) -> None:
    seen = look(demo)
    directory: Path = request.getfixturevalue("readable")
    before = contents(directory)

    def work() -> None:
        assert look(demo) == seen
        line = demo.fails(4, "machine", "reboot", "demo")
        assert "permission denied: " in line
        assert f"{directory}" in line

    as_nobody(work)
    assert contents(directory) == before


def plan_where_an_update_is_not_possible(
    demo: Cli, image: Path, directory: Path
) -> list[dict[str, object]]:
    """The plan of a machine that may only be read: the journal is in the way. All its checks."""
    words = ("plan", image, "-m", "demo")
    shown = demo(*words)
    assert shown.code == 4
    found = f"the journal {directory / 'journal.jsonl'} can't be written: "
    assert "".join(found.split()) in "".join(shown.out.split())  # long words are cut, too
    assert shown.err.startswith("rbu: ")
    assert "\nready: " not in shown.out
    planned = demo.json(*words, code=4)
    assert "openrbu-reading-" not in shown.out + shown.err + str(planned)
    checks: list[dict[str, object]] = planned["checks"]
    return checks


def test_who_may_only_read_a_machine_sees_the_owners_plan_and_that_it_can_not_be_done(
    demo: Cli, request: pytest.FixtureRequest
) -> None:
    image = demo.image("A07")
    opened_up(image)
    owners = demo("plan", image, "-m", "demo", "--json").document["checks"]
    directory: Path = request.getfixturevalue("readable")
    before = contents(directory)

    def work() -> None:
        checks = plan_where_an_update_is_not_possible(demo, image, directory)
        differing = [each["name"] for each, own in zip(checks, owners, strict=True) if each != own]
        assert differing == ["journal"]
        line = demo.fails(4, "update", image, "-m", "demo")
        assert "permission denied: " in line

    as_nobody(work)
    assert contents(directory) == before


def test_a_damaged_journal_is_named_where_it_is_and_not_where_it_was_copied_to(
    demo: Cli, request: pytest.FixtureRequest
) -> None:
    journal = store.machine_directory("demo") / "journal.jsonl"
    journal.write_bytes(b"nonsense\n")
    request.getfixturevalue("readable")

    def work() -> None:
        assert f"line 1 of the journal {journal} is damaged" in demo("history", "-m", "demo").err

    as_nobody(work)


def test_a_machine_on_a_mount_that_is_read_only_can_be_looked_at(
    demo: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid():
        leave_out("only root can mount")
    mounted, before = tmp_path / "mounted", str(home.state_home())
    mounted.mkdir()
    seen = look(demo)
    for words in (["--bind", before, str(mounted)], ["-o", "remount,bind,ro", str(mounted)]):
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            leave_out(f"mounting is not allowed here: {done.stderr.strip()}")
    monkeypatch.setenv("OPENRBU_HOME", str(mounted))
    try:
        shown = {words: out.replace(str(mounted), before) for words, out in look(demo).items()}
        assert shown == seen
        assert "its file system is read-only" in demo.fails(4, "machine", "reboot", "demo")
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


@pytest.mark.usefixtures("readable")
def test_nothing_is_left_of_the_copy(
    demo: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    opened_up(place)
    place.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def work() -> None:
        look(demo)

    as_nobody(work)
    assert names_in(place) == []


def test_a_machine_that_another_process_has_is_in_use_also_for_who_only_looks(
    demo: Cli, readable: Path
) -> None:
    if os.geteuid():
        leave_out("only root can have the lock of a file that its mode protects")
    owner = os.getpid()

    def work() -> None:
        assert f"in use by process {owner}" in demo.fails(4, "status", "-m", "demo")

    with owned(readable / "lock"):
        as_nobody(work)


def test_a_machine_that_may_not_be_read_is_told_with_its_owner_and_the_way_out(demo: Cli) -> None:
    directory = store.machine_directory("demo")
    opened_up(directory)
    is_anothers = os.geteuid() == 0
    directory.chmod(0o700 if is_anothers else 0)
    why = f"the mode 0000 of {directory} forbids it"
    if is_anothers:
        why = f"{directory} belongs to root (mode 0700), and this is nobody"

    def work() -> None:
        line = demo.fails(4, "status", "-m", "demo")
        assert why in line
        assert "OPENRBU_HOME=DIR names another directory for machines" in line
        listed = demo("machine", "list")
        assert listed.code == 0
        assert "permission denied" in listed.out

    as_nobody(work)
    directory.chmod(0o700)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A directory of the user's who runs this, which its mode makes read-only."""
    directory = tmp_path / "own"
    directory.mkdir()
    opened_up(directory)
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    directory.chmod(0o555)
    yield directory
    directory.chmod(0o755)


def test_the_mode_of_an_own_directory_is_told_with_its_remedy(
    rbu: Cli, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(own))

    def work() -> None:
        line = rbu.fails(4, "machine", "new", "demo")
        assert f"permission denied: the mode 0555 of {own} forbids it: chmod u+rwx {own}" in line
        assert "OPENRBU_HOME=DIR" in line
        assert rbu("machine", "list").code == 0

    as_nobody(work)


def test_an_output_that_may_not_be_written_is_told_with_its_directorys_mode(
    rbu: Cli, own: Path
) -> None:
    rbu.write("rom.bin", b"\xff" * 4096)
    opened_up(rbu.image("A06"))
    forbids = f"permission denied: the mode 0555 of {own} forbids it: chmod u+rwx {own}"
    build = ("build", "rom.bin", "--bios-version", "A06", "--system", "0x121")

    def work() -> None:
        for words, what in (
            ((*build, "-o", own / "x.hdr"), f"{own / 'x.hdr'} can't be written"),
            (("extract", "image.hdr", "-o", own), f"{own / 'image-A06.hdr'} can't be written"),
            (("extract", "image.hdr", "-o", own / "d"), f"directory {own / 'd'} can't be made"),
        ):
            assert f"{what}: {forbids}" in rbu.fails(1, *words)

    as_nobody(work)


def test_an_output_of_another_user_is_told_with_its_owner(rbu: Cli, tmp_path: Path) -> None:
    if os.geteuid():
        leave_out("only root can make a file of another user")
    rbu.write("rom.bin", b"\xff" * 4096)
    (tmp_path / "closed").write_bytes(b"")
    opened_up(tmp_path / "closed")
    (tmp_path / "closed").chmod(0o600)
    build = ("build", "rom.bin", "--bios-version", "A06", "--system", "0x121", "--force")

    def work() -> None:
        line = rbu.fails(1, *build, "-o", tmp_path / "closed")
        assert f"denied: {tmp_path / 'closed'} belongs to root (mode 0600), and this is" in line

    as_nobody(work)


def test_a_trace_that_may_not_be_written_is_told_with_its_directorys_mode(own: Path) -> None:
    def work() -> None:
        with pytest.raises(ObstacleError, match=f"denied: the mode 0555 of {own} forbids it"):
            Trace(own / "trace.jsonl")

    as_nobody(work)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_home_that_can_not_be_made_is_told_with_its_path_and_the_variable(
    rbu: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_file: bool
) -> None:
    place = tmp_path / "file" if is_file else Path("/proc/nope")
    if is_file:
        place.touch()
    monkeypatch.setenv("OPENRBU_HOME", str(place))
    why = f"{place} is not a directory" if is_file else "No such file or directory"
    for words in (("machine", "new", "demo"), ("balloon", "host", "demo")):
        line = rbu.fails(4, *words)
        assert f"the directory for machines {place} can't be made: {why}; OPENRBU_HOME=DIR" in line
    if is_file:
        assert "OPENRBU_HOME=DIR" in rbu.fails(4, "machine", "list")


def test_a_user_without_a_home_is_told_of_the_variable(
    rbu: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "OPENRBU_HOME", "OPENRBU_CACHE", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    nobody_is_known: dict[int, object] = {}
    monkeypatch.setattr("pwd.getpwuid", lambda uid: nobody_is_known[uid])
    line = rbu.fails(4, "machine", "list")
    assert "no home directory" in line
    assert "OPENRBU_HOME=DIR" in line
    assert "no home directory" in rbu.fails(4, "status", "-m", "demo")
    with pytest.raises(ObstacleError, match="OPENRBU_CACHE=DIR"):
        home.cache_home()


def test_what_neither_modes_nor_mounts_deny_is_called_denied(tmp_path: Path) -> None:
    assert why_denied(tmp_path / "new") == "permission denied"


def test_a_directory_on_the_way_is_named(tmp_path: Path) -> None:
    closed, said = tmp_path / "closed", tmp_path / "said"
    (closed / "below").mkdir(parents=True)
    opened_up(closed / "below")
    closed.chmod(0o700 if os.geteuid() == 0 else 0o600)
    said.touch()
    said.chmod(0o666)

    def work() -> None:
        said.write_text(why_denied(closed / "below" / "file"))

    as_nobody(work)
    closed.chmod(0o700)
    assert re.match(rf"{closed} belongs to root|the mode 0600 of {closed} ", said.read_text())
