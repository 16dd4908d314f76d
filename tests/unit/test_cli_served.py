"""Every command on a machine that another process serves."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.machine import store
from openrbu.system.home import state_home
from rigs.cli import Cli
from rigs.machines import FLASH_BYTES, NEWER, WAYS, image_bytes, make
from rigs.served import Server, serving


def served(model: str = "precision-390") -> contextlib.AbstractContextManager[Server]:
    return serving(make(state_home(), model))


@pytest.fixture
def box(rbu: Cli) -> Iterator[Cli]:
    """A Precision 390 called box, on and served, and `image.hdr` for it."""
    rbu.write("image.hdr", image_bytes())
    with served():
        yield rbu


@pytest.mark.parametrize(("model", "mode"), WAYS)
@pytest.mark.parametrize("restart", ["with the update", "afterwards"])
def test_an_update_of_a_served_machine_works_to_its_end(
    rbu: Cli, model: str, mode: str, restart: str
) -> None:
    path = rbu.write("image.hdr", image_bytes(model))
    with served(model) as server:
        assert rbu.json("plan", path, "-m", "box", "--mode", mode)["mode"] == mode
        words = ("update", path, "-m", "box", "--mode", mode)
        if restart == "with the update":
            result = rbu.json(*words, "--reboot")["result"]
        else:
            done = rbu.json(*words)
            assert (done["is_armed"], done["seen_in_memory"]) == (True, True)
            assert rbu.json("machine", "show", "box")["is_armed"] is True
            result = rbu.json("machine", "reboot", "box")
        assert (result["completion_code"], result["mode"]) == ("0x0000", mode)
        assert rbu.json("status", "-m", "box")["bios"]["version"] == NEWER[model]
        assert rbu.json("history", "-m", "box")["updates"][0]["succeeded"] is True
        assert server.end() == 0
    assert rbu.json("status", "-m", "box")["bios"]["version"] == NEWER[model]


def test_what_is_staged_while_served_is_found_and_taken_back(box: Cli) -> None:
    before = box.json("machine", "show", "box")
    box.json("update", "image.hdr", "-m", "box", "--mode", "packet")
    assert box.json("status", "-m", "box")["staged_size_bytes"] > FLASH_BYTES
    assert box.json("scan", "box")["packet_sets"][0]["is_complete"] is True
    cancelled = box.json("cancel", "-m", "box")
    assert (cancelled["was_armed"], cancelled["was_staged"]) == (True, True)
    assert box.json("scan", "box")["packet_sets"] == []
    after = box.json("machine", "show", "box")
    assert after | {"modules": before["modules"]} == before


def test_what_is_armed_while_served_is_done_by_the_owner_after(rbu: Cli) -> None:
    path = rbu.write("image.hdr", image_bytes())
    with served() as server:
        rbu.json("update", path, "-m", "box")
        assert server.end() == 0
        *waited, last = iter(server.line, "")
    assert last == "gone"
    assert set(waited) <= {"waiting for 1"}, "it may see late that the update's process has left"
    assert rbu.json("machine", "reboot", "box")["completion_code"] == "0x0000"


def test_modules_come_and_go_on_a_served_machine(box: Cli) -> None:
    assert box.json("module", "load", "dell_rbu", "image_type=packet", "-m", "box")["changed"]
    assert box.json("module", "load", "dell_rbu", "-m", "box")["changed"] is False
    assert box.json("machine", "show", "box")["modules"] == ["dell_rbu"]
    assert "--abort" in box.fails(4, "module", "unload", "dell_rbu", "-m", "box")
    assert box.json("module", "unload", "dell_rbu", "--abort", "-m", "box")["changed"] is True
    assert "no parameter" in box.fails(2, "module", "load", "dell_rbu", "x=1", "-m", "box")
    assert box.json("module", "load", "dcdbas", "-m", "box")["changed"] is True


def test_a_machine_that_is_switched_off_stays_served(box: Cli) -> None:
    assert box.json("machine", "off", "box")["changed"] is True
    assert box.json("machine", "off", "box")["changed"] is False
    shown = box.json("machine", "show", "box")
    assert (shown["is_on"], shown["lost_power"], shown["modules"]) == (False, False, [])
    line = box.fails(4, "status", "-m", "box")
    assert line == "rbu: machine 'box' is off; start it: rbu machine reboot box\n"
    assert box.json("machine", "reboot", "box", "--cold")["attempted"] is False
    assert box.json("machine", "list")["machines"][0]["is_on"] is True


def test_a_served_machine_is_shown_as_it_is_when_nobody_serves_it(rbu: Cli) -> None:
    with served() as server:
        there = [rbu.json("machine", "show", "box"), rbu.json("status", "-m", "box")]
        assert server.end() == 0
    assert [rbu.json("machine", "show", "box"), rbu.json("status", "-m", "box")] == there


def test_a_served_machine_is_not_removed(rbu: Cli) -> None:
    with served() as server:
        line = rbu.fails(4, "machine", "rm", "box", "--yes")
        assert line.startswith(f"rbu: machine 'box' is served by process {server.pid} ")
        assert rbu.json("machine", "show", "box")["is_on"] is True


def test_an_image_for_another_machine_is_refused_as_ever(box: Cli) -> None:
    box.write("image.hdr", image_bytes("poweredge-2650"))
    for command in ("plan", "update"):
        assert box(command, "image.hdr", "-m", "box").code == 3


def test_a_server_that_was_killed_is_a_power_cut_and_the_machine_starts_again(rbu: Cli) -> None:
    with served() as server:
        rbu.json("module", "load", "dell_rbu", "-m", "box")
        server.kill()
        assert (store.machine_directory("box") / "socket").exists()
        shown = rbu.json("machine", "show", "box")
        assert (shown["is_on"], shown["lost_power"]) == (False, True)
        assert rbu.json("machine", "reboot", "box")["changed"] is True


# -- programs that end in the middle ----------------------------------------------------------

_UPDATE_AND_STOP = """
import os, sys
from openrbu.cli.main import main
from openrbu.hosts.virtual import VirtualHost

