"""One root for every error that openrbu raises on purpose, and who is at fault.

::

    OpenRbuError                 exit code 1
    ├── UsageError               2  the caller asked for what can't be asked
    ├── NotForThisMachineError   3  the image is sound, but for another machine
    │   └── NotForRbuError       3  a sound package, but of what is not installed by RBU
    ├── ObstacleError            4  something stands in the way; it can be removed
    │   └── MachineError         4  a virtual machine's directory or state is in the way
    ├── DamagedInputError        5  a file or a table is broken
    ├── UpdateFailedError        1  an update was tried, did not work, and was undone
    ├── OutputError              1  the answer can't be written where it should go
    ├── AddressError             1  no RAM at a physical address: a mistake in a program
    └── KernelError (OSError)    1  what a kernel answers a system call, with its errno

PowerCutError is none of them: it is an event that a simulated machine lives through.

A message is one line: what is wrong and, where it helps, what to do. What a program may want to
know is in attributes, not in the text.
"""

import errno as errno_module
import os
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process says when it ends (README.md, "Commands")."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOR_THIS_MACHINE = 3
    OBSTACLE = 4
    DAMAGED_INPUT = 5


class OpenRbuError(Exception):
    """The root. `exit_code` is what the command line ends with."""

    exit_code: ExitCode = ExitCode.FAILED


class UsageError(OpenRbuError):
    """A value that no machine and no file could make right."""

    exit_code = ExitCode.USAGE


class NotForThisMachineError(OpenRbuError):
    """The image is sound, but this machine is not one that it is for."""

    exit_code = ExitCode.NOT_FOR_THIS_MACHINE


class NotForRbuError(NotForThisMachineError):
    """A file is sound, but what is in it is installed in another way: for no machine by RBU."""


class ObstacleError(OpenRbuError):
    """Something stands in the way that can be taken out of it."""

    exit_code = ExitCode.OBSTACLE


class MachineError(ObstacleError):
    """A virtual machine's directory or state does not allow what was asked."""


class UpdateFailedError(OpenRbuError):
    """An update was tried and did not work. The machine is as it was unless the text says so."""


class OutputError(OpenRbuError):
    """The answer can't be written where it should go, such as to a full disk."""


class AddressError(OpenRbuError):
    """There is no RAM at an address that was asked for."""

    def __init__(self, address: int, size_bytes: int) -> None:
        super().__init__(f"no RAM at physical address {address:#x} ({size_bytes} bytes)")
        self.address = address
        self.size_bytes = size_bytes


class DamagedInputError(OpenRbuError):
    """A file or a table is not what it should be.

    `offset`, `expected` and `actual` are evidence, where there is any; the text says it too.
    """

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
    """What a kernel answers: an errno, and the path that the call was about."""

    def __init__(self, error_number: int, path: str | None = None, detail: str = "") -> None:
        text = os.strerror(error_number) + (f": {detail}" if detail else "")
        OSError.__init__(self, error_number, text, path)

    @property
    def name(self) -> str:
        """The errno by name, such as `ENOMEM`."""
        return errno_module.errorcode.get(self.errno or 0, str(self.errno))


class PowerCutError(Exception):
    """The power failed in the middle of an operation. This is an event and not an error."""
