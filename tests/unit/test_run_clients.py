"""Programs that nobody here wrote, unmodified, on a virtual machine: dmidecode and libsmbios."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from openrbu.errors import OpenRbuError
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.factory_tables import read_tables
from openrbu.sharing.access import open_machine
from openrbu.update.arm import activation_for
from openrbu.update.target import read_target
from rigs.cli import Cli
from rigs.machines import ENTRY, NEWER, image_bytes, running
from rigs.needs import program
from rigs.run import USERS, Runner, runner

MODEL = "precision-t7600"
PASSWORD = "Tall1-Tree"

SET_WITH = """
import sys
from openrbu.hosts.linux import LinuxHost
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.target import read_target

host, password = LinuxHost(), sys.stdin.read()
try:
    set_armed(activation_for(host, read_target(host), password), armed=True)
except Exception as error:
    print(error.kind)
"""
"""Sets the token with the password on standard input; what kept it from that."""

READS = int(os.environ.get("OPENRBU_TOKEN_READS", "400"))
"""How many token reads are made beside smbios-token-ctl: more, where somebody has the time."""

READ_BESIDE = """
import collections, json, pathlib, subprocess, sys, threading
from openrbu.hosts.linux import LinuxHost
from openrbu.update.arm import activation_for
from openrbu.update.target import read_target

command, count = json.loads(sys.argv[1]), int(sys.argv[2])
host = LinuxHost()
token = activation_for(host, read_target(host))
theirs, ours, done = collections.Counter(), collections.Counter(), threading.Event()

def beside():
    while not done.is_set():
        said = subprocess.run(command, capture_output=True, text=True)
        theirs[" ".join(said.stdout.split()[-2:]) + said.stderr] += 1

others = [threading.Thread(target=beside) for _ in range(2)]
for other in others:
    other.start()
for _ in range(count):
    try:
        ours[str(token.is_armed)] += 1
    except Exception as error:
        ours[str(error)] += 1
done.set()
for other in others:
    other.join()
print(json.dumps({"ours": ours, "theirs": theirs}))
"""
"""Reads the token while two programs of libsmbios read it all the time; what each of them said."""


@pytest.fixture(params=USERS)
def run(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", request.param, MODEL)


def token_ctl(run: Runner, token: int, *words: str) -> subprocess.CompletedProcess[str]:
    return run(program("smbios-token-ctl", "smbios-utils"), f"--token-id={token:#x}", *words)


def activate(run: Runner, token: int, *words: str) -> None:
    """smbios-token-ctl ends with 1 after an activation that it made; what it says counts."""
    said = token_ctl(run, token, "--activate", *words).stdout.split()
    assert said[-2:] == ["value:", "true"]


def is_active(run: Runner, token: int) -> bool:
    return token_ctl(run, token, "--is-active").returncode == 0


def test_dmidecode_shows_the_machine(run: Runner) -> None:
    dmidecode = program("dmidecode", "dmidecode")
    said = run.says(dmidecode, "--type", "system", "--type", "bios")
    assert "Product Name: Precision T7600" in said
    assert "Version: A01" in said
    assert run.says(dmidecode, "-s", "system-serial-number") == "OPENRBU\n"


def test_what_dmidecode_dumps_is_the_tables_of_a_machine(run: Runner) -> None:
    dump = run.directory / "tables.bin"
    run.says(program("dmidecode", "dmidecode"), "--dump-bin", dump)
    tables, _ = read_tables(dump)
    assert tables.structures == read_tables(run.directory)[0].structures
    assert tables.problems == ()


def test_smbios_sys_info_shows_the_machine(run: Runner) -> None:
    said = run.says(program("smbios-sys-info", "smbios-utils"))
    shown = dict(line.split(":", 1) for line in said.splitlines())
    assert {name: value.strip() for name, value in shown.items()}.items() >= {
        "Product Name": "Precision T7600",
        "BIOS Version": "A01",
        "System ID": "0x0495",
        "Service Tag": "OPENRBU",
    }.items()


def test_smbios_token_ctl_arms_and_disarms_an_update(rbu: Cli, tmp_path: Path) -> None:
    run = runner(tmp_path / "home", "root", MODEL)
    rbu.json("module", "load", "dcdbas", "--machine", run.name)

    def is_armed() -> bool:
        armed: bool = rbu.json("machine", "show", run.name)["is_armed"]
        return armed

    assert (is_armed(), is_active(run, 0x5C)) == (False, False)
    activate(run, 0x5C)
    assert (is_armed(), is_active(run, 0x5C), is_active(run, 0x5D)) == (True, True, False)
    activate(run, 0x5D)
    assert (is_armed(), is_active(run, 0x5C), is_active(run, 0x5D)) == (False, False, True)


def test_neither_openrbu_nor_libsmbios_fails_when_both_read_the_token_all_the_time(
    rbu: Cli, tmp_path: Path
) -> None:
    """Without the lock that both take, one of 25 reads failed."""
    run = runner(tmp_path / "home", "root", MODEL)
    rbu.json("module", "load", "dcdbas", "--machine", run.name)
    theirs = [program("smbios-token-ctl", "smbios-utils"), "--token-id=0x5c", "--is-active"]
    said = json.loads(run.says(sys.executable, "-c", READ_BESIDE, json.dumps(theirs), READS))
    assert said["ours"] == {"False": READS}
    assert list(said["theirs"]) == ["value: false"]


def test_smbios_token_ctl_sets_a_token_with_the_admin_password_only(
    rbu: Cli, tmp_path: Path
) -> None:
    """It goes on with the key 0 where the BIOS refuses its password, and does not say so."""
    run = runner(tmp_path / "home", "root", MODEL, admin_password=PASSWORD)
    rbu.json("module", "load", "dcdbas", "--machine", run.name)
    for given in ((), ("--password=" + PASSWORD.lower(),)):
        assert token_ctl(run, 0x5C, "--activate", *given).stdout.split()[-1] == "false"
        assert not is_active(run, 0x5C)
    activate(run, 0x5C, "--password=" + PASSWORD)
    assert is_active(run, 0x5C)
    assert token_ctl(run, 0x5D, "--activate").stdout.split()[-1] == "false"
    assert is_active(run, 0x5C)
    activate(run, 0x5D, "--password=" + PASSWORD)
    assert not is_active(run, 0x5C)


def test_openrbu_and_smbios_token_ctl_give_the_same_password_through_the_same_files(
    rbu: Cli, tmp_path: Path
) -> None:
    run = runner(tmp_path / "home", "root", MODEL, admin_password=PASSWORD)
    rbu.json("module", "load", "dcdbas", "--machine", run.name)
    for password, said, armed in (("", "wrong_password\n", False), (PASSWORD, "", True)):
        assert run.says(sys.executable, "-c", SET_WITH, input=password) == said
        assert is_active(run, 0x5C) is armed
    activate(run, 0x5D, "--password=" + PASSWORD)
    assert not is_active(run, 0x5C)


def test_smbios_passwd_says_what_the_bios_says_of_its_password(rbu: Cli, tmp_path: Path) -> None:
    """(Whether one is set it gets wrong: it takes 0 for "not set" where smbios-token-ctl takes 0
    for "set".)"""
    run = runner(tmp_path / "home", "root", MODEL, admin_password=PASSWORD)
    rbu.json("module", "load", "dcdbas", "--machine", run.name)
    said = run.says(program("smbios-passwd", "smbios-utils"), "--info")
    admin = said.partition("Admin password")[2].partition("Owner password")[0]
    assert "Password stored as: ASCII\n\tPassword MAX length: 32\n" in admin


THEIRS_UNTIL_EOF = """
import collections, json, subprocess, sys, threading
theirs, done = collections.Counter(), threading.Event()

