"""Which files of tests take longest: these are begun first, or a processor waits for another's.

xdist gives out whole files, in the sequence of the tests. It is told not to sort them by how many
tests they have (`--no-loadscope-reorder`, in the Makefile), which says little.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

SECONDS: dict[str, float] = {
    "lab/test_updates.py": 312,
    "lab/test_own_driver.py": 160,
    "lab/test_lab_commands.py": 150,
    "lab/test_memory.py": 130,
    "unit/test_flow_failures.py": 105,
    "lab/test_differential.py": 103,
    "lab/test_kernels.py": 100,
    "lab/test_killed.py": 95,
    "unit/test_killed.py": 90,
    "lab/test_after_restart.py": 75,
    "lab/test_manual.py": 69,
    "lab/test_tokens.py": 62,
    "lab/test_same_verdict.py": 61,
    "lab/test_lab_machine.py": 60,
    "lab/test_prepared_boot.py": 57,
    "lab/test_dumps.py": 57,
    "lab/test_xen_balloon.py": 55,
    "lab/test_xen_dell_rbu.py": 47,
    "oracle/test_oracle_cases.py": 44,
    "lab/test_firmware_file.py": 44,
    "lab/test_differ.py": 37,
    "unit/test_run_stand_ins.py": 33,
    "unit/test_run_programs.py": 26,
    "unit/test_how_to.py": 26,
    "unit/test_run_xen.py": 25,
    "unit/test_machine.py": 25,
    "lab/test_libsmbios.py": 25,
    "unit/test_short_memory.py": 24,
    "unit/test_readme.py": 22,
    "unit/mount/test_mount_stress.py": 20,
    "contract/test_two_ways.py": 20,
    "unit/test_run_clients.py": 16,
    "unit/test_entry_delay.py": 16,
    "lab/test_lost_guest.py": 15,
}
"""Of the processor, roughly, where KVM does not work. Each other file counts as `_TEST_S` for each
of its tests."""

_TEST_S = 0.1


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests: the files that take longest first, each file's tests as they are in it."""
    counts = Counter(item.path for item in items)

    def seconds(path: Path) -> float:
        name = str(path.relative_to(TESTS)) if path.is_relative_to(TESTS) else ""
        return SECONDS.get(name, counts[path] * _TEST_S)

    items.sort(key=lambda item: (-seconds(item.path), str(item.path)))
