"""Programs under `rbu run` on a host of Xen, which sets the size of its own Linux by files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from openrbu.run.shown_files import PROC_FILES
from openrbu.units import KIB, PAGE_SIZE
from openrbu.xen.hypervisor import INVALID
from rigs.cli import Cli, names_in
from rigs.machines import running
from rigs.needs import program
from rigs.run import USERS, Runner, runner, xen_order

DEVICE = "/sys/devices/system/xen_memory/xen_memory0"
BALLOON = "/proc/xen/balloon"
OLDER = ("linux-2.6.18-xen", "hard-limit")
"""Profiles with a file in /proc."""

PAGE_KIB = PAGE_SIZE // KIB
TARGET_KIB = 100 * KIB

RESIZED = """\
Current allocation:   102400 kB
Requested target:     102400 kB
Low-mem balloon:       94208 kB
High-mem balloon:          0 kB
Driver pages:              0 kB
"""

KEPT_AWAY = ("sysrq-trigger",)


@pytest.fixture(params=USERS)
def run(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", request.param, **xen_order(OLDER[0]))


@pytest.fixture
def run_as_root(rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", "root", **xen_order(OLDER[0]))


def owned_kib(run: Runner) -> int:
    """What the hypervisor has given the machine's Linux."""
    with running(run.directory) as machine:
        assert machine.frame_table is not None
        return int(np.count_nonzero(machine.frame_table != INVALID)) * PAGE_KIB


def free_kib(buddyinfo: str) -> int:
    """What a /proc/buddyinfo shows as free."""
    counts = [line.split()[4:] for line in buddyinfo.splitlines()]
    pages = sum(int(count) << order for zone in counts for order, count in enumerate(zone))
    return pages * PAGE_KIB


def refusal_of(run: Runner, path: str) -> str:
    """What a program is told that wants to read what it is not to read."""
    ended = run("head", "-c1", path)
    assert (ended.returncode, ended.stdout) == (1, ""), path
    return ended.stderr.rpartition(": ")[2].strip()


