"""The core cases on another kernel than Debian's newest: 6.12 beside 6.1, or 6.1 beside 6.12.

They are the same tests, run on one machine that has the other kernel. What is seen to differ is a
profile of the driver, or a row in docs/kernel-differences.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from lab import test_differential, test_libsmbios, test_lost_guest, test_updates
from openrbu.units import PAGE_SIZE, PhysAddr
from rigs.lab import Lab, SharedMachine, find_second_lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    return find_second_lab()


@pytest.fixture(scope="session")
def shared_machine(lab: Lab) -> Iterator[SharedMachine]:
    shared = SharedMachine(lab.machine)
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def restarting(shared_machine: SharedMachine) -> SharedMachine:
    """One machine for all, because a start takes long."""
    return shared_machine


# They share the machine, in this sequence: what restarts it comes first, what kills it last.

test_an_update_is_done = test_updates.test_an_update_is_done
test_an_update_by_the_shell_and_libsmbios_alone = (
    test_libsmbios.test_an_update_by_the_shell_and_libsmbios_alone
)


MARK = b"$ read by way of the kernel"

READER = """\
import ctypes, mmap, os, signal, sys
from pathlib import Path
from openrbu.memory.kcore import open_kcore
mark = bytes(each ^ 0xFF for each in bytes.fromhex(sys.argv[1]))
memory = mmap.mmap(-1, 4096)
memory[: len(mark)] = mark
page = ctypes.addressof(ctypes.c_char.from_buffer(memory)) >> 12
with open("/proc/self/pagemap", "rb") as file:
    file.seek(8 * page)
    address = (int.from_bytes(file.read(8), "little") & (1 << 55) - 1) << 12
kcore = open_kcore(Path("/"))
assert kcore.read(address, len(mark)) == mark
print(hex(address), flush=True)
if os.fork():
    os._exit(0)
for each in range(3):
    os.close(each)
signal.pause()
"""


def test_what_is_read_of_memory_leaves_no_copy_at_the_start_of_a_page(
    shared_machine: SharedMachine,
) -> None:
    """The kernel reads by way of a page of its own, where a BIOS would find what was read last."""
    said = shared_machine.run([sys.executable, "-c", READER, bytes(~b & 0xFF for b in MARK).hex()])
    ram = shared_machine.machine.ram
    pages = [
        page
        for region in ram.populated(PhysAddr(0), ram.regions[-1].end)
        for page in range(region.start, region.end, PAGE_SIZE)
        if ram.view(PhysAddr(page), len(MARK)) == MARK
    ]
    assert [hex(page) for page in pages] == said.split()


hunt = test_differential.hunt
test_two_thousand_operations_of_the_day_agree = (
    test_differential.test_two_thousand_operations_of_the_day_agree
)
test_a_mistake_in_a_call_is_no_loss = test_lost_guest.test_a_mistake_in_a_call_is_no_loss
test_a_kernel_that_dies_is_a_loss_and_the_next_call_gets_a_new_one = (
    test_lost_guest.test_a_kernel_that_dies_is_a_loss_and_the_next_call_gets_a_new_one
)
