"""`rbu plan`, `update`, `status`, `cancel` and `history`, on virtual machines."""

import contextlib
import errno
import gzip
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu import api
from openrbu.cli import progress
from openrbu.machine import store, virtual
from openrbu.sharing.access import open_machine
from openrbu.units import KIB, MIB
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.target import read_target
from rigs.cli import Cli, image_bytes


@pytest.fixture
def demo(rbu: Cli) -> Cli:
    """A PowerEdge 2650 with BIOS A05, called demo."""
    assert rbu("machine", "new", "demo", "--ram", "256M").code == 0
    return rbu


@pytest.fixture
def packety(rbu: Cli) -> Cli:
    """A Precision 390 with BIOS 2.1.2, called packety: its BIOS takes packets."""
    assert rbu("machine", "new", "packety", "--model", "precision-390", "--ram", "256M").code == 0
    return rbu


def new_bios(rbu: Cli, version: str = "2.3.0") -> Path:
    """An image for `packety`."""
    return rbu.image(version, system=0x01DE, size_bytes=MIB)


def at_rest(rbu: Cli, machine: str = "demo") -> bool:
    """Whether nothing is staged and nothing armed."""
    now = rbu.json("status", "--machine", machine)
    return (now["staged_size_bytes"], now["is_armed"]) == (0, False)


# -- the main job ---------------------------------------------------------------------------


def test_an_update_and_a_restart_install_the_bios(demo: Cli) -> None:
    path = demo.image("A06")
    plan = demo.json("plan", path, "--machine", "demo")
    assert (plan["changed"], plan["obstacles"], plan["is_needed"]) == (False, [], True)
    assert (plan["current_version"], plan["new_version"], plan["mode"]) == ("A05", "A06", "mono")
    assert plan["block_size_bytes"] == MIB
    done = demo.json("update", path, "--machine", "demo")
    assert (done["changed"], done["is_armed"], done["restarted"]) == (True, True, False)
    assert done["read_back"] == "right"
    assert done["extent_count"] == 1
    extent = done["extents"][0]
    size = int(extent["end"], 16) - int(extent["start"], 16)
    assert size == path.stat().st_size
    now = demo.json("status", "--machine", "demo")
    assert (now["is_armed"], now["staged_size_bytes"]) == (True, size)
    assert now["last_update"]["outcome"] == "armed"
    post = demo.json("machine", "reboot", "demo")
    assert (post["version_before"], post["version_after"]) == ("A05", "A06")
    assert (post["completion_code"], post["mode"]) == ("0x0000", "mono")
    after = demo.json("status", "--machine", "demo")
    assert (after["bios"]["version"], after["is_armed"]) == ("A06", False)
    assert after["completion"]["code"] == "0x0000"
    assert (after["last_update"]["outcome"], after["last_update"]["succeeded"]) == ("result", True)


def test_an_armed_machine_whose_next_restart_is_cold_warns_and_then_explains(demo: Cli) -> None:
    demo.json("update", demo.image("A06"), "--machine", "demo")
    assert "the next restart updates the BIOS" in demo("status", "--machine", "demo").out
    with open_machine("demo") as machine:
        machine.open("/sys/kernel/reboot/mode", writing=True).write(0, b"cold\n")
    ended = demo("status", "--machine", "demo")
    advice = "echo warm > /sys/kernel/reboot/mode"
    assert "the next restart is cold, which may clear memory" in " ".join(ended.out.split())
    assert advice in " ".join(ended.out.split())
    assert demo.json("status", "--machine", "demo")["restart_mode"] == "cold"
    failed = demo.json("machine", "reboot", "demo", code=1)
    assert failed["completion_code"] == "0x000d"
    assert failed["reason"].startswith("memory was cleared: the restart was cold")
    assert advice in failed["reason"]


def test_update_with_reboot_shows_old_and_new_version_code_and_place(demo: Cli) -> None:
    ended = demo("update", demo.image("A06"), "--machine", "demo", "--reboot")
    assert ended.code == 0
    assert ended.err == ""
    for text in (
        "A05 → A06",
        "0x0000",
        "image lay at:",
        "armed: the next restart hands A06 to the BIOS",
    ):
        assert text in ended.out


def test_update_in_packets_with_reboot(packety: Cli) -> None:
    words = ("update", new_bios(packety), "--machine", "packety", "--mode", "packet", "--reboot")
    result = packety.json(*words, "--packet-size", "8K")["result"]
    assert (result["version_before"], result["version_after"]) == ("2.1.2", "2.3.0")
    assert (result["mode"], result["completion_code"]) == ("packet", "0x0000")


