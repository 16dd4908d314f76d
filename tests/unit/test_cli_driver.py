"""rbu driver, and rbu status and cancel with openrbu's own driver: what they say."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openrbu.api import drivers, machines
from openrbu.hosts.own_driver import DriverChoice, OwnDriverHost
from openrbu.own_driver import store
from openrbu.own_driver.backends import AnyBackend, MemoryKind
from openrbu.units import KIB, MIB
from openrbu.update.driver import DATA, LOADING
from rigs.cli import Cli, names_in
from rigs.hazards import KERNEL, put, sound_machine
from rigs.machines import as_nobody, image_bytes, opened_up
from rigs.needs import leave_out
from rigs.own_driver import RamFileHost
from rigs.own_memory import HUGE, free_pages, make_computer
from rigs.prepared import make_pmem

ROOT = Path(__file__).parents[2]

PAGES = [HUGE * number for number in (9, 8, 7, 10, 11, 12)]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This computer is a directory, and its kernel has no dell_rbu."""
    root = sound_machine(tmp_path)
    put(root, f"/lib/modules/{KERNEL}/modules.dep", "kernel/drivers/net/dummy.ko:\n")
    make_computer(root, PAGES)
    for module in (machines, drivers):
        monkeypatch.setattr(
            module, "_this_computer", lambda driver, memory_from="": RamFileHost(root, driver)
        )
    (tmp_path / "image.hdr").write_bytes(image_bytes())
    return root


def document(rbu: Cli, *words: str, code: int = 0) -> Any:
    done = rbu(*words, "--json")
    assert done.code == code, done.err
    return json.loads(done.out)


def test_start_status_stop(rbu: Cli, tree: Path) -> None:
    assert document(rbu, "driver", "status")["is_started"] is False
    assert rbu("driver", "stop").out == "openrbu's own driver is not started\n"
    started = document(rbu, "driver", "start", "--memory", "4M", "--block", "4M")
    assert started["changed"] is True
    assert started["memory_in"]["extents"] == [{"start": "0x1000000", "end": "0x1400000"}]
    assert "0x1000000 to 0x1400000" in rbu("driver", "status").out
    assert document(rbu, "driver", "start")["changed"] is False
    assert rbu("driver", "stop").out == "stopped: its memory was cleared and given back\n"
    assert sorted(free_pages(tree)) == sorted(PAGES)


def test_a_stop_leaves_the_lock_alone_and_the_manual_says_so(rbu: Cli, tree: Path) -> None:
    place = "run/openrbu/driver"
    rbu("driver", "start", "--memory", "2M")
    assert len(names_in(tree / place)) > 1
    rbu("driver", "stop")
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    files = page.partition("<!-- files -->")[2]
    (until,) = re.findall(rf"^\| `/{place}` .*\| (.*) \|$", files, re.MULTILINE)
    (left,) = names_in(tree / place)
    assert re.fullmatch(rf".*; `{left}` in it, .* until the restart", until)


def test_a_module_that_is_openrbus_own_driver_is_called_that(rbu: Cli, tree: Path) -> None:
    """The kernel has none. Nothing says that a module of the kernel is loaded."""
    none = rbu("module", "unload", "dell_rbu")
    assert none.out == "nothing to do: openrbu's own driver is not started\n"
    loaded = rbu("module", "load", "dell_rbu", "image_type=packet")
    assert loaded.out.startswith("openrbu's own driver is started: the kernel has no dell_rbu (")
    assert document(rbu, "driver", "status")["is_started"] is True
    again = rbu("module", "load", "dell_rbu")
    assert again.out == "nothing to do: openrbu's own driver is started already\n"
    refused = rbu.fails(4, "module", "unload", "dell_rbu")
    assert "openrbu's own driver can't be stopped: Device or resource busy" in refused
    assert "--abort removes its firmware entry" in refused
    stopped = rbu("module", "unload", "dell_rbu", "--abort")
    assert stopped.out == "openrbu's own driver is stopped\n"
    assert document(rbu, "driver", "status")["is_started"] is False


