"""The shell script at the begin of the single file: packaging/single-file.sh."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from runpy import run_path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "packaging" / "single-file.sh").read_text()
PLACE = SCRIPT.partition("# Which Python")[0]
"""The part of the script that says where the environment is."""

NO_HOME = "/proc/no-home"
PARTS = {f"3.{minor}": f"#!/bin/sh\necho 3.{minor} $0 $*\n".encode() for minor in range(8, 20)}
"""In place of a PEX for each Python."""


def begin(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the shell does first in the single file; says then where the environment is. Instead of
    /var/tmp it has a directory of this test."""
    script = PLACE.replace("/var/tmp", str(tmp_path))
    return subprocess.run(
        ["/bin/sh", "-c", f'{script}\necho "$PEX_ROOT"'],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
    )


def test_the_environment_is_below_the_cache_of_the_user(tmp_path: Path) -> None:
    began = begin(tmp_path, HOME=str(tmp_path / "me"))
    assert (began.stdout, began.stderr) == (f"{tmp_path}/me/.cache/pex\n", "")
    assert (tmp_path / "me" / ".cache" / "pex").is_dir()
    other = begin(tmp_path, HOME=str(tmp_path / "me"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert other.stdout == f"{tmp_path}/cache/pex\n"


def test_where_the_user_says_it_is_as_said(tmp_path: Path) -> None:
    assert begin(tmp_path, HOME=NO_HOME, PEX_ROOT="/opt/pex").stdout == "/opt/pex\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("environment", [{}, {"HOME": ""}, {"HOME": NO_HOME}])
def test_without_a_home_it_is_in_a_directory_of_this_user_alone_and_stays(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    own = tmp_path / f"openrbu-{os.getuid()}"
    for _ in range(2):
        began = begin(tmp_path, **environment)
        assert (began.returncode, began.stdout, began.stderr) == (0, f"{own}\n", "")
        assert own.stat().st_mode & 0o7777 == 0o700
        (own / "kept").touch()


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_what_somebody_else_may_have_made_there_is_refused(tmp_path: Path, kind: str) -> None:
    own = tmp_path / f"openrbu-{os.getuid()}"
    if kind == "open to others":
        own.mkdir()
        own.chmod(0o770)
    elif kind == "a link":
        (tmp_path / "elsewhere").mkdir(0o700)
        own.symlink_to(tmp_path / "elsewhere")
    else:
        own.touch(0o700)
    began = begin(tmp_path, HOME=NO_HOME)
    assert (began.returncode, began.stdout) == (1, "")
    assert (
        began.stderr == f"rbu: {own} is not a directory of this user alone: set PEX_ROOT to one\n"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory to somebody else")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "openrbu-0"
    own.mkdir(0o700)
    os.chown(own, 65534, 65534)
    assert begin(tmp_path, HOME=NO_HOME).returncode == 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file as `make dist` builds it, of other parts."""
    script_for = run_path(str(ROOT / "scripts" / "make-single-file"))["script_for"]
    path = tmp_path / "rbu"
    parts = {python: gzip.compress(part) for python, part in PARTS.items()}
    path.write_bytes(script_for(parts) + b"".join(parts.values()))
    path.chmod(0o755)
    return path


def run(file: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **environment}
    command = [str(file), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_the_part_for_the_python_that_is_here_is_put_down_once_and_run(file: Path) -> None:
    root = file.parent / "root"
    first = run(file, "a", "b c", PEX_ROOT=str(root))
    (part,) = [path for path in root.rglob("*") if path.is_file()]
    version = part.parent.name
    assert (first.stdout, first.stderr) == (f"{version} {part} a b c\n", "")
    assert part.read_bytes() == PARTS[version]
    written = part.stat().st_ino
    assert run(file, PEX_ROOT=str(root)).stdout == f"{version} {part}\n"
    assert part.stat().st_ino == written


def test_where_it_can_not_be_put_one_line_says_so(file: Path) -> None:
    ended = run(file, PEX_ROOT="/proc/nowhere")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "set PEX_ROOT to a directory" in ended.stderr.splitlines()[-1]
