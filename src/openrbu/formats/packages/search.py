"""Finds the `.HDR` images inside another file, such as a vendor's update package.

Dell ships self-extracting `.exe` files and `.BIN` packages (a shell script followed by an archive);
an `.HDR` can also be inside a larger file without an archive (docs/reference/packages.md, K4). So a
file is searched from front to back for image headers, compressed streams, tar archives and
cabinets, at any offset, and for a zip archive at its end. The contents of an archive are searched
in the same way, in memory only: nothing is written to disk.

An image ends after its check words. If they are right nowhere, the end is not known, and no byte
after the header is taken, so that an image never has bytes of something else.

The bytes of an archive or of an image are not searched again for something else, nor is the rest of
an archive that was cut short. After the header of an image that is not whole, only further headers
are searched: flash data has many compressed modules, which are not packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, NotForRbuError, ObstacleError, OpenRbuError
from openrbu.formats.hdr import HEADER_SIZE_BYTES, Header, Image, image_at
from openrbu.formats.image_check import MAX_DATA_BYTES, ImageState
from openrbu.formats.packages import archives, not_for_rbu, signatures, streams
from openrbu.formats.packages.cabinet import Cabinet, OtherCompressionError
from openrbu.formats.packages.limits import BeyondLimitError, Budget
from openrbu.formats.packages.manifest import (
    FILE_NAME,
    MARKER,
    Manifest,
    manifest_start,
    parse_manifest,
)
from openrbu.formats.packages.not_for_rbu import FileKind, NoImageReason

_MAX_MANIFEST_TRIES = 16

_T = TypeVar("_T")
_Steps = tuple[str, ...]

NO_END = (
    "the end of the image is not known: its check words are nowhere after its header, so the bytes "
    "there may belong to something else"
)


@dataclass(frozen=True, slots=True)
class PackagedImage:
    """An image, and where it is: `offset 4096`, `gzip at 512 > tar member bios.hdr`.

    If its end is not known, `image` has a header and no data.
    """

    image: Image
    path: str
    end_is_known: bool = True

    @property
    def damage(self) -> str | None:
        """What is wrong with the image, in one line; None if it is whole."""
        return self.image.damage if self.end_is_known else NO_END


@dataclass(frozen=True, slots=True)
class RecognisedFile:
    """A file without an image that can be read here: its kind, and where it is."""

    kind: FileKind
    path: str

    def __str__(self) -> str:
        return f"{self.path} is {self.kind}" if self.path else f"it is {self.kind}"


@dataclass(slots=True)
class Contents:
    """What was found in a file.

    `manifest_problem` says why a manifest could not be read. `damage` says which archive is
    damaged, the first one if there are several.
    """

    images: list[PackagedImage] = field(default_factory=list)
    manifest: Manifest | None = None
    manifest_problem: str | None = None
    named: list[RecognisedFile] = field(default_factory=list)
    damage: str | None = None

    def why_no_images(self) -> OpenRbuError | None:
        """The error that says why the file has no image; None if that is not known."""
        first = {each.kind.why: each for each in reversed(self.named)}
        if NoImageReason.NOTHING_FOR_RBU in first:
            return NotForRbuError(f"it has nothing for RBU: {first[NoImageReason.NOTHING_FOR_RBU]}")
        if self.damage:
            return DamagedInputError(f"no BIOS image found; {self.damage}")
        if NoImageReason.NOT_READ_HERE in first:
            return ObstacleError(f"no BIOS image found: {first[NoImageReason.NOT_READ_HERE]}")
        return None


def search_package(data: Buffer, name: str = "") -> Contents:
    """Search a file's bytes: the images, in the sequence in which they are found, each different
    one once, and what else is known about the file.

    `name` is the file's name, if any: paths and messages begin with it. An image is a view of
    `data` or of unpacked bytes. An `.HDR` file itself is found at `offset 0`.

    :raise DamagedInputError: when it exceeds one of the `limits`.
    """
    search = _Search(name)
    try:
        search.look_into(memoryview(data), ())
    except BeyondLimitError as error:
        raise DamagedInputError(str(error)) from None
    return search.contents


class _Search:
    """The search of a file and everything in it, with limits for all of it together."""

    def __init__(self, name: str) -> None:
        self.contents = Contents()
        self._name = name
        self._budget = Budget()
        self._manifest_tries = 0

    def look_into(self, view: memoryview, steps: _Steps) -> None:
        """Search `view`; `steps` say where it is."""
        self._budget.depth(len(steps), self._path(steps))
        before = len(self.contents.images), len(self.contents.named)
        position = only_headers_to = 0
        for start, kind in signatures.find_signatures(view):
            if start < (position if kind == signatures.IMAGE else max(position, only_headers_to)):
                continue
            if kind == signatures.IMAGE:
                if self._is_capsule(view, start, steps):
                    break
                position, end = self._image(view, start, steps)
                only_headers_to = max(only_headers_to, end)
            else:
                position = self._visit(kind)(view, start, steps)
        if before == (len(self.contents.images), len(self.contents.named)):
            known = not_for_rbu.kind_of(view)
            if known is not None:
                self._recognise(known, steps)

    def _visit(self, kind: str) -> Callable[[memoryview, int, _Steps], int]:
        """The method that searches a kind; it returns the offset at which to continue."""
        visits = {
            signatures.TAR: self._tar,
            signatures.ZIP: self._zip,
            signatures.CABINET: self._cabinet,
            signatures.MANIFEST: self._manifest,
        }
        streams_of = {each.name: partial(self._stream, each) for each in streams.STREAM_KINDS}
        return visits.get(kind) or streams_of[kind]

    # -- images -----------------------------------------------------------------------------

    def _image(self, view: memoryview, start: int, steps: _Steps) -> tuple[int, int]:
        """Add the image at `start`. Returns the offset at which to continue, and the image's end or
        the end of `view`.

        They differ if the image is not whole: another image may have overwritten its data.
        """
        try:
            header = Header.parse(view, start)
        except DamagedInputError:
            self._budget.false_start(self._path(steps))
            return start, start
        path = self._path((*steps, f"offset {start}") if start or not steps else steps)
        behind_header = start + header.size_bytes
        rest = Image(header, view[behind_header:])
        is_small = len(rest.body) <= MAX_DATA_BYTES
        image = rest.up_to_its_end if is_small else image_at(view, start)
        if image is not None:
            self._add(PackagedImage(image, path))
            end = start + image.size_bytes
            return (end if image.is_whole else behind_header), end
        self._budget.endless(path)
        if is_small and (start == 0 or rest.state is ImageState.FORMER):
            self._add(PackagedImage(rest, path))  # the image is the whole file or member
        else:
            self._add(PackagedImage(Image(header, view[:0]), path, end_is_known=False))
        return behind_header, len(view)

    def _add(self, found: PackagedImage) -> None:
        self._budget.image(found.path)
        is_known = any(
            found.image == known.image and found.end_is_known == known.end_is_known
            for known in self.contents.images
        )
        if not is_known:
            self.contents.images.append(found)

    def _is_capsule(self, view: memoryview, start: int, steps: _Steps) -> bool:
        """Whether `view` is a server's capsule without a whole image, which is not searched.

        The data of the outer image has another image, followed by two more, and it is not known
        which of them has to be staged. A capsule is recognised in both cases.
        """
        if start != HEADER_SIZE_BYTES or not not_for_rbu.is_server_capsule(view):
            return False
        self._recognise(not_for_rbu.SERVER_CAPSULE, steps)
        return image_at(view, start) is None

    # -- archives ---------------------------------------------------------------------------

    def _stream(self, kind: streams.StreamKind, view: memoryview, start: int, steps: _Steps) -> int:
        steps = (*steps, f"{kind.name} at {start}")
        if kind is streams.LZMA and not streams.looks_like_lzma(view, start):
            self._budget.false_start(self._path(steps))
            return start + 1
        end = start + 1

        def unpack(take: streams.Take) -> None:
            nonlocal end
            end = streams.unpack(kind, view, start, take)

        try:
            unpacked = streams.collected(unpack, self._counter(steps))
        except streams.BROKEN_STREAM as error:
            self._budget.false_start(self._path(steps))
            self._note_damage(steps, error)
            is_cut = isinstance(error, EOFError) and kind is not streams.LZMA
            return len(view) if is_cut else start + 1
        before = self._seen
        self.look_into(unpacked, steps)
        if kind is streams.XZ and before == self._seen:
            self._recognise(not_for_rbu.THINOS, steps)
        return end

    def _tar(self, view: memoryview, start: int, steps: _Steps) -> int:
        label = f"tar at {start}" if start else "tar"
        end = start + 1
        members = archives.tar_members(view, start)
        for member in self._until_broken((*steps, label), members):
            self._member(member.name, member.content, f"{label} member", steps)
            end = member.end
        return end

    def _zip(self, view: memoryview, _: int, steps: _Steps) -> int:
        try:
            archive = archives.open_zip(view)
        except archives.BROKEN_ARCHIVE as error:
            self._note_damage((*steps, "zip"), error)
            return len(view)
        for info in archive.infolist():
            inner = (*steps, f"zip member {_shown(info.filename)}")
            try:
                count = self._counter(inner)
                content = archives.zip_content(view, archive, info, count)
            except archives.BROKEN_ARCHIVE as error:
                self._budget.member(self._path(inner))
                self._note_damage(inner, error)
            else:
                self._member(info.filename, content, "zip member", steps)
        return len(view)

    def _cabinet(self, view: memoryview, start: int, steps: _Steps) -> int:
        label = f"cabinet at {start}" if start else "cabinet"
        steps_in = (*steps, label)
        try:
            cabinet = Cabinet(view, start)
        except (DamagedInputError, EOFError) as error:
            self._budget.false_start(self._path(steps_in))
            self._note_damage(steps_in, error)
            return len(view) if isinstance(error, EOFError) else start + 1
        outer = steps_in if start else steps
        known = not_for_rbu.kind_of_cabinet(cabinet.names)
        if known is not None:
            self._recognise(known, outer)
        try:
            for member in self._until_broken(steps_in, cabinet.members(self._counter(steps_in))):
                self._member(member.name, member.content, f"{label} member", steps)
        except OtherCompressionError:
            self._recognise(not_for_rbu.CABINET_LZX, outer)
        return cabinet.end

    def _member(self, name: str, content: memoryview, label: str, steps: _Steps) -> None:
        """Search a member of an archive."""
        inner = (*steps, f"{label} {_shown(name)}")
        self._budget.member(self._path(inner))
        if name.replace("\\", "/").rpartition("/")[2].lower() == FILE_NAME:
            self._read_manifest(content, inner)
        else:
            self.look_into(content, inner)

    def _until_broken(self, steps: _Steps, parts: Iterable[_T]) -> Iterator[_T]:
        """The `parts` of an archive up to the first damage.

        An error that is raised while a part is searched does not pass through here.
        """
        try:
            yield from parts
        except OtherCompressionError:
            raise
        except (*archives.BROKEN_ARCHIVE, DamagedInputError) as error:
            self._budget.false_start(self._path(steps))
            self._note_damage(steps, error)

    # -- what a package says about itself ---------------------------------------------------

    def _manifest(self, view: memoryview, start: int, steps: _Steps) -> int:
        xml = manifest_start(view, start + len(MARKER))
        if xml is not None:
            self._read_manifest(view[xml:], (*steps, f"package.xml at {xml}"))
        return start

    def _read_manifest(self, data: memoryview, steps: _Steps) -> None:
        """Read a manifest; the first one that can be read is kept."""
        self._manifest_tries += 1
        if self.contents.manifest is not None or self._manifest_tries > _MAX_MANIFEST_TRIES:
            return
        try:
            self.contents.manifest = parse_manifest(data)
        except DamagedInputError as error:
            problem = f"{self._path(steps)}: {error}"
            self.contents.manifest_problem = self.contents.manifest_problem or problem

    # -- records ----------------------------------------------------------------------------

    @property
    def _seen(self) -> tuple[int, int, str | None]:
        """A value that changes when something is found."""
        return len(self.contents.images), len(self.contents.named), self.contents.damage

    def _recognise(self, kind: FileKind, steps: _Steps) -> None:
        if all(kind is not known.kind for known in self.contents.named):
            self.contents.named.append(RecognisedFile(kind, self._path(steps)))

    def _note_damage(self, steps: _Steps, error: Exception) -> None:
        """Keep the first damage: if nothing is found, it explains why."""
        reason = str(error) or type(error).__name__
        damage = f"{self._path(steps)} is damaged: {_shown(reason)}"
        self.contents.damage = self.contents.damage or damage

    def _counter(self, steps: _Steps) -> streams.Take:
        place = self._path(steps)
        return lambda piece: self._budget.unpacked(len(piece), place)

    def _path(self, steps: _Steps) -> str:
        return " > ".join((self._name, *steps) if self._name else steps)


def _shown(text: str) -> str:
    """`text` on one line, safe to print."""
    return text if text.isprintable() else repr(text)
