"""modprobe, insmod and rmmod for openrbu's own driver under `rbu run` on this computer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrbu.drivers.sysfs import Caller, Stat
from openrbu.own_driver.driver import LOADING, OwnDriver, open_own_driver
from openrbu.run.own_modules import OwnDesk
from rigs.own_memory import HUGE, RamFileBackend, make_computer

IMAGE_TYPE = "/devices/platform/dell_rbu/image_type"
ANY = Stat(0o100666, 1, 0, 1, 0.0)

Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[OwnDriver]:
    make_computer(tmp_path, [HUGE * 5])
    with open_own_driver(RamFileBackend(tmp_path), root=tmp_path) as driver:
        driver.load()
        yield driver


@pytest.fixture
def ask(driver: OwnDriver) -> Ask:
    """Has a stand-in's words carried out: its exit status, and all that it says."""
    desk = OwnDesk(driver)

    def ask(*words: str, uid: int = 0) -> tuple[int, str]:
        request = desk.open(Caller(uid, sys_rawio=True), ANY)
        for word in (f"/sbin/{words[0]}", *words):
            request.write(0, word.encode() + b"\0")
        script = request.read(0, 1 << 16)
        ended = subprocess.run(
            ["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return ended.returncode, ended.stdout.decode()

    return ask


def test_the_driver_is_there_already_and_can_be_loaded_once_more(
    driver: OwnDriver, ask: Ask
) -> None:
    assert ask("modprobe", "dell_rbu") == (0, "")
    assert ask("modprobe", "--first-time", "dell-rbu")[0] == 1
    assert ask("insmod", "/lib/modules/x/dell_rbu.ko") == (
        1,
        "insmod: ERROR: could not insert module /lib/modules/x/dell_rbu.ko: File exists\n",
    )
    busy = (1, "rmmod: ERROR: Module dell_rbu is in use\n")
    assert ask("rmmod", "dell_rbu") == busy
    driver.tree.write(LOADING, b"-1")
    assert ask("rmmod", "dell_rbu") == (0, "")
    assert not driver.is_loaded
    assert ask("rmmod", "dell_rbu")[0] == 1
    assert ask("modprobe", "dell_rbu", "image_type=packet") == (0, "")
    assert driver.tree.read(IMAGE_TYPE) == b"packet\n"


def test_only_root_may(driver: OwnDriver, ask: Ask) -> None:
    driver.tree.write(LOADING, b"-1")
    status, said = ask("rmmod", "dell_rbu", uid=1000)
    assert (status, "Operation not permitted" in said) == (1, True)
    assert driver.is_loaded


def test_another_module_is_not_ours(ask: Ask) -> None:
    assert ask("modprobe", "-a", "dcdbas", "dell_rbu")[0] == 1
