"""A program: a hypercall on a host in files, killed at each of its lines in turn.

    python -m rigs.xen_killed DIRECTORY CALL

It says on each line how many pages guests have after a kill and its mending, what they claim, and
how many pages of memory the host's RAM file has; or that the host has ended. A tracer counts the
lines of the code that hypercalls are made of, and sends the SIGKILL: the kernel lets go of the
lock.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from openrbu.memory import physical
from openrbu.memory.ram_file import RamFile
from openrbu.system import fallocate
from openrbu.units import PAGE_SIZE
from openrbu.xen import hypervisor as hypervisor_module
from openrbu.xen.hypervisor import Hypervisor
from rigs.xen_hosts import ram, up

REGIONS = ram((0, 64))
TRACED = (
    str(Path(hypervisor_module.__file__).parent),
    str(Path(physical.__file__).parent),
    fallocate.__file__,
)

CALLS: dict[str, Callable[[Hypervisor], object]] = {
    "populate": lambda host: host.domain("one").populate(up(12, 24)),
    "decrease": lambda host: host.domain("one").decrease(up(3, 10)),
    "create": lambda host: host.create_domain("three", pages=9, max_pages=12, claim_pages=2),
    "destroy": lambda host: host.destroy("one"),
    "set_claim": lambda host: host.domain("one").set_claim(2),
    "end": lambda host: host._state.end(),
}


def main() -> None:
    directory, call = Path(sys.argv[1]), CALLS[sys.argv[2]]
    line = 0
    while killed_at(line, directory, call):
        line += 1


def killed_at(line: int, directory: Path, call: Callable[[Hypervisor], object]) -> bool:
    """Have a process killed at a line. False: the call was over before."""
    make_host(directory / "host", directory / "ram")
    child = os.fork()
    if not child:
        memory = RamFile(directory / "ram", REGIONS)
        host = Hypervisor.open(directory / "host", backing=memory)
        sys.settrace(killer(line))
        call(host)
        sys.settrace(None)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    memory = RamFile(directory / "ram", REGIONS)
    host = Hypervisor.open(directory / "host", backing=memory)
    if host.has_ended:
        print("ended")
    else:
        guests = host.domains()
        host.check()
        print(
            *(f"{info.name}:{info.current_pages}+{info.claim_pages}" for info in guests),
            os.stat(directory / "ram").st_blocks * 512 // PAGE_SIZE,  # noqa: PTH116
        )
    host.close()
    memory.close()
    return status != 0


def make_host(directory: Path, path: Path) -> None:
    """With pages free on the stack and fresh ones; two guests, one has a claim."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    memory = RamFile.create(path, REGIONS)
    host = Hypervisor.create(directory, REGIONS, backing=memory, takes_memory=True, reserved=())
    host.create_domain("one", pages=12, max_pages=24, claim_pages=4)
    two = host.create_domain("two", pages=20, max_pages=20)
    two.decrease(up(0, 8))
    host.close()
    memory.close()


def killer(line: int) -> Callable[[FrameType, str, Any], Any]:
    """A tracer that ends this process at a line, counted over the traced code."""
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(TRACED):
            return None
        if event == "line":
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return trace

    return trace


if __name__ == "__main__":
    main()
