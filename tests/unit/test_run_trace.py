"""`rbu run --trace` and `rbu trace`: what a program did with the machine, and what people see."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openrbu import api
from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import ROOT, Caller, Change, Stat
from openrbu.errors import DamagedInputError, KernelError, MachineError, ObstacleError, UsageError
from openrbu.kernel.files import File
from openrbu.run.trace import Trace
from openrbu.run.trace_file import TraceEvent, TraceStep, folded, read_trace
from openrbu.run.traced_files import TracedFiles, short_text
from openrbu.typed_json import to_document
from rigs.cli import Cli
from rigs.run import USERS, runner

HEAD = {
    "schema": 1,
    "openrbu": "0.3.0",
    "began_at": "2026-11-28T23:28:51+00:00",
    "machine": "demo",
    "model": "poweredge-2650",
    "profile": "documented",
    "bios_version": "A05",
    "command": ["./tool", "an image.hdr"],
}
END = {"event": "end", "time_s": 1.0, "exit_code": 0}

DATA = "/sys/devices/platform/dell_rbu/data"

PROGRAM = """
cat /sys/class/dmi/id/bios_version /proc/buddyinfo > /dev/null
echo warm > /sys/kernel/reboot/mode
echo junk > /sys/kernel/reboot/mode
dd if=/sys/firmware/dmi/tables/DMI of=/dev/null bs=20 count=8
cat /sys/kernel/mm/transparent_hugepage/enabled /proc/self/status > /dev/null
[ -t 0 ] < /sys/kernel/reboot/mode
cat /sys/nowhere
exit 3
"""
"""Uses files of the machine, and of this computer."""


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def call(event: str, number: int = 0, **values: Any) -> TraceEvent:
    """An event of a process, with 4096 bytes at the `number`-th offset."""
    made: dict[str, Any] = {"pid": 7, "program": "dd", "path": DATA}
    if event in ("read", "write"):
        made |= {"offset_bytes": 4096 * number, "size_bytes": 4096, "done_bytes": 4096}
    return TraceEvent(event=event, time_s=float(number), **(made | values))  # type: ignore[arg-type]


# -- a program ------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", USERS)
def test_a_program_is_traced_in_each_call_on_the_machines_files_and_in_no_other(
    rbu: Cli, tmp_path: Path, user: str
) -> None:
    run = runner(tmp_path / "home", user)
    file = run.directory / "trace"
    run = replace(run, options=("--trace", str(file)))
    ended = run("sh", "-c", PROGRAM)
    assert ended.returncode == 3
    report = api.read_trace(file)
    assert report.damage is None
    assert report.head.command == ("sh", "-c", PROGRAM)
    assert (report.head.model, report.head.bios_version) == ("precision-t7600", "A01")
    seen = [
        (step.event.event, step.event.path, step.event.text, step.event.errno, step.count)
        for step in folded(report.events)
        if (step.done_bytes or step.event.errno) and step.event.event != "ioctl"
    ]
    assert seen == [
        ("read", "/sys/devices/virtual/dmi/id/bios_version", "A01\n", None, 1),
        ("read", "/proc/buddyinfo", None, None, 1),
        ("write", "/sys/kernel/reboot/mode", "warm\n", None, 1),
        ("write", "/sys/kernel/reboot/mode", "junk\n", "EINVAL", 1),
        ("read", "/sys/firmware/dmi/tables/DMI", None, None, 8),
        ("lookup", "/sys/nowhere", None, "ENOENT", 1),
    ]
    assert {each.program for each in report.events[:-1]} >= {"cat", "dd", "sh"}
    (question, *_) = [each for each in report.events if each.event == "ioctl"]
    assert (question.path, question.errno) == ("/sys/kernel/reboot/mode", "ENOTTY")
    assert report.events[-1].exit_code == 3
    assert report.first_failure is not None
    assert report.first_failure.errno == "EINVAL"
    shown = rbu("trace", file)
    assert (shown.code, shown.err) == (0, "")
    (marked,) = [line for line in shown.out.splitlines() if "first failure" in line]
    assert "EINVAL 5 bytes" in marked
    assert "8 × 20 bytes = 160 bytes" in shown.out


def test_what_the_kernel_says_stands_between_the_calls(rbu: Cli, tmp_path: Path) -> None:
    run = runner(tmp_path / "home", "root")
    rbu.json("module", "load", "dell_rbu", "--machine", run.name)
    loading = "/sys/class/firmware/dell_rbu/loading"
    again = "echo init > /sys/devices/platform/dell_rbu/image_type"
    run.says("sh", "-c", f"echo 4 > {loading}; {again}")
    run = replace(run, options=("--trace", str(tmp_path / "trace")))
    run("sh", "-c", f"echo 5 > {loading}; cat /sys/nowhere")
    events = api.read_trace(tmp_path / "trace").events
    (said,) = [each for each in events if each.event == "log"]
    assert said.text is not None
    assert "(5)" in said.text
    assert [each.event for each in events if each.event not in ("open", "lookup")] == [
        "log", "write", "end",
    ]  # fmt: skip
    assert said.text in rbu("trace", tmp_path / "trace").out


def test_a_restart_is_in_the_trace_and_what_runs_after_it(rbu: Cli, tmp_path: Path) -> None:
    run = runner(tmp_path / "home", "root")
    after = ("--after-restart", "cat /sys/class/dmi/id/bios_version")
    run = replace(run, options=("--trace", str(tmp_path / "trace"), *after))
    script = "modprobe dell_rbu; modprobe no_such; echo warm > /sys/kernel/reboot/mode; reboot"
    assert run("sh", "-c", script).returncode == 0
    report = api.read_trace(tmp_path / "trace")
    assert report.damage is None
    seen = [(each.event, each.text) for each in report.events if each.text or each.exit_code == 0]
    assert report.first_failure is not None
    assert report.first_failure.text == "modprobe no_such"
    assert seen == [
        ("command", "modprobe dell_rbu"),
        ("command", "modprobe no_such"),
        ("write", "warm\n"),
        ("command", "reboot"),
        ("restart", "restart: BIOS A01, which tried no update"),
        ("read", "A01\n"),
        ("end", None),
    ]
    assert "restart: BIOS A01, which tried no update" in rbu("trace", tmp_path / "trace").out


def test_a_program_that_is_not_there_has_a_trace_with_its_end(rbu: Cli, tmp_path: Path) -> None:
    run = runner(tmp_path / "home", "root")
    file = tmp_path / "trace"
    run = replace(run, options=("--trace", str(file)))
    assert run("no-such-program").returncode == 127
    assert [each.exit_code for each in api.read_trace(file).events] == [127]
    assert "did nothing" in rbu("trace", file).out


def test_a_trace_goes_to_a_file_that_is_one_or_new(rbu: Cli, tmp_path: Path) -> None:
    rbu("machine", "new", "demo")
    kept = rbu.write("kept", b"not a trace")
    run = ("run", "--machine", "demo", "--trace")
    assert "standard output and error" in rbu.fails(2, *run, "-", "true")
    assert "something else than a trace" in rbu.fails(2, *run, kept, "true")
    assert kept.read_bytes() == b"not a trace"
    assert "Not a directory" in rbu.fails(4, *run, kept / "trace", "true")


def test_a_full_disk_ends_the_trace_and_not_the_program(tmp_path: Path) -> None:
    said: list[str] = []
    trace = Trace(Path("/dev/full"), log=said.append)
    trace.restart("warm")
    trace.restart("warm")
    trace.end(0)
    assert said == ["the trace ends here: /dev/full: No space left on device"]


# -- each call ------------------------------------------------------------------------------------


class OneFile:
    """Files with one in them, which raises `error` when it is used."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def stat(self, path: str) -> Stat:
        raise KernelError(errno.EACCES, path)

    def change(self, path: str, wanted: Change, caller: Caller = ROOT) -> None:
        raise KernelError(errno.EPERM, path)

    def list(self, path: str) -> list[str]:
        return [path]

    def readlink(self, path: str) -> str:
        return path

    def open(
        self, path: str, *, reading: bool = False, writing: bool = False, caller: Caller = ROOT
    ) -> File:
        return OpenOne(self._error)


