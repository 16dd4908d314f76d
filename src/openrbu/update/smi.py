"""Calls to a BIOS by SMI, through the files of the `dcdbas` driver.

Facts: docs/reference/smbios-and-tokens.md, S15 and S17; docs/reference/driver-files.md, D9 and D10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openrbu.errors import DamagedInputError, UpdateFailedError
from openrbu.formats.tokens import NO_REPLY, SMI_CALL, SmiCall, SmiToken
from openrbu.hosts.base import Host, read_file, read_text

DCDBAS = "/sys/devices/platform/dcdbas"


@dataclass(frozen=True, slots=True)
class CallingInterface:
    """The calling interface of a machine's BIOS. The module is loaded when it is needed."""

    host: Host
    command_port: int
    command_code: int

    @classmethod
    def of(cls, host: Host, token: SmiToken) -> CallingInterface:
        """The one that a token is behind."""
        return cls(host, token.command_port, token.command_code)

    @property
    def is_there(self) -> bool:
        """Whether it can be called without a module being loaded."""
        return self.host.exists(f"{DCDBAS}/smi_request")

    def call(
        self,
        operation: tuple[int, int],
        arguments: Sequence[int] = (0, 0, 0, 0),
        *,
        behind: bytes = b"",
    ) -> tuple[int, ...]:
        """One call, `operation` being its class and select; the four results. The
        first one is `NO_REPLY` where the BIOS did not reply.

        `behind` is put behind the call, and its physical address is the first argument then. The
        file is locked, as all programs that use it do. Afterwards the buffer is cleared: a call may
        have a password in it.

        :raise ObstacleError: when dcdbas can't be loaded, or another program keeps the lock.
        :raise UpdateFailedError: when the driver shows no address of its buffer, or no call in it.
        :raise OSError: the kernel's error.
        """
        if not self.is_there:
            self.host.load_module("dcdbas", {})
        size_bytes = SMI_CALL.size_bytes + len(behind)
        with self.host.path_lock(f"{DCDBAS}/smi_request"):
            # the size first: without a buffer a reset returns ENODEV
            self.host.write(f"{DCDBAS}/smi_data_buf_size", f"{size_bytes}".encode())
            self.host.write(f"{DCDBAS}/smi_request", b"0")
            if behind:
                arguments = (self._buffer_address() + SMI_CALL.size_bytes, 0, 0, 0)
            call = SmiCall(
                self.command_port,
                self.command_code,
                *operation,
                tuple(arguments),
                results=(NO_REPLY, 0, 0, 0),
            )
            try:
                self.host.write(f"{DCDBAS}/smi_data", call.pack() + behind)
                self.host.write(f"{DCDBAS}/smi_request", b"1")
                return _results(read_file(self.host, f"{DCDBAS}/smi_data"))
            finally:
                self.host.write(f"{DCDBAS}/smi_request", b"0")

    def _buffer_address(self) -> int:
        """The physical address of the buffer, which has its size already."""
        text = read_text(self.host, f"{DCDBAS}/smi_data_buf_phys_addr")
        try:
            return int(text, 16)
        except ValueError:
            raise UpdateFailedError(
                f"dcdbas shows no address of its buffer: {text[:40]!r}"
            ) from None


def _results(buffer: bytes) -> tuple[int, ...]:
    try:
        return SmiCall.unpack(buffer).results
    except DamagedInputError as error:
        raise UpdateFailedError(f"dcdbas does not show the call that was made: {error}") from None
