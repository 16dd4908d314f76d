"""What a Dell update package says about itself: its `package.xml`.

It is a member of the package's archive, or is in front of the archive, after the line
`#####Startofpackage#####` (docs/reference/packages.md, K2). The parts that are read are those of
the vendor's published catalogs, whose entries have the same form: a `SoftwareComponent` with
`vendorVersion`, `dellVersion`, `releaseDate` and `dateTime`; in it `Name/Display`, `ComponentType`,
and `SupportedSystems/Brand/Model` with a hexadecimal `systemID`.

Where a minimum version is stored is not published. So each element or attribute counts whose name
means minimum version (`minimumVersion`, `MinBIOSVersion`, …), except that of an operating system;
of several, the newest counts.

Some real files declare UTF-16 but are UTF-8, so the declaration is ignored. A document type is
refused: attacks with XML use entities, and a manifest has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.parsers import expat

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError
from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.units import MIB

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FILE_NAME = "package.xml"
MARKER = b"#####Startofpackage#####"

MAX_MANIFEST_BYTES = 4 * MIB
MAX_SYSTEMS = 1000
_MAX_TEXT = 200
_MAX_DEPTH = 50

_DECLARATION = re.compile(r"\s*<\?xml[^>]{0,200}\?>")
_UTF16_SIGNATURES = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"<\0": "utf-16-le"}
_MINIMUM = re.compile(r"min(imum)?(bios|system|package|vendor)*version")


@dataclass(frozen=True, slots=True)
class SupportedSystem:
    """A system that a package is for; `name` may be empty."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package says about itself. Texts are unchanged; None: the package does not say."""

    name: str | None
    component_type: str | None
    version: str | None
    dell_version: str | None
    release_date: str | None
    systems: tuple[SupportedSystem, ...]
    minimum_version: BiosVersion | None
    """Before the update, the BIOS must have this version or a newer one."""


def parse_manifest(data: Buffer) -> Manifest | None:
    """Read a `package.xml`. Bytes after the end of the document are ignored.

    None: it is XML, but does not describe a package.

    :raise DamagedInputError: when it is not XML, has a document type, or is larger than
        `MAX_MANIFEST_BYTES`.
    """
    root = _parse(_text_of(data))
    component = _first(root, "SoftwareComponent")
    if component is None:
        return None
    type_ = _first(component, "ComponentType")
    return Manifest(
        name=_display(_first(component, "Name")),
        component_type=None if type_ is None else _clean(type_.get("value")) or _display(type_),
        version=_clean(component.get("vendorVersion")),
        dell_version=_clean(component.get("dellVersion")),
        release_date=_clean(component.get("releaseDate")) or _clean(component.get("dateTime")),
        systems=tuple(_systems(component)),
        minimum_version=_minimum_version(component),
    )


def manifest_start(view: memoryview, position: int) -> int | None:
    """The offset of the XML after a marker that ends at `position`; None if no XML follows.

    A script may have the marker's text in its code.
    """
    head = bytes(view[position : position + 64])
    match = re.match(rb"[\r\n\t \0]*(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff\0?)?<", head)
    if match is None:
        return None
    sign = re.search(rb"\xef\xbb\xbf|\xff\xfe|\xfe\xff|<", match[0])
    assert sign is not None
    return position + sign.start()


def _text_of(data: Buffer) -> str:
    head = bytes(data[:2])
    raw = bytes(data[: MAX_MANIFEST_BYTES + 1])
    text = raw.decode(_UTF16_SIGNATURES.get(head, "utf-8"), "replace").lstrip("\ufeff")
    declaration = _DECLARATION.match(text)
    return text[declaration.end() :] if declaration else text


class _TooMuchError(Exception):
    """The document exceeds a limit, or has a part that no manifest has; the text says it."""


class _EndOfDocumentError(Exception):
    """Not an error: it ends the parser at the end of the document."""


def _parse(text: str) -> Element:
    from xml.etree.ElementTree import TreeBuilder  # noqa: PLC0415  (start-up time)

    builder = TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise _TooMuchError(f"more than {_MAX_DEPTH} elements inside each other")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)
        if not depth:
            raise _EndOfDocumentError

    def doctype(*_: object) -> None:
        raise _TooMuchError("it has a document type, which no package needs")

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except _EndOfDocumentError:
        return builder.close()
    except (expat.ExpatError, _TooMuchError) as error:
        raise DamagedInputError(f"{FILE_NAME} can't be read: {error}") from None
    raise DamagedInputError(f"{FILE_NAME} can't be read: it has no end")


def _local(tag: str) -> str:
    """A name without its namespace, in lower case."""
    return tag.rpartition(":")[2].lower()


def _first(root: Element, name: str) -> Element | None:
    """The first element of that name in `root`, or `root` itself."""
    return next((each for each in root.iter() if _local(each.tag) == name.lower()), None)


def _display(element: Element | None) -> str | None:
    """An element's text for people: the English one, else the first, else the element's own."""
    if element is None:
        return None
    texts = [each for each in element if _local(each.tag) == "display"]
    texts.sort(key=lambda each: not each.get("lang", "en").startswith("en"))
    return _clean((texts[0] if texts else element).text)


def _clean(text: str | None) -> str | None:
    """The text on one line and with a limited length; None if it is empty."""
    words = " ".join((text or "").split())[:_MAX_TEXT]
    return words or None


def _systems(component: Element) -> Iterator[SupportedSystem]:
    """Each system once, in the sequence of the file, without IDs that can't be read."""
    known: set[int] = set()
    for brand in component.iter():
        if _local(brand.tag) != "brand":
            continue
        family = _display(brand)
        for model in brand:
            text = model.get("systemID", "").strip().removeprefix("0x")
            if _local(model.tag) != "model" or not re.fullmatch(r"[0-9A-Fa-f]{1,4}", text):
                continue
            identity = int(text, 16)
            if identity not in known and len(known) < MAX_SYSTEMS:
                known.add(identity)
                name = _clean(f"{family or ''} {_display(model) or ''}")
                yield SupportedSystem(identity, name or "")


def _minimum_version(component: Element) -> BiosVersion | None:
    """The newest of all minimum versions that can be read."""
    newest: BiosVersion | None = None
    for text in _minimum_texts(component):
        version = BiosVersion.parse(text)
        is_one = version.style is not VersionStyle.UNREADABLE and re.search(r"[0-9]", text)
        if is_one and (newest is None or version.is_newer_than(newest)):
            newest = version
    return newest


def _minimum_texts(element: Element) -> Iterator[str]:
    name = re.sub(r"[^a-z]", "", _local(element.tag))
    if "operatingsystem" in name:
        return
    if _MINIMUM.fullmatch(name):
        yield element.text or element.get("value") or element.get("version") or ""
    for key, value in element.items():
        if _MINIMUM.fullmatch(re.sub(r"[^a-z]", "", _local(key))):
            yield value
    for child in element:
        yield from _minimum_texts(child)
