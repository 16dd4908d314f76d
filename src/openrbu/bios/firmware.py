"""openrbu's own BIOS, with which a virtual machine leaves the factory.

It is small but real: at the reset vector, 16 bytes below the end of the flash, a PC's processor
finds a jump to code that writes one line to the first serial port and halts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from openrbu.units import KIB

_CODE_OFFSET = 0xE000
"""The offset of the code in the last 64 KiB, which is segment F000 after a reset."""

_MESSAGE_OFFSET = 0xE020

_RESET = bytes.fromhex("ea 00 e0 00 f0")  # jmp far f000:e000

_CODE = bytes.fromhex(
    "fa fc"  # cli; cld
    "be 20 e0"  # mov si, the message
    "2e ac 84 c0 74 06"  # next: lodsb cs:; test al, al; jz halt
    "ba f8 03 ee eb f4"  # mov dx, 0x3f8; out dx, al; jmp next
    "f4 eb fd"  # halt: hlt; jmp halt
)


def make_firmware(title: str, size_bytes: int) -> bytes:
    """The contents of a flash of `size_bytes` (at least 64 KiB) whose code writes `title` to the
    serial port."""
    message = f"{title}\r\n".encode("ascii", "replace") + b"\0"
    last = bytearray(b"\xff" * (64 * KIB))
    last[_CODE_OFFSET : _CODE_OFFSET + len(_CODE)] = _CODE
    last[_MESSAGE_OFFSET : _MESSAGE_OFFSET + len(message)] = message
    last[-16 : -16 + len(_RESET)] = _RESET
    return b"\xff" * (size_bytes - len(last)) + bytes(last)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(make_firmware("openrbu's own BIOS", 256 * KIB))