def read():
    while not done.is_set():
        said = subprocess.run(json.loads(sys.argv[1]), capture_output=True, text=True)
        theirs[" ".join(said.stdout.split()[-2:]) + said.stderr] += 1

others = [threading.Thread(target=read) for _ in range(2)]
for other in others:
    other.start()
print("reading", flush=True)
sys.stdin.read()
done.set()
for other in others:
    other.join()
print(json.dumps(theirs))
"""
"""Reads the token by two programs of libsmbios at a time until its input ends."""


def test_nor_when_openrbu_reads_the_token_of_the_machine_from_outside(
    rbu: Cli, tmp_path: Path
) -> None:
    """Without a lock between the mount and others, 14 of 400 reads failed."""
    run = runner(tmp_path / "home", "root", MODEL)
    rbu.json("module", "load", "dcdbas", "--machine", run.name)
    theirs = [program("smbios-token-ctl", "smbios-utils"), "--token-id=0x5c", "--is-active"]
    with run.start(sys.executable, "-c", THEIRS_UNTIL_EOF, json.dumps(theirs)) as beside:
        assert beside.stdout is not None
        assert beside.stdout.readline() == "reading\n"
        ours: Counter[str] = Counter()
        with open_machine(run.name) as machine:
            host = VirtualHost(machine)
            token = activation_for(host, read_target(host))
            for _ in range(READS):
                try:
                    ours[str(token.is_armed)] += 1
                except (OSError, OpenRbuError) as error:
                    ours[str(error)] += 1
        said, _ = beside.communicate()
    assert ours == {"False": READS}
    assert list(json.loads(said)) == ["value: false"]


def test_an_update_by_the_shell_and_smbios_token_ctl_alone(rbu: Cli, tmp_path: Path) -> None:
    """The commands of the kernel's document, typed in a shell; then the token; then the restart."""
    run = runner(tmp_path / "home", "root", MODEL)
    image = rbu.write("bios_image.hdr", image_bytes(MODEL))
    for module in ("dell_rbu", "dcdbas"):
        rbu.json("module", "load", module, "--machine", run.name)
    run.says("sh", "-euc", f"echo 1 > {ENTRY}/loading; cp {image} {ENTRY}/data; "
             f"echo 0 > {ENTRY}/loading; echo warm > /sys/kernel/reboot/mode")  # fmt: skip
    staged = run.says("sh", "-euc", f"cmp {image} /sys/devices/platform/dell_rbu/data && echo same")
    assert staged == "same\n"
    activate(run, 0x5C)
    rbu.json("machine", "reboot", run.name)
    assert rbu.json("machine", "show", run.name)["bios_version"] == NEWER[MODEL]
    dmidecode = program("dmidecode", "dmidecode")
    assert run.says(dmidecode, "-s", "bios-version").split() == [NEWER[MODEL]]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("model", ["poweredge-2650", "precision-390"])
def test_smbios_token_ctl_arms_by_port_instructions(
    rbu: Cli, tmp_path: Path, model: str, user: str
) -> None:
    """Tokens in CMOS: it calls iopl(2), and uses `in` and `out`, past all files."""
    run = runner(tmp_path / "home", user, model)
    activate(run, 0x5C)
    assert is_active(run, 0x5C)
    assert is_armed(run)
    activate(run, 0x5D)
    assert not is_armed(run)


def is_armed(run: Runner) -> bool:
    with running(run.directory) as machine:
        return machine.status().is_armed
