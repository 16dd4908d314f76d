"""What a list shows of a machine without opening it: it is right, or the machine is opened."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import ExitCode
from openrbu.machine import store, summary, summary_file
from openrbu.machine.virtual import VirtualMachine
from rigs.cli import Cli
from rigs.machines import in_child, kill_self

RAM = ("--ram", "64M")


@pytest.fixture
def demo(rbu: Cli) -> Cli:
    """A machine called demo that is on."""
    assert rbu("machine", "new", "demo", *RAM).code == 0
    return rbu


@pytest.fixture
def box(demo: Cli) -> Path:
    """The directory of demo."""
    return store.machine_directory("demo")


def listed(rbu: Cli) -> list[dict[str, Any]]:
    machines: list[dict[str, Any]] = rbu.json("machine", "list")["machines"]
    return machines


def opened_list(rbu: Cli) -> list[dict[str, Any]]:
    """The list where each machine has to be opened."""
    for name in store.machine_names():
        (store.machine_directory(name) / summary_file.NAME).unlink(missing_ok=True)
    return listed(rbu)


STEPS: dict[str, Callable[[Cli], object]] = {
    "made": lambda rbu: None,
    "a module": lambda rbu: rbu("module", "load", "dcdbas", "--machine", "demo"),
    "armed": lambda rbu: rbu("update", rbu.image("A06"), "--machine", "demo"),
    "restarted": lambda rbu: rbu("machine", "reboot", "demo"),
    "refused": lambda rbu: (
        rbu("update", rbu.image("A07"), "--machine", "demo"),
        rbu("machine", "reboot", "demo", "--cold"),
    ),
    "kexec": lambda rbu: rbu("machine", "reboot", "demo", "--kexec"),
    "off": lambda rbu: rbu("machine", "off", "demo"),
}


def test_it_is_what_the_opened_machine_shows_after_every_step(demo: Cli, box: Path) -> None:
    rbu, seen = demo, []
    for name, step in STEPS.items():
        step(rbu)
        assert summary.kept(box) is not None, name
        shown = listed(rbu)
        assert shown == opened_list(rbu), name
        assert listed(rbu) == shown
        seen.append(shown)
    assert len({str(each) for each in seen}) >= len(STEPS) - 1  # each step is seen


@pytest.mark.parametrize(
    "words",
    [
        ("--model", "precision-t7600"),
        ("--fault", "no-battery", "--without-reboot-files", "--entry-delay", "0.5"),
        ("--bios-version", "A04", "--revision", "3"),
    ],
)
def test_every_kind_of_machine_is_shown_alike(rbu: Cli, words: tuple[str, ...]) -> None:
    assert rbu("machine", "new", "demo", *RAM, *words).code == 0
    assert summary.kept(store.machine_directory("demo")) is not None
    assert listed(rbu) == opened_list(rbu)


def test_a_list_opens_no_machine(demo: Cli, box: Path) -> None:
    before = (box / "lock").stat().st_mtime_ns
    listed(demo)
    assert (box / "lock").stat().st_mtime_ns == before
    (box / summary_file.NAME).unlink()
    listed(demo)
    assert (box / "lock").stat().st_mtime_ns != before
    assert summary.kept(box) is not None  # the next list need not


def test_it_counts_while_other_machines_come_to_share_its_flash(demo: Cli, box: Path) -> None:
    demo("machine", "new", "other", *RAM)
    assert (box / "flash").samefile(box.with_name("other") / "flash")
    assert summary.kept(box) is not None
    demo("machine", "rm", "other", "--yes")
    assert summary.kept(box) is not None


def test_there_is_none_while_a_process_has_the_machine(box: Path) -> None:
    with VirtualMachine(box):
        assert summary.kept(box) is None
    assert summary.kept(box) is not None
    with store.locked(box):
        assert summary.kept(box) is None
    assert summary.kept(box) is None


def test_there_is_none_of_a_machine_whose_process_was_killed(demo: Cli, box: Path) -> None:
    def work() -> None:
        VirtualMachine(box).load_module("dcdbas", {})
        kill_self()

    assert in_child(work) < 0
    assert summary.kept(box) is None
    (shown,) = listed(demo)
    assert (shown["is_on"], shown["lost_power"]) == (False, True)
    assert listed(demo) == [shown]


def test_there_is_none_of_a_xen_host(rbu: Cli) -> None:
    """Other processes run its guests."""
    assert rbu("balloon", "host", "xen", "--ram", "256M", "--dom0", "128M").code == 0
    assert summary.kept(store.machine_directory("xen")) is None
    assert listed(rbu) == opened_list(rbu)


# -- changed by hand ------------------------------------------------------------------------


def _written_again(path: Path) -> None:
    """With what is there already."""
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(first)


def _replaced(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


CHANGES = {
    "written": _written_again,
    "replaced": _replaced,
    "cut": _cut,
    "removed": Path.unlink,
}
SOURCES = ["machine.json", "smbios_entry_point", "DMI", "cmos", "flash", "nvram.json", "state.json"]


@pytest.mark.parametrize("name", [*SOURCES, "ram"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_a_person_changes_is_looked_at(
    demo: Cli, box: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(box / name)
    assert summary.kept(box) is None
    assert listed(demo) == opened_list(demo)


def test_what_does_not_belong_there_is_told(demo: Cli, box: Path) -> None:
    os.mkfifo(box / "odd")
    assert "odd is neither a file nor a directory" in listed(demo)[0]["problem"]


def test_a_machine_in_place_of_another_is_looked_at(demo: Cli, box: Path) -> None:
    demo("machine", "new", "other", *RAM, "--model", "precision-390")
    shutil.rmtree(box)
    box.with_name("other").rename(box)
    assert [each["model"] for each in listed(demo)] == ["precision-390"]
    shutil.copytree(box, box.with_name("third"), copy_function=shutil.copy2)
    assert summary.kept(box.with_name("third")) is None


# -- a summary that can't be used -----------------------------------------------------------


def _other_version(path: Path) -> None:
    import json
    import zlib

    facts = json.loads(path.read_bytes()[8:])
    facts["openrbu"] = "0.0.1"
    text = json.dumps(facts).encode()
    path.write_bytes(b"%08x" % zlib.crc32(text) + text)


def _changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"A05")] ^= 1
    path.write_bytes(data)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _in_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        path.unlink()
        make(path)

    return put


UNUSABLE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "void": lambda path: summary_file.make_void(path.parent),
    "cut": lambda path: os.truncate(path, 100),
    "changed": _changed,
    "of another openrbu": _other_version,
    "a link": _link,
    "a directory": _in_place(Path.mkdir),
    "a FIFO": _in_place(os.mkfifo),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("spoil", UNUSABLE.values(), ids=UNUSABLE)
def test_a_summary_that_is_none_does_not_count(
    demo: Cli, box: Path, spoil: Callable[[Path], object]
) -> None:
    shown = listed(demo)
    spoil(box / summary_file.NAME)
    assert summary.kept(box) is None
    assert listed(demo) == shown
    assert summary.kept(box) is not None


# -- machines that come, go and die meanwhile -----------------------------------------------


def come_and_go(image: Path) -> None:
    """Arm and cancel `demo`, make and remove `other`, for ever."""
    from openrbu import api
    from openrbu.cli.main import main

    def until_done(*words: str) -> None:
        """Again while the list has the machine open."""
        while (code := main([*words, "--json"])) != ExitCode.DONE:
            assert code == ExitCode.OBSTACLE

    while True:
        with contextlib.suppress(store.InUseError):  # it is made, and the list has it open
            api.make_machine("other", api.MachineSpec(ram_bytes=64 << 20))
        until_done("update", str(image), "--machine", "demo")
        until_done("machine", "rm", "--yes", "other")
        until_done("cancel", "--machine", "demo")


def test_a_list_is_right_while_machines_are_made_removed_and_killed(demo: Cli, box: Path) -> None:
    """`demo` is armed and cancelled all the time; others are made and removed, or killed."""
    image, states = demo.image("A06"), []
    for words in (("update", image), ("cancel",)):
        assert demo(*words, "--machine", "demo").code == 0
        states += listed(demo)

    child = os.fork()
    if not child:
        try:
            with open(os.devnull, "w") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), 1)
            come_and_go(image)
        finally:
            os._exit(1)
    seen, others = set[bool](), set[int]()
    try:
        while len(seen) < 2 or len(others) < 2:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "the child has ended"
            for each in (shown := listed(demo)):
                if each["name"] == "other":
                    assert "there is no machine" not in each.get("problem", "")
                elif "problem" in each:
                    assert "in use by process" in each["problem"]
                else:
                    assert each in states
                    seen.add(each["is_armed"])
            others.add(len(shown))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert listed(demo) == opened_list(demo)
