"""A sequence of system calls as a shell script that anyone can paste, with what came of each."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from openrbu.lab.calls import (
    Call,
    Exists,
    LinkStatus,
    ListDir,
    Load,
    Read,
    ReadLink,
    Result,
    Send,
    SetMode,
    SpliceIn,
    Stat,
    Unload,
    WaitForDriver,
    Write,
)

_HEAD = """\
#!/bin/sh
# As root, on a kernel with dell_rbu and nothing staged. One line is one system call on the file,
# and below it is what it came to.
rd() { dd if="$1" skip="$2" bs="$3" count=1 iflag=skip_bytes status=none | od -A d -t x1z; }
wr() { dd of="$1" seek="$2" bs="$3" count=1 iflag=fullblock oflag=seek_bytes conv=notrunc \\
  status=none; }
py() { python3 -c "import os, sys; f, o, n = sys.argv[1], *map(int, sys.argv[2:])
$1" "$2" "$3" "$4"; }
snd() { py 'os.sendfile(1, os.open(f, 0), o, n)' "$@" | od -A d -t x1z; }
spl() { py 'os.splice(0, os.open(f, 1), n, offset_dst=o)' "$@"; }
test ! -e /sys/class/firmware/dell_rbu || echo -1 > /sys/class/firmware/dell_rbu/loading
rmmod dell_rbu 2>/dev/null; modprobe dell_rbu
"""

_MOST_SHOWN_BYTES = 32


@dataclass(frozen=True)
class Difference:
    """Calls, and what each came to on the kernel and in the profile. Without results it is no
    difference, but what a guest was lost in."""

    calls: list[Call]
    kernel: list[Result]
    profile: list[Result]

    def until_first(self, kept: int) -> Difference:
        """The first `kept` calls, and the first one that differs where that is behind them;
        nothing behind that."""
        pairs = enumerate(zip(self.kernel, self.profile, strict=True))
        first = next(index for index, (kernel, profile) in pairs if kernel != profile)
        which = [*range(min(first, kept)), first]
        return Difference(
            [self.calls[index] for index in which],
            [self.kernel[index] for index in which],
            [self.profile[index] for index in which],
        )


def as_script(difference: Difference) -> str:
    """The script."""
    return _HEAD + "".join(f"{line}\n" for line in _lines(difference))


def _lines(difference: Difference) -> Iterator[str]:
    for call, kernel, profile in zip_longest(
        difference.calls, difference.kernel, difference.profile
    ):
        yield _command(call)
        if kernel is None or profile is None:
            continue
        if kernel == profile:
            yield f"#   both: {_shown(kernel)}"
            continue
        yield f"#   kernel:  {_shown(kernel)}"
        yield f"#   profile: {_shown(profile)}"
        if isinstance(kernel.value, bytes) and isinstance(profile.value, bytes):
            yield f"#   {_first_difference(kernel.value, profile.value)}"
        yield "#   THIS DIFFERS"


def _command(call: Call) -> str:  # noqa: C901, PLR0911, PLR0912 - one for each kind of call
    match call:
        case Read(path, offset, 0):
            return f"# read 0 bytes at {offset} of {path} (dd can't)"
        case Read(path, offset, size_bytes):
            return f"rd {shlex.quote(path)} {offset} {size_bytes}"
        case Write(path, b"", offset):
            return f"# write 0 bytes at {offset} to {path} (dd can't)"
        case Write(path, data, offset):
            return f"printf '{_octal(data)}' | wr {shlex.quote(path)} {offset} {len(data)}"
        case Send(path, offset, size_bytes):
            return f"snd {shlex.quote(path)} {offset} {size_bytes}"
        case SpliceIn(path, data, offset):
            return f"printf '{_octal(data)}' | spl {shlex.quote(path)} {offset} {len(data)}"
        case SetMode(path, mode):
            return f"chmod {mode:o} {shlex.quote(path)}"
        case Exists(path):
            return f"test -e {shlex.quote(path)} && echo there"
        case ListDir(path):
            return f"ls -A {shlex.quote(path)}/"
        case Stat(path):
            return f"stat -c '%f %s' {shlex.quote(path)}"
        case ReadLink(path):
            return f"readlink {shlex.quote(path)}"
        case Load(module, parameters):
            words = [shlex.quote(f'{name}="{value}"') for name, value in parameters.items()]
            return " ".join([f"modprobe {module}", *words])
        case Unload(module):
            return f"rmmod {module}"
        case WaitForDriver():
            return "sleep 0.1"


def _octal(data: bytes) -> str:
    """For printf: letters and digits as they are, all else as octal numbers."""
    return "".join(
        chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else f"\\{byte:03o}"
        for byte in data
    )


def _shown(result: Result) -> str:
    if result.errno is not None:
        return errno.errorcode.get(result.errno, str(result.errno))
    value = result.value
    if isinstance(value, LinkStatus):
        return f"{value.mode:x} {value.size_bytes}"
    if not isinstance(value, bytes):
        return "done" if value is None else str(value)
    shown = f"{len(value)} bytes: {value[:_MOST_SHOWN_BYTES].hex(' ')}"
    return f"{shown} …" if len(value) > _MOST_SHOWN_BYTES else shown


def _first_difference(kernel: Sequence[int], profile: Sequence[int]) -> str:
    pairs = zip(kernel, profile, strict=False)
    where = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
    if where is None:
        return f"{len(kernel)} bytes and {len(profile)} bytes, the same as far as they go"
    return f"first at byte {where}: {kernel[where]:#04x} and {profile[where]:#04x}"
