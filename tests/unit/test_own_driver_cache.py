"""Caches are written back by machine code of our own, which touches the lines asked for only."""

from __future__ import annotations

import ctypes
import mmap
import platform
import signal
import subprocess
import sys

import pytest

from openrbu.own_driver.cache import cannot_flush, flush_lines, instruction_in
from openrbu.units import PAGE_SIZE

only_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="no code for this processor")

THREE_PAGES = """
import ctypes, mmap
from openrbu.own_driver.cache import cannot_flush, flush_lines
from openrbu.system.libc import call
memory = mmap.mmap(-1, 3 * 4096)
memory.write(b"x" * len(memory))
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
call("mprotect", start + 4096, 4096, 0)
"""
"""The middle one of three pages can't be touched (PROT_NONE): whoever does gets SIGSEGV."""

LINE_SIZE = "clflush size\t: 64\n"

NO_NEW_CODE = """
import ctypes, mmap
from openrbu.own_driver.cache import cannot_flush, flush_lines
from openrbu.system.libc import call
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
try:
    call("prctl", PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
except OSError:
    print("not on this kernel")
else:
    memory = mmap.mmap(-1, 4096)
    print(flush_lines(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 4096), cannot_flush())
"""


def ran(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@only_x86
@pytest.mark.parametrize("size_bytes", [0, 1, 64, 4096, 5 * PAGE_SIZE + 17])
def test_bytes_stay_as_they_are(size_bytes: int) -> None:
    memory = mmap.mmap(-1, 8 * PAGE_SIZE)
    memory.write(bytes(range(256)) * 128)
    before = memory[:]
    place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert flush_lines(place + 3, size_bytes)
    assert memory[:] == before
    assert not cannot_flush()


@only_x86
@pytest.mark.parametrize(
    ("first", "last", "is_touched"),
    [
        (0, 4096, False),
        (8192, 12288, False),
        (8192, 8193, False),
        (17, 4095, False),
        (0, 4097, True),
        (8191, 8200, True),
        (4000, 9000, True),
        (5000, 5001, True),
    ],
)
def test_lines_that_are_asked_for_are_touched_and_no_others(
    first: int, last: int, is_touched: bool
) -> None:
    """The instruction faults like a load of a byte does (docs/reference/platform.md, V7)."""
    done = ran(f"{THREE_PAGES}print(flush_lines(start + {first}, {last} - {first}))")
    assert (done.returncode == -signal.SIGSEGV) is is_touched, done
    assert is_touched or done.stdout == "True\n"


@only_x86
def test_where_a_process_may_not_make_code_it_says_so() -> None:
    done = ran(NO_NEW_CODE)
    if done.stdout == "not on this kernel\n":
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.stdout.startswith("False this system does not let a process make machine code ("), (
        done
    )


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        ("flags\t\t: fpu clflush clflushopt clwb\nclflush size\t: 64\n", ("clflushopt", 64)),
        ("flags\t\t: fpu clflush sse2\nclflush size\t: 64\n", ("clflush", 64)),
        # a board with two kinds of processors has what both have
        (
            f"flags\t: clflush clflushopt\n{LINE_SIZE}\nflags\t: clflush\n{LINE_SIZE}",
            ("clflush", 64),
        ),
        ("flags\t\t: fpu clflush\nclflush size\t: 64\n\nflags\t: fpu\nclflush size\t: 64\n", None),
        ("flags\t\t: clflush\n", None),
        ("flags\t\t: fpu mmx\nclflush size\t: 32\n", None),
        ("Features\t: fp asimd\n", None),
        ("", None),
    ],
)
def test_the_instruction_is_one_that_all_processors_have(
    cpuinfo: str, found: tuple[str, int] | None
) -> None:
    assert instruction_in(cpuinfo) == found
