"""Files of a Linux that may be missing, read from a tree and from a virtual machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.hosts.linux import LinuxHost
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.files import names_in, number_of, text_of
from rigs.machines import make, running


def test_the_names_in_a_directory_are_sorted_and_none_where_there_is_none(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / "sys" / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    host = LinuxHost(tmp_path)
    assert names_in(host, "/sys") == ("a", "b", "c")
    assert names_in(host, "/nothing") == names_in(host, "/file") == ()
    with pytest.raises(FileNotFoundError):
        host.names("/nothing")


def test_a_virtual_machine_shows_the_names_in_its_directories(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        assert "reboot" in host.names("/sys/kernel")
        assert names_in(host, "/etc") == ()
        with pytest.raises(OSError, match="/sys/nothing"):
            host.names("/sys/nothing")


@pytest.mark.parametrize(
    ("content", "text", "number"),
    [(b"7\n", "7", 7), (b" -1 \n", "-1", -1), (b"seven\n", "seven", None), (b"", "", None)],
)
def test_text_and_numbers_are_read_without_the_blanks_around(
    tmp_path: Path, content: bytes, text: str, number: int | None
) -> None:
    (tmp_path / "f").write_bytes(content)
    assert text_of(LinuxHost(tmp_path), "/f") == text
    assert number_of(LinuxHost(tmp_path), "/f") == number
    assert text_of(LinuxHost(tmp_path), "/g") is None
    assert number_of(LinuxHost(tmp_path), "/g") is None
