"""All errors that openrbu raises on purpose, and who is at fault.

::

    OpenRbuError                 exit code 1
    ├── UsageError               2  the caller asked for something impossible
    ├── NotForThisMachineError   3  the image is good, but for another machine
    │   └── NotForRbuError       3  the package is good, but is not installed by RBU
    ├── ObstacleError            4  something prevents it; the user can remove that
    │   ├── MachineError         4  a virtual machine's directory or state prevents it
    │   │   └── PowerFailedError 4  it lost its power, by a fault on purpose
    │   └── CommandError         4  a program can't be executed
    ├── DamagedInputError        5  a file or a table is damaged
    ├── UpdateFailedError        1  an update was tried, did not work, and was undone
    ├── OutputError              1  the output can't be written, such as to a full disk
    ├── AddressError             1  no RAM at a physical address: a mistake in a program
    └── KernelError (OSError)    1  what a kernel returns from a system call, with its errno

PowerCutError is not one of them: it is an event that a simulated machine lives through.

A message is one line: what is wrong and, where it helps, what to do. What a program may want to
know is in attributes, not in the text.
"""

import errno as errno_module
import os
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the command line (docs/reference/exit-codes.md)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOR_THIS_MACHINE = 3
    OBSTACLE = 4
    DAMAGED_INPUT = 5


class OpenRbuError(Exception):
    """The root of all errors of openrbu.

    `kind` is the error's name for scripts (`error.kind` in JSON): it stays when a class is renamed.
    `exit_code` is the exit code of the command line.
    """

    kind: str = "open_rbu"
    exit_code: ExitCode = ExitCode.FAILED


class UsageError(OpenRbuError):
    """The caller asked for something that no machine and no file makes possible."""

    kind = "usage"
    exit_code = ExitCode.USAGE


class NotForThisMachineError(OpenRbuError):
    """The image is good, but it is not for this machine."""

    kind = "not_for_this_machine"
    exit_code = ExitCode.NOT_FOR_THIS_MACHINE


class NotForRbuError(NotForThisMachineError):
    """A file is good, but no machine installs its contents by RBU."""

    kind = "not_for_rbu"


class ObstacleError(OpenRbuError):
    """Something prevents the operation, and the user can remove it."""

    kind = "obstacle"
    exit_code = ExitCode.OBSTACLE


class MachineError(ObstacleError):
    """A virtual machine's directory or state does not allow what was asked."""

    kind = "machine"


class PowerFailedError(MachineError):
    """A virtual machine lost its power, because it has that fault on purpose. It is off."""

    kind = "power_failed"


class CommandError(ObstacleError):
    """A program can't be executed. `status` is the exit status that a shell would give for it: 127
    when there is no such program, else 126."""

    kind = "command"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UpdateFailedError(OpenRbuError):
    """An update was tried and did not work. The machine is as it was unless the text says so."""

    kind = "update_failed"


class OutputError(OpenRbuError):
    """The output can't be written, such as to a full disk."""

    kind = "output"


class AddressError(OpenRbuError):
    """There is no RAM at the address asked for: a mistake in a program."""

    kind = "address"

    def __init__(self, address: int, size_bytes: int) -> None:
        super().__init__(f"no RAM at physical address {address:#x} ({size_bytes} bytes)")
        self.address = address
        self.size_bytes = size_bytes


class DamagedInputError(OpenRbuError):
    """A file or a table is damaged.

    `offset` (in bytes), `expected` and `actual` say where and how, each None if not known. The
    message says it, too.
    """

    kind = "damaged_input"
    exit_code = ExitCode.DAMAGED_INPUT

    def __init__(
        self,
        message: str,
        *,
        offset: int | None = None,
        expected: object = None,
        actual: object = None,
    ) -> None:
        super().__init__(message)
        self.offset = offset
        self.expected = expected
        self.actual = actual


class KernelError(OpenRbuError, OSError):
    """What a kernel returns: an errno, and the path that the call was about.

    `detail` is text after the errno's own, for people.
    """

    kind = "kernel"

    def __init__(self, error_number: int, path: str | None = None, detail: str = "") -> None:
        text = os.strerror(error_number) + (f": {detail}" if detail else "")
        OSError.__init__(self, error_number, text, path)

    @property
    def name(self) -> str:
        """The errno by name, such as `ENOMEM`."""
        return errno_module.errorcode.get(self.errno or 0, str(self.errno))


class PowerCutError(Exception):
    """The power failed in the middle of an operation: an event, not an error."""
