"""A machine that is lost: told apart from a test that fails, and replaced by a new one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from openrbu.errors import ObstacleError, UsageError
from openrbu.units import MIB
from rigs.lab import Lab, SharedMachine

pytestmark = pytest.mark.lab

TESTS = Path(__file__).parent.parent


def seen_up(shared: SharedMachine) -> int:
    """Have the machine answer; how many there have been by then."""
    from openrbu.lab.calls import Exists, Result

    assert shared.calls([Exists("/proc/self")]) == [Result(True)]
    return shared.starts


def test_a_kernel_that_dies_is_a_loss_and_the_next_call_gets_a_new_one(
    shared_machine: SharedMachine,
) -> None:
    from openrbu.lab.calls import Exists, Write
    from openrbu.lab.guest import GuestLostError

    starts = seen_up(shared_machine)
    said = "its kernel panicked: Kernel panic - not syncing: sysrq triggered crash"
    with pytest.raises(GuestLostError, match=said) as lost:
        shared_machine.calls([Write("/proc/sysrq-trigger", b"c"), Exists("/proc")])
    assert "Kernel Offset: " in lost.value.console, "a panic ends with that"
    assert not shared_machine.is_up
    assert seen_up(shared_machine) == starts + 1


def test_a_mistake_in_a_call_is_no_loss(shared_machine: SharedMachine) -> None:
    from openrbu.lab.calls import Load, Read

    starts = seen_up(shared_machine)
    with pytest.raises(ObstacleError, match=r"modules\.dep has no module nonesuch"):
        shared_machine.calls([Load("nonesuch", {})])
    with pytest.raises(UsageError):
        shared_machine.calls([Read("/proc/version", -1, 1)])
    assert seen_up(shared_machine) == starts


def test_a_qemu_that_is_killed_is_a_loss_and_the_next_call_gets_a_new_one(
    shared_machine: SharedMachine,
) -> None:
    from openrbu.lab.calls import WaitForDriver
    from openrbu.lab.guest import GuestLostError

    starts = seen_up(shared_machine)
    qemu = shared_machine.machine._qemu
    assert qemu is not None
    qemu._process.kill()
    with pytest.raises(GuestLostError, match="the guest was lost: QEMU ended"):
        shared_machine.calls([WaitForDriver()])
    assert seen_up(shared_machine) == starts + 1


def test_a_machine_that_stops_though_no_test_asked_for_it_is_a_loss(
    shared_machine: SharedMachine,
) -> None:
    from openrbu.lab.calls import Write
    from openrbu.lab.guest import GuestLostError, GuestStoppedError

    seen_up(shared_machine)
    guest = shared_machine.machine.guest
    with pytest.raises(GuestStoppedError, match="guest-reset"):
        guest.calls([Write("/proc/sysrq-trigger", b"b")])
    with pytest.raises(GuestStoppedError, match="guest-reset"):  # no socket holds so much
        guest.calls([Write("/dev/null", bytes(2 * MIB))])
    with pytest.raises(GuestLostError, match="the guest stopped: guest-reset"):
        seen_up(shared_machine)
    assert not shared_machine.is_up


def test_a_lost_guest_makes_a_test_an_error_and_no_failure(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(
        dedent("""
            from openrbu.lab.guest import GuestLostError

            def test_that_loses_its_guest():
                raise GuestLostError("its kernel panicked", "the last words")

            def test_that_is_contradicted():
                assert 1 == 2
        """)
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "rigs.lab", "-p", "no:cacheprovider", "test_two.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran
    assert "1 failed, 1 error in" in ran.stdout
    errors, failures = ran.stdout.split("= ERRORS =")[1].split("= FAILURES =")
    assert "test_that_loses_its_guest" in errors
    assert "the guest was lost: its kernel panicked" in errors
    assert "its console:\nE       the last words" in errors
    assert "test_that_is_contradicted" in failures
    assert "test_that_loses_its_guest" not in failures.split("= short test summary info =")[0]
