"""Writes what is in the processor's caches back to RAM, for memory that this process has mapped.

A reset of the processor invalidates its caches, and nothing that is public says that a byte which
is only there reaches RAM first. Any process may have lines written back: the instruction needs no
privilege. Python has no such instruction, so a page with these few bytes of machine code is made,
once, and called::

    f3 0f 1e fa      endbr64
    0f ae f0         mfence
    66 0f ae 3f      again: clflushopt [rdi]     (0f ae 3f: clflush [rdi])
    48 01 d7         add rdi, rdx
    48 39 f7         cmp rdi, rsi
    72 xx            jb again
    0f ae f0         mfence
    c3               ret

`clflushopt` and `clflush` also drop the line from the caches, so what is read after that comes from
RAM; `clwb`, which may keep it, would prove less. Both work on the physical line, whoever else has
it mapped.

Sources and limits: docs/reference/platform.md, V7. Decision:
docs/decisions/0040-lines-of-the-cache.md.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from openrbu.system.libc import call

_CPUINFO = Path("/proc/cpuinfo")

_BEFORE = bytes.fromhex("f30f1efa 0faef0")
_STEP_AND_COMPARE = bytes.fromhex("4801d7 4839f7")
_AFTER = bytes.fromhex("0faef0 c3")
_INSTRUCTIONS = {"clflushopt": bytes.fromhex("660fae3f"), "clflush": bytes.fromhex("0fae3f")}
"""The instructions by their flags in `/proc/cpuinfo`, the best one first."""

_POINTER_BYTES = 8


class _Code(NamedTuple):
    """`flush` takes the first address, the one after the last, and the size of a line in bytes."""

    flush: Callable[[int, int, int], None]
    line_bytes: int
    instruction: str
    page: mmap.mmap
    """Has the machine code, and is there as long as this is."""


def flush_lines(place: int, size_bytes: int) -> bool:
    """Have the bytes of mapped memory from an address of this process on in RAM, and in no cache
    of a processor.

    Returns False, and has done nothing, where this process has no means for that:
    `cannot_flush` says why.
    """
    code = _code()
    if isinstance(code, str):
        return False
    if size_bytes:
        first = place // code.line_bytes * code.line_bytes
        code.flush(first, place + size_bytes, code.line_bytes)
    return True


def cannot_flush() -> str:
    """Why `flush_lines` does nothing here, as a part of a sentence; empty where it works."""
    code = _code()
    return code if isinstance(code, str) else ""


def instruction_in(cpuinfo: str) -> tuple[str, int] | None:
    """The instruction that all processors of a `/proc/cpuinfo` have, and the size of a line in
    bytes; None: it does not say so."""
    flags = [set(row.split()) for row in re.findall(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)]
    sizes = {int(size) for size in re.findall(r"^clflush size\s*: (\d+)$", cpuinfo, re.MULTILINE)}
    shared = set.intersection(*flags) if flags else set()
    name = next((name for name in _INSTRUCTIONS if name in shared), None)
    return (name, sizes.pop()) if name and len(sizes) == 1 else None


@cache
def _code() -> _Code | str:
    """The machine code, ready to be called; or why there can't be any."""
    if platform.machine() != "x86_64" or struct.calcsize("P") != _POINTER_BYTES:
        return "openrbu can do that on 64-bit x86 only"
    try:
        found = instruction_in(_CPUINFO.read_text("ascii", "replace"))
        if found is None:
            return f"{_CPUINFO} names no instruction that does it"
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        page.write(_machine_code(_INSTRUCTIONS[found[0]]))
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        call("mprotect", address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC)
    except OSError as error:
        return f"this system does not let a process make machine code ({error.strerror})"
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t)
    return _Code(prototype(address), found[1], found[0], page)


def _machine_code(instruction: bytes) -> bytes:
    body = instruction + _STEP_AND_COMPARE
    jump_back = struct.pack("<Bb", 0x72, -len(body) - 2)  # 2: the jump itself
    return _BEFORE + body + jump_back + _AFTER
