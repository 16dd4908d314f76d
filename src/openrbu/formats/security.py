"""What SMBIOS says of a machine's passwords: type 24, hardware security.

Facts: docs/reference/smbios-and-tokens.md, S10; the SMBIOS specification (DSP0134) for the
structure; the tables of real machines for what it says there. A Precision T7600's byte is 0x00, an
XPS 13 9365's 0x82. Four machines of 2003 to 2006 (PowerEdge 400SC and SC420, Precision 390 and 490)
all have 0x66: power-on and admin password enabled. That all four had both set is not likely, so
"enabled" may mean no more there than that there can be one.
"""

from __future__ import annotations

from enum import IntEnum

from openrbu.formats.smbios import Structure, Tables, make_structure

HARDWARE_SECURITY = 24

_SETTINGS = 4
_ADMIN_SHIFT = 2
_STATUS_MASK = 0b11


class PasswordStatus(IntEnum):
    """What the two bits of a password say."""

    DISABLED = 0
    ENABLED = 1
    NOT_IMPLEMENTED = 2
    UNKNOWN = 3


def admin_password_status(tables: Tables) -> PasswordStatus:
    """What the tables say of the BIOS admin password; unknown where they say nothing."""
    structure = tables.first(HARDWARE_SECURITY)
    settings = None if structure is None else structure.byte(_SETTINGS)
    if settings is None:
        return PasswordStatus.UNKNOWN
    return PasswordStatus(settings >> _ADMIN_SHIFT & _STATUS_MASK)


def with_admin_password(tables: Tables, *, is_set: bool) -> Tables:
    """The tables of a machine with an admin password, or without one; unchanged where they have no
    room to say it."""
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
    """Type 24, as a Precision T7600 has it: every password can be, and none is set."""
    return make_structure(HARDWARE_SECURITY, 0x1800, bytes(1))
