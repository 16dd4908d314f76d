"""Random sequences of operations on dell_rbu, for hypothesis.

A sequence is rule-free: any operation may come at any moment. So that deep states are common all
the same, most of it is *stagings*, the few operations that bring an image into the driver and back
out, with others thrown in between them.

What is kept out, because it says nothing about the driver or kills the kernel:

- Offsets of 2 GiB and up in the firmware `data` (an oops), and images that don't fit into the
  guest's memory. `Scale` bounds images, and how many packets they come to.
- Large values of `allocation_floor`: the driver takes all memory in search of a page above it.
- Short timeouts: the profile's never run out.
- Calls without a pause after what the kernel does in the background: `WaitForDriver` follows those.

The gap that a sparse load leaves is *not* kept out. It is undefined in general, but Debian's kernel
clears each page that it hands out (CONFIG_INIT_ON_ALLOC_DEFAULT_ON), and the profile has zeros.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import strategies as st

from openrbu.lab.calls import (
    Call,
    Exists,
    ListDir,
    Load,
    Read,
    ReadLink,
    Send,
    SetMode,
    SpliceIn,
    Stat,
    Unload,
    WaitForDriver,
    Write,
)
from openrbu.units import KIB, MIB, PAGE_SIZE
from rigs.driver import DEVICE, FIRMWARE, FLOOR, pattern

MODULE = "dell_rbu"
CLASS = "/sys/class/firmware"
IMAGE_TYPE, PACKET_SIZE, STAGED = (f"{DEVICE}/{n}" for n in ("image_type", "packet_size", "data"))
LOADING, DATA, TIMEOUT = f"{FIRMWARE}/loading", f"{FIRMWARE}/data", f"{CLASS}/timeout"

Operation = tuple[Call, ...]
"""What counts as one: a call with the wait after it, or all calls of one `cp` or `cat`."""

Sequence = list[Operation]


@dataclass(frozen=True)
class Scale:
    """How large things are in one sequence: at least `min_packet_bytes` and at most `max_bytes`, so
    that there are never more than some hundred packets."""

    packet_sizes: tuple[int, ...]
    image_sizes: tuple[int, ...]
    max_bytes: int
    min_packet_bytes: int


def _around(*sizes: int) -> tuple[int, ...]:
    return tuple(size + more for size in sizes for more in (-1, 0, 1))


FINE = Scale((1, 2, 3, 7, 64, 100, 4096), (0, 1, 2, 3, 63, 64, 65, 200, 300), 300, 1)
PAGES = Scale(
    (*_around(512, 4096, 8192, 12288, 16384), 1000, 20000),
    (0, 1, 100, *_around(512, 4096, 8192, 3 * 4096, 16384, 24576, 32768, 61440, 65536)),
    100 * KIB,
    511,
)
LARGE = Scale(
    _around(64 * KIB, 1 * MIB, 2 * MIB, 4 * MIB),
    (*_around(256 * KIB, 512 * KIB, 1 * MIB, 2 * MIB, 4 * MIB), 5 * MIB),
    5 * MIB,
    64 * KIB - 1,
)
SCALES = [FINE] * 12 + [PAGES] * 30 + [LARGE]

IMAGE_TYPES = (b"mono", b"packet", b"init", b"mono\n", b"packet\n", b"init\n")
ODD_IMAGE_TYPES = (
    *(b"", b"\n", b" ", b"x", b"moni\n", b"MONO\n", b" mono\n", b"\nmono", b"packets\n"),
    *(b"monopacket\n", b"packetmono\n", b"initmono\n", b"packetinit\n", b"mono packet\n"),
    *(b"init packet\n", b"xmonox\n", b"x" * 20 + b"mono\n", b"mono\0packet", b"x\0mono"),
    *(b"\0mono", b"\tmono\n", b"\xffpacket", b"p" * 4095 + b"packet", b"x" * 4090 + b"packet"),
    *(b"packet" + b" " * 4090, b"mono" + b"\n" * 5000),
)
ODD_PACKET_SIZES = (
    *(b"", b"\n", b"many", b" 512", b"512 ", b"512\n\n", b"512x", b"+512", b"-512", b"+-512"),
    *(b"0x200", b"00512\n", b"512.5", b"512\0", b"\0512", b"512\n7", b"\xff", b"0", b"0\n", b"-0"),
    *(b"4294967294", b"4294967295", b"4294967296", b"4294967808", b"18446744073709551615"),
    *(b"18446744073709551616", b"9" * 30, b"0" * 30 + b"512", b"0" * 4095 + b"512"),
)
LOADINGS = (b"1", b"1\n", b"0", b"0\n", b"-1", b"-1\n")
ODD_LOADINGS = (
    *(b"", b"\n", b"x", b" 1", b"+1", b"1x", b"01\n", b"-0", b"--1", b"-", b"2", b"-2", b"11"),
    *(b"0x1", b"1\n0", b"1\0x", b"4294967297", b"4294967296", b"-4294967297", b"2147483648"),
    *(b"9223372036854775809", b"18446744073709551617", b"18446744073709551616", b"9" * 30),
    *(b"-18446744073709551617", b"0" * 30 + b"1", b"1" + b"\n" * 5000),
)
TIMEOUTS = (
    *(b"60", b"60\n", b"10\n", b"0", b"-1\n", b"", b"x", b" 60", b"+60", b"60x", b"0x60", b"-60"),
    *(b"2147483647", b"2147483648", b"4294967295", b"4294967296", b"4294967356", b"-2147483649"),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551676", b"9" * 30),
)
FLOORS = (
    *(b"0", b"1048576\n", b"0x100000", b"0X1000\n", b"010", b"4096", b"2097152", b"+4096"),
    *(b"", b"\n", b"-1", b"x", b"0x", b"09", b" 0", b"0 ", b"0\n\n", b"18446744073709551616"),
    *(b"9" * 30, b"0\0"),
)
PARAMETERS = (
    *({}, {}, {"image_type": "mono"}, {"image_type": "packet"}, {"image_type": "packet"}),
    *({"image_type": "init"}, {"image_type": ""}, {"image_type": "monolith"}, {"image_type": "x"}),
    *({"image_type": "a b"}, *({"image_type": "x" * length} for length in (15, 16, 17))),
    *({"allocation_floor": text} for text in ("0", "4096", "0x200000", "010", "+7", "-1", "x", "")),
    *({"allocation_floor": text} for text in ("09", "1_0", "18446744073709551616")),
    {"image_type": "packet", "allocation_floor": "2097152"},
)

TEXTS = tuple(f"{DEVICE}/{name}" for name in ("uevent", "modalias")) + tuple(
    f"/sys/module/{MODULE}/{name}" for name in ("refcnt", "version", "initstate", "coresize")
)
MISSING = (
    *(f"{DEVICE}/none", f"{FIRMWARE}/none", f"{CLASS}/none/loading", f"{STAGED}/none"),
    *(f"/sys/module/{MODULE}/parameters/image_type", f"/sys/bus/platform/drivers/{MODULE}"),
    *("/sys/class/firmware/dell_rbu/../none", f"{CLASS}/timeout/none"),
)
DIRECTORIES = (DEVICE, f"{DEVICE}/firmware", FIRMWARE, CLASS, f"{FIRMWARE}/power")
LINKS = (FIRMWARE, f"{FIRMWARE}/device", f"{FIRMWARE}/subsystem", f"{DEVICE}/subsystem")
FILES = (IMAGE_TYPE, PACKET_SIZE, STAGED, LOADING, DATA, TIMEOUT, FLOOR, f"{FIRMWARE}/uevent")

EVENTS = (
    *(
        b"add",
        b"remove\n",
        b"change",
        b"online",
        b"bind\0",
        b"junk",
        b"ADD",
        b" add",
        b"add ",
        b"\n",
    ),
    *(b"add 1", b"add 12345678-1234-1234-1234-123456789abc", b"add\nadd", b"add" * 1500),
    b"move 12345678-1234-1234-1234-123456789ABC A=1 b=c\n",
)
UEVENTS = tuple(f"{directory}/uevent" for directory in (DEVICE, FIRMWARE, f"/sys/module/{MODULE}"))
MODES = (0o644, 0o600, 0o444, 0o755, 0o4755)
"""All can be read: `WaitForDriver` reads."""

READ_SIZES = (4096, 4096, 4096, 1, 2, 3, 0, 10, 511, 1000, 4095, 4097, 8192, 100_000)
OFFSETS = (0, 0, 0, 0, 1, 2, 3, 7, 100, 511, 512, 4095, 4096, 4097, 5000, 8192, 65_536, 8 * MIB)

AFTER: Operation = (WaitForDriver(), Exists(LOADING))
"""What follows each operation that makes an entry or takes it away."""

INVENTORY: list[Call] = [
    *(Exists(path) for path in FILES),
    *(Stat(path) for path in FILES + LINKS + DIRECTORIES),
    *(ListDir(path) for path in DIRECTORIES),
    *(ReadLink(path) for path in LINKS),
    *(Read(path) for path in (*FILES, *TEXTS)),
]
"""What is looked at after each sequence."""


# -- one operation --------------------------------------------------------------------------


def set_type(text: bytes, offset: int = 0) -> Operation:
    return Write(IMAGE_TYPE, text, offset), *AFTER


def set_loading(text: bytes, offset: int = 0) -> Operation:
    return Write(LOADING, text, offset), *AFTER


def set_packet_size(text: bytes, offset: int = 0) -> Operation:
    return (Write(PACKET_SIZE, text, offset),)


def load(parameters: dict[str, str]) -> Operation:
    return Load(MODULE, parameters), *AFTER


UNLOAD: Operation = (Unload(MODULE), *AFTER)


def copy_out(path: str, size_bytes: int, chunk_bytes: int) -> Operation:
    """As `cat`: reads until there should be nothing, and once more."""
    reads = -(-size_bytes // chunk_bytes) + 2
    return tuple(Read(path, number * chunk_bytes, chunk_bytes) for number in range(reads))


def _numbers(sizes: tuple[int, ...]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda size, end: f"{size}".encode() + end,
        st.sampled_from(sizes),
        st.sampled_from([b"\n", b""]),
    )


_somewhere = st.sampled_from((0, 0, 0, 0, 1, 5, 4096))


def _reads(scale: Scale) -> st.SearchStrategy[Operation]:
    offsets = st.sampled_from(OFFSETS) | st.integers(0, scale.max_bytes)
    sizes = st.sampled_from(READ_SIZES) | st.integers(0, 5000)
    paths = st.sampled_from([STAGED] * 8 + [DATA] * 3 + [LOADING] * 2 + list(FILES))
    return st.tuples(
        st.builds(Read, paths, offsets, sizes) | st.builds(Send, paths, offsets, sizes)
    )


def _data_writes(scale: Scale) -> st.SearchStrategy[Operation]:
    """One write of any size at any place."""
    offsets = st.sampled_from((0, 0, 0, 1, 100, 4095, 4096)) | st.integers(0, scale.max_bytes)
    return st.tuples(
        st.builds(
            lambda kind, offset, size, seed: kind(
                DATA,
                pattern(min(size, max(1, scale.max_bytes - offset)), seed),
                min(offset, scale.max_bytes),
            ),
            st.sampled_from((Write, Write, SpliceIn)),
            offsets,
            st.sampled_from((0, 1, 3, 100, 1000, 4095, 4096, 4097, 9000)) | st.integers(0, 5000),
            st.integers(1, 255),
        )
    )


def _looks() -> st.SearchStrategy[Operation]:
    """At what is there, without changing it."""
    anything = st.sampled_from(FILES + DIRECTORIES + LINKS + MISSING + TEXTS)
    return st.tuples(
        st.builds(Exists, anything)
        | st.builds(Stat, anything)
        | st.builds(ListDir, st.sampled_from(DIRECTORIES + FILES + MISSING))
        | st.builds(ReadLink, st.sampled_from(LINKS + FILES + MISSING))
        | st.builds(Read, st.sampled_from(TEXTS), st.sampled_from(OFFSETS), st.just(4096))
        | st.builds(Read, anything)
        | st.builds(Write, st.sampled_from((*DIRECTORIES, *MISSING)), st.just(b"1"))
        | st.builds(Send, anything)
        | st.builds(SpliceIn, st.sampled_from((*DIRECTORIES, *MISSING, *TEXTS)), st.just(b"1"))
    )


def operations(scale: Scale) -> st.SearchStrategy[Operation]:
    """Any operation at all; the ones that lead on come more often."""
    return st.one_of(
        _reads(scale),
        _reads(scale),
        _data_writes(scale),
        st.builds(set_type, st.sampled_from(IMAGE_TYPES)),
        st.builds(set_type, st.just(b"init")),
        st.builds(set_type, st.sampled_from(ODD_IMAGE_TYPES), _somewhere),
        st.builds(set_packet_size, _numbers(scale.packet_sizes)),
        st.builds(set_packet_size, st.sampled_from(ODD_PACKET_SIZES), _somewhere),
        st.builds(set_loading, st.sampled_from(LOADINGS)),
        st.builds(set_loading, st.sampled_from(LOADINGS + ODD_LOADINGS), _somewhere),
        st.tuples(st.builds(Write, st.just(TIMEOUT), st.sampled_from(TIMEOUTS), _somewhere)),
        st.tuples(st.builds(Write, st.just(FLOOR), st.sampled_from(FLOORS), _somewhere)),
        _looks(),
        _looks(),
        _changes(),
        st.just(UNLOAD),
        st.builds(
            lambda parameters: (Load(MODULE, parameters), *AFTER), st.sampled_from(PARAMETERS)
        ),
    )


# -- a staging ------------------------------------------------------------------------------


@st.composite
def copies_in(draw: st.DrawFn, size_bytes: int) -> Operation:
    """An image written to `data`: whole or with a piece left out, in order or not."""
    image = pattern(size_bytes, draw(st.integers(1, 255)))
    sizes = [4096, 4096, 4096, 4095, 1000] if size_bytes > 64 else [1, 7, 4096]
    chunk_bytes = max(draw(st.sampled_from(sizes)), min(size_bytes // 500, PAGE_SIZE))
    writes = [
        Write(DATA, image[start : start + chunk_bytes], start)
        for start in range(0, size_bytes, chunk_bytes)
    ]
    order = draw(st.sampled_from(["in order"] * 5 + ["backwards", "shuffled", "with a gap"]))
    if order == "backwards":
        writes.reverse()
    elif order == "shuffled":
        random.Random(size_bytes).shuffle(writes)
    elif order == "with a gap" and writes:
        del writes[draw(st.integers(0, len(writes) - 1))]
    return tuple(writes)


@st.composite
def stagings(draw: st.DrawFn, scale: Scale) -> Sequence:
    """`init`, a load and the reading back, with operations thrown in anywhere."""
    size_bytes = draw(st.sampled_from(scale.image_sizes))
    made: Sequence = []
    kind = draw(st.sampled_from([b"packet", b"packet", b"mono", b""]))
    if kind:
        made.append(set_type(kind))
    if kind == b"packet" and draw(st.integers(0, 9)):
        packet_bytes = draw(st.sampled_from(scale.packet_sizes))
        made.append(set_packet_size(f"{packet_bytes}\n".encode()))
        if draw(st.booleans()):  # a last packet that is full, or nearly
            count = max(1, min(size_bytes, scale.max_bytes) // packet_bytes)
            size_bytes = min(
                scale.max_bytes, count * packet_bytes + draw(st.sampled_from([-1, 0, 1]))
            )
    made.append(set_type(b"init"))
    if not draw(st.integers(0, 5)):  # too early: it is taken, and thrown away by `1`
        made.append((Write(DATA, b"early"), Read(DATA)))
    made.append(set_loading(b"1\n"))
    if copied := draw(copies_in(max(0, size_bytes))):
        made.append(copied)
    end = draw(st.sampled_from([b"0\n"] * 9 + [b"-1\n"]))
    made.append(set_loading(end))
    for _ in range(draw(st.integers(0, 2))):
        chunk_bytes = draw(st.sampled_from([4096, 4096, 4095, 4097, 1000, 333, 10_000]))
        made.append(copy_out(STAGED, size_bytes, max(chunk_bytes, size_bytes // 1000)))
    for where, thrown_in in draw(
        st.lists(st.tuples(st.integers(0, 8), operations(scale)), max_size=3)
    ):
        made.insert(where, thrown_in)
    return made + draw(st.lists(_touches(scale), max_size=3))


def _touches(scale: Scale) -> st.SearchStrategy[Operation]:
    """What has to do with an image that is staged."""
    staged_reads = st.builds(
        Read,
        st.just(STAGED),
        st.sampled_from(OFFSETS) | st.integers(0, scale.max_bytes),
        st.sampled_from(READ_SIZES) | st.integers(0, 5000),
    )
    return st.one_of(
        st.tuples(staged_reads),
        st.tuples(staged_reads),
        st.tuples(staged_reads),
        st.just((Write(STAGED, b"x"),)),
        st.builds(set_packet_size, _numbers(scale.packet_sizes)),
        st.builds(set_packet_size, st.sampled_from(ODD_PACKET_SIZES)),
        st.builds(set_type, st.sampled_from(IMAGE_TYPES + ODD_IMAGE_TYPES)),
        st.just(UNLOAD),
    )


def try_text(path: str, text: bytes) -> Operation:
    """Write it, and read the file. To `loading`, on an entry of its own, as most texts end it."""
    before = set_type(b"init") if path == LOADING else ()
    return *before, Write(path, text), *AFTER, Read(path)


ODD_TEXTS = tuple(
    (path, text)
    for path, texts in (
        (IMAGE_TYPE, ODD_IMAGE_TYPES),
        (PACKET_SIZE, ODD_PACKET_SIZES),
        (LOADING, ODD_LOADINGS),
        (TIMEOUT, TIMEOUTS),
        (FLOOR, FLOORS),
    )
    for text in texts
)

EVERY_TEXT: Sequence = [try_text(path, text) for path, text in ODD_TEXTS]
"""Each text once: there are too many for all of them to come up at random."""


def _changes() -> st.SearchStrategy[Operation]:
    """Of a mode, and of it and back; an event that is none, or one that nobody hears."""
    paths = st.sampled_from((IMAGE_TYPE, PACKET_SIZE, STAGED, LOADING, DATA, f"{DEVICE}/uevent"))
    return st.one_of(
        st.tuples(st.builds(SetMode, paths, st.just(0o644))),
        st.builds(
            lambda path, mode, text: (
                SetMode(path, mode),
                Stat(path),
                Write(path, text),
                *AFTER,
                Read(path),
                SetMode(path, 0o644),
            ),
            st.sampled_from((IMAGE_TYPE, PACKET_SIZE, STAGED)),
            st.sampled_from((*MODES, 0, 0o200, 0o111)),
            st.sampled_from((b"mono", b"512")),
        ),
        st.tuples(st.builds(Write, st.sampled_from(UEVENTS), st.sampled_from(EVENTS))),
        st.tuples(st.builds(SetMode, st.sampled_from(MISSING + DIRECTORIES), st.just(0o755))),
    )


def texts() -> st.SearchStrategy[Sequence]:
    """Texts that the files take or not."""
    tries = st.sampled_from(ODD_TEXTS).map(lambda pair: try_text(*pair))
    return st.lists(tries, min_size=3, max_size=12)


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    """A sequence, to be started with the module just loaded and nothing staged."""
    scale = draw(st.sampled_from(SCALES))
    anything = st.lists(operations(scale), min_size=1, max_size=8)
    parts = st.one_of(stagings(scale), stagings(scale), stagings(scale), anything, texts())
    return [each for part in draw(st.lists(parts, min_size=1, max_size=5)) for each in part]
