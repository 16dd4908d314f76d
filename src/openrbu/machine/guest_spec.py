"""What a guest of a Xen host is made from, kept in a file of its directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from openrbu.drivers.xen_balloon_profiles import DEFAULT_BALLOON_PROFILE, balloon_profile
from openrbu.errors import DamagedInputError, MachineError, UsageError
from openrbu.file_format import FileFormat, NewerFormatError, parse_object
from openrbu.system.files import write_whole
from openrbu.system.kept_files import OddFileError, read_kept
from openrbu.typed_json import Natural, read, to_document
from openrbu.units import MIB, PAGE_SIZE, exact_size

FORMAT = FileFormat(1)
"""Of the file."""

MIN_GUEST_BYTES = 64 * MIB

_FILE_NAME = "guest.json"


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """What a guest is made from: the memory that it starts with, the most it may have, how much
    more the hypervisor promises it, and how much its programs use and never give back. Sizes in
    bytes, whole pages."""

    memory_bytes: Natural
    max_bytes: Natural
    claim_bytes: Natural = 0
    used_bytes: Natural = 0
    profile: str = DEFAULT_BALLOON_PROFILE

    def check(self) -> None:
        """Check that there can be such a guest.

        :raise UsageError: when there can't.
        """
        balloon_profile(self.profile)
        sizes = (self.memory_bytes, self.max_bytes, self.claim_bytes, self.used_bytes)
        if any(size % PAGE_SIZE for size in sizes):
            raise UsageError("a guest's memory is counted in whole pages of 4 KiB")
        if self.memory_bytes < MIN_GUEST_BYTES:
            raise UsageError(
                f"a guest starts with {exact_size(MIN_GUEST_BYTES)} at least, not with "
                f"{exact_size(self.memory_bytes)}"
            )
        if self.max_bytes < self.memory_bytes:
            raise UsageError(
                f"a guest's maximum ({exact_size(self.max_bytes)}) is not less than what it starts "
                f"with ({exact_size(self.memory_bytes)})"
            )
        if self.claim_bytes > self.max_bytes - self.memory_bytes:
            raise UsageError(
                f"a claim is for what a guest can still get, {exact_size(self.max_bytes)} less "
                f"{exact_size(self.memory_bytes)}, not for {exact_size(self.claim_bytes)}"
            )


def read_guest_spec(directory: Path) -> GuestSpec | None:
    """The spec of the guest in a directory; None when the guest was not made completely.

    :raise MachineError: when it can't be read, or is from a newer openrbu.
    """
    path = directory / _FILE_NAME
    try:
        document = parse_object(read_kept(path))
        document = FORMAT.convert(document, FORMAT.number_of(document))
        del document["format"]
        spec = read(GuestSpec, document)
        spec.check()
    except FileNotFoundError:
        return None
    except NewerFormatError as error:
        raise MachineError(f"{path}: {error}: update openrbu") from None
    except OddFileError as error:
        raise MachineError(f"{path} is damaged ({error.strerror})") from None
    except (DamagedInputError, UsageError) as error:
        raise MachineError(f"{path} is damaged ({error})") from None
    return spec


def write_guest_spec(directory: Path, spec: GuestSpec) -> None:
    """Write the spec of a guest into its directory.

    :raise OSError: for an error of the disk.
    """
    document = {"format": FORMAT.number, **to_document(spec)}
    text = json.dumps(document, indent=2)
    write_whole(directory / _FILE_NAME, f"{text}\n".encode())
