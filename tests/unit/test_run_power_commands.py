"""What each command that restarts or switches off asks of a machine's power."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.drivers.sysfs import ROOT, Caller
from openrbu.run.answers import Desk
from openrbu.run.power import PowerAction, PowerSwitch, PowerWish
from openrbu.run.said import Said
from rigs.machines import make, running

RESTART, OFF, HALT = PowerAction.RESTART, PowerAction.POWER_OFF, PowerAction.HALT

NOW = {
    "reboot": RESTART,
    "reboot -f": RESTART,
    "reboot --no-wall": RESTART,
    "reboot -p": RESTART,
    "reboot --halt": HALT,
    "reboot --poweroff": OFF,
    "halt": HALT,
    "halt -p": OFF,
    "halt --reboot": RESTART,
    "poweroff -n -i": OFF,
    "shutdown now": OFF,
    "shutdown -h now": OFF,
    "shutdown -H 0": HALT,
    "shutdown -P +0 good bye": OFF,
    "shutdown -r now": RESTART,
    "shutdown --reboot --no-wall now": RESTART,
    "shutdown -rf now": RESTART,
    "init 0": OFF,
    "telinit 6": RESTART,
    "systemctl reboot": RESTART,
    "systemctl -i --no-wall reboot": RESTART,
    "systemctl poweroff": OFF,
    "systemctl halt": HALT,
    "systemctl isolate poweroff.target": OFF,
    "systemctl start ctrl-alt-del.target": RESTART,
}
AT_ONCE = ("reboot -ff", "halt -f -f", "systemctl reboot --force --force", "systemctl -ff reboot")
NOTHING = {
    "reboot -w": 0,
    "reboot --help": 0,
    "shutdown -k now": 0,
    "shutdown -c": 0,
    "shutdown --help": 0,
    "reboot --no-such-option": 1,
    "shutdown -Z": 1,
    "init 3": 1,
    "init": 1,
    "systemctl": 1,
    "systemctl start fwupd": 1,
    "systemctl kexec": 1,
    "kexec -e": 1,
    "kexec -S": 1,
    "kexec -l vmlinuz": 0,
}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with running(make(tmp_path)) as machine, contextlib.closing(PowerSwitch()) as switch:
        yield Desk(machine, switch)


def ask(desk: Desk, line: str, caller: Caller = ROOT) -> Said:
    name, *words = line.split()
    return desk.answer([f"/sbin/{name}", name, *words], caller)


def wished(desk: Desk, line: str) -> PowerWish | None:
    """What the line asks for, by a switch of its own."""
    with contextlib.closing(PowerSwitch()) as switch:
        said = ask(Desk(desk.machine, switch), line)
        assert said.waits == (switch.wish is not None and not switch.wish.is_scheduled)
        assert said.status == 0 or switch.wish is None
        return switch.wish


def test_a_machine_is_restarted_or_switched_off_as_the_options_say(desk: Desk) -> None:
    assert {line: wished(desk, line) for line in NOW} == {
        line: PowerWish(action) for line, action in NOW.items()
    }


def test_force_given_twice_gives_programs_no_time(desk: Desk) -> None:
    for line in AT_ONCE:
        wish = wished(desk, line)
        assert wish is not None, line
        assert wish.at_once, line


def test_other_options_and_errors_ask_for_nothing(desk: Desk) -> None:
    assert {line: ask(desk, line).status for line in NOTHING} == NOTHING
    assert desk.switch.wish is None


def test_what_is_for_later_can_be_cancelled_and_the_last_one_counts(desk: Desk) -> None:
    for line in ("shutdown", "shutdown -h 23:00"):
        assert ask(desk, line).status == 0
        assert desk.switch.wish == PowerWish(OFF, is_scheduled=True)
    ask(desk, "shutdown -r +5")
    assert desk.switch.wish == PowerWish(RESTART, is_scheduled=True)
    ask(desk, "shutdown -c")
    assert desk.switch.wish is None


def test_a_kernel_that_was_loaded_can_be_started_once(desk: Desk) -> None:
    ask(desk, "kexec -l vmlinuz")
    ask(desk, "kexec -u")
    assert ask(desk, "kexec -e").errors == ("Nothing has been loaded!",)
    ask(desk, "kexec -l vmlinuz --initrd=initrd.img")
    assert ask(desk, "systemctl kexec").waits
    assert desk.switch.wish == PowerWish(PowerAction.KEXEC)


def test_the_first_wish_counts(desk: Desk) -> None:
    ask(desk, "poweroff")
    ask(desk, "reboot")
    assert desk.switch.wish == PowerWish(OFF)


def test_users_other_than_root_are_refused(desk: Desk) -> None:
    for line in ("reboot", "shutdown -r +1", "systemctl poweroff", "init 6", "kexec -l vmlinuz"):
        said = ask(desk, line, Caller(1000, sys_rawio=False))
        assert (said.status, said.errors) == (1, (f"{line.split()[0]}: must be superuser.",))
    assert desk.switch.wish is None


def test_a_stand_in_by_another_name_is_known_by_its_own(desk: Desk) -> None:
    assert desk.answer(["/usr/local/bin/restart-now", "reboot"], ROOT).waits


def test_a_restart_that_nobody_forces_goes_to_a_kernel_that_is_loaded(desk: Desk) -> None:
    for line, action in (
        ("reboot -f", PowerAction.RESTART),
        ("reboot", PowerAction.KEXEC),
    ):
        with contextlib.closing(PowerSwitch()) as switch:
            desk.machine.load_kexec(is_loaded=True)
            ask(Desk(desk.machine, switch), line)
            assert switch.wish == PowerWish(action)
