"""`rbu mount` and other users, and those without capabilities."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from rigs.cli import RBU
from rigs.machines import NOBODY, opened_up
from rigs.mounted import needs_fuse
from rigs.mounts import (
    AS_NOBODY,
    DEVICE,
    ENTRY,
    WITHOUT_RAWIO,
    machine_with_driver,
    needs_root,
    program,
    served,
)

DATA, LOADING, TIMEOUT = f"{ENTRY}/data", f"{ENTRY}/loading", "sys/class/firmware/timeout"


def test_others_see_nothing_unless_they_are_let_in(directory: Path, target: Path) -> None:
    needs_root()
    with served(directory, target):
        assert program(target.parent, f"print(os.listdir({str(target)!r}))", *AS_NOBODY) == "EACCES"


def test_others_who_are_let_in_are_held_to_the_modes(directory: Path, target: Path) -> None:
    needs_root()
    with served(directory, target, "--allow-other"):
        code = f"""
def answer(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]

print(os.getuid(), answer(os.chdir, "sys"))
os.chdir("..")
print(answer(lambda: open("{LOADING}").read()))
print(answer(os.open, "{LOADING}", os.O_WRONLY))
print(answer(os.open, "{LOADING}", os.O_RDONLY | os.O_TRUNC))
print(answer(os.open, "{DATA}", os.O_RDWR))
print(answer(os.open, "sys/firmware/dmi/tables/DMI", os.O_RDONLY))
print([os.access("{LOADING}", mode) for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)])
print([os.access("sys/firmware/dmi/tables/DMI", mode) for mode in (os.F_OK, os.R_OK)])
print([os.access("sys", mode) for mode in (os.R_OK, os.W_OK, os.X_OK)])
print(answer(os.truncate, "{LOADING}", 0))
print(answer(os.unlink, "{LOADING}"), answer(os.mkdir, "sys/x"), answer(os.mkfifo, "sys/x"))
print(answer(os.rename, "{LOADING}", "sys/x"), answer(os.symlink, "x", "sys/x"))
print(answer(os.link, "{LOADING}", "sys/x"), answer(os.open, "sys/x", os.O_CREAT))
"""
        assert program(target, code, *AS_NOBODY).splitlines() == [
            f"{NOBODY} None",
            "0",
            "",
            *["EACCES"] * 4,
            "[True, True, False, False]",
            "[True, False]",
            "[True, False, True]",
            "EACCES",
            "EACCES EACCES EACCES",
            "EACCES EACCES",
            "EPERM EACCES",
        ]
        code = f"""
print([os.access("{DEVICE}/data", mode) for mode in (os.R_OK, os.W_OK, os.X_OK)])
print([os.access("sys", mode) for mode in (os.R_OK, os.W_OK, os.X_OK)])
"""
        assert program(target, code).splitlines() == ["[True, True, False]", "[True, True, True]"]


def test_only_firmware_data_takes_the_capability(directory: Path, target: Path) -> None:
    needs_root()
    with served(directory, target):
        code = f"""
open("{TIMEOUT}", "w").write("9")
open("{LOADING}", "w").write("1")
fd = os.open("{DATA}", os.O_RDWR)
print(os.read(fd, 10))
os.write(fd, b"x")
"""
        assert program(target, code, *WITHOUT_RAWIO).splitlines() == ["b''", "EPERM"]
        assert (target / TIMEOUT).read_text() == "9\n"
        assert (target / DATA).read_bytes() == b""
        assert program(target, f'open("{DATA}", "wb", 0).write(b"x")') == ""
        assert (target / DATA).read_bytes() == b"x"


def test_the_capability_counts_at_the_moment_of_the_write(directory: Path, target: Path) -> None:
    needs_root()
    with served(directory, target, "--allow-other"):
        (target / LOADING).write_text("1\n")
        code = f"""
fd = os.open("{DATA}", os.O_RDWR)
print(os.write(fd, b"x"))
os.seteuid({NOBODY})
try:
    os.write(fd, b"y")
except OSError as error:
    print(errno.errorcode[error.errno])
os.seteuid(0)
print(os.write(fd, b"z"))
"""
        assert program(target, code).splitlines() == ["1", "EPERM", "1"]
        assert (target / DATA).read_bytes() == b"xz"


def test_a_plain_user_mounts_a_machine_of_ones_own(tmp_path: Path) -> None:
    """With a /dev/fuse for everybody, as most computers have it."""
    needs_root()
    needs_fuse()
    node = tmp_path / "fuse"
    os.mknod(node, 0o020666, Path("/dev/fuse").stat().st_rdev)
    node.chmod(0o666)
    home = tmp_path / "home"
    path = machine_with_driver(home)
    mount = home / "mount"
    mount.mkdir()
    opened_up(mount)
    for each in (home, *home.rglob("*")):
        os.chown(each, NOBODY, NOBODY)
    script = f"""
mount --bind {node} /dev/fuse
nobody="{" ".join(AS_NOBODY)}"
$nobody "$@" mount {mount} --machine {path.name} --detach > /dev/null
$nobody stat -c "%u %a" {mount}/{LOADING}
$nobody sh -c "echo 1 > {mount}/{LOADING}; echo data > {mount}/{DATA}; cat {mount}/{DATA}"
cat {mount}/{LOADING} 2>&1 || true
$nobody "$@" mount {mount} --stop
ls {mount} | wc -l
$nobody "$@" mount {mount} --machine {path.name} --allow-other || echo $?
"""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script, "sh", *RBU],
        capture_output=True,
        check=False,
        text=True,
        cwd="/",
        env={**os.environ, "OPENRBU_HOME": str(home)},
    )
    assert done.stdout.splitlines() == [
        f"{NOBODY} 644",
        "data",
        f"cat: {mount}/{LOADING}: Permission denied",
        f"machine box is not mounted at {mount} any more",
        "0",
        "4",
    ], done
    assert done.stderr.startswith("rbu: fusermount3: option allow_other only allowed if")
    assert done.stderr.count("\n") == 1
