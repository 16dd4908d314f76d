"""Programs under `rbu run`: what they see, how they end, and that nothing is left of them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.system.descriptors import readable
from rigs.cli import RBU, Cli, names_in
from rigs.machines import NEWER, image_bytes
from rigs.mounted import needs_fuse
from rigs.run import USERS, Runner, runner

TIMEOUT_S = 20.0


@pytest.fixture(params=USERS)
def run(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    """A Precision T7600, switched on."""
    return runner(tmp_path / "home", request.param)


@pytest.fixture
def run_as_root(rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", "root")


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[str]]]:
    """Those that a test starts; they are ended with it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for program in started:
        program.kill()
        program.wait()
        for pipe in (program.stdin, program.stdout):
            assert pipe is not None
            pipe.close()


def line_of(program: subprocess.Popen[str]) -> str:
    """The next line that it says, which has to come in time. '' at the end of it."""
    assert program.stdout is not None
    ready = readable([program.stdout], TIMEOUT_S)
    assert ready, "nothing was said in time"
    return program.stdout.readline().strip()


# -- how a program ends -----------------------------------------------------------------------


def test_the_exit_status_is_the_programs(run: Runner) -> None:
    assert run("true").returncode == 0
    assert run("sh", "-c", "exit 3").returncode == 3


