"""How often one command on a Xen host opens and reads what it needs, counted from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from openrbu.machine import store
from rigs.cli import Cli

COUNTING = """
import collections, fcntl, json, os, sys

directory = sys.argv[1]
opened, called, locked = (collections.Counter() for _ in range(3))


def audit(event, arguments):
    if event == "open" and str(arguments[0]).startswith(directory):
        opened[os.path.relpath(arguments[0], directory)] += 1
    if event == "fcntl.flock" and arguments[1] & fcntl.LOCK_EX:
        path = os.readlink(f"/proc/self/fd/{arguments[0]}")
        locked[os.path.relpath(path, directory)] += 1


def profile(frame, event, _):
    if event == "call":
        called[frame.f_code.co_qualname] += 1


from openrbu.cli.main import main

sys.addaudithook(audit)
sys.setprofile(profile)
code = main(sys.argv[2:])
sys.setprofile(None)
assert code == 0
json.dump({"opened": opened, "locked": locked, "called": called}, sys.stderr)
"""
"""A command in a process of its own. It writes to standard error how often it opened and locked
each file of the host's directory, and called each function."""


def counted(*words: str) -> Any:
    directory = str(store.machine_directory("xen").resolve())
    ended = subprocess.run(
        [sys.executable, "-c", COUNTING, directory, *words], capture_output=True, check=True
    )
    return json.loads(ended.stderr)


@pytest.mark.parametrize("name", ["a", "dom0"])
def test_setting_a_target_opens_the_machine_once_and_reads_once_before_and_once_after(
    live_xen: Cli, name: str
) -> None:
    live_xen.json("balloon", "guest", "xen", "b", "--memory", "64M")
    counts = counted("balloon", "target", "xen", name, "110M")
    opened, called = counts["opened"], counts["called"]
    once = ("machine.json", "lock", "state.json", "flash", "nvram.json", "DMI")
    assert {path: opened[path] for path in once} == dict.fromkeys(once, 1)
    assert counts["locked"]["lock"] == 1
    hosts = ("xen/host.json", "xen/words", "ram")
    assert {path: opened[path] for path in hosts} == dict.fromkeys(hosts, 2)  # dom0 and the host
    assert [opened[f"xen/guests/{guest}/guest.json"] for guest in ("a", "b")] == [1, 1]
    assert (called["guest_status"], called.get("Hypervisor.domains", 0)) == (2, 0)
    assert called["load_config"] == 1
    assert called["Dom0.read"] == (2 if name == "dom0" else 1)


def test_showing_a_host_opens_the_machine_once_and_lists_the_guests_once(live_xen: Cli) -> None:
    counts = counted("balloon", "show", "xen")
    assert (counts["opened"]["machine.json"], counts["locked"]["lock"]) == (1, 1)
    assert counts["called"]["Hypervisor.domains"] == 1