def test_the_command_that_a_plan_ends_with_does_what_was_planned(packety: Cli) -> None:
    (path := packety.write("a password", b"secret\n")).chmod(0o600)
    words = ("--mode", "packet", "--packet-size", "8K", "--password-file", path, "--reinstall")
    planned = packety("plan", new_bios(packety), "--machine", "packety", *words)
    ready = planned.out.splitlines()[-1].removeprefix("ready: rbu ")
    done = packety.json(*shlex.split(ready))
    assert done["plan"]["packet_size_bytes"] == 8192
    assert set(map(str, words)) <= set(shlex.split(ready))


def test_what_another_program_armed_is_not_promised(demo: Cli) -> None:
    demo("update", demo.image("A06"), "--machine", "demo")
    next((demo.directory.parent / "home").rglob("journal.jsonl")).unlink()
    shown = demo("status", "--machine", "demo").out
    assert "yes, by another program: at the next restart the BIOS searches for an update" in shown


def test_a_machine_that_runs_the_version_needs_nothing(demo: Cli) -> None:
    path = demo.image("A05")
    for command in ("plan", "update"):
        assert demo.json(command, path, "--machine", "demo")["changed"] is False
        assert "nothing to do" in demo(command, path, "--machine", "demo").out
    assert at_rest(demo)
    assert demo.json("history", "--machine", "demo")["updates"] == []


def test_what_would_be_in_the_way_is_not_when_nothing_is_to_do(demo: Cli) -> None:
    demo("update", demo.image("A06"), "--machine", "demo")
    plan = demo.json("plan", demo.image("A05"), "--machine", "demo")
    assert [obstacle["kind"] for obstacle in plan["obstacles"]] == ["armed_already"]
    assert plan["is_needed"] is False


def test_a_damaged_image_is_told_of_even_when_nothing_is_to_do(demo: Cli) -> None:
    data = bytearray(image_bytes("A05"))
    data[5000] ^= 1
    demo.json("update", demo.write("a.hdr", bytes(data)), "--machine", "demo", code=5)


def test_cancel_takes_an_armed_update_back(demo: Cli) -> None:
    demo("update", demo.image("A06"), "--machine", "demo")
    done = demo.json("cancel", "--machine", "demo")
    assert (done["changed"], done["was_armed"], done["was_staged"]) == (True, True, True)
    assert at_rest(demo)
    assert demo.json("machine", "reboot", "demo")["attempted"] is False
    assert demo.json("status", "--machine", "demo")["bios"]["version"] == "A05"


def test_with_nothing_to_cancel_nothing_changes(demo: Cli) -> None:
    assert demo.json("cancel", "--machine", "demo")["changed"] is False
    assert "nothing to cancel" in demo("cancel", "--machine", "demo").out


def test_history_lists_every_update_and_how_it_ended(demo: Cli) -> None:
    demo("update", demo.image("A06"), "--machine", "demo")
    demo("cancel", "--machine", "demo")
    demo("update", demo.image("A07"), "--machine", "demo", "--reboot")
    updates = demo.json("history", "--machine", "demo")["updates"]
    assert [update["outcome"] for update in updates] == ["cancelled", "result"]
    assert [update["to_version"] for update in updates] == ["A06", "A07"]
    assert [event["event"] for event in updates[1]["events"]] == ["started", "armed", "result"]
    table = demo("history", "--machine", "demo").out.splitlines()
    assert len(table) == 3
    assert "A05 → A07" in table[2]


def test_history_of_a_restart_without_a_look_at_the_status_has_the_result(demo: Cli) -> None:
    demo("update", demo.image("A06"), "--machine", "demo")
    demo("machine", "reboot", "demo")
    assert demo.json("history", "--machine", "demo")["updates"][0]["succeeded"] is True


def test_history_of_a_machine_that_is_off_can_be_read(demo: Cli) -> None:
    demo("update", demo.image("A06"), "--machine", "demo", "--reboot")
    demo("machine", "off", "demo")
    assert len(demo.json("history", "--machine", "demo")["updates"]) == 1


# -- obstacles ------------------------------------------------------------------------------


