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


INVALID = """
invalid = [iopl(4), iopl(-1), ioperm(0, 0, 1), ioperm(65536, 1, 1), ioperm(1, 65536, 1),
           ioperm(-1, 2, 1), ioperm(8, -8, 0)]
"""

PERMISSIONS = """
def asks(*calls):
    def work():
        for call, *arguments in calls:
            assert call(*arguments) == 0
        return IN(0x378, 0) & 0x3F
    return status(work)

def split(name, *arguments):
    '''Unshare, or lose a capability; then ask.'''
    def work():
        assert error(name, *arguments) == 0
        return iopl(3)
    return status(work)

def without_rawio():
    header, words = struct.pack('Ii', 0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert LIBC.capget(header, words) == 0
    words[0] &= ~(1 << 17)
    assert LIBC.capset(header, words) == 0
    return [iopl(3), ioperm(0x70, 2, 1), iopl(0), ioperm(0x70, 2, 0)] == [1, 1, 0, 0]

def wide():
    assert ioperm(0x70, 3, 1) == 0
    code('66ed')(0x71, 0)
    code('ed')(0x70, 0)

def last(size_form):
    def work():
        assert iopl(3) == 0
        code(size_form)(0xFFFF, 0)
        return 7
    return status(work)

say({
    'never asked': asks(),
    'level 3': asks((iopl, 3)),
    'level 2': asks((iopl, 2)),
    'level 3, then 0': asks((iopl, 3), (iopl, 0)),
    'the range': asks((ioperm, 0x378, 1, 1)),
    'all': asks((ioperm, 0, 65536, 1)),
    'beside the range': asks((ioperm, 0x370, 8, 1), (ioperm, 0x379, 8, 1)),
    'turned off': asks((ioperm, 0x370, 16, 1), (ioperm, 0x378, 1, 0)),
    'level 0, and the range': asks((iopl, 3), (ioperm, 0x378, 1, 1), (iopl, 0)),
    'part of a wide access': status(wide),
    'the last port': last('ec'),
    'past the last port': last('66ed'),
    'in a namespace of its own': split('unshare', 0x10000000),
    'without the capability': status(without_rawio),
    'invalid': invalid,
})
"""
"""What each way to ask allows. Port 0x378 has no device, and reads as ones."""

INHERITANCE = r"""
def reads(): return IN(0x378, 0) & 0x3F

def may(work):
    '''Whether a child may read the port at the end of this work, which asks or not.'''
    return status(work) == 0x3F

def in_thread(ask, work):
    '''What `work` returns in a thread that asks when told, or not.'''
    found = []
    thread = threading.Thread(target=lambda: (ask(), found.append(work())))
    thread.start()
    thread.join()
    return found[0]

def asks_beside(ask):
    '''The main thread asks while another one is there, which then reads.'''
    asked, found = threading.Event(), []
    thread = threading.Thread(target=lambda: (asked.wait(), found.append(reads())))
    thread.start()
    ask()
    asked.set()
    thread.join()
    return found[0]

def after(ask, work):
    ask()
    return work()

def executes():
    script = ("import mmap, ctypes\npage = mmap.mmap(-1, 4096, prot=7)\n"
              "page.write(bytes.fromhex('89faecc3'))\n"
              "at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
              "read = ctypes.CFUNCTYPE(ctypes.c_uint8, ctypes.c_uint64)(at)\n"
              "raise SystemExit(read(0x378) & 0x3F)")
    os.execv(sys.executable, [sys.executable, '-c', script])

def drops_in_child(ask, drop):
    ask()
    status(drop)
    return reads()

nothing = lambda: None
found = {}
for name, ask, drop in (
    ('iopl', lambda: iopl(3), lambda: iopl(0)),
    ('ioperm', lambda: ioperm(0x378, 1, 1), lambda: ioperm(0x378, 1, 0)),
):
    found[name] = {
        'itself': may(lambda: after(ask, reads)),
        'a thread that is there': may(lambda: asks_beside(ask)),
        'a thread of later': may(lambda: after(ask, lambda: in_thread(nothing, reads))),
        'who started the thread that asks': may(lambda: in_thread(ask, nothing) or reads()),
        'a child': may(lambda: after(ask, lambda: status(reads))),
        'the program that it executes': may(lambda: after(ask, executes)),
        'what its child executes': may(lambda: after(ask, lambda: status(executes))),
        'after its child drops it': may(lambda: drops_in_child(ask, drop)),
        'a thread of later, after it drops it': may(
            lambda: after(ask, lambda: drop() or in_thread(nothing, reads))),
    }
say(found)
"""
"""Who has a permission that a thread asked for."""


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
