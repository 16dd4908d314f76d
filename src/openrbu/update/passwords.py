"""The BIOS admin password: whether one is set, and whether the one that was given is right.

SMBIOS says whether one is set (type 24); a BIOS with a calling interface can be asked itself. Only
that one can verify a password, too: it gives a security key for it, with which a token can be set.
A BIOS whose token is in CMOS sees the password for the first time at the restart, in packet 0.

A wrong password is tried once. A BIOS may lock itself after a few.

Facts: docs/reference/smbios-and-tokens.md, S10 and S18; docs/reference/packets.md, P10.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.errors import ObstacleError, UsageError
from openrbu.formats import smi_passwords
from openrbu.formats.security import PasswordStatus, admin_password_status
from openrbu.formats.smi_passwords import (
    ADMIN_PASSWORD,
    ARGUMENT_BYTES,
    IS_SET,
    NOT_SET,
    STATUS_ARGUMENT,
    PasswordProperties,
    words_of,
)
from openrbu.formats.tokens import NO_REPLY, SmiToken
from openrbu.hosts.base import Host
from openrbu.update.smi import CallingInterface
from openrbu.update.target import Target

_UNSUPPORTED = (-2, NO_REPLY)
_SAYS_NOT_SET = (NOT_SET, 3)
_SAYS_SET = (IS_SET, 2)
"""What a BIOS returns for the status, and what libsmbios takes it for."""

HOW_TO_GIVE_IT = "give it (--password-file, --password-fd or --ask-password)"


class PasswordNeededError(ObstacleError):
    """An admin password is set, and none was given."""

    kind = "password_needed"


class WrongPasswordError(ObstacleError):
    """The BIOS does not take the password that was given."""

    kind = "wrong_password"


@dataclass(frozen=True, slots=True)
class AdminPassword:
    """What is known of a machine's admin password.

    `status`: what SMBIOS says. `interface`: what a BIOS that can be asked is asked by; None: it
    can't be asked, or a module would have to be loaded for that. `answer`: whether that BIOS says
    that a password is set; None: it does not say. `properties`: what it says of the password; None:
    it says nothing of it, so the password has up to 8 scan codes.
    """

    status: PasswordStatus
    interface: CallingInterface | None = None
    answer: bool | None = None
    properties: PasswordProperties | None = None

    @property
    def is_set(self) -> bool:
        """Whether one is set, as far as that is known. The BIOS knows better than SMBIOS."""
        return self.status is PasswordStatus.ENABLED if self.answer is None else self.answer

    @property
    def who_says_so(self) -> str:
        return "SMBIOS says" if self.answer is None else "the BIOS says"

    @property
    def shape(self) -> str:
        """What a password of this BIOS is like, for people."""
        if self.properties is None:
            return f"up to {ARGUMENT_BYTES} keys"
        what = "characters" if self.properties.is_text else "keys"
        return f"up to {self.properties.max_bytes} {what}"

    def security_key(self, password: str | None) -> int:
        """What the BIOS gives for the password; 0 where it has none, or no call to verify one.

        :raise PasswordNeededError: when one is set, and `password` is None.
        :raise WrongPasswordError: when the BIOS does not take it.
        :raise ObstacleError | UpdateFailedError | OSError: as `CallingInterface.call`.
        """
        if self.interface is None or not self.answer:
            return 0
        if password is None:
            raise PasswordNeededError(
                "a BIOS admin password is set, and the BIOS sets its token only with it: "
                f"{HOW_TO_GIVE_IT}"
            )
        try:
            return self._verified(self.interface, password)
        except UsageError as error:  # the BIOS can't have such a password
            raise WrongPasswordError(f"{error}; nothing was tried") from None

    def _verified(self, interface: CallingInterface, password: str) -> int:
        result, key = NO_REPLY, 0
        known = self.properties
        data = (known or PasswordProperties(is_set=True)).encoded(password)
        if known is not None and known.max_bytes:
            result, key, *_ = interface.call(
                (ADMIN_PASSWORD, smi_passwords.VERIFY_IN_BUFFER),
                behind=data.ljust(known.max_bytes, b"\0"),
            )
        if result in _UNSUPPORTED and len(data) <= ARGUMENT_BYTES:
            result, key, *_ = interface.call(
                (ADMIN_PASSWORD, smi_passwords.VERIFY_IN_ARGUMENTS), words_of(data)
            )
        if result in _UNSUPPORTED:
            return 0
        if result:
            raise WrongPasswordError(
                f"the BIOS does not take the admin password that was given (error {result}); it "
                "was tried once, because a BIOS may lock itself after a few wrong ones"
            )
        return key & 0xFFFF


def admin_password(host: Host, target: Target, *, may_load: bool = False) -> AdminPassword:
    """What is known of the admin password; a BIOS that can be asked is asked. `may_load`: the
    module for that may be loaded.

    :raise ObstacleError | UpdateFailedError | OSError: as `CallingInterface.call`.
    """
    status = admin_password_status(target.tables)
    if target.tokens is None or not isinstance(target.tokens.activate, SmiToken):
        return AdminPassword(status)
    interface = CallingInterface.of(host, target.tokens.activate)
    if not (may_load or interface.is_there):
        return AdminPassword(status)
    results = interface.call((ADMIN_PASSWORD, smi_passwords.PROPERTIES))
    properties = None if results[0] else PasswordProperties.of(results)
    if properties is not None and not properties.is_set:
        return AdminPassword(status, interface, answer=False, properties=properties)
    said, *_ = interface.call((ADMIN_PASSWORD, smi_passwords.STATUS), (STATUS_ARGUMENT, 0, 0, 0))
    if said in _SAYS_NOT_SET:
        answer: bool | None = False
    else:
        answer = True if said in _SAYS_SET or properties is not None else None
    return AdminPassword(status, interface, answer, properties)