def changed_image() -> bytes:
    data = bytearray(image_bytes("A06"))
    data[5000] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "code", "kind"),
    [
        (image_bytes("A06", system=0x0152), 3, "wrong_system"),
        (image_bytes("A04"), 4, "downgrade"),
        (image_bytes("X99"), 4, "downgrade"),
        (changed_image(), 5, "damaged_image"),
        (image_bytes("A06")[:84], 5, "damaged_image"),
    ],
)
def test_an_obstacle_ends_plan_and_update_with_its_code(
    demo: Cli, data: bytes, code: int, kind: str
) -> None:
    path = demo.write("a.hdr", data)
    plan = demo.json("plan", path, "--machine", "demo", code=code)
    assert kind in {obstacle["kind"] for obstacle in plan["obstacles"]}
    assert plan["error"]["exit_code"] == code
    update = demo.json("update", path, "--machine", "demo", code=code)
    assert update["changed"] is False
    assert update["error"]["message"] == plan["error"]["message"]
    ended = demo("update", path, "--machine", "demo")
    assert (ended.code, ended.err.count("\n")) == (code, 1)
    message = plan["error"]["message"]
    assert (ended.out + ended.err).count(message) == 1, "the worst is the error, and no more"
    assert ended.out.count("obstacle: ") == len(plan["obstacles"]) - 1
    assert at_rest(demo)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--packet-size", "0"), 2),
        (("--packet-size", "1"), 2),
        (("--packet-size", "33"), 2),
        (("--packet-size", "5000"), 2),
        (("--packet-size", "64M"), 2),
        (("--packet-size", "8M"), 2),
        (("--packet-size", "nonsense"), 2),
        (("--mode", "smoke"), 2),
        (("--mode", "mono", "--packet-size", "8K"), 2),
        (("--password-file", "nowhere"), 2),
    ],
)
def test_an_option_that_cannot_be_ends_with_2(
    packety: Cli, words: tuple[str, ...], code: int
) -> None:
    path = new_bios(packety)
    for command in ("plan", "update"):
        words_in_packets = words if "--mode" in words else ("--mode", "packet", *words)
        ended = packety(command, path, "--machine", "packety", *words_in_packets)
        assert ended.code == code
        assert ended.err.startswith("rbu: ")
        assert ended.err.count("\n") == 1
    assert at_rest(packety, "packety")


def test_packets_for_a_bios_that_takes_none_are_an_obstacle(demo: Cli) -> None:
    path = demo.image("A06")
    plan = demo.json("plan", path, "--machine", "demo", "--mode", "packet", code=4)
    assert [obstacle["kind"] for obstacle in plan["obstacles"]] == ["no_packets"]


def test_a_special_build_is_no_update_unless_it_is_allowed(packety: Cli) -> None:
    path = new_bios(packety, "99.1.2")
    packety.json("plan", path, "--machine", "packety", code=4)
    allowed = packety.json("plan", path, "--machine", "packety", "--allow-downgrade")
    assert allowed["obstacles"] == []


def test_an_allowed_downgrade_is_done(demo: Cli) -> None:
    words = ("update", demo.image("A04"), "--machine", "demo", "--allow-downgrade", "--reboot")
    assert demo.json(*words)["result"]["version_after"] == "A04"


def test_an_image_of_another_system_forced_on_is_refused_by_the_bios(demo: Cli) -> None:
    path = demo.image("A06", system=0x0152)
    words = ("update", path, "--machine", "demo", "--allow-any-system", "--reboot")
    document = demo.json(*words, code=1)
    assert document["result"]["completion_code"] == "0x000d", "passed over, as a real one does"
    assert document["error"]["kind"] == "update_failed"
    assert demo.json("status", "--machine", "demo")["last_update"]["succeeded"] is False


def test_an_armed_update_stands_in_the_way_of_the_next(demo: Cli) -> None:
    demo("update", demo.image("A06"), "--machine", "demo")
    before = demo.json("status", "--machine", "demo")
    document = demo.json("update", demo.image("A07"), "--machine", "demo", code=4)
    assert document["plan"]["obstacles"][0]["kind"] == "armed_already"
    assert demo.json("status", "--machine", "demo") == before


def test_the_bios_result_is_the_exit_code(rbu: Cli) -> None:
    rbu("machine", "new", "weak", "--fault", "no-battery", "--ram", "256M")
    ended = rbu("update", rbu.image("A06"), "--machine", "weak", "--reboot")
    assert ended.code == 1
    assert "battery" in ended.err
    assert rbu.json("status", "--machine", "weak")["completion"]["code"] == "0x0005"
    rbu("update", rbu.image("A06"), "--machine", "weak")
    assert rbu.json("machine", "reboot", "weak", code=1)["completion_code"] == "0x0005"


