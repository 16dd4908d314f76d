"""What the driver does when the RAM is a file on a disk that takes no more bytes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rigs.driver import DEVICE, FIRMWARE, InProcess, cat, pattern, stage
from rigs.small_disks import no_writes


@pytest.mark.parametrize(("kind", "packet_size"), [(b"mono", b"0"), (b"packet", b"4096")])
def test_an_image_that_can_not_be_written_is_not_staged_and_its_pages_are_free_again(
    tmp_path: Path, kind: bytes, packet_size: bytes
) -> None:
    machine = InProcess(tmp_path)
    machine.load_module()
    machine.write(f"{DEVICE}/image_type", kind)
    machine.write(f"{DEVICE}/packet_size", packet_size)
    free_bytes = machine.free_bytes()
    machine.write(f"{FIRMWARE}/loading", b"1")
    machine.write(f"{FIRMWARE}/data", pattern(20_000))
    with no_writes() as forbid:
        forbid()
        with pytest.raises(OSError, match="File too large") as refused:
            machine.write(f"{FIRMWARE}/loading", b"0")
    assert refused.value.errno == errno.EFBIG
    assert machine.driver.staged_blocks == ()
    assert machine.driver.staged_size_bytes == 0
    assert machine.free_bytes() == free_bytes
    machine.write(f"{DEVICE}/image_type", b"init")
    stage(machine, pattern(8000, seed=2))
    assert cat(machine, f"{DEVICE}/data") == pattern(8000, seed=2)
