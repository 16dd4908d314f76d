"""Programs that reach I/O ports by instruction: in Python, and as tiny static executables."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

_SYSTEM_PYTHON = "/usr/bin/python3"
PYTHON = _SYSTEM_PYTHON if os.access(_SYSTEM_PYTHON, os.X_OK) else sys.executable
"""That of the tests may be in the home of root, where a plain user in a namespace finds none."""

KIT = r"""
import ctypes, json, mmap, os, signal, struct, subprocess, sys, threading

LIBC = ctypes.CDLL(None, use_errno=True)
PAGES = []

def code(hexadecimal):
    '''A function of a port, which is in DX, and of the value of RAX: RAX afterwards.'''
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex('89fa 4889f0' + hexadecimal + 'c3'))
    PAGES.append(page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(address)

IN, OUT = code('ec'), code('ee')

def error(name, *arguments):
    '''How a function of the C library ends: 0, or its errno.'''
    ctypes.set_errno(0)
    ended = getattr(LIBC, name)(*map(ctypes.c_long, arguments))
    return ctypes.get_errno() if ended == -1 else 0

def iopl(level): return error('iopl', level)
def ioperm(first, count, on): return error('ioperm', first, count, on)

def store(index, value):
    OUT(0x72, index)
    OUT(0x73, value)

def load(index):
    OUT(0x72, index)
    return IN(0x73, 0) & 0xFF

def status(work):
    '''Do it in a child: what it returns, or the negative number of a signal.'''
    child = os.fork()
    if not child:
        os._exit(work() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def say(what): print(json.dumps(what), flush=True)
"""


def program(script: str) -> tuple[str, ...]:
    """The words of a command that runs a script with `KIT`."""
    return (PYTHON, "-c", KIT + script)


def _executable(path: Path, code: bytes, *, is_64_bit: bool) -> Path:
    """An executable for Linux that has only this code: elf(5)."""
    base = 0x400000 if is_64_bit else 0x8048000
    header = "16sHHIQQQIHHHHHH" if is_64_bit else "16sHHIIIIIHHHHHH"
    sizes = (struct.calcsize("<" + header), 56 if is_64_bit else 32)
    entry, total = base + sum(sizes), sum(sizes) + len(code)
    identity = b"\x7fELF" + bytes((2 if is_64_bit else 1, 1, 1))
    kind, machine = 2, 62 if is_64_bit else 3
    head = struct.pack("<" + header, identity, kind, machine, 1, entry, sizes[0], 0, 0, sizes[0],
                       sizes[1], 1, 0, 0, 0)  # fmt: skip
    load, readable_and_executable = 1, 5
    if is_64_bit:
        segment = struct.pack("<IIQQQQQQ", load, readable_and_executable, 0, base, base, total,
                              total, 4096)  # fmt: skip
    else:
        segment = struct.pack("<8I", load, 0, base, base, total, total, readable_and_executable,
                              4096)  # fmt: skip
    path.write_bytes(head + segment + code)
    path.chmod(0o755)
    return path


def static_64(path: Path, index: int) -> Path:
    """A program that ends with the byte at an index of the second bank of CMOS: iopl(3), `out` to
    0x72, `in` from 0x73, exit."""
    code = f"b8 ac000000 bf 03000000 0f05 b0 {index:02x} e672 e473 0fb6f8 b8 3c000000 0f05"
    return _executable(path, bytes.fromhex(code), is_64_bit=True)


def static_32(path: Path, index: int) -> Path:
    """The same for 32 bits, by ioperm(0x72, 2, 1). After `out` it runs `inc eax`, `dec eax`, which
    would be prefixes in 64-bit mode, before `in`."""
    code = (
        "b8 65000000 bb 72000000 b9 02000000 ba 01000000 cd80"
        f"b0 {index:02x} e672 4048 66ba 7300 ec 0fb6d8 b8 01000000 cd80"
    )
    return _executable(path, bytes.fromhex(code), is_64_bit=False)
