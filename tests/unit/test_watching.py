"""What `rbu status` does for what watches a machine: metrics, systemd's journal, its units."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from openrbu.cli.unit import UNITS, unit_text
from openrbu.system.journald import write_entry
from rigs.cli import RBU, Cli
from rigs.needs import program
from rigs.wheels import file_in_wheel

# -- metrics --------------------------------------------------------------------------------


def samples(text: str) -> dict[str, float]:
    """The value of each sample, by its name and labels."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def checked(text: str) -> str:
    """The metrics, after promtool has found nothing wrong with them."""
    promtool = program("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return text


def metrics(rbu: Cli, name: str = "demo") -> dict[str, float]:
    ended = rbu("status", "--machine", name, "--prometheus")
    assert (ended.code, ended.err) == (0, "")
    return samples(checked(ended.out))


def test_metrics_of_a_machine_before_and_after_its_update(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    before = metrics(rbu)
    demo = '{machine="demo"}'
    assert before[f"openrbu_bios_completion_code{demo}"] == 0xFFFF
    assert before[f"openrbu_update_armed{demo}"] == 0
    assert not any("last" in name for name in before), "no update was tried"
    (info,) = (name for name in before if name.startswith("openrbu_bios_info{"))
    assert 'version="A05"' in info
    assert 'product="PowerEdge 2650"' in info

    rbu("update", rbu.image("A06"), "--machine", "demo")
    armed = metrics(rbu)
    assert armed[f"openrbu_update_pending{demo}"] == armed[f"openrbu_update_armed{demo}"] == 1
    assert armed[f"openrbu_update_staged_bytes{demo}"] > 512 * 1024
    assert armed['openrbu_update_next_restart{machine="demo",effect="updates"}'] == 1
    assert sum(value for name, value in armed.items() if "next_restart" in name) == 1
    assert f"openrbu_update_last_succeeded{demo}" not in armed

    rbu("machine", "reboot", "demo")
    after = metrics(rbu)
    assert after[f"openrbu_bios_completion_code{demo}"] == 0
    assert after[f"openrbu_update_last_succeeded{demo}"] == 1
    assert after[f"openrbu_update_pending{demo}"] == 0
    started = after[f"openrbu_update_last_started_timestamp_seconds{demo}"]
    ended = after[f"openrbu_update_last_result_timestamp_seconds{demo}"]
    recorded = after[f"openrbu_bios_completion_timestamp_seconds{demo}"]
    assert started <= ended
    assert abs(recorded - ended) < 120, "the BIOS records no seconds"
    (last,) = (name for name in after if name.startswith("openrbu_update_last_info{"))
    assert 'from_version="A05",to_version="A06",outcome="updated"' in last


def test_metrics_of_a_failure_have_its_code(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--fault", "erase-fails")
    rbu("update", rbu.image("A06"), "--machine", "demo", "--reboot")
    told = metrics(rbu)
    assert told['openrbu_bios_completion_code{machine="demo"}'] == 0x000A
    assert told['openrbu_update_last_succeeded{machine="demo"}'] == 0


def test_metrics_are_written_whole_and_each_time_anew(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    words = ("status", "-m", "demo", "--prometheus", "-o", "openrbu.prom")
    assert rbu(*words).out.startswith("wrote openrbu.prom (")
    path = rbu.directory / "openrbu.prom"
    first = path.stat()
    assert first.st_mode & 0o444 == 0o444, "the collector runs as another user"
    assert rbu(*words).out.startswith("wrote openrbu.prom (")
    assert path.stat().st_ino != first.st_ino, "its time says how old it is"
    assert checked(path.read_text()) == rbu("status", "-m", "demo", "--prometheus").out
    assert rbu.files == ["openrbu.prom"]


def test_a_file_for_metrics_that_can_not_be_written_is_refused(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    words = ("status", "-m", "demo", "--prometheus", "-o")
    assert "is a directory" in rbu.fails(2, *words, ".")
    assert "can't be written" in rbu.fails(1, *words, "none/openrbu.prom")


def test_what_does_not_go_together_is_refused(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    demo = ("status", "-m", "demo")
    assert "goes with --prometheus" in rbu.fails(2, *demo, "-o", "a")
    assert "this computer only" in rbu.fails(2, *demo, "--journald")
    assert "choose one" in rbu.fails(2, *demo, "--unit", "--timer")
    assert "choose one" in rbu(*demo, "--prometheus", "--json").err


ARMED = """
evaluation_interval: 1m
rule_files: [alerts.yml]
tests:
- interval: 1m
  input_series:
  - series: 'openrbu_update_armed{{instance="a"}}'
    values: '1x5'
  - series: 'openrbu_update_next_restart{{instance="a",effect="updates"}}'
    values: '{updates}x5'
  - series: 'openrbu_update_next_restart{{instance="a",effect="unknown"}}'
    values: '0x5'
  alert_rule_test:
  - eval_time: 3m
    alertname: BiosArmedInVain
    exp_alerts: [{alerts}]
"""


@pytest.mark.parametrize(
    ("updates", "alerts"), [(1, ""), (0, "{exp_labels: {instance: a}}")], ids=["soon", "in vain"]
)
def test_the_alerts_of_the_manual_are_sound(tmp_path: Path, updates: int, alerts: str) -> None:
    promtool = program("promtool", "prometheus")
    page = (Path(__file__).parents[2] / "docs/how-to/watch.md").read_text("utf-8")
    (rules,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    rules = textwrap.indent(rules, "  ")
    (tmp_path / "alerts.yml").write_text(f"groups:\n- name: openrbu\n  rules:\n{rules}")
    (tmp_path / "test.yml").write_text(ARMED.format(updates=updates, alerts=alerts))
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "test.yml")):
        done = subprocess.run(
            [promtool, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done


# -- systemd's journal ----------------------------------------------------------------------


def received(path: Path, fields: dict[str, str]) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        write_entry(fields, path)
        return receiver.recv(1 << 16)


def test_an_entry_is_as_the_native_protocol_has_it(tmp_path: Path) -> None:
    said = received(tmp_path / "socket", {"MESSAGE": "A → B", "RBU_CODE": "", "TWO": "a\nb"})
    assert said == b"MESSAGE=A \xe2\x86\x92 B\nRBU_CODE=\nTWO\n\3\0\0\0\0\0\0\0a\nb\n"


def test_no_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_entry({"MESSAGE": "a"}, tmp_path / "none")


def test_a_journal_that_nobody_reads_does_not_hold_a_start_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openrbu.system.journald.PATIENCE_S", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "socket"))

        def fill() -> None:
            for _ in range(10_000):
                write_entry({"MESSAGE": "a" * 1000}, tmp_path / "socket")

        with pytest.raises(TimeoutError):
            fill()


RECEIVE = """
import os, pathlib, socket, subprocess, sys
path = pathlib.Path("/run/systemd/journal/socket")
path.parent.mkdir(parents=True)
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(str(path))
receiver.setblocking(False)
for _ in range(2):
    subprocess.run(sys.argv[1:], check=True)
    try:
        sys.stdout.buffer.write(receiver.recv(1 << 16) + b"\\n")
    except BlockingIOError:
        print("nothing")
"""
"""Runs a command twice beside a journal of its own; what the journal got."""


def in_namespace(rbu: Cli, script: str, *words: object) -> str:
    """What a script of Python writes on a virtual machine, in a /run of its own."""
    own_run = 'mount -t tmpfs none /run && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-euc", own_run, "sh", sys.executable, "-c", script]
    ended = rbu.process("run", "--machine", "demo", "--", *inside, *words)
    assert ended.returncode == 0, ended
    return str(ended.stdout.decode())


def test_the_journal_is_told_once_how_an_update_ended(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    words = (*RBU, "status", "--quiet", "--journald")
    assert "nothing\nnothing\n" in in_namespace(rbu, RECEIVE, *words), "none was tried"
    rbu("update", rbu.image("A06"), "--machine", "demo", "--reboot")
    said = in_namespace(rbu, RECEIVE, *words)
    assert said.count("MESSAGE_ID=") == 1
    fields: dict[str, Any] = dict(re.findall(r"^([A-Z_]+)=(.*)$", said, re.MULTILINE))
    assert fields["MESSAGE"] == (
        "BIOS A05 → A06: done: the BIOS says completed, and the new version runs"
    )
    assert (fields["RBU_OUTCOME"], fields["RBU_CODE"]) == ("updated", "0x0000")
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == ("5", "rbu")
    assert (fields["RBU_FROM_VERSION"], fields["RBU_VERSION"]) == ("A05", "A06")
    assert re.fullmatch("[0-9a-f]{32}", fields["MESSAGE_ID"])


WITHOUT_JOURNAL = """
import subprocess, sys
ended = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(ended.returncode, ended.stdout, ended.stderr)
"""


def test_without_a_journal_it_is_recorded_and_shown_and_then_an_error(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    rbu("update", rbu.image("A06"), "--machine", "demo", "--reboot")
    said = in_namespace(rbu, WITHOUT_JOURNAL, *RBU, "status", "--quiet", "--journald")
    assert said.startswith("4 A05 → A06: done: the BIOS says completed")
    assert "systemd's journal can't be told: No such file or directory" in said


# -- units ----------------------------------------------------------------------------------

ASKED = {
    "openrbu-result.service": ("--unit",),
    "openrbu-result.timer": ("--timer",),
    "openrbu-metrics.service": ("--prometheus", "--unit"),
    "openrbu-metrics.timer": ("--prometheus", "--timer"),
}


def test_each_unit_can_be_printed(rbu: Cli) -> None:
    assert set(ASKED) == set(UNITS)
    for name, words in ASKED.items():
        said = rbu.json("status", *words)["unit"]
        assert f"{name}\n" in said or name.endswith(".timer"), "it says how it is installed"
        assert said == rbu("status", *words).out


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    for name in UNITS:
        (tmp_path / name).write_text(unit_text(Path(sys.executable), name))
    done = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", sorted(ASKED))
def test_each_unit_is_in_the_wheel(tmp_path: Path, name: str) -> None:
    assert file_in_wheel(tmp_path, f"openrbu/share/{name}").decode() == unit_text(None, name)