class OpenOne:
    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def stat(self) -> Stat:
        return Stat(0, 1, 0, 1, 0.0)

    def read(self, offset: int, size_bytes: int) -> bytes:
        if self._error is not None:
            raise self._error
        return b"0\n"

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        if self._error is not None:
            raise self._error
        return len(data) - 1

    def close(self) -> None: ...


def events_of(path: Path, error: Exception | None) -> list[dict[str, Any]]:
    """What is traced when the file is opened, read, written and asked for an ioctl."""
    trace = Trace(path, now=lambda: 2.0)
    files = TracedFiles(OneFile(error), trace, os.getpid)
    file = files.open("/sys/one", reading=True, writing=True)
    for use in (lambda: file.read(0, 8), lambda: file.write(0, b"\xff" * 9)):
        with contextlib.suppress(OSError, MachineError):
            use()
    trace.ioctl(file, 0x5401)
    with pytest.raises(KernelError):
        files.stat("/sys/other")
    trace.port(os.getpid(), 0x70, 1, 0x5C, writing=True)
    trace.restart("warm")
    trace.end(-9)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_call_has_its_own_keys_and_no_others(tmp_path: Path) -> None:
    who = {"time_s": 0.0, "pid": os.getpid(), "program": Path("/proc/self/comm").read_text()[:-1]}
    one = {**who, "path": "/sys/one"}
    assert events_of(tmp_path / "trace", None) == [
        {"event": "open", **one, "access": "read_write"},
        {"event": "read", **one, "offset_bytes": 0, "size_bytes": 8, "done_bytes": 2,
         "text": "0\n"},
        {"event": "write", **one, "offset_bytes": 0, "size_bytes": 9, "done_bytes": 8},
        {"event": "ioctl", **one, "request": 0x5401, "errno": "ENOTTY"},
        {"event": "lookup", **who, "path": "/sys/other", "errno": "EACCES"},
        {"event": "port", **who, "access": "write", "port": 0x70, "size_bytes": 1, "value": 0x5C},
        {"event": "restart", "time_s": 0.0, "text": "warm"},
        {"event": "end", "time_s": 0.0, "exit_code": -9},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "name"),
    [(KernelError(errno.ENOMEM), "ENOMEM"), (MachineError("its kernel has crashed"), "EIO")],
)
def test_a_call_that_fails_has_the_errno_that_the_program_gets(
    tmp_path: Path, error: Exception, name: str
) -> None:
    assert [each.get("errno") for each in events_of(tmp_path / "trace", error)[1:3]] == [name] * 2