@pytest.mark.parametrize("does", ["load", "unload"])
def test_module_commands_tell_scripts_whose_driver_it_is(rbu: Cli, tree: Path, does: str) -> None:
    assert document(rbu, "module", does, "dell_rbu")["driver"] == "own"
    put(tree, "/sys/module/dcdbas/parameters/x", "")
    assert document(rbu, "module", "load", "dcdbas")["driver"] == "kernel"
    rbu("machine", "new", "demo")
    assert document(rbu, "module", "load", "dell_rbu", "-m", "demo")["driver"] == "kernel"
    assert "openrbu's own driver" in " ".join(rbu("module", does, "--help").out.lower().split())


def test_it_says_what_was_added_and_what_is_gone(rbu: Cli, tree: Path) -> None:
    assert document(rbu, "driver", "start", "--memory", "2M")["size_bytes"] == 2 * MIB
    more = rbu("driver", "start", "--memory", "4M", "--block", "4M")
    assert more.out.startswith("openrbu's own driver is started already; 2 MiB were added\n")
    with contextlib.closing(RamFileHost(tree, "own")) as host:
        host.write(LOADING, b"1")
        host.write(DATA, bytes(5 * KIB))
        host.write(LOADING, b"0")
    stopped = rbu("driver", "stop")
    assert "what was staged (5 KiB) was dropped" in stopped.out
    assert document(rbu, "driver", "stop")["dropped_size_bytes"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--memory", "3"], "less than a page of 4 KiB; with a unit, such as 8M?"),
        (["--block", "4M"], "--block is about --memory"),
    ],
)
def test_what_makes_no_sense_is_refused(rbu: Cli, tree: Path, words: list[str], says: str) -> None:
    refused = rbu("driver", "start", *words)
    assert refused.code == 2
    assert says in refused.err
    assert document(rbu, "driver", "status")["is_started"] is False


