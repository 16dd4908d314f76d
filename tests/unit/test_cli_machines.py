"""`rbu machine`, `rbu module` and `rbu scan`."""

import json
import os
from pathlib import Path

import pytest

from openrbu import api
from openrbu.cli import options
from openrbu.cmos import write_first_bank
from openrbu.formats import packet
from openrbu.machine import store
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import PAGE_SIZE
from openrbu.update.driver import IMAGE_TYPE
from rigs.cli import Cli, image_bytes
from rigs.machines import as_nobody, opened_up

RAM = ("--ram", "256M")


@pytest.fixture
def demo(rbu: Cli) -> Cli:
    """A PowerEdge 2650 with BIOS A05, called demo."""
    assert rbu("machine", "new", "demo", *RAM).code == 0
    return rbu


# -- machine --------------------------------------------------------------------------------


def test_a_new_machine_is_on_and_as_ordered(rbu: Cli) -> None:
    words = ("machine", "new", "m", "--model", "precision-390", "--bios-version", "2.2.0", *RAM)
    document = rbu.json(*words, "--profile", "linux", "--fault", "no-battery")
    assert document["changed"] is True
    shown = rbu.json("machine", "show", "m")
    assert shown == {key: shown[key] for key in document if key != "changed"}
    assert (shown["model"], shown["system_id"]) == ("precision-390", "0x01de")
    assert (shown["bios_version"], shown["is_on"]) == ("2.2.0", True)
    assert (shown["ram_bytes"], shown["profile"]) == (256 << 20, "linux")
    assert shown["faults"] == ["no-battery"]


def test_a_machine_is_shown_with_the_name_of_its_system_id(demo: Cli) -> None:
    assert "0x0121 (PowerEdge 2650)" in demo("machine", "show", "demo").out
    assert demo.json("machine", "show", "demo")["system_name"] == "PowerEdge 2650"
    (listed,) = demo.json("machine", "list")["machines"]
    assert listed["system_name"] == "PowerEdge 2650"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("../escape",), 2),
        (("",), 2),
        (("m", "--model", "poweredge-1"), 2),
        (("m", "--bios-version", "seven"), 2),
        (("m", "--ram", "lots"), 2),
        (("m", "--ram", "4K"), 2),
        (("m", "--profile", "windows"), 2),
        (("m", "--fault", "gremlins"), 2),
        (("m", "--admin-password-file", "nowhere"), 2),
    ],
)
def test_a_machine_that_cannot_be_made_leaves_nothing(
    rbu: Cli, words: tuple[str, ...], code: int
) -> None:
    rbu.fails(code, "machine", "new", *words)
    assert rbu.json("machine", "list")["machines"] == []


def test_a_second_machine_of_one_name_is_refused(demo: Cli) -> None:
    assert "demo" in demo.fails(4, "machine", "new", "demo")


def test_list_shows_every_machine_even_beside_a_damaged_one(demo: Cli) -> None:
    assert demo("machine", "new", "second", "--model", "precision-390", *RAM).code == 0
    demo("machine", "off", "second")
    (store.machine_directory("demo") / "cmos").unlink()
    machines = {each["name"]: each for each in demo.json("machine", "list")["machines"]}
    assert machines["second"]["is_on"] is False
    assert "demo" in machines["demo"]["problem"]
    lines = demo("machine", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "demo", "second"]


def test_without_machines_the_list_says_how_to_make_one(rbu: Cli) -> None:
    assert "rbu machine new" in rbu("machine", "list").out


def test_off_and_on_again(demo: Cli) -> None:
    assert demo.json("machine", "off", "demo")["changed"] is True
    assert demo.json("machine", "off", "demo")["changed"] is False
    assert "rbu machine reboot demo" in demo.fails(4, "status", "--machine", "demo")
    assert demo.json("machine", "reboot", "demo")["attempted"] is False
    assert demo.json("machine", "show", "demo")["is_on"] is True


def test_rm_asks_nobody_in_a_pipe_and_removes_with_yes(demo: Cli) -> None:
    assert "--yes" in demo.fails(2, "machine", "rm", "demo")
    assert store.machine_names() == ["demo"]
    assert demo.json("machine", "rm", "demo", "--yes")["changed"] is True
    assert store.machine_names() == []
    assert "no machine 'demo'" in demo.fails(4, "machine", "rm", "demo", "--yes")


