"""The hypervisor of a host: its machine memory, and the guests that have parts of it.

Theory of operation. Machine frames are free, or in the frame table of one guest (`state`). Guests
make hypercalls, one at a time: populate, decrease (`domain`). A host lives in this process, or in
files of a directory that several processes have open at once, each with a guest or two (`arrays`).
A process that ends, or is killed, leaves its guests as the hypervisor knows them.

A guest gets a frame when three conditions are met: the machine has a free one, the guest's maximum
allows it, and what is still free then covers what *other* guests have claimed. Otherwise it gets
fewer frames than it asked for, and decides itself what to do.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openrbu.errors import DamagedInputError, KernelError, MachineError, UsageError
from openrbu.file_format import FileFormat, NewerFormatError, parse_object
from openrbu.memory.physical import Region
from openrbu.memory.zones import unreserved
from openrbu.system.files import write_whole
from openrbu.system.kept_files import OddFileError, read_kept, remove_whatever
from openrbu.typed_json import Natural, read, to_document
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.xen.arrays import HostArrays, PrivateArrays, SharedArrays
from openrbu.xen.domain import Domain, DomainInfo, info_of
from openrbu.xen.heap import Spans
from openrbu.xen.records import MAX_GUESTS, Row, encode_name
from openrbu.xen.state import INVALID, WORD_COUNT, Backing, HostState

__all__ = ["DOM0", "INVALID", "XEN_RESERVED", "Backing", "Domain", "DomainInfo", "Hypervisor"]

DOM0 = "dom0"

XEN_RESERVED = (Region(PhysAddr(0), PhysAddr(17 * MIB)),)
"""The RAM that the hypervisor keeps for itself: the first MiB, which firmware uses, and the 16 MiB
behind it. This is a choice of openrbu; a real one is elsewhere, and takes more with more RAM."""

FORMAT = FileFormat(1)
"""The format of `host.json`."""

_CONFIG = "host.json"


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What a host is, in `host.json`."""

    spans: tuple[tuple[Natural, Natural], ...]
    has_backing: bool
    takes_memory: bool


