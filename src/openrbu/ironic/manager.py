"""A hardware manager for the agent that Ironic runs on a bare-metal machine (ironic-python-agent).

It offers two steps for cleaning and servicing, which run only where they are asked for:

- `update_bios` stages an image, verifies it and arms the BIOS; then Ironic restarts the machine
  (`reboot_requested`). The restart has to keep memory: the agent's own, not one by the BMC, which
  switches the power off.
- `check_bios`, after that restart, fails where another version runs, with the BIOS's own reason.
  The agent's memory is new by then, so the image's version is an argument.

Source: https://docs.openstack.org/ironic-python-agent/latest/contributor/hardware_managers.html.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from ironic_python_agent import config, errors, hardware, utils
from oslo_log import log

from openrbu import __version__, api
from openrbu.errors import OpenRbuError, UsageError
from openrbu.formats.dell import CompletionCode, describe_completion
from openrbu.system.files import MAX_INPUT_BYTES
from openrbu.units import MIB

LOG = log.getLogger(__name__)

_UPDATE_ARGUMENTS = {
    "image_url": {
        "description": "Where the BIOS image is, or a package with one: http, https or file.",
        "required": True,
    },
    "sha256": {"description": "The SHA-256 of that file, in hex.", "required": True},
    "allow_downgrade": {
        "description": "Install an older version, too.",
        "required": False,
    },
}

_CHECK_ARGUMENTS = {
    "bios_version": {"description": "The version that has to run.", "required": True},
}


class RbuHardwareManager(hardware.HardwareManager):
    """Updates the BIOS of Dell machines that take RBU updates."""

    HARDWARE_MANAGER_NAME = "openrbu"
    HARDWARE_MANAGER_VERSION = __version__

    def evaluate_hardware_support(self) -> int:
        """What the agent asks first: a machine whose status can be read, and that takes updates by
        RBU, is supported; no other is."""
        try:
            with api.open_machine(reading=True) as machine:
                target = machine.status().target
        except OpenRbuError as error:
            LOG.info("no BIOS updates by RBU here: %s", error)
            return int(hardware.HardwareSupport.NONE)
        if target.is_dell and target.rbu is not None:
            return int(hardware.HardwareSupport.MAINLINE)
        LOG.info("no BIOS updates by RBU here: %s does not say that it takes them", target.title)
        return int(hardware.HardwareSupport.NONE)

    def get_clean_steps(self, node: dict[str, Any], ports: list[Any]) -> list[dict[str, Any]]:
        """The steps. Priority 0: none runs without being asked for."""
        return [
            _step("update_bios", _UPDATE_ARGUMENTS, reboot_requested=True),
            _step("check_bios", _CHECK_ARGUMENTS, reboot_requested=False),
        ]

    def get_service_steps(self, node: dict[str, Any], ports: list[Any]) -> list[dict[str, Any]]:
        """The same for a machine in use."""
        return self.get_clean_steps(node, ports)

    def update_bios(
        self,
        node: dict[str, Any],
        ports: list[Any],
        image_url: str,
        sha256: str,
        allow_downgrade: bool = False,
    ) -> dict[str, Any]:
        """Stage and verify an image, and arm the BIOS. A machine that runs this version already is
        left as it is.

        :raise ImageDownloadError | ImageChecksumError: when the file is not to be had, or another.
        :raise InvalidCommandParamsError: when an argument can't be right.
        :raise CommandExecutionError: when the update is not possible, or failed; nothing is armed.
        """
        if not isinstance(allow_downgrade, bool):
            raise errors.InvalidCommandParamsError("allow_downgrade is true or false")
        with _mapped_errors(), _fetched(image_url, sha256) as path:
            image = api.read_image(path)
            with api.open_machine() as machine:
                planned = machine.plan(image, api.Options(allow_downgrade=allow_downgrade))
                outcome = machine.update(planned)
        return {
            "changed": outcome is not None,
            "from_version": planned.target.bios.version,
            "to_version": planned.image.header.version.text,
        }

    def check_bios(
        self, node: dict[str, Any], ports: list[Any], bios_version: str
    ) -> dict[str, Any]:
        """Check that a version runs.

        :raise CommandExecutionError: when another does; with the BIOS's reason, where it has one.
        """
        with _mapped_errors(), api.open_machine(reading=True) as machine:
            target = machine.status().target
        code = None if target.rbu is None else target.rbu.completion_code
        if target.bios.version != bios_version:
            said = "" if code in (None, CompletionCode.COMPLETED) else _said(code)
            raise errors.CommandExecutionError(
                f"the BIOS is {target.bios.version}, not {bios_version}{said}"
            )
        return {"version": target.bios.version, "completion_code": code}


def _said(code: int) -> str:
    return f"; the BIOS says {code:#06x}: {describe_completion(code)}"


def _step(name: str, arguments: dict[str, Any], *, reboot_requested: bool) -> dict[str, Any]:
    return {
        "step": name,
        "priority": 0,
        "interface": "deploy",
        "reboot_requested": reboot_requested,
        "abortable": False,
        "argsinfo": arguments,
    }


@contextlib.contextmanager
def _mapped_errors() -> Iterator[None]:
    """Raise errors of openrbu as those that the agent reports to Ironic."""
    try:
        yield
    except UsageError as error:
        raise errors.InvalidCommandParamsError(str(error)) from error
    except OpenRbuError as error:
        raise errors.CommandExecutionError(f"{error} ({error.kind})") from error


@contextlib.contextmanager
def _fetched(url: str, sha256: str) -> Iterator[Path]:
    """A file with what is at a URL, for the block.

    :raise ImageDownloadError | ImageChecksumError: as `update_bios`.
    """
    with tempfile.TemporaryDirectory(prefix="openrbu-") as directory:
        path = Path(directory, Path(unquote(urlsplit(url).path)).name or "image")
        digest = hashlib.sha256()
        try:
            with path.open("wb") as file:
                for piece in _pieces(url):
                    file.write(piece)
                    digest.update(piece)
                    if file.tell() > MAX_INPUT_BYTES:
                        raise errors.ImageDownloadError(url, "it is too large for an image")
        except (OSError, requests.RequestException) as error:
            raise errors.ImageDownloadError(url, str(error)) from error
        if digest.hexdigest() != sha256.lower():
            raise errors.ImageChecksumError(url, path, sha256, digest.hexdigest())
        yield path


def _pieces(url: str) -> Iterator[bytes]:
    """What is at a URL, in pieces.

    :raise OSError | RequestException: when it is not to be had.
    :raise InvalidCommandParamsError: when it is no URL of these kinds.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        with Path(unquote(parts.path)).open("rb") as file:
            yield from iter(lambda: file.read(MIB), b"")
    elif parts.scheme in ("http", "https"):
        verify, certificate = utils.get_ssl_client_options(config.CONF)
        timeout_s = config.CONF.image_download_connection_timeout
        with requests.get(
            url, verify=verify, cert=certificate, timeout=timeout_s, stream=True
        ) as reply:
            reply.raise_for_status()
            yield from reply.iter_content(MIB)
    else:
        raise errors.InvalidCommandParamsError(f"{url!r} is no http, https or file URL")
