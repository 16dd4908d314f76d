"""A plan of a machine whose files can't be read, or have another content than a kernel's: it says
what can't be known, or ends with an error of openrbu's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError
from openrbu.hosts.linux import LinuxHost
from openrbu.update.checks import history
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.report import read_status
from rigs.hazards import put, sound_machine
from rigs.machines import as_nobody, image, opened_up


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    return sound_machine(tmp_path)


def put_directory(machine: Path, path: str) -> None:
    """A directory in place of a file: reading it fails."""
    there = machine / path.lstrip("/")
    there.unlink(missing_ok=True)
    shutil.rmtree(there, ignore_errors=True)
    there.mkdir(parents=True)


def checks(machine: Path) -> tuple[Check, ...]:
    return make_plan(LinuxHost(machine), image(), Options()).checks


def check(machine: Path, name: str) -> Check:
    (found,) = [each for each in checks(machine) if each.name == name]
    return found


@pytest.mark.parametrize(
    "path",
    [
        "/sys/kernel/kexec_loaded",
        "/sys/kernel/reboot/mode",
        "/sys/kernel/reboot/type",
        "/sys/kernel/reboot/force",
        "/sys/kernel/reboot/cpu",
        "/proc/cmdline",
        "/proc/sys/kernel/random/boot_id",
        "/proc/sys/kernel/osrelease",
        "/proc/buddyinfo",
        "/proc/meminfo",
        "/sys/class/watchdog/watchdog0/state",
        "/sys/class/watchdog/watchdog0/identity",
        "/etc/default/kexec",
        "/sys/class/power_supply/AC/online",
    ],
)
def test_a_file_that_can_not_be_read_leaves_a_plan_with_all_its_other_rows(
    machine: Path, path: str
) -> None:
    sound = {each.name for each in checks(machine)}
    put_directory(machine, path)
    assert sound <= {each.name for each in checks(machine)}


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/proc/sys/kernel/osrelease", "6" * 300),
        ("/sys/module/firmware_class/parameters/path", "/" + "x" * 300),
        ("/sys/module/firmware_class/parameters/path", "/x\0y"),
        ("/proc/sys/kernel/osrelease", "6\0y"),
        ("/sys/class/block/sda3/dev", "8:\0003\n"),
        ("/sys/class/block/sda3/dev", "8" * 300),
    ],
)
def test_a_content_that_can_be_no_part_of_a_path_leads_nowhere(
    machine: Path, path: str, content: str
) -> None:
    put(machine, "/sys/class/block/sda3/size", "8\n")
    put(machine, "/sys/class/tpm/tpm0/tpm_version_major", "2\n")
    put(machine, path, content)
    assert checks(machine)


@pytest.mark.parametrize(
    ("path", "content", "row"),
    [
        ("/sys/kernel/reboot/type", "sideways\n", "restart_type"),
        ("/sys/kernel/reboot/type", None, "restart_type"),
        ("/sys/kernel/reboot/mode", None, "restart_mode"),
        ("/sys/kernel/kexec_loaded", "2\n", "kexec"),
        ("/sys/class/power_supply/AC/online", "\n", "mains"),
        ("/sys/class/power_supply/AC/online", None, "mains"),
        ("/sys/class/power_supply/BAT0/capacity", "250\n", "battery"),
        ("/sys/class/power_supply/BAT0/capacity", "-3\n", "battery"),
        ("/proc/buddyinfo", "", "free_blocks"),
        ("/proc/buddyinfo", "Node x\n", "free_blocks"),
        ("/proc/buddyinfo", None, "free_blocks"),
        ("/proc/meminfo", "", "available_memory"),
        ("/proc/meminfo", None, "available_memory"),
    ],
)
def test_of_what_can_not_be_known_nothing_is_fine(
    machine: Path, path: str, content: str | None, row: str
) -> None:
    for name, text in {"AC/type": "Mains", "AC/online": "1", "BAT0/type": "Battery"}.items():
        put(machine, f"/sys/class/power_supply/{name}", f"{text}\n")
    if content is None:
        put_directory(machine, path)
    else:
        put(machine, path, content)
    assert check(machine, row).verdict is Verdict.UNKNOWN


def test_a_journal_that_is_closed_to_this_user_is_in_the_way(tmp_path: Path) -> None:
    closed = tmp_path / "openrbu"
    closed.mkdir(mode=0o000)
    opened_up(tmp_path)

    def work() -> None:
        why = history.why_not_written(closed / "journal.jsonl")
        assert why == "this user may not (run as root)"

    as_nobody(work)


# -- what an update can't do without --------------------------------------------------------

DRIVER = "/sys/devices/platform/dell_rbu"
ENTRY = "/sys/class/firmware/dell_rbu"


def put_driver(machine: Path, image_type: str = "packet") -> None:
    """The driver, loaded, with a firmware entry."""
    put(machine, f"{DRIVER}/image_type", f"{image_type}\n")
    put(machine, f"{DRIVER}/packet_size", "4096\n")
    put(machine, f"{DRIVER}/data", b"")
    put(machine, f"{ENTRY}/loading", "0\n")
    put(machine, f"{ENTRY}/data", b"")
    put(machine, "/sys/module/dell_rbu/refcnt", "1\n")


@pytest.mark.parametrize("path", [f"{DRIVER}/data", f"{ENTRY}/loading"])
def test_a_file_of_the_driver_that_can_not_be_read_is_in_the_way_and_other_rows_stay(
    machine: Path, path: str
) -> None:
    put_driver(machine)
    before = checks(machine)
    put_directory(machine, path)
    plan = make_plan(LinuxHost(machine), image(), Options())
    (unreadable,) = plan.obstacles
    assert (unreadable.kind, unreadable.question) == ("unreadable", Question.STAGING)
    assert path in unreadable.found
    assert isinstance(plan.refusal, ObstacleError)
    found = {each.name for each in plan.checks}
    others = {each.name for each in before if each.question is not Question.STAGING}
    assert others <= found


@pytest.mark.parametrize(
    "path",
    [
        "/sys/hypervisor/type",
        "/sys/firmware/dmi/tables/DMI",
        "/sys/firmware/dmi/tables/smbios_entry_point",
    ],
)
def test_without_what_a_plan_is_about_there_is_none_and_the_error_names_the_file(
    machine: Path, path: str
) -> None:
    put_directory(machine, path)
    for read in (checks, lambda machine: read_status(LinuxHost(machine))):
        with pytest.raises(
            ObstacleError, match=rf"{path}\W.*Is a directory|Is a directory.*{path}"
        ):
            read(machine)