def test_only_short_plain_text_is_kept_and_nothing_that_is_sent_to_the_bios() -> None:
    assert short_text("/sys/one", 0, b"4096\n") == "4096\n"
    assert short_text("/sys/one", 0, b"a" * 64) == "a" * 64
    for path, data in (
        ("/sys/one", b""),
        ("/sys/one", b"a" * 65),
        ("/sys/one", b"a\tb"),
        ("/sys/one", b"\xc3\xa4"),
        ("/sys/devices/platform/dcdbas/smi_data", b"secret"),
    ):
        assert short_text(path, 0, data) is None
    assert short_text("/sys/one", 1, b"4096") is None


# -- runs of equal calls --------------------------------------------------------------------------


def counts(*events: TraceEvent) -> list[tuple[int, int]]:
    return [(step.count, step.done_bytes) for step in folded(events)]


def test_a_thousand_writes_in_sequence_are_one_step() -> None:
    events = [call("write", number) for number in range(1000)]
    assert list(folded(events)) == [TraceStep(events[0], 1000, 4_096_000, 999.0)]
    assert counts(*events, call("write", 1000, done_bytes=5), call("write", 0)) == [
        (1000, 4_096_000), (1, 5), (1, 4096),
    ]  # fmt: skip


def test_writes_of_which_a_part_is_taken_are_one_step_with_those_of_the_rest() -> None:
    short = [call("write", number, size_bytes=4096 * (32 - number)) for number in range(32)]
    assert counts(*short) == [(32, 131072)]


def test_a_file_that_is_read_over_and_over_is_one_step() -> None:
    assert counts(*[call("read", 3)] * 4) == [(4, 16384)]
    assert counts(call("read", 0), call("read", 1), call("read", 1)) == [(2, 8192), (1, 4096)]
    assert counts(call("read", 1), call("read", 1), call("read", 2)) == [(2, 8192), (1, 4096)]


