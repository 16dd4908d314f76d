"""`rbu status` in one line, for a machine's start, and the systemd unit that calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openrbu.cli.unit import unit_text
from openrbu.hosts.linux import JOURNAL
from rigs.cli import Cli


def test_quiet_is_how_the_last_update_ended_in_one_line(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    ended = rbu("status", "--machine", "demo", "--quiet")
    assert (ended.code, ended.out) == (0, ""), "there was none"
    rbu("update", rbu.image("A06"), "--machine", "demo")
    assert rbu("status", "-m", "demo", "--quiet").out == (
        "A05 → A06: armed: waiting for a restart\n"
    )
    rbu("machine", "reboot", "demo")
    said = rbu("status", "-m", "demo", "--quiet").out
    assert said == "A05 → A06: done: the BIOS says completed, and the new version runs\n"


def test_a_start_by_kexec_is_told_and_what_to_do(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    rbu("update", rbu.image("A06"), "--machine", "demo")
    ended = rbu("machine", "reboot", "demo", "--kexec")
    assert (ended.code, ended.out) == (0, "demo runs another kernel; the BIOS did not run\n")
    said = " ".join(rbu("status", "-m", "demo").out.split())
    assert "boot: by another kernel (kexec): the BIOS did not run" in said
    assert "still armed, and what was staged is lost; rbu update tries it again" in said
    document = rbu.json("status", "--machine", "demo")
    assert document["boot"]["by_kexec"] is True
    assert document["last_update"]["ending"] == "bypassed"
    assert rbu("update", rbu.image("A06"), "--machine", "demo", "--reboot").code == 0
    assert rbu.json("status", "--machine", "demo")["last_update"]["ending"] == "updated"


def test_cold_and_kexec_do_not_go_together(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    assert rbu("machine", "reboot", "demo", "--cold", "--kexec").code == 2


def test_a_kernel_without_the_files_is_refused_told_and_taken_on(rbu: Cli) -> None:
    rbu("machine", "new", "old", "--without-reboot-files")
    refused = rbu("update", rbu.image("A06"), "--machine", "old")
    assert refused.code == 4
    assert "start Linux with reboot=w on its command line" in refused.err
    armed = rbu("update", rbu.image("A06"), "--machine", "old", "--allow-any-restart")
    assert armed.code == 0
    assert "and restarts cold, which clears memory" in " ".join(
        rbu("status", "-m", "old").out.split()
    )
    ended = rbu("machine", "reboot", "old")
    assert ended.code == 1
    assert "memory was cleared: the restart was cold" in ended.err
    assert "/sys/kernel/reboot" not in ended.err

    rbu("machine", "new", "warm", "--without-reboot-files", "--kernel-words", "quiet reboot=w")
    assert rbu("update", rbu.image("A06"), "--machine", "warm", "--reboot").code == 0


# -- the unit -------------------------------------------------------------------------------


def test_the_unit_runs_the_program_that_prints_it(rbu: Cli) -> None:
    text = json.loads(rbu("status", "--unit", "--json").out)["unit"]
    assert text == rbu("status", "--unit").out
    (line,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    assert line.endswith(" status --quiet --journald")


@pytest.mark.parametrize(
    ("program", "line"),
    [
        (None, "ExecStart=rbu status --quiet --journald"),
        (Path("/usr/bin/rbu"), 'ExecStart="/usr/bin/rbu" status --quiet --journald'),
        (Path('/a "b"/100%/rbu'), r'ExecStart="/a \"b\"/100%%/rbu" status --quiet --journald'),
    ],
)
def test_a_programs_path_is_quoted_as_systemd_reads_it(program: Path | None, line: str) -> None:
    assert line in unit_text(program).splitlines()


def test_the_unit_looks_for_the_machines_own_journal() -> None:
    assert f"ConditionPathExists={JOURNAL}" in unit_text(None).splitlines()