def test_a_power_cycle_loses_a_staged_update_and_says_so(demo: Cli) -> None:
    demo("update", demo.image("A06"), "--machine", "demo")
    document = demo.json("machine", "reboot", "demo", "--cold", code=1)
    assert document["completion_code"] == "0x000d"
    assert "0x000d" in demo("history", "--machine", "demo").out


# -- packages, and a password -----------------------------------------------------------------


def test_a_package_with_one_image_does_for_the_image(demo: Cli) -> None:
    path = demo.write("package.bin", b"#!/bin/sh\n" + gzip.compress(image_bytes("A06")))
    plan = demo.json("plan", path, "--machine", "demo")
    assert (plan["new_version"], plan["image"]["found_at"]) == ("A06", "gzip at 10")


def test_of_a_package_with_several_images_the_newest_that_fits_is_taken(demo: Cli) -> None:
    other = image_bytes("A08", system=0x0126)
    images = [image_bytes("A06"), other, image_bytes("A07")]
    package = demo.write("package.bin", b"and".join(map(gzip.compress, images)))
    done = demo.json("update", package, "--machine", "demo")
    choice = done["plan"]["choice"]
    assert (done["version"], choice["found_at"][:4]) == ("A07", "gzip")
    assert [each["why"] for each in choice["passed_over"]] == ["A07 is newer", "it is for 0x0126"]


@pytest.fixture
def guarded(rbu: Cli) -> Cli:
    """A Precision 390 with an admin password, called packety."""
    rbu.write("password", b"sesame\n")
    words = ("machine", "new", "packety", "--model", "precision-390", "--ram", "256M")
    assert rbu(*words, "--admin-password-file", "password").code == 0
    return rbu


def test_the_bios_takes_packets_with_its_password_only(guarded: Cli) -> None:
    words = ("update", new_bios(guarded), "--machine", "packety", "--reboot", "--mode", "packet")
    unsaid = guarded.json(*words, code=4)
    assert unsaid["plan"]["obstacles"][0]["kind"] == "password_needed"
    denied = guarded.json(*words, "--without-password", code=1)
    assert denied["result"]["completion_code"] == "0x0001"
    guarded.write("wrong", b"sesam")
    assert guarded.json(*words, "--password-file", "wrong", code=1)["restarted"] is True
    assert guarded.json(*words, "--password-file", "password")["result"]["reason"] is None


# -- interrupts -----------------------------------------------------------------------------


class Interrupter:
    """Sends this process a signal when a step begins, or when bytes are delivered."""

    def __init__(self, signum: int, at: str) -> None:
        self._signum, self._at = signum, at
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)
        if text.startswith(self._at):
            signal.raise_signal(self._signum)

    def delivering(self, total_bytes: int) -> Callable[[int], None]:
        assert total_bytes > 0
        return self._delivered

    def _delivered(self, count: int) -> None:
        assert count > 0
        if self._at == "delivering":
            signal.raise_signal(self._signum)


def interrupt(monkeypatch: pytest.MonkeyPatch, signum: int, at: str) -> None:
    @contextlib.contextmanager
    def reporter() -> Iterator[Interrupter]:
        yield Interrupter(signum, at)

    monkeypatch.setattr(progress, "progress_reporter", reporter)


@pytest.mark.parametrize("at", ["staging", "delivering", "verifying", "choosing", "arming"])
@pytest.mark.parametrize("machine", ["demo", "packety"])
def test_an_interrupt_at_any_step_leaves_the_machine_as_it_was(
    demo: Cli, packety: Cli, monkeypatch: pytest.MonkeyPatch, machine: str, at: str
) -> None:
    path = demo.image("A06") if machine == "demo" else new_bios(packety)
    before = demo.json("machine", "show", machine)
    interrupt(monkeypatch, signal.SIGINT, at)
    ended = demo("update", path, "--machine", machine)
    assert ended.code == 130
    undone = "the update was undone: what it staged is gone, the BIOS is not armed"
    assert ended.err == f"rbu: interrupted; {undone}\n"
    assert at_rest(demo, machine)
    assert demo.json("machine", "show", machine) == before
    assert demo.json("history", "--machine", machine)["updates"][0]["outcome"] == "interrupted"


