"""What SMBIOS says about a machine's passwords: type 24, hardware security.

Facts: docs/reference/smbios-and-tokens.md, S10; the SMBIOS specification (DSP0134) for the
structure; the tables of real machines for its values. A Precision T7600's byte is 0x00, an XPS 13
9365's 0x82. Four machines of 2003 to 2006 (PowerEdge 400SC and SC420, Precision 390 and 490) all
have 0x66: power-on and admin password enabled. It is not likely that all four had both set, so
"enabled" may only mean there that a password can be set.
"""

from __future__ import annotations

from enum import IntEnum

from openrbu.formats.smbios import Structure, Tables, make_structure

HARDWARE_SECURITY = 24

_SETTINGS = 4
_ADMIN_SHIFT = 2
_STATUS_MASK = 0b11


class PasswordStatus(IntEnum):
    """The value of a password's two bits."""

    DISABLED = 0
    ENABLED = 1
    NOT_IMPLEMENTED = 2
    UNKNOWN = 3


def admin_password_status(tables: Tables) -> PasswordStatus:
    """What the tables say about the BIOS admin password; unknown if they say nothing."""
    structure = tables.first(HARDWARE_SECURITY)
    settings = None if structure is None else structure.byte(_SETTINGS)
    if settings is None:
        return PasswordStatus.UNKNOWN
    return PasswordStatus(settings >> _ADMIN_SHIFT & _STATUS_MASK)


def with_admin_password(tables: Tables, *, is_set: bool) -> Tables:
    """The tables with the admin password set or not set; unchanged if they have no field for it."""
    structure = tables.first(HARDWARE_SECURITY)
    settings = None if structure is None else structure.byte(_SETTINGS)
    if structure is None or settings is None:
        return tables
    status = PasswordStatus.ENABLED if is_set else PasswordStatus.DISABLED
    fresh = settings & ~(_STATUS_MASK << _ADMIN_SHIFT) | status << _ADMIN_SHIFT
    if fresh == settings:
        return tables
    return tables.replaced(structure, structure.with_field(_SETTINGS, bytes([fresh])))


def make_hardware_security() -> Structure:
    """Type 24 as in a Precision T7600: each password is supported, none is set."""
    return make_structure(HARDWARE_SECURITY, 0x1800, bytes(1))
