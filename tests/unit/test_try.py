"""`rbu try` as a whole: what it runs, what it leaves, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from openrbu.formats.version import BiosVersion
from openrbu.system.descriptors import readable
from openrbu.system.processes import descendants
from rigs.cli import RBU, Cli
from rigs.machines import opened_up
from rigs.mounted import needs_fuse
from rigs.run import USERS, needs_root, runner

SMALL = ("--model", "latitude-d500")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory for temporary files."""
    needs_fuse()
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


def tried(*words: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """`rbu try` as a process: it forks, which this one must not do where it has threads."""
    command = [*prefix, *RBU, "try", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, text=True)


@pytest.mark.parametrize("user", USERS)
def test_a_tool_sees_a_fresh_machine_and_nothing_is_left_of_it(
    tmp_path: Path, temporary: Path, user: str
) -> None:
    prefix = runner(tmp_path / "home", user).prefix
    temporary.chmod(0o777)
    opened_up(temporary)
    tool = 'cat /sys/class/dmi/id/product_name "$OPENRBU_IMAGE" >"$TMPDIR/seen"; '
    tool += 'head -c 30 "$TMPDIR/seen" | tr -d "\\0" >&2; ls /sys/class/firmware >&2; exit 3'
    words = (*SMALL, "--make-image", "--json", "--expect", "not_tried", "--", "sh", "-c", tool)
    ended = tried(*words, prefix=prefix)
    assert ended.returncode == 0, ended
    document = json.loads(ended.stdout)
    assert (document["schema"], document["passed"], document["failed"]) == (1, 1, 0)
    (trial,) = document["trials"]
    assert (trial["verdict"], trial["exit_status"]) == ("not_tried", 3)
    said = "\n".join(trial["tool_said"])
    assert "Latitude D500" in said
    assert "$RBU" in said
    assert "timeout" in said
    assert list(temporary.iterdir()) == []


def test_what_is_not_as_expected_is_told_with_what_the_tool_said(
    tmp_path: Path, temporary: Path
) -> None:
    junit = tmp_path / "junit.xml"
    faults = ("--fault", "none", "--fault", "no-battery", "--expect", "no-battery=not_tried")
    words = (*SMALL, "--make-image", *faults, "--junit", junit)
    ended = tried(*words, "--", "sh", "-c", "echo one; echo {image} >&2; echo three; exit 7")
    assert ended.returncode == 1
    assert ended.stderr == "rbu: 1 of 2 trials not as expected\n"
    assert "ended with exit code 7" in ended.stdout
    assert ended.stdout.count("expected:  updated") == 1
    said = [line.removeprefix("  it said:").strip() for line in ended.stdout.splitlines()[-3:]]
    assert (said[0], Path(said[1]).name, said[2]) == (
        "one",
        "latitude-d500-0152-100000.hdr",
        "three",
    )
    suite = ET.fromstring(junit.read_bytes()).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert list(temporary.iterdir()) == []


def test_machines_on_which_all_is_the_same_are_told_together_with_what_the_tool_said(
    temporary: Path,
) -> None:
    profiles = ("--profile", "linux", "--profile", "linux-6.16", "--profile", "linux-2.6.16")
    script = "printf 'on \\377 output'; exit 7"
    ended = tried(*SMALL, "--make-image", *profiles, "--", "sh", "-c", script)
    assert ended.stderr == "rbu: 3 of 3 trials not as expected\n"
    _, _, told = ended.stdout.partition("3 machines\n")
    assert told.count("latitude-d500") == 3
    assert told.count("it said") == told.count("ended with exit code 7") == 1
    assert "on \ufffd output" in told


def test_a_tool_that_does_not_end_is_killed_with_all_that_it_has_started(
    tmp_path: Path, temporary: Path
) -> None:
    pids = tmp_path / "pids"
    tool = f"setsid sleep 1000 & echo $! >{pids}; trap '' TERM HUP; (trap '' TERM; sleep 1000)"
    words = (*SMALL, "--make-image", "--timeout", "1", "--expect", "timed_out", "--", "sh", "-c")
    ended = tried(*words, tool)
    assert ended.returncode == 0, ended
    assert not Path("/proc", pids.read_text().strip()).exists()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_all_trials_and_removes_all_they_had(
    tmp_path: Path, temporary: Path, signum: signal.Signals
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    tool = f"setsid sleep 1000 & echo $! >{fifo}; trap '' TERM HUP INT; sleep 1000"
    profiles = ("--profile", "linux", "--profile", "documented")
    words = (*SMALL, *profiles, "--make-image", "--jobs", "2", "--", "sh", "-c", tool)
    with subprocess.Popen([*RBU, "try", *words], stderr=subprocess.PIPE, text=True) as running:
        with os.fdopen(os.open(fifo, os.O_RDWR)) as lines:  # it has no end between the two
            started = {int(lines.readline()) for _ in range(2)}
        below = set(descendants(running.pid))
        assert started < below
        ends = [os.pidfd_open(pid) for pid in below]
        running.send_signal(signum)
        _, said = running.communicate()
    for end in ends:  # after SIGKILL, too: the kernel tells the workers
        with os.fdopen(end):
            assert readable([end], 60)
    killed = signum is signal.SIGKILL
    how = (-signum, "") if killed else (128 + signum, "rbu: interrupted\n")
    assert (running.returncode, said) == how
    assert list(temporary.iterdir()) == []


def test_kept_machines_and_output_stay(rbu: Cli, tmp_path: Path, temporary: Path) -> None:
    kept = tmp_path / "kept"
    image = rbu.image("A09", system=0x0152, size_bytes=1 << 20)
    ended = tried(image, "--keep", kept, "--expect", "not_tried", "--", "echo", "{image}", "hello")
    assert ended.returncode == 0, ended
    (directory,) = kept.iterdir()
    assert directory.name == "001-latitude-d500_documented"
    assert (directory / "output").read_text() == f"{image} hello\n"
    assert (directory / "home" / "machines" / "machine" / "machine.json").exists()
    again = tried(image, "--keep", kept, "--", "true")
    assert (again.returncode, again.stderr) == (
        2,
        f"rbu: {kept} is not empty: give a directory that is, or a new one\n",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--make-image",), "Missing argument"),
        (("no-such.hdr", "--", "true"), "no-such.hdr can't be read"),
        (("image.hdr",), "which tool?"),
        (("--make-image", "--", "no-such-tool"), "no-such-tool: there is no such program"),
        (("--make-image", "--model", "pc", "--", "true"), "there is no model 'pc'"),
        (("--make-image", "--profile", "dos", "--", "true"), "there is no profile 'dos'"),
        (("--make-image", "--expect", "good", "--", "true"), "there is no verdict 'good'"),
        (("--make-image", "--matrix", "--ram", "1G", "--", "true"), "--matrix has its own"),
        (("--make-image", "--jobs", "0", "--", "true"), "have to be more than 0"),
        (("--make-image", "--junit", "no/j.xml", "--", "true"), "there is no directory"),
        (("--make-image", "--fault", "rain", "--", "true"), "no fault is called 'rain'"),
        (("--make-image", "--bios", "other", "--", "true"), "'other'"),
        (("--make-image", "--fault", "no-module,built-in", "--", "true"), "can't be together"),
    ],
)
def test_what_can_not_be_tried_is_a_usage_error(
    rbu: Cli, temporary: Path, words: tuple[str, ...], says: str
) -> None:
    rbu.image()
    assert says in rbu.fails(2, "try", *words)
    assert list(temporary.iterdir()) == []


def test_an_image_for_another_machine_is_tried_on_one_of_its_system(
    rbu: Cli, temporary: Path
) -> None:
    image = rbu.image("2.0.0", system=0x0BAD, size_bytes=1 << 20)
    words = (
        image,
        "--json",
        "--expect",
        "not_tried",
        "--",
        "cat",
        "/sys/class/dmi/id/bios_version",
    )
    (trial,) = json.loads(tried(*words).stdout)["trials"]
    assert trial["name"] == "precision-390 documented 0x0bad"
    assert BiosVersion.parse("2.0.0").same_as(BiosVersion.parse(trial["version_before"])) is False


def test_where_there_is_no_fuse_one_line_says_so(temporary: Path) -> None:
    needs_root()
    private = (
        "unshare",
        "--mount",
        "sh",
        "-euc",
        'mount -t tmpfs none /dev; mknod /dev/null c 1 3; exec "$@"',
        "sh",
    )
    ended = tried(*SMALL, "--make-image", "--", "/bin/true", prefix=private)
    assert (ended.returncode, ended.stdout) == (4, "")
    assert ended.stderr.startswith("rbu: /dev/fuse does not exist")
    assert ended.stderr.count("\n") == 1
    assert list(temporary.iterdir()) == []
