"""Memory that came while the machine ran, or may have come: a plan tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.hosts.linux import LinuxHost
from openrbu.linux.memory_added import BLOCKS, DEVICES, IOMEM, read_memory_added
from openrbu.update.checks.check import Verdict
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from rigs.hazards import put, sound_machine
from rigs.machines import image

DIMM = f"{DEVICES}/PNP0C80:00"
VIRTIO = "100000000-13fffffff : virtio0\n  100000000-13fffffff : System RAM (virtio_mem)\n"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({}, ""),
        ({f"{DIMM}/status": "15\n"}, "ACPI device PNP0C80:00"),
        ({f"{DIMM}/hid": "PNP0C80\n"}, "ACPI device PNP0C80:00"),
        ({f"{DIMM}/status": "0\n"}, ""),
        (
            {f"{DIMM}/status": "15\n", f"{DEVICES}/PNP0C80:01/status": "15\n"},
            "ACPI device PNP0C80:00 and 1 more",
        ),
        ({f"{BLOCKS}/memory8/state": "offline\n"}, "1 block offline"),
        ({f"{BLOCKS}/memory8/state": "online\n"}, ""),
        ({IOMEM: "00100000-3fffffff : System RAM\n  01000000-01ffffff : Kernel code\n"}, ""),
        ({IOMEM: VIRTIO}, "System RAM (virtio_mem)"),
    ],
    ids=str,
)
def test_what_was_added_or_may_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], text: str
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    machine = sound_machine(tmp_path)
    for path, content in files.items():
        put(machine, path, content)
    added = read_memory_added(LinuxHost(machine))
    assert added is not None
    assert added.text == text
    plan = make_plan(LinuxHost(machine), image(), Options())
    (row,) = [each for each in plan.checks if each.name == "hot_plugged_memory"]
    assert row.verdict is (Verdict.UNKNOWN if text else Verdict.FINE)
    assert text in row.found
    assert bool(row.advice) is bool(text)


def test_a_kernel_that_can_not_be_given_memory_says_nothing_of_it(tmp_path: Path) -> None:
    assert read_memory_added(LinuxHost(tmp_path)) is None
