"""What a virtual machine is: its `machine.json`, and the SMBIOS tables that it was made with."""

from __future__ import annotations

import contextlib
import operator
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

from openrbu.bios.rule_names import check_rule_name
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.errors import DamagedInputError, MachineError, UsageError
from openrbu.file_format import Document, FileFormat, NewerFormatError, parse_object
from openrbu.formats.revision import MAX_REVISION
from openrbu.formats.smbios import Tables
from openrbu.kernel.faults import KEXEC_LOADED
from openrbu.kernel.restart_files import RestartFiles
from openrbu.machine.faults import parse_faults
from openrbu.machine.store import disk_errors
from openrbu.memory.physical import pc_regions
from openrbu.system.files import write_whole
from openrbu.system.kept_files import OddFileError, read_kept
from openrbu.typed_json import Natural, read, to_text


def _from_1(document: Document) -> Document:
    """Format 1 has no rule set of the BIOS, and may lack the fields of newer kinds of machines."""
    fresh = {"bios_rules": "published", "hardware_revision": 0, **document}
    if fresh.get("xen") is not None:
        fresh["xen"] = {"takes_memory": False, **fresh["xen"]}
    return {"faults": [], "entry_delay_s": 0.0, "xen": None, **fresh}


def _from_2(document: Document) -> Document:
    """Format 2 has no settings of the kernel's restart."""
    return {**document, "kernel_words": "", "has_reboot_files": True}


FORMAT = FileFormat(3, {1: _from_1, 2: _from_2})
"""The format of a machine's directory. 2 has a rule set and a hardware revision, and NVRAM records
that the BIOS is writing a result; 3 has settings of the kernel's restart."""

MAX_ENTRY_DELAY_S = 3600.0


@dataclass(frozen=True, slots=True)
class XenConfig:
    """A machine that runs Xen. Its own Linux is the guest dom0, which starts with `dom0_bytes` of
    memory and may have up to `dom0_max_bytes`, and whose balloon driver follows `profile`.

    `takes_memory`: the RAM of a guest is taken from this computer when the guest gets it, and not
    only when it is written to.
    """

    dom0_bytes: Natural
    dom0_max_bytes: Natural
    profile: str
    takes_memory: bool = False


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """What a machine is: the content of its `machine.json`. Sizes are in bytes.

    `faults`: as `machine.faults` reads them. `tables_crc32`: CRC-32 of its SMBIOS entry point and
    table, which must not change. `entry_delay_s`: the seconds that its kernel needs to make a
    firmware entry. `xen`: None where Linux does not run on Xen. `bios_rules`: the rule set of its
    BIOS (`bios.rules`). `hardware_revision`: the one for which the BIOS takes images. Machines made
    before openrbu 0.2 have neither of the last two. `kernel_words`: more words of its kernel's
    command line. `has_reboot_files`: its kernel has `/sys/kernel/reboot`, which those before 5.11
    have not.
    """

    model: str
    ram_bytes: Natural
    tables_crc32: Natural
    profile: str
    created_at: str
    made_by: str
    faults: tuple[str, ...] = ()
    entry_delay_s: float = 0.0
    xen: XenConfig | None = None
    bios_rules: str = "published"
    hardware_revision: Natural = 0
    kernel_words: str = ""
    has_reboot_files: bool = True
    format: Natural = FORMAT.number

    def check_kexec(self) -> None:
        """:raise MachineError: when the machine runs Xen, where its Linux alone can't be started
        once more."""
        if self.xen is not None:
            raise MachineError("a machine that runs Xen can't be started by kexec")

    def restart_files(self, *, by_kexec: bool) -> RestartFiles:
        """How its kernel begins and restarts. `by_kexec`: another kernel starts it."""
        return RestartFiles(
            self.kernel_words,
            has_files=self.has_reboot_files,
            by_kexec=by_kexec,
            loads_kexec=KEXEC_LOADED in parse_faults(self.faults),
        )