real = VirtualHost.write
def write(self, path, data, offset=0):
    real(self, path, data, offset)
    if path.endswith("/data") and len(data) > 1000:
        print("staging", flush=True)
        sys.stdin.readline()
VirtualHost.write = write
sys.exit(main(["update", "image.hdr", "-m", "box"]))
"""


@contextlib.contextmanager
def update_that_stops_while_staging(directory: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _UPDATE_AND_STOP]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=directory, text=True, stdin=pipe, stdout=pipe, stderr=pipe
    ) as client:
        try:
            assert client.stdout is not None
            assert any(line == "staging\n" for line in client.stdout)
            yield client
        finally:
            if client.poll() is None:
                client.kill()


def test_a_client_killed_while_staging_leaves_the_machine_on_and_in_order(box: Cli) -> None:
    with update_that_stops_while_staging(box.directory) as client:
        client.kill()
    assert box.json("machine", "show", "box")["is_on"] is True
    assert box.json("status", "-m", "box")["is_armed"] is False
    assert box.json("update", "image.hdr", "-m", "box", "--reboot")["is_armed"] is False
    outcomes = [each["outcome"] for each in box.json("history", "-m", "box")["updates"]]
    assert outcomes == ["interrupted", "result"]


def test_ctrl_c_while_staging_is_undone_on_a_served_machine(box: Cli) -> None:
    before = box.json("machine", "show", "box")
    with update_that_stops_while_staging(box.directory) as client:
        client.send_signal(signal.SIGINT)
        _, err = client.communicate(timeout=60)
    assert client.returncode == 128 + signal.SIGINT
    undone = "the update was undone: what it staged is gone, the BIOS is not armed"
    assert err.splitlines()[-1] == f"rbu: interrupted; {undone}"
    assert box.json("machine", "show", "box") == before
    assert box.json("scan", "box")["images"] == []


def test_a_second_update_meanwhile_is_refused_and_a_status_works(box: Cli) -> None:
    with update_that_stops_while_staging(box.directory):
        assert "wait for it" in box.fails(4, "cancel", "-m", "box")
        assert box.json("status", "-m", "box")["is_armed"] is False


def test_a_client_whose_server_is_killed_says_so_in_one_line(rbu: Cli) -> None:
    rbu.write("image.hdr", image_bytes())
    with served() as server, update_that_stops_while_staging(rbu.directory) as client:
        server.kill()
        _, err = client.communicate("\n", timeout=60)
        assert client.returncode == 1, err
        last = err.splitlines()[-1]
        assert last.startswith(f"rbu: process {server.pid}, which has machine 'box', has ended")
        assert "Traceback" not in err


def test_a_command_that_meets_a_server_on_its_way_out_works_all_the_same(rbu: Cli) -> None:
    directory = make(state_home())
    for _ in range(5):
        with serving(directory) as server:
            server.leave()
            assert rbu("status", "-m", "box").code == 0
            assert server.end() == 0
