"""`rbu run` in odd places: a chroot, a directory that was removed, without what it needs."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from rigs.cli import Cli
from rigs.run import Runner, runner

DEV = "mount -t tmpfs {options} none /dev; mknod /dev/null c 1 3; {fuse}"


@pytest.fixture
def run(rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", "root")


def in_chroot(run: Runner, directory: Path, *, without: tuple[str, ...] = ()) -> Runner:
    """The same in a chroot with this computer's directories, whose root is no mount point; mounts
    are shared with the outside, as most computers have them."""
    directory.mkdir()
    directory.chmod(0o755)
    lines = ["mount --make-rshared /"]
    for each in Path("/").iterdir():
        inside = shlex.quote(str(directory / each.name))
        if each.is_symlink():
            lines.append(f"ln -s {shlex.quote(str(each.readlink()))} {inside}")
        elif each.is_dir():
            lines.append(f"mkdir {inside}")
            if each.name not in without:
                lines.append(f"mount --rbind {each} {inside}")
    return run.privately("\n".join([*lines, f'exec chroot {directory} "$@"']))


def test_in_a_chroot_without_a_mount_at_its_root(run: Runner, tmp_path: Path) -> None:
    """The program has that root, and what is mounted for it is not seen from outside."""
    inside = in_chroot(run, tmp_path / "root")
    script = "cat /sys/class/dmi/id/product_name; lsmod; pwd; grep -c openrbu-run /proc/1/mountinfo"
    ended = inside("sh", "-c", script, cwd="/")
    told = ["Precision T7600", "Module                  Size  Used by", "/", "0"]
    assert (ended.stdout.splitlines(), ended.stderr) == (told, "")


def test_a_plain_user_in_a_chroot_is_told_that_only_root_may(rbu: Cli, tmp_path: Path) -> None:
    run = runner(tmp_path / "home", "nobody")
    drop = run.prefix[run.prefix.index("setpriv") :] if run.prefix else ()
    ended = in_chroot(replace(run, prefix=drop), tmp_path / "root")("true")
    assert (ended.returncode, ended.stdout) == (4, "")
    assert ended.stderr.endswith("in a chroot only root may\n")
    assert ended.stderr.count("\n") == 1


def test_without_proc_it_says_how_to_mount_that(run: Runner, tmp_path: Path) -> None:
    ended = in_chroot(run, tmp_path / "root", without=("proc",))("true")
    told = "rbu: /proc is not mounted here: mount -t proc proc /proc\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (4, "", told)


def test_in_a_directory_that_was_removed(run: Runner, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    there = run.privately(f"cd {gone}; rmdir {gone}")
    assert there.says("cat", "/sys/class/dmi/id/product_name") == "Precision T7600\n"


@pytest.mark.parametrize(
    ("options", "fuse", "told"),
    [
        ("", "", "does not exist: load the kernel module (modprobe fuse)"),
        ("", "touch /dev/fuse", "is another file: it has to be the character device 10, 229"),
        ("", "mknod /dev/fuse c 1 3", "is another file: it has to be the character device 10, 229"),
        ("-o nodev", "mknod /dev/fuse c 10 229", "can't be opened, not even by root"),
    ],
)
def test_without_the_device_of_fuse_it_says_so(
    run: Runner, options: str, fuse: str, told: str
) -> None:
    ended = run.privately(DEV.format(options=options, fuse=fuse))("true")
    assert (ended.returncode, ended.stdout) == (4, "")
    assert ended.stderr.startswith(f"rbu: /dev/fuse {told}")
    assert ended.stderr.count("\n") == 1
