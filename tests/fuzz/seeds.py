"""What the fuzzer begins with: small files of each format, by the makers that the tests use.

The makers are imported when they are called, so that the fuzzer does not look at them.
"""

from __future__ import annotations

import json
import lzma
import struct
from pathlib import Path

from openrbu.drivers.states import DellRbuState
from openrbu.dumps.packed import stream_kind
from openrbu.formats import packet
from openrbu.formats.smbios import Tables
from openrbu.own_driver.own_memory import HugePagesRecord, PageFile, PoolBefore
from openrbu.own_driver.store import DriverRecord
from openrbu.typed_json import to_text

_GOLDEN = Path(__file__).parents[1] / "data" / "states"


def images() -> list[bytes]:
    from rigs.package_makers import image_of

    return [image_of(b"flash" * 700), image_of(b"a", "1.2.3", 0x0221)]


def packet_sets() -> list[bytes]:
    image, _ = images()
    return [
        bytes(packet.split(image, packet_size_bytes=2048, set_id=7, password_crc=crc))
        for crc in (None, 0x12345678)
    ]


def packages() -> list[bytes]:
    from rigs import package_makers as makers

    image, _ = images()
    return [
        makers.gzip_of(image),
        makers.bzip2_of(image),
        makers.lzma_alone_of(image),
        makers.tar_of(("a.hdr", image)),
        makers.zip_of(("a.hdr", image)),
        makers.client_exe(image),
        makers.lvfs_cabinet(),
        makers.pfs_exe(),
        makers.uefi_capsule(),
    ]


def policies() -> list[bytes]:
    """One with everything in it."""
    return [
        b'schema = 1\n[systems.0x0121]\nname = "x"\ntarget = "A10"\nallow_downgrade = false\n'
        b'steps = [{ from = "..A06", via = "A07" }, { from = "2.1.0..", via = "2.3.0" }]\n'
        b"power = { minimum_battery_percent = 40, needs_mains = true }\n"
        b'[systems.0x0121.images]\nA07 = "' + b"07" * 32 + b'"\n'
        b'[pinned]\nABC1234 = "why"\n'
        b'[[windows]]\ndays = ["sat"]\nstart = "22:00"\nend = "04:00"\nzone = "UTC"\n'
    ]


def manifests() -> list[bytes]:
    from rigs.package_makers import manifest_of

    return [manifest_of().encode(), manifest_of(minimum="A04").encode("utf-16")]


def tables() -> list[Tables]:
    from rigs.made_tables import dell_tables, some_tables

    return [some_tables(), dell_tables(system_id=0x0121, product="PowerEdge 2650", packets=True)]


def dumps() -> list[bytes]:
    from rigs.dumps import FORMATS

    ram = {0: bytes(0x1000), 0x100000: packet_sets()[0][:0x2000]}
    return [data for make in FORMATS.values() if len(data := make(ram)) < 0x8000]


def streams() -> list[bytes]:
    return [each for each in (*packages()[:3], *dumps()) if stream_kind(each[:64])]


def memories() -> list[bytes]:
    image, _ = images()
    in_pages = packet.split(image, packet_size_bytes=4096, set_id=7, password_crc=None)
    return [image, bytes(in_pages)]


def states() -> list[bytes]:
    """States of machines as older versions saved them, and one of openrbu's own driver."""
    names = ("armed-by-one-block", "armed-by-packets", "half-way")
    saved = [_GOLDEN / folder / name for folder in ("0.2.0", "format-2") for name in names]
    files = [each / "state.json" for each in saved if each.is_dir()]
    configs = [each / "machine.json" for each in saved[:1]]
    kept = [each / "nvram.json" for each in saved[:1]]
    return [each.read_bytes() for each in (*files, *configs, *kept)] + [_own_record()]


def _own_record() -> bytes:
    pages = HugePagesRecord(
        "huge_pages",
        "/dev/hugepages",
        is_our_mount=False,
        pools=(PoolBefore("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", 0),),
        files=(PageFile("openrbu-1", 2 << 20, ((0, 0x40000000), (1, 0x40200000))),),
        allocated=((0, 0x40000, 3, 1),),
    )
    rows = ((0x40000000, 0, 4096, 3),)
    driver = DellRbuState("dell_rbu", "packet", 4096, 1 << 20, rows, False, 0, True)
    record = DriverRecord(
        1, "1eb69a98", "ready", is_kept=True, is_flushed=True, driver=driver, memory=pages
    )
    return to_text(record).encode()


def saved_rows() -> list[bytes]:
    rows = [(0, 0x400, 3, 1), (10, 0x800, 2, 0x400), (3, 0x1000, 1, 0)]
    return [b"".join(struct.pack("<QQQQ", *row) for row in rows)]


def bzimages() -> list[bytes]:
    image = bytearray(0x400)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    packed = lzma.compress(b"\x7fELF" + bytes(100))
    image[0x248:0x250] = struct.pack("<II", 0, len(packed))
    return [bytes(image) + packed]


def kcores() -> list[bytes]:
    from rigs.dumps import elf

    ram = {0x1000: bytes(0x1000), 0x100000: bytes(0x2000)}
    iomem = b"00001000-00001fff : System RAM\n00100000-00101fff : System RAM\n"
    return [iomem + b"\0" + elf(ram, virtual=0xFFFF888000000000)]


def journals() -> list[bytes]:
    line = {"schema": 1, "id": "a", "event": "started", "at": "2026-11-29T04:00:00+00:00"}
    more = {**line, "sha256": "00", "from_version": "A05", "to_version": "A06", "mode": "packet"}
    return [json.dumps(line).encode() + b"\n", json.dumps(more).encode() + b"\n"]


def messages() -> list[bytes]:
    header = json.dumps({"calls": [{"call": "read", "with": {"path": "x", "size": 1}}]}).encode()
    return [struct.pack(">II", len(header), 0) + header]


def shown_texts() -> list[bytes]:
    return [
        b"A06",
        b"1.2.3",
        b"reboot=warm,pci lockdown=integrity",
        b"MemTotal:  1000 kB\nHugepagesize: 2048 kB",
        b"none [integrity] confidentiality",
        b"Node 0, zone  Normal  1  2  3  4  5  6  7  8  9  1",
    ]


def memory_dump(tables: Tables) -> bytes:
    """As dmidecode writes it: the entry point, and the tables from byte 32 on."""
    return tables.entry_point.build().ljust(32, b"\0") + table(tables)


def table(tables: Tables) -> bytes:
    return b"".join(each.build() for each in tables.structures)
