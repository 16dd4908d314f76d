# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The runner of an action on a virtual machine: openrbu in Ansible's own process.

A module starts Python and rbu for each task, which costs a second of a processor. A virtual machine
is a directory of this computer, so for thousands of them the same command line runs here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Callable, Iterator

from ansible.errors import AnsibleError
from ansible_collections.openrbu.firmware.plugins.module_utils.answers import Answer, parse_answer

TRANSPORT = "openrbu.firmware.rbu_run"
HOME_VARIABLE = "OPENRBU_HOME"


LOADED_LATE = (
    "api.policies",
    "cli.app",
    "cli.arming",
    "cli.commands",
    "cli.machines",
    "cli.main",
    "cli.status",
    "cli.updates",
    "hosts.virtual",
    "hosts.whole_paths",
    "linux.memory_added",
    "machine.bios_start",
    "machine.factory_tables",
    "memory.scan",
    "sharing.access",
    "system.libc",
    "update.choosing",
    "update.flow",
    "update.restarted",
)
"""The modules of openrbu that the actions and the inventory use, each with those that it loads."""


def preload() -> bool:
    """Import what the commands need, once, before Ansible forks its workers: in each of them that
    would take longer than all else. Whether openrbu is there."""
    try:
        for name in LOADED_LATE:
            importlib.import_module(f"openrbu.{name}")
        importlib.import_module("numpy").zeros(1)  # which openrbu loads at its first use
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def _home(directory: str | None) -> Iterator[None]:
    """In the block the machines are those below `directory`; None: as the environment says."""
    before = os.environ.get(HOME_VARIABLE)
    if directory is not None:
        os.environ[HOME_VARIABLE] = directory
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(HOME_VARIABLE, None)
        else:
            os.environ[HOME_VARIABLE] = before


@contextlib.contextmanager
def _words_for(password: str | None) -> Iterator[list[str]]:
    """The words with which rbu gets the password: the number of a pipe that it is in."""
    if password is None:
        yield []
        return
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(password.encode("utf-8", "surrogateescape") + b"\n")
        os.set_inheritable(reading, True)  # rbu takes only what it was started with
        yield ["--password-fd", str(reading)]
    finally:
        with contextlib.suppress(OSError):  # rbu has closed it
            os.close(reading)


def call(words: list[str], home: str | None = None) -> tuple[int, str, str]:
    """Run a command line of rbu in this process: its exit code, and what it printed.

    :raise AnsibleError: when openrbu is not installed beside Ansible.
    """
    try:
        from openrbu.cli.main import main
    except ImportError as error:
        raise AnsibleError(f"openrbu can't be imported beside Ansible: {error}") from error
    out, err = io.StringIO(), io.StringIO()
    with _home(home), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def machine_runner(name: str, home: str | None) -> Callable[..., Answer]:
    """A runner for the virtual machine of that name."""

    def run(words: list[str], password: str | None = None) -> Answer:
        with _words_for(password) as secret:
            command = [*words[:1], "--machine", name, "--json", *secret, *words[1:]]
            return parse_answer(words, *call(command, home))

    return run
