"""The hardware manager in the real ironic-python-agent, on virtual machines: `make ironic`."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.units import MIB
from rigs.needs import leave_out

CONDUCTOR = Path(__file__).with_name("conductor.py")
PRECISION_390 = 0x01DE
NODE = {"uuid": "a-node", "instance_info": {}, "properties": {}, "driver_internal_info": {}}
PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Bench:
    """A directory with an image and machines."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = os.environ.get("OPENRBU_IRONIC") or leave_out("make ironic runs this")
        self.environment = {**os.environ, "PATH": PATH, "OPENRBU_HOME": str(directory / "home")}

    def run(self, *words: object, code: int = 0) -> str:
        ended = subprocess.run(
            [str(word) for word in words],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == code, ended
        return ended.stdout

    def rbu(self, *words: object) -> Any:
        return json.loads(self.run("rbu", *words, "--json"))

    def image(self, system: int = PRECISION_390, version: str = "2.3.0") -> Path:
        path = self.directory / f"{version}-{system:x}.hdr"
        made = make_image(
            bytes(MIB), version=BiosVersion.parse(version), systems=[SystemId(system)]
        )
        path.write_bytes(made)
        return path

    def _conductor(self, name: str, asked: list[Any]) -> list[str]:
        (self.directory / f"{name}.json").write_text(json.dumps(asked))
        return [self.python, str(CONDUCTOR), f"{name}.json", f"{name}-answers.json"]

    def _answers(self, name: str) -> list[Any]:
        answers: list[Any] = json.loads((self.directory / f"{name}-answers.json").read_text())
        return answers

    def asked(self, *asked: Any, machine: str | None = "m") -> list[Any]:
        """What the agent answers on a machine; None: on this computer."""
        on = () if machine is None else ("rbu", "run", "--machine", machine, "--")
        self.run(*on, *self._conductor("here", list(asked)))
        return self._answers("here")

    def asked_around_restart(self, before: list[Any], after: list[Any]) -> tuple[list[Any], Any]:
        """What the agent answers before the machine's own restart, and after it."""
        first, second = self._conductor("before", before), self._conductor("after", after)
        restarts = f"{shlex.join(first)} && rbu status --json >armed.json && exec reboot"
        on = ("rbu", "run", "--machine", "m", "--after-restart", shlex.join(second))
        self.run(*on, "--", "sh", "-c", restarts)
        return self._answers("before"), self._answers("after")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.run("rbu", "machine", "new", "m", "--model", "precision-390", "--bios-version", "2.2.0")
    return made


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def step(name: str, kind: str = "clean", **arguments: object) -> list[Any]:
    one = {"step": name, "interface": "deploy", "priority": 0, "args": arguments}
    return [f"{kind}.execute_{kind}_step", {"step": one, "node": NODE, "ports": []}]


def update(image: Path, kind: str = "clean", **more: object) -> list[Any]:
    arguments = {"image_url": image.as_uri(), "sha256": digest(image)} | more
    return step("update_bios", kind, **arguments)


def steps(kind: str) -> list[Any]:
    return [f"{kind}.get_{kind}_steps", {"node": NODE, "ports": []}]


def ours(answer: Any, kind: str) -> dict[str, Any]:
    """The steps of openrbu in what the agent says."""
    result = answer["command_result"]
    found = result[f"{kind}_steps"].get("RbuHardwareManager", [])
    return {each["step"]: each for each in found}


def test_the_steps_are_offered_on_a_dell_and_run_only_when_asked_for(bench: Bench) -> None:
    clean, service = bench.asked(steps("clean"), steps("service"))
    for answer, kind in ((clean, "clean"), (service, "service")):
        offered = ours(answer, kind)
        assert {name: each["reboot_requested"] for name, each in offered.items()} == {
            "update_bios": True,
            "check_bios": False,
        }
        assert {each["priority"] for each in offered.values()} == {0}


def test_on_another_computer_there_are_none(bench: Bench) -> None:
    """This one: no Dell, or one that nobody may read."""
    (answer,) = bench.asked(steps("clean"), machine=None)
    assert ours(answer, "clean") == {}


@pytest.mark.parametrize("kind", ["clean", "service"])
def test_a_step_stages_and_arms_and_the_restart_updates(bench: Bench, kind: str) -> None:
    check = step("check_bios", kind, bios_version="2.3.0")
    before, after = bench.asked_around_restart([update(bench.image(), kind), check], [check])
    updated, too_early = before
    assert updated["command_status"] == "SUCCEEDED", updated
    assert updated["command_result"][f"{kind}_result"] == {
        "changed": True,
        "from_version": "2.2.0",
        "to_version": "2.3.0",
    }
    assert too_early["command_status"] == "FAILED"
    assert "the BIOS is 2.2.0, not 2.3.0" in too_early["command_error"]["details"]
    armed = json.loads((bench.directory / "armed.json").read_text())
    assert (armed["is_armed"], armed["next_restart"]) == (True, "updates")
    (checked,) = after
    assert checked["command_status"] == "SUCCEEDED", checked
    assert checked["command_result"][f"{kind}_result"]["version"] == "2.3.0"
    assert bench.rbu("machine", "show", "m")["bios_version"] == "2.3.0"


def test_a_version_that_runs_is_left_as_it_is(bench: Bench) -> None:
    (answer,) = bench.asked(update(bench.image(version="2.2.0")))
    assert answer["command_result"]["clean_result"]["changed"] is False
    assert bench.rbu("status", "--machine", "m")["is_armed"] is False


def test_what_a_bios_refuses_fails_the_check_with_its_reason(bench: Bench) -> None:
    bench.run("rbu", "machine", "rm", "m", "--yes")
    new = ("rbu", "machine", "new", "m", "--model", "precision-390", "--bios-version", "2.2.0")
    bench.run(*new, "--fault", "erase-fails")
    check = step("check_bios", bios_version="2.3.0")
    _, (answer,) = bench.asked_around_restart([update(bench.image())], [check])
    assert answer["command_status"] == "FAILED"
    said = "0x000a: a block of the flash could not be erased"
    assert said in answer["command_error"]["details"]


def test_errors_say_what_is_wrong_and_nothing_is_armed(bench: Bench) -> None:
    image, other = bench.image(), bench.image(system=0x0999)
    damaged = bench.directory / "damaged.hdr"
    damaged.write_bytes(image.read_bytes()[:-1] + b"\1")
    old = bench.image(version="2.1.0")
    wrong = {
        "ImageChecksumError": [update(image, sha256="0" * 64)],
        "ImageDownloadError": [update(image, image_url="file:///nothing.hdr")],
        "InvalidCommandParamsError": [
            update(image, image_url="gopher://example.org/a"),
            update(image, allow_downgrade="no"),
        ],
        "CommandExecutionError": [update(other), update(damaged), update(old)],
    }
    kinds = [kind for kind, asked in wrong.items() for _ in asked]
    answers = bench.asked(*(each for asked in wrong.values() for each in asked))
    assert [each["command_error"]["type"] for each in answers] == kinds
    details = [each["command_error"]["details"] for each in answers]
    assert "(wrong_system)" in details[4] or "0x0999" in details[4]
    assert "check word" in details[5]
    assert "is not newer than" in details[6]
    status = bench.rbu("status", "--machine", "m")
    assert (status["is_armed"], status["staged_size_bytes"]) == (False, 0)
    (answer,) = bench.asked(update(old, allow_downgrade=True))
    assert answer["command_status"] == "SUCCEEDED", answer


@pytest.fixture
def served(bench: Bench) -> Iterator[str]:
    """The address at which the files of the bench are."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=bench.directory)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_the_image_may_be_on_a_server(bench: Bench, served: str) -> None:
    image = bench.image()
    url = f"{served}/{image.name}"
    good, missing = bench.asked(update(image, image_url=url), update(image, image_url=url + "x"))
    assert good["command_status"] == "SUCCEEDED", good
    assert missing["command_error"]["type"] == "ImageDownloadError"
    assert "404" in missing["command_error"]["details"]
