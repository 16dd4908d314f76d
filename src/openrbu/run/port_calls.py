"""Port instructions of programs under `rbu run`: answered from the machine's own ports.

`PortCalls` has the handlers of `iopl` and `ioperm` (`openrbu.run.supervisor`). They check what the
kernel checks, and keep which thread has which permission; the kernel executes neither, so each `in`
and `out` faults. Whoever has a permission is traced (`openrbu.run.tracer`), and the instruction at
which it faults is done here, with the machine's ports. Sources: iopl(2), ioperm(2).
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from openrbu.drivers.dev_port import PORTS
from openrbu.errors import OpenRbuError
from openrbu.fuse.capabilities import CAP_SYS_RAWIO, Capabilities
from openrbu.machine.base import Machine
from openrbu.ports import IoPorts
from openrbu.run import ptrace
from openrbu.run.instructions import MAX_BYTES, PortInstruction, decode
from openrbu.run.notifications import Call
from openrbu.run.tracer import status_number, trace

_ALL_LEVEL = 3
"""The only level of iopl(2) that lets a program reach ports."""

_INT, _LONG = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_RESUME_FLAG = 1 << 16
"""In EFLAGS: set where an instruction has faulted, and clear after it is done."""

_WAY_OUT = "`rbu lab shell` is the way for programs that need I/O ports"


@dataclass(frozen=True, slots=True)
class Permission:
    """What a thread may reach: its `level` of iopl(2), and the ports that ioperm(2) has turned on,
    each a bit in `ports`."""

    level: int = 0
    ports: int = 0

    def allows(self, port: int, size_bytes: int) -> bool:
        """Whether an access of that size is allowed."""
        if port + size_bytes > PORTS:
            return False
        mask = (1 << size_bytes) - 1
        return self.level == _ALL_LEVEL or self.ports >> port & mask == mask


NOTHING = Permission()


class Told(Protocol):
    """Is told of each access that was answered: see `trace.Trace.port`."""

    def __call__(
        self, pid: int, port: int, size_bytes: int, value: int, *, writing: bool
    ) -> object: ...


class PortCalls:
    """The handlers `iopl` and `ioperm`, and the `tracer.Follower` of who has a permission.

    `namespace` returns the inode of the programs' user namespace. `log` gets a line, once, for each
    reason why a program does not get what it asks for. `told` is told of each port instruction.
    """

    def __init__(
        self,
        machine: Machine,
        namespace: Callable[[], int],
        log: Callable[[str], None],
        told: Told | None = None,
    ) -> None:
        self._machine, self._namespace, self._log, self._told = machine, namespace, log, told
        self._capabilities = Capabilities()
        self._lock = threading.Lock()
        self._permissions: dict[int, Permission] = {}
        self._tracers: list[threading.Thread] = []
        self._said: set[str] = set()
        self._ports: IoPorts | None = None

    def close(self) -> None:
        """Answer no more: who still runs gets its signal."""
        with self._lock:
            self._ports = None
            self._permissions.clear()

    # -- the calls, in the supervisor's thread ----------------------------------------------

    def iopl(self, call: Call) -> int:
        """iopl(2): set the level of a thread."""
        level = call.arguments[0] & _INT
        if level > _ALL_LEVEL:
            return errno.EINVAL
        before = self._permission(call.thread)
        if level > before.level and not self._may(call.thread):
            return errno.EPERM
        return self._give(call, replace(before, level=level))

    def ioperm(self, call: Call) -> int:
        """ioperm(2): turn ports of a thread on, or off."""
        first, count, turn_on = call.arguments[0], call.arguments[1], call.arguments[2] & _INT
        end = (first + count) & _LONG
        if end <= first or end > PORTS:
            return errno.EINVAL
        if turn_on and not self._may(call.thread):
            return errno.EPERM
        before = self._permission(call.thread)
        mask = ((1 << count) - 1) << first
        ports = before.ports | mask if turn_on else before.ports & ~mask
        return self._give(call, replace(before, ports=ports))

    def _permission(self, thread: int) -> Permission:
        """A number may be of a new thread, which nobody traces and which has no permission."""
        if not self._is_ours(status_number(thread, "TracerPid")):
            return NOTHING
        with self._lock:
            return self._permissions.get(thread, NOTHING)

    def _is_ours(self, tracer: int) -> bool:
        """Whether a thread of that number is one of our tracers."""
        self._tracers = [each for each in self._tracers if each.is_alive()]
        return tracer in [each.native_id for each in self._tracers]

    def _may(self, thread: int) -> bool:
        """Whether the machine's kernel would give it a permission."""
        with contextlib.suppress(OSError):
            namespace = Path(f"/proc/{thread}/ns/user").stat().st_ino
            is_root = namespace == self._namespace()
            return (
                is_root
                and self._capabilities.has(thread, CAP_SYS_RAWIO)
                and not self._is_locked_down()
            )
        return False

    def _is_locked_down(self) -> bool:
        from openrbu.hosts.virtual import VirtualHost  # noqa: PLC0415  (start-up time)
        from openrbu.linux.facts import LinuxFacts  # noqa: PLC0415  (start-up time)

        return LinuxFacts(VirtualHost(self._machine)).lockdown not in (None, "none")

    def _give(self, call: Call, permission: Permission) -> int:
        """Give who calls a permission in place of the one that it has; 0, or EPERM."""
        tracer = status_number(call.thread, "TracerPid")
        if not self._is_ours(tracer) and permission != NOTHING:
            if self._ports is None:
                self._ports = self._machine.ports
            try:
                self._tracers.append(trace(call.thread, self, self._log))
            except OSError as error:
                self._say(call.thread, _why_not_traced(tracer, error))
                return errno.EPERM
            if not call.still_waits():  # it was killed, and the number may be another thread's
                return errno.EPERM
        with self._lock:
            self._permissions[call.thread] = permission
        return 0

    def _say(self, thread: int, why: str) -> None:
        line = f"{_name(thread)} {why}"
        if line not in self._said:
            self._said.add(line)
            self._log(line)

    # -- what a tracer tells, in its thread --------------------------------------------------

    def faulted(self, thread: int) -> bool:
        with self._lock:
            permission, ports = self._permissions.get(thread, NOTHING), self._ports
        if permission == NOTHING or ports is None:
            return False
        state = ptrace.registers(thread)
        instruction = _instruction_at(thread, state)
        if instruction is None:
            return False
        if instruction.is_string:
            form = "outs" if instruction.is_out else "ins"
            self._say(thread, f"used the instruction {form}, which `rbu run` can't do; {_WAY_OUT}")
            return False
        port = state.rdx & 0xFFFF if instruction.port is None else instruction.port
        return permission.allows(port, instruction.size_bytes) and self._answer(
            thread, instruction, port, ports, state
        )

    def _answer(
        self,
        thread: int,
        instruction: PortInstruction,
        port: int,
        ports: IoPorts,
        state: ptrace.Registers,
    ) -> bool:
        """Do the instruction at which a thread has faulted. False: the machine can't."""
        try:
            value = _do(instruction, port, ports, state)
        except (OSError, OpenRbuError) as error:
            self._say(thread, f"can't reach the machine's ports: {error}")
            return False
        ptrace.set_registers(thread, state)
        if self._told is not None:
            self._told(thread, port, instruction.size_bytes, value, writing=instruction.is_out)
        return True

    def began(self, thread: int, parent: int) -> None:
        with self._lock:
            self._permissions[thread] = self._permissions.get(parent, NOTHING)

    def renumbered(self, before: int, thread: int) -> None:
        with self._lock:
            self._permissions[thread] = self._permissions.pop(before, NOTHING)

    def ended(self, thread: int) -> None:
        with self._lock:
            self._permissions.pop(thread, None)


