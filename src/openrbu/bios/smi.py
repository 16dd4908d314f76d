"""The BIOS's side of the SMI calling interface: reads and sets tokens of SMBIOS type 0xDA.

Facts: docs/reference/smbios-and-tokens.md, S14 and S15.

Class 0, select 0 reads the setting at location arg1; class 1, select 0 writes value arg2 there.
Any other class or select, also those about passwords, returns -2, unsupported. A location without a
token, and a value over 16 bits, return -1, failure. The return code is in res1: 0 for success,
negative for an error; a value that was read is in res2. Nothing else in the buffer changes. These
are the calls and the return codes that libsmbios uses; its smbios-token-ctl sets tokens here in the
tests.

Activate (0x5C) and cancel (0x5D) have a location each; a write that sets one of them makes the BIOS
clear the other.
"""

from __future__ import annotations

import struct

from openrbu.bios.nvram import NvramFile
from openrbu.errors import DamagedInputError
from openrbu.formats.tokens import READ_SETTING, SMI_CALL, WRITE_SETTING, SmiCall, SmiToken

SUCCESS = 0
FAILURE = -1
UNSUPPORTED = -2

MAX_VALUE = 0xFFFF
"""Token values are u16."""

_RESULTS = struct.Struct("<4i")


class SmiHandler:
    """Handles calls on the command port and code that the tables name; settings are in NVRAM."""

    def __init__(self, nvram: NvramFile, activate: SmiToken, cancel: SmiToken) -> None:
        self._nvram = nvram
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
        location, value = call.arguments[0], call.arguments[1]
        settings = self._nvram.contents.settings
        operation = (call.smi_class, call.smi_select)
        if operation not in (READ_SETTING, WRITE_SETTING):
            return (UNSUPPORTED, 0, 0, 0)
        if location not in settings:
            return (FAILURE, 0, 0, 0)
        if operation == WRITE_SETTING:
            if value > MAX_VALUE:
                return (FAILURE, 0, 0, 0)
            self._write(location, value)
        return (SUCCESS, settings[location], 0, 0)

    def _write(self, location: int, value: int) -> None:
        if location == self._activate.location:
            self.set_armed(value == self._activate.value)
        elif location == self._cancel.location:
            if value == self._cancel.value:
                self.set_armed(False)
        else:
            self._nvram.contents.settings[location] = value
            self._nvram.save()