def test_memory_of_a_prepared_boot(rbu: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pmem(tree)
    monkeypatch.setattr(drivers, "_this_computer", partial(host_of, tree))
    started = document(rbu, "driver", "start", "--memory-from", "pmem", "--memory", "4M")
    assert (started["memory"], started["loses"]) == ("pmem", None)
    assert started["memory_in"]["extents"] == [{"start": "0xc000000", "end": "0xc800000"}]
    assert document(rbu, "driver", "start")["changed"] is False
    other = document(rbu, "driver", "start", "--memory-from", "huge-pages", code=4)
    assert "with other memory (pmem): rbu driver stop" in other["error"]["message"]
    small = document(rbu, "driver", "start", "--memory", "16M", code=4)
    assert "4 of 8 blocks of 2 MiB are free" in small["error"]["message"]
    assert document(rbu, "driver", "stop")["changed"] is True
    refused = document(rbu, "driver", "start", "--memory-from", "crash-region", code=4)
    assert "crashkernel=64M" in refused["error"]["message"]


def host_of(
    root: Path, choice: DriverChoice, memory_from: MemoryKind = "huge_pages"
) -> OwnDriverHost:
    return OwnDriverHost(
        root,
        choice=choice,
        make_backend=lambda: AnyBackend(memory_from, root),
        memory_from=memory_from,
        kernel_has_none=lambda host: True,
    )


def test_memory_that_is_not_to_be_had(rbu: Cli, tree: Path) -> None:
    refused = document(rbu, "driver", "start", "--memory", "64M", code=4)
    assert "huge pages were got" in refused["error"]["message"]
    assert document(rbu, "driver", "status")["is_started"] is False
    assert sorted(free_pages(tree)) == sorted(PAGES)
    assert "--block 3M: " in rbu.fails(2, "driver", "start", "--memory", "8M", "--block", "3M")


def test_the_kernels_driver_wins(rbu: Cli, tree: Path) -> None:
    put(tree, "/sys/devices/platform/dell_rbu/image_type", "mono\n")
    refused = document(rbu, "driver", "start", code=4)
    assert "rmmod dell_rbu" in refused["error"]["message"]
    refused = document(rbu, "plan", str(tree.parent / "image.hdr"), "--driver", "own", code=4)
    assert "rmmod dell_rbu" in refused["error"]["message"]


def test_it_is_shown_where_a_kernels_driver_was_loaded_since(rbu: Cli, tree: Path) -> None:
    rbu("driver", "start", "--memory", "2M")
    put(tree, "/sys/devices/platform/dell_rbu/image_type", "mono\n")
    assert document(rbu, "driver", "status")["size_bytes"] == 2 * MIB
    assert "rmmod dell_rbu" in rbu.fails(4, "driver", "start")
    assert rbu("driver", "stop").out == "stopped: its memory was cleared and given back\n"


def test_pages_that_have_moved_do_not_count_where_nothing_is_staged(
    rbu: Cli, tree: Path, tmp_path: Path
) -> None:
    rbu("driver", "start", "--memory", "2M")
    ((start, _),) = (each.values() for each in memory_in(rbu))
    (tree / "moved").write_text(str(int(start, 16)))
    assert "others use them: others are taken" in " ".join(rbu("driver", "status").out.split())
    plan = document(rbu, "plan", str(tmp_path / "image.hdr"))
    (own,) = (each for each in plan["checks"] if each["name"] == "own_driver")
    assert "needs a huge page of 2 MiB" in own["found"]


def test_who_may_not_see_addresses_is_told_also_where_there_is_memory(
    rbu: Cli, tree: Path, tmp_path: Path
) -> None:
    rbu("driver", "start", "--memory", "2M")
    put(tree, "/proc/self/status", "Name:\trbu\nCapEff:\t000001ffffdfffff\n")
    plan = document(rbu, "plan", str(tmp_path / "image.hdr"), code=4)
    assert [each["kind"] for each in plan["obstacles"]] == ["hidden_addresses"]


def memory_in(rbu: Cli) -> Any:
    return document(rbu, "driver", "status")["memory_in"]["extents"]


def test_under_run_its_files_are_not_taken_for_a_kernels_driver(
    rbu: Cli, tree: Path, tmp_path: Path
) -> None:
    rbu("driver", "start", "--memory", "2M")
    with contextlib.closing(RamFileHost(tree, "own")) as host:
        assert host.driver_for_change.is_loaded
        for name, content in (("image_type", "mono\n"), ("packet_size", "0\n"), ("data", "")):
            put(tree, f"/sys/devices/platform/dell_rbu/{name}", content)
        (tree / "sys/.real").mkdir()
        assert document(rbu, "driver", "status")["size_bytes"] == 2 * MIB
        assert "openrbu's own driver is in use" in rbu.fails(4, "driver", "start")
        assert document(rbu, "status")["driver"] == "own"
        refused = rbu.fails(4, "plan", tmp_path / "image.hdr", "--driver", "kernel")
        assert "leave out --driver kernel" in refused


def test_a_record_that_can_not_be_written_is_named(
    rbu: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "write_whole", full)
    said = rbu.fails(4, "driver", "start")
    assert re.search("/run/openrbu/driver/record-.* can't be written: No space left", said)


def test_an_image_that_only_larger_blocks_can_hold(rbu: Cli, tree: Path, tmp_path: Path) -> None:
    """In one piece, on a kernel that has its driver: 4 MiB at most."""
    put(tree, f"/lib/modules/{KERNEL}/modules.dep", "kernel/drivers/dell_rbu.ko:\n")
    put(tree, f"/lib/modules/{KERNEL}/kernel/drivers/dell_rbu.ko", b"\x7fELF")
    large = tmp_path / "large.hdr"
    large.write_bytes(image_bytes(flash_size_bytes=5 * MIB))
    words = ("plan", str(large), "--mode", "mono", "--allow-any-system")
    assert "--driver own" in rbu(*words).out
    own = rbu(*words, "--driver", "own").out
    assert "larger than one block" not in own


@pytest.mark.privilege
def test_another_user_is_told_that_it_takes_root(rbu: Cli, tree: Path) -> None:
    if os.geteuid():
        leave_out("its files would be this user's own")
    rbu("driver", "start")
    (tree / "run/openrbu/driver").chmod(0o700)

    def look() -> None:
        assert "it takes root" in rbu.fails(4, "driver", "status")
        assert "it takes root" in rbu.fails(4, "driver", "start")

    opened_up(tree / "run")
    as_nobody(look)


def test_an_update_its_status_and_a_cancel(
    rbu: Cli, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = str(tmp_path / "image.hdr")
    plan = document(rbu, "plan", image)
    (driver,) = (each for each in plan["checks"] if each["name"] == "driver")
    assert driver["verdict"] == "handled"
    assert "openrbu's own driver takes its place" in driver["advice"]
    (own,) = (each for each in plan["checks"] if each["name"] == "own_driver")
    assert own["verdict"] == "fine"
    assert rbu("plan", image, "--driver", "kernel").code == 4
    updated = document(rbu, "update", image)
    assert updated["driver"] == "own"
    status = document(rbu, "status")
    assert status["next_restart"] == "updates"
    assert status["driver"] == "own"
    assert status["staged_in"]["extents"] == updated["extents"]
    assert "by openrbu's own driver" in rbu("status").out
    assert document(rbu, "driver", "status")["is_flushed"] is True
    assert "only the restart shows" in rbu("driver", "status").out
    refused = document(rbu, "driver", "stop", code=4)
    assert "rbu cancel" in refused["error"]["message"]

    page = int(status["staged_in"]["extents"][0]["start"], 16) // HUGE * HUGE
    (tree / "moved").write_text(str(page))
    moved = document(rbu, "status")
    assert moved["next_restart"] == "memory_moved"
    assert moved["moved_from"]["extents"]
    told = " ".join(rbu("status").out.split())
    assert "the kernel has moved pages of what is staged" in told
    assert "rbu cancel undoes it, then update again" in told
    with monkeypatch.context() as lockdown:
        lockdown.setattr(RamFileHost, "physical_memory", None)
        told = " ".join(rbu("status").out.split())
    assert f"rbu cancel undoes it, then {OLD_BYTES}" in told
    assert "rbu cancel" in rbu.fails(4, "update", image)
    assert "moved" in rbu("driver", "status").out

    assert document(rbu, "cancel")["was_staged"] is True
    assert document(rbu, "driver", "status")["is_started"] is False
    assert document(rbu, "status")["next_restart"] == "changes_nothing"
    assert sorted(free_pages(tree)) == sorted(PAGES)


def test_one_that_an_update_started_is_kept_when_it_is_started_by_hand(
    rbu: Cli, tree: Path, tmp_path: Path
) -> None:
    document(rbu, "update", str(tmp_path / "image.hdr"))
    before = document(rbu, "driver", "status")
    assert before["is_kept"] is False
    now = document(rbu, "driver", "start")
    assert now == {"changed": True, **before, "is_kept": True, "schema": 1}
    assert document(rbu, "cancel")["was_staged"] is True
    assert document(rbu, "driver", "status")["is_kept"] is True


OLD_BYTES = "switch the machine off and on before you update again"


@pytest.mark.parametrize("sees_memory", [True, False])
def test_pages_that_move_before_it_is_armed_keep_it_from_being_armed(
    rbu: Cli, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, sees_memory: bool
) -> None:
    """Where memory can't be read, the next update could not see their old bytes."""
    if not sees_memory:
        monkeypatch.setattr(RamFileHost, "physical_memory", None)
    (tree / "moved").write_text(" ".join(map(str, PAGES)))
    failed = document(rbu, "update", str(tmp_path / "image.hdr"), code=1)
    assert "has moved pages" in failed["error"]["message"]
    assert (OLD_BYTES in failed["error"]["message"]) is not sees_memory
    assert document(rbu, "status")["is_armed"] is False
    assert sorted(free_pages(tree)) == sorted(PAGES)


def test_a_virtual_machine_has_its_own_kernel(rbu: Cli, tree: Path, tmp_path: Path) -> None:
    refused = rbu("plan", str(tmp_path / "image.hdr"), "--machine", "box", "--driver", "own")
    assert refused.code == 2