class Hypervisor:
    """A host. One object is for one thread at a time unless the host is in a directory."""

    def __init__(self, state: HostState) -> None:
        self._state = state

    @classmethod
    def in_memory(
        cls,
        regions: Sequence[Region],
        *,
        backing: Backing | None = None,
        takes_memory: bool = False,
        reserved: Sequence[Region] = XEN_RESERVED,
    ) -> Hypervisor:
        """A host with this RAM, all in this process.

        `backing` is the memory behind machine frames (a `RamFile`): what a guest gives back is
        punched out of it. `takes_memory`: what a guest gets is taken from its file system at once,
        and a guest gets less when that has less.

        :raise UsageError: when no RAM is left for guests, or it ends above 16 TiB.
        """
        spans = _spans(regions, reserved)
        arrays = PrivateArrays(WORD_COUNT, sum(end - first for first, end in spans))
        return cls._made(arrays, spans, backing, takes_memory=takes_memory)

    @classmethod
    def create(
        cls,
        directory: Path,
        regions: Sequence[Region],
        *,
        backing: Backing | None = None,
        takes_memory: bool = False,
        reserved: Sequence[Region] = XEN_RESERVED,
    ) -> Hypervisor:
        """Make a host in an existing directory, as a machine's start does. See `in_memory`.

        A host that was there before is removed with its guests. All memory but the hypervisor's own
        is scrubbed.

        :raise UsageError: as `in_memory`.
        :raise MachineError: when a process stays inside of a hypercall on the host before.
        :raise OSError: when the disk refuses.
        """
        spans = _spans(regions, reserved)
        cls._end(directory)
        (directory / _CONFIG).unlink(missing_ok=True)
        total = sum(end - first for first, end in spans)
        arrays = SharedArrays.create(directory, WORD_COUNT, total)
        host = cls._made(arrays, spans, backing, takes_memory=takes_memory)
        config = HostConfig(spans, has_backing=backing is not None, takes_memory=takes_memory)
        text = json.dumps({"format": FORMAT.number} | to_document(config))
        write_whole(directory / _CONFIG, f"{text}\n".encode())
        return host

    @classmethod
    def remove(cls, directory: Path) -> None:
        """Remove the host in a directory, if there is one, and the directory.

        :raise MachineError: when a process stays inside of a hypercall on it.
        :raise OSError: when the disk refuses.
        """
        cls._end(directory)
        remove_whatever(directory / _CONFIG)  # first: without it there is no host
        if directory.exists():
            shutil.rmtree(directory)

    @classmethod
    def _end(cls, directory: Path) -> None:
        """End the host in a directory, so that processes that have it open can't change anything.

        :raise MachineError: when one of them stays inside of a hypercall.
        """
        try:
            host = cls.open(directory)
        except MachineError:  # there is none, or it is damaged
            return
        with contextlib.closing(host):
            host._state.end()

    @classmethod
    def open(cls, directory: Path, *, backing: Backing | None = None) -> Hypervisor:
        """The host in a directory. Without the `backing` that it was made with it can only be read.

        :raise MachineError: when there is none, it is damaged, or from a newer openrbu.
        :raise OSError: when the disk refuses.
        """
        config = _load_config(directory / _CONFIG)
        arrays = SharedArrays(
            directory, WORD_COUNT, sum(end - first for first, end in config.spans)
        )
        may_change = backing is not None or not config.has_backing
        return cls(
            HostState(
                arrays,
                config.spans,
                backing,
                takes_memory=config.takes_memory,
                may_change=may_change,
            )
        )

    @classmethod
    def _made(
        cls, arrays: HostArrays, spans: Spans, backing: Backing | None, *, takes_memory: bool
    ) -> Hypervisor:
        """A new host: all its memory is free, and has zeros."""
        if backing is not None:
            for first, end in spans:
                backing.discard(first, end - first)
        return cls(HostState(arrays, spans, backing, takes_memory=takes_memory))

    def close(self) -> None:
        """Close the host's files. Its guests stay as they are."""
        self._state.arrays.close()

    @property
    def has_ended(self) -> bool:
        """Whether it was switched off, or started again, since it was opened."""
        return self._state.has_ended

    @property
    def total_pages(self) -> int:
        """How many pages all guests together can have."""
        return self._state.heap.total_pages

    @property
    def free_pages(self) -> int:
        """How many pages no guest has."""
        return self._state.heap.free_pages

    @property
    def claimed_pages(self) -> int:
        """How many of the free pages are promised to guests."""
        return self._state.claimed_pages

    def create_domain(
        self, name: str, *, pages: int, max_pages: int, claim_pages: int = 0
    ) -> Domain:
        """Make a guest with `max_pages` frames. The first `pages` of them have machine pages, and
        `claim_pages` more are promised to it. The guest `dom0` gets the ID 0.

        :raise UsageError: when it can't have that name, or would have more pages than frames.
        :raise MachineError: when there is a guest of that name already, or too many guests.
        :raise KernelError: ENOMEM when that much is not free, or claimed by others. Then nothing
            has changed.
        :raise OSError: when the disk with the host's own files refuses a frame table. Then there is
            no such guest, and the next hypercall restores the rest.
        """
        encode_name(name)
        if not 0 < max_pages < INVALID or min(pages, claim_pages) < 0:
            raise UsageError(f"a guest can't have {max_pages} frames, {pages} of them with memory")
        if pages + claim_pages > max_pages:
            raise UsageError(f"{pages + claim_pages} pages are more than a maximum of {max_pages}")
        with self._state as state:
            if state.rows.named(name) is not None:
                raise MachineError(f"there is a guest {name!r} already")
            row = state.rows.free()
            if row is None:
                raise MachineError(f"a host has no more than {MAX_GUESTS} guests")
            if pages + claim_pages > state.unclaimed_pages:
                raise _no_memory(pages + claim_pages, state.unclaimed_pages)
            state.begin_change(handing_out=pages)
            machine = state.commit(pages)
            if len(machine) < pages:
                state.scrub(machine)
                state.end_change()
                raise _no_memory(pages, len(machine))
            number = 0 if name == DOM0 else state.next_id()
            table = state.arrays.make_table(number, max_pages)
            table[:pages], table[pages:] = machine, INVALID
            row.write(name, frame_count=max_pages, target_kib=pages * PAGE_SIZE // KIB)
            state.set_counts(row, pages, claim_pages)
            row.assign(number)
            state.heap.drop(pages)
            state.end_change()
            return Domain(state, row)

    def domain(self, name: str) -> Domain:
        """The guest of that name.

        :raise MachineError: when there is none.
        """
        with self._state as state:
            return Domain(state, self._existing_row(name))

    def find(self, name: str) -> DomainInfo | None:
        """The guest of that name at this moment; None when there is none."""
        with self._state as state:
            row = state.rows.named(name)
            return None if row is None else info_of(row)

    def domains(self) -> list[DomainInfo]:
        """All guests at this moment, in the order of their IDs."""
        with self._state as state:
            return sorted((info_of(row) for row in state.rows), key=lambda info: info.id)

    def destroy(self, name: str) -> None:
        """End a guest, and free all its pages.

        :raise MachineError: when there is none of that name.
        :raise OSError: when the file behind the memory refuses. The next hypercall tries again.
        """
        with self._state as state:
            row = self._existing_row(name)
            number = row.domain_id
            assert number is not None
            state.begin_change()
            state.take_back(state.forget(row))
            state.set_counts(row, 0, 0)
            state.arrays.drop_table(number)
            state.end_change()

    def check(self) -> None:
        """Check that frames are conserved: each is free or has one guest, and none is lost.

        :raise MachineError: when that is not so.
        """
        with self._state as state:
            state.check()

    def _existing_row(self, name: str) -> Row:
        row = self._state.rows.named(name)
        if row is None:
            raise MachineError(f"there is no guest {name!r}")
        return row


def _no_memory(pages: int, free_pages: int) -> KernelError:
    text = f"{pages} pages wanted, {free_pages} are free and not promised to other guests"
    return KernelError(errno.ENOMEM, detail=text)


def _spans(regions: Sequence[Region], reserved: Sequence[Region]) -> Spans:
    """The machine frames that guests can have."""
    spans = tuple(unreserved(tuple(regions), tuple(reserved)))
    if not spans:
        raise UsageError("there is too little RAM: the hypervisor leaves nothing of it to guests")
    if spans[-1][1] > INVALID:
        raise UsageError("a host has less than 16 TiB of RAM")
    return spans


def _load_config(path: Path) -> HostConfig:
    """What `host.json` says.

    :raise MachineError: when it is missing, damaged, or from a newer openrbu.
    """
    try:
        document = parse_object(read_kept(path))
        document = FORMAT.convert(document, FORMAT.number_of(document))
        del document["format"]
        config = read(HostConfig, document)
        if not config.spans or not all(0 <= first < end <= INVALID for first, end in config.spans):
            raise DamagedInputError("it names no machine frames")
    except FileNotFoundError:
        raise MachineError(f"there is no Xen host in {path.parent}") from None
    except NewerFormatError as error:
        raise MachineError(f"{path}: {error}: update openrbu") from None
    except OddFileError as error:
        raise MachineError(f"{path} is damaged ({error.strerror})") from None
    except DamagedInputError as error:
        raise MachineError(f"{path} is damaged ({error})") from None
    return config
