"""The ports and the SMI calls of a machine with faults, as its programs have them.

The BIOS reaches CMOS and NVRAM by itself, whatever is wrong with a program's way to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from openrbu.bios.faults import PORTS_SILENT, TOKEN_DOES_NOT_STAY
from openrbu.bios.smi import SmiHandler
from openrbu.cmos import IndexedActivation
from openrbu.faults import Faults
from openrbu.ports import CmosPorts

_NOTHING = 0xFF
"""What a program reads from a port at which nothing is."""


class SilentPorts:
    """Ports at which nothing is, instead of `banks`."""

    def __init__(self, banks: Mapping[int, int]) -> None:
        self.banks = banks

    def out8(self, port: int, value: int) -> None:
        """Nobody takes it."""

    def in8(self, port: int) -> int:
        return _NOTHING


class ForgetfulPorts:
    """Ports behind which the activation token is cleared as soon as it is set. The index that is
    selected stays selected."""

    def __init__(self, ports: CmosPorts, activation: IndexedActivation) -> None:
        self._ports, self._activation = ports, activation

    @property
    def banks(self) -> Mapping[int, int]:
        return self._ports.banks

    def out8(self, port: int, value: int) -> None:
        self._ports.out8(port, value)
        if port not in self.banks:
            return
        selected = {each: self._ports.in8(each) for each in self.banks.values()}
        if self._activation.is_armed:
            self._activation.disarm()
        for each, index in selected.items():
            self._ports.out8(each, index)

    def in8(self, port: int) -> int:
        return self._ports.in8(port)


def faulty_ports(
    ports: CmosPorts, activation: IndexedActivation | SmiHandler | None, faults: Faults
) -> CmosPorts:
    """The ports of a machine with these faults."""
    if PORTS_SILENT in faults:
        return SilentPorts(ports.banks)
    if TOKEN_DOES_NOT_STAY in faults and isinstance(activation, IndexedActivation):
        return ForgetfulPorts(ports, activation)
    return ports


def faulty_smi(
    activation: IndexedActivation | SmiHandler | None, faults: Faults
) -> Callable[[bytes], bytes] | None:
    """What handles the SMI calls of a machine with these faults; None: it has none."""
    if not isinstance(activation, SmiHandler):
        return None
    if PORTS_SILENT in faults:
        return lambda buffer: buffer
    if TOKEN_DOES_NOT_STAY not in faults:
        return activation

    def answer(buffer: bytes) -> bytes:
        answered = activation(buffer)
        if activation.is_armed:
            activation.disarm()
        return answered

    return answer
