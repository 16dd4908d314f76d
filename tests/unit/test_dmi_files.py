"""What Linux shows of SMBIOS tables; every expectation here was seen on Debian's 6.1.192."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from openrbu.drivers.dmi import add_dmi
from openrbu.drivers.sysfs import Caller, SysfsTree
from openrbu.errors import KernelError
from openrbu.formats import smbios
from rigs.machines import make, running

ID = "/class/dmi/id"
UUID = bytes(range(16))


def tree_of(*structures: tuple[int, bytes, Sequence[str]]) -> SysfsTree:
    """A tree with the files of a machine with these structures: type, fields, strings."""
    made = [
        smbios.make_structure(kind, number, body, strings)
        for number, (kind, body, strings) in enumerate(structures)
    ]
    tables = smbios.make_tables(smbios.make_entry_point(version=(2, 8)), made)
    tree = SysfsTree()
    add_dmi(tree, *tables.build())
    return tree


def shown(tree: SysfsTree) -> dict[str, bytes]:
    """All files of the directory, and what is in them."""
    return {name: tree.read(f"{ID}/{name}") for name in tree.list(ID) if name != "subsystem"}


def test_a_bios_of_today_shows_its_releases() -> None:
    body = b"\1\2\0\xf0\3\1" + bytes(8) + b"\1\2" + b"\2\1" + b"\3\4"
    tree = tree_of((0, body, ["Phoenix", "A05", "01/02/2003"]))
    assert shown(tree) == {
        "bios_vendor": b"Phoenix\n",
        "bios_version": b"A05\n",
        "bios_date": b"01/02/2003\n",
        "bios_release": b"2.1\n",
        "ec_firmware_release": b"3.4\n",
    }


def test_a_release_that_is_not_told_has_no_file() -> None:
    body = b"\1\2\0\xf0\3\1" + bytes(8) + b"\1\2" + b"\0\0" + b"\xff\xff"
    tree = tree_of((0, body, ["Phoenix", "A05", "01/02/2003"]))
    assert tree.read(f"{ID}/bios_release") == b"0.0\n"
    assert not tree.exists(f"{ID}/ec_firmware_release")


def test_a_field_that_the_structure_is_too_short_for_has_no_file() -> None:
    tree = tree_of(
        (0, b"\1\2\0\xf0\3\1" + bytes(10), ["Phoenix", "A05 ", "01/02/2003"]),
        (1, b"\1\2\0\1", ["  Dell  Inc. ", " Name\xe9x "]),
        (2, b"\1\2\0\3", ["V", "N", "S"]),
        (3, b"\1\x83\1\0\2", ["Vend", "CTAG"]),
    )
    assert shown(tree) == {
        "bios_vendor": b"Phoenix\n",
        "bios_version": b"A05 \n",
        "bios_date": b"01/02/2003\n",
        "sys_vendor": b"  Dell  Inc. \n",
        "product_name": b" Name\xe9x \n",
        "product_version": b"\n",
        "product_serial": b"  Dell  Inc. \n",
        "board_vendor": b"V\n",
        "board_name": b"N\n",
        "board_version": b"\n",
        "board_serial": b"S\n",
        "chassis_type": b"3\n",
        "chassis_vendor": b"Vend\n",
        "chassis_version": b"Vend\n",
        "chassis_serial": b"\n",
        "chassis_asset_tag": b"CTAG\n",
    }


def test_a_string_that_is_not_there_or_all_blanks_is_an_empty_line() -> None:
    body = b"\1\x09\3\2" + UUID + b"\6\0\4"
    tree = tree_of((1, body, ["Dell", "TAG", "   ", "Fam\xe9\xffily"]))
    assert shown(tree) == {
        "sys_vendor": b"Dell\n",
        "product_name": b"\n",
        "product_version": b"\n",
        "product_serial": b"TAG\n",
        "product_sku": b"\n",
        "product_family": b"Fam\xe9\xffily\n",
    }


def test_serial_numbers_are_for_root_and_the_rest_for_everybody() -> None:
    body = b"\1\1\0\1\1"
    tree = tree_of((1, b"\1\1\0\1", ["x"]), (2, body, ["x"]), (3, b"\1\1\1\1\1", ["x"]))
    somebody = Caller(uid=1000, sys_rawio=False)
    secret = {"product_serial", "board_serial", "chassis_serial"}
    for name in shown(tree):
        seen = tree.stat(f"{ID}/{name}")
        assert seen.mode == stat.S_IFREG | (0o400 if name in secret else 0o444)
        assert seen.size_bytes == 4096
        if name in secret:
            with pytest.raises(KernelError, match="Permission denied"):
                tree.read(f"{ID}/{name}", caller=somebody)
        else:
            assert tree.read(f"{ID}/{name}", caller=somebody)


def test_the_directory_is_a_device_of_the_class() -> None:
    tree = tree_of((1, b"\1\0\0\0", ["Dell"]))
    assert tree.readlink(ID) == "../../devices/virtual/dmi/id"
    assert tree.readlink(f"{ID}/subsystem") == "../../../../class/dmi"
    assert tree.lookup(f"{ID}/subsystem") is tree.lookup("/class/dmi")


def test_the_tables_are_there_as_they_are_for_root_only() -> None:
    tree = SysfsTree()
    add_dmi(tree, b"no entry point", b"no tables")
    for name, data in (("smbios_entry_point", b"no entry point"), ("DMI", b"no tables")):
        path = f"/firmware/dmi/tables/{name}"
        assert tree.read(path) == data
        assert tree.stat(path).mode == stat.S_IFREG | 0o400
        assert tree.stat(path).size_bytes == len(data)
    assert not tree.exists(ID)


def test_a_virtual_machine_shows_its_own(tmp_path: Path) -> None:
    with running(make(tmp_path, "poweredge-2650", bios_version="A03")) as machine:
        kernel = machine.running_kernel()
        for name, text in (
            ("product_name", b"PowerEdge 2650\n"),
            ("bios_version", b"A03\n"),
            ("product_serial", b"OPENRBU\n"),
        ):
            assert kernel.read(f"/sys{ID}/{name}", 0, 99) == text
