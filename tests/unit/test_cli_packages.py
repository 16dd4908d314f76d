"""`rbu extract` and `rbu info` on each kind of package (docs/reference/packages.md, K1)."""

import gzip
import json
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats.loading import load_image
from rigs.cli import Cli, image_bytes, names_in
from rigs.images import IMAGE_STATES, image_named
from rigs.package_makers import (
    CUT,
    IMAGE,
    NOISE,
    OTHER,
    cabinet_of,
    client_exe,
    elf_of,
    gzip_of,
    image_of,
    installshield_exe,
    lvfs_cabinet,
    lzma_alone_of,
    manifest_of,
    pe_of,
    pfs_exe,
    precision_bin,
    server_bin,
    server_capsule,
    tar_of,
    uefi_capsule,
    zip_of,
)

XML = manifest_of("A06", minimum="A04", systems=("0121", "0135"))
OLD_MARKER = b"#####EndOfScriptFileMarker#"

HOLD_AN_IMAGE = {
    "8G, the image at the top": server_bin(gzip_of(tar_of(("PE2650A06.hdr", IMAGE))), XML),
    "9G, below Package": server_bin(gzip_of(tar_of(("Package/A06.hdr", IMAGE))), XML),
    "10G, the other marker": server_bin(gzip_of(tar_of(("A06.HDR", IMAGE))), marker=OLD_MARKER),
    "11G .BIN": server_bin(gzip_of(tar_of(("payload/R710.hdr", IMAGE))), XML),
    "13G .exe": pe_of()
    + zip_of(("package.xml", XML.encode("utf-16")), ("payload/R730.hdr", IMAGE)),
    "13G .exe, signed": pe_of() + zip_of(("payload/R730.hdr", IMAGE)) + NOISE,
    "client to 2010": client_exe(IMAGE),
    "in a cabinet": pe_of() + cabinet_of(("BiosHeader/A06.hdr", IMAGE)),
    "bare": b"anything" * 99 + IMAGE + NOISE,
}


@pytest.mark.parametrize("layout", HOLD_AN_IMAGE)
def test_the_image_in_each_kind_of_package_comes_out_byte_for_byte(rbu: Cli, layout: str) -> None:
    path = rbu.write("P.BIN", HOLD_AN_IMAGE[layout])
    document = rbu.json("extract", path, "-o", "out")
    assert names_in(Path("out")) == ["P-A06.hdr"]
    assert Path("out/P-A06.hdr").read_bytes() == IMAGE
    assert [each["state"] for each in document["images"]] == ["whole"]
    assert document["left_out"] == []
    assert rbu.json("info", path)["images"][0]["found_at"] == document["images"][0]["found_at"]


HOLD_NOTHING = {
    "14G .cap": (server_capsule(), "server_capsule", "14th generation", "iDRAC"),
    "14G .BIN": (
        server_bin(gzip_of(tar_of(("payload/R640.cap", server_capsule()))), XML),
        "server_capsule",
        "payload/R640.cap",
        "Lifecycle Controller",
    ),
    "14G .exe": (
        pe_of() + zip_of(("payload/R640.cap", server_capsule())),
        "server_capsule",
        "zip member payload/R640.cap",
        "iDRAC",
    ),
    "capsule": (uefi_capsule(), "capsule", "UEFI capsule", "fwupd"),
    "client from 2011": (pfs_exe(), "dell_pfs", "Dell PFS", "fwupd"),
    "bare PFS": (b"PFS.HDR." + NOISE, "dell_pfs", "Dell PFS", "fwupd"),
    "LVFS": (lvfs_cabinet(), "lvfs_cabinet", "cabinet for fwupd", "fwupdmgr"),
    "ThinOS": (lzma.compress(NOISE), "xz_without_image", "xz archive", "ThinOS"),
    "EFI program": (pe_of(subsystem=10) + NOISE, "efi_program", "UEFI program", "boot menu"),
    "UEFI only": (
        bytes(40) + b"_FVH" + lzma_alone_of(NOISE),
        "uefi_firmware",
        "UEFI firmware",
        "fwupd",
    ),
}


@pytest.mark.parametrize("layout", HOLD_NOTHING)
@pytest.mark.parametrize("command", ["extract", "info", "plan"])
def test_what_holds_nothing_for_rbu_is_named_with_what_to_do(
    rbu: Cli, layout: str, command: str
) -> None:
    data, _, what, advice = HOLD_NOTHING[layout]
    path = rbu.write("P.BIN", data)
    line = rbu.fails(3, command, path)
    assert "P.BIN: it has nothing for RBU: " in line
    assert what in line
    assert advice in line
    error = rbu.json(command, path, code=3)["error"]
    assert (error["kind"], error["exit_code"]) == ("not_for_rbu", 3)
    assert rbu.files == ["P.BIN"]


