"""The BIOS's side of the SMI calling interface: reads and sets tokens of SMBIOS type 0xDA.

Facts: docs/reference/smbios-and-tokens.md, S14, S15 and S18.

Class 0, select 0 reads the setting at location arg1; class 1, select 0 writes value arg2 there. A
location without a token, and a value over 16 bits, return -1, failure. The return code is in res1:
0 for success, negative for an error; a value that was read is in res2. Nothing else in the buffer
changes.

Class 10 is the admin password: its status, its properties, and two ways to verify it. A password
that is right gives a security key. While a password is set, a write without that key (arg3) returns
-1. Any other class or select returns -2, unsupported.

These are the calls and the return codes that libsmbios uses; its smbios-token-ctl sets tokens here
in the tests, with a password and without one.

Activate (0x5C) and cancel (0x5D) have a location each; a write that sets one of them makes the BIOS
clear the other.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from openrbu.bios.nvram import NvramFile
from openrbu.errors import AddressError, DamagedInputError
from openrbu.formats import smi_passwords
from openrbu.formats.smi_passwords import (
    ADMIN_PASSWORD,
    IS_SET,
    MAX_PASSWORD_CHARS,
    NOT_SET,
    PasswordProperties,
    password_in,
)
from openrbu.formats.tokens import READ_SETTING, SMI_CALL, WRITE_SETTING, SmiCall, SmiToken
from openrbu.memory.physical import ReadableMemory
from openrbu.units import PhysAddr

SUCCESS = 0
FAILURE = -1
UNSUPPORTED = -2

MAX_VALUE = 0xFFFF
"""Token values are u16."""

_RESULTS = struct.Struct("<4i")


class SmiHandler:
    """Handles calls on the command port and code that the tables name; settings are in NVRAM.

    `memory` returns the memory in which a caller puts a password. None: this BIOS is one of the
    older ones, which get it in the arguments, as scan codes.
    """

    def __init__(
        self,
        nvram: NvramFile,
        activate: SmiToken,
        cancel: SmiToken,
        memory: Callable[[], ReadableMemory] | None = None,
    ) -> None:
        self._nvram, self._memory = nvram, memory
        self._activate, self._cancel = activate, cancel

    def __call__(self, buffer: bytes) -> bytes:
        """The buffer after the call; unchanged if it is not a call for this BIOS."""
        try:
            call = SmiCall.unpack(buffer)
        except DamagedInputError:
            return buffer
        ours = (self._activate.command_port, self._activate.command_code)
        if (call.command_port, call.command_code) != ours:
            return buffer
        start = SMI_CALL.offset_of("results")
        return buffer[:start] + _RESULTS.pack(*self._answer(call)) + buffer[start + _RESULTS.size :]

    def set_armed(self, armed: bool) -> None:
        """Make exactly one of the two tokens active."""
        settings = self._nvram.contents.settings
        on, off = (self._activate, self._cancel) if armed else (self._cancel, self._activate)
        settings[off.location] = 0 if off.value else 1
        settings[on.location] = on.value  # last, in case they share a location
        self._nvram.save()

    @property
    def is_armed(self) -> bool:
        """Whether the activate token is active."""
        settings = self._nvram.contents.settings
        return settings.get(self._activate.location) == self._activate.value

    def disarm(self) -> None:
        """Make the cancel token active."""
        self.set_armed(False)

    def clear_if_check_is_wrong(self) -> str:
        """Empty: settings in NVRAM have no check value."""
        return ""

    def _answer(self, call: SmiCall) -> tuple[int, int, int, int]:
        location, value, key, _ = call.arguments
        settings = self._nvram.contents.settings
        operation = (call.smi_class, call.smi_select)
        if call.smi_class == ADMIN_PASSWORD:
            return self._answer_on_password(call)
        if operation not in (READ_SETTING, WRITE_SETTING):
            return (UNSUPPORTED, 0, 0, 0)
        if location not in settings:
            return (FAILURE, 0, 0, 0)
        if operation == WRITE_SETTING:
            if value > MAX_VALUE or (self._security_key and key != self._security_key):
                return (FAILURE, 0, 0, 0)
            self._write(location, value)
        return (SUCCESS, settings[location], 0, 0)

    def _answer_on_password(self, call: SmiCall) -> tuple[int, int, int, int]:
        contents, arguments = self._nvram.contents, call.arguments
        is_set = contents.admin_password_crc is not None
        match call.smi_select:
            case smi_passwords.STATUS:
                return (IS_SET if is_set else NOT_SET, 0, 0, 0)
            case smi_passwords.PROPERTIES if self._memory is not None:
                return PasswordProperties(is_set, MAX_PASSWORD_CHARS, is_text=True).results
            case smi_passwords.VERIFY_IN_BUFFER if self._memory is not None:
                return self._verified(self._password_at(arguments[0]), contents.admin_password_crc)
            case smi_passwords.VERIFY_IN_ARGUMENTS if contents.admin_password_keys_crc is not None:
                return self._verified(password_in(arguments), contents.admin_password_keys_crc)
        return (UNSUPPORTED, 0, 0, 0)

    def _password_at(self, address: int) -> bytes | None:
        """The password at an address in memory, up to its first zero; None: no memory is there."""
        assert self._memory is not None
        try:
            data = self._memory().read(PhysAddr(address), MAX_PASSWORD_CHARS)
        except AddressError:
            return None
        return data.partition(b"\0")[0]

    def _verified(self, password: bytes | None, crc: int | None) -> tuple[int, int, int, int]:
        if crc is None or password is None or zlib.crc32(password) != crc:
            return (FAILURE, 0, 0, 0)
        return (SUCCESS, self._security_key, 0, 0)

    @property
    def _security_key(self) -> int:
        """What a caller has to have that writes a setting: never 0 where a password is set, and 0
        where none is."""
        crc = self._nvram.contents.admin_password_crc
        return 0 if crc is None else (crc ^ crc >> 16) & MAX_VALUE or MAX_VALUE

    def _write(self, location: int, value: int) -> None:
        if location == self._activate.location:
            self.set_armed(value == self._activate.value)
        elif location == self._cancel.location:
            if value == self._cancel.value:
                self.set_armed(False)
        else:
            self._nvram.contents.settings[location] = value
            self._nvram.save()
