"""Starts the real ironic-python-agent, asks it for what a file says, and ends it, as Ironic's
conductor does. It runs with the agent's Python, on a virtual machine.

    python conductor.py ASKED ANSWERS

ASKED is JSON: commands of the agent's API, each a name and parameters. ANSWERS gets what the agent
answers to each.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TOKEN = "of-this-test"
PATIENCE_S = 120

SETTINGS = f"""\
[DEFAULT]
agent_token = {TOKEN}
listen_tls = False
enable_auto_tls = False
ntp_server =
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Agent:
    """The agent, as a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        settings = directory / "agent.conf"
        settings.write_text(SETTINGS)
        program = Path(sys.executable).with_name("ironic-python-agent")
        words = [program, "--config-file", settings, "--listen_host", "127.0.0.1"]
        self.log = directory / "agent.log"
        stand_ins = Path(__file__).with_name("bin")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*words, "--listen_port", str(self._port)],
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": f"{stand_ins}:{os.environ['PATH']}"},
            )

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.call("status")
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the agent does not answer:\n{self.log.read_text()}")
                time.sleep(0.05)
            else:
                return

    def call(self, path: str, body: object = None) -> Any:
        """What its API answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/v1/{path}",
            data,
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            return json.load(error)


def main(asked: Path, answers: Path) -> None:
    agent = Agent(answers.parent)
    try:
        agent.wait()
        path = f"commands/?wait=true&agent_token={TOKEN}"
        said = [
            agent.call(path, {"name": name, "params": parameters})
            for name, parameters in json.loads(asked.read_text())
        ]
        answers.write_text(json.dumps(said))
    finally:
        agent.process.kill()
        agent.process.wait()


main(*map(Path, sys.argv[1:]))