@pytest.mark.parametrize(
    "words",
    [
        ("status", "-m"),
        ("update", "image.hdr", "-m"),
        ("machine", "show"),
        ("machine", "reboot"),
        ("machine", "off"),
        ("machine", "rm", "-y"),
        ("module", "load", "-m"),
    ],
)
def test_a_machine_in_use_is_told_with_its_process(demo: Cli, words: tuple[str, ...]) -> None:
    demo.image()
    with store.locked(store.machine_directory("demo")):
        assert f"process {os.getpid()}" in demo.fails(4, *words, "demo")


@pytest.mark.parametrize(
    "lost", ["machine.json", "smbios_entry_point", "DMI", "ram", "cmos", "flash"]
)
def test_a_machine_that_lost_a_file_is_one_line(demo: Cli, lost: str) -> None:
    (store.machine_directory("demo") / lost).unlink()
    line = demo.fails(4, "status", "--machine", "demo")
    assert "demo" in line


@pytest.mark.parametrize(
    "cut", ["smbios_entry_point", "DMI", "ram", "cmos", "flash", "machine.json"]
)
def test_a_machine_with_a_file_cut_short_ends_in_one_line_or_works(demo: Cli, cut: str) -> None:
    path = store.machine_directory("demo") / cut
    os.truncate(path, path.stat().st_size // 2)
    ended = demo("status", "--machine", "demo")
    assert ended.code in {0, 4, 5}
    assert ended.err.count("\n") == int(ended.code != 0)


def test_a_machine_of_a_newer_openrbu_is_told_so(demo: Cli) -> None:
    path = store.machine_directory("demo") / "machine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    assert "newer openrbu" in demo.fails(4, "machine", "show", "demo")


def test_a_machine_that_may_not_be_written_is_one_line(demo: Cli) -> None:
    directory = store.machine_directory("demo")
    opened_up(directory)
    (directory / "lock").chmod(0o444)

    def look() -> None:
        assert "permission denied" in demo.fails(4, "machine", "reboot", "demo")

    as_nobody(look)


def test_a_damaged_journal_is_damaged_input(demo: Cli) -> None:
    (store.machine_directory("demo") / "journal.jsonl").write_text("{\n")
    assert "line 1 of the journal" in demo.fails(5, "history", "--machine", "demo")


# -- module ---------------------------------------------------------------------------------


def test_module_load_takes_parameters_and_loads_once(demo: Cli) -> None:
    words = ("module", "load", "dell_rbu", "image_type=packet", "--machine", "demo")
    assert demo.json(*words)["changed"] is True
    assert demo.json("machine", "show", "demo")["modules"] == ["dell_rbu"]
    assert demo.json("module", "load", "--machine", "demo")["changed"] is False


def test_a_type_that_is_no_text_is_shown_as_it_was_given(demo: Cli) -> None:
    demo.json("module", "load", "dell_rbu", "image_type=\udcff", "--machine", "demo")
    with VirtualMachine(store.machine_directory("demo")) as machine:
        assert machine.running_kernel().read(IMAGE_TYPE, 0, PAGE_SIZE) == b"\xff\n"


def test_a_module_in_use_stays_and_the_kernels_words_are_told(demo: Cli) -> None:
    demo("module", "load", "--machine", "demo")
    line = demo.fails(4, "module", "unload", "--machine", "demo")
    assert "in use" in line
    assert "echo -1 > /sys/class/firmware/dell_rbu/loading" in line
    assert demo.json("machine", "show", "demo")["modules"] == ["dell_rbu"]


def test_a_module_in_use_is_unloaded_when_its_entry_is_given_up_first(demo: Cli) -> None:
    demo("module", "load", "--machine", "demo")
    assert demo.json("module", "unload", "--abort", "--machine", "demo")["changed"] is True
    assert demo.json("machine", "show", "demo")["modules"] == []


def test_a_module_without_an_entry_is_unloaded(rbu: Cli) -> None:
    rbu("machine", "new", "m", "--profile", "linux", *RAM)
    rbu("module", "load", "--machine", "m")
    assert rbu.json("module", "unload", "--machine", "m")["changed"] is True
    assert rbu.json("module", "unload", "--machine", "m")["changed"] is False


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("ext4",), 2),
        (("dell_rbu", "image_type"), 2),
        (("dell_rbu", "=packet"), 2),
        (("dell_rbu", "colour=red"), 2),
        (("dell_rbu", "allocation_floor=\udcff"), 2),
        (("dell_rbu", "image_type=mono", "image_type=packet"), 2),
    ],
)
def test_a_module_that_cannot_be_loaded_is_one_line(
    demo: Cli, words: tuple[str, ...], code: int
) -> None:
    demo.fails(code, "module", "load", *words, "--machine", "demo")
    assert demo.json("machine", "show", "demo")["modules"] == []