def _instruction_at(thread: int, state: ptrace.Registers) -> PortInstruction | None:
    """The port instruction at which a thread has stopped; None: it is another one."""
    if state.cs not in (ptrace.CS_64_BIT, ptrace.CS_32_BIT):
        return None
    code = ptrace.code_at(thread, state.rip, MAX_BYTES)
    return decode(code, is_64_bit=state.cs == ptrace.CS_64_BIT)


def _do(instruction: PortInstruction, port: int, ports: IoPorts, state: ptrace.Registers) -> int:
    """Do an instruction: its effect on ports and registers. The value that was read or written.

    A device has ports of 8 bits: a larger access is one to each port, the first one first.
    """
    size_bytes = instruction.size_bytes
    mask = (1 << 8 * size_bytes) - 1
    reached = range(port, port + size_bytes)
    if instruction.is_out:
        value = state.rax & mask
        for each, byte in zip(reached, value.to_bytes(size_bytes, "little"), strict=True):
            ports.out8(each, byte)
    else:
        value = int.from_bytes(bytes(ports.in8(each) for each in reached), "little")
        # 32 bits clear the upper half of the register; fewer leave the rest as it is.
        state.rax = value if mask == _INT else state.rax & ~mask | value
    limit = _LONG if state.cs == ptrace.CS_64_BIT else _INT
    state.rip = (state.rip + instruction.length_bytes) & limit
    state.eflags &= ~_RESUME_FLAG
    return value


def _name(thread: int) -> str:
    comm = ""
    with contextlib.suppress(OSError):
        comm = Path(f"/proc/{thread}/comm").read_text(errors="replace").rstrip("\n")
    return f"process {thread} ({comm or 'ended'})"


def _why_not_traced(tracer: int, error: OSError) -> str:
    why = f"this computer does not allow rbu to trace it (ptrace: {error.strerror})"
    if tracer:
        why = f"{_name(tracer)} traces it"
    return f"got no I/O ports, because {why}; {_WAY_OUT}"