@pytest.mark.parametrize(
    "other", [{"pid": 8}, {"path": "/sys/other"}, {"errno": "ENOMEM"}, {"text": "0"}]
)
def test_what_differs_is_not_one_step(other: dict[str, Any]) -> None:
    assert counts(call("write", 0), call("write", 1, **other)) == [(1, 4096)] * 2


def test_restarts_are_never_one_step() -> None:
    again = TraceEvent(event="restart", time_s=1.0)
    assert counts(again, again) == [(1, 0), (1, 0)]


# -- the first failure ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "first"),
    [
        ([call("open"), call("ioctl", errno="ENOTTY")], None),
        ([call("lookup", errno="ENOENT"), call("read", errno="ENOMEM")], 1),
        ([call("lookup", errno="ENOENT"), call("read")], 0),
        ([call("lookup", errno="ENOENT"), call("open"), call("read")], None),
        ([call("write", errno="EIO"), call("read", errno="ENOMEM")], 0),
        ([call("read", errno="EPERM"), call("read"), call("write", errno="EIO")], 2),
        ([call("read", errno="EPERM"), call("read", pid=8), call("write")], 0),
    ],
)
def test_the_first_failure_is_a_call_that_failed_or_else_a_file_that_never_was_there(
    tmp_path: Path, events: list[TraceEvent], first: int | None
) -> None:
    file = write_lines(tmp_path / "trace", HEAD, *map(to_document, events), END)
    report = read_trace(file)
    expected = None if first is None else events[first]
    assert report.first_failure == expected


# -- files that are damaged -----------------------------------------------------------------------


def test_a_cut_file_is_5_with_one_line_and_what_could_be_read_is_shown(
    rbu: Cli, tmp_path: Path
) -> None:
    whole = write_lines(tmp_path / "trace", HEAD, to_document(call("write")), END).read_bytes()
    end = whole.rindex(b'{"event": "end"')
    for cut in (len(whole) - 1, end + 7, end):
        ended = rbu("trace", rbu.write("cut", whole[:cut]))
        assert ended.code == 5
        assert ended.err.count("\n") == 1
        assert "has no end" in ended.err
        assert DATA in ended.out
        assert "no call failed" not in ended.out
    document = rbu.json("trace", "cut", code=5)
    assert document["error"]["offset_bytes"] == end
    assert [each["event"] for each in document["events"]] == ["write"]


@pytest.mark.parametrize(
    "line",
    ["}", "[]", "7", '{"event": "sneeze", "time_s": 1.0}', '{"event": "read"}',
     '{"event": "read", "time_s": 1.0, "size_bytes": -1}', "[" * 100_000],
)  # fmt: skip
def test_a_line_that_is_wrong_is_told_with_its_place(rbu: Cli, line: str) -> None:
    text = f"{json.dumps(HEAD)}\n{json.dumps(END)}\n{line}\n{json.dumps(END)}\n"
    ended = rbu("trace", rbu.write("wrong", text.encode()))
    assert (ended.code, ended.err.count("\n")) == (5, 1)
    assert "damaged in line 3" in ended.err
    assert "exit code 0" in ended.out or "did nothing" in ended.out


def test_keys_that_are_not_known_are_passed_over_and_a_newer_schema_is_refused(
    rbu: Cli, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "trace", {**HEAD, "more": 1}, {**END, "more": [2]})
    assert read_trace(file).events == (TraceEvent(event="end", time_s=1.0, exit_code=0),)
    write_lines(file, {**HEAD, "schema": 2})
    with pytest.raises(ObstacleError, match="newer openrbu"):
        read_trace(file)


@pytest.mark.parametrize("data", [b"", b"\x00" * 99, b"{}\n", b"[1]\n", b'{"schema": 1}\n'])
def test_what_is_no_trace_is_told_so(rbu: Cli, data: bytes) -> None:
    path = rbu.write("none", data)
    with pytest.raises(DamagedInputError, match="not a trace"):
        read_trace(path)
    assert rbu("trace", path).code == 5
    with pytest.raises(UsageError, match="can't be read"):
        read_trace(path.with_name("missing"))