OTHERS_GET_IT_OUT = {
    "Precision .BIN": (precision_bin(), "a Linux program", "--WriteHDRFile"),
    "Precision ELF": (elf_of(b"--WriteHDRFile"), "a Linux program", "--WriteHDRFile"),
    "client program": (pe_of(b"/writehdrfile") + NOISE, "Windows or DOS", "-writehdrfile"),
    "in wide letters": (
        pe_of("-WriteHdrFile".encode("utf-16-le")),
        "Windows or DOS",
        "-writehdrfile",
    ),
    "InstallShield": (installshield_exe(), "zip member data1.cab is an InstallShield", "unshield"),
    "LZX": (cabinet_of(("A06.hdr", IMAGE), compression_name=0x1503), "LZX", "cabextract"),
}


@pytest.mark.parametrize("layout", OTHERS_GET_IT_OUT)
def test_what_another_program_has_to_take_apart_is_named_with_that_program(
    rbu: Cli, layout: str
) -> None:
    data, what, advice = OTHERS_GET_IT_OUT[layout]
    path = rbu.write("P.BIN", data)
    for command in ("extract", "info"):
        line = rbu.fails(4, command, path)
        assert what in line
        assert advice in line
    assert rbu.json("extract", path, code=4)["error"]["kind"] == "obstacle"


@pytest.mark.parametrize(
    "data", [elf_of(b"--help"), precision_bin(b"--help"), pe_of(b"/help"), NOISE]
)
def test_what_is_not_known_is_said_to_hold_no_image(rbu: Cli, data: bytes) -> None:
    assert "neither a BIOS image" in rbu.fails(5, "extract", rbu.write("P.BIN", data))


def test_a_damaged_archive_is_told_before_what_a_program_can_do(rbu: Cli) -> None:
    cut = pe_of(b"-writehdrfile") + gzip_of(image_of(NOISE))[:2000]
    assert "gzip at 2048 is damaged" in rbu.fails(5, "extract", rbu.write("P.EXE", cut))


def test_an_image_in_a_capsule_is_written_with_a_word_about_it(rbu: Cli) -> None:
    path = rbu.write("R640.cap", b"\x5a" * 84 + IMAGE)
    document = rbu.json("extract", path, "-o", "out")
    assert Path("out/R640-A06.hdr").read_bytes() == IMAGE
    assert "14th generation" in document["notes"][0]
    assert "14th generation" in rbu("info", path).out


# -- manifests ------------------------------------------------------------------------------


def test_what_a_package_says_of_itself_is_shown(rbu: Cli) -> None:
    path = rbu.write("P.BIN", HOLD_AN_IMAGE["8G, the image at the top"])
    expected = {
        "name": "Dell Server System BIOS",
        "component_type": "BIOS",
        "version": "A06",
        "dell_version": "A06",
        "release_date": "March 15, 2004",
        "minimum_version": "A04",
        "systems": [
            {"id": "0x0121", "name": "PowerEdge 2650"},
            {"id": "0x0135", "name": "PowerEdge 2750"},
        ],
    }
    for words in (("info", path), ("extract", path)):
        assert rbu.json(*words)["package"] == expected
        out = rbu(*words).out
        for text in ("Dell Server System BIOS", "March 15, 2004", "A04", "PowerEdge 2750"):
            assert text in out


def test_without_a_manifest_nothing_is_said_of_it(rbu: Cli) -> None:
    assert rbu.json("info", rbu.write("P.EXE", client_exe(IMAGE)))["package"] is None
    assert rbu.json("info", rbu.image())["package"] is None


def test_a_manifest_that_cannot_be_read_is_a_note(rbu: Cli) -> None:
    path = rbu.write("P.BIN", zip_of(("package.xml", b"<!DOCTYPE a><a/>"), ("A06.hdr", IMAGE)))
    assert "document type" in rbu.json("extract", path)["notes"][0]
    assert "document type" in rbu("info", path).out


def test_a_loaded_image_knows_its_packages_manifest(rbu: Cli) -> None:
    path = rbu.write("P.BIN", HOLD_AN_IMAGE["8G, the image at the top"])
    loaded = load_image(path)
    assert loaded.manifest is not None
    assert str(loaded.manifest.minimum_version) == "A04"


def test_a_machine_that_runs_less_than_its_package_wants_is_told_so(rbu: Cli) -> None:
    path = rbu.write("P.BIN", HOLD_AN_IMAGE["8G, the image at the top"])
    rbu("machine", "new", "old", "--bios-version", "A03")
    ended = rbu("update", path, "-m", "old")
    assert ended.code == 4
    assert "A04 or newer, and this one runs A03" in ended.err


# -- where an image ends --------------------------------------------------------------------


@pytest.mark.parametrize("behind", [b"\0", b"foreign bytes", bytes(70_000), CUT])
@pytest.mark.parametrize("before", [b"", bytes(4096)])
def test_extract_never_writes_foreign_bytes_behind_an_image(
    rbu: Cli, before: bytes, behind: bytes
) -> None:
    path = rbu.write("dump", before + IMAGE + behind)
    rbu.json("extract", path, "-o", "out")
    assert Path("out/dump-A06.hdr").read_bytes() == IMAGE
    assert names_in(Path("out")) == ["dump-A06.hdr"]