def test_a_program_that_a_signal_ends_gives_128_and_its_number(run: Runner) -> None:
    assert run("sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_a_program_that_is_not_there_is_127_as_with_env(run: Runner) -> None:
    path = "/usr/sbin:/usr/bin:/sbin:/bin"  # a directory that can't be searched would make it 126
    ended = run("no-such-program", env={**os.environ, "PATH": path})
    assert (ended.returncode, ended.stdout) == (127, "")
    assert ended.stderr == "rbu: no-such-program: No such file or directory\n"
    assert run("", env={**os.environ, "PATH": path}).returncode == 127


def test_a_file_that_is_no_program_is_126_as_with_env(run: Runner, tmp_path: Path) -> None:
    plain = tmp_path / "home" / "plain"
    plain.write_text("no program")
    plain.chmod(0o644)
    ended = run(plain)
    assert (ended.returncode, ended.stdout) == (126, "")
    assert ended.stderr == f"rbu: {plain}: Permission denied\n"


def test_a_name_longer_than_any_file_has_is_cut_in_the_error(run: Runner) -> None:
    ended = run("x" * 20_000)
    assert (ended.returncode, ended.stdout) == (126, "")
    assert ended.stderr == f"rbu: {'x' * 256}…: File name too long\n"


def test_a_defect_before_the_program_begins_is_told(run_as_root: Runner) -> None:
    """One that only a caller in Python can bring about: no argument of a process has a 0 in it."""
    words = ["run", "--machine", run_as_root.name, "--", "a\0b"]
    script = f"import sys; from openrbu.cli.main import main; sys.exit(main({words!r}))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (4, b"")
    assert b"Traceback" in ended.stderr
    assert b"embedded null" in ended.stderr
    assert ended.stderr.endswith(b"the process of the program was ended before it began\n")


def test_a_program_copies_files_of_which_no_size_is_known(run_as_root: Runner) -> None:
    """By sendfile, which must not say end of file: tests/unit/mount/test_fuse_bytes.py has more."""
    copies = """
import os, shutil, sys, tempfile
for path in ("/sys/class/dmi/id/bios_version", "/sys/firmware/dmi/tables/DMI", "/proc/buddyinfo"):
    with tempfile.NamedTemporaryFile() as copy, open(path, "rb") as file:
        shutil.copyfile(path, copy.name)
        print(copy.read() == file.read(), os.stat(copy.name).st_size > 0)
"""
    assert run_as_root.says(sys.executable, "-ISc", copies).split() == ["True"] * 6


def test_a_program_gets_terminals(run_as_root: Runner) -> None:
    """As script, tmux, expect and sudo want one."""
    code = "import os; print(os.ttyname(os.openpty()[1]))"
    assert run_as_root.says(sys.executable, "-c", code).startswith("/dev/pts/")


def test_a_machine_that_is_off_is_an_obstacle(rbu: Cli, run_as_root: Runner) -> None:
    rbu.json("machine", "off", run_as_root.name)
    ended = run_as_root("true")
    assert ended.returncode == 4
    assert ended.stderr == "rbu: machine 'box' is off; start it: rbu machine reboot box\n"


def test_a_machine_that_does_not_exist_is_an_obstacle(rbu: Cli) -> None:
    assert "there is no machine 'none'" in rbu.fails(4, "run", "--machine", "none", "true")


def test_options_after_the_program_are_its_own(rbu: Cli, run_as_root: Runner) -> None:
    ended = rbu.process("run", "--machine", run_as_root.name, "echo", "--help", "-m", "x")
    assert (ended.returncode, ended.stdout) == (0, b"--help -m x\n")


def test_json_after_the_program_is_its_own(rbu: Cli) -> None:
    for own in (("--machine", "none"), ("-m", "none"), ("--machine=none",), ("-mnone",)):
        rbu.fails(4, "run", *own, "lsblk", "--json")
    ended = rbu("run", "--machine", "none", "--json", "lsblk")  # there is no such option
    assert (ended.code, ended.document["error"]["exit_code"]) == (2, 2)


# -- signals ----------------------------------------------------------------------------------

TRAPPING = "trap 'echo caught; exit 7' {name}; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize("name", ["TERM", "HUP"])
def test_sigterm_and_sighup_are_passed_on(
    run: Runner, name: str, programs: list[subprocess.Popen[str]]
) -> None:
    program = run.start("sh", "-c", TRAPPING.format(name=name))
    programs.append(program)
    assert line_of(program) == "ready"
    program.send_signal(signal.Signals[f"SIG{name}"])
    assert line_of(program) == "caught"
    assert program.wait(TIMEOUT_S) == 7


def test_ctrl_c_is_the_programs_own(run: Runner, programs: list[subprocess.Popen[str]]) -> None:
    program = run.start("sh", "-c", TRAPPING.format(name="INT"), start_new_session=True)
    programs.append(program)
    assert line_of(program) == "ready"
    os.killpg(program.pid, signal.SIGINT)  # what a terminal does
    assert line_of(program) == "caught"
    assert program.wait(TIMEOUT_S) == 7


def test_a_program_that_ctrl_c_ends_is_told_as_such(
    run: Runner, programs: list[subprocess.Popen[str]]
) -> None:
    program = run.start("sh", "-c", "echo ready; exec sleep 60", start_new_session=True)
    programs.append(program)
    assert line_of(program) == "ready"
    os.killpg(program.pid, signal.SIGINT)
    assert program.wait(TIMEOUT_S) == 128 + signal.SIGINT


def test_a_pipe_that_is_closed_ends_a_program_as_ever(run: Runner) -> None:
    """Python ignores SIGPIPE; what it runs must not."""
    assert run.says("sh", "-c", "(yes; echo $? >&2) 2>&1 | head -1") == "y\n"
    ended = run("sh", "-c", "{ yes; echo ended $? >&2; } | head -1")
    assert ended.stderr == f"ended {128 + signal.SIGPIPE}\n"


def test_the_end_of_the_parent_is_the_end_of_the_program_and_a_power_cut(
    rbu: Cli, run_as_root: Runner, programs: list[subprocess.Popen[str]]
) -> None:
    changing = "echo warm > /sys/kernel/reboot/mode; echo ready; exec sleep 60"
    program = run_as_root.start("sh", "-c", changing)
    programs.append(program)
    assert line_of(program) == "ready"
    program.kill()
    assert line_of(program) == ""  # the program had the other end of the pipe
    shown = rbu.json("machine", "show", run_as_root.name)
    assert (shown["is_on"], shown["lost_power"]) == (False, True)
    rbu.json("machine", "reboot", run_as_root.name)
    assert run_as_root.says("cat", "/sys/kernel/reboot/mode") == "cold\n"


def test_what_outlives_the_parent_uncovers_nothing_of_this_computer(
    run_as_root: Runner, tmp_path: Path, programs: list[subprocess.Popen[str]]
) -> None:
    """Whoever gets the lock of a machine removes its dead mounts; those of a run are none."""
    fifo = tmp_path / "home" / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    command = shlex.join([*RBU, "machine", "show", run_as_root.name])
    left = f"read line < {fifo}; {command} | head -1; ls /sys/firmware /sys/class 2>&1"
    program = run_as_root.start(
        "sh", "-c", f"setsid sh -c {shlex.quote(left)} & echo ready; exec sleep 60"
    )
    programs.append(program)
    assert line_of(program) == "ready"
    program.kill()
    fifo.write_text("\n")
    if Path("/proc/kcore").exists():  # else the machine's /proc has ended, too
        assert run_as_root.name in line_of(program)
    for name in ("firmware", "class"):
        told = f"ls: cannot access '/sys/{name}': Transport endpoint is not connected"
        assert line_of(program) == told
    assert line_of(program) == ""


# -- what a program has -----------------------------------------------------------------------


def test_input_output_and_errors_are_the_programs(run: Runner) -> None:
    ended = run("sh", "-c", "cat; echo wrong >&2", input="through\n")
    assert (ended.stdout, ended.stderr) == ("through\n", "wrong\n")


def test_its_directory_and_environment_are_as_they_were(rbu: Cli, run: Runner) -> None:
    home = run.directory.parent
    said = run.says("sh", "-c", "pwd; echo $SEEN", cwd=home, env={**os.environ, "SEEN": "yes"})
    assert said == f"{home}\nyes\n"


def test_a_working_directory_in_sys_is_the_one_that_is_seen(run: Runner) -> None:
    assert run.says("sh", "-c", "ls dmi/id/bios_version", cwd="/sys/class")
    assert "tables" in run.says("ls", "/proc/self/cwd/../firmware/dmi", cwd="/sys/kernel")


# -- what a program sees ----------------------------------------------------------------------


def test_the_machine_is_seen_at_its_true_paths(run: Runner) -> None:
    assert run.says("cat", "/sys/class/dmi/id/product_name") == "Precision T7600\n"
    assert run.says("cat", "/sys/kernel/reboot/mode") == "cold\n"
    assert run.says("cat", "/sys/class/firmware/timeout")
    assert run.says("ls", "/sys/firmware") == "dmi\n"


def test_the_real_entries_are_beside_it(run: Runner) -> None:
    for name in ("block", "kernel/mm", "devices/system/cpu", "module/kernel", "bus/platform"):
        real = Path("/sys", name)
        if real.is_dir():
            assert run.says("ls", real).split() == names_in(real), name
    seen = run.says("cat", "/sys/kernel/mm/transparent_hugepage/enabled")
    assert seen == Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    assert run.says("cat", "/sys/kernel/cpu_byteorder") == "little\n"
    devices = set(run.says("ls", "/sys/devices/platform").split())
    assert devices >= set(names_in(Path("/sys/devices/platform"))) - {"dell_rbu", "dcdbas"}


def test_files_of_proc_are_the_machines(run: Runner) -> None:
    assert "DMA32" in run.says("cat", "/proc/buddyinfo")
    inside = run.says("cat", "/proc/buddyinfo", "/proc/sys/kernel/random/boot_id")
    outside = (
        Path("/proc/buddyinfo").read_text() + Path("/proc/sys/kernel/random/boot_id").read_text()
    )
    assert inside != outside
    assert inside == run.says("cat", "/proc/buddyinfo", "/proc/sys/kernel/random/boot_id")


def test_huge_pages_are_taken_from_the_machines_memory(run: Runner) -> None:
    numbers = run.says("sh", "-euc", "echo 3 > /proc/sys/vm/nr_hugepages; cat /proc/buddyinfo")
    assert run.says("cat", "/proc/sys/vm/nr_hugepages", "/proc/buddyinfo") == f"3\n{numbers}"
    assert run("ls", "/sys/devices/system/node").returncode


def test_entries_come_and_go_while_a_program_runs(
    rbu: Cli, run_as_root: Runner, programs: list[subprocess.Popen[str]]
) -> None:
    looking = "while read line; do ls -d /sys/module/dell_rbu || echo none; done"
    program = run_as_root.start("sh", "-c", looking, stderr=subprocess.DEVNULL)
    programs.append(program)

    def look() -> str:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
        return line_of(program)

    assert look() == "none"
    rbu.json("module", "load", "dell_rbu", "--machine", run_as_root.name)
    assert look() == "/sys/module/dell_rbu"
    rbu.json("module", "unload", "dell_rbu", "--abort", "--machine", run_as_root.name)
    assert look() == "none"
    program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0


def test_the_ports_are_the_machines_although_this_computer_has_some(
    rbu: Cli, tmp_path: Path
) -> None:
    """What a Precision 390 is armed by is bit 6 of index 0x78."""
    made = (
        "mount -t tmpfs none /dev; mknod /dev/fuse c 10 229; mknod /dev/null c 1 3; "
        "mknod /dev/port c 1 3; mknod /dev/mem c 1 5; mknod /dev/nvram c 1 5"
    )
    run = runner(tmp_path / "home", "root", "precision-390").privately(made)
    arm = (
        "import os; fd = os.open('/dev/port', os.O_RDWR); os.pwrite(fd, b'\\x78', 0x70); "
        "byte = os.pread(fd, 1, 0x71)[0]; os.pwrite(fd, bytes([byte | 0x40]), 0x71)"
    )
    assert not rbu.json("machine", "show", run.name)["is_armed"]
    run.says(sys.executable, "-c", arm)
    assert rbu.json("machine", "show", run.name)["is_armed"]
    refused = run("head", "-c1", "/dev/nvram")
    assert refused.returncode == 1
    assert "Operation not permitted" in refused.stderr
    assert run.says("sh", "-c", "head -c 983044 /dev/mem | tail -c 4") == "_SM_"


def test_where_dev_has_no_ports_its_other_entries_stay(run: Runner) -> None:
    assert "OK" in run.says("sh", "-c", "echo OK > /dev/null; ls -l /dev/port; echo OK")
    seen = set(run.says("ls", "-a", "/dev").split())
    assert seen == set(names_in(Path("/dev"))) | {".", "..", "kmsg", "mem", "port"}
    assert run.says("sh", "-c", "ls -d /dev/pts/ptmx /dev/shm/.").split()


def test_what_restarts_this_computer_is_out_of_reach(run_as_root: Runner) -> None:
    run = run_as_root.privately(
        "mount -t tmpfs none /run; mkdir /run/systemd; touch /run/systemd/private /run/initctl"
    )
    for path in ("/run/systemd/private", "/run/initctl"):
        refused = run("cat", path)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "Operation not permitted" in refused.stderr


def test_so_is_what_reaches_its_firmware_by_a_device(run_as_root: Runner) -> None:
    names = ("cpu/0/msr", "ipmi0", "ipmi/0", "ipmidev/0", "mtd0", "mtdblock0", "mtd/0", "watchdog",
             "watchdog0")  # fmt: skip
    run = run_as_root.privately(
        "mount -t tmpfs none /dev; mknod /dev/fuse c 10 229; cd /dev; "
        f"mkdir -p cpu/0 ipmi ipmidev mtd; touch {' '.join(names)}"
    )
    for name in names:
        refused = run("cat", f"/dev/{name}")
        assert (refused.returncode, refused.stdout) == (1, ""), name
        assert "Operation not permitted" in refused.stderr


def test_so_is_what_puts_it_to_sleep(run: Runner) -> None:
    assert run("ls", "/sys/power").stderr.endswith("No such file or directory\n")


def test_two_programs_see_the_same_machine_at_once(
    run_as_root: Runner, programs: list[subprocess.Popen[str]]
) -> None:
    """The second one's files come from the first one's process."""
    first = run_as_root.start("sh", "-c", "echo ready; read line; cat /sys/kernel/reboot/mode")
    programs.append(first)
    assert line_of(first) == "ready"
    changing = "echo warm > /sys/kernel/reboot/mode; ls -d /sys/block; cat /sys/class/dmi/id/bios*"
    said = run_as_root.says("sh", "-c", changing)
    assert "/sys/block" in said
    assert "Dell Inc." in said
    assert first.communicate("\n", timeout=TIMEOUT_S)[0] == "warm\n"


def test_a_program_that_ends_waits_for_who_uses_the_machine_through_it(
    run_as_root: Runner, programs: list[subprocess.Popen[str]]
) -> None:
    first = run_as_root.start("sh", "-c", "echo ready; read line", stderr=subprocess.STDOUT)
    programs.append(first)
    assert line_of(first) == "ready"
    second = run_as_root.start(
        "sh", "-c", "echo ready; read line; cat /sys/class/dmi/id/product_name"
    )
    programs.append(second)
    assert line_of(second) == "ready"
    assert first.stdin is not None
    first.stdin.write("\n")
    first.stdin.flush()
    assert line_of(first) == "rbu: waiting for 1 program that uses the machine"
    assert second.communicate("\n", timeout=TIMEOUT_S)[0] == "Precision T7600\n"
    assert first.wait(TIMEOUT_S) == 0


# -- nothing is left --------------------------------------------------------------------------


def mounts_of(run: Runner, process: int | str = "self") -> list[str]:
    """The mounts of the machine that a process sees."""
    lines = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    return [line for line in lines if str(run.directory) in line]


def test_nothing_is_mounted_outside_of_it(
    run: Runner, programs: list[subprocess.Popen[str]]
) -> None:
    before = names_in(Path("/sys")), names_in(Path("/dev"))
    program = run.start("sh", "-c", "grep -c fuse.openrbu /proc/self/mountinfo; read line")
    programs.append(program)
    assert int(line_of(program)) > 0
    assert mounts_of(run) == mounts_of(run, program.pid) == []
    assert (names_in(Path("/sys")), names_in(Path("/dev"))) == before
    program.communicate("\n")
    assert program.returncode == 0
    assert mounts_of(run) == []


def test_nor_where_mounts_are_shared_as_most_computers_have_them(
    run_as_root: Runner, programs: list[subprocess.Popen[str]]
) -> None:
    run = run_as_root.privately("mount --make-rshared /")
    program = run.start("sh", "-c", "echo ready; read line")
    programs.append(program)
    assert line_of(program) == "ready"
    shown = Path(f"/proc/{program.pid}/mountinfo").read_text()
    assert " shared:" in shown
    assert mounts_of(run, program.pid) == []
    program.communicate("\n")
    assert program.returncode == 0


def test_what_stays_in_the_background_loses_the_machine(
    run: Runner, tmp_path: Path, programs: list[subprocess.Popen[str]]
) -> None:
    fifo = tmp_path / "home" / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    waiting = f"(read line < {fifo}; cat /sys/class/dmi/id/product_name 2>&1) &"
    program = run.start("sh", "-c", waiting)
    programs.append(program)
    assert program.wait(TIMEOUT_S) == 0
    fifo.write_text("\n")
    assert "Transport endpoint is not connected" in line_of(program)


def test_a_computer_without_fuse_says_so(run_as_root: Runner) -> None:
    run = run_as_root.privately("mount -t tmpfs none /dev")
    ended = run("true")
    assert (ended.returncode, ended.stdout) == (4, "")
    assert ended.stderr.startswith("rbu: /dev/fuse does not exist")
    assert ended.stderr.count("\n") == 1


# -- openrbu itself as the program ------------------------------------------------------------


@pytest.mark.parametrize("model", ["precision-390", "precision-t7600", "poweredge-2650"])
def test_a_whole_update_by_real_files(rbu: Cli, tmp_path: Path, model: str) -> None:
    """By /dev/port for tokens in CMOS, by dcdbas for the others."""
    needs_fuse()
    run = runner(tmp_path / "home", "root", model)
    image = rbu.write("image.hdr", image_bytes(model))
    modules = ["dell_rbu"] + ["dcdbas"] * (model == "precision-t7600")
    for module in modules:
        rbu.json("module", "load", module, "--machine", run.name)
    planned = json.loads(run(*RBU, "plan", image, "--json").stdout)
    assert planned["machine"]["name"] is None
    assert "physical memory" in json.dumps(planned)
    ended = run(*RBU, "update", image, "--json")
    assert ended.returncode == 0, ended
    assert rbu.json("machine", "show", run.name)["is_armed"]
    rbu.json("machine", "reboot", run.name)
    shown = rbu.json("machine", "show", run.name)
    assert (shown["bios_version"], shown["is_armed"]) == (NEWER[model], False)


# -- the history of updates, and the lock of one ----------------------------------------------


def test_the_machines_history_and_its_lock_are_those_of_the_machine_from_outside(
    rbu: Cli, tmp_path: Path
) -> None:
    run = runner(tmp_path / "home", "nobody" if os.geteuid() else "root")
    image = tmp_path / "new.hdr"
    image.write_bytes(image_bytes("precision-t7600"))
    image.chmod(0o644)
    here = Path("/var/lib/openrbu/journal.jsonl")
    before = here.read_bytes() if here.exists() else None

    def outside(*words: str) -> Any:
        command = [*run.prefix, *RBU, *words, "--machine", run.name, "--json"]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    for module in ("dell_rbu", "dcdbas"):
        outside("module", "load", module)
    assert json.loads(run.says(*RBU, "update", image, "--json"))["is_armed"]
    assert [each["outcome"] for each in outside("history")["updates"]] == ["armed"]
    assert outside("cancel")["was_armed"]
    (update,) = json.loads(run.says(*RBU, "history", "--json"))["updates"]
    assert update["outcome"] == "cancelled"
    script = "cd /var/lib/openrbu && exec flock . sh -c 'echo held; read end'"
    holder = run.start("sh", "-euc", script)
    try:
        assert line_of(holder) == "held"
        busy = run(*RBU, "cancel")
        assert (busy.returncode, "an update is under way" in busy.stderr) == (4, True), busy
    finally:
        holder.communicate("\n")
    assert (here.read_bytes() if here.exists() else None) == before


def test_a_directory_that_this_computer_has_not_is_made_for_the_history_alone(
    run_as_root: Runner,
) -> None:
    """All else in the directory above stays as it is."""
    other = "mount -t tmpfs none /var/lib; mkdir /var/lib/x; echo 7 >/var/lib/x/y"
    script = "cat /var/lib/x/y; ls /var/lib; ls /var/lib/openrbu/machine.json"
    said = run_as_root.privately(other).says("sh", "-euc", script)
    assert said.split() == ["7", "openrbu", "x", "/var/lib/openrbu/machine.json"]