def load_config(directory: Path) -> MachineConfig:
    """The configuration of the machine in `directory`.

    :raise MachineError: when it can't be read, or is from a newer openrbu; or when the directory
        contains something other than files, directories and sockets.
    """
    path = directory / "machine.json"
    with disk_errors(directory):
        _check_kinds(directory)
        try:
            return _parse_config(read_kept(path))
        except FileNotFoundError:
            raise MachineError(
                f"machine {directory.name!r} has no machine.json: it was not made completely, or "
                f"is damaged; remove it: rbu machine rm {directory.name}"
            ) from None
        except NewerFormatError as error:
            raise MachineError(
                f"{path}: {error}: update openrbu, or remove the machine: rbu machine rm "
                f"{directory.name}"
            ) from None
        except OddFileError as error:
            raise MachineError(
                f"{path} is damaged ({error.strerror}); to remove the machine: rbu machine rm "
                f"{directory.name}"
            ) from None
        except (DamagedInputError, ValueError, OverflowError, UsageError) as error:
            raise MachineError(
                f"{path} is damaged ({error}); to remove the machine: rbu machine rm "
                f"{directory.name}"
            ) from None


def _check_kinds(directory: Path) -> None:
    """Check that opening an entry of a machine's directory does not block, as a FIFO does.

    :raise MachineError: when an entry is not a file, a directory or a socket.
    """
    for path in directory.iterdir():
        if path.name.startswith("state."):  # `StateFile` looks itself, and knows the way out
            continue
        with contextlib.suppress(OSError):  # removed just now; or it is told when it is opened
            kind = stat.S_IFMT(path.stat().st_mode)
            if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFSOCK):
                raise MachineError(f"{path} is neither a file nor a directory: remove it")


def _parse_config(data: bytes) -> MachineConfig:
    """The configuration in a `machine.json`.

    :raise NewerFormatError: when it is from a newer openrbu.
    :raise DamagedInputError: when it does not have its format.
    :raise UsageError, ValueError: when a value in it is not possible.
    """
    document = parse_object(data)
    config = read(MachineConfig, FORMAT.convert(document, FORMAT.number_of(document)))
    pc_regions(config.ram_bytes)
    if config.xen is not None:
        from openrbu.drivers.xen_balloon_profiles import (  # noqa: PLC0415  (start-up time)
            balloon_profile,
        )

        balloon_profile(config.xen.profile)
    profile(config.profile)
    parse_faults(config.faults)
    check_entry_delay(config.entry_delay_s)
    check_bios(config.bios_rules, config.hardware_revision)
    check_kernel_words(config.kernel_words)
    return config


def check_bios(rules: str, revision: int) -> None:
    """:raise UsageError: when there is no such rule set, or an image's header can't have the
    hardware revision."""
    check_rule_name(rules)
    if not 0 <= operator.index(revision) <= MAX_REVISION:
        raise UsageError(f"a hardware revision is from 0 to {MAX_REVISION}, not {revision}")


def check_entry_delay(seconds: float) -> None:
    """:raise UsageError: when the delay is negative, or longer than `MAX_ENTRY_DELAY_S`."""
    if not 0 <= seconds <= MAX_ENTRY_DELAY_S:
        raise UsageError(
            f"a firmware entry comes after 0 to {MAX_ENTRY_DELAY_S:.0f} seconds, not {seconds}"
        )


def check_kernel_words(words: str) -> None:
    """:raise UsageError: when it is not printable ASCII in one line."""
    if not (words.isascii() and words.isprintable()):
        raise UsageError(f"a kernel's command line is one line of ASCII, not {words!a:.40}")


def save_config(directory: Path, config: MachineConfig) -> None:
    """Write `machine.json`, which makes the directory a machine."""
    text = to_text(config, indent=2)
    write_whole(directory / "machine.json", f"{text}\n".encode())


def read_tables(directory: Path, config: MachineConfig) -> Tables:
    """The SMBIOS tables that a machine was made with.

    :raise MachineError: when a file is missing, or they are damaged.
    """
    try:
        names = ("smbios_entry_point", "DMI")
        entry_point, table = [read_kept(directory / name) for name in names]
    except FileNotFoundError as error:
        text = f"machine {directory.name!r} has lost its file {error.filename}"
        raise MachineError(text) from None
    except OddFileError as error:
        text = f"machine {directory.name!r} has damaged SMBIOS tables: {error.filename}: "
        raise MachineError(f"{text}{error.strerror}") from None
    if zlib.crc32(entry_point + table) != config.tables_crc32:
        raise MachineError(
            f"machine {directory.name!r} has damaged SMBIOS tables: they are not those it was made "
            "with"
        )
    return Tables.parse(entry_point, table)
