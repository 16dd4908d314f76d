"""What a package says of itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError
from openrbu.formats.packages.manifest import (
    MAX_MANIFEST_BYTES,
    SupportedSystem,
    parse_manifest,
)
from openrbu.formats.packages.search import search_package
from rigs.package_makers import (
    IMAGE,
    cabinet_of,
    gzip_of,
    manifest_of,
    server_bin,
    tar_of,
    zip_of,
)

XML = manifest_of("A06", minimum="A04", systems=("0121", "0135"))


def test_all_that_a_manifest_says_is_read() -> None:
    manifest = parse_manifest(XML.encode())
    assert manifest is not None
    assert manifest.name == "Dell Server System BIOS"
    assert manifest.component_type == "BIOS"
    assert (manifest.version, manifest.dell_version) == ("A06", "A06")
    assert manifest.release_date == "March 15, 2004"
    assert manifest.systems == (
        SupportedSystem(0x0121, "PowerEdge 2650"),
        SupportedSystem(0x0135, "PowerEdge 2750"),
    )
    assert manifest.minimum_version is not None
    assert manifest.minimum_version.text == "A04"


@pytest.mark.parametrize(
    "data",
    [
        XML.encode("utf-16"),
        XML.encode("utf-16-le"),
        b"\xfe\xff" + XML.encode("utf-16-be"),
        XML.encode("utf-8-sig"),
        XML.partition("\n")[2].encode(),
        b"\n" + XML.encode() + b"\n#####Startofarchive#####\n" + bytes(range(256)),
        XML.replace("<Software", "<Manifest><Software")
        .replace("</SoftwareComponent>", "</SoftwareComponent></Manifest>")
        .encode(),
    ],
    ids=["utf-16", "no mark", "big", "utf-8 mark", "no declaration", "bytes behind", "a catalog"],
)
def test_a_manifest_is_read_however_it_is_written_down(data: bytes) -> None:
    assert parse_manifest(data) == parse_manifest(XML.encode())


@pytest.mark.parametrize(
    ("body", "version"),
    [
        ("<MinimumVersion>A03</MinimumVersion>", "A03"),
        ('<Package><MinBIOSVersion value="1.2.0"/></Package>', "1.2.0"),
        ('<A minVersion="A03"/><A minVersion="A05"/><A minVersion="A04"/>', "A05"),
        ('<A minVersion="any"/>', None),
        ('<OperatingSystem minVersion="6.1"/>', None),
        ('<SupportedOperatingSystems><A minVersion="6.1"/></SupportedOperatingSystems>', None),
        ('<A administratorVersion="1.0"/>', None),
        ("", None),
    ],
)
def test_a_minimum_version_is_taken_from_whatever_is_called_one(
    body: str, version: str | None
) -> None:
    manifest = parse_manifest(f"<SoftwareComponent>{body}</SoftwareComponent>".encode())
    assert manifest is not None
    assert (manifest.minimum_version and manifest.minimum_version.text) == version


def test_what_a_manifest_does_not_say_is_none() -> None:
    manifest = parse_manifest(b"<SoftwareComponent vendorVersion='' dateTime='2004-03-15'/>")
    assert manifest is not None
    assert (manifest.name, manifest.version, manifest.systems) == (None, None, ())
    assert manifest.release_date == "2004-03-15"


def test_an_id_that_is_none_is_left_out() -> None:
    manifest = parse_manifest(manifest_of(systems=("0121", "", "no", "12345", "0121")).encode())
    assert manifest is not None
    assert [system.id for system in manifest.systems] == [0x0121]


def test_other_xml_is_not_a_manifest() -> None:
    assert parse_manifest(b"<component type='firmware'/>") is None


ENTITIES = (
    '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
    "<SoftwareComponent vendorVersion='A06'>&c;</SoftwareComponent>"
)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (ENTITIES.encode(), "document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><SoftwareComponent/>', "document type"),
        (b"<a>" * 60, "inside each other"),
        (b"no XML", "can't be read"),
        (b"<a><b></a>", "mismatched"),
        (b"", "no element found"),
        (b"<a>" + b" " * MAX_MANIFEST_BYTES + b"</a>", "no element found|unclosed"),
        (b"<a>&b;</a>", "undefined entity"),
    ],
)
def test_what_no_package_needs_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(DamagedInputError, match=says):
        parse_manifest(data)


def test_a_manifest_that_ends_anywhere_is_damaged_or_whole() -> None:
    data = manifest_of().rstrip().encode()
    for size in range(len(data)):
        with pytest.raises(DamagedInputError):
            parse_manifest(data[:size])


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(alphabet="<>/!&;\"'=[]abSC-? ", max_size=80).map(str.encode),
        st.dictionaries(st.integers(0, 900), st.integers(0, 255), max_size=4).map(
            lambda places: bytes(places.get(at, byte) for at, byte in enumerate(XML.encode()))
        ),
    )
)
def test_any_bytes_give_a_manifest_or_damaged_input(data: bytes) -> None:
    try:
        parse_manifest(data)
    except DamagedInputError:
        return


# Where it is found


@pytest.mark.parametrize(
    "data",
    [
        server_bin(gzip_of(tar_of(("A06.hdr", IMAGE))), XML),
        server_bin(gzip_of(tar_of(("package.xml", XML.encode()), ("A06.hdr", IMAGE)))),
        zip_of(("payload/A06.hdr", IMAGE), ("PACKAGE.XML", XML.encode("utf-16"))),
        cabinet_of(("A06.hdr", IMAGE), ("x\\package.xml", XML.encode())),
    ],
    ids=["in front of the archive", "tar", "zip", "cabinet"],
)
def test_a_packages_manifest_is_found(data: bytes) -> None:
    contents = search_package(data)
    assert contents.manifest == parse_manifest(XML.encode())
    assert [each.image.build() for each in contents.images] == [IMAGE]


def test_a_manifest_that_cannot_be_read_is_told_and_hides_no_image() -> None:
    contents = search_package(zip_of(("package.xml", ENTITIES.encode()), ("A06.hdr", IMAGE)))
    assert contents.manifest is None
    assert contents.manifest_problem is not None
    assert "zip member package.xml: package.xml can't be read" in contents.manifest_problem
    assert len(contents.images) == 1


def test_the_first_manifest_that_can_be_read_counts() -> None:
    other = manifest_of("A07").encode()
    contents = search_package(
        zip_of(("a/package.xml", b"<a>"), ("b/package.xml", XML.encode()), ("package.xml", other))
    )
    assert contents.manifest == parse_manifest(XML.encode())
