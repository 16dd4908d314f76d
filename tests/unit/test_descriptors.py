"""Which of some open files can be read."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator

import pytest

from openrbu.system.descriptors import readable
from rigs.needs import leave_out

HIGH = 1024
"""The first descriptor that select(2) does not take."""


@pytest.fixture
def high() -> Iterator[None]:
    """In the test this process may have more descriptors than select(2) takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * HIGH:
        leave_out("this user may not have 2,048 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * HIGH), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("high")
def test_what_can_be_read_is_told_whatever_its_number() -> None:
    with_words, silent, ended = os.pipe(), os.pipe(), os.pipe()
    moved = fcntl.fcntl(with_words[0], fcntl.F_DUPFD_CLOEXEC, HIGH)
    os.close(ended[1])
    try:
        assert readable([silent[0]], 0) == []
        assert readable([moved, silent[0]], 0) == []
        os.write(with_words[1], b"words")
        assert readable([moved, silent[0]]) == [moved]
        assert readable([moved, silent[0], ended[0]], 60) == [moved, ended[0]]
        with os.fdopen(with_words[0], "rb", closefd=False) as file:
            assert readable([file]) == [file]
    finally:
        for each in (moved, *with_words, *silent, ended[0]):
            os.close(each)
