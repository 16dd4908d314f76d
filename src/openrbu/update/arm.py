"""Arm: have the BIOS search for an update at the next start, by setting its activation token.

An indexed I/O token is a CMOS bit, which is set in one of the ways of `linux.cmos`. A calling
interface token is set by the BIOS, which is called through the files of the `dcdbas` driver; where
an admin password is set, the BIOS wants a security key for that, which it gives for the password.
`ActivationToken` is what both have in common. A setting is read back; a token that does not stay
set is an error.

Facts: docs/reference/smbios-and-tokens.md, S12 to S18.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from openrbu.cmos import IndexedActivation, NotKeptError, needed_indexes
from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.formats.tokens import (
    NO_REPLY,
    READ_SETTING,
    WRITE_SETTING,
    IndexedIoToken,
    SmiToken,
    UpdateTokens,
)
from openrbu.hosts.base import Host
from openrbu.linux.cmos import CmosWay, find_cmos
from openrbu.update.kernel_refusals import kernel_refusal
from openrbu.update.passwords import admin_password
from openrbu.update.smi import DCDBAS, CallingInterface
from openrbu.update.target import Target


class ActivationToken(Protocol):
    """The activation token of a machine.

    Each of these raises OSError for what the kernel returns, `ObstacleError` when the token can't
    be accessed any more, and `UpdateFailedError` when the BIOS or CMOS does not do what it should.
    """

    @property
    def way(self) -> str:
        """The file through which it is read and set."""

    @property
    def is_armed(self) -> bool:
        """Whether it is set."""

    def arm(self) -> None:
        """Set it, so that the BIOS searches for an update at the next start."""

    def disarm(self) -> None:
        """Clear it."""


class NoAnswerError(ObstacleError):
    """No device responds at the ports that the machine's tables name."""

    kind = "no_answer"


def activation_for(
    host: Host, target: Target, password: str | None = None, *, without_password: bool = False
) -> ActivationToken:
    """The activation token of this machine.

    `password` is the BIOS admin password; `without_password`: the BIOS is not asked whether it has
    one.

    :raise ObstacleError: when it has none, or this process can't access it; `NoAnswerError` when no
        device responds at its ports.
    :raise OSError: the kernel's error.
    """
    tokens = target.tokens
    if tokens is None:
        raise ObstacleError(f"{target.title} has no token that activates an update")
    if isinstance(tokens.activate, IndexedIoToken):
        way = find_way(host, tokens)
        activation = IndexedActivation(way.cmos, tokens, target.system_id, way=way.path)
        if not activation.responds:
            index_port, data_port = tokens.activate.ports
            raise NoAnswerError(
                f"the CMOS with the token does not respond: ports {index_port:#04x} and "
                f"{data_port:#04x} read as all ones"
            )
        return activation
    assert isinstance(tokens.cancel, SmiToken)
    key = 0 if without_password else None
    return SmiActivation(host, target, tokens.activate, tokens.cancel, password, key)


def find_way(host: Host, tokens: UpdateTokens) -> CmosWay:
    """The way to the CMOS that these tokens are in.

    :raise ObstacleError: when there is none from here.
    """
    assert isinstance(tokens.activate, IndexedIoToken)
    return find_cmos(host, tokens.activate.ports, needed_indexes(tokens))


@dataclass(frozen=True, slots=True)
class TokenState:
    """What can be seen of the activation token.

    `is_armed`: None where that can't be read, and then `problem` says why. `way`: the file through
    which it is read; empty where there is none.
    """

    is_armed: bool | None
    way: str = ""
    problem: str = ""


def read_token(host: Host, target: Target) -> TokenState:
    """Whether the activation token is set. No module is loaded for that."""
    token = target.tokens and target.tokens.activate
    if isinstance(token, SmiToken) and not CallingInterface.of(host, token).is_there:
        return TokenState(None, problem="the dcdbas module is not loaded (modprobe dcdbas)")
    try:
        activation = activation_for(host, target)
        return TokenState(activation.is_armed, activation.way)
    except ObstacleError as error:
        return TokenState(None, problem=str(error))
    except OSError as error:
        return TokenState(None, problem=str(kernel_refusal(error)))


def read_armed(host: Host, target: Target) -> bool | None:
    """`TokenState.is_armed`."""
    return read_token(host, target).is_armed


def set_armed(token: ActivationToken, *, armed: bool) -> None:
    """Set or clear the token, and read it back.

    :raise UpdateFailedError: when it does not read as it was set, or something else in CMOS or the
        clock was changed by it.
    """
    try:
        if armed:
            token.arm()
        else:
            token.disarm()
        is_kept = token.is_armed == armed
    except NotKeptError:
        is_kept = False
    if not is_kept:
        raise UpdateFailedError(f"the BIOS's token does not stay {'set' if armed else 'clear'}")


def unload_dcdbas(host: Host) -> None:
    """Unload the `dcdbas` module, where it is loaded.

    :raise OSError | ObstacleError: as `Host.unload_module`.
    """
    if host.module_is_loaded("dcdbas"):
        host.unload_module("dcdbas")


def unlock(token: ActivationToken) -> None:
    """Verify the admin password, where the BIOS can do that and has one; nothing else is changed.

    :raise PasswordNeededError: when one is set, and none was given.
    :raise WrongPasswordError: when the BIOS does not take it.
    :raise ObstacleError | UpdateFailedError | OSError: as `CallingInterface.call`.
    """
    if isinstance(token, SmiActivation):
        token.unlock()


@dataclass(slots=True)
class SmiActivation:
    """The tokens of the calling interface, through `dcdbas`; the module is loaded when needed.

    `key` is the security key for the BIOS's admin password; None: it is not known yet.
    """

    host: Host
    target: Target
    activate: SmiToken
    cancel: SmiToken
    password: str | None = field(default=None, repr=False)
    key: int | None = field(default=None, repr=False)

    @property
    def way(self) -> str:
        return f"{DCDBAS}/smi_request"

    @property
    def is_armed(self) -> bool:
        results = self._call(READ_SETTING, self.activate)
        return results[1] & 0xFFFF == self.activate.value

    def arm(self) -> None:
        self._call(WRITE_SETTING, self.activate, self.unlock())

    def disarm(self) -> None:
        self._call(WRITE_SETTING, self.cancel, self.unlock())

    def unlock(self) -> int:
        """The security key. The BIOS is asked for it once."""
        if self.key is None:
            known = admin_password(self.host, self.target, may_load=True)
            self.key = known.security_key(self.password)
        return self.key

    def _call(self, operation: tuple[int, int], token: SmiToken, key: int = 0) -> tuple[int, ...]:
        """
        :raise ObstacleError: when dcdbas can't be loaded.
        :raise UpdateFailedError: when the BIOS returns an error, or does not reply.
        """
        interface = CallingInterface.of(self.host, token)
        results = interface.call(operation, (token.location, token.value, key, 0))
        if results[0] == NO_REPLY:
            raise UpdateFailedError("the BIOS did not reply to a token request")
        if results[0] != 0:
            raise UpdateFailedError(f"the BIOS returned error {results[0]} to a token request")
        return results
