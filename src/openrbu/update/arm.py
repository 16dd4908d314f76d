"""Arm: have the BIOS search for an update at the next start, by setting its activation token.

An indexed I/O token is a CMOS bit, which is set with port I/O. A calling interface token is set by
the BIOS, which is called through the files of the `dcdbas` driver. `ActivationToken` is what both
have in common. A setting is read back; a token that does not stay set is an error.

Facts: docs/reference/smbios-and-tokens.md, S12 to S17.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from openrbu.cmos import IndexedActivation
from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.formats.tokens import READ_SETTING, WRITE_SETTING, IndexedIoToken, SmiCall, SmiToken
from openrbu.hosts.base import Host, read_file
from openrbu.update.target import Target

DCDBAS = "/sys/devices/platform/dcdbas"


class ActivationToken(Protocol):
    """The activation token of a machine."""

    @property
    def is_armed(self) -> bool: ...

    def arm(self) -> None: ...

    def disarm(self) -> None: ...


class NoAnswerError(ObstacleError):
    """No device responds at the ports that the machine's tables name."""

    kind = "no_answer"


def activation_for(host: Host, target: Target) -> ActivationToken:
    """The activation token of this machine.

    :raise ObstacleError: when it has none, or this process can't access it; `NoAnswerError` when no
        device responds at its ports.
    """
    tokens = target.tokens
    if tokens is None:
        raise ObstacleError(f"{target.title} has no token that activates an update")
    if isinstance(tokens.activate, IndexedIoToken):
        ports = host.ports
        if ports is None:
            raise ObstacleError(
                "port I/O is not available: it needs root, /dev/port and a kernel that is not "
                "locked down"
            )
        activation = IndexedActivation(ports, tokens, target.system_id)
        if not activation.responds:
            index_port, data_port = tokens.activate.ports
            raise NoAnswerError(
                f"the CMOS with the token does not respond: ports {index_port:#04x} and "
                f"{data_port:#04x} read as all ones"
            )
        return activation
    assert isinstance(tokens.cancel, SmiToken)
    return SmiActivation(host, tokens.activate, tokens.cancel)


def read_armed(host: Host, target: Target) -> bool | None:
    """Whether the activation token is set. None where it can't be read, or a module would have to
    be loaded for that."""
    tokens = target.tokens
    needs_module = tokens is not None and isinstance(tokens.activate, SmiToken)
    if needs_module and not host.exists(f"{DCDBAS}/smi_request"):
        return None
    try:
        return activation_for(host, target).is_armed
    except ObstacleError:
        return None


def set_armed(token: ActivationToken, *, armed: bool) -> None:
    """Set or clear the token, and read it back.

    :raise UpdateFailedError: when it does not read as it was set.
    """
    if armed:
        token.arm()
    else:
        token.disarm()
    if token.is_armed != armed:
        raise UpdateFailedError(f"the BIOS's token does not stay {'set' if armed else 'clear'}")


def unload_dcdbas(host: Host) -> None:
    """Unload the `dcdbas` module, where it is loaded.

    :raise OSError | ObstacleError: as `Host.unload_module`.
    """
    if host.module_is_loaded("dcdbas"):
        host.unload_module("dcdbas")


@dataclass(frozen=True, slots=True)
class SmiActivation:
    """The tokens of the calling interface, through `dcdbas`; the module is loaded when needed."""

    host: Host
    activate: SmiToken
    cancel: SmiToken

    @property
    def is_armed(self) -> bool:
        results = self._call(self.activate, READ_SETTING)
        return results[1] & 0xFFFF == self.activate.value

    def arm(self) -> None:
        self._call(self.activate, WRITE_SETTING)

    def disarm(self) -> None:
        self._call(self.cancel, WRITE_SETTING)

    def _call(self, token: SmiToken, operation: tuple[int, int]) -> tuple[int, ...]:
        """One SMI: write size, reset, request and start, read the reply. The file is locked, as all
        programs that use it do.

        :raise ObstacleError: when dcdbas can't be loaded.
        :raise UpdateFailedError: when the BIOS returns an error.
        """
        if not self.host.exists(f"{DCDBAS}/smi_request"):
            self.host.load_module("dcdbas", {})
        call = SmiCall(
            command_port=token.command_port,
            command_code=token.command_code,
            smi_class=operation[0],
            smi_select=operation[1],
            arguments=(token.location, token.value, 0, 0),
        )
        request = call.pack()
        with self.host.path_lock(f"{DCDBAS}/smi_request"):
            # the size first: without a buffer a reset returns ENODEV
            self.host.write(f"{DCDBAS}/smi_data_buf_size", f"{len(request)}".encode())
            self.host.write(f"{DCDBAS}/smi_request", b"0")
            self.host.write(f"{DCDBAS}/smi_data", request)
            self.host.write(f"{DCDBAS}/smi_request", b"1")
            answer = SmiCall.unpack(read_file(self.host, f"{DCDBAS}/smi_data"))
        if answer.results[0] != 0:
            raise UpdateFailedError(
                f"the BIOS returned error {answer.results[0]} to a token request"
            )
        return answer.results