# -- the balloon ------------------------------------------------------------------------------


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("profile", ["linux", *OLDER])
def test_a_target_by_echo_is_reached(rbu: Cli, tmp_path: Path, profile: str, user: str) -> None:
    run = runner(tmp_path / "home", user, **xen_order(profile))
    assert owned_kib(run) == 128 * KIB
    said = run.says(
        "sh", "-euc", f"cat /proc/buddyinfo; echo {TARGET_KIB} > {DEVICE}/target_kb; "
        f"cat /proc/buddyinfo; cat {DEVICE}/info/current_kb {DEVICE}/info/low_kb",
    )  # fmt: skip
    *zones, current, low = said.splitlines(keepends=True)
    assert (int(current), int(low)) == (TARGET_KIB, 192 * KIB - TARGET_KIB)
    before, after = zones[: len(zones) // 2], zones[len(zones) // 2 :]
    assert free_kib("".join(before)) - free_kib("".join(after)) == 128 * KIB - TARGET_KIB
    assert owned_kib(run) == TARGET_KIB
    assert run.says("sh", "-euc", f"echo 150M > {DEVICE}/target; cat {DEVICE}/target_kb") == (
        f"{150 * KIB}\n"
    )
    assert owned_kib(run) == 150 * KIB


def test_the_file_in_proc_takes_a_size_and_shows_it(run: Runner) -> None:
    said = run.says("sh", "-euc", f"echo 100M > {BALLOON}; cat {BALLOON}")
    assert said == RESIZED
    assert run.says("cat", f"{DEVICE}/info/current_kb") == f"{TARGET_KIB}\n"
    assert owned_kib(run) == TARGET_KIB


def test_that_file_has_the_hard_limit_where_there_is_one(rbu: Cli, tmp_path: Path) -> None:
    run = runner(tmp_path / "home", "root", **xen_order("hard-limit"))
    assert run.says("tail", "-n1", BALLOON) == "Xen hard limit:          ??? kB\n"


@pytest.mark.parametrize(("size", "told"), [(1, "Bad message"), (65, "File too large")])
def test_too_few_or_too_many_bytes_are_refused(run: Runner, size: int, told: str) -> None:
    ended = run("dd", "if=/dev/zero", f"of={BALLOON}", f"bs={size}", "count=1", "status=none")
    assert (ended.returncode, ended.stderr) == (1, f"dd: error writing '{BALLOON}': {told}\n")
    assert owned_kib(run) == 128 * KIB


def test_current_linux_has_no_such_file(rbu: Cli, tmp_path: Path) -> None:
    run = runner(tmp_path / "home", "root", **xen_order("linux"))
    assert run("cat", BALLOON).returncode == 1
    before = run.says("cat", "/proc/self/comm")
    assert before == "cat\n"
    # And the real /proc is what it was, unless it lacks another file of the machine.
    is_real = run("ls", "/proc/.processes").returncode == 2
    assert is_real is Path("/proc/kcore").exists()


def test_a_program_can_tell_that_it_runs_on_xen(run: Runner) -> None:
    assert run.says("cat", "/proc/xen/capabilities", "/sys/hypervisor/type") == "control_d\nxen\n"


# -- the rest of /proc ------------------------------------------------------------------------


def test_all_else_of_proc_is_there_and_the_real_one(run: Runner) -> None:
    def others(names: list[str]) -> set[str]:
        return {name for name in names if not name.isdecimal()}

    machines = {"buddyinfo", "iomem", "kcore", "kpageflags", "meminfo", "modules", "xen"}
    seen = others(run.says("ls", "-A", "/proc").split())
    assert seen == others(names_in(Path("/proc"))) | machines
    for name in ("version", "filesystems", "sys/kernel/hostname", "net/if_inet6"):
        assert run.says("cat", f"/proc/{name}") == Path("/proc", name).read_text()
    assert run.says("readlink", "/proc/mounts", "/proc/net") == "self/mounts\nself/net\n"


def test_a_program_finds_itself(run: Runner) -> None:
    said = run.says("sh", "-euc", "echo $$; exec readlink /proc/self /proc/$$/exe /proc/self/exe")
    own, *read = said.split()
    assert read == [own, *[os.path.realpath("/usr/bin/readlink")] * 2]
    own, *read = run.says("sh", "-euc", "echo $$; exec readlink /proc/thread-self").split()
    assert read == [f"{own}/task/{own}"]
    assert run.says("sh", "-c", "echo through | cat /proc/self/fd/0") == "through\n"
    assert "fuse.openrbu-run" in run.says("cat", "/proc/self/mountinfo")
    assert int(run.says("cat", "/proc/self/uid_map").split()[0]) == 0


def test_a_shell_finds_its_children_while_they_are_there(run: Runner) -> None:
    script = """
    sleep 60 &
    until grep -q sleep /proc/$!/comm; do :; done
    readlink /proc/$!/exe
    kill $!
    wait $! || ls -d /proc/$! 2>&1 | sed 's/.*: //'
    """
    sleep = os.path.realpath("/usr/bin/sleep")
    ended = run("sh", "-c", script)
    assert ended.stdout == f"{sleep}\nNo such file or directory\n"


def test_many_children_are_found_by_many_threads(run_as_root: Runner) -> None:
    script = """
import os, signal, threading
def look(_):
    for _ in range(25):
        child = os.fork()
        if not child:
            signal.pause()
        path = f"/proc/{child}"
        with open(f"{path}/stat") as file:
            assert int(file.read().split()[0]) == child
        with open(f"{path}/task/{child}/status") as file:
            assert f"PPid:\\t{os.getpid()}\\n" in file
        assert os.path.samefile(f"{path}/exe", "/proc/self/exe")
        assert str(child) in os.listdir("/proc")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not os.path.lexists(path)
    looked.append(1)
looked = []
threads = [threading.Thread(target=look, args=(n,), daemon=True) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(looked))
"""
    assert run_as_root.says(sys.executable, "-W", "ignore", "-c", script) == "4\n"


def test_programs_that_look_at_processes_do(run: Runner) -> None:
    ps, top = program("ps", "procps"), program("top", "procps")
    assert run.says("sh", "-c", f"{ps} -o comm= -p $$; true") == "sh\n"
    shown = run.says("sh", "-c", f"{ps} -eo pid=,args=; true").splitlines()
    numbers = [int(line.split()[0]) for line in shown]
    assert numbers == sorted(numbers)
    assert sum("-eo pid=,args=" in line for line in shown) >= 2
    assert len(run.says(top, "-b", "-n1").splitlines()) > len(numbers) // 2


def test_lsof_shows_what_a_program_has_open(run: Runner) -> None:
    lsof = program("lsof", "lsof")
    ended = run("sh", "-c", f"exec 7< {BALLOON}; {lsof} -p $$ -a -d 7 -Fn; true")
    assert ended.stdout.splitlines()[-1].startswith(f"n{BALLOON}")
    # Other mounts of this computer it may print_error of.
    assert "/proc" not in ended.stderr
    assert "openrbu-run" not in ended.stderr


def test_a_program_of_its_own_user_namespace_can_be_made(run: Runner) -> None:
    said = run.says("unshare", "--user", "--map-root-user", "cat", "/proc/self/uid_map")
    assert said.split() == ["0", "0", "1"]


def test_a_working_directory_in_proc_is_the_one_that_is_seen(run_as_root: Runner) -> None:
    where = f"/proc/{os.getpid()}"
    assert run_as_root.says("cat", "comm", cwd=where) == Path(where, "comm").read_text()
    assert run_as_root.says("cat", "xen/capabilities", cwd="/proc") == "control_d\n"


def test_nothing_can_be_made_or_removed_in_proc(run: Runner) -> None:
    for words in (("mkdir", "/proc/new"), ("rm", "/proc/1"), ("rmdir", "/proc/xen")):
        refused = run(*words)
        assert refused.returncode == 1
        assert "Operation not permitted" in refused.stderr


def test_a_machine_without_xen_leaves_proc_as_it_is(rbu: Cli, tmp_path: Path) -> None:
    """Where this computer has a `/proc/kcore`, on which the machine's is bound."""
    run = runner(tmp_path / "home", "root")
    is_real = run.says("stat", "--file-system", "--format=%T", "/proc") == "proc\n"
    assert is_real is Path("/proc/kcore").exists()
    assert (run("ls", "-d", "/proc/.processes").returncode == 2) is is_real


# -- what is kept away ------------------------------------------------------------------------


def test_what_is_kept_away_is_so_by_every_path(run_as_root: Runner) -> None:
    """This /proc has the two files whatever the kernel is. It has no processes by their number."""
    home = run_as_root.directory.parent
    real = home / "proc"
    real.mkdir()
    run = run_as_root.privately(
        f"mount --rbind /proc {real}; mount -t tmpfs none /proc; cd /proc; "
        f"ln -s {real}/self {real}/thread-self {real}/mounts .; mkdir sys; "
        f"for name in {' '.join(KEPT_AWAY)} other; do echo real > $name; done; cd /"
    )
    assert run.says("cat", "/proc/other", "/proc/.processes/other") == "real\nreal\n"
    assert "balloon" in run.says("ls", "/proc/xen")
    for name in KEPT_AWAY:
        for above in ("", ".processes/", "self/root/proc/", "self/root/proc/.processes/"):
            assert refusal_of(run, f"/proc/{above}{name}") == "Operation not permitted"


def test_this_computers_huge_pages_are_out_of_reach(run: Runner) -> None:
    """A host of Xen has none of its own."""
    assert refusal_of(run, "/proc/sys/vm/nr_hugepages") == "Operation not permitted"


HOST = f"""
mount -t tmpfs none /sys; cd /sys
mkdir -p hypervisor .{DEVICE.removeprefix("/sys")} bus/xen_memory devices/system/cpu
echo other > hypervisor/type; echo 1 > .{DEVICE.removeprefix("/sys")}/target_kb
mkdir -p {{home}}/real; mount --rbind /proc {{home}}/real; mount -t tmpfs none /proc; cd /proc
ln -s {{home}}/real/self {{home}}/real/thread-self {{home}}/real/mounts .; mkdir xen
for name in privcmd xenbus capabilities; do echo other > xen/$name; done
touch {" ".join(path.split("/")[2] for path in PROC_FILES if path.count("/") == 2)}
mount -t tmpfs none /run; mkdir /run/xenstored; touch /run/xenstored/socket
mount -t tmpfs none /dev; mknod /dev/fuse c 10 229; mknod /dev/null c 1 3; mkdir /dev/xen
touch /dev/xen/privcmd; cd /
"""
"""Makes this computer look like one that is a host of Xen itself."""


def test_on_a_host_of_xen_the_machines_files_are_seen(run_as_root: Runner) -> None:
    run = run_as_root.privately(HOST.format(home=run_as_root.directory.parent))
    assert run.says("ls", "/proc/xen") == "balloon\ncapabilities\n"
    assert run.says("cat", "/proc/xen/capabilities", "/sys/hypervisor/type") == "control_d\nxen\n"
    assert run.says("sh", "-euc", f"echo 100M > {BALLOON}; cat {BALLOON}") == RESIZED
    assert run.says("cat", f"{DEVICE}/target_kb") == f"{TARGET_KIB}\n"
    assert "cpu" in run.says("ls", "/sys/devices/system")
    for path in ("/dev/xen/privcmd", "/run/xenstored/socket"):
        assert refusal_of(run, path) == "Operation not permitted"


def test_on_a_host_of_xen_a_machine_without_it_sees_none(rbu: Cli, tmp_path: Path) -> None:
    plain = runner(tmp_path / "home", "root")
    run = plain.privately(HOST.format(home=plain.directory.parent))
    for path in ("/proc/xen/privcmd", "/proc/xen/capabilities", "/dev/xen/privcmd",
                 "/run/xenstored/socket"):  # fmt: skip
        assert refusal_of(run, path) == "Operation not permitted"
    for path in ("/sys/hypervisor", DEVICE, "/sys/bus/xen_memory"):
        assert refusal_of(run, path) == "No such file or directory"
    assert run.says("ls", "/sys/devices/system") == "cpu\n"
