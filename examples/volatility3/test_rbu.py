"""The plugin under volatility3 finds in every format what `rbu scan` finds in the raw dump."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.version import BiosVersion
from openrbu.units import KIB, MIB, PAGE_SIZE
from rigs.cli import RBU
from rigs.dumps import Ram, lime, ram_with, raw, scattered, vmware, windows_crash_dump

HERE = Path(__file__).parent
VOL = Path(os.environ.get("VOLATILITY3", HERE.parents[1] / "build/volatility3/bin/vol"))
RANGES = [(0x1000, 0x9F000), (MIB, 3 * MIB), (4 * MIB, 6 * MIB)]
IMAGE = make_image(
    random.Random(16).randbytes(64 * KIB),
    version=BiosVersion.parse("A05"),
    systems=[SystemId(0x121)],
)


def make_ram() -> Ram:
    """Packets, one of them twice and one damaged; an image, a header alone, a packet at the last
    page before a hole."""
    data = bytes(split(IMAGE, set_id=b"_A05"))
    packets = [data[at : at + 4 * KIB] for at in range(0, len(data), 4 * KIB)]
    pages = list(range(MIB, 3 * MIB - PAGE_SIZE, 2 * PAGE_SIZE))
    content = scattered(packets[:-2], pages)
    content[3 * MIB - PAGE_SIZE] = packets[-2]
    content[0x3000] = packets[1]
    content[0x5000] = packets[2][:-1] + bytes([packets[2][-1] ^ 1])
    content[4 * MIB] = IMAGE
    content[5 * MIB] = IMAGE[:1000]
    return ram_with(RANGES, content)


def run(program: tuple[str | Path, ...], *arguments: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [*program, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def vol(directory: Path, dump: Path, *options: str) -> tuple[int, str, str]:
    settings = ("-q", "--offline", "--cache-path", directory / "cache", "-p", HERE, "-r", "json")
    return run((VOL,), *settings, "-f", dump, "rbu.RbuScan", *options)


def by_volatility(rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    every = [*rows, *(child for row in rows for child in row["__children"])]
    return {(row["Finding"], row["Address"], row["Packet"]) for row in every} - {
        (row["Finding"], row["Address"], row["Packet"]) for row in rows[:1]
    }


def by_rbu(document: dict[str, Any]) -> set[tuple[Any, ...]]:
    found: set[tuple[Any, ...]] = set()
    for each in document["packet_sets"]:
        found.add(("packet set", int(each["lowest"], 16), None))
        found |= {("packet", int(at["address"], 16), at["number"]) for at in each["places"]}
    for name, key in (("image", "images"), ("header", "bare_headers"), ("reject", "rejects")):
        found |= {(name, int(each["address"], 16), None) for each in document[key]}
    return found


def as_vmware(directory: Path, ram: Ram) -> Path:
    memory, table = vmware(ram)
    (directory / "machine.vmss").write_bytes(table)
    (directory / "machine.vmem").write_bytes(memory)
    return directory / "machine.vmem"


def one_file(name: str, make: Callable[[Ram], bytes]) -> Callable[[Path, Ram], Path]:
    def write(directory: Path, ram: Ram) -> Path:
        (directory / name).write_bytes(make(ram))
        return directory / name

    return write


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("volatility")
    (directory / "cache").mkdir()
    return directory


@pytest.fixture(scope="module")
def expected(there: Path) -> set[tuple[Any, ...]]:
    (there / "ram.raw").write_bytes(raw(make_ram()))
    code, out, _ = run(RBU, "scan", "--json", there / "ram.raw")
    assert code == 0
    found = by_rbu(json.loads(out))
    assert {kind for kind, *_ in found} == {"packet set", "packet", "image", "header", "reject"}
    return found


@pytest.mark.parametrize(
    ("write", "layer", "is_read"),
    [
        (one_file("ram.dd", raw), "FileLayer", True),
        (one_file("ram.lime", lime), "LimeLayer", True),
        (one_file("MEMORY.DMP", windows_crash_dump), "WindowsCrashDump64Layer", False),
        (as_vmware, "VmwareLayer", False),
    ],
    ids=["raw", "LiME", "Windows crash dump", "VMware"],
)
def test_it_finds_what_rbu_scan_finds_in_the_raw_dump(
    there: Path,
    expected: set[tuple[Any, ...]],
    write: Callable[[Path, Ram], Path],
    layer: str,
    is_read: bool,
) -> None:
    dump = write(there, make_ram())
    code, out, err = vol(there, dump)
    assert code == 0, err
    rows = json.loads(out)
    assert layer in rows[0]["Detail"]
    assert by_volatility(rows) == expected
    code, _, err = run(RBU, "scan", dump)
    assert code == (0 if is_read else 5)
    assert is_read or "vol -p examples/volatility3 -f " in err


def test_any_alignment(there: Path) -> None:
    part = bytes(777) + IMAGE + bytes(2 * PAGE_SIZE)
    part += bytes(-len(part) % PAGE_SIZE)
    dump = there / "off.dmp"
    dump.write_bytes(windows_crash_dump({2 * MIB: part}))
    rows = json.loads(vol(there, dump, "--any-alignment")[1])
    assert [(row["Finding"], row["Address"]) for row in rows[1:]] == [("image", 2 * MIB + 777)]


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"KDUMP   ", "does not read a compressed dump of makedumpfile"),
        (b"EMiL\7\0\0\0", "can't read this LiME"),
    ],
    ids=["makedumpfile", "LiME 7"],
)
def test_what_volatility_takes_for_raw_and_is_not_is_refused(
    there: Path, head: bytes, says: str
) -> None:
    dump = there / "other"
    dump.write_bytes(head.ljust(MIB, b"\0"))
    code, out, err = vol(there, dump)
    assert code != 0
    assert says in out + err


def test_a_vmware_machine_without_its_table_is_refused(there: Path) -> None:
    dump = there / "broken.vmem"
    dump.write_bytes(bytes(MIB))
    dump.with_suffix(".vmss").write_bytes(b"no table")
    code, out, err = vol(there, dump)
    assert code != 0
    assert "vmss" in out + err