@pytest.mark.parametrize(("at", "is_lost"), [("staging", False), ("verifying", True)])
def test_an_interrupt_tells_what_became_of_what_was_staged_before(
    packety: Cli, monkeypatch: pytest.MonkeyPatch, at: str, is_lost: bool
) -> None:
    path = new_bios(packety)
    assert packety("update", path, "--machine", "packety").code == 0
    with api.open_machine("packety") as machine:
        assert machine.virtual is not None
        set_armed(activation_for(machine.host, read_target(machine.host)), armed=False)
    before = packety.json("status", "--machine", "packety")["staged_size_bytes"]
    assert before > 0
    interrupt(monkeypatch, signal.SIGINT, at)
    ended = packety("update", path, "--machine", "packety", "--mode", "mono")
    assert ended.code == 130
    assert ("what was staged before this update was dropped" in ended.err) is is_lost
    assert "nothing is staged" not in ended.err
    after = packety.json("status", "--machine", "packety")["staged_size_bytes"]
    assert after == (0 if is_lost else before)


def test_an_interrupt_before_anything_is_done_says_that_nothing_was(
    demo: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def reporter() -> Iterator[Interrupter]:
        signal.raise_signal(signal.SIGINT)
        yield Interrupter(signal.SIGINT, "never")

    monkeypatch.setattr(progress, "progress_reporter", reporter)
    ended = demo("update", demo.image("A06"), "--machine", "demo")
    assert (ended.code, ended.err) == (130, "rbu: interrupted; nothing was changed\n")
    assert demo.json("history", "--machine", "demo")["updates"] == []


def test_an_interrupt_after_arming_says_that_the_update_is_armed(
    demo: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def reporter() -> Iterator[Interrupter]:
        yield Interrupter(signal.SIGINT, "never")
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress, "progress_reporter", reporter)
    ended = demo("update", demo.image("A06"), "--machine", "demo")
    says = "rbu: interrupted; the update is armed: rbu cancel undoes it\n"
    assert (ended.code, ended.err) == (130, says)
    assert demo.json("status", "--machine", "demo")["is_armed"] is True


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_that_end_a_process_undo_too(
    demo: Cli, monkeypatch: pytest.MonkeyPatch, signum: int, code: int
) -> None:
    interrupt(monkeypatch, signum, "verifying")
    document: Any = demo.json("update", demo.image("A06"), "--machine", "demo", code=code)
    assert (document["error"]["kind"], document["error"]["exit_code"]) == ("interrupted", code)
    assert at_rest(demo)


def test_no_signal_handler_stays_behind(demo: Cli) -> None:
    before = signal.getsignal(signal.SIGTERM)
    demo("update", demo.image("A06"), "--machine", "demo")
    assert signal.getsignal(signal.SIGTERM) is before


# -- without a machine ----------------------------------------------------------------------


@pytest.mark.skipif(
    Path("/sys/devices/platform/dell_rbu").exists(), reason="this is a machine with dell_rbu"
)
def test_this_machine_which_is_no_dell_is_told_so(rbu: Cli) -> None:
    before = rbu.json("history")["updates"]
    assert rbu("plan", rbu.image("A06")).code in {3, 4}
    assert rbu("update", rbu.image("A06")).code in {3, 4}
    rbu.fails(4, "cancel")
    assert rbu.json("history")["updates"] == before


def test_too_many_packets_are_a_usage_error_in_the_plan(packety: Cli) -> None:
    path = packety.image("2.3.0", system=0x01DE, size_bytes=64 * MIB + 64 * KIB)
    words = ("plan", path, "--machine", "packety", "--mode", "packet", "--packet-size", "1K")
    plan = packety.json(*words, "--allow-any-system", code=2)
    assert "too_many_packets" in {obstacle["kind"] for obstacle in plan["obstacles"]}


def test_cancel_disarms_though_the_journal_is_damaged_and_says_so(demo: Cli) -> None:
    demo("update", demo.image(), "--machine", "demo")
    (store.machine_directory("demo") / "journal.jsonl").write_text("{\n{}\n")
    cancelled = demo.json("cancel", "--machine", "demo")
    assert cancelled["was_armed"] is True
    assert "journal" in cancelled["problem"]
    assert demo.json("machine", "show", "demo")["is_armed"] is False


def test_a_restart_that_is_refused_leaves_an_update_armed_and_says_so(
    demo: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(virtual, "make_room", no_room)
    document = demo.json("update", demo.image(), "--machine", "demo", "--reboot", code=4)
    assert (document["changed"], document["restarted"]) == (True, False)
    assert "disk is full" in document["error"]["message"]
    assert demo.json("machine", "show", "demo")["is_armed"] is True


def test_a_bios_that_was_installed_and_then_failed_is_told_as_that(rbu: Cli) -> None:
    rbu("machine", "new", "m", "--fault", "12v-not-removed")
    ended = rbu("update", rbu.image(), "--machine", "m", "--reboot")
    assert ended.code == 1
    assert "the BIOS installed A06, but reports a failure" in ended.err
