"""The vendor's old client, `dellBiosUpdate`, replayed under `rbu run` by a program of our own.

It does by the same ways what that one was seen to do: it finds the SMBIOS tables in `/dev/mem`,
runs modprobe(8), stages through the firmware entry, and sets the activation token in CMOS by port
instructions, with its check value.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rigs.cli import Cli
from rigs.machines import NEWER, image_bytes
from rigs.port_programs import program
from rigs.run import runner

CLIENT = r"""
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

PACKET_BYTES = 4096


@pytest.mark.parametrize(
    ("model", "kind"),
    [("poweredge-2650", "mono"), ("precision-390", "mono"), ("precision-390", "packet")],
)
def test_the_vendors_old_client_updates_a_machine(
    rbu: Cli, tmp_path: Path, model: str, kind: str
) -> None:
    run = runner(tmp_path / "home", "root", model, profile="linux-2.6.16")
    staged = rbu.write("new.hdr", image_bytes(model))
    if kind == "packet":
        packets = tmp_path / "packets"
        rbu.json("packets", staged, "-o", packets, "--packet-size", PACKET_BYTES)
        staged = packets
    *before, mark = run.line()
    tool = [mark, *program(CLIENT), kind, str(staged), str(PACKET_BYTES)]
    command = [*before, "--after-restart", "dmidecode -s bios-version", *tool]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, NEWER[model]), ended
    assert "0x0000" in ended.stderr
