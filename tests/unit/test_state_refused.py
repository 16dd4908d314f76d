"""A state that is not understood is refused by every command, in one line, and left as it is."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrbu.machine.state_formats import FORMAT as STATE_FORMAT
from rigs.cli import Cli

FORMAT = STATE_FORMAT.number

Change = Callable[[dict[str, Any]], None]


def _newer(document: dict[str, Any]) -> None:
    document["format"] = FORMAT + 1


def _unknown_key(document: dict[str, Any]) -> None:
    document["state"]["kernel"]["modules"][0]["colour"] = "grey"


def _missing_key(document: dict[str, Any]) -> None:
    del document["state"]["kernel"]["modules"][0]["cursor"]


def _other_kind(document: dict[str, Any]) -> None:
    document["state"]["kernel"]["restart"]["mode"] = 7


def _does_not_fit(document: dict[str, Any]) -> None:
    document["state"]["kernel"]["modules"][0]["staged"][0][0] += 4096


def _wrong_checksum(document: dict[str, Any]) -> None:
    document["state"]["boot_id"] += "x"


CHANGES: dict[str, tuple[Change, str]] = {
    "newer": (_newer, f"newer openrbu wrote it (format {FORMAT + 1}; this one knows up to"),
    "unknown key": (_unknown_key, 'kernel.modules[0]: no key but module, image_type'),
    "missing key": (_missing_key, "kernel.modules[0]: a key 'cursor' expected, none found"),
    "other kind": (_other_kind, 'kernel.restart.mode: "warm" or "cold"'),
    "does not fit": (_does_not_fit, "does not fit (a driver has a block of order 0 at"),
    "wrong checksum": (_wrong_checksum, "state.json is damaged: its checksum is wrong"),
}  # fmt: skip


def change(path: Path, how: Change) -> None:
    """Change a state file. Its checksum is right again, but where that is the change."""
    document = json.loads(path.read_bytes())
    how(document)
    if how is not _wrong_checksum:
        document["crc32"] = zlib.crc32(json.dumps(document["state"]).encode())
    path.write_text(json.dumps(document))


def files(directory: Path) -> dict[str, bytes]:
    """Every file of a machine, by its path, but locks, which name their last owner, and what is
    kept for a list, which is void where a machine can't be opened."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in ("lock", "ram", "summary", ".making")
    }


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "home"))
    return Cli(tmp_path, capsys)


@pytest.fixture
def armed(cli: Cli) -> Path:
    """The directory of a machine that is armed, with packets staged."""
    cli.json("machine", "new", "box", "--model", "precision-390", "--ram", "64M")
    image = cli.image("2.3.0", system=0x01DE, size_bytes=1 << 20)
    cli.json("update", image, "--machine", "box", "--mode", "packet")
    return cli.directory / "home" / "machines" / "box"


COMMANDS = [
    "status --machine box",
    "status --machine box --json",
    "history --machine box",
    "cancel --machine box",
    "plan image.hdr --machine box",
    "update image.hdr --machine box",
    "update image.hdr --machine box --reboot",
    "scan box",
    "machine show box",
    "machine reboot box",
    "machine reboot box --cold",
    "module load dcdbas --machine box",
    "module unload dell_rbu --machine box",
    "mount mnt --machine box",
    "mount mnt --machine box --detach",
    "run --machine box -- true",
]


@pytest.mark.parametrize("name", CHANGES)
def test_every_command_refuses_it_in_one_line_and_changes_nothing(
    cli: Cli, armed: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cli.directory)
    (cli.directory / "mnt").mkdir()
    how, says = CHANGES[name]
    change(armed / "state.json", how)
    before = files(armed)
    for command in COMMANDS:
        ended = cli(*command.split())
        said = json.loads(ended.out)["error"]["message"] + "\n" if ended.out else ended.err
        assert (ended.code, said.count("\n")) == (4, 1), (command, ended)
        assert says in said
        assert said.endswith("to discard the state: rbu machine off box\n")
        assert files(armed) == before


