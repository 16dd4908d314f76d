"""An update tried in the lab, from end to end: `rbu update --reboot` in a guest, and its result.

The machine is made for the image: the model that the header names, a flash of the size of the
image's data, and a SeaBIOS under an older version in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrbu.bios.post_report import PostReport
from openrbu.errors import ExitCode, NotForThisMachineError, OpenRbuError, UpdateFailedError
from openrbu.formats.hdr import Image
from openrbu.lab.machine import CannotStartError, LabMachine
from openrbu.lab.packages import GuestSoftware
from openrbu.lab.seabios import fill_flash, rename_bios
from openrbu.machine.factory import MachineSpec
from openrbu.machine.models import MODELS, TokenKind
from openrbu.machine.models import model as model_named
from openrbu.update.restarted import post_failure

DMI_VERSION = "/sys/class/dmi/id/bios_version"

RBU = "rbu"


class GuestFailedError(OpenRbuError):
    """`rbu update` ended in the guest as `exit_code` says; an exit status that rbu has not got
    counts as a failure."""

    kind = "guest_failed"

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.exit_code = ExitCode(status) if status in list(ExitCode) else ExitCode.FAILED


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of an update.

    `status` is the exit status of `rbu update` where that ended without a restart; then there is
    nothing else but its `error_text`, what it wrote to standard error. `post` is what the BIOS did.
    After the restart: the version that the BIOS said on the console (None: none), the version in
    the guest's SMBIOS tables, and the document that `rbu status --json` gave in the guest.
    `started` is False where the new BIOS is none that QEMU can start; nothing was seen then.
    """

    status: int | None = None
    error_text: str = ""
    post: PostReport | None = None
    started: bool = True
    console_version: str | None = None
    dmi_version: str | None = None
    status_document: dict[str, Any] | None = None

    @property
    def completion(self) -> Mapping[str, Any]:
        """What `rbu status` says in the guest of how the update ended; nothing where none came."""
        return (self.status_document or {}).get("completion") or {}

    @property
    def failure(self) -> OpenRbuError | None:
        """What is wrong: `rbu update` failed, the BIOS says that the update did, or the machine
        does not run what its BIOS says. None: nothing."""
        if self.post is None:
            if self.status == 0:
                return None
            last = (self.error_text.splitlines() or ["nothing"])[-1].removeprefix("rbu: ")
            text = f"rbu update failed in the guest: {last}"
            return GuestFailedError(text, self.status or ExitCode.FAILED)
        return post_failure(self.post) or self._difference(self.post.version_after)

    def _difference(self, version: str) -> OpenRbuError | None:
        """Where the machine does not run the version that its flash has."""
        if not self.started:
            return UpdateFailedError(
                f"the flash has {version}, but QEMU can't start it: the image's BIOS is no "
                "SeaBIOS; see: rbu lab bios --help"
            )
        seen = (self.console_version, self.dmi_version, self.completion.get("code"))
        if seen == (version, version, "0x0000"):
            return None
        return UpdateFailedError(
            f"the flash has {version}, but the BIOS on the console says {seen[0]}, the guest's "
            f"tables {seen[1]}, and rbu status there {seen[2]}"
        )


def model_for(image: Image) -> str:
    """The model that can be had in the lab and that an image is for.

    :raise NotForThisMachineError: when there is none.
    """
    lab_models = [name for name, kind in MODELS.items() if kind.tokens is TokenKind.INDEXED_IO]
    for name in lab_models:
        if image.header.is_for(MODELS[name].system_id):
            return name
    systems = ", ".join(map(str, image.header.systems)) or "no system"
    raise NotForThisMachineError(
        f"the image is for {systems}, and the lab has no such machine; to see it refused, name one "
        f"with --model: {', '.join(lab_models)}"
    )


def machine_spec_for(
    software: GuestSoftware,
    model: str,
    bios_version: str | None,
    flash_size_bytes: int,
    **more: Any,
) -> MachineSpec:
    """A machine of `model` with a SeaBIOS in its flash, which says `bios_version` (None: the
    model's first).

    :raise UsageError: when the model, the version or the size does not go.
    """
    version = model_named(model).bios_version if bios_version is None else bios_version
    rom = fill_flash(rename_bios(software.seabios.read_bytes(), version), flash_size_bytes)
    return MachineSpec(model=model, bios_version=version, firmware=rom, **more)


def try_update(
    machine: LabMachine,
    image: Path,
    words: Sequence[str],
    *,
    cut_power: bool = False,
    step: Callable[[str], None],
    output: Callable[[bytes], None],
) -> Trial:
    """Update a machine that is on. `words` are more of `rbu update`'s options, `cut_power` takes
    the power away in place of the restart; `step` is told what begins, `output` gets what
    `rbu update` writes to standard output.

    :raise GuestLostError: when the machine is lost.
    """
    step("rbu update in the guest")
    shutil.copyfile(image, machine.disk / image.name)  # the guest has its own /run, /dev/shm, …
    command = [RBU, "update", f"/lab/{image.name}", "--reboot", *words]
    error_text = bytearray()

    def take(stream: int, data: bytes) -> None:
        if stream == 1:
            output(data)
        else:
            error_text.extend(data)

    try:
        ran = machine.run(command, output=take, cut_power=cut_power)
    except CannotStartError as error:
        return Trial(post=error.post, started=False)
    if ran.post is None:
        return Trial(ran.status, error_text.decode(errors="replace").strip())
    step("rbu status in the guest")
    return Trial(
        post=ran.post,
        console_version=machine.bios_on_console,
        dmi_version=machine.read_file(DMI_VERSION).decode().strip(),
        status_document=_status(machine),
    )


def _status(machine: LabMachine) -> dict[str, Any]:
    """What `rbu status --json` says in the guest.

    :raise UpdateFailedError: when it says nothing of that kind.
    """
    said = {1: bytearray(), 2: bytearray()}
    machine.run([RBU, "status", "--json"], output=lambda stream, data: said[stream].extend(data))
    try:
        document: dict[str, Any] = json.loads(said[1])
    except ValueError:
        text = " ".join(said[2].decode(errors="replace").split())
        raise UpdateFailedError(f"rbu status gives no answer in the guest: {text}") from None
    return document
