"""An update tried in the lab from start to end: `rbu update --reboot` in a guest, and its result.

The machine is made for the image: it is a model that the image's header names, and its flash has
the size of the image's data and contains a SeaBIOS with an older version.
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
    """The result of an update in a guest.

    `status`: the exit status of `rbu update` when it ended without a restart. Then only
    `error_text` is set besides: what it wrote to standard error. `post`: what the BIOS did at the
    restart. `started`: False when QEMU can't start the new BIOS; then the fields after it are not
    set. They are from after the restart: the version that the BIOS wrote to the console (None: it
    wrote none), the version in the guest's SMBIOS tables, and the document of `rbu status --json`
    in the guest.
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
        """The field `completion` of `rbu status --json` in the guest; empty when it has none."""
        return (self.status_document or {}).get("completion") or {}

    @property
    def failure(self) -> OpenRbuError | None:
        """The error: `rbu update` failed, the BIOS reports that the update failed, or the machine
        does not run the version that its BIOS reports. None: the update worked."""
        if self.post is None:
            if self.status == 0:
                return None
            last = (self.error_text.splitlines() or ["nothing"])[-1].removeprefix("rbu: ")
            text = f"rbu update failed in the guest: {last}"
            return GuestFailedError(text, self.status or ExitCode.FAILED)
        return post_failure(self.post) or self._difference(self.post.version_after)

    def _difference(self, version: str) -> OpenRbuError | None:
        """The error when the machine does not run `version`, which its flash has; None: it does."""
        if not self.started:
            return UpdateFailedError(
                f"the flash has {version}, but QEMU can't start it: the image's BIOS is not a "
                "SeaBIOS; to make such an image: rbu lab bios --help"
            )
        seen = (self.console_version, self.dmi_version, self.completion.get("code"))
        if seen == (version, version, "0x0000"):
            return None
        return UpdateFailedError(
            f"the flash has {version}, but the BIOS on the console says {seen[0]}, the guest's "
            f"tables {seen[1]}, and rbu status there {seen[2]}"
        )


def model_for(image: Image) -> str:
    """The first model of the lab that an image is for.

    :raise NotForThisMachineError: when the image is for none of the lab's models.
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
    """The spec of a machine of `model` with a SeaBIOS in its flash that has the version
    `bios_version` (None: the model's first).

    :raise UsageError: when there is no such model, or the version or the size is not possible.
    """
    version = model_named(model).bios_version if bios_version is None else bios_version
    rom = fill_flash(rename_bios(software.seabios.read_bytes(), version), flash_size_bytes)
    return MachineSpec(model=model, bios_version=version, firmware=rom, **more)


def try_update(
    machine: LabMachine,
    image: Path,
    words: Sequence[str],
    *,
    password: str | None = None,
    cut_power: bool = False,
    step: Callable[[str], None],
    output: Callable[[bytes], None],
) -> Trial:
    """Update a machine that is on. `words` are further options of `rbu update`, which reads the
    `password` of the BIOS from standard input. With `cut_power` the power is cut in place of the
    restart. `step` gets a line before each step, `output` what
    `rbu update` writes to standard output.

    :raise GuestLostError: when the guest is lost.
    """
    step("rbu update in the guest")
    shutil.copyfile(image, machine.disk / image.name)  # the guest has its own /run, /dev/shm, …
    command = [RBU, "update", f"/lab/{image.name}", "--reboot", *words]
    if password is not None:
        command += ["--password-file", "-"]
    error_text = bytearray()

    def take(stream: int, data: bytes) -> None:
        if stream == 1:
            output(data)
        else:
            error_text.extend(data)

    try:
        typed = b"" if password is None else password.encode("ascii")
        ran = machine.run(command, standard_input=typed, output=take, cut_power=cut_power)
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
    """The document of `rbu status --json` in the guest.

    :raise UpdateFailedError: when its output is not JSON.
    """
    said = {1: bytearray(), 2: bytearray()}
    machine.run([RBU, "status", "--json"], output=lambda stream, data: said[stream].extend(data))
    try:
        document: dict[str, Any] = json.loads(said[1])
    except ValueError:
        text = " ".join(said[2].decode(errors="replace").split())
        raise UpdateFailedError(f"rbu status failed in the guest: {text}") from None
    return document
