"""What a program does wrong with `openrbu.api` is said in one line, by the right class of error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu import api
from openrbu.api import errors
from openrbu.units import MIB
from rigs.cli import Cli
from rigs.machines import FLASH_BYTES, image

SPEC = api.MachineSpec(model="precision-390", ram_bytes=64 * MIB, flash_size_bytes=FLASH_BYTES)


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "home"))
    api.make_machine("box", SPEC)
    return "box"


@pytest.fixture
def box(name: str) -> Iterator[api.Machine]:
    with api.open_machine(name) as machine:
        yield machine


# -- after its block ------------------------------------------------------------------------


AFTERWARDS: dict[str, Callable[[api.Machine, api.Plan], object]] = {
    "host": lambda box, _: box.host,
    "virtual": lambda box, _: box.virtual,
    "memory": lambda box, _: box.memory,
    "read_file": lambda box, _: box.read_file("/proc/buddyinfo"),
    "write_file": lambda box, _: box.write_file("/sys/kernel/reboot/mode", b"warm"),
    "plan": lambda box, _: box.plan(image()),
    "choose": lambda box, _: box.choose(api.FoundImages(Path("images"), None)),
    "decide": lambda box, _: box.decide(api.Policy()),
    "update": lambda box, plan: box.update(plan),
    "arm": lambda box, _: box.arm(),
    "status": lambda box, _: box.status(),
    "history": lambda box, _: box.history(),
    "cancel": lambda box, _: box.cancel(),
    "restart": lambda box, _: box.restart(),
}


@pytest.mark.parametrize("serve", [False, True])
def test_a_machine_that_is_closed_says_so_whatever_it_is_asked(name: str, *, serve: bool) -> None:
    with api.open_machine(name, serve=serve) as machine:
        plan = machine.plan(image())
    public = {each for each in vars(api.Machine) if not each.startswith("_")}
    assert public == set(AFTERWARDS)
    for use in AFTERWARDS.values():
        with pytest.raises(errors.UsageError, match=r"^machine 'box' is closed: "):
            use(machine, plan)


def test_an_empty_path_is_not_the_working_directory() -> None:
    with pytest.raises(errors.UsageError, match="the path is empty"):
        api.find_images("")


def test_memory_that_is_closed_says_so(name: str, tmp_path: Path) -> None:
    dump = tmp_path / "ram.dump"
    dump.write_bytes(bytes(MIB))
    with api.open_machine(name) as machine, api.open_dump(dump) as dumped:
        memory = machine.memory
    with api.open_machine(name, serve=True), api.open_machine(name) as other:
        remote = other.memory
    for each in (memory, dumped, remote):
        with pytest.raises(errors.UsageError, match="is closed: use it within the block"):
            api.scan(each)
        with pytest.raises(errors.UsageError, match="is closed: use it within the block"):
            each.read(each.regions[0].start, 1)


def test_the_memory_of_a_machine_that_is_off_is_refused_as_its_files_are(name: str) -> None:
    api.switch_off(name)
    with api.open_machine(name) as machine:
        with pytest.raises(errors.MachineError, match="is off") as of_memory:
            _ = machine.memory
        with pytest.raises(errors.MachineError, match="is off") as of_a_file:
            machine.read_file("/proc/buddyinfo")
    assert str(of_memory.value) == str(of_a_file.value)


# -- values ---------------------------------------------------------------------------------


WRONG: dict[str, Callable[[], object]] = {
    "a CRC-32 that is too large": lambda: api.packets(image(), password_crc=1 << 40),
    "a negative CRC-32": lambda: api.packets(image(), password_crc=-1),
    "a set ID of five characters": lambda: api.packets(image(), set_id="abcde"),
    "no such mode": lambda: api.Options(mode="zz"),  # type: ignore[arg-type]
    "no command": lambda: api.run("box", []),
    "a command in one text": lambda: api.run("box", "true"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_value_that_can_never_be_right_is_a_usage_error(
    what: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(errors.UsageError):
        WRONG[what]()
    assert capfd.readouterr() == ("", "")


def test_a_set_id_may_be_text() -> None:
    assert api.packets(image(), set_id="abcd").set_id == int.from_bytes(b"abcd", "little")


@pytest.mark.parametrize("where", [{"start": -5}, {"start": 10, "end": 5}, {"end": -1}])
def test_memory_is_not_searched_backwards(where: dict[str, Any], box: api.Machine) -> None:
    with pytest.raises(errors.UsageError, match="memory can't be searched from"):
        api.scan(box.memory, **where)


def test_tables_and_a_directory_for_ram_may_be_text(name: str, tmp_path: Path) -> None:
    tables, ram = tmp_path / "tables", tmp_path / "ram"
    for each in (tables, ram):
        each.mkdir()
    with api.open_machine(name) as machine:
        for file in ("smbios_entry_point", "DMI"):
            (tables / file).write_bytes(machine.read_file(f"/sys/firmware/dmi/tables/{file}"))
    spec = api.MachineSpec(
        tables=str(tables), ram_directory=str(ram), ram_bytes=64 * MIB, flash_size_bytes=FLASH_BYTES
    )
    api.make_machine("copy", spec)
    assert len(list(ram.iterdir())) == 1
    with api.open_machine("copy") as machine:
        assert machine.status().target.bios.version == "2.1.2"


# -- paths and threads ----------------------------------------------------------------------


PATHS = ["/sys", "/sys/nothing", "/sys/devices/platform/dell_rbu/nothing", "/proc/nothing", "/none"]


@pytest.mark.parametrize("path", PATHS)
def test_an_error_of_the_kernel_has_the_whole_path(path: str, box: api.Machine) -> None:
    with pytest.raises(errors.KernelError) as of_reading:
        box.read_file(path)
    with pytest.raises(errors.KernelError) as of_writing:
        box.write_file(path, b"1")
    for each in (of_reading, of_writing):
        assert each.value.filename == path
        assert str(each.value).endswith(f": '{path}'")


def in_a_thread(work: Callable[[], object]) -> BaseException | None:
    """The error of what is done in another thread."""
    errors_seen: list[BaseException | None] = [None]

    def watched() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  (it is returned)
            errors_seen.append(error)

    thread = threading.Thread(target=watched)
    thread.start()
    thread.join()
    return errors_seen[-1]


def test_a_program_is_run_in_the_main_thread_only(name: str) -> None:
    error = in_a_thread(lambda: api.run(name, ["true"]))
    assert isinstance(error, errors.UsageError)
    assert "main thread" in str(error)


def test_an_update_beside_another_of_the_same_process_is_told_what_is_true(
    box: api.Machine,
) -> None:
    seen: list[BaseException | None] = []

    class Beside(api.ProgressReporter):
        def step(self, text: str) -> None:
            if not seen:
                seen.append(in_a_thread(lambda: box.update(box.plan(image()))))

        def delivering(self, total_bytes: int) -> Callable[[int], None]:
            return lambda _: None

    assert box.update(box.plan(image()), progress=Beside()) is not None
    assert isinstance(seen[0], errors.ObstacleError)
    assert seen[0].kind == "busy"
    assert str(seen[0]) == (
        "an update is under way: this very process, in another thread: wait for it"
    )


def test_the_command_scan_says_that_a_machine_is_off(rbu: Cli) -> None:
    assert rbu("machine", "new", "demo").code == 0
    rbu("machine", "off", "demo")
    assert "is off" in rbu.fails(4, "scan", "demo")
