"""Machines that were made by released versions, in every shape that a state can have: they go on.

The machines are in `tests/data/states/VERSION`, see `make_state_goldens`. They stay for ever.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path

import pytest

from openrbu.machine.virtual import VirtualMachine
from openrbu.machine.xen_guests import run_due
from openrbu.machine.xen_host import XenHost
from rigs.cli import Cli
from rigs.make_state_goldens import BALLOON, DEVICE, ENTRY, answers
from rigs.packed_machine import unpack

STATES = Path(__file__).parents[1] / "data" / "states"
VERSIONS = sorted(each.name for each in STATES.iterdir() if each.is_dir())
GOLDENS = [f"{each.parent.name}/{each.name}" for each in sorted(STATES.glob("*/*/"))]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def cli(home: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(home, capsys)


def restored(home: Path, golden: str) -> Path:
    """The machine's directory."""
    directory = home / "machines" / golden.partition("/")[2]
    unpack(STATES / golden, directory)
    return directory


def read(machine: VirtualMachine, path: str, size_bytes: int = 1 << 16) -> bytes:
    return machine.running_kernel().read(path, 0, size_bytes)


@pytest.mark.parametrize("golden", GOLDENS)
def test_commands_say_of_it_what_the_version_said_that_made_it(
    cli: Cli, home: Path, golden: str
) -> None:
    directory = restored(home, golden)

    def rbu(*words: object, codes: tuple[int, ...] = (0,)) -> str:
        ended = cli(*words)
        assert ended.code in codes, ended
        return ended.out

    kept = json.loads((STATES / golden / "answers").read_text())
    assert only_keys_of(kept, answers(rbu, directory.name)) == kept


def only_keys_of(kept: object, now: object) -> object:
    """What a command says now, without what it did not say then: a key may be added, and the zone
    of a time that had none."""
    if isinstance(kept, dict) and isinstance(now, dict):
        return {key: only_keys_of(kept.get(key), now[key]) for key in now if key in kept}
    if isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        return [only_keys_of(*pair) for pair in zip(kept, now, strict=True)]
    return kept if now == f"{kept}+00:00" else now


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", ["armed-by-packets", "armed-by-one-block", "armed-by-smi"])
def test_what_is_staged_and_armed_is_installed_at_the_restart(
    cli: Cli, home: Path, version: str, shape: str
) -> None:
    directory = restored(home, f"{version}/{shape}")
    wanted = cli.json("status", "--machine", directory.name)["last_update"]["to_version"]
    cli.json("machine", "reboot", directory.name)
    after = cli.json("status", "--machine", directory.name)
    assert after["bios"]["version"] == wanted
    assert after["last_update"]["succeeded"]
    assert not cli.json("machine", "show", directory.name)["is_armed"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_load_that_was_half_way_goes_on(home: Path, version: str) -> None:
    with VirtualMachine(restored(home, f"{version}/half-way")) as machine:
        kernel = machine.running_kernel()
        half = read(machine, f"{ENTRY}/data", 200_000)
        assert (len(half), read(machine, f"{ENTRY}/loading")) == (100_000, b"1\n")
        assert read(machine, "/sys/class/firmware/timeout") == b"30\n"
        kernel.write(f"{ENTRY}/data", bytes(4096), 100_000)
        kernel.write(f"{ENTRY}/loading", b"0", 0)
        assert read(machine, f"{DEVICE}/data", 200_000) == half + bytes(4096)
        assert read(machine, "/sys/module/dell_rbu/parameters/allocation_floor") == b"33554432\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_packets_that_were_read_half_way_go_on_behind_that(home: Path, version: str) -> None:
    with VirtualMachine(restored(home, f"{version}/staged")) as machine:
        whole = read(machine, f"{DEVICE}/data", 1 << 30)
    with VirtualMachine(restored(home, f"{version}/read-half-way")) as machine:
        assert read(machine, f"{DEVICE}/data", 1 << 14) == whole[8192:][: 1 << 14]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_entry_that_was_to_come_comes_in_its_time(home: Path, version: str) -> None:
    directory = restored(home, f"{version}/entry-delay")
    made = json.loads((directory / "machine.json").read_text())["created_at"]
    now = dt.datetime.fromisoformat(made) + dt.timedelta(seconds=2990)
    with VirtualMachine(directory, clock=lambda: now) as machine:
        assert not machine.exists(ENTRY)
        now += dt.timedelta(seconds=100)
        assert machine.exists(ENTRY)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_buffer_of_dcdbas_and_its_host_controls_are_as_they_were(
    home: Path, version: str
) -> None:
    dcdbas = "/sys/devices/platform/dcdbas"
    with VirtualMachine(restored(home, f"{version}/smi-buffer")) as machine:
        assert read(machine, f"{dcdbas}/smi_data_buf_size") == b"5000\n"
        assert read(machine, f"{dcdbas}/smi_data", 8) == b"hello\0\0\0"
        assert read(machine, f"{dcdbas}/host_control_action") == b"7\n"
        assert read(machine, "/sys/kernel/reboot/mode") == b"warm\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_kernel_that_died_stays_dead_and_a_power_cut_is_one(
    cli: Cli, home: Path, version: str
) -> None:
    dead = restored(home, f"{version}/dead-kernel").name
    assert "kernel has crashed" in cli.fails(4, "status", "--machine", dead)
    killed = restored(home, f"{version}/killed").name
    assert "lost its power" in cli.fails(4, "status", "--machine", killed)


@pytest.mark.parametrize("version", VERSIONS)
def test_guests_of_a_xen_host_go_on_to_their_targets(home: Path, version: str) -> None:
    later = time.time() + 1000
    with XenHost(restored(home, f"{version}/xen"), now=lambda: later) as host:
        host.remove("claims")
        with host.attached() as guests:
            assert len(guests) == 4
            run_due(guests, later)
            run_due(guests, later + 2)
        sizes = {each.name: each.current_pages for each in host.hypervisor.domains()}
        assert sizes["linux"] + sizes["linux-2.6.18-xen"] > (156672 + 65536) // 4
        assert sizes["hard-limit"] == 65536 // 4
        host.hypervisor.check()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_settings_of_dom0s_balloon_are_as_they_were(home: Path, version: str) -> None:
    with VirtualMachine(restored(home, f"{version}/xen")) as machine:
        settings = ("max_retry_count", "max_schedule_delay", "scrub_pages")
        said = [read(machine, f"{BALLOON}/{name}") for name in settings]
        assert said == [b"9\n", b"28\n", b"0\n"]  # 0x28 is 40


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_staged_in_dom0_is_there_though_xen_clears_it_at_the_restart(
    cli: Cli, home: Path, version: str
) -> None:
    directory = restored(home, f"{version}/xen-armed")
    before = cli.json("status", "--machine", directory.name)
    assert (before["is_armed"], before["staged_size_bytes"] > 0) == (True, True)
