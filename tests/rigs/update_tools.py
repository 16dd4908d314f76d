"""Update tools, to run unmodified wherever there is a Dell: under `rbu run`, and in the lab.

The kernel makes a firmware entry, and takes what was written to it, a moment after the write that
asked for it. So the tools wait for both.
"""

from __future__ import annotations

import re
from pathlib import Path

from rigs.needs import program
from rigs.port_programs import program as port_program

PACKET_BYTES = 4096

_OLD_CLIENT = r"""
kind, path, packet_bytes = sys.argv[1:]
ENTRY, DEVICE = "/sys/class/firmware/dell_rbu", "/sys/devices/platform/dell_rbu"
TOKEN = 0x5C

def memory(start, size):
    '''Physical memory, mapped page by page as libsmbios does.'''
    first = start & ~0xFFF
    with open("/dev/mem", "rb", buffering=0) as device:
        length = (start + size - first + 0xFFF) & ~0xFFF
        pages = mmap.mmap(device.fileno(), length, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=first)
        return pages[start - first : start - first + size]

def structures():
    '''The formatted part of each structure, after the tables were found by their anchor.'''
    area = memory(0xF0000, 0x10000)
    anchor = next(at for at in range(0, len(area), 16) if area[at : at + 4] == b"_SM_")
    size, table_at = struct.unpack_from("<HI", area, anchor + 0x16)
    table = memory(table_at, size)
    at = 0
    while at < size:
        length = table[at + 1]
        yield table[at : at + length]
        at = table.index(b"\0\0", at + length) + 2

def cmos(ports, index, value=None):
    OUT(ports[0], index)
    if value is None:
        return IN(ports[1], 0) & 0xFF
    OUT(ports[1], value)

def crc(data):
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(7):
            value = value >> 1 if not value & 1 else (value >> 1 | 0x8000) ^ 0xA001
    return value

def activate():
    for body in structures():
        if body[0] != 0xD4:
            continue
        *ports, check, first, last, check_at = struct.unpack_from("<HHBBBB", body, 4)
        for offset in range(12, len(body) - 4, 5):
            number, index, kept, added = struct.unpack_from("<HBBB", body, offset)
            if number != TOKEN:
                continue
            cmos(ports, index, cmos(ports, index) & kept | added)
            if check_at:
                data = [cmos(ports, each) for each in range(first, last + 1)]
                total = {0: sum, 1: sum, 2: crc, 3: lambda data: -sum(data)}[check](data)
                if check != 1:
                    cmos(ports, check_at, total >> 8 & 0xFF)
                cmos(ports, check_at + (check != 1), total & 0xFF)
            return
    sys.exit("does not contain support for this system")

vendors = [body for body in structures() if body[0] == 0xD0]
assert vendors, "this is no Dell"
if os.system("modprobe dell_rbu"):
    sys.exit("no driver")
for word in (kind, "init"):
    if word == kind or not os.path.exists(ENTRY):
        with open(DEVICE + "/image_type", "w") as file:
            file.write(word)
if kind == "packet":
    with open(DEVICE + "/packet_size", "w") as file:
        file.write(packet_bytes)
while not os.path.exists(ENTRY + "/loading"):
    pass  # the kernel makes it a moment later
with open(ENTRY + "/loading", "w") as file:
    file.write("1")
with open(path, "rb") as image, open(ENTRY + "/data", "wb") as file:
    file.write(image.read())
with open(ENTRY + "/loading", "w") as file:
    file.write("0")
assert iopl(3) == 0
activate()
with open("/sys/kernel/reboot/mode", "w") as file:
    file.write("warm")
os.execvp("shutdown", ["shutdown", "-r", "now"])
"""
"""The vendor's old client, `dellBiosUpdate`, by a program of our own. It does by the same ways what
that one was seen to do: it finds the SMBIOS tables in `/dev/mem`, runs modprobe(8), stages through
the firmware entry, and sets the activation token in CMOS by port instructions, with its check
value."""

_PAGE = Path(__file__).parents[2] / "docs" / "run.md"
PAGE_COMMANDS, PAGE_TOOL = re.findall(r"```(?:sh)?\n(.*?)```", _PAGE.read_text(), re.DOTALL)[:2]
"""What the page begins with: the command lines, and an update tool as its author has it."""


def old_client(image: object, kind: str = "mono") -> list[str]:
    """The words that run the old client; for `kind` "packet" its image is packets of
    `PACKET_BYTES`."""
    return [*port_program(_OLD_CLIENT), kind, str(image), str(PACKET_BYTES)]


def page_tool(image: object) -> list[str]:
    """The words that run the page's tool, which has Debian's libsmbios set the token."""
    program("smbios-token-ctl", "smbios-utils")
    return ["sh", "-c", PAGE_TOOL, "tool", str(image)]
