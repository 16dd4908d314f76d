"""Arm: tell the BIOS to look for an update at the next start, by setting its activation token.

Where the token is an indexed I/O token it is a CMOS bit, set with port I/O. Where it is a calling
interface token it is set by the BIOS, asked through the `dcdbas` driver's files. Both are switches:
`is_armed`, `arm`, `disarm`. A setting is read back; a token that does not stay set is an error.

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


class Switch(Protocol):
    """The activation token of a machine."""

    @property
    def is_armed(self) -> bool: ...

    def arm(self) -> None: ...

    def disarm(self) -> None: ...


class NoAnswerError(ObstacleError):
    """Nobody answers the ports that the machine's tables name."""

    kind = "no_answer"


def switch_for(host: Host, target: Target) -> Switch:
    """The switch that this machine has.

    :raise ObstacleError: when it has none, or the host does not let it be used; `NoAnswerError`
        when there is nothing behind its ports.
    """
    tokens = target.tokens
    if tokens is None:
        raise ObstacleError(f"{target.title} has no token that activates an update")
    if isinstance(tokens.activate, IndexedIoToken):
        ports = host.ports
        if ports is None:
            raise ObstacleError(
                "port I/O is not to be had: it takes root, /dev/port and a kernel that is not "
                "locked down"
            )
        switch = IndexedActivation(ports, tokens, target.system_id)
        if not switch.responds:
            index_port, data_port = tokens.activate.ports
            raise NoAnswerError(
                f"the CMOS that the token is in does not answer: ports {index_port:#04x} and "
                f"{data_port:#04x} read as all ones"
            )
        return switch
    assert isinstance(tokens.cancel, SmiToken)
    return SmiSwitch(host, tokens.activate, tokens.cancel)


def read_armed(host: Host, target: Target) -> bool | None:
    """Whether the activation token is set; None where asking is not possible, or would take
    loading a module."""
    tokens = target.tokens
    needs_module = tokens is not None and isinstance(tokens.activate, SmiToken)
    if needs_module and not host.exists(f"{DCDBAS}/smi_request"):
        return None
    try:
        return switch_for(host, target).is_armed
    except ObstacleError:
        return None


def set_armed(switch: Switch, *, armed: bool) -> None:
    """Set or clear the token, and see that it stays.

    :raise UpdateFailedError: when it reads otherwise afterwards.
    """
    if armed:
        switch.arm()
    else:
        switch.disarm()
    if switch.is_armed != armed:
        raise UpdateFailedError(f"the BIOS's token does not stay {'set' if armed else 'clear'}")


@dataclass(frozen=True, slots=True)
class SmiSwitch:
    """The tokens of the calling interface, through `dcdbas`; the module is loaded on demand."""

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
        """One SMI: size, reset, command, fire, answer; under the lock that all callers take.

        :raise ObstacleError: when dcdbas can't be had.
        :raise UpdateFailedError: when the BIOS answers with an error.
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
            # the size goes first: without a buffer, resetting is answered with ENODEV
            self.host.write(f"{DCDBAS}/smi_data_buf_size", f"{len(request)}".encode())
            self.host.write(f"{DCDBAS}/smi_request", b"0")
            self.host.write(f"{DCDBAS}/smi_data", request)
            self.host.write(f"{DCDBAS}/smi_request", b"1")
            answer = SmiCall.unpack(read_file(self.host, f"{DCDBAS}/smi_data"))
        if answer.results[0] != 0:
            raise UpdateFailedError(
                f"the BIOS answers a token request with error {answer.results[0]}"
            )
        return answer.results
