"""What the machine's kernel said, where a program under `rbu run` looks for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rigs.cli import Cli
from rigs.needs import program
from rigs.run import USERS, Runner, runner

SAYS = "echo 5 > /sys/class/firmware/dell_rbu/loading 2> /dev/null"
"""Has the kernel say that it does not know the value 5."""

OF_THIS_COMPUTER = (
    "config.gz", "ioports", "kallsyms", "kmsg", "pagetypeinfo", "slabinfo", "vmstat", "zoneinfo",
)  # fmt: skip


@pytest.fixture(params=USERS)
def run(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", request.param)


@pytest.fixture
def run_as_root(rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", "root")


def test_dmesg_shows_what_the_machines_kernel_said_and_nothing_of_this_computer(
    rbu: Cli, run_as_root: Runner
) -> None:
    run = run_as_root
    dmesg = program("dmesg", "util-linux")
    shown = run.says("sh", "-c", f"modprobe dell_rbu; {SAYS}; {dmesg}").splitlines()
    log = rbu.json("machine", "log", run.name)["lines"]
    assert [re.sub(r"^\[ *\d+\.\d{6}\] ", "", line) for line in shown] == [
        line["text"] for line in log
    ]
    assert "(5)" in shown[-1]
    cleared = run(dmesg, "--clear")
    assert cleared.returncode == 1
    assert "Operation not permitted" in cleared.stderr


def test_a_record_is_read_at_a_time_and_of_this_start_alone(run: Runner) -> None:
    first = "dd if=/dev/kmsg bs=8192 count=1 2> /dev/null"
    ended = run("sh", "-c", f"modprobe dell_rbu; {SAYS}; {first}; reboot")
    (record,) = ended.stdout.splitlines()
    assert record.startswith("6,0,0,-;the kernel starts, ")
    (record,) = run.says("cat", "/dev/kmsg").splitlines()
    assert record.startswith("6,0,0,-;the kernel starts, ")


def test_what_a_program_writes_there_is_in_the_machines_log(rbu: Cli, run_as_root: Runner) -> None:
    run = run_as_root
    run.says("sh", "-c", "echo '<4>update begins' > /dev/kmsg; printf 'a\\tb' > /dev/kmsg")
    *_, first, second = rbu.json("machine", "log", run.name)["lines"]
    assert (first["text"], second["text"]) == ("update begins", "a\tb")
    assert run.says("tail", "-n1", "/dev/kmsg").endswith("-;a\\x09b\n")


def test_a_plain_user_in_the_machine_reads_it_and_does_not_write(run_as_root: Runner) -> None:
    run = run_as_root
    drop = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert "the kernel starts" in run.says(*drop, "cat", "/dev/kmsg")
    assert run(*drop, "sh", "-c", "echo x > /dev/kmsg").returncode


def test_what_tells_of_this_computers_kernel_and_memory_is_refused(run: Runner) -> None:
    paths = [f"/proc/{name}" for name in OF_THIS_COMPUTER if Path("/proc", name).exists()]
    refused = run("cat", *paths).stderr.splitlines()
    assert refused == [f"cat: {path}: Operation not permitted" for path in paths]


def test_programs_that_show_a_computer_work(run: Runner) -> None:
    for name in ("free", "top", "ps", "lscpu"):
        program(name, "procps or util-linux")
    run.says("sh", "-euc", "{ free; top -b -n1; ps -e; lscpu; } > /dev/null")
