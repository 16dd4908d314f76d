"""Each verdict of `rbu try`, given to a small tool that deserves it."""

from __future__ import annotations

import os

import pytest

from openrbu.trials.combinations import Combination
from openrbu.trials.records import Order, TrialResult
from openrbu.trials.runner import Trial, run_trials
from openrbu.trials.verdicts import Verdict
from openrbu.units import KIB
from rigs.cli import image_bytes
from rigs.mounted import needs_fuse

TOOL = r"""
set -e
device=/sys/devices/platform/dell_rbu
entry=/sys/class/firmware/dell_rbu
port() { printf "\\$2" | dd of=/dev/port bs=1 seek=$1; }
cmos() { port 112 $1; port 113 $2; }
arm() { cmos 170 100; }
warm() { echo warm > /sys/kernel/reboot/mode; }
begin() { modprobe dell_rbu; echo 1 > $entry/loading; cat "$1" > $entry/data; }
stage() { begin "$1"; echo 0 > $entry/loading; cmp "$1" $device/data; }
"""
"""What the tools share. The token of a PowerEdge 2650 is bit 0x40 (octal 100) at index 0x78 (170)
of CMOS, behind the ports 0x70 (112) and 0x71."""

RIGHT = "stage $OPENRBU_IMAGE; warm; arm"

PACKETS = (
    "modprobe dell_rbu; echo packet > $device/image_type; echo 4096 > $device/packet_size; "
    "echo init > $device/image_type; begin $OPENRBU_IMAGE; echo 0 > $entry/loading"
)
"""Stages what the driver takes for packets: it does not look into them."""

DAEMON = """
set -- $(cat /proc/$PPID/stat)
(trap "kill -ALRM $4; exit" TERM; while :; do sleep 0.05; done) &
"""
"""The restart ends it by SIGTERM; then it has the deadline of the trial pass. The fourth word is
the parent of the tool's parent, which has the timer."""

TOOLS: dict[str, tuple[str, str]] = {
    "right": (RIGHT, "updated"),
    "restarts the machine itself": (f"{RIGHT}; reboot; sleep 1000", "updated"),
    "loses power": (RIGHT, "refused"),
    "loses power in its own restart": (f"{RIGHT}; reboot; sleep 1000", "refused"),
    "is late in its own restart": (f"{DAEMON}{RIGHT}; reboot; sleep 1000", "updated"),
    "forgets the token": ("stage $OPENRBU_IMAGE; warm", "left_staged"),
    "leaves loading at 1": ("begin $OPENRBU_IMAGE; warm", "not_tried"),
    "arms while it loads": ("begin $OPENRBU_IMAGE; warm; arm", "luck"),
    "unloads the driver": (f"{RIGHT}; echo -1 > $entry/loading; rmmod dell_rbu", "luck"),
    "forgets the warm restart": ("stage $OPENRBU_IMAGE; arm", "memory_cleared"),
    "switches the machine off": (f"{RIGHT}; poweroff; sleep 1000", "memory_cleared"),
    "stages a wrong image": ("stage $WRONG; warm; arm", "refused"),
    "stages an older image": ("stage $OLDER; warm; arm", "other_version"),
    "arms with nothing": ("modprobe dell_rbu; warm; arm", "armed_with_nothing"),
    "disturbs the check value": (f"{RIGHT}; cmos 100 377", "token_lost"),
    "loses the token": (RIGHT, "token_lost"),
    "loses the token in its own restart": (f"{RIGHT}; reboot; sleep 1000", "token_lost"),
    "can't set the token": (f"{RIGHT}; reboot; sleep 1000", "left_staged"),
    "starts another kernel": (f"{RIGHT}; kexec -l /dev/null; kexec -e; sleep 1000", "left_armed"),
    "forgets the size of packets": (PACKETS.replace("4096", "0"), "not_tried"),
    "does nothing": ("exit 3", "not_tried"),
    "hangs": ("sleep 1000", "timed_out"),
    "crashes the kernel": (f"{PACKETS}; echo mono > $device/image_type", "kernel_crashed"),
}
"""What each tool does, and the verdict on it."""

MACHINES = {
    "crashes the kernel": Combination(profile="linux-5.7"),
    "loses the token": Combination(faults=("token-lost-at-restart",)),
    "loses the token in its own restart": Combination(faults=("token-lost-at-restart",)),
    "can't set the token": Combination(faults=("token-does-not-stay",)),
    "loses power": Combination(faults=("power-cut=3",)),
    "loses power in its own restart": Combination(faults=("power-cut=3",)),
}
TIMEOUTS_S = {"hangs": 0.5}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrialResult]:
    """What became of the machines of all tools, which are tried at once."""
    needs_fuse()
    directory = tmp_path_factory.mktemp("trials")
    images = {"OPENRBU_IMAGE": ("A06", 0x0121), "WRONG": ("A06", 0x0152), "OLDER": ("A04", 0x0121)}
    lines = [TOOL]
    for name, (version, system) in images.items():
        path = directory / f"{name}.hdr"
        path.write_bytes(image_bytes(version, system=system, size_bytes=512 * KIB))
        lines.append(f"{name}={path}\n")
    trials = [
        Trial(
            Order(
                MACHINES.get(name, Combination()),
                ("sh", "-c", "".join(lines) + script),
                version="A06",
                timeout_s=TIMEOUTS_S.get(name, 60.0),
                strict=True,
                parent=os.getpid(),
                removes=True,
            ),
            directory / "OPENRBU_IMAGE.hdr",
        )
        for name, (script, _) in TOOLS.items()
    ]
    return dict(zip(TOOLS, run_trials(trials, directory, jobs=2), strict=True))


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_gets_the_verdict_that_it_deserves(
    results: dict[str, TrialResult], name: str
) -> None:
    assert results[name].verdict == TOOLS[name][1], results[name]


def test_each_verdict_is_seen() -> None:
    assert {verdict for _, verdict in TOOLS.values()} == {each.value for each in Verdict}


def test_what_was_seen_is_in_the_result(results: dict[str, TrialResult]) -> None:
    right, itself = results["right"], results["restarts the machine itself"]
    for each in (right, itself):
        assert (each.version_before, each.version_after) == ("A05", "A06")
        assert (each.completion_code, each.found_in_held_memory, each.exit_status) == (0, True, 0)
    assert (right.restarted_itself, itself.restarted_itself) == (False, True)
    assert results["is late in its own restart"].restarted_itself
    assert results["unloads the driver"].found_in_held_memory is False
    assert results["stages a wrong image"].why.endswith("(code 0x000d)")
    assert results["does nothing"].exit_status == 3
    assert results["hangs"].exit_status == -9
    kernel_said = results["forgets the size of packets"].kernel_said
    assert kernel_said == "dell_rbu: packet_size is not set"
    loading = results["leaves loading at 1"]
    assert loading.why == "a load had begun and not ended, and the BIOS was not armed"