@pytest.mark.parametrize("name", CHANGES)
def test_the_other_machines_are_listed_and_this_one_says_why_it_is_not(
    cli: Cli, armed: Path, name: str
) -> None:
    cli.json("machine", "new", "other", "--ram", "64M")
    how, says = CHANGES[name]
    change(armed / "state.json", how)
    before = files(armed)
    box, other = cli.json("machine", "list")["machines"]
    assert (other["name"], other["is_on"]) == ("other", True)
    assert (box["name"], says in box["problem"]) == ("box", True)
    assert files(armed) == before


@pytest.mark.parametrize("name", CHANGES)
def test_switching_it_off_throws_the_state_away(cli: Cli, armed: Path, name: str) -> None:
    change(armed / "state.json", CHANGES[name][0])
    assert cli.json("machine", "off", "box")["changed"]
    assert not cli.json("machine", "off", "box")["changed"]
    show = cli.json("machine", "show", "box")
    assert (show["is_on"], show["lost_power"]) == (False, False)
    assert not list(armed.glob("state.*"))
    cli("machine", "reboot", "box")
    assert cli.json("status", "--machine", "box")["bios"]["version"] == "2.1.2"


def test_removing_it_is_possible(cli: Cli, armed: Path) -> None:
    change(armed / "state.json", _unknown_key)
    cli.json("machine", "rm", "box", "--yes")
    assert not armed.exists()


def test_a_driver_that_keeps_one_more_thing_does_not_cost_the_older_version_its_state(
    cli: Cli, armed: Path
) -> None:
    """What was seen: a newer driver read one more key, and the armed machine lost its power."""
    change(armed / "state.json", _unknown_key)
    cli.fails(4, "status", "--machine", "box")
    document = json.loads((armed / "state.json").read_bytes())
    del document["state"]["kernel"]["modules"][0]["colour"]
    document["crc32"] = zlib.crc32(json.dumps(document["state"]).encode())
    (armed / "state.json").write_text(json.dumps(document))
    assert cli.json("status", "--machine", "box")["next_restart"] == "updates"


def _twice(data: bytes) -> bytes:
    return b'{"format": 99, ' + data[1:]


def _twice_inside(data: bytes) -> bytes:
    return data.replace(b'"boot_id"', b'"boot_id": "another", "boot_id"', 1)


def _huge_format(data: bytes) -> bytes:
    return data.replace(b'"format": ', b'"format": ' + b"9" * 4000)


def _half_a_pair(data: bytes, half: str = "\ud800") -> bytes:
    document = json.loads(data)
    document["state"]["boot_id"] = half
    document["crc32"] = zlib.crc32(json.dumps(document["state"]).encode())
    return json.dumps(document).encode()


def _huge_place(data: bytes) -> bytes:
    document = json.loads(data)
    document["state"]["kernel"]["modules"][0]["staged"][0][0] = 10**4000 * 4096
    document["crc32"] = zlib.crc32(json.dumps(document["state"]).encode())
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (_twice, "it has the key 'format' twice"),
        (_twice_inside, "it has the key 'boot_id' twice"),
        (lambda data: b"\xef\xbb\xbf" + data, "it is not JSON"),
        (lambda data: data.decode().encode("utf-16"), "it is not JSON"),
        (lambda data: data.decode().encode("utf-32"), "it is not JSON"),
        (_huge_format, f"format {'9' * 40}…; this one knows up to"),
        (_half_a_pair, 'boot_id: a text of whole characters expected, "\\ud800" found'),
        (lambda data: _half_a_pair(data, "\udcff"), "boot_id: an ID expected, '\\udcff' found"),
        (_huge_place, "it does not fit"),
    ],
)
def test_what_another_reader_would_read_in_another_way_is_refused_in_a_short_line(
    cli: Cli, armed: Path, how: Callable[[bytes], bytes], says: str
) -> None:
    path = armed / "state.json"
    path.write_bytes(how(path.read_bytes()))
    before = files(armed)
    for command in ("status", "cancel"):
        line = cli.fails(4, command, "--machine", "box")
        assert says in line
        assert len(line) < 600
    assert files(armed) == before


# -- a Xen host and its guests --------------------------------------------------------------


