"""Makes a machine: its tables, its first BIOS, its files."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from openrbu import __version__
from openrbu.bios.activation import bios_activation
from openrbu.bios.cmos_file import CmosFile, cmos_file_bytes
from openrbu.bios.firmware import make_firmware
from openrbu.bios.flash import BLOCK_BYTES, Flash
from openrbu.bios.nvram import Nvram, NvramFile
from openrbu.bios.rules import known_flash_size, rules_for
from openrbu.cmos import banks_of
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.errors import MachineError, UsageError
from openrbu.formats import dell, security, smbios, tokens
from openrbu.formats.check_words import CHECK_WORDS_BYTES
from openrbu.formats.hdr import HEADER_SIZE_BYTES
from openrbu.formats.packet import password_crc
from openrbu.formats.smi_passwords import MAX_PASSWORD_CHARS, PasswordProperties
from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.machine import store
from openrbu.machine.clock import Clock, local_now
from openrbu.machine.config import (
    MachineConfig,
    XenConfig,
    check_bios,
    check_entry_delay,
    check_kernel_words,
    save_config,
)
from openrbu.machine.factory_tables import check_system_id, filled_in, read_tables
from openrbu.machine.faults import parse_faults, with_options
from openrbu.machine.guest_spec import MIN_GUEST_BYTES
from openrbu.machine.models import DEFAULT_MODEL, Model, TokenKind, model
from openrbu.machine.ram import create_ram, link_ram, remove_ram
from openrbu.machine.shared_flash import leaving, make_flash
from openrbu.system.files import fresh_directory
from openrbu.system.signals import signals_deferred
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, exact_size
from openrbu.xen.hypervisor import XEN_RESERVED

MIN_RAM_BYTES = 64 * MIB
MAX_RAM_BYTES = 8 * 1024 * GIB
MAX_FLASH_BYTES = 64 * MIB

_FRESH = ".new-"
"""The beginning of the name of a directory in which a machine is being made."""

SERVICE_TAG = "OPENRBU"


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a new machine is to be. A field that is None: as the model has it.

    `model`: None is `DEFAULT_MODEL`. With `tables` no model may be named, because the tables
    describe the machine.

    `tables` is a file or a directory with a real machine's tables: see `factory_tables`.
    `system_id`, where given, replaces the one in them. `firmware` is the first BIOS, of the
    flash's size; None: openrbu makes one. `bios_rules` None: the rules for the model, or for the
    system that the tables describe. `kernel_words`, `has_reboot_files`: as `MachineConfig` has
    them. `faults`: as `rbu machine faults` lists them, such as `("no-battery", "fragmented=3")`.
    `xen`: the machine runs Xen. `ram_directory`: where its RAM is kept, such as a tmpfs;
    None: with its other files.
    """

    model: str | None = None
    bios_version: str | None = None
    ram_bytes: int | None = None
    profile: str = "documented"
    tables: str | os.PathLike[str] | None = None
    system_id: int | None = None
    faults: Sequence[str] = ()
    admin_password: str | None = field(default=None, repr=False)
    flash_size_bytes: int | None = None
    entry_delay_s: float = 0.0
    firmware: bytes | None = field(default=None, repr=False)
    bios_rules: str | None = None
    hardware_revision: int = 0
    kernel_words: str = ""
    has_reboot_files: bool = True
    xen: XenConfig | None = None
    ram_directory: str | os.PathLike[str] | None = None


def make_machine(name: str, spec: MachineSpec, *, clock: Clock = local_now) -> Path:
    """Make a machine, which is off, and return its directory. After an error nothing is left.

    :raise UsageError: when a name, version, size or profile in the spec is not possible.
    :raise MachineError: when there is a machine `name`, or for an error of the disk.
    :raise DamagedInputError: when the tables can't be used.
    """
    directory = store.machine_directory(name)
    parts = _parts(spec, clock())
    with store.disk_errors(directory):
        fresh = _fresh_directory(directory)
        try:
            _write(fresh, parts, directory.parent)
            if spec.ram_directory is not None:
                link_ram(fresh, name, Path(spec.ram_directory))
            create_ram(fresh, parts.config)
            _put_in_place(fresh, directory)
        except BaseException:
            with signals_deferred():
                remove_ram(fresh)
                with leaving(fresh, directory.parent):
                    shutil.rmtree(fresh, ignore_errors=True)
            raise
    return directory