def test_a_module_that_the_kernel_lacks_cannot_be_loaded(rbu: Cli) -> None:
    rbu.json("machine", "new", "box", "--fault", "no-module")
    assert "can't be loaded" in rbu.fails(4, "module", "load", "dell_rbu", "--machine", "box")


# -- scan -----------------------------------------------------------------------------------


def test_scan_finds_a_staged_image_in_a_machine(demo: Cli) -> None:
    done = demo.json("update", demo.image("A06"), "--machine", "demo")
    seen = demo.json("scan", "demo")
    assert done["extents"][0]["start"] in {image["address"] for image in seen["images"]}
    assert {image["version"] for image in seen["images"]} == {"A06"}
    assert "A06" in demo("scan", "demo").out
    assert "0x0121 (PowerEdge 2650)" in demo("scan", "demo").out
    assert seen["images"][0]["systems"][0]["name"] == "PowerEdge 2650"


def test_scan_finds_a_packet_set_in_a_dump_and_what_it_lacks(rbu: Cli) -> None:
    image = image_bytes("A06", size_bytes=65536)
    data = bytearray(packet.split(image, set_id=b"_A06"))
    data[PAGE_SIZE * 5 : PAGE_SIZE * 6] = bytes(PAGE_SIZE)
    data[PAGE_SIZE * 7 + 100] ^= 1
    dump = rbu.write("dump", bytes(PAGE_SIZE * 3) + bytes(data) + b"not a whole page")
    document = rbu.json("scan", dump)
    (found,) = document["packet_sets"]
    assert (found["set_id"], found["packet_count"]) == ("0x3630415f", len(data) // PAGE_SIZE)
    assert (found["missing"], found["is_complete"]) == ([5, 7], False)
    assert found["lowest"] == "0x3000"
    assert found["image"]["version"] == "A06"
    assert document["rejects"] == [{"address": "0xa000", "why": "packet: wrong checksum"}]
    shown = rbu("scan", dump).out
    assert "_A06" in shown
    assert "2: 5, 7" in shown


def test_scan_as_a_bios_looks_above_1_mib_only(rbu: Cli) -> None:
    dump = rbu.write("dump", bytes(PAGE_SIZE) + image_bytes() + bytes(2 << 20))
    everywhere = rbu.json("scan", dump)
    assert [image["address"] for image in everywhere["images"]] == ["0x1000"]
    assert everywhere["bare_headers"] == []
    assert rbu.json("scan", dump, "--bios")["images"] == []
    assert (
        "nothing that looks like an update begins at a page of this memory"
        in rbu("scan", dump, "--bios").out
    )


def test_scan_tells_a_header_without_its_image(rbu: Cli) -> None:
    dump = rbu.write("dump", image_bytes()[:PAGE_SIZE])
    document = rbu.json("scan", dump)
    assert [header["version"] for header in document["bare_headers"]] == ["A06"]
    assert (document["images"], document["reject_count"]) == ([], 1)


def test_scan_of_what_is_no_memory_is_one_line(rbu: Cli) -> None:
    assert "neither a machine nor a file" in rbu.fails(2, "scan", "nowhere")
    assert "not a regular file" in rbu.fails(2, "scan", rbu.directory)
    assert "less than a page" in rbu.fails(5, "scan", rbu.write("small", bytes(100)))
    assert "less than a page" in rbu.fails(5, "scan", rbu.write("empty", b""))


# -- completion -----------------------------------------------------------------------------


def test_names_are_completed(demo: Cli) -> None:
    assert demo.directory.is_dir()
    assert options.complete_machines("de") == ["demo"]
    assert options.complete_machines("x") == []
    assert options.complete_models("precision") == ["precision-390", "precision-t7600"]
    assert "linux-5.7" in options.complete_profiles("linux-")
    assert options.complete_faults("no-b") == ["no-battery"]


def test_completion_without_a_home_is_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "file"))
    assert options.complete_machines("") == []


def test_a_restart_that_was_armed_for_another_version_ends_with_1(rbu: Cli) -> None:
    """Its CMOS is spoiled after arming; or another image is what the BIOS met."""
    rbu("machine", "new", "box")
    rbu("update", rbu.image("A06"), "-m", "box")
    with api.open_machine("box") as opened:
        assert opened.virtual is not None
        write_first_bank(opened.virtual.ports, 0x45, 0x99)
    ended = rbu("machine", "reboot", "box")
    assert ended.code == 1
    assert "the restart brought no update: in CMOS the check value" in ended.err
    said = " ".join(rbu("status", "-m", "box").out.split())
    assert "never looked at: the BIOS did not try it; A05 runs; likely cause: the token was" in said