@pytest.fixture
def xen(cli: Cli) -> Path:
    """The directory of a host with two guests."""
    cli.json("balloon", "host", "xen", "--ram", "512M", "--dom0", "128M")
    for name in ("a", "b"):
        cli.json("balloon", "guest", "xen", name, "--memory", "64M")
    return cli.directory / "home" / "machines" / "xen"


def _frame_more(document: dict[str, Any]) -> None:
    document["state"]["kernel"]["balloon"]["driver"]["current_pages"] += 1


def _no_balloon(document: dict[str, Any]) -> None:
    document["state"]["kernel"]["balloon"] = None


def _huge_balloon(document: dict[str, Any]) -> None:
    document["state"]["kernel"]["balloon"]["driver"]["frames"] = [[0, 10**30, 1]]


@pytest.mark.parametrize("how", [_newer, _frame_more, _no_balloon, _huge_balloon])
def test_a_guest_that_is_not_understood_is_named_and_the_others_go_on(
    cli: Cli, xen: Path, how: Change
) -> None:
    """What was seen: one such guest, and no command on its host worked any more."""
    refused = xen / "xen" / "guests" / "a"
    change(refused / "state.json", how)
    before = files(refused)
    way_out = "to discard the state: rbu balloon guest xen a --rm"
    dom0, a, b = cli.json("balloon", "show", "xen")["guests"]
    assert [each["name"] for each in (dom0, a, b)] == ["dom0", "a", "b"]
    assert a["problem"].endswith(way_out)
    assert (a["current_kib"], a["state"], a["owner_pid"]) == (64 << 10, None, None)
    assert [(each["state"], each["problem"]) for each in (dom0, b)] == [("settled", None)] * 2
    shown = cli("balloon", "show", "xen")
    assert (shown.code, "has it" in shown.out) == (0, False)
    assert "refused" in shown.out
    assert cli.fails(4, "balloon", "target", "xen", "a", "70M").endswith(f"{way_out}\n")
    assert cli.json("balloon", "target", "xen", "b", "70M")["current_kib"] == 70 << 10
    assert cli.json("balloon", "target", "xen", "dom0", "130M")["changed"]
    cli.json("balloon", "guest", "xen", "c", "--memory", "64M")
    made_again = cli.fails(4, "balloon", "guest", "xen", "a", "--memory", "64M")
    assert "a guest 'a' already" in made_again
    watched = cli("balloon", "watch", "xen")
    assert (watched.code, "refused" in watched.out, "may still move" in watched.out) == (
        0,
        True,
        False,
    )
    assert files(refused) == before
    cli.json("balloon", "guest", "xen", "a", "--rm")
    assert [each["name"] for each in cli.json("balloon", "show", "xen")["guests"]] == [
        "dom0",
        "b",
        "c",
    ]


def test_a_guest_whose_spec_is_not_understood_is_named_and_the_others_go_on(
    cli: Cli, xen: Path
) -> None:
    (xen / "xen" / "guests" / "a" / "guest.json").write_text('{"format": 2}')
    assert (
        "guest.json: a newer openrbu" in cli.json("balloon", "show", "xen")["guests"][1]["problem"]
    )
    assert cli.json("balloon", "target", "xen", "b", "70M")["current_kib"] == 70 << 10
    cli.json("balloon", "guest", "xen", "a", "--rm")


@pytest.mark.parametrize("how", [_newer, _frame_more, _no_balloon, _huge_balloon, None])
def test_a_host_whose_dom0_is_not_understood_is_refused_until_it_is_switched_off(
    cli: Cli, xen: Path, how: Change | None
) -> None:
    if how is None:
        (xen / "xen" / "host.json").rename(xen / "away")
    else:
        change(xen / "state.json", how)
    before = files(xen)
    for command in (["machine", "show", "xen"], ["status", "--machine", "xen"]):
        line = cli.fails(4, *command)
        assert line.endswith("to discard the state: rbu machine off xen\n")
    cli.fails(4, "balloon", "show", "xen")
    assert files(xen) == before
    assert cli.json("machine", "off", "xen")["changed"]
    cli.json("machine", "reboot", "xen")
    assert [each["name"] for each in cli.json("balloon", "show", "xen")["guests"]] == ["dom0"]