def test_an_image_whose_end_is_not_known_is_not_written(rbu: Cli) -> None:
    path = rbu.write("dump", bytes(4096) + CUT + NOISE)
    ended = rbu("extract", path, "-o", "out")
    assert ended.code == 5
    assert "the end of the image is not known" in ended.err
    document = rbu.json("extract", path, "-o", "out", code=5)
    assert (document["changed"], document["images"]) == (False, [])
    [left_out] = document["left_out"]
    assert (left_out["version"], left_out["state"]) == ("A06", "end_not_known")
    assert (left_out["found_at"], left_out["size_bytes"]) == ("offset 4096", None)
    assert rbu.files == ["dump"]
    assert rbu.json("info", path, code=5)["images"] == [left_out]


def test_beside_a_whole_image_one_without_an_end_is_only_told(rbu: Cli) -> None:
    path = rbu.write("dump", bytes(4096) + CUT[:4096] + OTHER)
    ended = rbu("extract", path, "-o", "out")
    assert (ended.code, ended.err) == (0, "")
    assert "not written: A06 (offset 4096)" in ended.out
    assert names_in(Path("out")) == ["dump-A07.hdr"]


def test_from_a_ram_dump_of_512_mib_no_huge_image_is_written(rbu: Cli) -> None:
    path = rbu.directory / "ram.dump"
    with path.open("wb") as file:
        file.truncate(512 << 20)
        file.seek(32 << 20)
        file.write(IMAGE[:84])
    document = rbu.json("extract", path, "-o", "out", code=5)
    assert document["images"] == []
    assert document["left_out"][0]["state"] == "end_not_known"
    assert rbu.files == ["ram.dump"]


DAMAGED = {
    "data_changed": IMAGE[:200] + b"!" + IMAGE[201:],
    "header_changed": IMAGE[:50] + b"9" + IMAGE[51:],
    "cut": CUT,
    "made_before_0.2": IMAGE[:-8] + struct.pack("<II", len(IMAGE) - 92, 0),
}


@pytest.mark.parametrize("state", DAMAGED)
def test_a_damaged_image_in_a_package_is_named_and_not_written(rbu: Cli, state: str) -> None:
    path = rbu.write("P.BIN", gzip_of(tar_of(("A06.hdr", DAMAGED[state]), ("A07.hdr", OTHER))))
    document = rbu.json("extract", path, "-o", "out", code=5)
    assert names_in(Path("out")) == ["P-A07.hdr"]
    [left_out] = document["left_out"]
    assert left_out["state"] == state
    assert left_out["damage"] in document["error"]["message"]
    shown = rbu("info", path)
    assert shown.code == 5
    assert left_out["damage"] in shown.out


@pytest.mark.parametrize("state", DAMAGED)
def test_a_damaged_file_is_not_extracted_either(rbu: Cli, state: str) -> None:
    path = rbu.write("A06.hdr", DAMAGED[state])
    document = rbu.json("extract", path, "-o", "out", code=5)
    assert document["left_out"][0]["state"] == state
    assert rbu.files == ["A06.hdr"]


# -- one image to go on with ----------------------------------------------------------------


def test_of_several_images_the_whole_one_is_taken(rbu: Cli) -> None:
    path = rbu.write("P.BIN", tar_of(("a", DAMAGED["cut"]), ("b", OTHER)))
    assert load_image(path).image.header.version.text == "A07"


def test_of_several_whole_images_none_is_guessed(rbu: Cli) -> None:
    path = rbu.write("P.BIN", tar_of(("a", IMAGE), ("b", OTHER)))
    with pytest.raises(UsageError, match=r"has 2 images \(A06, A07\)"):
        load_image(path)


def test_an_image_without_an_end_is_not_gone_on_with(rbu: Cli) -> None:
    path = rbu.write("dump", bytes(4096) + CUT)
    with pytest.raises(DamagedInputError, match="the end of the image is not known"):
        load_image(path)
    assert "the end of the image is not known" in rbu.fails(5, "packets", path, "-o", "p")


# -- whole files ----------------------------------------------------------------------------


def test_images_come_out_of_what_they_lie_in(rbu: Cli) -> None:
    for name in IMAGE_STATES:
        image = image_named(name)
        path = rbu.write(f"{name}.gz", gzip.compress(image, 1))
        is_intact = rbu.json("info", path, code=_code_of(image))["images"][0]["state"] == "whole"
        document = rbu.json("extract", path, "-o", "out", "--force", code=_code_of(image))
        assert bool(document["images"]) is is_intact
        for each in document["images"]:
            assert Path(each["file"]).read_bytes() == image


def _code_of(image: bytes) -> int:
    return 0 if zlib.crc32(image) == 0xFFFFFFFF else 5


def test_what_is_shown_of_a_package_is_one_document(rbu: Cli) -> None:
    path = rbu.write("P.BIN", server_bin(gzip_of(tar_of(("a.hdr", image_bytes()))), XML))
    document: Any = json.loads(rbu("info", path, "--json").out)
    assert list(document) == ["schema", "file", "file_size_bytes", "package", "notes", "images"]