def write_parts(directory: Path, spec: MachineSpec, *, clock: Clock = local_now) -> None:
    """Write the files of a machine, except for its RAM, into an existing directory.

    :raise UsageError, DamagedInputError: as `make_machine`.
    :raise OSError: for an error of the disk.
    """
    _write(directory, _parts(spec, clock()))


@dataclass(frozen=True, slots=True)
class _Parts:
    """The content of a machine's files."""

    config: MachineConfig
    tables: smbios.Tables
    cmos: bytes
    firmware: bytes
    admin_password: str | None = field(repr=False)


def _parts(spec: MachineSpec, now: dt.datetime) -> _Parts:
    """The content of the files of a machine made from `spec`.

    :raise UsageError, DamagedInputError: as `make_machine`.
    """
    spec = with_options(spec, parse_faults(spec.faults))
    profile(spec.profile)
    _check_password(spec.admin_password)
    check_entry_delay(spec.entry_delay_s)
    check_kernel_words(spec.kernel_words)
    if spec.tables is not None and spec.model is not None:
        raise UsageError(
            f"the machine is either a {spec.model} or the one that the tables in {spec.tables} "
            "describe: leave out --model or --from-tables"
        )
    from_tables = None if spec.tables is None else Path(spec.tables)
    kind = model(DEFAULT_MODEL if spec.model is None else spec.model)
    ram_bytes = _ram_bytes(kind.ram_bytes if spec.ram_bytes is None else spec.ram_bytes)
    if spec.xen is not None:
        _check_xen(spec.xen, ram_bytes)
    if spec.system_id is not None:
        check_system_id(spec.system_id)
    tables, cmos = (_make_tables(kind), b"") if from_tables is None else read_tables(from_tables)
    tables = filled_in(
        tables,
        system_id=spec.system_id,
        bios_version=spec.bios_version,
        flash_size_bytes=spec.flash_size_bytes,
    )
    tables, flash_size_bytes = _fit_bios(tables, kind, spec)
    rules = spec.bios_rules
    if rules is None:
        rules = kind.bios_rules if spec.tables is None else rules_for(tables).name
    check_bios(rules, spec.hardware_revision)
    config = MachineConfig(
        model=kind.name if from_tables is None else from_tables.resolve().name,
        ram_bytes=ram_bytes,
        tables_crc32=zlib.crc32(b"".join(tables.build())),
        profile=spec.profile,
        created_at=now.isoformat(timespec="seconds"),
        made_by=__version__,
        faults=tuple(spec.faults),
        entry_delay_s=spec.entry_delay_s,
        kernel_words=spec.kernel_words,
        has_reboot_files=spec.has_reboot_files,
        xen=spec.xen,
        bios_rules=rules,
        hardware_revision=spec.hardware_revision,
    )
    version = dell.BiosInformation.of(tables).version
    title = f"{dell.SystemInformation.of(tables).product} BIOS {version}"
    firmware = make_firmware(title, flash_size_bytes) if spec.firmware is None else spec.firmware
    return _Parts(config, tables, cmos, firmware, spec.admin_password)


def _write(directory: Path, parts: _Parts, machines: Path | None = None) -> None:
    bios = dell.BiosInformation.of(parts.tables)
    version, date = bios.version, bios.release_date
    content = Flash.content(parts.firmware, version=version, release_date=date)
    make_flash(directory, machines, content)
    _write_tables(directory, parts.tables)
    _write_settings(directory, parts.tables, parts.cmos, parts.admin_password)
    save_config(directory, parts.config)


