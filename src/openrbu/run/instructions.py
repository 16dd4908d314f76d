"""The instructions `in` and `out` of x86, decoded.

A program without the permission for a port faults at the instruction; `decode` says what it wanted.
Source: the processor's manual (Intel SDM, volume 2: chapter 2, "Instruction format", and the pages
of IN, OUT, INS, OUTS).
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_BYTES = 15
"""The longest instruction: the processor refuses a longer one."""

# Prefixes that change nothing for these instructions: segments, the address's size, repetitions.
# LOCK is not among them: with it the processor refuses the instruction.
_IDLE_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x67\xf2\xf3")
_OPERAND_SIZE = 0x66
_REX = range(0x40, 0x50)
_REX_W = 0x08

_STRINGS = range(0x6C, 0x70)
"""insb, insw or insd, outsb, outsw or outsd."""

_IS_PLAIN = 0xF4
"""The bits of the opcodes E4 to E7 and EC to EF that are 0xE4 in each of them."""
_BY_DX, _IS_OUT, _IS_WIDE = 0x08, 0x02, 0x01


@dataclass(frozen=True, slots=True)
class PortInstruction:
    """One access to ports: `out` of `size_bytes` (1, 2 or 4) to the port, else `in`.

    `port` is the immediate; None: the port is in DX. `length_bytes` is the instruction's own. Of a
    string form (`is_string`) only `is_out` is to be used.
    """

    is_out: bool
    size_bytes: int
    port: int | None
    length_bytes: int
    is_string: bool = False


def decode(code: bytes, *, is_64_bit: bool) -> PortInstruction | None:
    """The instruction that `code` begins with, in 64-bit mode or in a 32-bit segment. None: it is
    another one, or `code` ends within it."""
    size_bytes, rex, at = 4, 0, 0
    code = code[:MAX_BYTES]
    for at, byte in enumerate(code):  # noqa: B007  (`at` is used after the loop)
        if byte == _OPERAND_SIZE:
            size_bytes, rex = 2, 0
        elif byte in _IDLE_PREFIXES:
            rex = 0
        elif is_64_bit and byte in _REX:
            rex = byte
        else:
            break
    else:
        return None
    if rex & _REX_W:  # it has precedence over the operand's size, and 64 bits are taken for 32
        size_bytes = 4
    opcode = code[at]
    if not opcode & _IS_WIDE:
        size_bytes = 1
    if opcode in _STRINGS:
        return PortInstruction(bool(opcode & _IS_OUT), size_bytes, None, at + 1, is_string=True)
    if opcode & _IS_PLAIN != 0xE4:
        return None
    is_out = bool(opcode & _IS_OUT)
    if opcode & _BY_DX:
        return PortInstruction(is_out, size_bytes, None, at + 1)
    immediate = code[at + 1 : at + 2]
    return PortInstruction(is_out, size_bytes, immediate[0], at + 2) if immediate else None
