# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""A virtual Dell as a host of Ansible."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rbu_run
short_description: Run tasks on a virtual Dell machine of openrbu
description:
  - Runs each command of a task by C(rbu run --machine NAME), so that it finds the files of the
    virtual machine at their true paths. An unmodified module, role or playbook does on a virtual
    Dell what it does on a real one.
  - The virtual machine has the controller's other files, processes and network.
author:
  - The openrbu developers (!UNKNOWN)
version_added: 0.3.0
extends_documentation_fragment:
  - connection_pipelining
options:
  machine:
    description: The machine's name.
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: openrbu_machine
  home:
    description: The directory that the machines are in; where it is not said, as rbu finds it.
    type: path
    env:
      - name: OPENRBU_HOME
    vars:
      - name: openrbu_home
  rbu_executable:
    description: The command rbu. Without a path it is looked for beside Ansible's Python, too.
    type: str
    default: rbu
    vars:
      - name: openrbu_executable
  in_process:
    description:
      - Whether the actions of this collection do their work in Ansible's own process, where openrbu
        is installed beside Ansible. The results are the same, and thousands of machines take
        minutes. Turned off, they run their modules through this connection as on a real host.
    type: bool
    default: true
    vars:
      - name: openrbu_in_process
notes:
  - A restart that a task asks for, such as that of M(ansible.builtin.reboot), restarts the virtual
    machine.
"""

import os
import secrets
import shutil
import subprocess
import sys

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

display = Display()


class Connection(ConnectionBase):
    """Commands on one virtual machine."""

    transport = "openrbu.firmware.rbu_run"
    has_pipelining = True
    has_tty = False

    @property
    def machine(self) -> str:
        """The machine's name."""
        return str(self.get_option("machine"))

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Run a shell command on the machine: its exit code, its output and its errors."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        display.vvv(f"RBU RUN {cmd}", host=self.machine)
        return self._run(["/bin/sh", "-c", cmd], in_data)

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file of this computer onto the machine."""
        super().put_file(in_path, out_path)
        try:
            with open(in_path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise AnsibleFileNotFound(f"there is no file {in_path}") from None
        rc, _out, err = self._run(["/bin/sh", "-c", 'cat >"$1"', "sh", out_path], data)
        if rc:
            raise AnsibleError(f"{out_path} can't be written on {self.machine}: {_text(err)}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file of the machine to this computer."""
        super().fetch_file(in_path, out_path)
        rc, out, err = self._run(["/bin/sh", "-c", 'cat <"$1"', "sh", in_path], None)
        if rc:
            raise AnsibleError(f"{in_path} can't be read on {self.machine}: {_text(err)}")
        with open(out_path, "wb") as file:
            file.write(out)

    def reset(self) -> None:
        """Nothing is kept between commands."""

    def close(self) -> None:
        self._connected = False

    def _run(self, words: list[str], data: bytes | None) -> tuple[int, bytes, bytes]:
        """Run a program on the machine. Before it a mark goes to standard error, and is taken out
        here, so that the exit code of a program is told from that of an rbu that could not begin.

        :raise AnsibleConnectionFailure: when it could not begin, such as on a machine that is off.
        """
        mark = secrets.token_hex(8)
        command = [*self._rbu(), "run", "--machine", self.machine, "--"]
        command += ["/bin/sh", "-c", f'printf {mark} >&2; exec "$@"', "sh", *words]
        environment = dict(os.environ)
        if home := self.get_option("home"):
            environment["OPENRBU_HOME"] = home
        try:
            ended = subprocess.run(
                command, input=data or b"", capture_output=True, check=False, env=environment
            )
        except OSError as error:
            raise AnsibleConnectionFailure(f"{command[0]} can't be run: {error}") from error
        before, found, after = ended.stderr.partition(mark.encode())
        if not found:
            raise AnsibleConnectionFailure(_text(before) or f"rbu ended with {ended.returncode}")
        return ended.returncode, ended.stdout, before + after

    def _rbu(self) -> list[str]:
        """The command rbu, as words."""
        asked = self.get_option("rbu_executable")
        beside = os.path.join(os.path.dirname(sys.executable), asked)
        return [shutil.which(asked) or (beside if os.access(beside, os.X_OK) else asked)]


def _text(data: bytes) -> str:
    """The last line of what a program said."""
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