def _fresh_directory(directory: Path) -> Path:
    """A directory beside that of all machines, to make one in, so that no process sees an
    incomplete machine. (In that of all machines, what killed processes have left would be looked
    for among them.)"""
    machines = directory.parent
    for path in (machines.parent, machines):
        with store.home_errors(path):
            path.mkdir(0o700, parents=True, exist_ok=True)
    store.check_owner(directory)
    return fresh_directory(machines.parent, _FRESH)


def _put_in_place(fresh: Path, directory: Path) -> None:
    """Rename a complete machine to its name.

    :raise MachineError: when there is a machine of that name already.
    """
    try:
        fresh.rename(directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        name = directory.name
        raise MachineError(
            f"there is a machine {name!r} already; to make another one, remove it first: "
            f"rbu machine rm {name}"
        ) from None


def _ram_bytes(wanted: int) -> int:
    if not MIN_RAM_BYTES <= wanted <= MAX_RAM_BYTES or wanted % MIB:
        raise UsageError(
            f"a machine has {exact_size(MIN_RAM_BYTES)} to {exact_size(MAX_RAM_BYTES)} of RAM in "
            f"whole MiB, not {exact_size(wanted)}"
        )
    return wanted


def _check_password(password: str | None) -> None:
    """Check that a BIOS setup would take it.

    :raise UsageError: when it would not.
    """
    if password is None:
        return
    password_crc(password)
    if not 0 < len(password) <= MAX_PASSWORD_CHARS:
        raise UsageError(f"a BIOS admin password has 1 to {MAX_PASSWORD_CHARS} characters")


def _check_xen(xen: XenConfig, ram_bytes: int) -> None:
    """Check the sizes of a Xen host.

    :raise UsageError: when they are not possible.
    """
    balloon_profile(xen.profile)
    room = ram_bytes - XEN_RESERVED[0].size_bytes
    if room < MIN_GUEST_BYTES:
        least = exact_size(MIN_GUEST_BYTES + XEN_RESERVED[0].size_bytes)
        raise UsageError(f"a Xen host needs {least} of RAM or more, not {exact_size(ram_bytes)}")
    if not MIN_GUEST_BYTES <= xen.dom0_bytes <= room or xen.dom0_bytes % PAGE_SIZE:
        raise UsageError(
            f"dom0 has {exact_size(MIN_GUEST_BYTES)} to {exact_size(room)} of this machine's "
            f"{exact_size(ram_bytes)} in whole pages, not {exact_size(xen.dom0_bytes)}"
        )
    if xen.dom0_max_bytes < xen.dom0_bytes or xen.dom0_max_bytes % PAGE_SIZE:
        raise UsageError(
            "dom0's maximum is in whole pages, and not less than what it starts with "
            f"({exact_size(xen.dom0_bytes)}); it can't be {exact_size(xen.dom0_max_bytes)}"
        )
    if xen.dom0_max_bytes > MAX_RAM_BYTES:
        raise UsageError(f"a guest may have {exact_size(MAX_RAM_BYTES)} at most")


def _fit_bios(tables: smbios.Tables, kind: Model, spec: MachineSpec) -> tuple[smbios.Tables, int]:
    """The tables with the first BIOS's version in them, and the size of the flash in bytes.

    Tables and models can say another size of the ROM than the flash has; that size stays unless
    the spec has a size.
    """
    information = dell.BiosInformation.of(tables)
    wanted_version = spec.bios_version
    version = BiosVersion.parse(information.version if wanted_version is None else wanted_version)
    if wanted_version is not None and version.style is VersionStyle.UNREADABLE:
        raise UsageError(f"{wanted_version!r} is not a BIOS version (examples: A05, 2.1.2)")
    wanted = spec.flash_size_bytes if spec.firmware is None else len(spec.firmware)
    size, rom_size = wanted, wanted
    if size is None and spec.tables is None:
        size, rom_size = kind.flash_size_bytes, kind.rom_size_bytes or kind.flash_size_bytes
    elif size is None:
        rom_size = information.rom_size_bytes or 0
        size = known_flash_size(tables) or rom_size
    if size < BLOCK_BYTES or size % BLOCK_BYTES or size > MAX_FLASH_BYTES:
        raise UsageError(
            f"a flash has whole blocks of 64 KiB, up to {exact_size(MAX_FLASH_BYTES)}, not "
            f"{exact_size(size)}: give --flash-size"
        )
    tables = dell.with_bios(tables, version.text, information.release_date)
    return dell.with_rom_size(tables, rom_size or size), size


def _make_tables(kind: Model) -> smbios.Tables:
    """New tables of a model."""
    rom_size = kind.rom_size_bytes or kind.flash_size_bytes
    structures = [
        dell.make_bios_information(
            vendor=kind.vendor,
            version=kind.bios_version,
            release_date=kind.release_date,
            rom_size_bytes=rom_size,
        ),
        dell.make_system_information(
            vendor=kind.vendor, product=kind.product, service_tag=SERVICE_TAG
        ),
        dell.make_oem_strings(["Dell System", f"1[{kind.system_id:04X}]"]),
        dell.make_revisions_and_ids(kind.system_id),
        security.make_hardware_security(),
        _make_tokens(kind),
        dell.make_rbu(packet=kind.packets, minimum_size_kib=_image_kib(rom_size)),
        smbios.make_structure(127, 0x7F00, b""),
    ]
    return smbios.make_tables(smbios.make_entry_point(version=(2, 6)), structures)


def _image_kib(flash_size_bytes: int) -> int:
    """Whole KiB of an image: 513 for a flash of 512 KiB, as real machines have it."""
    return -(-(HEADER_SIZE_BYTES + flash_size_bytes + CHECK_WORDS_BYTES) // KIB)


def _make_tokens(kind: Model) -> smbios.Structure:
    activate, cancel = tokens.ACTIVATE, tokens.CANCEL
    if kind.tokens is TokenKind.CALLING_INTERFACE:
        return tokens.make_calling_interface(
            handle=0xDA00,
            port=0x00B2,
            code=0x4F,
            supported=0x0003,
            tokens=[(activate, activate, 1), (cancel, cancel, 0)],
        )
    return tokens.make_indexed_io(
        handle=0xD401,
        index_port=0x70,
        data_port=0x71,
        check=tokens.CheckRange(tokens.CheckType.NEGATED_WORD_SUM, 0x40, 0x5B, 0x6D),
        tokens=[(activate, 0x78, 0xBF, 0x40), (cancel, 0x78, 0xBF, 0x00)],
    )


def _write_tables(directory: Path, tables: smbios.Tables) -> None:
    for name, data in zip(("smbios_entry_point", "DMI"), tables.build(), strict=True):
        (directory / name).write_bytes(data)


def _write_settings(
    directory: Path, tables: smbios.Tables, cmos: bytes, admin_password: str | None
) -> None:
    banks = banks_of(tables)
    size = cmos_file_bytes(banks)
    (directory / "cmos").write_bytes(cmos[:size].ljust(size, b"\0"))
    contents = Nvram()
    if admin_password is not None:
        contents.admin_password_crc = password_crc(admin_password)
        contents.admin_password_keys_crc = _keys_crc(admin_password)
    NvramFile.create(directory / "nvram.json", contents)
    ports = CmosFile(directory / "cmos", banks=banks)
    put_tokens_right(tables, ports, NvramFile(directory / "nvram.json"))


def _keys_crc(password: str) -> int | None:
    """The CRC-32 of the scan codes of a password; None where it can't be typed as 8 keys."""
    with contextlib.suppress(UsageError):
        return zlib.crc32(PasswordProperties(is_set=True).encoded(password))
    return None


def put_tokens_right(tables: smbios.Tables, cmos: CmosFile, nvram: NvramFile) -> None:
    """What a BIOS does at its first start: clear the activation token, and correct the check
    values."""
    for token in tokens.all_tokens(tables):
        if isinstance(token, tokens.SmiToken):
            nvram.contents.settings.setdefault(token.location, 0)
    activation = bios_activation(tables, cmos, nvram)
    if activation is not None:
        activation.disarm()
        activation.clear_if_check_is_wrong()
